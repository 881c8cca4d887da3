//! Weights as the kernels read them: panels of 16 rows, interleaved ("x16").
//!
//! A vector of 64 bytes holds, for each of the 16 rows, one 32-bit lane of four consecutive k values. So a kernel
//! keeps one output row a lane, never adds across lanes, and every instruction set reads the same bytes: AVX2 in two
//! halves. Layout moves codes and does not change them: each packer has an exact inverse.
//!
//! A panel is a plane of scales (formats whose block has only one) and then its units, one a GGUF block:
//!
//! | format | plane, bytes a unit | unit |
//! |---|---|---|
//! | F32; F16, BF16 | | one k: 16 values |
//! | Q4_0 | d 32 | nibbles 256 |
//! | Q5_0 | d 32 | nibbles 256, fifth bits 64 |
//! | Q8_0 | d 32 | bytes 512 |
//! | Q4_1 | | d 32, m 32, nibbles 256 |
//! | Q5_1 | | d 32, m 32, nibbles 256, fifth bits 64 |
//! | Q4_K | | d 32, dmin 32, scales 192, 8 times: nibbles 256 |
//! | Q5_K | | d 32, dmin 32, scales 192, 8 times: nibbles 256, fifth bits 64 |
//! | Q6_K | d 32 | 8 times: nibbles 256, upper two bits 128, scales of both halves 32 |
//!
//! Nibbles: byte 64 j + 4 r + x holds k = 4j + x of row r in its low and k = 16 + 4j + x in its high half.
//! Fifth bits: bit j of byte 4 r + x belongs to k = 4j + x. Upper two bits: bits 2j, 2j+1 of byte 64 h + 4 r + x
//! belong to k = 16 h + 4j + x.

use std::sync::{Arc, OnceLock};

use memmap2::{Mmap, MmapMut};

use crate::error::{Error, Result, try_vec};
use crate::quant::Format;

/// Rows of a panel.
pub(crate) const ROWS: usize = 16;

/// Sizes of a format's panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Values a unit covers in one row: the format's block.
    block: usize,
    /// Bytes of a unit's 16 scales in the plane.
    plane: usize,
    /// Bytes of a unit.
    unit: usize,
}

/// Bytes of the nibbles of 16 rows of 32 codes.
pub(super) const NIBBLES: usize = 256;
/// Bytes of the fifth bits of 16 rows of 32 codes.
pub(super) const FIFTH: usize = 64;
/// Bytes of the upper two bits of 16 rows of 32 codes.
pub(super) const UPPER: usize = 128;
/// Bytes of d and the second number of 16 rows.
pub(super) const PAIR: usize = 64;
/// Bytes of the packed 6-bit scales of 16 rows.
pub(super) const SCALES: usize = 192;

impl Layout {
    /// The layout of a format.
    pub(super) fn of(format: Format) -> Layout {
        let (plane, unit) = match format {
            Format::F32 => (0, 64),
            Format::F16 | Format::BF16 => (0, 32),
            Format::Q4_0 => (32, NIBBLES),
            Format::Q5_0 => (32, NIBBLES + FIFTH),
            Format::Q8_0 => (32, 512),
            Format::Q4_1 => (0, PAIR + NIBBLES),
            Format::Q5_1 => (0, PAIR + NIBBLES + FIFTH),
            Format::Q4K => (0, PAIR + SCALES + 8 * NIBBLES),
            Format::Q5K => (0, PAIR + SCALES + 8 * (NIBBLES + FIFTH)),
            Format::Q6K => (32, 8 * (NIBBLES + UPPER + 2 * ROWS)),
        };
        Layout { block: format.block_len(), plane, unit }
    }

    /// Bytes of the plane of a panel of rows of `k` values, rounded up to whole vectors.
    pub(super) fn plane_bytes(self, k: usize) -> usize {
        plane_bytes(k / self.block, self.plane)
    }

    /// Bytes of a panel.
    pub(super) fn panel_bytes(self, k: usize) -> usize {
        self.plane_bytes(k) + k / self.block * self.unit
    }
}

/// Bytes of the plane of a panel's scales, `each` bytes for each of `units` units, rounded up to whole vectors.
#[inline(always)]
pub(super) const fn plane_bytes(units: usize, each: usize) -> usize {
    (units * each).next_multiple_of(64)
}

/// The memory of a model's weights: one anonymous mapping, in huge pages where the system gives them. Matrices may be
/// laid out in it before it is there; it is written once.
#[derive(Debug, Default)]
pub(crate) struct Arena(OnceLock<Mmap>);

