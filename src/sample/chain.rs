//! The sampler: a chain of steps, the tokens accepted so far, and a random generator.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::numeric::FloatEnvironment;
use crate::rng::Rng;

use super::candidates::{Candidates, finite, log_total};
use super::steps::{Context, Stage, Step, compile, window};

/// The parameters of the usual chain, see [`Sampler::usual`].
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// The seed of the draws.
    pub seed: u64,
    /// See [`Step::Temperature`]; 0 is greedy.
    pub temperature: f32,
    /// See [`Step::DynamicTemperature`]; 0 is off.
    pub temperature_range: f32,
    /// Its exponent.
    pub temperature_exponent: f32,
    /// See [`Step::TopK`]; 0 is off.
    pub top_k: usize,
    /// See [`Step::TopP`]; 1 is off.
    pub top_p: f32,
    /// See [`Step::MinP`]; 0 is off.
    pub min_p: f32,
    /// See [`Step::Typical`]; 1 is off.
    pub typical_p: f32,
    /// See [`Step::TopNSigma`]; 0 is off.
    pub top_n_sigma: f32,
    /// See [`Step::Xtc`]; 0 is off.
    pub xtc_probability: f32,
    /// Its threshold.
    pub xtc_threshold: f32,
    /// See [`Step::Penalties`]; 1 is off.
    pub repeat_penalty: f32,
    /// 0 is off.
    pub frequency_penalty: f32,
    /// 0 is off.
    pub presence_penalty: f32,
    /// How many of the last tokens the penalties count.
    pub repeat_last_n: usize,
    /// See [`Step::Dry`]; 0 is off.
    pub dry_multiplier: f32,
    /// Its base.
    pub dry_base: f32,
    /// Its free length.
    pub dry_allowed_length: usize,
    /// How many of the last tokens it counts.
    pub dry_last_n: usize,
    /// 1 or 2: [`Step::Mirostat`] or [`Step::MirostatV2`] in the place of what truncates; 0 is off.
    pub mirostat: u32,
    /// Its target.
    pub mirostat_tau: f32,
    /// Its rate.
    pub mirostat_eta: f32,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            seed: 0,
            temperature: 0.8,
            temperature_range: 0.0,
            temperature_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_last_n: 64,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_last_n: 1024,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
        }
    }
}

/// How many tokens Mirostat's first version looks at.
const MIROSTAT_M: usize = 100;

/// A token that a sampler may draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its probability among the candidates, in f64 as the draw uses it.
    pub probability: f64,
}

/// Chooses tokens. Its choices are a function of the steps, the seed, the accepted tokens and the logits.
///
/// ```
/// use llm::sample::{Sampler, Step};
///
/// let mut sampler = Sampler::new(42);
/// sampler.push(Step::TopK(40))?;
/// sampler.push(Step::Temperature(0.8))?;
/// let token = sampler.sample(&[0.5, 2.0, -1.0])?;
/// sampler.accept(token);
/// # Ok::<(), llm::Error>(())
/// ```
///
/// A clone goes on as the original would.
#[derive(Clone)]
pub struct Sampler {
    steps: Vec<Step>,
    /// The compiled steps, without those that are off.
    stages: Vec<Box<dyn Stage>>,
    candidates: Candidates,
    /// The accepted tokens, oldest first; `window` of them count, more may be here.
    history: Vec<u32>,
    window: usize,
    seed: u64,
    rng: Rng,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").field("steps", &self.steps).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Sampler {
    /// An empty chain: tokens are drawn by their probabilities.
    pub fn new(seed: u64) -> Sampler {
        Sampler {
            steps: Vec::new(),
            stages: Vec::new(),
            candidates: Candidates::new(),
            history: Vec::new(),
            window: 0,
            seed,
            rng: Rng::new(seed),
        }
    }

