//! Where packed weights are: the memory of a model's, and a matrix in it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use memmap2::{Mmap, MmapMut};

use super::packed::{ROWS, Shape};
use crate::error::{Error, Result, try_vec};

/// The memory of a model's weights: one anonymous mapping, in huge pages where the system gives them, or the map of a
/// file. Matrices may be laid out in it before it is there; it is written once.
#[derive(Debug, Default)]
pub(crate) struct Arena(OnceLock<Memory<Mmap>>);

/// A mapping of which the first `bytes` bytes are used.
#[derive(Debug)]
pub(crate) struct Memory<M> {
    map: M,
    bytes: usize,
}

/// Bytes of a huge page, where there are any.
const HUGE_PAGE: usize = 2 << 20;

impl Arena {
    /// Zeroed memory of `bytes` bytes, to be packed into.
    pub(crate) fn allocate(bytes: usize) -> Result<Memory<MmapMut>> {
        // Linux lets only whole huge pages begin at one: of others up to a thousand small pages would lie before the first
        // and behind the last, and each costs more than a microsecond when it is first written to.
        let huge_pages = bytes.checked_next_multiple_of(HUGE_PAGE).unwrap_or(bytes);
        let map = MmapMut::map_anon(if bytes < HUGE_PAGE { bytes.max(1) } else { huge_pages }).map_err(|_| {
            Error::out_of_memory(format!("the weights need {bytes} bytes, which cannot be had")).with("bytes", bytes)
        })?;
        #[cfg(target_os = "linux")]
        // Only a wish: without huge pages the same bytes are read, with more page walks.
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Memory { map, bytes })
    }

    /// Takes the packed weights; the pages become read-only.
    pub(crate) fn fill(&self, Memory { map, bytes }: Memory<MmapMut>) -> Result<()> {
        let map = map.make_read_only();
        let map = map.map_err(|e| Error::io(format!("the weights cannot be made read-only: {e}")))?;
        self.take(Memory { map, bytes })
    }

    /// Takes weights that lie packed in a file.
    pub(crate) fn share(&self, map: Mmap) -> Result<()> {
        self.take(Memory { bytes: map.len(), map })
    }

    fn take(&self, memory: Memory<Mmap>) -> Result<()> {
        self.0.set(memory).map_err(|_| Error::internal("the weights were packed twice"))
    }

    /// The packed weights, or nothing before they are there.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.get().map_or(&[], |memory| memory)
    }
}

impl<M: Deref<Target = [u8]>> Deref for Memory<M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.bytes]
    }
}

impl DerefMut for Memory<MmapMut> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.bytes]
    }
}

/// A packed (rows, columns) matrix, read only.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    shape: Shape,
    arena: Arc<Arena>,
    offset: usize,
    /// What its products are multiplied with.
    scale: f32,
}

impl Weight {
    /// The matrix that is packed, or will be, at `offset` of `arena`.
    pub(crate) fn new(shape: Shape, arena: Arc<Arena>, offset: usize) -> Weight {
        Weight { shape, arena, offset, scale: 1.0 }
    }

    /// The matrix times `scale`.
    pub(crate) fn scaled(self, scale: f32) -> Weight {
        Weight { scale, ..self }
    }

    /// What its products are multiplied with.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// Format and size.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// True if products take quantised activations, false if they take f32 values.
    pub(crate) fn takes_blocks(&self) -> bool {
        self.shape.format.block_len() > 1
    }

    /// The bytes of all panels from panel `p` on.
    pub(super) fn panels_from(&self, p: usize) -> &[u8] {
        let (bytes, panels) = (self.shape.panel_bytes(), self.shape.panels());
        &self.arena.bytes()[self.offset + p * bytes..self.offset + panels * bytes]
    }

    /// Row `row` as f32, the same bits as decoding the file gives, times the scale.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let mut bytes = try_vec(self.shape.row_bytes(), 0, "a row of a matrix")?;
        self.shape.unpack(&self.panels_from(row / ROWS)[..self.shape.panel_bytes()], row % ROWS, &mut bytes);
        self.shape.format.decode(&bytes, out)?;
        if self.scale != 1.0 {
            out.iter_mut().for_each(|x| *x *= self.scale);
        }
        Ok(())
    }
}
