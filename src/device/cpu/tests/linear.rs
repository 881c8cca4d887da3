//! Matrix products: every format, instruction set, number of columns and threads; exactness against ggml's goldens.

use super::super::Product;
use super::*;
use crate::gguf::Gguf;

/// The precisions in which a weight takes activations.
fn precisions(weight: &Weight) -> &'static [Precision] {
    if weight.takes_blocks() { &[Precision::Eight, Precision::Sixteen] } else { &[Precision::Float] }
}

/// W act + b on a device.
fn product(device: &Device, weight: &Weight, bias: Option<&[f32]>, x: &[f32], precision: Precision) -> Vec<f32> {
    let act = act(device, weight.shape().columns, x, precision);
    let (mut out, fine) = (Buffer::default(), precision == Precision::Sixteen);
    device.linear(&act, [Product { weight, bias, fine, out: &mut out }]).unwrap();
    assert_eq!(out.rows(), act.rows());
    out.data().to_vec()
}

/// Every device gives the product that the first one gives.
fn assert_same_on_all(
    devices: &[(String, Device)],
    (weight, bias): (&Weight, Option<&[f32]>),
    x: &[f32],
    precision: Precision,
    what: &str,
) {
    let (first, others) = devices.split_first().unwrap();
    let expected = product(&first.1, weight, bias, x, precision);
    for (name, device) in others {
        assert_same(&product(device, weight, bias, x, precision), &expected, || format!("{name}: {what}"));
    }
}

/// Row lengths that suit a format.
fn columns(format: Format) -> [usize; 3] {
    match format.block_len() {
        1 => [7, 33, 256],
        32 => [256, 288, 1024],
        64 => [256, 320, 1024],
        _ => [256, 512, 1024],
    }
}

/// The last is enough for codes to be unpacked once on any CPU, by which tiles of 12 and 8 are computed and that of 1 is not; the
/// one before on CPUs of Intel; with AVX2 those from 12 on, by tiles of 4.
const T: [usize; 13] = [1, 2, 3, 4, 5, 8, 11, 12, 13, 16, 25, 45, 105];

#[test]
fn every_instruction_set_and_thread_count_gives_the_same_bits() {
    let devices = devices();
    let mut rng = Rng::new(10);
    for &format in Format::ALL {
        for (i, rows) in [1, 16, 17, 40].into_iter().enumerate() {
            for (j, columns) in columns(format).into_iter().enumerate() {
                let shape = Shape { format, rows, columns };
                let numbers = [Numbers::Ordinary, Numbers::Extreme, Numbers::NotFinite][(i + j) % 3];
                let weight = packed(shape, &random_matrix(&mut rng, shape, numbers));
                let bias = rng.floats(rows);
                let bias = (rows != 16).then_some(&bias[..]);
                for t in T {
                    let x = random_floats(&mut rng, t * columns, numbers);
                    for &precision in precisions(&weight) {
                        let what = format!("{shape:?}, {t} columns, {numbers:?}, {precision:?}");
                        assert_same_on_all(&devices, (&weight, bias), &x, precision, &what);
                    }
                }
            }
        }
    }
}

/// Of a chunk of panels some are unpacked, multiplied with all columns, and then the next. The last chunk has an odd number.
/// (Those of Q2_K are unpacked from 36 columns on, whoever made the CPU.)
#[test]
fn panels_are_unpacked_in_turn() {
    let (devices, mut rng) = (devices(), Rng::new(15));
    let shape = Shape { format: Format::Q2K, rows: 16 * 141 - 3, columns: 1024 };
    let weight = packed(shape, &random_matrix(&mut rng, shape, Numbers::Ordinary));
    let x = rng.floats(37 * 1024);
    assert_same_on_all(&devices, (&weight, None), &x, Precision::Eight, "panels in turn");
}

