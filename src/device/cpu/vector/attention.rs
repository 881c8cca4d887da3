//! Attention: lanes are positions for the scores, and head elements for the sum of values.

use std::marker::PhantomData;

use super::super::act::WORDS;
use super::super::attention::{Partial, ROWS, SEGMENT, Tile};
use super::super::kv::{BLOCK, KvType, TILE};
use super::super::scalar::{tree_max, tree_sum};
use super::super::simd::{Simd, TileWork, run_tile};
use super::codes::{Bytes, FourBits};
use super::linear::{row_numbers, symmetric};
use crate::numeric::{self, Real};

/// A number type of cached keys and values.
trait Element: Copy {
    /// The scores of a vector of positions of a tile from `lane` on, with NR queries.
    fn scores<S: Simd, const NR: usize>(s: S, tile: &Tile<'_>, keys: &[u8], lane: usize) -> [S::F; NR];
    /// What a weight becomes for the elements from `e` on of the position `lane` of a tile.
    fn weight(values: &[u8], blocks: usize, lane: usize, e: usize, weight: f32) -> f32;
    /// These elements, that weight multiplies.
    fn values<S: Simd>(s: S, values: &[u8], stride: usize, lane: usize, e: usize) -> S::F;
}

/// Numbers as they are.
#[derive(Clone, Copy)]
struct Floats<X>(PhantomData<X>);

trait Float: bytemuck::Pod {
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
    #[inline(always)]
    fn scores<S: Simd, const NR: usize>(s: S, tile: &Tile<'_>, keys: &[u8], lane: usize) -> [S::F; NR] {
        let mut sum = [s.f32(0.0); NR];
        let keys = bytemuck::cast_slice::<u8, X>(keys).as_chunks::<TILE>().0;
        for (key, q) in keys.iter().zip(tile.q.as_chunks::<NR>().0) {
            let key = X::load(s, &key[lane..]);
            for r in 0..NR {
                sum[r] = key.fma(s.f32(q[r]), sum[r]);
            }
        }
        sum
    }

    #[inline(always)]
    fn weight(_values: &[u8], _blocks: usize, _lane: usize, _e: usize, weight: f32) -> f32 {
        weight
    }

    #[inline(always)]
    fn values<S: Simd>(s: S, values: &[u8], stride: usize, lane: usize, e: usize) -> S::F {
        X::load(s, &bytemuck::cast_slice::<u8, X>(values)[lane * stride + e..])
    }
}

/// Blocks whose codes take BYTES bytes.
#[derive(Clone, Copy)]
struct Blocks<const BYTES: usize>;

impl<const BYTES: usize> Element for Blocks<BYTES> {
    #[inline(always)]
    fn scores<S: Simd, const NR: usize>(s: S, tile: &Tile<'_>, keys: &[u8], lane: usize) -> [S::F; NR] {
        let mut sum = [s.f32(0.0); NR];
        let queries = tile.blocks.as_chunks::<WORDS>().0.as_chunks::<NR>().0.as_chunks::<1>().0;
        let (scales, codes) = keys.split_at(2 * TILE * queries.len());
        let blocks = scales.chunks_exact(2 * TILE).zip(codes.chunks_exact(TILE * BYTES));
        for ((scales, codes), q) in blocks.zip(queries) {
            let scale = row_numbers(s, scales, lane);
            if BYTES == BLOCK {
                symmetric(s, scale, (Bytes, codes), lane, q, &mut sum);
            } else {
                symmetric(s, scale, (FourBits::<3>, codes), lane, q, &mut sum);
            }
        }
        sum
    }

    #[inline(always)]
    fn weight(values: &[u8], blocks: usize, lane: usize, e: usize, weight: f32) -> f32 {
        let scales = bytemuck::cast_slice::<u8, u16>(&values[..2 * TILE * blocks]);
        weight * half::f16::from_bits(scales[lane * blocks + e / BLOCK]).to_f32()
    }

