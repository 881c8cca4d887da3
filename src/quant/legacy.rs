//! The first formats of ggml: 32 elements that share one scale (`_0`) or a scale and a minimum (`_1`).
//!
//! In Q4 and Q5 byte j of `qs` holds the low four bits of element j (low nibble) and of element j + 16 (high nibble);
//! in Q5 bit i of `qh` is the fifth bit of element i.

use super::bits::{gather, gather_in_order, spread, spread_in_order};
use super::float::{HALF_MAX, f16_to_f32, f32_to_f16, inverse};
use super::levels::Integers;
use super::search::{AROUND, Line, Mins, encode, half, relative, search};
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

/// The codes of a block.
fn codes_of(block: &impl Block) -> [u8; LEN] {
    let mut codes = [0; LEN];
    block.codes(&mut codes);
    codes
}

/// A block whose scales are set, with these codes.
fn with_codes<B: Block>(mut block: B, codes: [u8; LEN]) -> B {
    block.set_codes(&codes);
    block
}

/// Float -> signed byte as the reference does it on x86-64: towards zero; what no 32-bit integer holds (infinities
/// that a subnormal scale's inverse makes, NaN) becomes 0, other values beyond a byte lose their upper bits.
pub(super) fn to_byte(x: f32) -> i8 {
    if x.abs() < 2_147_483_648.0 { x as i32 as i8 } else { 0 }
}

/// max |x|, NaN aside.
pub(super) fn largest_magnitude(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |largest, v| if v.abs() > largest { v.abs() } else { largest })
}

/// The line and the codes that a search finds. Without importances there is none: then bytes are those of ggml.
fn searched(x: &[f32], weights: &[f32], levels: Integers, mins: Mins) -> (Line, [u8; LEN]) {
    let w = relative::<LEN>(Some(weights));
    let line = search(x, &w, levels, mins, AROUND, |line| Line { scale: half(line.scale), min: half(line.min) });
    let mut codes = [0; LEN];
    encode(x, levels, line, &mut codes);
    (line, codes)
}

/// Codes around zero: the element of largest magnitude, with its sign, becomes code 0, that is -`half` steps, unless
/// importances are given. Returns the scale and the codes in 0 .. 2 `half`. A block of zeros has the scale -0.
fn symmetric(x: &[f32], weights: Option<&[f32]>, half: i8) -> (f32, [u8; LEN]) {
    if let Some(weights) = weights {
        let levels = Integers { low: -f32::from(half), high: f32::from(half) - 1.0 };
        let (line, codes) = searched(x, weights, levels, Mins::Zero);
        return (line.scale, codes);
    }
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

/// Codes from the minimum (0) to the maximum (`top`), unless importances are given. Returns scale, minimum, codes. The
/// minimum is stored as a half: of numbers above all halves it is the largest, where ggml's is infinite.
fn affine(x: &[f32], weights: Option<&[f32]>, top: i8) -> (f32, f32, [u8; LEN]) {
    if let Some(weights) = weights {
        let (line, codes) = searched(x, weights, Integers { low: 0.0, high: f32::from(top) }, Mins::Any);
        return (line.scale, -line.min, codes);
    }
    let (mut min, mut max) = (f32::MAX, f32::MIN);
    for &v in x {
        if v < min {
            min = v;
        }
        if v > max {
            max = v;
        }
    }
    let min = min.min(HALF_MAX);
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
    fn codes(&self, codes: &mut [u8]) {
        spread::<16, 4>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<16, 4>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let d = f16_to_f32(self.d);
        for (y, q) in y.iter_mut().zip(codes_of(self)) {
            *y = (f32::from(q) - 8.0) * d;
        }
    }
}

impl Encode for BlockQ4_0 {
    const RANGE: [f32; 2] = [-8.0 * HALF_MAX, 8.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let (d, codes) = symmetric(x, weights, 8);
        with_codes(BlockQ4_0 { d: f32_to_f16(d), ..Zeroable::zeroed() }, codes)
    }
}

impl Block for BlockQ4_1 {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<16, 4>(&self.qs, 0, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<16, 4>(codes, 0, &mut self.qs);
    }
    fn decode(&self, y: &mut [f32]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (y, q) in y.iter_mut().zip(codes_of(self)) {
            *y = f32::from(q) * d + m;
        }
    }
}

impl Encode for BlockQ4_1 {
    const RANGE: [f32; 2] = [-HALF_MAX, 14.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let (d, m, codes) = affine(x, weights, 15);
        with_codes(BlockQ4_1 { d: f32_to_f16(d), m: f32_to_f16(m), ..Zeroable::zeroed() }, codes)
    }
}

impl Block for BlockQ5_0 {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<16, 4>(&self.qs, 0, codes);
        spread_in_order(&self.qh, 4, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<16, 4>(codes, 0, &mut self.qs);
        gather_in_order(codes, 4, &mut self.qh);
    }
    fn decode(&self, y: &mut [f32]) {
        let d = f16_to_f32(self.d);
        for (y, q) in y.iter_mut().zip(codes_of(self)) {
            *y = (f32::from(q) - 16.0) * d;
        }
    }
}

impl Encode for BlockQ5_0 {
    const RANGE: [f32; 2] = [-16.0 * HALF_MAX, 16.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let (d, codes) = symmetric(x, weights, 16);
        with_codes(BlockQ5_0 { d: f32_to_f16(d), ..Zeroable::zeroed() }, codes)
    }
}

impl Block for BlockQ5_1 {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        spread::<16, 4>(&self.qs, 0, codes);
        spread_in_order(&self.qh, 4, codes);
    }
    fn set_codes(&mut self, codes: &[u8]) {
        gather::<16, 4>(codes, 0, &mut self.qs);
        gather_in_order(codes, 4, &mut self.qh);
    }
    fn decode(&self, y: &mut [f32]) {
        let (d, m) = (f16_to_f32(self.d), f16_to_f32(self.m));
        for (y, q) in y.iter_mut().zip(codes_of(self)) {
            *y = f32::from(q) * d + m;
        }
    }
}

impl Encode for BlockQ5_1 {
    const RANGE: [f32; 2] = [-HALF_MAX, 30.0 * HALF_MAX];
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self {
        let (d, m, codes) = affine(x, weights, 31);
        with_codes(BlockQ5_1 { d: f32_to_f16(d), m: f32_to_f16(m), ..Zeroable::zeroed() }, codes)
    }
}

impl Block for BlockQ8_0 {
    const LEN: usize = LEN;
    fn codes(&self, codes: &mut [u8]) {
        codes.copy_from_slice(bytemuck::bytes_of(&self.qs));
    }
    fn set_codes(&mut self, codes: &[u8]) {
        self.qs.copy_from_slice(bytemuck::cast_slice(codes));
    }
    fn decode(&self, y: &mut [f32]) {
        let d = f16_to_f32(self.d);
        for (y, q) in y.iter_mut().zip(self.qs) {
            *y = f32::from(q) * d;
        }
    }
}

impl Encode for BlockQ8_0 {
    const RANGE: [f32; 2] = [-127.0 * HALF_MAX, 127.0 * HALF_MAX];
    fn encode(x: &[f32], _weights: Option<&[f32]>) -> Self {
        let d = largest_magnitude(x) / 127.0;
        let inverse = inverse(d);
        let mut qs = [0; LEN];
        for (q, &v) in qs.iter_mut().zip(x) {
            // Half away from zero.
            *q = to_byte((v * inverse).round());
        }
        BlockQ8_0 { d: f32_to_f16(d), qs }
    }
}
