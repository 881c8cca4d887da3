//! Activations in blocks: `act::Plain` with vectors.

use super::super::act::{BLOCK, Parts, Quantise, WORDS, scale, tail};
use super::super::simd::Simd;
use crate::numeric::Real;

/// The most vectors that a block fills.
const VECTORS: usize = 8;

/// Makes blocks with the vectors of an instruction set.
#[derive(Clone, Copy)]
pub(in super::super) struct Vectors<S>(pub S);

impl<S: Simd> Quantise for Vectors<S> {
    #[inline(always)]
    fn block<const PARTS: usize>(self, x: &[f32; BLOCK]) -> Parts<PARTS> {
        let s = self.0;
        let mut t = [s.f32(0.0); VECTORS];
        let (mut largest, magnitude) = (s.i32(0), s.i32(i32::MAX));
        for (v, x) in x.chunks_exact(S::LANES).enumerate() {
            t[v] = s.load(x);
            largest = s.max_i32(largest, s.and(s.f32_as_bits(t[v]), magnitude));
        }
        let (d, inverse) = scale(s.largest_lane(largest) as u32);
        let mut parts = [[0; WORDS]; PARTS];
        // x may not be a number where the inverse is 0.
        let (mut q, zero) = ([s.i32(0); VECTORS], inverse == 0.0);
        for v in 0..BLOCK / S::LANES {
            t[v] = if zero { s.f32(0.0) } else { t[v].mul(s.f32(inverse)) };
            q[v] = s.round_to_i32(t[v]);
        }
        put(s, &mut parts[0], q, q, d);
        if let Some(second) = parts.get_mut(1) {
            let (mut r, mut both) = (q, q);
            for v in 0..BLOCK / S::LANES {
                let rest = t[v].sub(s.to_f32(q[v])).mul(s.f32(256.0));
                r[v] = s.round_to_i32(rest.max(s.f32(-127.0)).min(s.f32(127.0)));
                both[v] = s.add_i32(s.shl::<8>(q[v]), r[v]);
            }
            put(s, second, r, both, d / 256.0);
        }
        parts
    }
}

/// Codes, and the words after them, with the sums of `values`.
#[inline(always)]
fn put<S: Simd>(s: S, words: &mut [i32; WORDS], codes: [S::I; VECTORS], values: [S::I; VECTORS], d: f32) {
    let (of_codes, of_sums) = words.split_at_mut(BLOCK / 4);
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(of_codes);
    let mut sums = [s.i32(0); 2];
    for v in 0..BLOCK / S::LANES {
        s.store_low_bytes(codes[v], &mut bytes[v * S::LANES..]);
        let half = v * S::LANES / (BLOCK / 2);
        sums[half] = s.add_i32(sums[half], values[v]);
    }
    of_sums.copy_from_slice(&tail([s.sum_of_lanes(sums[0]), s.sum_of_lanes(sums[1])], d));
}
