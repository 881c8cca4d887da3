//! Text to tokens and back.

use std::ffi::c_char;
use std::sync::Arc;

use super::args::{self, Growing};
use super::bytes::{self, llm_bytes_t, llm_view_t};
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::token::{DecodeOptions, EncodeOptions, TokenKind, Tokenizer};

/// A tokenizer. Shared, reference counted; llm_model_tokenizer gives a model's own.
///
/// @code{.c}
/// size_t count;
/// llm_token_t tokens[512];
/// if (llm_tokenizer_encode(tokenizer, "Hello", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, tokens, 512, &count, &error)
///     == LLM_STATUS_OK)
///     printf("%zu tokens\n", count);
/// @endcode
pub struct llm_tokenizer_t {
    _opaque: [u8; 0],
}

impl Handle for llm_tokenizer_t {
    type Value = Arc<Tokenizer>;
    const KIND: Kind = Kind::Tokenizer;
}

/// The number of a token in its vocabulary.
pub type llm_token_t = u32;

/// No token.
pub const LLM_TOKEN_NONE: llm_token_t = 0xffff_ffff;

/// A flag of encoding: add the tokens that the model wants at the start and the end (BOS, EOS).
pub const LLM_ENCODE_ADD_SPECIAL: u32 = 1;
/// A flag of encoding: special tokens written in the text ("<|im_start|>") become those tokens. Not for text from
/// strangers.
pub const LLM_ENCODE_PARSE_SPECIAL: u32 = 2;

/// A flag of decoding: special tokens appear as their text; without it they give nothing. Unused tokens never give any.
pub const LLM_DECODE_SHOW_SPECIAL: u32 = 1;
/// A flag of llm_tokenizer_decode: remove spaces before punctuation if the tokenizer's own decoder does
/// (llm_tokenizer_info_t::cleans_up_spaces). The text is then not the tokens' pieces put together.
pub const LLM_DECODE_CLEAN_UP_SPACES: u32 = 2;

/// What kind of token it is: one of LLM_TOKEN_KIND_, the numbers of the file format.
pub type llm_token_kind_t = i32;

/// Text.
pub const LLM_TOKEN_KIND_NORMAL: llm_token_kind_t = 1;
/// Stands for text that has no token.
pub const LLM_TOKEN_KIND_UNKNOWN: llm_token_kind_t = 2;
/// Controls the model: beginning, end, roles.
pub const LLM_TOKEN_KIND_CONTROL: llm_token_kind_t = 3;
/// Text added to the vocabulary after training it.
pub const LLM_TOKEN_KIND_USER_DEFINED: llm_token_kind_t = 4;
/// Never used; gives no text.
pub const LLM_TOKEN_KIND_UNUSED: llm_token_kind_t = 5;
/// A single byte.
pub const LLM_TOKEN_KIND_BYTE: llm_token_kind_t = 6;

/// What a tokenizer is. Set struct_size before it is filled. Tokens that the vocabulary lacks are LLM_TOKEN_NONE.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_tokenizer_info_t {
    /// sizeof(llm_tokenizer_info_t).
    pub struct_size: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// Begins a text.
    pub bos: llm_token_t,
    /// Ends a text.
    pub eos: llm_token_t,
    /// Fills up a batch.
    pub pad: llm_token_t,
    /// Stands for text that has no token.
    pub unk: llm_token_t,
    /// Ends a turn of a conversation.
    pub eot: llm_token_t,
    /// 1 if encoding with LLM_ENCODE_ADD_SPECIAL begins with `bos`, else 0.
    pub adds_bos: u32,
    /// 1 if encoding with LLM_ENCODE_ADD_SPECIAL ends with `eos`, else 0.
    pub adds_eos: u32,
    /// Ends a message after which the model goes on once it has an answer, as of a tool.
    pub eom: llm_token_t,
    /// Stands between two texts, and after the last, for an encoder.
    pub sep: llm_token_t,
    /// Stands for a word that an encoder is to guess.
    pub mask: llm_token_t,
    /// Fill in the middle: before the text that stands before the gap.
    pub fill_prefix: llm_token_t,
    /// Fill in the middle: before the text that stands after the gap.
    pub fill_suffix: llm_token_t,
    /// Fill in the middle: before the text that fills the gap.
    pub fill_middle: llm_token_t,
    /// Fill in the middle: fills up a batch.
    pub fill_pad: llm_token_t,
    /// Fill in the middle: before the name of a repository.
    pub fill_repository: llm_token_t,
    /// Fill in the middle: before the name of a file.
    pub fill_separator: llm_token_t,
    /// 1 if LLM_DECODE_CLEAN_UP_SPACES changes anything, else 0.
    pub cleans_up_spaces: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_tokenizer_info_t {
    const DEFAULT: Self = llm_tokenizer_info_t {
        struct_size: size_of::<Self>(),
        vocab_size: 0,
        bos: LLM_TOKEN_NONE,
        eos: LLM_TOKEN_NONE,
        pad: LLM_TOKEN_NONE,
        unk: LLM_TOKEN_NONE,
        eot: LLM_TOKEN_NONE,
        adds_bos: 0,
        adds_eos: 0,
        eom: LLM_TOKEN_NONE,
        sep: LLM_TOKEN_NONE,
        mask: LLM_TOKEN_NONE,
        fill_prefix: LLM_TOKEN_NONE,
        fill_suffix: LLM_TOKEN_NONE,
        fill_middle: LLM_TOKEN_NONE,
        fill_pad: LLM_TOKEN_NONE,
        fill_repository: LLM_TOKEN_NONE,
        fill_separator: LLM_TOKEN_NONE,
        cleans_up_spaces: 0,
    };
}

