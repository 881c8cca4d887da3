//! Tensor names -> [`Weights`]: which tensors a model has, and their shapes.

use super::config::Config;
use super::plan::Plan;
use super::rope::Divisors;
use crate::device::{NormKind, Weight};
use crate::error::{Error, Result};

/// A matrix and its bias.
#[derive(Debug)]
pub(crate) struct Projection {
    /// Which of the model's it is.
    pub index: usize,
    pub weight: Weight,
    pub bias: Option<Vec<f32>>,
}

/// A norm's scale and bias.
#[derive(Debug)]
pub(crate) struct NormWeights {
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
}

/// The tensors of one block.
#[derive(Debug)]
pub(crate) struct Layer {
    /// (D)
    pub attn_norm: NormWeights,
    /// (H*E, D), (K*E, D), (K*E, D)
    pub q: Projection,
    pub k: Projection,
    pub v: Projection,
    /// (E) each, or none.
    pub q_norm: Option<NormWeights>,
    pub k_norm: Option<NormWeights>,
    /// (D, H*E)
    pub o: Projection,
    /// (D), or none.
    pub attn_post_norm: Option<NormWeights>,
    /// (D)
    pub ffn_norm: NormWeights,
    /// (F, D), or none if there is no gate.
    pub gate: Option<Projection>,
    /// (F, D)
    pub up: Projection,
    /// (D, F)
    pub down: Projection,
    /// (D), or none.
    pub ffn_post_norm: Option<NormWeights>,
    /// Both halves read the layer's input.
    pub parallel: bool,
}

/// The tensors of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// (V, D)
    pub embedding: Weight,
    /// (positions, D), or none.
    pub positions: Option<Weight>,
    /// (L)
    pub layers: Vec<Layer>,
    /// (D)
    pub output_norm: NormWeights,
    /// (V, D); the embedding where the file has none of its own.
    pub output: Projection,
    /// Of the rotary frequencies.
    pub divisors: Divisors,
}

impl Weights {
    /// Lays out every tensor of the architecture.
    pub(crate) fn new(plan: &mut Plan<'_>, config: &Config) -> Result<Weights> {
        let (d, v) = (config.embedding_length, config.vocab_size);
        let embedding = plan.matrix("token_embd.weight", v, d)?;
        let positions = match config.learned_positions() {
            Some(n) => Some(plan.matrix("position_embd.weight", n, d)?),
            None => None,
        };
        let mut layers = Vec::new();
        for l in 0..config.layer_count {
            layers.push(Layer::new(plan, config, l)?);
        }
        let output = if plan.has("output.weight") {
            plan.projection("output", v, d)?
        } else {
            plan.slot("output.weight", 0..v, embedding.clone(), None)
        };
        let pairs = config.rope.dims / 2;
        let short = plan.optional_vector("rope_factors_short.weight", pairs)?;
        let long = plan.optional_vector("rope_factors_long.weight", pairs)?;
        let divisors =
            Divisors { all: plan.optional_vector("rope_freqs.weight", pairs)?, short_and_long: short.zip(long) };
        Ok(Weights {
            embedding,
            positions,
            layers,
            output_norm: NormWeights::new(plan, config, "output_norm", d)?,
            output,
            divisors,
        })
    }
}

impl NormWeights {
    /// `<name>.weight` and, for LayerNorm, `<name>.bias`, (n) each.
    fn new(plan: &mut Plan<'_>, config: &Config, name: &str, n: usize) -> Result<NormWeights> {
        let weight = plan.vector(&format!("{name}.weight"), n)?;
        let bias = match config.architecture.norm {
            NormKind::Rms => None,
            NormKind::Layer => plan.optional_vector(&format!("{name}.bias"), n)?,
        };
        Ok(NormWeights { weight, bias })
    }
}

impl Layer {
    fn new(plan: &mut Plan<'_>, config: &Config, l: usize) -> Result<Layer> {
        let (d, f, e) = (config.embedding_length, config.feed_forward_length, config.head_length);
        let size = |heads: usize| {
            let key = format!("{}.attention.key_length", config.architecture.name);
            heads
                .checked_mul(e)
                .ok_or_else(|| Error::corrupt_file(format!("{key}: {heads} heads of {e}")).with("key", key))
        };
        let (q_rows, kv_rows) = (size(config.head_count)?, size(config.head_count_kv)?);
        let name = |part: &str| format!("blk.{l}.{part}");
        let arch = config.architecture;
        let norm = |plan: &mut Plan<'_>, part: &str, n| NormWeights::new(plan, config, &name(part), n);
        let norm_if = |wanted: bool, plan: &mut Plan<'_>, part: &str, n| {
            if wanted { norm(plan, part, n).map(Some) } else { Ok(None) }
        };
        // Parallel blocks may norm the input of each half by itself or of both at once.
        let parallel = arch.parallel || arch.norm == NormKind::Layer && !plan.has(&name("ffn_norm.weight"));
        let attn_norm = if plan.has(&name("attn_norm_2.weight")) { "attn_norm_2" } else { "attn_norm" };
        let [q, k, v] = if plan.has(&name("attn_qkv.weight")) {
            plan.projections(&name("attn_qkv"), [q_rows, kv_rows, kv_rows], d)?
        } else {
            let q = plan.projection(&name("attn_q"), q_rows, d)?;
            [q, plan.projection(&name("attn_k"), kv_rows, d)?, plan.projection(&name("attn_v"), kv_rows, d)?]
        };
        let (gate, up) = if !arch.gated {
            (None, plan.projection(&name("ffn_up"), f, d)?)
        } else if plan.has(&name("ffn_gate.weight")) || !plan.has(&name("ffn_up.weight")) {
            (Some(plan.projection(&name("ffn_gate"), f, d)?), plan.projection(&name("ffn_up"), f, d)?)
        } else {
            let [gate, up] = plan.projections(&name("ffn_up"), [f, f], d)?;
            (Some(gate), up)
        };
        Ok(Layer {
            attn_norm: norm(plan, attn_norm, d)?,
            q,
            k,
            v,
            q_norm: norm_if(arch.head_norms, plan, "attn_q_norm", e)?,
            k_norm: norm_if(arch.head_norms, plan, "attn_k_norm", e)?,
            o: plan.projection(&name("attn_output"), d, q_rows)?,
            attn_post_norm: norm_if(arch.post_norms, plan, "post_attention_norm", d)?,
            ffn_norm: norm(plan, if parallel { "attn_norm" } else { "ffn_norm" }, d)?,
            gate,
            up,
            down: plan.projection(&name("ffn_down"), d, f)?,
            ffn_post_norm: norm_if(arch.post_norms, plan, "post_ffw_norm", d)?,
            parallel,
        })
    }
}
