//! A session's embeddings.

use super::args::{self, Growing};
use super::error::llm_error_t;
use super::handle;
use super::session::llm_session_t;
use super::status::llm_status_t;
use super::tokenizer::llm_token_t;
use crate::error::Result;
use crate::generate::EmbedOptions;
use crate::model::Pooling;

/// How the hidden states of a text's tokens become its embedding: one of LLM_POOLING_.
pub type llm_pooling_t = i32;

/// As the model's file says; by their mean if it says nothing.
pub const LLM_POOLING_MODEL: llm_pooling_t = 0;
/// Not at all: each token has a vector of its own.
pub const LLM_POOLING_NONE: llm_pooling_t = 1;
/// Their mean: the sums in 64-bit floats, in the order of the tokens, divided by their number.
pub const LLM_POOLING_MEAN: llm_pooling_t = 2;
/// The state of the first token.
pub const LLM_POOLING_CLS: llm_pooling_t = 3;
/// The state of the last token.
pub const LLM_POOLING_LAST: llm_pooling_t = 4;

const POOLINGS: [(llm_pooling_t, Option<Pooling>); 5] = [
    (LLM_POOLING_MODEL, None),
    (LLM_POOLING_NONE, Some(Pooling::None)),
    (LLM_POOLING_MEAN, Some(Pooling::Mean)),
    (LLM_POOLING_CLS, Some(Pooling::Cls)),
    (LLM_POOLING_LAST, Some(Pooling::Last)),
];

/// A flag of llm_embed_params_t: each vector is divided by its Euclidean length, so that the dot product of two is the
/// cosine of the angle between them. A vector of zeros stays.
pub const LLM_EMBED_NORMALIZE: u32 = 1;

/// How to make an embedding. Begin with llm_embed_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_embed_params_t {
    /// sizeof(llm_embed_params_t).
    pub struct_size: usize,
    /// One of LLM_POOLING_; LLM_POOLING_MODEL by default.
    pub pooling: llm_pooling_t,
    /// LLM_EMBED_NORMALIZE, which is the default, or 0.
    pub flags: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_embed_params_t {
    const DEFAULT: Self =
        llm_embed_params_t { struct_size: size_of::<Self>(), pooling: LLM_POOLING_MODEL, flags: LLM_EMBED_NORMALIZE };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_embed_params_init(params: *mut llm_embed_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

fn options(params: &llm_embed_params_t) -> Result<EmbedOptions> {
    Ok(EmbedOptions {
        pooling: args::one_of(params.pooling, &POOLINGS, "params.pooling")?,
        normalize: args::flags(params.flags, LLM_EMBED_NORMALIZE, "params.flags")? != 0,
    })
}

/// The embedding of a text: the hidden states of its tokens after the model's last norm, pooled. The session must be
/// empty, and is so afterwards; its context must have room for the text. With LLM_POOLING_NONE the hidden state of each
/// token is given.
///
/// @code{.c}
/// // D is embedding_length of llm_model_info_t; the tokens are those of llm_tokenizer_encode with LLM_ENCODE_ADD_SPECIAL.
/// float *embedding = (float *)malloc(D * sizeof *embedding);
/// if (embedding != NULL
///     && llm_session_embed(session, tokens, count, NULL, embedding, D, &error) == LLM_STATUS_OK)
///     printf("the first of %zu numbers is %f\n", D, embedding[0]);
/// free(embedding);
/// @endcode
///
/// @param[in] session A session without tokens.
/// @param[in] tokens The tokens.
/// @param[in] count Their number T, at least 1.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[out] embedding (D) floats; (T,D) with LLM_POOLING_NONE, of which some may be written if the call fails.
/// @param[in] capacity Of `embedding` in floats, at least as many.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CACHE_FULL, CANCELLED, BUFFER_TOO_SMALL, OUT_OF_MEMORY; FAILED_PRECONDITION if the session holds tokens;
///     INVALID_ARGUMENT for no tokens, and names one that is not in the vocabulary; UNSUPPORTED for LLM_POOLING_MODEL if
///     the model's own way is none of the others
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_embed(
    session: *mut llm_session_t,
    tokens: *const llm_token_t,
    count: usize,
    params: *const llm_embed_params_t,
    embedding: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let tokens = args::slice(tokens, count, "tokens")?;
        let options = options(&args::params(params, "params")?)?;
        let embedding = args::buffer(embedding, capacity, "embedding")?;
        conversation.session.embed(tokens, options, embedding)
    })
}
