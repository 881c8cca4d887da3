//! Sampling: the logits of one position become a token.
//!
//! A [`Sampler`] is a chain of [`Step`]s followed by a draw. Each step gets the candidates that the steps before it
//! left: it removes some, masks some with -infinity, or changes their logits. The draw then takes one uniform number
//! and goes through the candidates in order of probability, ties by the smaller id, so it depends on the candidates'
//! probabilities alone and not on the order in which the steps left them.
//!
//! | file | content |
//! |---|---|
//! | `chain.rs` | the sampler: its chain, its history, its random generator |
//! | `steps.rs` | the table of steps |
//! | `truncate.rs`, `repeat.rs`, `mirostat.rs` | what the steps do |
//! | `candidates.rs` | the candidates: ordering, selection, softmax, draw |
//!
//! Arithmetic is in f64 with the crate's own `exp` and `ln`: the same seed gives the same tokens everywhere.

mod candidates;
mod chain;
mod mirostat;
mod repeat;
mod steps;
mod truncate;

pub(crate) use candidates::Candidates;
pub(crate) use chain::logprobs_of_masked;
pub use chain::{Candidate, Logprob, Params, Sampler, logprobs};
pub use steps::{Callback, CandidateLogit, Step};
