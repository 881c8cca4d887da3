//! Mirostat, versions 1 and 2 (Basu et al., 2020): keeps the surprise of what is drawn, -log2 p, near a target.

use super::candidates::Candidates;
use super::steps::{Context, Stage};
use crate::error::Result;
use crate::numeric::wide;

/// The state of one step.
#[derive(Clone)]
pub(super) struct Mirostat {
    tau: f64,
    eta: f64,
    /// Version 1: how many tokens the estimate looks at.
    m: Option<usize>,
    /// The bound of the surprise.
    mu: f64,
}

impl Mirostat {
    pub(super) fn new(tau: f64, eta: f64, m: Option<usize>) -> Mirostat {
        Mirostat { tau, eta, m, mu: 2.0 * tau }
    }
}

impl Stage for Mirostat {
    fn run(&mut self, c: &mut Candidates, context: &mut Context<'_>) -> Result<()> {
        match self.m {
            Some(m) => {
                let k = estimate(&c.best_logits(m)?, self.mu, context.vocab_size);
                c.keep_best(k);
            }
            None => c.keep_surprise(self.mu * std::f64::consts::LN_2),
        }
        Ok(())
    }

    fn copy(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn reset(&mut self) {
        self.mu = 2.0 * self.tau;
    }

    fn drawn(&mut self, probability: f64) {
        let surprise = -wide::ln(probability) / std::f64::consts::LN_2;
        self.mu -= self.eta * (surprise - self.tau);
    }

    fn bound(&self) -> Option<f64> {
        Some(self.mu)
    }
}

/// How many tokens to keep: Zipf's exponent s is fitted to the logits of the most likely, and k chosen so that the
/// expected surprise is mu.
fn estimate(logits: &[f64], mu: f64, vocab_size: usize) -> usize {
    let (mut sum, mut squares) = (0.0, 0.0);
    for (i, pair) in logits.array_windows::<2>().enumerate() {
        // ln(p_i / p_(i+1)) is the difference of the logits.
        let (t, b) = (wide::ln((i + 2) as f64 / (i + 1) as f64), pair[0] - pair[1]);
        sum += t * b;
        squares += t * t;
    }
    if squares == 0.0 {
        return 1;
    }
    let s = sum / squares;
    let epsilon = s - 1.0;
    let n = vocab_size as f64;
    let k = (epsilon * wide::pow(2.0, mu) / (1.0 - wide::pow(n, -epsilon))).max(0.0);
    let k = if k > 0.0 { wide::pow(k, 1.0 / s) } else { k };
    // Beyond usize it keeps all; what is not a number keeps one.
    (k as usize).max(1)
}
