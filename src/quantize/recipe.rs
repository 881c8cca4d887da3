//! THE table of recipes: which format each tensor of a model gets, by the names that users know (`Q4_K_M`).
//!
//! Names, `general.file_type` numbers and choices are those of llama.cpp's quantize (2025), without its exceptions for
//! Falcon. In short: most matrices get the recipe's format; those that hurt most get more bits: the values (`attn_v`,
//! also fused as `attn_qkv`), the way down (`ffn_down`), sometimes the attention's output, and the logits' matrix.

use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo, Value};
use crate::quant::Format;

/// What a choice depends on besides the recipe.
struct Place {
    layer: usize,
    layers: usize,
    /// Query heads that share a key/value head.
    sharing: usize,
    experts: usize,
    /// Whether importances are known.
    weighted: bool,
}

impl Place {
    /// In the first 1/n of the layers.
    fn first(&self, n: usize) -> bool {
        self.layer < self.layers / n
    }

    /// The first and last eighth of the layers, and each third one between.
    fn more_bits(&self) -> bool {
        let (layer, eighth) = (self.layer, self.layers / 8);
        layer < eighth || layer >= 7 * self.layers / 8 || (layer - eighth) % 3 == 2
    }
}

/// The format of a tensor, `None` for the recipe's own.
type Choice = fn(&Place) -> Option<Format>;

/// A row of the table.
pub struct Recipe {
    name: &'static str,
    /// `general.file_type`.
    file_type: u32,
    format: Format,
    /// `attn_v`, and matrices that hold it.
    value: Choice,
    /// `ffn_down`.
    down: Choice,
    /// `attn_output`.
    attention_output: Choice,
    /// `token_embd`, where the logits have a matrix of their own.
    embedding: Choice,
    /// Matrices of experts.
    expert: Choice,
    /// With 8 experts the attention's output gets Q5_K.
    raised_for_experts: bool,
}

/// A recipe without exceptions but for those that every quantised one has.
const fn plain(name: &'static str, file_type: u32, format: Format) -> Recipe {
    const NONE: Choice = |_| None;
    let (value, down, attention_output, embedding, expert) = (NONE, NONE, NONE, NONE, NONE);
    Recipe { name, file_type, format, value, down, attention_output, embedding, expert, raised_for_experts: false }
}

use Format::{
    BF16, F16, F32, IQ4NL, IQ4XS, MXFP4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, TQ1_0, TQ2_0,
};

