//! Keys and values of past positions.

use memmap2::MmapMut;

use crate::device::{Buffer, Device, KvShape, KvView, TILE};
use crate::error::{Error, Result};

/// A cache of one sequence, all of its positions in one piece of memory that is committed as positions are written.
#[derive(Debug)]
pub(crate) struct Contiguous {
    shape: KvShape,
    layer_bytes: usize,
    memory: MmapMut,
    capacity: usize,
    length: usize,
}

impl Contiguous {
    /// Bytes of a cache for `layers` layers of `shape`; `None` on overflow.
    pub(crate) fn bytes(layers: usize, shape: KvShape) -> Option<usize> {
        shape.bytes()?.checked_mul(layers)
    }

    /// A cache for `capacity` positions; `shape.tiles` is set from it.
    pub(crate) fn new(layers: usize, shape: KvShape, capacity: usize) -> Result<Self> {
        let shape = KvShape { tiles: capacity.div_ceil(TILE), ..shape };
        let memory = Self::bytes(layers, shape).and_then(|bytes| MmapMut::map_anon(bytes.max(1)).ok());
        let memory = memory.ok_or_else(|| {
            Error::out_of_memory(format!("a key/value cache of {capacity} positions cannot be had"))
                .with("positions", capacity)
        })?;
        #[cfg(target_os = "linux")]
        // Only a wish: a long context is read with fewer page walks.
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Contiguous { layer_bytes: memory.len() / layers.max(1), shape, memory, capacity, length: 0 })
    }

    /// Positions held.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Positions there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes a layer's keys and values of the positions after the held ones. They count once `commit` was called.
    pub(crate) fn append(&mut self, device: &Device, layer: usize, k: &Buffer, v: &Buffer) {
        let bytes = &mut self.memory[layer * self.layer_bytes..(layer + 1) * self.layer_bytes];
        device.kv_append(self.shape, bytes, self.length, k, v);
    }

    /// A layer's keys and values, the uncommitted ones included.
    pub(crate) fn view(&self, layer: usize) -> KvView<'_> {
        KvView::new(self.shape, &self.memory[layer * self.layer_bytes..(layer + 1) * self.layer_bytes])
    }

    /// Takes `count` positions that were written for every layer as held.
    pub(crate) fn commit(&mut self, count: usize) {
        debug_assert!(self.length + count <= self.capacity);
        self.length += count;
    }

    /// Forgets all positions from `length` on.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}
