//! The table of formats against goldens made by ggml 0.25.3 and, for formats without an encoder, by the Python package
//! gguf: decoding to the bit, encoding to the byte.

#![allow(unsafe_code)]

mod common;

use common::floats;
use llm::gguf::Gguf;
use llm::quant::{Format, type_info};

fn golden(format: &str) -> Gguf {
    common::unpacked_gguf(&format!("quant/{format}.gguf"))
}

fn bytes(gguf: &Gguf, name: &str) -> Vec<u8> {
    let tensor = gguf.tensor(name).unwrap();
    let mut bytes = vec![0; tensor.bytes as usize];
    gguf.read(tensor, 0, &mut bytes).unwrap();
    bytes
}

/// Every golden vector of every format: `v.x` the numbers, `v.q` encoded, `v.y` decoded again.
const VECTORS: [&str; 11] =
    ["a", "a1", "b", "c.zeros", "c.outlier", "c.denormal", "c.altmax", "c.const", "c.onehot", "c.ties", "c.overflow"];

/// Those of formats without an encoder, without `v.x`: every point of a format's grid, and random bytes.
const DECODED_VECTORS: [&str; 2] = ["points", "random"];

/// The golden vectors of a format.
fn vectors(format: Format) -> &'static [&'static str] {
    if format.can_encode() { &VECTORS } else { &DECODED_VECTORS }
}

/// The formats with goldens: all but F32, which is its own.
fn formats() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|format| *format != Format::F32)
}

/// Elements whose weight is 0 beside one that counts become something near all the same.
#[test]
fn what_does_not_count_is_still_near() {
    let x: Vec<f32> = (0..256).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let mut weights = [0.0; 256];
    weights[3] = 1.0;
    for format in formats().filter(|format| format.can_encode() && format.block_len() > 1) {
        let mut q = vec![0; x.len() / format.block_len() * format.block_bytes()];
        format.encode_weighted(&x, &weights, &mut q).unwrap();
        let mut y = vec![0.0; x.len()];
        format.decode(&q, &mut y).unwrap();
        let error: f32 = x.iter().zip(&y).map(|(x, y)| (x - y) * (x - y)).sum();
        let zeros: f32 = x.iter().map(|x| x * x).sum();
        assert!(error < 0.4 * zeros, "{}: {error} of {zeros}", format.name());
    }
}

#[test]
fn decoding_is_equal_to_the_bit() {
    for format in formats() {
        let gguf = golden(format.name());
        for v in vectors(format) {
            let q = bytes(&gguf, &format!("{v}.q"));
            let expected = floats(&gguf, &format!("{v}.y"));
            let mut found = vec![0.0; expected.len()];
            format.decode(&q, &mut found).unwrap();
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let equal = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(equal, "{} {v}[{i}]: expected {expected:e}, found {found:e}", format.name());
            }
            // The whole tensor by way of the file gives the same.
            let whole = floats(&gguf, &format!("{v}.q"));
            assert!(whole.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()), "{} {v}", format.name());
        }
    }
}

/// The formats whose encoders search for scales, rather than giving ggml's bytes.
const SEARCHED: [Format; 7] =
    [Format::Q2K, Format::Q3K, Format::Q4K, Format::Q5K, Format::Q6K, Format::IQ4NL, Format::IQ4XS];

/// Those whose encoders search when they are given weights, and else give ggml's bytes.
const SEARCHED_WITH_WEIGHTS: [Format; 4] = [Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1];

#[test]
fn encoding_is_equal_to_the_byte() {
    let exact: Vec<_> = formats().filter(|format| format.can_encode() && !SEARCHED.contains(format)).collect();
    assert_eq!(exact.len(), 10);
    for format in exact {
        let gguf = golden(format.name());
        for v in VECTORS {
            let x = floats(&gguf, &format!("{v}.x"));
            let expected = bytes(&gguf, &format!("{v}.q"));
            let mut found = vec![0; expected.len()];
            format.encode(&x, &mut found).unwrap();
            if let Some(i) = (0..expected.len()).find(|&i| found[i] != expected[i]) {
                if (format, v) == (Format::MXFP4, "c.denormal") && i < expected.len() / 2 {
                    // ggml's exponent of magnitudes below 2^-125 is out of range.
                    assert_eq!(found[found.len() / 2..], expected[expected.len() / 2..]);
                    continue;
                }
                panic!("{} {v} byte {i}: expected {:02x}, found {:02x}", format.name(), expected[i], found[i]);
            }
            if SEARCHED_WITH_WEIGHTS.contains(&format) {
                continue;
            }
            // Formats whose bytes are fixed ignore weights.
            let weights = vec![0.5; x.len()];
            format.encode_weighted(&x, &weights, &mut found).unwrap();
            let mut again = vec![0; found.len()];
            format.encode(&x, &mut again).unwrap();
            assert_eq!(found, again, "{} {v}", format.name());
        }
    }
}

