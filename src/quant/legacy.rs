//! The first formats of ggml: 32 elements that share one scale (`_0`) or a scale and a minimum (`_1`).
//!
//! In Q4 and Q5 byte j of `qs` holds the low four bits of element j (low nibble) and of element j + 16 (high nibble);
//! in Q5 bit i of `qh` is the fifth bit of element i.

use super::float::{f16_to_f32, f32_to_f16};
use super::{Block, Encode};
use bytemuck::{Pod, Zeroable};

const LEN: usize = 32;

/// y = d (q - 8).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ4_0 {
    pub d: [u8; 2],
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ4_0>() == 18);

/// y = d q + m.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ4_1 {
    pub d: [u8; 2],
    pub m: [u8; 2],
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ4_1>() == 20);

/// y = d (q - 16).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ5_0 {
    pub d: [u8; 2],
    pub qh: [u8; 4],
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ5_0>() == 22);

/// y = d q + m.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ5_1 {
    pub d: [u8; 2],
    pub m: [u8; 2],
    pub qh: [u8; 4],
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ5_1>() == 24);

/// y = d q.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockQ8_0 {
    pub d: [u8; 2],
    pub qs: [i8; 32],
}
const _: () = assert!(size_of::<BlockQ8_0>() == 34);

/// The codes of a block in the order of its elements. `qh` = 0 for the four-bit formats.
fn unpack(qs: &[u8; 16], qh: u32) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (j, &byte) in qs.iter().enumerate() {
        codes[j] = byte & 15 | ((qh >> j & 1) << 4) as u8;
        codes[j + 16] = byte >> 4 | ((qh >> (j + 16) & 1) << 4) as u8;
    }
    codes
}

/// The reverse of [`unpack`]: low bits, fifth bits.
fn pack(codes: [u8; LEN]) -> ([u8; 16], u32) {
    let mut qs = [0; 16];
    let mut qh = 0;
    for (j, byte) in qs.iter_mut().enumerate() {
        *byte = codes[j] & 15 | codes[j + 16] << 4;
    }
    for (i, code) in codes.iter().enumerate() {
        qh |= u32::from(code >> 4 & 1) << i;
    }
    (qs, qh)
}

/// Float -> signed byte as the reference does it on x86-64: towards zero; what no 32-bit integer holds (infinities
/// that a subnormal scale's inverse makes, NaN) becomes 0, other values beyond a byte lose their upper bits.
fn to_byte(x: f32) -> i8 {
    if x.abs() < 2_147_483_648.0 { x as i32 as i8 } else { 0 }
}

/// The inverse of a scale, 0 for 0. It is taken from the f32 scale, before that is rounded to f16.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Codes around zero: the element of largest magnitude, with its sign, becomes code 0, that is -`half` steps.
/// Returns the scale and the codes in 0 .. 2 `half`. A block of zeros has the scale -0.
fn symmetric(x: &[f32], half: i8) -> (f32, [u8; LEN]) {
    let mut largest = 0.0f32;
    for &v in x {
        if v.abs() > largest.abs() {
            largest = v;
        }
    }
    let d = largest / -f32::from(half);
    let inverse = inverse(d);
    let mut codes = [0; LEN];
    for (code, &v) in codes.iter_mut().zip(x) {
        *code = to_byte(v * inverse + (f32::from(half) + 0.5)).min(2 * half - 1) as u8;
    }
    (d, codes)
}

/// Codes from the minimum (0) to the maximum (`top`). Returns scale, minimum, codes.
fn affine(x: &[f32], top: i8) -> (f32, f32, [u8; LEN]) {
    let (mut min, mut max) = (f32::MAX, f32::MIN);
    for &v in x {
        if v < min {
            min = v;
        }
        if v > max {
            max = v;
        }
    }
    let d = (max - min) / f32::from(top);
    let inverse = inverse(d);
    let mut codes = [0; LEN];
    for (code, &v) in codes.iter_mut().zip(x) {
        *code = to_byte((v - min) * inverse + 0.5).min(top) as u8;
    }
    (d, min, codes)
}

impl Block for BlockQ4_0 {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        let d = f16_to_f32(self.d);
        for (y, q) in y.iter_mut().zip(unpack(&self.qs, 0)) {
            *y = (f32::from(q) - 8.0) * d;
        }
    }
}

impl Encode for BlockQ4_0 {
    fn encode(x: &[f32]) -> Self {
        let (d, codes) = symmetric(x, 8);
        BlockQ4_0 { d: f32_to_f16(d), qs: pack(codes).0 }
    }
}

impl Block for BlockQ4_1 {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (y, q) in y.iter_mut().zip(unpack(&self.qs, 0)) {
            *y = f32::from(q) * d + m;
        }
    }
}

impl Encode for BlockQ4_1 {
    fn encode(x: &[f32]) -> Self {
        let (d, m, codes) = affine(x, 15);
        BlockQ4_1 { d: f32_to_f16(d), m: f32_to_f16(m), qs: pack(codes).0 }
    }
}

impl Block for BlockQ5_0 {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        let d = f16_to_f32(self.d);
        for (y, q) in y.iter_mut().zip(unpack(&self.qs, u32::from_le_bytes(self.qh))) {
            *y = (f32::from(q) - 16.0) * d;
        }
    }
}

impl Encode for BlockQ5_0 {
    fn encode(x: &[f32]) -> Self {
        let (d, codes) = symmetric(x, 16);
        let (qs, qh) = pack(codes);
        BlockQ5_0 { d: f32_to_f16(d), qh: qh.to_le_bytes(), qs }
    }
}

impl Block for BlockQ5_1 {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (y, q) in y.iter_mut().zip(unpack(&self.qs, u32::from_le_bytes(self.qh))) {
            *y = f32::from(q) * d + m;
        }
    }
}

impl Encode for BlockQ5_1 {
    fn encode(x: &[f32]) -> Self {
        let (d, m, codes) = affine(x, 31);
        let (qs, qh) = pack(codes);
        BlockQ5_1 { d: f32_to_f16(d), m: f32_to_f16(m), qh: qh.to_le_bytes(), qs }
    }
}

impl Block for BlockQ8_0 {
    const LEN: usize = LEN;
    fn decode(&self, y: &mut [f32]) {
        let d = f16_to_f32(self.d);
        for (y, q) in y.iter_mut().zip(self.qs) {
            *y = f32::from(q) * d;
        }
    }
}

impl Encode for BlockQ8_0 {
    fn encode(x: &[f32]) -> Self {
        let d = x.iter().fold(0.0f32, |largest, v| if v.abs() > largest { v.abs() } else { largest }) / 127.0;
        let inverse = inverse(d);
        let mut qs = [0; LEN];
        for (q, &v) in qs.iter_mut().zip(x) {
            // Half away from zero.
            *q = to_byte((v * inverse).round());
        }
        BlockQ8_0 { d: f32_to_f16(d), qs }
    }
}
