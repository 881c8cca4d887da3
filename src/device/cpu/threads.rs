//! The thread pool that inference runs on.
//!
//! Work comes in **stages**: a stage is a number of chunks, and it is over when its chunks are done, not when every
//! thread has arrived. Each thread takes the chunks of its own range first and then those that others have not begun,
//! so a thread that the system put aside delays at most the chunk that it holds. Chunks are computed the same way
//! whoever takes them, so the result does not depend on who does.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::PANEL_ROWS;
use super::contention::Contention;
use crate::error::Result;
use crate::fault;
use crate::log::{self, Contained, Level};
use crate::numeric::FloatEnvironment;

/// How long an idle thread looks for the next stage before it sleeps, and a finished one waits before it yields.
const SPIN: Duration = Duration::from_micros(20);

/// A shared pool of threads. Clones share it; the threads end with the last clone.
///
/// When two callers use one pool at once, one of them computes alone on its own thread: both make progress and
/// neither's result changes.
#[derive(Clone)]
pub struct Threads(Arc<Pool>);

struct Pool {
    shared: Arc<Shared>,
    workers: Vec<std::thread::JoinHandle<()>>,
    /// The process that the workers live in: `fork` copies the pool, but not them.
    process: u32,
    /// Held while a stage runs.
    submit: Mutex<Contention>,
}

/// One cache line for each counter that a different thread writes.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// The chunks nobody has begun, one range a thread: next in the low half, end in the high half.
    ranges: Box<[Padded<AtomicU64>]>,
    job: UnsafeCell<Option<Job>>,
    finished: Padded<AtomicUsize>,
    stage: Padded<AtomicUsize>,
    /// How many threads take part; those whose number is not below it sit out.
    active: Padded<AtomicUsize>,
    /// How many of the active threads sleep.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    panic: Padded<Mutex<Option<Box<dyn Any + Send>>>>,
}

/// The function of the current stage. Its lifetime is erased; see `Threads::run` for why it is not outlived.
type Job = &'static (dyn Fn(usize) + Sync);

// SAFETY: `job` is written only by the submitter, while no chunk can be claimed, and read only by a thread that
// holds a claimed chunk; everything else in `Shared` is Sync by itself.
unsafe impl Sync for Shared {}
// SAFETY: `Job` is a shared reference to a Sync function.
unsafe impl Send for Shared {}

