//! What an engine reports.

use std::ffi::c_void;

use super::args::{self, Growing};
use super::bytes::llm_view_t;
use super::engine::llm_request_id_t;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::session_generate::{finish_number, llm_finish_reason_t, llm_logprob_t, write_logprobs};
use super::status::{self, LLM_STATUS_OK, llm_status_t};
use super::tokenizer::{LLM_TOKEN_NONE, llm_token_t};
use crate::error::Error;
use crate::generate::Event;

/// What an engine reports: a list that each llm_engine_poll or llm_engine_wait fills anew. Exclusive.
///
/// @code{.c}
/// bool more;
/// if (llm_engine_poll(engine, 4000, events, &more, &error) == LLM_STATUS_OK) {
///     for (size_t i = 0; i < llm_events_count(events); i++) {
///         llm_event_t event;
///         event.struct_size = sizeof event;
///         if (llm_events_get(events, i, &event, &error) == LLM_STATUS_OK && event.status != LLM_STATUS_OK)
///             printf("failed: %.*s\n", (int)event.message.size, event.message.data);
///     }
/// }
/// @endcode
pub struct llm_events_t {
    _opaque: [u8; 0],
}

impl Handle for llm_events_t {
    type Value = Vec<(Event, String)>;
    const KIND: Kind = Kind::Events;
}

/// What became of a request. Set struct_size before it is filled. Each continuation ends with exactly one event that
/// has a finish reason or a status other than LLM_STATUS_OK.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_event_t {
    /// sizeof(llm_event_t).
    pub struct_size: usize,
    /// The request.
    pub request: llm_request_id_t,
    /// Which of its continuations.
    pub index: u32,
    /// The token that was chosen, or LLM_TOKEN_NONE.
    pub token: llm_token_t,
    /// LLM_FINISH_NONE, or why the continuation ended.
    pub finish_reason: llm_finish_reason_t,
    /// LLM_STATUS_OK, CANCELLED, or why it is impossible to go on.
    pub status: llm_status_t,
    /// The text that is complete with the token, as of llm_session_next. Lives until the list is filled again or freed.
    pub text: llm_view_t,
    /// What the status says in words, empty if it is OK. Lives as long.
    pub message: llm_view_t,
    /// The user_data of the request's llm_request_params_t.
    pub user_data: *mut c_void,
}

// SAFETY: repr(C), begins with struct_size, numbers, views and a pointer, no padding (layout_tests).
unsafe impl Growing for llm_event_t {
    const DEFAULT: Self = llm_event_t {
        struct_size: size_of::<Self>(),
        request: 0,
        index: 0,
        token: LLM_TOKEN_NONE,
        finish_reason: 0,
        status: LLM_STATUS_OK,
        text: llm_view_t { data: c"".as_ptr(), size: 0 },
        message: llm_view_t { data: c"".as_ptr(), size: 0 },
        user_data: std::ptr::null_mut(),
    };
}

/// Adds events to a list, each with what its error says.
pub(super) fn fill(list: &mut Vec<(Event, String)>, events: Vec<Event>) {
    let message = |event: &Event| match &event.outcome {
        Some(Err(error)) => error.to_string(),
        _ => String::new(),
    };
    list.clear();
    list.extend(events.into_iter().map(|event| {
        let message = message(&event);
        (event, message)
    }));
}

/// Makes an empty list.
///
/// @param[out] events The list, to be freed with llm_events_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_events_new(events: *mut *mut llm_events_t, error: *mut *mut llm_error_t) -> llm_status_t {
    fallible!(error, {
        let out = args::out(events, "events")?;
        out.write(handle::new::<llm_events_t>(Vec::new())?);
        Ok(())
    })
}

/// Frees a list.
///
/// @param[in] events @nullable A list; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_events_free(events: *mut llm_events_t) {
    value!((), {
        handle::free(events);
        Some(())
    })
}

/// How many events a list has.
///
/// @param[in] events A list.
/// @return Their number; 0 if it is not a list, or in use.
/// @thread one at a time
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_events_count(events: *mut llm_events_t) -> usize {
    value!(0, { handle::exclusive(events, "events").ok().map(|events| events.len()) })
}

/// An event of a list.
///
/// @param[in] events A list.
/// @param[in] index Below llm_events_count.
/// @param[in,out] event Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; NOT_FOUND if there are not so many
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_events_get(
    events: *mut llm_events_t,
    index: usize,
    event: *mut llm_event_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let events = handle::exclusive(events, "events")?;
        let out = args::info(event, "event")?;
        let count = events.len();
        let (event, message) = events.get(index).ok_or_else(|| args::beyond("event", index, count))?;
        let (finish, status) = match &event.outcome {
            Some(Err(error)) => (None, status::of(error)),
            Some(Ok(reason)) => (Some(*reason), LLM_STATUS_OK),
            None => (None, LLM_STATUS_OK),
        };
        out.write(llm_event_t {
            struct_size: size_of::<llm_event_t>(),
            request: event.request,
            index: event.index as u32,
            token: event.token.unwrap_or(LLM_TOKEN_NONE),
            finish_reason: finish_number(finish),
            status,
            text: llm_view_t::of(&event.text),
            message: llm_view_t::of(message.as_bytes()),
            user_data: std::ptr::with_exposed_provenance_mut(event.tag),
        });
        Ok(())
    })
}

/// The log probabilities of an event's token and of the most probable tokens, as of llm_session_logprobs, for a request
/// with LLM_REQUEST_LOGPROBS.
///
/// @param[in] events A list.
/// @param[in] index Below llm_events_count.
/// @param[out] chosen The event's token.
/// @param[out] top The `capacity` most probable tokens, most probable first, ties by the smaller token.
/// @param[in] capacity Their number, at most the top_logprobs of the request.
/// @param[out] error @nullable Why it failed.
/// @status BUSY; NOT_FOUND if there are not so many events; FAILED_PRECONDITION if the event has no token, its request no
///     LLM_REQUEST_LOGPROBS, or if it is of a beam search; INVALID_ARGUMENT if capacity is more than was asked for
/// @thread one at a time
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_events_logprobs(
    events: *mut llm_events_t,
    index: usize,
    chosen: *mut llm_logprob_t,
    top: *mut llm_logprob_t,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let events = handle::exclusive(events, "events")?;
        let out = args::out(chosen, "chosen")?;
        let top = args::buffer(top, capacity, "top")?;
        let count = events.len();
        let (event, _) = events.get(index).ok_or_else(|| args::beyond("event", index, count))?;
        let none =
            || Error::failed_precondition("the event has no log probabilities: no token, or none were asked for");
        let (own, best) = event.logprobs.as_ref().ok_or_else(none)?;
        if capacity > best.len() {
            let message = format!("{capacity} tokens are wanted, the request asked for {}", best.len());
            return Err(Error::invalid_argument(message).with("argument", "capacity").with("expected", best.len()));
        }
        write_logprobs(own, best, out, top);
        Ok(())
    })
}
