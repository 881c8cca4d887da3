//! Products of unpacked panels: two vectors of rows by NC columns at a time, a tile being 2 NC columns.
//!
//! A word of a column, loaded into all lanes, then serves two products. (With one vector of rows each product loads its
//! own: with AVX-512 a CPU of Intel's has as many loads to do as products and floats, and two of each a cycle.) The two
//! vectors are a panel with 8 lanes, two panels with 16.
//!
//! Where products are of 16 bits (AVX2), a block's sums become floats between the products of the next block, so that these
//! do not wait for them: a CPU of AMD's family 25 otherwise stands still for each block's floats.

use std::marker::PhantomData;
use std::ops::Range;

use super::super::act::{self, TilePart, WORDS, four};
use super::super::linear::Job;
use super::super::lines::Aligned;
use super::super::packed::ROWS;
use super::super::simd::{Simd, TileWork, Unpacks};
use super::codes::Codes;
use super::linear::half_offset_sum;
use super::unpacked::{CODES, Unpacked, UnpackedBlock};
use crate::numeric::Real;

/// Of each vector of rows, of each column.
type Two<T, const NC: usize> = [[T; NC]; 2];

/// The columns of a job in tiles of 2 NC, and some of its panels.
pub(super) struct TwoVectors<'a, C, U> {
    job: &'a Job<'a>,
    panels: Range<usize>,
    blocks: &'a [UnpackedBlock],
    kind: PhantomData<(C, U)>,
}

impl<'a, C, U> TwoVectors<'a, C, U> {
    /// `blocks` are those of one of the panels after the other.
    pub fn new(job: &'a Job<'a>, panels: Range<usize>, blocks: &'a [UnpackedBlock]) -> Self {
        TwoVectors { job, panels, blocks, kind: PhantomData }
    }
}

impl<C: Codes, U: Unpacked> TileWork for TwoVectors<'_, C, U> {
    #[inline(always)]
    fn run<S: Simd, const NC: usize>(self, s: S) {
        let TwoVectors { job, panels, blocks, .. } = self;
        let length = blocks.len() / panels.len();
        for (start, _) in job.tiles().filter(|(_, width)| *width == 2 * NC) {
            let words = job.act.tile(start, 2 * NC).as_chunks::<WORDS>().0;
            let parts = words.as_chunks::<NC>().0.as_chunks::<2>().0;
            for side in 0..2 {
                let first = start + side * NC;
                for (p, blocks) in panels.clone().step_by(S::TOGETHER).zip(blocks.chunks(S::TOGETHER * length)) {
                    // A last panel without another is taken twice.
                    let rows = [&blocks[..length], &blocks[blocks.len() - length..]];
                    let columns = Columns::<NC> { rows, parts, stride: job.act.parts(), side };
                    let f = match (S::UNPACKS, U::HALVES) {
                        (Unpacks::Codes, false) => columns.whole_of_codes::<S, C, U>(s),
                        (Unpacks::Codes, true) => columns.halves_of_codes::<S, C, U>(s),
                        _ if job.fine => columns.of_bytes::<S, U, 2>(s),
                        _ => columns.of_bytes::<S, U, 1>(s),
                    };
                    let mut out = Aligned([[[0.0; ROWS]; NC]; 2]);
                    for v in 0..2 {
                        for c in 0..NC {
                            s.store(f[v][c], &mut out.0[v * S::LANES / ROWS][c][lane::<S>(v)..]);
                        }
                    }
                    for (p, out) in (p..panels.end.min(p + S::TOGETHER)).zip(&mut out.0) {
                        job.write(p, first, out);
                    }
                }
            }
        }
    }
}

/// The first row of vector `v` in its panel.
#[inline(always)]
fn lane<S: Simd>(v: usize) -> usize {
    v * S::LANES % ROWS
}

/// An unpacked block of each vector of rows, and the columns' words for it.
#[derive(Clone, Copy)]
struct Block<'a, const NC: usize> {
    rows: [&'a UnpackedBlock; 2],
    y: &'a TilePart<NC>,
}

/// What adds nothing.
impl<const NC: usize> Block<'static, NC> {
    const NOTHING: Self =
        Block { rows: [&UnpackedBlock { codes: [0; _], numbers: [[0.0; _]; _] }; 2], y: &[[0; WORDS]; NC] };
}

impl<'a, const NC: usize> Block<'a, NC> {
    /// The codes of word `j` of the rows of vector `v`.
    #[inline(always)]
    fn codes<S: Simd>(self, s: S, j: usize, v: usize) -> S::I {
        s.load_bytes(&self.rows[v].codes[4 * ROWS * j + 4 * lane::<S>(v)..])
    }

