//! What an engine is asked to do.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::args::{self, Growing};
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::lora::llm_lora_t;
use super::messages::{llm_messages_t, wants_answer};
use super::sampler::llm_sampler_t;
use super::session::greedy;
use super::session_params::LLM_GENERATE_IGNORE_EOG;
use super::status::llm_status_t;
use super::tokenizer::{encode_options, llm_token_t, llm_tokenizer_t};
use crate::error::{Result, try_copy, try_push};
use crate::generate::{GenerateOptions, Request, check_stop};

/// A prompt and how it is to go on, for llm_engine_submit, which copies it: it may be changed and submitted again.
/// Exclusive.
///
/// @code{.c}
/// llm_request_t *request;
/// llm_request_id_t id;
/// if (llm_request_new(&request, &error) == LLM_STATUS_OK) {
///     llm_request_params_t params;
///     llm_request_params_init(&params, sizeof params);
///     params.max_tokens = 100;
///     if (llm_request_set_params(request, &params, &error) == LLM_STATUS_OK
///         && llm_request_set_text(request, tokenizer, "Once", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, &error)
///             == LLM_STATUS_OK
///         && llm_engine_submit(engine, request, &id, &error) == LLM_STATUS_OK)
///         printf("request %llu\n", (unsigned long long)id);
///     llm_request_free(request);
/// }
/// @endcode
pub struct llm_request_t {
    _opaque: [u8; 0],
}

impl Handle for llm_request_t {
    type Value = Request;
    const KIND: Kind = Kind::Request;
}

/// A flag of llm_request_params_t: llm_events_logprobs tells the log probabilities of the tokens that are chosen.
pub const LLM_REQUEST_LOGPROBS: u32 = 2;

/// How a request goes on. Begin with llm_request_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_request_params_t {
    /// sizeof(llm_request_params_t).
    pub struct_size: usize,
    /// End a continuation after this many tokens; 0 is no limit but the context.
    pub max_tokens: u32,
    /// LLM_GENERATE_IGNORE_EOG and LLM_REQUEST_LOGPROBS, or'ed, or 0.
    pub flags: u32,
    /// Requests with a higher one go first; among equals the one that was submitted first. Default 0.
    pub priority: i32,
    /// Continuations of the prompt, at most 256; 0 means 1. Number i draws with the sampler's seed + i. Default 1.
    pub count: u32,
    /// Of how many of the most probable tokens beside the chosen one, at most V; without LLM_REQUEST_LOGPROBS of none.
    /// Default 0.
    pub top_logprobs: u32,
    /// 0.
    pub reserved: u32,
    /// What the request's events are to carry, since a thread that polls may see them before llm_engine_submit has told the
    /// request's number. Default NULL.
    pub user_data: *mut c_void,
}

// SAFETY: repr(C), begins with struct_size, numbers and a pointer, no padding (layout_tests).
unsafe impl Growing for llm_request_params_t {
    const DEFAULT: Self = llm_request_params_t {
        struct_size: size_of::<Self>(),
        max_tokens: 0,
        flags: 0,
        priority: 0,
        count: 1,
        top_logprobs: 0,
        reserved: 0,
        user_data: std::ptr::null_mut(),
    };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_params_init(params: *mut llm_request_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

/// Makes a request without a prompt, which takes the most probable token.
///
/// @param[out] request The request, to be freed with llm_request_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_new(
    request: *mut *mut llm_request_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(request, "request")?;
        out.write(handle::new::<llm_request_t>(Request::new(Vec::new(), greedy()?))?);
        Ok(())
    })
}

/// Frees a request. What was submitted goes on.
///
/// @param[in] request @nullable A request; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_free(request: *mut llm_request_t) {
    value!((), {
        handle::free(request);
        Some(())
    })
}

/// Sets the prompt.
///
/// @param[in] request A request.
/// @param[in] tokens The tokens.
/// @param[in] count Their number.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_set_tokens(
    request: *mut llm_request_t,
    tokens: *const llm_token_t,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        request.tokens = try_copy(args::slice(tokens, count, "tokens")?, "the prompt")?;
        Ok(())
    })
}

/// Sets the prompt, from text.
///
/// @param[in] request A request.
/// @param[in] tokenizer The tokenizer of the model.
/// @param[in] text Any bytes.
/// @param[in] text_size Their number, or LLM_NUL_TERMINATED.
/// @param[in] flags LLM_ENCODE_ bits.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY, UNSUPPORTED (unknown flags, or a model without tokenizer)
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_set_text(
    request: *mut llm_request_t,
    tokenizer: *const llm_tokenizer_t,
    text: *const c_char,
    text_size: usize,
    flags: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        request.tokens = tokenizer.encode(args::text(text, text_size, "text")?, encode_options(flags)?)?;
        Ok(())
    })
}

