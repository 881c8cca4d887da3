//! GGUF keys -> [`Config`]: every number that the forward pass needs, checked once.

use super::arch::{Architecture, LocalRope, Positions};
use crate::device::{Gating, NormKind, Routing};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value};
use crate::numeric::wide;

/// What a model is.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub(crate) architecture: &'static Architecture,
    /// Tokens see the whole text, later tokens too: it gives hidden states and no logits.
    pub(crate) encoder: bool,
    /// L.
    pub layer_count: usize,
    /// D.
    pub embedding_length: usize,
    /// F.
    pub feed_forward_length: usize,
    /// H.
    pub head_count: usize,
    /// K.
    pub head_count_kv: usize,
    /// E, of queries and keys as they are cached.
    pub head_length: usize,
    /// E, of values as they are cached.
    pub value_length: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// V.
    pub vocab_size: usize,
    /// How the hidden states of a text become its embedding; `None`: in a way that is not supported.
    pub pooling: Option<Pooling>,
    pub(crate) norm_eps: f32,
    pub(crate) embedding_scale: f32,
    /// What a half block adds is multiplied by this.
    pub(crate) residual_scale: f32,
    /// Logits are divided by this.
    pub(crate) logit_divisor: Option<f32>,
    pub(crate) attention_scale: f32,
    pub(crate) attention_softcap: Option<f32>,
    pub(crate) logit_softcap: Option<f32>,
    /// Positions that a layer with a window sees, its own included.
    pub(crate) window: Option<usize>,
    /// Which layers have the window, where the file says; otherwise the architecture does.
    windowed: Windowed,
    pub(crate) experts: Option<Experts>,
    pub(crate) latent: Option<Latent>,
    pub(crate) rope: Rope,
}

/// How the hidden states of a text's tokens become an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Not at all: each token has its own.
    None,
    /// Their mean: the sums in f64, in the order of the tokens, divided by their number.
    Mean,
    /// The state of the first token.
    Cls,
    /// The state of the last token.
    Last,
}

/// Which layers have a window.
#[derive(Debug, Clone, PartialEq)]
enum Windowed {
    /// All but every n-th; none without a number.
    GlobalEvery(Option<usize>),
    /// Those that are true.
    Listed(Vec<bool>),
}

/// A mixture of experts in place of a feed-forward half.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Experts {
    /// X.
    pub count: usize,
    /// F of each.
    pub feed_forward_length: usize,
    pub routing: Routing,
}

/// Attention through one latent vector of each position (DeepSeek-AI, "DeepSeek-V2", 2024). The cache holds one head,
/// whose key is the rotated part and then the latent vector, and whose value is the latent vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latent {
    /// Elements of the latent vector.
    pub rank: usize,
    /// Elements of the vector that queries are made from, if they are made from one.
    pub query_rank: Option<usize>,
    /// Elements of a head's key that are not rotated.
    pub plain: usize,
    /// Elements of a head's value.
    pub value: usize,
}

/// Which of a model's rotary tables a layer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    None,
    Local,
    Global,
}

/// How positions are turned into angles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// Elements of a head that are rotated; 0: none.
    pub dims: usize,
    pub base: f64,
    /// Base of layers with a window.
    pub local_base: f64,
    /// How contexts longer than the first training's are reached; in layers with a window as [`LocalRope`] says.
    pub scaling: Scaling,
    /// The context of the first training.
    pub original_context: usize,
    /// Cosines and sines are multiplied by this, where the file says so.
    pub attention_factor: Option<f64>,
    /// Scores are multiplied by this.
    pub score_factor: f64,
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scaling {
    /// Positions are divided by a factor (Chen et al., "Extending Context Window of Large Language Models via Positional
    /// Interpolation", 2023).
    Linear(f64),
    /// Low frequencies are, high ones are not, with a ramp between (Peng et al., "YaRN: Efficient Context Window
    /// Extension of Large Language Models", 2023).
    ///
    /// `magnitude`: what cosines and sines are multiplied by.
    Yarn { factor: f64, beta_fast: f64, beta_slow: f64, magnitude: f64 },
}

