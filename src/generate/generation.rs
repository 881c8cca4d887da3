//! From logits to a token, and from tokens to text: grammar, sampler, stop strings, limits.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::stop::Stops;
use super::{FinishReason, GenerateOptions};
use crate::error::{Error, Result};
use crate::numeric::FloatEnvironment;
use crate::sample::Sampler;
use crate::token::{Decoder, Grammar, Matcher, Tokenizer};

/// Makes one generation after the other.
pub(super) struct Generation {
    tokenizer: Arc<Tokenizer>,
    decoder: Decoder,
    stops: Stops,
    grammar: Option<Constraint>,
    /// What became certain with the last token.
    text: Vec<u8>,
    /// Bytes of text that were given out before that.
    given_out: usize,
    options: GenerateOptions,
    /// The tokens of this generation.
    given: Vec<u32>,
    /// The sampler is to be reset before it sees any.
    is_new: bool,
    /// Tokens that the sampler has seen, or that were dropped.
    accepted: usize,
    /// Why it ended.
    ended: Option<FinishReason>,
}

/// A grammar, and the text of this generation.
struct Constraint {
    grammar: Arc<Grammar>,
    text: Matcher,
    /// (V): the logits of what the grammar allows.
    masked: Vec<f32>,
}

impl Constraint {
    fn new(grammar: Arc<Grammar>) -> Constraint {
        Constraint { text: grammar.begin(), grammar, masked: Vec::new() }
    }
}

impl Generation {
    pub(super) fn new(tokenizer: &Arc<Tokenizer>) -> Generation {
        Generation {
            tokenizer: Arc::clone(tokenizer),
            decoder: Decoder::new(Arc::clone(tokenizer), false),
            stops: Stops::default(),
            grammar: None,
            text: Vec::new(),
            given_out: 0,
            options: GenerateOptions::default(),
            given: Vec::new(),
            is_new: true,
            accepted: 0,
            ended: None,
        }
    }

    /// The same grammar, stop strings and options, before a generation.
    pub(super) fn fork(&self) -> Result<Generation> {
        let (stops, options) = (self.stops.fresh()?, self.options);
        let mut fork = Generation { stops, options, ..Generation::new(&self.tokenizer) };
        fork.begin();
        fork.grammar = self.grammar.as_ref().map(|constraint| Constraint::new(Arc::clone(&constraint.grammar)));
        Ok(fork)
    }

    /// Begins another generation, with a sampler that is reset and shown all tokens.
    pub(super) fn start(&mut self, options: GenerateOptions) {
        self.options = options;
        (self.is_new, self.accepted) = (true, 0);
        self.begin();
    }

    /// Begins another generation; the sampler goes on.
    pub(super) fn begin(&mut self) {
        self.stops.restart();
        self.decoder.reset();
        if let Some(Constraint { grammar, text, .. }) = &mut self.grammar {
            *text = grammar.begin();
        }
        self.given.clear();
        self.text.clear();
        (self.given_out, self.ended) = (0, None);
    }

    /// When generations end.
    pub(super) fn options(&self) -> GenerateOptions {
        self.options
    }

    /// Sets what the text of a generation looks like, from its next token on.
    ///
    /// # Errors
    /// `InvalidArgument` if the grammar is for another tokenizer.
    pub(super) fn set_grammar(&mut self, grammar: Option<Arc<Grammar>>) -> Result<()> {
        if grammar.as_ref().is_some_and(|grammar| !grammar.is_for(&self.tokenizer)) {
            return Err(Error::invalid_argument("the grammar was made for the tokenizer of another model"));
        }
        self.grammar = grammar.map(Constraint::new);
        Ok(())
    }

    /// What the text of a generation looks like.
    pub(super) fn grammar(&self) -> Option<&Grammar> {
        self.grammar.as_ref().map(|constraint| &*constraint.grammar)
    }

    /// Adds a stop string.
    pub(super) fn add_stop(&mut self, text: &[u8]) -> Result<()> {
        check_stop(text)?;
        self.stops.add(text)
    }

    /// Removes all stop strings.
    pub(super) fn clear_stops(&mut self) {
        self.stops.clear();
    }

    /// Goes on after the tokens of `dropped` were dropped: also if it ended because there was no room.
    pub(super) fn shifted(&mut self, dropped: Range<usize>) {
        if self.accepted > dropped.start {
            // Those behind, as far as the sampler has seen them, have moved up.
            self.accepted = dropped.start + self.accepted.saturating_sub(dropped.end);
        }
        if self.ended == Some(FinishReason::ContextFull) {
            self.ended = None;
        }
    }

