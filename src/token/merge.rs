//! Merging neighbours, best first: the loop that byte-level BPE and SentencePiece share.
//!
//! The symbols of a text are a linked list; heaps hold the possible merges. Each merge costs one heap operation and
//! at most two new entries, so a text of n symbols costs O(n log n) whatever it is (as in SentencePiece, Kudo and
//! Richardson, 2018). Each stretch of [`BLOCK`] symbols has a heap of its own, and one more heap holds the best of
//! each: as many merges as possible are then done in one place before the next, which keeps a text of megabytes from
//! waiting for memory at every merge.

use super::table::Merge;
use super::words::Words;
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, TryReserveError};

/// No id, no neighbour, no rank.
pub(crate) const NONE: u32 = u32::MAX;

/// A stretch of the text that is one token so far, or one character that is no token.
#[derive(Clone, Copy)]
pub(crate) struct Symbol {
    /// The token, or [`NONE`].
    pub id: u32,
    /// Bytes `start..end` of the text.
    pub start: u32,
    pub end: u32,
    previous: u32,
    next: u32,
    /// The merge with the next symbol: its rank, [`NONE`] if there is none, and its result.
    rank: u32,
    result: u32,
}

/// Symbols per heap; few in tests, so that small texts have many blocks.
const BLOCK: usize = if cfg!(test) { 8 } else { 1024 };

/// A possible merge: its rank and, below it, the index of its left symbol. The least is the best: the lowest rank
/// first, then the leftmost. One whose symbol has another rank by now is out of date.
type Entry = Reverse<u64>;

fn entry(rank: u32, left: u32) -> Entry {
    Reverse(u64::from(rank) << 32 | u64::from(left))
}

/// The block of an entry's symbol.
fn block_of(Reverse(entry): Entry) -> usize {
    entry as u32 as usize / BLOCK
}

/// The symbols of one text or word, and the room to merge them, kept from word to word.
#[derive(Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    /// The possible merges of each block.
    blocks: Vec<BinaryHeap<Entry>>,
    /// The best of each block, and some that were.
    best: BinaryHeap<Entry>,
    /// What words merged into.
    pub words: Words,
}

/// The error of an allocation that a text is too long for.
pub(crate) fn out_of_memory(_: TryReserveError) -> Error {
    Error::out_of_memory("the text to encode needs memory that cannot be had")
}

impl Merger {
    /// For a text of so many bytes.
    pub fn of_text(bytes: usize) -> Merger {
        Merger { words: Words::of_text(bytes), ..Merger::default() }
    }

    /// Forgets the last text.
    pub fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Appends a symbol that ends at byte `end` and begins where the last one ended. There must be fewer than
    /// `u32::MAX`.
    pub fn push(&mut self, id: u32, end: u32) -> Result<()> {
        self.symbols.try_reserve(1).map_err(out_of_memory)?;
        let index = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.end);
        self.symbols.push(Symbol {
            id,
            start,
            end,
            previous: index.wrapping_sub(1),
            next: index + 1,
            rank: NONE,
            result: NONE,
        });
        Ok(())
    }

    /// Merges until `join` has nothing more to offer. `join` says what two neighbours merge into; ranks are below
    /// [`NONE`].
    pub fn run(&mut self, mut join: impl FnMut(&Symbol, &Symbol) -> Option<Merge>) -> Result<()> {
        self.best.clear();
        for start in (0..self.symbols.len()).step_by(BLOCK) {
            let block = start / BLOCK;
            if block == self.blocks.len() {
                self.blocks.try_reserve(1).map_err(out_of_memory)?;
                self.blocks.push(BinaryHeap::new());
            }
            let mut entries = self.blocks.get_mut(block).map(std::mem::take).unwrap_or_default().into_vec();
            entries.clear();
            let end = self.symbols.len().min(start + BLOCK);
            entries.try_reserve(end - start).map_err(out_of_memory)?;
            entries.extend((start..end).filter_map(|left| self.offer(left as u32, &mut join)));
            let heap = BinaryHeap::from(entries);
            self.best.try_reserve(1).map_err(out_of_memory)?;
            self.best.extend(heap.peek());
            self.blocks[block] = heap;
        }
        while let Some(block) = self.best.pop().map(block_of) {
            while let Some(&next) = self.blocks[block].peek() {
                // Reversed, the greatest is the least.
                if self.best.peek().is_some_and(|other| *other > next) {
                    self.best.push(next);
                    break;
                }
                self.blocks[block].pop();
                for offer in self.merge(next, &mut join).into_iter().flatten() {
                    let place = block_of(offer);
                    let heap = &mut self.blocks[place];
                    heap.try_reserve(1).map_err(out_of_memory)?;
                    if place != block && heap.peek().is_none_or(|best| offer > *best) {
                        self.best.try_reserve(2).map_err(out_of_memory)?;
                        self.best.push(offer);
                    }
                    heap.push(offer);
                }
            }
        }
        Ok(())
    }

    /// Does a merge, unless it is out of date, and gives those that it makes possible.
    fn merge(
        &mut self,
        Reverse(entry): Entry,
        join: &mut impl FnMut(&Symbol, &Symbol) -> Option<Merge>,
    ) -> [Option<Entry>; 2] {
        let (rank, left) = ((entry >> 32) as u32, entry as u32);
        let symbol = self.symbols[left as usize];
        if symbol.rank != rank {
            return [None; 2];
        }
        let next = &mut self.symbols[symbol.next as usize];
        next.rank = NONE;
        let (end, after) = (next.end, next.next);
        if let Some(after) = self.symbols.get_mut(after as usize) {
            after.previous = left;
        }
        self.symbols[left as usize] = Symbol { id: symbol.result, end, next: after, ..symbol };
        [self.offer(symbol.previous, join), self.offer(left, join)]
    }

    /// Asks for the merge of a symbol with its next one, notes it, and gives its entry for the heap.
    fn offer(&mut self, left: u32, join: &mut impl FnMut(&Symbol, &Symbol) -> Option<Merge>) -> Option<Entry> {
        let symbol = self.symbols.get(left as usize)?;
        let merge = self.symbols.get(symbol.next as usize).and_then(|next| join(symbol, next));
        let merge = merge.unwrap_or(Merge { rank: NONE, id: NONE });
        let symbol = self.symbols.get_mut(left as usize)?;
        (symbol.rank, symbol.result) = (merge.rank, merge.id);
        (merge.rank != NONE).then(|| entry(merge.rank, left))
    }

    /// The symbols that are left, in order.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        std::iter::successors(self.symbols.first(), |symbol| self.symbols.get(symbol.next as usize))
    }
}

#[cfg(test)]
mod tests;
