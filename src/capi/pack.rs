//! Packing a model's file for loading.

use std::ffi::c_char;

use super::args;
use super::cancel::llm_cancel_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle;
use super::model::{self, llm_model_params_t};
use super::status::llm_status_t;
use crate::model::Model;

/// Writes a model's file with its matrices packed as the processor reads them, and the tables of its tokenizer. Loading
/// such a file maps it into memory: that takes milliseconds, and processes that load it share one copy. The model computes
/// the same bits.
///
/// The file is a GGUF of about the same size that only this library loads. It is made for a version of this library and
/// its layout: another version may refuse it (UNSUPPORTED), so keep the model's own file. While a model is loaded from
/// it, it must not be changed or cut short, or the process may end by SIGBUS: to replace it, rename a new file over it.
/// Packing needs as much memory as loading the model. The file appears under its name when it is complete.
///
/// @param[in] gguf The model's file.
/// @param[in] path Where to write, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] params @nullable Threads and progress as in loading; NULL means the defaults.
/// @param[in] cancel @nullable A switch that stops the call from another thread.
/// @param[out] error @nullable Why it failed; then there is no file.
/// @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED; NOT_FOUND if the folder does not exist;
///     INVALID_ARGUMENT also if the file is packed
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_pack(
    gguf: *const llm_gguf_t,
    path: *const c_char,
    path_size: usize,
    params: *const llm_model_params_t,
    cancel: *const llm_cancel_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let path = args::path(path, path_size, "path")?;
        let (options, progress) = model::options(params, cancel)?;
        Model::pack(&gguf, &path, &options, progress)
    })
}
