//! The sampler: a chain of steps, the tokens accepted so far, and a random generator.

use std::fmt;

use crate::error::{Error, Result};
use crate::numeric::FloatEnvironment;
use crate::rng::Rng;

use super::candidates::Candidates;
use super::steps::{Context, Stage, Step, compile, window};

/// The parameters of the usual chain, see [`Sampler::usual`].
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// See [`Step::Temperature`]; 0 is greedy.
    pub temperature: f32,
    /// See [`Step::TopK`]; 0 is off.
    pub top_k: usize,
    /// See [`Step::TopP`]; 1 is off.
    pub top_p: f32,
    /// See [`Step::MinP`]; 0 is off.
    pub min_p: f32,
    /// See [`Step::RepetitionPenalty`]; 1 is off.
    pub repeat_penalty: f32,
    /// How many of the last tokens the repetition penalty counts.
    pub repeat_last_n: usize,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

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

    /// The usual chain: repetition penalty, top-k, top-p, min-p, temperature. At temperature 0 it is greedy.
    ///
    /// # Errors
    /// `InvalidArgument` as [`push`](Self::push) gives it, for any parameter, whether it would be used or not.
    pub fn usual(params: &Params) -> Result<Sampler> {
        let mut sampler = Sampler::new(params.seed);
        sampler.push(Step::RepetitionPenalty { penalty: params.repeat_penalty, last_n: params.repeat_last_n })?;
        sampler.push(Step::TopK(params.top_k))?;
        sampler.push(Step::TopP { p: params.top_p, min_keep: 1 })?;
        sampler.push(Step::MinP { p: params.min_p, min_keep: 1 })?;
        sampler.push(Step::Temperature(params.temperature))?;
        Ok(sampler)
    }

    /// Appends a step to the chain.
    ///
    /// # Errors
    /// `InvalidArgument` if a parameter is out of its range (NaN is in none), with the facts `parameter`, `expected`
    /// and `found`; the chain is as before.
    pub fn push(&mut self, step: Step) -> Result<()> {
        let stage = compile(step)?;
        self.steps.push(step);
        if let Some(stage) = stage {
            self.stages.push(stage);
            self.window = self.window.max(window(step));
        }
        Ok(())
    }

    /// A sampler with the same chain and seed, at its start.
    ///
    /// # Errors
    /// None that [`push`](Self::push) did not give before.
    pub fn fresh(&self) -> Result<Sampler> {
        let mut fresh = Sampler::new(self.seed);
        for step in &self.steps {
            fresh.push(*step)?;
        }
        Ok(fresh)
    }

    /// The steps of the chain.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Runs the chain on `logits` (V) and draws a token. Each call takes one number from the generator for the draw,
    /// even if one candidate is left. The token is not accepted by this: see [`accept`](Self::accept).
    ///
    /// A NaN counts as -infinity. If every logit is -infinity, token 0 is drawn.
    ///
    /// # Errors
    /// `InvalidArgument` if there are no logits; `OutOfMemory`.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let _environment = FloatEnvironment::enter();
        self.run(logits)?;
        let u = self.rng.next_f64();
        Ok(self.candidates.draw(u))
    }

    /// As [`sample`](Self::sample), with the caller's number instead of the generator's: the result is the first
    /// token, in order of probability and ties by the smaller id, where the sum of the probabilities reaches `u`.
    ///
    /// # Errors
    /// Also `InvalidArgument` if `u` is not in [0, 1].
    pub fn sample_at(&mut self, logits: &[f32], u: f64) -> Result<u32> {
        if !(0.0..=1.0).contains(&u) {
            return Err(Error::invalid_argument(format!("u is {u}, it must be a number from 0 to 1"))
                .with("parameter", "u")
                .with("found", u));
        }
        let _environment = FloatEnvironment::enter();
        self.run(logits)?;
        Ok(self.candidates.draw(u))
    }

    /// Runs the chain on `logits` (V) and gives what it would draw from: the tokens of a probability above 0, most
    /// likely first, ties by the smaller id.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn distribution(&mut self, logits: &[f32]) -> Result<Vec<Candidate>> {
        let _environment = FloatEnvironment::enter();
        self.run(logits)?;
        let candidates = self.candidates.probabilities().map(|(id, probability)| Candidate { id, probability });
        Ok(candidates.filter(|c| c.probability > 0.0).collect())
    }

    /// Tells the sampler that `token` is now part of the text.
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

    /// Back to the start: no accepted tokens, and the generator at its seed.
    pub fn reset(&mut self) {
        // The steps passed their checks when they were pushed.
        self.stages = self.steps.iter().filter_map(|&step| compile(step).ok().flatten()).collect();
        self.history.clear();
        self.rng = Rng::new(self.seed);
    }

    fn run(&mut self, logits: &[f32]) -> Result<()> {
        self.candidates.fill(logits)?;
        let context = Context { history: &self.history };
        for stage in &mut self.stages {
            stage.run(&mut self.candidates, &context);
        }
        Ok(())
    }
}
