//! Weights as the kernels read them: panels of 16 rows, interleaved ("x16").
//!
//! A vector of 64 bytes holds, for each of the 16 rows, one 32-bit lane of four consecutive k values. So a kernel
//! keeps one output row a lane, never adds across lanes, and every instruction set reads the same bytes: AVX2 in two
//! halves. Layout moves codes and does not change them: each packer has an exact inverse.
//!
//! A panel is a plane with the scales of formats whose block has only one, and then its units, one a GGUF block. A unit
//! is a head with what else the block has for all of its values, and then, for each 32 values, their codes and what the
//! block has for these values. [`Layout::of`] is the table.
//!
//! Codes are cut into planes of 8, 4, 2 or 1 bits, since they have 8, 6, 5, 4, 3 or 2. The 32 codes of a row are 8
//! words of four bytes; word w of row r holds codes 4w to 4w + 3. A vector of a plane with n bits has room for 8 / n
//! words a row: the first in the lowest n bits of each byte, the next above it. In order of these places,
//!
//! | bits | words of the vectors |
//! |---|---|
//! | 8 | 0, 1, 2, 3, 4, 5, 6, 7 |
//! | 4 | 0 4, 1 5, 2 6, 3 7 |
//! | 2 | 0 1 2 3, 4 5 6 7 |
//! | 1 | 0 1 2 3 4 5 6 7 |
//!
//! so that each half of the codes comes from whole vectors, shifted and masked.

use std::ops::Range;

use super::simd::words::{gather, transposed};
use crate::quant::{Format, Scales};

/// Values of the longest block.
const LONGEST: usize = 256;
/// Values of a row that are packed at a time.
const STRETCH: usize = 4096;

/// Rows of a panel.
pub(crate) const ROWS: usize = 16;

/// Bytes of a GGUF block, or of its [`Scales`], that lie in a panel as they are: `vectors` times `width` of them from
/// `at` on, each `width` in the row's lane of a vector of its own.
#[derive(Debug, Clone, Copy)]
struct Field {
    at: usize,
    width: usize,
    vectors: usize,
}

const fn field(at: usize, width: usize, vectors: usize) -> Field {
    Field { at, width, vectors }
}

/// The bits `at` to `at + bits` of the codes.
#[derive(Debug, Clone, Copy)]
struct Plane {
    bits: usize,
    at: usize,
}

const BYTES: Plane = Plane { bits: 8, at: 0 };
const NIBBLE: Plane = Plane { bits: 4, at: 0 };
const PAIR_OF_BITS: Plane = Plane { bits: 2, at: 0 };
const FIFTH_BIT: Plane = Plane { bits: 1, at: 4 };
const UPPER_BITS: Plane = Plane { bits: 2, at: 4 };
const THIRD_BIT: Plane = Plane { bits: 1, at: 2 };

/// How a format's panel is made of its blocks.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Fields are those of the block's [`Scales`], not of the block itself.
    apart: bool,
    /// Goes into the plane.
    scale: Option<Field>,
    /// The unit's head.
    head: &'static [Field],
    /// The codes of 32 values. None: a format of floats, whose head is the value.
    codes: &'static [Plane],
    /// Where the block has the bytes of the first of these planes just as the panel has them.
    ready: Option<Field>,
    /// Where it has the second, of one bit, in the order of the values.
    bits: Option<Field>,
    /// What follows the codes of 32 values: for those of block b, moved on by b times its bytes.
    tail: Option<Field>,
}

/// Bytes of the 4-bit plane of 16 rows of 32 codes.
pub(super) const NIBBLES: usize = 256;
/// Bytes of the 1-bit plane of 16 rows of 32 codes.
pub(super) const BITS: usize = 64;
/// Bytes of the 2-bit plane of 16 rows of 32 codes.
pub(super) const PAIRS: usize = 128;
/// Bytes of two f16 of 16 rows.
pub(super) const TWO: usize = 64;
/// Bytes of the packed 6-bit scales of 16 rows.
pub(super) const SCALES: usize = 192;

