//! Ops on rows that meet different matrices: the experts of a mixture, and the heads of latent attention.
//!
//! Rows are sorted into groups, one for each matrix, so that a matrix is read once for all rows that need it and not at
//! all if none does. A row's result does not depend on the others of its group.

use super::act::{Act, Precision};
use super::rows::SMALL;
use super::{Buffer, Device};
use crate::device::{Gating, Routing};
use crate::error::{Result, try_vec};
use crate::numeric::{self, Real, fma};

/// The experts of T tokens, k each: the (token, rank) pairs, sorted by expert and then by token.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// k.
    used: usize,
    /// Pairs of each expert.
    counts: Vec<usize>,
    /// (T*k) the token of each sorted pair.
    tokens: Vec<usize>,
    /// (T,k) where each pair is in the sorted order, the best expert first.
    places: Vec<usize>,
    /// (T,k)
    weights: Vec<f32>,
}

impl Routes {
    /// Rows of each expert, in the sorted order.
    pub(crate) fn counts(&self) -> &[usize] {
        &self.counts
    }
}

/// Chooses and weighs the experts of one token.
///
/// p is the softmax of the scores (p = exp(s - max), divided by their sum in ascending order), their logistic function
/// 1 / (1 + exp(-s)), or the scores themselves. The choice goes by p + bias, the larger first, of equals the lower
/// expert. The weight is p without the bias; for `SoftmaxOfChosen` the softmax over the chosen. Normalised weights are
/// divided by (their sum in order of rank + 1e-20); then comes the scale.
struct Router<'a> {
    routing: &'a Routing,
    bias: Option<&'a [f32]>,
    /// (X)
    p: Vec<f32>,
    /// (X) what the choice goes by.
    rank: Vec<f32>,
    /// (X) whether it may still be chosen.
    free: Vec<bool>,
}

/// Replaces x by exp(x - max) / sum.
fn softmax(x: &mut [f32]) {
    let m = x.iter().copied().fold(f32::NEG_INFINITY, Real::max);
    let mut sum = 0.0;
    for x in &mut *x {
        *x = numeric::exp(*x - m);
        sum += *x;
    }
    x.iter_mut().for_each(|x| *x /= sum);
}

/// The index of the largest of those that are free; of equals the first.
fn best(values: &[f32], free: &[bool]) -> usize {
    let mut best: Option<usize> = None;
    for (i, value) in values.iter().enumerate().filter(|(i, _)| free[*i]) {
        if best.is_none_or(|best| *value > values[best]) {
            best = Some(i);
        }
    }
    best.unwrap_or(0)
}

impl Router<'_> {
    fn route(&mut self, scores: &[f32], experts: &mut [usize], weights: &mut [f32]) {
        self.p.copy_from_slice(scores);
        match self.routing.gating {
            Gating::Softmax => softmax(&mut self.p),
            Gating::SoftmaxOfChosen => {}
            Gating::Sigmoid => self.p.iter_mut().for_each(|p| *p = 1.0 / (1.0 + numeric::exp(0.0 - *p))),
        }
        self.rank.copy_from_slice(&self.p);
        if let Some(bias) = self.bias {
            self.rank.iter_mut().zip(bias).for_each(|(rank, bias)| *rank += bias);
        }
        self.free.fill(true);
        if let Some((groups, used)) = self.routing.groups {
            self.keep_groups(groups, used);
        }
        for (expert, weight) in experts.iter_mut().zip(&mut *weights) {
            *expert = best(&self.rank, &self.free);
            self.free[*expert] = false;
            *weight = self.p[*expert];
        }
        if self.routing.gating == Gating::SoftmaxOfChosen {
            softmax(weights);
        }
        if self.routing.normalized {
            let sum = weights.iter().sum::<f32>() + 1e-20;
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        weights.iter_mut().for_each(|weight| *weight *= self.routing.scale);
    }

    /// Frees only the experts of the best groups. A group is as good as its best expert or, where a bias balances the
    /// choice, as its best two together.
    fn keep_groups(&mut self, groups: usize, used: usize) {
        let size = self.rank.len() / groups;
        let of_group = |group: usize, rank: &[f32]| {
            let (own, mut free) = (&rank[group * size..(group + 1) * size], vec![true; size]);
            let first = best(own, &free);
            if self.bias.is_none() || size == 1 {
                return own[first];
            }
            free[first] = false;
            own[first] + own[best(own, &free)]
        };
        let scores: Vec<f32> = (0..groups).map(|group| of_group(group, &self.rank)).collect();
        let mut left = vec![true; groups];
        for _ in 0..used {
            let group = best(&scores, &left);
            left[group] = false;
        }
        for (free, group) in self.free.chunks_mut(size).zip(left) {
            free.fill(!group);
        }
    }
}

