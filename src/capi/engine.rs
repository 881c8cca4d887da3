//! Many sequences at once.

use std::sync::Arc;
use std::time::Duration;

use super::args::{self, Growing};
use super::error::llm_error_t;
use super::events::{self, llm_events_t};
use super::handle::{self, Handle, Kind};
use super::model::{LLM_THREADS_AUTO, llm_model_t, threads};
use super::paged_cache::llm_paged_cache_t;
use super::request::{self, llm_request_t};
use super::session_params::{LLM_ISA_AUTO, LLM_KV_F16, isa, kv_type, llm_isa_t, llm_kv_type_t};
use super::status::llm_status_t;
use crate::cache::CacheKind;
use crate::error::Result;
use crate::generate::{Engine, EngineOptions, Event};
use crate::model::CacheOptions;

/// Processes many requests together; the output of each is, bit for bit, what it would be in a session of its own.
/// Shared, reference counted: any thread may submit and cancel, and one at a time polls or waits, which is when the
/// work is done.
///
/// Keys and values are kept in pages. Requests that begin alike share them, so a common beginning is processed once. When
/// pages run out, the last request in the order of priority and arrival gives up its own, and is computed again later.
///
/// @code{.c}
/// llm_engine_t *engine = NULL;
/// llm_request_t *request = NULL;
/// llm_events_t *events = NULL;
/// llm_request_id_t id;
/// bool going = llm_engine_new(model, NULL, &engine, &error) == LLM_STATUS_OK
///     && llm_request_new(&request, &error) == LLM_STATUS_OK
///     && llm_events_new(&events, &error) == LLM_STATUS_OK
///     && llm_request_set_text(request, tokenizer, "Once", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, &error)
///         == LLM_STATUS_OK
///     && llm_engine_submit(engine, request, &id, &error) == LLM_STATUS_OK;
/// while (going && llm_engine_wait(engine, UINT64_MAX, events, &going, &error) == LLM_STATUS_OK) {
///     for (size_t i = 0; i < llm_events_count(events); i++) {
///         llm_event_t event;
///         event.struct_size = sizeof event;
///         going = llm_events_get(events, i, &event, &error) == LLM_STATUS_OK && going;
///         if (error != NULL) break;
///         fwrite(event.text.data, 1, event.text.size, stdout);
///         if (event.status != LLM_STATUS_OK)
///             fprintf(stderr, "failed: %.*s\n", (int)event.message.size, event.message.data);
///     }
/// }
/// if (error != NULL) fprintf(stderr, "%s\n", llm_error_message(error));
/// llm_error_free(error);
/// llm_events_free(events);
/// llm_request_free(request);
/// llm_engine_free(engine);
/// @endcode
pub struct llm_engine_t {
    _opaque: [u8; 0],
}

impl Handle for llm_engine_t {
    type Value = Engine;
    const KIND: Kind = Kind::Engine;
}

/// A request of an engine. They are numbered from 1 on as they are submitted; one that is refused takes no number.
pub type llm_request_id_t = u64;

/// How to make an engine. Begin with llm_engine_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_engine_params_t {
    /// sizeof(llm_engine_params_t).
    pub struct_size: usize,
    /// Positions there is room for in a sequence; as in llm_session_params_t.
    pub context_length: u32,
    /// Pages of all sequences together; 0 means as many as max_batch sequences of the whole context need. Memory is
    /// taken as they are first used.
    pub max_pages: u32,
    /// Positions of a page, a multiple of 16; 0 means 16.
    pub page_size: u32,
    /// One of LLM_KV_.
    pub kv_type: llm_kv_type_t,
    /// Sequences that are processed together; 0 means 8. More give more tokens a second, each of them later.
    pub max_batch: u32,
    /// Tokens of prompts that are processed together; 0 as in llm_session_params_t.
    pub chunk: u32,
    /// Threads that compute; as in llm_session_params_t.
    pub threads: u32,
    /// One of LLM_ISA_; one that the machine lacks is UNSUPPORTED.
    pub isa: llm_isa_t,
    /// As in llm_session_params_t.
    pub window: u32,
    /// As in llm_session_params_t.
    pub sinks: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_engine_params_t {
    const DEFAULT: Self = llm_engine_params_t {
        struct_size: size_of::<Self>(),
        context_length: 0,
        max_pages: 0,
        page_size: 0,
        kv_type: LLM_KV_F16,
        max_batch: 0,
        chunk: 0,
        threads: LLM_THREADS_AUTO,
        isa: LLM_ISA_AUTO,
        window: 0,
        sinks: 0,
    };
}

