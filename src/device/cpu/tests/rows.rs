//! Ops on rows: every instruction set and thread count against scalar, bit for bit, and against formulas in f64.

use super::*;
use crate::device::{Activation, Delta, Norm, NormKind, RopeTable};
use crate::numeric::wide;

/// Widths below, at and beside multiples of the lanes.
const WIDTHS: [usize; 8] = [1, 7, 15, 16, 17, 64, 100, 576];
/// More values than an op leaves to one thread, in rows of 576.
const MANY: usize = 40;

/// |found - expected| <= limit * magnitude for every value.
#[track_caller]
fn assert_near(found: &[f32], expected: impl Iterator<Item = (f64, f64)>, limit: f64, what: &str) {
    let mut count = 0;
    for (found, (expected, magnitude)) in found.iter().zip(expected) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= limit * magnitude, "{what}: {found} for {expected}, {:e}", error / magnitude);
        count += 1;
    }
    assert_eq!(count, found.len());
}

/// The norm without its bias.
fn normed(x: &[f64], norm: Norm<'_>) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let mean = if norm.kind == NormKind::Layer { mean } else { 0.0 };
    rms_norm(&x.iter().map(|x| x - mean).collect::<Vec<_>>(), norm.weight, f64::from(norm.eps))
}

fn rms_norm(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, &w)| x / (mean + eps).sqrt() * f64::from(w)).collect()
}

/// The finest that rows of `width` values can be quantised in.
fn precision(width: usize) -> Precision {
    if width.is_multiple_of(32) { Precision::Sixteen } else { Precision::Float }
}

/// The error function by Simpson's rule.
fn erf(x: f64) -> f64 {
    let (n, x) = (2000, x.clamp(-7.0, 7.0));
    let h = x / f64::from(n);
    let f = |i: i32| wide::exp(-(f64::from(i) * h).powi(2));
    let sum: f64 = (1..n).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(0) + sum + f(n)) * h / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn layer_norm_and_the_scale_of_what_is_added_follow_the_formula() {
    let devices = devices();
    let mut rng = Rng::new(37);
    for width in WIDTHS {
        let t = if width == 576 { MANY } else { 13 };
        let (x, delta) = (rng.floats(t * width), rng.floats(t * width));
        let (weight, bias) = (rng.floats(width), rng.floats(width));
        let norm = Norm { kind: NormKind::Layer, weight: &weight, bias: Some(&bias), eps: 1e-2 };
        let values = buffer(width, &delta);
        let added = Delta { values: &values, post: None, scale: 0.375 };
        let run = |device: &Device| {
            let (mut x, mut act) = (buffer(width, &x), Act::default());
            device.add_norm(&mut x, Some(added), Some(norm), &mut act, Precision::Float).unwrap();
            (x.data().to_vec(), act.values().to_vec())
        };
        let expected = run(&devices[0].1);
        for (name, device) in &devices {
            let found = run(device);
            assert_same(&found.0, &expected.0, || format!("{name}: x, width {width}"));
            assert_same(&found.1, &expected.1, || format!("{name}: norm, width {width}"));
            let mut alone = buffer(width, &x);
            device.add(&mut alone, added);
            assert_same(alone.data(), &expected.0, || format!("{name}: add, width {width}"));
        }
        let sum = x.iter().zip(&delta).map(|(&x, &d)| (f64::from(x) + 0.375 * f64::from(d), 4.0));
        assert_near(&expected.0, sum, 1e-7, "x + 0.375 delta");
        for (x, y) in expected.0.chunks_exact(width).zip(expected.1.chunks_exact(width)) {
            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let mean = x.iter().sum::<f64>() / width as f64;
            let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let r = 1.0 / (square + f64::from(1e-2f32)).sqrt();
            let formula = x.iter().zip(&weight).zip(&bias).map(|((x, &w), &b)| {
                let y = (x - mean) * r * f64::from(w) + f64::from(b);
                (y, y.abs() + 1.0)
            });
            assert_near(y, formula, 1e-6, &format!("layer norm, width {width}"));
        }
    }
}

#[test]
fn learned_positions_are_added() {
    let mut rng = Rng::new(38);
    let shape = Shape { format: Format::F32, rows: 9, columns: 24 };
    let table = rng.floats(9 * 24);
    let weight = packed(shape, bytemuck::cast_slice(&table));
    let x = rng.floats(3 * 24);
    let mut found = buffer(24, &x);
    devices()[0].1.add_positions(&weight, &[5, 6, 7], &mut found).unwrap();
    let expected: Vec<f32> = x.iter().zip(&table[5 * 24..]).map(|(x, p)| x + p).collect();
    assert_same(found.data(), &expected, || "positions".to_owned());
}

