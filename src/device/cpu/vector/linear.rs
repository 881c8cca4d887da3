//! Matrix products: a panel of 16 rows times a tile of columns.
//!
//! One row a lane; a block's integer products are exact, so only the float step per block has an order, and each lane
//! does it in block order:
//!
//! ```text
//! acc[c] = -zero * sum_y[c]                                one 32-k block, a vector of rows x NY columns
//! for each of 8 code vectors w (4 k each):
//!     acc[c] = dot(acc[c], w, y[c])                        4 activations, broadcast from memory
//! f[c] = fma(to_f32(acc[c]), scale * d_y[c], f[c])
//! ```
//!
//! With activations in 16 bits, acc is 256 times the product with the q plus the product with the r.

use super::super::act::{self, TilePart, WORDS};
use super::super::linear::Job;
use super::super::lines::Aligned;
use super::super::packed::{BITS, NIBBLES, PAIRS, ROWS, SCALES, TWO, plane_bytes};
use super::super::simd::{Simd, TileWork, run_tile};
use super::codes::Codes;
use super::panels::*;
use super::{floats, unpacked};
use crate::numeric::Real;
use crate::quant::{Format, IQ1, IQ2, IQ3_S, IQ3_XXS};

/// Computes the panels of `job` for all its columns.
pub(in super::super) fn linear<S: Simd>(s: S, job: &Job<'_>) {
    // Jobs are cut for S.
    const { assert!(S::WIDEST <= S::Base::WIDEST) }
    let format = job.weight.shape().format;
    match format {
        Format::F32 | Format::F16 | Format::BF16 => floats::linear(s.base(), job),
        Format::Q4_0 => quantised::<S, _, NIBBLES>(s, Q4_0, job),
        Format::Q4_1 => quantised::<S, _, { TWO + NIBBLES }>(s, Q4_1, job),
        Format::Q5_0 => quantised::<S, _, { NIBBLES + BITS }>(s, Q5_0, job),
        Format::Q5_1 => quantised::<S, _, { TWO + NIBBLES + BITS }>(s, Q5_1, job),
        Format::Q8_0 => quantised::<S, _, 512>(s, Q8_0, job),
        Format::Q2K => quantised::<S, _, Q2K_UNIT>(s, Q2K, job),
        Format::Q3K => quantised::<S, _, Q3K_UNIT>(s, Q3K, job),
        Format::Q4K => quantised::<S, _, { TWO + SCALES + 8 * NIBBLES }>(s, Q4K, job),
        Format::Q5K => quantised::<S, _, { TWO + SCALES + 8 * (NIBBLES + BITS) }>(s, Q5K, job),
        Format::Q6K => quantised::<S, _, Q6K_UNIT>(s, Q6K, job),
        Format::IQ4NL => quantised::<S, _, NIBBLES>(s, IQ4NL, job),
        Format::IQ4XS => quantised::<S, _, IQ4XS_UNIT>(s, IQ4XS, job),
        Format::MXFP4 => quantised::<S, _, NIBBLES>(s, MXFP4, job),
        Format::NVFP4 => quantised::<S, _, NVFP4_UNIT>(s, NVFP4, job),
        Format::IQ1S | Format::IQ1M | Format::IQ2XXS | Format::IQ2XS | Format::IQ2S => {
            let numbers = if matches!(format, Format::IQ1S | Format::IQ1M) { &IQ1 } else { &IQ2 };
            quantised::<S, _, GRID2_UNIT>(s, Grid2(numbers), job);
        }
        Format::IQ3XXS | Format::IQ3S => {
            let numbers = if format == Format::IQ3XXS { &IQ3_XXS } else { &IQ3_S };
            quantised::<S, _, GRID3_UNIT>(s, Grid3(numbers), job);
        }
        Format::TQ1_0 | Format::TQ2_0 => quantised::<S, _, { 8 * PAIRS }>(s, Ternary, job),
    }
}

/// A tile's block: in 8 bits its one part, in 16 bits both.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, const NY: usize> {
    /// The q, which count 256 times, where `last` has the r.
    pub first: Option<&'a TilePart<NY>>,
    pub last: &'a TilePart<NY>,
}

/// The words after the last codes.
impl<const NY: usize> Block<'_, NY> {
    #[inline(always)]
    fn offset_sum(self, c: usize) -> i32 {
        act::offset_sum(&self.last[c])
    }

    #[inline(always)]
    fn half_offset_sum<S: Simd>(self, s: S, half: usize, c: usize) -> S::I {
        half_offset_sum(s, &self.last[c], half)
    }

    #[inline(always)]
    fn d(self, c: usize) -> f32 {
        act::d(&self.last[c])
    }

    #[inline(always)]
    fn d_sum(self, c: usize) -> f32 {
        act::d_sum(&self.last[c])
    }
}

