//! Attention: lanes are positions for the scores, and head elements for the sum of values.

use super::super::attention::{Partial, ROWS, SEGMENT, Tile};
use super::super::kv::{Elements, TILE};
use super::super::scalar::{tree_max, tree_sum};
use super::super::simd::Simd;
use crate::numeric::{self, Real};

/// A number type of cached keys and values.
trait Element: Copy {
    fn load<S: Simd>(s: S, x: &[Self]) -> S::F;
}

impl Element for u16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[u16]) -> S::F {
        s.load_f16(x)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32]) -> S::F {
        s.load(x)
    }
}

/// `scalar::attend`.
#[inline(always)]
pub(in super::super) fn attend<S: Simd>(s: S, tile: &Tile<'_>, segment: usize, partial: &mut Partial) {
    match tile.kv.elements {
        Elements::F16(x) => attend_as(s, tile, x, segment, partial),
        Elements::F32(x) => attend_as(s, tile, x, segment, partial),
    }
}

#[inline(always)]
fn attend_as<S: Simd, X: Element>(s: S, tile: &Tile<'_>, kv: &[X], segment: usize, partial: &mut Partial) {
    match tile.stride {
        12 => attend_rows::<S, X, 12>(s, tile, kv, segment, partial),
        8 => attend_rows::<S, X, 8>(s, tile, kv, segment, partial),
        4 => attend_rows::<S, X, 4>(s, tile, kv, segment, partial),
        2 => attend_rows::<S, X, 2>(s, tile, kv, segment, partial),
        _ => attend_rows::<S, X, 1>(s, tile, kv, segment, partial),
    }
}

#[inline(always)]
fn attend_rows<S: Simd, X: Element, const NR: usize>(
    s: S,
    tile: &Tile<'_>,
    kv: &[X],
    segment: usize,
    partial: &mut Partial,
) {
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
    scores(s, tile, kv, first, lowest, highest, &mut p);
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
            values::<S, X, 1>(s, tile, kv, first, before, [&p[r]], [o]);
        }
    }
    if shared.is_empty() {
        return;
    }
    values::<S, X, NR>(s, tile, kv, first, shared.clone(), p.each_ref(), partial.rows_mut());
    for r in 0..tile.rows {
        values::<S, X, 1>(s, tile, kv, first, shared.end..high[r], [&p[r]], [partial.o_mut(r)]);
    }
}

/// p[r][position] = q[r] . k[position] for whole tiles of positions around lowest..highest, capped.
#[inline(always)]
fn scores<S: Simd, X: Element, const NR: usize>(
    s: S,
    tile: &Tile<'_>,
    kv: &[X],
    first: usize,
    lowest: usize,
    highest: usize,
    p: &mut [[f32; SEGMENT]; NR],
) {
    let queries = tile.q.as_chunks::<NR>().0;
    for t in lowest / TILE..highest.div_ceil(TILE) {
        let start = tile.kv.key_tile(tile.head, first / TILE + t);
        let (keys, _) = kv[start..start + TILE * tile.kv.width].as_chunks::<TILE>();
        for lane in (0..TILE).step_by(S::LANES) {
            let mut sum = [s.f32(0.0); NR];
            for (key, q) in keys.iter().zip(queries) {
                let key = X::load(s, &key[lane..]);
                for r in 0..NR {
                    sum[r] = key.fma(s.f32(q[r]), sum[r]);
                }
            }
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
    kv: &[X],
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
            values_at::<S, X, NR, 2>(s, tile, kv, first, range.clone(), &p, &mut o, e);
            e += wide;
        } else {
            values_at::<S, X, NR, 1>(s, tile, kv, first, range.clone(), &p, &mut o, e);
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
    kv: &[X],
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
        let start = tile.kv.value_tile(tile.head, first / TILE + t) + e;
        let rows = &kv[start..start + TILE * stride - e];
        for position in position..end {
            let row = &rows[position % TILE * stride..];
            let mut value = [s.f32(0.0); NV];
            for v in 0..NV {
                value[v] = X::load(s, &row[v * S::LANES..]);
            }
            for r in 0..NR {
                let weight = s.f32(p[r][position]);
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