/// What an engine does and did. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_engine_stats_t {
    /// sizeof(llm_engine_stats_t).
    pub struct_size: usize,
    /// Sequences that hold no pages: not started, or pages given up.
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
    /// Passes through the model.
    pub steps: u64,
    /// Sequences that had a part in a pass, of all passes: members / steps is the usual size of a batch.
    pub members: u64,
    /// The most sequences that had a part in one pass.
    pub largest_batch: u64,
    /// Tokens of prompts, and of sequences that gave up their pages, that were processed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were found in the pages of others.
    pub reused_tokens: u64,
    /// Tokens that were chosen.
    pub generated_tokens: u64,
    /// Times that a sequence gave up its pages to another.
    pub preemptions: u64,
    /// Microseconds of work: generated_tokens / time_us is the rate.
    pub time_us: u64,
    /// The most microseconds for which a poll could not return.
    pub largest_quantum_us: u64,
    /// Pages that there may be.
    pub pages_total: u64,
    /// Pages that sequences hold.
    pub pages_used: u64,
    /// Pages that more than one of them holds.
    pub pages_shared: u64,
    /// Pages that none of them holds, kept because a request may begin with their tokens.
    pub pages_idle: u64,
    /// Bytes of the pages that are used or idle.
    pub bytes: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_engine_stats_t {
    const DEFAULT: Self = llm_engine_stats_t {
        struct_size: size_of::<Self>(),
        waiting: 0,
        running: 0,
        submitted: 0,
        finished: 0,
        cancelled: 0,
        failed: 0,
        steps: 0,
        members: 0,
        largest_batch: 0,
        prompt_tokens: 0,
        reused_tokens: 0,
        generated_tokens: 0,
        preemptions: 0,
        time_us: 0,
        largest_quantum_us: 0,
        pages_total: 0,
        pages_used: 0,
        pages_shared: 0,
        pages_idle: 0,
        bytes: 0,
    };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_params_init(params: *mut llm_engine_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

fn options(params: &llm_engine_params_t) -> Result<EngineOptions> {
    Ok(EngineOptions {
        cache: CacheOptions {
            kind: CacheKind::Paged,
            context_length: params.context_length as usize,
            kv_type: kv_type(params.kv_type, "params.kv_type")?,
            window: params.window as usize,
            sinks: params.sinks as usize,
            page_size: params.page_size as usize,
        },
        max_pages: params.max_pages as usize,
        max_batch: params.max_batch as usize,
        chunk: params.chunk as usize,
        threads: threads(params.threads),
        isa: isa(params.isa, "params.isa")?,
    })
}

/// Makes an engine with pages of its own.
///
/// @param[in] model The model, which the engine keeps alive.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[out] engine The engine, to be freed with llm_engine_free.
/// @param[out] error @nullable Why it failed.
/// @status as llm_session_new; FAILED_PRECONDITION if the model is an encoder
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_new(
    model: *const llm_model_t,
    params: *const llm_engine_params_t,
    engine: *mut *mut llm_engine_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let out = args::out(engine, "engine")?;
        let options = options(&args::params(params, "params")?)?;
        out.write(handle::new::<llm_engine_t>(Engine::new(Arc::clone(&model.model), &options)?)?);
        Ok(())
    })
}