/// Loads the tokenizer of a model file; a file with the vocabulary only will do, and the first part of a split one. For
/// a file in memory see llm_tokenizer_load_gguf.
///
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] tokenizer The tokenizer, to be freed with llm_tokenizer_free.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_load(
    path: *const c_char,
    path_size: usize,
    tokenizer: *mut *mut llm_tokenizer_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(tokenizer, "tokenizer")?;
        let path = args::path(path, path_size, "path")?;
        out.write(handle::new::<llm_tokenizer_t>(Arc::new(Tokenizer::open(&path)?))?);
        Ok(())
    })
}

/// Loads the tokenizer of an open file.
///
/// @param[in] gguf The file.
/// @param[out] tokenizer The tokenizer, to be freed with llm_tokenizer_free.
/// @param[out] error @nullable Why it failed.
/// @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_load_gguf(
    gguf: *const llm_gguf_t,
    tokenizer: *mut *mut llm_tokenizer_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::out(tokenizer, "tokenizer")?;
        out.write(handle::new::<llm_tokenizer_t>(Arc::new(Tokenizer::from_gguf(&gguf)?))?);
        Ok(())
    })
}

/// Adds a reference, to be freed with llm_tokenizer_free.
///
/// @param[in] tokenizer A tokenizer.
/// @return The same tokenizer; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_retain(tokenizer: *const llm_tokenizer_t) -> *mut llm_tokenizer_t {
    value!(std::ptr::null_mut(), { handle::retain(tokenizer) })
}

/// Frees a reference.
///
/// @param[in] tokenizer @nullable A tokenizer; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_free(tokenizer: *mut llm_tokenizer_t) {
    value!((), {
        handle::free(tokenizer);
        Some(())
    })
}

pub(super) fn encode_options(flags: u32) -> Result<EncodeOptions> {
    args::flags(flags, LLM_ENCODE_ADD_SPECIAL | LLM_ENCODE_PARSE_SPECIAL, "flags")?;
    Ok(EncodeOptions {
        add_special: flags & LLM_ENCODE_ADD_SPECIAL != 0,
        parse_special: flags & LLM_ENCODE_PARSE_SPECIAL != 0,
    })
}

/// Turns text into tokens.
///
/// Exception to the rule that outputs are written on success only: with BUFFER_TOO_SMALL `count` is written too. So a
/// first call with `tokens` NULL and `capacity` 0 asks for the room that is needed.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] text Any bytes.
/// @param[in] text_size Their number, or LLM_NUL_TERMINATED.
/// @param[in] flags LLM_ENCODE_ bits.
/// @param[out] tokens Room for `capacity` tokens; NULL only with capacity 0.
/// @param[in] capacity In tokens.
/// @param[out] count How many tokens the text has.
/// @param[out] error @nullable Why it failed.
/// @status BUFFER_TOO_SMALL, OUT_OF_MEMORY, UNSUPPORTED (unknown flags)
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_encode(
    tokenizer: *const llm_tokenizer_t,
    text: *const c_char,
    text_size: usize,
    flags: u32,
    tokens: *mut llm_token_t,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let text = args::text(text, text_size, "text")?;
        let buffer = args::buffer(tokens, capacity, "tokens")?;
        let out = args::out(count, "count")?;
        let tokens = tokenizer.encode(text, encode_options(flags)?)?;
        out.write(tokens.len());
        args::copy(&tokens, buffer, "tokens")
    })
}

