//! Ops on rows: embedding, norms, rotary embedding, gates. Rows are independent, so threads share them out.

use super::act::{Act, ActRows, Precision};
use super::scalar::tree_sum;
use super::weight::Weight;
use super::{Buffer, Device};
use crate::device::{Activation, Delta, Norm, NormKind, RopeTable};
use crate::error::Result;

/// Below this many values an op is done by the calling thread: waking the others would cost more.
pub(super) const SMALL: usize = 16 * 1024;
/// The same for an op that makes activations, which does more to each value.
const FEW: usize = 4 * 1024;

impl Device {
    /// Runs `f` on all rows of `act`, some at a time.
    pub(super) fn each_rows(&self, act: &mut Act, f: impl Fn(&mut ActRows<'_>) + Sync) {
        let jobs = self.jobs(act.rows() * act.width());
        self.each(jobs == 1, act.rows_mut(jobs), |mut rows| f(&mut rows));
    }

    /// Calls `f` once for each item: on all threads, unless the calling one is to do it `alone`.
    pub(super) fn each<T: Send>(&self, alone: bool, items: impl IntoIterator<Item = T>, f: impl Fn(T) + Sync) {
        if alone { items.into_iter().for_each(f) } else { self.threads.each(items, f) }
    }

    /// Into how many jobs at least an op is cut that makes activations of so many values.
    fn jobs(&self, values: usize) -> usize {
        if values <= FEW { 1 } else { 2 * self.threads.count() }
    }

    /// x = W[tokens] * scale. W is (V,D), x (T,D). Every token must be below V.
    pub(crate) fn embed(&self, tokens: &[u32], weight: &Weight, scale: f32, x: &mut Buffer) -> Result<()> {
        let width = weight.shape().columns;
        x.reset(tokens.len(), width)?;
        let small = x.data().len() <= SMALL;
        let mut rows = x.data_mut().chunks_exact_mut(width).zip(tokens);
        let look_up = |(row, &token): (&mut [f32], &u32)| {
            weight.row(token as usize, row)?;
            row.iter_mut().for_each(|x| *x *= scale);
            Ok(())
        };
        if small { rows.try_for_each(look_up) } else { self.threads.try_each(rows, look_up) }
    }

    /// x += W\[positions\], a row a token. W is (positions,D), x (T,D).
    pub(crate) fn add_positions(&self, weight: &Weight, positions: &[usize], x: &mut Buffer) -> Result<()> {
        let mut row = vec![0.0; x.width];
        let width = x.width;
        for (&position, x) in positions.iter().zip(x.data_mut().chunks_exact_mut(width)) {
            weight.row(position, &mut row)?;
            x.iter_mut().zip(&row).for_each(|(x, p)| *x += p);
        }
        Ok(())
    }

    /// x += row, for each row of x. x is (T,D), row (D).
    pub(crate) fn add_row_to_each(&self, row: &[f32], x: &mut Buffer) {
        for x in x.data_mut().chunks_exact_mut(row.len()) {
            x.iter_mut().zip(row).for_each(|(x, add)| *x += add);
        }
    }

    /// out = norm(x[part]), for each row of x. x is (T,n), out (T,part).
    pub(crate) fn norm_parts(
        &self,
        x: &Buffer,
        part: std::ops::Range<usize>,
        norm: Norm<'_>,
        out: &mut Buffer,
    ) -> Result<()> {
        out.reset(x.rows(), part.len())?;
        for (t, out) in out.data_mut().chunks_exact_mut(part.len()).enumerate() {
            self.norm_row(&x.row(t)[part.clone()], norm, out);
        }
        Ok(())
    }

    /// x += delta.
    pub(crate) fn add(&self, x: &mut Buffer, delta: Delta<'_>) {
        let (width, small) = (x.width, x.data().len() <= SMALL);
        let rows = x.data_mut().chunks_exact_mut(width).enumerate();
        self.each(small, rows, |(t, x)| {
            let mut normed = delta.post.map(|_| vec![0.0; width]);
            self.add_row(x, delta, t, normed.as_deref_mut().unwrap_or_default());
        });
    }

    /// y = fma(scale, x, y), each (T,n).
    pub(crate) fn add_scaled(&self, scale: f32, x: &Buffer, first: usize, y: &mut Buffer) {
        debug_assert!(x.width == y.width && first + x.rows() <= y.rows());
        let y = &mut y.data_mut()[first * x.width..][..x.data().len()];
        let small = y.len() <= SMALL;
        let parts = x.data().chunks(SMALL).zip(y.chunks_mut(SMALL));
        self.each(small, parts, |(x, y)| (self.kernels.add_scaled)(scale, x, y));
    }

    /// act = x, as floats. x is (T,n).
    pub(crate) fn take(&self, x: &Buffer, act: &mut Act) -> Result<()> {
        act.reset(x.rows(), x.width, Precision::Float, self.kernels.widest)?;
        act.values_mut().copy_from_slice(x.data());
        Ok(())
    }

    /// x += delta, then act = norm(x), or x itself without a norm. `precision`: what act is wanted in.
    pub(crate) fn add_norm(
        &self,
        x: &mut Buffer,
        delta: Option<Delta<'_>>,
        norm: Option<Norm<'_>>,
        act: &mut Act,
        precision: Precision,
    ) -> Result<()> {
        let width = x.width;
        act.reset(x.rows(), width, precision, self.kernels.widest)?;
        let jobs = self.jobs(x.data().len());
        let mut rest = x.data_mut();
        let mut parts = Vec::new();
        for rows in act.rows_mut(jobs) {
            let (own, others) = rest.split_at_mut(rows.values.len());
            rest = others;
            parts.push((rows, own));
        }
        self.each(jobs == 1, parts, |(mut rows, x): (ActRows<'_>, &mut [f32])| {
            let outs = rows.values.chunks_exact_mut(width).zip(x.chunks_exact_mut(width));
            for (t, (out, x)) in (rows.start..).zip(outs) {
                if let Some(delta) = delta {
                    self.add_row(x, delta, t, out);
                }
                match norm {
                    Some(norm) => self.norm_row(x, norm, out),
                    None => out.copy_from_slice(x),
                }
            }
            (self.kernels.quantise)(&mut rows);
        });
        Ok(())
    }

    /// x += row t of delta; `normed` is room for that row, where it is normed.
    fn add_row(&self, x: &mut [f32], delta: Delta<'_>, t: usize, normed: &mut [f32]) {
        let values = match delta.post {
            None => delta.values.row(t),
            Some(post) => {
                self.norm_row(delta.values.row(t), post, normed);
                normed
            }
        };
        x.iter_mut().zip(values).for_each(|(x, d)| *x += d * delta.scale);
    }

    fn norm_row(&self, x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
        out.copy_from_slice(x);
        self.norm_in_place(out, norm);
    }

    fn norm_in_place(&self, x: &mut [f32], norm: Norm<'_>) {
        if norm.kind == NormKind::Layer {
            let mean = sum(x) / x.len() as f32;
            x.iter_mut().for_each(|x| *x -= mean);
        }
        let r = 1.0 / ((self.kernels.sum_of_squares)(x) / x.len() as f32 + norm.eps).sqrt();
        x.iter_mut().zip(norm.weight).for_each(|(x, w)| *x = (*x * r) * w);
        if let Some(bias) = norm.bias {
            x.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
    }

    /// x = the values of act, (T,n).
    pub(crate) fn replace(&self, act: &Act, x: &mut Buffer) -> Result<()> {
        x.reset(act.rows(), act.width())?;
        x.data_mut().copy_from_slice(act.values());
        Ok(())
    }

    /// Norms q and k where a norm is given, then rotates each head. `e` is the head width. With `by_heads` each head is
    /// normed by itself: all by the same weights (E), or each by its own, in weights as wide as a row.
    pub(crate) fn head_norm_rope(
        &self,
        (q, k): (&mut Buffer, &mut Buffer),
        (q_norm, k_norm): (Option<Norm<'_>>, Option<Norm<'_>>),
        by_heads: bool,
        e: usize,
        rope: &RopeTable,
    ) {
        let small = q.data().len() <= SMALL;
        let (q_width, k_width) = (q.width, k.width);
        let rows = q.data_mut().chunks_exact_mut(q_width).zip(k.data_mut().chunks_exact_mut(k_width)).enumerate();
        self.each(small, rows, |(t, (q, k)): (usize, (&mut [f32], &mut [f32]))| {
            let own = t * rope.pairs..(t + 1) * rope.pairs;
            let (cos, sin) = (&rope.cos[own.clone()], &rope.sin[own]);
            for (row, norm) in [(q, q_norm), (k, k_norm)] {
                if let Some(norm) = norm {
                    let part = if by_heads { e } else { row.len() };
                    let weights = norm.weight.chunks_exact(part).cycle();
                    for (part, weight) in row.chunks_exact_mut(part).zip(weights) {
                        self.norm_in_place(part, Norm { weight, ..norm });
                    }
                }
                for head in row.chunks_exact_mut(e) {
                    rotate(head, cos, sin, rope.interleaved);
                }
            }
        });
    }

    /// act = activation(gate) * up, or activation(gate) alone. gate and up are (T,F). The rows of act stay in their
    /// groups.
    pub(crate) fn glu(
        &self,
        activation: Activation,
        gate: &Buffer,
        up: Option<&Buffer>,
        act: &mut Act,
        precision: Precision,
    ) -> Result<()> {
        let width = gate.width;
        debug_assert_eq!(act.rows(), gate.rows());
        act.refit(width, precision)?;
        self.each_rows(act, |rows| {
            let own = rows.start * width..rows.start * width + rows.values.len();
            let up = up.map(|up| &up.data()[own.clone()]);
            (self.kernels.gated)(activation, &gate.data()[own.clone()], up, rows.values);
            (self.kernels.quantise)(rows);
        });
        Ok(())
    }

    /// Rotates each head, `e` wide, of the rows of k.
    pub(crate) fn rotate(&self, k: &mut Buffer, e: usize, rope: &RopeTable) {
        let (width, small) = (k.width, k.data().len() <= SMALL);
        let rows = k.data_mut().chunks_exact_mut(width).enumerate();
        self.each(small, rows, |(t, row): (usize, &mut [f32])| {
            let own = t * rope.pairs..(t + 1) * rope.pairs;
            let (cos, sin) = (&rope.cos[own.clone()], &rope.sin[own]);
            row.chunks_exact_mut(e).for_each(|head| rotate(head, cos, sin, rope.interleaved));
        });
    }

    /// Copies the elements `part` of each n wide piece of `from` to those from `at` on of each m wide piece of `to`.
    pub(crate) fn copy_parts(
        &self,
        (from, n): (&Buffer, usize),
        part: std::ops::Range<usize>,
        (to, m): (&mut Buffer, usize),
        at: usize,
    ) {
        for (from, to) in from.data().chunks_exact(n).zip(to.data_mut().chunks_exact_mut(m)) {
            to[at..at + part.len()].copy_from_slice(&from[part.clone()]);
        }
    }

    /// x = x / divisor, then x = cap * tanh(x / cap); each where it is given.
    pub(crate) fn finish_logits(&self, divisor: Option<f32>, cap: Option<f32>, x: &mut Buffer) {
        if divisor.is_none() && cap.is_none() {
            return;
        }
        self.threads.each(x.data_mut().chunks_mut(SMALL), |part| {
            if let Some(divisor) = divisor {
                part.iter_mut().for_each(|x| *x /= divisor);
            }
            if let Some(cap) = cap {
                (self.kernels.softcap)(cap, part);
            }
        });
    }
}

/// The sum of x: lane i mod 16 takes x in ascending order, then the tree.
fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += x);
    tree_sum(lanes)
}

/// (a, b) -> (a cos - b sin, a sin + b cos) for each pair of a head.
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], interleaved: bool) {
    let turn = |a: &mut f32, b: &mut f32, cos: f32, sin: f32| {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    };
    if interleaved {
        for ([a, b], (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
            turn(a, b, *cos, *sin);
        }
    } else {
        let (first, second) = head.split_at_mut(cos.len());
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
            turn(a, b, *cos, *sin);
        }
    }
}
