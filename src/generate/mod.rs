//! A conversation with a model: tokens in, tokens and text out.

mod generation;
mod imatrix;
mod session;
mod stop;

pub use imatrix::{ImatrixOptions, imatrix};
pub use session::{EmbedOptions, FinishReason, GenerateOptions, Next, Session, SessionOptions, Timings};
