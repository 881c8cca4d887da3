//! The pool: every chunk once, whatever happens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::super::contention::Contention;
use super::super::threads::{Columns, processors};
use super::*;

/// How often each chunk ran.
fn counts(threads: &Threads, chunks: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
    threads.run(chunks, |i| {
        counts[i].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_chunk_runs_once() {
    for n in [0, 1, 2, 3, 5, 16] {
        let threads = Threads::new(n);
        assert_eq!(threads.count(), n.max(1));
        for chunks in [0, 1, 2, 3, 4, 15, 16, 17, 100, 5000] {
            assert!(counts(&threads, chunks).iter().all(|&count| count == 1), "{n} threads, {chunks} chunks");
        }
    }
}

#[test]
fn many_short_stages_one_after_the_other() {
    let threads = Threads::new(4);
    let total = AtomicUsize::new(0);
    for stage in 0..20_000 {
        threads.run(stage % 7, |_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
        // Now and then the others fall asleep before the next stage.
        if stage % 500 == 0 {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
    assert_eq!(total.into_inner(), (0..20_000).map(|stage| stage % 7).sum::<usize>());
}

#[test]
fn chunks_run_on_several_threads() {
    let threads = Threads::new(3);
    // Each chunk waits for another one to begin: on one thread this would not end.
    let begun = AtomicUsize::new(0);
    threads.run(2, |_| {
        begun.fetch_add(1, Ordering::SeqCst);
        while begun.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
    });
}

/// Half of the time went to others.
fn lose(contention: &mut Contention) {
    contention.observe(ms(40), ms(20));
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn threads_sit_out_while_others_want_their_processors() {
    let mut contention = Contention::new(3);
    // A hiccup is no reason.
    contention.observe(ms(20), ms(10));
    contention.observe(ms(30), ms(1));
    assert_eq!(contention.active(), 3);
    for active in [2, 1, 1] {
        lose(&mut contention);
        assert_eq!(contention.active(), active);
    }
    // The last rest was the third: 50, 100, 200 ms. Then they come back one at a time.
    let active: Vec<usize> = std::iter::repeat_with(|| {
        contention.observe(ms(40), ms(0));
        contention.active()
    })
    .take(7)
    .collect();
    assert_eq!(active, [1, 1, 1, 1, 2, 3, 3]);
    // All of them had their processors: the next rest is the first again.
    lose(&mut contention);
    contention.observe(ms(40), ms(0));
    assert_eq!(contention.active(), 2);
    contention.observe(ms(40), ms(0));
    assert_eq!(contention.active(), 3);
}

#[test]
fn tries_become_rare_while_others_stay() {
    let mut contention = Contention::new(2);
    let mut spans = 0;
    // With one thread nothing is lost, with two half of the time.
    for _ in 0..1000 {
        let both = contention.active() == 2;
        spans += usize::from(both);
        contention.observe(ms(40), if both { ms(20) } else { ms(0) });
    }
    assert!((45..=60).contains(&spans), "{spans} of 1000 spans");
}

#[test]
fn a_thread_that_sits_out_takes_no_chunk_and_comes_back() {
    let threads = Threads::new(2);
    let caller = std::thread::current().id();
    for _ in 0..20 {
        lose(&mut threads.contention());
        // So long that the other one sleeps when it is wanted again.
        std::thread::sleep(ms(1));
        threads.run(100, |_| assert_eq!(std::thread::current().id(), caller));
        threads.contention().observe(ms(2000), ms(0));
        let begun = AtomicUsize::new(0);
        threads.run(2, |_| {
            begun.fetch_add(1, Ordering::SeqCst);
            while begun.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn items_are_given_out_once() {
    let threads = Threads::new(3);
    let mut values = vec![0; 1000];
    threads.each(values.iter_mut().enumerate(), |(i, value)| *value += i + 1);
    assert!(values.iter().enumerate().all(|(i, &value)| value == i + 1));
    threads.each(Vec::<String>::new(), |_| unreachable!());
}

#[test]
fn items_that_fail_do_not_keep_others_from_their_turn() {
    let threads = Threads::new(3);
    let turns = AtomicUsize::new(0);
    let result = threads.try_each(0..100, |i| {
        turns.fetch_add(1, Ordering::Relaxed);
        if i % 9 == 0 { Err(crate::Error::internal(format!("item {i}"))) } else { Ok(()) }
    });
    assert!(result.unwrap_err().detail().message().starts_with("item "));
    assert_eq!(turns.into_inner(), 100);
    assert!(threads.try_each(0..100, |_| Ok(())).is_ok());
}

#[test]
fn a_panic_reaches_the_caller_after_all_chunks_ended() {
    for n in [2, 3, 5] {
        let threads = Threads::new(n);
        for bad in [0, 1, 30, 63] {
            let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let result = catch_unwind(AssertUnwindSafe(|| {
                threads.run(64, |i| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    if i == bad {
                        std::panic::panic_any(format!("chunk {i}"));
                    }
                    std::thread::sleep(std::time::Duration::from_micros(20));
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }));
            let payload = result.unwrap_err();
            assert_eq!(payload.downcast_ref::<String>(), Some(&format!("chunk {bad}")));
            assert_eq!((begun.into_inner(), ended.into_inner()), (64, 63));
            assert!(counts(&threads, 100).iter().all(|&count| count == 1), "after the panic");
        }
    }
}

#[test]
fn one_of_several_panics_is_passed_on_and_none_is_left() {
    let threads = Threads::new(4);
    for _ in 0..50 {
        let result = catch_unwind(AssertUnwindSafe(|| threads.run(20, |i| std::panic::panic_any(i))));
        assert!(result.unwrap_err().downcast_ref::<usize>().is_some_and(|&i| i < 20));
        assert!(counts(&threads, 9).iter().all(|&count| count == 1));
    }
}

/// A payload that panics once more when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any("dropped");
        }
    }
}

#[test]
fn payloads_that_panic_when_dropped_leave_the_stage_whole() {
    let threads = Threads::new(3);
    for _ in 0..20 {
        let ended = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            threads.run(20, |i| {
                ended.fetch_add(1, Ordering::SeqCst);
                if i % 2 == 0 {
                    std::panic::panic_any(Bomb);
                }
            });
        }));
        let payload = result.unwrap_err();
        assert!(payload.is::<Bomb>(), "the stage's own panic arrives");
        std::mem::forget(payload);
        assert_eq!(ended.into_inner(), 20, "all chunks ended before");
        assert!(counts(&threads, 9).iter().all(|&count| count == 1));
    }
}

#[test]
fn two_callers_at_once_both_finish() {
    let threads = Threads::new(3);
    std::thread::scope(|scope| {
        for caller in 0..3 {
            let threads = threads.clone();
            scope.spawn(move || {
                for chunks in 0..600 {
                    let count = counts(&threads, chunks % 40).iter().sum::<usize>();
                    assert_eq!(count, chunks % 40, "caller {caller}");
                }
            });
        }
    });
}

#[test]
fn a_stage_within_a_chunk_runs() {
    let threads = Threads::new(3);
    let total = AtomicUsize::new(0);
    threads.run(10, |_| {
        threads.run(10, |_| {
            threads.run(3, |_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
    });
    assert_eq!(total.into_inner(), 300);
}

/// A panic on a thread of the pool inside a stage within a chunk passes both levels.
#[test]
fn a_panic_within_a_stage_within_a_chunk_arrives() {
    let threads = Threads::new(3);
    let run = || threads.run(10, |i| threads.run(10, |j| assert!((i, j) != (7, 3), "here")));
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    assert_eq!(counts(&threads, 5), [1; 5]);
}

#[test]
fn pools_and_clones_may_be_dropped_inside_a_chunk() {
    let threads = Threads::new(3);
    let clones: Vec<Threads> = (0..20).map(|_| threads.clone()).collect();
    threads.each(clones, drop);
    threads.run(6, |_| {
        let inner = Threads::new(2);
        assert_eq!(counts(&inner, 5), [1; 5]);
    });
    assert_eq!(counts(&threads, 5), [1; 5]);
}

#[test]
fn the_threads_end_with_the_last_clone() {
    let threads = Threads::new(3);
    let marker = Arc::new(AtomicBool::new(false));
    let other = {
        let (threads, marker) = (threads.clone(), Arc::clone(&marker));
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(5));
            threads.run(50, |_| marker.store(true, Ordering::SeqCst));
        })
    };
    drop(threads);
    other.join().unwrap();
    assert!(marker.load(Ordering::SeqCst));
}

/// After `fork` the pool's threads exist in the parent only: dropping the child's copy must not wait for them.
#[cfg(unix)]
#[test]
fn the_copy_of_a_pool_in_a_forked_child_can_be_dropped() {
    let threads = Threads::new(3);
    assert_eq!(counts(&threads, 5), [1; 5]);
    #[allow(unsafe_code)]
    // SAFETY: the child only drops the pool, which in a child takes no lock, and leaves without running anything else.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            drop(threads);
            libc::_exit(7);
        }
        child
    };
    let mut status = 0;
    for wait in 0.. {
        #[allow(unsafe_code)]
        // SAFETY: `child` is a child of this process that nobody else waits for, and `status` can be written to.
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if ended != 0 {
            assert_eq!(ended, child);
            break;
        }
        if wait == 1000 {
            #[allow(unsafe_code)]
            // SAFETY: as above; it has not been waited for.
            unsafe {
                libc::kill(child, libc::SIGKILL)
            };
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "the child hung or died: {status}");
    assert_eq!(counts(&threads, 5), [1; 5]);
}

#[test]
fn at_least_one_core_is_counted() {
    let logical = std::thread::available_parallelism().unwrap().get();
    assert!((1..=logical).contains(&crate::physical_cores()));
    assert_eq!(Threads::automatic().count(), crate::physical_cores());
}

#[test]
fn lists_of_processors_are_read() {
    for (list, expected) in [
        ("\t0-3,8\n", &[0, 1, 2, 3, 8][..]),
        ("5", &[5]),
        ("2,4-5,7", &[2, 4, 5, 7]),
        ("", &[]),
        ("x-3,1", &[1]),
        ("3-1", &[]),
    ] {
        assert_eq!(processors(list).collect::<Vec<_>>(), expected, "{list:?}");
    }
}

#[test]
fn columns_are_written_where_they_belong_and_nowhere_else() {
    let mut data = vec![0.0; 12];
    let columns = Columns::new(&mut data, 4);
    let write_rows = |columns: &Columns<'_>, row, rows: usize, column, n| {
        let tile: Vec<_> = (0..rows).map(|r| std::array::from_fn(|i| (16 * r + i + 1) as f32)).collect();
        #[allow(unsafe_code)]
        // SAFETY: this thread alone writes.
        unsafe {
            columns.write(row, column, &tile, n)
        }
    };
    let write = |columns: &Columns<'_>, row, column, n| write_rows(columns, row, 1, column, n);
    write(&columns, 1, 1, 3);
    write(&columns, 2, 4, 0);
    for (row, column, n) in [(3, 0, 1), (0, 4, 1), (0, 3, 2), (0, 5, 0), (0, usize::MAX, 2), (0, 0, 5)] {
        let refused = catch_unwind(AssertUnwindSafe(|| write(&columns, row, column, n)));
        assert!(refused.is_err(), "{row} {column} {n}");
    }
    for (row, rows) in [(2, 2), (0, 4), (3, 1), (4, 0), (usize::MAX, 2)] {
        assert!(catch_unwind(AssertUnwindSafe(|| write_rows(&columns, row, rows, 0, 1))).is_err(), "{row} {rows}");
    }
    write_rows(&columns, 1, 2, 0, 1);
    write_rows(&columns, 3, 0, 0, 1);
    assert_eq!(data, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 17.0, 0.0, 0.0, 0.0]);

    // Whole panels, and more values than one has.
    let mut data = vec![0.0; 2 * 17];
    let columns = Columns::new(&mut data, 17);
    write(&columns, 1, 0, 16);
    assert!(catch_unwind(AssertUnwindSafe(|| write(&columns, 0, 0, 17))).is_err());
    assert!(data[..17].iter().all(|&x| x == 0.0));
    assert_eq!(data[17..], std::array::from_fn::<f32, 17, _>(|i| if i < 16 { (i + 1) as f32 } else { 0.0 }));
}
