//! THE table of architectures: how each differs from the one decoder block of `forward`.
//!
//! Names are those of `general.architecture`. What a file states in its keys or shows by the tensors it holds (biases,
//! a tied output, frequency factors) is not repeated here.

use crate::device::Activation;
use crate::error::{Error, Result};

/// One architecture.
#[derive(Debug, PartialEq)]
pub(crate) struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// Rotary pairs are (2i, 2i+1); otherwise (i, i + n/2).
    pub rope_interleaved: bool,
    /// The gate's function.
    pub activation: Activation,
    /// Queries and keys are normed head by head before they are rotated.
    pub head_norms: bool,
    /// Both halves of a block are normed once more before they are added.
    pub post_norms: bool,
    /// Embeddings are multiplied by sqrt(D).
    pub embedding_scaled: bool,
    /// Layers that see only a window, where the file gives one: all but every n-th, by this n.
    pub global_every: Option<usize>,
    /// Layers with a window have a rotary base of their own and no scaling of positions.
    pub local_rope: bool,
}

/// What most descendants of LLaMA share.
const LLAMA: Architecture = Architecture {
    name: "llama",
    rope_interleaved: true,
    activation: Activation::Silu,
    head_norms: false,
    post_norms: false,
    embedding_scaled: false,
    global_every: None,
    local_rope: false,
};

/// Every architecture this library runs.
pub(crate) static ARCHITECTURES: &[Architecture] = &[
    // Touvron et al., "LLaMA", 2023; also Mistral, SmolLM and whatever else is exported under this name.
    LLAMA,
    // "Qwen2 Technical Report", 2024.
    Architecture { name: "qwen2", rope_interleaved: false, ..LLAMA },
    // "Qwen3 Technical Report", 2025.
    Architecture { name: "qwen3", rope_interleaved: false, head_norms: true, ..LLAMA },
    // "Gemma 3 Technical Report", 2025.
    Architecture {
        name: "gemma3",
        rope_interleaved: false,
        activation: Activation::GeluTanh,
        head_norms: true,
        post_norms: true,
        embedding_scaled: true,
        global_every: Some(6),
        local_rope: true,
    },
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
