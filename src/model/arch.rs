//! THE table of architectures: how each differs from the one decoder block of `forward`.
//!
//! Names are those of `general.architecture`. What a file states in its keys or shows by the tensors it holds (biases,
//! a tied output, fused matrices, frequency factors) is not repeated here.

use crate::device::{Activation, Gating, NormKind};
use crate::error::{Error, Result};

/// One architecture.
#[derive(Debug, PartialEq)]
pub(crate) struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// The norm of the residual stream.
    pub norm: NormKind,
    /// How positions enter.
    pub positions: Positions,
    /// The function of the feed-forward layer.
    pub activation: Activation,
    /// The activation of one product gates another; otherwise there is but one.
    pub gated: bool,
    /// Queries and keys are normed before they are rotated.
    pub qk_norms: QkNorms,
    /// What the norms of a block norm.
    pub norms: Norms,
    /// Both halves of a block read the layer's input.
    pub parallel: bool,
    /// Embeddings are multiplied by sqrt(D).
    pub embedding_scaled: bool,
    /// Layers that see only a window, where the file gives one: all but every n-th, by this n.
    pub global_every: Option<usize>,
    /// How layers with a window rotate.
    pub local_rope: LocalRope,
    /// Every n-th layer does not rotate.
    pub unrotated_every: Option<usize>,
    /// No layer rotates where the key `rope.scaling.finetuned` is false.
    pub unrotated_by_key: bool,
    /// Tokens see the whole text, later tokens too, whatever the file says: an encoder.
    pub encoder: bool,
    /// Keys and values are made from one latent vector of each position, which is what is cached.
    pub latent: bool,
    /// What the scores of a router become, and whether weights are normalised, where the file does not say.
    pub gating: Gating,
    pub normalized_experts: bool,
    /// The experts of a token share the feed-forward width, where the file does not say.
    pub shares_width: bool,
    /// What stands where the file does not say.
    pub defaults: Defaults,
}

/// What files that are older than their keys leave out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Defaults {
    pub window: Option<usize>,
    pub attention_softcap: Option<f32>,
    pub logit_softcap: Option<f32>,
}

/// How queries and keys are normed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkNorms {
    None,
    /// Each head by itself.
    Heads,
    /// Each head by itself with weights of its own, where the file has them.
    HeadsApart,
    /// All heads as one row.
    Rows,
}

/// Where a block norms, with f either half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norms {
    /// x + f(norm(x))
    Before,
    /// x + norm(f(norm(x)))
    BeforeAndAfter,
    /// x + norm(f(x))
    After,
    /// norm(x + f(x))
    OfSum,
}

/// The rotary base of layers with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalRope {
    /// The same as of the others, scaled as theirs.
    Same,
    /// The key `rope.freq_base_swa`, or the same; scaled as the others.
    Scaled,
    /// The key, or 10000; not scaled.
    Own,
    /// The key, or the same; not scaled.
    Unscaled,
}

/// How positions enter a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Positions {
    /// Pairs (2i, 2i+1) of queries and keys are rotated.
    RotaryInterleaved,
    /// Pairs (i, i + n/2) are rotated.
    RotaryHalves,
    /// A learned vector is added to the embedding.
    Learned,
}

/// What most descendants of LLaMA share.
const LLAMA: Architecture = Architecture {
    name: "llama",
    norm: NormKind::Rms,
    positions: Positions::RotaryInterleaved,
    activation: Activation::Silu,
    gated: true,
    qk_norms: QkNorms::None,
    norms: Norms::Before,
    parallel: false,
    embedding_scaled: false,
    global_every: None,
    local_rope: LocalRope::Same,
    unrotated_every: None,
    unrotated_by_key: false,
    encoder: false,
    latent: false,
    gating: Gating::Softmax,
    normalized_experts: true,
    shares_width: false,
    defaults: Defaults { window: None, attention_softcap: None, logit_softcap: None },
};

/// What the models with LayerNorm share.
const LAYER_NORM: Architecture =
    Architecture { name: "", norm: NormKind::Layer, positions: Positions::RotaryHalves, ..LLAMA };

/// What encoders share.
const ENCODER: Architecture = Architecture { norms: Norms::OfSum, encoder: true, ..LAYER_NORM };

