//! Which sequences have a part in the next step.
//!
//! There is one order, by priority and then by arrival. The first `max_batch` sequences that can have a part in a step,
//! and whoever lacks a page takes those of the last sequence in it, which is computed again later. So the first one
//! always gets on, and everyone becomes the first. Continuations of a beam search that wait for the others of theirs
//! have no part, and stand in nobody's way.

use std::collections::HashSet;

use super::sequence::Sequence;
use super::step::Core;
use crate::error::{Error, Result};

/// Tokens of prompts in a step at least, if a chunk has so many: fewer would not pay for reading the weights.
const LEAST: usize = 16;

impl Core {
    /// Gives each sequence its part of the next step, of `chunk` tokens of prompts, and puts those that have one first,
    /// those with the same adapters together. Gives how many these are.
    pub(super) fn plan(&mut self, chunk: usize) -> Result<usize> {
        self.sequences.sort_by_key(Sequence::order);
        let first = self.sequences.iter().filter(|sequence| !sequence.shown).take(self.max_batch);
        let decoding = first.filter(|sequence| sequence.pending() == 1).count();
        let mut left = chunk.saturating_sub(decoding).max(LEAST.min(self.chunk));
        let (mut members, mut full) = (0, false);
        // Those that have pages and not all of their prompts.
        let mut started: Vec<usize> = Vec::new();
        for i in 0..self.sequences.len() {
            if members == self.max_batch {
                break;
            }
            let before = i.checked_sub(1).filter(|before| self.sequences[*before].computes_pages());
            started.extend(before);
            let sequence = &self.sequences[i];
            if sequence.shown || sequence.ended || left == 0 && sequence.pending() > 1 {
                continue;
            }
            let mut adopted = None;
            if sequence.cache.length() == 0 {
                if full || self.may_share_soon(i, &started) {
                    continue;
                }
                // No other takes the pages that it waits for, but those behind it that have some go on.
                adopted = self.may_start(i);
                if adopted.is_none() {
                    full = true;
                    continue;
                }
            }
            let sequence = &mut self.sequences[i];
            let (start, pending) = (sequence.cache.length(), sequence.pending());
            let n = if pending == 1 { 1 } else { pending.min(left) };
            match self.reserve(i, n) {
                Ok(true) => {}
                Ok(false) => continue,
                // Those that have a part get on, and may leave memory behind.
                Err(Error::OutOfMemory(_)) if members > 0 => break,
                Err(error) => return Err(error),
            }
            let sequence = &mut self.sequences[i];
            if let Some(adopted) = adopted {
                sequence.cache.count_hits();
                self.counts.reused_tokens += adopted as u64;
            }
            sequence.part = start..start + n;
            members += 1;
            left -= if pending > 1 { n } else { 0 };
        }
        self.sequences.sort_by_key(|sequence| (sequence.part.is_empty(), sequence.salt));
        Ok(self.sequences.iter().filter(|sequence| !sequence.part.is_empty()).count())
    }

    /// Whether one of those that have `started` is about to compute pages that sequence i could share.
    fn may_share_soon(&self, i: usize, started: &[usize]) -> bool {
        let (positions, sequence) = (self.pages.page_positions(), &self.sequences[i]);
        let known = &sequence.tokens[..sequence.tokens.len() - 1];
        let ahead = |other: &Sequence| {
            let next = (other.cache.length() / positions + 1) * positions;
            other.salt == sequence.salt && known.get(..next).is_some_and(|known| other.tokens.starts_with(known))
        };
        started.iter().any(|before| ahead(&self.sequences[*before]))
    }

    /// If there are pages for sequence i, which holds none, to be started, with those that others have for its beginning
    /// and those that only sequences behind it hold: for how many tokens it has pages then.
    fn may_start(&mut self, i: usize) -> Option<usize> {
        let positions = self.pages.page_positions();
        let (before, rest) = self.sequences.split_at_mut(i);
        let (sequence, after) = rest.split_first_mut()?;
        let known = &sequence.tokens[..sequence.tokens.len() - 1];
        let adopted = sequence.cache.adopt(sequence.salt, known);
        let others = || before.iter().filter(|other| other.cache.pages() > 0 && !other.shown);
        // Pages that those who have started their prompts will need for them.
        let lacking = |other: &Sequence| (other.tokens.len() / positions + 1).saturating_sub(other.cache.pages());
        let promised: usize = others().filter(|other| other.pending() > 1).map(lacking).sum();
        let pool = self.pages.pages().pool();
        let mut behind: HashSet<_> = after.iter().flat_map(|other| other.cache.page_ids()).collect();
        if !behind.is_empty() {
            let kept = before.iter().chain([&*sequence]).flat_map(|other| other.cache.page_ids());
            kept.for_each(|page| _ = behind.remove(&page));
        }
        let free = pool.max_pages().saturating_sub(pool.held().saturating_sub(behind.len()));
        if others().next().is_some() && free < promised + lacking(sequence) {
            sequence.give_up();
            return None;
        }
        Some(adopted)
    }

    /// Makes room for `n` more tokens of sequence i; false if it has to wait or had to end.
    fn reserve(&mut self, i: usize, n: usize) -> Result<bool> {
        loop {
            let cache = &mut self.sequences[i].cache;
            let start = cache.length();
            let full = match cache.reserve(start..start + n) {
                Ok(()) => return Ok(true),
                Err(error @ Error::CacheFull(_)) => error,
                Err(error) => return Err(error),
            };
            let holds = |sequence: &Sequence| sequence.cache.pages() > 0;
            // Those that wait for this one do not need theirs before it has its logits.
            let request = self.sequences[i].request;
            let waits = |sequence: &Sequence| sequence.shown && sequence.request == request;
            let mut takes = self.sequences.iter_mut().enumerate().rev();
            let last = takes.find(|(j, sequence)| holds(sequence) && (*j > i || waits(sequence)));
            if let Some((_, last)) = last {
                last.give_up();
                self.counts.preemptions += 1;
                continue;
            }
            if self.sequences[..i].iter().any(holds) {
                self.sequences[i].give_up();
                self.counts.preemptions += 1;
            } else {
                self.end(i, &full);
            }
            return Ok(false);
        }
    }
}
