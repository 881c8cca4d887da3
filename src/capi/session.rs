//! One conversation.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use super::args::{self, Growing};
use super::cancel::llm_cancel_t;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::model::llm_model_t;
use super::paged_cache::llm_paged_cache_t;
use super::session_params::{llm_session_params_t, options};
use super::status::llm_status_t;
use super::tokenizer::{encode_options, llm_token_t};
use crate::Cancel;
use crate::error::Result;
use crate::generate::Session;
use crate::sample::{Sampler, Step};

/// One conversation: the tokens so far, their keys and values, and how to go on. Exclusive. It keeps its model alive.
///
/// A generation begins with llm_session_start, or with the first llm_session_next after tokens were appended. It ends
/// with a finish reason; llm_session_next is then FAILED_PRECONDITION until another begins. llm_session_start, appending,
/// truncating and resetting begin another: tokens are counted anew and text that was withheld is dropped, unless
/// llm_session_flush gave it out before. The sampler is set back to its seed by all but appending.
///
/// A model of the architecture "bert" or "nomic-bert", or one whose file says that it is not causal, is an encoder: its sessions give embeddings (llm_session_embed),
/// and appending to them is FAILED_PRECONDITION.
///
/// @code{.c}
/// llm_session_t *session = NULL;
/// if (llm_session_new(model, NULL, &session, &error) == LLM_STATUS_OK
///     && llm_session_append_text(session, "Once upon a time", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, NULL, &error)
///         == LLM_STATUS_OK
///     && llm_session_start(session, NULL, NULL, &error) == LLM_STATUS_OK) {
///     llm_token_t token;
///     llm_view_t text;
///     llm_finish_reason_t finish = LLM_FINISH_NONE;
///     while (finish == LLM_FINISH_NONE && llm_session_next(session, &token, &text, &finish, &error) == LLM_STATUS_OK)
///         fwrite(text.data, 1, text.size, stdout);
/// }
/// if (error != NULL) fprintf(stderr, "%s\n", llm_error_message(error));
/// llm_error_free(error);
/// llm_session_free(session);
/// @endcode
pub struct llm_session_t {
    _opaque: [u8; 0],
}

impl Handle for llm_session_t {
    type Value = Conversation;
    const KIND: Kind = Kind::Session;
}

/// A session and how it chooses tokens.
pub(super) struct Conversation {
    pub(super) session: Session,
    pub(super) sampler: Sampler,
}

/// The most probable token.
pub(super) fn greedy() -> Result<Sampler> {
    let mut sampler = Sampler::new(0);
    sampler.push(Step::Greedy)?;
    Ok(sampler)
}

/// What a session did since it was made or reset, and how long it took. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_timings_t {
    /// sizeof(llm_timings_t).
    pub struct_size: usize,
    /// Tokens that the caller appended or evaluated.
    pub prompt_tokens: u64,
    /// Microseconds that these took.
    pub prompt_us: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Microseconds that these took, sampling included.
    pub generated_us: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_timings_t {
    const DEFAULT: Self = llm_timings_t {
        struct_size: size_of::<Self>(),
        prompt_tokens: 0,
        prompt_us: 0,
        generated_tokens: 0,
        generated_us: 0,
    };
}

/// Makes a session. Address space for the whole key/value cache is taken here, memory as positions are first used.
///
/// @param[in] model The model.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[out] session The session, to be freed with llm_session_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY; UNSUPPORTED if the machine lacks the instruction set, or for a field that is not known;
///     INVALID_ARGUMENT for a context longer than the positions of a model that has learned them
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_new(
    model: *const llm_model_t,
    params: *const llm_session_params_t,
    session: *mut *mut llm_session_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let out = args::out(session, "session")?;
        let options = options(&args::params(params, "params")?)?;
        let session = Session::new(Arc::clone(&model.model), &options)?;
        out.write(handle::new::<llm_session_t>(Conversation { session, sampler: greedy()? })?);
        Ok(())
    })
}

