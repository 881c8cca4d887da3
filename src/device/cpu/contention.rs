//! How many threads of a pool take part while others want its processors.
//!
//! Where more threads can run than there are processors, the system takes turns with them, and each turn away from the
//! thread that hands out the stages is time in which nobody computes. With one thread fewer there is a processor for each
//! again. So time that the submitter was ready to run and did not is measured, and where it is much, a thread sits out
//! for a while; from time to time the pool tries whether there is room for it again.
// The clocks are system calls.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// How many stages come between two looks at the clocks, which are system calls.
const STAGES: u32 = 32;

/// How much running time is judged at once: several of the turns that a scheduler gives.
const SPAN: Duration = Duration::from_millis(32);

/// How long a thread sits out at first. Each try that fails doubles it.
const FIRST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_millis(800);

/// The state of a pool, which its submitter holds.
pub(super) struct Contention {
    threads: usize,
    /// Of them those that take part now, at least one.
    active: usize,
    stages: u32,
    last: Option<Reading>,
    /// Of the span that is going on.
    elapsed: Duration,
    lost: Duration,
    /// How long the next rest will be, and how much is left of this one.
    rest: Duration,
    left: Duration,
}

/// What the clocks said to a thread.
#[derive(Clone, Copy)]
struct Reading {
    thread: std::thread::ThreadId,
    now: Instant,
    /// The time that the thread has run.
    ran: Duration,
    /// How often it has waited for something.
    waits: libc::c_long,
    /// How often another thread was given its processor.
    turns: libc::c_long,
}

impl Contention {
    pub(super) fn new(threads: usize) -> Self {
        let zero = Duration::ZERO;
        Contention {
            threads,
            active: threads,
            stages: 0,
            last: None,
            elapsed: zero,
            lost: zero,
            rest: FIRST_REST,
            left: zero,
        }
    }

    /// To be told of every stage before it begins; how many threads are to take part in it.
    pub(super) fn stage(&mut self) -> usize {
        self.stages += 1;
        if self.stages >= STAGES {
            self.stages = 0;
            let reading = Reading::take();
            if let (Some(last), Some(this)) = (self.last, reading)
                && last.thread == this.thread
                // Not where it slept of its own accord: that time was not taken from it.
                && last.waits == this.waits
            {
                let elapsed = this.now.saturating_duration_since(last.now);
                let lost = elapsed.saturating_sub(this.ran.saturating_sub(last.ran));
                // What a virtual machine as a whole is denied comes back with no thread that sits out.
                self.observe(elapsed, if this.turns > last.turns { lost } else { Duration::ZERO });
            }
            self.last = reading;
        }
        self.active()
    }

    /// How many threads take part.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Takes into account that of `elapsed` the submitter has `lost` a part to others.
    pub(super) fn observe(&mut self, elapsed: Duration, lost: Duration) {
        self.elapsed += elapsed;
        self.lost += lost;
        if self.elapsed < SPAN {
            return;
        }
        let contended = self.lost > self.elapsed / 4;
        self.left = self.left.saturating_sub(self.elapsed);
        (self.elapsed, self.lost) = (Duration::ZERO, Duration::ZERO);
        if contended {
            self.active = (self.active - 1).max(1);
            self.left = self.rest;
            self.rest = (2 * self.rest).min(LONGEST_REST);
        } else if self.active == self.threads {
            self.rest = FIRST_REST;
        } else if self.left.is_zero() {
            self.active += 1;
        }
    }
}

impl Reading {
    /// Of the calling thread; `None` where the system does not tell.
    #[cfg(target_os = "linux")]
    fn take() -> Option<Reading> {
        // SAFETY: both are plain numbers, for which zeros are valid.
        let (mut time, mut usage): (libc::timespec, libc::rusage) = unsafe { std::mem::zeroed() };
        // SAFETY: both write the structure that they are given and nothing else.
        let told = unsafe {
            libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) == 0
                && libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) == 0
        };
        let ran = Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?);
        let thread = std::thread::current().id();
        told.then_some(Reading { thread, now: Instant::now(), ran, waits: usage.ru_nvcsw, turns: usage.ru_nivcsw })
    }

    #[cfg(not(target_os = "linux"))]
    fn take() -> Option<Reading> {
        None
    }
}