impl Layout {
    /// THE table of layouts.
    fn of(format: Format) -> Layout {
        let none = Layout { apart: false, scale: None, head: &[], codes: &[], ready: None, bits: None, tail: None };
        let nibbles = |at| Some(field(at, 4, 4));
        let grid = |codes| Layout {
            apart: true,
            scale: Some(field(0, 2, 1)),
            head: const { &[field(2, 4, 2)] },
            codes,
            ready: None,
            bits: None,
            tail: None,
        };
        match format {
            Format::F32 => Layout { head: const { &[field(0, 4, 1)] }, ..none },
            Format::F16 | Format::BF16 => Layout { head: const { &[field(0, 2, 1)] }, ..none },
            Format::Q4_0 | Format::IQ4NL => {
                Layout { scale: Some(field(0, 2, 1)), codes: &[NIBBLE], ready: nibbles(2), ..none }
            }
            Format::Q5_0 => Layout {
                scale: Some(field(0, 2, 1)),
                codes: &[NIBBLE, FIFTH_BIT],
                ready: nibbles(6),
                bits: Some(field(2, 4, 1)),
                ..none
            },
            Format::Q8_0 => {
                Layout { scale: Some(field(0, 2, 1)), codes: &[BYTES], ready: Some(field(2, 4, 8)), ..none }
            }
            Format::Q4_1 => Layout { head: const { &[field(0, 2, 2)] }, codes: &[NIBBLE], ready: nibbles(4), ..none },
            Format::Q5_1 => Layout {
                head: const { &[field(0, 2, 2)] },
                codes: &[NIBBLE, FIFTH_BIT],
                ready: nibbles(8),
                bits: Some(field(4, 4, 1)),
                ..none
            },
            Format::Q2K => Layout {
                head: const { &[field(80, 2, 2)] },
                codes: &[PAIR_OF_BITS],
                tail: Some(field(0, 1, 2)),
                ..none
            },
            Format::Q3K => Layout {
                scale: Some(field(108, 2, 1)),
                head: const { &[field(96, 4, 3)] },
                codes: &[PAIR_OF_BITS, THIRD_BIT],
                ..none
            },
            Format::Q4K => Layout { head: const { &[field(0, 2, 2), field(4, 4, 3)] }, codes: &[NIBBLE], ..none },
            Format::Q5K => {
                Layout { head: const { &[field(0, 2, 2), field(4, 4, 3)] }, codes: &[NIBBLE, FIFTH_BIT], ..none }
            }
            Format::Q6K => Layout {
                scale: Some(field(208, 2, 1)),
                codes: &[NIBBLE, UPPER_BITS],
                tail: Some(field(192, 1, 2)),
                ..none
            },
            Format::IQ4XS => Layout {
                scale: Some(field(0, 2, 1)),
                head: const { &[field(4, 4, 1), field(2, 2, 1)] },
                codes: &[NIBBLE],
                ..none
            },
            Format::MXFP4 => Layout { scale: Some(field(0, 1, 1)), codes: &[NIBBLE], ..none },
            // Two scales for the two halves of 32 values.
            Format::NVFP4 => Layout { codes: &[NIBBLE], tail: Some(field(0, 1, 2)), ..none },
            // Not the indices of points are packed, but their coordinates and signs.
            Format::IQ1S | Format::IQ1M | Format::IQ2XXS | Format::IQ2XS | Format::IQ2S => {
                grid(&[PAIR_OF_BITS, THIRD_BIT])
            }
            Format::IQ3XXS | Format::IQ3S => grid(&[NIBBLE]),
            // Codes in base three are packed as two bits.
            Format::TQ1_0 => Layout { scale: Some(field(52, 2, 1)), codes: &[PAIR_OF_BITS], ..none },
            Format::TQ2_0 => Layout { scale: Some(field(64, 2, 1)), codes: &[PAIR_OF_BITS], ..none },
        }
    }

