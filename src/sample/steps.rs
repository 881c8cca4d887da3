//! The samplers. A new one is a variant of [`Step`], a row of the table in [`compile`] and a function.

use crate::error::{Error, Result};
use crate::numeric::wide;

use super::candidates::Candidates;

/// One sampler of a chain, with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Keeps the most likely token.
    Greedy,
    /// Divides the logits by this: below 1 the likely tokens become likelier, above 1 the unlikely ones. 0 masks all
    /// but the most likely token.
    Temperature(f32),
    /// Keeps this many of the most likely tokens; 0 keeps all (Fan et al., "Hierarchical Neural Story Generation",
    /// 2018).
    TopK(usize),
    /// Keeps the most likely tokens up to the one with which their probabilities sum to `p`; 1 keeps all (Holtzman et
    /// al., "The Curious Case of Neural Text Degeneration", 2019).
    TopP {
        /// In [0, 1].
        p: f32,
        /// Keeps at least this many.
        min_keep: usize,
    },
    /// Keeps the tokens that are at least `p` times as likely as the most likely one; 0 keeps all (Nguyen et al.,
    /// "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs", 2024).
    MinP {
        /// In [0, 1].
        p: f32,
        /// Keeps at least this many.
        min_keep: usize,
    },
    /// Makes the tokens among the last `last_n` less likely: divides their logits by `penalty` where they are
    /// positive, multiplies them elsewhere, once however often a token occurs (Keskar et al., "CTRL", 2019). A
    /// penalty of 1 or a `last_n` of 0 changes nothing.
    RepetitionPenalty {
        /// Above 0; below 1 it rewards repetition.
        penalty: f32,
        /// How many of the last tokens count.
        last_n: usize,
    },
}

/// What a step may use besides the candidates.
pub(super) struct Context<'a> {
    /// The accepted tokens, oldest first.
    pub history: &'a [u32],
}

/// A step ready to run. A step with state keeps it in its closure: copying the stage copies it, compiling the step again
/// resets it.
pub(super) trait Stage: Send {
    fn run(&mut self, candidates: &mut Candidates, context: &Context);
    fn copy(&self) -> Box<dyn Stage>;
}

impl<F: FnMut(&mut Candidates, &Context) + Clone + Send + 'static> Stage for F {
    fn run(&mut self, candidates: &mut Candidates, context: &Context) {
        self(candidates, context);
    }

    fn copy(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Stage> {
    fn clone(&self) -> Self {
        (**self).copy()
    }
}

/// THE table of samplers. A row checks the parameters of a step and gives its function; `None`: these parameters turn
/// the step off.
pub(super) fn compile(step: Step) -> Result<Option<Box<dyn Stage>>> {
    Ok(match step {
        Step::Greedy => stage(|c, _| c.keep_best(1)),
        Step::Temperature(t) => {
            let t = within("temperature", t, 0.0, f32::MAX)?;
            stage(move |c, _| temperature(c, t))
        }
        Step::TopK(0) => None,
        Step::TopK(k) => stage(move |c, _| c.keep_best(k)),
        Step::TopP { p, min_keep } => {
            let p = within("top_p", p, 0.0, 1.0)?;
            if p < 1.0 { stage(move |c, _| c.keep_share(p, min_keep)) } else { None }
        }
        Step::MinP { p, min_keep } => {
            let p = within("min_p", p, 0.0, 1.0)?;
            if p > 0.0 { stage(move |c, _| min_p(c, p, min_keep)) } else { None }
        }
        Step::RepetitionPenalty { penalty, last_n } => {
            let penalty = within("repeat_penalty", penalty, f32::MIN_POSITIVE, f32::MAX)?;
            let on = penalty != 1.0 && last_n > 0;
            if on { stage(move |c, context| repetition_penalty(c, context, penalty, last_n)) } else { None }
        }
    })
}

/// How many of the last tokens a step looks at.
pub(super) fn window(step: Step) -> usize {
    match step {
        Step::RepetitionPenalty { last_n, .. } => last_n,
        _ => 0,
    }
}

fn stage(f: impl FnMut(&mut Candidates, &Context) + Clone + Send + 'static) -> Option<Box<dyn Stage>> {
    Some(Box::new(f))
}

/// The parameter `name`, if it is in its range; never NaN.
fn within(name: &'static str, value: f32, min: f32, max: f32) -> Result<f64> {
    if (min..=max).contains(&value) {
        return Ok(f64::from(value));
    }
    let range = match (min, max) {
        (_, f32::MAX) if min > 0.0 => "a finite number above 0".to_string(),
        (_, f32::MAX) => format!("a finite number of at least {min}"),
        _ => format!("a number from {min} to {max}"),
    };
    Err(Error::invalid_argument(format!("{name} is {value}, it must be {range}"))
        .with("parameter", name)
        .with("expected", range)
        .with("found", value))
}

fn temperature(c: &mut Candidates, t: f64) {
    if t > 0.0 { c.change_all(|logit| logit / t) } else { c.mask_all_but_best() }
}

fn min_p(c: &mut Candidates, p: f64, min_keep: usize) {
    // p_i >= p * p_max, without the softmax.
    let bar = c.max() + wide::ln(p);
    c.keep_from(bar, min_keep);
}

fn repetition_penalty(c: &mut Candidates, context: &Context, penalty: f64, last_n: usize) {
    let start = context.history.len().saturating_sub(last_n);
    let mut ids = context.history[start..].to_vec();
    ids.sort_unstable();
    ids.dedup();
    c.change(&ids, |logit| if logit > 0.0 { logit / penalty } else { logit * penalty });
}
