//! Keys and values of past positions.
//!
//! There is one kind of cache, `Cache`: a list of pages for each group of layers. What the kinds of the C API differ in
//! is how many pages there are and who shares them:
//!
//! | kind | pages |
//! |---|---|
//! | contiguous | one, with room for the whole context |
//! | sliding | layers with a window have one that is a ring, others one with room for the whole context |
//! | paged | small ones, taken from a common pool as positions come |
//!
//! A page that several sequences hold is never written to: who wants to gets a copy first (copy-on-write), of any kind.
//!
//! | file | content |
//! |---|---|
//! | `prefix.rs` | full pages by the tokens that lead to them, so that sequences with a common start share it |
//! | `saved.rs` | what a saved session keeps of a cache |
//! | `paged.rs` | pages and sequences as an object of its own, for other engines |

mod paged;
mod prefix;
mod saved;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::device::{Held, KvPage, KvPool, KvShape, KvTarget, KvType, KvView, PageShape, Places, TILE};
use crate::error::{Error, Result, try_collect};
use prefix::Index;

pub(crate) use paged::page_positions;
pub use paged::{AttentionOptions, PagedCache, PagedOptions, PagedStats, SequenceId};

/// What a query sees of the positions before it: all, or the last `window` and the first `pinned`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) struct Span {
    pub window: Option<usize>,
    pub pinned: usize,
}

/// A pool of pages that sequences share.
#[derive(Debug)]
pub(crate) struct Pages {
    pool: Arc<KvPool>,
    /// Full pages are known by their tokens.
    indexed: bool,
    index: Mutex<Index>,
    pub counts: Counts,
}

/// What happened in a pool so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub forks: AtomicU64,
    pub copies: AtomicU64,
    pub prefix_hits: AtomicU64,
    pub evictions: AtomicU64,
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Pages {
    /// A pool of at most `max_pages` pages that keeps up to `kept` which nobody uses. They are found by their prefix if they
    /// are to be `indexed`.
    pub(crate) fn new(shape: PageShape, max_pages: usize, kept: usize, indexed: bool) -> Result<Arc<Pages>> {
        let pool = KvPool::new(shape, max_pages, kept)?;
        Ok(Arc::new(Pages { pool, indexed, index: Mutex::new(Index::default()), counts: Counts::default() }))
    }

    /// A page of unspecified content. Pages that only the index holds make room for it.
    fn take(&self) -> Result<KvPage> {
        loop {
            if let Some(page) = self.pool.take()? {
                return Ok(page);
            }
            if !self.index.lock().evict() {
                let pages = self.pool.max_pages();
                let message = format!("all {pages} pages of the key/value cache are in use");
                return Err(Error::cache_full(message).with("pages", pages));
            }
            count(&self.counts.evictions, 1);
        }
    }

    /// If only the index knows a page beside one who holds it, the index forgets it, and the result is true.
    fn give_over(&self, page: &Held) -> bool {
        let forgotten = self.index.lock().forget(page.page());
        count(&self.counts.evictions, forgotten);
        forgotten > 0
    }

    pub(crate) fn pool(&self) -> &Arc<KvPool> {
        &self.pool
    }
}

/// How the layers of a sequence are kept.
#[derive(Debug)]
struct Layout {
    /// The group of a layer, and which of the group's layers it is.
    of_layer: Vec<(usize, usize)>,
    spans: Vec<Span>,
    groups: Vec<GroupLayout>,
    /// Positions there is room for at most.
    capacity: usize,
}

#[derive(Debug)]
struct GroupLayout {
    pages: Arc<Pages>,
    places: Places,
    growth: Growth,
}

/// How a group's pages grow with its positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// One page that has room for all.
    Fixed,
    /// One page of which the first tiles are pinned and the others a ring of so many positions, for layers whose window
    /// is `window`.
    Ring { positions: usize, window: usize },
    /// A page more when the last is full.
    Paged,
}

/// What a sequence keeps of which layers.
pub(crate) struct CacheShape<'a> {
    pub kv: KvShape,
    /// What each layer sees.
    pub spans: &'a [Span],
    /// Positions there is to be room for.
    pub capacity: usize,
}

/// Which positions a sequence keeps, and how. Results are the same bits, whichever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum CacheKind {
    /// All positions, in one piece of memory that is committed as they come.
    #[default]
    Contiguous,
    /// Of layers with a window only the positions within it, in a ring: their memory does not grow with the length.
    /// Forgetting more of the last tokens than were processed at once makes all be processed again.
    Sliding,
    /// All positions, in pages that are taken as they come, and shared by forks until one writes.
    Paged,
}

/// Layers that grow in the same way.
struct Group {
    growth: Growth,
    pinned: usize,
    layers: usize,
    tiles: usize,
}