    fn head_bytes(self) -> usize {
        self.head.iter().map(|field| field.bytes()).sum()
    }

    fn code_bytes(self) -> usize {
        self.codes.iter().map(|plane| 64 * plane.bits).sum()
    }

    /// Bytes of 32 values' codes and tail.
    fn part_bytes(self) -> usize {
        self.code_bytes() + self.tail.map_or(0, Field::bytes)
    }

    fn plane_bytes(self, units: usize) -> usize {
        plane_bytes(units, self.scale.map_or(0, Field::bytes))
    }

    /// Puts what is not codes into the plane of scales and the units, of `step` bytes.
    fn put_fields(self, rows: Rows<'_>, r: usize, scales: &mut [u8], units: &mut [u8], step: usize) {
        if let Some(scale) = self.scale {
            scale.put(rows, r, scales, Places { first: 0, step: scale.bytes() });
        }
        let mut first = 0;
        for field in self.head {
            field.put(rows, r, units, Places { first, step });
            first += field.bytes();
        }
        if let Some(tail) = self.tail {
            first += self.code_bytes();
            for b in 0..(step - self.head_bytes()) / self.part_bytes() {
                tail.of_block(b).put(rows, r, units, Places { first: first + b * self.part_bytes(), step });
            }
        }
    }
}

/// Where something is in the units of a panel.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// In the first unit.
    first: usize,
    /// From unit to unit.
    step: usize,
}

/// Rows of blocks as GGUF stores them, or of their [`Scales`].
#[derive(Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    block_bytes: usize,
}

impl<'a> Rows<'a> {
    fn count(self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    /// Blocks of a row.
    fn blocks(self) -> usize {
        self.row_bytes / self.block_bytes
    }

    /// Rows first..end.
    fn part(self, rows: Range<usize>) -> Self {
        Rows { bytes: &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes], ..self }
    }

    fn each(self) -> impl Iterator<Item = Self> {
        self.bytes.chunks_exact(self.row_bytes).map(move |bytes| Rows { bytes, ..self })
    }
}

impl Field {
    /// Bytes in the panel.
    fn bytes(self) -> usize {
        ROWS * self.width * self.vectors
    }

    /// Moves `rows`, whose first is row r of the panel, to where `out` is in each of the panel's units.
    fn put(self, rows: Rows<'_>, r: usize, panel: &mut [u8], out: Places) {
        match self.width {
            1 => self.put_lanes::<1>(rows, r, panel, out),
            2 => self.put_lanes::<2>(rows, r, panel, out),
            _ => self.put_lanes::<4>(rows, r, panel, out),
        }
    }

    fn put_lanes<const WIDTH: usize>(self, rows: Rows<'_>, r: usize, panel: &mut [u8], out: Places) {
        // With their number constant, the loop over the rows is unrolled.
        if rows.count() == ROWS {
            self.put_rows::<WIDTH, ROWS>(rows, r, panel, out)
        } else {
            for (i, row) in rows.each().enumerate() {
                self.put_rows::<WIDTH, 1>(row, r + i, panel, out);
            }
        }
    }

    #[inline(always)]
    fn put_rows<const WIDTH: usize, const N: usize>(self, rows: Rows<'_>, r: usize, panel: &mut [u8], out: Places) {
        for (u, unit) in panel.chunks_exact_mut(out.step).take(rows.blocks()).enumerate() {
            let vectors = unit[out.first..].as_chunks_mut::<WIDTH>().0.as_chunks_mut::<ROWS>().0;
            for (v, vector) in vectors.iter_mut().take(self.vectors).enumerate() {
                let blocks = &rows.bytes[u * rows.block_bytes + self.at + v * WIDTH..];
                if let Some(lanes) = vector[r..r + N].first_chunk_mut::<N>() {
                    gather(blocks, rows.row_bytes, lanes);
                }
            }
        }
    }

