//! Activations in blocks: `act::Plain` with vectors.

use super::super::act::{BLOCK, Parts, Quantise, WORDS, scales, tail};
use super::super::simd::{Simd, VECTORS};
use crate::numeric::Real;

/// Makes blocks with the vectors of an instruction set.
#[derive(Clone, Copy)]
pub(in super::super) struct Vectors<S>(pub S);

impl<S: Simd> Quantise for Vectors<S> {
    #[inline(always)]
    fn blocks<const N: usize, const PARTS: usize>(self, x: [&[f32; BLOCK]; N]) -> [Parts<PARTS>; N] {
        let (s, vectors) = (self.0, BLOCK / S::LANES);
        let mut t = [[s.f32(0.0); VECTORS]; N];
        let (mut largest, magnitude) = ([s.i32(0); N], s.i32(i32::MAX));
        for n in 0..N {
            for v in 0..vectors {
                t[n][v] = s.load(&x[n][v * S::LANES..]);
                largest[n] = s.max_i32(largest[n], s.and(s.f32_as_bits(t[n][v]), magnitude));
            }
        }
        let [d, inverse] = scales(s.largest_lanes(largest));
        let mut q = [[s.i32(0); VECTORS]; N];
        for n in 0..N {
            // x may not be a number where the inverse is 0.
            let zero = inverse[n] == 0.0;
            for v in 0..vectors {
                t[n][v] = if zero { s.f32(0.0) } else { t[n][v].mul(s.f32(inverse[n])) };
                q[n][v] = s.round_to_i32(t[n][v]);
            }
        }
        let mut parts = [[[0; WORDS]; PARTS]; N];
        let sums = s.bytes_and_sums(&q);
        for n in 0..N {
            put(&mut parts[n][0], &sums.bytes[n], sums.of_halves[n], d[n]);
        }
        if PARTS == 2 {
            for n in 0..N {
                for v in 0..vectors {
                    let rest = t[n][v].sub(s.to_f32(q[n][v])).mul(s.f32(256.0));
                    q[n][v] = s.round_to_i32(rest.max(s.f32(-127.0)).min(s.f32(127.0)));
                }
            }
            let rest = s.bytes_and_sums(&q);
            for n in 0..N {
                let ([q0, q1], [r0, r1]) = (sums.of_halves[n], rest.of_halves[n]);
                put(&mut parts[n][1], &rest.bytes[n], [256 * q0 + r0, 256 * q1 + r1], d[n] / 256.0);
            }
        }
        parts
    }
}

/// Codes, and the words after them, with the sums of the values.
#[inline(always)]
fn put(words: &mut [i32; WORDS], codes: &[u8; BLOCK], sums: [i32; 2], d: f32) {
    let (of_codes, of_sums) = words.split_at_mut(BLOCK / 4);
    bytemuck::cast_slice_mut(of_codes).copy_from_slice(codes);
    of_sums.copy_from_slice(&tail(sums, d));
}
