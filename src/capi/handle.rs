//! What a C handle points to: a header and a value.
//!
//! The header tells the kind, whether a call holds the object exclusively, whether a panic left it in an unknown state,
//! and two counts in one atomic: **owners** (handles that C holds: one `_free` each) and **calls** in flight. A handle
//! without owners is stale; the value is dropped when both counts are 0, so a `_free` from inside a callback waits for
//! the end of the call around it.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::guard::discard;
use super::live;
use crate::error::{Error, Result};
use crate::log::{self, Level};

/// A C handle type: never instantiated, only pointed to.
pub(super) trait Handle {
    /// What the handle stands for. Shared handles hold an `Arc` or another value that is `Sync`.
    type Value: Send;
    const KIND: Kind;
}

/// What is written at the start of every object. Numbers that other memory is unlikely to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Error = 0x6c6c_6d01,
    Cancel,
    Bytes,
    Gguf,
    Model,
    Tokenizer,
    Decoder,
    Sampler,
    Session,
    GgufWriter,
    Lora,
    Messages,
    PagedCache,
    Engine,
    Events,
    Request,
    Beams,
    Grammar,
}

const KINDS: [(Kind, &str); 18] = [
    (Kind::Error, "llm_error_t"),
    (Kind::Cancel, "llm_cancel_t"),
    (Kind::Bytes, "llm_bytes_t"),
    (Kind::Gguf, "llm_gguf_t"),
    (Kind::Model, "llm_model_t"),
    (Kind::Tokenizer, "llm_tokenizer_t"),
    (Kind::Decoder, "llm_decoder_t"),
    (Kind::Sampler, "llm_sampler_t"),
    (Kind::Session, "llm_session_t"),
    (Kind::GgufWriter, "llm_gguf_writer_t"),
    (Kind::Lora, "llm_lora_t"),
    (Kind::Messages, "llm_messages_t"),
    (Kind::PagedCache, "llm_paged_cache_t"),
    (Kind::Engine, "llm_engine_t"),
    (Kind::Events, "llm_events_t"),
    (Kind::Request, "llm_request_t"),
    (Kind::Beams, "llm_beams_t"),
    (Kind::Grammar, "llm_grammar_t"),
];

/// The kind of an object whose value has been dropped.
const DEAD: u32 = 0x6c6c_6d00;

const OWNER: u64 = 1 << 32;
const CALL: u64 = 1;

#[repr(C)]
struct Header {
    kind: AtomicU32,
    busy: AtomicBool,
    poisoned: AtomicBool,
    /// Owners in the upper half, calls in flight in the lower.
    count: AtomicU64,
}

#[repr(C)]
struct Object<V> {
    header: Header,
    value: UnsafeCell<V>,
}

/// Makes an object with one owner; `None` if there is no memory for it.
pub(super) fn try_new<H: Handle>(value: H::Value) -> Option<*mut H> {
    let layout = Layout::new::<Object<H::Value>>();
    // SAFETY: the layout has a size: the header's at least.
    let object = NonNull::new(unsafe { alloc(layout) })?.cast::<Object<H::Value>>();
    let header = Header {
        kind: AtomicU32::new(H::KIND as u32),
        busy: AtomicBool::new(false),
        poisoned: AtomicBool::new(false),
        count: AtomicU64::new(OWNER),
    };
    // SAFETY: freshly allocated with the layout of this type.
    unsafe { object.write(Object { header, value: UnsafeCell::new(value) }) };
    if let Some(mut table) = live::table() {
        table.insert(object.as_ptr() as usize);
    }
    Some(object.as_ptr().cast())
}

/// Makes an object with one owner.
pub(super) fn new<H: Handle>(value: H::Value) -> Result<*mut H> {
    try_new(value).ok_or_else(|| Error::out_of_memory(format!("no memory for an {}", name_of(H::KIND as u32))))
}

/// A call's hold on a shared object.
pub(super) struct Shared<'a, H: Handle>(NonNull<Object<H::Value>>, PhantomData<&'a H::Value>);

/// A call's hold on an exclusive object.
pub(super) struct Exclusive<'a, H: Handle> {
    shared: Shared<'a, H>,
    /// A host that calls us while it unwinds is no panic of ours.
    panicking_before: bool,
}

