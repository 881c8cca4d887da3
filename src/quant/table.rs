//! The formats whose four-bit codes stand for the numbers of a table: IQ4_NL, IQ4_XS, MXFP4 and NVFP4.
//!
//! In each 32 elements (NVFP4: 16) byte j holds element j (low nibble) and element j + 16 (8; high nibble).

use super::bits::{gather, spread};
use super::float::{HALF_MAX, f16_to_f32, f32_to_f16};
use super::groups::groups;
use super::legacy::largest_magnitude;
use super::levels::{Integers, Table};
use super::search::{AROUND, Line, Mins, encode, half, relative, search};
use super::{Block, Encode};
use crate::numeric::wide;
use bytemuck::{Pod, Zeroable};

/// The numbers of IQ4_NL and IQ4_XS: denser near zero, as weights are.
pub(crate) static IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the numbers of E2M1, the four-bit float (one sign, two exponent, one mantissa bit).
pub(crate) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// y = d T[q].
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ4NL {
    pub d: [u8; 2],
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockIQ4NL>() == 18);

/// y = d (scale - 32) T[q], with 8 groups of 32 elements.
///
/// The six-bit scale of group g: the low four bits are nibble g of `scales_l`, the others bits 2g and 2g + 1 of
/// `scales_h`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ4XS {
    pub d: [u8; 2],
    pub scales_h: [u8; 2],
    pub scales_l: [u8; 4],
    pub qs: [u8; 128],
}
const _: () = assert!(size_of::<BlockIQ4XS>() == 136);

/// y = 2^(e - 128) M[q], from the OCP Microscaling Formats specification (2023); M has twice its numbers.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockMXFP4 {
    pub e: u8,
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockMXFP4>() == 17);

/// y = s M[q] / 2, with 4 groups of 16 elements whose scales s are E4M3 floats (one sign, four exponent, three mantissa
/// bits).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockNVFP4 {
    pub scales: [u8; 4],
    pub qs: [u8; 32],
}
const _: () = assert!(size_of::<BlockNVFP4>() == 36);

/// Half of the magnitude of an E4M3 float. The positive one that is no number is 0 here, as in ggml.
pub(crate) fn e4m3(byte: u8) -> f32 {
    if byte == 0x7F {
        return 0.0;
    }
    // Moved into an f32, the exponent lacks the difference of the biases, 120; subnormals stay subnormals.
    f32::from_bits(u32::from(byte & 0x7F) << 20) * f32::from_bits((127 + 120 - 1) << 23)
}

/// 2^(e - 128).
pub(crate) fn power_of_two(e: u8) -> f32 {
    // The first two are subnormal.
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

impl BlockIQ4XS {
    /// The scales of the groups, -32 to 31.
    fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|g| {
            let low = self.scales_l[g / 2] >> (g % 2 * 4) & 15;
            (low | ((high >> (2 * g) & 3) as u8) << 4) as i8 - 32
        })
    }
}

impl Block for BlockIQ4NL {
    const LEN: usize = 32;
    fn codes(&self, codes: &mut [u8]) {
        spread::<16, 4>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<16, 4>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let mut codes = [0; Self::LEN];
        self.codes(&mut codes);
        let d = f16_to_f32(self.d);
        for (y, q) in y.iter_mut().zip(codes) {
            *y = d * f32::from(IQ4[usize::from(q)]);
        }
    }
}

impl Block for BlockIQ4XS {
    const LEN: usize = 256;
    fn codes(&self, codes: &mut [u8]) {
        spread::<16, 4>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<16, 4>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let mut codes = [0; Self::LEN];
        self.codes(&mut codes);
        let d = f16_to_f32(self.d);
        for ((y, codes), scale) in y.chunks_exact_mut(32).zip(codes.chunks_exact(32)).zip(self.scales()) {
            let d = d * f32::from(scale);
            for (y, &q) in y.iter_mut().zip(codes) {
                *y = d * f32::from(IQ4[usize::from(q)]);
            }
        }
    }
}

impl Block for BlockMXFP4 {
    const LEN: usize = 32;
    fn codes(&self, codes: &mut [u8]) {
        spread::<16, 4>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<16, 4>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let mut codes = [0; Self::LEN];
        self.codes(&mut codes);
        let d = power_of_two(self.e);
        for (y, q) in y.iter_mut().zip(codes) {
            *y = d * f32::from(E2M1[usize::from(q)]);
        }
    }
}

impl Block for BlockNVFP4 {
    const LEN: usize = 64;
    fn codes(&self, codes: &mut [u8]) {
        spread::<8, 4>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<8, 4>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let mut codes = [0; Self::LEN];
        self.codes(&mut codes);
        for ((y, codes), scale) in y.chunks_exact_mut(16).zip(codes.chunks_exact(16)).zip(self.scales) {
            let d = e4m3(scale);
            for (y, &q) in y.iter_mut().zip(codes) {
                *y = d * f32::from(E2M1[usize::from(q)]);
            }
        }
    }
}

/// What the encoders search in.
static LEVELS: Table = {
    static NEAREST: [i8; 509] = Table::nearest(&IQ4);
    Table::new(&IQ4, &NEAREST)
};

impl Encode for BlockIQ4NL {
    const RANGE: [f32; 2] = [-113.0 * HALF_MAX, 113.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let w = relative::<{ Self::LEN }>(weights);
        let storable = |line: Line| Line { scale: half(line.scale), ..line };
        let line = search(x, &w, LEVELS, Mins::Zero, AROUND, storable);
        let mut codes = [0; Self::LEN];
        encode(x, LEVELS, line, &mut codes);
        let mut block = BlockIQ4NL { d: f32_to_f16(line.scale), qs: [0; 16] };
        block.set_codes(&codes);
        block
    }
}

impl Encode for BlockIQ4XS {
    const RANGE: [f32; 2] = [-31.0 * 113.0 * HALF_MAX, 31.0 * 113.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let found = groups::<8, _>(x, weights, LEVELS, Integers { low: -32.0, high: 31.0 }, None);
        let mut block = BlockIQ4XS { d: found.d, ..Zeroable::zeroed() };
        let mut high = 0;
        for (g, scale) in found.scales.into_iter().enumerate() {
            let bits = (scale + 32) as u8;
            block.scales_l[g / 2] |= (bits & 15) << (g % 2 * 4);
            high |= u16::from(bits >> 4) << (2 * g);
        }
        block.scales_h = high.to_le_bytes();
        block.set_codes(&found.codes);
        block
    }
}

impl Encode for BlockMXFP4 {
    const RANGE: [f32; 2] = [f32::MIN, f32::MAX];
    /// The exponent leaves the largest magnitude in the upper octave of the table, the codes are the nearest, the first
    /// of equals.
    fn encode(x: &[f32], _weights: Option<&[f32]>) -> Self {
        let largest = largest_magnitude(x);
        // ggml's logarithm is one in f32: from 4 on, it takes the number just below a power of two for the power.
        // Magnitudes below 2^-125 get the lowest exponent.
        let octave = (wide::ln(f64::from(largest)) / std::f64::consts::LN_2) as f32;
        let mut block = BlockMXFP4 { e: (octave.floor() + 125.0) as u8, qs: [0; 16] };
        let d = power_of_two(block.e);
        let mut codes = [0; Self::LEN];
        for (code, &x) in codes.iter_mut().zip(x) {
            let mut least = f32::INFINITY;
            for (q, &number) in (0..).zip(&E2M1) {
                let error = (f32::from(number) * d - x).abs();
                if error < least {
                    (*code, least) = (q, error);
                }
            }
        }
        block.set_codes(&codes);
        block
    }
}
