//! Ops on rows: embedding, norms, rotary embedding, gates. Rows are independent, so threads share them out.

use super::act::{Act, ActTile, Precision};
use super::packed::Weight;
use super::{Buffer, Device};
use crate::device::{Activation, Norm, RopeTable};
use crate::error::Result;

/// Below this many values an op is done by the calling thread: waking the others would cost more.
const SMALL: usize = 16 * 1024;

impl Device {
    /// Runs `f` on each tile of `act`.
    pub(super) fn each_tile(&self, act: &mut Act, f: impl Fn(&mut ActTile<'_>) + Sync) {
        let small = act.rows() * act.width() <= SMALL;
        let tiles = act.tiles_mut();
        if small {
            tiles.into_iter().for_each(|mut tile| f(&mut tile));
        } else {
            self.threads.each(tiles, |mut tile| f(&mut tile));
        }
    }

    /// x = W[tokens] * scale. W is (V,D), x (T,D). Every token must be below V.
    pub(crate) fn embed(&self, tokens: &[u32], weight: &Weight, scale: f32, x: &mut Buffer) -> Result<()> {
        let width = weight.shape().columns;
        x.reset(tokens.len(), width)?;
        for (row, &token) in x.data_mut().chunks_exact_mut(width).zip(tokens) {
            weight.row(token as usize, row)?;
            row.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }

    /// x += delta, where delta is normed first if `post` is given; then act = norm(x). For the rows `rows` of x and
    /// delta; act has rows.len() rows. `precision`: what act is wanted in.
    pub(crate) fn add_norm(
        &self,
        x: &mut Buffer,
        delta: Option<(&Buffer, Option<Norm<'_>>)>,
        rows: std::ops::Range<usize>,
        norm: Norm<'_>,
        act: &mut Act,
        precision: Precision,
    ) -> Result<()> {
        let width = x.width;
        act.reset(rows.len(), width, precision, self.kernels.widest)?;
        let mut rest = &mut x.data_mut()[rows.start * width..rows.end * width];
        let small = rows.len() * width <= SMALL;
        let mut parts = Vec::new();
        for tile in act.tiles_mut() {
            let (own, others) = rest.split_at_mut(tile.values.len());
            rest = others;
            parts.push((tile, own));
        }
        let work = |(mut tile, x): (ActTile<'_>, &mut [f32])| {
            let outs = tile.values.chunks_exact_mut(width).zip(x.chunks_exact_mut(width));
            for (t, (out, x)) in (rows.start + tile.start..).zip(outs) {
                if let Some((delta, post)) = delta {
                    match post {
                        None => x.iter_mut().zip(delta.row(t)).for_each(|(x, d)| *x += d),
                        Some(post) => {
                            self.norm_row(delta.row(t), post, out);
                            x.iter_mut().zip(out.iter()).for_each(|(x, d)| *x += d);
                        }
                    }
                }
                self.norm_row(x, norm, out);
            }
            (self.kernels.quantise)(&mut tile);
        };
        if small {
            parts.into_iter().for_each(work);
        } else {
            self.threads.each(parts, work);
        }
        Ok(())
    }

    fn norm_row(&self, x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
        let r = self.norm_factor(x, norm.eps);
        for ((out, x), w) in out.iter_mut().zip(x).zip(norm.weight) {
            *out = (x * r) * w;
        }
    }

    fn norm_factor(&self, x: &[f32], eps: f32) -> f32 {
        1.0 / ((self.kernels.sum_of_squares)(x) / x.len() as f32 + eps).sqrt()
    }

    /// Norms each head of q and k where a norm is given, then rotates it. `e` is the head width.
    pub(crate) fn head_norm_rope(
        &self,
        (q, k): (&mut Buffer, &mut Buffer),
        (q_norm, k_norm): (Option<Norm<'_>>, Option<Norm<'_>>),
        e: usize,
        rope: &RopeTable,
    ) {
        let small = q.data().len() <= SMALL;
        let (q_width, k_width) = (q.width, k.width);
        let rows = q.data_mut().chunks_exact_mut(q_width).zip(k.data_mut().chunks_exact_mut(k_width)).enumerate();
        let work = |(t, (q, k)): (usize, (&mut [f32], &mut [f32]))| {
            let own = t * rope.pairs..(t + 1) * rope.pairs;
            let (cos, sin) = (&rope.cos[own.clone()], &rope.sin[own]);
            for (row, norm) in [(q, q_norm), (k, k_norm)] {
                for head in row.chunks_exact_mut(e) {
                    if let Some(norm) = norm {
                        let r = self.norm_factor(head, norm.eps);
                        head.iter_mut().zip(norm.weight).for_each(|(x, w)| *x = (*x * r) * w);
                    }
                    rotate(head, cos, sin, rope.interleaved);
                }
            }
        };
        if small {
            rows.for_each(work);
        } else {
            self.threads.each(rows, work);
        }
    }

    /// act = activation(gate) * up. gate and up are (T,F).
    pub(crate) fn glu(
        &self,
        activation: Activation,
        gate: &Buffer,
        up: &Buffer,
        act: &mut Act,
        precision: Precision,
    ) -> Result<()> {
        let width = gate.width;
        act.reset(gate.rows(), width, precision, self.kernels.widest)?;
        self.each_tile(act, |tile| {
            let own = tile.start * width..(tile.start + tile.width) * width;
            (self.kernels.gated)(activation, &gate.data()[own.clone()], &up.data()[own], tile.values);
            (self.kernels.quantise)(tile);
        });
        Ok(())
    }

    /// x = cap * tanh(x / cap).
    pub(crate) fn softcap(&self, cap: f32, x: &mut Buffer) {
        self.threads.each(x.data_mut().chunks_mut(SMALL), |part| (self.kernels.softcap)(cap, part));
    }
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