/// -128 times the sum of half `half` of a column's block.
#[inline(always)]
pub(super) fn half_offset_sum<S: Simd>(s: S, words: &[i32; WORDS], half: usize) -> S::I {
    let second = s.i32(act::second_offset_sum(words));
    if half == 0 { s.sub_i32(s.i32(act::offset_sum(words)), second) } else { second }
}

fn quantised<S: Simd, P: Panel<UNIT>, const UNIT: usize>(s: S, how: P, job: &Job<'_>) {
    let done = unpacked::linear(s, how, job);
    for (i, (start, width)) in job.tiles().enumerate().filter(|(_, (_, width))| !done.contains(width)) {
        run_tile(s, width, QuantisedTile { how, job, start, first: i == 0 });
    }
}

/// The columns of `job` from `start` on.
struct QuantisedTile<'a, P, const UNIT: usize> {
    how: P,
    job: &'a Job<'a>,
    start: usize,
    /// The panels come from memory: those of the job's other tiles are in the second cache by then.
    first: bool,
}

impl<P: Panel<UNIT>, const UNIT: usize> TileWork for QuantisedTile<'_, P, UNIT> {
    #[inline(always)]
    fn run<S: Simd, const NY: usize>(self, s: S) {
        assert!(NY <= S::WIDEST);
        let QuantisedTile { how, job, start, first } = self;
        let units = job.weight.shape().columns / (32 * P::BLOCKS);
        let (plane_bytes, fine) = (plane_bytes(units, P::PLANE), job.fine);
        // For few columns AMD's CPUs read further ahead by themselves than they do if asked, where they see one line after the
        // other.
        let in_order = NY <= 2 && s.of_amd();
        let (parts, stride) = (job.act.tile(start, NY).as_chunks::<WORDS>().0.as_chunks::<NY>().0, job.act.parts());
        for (p, panel) in job.panels.clone().zip(job.packed_from(job.panels.start)) {
            let mut out = Aligned([[0.0; ROWS]; NY]);
            let (plane, rest) = panel.split_at(plane_bytes);
            let units = (plane, rest.as_chunks::<UNIT>().0);
            if first && in_order {
                prefetch_plane(s, plane);
            }
            let tile = TileBlocks::<NY> { parts, stride, fine, first, in_order };
            // One column leaves registers for all vectors of the panel, which is then read once.
            match (NY, ROWS / S::LANES) {
                (1, 2) => rows::<S, P, UNIT, NY, 2>(s, how, units, tile, 0, &mut out.0),
                (1, 4) => rows::<S, P, UNIT, NY, 4>(s, how, units, tile, 0, &mut out.0),
                _ => {
                    for lane in (0..ROWS).step_by(S::LANES) {
                        rows::<S, P, UNIT, NY, 1>(s, how, units, tile, lane, &mut out.0);
                    }
                }
            }
            job.write(p, start, &mut out.0);
        }
    }
}

/// The blocks of a tile's NY columns.
#[derive(Clone, Copy)]
struct TileBlocks<'a, const NY: usize> {
    parts: &'a [TilePart<NY>],
    /// Parts of a block.
    stride: usize,
    /// Take both.
    fine: bool,
    /// As in [`QuantisedTile`].
    first: bool,
    /// Such panels are asked for one line after the other, little ahead, if at all.
    in_order: bool,
}