impl Arena {
    /// Zeroed memory of `bytes` bytes, to be packed into.
    pub(crate) fn allocate(bytes: usize) -> Result<MmapMut> {
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| {
            Error::out_of_memory(format!("the weights need {bytes} bytes, which cannot be had")).with("bytes", bytes)
        })?;
        #[cfg(target_os = "linux")]
        // Only a wish: without huge pages the same bytes are read, with more page walks.
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(map)
    }

    /// Takes the packed weights; the pages become read-only.
    pub(crate) fn fill(&self, map: MmapMut) -> Result<()> {
        let map = map.make_read_only();
        let map = map.map_err(|e| Error::io(format!("the weights cannot be made read-only: {e}")))?;
        self.0.set(map).map_err(|_| Error::internal("the weights were packed twice"))
    }

    fn bytes(&self) -> &[u8] {
        self.0.get().map_or(&[], |map| map)
    }
}

/// The shape of a packed matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The number format.
    pub format: Format,
    /// Rows: outputs.
    pub rows: usize,
    /// Values of a row: inputs.
    pub columns: usize,
}

impl Shape {
    /// Number of panels; the last is padded with zero rows.
    pub(crate) fn panels(self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Bytes of one panel.
    pub(crate) fn panel_bytes(self) -> usize {
        Layout::of(self.format).panel_bytes(self.columns)
    }

    /// Bytes of the packed matrix, rounded up so that the next one begins on a vector; `None` on overflow.
    pub(crate) fn packed_bytes(self) -> Option<usize> {
        self.panels().checked_mul(self.panel_bytes())?.checked_next_multiple_of(64)
    }

    /// Bytes of one row as GGUF stores it.
    pub(crate) fn row_bytes(self) -> usize {
        self.columns / self.format.block_len() * self.format.block_bytes()
    }

    /// Packs up to 16 rows of GGUF bytes into one panel. Missing rows stay zero.
    pub(crate) fn pack(self, rows: &[u8], panel: &mut [u8]) {
        let layout = Layout::of(self.format);
        let (plane, units) = panel.split_at_mut(layout.plane_bytes(self.columns));
        for (r, row) in rows.chunks_exact(self.row_bytes()).enumerate() {
            let blocks = row.chunks_exact(self.format.block_bytes()).zip(units.chunks_exact_mut(layout.unit));
            for (i, (block, unit)) in blocks.enumerate() {
                let scale = &mut plane[i * layout.plane..(i + 1) * layout.plane];
                convert(self.format, Direction::Pack { block, scale, unit }, r);
            }
        }
    }

    /// The inverse of `pack` for one row.
    pub(crate) fn unpack(self, panel: &[u8], r: usize, row: &mut [u8]) {
        let layout = Layout::of(self.format);
        let (plane, units) = panel.split_at(layout.plane_bytes(self.columns));
        let blocks = row.chunks_exact_mut(self.format.block_bytes()).zip(units.chunks_exact(layout.unit));
        for (i, (block, unit)) in blocks.enumerate() {
            let scale = &plane[i * layout.plane..(i + 1) * layout.plane];
            convert(self.format, Direction::Unpack { block, scale, unit }, r);
        }
    }
}

/// A packed (rows, columns) matrix, read only.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    shape: Shape,
    arena: Arc<Arena>,
    offset: usize,
}

impl Weight {
    /// The matrix that is packed, or will be, at `offset` of `arena`.
    pub(crate) fn new(shape: Shape, arena: Arc<Arena>, offset: usize) -> Weight {
        Weight { shape, arena, offset }
    }

    /// Format and size.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// True if products take quantised activations, false if they take f32 values.
    pub(crate) fn takes_blocks(&self) -> bool {
        self.shape.format.block_len() > 1
    }

    /// The bytes of all panels from panel `p` on.
    pub(super) fn panels_from(&self, p: usize) -> &[u8] {
        let (bytes, panels) = (self.shape.panel_bytes(), self.shape.panels());
        &self.arena.bytes()[self.offset + p * bytes..self.offset + panels * bytes]
    }

    /// Row `row` as f32, the same bits as decoding the file gives.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let mut bytes = try_vec(self.shape.row_bytes(), 0, "a row of a matrix")?;
        self.shape.unpack(&self.panels_from(row / ROWS)[..self.shape.panel_bytes()], row % ROWS, &mut bytes);
        self.shape.format.decode(&bytes, out)
    }
}

