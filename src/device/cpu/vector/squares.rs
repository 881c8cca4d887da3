//! Products of an unpacked panel with two columns at a time, for instruction sets of 8 lanes whose products are of 16 bits
//! (AVX2): squares of two vectors of rows by two columns.
//!
//! A word of a column, loaded into all lanes, and a vector of codes then serve two products each; and a block's sums become
//! floats between the products of the next block, so that these do not wait for them. (As the packed panels have it, a vector
//! by four columns, a CPU of AMD's family 25 has about a block in its registers, and stands still for each block's floats.)

use std::marker::PhantomData;
use std::ops::Range;

use super::super::act::{self, TilePart, WORDS, four};
use super::super::linear::Job;
use super::super::packed::ROWS;
use super::super::simd::{Simd, TileWork};
use super::codes::Codes;
use super::linear::half_offset_sum;
use super::unpacked::{Unpacked, UnpackedBlock};
use crate::numeric::Real;

/// Of each column of two, of each vector of rows.
type Square<T> = [[T; 2]; 2];

/// The columns of a job in tiles of NY, and some of its panels.
pub(super) struct Squares<'a, C, U> {
    pub job: &'a Job<'a>,
    pub panels: Range<usize>,
    /// Of one panel after the other.
    pub blocks: &'a [UnpackedBlock],
    pub kind: PhantomData<(C, U)>,
}

impl<C: Codes, U: Unpacked> TileWork for Squares<'_, C, U> {
    #[inline(always)]
    fn run<S: Simd, const NY: usize>(self, s: S) {
        assert!(ROWS == 2 * S::LANES && NY.is_multiple_of(2));
        let Squares { job, panels, blocks, .. } = self;
        let length = blocks.len() / panels.len();
        for (start, _) in job.tiles().filter(|(_, width)| *width == NY) {
            let parts = job.act.tile(start, NY).as_chunks::<WORDS>().0.as_chunks::<NY>().0;
            for first in (0..NY).step_by(2) {
                for (panel, blocks) in panels.clone().zip(blocks.chunks_exact(length)) {
                    let columns = Columns::<NY> { blocks, parts, stride: job.act.parts(), first };
                    let f = if U::HALVES { columns.halves::<S, C, U>(s) } else { columns.whole::<S, C, U>(s) };
                    let mut out = [[0.0; ROWS]; 2];
                    for c in 0..2 {
                        for v in 0..2 {
                            s.store(f[c][v], &mut out[c][v * S::LANES..]);
                        }
                    }
                    job.write(panel, start + first, &out);
                }
            }
        }
    }
}

/// An unpacked block and the two columns' words for it.
#[derive(Clone, Copy)]
struct Block<'a> {
    rows: &'a UnpackedBlock,
    y: [&'a [i32; WORDS]; 2],
}

/// What adds nothing.
const NOTHING: Block<'static> =
    Block { rows: &UnpackedBlock { codes: [0; _], numbers: [[0.0; _]; _] }, y: [&[0; WORDS]; 2] };

impl Block<'_> {
    /// The codes of word `j` of the rows of vector `v`.
    #[inline(always)]
    fn codes<S: Simd>(self, s: S, j: usize, v: usize) -> S::I {
        s.load_bytes(&self.rows.codes[4 * ROWS * j + 4 * S::LANES * v..])
    }

    #[inline(always)]
    fn numbers<S: Simd>(self, s: S, place: usize, v: usize) -> S::F {
        s.load(&self.rows.numbers[place][v * S::LANES..])
    }

    #[inline(always)]
    fn d<S: Simd>(self, s: S, c: usize) -> S::F {
        s.f32(act::d(self.y[c]))
    }

    /// f += scale * d * sums
    #[inline(always)]
    fn add_scaled<S: Simd>(self, s: S, c: usize, sums: &Square<S::I>, f: &mut Square<S::F>) {
        let d = self.d(s, c);
        for v in 0..2 {
            f[c][v] = s.to_f32(sums[c][v]).fma(self.numbers(s, 0, v).mul(d), f[c][v]);
        }
    }

    /// f += min * (d * sum y)
    #[inline(always)]
    fn add_min<S: Simd>(self, s: S, c: usize, f: &mut Square<S::F>) {
        let d_sum = s.f32(act::d_sum(self.y[c]));
        for v in 0..2 {
            f[c][v] = self.numbers(s, 1, v).fma(d_sum, f[c][v]);
        }
    }

    /// g = s0 * sums of the first half
    #[inline(always)]
    fn scale_first<S: Simd>(self, s: S, c: usize, sums: &Square<S::I>, g: &mut Square<S::F>) {
        for v in 0..2 {
            g[c][v] = s.to_f32(sums[c][v]).mul(self.numbers(s, 0, v));
        }
    }

    /// f += d * (g + s1 * sums of the second half), and the mins.
    #[inline(always)]
    fn add_halves<S: Simd, U: Unpacked>(
        self,
        s: S,
        c: usize,
        sums: &Square<S::I>,
        g: &Square<S::F>,
        f: &mut Square<S::F>,
    ) {
        let d = self.d(s, c);
        let first_of_y = s.to_f32(half_offset_sum(s, self.y[c], 0));
        let second_of_y = s.to_f32(half_offset_sum(s, self.y[c], 1));
        for v in 0..2 {
            let g = s.to_f32(sums[c][v]).fma(self.numbers(s, 1, v), g[c][v]);
            f[c][v] = g.fma(d, f[c][v]);
            if U::MINS {
                let n = self.numbers(s, 2, v).mul(first_of_y);
                let n = self.numbers(s, 3, v).fma(second_of_y, n);
                f[c][v] = n.fma(d, f[c][v]);
            }
        }
    }
}