/// sqrt(sum w (x - y)^2 / n).
fn error(format: Format, x: &[f32], w: &[f32], q: &[u8]) -> f64 {
    let mut y = vec![0.0; x.len()];
    format.decode(q, &mut y).unwrap();
    let square = |((x, y), w): ((&f32, &f32), &f32)| f64::from(*w) * f64::from(x - y).powi(2);
    (x.iter().zip(&y).zip(w).map(square).sum::<f64>() / x.len() as f64).sqrt()
}

#[test]
fn searched_encoders_err_no_more_than_ggml() {
    for format in SEARCHED {
        let gguf = golden(format.name());
        for v in VECTORS {
            let x = floats(&gguf, &format!("{v}.x"));
            let theirs = bytes(&gguf, &format!("{v}.q"));
            let mut ours = vec![0; theirs.len()];
            format.encode(&x, &mut ours).unwrap();
            let ones = vec![1.0; x.len()];
            let (found, expected) = (error(format, &x, &ones, &ours), error(format, &x, &ones, &theirs));
            // Where rounding the scales to f16 makes all of the error, it is chance whose is better.
            let limit = if ["c.denormal", "c.const"].contains(&v) { 1.2 } else { 1.01 };
            // ggml overflows to NaN in some.
            assert!(found <= limit * expected || expected.is_nan(), "{} {v}: {found:e}, {expected:e}", format.name());
            assert!(found.is_finite(), "{} {v}", format.name());
        }
    }
}

/// Rows of 512 of which a few columns are important, as an importance matrix says it.
#[test]
fn weights_move_the_error_to_where_it_matters_less() {
    for format in SEARCHED.into_iter().chain(SEARCHED_WITH_WEIGHTS) {
        let gguf = golden(format.name());
        let x = floats(&gguf, "b.x");
        let row: Vec<f32> = (0..512).map(|i| if i % 5 == 0 { 100.0 } else { 0.01 * (i % 7) as f32 }).collect();
        let all: Vec<f32> = row.iter().copied().cycle().take(x.len()).collect();
        let mut plain = vec![0; format.row_bytes(x.len()).unwrap()];
        let (mut weighted, mut by_row) = (plain.clone(), plain.clone());
        format.encode(&x, &mut plain).unwrap();
        format.encode_weighted(&x, &all, &mut weighted).unwrap();
        format.encode_weighted(&x, &row, &mut by_row).unwrap();
        assert_eq!(weighted, by_row, "{}", format.name());
        let (found, before) = (error(format, &x, &all, &weighted), error(format, &x, &all, &plain));
        assert!(found < 0.85 * before, "{}: {found:e}, without weights {before:e}", format.name());
        // Equal weights are none, whatever they are, and groups without any weight still become something near.
        let mut equal = weighted.clone();
        format.encode_weighted(&x, &[1.0; 256], &mut equal).unwrap();
        assert!(equal == plain || SEARCHED_WITH_WEIGHTS.contains(&format), "{}", format.name());
        format.encode_weighted(&x, &[1e-20; 256], &mut weighted).unwrap();
        assert_eq!(weighted, equal, "{}", format.name());
        for all in [0.0, f32::MIN_POSITIVE, f32::MAX] {
            format.encode_weighted(&x, &[all; 256], &mut weighted).unwrap();
            let (found, before) = [&weighted, &plain].map(|q| error(format, &x, &vec![1.0; x.len()], q)).into();
            assert!(found < 2.0 * before, "{}: {found:e} with weights {all:e}, {before:e}", format.name());
        }
    }
}

/// Numbers without a pattern, roughly normal, the same every time.
fn noise(n: usize, mut seed: u32) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (0..6).map(|_| next()).sum()).collect()
}