    /// As `put` for four rows, where the width is that of a word and there are 4 or 8 vectors.
    fn put_four(self, rows: Rows<'_>, r: usize, panel: &mut [u8], out: Places) {
        for (u, unit) in panel.chunks_exact_mut(out.step).take(rows.blocks()).enumerate() {
            let blocks = &rows.bytes[u * rows.block_bytes + self.at..];
            let vectors = unit[out.first..].as_chunks_mut::<{ 4 * ROWS }>().0.as_chunks_mut::<4>().0;
            for (i, vectors) in vectors.iter_mut().take(self.vectors / 4).enumerate() {
                let mut four = [[0; 16]; 4];
                gather(&blocks[16 * i..], rows.row_bytes, &mut four);
                for (vector, lanes) in vectors.iter_mut().zip(transposed(four)) {
                    vector[4 * r..4 * r + 16].copy_from_slice(&lanes);
                }
            }
        }
    }

    /// The inverse of `put`.
    fn get(self, panel: &[u8], r: usize, block: &mut [u8]) {
        let lanes = block[self.at..].chunks_exact_mut(self.width).take(self.vectors);
        for (vector, lane) in panel.chunks_exact(ROWS * self.width).zip(lanes) {
            lane.copy_from_slice(&vector[r * self.width..(r + 1) * self.width]);
        }
    }

    /// The field of 32-value block b of a tail.
    fn of_block(self, b: usize) -> Field {
        Field { at: self.at + b * self.width * self.vectors, ..self }
    }
}

/// The bits of 32 values in their order, as a row's lane of a plane of one bit has them: that of value 4w + x is bit w of
/// byte x. So the two lowest bits of a bit's number become the highest: two unshuffles (Warren, Hacker's Delight, 2nd
/// edition, section 7-2) of even bits to the lower half and odd ones to the upper.
fn by_place(mut bits: u32) -> u32 {
    for _ in 0..2 {
        for (shift, mask) in [(1, 0x2222_2222), (2, 0x0C0C_0C0C), (4, 0x00F0_00F0), (8, 0x0000_FF00)] {
            let swapped = (bits ^ bits >> shift) & mask;
            bits ^= swapped ^ swapped << shift;
        }
    }
    bits
}

/// The words of 32 codes, a byte each.
type Words = [u32; 8];

/// The word at a place of a vector of a plane of BITS bits, by the table in the module's comment.
#[inline(always)]
const fn word<const BITS: usize>(vector: usize, place: usize) -> usize {
    if BITS == 4 { vector + 4 * place } else { vector * (8 / BITS) + place }
}

impl Plane {
    /// Puts row r's bits of the codes into the plane, which is at `out` in the units of `n` values and there once in
    /// `part_bytes` for each 32 of them.
    fn put(self, codes: &[u8], n: usize, r: usize, units: &mut [u8], out: Places, part_bytes: usize) {
        match self.bits {
            1 => self.put_bits::<1>(codes, n, r, units, out, part_bytes),
            2 => self.put_bits::<2>(codes, n, r, units, out, part_bytes),
            4 => self.put_bits::<4>(codes, n, r, units, out, part_bytes),
            _ => self.put_bits::<8>(codes, n, r, units, out, part_bytes),
        }
    }

    fn put_bits<const BITS: usize>(
        self,
        codes: &[u8],
        n: usize,
        r: usize,
        units: &mut [u8],
        out: Places,
        part_bytes: usize,
    ) {
        let mask = 0x0101_0101 * (0xFF >> (8 - BITS));
        for (codes, unit) in codes.chunks_exact(n).zip(units.chunks_exact_mut(out.step)) {
            for (codes, part) in codes.as_chunks::<32>().0.iter().zip(unit[out.first..].chunks_mut(part_bytes)) {
                let words: Words =
                    std::array::from_fn(|w| u32::from_le_bytes(std::array::from_fn(|x| codes[4 * w + x])));
                for (v, vector) in part.as_chunks_mut::<4>().0.chunks_exact_mut(ROWS).enumerate().take(BITS) {
                    let mut bits = 0;
                    for place in 0..8 / BITS {
                        bits |= (words[word::<BITS>(v, place)] >> self.at & mask) << (place * BITS);
                    }
                    vector[r] = bits.to_le_bytes();
                }
            }
        }
    }