/// Makes an engine whose sequences go into the pages of a cache, which decides their number, number type and size, and
/// may serve sessions too. Pages that a session or another engine holds cannot be taken from it: a request that waits for
/// none but such pages ends with CACHE_FULL.
///
/// @param[in] model The model, which the engine keeps alive.
/// @param[in] cache The cache, made for a model of this shape; the engine keeps what it needs of it.
/// @param[in] params @nullable How; NULL means the defaults. kv_type, max_pages and page_size do not count.
/// @param[out] engine The engine, to be freed with llm_engine_free.
/// @param[out] error @nullable Why it failed.
/// @status as llm_engine_new; INVALID_ARGUMENT if the cache is for another shape of keys and values
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_new_in_pages(
    model: *const llm_model_t,
    cache: *const llm_paged_cache_t,
    params: *const llm_engine_params_t,
    engine: *mut *mut llm_engine_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let cache = handle::shared(cache, "cache")?;
        let out = args::out(engine, "engine")?;
        let options = options(&args::params(params, "params")?)?;
        let engine = Engine::in_pages(Arc::clone(&model.model), Arc::clone(&cache), &options)?;
        out.write(handle::new::<llm_engine_t>(engine)?);
        Ok(())
    })
}

/// Another reference to the engine, to be freed too.
///
/// @param[in] engine An engine.
/// @return The same engine; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_retain(engine: *const llm_engine_t) -> *mut llm_engine_t {
    value!(std::ptr::null_mut(), { handle::retain(engine) })
}

/// Gives a reference back. With the last one the requests end without further events, and an llm_engine_wait that is
/// under way returns.
///
/// @param[in] engine @nullable An engine; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_free(engine: *mut llm_engine_t) {
    value!((), {
        let held = handle::shared(engine, "engine").ok();
        if handle::free(engine)
            && let Some(engine) = held
        {
            engine.wake();
        }
        Some(())
    })
}

/// Takes a request. It is copied, and processed when the engine is polled.
///
/// @param[in] engine An engine.
/// @param[in] request The request.
/// @param[out] id Its number, which events name.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY; BUSY if another call uses the request; CACHE_FULL if the prompt does not fit into the
///     context or the pages; INVALID_ARGUMENT for an empty prompt, a token outside the vocabulary, more than 256
///     continuations, a top_logprobs above V, a grammar of another model, an adapter of other shapes or with a scale that
///     is not finite, a beam search with a width that is not 1 to 256 or a penalty that is not finite
/// @thread any; the request, one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_submit(
    engine: *const llm_engine_t,
    request: *mut llm_request_t,
    id: *mut llm_request_id_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let engine = handle::shared(engine, "engine")?;
        let request = handle::exclusive(request, "request")?;
        let out = args::out(id, "id")?;
        out.write(engine.submit(request::copy(&request)?)?);
        Ok(())
    })
}

/// Asks for the end of a request. Its continuations that have not ended each get an event with CANCELLED, from the
/// llm_engine_poll or llm_engine_wait that begins the next pass through the model: a pass that is under way is ended
/// first, and may still give each of them a token.
///
/// @param[in] engine An engine.
/// @param[in] id The request; one that has ended stays as it is.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND if there never was one
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_cancel(
    engine: *const llm_engine_t,
    id: llm_request_id_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::shared(engine, "engine")?.cancel(id) })
}

