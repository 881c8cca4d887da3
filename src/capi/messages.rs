//! Conversations.

use std::ffi::c_char;

use super::args;
use super::bytes::{self, llm_bytes_t};
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::session::llm_session_t;
use super::status::llm_status_t;
use super::tokenizer::llm_tokenizer_t;
use crate::chat::Messages;
use crate::error::{Error, Result};

/// A conversation: messages, tools, and variables of the model's chat template. Exclusive.
///
/// A message is a JSON object in the form of the common chat APIs: "role" ("system", "user", "assistant", "tool"),
/// "content" (a text, or parts like {"type": "text", "text": "..."}), and where they apply "reasoning_content",
/// "tool_calls" ([{"id": "...", "type": "function", "function": {"name": "...", "arguments": {...}}}]),
/// "tool_call_id", "name".
///
/// The model's chat template, a program in jinja2's language inside its file, makes text of it. Templates are not
/// trusted: they reach nothing outside, and time, depth and output are limited (a template of 256 KiB, 2,000,000 steps
/// and more for long conversations, 32 MiB of output). Special tokens that are written in a message's content become
/// these tokens: remove them from texts of strangers.
///
/// @code{.c}
/// llm_messages_t *messages = NULL;
/// if (llm_messages_new(&messages, &error) == LLM_STATUS_OK
///     && llm_messages_add(messages, "user", LLM_NUL_TERMINATED, "Hello!", LLM_NUL_TERMINATED, &error)
///         == LLM_STATUS_OK
///     && llm_session_append_messages(session, messages, LLM_MESSAGES_ANSWER, NULL, &error) == LLM_STATUS_OK
///     && llm_session_generate(session, print_token, NULL, &finish, &error) == LLM_STATUS_OK
///     && llm_session_answer(session, messages, &error) == LLM_STATUS_OK) {
///     // messages now ends with the assistant's; add the user's next, and append again: only what is new is processed
/// }
/// llm_messages_free(messages);
/// @endcode
pub struct llm_messages_t {
    _opaque: [u8; 0],
}

impl Handle for llm_messages_t {
    type Value = Messages;
    const KIND: Kind = Kind::Messages;
}

/// For llm_messages_render and llm_session_append_messages: with the beginning of the assistant's next message, so that
/// the model goes on with it (add_generation_prompt).
pub const LLM_MESSAGES_ANSWER: u32 = 1;

pub(super) fn wants_answer(flags: u32) -> Result<bool> {
    Ok(args::flags(flags, LLM_MESSAGES_ANSWER, "flags")? & LLM_MESSAGES_ANSWER != 0)
}

/// Makes a conversation without messages.
///
/// @param[out] messages The conversation, to be freed with llm_messages_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_new(
    messages: *mut *mut llm_messages_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(messages, "messages")?;
        out.write(handle::new::<llm_messages_t>(Messages::new())?);
        Ok(())
    })
}

/// Frees a conversation.
///
/// @param[in] messages @nullable A conversation; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_free(messages: *mut llm_messages_t) {
    value!((), {
        handle::free(messages);
        Some(())
    })
}

/// Adds a message of text.
///
/// @param[in] messages A conversation.
/// @param[in] role Who says it, UTF-8: "system", "user", "assistant", "tool", or what the template knows.
/// @param[in] role_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] content The text, UTF-8, at most 32 MiB.
/// @param[in] content_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if a text is not UTF-8 or longer than 32 MiB
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_add(
    messages: *mut llm_messages_t,
    role: *const c_char,
    role_size: usize,
    content: *const c_char,
    content_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut messages = handle::exclusive(messages, "messages")?;
        let role = words(role, role_size, "role")?;
        messages.add(role, words(content, content_size, "content")?);
        Ok(())
    })
}

/// Adds a message that is written as JSON, or a list of messages. On failure nothing is added.
///
/// @param[in] messages A conversation.
/// @param[in] json The message: see llm_messages_t.
/// @param[in] json_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is longer than 32 MiB, not JSON (facts "line" and "column") or no message (fact "key")
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_add_json(
    messages: *mut llm_messages_t,
    json: *const c_char,
    json_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut messages = handle::exclusive(messages, "messages")?;
        messages.add_json(words(json, json_size, "json")?)
    })
}