    #[inline(always)]
    fn values<S: Simd>(s: S, values: &[u8], stride: usize, lane: usize, e: usize) -> S::F {
        let blocks = stride / BLOCK;
        let codes = &values[2 * TILE * blocks + (lane * blocks + e / BLOCK) * BYTES..];
        if BYTES == BLOCK {
            return s.to_f32(s.load_i8(&codes[e % BLOCK..]));
        }
        let bytes = s.load_i8(&codes[e % BYTES..]);
        let code = if e % BLOCK < BYTES { bytes } else { s.shr::<4>(bytes) };
        s.to_f32(s.sub_i32(s.and(code, s.i32(15)), s.i32(8)))
    }
}

/// `scalar::attend`.
pub(in super::super) fn attend<S: Simd>(s: S, tile: &Tile<'_>, segment: usize, partial: &mut Partial) {
    match tile.kv.shape.kv_type {
        KvType::F16 => attend_as::<S, Floats<u16>>(s, tile, segment, partial),
        KvType::F32 => attend_as::<S, Floats<f32>>(s, tile, segment, partial),
        KvType::Q8_0 => attend_as::<S, Blocks<32>>(s, tile, segment, partial),
        KvType::Q4_0 => attend_as::<S, Blocks<16>>(s, tile, segment, partial),
    }
}

fn attend_as<S: Simd, X: Element>(s: S, tile: &Tile<'_>, segment: usize, partial: &mut Partial) {
    run_tile(s, tile.stride, Attend { tile, segment, partial, element: PhantomData::<X> });
}

/// The rows of a tile over a segment of positions.
struct Attend<'a, X> {
    tile: &'a Tile<'a>,
    segment: usize,
    partial: &'a mut Partial,
    element: PhantomData<X>,
}

impl<X: Element> TileWork for Attend<'_, X> {
    #[inline(always)]
    fn run<S: Simd, const NR: usize>(self, s: S) {
        let Attend { tile, segment, partial, .. } = self;
        let first = segment * SEGMENT;
        // Live positions of each row within the segment; a row without any has low == high.
        let mut low = [0; ROWS];
        let mut high = [0; ROWS];
        let (mut lowest, mut highest) = (SEGMENT, 0);
        for r in 0..tile.rows {
            high[r] = tile.high[r].saturating_sub(first).min(SEGMENT);
            low[r] = tile.low[r].saturating_sub(first).min(high[r]);
            partial.live[r] = low[r] < high[r];
            if partial.live[r] {
                (lowest, highest) = (lowest.min(low[r]), highest.max(high[r]));
            }
        }
        if lowest >= highest {
            return;
        }
        let mut p = [[0.0f32; SEGMENT]; NR];
        scores::<S, X, NR>(s, tile, first, lowest, highest, &mut p);
        for r in 0..tile.rows {
            if partial.live[r] {
                (partial.m[r], partial.l[r]) = softmax(s, &mut p[r], low[r], high[r]);
            }
        }
        // The positions that are live for every row go through one loop; each row's own come before and after it.
        // Padding rows do as row 0 does.
        let all_live = (0..tile.rows).all(|r| partial.live[r]);
        let (row0_low, row0_high) = (low[0], high[0]);
        low[tile.rows..].fill(row0_low);
        high[tile.rows..].fill(row0_high);
        let from = if all_live { *low[..NR].iter().max().unwrap_or(&0) } else { 0 };
        let to = if all_live { *high[..NR].iter().min().unwrap_or(&0) } else { 0 };
        let shared = from..to.max(from);
        for r in 0..tile.rows {
            if partial.live[r] {
                let o = partial.o_mut(r);
                o.fill(0.0);
                let before = low[r]..if shared.is_empty() { high[r] } else { shared.start };
                values::<S, X, 1>(s, tile, first, before, [&p[r]], [o]);
            }
        }
        if shared.is_empty() {
            return;
        }
        values::<S, X, NR>(s, tile, first, shared.clone(), p.each_ref(), partial.rows_mut());
        for r in 0..tile.rows {
            values::<S, X, 1>(s, tile, first, shared.end..high[r], [&p[r]], [partial.o_mut(r)]);
        }
    }
}

/// p[r][position] = q[r] . k[position] for whole tiles of positions around lowest..highest, capped.
#[inline(always)]
fn scores<S: Simd, X: Element, const NR: usize>(
    s: S,
    tile: &Tile<'_>,
    first: usize,
    lowest: usize,
    highest: usize,
    p: &mut [[f32; SEGMENT]; NR],
) {
    for t in lowest / TILE..highest.div_ceil(TILE) {
        let keys = tile.kv.head(tile.head, first / TILE + t).0;
        for lane in (0..TILE).step_by(S::LANES) {
            let mut sum = X::scores::<S, NR>(s, tile, keys, lane);
            for r in 0..NR {
                if let Some(cap) = tile.cap {
                    sum[r] = numeric::tanh(sum[r].div(s.f32(cap))).mul(s.f32(cap));
                }
                s.store(sum[r], &mut p[r][t * TILE + lane..]);
            }
        }
    }
}

