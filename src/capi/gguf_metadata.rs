//! The metadata of GGUF files: keys, values, arrays.

use std::ffi::c_char;

use super::args;
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle;
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::gguf::{ElementType, Gguf, Value};

/// The type of a metadata value or of an array's elements: one of LLM_GGUF_, the numbers of the file format.
pub type llm_gguf_type_t = i32;

/// An unsigned integer of 8 bits.
pub const LLM_GGUF_U8: llm_gguf_type_t = 0;
/// A signed integer of 8 bits.
pub const LLM_GGUF_I8: llm_gguf_type_t = 1;
/// An unsigned integer of 16 bits.
pub const LLM_GGUF_U16: llm_gguf_type_t = 2;
/// A signed integer of 16 bits.
pub const LLM_GGUF_I16: llm_gguf_type_t = 3;
/// An unsigned integer of 32 bits.
pub const LLM_GGUF_U32: llm_gguf_type_t = 4;
/// A signed integer of 32 bits.
pub const LLM_GGUF_I32: llm_gguf_type_t = 5;
/// A float of 32 bits.
pub const LLM_GGUF_F32: llm_gguf_type_t = 6;
/// A byte, 0 or 1.
pub const LLM_GGUF_BOOL: llm_gguf_type_t = 7;
/// A text, UTF-8 by the format's rules.
pub const LLM_GGUF_STRING: llm_gguf_type_t = 8;
/// An array of one of the other types.
pub const LLM_GGUF_ARRAY: llm_gguf_type_t = 9;
/// An unsigned integer of 64 bits.
pub const LLM_GGUF_U64: llm_gguf_type_t = 10;
/// A signed integer of 64 bits.
pub const LLM_GGUF_I64: llm_gguf_type_t = 11;
/// A float of 64 bits.
pub const LLM_GGUF_F64: llm_gguf_type_t = 12;

/// The number of metadata keys.
///
/// @param[in] gguf A file.
/// @return The number; 0 if it is no file.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_key_count(gguf: *const llm_gguf_t) -> usize {
    value!(0, { Some(handle::shared(gguf, "gguf").ok()?.keys().len()) })
}

/// The key at an index, in the order of the file.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_key_count.
/// @param[out] key Lives as long as the file.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_key_at(
    gguf: *const llm_gguf_t,
    index: usize,
    key: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(key, "key")?;
        out.write(llm_view_t::of(entry(&gguf, index)?.0.as_bytes()));
        Ok(())
    })
}

/// The index of a key.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] index Of the key.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_key_find(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    index: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let out = args::out(index, "index")?;
        out.write(gguf.index_of(key).ok_or_else(|| no_key(key))?);
        Ok(())
    })
}

/// The type of the value at an index.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_key_count.
/// @param[out] type One of LLM_GGUF_.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_type(
    gguf: *const llm_gguf_t,
    index: usize,
    r#type: *mut llm_gguf_type_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(r#type, "type")?;
        out.write(number_of(&entry(&gguf, index)?.1));
        Ok(())
    })
}

/// The key at an index, with its value.
fn entry(gguf: &Gguf, index: usize) -> Result<(&str, Value<'_>)> {
    let count = gguf.keys().len();
    gguf.entry(index).ok_or_else(|| {
        Error::not_found(format!("there is no key {index}: the file has {count}"))
            .with("index", index)
            .with("key_count", count)
    })
}

pub(super) fn no_key(key: &str) -> Error {
    Error::not_found(format!("the file has no key {key}")).with("key", key)
}

/// The value of a key if `convert` takes its type.
pub(super) fn value_of<'a, T>(
    gguf: &'a Gguf,
    key: &str,
    expected: &'static str,
    convert: impl FnOnce(Value<'a>) -> Option<T>,
) -> Result<T> {
    converted((key, gguf.get(key).ok_or_else(|| no_key(key))?), expected, convert)
}

/// The value of an entry if `convert` takes its type.
fn converted<'a, T>(
    (key, value): (&str, Value<'a>),
    expected: &'static str,
    convert: impl FnOnce(Value<'a>) -> Option<T>,
) -> Result<T> {
    convert(value).ok_or_else(|| {
        Error::invalid_argument(format!("the value of {key} is {value}, which is no {expected}"))
            .with("key", key)
            .with("expected", expected)
            .with("found", value)
    })
}

/// The value of a key as an unsigned integer: of any integer type that is not negative.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_u64(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    value: *mut u64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let out = args::out(value, "value")?;
        out.write(value_of(&gguf, key, "unsigned integer", |v| v.as_integer()?.try_into().ok())?);
        Ok(())
    })
}

