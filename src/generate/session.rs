//! One sequence of tokens, its keys and values, and the generation of more.

mod beams;
mod embed;
mod loras;
mod shift;
mod speculation;
mod state;
mod wanted;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::generation::Generation;
use crate::cache::{Cache, PagedCache};
use crate::cancel::Cancel;
use crate::chat::Messages;
use crate::device::{Device, Isa, Threads};
use crate::error::{Error, Result, first_of, try_vec};
use crate::model::{AdapterList, CacheOptions, Model, Observer, Part, Scratch};
use crate::numeric::FloatEnvironment;
use crate::sample::{Logprob, Sampler, logprobs};
use crate::token::{EncodeOptions, Grammar};

use speculation::{Ahead, Guesser};
use wanted::{ROWS, Wanted};

pub use embed::EmbedOptions;
pub use speculation::{Speculation, SpeculationStats};

/// How to make a session.
#[derive(Clone, Default)]
pub struct SessionOptions {
    /// Where keys and values are kept.
    pub cache: CacheOptions,
    /// The pool to compute on; a new one with a thread for each physical core if `None`.
    pub threads: Option<Threads>,
    /// Tokens of a prompt that are processed together; 0: 256, or fewer if they would take more memory than the weights and
    /// than 256 MiB. At most 72 where the logits of each are asked for. Changes speed and memory, not one bit of a result.
    pub chunk: usize,
    /// The instruction set; `None`: [`Isa::choose`].
    pub isa: Option<Isa>,
}

/// When a generation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerateOptions {
    /// Tokens to generate; 0: no limit.
    pub max_tokens: usize,
    /// Tokens that end a text or a turn are taken as any other.
    pub ignore_eog: bool,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model chose a token that ends a text or a turn. It is not kept in the session.
    Eog,
    /// A stop string appeared. Its tokens stay in the session.
    Stop,
    /// The asked number of tokens is reached.
    Length,
    /// The context is full.
    ContextFull,
    /// The caller's callback asked to stop. The generation may go on.
    Aborted,
    /// The text is what the grammar describes, and nothing may follow.
    Grammar,
}

/// One step of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next<'a> {
    /// The token; `None` if the context was full before it could be chosen.
    pub token: Option<u32>,
    /// Text that became certain: whole characters, without special tokens, nothing that may begin a stop string. The
    /// last step's may end within a character.
    pub text: &'a [u8],
    /// `Some` with the last step.
    pub finish: Option<FinishReason>,
}

/// Counts and times since the session was made or reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Tokens appended.
    pub prompt_tokens: u64,
    /// Time of their processing.
    pub prompt_time: Duration,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Time of their generation: forward passes and sampling.
    pub generate_time: Duration,
}

/// A conversation. Exclusive: one call at a time.
pub struct Session {
    model: Arc<Model>,
    device: Device,
    cache: Cache,
    cache_options: CacheOptions,
    scratch: Scratch,
    chunk: usize,
    cancel: Cancel,
    /// All tokens. The cache holds the first of them; the rest is processed when logits are needed: one, or all where a
    /// ring has lost what going back needs.
    tokens: Vec<u32>,
    /// (V): what follows the last cached token.
    logits: Vec<f32>,
    adapters: AdapterList,
    generation: Generation,
    guesser: Option<Guesser>,
    /// What the cache holds beyond `tokens`.
    ahead: Ahead,
    /// What `next` chose, while `logits` are what it chose from.
    chosen: Option<u32>,
    timings: Timings,
}

impl Session {
    /// Shows the inputs of the model's matrices to `observer` from now on.
    pub(super) fn observe(&mut self, observer: Box<dyn Observer>) {
        self.scratch.observer = Some(observer);
    }

