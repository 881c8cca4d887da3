//! The memory of keys and values: pages of equal size from one pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;
use parking_lot::Mutex;

use super::kv::{KvShape, TILE};
use crate::error::{Error, Result};

/// The size of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PageShape {
    /// What a position is in each layer.
    pub kv: KvShape,
    /// Layers that a page holds.
    pub layers: usize,
    /// Tiles of each.
    pub tiles: usize,
}

impl PageShape {
    /// Bytes of a page; `None` on overflow.
    pub(crate) fn bytes(self) -> Option<usize> {
        self.kv.tile_bytes().checked_mul(self.tiles)?.checked_mul(self.layers)
    }

    /// Positions of a page.
    pub(crate) fn positions(self) -> usize {
        self.tiles * TILE
    }
}

/// Gives out pages, at most so many at a time. Memory is committed as it is first written, and of what comes back so many
/// are kept for the next that asks.
#[derive(Debug)]
pub(crate) struct KvPool {
    shape: PageShape,
    page_bytes: usize,
    max_pages: usize,
    kept: usize,
    free: Mutex<Vec<MmapMut>>,
    used: AtomicUsize,
    peak: AtomicUsize,
    held: AtomicUsize,
    shared: AtomicUsize,
}

impl KvPool {
    /// A pool of at most `max_pages`, without any yet, that keeps up to `kept` which nobody uses.
    pub(crate) fn new(shape: PageShape, max_pages: usize, kept: usize) -> Result<Arc<KvPool>> {
        shape.kv.check()?;
        let page_bytes = shape.bytes().ok_or_else(|| {
            Error::out_of_memory(format!("{} positions of keys and values cannot be had", shape.positions()))
                .with("positions", shape.positions())
        })?;
        let [used, peak, held, shared] = [const { AtomicUsize::new(0) }; 4];
        let free = Mutex::new(Vec::new());
        Ok(Arc::new(KvPool { shape, page_bytes, max_pages, kept, free, used, peak, held, shared }))
    }

    /// The size of its pages.
    pub(crate) fn shape(&self) -> PageShape {
        self.shape
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// How many pages there may be.
    pub(crate) fn max_pages(&self) -> usize {
        self.max_pages
    }

    /// How many are in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many of them somebody holds (see [`Held`]).
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many of them more than one holds.
    pub(crate) fn shared(&self) -> usize {
        // Who lets go of a page may be counted before the one that it was shared with.
        (self.shared.load(Ordering::Relaxed) as isize).max(0) as usize
    }

    /// The most that were in use at a time.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// A page, whose content is not specified; `None` if all are in use.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Option<KvPage>> {
        let more = |used: usize| (used < self.max_pages).then_some(used + 1);
        let Ok(before) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) else { return Ok(None) };
        // From here on a page's drop gives it back.
        let mut page = KvPage { memory: self.free.lock().pop(), pool: Arc::clone(self), holders: AtomicUsize::new(0) };
        self.peak.fetch_max(before + 1, Ordering::Relaxed);
        if page.memory.is_none() {
            let memory = MmapMut::map_anon(self.page_bytes.max(1)).map_err(|_| {
                Error::out_of_memory(format!("{} bytes of keys and values cannot be had", self.page_bytes))
                    .with("bytes", self.page_bytes)
            })?;
            #[cfg(target_os = "linux")]
            // Only a wish: a long context is read with fewer page walks.
            let _ = memory.advise(memmap2::Advice::HugePage);
            page.memory = Some(memory);
        }
        Ok(Some(page))
    }
}

/// Keys and values of some positions in some layers. It goes back to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct KvPage {
    /// Always there but inside of `take` and `drop`.
    memory: Option<MmapMut>,
    pool: Arc<KvPool>,
    holders: AtomicUsize,
}

/// A sequence's hold on a page. Clones hold it too, and what several hold cannot be written to.
#[derive(Debug)]
pub(crate) struct Held(Arc<KvPage>);

