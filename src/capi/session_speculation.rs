//! Guessing tokens ahead.

use std::sync::Arc;

use super::args::{self, Growing};
use super::error::llm_error_t;
use super::handle;
use super::model::llm_model_t;
use super::session::llm_session_t;
use super::status::llm_status_t;
use crate::generate::Speculation;

/// What guessing did since it was set. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_speculation_t {
    /// sizeof(llm_speculation_t).
    pub struct_size: usize,
    /// Tokens that were guessed.
    pub guessed: u64,
    /// Guesses that were right; accepted / guessed is the rate of acceptance.
    pub accepted: u64,
    /// Passes through the model that had guesses: each gives a token, and one more for each right guess.
    pub passes: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_speculation_t {
    const DEFAULT: Self = llm_speculation_t { struct_size: size_of::<Self>(), guessed: 0, accepted: 0, passes: 0 };
}

/// Guesses tokens ahead from now on, for speed: what followed the last tokens where they occurred before, among the last
/// 32,768, is processed together with them, and kept as far as the sampler chooses the same. No token of a generation
/// changes by it. It pays where texts are repeated: edits, summaries, code; elsewhere it rests.
///
/// @param[in] session A session.
/// @param[in] max_tokens Guesses at a time at most; more than 64 are 64, 0 means 12.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_speculate_lookup(
    session: *mut llm_session_t,
    max_tokens: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        conversation.session.set_speculation(Speculation::Lookup { most: max_tokens as usize })
    })
}

/// As llm_session_speculate_lookup, with the most probable tokens of a smaller model as guesses.
///
/// @param[in] session A session.
/// @param[in] draft @nullable A model with the same vocabulary, of which the session makes a session of its own; NULL
///     ends all guessing.
/// @param[in] max_tokens Guesses at a time at most; more than 64 are 64, 0 means 4.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if the vocabularies differ in size; FAILED_PRECONDITION if the draft
///     is an encoder
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_speculate_draft(
    session: *mut llm_session_t,
    draft: *const llm_model_t,
    max_tokens: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let speculation = match handle::shared_or_null(draft, "draft")? {
            Some(draft) => Speculation::Draft { model: Arc::clone(&draft.model), most: max_tokens as usize },
            None => Speculation::Off,
        };
        conversation.session.set_speculation(speculation)
    })
}

/// What guessing did since it was set; zeros if it was not.
///
/// @param[in] session A session.
/// @param[in,out] speculation Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, INVALID_ARGUMENT
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_speculation(
    session: *mut llm_session_t,
    speculation: *mut llm_speculation_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        let out = args::info(speculation, "speculation")?;
        let stats = conversation.session.speculation_stats();
        out.write(llm_speculation_t {
            struct_size: size_of::<llm_speculation_t>(),
            guessed: stats.guessed,
            accepted: stats.accepted,
            passes: stats.passes,
        });
        Ok(())
    })
}
