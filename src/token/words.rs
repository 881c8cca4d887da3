//! The words that came before in a text, with their tokens: most words of a text are repetitions.

use super::table::{hash, seed};

/// Bytes of a word that is kept, and its tokens, at most: what fits into a line of the processor's cache.
const LONGEST: usize = 30;
const MOST_TOKENS: usize = 8;

/// Slots at most: half a mebibyte.
const MOST_SLOTS: usize = 1 << 13;

/// Bytes of text for each slot, and in shorter texts none at all.
const BYTES_PER_SLOT: usize = 16;
const SHORT: usize = 1024;

/// The words of one text, each in the one slot that its hash names: the last of those that would share it.
#[derive(Default)]
pub(crate) struct Words {
    seed: u64,
    slots: Vec<Slot>,
}

/// A word, if its length is not 0.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Slot {
    length: u8,
    count: u8,
    word: [u8; LONGEST],
    tokens: [u32; MOST_TOKENS],
}

const EMPTY: Slot = Slot { length: 0, count: 0, word: [0; LONGEST], tokens: [0; MOST_TOKENS] };

impl Words {
    /// Room for the words of a text of so many bytes; none if the memory cannot be had.
    pub fn of_text(bytes: usize) -> Words {
        let mut slots = Vec::new();
        let count = (bytes / BYTES_PER_SLOT).next_power_of_two().min(MOST_SLOTS);
        if bytes >= SHORT && slots.try_reserve_exact(count).is_ok() {
            slots.resize(count, EMPTY);
        }
        Words { seed: seed(), slots }
    }

    fn slot(&self, word: &[u8]) -> Option<usize> {
        let fits = !self.slots.is_empty() && word.len() <= LONGEST;
        // Their number is a power of two.
        fits.then(|| hash(self.seed, word) as usize & (self.slots.len() - 1))
    }

    /// The tokens of a word, if it is there.
    pub fn get(&self, word: &[u8]) -> Option<&[u32]> {
        let slot = self.slots.get(self.slot(word)?)?;
        let same = slot.word.get(..slot.length.into()) == Some(word) && !word.is_empty();
        slot.tokens.get(..slot.count.into()).filter(|_| same)
    }

    /// Keeps a word, unless it or its tokens are too long.
    pub fn put(&mut self, word: &[u8], tokens: &[u32]) {
        let Some(slot) = self.slot(word).and_then(|at| self.slots.get_mut(at)) else { return };
        if tokens.len() > MOST_TOKENS {
            return;
        }
        slot.word[..word.len()].copy_from_slice(word);
        slot.tokens[..tokens.len()].copy_from_slice(tokens);
        (slot.length, slot.count) = (word.len() as u8, tokens.len() as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, MOST_TOKENS, Words};
    use std::collections::HashMap;

    #[test]
    fn what_is_found_is_what_was_kept_last() {
        let mut rng = crate::rng::Rng::new(5);
        let (mut words, mut kept) = (Words::of_text(1 << 20), HashMap::new());
        let mut found = 0;
        for _ in 0..100_000 {
            let n = rng.next_u64() as usize % (LONGEST + 4);
            let word: Vec<u8> = (0..n).map(|_| b'a' + (rng.next_u64() % 2) as u8).collect();
            if let Some(tokens) = words.get(&word) {
                assert_eq!(Some(tokens), kept.get(&word).map(Vec::as_slice));
                found += 1;
            }
            let tokens: Vec<u32> =
                (0..rng.next_u64() % (MOST_TOKENS as u64 + 2)).map(|_| rng.next_u64() as u32).collect();
            words.put(&word, &tokens);
            if tokens.len() <= MOST_TOKENS && n <= LONGEST {
                kept.insert(word, tokens);
            }
        }
        assert!(found > 10_000, "{found}");
    }

    #[test]
    fn there_are_no_slots_for_short_texts() {
        let mut words = Words::of_text(100);
        words.put(b"a", &[1]);
        assert_eq!((words.get(b"a"), words.slots.len()), (None, 0));
        assert!(Words::of_text(usize::MAX / 2).slots.len() == super::MOST_SLOTS);
    }
}