/// Turns tokens into text.
///
/// The text of tokens that end in the middle of a character is not UTF-8; llm_decoder_t holds such bytes back.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] tokens The tokens.
/// @param[in] token_count Their number.
/// @param[in] flags LLM_DECODE_ bits.
/// @param[out] text The text, to be freed with llm_bytes_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY, UNSUPPORTED (unknown flags); INVALID_ARGUMENT names a token that is not in the vocabulary
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_decode(
    tokenizer: *const llm_tokenizer_t,
    tokens: *const llm_token_t,
    token_count: usize,
    flags: u32,
    text: *mut *mut llm_bytes_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let tokens = args::slice(tokens, token_count, "tokens")?;
        let out = args::out(text, "text")?;
        let flags = args::flags(flags, LLM_DECODE_SHOW_SPECIAL | LLM_DECODE_CLEAN_UP_SPACES, "flags")?;
        let options = DecodeOptions {
            show_special: flags & LLM_DECODE_SHOW_SPECIAL != 0,
            clean_up_spaces: flags & LLM_DECODE_CLEAN_UP_SPACES != 0,
        };
        out.write(bytes::new(tokenizer.decode(tokens, options)?)?);
        Ok(())
    })
}

/// The bytes of one token; special tokens as their text, unused ones as nothing. A single token may not be UTF-8.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] token A token.
/// @param[out] piece Lives as long as the tokenizer.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT if it is not in the vocabulary
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_piece(
    tokenizer: *const llm_tokenizer_t,
    token: llm_token_t,
    piece: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let out = args::out(piece, "piece")?;
        out.write(llm_view_t::of(tokenizer.piece(token)?));
        Ok(())
    })
}

/// The token whose text is exactly this.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] text Any bytes; one byte that is no text finds its byte token.
/// @param[in] text_size Their number, or LLM_NUL_TERMINATED.
/// @param[out] token The token.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_find(
    tokenizer: *const llm_tokenizer_t,
    text: *const c_char,
    text_size: usize,
    token: *mut llm_token_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let text = args::text(text, text_size, "text")?;
        let out = args::out(token, "token")?;
        out.write(tokenizer.id(text).ok_or_else(|| {
            let text: String = String::from_utf8_lossy(text).chars().take(80).collect();
            Error::not_found(format!("no token has the text {text:?}")).with("text", text)
        })?);
        Ok(())
    })
}

/// The numbers that describe a tokenizer.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in,out] info Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_info(
    tokenizer: *const llm_tokenizer_t,
    info: *mut llm_tokenizer_info_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let out = args::info(info, "info")?;
        let fill = tokenizer.fill_in();
        let or_none = |token: Option<u32>| token.unwrap_or(LLM_TOKEN_NONE);
        out.write(llm_tokenizer_info_t {
            vocab_size: u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX),
            bos: or_none(tokenizer.bos()),
            eos: or_none(tokenizer.eos()),
            pad: or_none(tokenizer.pad()),
            unk: or_none(tokenizer.unk()),
            eot: or_none(tokenizer.eot()),
            adds_bos: tokenizer.adds_bos().into(),
            adds_eos: tokenizer.adds_eos().into(),
            eom: or_none(tokenizer.eom()),
            sep: or_none(tokenizer.sep()),
            mask: or_none(tokenizer.mask()),
            fill_prefix: or_none(fill.prefix),
            fill_suffix: or_none(fill.suffix),
            fill_middle: or_none(fill.middle),
            fill_pad: or_none(fill.pad),
            fill_repository: or_none(fill.repository),
            fill_separator: or_none(fill.separator),
            cleans_up_spaces: tokenizer.cleans_up_spaces().into(),
            ..Growing::DEFAULT
        });
        Ok(())
    })
}

