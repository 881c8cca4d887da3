//! Activations as matrix products take them: f32 values, and the same quantised in blocks of 32.
//!
//! There is one quantised form for all weight formats, so that tensors of mixed formats share it. For a block x of 32
//! values, with A the largest magnitude: d = A/127 and q = round(x * (127/A)) to nearest even; A below 2^-100 gives
//! d = 0 and q = 0; an infinite or NaN A gives d = NaN and q = 0, so that the result shows it.
//!
//! Where 8 bits are too few (see `model::forward`), the rest of each value is quantised once more: with t = x * (127/A),
//! r = round(256 (t - q)) to nearest even, in [-127, 127], and x is about d/256 * (256 q + r). A product then takes its
//! integers twice, and its weights' codes once.
//!
//! Columns (tokens) are grouped in tiles, and a kernel broadcasts the words of a tile's block from one stretch of memory
//! (no tile spans two groups of rows, where these meet different matrices): `[block][part][column][word]`. The words are
//! the q, four k values each, then -128 times their sum, the same of the second half, d, d * sum. There is a second part
//! only in 16 bits: the same of 256 q + r with the r in place of the q.

use super::lines::Lines;
use crate::error::Result;

/// Values of a block.
pub(super) const BLOCK: usize = 32;
/// 32-bit words of a part of a block of one column.
pub(super) const WORDS: usize = 12;
/// A block of one column in PARTS parts: one in 8 bits, two in 16.
pub(super) type Parts<const PARTS: usize> = [[i32; WORDS]; PARTS];
/// A part of the blocks of a tile's NY columns.
pub(super) type TilePart<const NY: usize> = [[i32; WORDS]; NY];

/// The tile widths that kernels exist for, widest first.
pub(super) const WIDTHS: [usize; 5] = [12, 8, 4, 2, 1];

/// Cuts `columns` into tiles of at most `widest`: (first column, width). The widest is taken each time, but 8 and 8 instead of
/// 12 and 4: a narrow tile takes almost as long as a wide one.
pub(super) fn tiles(columns: usize, widest: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = columns - start;
        let most = if (16..20).contains(&left) { widest.min(8) } else { widest.min(left) };
        let width = WIDTHS.into_iter().find(|&w| w <= most)?;
        start += width;
        Some((start - width, width))
    })
}

/// What of activations a product takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Precision {
    /// The f32 values.
    #[default]
    Float,
    /// 8 bits.
    Eight,
    /// 16 bits, or 8.
    Sixteen,
}

impl Precision {
    /// Parts of a block.
    fn parts(self) -> usize {
        match self {
            Precision::Float => 0,
            Precision::Eight => 1,
            Precision::Sixteen => 2,
        }
    }
}

/// (T,n) activations.
#[derive(Debug, Default)]
pub(crate) struct Act {
    /// Where each group of rows begins, and the number of rows.
    starts: Vec<usize>,
    width: usize,
    widest: usize,
    precision: Precision,
    values: Lines<f32>,
    blocks: Lines<i32>,
}

/// Rows of one tile, to be filled.
pub(super) struct ActRows<'a> {
    /// The first of the rows.
    pub start: usize,
    /// (rows, n) values.
    pub values: &'a mut [f32],
    /// The rows of each part of each block.
    parts: Vec<&'a mut [[i32; WORDS]]>,
    width: usize,
    precision: Precision,
}

impl Act {
    /// Makes room for (rows, width) values in up to `precision`. Tiles hold at most `widest` columns.
    pub(super) fn reset(&mut self, rows: usize, width: usize, precision: Precision, widest: usize) -> Result<()> {
        self.reset_groups([rows], width, precision, widest)
    }

    /// As `reset`, for groups of so many rows each.
    pub(super) fn reset_groups(
        &mut self,
        groups: impl IntoIterator<Item = usize>,
        width: usize,
        precision: Precision,
        widest: usize,
    ) -> Result<()> {
        self.starts.clear();
        let mut rows = 0;
        for n in groups {
            self.starts.push(rows);
            rows += n;
        }
        self.starts.push(rows);
        self.widest = widest;
        self.refit(width, precision)
    }

    /// Makes the rows that there are `width` wide.
    pub(super) fn refit(&mut self, width: usize, precision: Precision) -> Result<()> {
        (self.width, self.precision) = (width, precision);
        let rows = self.rows();
        self.values.resize(rows * width, "activations")?;
        let words = rows * self.column_words();
        self.blocks.resize(words, "activations")
    }