/// Reads `<architecture>.<name>` keys.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

fn bad(key: &str, message: String) -> Error {
    Error::corrupt_file(message).with("key", key)
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn missing(&self, name: &str) -> Error {
        let key = self.key(name);
        bad(&key, format!("the key {key} is missing"))
    }

    /// A count in 1..=`most`.
    fn count(&self, name: &str, most: usize) -> Result<Option<usize>> {
        let key = self.key(name);
        let Some(value) = self.gguf.u64(&key)? else { return Ok(None) };
        match usize::try_from(value) {
            Ok(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(bad(&key, format!("{key} is {value}, but must be in 1..={most}")).with("found", value)),
        }
    }

    /// A count, where 0 means none.
    fn count_or_zero(&self, name: &str) -> Result<Option<usize>> {
        if self.gguf.u64(&self.key(name))? == Some(0) { Ok(None) } else { self.count(name, MANY) }
    }

    /// `Unsupported` naming the first key that would change results and that nothing here reads.
    fn refuse_unsupported(&self) -> Result<()> {
        let stated = |value| match value {
            Value::Bool(flag) => flag,
            value => value.as_f32() != Some(0.0) && value.as_integer() != Some(0),
        };
        for name in UNSUPPORTED_KEYS {
            let key = self.key(name);
            if self.gguf.get(&key).is_some_and(stated) {
                return Err(Error::unsupported(format!("{key} is not supported")).with("key", key));
            }
        }
        Ok(())
    }

    fn required(&self, name: &str, most: usize) -> Result<usize> {
        self.count(name, most)?.ok_or_else(|| self.missing(name))
    }

    /// A count that may be an array with one number a layer; different numbers are not supported.
    fn count_of_layers(&self, name: &str, layers: usize, most: usize) -> Result<Option<usize>> {
        let key = self.key(name);
        if !matches!(self.gguf.get(&key), Some(Value::Array(_))) {
            return self.count(name, most);
        }
        let Some(array) = self.gguf.array(&key)? else { return Ok(None) };
        let numbers = array.to_u32s()?;
        if numbers.len() != layers {
            let found = numbers.len();
            return Err(bad(&key, format!("{key} holds {found} numbers for {layers} layers")).with("found", found));
        }
        let first = numbers[0];
        if numbers.iter().any(|&n| n != first) {
            return Err(Error::unsupported(format!("{key} differs from layer to layer")).with("key", key));
        }
        match first as usize {
            n if (1..=most).contains(&n) => Ok(Some(n)),
            n => Err(bad(&key, format!("{key} is {n}, but must be in 1..={most}")).with("found", n)),
        }
    }

    /// A finite number above zero.
    fn positive(&self, name: &str) -> Result<Option<f32>> {
        let key = self.key(name);
        match self.gguf.f32(&key)? {
            Some(x) if !(x.is_finite() && x > 0.0) => {
                Err(bad(&key, format!("{key} is {x}, but must be a finite number above 0")).with("found", x))
            }
            x => Ok(x),
        }
    }

    /// As `positive`, where 0 means none.
    fn positive_or_none(&self, name: &str) -> Result<Option<f32>> {
        if self.gguf.f32(&self.key(name))? == Some(0.0) { Ok(None) } else { self.positive(name) }
    }
}

/// An expert takes memory beside its weights, so their number is bounded: a small file could state millions of tiny ones.
const MANY_EXPERTS: usize = 8192;

/// A token's experts are chosen one by one, each from all, and their groups likewise.
const MANY_USED_EXPERTS: usize = 256;

/// Keys of other architectures' features, after the architecture's name: a file that states one, and not as 0 or false,
/// describes another model than the one that would be run.
const UNSUPPORTED_KEYS: [&str; 12] = [
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.relative_buckets_count",
    "attention.temperature_length",
    "attention.temperature_scale",
    "attention.output_scale",
    "attention.block_count",
    "attention.shared_kv_layers",
    "decoder_block_count",
    "moe_every_n_layers",
    "ssm.inner_size",
    "wkv.head_size",
];

/// More of anything than a model of today has by orders of magnitude; products of two still fit 64 bits.
const MANY: usize = 1 << 28;

impl Config {
    /// Reads the configuration. `vocab_size` is the tokenizer's.
    pub(crate) fn from_gguf(gguf: &Gguf, vocab_size: usize) -> Result<Config> {
        let name = architecture_name(gguf)?;
        let architecture = Architecture::find(name)?;
        let keys = Keys { gguf, prefix: name };
        keys.refuse_unsupported()?;
        let block_count = keys.required("block_count", MANY)?;
        let layer_count = block_count - predicting(&keys, block_count)?;
        let embedding_length = keys.required("embedding_length", MANY)?;
        let feed_forward_length = keys
            .count_of_layers("feed_forward_length", block_count, MANY)?
            .ok_or_else(|| keys.missing("feed_forward_length"))?;
        let head_count = keys
            .count_of_layers("attention.head_count", block_count, MANY)?
            .ok_or_else(|| keys.missing("attention.head_count"))?;
        let head_count_kv = keys.count_of_layers("attention.head_count_kv", block_count, MANY)?.unwrap_or(head_count);
        if !head_count.is_multiple_of(head_count_kv) {
            let key = keys.key("attention.head_count_kv");
            let message = format!("{key} is {head_count_kv}, which does not divide the {head_count} heads");
            return Err(bad(&key, message).with("found", head_count_kv));
        }
        let head_length = match keys.count("attention.key_length", MANY)? {
            Some(n) => n,
            None if embedding_length.is_multiple_of(head_count) => embedding_length / head_count,
            None => {
                let key = keys.key("attention.head_count");
                let message = format!("{key} is {head_count}, which does not divide the width {embedding_length}");
                return Err(bad(&key, message).with("found", head_count));
            }
        };
        if let Some(n) = keys.count("attention.value_length", MANY)?
            && n != head_length
            && !architecture.latent
        {
            let key = keys.key("attention.value_length");
            let message = format!("{key} is {n}, but the keys have {head_length}; different lengths are not supported");
            return Err(Error::unsupported(message).with("key", key));
        }
        let eps_key = match architecture.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let norm_eps = match gguf.f32(&keys.key(eps_key))? {
            Some(eps) if eps.is_finite() && eps >= 0.0 => eps,
            Some(eps) => {
                let key = keys.key(eps_key);
                return Err(bad(&key, format!("{key} is {eps}, but must be finite and not negative")));
            }
            None => return Err(keys.missing(eps_key)),
        };
        let unrotated = architecture.unrotated_by_key && gguf.bool(&keys.key("rope.scaling.finetuned"))? == Some(false);
        let rope = match architecture.positions {
            Positions::RotaryInterleaved | Positions::RotaryHalves if !unrotated => {
                rope(&keys, architecture, head_length)?
            }
            // Nothing is rotated, whatever the length of a head.
            _ => Rope { dims: 0, ..rope(&keys, architecture, head_length.next_multiple_of(2))? },
        };
        let latent = if architecture.latent { Some(latent(&keys, head_length, rope.dims)?) } else { None };
        let window_key = keys.key("attention.sliding_window");
        let window = match gguf.u64(&window_key)? {
            None => architecture.defaults.window,
            Some(0) => None,
            Some(n) => Some(usize::try_from(n).unwrap_or(usize::MAX)),
        };
        let softcap = |name: &str, default: Option<f32>| match gguf.f32(&keys.key(name))? {
            None => Ok(default),
            Some(_) => keys.positive_or_none(name),
        };
        // The 27B sizes of Gemma scale by the width of a head as D / H, which is not their head length.
        let scale_length = match (name, layer_count, &latent) {
            ("gemma2", 46, _) | ("gemma3", 62, _) => embedding_length / head_count,
            (_, _, Some(latent)) => latent.plain + rope.dims,
            _ => head_length,
        };
        let attention_scale = match keys.positive_or_none("attention.scale")? {
            Some(scale) => scale,
            None => (rope.score_factor / (scale_length as f64).sqrt()) as f32,
        };
        let embedding_scale = if architecture.embedding_scaled { (embedding_length as f32).sqrt() } else { 1.0 };
        let encoder = architecture.encoder || gguf.bool(&keys.key("attention.causal"))? == Some(false);
        let config = Config {
            architecture,
            encoder,
            layer_count,
            embedding_length,
            feed_forward_length,
            head_count,
            head_count_kv: if latent.is_some() { 1 } else { head_count_kv },
            head_length: latent.as_ref().map_or(head_length, |latent| latent.rank + rope.dims),
            value_length: latent.as_ref().map_or(head_length, |latent| latent.rank),
            context_length: keys.count("context_length", usize::MAX)?.unwrap_or(usize::MAX),
            vocab_size,
            pooling: pooling(&keys)?,
            norm_eps,
            embedding_scale: keys.positive_or_none("embedding_scale")?.unwrap_or(embedding_scale),
            residual_scale: keys.positive_or_none("residual_scale")?.unwrap_or(1.0),
            logit_divisor: keys.positive_or_none("logit_scale")?,
            attention_scale,
            attention_softcap: softcap("attn_logit_softcapping", architecture.defaults.attention_softcap)?,
            logit_softcap: softcap("final_logit_softcapping", architecture.defaults.logit_softcap)?,
            window,
            windowed: windowed(&keys, architecture, block_count)?,
            experts: experts(&keys, architecture, feed_forward_length)?,
            latent,
            rope,
        };
        if encoder && (0..layer_count).any(|l| config.window(l).is_some()) {
            let message = format!("{window_key}: windows are not supported where tokens see later ones");
            return Err(Error::unsupported(message).with("key", window_key));
        }
        Ok(config)
    }

    /// Positions that there are learned vectors for, if positions are learned.
    pub(crate) fn learned_positions(&self) -> Option<usize> {
        (self.architecture.positions == Positions::Learned).then_some(self.context_length)
    }

    /// The window of layer `l`.
    pub(crate) fn window(&self, l: usize) -> Option<usize> {
        let has_window = match &self.windowed {
            Windowed::GlobalEvery(n) => n.is_some_and(|n| !(l + 1).is_multiple_of(n)),
            Windowed::Listed(layers) => layers.get(l).copied().unwrap_or(false),
        };
        if has_window { self.window } else { None }
    }

    /// How layer `l` turns positions.
    pub(crate) fn rotation(&self, l: usize) -> Rotation {
        match self.architecture.unrotated_every {
            Some(n) if (l + 1).is_multiple_of(n) => Rotation::None,
            _ if self.architecture.local_rope != LocalRope::Same && self.window(l).is_some() => Rotation::Local,
            _ => Rotation::Global,
        }
    }
}

/// How many of a file's layers predict tokens further ahead, which nothing is done with: they are the last of the
/// `block_count`, or, in some files, lie behind them.
fn predicting(keys: &Keys<'_>, block_count: usize) -> Result<usize> {
    let Some(n) = keys.count_or_zero("nextn_predict_layers")?.filter(|n| *n < block_count) else { return Ok(0) };
    let first = block_count - n;
    let has = |part: &str| keys.gguf.tensor(&format!("blk.{first}.{part}.weight")).is_some();
    Ok(if has("nextn.eh_proj") || !has("attn_norm") { n } else { 0 })
}

/// `general.architecture`.
pub(crate) fn architecture_name(gguf: &Gguf) -> Result<&str> {
    let key = "general.architecture";
    gguf.str(key)?.ok_or_else(|| bad(key, format!("the key {key} is missing")))
}

/// `<architecture>.pooling_type`. Models that have none, or state that they have none, are generators, of which the mean
/// says more than one token's state.
fn pooling(keys: &Keys<'_>) -> Result<Option<Pooling>> {
    Ok(match keys.gguf.u64(&keys.key("pooling_type"))? {
        None | Some(0 | 1) => Some(Pooling::Mean),
        Some(2) => Some(Pooling::Cls),
        Some(3) => Some(Pooling::Last),
        Some(_) => None,
    })
}

fn windowed(keys: &Keys<'_>, architecture: &Architecture, layers: usize) -> Result<Windowed> {
    let key = keys.key("attention.sliding_window_pattern");
    match keys.gguf.get(&key) {
        None => Ok(Windowed::GlobalEvery(architecture.global_every)),
        Some(Value::Array(array)) => {
            if array.len() != layers {
                let found = array.len();
                return Err(bad(&key, format!("{key} holds {found} values for {layers} layers")).with("found", found));
            }
            let flag = |value| match value {
                Value::Bool(flag) => Some(flag),
                value => value.as_integer().map(|n| n != 0),
            };
            let listed: Option<Vec<bool>> = array.iter().map(flag).collect();
            listed
                .map(Windowed::Listed)
                .ok_or_else(|| bad(&key, format!("{key} must hold a truth value for each layer")))
        }
        // 0: all layers have the window.
        Some(_) => Ok(Windowed::GlobalEvery(Some(
            keys.count_or_zero("attention.sliding_window_pattern")?.unwrap_or(usize::MAX),
        ))),
    }
}

fn experts(keys: &Keys<'_>, architecture: &Architecture, feed_forward_length: usize) -> Result<Option<Experts>> {
    let Some(count) = keys.count_or_zero("expert_count")? else { return Ok(None) };
    if count > MANY_EXPERTS {
        let key = keys.key("expert_count");
        return Err(bad(&key, format!("{key} is {count}, but must be at most {MANY_EXPERTS}")).with("found", count));
    }
    let used = keys.required("expert_used_count", count.min(MANY_USED_EXPERTS))?;
    let gating_key = keys.key("expert_gating_func");
    let has_choice_bias = || keys.gguf.tensors().iter().any(|tensor| tensor.name.ends_with(".exp_probs_b.bias"));
    let gating = match keys.gguf.u64(&gating_key)? {
        // The bias that a choice goes by is one of sigmoids.
        None | Some(0) if architecture.latent && has_choice_bias() => Gating::Sigmoid,
        None | Some(0) => architecture.gating,
        Some(1) => Gating::Softmax,
        Some(2) => Gating::Sigmoid,
        Some(3) => Gating::SoftmaxOfChosen,
        Some(other) => {
            let message = format!("{gating_key} is {other}, which is not supported; 1, 2 and 3 are");
            return Err(Error::unsupported(message).with("key", gating_key).with("found", other));
        }
    };
    let groups = match keys.count_or_zero("expert_group_count")? {
        None | Some(1) => None,
        Some(n) => {
            let used_groups = keys.required("expert_group_used_count", n.min(MANY_USED_EXPERTS))?;
            if !count.is_multiple_of(n) || used > count / n * used_groups {
                let key = keys.key("expert_group_count");
                let message = format!("{key}: {used} of {count} experts from {used_groups} of {n} groups");
                return Err(bad(&key, message).with("found", n));
            }
            Some((n, used_groups))
        }
    };
    let normalized = keys.gguf.bool(&keys.key("expert_weights_norm"))?.unwrap_or(architecture.normalized_experts);
    let scale = keys.positive_or_none("expert_weights_scale")?.unwrap_or(1.0);
    Ok(Some(Experts {
        count,
        feed_forward_length: match keys.count_or_zero("expert_feed_forward_length")? {
            Some(n) => n,
            // Files that are older than the key state the width of those that a token has, together.
            None if architecture.shares_width => (feed_forward_length / used).max(1),
            None => feed_forward_length,
        },
        routing: Routing { used, gating, normalized, scale, groups },
    }))
}

/// Files state the lengths of a head twice: as they are computed (`*_mla`) and as they are cached. Older ones state the
/// former under the names of the latter.
fn latent(keys: &Keys<'_>, key_length: usize, rotated: usize) -> Result<Latent> {
    let rank = keys.required("attention.kv_lora_rank", MANY)?;
    let key = keys.count("attention.key_length_mla", MANY)?.unwrap_or(key_length);
    let value = match keys.count("attention.value_length_mla", MANY)? {
        Some(n) => n,
        None => keys.required("attention.value_length", MANY)?,
    };
    let plain = key.checked_sub(rotated).filter(|plain| *plain > 0).ok_or_else(|| {
        let key_name = keys.key("rope.dimension_count");
        bad(&key_name, format!("{key_name} is {rotated}, of {key} elements of a key")).with("found", rotated)
    })?;
    Ok(Latent { rank, query_rank: keys.count_or_zero("attention.q_lora_rank")?, plain, value })
}

/// What a file states that YaRN multiplies cosines and sines by.
fn yarn_magnitude(keys: &Keys<'_>) -> Result<Option<f64>> {
    let key = keys.key("rope.scaling.yarn_ext_factor");
    match keys.gguf.f32(&key)? {
        None | Some(1.0) => {}
        // llama.cpp writes a negative number where a file stated neither key.
        Some(unset) if unset < 0.0 => return Ok(None),
        Some(found) => {
            let message = format!("{key} is {found}, which is not supported; 1 is");
            return Err(Error::unsupported(message).with("key", key).with("found", found));
        }
    }
    Ok(keys.positive_or_none("rope.scaling.yarn_attn_factor")?.map(f64::from))
}

fn rope(keys: &Keys<'_>, architecture: &Architecture, head_length: usize) -> Result<Rope> {
    let dims = keys.count("rope.dimension_count", MANY)?.unwrap_or(head_length);
    if dims > head_length || !dims.is_multiple_of(2) {
        let key = keys.key("rope.dimension_count");
        let message = format!("{dims} elements of a head of {head_length} are to be rotated; must be even and no more");
        return Err(bad(&key, format!("{key}: {message}")).with("found", dims));
    }
    let scaling_key = keys.key("rope.scaling.type");
    // Files older than the keys state a linear factor by `rope.scale_linear` alone.
    let older = keys.positive_or_none("rope.scale_linear")?;
    let factor = f64::from(keys.positive_or_none("rope.scaling.factor")?.or(older).unwrap_or(1.0));
    let score_slope = keys.positive_or_none("rope.scaling.yarn_log_multiplier")?.map(f64::from);
    let scaling = match keys.gguf.str(&scaling_key)? {
        None | Some("linear") => Scaling::Linear(factor),
        // That of longrope is in tensors.
        Some("none" | "longrope") => Scaling::Linear(1.0),
        Some("yarn") => Scaling::Yarn {
            factor,
            beta_fast: f64::from(keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0)),
            beta_slow: f64::from(keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0)),
            magnitude: match (yarn_magnitude(keys)?, score_slope) {
                (Some(stated), _) => stated,
                // Scores have a factor instead.
                (None, Some(_)) => 1.0,
                (None, None) => 0.1 * wide::ln(factor.max(1.0)) + 1.0,
            },
        },
        Some(other) => {
            let message =
                format!("{scaling_key} is \"{other}\", which is not supported; none, linear, yarn and longrope are");
            return Err(Error::unsupported(message).with("key", scaling_key).with("found", other));
        }
    };
    let context = keys.count("context_length", usize::MAX)?.unwrap_or(usize::MAX);
    let base = f64::from(keys.positive("rope.freq_base")?.unwrap_or(10_000.0));
    let local_base = keys.positive("rope.freq_base_swa")?.map(f64::from);
    if architecture.local_rope == LocalRope::Same && local_base.is_some_and(|local| local != base) {
        let key = keys.key("rope.freq_base_swa");
        let message = format!("{key} is not the base of the other layers: {} has one for all", architecture.name);
        return Err(Error::unsupported(message).with("key", key));
    }
    let score_factor = match (scaling, score_slope) {
        (Scaling::Yarn { factor, .. }, Some(slope)) => (slope * wide::ln(factor.max(1.0)) + 1.0).powi(2),
        _ => 1.0,
    };
    Ok(Rope {
        dims,
        base,
        local_base: local_base.unwrap_or(if architecture.local_rope == LocalRope::Own { 10_000.0 } else { base }),
        scaling,
        score_factor,
        original_context: keys.count("rope.scaling.original_context_length", usize::MAX)?.unwrap_or(context),
        attention_factor: keys.positive_or_none("rope.scaling.attn_factor")?.map(f64::from),
    })
}