impl CacheShape<'_> {
    /// The groups, and for each layer its group and which of the group's layers it is.
    fn groups(&self, kind: CacheKind, chunk: usize, page_tiles: usize) -> (Vec<Group>, Vec<(usize, usize)>) {
        let all = self.capacity.div_ceil(TILE);
        let of_layer = |span: &Span| match (kind, span.window) {
            (CacheKind::Paged, _) => (Growth::Paged, 0, page_tiles),
            (CacheKind::Sliding, Some(window)) => {
                let pinned = span.pinned.div_ceil(TILE);
                // A chunk may begin at the end of a tile, and less than a tile takes one: a ring has whole tiles.
                let ring = (window - 1).max(TILE - 1).saturating_add(chunk.max(TILE)).div_ceil(TILE);
                if pinned.saturating_add(ring) >= all {
                    return (Growth::Fixed, 0, all);
                }
                (Growth::Ring { positions: ring * TILE, window }, pinned, pinned + ring)
            }
            _ => (Growth::Fixed, 0, all),
        };
        let mut groups: Vec<Group> = Vec::new();
        let mut layers = Vec::with_capacity(self.spans.len());
        for (growth, pinned, tiles) in self.spans.iter().map(of_layer) {
            let same = |group: &Group| (group.growth, group.pinned) == (growth, pinned);
            let g = groups.iter().position(same).unwrap_or(groups.len());
            if g == groups.len() {
                groups.push(Group { growth, pinned, layers: 0, tiles });
            }
            layers.push((g, groups[g].layers));
            groups[g].layers += 1;
        }
        (groups, layers)
    }
}

/// The keys and values of one sequence.
#[derive(Debug)]
pub(crate) struct Cache {
    layout: Arc<Layout>,
    groups: Vec<Vec<Held>>,
    length: usize,
    /// The most positions that were written since it was empty: a ring has forgotten others for them.
    written: usize,
    /// Of a paged sequence, the keys of its full pages that the index has.
    chain: Vec<u64>,
    /// Its keys and values are not those that its tokens alone lead to.
    altered: bool,
    /// They came from a file, whose word nobody else has to take for it.
    restored: bool,
}

impl Cache {
    /// Bytes of a cache whose positions are all in use; `None` on overflow. `chunk` and `page_size` are as for `new`.
    pub(crate) fn bytes(
        kind: CacheKind,
        shape: &CacheShape<'_>,
        chunk: usize,
        page_size: usize,
    ) -> Result<Option<usize>> {
        let (groups, _) = shape.groups(kind, chunk, paged::page_tiles(page_size)?);
        let bytes = |group: &Group| {
            let page = PageShape { kv: shape.kv, layers: group.layers, tiles: group.tiles };
            let pages = if group.growth == Growth::Paged { shape.capacity.div_ceil(page.positions()) } else { 1 };
            page.bytes()?.checked_mul(pages)
        };
        Ok(groups.iter().try_fold(0usize, |sum, group| sum.checked_add(bytes(group)?)))
    }

    /// A cache with pages of its own. Up to `chunk` tokens are written at once; `page_size` is that of a paged one.
    pub(crate) fn new(kind: CacheKind, shape: &CacheShape<'_>, chunk: usize, page_size: usize) -> Result<Cache> {
        let (groups, of_layer) = shape.groups(kind, chunk, paged::page_tiles(page_size)?);
        let (mut layouts, mut pages) = (Vec::with_capacity(groups.len()), Vec::with_capacity(groups.len()));
        for Group { growth, pinned, layers, tiles } in groups {
            // There is no limit but the capacity: a fork has pages of the same pool. Many may be in use for a while only, as
            // those of a beam search, and a page with room for all is as large as the cache.
            let kept = usize::from(growth == Growth::Paged);
            let pool = Pages::new(PageShape { kv: shape.kv, layers, tiles }, usize::MAX, kept, false)?;
            let own = if growth == Growth::Paged { None } else { Some(Held::new(Arc::new(pool.take()?))) };
            pages.push(own.into_iter().collect());
            layouts.push(GroupLayout { pages: pool, places: Places { tiles, pinned }, growth });
        }
        let (spans, capacity) = (shape.spans.to_vec(), shape.capacity);
        let layout = Arc::new(Layout { of_layer, spans, groups: layouts, capacity });
        Ok(Cache::with_groups(layout, pages))
    }