/// Sets the prompt, from a conversation: the tokens that llm_session_append_messages would make a session hold. Requests of
/// the turns of a conversation find what they share in the engine's pages. llm_messages_add_answer tells how an answer is
/// added.
///
/// @param[in] request A request.
/// @param[in] tokenizer The tokenizer of the model.
/// @param[in] messages A conversation.
/// @param[in] flags 0 or LLM_MESSAGES_ANSWER.
/// @param[out] count @nullable How many tokens the prompt has.
/// @param[out] error @nullable Why it failed; then the request is as it was.
/// @status BUSY, OUT_OF_MEMORY; those of llm_messages_render
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_set_messages(
    request: *mut llm_request_t,
    tokenizer: *const llm_tokenizer_t,
    messages: *mut llm_messages_t,
    flags: u32,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let messages = handle::exclusive(messages, "messages")?;
        let out = args::out_or_null(count, "count")?;
        request.tokens = messages.encode(&tokenizer, wants_answer(flags)?)?;
        out.write(request.tokens.len());
        Ok(())
    })
}

/// Sets how it goes on.
///
/// @param[in] request A request.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, UNSUPPORTED (unknown flags)
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_set_params(
    request: *mut llm_request_t,
    params: *const llm_request_params_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        let params = args::params(params, "params")?;
        let flags = args::flags(params.flags, LLM_GENERATE_IGNORE_EOG | LLM_REQUEST_LOGPROBS, "params.flags")?;
        args::flags(params.reserved, 0, "params.reserved")?;
        request.options = GenerateOptions {
            max_tokens: params.max_tokens as usize,
            ignore_eog: flags & LLM_GENERATE_IGNORE_EOG != 0,
        };
        (request.priority, request.count) = (params.priority, params.count as usize);
        request.tag = params.user_data.expose_provenance();
        request.logprobs = (flags & LLM_REQUEST_LOGPROBS != 0).then_some(params.top_logprobs as usize);
        Ok(())
    })
}

/// Sets how tokens are chosen.
///
/// @param[in] request A request.
/// @param[in] sampler @nullable Its steps and seed are copied; each continuation begins at the seed, with the prompt
///     as its history. NULL takes the most probable token.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_set_sampler(
    request: *mut llm_request_t,
    sampler: *mut llm_sampler_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        request.sampler = match handle::exclusive_or_null(sampler, "sampler")? {
            Some(sampler) => sampler.fresh(),
            None => greedy()?,
        };
        Ok(())
    })
}

/// Adds a stop string, as llm_session_add_stop does.
///
/// @param[in] request A request.
/// @param[in] text UTF-8, not empty.
/// @param[in] text_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT for an empty text or one that is not UTF-8
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_add_stop(
    request: *mut llm_request_t,
    text: *const c_char,
    text_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        let text = args::text(text, text_size, "text")?;
        check_stop(text)?;
        let stop = try_copy(text, "a stop string")?;
        try_push(&mut request.stops, stop, "the stop strings")
    })
}

/// Removes all stop strings.
///
/// @param[in] request A request.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_clear_stops(
    request: *mut llm_request_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(request, "request")?.stops.clear();
        Ok(())
    })
}

/// Adds an adapter, as llm_session_add_lora does. Requests with different adapters are processed together.
///
/// @param[in] request A request.
/// @param[in] lora An adapter of the engine's model.
/// @param[in] scale What it is multiplied with, usually 1; llm_engine_submit looks at that.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_add_lora(
    request: *mut llm_request_t,
    lora: *const llm_lora_t,
    scale: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        let lora = handle::shared(lora, "lora")?;
        try_push(&mut request.loras, (Arc::clone(&lora), scale), "the adapters")
    })
}

/// Removes all adapters.
///
/// @param[in] request A request.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_clear_loras(
    request: *mut llm_request_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(request, "request")?.loras.clear();
        Ok(())
    })
}

/// A request's copy for an engine.
pub(super) fn copy(request: &Request) -> Result<Request> {
    let mut stops = Vec::new();
    for stop in &request.stops {
        try_push(&mut stops, try_copy(stop, "a stop string")?, "the stop strings")?;
    }
    Ok(Request {
        tokens: try_copy(&request.tokens, "the prompt")?,
        sampler: request.sampler.fresh(),
        grammar: request.grammar.clone(),
        stops,
        loras: request.loras.clone(),
        ..*request
    })
}
