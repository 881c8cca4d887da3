//! The ops that a model is written in, and the device that runs them.
//!
//! | op | shapes |
//! |---|---|
//! | `embed` | tokens (T), W (V,D) -> x (T,D) |
//! | `add_positions` | positions (T), W (positions,D); x (T,D) += |
//! | `add_row_to_each` | x (T,D) += row (D) |
//! | `add` | x (T,D) += delta (T,D) |
//! | `add_norm` | the same, and norm(x) -> act (T,D) |
//! | `norm_parts` | norm of a part of each row of x (T,n) -> act |
//! | `replace` | act (T,D) -> x (T,D) |
//! | `linear` | act (T,D), W (n,D) -> (T,n), several W in one stage |
//! | `linear_rows` | `linear` of some rows of one W |
//! | `linear_each` | the same, each W with an act of its own |
//! | `add_scaled` | y (T,n) += scale x (T,n) |
//! | `take` | x (T,n) -> act (T,n) |
//! | `head_norm_rope` | q (T,H*E), k (T,K*E) in place |
//! | `rotate` | k (T,K*E) in place |
//! | `copy_parts` | a part of each row -> a part of each row of another |
//! | `kv_append` | rows of k, v (T,K*E) -> a layer of some sequences |
//! | `attention` | q (T,H*E), a layer of some sequences -> act (T,H*E) |
//! | `glu` | gate, up (T,F) -> act (T,F) |
//! | `linear_groups` | act in groups of rows, a W for each group -> (T,n) |
//! | `moe_route` | scores (T,X) -> the experts of each token and their weights |
//! | `moe_gather` | act (T,D) -> act (T*k,D) in groups, one an expert |
//! | `moe_combine` | (T*k,D) -> (T,D) |
//! | `take_heads`, `put_heads` | (T,H*n) <-> act or buffer (H*T,m) in groups, one a head |
//! | `finish_logits` | logits (T,V) in place |
//!
//! Models use the names of this module and never those of `cpu`: a second device is a second folder beside it.

mod cpu;

pub(crate) use cpu::{
    Act, Arena, Buffer, Device, GroupProduct, Held, KvPage, KvPool, KvQuery, KvShape, KvTarget, KvView, Matrix,
    PANEL_ROWS, PageShape, Places, Precision, Product, Routes, Shape, TILE, Weight,
};
pub use cpu::{Isa, KvType, Threads, physical_cores, timing};

use crate::numeric::{self, Real};

/// The gate's function in a gated feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// The tanh form of GELU.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// min(x, 7) * sigmoid(1.702 min(x, 7)), which gates clamp(up, -7, 7) + 1 ("gpt-oss-120b & gpt-oss-20b Model Card",
    /// 2025).
    SiluClamped,
}

impl Activation {
    /// The function, on a value or on a vector.
    #[inline(always)]
    pub(crate) fn apply<R: Real>(self, x: R) -> R {
        match self {
            Activation::Silu => numeric::silu(x),
            Activation::GeluTanh => numeric::gelu_tanh(x),
            Activation::GeluErf => numeric::gelu_erf(x),
            Activation::SiluClamped => {
                // In this order of operands a NaN stays one.
                let x = x.splat(7.0).min(x);
                x.div(numeric::exp(x.mul(x.splat(-1.702))).add(x.splat(1.0)))
            }
        }
    }

    /// The function of `gate` times `up`, which the clamped form shifts first.
    #[inline(always)]
    pub(crate) fn gate<R: Real>(self, gate: R, up: R) -> R {
        let up = match self {
            Activation::SiluClamped => up.splat(-7.0).max(up.splat(7.0).min(up)).add(up.splat(1.0)),
            _ => up,
        };
        self.apply(gate).mul(up)
    }
}

/// A kind of norm, over a row x of D values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// RMSNorm (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019): y = (x * r) * w,
    /// r = 1 / sqrt(mean of x^2 + eps).
    Rms,
    /// LayerNorm (Ba et al., "Layer Normalization", 2016): c = x - mean of x, y = (c * r) * w + b,
    /// r = 1 / sqrt(mean of c^2 + eps).
    Layer,
}

/// How a token's experts are chosen and weighted, from one score for each of X experts (Shazeer et al., "Outrageously
/// Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", 2017).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Routing {
    /// Experts of a token.
    pub used: usize,
    /// What becomes of the scores.
    pub gating: Gating,
    /// The weights of a token's experts are divided by their sum.
    pub normalized: bool,
    /// The weights are multiplied by this then.
    pub scale: f32,
    /// Experts come in this many groups, and only those of the best so many are chosen from (DeepSeek-AI, "DeepSeek-V3
    /// Technical Report", 2024).
    pub groups: Option<(usize, usize)>,
}

/// A function of a router's scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over the chosen experts.
    SoftmaxOfChosen,
    /// The logistic function of each score.
    Sigmoid,
}

/// A norm with its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    /// The kind.
    pub kind: NormKind,
    /// (D) scale.
    pub weight: &'a [f32],
    /// (D) bias.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// What a half block adds to the residual stream.
#[derive(Clone, Copy)]
pub(crate) struct Delta<'a> {
    /// (T,D)
    pub values: &'a Buffer,
    /// Norms each row first.
    pub post: Option<Norm<'a>>,
    /// Multiplies each value then.
    pub scale: f32,
}

/// Rotary position embedding (Su et al., "RoFormer", 2021) for the positions of one call.
#[derive(Debug, Clone)]
pub(crate) struct RopeTable {
    /// True: pairs are (2i, 2i+1). False: (i, i + n/2), with n the number of rotated elements.
    pub interleaved: bool,
    /// Pairs of a head that are rotated; what lies beyond passes through.
    pub pairs: usize,
    /// (T, pairs) cosines and sines.
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

/// What `attention` needs beside its tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    /// H.
    pub heads: usize,
    /// Queries are multiplied by this first.
    pub scale: f32,
    /// Scores become cap * tanh(score / cap).
    pub cap: Option<f32>,
    /// A query at position p sees positions p - window + 1 ..= p.
    pub window: Option<usize>,
    /// And the first so many of all, at most 256, whatever the window (Xiao et al., "Efficient Streaming Language
    /// Models with Attention Sinks", 2023).
    pub pinned: usize,
    /// A query sees positions up to its own; otherwise all that there are.
    pub causal: bool,
    /// (H) scores of a position that every query sees and that has no value: learned attention sinks (gpt-oss).
    pub sinks: Option<&'a [f32]>,
    /// What the result is wanted in.
    pub precision: Precision,
}
