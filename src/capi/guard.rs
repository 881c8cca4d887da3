//! The boundary: nothing that happens inside a C function may kill the host program.
//!
//! Four macros, one of which is the whole body of every exported function:
//! - `fallible!(error, { … })` for functions that return a status;
//! - `value!(default, { … })` for functions that return something else or nothing, and have a default to return;
//! - `bare!(default, { … })` likewise, for what must work in a forked child;
//! - `signal!({ … })` for what a signal handler may call: its body cannot panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{self, llm_error_t};
use super::status::{self, llm_status_t};
use crate::error::{Error, Result};
use crate::fault;
use crate::log::{self, Contained};

/// The name of the function whose body this stands in, as a function: it is only needed when something went wrong.
macro_rules! function_name {
    () => {{
        fn here() {}
        || $crate::capi::guard::name_of(here)
    }};
}

macro_rules! fallible {
    ($error:expr, $body:block) => {
        // SAFETY: an exported function is unsafe: its caller promises what its documentation asks of each pointer.
        unsafe { $crate::capi::guard::fallible(function_name!(), $error, || $body) }
    };
}

macro_rules! value {
    ($default:expr, $body:block) => {
        // SAFETY: an exported function is unsafe: its caller promises what its documentation asks of each pointer.
        #[allow(unused_unsafe, reason = "some getters take no pointer")]
        unsafe {
            $crate::capi::guard::value(function_name!(), $default, || $body)
        }
    };
}

macro_rules! bare {
    ($default:expr, $body:block) => {
        // SAFETY: an exported function is unsafe: its caller promises what its documentation asks of each pointer.
        #[allow(unused_unsafe, reason = "some getters take no pointer")]
        unsafe {
            $crate::capi::guard::bare(function_name!(), $default, || $body)
        }
    };
}

macro_rules! signal {
    ($body:block) => {
        // SAFETY: an exported function is unsafe: its caller promises what its documentation asks of each pointer.
        unsafe { $crate::capi::guard::signal(function_name!(), || $body) }
    };
}

pub(super) fn name_of<T>(_: T) -> &'static str {
    let path = std::any::type_name::<T>();
    let function = path.strip_suffix("::here").unwrap_or(path);
    function.rsplit("::").next().unwrap_or(function)
}

/// Runs the body of an exported function; writes `*error` unless it is NULL.
///
/// # Safety
/// `error` is NULL or can be written to.
pub(super) unsafe fn fallible(
    name: impl Fn() -> &'static str,
    error: *mut *mut llm_error_t,
    body: impl FnOnce() -> Result<()>,
) -> llm_status_t {
    let result = catch(&name, || {
        check_process()?;
        body()
    })
    .unwrap_or_else(|panic| Err(Error::internal(format!("{} panicked: {panic}", name())).with("function", name())));
    let (status, object) = match result {
        Ok(()) => (status::LLM_STATUS_OK, std::ptr::null_mut()),
        // Without a receiver the object is not made.
        Err(e) if error.is_null() => (status::of(&e), std::ptr::null_mut()),
        Err(e) => (status::of(&e), error::new(&e)),
    };
    if !error.is_null() {
        // SAFETY: not NULL, and the caller promises that it can be written to.
        unsafe { error.write_unaligned(object) };
    }
    status
}

/// Runs the body of an exported function that returns `default` if it cannot run or panics.
pub(super) fn value<R>(name: impl Fn() -> &'static str, default: R, body: impl FnOnce() -> Option<R>) -> R {
    let result = catch(&name, || if check_process().is_ok() { body() } else { None });
    result.ok().flatten().unwrap_or(default)
}

/// As [`value`], but also in a forked child.
pub(super) fn bare<R>(name: impl Fn() -> &'static str, default: R, body: impl FnOnce() -> Option<R>) -> R {
    caught(&name, body).ok().flatten().unwrap_or(default)
}

/// Runs a body that cannot panic, with nothing around it: thread-local state, which a panic's guard has, may be
/// allocated on first use. Builds in which tests inject panics do guard it.
pub(super) fn signal(name: impl Fn() -> &'static str, body: impl FnOnce() -> Option<()>) {
    if cfg!(any(debug_assertions, feature = "test-hooks")) {
        let _ = caught(&name, body);
    } else {
        let _ = body();
    }
}

/// Runs `body`; a panic becomes its text.
fn catch<R>(name: &dyn Fn() -> &'static str, body: impl FnOnce() -> R) -> std::result::Result<R, String> {
    set_up();
    caught(name, body)
}

fn caught<R>(name: &dyn Fn() -> &'static str, body: impl FnOnce() -> R) -> std::result::Result<R, String> {
    let _contained = Contained::new();
    // State that a panic leaves half-changed is not seen again: handle::Exclusive poisons its object.
    let result = catch_unwind(AssertUnwindSafe(|| {
        fault::place(name);
        body()
    }));
    result.map_err(|payload| {
        let text = panic_text(&*payload);
        discard(payload);
        text
    })
}

pub(super) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// Drops what may panic when it is dropped.
pub(super) fn discard<T>(value: T) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        std::mem::forget(again);
    }
}

/// Set in a child process: fork copies the calling thread only, so pools and locks of the parent are not usable.
static FORKED: AtomicBool = AtomicBool::new(false);

fn check_process() -> Result<()> {
    if FORKED.load(Ordering::Relaxed) {
        return Err(Error::failed_precondition("the library was used before fork and cannot be used in the child"));
    }
    Ok(())
}

/// What the first guarded call does: it sees to panics and to forks.
fn set_up() {
    static ONCE: Once = Once::new();
    // A host that calls us while it unwinds cannot have its panic hook changed; a later call will do.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        log::take_caught_panics();
        #[cfg(unix)]
        {
            extern "C" fn in_child() {
                FORKED.store(true, Ordering::Relaxed);
                super::live::unlock_after_fork();
            }
            extern "C" fn in_parent() {
                super::live::unlock_after_fork();
            }
            extern "C" fn before() {
                super::live::lock_before_fork();
            }
            // SAFETY: the three functions do not unwind and, with `-z nodelete`, are never unmapped.
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
        }
    });
}