    /// The inverse of `put`, for words that are zero in these bits.
    fn get(self, panel: &[u8], r: usize, words: &mut Words) {
        match self.bits {
            1 => self.get_bits::<1>(panel, r, words),
            2 => self.get_bits::<2>(panel, r, words),
            4 => self.get_bits::<4>(panel, r, words),
            _ => self.get_bits::<8>(panel, r, words),
        }
    }

    fn get_bits<const BITS: usize>(self, panel: &[u8], r: usize, words: &mut Words) {
        let mask = 0x0101_0101 * (0xFF >> (8 - BITS));
        for (v, vector) in panel.as_chunks::<4>().0.chunks_exact(ROWS).enumerate().take(BITS) {
            let bits = u32::from_le_bytes(vector[r]);
            for place in 0..8 / BITS {
                words[word::<BITS>(v, place)] |= (bits >> (place * BITS) & mask) << self.at;
            }
        }
    }
}

/// Bytes of the plane of a panel's scales, `each` bytes for each of `units` units, rounded up to whole vectors.
#[inline(always)]
pub(super) const fn plane_bytes(units: usize, each: usize) -> usize {
    (units * each).next_multiple_of(64)
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
        let (layout, units) = (Layout::of(self.format), self.columns / self.format.block_len());
        layout.plane_bytes(units) + units * self.unit_bytes()
    }

    fn unit_bytes(self) -> usize {
        let layout = Layout::of(self.format);
        layout.head_bytes() + self.format.block_len() / 32 * layout.part_bytes()
    }

    /// Bytes of the packed matrix, rounded up so that the next one begins on a vector; `None` on overflow.
    pub(crate) fn packed_bytes(self) -> Option<usize> {
        self.panels().checked_mul(self.panel_bytes())?.checked_next_multiple_of(64)
    }

    /// Bytes of one row as GGUF stores it.
    pub(crate) fn row_bytes(self) -> usize {
        self.columns / self.format.block_len() * self.format.block_bytes()
    }

    /// Packs up to 16 rows of GGUF bytes into one panel: every byte of it, of 16 rows. Missing rows stay as they are.
    pub(crate) fn pack(self, rows: &[u8], panel: &mut [u8]) {
        let (layout, n, block_bytes) = (Layout::of(self.format), self.format.block_len(), self.format.block_bytes());
        let (step, part_bytes) = (self.unit_bytes(), layout.part_bytes());
        let (scales, units) = panel.split_at_mut(layout.plane_bytes(self.columns / n));
        scales[self.columns / n * layout.scale.map_or(0, Field::bytes)..].fill(0);
        let rows = Rows { bytes: rows, row_bytes: self.row_bytes(), block_bytes };
        let (mut planes, mut first) = (layout.codes, layout.head_bytes());
        if let (Some(ready), [plane, rest @ ..]) = (layout.ready, planes) {
            let (out, of_fours) = (Places { first, step }, rows.count() / 4 * 4);
            for r in (0..of_fours).step_by(4) {
                ready.put_four(rows.part(r..r + 4), r, units, out);
            }
            ready.put(rows.part(of_fours..rows.count()), of_fours, units, out);
            (planes, first) = (rest, first + 64 * plane.bits);
        }
        if let (Some(bits), [plane, rest @ ..]) = (layout.bits, planes) {
            bits.put(rows, 0, units, Places { first, step });
            for unit in units.chunks_exact_mut(step) {
                for word in &mut unit[first..].as_chunks_mut().0[..rows.count()] {
                    *word = by_place(u32::from_le_bytes(*word)).to_le_bytes();
                }
            }
            (planes, first) = (rest, first + 64 * plane.bits);
        }
        if !layout.apart {
            layout.put_fields(rows, 0, scales, units, step);
        }
        if planes.is_empty() {
            return;
        }
        let (mut codes, mut apart) = ([0; STRETCH], [Scales::default(); STRETCH / LONGEST]);
        for (r, row) in rows.each().enumerate() {
            // In stretches of a row, so that codes need little memory, and each plane's loop is long.
            let stretches = row.bytes.chunks(STRETCH / n * block_bytes).zip(units.chunks_mut(STRETCH / n * step));
            for (i, (row, units)) in stretches.enumerate() {
                let blocks = row.len() / block_bytes;
                if layout.apart {
                    self.format.scales(row, &mut apart[..blocks]);
                    let bytes = bytemuck::cast_slice(&apart[..blocks]);
                    let scales = &mut scales[i * (STRETCH / n) * layout.scale.map_or(0, Field::bytes)..];
                    let fields = Rows { bytes, row_bytes: bytes.len(), block_bytes: size_of::<Scales>() };
                    layout.put_fields(fields, r, scales, units, step);
                }
                let (codes, mut first) = (&mut codes[..blocks * n], first);
                self.format.codes(row, codes);
                for plane in planes {
                    plane.put(codes, n, r, units, Places { first, step }, part_bytes);
                    first += 64 * plane.bits;
                }
            }
        }
    }

    /// The inverse of `pack` for one row. (Of the bytes by which TQ1_0 can express the same codes, those that encoders
    /// write.)
    pub(crate) fn unpack(self, panel: &[u8], r: usize, row: &mut [u8]) {
        let layout = Layout::of(self.format);
        let mut codes = [0; LONGEST];
        let codes = &mut codes[..self.format.block_len()];
        for (i, block) in row.chunks_exact_mut(self.format.block_bytes()).enumerate() {
            let (scale, mut head) = self.head(panel, i);
            let mut apart = Scales::default();
            let fields = if layout.apart { bytemuck::bytes_of_mut(&mut apart) } else { &mut *block };
            if let Some(field) = layout.scale {
                field.get(scale, r, fields);
            }
            for field in layout.head {
                field.get(head, r, fields);
                head = &head[field.bytes()..];
            }
            if layout.codes.is_empty() {
                continue;
            }
            for (b, codes) in codes.chunks_exact_mut(32).enumerate() {
                let tail = self.codes(panel, r, i * self.format.block_len() / 32 + b, codes);
                if let Some(field) = layout.tail {
                    field.of_block(b).get(tail, r, fields);
                }
            }
            self.format.set_codes(block, codes);
            self.format.set_scales(block, apart);
        }
    }

    /// Unit i's scales in the plane, and its head.
    pub(super) fn head(self, panel: &[u8], i: usize) -> (&[u8], &[u8]) {
        let layout = Layout::of(self.format);
        let scale = layout.scale.map_or(0, Field::bytes);
        let unit = layout.plane_bytes(self.columns / self.format.block_len()) + i * self.unit_bytes();
        (&panel[i * scale..(i + 1) * scale], &panel[unit..unit + layout.head_bytes()])
    }

    /// Row r's codes in 32-value block b of the panel, as the format's block has them; returns the block's tail.
    pub(super) fn codes<'a>(self, panel: &'a [u8], r: usize, b: usize, codes: &mut [u8]) -> &'a [u8] {
        let (layout, blocks) = (Layout::of(self.format), self.format.block_len() / 32);
        let units = &panel[layout.plane_bytes(self.columns / self.format.block_len())..];
        let at = b / blocks * self.unit_bytes() + layout.head_bytes() + b % blocks * layout.part_bytes();
        let mut rest = &units[at..at + layout.part_bytes()];
        let mut words = Words::default();
        for plane in layout.codes {
            plane.get(rest, r, &mut words);
            rest = &rest[64 * plane.bits..];
        }
        for (four, word) in codes.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_le_bytes());
        }
        rest
    }
}
