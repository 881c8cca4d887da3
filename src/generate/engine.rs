//! Many sequences at once: continuous batching with chunked prefill (Yu et al., "Orca", 2022; Agrawal et al.,
//! "Sarathi-Serve", 2024) over pages of keys and values that sequences share.
//!
//! | file | content |
//! |---|---|
//! | `sequence.rs` | one continuation of a request: its tokens, its pages, how it chooses |
//! | `plan.rs` | which sequences have a part in the next step, and who gives up pages |
//! | `search.rs` | beam searches among them |
//! | `step.rs` | a step in pieces that are short enough for a frame of a game |

mod plan;
mod search;
mod sequence;
mod step;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{BeamOptions, FinishReason, GenerateOptions};
use crate::cache::{PagedCache, PagedOptions, PagedStats, page_positions};
use crate::device::{Device, Isa, Threads};
use crate::error::{Error, Result};
use crate::model::{CacheOptions, Lora, Model};
use crate::numeric::FloatEnvironment;
use crate::sample::{Logprob, Sampler};
use crate::token::Grammar;
use sequence::Sequence;
use step::Core;

/// How to make an engine.
#[derive(Clone, Default)]
pub struct EngineOptions {
    /// What each sequence keeps; it is kept in pages, whatever the kind says.
    pub cache: CacheOptions,
    /// Pages of all sequences together; 0: as many as `max_batch` sequences of the whole context need.
    pub max_pages: usize,
    /// Sequences that are processed together; 0: 8.
    pub max_batch: usize,
    /// Tokens of prompts that are processed together; 0: 256.
    pub chunk: usize,
    /// The pool to compute on; a new one with a thread for each physical core if `None`.
    pub threads: Option<Threads>,
    /// The instruction set; `None`: [`Isa::choose`].
    pub isa: Option<Isa>,
}

/// Sequences that are processed together if the options do not say.
const DEFAULT_BATCH: usize = 8;

/// Continuations of a prompt at most.
const MOST_CONTINUATIONS: usize = 256;

/// A prompt and how it is to go on.
pub struct Request {
    /// The prompt, at least one token.
    pub tokens: Vec<u32>,
    /// When a continuation ends.
    pub options: GenerateOptions,
    /// How tokens are chosen, from the start of the sampler. Continuation n is seeded with the sampler's seed + n.
    pub sampler: Sampler,
    /// What the text of a continuation looks like, as of [`Session::set_grammar`](super::Session::set_grammar).
    pub grammar: Option<Arc<Grammar>>,
    /// Strings that end a continuation.
    pub stops: Vec<Vec<u8>>,
    /// Adapters with their scales, as of [`Session::add_lora`](super::Session::add_lora).
    pub loras: Vec<(Arc<Lora>, f32)>,
    /// Requests with a higher one go first; among equals the one that was submitted first.
    pub priority: i32,
    /// Continuations of the prompt, at most 256; 0 is 1.
    pub count: usize,
    /// Have events tell the log probabilities of tokens, and of so many of the most likely ones beside each.
    pub logprobs: Option<usize>,
    /// Search the most likely continuations instead, as of [`Session::beam_search`](super::Session::beam_search):
    /// `options`, `sampler`, `stops`, `count` and `logprobs` have no part in it. Number i is the i-th best; its events come
    /// together when the search is over, one for each token, and then one with its text and its end. `NotFound` ends
    /// those that were not found.
    pub beams: Option<BeamOptions>,
    /// What the request's events are to carry.
    pub tag: usize,
}

/// A request of an engine. Numbers begin at 1 and are not used again.
pub type RequestId = u64;

