//! The op `attention`.
//!
//! Positions are cut into segments of 256, counted from position 0, whatever the call; each segment of a row gives a
//! partial result and a row's partials are merged in ascending order. So a short call can share the segments out among
//! the threads and a long one need not, with the same bits.

use std::ops::Range;

use super::act::{Act, Plain, WIDTHS, WORDS};
use super::kernels::Kernels;
use super::kv::{BLOCK, KvTarget, KvView, Store, append};
use super::lines::Lines;
use super::simd::words::{gather, transposed};
use super::{Buffer, Device};
use crate::device::Attention;
use crate::error::{Result, try_collect, try_push};

/// Positions of a segment.
pub(super) const SEGMENT: usize = 256;
/// Rows (a query of a head each) that a kernel takes together.
pub(super) const ROWS: usize = WIDTHS[0];

/// Units for each thread that are computed before they are merged. Tests have short texts.
const WAVE: usize = if cfg!(test) { 1 } else { 32 };

/// Units at most that are computed side by side, a segment of keys and values after the other.
const TOGETHER: usize = 4;

/// Whole vectors of rows.
pub(super) const LANES: usize = 16;

/// What a kernel works on: rows whose heads share a key/value head.
pub(super) struct Tile<'a> {
    pub kv: KvView<'a>,
    /// The key/value head.
    pub head: usize,
    /// Rows in use.
    pub rows: usize,
    /// Scaled queries, `[e][stride]`; rows beyond `rows` are zero. Nothing where keys are quantised.
    pub q: &'a [f32],
    /// Where keys are quantised, the blocks of the scaled queries as activations in 8 bits: `[block][stride][word]`.
    pub blocks: &'a [i32],
    /// The tile width that kernels compute with: the smallest that holds `rows`.
    pub stride: usize,
    /// Live positions of each row: low..high.
    pub low: [usize; ROWS],
    pub high: [usize; ROWS],
    /// Scores become cap * tanh(score / cap).
    pub cap: Option<f32>,
}

/// The running softmax of up to [`ROWS`] rows over some segments.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// False until a row met a live position.
    pub live: [bool; ROWS],
    /// The largest score.
    pub m: [f32; LANES],
    /// The sum of exp(score - m).
    pub l: [f32; LANES],
    rows: usize,
    stride: usize,
    /// (padded rows, stride): the sums of exp(score - m) * value.
    o: Lines<f32>,
}

/// The smallest tile width that holds `rows`.
fn padded(rows: usize) -> usize {
    WIDTHS.into_iter().rev().find(|&w| w >= rows).unwrap_or(ROWS)
}

impl Partial {
    /// Nothing yet, for rows of `stride` elements.
    pub(super) fn new(rows: usize, stride: usize) -> Result<Self> {
        let (live, m, l) = ([false; ROWS], [0.0; LANES], [0.0; LANES]);
        let o = Lines::zeros(padded(rows).saturating_mul(stride), "attention")?;
        Ok(Partial { live, m, l, rows, stride, o })
    }

    /// The o of NR rows from `first` on, padding included.
    pub(super) fn rows_mut<const NR: usize>(&mut self, first: usize) -> [&mut [f32]; NR] {
        let mut rows = self.o.chunks_exact_mut(self.stride).skip(first);
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

    /// True if row r of both has live positions, so that the two are to be merged. Takes the row of `from` if only that
    /// has.
    #[inline(always)]
    pub(super) fn joins(&mut self, from: &Partial, r: usize) -> bool {
        if from.live[r] && !self.live[r] {
            (self.live[r], self.m[r], self.l[r]) = (true, from.m[r], from.l[r]);
            self.o_mut(r).copy_from_slice(from.o(r));
            return false;
        }
        from.live[r]
    }
}

/// Queries of one sequence, and the keys and values they look at.
pub(crate) struct KvQuery<'a> {
    pub view: KvView<'a>,
    /// Rows of q.
    pub rows: Range<usize>,
    /// The position of the first of them.
    pub start: usize,
    /// Where the sequence's positions end.
    pub end: usize,
}

