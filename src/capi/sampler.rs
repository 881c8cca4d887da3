//! Logits to a token.

use super::args::{self, Growing};
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use super::tokenizer::llm_token_t;
use crate::sample::{Params, Sampler};

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

/// The usual chain, in this order: penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature; with
/// mirostat: penalties, DRY, temperature, mirostat. DRY has no breakers. What each does is told at
/// llm_sampler_add_penalties and its like. Begin with llm_sampler_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_sampler_params_t {
    /// sizeof(llm_sampler_params_t).
    pub struct_size: usize,
    /// Of the random generator; 0 is a seed like any other, and the default.
    pub seed: u64,
    /// Logits are divided by it; 0 takes the most probable token that is left, if temperature_range is 0. Default 0.8.
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
    /// Taken off the logit of a recent token for each time that it occurred. Default 0.
    pub frequency_penalty: f32,
    /// Taken off the logit of a recent token. Default 0.
    pub presence_penalty: f32,
    /// Keep the tokens of the most typical surprise that together have this probability; 1 keeps all. Default 1.
    pub typical_p: f32,
    /// How often the most probable tokens are excluded; 0 is never. Default 0.
    pub xtc_probability: f32,
    /// From which probability on, at most 0.5. Default 0.1.
    pub xtc_threshold: f32,
    /// What is taken off a token that continues a repetition; 0 is none. Default 0.
    pub dry_multiplier: f32,
    /// By how much that grows with each token of the repetition. Default 1.75.
    pub dry_base: f32,
    /// Repetitions up to this length are free. Default 2.
    pub dry_allowed_length: u32,
    /// In how many recent tokens repetitions are looked for. Default 1024.
    pub dry_last_n: u32,
    /// Mask tokens whose logit is more than so many standard deviations below the largest; 0 masks none. Default 0.
    pub top_n_sigma: f32,
    /// The temperature moves by so much to both sides with the model's certainty; 0 is none. Default 0.
    pub temperature_range: f32,
    /// Its exponent. Default 1.
    pub temperature_exponent: f32,
    /// 1 or 2: that version of mirostat takes the place of what truncates; 0 is off. Default 0.
    pub mirostat: u32,
    /// The surprise that it aims at, in bits. Default 5.
    pub mirostat_tau: f32,
    /// How fast it learns. Default 0.1.
    pub mirostat_eta: f32,
    /// Zero.
    pub reserved: u32,
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
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        typical_p: 1.0,
        xtc_probability: 0.0,
        xtc_threshold: 0.1,
        dry_multiplier: 0.0,
        dry_base: 1.75,
        dry_allowed_length: 2,
        dry_last_n: 1024,
        top_n_sigma: 0.0,
        temperature_range: 0.0,
        temperature_exponent: 1.0,
        mirostat: 0,
        mirostat_tau: 5.0,
        mirostat_eta: 0.1,
        reserved: 0,
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
        args::flags(params.reserved, 0, "params.reserved")?;
        let sampler = Sampler::usual(&Params {
            seed: params.seed,
            temperature: params.temperature,
            temperature_range: params.temperature_range,
            temperature_exponent: params.temperature_exponent,
            top_k: params.top_k as usize,
            top_p: params.top_p,
            min_p: params.min_p,
            typical_p: params.typical_p,
            top_n_sigma: params.top_n_sigma,
            xtc_probability: params.xtc_probability,
            xtc_threshold: params.xtc_threshold,
            repeat_penalty: params.repeat_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            repeat_last_n: params.repeat_last_n as usize,
            dry_multiplier: params.dry_multiplier,
            dry_base: params.dry_base,
            dry_allowed_length: params.dry_allowed_length as usize,
            dry_last_n: params.dry_last_n as usize,
            mirostat: params.mirostat,
            mirostat_tau: params.mirostat_tau,
            mirostat_eta: params.mirostat_eta,
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

/// Draws a token. The draw does not go into the history: see llm_sampler_accept. What moves with each draw, accepted
/// or not, is the random generator and what mirostat has learned. A logit that is NaN counts as -INFINITY; if all are, the
/// first token that is left is drawn.
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

/// Adds a token to the history that penalties and DRY look at. Only as much is kept as the steps look at: a step that is
/// added later knows of no token that was accepted before, unless another looked as far back.
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

/// Forgets the history and what mirostat has learned, and sets the random generator back to the seed.
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
