//! Any GGUF file: metadata, tensors, their bytes and their values.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::{self, Growing, UserData};
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::gguf::{Array, ElementType, Gguf, ReadAt, TensorInfo, Value};

/// A GGUF file (version 2 or 3): its metadata by key, its tensors by index. Shared, reference counted.
///
/// The metadata stays in memory (or mapped) while it lives, tensors are read when asked for.
///
/// @code{.c}
/// llm_gguf_t *gguf;
/// if (llm_gguf_open("model.gguf", LLM_NUL_TERMINATED, &gguf, &error) == LLM_STATUS_OK) {
///     llm_view_t architecture;
///     if (llm_gguf_value_string(gguf, "general.architecture", LLM_NUL_TERMINATED, &architecture, NULL) == LLM_STATUS_OK)
///         printf("%.*s\n", (int)architecture.size, architecture.data);
///     llm_gguf_free(gguf);
/// }
/// @endcode
pub struct llm_gguf_t {
    _opaque: [u8; 0],
}

impl Handle for llm_gguf_t {
    type Value = Arc<Gguf>;
    const KIND: Kind = Kind::Gguf;
}

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

/// Releases what was lent to the library: called exactly once with the user data, on the thread that lets go of the
/// last object that needs it. It must not call the library.
pub type llm_drop_callback_t = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Reads `size` bytes at `offset` into `out` and returns whether it could. Ranges are within the size that was given.
/// Called on any thread, on several at once; it must not call the library with an object that is being made of it.
pub type llm_read_callback_t =
    Option<unsafe extern "C" fn(offset: u64, out: *mut c_void, size: usize, user_data: *mut c_void) -> bool>;

/// What a GGUF file says about a tensor. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_tensor_info_t {
    /// sizeof(llm_tensor_info_t).
    pub struct_size: usize,
    /// Borrowed from the file object, lives as long.
    pub name: llm_view_t,
    /// The name of the type: "Q4_K". A constant.
    pub type_name: llm_view_t,
    /// Elements per dimension, the fastest first (as in the file); 1 beyond dimension_count.
    pub dimensions: [u64; 4],
    /// 0 to 4.
    pub dimension_count: u32,
    /// The number of the type in GGUF files.
    pub type_id: u32,
    /// Of the tensor's data from the start of the file, in bytes.
    pub offset: u64,
    /// Of the tensor's data.
    pub bytes: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers and pointers, no padding (layout_tests).
unsafe impl Growing for llm_tensor_info_t {
    const DEFAULT: Self = {
        let empty = llm_view_t { data: c"".as_ptr(), size: 0 };
        llm_tensor_info_t {
            struct_size: size_of::<Self>(),
            name: empty,
            type_name: empty,
            dimensions: [1; 4],
            dimension_count: 0,
            type_id: 0,
            offset: 0,
            bytes: 0,
        }
    };
}

/// Opens a file.
///
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] gguf The file, to be freed with llm_gguf_free.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_open(
    path: *const c_char,
    path_size: usize,
    gguf: *mut *mut llm_gguf_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(gguf, "gguf")?;
        let path = args::path(path, path_size, "path")?;
        out.write(handle::new::<llm_gguf_t>(Arc::new(Gguf::open(&path)?))?);
        Ok(())
    })
}

/// Opens a file that is in memory.
///
/// With a `release` callback the bytes are used in place until it is called, without one they are copied. If the call
/// fails, `release` is not called.
///
/// @param[in] data The bytes of the file.
/// @param[in] size Their number.
/// @param[in] release @nullable Called when the bytes are not needed any more, on any thread; NULL to copy them.
/// @param[in] user_data @nullable Passed to `release`.
/// @param[out] gguf The file, to be freed with llm_gguf_free.
/// @param[out] error @nullable Why it failed.
/// @status CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_open_memory(
    data: *const c_void,
    size: usize,
    release: llm_drop_callback_t,
    user_data: *mut c_void,
    gguf: *mut *mut llm_gguf_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(gguf, "gguf")?;
        let data = args::slice::<u8>(data.cast(), size, "data")?;
        let lent = Lent::new(release, user_data);
        let file = if release.is_some() {
            Gguf::from_bytes(LentBytes { data, _lent: Arc::clone(&lent) })?
        } else {
            let mut copy = crate::error::try_vec(size, 0u8, "the copy of the file")?;
            copy.copy_from_slice(data);
            Gguf::from_bytes(copy)?
        };
        out.write(handle::new::<llm_gguf_t>(Arc::new(file))?);
        lent.arm();
        Ok(())
    })
}

