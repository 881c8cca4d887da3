//! Making GGUF files: tensors and their data. The keys are in `gguf_writer_keys`.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::args;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::gguf::{Builder, PartLimit, Writer};

/// A GGUF file that is being made: set its keys, add its tensors, open it, write the tensors' data in the same order,
/// finish it. Exclusive.
///
/// The data go to a temporary file beside the one that is wanted, which takes its name in llm_gguf_writer_finish, when
/// all is on the disk. Freed before that, a writer leaves no file, and an old one as it was.
///
/// @code{.c}
/// llm_gguf_writer_t *writer;
/// const uint64_t dimensions[] = {4, 2}; // the fastest first: 2 rows of 4
/// const float data[8] = {0};
/// if (llm_gguf_writer_new(&writer, &error) != LLM_STATUS_OK) return 1;
/// llm_status_t status = llm_gguf_writer_set_string(writer, "general.architecture", LLM_NUL_TERMINATED, "mine",
///                                                  LLM_NUL_TERMINATED, &error);
/// if (status == LLM_STATUS_OK)
///     status = llm_gguf_writer_add_tensor(writer, "weights", LLM_NUL_TERMINATED, 0, dimensions, 2, &error);
/// if (status == LLM_STATUS_OK) status = llm_gguf_writer_open(writer, "mine.gguf", LLM_NUL_TERMINATED, &error);
/// if (status == LLM_STATUS_OK)
///     status = llm_gguf_writer_write(writer, "weights", LLM_NUL_TERMINATED, data, sizeof data, &error);
/// if (status == LLM_STATUS_OK) status = llm_gguf_writer_finish(writer, &error);
/// llm_gguf_writer_free(writer);
/// @endcode
pub struct llm_gguf_writer_t {
    _opaque: [u8; 0],
}

impl Handle for llm_gguf_writer_t {
    type Value = Making;
    const KIND: Kind = Kind::GgufWriter;
}

/// How far a file is.
pub(super) enum Making {
    Building(Builder),
    Writing(Box<Writer>),
    Finished,
}

impl Making {
    /// What takes keys and tensors, before the file is open.
    pub(super) fn builder(&mut self) -> Result<&mut Builder> {
        match self {
            Making::Building(builder) => Ok(builder),
            _ => Err(Error::failed_precondition("the file is open: keys and tensors come before llm_gguf_writer_open")),
        }
    }
}

fn not_open() -> Error {
    Error::failed_precondition("the file is not open: llm_gguf_writer_open comes first, and nothing after finish")
}

/// Makes a writer of a file without keys and tensors.
///
/// @param[out] writer The writer, to be freed with llm_gguf_writer_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_new(
    writer: *mut *mut llm_gguf_writer_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(writer, "writer")?;
        out.write(handle::new::<llm_gguf_writer_t>(Making::Building(Builder::new()))?);
        Ok(())
    })
}

/// Adds a tensor.
///
/// @param[in] writer A writer.
/// @param[in] name The tensor's name, at most 64 bytes of UTF-8.
/// @param[in] name_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] type_id The number of its type in GGUF files, as llm_tensor_info_t has it: 0 is F32, 1 F16, 8 Q8_0, 30
///   BF16.
/// @param[in] dimensions Elements per dimension, the fastest first: whole blocks of the type.
/// @param[in] dimension_count 0 (one element) to 4.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT naming the "tensor" if its name is taken or its shape not possible;
///   UNSUPPORTED if the type is unknown; FAILED_PRECONDITION after llm_gguf_writer_open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_add_tensor(
    writer: *mut llm_gguf_writer_t,
    name: *const c_char,
    name_size: usize,
    type_id: u32,
    dimensions: *const u64,
    dimension_count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let name = args::utf8(name, name_size, "name")?;
        let dimensions = args::slice(dimensions, dimension_count, "dimensions")?;
        writer.builder()?.add_tensor(name, type_id, dimensions)
    })
}

/// Begins to write the file, under a temporary name in the folder of its own. A device or a pipe is written as it is.
///
/// @param[in] writer A writer.
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, NOT_FOUND, IO, OUT_OF_MEMORY; FAILED_PRECONDITION if it is open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_open(
    writer: *mut llm_gguf_writer_t,
    path: *const c_char,
    path_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let path = args::path(path, path_size, "path")?;
        *writer = Making::Writing(Box::new(writer.builder()?.create(&path)?));
        Ok(())
    })
}

/// As llm_gguf_writer_open, but split into parts NAME-00001-of-0000N.gguf, which get their names together. A part takes
/// tensors as long as it stays within the limits, and at least one.
///
/// @param[in] writer A writer.
/// @param[in] path NAME or NAME.gguf, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] max_bytes Bytes of a part's file at most; 0 is no limit.
/// @param[in] max_tensors Tensors of a part at most; 0 is no limit.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, NOT_FOUND, IO, OUT_OF_MEMORY; INVALID_ARGUMENT also if there would be more than 65535 parts;
///   FAILED_PRECONDITION if it is open
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_open_split(
    writer: *mut llm_gguf_writer_t,
    path: *const c_char,
    path_size: usize,
    max_bytes: u64,
    max_tensors: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let path = args::path(path, path_size, "path")?;
        let limit = PartLimit {
            bytes: (max_bytes > 0).then_some(max_bytes),
            tensors: (max_tensors > 0).then_some(max_tensors),
        };
        *writer = Making::Writing(Box::new(writer.builder()?.create_split(&path, limit)?));
        Ok(())
    })
}

