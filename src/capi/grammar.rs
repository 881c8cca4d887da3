//! Shapes that text is to have.

use std::ffi::c_char;
use std::sync::Arc;

use super::args;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::request::llm_request_t;
use super::session::llm_session_t;
use super::status::llm_status_t;
use super::tokenizer::llm_tokenizer_t;
use crate::error::Error;
use crate::token::Grammar;

/// A shape that generated text is to have: at each token only those can be chosen that a text of the grammar may go on
/// with. Shared, reference counted; any number of sessions and requests may use it at a time.
///
/// A generation ends with LLM_FINISH_GRAMMAR when nothing may follow. Where the text may end or go on, the model decides:
/// tokens that end a generation can be chosen exactly there. A generation that ends for another reason (its length, a
/// stop string) leaves the beginning of such a text.
///
/// @code{.c}
/// const char *schema = "{\"type\": \"object\", \"properties\": {\"age\": {\"type\": \"integer\"}}, \"required\": [\"age\"]}";
/// llm_grammar_t *grammar = NULL;
/// if (llm_grammar_new(tokenizer, LLM_GRAMMAR_JSON_SCHEMA, schema, LLM_NUL_TERMINATED, &grammar, &error) != LLM_STATUS_OK
///     || llm_session_set_grammar(session, grammar, &error) != LLM_STATUS_OK)
///     fprintf(stderr, "%s\n", llm_error_message(error));
/// llm_grammar_free(grammar); // the session keeps it
/// @endcode
pub struct llm_grammar_t {
    _opaque: [u8; 0],
}

impl Handle for llm_grammar_t {
    type Value = Arc<Grammar>;
    const KIND: Kind = Kind::Grammar;
}

/// What a grammar is written in: one of LLM_GRAMMAR_.
pub type llm_grammar_syntax_t = i32;

/// JSON Schema, draft 2020-12, or with "$schema" an older one: the texts are the JSON values that it describes,
/// without white space but one space after each colon and comma. "$ref" reaches what is in the schema itself.
/// Properties come in the order of the schema; lengths and ranges are kept to, numbers of the schema taken as double;
/// keys that cannot be kept to are an error.
pub const LLM_GRAMMAR_JSON_SCHEMA: llm_grammar_syntax_t = 1;
/// A regular expression that matches the text as a whole: alternatives, classes, groups, repetition; no word
/// boundaries, look-around and references.
pub const LLM_GRAMMAR_REGEX: llm_grammar_syntax_t = 2;
/// A context-free grammar in Lark's notation: `rule: "text" other | /regex/ ...`, names of rules in lower case, those of
/// terminals, which are regular, in upper case; `( )`, `?`, `*`, `+`, `{2,5}`; `%ignore`; the text is a `start`.
/// `<name>` is the special token of that name, and `%json { ... }` a value of a schema, with white space as the model likes
/// unless the schema has `"x-guidance": {"whitespace_flexible": false}`.
pub const LLM_GRAMMAR_LARK: llm_grammar_syntax_t = 3;

/// Makes a grammar. The first one of a tokenizer takes longer than others: a quarter of a second for 49,152 tokens.
///
/// @param[in] tokenizer The tokenizer of the model that is to write the text, from llm_model_tokenizer.
/// @param[in] syntax One of LLM_GRAMMAR_.
/// @param[in] text The grammar, UTF-8, at most 65,536 bytes.
/// @param[in] text_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] grammar The grammar, to be freed with llm_grammar_free.
/// @param[out] error @nullable Why it failed, with the place in the grammar where there is one.
/// @status INVALID_ARGUMENT for a grammar that is wrong, too large, or that no text fits; OUT_OF_MEMORY; UNSUPPORTED
///     if the vocabulary has more than 4 million pieces
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_grammar_new(
    tokenizer: *const llm_tokenizer_t,
    syntax: llm_grammar_syntax_t,
    text: *const c_char,
    text_size: usize,
    grammar: *mut *mut llm_grammar_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let out = args::out(grammar, "grammar")?;
        let text = args::utf8(text, text_size, "text")?;
        let grammar = match syntax {
            LLM_GRAMMAR_JSON_SCHEMA => Grammar::json_schema(&tokenizer, text)?,
            LLM_GRAMMAR_REGEX => Grammar::regex(&tokenizer, text)?,
            LLM_GRAMMAR_LARK => Grammar::lark(&tokenizer, text)?,
            other => {
                let message = format!("{other} is no syntax of grammars");
                return Err(Error::invalid_argument(message).with("argument", "syntax").with("found", other));
            }
        };
        out.write(handle::new::<llm_grammar_t>(Arc::new(grammar))?);
        Ok(())
    })
}

/// Adds a reference, to be freed with llm_grammar_free.
///
/// @param[in] grammar A grammar.
/// @return The same grammar; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_grammar_retain(grammar: *const llm_grammar_t) -> *mut llm_grammar_t {
    value!(std::ptr::null_mut(), { handle::retain(grammar) })
}

/// Gives a reference back. Sessions and requests keep what they use.
///
/// @param[in] grammar @nullable A grammar; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_grammar_free(grammar: *mut llm_grammar_t) {
    value!((), {
        handle::free(grammar);
        Some(())
    })
}

/// Sets what the text of each generation of a session looks like, from the next token on. What is appended has no part in
/// it. With a grammar, a generation can fail with INVALID_ARGUMENT: if the grammar is too ambiguous to go on, or if a
/// sampler step of the caller's own takes a token that is not allowed.
///
/// @param[in] session A session.
/// @param[in] grammar @nullable A grammar for the tokenizer of the session's model; NULL for any text.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if the grammar is for another tokenizer
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_set_grammar(
    session: *mut llm_session_t,
    grammar: *const llm_grammar_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let grammar = handle::shared_or_null(grammar, "grammar")?;
        conversation.session.set_grammar(grammar.map(|grammar| Arc::clone(&grammar)))
    })
}

/// Sets what the text of each continuation of a request looks like, as llm_session_set_grammar does.
///
/// @param[in] request A request.
/// @param[in] grammar @nullable A grammar for the tokenizer of the engine's model, which llm_engine_submit looks at;
///     NULL for any text.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_request_set_grammar(
    request: *mut llm_request_t,
    grammar: *const llm_grammar_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut request = handle::exclusive(request, "request")?;
        request.grammar = handle::shared_or_null(grammar, "grammar")?.map(|grammar| Arc::clone(&grammar));
        Ok(())
    })
}
