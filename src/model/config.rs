//! GGUF keys -> [`Config`]: every number that the forward pass needs, checked once.

use super::arch::{Architecture, Positions};
use crate::device::NormKind;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value};

/// What a model is.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub(crate) architecture: &'static Architecture,
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
    /// E.
    pub head_length: usize,
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

/// How positions are turned into angles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// Elements of a head that are rotated; 0: none.
    pub dims: usize,
    pub base: f64,
    /// Base of layers with a window, where the architecture has one of their own.
    pub local_base: f64,
    /// How contexts longer than the first training's are reached (not in layers with a base of their own).
    pub scaling: Scaling,
    /// The context of the first training.
    pub original_context: usize,
    /// Cosines and sines are multiplied by this, where the file says so.
    pub attention_factor: Option<f64>,
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scaling {
    /// Positions are divided by a factor (Chen et al., "Extending Context Window of Large Language Models via Positional
    /// Interpolation", 2023).
    Linear(f64),
    /// Low frequencies are, high ones are not, with a ramp between (Peng et al., "YaRN: Efficient Context Window
    /// Extension of Large Language Models", 2023).
    Yarn { factor: f64, beta_fast: f64, beta_slow: f64 },
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

/// More of anything than a model of today has by orders of magnitude; products of two still fit 64 bits.
const MANY: usize = 1 << 28;

impl Config {
    /// Reads the configuration. `vocab_size` is the tokenizer's.
    pub(crate) fn from_gguf(gguf: &Gguf, vocab_size: usize) -> Result<Config> {
        let name = architecture_name(gguf)?;
        let architecture = Architecture::find(name)?;
        let keys = Keys { gguf, prefix: name };
        let layer_count = keys.required("block_count", MANY)?;
        let embedding_length = keys.required("embedding_length", MANY)?;
        let feed_forward_length = keys
            .count_of_layers("feed_forward_length", layer_count, MANY)?
            .ok_or_else(|| keys.missing("feed_forward_length"))?;
        let head_count = keys
            .count_of_layers("attention.head_count", layer_count, MANY)?
            .ok_or_else(|| keys.missing("attention.head_count"))?;
        let head_count_kv = keys.count_of_layers("attention.head_count_kv", layer_count, MANY)?.unwrap_or(head_count);
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
        let window_key = keys.key("attention.sliding_window");
        let window = match gguf.u64(&window_key)? {
            None | Some(0) => None,
            Some(n) => Some(usize::try_from(n).unwrap_or(usize::MAX)),
        };
        // The 27B sizes of Gemma scale by the width of a head as D / H, which is not their head length.
        let scale_length =
            if name == "gemma3" && layer_count == 62 { embedding_length / head_count } else { head_length };
        let attention_scale = match keys.positive_or_none("attention.scale")? {
            Some(scale) => scale,
            None => (1.0 / (scale_length as f64).sqrt()) as f32,
        };
        let embedding_scale = if architecture.embedding_scaled { (embedding_length as f32).sqrt() } else { 1.0 };
        Ok(Config {
            architecture,
            layer_count,
            embedding_length,
            feed_forward_length,
            head_count,
            head_count_kv,
            head_length,
            context_length: keys.count("context_length", usize::MAX)?.unwrap_or(usize::MAX),
            vocab_size,
            pooling: pooling(&keys)?,
            norm_eps,
            embedding_scale: keys.positive_or_none("embedding_scale")?.unwrap_or(embedding_scale),
            residual_scale: keys.positive_or_none("residual_scale")?.unwrap_or(1.0),
            logit_divisor: keys.positive_or_none("logit_scale")?,
            attention_scale,
            attention_softcap: keys.positive_or_none("attn_logit_softcapping")?,
            logit_softcap: keys.positive_or_none("final_logit_softcapping")?,
            window,
            rope: match architecture.positions {
                Positions::Learned => Rope { dims: 0, ..rope(&keys, head_length)? },
                Positions::RotaryInterleaved | Positions::RotaryHalves => rope(&keys, head_length)?,
            },
        })
    }

    /// Positions that there are learned vectors for, if positions are learned.
    pub(crate) fn learned_positions(&self) -> Option<usize> {
        (self.architecture.positions == Positions::Learned).then_some(self.context_length)
    }

    /// The window of layer `l`.
    pub(crate) fn window(&self, l: usize) -> Option<usize> {
        match self.architecture.global_every {
            Some(n) if !(l + 1).is_multiple_of(n) => self.window,
            _ => None,
        }
    }

    /// True if layer `l` turns positions by the local base.
    pub(crate) fn is_local(&self, l: usize) -> bool {
        self.architecture.local_rope && self.window(l).is_some()
    }
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

fn rope(keys: &Keys<'_>, head_length: usize) -> Result<Rope> {
    let dims = keys.count("rope.dimension_count", MANY)?.unwrap_or(head_length);
    if dims > head_length || !dims.is_multiple_of(2) {
        let key = keys.key("rope.dimension_count");
        let message = format!("{dims} elements of a head of {head_length} are to be rotated; must be even and no more");
        return Err(bad(&key, format!("{key}: {message}")).with("found", dims));
    }
    let scaling_key = keys.key("rope.scaling.type");
    let factor = f64::from(keys.positive_or_none("rope.scaling.factor")?.unwrap_or(1.0));
    let scaling = match keys.gguf.str(&scaling_key)? {
        // Files older than the key state a linear factor by `rope.scale_linear` alone; that of longrope is in tensors.
        None => Scaling::Linear(keys.positive_or_none("rope.scale_linear")?.map_or(1.0, f64::from)),
        Some("none" | "longrope") => Scaling::Linear(1.0),
        Some("linear") => Scaling::Linear(factor),
        Some("yarn") => Scaling::Yarn {
            factor,
            beta_fast: f64::from(keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0)),
            beta_slow: f64::from(keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0)),
        },
        Some(other) => {
            let message =
                format!("{scaling_key} is \"{other}\", which is not supported; none, linear, yarn and longrope are");
            return Err(Error::unsupported(message).with("key", scaling_key).with("found", other));
        }
    };
    let context = keys.count("context_length", usize::MAX)?.unwrap_or(usize::MAX);
    Ok(Rope {
        dims,
        base: f64::from(keys.positive("rope.freq_base")?.unwrap_or(10_000.0)),
        local_base: f64::from(keys.positive("rope.freq_base_swa")?.unwrap_or(10_000.0)),
        scaling,
        original_context: keys.count("rope.scaling.original_context_length", usize::MAX)?.unwrap_or(context),
        attention_factor: keys.positive_or_none("rope.scaling.attn_factor")?.map(f64::from),
    })
}
