//! Kernels on rows of values: norms and activations.

use super::super::scalar::tree_sum;
use super::super::simd::Simd;
use crate::device::Activation;
use crate::numeric::{self, Real};

/// The sum of the squares of x as `scalar::sum_of_squares` defines it.
#[inline(always)]
pub(in super::super) fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for lane in (0..16).step_by(S::LANES) {
        let mut sum = s.f32(0.0);
        for chunk in chunks {
            let v = s.load(&chunk[lane..]);
            sum = v.fma(v, sum);
        }
        s.store(sum, &mut lanes[lane..]);
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = numeric::fma(*x, *x, *lane);
    }
    tree_sum(lanes)
}

/// out = activation(gate) * up, or activation(gate) alone.
#[inline(always)]
pub(in super::super) fn gated<S: Simd>(
    s: S,
    activation: Activation,
    gate: &[f32],
    up: Option<&[f32]>,
    out: &mut [f32],
) {
    let n = out.len();
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let gate = s.load(&gate[i..]);
        let y = match up {
            Some(up) => activation.gate(gate, s.load(&up[i..])),
            None => activation.apply(gate),
        };
        s.store(y, &mut out[i..]);
    }
    for i in whole..n {
        out[i] = up.map_or_else(|| activation.apply(gate[i]), |up| activation.gate(gate[i], up[i]));
    }
}

/// x = cap * tanh(x / cap).
#[inline(always)]
pub(in super::super) fn softcap<S: Simd>(s: S, cap: f32, x: &mut [f32]) {
    let whole = x.len() - x.len() % S::LANES;
    let (vectors, rest) = x.split_at_mut(whole);
    for x in vectors.chunks_exact_mut(S::LANES) {
        s.store(numeric::tanh(s.load(x).div(s.f32(cap))).mul(s.f32(cap)), x);
    }
    for x in rest {
        *x = numeric::tanh(*x / cap) * cap;
    }
}

/// y = fma(scale, x, y).
#[inline(always)]
pub(in super::super) fn add_scaled<S: Simd>(s: S, scale: f32, x: &[f32], y: &mut [f32]) {
    let n = x.len().min(y.len());
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        s.store(s.f32(scale).fma(s.load(&x[i..]), s.load(&y[i..])), &mut y[i..]);
    }
    for i in whole..n {
        y[i] = numeric::fma(scale, x[i], y[i]);
    }
}