/// The bytes of rows of 256, and their error by these weights.
fn encoded(format: Format, x: &[f32], weights: Option<&[f32]>) -> (Vec<u8>, f64) {
    let mut q = vec![0; format.row_bytes(x.len()).unwrap()];
    match weights {
        Some(weights) => format.encode_weighted(x, weights, &mut q).unwrap(),
        None => format.encode(x, &mut q).unwrap(),
    }
    let all: Vec<f32> = weights.unwrap_or(&[1.0; 256]).iter().copied().cycle().take(x.len()).collect();
    let error = error(format, x, &all, &q);
    (q, error)
}

/// Weights from 1e-4 to 1e4, and squares of noise.
fn uneven_weights() -> [Vec<f32>; 3] {
    let exponents = noise(256, 7).into_iter().enumerate();
    let heavy = exponents.map(|(i, x)| 10f32.powi((i * 7 % 9) as i32 - 4) * (4.0 + x)).collect();
    [vec![1.0; 256], noise(256, 8).iter().map(|x| x * x).collect(), heavy]
}

/// The least weighted error of 32 numbers as scale * code - min with codes from `low` to `high`, of many scales and mins
/// that are then fitted once: slow and simple.
fn least_error(x: &[f32], w: &[f32], low: f64, high: f64, with_min: bool) -> f64 {
    let top = x.iter().fold(0f64, |top, x| top.max(f64::from(*x).abs()));
    let signs: &[f64] = if with_min { &[1.0] } else { &[1.0, -1.0] };
    let mut least = f64::INFINITY;
    for step in 1..=120 {
        for sign in signs {
            let scale = sign * top * f64::from(step) / 60.0 / (high - low) * if with_min { 1.0 } else { 1.5 };
            for shift in if with_min { 0..=40 } else { 0..=0 } {
                let min = if with_min { top * f64::from(shift) / 40.0 * 1.1 } else { 0.0 };
                let code = |x: f64, scale: f64, min: f64| ((x + min) / scale).round().clamp(low, high);
                let mut sums = [0.0; 5];
                for (x, w) in x.iter().map(|x| f64::from(*x)).zip(w.iter().map(|w| f64::from(*w))) {
                    let q = code(x, scale, min);
                    for (sum, term) in sums.iter_mut().zip([w, w * q, w * q * q, w * x, w * x * q]) {
                        *sum += term;
                    }
                }
                let [n, q, qq, x1, xq] = sums;
                let determinant = n * qq - q * q;
                let (scale, min) = match with_min {
                    true if determinant > 1e-12 * n * qq => {
                        ((n * xq - q * x1) / determinant, (q * xq - qq * x1) / determinant)
                    }
                    false if qq > 0.0 => (xq / qq, 0.0),
                    _ => continue,
                };
                let errors = x.iter().zip(w).map(|(x, w)| {
                    let x = f64::from(*x);
                    f64::from(*w) * (x + min - scale * code(x, scale, min)).powi(2)
                });
                least = least.min(errors.sum());
            }
        }
    }
    least
}

#[test]
fn with_weights_the_first_formats_err_hardly_more_than_the_best_of_many_lines() {
    let x = noise(256 * 8, 1);
    for (format, low, high, with_min) in [
        (Format::Q4_0, -8.0, 7.0, false),
        (Format::Q5_0, -16.0, 15.0, false),
        (Format::Q4_1, 0.0, 15.0, true),
        (Format::Q5_1, 0.0, 31.0, true),
    ] {
        for (weights, limit) in uneven_weights().iter().zip([1.04, 1.1, 1.35]) {
            let groups = x.chunks(32).zip(weights.chunks(32).cycle());
            let least: f64 = groups.map(|(x, w)| least_error(x, w, low, high, with_min)).sum();
            let expected = (least / x.len() as f64).sqrt();
            let (_, found) = encoded(format, &x, Some(weights));
            assert!(found < limit * expected, "{} {limit}: {found:e}, {expected:e}", format.name());
        }
    }
}

/// Mins cannot be negative; the highest number of a group can.
#[test]
fn groups_below_zero_err_no_more_than_groups_around_zero() {
    let around = noise(256 * 8, 2);
    for (format, limit) in [(Format::Q2K, 1.15), (Format::Q4K, 1.15), (Format::Q5K, 1.25)] {
        let below: Vec<f32> = around.iter().map(|x| x - 4.0).collect();
        let (found, expected) = (encoded(format, &below, None).1, encoded(format, &around, None).1);
        assert!(found < limit * expected, "{}: {found:e}, {expected:e}", format.name());
    }
}

