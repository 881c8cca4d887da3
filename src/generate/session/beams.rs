//! Beam search: the most likely continuations as a whole, instead of the most likely next token (Lowerre, "The HARPY
//! Speech Recognition System", 1976; the length penalty is that of Wu et al., "Google's Neural Machine Translation System",
//! 2016, in its simple form, a power of the length).

use super::{FinishReason, Session};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::model::Part;
use crate::numeric::{FloatEnvironment, wide};
use crate::sample::logprobs;
use crate::token::DecodeOptions;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamOptions {
    /// Continuations that are followed at a time, and given in the end.
    pub width: usize,
    /// Tokens of a continuation at most; 0: as many as fit.
    pub max_tokens: usize,
    /// Continuations are compared by the sum of their log probabilities over length^penalty: 0 prefers short ones.
    pub length_penalty: f64,
    /// Tokens that end a text or a turn are taken as any other.
    pub ignore_eog: bool,
}

impl Default for BeamOptions {
    fn default() -> Self {
        BeamOptions { width: 4, max_tokens: 0, length_penalty: 1.0, ignore_eog: false }
    }
}

/// A continuation that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Beam {
    /// Its tokens, without one that ends it.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: Vec<u8>,
    /// The sum of the natural log probabilities, that of an ending token included.
    pub logprob: f64,
    /// What continuations are ordered by: logprob / length^penalty, an ending token counted.
    pub score: f64,
    /// `Eog`, `Length` or `ContextFull`.
    pub finish: FinishReason,
}

/// The widest search.
const WIDEST: usize = 256;

/// A continuation that is followed.
struct Live {
    cache: Cache,
    tokens: Vec<u32>,
    logprob: f64,
    /// (V): what follows.
    logits: Vec<f32>,
}

impl Session {
    /// The most likely continuations of the session's tokens that were found, best first. The session is as before: what
    /// they have in common is shared with it, page by page if its cache is paged. Samplers, stop strings and limits of a
    /// generation have no part in it.
    ///
    /// # Errors
    /// `FailedPrecondition` if there are no tokens; `InvalidArgument` for a width that is 0 or above 256, or a penalty that is
    /// not finite; `CacheFull` if there are no pages, `OutOfMemory`, `Cancelled`.
    pub fn beam_search(&mut self, options: &BeamOptions) -> Result<Vec<Beam>> {
        let BeamOptions { width, max_tokens, length_penalty, ignore_eog } = *options;
        if !(1..=WIDEST).contains(&width) {
            let message = format!("{width} beams were asked for, there can be 1 to {WIDEST}");
            return Err(Error::invalid_argument(message).with("parameter", "width").with("found", width));
        }
        if !length_penalty.is_finite() {
            let message = format!("the length penalty is {length_penalty}, it must be finite");
            return Err(Error::invalid_argument(message)
                .with("parameter", "length_penalty")
                .with("found", length_penalty));
        }
        let logits = self.logits()?.to_vec();
        self.retract();
        let _environment = FloatEnvironment::enter();
        let room = self.cache.capacity() - self.tokens.len();
        let most = if max_tokens == 0 { room } else { max_tokens.min(room) };
        let full = if most == max_tokens { FinishReason::Length } else { FinishReason::ContextFull };
        let score = |logprob: f64, length: usize| logprob / wide::pow(length as f64, length_penalty);
        let mut live = vec![Live { cache: self.cache.fork(), tokens: Vec::new(), logprob: 0.0, logits }];
        let mut ended: Vec<Beam> = Vec::new();
        for length in 1..=most {
            // (logprob, beam, token)
            let mut candidates: Vec<(f64, usize, u32)> = Vec::new();
            for (i, beam) in live.iter().enumerate() {
                let n = (2 * width).min(beam.logits.len());
                let (_, best) = logprobs(&beam.logits, 0, n)?;
                candidates.extend(best.iter().map(|best| (beam.logprob + best.logprob, i, best.id)));
            }
            candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            let mut next: Vec<(f64, usize, u32)> = Vec::new();
            for (logprob, i, token) in candidates.into_iter().take_while(|(logprob, ..)| *logprob > f64::NEG_INFINITY) {
                if ignore_eog || !self.model.tokenizer().is_eog(token) {
                    if next.len() < width {
                        next.push((logprob, i, token));
                    }
                } else {
                    let beam = (live[i].tokens.clone(), logprob, score(logprob, length));
                    ended.push(self.beam(beam, FinishReason::Eog)?);
                }
            }
            ended.sort_by(|a, b| b.score.total_cmp(&a.score));
            ended.truncate(width);
            // No continuation gets better than it is now.
            let hope =
                next.first().map(|(logprob, ..)| score(*logprob, if length_penalty > 0.0 { most } else { length }));
            let worst = ended.last().filter(|_| ended.len() == width).map(|beam| beam.score);
            let done = hope.is_none() || worst.is_some_and(|worst| hope.is_some_and(|hope| hope <= worst));
            if done {
                live.clear();
                break;
            }
            live = self.branch(&live, &next, length < most)?;
        }
        for beam in live {
            let beam = (beam.tokens.clone(), beam.logprob, score(beam.logprob, beam.tokens.len().max(1)));
            ended.push(self.beam(beam, full)?);
        }
        ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        ended.truncate(width);
        Ok(ended)
    }

    fn beam(&self, (tokens, logprob, score): (Vec<u32>, f64, f64), finish: FinishReason) -> Result<Beam> {
        let text = self.model.tokenizer().decode(&tokens, DecodeOptions::default())?;
        Ok(Beam { tokens, text, logprob, score, finish })
    }

    /// The beams that go on with these tokens, processed together if `process` is set.
    fn branch(&mut self, live: &[Live], next: &[(f64, usize, u32)], process: bool) -> Result<Vec<Live>> {
        let branch = |&(logprob, i, token): &(f64, usize, u32)| {
            let tokens = live[i].tokens.iter().copied().chain([token]).collect();
            Live { cache: live[i].cache.fork(), tokens, logprob, logits: Vec::new() }
        };
        let mut branches: Vec<Live> = next.iter().map(branch).collect();
        if process {
            let adapters = &self.adapters;
            let mut parts = Vec::with_capacity(branches.len());
            for Live { cache, tokens, .. } in &mut branches {
                parts.push(Part { tokens: &tokens[tokens.len() - 1..], asked: 0..1, cache, adapters });
            }
            self.model.forward(&self.device, &mut parts, &mut self.scratch, &self.cancel)?;
            for (r, beam) in branches.iter_mut().enumerate() {
                beam.cache.commit(1);
                beam.logits = self.scratch.logits.row(r).to_vec();
            }
        }
        Ok(branches)
    }
}
