//! The formats of three values, for models that were trained with such weights: y = d (q - 1), q = 0, 1 or 2.

use super::bits::{gather, spread};
use super::float::{HALF_MAX, f16_to_f32, f32_to_f16, inverse};
use super::legacy::{largest_magnitude, to_byte};
use super::{Block, Encode};
use bytemuck::{Pod, Zeroable};

const LEN: usize = 256;

/// Five codes a byte, as the digits of a number in base three; the last 16 codes four a byte.
///
/// A byte holds the fraction that its digits are of 3^5, in 256ths and rounded up, so that multiplying it by three
/// moves the first digit into the upper byte. Element 32n + m of the first 160 is digit n of byte m of `qs`, element
/// 160 + 16n + m of the next 80 digit n of byte 32 + m, element 240 + 4n + j of the last 16 digit n of byte j of `qh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockTQ1_0 {
    pub qs: [u8; 48],
    pub qh: [u8; 4],
    pub d: [u8; 2],
}
const _: () = assert!(size_of::<BlockTQ1_0>() == 54);

/// Two bits a code.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockTQ2_0 {
    pub qs: [u8; 64],
    pub d: [u8; 2],
}
const _: () = assert!(size_of::<BlockTQ2_0>() == 66);

/// The digits of a run of bytes: digit n of byte m is code n * (bytes) + m.
fn digits(bytes: &[u8], codes: &mut [u8]) {
    for (m, &byte) in bytes.iter().enumerate() {
        let mut fraction = byte;
        for code in codes.iter_mut().skip(m).step_by(bytes.len()) {
            let product = u16::from(fraction) * 3;
            (*code, fraction) = ((product >> 8) as u8, product as u8);
        }
    }
}

/// The inverse of [`digits`]; missing fifth digits are zero, codes above 2 are taken for 2.
fn from_digits(codes: &[u8], bytes: &mut [u8]) {
    let run = bytes.len();
    for (m, byte) in bytes.iter_mut().enumerate() {
        let digit = |n: usize| u16::from(codes.get(run * n + m).copied().unwrap_or(0).min(2));
        let number = (0..5).fold(0, |number, n| number * 3 + digit(n));
        *byte = (number * 256).div_ceil(243) as u8;
    }
}

/// y = d (q - 1).
fn decode(d: [u8; 2], codes: &[u8; LEN], y: &mut [f32]) {
    let d = f16_to_f32(d);
    for (y, &q) in y.iter_mut().zip(codes) {
        *y = (f32::from(q) - 1.0) * d;
    }
}

/// d = the largest magnitude, codes = 1 + x / d rounded half away from zero.
fn encode(x: &[f32]) -> ([u8; 2], [u8; LEN]) {
    let d = largest_magnitude(x);
    let inverse = inverse(d);
    let mut codes = [1; LEN];
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = (to_byte((x * inverse).round()) + 1) as u8;
    }
    (f32_to_f16(d), codes)
}

impl Block for BlockTQ1_0 {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        let (first, rest) = codes.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        digits(&self.qs[..32], first);
        digits(&self.qs[32..], second);
        digits(&self.qh, third);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        from_digits(&codes[..160], &mut self.qs[..32]);
        from_digits(&codes[160..240], &mut self.qs[32..]);
        from_digits(&codes[240..], &mut self.qh);
    }
    fn decode(&self, y: &mut [f32]) {
        let mut codes = [0; LEN];
        self.codes(&mut codes);
        decode(self.d, &codes, y);
    }
}

impl Block for BlockTQ2_0 {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<32, 2>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<32, 2>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let mut codes = [0; LEN];
        self.codes(&mut codes);
        decode(self.d, &codes, y);
    }
}

impl Encode for BlockTQ1_0 {
    const RANGE: [f32; 2] = [-HALF_MAX, HALF_MAX];
    fn encode(x: &[f32], _weights: Option<&[f32]>) -> Self {
        let (d, codes) = encode(x);
        let mut block = BlockTQ1_0 { d, ..Zeroable::zeroed() };
        block.set_codes(&codes);
        block
    }
}

impl Encode for BlockTQ2_0 {
    const RANGE: [f32; 2] = [-HALF_MAX, HALF_MAX];
    fn encode(x: &[f32], _weights: Option<&[f32]>) -> Self {
        let (d, codes) = encode(x);
        let mut block = BlockTQ2_0 { d, ..Zeroable::zeroed() };
        block.set_codes(&codes);
        block
    }
}