/// What became of a request. Each of its continuations ends with exactly one event that has an outcome.
#[derive(Debug, Clone)]
pub struct Event {
    /// The request.
    pub request: RequestId,
    /// The request's tag.
    pub tag: usize,
    /// Which of its continuations.
    pub index: usize,
    /// The token that was chosen.
    pub token: Option<u32>,
    /// The token's log probability and those of the most likely ones, as of
    /// [`Session::logprobs`](super::Session::logprobs), if the request asked for them.
    pub logprobs: Option<(Logprob, Vec<Logprob>)>,
    /// Text that became certain, as of [`Next::text`](super::Next::text).
    pub text: Vec<u8>,
    /// Why the continuation ended, if it did: an error is `Cancelled`, or what made it impossible to go on.
    pub outcome: Option<Result<FinishReason>>,
}

impl Event {
    /// The last event of a continuation that cannot go on.
    fn failed((request, tag): (RequestId, usize), index: usize, error: Error) -> Event {
        Event { request, tag, index, token: None, logprobs: None, text: Vec::new(), outcome: Some(Err(error)) }
    }
}

/// What an engine does and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Sequences that have not been started, or gave up their pages.
    pub waiting: u64,
    /// Sequences that hold pages.
    pub running: u64,
    /// Requests that were submitted.
    pub submitted: u64,
    /// Continuations that came to an end of their own.
    pub finished: u64,
    /// Continuations that were cancelled.
    pub cancelled: u64,
    /// Continuations that failed.
    pub failed: u64,
    /// Steps: passes through the model.
    pub steps: u64,
    /// Sequences that had a part in a step, of all steps.
    pub members: u64,
    /// The most sequences that had a part in one step.
    pub largest_batch: u64,
    /// Tokens of prompts, and of sequences that gave up their pages, that were processed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were found in pages of other sequences.
    pub reused_tokens: u64,
    /// Tokens that were chosen.
    pub generated_tokens: u64,
    /// Times that a sequence gave up its pages to another.
    pub preemptions: u64,
    /// Time in the engine's steps.
    pub time: Duration,
    /// The longest time for which a poll could not return.
    pub largest_quantum: Duration,
    /// The pages.
    pub pages: PagedStats,
}

/// What callers leave for the thread that polls.
#[derive(Default)]
struct Inbox {
    submitted: Vec<Sequence>,
    cancelled: HashSet<RequestId>,
    last: RequestId,
    /// The call that waits, or else the next, returns.
    woken: bool,
}

/// Processes requests together. The output of each is, bit for bit, what it would be alone. Any thread may submit and
/// cancel; one at a time polls or waits.
///
/// ```no_run
/// # use llm::generate::{Engine, EngineOptions, GenerateOptions, Request};
/// # use llm::sample::{Params, Sampler};
/// # fn example(model: std::sync::Arc<llm::model::Model>) -> llm::Result<()> {
/// let engine = Engine::new(model, &EngineOptions::default())?;
/// let options = GenerateOptions { max_tokens: 20, ..GenerateOptions::default() };
/// let sampler = Sampler::usual(&Params::default())?;
/// let id = engine.submit(Request { options, ..Request::new(vec![1, 2, 3], sampler) })?;
/// let mut events = Vec::new();
/// while engine.wait(std::time::Duration::MAX, &mut events)? {
///     for event in events.drain(..) {
///         println!("{id}: {}", String::from_utf8_lossy(&event.text));
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Engine {
    model: Arc<Model>,
    pages: Arc<PagedCache>,
    cache_options: CacheOptions,
    capacity: usize,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    core: Mutex<Core>,
    stats: Mutex<EngineStats>,
}

impl Request {
    /// One continuation of a prompt, of a usual priority, without an end.
    pub fn new(tokens: Vec<u32>, sampler: Sampler) -> Request {
        let (options, stops, loras) = (GenerateOptions::default(), Vec::new(), Vec::new());
        let (grammar, logprobs, beams) = (None, None, None);
        Request { tokens, options, sampler, grammar, stops, loras, priority: 0, count: 1, logprobs, beams, tag: 0 }
    }
}