    /// Words of the blocks of one column.
    fn column_words(&self) -> usize {
        self.width / BLOCK * self.parts() * WORDS
    }

    /// Parts of a block.
    pub(super) fn parts(&self) -> usize {
        self.precision.parts()
    }

    /// T.
    pub(crate) fn rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The groups of rows.
    pub(crate) fn groups(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// n.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// (T,n) values.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// (T,n) values, to be filled where blocks are not wanted.
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The blocks of the tile that begins at column `start`.
    pub(super) fn tile(&self, start: usize, width: usize) -> &[i32] {
        let column = self.column_words();
        &self.blocks[start * column..(start + width) * column]
    }

    /// The tiles of a group in order.
    pub(super) fn tiles(&self, group: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (start, end) = (self.starts[group], self.starts[group + 1]);
        tiles(end - start, self.widest).map(move |(first, width)| (start + first, width))
    }

    /// The rows in order, to be filled by jobs of their own: tiles, or parts of tiles where these are fewer than `jobs`.
    pub(super) fn rows_mut(&mut self, jobs: usize) -> Vec<ActRows<'_>> {
        let (column, width, precision) = (self.column_words(), self.width, self.precision);
        let tiles: Vec<(usize, usize)> = (0..self.groups()).flat_map(|group| self.tiles(group)).collect();
        let cuts = jobs.div_ceil(tiles.len().max(1));
        let (mut values, mut blocks) = (&mut self.values[..], &mut self.blocks[..]);
        let mut all = Vec::with_capacity(tiles.len() * cuts);
        for (start, rows) in tiles {
            let (own, others) = blocks.split_at_mut(rows * column);
            blocks = others;
            let mut parts: Vec<_> = own.as_chunks_mut::<WORDS>().0.chunks_exact_mut(rows).collect();
            let cut = rows.div_ceil(cuts);
            for first in (0..rows).step_by(cut) {
                let n = cut.min(rows - first);
                let (own, others) = values.split_at_mut(n * width);
                values = others;
                let own_parts = parts.iter_mut().map(|part| part.split_off_mut(..n).unwrap_or_default()).collect();
                all.push(ActRows { start: start + first, values: own, parts: own_parts, width, precision });
            }
        }
        all
    }
}

/// The words of the 16 codes of half `half` of a column's block.
#[inline(always)]
pub(super) fn four(words: &[i32; WORDS], half: usize) -> [i32; 4] {
    [words[4 * half], words[4 * half + 1], words[4 * half + 2], words[4 * half + 3]]
}

/// Makes the words of blocks.
pub(super) trait Quantise: Copy {
    /// The words of a block of each of N rows.
    fn blocks<const N: usize, const PARTS: usize>(self, x: [&[f32; BLOCK]; N]) -> [Parts<PARTS>; N];
}

impl ActRows<'_> {
    /// Fills the blocks from the values, in the precision that was asked for.
    #[inline(always)]
    pub(super) fn quantise(&mut self, how: impl Quantise) {
        match self.precision {
            Precision::Float => {}
            Precision::Eight => self.quantise_as::<1>(how),
            Precision::Sixteen => self.quantise_as::<2>(how),
        }
    }

    #[inline(always)]
    fn quantise_as<const PARTS: usize>(&mut self, how: impl Quantise) {
        let rows = self.values.len() / self.width;
        let fours = rows / 4 * 4;
        for first in (0..fours).step_by(4) {
            self.quantise_rows::<4, PARTS>(how, first);
        }
        for first in fours..rows {
            self.quantise_rows::<1, PARTS>(how, first);
        }
    }

    /// The N rows from `first` on.
    #[inline(always)]
    fn quantise_rows<const N: usize, const PARTS: usize>(&mut self, how: impl Quantise, first: usize) {
        let mut rows = [&[][..]; N];
        for (n, row) in rows.iter_mut().enumerate() {
            *row = self.values[(first + n) * self.width..][..self.width].as_chunks().0;
        }
        for (b, parts) in self.parts.chunks_exact_mut(PARTS).enumerate() {
            let mut x = [&[0.0; BLOCK]; N];
            for n in 0..N {
                x[n] = &rows[n][b];
            }
            let blocks = how.blocks::<N, PARTS>(x);
            for (p, part) in parts.iter_mut().enumerate() {
                let columns = &mut part[first..first + N];
                for n in 0..N {
                    columns[n] = blocks[n][p];
                }
            }
        }
    }
}

