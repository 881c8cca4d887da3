//! The number types of cached keys and values, as attention takes them.

use std::marker::PhantomData;

use super::super::act::WORDS;
use super::super::attention::Tile;
use super::super::kv::{BLOCK, TILE};
use super::super::simd::Simd;
use super::codes::{Bytes, FourBits};
use super::linear::{Block, Products, Sums, row_numbers};
use crate::numeric::Real;

/// A number type of cached keys and values.
pub(super) trait Element {
    /// True if values have scales, for blocks of elements.
    const SCALED: bool;
    /// What the values of a position are stored in.
    type Unit: bytemuck::Pod;
    /// The scores of NV vectors of positions with NG of the NR queries, the group `group` of so many.
    fn scores<S: Simd, const NR: usize, const NG: usize, const NV: usize>(
        s: S,
        tile: &Tile<'_>,
        group: usize,
        keys: &[Keys<'_>; NV],
    ) -> [[S::F; NG]; NV];
    /// What the weights of a tile's positions are multiplied by for the block of elements that `e` is in.
    fn scales<S: Simd>(s: S, values: &[u8], stride: usize, e: usize) -> [f32; TILE];
    /// The values of a tile, and how many units a position takes.
    fn rows(values: &[u8], stride: usize) -> (&[Self::Unit], usize);
    /// The unit of a position that the element `e` is in.
    fn place(e: usize) -> usize;
    /// The elements from `e` on of a position, which its weight multiplies.
    fn values<S: Simd>(s: S, row: &[Self::Unit], e: usize) -> S::F;
}

pub(super) const F16: PhantomData<Floats<u16>> = PhantomData;
pub(super) const F32: PhantomData<Floats<f32>> = PhantomData;
pub(super) const Q8_0: PhantomData<Blocks<32>> = PhantomData;
pub(super) const Q4_0: PhantomData<Blocks<16>> = PhantomData;

/// A vector of positions: those from `lane` on of a tile, and the tile to ask for meanwhile.
#[derive(Clone, Copy, Default)]
pub(super) struct Keys<'a> {
    pub tile: &'a [u8],
    pub next: &'a [u8],
    pub lane: usize,
}

/// Numbers as they are.
pub(super) struct Floats<X>(PhantomData<X>);

pub(super) trait Float: bytemuck::Pod {
    fn load<S: Simd>(s: S, x: &[Self]) -> S::F;
}

impl Float for u16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[u16]) -> S::F {
        s.load_f16(x)
    }
}

impl Float for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32]) -> S::F {
        s.load(x)
    }
}

impl<X: Float> Element for Floats<X> {
    const SCALED: bool = false;
    type Unit = X;

