//! The CPU: ops cut into stages for the thread pool, and the kernels of the best instruction set that it has.

mod act;
mod attention;
mod contention;
mod experts;
mod kernels;
mod kv;
mod kv_page;
mod linear;
mod lines;
mod packed;
mod rows;
mod scalar;
mod simd;
mod threads;
pub mod timing;
mod vector;
mod weight;

pub(crate) use act::{Act, Precision};
pub(crate) use attention::KvQuery;
pub(crate) use experts::Routes;
pub use kernels::Isa;
pub use kv::KvType;
pub(crate) use kv::{KvShape, KvTarget, KvView, Places, TILE};
pub(crate) use kv_page::{Held, KvPage, KvPool, PageShape};
pub(crate) use linear::{GroupProduct, Matrix, Product};
pub(crate) use packed::{ROWS as PANEL_ROWS, Shape};
pub use threads::{Threads, physical_cores};
pub(crate) use weight::{Arena, Weight};

use crate::error::Result;
use kernels::Kernels;
use lines::Lines;

/// A pool of threads and the kernels that it runs.
#[derive(Clone)]
pub(crate) struct Device {
    threads: Threads,
    kernels: &'static Kernels,
}

impl Device {
    /// The pool with the kernels of `isa`.
    pub(crate) fn new(threads: Threads, isa: Isa) -> Result<Device> {
        Ok(Device { threads, kernels: Kernels::get(isa)? })
    }

    /// As `new`; of what is not given, a pool of a thread for each core, and the best of the instruction sets.
    pub(crate) fn of(threads: Option<&Threads>, isa: Option<Isa>) -> Result<Device> {
        let isa = isa.map_or_else(Isa::choose, Ok)?;
        Device::new(threads.cloned().unwrap_or_else(Threads::automatic), isa)
    }

    /// The pool.
    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }
}

/// A (T,n) matrix of f32, reused from call to call.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    rows: usize,
    width: usize,
    data: Lines<f32>,
}

impl Buffer {
    /// Makes it (rows, width); what it holds then is not specified.
    pub(crate) fn reset(&mut self, rows: usize, width: usize) -> Result<()> {
        (self.rows, self.width) = (rows, width);
        self.data.resize(rows * width, "activations")
    }

    /// Keeps these rows, which ascend.
    pub(crate) fn keep(&mut self, ranges: impl Iterator<Item = std::ops::Range<usize>>) {
        let mut kept = 0;
        for rows in ranges {
            self.data.copy_within(rows.start * self.width..rows.end * self.width, kept * self.width);
            kept += rows.len();
        }
        self.rows = kept;
        self.data.truncate(kept * self.width);
    }

    /// T.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// All values, row by row.
    pub(crate) fn data(&self) -> &[f32] {
        &self.data
    }

    /// All values, row by row.
    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The rows.
    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let width = self.width;
        self.data_mut().chunks_exact_mut(width.max(1))
    }

    /// Row t.
    pub(crate) fn row(&self, t: usize) -> &[f32] {
        &self.data[t * self.width..(t + 1) * self.width]
    }
}

#[cfg(test)]
mod tests;