/// Enters a shared object for the length of a call.
///
/// # Safety
/// `handle` is NULL, or a handle; without `check-handles` one that has not been freed.
pub(super) unsafe fn shared<'a, H: Handle>(handle: *const H, argument: &'static str) -> Result<Shared<'a, H>>
where
    H::Value: Sync,
{
    // SAFETY: the caller's promise.
    unsafe { enter(handle, argument) }
}

/// As [`shared`], but `None` for NULL.
///
/// # Safety
/// As [`shared`].
pub(super) unsafe fn shared_or_null<'a, H: Handle>(
    handle: *const H,
    argument: &'static str,
) -> Result<Option<Shared<'a, H>>>
where
    H::Value: Sync,
{
    // SAFETY: the caller's promise.
    if handle.is_null() { Ok(None) } else { unsafe { enter(handle, argument) }.map(Some) }
}

/// Enters an exclusive object for the length of a call: BUSY if another call is inside.
///
/// # Safety
/// As [`shared`].
pub(super) unsafe fn exclusive<'a, H: Handle>(handle: *const H, argument: &'static str) -> Result<Exclusive<'a, H>> {
    // SAFETY: the caller's promise.
    let shared: Shared<'a, H> = unsafe { enter(handle, argument) }?;
    let header = shared.header();
    if header.busy.swap(true, Ordering::Acquire) {
        return Err(Error::busy(format!("{argument} is in use by another call, on another thread or around this one"))
            .with("argument", argument));
    }
    let exclusive = Exclusive { shared, panicking_before: std::thread::panicking() };
    if exclusive.shared.header().poisoned.load(Ordering::Relaxed) {
        return Err(Error::failed_precondition(format!(
            "an earlier call on {argument} failed with INTERNAL: it can only be freed"
        ))
        .with("argument", argument));
    }
    Ok(exclusive)
}

/// As [`exclusive`], but `None` for NULL.
///
/// # Safety
/// As [`shared`].
pub(super) unsafe fn exclusive_or_null<'a, H: Handle>(
    handle: *const H,
    argument: &'static str,
) -> Result<Option<Exclusive<'a, H>>> {
    // SAFETY: the caller's promise.
    if handle.is_null() { Ok(None) } else { unsafe { exclusive(handle, argument) }.map(Some) }
}

/// Counts a call on the object, if the handle is live and of the kind.
unsafe fn enter<'a, H: Handle>(handle: *const H, argument: &'static str) -> Result<Shared<'a, H>> {
    let object = NonNull::new(handle.cast_mut())
        .ok_or_else(|| Error::invalid_argument(format!("{argument} is NULL")).with("argument", argument))?
        .cast::<Object<H::Value>>();
    let table = live::table();
    if !object.is_aligned() || table.as_ref().is_some_and(|table| !table.contains(object.as_ptr() as usize)) {
        return Err(stale(argument));
    }
    // SAFETY: aligned, and in the table or, without it, live by the caller's promise. Every object begins with a header.
    let header = unsafe { object.cast::<Header>().as_ref() };
    let kind = header.kind.load(Ordering::Relaxed);
    if kind != H::KIND as u32 {
        if !KINDS.iter().any(|(known, _)| *known as u32 == kind) {
            return Err(stale(argument));
        }
        let (expected, found) = (name_of(H::KIND as u32), name_of(kind));
        return Err(Error::invalid_argument(format!("{argument} is an {found} where an {expected} is expected"))
            .with("argument", argument)
            .with("expected", expected)
            .with("found", found));
    }
    let one_more = |count: u64| (count >= OWNER).then(|| count.wrapping_add(CALL));
    if header.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
        return Err(stale(argument));
    }
    Ok(Shared(object, PhantomData))
}

fn stale(argument: &'static str) -> Error {
    Error::failed_precondition(format!("{argument} is no live handle: it was freed, or never was one"))
        .with("argument", argument)
}

fn name_of(kind: u32) -> &'static str {
    KINDS.iter().find(|(known, _)| *known as u32 == kind).map_or("unknown object", |(_, name)| name)
}

/// Adds an owner and gives the handle back; NULL if it cannot be had.
///
/// # Safety
/// As [`shared`].
pub(super) unsafe fn retain<H: Handle>(handle: *const H) -> Option<*mut H> {
    // SAFETY: the caller's promise.
    let held: Shared<'_, H> = unsafe { enter(handle, "the handle") }.ok()?;
    let more = |count: u64| (count >= OWNER).then(|| count.checked_add(OWNER)).flatten();
    held.header().count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
    Some(handle.cast_mut())
}