    /// The usual chain: penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature; with Mirostat:
    /// penalties, DRY, temperature, Mirostat. At temperature 0 (with a range of 0) the likeliest token that is left is taken.
    ///
    /// # Errors
    /// `InvalidArgument` as [`push`](Self::push) gives it, for any parameter, whether it would be used or not.
    pub fn usual(params: &Params) -> Result<Sampler> {
        let &Params { repeat_penalty: repeat, frequency_penalty: frequency, presence_penalty: presence, .. } = params;
        let &Params { dry_multiplier: multiplier, dry_base: base, dry_allowed_length: allowed_length, .. } = params;
        let &Params { temperature, temperature_range: range, temperature_exponent: exponent, .. } = params;
        let &Params { mirostat_tau: tau, mirostat_eta: eta, .. } = params;
        let (probability, threshold) = (params.xtc_probability, params.xtc_threshold);
        let breakers = Arc::default();
        let first = [
            Step::Penalties { repeat, frequency, presence, last_n: params.repeat_last_n },
            Step::Dry { multiplier, base, allowed_length, last_n: params.dry_last_n, breakers },
        ];
        let truncating = [
            Step::TopNSigma(params.top_n_sigma),
            Step::TopK(params.top_k),
            Step::Typical { p: params.typical_p, min_keep: 1 },
            Step::TopP { p: params.top_p, min_keep: 1 },
            Step::MinP { p: params.min_p, min_keep: 1 },
            Step::Xtc { probability, threshold, min_keep: 1 },
        ];
        let temperature = Step::DynamicTemperature { temperature, range, exponent };
        let mirostat = [Step::Mirostat { tau, eta, m: MIROSTAT_M }, Step::MirostatV2 { tau, eta }];
        for step in truncating.iter().chain(&mirostat) {
            compile(step)?;
        }
        let mut sampler = Sampler::new(params.seed);
        first.into_iter().try_for_each(|step| sampler.push(step))?;
        if params.mirostat == 0 {
            truncating.into_iter().try_for_each(|step| sampler.push(step))?;
        }
        sampler.push(temperature)?;
        match params.mirostat {
            0 => {}
            n @ (1 | 2) => sampler.push(mirostat[n as usize - 1].clone())?,
            n => {
                let message = format!("mirostat is {n}, it must be 0, 1 or 2");
                return Err(Error::invalid_argument(message)
                    .with("parameter", "mirostat")
                    .with("expected", "0, 1 or 2")
                    .with("found", n));
            }
        }
        Ok(sampler)
    }

    /// Appends a step to the chain.
    ///
    /// # Errors
    /// `InvalidArgument` if a parameter is out of its range (NaN is in none), with the facts `parameter`, `expected`
    /// and `found`; the chain is as before.
    pub fn push(&mut self, step: Step) -> Result<()> {
        let stage = compile(&step)?;
        let no_memory = |_| Error::out_of_memory("no memory for one more step");
        self.steps.try_reserve(1).map_err(no_memory)?;
        self.stages.try_reserve(1).map_err(no_memory)?;
        if let Some(stage) = stage {
            self.stages.push(stage);
            self.window = self.window.max(window(&step));
        }
        self.steps.push(step);
        Ok(())
    }

    /// A sampler with the same chain and seed, at its start: nothing is accepted or learned.
    pub fn fresh(&self) -> Sampler {
        self.reseeded(0)
    }

    /// As [`fresh`](Self::fresh), with a seed that is `more` higher, from the last one on to 0.
    pub(crate) fn reseeded(&self, more: u64) -> Sampler {
        let (steps, stages) = (self.steps.clone(), self.stages.clone());
        let mut fresh = Sampler { steps, stages, window: self.window, ..Sampler::new(self.seed.wrapping_add(more)) };
        fresh.reset();
        fresh
    }

    /// The steps of the chain.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Takes `room` to work in and gives its own: of many samplers that draw one after the other, each needs it only then.
    pub(crate) fn swap_room(&mut self, room: &mut Candidates) {
        std::mem::swap(&mut self.candidates, room);
    }

