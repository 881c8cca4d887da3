//! Sessions in files, and room in a full context.

use std::ffi::{c_char, c_void};

use super::args;
use super::bytes::{self, llm_bytes_t};
use super::error::llm_error_t;
use super::handle;
use super::session::llm_session_t;
use super::status::llm_status_t;

/// Writes the tokens of a session with their keys and values to a file. A session that loads it goes on bit for bit as
/// this one. What belongs to a generation (sampler, limits, withheld text) is not part of it, nor are stop strings and
/// adapters. The file is written under a temporary name and renamed when it is complete. It belongs to this version of
/// the library. Tokens that a sliding cache has forgotten too much of are processed again before.
///
/// @param[in] session A session.
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, IO, CANCELLED, OUT_OF_MEMORY; NOT_FOUND if there is no such folder; INVALID_ARGUMENT if the path is a folder;
///     FAILED_PRECONDITION if tokens of a shifted session would have to be processed again, which would change how it goes on
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_save(
    session: *mut llm_session_t,
    path: *const c_char,
    path_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        conversation.session.save(&args::path(path, path_size, "path")?)
    })
}

/// Takes over what llm_session_save wrote, in the place of the tokens that the session holds. The session must be one
/// of the same model, with the same adapters, number type of keys and values, window and sinks; cache kind, context
/// and threads may differ. Two limits: what a sliding cache has forgotten cannot be loaded where it would be needed, into
/// another kind for example; and a model that rotates positions in another way in a long context (longrope) needs one on
/// the same side of that length. The timings begin anew. On failure nothing has changed.
///
/// @param[in] session A session.
/// @param[in] path The path, UTF-8 (on Unix any bytes).
/// @param[in] path_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, NOT_FOUND, IO, CANCELLED, OUT_OF_MEMORY; CORRUPT_FILE if the file is no session or not as it was written;
///     FAILED_PRECONDITION names what differs ("what"), another model for example; CACHE_FULL if the context is too
///     short; INVALID_ARGUMENT for what is no file
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_load(
    session: *mut llm_session_t,
    path: *const c_char,
    path_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        conversation.session.load(&args::path(path, path_size, "path")?)
    })
}

/// What llm_session_save writes, in memory.
///
/// @param[in] session A session.
/// @param[out] bytes The state, to be freed with llm_bytes_free.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CANCELLED, OUT_OF_MEMORY; FAILED_PRECONDITION as llm_session_save
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_save_bytes(
    session: *mut llm_session_t,
    bytes: *mut *mut llm_bytes_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let out = args::out(bytes, "bytes")?;
        out.write(bytes::new(conversation.session.save_bytes()?)?);
        Ok(())
    })
}

/// As llm_session_load, of what llm_session_save_bytes gave or llm_session_save wrote.
///
/// @param[in] session A session.
/// @param[in] data The state; not needed after the call.
/// @param[in] data_size Its bytes.
/// @param[out] error @nullable Why it failed.
/// @status as llm_session_load
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_load_bytes(
    session: *mut llm_session_t,
    data: *const c_void,
    data_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        conversation.session.load_bytes(args::slice(data.cast(), data_size, "data")?)
    })
}

/// Makes room where a conversation has filled its context: drops the older half of the tokens behind the first `keep` (a
/// system prompt, say). The others move up and keep what they know of the dropped ones: their keys are turned to their
/// new positions. Where that cannot be done (learned positions, a sliding cache that has forgotten some) the tokens
/// that are left are processed again. A generation goes on where it is, also one that ended because the context was full.
///
/// Results are not those of a session that never had the dropped tokens. With a conversation (llm_session_append_messages)
/// the session then has only the first `keep` tokens in common, so that appending it cuts the session back to these: drop
/// old messages instead, reset the session and append the others.
///
/// @param[in] session A session.
/// @param[in] keep Tokens at the start to keep.
/// @param[out] dropped @nullable How many tokens were dropped; 0 if there are none behind the first `keep`.
/// @param[out] error @nullable Why it failed.
/// @status BUSY, CANCELLED, OUT_OF_MEMORY; CACHE_FULL if shared pages have no room for the copy; INVALID_ARGUMENT if
///     there are fewer tokens. Nothing has changed then
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_shift(
    session: *mut llm_session_t,
    keep: usize,
    dropped: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let mut conversation = handle::exclusive(session, "session")?;
        let out = args::out_or_null(dropped, "dropped")?;
        let dropped = conversation.session.shift(keep)?;
        out.write(dropped);
        Ok(())
    })
}