/// Works for about a budget of time, for the loop of a game or of events. It returns when half of a piece of work would
/// not fit into the budget any more, so at most one piece after it: a layer, a part of the logits that takes about as long,
/// or the choice of a token by them (with wide beams or adapters of the output these take longer; llm_engine_stats_t has
/// the longest). Prompts are processed in chunks that make a layer about a quarter of the budget. At least one piece of
/// work is done if there is any.
///
/// @param[in] engine An engine.
/// @param[in] budget_us Microseconds.
/// @param[in] events Filled with what happened, in its order.
/// @param[out] more @nullable Whether there is more to do.
/// @param[out] error @nullable Why it failed.
/// @status BUSY if another call polls the engine or uses the list; OUT_OF_MEMORY, after which the next call tries
///     again: no request and no event is lost; FAILED_PRECONDITION after INTERNAL
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_poll(
    engine: *const llm_engine_t,
    budget_us: u64,
    events: *mut llm_events_t,
    more: *mut bool,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let work = |engine: &Engine, events: &mut _| engine.poll(Duration::from_micros(budget_us), events);
        run(engine, events, more, work)
    })
}

/// Works until something has happened; if there is nothing to do, sleeps until a request is submitted or llm_engine_wake
/// is called.
///
/// @param[in] engine An engine.
/// @param[in] timeout_us Microseconds after which it returns without events; UINT64_MAX is never. It is looked at between
///     pieces of work (a layer of up to `chunk` tokens of prompts, or the logits), and one is done even if it is 0: so it
///     returns late by as much as one takes (largest_quantum_us of llm_engine_stats_t is the longest so far).
/// @param[in] events Filled with what happened, in its order.
/// @param[out] more @nullable Whether there is more to do.
/// @param[out] error @nullable Why it failed.
/// @status as llm_engine_poll
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_wait(
    engine: *const llm_engine_t,
    timeout_us: u64,
    events: *mut llm_events_t,
    more: *mut bool,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let work = |engine: &Engine, events: &mut _| engine.wait(Duration::from_micros(timeout_us), events);
        run(engine, events, more, work)
    })
}

/// Makes the llm_engine_wait that is under way return, or the next one where none is: before a program ends its thread
/// of the engine, or has something else to do on it.
///
/// @param[in] engine An engine.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_wake(engine: *const llm_engine_t, error: *mut *mut llm_error_t) -> llm_status_t {
    fallible!(error, {
        handle::shared(engine, "engine")?.wake();
        Ok(())
    })
}

/// # Safety
/// As the exported functions.
unsafe fn run(
    engine: *const llm_engine_t,
    events: *mut llm_events_t,
    more: *mut bool,
    work: impl FnOnce(&Engine, &mut Vec<Event>) -> Result<bool>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let engine = unsafe { handle::shared(engine, "engine") }?;
    // SAFETY: the caller's promise.
    let mut list = unsafe { handle::exclusive(events, "events") }?;
    // SAFETY: the caller's promise.
    let out = unsafe { args::out_or_null(more, "more") }?;
    let mut events = Vec::new();
    let result = work(&engine, &mut events)?;
    events::fill(&mut list, events);
    out.write(result);
    Ok(())
}

/// What an engine does and did until its last poll.
///
/// @param[in] engine An engine.
/// @param[in,out] stats Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_engine_stats(
    engine: *const llm_engine_t,
    stats: *mut llm_engine_stats_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let engine = handle::shared(engine, "engine")?;
        let out = args::info(stats, "stats")?;
        let s = engine.stats();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        out.write(llm_engine_stats_t {
            struct_size: size_of::<llm_engine_stats_t>(),
            waiting: s.waiting,
            running: s.running,
            submitted: s.submitted,
            finished: s.finished,
            cancelled: s.cancelled,
            failed: s.failed,
            steps: s.steps,
            members: s.members,
            largest_batch: s.largest_batch,
            prompt_tokens: s.prompt_tokens,
            reused_tokens: s.reused_tokens,
            generated_tokens: s.generated_tokens,
            preemptions: s.preemptions,
            time_us: micros(s.time),
            largest_quantum_us: micros(s.largest_quantum),
            pages_total: s.pages.pages_total,
            pages_used: s.pages.pages_used,
            pages_shared: s.pages.pages_shared,
            pages_idle: s.pages.pages_idle,
            bytes: s.pages.bytes,
        });
        Ok(())
    })
}