    /// Runs the chain on `logits` (V) and draws a token. Each call takes one number from the generator for the draw,
    /// even if one candidate is left, and one before that for each XTC step with two candidates or more. The token is not
    /// accepted by this: see [`accept`](Self::accept).
    ///
    /// A draw moves the generator and what Mirostat has learned, accepting moves the history. Who may have to take a
    /// draw back, as in speculative decoding, draws from a clone and keeps that one if the token stays.
    ///
    /// A NaN counts as -infinity. If every logit is -infinity, the first token that is left is drawn.
    ///
    /// # Errors
    /// `InvalidArgument` if there are no logits; `OutOfMemory`.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let mut rng = self.rng.clone();
        let token = self.sample_with(logits, &mut || rng.next_f64())?;
        self.rng = rng;
        Ok(token)
    }

    /// As [`sample`](Self::sample), with the caller's numbers in [0, 1] instead of the generator's: those of the
    /// steps, in the order of the chain, then that of the draw. The token drawn with u is the first, in order of
    /// probability and ties by the smaller id, where the sum of the probabilities reaches u.
    ///
    /// # Errors
    /// As `sample`; `InvalidArgument` if the number of the draw is not in [0, 1].
    pub fn sample_with(&mut self, logits: &[f32], uniform: &mut dyn FnMut() -> f64) -> Result<u32> {
        let _environment = FloatEnvironment::enter();
        self.run(logits, uniform)?;
        let u = uniform();
        if !(0.0..=1.0).contains(&u) {
            return Err(Error::invalid_argument(format!("u is {u}, it must be a number from 0 to 1"))
                .with("parameter", "u")
                .with("found", u));
        }
        let (token, probability) = self.candidates.draw(u);
        self.stages.iter_mut().for_each(|stage| stage.drawn(probability));
        Ok(token)
    }

    /// Runs the chain on `logits` (V) and gives what it would draw from: the tokens of a probability above 0, most
    /// likely first, ties by the smaller id. Nothing is drawn, and the generator stays where it is.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn distribution(&mut self, logits: &[f32]) -> Result<Vec<Candidate>> {
        let mut rng = self.rng.clone();
        self.distribution_with(logits, &mut || rng.next_f64())
    }

    /// As [`distribution`](Self::distribution), with the caller's numbers for steps that want some.
    ///
    /// # Errors
    /// As `sample`.
    pub fn distribution_with(&mut self, logits: &[f32], uniform: &mut dyn FnMut() -> f64) -> Result<Vec<Candidate>> {
        let _environment = FloatEnvironment::enter();
        self.run(logits, uniform)?;
        let candidates = self.candidates.probabilities().map(|(id, probability)| Candidate { id, probability });
        Ok(candidates.filter(|c| c.probability > 0.0).collect())
    }

    /// The bound of the surprise that the first Mirostat step has come to, in bits.
    pub fn mirostat_bound(&self) -> Option<f64> {
        self.stages.iter().find_map(|stage| stage.bound())
    }

    /// Tells the sampler that `token` is now part of the text. Only what its steps look at is kept: a step that is
    /// pushed later knows nothing of what was accepted before, unless another looked as far back.
    pub fn accept(&mut self, token: u32) {
        if self.window == 0 {
            return;
        }
        // Dropping half at a time keeps the cost per token constant.
        if self.history.len() >= self.window.saturating_mul(2).max(1024) {
            self.history.drain(..self.history.len() - self.window);
        }
        self.history.push(token);
    }

    /// Back to the start: no accepted tokens, nothing learned, and the generator at its seed.
    pub fn reset(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.reset());
        self.history.clear();
        self.rng = Rng::new(self.seed);
    }

    fn run(&mut self, logits: &[f32], uniform: &mut dyn FnMut() -> f64) -> Result<()> {
        let mut stages = self.stages.iter_mut();
        match stages.as_slice().first().and_then(|stage| stage.keeps_best()) {
            Some(k) => {
                stages.next();
                self.candidates.fill_best(logits, k)?;
            }
            None => self.candidates.fill(logits)?,
        }
        let mut context = Context { history: &self.history, vocab_size: logits.len(), uniform };
        stages.try_for_each(|stage| stage.run(&mut self.candidates, &mut context))
    }
}

/// The natural logarithm of a token's probability under the model's own logits (V), before any step of a chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logprob {
    /// The token.
    pub id: u32,
    /// ln p; -infinity for a masked one.
    pub logprob: f64,
}

/// The log probabilities of `token` and of the `n` most likely tokens, most likely first, ties by the smaller id.
///
/// # Errors
/// `InvalidArgument` if there are no logits, or none for the token; `OutOfMemory`.
pub fn logprobs(logits: &[f32], token: u32, n: usize) -> Result<(Logprob, Vec<Logprob>)> {
    let _environment = FloatEnvironment::enter();
    let Some(&own) = logits.get(token as usize) else {
        let message = format!("token {token} has none of the {} logits", logits.len());
        return Err(Error::invalid_argument(message).with("token", token).with("vocab_size", logits.len()));
    };
    let log_total = log_total(logits);
    Ok((Logprob { id: token, logprob: finite(own) - log_total }, best(logits, n, log_total)?))
}

/// The `n` most likely of those that `logits` hold, with their log probabilities where exp(`log_total`) is the total.
fn best(logits: &[f32], n: usize, log_total: f64) -> Result<Vec<Logprob>> {
    let mut candidates = Candidates::new();
    if n > 0 {
        candidates.fill_best(logits, n)?;
    }
    Ok(candidates.items().map(|(id, logit)| Logprob { id, logprob: logit - log_total }).collect())
}

/// The `n` most likely tokens of those that `masked` holds the logits of, as [`logprobs`] gives them: with their log
/// probabilities among all.
pub(crate) fn logprobs_of_masked(logits: &[f32], masked: &[f32], n: usize) -> Result<Vec<Logprob>> {
    let _environment = FloatEnvironment::enter();
    best(masked, n, log_total(logits))
}
