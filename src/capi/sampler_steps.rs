//! The steps of a chain that look at probabilities alone: temperature, truncation, mirostat.

use super::error::llm_error_t;
use super::handle;
use super::sampler::llm_sampler_t;
use super::status::llm_status_t;
use crate::sample::Step;

/// Adds a step that keeps the most probable token only.
///
/// @param[in] sampler A sampler.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
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
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is negative, NaN or infinite
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

/// Adds a step that divides the logits by temperature - range (not below 0) where the model is sure, by temperature +
/// range where it is not, and in between by the share of its entropy in the largest, to the power of `exponent`.
///
/// @param[in] sampler A sampler.
/// @param[in] temperature The middle, not negative.
/// @param[in] range Not negative; 0 is plain temperature.
/// @param[in] exponent Not negative; usually 1.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if one is negative, NaN or infinite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_dynamic_temperature(
    sampler: *mut llm_sampler_t,
    temperature: f32,
    range: f32,
    exponent: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(sampler, "sampler")?.push(Step::DynamicTemperature { temperature, range, exponent })
    })
}

/// Adds a step that keeps the `k` most probable tokens.
///
/// @param[in] sampler A sampler.
/// @param[in] k How many; 0 keeps all.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
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
/// @param[in] min_keep Keeps at least so many.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if p is not from 0 to 1
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_top_p(
    sampler: *mut llm_sampler_t,
    p: f32,
    min_keep: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::TopP { p, min_keep: min_keep as usize }) })
}

/// Adds a step that drops tokens whose probability is less than `p` times the largest.
///
/// @param[in] sampler A sampler.
/// @param[in] p 0 to 1; 0 keeps all.
/// @param[in] min_keep Keeps at least so many.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if p is not from 0 to 1
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_min_p(
    sampler: *mut llm_sampler_t,
    p: f32,
    min_keep: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::MinP { p, min_keep: min_keep as usize }) })
}

/// Adds a step that keeps the tokens whose surprise is nearest to the expected one, until they have more than probability
/// `p`.
///
/// @param[in] sampler A sampler.
/// @param[in] p 0 to 1; 1 keeps all.
/// @param[in] min_keep Keeps at least so many.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if p is not from 0 to 1
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_typical(
    sampler: *mut llm_sampler_t,
    p: f32,
    min_keep: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::Typical { p, min_keep: min_keep as usize }) })
}

/// Adds a step that cuts where the sorted probabilities become flat: before the first token at which the second
/// differences, as shares of their sum, sum to more than `z`.
///
/// @param[in] sampler A sampler.
/// @param[in] z 0 to 1; 1 keeps all.
/// @param[in] min_keep Keeps at least so many.
/// @param[in] keep_crossing Cut behind that token and not before it, as KoboldAI does.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if z is not from 0 to 1
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_tail_free(
    sampler: *mut llm_sampler_t,
    z: f32,
    min_keep: u32,
    keep_crossing: bool,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(sampler, "sampler")?.push(Step::TailFree { z, min_keep: min_keep as usize, keep_crossing })
    })
}

/// Adds a step that masks the tokens whose logit is more than `n` standard deviations below the largest.
///
/// @param[in] sampler A sampler.
/// @param[in] n Not negative; 0 masks none.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if n is negative, NaN or infinite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_top_n_sigma(
    sampler: *mut llm_sampler_t,
    n: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::TopNSigma(n)) })
}

/// Adds a step that now and then excludes the top choices: all tokens that are at least as probable as `threshold`,
/// but the least probable of them.
///
/// @param[in] sampler A sampler.
/// @param[in] probability How often, 0 to 1.
/// @param[in] threshold 0 to 1; above 0.5 is never.
/// @param[in] min_keep Does nothing where fewer than this many would stay.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if one is not from 0 to 1
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_xtc(
    sampler: *mut llm_sampler_t,
    probability: f32,
    threshold: f32,
    min_keep: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(sampler, "sampler")?.push(Step::Xtc { probability, threshold, min_keep: min_keep as usize })
    })
}

/// Adds a step that keeps the surprise of what is drawn near `tau` bits, version 1. It learns from each draw; it
/// belongs at the end of a chain.
///
/// @param[in] sampler A sampler.
/// @param[in] tau Usually 5.
/// @param[in] eta How fast it learns; usually 0.1.
/// @param[in] m How many of the most probable tokens it estimates from; usually 100.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if tau or eta is negative, NaN or infinite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_mirostat(
    sampler: *mut llm_sampler_t,
    tau: f32,
    eta: f32,
    m: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::Mirostat { tau, eta, m: m as usize }) })
}

/// Adds a step that keeps the surprise of what is drawn near `tau` bits, version 2. It learns from each draw; it
/// belongs at the end of a chain.
///
/// @param[in] sampler A sampler.
/// @param[in] tau Usually 5.
/// @param[in] eta How fast it learns; usually 0.1.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if tau or eta is negative, NaN or infinite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_mirostat_v2(
    sampler: *mut llm_sampler_t,
    tau: f32,
    eta: f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(sampler, "sampler")?.push(Step::MirostatV2 { tau, eta }) })
}
