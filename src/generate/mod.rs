//! A conversation with a model: tokens in, tokens and text out.

mod session;
mod stop;

pub use session::{FinishReason, GenerateOptions, Next, Session, SessionOptions, Timings};