/// Integers of 16 bits, where an instruction set has them, hold the sums that can come.
#[test]
fn the_largest_codes_and_activations_overflow_nothing() {
    let devices = devices();
    for &format in Format::ALL.iter().filter(|format| format.can_encode()) {
        let shape = Shape { format, rows: 16, columns: 256 };
        // The first value of a block makes the others, which lie at the other end, the largest codes.
        let values: Vec<f32> = (0..shape.rows * shape.columns).map(|i| if i % 32 == 0 { -1.0 } else { 1.0 }).collect();
        let mut bytes = vec![0; shape.rows * shape.row_bytes()];
        format.encode(&values, &mut bytes).unwrap();
        let weight = packed(shape, &bytes);
        let x: Vec<f32> = (0..97 * shape.columns).map(|i| [1.0, -1.0][i / shape.columns % 2]).collect();
        for &precision in precisions(&weight) {
            assert_same_on_all(&devices, (&weight, None), &x, precision, &format!("{format:?}, {precision:?}"));
        }
    }
}

#[test]
fn a_column_does_not_depend_on_its_neighbours() {
    let mut rng = Rng::new(11);
    for (name, device) in devices() {
        for &format in Format::ALL {
            let shape = Shape { format, rows: 33, columns: 256 };
            let weight = packed(shape, &random_matrix(&mut rng, shape, Numbers::Ordinary));
            let x = random_floats(&mut rng, 27 * 256, Numbers::Ordinary);
            for &precision in precisions(&weight) {
                let whole = product(&device, &weight, None, &x, precision);
                for t in [0, 11, 12, 23, 24, 26] {
                    let alone = product(&device, &weight, None, &x[t * 256..(t + 1) * 256], precision);
                    let what = || format!("{name} {format:?} column {t}, {precision:?}");
                    assert_same(&alone, &whole[t * 33..(t + 1) * 33], what);
                }
            }
        }
    }
}

#[test]
fn several_matrices_in_one_stage_are_what_they_are_alone() {
    let mut rng = Rng::new(12);
    let matrix = |format, rows, rng: &mut Rng| {
        let shape = Shape { format, rows, columns: 512 };
        packed(shape, &random_matrix(rng, shape, Numbers::Ordinary))
    };
    let weights = [(Format::Q4K, 100), (Format::F16, 16), (Format::Q6K, 1)].map(|(f, rows)| matrix(f, rows, &mut rng));
    let bias = rng.floats(16);
    // As many columns as codes are unpacked once for, and one.
    let x = rng.floats(97 * 512);
    for (name, device) in devices() {
        let act = act(&device, 512, &x, Precision::Sixteen);
        let mut outs = [Buffer::default(), Buffer::default(), Buffer::default()];
        let [a, b, c] = &mut outs;
        let products = [
            Product { weight: &weights[0], bias: None, fine: false, out: a },
            Product { weight: &weights[1], bias: Some(&bias), fine: false, out: b },
            Product { weight: &weights[2], bias: None, fine: true, out: c },
        ];
        device.linear(&act, products).unwrap();
        for (i, (weight, out)) in weights.iter().zip(&outs).enumerate() {
            // The first takes the 8 bits of activations that are there in 16 for the third.
            let precision = [Precision::Eight, Precision::Float, Precision::Sixteen][i];
            let expected = product(&device, weight, (i == 1).then_some(&bias[..]), &x, precision);
            assert_same(out.data(), &expected, || format!("{name}: matrix {i}"));
        }
    }
}

/// The result against the sum in f64 of the decoded row times the activations as they stand in the blocks. `abs` is
/// the sum of the magnitudes of the terms, the bias among them; a chain of roundings adds up to a few of its 2^-24.
#[test]
fn products_are_exact_to_rounding() {
    let mut rng = Rng::new(13);
    let device = Device::new(Threads::new(1), Isa::Scalar).unwrap();
    for &format in Format::ALL {
        let shape = Shape { format, rows: 19, columns: 1024 };
        let bytes = random_matrix(&mut rng, shape, Numbers::Ordinary);
        let (scale, bias) = (0.75, rng.floats(19));
        let weight = packed(shape, &bytes).scaled(scale);
        let mut x = rng.floats(1024);
        x[100] = 300.0;
        x[200..232].fill(0.0);
        for &precision in precisions(&weight) {
            let found = product(&device, &weight, Some(&bias), &x, precision);
            let values = match precision {
                Precision::Float => x.iter().map(|&x| f64::from(x)).collect(),
                _ => quantised(&act(&device, 1024, &x, precision), 0).0,
            };
            let mut w = vec![0.0; 1024];
            for (r, bytes) in bytes.chunks_exact(shape.row_bytes()).enumerate() {
                format.decode(bytes, &mut w).unwrap();
                let products = w.iter().zip(&values).map(|(&w, x)| f64::from(w) * f64::from(scale) * x);
                let terms: Vec<f64> = products.chain([f64::from(bias[r])]).collect();
                let (sum, abs) = (terms.iter().sum::<f64>(), terms.iter().copied().map(f64::abs).sum::<f64>());
                let error = (f64::from(found[r]) - sum).abs();
                assert!(error <= 4e-6 * abs, "{format:?} row {r}: {} for {sum}, {:e} of {abs}", found[r], error / abs);
            }
        }
    }
}