static RECIPES: &[Recipe] = &[
    plain("F32", 0, F32),
    plain("F16", 1, F16),
    plain("BF16", 32, BF16),
    Recipe { down: |p| (p.weighted && p.first(8)).then_some(Q4_1), ..plain("Q4_0", 2, Q4_0) },
    plain("Q4_1", 3, Q4_1),
    Recipe { down: |p| (p.weighted && p.first(8)).then_some(Q5_1), ..plain("Q5_0", 8, Q5_0) },
    plain("Q5_1", 9, Q5_1),
    plain("Q8_0", 7, Q8_0),
    Recipe {
        value: |p| Some(if p.sharing >= 4 { Q4K } else { Q3K }),
        down: |_| Some(Q3K),
        attention_output: |_| Some(Q3K),
        raised_for_experts: true,
        ..plain("Q2_K", 10, Q2K)
    },
    Recipe {
        value: |p| (p.sharing >= 4).then_some(Q4K),
        down: |p| p.first(8).then_some(Q4K),
        ..plain("Q2_K_S", 21, Q2K)
    },
    Recipe { raised_for_experts: true, ..plain("Q3_K_S", 11, Q3K) },
    Recipe {
        value: |p| Some(if p.layer < 2 { Q5K } else { Q4K }),
        down: |p| Some(if p.first(16) { Q5K } else { Q4K }),
        attention_output: |_| Some(Q4K),
        raised_for_experts: true,
        ..plain("Q3_K_M", 12, Q3K)
    },
    Recipe {
        value: |_| Some(Q5K),
        down: |_| Some(Q5K),
        attention_output: |p| (p.experts != 8).then_some(Q5K),
        ..plain("Q3_K_L", 13, Q3K)
    },
    Recipe {
        value: |p| (p.layer < 4).then_some(Q5K),
        down: |p| p.first(8).then_some(Q5K),
        raised_for_experts: true,
        ..plain("Q4_K_S", 14, Q4K)
    },
    Recipe {
        value: |p| p.more_bits().then_some(Q6K),
        down: |p| p.more_bits().then_some(Q6K),
        raised_for_experts: true,
        ..plain("Q4_K_M", 15, Q4K)
    },
    plain("Q5_K_S", 16, Q5K),
    Recipe {
        value: |p| p.more_bits().then_some(Q6K),
        down: |p| p.more_bits().then_some(Q6K),
        ..plain("Q5_K_M", 17, Q5K)
    },
    plain("Q6_K", 18, Q6K),
    Recipe {
        value: |p| (p.sharing >= 4).then_some(Q5K),
        down: |p| (p.first(8) && !p.weighted).then_some(Q5K),
        raised_for_experts: true,
        ..plain("IQ4_NL", 25, IQ4NL)
    },
    Recipe {
        value: |p| (p.sharing >= 4).then_some(Q5K),
        down: |p| (p.first(8) && !p.weighted).then_some(Q5K),
        raised_for_experts: true,
        ..plain("IQ4_XS", 30, IQ4XS)
    },
    Recipe { embedding: |_| Some(Q4K), ..plain("TQ1_0", 36, TQ1_0) },
    Recipe { embedding: |_| Some(Q4K), ..plain("TQ2_0", 37, TQ2_0) },
    // Only the experts are MXFP4.
    Recipe { expert: |_| Some(MXFP4), ..plain("MXFP4_MOE", 38, Q8_0) },
];

/// Other names of recipes.
const ALIASES: [(&str, &str); 3] = [("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M")];

impl Recipe {
    /// The recipe of a name, in capitals or not. Errors: `InvalidArgument` with all names.
    pub fn named(name: &str) -> Result<&'static Recipe> {
        let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name));
        let full = alias.map_or(name, |(_, full)| full);
        RECIPES.iter().find(|recipe| recipe.name.eq_ignore_ascii_case(full)).ok_or_else(|| {
            let names: Vec<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
            let expected = names.join(", ");
            Error::invalid_argument(format!("there is no type {name}; there are {expected}"))
                .with("type", name)
                .with("expected", expected)
        })
    }

    /// All recipes.
    pub fn all() -> &'static [Recipe] {
        RECIPES
    }

    /// The name as users know it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The number of `general.file_type`.
    pub fn file_type(&self) -> u32 {
        self.file_type
    }
}

