//! THE table of architectures: how each differs from the one decoder block of `forward`.
//!
//! Names are those of `general.architecture`. What a file states in its keys or shows by the tensors it holds (biases,
//! a tied output, fused matrices, frequency factors) is not repeated here.

use crate::device::{Activation, NormKind};
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
    /// Queries and keys are normed head by head before they are rotated.
    pub head_norms: bool,
    /// Both halves of a block are normed once more before they are added.
    pub post_norms: bool,
    /// Both halves of a block read the layer's input.
    pub parallel: bool,
    /// Embeddings are multiplied by sqrt(D).
    pub embedding_scaled: bool,
    /// Layers that see only a window, where the file gives one: all but every n-th, by this n.
    pub global_every: Option<usize>,
    /// Layers with a window have a rotary base of their own and no scaling of positions.
    pub local_rope: bool,
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
    head_norms: false,
    post_norms: false,
    parallel: false,
    embedding_scaled: false,
    global_every: None,
    local_rope: false,
};

/// What the models with LayerNorm share.
const LAYER_NORM: Architecture =
    Architecture { name: "", norm: NormKind::Layer, positions: Positions::RotaryHalves, ..LLAMA };

/// Every architecture this library runs.
pub(crate) static ARCHITECTURES: &[Architecture] = &[
    // Touvron et al., "LLaMA", 2023; also Mistral, SmolLM and whatever else is exported under this name.
    LLAMA,
    // "Qwen2 Technical Report", 2024.
    Architecture { name: "qwen2", positions: Positions::RotaryHalves, ..LLAMA },
    // "Qwen3 Technical Report", 2025.
    Architecture { name: "qwen3", positions: Positions::RotaryHalves, head_norms: true, ..LLAMA },
    // "Gemma 2: Improving Open Language Models at a Practical Size", 2024.
    Architecture {
        name: "gemma2",
        positions: Positions::RotaryHalves,
        activation: Activation::GeluTanh,
        post_norms: true,
        embedding_scaled: true,
        global_every: Some(2),
        ..LLAMA
    },
    // "Gemma 3 Technical Report", 2025.
    Architecture {
        name: "gemma3",
        positions: Positions::RotaryHalves,
        activation: Activation::GeluTanh,
        head_norms: true,
        post_norms: true,
        embedding_scaled: true,
        global_every: Some(6),
        local_rope: true,
        ..LLAMA
    },
    // "Phi-3 Technical Report", 2024.
    Architecture { name: "phi3", positions: Positions::RotaryHalves, ..LLAMA },
    // "Granite 3.0 Language Models", 2024. Its scales are keys.
    Architecture { name: "granite", ..LLAMA },
    // "Stable LM 2 1.6B Technical Report", 2024.
    Architecture { name: "stablelm", ..LAYER_NORM },
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
