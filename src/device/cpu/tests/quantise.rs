//! The quantised forms of activations against its definition, written here in the plainest way.

use super::super::act::{BLOCK, Plain, WORDS, tiles};
use super::*;

/// (codes, d) of a block, in the words of the definition: A = the largest magnitude; infinite or NaN: d = NaN, q = 0;
/// below 2^-100: d = 0, q = 0; else d = A / 127, q = round-to-even(x * (127 / A)).
fn definition(x: &[f32]) -> ([i32; BLOCK], f32) {
    if x.iter().any(|x| !x.is_finite()) {
        return ([0; BLOCK], f32::NAN);
    }
    let a = x.iter().fold(0f32, |a, x| if x.abs() > a { x.abs() } else { a });
    if f64::from(a) < 2f64.powi(-100) {
        return ([0; BLOCK], 0.0);
    }
    let inverse = 127.0 / a;
    (std::array::from_fn(|i| (x[i] * inverse).round_ties_even() as i32), a / 127.0)
}

fn blocks() -> Vec<[f32; BLOCK]> {
    let mut rng = Rng::new(3);
    let mut all = Vec::new();
    for exponent in -126..=126 {
        let scale = 2f64.powi(exponent) as f32;
        all.push(std::array::from_fn(|_| rng.signed() * scale));
    }
    for numbers in [Numbers::Ordinary, Numbers::Extreme, Numbers::NotFinite] {
        for _ in 0..300 {
            all.push(random_floats(&mut rng, BLOCK, numbers).try_into().unwrap());
        }
    }
    // Ties: with A = 127 the codes are the values themselves, rounded; half of them lie between two codes.
    all.push(std::array::from_fn(|i| if i == 0 { 127.0 } else { i as f32 / 2.0 - 8.0 }));
    all.push(std::array::from_fn(|i| if i == 31 { -127.0 } else { 126.5 - i as f32 }));
    // The threshold, and one step to each side of it; subnormals; zeros; signs of the largest.
    let threshold = 2f64.powi(-100) as f32;
    for a in [threshold, f32::from_bits(threshold.to_bits() - 1), f32::from_bits(threshold.to_bits() + 1), 1e-40, 0.0] {
        all.push(std::array::from_fn(|i| if i == 17 { -a } else { a / 3.0 }));
    }
    for strange in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::from_bits(0x7F80_0001)] {
        for at in [0, 15, 16, 31] {
            all.push(std::array::from_fn(|i| if i == at { strange } else { 1.0 + i as f32 }));
        }
    }
    all.push([f32::MAX; BLOCK]);
    all.push([-f32::MAX; BLOCK]);
    all
}

#[test]
fn blocks_follow_the_definition() {
    for (isa, device) in variants_and_shapes() {
        for x in blocks() {
            let (codes, d) = definition(&x);
            let (_, words) = quantised(&act(&device, BLOCK, &x, Precision::Sixteen), 0);
            let found: Vec<i32> =
                words[0][..8].iter().flat_map(|word| word.to_le_bytes()).map(|code| i32::from(code as i8)).collect();
            assert_eq!(found, codes, "{isa} {x:?}");
            let (sum, second) = (codes.iter().sum::<i32>(), codes[16..].iter().sum::<i32>());
            assert_eq!((words[0][8], words[0][9]), (-128 * sum, -128 * second), "{isa} {x:?}");
            let found = [10, 11].map(|i| f32::from_bits(words[0][i] as u32));
            assert_same(&found, &[d, d * sum as f32], || format!("{isa} {x:?}"));
            let (_, eight) = quantised(&act(&device, BLOCK, &x, Precision::Eight), 0);
            assert_eq!(eight[0][..], words[0][..WORDS], "{isa} {x:?}");
            // What is left of each value, in 256ths of a step.
            let t = |i: usize| x[i] * (127.0 / x.iter().fold(0f32, |a, x| if x.abs() > a { x.abs() } else { a }));
            let rest: Vec<i32> = (0..BLOCK)
                .map(|i| if d > 0.0 { ((t(i) - codes[i] as f32) * 256.0).round_ties_even() as i32 } else { 0 })
                .map(|r| r.clamp(-127, 127))
                .collect();
            let found: Vec<i32> =
                words[0][12..20].iter().flat_map(|word| word.to_le_bytes()).map(|code| i32::from(code as i8)).collect();
            assert_eq!(found, rest, "{isa} {x:?}");
            let both: Vec<i32> = codes.iter().zip(&rest).map(|(q, r)| 256 * q + r).collect();
            let (sum, second) = (both.iter().sum::<i32>(), both[16..].iter().sum::<i32>());
            assert_eq!((words[0][20], words[0][21]), (-128 * sum, -128 * second), "{isa} {x:?}");
            let found = [22, 23].map(|i| f32::from_bits(words[0][i] as u32));
            assert_same(&found, &[d / 256.0, d / 256.0 * sum as f32], || format!("{isa} {x:?}"));
        }
    }
}