/// A row's live positions beyond those it sees in any case.
struct Live<'a> {
    op: &'a Attention<'a>,
    query: &'a KvQuery<'a>,
}

impl Live<'_> {
    fn low(&self, position: usize) -> usize {
        let low = self.op.window.map_or(0, |window| (position + 1).saturating_sub(window));
        // Where the window has not left the pinned positions behind, they are part of it.
        if low <= self.op.pinned { 0 } else { low }
    }

    fn high(&self, position: usize) -> usize {
        if self.op.causal { position + 1 } else { self.query.end }
    }

    /// What a row sees of the segment `segment`; of the pinned positions alone for `None`.
    fn of(&self, position: usize, segment: Option<usize>) -> (usize, usize) {
        let low = self.low(position);
        match segment {
            Some(_) => (low, self.high(position)),
            None if low > 0 => (0, self.op.pinned),
            None => (0, 0),
        }
    }
}

/// A chunk of the stage: some rows over some segments.
struct Unit<'a> {
    live: Live<'a>,
    head: usize,
    /// Its rows among those of the key/value head: token by token the heads that share it.
    rows: Range<usize>,
    /// Begins with the pinned positions.
    pinned: bool,
    segments: Range<usize>,
    /// Of no rows until they are computed: room for them is made by the thread that does it.
    partial: Partial,
}

impl Unit<'_> {
    /// The token and the head of each row.
    fn tokens_and_heads(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (group, head) = (self.live.op.heads / self.live.query.view.shape.heads, self.head);
        self.rows.clone().map(move |row| (row / group, head * group + row % group))
    }

    /// True if there is something to see in a segment, or in the pinned positions for `None`.
    fn looks_at(&self, segment: Option<usize>) -> bool {
        segment.map_or(self.pinned, |segment| self.segments.contains(&segment))
    }
}

impl Device {
    /// Stores rows of k and v, (T, K * E), in one layer of some sequences.
    pub(crate) fn kv_append(&self, targets: Vec<KvTarget<'_>>, k: &Buffer, v: &Buffer) -> Result<()> {
        let mut parts = Vec::new();
        targets.into_iter().try_for_each(|target| target.tiles(&mut parts))?;
        self.threads.each(parts, |part| {
            let rows = |x: &Buffer| part.rows.start * x.width..part.rows.end * x.width;
            append(part.shape, part.tile, part.lane, &k.data()[rows(k)], &v.data()[rows(v)]);
        });
        Ok(())
    }

