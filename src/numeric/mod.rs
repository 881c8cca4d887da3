//! The float operations that the promise of equal bits rests on: one definition for every instruction set.
//!
//! Each function is written once over [`Real`], which `f32` and the vectors of the SIMD kernels implement, so the
//! scalar and the vector result are the same operations in the same order. The polynomials are minimax fits of
//! the Cephes family (Moshier, "Methods and Programs for Mathematical Functions", 1989) evaluated with fused
//! multiply-add. Functions on f64 (tables made once at load, samplers) are below.

mod environment;

pub(crate) use environment::FloatEnvironment;

/// Arithmetic on one f32, or on a vector of them lane by lane. All operations round to nearest even, once.
pub(crate) trait Real: Copy {
    /// The same value in every lane.
    fn splat(self, x: f32) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// self * b + c with one rounding.
    fn fma(self, b: Self, c: Self) -> Self;
    /// `if self > b { self } else { b }`: a NaN in either operand gives `b`.
    fn max(self, b: Self) -> Self;
    /// `if self < b { self } else { b }`: a NaN in either operand gives `b`.
    fn min(self, b: Self) -> Self;
    fn abs(self) -> Self;
    /// The magnitude of self with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// `if self < threshold { below } else { other }`, lane by lane; a NaN takes `other`.
    fn select_less(self, threshold: f32, below: Self, other: Self) -> Self;
    /// self * 2^n, where self is in [0.5, 2] and n is an integer in [-126, 127] held as a float.
    fn scale_by_power(self, n: Self) -> Self;
    /// The nearest integer, ties to even; |self| < 2^22.
    fn round(self) -> Self;
}

/// `a * b + c` with one rounding, without trusting the platform's libm. On 64-bit ARM it is an instruction; elsewhere the
/// exact product in f64, the sum rounded to odd (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums",
/// 2008), then one rounding to f32.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[allow(clippy::disallowed_methods)] // there it is one instruction, which every CPU has
    if cfg!(target_arch = "aarch64") {
        return a.mul_add(b, c);
    }
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    let c_part = sum - product;
    let error = (product - (sum - c_part)) + (c - c_part);
    let mut bits = sum.to_bits();
    // A NaN error (infinite or NaN operands) is not above 0 and leaves the sum as it is.
    if error.abs() > 0.0 && bits & 1 == 0 {
        if (error > 0.0) == (sum > 0.0) { bits += 1 } else { bits -= 1 }
    }
    f64::from_bits(bits) as f32
}

impl Real for f32 {
    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn add(self, b: f32) -> f32 {
        self + b
    }
    #[inline(always)]
    fn sub(self, b: f32) -> f32 {
        self - b
    }
    #[inline(always)]
    fn mul(self, b: f32) -> f32 {
        self * b
    }
    #[inline(always)]
    fn div(self, b: f32) -> f32 {
        self / b
    }
    #[inline(always)]
    fn fma(self, b: f32, c: f32) -> f32 {
        fma(self, b, c)
    }
    #[inline(always)]
    fn max(self, b: f32) -> f32 {
        if self > b { self } else { b }
    }
    #[inline(always)]
    fn min(self, b: f32) -> f32 {
        if self < b { self } else { b }
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn copysign(self, sign: f32) -> f32 {
        f32::copysign(self, sign)
    }
    #[inline(always)]
    fn select_less(self, threshold: f32, below: f32, other: f32) -> f32 {
        if self < threshold { below } else { other }
    }
    #[inline(always)]
    fn scale_by_power(self, n: f32) -> f32 {
        f32::from_bits(self.to_bits().wrapping_add(((n as i32) << 23) as u32))
    }
    #[inline(always)]
    fn round(self) -> f32 {
        self.round_ties_even()
    }
}

/// Horner's scheme with fused multiply-add, highest coefficient first.
#[inline(always)]
fn polynomial<R: Real>(x: R, coefficients: &[f32]) -> R {
    let mut sum = x.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        sum = sum.fma(x, x.splat(c));
    }
    sum
}

/// e^x. +0 below -87, e^88 above 88, NaN passes; within 2 ulp between.
#[inline(always)]
pub(crate) fn exp<R: Real>(x: R) -> R {
    // min(88, x) and not min(x, 88), so that a NaN in x is kept.
    let clamped = x.splat(-87.0).max(x.splat(88.0).min(x));
    let n = clamped.mul(x.splat(std::f32::consts::LOG2_E)).round();
    let r = n.fma(x.splat(-0.693_359_4), clamped);
    let r = n.fma(x.splat(2.121_944_4e-4), r);
    let p =
        polynomial(r, &[1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1, 1.0, 1.0]);
    x.select_less(-87.0, x.splat(0.0), p.scale_by_power(n))
}