impl Engine {
    /// An engine with pages of its own.
    ///
    /// # Errors
    /// As [`Session::new`](super::Session::new); `FailedPrecondition` if the model is an encoder.
    pub fn new(model: Arc<Model>, options: &EngineOptions) -> Result<Engine> {
        let capacity = model.config().session_context(options.cache.context_length)?;
        let CacheOptions { kv_type, page_size, .. } = options.cache;
        let whole = capacity.div_ceil(page_positions(page_size)?).saturating_mul(batch(options));
        let max_pages = if options.max_pages == 0 { whole } else { options.max_pages };
        // One pool for the engine and for the cache's own attention.
        let threads = Some(options.threads.clone().unwrap_or_else(Threads::automatic));
        let options = &EngineOptions { threads: threads.clone(), ..options.clone() };
        let paged =
            PagedOptions { kv_type, page_size, threads, isa: options.isa, max_pages, ..PagedOptions::default() };
        let pages = Arc::new(model.paged_cache(&paged)?);
        Engine::in_pages(model, pages, options)
    }

    /// An engine whose sequences go into the pages of `pages`, which decides their number, number type and size.
    ///
    /// # Errors
    /// As `new`, and `InvalidArgument` if `pages` is not for this model.
    pub fn in_pages(model: Arc<Model>, pages: Arc<PagedCache>, options: &EngineOptions) -> Result<Engine> {
        model.check_decoder()?;
        let capacity = model.cache_in(&pages, &options.cache)?.capacity();
        let device = Device::of(options.threads.as_ref(), options.isa)?;
        let chunk = model.chunk(options.chunk);
        let core = Mutex::new(Core::new(Arc::clone(&model), device, Arc::clone(&pages), batch(options), chunk));
        let (inbox, arrived, stats) = (Mutex::default(), Condvar::new(), Mutex::default());
        Ok(Engine { model, pages, cache_options: options.cache, capacity, inbox, arrived, core, stats })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Positions there is room for in a sequence.
    pub fn context_length(&self) -> usize {
        self.capacity
    }

    /// Takes a request, which is processed by [`poll`](Self::poll) and [`wait`](Self::wait).
    ///
    /// # Errors
    /// `InvalidArgument` for an empty prompt, a token outside the vocabulary, a stop string that is empty or not
    /// UTF-8, more than 256 continuations, more log probabilities than there are tokens, a grammar or an adapter of another
    /// model, a search that [`Session::beam_search`](super::Session::beam_search) refuses; `CacheFull` if the prompt does
    /// not fit into the context or the pages; `OutOfMemory`.
    pub fn submit(&self, request: Request) -> Result<RequestId> {
        if request.tokens.is_empty() {
            return Err(Error::invalid_argument("the prompt has no tokens"));
        }
        if request.beams.is_none() && request.count > MOST_CONTINUATIONS {
            let message = format!("{} continuations were asked for, there can be {MOST_CONTINUATIONS}", request.count);
            return Err(Error::invalid_argument(message).with("parameter", "count").with("found", request.count));
        }
        let vocab_size = self.model.config().vocab_size;
        if let Some(count) = request.logprobs.filter(|&count| count > vocab_size) {
            let message = format!("{count} log probabilities were asked for, the vocabulary has {vocab_size} tokens");
            let error = Error::invalid_argument(message).with("parameter", "top_logprobs");
            return Err(error.with("expected", vocab_size).with("found", count));
        }
        if let Some(beams) = &request.beams {
            beams.check()?;
        }
        self.model.check_tokens(&request.tokens)?;
        let (length, positions) = (request.tokens.len(), self.pages.page_positions());
        let pages = self.pages.pages().pool().max_pages();
        let room = self.capacity.min(pages.saturating_mul(positions));
        if length > room {
            let message = format!("a prompt of {length} tokens does not fit: there is room for {room}");
            return Err(Error::cache_full(message).with("tokens", length).with("expected", room));
        }
        for (lora, scale) in &request.loras {
            lora.check(&self.model, *scale)?;
        }
        let salt = self.model.cache_salt(&self.cache_options, self.capacity, &request.loras);
        let cache = self.model.cache_in(&self.pages, &self.cache_options)?;
        let mut sequence = Sequence::new(self.model.tokenizer(), request, cache, salt)?;
        let mut inbox = self.inbox.lock();
        inbox.submitted.try_reserve(1).map_err(|_| Error::out_of_memory("the list of requests cannot grow"))?;
        inbox.last += 1;
        sequence.request = inbox.last;
        inbox.submitted.push(sequence);
        self.arrived.notify_one();
        Ok(inbox.last)
    }

    /// Asks for the end of a request: what is left of it ends with a `Cancelled`, after events that were under way. One
    /// that has ended stays as it is.
    ///
    /// # Errors
    /// `NotFound` if there never was one.
    pub fn cancel(&self, request: RequestId) -> Result<()> {
        let mut inbox = self.inbox.lock();
        if request == 0 || request > inbox.last {
            return Err(Error::not_found(format!("there is no request {request}")).with("request", request));
        }
        inbox.cancelled.insert(request);
        self.arrived.notify_one();
        Ok(())
    }

    /// Makes the [`wait`](Self::wait) that is under way return, or the next one where none is.
    pub fn wake(&self) {
        self.inbox.lock().woken = true;
        self.arrived.notify_one();
    }

    /// Works for about `budget`, if there is anything to do, and adds what happened to `events`. It returns when half of
    /// a piece of work would not fit into the budget any more, so at most one piece after it: a layer, a part of the logits
    /// that takes as long, or a choice. Prompts are processed in chunks that make a layer about a quarter of the budget.
    /// Gives whether there is more to do.
    ///
    /// # Errors
    /// `Busy` while another poll is under way; `OutOfMemory`: nothing is lost then, and the next call tries again. Events
    /// are given out by the next call that succeeds.
    pub fn poll(&self, budget: Duration, events: &mut Vec<Event>) -> Result<bool> {
        self.run(events, |core| {
            let start = Instant::now();
            // Half a piece early is as far from the budget as half a piece late.
            while core.advance(&self.inbox, Some(budget))? && start.elapsed() + core.layer / 2 < budget {}
            Ok(())
        })
    }

    /// Works until something has happened, and adds it to `events`; if there is nothing to do, waits for a request.
    /// Returns without events after `timeout`, and when it is [woken](Self::wake). Gives whether there is more to do.
    ///
    /// # Errors
    /// As `poll`.
    pub fn wait(&self, timeout: Duration, events: &mut Vec<Event>) -> Result<bool> {
        self.run(events, |core| {
            let start = Instant::now();
            loop {
                let more = core.advance(&self.inbox, None)?;
                let left = timeout.saturating_sub(start.elapsed());
                let mut inbox = self.inbox.lock();
                if std::mem::take(&mut inbox.woken) || !core.events.is_empty() || left.is_zero() {
                    return Ok(());
                }
                if !more && inbox.submitted.is_empty() {
                    self.arrived.wait_for(&mut inbox, left);
                }
            }
        })
    }

    fn run(&self, events: &mut Vec<Event>, work: impl FnOnce(&mut Core) -> Result<()>) -> Result<bool> {
        let Some(mut core) = self.core.try_lock() else {
            return Err(Error::busy("another poll of the engine is under way"));
        };
        core.enter()?;
        let _environment = FloatEnvironment::enter();
        let result = work(&mut core);
        core.leave();
        *self.stats.lock() = core.stats();
        result?;
        events.append(&mut core.events);
        Ok(core.busy() || !self.inbox.lock().submitted.is_empty())
    }

    /// What the engine did until the last poll, and its pages now.
    pub fn stats(&self) -> EngineStats {
        let (arrived, last) = {
            let inbox = self.inbox.lock();
            (inbox.submitted.len() as u64, inbox.last)
        };
        let stats = *self.stats.lock();
        EngineStats { waiting: stats.waiting + arrived, submitted: last, pages: self.pages.stats(), ..stats }
    }
}

fn batch(options: &EngineOptions) -> usize {
    if options.max_batch == 0 { DEFAULT_BATCH } else { options.max_batch }
}
