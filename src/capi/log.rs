//! What the library has to say.

use std::ffi::{c_char, c_void};

use super::args::{self, UserData};
use super::error::llm_error_t;
use super::status::llm_status_t;
use crate::log::{self, Level, Receive};

/// How much a message matters: one of LLM_LOG_.
pub type llm_log_level_t = i32;

/// A defect or a misuse that could not be returned as an error.
pub const LLM_LOG_ERROR: llm_log_level_t = 1;
/// Something works, but not as well as asked.
pub const LLM_LOG_WARN: llm_log_level_t = 2;
/// What a user may like to know.
pub const LLM_LOG_INFO: llm_log_level_t = 3;
/// What only a developer of the library needs.
pub const LLM_LOG_DEBUG: llm_log_level_t = 4;

const LEVELS: [(llm_log_level_t, Level); 4] = [
    (LLM_LOG_ERROR, Level::Error),
    (LLM_LOG_WARN, Level::Warn),
    (LLM_LOG_INFO, Level::Info),
    (LLM_LOG_DEBUG, Level::Debug),
];

/// Receives a message: UTF-8 of `size` bytes, not zero-terminated, borrowed for the call.
///
/// Called on the thread that has something to say, on several at once, with no lock held; it may call the library,
/// whose messages during that are dropped.
pub type llm_log_callback_t =
    Option<unsafe extern "C" fn(level: llm_log_level_t, message: *const c_char, size: usize, user_data: *mut c_void)>;

/// Sets who receives the library's messages, in this process; nobody does at the start.
///
/// When it returns, the callback set before is not running and never runs again; called from inside the callback it
/// does not wait for calls on other threads.
///
/// @param[in] callback @nullable The receiver; NULL silences the library.
/// @param[in] user_data @nullable Passed to the callback.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_log_set(callback: llm_log_callback_t, user_data: *mut c_void) {
    value!((), {
        let data = UserData(user_data);
        log::set(callback.map(|callback| {
            let sink = move |level: Level, message: &str| {
                let UserData(user_data) = { data };
                // SAFETY: a callback of this type, on this thread; the message is borrowed for the call.
                unsafe { callback(level as llm_log_level_t, message.as_ptr().cast(), message.len(), user_data) };
            };
            Box::new(sink) as Receive
        }));
        Some(())
    })
}

/// Sets the most talkative level that the callback receives; LLM_LOG_INFO at the start.
///
/// @param[in] level One of LLM_LOG_.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_log_set_level(level: llm_log_level_t, error: *mut *mut llm_error_t) -> llm_status_t {
    fallible!(error, {
        log::set_level(args::one_of(level, &LEVELS, "level")?);
        Ok(())
    })
}
