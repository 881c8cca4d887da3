//! The op `attention`.
//!
//! Positions are cut into segments of 256, counted from position 0, whatever the call; each segment of a row gives a
//! partial result and a row's partials are merged in ascending order. So a short call can share the segments out among
//! the threads and a long one need not, with the same bits.

use super::act::{Act, WIDTHS};
use super::kv::{KvShape, KvView, TILE, append};
use super::{Buffer, Device};
use crate::device::Attention;
use crate::error::{Result, try_vec};

/// Positions of a segment.
pub(super) const SEGMENT: usize = 256;
/// Rows (a query of a head each) that a kernel takes together.
pub(super) const ROWS: usize = WIDTHS[0];

/// What a kernel works on: rows whose heads share a key/value head.
pub(super) struct Tile<'a> {
    pub kv: KvView<'a>,
    /// The key/value head.
    pub head: usize,
    /// Rows in use.
    pub rows: usize,
    /// Scaled queries, `[e][stride]`; rows beyond `rows` are zero.
    pub q: &'a [f32],
    /// The tile width that kernels compute with: the smallest that holds `rows`.
    pub stride: usize,
    /// Live positions of each row: low..high.
    pub low: [usize; ROWS],
    pub high: [usize; ROWS],
    /// Scores become cap * tanh(score / cap).
    pub cap: Option<f32>,
}

/// The running softmax of up to [`ROWS`] rows over some segments.
#[derive(Debug)]
pub(super) struct Partial {
    /// False until a row met a live position.
    pub live: [bool; ROWS],
    /// The largest score.
    pub m: [f32; ROWS],
    /// The sum of exp(score - m).
    pub l: [f32; ROWS],
    rows: usize,
    stride: usize,
    /// (padded rows, stride): the sums of exp(score - m) * value.
    o: Vec<f32>,
}

/// The smallest tile width that holds `rows`.
fn padded(rows: usize) -> usize {
    WIDTHS.into_iter().rev().find(|&w| w >= rows).unwrap_or(ROWS)
}

impl Partial {
    /// Nothing yet, for rows of `stride` elements.
    pub(super) fn new(rows: usize, stride: usize) -> Result<Self> {
        let (live, m, l) = ([false; ROWS], [0.0; ROWS], [0.0; ROWS]);
        let o = try_vec(padded(rows).saturating_mul(stride), 0.0, "attention")?;
        Ok(Partial { live, m, l, rows, stride, o })
    }

    /// The o of NR rows, padding included.
    pub(super) fn rows_mut<const NR: usize>(&mut self) -> [&mut [f32]; NR] {
        let mut rows = self.o.chunks_exact_mut(self.stride);
        std::array::from_fn(|_| rows.next().unwrap_or_default())
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn o(&self, r: usize) -> &[f32] {
        &self.o[r * self.stride..(r + 1) * self.stride]
    }

    pub(super) fn o_mut(&mut self, r: usize) -> &mut [f32] {
        &mut self.o[r * self.stride..(r + 1) * self.stride]
    }

    /// What row r's o is multiplied by in the end: 1 / l. With a sink, M' = max(m, sink), a = exp(m - M'):
    /// a / fma(l, a, exp(sink - M')).
    fn factor(&self, r: usize, sink: Option<f32>) -> f32 {
        use crate::numeric::{Real, exp, fma};
        let Some(sink) = sink else { return 1.0 / self.l[r] };
        let m = Real::max(self.m[r], sink);
        let a = exp(self.m[r] - m);
        a / fma(self.l[r], a, exp(sink - m))
    }

    /// Merges row r's m and l with those of `from`, and gives the factors for both o. `None` if there is nothing to
    /// merge: `from` has no live position, or is the first that has.
    #[inline(always)]
    pub(super) fn weights(&mut self, from: &Partial, r: usize) -> Option<(f32, f32)> {
        use crate::numeric::{Real, exp, fma};
        if !from.live[r] {
            return None;
        }
        if !self.live[r] {
            (self.live[r], self.m[r], self.l[r]) = (true, from.m[r], from.l[r]);
            self.o_mut(r).copy_from_slice(from.o(r));
            return None;
        }
        let m = Real::max(self.m[r], from.m[r]);
        let (a, b) = (exp(self.m[r] - m), exp(from.m[r] - m));
        self.m[r] = m;
        self.l[r] = fma(self.l[r], a, from.l[r] * b);
        Some((a, b))
    }
}

/// A chunk of the stage: some rows over some segments.
struct Unit {
    head: usize,
    first_row: usize,
    segments: std::ops::Range<usize>,
    partial: Partial,
}

impl Device {
    /// Stores k and v, (T, K * E), as positions `position`.. of a layer.
    pub(crate) fn kv_append(&self, shape: KvShape, layer: &mut [u8], position: usize, k: &Buffer, v: &Buffer) {
        let (k_row, v_row) = (shape.heads * shape.width, shape.heads * shape.value_width);
        let mut parts = Vec::new();
        let mut t = 0;
        for (i, tile) in layer.chunks_exact_mut(shape.tile_bytes()).enumerate().skip(position / TILE) {
            if t == k.rows() {
                break;
            }
            let lane = position + t - i * TILE;
            let count = (TILE - lane).min(k.rows() - t);
            parts.push((tile, lane, t..t + count));
            t += count;
        }
        debug_assert_eq!(t, k.rows(), "the cache has room");
        self.threads.each(parts, |(tile, lane, own)| {
            let (k, v) = (&k.data()[own.start * k_row..own.end * k_row], &v.data()[own.start * v_row..own.end * v_row]);
            append(shape, tile, lane, k, v);
        });
    }

