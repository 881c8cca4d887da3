//! How much the columns of a model's matrices matter, from a text: the work of `llm-imatrix`.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::session::{EmbedOptions, Session, SessionOptions};
use crate::cancel::Cancel;
use crate::device::{KvType, Threads};
use crate::error::{Error, Result, try_vec};
use crate::gguf::Gguf;
use crate::model::{CacheOptions, LoadOptions, Model, Observer, Pooling};
use crate::quantize::Importance;
use crate::token::EncodeOptions;

/// How to read the text.
#[derive(Clone, Default)]
pub struct ImatrixOptions {
    /// What the text is called in the result.
    pub dataset: String,
    /// Tokens that see each other; 0: 512, or the model's context if that is shorter.
    pub chunk_size: usize,
    /// The pool to compute on; a new one with a thread for each physical core if `None`.
    pub threads: Option<Threads>,
    /// A request to stop.
    pub cancel: Cancel,
}

/// Runs a text through the model of `gguf`, in chunks that do not see each other, and sums up the squares of what each
/// matrix is multiplied with. Each chunk begins with the model's first token, if it has one. `progress` is called with
/// the chunks done and in all; if it breaks, the call ends with `Aborted`.
///
/// Errors: those of [`Model::load`]; `InvalidArgument` if the text has no tokens or a chunk no room for them, or the file
/// is packed; `Cancelled`, `Aborted`.
pub fn imatrix(
    gguf: &Gguf,
    text: &[u8],
    options: &ImatrixOptions,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Importance> {
    if gguf.is_packed() {
        let message = "the file is packed for loading: importances are those of the model's own file";
        return Err(Error::invalid_argument(message).with("path", gguf.name()));
    }
    let threads = options.threads.clone().unwrap_or_else(Threads::automatic);
    let load = LoadOptions { threads: Some(threads.clone()), cancel: options.cancel.clone() };
    let model = Arc::new(Model::load(gguf, &load, |_, _| ControlFlow::Continue(()))?);
    let tokenizer = Arc::clone(model.tokenizer());
    let tokens = tokenizer.encode(text, EncodeOptions { add_special: false, ..EncodeOptions::default() })?;
    if tokens.is_empty() {
        return Err(Error::invalid_argument("the text has no tokens"));
    }
    let size = if options.chunk_size == 0 { model.config().context_length.min(512) } else { options.chunk_size };
    let first = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let own = size - usize::from(first.is_some()).min(size);
    if own == 0 {
        let message = format!("a chunk of {size} tokens has no room for the text's");
        return Err(Error::invalid_argument(message).with("chunk_size", size));
    }
    let session_options = SessionOptions {
        cache: CacheOptions {
            // A chunk is no longer than the text with its first token.
            context_length: size.min(tokens.len() + 1),
            kv_type: KvType::F32,
            ..CacheOptions::default()
        },
        threads: Some(threads),
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, &session_options)?;
    session.set_cancel(options.cancel.clone());
    let names = gguf.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    let chunk_size = u32::try_from(size).unwrap_or(u32::MAX);
    let importance = Importance::new(options.dataset.clone(), chunk_size);
    let collected = Arc::new(Mutex::new(Collected { importance, failure: None }));
    session.observe(Box::new(Collector { names, collected: Arc::clone(&collected) }));
    // A mean is of all tokens, so that all are taken through every matrix.
    let every_token = EmbedOptions { pooling: Some(Pooling::Mean), normalize: false };
    let mut state = try_vec(session.model().config().embedding_length, 0.0, "a hidden state")?;
    let total = tokens.len().div_ceil(own) as u64;
    for (done, chunk) in (0..).zip(tokens.chunks(own)) {
        if progress(done, total).is_break() {
            return Err(Error::aborted("the progress callback stopped the reading of the text"));
        }
        let chunk: Vec<u32> = first.iter().chain(chunk).copied().collect();
        session.embed(&chunk, every_token, &mut state)?;
        let mut collected = collected.lock();
        if let Some(failure) = collected.failure.take() {
            return Err(failure);
        }
        collected.importance.chunk_count += 1;
    }
    // Whatever the callback answers: all is done.
    let _ = progress(total, total);
    let importance = std::mem::take(&mut collected.lock().importance);
    Ok(importance)
}

#[derive(Debug)]
struct Collected {
    importance: Importance,
    failure: Option<Error>,
}

/// Adds up what the matrices of a file are multiplied with.
#[derive(Debug)]
struct Collector {
    names: HashSet<String>,
    collected: Arc<Mutex<Collected>>,
}

impl Observer for Collector {
    fn see(&mut self, layer: usize, names: &[&str], matrix: (usize, usize), width: usize, inputs: &[f32]) {
        let Collected { importance, failure } = &mut *self.collected.lock();
        for name in names {
            let name = format!("blk.{layer}.{name}.weight");
            if self.names.contains(&name)
                && let Err(error) = importance.add(&name, matrix, width, inputs)
            {
                failure.get_or_insert(error);
            }
        }
    }
}
