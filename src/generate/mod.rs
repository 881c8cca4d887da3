//! A conversation with a model: tokens in, tokens and text out.

mod beam;
mod engine;
mod generation;
mod imatrix;
mod session;
mod stop;

pub use beam::{Beam, BeamOptions};
pub use engine::{Engine, EngineOptions, EngineStats, Event, Request, RequestId};
#[cfg(feature = "capi")]
pub(crate) use generation::check_stop;
pub use imatrix::{ImatrixOptions, imatrix};
pub use session::{
    EmbedOptions, FinishReason, GenerateOptions, Next, Session, SessionOptions, Speculation, SpeculationStats, Timings,
};
