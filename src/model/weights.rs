//! Tensor names -> [`Weights`]: which tensors a model has, their shapes checked, their bytes packed for the device.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::config::Config;
use crate::cancel::Cancel;
use crate::device::{Arena, Shape, Threads, Weight};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};

/// A matrix and its bias.
#[derive(Debug)]
pub(crate) struct Projection {
    pub weight: Weight,
    pub bias: Option<Vec<f32>>,
}

/// The tensors of one block.
#[derive(Debug)]
pub(crate) struct Layer {
    /// (D)
    pub attn_norm: Vec<f32>,
    /// (H*E, D), (K*E, D), (K*E, D)
    pub q: Projection,
    pub k: Projection,
    pub v: Projection,
    /// (E) each, or none.
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    /// (D, H*E)
    pub o: Projection,
    /// (D), or none.
    pub attn_post_norm: Option<Vec<f32>>,
    /// (D)
    pub ffn_norm: Vec<f32>,
    /// (F, D), (F, D), (D, F)
    pub gate: Projection,
    pub up: Projection,
    pub down: Projection,
    /// (D), or none.
    pub ffn_post_norm: Option<Vec<f32>>,
}

/// The tensors of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// (V, D)
    pub embedding: Weight,
    /// (L)
    pub layers: Vec<Layer>,
    /// (D)
    pub output_norm: Vec<f32>,
    /// (V, D); the embedding where the file has none of its own.
    pub output: Weight,
    /// Divisors of the rotary frequencies (n/2), or none.
    pub rope_divisors: Option<Vec<f32>>,
    /// Numbers in all tensors.
    pub parameter_count: u64,
}

/// A matrix of the file, in the order of the arena.
struct Placement<'a> {
    tensor: &'a TensorInfo,
    shape: Shape,
}

/// The layout of a model's weights in memory, made from the file's tensor list alone: nothing is read or allocated
/// in proportion to the weights before `load`.
pub(crate) struct Plan<'a> {
    gguf: &'a Gguf,
    arena: Arc<Arena>,
    matrices: Vec<Placement<'a>>,
    bytes: usize,
    parameters: u64,
}

impl<'a> Plan<'a> {
    /// An empty plan.
    pub(crate) fn new(gguf: &'a Gguf) -> Self {
        Plan { gguf, arena: Arc::default(), matrices: Vec::new(), bytes: 0, parameters: 0 }
    }

    /// Bytes of the packed weights.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lays out every tensor of the architecture. Vectors are read at once, matrices by `load`.
    pub(crate) fn weights(&mut self, config: &Config) -> Result<Weights> {
        let (d, v) = (config.embedding_length, config.vocab_size);
        let embedding = self.matrix("token_embd.weight", v, d)?;
        let mut layers = Vec::new();
        for l in 0..config.layer_count {
            layers.push(self.layer(config, l)?);
        }
        let output = match self.gguf.tensor("output.weight") {
            Some(_) => self.matrix("output.weight", v, d)?,
            None => embedding.clone(),
        };
        Ok(Weights {
            embedding,
            layers,
            output_norm: self.vector("output_norm.weight", d)?,
            output,
            rope_divisors: self.optional_vector("rope_freqs.weight", config.rope.dims / 2)?,
            parameter_count: self.parameters,
        })
    }

