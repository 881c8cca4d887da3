//! The formats whose blocks hold points of a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S.
//!
//! The magnitudes of 8 elements (IQ1 and IQ2) or 4 (IQ3) are one point of a grid, see `grids`; beside its index there are
//! 8 signs for each 8 elements. An element's code is its coordinate, and its sign as the bit above; a table of 16 says
//! which number the code stands for. In IQ1 the coordinate is the number with its sign, plus 1, and what the "signs" turn
//! over is the sign of an eighth that is added to it.
//!
//! y = d (2 scale + 1) T[code] / 8 (IQ1, IQ2) or / 2 (IQ3), with a scale below 16 for each 16 or 32 elements: every
//! step of this is exact in f32, so the order does not matter.

use super::Block;
use super::bits::{gather_in_order, spread_in_order};
use super::float::f16_to_f32;
use super::grids;
use bytemuck::{Pod, Zeroable};

const LEN: usize = 256;

/// The numbers of IQ1, times eight.
pub(crate) static IQ1: [i8; 16] = [-7, 1, 9, 0, -9, -1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The numbers of IQ2.
pub(crate) static IQ2: [i8; 16] = [8, 25, 43, 0, -8, -25, -43, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Half the numbers of IQ3_XXS.
pub(crate) static IQ3_XXS: [i8; 16] = [2, 6, 10, 14, 18, 22, 26, 31, -2, -6, -10, -14, -18, -22, -26, -31];
/// Twice the numbers of IQ3_S.
pub(crate) static IQ3_S: [i8; 16] = [2, 6, 10, 14, 18, 22, 26, 30, -2, -6, -10, -14, -18, -22, -26, -30];

/// What the codes of a block are multiplied with.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Debug, Pod, Zeroable)]
pub(crate) struct Scales {
    /// Little-endian half.
    pub d: [u8; 2],
    /// Those of 16 groups of 16 elements, a nibble each. In formats with groups of 32 both nibbles are equal.
    pub groups: [u8; 8],
}
const _: () = assert!(size_of::<Scales>() == 10);

/// Eight signs in seven bits, of which an even number is set.
fn signs_of(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

/// A byte with a nibble twice.
fn twice(nibble: u8) -> u8 {
    nibble << 4 | nibble
}

/// A block of points of a grid: how it keeps indices, signs and scales. The `set` functions leave all other bits.
trait Points: Pod {
    /// The points, by index; coordinates of BITS bits.
    const GRID: &'static [u16];
    /// Bits of a coordinate: 2 for eight of them, 3 for four.
    const BITS: usize;
    /// What codes stand for.
    const NUMBERS: &'static [i8; 16];

    /// The index of point i, below the size of the grid.
    fn index(&self, i: usize) -> usize;
    fn set_index(&mut self, i: usize, index: usize);
    /// Bit j of byte i is the sign of element 8 i + j.
    fn signs(&self) -> [u8; 32];
    fn set_signs(&mut self, signs: [u8; 32]);
    fn scales(&self) -> Scales;
    fn set_scales(&mut self, scales: Scales);
}

impl<B: Points> Block for B {
    const LEN: usize = LEN;

    fn codes(&self, codes: &mut [u8]) {
        for (i, codes) in codes.chunks_exact_mut(coordinates(B::BITS)).enumerate() {
            let point = B::GRID[self.index(i)];
            for (j, code) in codes.iter_mut().enumerate() {
                *code = (point >> (B::BITS * j)) as u8 & ((1 << B::BITS) - 1);
            }
        }
        spread_in_order(&self.signs(), B::BITS as u32, codes);
    }

    /// Codes must be those of points of the grid.
    fn set_codes(&mut self, codes: &[u8]) {
        for (i, codes) in codes.chunks_exact(coordinates(B::BITS)).enumerate() {
            let coordinates = codes.iter().map(|code| u16::from(code & ((1 << B::BITS) - 1)));
            let point = coordinates.rev().fold(0, |point, coordinate| point << B::BITS | coordinate);
            self.set_index(i, B::GRID.partition_point(|other| *other < point));
        }
        let mut signs = [0; 32];
        gather_in_order(codes, B::BITS as u32, &mut signs);
        self.set_signs(signs);
    }

    fn scales(&self) -> Scales {
        Points::scales(self)
    }

    fn set_scales(&mut self, scales: Scales) {
        Points::set_scales(self, scales);
    }

    fn decode(&self, y: &mut [f32]) {
        let (mut codes, scales) = ([0; LEN], Points::scales(self));
        self.codes(&mut codes);
        let d = f16_to_f32(scales.d) * if B::BITS == 2 { 0.125 } else { 0.5 };
        for (g, (y, codes)) in y.chunks_exact_mut(16).zip(codes.chunks_exact(16)).enumerate() {
            let scale = d * f32::from((scales.groups[g / 2] >> (g % 2 * 4) & 15) * 2 + 1);
            for (y, code) in y.iter_mut().zip(codes) {
                *y = scale * f32::from(B::NUMBERS[usize::from(*code)]);
            }
        }
    }
}

/// Coordinates of a point.
const fn coordinates(bits: usize) -> usize {
    if bits == 2 { 8 } else { 4 }
}

/// 8 groups of 32 elements: four indices, then a word with four times seven bits of signs and, at the top, the scale.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ2XXS {
    d: [u8; 2],
    groups: [Group; 8],
}
const _: () = assert!(size_of::<BlockIQ2XXS>() == 66);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Group {
    indices: [u8; 4],
    signs_and_scale: [u8; 4],
}

/// The signs of the 32 elements of a group in the word that it shares with the scale.
fn group_signs(word: [u8; 4]) -> [u8; 4] {
    let word = u32::from_le_bytes(word);
    [0, 7, 14, 21].map(|at| signs_of(word >> at))
}

/// The inverse of [`group_signs`].
fn set_group_signs(word: &mut [u8; 4], signs: &[u8]) {
    let scale = u32::from_le_bytes(*word) & 0xF000_0000;
    let signs = signs.iter().rev().fold(0, |word, signs| word << 7 | u32::from(signs & 127));
    *word = (scale | signs).to_le_bytes();
}

impl Points for BlockIQ2XXS {
    const GRID: &'static [u16] = &grids::IQ2_XXS;
    const BITS: usize = 2;
    const NUMBERS: &'static [i8; 16] = &IQ2;

    fn index(&self, i: usize) -> usize {
        usize::from(self.groups[i / 4].indices[i % 4])
    }
    fn set_index(&mut self, i: usize, index: usize) {
        self.groups[i / 4].indices[i % 4] = index as u8;
    }
    fn signs(&self) -> [u8; 32] {
        bytemuck::cast(self.groups.map(|group| group_signs(group.signs_and_scale)))
    }
    fn set_signs(&mut self, signs: [u8; 32]) {
        for (group, signs) in self.groups.iter_mut().zip(signs.chunks_exact(4)) {
            set_group_signs(&mut group.signs_and_scale, signs);
        }
    }
    fn scales(&self) -> Scales {
        Scales { d: self.d, groups: self.groups.map(|group| twice(group.signs_and_scale[3] >> 4)) }
    }
    fn set_scales(&mut self, scales: Scales) {
        self.d = scales.d;
        for (group, both) in self.groups.iter_mut().zip(scales.groups) {
            group.signs_and_scale[3] = group.signs_and_scale[3] & 15 | both & 0xF0;
        }
    }
}

/// 32 words of an index (9 bits) and signs (seven), then a nibble of scale for each 16 elements.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ2XS {
    d: [u8; 2],
    qs: [[u8; 2]; 32],
    scales: [u8; 8],
}
const _: () = assert!(size_of::<BlockIQ2XS>() == 74);

impl Points for BlockIQ2XS {
    const GRID: &'static [u16] = &grids::IQ2_XS;
    const BITS: usize = 2;
    const NUMBERS: &'static [i8; 16] = &IQ2;

    fn index(&self, i: usize) -> usize {
        usize::from(u16::from_le_bytes(self.qs[i]) & 511)
    }
    fn set_index(&mut self, i: usize, index: usize) {
        self.qs[i] = [index as u8, self.qs[i][1] & 0xFE | (index >> 8) as u8];
    }
    fn signs(&self) -> [u8; 32] {
        self.qs.map(|word| signs_of(u32::from(word[1] >> 1)))
    }
    fn set_signs(&mut self, signs: [u8; 32]) {
        for (word, signs) in self.qs.iter_mut().zip(signs) {
            word[1] = word[1] & 1 | signs << 1;
        }
    }
    fn scales(&self) -> Scales {
        Scales { d: self.d, groups: self.scales }
    }
    fn set_scales(&mut self, scales: Scales) {
        (self.d, self.scales) = (scales.d, scales.groups);
    }
}

/// The low eight bits of the indices, the signs, the upper two bits of the indices (four a byte), then a nibble of scale
/// for each 16 elements.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ2S {
    d: [u8; 2],
    qs: [u8; 32],
    signs: [u8; 32],
    qh: [u8; 8],
    scales: [u8; 8],
}
const _: () = assert!(size_of::<BlockIQ2S>() == 82);

