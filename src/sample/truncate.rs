//! Steps that cut away the unlikely tokens, or the likely ones.

use super::candidates::Candidates;
use super::steps::Context;
use crate::error::{Result, try_vec};
use crate::numeric::wide;

pub(super) fn min_p(c: &mut Candidates, p: f64, min_keep: usize) {
    // p_i >= p * p_max, without the softmax.
    let bar = c.max() + wide::ln(p);
    c.keep_from(bar, min_keep);
}

pub(super) fn tail_free(c: &mut Candidates, z: f64, min_keep: usize, keep_crossing: bool) -> Result<()> {
    let n = c.len();
    if n <= 2 {
        return Ok(());
    }
    let p = c.sorted_probabilities()?;
    let mut second = try_vec(n - 2, 0.0, "the sampler's differences")?;
    for (second, p) in second.iter_mut().zip(p.array_windows::<3>()) {
        *second = ((p[2] - p[1]) - (p[1] - p[0])).abs();
    }
    let total: f64 = second.iter().sum();
    let share = |difference: f64| if total > 1e-6 { difference / total } else { 1.0 / (n - 2) as f64 };
    let mut sum = 0.0;
    for (i, difference) in second.into_iter().enumerate() {
        sum += share(difference);
        if sum > z && (keep_crossing || i >= min_keep.max(1)) {
            c.keep_best(if keep_crossing { (i + 1).max(min_keep) } else { i });
            break;
        }
    }
    Ok(())
}

pub(super) fn top_n_sigma(c: &mut Candidates, n: f64) {
    let finite = || c.logits().filter(|logit| *logit > f64::NEG_INFINITY);
    let count = finite().count() as f64;
    if c.len() < 2 || count == 0.0 {
        return;
    }
    let mean = finite().sum::<f64>() / count;
    let variance = finite().map(|logit| (logit - mean) * (logit - mean)).sum::<f64>() / count;
    let bar = c.max() - n * variance.sqrt();
    c.change_all(|logit| if logit < bar { f64::NEG_INFINITY } else { logit });
}

pub(super) fn xtc(c: &mut Candidates, context: &mut Context<'_>, probability: f64, threshold: f64, min_keep: usize) {
    if c.len() >= 2 && (context.uniform)() <= probability {
        c.drop_likely(threshold, min_keep);
    }
}
