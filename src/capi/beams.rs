//! Beam search.

use super::args::{self, Growing};
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::request::llm_request_t;
use super::session::llm_session_t;
use super::session_generate::{finish_number, llm_finish_reason_t};
use super::session_params::LLM_GENERATE_IGNORE_EOG;
use super::status::llm_status_t;
use super::tokenizer::llm_token_t;
use crate::error::Result;
use crate::generate::{Beam, BeamOptions};

/// The continuations that llm_session_beam_search found, best first. They do not change.
///
/// @code{.c}
/// llm_beams_t *beams;
/// if (llm_session_beam_search(session, NULL, &beams, &error) == LLM_STATUS_OK) {
///     llm_beam_t best;
///     best.struct_size = sizeof best;
///     if (llm_beams_get(beams, 0, &best, &error) == LLM_STATUS_OK)
///         fwrite(best.text.data, 1, best.text.size, stdout);
///     llm_beams_free(beams);
/// }
/// @endcode
pub struct llm_beams_t {
    _opaque: [u8; 0],
}

impl Handle for llm_beams_t {
    type Value = Vec<Beam>;
    const KIND: Kind = Kind::Beams;
}

/// How to search. Begin with llm_beam_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_beam_params_t {
    /// sizeof(llm_beam_params_t).
    pub struct_size: usize,
    /// Continuations are compared by the sum of their log probabilities / length^length_penalty. 0 prefers short ones.
    /// The search is over when `width` of them have ended and score at least as high as the best unfinished one does now.
    /// Default 1.
    pub length_penalty: f64,
    /// Continuations that are followed at a time, and given in the end, 1 to 256. Default 4.
    pub width: u32,
    /// Tokens of a continuation at most; 0 means as many as fit into the context.
    pub max_tokens: u32,
    /// LLM_GENERATE_IGNORE_EOG or 0. Where there is a grammar, tokens that end a text end its texts all the same.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_beam_params_t {
    const DEFAULT: Self = llm_beam_params_t {
        struct_size: size_of::<Self>(),
        length_penalty: 1.0,
        width: 4,
        max_tokens: 0,
        flags: 0,
        reserved: 0,
    };
}

/// A continuation. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_beam_t {
    /// sizeof(llm_beam_t).
    pub struct_size: usize,
    /// The sum of the natural log probabilities of its tokens and of the one that ended it.
    pub logprob: f64,
    /// What they are ordered by: logprob / length^length_penalty, an ending token counted.
    pub score: f64,
    /// Its tokens, without one that ended it. They live until the beams are freed.
    pub tokens: *const llm_token_t,
    /// How many.
    pub token_count: usize,
    /// Their text; lives as long.
    pub text: llm_view_t,
    /// LLM_FINISH_EOG, LLM_FINISH_GRAMMAR, LLM_FINISH_LENGTH or LLM_FINISH_CONTEXT_FULL.
    pub finish_reason: llm_finish_reason_t,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, numbers, a pointer and a view, no padding (layout_tests).
unsafe impl Growing for llm_beam_t {
    const DEFAULT: Self = llm_beam_t {
        struct_size: size_of::<Self>(),
        logprob: 0.0,
        score: 0.0,
        tokens: std::ptr::null(),
        token_count: 0,
        text: llm_view_t { data: c"".as_ptr(), size: 0 },
        finish_reason: 0,
        reserved: 0,
    };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_beam_params_init(params: *mut llm_beam_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

fn options(params: &llm_beam_params_t) -> Result<BeamOptions> {
    let flags = args::flags(params.flags, LLM_GENERATE_IGNORE_EOG, "params.flags")?;
    args::flags(params.reserved, 0, "params.reserved")?;
    Ok(BeamOptions {
        width: params.width as usize,
        max_tokens: params.max_tokens as usize,
        length_penalty: params.length_penalty,
        ignore_eog: flags & LLM_GENERATE_IGNORE_EOG != 0,
    })
}

/// Searches the most likely continuations of a session as a whole. The session is as before. A cache of
/// LLM_CACHE_PAGED is shared with it page by page; others are copied for each beam. Each continuation is a text of the
/// session's grammar, if it has one; log probabilities are those among all tokens all the same.
///
/// @param[in] session A session with tokens.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[out] beams The continuations, best first, to be freed with llm_beams_free.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CANCELLED, OUT_OF_MEMORY, UNSUPPORTED (unknown flags); CACHE_FULL if shared pages run out;
///     FAILED_PRECONDITION if the session has no tokens; INVALID_ARGUMENT if the width is not 1 to 256, the penalty
///     not finite, or the grammar too ambiguous
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_beam_search(
    session: *mut llm_session_t,
    params: *const llm_beam_params_t,
    beams: *mut *mut llm_beams_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let out = args::out(beams, "beams")?;
        let options = options(&args::params(params, "params")?)?;
        out.write(handle::new::<llm_beams_t>(conversation.session.beam_search(&options)?)?);
        Ok(())
    })
}

/// Makes a request search the most likely continuations of its prompt as a whole, as llm_session_beam_search does, beside
/// the other requests of the engine. Each continuation is a text of its grammar, if it has one; its sampler, stop strings,
/// max_tokens, count and log probabilities have no part in that. Continuation i is the i-th best. The events of all come
/// together when the search is over: for each continuation one for each token, without text, and then one with the whole
/// text and its end. NOT_FOUND ends those of `width` that were not found.
///
/// @param[in] request A request.
/// @param[in] params @nullable How, which llm_engine_submit looks at; NULL ends it: a sampler chooses again.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, UNSUPPORTED (unknown flags)
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_set_beams(
    request: *mut llm_request_t,
    params: *const llm_beam_params_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        request.beams = if params.is_null() { None } else { Some(options(&args::params(params, "params")?)?) };
        Ok(())
    })
}

/// Frees the continuations.
///
/// @param[in] beams @nullable Continuations; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_beams_free(beams: *mut llm_beams_t) {
    value!((), {
        handle::free(beams);
        Some(())
    })
}

/// How many continuations there are: as many as the width, or fewer if fewer are possible.
///
/// @param[in] beams Continuations.
/// @return Their number; 0 if they are none.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_beams_count(beams: *const llm_beams_t) -> usize {
    value!(0, { handle::shared(beams, "beams").ok().map(|beams| beams.len()) })
}

/// A continuation.
///
/// @param[in] beams Continuations.
/// @param[in] index Below llm_beams_count.
/// @param[in,out] beam Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND if there are not so many
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_beams_get(
    beams: *const llm_beams_t,
    index: usize,
    beam: *mut llm_beam_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let beams = handle::shared(beams, "beams")?;
        let out = args::info(beam, "beam")?;
        let count = beams.len();
        let beam = beams.get(index).ok_or_else(|| args::beyond("continuation", index, count))?;
        out.write(llm_beam_t {
            struct_size: size_of::<llm_beam_t>(),
            logprob: beam.logprob,
            score: beam.score,
            tokens: beam.tokens.as_ptr(),
            token_count: beam.tokens.len(),
            text: llm_view_t::of(&beam.text),
            finish_reason: finish_number(Some(beam.finish)),
            reserved: 0,
        });
        Ok(())
    })
}