/// The value of a key as a signed integer: of any integer type that fits.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_i64(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    value: *mut i64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let out = args::out(value, "value")?;
        out.write(value_of(&gguf, key, "signed integer", |v| v.as_integer()?.try_into().ok())?);
        Ok(())
    })
}

/// The value of a key as a float: of a float type, or of an integer type, rounded.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_f64(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    value: *mut f64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let out = args::out(value, "value")?;
        out.write(value_of(&gguf, key, "number", number)?);
        Ok(())
    })
}

/// The value of a key that is a bool.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_bool(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    value: *mut bool,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let out = args::out(value, "value")?;
        out.write(value_of(&gguf, key, "bool", |v| v.as_bool())?);
        Ok(())
    })
}

/// The value of a key that is a string.
///
/// @param[in] gguf A file.
/// @param[in] key The key.
/// @param[in] key_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] value Lives as long as the file. The bytes are those of the file: they may not be UTF-8.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_string(
    gguf: *const llm_gguf_t,
    key: *const c_char,
    key_size: usize,
    value: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let key = args::utf8(key, key_size, "key")?;
        let out = args::out(value, "value")?;
        out.write(llm_view_t::of(value_of(&gguf, key, "string", text)?));
        Ok(())
    })
}

/// The value at an index as an unsigned integer, as llm_gguf_value_u64.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_key_count.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_u64_at(
    gguf: *const llm_gguf_t,
    index: usize,
    value: *mut u64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(value, "value")?;
        out.write(converted(entry(&gguf, index)?, "unsigned integer", |v| v.as_integer()?.try_into().ok())?);
        Ok(())
    })
}

/// The value at an index as a signed integer, as llm_gguf_value_i64.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_key_count.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_i64_at(
    gguf: *const llm_gguf_t,
    index: usize,
    value: *mut i64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(value, "value")?;
        out.write(converted(entry(&gguf, index)?, "signed integer", |v| v.as_integer()?.try_into().ok())?);
        Ok(())
    })
}

/// The value at an index as a float, as llm_gguf_value_f64.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_key_count.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_f64_at(
    gguf: *const llm_gguf_t,
    index: usize,
    value: *mut f64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(value, "value")?;
        out.write(converted(entry(&gguf, index)?, "number", number)?);
        Ok(())
    })
}

/// The value at an index as a bool, as llm_gguf_value_bool.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_key_count.
/// @param[out] value The value.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_bool_at(
    gguf: *const llm_gguf_t,
    index: usize,
    value: *mut bool,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(value, "value")?;
        out.write(converted(entry(&gguf, index)?, "bool", |v| v.as_bool())?);
        Ok(())
    })
}

/// The value at an index as a string, as llm_gguf_value_string.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_key_count.
/// @param[out] value The value. Lives as long as the file.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_value_string_at(
    gguf: *const llm_gguf_t,
    index: usize,
    value: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(value, "value")?;
        out.write(llm_view_t::of(converted(entry(&gguf, index)?, "string", text)?));
        Ok(())
    })
}

fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::F32(x) => Some(f64::from(x)),
        Value::F64(x) => Some(x),
        other => other.as_integer().map(|x| x as f64),
    }
}

fn text(value: Value<'_>) -> Option<&[u8]> {
    if let Value::Str(text) = value { Some(text) } else { None }
}

fn number_of(value: &Value<'_>) -> llm_gguf_type_t {
    match value {
        Value::U8(_) => LLM_GGUF_U8,
        Value::I8(_) => LLM_GGUF_I8,
        Value::U16(_) => LLM_GGUF_U16,
        Value::I16(_) => LLM_GGUF_I16,
        Value::U32(_) => LLM_GGUF_U32,
        Value::I32(_) => LLM_GGUF_I32,
        Value::F32(_) => LLM_GGUF_F32,
        Value::Bool(_) => LLM_GGUF_BOOL,
        Value::Str(_) => LLM_GGUF_STRING,
        Value::Array(_) => LLM_GGUF_ARRAY,
        Value::U64(_) => LLM_GGUF_U64,
        Value::I64(_) => LLM_GGUF_I64,
        Value::F64(_) => LLM_GGUF_F64,
    }
}

/// Both have the numbers of the file format.
pub(super) fn element_number(element: ElementType) -> llm_gguf_type_t {
    element.id().cast_signed()
}
