//! GGUF files: opening them, from disk, memory or a caller's reader.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::{self, UserData};
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, ReadAt};

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

/// Releases what was lent to the library: called exactly once with the user data, on the thread that lets go of the
/// last object that needs it. It must not call the library.
pub type llm_drop_callback_t = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Reads `size` bytes at `offset` into `out` and returns whether it could. Ranges are within the size that was given.
/// Called on any thread, on several at once; it must not call the library with an object that is being made of it.
pub type llm_read_callback_t =
    Option<unsafe extern "C" fn(offset: u64, out: *mut c_void, size: usize, user_data: *mut c_void) -> bool>;

/// Opens a file. Of a file that is split into parts NAME-00001-of-0000N.gguf the first opens them all.
///
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] gguf The file, to be freed with llm_gguf_free.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND (of a part too), IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY; INVALID_ARGUMENT for a part that is
///   not the first: the fact "expected" is the path of the first
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
pub(super) struct Lent {
    release: llm_drop_callback_t,
    user_data: UserData,
    armed: AtomicBool,
}

impl Lent {
    pub(super) fn new(release: llm_drop_callback_t, user_data: *mut c_void) -> Arc<Self> {
        Arc::new(Lent { release, user_data: UserData(user_data), armed: AtomicBool::new(false) })
    }

    pub(super) fn user_data(&self) -> UserData {
        self.user_data
    }

    pub(super) fn arm(&self) {
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
