//! Beam search: the most likely continuations as a whole, instead of the most likely next token (Lowerre, "The HARPY
//! Speech Recognition System", 1976; the length penalty is that of Wu et al., "Google's Neural Machine Translation
//! System", 2016, in its simple form, a power of the length).
//!
//! Here is what is followed and what is kept. A session and an engine compute the logits, each in its way.

use super::FinishReason;
use crate::error::{Error, Result};
use crate::numeric::wide;
use crate::sample::{Logprob, logprobs};
use crate::token::{DecodeOptions, Tokenizer};

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamOptions {
    /// Continuations that are followed at a time, and given in the end.
    pub width: usize,
    /// Tokens of a continuation at most; 0: as many as fit.
    pub max_tokens: usize,
    /// Continuations are compared by the sum of their log probabilities over length^penalty: 0 prefers short ones.
    pub length_penalty: f64,
    /// Tokens that end a text or a turn are taken as any other.
    pub ignore_eog: bool,
}

impl Default for BeamOptions {
    fn default() -> Self {
        BeamOptions { width: 4, max_tokens: 0, length_penalty: 1.0, ignore_eog: false }
    }
}

/// A continuation that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Beam {
    /// Its tokens, without one that ends it.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: Vec<u8>,
    /// The sum of the natural log probabilities, that of an ending token included.
    pub logprob: f64,
    /// What continuations are ordered by: logprob / length^penalty, an ending token counted.
    pub score: f64,
    /// `Eog`, `Length` or `ContextFull`.
    pub finish: FinishReason,
}

/// The widest search.
const WIDEST: usize = 256;

/// A search under way.
pub(super) struct Search {
    options: BeamOptions,
    /// Tokens of a continuation at most, and what it means to reach them.
    most: usize,
    full: FinishReason,
    /// Those that are followed, all of the same length.
    live: Vec<Live>,
    ended: Vec<Beam>,
}

/// A continuation that is followed.
struct Live {
    tokens: Vec<u32>,
    logprob: f64,
    /// The most likely tokens behind it, once their logits are known.
    best: Option<Result<Vec<Logprob>>>,
}

/// A continuation to be followed: the number of the one that it goes on from, and the token that it adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Branch {
    pub parent: usize,
    pub token: u32,
}

impl BeamOptions {
    /// `InvalidArgument` for a width that is 0 or above 256, or a penalty that is not finite.
    pub(super) fn check(&self) -> Result<()> {
        let BeamOptions { width, length_penalty, .. } = *self;
        if !(1..=WIDEST).contains(&width) {
            let message = format!("{width} beams were asked for, there can be 1 to {WIDEST}");
            return Err(Error::invalid_argument(message).with("parameter", "width").with("found", width));
        }
        if !length_penalty.is_finite() {
            let message = format!("the length penalty is {length_penalty}, it must be finite");
            let error = Error::invalid_argument(message).with("parameter", "length_penalty");
            return Err(error.with("found", length_penalty));
        }
        Ok(())
    }

    fn score(&self, logprob: f64, length: usize) -> f64 {
        logprob / wide::pow(length as f64, self.length_penalty)
    }
}

impl Search {
    /// A search of continuations for which there is `room`. It follows one, of which nothing is there.
    pub(super) fn new(options: BeamOptions, room: usize) -> Search {
        let most = if options.max_tokens == 0 { room } else { options.max_tokens.min(room) };
        let full =
            if most > 0 && most == options.max_tokens { FinishReason::Length } else { FinishReason::ContextFull };
        let live = vec![Live { tokens: Vec::new(), logprob: 0.0, best: None }];
        Search { options, most, full, live, ended: Vec::new() }
    }

    /// How many continuations are asked for.
    pub(super) fn width(&self) -> usize {
        self.options.width
    }

    /// Shows the logits (V) behind continuation `i` of those that are followed.
    pub(super) fn show(&mut self, i: usize, logits: &[f32]) {
        let n = (2 * self.options.width).min(logits.len());
        self.live[i].best = Some(logprobs(logits, 0, n).map(|(_, best)| best));
    }

    /// True if the logits behind all continuations were shown.
    pub(super) fn is_ready(&self) -> bool {
        self.live.iter().all(|live| live.best.is_some())
    }

    /// Chooses what is followed next, by all logits; nothing if the search is over.
    pub(super) fn advance(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Branch>> {
        let BeamOptions { width, length_penalty, ignore_eog, .. } = self.options;
        let length = self.live.first().map_or(0, |live| live.tokens.len()) + 1;
        if length > self.most {
            return self.end(tokenizer);
        }
        // (logprob, continuation, token)
        let mut candidates: Vec<(f64, usize, u32)> = Vec::new();
        for (i, live) in self.live.iter_mut().enumerate() {
            let best = live.best.take().transpose()?.unwrap_or_default();
            candidates.extend(best.iter().map(|best| (live.logprob + best.logprob, i, best.id)));
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut next: Vec<(f64, Branch)> = Vec::new();
        for (logprob, parent, token) in candidates.into_iter().take_while(|(logprob, ..)| *logprob > f64::NEG_INFINITY)
        {
            if ignore_eog || !tokenizer.is_eog(token) {
                if next.len() < width {
                    next.push((logprob, Branch { parent, token }));
                }
            } else {
                let tokens = self.live[parent].tokens.clone();
                self.found(tokenizer, tokens, logprob, length, FinishReason::Eog)?;
            }
        }
        self.keep_best();
        // No continuation gets better than it is now.
        let longest = if length_penalty > 0.0 { self.most } else { length };
        let hope = next.first().map(|(logprob, _)| self.options.score(*logprob, longest));
        let worst = self.ended.last().filter(|_| self.ended.len() == width).map(|beam| beam.score);
        if hope.is_none() || worst.is_some_and(|worst| hope.is_some_and(|hope| hope <= worst)) {
            self.live.clear();
            return Ok(Vec::new());
        }
        let follow = |&(logprob, Branch { parent, token }): &(f64, Branch)| {
            let tokens = self.live[parent].tokens.iter().copied().chain([token]).collect();
            Live { tokens, logprob, best: None }
        };
        self.live = next.iter().map(follow).collect();
        if length == self.most {
            return self.end(tokenizer);
        }
        Ok(next.into_iter().map(|(_, branch)| branch).collect())
    }

    /// What is followed has all tokens that it may have.
    fn end(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Branch>> {
        for Live { tokens, logprob, .. } in std::mem::take(&mut self.live) {
            let length = tokens.len().max(1);
            self.found(tokenizer, tokens, logprob, length, self.full)?;
        }
        self.keep_best();
        Ok(Vec::new())
    }

    fn found(
        &mut self,
        tokenizer: &Tokenizer,
        tokens: Vec<u32>,
        logprob: f64,
        length: usize,
        finish: FinishReason,
    ) -> Result<()> {
        let text = tokenizer.decode(&tokens, DecodeOptions::default())?;
        let score = self.options.score(logprob, length);
        self.ended.push(Beam { tokens, text, logprob, score, finish });
        Ok(())
    }

    fn keep_best(&mut self) {
        self.ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.ended.truncate(self.options.width);
    }

    /// What was found, best first.
    pub(super) fn take(&mut self) -> Vec<Beam> {
        std::mem::take(&mut self.ended)
    }
}
