//! Matrix products of weights in floats: as those of quantised ones, but with the f32 activations.

use std::marker::PhantomData;

use super::super::linear::Job;
use super::super::lines::Aligned;
use super::super::packed::ROWS;
use super::super::simd::{Simd, TileWork, run_tile};
use super::linear::row_numbers;
use crate::numeric::Real;
use crate::quant::Format;

/// The packed panel of a float format: BYTES bytes hold one k of 16 rows.
trait FloatPanel<const BYTES: usize> {
    fn load<S: Simd>(s: S, one: &[u8; BYTES], lane: usize) -> S::F;
}

struct F32;

impl FloatPanel<64> for F32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, one: &[u8; 64], lane: usize) -> S::F {
        s.load(bytemuck::cast_slice(&one[4 * lane..4 * (lane + S::LANES)]))
    }
}

struct F16;

impl FloatPanel<32> for F16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, one: &[u8; 32], lane: usize) -> S::F {
        row_numbers(s, one, lane)
    }
}

struct BF16;

impl FloatPanel<32> for BF16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, one: &[u8; 32], lane: usize) -> S::F {
        s.load_bf16(bytemuck::cast_slice(&one[2 * lane..2 * (lane + S::LANES)]))
    }
}

/// Computes the panels of `job` for all its columns.
pub(super) fn linear<S: Simd>(s: S, job: &Job<'_>) {
    match job.weight.shape().format {
        Format::F16 => tiles::<S, F16, 32>(s, job),
        Format::BF16 => tiles::<S, BF16, 32>(s, job),
        _ => tiles::<S, F32, 64>(s, job),
    }
}

fn tiles<S: Simd, P: FloatPanel<BYTES>, const BYTES: usize>(s: S, job: &Job<'_>) {
    for (start, width) in job.tiles() {
        run_tile(s, width, FloatTile::<P, BYTES> { job, start, panel: PhantomData });
    }
}

/// The columns of `job` from `start` on.
struct FloatTile<'a, P, const BYTES: usize> {
    job: &'a Job<'a>,
    start: usize,
    panel: PhantomData<P>,
}

impl<P: FloatPanel<BYTES>, const BYTES: usize> TileWork for FloatTile<'_, P, BYTES> {
    /// f = fma(w, x, f), k ascending.
    #[inline(always)]
    fn run<S: Simd, const NY: usize>(self, s: S) {
        assert!(NY <= S::WIDEST);
        let FloatTile { job, start, .. } = self;
        let shape = job.weight.shape();
        let n = shape.columns;
        let mut x: [&[f32]; NY] = [&[]; NY];
        for (c, x) in x.iter_mut().enumerate() {
            *x = &job.act.values()[(start + c) * n..(start + c + 1) * n];
        }
        for (p, panel) in job.panels.clone().zip(job.packed_from(job.panels.start)) {
            let mut out = Aligned([[0.0; ROWS]; NY]);
            let panel = &panel.as_chunks::<BYTES>().0[..n];
            // As many sums at a time as there are registers for: few do not hide the latency of an addition.
            match (NY, ROWS / S::LANES) {
                (..=4, 2) => rows::<S, P, BYTES, NY, 2>(s, panel, &x, 0, &mut out.0),
                (..=4, 4) => rows::<S, P, BYTES, NY, 4>(s, panel, &x, 0, &mut out.0),
                _ => {
                    for lane in (0..ROWS).step_by(S::LANES) {
                        rows::<S, P, BYTES, NY, 1>(s, panel, &x, lane, &mut out.0);
                    }
                }
            }
            job.write(p, start, &mut out.0);
        }
    }
}

/// The products of NV vectors of rows from `lane` on.
#[inline(always)]
fn rows<S: Simd, P: FloatPanel<BYTES>, const BYTES: usize, const NY: usize, const NV: usize>(
    s: S,
    panel: &[[u8; BYTES]],
    x: &[&[f32]; NY],
    lane: usize,
    out: &mut [[f32; ROWS]; NY],
) {
    let (mut x, mut f) = (*x, [[s.f32(0.0); NY]; NV]);
    // So that the compiler knows that they are as long.
    for x in &mut x {
        *x = &x[..panel.len()];
    }
    for (k, one) in panel.iter().enumerate() {
        let mut w = [s.f32(0.0); NV];
        for v in 0..NV {
            w[v] = P::load(s, one, lane + v * S::LANES);
        }
        for c in 0..NY {
            let x = s.f32(x[c][k]);
            for v in 0..NV {
                f[v][c] = w[v].fma(x, f[v][c]);
            }
        }
    }
    for v in 0..NV {
        for c in 0..NY {
            s.store(f[v][c], &mut out[c][lane + v * S::LANES..]);
        }
    }
}
