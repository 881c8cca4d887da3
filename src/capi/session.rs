//! One conversation.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::args::{self, Growing};
use super::bytes::llm_view_t;
use super::cancel::llm_cancel_t;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::model::llm_model_t;
use super::sampler::llm_sampler_t;
use super::session_params::{LLM_GENERATE_IGNORE_EOG, llm_generate_params_t, llm_session_params_t, options};
use super::status::llm_status_t;
use super::tokenizer::{LLM_TOKEN_NONE, encode_options, llm_token_t};
use crate::Cancel;
use crate::error::Result;
use crate::generate::{FinishReason, GenerateOptions, Session};
use crate::sample::{Sampler, Step};

/// One conversation: the tokens so far, their keys and values, and how to go on. Exclusive. It keeps its model alive.
///
/// A generation begins with llm_session_start, or with the first llm_session_next after tokens were appended. It ends
/// with a finish reason; llm_session_next is then FAILED_PRECONDITION until another begins. llm_session_start, appending,
/// truncating and resetting begin another: tokens are counted anew and text that was withheld is dropped, unless
/// llm_session_flush gave it out before. The sampler is set back to its seed by all but appending.
///
/// @code{.c}
/// llm_session_t *session;
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
    session: Session,
    sampler: Sampler,
}

/// The most probable token.
fn greedy() -> Result<Sampler> {
    let mut sampler = Sampler::new(0);
    sampler.push(Step::Greedy)?;
    Ok(sampler)
}

/// Why a generation ended: one of LLM_FINISH_.
pub type llm_finish_reason_t = i32;

/// It goes on.
pub const LLM_FINISH_NONE: llm_finish_reason_t = 0;
/// The model ended it with an end-of-generation token.
pub const LLM_FINISH_EOG: llm_finish_reason_t = 1;
/// A stop string appeared; it and what follows are not part of the text. The tokens that made it stay in the session.
pub const LLM_FINISH_STOP: llm_finish_reason_t = 2;
/// max_tokens were generated.
pub const LLM_FINISH_LENGTH: llm_finish_reason_t = 3;
/// The session's context is full.
pub const LLM_FINISH_CONTEXT_FULL: llm_finish_reason_t = 4;
/// The callback of llm_session_generate asked to stop. The generation has not ended: it may go on.
pub const LLM_FINISH_ABORTED: llm_finish_reason_t = 5;

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

/// Takes a token and the text that is complete with it (see llm_session_next; `size` bytes, not zero-terminated, may be
/// empty, borrowed for the call) and returns whether to go on. Every call on the session from inside is BUSY, but
/// llm_session_free, which takes effect when the generation returns.
pub type llm_token_callback_t =
    Option<unsafe extern "C" fn(token: llm_token_t, text: *const c_char, size: usize, user_data: *mut c_void) -> bool>;

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
/// @status BUSY, CACHE_FULL, CANCELLED; INVALID_ARGUMENT names a token that is not in the vocabulary
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
/// @param[in] text Any bytes.
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
        if let Some(out) = out {
            out.write(count);
        }
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
/// @status BUSY, CACHE_FULL, CANCELLED, BUFFER_TOO_SMALL; INVALID_ARGUMENT names a token that is not in the vocabulary
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

/// The logits after the last token.
///
/// @param[in] session A session.
/// @param[out] logits (V) floats.
/// @param[in] capacity Of `logits` in floats, at least V.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, BUFFER_TOO_SMALL; CANCELLED; FAILED_PRECONDITION if the session is empty
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
        let logits = conversation.session.logits()?;
        let room = buffer.get_mut(..logits.len());
        room.ok_or_else(|| args::too_small("logits", logits.len(), capacity))?.copy_from_slice(logits);
        Ok(())
    })
}

/// Adds a stop string, which ends a generation when it appears in its text. It is never given out: text that may begin
/// one is withheld until that is known. Stop strings stay until they are removed. Special tokens have no text here: a
/// stop string cannot match one, and those that end a turn end the generation anyway.
///
/// @param[in] session A session.
/// @param[in] text UTF-8, not empty.
/// @param[in] text_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if it is empty or not UTF-8
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_add_stop(
    session: *mut llm_session_t,
    text: *const c_char,
    text_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        conversation.session.add_stop(args::text(text, text_size, "text")?)
    })
}

/// Removes all stop strings. Text that was withheld for them is given out with the next token's.
///
/// @param[in] session A session.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_clear_stops(
    session: *mut llm_session_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(session, "session")?.session.clear_stops();
        Ok(())
    })
}

