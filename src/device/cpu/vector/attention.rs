//! Attention: lanes are positions for the scores, and head elements for the sum of values.

use std::array::from_ref;
use std::marker::PhantomData;
use std::ops::Range;

use super::super::act::WORDS;
use super::super::attention::{LANES, Partial, ROWS, SEGMENT, Tile};
use super::super::kv::{BLOCK, KvType, TILE};
use super::super::lines::Aligned;
use super::super::scalar::{tree_max, tree_sum};
use super::super::simd::{Simd, TileWork, run_tile};
use super::codes::{Bytes, FourBits};
use super::linear::{Block, Products, Sums, row_numbers};
use crate::numeric::{self, Real};

/// Tiles of a segment.
const TILES: usize = SEGMENT / TILE;

/// Keys and values of a tile.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    keys: &'a [u8],
    values: &'a [u8],
}

/// A number type of cached keys and values.
trait Element: Copy {
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

/// A vector of positions: those from `lane` on of a tile, and the tile to ask for meanwhile.
#[derive(Clone, Copy, Default)]
struct Keys<'a> {
    tile: &'a [u8],
    next: &'a [u8],
    lane: usize,
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
#[derive(Clone, Copy)]
struct Blocks<const BYTES: usize>;

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
fn asks_ahead<S: Simd>(queries: usize) -> bool {
    queries < 8 || S::LANES != 8
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
        let mut places = [Place::default(); TILES];
        for t in lowest / TILE..highest.div_ceil(TILE) {
            let (keys, values) = tile.kv.head(tile.head, first / TILE + t);
            places[t] = Place { keys, values };
        }
        let places = &places;
        let mut p = Aligned([[0.0f32; SEGMENT]; NR]);
        let p = &mut p.0;
        scores::<S, X, NR>(s, tile, places, lowest..highest, p);
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
                values::<S, X, 1>(s, places, before, from_ref(&p[r]), [o]);
            }
        }
        if shared.is_empty() {
            return;
        }
        values::<S, X, NR>(s, places, shared.clone(), p, partial.rows_mut());
        for r in 0..tile.rows {
            values::<S, X, 1>(s, places, shared.end..high[r], from_ref(&p[r]), [partial.o_mut(r)]);
        }
    }
}

