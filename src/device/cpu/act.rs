//! Activations as matrix products take them: f32 values, and the same quantised to 8 bits in blocks of 32.
//!
//! There is one quantised form for all weight formats, so that tensors of mixed formats share it. For a block x of 32
//! values, with A the largest magnitude: d = A/127 and q = round(x * (127/A)) to nearest even; A below 2^-100 gives
//! d = 0 and q = 0; an infinite or NaN A gives d = NaN and q = 0, so that the result shows it.
//!
//! Columns (tokens) are grouped in tiles; within a tile the words of a block lie column beside column, so that a
//! kernel broadcasts them from one stretch of memory:
//! `[block][word][column]`, words 0..8 codes (four k values each), then sum, sum of the second half, d, d * sum.

use crate::error::{Result, try_vec};

/// Values of a block.
pub(super) const BLOCK: usize = 32;
/// 32-bit words of a block of one column.
pub(super) const WORDS: usize = 12;

/// The tile widths that kernels exist for, widest first; a number of columns is cut greedily.
pub(super) const WIDTHS: [usize; 5] = [12, 8, 4, 2, 1];

/// Cuts `columns` into tiles of at most `widest`: (first column, width).
pub(super) fn tiles(columns: usize, widest: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let width = WIDTHS.into_iter().find(|&w| w <= widest && w <= columns - start)?;
        start += width;
        Some((start - width, width))
    })
}

/// (T,n) activations.
#[derive(Debug, Default)]
pub(crate) struct Act {
    rows: usize,
    width: usize,
    widest: usize,
    values: Vec<f32>,
    blocks: Vec<i32>,
}

/// The rows of one tile, to be filled.
pub(super) struct ActTile<'a> {
    pub start: usize,
    pub width: usize,
    /// (width, n) values.
    pub values: &'a mut [f32],
    blocks: Option<&'a mut [i32]>,
}

impl Act {
    /// Makes room for (rows, width) values; `quantise` says whether `quantise` will be asked of the tiles. Tiles hold
    /// at most `widest` columns.
    pub(super) fn reset(&mut self, rows: usize, width: usize, quantise: bool, widest: usize) -> Result<()> {
        (self.rows, self.width, self.widest) = (rows, width, widest);
        grow(&mut self.values, rows * width, 0.0)?;
        grow(&mut self.blocks, if quantise { rows * (width / BLOCK) * WORDS } else { 0 }, 0)
    }

    /// T.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// n.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// (T,n) values.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The blocks of the tile that begins at column `start`.
    pub(super) fn tile(&self, start: usize, width: usize) -> &[i32] {
        let column = self.width / BLOCK * WORDS;
        &self.blocks[start * column..(start + width) * column]
    }

    /// The tiles in order.
    pub(super) fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        tiles(self.rows, self.widest)
    }

    /// The tiles in order, to be filled, each by its own job.
    pub(super) fn tiles_mut(&mut self) -> Vec<ActTile<'_>> {
        let column = self.width / BLOCK * WORDS;
        let quantised = !self.blocks.is_empty();
        let (mut values, mut blocks) = (&mut self.values[..], &mut self.blocks[..]);
        let mut all = Vec::with_capacity(self.rows.div_ceil(self.widest) + WIDTHS.len());
        for (start, width) in tiles(self.rows, self.widest) {
            let (own_values, other_values) = values.split_at_mut(width * self.width);
            let (own_blocks, other_blocks) = blocks.split_at_mut(if quantised { width * column } else { 0 });
            (values, blocks) = (other_values, other_blocks);
            all.push(ActTile { start, width, values: own_values, blocks: quantised.then_some(own_blocks) });
        }
        all
    }
}

/// Resizes within a capacity that is kept; grows by what is asked for and no more.
fn grow<T: Clone>(v: &mut Vec<T>, n: usize, value: T) -> Result<()> {
    if n > v.capacity() {
        *v = try_vec(n, value, "activations")?;
    } else {
        v.resize(n, value);
    }
    Ok(())
}

impl ActTile<'_> {
    /// Fills the blocks from the values, if blocks are wanted.
    #[inline(always)]
    pub(super) fn quantise(&mut self) {
        let Some(words) = self.blocks.as_deref_mut() else { return };
        let n = self.values.len() / self.width;
        for (column, row) in self.values.chunks_exact(n).enumerate() {
            let (blocks, _) = row.as_chunks::<BLOCK>();
            for (block, words) in blocks.iter().zip(words.chunks_exact_mut(WORDS * self.width)) {
                for (i, word) in quantise_block(block).into_iter().enumerate() {
                    words[i * self.width + column] = word;
                }
            }
        }
    }
}

/// The words of one block.
#[inline(always)]
fn quantise_block(x: &[f32; BLOCK]) -> [i32; WORDS] {
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7FFF_FFFF);
    }
    let a = f32::from_bits(largest);
    // Comparing with the bits of infinity also catches NaN, which lies above.
    let (d, inverse) = if largest >= f32::INFINITY.to_bits() {
        (f32::NAN, 0.0)
    } else if a < f32::from_bits((127 - 100) << 23) {
        (0.0, 0.0)
    } else {
        (a / 127.0, 127.0 / a)
    };
    let mut codes = [0i32; BLOCK];
    if inverse != 0.0 {
        for (code, x) in codes.iter_mut().zip(x) {
            // Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low bits.
            *code = (x * inverse + 12_582_912.0).to_bits() as i32 - 0x4B40_0000;
        }
    }
    let half: i32 = codes[BLOCK / 2..].iter().sum();
    let sum = codes[..BLOCK / 2].iter().sum::<i32>() + half;
    let mut words = [0; WORDS];
    for (word, four) in words.iter_mut().zip(codes.as_chunks::<4>().0) {
        *word = i32::from_le_bytes(four.map(|code| code as u8));
    }
    words[8..].copy_from_slice(&[sum, half, d.to_bits() as i32, (d * sum as f32).to_bits() as i32]);
    words
}