/// Which way `convert` moves, with the bytes at both ends: a GGUF block; the unit's scales in the plane; the unit.
enum Direction<'a> {
    Pack { block: &'a [u8], scale: &'a mut [u8], unit: &'a mut [u8] },
    Unpack { block: &'a mut [u8], scale: &'a [u8], unit: &'a [u8] },
}

/// Moves the block of row `r` between its two layouts.
fn convert(format: Format, direction: Direction<'_>, r: usize) {
    match direction {
        Direction::Pack { block, scale, unit } => match format {
            Format::F32 => unit[4 * r..4 * r + 4].copy_from_slice(block),
            Format::F16 | Format::BF16 => unit[2 * r..2 * r + 2].copy_from_slice(block),
            Format::Q4_0 => {
                put2(scale, r, &block[..2]);
                put_words(unit, r, &block[2..]);
            }
            Format::Q4_1 => {
                put2(unit, r, &block[..2]);
                put2(&mut unit[32..], r, &block[2..4]);
                put_words(&mut unit[PAIR..], r, &block[4..]);
            }
            Format::Q5_0 => {
                put2(scale, r, &block[..2]);
                put_words(unit, r, &block[6..]);
                put_fifth(&mut unit[NIBBLES..], r, u32::from_le_bytes([block[2], block[3], block[4], block[5]]));
            }
            Format::Q5_1 => {
                put2(unit, r, &block[..2]);
                put2(&mut unit[32..], r, &block[2..4]);
                put_words(&mut unit[PAIR..], r, &block[8..]);
                let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
                put_fifth(&mut unit[PAIR + NIBBLES..], r, fifth);
            }
            Format::Q8_0 => {
                put2(scale, r, &block[..2]);
                put_words(unit, r, &block[2..]);
            }
            Format::Q4K | Format::Q5K => {
                put2(unit, r, &block[..2]);
                put2(&mut unit[32..], r, &block[2..4]);
                put_words(&mut unit[PAIR..], r, &block[4..16]);
                let (high, codes) =
                    if format == Format::Q5K { block[16..].split_at(32) } else { (&[][..], &block[16..]) };
                let size = NIBBLES + if high.is_empty() { 0 } else { FIFTH };
                for (b, part) in unit[PAIR + SCALES..].chunks_exact_mut(size).enumerate() {
                    let mut low = [0; 32];
                    for (low, byte) in low.iter_mut().zip(&codes[32 * (b / 2)..]) {
                        *low = byte >> (4 * (b % 2)) & 15;
                    }
                    put_words(part, r, &nibbles(&low));
                    if !high.is_empty() {
                        let fifth = high.iter().enumerate().fold(0, |bits, (i, h)| bits | u32::from(h >> b & 1) << i);
                        put_fifth(&mut part[NIBBLES..], r, fifth);
                    }
                }
            }
            Format::Q6K => {
                put2(scale, r, &block[208..]);
                for (b, part) in unit.chunks_exact_mut(NIBBLES + UPPER + 2 * ROWS).enumerate() {
                    let (low, high, shift) = six_bit_place(b);
                    let mut codes = [0; 32];
                    for (i, code) in codes.iter_mut().enumerate() {
                        *code = block[low + i] >> shift & 15 | (block[high + i] >> (2 * (b % 4)) & 3) << 4;
                    }
                    put_words(part, r, &nibbles(&codes));
                    put_upper(&mut part[NIBBLES..], r, &codes);
                    part[NIBBLES + UPPER + r] = block[192 + 2 * b];
                    part[NIBBLES + UPPER + ROWS + r] = block[193 + 2 * b];
                }
            }
        },
        Direction::Unpack { block, scale, unit } => match format {
            Format::F32 => block.copy_from_slice(&unit[4 * r..4 * r + 4]),
            Format::F16 | Format::BF16 => block.copy_from_slice(&unit[2 * r..2 * r + 2]),
            Format::Q4_0 | Format::Q8_0 => {
                block[..2].copy_from_slice(&scale[2 * r..2 * r + 2]);
                get_words(unit, r, &mut block[2..]);
            }
            Format::Q4_1 => {
                block[..2].copy_from_slice(&unit[2 * r..2 * r + 2]);
                block[2..4].copy_from_slice(&unit[32 + 2 * r..34 + 2 * r]);
                get_words(&unit[PAIR..], r, &mut block[4..]);
            }
            Format::Q5_0 => {
                block[..2].copy_from_slice(&scale[2 * r..2 * r + 2]);
                get_words(unit, r, &mut block[6..]);
                block[2..6].copy_from_slice(&fifth(&unit[NIBBLES..], r).to_le_bytes());
            }
            Format::Q5_1 => {
                block[..2].copy_from_slice(&unit[2 * r..2 * r + 2]);
                block[2..4].copy_from_slice(&unit[32 + 2 * r..34 + 2 * r]);
                get_words(&unit[PAIR..], r, &mut block[8..]);
                block[4..8].copy_from_slice(&fifth(&unit[PAIR + NIBBLES..], r).to_le_bytes());
            }
            Format::Q4K | Format::Q5K => {
                block.fill(0);
                block[..2].copy_from_slice(&unit[2 * r..2 * r + 2]);
                block[2..4].copy_from_slice(&unit[32 + 2 * r..34 + 2 * r]);
                get_words(&unit[PAIR..], r, &mut block[4..16]);
                let five = format == Format::Q5K;
                let (size, codes_at) = if five { (NIBBLES + FIFTH, 48) } else { (NIBBLES, 16) };
                for (b, part) in unit[PAIR + SCALES..].chunks_exact(size).enumerate() {
                    for i in 0..32 {
                        block[codes_at + 32 * (b / 2) + i] |= nibble(part, r, i) << (4 * (b % 2));
                    }
                    if five {
                        let bits = fifth(&part[NIBBLES..], r);
                        for i in 0..32 {
                            block[16 + i] |= ((bits >> i & 1) as u8) << b;
                        }
                    }
                }
            }
            Format::Q6K => {
                block.fill(0);
                block[208..].copy_from_slice(&scale[2 * r..2 * r + 2]);
                for (b, part) in unit.chunks_exact(NIBBLES + UPPER + 2 * ROWS).enumerate() {
                    let (low, high, shift) = six_bit_place(b);
                    for i in 0..32 {
                        block[low + i] |= nibble(part, r, i) << shift;
                        block[high + i] |= upper(&part[NIBBLES..], r, i) << (2 * (b % 4));
                    }
                    block[192 + 2 * b] = part[NIBBLES + UPPER + r];
                    block[193 + 2 * b] = part[NIBBLES + UPPER + ROWS + r];
                }
            }
        },
    }
}

/// Where Q6_K keeps its 32-value block `b`: offset of the low nibbles, offset of the high bits, shift of the nibble.
fn six_bit_place(b: usize) -> (usize, usize, usize) {
    (64 * (b / 4) + 32 * (b % 2), 128 + 32 * (b / 4), 4 * (b / 2 % 2))
}

fn put2(out: &mut [u8], r: usize, two: &[u8]) {
    out[2 * r..2 * r + 2].copy_from_slice(two);
}

/// Puts the 32-bit words of a row into its lane of consecutive vectors.
fn put_words(out: &mut [u8], r: usize, row: &[u8]) {
    for (vector, word) in out.chunks_exact_mut(64).zip(row.chunks_exact(4)) {
        vector[4 * r..4 * r + 4].copy_from_slice(word);
    }
}

fn get_words(unit: &[u8], r: usize, row: &mut [u8]) {
    for (vector, word) in unit.chunks_exact(64).zip(row.chunks_exact_mut(4)) {
        word.copy_from_slice(&vector[4 * r..4 * r + 4]);
    }
}

/// The low halves of 32 codes: value i beside value i + 16.
fn nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| codes[i] & 15 | codes[i + 16] << 4)
}

