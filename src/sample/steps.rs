//! The samplers. A new one is a variant of [`Step`], a row of the table in [`compile`] and a function, here or in
//! `truncate`, `repeat` or `mirostat`.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, try_copy};
use crate::numeric::wide;

use super::candidates::Candidates;
use super::{mirostat, repeat, truncate};

/// One sampler of a chain, with its parameters. Copies share their lists.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Keeps the most likely token.
    Greedy,
    /// Divides the logits by this: below 1 the likely tokens become likelier, above 1 the unlikely ones. 0 masks all
    /// but the most likely token.
    Temperature(f32),
    /// Divides the logits by a temperature between `temperature - range` (not below 0) and `temperature + range`: the
    /// lower, the surer the model is. With H the entropy of the candidates over its largest, ln n, it is
    /// low + (high - low) * H^exponent. A `range` of 0 is plain temperature (EDT: Zhang et al., "EDT: Improving Large
    /// Language Models' Generation by Entropy-based Dynamic Temperature Sampling", 2024, in the form of llama.cpp).
    DynamicTemperature {
        /// Not negative.
        temperature: f32,
        /// Not negative.
        range: f32,
        /// Not negative.
        exponent: f32,
    },
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
    /// Keeps the tokens whose surprise is nearest to the expected one, up to the one with which their probabilities sum
    /// to more than `p`; 1 keeps all (Meister et al., "Locally Typical Sampling", 2022).
    Typical {
        /// In [0, 1].
        p: f32,
        /// Keeps at least this many.
        min_keep: usize,
    },
    /// Cuts where the sorted probabilities become flat: before the first token at which the second differences, as
    /// shares of their sum, sum to more than `z`; 1 keeps all (Phénix and Egan, "Tail Free Sampling", 2019, in the
    /// form of llama.cpp).
    TailFree {
        /// In [0, 1].
        z: f32,
        /// Keeps at least this many.
        min_keep: usize,
        /// The cut is behind that token and not before it, as in KoboldAI.
        keep_crossing: bool,
    },
    /// Masks the tokens whose logit is more than this many standard deviations below the largest; 0 masks none (Tang et
    /// al., "Top-nσ: Not All Logits Are You Need", 2024).
    TopNSigma(f32),
    /// With this probability, removes all tokens that are at least as likely as `threshold`, but the least likely of
    /// them ("exclude top choices", text-generation-webui). Takes one number from the generator each time there are two
    /// candidates or more. Off with a probability of 0 or a threshold above 0.5.
    Xtc {
        /// In [0, 1].
        probability: f32,
        /// In [0, 1].
        threshold: f32,
        /// Does nothing where fewer than this many would stay.
        min_keep: usize,
    },
    /// Makes the tokens among the last `last_n` less likely: first divides their logits by `repeat` where they are
    /// positive and multiplies them elsewhere, once however often a token occurs (Keskar et al., "CTRL", 2019); then
    /// takes off `frequency` times the number of occurrences, and `presence` (as the API of OpenAI).
    Penalties {
        /// Above 0; 1 is none, below 1 rewards repetition.
        repeat: f32,
        /// 0 is none, negative rewards.
        frequency: f32,
        /// 0 is none, negative rewards.
        presence: f32,
        /// How many of the last tokens count; 0 is none.
        last_n: usize,
    },
    /// Makes a token less likely that would continue a repetition: where the last m >= `allowed_length` tokens have
    /// occurred before in the last `last_n`, takes `multiplier * base^(m - allowed_length)` off what followed there,
    /// with the largest such m ("don't repeat yourself", text-generation-webui).
    Dry {
        /// Not negative; 0 is off.
        multiplier: f32,
        /// Not negative; below 1 is off. The exponent is held where the power would exceed f32.
        base: f32,
        /// Repetitions up to this length are free.
        allowed_length: usize,
        /// How many of the last tokens count; 0 is off.
        last_n: usize,
        /// Sequences that no repetition reaches over. A token that is one by itself is never made less likely.
        breakers: Arc<Vec<Vec<u32>>>,
    },
    /// Adds to the logits of these tokens; -infinity bans one. What is given for a token several times adds up.
    LogitBias(Arc<Vec<(u32, f32)>>),
    /// Masks these tokens, unless no other would be left.
    Ban(Arc<Vec<u32>>),
    /// Keeps so many tokens that the surprise of what is drawn stays near `tau` bits, version 1: estimates how fast
    /// probabilities fall from the `m` most likely ones (Basu et al., "Mirostat: A Neural Text Decoding Algorithm that
    /// Directly Controls Perplexity", 2020). Learns from each draw; belongs at the end of a chain.
    Mirostat {
        /// The surprise aimed at, in bits.
        tau: f32,
        /// The rate of learning.
        eta: f32,
        /// Usually 100.
        m: usize,
    },
    /// The same, version 2: keeps the tokens up to the first whose surprise is above the current bound, which begins at
    /// 2 tau.
    MirostatV2 {
        /// The surprise aimed at, in bits.
        tau: f32,
        /// The rate of learning.
        eta: f32,
    },
    /// The caller's own.
    Callback(Callback),
}