/// The blocks of a panel and of two of a tile's NY columns.
#[derive(Clone, Copy)]
struct Columns<'a, const NY: usize> {
    blocks: &'a [UnpackedBlock],
    parts: &'a [TilePart<NY>],
    /// Parts of a block, of which the first is taken.
    stride: usize,
    /// The first of the columns.
    first: usize,
}

impl<const NY: usize> Columns<'_, NY> {
    /// The sums over all blocks, one scale a block.
    #[inline(always)]
    fn whole<S: Simd, C: Codes, U: Unpacked>(self, s: S) -> Square<S::F> {
        // The words whose products 16 bits hold: each is at most 2 * 127 * (2^bits - 1), or 2 * 127 * 128 of signed codes. (Where
        // all have one scale, no codes are of 6 bits.)
        let together = match C::BITS {
            0..=4 => 8,
            5 => 4,
            _ => 1,
        };
        let mut f = [[s.f32(0.0); 2]; 2];
        let (mut before, mut sums_before) = (NOTHING, [[s.i32(0); 2]; 2]);
        for (rows, part) in self.blocks.iter().zip(self.parts.chunks_exact(self.stride)) {
            let block = Block { rows, y: [&part[0][self.first], &part[0][self.first + 1]] };
            let mut sums = [[s.i32(0); 2]; 2];
            if !U::MINS {
                for c in 0..2 {
                    sums[c] = [C::excess(s, s.i32(act::offset_sum(block.y[c]))); 2];
                }
            }
            let mut products = [[s.i32(0); 2]; 2];
            for j in 0..8 {
                let y = [s.i32(block.y[0][j]), s.i32(block.y[1][j])];
                for v in 0..2 {
                    let codes = block.codes(s, j, v);
                    for c in 0..2 {
                        let product =
                            if C::BITS == 8 { s.products_signed(codes, y[c]) } else { s.products(codes, y[c]) };
                        products[c][v] = if j % together == 0 { product } else { s.add_i16(products[c][v], product) };
                    }
                }
                match j {
                    0 | 2 => before.add_scaled(s, j / 2, &sums_before, &mut f),
                    4 | 6 if U::MINS => before.add_min(s, j / 2 - 2, &mut f),
                    _ => {}
                }
                if j % together == together - 1 {
                    for c in 0..2 {
                        for v in 0..2 {
                            sums[c][v] = s.widen(sums[c][v], products[c][v]);
                        }
                    }
                }
            }
            (before, sums_before) = (block, sums);
        }
        for c in 0..2 {
            before.add_scaled(s, c, &sums_before, &mut f);
            if U::MINS {
                before.add_min(s, c, &mut f);
            }
        }
        f
    }

    /// The sums over all blocks, a scale for each half of a block.
    #[inline(always)]
    fn halves<S: Simd, C: Codes, U: Unpacked>(self, s: S) -> Square<S::F> {
        let mut f = [[s.f32(0.0); 2]; 2];
        let (mut before, mut sums_before, mut g) = (NOTHING, [[s.i32(0); 2]; 2], f);
        for (rows, part) in self.blocks.iter().zip(self.parts.chunks_exact(self.stride)) {
            let block = Block { rows, y: [&part[0][self.first], &part[0][self.first + 1]] };
            for half in 0..2 {
                let mut sums = [[s.i32(0); 2]; 2];
                for c in 0..2 {
                    if !U::MINS {
                        sums[c] = [C::excess(s, half_offset_sum(s, block.y[c], half)); 2];
                    }
                    for v in 0..2 {
                        let mut codes = [s.i32(0); 4];
                        for j in 0..4 {
                            codes[j] = block.codes(s, 4 * half + j, v);
                        }
                        let y = four(block.y[c], half);
                        sums[c][v] = if C::BITS == 8 {
                            let [first, second, third, fourth] = codes;
                            let flipped = [s.flip(first), s.flip(second), s.flip(third), s.flip(fourth)];
                            s.dot_signed(sums[c][v], flipped, y)
                        } else {
                            s.dot(C::BITS, sums[c][v], codes, y)
                        };
                    }
                    if half == 0 {
                        before.add_halves::<S, U>(s, c, &sums_before, &g, &mut f);
                    } else {
                        block.scale_first(s, c, &sums_before, &mut g);
                    }
                }
                sums_before = sums;
            }
            before = block;
        }
        for c in 0..2 {
            before.add_halves::<S, U>(s, c, &sums_before, &g, &mut f);
        }
        f
    }
}