/// The products of NV vectors of rows from `lane` on, through all units of a panel.
#[inline(always)]
fn rows<S: Simd, P: Panel<UNIT>, const UNIT: usize, const NY: usize, const NV: usize>(
    s: S,
    how: P,
    (plane, units): (&[u8], &[[u8; UNIT]]),
    TileBlocks { parts, stride, fine, first, in_order }: TileBlocks<'_, NY>,
    lane: usize,
    out: &mut [[f32; ROWS]; NY],
) {
    let mut f = [[s.f32(0.0); NY]; NV];
    for (u, (unit, y)) in units.iter().zip(parts.chunks_exact(stride * P::BLOCKS)).enumerate() {
        let plane = &plane[u * P::PLANE..(u + 1) * P::PLANE];
        let mut heads = [P::head(s, plane, unit, lane); NV];
        for v in 1..NV {
            heads[v] = P::head(s, plane, unit, lane + v * S::LANES);
        }
        // (Vector code has no closures, see `codes`.)
        macro_rules! take {
            ($blocks:expr) => {
                for (b, y) in $blocks {
                    // (Quick codes are read in order as they are.)
                    if first && lane == 0 && !(in_order && P::Codes::QUICK) {
                        prefetch(s, if in_order { (None, 256) } else { S::AHEAD }, unit, P::BLOCKS, b);
                    }
                    let y = if fine {
                        Block { first: Some(&y[0]), last: &y[1] }
                    } else {
                        Block { first: None, last: &y[0] }
                    };
                    for v in 0..NV {
                        let place = Place { b, lane: lane + v * S::LANES };
                        how.block(s, &heads[v], unit, place, &mut Sums { y, f: &mut f[v] });
                    }
                }
            };
        }
        // A loop with two ends keeps the compiler from writing the code of a block down for each of a unit's: that is four times
        // as much, and faster only with one column and vectors of all rows, where a block is few instructions.
        let y = y.chunks_exact(stride);
        if NY == 1 && S::LANES == ROWS { take!(y.enumerate()) } else { take!((0..P::BLOCKS).zip(y)) }
    }
    for v in 0..NV {
        for c in 0..NY {
            s.store(f[v][c], &mut out[c][lane + v * S::LANES..]);
        }
    }
}

/// Asks for what follows block b of a unit of `blocks`. Block by block, since lines asked for at once wait for each other.
#[inline(always)]
pub(super) fn prefetch<S: Simd, const UNIT: usize>(
    s: S,
    (far, near): (Option<usize>, usize),
    unit: &[u8; UNIT],
    blocks: usize,
    b: usize,
) {
    let part = UNIT / blocks;
    for line in 0..part.div_ceil(64) {
        let at = unit.as_ptr().wrapping_add(b * part + 64 * line);
        if let Some(far) = far {
            s.prefetch_far(at.wrapping_add(far));
        }
        s.prefetch(at.wrapping_add(near));
    }
}

/// Asks for the plane of a panel as a whole: read line by line between the lines of units, it keeps the CPU from seeing that
/// these follow each other.
#[inline(always)]
fn prefetch_plane<S: Simd>(s: S, plane: &[u8]) {
    for line in (0..plane.len()).step_by(64) {
        s.prefetch(plane[line..].as_ptr());
    }
}

/// Takes the blocks of a panel, one after the other. A panel's format says by which of the products a block is added to the
/// sums f: w are the numbers that the codes stand for, and y, sum y and d those of the activations; exact integers up to the
/// last step.
pub(super) trait Products<S: Simd> {
    /// f += scale * d * (w . y)
    fn symmetric<C: Codes>(&mut self, s: S, scale: S::F, codes: (C, &[u8]), lane: usize);
    /// f += scale * d * (codes . y) + min * (d * sum y)
    fn with_min<C: Codes>(&mut self, s: S, numbers: (S::F, S::F), codes: (C, &[u8]), lane: usize);
    /// f += d * (s0 * (w . y of the first half) + s1 * (w . y of the second)), less d * (m0 * (sum of the first half) +
    /// m1 * (sum of the second)) if there are mins, in this order: g = a0 * s0, fma(a1, s1, g), f = fma(g, d, f);
    /// n = m0 * -h0, fma(m1, -h1, n), f = fma(n, d, f). The mins are given as m/128 (exact) and enter with -128 h.
    fn halves<C: Codes>(&mut self, s: S, numbers: ([S::F; 2], Option<[S::F; 2]>), codes: (C, &[u8]), lane: usize);
}

/// The sums of NY columns over the blocks so far, of the rows of a vector, and the columns' next block.
pub(super) struct Sums<'a, S: Simd, const NY: usize> {
    pub y: Block<'a, NY>,
    pub f: &'a mut [S::F; NY],
}

impl<S: Simd, const NY: usize> Products<S> for Sums<'_, S, NY> {
    #[inline(always)]
    fn symmetric<C: Codes>(&mut self, s: S, scale: S::F, codes: (C, &[u8]), lane: usize) {
        let acc = product(s, codes, false, lane, self.y);
        for c in 0..NY {
            self.f[c] = s.to_f32(acc[c]).fma(scale.mul(s.f32(self.y.d(c))), self.f[c]);
        }
    }

    #[inline(always)]
    fn with_min<C: Codes>(&mut self, s: S, (scale, min): (S::F, S::F), codes: (C, &[u8]), lane: usize) {
        let acc = product(s, codes, true, lane, self.y);
        for c in 0..NY {
            self.f[c] = s.to_f32(acc[c]).fma(scale.mul(s.f32(self.y.d(c))), self.f[c]);
            self.f[c] = min.fma(s.f32(self.y.d_sum(c)), self.f[c]);
        }
    }

    #[inline(always)]
    fn halves<C: Codes>(&mut self, s: S, numbers: ([S::F; 2], Option<[S::F; 2]>), codes: (C, &[u8]), lane: usize) {
        // Asked here, it is not asked for each column.
        match self.y.first {
            None => self.add_halves(s, numbers, codes, lane, [self.y.last]),
            Some(first) => self.add_halves(s, numbers, codes, lane, [first, self.y.last]),
        }
    }
}

