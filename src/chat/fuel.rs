//! What a template may spend. Templates come with files from strangers, so each render has a budget, and everything
//! that takes time or memory by the size of its values is paid from it.
//!
//! The engine counts its own instructions. It does not see what goes on inside of our values when it compares, hashes
//! or prints them, and these calls cannot fail; so they pay here, and once the budget is spent they do nothing. Every
//! filter, method and output asks [`check`] and ends the render. The budget is the thread's: a render has one to itself.

use minijinja::{Error, ErrorKind};
use std::cell::Cell;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// One unit pays for an item that is visited, or for so many bytes.
const BYTES: usize = 16;

/// Begins a budget on this thread.
pub(super) fn fill(units: u64) {
    LEFT.set(units);
}

/// Pays for visiting `items`; false if that cannot be paid, and from then on.
pub(super) fn visit(items: usize) -> bool {
    let left = LEFT.get().saturating_sub(items as u64);
    LEFT.set(left);
    left > 0
}

/// What producing or reading `count` bytes costs.
pub(super) fn units(count: usize) -> usize {
    count / BYTES + 1
}

/// Pays for producing or reading `count` bytes; false if that cannot be paid, and from then on.
pub(super) fn bytes(count: usize) -> bool {
    visit(units(count))
}

/// As [`visit`], for what can fail.
pub(super) fn pay(items: usize) -> Result<(), Error> {
    visit(items);
    check()
}

/// As [`bytes`], for what can fail. Paid before the bytes are there, so that there are never too many.
pub(super) fn pay_bytes(count: usize) -> Result<(), Error> {
    bytes(count);
    check()
}

/// Whether nothing is left.
pub(super) fn spent() -> bool {
    LEFT.get() == 0
}

/// Fails if nothing is left.
pub(super) fn check() -> Result<(), Error> {
    if spent() { Err(Error::new(ErrorKind::OutOfFuel, "the budget is spent")) } else { Ok(()) }
}
