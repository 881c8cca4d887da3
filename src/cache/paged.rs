//! Pages and sequences as an object of its own, for engines that have their own models.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::{Cache, Pages, Span};
use crate::device::{
    Act, Attention, Buffer, Device, Isa, KvQuery, KvShape, KvType, KvView, PageShape, Precision, TILE, Threads,
};
use crate::error::{Error, Result, first_of, try_vec};
use crate::numeric::FloatEnvironment;

/// Positions of a page if the options do not say.
const DEFAULT_PAGE: usize = 16;

/// What a paged cache holds.
#[derive(Clone, Default)]
pub struct PagedOptions {
    /// L.
    pub layers: usize,
    /// K.
    pub kv_heads: usize,
    /// E.
    pub head_dim: usize,
    /// Pages there may be.
    pub max_pages: usize,
    /// Positions of a page, a multiple of 16; 0: 16.
    pub page_size: usize,
    /// The number type.
    pub kv_type: KvType,
    /// The pool to compute on; a new one with a thread for each physical core if `None`.
    pub threads: Option<Threads>,
    /// The instruction set; `None`: [`Isa::choose`].
    pub isa: Option<Isa>,
}

/// A sequence of a paged cache. Numbers are not used twice.
pub type SequenceId = u64;

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionOptions {
    /// H, a multiple of K: query head h reads key/value head h * K / H.
    pub heads: usize,
    /// What products of queries and keys are multiplied by; `None`: 1 / sqrt(E).
    pub scale: Option<f32>,
    /// Scores become cap * tanh(score / cap).
    pub softcap: Option<f32>,
    /// A query at position p sees the positions p - window + 1 to p.
    pub window: Option<usize>,
}

/// The state of a paged cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PagedStats {
    /// Pages there may be.
    pub pages_total: u64,
    /// Pages that sequences hold.
    pub pages_used: u64,
    /// Pages that more than one sequence holds.
    pub pages_shared: u64,
    /// Pages that no sequence holds, kept for their prefix; they make room when it is needed.
    pub pages_idle: u64,
    /// The most pages that were in use at a time, idle ones included.
    pub pages_peak: u64,
    /// Committed positions of all sequences, one that several share counted for each.
    pub positions: u64,
    /// Sequences.
    pub sequences: u64,
    /// Bytes of the pages in use.
    pub bytes: u64,
    /// Sequences that were forked.
    pub forks: u64,
    /// Pages that were copied because one of several holders wrote.
    pub copies: u64,
    /// Pages that were found by their prefix.
    pub prefix_hits: u64,
    /// Idle pages that made room.
    pub evictions: u64,
}

/// Layers of a cache at most, so that a sequence without positions is small.
const MOST_LAYERS: usize = 1 << 16;

/// Key/value pages that sequences share (Kwon et al., "Efficient Memory Management for Large Language Model Serving with
/// PagedAttention", 2023). Sequences can be used from several threads, each by one at a time.
pub struct PagedCache {
    pages: Arc<Pages>,
    layers: usize,
    device: Device,
    sequences: RwLock<HashMap<SequenceId, Arc<Entry>>>,
    next: AtomicU64,
    /// As many as there were calls at a time.
    rooms: Mutex<Vec<Room>>,
}

/// The memory of a call.
#[derive(Default)]
struct Room {
    buffers: [Buffer; 2],
    out: Act,
}

struct Entry {
    /// Committed positions, to be read while the sequence is in use.
    length: AtomicUsize,
    sequence: Mutex<Sequence>,
}

struct Sequence {
    cache: Cache,
    /// Positions that each layer has. A layer never has more than the one before.
    written: Vec<usize>,
}

impl Sequence {
    fn new(cache: Cache, layers: usize) -> Result<Sequence> {
        let written = try_vec(layers, cache.length(), "the layers of a sequence")?;
        Ok(Sequence { written, cache })
    }
}

fn unknown(id: SequenceId) -> Error {
    Error::not_found(format!("there is no sequence {id}: it was removed, or never made")).with("sequence", id)
}

fn in_use(id: SequenceId) -> Error {
    Error::busy(format!("sequence {id} is in use by another call")).with("sequence", id)
}

fn positive(name: &'static str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::invalid_argument(format!("{name} is 0")).with("argument", name));
    }
    Ok(())
}

/// The positions of a page that were asked for, as tiles.
pub(super) fn page_tiles(page_size: usize) -> Result<usize> {
    let positions = if page_size == 0 { DEFAULT_PAGE } else { page_size };
    if !positions.is_multiple_of(TILE) {
        let message = format!("pages of {positions} positions were asked for, they must be a multiple of {TILE}");
        return Err(Error::invalid_argument(message).with("argument", "page_size").with("found", positions));
    }
    Ok(positions / TILE)
}