#[test]
fn the_error_is_at_most_half_a_step() {
    let device = Device::new(Threads::new(1), Isa::Scalar).unwrap();
    let mut rng = Rng::new(4);
    for _ in 0..500 {
        let x = rng.floats(BLOCK);
        let (values, words) = quantised(&act(&device, BLOCK, &x, Precision::Sixteen), 0);
        let d = f64::from(f32::from_bits(words[0][10] as u32));
        // A rest of half a step is cut to 127/256; f32 rounding of t is some 2^-17 of a step.
        let fine = 1.0 / 256.0 + 1e-4;
        assert!(values.iter().zip(&x).all(|(y, &x)| (y - f64::from(x)).abs() <= fine * d), "{x:?}");
        let (values, _) = quantised(&act(&device, BLOCK, &x, Precision::Eight), 0);
        assert!(values.iter().zip(&x).all(|(y, &x)| (y - f64::from(x)).abs() <= 0.50001 * d), "{x:?}");
    }
}

#[test]
fn tiles_cover_the_columns_in_order() {
    for widest in [1, 2, 4, 8, 12] {
        for columns in 0..60 {
            let mut next = 0;
            for (start, width) in tiles(columns, widest) {
                assert_eq!(start, next);
                assert!([1, 2, 4, 8, 12].contains(&width) && width <= widest, "{columns} {widest}: {width}");
                next += width;
            }
            assert_eq!(next, columns);
        }
    }
    assert_eq!(tiles(29, 12).map(|(_, width)| width).collect::<Vec<_>>(), [12, 8, 8, 1]);
    assert_eq!(tiles(20, 12).map(|(_, width)| width).collect::<Vec<_>>(), [12, 8]);
    assert_eq!(tiles(27, 12).map(|(_, width)| width).collect::<Vec<_>>(), [12, 12, 2, 1]);
    assert_eq!(tiles(7, 4).collect::<Vec<_>>(), [(0, 4), (4, 2), (6, 1)]);
}

#[test]
fn a_column_is_the_same_in_every_tile() {
    const WIDTH: usize = 96;
    let mut rng = Rng::new(5);
    for numbers in [Numbers::Extreme, Numbers::NotFinite] {
        let x = random_floats(&mut rng, 25 * WIDTH, numbers);
        let alone: Vec<_> = x
            .chunks_exact(WIDTH)
            .map(|x| {
                quantised(&act(&Device::new(Threads::new(1), Isa::Scalar).unwrap(), WIDTH, x, Precision::Sixteen), 0).1
            })
            .collect();
        for (isa, device) in variants_and_shapes() {
            for columns in 1..=25 {
                let act = act(&device, WIDTH, &x[..columns * WIDTH], Precision::Sixteen);
                assert_eq!((act.rows(), act.width()), (columns, WIDTH));
                assert_same(act.values(), &x[..columns * WIDTH], || format!("{isa} {columns}"));
                for (t, expected) in alone[..columns].iter().enumerate() {
                    assert_eq!(quantised(&act, t).1, *expected, "{isa} column {t} of {columns}");
                }
            }
        }
    }
}

#[test]
fn rows_are_the_same_in_any_number_of_jobs() {
    const WIDTH: usize = 64;
    let x = random_floats(&mut Rng::new(6), 30 * WIDTH, Numbers::Extreme);
    // Tiles of 12, 8, 8 and 2.
    let mut act = Act::default();
    act.reset(30, WIDTH, Precision::Sixteen, 12).unwrap();
    for (jobs, cut) in
        [(1, [12, 8, 8, 2].to_vec()), (4, [12, 8, 8, 2].to_vec()), (5, [6, 6, 4, 4, 4, 4, 1, 1].to_vec())]
    {
        assert_eq!(act.rows_mut(jobs).iter().map(|rows| rows.values.len() / WIDTH).collect::<Vec<_>>(), cut);
    }
    for groups in [vec![8], vec![30], vec![0, 1, 14, 3, 0, 12]] {
        let mut act = Act::default();
        let mut expected = None;
        for jobs in 1..40 {
            act.reset_groups(groups.iter().copied(), WIDTH, Precision::Sixteen, 12).unwrap();
            let count = act.rows();
            for mut rows in act.rows_mut(jobs) {
                rows.values.copy_from_slice(&x[rows.start * WIDTH..][..rows.values.len()]);
                rows.quantise(Plain);
            }
            assert_eq!(act.values(), &x[..count * WIDTH], "{jobs} jobs");
            let words: Vec<i32> = (0..act.groups())
                .flat_map(|group| act.tiles(group).flat_map(|(start, width)| act.tile(start, width)))
                .copied()
                .collect();
            assert_eq!(words, *expected.get_or_insert_with(|| words.clone()), "{jobs} jobs for {groups:?}");
            // What one run leaves is not what the next one finds.
            act.rows_mut(1).iter_mut().for_each(|rows| {
                rows.values.fill(1.0);
                rows.quantise(Plain);
            });
        }
    }
}

#[test]
fn values_alone_have_no_blocks() {
    let mut act = Act::default();
    act.reset(3, 33, Precision::Float, 12).unwrap();
    act.rows_mut(1).iter_mut().for_each(|rows| rows.quantise(Plain));
    assert!(act.tile(0, 0).is_empty());
    // The same memory serves a larger and then a smaller call.
    for rows in [40, 2, 7] {
        act.reset(rows, 64, Precision::Eight, 4).unwrap();
        assert_eq!(act.values().len(), rows * 64);
        assert_eq!(act.rows_mut(1).iter().map(|rows| rows.values.len()).sum::<usize>(), rows * 64);
    }
}