    /// An empty session.
    ///
    /// # Errors
    /// `OutOfMemory` if the cache cannot be had, `Unsupported` for an instruction set that the CPU lacks or a number type
    /// that the model's head width does not allow, `InvalidArgument` for a context longer than the model's learned
    /// positions, or cache options that do not go together.
    pub fn new(model: Arc<Model>, options: &SessionOptions) -> Result<Session> {
        let cache = &options.cache;
        let chunk = model.chunk(options.chunk);
        let cache =
            model.config().with_cache(cache, |shape| Cache::new(cache.kind, shape, chunk, cache.page_size))??;
        Session::with_cache(model, cache, options)
    }

    /// An empty session whose keys and values go into the pages of `pages`, which decides their kind, number type and
    /// page size. It takes over the pages that other sessions there have for the same beginning.
    ///
    /// # Errors
    /// As `new`, and `InvalidArgument` if `pages` is not for this model.
    pub fn in_pages(model: Arc<Model>, pages: &PagedCache, options: &SessionOptions) -> Result<Session> {
        let cache = model.cache_in(pages, &options.cache)?;
        Session::with_cache(model, cache, options)
    }

    fn with_cache(model: Arc<Model>, cache: Cache, options: &SessionOptions) -> Result<Session> {
        let device = Device::of(options.threads.as_ref(), options.isa)?;
        let chunk = model.chunk(options.chunk);
        Session::on(device, model, cache, options.cache, chunk)
    }

    fn on(
        device: Device,
        model: Arc<Model>,
        cache: Cache,
        cache_options: CacheOptions,
        chunk: usize,
    ) -> Result<Session> {
        let logits = try_vec(model.config().vocab_size, 0.0, "the logits of a token")?;
        Ok(Session {
            device,
            cache,
            cache_options,
            scratch: Scratch::default(),
            chunk,
            cancel: Cancel::new(),
            tokens: Vec::new(),
            logits,
            adapters: AdapterList::new(),
            generation: Generation::new(model.tokenizer()),
            guesser: None,
            ahead: Ahead::default(),
            chosen: None,
            timings: Timings::default(),
            model,
        })
    }

