//! Handles without C: counts, the busy flag, poison, who drops the value and when.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::handle::{self, Exclusive, Handle, Kind};
use super::live;
use crate::error::Error;

struct Thing;

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handle for Thing {
    type Value = Counted;
    const KIND: Kind = Kind::Session;
}

fn thing() -> (*mut Thing, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    (handle::new::<Thing>(Counted(Arc::clone(&drops))).unwrap(), drops)
}

fn enter<'a>(thing: *mut Thing) -> crate::Result<Exclusive<'a, Thing>> {
    // SAFETY: stale handles are looked up in the table, which is kept wherever this file is compiled.
    unsafe { handle::exclusive(thing, "thing") }
}

fn free(thing: *mut Thing) {
    // SAFETY: as in `enter`.
    unsafe {
        handle::free(thing);
    }
}

#[test]
fn a_free_inside_a_call_waits_for_its_end() {
    let (thing, drops) = thing();
    let call = enter(thing).unwrap();
    free(thing);
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    assert!(live::table().is_some_and(|table| !table.contains(thing as usize)));
    assert!(matches!(enter(thing), Err(Error::FailedPrecondition(_))));
    free(thing);
    drop(call);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    free(thing);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn a_second_call_is_busy_and_a_third_is_not() {
    let (thing, _) = thing();
    let call = enter(thing).unwrap();
    assert!(matches!(enter(thing), Err(Error::Busy(_))));
    let address = thing as usize;
    let elsewhere = std::thread::spawn(move || matches!(enter(address as *mut Thing), Err(Error::Busy(_))));
    assert!(elsewhere.join().unwrap());
    drop(call);
    drop(enter(thing).unwrap());
    free(thing);
}

#[test]
fn a_panic_inside_a_call_poisons() {
    let (thing, drops) = thing();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _call = enter(thing).unwrap();
        std::panic::resume_unwind(Box::new("quietly"));
    }));
    assert!(panic.is_err());
    for _ in 0..2 {
        let error = enter(thing).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
        assert!(error.to_string().contains("INTERNAL"), "{error}");
    }
    free(thing);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

/// Calls us while it unwinds, as a destructor of the host program may.
struct CallOnDrop(*mut Thing);

impl Drop for CallOnDrop {
    fn drop(&mut self) {
        drop(enter(self.0).unwrap());
    }
}

#[test]
fn a_host_that_unwinds_does_not_poison() {
    let (thing, _) = thing();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _host = CallOnDrop(thing);
        std::panic::resume_unwind(Box::new("quietly"));
    }));
    assert!(panic.is_err());
    drop(enter(thing).unwrap());
    free(thing);
}

#[test]
fn threads_that_retain_and_free_drop_the_value_once() {
    let (thing, drops) = thing();
    let address = thing as usize;
    let work = move || {
        for _ in 0..2000 {
            // SAFETY: as in `enter`.
            assert!(unsafe { handle::retain(address as *const Thing) }.is_some());
            drop(enter(address as *mut Thing));
            free(address as *mut Thing);
        }
    };
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(work)).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    free(thing);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}
