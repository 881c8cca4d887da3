//! Memory that begins a cache line. A vector that lies in two lines is two accesses, one in two pages more than that, and the
//! widest vectors are as long as a line: without this nearly all of them would lie so.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use crate::error::{Result, try_vec};

/// A value that begins a cache line. A function with one of these on its stack also puts there what it has no registers for:
/// the compiler aligns a stack only if it knows before it gives registers out.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Aligned<T>(pub T);

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A list of numbers that begins a cache line.
#[derive(Debug)]
pub(super) struct Lines<T> {
    lines: Vec<Line>,
    len: usize,
    kind: PhantomData<T>,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Lines { lines: Vec::new(), len: 0, kind: PhantomData }
    }
}

impl<T: Pod> Lines<T> {
    /// `n` zeros. The error of a size that cannot be had names `what`.
    pub(super) fn zeros(n: usize, what: &'static str) -> Result<Self> {
        let mut list = Lines::default();
        list.resize(n, what)?;
        Ok(list)
    }

    /// Makes it `n` long; what it holds then is not specified. It keeps as much memory as was ever needed.
    pub(super) fn resize(&mut self, n: usize, what: &'static str) -> Result<()> {
        let lines = n.saturating_mul(size_of::<T>()).div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines = try_vec(lines, Line::zeroed(), what)?;
        }
        self.len = n;
        Ok(())
    }

    /// Drops what is behind the first `n`.
    pub(super) fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
    }
}

impl<T: Pod> Deref for Lines<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Lines<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