fn rms(weight: &[f32], eps: f32) -> Norm<'_> {
    Norm { kind: NormKind::Rms, weight, bias: None, eps }
}

/// What `add_norm` makes of some rows of x and delta: x after, act.
fn add_norm(
    device: &Device,
    width: usize,
    (x, delta): (&[f32], Option<&[f32]>),
    (norm, post): (Norm<'_>, Option<Norm<'_>>),
    rows: std::ops::Range<usize>,
) -> (Vec<f32>, Act) {
    let kept = |values: &[f32]| {
        let mut all = buffer(width, values);
        all.keep([rows.start..rows.start + 1, rows.start + 1..rows.end].into_iter());
        all
    };
    let (mut x, delta) = (kept(x), delta.map(kept));
    let mut act = Act::default();
    let precision = precision(width);
    device
        .add_norm(
            &mut x,
            delta.as_ref().map(|values| Delta { values, post, scale: 1.0 }),
            Some(norm),
            &mut act,
            precision,
        )
        .unwrap();
    assert_eq!((act.rows(), act.width()), (rows.len(), width));
    (x.data().to_vec(), act)
}

#[test]
fn add_norm_is_the_same_everywhere() {
    let devices = devices();
    let mut rng = Rng::new(30);
    for width in WIDTHS {
        for numbers in [Numbers::Ordinary, Numbers::Extreme, Numbers::NotFinite] {
            let t = if width == 576 { MANY } else { 13 };
            let (x, delta) = (random_floats(&mut rng, t * width, numbers), random_floats(&mut rng, t * width, numbers));
            let (weight, post) = (rng.floats(width), rng.floats(width));
            let (norm, post) = (rms(&weight, 1e-5), rms(&post, 1e-6));
            for (delta, post) in [(None, None), (Some(&delta[..]), None), (Some(&delta), Some(post))] {
                for rows in [0..t, t - 1..t, 3..t - 2] {
                    let run = |device| add_norm(device, width, (&x, delta), (norm, post), rows.clone());
                    let (x0, act0) = run(&devices[0].1);
                    for (name, device) in &devices[1..] {
                        let what = || format!("{name}: width {width}, rows {rows:?}, {numbers:?}");
                        let (x1, act1) = run(device);
                        assert_same(&x1, &x0, what);
                        assert_same(act1.values(), act0.values(), what);
                        if width.is_multiple_of(32) {
                            let words = |act: &Act| (0..rows.len()).map(|t| quantised(act, t).1).collect::<Vec<_>>();
                            assert_eq!(words(&act1), words(&act0), "{}", what());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn add_norm_follows_the_formula() {
    let mut rng = Rng::new(31);
    let device = Device::new(Threads::new(1), Isa::Scalar).unwrap();
    for width in WIDTHS {
        let t = 6;
        let (x, delta) = (rng.floats(t * width), rng.floats(t * width));
        let (weight, post_weight) = (rng.floats(width), rng.floats(width));
        let (norm, post) = (rms(&weight, 1e-2), rms(&post_weight, 1e-3));
        for (with_delta, post) in [(false, None), (true, None), (true, Some(post))] {
            let rows = 1..5;
            let (x1, act) = add_norm(&device, width, (&x, with_delta.then_some(&delta)), (norm, post), rows.clone());
            for row in 0..t {
                let own = row * width..(row + 1) * width;
                if !rows.contains(&row) {
                    continue;
                }
                let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let mut expected = wide(&x[own.clone()]);
                if with_delta {
                    let delta = wide(&delta[own.clone()]);
                    let delta = post.map_or(delta.clone(), |post| rms_norm(&delta, post.weight, f64::from(post.eps)));
                    expected.iter_mut().zip(delta).for_each(|(x, d)| *x += d);
                }
                let what = format!("width {width} row {row}");
                let kept = (row - 1) * width..row * width;
                assert_near(&x1[kept.clone()], expected.iter().map(|&x| (x, x.abs() + 1.0)), 1e-6, &what);
                // From the x that was stored: the norm's own error, a few roundings of each value.
                let normed = rms_norm(&wide(&x1[kept.clone()]), norm.weight, f64::from(norm.eps));
                let found = &act.values()[kept];
                assert_near(found, normed.iter().map(|&y| (y, y.abs())), 1e-6, &what);
            }
        }
    }
}

#[test]
fn the_sum_of_squares_has_its_order() {
    let mut rng = Rng::new(32);
    for n in (0..70).chain([576, 2047]) {
        let x = random_floats(&mut rng, n, Numbers::Ordinary);
        let mut lanes = [0f32; 16];
        for (i, &x) in x.iter().enumerate() {
            lanes[i % 16] = crate::numeric::fma(x, x, lanes[i % 16]);
        }
        let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
        let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
        let expected = (four[0] + four[2]) + (four[1] + four[3]);
        for (isa, device) in variants_and_shapes() {
            assert_same(&[(device.kernels.sum_of_squares)(&x)], &[expected], || format!("{isa}, {n} values"));
        }
    }
}

fn rope_table(t: usize, pairs: usize, interleaved: bool) -> RopeTable {
    let angles = (0..t * pairs).map(|i| (i / pairs + 5) as f64 * wide::pow(1e4, -((i % pairs) as f64) / pairs as f64));
    let (sin, cos) = angles.map(wide::sin_cos).map(|(s, c)| (s as f32, c as f32)).unzip();
    RopeTable { interleaved, pairs, cos, sin }
}

#[test]
fn heads_are_normed_and_rotated() {
    let devices = devices();
    let mut rng = Rng::new(33);
    for (e, pairs) in [(8, 4), (64, 32), (80, 16), (256, 128)] {
        for interleaved in [false, true] {
            for (kind, apart) in [
                (None, false),
                (Some(NormKind::Rms), false),
                (Some(NormKind::Rms), true),
                (Some(NormKind::Layer), false),
                (Some(NormKind::Layer), true),
            ] {
                let (t, heads, kv_heads) = (9, 8, 2);
                let (q, k) = (rng.floats(t * heads * e), rng.floats(t * kv_heads * e));
                let weights = |heads| if apart { heads * e } else { e };
                let (q_weight, k_weight) = (rng.floats(weights(heads)), rng.floats(weights(kv_heads)));
                let norm = |weight| kind.map(|kind| Norm { kind, weight, bias: None, eps: 1e-5 });
                let norms = (norm(&q_weight[..]), norm(&k_weight[..]));
                let table = rope_table(t, pairs, interleaved);
                let run = |device: &Device| {
                    let (mut q, mut k) = (buffer(heads * e, &q), buffer(kv_heads * e, &k));
                    device.head_norm_rope((&mut q, &mut k), norms, true, e, &table);
                    [q.data().to_vec(), k.data().to_vec()]
                };
                let expected = run(&devices[0].1);
                for (name, device) in &devices[1..] {
                    let found = run(device);
                    for i in 0..2 {
                        assert_same(&found[i], &expected[i], || format!("{name}: E {e}, interleaved {interleaved}"));
                    }
                }
                for (found, before, norm, heads) in
                    [(&expected[0], &q, norms.0, heads), (&expected[1], &k, norms.1, kv_heads)]
                {
                    for (i, (found, before)) in found.chunks_exact(e).zip(before.chunks_exact(e)).enumerate() {
                        let mut x: Vec<f64> = before.iter().map(|&x| f64::from(x)).collect();
                        if let Some(norm) = norm {
                            let own = if apart { i % heads * e } else { 0 };
                            x = normed(&x, Norm { weight: &norm.weight[own..own + e], ..norm });
                        }
                        let mut y = x.clone();
                        for p in 0..pairs {
                            let (a, b) = if interleaved { (2 * p, 2 * p + 1) } else { (p, p + pairs) };
                            let at = i / heads * pairs + p;
                            let (cos, sin) = (f64::from(table.cos[at]), f64::from(table.sin[at]));
                            (y[a], y[b]) = (x[a] * cos - x[b] * sin, x[a] * sin + x[b] * cos);
                        }
                        let largest = x.iter().fold(0f64, |a, x| a.max(x.abs()));
                        assert_near(found, y.iter().map(|&y| (y, largest)), 1e-6, &format!("E {e}, head {i}"));
                    }
                }
            }
        }
    }
}

#[test]
fn the_gate_is_the_same_everywhere_and_follows_the_formula() {
    let devices = devices();
    let mut rng = Rng::new(34);
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::SiluClamped] {
        for width in WIDTHS {
            for numbers in [Numbers::Ordinary, Numbers::NotFinite] {
                let t = if width == 576 { MANY } else { 13 };
                let gate: Vec<f32> = random_floats(&mut rng, t * width, numbers).into_iter().map(|x| 8.0 * x).collect();
                let up = random_floats(&mut rng, t * width, numbers);
                let run = |device: &Device| {
                    let mut act = act(device, width, &gate, Precision::Float);
                    let (gate, up) = (buffer(width, &gate), buffer(width, &up));
                    device.glu(activation, &gate, Some(&up), &mut act, precision(width)).unwrap();
                    act
                };
                // Alone it is what it is with a gate of one, or of zero where one is added.
                let neutral = if activation == Activation::SiluClamped { 0.0 } else { 1.0 };
                for (name, device) in &devices {
                    let [mut alone, mut one] = [0, 1].map(|_| act(device, width, &gate, Precision::Float));
                    let (gate, ones) = (buffer(width, &gate), buffer(width, &vec![neutral; t * width]));
                    device.glu(activation, &gate, None, &mut alone, Precision::Float).unwrap();
                    device.glu(activation, &gate, Some(&ones), &mut one, Precision::Float).unwrap();
                    assert_same(alone.values(), one.values(), || format!("{name}: {activation:?} alone"));
                }
                let expected = run(&devices[0].1);
                for (name, device) in &devices[1..] {
                    let found = run(device);
                    assert_same(found.values(), expected.values(), || format!("{name}: {activation:?}, width {width}"));
                    if width.is_multiple_of(32) {
                        (0..t).for_each(|t| assert_eq!(quantised(&found, t).1, quantised(&expected, t).1, "{name}"));
                    }
                }
                if numbers == Numbers::Ordinary {
                    let formula = gate.iter().zip(&up).map(|(&g, &u)| {
                        let (g, u) = (f64::from(g), f64::from(u));
                        if activation == Activation::SiluClamped {
                            let (g, u) = (g.min(7.0), u.clamp(-7.0, 7.0) + 1.0);
                            return (g * u / (1.0 + wide::exp(-1.702 * g)), (g * u).abs());
                        }
                        let share = match activation {
                            Activation::Silu => 1.0 / (1.0 + wide::exp(-g)),
                            Activation::GeluTanh => {
                                let inner = 2.0 * 0.797_884_560_802_865_4 * (g + 0.044715 * g * g * g);
                                1.0 / (1.0 + wide::exp(-inner))
                            }
                            Activation::GeluErf => 0.5 * (1.0 + erf(g * std::f64::consts::FRAC_1_SQRT_2)),
                            Activation::SiluClamped => unreachable!("returned above"),
                        };
                        (g * share * u, (g * u).abs())
                    });
                    assert_near(expected.values(), formula, 3e-7, &format!("{activation:?}"));
                }
            }
        }
    }
}

#[test]
fn the_cap_is_the_same_everywhere_and_follows_the_formula() {
    let devices = devices();
    let mut rng = Rng::new(35);
    for n in [1, 15, 16, 33, 16 * 1024, 16 * 1024 + 5, 70_001] {
        let x: Vec<f32> = random_floats(&mut rng, n, Numbers::NotFinite).into_iter().map(|x| 90.0 * x).collect();
        let run = |device: &Device| {
            let mut x = buffer(n, &x);
            device.finish_logits(None, Some(30.0), &mut x);
            x.data().to_vec()
        };
        for (name, device) in &devices {
            let mut divided = buffer(n, &x);
            device.finish_logits(Some(4.0), None, &mut divided);
            let quarters: Vec<f32> = x.iter().map(|x| x * 0.25).collect();
            assert_same(divided.data(), &quarters, || format!("{name}: divided"));
        }
        let expected = run(&devices[0].1);
        for (name, device) in &devices[1..] {
            assert_same(&run(device), &expected, || format!("{name}: {n} values"));
        }
        for (y, x) in expected.iter().zip(&x).filter(|(_, x)| !x.is_nan()) {
            let e = wide::exp(-2.0 * f64::from(x.abs()) / 30.0);
            let exact = 30.0 * ((1.0 - e) / (1.0 + e)).copysign(f64::from(*x));
            assert!((f64::from(*y) - exact).abs() <= 1e-5, "{y} for {exact} at {x}");
        }
        assert!(expected.iter().zip(&x).all(|(y, x)| y.is_nan() == x.is_nan() && (y.is_nan() || y.abs() <= 30.0)));
    }
}

#[test]
fn rows_of_the_embedding_are_scaled() {
    let mut rng = Rng::new(36);
    for &format in Format::ALL {
        let shape = Shape { format, rows: 37, columns: 256 };
        let bytes = random_matrix(&mut rng, shape, Numbers::Extreme);
        let weight = packed(shape, &bytes);
        let tokens = [36, 0, 15, 16, 36];
        for scale in [1.0, 25.3] {
            let mut expected = vec![0.0; 5 * 256];
            for (row, token) in expected.chunks_exact_mut(256).zip(tokens) {
                let n = shape.row_bytes();
                format.decode(&bytes[token as usize * n..(token as usize + 1) * n], row).unwrap();
                row.iter_mut().for_each(|x| *x *= scale);
            }
            for (name, device) in devices() {
                let mut x = Buffer::default();
                device.embed(&tokens, &weight, scale, &mut x).unwrap();
                assert_eq!(x.rows(), 5);
                assert_same(x.data(), &expected, || format!("{name}: {format:?}"));
                assert_same(x.row(2), &expected[2 * 256..3 * 256], || format!("{name}: {format:?}"));
            }
        }
    }
}
