//! LoRA adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021), in the files that llama.cpp's
//! converter writes.
//!
//! An adapter stands for W + s B A in the place of some of a model's matrices W, with s = scale * alpha / R: the caller
//! gives the scale, the file alpha, and R is the rank of the pair. (A file without alpha, or with 0, means s = scale.)
//! The pair of a tensor `<name>` (n,D) of the model is `<name>.lora_a` (R,D) and `<name>.lora_b` (n,R); that of the
//! embedding (V,D) is `token_embd.weight.lora_a` (V,R) and `.lora_b` (D,R), a row of A a token. An adapter of the
//! embedding does not change the output, nor one of `output.weight` the embedding, where a model uses one matrix for
//! both.

use std::collections::HashMap;
use std::sync::Arc;

use super::Model;
use super::plan::Slot;
use crate::device::{Arena, PANEL_ROWS, Shape, Weight};
use crate::error::{Error, Result, try_vec};
use crate::gguf::{Gguf, TensorInfo};
use crate::numeric::FloatEnvironment;
use crate::quant::Format;

/// What is added to one projection: B (A x).
#[derive(Debug)]
pub(crate) struct Pair {
    /// (R,D); of the embedding (V,R).
    pub a: Weight,
    /// (n,R)
    pub b: Weight,
    rank: usize,
}

/// An adapter for a model. Immutable: sessions share it by `Arc`.
#[derive(Debug)]
pub struct Lora {
    name: String,
    alpha: f32,
    rank: usize,
    tensor_count: usize,
    bytes: u64,
    slots: Arc<[Slot]>,
    /// The model's V.
    vocab_size: usize,
    /// By the index of the model's projections.
    pairs: Vec<Option<Pair>>,
    embedding: Option<Pair>,
    id: u64,
    fingerprint: u32,
}