/// Adds the assistant's message that a text of a model is, taken apart: thoughts into "reasoning_content", calls of
/// tools into "tool_calls", the rest into "content". Calls without an id get one. Known are the styles of Hermes and Qwen
/// (<tool_call>), Qwen Coder (<function=), GLM 4.5, Phi 4 mini, Granite 3, Mistral ([TOOL_CALLS]), DeepSeek, Llama 3.1,
/// Command R and A, and gpt-oss (channels); what is none of them, or was cut off, stays content. Arguments that are written
/// as text are what the tool's schema takes them for. For a session's answer there is llm_session_answer. Of a request to an
/// engine collect the tokens of its events, but the one that ends it with LLM_FINISH_EOG, and decode them with
/// LLM_DECODE_SHOW_SPECIAL: the text of events lacks special tokens. After LLM_FINISH_STOP cut the stop string off.
///
/// @param[in] messages A conversation.
/// @param[in] text The answer, UTF-8, decoded with LLM_DECODE_SHOW_SPECIAL: many styles are written with special tokens.
/// @param[in] text_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is not UTF-8 or longer than 32 MiB
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_add_answer(
    messages: *mut llm_messages_t,
    text: *const c_char,
    text_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut messages = handle::exclusive(messages, "messages")?;
        messages.add_answer(words(text, text_size, "text")?);
        Ok(())
    })
}

/// The number of messages.
///
/// @param[in] messages A conversation.
/// @param[out] count The number.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_count(
    messages: *mut llm_messages_t,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let messages = handle::exclusive(messages, "messages")?;
        args::out(count, "count")?.write(messages.len());
        Ok(())
    })
}

/// A message as JSON.
///
/// @param[in] messages A conversation.
/// @param[in] index From 0.
/// @param[out] json The message, in one line, to be freed with llm_bytes_free.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; NOT_FOUND if there are fewer
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_get(
    messages: *mut llm_messages_t,
    index: usize,
    json: *mut *mut llm_bytes_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let messages = handle::exclusive(messages, "messages")?;
        let out = args::out(json, "json")?;
        let found = messages.len();
        let missing =
            || Error::not_found(format!("message {index} of {found}")).with("index", index).with("found", found);
        let message = messages.get(index).ok_or_else(missing)?;
        out.write(bytes::new(message.to_string().into_bytes())?);
        Ok(())
    })
}

/// Keeps the first messages and removes the others.
///
/// @param[in] messages A conversation.
/// @param[in] count How many are kept.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; INVALID_ARGUMENT if there are fewer
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_truncate(
    messages: *mut llm_messages_t,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::exclusive(messages, "messages")?.truncate(count) })
}

/// Sets the tools that the model may call.
/// Where the template does not name them, the log gets a warning each time that the conversation is rendered.
///
/// @param[in] messages A conversation.
/// @param[in] json A JSON list: [{"type": "function", "function": {"name": "...", "description": "...",
///     "parameters": JSON schema}}]; [] for none.
/// @param[in] json_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is something else or longer than 32 MiB
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_set_tools(
    messages: *mut llm_messages_t,
    json: *const c_char,
    json_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut messages = handle::exclusive(messages, "messages")?;
        messages.set_tools(words(json, json_size, "json")?)
    })
}

/// Sets a variable of the template: for example "enable_thinking" to false, or "documents" to a list. "bos_token",
/// "eos_token" and "documents" are there if they are not set.
///
/// @param[in] messages A conversation.
/// @param[in] name The variable's name, UTF-8.
/// @param[in] name_size Its length, or LLM_NUL_TERMINATED.
/// @param[in] json Its value as JSON.
/// @param[in] json_size The length of that, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if the value is not JSON or longer than 32 MiB, or for "messages", "tools" and "add_generation_prompt"
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_set_variable(
    messages: *mut llm_messages_t,
    name: *const c_char,
    name_size: usize,
    json: *const c_char,
    json_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut messages = handle::exclusive(messages, "messages")?;
        let name = words(name, name_size, "name")?;
        messages.set_variable(name, words(json, json_size, "json")?)
    })
}

/// Sets the chat template, in place of the model's own.
///
/// @param[in] messages A conversation.
/// @param[in] text @nullable A template in jinja2's language, UTF-8; NULL: the model's own. It is read when it is used.
/// @param[in] text_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is not UTF-8 or longer than 32 MiB
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_set_template(
    messages: *mut llm_messages_t,
    text: *const c_char,
    text_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut messages = handle::exclusive(messages, "messages")?;
        let text = if text.is_null() { None } else { Some(words(text, text_size, "text")?) };
        messages.set_template(text);
        Ok(())
    })
}

/// Sets the time that templates see: some write the date, and with it the text changes from day to day.
///
/// @param[in] messages A conversation.
/// @param[in] seconds Since 1970, UTC; INT64_MIN: the system's time at each use.
/// @param[out] error @nullable Why it failed.
/// @status BUSY
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_set_time(
    messages: *mut llm_messages_t,
    seconds: i64,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        handle::exclusive(messages, "messages")?.set_time(Some(seconds).filter(|&seconds| seconds != i64::MIN));
        Ok(())
    })
}

