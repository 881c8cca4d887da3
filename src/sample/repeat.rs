//! Steps that change the logits of certain tokens: those that occurred, those that would go on with a repetition, those
//! that the caller names.

use std::sync::Arc;

use super::candidates::Candidates;
use super::steps::Context;
use crate::error::{Error, Result, try_collect, try_copy, try_vec};
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
    let runs = || tokens.chunk_by(|a, b| a == b);
    let ids = try_collect(runs().map(|run| run[0]), "the sampler's counts")?;
    let counts = try_collect(runs().map(|run| run.len() as f64), "the sampler's counts")?;
    c.change(&ids, |i, logit| {
        let logit = if logit > 0.0 { logit / repeat } else { logit * repeat };
        logit - counts[i] * frequency - presence
    });
    Ok(())
}

/// The tokens of a bias, ascending, and what is added to each.
pub(super) fn biases(bias: &[(u32, f32)]) -> Result<(Vec<u32>, Vec<f64>)> {
    if let Some((_, value)) = bias.iter().find(|(_, value)| !(value.is_finite() || *value == f32::NEG_INFINITY)) {
        let expected = "a finite number or -infinity";
        let error = Error::invalid_argument(format!("logit_bias is {value}, it must be {expected}"));
        return Err(error.with("parameter", "logit_bias").with("expected", expected).with("found", value));
    }
    let mut sorted = try_copy(bias, "the biases")?;
    sorted.sort_by_key(|(id, _)| *id);
    let runs = || sorted.chunk_by(|a, b| a.0 == b.0);
    let ids = try_collect(runs().map(|run| run[0].0), "the biases")?;
    let sums = runs().map(|run| run.iter().map(|(_, value)| f64::from(*value)).sum());
    Ok((ids, try_collect(sums, "the biases")?))
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
    breakers: Arc<Vec<Vec<u32>>>,
    /// The places of those that are not empty, by their first token.
    by_first: Arc<Vec<(u32, u32)>>,
}

impl Dry {
    pub(super) fn new(
        multiplier: f64,
        base: f64,
        allowed_length: usize,
        last_n: usize,
        breakers: &Arc<Vec<Vec<u32>>>,
    ) -> Result<Dry> {
        let firsts = breakers.iter().zip(0..).filter_map(|(breaker, i)| Some((*breaker.first()?, i)));
        let mut by_first = try_collect(firsts, "the breakers")?;
        by_first.sort_unstable();
        let (breakers, by_first) = (Arc::clone(breakers), Arc::new(by_first));
        Ok(Dry { multiplier, base, allowed_length, last_n, breakers, by_first })
    }

    pub(super) fn run(&self, c: &mut Candidates, context: &Context<'_>) -> Result<()> {
        let window = last(context, self.last_n);
        let limit = self.limit(window);
        // The longest repetition that each token would continue.
        let repeated = repeated(window)?;
        let continued = repeated.iter().zip(&window[window.len().min(1)..]).map(|(m, next)| (*next, limit.min(*m)));
        let continued = continued.filter(|(next, m)| *m >= self.allowed_length && !self.is_breaker(*next));
        let mut longest = try_collect(continued, "the sampler's repetitions")?;
        longest.sort_unstable_by_key(|(next, m)| (*next, std::cmp::Reverse(*m)));
        longest.dedup_by_key(|(next, _)| *next);
        let ids = try_collect(longest.iter().map(|(next, _)| *next), "the sampler's repetitions")?;
        let cap = largest_exponent(self.base);
        c.change(&ids, |i, logit| {
            let excess = longest[i].1 - self.allowed_length;
            let exponent = if cap > 0 { excess.min(cap) } else { excess };
            logit - self.multiplier * wide::pow(self.base, exponent as f64)
        });
        Ok(())
    }

    /// The breakers that begin with this token.
    fn breakers_from(&self, token: u32) -> impl Iterator<Item = &[u32]> {
        let start = self.by_first.partition_point(|(first, _)| *first < token);
        let places = self.by_first[start..].iter().take_while(move |(first, _)| *first == token);
        places.map(|(_, i)| &self.breakers[*i as usize][..])
    }

    fn is_breaker(&self, token: u32) -> bool {
        self.breakers_from(token).any(|breaker| breaker.len() == 1)
    }

    /// The tokens after the last breaker.
    fn limit(&self, window: &[u32]) -> usize {
        for after in 0..window.len() {
            let rest = &window[window.len() - 1 - after..];
            let fitting = self.breakers_from(rest[0]).filter(|breaker| rest.starts_with(breaker));
            if let Some(longest) = fitting.map(<[u32]>::len).max() {
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