impl Threads {
    /// A pool of `n` threads in all, the caller's included; 0 and 1 mean the caller's alone. Threads that the system
    /// refuses are done without.
    pub fn new(n: usize) -> Self {
        let n = n.clamp(1, 1024);
        let shared = Arc::new(Shared {
            ranges: (0..n).map(|_| Padded(AtomicU64::new(0))).collect(),
            job: UnsafeCell::new(None),
            finished: Padded(AtomicUsize::new(0)),
            stage: Padded(AtomicUsize::new(0)),
            active: Padded(AtomicUsize::new(n)),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panic: Padded(Mutex::new(None)),
        });
        let mut workers = Vec::new();
        for id in 1..n {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("llm-{id}"));
            match thread.spawn(move || shared.worker(id)) {
                Ok(handle) => workers.push(handle),
                Err(e) => {
                    log::event(Level::Warn, format_args!("{id} threads instead of {n}: {e}"));
                    break;
                }
            }
        }
        let submit = Mutex::new(Contention::new(workers.len() + 1));
        Threads(Arc::new(Pool { shared, workers, process: std::process::id(), submit }))
    }

    /// A pool of one thread for each physical core that this process may use.
    pub fn automatic() -> Self {
        Threads::new(physical_cores())
    }

    /// How many threads compute, the caller's included.
    pub fn count(&self) -> usize {
        self.0.workers.len() + 1
    }

    /// Calls `f` once for each chunk in 0..`chunks`, on all threads, and returns when all calls have returned.
    /// A panic in `f` is resumed here after that.
    pub(crate) fn run(&self, chunks: usize, f: impl Fn(usize) + Sync) {
        let pool = &*self.0;
        let guard = if chunks > 1 && !pool.workers.is_empty() { pool.submit.try_lock() } else { None };
        let Some(mut contention) = guard else {
            (0..chunks).for_each(f);
            return;
        };
        assert!(u32::try_from(chunks).is_ok(), "a stage has at most 2^32 - 1 chunks");
        let shared = &*pool.shared;
        let job: &(dyn Fn(usize) + Sync) = &f;
        // SAFETY: the reference is used only by threads that hold a claimed chunk, and this function does not return
        // (nor unwind: `work` catches) before all chunks are finished.
        let job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: all ranges are empty here, so no thread can claim a chunk and read `job`.
        unsafe { *shared.job.get() = Some(job) };
        shared.finished.0.store(0, Ordering::Relaxed);
        let active = contention.stage();
        for (i, range) in shared.ranges.iter().enumerate() {
            let (next, end) = (i.min(active) * chunks / active, (i + 1).min(active) * chunks / active);
            range.0.store((end as u64) << 32 | next as u64, Ordering::Release);
        }
        // Written only where it changes: the workers read it all the time.
        if shared.active.0.load(Ordering::Relaxed) != active {
            shared.active.0.store(active, Ordering::SeqCst);
            let _lock = shared.sleep.lock();
            shared.wake.notify_all();
        }
        shared.stage.0.fetch_add(1, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _lock = shared.sleep.lock();
            shared.wake.notify_all();
        }
        shared.work(0);
        let mut wait = SpinWait::new();
        while shared.finished.0.load(Ordering::Acquire) < chunks {
            if wait.spun_out() {
                std::thread::yield_now();
            }
        }
        let panic = shared.panic.0.lock().take();
        drop(contention);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    #[cfg(test)]
    pub(super) fn contention(&self) -> parking_lot::MutexGuard<'_, Contention> {
        self.0.submit.lock()
    }

    /// Calls `f` once for each item, on all threads.
    pub(crate) fn each<T: Send>(&self, items: impl IntoIterator<Item = T>, f: impl Fn(T) + Sync) {
        // Each is taken by one chunk.
        let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        self.run(items.len(), |i| {
            if let Some(item) = items[i].lock().take() {
                f(item);
            }
        });
    }

    /// As `each`, where `f` may fail: every item gets its call, and one of the errors is returned.
    pub(crate) fn try_each<T: Send>(
        &self,
        items: impl IntoIterator<Item = T>,
        f: impl Fn(T) -> Result<()> + Sync,
    ) -> Result<()> {
        let failure = Mutex::new(None);
        self.each(items, |item| {
            if let Err(error) = f(item) {
                failure.lock().get_or_insert(error);
            }
        });
        failure.into_inner().map_or(Ok(()), Err)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A child of `fork`: there is nobody to stop or to wait for, and a lock may be held by nobody for ever.
            self.workers.drain(..).for_each(std::mem::forget);
            return;
        }
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _lock = self.shared.sleep.lock();
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A pool dropped on one of its own threads (a session freed inside a job) must not wait for itself.
            if worker.thread().id() != std::thread::current().id() {
                let _ = worker.join();
            }
        }
    }
}

impl Shared {
    fn worker(&self, id: usize) {
        let _contained = Contained::new();
        let _environment = FloatEnvironment::enter();
        let mut seen = 0;
        loop {
            let mut wait = SpinWait::new();
            let sits_out = || id >= self.active.0.load(Ordering::SeqCst);
            let begun = || self.stage.0.load(Ordering::SeqCst) != seen && !sits_out();
            while !begun() {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                if wait.spun_out() {
                    let mut lock = self.sleep.lock();
                    let mut ready = false;
                    while !ready {
                        // Counted before it looks, so that a stage which begins after that wakes it; who sits out is
                        // not woken for stages.
                        let counted = usize::from(!sits_out());
                        self.sleepers.fetch_add(counted, Ordering::SeqCst);
                        ready = begun() || self.stop.load(Ordering::SeqCst);
                        if !ready {
                            self.wake.wait(&mut lock);
                        }
                        self.sleepers.fetch_sub(counted, Ordering::SeqCst);
                    }
                }
            }
            seen = self.stage.0.load(Ordering::Acquire);
            self.work(id);
        }
    }

