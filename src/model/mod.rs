//! A model: what its file says it is ([`Config`]), its weights, its tokenizer, and the forward pass.

mod adapters;
mod arch;
mod config;
mod forward;
mod keys_values;
mod latent;
mod lora;
mod mixture;
mod packed;
mod plan;
mod rope;
mod weights;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use adapters::AdapterList;
pub use config::{Config, Pooling};
pub(crate) use forward::{Observer, Part, Pass, Scratch};
pub use keys_values::CacheOptions;
pub use lora::Lora;

use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::device::Threads;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::numeric::FloatEnvironment;
use crate::token::Tokenizer;
use packed::Packed;

/// How to load a model.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The pool that packs the weights; a new one with a thread for each physical core if `None`.
    pub threads: Option<Threads>,
    /// A request to stop, looked at more than once a MiB.
    pub cancel: Cancel,
}

/// Bytes that a model and a session with it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Packed weights, shared by all sessions.
    pub weights: u64,
    /// The key/value cache of a session when full.
    pub kv_cache: u64,
    /// Intermediate results of a session.
    pub scratch: u64,
}

/// A loaded model. Immutable: sessions share it by `Arc`.
pub struct Model {
    config: Config,
    weights: weights::Weights,
    /// What the projections are in the file, by [`weights::Projection::index`].
    slots: Arc<[plan::Slot]>,
    weight_bytes: u64,
    parameter_count: u64,
    frequencies: rope::Frequencies,
    tokenizer: Arc<Tokenizer>,
    name: String,
    id: u64,
    fingerprint: u32,
}

/// A number that this gives once.
fn unique_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// As [`Model::chunk`], for weights of so many bytes. A small file may state a wide network of few inputs, whose activations
/// are out of proportion to its weights.
fn usual_chunk(config: &Config, weight_bytes: usize, asked: usize) -> usize {
    const USUAL: usize = 256;
    const ROOM: usize = 256 << 20;
    if asked > 0 {
        return asked;
    }
    let fits = |chunk: &usize| Scratch::bytes(config, *chunk, 1) <= weight_bytes.max(ROOM);
    std::iter::successors(Some(USUAL), |chunk| Some(chunk / 2)).find(|chunk| *chunk == 1 || fits(chunk)).unwrap_or(1)
}

impl Model {
    /// Loads the model of `gguf`. `progress` is called on this thread with the bytes read and the bytes in all, at
    /// the start, after the first 64 MiB, about every 16 MiB, and at the end; if it breaks, loading ends with `Aborted`.
    ///
    /// # Errors
    /// `CorruptFile` or `Unsupported` naming the key or tensor; `Io`, `OutOfMemory`, `Cancelled`, `Aborted`.
    pub fn load(
        gguf: &Gguf,
        options: &LoadOptions,
        progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Model> {
        let _environment = FloatEnvironment::enter();
        let (config, packed) = Self::outline(gguf)?;
        let mut plan = plan::Plan::new(gguf, packed.as_ref());
        let weights = weights::Weights::new(&mut plan, &config)?;
        let slots = plan.take_slots().into();
        let (weight_bytes, parameter_count) = (plan.bytes() as u64, plan.parameters());
        let threads = match &options.threads {
            Some(threads) => threads.clone(),
            // There is nothing to pack.
            None if packed.is_some() => Threads::new(1),
            None => Threads::automatic(),
        };
        let mut tokenizer = None;
        let read_tokenizer = || {
            tokenizer = Some(Arc::new(Tokenizer::from_gguf(gguf)?));
            Ok(())
        };
        plan.load(&threads, &options.cancel, read_tokenizer, progress)?;
        let tokenizer = tokenizer.ok_or_else(|| Error::internal("the tokenizer was not read"))?;
        let frequencies = rope::Frequencies::new(&config, &weights.divisors);
        let name = gguf.str("general.name").ok().flatten().unwrap_or_default().to_owned();
        Ok(Model {
            config,
            weights,
            slots,
            weight_bytes,
            parameter_count,
            frequencies,
            tokenizer,
            name,
            id: unique_id(),
            fingerprint: gguf.fingerprint(match packed {
                Some(packed) => packed.tensors_checksum(),
                None => gguf.tensors_checksum()?,
            }),
        })
    }

    /// What `gguf` says of its model, and of the packing of its matrices.
    fn outline(gguf: &Gguf) -> Result<(Config, Option<Packed>)> {
        // The architecture first: its error says more than that of a vocabulary nobody could use.
        arch::Architecture::find(config::architecture_name(gguf)?)?;
        Ok((Config::from_gguf(gguf, Tokenizer::vocab_size_of(gguf)?)?, Packed::of(gguf)?))
    }

    /// The bytes that loading `gguf`, and a session with it, will need. Reads no weights. `chunk` is that of a session's
    /// options.
    ///
    /// # Errors
    /// Those of loading that need neither weights nor tokenizer, and those of a session with these options.
    pub fn memory(gguf: &Gguf, cache: &CacheOptions, chunk: usize) -> Result<Memory> {
        let (config, packed) = Self::outline(gguf)?;
        let mut plan = plan::Plan::new(gguf, packed.as_ref());
        weights::Weights::new(&mut plan, &config)?;
        let context_length = config.session_context(cache.context_length)?;
        let chunk = usual_chunk(&config, plan.bytes(), chunk);
        let kv_cache = config.with_cache(cache, |shape| Cache::bytes(cache.kind, shape, chunk, cache.page_size))?;
        let kv_cache = kv_cache?.ok_or_else(|| {
            Error::invalid_argument(format!("a context of {context_length} positions is too long"))
                .with("context_length", context_length)
        })?;
        Ok(Memory {
            weights: plan.bytes() as u64,
            kv_cache: kv_cache as u64,
            scratch: Scratch::bytes(&config, chunk.min(context_length), 1) as u64,
        })
    }

    /// How many tokens of a prompt are processed together, where `asked` is what the options say.
    pub(crate) fn chunk(&self, asked: usize) -> usize {
        usual_chunk(&self.config, self.weight_bytes as usize, asked)
    }

    /// Which of its frequencies a sequence of `context` positions is rotated by.
    pub(crate) fn rotates_for(&self, context: usize) -> bool {
        self.frequencies.is_long(context)
    }

    /// `InvalidArgument` if one of the tokens is outside the vocabulary.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab_size = self.config.vocab_size;
        let Some((index, token)) = tokens.iter().enumerate().find(|(_, token)| **token as usize >= vocab_size) else {
            return Ok(());
        };
        let message = format!("token {token} at index {index} is outside the vocabulary of {vocab_size}");
        let error = Error::invalid_argument(message).with("token", token).with("index", index);
        Err(error.with("vocab_size", vocab_size))
    }

    /// A number that other models hardly have, in any process.
    pub(crate) fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// A number that no other model of this process has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `general.architecture`.
    pub fn architecture(&self) -> &'static str {
        self.config.architecture.name
    }

    /// True if it gives embeddings of whole texts and no logits.
    pub fn is_encoder(&self) -> bool {
        self.config.encoder
    }

    /// `general.name`, or nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Numbers in the model's tensors.
    pub fn parameter_count(&self) -> u64 {
        self.parameter_count
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}
