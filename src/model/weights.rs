//! Tensor names -> [`Weights`]: which tensors a model has, and their shapes.

use super::arch::{Norms, QkNorms};
use super::config::{self, Config};
use super::forward::precision;
use super::plan::Plan;
use super::rope::Divisors;
use crate::device::{Matrix, NormKind, Precision, Weight};
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
    /// (D), or none.
    pub attn_norm: Option<NormWeights>,
    pub queries_keys_values: QueriesKeysValues,
    /// (H) scores of the positions that have no value, or none.
    pub sinks: Option<Vec<f32>>,
    /// (D, H*E)
    pub o: Projection,
    /// (D), or none.
    pub attn_post_norm: Option<NormWeights>,
    /// (D), or none.
    pub ffn_norm: Option<NormWeights>,
    pub feed_forward: FeedForward,
    /// (D), or none.
    pub ffn_post_norm: Option<NormWeights>,
    /// Both halves read the layer's input.
    pub parallel: bool,
}

/// Where attention's queries, keys and values come from.
#[derive(Debug)]
pub(crate) enum QueriesKeysValues {
    Direct(Direct),
    Latent(Latent),
}

/// Each by a matrix of its own.
#[derive(Debug)]
pub(crate) struct Direct {
    /// (H*E, D), (K*E, D), (K*E, D)
    pub q: Projection,
    pub k: Projection,
    pub v: Projection,
    /// (E), or as wide as q or k, or none.
    pub q_norm: Option<NormWeights>,
    pub k_norm: Option<NormWeights>,
}

/// Through latent vectors; `config::Latent` has the lengths.
#[derive(Debug)]
pub(crate) struct Latent {
    /// (query rank, D) and its norm, or none.
    pub q_down: Option<(Projection, NormWeights)>,
    /// (H*(plain + rotated), query rank or D)
    pub q: Projection,
    /// (rank + rotated, D)
    pub kv_down: Projection,
    /// (rank)
    pub kv_norm: NormWeights,
    /// (rank, plain) of each head: what turns a query into one on latent vectors.
    pub k_up: Vec<Matrix>,
    /// (value, rank) of each head.
    pub v_up: Vec<Matrix>,
}

/// The feed-forward half.
#[derive(Debug)]
pub(crate) enum FeedForward {
    Dense(Box<Mlp>),
    Experts(Box<Experts>),
}

