//! The "K" formats: 256 elements in groups whose small integer scales share f16 scales.

use super::bits::{gather, spread};
use super::float::{HALF_MAX, f16_to_f32};
use super::groups::groups;
use super::levels::Integers;
use super::{Block, Encode};
use bytemuck::{Pod, Zeroable};

const LEN: usize = 256;

/// y = d scale q - dmin min, with 16 groups of 16 elements and two-bit q.
///
/// A byte of `scales` is a group's scale (low nibble) and min (high nibble). Bit pair p of byte 32h + l of `qs` belongs
/// to element 128h + 32p + l.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ2K {
    pub scales: [u8; 16],
    pub qs: [u8; 64],
    pub d: [u8; 2],
    pub dmin: [u8; 2],
}
const _: () = assert!(size_of::<BlockQ2K>() == 84);

/// y = d (scale - 32) (q - 4), with 16 groups of 16 elements and three-bit q.
///
/// `qs` holds the low two bits as in Q2_K, bit g of byte l of `hmask` is the third bit of element 32g + l. The six-bit
/// scale of group g: low four bits in byte g mod 8 of `scales`, nibble g / 8; the others in byte 8 + g mod 4, bit pair
/// g / 4.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ3K {
    pub hmask: [u8; 32],
    pub qs: [u8; 64],
    pub scales: [u8; 12],
    pub d: [u8; 2],
}
const _: () = assert!(size_of::<BlockQ3K>() == 110);

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

/// The inverse of [`scales_and_mins`].
fn pack_scales_and_mins(groups: [(u8, u8); 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for g in 0..4 {
        let ((scale, min), (upper_scale, upper_min)) = (groups[g], groups[g + 4]);
        packed[g] = scale | upper_scale >> 4 << 6;
        packed[g + 4] = min | upper_min >> 4 << 6;
        packed[g + 8] = upper_scale & 15 | upper_min << 4;
    }
    packed
}

/// The numbers of a group of a format with mins: y = scale q - min.
type ScaleAndMin = (f32, f32);

/// Decodes groups of the same size: y = scale q - min.
#[inline(always)]
fn decode_with_mins(block: &impl Block, groups: &[ScaleAndMin], y: &mut [f32]) {
    let mut codes = [0; LEN];
    block.codes(&mut codes);
    let size = LEN / groups.len();
    for ((y, codes), (scale, min)) in y.chunks_exact_mut(size).zip(codes.chunks_exact(size)).zip(groups) {
        for (y, &q) in y.iter_mut().zip(codes) {
            *y = scale * f32::from(q) - min;
        }
    }
}

/// Decodes the 16 groups of a format with a zero point: y = d scale (q - zero).
#[inline(always)]
fn decode_symmetric(block: &impl Block, d: [u8; 2], scales: [i8; 16], zero: f32, y: &mut [f32]) {
    let mut codes = [0; LEN];
    block.codes(&mut codes);
    let d = f16_to_f32(d);
    for ((y, codes), scale) in y.chunks_exact_mut(16).zip(codes.chunks_exact(16)).zip(scales) {
        let d = d * f32::from(scale);
        for (y, &q) in y.iter_mut().zip(codes) {
            *y = d * (f32::from(q) - zero);
        }
    }
}

impl BlockQ3K {
    /// The scales of the groups, -32 to 31.
    fn scales(&self) -> [i8; 16] {
        let mut scales = [0; 16];
        spread::<8, 4>(&self.scales[..8], 0, &mut scales);
        spread::<4, 2>(&self.scales[8..], 4, &mut scales);
        scales.map(|scale| scale as i8 - 32)
    }
}

impl Block for BlockQ2K {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<32, 2>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<32, 2>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let (d, dmin) = (f16_to_f32(self.d), f16_to_f32(self.dmin));
        let groups = self.scales.map(|byte| (d * f32::from(byte & 15), dmin * f32::from(byte >> 4)));
        decode_with_mins(self, &groups, y);
    }
}

impl Block for BlockQ3K {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<32, 2>(&self.qs, 0, codes);
        spread::<32, 1>(&self.hmask, 2, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<32, 2>(codes, 0, &mut self.qs);
        gather::<32, 1>(codes, 2, &mut self.hmask);
    }
    fn decode(&self, y: &mut [f32]) {
        decode_symmetric(self, self.d, self.scales(), 4.0, y);
    }
}

