//! The steps of a chain that look at certain tokens: those of the history, those that the caller names, and all by a
//! callback.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::args;
use super::error::llm_error_t;
use super::gguf::{Lent, llm_drop_callback_t};
use super::handle;
use super::sampler::llm_sampler_t;
use super::status::llm_status_t;
use super::tokenizer::{LLM_TOKEN_NONE, llm_token_t, llm_tokenizer_t};
use crate::error::{Error, Result, try_copy, try_push, try_vec};
use crate::sample::{Callback, CandidateLogit, Step};

/// A candidate as a sampler callback sees it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_candidate_t {
    /// The token.
    pub token: llm_token_t,
    /// Its logit. -INFINITY masks the token; NaN counts as that.
    pub logit: f32,
}

/// A step of the caller's: may change the logits of the `count` candidates that are left, which come in no certain order;
/// to change their tokens has no effect. Borrowed for the call. Called on the thread that samples or generates. Functions
/// of the sampler or the session that runs it give BUSY there. It must not throw, unwind or longjmp.
pub type llm_sampler_callback_t =
    Option<unsafe extern "C" fn(candidates: *mut llm_candidate_t, count: usize, user_data: *mut c_void)>;

/// Adds a step that makes recent tokens less probable: positive logits are divided by `repeat`, others multiplied; then
/// `presence` is taken off, and `frequency` for each time that the token occurred.
///
/// @param[in] sampler A sampler.
/// @param[in] repeat More than 0; 1 is none.
/// @param[in] frequency 0 is none; negative rewards.
/// @param[in] presence 0 is none; negative rewards.
/// @param[in] last_n How many recent tokens count.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if repeat is not positive, or one is NaN or infinite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_penalties(
    sampler: *mut llm_sampler_t,
    repeat: f32,
    frequency: f32,
    presence: f32,
    last_n: u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let step = Step::Penalties { repeat, frequency, presence, last_n: last_n as usize };
        handle::exclusive(sampler, "sampler")?.push(step)
    })
}

/// Adds a step that makes a token less probable that would continue a repetition of m >= allowed_length tokens, by
/// multiplier * base^(m - allowed_length).
///
/// @param[in] sampler A sampler.
/// @param[in] multiplier Not negative; 0 is off.
/// @param[in] base Usually 1.75; below 1 is off.
/// @param[in] allowed_length Repetitions up to this length are free.
/// @param[in] last_n In how many recent tokens repetitions are looked for.
/// @param[in] breakers Sequences of tokens that no repetition reaches over, separated by LLM_TOKEN_NONE: the tokens of a
///     line break, say.
/// @param[in] count How many tokens and separators that is; 0 is none.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if multiplier or base is negative, NaN or infinite
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_dry(
    sampler: *mut llm_sampler_t,
    multiplier: f32,
    base: f32,
    allowed_length: u32,
    last_n: u32,
    breakers: *const llm_token_t,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut lists = Vec::new();
        for breaker in args::slice(breakers, count, "breakers")?.split(|token| *token == LLM_TOKEN_NONE) {
            add_breaker(&mut lists, breaker)?;
        }
        let (allowed_length, last_n) = (allowed_length as usize, last_n as usize);
        let step = Step::Dry { multiplier, base, allowed_length, last_n, breakers: lists.into() };
        handle::exclusive(sampler, "sampler")?.push(step)
    })
}

/// Bytes of texts that break at most: each costs a look at the whole vocabulary.
const MOST_BREAKERS: usize = 4096;

/// llm_sampler_add_dry with breakers that are texts. A breaker is then each token that contains the text, as one of two
/// line breaks contains one, and each that ends with its beginning, followed by the tokens of what is left of it.
///
/// @param[in] sampler A sampler.
/// @param[in] tokenizer The tokenizer of the model.
/// @param[in] multiplier Not negative; 0 is off.
/// @param[in] base Usually 1.75; below 1 is off.
/// @param[in] allowed_length Repetitions up to this length are free.
/// @param[in] last_n In how many recent tokens repetitions are looked for.
/// @param[in] breakers Texts, each with a zero byte at its end: "\n\0:\0\"\0*\0" are the four that are usual. At
///     most 256 bytes each.
/// @param[in] breakers_size How many bytes that is, with the zero bytes, at most 4096; 0 is none.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if multiplier or base is negative, NaN or
///     infinite, or a text too long
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_dry_texts(
    sampler: *mut llm_sampler_t,
    tokenizer: *const llm_tokenizer_t,
    multiplier: f32,
    base: f32,
    allowed_length: u32,
    last_n: u32,
    breakers: *const c_char,
    breakers_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut sampler = handle::exclusive(sampler, "sampler")?;
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        if breakers_size > MOST_BREAKERS {
            let message = format!("the breakers have {breakers_size} bytes, there can be {MOST_BREAKERS}");
            let error = Error::invalid_argument(message).with("argument", "breakers");
            return Err(error.with("expected", MOST_BREAKERS).with("found", breakers_size));
        }
        let mut lists = Vec::new();
        for text in args::slice::<u8>(breakers.cast(), breakers_size, "breakers")?.split(|byte| *byte == 0) {
            let mut sequences = tokenizer.sequences_with(text)?;
            lists.try_reserve(sequences.len()).map_err(|_| Error::out_of_memory("the breakers cannot be had"))?;
            lists.append(&mut sequences);
        }
        let (allowed_length, last_n) = (allowed_length as usize, last_n as usize);
        sampler.push(Step::Dry { multiplier, base, allowed_length, last_n, breakers: lists.into() })
    })
}

