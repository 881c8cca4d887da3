//! Attention: lanes are positions for the scores, and head elements for the sum of values.

use std::array::from_ref;
use std::marker::PhantomData;
use std::ops::Range;

use super::super::attention::{LANES, Partial, ROWS, SEGMENT, Tile};
use super::super::kv::{KvType, TILE};
use super::super::lines::Aligned;
use super::super::scalar::{tree_max, tree_sum};
use super::super::simd::{Simd, TileWork, run_tile};
use super::cached::{Element, F16, F32, Keys, Q4_0, Q8_0, asks_ahead, bring, brings_ahead};
use super::rows::softcap;
use crate::numeric::{self, Real};

/// Tiles of a segment.
const TILES: usize = SEGMENT / TILE;

/// Keys and values of a tile.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    keys: &'a [u8],
    values: &'a [u8],
}

/// `scalar::attend`. Scores, softmax and values are functions of their own: together, for all types of the cache and numbers of
/// rows, they would be a tenth of the library.
pub(in super::super) fn attend<S: Simd>(s: S, tile: &Tile<'_>, segment: usize, partial: &mut Partial) {
    run_tile(s, tile.stride, Attend { tile, segment, partial });
}

/// The rows of a tile over a segment of positions.
struct Attend<'a> {
    tile: &'a Tile<'a>,
    segment: usize,
    partial: &'a mut Partial,
}

impl TileWork for Attend<'_> {
    #[inline(always)]
    fn run<S: Simd, const NR: usize>(self, s: S) {
        let Attend { tile, segment, partial } = self;
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
        scores::<S, NR>(s, tile, places, lowest..highest, p);
        for r in 0..tile.rows {
            if partial.live[r] {
                let (p, m, l) = (&mut p[r], &mut partial.m[r], &mut partial.l[r]);
                s.base().run_tile::<_, 1>(Softmax { p, low: low[r], high: high[r], cap: tile.cap, m, l });
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
                partial.o_mut(r).fill(0.0);
                let before = low[r]..if shared.is_empty() { high[r] } else { shared.start };
                values::<S, 1>(s, tile, places, before, from_ref(&p[r]), (partial, r));
            }
        }
        if shared.is_empty() {
            return;
        }
        values::<S, NR>(s, tile, places, shared.clone(), p, (partial, 0));
        for r in 0..tile.rows {
            values::<S, 1>(s, tile, places, shared.end..high[r], from_ref(&p[r]), (partial, r));
        }
    }
}

/// p[r][position] = q[r] . k[position] for whole tiles of positions around `range`.
#[inline(always)]
fn scores<S: Simd, const NR: usize>(
    s: S,
    tile: &Tile<'_>,
    places: &[Place<'_>; TILES],
    range: Range<usize>,
    p: &mut [[f32; SEGMENT]; NR],
) {
    let tiles = range.start / TILE..range.end.div_ceil(TILE);
    match tile.kv.shape.kv_type {
        KvType::F16 => s.base().run_tile::<_, NR>(Scores { tile, places, tiles, p, element: F16 }),
        KvType::F32 => s.base().run_tile::<_, NR>(Scores { tile, places, tiles, p, element: F32 }),
        KvType::Q8_0 => s.run_tile::<_, NR>(Scores { tile, places, tiles, p, element: Q8_0 }),
        KvType::Q4_0 => s.run_tile::<_, NR>(Scores { tile, places, tiles, p, element: Q4_0 }),
    }
}

/// Work of `scores`.
struct Scores<'a, X> {
    tile: &'a Tile<'a>,
    places: &'a [Place<'a>; TILES],
    tiles: Range<usize>,
    /// Of as many rows as the work is for.
    p: &'a mut [[f32; SEGMENT]],
    element: PhantomData<X>,
}

impl<X: Element> TileWork for Scores<'_, X> {
    #[inline(always)]
    fn run<S: Simd, const NR: usize>(self, s: S) {
        let Scores { tile, places, tiles, p, .. } = self;
        let [p] = p.as_chunks_mut::<NR>().0 else { unreachable!("{NR} rows") };
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
}

/// [`Scores`] by NV vectors of positions and NG queries at a time; gives the tiles that are too few.
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
    // A number: with a condition the compiler would write the loop twice.
    let brought = if brings_ahead(s, NR) { tiles.end } else { 0 };
    while tiles.len() >= step {
        for place in places[..brought].iter().skip(tiles.start + 2 * step).take(step) {
            bring(s, place.keys);
            bring(s, place.values);
        }
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
                let sums = X::scores::<S, NR, NG, NV>(s, tile, group, &keys);
                for v in 0..NV {
                    let own = tiles.start + (start + v) / a_tile;
                    for r in 0..NG {
                        s.store(sums[v][r], &mut p[group * NG + r][own * TILE + keys[v].lane..]);
                    }
                }
            }
        }
        tiles.start += step;
    }
    tiles
}

