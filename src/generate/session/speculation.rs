//! Speculative decoding (Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023): tokens
//! that are guessed are processed together with the last one, and the logits behind a right guess are already there. A
//! guess is right if the sampler chooses the same token, so that the text is what it would be without.

use std::sync::Arc;

use super::Session;
use super::wanted::Wanted;
use crate::cache::{Cache, CacheKind};
use crate::cancel::Cancel;
use crate::error::{Error, Result, try_grow};
use crate::model::{CacheOptions, Model};

/// Where guesses come from.
#[derive(Clone)]
pub enum Speculation {
    /// No guesses.
    Off,
    /// What followed the last tokens where they occurred before, among the last 32,768 ("prompt lookup decoding", Saxena,
    /// 2023).
    Lookup {
        /// Tokens guessed at a time at most; more than 64 are 64, 0: 12.
        most: usize,
    },
    /// The most likely tokens of another model of the same vocabulary.
    Draft {
        /// That model.
        model: Arc<Model>,
        /// Tokens guessed at a time at most; more than 64 are 64, 0: 4.
        most: usize,
    },
}

/// What guessing did since it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpeculationStats {
    /// Tokens that were guessed.
    pub guessed: u64,
    /// Guesses that were right.
    pub accepted: u64,
    /// Passes through the model that had guesses.
    pub passes: u64,
}

/// The longest and the shortest run of tokens that is looked up.
const RUN: std::ops::RangeInclusive<usize> = 2..=5;
/// The most guesses: each has a row of logits.
pub(super) const MOST: usize = 64;
/// Tokens that are decoded without guesses at most, after wrong ones.
const LONGEST_REST: u32 = 32;
/// The last tokens of a text, through which `lookup` looks: a text may go on for ever.
const LOOKED_THROUGH: usize = 1 << 15;

enum Source {
    Lookup,
    Draft(Box<Session>),
}

/// What guesses, and how much it trusts itself.
pub(super) struct Guesser {
    source: Source,
    most: usize,
    /// Tokens to guess next time.
    width: usize,
    /// Passes in a row that had no right guess.
    wrong: u32,
    /// Tokens to decode without guesses.
    rest: u32,
    stats: SpeculationStats,
}

/// Guesses that the cache holds behind the tokens of the session.
#[derive(Default)]
pub(super) struct Ahead {
    /// Tokens of the session before them.
    start: usize,
    tokens: Vec<u32>,
    /// Those that turned out right.
    used: usize,
    /// (1 + tokens,V): what follows the tokens before them, and each of them. It may be larger, and stays when they go.
    rows: Vec<f32>,
}

impl Guesser {
    fn new(source: Source, most: usize) -> Guesser {
        let most = most.min(MOST);
        Guesser { source, most, width: most, wrong: 0, rest: 0, stats: SpeculationStats::default() }
    }

    /// For a fork of the session.
    pub(super) fn fork(&self) -> Result<Guesser> {
        let source = match &self.source {
            Source::Lookup => Source::Lookup,
            Source::Draft(session) => Source::Draft(Box::new(session.fork()?)),
        };
        Ok(Guesser::new(source, self.most))
    }

    /// What the draft's calls look at.
    pub(super) fn set_cancel(&mut self, cancel: &Cancel) {
        if let Source::Draft(session) = &mut self.source {
            session.set_cancel(cancel.clone());
        }
    }

    /// At most `room` tokens that may follow.
    fn guess(&mut self, tokens: &[u32], room: usize) -> Vec<u32> {
        if self.rest > 0 {
            self.rest -= 1;
            return Vec::new();
        }
        let n = self.width.min(room);
        match &mut self.source {
            Source::Lookup => lookup(tokens, n),
            // A draft that fails guesses nothing.
            Source::Draft(session) => session.most_likely(tokens, n).unwrap_or_default(),
        }
    }

    /// Learns how many guesses of a pass were right.
    fn learn(&mut self, guessed: usize, right: usize) {
        self.stats.guessed += guessed as u64;
        self.stats.accepted += right as u64;
        self.stats.passes += 1;
        if right == guessed {
            self.width = (2 * self.width).min(self.most);
        } else {
            self.width = (right + 1).min(self.most);
        }
        self.wrong = if right == 0 { self.wrong + 1 } else { 0 };
        self.rest = if self.wrong > 0 { (1 << self.wrong.min(8)).min(LONGEST_REST) } else { 0 };
    }
}

/// Up to n tokens that followed the last occurrence of the longest run that the tokens end with, of the last of them.
fn lookup(tokens: &[u32], n: usize) -> Vec<u32> {
    let tokens = &tokens[tokens.len().saturating_sub(LOOKED_THROUGH)..];
    for length in RUN.rev() {
        let Some(known) = tokens.len().checked_sub(length + 1) else { continue };
        let run = &tokens[tokens.len() - length..];
        if let Some(at) = tokens[..known + length].windows(length).rposition(|window| window == run) {
            return tokens[at + length..].iter().copied().take(n).collect();
        }
    }
    Vec::new()
}

impl Session {
    /// Sets whether tokens are guessed ahead. It changes the speed of a generation and not one of its tokens.
    ///
    /// # Errors
    /// `InvalidArgument` if a draft model has another vocabulary, what [`Session::new`] gives for one, and
    /// `FailedPrecondition` if it is an encoder.
    pub fn set_speculation(&mut self, speculation: Speculation) -> Result<()> {
        let guesser = match speculation {
            Speculation::Off => None,
            Speculation::Lookup { most } => Some(Guesser::new(Source::Lookup, if most == 0 { 12 } else { most })),
            Speculation::Draft { model, most } => {
                let draft = Box::new(self.draft(model)?);
                Some(Guesser::new(Source::Draft(draft), if most == 0 { 4 } else { most }))
            }
        };
        self.retract();
        self.ahead = Ahead::default();
        self.guesser = guesser;
        Ok(())
    }