/// A recipe for one file.
pub(super) struct Plan<'a> {
    recipe: &'a Recipe,
    output: Option<Format>,
    embedding: Option<Format>,
    weighted: bool,
    layers: usize,
    sharing: usize,
    experts: usize,
    /// The logits are made with the embedding.
    tied: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        gguf: &Gguf,
        recipe: &'a Recipe,
        output: Option<Format>,
        embedding: Option<Format>,
        weighted: bool,
    ) -> Self {
        let architecture = gguf.str("general.architecture").ok().flatten().unwrap_or_default();
        let number = |key: &str| number(gguf, &format!("{architecture}.{key}")).unwrap_or(0);
        let (heads, kv_heads) = (number("attention.head_count"), number("attention.head_count_kv"));
        let sharing = heads.checked_div(kv_heads).unwrap_or(1);
        let (layers, experts) = (number("block_count"), number("expert_count"));
        let tied = gguf.tensor("output.weight").is_none();
        Plan { recipe, output, embedding, weighted, layers, sharing, experts, tied }
    }

    /// The format that a tensor becomes; `None` if it stays as it is.
    pub(super) fn format(&self, tensor: &TensorInfo) -> Option<Format> {
        if !is_quantised(tensor) {
            return None;
        }
        let name = &*tensor.name;
        let is_embedding = is_embedding(name);
        let makes_logits = name == "output.weight" || name == "token_embd.weight" && self.tied;
        let asked = self.embedding.filter(|_| is_embedding).or(self.output.filter(|_| makes_logits));
        if let Some(format) = asked {
            return Some(fitting(tensor, format));
        }
        let recipe = self.recipe;
        if recipe.format.block_len() == 1 {
            return Some(recipe.format);
        }
        let layer = layer_of(name).unwrap_or(0);
        let Plan { layers, sharing, experts, weighted, .. } = *self;
        let place = Place { layer, layers, sharing, experts, weighted };
        let choice = if makes_logits {
            let whole = tensor.row_len().is_multiple_of(recipe.format.block_len());
            Some(if recipe.format == Q8_0 || !whole { Q8_0 } else { Q6K })
        } else if is_embedding {
            (recipe.embedding)(&place)
        } else if let Some(format) = is_expert(tensor).then(|| (recipe.expert)(&place)).flatten() {
            Some(format)
        } else if ["attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"].iter().any(|part| name.contains(part)) {
            self.value(&place)
        } else if name.contains("attn_k.weight") && experts == 8 {
            Some(Q8_0)
        } else if name.contains("ffn_down") {
            (recipe.down)(&place)
        } else if name.contains("attn_output.weight") {
            if experts == 8 && recipe.raised_for_experts { Some(Q5K) } else { (recipe.attention_output)(&place) }
        } else {
            None
        };
        Some(fitting(tensor, choice.unwrap_or(recipe.format)))
    }

    fn value(&self, place: &Place) -> Option<Format> {
        let chosen = (self.recipe.value)(place);
        if place.experts == 8 {
            // Beside eight experts the attention is small.
            return Some(Q8_0);
        }
        match chosen.unwrap_or(self.recipe.format) {
            // 80 layers whose heads share keys and values: Llama 2 70B and its like, whose values are few.
            Q3K | Q4K if place.layers == 80 && place.sharing > 1 => Some(Q5K),
            _ => chosen,
        }
    }
}

/// A number of the metadata, the first if there is one for each layer.
fn number(gguf: &Gguf, key: &str) -> Option<usize> {
    let value = match gguf.get(key)? {
        Value::Array(array) => array.iter().find(|value| value.as_integer().is_some_and(|n| n > 0))?,
        value => value,
    };
    value.as_integer()?.try_into().ok()
}

/// N of `blk.N.`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether a matrix is looked up by tokens.
pub(super) fn is_embedding(name: &str) -> bool {
    matches!(name, "token_embd.weight" | "per_layer_token_embd.weight")
}

/// A matrix for each expert.
fn is_expert(tensor: &TensorInfo) -> bool {
    tensor.dims.get(2).is_some_and(|n| *n > 1)
}

/// Parts of the names of matrices that stay as they are: small ones, and those where an error would weigh too much.
const KEPT: [&str; 12] = [
    "_norm.weight",
    "ffn_gate_inp",
    "position_embd",
    "token_types",
    "attn_rel_b",
    "ssm_conv1d",
    "shortconv.conv",
    "time_mix_",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "rope_freqs",
];

/// Whether a tensor is a matrix of weights that recipes are about.
fn is_quantised(tensor: &TensorInfo) -> bool {
    tensor.dims.iter().skip(1).any(|n| *n > 1)
        && tensor.name.ends_with("weight")
        && !KEPT.iter().any(|part| tensor.name.contains(part))
}

/// The format, or one of shorter blocks if the tensor's rows are no whole blocks of it; F16 if there is none.
fn fitting(tensor: &TensorInfo, format: Format) -> Format {
    let fits = |format: Format| tensor.row_len().is_multiple_of(format.block_len());
    if fits(format) {
        return format;
    }
    let shorter = match format {
        IQ4XS => IQ4NL,
        Q2K | Q3K | TQ1_0 | TQ2_0 => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        _ => F16,
    };
    if fits(shorter) { shorter } else { F16 }
}