    /// A session with the same tokens, adapters, stop strings, grammar, options and guesses, ready for another
    /// continuation: a generation of its own, which counts from 0 and begins the grammar's text anew. Keys and values
    /// are shared until one of the two writes to a page that both hold. It is cancelled by a switch of its own.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn fork(&self) -> Result<Session> {
        let out_of_memory = |_| Error::out_of_memory("a fork's tokens cannot be had");
        let mut tokens = Vec::new();
        tokens.try_reserve_exact(self.tokens.len()).map_err(out_of_memory)?;
        tokens.extend_from_slice(&self.tokens);
        let mut logits = try_vec(self.logits.len(), 0.0, "the logits of a token")?;
        logits.copy_from_slice(&self.logits);
        let mut cache = self.cache.fork();
        cache.truncate(self.settled());
        Ok(Session {
            device: self.device.clone(),
            cache,
            cache_options: self.cache_options,
            scratch: Scratch::default(),
            chunk: self.chunk,
            cancel: Cancel::new(),
            tokens,
            logits,
            adapters: self.adapters.clone(),
            generation: self.generation.fork()?,
            guesser: self.guesser.as_ref().map(Guesser::fork).transpose()?,
            ahead: Ahead::default(),
            chosen: None,
            timings: Timings::default(),
            model: Arc::clone(&self.model),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// All tokens, appended and generated.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Positions there is room for.
    pub fn context_length(&self) -> usize {
        self.cache.capacity()
    }

    /// Counts and times.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The flag that calls of this session look at between layers.
    pub fn set_cancel(&mut self, cancel: Cancel) {
        if let Some(guesser) = &mut self.guesser {
            guesser.set_cancel(&cancel);
        }
        self.cancel = cancel;
    }

    /// Adds tokens to the end and processes them. Nothing changes if it fails.
    ///
    /// # Errors
    /// `InvalidArgument` for a token outside the vocabulary, `CacheFull` if they do not all fit, `Cancelled`.
    pub fn append(&mut self, tokens: &[u32]) -> Result<()> {
        self.process(tokens, Wanted::Last)
    }

    /// As [`append`](Session::append), and writes the logits of each of the tokens to `logits`, (T,V). If it fails,
    /// some of them may have been written.
    ///
    /// # Errors
    /// As `append`, and `BufferTooSmall`.
    pub fn eval(&mut self, tokens: &[u32], logits: &mut [f32]) -> Result<()> {
        let n = tokens.len();
        let needed = n.saturating_mul(self.model.config().vocab_size);
        let logits = first_of(logits, needed, format_args!("the logits of {n} tokens are {needed} numbers"))?;
        self.process(tokens, Wanted::Logits(logits))
    }

    /// Tokenises `text` and appends it; gives the number of tokens.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_text(&mut self, text: &[u8], options: EncodeOptions) -> Result<usize> {
        let tokens = self.model.tokenizer().encode(text, options)?;
        self.append(&tokens)?;
        Ok(tokens.len())
    }

    /// Makes the session hold a conversation, ready for the assistant's answer if `answer` is set: keeps the tokens that
    /// it has in common with the conversation's, and appends the others. Gives how many were appended. The template says
    /// which special tokens there are, also at the start; those that are written in a message count as such too.
    ///
    /// # Errors
    /// Those of [`Messages::render`] and [`append`](Session::append); the session then keeps its tokens, or the first of
    /// them if the processing of the new ones fails.
    pub fn append_messages(&mut self, messages: &Messages, answer: bool) -> Result<usize> {
        let tokens = messages.encode(self.model.tokenizer(), answer)?;
        let common = self.tokens.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        self.check_room(common, tokens.len() - common)?;
        if common < self.tokens.len() {
            self.truncate(common)?;
        }
        self.append(&tokens[common..])?;
        // Also where nothing was appended.
        self.begin();
        Ok(tokens.len() - common)
    }

    /// Adds the text that the generation has given to a conversation, as the assistant's message; see
    /// [`Messages::add_answer`]. Special tokens in it are shown, bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// `FailedPrecondition` if nothing was generated since the generation began; `OutOfMemory`.
    pub fn answer(&self, messages: &mut Messages) -> Result<()> {
        messages.add_answer(&String::from_utf8_lossy(&self.generation.answer()?));
        Ok(())
    }

    fn process(&mut self, tokens: &[u32], wanted: Wanted<'_>) -> Result<()> {
        self.model.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Ok(());
        }
        self.check_room(self.tokens.len(), tokens.len())?;
        self.retract();
        let start = Instant::now();
        self.tokens.try_reserve(tokens.len()).map_err(|_| Error::out_of_memory("the list of tokens cannot grow"))?;
        let length = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        if let Err(error) = self.catch_up(0, wanted) {
            self.tokens.truncate(length);
            return Err(error);
        }
        self.begin();
        self.timings.prompt_tokens += tokens.len() as u64;
        self.timings.prompt_time += start.elapsed();
        Ok(())
    }

    /// `FailedPrecondition` if the session holds tokens.
    fn check_empty(&self, what: &str) -> Result<()> {
        match self.tokens.len() {
            0 => Ok(()),
            n => {
                let message = format!("{what} needs an empty session, and this one holds {n} tokens: reset it first");
                Err(Error::failed_precondition(message).with("length", n))
            }
        }
    }

    /// `CacheFull` if `count` tokens do not fit behind `length`.
    fn check_room(&self, length: usize, count: usize) -> Result<()> {
        let capacity = self.cache.capacity();
        if count <= capacity - length {
            return Ok(());
        }
        let message = format!("{count} more tokens do not fit: {length} of the context's {capacity} are in use");
        let error = Error::cache_full(message).with("tokens", count);
        Err(error.with("length", length).with("context_length", capacity))
    }

