//! One continuation of a request.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Event, Request, RequestId};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::generate::beam::Search;
use crate::generate::generation::Generation;
use crate::model::{AdapterList, Part};
use crate::sample::{Candidates, Sampler, logprobs};
use crate::token::Tokenizer;

pub(super) struct Sequence {
    pub request: RequestId,
    tag: usize,
    pub index: usize,
    pub priority: i32,
    /// The prompt and what was generated. The cache holds the first of them.
    pub tokens: Vec<u32>,
    /// How many of them count as a prompt's: the prompt, or all tokens that were there when it gave up its pages.
    pub prompt: usize,
    pub cache: Cache,
    /// What keys and values depend on beside the tokens.
    pub salt: u64,
    pub adapters: AdapterList,
    sampler: Sampler,
    generation: Generation,
    /// How many of the most likely tokens its events tell the log probabilities of.
    logprobs: Option<usize>,
    /// Continuations of the same prompt that are made of this one when the prompt is processed.
    pub siblings: usize,
    /// The tokens that the step under way processes.
    pub part: Range<usize>,
    /// The beam search in which it is continuation `index` of those that are followed.
    pub search: Option<Arc<Mutex<Search>>>,
    /// The search has its logits: it waits for the others.
    pub shown: bool,
    /// It has given its last event.
    pub ended: bool,
}

impl Sequence {
    /// The first continuation of a request that is not numbered yet.
    pub(super) fn new(tokenizer: &Arc<Tokenizer>, request: Request, cache: Cache, salt: u64) -> Result<Sequence> {
        let mut generation = Generation::new(tokenizer);
        request.stops.iter().try_for_each(|stop| generation.add_stop(stop))?;
        generation.set_grammar(request.grammar)?;
        generation.start(request.options);
        let room = cache.capacity() - request.tokens.len();
        let search = |options| Arc::new(Mutex::new(Search::new(options, tokenizer, room, generation.grammar())));
        let search = request.beams.map(search);
        Ok(Sequence {
            request: 0,
            tag: request.tag,
            index: 0,
            priority: request.priority,
            prompt: request.tokens.len(),
            tokens: request.tokens,
            cache,
            salt,
            adapters: request.loras,
            sampler: request.sampler.fresh(),
            generation,
            logprobs: request.logprobs,
            siblings: if search.is_some() { 0 } else { request.count.saturating_sub(1) },
            part: 0..0,
            search,
            shown: false,
            ended: false,
        })
    }

    /// Continuation `index`, which shares this one's pages.
    pub(super) fn fork(&self, index: usize) -> Result<Sequence> {
        let mut tokens = Vec::new();
        let out_of_memory = |_| Error::out_of_memory("the tokens of a continuation cannot be had");
        tokens.try_reserve(self.tokens.len()).map_err(out_of_memory)?;
        tokens.extend_from_slice(&self.tokens);
        Ok(Sequence {
            index,
            tokens,
            cache: self.cache.fork(),
            adapters: self.adapters.clone(),
            sampler: self.sampler.reseeded(index as u64),
            generation: self.generation.fork()?,
            siblings: 0,
            part: 0..0,
            search: self.search.clone(),
            shown: false,
            ..*self
        })
    }

    /// Its request, and the tag of that.
    pub(super) fn name(&self) -> (RequestId, usize) {
        (self.request, self.tag)
    }

    /// Lower goes first.
    pub(super) fn order(&self) -> (Reverse<i32>, RequestId, usize) {
        (Reverse(self.priority), self.request, self.index)
    }

    /// Tokens that are not processed.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.cache.length()
    }

    /// True if it has pages and a prompt that is not processed.
    pub(super) fn computes_pages(&self) -> bool {
        self.cache.pages() > 0 && !self.shown && self.pending() > 1
    }

    /// True if the step under way gives the logits of the last token.
    pub(super) fn asks(&self) -> bool {
        self.part.end == self.tokens.len() && !self.part.is_empty()
    }

    /// Its part of the step, for the model.
    pub(super) fn for_pass(&mut self) -> Part<'_> {
        let n = self.part.len();
        let asked = n - usize::from(self.asks())..n;
        Part { tokens: &self.tokens[self.part.clone()], asked, cache: &mut self.cache, adapters: &self.adapters }
    }

    /// Gives up all pages.
    pub(super) fn give_up(&mut self) {
        self.cache.truncate(0);
        self.prompt = self.tokens.len();
        self.part = 0..0;
    }

    /// Waits for what it needs beside the logits to choose, for a while. True if that is there.
    pub(super) fn is_ready(&mut self, patience: Duration) -> bool {
        match &self.search {
            Some(search) => search.lock().awaits_logits(self.index, patience),
            None => self.generation.is_ready(patience),
        }
    }

    /// Chooses the next token by its logits. The sampler works in `room`: its own could be as large as the vocabulary, and
    /// sequences are many.
    pub(super) fn choose(&mut self, logits: &[f32], room: &mut Candidates) -> Event {
        let capacity = self.cache.capacity();
        self.sampler.swap_room(room);
        let next = self.generation.next(&mut self.sampler, &mut self.tokens, logits, capacity);
        self.sampler.swap_room(room);
        let next = next.and_then(|next| {
            let asked = next.0.zip(self.logprobs);
            Ok((next, asked.map(|(token, n)| logprobs(logits, token, n)).transpose()?))
        });
        let (token, logprobs, outcome) = match next {
            Ok(((token, finish), logprobs)) => (token, logprobs, finish.map(Ok)),
            Err(error) => (None, None, Some(Err(error))),
        };
        if outcome.is_some() {
            self.end();
        }
        let text = self.generation.text().to_vec();
        let (request, tag) = self.name();
        Event { request, tag, index: self.index, token, logprobs, text, outcome }
    }

    /// Ends the sequence, and those that were to be made of it, with an error.
    pub(super) fn fail(&mut self, error: &Error) -> Vec<Event> {
        self.end();
        let indices = self.index..=self.index + self.siblings;
        indices.map(|index| Event::failed(self.name(), index, error.clone())).collect()
    }

    /// No event comes of it any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.give_up();
    }
}