    /// out = softmax(q k^T * scale) v for the queries at positions `start`.., each over the positions up to its own
    /// within the window. q is (T, H * E), out (T, H * E), with the E of keys and of values.
    pub(crate) fn attention(
        &self,
        q: &Buffer,
        kv: KvView<'_>,
        op: &Attention<'_>,
        start: usize,
        out: &mut Act,
    ) -> Result<()> {
        let (t, e, group) = (q.rows(), kv.width, op.heads / kv.shape.heads);
        let rows = t * group;
        let tiles = rows.div_ceil(ROWS);
        let low = |position: usize| op.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let high = |position: usize| if op.causal { position + 1 } else { start + t };
        let segments = |first_row: usize| {
            let last_row = rows.min(first_row + ROWS) - 1;
            let (first, last) = (start + first_row / group, start + last_row / group);
            low(first) / SEGMENT..(high(last) - 1) / SEGMENT + 1
        };
        // Few rows: a unit a segment, so that every thread has some; else a unit a tile.
        let split = kv.shape.heads * tiles < 4 * self.threads.count();
        let mut units = Vec::new();
        for head in 0..kv.shape.heads {
            for tile in 0..tiles {
                let first_row = tile * ROWS;
                let mut unit = |segments| -> Result<()> {
                    let partial = Partial::new(ROWS.min(rows - first_row), kv.shape.value_stride())?;
                    units.push(Unit { head, first_row, segments, partial });
                    Ok(())
                };
                if split {
                    segments(first_row).try_for_each(|segment| unit(segment..segment + 1))?;
                } else {
                    unit(segments(first_row))?;
                }
            }
        }
        self.threads.try_each(&mut units, |unit| {
            let n = unit.partial.rows();
            let stride = padded(n);
            let (mut live_low, mut live_high) = ([0; ROWS], [0; ROWS]);
            let mut scaled = try_vec(e * stride, 0.0, "attention")?;
            for r in 0..n {
                let (token, head) = ((unit.first_row + r) / group, unit.head * group + (unit.first_row + r) % group);
                let query = &q.row(token)[head * e..(head + 1) * e];
                for (out, x) in scaled[r..].iter_mut().step_by(stride).zip(query) {
                    *out = x * op.scale;
                }
                (live_low[r], live_high[r]) = (low(start + token), high(start + token));
            }
            let (head, q, cap) = (unit.head, &scaled[..], op.cap);
            let tile = Tile { kv, head, rows: n, q, stride, low: live_low, high: live_high, cap };
            let mut next = Partial::new(n, kv.shape.value_stride())?;
            for segment in unit.segments.clone() {
                (self.kernels.attend)(&tile, segment, &mut next);
                (self.kernels.merge)(&mut unit.partial, &next);
            }
            Ok(())
        })?;
        let mut whole: Vec<Unit> = Vec::with_capacity(kv.shape.heads * tiles);
        for unit in units {
            match whole.last_mut() {
                Some(last) if (last.head, last.first_row) == (unit.head, unit.first_row) => {
                    (self.kernels.merge)(&mut last.partial, &unit.partial);
                }
                _ => whole.push(unit),
            }
        }
        let e = kv.shape.value_width;
        out.reset(t, op.heads * e, op.precision, self.kernels.widest)?;
        self.each_tile(out, |tile| {
            let width = tile.values.len() / tile.width;
            for (token, row) in (tile.start..).zip(tile.values.chunks_exact_mut(width)) {
                for (head, out) in row.chunks_exact_mut(e).enumerate() {
                    let index = token * group + head % group;
                    let partial = &whole[head / group * tiles + index / ROWS].partial;
                    let factor = partial.factor(index % ROWS, op.sinks.map(|sinks| sinks[head]));
                    for (out, o) in out.iter_mut().zip(partial.o(index % ROWS)) {
                        *out = o * factor;
                    }
                }
            }
            (self.kernels.quantise)(tile);
        });
        Ok(())
    }
}