/// p[r][position] = q[r] . k[position] for whole tiles of positions around `range`, capped.
#[inline(always)]
fn scores<S: Simd, X: Element, const NR: usize>(
    s: S,
    tile: &Tile<'_>,
    places: &[Place<'_>; TILES],
    range: Range<usize>,
    p: &mut [[f32; SEGMENT]; NR],
) {
    let tiles = range.start / TILE..range.end.div_ceil(TILE);
    // So many sums at a time that they hide the latency of an addition, but no more than there are registers for: vectors
    // of several tiles where there are few queries, some of the queries where there are many.
    let rest = match (S::LANES, NR) {
        (_, 1) => scores_of::<S, X, NR, NR, 8>(s, tile, places, tiles, p),
        (8 | 16, 2) => scores_of::<S, X, NR, NR, 4>(s, tile, places, tiles, p),
        (16, 4) => scores_of::<S, X, NR, NR, 2>(s, tile, places, tiles, p),
        _ => tiles,
    };
    match (S::LANES, NR) {
        (16, _) => scores_of::<S, X, NR, NR, 1>(s, tile, places, rest, p),
        (8, 12) => scores_of::<S, X, NR, 6, 2>(s, tile, places, rest, p),
        (8, 8) => scores_of::<S, X, NR, 4, 2>(s, tile, places, rest, p),
        (4, ..=4) => scores_of::<S, X, NR, NR, 4>(s, tile, places, rest, p),
        _ => scores_of::<S, X, NR, NR, 2>(s, tile, places, rest, p),
    };
}

/// `scores` by NV vectors of positions and NG queries at a time; gives the tiles that are too few.
#[inline(always)]
fn scores_of<S: Simd, X: Element, const NR: usize, const NG: usize, const NV: usize>(
    s: S,
    tile: &Tile<'_>,
    places: &[Place<'_>; TILES],
    mut tiles: Range<usize>,
    p: &mut [[f32; SEGMENT]; NR],
) -> Range<usize> {
    let a_tile = TILE / S::LANES;
    let step = NV.div_ceil(a_tile);
    while tiles.len() >= step {
        for start in (0..a_tile).step_by(NV) {
            let mut keys = [Keys::default(); NV];
            for v in 0..NV {
                let own = tiles.start + (start + v) / a_tile;
                // What comes next, or at the end something that is there.
                let next = if own + step < tiles.end { own + step } else { own };
                let lane = (start + v) % a_tile * S::LANES;
                keys[v] = Keys { tile: places[own].keys, next: places[next].keys, lane };
            }
            for group in 0..NR / NG {
                let mut sums = X::scores::<S, NR, NG, NV>(s, tile, group, &keys);
                for v in 0..NV {
                    let own = tiles.start + (start + v) / a_tile;
                    for r in 0..NG {
                        if let Some(cap) = tile.cap {
                            sums[v][r] = numeric::tanh(sums[v][r].div(s.f32(cap))).mul(s.f32(cap));
                        }
                        s.store(sums[v][r], &mut p[group * NG + r][own * TILE + keys[v].lane..]);
                    }
                }
            }
        }
        tiles.start += step;
    }
    tiles
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
            m = where_live(s, low..high, at, m.max(s.load(&p[at..])), m);
        }
        s.store(m, &mut lanes[lane..]);
    }
    let m = tree_max(lanes);
    for lane in (0..TILE).step_by(S::LANES) {
        let mut sum = s.f32(0.0);
        for t in tiles.clone() {
            let at = t * TILE + lane;
            let e = numeric::exp(s.load(&p[at..]).sub(s.f32(m)));
            let e = where_live(s, low..high, at, e, s.f32(0.0));
            s.store(e, &mut p[at..]);
            sum = sum.add(e);
        }
        s.store(sum, &mut lanes[lane..]);
    }
    (m, tree_sum(lanes))
}

/// `inside` where a vector's positions, from `at` on, are live, `outside` elsewhere.
#[inline(always)]
fn where_live<S: Simd>(s: S, live: Range<usize>, at: usize, inside: S::F, outside: S::F) -> S::F {
    // Most vectors are live as a whole.
    if live.start <= at && at + S::LANES <= live.end {
        return inside;
    }
    let to = live.end.saturating_sub(at).min(S::LANES);
    s.select(live.start.saturating_sub(at).min(to), to, inside, outside)
}

