//! A session's generations.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;

use super::args;
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::handle;
use super::sampler::llm_sampler_t;
use super::session::{Conversation, greedy, llm_session_t};
use super::session_params::{LLM_GENERATE_IGNORE_EOG, llm_generate_params_t};
use super::status::llm_status_t;
use super::tokenizer::{LLM_TOKEN_NONE, llm_token_t};
use crate::error::Error;
use crate::generate::{FinishReason, GenerateOptions};
use crate::sample::Logprob;

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
/// The session's context is full: with the last token, or with LLM_TOKEN_NONE where there was no room for one at all.
pub const LLM_FINISH_CONTEXT_FULL: llm_finish_reason_t = 4;
/// The callback of llm_session_generate asked to stop. The generation has not ended: it may go on.
pub const LLM_FINISH_ABORTED: llm_finish_reason_t = 5;
/// The text is what the grammar describes, and nothing may follow.
pub const LLM_FINISH_GRAMMAR: llm_finish_reason_t = 6;

/// Takes a token and the text that is complete with it (see llm_session_next; `size` bytes, not zero-terminated, may be
/// empty, borrowed for the call) and returns whether to go on. The last call of a generation brings the text that was
/// withheld, and its answer does not count. Its token is not appended if it is the end-of-generation token that ends it
/// (LLM_FINISH_EOG), and is LLM_TOKEN_NONE if the context had no room for one (LLM_FINISH_CONTEXT_FULL). Every call on the
/// session from inside is BUSY, but llm_session_free, which takes effect when the generation returns.
pub type llm_token_callback_t =
    Option<unsafe extern "C" fn(token: llm_token_t, text: *const c_char, size: usize, user_data: *mut c_void) -> bool>;

/// Adds a stop string, which ends a generation when it appears in its text. It is never given out: text that may begin
/// one is withheld until that is known. Stop strings stay until they are removed. Special tokens have no text here: a
/// stop string cannot match one, and those that end a turn end the generation anyway. What is withheld when the context
/// is full is given out then: one that begins before a llm_session_shift and ends behind it is not found.
///
/// @param[in] session A session.
/// @param[in] text UTF-8, not empty.
/// @param[in] text_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is empty or not UTF-8
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
            Some(sampler) => sampler.fresh(),
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

pub(super) fn finish_number(reason: Option<FinishReason>) -> llm_finish_reason_t {
    match reason {
        None => LLM_FINISH_NONE,
        Some(FinishReason::Eog) => LLM_FINISH_EOG,
        Some(FinishReason::Stop) => LLM_FINISH_STOP,
        Some(FinishReason::Length) => LLM_FINISH_LENGTH,
        Some(FinishReason::ContextFull) => LLM_FINISH_CONTEXT_FULL,
        Some(FinishReason::Aborted) => LLM_FINISH_ABORTED,
        Some(FinishReason::Grammar) => LLM_FINISH_GRAMMAR,
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
/// @status BUSY, CANCELLED, OUT_OF_MEMORY; CACHE_FULL if shared pages are all taken; FAILED_PRECONDITION if the session is
///     empty or the generation has ended
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

/// A token and its natural log probability.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_logprob_t {
    /// The token.
    pub token: llm_token_t,
    /// ln p, at most 0; -INFINITY for a token that the model excludes.
    pub logprob: f32,
}

/// Writes those of the token that was chosen, and the first of the best that there is room for.
pub(super) fn write_logprobs(
    own: &Logprob,
    best: &[Logprob],
    chosen: args::Out<llm_logprob_t>,
    top: &mut [llm_logprob_t],
) {
    let of = |l: &Logprob| llm_logprob_t { token: l.id, logprob: l.logprob as f32 };
    top.iter_mut().zip(best).for_each(|(top, best)| *top = of(best));
    chosen.write(of(own));
}

/// The log probabilities of the token that the last llm_session_next chose, and of the most probable tokens, after a
/// softmax over the model's logits as they are: no sampler has a part in them. To be called before anything else is
/// computed on the session.
///
/// @param[in] session A session.
/// @param[out] chosen The token that was chosen, an end-of-generation token too.
/// @param[out] top The `capacity` most probable tokens, most probable first, ties by the smaller token.
/// @param[in] capacity Their number, at most V.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION if no token was chosen, or tokens were processed since;
///     INVALID_ARGUMENT if capacity is more than V
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_logprobs(
    session: *mut llm_session_t,
    chosen: *mut llm_logprob_t,
    top: *mut llm_logprob_t,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        let out = args::out(chosen, "chosen")?;
        let top = args::buffer(top, capacity, "top")?;
        let vocab_size = conversation.session.model().config().vocab_size;
        if capacity > vocab_size {
            let message = format!("{capacity} tokens were asked for, the vocabulary has {vocab_size}");
            return Err(Error::invalid_argument(message).with("argument", "capacity").with("vocab_size", vocab_size));
        }
        let (own, best) = conversation.session.logprobs(capacity)?;
        write_logprobs(&own, &best, out, top);
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
/// @status BUSY, CANCELLED, OUT_OF_MEMORY; CACHE_FULL if shared pages are all taken; FAILED_PRECONDITION if the session is
///     empty or the generation has ended
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
