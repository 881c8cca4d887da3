//! LoRA adapters.

use std::ffi::c_char;
use std::sync::Arc;

use super::args::{self, Growing};
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle::{self, Handle, Kind};
use super::model::llm_model_t;
use super::session::llm_session_t;
use super::status::llm_status_t;
use crate::gguf::Gguf;
use crate::model::Lora;

/// A LoRA adapter for a model: for some matrices W of the model it stands for W + scale * alpha / R * B A. Shared,
/// reference counted, and independent of the file. A session that it is added to computes with it; the model and other
/// sessions are not changed. Files are those of llama.cpp's converter.
///
/// @code{.c}
/// llm_lora_t *lora = NULL;
/// if (llm_lora_load(model, "adapter.gguf", LLM_NUL_TERMINATED, &lora, &error) != LLM_STATUS_OK
///     || llm_session_add_lora(session, lora, 1.0f, &error) != LLM_STATUS_OK) // before the session has tokens
///     fprintf(stderr, "%s\n", llm_error_message(error));
/// llm_lora_free(lora); // the session keeps it
/// @endcode
pub struct llm_lora_t {
    _opaque: [u8; 0],
}

impl Handle for llm_lora_t {
    type Value = Arc<Lora>;
    const KIND: Kind = Kind::Lora;
}

/// What an adapter is. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_lora_info_t {
    /// sizeof(llm_lora_info_t).
    pub struct_size: usize,
    /// R, the largest of its pairs of matrices.
    pub rank: u64,
    /// The model's tensors that it changes.
    pub tensor_count: u64,
    /// Bytes that it takes in memory.
    pub bytes: u64,
    /// The alpha of its file. 0: there is none, and scales are taken as they are, without alpha / R.
    pub alpha: f32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_lora_info_t {
    const DEFAULT: Self =
        llm_lora_info_t { struct_size: size_of::<Self>(), rank: 0, tensor_count: 0, bytes: 0, alpha: 0.0, reserved: 0 };
}

/// Loads an adapter from a file.
///
/// @param[in] model The model that it is for.
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] lora The adapter, to be freed with llm_lora_free.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY; INVALID_ARGUMENT if it is for another architecture,
///     or for tensors that the model does not have, or has in another shape
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_lora_load(
    model: *const llm_model_t,
    path: *const c_char,
    path_size: usize,
    lora: *mut *mut llm_lora_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let out = args::out(lora, "lora")?;
        let path = args::path(path, path_size, "path")?;
        let lora = Lora::load(&Gguf::open(&path)?, &model.model)?;
        out.write(handle::new::<llm_lora_t>(Arc::new(lora))?);
        Ok(())
    })
}

/// Loads an adapter from an open file, which may be in memory or behind a reader.
///
/// @param[in] model The model that it is for.
/// @param[in] gguf The file.
/// @param[out] lora The adapter, to be freed with llm_lora_free.
/// @param[out] error @nullable Why it failed.
/// @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY; INVALID_ARGUMENT if it is for another architecture, or for
///     tensors that the model does not have, or has in another shape
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_lora_load_gguf(
    model: *const llm_model_t,
    gguf: *const llm_gguf_t,
    lora: *mut *mut llm_lora_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(lora, "lora")?;
        out.write(handle::new::<llm_lora_t>(Arc::new(Lora::load(&gguf, &model.model)?))?);
        Ok(())
    })
}

/// Adds a reference, to be freed with llm_lora_free.
///
/// @param[in] lora An adapter.
/// @return The same adapter; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_lora_retain(lora: *const llm_lora_t) -> *mut llm_lora_t {
    value!(std::ptr::null_mut(), { handle::retain(lora) })
}

/// Frees a reference. Sessions keep the adapters that were added to them.
///
/// @param[in] lora @nullable An adapter; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_lora_free(lora: *mut llm_lora_t) {
    value!((), {
        handle::free(lora);
        Some(())
    })
}

/// The numbers that describe an adapter.
///
/// @param[in] lora An adapter.
/// @param[in,out] info Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_lora_info(
    lora: *const llm_lora_t,
    info: *mut llm_lora_info_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let lora = handle::shared(lora, "lora")?;
        let out = args::info(info, "info")?;
        out.write(llm_lora_info_t {
            rank: lora.rank() as u64,
            tensor_count: lora.tensor_count() as u64,
            bytes: lora.bytes(),
            alpha: lora.alpha(),
            ..Growing::DEFAULT
        });
        Ok(())
    })
}

/// The name that the adapter's file gives it, which may be empty.
///
/// @param[in] lora An adapter.
/// @param[out] name Lives as long as the adapter.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_lora_name(
    lora: *const llm_lora_t,
    name: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let lora = handle::shared(lora, "lora")?;
        args::out(name, "name")?.write(llm_view_t::of(lora.name().as_bytes()));
        Ok(())
    })
}

/// Adds an adapter to a session that has no tokens: from then on it computes with W + scale * alpha / R * B A. Several
/// add up in the order in which they were added, the same one twice too; with a scale of 0 it changes nothing.
///
/// @param[in] session A session without tokens.
/// @param[in] lora The adapter, loaded for the session's model. The session keeps it.
/// @param[in] scale 1 is what the adapter was trained with.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; FAILED_PRECONDITION if the session holds tokens, whose keys and values are those of the adapters before:
///     llm_session_reset it first; INVALID_ARGUMENT for a scale that is not finite, or an adapter whose shapes
///     are another model's
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_add_lora(
    session: *mut llm_session_t,
    lora: *const llm_lora_t,
    scale: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let lora = handle::shared(lora, "lora")?;
        conversation.session.add_lora(Arc::clone(&lora), scale)
    })
}

/// Removes all adapters from a session that has no tokens; it then computes what the model alone does, bit for bit.
///
/// @param[in] session A session without tokens.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; FAILED_PRECONDITION if the session holds tokens
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_clear_loras(
    session: *mut llm_session_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(session, "session")?.session.clear_loras() })
}
