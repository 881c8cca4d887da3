//! Messages for whoever embeds the library: a levelled sink, silent until one is set.
//!
//! The sink is called with no lock held, on the thread that has something to say, so it may call the library; what
//! the library would say during that is dropped. Panics that the library catches are reported here too.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Once};

use parking_lot::{Condvar, Mutex};

use crate::error::one_line;

/// How much a message matters; a sink gets those up to the level of [`set_level`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A defect or a misuse that could not be returned as an error.
    Error = 1,
    /// Something works, but not as well as asked.
    Warn = 2,
    /// What a user may like to know: a model was loaded, and how.
    Info = 3,
    /// What only a developer of the library needs.
    Debug = 4,
}

/// Receives messages: UTF-8, without a line end.
pub type Receive = Box<dyn Fn(Level, &str) + Send + Sync>;

struct Sink {
    call: Receive,
    /// Calls in flight.
    running: Mutex<usize>,
    ended: Condvar,
}

static SINK: Mutex<Option<Arc<Sink>>> = Mutex::new(None);
/// The most talkative level that is wanted, 0 while there is no sink: the one load that a silent message costs.
static WANTED: AtomicU8 = AtomicU8::new(0);
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

thread_local! {
    static INSIDE_SINK: Cell<bool> = const { Cell::new(false) };
    static CONTAINED: Cell<u32> = const { Cell::new(0) };
}

/// Replaces the sink; `None` silences the library. When this returns, the old sink is not running and never runs
/// again; called from inside a sink it does not wait for calls that are still running.
pub fn set(sink: Option<Receive>) {
    let new = sink.map(|call| Arc::new(Sink { call, running: Mutex::new(0), ended: Condvar::new() }));
    let mut current = SINK.lock();
    let wanted = if new.is_some() { LEVEL.load(Ordering::Relaxed) } else { 0 };
    WANTED.store(wanted, Ordering::Relaxed);
    let old = std::mem::replace(&mut *current, new);
    drop(current);
    if let Some(old) = old
        && !INSIDE_SINK.get()
    {
        let mut running = old.running.lock();
        old.ended.wait_while(&mut running, |running| *running > 0);
    }
}

/// Sets the most talkative level that sinks get; [`Level::Info`] at the start.
pub fn set_level(level: Level) {
    let current = SINK.lock();
    LEVEL.store(level as u8, Ordering::Relaxed);
    WANTED.store(if current.is_some() { level as u8 } else { 0 }, Ordering::Relaxed);
}

/// Says something: `log::event(Level::Warn, format_args!("…"))`. Costs one load when nobody listens.
pub(crate) fn event(level: Level, message: fmt::Arguments<'_>) {
    if level as u8 > WANTED.load(Ordering::Relaxed) || INSIDE_SINK.get() {
        return;
    }
    let Some(sink) = SINK.lock().as_ref().map(|sink| {
        // Counted before the lock is released, so `set` cannot miss this call.
        *sink.running.lock() += 1;
        Arc::clone(sink)
    }) else {
        return;
    };
    let _call = Call::new(&sink);
    (sink.call)(level, &one_line(message.to_string()));
}

/// A call of the sink in flight; ends it however the sink ends.
struct Call<'a>(&'a Sink);

impl<'a> Call<'a> {
    fn new(sink: &'a Sink) -> Self {
        INSIDE_SINK.set(true);
        Call(sink)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        INSIDE_SINK.set(false);
        *self.0.running.lock() -= 1;
        self.0.ended.notify_all();
    }
}

/// From now on panics that the library catches are told to the sink and not to the program's panic hook, which goes on
/// to get all others. The C functions see to this at their first call.
pub fn take_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CONTAINED.get() > 0 {
                event(Level::Error, format_args!("caught a panic: {info}"));
            } else {
                previous(info);
            }
        }));
    });
}

/// While one of these lives, this thread's panics are caught by the library. Held by each guarded C call and by the
/// pool's threads; see [`take_caught_panics`].
pub(crate) struct Contained(());

impl Contained {
    pub(crate) fn new() -> Self {
        CONTAINED.set(CONTAINED.get() + 1);
        Contained(())
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        CONTAINED.set(CONTAINED.get() - 1);
    }
}