/// `byte` with `bits` (below 2^n) from bit `at` up.
fn with_bits(byte: u8, at: usize, n: u32, bits: usize) -> u8 {
    byte & !(((1 << n) - 1) << at) | (bits as u8) << at
}

impl Points for BlockIQ2S {
    const GRID: &'static [u16] = &grids::IQ2_S;
    const BITS: usize = 2;
    const NUMBERS: &'static [i8; 16] = &IQ2;

    fn index(&self, i: usize) -> usize {
        usize::from(self.qs[i]) | usize::from(self.qh[i / 4] >> (i % 4 * 2) & 3) << 8
    }
    fn set_index(&mut self, i: usize, index: usize) {
        self.qs[i] = index as u8;
        self.qh[i / 4] = with_bits(self.qh[i / 4], i % 4 * 2, 2, index >> 8);
    }
    fn signs(&self) -> [u8; 32] {
        self.signs
    }
    fn set_signs(&mut self, signs: [u8; 32]) {
        self.signs = signs;
    }
    fn scales(&self) -> Scales {
        Scales { d: self.d, groups: self.scales }
    }
    fn set_scales(&mut self, scales: Scales) {
        (self.d, self.scales) = (scales.d, scales.groups);
    }
}

/// The indices, then for each 32 elements a word of signs and scale as in IQ2_XXS.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ3XXS {
    d: [u8; 2],
    qs: [u8; 64],
    signs_and_scales: [[u8; 4]; 8],
}
const _: () = assert!(size_of::<BlockIQ3XXS>() == 98);