/// The positions of a page that were asked for.
pub(crate) fn page_positions(page_size: usize) -> Result<usize> {
    Ok(page_tiles(page_size)? * TILE)
}

impl PagedCache {
    /// An empty cache.
    ///
    /// # Errors
    /// `InvalidArgument` names an option that is 0, more than 65,536 layers, or a page size that is no multiple of 16;
    /// `Unsupported` for an instruction set that the CPU lacks or a head width that the number type cannot have;
    /// `OutOfMemory`.
    pub fn new(options: &PagedOptions) -> Result<PagedCache> {
        positive("num_layers", options.layers)?;
        if options.layers > MOST_LAYERS {
            let message = format!("num_layers is {}, at most {MOST_LAYERS} can be had", options.layers);
            return Err(Error::invalid_argument(message).with("argument", "num_layers").with("expected", MOST_LAYERS));
        }
        positive("num_kv_heads", options.kv_heads)?;
        positive("head_dim", options.head_dim)?;
        let (heads, width) = (options.kv_heads, options.head_dim);
        let kv = KvShape { heads, width, value_width: width, kv_type: options.kv_type };
        // The bytes of a tile, in the widest type with padding.
        if width.checked_add(TILE).and_then(|n| n.checked_mul(TILE * 8)?.checked_mul(heads)).is_none() {
            return Err(Error::out_of_memory(format!("{heads} heads of {width} cannot be had")));
        }
        PagedCache::with_shape(kv, options)
    }

    /// As `new`, for heads whose keys and values differ in width.
    pub(crate) fn with_shape(kv: KvShape, options: &PagedOptions) -> Result<PagedCache> {
        positive("max_pages", options.max_pages)?;
        let (layers, tiles) = (options.layers, page_tiles(options.page_size)?);
        let pages = Pages::new(PageShape { kv, layers, tiles }, options.max_pages, options.max_pages, true)?;
        let device = Device::of(options.threads.as_ref(), options.isa)?;
        let (sequences, next, rooms) = (RwLock::default(), AtomicU64::new(1), Mutex::default());
        Ok(PagedCache { pages, layers, device, sequences, next, rooms })
    }

    /// The pool.
    pub(crate) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// Positions of a page.
    pub(crate) fn page_positions(&self) -> usize {
        self.pages.pool().shape().positions()
    }

    /// L.
    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    /// K.
    pub fn kv_heads(&self) -> usize {
        self.shape().heads
    }

    /// Numbers of a position's key in a layer: K * E.
    pub fn position_width(&self) -> usize {
        self.shape().heads * self.shape().width
    }

    /// What a position is in a layer.
    pub(crate) fn shape(&self) -> KvShape {
        self.pages.pool().shape().kv
    }

    /// Calls `f` with a sequence, unless another call does.
    fn with<T>(&self, id: SequenceId, f: impl FnOnce(&mut Sequence) -> Result<T>) -> Result<T> {
        let entry = self.sequences.read().get(&id).cloned().ok_or_else(|| unknown(id))?;
        let mut sequence = entry.sequence.try_lock().ok_or_else(|| in_use(id))?;
        let result = f(&mut sequence);
        entry.length.store(sequence.cache.length(), Ordering::Relaxed);
        result
    }

    /// As `with`, with room for what comes in and goes out.
    fn in_room<T>(&self, id: SequenceId, f: impl FnOnce(&mut Sequence, &mut Room) -> Result<T>) -> Result<T> {
        self.with(id, |sequence| {
            let mut room = self.rooms.lock().pop().unwrap_or_default();
            let result = f(sequence, &mut room);
            self.rooms.lock().push(room);
            result
        })
    }

    fn check_layer(&self, layer: usize) -> Result<()> {
        if layer < self.layers {
            return Ok(());
        }
        let layers = self.layers;
        let message = format!("layer {layer} was asked for, there are {layers}");
        Err(Error::invalid_argument(message).with("layer", layer).with("num_layers", layers))
    }

    fn insert(&self, cache: Cache) -> Result<SequenceId> {
        let (length, sequence) = (AtomicUsize::new(cache.length()), Mutex::new(Sequence::new(cache, self.layers)?));
        let mut sequences = self.sequences.write();
        sequences.try_reserve(1).map_err(|_| Error::out_of_memory("there is no memory for one more sequence"))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        sequences.insert(id, Arc::new(Entry { length, sequence }));
        Ok(id)
    }

    /// A new, empty sequence.
    ///
    /// # Errors
    /// `OutOfMemory`; `Unsupported` if keys and values differ in width, as those of a model with latent attention do.
    pub fn create_sequence(&self) -> Result<SequenceId> {
        let KvShape { width, value_width, .. } = self.shape();
        if width != value_width {
            let message =
                format!("keys of {width} and values of {value_width} numbers are for sessions and engines only");
            return Err(Error::unsupported(message).with("expected", width).with("found", value_width));
        }
        let spans = try_vec(self.layers, Span::default(), "the layers of a sequence")?;
        self.insert(Cache::in_pages(&self.pages, spans, usize::MAX)?)
    }