    fn layer(&mut self, config: &Config, l: usize) -> Result<Layer> {
        let (d, f, e) = (config.embedding_length, config.feed_forward_length, config.head_length);
        let size = |heads: usize| {
            let key = format!("{}.attention.key_length", config.architecture.name);
            heads
                .checked_mul(e)
                .ok_or_else(|| Error::corrupt_file(format!("{key}: {heads} heads of {e}")).with("key", key))
        };
        let (q, kv) = (size(config.head_count)?, size(config.head_count_kv)?);
        let name = |part: &str| format!("blk.{l}.{part}");
        let arch = config.architecture;
        let head_norm = |plan: &mut Self, part: &str| {
            if arch.head_norms { plan.vector(&name(part), e).map(Some) } else { Ok(None) }
        };
        let post_norm = |plan: &mut Self, part: &str| {
            if arch.post_norms { plan.vector(&name(part), d).map(Some) } else { Ok(None) }
        };
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm.weight"), d)?,
            q: self.projection(&name("attn_q"), q, d)?,
            k: self.projection(&name("attn_k"), kv, d)?,
            v: self.projection(&name("attn_v"), kv, d)?,
            q_norm: head_norm(self, "attn_q_norm.weight")?,
            k_norm: head_norm(self, "attn_k_norm.weight")?,
            o: self.projection(&name("attn_output"), d, q)?,
            attn_post_norm: post_norm(self, "post_attention_norm.weight")?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), d)?,
            gate: self.projection(&name("ffn_gate"), f, d)?,
            up: self.projection(&name("ffn_up"), f, d)?,
            down: self.projection(&name("ffn_down"), d, f)?,
            ffn_post_norm: post_norm(self, "post_ffw_norm.weight")?,
        })
    }

    fn find(&self, name: &str) -> Result<&'a TensorInfo> {
        self.gguf.tensor(name).ok_or_else(|| {
            Error::corrupt_file(format!("the tensor {name} is missing"))
                .with("tensor", name)
                .with("path", self.gguf.name())
        })
    }

    /// Counts the tensor's parameters and checks its shape: (rows, columns), or (columns) with `rows` 1.
    fn check(&mut self, tensor: &TensorInfo, rows: usize, columns: usize) -> Result<()> {
        self.parameters += tensor.elements() as u64;
        if tensor.row_len() == columns && tensor.rows() == rows {
            return Ok(());
        }
        let (name, found) = (&tensor.name, format!("{} x {}", tensor.rows(), tensor.row_len()));
        let expected = format!("{rows} x {columns}");
        Err(Error::corrupt_file(format!("the tensor {name} has the shape {found}, but must have {expected}"))
            .with("tensor", name)
            .with("expected", expected)
            .with("found", found))
    }

    /// A (rows, columns) matrix.
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Weight> {
        let tensor = self.find(name)?;
        self.check(tensor, rows, columns)?;
        let shape = Shape { format: tensor.format()?, rows, columns };
        let offset = self.bytes;
        self.bytes = shape.packed_bytes().and_then(|bytes| offset.checked_add(bytes)).ok_or_else(|| {
            Error::out_of_memory(format!("the tensor {name} is too large for this machine's addresses"))
                .with("tensor", name)
        })?;
        self.matrices.push(Placement { tensor, shape });
        Ok(Weight::new(shape, Arc::clone(&self.arena), offset))
    }

    /// `<name>.weight` (rows, columns) and, if there is one, `<name>.bias` (rows).
    fn projection(&mut self, name: &str, rows: usize, columns: usize) -> Result<Projection> {
        let weight = self.matrix(&format!("{name}.weight"), rows, columns)?;
        Ok(Projection { weight, bias: self.optional_vector(&format!("{name}.bias"), rows)? })
    }

    fn vector(&mut self, name: &str, n: usize) -> Result<Vec<f32>> {
        let tensor = self.find(name)?;
        self.check(tensor, 1, n)?;
        self.gguf.decode(tensor)
    }

    fn optional_vector(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        if self.gguf.tensor(name).is_some() { self.vector(name, n).map(Some) } else { Ok(None) }
    }

    /// Reads and packs the matrices, on all threads. `progress` gets the bytes done and in all, on this thread, and
    /// may break off.
    pub(crate) fn load(
        self,
        threads: &Threads,
        cancel: &Cancel,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut memory = Arena::allocate(self.bytes)?;
        let total = self.matrices.iter().map(|m| m.tensor.bytes).sum();
        let mut stripes = self.stripes(&mut memory).into_iter();
        let failure = Mutex::new(None);
        let mut done = 0;
        loop {
            cancel.check("loading the model")?;
            if progress(done, total).is_break() {
                return Err(Error::aborted("the progress callback stopped the loading of the model"));
            }
            let batch: Vec<Stripe<'_>> = stripes.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            done += batch.iter().map(|stripe| stripe.file_bytes() as u64).sum::<u64>();
            threads.each(batch, |stripe| {
                if let Err(error) = cancel.check("loading the model").and_then(|()| stripe.pack(self.gguf)) {
                    failure.lock().get_or_insert(error);
                }
            });
            if let Some(error) = failure.lock().take() {
                return Err(error);
            }
        }
        drop(stripes);
        self.arena.fill(memory)
    }

    /// Cuts the matrices into stripes of whole panels.
    fn stripes<'m>(&self, mut memory: &'m mut [u8]) -> Vec<Stripe<'m>>
    where
        'a: 'm,
    {
        let mut all = Vec::new();
        for placement in &self.matrices {
            let shape = placement.shape;
            let whole = shape.panels() * shape.panel_bytes();
            let (own, rest) = memory.split_at_mut(shape.packed_bytes().unwrap_or(whole));
            memory = rest;
            if whole == 0 {
                continue;
            }
            let panels = (STRIPE / (crate::device::PANEL_ROWS * shape.row_bytes()).max(1)).max(1);
            for (i, out) in own[..whole].chunks_mut(panels * shape.panel_bytes()).enumerate() {
                all.push(Stripe {
                    tensor: placement.tensor,
                    shape,
                    first_row: i * panels * crate::device::PANEL_ROWS,
                    out,
                });
            }
        }
        all
    }
}

/// Bytes of the file that a thread packs at a time.
const STRIPE: usize = 1 << 20;
/// Stripes between two looks at progress.
const BATCH: usize = 16;

/// Consecutive panels of a matrix.
struct Stripe<'m> {
    tensor: &'m TensorInfo,
    shape: Shape,
    first_row: usize,
    out: &'m mut [u8],
}

thread_local! {
    /// A stripe's bytes as the file has them.
    static BYTES: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Stripe<'_> {
    fn rows(&self) -> usize {
        let panels = self.out.len() / self.shape.panel_bytes();
        (panels * crate::device::PANEL_ROWS).min(self.shape.rows - self.first_row)
    }

    fn file_bytes(&self) -> usize {
        self.rows() * self.shape.row_bytes()
    }

    fn pack(self, gguf: &Gguf) -> Result<()> {
        BYTES.with_borrow_mut(|bytes| {
            let n = self.file_bytes();
            bytes.clear();
            bytes.try_reserve_exact(n).map_err(|_| {
                Error::out_of_memory(format!("a buffer of {n} bytes cannot be had")).with("tensor", &self.tensor.name)
            })?;
            bytes.resize(n, 0);
            gguf.read(self.tensor, (self.first_row * self.shape.row_bytes()) as u64, bytes)?;
            let rows = bytes.chunks(crate::device::PANEL_ROWS * self.shape.row_bytes());
            for (rows, panel) in rows.zip(self.out.chunks_exact_mut(self.shape.panel_bytes())) {
                self.shape.pack(rows, panel);
            }
            Ok(())
        })
    }
}
