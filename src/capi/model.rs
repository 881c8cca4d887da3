//! A model: loaded, described, measured.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::args::{self, Growing};
use super::bytes::llm_view_t;
use super::cancel::llm_cancel_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle::{self, Handle, Kind};
use super::session_params::{self, llm_session_params_t};
use super::status::llm_status_t;
use super::tokenizer::llm_tokenizer_t;
use crate::Threads;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::log::{self, Level};
use crate::model::{LoadOptions, Model};

/// A model: weights, configuration, tokenizer. Shared, reference counted: load it once and give every conversation a
/// session of its own.
///
/// @code{.c}
/// llm_model_params_t params;
/// llm_model_params_init(&params, sizeof params);
/// llm_model_t *model;
/// if (llm_model_load("model.gguf", LLM_NUL_TERMINATED, &params, NULL, &model, &error) == LLM_STATUS_OK) {
///     // llm_session_new(model, NULL, &session, &error) …
///     llm_model_free(model);
/// }
/// @endcode
pub struct llm_model_t {
    _opaque: [u8; 0],
}

impl Handle for llm_model_t {
    type Value = Loaded;
    const KIND: Kind = Kind::Model;
}

/// A model and the line that describes it.
pub(super) struct Loaded {
    pub(super) model: Arc<Model>,
    description: String,
}

/// As a number of threads: as many as the machine has physical cores.
pub const LLM_THREADS_AUTO: u32 = 0;
/// As a number of threads: the calling thread alone, no thread is started.
pub const LLM_THREADS_CALLER: u32 = 0xffff_ffff;

/// Told how far a load is, or another call that takes such a callback; returns whether to go on (false: the call returns
/// ABORTED). Called on the thread of the call.
pub type llm_progress_callback_t = Option<unsafe extern "C" fn(done: u64, total: u64, user_data: *mut c_void) -> bool>;

/// How to load a model. Begin with llm_model_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_model_params_t {
    /// sizeof(llm_model_params_t).
    pub struct_size: usize,
    /// Zero.
    pub flags: u32,
    /// Threads for packing the weights; LLM_THREADS_AUTO (0), LLM_THREADS_CALLER, or how many.
    pub threads: u32,
    /// NULL, or told how many of how many bytes are loaded.
    pub progress: llm_progress_callback_t,
    /// Passed to `progress`.
    pub progress_user_data: *mut c_void,
}

// SAFETY: repr(C), begins with struct_size, numbers and pointers only, no padding (layout_tests).
unsafe impl Growing for llm_model_params_t {
    const DEFAULT: Self = llm_model_params_t {
        struct_size: size_of::<Self>(),
        flags: 0,
        threads: LLM_THREADS_AUTO,
        progress: None,
        progress_user_data: std::ptr::null_mut(),
    };
}

/// What a model is. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_model_info_t {
    /// sizeof(llm_model_info_t).
    pub struct_size: usize,
    /// V: tokens in the vocabulary, the length of a row of logits.
    pub vocab_size: u64,
    /// The context that the model was trained for, in tokens.
    pub context_length: u64,
    /// D: the width of the model.
    pub embedding_length: u64,
    /// Blocks.
    pub layer_count: u64,
    /// Query heads.
    pub head_count: u64,
    /// Key/value heads.
    pub head_count_kv: u64,
    /// The width of the feed-forward part.
    pub feed_forward_length: u64,
    /// Numbers in all weights.
    pub parameter_count: u64,
    /// Bytes that the weights take in memory.
    pub weight_bytes: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_model_info_t {
    const DEFAULT: Self = llm_model_info_t {
        struct_size: size_of::<Self>(),
        vocab_size: 0,
        context_length: 0,
        embedding_length: 0,
        layer_count: 0,
        head_count: 0,
        head_count_kv: 0,
        feed_forward_length: 0,
        parameter_count: 0,
        weight_bytes: 0,
    };
}