    /// A new sequence with the committed positions of another. All pages are shared; who first writes to one that is
    /// shared, which can only be the last, gets a copy.
    ///
    /// # Errors
    /// `NotFound`, `Busy`, `OutOfMemory`.
    pub fn fork_sequence(&self, id: SequenceId) -> Result<SequenceId> {
        let cache = self.with(id, |sequence| Ok(sequence.cache.fork()))?;
        self.insert(cache)
    }

    /// Removes a sequence; pages that no other holds are free again.
    ///
    /// # Errors
    /// `NotFound`; `Busy` if another call uses it.
    pub fn remove_sequence(&self, id: SequenceId) -> Result<()> {
        // Nobody can lock it while the table is locked but those who already do.
        let mut sequences = self.sequences.write();
        let entry = sequences.get(&id).ok_or_else(|| unknown(id))?;
        if Arc::strong_count(entry) > 1 {
            return Err(in_use(id));
        }
        let removed = sequences.remove(&id);
        drop(sequences);
        drop(removed);
        Ok(())
    }

    /// Forgets the positions of a sequence from `length` on, in every layer.
    ///
    /// # Errors
    /// `NotFound`, `Busy`; `InvalidArgument` if it has fewer.
    pub fn truncate_sequence(&self, id: SequenceId, length: usize) -> Result<()> {
        self.with(id, |sequence| {
            let found = sequence.cache.length();
            if length > found {
                let message = format!("{length} positions are to be kept, but the sequence has {found}");
                return Err(Error::invalid_argument(message).with("expected", length).with("found", found));
            }
            sequence.cache.truncate(length);
            sequence.written.fill(length);
            Ok(())
        })
    }

    /// The committed positions of a sequence: those that every layer has.
    ///
    /// # Errors
    /// `NotFound`, `Busy`.
    pub fn sequence_length(&self, id: SequenceId) -> Result<usize> {
        self.with(id, |sequence| Ok(sequence.cache.length()))
    }

    /// Appends positions to a layer: k and v are (T, K, E). A layer can be given no positions that the layer before it
    /// does not have. Positions are committed when the last layer has them.
    ///
    /// # Errors
    /// `NotFound`, `Busy`; `InvalidArgument` for a layer there is not or numbers that are no whole positions;
    /// `FailedPrecondition` for a layer out of order; `CacheFull` if there is no page left, and `OutOfMemory`: no
    /// sequence has changed then.
    pub fn append_tokens(&self, id: SequenceId, layer: usize, k: &[f32], v: &[f32]) -> Result<()> {
        self.check_layer(layer)?;
        let shape = self.shape();
        let row = shape.heads * shape.width;
        if k.len() != v.len() || !k.len().is_multiple_of(row) {
            let message = format!("keys of {} and values of {} numbers are no positions of {row}", k.len(), v.len());
            return Err(Error::invalid_argument(message).with("expected", row).with("found", k.len()));
        }
        let count = k.len() / row;
        let _environment = FloatEnvironment::enter();
        self.in_room(id, |sequence, room| {
            let start = sequence.written[layer];
            let before = layer.checked_sub(1).map_or(usize::MAX, |before| sequence.written[before]);
            if count > before - start {
                let message = format!(
                    "layer {layer} would have {} positions, and the layer before it has {before}",
                    start.saturating_add(count)
                );
                return Err(Error::failed_precondition(message).with("layer", layer).with("found", before));
            }
            if count == 0 {
                return Ok(());
            }
            let [keys, values] = &mut room.buffers;
            for (buffer, x) in [(&mut *keys, k), (&mut *values, v)] {
                buffer.reset(count, row)?;
                buffer.data_mut().copy_from_slice(x);
            }
            sequence.cache.reserve(start..start.saturating_add(count))?;
            let target = sequence.cache.target(layer, start, 0..count);
            self.device.kv_append(vec![target], keys, values)?;
            sequence.written[layer] = start + count;
            let committed = sequence.written[self.layers - 1] - sequence.cache.length();
            sequence.cache.commit(committed);
            Ok(())
        })
    }

    /// The keys of a position that the layer has, (K,E), as they are stored.
    ///
    /// # Errors
    /// `NotFound`, `Busy`; `InvalidArgument` for a layer or position there is not; `BufferTooSmall`.
    pub fn get_k(&self, id: SequenceId, layer: usize, position: usize, out: &mut [f32]) -> Result<()> {
        self.read(id, layer, position, out, |view, head, out| view.read_key(head, position, out))
    }

