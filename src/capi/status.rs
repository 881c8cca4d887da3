//! How a call ended, as a number.

use std::ffi::{CStr, c_char};

use crate::error::Error;

/// How a call ended: one of LLM_STATUS_. Numbers are never reused, and new ones may come.
pub type llm_status_t = i32;

/// It did what was asked.
pub const LLM_STATUS_OK: llm_status_t = 0;
/// An argument is outside its domain.
pub const LLM_STATUS_INVALID_ARGUMENT: llm_status_t = 1;
/// A file, key, tensor or token that was asked for does not exist.
pub const LLM_STATUS_NOT_FOUND: llm_status_t = 2;
/// The operating system, or the caller's reader, failed to read or write.
pub const LLM_STATUS_IO: llm_status_t = 3;
/// A file contradicts its format.
pub const LLM_STATUS_CORRUPT_FILE: llm_status_t = 4;
/// A valid request or file that this library does not implement.
pub const LLM_STATUS_UNSUPPORTED: llm_status_t = 5;
/// Memory could not be had.
pub const LLM_STATUS_OUT_OF_MEMORY: llm_status_t = 6;
/// No room for more positions in the key/value cache.
pub const LLM_STATUS_CACHE_FULL: llm_status_t = 7;
/// The caller's buffer is too small.
pub const LLM_STATUS_BUFFER_TOO_SMALL: llm_status_t = 8;
/// The caller asked for it to stop, through an llm_cancel_t.
pub const LLM_STATUS_CANCELLED: llm_status_t = 9;
/// The caller's callback asked for it to stop.
pub const LLM_STATUS_ABORTED: llm_status_t = 10;
/// The object is in use by another call.
pub const LLM_STATUS_BUSY: llm_status_t = 11;
/// The object is not in a state in which this can be done.
pub const LLM_STATUS_FAILED_PRECONDITION: llm_status_t = 12;
/// A device (GPU) failed.
pub const LLM_STATUS_DEVICE: llm_status_t = 13;
/// A defect of the library.
pub const LLM_STATUS_INTERNAL: llm_status_t = 14;

pub(super) fn of(error: &Error) -> llm_status_t {
    match error {
        Error::InvalidArgument(_) => LLM_STATUS_INVALID_ARGUMENT,
        Error::NotFound(_) => LLM_STATUS_NOT_FOUND,
        Error::Io(_) => LLM_STATUS_IO,
        Error::CorruptFile(_) => LLM_STATUS_CORRUPT_FILE,
        Error::Unsupported(_) => LLM_STATUS_UNSUPPORTED,
        Error::OutOfMemory(_) => LLM_STATUS_OUT_OF_MEMORY,
        Error::CacheFull(_) => LLM_STATUS_CACHE_FULL,
        Error::BufferTooSmall(_) => LLM_STATUS_BUFFER_TOO_SMALL,
        Error::Cancelled(_) => LLM_STATUS_CANCELLED,
        Error::Aborted(_) => LLM_STATUS_ABORTED,
        Error::Busy(_) => LLM_STATUS_BUSY,
        Error::FailedPrecondition(_) => LLM_STATUS_FAILED_PRECONDITION,
        Error::Device(_) => LLM_STATUS_DEVICE,
        Error::Internal(_) => LLM_STATUS_INTERNAL,
    }
}

const NAMES: [&CStr; 15] = [
    c"OK",
    c"INVALID_ARGUMENT",
    c"NOT_FOUND",
    c"IO",
    c"CORRUPT_FILE",
    c"UNSUPPORTED",
    c"OUT_OF_MEMORY",
    c"CACHE_FULL",
    c"BUFFER_TOO_SMALL",
    c"CANCELLED",
    c"ABORTED",
    c"BUSY",
    c"FAILED_PRECONDITION",
    c"DEVICE",
    c"INTERNAL",
];

/// The name of a status: "CORRUPT_FILE".
///
/// @param[in] status A status.
/// @return A constant; "UNKNOWN" for a number that is no status.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_status_name(status: llm_status_t) -> *const c_char {
    bare!(c"UNKNOWN".as_ptr(), {
        let name = NAMES.get(usize::try_from(status).ok()?)?;
        Some(name.as_ptr())
    })
}