    /// Takes chunks, own range first, until none is left to take.
    fn work(&self, id: usize) {
        let n = self.ranges.len();
        let mut done = 0;
        for i in 0..n {
            let range = &self.ranges[(id + i) % n].0;
            while let Some(chunk) = claim(range) {
                // SAFETY: a chunk of the running stage is claimed, so the submitter waits for it and `job` is its
                // function; claiming acquired what the submitter released when it filled the ranges.
                let job = unsafe { *self.job.get() };
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
                    if id > 0 {
                        fault::place(|| "pool worker");
                    }
                    job.map(|job| job(chunk))
                })) {
                    self.keep(payload);
                }
                done += 1;
            }
        }
        if done > 0 {
            self.finished.0.fetch_add(done, Ordering::Release);
        }
    }

    /// Keeps the first panic of a stage for the submitter. Later ones are leaked and not dropped: a payload may panic
    /// again when it is dropped, and unwinding from here would end the stage while others are still inside it.
    fn keep(&self, payload: Box<dyn Any + Send>) {
        let mut first = self.panic.0.lock();
        if first.is_none() {
            *first = Some(payload);
        } else {
            std::mem::forget(payload);
        }
    }
}

/// Takes the next chunk of a range.
fn claim(range: &AtomicU64) -> Option<usize> {
    let mut current = range.load(Ordering::Acquire);
    loop {
        let (next, end) = (current & 0xFFFF_FFFF, current >> 32);
        if next >= end {
            return None;
        }
        match range.compare_exchange_weak(current, current + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(next as usize),
            Err(found) => current = found,
        }
    }
}

/// Spins for about [`SPIN`], looking at the clock only now and then.
struct SpinWait {
    turns: u32,
    start: Option<Instant>,
}

impl SpinWait {
    fn new() -> Self {
        SpinWait { turns: 0, start: None }
    }

    /// One turn; true once the time is up.
    fn spun_out(&mut self) -> bool {
        std::hint::spin_loop();
        self.turns += 1;
        if !self.turns.is_multiple_of(64) {
            return false;
        }
        self.start.get_or_insert_with(Instant::now).elapsed() > SPIN
    }
}

/// The number of physical cores among the processors that this process may run on.
pub fn physical_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    // Linux lists the processors that this thread may use, and for each of them those that share its core; elsewhere
    // every processor counts as a core.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let siblings =
        |cpu| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok();
    let cores: std::collections::BTreeSet<String> = processors(allowed).filter_map(siblings).collect();
    if cores.is_empty() { logical } else { logical.min(cores.len()) }
}

/// The numbers in a list such as `0-3,8`.
pub(super) fn processors(list: &str) -> impl Iterator<Item = usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten()
}

/// A (rows, width) matrix that the chunks of a stage fill together, each its own columns.
pub(super) struct Columns<'a> {
    data: *mut f32,
    rows: usize,
    width: usize,
    _borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: `write` is the only access, and its contract is that no two threads write the same columns.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Wraps `data`, which holds rows of `width` values.
    pub(super) fn new(data: &'a mut [f32], width: usize) -> Self {
        Columns { rows: data.len() / width, width, data: data.as_mut_ptr(), _borrow: std::marker::PhantomData }
    }

    /// Copies the first `n` of each of `tile` to the rows from `row` on, from column `column`.
    ///
    /// # Safety
    /// No two threads may write the same columns of a row while the matrix is shared.
    #[inline(always)]
    pub(super) unsafe fn write(&self, row: usize, column: usize, tile: &[[f32; PANEL_ROWS]], n: usize) {
        assert!(row <= self.rows && tile.len() <= self.rows - row);
        assert!(column <= self.width && n <= PANEL_ROWS.min(self.width - column));
        for (c, values) in tile.iter().enumerate() {
            // SAFETY: the target lies inside the borrowed slice by the checks above; that no other thread writes it is the
            // caller's promise; `values` is a shared borrow and cannot overlap the exclusively borrowed matrix.
            unsafe {
                let target = self.data.add((row + c) * self.width + column);
                if n == PANEL_ROWS {
                    target.cast::<[f32; PANEL_ROWS]>().write_unaligned(*values);
                } else {
                    copy(&values[..n], target);
                }
            }
        }
    }
}

/// Copies `values` to `target`, for the few rows that do not fill a panel. Not inlined: of this and the copy of a whole panel
/// the compiler made one call of memcpy, for each column of each panel.
///
/// # Safety
/// As many f32 can be written to `target`, none of them in `values`.
#[cold]
#[inline(never)]
unsafe fn copy(values: &[f32], target: *mut f32) {
    // SAFETY: what the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), target, values.len()) }
}
