//! The float functions against the platform's: exactly where they are exact, within their stated errors elsewhere.
#![allow(clippy::disallowed_methods)] // what ours are compared with

use super::*;
use crate::rng::Rng;

fn random_f32(rng: &mut Rng) -> f32 {
    f32::from_bits(rng.next_u64() as u32)
}

#[track_caller]
fn assert_fma(a: f32, b: f32, c: f32) {
    let (found, expected) = (fma(a, b, c), a.mul_add(b, c));
    let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
    assert!(same, "fma({a:e}, {b:e}, {c:e}) is {found:e}, expected {expected:e}");
}

#[test]
fn fma_rounds_once_for_random_bits() {
    let mut rng = Rng::new(60);
    for _ in 0..3_000_000 {
        let (a, b) = (random_f32(&mut rng), random_f32(&mut rng));
        assert_fma(a, b, random_f32(&mut rng));
    }
}

/// A random number with this biased exponent, whose last `zeros` bits are 0.
fn with_exponent(rng: &mut Rng, exponent: u64, zeros: u32) -> f32 {
    f32::from_bits(rng.next_u64() as u32 & 0x807F_FFFF & !0 << zeros | (exponent as u32) << 23)
}

/// Products that lie half-way between two f32 with an addend far below, which f64 alone would lose; addends that take
/// away nearly all of the product.
#[test]
fn fma_rounds_once_where_it_is_close() {
    let mut rng = Rng::new(61);
    for _ in 0..1_000_000 {
        let (i, j, below) = (rng.next_u64() % 100 + 100, rng.next_u64() % 12, rng.next_u64() % 60 + 20);
        let (a, b) = (with_exponent(&mut rng, i, 12), with_exponent(&mut rng, 121 + j, 11));
        assert_fma(a, b, with_exponent(&mut rng, i + j - below, 0));
        let (a, b) = (with_exponent(&mut rng, i, 0), with_exponent(&mut rng, 121 + j, 0));
        let product = a * b;
        assert_fma(a, b, -product);
        assert_fma(a, b, f32::from_bits(product.to_bits() ^ (1 << 31) ^ (rng.next_u64() as u32 & 7)));
        assert_fma(a, b, with_exponent(&mut rng, i + j + 20, 0));
    }
}

#[test]
fn fma_rounds_once_among_subnormals() {
    let mut rng = Rng::new(62);
    for _ in 0..1_000_000 {
        // Products around 2^-149, sums that are subnormal or nearly.
        let i = rng.next_u64() % 60 + 1;
        let (a, b) = (with_exponent(&mut rng, i + 20, 0), with_exponent(&mut rng, 90 - i, 0));
        let c = f32::from_bits(rng.next_u64() as u32 & 0x81FF_FFFF);
        assert_fma(a, b, c);
        assert_fma(a, b, 0.0);
        assert_fma(a, b, -0.0);
    }
    // (1 + m u)(1 - m u) 2^-150 with u = 2^-23: just below half of the last place of a subnormal.
    for m in 1..1000 {
        let (a, b) = (1.0 + m as f32 * f32::EPSILON, 1.0 - m as f32 * f32::EPSILON);
        let (a, b) = (a * 2f64.powi(-75) as f32, b * 2f64.powi(-75) as f32);
        for c in [1, 2, 3, 0x1000, 0x20_0001, 0x40_0000, 0x7F_FFFE, 0x7F_FFFF, 0x80_0000].map(f32::from_bits) {
            for (a, c) in [(a, c), (-a, c), (a, -c), (-a, -c)] {
                assert_fma(a, b, c);
            }
        }
    }
}

#[test]
fn fma_of_special_values() {
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        -f32::MAX,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        f32::EPSILON,
        1.000_000_1,
        16_777_216.0,
        16_777_215.0,
        0.333_333_34,
    ];
    for a in specials {
        for b in specials {
            for c in specials {
                assert_fma(a, b, c);
            }
        }
    }
}

/// The distance of `found` from `exact` in units of the last place of an f32 of that size.
fn ulps(found: f32, exact: f64) -> f64 {
    let exponent = exact.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor() as i32;
    (f64::from(found) - exact).abs() / 2f64.powi(exponent - 23)
}

