//! What is wanted of the logits behind new tokens, and the scores of tokens.

use crate::device::Threads;
use crate::error::{Result, first_of};
use crate::sample::logprobs;

use super::Session;

/// Tokens whose logits are computed together, at most: they are V numbers each. More than there are guesses.
pub(super) const ROWS: usize = 72;
const _: () = assert!(ROWS > super::speculation::MOST);

/// What is wanted of the logits behind the last tokens.
pub(super) enum Wanted<'a> {
    /// Those of the last token.
    Last,
    /// (T,V) those of the last T tokens.
    Logits(&'a mut [f32]),
    /// (T) the log probabilities of the last T tokens. The first is the caller's to write: it is one of the logits before
    /// these.
    Scores(&'a mut [f64]),
}

impl Wanted<'_> {
    /// Of how many of the last tokens the logits are wanted.
    pub fn count(&self, vocab_size: usize) -> usize {
        match self {
            Wanted::Last => 1,
            Wanted::Logits(all) => all.len() / vocab_size,
            Wanted::Scores(scores) => scores.len(),
        }
    }

    /// Takes the logits, rows of `vocab_size`, behind the next of `tokens`, which are the last `count`; `done` of them are
    /// done.
    pub fn take(
        &mut self,
        threads: &Threads,
        logits: &[f32],
        vocab_size: usize,
        done: usize,
        tokens: &[u32],
    ) -> Result<()> {
        match self {
            Wanted::Last => Ok(()),
            Wanted::Logits(all) => {
                all[done * vocab_size..][..logits.len()].copy_from_slice(logits);
                Ok(())
            }
            Wanted::Scores(scores) => {
                let next = tokens[done + 1..].iter().zip(&mut scores[done + 1..]);
                threads.try_each(logits.chunks_exact(vocab_size).zip(next), |(logits, (&token, score))| {
                    *score = logprobs(logits, token, 0)?.0.logprob;
                    Ok(())
                })
            }
        }
    }
}

impl Session {
    /// As [`append`](Session::append), and writes the log probability of each of the tokens after those before it to
    /// `scores`, (T): what [`logprobs`](crate::sample::logprobs) gives for it.
    ///
    /// # Errors
    /// As `append`, `BufferTooSmall`, and `FailedPrecondition` if the session is empty: nothing is before the first token.
    pub fn score(&mut self, tokens: &[u32], scores: &mut [f64]) -> Result<()> {
        let n = tokens.len();
        let scores = first_of(scores, n, format_args!("{n} tokens have as many scores"))?;
        self.model.check_tokens(tokens)?;
        let Some(first) = tokens.first() else { return Ok(()) };
        self.check_room(self.tokens.len(), n)?;
        scores[0] = logprobs(self.logits()?, *first, 0)?.0.logprob;
        self.process(tokens, Wanted::Scores(scores))
    }
}