    /// The text that was given out, with the special tokens in it.
    ///
    /// # Errors
    /// `FailedPrecondition` if nothing was generated; `OutOfMemory`.
    pub(super) fn answer(&self) -> Result<Vec<u8>> {
        if self.given.is_empty() && matches!(self.ended, None | Some(FinishReason::Aborted | FinishReason::ContextFull))
        {
            return Err(Error::failed_precondition("nothing was generated since the generation began"));
        }
        let (mut answer, mut left) = (Vec::new(), self.given_out + self.text.len());
        for &token in &self.given {
            let text = self.tokenizer.shown(token, false)?;
            // What was withheld, or belongs to a stop string, is not part of it.
            let whole = text.len() <= left;
            let shown = if whole { self.tokenizer.shown(token, true)? } else { &text[..left] };
            answer.try_reserve(shown.len()).map_err(|_| Error::out_of_memory("an answer's text cannot be had"))?;
            answer.extend_from_slice(shown);
            if !whole {
                break;
            }
            left -= text.len();
        }
        if self.tokenizer.prefixes_space() && answer.first() == Some(&b' ') {
            answer.remove(0);
        }
        Ok(answer)
    }

    /// Tokens that may still be generated.
    pub(super) fn left(&self) -> usize {
        match self.options.max_tokens {
            0 => usize::MAX,
            most => most.saturating_sub(self.given.len()),
        }
    }

    /// True once a reason was given.
    pub(super) fn finished(&self) -> bool {
        self.ended.is_some()
    }

    /// The text that became certain with the last call.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Waits for what the grammar allows, for a while. True if [`next`](Self::next) has nothing to wait for.
    pub(super) fn is_ready(&mut self, patience: Duration) -> bool {
        self.grammar.as_mut().is_none_or(|constraint| constraint.text.is_ready(patience))
    }

    /// Chooses what follows `tokens` by its logits (V) and adds it to them, unless it ends the generation. Gives it, and
    /// why the generation ended, if it did: there may be no more than `capacity` tokens.
    pub(super) fn next(
        &mut self,
        sampler: &mut Sampler,
        tokens: &mut Vec<u32>,
        logits: &[f32],
        capacity: usize,
    ) -> Result<(Option<u32>, Option<FinishReason>)> {
        self.forget_text();
        if tokens.len() == capacity {
            return Ok((None, Some(self.finish(FinishReason::ContextFull))));
        }
        let out_of_memory = |_| Error::out_of_memory("the list of tokens cannot grow");
        tokens.try_reserve(1).map_err(out_of_memory)?;
        self.given.try_reserve(1).map_err(out_of_memory)?;
        if std::mem::take(&mut self.is_new) {
            sampler.reset();
        }
        tokens[self.accepted..].iter().for_each(|&token| sampler.accept(token));
        self.accepted = tokens.len();
        let _environment = FloatEnvironment::enter();
        let logits = match &mut self.grammar {
            Some(Constraint { text, masked, .. }) => {
                text.allowed()?.mask(logits, masked)?;
                masked
            }
            None => logits,
        };
        let token = sampler.sample(logits)?;
        // The end of a grammar's text is no text.
        if self.tokenizer.is_eog(token) && (!self.options.ignore_eog || self.grammar.is_some()) {
            if let Some(Constraint { text, .. }) = &mut self.grammar {
                text.check(token)?;
            }
            return Ok((Some(token), Some(self.finish(FinishReason::Eog))));
        }
        if let Some(Constraint { text, .. }) = &mut self.grammar {
            text.accept(token)?;
        }
        let finish = self.push(token, tokens.len() + 1 == capacity);
        if let Some(Constraint { text, .. }) = &mut self.grammar {
            match &finish {
                Ok(None) => text.look_ahead(),
                Ok(Some(_)) => {}
                // Its text has a token that this one lacks.
                Err(error) => drop(text.fail(error.clone())),
            }
        }
        let finish = finish?;
        tokens.push(token);
        Ok((Some(token), finish))
    }

    /// Makes text of a token; `full` if there is room for no other behind it.
    fn push(&mut self, token: u32, full: bool) -> Result<Option<FinishReason>> {
        let stopped = self.stops.push(self.decoder.push(token)?, &mut self.text);
        self.given.push(token);
        if stopped {
            self.ended = Some(FinishReason::Stop);
            self.decoder.reset();
            return Ok(Some(FinishReason::Stop));
        }
        let reason = if self.grammar.as_ref().is_some_and(|constraint| constraint.text.is_complete()) {
            Some(FinishReason::Grammar)
        } else if self.given.len() == self.options.max_tokens {
            Some(FinishReason::Length)
        } else {
            full.then_some(FinishReason::ContextFull)
        };
        Ok(reason.map(|reason| self.finish(reason)))
    }

    /// Ends the generation without a token.
    pub(super) fn end(&mut self, reason: FinishReason) {
        self.forget_text();
        if self.ended.is_none() {
            self.finish(reason);
        }
    }

    /// Makes room for the next text.
    fn forget_text(&mut self) {
        self.given_out += self.text.len();
        self.text.clear();
    }

    /// Gives out the text that was held back.
    fn finish(&mut self, reason: FinishReason) -> FinishReason {
        self.ended = Some(reason);
        let stopped = self.stops.push(self.decoder.finish(), &mut self.text);
        if !stopped {
            self.stops.finish(&mut self.text);
        }
        reason
    }
}

/// `InvalidArgument` for what can be no stop string.
pub(crate) fn check_stop(text: &[u8]) -> Result<()> {
    if text.is_empty() || std::str::from_utf8(text).is_err() {
        return Err(Error::invalid_argument("a stop string must be UTF-8 and not empty"));
    }
    Ok(())
}