    /// A cache that takes its pages from a pool.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(crate) fn in_pages(pages: &Arc<Pages>, spans: Vec<Span>, capacity: usize) -> Result<Cache> {
        let places = Places { tiles: pages.pool.shape().tiles, pinned: 0 };
        let group = GroupLayout { pages: Arc::clone(pages), places, growth: Growth::Paged };
        let of_layer = try_collect((0..spans.len()).map(|l| (0, l)), "the layers of a sequence")?;
        let layout = Arc::new(Layout { of_layer, spans, groups: vec![group], capacity });
        Ok(Cache::with_groups(layout, vec![Vec::new()]))
    }

    /// An empty cache that holds these pages.
    fn with_groups(layout: Arc<Layout>, groups: Vec<Vec<Held>>) -> Cache {
        Cache { layout, groups, length: 0, written: 0, chain: Vec::new(), altered: false, restored: false }
    }

    /// Positions held.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Positions there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.layout.capacity
    }

    /// Pages held.
    pub(crate) fn pages(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// What tells the pages held from others.
    pub(crate) fn page_ids(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().flatten().map(|page| Arc::as_ptr(page.page()).addr())
    }

    /// What a layer's queries see.
    pub(crate) fn span(&self, layer: usize) -> Span {
        self.layout.spans[layer]
    }

    /// Makes room for writing the positions `range`, of which those before are held: pages that lack are taken and those
    /// that others hold too are copied.
    ///
    /// # Errors
    /// `CacheFull` if there is no page left, `OutOfMemory`; nothing has changed then.
    pub(crate) fn reserve(&mut self, range: Range<usize>) -> Result<()> {
        if range.end > self.layout.capacity {
            let capacity = self.layout.capacity;
            let message = format!("{} positions do not fit into a cache of {capacity}", range.end);
            return Err(Error::cache_full(message).with("length", range.start).with("context_length", capacity));
        }
        match self.make_room(range.clone()) {
            // Without a page for a copy there is still the page itself.
            Err(Error::CacheFull(_)) if self.give_over(&range) => self.make_room(range),
            result => result,
        }
    }

    /// Has the index forget pages of `range` that only it knows beside this sequence; false if there are none.
    fn give_over(&self, range: &Range<usize>) -> bool {
        let mut any = false;
        for (layout, pages) in self.layout.groups.iter().zip(&self.groups) {
            for page in pages.iter().skip(range.start / (layout.places.tiles * TILE)) {
                any |= layout.pages.give_over(page);
            }
        }
        any
    }

    fn make_room(&mut self, range: Range<usize>) -> Result<()> {
        let (mut ready, mut copies) = (Vec::new(), Vec::new());
        for (g, (layout, pages)) in self.layout.groups.iter().zip(&mut self.groups).enumerate() {
            let positions = layout.places.tiles * TILE;
            let (first, end) = match layout.growth {
                Growth::Paged => (range.start / positions, range.end.div_ceil(positions)),
                _ => (0, 1),
            };
            for i in first..end {
                let page = match pages.get_mut(i) {
                    Some(page) => {
                        if page.get_mut().is_some() {
                            continue;
                        }
                        let mut copy = layout.pages.take()?;
                        // Of a ring, once it is full, all: more was written than it has room for.
                        let written = self.written.max(range.start).saturating_sub(i * positions);
                        copy.copy_from(page, written.div_ceil(TILE));
                        copies.push(&layout.pages.counts.copies);
                        copy
                    }
                    None => layout.pages.take()?,
                };
                ready.push((g, i, Held::new(Arc::new(page))));
            }
        }
        copies.into_iter().for_each(|copies| count(copies, 1));
        for (g, i, page) in ready {
            let pages = &mut self.groups[g];
            if i < pages.len() { pages[i] = page } else { pages.push(page) }
        }
        Ok(())
    }

    /// Where `rows` of a layer's new keys and values go: to the positions from `position` on, which are reserved.
    pub(crate) fn target(&mut self, layer: usize, position: usize, rows: Range<usize>) -> KvTarget<'_> {
        let (group, layer) = self.layout.of_layer[layer];
        let GroupLayout { pages, places, .. } = &self.layout.groups[group];
        let (shape, places) = (pages.pool.shape().kv, *places);
        self.written = self.written.max(position + rows.len());
        KvTarget { shape, layer, places, pages: &mut self.groups[group], position, rows }
    }

    /// A layer's keys and values, the uncommitted ones included.
    pub(crate) fn view(&self, layer: usize) -> KvView<'_> {
        let (group, layer) = self.layout.of_layer[layer];
        let GroupLayout { pages, places, .. } = &self.layout.groups[group];
        KvView { shape: pages.pool.shape().kv, layer, places: *places, pages: &self.groups[group] }
    }

    /// Takes `count` positions that were written for every layer as held.
    pub(crate) fn commit(&mut self, count: usize) {
        self.length += count;
        debug_assert!(self.length <= self.written);
    }

    /// Forgets all positions from `length` on, those that are not committed too, and more if a ring lacks what those
    /// before need: gives how many it holds.
    pub(crate) fn truncate(&mut self, length: usize) -> usize {
        let length = length.min(self.length);
        self.length = if self.keeps(length, self.written) { length } else { 0 };
        if self.length == 0 {
            (self.written, self.altered, self.restored) = (0, false, false);
        }
        self.trim();
        self.length
    }

    /// True if no ring lacks what `length` positions need once `written` were written.
    pub(crate) fn keeps(&self, length: usize, written: usize) -> bool {
        self.layout.groups.iter().all(|group| match group.growth {
            Growth::Ring { positions, window } => (length + 1).saturating_sub(window) + positions >= written,
            _ => true,
        })
    }

    /// Gives back pages that hold no committed position.
    fn trim(&mut self) {
        for (layout, pages) in self.layout.groups.iter().zip(&mut self.groups) {
            if layout.growth == Growth::Paged {
                let positions = layout.places.tiles * TILE;
                pages.truncate(self.length.div_ceil(positions));
                self.chain.truncate(self.length / positions);
                self.written = self.length;
            }
        }
    }

    /// A cache that holds the same positions. Both share the pages until one of them writes.
    pub(crate) fn fork(&self) -> Cache {
        for layout in &self.layout.groups {
            count(&layout.pages.counts.forks, 1);
        }
        let (layout, groups, chain) = (Arc::clone(&self.layout), self.groups.clone(), self.chain.clone());
        let mut fork = Cache { layout, groups, chain, ..*self };
        fork.trim();
        fork
    }

    /// An empty cache of the same kind, with pages of the same pools.
    pub(crate) fn empty(&self) -> Result<Cache> {
        let mut groups = Vec::with_capacity(self.layout.groups.len());
        for layout in &self.layout.groups {
            let own =
                if layout.growth == Growth::Paged { None } else { Some(Held::new(Arc::new(layout.pages.take()?))) };
            groups.push(own.into_iter().collect());
        }
        Ok(Cache::with_groups(Arc::clone(&self.layout), groups))
    }

    /// Layers.
    pub(crate) fn layers(&self) -> usize {
        self.layout.of_layer.len()
    }

    /// The number type.
    pub(crate) fn kv_type(&self) -> KvType {
        self.layout.groups.first().map(|group| group.pages.pool.shape().kv.kv_type).unwrap_or_default()
    }

    /// True if keys and values were put there that the tokens alone do not lead to.
    pub(crate) fn altered(&self) -> bool {
        self.altered
    }

    /// Says that keys and values are not what the tokens lead to: nobody else may take them over.
    pub(crate) fn set_altered(&mut self, altered: bool) {
        self.altered = altered;
    }

    /// The pool of a paged cache whose pages are found by their prefix, and the positions of a page.
    fn indexed(&self) -> Option<(&Arc<Pages>, usize)> {
        let group = self.layout.groups.first().filter(|group| group.pages.indexed)?;
        Some((&group.pages, group.places.tiles * TILE))
    }

    /// Of an empty cache: takes over pages that hold the first of `tokens`, if its pool knows some; gives how many tokens it
    /// holds then. `salt` stands for everything else that keys and values depend on.
    pub(crate) fn adopt(&mut self, salt: u64, tokens: &[u32]) -> usize {
        debug_assert_eq!(self.length, 0);
        let Some((pages, positions)) = self.indexed() else { return 0 };
        let (found, chain) = pages.index.lock().find(salt, tokens.chunks_exact(positions));
        self.length = found.len() * positions;
        (self.written, self.chain) = (self.length, chain);
        self.groups = vec![found.into_iter().map(Held::new).collect()];
        self.length
    }

    /// Counts the pages that the last `adopt` has taken over.
    pub(crate) fn count_hits(&self) {
        if let Some((pages, _)) = self.indexed() {
            count(&pages.counts.prefix_hits, self.chain.len());
        }
    }

    /// Lets others find the full pages of a paged cache, which holds the first of `tokens`. Where another sequence has
    /// computed the same, its page takes the place of this one's.
    pub(crate) fn publish(&mut self, salt: u64, tokens: &[u32]) {
        let Some((pages, positions)) = self.indexed() else { return };
        let full = self.length / positions;
        if self.altered || self.restored || self.chain.len() >= full {
            return;
        }
        let pages = Arc::clone(pages);
        let mut index = pages.index.lock();
        let held = tokens.chunks_exact(positions).take(full).skip(self.chain.len());
        for (i, tokens) in (self.chain.len()..).zip(held) {
            let parent = self.chain.last().copied();
            let page = &mut self.groups[0][i];
            let Some((key, known)) = index.insert(salt, parent, tokens, page.page()) else { break };
            if let Some(known) = known {
                *page = Held::new(known);
            }
            self.chain.push(key);
        }
    }
}