/// Gives an owner's handle back; the value is dropped now or when the last call on it ends. NULL is fine, and a
/// stale handle is reported to the log. True if no owner is left.
///
/// # Safety
/// As [`shared`].
pub(super) unsafe fn free<H: Handle>(handle: *mut H) -> bool {
    if handle.is_null() {
        return false;
    }
    // SAFETY: the caller's promise.
    let held: Result<Shared<'_, H>> = unsafe { enter(handle, "the handle") };
    let released = held.and_then(|held| {
        // Under the table's lock, so that nobody enters between the last owner's leaving and the removal.
        let table = live::table();
        let fewer = |count: u64| count.checked_sub(OWNER);
        let updated = held.header().count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        let before = updated.map_err(|_| stale("the handle"))?;
        let last = before < 2 * OWNER;
        if let Some(mut table) = table
            && last
        {
            table.remove(handle as usize);
        }
        Ok(last)
    });
    released.unwrap_or_else(|e| {
        log::event(Level::Error, format_args!("{}: {}", name_of(H::KIND as u32), e.detail()));
        false
    })
}

/// The value of a handle that the caller knows to be live, without a lock or a count: for signal handlers.
///
/// # Safety
/// `handle` is NULL or a handle that is not freed during `'a`.
pub(super) unsafe fn peek<'a, H: Handle>(handle: *const H) -> Option<&'a H::Value>
where
    H::Value: Sync,
{
    let object = NonNull::new(handle.cast_mut())?.cast::<Object<H::Value>>();
    // SAFETY: the caller's promise; every object begins with a header.
    let kind = unsafe { object.cast::<Header>().as_ref() }.kind.load(Ordering::Relaxed);
    // SAFETY: the kind says that this is its type, and shared values are never changed.
    (kind == H::KIND as u32).then(|| unsafe { &*object.as_ref().value.get() })
}

impl<H: Handle> Shared<'_, H> {
    fn header(&self) -> &Header {
        // SAFETY: this call is counted, so the object lives.
        unsafe { &(*self.0.as_ptr()).header }
    }
}

impl<H: Handle> Deref for Shared<'_, H> {
    type Target = H::Value;

    fn deref(&self) -> &H::Value {
        // SAFETY: the object lives while this call is counted. Only `Exclusive` gives `&mut`, one at a time.
        unsafe { &*(*self.0.as_ptr()).value.get() }
    }
}

impl<H: Handle> Drop for Shared<'_, H> {
    fn drop(&mut self) {
        // Release and Acquire: what other calls did to the value happens before its drop.
        if self.header().count.fetch_sub(CALL, Ordering::AcqRel) == CALL {
            // SAFETY: no owner and no call is left, and no call can begin without an owner.
            unsafe { destroy(self.0) };
        }
    }
}

impl<H: Handle> Deref for Exclusive<'_, H> {
    type Target = H::Value;

    fn deref(&self) -> &H::Value {
        &self.shared
    }
}

impl<H: Handle> DerefMut for Exclusive<'_, H> {
    fn deref_mut(&mut self) -> &mut H::Value {
        // SAFETY: the busy flag is ours, so this is the only reference.
        unsafe { &mut *(*self.shared.0.as_ptr()).value.get() }
    }
}

impl<H: Handle> Drop for Exclusive<'_, H> {
    fn drop(&mut self) {
        let header = self.shared.header();
        if std::thread::panicking() && !self.panicking_before {
            header.poisoned.store(true, Ordering::Relaxed);
        }
        header.busy.store(false, Ordering::Release);
    }
}

/// Drops the value and gives the memory back, to the quarantine where handles are checked.
unsafe fn destroy<V>(object: NonNull<Object<V>>) {
    // SAFETY: the caller says that nobody else can reach the object, so its value is ours to take.
    let (header, value) = unsafe { (&(*object.as_ptr()).header, ptr::read((*object.as_ptr()).value.get())) };
    header.kind.store(DEAD, Ordering::Relaxed);
    discard(value);
    let block = (object.as_ptr() as usize, Layout::new::<Object<V>>());
    let freed = match live::table() {
        Some(mut table) => table.exchange(block.0, block.1),
        None => Some(block),
    };
    if let Some((address, layout)) = freed {
        // SAFETY: allocated by `try_new` with this layout and not freed before: it comes here once.
        unsafe { dealloc(ptr::with_exposed_provenance_mut(address), layout) };
    }
}