impl Lora {
    /// A number that no other adapter of this process has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Loads the adapter of `gguf` for sessions of `model`. Neither is kept.
    ///
    /// # Errors
    /// `InvalidArgument` for an adapter of another architecture, or of a tensor that the model does not have or has in
    /// another shape; `CorruptFile` or `Unsupported` naming the key or tensor; `Io`, `OutOfMemory`.
    pub fn load(gguf: &Gguf, model: &Model) -> Result<Lora> {
        let _environment = FloatEnvironment::enter();
        expect(gguf, "general.type", "adapter")?;
        expect(gguf, "adapter.type", "lora")?;
        let (key, found) = ("general.architecture", gguf.str("general.architecture")?);
        if found != Some(model.architecture()) {
            let (found, expected) = (found.unwrap_or("none"), model.architecture());
            let message =
                format!("the adapter is for models of the architecture {found}, but this one is a {expected}");
            return Err(fact(Error::invalid_argument(message), key, expected, found));
        }
        if gguf.get("adapter.alora.invocation_tokens").is_some() {
            let message = "adapters that act from an invocation on (aLoRA) are not supported";
            return Err(Error::unsupported(message).with("key", "adapter.alora.invocation_tokens"));
        }
        let alpha = gguf.f32("adapter.lora.alpha")?.unwrap_or(0.0);
        if !alpha.is_finite() {
            let message = format!("adapter.lora.alpha is {alpha}, but must be finite");
            return Err(Error::corrupt_file(message).with("key", "adapter.lora.alpha").with("found", alpha));
        }
        let mut packing = Packing { gguf, arena: Arc::default(), matrices: Vec::new(), bytes: 0 };
        let mut lora = Lora {
            id: super::unique_id(),
            fingerprint: gguf.fingerprint(gguf.tensors_checksum()?),
            name: gguf.str("general.name").ok().flatten().unwrap_or_default().to_owned(),
            alpha,
            rank: 0,
            tensor_count: 0,
            bytes: 0,
            slots: Arc::clone(&model.slots),
            vocab_size: model.config().vocab_size,
            pairs: model.slots.iter().map(|_| None).collect(),
            embedding: None,
        };
        let mut slots: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, slot) in model.slots.iter().enumerate() {
            slots.entry(&slot.tensor).or_default().push(i);
        }
        for (name, a, b) in pairs(gguf)? {
            let (config, slots) = (model.config(), slots.get(name));
            if name == EMBEDDING {
                let rank =
                    ranked(a, b, |rank| [[rank, config.vocab_size], [rank, config.embedding_length]], a.row_len())?;
                lora.embedding =
                    Some(Pair { a: packing.rows(a, 0, a.rows())?, b: packing.rows(b, 0, b.rows())?, rank });
                lora.rank = lora.rank.max(rank);
            } else if let Some(slots) = slots {
                let (columns, rows) =
                    (model.slots[slots[0]].columns, slots.iter().map(|i| model.slots[*i].rows.len()).sum());
                let rank = ranked(a, b, |rank| [[columns, rank], [rank, rows]], a.rows())?;
                let a = packing.rows(a, 0, rank)?;
                for &i in slots {
                    let own = &model.slots[i].rows;
                    let b = packing.rows(b, own.start, own.len())?;
                    lora.pairs[i] = Some(Pair { a: a.clone(), b, rank });
                }
                lora.rank = lora.rank.max(rank);
            } else {
                return Err(unknown(name));
            }
            lora.tensor_count += 1;
        }
        lora.bytes = packing.bytes as u64;
        packing.pack()?;
        Ok(lora)
    }

    /// `general.name`, or nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `adapter.lora.alpha`; 0 if the file has none.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }

    /// R; the largest, if its pairs have different ones.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The model's tensors that it changes.
    pub fn tensor_count(&self) -> usize {
        self.tensor_count
    }

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if the adapter was loaded for this model, or one with the same tensors.
    fn fits(&self, model: &Model) -> bool {
        // Of an encoder no slot tells the vocabulary.
        self.vocab_size == model.config().vocab_size
            && (Arc::ptr_eq(&self.slots, &model.slots) || self.slots == model.slots)
    }

    /// A number that other adapters hardly have, in any process.
    pub(crate) fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// `InvalidArgument` if the adapter is for another model, or the scale, also with alpha over the rank, is not finite.
    pub(crate) fn check(&self, model: &Model, scale: f32) -> Result<()> {
        let mut factors = self.pairs.iter().flatten().chain(&self.embedding).map(|pair| self.factor(pair, scale));
        if !scale.is_finite() || factors.any(|factor| !factor.is_finite()) {
            let message =
                format!("an adapter's scale is {scale}, and its alpha {}: the product is not finite", self.alpha);
            return Err(Error::invalid_argument(message).with("scale", scale));
        }
        if !self.fits(model) {
            return Err(Error::invalid_argument("the adapter was loaded for another model"));
        }
        Ok(())
    }

    /// The pair of a projection and its s, if it does anything.
    pub(crate) fn pair(&self, projection: usize, scale: f32) -> Option<(&Pair, f32)> {
        self.scaled(self.pairs[projection].as_ref()?, scale)
    }

    /// The embedding's pair and its s, if it does anything.
    pub(crate) fn embedding(&self, scale: f32) -> Option<(&Pair, f32)> {
        self.scaled(self.embedding.as_ref()?, scale)
    }

    fn scaled<'a>(&self, pair: &'a Pair, scale: f32) -> Option<(&'a Pair, f32)> {
        Some((pair, self.factor(pair, scale))).filter(|(_, s)| *s != 0.0)
    }

    /// What a pair's product is multiplied with.
    fn factor(&self, pair: &Pair, scale: f32) -> f32 {
        if self.alpha == 0.0 { scale } else { scale * self.alpha / pair.rank as f32 }
    }
}

/// The tensor that is looked up and not multiplied with.
const EMBEDDING: &str = "token_embd.weight";

fn fact(error: Error, key: &'static str, expected: &str, found: &str) -> Error {
    error.with("key", key).with("expected", expected).with("found", found)
}

/// Checks that a key says what it says in the file of an adapter.
fn expect(gguf: &Gguf, key: &'static str, expected: &str) -> Result<()> {
    match gguf.str(key)? {
        Some(found) if found == expected => Ok(()),
        Some(found) => {
            let message = format!("{key} is \"{found}\", but \"{expected}\" is what is loaded here");
            Err(fact(Error::unsupported(message), key, expected, found))
        }
        None => {
            let message = format!("the key {key} is missing: this is no file of an adapter");
            Err(fact(Error::corrupt_file(message), key, expected, "none"))
        }
    }
}