/// Begins a generation: sets the sampler and the limits, and counts tokens from here. The same tokens, sampler and seed
/// give the same text: to try again differently, give another seed.
///
/// @param[in] session A session.
/// @param[in] sampler @nullable Its steps and seed are copied, it begins at the seed with the
///     session's tokens as its history; NULL takes the most probable token.
/// @param[in] params @nullable Limits; NULL means the defaults.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY, UNSUPPORTED (unknown flags)
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_start(
    session: *mut llm_session_t,
    sampler: *mut llm_sampler_t,
    params: *const llm_generate_params_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let sampler = match handle::exclusive_or_null(sampler, "sampler")? {
            Some(sampler) => sampler.fresh()?,
            None => greedy()?,
        };
        let params = args::params(params, "params")?;
        let flags = args::flags(params.flags, LLM_GENERATE_IGNORE_EOG, "params.flags")?;
        conversation.session.start(GenerateOptions {
            max_tokens: params.max_tokens as usize,
            ignore_eog: flags & LLM_GENERATE_IGNORE_EOG != 0,
        });
        conversation.sampler = sampler;
        Ok(())
    })
}

fn finish_number(reason: Option<FinishReason>) -> llm_finish_reason_t {
    match reason {
        None => LLM_FINISH_NONE,
        Some(FinishReason::Eog) => LLM_FINISH_EOG,
        Some(FinishReason::Stop) => LLM_FINISH_STOP,
        Some(FinishReason::Length) => LLM_FINISH_LENGTH,
        Some(FinishReason::ContextFull) => LLM_FINISH_CONTEXT_FULL,
        Some(FinishReason::Aborted) => LLM_FINISH_ABORTED,
    }
}

/// Chooses the next token and appends it. The token is processed when something needs what follows it: by the next call
/// of this function, by llm_session_logits, or together with tokens that are appended.
///
/// An end-of-generation token is given with the text that was withheld before it, and is not appended. Without
/// llm_session_start the most probable tokens are taken, without limits. On failure no token is appended.
///
/// @param[in] session A session.
/// @param[out] token The token; LLM_TOKEN_NONE if the context had no room for one.
/// @param[out] text The text that is complete with it, may be empty; lives until the next call on the session. Whole
///     characters of UTF-8, except that bytes which the model generates and which cannot become a character come as
///     they are, and that the text of a finish may end within a character.
/// @param[out] finish_reason LLM_FINISH_NONE, or why it ended.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CANCELLED; FAILED_PRECONDITION if the session is empty or the generation has ended
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_next(
    session: *mut llm_session_t,
    token: *mut llm_token_t,
    text: *mut llm_view_t,
    finish_reason: *mut llm_finish_reason_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let (out_token, out_text) = (args::out(token, "token")?, args::out(text, "text")?);
        let out_finish = args::out(finish_reason, "finish_reason")?;
        let Conversation { session, sampler } = &mut *conversation;
        let next = session.next(sampler)?;
        out_token.write(next.token.unwrap_or(LLM_TOKEN_NONE));
        out_text.write(llm_view_t::of(next.text));
        out_finish.write(finish_number(next.finish));
        Ok(())
    })
}

/// Generates until the end: llm_session_next in a loop. If it fails or is cancelled, the tokens that `on_token` got stay
/// in the session.
///
/// @param[in] session A session.
/// @param[in] on_token Called with every token, on this thread.
/// @param[in] user_data @nullable Passed to `on_token`.
/// @param[out] finish_reason Why it ended; LLM_FINISH_ABORTED if `on_token` returned false.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CANCELLED; FAILED_PRECONDITION if the session is empty or the generation has ended
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_generate(
    session: *mut llm_session_t,
    on_token: llm_token_callback_t,
    user_data: *mut c_void,
    finish_reason: *mut llm_finish_reason_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let on_token = args::callback(on_token, "on_token")?;
        let out = args::out(finish_reason, "finish_reason")?;
        let Conversation { session, sampler } = &mut *conversation;
        let reason = session.generate(sampler, |next| {
            let text = llm_view_t::of(next.text);
            if on_token(next.token.unwrap_or(LLM_TOKEN_NONE), text.data, text.size, user_data) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        out.write(finish_number(Some(reason)));
        Ok(())
    })
}

/// Ends the generation and gives the text that was withheld: what may begin a stop string, and the bytes of a character
/// that is not complete. For callers that stop on their own.
///
/// @param[in] session A session.
/// @param[out] text The text, may be empty; lives until the next call on the session.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_flush(
    session: *mut llm_session_t,
    text: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let out = args::out(text, "text")?;
        out.write(llm_view_t::of(conversation.session.flush()));
        Ok(())
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
        let room = buffer.get_mut(..tokens.len());
        room.ok_or_else(|| args::too_small("tokens", tokens.len(), capacity))?.copy_from_slice(tokens);
        Ok(())
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

/// Forgets all tokens and the timings; stop strings, the sampler, the limits and the cancel switch stay.
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
