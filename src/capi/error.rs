//! Why a call failed: a status, a message, facts by key.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

use super::args;
use super::handle::{self, Handle, Kind};
use super::status::{self, LLM_STATUS_OK, llm_status_t};
use crate::error::Error;

/// Why a call failed: status, message, and the facts behind it by key ("path", "tensor", "expected", "found", …).
///
/// It may be read from any thread and does not change.
///
/// @code{.c}
/// llm_error_t *error = NULL;
/// if (llm_gguf_open("model.gguf", LLM_NUL_TERMINATED, &gguf, &error) != LLM_STATUS_OK) {
///     fprintf(stderr, "%s: %s\n", llm_status_name(llm_error_status(error)), llm_error_message(error));
///     llm_error_free(error);
/// }
/// @endcode
pub struct llm_error_t {
    _opaque: [u8; 0],
}

impl Handle for llm_error_t {
    type Value = Failure;
    const KIND: Kind = Kind::Error;
}

/// An error as C reads it.
pub(super) struct Failure {
    status: llm_status_t,
    message: Cow<'static, CStr>,
    facts: Vec<(CString, CString)>,
}

/// Stands in for an error that there is no memory for; freeing it does nothing.
static NO_MEMORY: Failure = Failure {
    status: status::LLM_STATUS_OUT_OF_MEMORY,
    message: Cow::Borrowed(c"no memory, not even for the error"),
    facts: Vec::new(),
};

fn no_memory() -> *const llm_error_t {
    (&raw const NO_MEMORY).cast()
}

/// The error as an object for C.
pub(super) fn new(error: &Error) -> *mut llm_error_t {
    let detail = error.detail();
    let facts = detail.facts().iter().map(|(key, value)| (c_string(key), c_string(value))).collect();
    let failure = Failure { status: status::of(error), message: Cow::Owned(c_string(detail.message())), facts };
    handle::try_new(failure).unwrap_or(no_memory().cast_mut())
}

/// Zero bytes would end the text early.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// # Safety
/// `error` is NULL or a live error.
unsafe fn read<R>(error: *const llm_error_t, look: impl FnOnce(&Failure) -> R) -> Option<R> {
    if ptr::eq(error, no_memory()) {
        return Some(look(&NO_MEMORY));
    }
    // SAFETY: the caller's promise.
    let failure = unsafe { handle::shared(error, "error") }.ok()?;
    Some(look(&failure))
}

/// The status of an error.
///
/// @param[in] error @nullable An error; NULL means that there is none.
/// @return The status that the failed call returned; OK for NULL.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_error_status(error: *const llm_error_t) -> llm_status_t {
    bare!(LLM_STATUS_OK, { read(error, |failure| failure.status) })
}

/// The message of an error, for people: one line of UTF-8.
///
/// @param[in] error @nullable An error.
/// @return A zero-terminated text that lives as long as the error; "" for NULL.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_error_message(error: *const llm_error_t) -> *const c_char {
    bare!(c"".as_ptr(), { read(error, |failure| failure.message.as_ptr()) })
}

/// A fact of an error by its key.
///
/// @param[in] error @nullable An error.
/// @param[in] key The key, zero-terminated: "tensor".
/// @return A zero-terminated text that lives as long as the error; NULL if it has no such fact.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_error_get(error: *const llm_error_t, key: *const c_char) -> *const c_char {
    bare!(ptr::null(), {
        let key = args::text(key, usize::MAX, "key").ok()?;
        read(error, |failure| {
            let fact = failure.facts.iter().find(|(k, _)| k.to_bytes() == key);
            fact.map(|(_, value)| value.as_ptr())
        })?
    })
}

/// The number of facts of an error.
///
/// @param[in] error @nullable An error.
/// @return The number; 0 for NULL.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_error_fact_count(error: *const llm_error_t) -> usize {
    bare!(0, { read(error, |failure| failure.facts.len()) })
}

/// A fact of an error by its index.
///
/// @param[in] error @nullable An error.
/// @param[in] index Less than llm_error_fact_count.
/// @param[out] key A zero-terminated text that lives as long as the error.
/// @param[out] value Likewise.
/// @return Whether there is such a fact; if not, nothing is written.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_error_fact_at(
    error: *const llm_error_t,
    index: usize,
    key: *mut *const c_char,
    value: *mut *const c_char,
) -> bool {
    bare!(false, {
        let (key, value) = (args::out(key, "key").ok()?, args::out(value, "value").ok()?);
        let (k, v) = read(error, |failure| failure.facts.get(index).map(|(k, v)| (k.as_ptr(), v.as_ptr())))??;
        key.write(k);
        value.write(v);
        Some(true)
    })
}

/// Frees an error.
///
/// @param[in] error @nullable An error; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_error_free(error: *mut llm_error_t) {
    bare!((), {
        if !ptr::eq(error, no_memory()) {
            handle::free(error);
        }
        Some(())
    })
}