/// Memory that a model and one session need, in bytes. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_memory_t {
    /// sizeof(llm_memory_t).
    pub struct_size: usize,
    /// The model, shared by its sessions.
    pub weights: u64,
    /// Keys and values of one session.
    pub kv_cache: u64,
    /// Intermediate results of one session.
    pub scratch: u64,
    /// The sum.
    pub total: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_memory_t {
    const DEFAULT: Self =
        llm_memory_t { struct_size: size_of::<Self>(), weights: 0, kv_cache: 0, scratch: 0, total: 0 };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_params_init(params: *mut llm_model_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

/// The pool for a number of threads; `None` is a new one with a thread for each physical core.
pub(super) fn threads(count: u32) -> Option<Threads> {
    match count {
        LLM_THREADS_AUTO => None,
        LLM_THREADS_CALLER => Some(Threads::new(1)),
        count => Some(Threads::new(count as usize)),
    }
}

/// The caller's progress callback.
pub(super) fn report(
    callback: llm_progress_callback_t,
    user_data: *mut c_void,
) -> impl FnMut(u64, u64) -> ControlFlow<()> {
    move |done, total| {
        // SAFETY: a callback of this type, on the thread that called us.
        let more = callback.is_none_or(|callback| unsafe { callback(done, total, user_data) });
        if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// How to load, and the caller's progress callback.
///
/// # Safety
/// As the exported functions.
pub(super) unsafe fn options(
    params: *const llm_model_params_t,
    cancel: *const llm_cancel_t,
) -> Result<(LoadOptions, impl FnMut(u64, u64) -> ControlFlow<()>)> {
    // SAFETY: the caller's promise.
    let (params, cancel) = unsafe { (args::params(params, "params")?, handle::shared_or_null(cancel, "cancel")?) };
    args::flags(params.flags, 0, "params.flags")?;
    let cancel = cancel.as_deref().cloned().unwrap_or_default();
    let progress = report(params.progress, params.progress_user_data);
    Ok((LoadOptions { threads: threads(params.threads), cancel }, progress))
}

/// # Safety
/// As the exported functions.
unsafe fn load(
    gguf: &Gguf,
    params: *const llm_model_params_t,
    cancel: *const llm_cancel_t,
) -> Result<*mut llm_model_t> {
    // SAFETY: the caller's promise.
    let (options, progress) = unsafe { options(params, cancel) }?;
    let model = Model::load(gguf, &options, progress)?;
    let name = if model.name().is_empty() { "a model without a name" } else { model.name() };
    let description = format!(
        "{name}: {}, {} layers, {:.1} million parameters, {:.1} MiB",
        model.architecture(),
        model.config().layer_count,
        model.parameter_count() as f64 / 1e6,
        model.weight_bytes() as f64 / f64::from(1 << 20)
    );
    log::event(Level::Info, format_args!("loaded {description}"));
    handle::new(Loaded { model: Arc::new(model), description })
}

/// Loads a model from a file. One that llm_gguf_pack wrote is mapped.
///
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[in] cancel @nullable A switch that stops the load from another thread.
/// @param[out] model The model, to be freed with llm_model_free.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_load(
    path: *const c_char,
    path_size: usize,
    params: *const llm_model_params_t,
    cancel: *const llm_cancel_t,
    model: *mut *mut llm_model_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(model, "model")?;
        let path = args::path(path, path_size, "path")?;
        out.write(load(&Gguf::open(&path)?, params, cancel)?);
        Ok(())
    })
}

/// Loads a model from an open file, which may be in memory or behind a reader.
///
/// @param[in] gguf The file.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[in] cancel @nullable A switch that stops the load from another thread.
/// @param[out] model The model, to be freed with llm_model_free.
/// @param[out] error @nullable Why it failed.
/// @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_load_gguf(
    gguf: *const llm_gguf_t,
    params: *const llm_model_params_t,
    cancel: *const llm_cancel_t,
    model: *mut *mut llm_model_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(model, "model")?;
        out.write(load(&gguf, params, cancel)?);
        Ok(())
    })
}

/// Adds a reference, to be freed with llm_model_free.
///
/// @param[in] model A model.
/// @return The same model; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_retain(model: *const llm_model_t) -> *mut llm_model_t {
    value!(std::ptr::null_mut(), { handle::retain(model) })
}

/// Frees a reference. Sessions keep the model alive.
///
/// @param[in] model @nullable A model; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_free(model: *mut llm_model_t) {
    value!((), {
        handle::free(model);
        Some(())
    })
}

/// The numbers that describe a model.
///
/// @param[in] model A model.
/// @param[in,out] info Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_info(
    model: *const llm_model_t,
    info: *mut llm_model_info_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = &handle::shared(model, "model")?.model;
        let out = args::info(info, "info")?;
        let config = model.config();
        out.write(llm_model_info_t {
            vocab_size: config.vocab_size as u64,
            context_length: config.context_length as u64,
            embedding_length: config.embedding_length as u64,
            layer_count: config.layer_count as u64,
            head_count: config.head_count as u64,
            head_count_kv: config.head_count_kv as u64,
            feed_forward_length: config.feed_forward_length as u64,
            parameter_count: model.parameter_count(),
            weight_bytes: model.weight_bytes(),
            ..Growing::DEFAULT
        });
        Ok(())
    })
}

/// The architecture: "llama", "qwen2", "gemma3".
///
/// @param[in] model A model.
/// @param[out] architecture Lives as long as the model.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_architecture(
    model: *const llm_model_t,
    architecture: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let out = args::out(architecture, "architecture")?;
        out.write(llm_view_t::of(model.model.architecture().as_bytes()));
        Ok(())
    })
}

/// A line that describes the model, for people: its name, architecture, size and formats.
///
/// @param[in] model A model.
/// @param[out] description Lives as long as the model.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_description(
    model: *const llm_model_t,
    description: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let out = args::out(description, "description")?;
        out.write(llm_view_t::of(model.description.as_bytes()));
        Ok(())
    })
}

/// The memory that a model and a session of it would need, without loading it.
///
/// @param[in] gguf The model's file.
/// @param[in] session_params @nullable The session; NULL means the defaults.
/// @param[in,out] memory Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_memory(
    gguf: *const llm_gguf_t,
    session_params: *const llm_session_params_t,
    memory: *mut llm_memory_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::info(memory, "memory")?;
        let session = args::params(session_params, "session_params")?;
        let cache = session_params::cache_options(&session)?;
        let memory = Model::memory(&gguf, &cache, session.chunk as usize)?;
        let sum = memory.weights.checked_add(memory.kv_cache).and_then(|sum| sum.checked_add(memory.scratch));
        let total = sum.ok_or_else(|| Error::out_of_memory("the model and the session need more than 2^64 bytes"))?;
        out.write(llm_memory_t {
            weights: memory.weights,
            kv_cache: memory.kv_cache,
            scratch: memory.scratch,
            total,
            ..Growing::DEFAULT
        });
        Ok(())
    })
}

/// The tokenizer of a model.
///
/// @param[in] model A model.
/// @param[out] tokenizer A new reference, to be freed with llm_tokenizer_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_model_tokenizer(
    model: *const llm_model_t,
    tokenizer: *mut *mut llm_tokenizer_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let out = args::out(tokenizer, "tokenizer")?;
        out.write(handle::new::<llm_tokenizer_t>(Arc::clone(model.model.tokenizer()))?);
        Ok(())
    })
}
