//! The formats whose blocks are single floats: F32, F16 and BF16.

use super::{Block, Encode};
use bytemuck::{Pod, Zeroable};

/// The largest finite half.
pub(super) const HALF_MAX: f32 = 65504.0;

/// The largest f32 that is not rounded to an infinite half.
pub(crate) const TO_HALF: f32 = f32::from_bits(65520f32.to_bits() - 1);

/// The largest f32 that BF16 does not round to infinity.
const BF16_MAX: f32 = f32::from_bits(0x7F7F_7FFF);

/// The inverse of a scale, 0 for 0. It is taken from the f32 scale, before that is rounded to f16.
#[inline(always)]
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Little-endian IEEE half -> f32, subnormals included.
pub(crate) fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bytes).to_f32_const()
}

/// f32 -> little-endian IEEE half: nearest, ties to even; infinity beyond the range of a half.
pub(crate) fn f32_to_f16(x: f32) -> [u8; 2] {
    half::f16::from_f32_const(x).to_le_bytes()
}

/// One IEEE single.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockF32([u8; 4]);
const _: () = assert!(size_of::<BlockF32>() == 4);

impl Block for BlockF32 {
    const LEN: usize = 1;
    fn decode(&self, y: &mut [f32]) {
        y[0] = f32::from_le_bytes(self.0);
    }
}

impl Encode for BlockF32 {
    const RANGE: [f32; 2] = [f32::MIN, f32::MAX];
    fn encode(x: &[f32], _weights: Option<&[f32]>) -> Self {
        BlockF32(x[0].to_le_bytes())
    }
}

/// One IEEE half.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockF16([u8; 2]);
const _: () = assert!(size_of::<BlockF16>() == 2);

impl Block for BlockF16 {
    const LEN: usize = 1;
    fn decode(&self, y: &mut [f32]) {
        y[0] = f16_to_f32(self.0);
    }
}

impl Encode for BlockF16 {
    const RANGE: [f32; 2] = [-TO_HALF, TO_HALF];
    fn encode(x: &[f32], _weights: Option<&[f32]>) -> Self {
        BlockF16(f32_to_f16(x[0]))
    }
}

/// The upper half of an IEEE single ("bfloat16").
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockBF16([u8; 2]);
const _: () = assert!(size_of::<BlockBF16>() == 2);

impl Block for BlockBF16 {
    const LEN: usize = 1;
    fn decode(&self, y: &mut [f32]) {
        y[0] = f32::from_bits(u32::from(u16::from_le_bytes(self.0)) << 16);
    }
}

impl Encode for BlockBF16 {
    const RANGE: [f32; 2] = [-BF16_MAX, BF16_MAX];
    fn encode(x: &[f32], _weights: Option<&[f32]>) -> Self {
        let bits = x[0].to_bits();
        let upper = if x[0].is_nan() {
            // Rounding could carry a NaN into infinity: cut it, and make it quiet so that it stays a NaN.
            (bits >> 16) | 0x40
        } else {
            // To nearest, ties to even: a carry out of the lower half; it may run into the exponent, up to infinity.
            (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        };
        BlockBF16((upper as u16).to_le_bytes())
    }
}