/// Opens a file that the caller reads: from an archive, an asset bundle, a network.
///
/// If the call fails, `release` is not called. A read that fails gives IO.
///
/// @param[in] size Of the file, in bytes.
/// @param[in] read Reads a range.
/// @param[in] release @nullable Called when the reader is not needed any more, on any thread.
/// @param[in] user_data @nullable Passed to both callbacks.
/// @param[out] gguf The file, to be freed with llm_gguf_free.
/// @param[out] error @nullable Why it failed.
/// @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_open_reader(
    size: u64,
    read: llm_read_callback_t,
    release: llm_drop_callback_t,
    user_data: *mut c_void,
    gguf: *mut *mut llm_gguf_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(gguf, "gguf")?;
        let read = args::callback(read, "read")?;
        let lent = Lent::new(release, user_data);
        let file = Gguf::from_reader(Box::new(Reader { size, read, lent: Arc::clone(&lent) }))?;
        out.write(handle::new::<llm_gguf_t>(Arc::new(file))?);
        lent.arm();
        Ok(())
    })
}

/// What C lent to the library: given back once, when nothing needs it any more; not at all before it is armed.
struct Lent {
    release: llm_drop_callback_t,
    user_data: UserData,
    armed: AtomicBool,
}

impl Lent {
    fn new(release: llm_drop_callback_t, user_data: *mut c_void) -> Arc<Self> {
        Arc::new(Lent { release, user_data: UserData(user_data), armed: AtomicBool::new(false) })
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::Release);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(release) = self.release
            && *self.armed.get_mut()
        {
            // SAFETY: a callback of this type, called once.
            unsafe { release(self.user_data.0) };
        }
    }
}

struct LentBytes {
    data: &'static [u8],
    _lent: Arc<Lent>,
}

impl AsRef<[u8]> for LentBytes {
    fn as_ref(&self) -> &[u8] {
        self.data
    }
}

struct Reader {
    size: u64,
    read: unsafe extern "C" fn(u64, *mut c_void, usize, *mut c_void) -> bool,
    lent: Arc<Lent>,
}

impl ReadAt for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        // SAFETY: a callback of this type, with a buffer of the size that it is told.
        if unsafe { (self.read)(offset, out.as_mut_ptr().cast(), out.len(), self.lent.user_data.0) } {
            return Ok(());
        }
        Err(Error::io(format!("the caller's reader failed to read {} bytes at {offset}", out.len()))
            .with("offset", offset)
            .with("bytes", out.len()))
    }
}

/// Adds a reference, to be freed with llm_gguf_free.
///
/// @param[in] gguf A file.
/// @return The same file; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_retain(gguf: *const llm_gguf_t) -> *mut llm_gguf_t {
    value!(std::ptr::null_mut(), { handle::retain(gguf) })
}

/// Frees a reference. Models made from the file keep what they need of it.
///
/// @param[in] gguf @nullable A file; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_free(gguf: *mut llm_gguf_t) {
    value!((), {
        handle::free(gguf);
        Some(())
    })
}

/// The version of the file format.
///
/// @param[in] gguf A file.
/// @return 2 or 3; 0 if it is no file.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_version(gguf: *const llm_gguf_t) -> u32 {
    value!(0, { Some(handle::shared(gguf, "gguf").ok()?.version()) })
}

/// The alignment of tensor data.
///
/// @param[in] gguf A file.
/// @return Bytes; 0 if it is no file.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_alignment(gguf: *const llm_gguf_t) -> u64 {
    value!(0, { Some(handle::shared(gguf, "gguf").ok()?.alignment()) })
}

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

fn no_key(key: &str) -> Error {
    Error::not_found(format!("the file has no key {key}")).with("key", key)
}