fn add_breaker(lists: &mut Vec<Vec<u32>>, breaker: &[llm_token_t]) -> Result<()> {
    if breaker.is_empty() {
        return Ok(());
    }
    try_push(lists, try_copy(breaker, "a breaker")?, "the breakers")
}

/// Adds a step that adds to the logits of some tokens.
///
/// @param[in] sampler A sampler.
/// @param[in] tokens The tokens; one that is there several times gets the sum.
/// @param[in] values What is added to each; -INFINITY bans the token.
/// @param[in] count Their number.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if a value is NaN or +INFINITY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_logit_bias(
    sampler: *mut llm_sampler_t,
    tokens: *const llm_token_t,
    values: *const f32,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokens = args::slice(tokens, count, "tokens")?;
        let values = args::slice(values, count, "values")?;
        let mut bias = try_vec(count, (0, 0.0), "the biases")?;
        bias.iter_mut().zip(tokens.iter().zip(values)).for_each(|(bias, (token, value))| *bias = (*token, *value));
        handle::exclusive(sampler, "sampler")?.push(Step::LogitBias(bias.into()))
    })
}

/// Adds a step that masks some tokens, unless no other would be left.
///
/// @param[in] sampler A sampler.
/// @param[in] tokens The tokens.
/// @param[in] count Their number.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_banned_tokens(
    sampler: *mut llm_sampler_t,
    tokens: *const llm_token_t,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokens = args::slice(tokens, count, "tokens")?;
        handle::exclusive(sampler, "sampler")?.push(Step::Ban(try_copy(tokens, "the banned tokens")?.into()))
    })
}

/// Adds a step that masks the tokens which mark a fill-in-the-middle prompt (prefix, suffix, middle, padding, repository,
/// file), unless no other would be left. A middle that is filled in has none of them. Those that end a generation stay.
///
/// @param[in] sampler A sampler.
/// @param[in] tokenizer The tokenizer of the model.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_infill_bans(
    sampler: *mut llm_sampler_t,
    tokenizer: *const llm_tokenizer_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let banned: Vec<u32> = tokenizer.fill_in().tokens().filter(|token| !tokenizer.is_eog(*token)).collect();
        handle::exclusive(sampler, "sampler")?.push(Step::Ban(banned.into()))
    })
}

/// Adds a step of the caller's own.
///
/// A session takes over the chain of the sampler that it starts with: its generations call the callback too, each on the
/// thread that generates, so that several may run at a time. If the call fails, `drop` is not called.
///
/// @param[in] sampler A sampler.
/// @param[in] callback Called each time that the chain comes to the step.
/// @param[in] user_data @nullable Passed to both callbacks.
/// @param[in] drop @nullable Called when the last chain with the step is gone, on the thread that gives it up.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_sampler_add_callback(
    sampler: *mut llm_sampler_t,
    callback: llm_sampler_callback_t,
    user_data: *mut c_void,
    drop: llm_drop_callback_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut sampler = handle::exclusive(sampler, "sampler")?;
        let callback = args::callback(callback, "callback")?;
        let lent = Lent::new(drop, user_data);
        let held = Arc::clone(&lent);
        let step = move |candidates: &mut [CandidateLogit]| {
            // Both structs are an id and a logit, repr(C); the callback is of this type.
            callback(candidates.as_mut_ptr().cast(), candidates.len(), held.user_data().0);
        };
        sampler.push(Step::Callback(Callback::new(step)))?;
        lent.arm();
        Ok(())
    })
}
