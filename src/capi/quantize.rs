//! Making a model's file smaller, and finding out which of its numbers matter.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;

use super::args::{self, Growing};
use super::cancel::llm_cancel_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle;
use super::model::{self, LLM_THREADS_AUTO, llm_progress_callback_t};
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::generate::{ImatrixOptions, imatrix};
use crate::gguf::NewFile;
use crate::quant::Format;
use crate::quantize::{Importance, Options, Recipe, quantize};

/// As the number of a type: the one that the recipe says.
pub const LLM_TYPE_OF_RECIPE: u32 = 0xffff_ffff;

/// How to quantise. Begin with llm_quantize_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_quantize_params_t {
    /// sizeof(llm_quantize_params_t).
    pub struct_size: usize,
    /// Zero.
    pub flags: u32,
    /// LLM_THREADS_AUTO (0), LLM_THREADS_CALLER, or how many. The result does not depend on it.
    pub threads: u32,
    /// The type of output.weight, or of the embedding where that makes the logits too: a number that
    /// llm_gguf_type_find gives, or LLM_TYPE_OF_RECIPE.
    pub output_type: u32,
    /// The type of the embedding: likewise.
    pub embedding_type: u32,
    /// NULL, or told how many of how many bytes are read.
    pub progress: llm_progress_callback_t,
    /// Passed to `progress`.
    pub progress_user_data: *mut c_void,
}

