//! Stopping a call from another thread.

use super::args;
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::status::llm_status_t;
use crate::Cancel;

/// A switch that stops calls: pass it to a load, or set it on a session, and request from any thread. Calls look at it
/// when they begin and between layers, and return CANCELLED. Shared, reference counted; it stays requested until it is
/// reset.
///
/// @code{.c}
/// static llm_cancel_t *cancel; // as long as anyone may request
/// static void on_interrupt(int number) { (void)number; llm_cancel_request(cancel); }
/// // ...
/// if (llm_cancel_new(&cancel, NULL) == LLM_STATUS_OK && llm_session_set_cancel(session, cancel, NULL) == LLM_STATUS_OK)
///     signal(SIGINT, on_interrupt);
/// // ... when the handler is gone:
/// llm_cancel_free(cancel);
/// @endcode
pub struct llm_cancel_t {
    _opaque: [u8; 0],
}

impl Handle for llm_cancel_t {
    type Value = Cancel;
    const KIND: Kind = Kind::Cancel;
}

/// Makes a switch that is not requested.
///
/// @param[out] cancel The switch, to be freed with llm_cancel_free.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_cancel_new(cancel: *mut *mut llm_cancel_t, error: *mut *mut llm_error_t) -> llm_status_t {
    fallible!(error, {
        let out = args::out(cancel, "cancel")?;
        out.write(handle::new::<llm_cancel_t>(Cancel::default())?);
        Ok(())
    })
}

/// Adds a reference, to be freed with llm_cancel_free.
///
/// @param[in] cancel A switch.
/// @return The same switch; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_cancel_retain(cancel: *const llm_cancel_t) -> *mut llm_cancel_t {
    value!(std::ptr::null_mut(), { handle::retain(cancel) })
}

/// Frees a reference.
///
/// @param[in] cancel @nullable A switch; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_cancel_free(cancel: *mut llm_cancel_t) {
    value!((), {
        handle::free(cancel);
        Some(())
    })
}

/// Asks every call that looks at this switch to stop. One atomic store: it may be called in a signal handler.
///
/// @param[in] cancel A switch, not freed by anyone during this call.
/// @thread any, signal handlers included
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_cancel_request(cancel: *const llm_cancel_t) {
    signal!({
        handle::peek(cancel)?.request();
        Some(())
    })
}

/// Makes the switch usable again.
///
/// @param[in] cancel A switch.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_cancel_reset(cancel: *const llm_cancel_t) {
    value!((), {
        handle::shared(cancel, "cancel").ok()?.reset();
        Some(())
    })
}

/// Whether a stop has been requested since the last reset.
///
/// @param[in] cancel A switch.
/// @return Whether; false if it is no switch.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_cancel_is_requested(cancel: *const llm_cancel_t) -> bool {
    value!(false, { Some(handle::shared(cancel, "cancel").ok()?.is_requested()) })
}