/// A token and its logit, as a caller's sampler sees them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct CandidateLogit {
    /// The token.
    pub id: u32,
    /// Its logit; -infinity masks it, and so does NaN.
    pub logit: f32,
}

/// A caller's sampler: it is given the candidates that are left, in no certain order, and changes their logits. Tokens
/// that it changes to others are not looked at.
#[derive(Clone)]
pub struct Callback(Arc<CallbackFn>);

type CallbackFn = dyn Fn(&mut [CandidateLogit]) + Send + Sync;

impl Callback {
    /// Wraps a function, which the chain and its clones share.
    pub fn new(f: impl Fn(&mut [CandidateLogit]) + Send + Sync + 'static) -> Callback {
        Callback(Arc::new(f))
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// The same function, not an equal one.
impl PartialEq for Callback {
    fn eq(&self, other: &Callback) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a step may use besides the candidates.
pub(super) struct Context<'a> {
    /// The accepted tokens, oldest first.
    pub history: &'a [u32],
    /// V.
    pub vocab_size: usize,
    /// The next random number, in [0, 1).
    pub uniform: &'a mut dyn FnMut() -> f64,
}

/// A step ready to run. A step with state keeps it in itself: copying the stage copies it.
pub(super) trait Stage: Send + Sync {
    fn run(&mut self, candidates: &mut Candidates, context: &mut Context<'_>) -> Result<()>;
    fn copy(&self) -> Box<dyn Stage>;
    /// Back to the start.
    fn reset(&mut self) {}
    /// A token was drawn, whose probability among the last candidates is this.
    fn drawn(&mut self, _probability: f64) {}
    /// What a mirostat step has learned.
    fn bound(&self) -> Option<f64> {
        None
    }
    /// So many of the most likely tokens are all that the step keeps.
    fn keeps_best(&self) -> Option<usize> {
        None
    }
}

impl<F: FnMut(&mut Candidates, &mut Context<'_>) -> Result<()> + Clone + Send + Sync + 'static> Stage for F {
    fn run(&mut self, candidates: &mut Candidates, context: &mut Context<'_>) -> Result<()> {
        self(candidates, context)
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

/// Keeps the best: a type of its own, for `keeps_best`.
#[derive(Clone)]
struct Best(usize);

impl Stage for Best {
    fn run(&mut self, candidates: &mut Candidates, _context: &mut Context<'_>) -> Result<()> {
        candidates.keep_best(self.0);
        Ok(())
    }

    fn copy(&self) -> Box<dyn Stage> {
        Box::new(self.clone())
    }

    fn keeps_best(&self) -> Option<usize> {
        Some(self.0)
    }
}

/// THE table of samplers. A row checks the parameters of a step and gives its function; `None`: these parameters turn
/// the step off.
pub(super) fn compile(step: &Step) -> Result<Option<Box<dyn Stage>>> {
    Ok(match *step {
        Step::Greedy => Some(Box::new(Best(1))),
        Step::Temperature(t) => {
            let t = within("temperature", t, 0.0, f32::MAX)?;
            stage(move |c, _| temperature(c, t))
        }
        Step::DynamicTemperature { temperature: t, range, exponent } => {
            let t = within("temperature", t, 0.0, f32::MAX)?;
            let range = within("temperature_range", range, 0.0, f32::MAX)?;
            let exponent = within("temperature_exponent", exponent, 0.0, f32::MAX)?;
            stage(move |c, _| if range > 0.0 { dynamic_temperature(c, t, range, exponent) } else { temperature(c, t) })
        }
        Step::TopK(0) => None,
        Step::TopK(k) => Some(Box::new(Best(k))),
        Step::TopP { p, min_keep } => {
            let p = within("top_p", p, 0.0, 1.0)?;
            if p < 1.0 { stage(move |c, _| c.keep_share(p, min_keep)) } else { None }
        }
        Step::MinP { p, min_keep } => {
            let p = within("min_p", p, 0.0, 1.0)?;
            if p > 0.0 { stage(move |c, _| truncate::min_p(c, p, min_keep)) } else { None }
        }
        Step::Typical { p, min_keep } => {
            let p = within("typical_p", p, 0.0, 1.0)?;
            if p < 1.0 { fallible(move |c, _| c.keep_typical(p, min_keep)) } else { None }
        }
        Step::TailFree { z, min_keep, keep_crossing } => {
            let z = within("tail_free_z", z, 0.0, 1.0)?;
            if z < 1.0 { fallible(move |c, _| truncate::tail_free(c, z, min_keep, keep_crossing)) } else { None }
        }
        Step::TopNSigma(n) => {
            let n = within("top_n_sigma", n, 0.0, f32::MAX)?;
            if n > 0.0 { stage(move |c, _| truncate::top_n_sigma(c, n)) } else { None }
        }
        Step::Xtc { probability, threshold, min_keep } => {
            let probability = within("xtc_probability", probability, 0.0, 1.0)?;
            let threshold = within("xtc_threshold", threshold, 0.0, 1.0)?;
            let on = probability > 0.0 && threshold <= 0.5;
            if on { stage(move |c, context| truncate::xtc(c, context, probability, threshold, min_keep)) } else { None }
        }
        Step::Penalties { repeat, frequency, presence, last_n } => {
            let repeat = within("repeat_penalty", repeat, f32::MIN_POSITIVE, f32::MAX)?;
            let frequency = within("frequency_penalty", frequency, f32::MIN, f32::MAX)?;
            let presence = within("presence_penalty", presence, f32::MIN, f32::MAX)?;
            let on = (repeat, frequency, presence) != (1.0, 0.0, 0.0) && last_n > 0;
            if on {
                fallible(move |c, context| repeat::penalties(c, context, (repeat, frequency, presence), last_n))
            } else {
                None
            }
        }
        Step::Dry { multiplier, base, allowed_length, last_n, ref breakers } => {
            let multiplier = within("dry_multiplier", multiplier, 0.0, f32::MAX)?;
            let base = within("dry_base", base, 0.0, f32::MAX)?;
            let dry = repeat::Dry::new(multiplier, base, allowed_length, last_n, breakers)?;
            let on = multiplier > 0.0 && base >= 1.0 && last_n > 0;
            if on { fallible(move |c, context| dry.run(c, context)) } else { None }
        }
        Step::LogitBias(ref bias) => {
            let sums = Arc::new(repeat::biases(bias)?);
            stage(move |c, _| c.change(&sums.0, |i, logit| logit + sums.1[i]))
        }
        Step::Ban(ref ids) => {
            let mut ids = try_copy(ids, "the banned tokens")?;
            ids.sort_unstable();
            ids.dedup();
            let ids = Arc::new(ids);
            stage(move |c, _| c.ban(&ids))
        }
        Step::Mirostat { tau, eta, m } => {
            let (tau, eta) = (within("mirostat_tau", tau, 0.0, f32::MAX)?, within("mirostat_eta", eta, 0.0, f32::MAX)?);
            Some(Box::new(mirostat::Mirostat::new(tau, eta, Some(m))))
        }
        Step::MirostatV2 { tau, eta } => {
            let (tau, eta) = (within("mirostat_tau", tau, 0.0, f32::MAX)?, within("mirostat_eta", eta, 0.0, f32::MAX)?);
            Some(Box::new(mirostat::Mirostat::new(tau, eta, None)))
        }
        Step::Callback(ref callback) => {
            let f = Arc::clone(&callback.0);
            fallible(move |c, _| c.call(&*f))
        }
    })
}

/// How many of the last tokens a step looks at.
pub(super) fn window(step: &Step) -> usize {
    match *step {
        Step::Penalties { last_n, .. } | Step::Dry { last_n, .. } => last_n,
        _ => 0,
    }
}

fn stage(f: impl Fn(&mut Candidates, &mut Context<'_>) + Clone + Send + Sync + 'static) -> Option<Box<dyn Stage>> {
    fallible(move |candidates, context| {
        f(candidates, context);
        Ok(())
    })
}

fn fallible(
    f: impl FnMut(&mut Candidates, &mut Context<'_>) -> Result<()> + Clone + Send + Sync + 'static,
) -> Option<Box<dyn Stage>> {
    Some(Box::new(f))
}

/// The parameter `name`, if it is in its range; never NaN.
pub(super) fn within(name: &'static str, value: f32, min: f32, max: f32) -> Result<f64> {
    if (min..=max).contains(&value) {
        return Ok(f64::from(value));
    }
    let range = match (min, max) {
        (f32::MIN, f32::MAX) => "a finite number".to_string(),
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

fn dynamic_temperature(c: &mut Candidates, t: f64, range: f64, exponent: f64) {
    if c.len() < 2 {
        return;
    }
    let (low, high) = ((t - range).max(0.0), t + range);
    // Masked candidates count in n.
    let h = c.entropy() / wide::ln(c.len() as f64);
    let share = if exponent == 0.0 { 1.0 } else { wide::pow(h.max(0.0), exponent) };
    temperature(c, low + (high - low) * share);
}