impl<S: Simd, const NY: usize> Sums<'_, S, NY> {
    /// As `halves`, for activations in 1 or 2 parts.
    #[inline(always)]
    fn add_halves<C: Codes, const PARTS: usize>(
        &mut self,
        s: S,
        (scales, mins): ([S::F; 2], Option<[S::F; 2]>),
        (how, codes): (C, &[u8]),
        lane: usize,
        parts: [&TilePart<NY>; PARTS],
    ) {
        let (y, mut g) = (self.y, [s.f32(0.0); NY]);
        for half in 0..2 {
            let (scale, codes) = (scales[half], how.half(s, codes, half, lane));
            let mut acc = [s.i32(0); NY];
            for (p, part) in parts.iter().enumerate() {
                for c in 0..NY {
                    if p > 0 {
                        acc[c] = s.shl::<8>(acc[c]);
                    }
                    if p + 1 == PARTS && mins.is_none() {
                        acc[c] = s.add_i32(acc[c], C::excess(s, y.half_offset_sum(s, half, c)));
                    }
                }
                C::dots(s, &mut acc, codes, part, half);
            }
            for c in 0..NY {
                let a = s.to_f32(acc[c]);
                g[c] = if half == 0 { a.mul(scale) } else { a.fma(scale, g[c]) };
            }
        }
        for c in 0..NY {
            self.f[c] = g[c].fma(s.f32(y.d(c)), self.f[c]);
            if let Some([first, second]) = mins {
                let n = first.mul(s.to_f32(y.half_offset_sum(s, 0, c)));
                let n = second.fma(s.to_f32(y.half_offset_sum(s, 1, c)), n);
                self.f[c] = n.fma(s.f32(y.d(c)), self.f[c]);
            }
        }
    }
}

/// codes . y, exact, and the excess of the codes unless there are `mins`. In 16 bits the codes are unpacked twice:
/// accumulators for both products would not all fit into registers. Where there are pairs, which are worth making for more
/// than one column, they are unpacked once.
#[inline(always)]
fn product<S: Simd, C: Codes, const NY: usize>(
    s: S,
    codes: (C, &[u8]),
    mins: bool,
    lane: usize,
    y: Block<'_, NY>,
) -> [S::I; NY] {
    // Asked here, it is not asked for each column.
    match y.first {
        None => product_of(s, codes, mins, lane, y, [y.last]),
        Some(first) if NY > 1 && C::in_pairs::<S>() => {
            let (mut acc, pairs) = ([s.i32(0); NY], s.pairs(first, y.last));
            for half in 0..2 {
                C::dots_of_pairs(s, &mut acc, codes.0.half(s, codes.1, half, lane), &pairs, half);
            }
            acc
        }
        Some(first) => product_of(s, codes, mins, lane, y, [first, y.last]),
    }
}

/// As `product`, for activations in 1 or 2 parts.
#[inline(always)]
fn product_of<S: Simd, C: Codes, const NY: usize, const PARTS: usize>(
    s: S,
    (how, codes): (C, &[u8]),
    mins: bool,
    lane: usize,
    y: Block<'_, NY>,
    parts: [&TilePart<NY>; PARTS],
) -> [S::I; NY] {
    let mut acc = [s.i32(0); NY];
    for (p, part) in parts.iter().enumerate() {
        for c in 0..NY {
            if p > 0 {
                acc[c] = s.shl::<8>(acc[c]);
            }
            if p + 1 == PARTS && !mins {
                acc[c] = s.add_i32(acc[c], C::excess(s, s.i32(y.offset_sum(c))));
            }
        }
        for half in 0..2 {
            let codes = how.half(s, codes, half, lane);
            C::dots(s, &mut acc, codes, part, half);
        }
    }
    acc
}

/// The f16 numbers of the rows of a vector, as f32.
#[inline(always)]
pub(super) fn row_numbers<S: Simd>(s: S, bytes: &[u8], lane: usize) -> S::F {
    s.load_f16(bytemuck::cast_slice(&bytes[2 * lane..2 * (lane + S::LANES)]))
}