/// o[r][e] = fma(p[r][position], v[position][e], o[r][e]) for the positions of `range`, ascending.
#[inline(always)]
fn values<S: Simd, X: Element, const NR: usize>(
    s: S,
    places: &[Place<'_>; TILES],
    range: Range<usize>,
    p: &[[f32; SEGMENT]; NR],
    mut o: [&mut [f32]; NR],
) {
    if range.is_empty() {
        return;
    }
    let stride = o[0].len();
    let mut e = 0;
    while e < stride {
        let vectors = (stride - e) / S::LANES;
        // As many vectors as there are registers for, of some of the rows where these are many; those of a block's elements
        // alone where it has a scale.
        let four = vectors >= 4 && if S::REGISTERS == 32 { NR <= 4 && !X::SCALED } else { NR <= 2 };
        e += S::LANES
            * match (four, vectors >= 2, S::REGISTERS, NR) {
                (true, ..) => values_at::<S, X, NR, NR, 4>(s, places, &range, p, &mut o, e),
                (_, true, 16, 12) => values_at::<S, X, NR, 6, 2>(s, places, &range, p, &mut o, e),
                (_, true, 16, 8) => values_at::<S, X, NR, 4, 2>(s, places, &range, p, &mut o, e),
                (_, true, ..) => values_at::<S, X, NR, NR, 2>(s, places, &range, p, &mut o, e),
                _ => values_at::<S, X, NR, NR, 1>(s, places, &range, p, &mut o, e),
            };
    }
}

/// `values` for NV vectors of elements from e on, NG rows at a time; gives NV.
#[inline(always)]
fn values_at<S: Simd, X: Element, const NR: usize, const NG: usize, const NV: usize>(
    s: S,
    places: &[Place<'_>; TILES],
    range: &Range<usize>,
    p: &[[f32; SEGMENT]; NR],
    o: &mut [&mut [f32]; NR],
    e: usize,
) -> usize {
    let stride = o[0].len();
    for (group, p) in p.as_chunks::<NG>().0.iter().enumerate() {
        let mut sum = [[s.f32(0.0); NV]; NG];
        for r in 0..NG {
            for v in 0..NV {
                sum[r][v] = s.load(&o[group * NG + r][e + v * S::LANES..]);
            }
        }
        for t in range.start / TILE..range.end.div_ceil(TILE) {
            let values = places[t].values;
            let next = if (t + 1) * TILE < range.end { places[t + 1].values } else { values };
            let scales = X::scales(s, values, stride, e);
            let ((rows, units), (next, _)) = (X::rows(values, stride), X::rows(next, stride));
            let mut weights = [&[0.0; TILE]; NG];
            for r in 0..NG {
                weights[r] = &p[r].as_chunks::<TILE>().0[t];
            }
            let own = range.start.saturating_sub(t * TILE)..(range.end - t * TILE).min(TILE);
            let mut rest = &rows[own.start * units..];
            for lane in own {
                let (row, others) = rest.split_at(units);
                rest = others;
                if group == 0 && asks_ahead::<S>(NR) {
                    for v in 0..NV {
                        s.prefetch(next.as_ptr().wrapping_add(lane * units + X::place(e + v * S::LANES)).cast());
                    }
                }
                let mut value = [s.f32(0.0); NV];
                for v in 0..NV {
                    value[v] = X::values(s, row, e + v * S::LANES);
                }
                for r in 0..NG {
                    let p = weights[r][lane];
                    let weight = s.f32(if X::SCALED { p * scales[lane] } else { p });
                    for v in 0..NV {
                        sum[r][v] = weight.fma(value[v], sum[r][v]);
                    }
                }
            }
        }
        for r in 0..NG {
            for v in 0..NV {
                s.store(sum[r][v], &mut o[group * NG + r][e + v * S::LANES..]);
            }
        }
    }
    NV
}

/// `scalar::merge`.
#[inline(always)]
pub(in super::super) fn merge<S: Simd>(s: S, into: &mut Partial, from: &Partial) {
    // The factors of all rows at once; those of rows that are not merged are not used.
    let [mut m, mut l, mut a, mut b] = [[0.0; LANES]; 4];
    for lane in (0..LANES).step_by(S::LANES) {
        let (first, second) = (s.load(&into.m[lane..]), s.load(&from.m[lane..]));
        let both = first.max(second);
        let (first, second) = (numeric::exp(first.sub(both)), numeric::exp(second.sub(both)));
        let sum = s.load(&into.l[lane..]).fma(first, s.load(&from.l[lane..]).mul(second));
        s.store(both, &mut m[lane..]);
        s.store(sum, &mut l[lane..]);
        s.store(first, &mut a[lane..]);
        s.store(second, &mut b[lane..]);
    }
    for r in 0..into.rows() {
        if !into.joins(from, r) {
            continue;
        }
        (into.m[r], into.l[r]) = (m[r], l[r]);
        let (a, b) = (s.f32(a[r]), s.f32(b[r]));
        for (o, add) in into.o_mut(r).chunks_exact_mut(S::LANES).zip(from.o(r).chunks_exact(S::LANES)) {
            s.store(s.load(o).fma(a, s.load(add).mul(b)), o);
        }
    }
}