/// Makes a session whose keys and values go into the pages of a cache, which decides their number type and the size of a
/// page. It takes over pages that sessions of the model with the same adapters and window have for the same beginning, so
/// that this is neither computed nor kept twice.
///
/// @param[in] model The model.
/// @param[in] cache The cache, made for a model of this shape; the session keeps what it needs of it.
/// @param[in] params @nullable How; NULL means the defaults. kv_type, cache and page_size do not count.
/// @param[out] session The session, to be freed with llm_session_free.
/// @param[out] error @nullable Why it failed.
/// @status as llm_session_new; INVALID_ARGUMENT if the cache is for another shape of keys and values
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_new_in_pages(
    model: *const llm_model_t,
    cache: *const llm_paged_cache_t,
    params: *const llm_session_params_t,
    session: *mut *mut llm_session_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let cache = handle::shared(cache, "cache")?;
        let out = args::out(session, "session")?;
        let options = options(&args::params(params, "params")?)?;
        let session = Session::in_pages(Arc::clone(&model.model), &cache, &options)?;
        out.write(handle::new::<llm_session_t>(Conversation { session, sampler: greedy()? })?);
        Ok(())
    })
}

/// Makes another session with the same tokens, stop strings, grammar and adapters, to go on in another way. Keys and
/// values are shared until one of the two writes: a page of LLM_CACHE_PAGED, or a whole cache of the other kinds, is copied then.
/// The fork has the same sampler, set back to its seed, and no cancel switch. It begins a generation of its own, with the
/// same limits: it counts tokens from 0, and a grammar's text begins anew.
///
/// @param[in] session A session.
/// @param[out] fork The new one, to be freed with llm_session_free.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_fork(
    session: *mut llm_session_t,
    fork: *mut *mut llm_session_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        let out = args::out(fork, "fork")?;
        let (session, sampler) = (conversation.session.fork()?, conversation.sampler.fresh());
        out.write(handle::new::<llm_session_t>(Conversation { session, sampler })?);
        Ok(())
    })
}

/// Frees a session; from inside its own callback, when the call around it ends.
///
/// @param[in] session @nullable A session; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_free(session: *mut llm_session_t) {
    value!((), {
        handle::free(session);
        Some(())
    })
}

/// Appends tokens and processes them. On failure nothing is appended.
///
/// @param[in] session A session.
/// @param[in] tokens The tokens.
/// @param[in] count Their number; 0 does nothing.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CACHE_FULL, CANCELLED, OUT_OF_MEMORY; INVALID_ARGUMENT names a token that is not in the vocabulary
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_append_tokens(
    session: *mut llm_session_t,
    tokens: *const llm_token_t,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let tokens = args::slice(tokens, count, "tokens")?;
        conversation.session.append(tokens)
    })
}

/// Turns text into tokens, appends them and processes them. On failure nothing is appended.
///
/// @param[in] session A session.
/// @param[in] text Any bytes; a text without tokens does nothing.
/// @param[in] text_size Their number, or LLM_NUL_TERMINATED.
/// @param[in] flags LLM_ENCODE_ bits; LLM_ENCODE_ADD_SPECIAL is for the first text of a session: it adds the model's
///     beginning token each time.
/// @param[out] count @nullable How many tokens were appended.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CACHE_FULL, CANCELLED, OUT_OF_MEMORY, UNSUPPORTED (unknown flags, or a model without tokenizer)
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_append_text(
    session: *mut llm_session_t,
    text: *const c_char,
    text_size: usize,
    flags: u32,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let text = args::text(text, text_size, "text")?;
        let out = args::out_or_null(count, "count")?;
        let count = conversation.session.append_text(text, encode_options(flags)?)?;
        out.write(count);
        Ok(())
    })
}

/// Appends tokens, processes them and gives the logits after each. On failure nothing is appended, but some of
/// `logits` may have been written.
///
/// @param[in] session A session.
/// @param[in] tokens The tokens.
/// @param[in] count Their number T.
/// @param[out] logits (T,V) floats: row t holds the logits of the token that follows tokens[t].
/// @param[in] capacity Of `logits` in floats, at least T * V.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CACHE_FULL, CANCELLED, BUFFER_TOO_SMALL, OUT_OF_MEMORY; INVALID_ARGUMENT names a token that is not in the vocabulary
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_eval(
    session: *mut llm_session_t,
    tokens: *const llm_token_t,
    count: usize,
    logits: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let tokens = args::slice(tokens, count, "tokens")?;
        let logits = args::buffer(logits, capacity, "logits")?;
        conversation.session.eval(tokens, logits)
    })
}

