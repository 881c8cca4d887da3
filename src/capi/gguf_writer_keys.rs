//! The keys of a GGUF file that is being made.

use std::ffi::{c_char, c_void};

use super::args;
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::gguf_metadata::{self, llm_gguf_type_t};
use super::gguf_writer::llm_gguf_writer_t;
use super::handle;
use super::status::llm_status_t;
use crate::error::Error;
use crate::gguf::ElementType;

/// Sets all keys of an open file, in its order; of a split file all but those about the split. Keys that were set stay,
/// with the file's values where it has them.
///
/// @param[in] writer A writer.
/// @param[in] gguf The file.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_copy_keys(
    writer: *mut llm_gguf_writer_t,
    gguf: *const llm_gguf_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let gguf = handle::shared(gguf, "gguf")?;
        writer.builder()?.copy_keys(&gguf)
    })
}

/// Sets a key to an unsigned integer of 8 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_u8(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: u8,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a signed integer of 8 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_i8(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: i8,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to an unsigned integer of 16 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_u16(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: u16,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a signed integer of 16 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_i16(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: i16,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to an unsigned integer of 32 bits; a key that is there keeps its place. The key general.alignment takes
/// a power of two and is that of the tensor data.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_u32(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a signed integer of 32 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_i32(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: i32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to an unsigned integer of 64 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_u64(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: u64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a signed integer of 64 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_i64(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: i64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a float of 32 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_f32(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a float of 64 bits; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_f64(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: f64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a bool; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value The value.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_bool(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: bool,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to a string; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] value Any bytes; UTF-8 by the format's rules.
/// @param[in] value_size Their number, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_string(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    value: *const c_char,
    value_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        let value = args::text(value, value_size, "value")?;
        writer.builder()?.set(key, value)
    })
}

/// Sets a key to an array of numbers or bools; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] type Of the elements: one of LLM_GGUF_, but neither LLM_GGUF_STRING nor LLM_GGUF_ARRAY.
/// @param[in] elements As in the file: little-endian.
/// @param[in] elements_size In bytes: whole elements.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_array(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    r#type: llm_gguf_type_t,
    elements: *const c_void,
    elements_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        let elements = args::slice::<u8>(elements.cast(), elements_size, "elements")?;
        let numbers = ElementType::ALL.iter().filter(|element| **element != ElementType::Str);
        let element = numbers.copied().find(|element| gguf_metadata::element_number(*element) == r#type);
        let element = element.ok_or_else(|| {
            Error::invalid_argument(format!("type has the value {type}, which is no type of numbers or bools"))
                .with("argument", "type")
                .with("found", r#type)
        })?;
        writer.builder()?.set_raw_array(key, element, elements)
    })
}

/// Sets a key to an array of strings; a key that is there keeps its place.
///
/// @param[in] writer A writer.
/// @param[in] key The key, 1 to 65535 bytes of UTF-8.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] strings Any bytes each; UTF-8 by the format's rules.
/// @param[in] count Of the strings.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_set_strings(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    strings: *const llm_view_t,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        let views = args::slice(strings, count, "strings")?;
        let mut texts: Vec<&[u8]> = crate::error::try_vec(count, &[][..], "the strings")?;
        for (text, view) in texts.iter_mut().zip(views) {
            *text = args::text(view.data, view.size, "strings")?;
        }
        writer.builder()?.set_strings(key, &texts)
    })
}

/// Removes a key.
///
/// @param[in] writer A writer.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; NOT_FOUND if there is no such key; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_remove(
    writer: *mut llm_gguf_writer_t,
    key: *const c_char,
    key_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let key = args::utf8(key, key_size, "key")?;
        if writer.builder()?.remove(key) { Ok(()) } else { Err(gguf_metadata::no_key(key)) }
    })
}
