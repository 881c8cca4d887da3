//! The "K" formats: 256 elements in groups whose small integer scales share f16 scales.

use super::Block;
use super::float::f16_to_f32;
use bytemuck::{Pod, Zeroable};

const LEN: usize = 256;

/// y = d scale q - dmin min, with 8 groups of 32 elements and four-bit q.
///
/// Each 32 bytes of `qs` hold 32 elements in their low and the next 32 in their high nibbles.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ4K {
    pub d: [u8; 2],
    pub dmin: [u8; 2],
    pub scales: [u8; 12],
    pub qs: [u8; 128],
}
const _: () = assert!(size_of::<BlockQ4K>() == 144);

/// As Q4_K with a fifth bit: bits 2g and 2g + 1 of `qh[l]` belong to elements l and l + 32 of the 64-element group g.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ5K {
    pub d: [u8; 2],
    pub dmin: [u8; 2],
    pub scales: [u8; 12],
    pub qh: [u8; 32],
    pub qs: [u8; 128],
}
const _: () = assert!(size_of::<BlockQ5K>() == 176);

/// y = d scale (q - 32), with 16 groups of 16 elements and six-bit q.
///
/// Each half of 128 elements has 64 bytes of `ql` (low four bits: elements 0..64 in the low, 64..128 in the high
/// nibbles) and 32 bytes of `qh` (high two bits: bit pair p of byte l belongs to element 32p + l).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ6K {
    pub ql: [u8; 128],
    pub qh: [u8; 64],
    pub scales: [i8; 16],
    pub d: [u8; 2],
}
const _: () = assert!(size_of::<BlockQ6K>() == 210);

/// The six-bit scales and mins of the 8 groups of Q4_K and Q5_K.
///
/// Groups 0..4: the low six bits of bytes 0..4 (scales) and 4..8 (mins). Groups 4..8: four low bits in the nibbles of
/// bytes 8..12 (scale low, min high), the upper two in the top bits of bytes 0..4 and 4..8.
pub(crate) fn scales_and_mins(packed: &[u8; 12]) -> [(u8, u8); 8] {
    let mut out = [(0, 0); 8];
    for g in 0..4 {
        let (scale, min, rest) = (packed[g], packed[g + 4], packed[g + 8]);
        out[g] = (scale & 63, min & 63);
        out[g + 4] = (rest & 15 | scale >> 6 << 4, rest >> 4 | min >> 6 << 4);
    }
    out
}

/// Decodes the groups of 32 of Q4_K and Q5_K; `code(g, l)` is the code of element l of group g.
#[inline(always)]
fn decode_groups(d: [u8; 2], dmin: [u8; 2], scales: &[u8; 12], y: &mut [f32], code: impl Fn(usize, usize) -> u8) {
    let (d, dmin) = (f16_to_f32(d), f16_to_f32(dmin));
    for (g, (y, (scale, min))) in y.chunks_exact_mut(32).zip(scales_and_mins(scales)).enumerate() {
        let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
        for (l, y) in y.iter_mut().enumerate() {
            *y = d * f32::from(code(g, l)) - m;
        }
    }
}

impl Block for BlockQ4K {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        decode_groups(self.d, self.dmin, &self.scales, y, |g, l| self.qs[g / 2 * 32 + l] >> (g % 2 * 4) & 15);
    }
}

impl Block for BlockQ5K {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        decode_groups(self.d, self.dmin, &self.scales, y, |g, l| {
            self.qs[g / 2 * 32 + l] >> (g % 2 * 4) & 15 | (self.qh[l] >> g & 1) << 4
        });
    }
}

impl Block for BlockQ6K {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        let d = f16_to_f32(self.d);
        for (g, (y, &scale)) in y.chunks_exact_mut(16).zip(&self.scales).enumerate() {
            let d = d * f32::from(scale);
            // Group g lies in half g / 8 of the block, in its quarter of 32 elements `pair`.
            let (half, pair) = (g / 8, g % 8 / 2);
            for (l, y) in y.iter_mut().enumerate() {
                let l = g % 2 * 16 + l;
                let low = self.ql[half * 64 + pair % 2 * 32 + l] >> (pair / 2 * 4) & 15;
                let high = self.qh[half * 32 + l] >> (pair * 2) & 3;
                *y = d * (f32::from(low | high << 4) - 32.0);
            }
        }
    }
}