/// A feed-forward network.
#[derive(Debug)]
pub(crate) struct Mlp {
    /// The tensors' names in a layer: gate, up and down.
    pub names: [&'static str; 3],
    /// (F, D), or none if there is no gate.
    pub gate: Option<Projection>,
    /// (F, D)
    pub up: Projection,
    /// (D, F)
    pub down: Projection,
}

/// A mixture of feed-forward networks.
#[derive(Debug)]
pub(crate) struct Experts {
    /// (X, D)
    pub router: Projection,
    /// (X), or none: added to the scores that the choice goes by.
    pub choice_bias: Option<Vec<f32>>,
    /// (F, D), (F, D), (D, F) of each expert.
    pub gate: Vec<Matrix>,
    pub up: Vec<Matrix>,
    pub down: Vec<Matrix>,
    /// A network for every token, and (1, D) what gates it.
    pub shared: Option<(Mlp, Option<Projection>)>,
}

/// The tensors of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// (V, D)
    pub embedding: Weight,
    /// (D), or none: what the first kind of text adds to every token.
    pub token_type: Option<Vec<f32>>,
    /// (positions, D), or none.
    pub positions: Option<Weight>,
    /// (L)
    pub layers: Vec<Layer>,
    /// (D)
    pub output_norm: NormWeights,
    /// (V, D); the embedding where the file has none of its own. Encoders have none.
    pub output: Option<Projection>,
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
        let output = if config.encoder {
            ["weight", "bias", "scale", "input_scale"].iter().for_each(|end| plan.pass_over(&format!("output.{end}")));
            None
        } else if plan.has("output.weight") {
            Some(plan.projection("output", v, d)?)
        } else {
            Some(plan.slot("output.weight", 0..v, embedding.clone(), None))
        };
        let pairs = config.rope.dims / 2;
        let short = plan.optional_vector("rope_factors_short.weight", pairs)?;
        let long = plan.optional_vector("rope_factors_long.weight", pairs)?;
        if short.is_some() != long.is_some() {
            let lacking = if short.is_some() { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
            let message = format!("the tensor {lacking} is missing, and there is the other of the two");
            return Err(Error::corrupt_file(message).with("tensor", lacking));
        }
        let divisors =
            Divisors { all: plan.optional_vector("rope_freqs.weight", pairs)?, short_and_long: short.zip(long) };
        // Where sums are normed, the norm at a block's end is what stands before the next.
        let last = match config.architecture.norms {
            Norms::OfSum => format!("blk.{}.layer_output_norm", config.layer_count - 1),
            _ => "output_norm".to_owned(),
        };
        let output_norm = NormWeights::new(plan, config, &last, d)?;
        let token_type = plan.first_row_if_there("token_types.weight", d)?;
        plan.refuse_others(config.layer_count)?;
        Ok(Weights { embedding, token_type, positions, layers, output_norm, output, divisors })
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

/// The tensors of layer `l`, by the parts of their names.
struct Names<'p, 'a> {
    plan: &'p mut Plan<'a>,
    config: &'p Config,
    l: usize,
}

impl Names<'_, '_> {
    fn name(&self, part: &str) -> String {
        format!("blk.{}.{part}", self.l)
    }

    fn has(&self, part: &str) -> bool {
        self.plan.has(&self.name(&format!("{part}.weight")))
    }

    fn norm(&mut self, part: &str, n: usize) -> Result<NormWeights> {
        NormWeights::new(self.plan, self.config, &self.name(part), n)
    }

    fn norm_if(&mut self, wanted: bool, part: &str, n: usize) -> Result<Option<NormWeights>> {
        if wanted { self.norm(part, n).map(Some) } else { Ok(None) }
    }

    /// (heads, n), without a bias.
    fn norm_of_heads_if_there(&mut self, part: &str, heads: usize, n: usize) -> Result<Option<NormWeights>> {
        let weight = self.plan.optional_rows(&self.name(&format!("{part}.weight")), heads, n)?;
        Ok(weight.map(|weight| NormWeights { weight, bias: None }))
    }

    fn projection(&mut self, part: &str, rows: usize, columns: usize) -> Result<Projection> {
        self.plan.projection(&self.name(part), rows, columns)
    }

    fn stacked<const N: usize>(
        &mut self,
        part: &str,
        count: usize,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[Vec<Matrix>; N]> {
        self.plan.stacked(&self.name(part), count, rows, columns)
    }

    fn vector_if_there(&mut self, part: &str, n: usize) -> Result<Option<Vec<f32>>> {
        self.plan.optional_vector(&self.name(part), n)
    }
}

impl Layer {
    fn new(plan: &mut Plan<'_>, config: &Config, l: usize) -> Result<Layer> {
        let (arch, d) = (config.architecture, config.embedding_length);
        let mut names = Names { plan, config, l };
        // Parallel blocks may norm the input of each half by itself or of both at once.
        let parallel =
            arch.parallel || arch.norms == Norms::Before && arch.norm == NormKind::Layer && !names.has("ffn_norm");
        let attn_norm = match arch.norms {
            Norms::After => None,
            Norms::OfSum if l == 0 => Some(NormWeights::new(names.plan, config, "token_embd_norm", d)?),
            Norms::OfSum => Some(NormWeights::new(names.plan, config, &format!("blk.{}.layer_output_norm", l - 1), d)?),
            _ if names.has("attn_norm_2") => Some(names.norm("attn_norm_2", d)?),
            _ => Some(names.norm("attn_norm", d)?),
        };
        let ffn_norm = match arch.norms {
            Norms::After => None,
            Norms::OfSum => Some(names.norm("attn_output_norm", d)?),
            _ if parallel => Some(names.norm("attn_norm", d)?),
            // Some name it by its place.
            Norms::Before if !names.has("ffn_norm") && names.has("post_attention_norm") => {
                Some(names.norm("post_attention_norm", d)?)
            }
            _ => Some(names.norm("ffn_norm", d)?),
        };
        let post = matches!(arch.norms, Norms::BeforeAndAfter | Norms::After);
        let width = match &config.latent {
            Some(latent) => size(config, config.head_count, latent.value)?,
            None => size(config, config.head_count, config.value_length)?,
        };
        Ok(Layer {
            attn_norm,
            queries_keys_values: match &config.latent {
                Some(latent) => QueriesKeysValues::Latent(Latent::new(&mut names, config, latent)?),
                None => QueriesKeysValues::Direct(Direct::new(&mut names, config)?),
            },
            sinks: names.vector_if_there("attn_sinks.weight", config.head_count)?,
            o: names.projection("attn_output", d, width)?,
            attn_post_norm: names.norm_if(post, "post_attention_norm", d)?,
            ffn_norm,
            feed_forward: match &config.experts {
                Some(experts) if names.has("ffn_gate_inp") => {
                    FeedForward::Experts(Box::new(Experts::new(&mut names, experts, d)?))
                }
                _ => FeedForward::Dense(Box::new(Mlp::new(
                    &mut names,
                    ["ffn_gate", "ffn_up", "ffn_down"],
                    config.feed_forward_length,
                )?)),
            },
            ffn_post_norm: names.norm_if(post, "post_ffw_norm", d)?,
            parallel,
        })
    }
}

/// `heads` times `e`, of which a file may state any.
fn size(config: &Config, heads: usize, e: usize) -> Result<usize> {
    let key = format!("{}.attention.key_length", config.architecture.name);
    heads.checked_mul(e).ok_or_else(|| Error::corrupt_file(format!("{key}: {heads} heads of {e}")).with("key", key))
}

impl Direct {
    fn new(names: &mut Names<'_, '_>, config: &Config) -> Result<Direct> {
        let (d, e) = (config.embedding_length, config.head_length);
        let (q_rows, kv_rows) = (size(config, config.head_count, e)?, size(config, config.head_count_kv, e)?);
        let [q, k, v] = if names.has("attn_qkv") {
            names.plan.projections(&names.name("attn_qkv"), [q_rows, kv_rows, kv_rows], d)?
        } else {
            let q = names.projection("attn_q", q_rows, d)?;
            [q, names.projection("attn_k", kv_rows, d)?, names.projection("attn_v", kv_rows, d)?]
        };
        let mut norm = |part: &str, rows: usize| match config.architecture.qk_norms {
            QkNorms::None => Ok(None),
            QkNorms::Heads => names.norm(part, e).map(Some),
            QkNorms::Rows => names.norm(part, rows).map(Some),
            QkNorms::HeadsApart => names.norm_of_heads_if_there(part, rows / e, e),
        };
        let (q_norm, k_norm) = (norm("attn_q_norm", q_rows)?, norm("attn_k_norm", kv_rows)?);
        Ok(Direct { q, k, v, q_norm, k_norm })
    }
}

impl Latent {
    fn new(names: &mut Names<'_, '_>, config: &Config, latent: &config::Latent) -> Result<Latent> {
        let (d, heads, rotated) = (config.embedding_length, config.head_count, config.rope.dims);
        let config::Latent { rank, query_rank, plain, value } = *latent;
        let q_rows = size(config, heads, plain + rotated)?;
        let (q_down, q) = match query_rank {
            Some(n) => {
                let down = (names.projection("attn_q_a", n, d)?, names.norm("attn_q_a_norm", n)?);
                (Some(down), names.projection("attn_q_b", q_rows, n)?)
            }
            None => (None, names.projection("attn_q", q_rows, d)?),
        };
        let kv_down = names.projection("attn_kv_a_mqa", rank + rotated, d)?;
        let kv_norm = names.norm("attn_kv_a_norm", rank)?;
        // Older files hold what makes keys from latent vectors, newer ones its transpose.
        let [k_up, v_up] = if names.has("attn_kv_b") {
            names.plan.halves_of_heads(&names.name("attn_kv_b.weight"), heads, (plain, value), rank)?
        } else {
            let [k_up] = names.stacked("attn_k_b", heads, [rank], plain)?;
            let [v_up] = names.stacked("attn_v_b", heads, [value], rank)?;
            [k_up, v_up]
        };
        Ok(Latent { q_down, q, kv_down, kv_norm, k_up, v_up })
    }
}

impl Mlp {
    /// The network of tensors of these names, F wide.
    fn new(names: &mut Names<'_, '_>, parts: [&'static str; 3], f: usize) -> Result<Mlp> {
        let d = names.config.embedding_length;
        let [gate, up, down] = parts;
        let (gate, up) = if !names.config.architecture.gated {
            (None, names.projection(up, f, d)?)
        } else if names.has(gate) || !names.has(up) {
            (Some(names.projection(gate, f, d)?), names.projection(up, f, d)?)
        } else {
            let [gate, up] = names.plan.projections(&names.name(up), [f, f], d)?;
            (Some(gate), up)
        };
        Ok(Mlp { names: parts, gate, up, down: names.projection(down, d, f)? })
    }

    /// The matrices that take the input.
    fn inputs(&self) -> impl Iterator<Item = &Weight> {
        self.gate.iter().chain([&self.up]).map(|projection| &projection.weight)
    }
}

impl QueriesKeysValues {
    /// What the first products take.
    pub(crate) fn precision(&self) -> Precision {
        let weights = match self {
            QueriesKeysValues::Direct(Direct { q, k, v, .. }) => [&q.weight, &k.weight, &v.weight],
            QueriesKeysValues::Latent(Latent { q_down, q, kv_down, .. }) => {
                let q = q_down.as_ref().map_or(q, |(down, _)| down);
                [&q.weight, &q.weight, &kv_down.weight]
            }
        };
        precision(weights, Precision::Sixteen)
    }
}

impl FeedForward {
    /// What the first products take.
    pub(crate) fn precision(&self) -> Precision {
        match self {
            FeedForward::Dense(mlp) => precision(mlp.inputs(), Precision::Eight),
            FeedForward::Experts(experts) => {
                let Experts { router, shared, .. } = &**experts;
                let shared = shared.iter().flat_map(|(mlp, gate)| mlp.inputs().chain(gate.as_ref().map(|g| &g.weight)));
                precision([&router.weight].into_iter().chain(shared), Precision::Sixteen)
            }
        }
    }
}

impl Experts {
    fn new(names: &mut Names<'_, '_>, experts: &super::config::Experts, d: usize) -> Result<Experts> {
        let (x, f) = (experts.count, experts.feed_forward_length);
        let router = names.projection("ffn_gate_inp", x, d)?;
        let [gate, up] = if names.has("ffn_gate_up_exps") {
            names.stacked("ffn_gate_up_exps", x, [f, f], d)?
        } else {
            let [gate] = names.stacked("ffn_gate_exps", x, [f], d)?;
            let [up] = names.stacked("ffn_up_exps", x, [f], d)?;
            [gate, up]
        };
        let [down] = names.stacked("ffn_down_exps", x, [d], f)?;
        let shared = if names.has("ffn_up_shexp") {
            // Its width is in no key of some files.
            let f = names.plan.rows(&names.name("ffn_up_shexp.weight"))?;
            let gate = if names.has("ffn_gate_inp_shexp") {
                Some(names.projection("ffn_gate_inp_shexp", 1, d)?)
            } else {
                None
            };
            let parts = ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"];
            Some((Mlp::new(names, parts, f)?, gate))
        } else {
            None
        };
        let choice_bias = names.vector_if_there("exp_probs_b.bias", x)?;
        Ok(Experts { router, choice_bias, gate, up, down, shared })
    }
}
