//! Steps that change the logits of certain tokens: those that occurred, those that would go on with a repetition, those
//! that the caller names.

use std::collections::HashMap;

use super::candidates::Candidates;
use super::steps::{Context, within};
use crate::error::{Result, try_copy, try_vec};
use crate::numeric::wide;

/// The last `n` of the history.
fn last<'a>(context: &Context<'a>, n: usize) -> &'a [u32] {
    &context.history[context.history.len().saturating_sub(n)..]
}

pub(super) fn penalties(
    c: &mut Candidates,
    context: &Context<'_>,
    (repeat, frequency, presence): (f64, f64, f64),
    last_n: usize,
) -> Result<()> {
    let history = last(context, last_n);
    let mut tokens = try_copy(history, "the sampler's history")?;
    tokens.sort_unstable();
    let (mut ids, mut counts) = (Vec::new(), Vec::new());
    for run in tokens.chunk_by(|a, b| a == b) {
        ids.push(run[0]);
        counts.push(run.len() as f64);
    }
    c.change(&ids, |i, logit| {
        let logit = if logit > 0.0 { logit / repeat } else { logit * repeat };
        logit - counts[i] * frequency - presence
    });
    Ok(())
}

/// The tokens of a bias, ascending, and what is added to each.
pub(super) fn biases(bias: &[(u32, f32)]) -> Result<(Vec<u32>, Vec<f64>)> {
    let mut sorted = try_vec(bias.len(), (0, 0.0), "the biases")?;
    for (sorted, (id, value)) in sorted.iter_mut().zip(bias) {
        let value = if *value == f32::NEG_INFINITY {
            f64::NEG_INFINITY
        } else {
            within("logit_bias", *value, f32::MIN, f32::MAX)?
        };
        *sorted = (*id, value);
    }
    sorted.sort_by_key(|(id, _)| *id);
    Ok(sorted
        .chunk_by(|a, b| a.0 == b.0)
        .map(|run| (run[0].0, run.iter().map(|(_, value)| value).sum::<f64>()))
        .unzip())
}

/// The largest exponent whose power of `base` an f32 holds; 0: there is no limit.
fn largest_exponent(base: f64) -> usize {
    if base > 1.000001 { (88.7228391 / wide::ln(base)) as usize } else { 0 }
}

/// The parameters of `Step::Dry`.
#[derive(Clone)]
pub(super) struct Dry {
    multiplier: f64,
    base: f64,
    allowed_length: usize,
    last_n: usize,
    /// By their first token.
    breakers: HashMap<u32, Vec<Vec<u32>>>,
}

impl Dry {
    pub(super) fn new(multiplier: f64, base: f64, allowed_length: usize, last_n: usize, breakers: &[Vec<u32>]) -> Dry {
        let mut by_first: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        for breaker in breakers {
            if let Some(first) = breaker.first() {
                by_first.entry(*first).or_default().push(breaker.clone());
            }
        }
        Dry { multiplier, base, allowed_length, last_n, breakers: by_first }
    }

    pub(super) fn run(&self, c: &mut Candidates, context: &Context<'_>) -> Result<()> {
        let window = last(context, self.last_n);
        let limit = self.limit(window);
        // The longest repetition that each token would continue.
        let mut longest: HashMap<u32, usize> = HashMap::new();
        for (end, m) in repeated(window)?.into_iter().enumerate() {
            let m = m.min(limit);
            let next = window[end + 1];
            if m >= self.allowed_length && !self.is_breaker(next) {
                let entry = longest.entry(next).or_insert(m);
                *entry = m.max(*entry);
            }
        }
        let mut longest: Vec<(u32, usize)> = longest.into_iter().collect();
        longest.sort_unstable();
        let ids: Vec<u32> = longest.iter().map(|(id, _)| *id).collect();
        let cap = largest_exponent(self.base);
        c.change(&ids, |i, logit| {
            let excess = longest[i].1 - self.allowed_length;
            let exponent = if cap > 0 { excess.min(cap) } else { excess };
            logit - self.multiplier * wide::pow(self.base, exponent as f64)
        });
        Ok(())
    }

    fn is_breaker(&self, token: u32) -> bool {
        self.breakers.get(&token).is_some_and(|breakers| breakers.iter().any(|breaker| breaker.len() == 1))
    }

    /// The tokens after the last breaker.
    fn limit(&self, window: &[u32]) -> usize {
        for after in 0..window.len() {
            let rest = &window[window.len() - 1 - after..];
            let fitting = self.breakers.get(&rest[0]).into_iter().flatten().filter(|b| rest.starts_with(b));
            if let Some(longest) = fitting.map(Vec::len).max() {
                return after + 1 - longest;
            }
        }
        window.len()
    }
}

/// For each place of `window` but the last, how many of the tokens that end there repeat those at the end of all. In
/// linear time: the Z function of the reversed window (Gusfield, "Algorithms on Strings, Trees, and Sequences", 1997).
fn repeated(window: &[u32]) -> Result<Vec<usize>> {
    let n = window.len();
    let reversed = |i: usize| window[n - 1 - i];
    // z[i]: the length of what the reversed window has in common with itself from i on.
    let mut z = try_vec(n, 0usize, "the sampler's repetitions")?;
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right { z[i - left].min(right - i) } else { 0 };
        while i + length < n && reversed(length) == reversed(i + length) {
            length += 1;
        }
        if i + length > right {
            (left, right) = (i, i + length);
        }
        z[i] = length;
    }
    z.reverse();
    z.truncate(n.saturating_sub(1));
    Ok(z)
}