/// tanh(x), within 2 ulp: an odd polynomial near 0, elsewhere 1 - 2 / (e^2|x| + 1).
#[inline(always)]
pub(crate) fn tanh<R: Real>(x: R) -> R {
    let a = x.abs();
    let square = x.mul(x);
    let p = polynomial(square, &[-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let small = p.mul(square).fma(x, x);
    let one = x.splat(1.0);
    let large = one.sub(x.splat(2.0).div(exp(a.add(a)).add(one))).copysign(x);
    a.select_less(0.625, small, large)
}

/// x * sigmoid(x) (Elfwing et al., "Sigmoid-Weighted Linear Units", 2017).
#[inline(always)]
pub(crate) fn silu<R: Real>(x: R) -> R {
    x.div(exp(x.splat(0.0).sub(x)).add(x.splat(1.0)))
}

/// The tanh form of GELU: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel, 2016).
#[inline(always)]
pub(crate) fn gelu_tanh<R: Real>(x: R) -> R {
    let inner = x.mul(x).mul(x.splat(0.044_715)).fma(x, x).mul(x.splat(0.797_884_6));
    x.mul(x.splat(0.5)).mul(tanh(inner).add(x.splat(1.0)))
}

/// The error function (Cephes `erff`, `erfcf`), within 4 ulp: an odd polynomial near 0, elsewhere 1 - e^-x^2 / |x| times
/// a polynomial in 1/x^2.
#[inline(always)]
pub(crate) fn erf<R: Real>(x: R) -> R {
    let square = x.mul(x);
    let small = x.mul(polynomial(
        square,
        &[
            7.853_861_4e-5,
            -8.010_193_6e-4,
            5.188_328e-3,
            -2.685_381_2e-2,
            0.112_835_86,
            -0.376_126_26,
            std::f32::consts::FRAC_2_SQRT_PI,
        ],
    ));
    let one = x.splat(1.0);
    let a = x.abs();
    let inverse = one.div(a);
    let y = inverse.mul(inverse);
    let middle = polynomial(
        y,
        &[
            2.326_82e-2,
            -0.138_703_94,
            0.368_742_47,
            -0.582_473_3,
            0.621_000_47,
            -0.494_451_53,
            0.340_488,
            -0.274_112_7,
            0.563_825_96,
        ],
    );
    let far = polynomial(
        y,
        &[-10.477_664, 12.977_199, -7.495_519, 2.921_019, -1.015_265_2, 0.421_846_34, -0.282_076_75, 0.564_189_5],
    );
    let tail = exp(x.splat(0.0).sub(square)).mul(inverse).mul(a.select_less(2.0, middle, far));
    a.select_less(1.0, small, one.sub(tail).copysign(x))
}

/// GELU by the error function: 0.5 x (1 + erf(x / sqrt(2))) (Hendrycks and Gimpel, 2016).
#[inline(always)]
pub(crate) fn gelu_erf<R: Real>(x: R) -> R {
    let inner = erf(x.mul(x.splat(std::f32::consts::FRAC_1_SQRT_2)));
    x.mul(x.splat(0.5)).mul(inner.add(x.splat(1.0)))
}

/// Functions on f64, for tables made at load and for samplers: accurate to about 1e-15, the same bits everywhere,
/// since they use only operations that IEEE 754 fixes.
pub(crate) mod wide {
    const LN2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);

    /// 1 / k!, the coefficients of Taylor's series.
    const INVERSE_FACTORIALS: [f64; 20] = {
        let (mut all, mut k, mut factorial) = ([1.0; 20], 1, 1.0);
        while k < all.len() {
            factorial *= k as f64;
            all[k] = 1.0 / factorial;
            k += 1;
        }
        all
    };

    /// 2^n for an integer n: exact in the range of f64, 0 below it and infinity above.
    fn power_of_two(n: i64) -> f64 {
        match n {
            -1022..=1023 => f64::from_bits(((n + 1023) as u64) << 52),
            -1074..=-1023 => f64::from_bits(1 << (n + 1074)),
            ..=-1075 => 0.0,
            1024.. => f64::INFINITY,
        }
    }

    /// e^x.
    pub(crate) fn exp(x: f64) -> f64 {
        if x.is_nan() {
            return x;
        }
        if x > 710.0 {
            return f64::INFINITY;
        }
        if x < -746.0 {
            return 0.0;
        }
        if ORDINARY.contains(&x) {
            return ordinary_exp(x);
        }
        let (p, n) = exp_parts(x);
        // Two steps keep both factors finite and the result's subnormals correct.
        p * power_of_two(n / 2) * power_of_two(n - n / 2)
    }

    /// `exp` of each. Where all are of the usual size, without a branch: the compiler makes vectors of it.
    pub(crate) fn exp_all<const N: usize>(x: [f64; N]) -> [f64; N] {
        if x.iter().all(|x| ORDINARY.contains(x)) { x.map(ordinary_exp) } else { x.map(exp) }
    }

    /// Where e^x is a normal number, and so is 2^n of `exp_parts`.
    const ORDINARY: std::ops::RangeInclusive<f64> = -708.0..=709.0;

    /// `exp` in that range.
    #[inline(always)]
    fn ordinary_exp(x: f64) -> f64 {
        let (p, n) = exp_parts(x);
        p * f64::from_bits(((n + 1023) as u64) << 52)
    }

    /// e^x = p * 2^n: (p, n), p between 0.7 and 1.42.
    #[inline(always)]
    fn exp_parts(x: f64) -> (f64, i64) {
        // Adding 1.5 * 2^52 rounds to an integer, ties to even, and leaves it in the low bits.
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let shifted = x * std::f64::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        // |r| <= 0.35: the term r^14 / 14! is below 1e-17. Even and odd terms are two sums, neither of which waits for the
        // other.
        let (square, terms) = (r * r, &INVERSE_FACTORIALS);
        let (mut even, mut odd) = (terms[14], terms[13]);
        for k in (0..12).step_by(2).rev() {
            even = even * square + terms[k + 2];
            odd = odd * square + terms[k + 1];
        }
        let p = (even * square + terms[0]) + r * odd;
        (p, shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i64)
    }

    /// The natural logarithm: -infinity at 0, NaN below.
    pub(crate) fn ln(x: f64) -> f64 {
        if x.is_nan() || x < 0.0 {
            return f64::NAN;
        }
        if x == 0.0 {
            return f64::NEG_INFINITY;
        }
        if x == f64::INFINITY {
            return x;
        }
        let (x, bias) = if x < f64::MIN_POSITIVE { (x * power_of_two(54), 54) } else { (x, 0) };
        let bits = x.to_bits();
        let mut exponent = (bits >> 52) as i64 - 1023 - bias;
        let mut m = f64::from_bits(bits & ((1 << 52) - 1) | (1023 << 52));
        if m > std::f64::consts::SQRT_2 {
            m *= 0.5;
            exponent += 1;
        }
        // ln m = 2 atanh s, s = (m-1)/(m+1), |s| < 0.172.
        let s = (m - 1.0) / (m + 1.0);
        let square = s * s;
        let mut sum = 0.0;
        for k in (1..=10).rev() {
            sum = (sum + 1.0 / f64::from(2 * k + 1)) * square;
        }
        let n = exponent as f64;
        n * LN2_HIGH + (2.0 * s * (1.0 + sum) + n * LN2_LOW)
    }

    /// base^exponent for base > 0.
    pub(crate) fn pow(base: f64, exponent: f64) -> f64 {
        exp(exponent * ln(base))
    }

    /// (sin x, cos x), accurate for |x| < 2^21 (positions of a context); beyond that the error grows, to 1e-7 at 2^30.
    pub(crate) fn sin_cos(x: f64) -> (f64, f64) {
        // pi/2 in three parts of at most 33 bits, so that n * part is exact for |n| < 2^20.
        const PI_2_A: f64 = f64::from_bits(0x3FF9_21FB_5440_0000);
        const PI_2_B: f64 = f64::from_bits(0x3DD0_B461_1A60_0000);
        const PI_2_C: f64 = f64::from_bits(0x3BA3_198A_2E03_7073);
        let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
        let r = ((x - n * PI_2_A) - n * PI_2_B) - n * PI_2_C;
        let (square, terms) = (r * r, &INVERSE_FACTORIALS);
        let (mut sin, mut cos) = (terms[19], terms[18]);
        for k in (0..18).step_by(2).rev() {
            sin = terms[k + 1] - sin * square;
            cos = terms[k] - cos * square;
        }
        let sin = sin * r;
        match (n as i64).rem_euclid(4) {
            0 => (sin, cos),
            1 => (cos, -sin),
            2 => (-sin, -cos),
            _ => (-cos, sin),
        }
    }
}

#[cfg(test)]
mod tests;
