//! The thread's float environment: rounding to nearest even, subnormals kept.
//!
//! A host may have set flush-to-zero for its own audio or physics code, and new threads inherit it. Every entry that
//! computes holds a [`FloatEnvironment`]; dropping it gives the host its own settings back.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// While this lives, the thread computes with the IEEE 754 defaults.
pub(crate) struct FloatEnvironment {
    saved: Control,
    /// The settings are a thread's own: this must not be dropped on another.
    _not_send: PhantomData<*const ()>,
}

impl FloatEnvironment {
    /// Sets the defaults and remembers what was set.
    pub(crate) fn enter() -> Self {
        let saved = control();
        if saved != DEFAULT {
            set_control(DEFAULT);
        }
        FloatEnvironment { saved, _not_send: PhantomData }
    }
}

impl Drop for FloatEnvironment {
    fn drop(&mut self) {
        if self.saved != DEFAULT {
            set_control(self.saved);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;

    pub(super) type Control = u32;
    /// All exceptions masked, round to nearest even, no FTZ, no DAZ.
    pub(super) const DEFAULT: Control = 0x1F80;

    pub(super) fn control() -> Control {
        let mut value: u32 = 0;
        // SAFETY: stmxcsr writes the 4 bytes of `value`; SSE is part of x86-64.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        // The six lowest bits report past exceptions and set nothing.
        value & !0x3F
    }

    pub(super) fn set_control(value: Control) {
        // SAFETY: ldmxcsr reads 4 bytes of `value`; only defined bits are ever set, since values come from
        // `control` or are DEFAULT.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    pub(super) type Control = u64;
    /// Round to nearest even, no flush to zero.
    pub(super) const DEFAULT: Control = 0;

    pub(super) fn control() -> Control {
        let value: u64;
        // SAFETY: reading FPCR has no side effect.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub(super) fn set_control(value: Control) {
        // SAFETY: values come from `control` or are the architecture's default.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    pub(super) type Control = ();
    pub(super) const DEFAULT: Control = ();
    pub(super) fn control() -> Control {}
    pub(super) fn set_control(_: Control) {}
}

use arch::{Control, DEFAULT, control, set_control};

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests;
