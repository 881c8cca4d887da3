//! What a model asks of the cache of its keys and values.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::adapters::{AdapterList, hash_adapters};
use super::forward::Scratch;
use super::{Config, Model};
use crate::cache::{Cache, CacheKind, CacheShape, PagedCache, PagedOptions, Span};
use crate::device::{Device, KvShape, KvType};
use crate::error::{Error, Result};

/// How a sequence keeps its keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheOptions {
    /// Which positions are kept, and how.
    pub kind: CacheKind,
    /// Positions there is room for; 0: the model's own, at most 4096.
    pub context_length: usize,
    /// The number type of keys and values.
    pub kv_type: KvType,
    /// A token sees this many of the last positions, in every layer whose own window is not shorter; 0: all.
    pub window: usize,
    /// And in these layers the first so many positions, at most 256 (Xiao et al., "Efficient Streaming Language Models
    /// with Attention Sinks", 2023). Positions are counted from the start of the text all the same.
    pub sinks: usize,
    /// Positions of a page of a paged cache, a multiple of 16; 0: 16.
    pub page_size: usize,
}

/// The most attention sinks: what attention takes together.
const MAX_SINKS: usize = 256;

/// The context of a session that asks for none, if the model was trained for more.
const DEFAULT_CONTEXT: usize = 4096;

impl Config {
    /// The context of a session that asked for `asked` positions, 0 meaning the default.
    ///
    /// # Errors
    /// `InvalidArgument` if the model has learned positions, and fewer.
    pub(crate) fn session_context(&self, asked: usize) -> Result<usize> {
        let context = if asked == 0 { self.context_length.min(DEFAULT_CONTEXT) } else { asked };
        match self.learned_positions() {
            Some(n) if context > n => {
                let message = format!("a context of {context} tokens was asked for, but the model has {n} positions");
                Err(Error::invalid_argument(message).with("context_length", context).with("expected", n))
            }
            _ => Ok(context),
        }
    }

    /// The shape of a layer's cache.
    pub(crate) fn kv_shape(&self, kv_type: KvType) -> KvShape {
        KvShape { heads: self.head_count_kv, width: self.head_length, value_width: self.value_length, kv_type }
    }

    /// What each layer sees in a sequence with such a cache.
    pub(crate) fn spans(&self, cache: &CacheOptions) -> Vec<Span> {
        let span = |l| match (self.window(l), cache.window) {
            (own, 0) => Span { window: own, pinned: 0 },
            (Some(own), asked) if own <= asked => Span { window: Some(own), pinned: 0 },
            (_, asked) => Span { window: Some(asked), pinned: cache.sinks },
        };
        (0..self.layer_count).map(span).collect()
    }

    /// Calls `f` with what a cache of these options holds.
    ///
    /// # Errors
    /// `InvalidArgument` for options that do not go together, or a context beyond learned positions; `Unsupported` for
    /// head widths that the number type cannot have.
    pub(crate) fn with_cache<T>(&self, cache: &CacheOptions, f: impl FnOnce(&CacheShape<'_>) -> T) -> Result<T> {
        let CacheOptions { kind, sinks, window, .. } = *cache;
        if sinks > MAX_SINKS || sinks > 0 && window == 0 {
            let message = match window {
                0 => format!("{sinks} attention sinks were asked for without a window"),
                _ => format!("{sinks} attention sinks were asked for, there can be {MAX_SINKS}"),
            };
            return Err(Error::invalid_argument(message).with("sinks", sinks).with("window", window));
        }
        if self.encoder && (kind == CacheKind::Sliding || window > 0) {
            let message = "the model is an encoder: its tokens see the whole text";
            return Err(Error::invalid_argument(message).with("architecture", self.architecture.name));
        }
        let (kv, spans) = (self.kv_shape(cache.kv_type), self.spans(cache));
        kv.check()?;
        let capacity = self.session_context(cache.context_length)?;
        Ok(f(&CacheShape { kv, spans: &spans, capacity }))
    }
}

impl Model {
    /// Pages for sequences of this model. What `options` says of layers and heads does not count.
    ///
    /// # Errors
    /// As [`PagedCache::new`].
    pub fn paged_cache(&self, options: &PagedOptions) -> Result<PagedCache> {
        let options = PagedOptions { layers: self.config.layer_count, ..options.clone() };
        PagedCache::with_shape(self.config.kv_shape(options.kv_type), &options)
    }

