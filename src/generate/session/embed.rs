//! From the hidden states of a text's tokens to its embedding.

use std::ops::Range;
use std::time::Instant;

use super::Session;
use crate::error::{Error, Result, first_of, try_vec};
use crate::model::{Config, Part, Pooling};
use crate::numeric::FloatEnvironment;

/// How an embedding is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedOptions {
    /// `None`: the model's own.
    pub pooling: Option<Pooling>,
    /// Each vector is divided by its Euclidean length, which is summed in f64 in the order of its numbers. One of zeros
    /// stays.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        EmbedOptions { pooling: None, normalize: true }
    }
}

impl Session {
    /// The embedding of a text: the hidden states of its tokens after the last norm, pooled, to `out`: (D), or (T,D)
    /// without pooling. The session must be empty and is so afterwards. If it fails without pooling, some of `out` may
    /// have been written.
    ///
    /// # Errors
    /// `FailedPrecondition` if the session holds tokens; `InvalidArgument` for no tokens, or one outside the vocabulary;
    /// `CacheFull` if they do not all fit, `BufferTooSmall`, `Cancelled`; `Unsupported` if the model's own pooling is
    /// asked for and not known.
    pub fn embed(&mut self, tokens: &[u32], options: EmbedOptions, out: &mut [f32]) -> Result<()> {
        self.check_empty("an embedding")?;
        if tokens.is_empty() {
            return Err(Error::invalid_argument("an embedding is that of at least one token"));
        }
        self.model.check_tokens(tokens)?;
        self.check_room(0, tokens.len())?;
        let pool = Pool::new(self.model.config(), options, tokens.len(), out)?;
        let start = Instant::now();
        let result = self.pooled(tokens, pool);
        self.cache.truncate(0);
        result?;
        self.timings.prompt_tokens += tokens.len() as u64;
        self.timings.prompt_time += start.elapsed();
        Ok(())
    }

    fn pooled(&mut self, tokens: &[u32], mut pool: Pool<'_>) -> Result<()> {
        let _environment = FloatEnvironment::enter();
        // An encoder's tokens see those that follow.
        let together = if self.model.is_encoder() { tokens.len() } else { self.chunk };
        for chunk in tokens.chunks(together) {
            let start = self.cache.length();
            let rows = pool.rows(start..start + chunk.len());
            let asked = !rows.is_empty();
            let part = Part { tokens: chunk, asked: rows, cache: &mut self.cache, adapters: &self.adapters };
            self.model.hidden(&self.device, &mut [part], &mut self.scratch, &self.cancel)?;
            if asked {
                pool.push(self.scratch.act.values());
            }
            self.cache.commit(chunk.len());
        }
        pool.finish();
        Ok(())
    }
}

/// Takes hidden states in the order of their tokens.
struct Pool<'a> {
    pooling: Pooling,
    normalize: bool,
    /// T.
    total: usize,
    /// (D), of a mean.
    sums: Vec<f64>,
    /// (D), or (T,D) without pooling.
    out: &'a mut [f32],
    written: usize,
}

impl<'a> Pool<'a> {
    fn new(config: &Config, options: EmbedOptions, total: usize, out: &'a mut [f32]) -> Result<Pool<'a>> {
        let Some(pooling) = options.pooling.or(config.pooling) else {
            let message = "the model's own pooling_type is not supported; mean, cls and last are";
            return Err(Error::unsupported(message).with("key", "pooling_type"));
        };
        let width = config.embedding_length;
        let needed = if pooling == Pooling::None { total.saturating_mul(width) } else { width };
        let out = first_of(out, needed, format_args!("the embedding is {needed} numbers"))?;
        let sums = if pooling == Pooling::Mean { try_vec(width, 0.0, "the sums of an embedding")? } else { Vec::new() };
        Ok(Pool { pooling, normalize: options.normalize, total, sums, out, written: 0 })
    }

    /// Which of the tokens `chunk` matter, counted from its first.
    fn rows(&self, chunk: Range<usize>) -> Range<usize> {
        let n = chunk.len();
        match self.pooling {
            Pooling::None | Pooling::Mean => 0..n,
            Pooling::Cls => 0..usize::from(chunk.start == 0),
            Pooling::Last => n - usize::from(chunk.end == self.total)..n,
        }
    }

    /// The states (rows,D) of these.
    fn push(&mut self, states: &[f32]) {
        if self.pooling == Pooling::Mean {
            for state in states.chunks_exact(self.sums.len()) {
                self.sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        } else {
            self.out[self.written..self.written + states.len()].copy_from_slice(states);
            self.written += states.len();
        }
    }

    /// All tokens' states are there.
    fn finish(self) {
        for (out, sum) in self.out.iter_mut().zip(&self.sums) {
            *out = (sum / self.total as f64) as f32;
        }
        if self.normalize {
            let vectors = if self.pooling == Pooling::None { self.total } else { 1 };
            self.out.chunks_exact_mut(self.out.len() / vectors).for_each(normalize);
        }
    }
}

fn normalize(x: &mut [f32]) {
    let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    if squares > 0.0 {
        let length = squares.sqrt();
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
