//! A flag by which one thread asks another to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// A shared request to stop. Clones share it. Long calls look at it between layers and between stripes of a file.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every call that looks at this to stop. One atomic store: may be called from a signal handler.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes the request back.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// True after `request`.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// `Cancelled` after `request`; `what` names the call.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        if self.is_requested() { Err(Error::cancelled(format!("{what} was cancelled"))) } else { Ok(()) }
    }
}