impl Held {
    /// A hold on a page, which others may know too.
    pub(crate) fn new(page: Arc<KvPage>) -> Held {
        match page.holders.fetch_add(1, Ordering::Relaxed) {
            0 => page.pool.held.fetch_add(1, Ordering::Relaxed),
            1 => page.pool.shared.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        Held(page)
    }

    /// The page, if nobody else knows it.
    pub(crate) fn get_mut(&mut self) -> Option<&mut KvPage> {
        Arc::get_mut(&mut self.0)
    }

    /// The page, to be known and not held.
    pub(crate) fn page(&self) -> &Arc<KvPage> {
        &self.0
    }
}

impl Clone for Held {
    fn clone(&self) -> Held {
        Held::new(Arc::clone(&self.0))
    }
}

impl std::ops::Deref for Held {
    type Target = KvPage;

    fn deref(&self) -> &KvPage {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.0.holders.fetch_sub(1, Ordering::Relaxed) {
            1 => self.0.pool.held.fetch_sub(1, Ordering::Relaxed),
            2 => self.0.pool.shared.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

impl KvPage {
    fn bytes(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }

    /// The bytes of a tile of a layer.
    #[inline(always)]
    pub(crate) fn tile(&self, layer: usize, tile: usize) -> &[u8] {
        let PageShape { kv, layers, .. } = self.pool.shape;
        let bytes = kv.tile_bytes();
        &self.bytes()[(tile * layers + layer) * bytes..][..bytes]
    }

    /// The tiles of a layer.
    pub(crate) fn tiles_mut(&mut self, layer: usize) -> impl Iterator<Item = &mut [u8]> {
        let PageShape { kv, layers, .. } = self.pool.shape;
        let memory = self.memory.as_deref_mut().unwrap_or_default();
        memory.chunks_exact_mut(kv.tile_bytes().max(1)).skip(layer).step_by(layers.max(1))
    }

    /// Takes over the first `tiles` tiles of each layer of another page of the pool.
    pub(crate) fn copy_from(&mut self, other: &KvPage, tiles: usize) {
        let PageShape { kv, layers, tiles: all } = self.pool.shape;
        let n = tiles.min(all) * layers * kv.tile_bytes();
        if let Some(memory) = self.memory.as_deref_mut() {
            memory[..n].copy_from_slice(&other.bytes()[..n]);
        }
    }
}

impl Drop for KvPage {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock();
        if free.len() < self.pool.kept {
            free.extend(self.memory.take());
        }
        drop(free);
        self.pool.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::KvType;

    #[test]
    fn a_page_fills_from_its_beginning() {
        let kv = KvShape { heads: 2, width: 32, value_width: 32, kv_type: KvType::Q8_0 };
        let (layers, tiles) = (3, 4);
        let mut page = KvPool::new(PageShape { kv, layers, tiles }, 1, 1).unwrap().take().unwrap().unwrap();
        for layer in 0..layers {
            assert_eq!(page.tiles_mut(layer).count(), tiles);
            for (tile, bytes) in page.tiles_mut(layer).enumerate() {
                bytes.fill((10 * tile + layer) as u8);
            }
        }
        // Positions that come later lie behind those that come first, whatever the layer.
        let filled = page.bytes().chunks_exact(kv.tile_bytes()).map(|tile| usize::from(tile[0])).collect::<Vec<_>>();
        assert_eq!(filled, [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]);
        for (layer, tile) in (0..layers).flat_map(|layer| (0..tiles).map(move |tile| (layer, tile))) {
            assert!(page.tile(layer, tile).iter().all(|byte| usize::from(*byte) == 10 * tile + layer));
        }
    }

    #[test]
    fn a_pool_keeps_as_much_as_it_was_told() {
        for (max_pages, kept) in [(8, 5), (usize::MAX, 1), (usize::MAX, 0)] {
            let kv = KvShape { heads: 1, width: 32, value_width: 32, kv_type: KvType::F16 };
            let pool = KvPool::new(PageShape { kv, layers: 1, tiles: 1 }, max_pages, kept).unwrap();
            let pages: Vec<KvPage> = (0..5).map(|_| pool.take().unwrap().unwrap()).collect();
            drop(pages);
            assert_eq!((pool.free.lock().len(), pool.used(), pool.peak()), (kept, 0, 5));
        }
    }
}