impl Device {
    /// Chooses the experts of each token. scores is (T,X), bias (X).
    pub(crate) fn moe_route(
        &self,
        routing: &Routing,
        bias: Option<&[f32]>,
        scores: &Buffer,
        routes: &mut Routes,
    ) -> Result<()> {
        let (t, x, k) = (scores.rows(), scores.width, routing.used);
        let numbers = || try_vec(x, 0.0, "the scores of experts");
        let (p, rank, free) = (numbers()?, numbers()?, try_vec(x, true, "the scores of experts")?);
        let mut router = Router { routing, bias, p, rank, free };
        let mut experts = try_vec(t * k, 0, "routes to experts")?;
        routes.used = k;
        routes.weights = try_vec(t * k, 0.0, "routes to experts")?;
        let rows = experts.chunks_exact_mut(k).zip(routes.weights.chunks_exact_mut(k));
        for (t, (experts, weights)) in rows.enumerate() {
            router.route(scores.row(t), experts, weights);
        }
        routes.counts = try_vec(x, 0, "routes to experts")?;
        experts.iter().for_each(|&expert| routes.counts[expert] += 1);
        let mut next = try_vec(x, 0, "routes to experts")?;
        for expert in 1..x {
            next[expert] = next[expert - 1] + routes.counts[expert - 1];
        }
        routes.places = try_vec(t * k, 0, "routes to experts")?;
        routes.tokens = try_vec(t * k, 0, "routes to experts")?;
        for (pair, &expert) in experts.iter().enumerate() {
            routes.places[pair] = next[expert];
            routes.tokens[next[expert]] = pair / k;
            next[expert] += 1;
        }
        Ok(())
    }

    /// Each pair's token of act, (T,D), in the sorted order: (T*k,D), in a group for each expert.
    pub(crate) fn moe_gather(&self, act: &Act, routes: &Routes, out: &mut Act, precision: Precision) -> Result<()> {
        let n = act.width();
        out.reset_groups(routes.counts.iter().copied(), n, precision, self.kernels.widest)?;
        self.each_rows(out, |rows| {
            for (row, &token) in rows.values.chunks_exact_mut(n).zip(&routes.tokens[rows.start..]) {
                row.copy_from_slice(&act.values()[token * n..(token + 1) * n]);
            }
            (self.kernels.quantise)(rows);
        });
        Ok(())
    }

    /// out = the weighted sum of each token's experts: fma(weight, expert, out) from +0, the best first. With a shared
    /// expert then out += it, or fma(1 / (1 + exp(-gate)), it, out). experts is (T*k,D) as sorted, shared (T,D), its
    /// gate (T,1), out (T,D).
    pub(crate) fn moe_combine(
        &self,
        experts: &Buffer,
        routes: &Routes,
        shared: Option<(&Buffer, Option<&Buffer>)>,
        out: &mut Buffer,
    ) -> Result<()> {
        let (n, k) = (experts.width, routes.used);
        out.reset(routes.places.len() / k, n)?;
        let small = out.data().len() <= SMALL;
        self.each(small, out.data_mut().chunks_exact_mut(n).enumerate(), |(t, out): (usize, &mut [f32])| {
            out.fill(0.0);
            for pair in t * k..(t + 1) * k {
                let weight = routes.weights[pair];
                for (out, x) in out.iter_mut().zip(experts.row(routes.places[pair])) {
                    *out = fma(weight, *x, *out);
                }
            }
            let Some((shared, gate)) = shared else { return };
            match gate.map(|gate| 1.0 / (1.0 + numeric::exp(0.0 - gate.row(t)[0]))) {
                None => out.iter_mut().zip(shared.row(t)).for_each(|(out, x)| *out += x),
                Some(gate) => out.iter_mut().zip(shared.row(t)).for_each(|(out, x)| *out = fma(gate, *x, *out)),
            }
        });
        Ok(())
    }

    /// The elements `part` of each of the heads that lie in the (T, heads * n) rows of `x`: (heads*T, part), in a group
    /// for each head.
    pub(crate) fn take_heads(
        &self,
        x: &[f32],
        heads: usize,
        n: usize,
        part: std::ops::Range<usize>,
        out: &mut Act,
        precision: Precision,
    ) -> Result<()> {
        let tokens = x.len() / (heads * n);
        out.reset_groups((0..heads).map(|_| tokens), part.len(), precision, self.kernels.widest)?;
        self.each_rows(out, |rows| {
            for (i, row) in (rows.start..).zip(rows.values.chunks_exact_mut(part.len())) {
                let (head, t) = (i / tokens, i % tokens);
                let head = &x[(t * heads + head) * n..][..n];
                row.copy_from_slice(&head[part.clone()]);
            }
            (self.kernels.quantise)(rows);
        });
        Ok(())
    }