/// The text of the conversation, as the model's chat template has it. To be encoded with LLM_ENCODE_PARSE_SPECIAL and
/// without LLM_ENCODE_ADD_SPECIAL: the template writes all special tokens.
///
/// Where a template cannot take some form, another is given: parts as their texts, a line each, or a text as one part; the
/// arguments of calls as JSON text; "reasoning_content" as "thinking" or "tool_plan"; null for the empty "content" of a
/// message that calls tools. Of a file's several templates that of the name "tool_use" is taken if there are tools.
///
/// @param[in] messages A conversation.
/// @param[in] tokenizer The model's tokenizer, which has its template.
/// @param[in] flags 0 or LLM_MESSAGES_ANSWER.
/// @param[out] text The text, UTF-8, to be freed with llm_bytes_free.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; NOT_FOUND if the model has no template; UNSUPPORTED for unknown flags, or for parts that
///     are no text if the template takes none; INVALID_ARGUMENT if the template refuses the conversation (fact
///     "exception": its message), fails or reaches a limit
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_messages_render(
    messages: *mut llm_messages_t,
    tokenizer: *const llm_tokenizer_t,
    flags: u32,
    text: *mut *mut llm_bytes_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let messages = handle::exclusive(messages, "messages")?;
        let tokenizer = handle::shared(tokenizer, "tokenizer")?;
        let out = args::out(text, "text")?;
        let rendered = messages.render(&tokenizer, wants_answer(flags)?)?;
        out.write(bytes::new(rendered.into_bytes())?);
        Ok(())
    })
}

/// Makes the session hold a conversation: keeps the tokens that both have in common from the start on, and processes the
/// others. So each turn of a conversation costs its own tokens only, and after a change of a message what follows it. (An
/// answer is read as text again: from where the model wrote it in other tokens than its text is encoded to, it is
/// processed once more.)
///
/// A conversation that has filled the context (CACHE_FULL, or an answer that ended with LLM_FINISH_CONTEXT_FULL) goes on
/// without its oldest messages: put those that are to stay into a new llm_messages_t (llm_messages_get,
/// llm_messages_add_json), reset the session and append it. llm_session_shift is no help here: a session that was shifted
/// has only the first `keep` tokens in common with its conversation, and the others would be processed again.
///
/// @param[in] session A session.
/// @param[in] messages A conversation.
/// @param[in] flags 0 or LLM_MESSAGES_ANSWER.
/// @param[out] count @nullable How many tokens were processed.
/// @param[out] error @nullable Why it failed; then the session is as it was, or, if processing failed or was cancelled,
///     holds what was in common.
/// @status BUSY, CACHE_FULL, CANCELLED, OUT_OF_MEMORY; those of llm_messages_render
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_append_messages(
    session: *mut llm_session_t,
    messages: *mut llm_messages_t,
    flags: u32,
    count: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let messages = handle::exclusive(messages, "messages")?;
        let out = args::out_or_null(count, "count")?;
        let count = conversation.session.append_messages(&messages, wants_answer(flags)?)?;
        out.write(count);
        Ok(())
    })
}

/// Adds the text that the generation has given so far to a conversation, as the assistant's message: see
/// llm_messages_add_answer. Special tokens in it are shown; bytes that are no UTF-8, of a character that did not come to
/// its end, become U+FFFD. What was withheld is no part of it, nor is a stop string, nor the space that SentencePiece puts
/// before a text.
///
/// @param[in] session A session that has generated.
/// @param[in] messages A conversation.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION if nothing was generated since the generation began
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_answer(
    session: *mut llm_session_t,
    messages: *mut llm_messages_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let conversation = handle::exclusive(session, "session")?;
        let mut messages = handle::exclusive(messages, "messages")?;
        conversation.session.answer(&mut messages)
    })
}

/// Bytes of a text for a conversation at most: as many as a template may write.
const MOST: usize = 32 << 20;

/// A text for a conversation. What JSON and templates make of it is allocated by libraries that end the process where there
/// is no memory, so whether there is some is asked first: a guess, for JSON can take more.
///
/// # Safety
/// As the exported functions.
unsafe fn words<'a>(pointer: *const c_char, size: usize, argument: &'static str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    let text = unsafe { args::utf8(pointer, size, argument) }?;
    let found = text.len();
    if found > MOST {
        let error = Error::invalid_argument(format!("{argument} has {found} bytes, there can be {MOST}"));
        return Err(error.with("argument", argument).with("expected", MOST).with("found", found));
    }
    Vec::<u8>::new().try_reserve_exact(4 * found).map_err(|_| {
        Error::out_of_memory(format!("the memory for {argument} cannot be had")).with("bytes", 4 * found)
    })?;
    Ok(text)
}