/// Replaces the scores of low..high by exp(score - m) and those beside them in their tiles by 0; gives m and the sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, p: &mut [f32; SEGMENT], low: usize, high: usize) -> (f32, f32) {
    let tiles = low / TILE..high.div_ceil(TILE);
    let mut lanes = [0.0; 16];
    for lane in (0..TILE).step_by(S::LANES) {
        let mut m = s.f32(f32::NEG_INFINITY);
        for t in tiles.clone() {
            let at = t * TILE + lane;
            let (from, to) = live(low, high, at, S::LANES);
            m = s.select(from, to, m.max(s.load(&p[at..])), m);
        }
        s.store(m, &mut lanes[lane..]);
    }
    let m = tree_max(lanes);
    for lane in (0..TILE).step_by(S::LANES) {
        let mut sum = s.f32(0.0);
        for t in tiles.clone() {
            let at = t * TILE + lane;
            let (from, to) = live(low, high, at, S::LANES);
            let e = numeric::exp(s.load(&p[at..]).sub(s.f32(m)));
            let e = s.select(from, to, e, s.f32(0.0));
            s.store(e, &mut p[at..]);
            sum = sum.add(e);
        }
        s.store(sum, &mut lanes[lane..]);
    }
    (m, tree_sum(lanes))
}

/// The lanes of the vector at `at` that lie in low..high.
#[inline(always)]
fn live(low: usize, high: usize, at: usize, lanes: usize) -> (usize, usize) {
    let to = high.saturating_sub(at).min(lanes);
    (low.saturating_sub(at).min(to), to)
}

/// o[r][e] = fma(p[r][position], v[position][e], o[r][e]) for the positions of `range`, ascending.
#[inline(always)]
fn values<S: Simd, X: Element, const NR: usize>(
    s: S,
    tile: &Tile<'_>,
    first: usize,
    range: std::ops::Range<usize>,
    p: [&[f32; SEGMENT]; NR],
    mut o: [&mut [f32]; NR],
) {
    if range.is_empty() {
        return;
    }
    let stride = o[0].len();
    let wide = if S::LANES == 16 { 2 * S::LANES } else { S::LANES };
    let mut e = 0;
    while e < stride {
        if e + wide <= stride && wide > S::LANES {
            values_at::<S, X, NR, 2>(s, tile, first, range.clone(), &p, &mut o, e);
            e += wide;
        } else {
            values_at::<S, X, NR, 1>(s, tile, first, range.clone(), &p, &mut o, e);
            e += S::LANES;
        }
    }
}

/// `values` for NV vectors of elements from e on.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // one loop, split off so that its accumulators stay in registers
fn values_at<S: Simd, X: Element, const NR: usize, const NV: usize>(
    s: S,
    tile: &Tile<'_>,
    first: usize,
    range: std::ops::Range<usize>,
    p: &[&[f32; SEGMENT]; NR],
    o: &mut [&mut [f32]; NR],
    e: usize,
) {
    let stride = o[0].len();
    let mut sum = [[s.f32(0.0); NV]; NR];
    for r in 0..NR {
        for v in 0..NV {
            sum[r][v] = s.load(&o[r][e + v * S::LANES..]);
        }
    }
    let mut position = range.start;
    while position < range.end {
        let t = position / TILE;
        let end = range.end.min((t + 1) * TILE);
        let values = tile.kv.head(tile.head, first / TILE + t).1;
        for position in position..end {
            let lane = position % TILE;
            let mut value = [s.f32(0.0); NV];
            for v in 0..NV {
                value[v] = X::values(s, values, stride, lane, e + v * S::LANES);
            }
            for r in 0..NR {
                // All NV vectors lie in one block.
                let weight = s.f32(X::weight(values, stride / BLOCK, lane, e, p[r][position]));
                for v in 0..NV {
                    sum[r][v] = weight.fma(value[v], sum[r][v]);
                }
            }
        }
        position = end;
    }
    for r in 0..NR {
        for v in 0..NV {
            s.store(sum[r][v], &mut o[r][e + v * S::LANES..]);
        }
    }
}

/// `scalar::merge`.
#[inline(always)]
pub(in super::super) fn merge<S: Simd>(s: S, into: &mut Partial, from: &Partial) {
    for r in 0..into.rows() {
        let Some((a, b)) = into.weights(from, r) else { continue };
        let (a, b) = (s.f32(a), s.f32(b));
        for (o, add) in into.o_mut(r).chunks_exact_mut(S::LANES).zip(from.o(r).chunks_exact(S::LANES)) {
            s.store(s.load(o).fma(a, s.load(add).mul(b)), o);
        }
    }
}