    #[inline(always)]
    fn scores<S: Simd, const NR: usize, const NG: usize, const NV: usize>(
        s: S,
        tile: &Tile<'_>,
        group: usize,
        keys: &[Keys<'_>; NV],
    ) -> [[S::F; NG]; NV] {
        let mut sums = [[s.f32(0.0); NG]; NV];
        let queries = tile.q.as_chunks::<NR>().0;
        // As many columns as there are queries' elements: said here, it is not asked for each.
        let mut columns = [&[][..]; NV];
        for v in 0..NV {
            columns[v] = &bytemuck::cast_slice::<u8, X>(keys[v].tile).as_chunks::<TILE>().0[..queries.len()];
        }
        for (e, q) in queries.iter().enumerate() {
            let mut key = [s.f32(0.0); NV];
            for v in 0..NV {
                let Keys { next, lane, .. } = keys[v];
                if lane == 0 && asks_ahead::<S>(NR) {
                    s.prefetch(next.as_ptr().wrapping_add(e * TILE * size_of::<X>()));
                }
                key[v] = X::load(s, &columns[v][e][lane..]);
            }
            for r in 0..NG {
                let q = s.f32(q[group * NG + r]);
                for v in 0..NV {
                    sums[v][r] = key[v].fma(q, sums[v][r]);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn scales<S: Simd>(_s: S, _values: &[u8], _stride: usize, _e: usize) -> [f32; TILE] {
        [1.0; TILE]
    }

    #[inline(always)]
    fn rows(values: &[u8], stride: usize) -> (&[X], usize) {
        (bytemuck::cast_slice(values), stride)
    }

    #[inline(always)]
    fn place(e: usize) -> usize {
        e
    }

    #[inline(always)]
    fn values<S: Simd>(s: S, row: &[X], e: usize) -> S::F {
        X::load(s, &row[e..])
    }
}

/// Blocks whose codes take BYTES bytes.
pub(super) struct Blocks<const BYTES: usize>;

impl<const BYTES: usize> Element for Blocks<BYTES> {
    const SCALED: bool = true;
    type Unit = u8;

    #[inline(always)]
    fn scores<S: Simd, const NR: usize, const NG: usize, const NV: usize>(
        s: S,
        tile: &Tile<'_>,
        group: usize,
        keys: &[Keys<'_>; NV],
    ) -> [[S::F; NG]; NV] {
        let mut sums = [[s.f32(0.0); NG]; NV];
        let queries = tile.blocks.as_chunks::<WORDS>().0.as_chunks::<NR>().0;
        let (scales, codes) = (2 * TILE, TILE * BYTES);
        for (b, q) in queries.iter().enumerate() {
            let q = &q.as_chunks::<NG>().0[group];
            for v in 0..NV {
                let Keys { tile, next, lane } = keys[v];
                let scale = row_numbers(s, &tile[b * scales..(b + 1) * scales], lane);
                let at = scales * queries.len() + b * codes;
                if lane == 0 && asks_ahead::<S>(NR) {
                    for line in 0..codes.div_ceil(64) {
                        s.prefetch(next.as_ptr().wrapping_add(at + 64 * line));
                    }
                }
                let codes = &tile[at..at + codes];
                let mut sums = Sums { y: Block { first: None, last: q }, f: &mut sums[v] };
                if BYTES == BLOCK {
                    sums.symmetric(s, scale, (Bytes, codes), lane);
                } else {
                    sums.symmetric(s, scale, (FourBits::<4>, codes), lane);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn scales<S: Simd>(s: S, values: &[u8], stride: usize, e: usize) -> [f32; TILE] {
        let blocks = stride / BLOCK;
        let all: &[u16] = bytemuck::cast_slice(&values[..2 * TILE * blocks]);
        let (mut own, mut scales) = ([0; TILE], [0.0; TILE]);
        for (lane, own) in own.iter_mut().enumerate() {
            *own = all[lane * blocks + e / BLOCK];
        }
        for lane in (0..TILE).step_by(S::LANES) {
            s.store(s.load_f16(&own[lane..]), &mut scales[lane..]);
        }
        scales
    }

    #[inline(always)]
    fn rows(values: &[u8], stride: usize) -> (&[u8], usize) {
        let blocks = stride / BLOCK;
        (&values[2 * TILE * blocks..], blocks * BYTES)
    }

    #[inline(always)]
    fn place(e: usize) -> usize {
        e / BLOCK * BYTES + e % BYTES
    }

    #[inline(always)]
    fn values<S: Simd>(s: S, row: &[u8], e: usize) -> S::F {
        let bytes = s.load_i8(&row[Self::place(e)..]);
        if BYTES == BLOCK {
            return s.to_f32(bytes);
        }
        let code = if e % BLOCK < BYTES { bytes } else { s.shr::<4>(bytes) };
        s.to_f32(s.sub_i32(s.and(code, s.i32(15)), s.i32(8)))
    }
}

/// True if keys and values are asked for ahead of their use: for few queries their reading takes the time. (For many, by
/// vectors of 8 lanes, asking cost more than it saved.)
#[inline(always)]
pub(super) fn asks_ahead<S: Simd>(queries: usize) -> bool {
    queries < 8 || S::LANES != 8
}

/// True if tiles are brought to the second cache before they are asked for. AMD's CPUs wait for fewer lines at a time if these
/// go to the first.
#[inline(always)]
pub(super) fn brings_ahead<S: Simd>(s: S, queries: usize) -> bool {
    queries < 8 && s.of_amd()
}

/// Brings a tile's keys or values to the second cache.
#[inline(never)]
pub(super) fn bring<S: Simd>(s: S, lines: &[u8]) {
    for line in 0..lines.len().div_ceil(64) {
        s.prefetch_far(lines.as_ptr().wrapping_add(64 * line));
    }
}