    /// out = softmax(q k^T * scale) v for queries of some sequences, each over the positions of its sequence up to its
    /// own within the window. q is (T, H * E), out (T, H * E), with the E of keys and of values.
    pub(crate) fn attention(
        &self,
        q: &Buffer,
        queries: &[KvQuery<'_>],
        op: &Attention<'_>,
        out: &mut Act,
    ) -> Result<()> {
        let Some(shape) = queries.first().map(|query| query.view.shape) else { return Ok(()) };
        let group = op.heads / shape.heads;
        let tiles = |query: &KvQuery<'_>| (query.rows.len() * group).div_ceil(ROWS);
        let count = shape.heads * queries.iter().map(tiles).sum::<usize>();
        // Few rows: a unit a segment, so that every thread has some; else a unit a tile. The units of a long text are not
        // all there at a time.
        let split = count < 4 * self.threads.count();
        let wave = if split { WAVE * self.threads.count() } else { usize::MAX };
        let (mut units, mut whole) = (Vec::new(), Vec::new());
        for query in queries {
            let rows = query.rows.len() * group;
            for head in 0..shape.heads {
                for first_row in (0..rows).step_by(ROWS) {
                    let live = || Live { op, query };
                    let last_row = rows.min(first_row + ROWS) - 1;
                    let (first, last) = (query.start + first_row / group, query.start + last_row / group);
                    let segments = live().low(first) / SEGMENT..(live().high(last) - 1) / SEGMENT + 1;
                    let pinned = op.pinned > 0 && live().low(last) > 0;
                    let step = if split { 1 } else { segments.len() };
                    let alone = (split && pinned).then_some((true, 0..0));
                    let others = segments.clone().step_by(step).map(|at| (pinned && !split, at..at + step));
                    for (pinned, segments) in alone.into_iter().chain(others) {
                        let rows = first_row..last_row + 1;
                        let unit = Unit { live: live(), head, rows, pinned, segments, partial: Partial::default() };
                        try_push(&mut units, unit, "attention")?;
                        if units.len() == wave {
                            self.attend_all(q, &mut units, &mut whole)?;
                        }
                    }
                }
            }
        }
        self.attend_all(q, &mut units, &mut whole)?;
        // The query of each token, and the first of its units.
        let mut first = 0;
        let of_query = |query: &KvQuery<'_>| {
            let of_query = first;
            first += shape.heads * tiles(query);
            let (tiles, start) = (tiles(query), query.rows.start);
            query.rows.clone().map(move |row| (of_query, row - start, tiles))
        };
        let of_token = try_collect(queries.iter().flat_map(of_query), "attention")?;
        let e = shape.value_width;
        out.reset(q.rows(), op.heads * e, op.precision, self.kernels.widest)?;
        self.each_rows(out, |rows| {
            for (token, row) in (rows.start..).zip(rows.values.chunks_exact_mut(op.heads * e)) {
                let (first, token, tiles) = of_token[token];
                for (head, out) in row.chunks_exact_mut(e).enumerate() {
                    let index = token * group + head % group;
                    let partial = &whole[first + head / group * tiles + index / ROWS].partial;
                    let factor = partial.factor(index % ROWS, op.sinks.map(|sinks| sinks[head]));
                    for (out, o) in out.iter_mut().zip(partial.o(index % ROWS)) {
                        *out = o * factor;
                    }
                }
            }
            (self.kernels.quantise)(rows);
        });
        Ok(())
    }

    /// Computes units, and merges those of the same rows into one, in their order.
    fn attend_all<'a>(&self, q: &Buffer, units: &mut Vec<Unit<'a>>, whole: &mut Vec<Unit<'a>>) -> Result<()> {
        let together = (units.len() / (8 * self.threads.count())).clamp(1, TOGETHER);
        self.threads.try_each(units.chunks_mut(together), |units| self.attend(q, units))?;
        for unit in units.drain(..) {
            let same = |last: &Unit<'_>| {
                std::ptr::eq(last.live.query, unit.live.query)
                    && (last.head, last.rows.start) == (unit.head, unit.rows.start)
            };
            match whole.last_mut() {
                Some(last) if same(last) => (self.kernels.merge)(&mut last.partial, &unit.partial),
                _ => try_push(whole, unit, "attention")?,
            }
        }
        Ok(())
    }

    /// Computes units, all of them over a segment before the next: they mostly look at the same keys and values.
    fn attend(&self, q: &Buffer, units: &mut [Unit<'_>]) -> Result<()> {
        let segments = units.iter().map(|unit| &unit.segments);
        let first = segments.clone().map(|segments| segments.start).min().unwrap_or(0);
        let end = segments.map(|segments| segments.end).max().unwrap_or(0);
        let mut running = Vec::with_capacity(units.len());
        for unit in units {
            running.push(Running::new(q, unit)?);
        }
        let mut room = None;
        for segment in std::iter::once(None).chain((first..end).map(Some)) {
            for running in running.iter_mut().filter(|running| running.unit.looks_at(segment)) {
                running.attend(self.kernels, segment, &mut room)?;
            }
        }
        Ok(())
    }
}

