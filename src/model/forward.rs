//! The forward pass: tokens in, logits out. One decoder block serves every architecture of the table.
//!
//! Products with quantised weights take their activations in 8 bits, but in 16 where an error stays: keys and values,
//! which every later token reads, and the logits. These are few of a model's products (6 % in SmolLM2), and with them
//! the distance from exact arithmetic is two thirds of what it is without. So does a router, whose choice is not gradual.

use std::ops::Range;

use super::adapters::{AdapterList, Adapters, Output};
use super::arch::{Norms, QkNorms};
use super::config::Config;
use super::latent::LatentScratch;
use super::mixture::MixtureScratch;
use super::rope::Tables;
use super::weights::{FeedForward, Layer, Mlp, NormWeights, Projection, QueriesKeysValues};
use super::{Cancel, Model};
use crate::cache::Cache;
use crate::device::{Act, Attention, Buffer, Delta, Device, KvQuery, Norm, Precision, RopeTable, Weight};
use crate::error::{Error, Result};

/// The intermediate results of a pass, kept from call to call so that steady state allocates nothing large.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// (T, D): the residual stream.
    pub(super) x: Buffer,
    /// (T, D): what the last feed-forward half adds to it.
    pub(super) delta: Buffer,
    /// (T, D): what the last attention half adds to it.
    attended: Buffer,
    /// Input of the next product.
    pub act: Act,
    pub(super) q: Buffer,
    pub(super) k: Buffer,
    pub(super) v: Buffer,
    pub(super) gate: Buffer,
    pub(super) up: Buffer,
    pub(super) mixture: MixtureScratch,
    pub(super) latent: LatentScratch,
    /// (rows asked, V)
    pub logits: Buffer,
    /// What is added to the products.
    pub(super) adapters: Adapters,
    /// Told what the matrices of each layer are multiplied with.
    pub observer: Option<Box<dyn Observer>>,
}

/// Tokens that follow what a cache holds. Parts of a batch are processed together and do not see each other.
pub(crate) struct Part<'a> {
    /// Ids below V. To an encoder they must be the whole text.
    pub tokens: &'a [u32],
    /// Which of them something is asked about: their logits, or their hidden states.
    pub asked: Range<usize>,
    pub cache: &'a mut Cache,
    pub adapters: &'a AdapterList,
}

/// A pass that is under way.
pub(crate) struct Pass {
    tables: Tables,
    /// The next layer.
    next: usize,
}