/// Caps the scores of a row, and replaces those of low..high by exp(score - m), those beside them in their tiles by 0; m is
/// the largest, l their sum.
struct Softmax<'a> {
    p: &'a mut [f32; SEGMENT],
    low: usize,
    high: usize,
    cap: Option<f32>,
    m: &'a mut f32,
    l: &'a mut f32,
}

impl TileWork for Softmax<'_> {
    #[inline(always)]
    fn run<S: Simd, const ONE: usize>(self, s: S) {
        let Softmax { p, low, high, cap, m, l } = self;
        let tiles = low / TILE..high.div_ceil(TILE);
        if let Some(cap) = cap {
            softcap(s, cap, &mut p[tiles.start * TILE..tiles.end * TILE]);
        }
        let mut lanes = [0.0; 16];
        for lane in (0..TILE).step_by(S::LANES) {
            let mut largest = s.f32(f32::NEG_INFINITY);
            for t in tiles.clone() {
                let at = t * TILE + lane;
                largest = where_live(s, low..high, at, largest.max(s.load(&p[at..])), largest);
            }
            s.store(largest, &mut lanes[lane..]);
        }
        *m = tree_max(lanes);
        for lane in (0..TILE).step_by(S::LANES) {
            let mut sum = s.f32(0.0);
            for t in tiles.clone() {
                let at = t * TILE + lane;
                let e = numeric::exp(s.load(&p[at..]).sub(s.f32(*m)));
                let e = where_live(s, low..high, at, e, s.f32(0.0));
                s.store(e, &mut p[at..]);
                sum = sum.add(e);
            }
            s.store(sum, &mut lanes[lane..]);
        }
        *l = tree_sum(lanes);
    }
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

/// o[r][e] = fma(p[r][position], v[position][e], o[r][e]) for the positions of `range`, ascending, and the rows from one on of a
/// partial result.
#[inline(always)]
fn values<S: Simd, const NR: usize>(
    s: S,
    tile: &Tile<'_>,
    places: &[Place<'_>; TILES],
    range: Range<usize>,
    p: &[[f32; SEGMENT]; NR],
    (partial, first): (&mut Partial, usize),
) {
    if range.is_empty() {
        return;
    }
    let s = s.base();
    match tile.kv.shape.kv_type {
        KvType::F16 => s.run_tile::<_, NR>(Values { places, range, p, partial, first, element: F16 }),
        KvType::F32 => s.run_tile::<_, NR>(Values { places, range, p, partial, first, element: F32 }),
        KvType::Q8_0 => s.run_tile::<_, NR>(Values { places, range, p, partial, first, element: Q8_0 }),
        KvType::Q4_0 => s.run_tile::<_, NR>(Values { places, range, p, partial, first, element: Q4_0 }),
    }
}

/// Work of `values`.
struct Values<'a, X> {
    places: &'a [Place<'a>; TILES],
    range: Range<usize>,
    /// Of as many rows as the work is for.
    p: &'a [[f32; SEGMENT]],
    partial: &'a mut Partial,
    first: usize,
    element: PhantomData<X>,
}

impl<X: Element> TileWork for Values<'_, X> {
    #[inline(always)]
    fn run<S: Simd, const NR: usize>(self, s: S) {
        let Values { places, range, p, partial, first, .. } = self;
        let [p] = p.as_chunks::<NR>().0 else { unreachable!("{NR} rows") };
        let mut o = partial.rows_mut::<NR>(first);
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
}

/// [`Values`] for NV vectors of elements from e on, NG rows at a time; gives NV.
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
            let ((rows, units), (next, _)) = (X::rows(values, stride), X::rows(next, stride));
            let mut weights = [&[0.0; TILE]; NG];
            for r in 0..NG {
                weights[r] = &p[r].as_chunks::<TILE>().0[t];
            }
            let mut scaled = Aligned([[0.0; TILE]; NG]);
            if X::SCALED {
                let scales = X::scales(s, values, stride, e);
                for r in 0..NG {
                    for lane in (0..TILE).step_by(S::LANES) {
                        s.store(s.load(&weights[r][lane..]).mul(s.load(&scales[lane..])), &mut scaled.0[r][lane..]);
                    }
                }
                weights = scaled.0.each_ref();
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
                    let weight = s.f32(weights[r][lane]);
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