/// Bit k of `bits` is the fifth bit of value k.
fn put_fifth(out: &mut [u8], r: usize, bits: u32) {
    for x in 0..4 {
        out[4 * r + x] = (0..8).fold(0, |byte, j| byte | ((bits >> (4 * j + x) & 1) as u8) << j);
    }
}

/// The inverse of `put_fifth`.
pub(super) fn fifth(part: &[u8], r: usize) -> u32 {
    (0..32).fold(0, |bits, k| bits | u32::from(part[4 * r + k % 4] >> (k / 4) & 1) << k)
}

/// Bits 4 and 5 of 32 codes.
fn put_upper(out: &mut [u8], r: usize, codes: &[u8; 32]) {
    for h in 0..2 {
        for x in 0..4 {
            out[64 * h + 4 * r + x] = (0..4).fold(0, |byte, j| byte | (codes[16 * h + 4 * j + x] >> 4 & 3) << (2 * j));
        }
    }
}

/// The upper two bits of value k.
pub(super) fn upper(part: &[u8], r: usize, k: usize) -> u8 {
    part[64 * (k / 16) + 4 * r + k % 4] >> (2 * (k % 16 / 4)) & 3
}

/// The low four bits of value k.
pub(super) fn nibble(part: &[u8], r: usize, k: usize) -> u8 {
    part[64 * (k % 16 / 4) + 4 * r + k % 4] >> (4 * (k / 16)) & 15
}
