//! The forward pass: tokens in, logits out. One decoder block serves every architecture of the table.
//!
//! Products with quantised weights take their activations in 8 bits, but in 16 where an error stays: keys and values,
//! which every later token reads, and the logits. These are few of a model's products (6 % in SmolLM2), and with them
//! the distance from exact arithmetic is two thirds of what it is without.

use std::ops::Range;

use super::config::Config;
use super::weights::{Layer, Projection};
use super::{Cancel, Model};
use crate::cache::Contiguous;
use crate::device::{Act, Attention, Buffer, Device, Norm, Precision, Product, RopeTable, Weight};
use crate::error::Result;

/// The intermediate results of a pass, kept from call to call so that steady state allocates nothing large.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// (T, D): the residual stream.
    x: Buffer,
    /// (T, D): what the last half block adds to it.
    delta: Buffer,
    /// Input of the next product.
    act: Act,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    gate: Buffer,
    up: Buffer,
    /// (rows asked, V)
    pub logits: Buffer,
}

impl Scratch {
    /// About how many bytes a chunk of `tokens` needs, `logit_rows` of them with logits.
    pub(crate) fn bytes(config: &Config, tokens: usize, logit_rows: usize) -> usize {
        let (d, e) = (config.embedding_length, config.head_length);
        let (q, kv) = (config.head_count * e, config.head_count_kv * e);
        // `act` holds 4 bytes a value and 1.5 quantised; attention holds its sums once more.
        let widest = config.feed_forward_length.max(q).max(d);
        let row = 2 * d + 2 * q + 2 * kv + 2 * config.feed_forward_length + widest * 11 / 8;
        4 * (tokens.saturating_mul(row)).saturating_add(logit_rows.saturating_mul(config.vocab_size))
    }
}

impl Projection {
    /// The product with 8-bit activations.
    fn to<'a>(&'a self, out: &'a mut Buffer) -> Product<'a> {
        Product { weight: &self.weight, bias: self.bias.as_deref(), fine: false, out }
    }

    /// The product with 16-bit activations.
    fn fine<'a>(&'a self, out: &'a mut Buffer) -> Product<'a> {
        Product { fine: true, ..self.to(out) }
    }
}

/// What products with these weights take.
fn precision<const N: usize>(weights: [&Weight; N], quantised: Precision) -> Precision {
    if weights.iter().any(|weight| weight.takes_blocks()) { quantised } else { Precision::Float }
}

impl Model {
    /// Runs `tokens` (T) after the positions that `cache` holds, leaves their keys and values in it uncommitted, and
    /// the logits of the tokens `rows` in `scratch.logits`. Every token must be below V and the cache have room.
    /// Looks at `cancel` before each layer.
    pub(crate) fn forward(
        &self,
        device: &Device,
        tokens: &[u32],
        rows: Range<usize>,
        cache: &mut Contiguous,
        scratch: &mut Scratch,
        cancel: &Cancel,
    ) -> Result<()> {
        let (config, weights) = (&self.config, &self.weights);
        let embedding_scale =
            if config.architecture.embedding_scaled { (config.embedding_length as f32).sqrt() } else { 1.0 };
        let tables = self.frequencies.tables(cache.length(), tokens.len())?;
        device.embed(tokens, &weights.embedding, embedding_scale, &mut scratch.x)?;
        let mut post_norm = None;
        for (l, layer) in weights.layers.iter().enumerate() {
            cancel.check("the forward pass")?;
            self.block(device, l, layer, post_norm, tables.of(config.is_local(l)), cache, scratch)?;
            post_norm = self.optional_norm(layer.ffn_post_norm.as_deref());
        }
        if rows.is_empty() {
            return Ok(());
        }
        let Scratch { x, delta, act, logits, .. } = scratch;
        let norm = self.norm(&weights.output_norm);
        let taken = precision([&weights.output], Precision::Sixteen);
        device.add_norm(x, Some((delta, post_norm)), rows, norm, act, taken)?;
        device.linear(act, [Product { weight: &weights.output, bias: None, fine: true, out: logits }])?;
        if let Some(cap) = config.logit_softcap {
            device.softcap(cap, logits);
        }
        Ok(())
    }

    /// One block: attention and feed-forward, each on the norm of x and added to x. The addition of a half's result
    /// is left in `scratch.delta` to the next norm; `post_norm` is the previous block's.
    #[allow(clippy::too_many_arguments)] // what a block is given, each by its name
    fn block(
        &self,
        device: &Device,
        l: usize,
        layer: &Layer,
        post_norm: Option<Norm<'_>>,
        rope: &RopeTable,
        cache: &mut Contiguous,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let config = &self.config;
        let Scratch { x, delta, act, q, k, v, gate, up, .. } = scratch;
        let rows = 0..x.rows();
        let before = (l > 0).then_some((&*delta, post_norm));
        let taken = precision([&layer.q.weight, &layer.k.weight, &layer.v.weight], Precision::Sixteen);
        device.add_norm(x, before, rows.clone(), self.norm(&layer.attn_norm), act, taken)?;
        device.linear(act, [layer.q.to(q), layer.k.fine(k), layer.v.fine(v)])?;
        let head_norms = (self.optional_norm(layer.q_norm.as_deref()), self.optional_norm(layer.k_norm.as_deref()));
        device.head_norm_rope((q, k), head_norms, config.head_length, rope);
        cache.append(device, l, k, v);
        let attention = Attention {
            heads: config.head_count,
            scale: config.attention_scale,
            cap: config.attention_softcap,
            window: config.window(l),
            precision: precision([&layer.o.weight], Precision::Eight),
        };
        device.attention(q, cache.view(l), &attention, cache.length(), act)?;
        device.linear(act, [layer.o.to(delta)])?;

        let added = Some((&*delta, self.optional_norm(layer.attn_post_norm.as_deref())));
        let taken = precision([&layer.gate.weight, &layer.up.weight], Precision::Eight);
        device.add_norm(x, added, rows, self.norm(&layer.ffn_norm), act, taken)?;
        device.linear(act, [layer.gate.to(gate), layer.up.to(up)])?;
        let taken = precision([&layer.down.weight], Precision::Eight);
        device.glu(config.architecture.activation, gate, up, act, taken)?;
        device.linear(act, [layer.down.to(delta)])
    }

    fn norm<'a>(&self, weight: &'a [f32]) -> Norm<'a> {
        Norm { weight, eps: self.config.norm_eps }
    }

    fn optional_norm<'a>(&self, weight: Option<&'a [f32]>) -> Option<Norm<'a>> {
        weight.map(|weight| self.norm(weight))
    }
}