impl Points for BlockIQ3XXS {
    const GRID: &'static [u16] = &grids::IQ3_XXS;
    const BITS: usize = 3;
    const NUMBERS: &'static [i8; 16] = &IQ3_XXS;

    fn index(&self, i: usize) -> usize {
        usize::from(self.qs[i])
    }
    fn set_index(&mut self, i: usize, index: usize) {
        self.qs[i] = index as u8;
    }
    fn signs(&self) -> [u8; 32] {
        bytemuck::cast(self.signs_and_scales.map(group_signs))
    }
    fn set_signs(&mut self, signs: [u8; 32]) {
        for (word, signs) in self.signs_and_scales.iter_mut().zip(signs.chunks_exact(4)) {
            set_group_signs(word, signs);
        }
    }
    fn scales(&self) -> Scales {
        Scales { d: self.d, groups: self.signs_and_scales.map(|word| twice(word[3] >> 4)) }
    }
    fn set_scales(&mut self, scales: Scales) {
        self.d = scales.d;
        for (word, both) in self.signs_and_scales.iter_mut().zip(scales.groups) {
            word[3] = word[3] & 15 | both & 0xF0;
        }
    }
}

/// The low eight bits of the indices, their ninth bits in order, the signs, then a nibble of scale for each 32 elements.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ3S {
    d: [u8; 2],
    qs: [u8; 64],
    qh: [u8; 8],
    signs: [u8; 32],
    scales: [u8; 4],
}
const _: () = assert!(size_of::<BlockIQ3S>() == 110);

impl Points for BlockIQ3S {
    const GRID: &'static [u16] = &grids::IQ3_S;
    const BITS: usize = 3;
    const NUMBERS: &'static [i8; 16] = &IQ3_S;

    fn index(&self, i: usize) -> usize {
        usize::from(self.qs[i]) | usize::from(self.qh[i / 8] >> (i % 8) & 1) << 8
    }
    fn set_index(&mut self, i: usize, index: usize) {
        self.qs[i] = index as u8;
        self.qh[i / 8] = with_bits(self.qh[i / 8], i % 8, 1, index >> 8);
    }
    fn signs(&self) -> [u8; 32] {
        self.signs
    }
    fn set_signs(&mut self, signs: [u8; 32]) {
        self.signs = signs;
    }
    fn scales(&self) -> Scales {
        Scales { d: self.d, groups: std::array::from_fn(|b| twice(self.scales[b / 2] >> (b % 2 * 4) & 15)) }
    }
    fn set_scales(&mut self, scales: Scales) {
        self.d = scales.d;
        for (byte, both) in self.scales.iter_mut().zip(scales.groups.as_chunks::<2>().0) {
            *byte = both[0] & 15 | both[1] & 0xF0;
        }
    }
}