    /// What guessing did since it was set; zeros if it was not.
    pub fn speculation_stats(&self) -> SpeculationStats {
        self.guesser.as_ref().map(|guesser| guesser.stats).unwrap_or_default()
    }

    /// A session of a draft model.
    fn draft(&self, model: Arc<Model>) -> Result<Session> {
        model.check_decoder()?;
        let (own, other) = (self.model.config().vocab_size, model.config().vocab_size);
        if own != other {
            let message = format!("the draft model has a vocabulary of {other} tokens, the model one of {own}");
            return Err(Error::invalid_argument(message).with("expected", own).with("found", other));
        }
        let context_length = self.context_length().min(model.config().context_length.max(1));
        let CacheOptions { window, sinks, .. } = self.cache_options;
        let options = CacheOptions { context_length, window, sinks, ..CacheOptions::default() };
        let chunk = self.chunk.min(model.chunk(0));
        let cache = model.config().with_cache(&options, |s| Cache::new(CacheKind::Contiguous, s, chunk, 0))??;
        let mut session = Session::on(self.device.clone(), model, cache, options, chunk)?;
        session.set_cancel(self.cancel.clone());
        Ok(session)
    }

    /// As [`Session::logits`] does, makes the logits of what follows the last token, and those behind guesses.
    pub(super) fn look_ahead(&mut self) -> Result<()> {
        self.settle();
        let n = self.tokens.len();
        if self.cache.length() >= n {
            return Ok(());
        }
        let room = (self.cache.capacity() - n).min(self.chunk.saturating_sub(1)).min(self.generation.left());
        // The last token that may be generated needs no logits behind it.
        let guesses = match &mut self.guesser {
            Some(guesser) if self.cache.length() + 1 == n => guesser.guess(&self.tokens, room.saturating_sub(1)),
            _ => Vec::new(),
        };
        let v = self.logits.len();
        let all = (guesses.len() + 1) * v;
        let rows = &mut self.ahead.rows;
        if guesses.is_empty()
            || try_grow(rows, all, 0.0, "the logits behind guesses").is_err()
            || self.tokens.try_reserve(guesses.len()).is_err()
        {
            return self.catch_up(0, Wanted::Last);
        }
        let mut rows = std::mem::take(&mut self.ahead.rows);
        self.tokens.extend_from_slice(&guesses);
        let result = self.catch_up(guesses.len(), Wanted::Logits(&mut rows[..all]));
        self.tokens.truncate(n);
        self.ahead.rows = rows;
        match result {
            // It may do without guesses.
            Err(Error::CacheFull(_) | Error::OutOfMemory(_)) => return self.catch_up(0, Wanted::Last),
            result => result?,
        }
        self.logits.copy_from_slice(&self.ahead.rows[..v]);
        (self.ahead.start, self.ahead.tokens, self.ahead.used) = (n, guesses, 0);
        Ok(())
    }

    /// Takes over the logits behind guesses that turned out right, and forgets the others if one was wrong.
    pub(super) fn settle(&mut self) {
        let (v, Ahead { start, tokens, rows, used }) = (self.logits.len(), &mut self.ahead);
        while let (Some(guess), Some(token)) = (tokens.get(*used), self.tokens.get(*start + *used)) {
            if guess != token {
                self.forget_guesses();
                return;
            }
            *used += 1;
            self.logits.copy_from_slice(&rows[*used * v..][..v]);
            self.chosen = None;
        }
        if *used == tokens.len() {
            self.forget_guesses();
        }
    }

    /// Forgets all guesses that have not turned out right. The logits that the last token was chosen by stay: its log
    /// probability may be asked for.
    pub(super) fn retract(&mut self) {
        if self.chosen.is_none() {
            self.settle();
        }
        self.forget_guesses();
    }

    fn forget_guesses(&mut self) {
        let Ahead { start, tokens, used, rows } = std::mem::take(&mut self.ahead);
        self.ahead.rows = rows;
        if tokens.is_empty() {
            return;
        }
        if let Some(guesser) = &mut self.guesser {
            let chosen = self.tokens.get(start + used..).unwrap_or_default();
            let right = tokens[used..].iter().zip(chosen).take_while(|(guess, token)| guess == token).count();
            guesser.learn(tokens.len(), used + right);
        }
        self.cache.truncate(start + used);
    }

    /// Positions of the cache that are known to hold tokens of the session.
    pub(super) fn settled(&self) -> usize {
        if self.ahead.tokens.is_empty() { self.cache.length() } else { self.ahead.start + self.ahead.used }
    }

    /// The n most likely tokens behind `tokens`, each behind those before it.
    fn most_likely(&mut self, tokens: &[u32], n: usize) -> Result<Vec<u32>> {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.truncate(common)?;
        self.append(&tokens[common..])?;
        let mut found = Vec::with_capacity(n);
        while found.len() < n {
            let best = self.logits()?.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let Some((token, _)) = best else { break };
            found.push(token as u32);
            if found.len() < n {
                self.append(&[token as u32])?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_looks_through_the_last_tokens() {
        let text = |n: usize| [&[1, 2, 3][..], &(10..10 + n as u32).collect::<Vec<_>>(), &[1, 2]].concat();
        assert_eq!(lookup(&text(100), 2), [3, 10]);
        assert_eq!(lookup(&text(LOOKED_THROUGH - 5), 2), [3, 10]);
        assert_eq!(lookup(&text(LOOKED_THROUGH - 4), 2), [0; 0]);
    }
}