/// A row of `dot.csv`: the exact product of the decoded row and the f32 activations, and the sum of its magnitudes.
struct Golden {
    dot: f64,
    abs: f64,
}

fn goldens(folder: &std::path::Path, format: Format) -> Vec<Golden> {
    let csv = std::fs::read_to_string(folder.join("dot.csv")).unwrap();
    let rows = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let goldens: Vec<Golden> = rows
        .filter(|fields| fields[0] == format.name())
        .map(|fields| Golden { dot: fields[2].parse().unwrap(), abs: fields[3].parse().unwrap() })
        .collect();
    assert_eq!(goldens.len(), 8, "{format:?}");
    goldens
}

#[test]
fn products_agree_with_the_goldens() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quant");
    // ggml made products for the formats that it can encode.
    let formats = Format::ALL.iter().copied().filter(|format| *format != Format::F32 && format.can_encode());
    for format in formats {
        let file = std::fs::read(folder.join(format!("{}.gguf.zst", format.name()))).unwrap();
        let gguf = Gguf::from_bytes(zstd::decode_all(&file[..]).unwrap()).unwrap();
        let w = gguf.tensor("dot.w").unwrap();
        let shape = Shape { format, rows: w.rows(), columns: w.row_len() };
        let mut bytes = vec![0; w.bytes as usize];
        gguf.read(w, 0, &mut bytes).unwrap();
        let x = gguf.decode(gguf.tensor("dot.a").unwrap()).unwrap();
        let weight = packed(shape, &bytes);
        for (isa, device) in variants_and_shapes() {
            for &precision in precisions(&weight) {
                let found = product(&device, &weight, None, &x, precision);
                for (r, golden) in goldens(&folder, format).into_iter().enumerate() {
                    let error = (f64::from(found[r]) - golden.dot).abs() / golden.abs;
                    // What 8-bit activations cost, by ggml's own measure; 16 bits cost 1/128 of that and float formats
                    // rounding only.
                    let limit = match precision {
                        Precision::Float => 1e-6,
                        Precision::Eight => 1.3e-3,
                        Precision::Sixteen => 1.1e-5,
                    };
                    assert!(error <= limit, "{isa} {format:?} row {r}: {} for {}, {error:e}", found[r], golden.dot);
                    if weight.takes_blocks() {
                        let (values, _) = quantised(&act(&device, shape.columns, &x, precision), 0);
                        let mut row = vec![0.0; shape.columns];
                        weight.row(r, &mut row).unwrap();
                        let exact: f64 = row.iter().zip(&values).map(|(&w, x)| f64::from(w) * x).sum();
                        let error = (f64::from(found[r]) - exact).abs() / golden.abs;
                        assert!(error <= 1e-6, "{isa} {format:?} row {r}: {} for {exact}, {error:e}", found[r]);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_is_seen_in_the_result() {
    for (name, device) in devices() {
        for &format in Format::ALL {
            let shape = Shape { format, rows: 16, columns: 256 };
            let weight = packed(shape, &random_matrix(&mut Rng::new(14), shape, Numbers::Ordinary));
            for strange in [f32::NAN, f32::INFINITY] {
                let mut x = vec![1.0; 2 * 256];
                x[70] = strange;
                let precision = precisions(&weight)[precisions(&weight).len() - 1];
                let found = product(&device, &weight, None, &x, precision);
                assert!(found[..16].iter().all(|y| !y.is_finite()), "{name} {format:?}");
                assert!(found[16..].iter().all(|y| y.is_finite()), "{name} {format:?}: the other column");
            }
        }
    }
}