/// The numbers of the groups of Q4_K and Q5_K.
fn six_bit_groups(d: [u8; 2], dmin: [u8; 2], scales: &[u8; 12]) -> [ScaleAndMin; 8] {
    let (d, dmin) = (f16_to_f32(d), f16_to_f32(dmin));
    scales_and_mins(scales).map(|(scale, min)| (d * f32::from(scale), dmin * f32::from(min)))
}

impl Block for BlockQ4K {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<32, 4>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<32, 4>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        decode_with_mins(self, &six_bit_groups(self.d, self.dmin, &self.scales), y);
    }
}

impl Block for BlockQ5K {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<32, 4>(&self.qs, 0, codes);
        spread::<32, 1>(&self.qh, 4, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<32, 4>(codes, 0, &mut self.qs);
        gather::<32, 1>(codes, 4, &mut self.qh);
    }
    fn decode(&self, y: &mut [f32]) {
        decode_with_mins(self, &six_bit_groups(self.d, self.dmin, &self.scales), y);
    }
}

impl Block for BlockQ6K {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<64, 4>(&self.ql, 0, codes);
        spread::<32, 2>(&self.qh, 4, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<64, 4>(codes, 0, &mut self.ql);
        gather::<32, 2>(codes, 4, &mut self.qh);
    }
    fn decode(&self, y: &mut [f32]) {
        decode_symmetric(self, self.d, self.scales, 32.0, y);
    }
}

/// The integers from 0 to `high`.
const fn up_to(high: u8) -> Integers {
    Integers { low: 0.0, high: high as f32 }
}

/// `zero` integers below 0 and, with it, `zero` from 0 on.
const fn around(zero: u8) -> Integers {
    Integers { low: -(zero as f32), high: zero as f32 - 1.0 }
}

/// The range of a format whose largest min, scale and code these are: where the lowest number takes the largest min,
/// the highest still has a code.
const fn with_mins(min: f32, scale: f32, code: f32) -> [f32; 2] {
    [-min * HALF_MAX, (scale * code - min) * HALF_MAX]
}

impl Encode for BlockQ2K {
    const RANGE: [f32; 2] = with_mins(15.0, 15.0, 3.0);
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let found = groups::<16, _>(x, weights, up_to(3), up_to(15), Some(up_to(15)));
        let scales = std::array::from_fn(|g| found.scales[g] as u8 | found.mins[g] << 4);
        let mut block = BlockQ2K { scales, d: found.d, dmin: found.dmin, ..Zeroable::zeroed() };
        block.set_codes(&found.codes);
        block
    }
}

impl Encode for BlockQ3K {
    const RANGE: [f32; 2] = [-31.0 * 3.0 * HALF_MAX, 31.0 * 3.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let found = groups::<16, _>(x, weights, around(4), around(32), None);
        let scales = found.scales.map(|scale| (scale + 32) as u8);
        let mut block = BlockQ3K { d: found.d, ..Zeroable::zeroed() };
        gather::<8, 4>(&scales, 0, &mut block.scales[..8]);
        gather::<4, 2>(&scales, 4, &mut block.scales[8..]);
        block.set_codes(&found.codes);
        block
    }
}

impl Encode for BlockQ4K {
    const RANGE: [f32; 2] = with_mins(63.0, 63.0, 15.0);
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let found = groups::<8, _>(x, weights, up_to(15), up_to(63), Some(up_to(63)));
        let scales = pack_scales_and_mins(std::array::from_fn(|g| (found.scales[g] as u8, found.mins[g])));
        let mut block = BlockQ4K { d: found.d, dmin: found.dmin, scales, ..Zeroable::zeroed() };
        block.set_codes(&found.codes);
        block
    }
}

impl Encode for BlockQ5K {
    const RANGE: [f32; 2] = with_mins(63.0, 63.0, 31.0);
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let found = groups::<8, _>(x, weights, up_to(31), up_to(63), Some(up_to(63)));
        let scales = pack_scales_and_mins(std::array::from_fn(|g| (found.scales[g] as u8, found.mins[g])));
        let mut block = BlockQ5K { d: found.d, dmin: found.dmin, scales, ..Zeroable::zeroed() };
        block.set_codes(&found.codes);
        block
    }
}

impl Encode for BlockQ6K {
    const RANGE: [f32; 2] = [-127.0 * 31.0 * HALF_MAX, 127.0 * 31.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let found = groups::<16, _>(x, weights, around(32), around(128), None);
        let mut block = BlockQ6K { scales: found.scales, d: found.d, ..Zeroable::zeroed() };
        block.set_codes(&found.codes);
        block
    }
}