/// Every architecture this library runs.
pub(crate) static ARCHITECTURES: &[Architecture] = &[
    // Touvron et al., "LLaMA", 2023; also Mistral, Mixtral, SmolLM and whatever else is exported under this name.
    LLAMA,
    // "Qwen2 Technical Report", 2024.
    Architecture { name: "qwen2", positions: Positions::RotaryHalves, ..LLAMA },
    // "Qwen3 Technical Report", 2025.
    Architecture { name: "qwen3", positions: Positions::RotaryHalves, qk_norms: QkNorms::Heads, ..LLAMA },
    // "Qwen1.5-MoE: Matching 7B Model Performance with 1/3 Activated Parameters", 2024.
    Architecture {
        name: "qwen2moe",
        positions: Positions::RotaryHalves,
        normalized_experts: false,
        shares_width: true,
        ..LLAMA
    },
    // "Qwen3 Technical Report", 2025.
    Architecture {
        name: "qwen3moe",
        positions: Positions::RotaryHalves,
        qk_norms: QkNorms::Heads,
        shares_width: true,
        ..LLAMA
    },
    // "2 OLMo 2 Furious", 2024; "Olmo 3", 2025, which has windows.
    Architecture {
        name: "olmo2",
        positions: Positions::RotaryHalves,
        qk_norms: QkNorms::Rows,
        norms: Norms::After,
        global_every: Some(4),
        local_rope: LocalRope::Unscaled,
        ..LLAMA
    },
    // "SmolLM3: smol, multilingual, long-context reasoner", 2025.
    Architecture { name: "smollm3", unrotated_every: Some(4), ..LLAMA },
    // "gpt-oss-120b & gpt-oss-20b Model Card", 2025. Its sinks are tensors.
    Architecture {
        name: "gpt-oss",
        positions: Positions::RotaryHalves,
        activation: Activation::SiluClamped,
        global_every: Some(2),
        local_rope: LocalRope::Scaled,
        gating: Gating::SoftmaxOfChosen,
        normalized_experts: false,
        ..LLAMA
    },
    // "DeepSeek-V2", 2024, with latent attention; "DeepSeek-V3 Technical Report", 2024, whose routing is in keys.
    Architecture { name: "deepseek2", latent: true, normalized_experts: false, ..LLAMA },
    // "Gemma 2: Improving Open Language Models at a Practical Size", 2024.
    Architecture {
        name: "gemma2",
        positions: Positions::RotaryHalves,
        activation: Activation::GeluTanh,
        norms: Norms::BeforeAndAfter,
        embedding_scaled: true,
        global_every: Some(2),
        local_rope: LocalRope::Scaled,
        defaults: Defaults { window: Some(4096), attention_softcap: Some(50.0), logit_softcap: Some(30.0) },
        ..LLAMA
    },
    // "Gemma 3 Technical Report", 2025.
    Architecture {
        name: "gemma3",
        positions: Positions::RotaryHalves,
        activation: Activation::GeluTanh,
        qk_norms: QkNorms::Heads,
        norms: Norms::BeforeAndAfter,
        embedding_scaled: true,
        global_every: Some(6),
        local_rope: LocalRope::Own,
        ..LLAMA
    },
    // "Phi-3 Technical Report", 2024. Where a window is given, all layers have it.
    Architecture { name: "phi3", positions: Positions::RotaryHalves, global_every: Some(usize::MAX), ..LLAMA },
    // "Granite 3.0 Language Models", 2024. Its scales are keys, and whether it rotates.
    Architecture { name: "granite", unrotated_by_key: true, ..LLAMA },
    // "Stable LM 2 1.6B Technical Report", 2024. The 12B norms queries and keys.
    Architecture { name: "stablelm", qk_norms: QkNorms::HeadsApart, ..LAYER_NORM },
    // "StarCoder 2 and The Stack v2", 2024.
    Architecture { name: "starcoder2", activation: Activation::GeluTanh, gated: false, ..LAYER_NORM },
    // Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    Architecture {
        name: "gpt2",
        positions: Positions::Learned,
        activation: Activation::GeluTanh,
        gated: false,
        ..LAYER_NORM
    },
    // "The Falcon Series of Open Language Models", 2023.
    Architecture { name: "falcon", activation: Activation::GeluErf, gated: false, parallel: true, ..LAYER_NORM },
    // Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2018.
    Architecture {
        name: "bert",
        positions: Positions::Learned,
        activation: Activation::GeluErf,
        gated: false,
        ..ENCODER
    },
    // Nussbaum et al., "Nomic Embed: Training a Reproducible Long Context Text Embedder", 2024.
    Architecture { name: "nomic-bert", ..ENCODER },
];

impl Architecture {
    /// The row of `name`.
    pub(crate) fn find(name: &str) -> Result<&'static Architecture> {
        ARCHITECTURES.iter().find(|a| a.name == name).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|a| a.name).collect();
            Error::unsupported(format!("the architecture \"{name}\" is not supported; these are: {}", known.join(", ")))
                .with("key", "general.architecture")
                .with("architecture", name)
        })
    }
}