    /// Processes the tokens that the cache does not hold yet, in chunks, and computes the logits that are wanted. The last
    /// `guesses` may turn out wrong: nobody else is to find their pages.
    fn catch_up(&mut self, guesses: usize, wanted: Wanted<'_>) -> Result<()> {
        let _environment = FloatEnvironment::enter();
        let held = self.cache.length();
        // What a ring forgets on the way is computed again from the tokens; keys that were moved cannot be, and are worth a
        // copy of the pages.
        let before = self.cache.altered() && !self.cache.keeps(held, self.tokens.len());
        let before = before.then(|| self.cache.fork());
        let result = self.chunks(guesses, wanted);
        if result.is_err() {
            match before {
                Some(before) => self.cache = before,
                None => _ = self.cache.truncate(held),
            }
        }
        result
    }

    fn chunks(&mut self, guesses: usize, mut wanted: Wanted<'_>) -> Result<()> {
        let vocab_size = self.model.config().vocab_size;
        let total = self.tokens.len();
        // The first token whose logits are asked for.
        let first = total - wanted.count(vocab_size);
        let salt = self.model.cache_salt(&self.cache_options, self.cache.capacity(), &self.adapters);
        if self.cache.length() == 0 {
            self.cache.adopt(salt, &self.tokens[..first]);
            self.cache.count_hits();
        }
        while self.cache.length() < total {
            let start = self.cache.length();
            let end = total.min(start.saturating_add(self.chunk)).min(start.max(first) + ROWS);
            let asked = first.clamp(start, end) - start..end - start;
            let tokens = &self.tokens[start..end];
            let part = Part { tokens, asked, cache: &mut self.cache, adapters: &self.adapters };
            self.model.forward(&self.device, &mut [part], &mut self.scratch, &self.cancel)?;
            // A pass of which nothing is asked leaves the logits of the one before.
            if end > first {
                let done = start.max(first) - first;
                let logits = self.scratch.logits.data();
                wanted.take(self.device.threads(), logits, vocab_size, done, &self.tokens[first..])?;
            }
            self.cache.commit(end - start);
            self.cache.publish(salt, &self.tokens[..total - guesses]);
        }
        self.chosen = None;
        let logits = self.scratch.logits.data();
        self.logits.copy_from_slice(&logits[logits.len() - vocab_size..]);
        Ok(())
    }

    /// The logits (V) of what follows the last token.
    ///
    /// # Errors
    /// `FailedPrecondition` if there are no tokens; `Cancelled`.
    pub fn logits(&mut self) -> Result<&[f32]> {
        self.check_not_empty()?;
        self.settle();
        if self.cache.length() < self.tokens.len() {
            self.catch_up(0, Wanted::Last)?;
        }
        Ok(&self.logits)
    }

    /// `FailedPrecondition` if the session holds no tokens.
    fn check_not_empty(&self) -> Result<()> {
        match self.tokens.len() {
            0 => Err(Error::failed_precondition("the session has no tokens: append a prompt first")),
            _ => Ok(()),
        }
    }

    /// Keeps the first `length` tokens and forgets the others.
    ///
    /// # Errors
    /// `InvalidArgument` if there are fewer.
    pub fn truncate(&mut self, length: usize) -> Result<()> {
        let found = self.tokens.len();
        if length > found {
            let message = format!("{length} tokens are to be kept, but the session holds {found}");
            return Err(Error::invalid_argument(message).with("expected", length).with("found", found));
        }
        if length < found {
            self.retract();
            self.tokens.truncate(length);
            // The last token is processed again when its logits are asked for.
            self.cache.truncate(length.saturating_sub(1));
        }
        self.start(self.generation.options());
        Ok(())
    }

    /// Forgets all tokens and times. Stop strings, the grammar, adapters and generation options stay.
    pub fn reset(&mut self) {
        self.retract();
        self.tokens.clear();
        self.cache.truncate(0);
        self.timings = Timings::default();
        self.start(self.generation.options());
    }