/// Ranges of these lengths, one after the other.
fn ranges(lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<usize>> {
    lengths.scan(0, |start, length| {
        let range = *start..*start + length;
        *start = range.end;
        Some(range)
    })
}

/// The rows of each part among those of the batch.
fn rows_of(parts: &[Part<'_>]) -> impl Iterator<Item = Range<usize>> {
    ranges(parts.iter().map(|part| part.tokens.len()))
}

/// The rows of each part that something is asked about, among all such rows of the batch.
fn asked_rows_of(parts: &[Part<'_>]) -> impl Iterator<Item = Range<usize>> {
    ranges(parts.iter().map(|part| part.asked.len()))
}

/// Leaves only the rows that something is asked about.
fn keep_asked(parts: &[Part<'_>], buffers: [&mut Buffer; 2], adapters: &mut Adapters) {
    for buffer in buffers {
        let rows = rows_of(parts).zip(parts);
        buffer.keep(rows.map(|(rows, part)| rows.start + part.asked.start..rows.start + part.asked.end));
    }
    adapters.assign(asked_rows_of(parts).zip(parts.iter().map(|part| part.adapters)));
}

/// Sees what matrices are multiplied with: `(T,n)` inputs, a row of n a token, of the matrices `names` of a layer, each
/// `blk.LAYER.NAME.weight` if the model has it. Of a tensor that holds several, `matrix` says which of how many. In the last
/// layer most of them see only the tokens that something is asked about.
pub(crate) trait Observer: std::fmt::Debug + Send {
    fn see(&mut self, layer: usize, names: &[&str], matrix: (usize, usize), width: usize, inputs: &[f32]);
}

/// Shows the inputs of matrices to the observer, if there is one.
pub(super) fn observe(observer: &mut Option<Box<dyn Observer>>, layer: usize, names: &[&str], act: &Act) {
    if let Some(observer) = observer {
        observer.see(layer, names, (0, 1), act.width(), act.values());
    }
}

impl Scratch {
    /// Rows of x: T, after the model's last layer only the tokens that something is asked about.
    pub(crate) fn rows(&self) -> usize {
        self.x.rows()
    }

    /// About how many bytes a chunk of `tokens` needs, `logit_rows` of them with logits.
    pub(crate) fn bytes(config: &Config, tokens: usize, logit_rows: usize) -> usize {
        let (d, e) = (config.embedding_length, config.head_length);
        let (q, kv) = (config.head_count * e, config.head_count_kv * e);
        // `act` holds 4 bytes a value and 1.5 quantised; attention holds its sums once more.
        let mut f = config.feed_forward_length;
        if let Some(experts) = &config.experts {
            // A row for each expert of a token: its input, both products and the result.
            f = f.max(experts.routing.used.saturating_mul(2 * experts.feed_forward_length + 3 * d) / 2);
        }
        let widest = f.max(q).max(d);
        let mut row = 3 * d + 2 * q + 2 * kv + 2 * f + widest * 11 / 8;
        if let Some(latent) = &config.latent {
            // Of each head the query as it comes, its vectors by head before and after a product, and the result.
            let rank = latent.rank * 19 / 8;
            row += config.head_count.saturating_mul(latent.plain + config.rope.dims + rank + latent.value);
        }
        tokens.saturating_mul(row).saturating_add(logit_rows.saturating_mul(config.vocab_size)).saturating_mul(4)
    }
}

impl Projection {
    /// The product with 8-bit activations.
    pub(super) fn to<'a>(&'a self, out: &'a mut Buffer) -> Output<'a> {
        Output { projection: self, fine: false, out }
    }

    /// The product with 16-bit activations.
    pub(super) fn fine<'a>(&'a self, out: &'a mut Buffer) -> Output<'a> {
        Output { projection: self, fine: true, out }
    }
}

/// What products with these weights take.
pub(super) fn precision<'a>(weights: impl IntoIterator<Item = &'a Weight>, quantised: Precision) -> Precision {
    if weights.into_iter().any(|weight| weight.takes_blocks()) { quantised } else { Precision::Float }
}

impl Model {
    /// Runs the tokens of `parts`, leaves their keys and values uncommitted in the caches, and the logits of the tokens
    /// that are asked about in `scratch.logits`, part after part. Looks at `cancel` before each layer.
    pub(crate) fn forward(
        &self,
        device: &Device,
        parts: &mut [Part<'_>],
        scratch: &mut Scratch,
        cancel: &Cancel,
    ) -> Result<()> {
        self.check_decoder()?;
        self.hidden(device, parts, scratch, cancel)?;
        self.logits(device, scratch)
    }

    /// As `forward`, but leaves the hidden states, which the logits are made of, in `scratch.act`.
    pub(crate) fn hidden(
        &self,
        device: &Device,
        parts: &mut [Part<'_>],
        scratch: &mut Scratch,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut pass = self.begin(device, parts, scratch)?;
        loop {
            cancel.check("the forward pass")?;
            if !self.layer(device, &mut pass, parts, scratch)? {
                break;
            }
        }
        self.end(device, scratch)
    }

    /// Begins a pass, whose layers may be run at any time. The parts must be the same each time, and nothing else may use
    /// the scratch meanwhile.
    pub(crate) fn begin(&self, device: &Device, parts: &mut [Part<'_>], scratch: &mut Scratch) -> Result<Pass> {
        let (config, weights) = (&self.config, &self.weights);
        for part in &mut *parts {
            let start = part.cache.length();
            part.cache.reserve(start..start.saturating_add(part.tokens.len()))?;
        }
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        for part in &*parts {
            tokens.extend_from_slice(part.tokens);
            positions.extend((part.cache.length()..).take(part.tokens.len()));
        }
        let context = parts.first().map_or(0, |part| part.cache.capacity());
        let tables = self.frequencies.tables(&positions, context)?;
        let Scratch { x, adapters, .. } = scratch;
        adapters.assign(rows_of(parts).zip(parts.iter().map(|part| part.adapters)));
        adapters.embed(device, &tokens, &weights.embedding, config.embedding_scale, x)?;
        if let Some(token_type) = &weights.token_type {
            device.add_row_to_each(token_type, x);
        }
        if let Some(learned) = &weights.positions {
            device.add_positions(learned, &positions, x)?;
        }
        Ok(Pass { tables, next: 0 })
    }

    /// Runs the next layer; false if there is none left.
    pub(crate) fn layer(
        &self,
        device: &Device,
        pass: &mut Pass,
        parts: &mut [Part<'_>],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let Some(layer) = self.weights.layers.get(pass.next) else { return Ok(false) };
        let l = pass.next;
        let before = l.checked_sub(1).and_then(|l| self.weights.layers[l].ffn_post_norm.as_ref());
        self.block(device, l, layer, before, pass.tables.of(self.config.rotation(l)), parts, scratch)?;
        pass.next += 1;
        Ok(true)
    }

    /// Ends a pass after its last layer: the hidden states of the tokens that are asked about are in `scratch.act`.
    pub(crate) fn end(&self, device: &Device, scratch: &mut Scratch) -> Result<()> {
        let weights = &self.weights;
        let Scratch { x, delta, act, .. } = scratch;
        let taken = precision(weights.output.as_ref().map(|output| &output.weight), Precision::Sixteen);
        let post = weights.layers.last().and_then(|layer| layer.ffn_post_norm.as_ref());
        device.add_norm(x, Some(self.delta(delta, post)), Some(self.norm(&weights.output_norm)), act, taken)
    }

    /// `FailedPrecondition` if the model makes no logits.
    pub(crate) fn check_decoder(&self) -> Result<()> {
        self.output().map(|_| ())
    }

    /// The matrix that makes logits.
    fn output(&self) -> Result<&Projection> {
        self.weights.output.as_ref().ok_or_else(|| {
            let message = "the model is an encoder: it gives embeddings and no logits";
            Error::failed_precondition(message).with("architecture", self.architecture())
        })
    }

    /// scratch.logits = the logits of scratch.act.
    pub(crate) fn logits(&self, device: &Device, scratch: &mut Scratch) -> Result<()> {
        self.logits_from(device, 0, usize::MAX, scratch).map(|_| ())
    }

    /// As `logits`, of `most` tokens of the vocabulary from `done` on, both multiples of 16; of all others where adapters add
    /// to them. Gives where the next part begins.
    pub(crate) fn logits_from(
        &self,
        device: &Device,
        done: usize,
        most: usize,
        scratch: &mut Scratch,
    ) -> Result<Option<usize>> {
        let output = self.output()?;
        let Scratch { act, logits, adapters, .. } = scratch;
        if act.rows() == 0 {
            return Ok(None);
        }
        if adapters.add_to(output) {
            adapters.linear(device, act, [output.fine(logits)])?;
        } else {
            let rows = output.weight.shape().rows;
            let end = rows.min(done.saturating_add(most));
            device.linear_rows(act, output.fine(logits).product(), done..end)?;
            if end < rows {
                return Ok(Some(end));
            }
        }
        device.finish_logits(self.config.logit_divisor, self.config.logit_softcap, logits);
        Ok(None)
    }

    /// One block: attention and feed-forward, each on the norm of x and added to x. The addition of a half's result
    /// is left in `scratch.delta` to the next norm; `post` is what norms the previous block's. The last block leaves only the
    /// rows that something is asked about.
    #[allow(clippy::too_many_arguments)] // what a block is given, each by its name
    fn block(
        &self,
        device: &Device,
        l: usize,
        layer: &Layer,
        post: Option<&NormWeights>,
        rope: &RopeTable,
        parts: &mut [Part<'_>],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let config = &self.config;
        let Scratch { x, delta, attended, act, q, k, v, adapters, observer, latent: room, .. } = &mut *scratch;
        let before = (l > 0).then(|| self.delta(delta, post));
        let taken = layer.queries_keys_values.precision();
        self.add_norm(device, x, before, layer.attn_norm.as_ref(), act, taken)?;
        match &layer.queries_keys_values {
            QueriesKeysValues::Direct(direct) => {
                observe(observer, l, &["attn_q", "attn_k", "attn_v", "attn_qkv"], act);
                adapters.linear(device, act, [direct.q.to(q), direct.k.fine(k), direct.v.fine(v)])?;
                let norms = [&direct.q_norm, &direct.k_norm].map(|norm| norm.as_ref().map(|norm| self.norm(norm)));
                let by_heads = config.architecture.qk_norms != QkNorms::Rows;
                device.head_norm_rope((q, k), norms.into(), by_heads, config.head_length, rope);
            }
            QueriesKeysValues::Latent(latent) => {
                self.latent_in(device, l, latent, rope, (act, q, k, v), room, adapters, observer)?;
            }
        }
        let rows: Vec<Range<usize>> = rows_of(parts).collect();
        let targets = parts.iter_mut().zip(&rows).map(|(part, rows)| {
            let start = part.cache.length();
            part.cache.target(l, start, rows.clone())
        });
        device.kv_append(targets.collect(), k, v)?;
        // Of rows that nobody asks about the last layer's keys and values are needed, and nothing else.
        let last = l + 1 == self.weights.layers.len();
        if last {
            keep_asked(parts, [x, q], adapters);
        }
        let queries = parts.iter().zip(rows).zip(asked_rows_of(parts)).map(|((part, rows), asked)| {
            let (view, length) = (part.cache.view(l), part.cache.length());
            let (rows, first) = if last { (asked, part.asked.start) } else { (rows, 0) };
            KvQuery { view, rows, start: length + first, end: length + part.tokens.len() }
        });
        let queries: Vec<KvQuery<'_>> = queries.collect();
        let span = parts.first().map(|part| part.cache.span(l)).unwrap_or_default();
        let taken = precision([&layer.o.weight], Precision::Eight);
        let attention = Attention {
            heads: config.head_count,
            scale: config.attention_scale,
            cap: config.attention_softcap,
            window: span.window,
            pinned: span.pinned,
            causal: !config.encoder,
            sinks: layer.sinks.as_deref(),
            // A product of its own takes the sums of latent vectors.
            precision: if config.latent.is_some() { Precision::Float } else { taken },
        };
        device.attention(q, &queries, &attention, act)?;
        if let QueriesKeysValues::Latent(latent) = &layer.queries_keys_values {
            self.latent_out(device, latent, act, taken, room)?;
        }
        observe(observer, l, &["attn_output"], act);
        adapters.linear(device, act, [layer.o.to(attended)])?;

        let added = self.delta(attended, layer.attn_post_norm.as_ref());
        // In a parallel block this norm reads what the first one read.
        let before = (!layer.parallel).then_some(added);
        self.add_norm(device, x, before, layer.ffn_norm.as_ref(), act, layer.feed_forward.precision())?;
        if layer.parallel {
            device.add(x, added);
        }
        match &layer.feed_forward {
            FeedForward::Dense(mlp) => self.mlp(device, l, mlp, scratch),
            FeedForward::Experts(experts) => self.mixture(device, l, experts, scratch),
        }
    }

    /// x += delta and act = norm(x), which also becomes x where sums are normed.
    fn add_norm(
        &self,
        device: &Device,
        x: &mut Buffer,
        delta: Option<Delta<'_>>,
        norm: Option<&NormWeights>,
        act: &mut Act,
        taken: Precision,
    ) -> Result<()> {
        device.add_norm(x, delta, norm.map(|norm| self.norm(norm)), act, taken)?;
        if self.config.architecture.norms == Norms::OfSum { device.replace(act, x) } else { Ok(()) }
    }

    /// delta = the network of act.
    pub(super) fn mlp(&self, device: &Device, l: usize, mlp: &Mlp, scratch: &mut Scratch) -> Result<()> {
        let Scratch { delta, act, gate, up, adapters, observer, .. } = scratch;
        let Mlp { names, gate: gate_projection, up: up_projection, down } = mlp;
        observe(observer, l, &names[..2], act);
        let (activation, taken) = (self.config.architecture.activation, precision([&down.weight], Precision::Eight));
        match gate_projection {
            Some(projection) => {
                adapters.linear(device, act, [projection.to(gate), up_projection.to(up)])?;
                device.glu(activation, gate, Some(up), act, taken)?;
            }
            None => {
                adapters.linear(device, act, [up_projection.to(up)])?;
                device.glu(activation, up, None, act, taken)?;
            }
        }
        observe(observer, l, &names[2..], act);
        adapters.linear(device, act, [down.to(delta)])
    }

    pub(super) fn norm<'a>(&self, weights: &'a NormWeights) -> Norm<'a> {
        let kind = self.config.architecture.norm;
        Norm { kind, weight: &weights.weight, bias: weights.bias.as_deref(), eps: self.config.norm_eps }
    }

    /// What a half block adds to x.
    fn delta<'a>(&self, values: &'a Buffer, post: Option<&'a NormWeights>) -> Delta<'a> {
        Delta { values, post: post.map(|post| self.norm(post)), scale: self.config.residual_scale }
    }
}
