//! Logits to a token.

use super::args::{self, Growing};
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use super::tokenizer::llm_token_t;
use crate::sample::{Params, Sampler, Step};

/// A chain of samplers and a random generator: the same seed gives the same tokens everywhere. Exclusive.
///
/// @code{.c}
/// llm_sampler_params_t params;
/// llm_sampler_params_init(&params, sizeof params);
/// params.temperature = 0.7f;
/// params.seed = 42;
/// llm_sampler_t *sampler;
/// if (llm_sampler_new(&params, &sampler, &error) == LLM_STATUS_OK) {
///     // llm_session_start(session, sampler, NULL, &error) takes a copy of it
///     llm_sampler_free(sampler);
/// }
/// @endcode
pub struct llm_sampler_t {
    _opaque: [u8; 0],
}

impl Handle for llm_sampler_t {
    type Value = Sampler;
    const KIND: Kind = Kind::Sampler;
}

/// The usual chain: repetition penalty, top-k, top-p, min-p, temperature, draw. Begin with llm_sampler_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_sampler_params_t {
    /// sizeof(llm_sampler_params_t).
    pub struct_size: usize,
    /// Of the random generator; 0 is a seed like any other, and the default.
    pub seed: u64,
    /// Logits are divided by it; 0 takes the most probable token. Default 0.8.
    pub temperature: f32,
    /// Keep the most probable tokens that together have this probability; 1 keeps all. Default 0.95.
    pub top_p: f32,
    /// Drop tokens whose probability is less than this times the largest; 0 keeps all. Default 0.05.
    pub min_p: f32,
    /// Logits of recent tokens are divided (if positive) or multiplied by it; 1 is none. Default 1.
    pub repeat_penalty: f32,
    /// Keep this many of the most probable tokens; 0 keeps all. Default 40.
    pub top_k: u32,
    /// How many recent tokens are penalised. Default 64.
    pub repeat_last_n: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_sampler_params_t {
    const DEFAULT: Self = llm_sampler_params_t {
        struct_size: size_of::<Self>(),
        seed: 0,
        temperature: 0.8,
        top_p: 0.95,
        min_p: 0.05,
        repeat_penalty: 1.0,
        top_k: 40,
        repeat_last_n: 64,
    };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_params_init(params: *mut llm_sampler_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

/// Makes the usual chain.
///
/// @param[in] params @nullable Its parameters; NULL means the defaults.
/// @param[out] sampler The sampler, to be freed with llm_sampler_free.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT names a parameter outside its domain; OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_new(
    params: *const llm_sampler_params_t,
    sampler: *mut *mut llm_sampler_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(sampler, "sampler")?;
        let params = args::params(params, "params")?;
        let sampler = Sampler::usual(&Params {
            temperature: params.temperature,
            top_k: params.top_k as usize,
            top_p: params.top_p,
            min_p: params.min_p,
            repeat_penalty: params.repeat_penalty,
            repeat_last_n: params.repeat_last_n as usize,
            seed: params.seed,
        })?;
        out.write(handle::new::<llm_sampler_t>(sampler)?);
        Ok(())
    })
}

/// Makes an empty chain, which draws from the logits as they are. Steps are applied in the order in which they are
/// added.
///
/// @param[in] seed Of the random generator.
/// @param[out] sampler The sampler, to be freed with llm_sampler_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_new_empty(
    seed: u64,
    sampler: *mut *mut llm_sampler_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(sampler, "sampler")?;
        out.write(handle::new::<llm_sampler_t>(Sampler::new(seed))?);
        Ok(())
    })
}

/// Frees a sampler.
///
/// @param[in] sampler @nullable A sampler; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_free(sampler: *mut llm_sampler_t) {
    value!((), {
        handle::free(sampler);
        Some(())
    })
}

/// Adds a step that keeps the most probable token only.
///
/// @param[in] sampler A sampler.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_greedy(
    sampler: *mut llm_sampler_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::Greedy) })
}

/// Adds a step that divides the logits.
///
/// @param[in] sampler A sampler.
/// @param[in] temperature The divisor, not negative; 0 keeps the most probable token only.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if it is negative, NaN or infinite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_temperature(
    sampler: *mut llm_sampler_t,
    temperature: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::Temperature(temperature)) })
}

/// Adds a step that keeps the `k` most probable tokens.
///
/// @param[in] sampler A sampler.
/// @param[in] k How many; 0 keeps all.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_top_k(
    sampler: *mut llm_sampler_t,
    k: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::TopK(k as usize)) })
}

/// Adds a step that keeps the most probable tokens that together have probability `p`.
///
/// @param[in] sampler A sampler.
/// @param[in] p 0 to 1; 1 keeps all.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if p is not from 0 to 1
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_top_p(
    sampler: *mut llm_sampler_t,
    p: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::TopP { p, min_keep: 1 }) })
}

/// Adds a step that drops tokens whose probability is less than `p` times the largest.
///
/// @param[in] sampler A sampler.
/// @param[in] p 0 to 1; 0 keeps all.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if p is not from 0 to 1
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_min_p(
    sampler: *mut llm_sampler_t,
    p: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::MinP { p, min_keep: 1 }) })
}

/// Adds a step that makes recent tokens less probable: positive logits are divided by the penalty, negative ones
/// multiplied.
///
/// @param[in] sampler A sampler.
/// @param[in] penalty More than 0; 1 is none.
/// @param[in] last_n How many recent tokens.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if the penalty is not positive and finite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_repetition_penalty(
    sampler: *mut llm_sampler_t,
    penalty: f32,
    last_n: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let step = Step::RepetitionPenalty { penalty, last_n: last_n as usize };
        handle::exclusive(sampler, "sampler")?.push(step)
    })
}

/// Draws a token. The draw does not go into the history: see llm_sampler_accept.
///
/// @param[in] sampler A sampler.
/// @param[in] logits (V) floats; they are not changed.
/// @param[in] count V, at least 1.
/// @param[out] token The token.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_sample(
    sampler: *mut llm_sampler_t,
    logits: *const f32,
    count: usize,
    token: *mut llm_token_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut sampler = handle::exclusive(sampler, "sampler")?;
        let logits = args::slice(logits, count, "logits")?;
        let out = args::out(token, "token")?;
        out.write(sampler.sample(logits)?);
        Ok(())
    })
}

/// Adds a token to the history that the repetition penalty looks at.
///
/// @param[in] sampler A sampler.
/// @param[in] token The token that was taken.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_accept(
    sampler: *mut llm_sampler_t,
    token: llm_token_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(sampler, "sampler")?.accept(token);
        Ok(())
    })
}

/// Forgets the history and sets the random generator back to the seed.
///
/// @param[in] sampler A sampler.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_reset(sampler: *mut llm_sampler_t, error: *mut *mut llm_error_t) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(sampler, "sampler")?.reset();
        Ok(())
    })
}