/// One number far out that matters little is cut: it must not cost the others their accuracy.
#[test]
fn a_number_far_out_that_weighs_little_is_cut() {
    let mut weights = vec![1.0; 256];
    weights[100] = 1e-7;
    for format in SEARCHED.into_iter().chain(SEARCHED_WITH_WEIGHTS) {
        for far in [5.0, -5.0] {
            let near: Vec<f32> = noise(256, 3).iter().map(|x| 0.01 * x).collect();
            let (_, expected) = encoded(format, &near, Some(&weights));
            let cut = 1e-7 * 25.0 / 256.0;
            let mut x = near;
            x[100] = far;
            let (_, found) = encoded(format, &x, Some(&weights));
            let expected = (expected * expected + cut).sqrt();
            assert!(found < 1.3 * expected, "{} {far}: {found:e}, {expected:e}", format.name());
        }
    }
}

/// Likewise whole groups, whose scale the others share.
#[test]
fn a_group_far_out_that_weighs_little_is_cut() {
    let (group, weight, times) = (64..96, 1e-10, 1000.0);
    let mut weights = vec![1.0; 256];
    weights[group.clone()].fill(weight);
    for format in SEARCHED {
        let near: Vec<f32> = noise(256, 3).iter().map(|x| 0.01 * x).collect();
        let (_, expected) = encoded(format, &near, Some(&weights));
        let mut x = near;
        x[group.clone()].iter_mut().for_each(|x| *x *= times);
        let (_, found) = encoded(format, &x, Some(&weights));
        let lost: f32 = x[group.clone()].iter().map(|x| weight * x * x / 256.0).sum();
        let expected = (expected * expected + f64::from(lost)).sqrt();
        assert!(found < 1.2 * expected, "{}: {found:e}, {expected:e}", format.name());
    }
}

/// Numbers with three values are exact but for the rounding of the block's f16.
#[test]
fn three_values_are_nearly_exact() {
    let x: Vec<f32> = noise(256 * 16, 5).iter().map(|x| 0.05 * (2.0 * x).round().clamp(-1.0, 1.0)).collect();
    for (format, limit) in [(Format::Q4K, 0.0009), (Format::Q5K, 0.0025)] {
        for weights in uneven_weights() {
            let (_, found) = encoded(format, &x, Some(&weights));
            let all = error(format, &x, &weights, &encoded(format, &[0.0; 256], None).0.repeat(16));
            assert!(found < limit * all, "{}: {found:e} of {all:e}", format.name());
        }
    }
}

/// Where scales are too small for an f16.
#[test]
fn tiny_numbers_are_never_worse_than_zeros() {
    for format in SEARCHED {
        for weights in uneven_weights() {
            for (seed, scale) in (0..).zip([1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-10]) {
                for x in noise(256 * 8, seed).chunks(256) {
                    let x: Vec<f32> = x.iter().map(|x| x * scale).collect();
                    let (_, found) = encoded(format, &x, Some(&weights));
                    let zeros = error(format, &x, &weights, &encoded(format, &[0.0; 256], None).0);
                    let limit = if scale >= 3e-6 { 0.7 } else { 1.00001 };
                    assert!(found <= limit * zeros, "{} {scale:e}: {found:e}, {zeros:e}", format.name());
                }
            }
        }
    }
}

#[test]
fn ranges_say_what_can_be_encoded() {
    for format in Format::ALL.iter().copied().filter(|format| format.can_encode()) {
        let [low, high] = format.range();
        assert!(low < -60000.0 && high > 60000.0, "{}", format.name());
        // How far off some elements are.
        let far = |x: &[f32; 256], weights: Option<&[f32]>, places: [usize; 3]| {
            let mut y = [0.0; 256];
            format.decode(&encoded(format, x, weights).0, &mut y).unwrap();
            places.map(|i| (y[i] / x[i] - 1.0).abs())
        };
        let decoded = |ends: [f32; 2]| {
            let mut x = [0.0; 256];
            (x[40], x[200], x[201]) = (ends[0], ends[1], ends[0]);
            far(&x, None, [40, 200, 201])
        };
        // Blocks without a zero, of one number and of two.
        for (x, y) in [(low, low), (high, high), (low, 0.9 * low), (high, 0.9 * high)] {
            let mut numbers = [x; 256];
            numbers.iter_mut().step_by(2).for_each(|number| *number = y);
            for weights in [None, Some(&[1.0f32; 256][..])] {
                let off = far(&numbers, weights, [40, 200, 201]);
                assert!(off.iter().all(|off| *off < 0.35), "{} {x:e} {y:e}: {off:?}", format.name());
            }
        }
        for ends in [[low, high], [high, low], [low, low], [high, high]] {
            let off = decoded(ends);
            assert!(off.iter().all(|off| *off < 0.35), "{} {ends:?}: {off:?}", format.name());
        }
        for end in [low, high].map(|end| 2.5 * end).into_iter().filter(|end| end.is_finite()) {
            let off = decoded([end, end]);
            assert!(!off.iter().all(|off| *off < 0.35), "{} {end:e}: {off:?}", format.name());
        }
    }
}

