//! libllm: GGUF language models, from Rust and through a C ABI (`include/llm.h`).
//!
//! **The promise.** Results are a pure function of (model bytes, tokens, parameters, seed): the number of
//! threads, the split of a prompt into chunks and the CPU's instruction set do not change a bit of a logit.
//!
//! The floors of the house; a module imports from its own folder or from lower floors only
//! (`tests/layering.rs` checks it):
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`error`], [`log`], `cancel`, `fault`, `rng`, `numeric` |
//! | 1 | [`quant`]: the table of number formats |
//! | 2 | [`gguf`]: the file format; `device`: the ops, and the CPU that runs them |
//! | 3 | [`token`]: text to ids and back, grammars; [`cache`]: keys and values; [`sample`]: logits to a token |
//! | 3 | [`mod@quantize`]: a model's file in smaller formats |
//! | 4 | [`chat`]: conversations to text and back; [`model`]: configuration, weights, the architectures, the forward pass |
//! | 5 | [`generate`]: a conversation |
//! | 6 | `capi`: the C functions |
//!
//! Dimension names, used in every shape: **B** batch, **T** tokens of this call, **S** cached positions,
//! **D** model width, **H** query heads, **K** key/value heads, **E** head width, **F** feed-forward width,
//! **V** vocabulary, **L** layers, **R** LoRA rank. Shapes are written slowest dimension first: a (T,D)
//! buffer holds T rows of D values.

mod cancel;
pub mod error;
mod fault;
pub mod log;
mod numeric;
mod rng;

pub mod quant;

mod device;
pub mod gguf;

pub mod cache;
pub mod quantize;
pub mod sample;
pub mod token;

pub mod chat;
pub mod model;

pub mod generate;

#[cfg(feature = "capi")]
mod capi;

pub use cancel::Cancel;
#[doc(hidden)]
pub use device::timing;
pub use device::{Isa, KvType, Threads, physical_cores};
pub use error::{Error, Result};
