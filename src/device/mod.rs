//! The ops that a model is written in, and the device that runs them.
//!
//! | op | shapes |
//! |---|---|
//! | `embed` | tokens (T), W (V,D) -> x (T,D) |
//! | `add` | x (T,D) += delta (T,D) |
//! | `add_norm` | the same, and norm(x) -> act (T,D) |
//! | `linear` | act (T,D), W (n,D) -> (T,n), several W in one stage |
//! | `linear_each` | the same, each W with an act of its own |
//! | `add_scaled` | y (T,n) += scale x (T,n) |
//! | `take` | x (T,n) -> act (T,n) |
//! | `head_norm_rope` | q (T,H*E), k (T,K*E) in place |
//! | `kv_append` | k, v (T,K*E) -> a layer of the cache |
//! | `attention` | q (T,H*E), a layer of the cache -> act (T,H*E) |
//! | `glu` | gate, up (T,F) -> act (T,F) |
//! | `finish_logits` | logits (T,V) in place |
//!
//! Models use the names of this module and never those of `cpu`: a second device is a second folder beside it.

mod cpu;

pub(crate) use cpu::{
    Act, Arena, Buffer, Device, KvShape, KvView, PANEL_ROWS, Precision, Product, Shape, TILE, Weight,
};
pub use cpu::{Isa, KvType, Threads, physical_cores};

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
}

impl Activation {
    /// The function, on a value or on a vector.
    #[inline(always)]
    pub(crate) fn apply<R: Real>(self, x: R) -> R {
        match self {
            Activation::Silu => numeric::silu(x),
            Activation::GeluTanh => numeric::gelu_tanh(x),
            Activation::GeluErf => numeric::gelu_erf(x),
        }
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
pub(crate) struct Attention {
    /// H.
    pub heads: usize,
    /// Queries are multiplied by this first.
    pub scale: f32,
    /// Scores become cap * tanh(score / cap).
    pub cap: Option<f32>,
    /// A query at position p sees positions p - window + 1 ..= p.
    pub window: Option<usize>,
    /// What the result is wanted in.
    pub precision: Precision,
}