#[test]
fn encoding_to_what_has_no_encoder_is_unsupported() {
    let without = ["IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ3_S", "IQ2_S", "IQ1_M", "NVFP4"];
    assert!(Format::ALL.iter().filter(|format| !format.can_encode()).map(|format| format.name()).eq(without));
    for name in without {
        let format = Format::from_name(name).unwrap();
        let mut out = vec![7; format.row_bytes(256).unwrap()];
        let weighted = format.encode_weighted(&[0.0; 256], &[1.0; 256], &mut out).unwrap_err();
        for error in [weighted, format.encode(&[0.0; 256], &mut out).unwrap_err()] {
            assert!(matches!(error, llm::Error::Unsupported(_)), "{error}");
            assert_eq!(error.fact("format"), Some(name));
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(out.iter().all(|byte| *byte == 7), "{name}");
    }
}

#[test]
fn f32_is_itself() {
    let x = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 4.0, f32::INFINITY, -3e38];
    let mut q = [0; 24];
    Format::F32.encode(&x, &mut q).unwrap();
    assert_eq!(q[8..12], 1.5f32.to_le_bytes());
    let mut y = [9.0; 6];
    Format::F32.decode(&q, &mut y).unwrap();
    assert_eq!(x.map(f32::to_bits), y.map(f32::to_bits));
}

#[test]
fn numbers_that_are_none_are_encoded_without_panic() {
    for format in Format::ALL.iter().filter(|format| format.can_encode()) {
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -f32::MAX] {
            let mut x = vec![1.0; 256];
            x[7] = strange;
            let mut q = vec![0; format.row_bytes(256).unwrap()];
            format.encode(&x, &mut q).unwrap();
            format.decode(&q, &mut x).unwrap();
        }
    }
}

#[test]
fn every_f16_and_bf16_comes_back() {
    for format in [Format::F16, Format::BF16] {
        for bits in 0..=u16::MAX {
            let q = bits.to_le_bytes();
            let (mut y, mut back) = ([0.0], [0; 2]);
            format.decode(&q, &mut y).unwrap();
            format.encode(&y, &mut back).unwrap();
            if y[0].is_nan() {
                format.decode(&back, &mut y).unwrap();
                assert!(y[0].is_nan(), "{} {bits:04x}", format.name());
            } else {
                assert_eq!(back, q, "{} {bits:04x}", format.name());
            }
        }
    }
}

#[test]
fn halves_and_bfloats_round_to_nearest_even() {
    let cases = [
        (Format::BF16, 0x3F80_8000, 0x3F80),
        (Format::BF16, 0x3F80_8001, 0x3F81),
        (Format::BF16, 0x3F81_8000, 0x3F82),
        (Format::BF16, 0x7F7F_8000, 0x7F80),
        (Format::BF16, 0x7F80_0001, 0x7FC0),
        (Format::BF16, 0x0000_8001, 0x0001),
        (Format::F16, (1.0f32 + 1.0 / 2048.0).to_bits(), 0x3C00),
        (Format::F16, (1.0f32 + 3.0 / 2048.0).to_bits(), 0x3C02),
        (Format::F16, 65519.0f32.to_bits(), 0x7BFF),
        (Format::F16, 65520.0f32.to_bits(), 0x7C00),
        (Format::F16, (-1e6f32).to_bits(), 0xFC00),
        (Format::F16, 6e-8f32.to_bits(), 0x0001),
    ];
    for (format, bits, expected) in cases {
        let mut found = [0; 2];
        format.encode(&[f32::from_bits(bits)], &mut found).unwrap();
        assert_eq!(u16::from_le_bytes(found), expected, "{} {bits:08x}", format.name());
    }
}