// SAFETY: repr(C), begins with struct_size, numbers and pointers only, no padding (layout_tests).
unsafe impl Growing for llm_quantize_params_t {
    const DEFAULT: Self = llm_quantize_params_t {
        struct_size: size_of::<Self>(),
        flags: 0,
        threads: LLM_THREADS_AUTO,
        output_type: LLM_TYPE_OF_RECIPE,
        embedding_type: LLM_TYPE_OF_RECIPE,
        progress: None,
        progress_user_data: std::ptr::null_mut(),
    };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_quantize_params_init(params: *mut llm_quantize_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

fn format(number: u32, argument: &'static str) -> Result<Option<Format>> {
    if number == LLM_TYPE_OF_RECIPE {
        return Ok(None);
    }
    let format = Format::from_id(number);
    format.map(Some).ok_or_else(|| {
        Error::invalid_argument(format!("{argument} is {number}, which is no type that this version can write"))
            .with("argument", argument)
            .with("found", number)
    })
}

/// Writes a model's file with its matrices in smaller number formats. Vectors, norms, routers and the like stay as they
/// are, as do all keys but general.file_type and general.quantization_version.
///
/// The memory needed is that of a few MiB a thread. Tensors of the wanted type are copied; those that are quantised in
/// another are quantised again, which costs accuracy: the log gets a warning, as it does if importances are missing for
/// some. Rows that are no whole blocks of a type get one of shorter blocks (Q4_0 for Q2_K and Q3_K, Q5_0 for Q4_K, Q5_1 for
/// Q5_K, Q8_0 for Q6_K, IQ4_NL for IQ4_XS), or F16. The file appears under its name when it is complete.
///
/// @param[in] gguf The model's file.
/// @param[in] path Where to write, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] type F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q2_K_S, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M,
///   Q5_K_S, Q5_K_M, Q6_K, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0 or MXFP4_MOE, in capitals or not.
/// @param[in] type_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] imatrix @nullable The path of a file of importances, which llm_gguf_imatrix makes; NULL for none.
/// @param[in] imatrix_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[in] cancel @nullable A switch that stops the call from another thread.
/// @param[out] error @nullable Why it failed; then there is no file.
/// @status NOT_FOUND, IO, CORRUPT_FILE, OUT_OF_MEMORY, CANCELLED, ABORTED; UNSUPPORTED naming the "tensor" whose type is
///   not decoded; INVALID_ARGUMENT also if an importance has not the shape of its "tensor", if there are importances but
///   of no tensor of the file, if the number "index" of a "tensor" is NaN, infinite (F16, BF16 and F32 have these) or so
///   large that the "format" has no room for it ("found"), or if the file is packed
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_quantize(
    gguf: *const llm_gguf_t,
    path: *const c_char,
    path_size: usize,
    r#type: *const c_char,
    type_size: usize,
    imatrix: *const c_char,
    imatrix_size: usize,
    params: *const llm_quantize_params_t,
    cancel: *const llm_cancel_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let path = args::path(path, path_size, "path")?;
        let recipe = Recipe::named(args::utf8(r#type, type_size, "type")?)?;
        let imatrix: Option<PathBuf> =
            if imatrix.is_null() { None } else { Some(args::path(imatrix, imatrix_size, "imatrix")?) };
        let (params, cancel) = (args::params(params, "params")?, handle::shared_or_null(cancel, "cancel")?);
        args::flags(params.flags, 0, "params.flags")?;
        let options = Options {
            output: format(params.output_type, "params.output_type")?,
            embedding: format(params.embedding_type, "params.embedding_type")?,
            threads: model::threads(params.threads),
            cancel: cancel.as_deref().cloned().unwrap_or_default(),
        };
        let importance = imatrix.map(|path| Importance::read(&path)).transpose()?;
        let progress = model::report(params.progress, params.progress_user_data);
        quantize(&gguf, &path, recipe, importance.as_ref(), &options, progress)
    })
}

/// How to find importances. Begin with llm_imatrix_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_imatrix_params_t {
    /// sizeof(llm_imatrix_params_t).
    pub struct_size: usize,
    /// Zero.
    pub flags: u32,
    /// LLM_THREADS_AUTO (0), LLM_THREADS_CALLER, or how many. The result does not depend on it.
    pub threads: u32,
    /// Tokens that see each other; 0: 512, or the model's context if that is shorter.
    pub chunk_size: u32,
    /// Zero.
    pub reserved: u32,
    /// NULL, or told how many of how many chunks are done.
    pub progress: llm_progress_callback_t,
    /// Passed to `progress`.
    pub progress_user_data: *mut c_void,
}

// SAFETY: repr(C), begins with struct_size, numbers and pointers only, no padding (layout_tests).
unsafe impl Growing for llm_imatrix_params_t {
    const DEFAULT: Self = llm_imatrix_params_t {
        struct_size: size_of::<Self>(),
        flags: 0,
        threads: LLM_THREADS_AUTO,
        chunk_size: 0,
        reserved: 0,
        progress: None,
        progress_user_data: std::ptr::null_mut(),
    };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_imatrix_params_init(params: *mut llm_imatrix_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

/// Runs a text through a model and writes how much each column of its matrices matters: the mean of the squares of what
/// it is multiplied with. llm_gguf_quantize makes better files with that. The file is a GGUF as llm-imatrix and llama.cpp
/// write and read it.
///
/// @param[in] gguf The model's file; the model is loaded for the call.
/// @param[in] text A text such as the model will see: some hundred kilobytes are enough.
/// @param[in] text_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] dataset What the text is called in the file. Bytes that are not UTF-8 become U+FFFD: it may be a file's name.
/// @param[in] dataset_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] path Where to write, UTF-8 (on Unix any bytes). Opened before the text is read.
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[in] cancel @nullable A switch that stops the call from another thread.
/// @param[out] error @nullable Why it failed; then there is no file.
/// @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED; INVALID_ARGUMENT also if the text
///   has no tokens or the file is packed
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_imatrix(
    gguf: *const llm_gguf_t,
    text: *const c_char,
    text_size: usize,
    dataset: *const c_char,
    dataset_size: usize,
    path: *const c_char,
    path_size: usize,
    params: *const llm_imatrix_params_t,
    cancel: *const llm_cancel_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let text = args::text(text, text_size, "text")?;
        let dataset = String::from_utf8_lossy(args::text(dataset, dataset_size, "dataset")?).into_owned();
        let path = args::path(path, path_size, "path")?;
        let (params, cancel) = (args::params(params, "params")?, handle::shared_or_null(cancel, "cancel")?);
        args::flags(params.flags, 0, "params.flags")?;
        args::flags(params.reserved, 0, "params.reserved")?;
        let options = ImatrixOptions {
            dataset,
            chunk_size: params.chunk_size as usize,
            threads: model::threads(params.threads),
            cancel: cancel.as_deref().cloned().unwrap_or_default(),
        };
        let progress = model::report(params.progress, params.progress_user_data);
        // Opened first, so that a path that cannot be written does not cost the computation.
        let file = NewFile::create(&path)?;
        imatrix(&gguf, text, &options, progress)?.write_in(file)
    })
}