/// Appends tokens, processes them and gives the log probability of each after those before it: what llm_session_logprobs
/// would give, had it been chosen. Needs room for the logits of 72 tokens at most, however many are scored. On failure nothing
/// is appended, but some of `logprobs` may have been written.
///
/// The perplexity of a text: append its first token with llm_session_append_tokens and score the others; it is
/// exp(-(sum of their log probabilities) / (number of them)).
///
/// @param[in] session A session.
/// @param[in] tokens The tokens.
/// @param[in] count Their number T; 0 does nothing.
/// @param[out] logprobs (T) natural logarithms.
/// @param[in] capacity Of `logprobs`, at least T.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CACHE_FULL, CANCELLED, BUFFER_TOO_SMALL, OUT_OF_MEMORY; FAILED_PRECONDITION if the session is empty and
///     count is not 0: nothing is before the first token; INVALID_ARGUMENT names a token that is not in the vocabulary
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_score(
    session: *mut llm_session_t,
    tokens: *const llm_token_t,
    count: usize,
    logprobs: *mut f64,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let tokens = args::slice(tokens, count, "tokens")?;
        let logprobs = args::buffer(logprobs, capacity, "logprobs")?;
        conversation.session.score(tokens, logprobs)
    })
}

/// The logits after the last token.
///
/// @param[in] session A session.
/// @param[out] logits (V) floats.
/// @param[in] capacity Of `logits` in floats, at least V.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, BUFFER_TOO_SMALL, CANCELLED, CACHE_FULL, OUT_OF_MEMORY; FAILED_PRECONDITION if the session is empty
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_logits(
    session: *mut llm_session_t,
    logits: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let buffer = args::buffer(logits, capacity, "logits")?;
        args::copy(conversation.session.logits()?, buffer, "logits")
    })
}

/// The number of tokens in the session.
///
/// @param[in] session A session.
/// @param[out] length In tokens.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_length(
    session: *mut llm_session_t,
    length: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        args::out(length, "length")?.write(conversation.session.tokens().len());
        Ok(())
    })
}

/// The number of tokens that the session has room for.
///
/// @param[in] session A session.
/// @param[out] length In tokens.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_context_length(
    session: *mut llm_session_t,
    length: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        args::out(length, "length")?.write(conversation.session.context_length());
        Ok(())
    })
}

/// Copies the tokens in the session.
///
/// @param[in] session A session.
/// @param[out] tokens Room for `capacity` tokens.
/// @param[in] capacity In tokens, at least llm_session_length.
/// @param[out] count How many there are; also written with BUFFER_TOO_SMALL.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, BUFFER_TOO_SMALL
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_tokens(
    session: *mut llm_session_t,
    tokens: *mut llm_token_t,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        let buffer = args::buffer(tokens, capacity, "tokens")?;
        let out = args::out(count, "count")?;
        let tokens = conversation.session.tokens();
        out.write(tokens.len());
        args::copy(tokens, buffer, "tokens")
    })
}

/// Keeps the first tokens and forgets the others.
///
/// @param[in] session A session.
/// @param[in] length How many tokens to keep, at most llm_session_length.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if it has fewer
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_truncate(
    session: *mut llm_session_t,
    length: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(session, "session")?.session.truncate(length) })
}

/// Forgets all tokens and the timings; stop strings, the grammar, adapters, the sampler, the limits and the cancel
/// switch stay.
///
/// @param[in] session A session.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_reset(session: *mut llm_session_t, error: *mut *mut llm_error_t) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(session, "session")?.session.reset();
        Ok(())
    })
}

/// Sets the switch that stops calls on this session from another thread.
///
/// @param[in] session A session.
/// @param[in] cancel @nullable The switch, of which the session keeps what it needs; NULL for none.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_set_cancel(
    session: *mut llm_session_t,
    cancel: *const llm_cancel_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let cancel = handle::shared_or_null(cancel, "cancel")?;
        conversation.session.set_cancel(cancel.as_deref().cloned().unwrap_or_else(Cancel::new));
        Ok(())
    })
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the session did and how long it took.
///
/// @param[in] session A session.
/// @param[in,out] timings Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_timings(
    session: *mut llm_session_t,
    timings: *mut llm_timings_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        let out = args::info(timings, "timings")?;
        let timings = conversation.session.timings();
        out.write(llm_timings_t {
            prompt_tokens: timings.prompt_tokens,
            prompt_us: microseconds(timings.prompt_time),
            generated_tokens: timings.generated_tokens,
            generated_us: microseconds(timings.generate_time),
            ..Growing::DEFAULT
        });
        Ok(())
    })
}