    /// The bytes of half `half`, from the first row of each vector on.
    #[inline(always)]
    fn half_codes<S: Simd>(self, half: usize) -> [&'a [u8]; 2] {
        let [first, second] = self.rows;
        let halves = [&first.codes.as_chunks::<{ CODES / 2 }>().0[half], &second.codes.as_chunks().0[half]];
        [&halves[0][4 * lane::<S>(0)..], &halves[1][4 * lane::<S>(1)..]]
    }

    /// Of the sums of products of bytes in `parts` parts of y: those before part `p` count 256 times, and with the last comes
    /// what is in excess, in all or in half `half` of the block.
    #[inline(always)]
    fn begin_part<S: Simd, U: Unpacked>(
        self,
        s: S,
        p: usize,
        parts: usize,
        half: Option<usize>,
        sums: &mut Two<S::I, NC>,
    ) {
        for c in 0..NC {
            for v in 0..2 {
                if p > 0 {
                    sums[v][c] = s.shl::<8>(sums[v][c]);
                }
                if p + 1 == parts && !U::MINS {
                    let excess = match half {
                        None => s.i32(act::offset_sum(&self.y[c])),
                        Some(half) => half_offset_sum(s, &self.y[c], half),
                    };
                    sums[v][c] = s.add_i32(sums[v][c], excess);
                }
            }
        }
    }

    #[inline(always)]
    fn numbers<S: Simd>(self, s: S, place: usize, v: usize) -> S::F {
        s.load(&self.rows[v].numbers[place][lane::<S>(v)..])
    }

    #[inline(always)]
    fn d<S: Simd>(self, s: S, c: usize) -> S::F {
        s.f32(act::d(&self.y[c]))
    }

    /// f += scale * d * sums
    #[inline(always)]
    fn add_scaled<S: Simd>(self, s: S, c: usize, sums: &Two<S::I, NC>, f: &mut Two<S::F, NC>) {
        let d = self.d(s, c);
        for v in 0..2 {
            f[v][c] = s.to_f32(sums[v][c]).fma(self.numbers(s, 0, v).mul(d), f[v][c]);
        }
    }

    /// f += min * (d * sum y)
    #[inline(always)]
    fn add_min<S: Simd>(self, s: S, c: usize, f: &mut Two<S::F, NC>) {
        let d_sum = s.f32(act::d_sum(&self.y[c]));
        for v in 0..2 {
            f[v][c] = self.numbers(s, 1, v).fma(d_sum, f[v][c]);
        }
    }

    /// g = s0 * sums of the first half
    #[inline(always)]
    fn scale_first<S: Simd>(self, s: S, c: usize, sums: &Two<S::I, NC>, g: &mut Two<S::F, NC>) {
        for v in 0..2 {
            g[v][c] = s.to_f32(sums[v][c]).mul(self.numbers(s, 0, v));
        }
    }

    /// f += d * (g + s1 * sums of the second half), and the mins.
    #[inline(always)]
    fn add_halves<S: Simd, U: Unpacked>(
        self,
        s: S,
        c: usize,
        sums: &Two<S::I, NC>,
        g: &Two<S::F, NC>,
        f: &mut Two<S::F, NC>,
    ) {
        let d = self.d(s, c);
        let first_of_y = s.to_f32(half_offset_sum(s, &self.y[c], 0));
        let second_of_y = s.to_f32(half_offset_sum(s, &self.y[c], 1));
        for v in 0..2 {
            let g = s.to_f32(sums[v][c]).fma(self.numbers(s, 1, v), g[v][c]);
            f[v][c] = g.fma(d, f[v][c]);
            if U::MINS {
                let n = self.numbers(s, 2, v).mul(first_of_y);
                let n = self.numbers(s, 3, v).fma(second_of_y, n);
                f[v][c] = n.fma(d, f[v][c]);
            }
        }
    }
}

/// The blocks of two vectors of rows and of half of a tile's columns.
#[derive(Clone, Copy)]
struct Columns<'a, const NC: usize> {
    rows: [&'a [UnpackedBlock]; 2],
    parts: &'a [[TilePart<NC>; 2]],
    /// Parts of a block.
    stride: usize,
    /// Which half of the tile.
    side: usize,
}