/// Appends data of a tensor. The tensors come in the order in which they were added, each in any number of pieces.
///
/// @param[in] writer A writer.
/// @param[in] name The tensor's name.
/// @param[in] name_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] data The next bytes of its data.
/// @param[in] data_size Their number.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT naming the "tensor" if it is not its turn or it has less data than that; IO, and
///   NOT_FOUND, INVALID_ARGUMENT (of the "path") or OUT_OF_MEMORY where the next part of a split file begins, after which
///   nothing more can be written;
///   FAILED_PRECONDITION if the file is not open or an earlier write failed
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_write(
    writer: *mut llm_gguf_writer_t,
    name: *const c_char,
    name_size: usize,
    data: *const c_void,
    data_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        let name = args::utf8(name, name_size, "name")?;
        let data = args::slice::<u8>(data.cast(), data_size, "data")?;
        match &mut *writer {
            Making::Writing(writer) => writer.write(name, data),
            _ => Err(not_open()),
        }
    })
}

/// Ends the file: all is written to the disk, and the file gets its name. Afterwards the writer can only be freed,
/// whether this succeeds or not. Parts get their names one by one, the first one last: if one cannot have its name, those
/// before lose theirs, and parts of an older file that had these names are gone.
///
/// @param[in] writer A writer.
/// @param[out] error @nullable Why it failed: the file did not appear.
/// @status BUSY, IO; NOT_FOUND, INVALID_ARGUMENT (of the "path") or OUT_OF_MEMORY where a last part without data begins;
///   FAILED_PRECONDITION if the file is not open, an earlier write failed, or data are missing, naming the "tensor"
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_finish(
    writer: *mut llm_gguf_writer_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut writer = handle::exclusive(writer, "writer")?;
        if !matches!(*writer, Making::Writing(_)) {
            return Err(not_open());
        }
        match std::mem::replace(&mut *writer, Making::Finished) {
            Making::Writing(writer) => writer.finish(),
            _ => Err(not_open()),
        }
    })
}

/// Frees a writer. If it was not finished, there is no file.
///
/// @param[in] writer @nullable A writer; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_writer_free(writer: *mut llm_gguf_writer_t) {
    value!((), {
        handle::free(writer);
        Some(())
    })
}

/// A file with other keys: those that were set on a writer stand in place of the file's own of the same name, or join
/// them. A model that is loaded from it (llm_model_load_gguf) is one of these keys, which change nothing on disk.
///
/// So RoPE is set otherwise than the file has it: ARCH.rope.freq_base (f32), ARCH.rope.scaling.type (string: "none",
/// "linear", "yarn" or "longrope"), ARCH.rope.scaling.factor (f32), ARCH.rope.scaling.original_context_length (u32) and
/// ARCH.context_length (u32), where ARCH is the string general.architecture; or how the tokenizer begins a text:
/// tokenizer.ggml.add_bos_token (bool). A key of a type that the reader does not expect is CORRUPT_FILE there.
///
/// @code{.c}
/// llm_gguf_t *other = NULL;
/// llm_gguf_writer_t *keys = NULL; // it writes no file
/// if (llm_gguf_writer_new(&keys, &error) != LLM_STATUS_OK
///     || llm_gguf_writer_set_f32(keys, "llama.rope.freq_base", LLM_NUL_TERMINATED, 500000.0f, &error) != LLM_STATUS_OK
///     || llm_gguf_with_keys(gguf, keys, &other, &error) != LLM_STATUS_OK
///     || llm_model_load_gguf(other, NULL, NULL, &model, &error) != LLM_STATUS_OK)
///     fprintf(stderr, "%s\n", llm_error_message(error));
/// llm_gguf_free(other); // the model needs neither
/// llm_gguf_writer_free(keys);
/// @endcode
///
/// @param[in] gguf A file.
/// @param[in] keys A writer, not open yet; its tensors are not looked at.
/// @param[out] other The file with the keys, to be freed with llm_gguf_free.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if general.alignment would change; FAILED_PRECONDITION if the writer is
///   open
/// @thread any; `keys`, one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_with_keys(
    gguf: *const llm_gguf_t,
    keys: *mut llm_gguf_writer_t,
    other: *mut *mut llm_gguf_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let mut keys = handle::exclusive(keys, "keys")?;
        let out = args::out(other, "other")?;
        out.write(handle::new::<llm_gguf_t>(Arc::new(gguf.with_keys(keys.builder()?)?))?);
        Ok(())
    })
}