/// The value of a key if `convert` takes its type.
fn value_of<'a, T>(
    gguf: &'a Gguf,
    key: &str,
    expected: &'static str,
    convert: impl FnOnce(Value<'a>) -> Option<T>,
) -> Result<T> {
    let value = gguf.get(key).ok_or_else(|| no_key(key))?;
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
        let convert = |v: Value<'_>| match v {
            Value::F32(x) => Some(f64::from(x)),
            Value::F64(x) => Some(x),
            other => other.as_integer().map(|x| x as f64),
        };
        out.write(value_of(&gguf, key, "number", convert)?);
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
        let text = value_of(&gguf, key, "string", |v| if let Value::Str(x) = v { Some(x) } else { None })?;
        out.write(llm_view_t::of(text));
        Ok(())
    })
}

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
fn element_number(element: ElementType) -> llm_gguf_type_t {
    element.id().cast_signed()
}

/// The number of tensors.
///
/// @param[in] gguf A file.
/// @return The number; 0 if it is no file.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_count(gguf: *const llm_gguf_t) -> usize {
    value!(0, { Some(handle::shared(gguf, "gguf").ok()?.tensors().len()) })
}

fn tensor(gguf: &Gguf, index: usize) -> Result<&TensorInfo> {
    let count = gguf.tensors().len();
    gguf.tensors().get(index).ok_or_else(|| {
        Error::not_found(format!("there is no tensor {index}: the file has {count}"))
            .with("index", index)
            .with("tensor_count", count)
    })
}

/// Name, shape, type and place of a tensor.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_tensor_count.
/// @param[in,out] info Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_info(
    gguf: *const llm_gguf_t,
    index: usize,
    info: *mut llm_tensor_info_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::info(info, "info")?;
        let tensor = tensor(&gguf, index)?;
        let mut info = llm_tensor_info_t {
            name: llm_view_t::of(tensor.name.as_bytes()),
            type_name: llm_view_t::of(tensor.type_name().as_bytes()),
            dimension_count: u32::try_from(tensor.dims.len()).unwrap_or(4),
            type_id: tensor.type_id,
            offset: tensor.offset,
            bytes: tensor.bytes,
            ..Growing::DEFAULT
        };
        for (to, from) in info.dimensions.iter_mut().zip(tensor.dims.iter()) {
            *to = *from;
        }
        out.write(info);
        Ok(())
    })
}

/// The index of a tensor.
///
/// @param[in] gguf A file.
/// @param[in] name The tensor's name.
/// @param[in] name_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] index Of the tensor.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_find(
    gguf: *const llm_gguf_t,
    name: *const c_char,
    name_size: usize,
    index: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let name = args::utf8(name, name_size, "name")?;
        let out = args::out(index, "index")?;
        let found = gguf.tensors().iter().position(|tensor| tensor.name == name);
        out.write(
            found.ok_or_else(|| Error::not_found(format!("the file has no tensor {name}")).with("tensor", name))?,
        );
        Ok(())
    })
}

/// Reads bytes of a tensor's data as they are in the file.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_tensor_count.
/// @param[in] offset From the start of the tensor's data, in bytes.
/// @param[out] out Room for `out_size` bytes.
/// @param[in] out_size How many bytes to read: offset + out_size is at most the size of the tensor's data.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO; INVALID_ARGUMENT if the range is not in the tensor
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_read(
    gguf: *const llm_gguf_t,
    index: usize,
    offset: u64,
    out: *mut c_void,
    out_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::buffer::<u8>(out.cast(), out_size, "out")?;
        gguf.read(tensor(&gguf, index)?, offset, out)
    })
}

/// Decodes a tensor to floats, in the order of the file (the first dimension is the fastest).
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_tensor_count.
/// @param[out] out Room for `capacity` floats.
/// @param[in] capacity At least the tensor's number of elements.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO, BUFFER_TOO_SMALL, OUT_OF_MEMORY; UNSUPPORTED for types that this version does not decode
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_decode(
    gguf: *const llm_gguf_t,
    index: usize,
    out: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::buffer(out, capacity, "out")?;
        let tensor = tensor(&gguf, index)?;
        let elements = tensor.elements();
        if capacity < elements {
            return Err(args::too_small("out", elements, capacity).with("tensor", &tensor.name));
        }
        let values = gguf.decode(tensor)?;
        for (to, from) in out.iter_mut().zip(values) {
            *to = from;
        }
        Ok(())
    })
}