#[test]
fn the_table_names_and_sizes_types() {
    for format in Format::ALL {
        assert_eq!(Format::from_id(format.id()), Some(*format));
        assert_eq!(Format::from_name(format.name()), Some(*format));
        let info = type_info(format.id()).unwrap();
        assert_eq!((info.name(), info.block_bytes()), (format.name(), format.block_bytes()));
    }
    for format in formats() {
        let gguf = golden(format.name());
        assert_eq!(gguf.u32("golden.block_length").unwrap(), Some(format.block_len() as u32));
        assert_eq!(gguf.u32("golden.block_bytes").unwrap(), Some(format.block_bytes() as u32));
    }
    let unknown = [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX];
    assert!(unknown.iter().all(|id| type_info(*id).is_none() && Format::from_id(*id).is_none()));
    let known: Vec<u32> = (0..43).filter(|id| type_info(*id).is_some_and(|info| info.id() == *id)).collect();
    assert_eq!(known.len(), 43 - 8);
    assert_eq!(
        type_info(23).map(|info| (info.name(), info.block_len(), info.block_bytes())),
        Some(("IQ4_XS", 256, 136))
    );
    assert_eq!((Format::from_name("q4_k"), Format::from_name("q4_kk")), (Some(Format::Q4K), None));
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    assert_eq!(Format::Q4_0.row_bytes(64), Some(36));
    assert_eq!(Format::Q4_0.row_bytes(48), None);
    assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    let error = Format::Q4_0.decode(&[0; 17], &mut [0.0; 32]).unwrap_err();
    assert!(matches!(error, llm::Error::InvalidArgument(_)), "{error}");
    assert_eq!(
        (error.fact("format"), error.fact("bytes"), error.fact("elements")),
        (Some("Q4_0"), Some("17"), Some("32"))
    );
    assert!(Format::Q8_0.encode(&[0.0; 33], &mut [0; 34]).is_err());
    let mut out = [0; 2 * 210];
    let weighted = |weights: &[f32], out: &mut [u8]| Format::Q6K.encode_weighted(&[0.0; 512], weights, out);
    for n in [256, 512] {
        weighted(&vec![1.0; n], &mut out).unwrap();
    }
    for n in [0, 128, 255, 768] {
        let error = weighted(&vec![1.0; n], &mut out).unwrap_err();
        assert_eq!(error.fact("weights"), Some(&*n.to_string()), "{error}");
    }
    for strange in [-1.0, f32::NAN, f32::INFINITY] {
        let mut weights = [1.0; 256];
        weights[3] = strange;
        let error = weighted(&weights, &mut out).unwrap_err();
        assert_eq!(error.fact("index"), Some("3"), "{error}");
    }
}

/// Runs `f` in a host that rounds up, flushes results below the normal numbers to zero and reads such inputs as zero.
#[cfg(target_arch = "x86_64")]
fn with_hostile_floats(f: impl FnOnce()) {
    let set = |value: u32| {
        // SAFETY: reads 4 bytes of `value`; the first value sets defined bits only, the second the defaults.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value) };
    };
    set(0xDFC0);
    f();
    set(0x1F80);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_hosts_float_settings_do_not_reach_results() {
    use llm::sample::{Params, Sampler};

    let mut wrong = Vec::new();
    for format in formats() {
        let gguf = golden(format.name());
        for v in vectors(format) {
            let (q, y) = (bytes(&gguf, &format!("{v}.q")), floats(&gguf, &format!("{v}.y")));
            let (mut found, mut again) = (vec![0.0; y.len()], vec![0; q.len()]);
            let (mut expected, can_encode) = (vec![0; q.len()], format.can_encode());
            if can_encode {
                format.encode(&y, &mut expected).unwrap();
            }
            with_hostile_floats(|| {
                format.decode(&q, &mut found).unwrap();
                if can_encode {
                    format.encode(&y, &mut again).unwrap();
                }
            });
            if found.iter().zip(&y).any(|(a, b)| a.to_bits() != b.to_bits() && !a.is_nan()) || again != expected {
                wrong.push(format!("{} {v}", format.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");

    let logits: Vec<f32> = (0..1000).map(|i| (i * 7919 % 1000) as f32 * 0.01).collect();
    let sampler = || Sampler::usual(&Params { top_k: 0, top_p: 0.9, ..Params::default() }).unwrap();
    let expected = sampler().distribution(&logits).unwrap();
    let mut found = Vec::new();
    with_hostile_floats(|| found = sampler().distribution(&logits).unwrap());
    assert!(expected == found, "the sampler's probabilities");
}