impl<'a, const NC: usize> Columns<'a, NC> {
    /// Block `b`, with part `part` of the columns' words.
    #[inline(always)]
    fn block(self, b: usize, part: usize) -> Block<'a, NC> {
        let [first, second] = self.rows;
        Block { rows: [&first[b], &second[b]], y: &self.parts[b * self.stride + part][self.side] }
    }

    /// The sums over all blocks of unpacked bytes, with activations in PARTS parts.
    #[inline(always)]
    fn of_bytes<S: Simd, U: Unpacked, const PARTS: usize>(self, s: S) -> Two<S::F, NC> {
        let mut f = [[s.f32(0.0); NC]; 2];
        for b in 0..self.rows[0].len() {
            let (first, last) = (self.block(b, 0), self.block(b, PARTS - 1));
            let parts = [first.y, last.y];
            if U::HALVES {
                let mut g = [[s.f32(0.0); NC]; 2];
                for half in 0..2 {
                    let mut sums = [[s.i32(0); NC]; 2];
                    for p in 0..PARTS {
                        last.begin_part::<S, U>(s, p, PARTS, Some(half), &mut sums);
                        s.dots_of_two(&mut sums, last.half_codes::<S>(half), parts[p], half);
                    }
                    for c in 0..NC {
                        match half {
                            0 => last.scale_first(s, c, &sums, &mut g),
                            _ => last.add_halves::<S, U>(s, c, &sums, &g, &mut f),
                        }
                    }
                }
            } else {
                let mut sums = [[s.i32(0); NC]; 2];
                for p in 0..PARTS {
                    last.begin_part::<S, U>(s, p, PARTS, None, &mut sums);
                    for half in 0..2 {
                        s.dots_of_two(&mut sums, last.half_codes::<S>(half), parts[p], half);
                    }
                }
                for c in 0..NC {
                    last.add_scaled(s, c, &sums, &mut f);
                    if U::MINS {
                        last.add_min(s, c, &mut f);
                    }
                }
            }
        }
        f
    }

    /// The sums over all blocks of codes, one scale a block.
    #[inline(always)]
    fn whole_of_codes<S: Simd, C: Codes, U: Unpacked>(self, s: S) -> Two<S::F, NC> {
        // The floats of so many have their places between 8 words.
        assert!(NC == 2);
        // The words whose products 16 bits hold: each is at most 2 * 127 * (2^bits - 1), or 2 * 127 * 128 of signed codes. (Where
        // all have one scale, no codes are of 6 bits.)
        let summed = match C::BITS {
            0..=4 => 8,
            5 => 4,
            _ => 1,
        };
        let mut f = [[s.f32(0.0); NC]; 2];
        let (mut before, mut sums_before) = (Block::NOTHING, [[s.i32(0); NC]; 2]);
        for b in 0..self.rows[0].len() {
            let block = self.block(b, 0);
            let mut sums = [[s.i32(0); NC]; 2];
            if !U::MINS {
                for c in 0..NC {
                    let excess = C::excess(s, s.i32(act::offset_sum(&block.y[c])));
                    for v in 0..2 {
                        sums[v][c] = excess;
                    }
                }
            }
            let mut products = [[s.i32(0); NC]; 2];
            for j in 0..8 {
                for v in 0..2 {
                    let codes = block.codes(s, j, v);
                    for c in 0..NC {
                        let y = s.i32(block.y[c][j]);
                        let product = if C::BITS == 8 { s.products_signed(codes, y) } else { s.products(codes, y) };
                        products[v][c] = if j % summed == 0 { product } else { s.add_i16(products[v][c], product) };
                    }
                }
                // The floats of the block before: column by column, then the mins.
                if j % 2 == 0 {
                    match j / 2 {
                        c if c < NC => before.add_scaled(s, c, &sums_before, &mut f),
                        c if U::MINS => before.add_min(s, c - NC, &mut f),
                        _ => {}
                    }
                }
                if j % summed == summed - 1 {
                    for v in 0..2 {
                        for c in 0..NC {
                            sums[v][c] = s.widen(sums[v][c], products[v][c]);
                        }
                    }
                }
            }
            (before, sums_before) = (block, sums);
        }
        for c in 0..NC {
            before.add_scaled(s, c, &sums_before, &mut f);
            if U::MINS {
                before.add_min(s, c, &mut f);
            }
        }
        f
    }

    /// The sums over all blocks of codes, a scale for each half of a block.
    #[inline(always)]
    fn halves_of_codes<S: Simd, C: Codes, U: Unpacked>(self, s: S) -> Two<S::F, NC> {
        let mut f = [[s.f32(0.0); NC]; 2];
        let (mut before, mut sums_before, mut g) = (Block::NOTHING, [[s.i32(0); NC]; 2], f);
        for b in 0..self.rows[0].len() {
            let block = self.block(b, 0);
            for half in 0..2 {
                let mut sums = [[s.i32(0); NC]; 2];
                for c in 0..NC {
                    for v in 0..2 {
                        if !U::MINS {
                            sums[v][c] = C::excess(s, half_offset_sum(s, &block.y[c], half));
                        }
                        let mut codes = [s.i32(0); 4];
                        for j in 0..4 {
                            codes[j] = block.codes(s, 4 * half + j, v);
                        }
                        let y = four(&block.y[c], half);
                        sums[v][c] = if C::BITS == 8 {
                            let [first, second, third, fourth] = codes;
                            let flipped = [s.flip(first), s.flip(second), s.flip(third), s.flip(fourth)];
                            s.dot_signed(sums[v][c], flipped, y)
                        } else {
                            s.dot(C::BITS, sums[v][c], codes, y)
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
        for c in 0..NC {
            before.add_halves::<S, U>(s, c, &sums_before, &g, &mut f);
        }
        f
    }
}