/// Whether a generation ends with this token.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] token A token.
/// @return Whether; false if it is not in the vocabulary.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_is_eog(tokenizer: *const llm_tokenizer_t, token: llm_token_t) -> bool {
    value!(false, {
        let tokenizer = handle::shared(tokenizer, "tokenizer").ok()?;
        Some(tokenizer.is_eog(token))
    })
}

/// The kind of a token.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] token A token.
/// @return One of LLM_TOKEN_KIND_; 0 if it is not in the vocabulary.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_token_kind(
    tokenizer: *const llm_tokenizer_t,
    token: llm_token_t,
) -> llm_token_kind_t {
    value!(0, {
        let tokenizer = handle::shared(tokenizer, "tokenizer").ok()?;
        Some(match tokenizer.kind(token)? {
            TokenKind::Normal => LLM_TOKEN_KIND_NORMAL,
            TokenKind::Unknown => LLM_TOKEN_KIND_UNKNOWN,
            TokenKind::Control => LLM_TOKEN_KIND_CONTROL,
            TokenKind::UserDefined => LLM_TOKEN_KIND_USER_DEFINED,
            TokenKind::Unused => LLM_TOKEN_KIND_UNUSED,
            TokenKind::Byte => LLM_TOKEN_KIND_BYTE,
        })
    })
}

/// The score of a token: its merges come in the order of scores (SentencePiece), or it is the logarithm of its
/// probability (unigram).
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] token A token.
/// @return The score; 0 if the file gives none, or if the token is not in the vocabulary.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_token_score(tokenizer: *const llm_tokenizer_t, token: llm_token_t) -> f32 {
    value!(0.0, {
        let tokenizer = handle::shared(tokenizer, "tokenizer").ok()?;
        Some(tokenizer.score(token))
    })
}

/// A chat template of the model's file, in jinja2's language.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] name @nullable One of the file's other templates, as "tool_use"; NULL or empty: the template.
/// @param[in] name_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] text The template, borrowed from the tokenizer.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND if there is none
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_chat_template(
    tokenizer: *const llm_tokenizer_t,
    name: *const c_char,
    name_size: usize,
    text: *mut llm_view_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let name = if name.is_null() { None } else { Some(args::utf8(name, name_size, "name")?) };
        let out = args::out(text, "text")?;
        let missing = || {
            let name = name.unwrap_or_default();
            let message = match name {
                "" => "the file has no chat template (key tokenizer.chat_template)".to_owned(),
                name => format!("the file has no chat template {name:?}"),
            };
            Error::not_found(message).with("name", name)
        };
        out.write(llm_view_t::of(tokenizer.chat_template(name).ok_or_else(missing)?.as_bytes()));
        Ok(())
    })
}

/// A fill-in-the-middle prompt for models of code: tokens after which the model writes what belongs between two texts.
/// They are prefix, suffix and middle, each after its special token, and the beginning token if the model wants it.
///
/// @param[in] tokenizer A tokenizer.
/// @param[in] prefix The text before the gap, any bytes.
/// @param[in] prefix_size Their number, or LLM_NUL_TERMINATED.
/// @param[in] suffix The text after the gap, any bytes.
/// @param[in] suffix_size Their number, or LLM_NUL_TERMINATED.
/// @param[out] tokens The tokens; may be NULL if `capacity` is 0.
/// @param[in] capacity Of `tokens`.
/// @param[out] count The number of tokens of the prompt, also with BUFFER_TOO_SMALL.
/// @param[out] error @nullable Why it failed.
/// @status BUFFER_TOO_SMALL, OUT_OF_MEMORY; UNSUPPORTED if the vocabulary lacks one of the three (fact "token")
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_tokenizer_fill_in(
    tokenizer: *const llm_tokenizer_t,
    prefix: *const c_char,
    prefix_size: usize,
    suffix: *const c_char,
    suffix_size: usize,
    tokens: *mut llm_token_t,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let prefix = args::text(prefix, prefix_size, "prefix")?;
        let suffix = args::text(suffix, suffix_size, "suffix")?;
        let buffer = args::buffer(tokens, capacity, "tokens")?;
        let out = args::out(count, "count")?;
        let prompt = tokenizer.fill_in_prompt(prefix, suffix)?;
        out.write(prompt.len());
        args::copy(&prompt, buffer, "tokens")
    })
}