/// The pairs of the file: the name of the model's tensor, A, B.
fn pairs(gguf: &Gguf) -> Result<Vec<(&str, &TensorInfo, &TensorInfo)>> {
    let mut pairs = Vec::new();
    for tensor in gguf.tensors() {
        let (name, other, is_a) = match (tensor.name.strip_suffix(".lora_a"), tensor.name.strip_suffix(".lora_b")) {
            (Some(name), _) => (name, format!("{name}.lora_b"), true),
            (_, Some(name)) => (name, format!("{name}.lora_a"), false),
            _ => {
                let message = format!("the adapter's tensor {} is neither a .lora_a nor a .lora_b", tensor.name);
                return Err(Error::unsupported(message).with("tensor", &tensor.name));
            }
        };
        let Some(other) = gguf.tensor(&other) else {
            let message = format!("the adapter has the tensor {}, but not {other}", tensor.name);
            return Err(Error::corrupt_file(message).with("tensor", other));
        };
        if is_a {
            pairs.push((name, tensor, other));
        }
    }
    if pairs.is_empty() {
        return Err(Error::corrupt_file("the adapter has no tensors"));
    }
    Ok(pairs)
}

/// The error of a tensor that is no projection of the model.
fn unknown(name: &str) -> Error {
    if name.ends_with("_exps.weight") {
        let message = format!("the adapter is for the experts {name}; adapters of experts are not supported");
        return Error::unsupported(message).with("tensor", name);
    }
    let message = format!("the adapter is for the tensor {name}, which this model does not multiply with");
    Error::invalid_argument(message).with("tensor", name)
}

/// Checks the shapes of a pair, of which `expected` gives the dimensions at a rank, fastest first; returns the rank.
fn ranked(a: &TensorInfo, b: &TensorInfo, expected: impl Fn(usize) -> [[usize; 2]; 2], rank: usize) -> Result<usize> {
    for (tensor, [columns, rows]) in [a, b].into_iter().zip(expected(rank)) {
        if tensor.row_len() != columns || tensor.rows() != rows || tensor.dims.len() > 2 || rank == 0 {
            let expected = format!("{columns} x {rows}");
            let message =
                format!("the tensor {} has the shape {}, but {expected} is what fits", tensor.name, tensor.dims);
            let error = Error::invalid_argument(message).with("tensor", &tensor.name);
            return Err(error.with("expected", expected).with("found", tensor.dims));
        }
    }
    Ok(rank)
}

/// Rows of a tensor and where they go.
struct Matrix<'a> {
    tensor: &'a TensorInfo,
    first_row: usize,
    shape: Shape,
}

/// The layout of an adapter in memory, as a model's weights have it.
struct Packing<'a> {
    gguf: &'a Gguf,
    arena: Arc<Arena>,
    matrices: Vec<Matrix<'a>>,
    bytes: usize,
}

impl<'a> Packing<'a> {
    /// Lays out rows of a tensor. Quantised ones become F32: an input of theirs is never quantised.
    fn rows(&mut self, tensor: &'a TensorInfo, first_row: usize, rows: usize) -> Result<Weight> {
        let format = tensor.format()?;
        let format = if format.block_len() == 1 { format } else { Format::F32 };
        let shape = Shape { format, rows, columns: tensor.row_len() };
        let weight = Weight::new(shape, Arc::clone(&self.arena), self.bytes);
        let bytes = shape.packed_bytes().and_then(|n| self.bytes.checked_add(n));
        self.bytes = bytes.ok_or_else(|| {
            let message = format!("the tensor {} is too large for this machine's addresses", tensor.name);
            Error::out_of_memory(message).with("tensor", &tensor.name)
        })?;
        self.matrices.push(Matrix { tensor, first_row, shape });
        Ok(weight)
    }

    /// Reads and packs all.
    fn pack(self) -> Result<()> {
        let mut memory = Arena::allocate(self.bytes)?;
        let mut rest = &mut memory[..];
        for Matrix { tensor, first_row, shape } in self.matrices {
            let size = shape.panels() * shape.panel_bytes();
            let (own, others) = rest.split_at_mut(shape.packed_bytes().unwrap_or(size));
            rest = others;
            let row_bytes = Shape { format: tensor.format()?, ..shape }.row_bytes();
            for (i, panel) in own[..size].chunks_exact_mut(shape.panel_bytes()).enumerate() {
                let rows = PANEL_ROWS.min(shape.rows - i * PANEL_ROWS);
                let mut bytes = try_vec(rows * row_bytes, 0, "rows of an adapter")?;
                self.gguf.read(tensor, ((first_row + i * PANEL_ROWS) * row_bytes) as u64, &mut bytes)?;
                if tensor.format()? != shape.format {
                    let mut values = try_vec(rows * shape.columns, 0.0f32, "rows of an adapter")?;
                    tensor.format()?.decode(&bytes, &mut values)?;
                    bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                }
                shape.pack(&bytes, panel);
            }
        }
        self.arena.fill(memory)
    }
}
