//! Tokens to text as they come.

use std::sync::Arc;

use super::args;
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use super::tokenizer::{LLM_DECODE_SHOW_SPECIAL, llm_token_t, llm_tokenizer_t};
use crate::token::Decoder;

/// Turns tokens into text one by one and never splits a UTF-8 character. Exclusive. It keeps its tokenizer alive.
///
/// @code{.c}
/// llm_view_t text;
/// while (more(&token) && llm_decoder_push(decoder, token, &text, NULL) == LLM_STATUS_OK)
///     fwrite(text.data, 1, text.size, stdout);
/// if (llm_decoder_finish(decoder, &text, NULL) == LLM_STATUS_OK)
///     fwrite(text.data, 1, text.size, stdout);
/// @endcode
pub struct llm_decoder_t {
    _opaque: [u8; 0],
}

impl Handle for llm_decoder_t {
    type Value = Decoder;
    const KIND: Kind = Kind::Decoder;
}

/// Makes a decoder.
///
/// @param[in] tokenizer The tokenizer.
/// @param[in] flags LLM_DECODE_SHOW_SPECIAL or 0.
/// @param[out] decoder The decoder, to be freed with llm_decoder_free.
/// @param[out] error @nullable Why it failed.
/// @status UNSUPPORTED (unknown flags), OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_decoder_new(
    tokenizer: *const llm_tokenizer_t,
    flags: u32,
    decoder: *mut *mut llm_decoder_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let out = args::out(decoder, "decoder")?;
        let flags = args::flags(flags, LLM_DECODE_SHOW_SPECIAL, "flags")?;
        let show_special = flags & LLM_DECODE_SHOW_SPECIAL != 0;
        out.write(handle::new::<llm_decoder_t>(Decoder::new(Arc::clone(&tokenizer), show_special))?);
        Ok(())
    })
}

/// Frees a decoder.
///
/// @param[in] decoder @nullable A decoder; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_decoder_free(decoder: *mut llm_decoder_t) {
    value!((), {
        handle::free(decoder);
        Some(())
    })
}

/// Takes a token and gives the text that is complete with it, which may be empty.
///
/// @param[in] decoder A decoder.
/// @param[in] token A token.
/// @param[out] text Lives until the next call on the decoder.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if it is not in the vocabulary
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_decoder_push(
    decoder: *mut llm_decoder_t,
    token: llm_token_t,
    text: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut decoder = handle::exclusive(decoder, "decoder")?;
        let out = args::out(text, "text")?;
        out.write(llm_view_t::of(decoder.push(token)?));
        Ok(())
    })
}

/// Gives the bytes that were held back, which are no complete character, and begins anew.
///
/// @param[in] decoder A decoder.
/// @param[out] text Lives until the next call on the decoder.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_decoder_finish(
    decoder: *mut llm_decoder_t,
    text: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut decoder = handle::exclusive(decoder, "decoder")?;
        let out = args::out(text, "text")?;
        out.write(llm_view_t::of(decoder.finish()));
        Ok(())
    })
}

/// Begins anew and forgets what was held back.
///
/// @param[in] decoder A decoder.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_decoder_reset(decoder: *mut llm_decoder_t, error: *mut *mut llm_error_t) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(decoder, "decoder")?.reset();
        Ok(())
    })
}