/// d and 127/A of blocks whose largest magnitudes have the bits `largest`; 127/A is 0 where all q are 0.
#[inline(always)]
pub(super) fn scales<const N: usize>(largest: [i32; N]) -> [[f32; N]; 2] {
    let (mut d, mut inverse) = ([0.0; N], [0.0; N]);
    // All are divided, so that it can be done at once.
    for n in 0..N {
        let a = f32::from_bits(largest[n] as u32);
        (d[n], inverse[n]) = (a / 127.0, 127.0 / a);
    }
    for n in 0..N {
        // Comparing with the bits of infinity also catches NaN, which lies above.
        let not_finite = largest[n] as u32 >= f32::INFINITY.to_bits();
        let small = f32::from_bits(largest[n] as u32) < f32::from_bits((127 - 100) << 23);
        d[n] = if not_finite {
            f32::NAN
        } else if small {
            0.0
        } else {
            d[n]
        };
        inverse[n] = if not_finite || small { 0.0 } else { inverse[n] };
    }
    [d, inverse]
}

/// By how much a signed byte is larger with its sign bit flipped and read as an unsigned one. The sums of activations are
/// multiplied with it once, for all the products with such bytes.
pub(super) const SIGN_OFFSET: i32 = 128;

/// The words after the codes: -128 times their sum, the same of the second half, d, d * sum.
#[inline(always)]
pub(super) fn tail([first, second]: [i32; 2], d: f32) -> [i32; 4] {
    let sum = first + second;
    [-SIGN_OFFSET * sum, -SIGN_OFFSET * second, d.to_bits() as i32, (d * sum as f32).to_bits() as i32]
}

/// -128 times the sum, of a column's block.
#[inline(always)]
pub(super) fn offset_sum(words: &[i32; WORDS]) -> i32 {
    words[WORDS - 4]
}

/// -128 times the sum of the second half.
#[inline(always)]
pub(super) fn second_offset_sum(words: &[i32; WORDS]) -> i32 {
    words[WORDS - 3]
}

#[inline(always)]
pub(super) fn d(words: &[i32; WORDS]) -> f32 {
    f32::from_bits(words[WORDS - 2] as u32)
}

/// d * sum
#[inline(always)]
pub(super) fn d_sum(words: &[i32; WORDS]) -> f32 {
    f32::from_bits(words[WORDS - 1] as u32)
}

/// The definition, in plain code.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Quantise for Plain {
    fn blocks<const N: usize, const PARTS: usize>(self, x: [&[f32; BLOCK]; N]) -> [Parts<PARTS>; N] {
        x.map(|x| self.block(x))
    }
}

impl Plain {
    /// The words of one block.
    pub(super) fn block<const PARTS: usize>(self, x: &[f32; BLOCK]) -> Parts<PARTS> {
        let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() as i32 & i32::MAX));
        let [[d], [inverse]] = scales([largest]);
        let (mut q, mut r) = ([0i32; BLOCK], [0i32; BLOCK]);
        if inverse != 0.0 {
            for ((q, r), x) in q.iter_mut().zip(&mut r).zip(x) {
                let t = x * inverse;
                *q = round(t);
                *r = round((t - *q as f32) * 256.0).clamp(-127, 127);
            }
        }
        let mut parts = [[0; WORDS]; PARTS];
        put(&mut parts[0], &q, &q, d);
        if let Some(second) = parts.get_mut(1) {
            let both = std::array::from_fn(|i| 256 * q[i] + r[i]);
            put(second, &r, &both, d / 256.0);
        }
        parts
    }
}

/// The nearest integer, ties to even: adding 1.5 * 2^23 leaves it in the low bits.
fn round(t: f32) -> i32 {
    (t + 12_582_912.0).to_bits() as i32 - 0x4B40_0000
}

/// Codes, and the words after them, with the sums of `values`.
fn put(words: &mut [i32; WORDS], codes: &[i32; BLOCK], values: &[i32; BLOCK], d: f32) {
    for (word, four) in words.iter_mut().zip(codes.as_chunks::<4>().0) {
        *word = i32::from_le_bytes([four[0] as u8, four[1] as u8, four[2] as u8, four[3] as u8]);
    }
    let (first, second) = values.split_at(BLOCK / 2);
    words[8..].copy_from_slice(&tail([first.iter().sum(), second.iter().sum()], d));
}
