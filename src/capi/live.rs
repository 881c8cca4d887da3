//! The table of live handles (feature `check-handles`, and debug builds): it tells a stale handle from a live one
//! without reading through it.

use std::alloc::Layout;
use std::collections::{HashSet, VecDeque};

use parking_lot::{Mutex, MutexGuard};

/// Whether handles are looked up before they are read.
pub(super) const CHECK: bool = cfg!(any(debug_assertions, feature = "check-handles"));

/// Freed memory kept back, so that a stale address does not soon belong to a new handle.
const QUARANTINE: usize = 1024;

static TABLE: Mutex<Table> = Mutex::new(Table { live: None, quarantine: VecDeque::new() });

/// Addresses of live handles and freed blocks; addresses are never read through here.
pub(super) struct Table {
    /// None before the first handle.
    live: Option<HashSet<usize>>,
    quarantine: VecDeque<(usize, Layout)>,
}

impl Table {
    pub(super) fn contains(&self, address: usize) -> bool {
        self.live.as_ref().is_some_and(|live| live.contains(&address))
    }

    pub(super) fn insert(&mut self, address: usize) {
        self.live.get_or_insert_default().insert(address);
    }

    pub(super) fn remove(&mut self, address: usize) {
        if let Some(live) = &mut self.live {
            live.remove(&address);
        }
    }

    /// Takes a freed block and gives one back that has been kept long enough.
    pub(super) fn exchange(&mut self, address: usize, layout: Layout) -> Option<(usize, Layout)> {
        self.quarantine.push_back((address, layout));
        if self.quarantine.len() > QUARANTINE { self.quarantine.pop_front() } else { None }
    }
}

/// The table, or `None` where it is not kept.
pub(super) fn table() -> Option<MutexGuard<'static, Table>> {
    CHECK.then(|| TABLE.lock())
}

/// Held across fork, so that the child finds the table whole and unlocked: it may still read and free errors.
#[cfg(unix)]
pub(super) fn lock_before_fork() {
    std::mem::forget(TABLE.lock());
}

#[cfg(unix)]
pub(super) fn unlock_after_fork() {
    // SAFETY: `lock_before_fork` locked it on this thread (in the child: on the thread that this one is a copy of).
    unsafe { TABLE.force_unlock() };
}
