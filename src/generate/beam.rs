//! Beam search: the most likely continuations as a whole, instead of the most likely next token (Lowerre, "The HARPY
//! Speech Recognition System", 1976; the length penalty is that of Wu et al., "Google's Neural Machine Translation
//! System", 2016, in its simple form, a power of the length). It is over when as many continuations as are asked for have
//! ended and score as high as the best that is followed does now. (With a penalty above 0 that one could still become
//! better; but to follow it as long as that is possible takes most searches to the end of the context.)
//!
//! Here is what is followed and what is kept. A session and an engine compute the logits, each in its way.

use std::time::Duration;

use super::FinishReason;
use crate::error::{Error, Result};
use crate::numeric::wide;
use crate::sample::{Logprob, logprobs, logprobs_of_masked};
use crate::token::{DecodeOptions, Grammar, Matcher, Tokenizer};

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamOptions {
    /// Continuations that are followed at a time, and given in the end.
    pub width: usize,
    /// Tokens of a continuation at most; 0: as many as fit.
    pub max_tokens: usize,
    /// Continuations are compared by the sum of their log probabilities over length^penalty: 0 prefers short ones.
    pub length_penalty: f64,
    /// Tokens that end a text or a turn are taken as any other, unless there is a grammar.
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
    /// The sum of the natural log probabilities, that of an ending token included. They are those among all tokens,
    /// also where a grammar allows few.
    pub logprob: f64,
    /// What continuations are ordered by: logprob / length^penalty, an ending token counted.
    pub score: f64,
    /// `Eog`, `Grammar`, `Length` or `ContextFull`.
    pub finish: FinishReason,
}

/// The widest search.
const WIDEST: usize = 256;

/// A search under way.
pub(super) struct Search {
    options: BeamOptions,
    /// Tokens that end a continuation.
    ends: usize,
    /// Tokens of a continuation at most, and what it means to reach them.
    most: usize,
    full: FinishReason,
    /// Those that are followed, all of the same length.
    live: Vec<Live>,
    ended: Vec<Beam>,
    /// (V): the logits of what a grammar allows.
    masked: Vec<f32>,
}

/// A continuation that is followed.
struct Live {
    tokens: Vec<u32>,
    logprob: f64,
    /// As the grammar sees it, if there is one.
    text: Option<Matcher>,
    /// The most likely tokens behind it, once their logits are known: enough to go on with if all ends are among them.
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
        // What is certain is so at any length.
        if logprob == 0.0 { 0.0 } else { logprob / wide::pow(length as f64, self.length_penalty) }
    }
}

impl Search {
    /// A search of continuations that a grammar describes, and for which there is `room`. It follows one, of which
    /// nothing is there.
    pub(super) fn new(options: BeamOptions, tokenizer: &Tokenizer, room: usize, grammar: Option<&Grammar>) -> Search {
        let most = if options.max_tokens == 0 { room } else { options.max_tokens.min(room) };
        let full =
            if most > 0 && most == options.max_tokens { FinishReason::Length } else { FinishReason::ContextFull };
        let live = vec![Live { tokens: Vec::new(), logprob: 0.0, text: grammar.map(Grammar::begin), best: None }];
        Search { options, ends: tokenizer.eog_count(), most, full, live, ended: Vec::new(), masked: Vec::new() }
    }

    /// How many continuations are asked for.
    pub(super) fn width(&self) -> usize {
        self.options.width
    }

    /// Waits for what the grammar allows behind continuation `i` of those that are followed, for a while. True if
    /// [`show`](Self::show) has nothing to wait for.
    pub(super) fn awaits_logits(&mut self, i: usize, patience: Duration) -> bool {
        self.live[i].text.as_mut().is_none_or(|text| text.is_ready(patience))
    }

    /// Shows the logits (V) behind continuation `i` of those that are followed.
    pub(super) fn show(&mut self, i: usize, logits: &[f32]) {
        let Search { options, ends, live, masked, .. } = self;
        let n = (options.width + (*ends).max(options.width)).min(logits.len());
        live[i].best = Some(match &mut live[i].text {
            None => logprobs(logits, 0, n).map(|(_, best)| best),
            Some(text) => {
                let allowed = text.allowed().and_then(|allowed| allowed.mask(logits, masked));
                allowed.and_then(|()| logprobs_of_masked(logits, masked, n))
            }
        });
    }

    /// True if the logits behind all continuations were shown.
    pub(super) fn is_ready(&self) -> bool {
        self.live.iter().all(|live| live.best.is_some())
    }

    /// Chooses what is followed next, by all logits; nothing if the search is over.
    pub(super) fn advance(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Branch>> {
        let BeamOptions { width, ignore_eog, .. } = self.options;
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
        let (mut next, mut branches): (Vec<Live>, Vec<Branch>) = (Vec::new(), Vec::new());
        for (logprob, parent, token) in candidates.into_iter().take_while(|(logprob, ..)| *logprob > f64::NEG_INFINITY)
        {
            let Live { tokens, text, .. } = &mut self.live[parent];
            if tokenizer.is_eog(token) && (!ignore_eog || text.is_some()) {
                let tokens = tokens.clone();
                self.found(tokenizer, tokens, logprob, length, FinishReason::Eog)?;
                continue;
            }
            if next.len() == width {
                continue;
            }
            let mut text = text.as_mut().map(Matcher::fork).transpose()?;
            if let Some(text) = &mut text {
                text.accept(token)?;
            }
            let tokens = tokens.iter().copied().chain([token]).collect();
            if text.as_ref().is_some_and(Matcher::is_complete) {
                self.found(tokenizer, tokens, logprob, length, FinishReason::Grammar)?;
            } else {
                next.push(Live { tokens, logprob, text, best: None });
                branches.push(Branch { parent, token });
            }
        }
        self.keep_best();
        let hope = next.first().map(|live| self.options.score(live.logprob, length));
        let worst = self.ended.last().filter(|_| self.ended.len() == width).map(|beam| beam.score);
        if hope.is_none() || worst.is_some_and(|worst| hope.is_some_and(|hope| hope <= worst)) {
            self.live.clear();
            return Ok(Vec::new());
        }
        self.live = next;
        if length == self.most {
            return self.end(tokenizer);
        }
        self.live.iter_mut().filter_map(|live| live.text.as_mut()).for_each(Matcher::look_ahead);
        Ok(branches)
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