    /// True if moving a key to another position is turning it.
    pub(crate) fn keys_turn(&self) -> bool {
        self.config.learned_positions().is_none() && !self.config.encoder
    }

    /// Appends the keys and values of `positions` of a cache to another one that has room for them, `by` positions
    /// further to the front than they were, `chunk` at a time.
    #[allow(clippy::too_many_arguments)] // from where to where, and what it is done with
    pub(crate) fn move_keys(
        &self,
        device: &Device,
        scratch: &mut Scratch,
        from: &Cache,
        positions: Range<usize>,
        by: usize,
        to: &mut Cache,
        chunk: usize,
    ) -> Result<()> {
        let shape = self.config.kv_shape(KvType::F32);
        let (width, value_width) = (shape.width, shape.value_width);
        let Scratch { k, v, .. } = scratch;
        let mut start = positions.start;
        while start < positions.end {
            let n = chunk.min(positions.end - start);
            let at = to.length();
            to.reserve(at..at + n)?;
            let tables = self.frequencies.back(by, n, to.capacity())?;
            for l in 0..self.config.layer_count {
                k.reset(n, shape.heads * width)?;
                v.reset(n, shape.heads * value_width)?;
                let view = from.view(l);
                for (i, (k, v)) in k.rows_mut().zip(v.rows_mut()).enumerate() {
                    let heads = k.chunks_exact_mut(width).zip(v.chunks_exact_mut(value_width));
                    for (head, (k, v)) in heads.enumerate() {
                        view.read_key(head, start + i, k);
                        view.read_value(head, start + i, v);
                    }
                }
                if by > 0 {
                    device.rotate(k, width, tables.of(self.config.rotation(l)));
                }
                device.kv_append(vec![to.target(l, at, 0..n)], k, v)?;
            }
            to.commit(n);
            start += n;
        }
        Ok(())
    }

    /// What keys and values depend on beside tokens, model, adapters and number type, by name, in a cache with room for
    /// `capacity` positions. Files of sessions have these in this order: another order is another version of theirs.
    pub(crate) fn cache_terms(&self, options: &CacheOptions, capacity: usize) -> [(&'static str, usize); 3] {
        [
            ("window", options.window),
            ("attention sinks", options.sinks),
            ("rotation of positions", self.rotates_for(capacity).into()),
        ]
    }

    /// A number for what keys and values of pages depend on beside the tokens: pages have one number type.
    pub(crate) fn cache_salt(&self, options: &CacheOptions, capacity: usize, adapters: &AdapterList) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.id().hash(&mut hasher);
        hash_adapters(adapters, &mut hasher);
        self.cache_terms(options, capacity).map(|(_, number)| number).hash(&mut hasher);
        hasher.finish()
    }

    /// An empty cache of a sequence in these pages, which decide its kind and number type.
    ///
    /// # Errors
    /// `InvalidArgument` if the pages are not for this model, or options do not go together.
    pub(crate) fn cache_in(&self, pages: &PagedCache, options: &CacheOptions) -> Result<Cache> {
        let (config, found) = (&self.config, pages.shape());
        let expected = config.kv_shape(found.kv_type);
        if expected != found || config.layer_count != pages.layers() {
            let of = |shape: KvShape| {
                format!("{} key/value heads of {} and {}", shape.heads, shape.width, shape.value_width)
            };
            let (layers, found_layers) = (config.layer_count, pages.layers());
            let message = format!(
                "the pages are for {found_layers} layers, {}; the model has {layers}, {}",
                of(found),
                of(expected)
            );
            return Err(Error::invalid_argument(message).with("expected", layers).with("found", found_layers));
        }
        let options = CacheOptions { kind: CacheKind::Paged, kv_type: found.kv_type, ..*options };
        config.with_cache(&options, |cache| Cache::in_pages(pages.pages(), cache.spans.to_vec(), cache.capacity))?
    }
}