    /// Adds a string that ends a generation when it appears in the text. It is never given out.
    ///
    /// # Errors
    /// `InvalidArgument` if it is empty or not UTF-8; `OutOfMemory`.
    pub fn add_stop(&mut self, text: &[u8]) -> Result<()> {
        self.generation.add_stop(text)
    }

    /// Removes all stop strings.
    pub fn clear_stops(&mut self) {
        self.generation.clear_stops();
    }

    /// Sets what the text of each generation looks like, from the next token on; `None` for any text. Tokens that end
    /// a text or a turn can be chosen exactly where the grammar's text may end, and then end it, whatever the options
    /// say.
    ///
    /// # Errors
    /// `InvalidArgument` if the grammar was not made for the model's tokenizer.
    pub fn set_grammar(&mut self, grammar: Option<Arc<Grammar>>) -> Result<()> {
        self.generation.set_grammar(grammar)
    }

    /// Begins a generation after the tokens that are there: counts anew, and the sampler of the first
    /// [`next`](Session::next) is reset and shown all tokens. Text that was withheld is dropped; see
    /// [`flush`](Session::flush). Appending, truncating and resetting begin another generation too, with the same
    /// options; after appending the sampler goes on.
    pub fn start(&mut self, options: GenerateOptions) {
        self.generation.start(options);
        self.chosen = None;
    }

    fn begin(&mut self) {
        self.generation.begin();
        self.chosen = None;
    }

    /// Ends the generation and gives the text that was withheld: what may begin a stop string, and the bytes of an
    /// incomplete character.
    pub fn flush(&mut self) -> &[u8] {
        self.generation.end(FinishReason::Aborted);
        self.generation.text()
    }

    /// Chooses the next token, adds it and gives it with the text that became certain. Nothing changes if it fails.
    ///
    /// # Errors
    /// `FailedPrecondition` if there are no tokens, or the generation has finished and nothing was appended since;
    /// `Cancelled`; what the sampler reports.
    pub fn next(&mut self, sampler: &mut Sampler) -> Result<Next<'_>> {
        if self.generation.finished() {
            let message = "the generation has finished: append tokens or start another";
            return Err(Error::failed_precondition(message));
        }
        let start = Instant::now();
        self.cancel.check("the generation")?;
        self.check_not_empty()?;
        self.look_ahead()?;
        let (capacity, length) = (self.cache.capacity(), self.tokens.len());
        let (token, finish) = self.generation.next(sampler, &mut self.tokens, &self.logits, capacity)?;
        self.chosen = token;
        self.timings.generated_tokens += (self.tokens.len() - length) as u64;
        self.timings.generate_time += start.elapsed();
        Ok(Next { token, text: self.generation.text(), finish })
    }

    /// The log probabilities of the token that the last [`next`](Session::next) chose, and of the `n` most likely ones.
    ///
    /// # Errors
    /// `FailedPrecondition` if none was chosen, or something was computed since.
    pub fn logprobs(&self, n: usize) -> Result<(Logprob, Vec<Logprob>)> {
        let Some(token) = self.chosen else {
            let message = "no token was chosen, or tokens were processed since";
            return Err(Error::failed_precondition(message));
        };
        logprobs(&self.logits, token, n)
    }

    /// Calls [`next`](Session::next) until it finishes or `on_token` breaks. If it fails, what was generated stays.
    ///
    /// # Errors
    /// As `next`.
    pub fn generate(
        &mut self,
        sampler: &mut Sampler,
        mut on_token: impl FnMut(Next<'_>) -> ControlFlow<()>,
    ) -> Result<FinishReason> {
        loop {
            let next = self.next(sampler)?;
            let finish = next.finish;
            let flow = on_token(next);
            match finish {
                Some(reason) => return Ok(reason),
                None if flow.is_break() => return Ok(FinishReason::Aborted),
                None => {}
            }
        }
    }
}