/// Puts rows of `e` elements into columns of `stride`.
fn lay_out(rows: &[f32], e: usize, columns: &mut [f32], stride: usize) {
    for (r, four) in (0..).step_by(4).zip(rows.chunks(4 * e)) {
        let blocks = if four.len() == 4 * e { e / 4 * 4 } else { 0 };
        for i in (0..blocks).step_by(4) {
            let mut block = [[0; 16]; 4];
            gather(bytemuck::cast_slice(&four[i..]), size_of::<f32>() * e, &mut block);
            for (j, lanes) in transposed(block).into_iter().enumerate() {
                let lanes: [f32; 4] = bytemuck::cast(lanes);
                columns[(i + j) * stride + r..][..4].copy_from_slice(&lanes);
            }
        }
        for (r, row) in (r..).zip(four.chunks_exact(e)) {
            for i in blocks..e {
                columns[i * stride + r] = row[i];
            }
        }
    }
}

/// A unit that is being computed.
struct Running<'u, 'a> {
    unit: &'u mut Unit<'a>,
    /// As in [`Tile`].
    q: Lines<f32>,
    blocks: Lines<i32>,
}

impl<'u, 'a> Running<'u, 'a> {
    fn new(q: &Buffer, unit: &'u mut Unit<'a>) -> Result<Self> {
        let (query, scale) = (unit.live.query, unit.live.op.scale);
        let shape = query.view.shape;
        let (n, e) = (unit.rows.len(), shape.width);
        unit.partial = Partial::new(n, shape.value_stride())?;
        // Row by row to begin with: rows lie apart in memory, and are waited for but once this way.
        let mut rows = Lines::<f32>::zeros(n * e, "attention")?;
        for ((token, head), scaled) in unit.tokens_and_heads().zip(rows.chunks_exact_mut(e)) {
            let own = &q.row(query.rows.start + token)[head * e..(head + 1) * e];
            scaled.iter_mut().zip(own).for_each(|(scaled, x)| *scaled = x * scale);
        }
        let stride = padded(n);
        let (mut q, mut blocks) = (Lines::default(), Lines::default());
        if matches!(shape.kv_type.store(), Store::Blocks(..)) {
            blocks = Lines::zeros(e / BLOCK * WORDS * stride, "attention")?;
            for (r, row) in rows.chunks_exact(e).enumerate() {
                for (words, x) in blocks.chunks_exact_mut(WORDS * stride).zip(row.as_chunks::<BLOCK>().0) {
                    let [block] = Plain.block(x);
                    words[r * WORDS..(r + 1) * WORDS].copy_from_slice(&block);
                }
            }
        } else {
            q = Lines::zeros(e * stride, "attention")?;
            lay_out(&rows, e, &mut q, stride);
        }
        Ok(Running { unit, q, blocks })
    }

    /// Adds what the rows see of a segment, or of the pinned positions for `None`. `room` is for a partial result, and stays
    /// for the next call.
    fn attend(&mut self, kernels: &Kernels, segment: Option<usize>, room: &mut Option<Partial>) -> Result<()> {
        let Running { unit, q, blocks } = self;
        let (query, op, n) = (unit.live.query, unit.live.op, unit.partial.rows());
        let (mut low, mut high) = ([0; ROWS], [0; ROWS]);
        for (r, (token, _)) in unit.tokens_and_heads().enumerate() {
            (low[r], high[r]) = unit.live.of(query.start + token, segment);
        }
        let (kv, head, stride, cap) = (query.view, unit.head, padded(n), op.cap);
        let tile = Tile { kv, head, rows: n, q, blocks, stride, low, high, cap };
        let segment = segment.unwrap_or(0);
        if !unit.partial.live.contains(&true) {
            (kernels.attend)(&tile, segment, &mut unit.partial);
            return Ok(());
        }
        let next = match room {
            Some(next) if next.rows() == n => next,
            _ => room.insert(Partial::new(n, kv.shape.value_stride())?),
        };
        (kernels.attend)(&tile, segment, next);
        (kernels.merge)(&mut unit.partial, next);
        Ok(())
    }
}
