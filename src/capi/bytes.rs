//! Text out: borrowed views, and bytes that the caller owns.

use std::ffi::c_char;
use std::ptr;

use super::handle::{self, Handle, Kind};

/// Borrowed bytes, usually UTF-8 text, not zero-terminated. The function that gives it says how long it lives.
/// This struct is frozen.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_view_t {
    /// The first byte; never NULL where a function wrote it.
    pub data: *const c_char,
    /// The number of bytes.
    pub size: usize,
}

impl llm_view_t {
    pub(super) fn of(bytes: &[u8]) -> Self {
        llm_view_t { data: bytes.as_ptr().cast(), size: bytes.len() }
    }
}

/// Bytes made by the library and owned by the caller. They do not change.
///
/// @code{.c}
/// llm_bytes_t *text;
/// if (llm_tokenizer_decode(tokenizer, tokens, count, 0, &text, NULL) == LLM_STATUS_OK) {
///     fwrite(llm_bytes_data(text), 1, llm_bytes_size(text), stdout);
///     llm_bytes_free(text);
/// }
/// @endcode
pub struct llm_bytes_t {
    _opaque: [u8; 0],
}

impl Handle for llm_bytes_t {
    /// With a zero byte after the last, for callers who know that the text has none inside.
    type Value = Vec<u8>;
    const KIND: Kind = Kind::Bytes;
}

/// Makes the bytes an object for C.
pub(super) fn new(mut bytes: Vec<u8>) -> crate::Result<*mut llm_bytes_t> {
    let no_memory = |_| crate::Error::out_of_memory("no memory for the zero byte after a text");
    bytes.try_reserve_exact(1).map_err(no_memory)?;
    bytes.push(0);
    handle::new(bytes)
}

/// The first byte. A zero byte follows the last.
///
/// @param[in] bytes Bytes.
/// @return A pointer that lives as long as the object; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_bytes_data(bytes: *const llm_bytes_t) -> *const c_char {
    value!(ptr::null(), { Some(handle::shared(bytes, "bytes").ok()?.as_ptr().cast()) })
}

/// The number of bytes, without the zero byte that follows.
///
/// @param[in] bytes Bytes.
/// @return The number; 0 if it is no such object.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_bytes_size(bytes: *const llm_bytes_t) -> usize {
    value!(0, { handle::shared(bytes, "bytes").ok()?.len().checked_sub(1) })
}

/// Frees the bytes.
///
/// @param[in] bytes @nullable Bytes; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_bytes_free(bytes: *mut llm_bytes_t) {
    value!((), {
        handle::free(bytes);
        Some(())
    })
}
