//! The arrays in the metadata of GGUF files.

use std::ffi::{c_char, c_void};

use super::args;
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::gguf_metadata::{element_number, llm_gguf_type_t, value_of};
use super::handle;
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::gguf::{Array, Gguf, Value};

fn array_of<'a>(gguf: &'a Gguf, key: &str) -> Result<Array<'a>> {
    value_of(gguf, key, "array", |v| if let Value::Array(x) = v { Some(x) } else { None })
}

/// The type and number of an array's elements.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] type Of the elements: one of LLM_GGUF_.
/// @param[out] count Of the elements.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value is no array
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_array_info(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    r#type: *mut llm_gguf_type_t,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let (out_type, out_count) = (args::out(r#type, "type")?, args::out(count, "count")?);
        let array = array_of(&gguf, key)?;
        out_type.write(element_number(array.element_type()));
        out_count.write(array.len());
        Ok(())
    })
}

/// Strings of an array. Finding the first one takes time in proportion to its index: take many at a time.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] first The index of the first string wanted.
/// @param[out] strings Room for `capacity` views, which live as long as the file.
/// @param[in] capacity How many are wanted at most.
/// @param[out] count How many were written: fewer than `capacity` at the array's end.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value is no array of strings
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_array_strings_at(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    first: usize,
    strings: *mut llm_view_t,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let strings = args::buffer(strings, capacity, "strings")?;
        let out = args::out(count, "count")?;
        let array = array_of(&gguf, key)?;
        let texts = array.strings().ok_or_else(|| {
            Error::invalid_argument(format!("the value of {key} is no array of strings")).with("key", key)
        })?;
        let mut written = 0;
        for (text, view) in texts.skip(first).zip(strings) {
            *view = llm_view_t::of(text);
            written += 1;
        }
        out.write(written);
        Ok(())
    })
}

/// Numbers or bools of an array, as in the file: little-endian, of the element type that llm_gguf_array_info tells.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] first The index of the first element wanted.
/// @param[out] out Room for `out_size` bytes.
/// @param[in] out_size In bytes.
/// @param[out] count How many elements were written: those that fit, or fewer at the array's end.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value is no array of numbers or bools
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_array_read(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    first: usize,
    out: *mut c_void,
    out_size: usize,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let buffer = args::buffer::<u8>(out.cast(), out_size, "out")?;
        let out = args::out(count, "count")?;
        let array = array_of(&gguf, key)?;
        let (numbers, width) = array.raw().ok_or_else(|| {
            Error::invalid_argument(format!("the value of {key} is no array of numbers")).with("key", key)
        })?;
        let rest = numbers.get(first.saturating_mul(width)..).unwrap_or_default();
        let size = rest.len().min(buffer.len() / width * width);
        for (to, from) in buffer.iter_mut().zip(&rest[..size]) {
            *to = *from;
        }
        out.write(size / width);
        Ok(())
    })
}