    /// The inverse of `take_heads`: (heads*T, m) rows become the elements from `at` on of the heads in the (T, heads *
    /// n) rows of `out`.
    pub(crate) fn put_heads(&self, x: &Buffer, heads: usize, out: &mut [f32], n: usize, at: usize) {
        let tokens = x.rows() / heads;
        for (i, out) in out.chunks_exact_mut(n).enumerate() {
            let (t, head) = (i / heads, i % heads);
            let row = x.row(head * tokens + t);
            out[at..at + row.len()].copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The experts of one token and their weights.
    fn route(routing: &Routing, bias: Option<&[f32]>, scores: &[f32]) -> (Vec<usize>, Vec<f32>) {
        let n = scores.len();
        let mut router = Router { routing, bias, p: vec![0.0; n], rank: vec![0.0; n], free: vec![true; n] };
        let (mut experts, mut weights) = (vec![0; routing.used], vec![0.0; routing.used]);
        router.route(scores, &mut experts, &mut weights);
        (experts, weights)
    }

    fn routing(gating: Gating, used: usize) -> Routing {
        Routing { gating, used, normalized: false, scale: 1.0, groups: None }
    }

    fn near(found: &[f32], expected: &[f64]) {
        let close = found.iter().zip(expected).all(|(f, e)| (f64::from(*f) - e).abs() < 1e-6);
        assert!(close && found.len() == expected.len(), "{found:?} {expected:?}");
    }

    /// Weights by the definitions, in f64.
    #[test]
    fn gatings() {
        let scores = [0.5f32, -1.0, 2.0, 1.0];
        let e = numeric::wide::exp;
        let all = e(0.5) + e(-1.0) + e(2.0) + e(1.0);
        let (experts, weights) = route(&routing(Gating::Softmax, 2), None, &scores);
        assert_eq!(experts, [2, 3]);
        near(&weights, &[e(2.0) / all, e(1.0) / all]);
        let (experts, weights) = route(&routing(Gating::SoftmaxOfChosen, 2), None, &scores);
        assert_eq!(experts, [2, 3]);
        near(&weights, &[e(2.0) / (e(2.0) + e(1.0)), e(1.0) / (e(2.0) + e(1.0))]);
        let (experts, weights) = route(&routing(Gating::Sigmoid, 3), None, &scores);
        assert_eq!(experts, [2, 3, 0]);
        near(&weights, &[1.0 / (1.0 + e(-2.0)), 1.0 / (1.0 + e(-1.0)), 1.0 / (1.0 + e(-0.5))]);
        let normalized = Routing { normalized: true, scale: 2.5, ..routing(Gating::Softmax, 2) };
        let (_, weights) = route(&normalized, None, &scores);
        near(&weights, &[2.5 * e(2.0) / (e(2.0) + e(1.0)), 2.5 * e(1.0) / (e(2.0) + e(1.0))]);
    }

    #[test]
    fn a_bias_chooses_and_does_not_weigh() {
        let (experts, weights) = route(&routing(Gating::Sigmoid, 1), Some(&[0.0, 5.0, 0.0]), &[2.0, -2.0, 1.0]);
        assert_eq!(experts, [1]);
        near(&weights, &[1.0 / (1.0 + numeric::wide::exp(2.0))]);
    }

    #[test]
    fn of_equals_the_first_and_each_once() {
        assert_eq!(route(&routing(Gating::SoftmaxOfChosen, 3), None, &[1.0, 2.0, 2.0, 1.0]).0, [1, 2, 0]);
        // Nothing is said of what NaN gives but that each expert is taken once.
        for gating in [Gating::Softmax, Gating::SoftmaxOfChosen, Gating::Sigmoid] {
            let mut experts = route(&routing(gating, 3), None, &[f32::NAN, 1.0, f32::NAN]).0;
            experts.sort_unstable();
            assert_eq!(experts, [0, 1, 2]);
        }
    }

    /// Without a bias a group counts for its best expert, with one for its best two.
    #[test]
    fn groups() {
        let grouped = Routing { groups: Some((2, 1)), ..routing(Gating::SoftmaxOfChosen, 2) };
        let scores = [5.0, 0.0, 4.0, 3.0];
        assert_eq!(route(&grouped, None, &scores).0, [0, 1]);
        assert_eq!(route(&grouped, Some(&[0.0; 4]), &scores).0, [2, 3]);
        let one_each = Routing { groups: Some((4, 2)), ..routing(Gating::SoftmaxOfChosen, 2) };
        assert_eq!(route(&one_each, Some(&[0.0; 4]), &scores).0, [0, 2]);
    }
}