/// The largest error in ulp over `count` values evenly from low to high.
fn worst(low: f64, high: f64, count: u32, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> (f64, f32) {
    let step = (high - low) / f64::from(count);
    let values = (0..=count).map(|i| (low + step * f64::from(i)) as f32);
    values.map(|x| (ulps(f(x), exact(f64::from(x))), x)).fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
}

#[test]
fn exp_is_within_two_ulp() {
    for (low, high) in [(-87.0, 88.0), (-1.0, 1.0), (-1e-3, 1e-3), (80.0, 88.0), (-87.0, -80.0)] {
        let (error, x) = worst(low, high, 300_000, exp, f64::exp);
        assert!(error <= 2.0, "exp({x:e}) is {error} ulp off");
    }
    assert_eq!(exp(0.0f32), 1.0);
    assert_eq!(exp(-0.0f32), 1.0);
    assert_eq!(exp(1e-45f32), 1.0);
}

#[test]
fn exp_beyond_its_range() {
    for x in [f32::from_bits((-87.0f32).to_bits() + 1), -88.0, -1e30, f32::NEG_INFINITY] {
        assert_eq!(exp(x).to_bits(), 0, "{x:e}");
    }
    assert!(exp(-87.0f32) >= f32::MIN_POSITIVE);
    let top = exp(88.0f32);
    assert!(top.is_finite() && ulps(top, f64::exp(88.0)) <= 2.0);
    for x in [f32::from_bits(88.0f32.to_bits() + 1), 89.0, 1e30, f32::INFINITY] {
        assert_eq!(exp(x), top, "{x:e}");
    }
    assert!(exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
}

#[test]
fn tanh_is_within_two_ulp() {
    for (low, high) in [(-10.0, 10.0), (-0.7, 0.7), (0.6, 0.65), (-1e-3, 1e-3), (-1e-20, 1e-20)] {
        let (error, x) = worst(low, high, 300_000, tanh, f64::tanh);
        assert!(error <= 2.0, "tanh({x:e}) is {error} ulp off");
    }
    for x in [10.0, 44.1, 1e10, f32::MAX, f32::INFINITY] {
        assert_eq!((tanh(x), tanh(-x)), (1.0, -1.0));
    }
    assert_eq!(tanh(0.0f32).to_bits(), 0);
    assert!(tanh(f32::NAN).is_nan());
    let mut rng = Rng::new(63);
    for x in (0..100_000).map(|_| random_f32(&mut rng)).filter(|x| !x.is_nan() && *x != 0.0) {
        assert_eq!(tanh(-x), -tanh(x), "{x:e}");
        assert!(tanh(x).abs() <= 1.0);
    }
}

#[test]
fn silu_is_accurate() {
    let exact = |x: f64| 1.0 / (1.0 + f64::exp(-x));
    for (low, high) in [(-87.0, 87.0), (-4.0, 4.0), (-0.01, 0.01)] {
        let (error, x) = worst(low, high, 200_000, silu, |x| x * exact(x));
        assert!(error <= 4.0, "silu({x:e}) is {error} ulp off");
    }
    assert_eq!((silu(100.0f32), silu(0.0f32)), (100.0, 0.0));
    assert!(silu(f32::NAN).is_nan());
    assert_eq!(silu(f32::INFINITY), f32::INFINITY);
}

#[test]
fn gelu_is_accurate() {
    let exact = |x: f64| {
        let inner = 0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x);
        0.5 * x * (1.0 + inner.tanh())
    };
    let mut x = -12.0f32;
    while x < 12.0 {
        // 1 + tanh loses what tanh lost: an error relative to x, not to the small result.
        let error = (f64::from(gelu_tanh(x)) - exact(f64::from(x))).abs() / f64::from(x.abs()).max(1e-3);
        assert!(error <= 2.5e-7, "gelu_tanh({x}) is off by {error:e} of x");
        x += 1.7e-4;
    }
    assert_eq!((gelu_tanh(0.0f32), gelu_tanh(20.0f32), gelu_tanh(-20.0f32)), (0.0, 20.0, 0.0));
    assert_eq!(gelu_tanh(f32::INFINITY), f32::INFINITY);
    assert!(gelu_tanh(f32::NAN).is_nan());
}

#[track_caller]
fn assert_wide(what: &str, x: f64, found: f64, expected: f64, limit: f64) {
    let error = (found - expected).abs() / expected.abs();
    assert!(found == expected || error <= limit, "{what} at {x:e} is {found:e}, expected {expected:e}: {error:e}");
}

#[test]
fn wide_exp_is_accurate() {
    let mut rng = Rng::new(64);
    for range in [1e-10, 1.0, 30.0, 708.0] {
        for _ in 0..200_000 {
            let x = (2.0 * rng.next_f64() - 1.0) * range;
            assert_wide("exp", x, wide::exp(x), x.exp(), 2e-15);
        }
    }
    for x in
        [0.0, -0.0, 1.0, -1.0, 709.7, -745.1, -746.5, 709.8, 711.0, f64::INFINITY, f64::NEG_INFINITY, -708.5, -720.0]
    {
        let (found, expected) = (wide::exp(x), x.exp());
        let subnormal = (found - expected).abs() <= 5e-324;
        assert!(
            found == expected || subnormal || (found / expected - 1.0).abs() < 2e-15,
            "{x}: {found:e} {expected:e}"
        );
    }
    assert!(wide::exp(f64::NAN).is_nan());
}

#[test]
fn wide_exp_of_many_is_that_of_each() {
    let mut rng = Rng::new(66);
    for strange in [1.0, -708.0, -708.1, -745.0, f64::NEG_INFINITY, 709.0, 709.5, f64::INFINITY, f64::NAN] {
        for at in 0..8 {
            let x: [f64; 8] = std::array::from_fn(|i| if i == at { strange } else { -40.0 * rng.next_f64() });
            assert_eq!(wide::exp_all(x).map(f64::to_bits), x.map(|x| wide::exp(x).to_bits()), "{x:?}");
        }
    }
}

#[test]
fn wide_ln_is_accurate() {
    let mut rng = Rng::new(65);
    for _ in 0..500_000 {
        let x = f64::from_bits(rng.next_u64() >> 1);
        if x.is_finite() && x > 0.0 {
            assert_wide("ln", x, wide::ln(x), x.ln(), 2e-15);
        }
        let x = 2.0 * rng.next_f64();
        assert_wide("ln", x, wide::ln(x), x.ln(), 2e-15);
        let x = 1.0 + (rng.next_f64() - 0.5) * 1e-6;
        assert_wide("ln", x, wide::ln(x), x.ln(), 2e-15);
    }
    assert_eq!((wide::ln(1.0), wide::ln(0.0), wide::ln(-0.0)), (0.0, f64::NEG_INFINITY, f64::NEG_INFINITY));
    assert_eq!(wide::ln(f64::INFINITY), f64::INFINITY);
    assert_wide("ln", 5e-324, wide::ln(5e-324), 5e-324f64.ln(), 2e-15);
    assert!([-1.0, f64::NEG_INFINITY, f64::NAN].iter().all(|&x| wide::ln(x).is_nan()));
}

/// The error of a power grows with |ln| of the result, by which ln's own error is multiplied.
#[test]
fn wide_pow_is_accurate() {
    let mut rng = Rng::new(66);
    for base in [1e4f64, 1e6, 5e5, 1e7, 2.0, 0.5, 5e8] {
        for _ in 0..50_000 {
            let exponent = -rng.next_f64();
            let limit = 1e-15 + 3e-16 * (exponent * base.ln()).abs();
            assert_wide("pow", exponent, wide::pow(base, exponent), base.powf(exponent), limit);
        }
        assert_eq!(wide::pow(base, 0.0), 1.0);
    }
}

#[test]
fn wide_sin_and_cos_are_accurate() {
    let mut rng = Rng::new(67);
    for range in [1e-9, 1.0, 10.0, 1e3, 1e5, 1.6e6] {
        for _ in 0..100_000 {
            let x = (2.0 * rng.next_f64() - 1.0) * range;
            let (sin, cos) = wide::sin_cos(x);
            assert!((sin - x.sin()).abs() <= 4e-16, "sin {x:e}: {:e}", (sin - x.sin()).abs());
            assert!((cos - x.cos()).abs() <= 4e-16, "cos {x:e}: {:e}", (cos - x.cos()).abs());
        }
    }
    // Positions are integers, turned by 1 radian at most.
    for x in (0..1_000_000).step_by(7).map(f64::from) {
        let (sin, cos) = wide::sin_cos(x);
        assert!((sin - x.sin()).abs() <= 4e-16 && (cos - x.cos()).abs() <= 4e-16, "{x}");
    }
    for n in -1000..1000 {
        let x = f64::from(n) * std::f64::consts::FRAC_PI_2;
        let (sin, cos) = wide::sin_cos(x);
        assert!((sin - x.sin()).abs() <= 4e-16 && (cos - x.cos()).abs() <= 4e-16, "{n} quarter turns");
    }
    assert_eq!(wide::sin_cos(0.0), (0.0, 1.0));
}