    /// As [`get_k`](Self::get_k), the values.
    ///
    /// # Errors
    /// As `get_k`.
    pub fn get_v(&self, id: SequenceId, layer: usize, position: usize, out: &mut [f32]) -> Result<()> {
        self.read(id, layer, position, out, |view, head, out| view.read_value(head, position, out))
    }

    fn read(
        &self,
        id: SequenceId,
        layer: usize,
        position: usize,
        out: &mut [f32],
        read: impl Fn(&KvView<'_>, usize, &mut [f32]),
    ) -> Result<()> {
        self.check_layer(layer)?;
        let KvShape { heads, width, .. } = self.shape();
        let out = first_of(out, heads * width, format_args!("a position is {} numbers", heads * width))?;
        self.with(id, |sequence| {
            let length = sequence.written[layer];
            if position >= length {
                let message = format!("position {position} was asked for, layer {layer} has {length}");
                return Err(Error::invalid_argument(message).with("position", position).with("length", length));
            }
            let view = sequence.cache.view(layer);
            out.chunks_exact_mut(width).enumerate().for_each(|(head, out)| read(&view, head, out));
            Ok(())
        })
    }

    /// The attention of the last T positions that the layer has: out = softmax(q k^T * scale) v, each query over the
    /// positions up to its own. q and out are (T, H, E).
    ///
    /// # Errors
    /// `NotFound`, `Busy`; `InvalidArgument` for a layer there is not, heads that are no multiple of K, and numbers that
    /// are no whole positions or more than the layer has; `BufferTooSmall`; `OutOfMemory`.
    pub fn attention(
        &self,
        id: SequenceId,
        layer: usize,
        q: &[f32],
        options: &AttentionOptions,
        out: &mut [f32],
    ) -> Result<()> {
        self.check_layer(layer)?;
        let KvShape { heads: kv_heads, width, .. } = self.shape();
        let AttentionOptions { heads, scale, softcap, window } = *options;
        if window == Some(0) {
            return Err(Error::invalid_argument("a window of 0 positions sees nothing").with("argument", "window"));
        }
        if heads == 0 || !heads.is_multiple_of(kv_heads) {
            let message = format!("{heads} query heads do not share {kv_heads} key/value heads evenly");
            return Err(Error::invalid_argument(message).with("num_heads", heads).with("num_kv_heads", kv_heads));
        }
        for (name, value) in [("scale", scale), ("softcap", softcap)] {
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(Error::invalid_argument(format!("{name} is not finite")).with("argument", name));
            }
        }
        let row = heads.saturating_mul(width);
        if !q.len().is_multiple_of(row) {
            let message = format!("{} numbers are no queries of {heads} heads of {width}", q.len());
            return Err(Error::invalid_argument(message).with("expected", row).with("found", q.len()));
        }
        let out = first_of(out, q.len(), format_args!("the result is {} numbers", q.len()))?;
        let _environment = FloatEnvironment::enter();
        self.in_room(id, |sequence, room| {
            let (count, length) = (q.len() / row, sequence.written[layer]);
            let Some(start) = length.checked_sub(count) else {
                let message = format!("{count} queries were given, layer {layer} has {length} positions");
                return Err(Error::invalid_argument(message).with("found", count).with("length", length));
            };
            if count == 0 {
                return Ok(());
            }
            let Room { buffers: [queries, _], out: sums } = room;
            queries.reset(count, row)?;
            queries.data_mut().copy_from_slice(q);
            let query = KvQuery { view: sequence.cache.view(layer), rows: 0..count, start, end: start + count };
            let op = Attention {
                heads,
                scale: scale.unwrap_or(1.0 / (width as f32).sqrt()),
                cap: softcap,
                window,
                pinned: 0,
                causal: true,
                sinks: None,
                precision: Precision::Float,
            };
            self.device.attention(queries, &[query], &op, sums)?;
            out.copy_from_slice(sums.values());
            Ok(())
        })
    }

    /// The state of the cache.
    pub fn stats(&self) -> PagedStats {
        let pool = self.pages.pool();
        let sequences = self.sequences.read();
        let (used, held, counts) = (pool.used(), pool.held(), &self.pages.counts);
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PagedStats {
            pages_total: pool.max_pages() as u64,
            pages_used: held as u64,
            pages_shared: pool.shared() as u64,
            pages_idle: used.saturating_sub(held) as u64,
            pages_peak: pool.peak() as u64,
            positions: sequences.values().map(|entry| entry.length.load(Ordering::Relaxed) as u64).sum(),
            sequences: sequences.len() as u64,
            bytes: (used as u64).saturating_mul(pool.page_bytes() as u64),
            forks: number(&counts.forks),
            copies: number(&counts.copies),
            prefix_hits: number(&counts.prefix_hits),
            evictions: number(&counts.evictions),
        }
    }
}