/// The low eight bits of the indices, then for each 32 elements a word: four times the upper three bits of an index, a
/// scale of three bits, and the sign of all 32.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ1S {
    d: [u8; 2],
    qs: [u8; 32],
    qh: [[u8; 2]; 8],
}
const _: () = assert!(size_of::<BlockIQ1S>() == 50);

impl Points for BlockIQ1S {
    const GRID: &'static [u16] = &grids::IQ1;
    const BITS: usize = 2;
    const NUMBERS: &'static [i8; 16] = &IQ1;

    fn index(&self, i: usize) -> usize {
        usize::from(self.qs[i]) | usize::from(u16::from_le_bytes(self.qh[i / 4]) >> (i % 4 * 3) & 7) << 8
    }
    fn set_index(&mut self, i: usize, index: usize) {
        self.qs[i] = index as u8;
        let (word, at) = (u16::from_le_bytes(self.qh[i / 4]), i % 4 * 3);
        self.qh[i / 4] = (word & !(7 << at) | ((index >> 8) as u16) << at).to_le_bytes();
    }
    fn signs(&self) -> [u8; 32] {
        std::array::from_fn(|i| if self.qh[i / 4][1] & 0x80 == 0 { 0 } else { 0xFF })
    }
    fn set_signs(&mut self, signs: [u8; 32]) {
        for (word, signs) in self.qh.iter_mut().zip(signs.as_chunks::<4>().0) {
            word[1] = word[1] & 0x7F | signs[0] & 0x80;
        }
    }
    fn scales(&self) -> Scales {
        Scales { d: self.d, groups: self.qh.map(|word| twice(word[1] >> 4 & 7)) }
    }
    fn set_scales(&mut self, scales: Scales) {
        self.d = scales.d;
        for (word, both) in self.qh.iter_mut().zip(scales.groups) {
            word[1] = word[1] & 0x8F | both & 0x70;
        }
    }
}

/// The low eight bits of the indices; a nibble for each index, its upper three bits and the sign of the eight elements;
/// four words of four scales, three bits each, for 16 elements. The top nibbles of these words are d, the lowest first.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct BlockIQ1M {
    qs: [u8; 32],
    qh: [u8; 16],
    scales: [[u8; 2]; 4],
}
const _: () = assert!(size_of::<BlockIQ1M>() == 56);

impl Points for BlockIQ1M {
    const GRID: &'static [u16] = &grids::IQ1;
    const BITS: usize = 2;
    const NUMBERS: &'static [i8; 16] = &IQ1;

    fn index(&self, i: usize) -> usize {
        usize::from(self.qs[i]) | usize::from(self.qh[i / 2] >> (i % 2 * 4) & 7) << 8
    }
    fn set_index(&mut self, i: usize, index: usize) {
        self.qs[i] = index as u8;
        self.qh[i / 2] = with_bits(self.qh[i / 2], i % 2 * 4, 3, index >> 8);
    }
    fn signs(&self) -> [u8; 32] {
        std::array::from_fn(|i| if self.qh[i / 2] >> (i % 2 * 4) & 8 == 0 { 0 } else { 0xFF })
    }
    fn set_signs(&mut self, signs: [u8; 32]) {
        for (byte, signs) in self.qh.iter_mut().zip(signs.as_chunks::<2>().0) {
            *byte = *byte & 0x77 | signs[0] & 0x08 | signs[1] & 0x80;
        }
    }
    fn scales(&self) -> Scales {
        let words = self.scales.map(u16::from_le_bytes);
        let d = words.iter().rev().fold(0, |d, word| d << 4 | word >> 12);
        let scale = |g: usize| (words[g / 4] >> (g % 4 * 3) & 7) as u8;
        Scales { d: u16::to_le_bytes(d), groups: std::array::from_fn(|b| scale(2 * b) | scale(2 * b + 1) << 4) }
    }
    fn set_scales(&mut self, scales: Scales) {
        let d = u16::from_le_bytes(scales.d);
        for (i, (word, groups)) in self.scales.iter_mut().zip(scales.groups.as_chunks::<2>().0).enumerate() {
            let groups = u16::from_le_bytes(*groups);
            let packed = (0..4).fold(0, |packed, g| packed | (groups >> (4 * g) & 7) << (3 * g));
            *word = (packed | (d >> (4 * i) & 15) << 12).to_le_bytes();
        }
    }
}
