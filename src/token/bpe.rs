//! Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019): a word starts as its bytes, and the
//! merge that training made first is applied first. Gemma 4 and a few others start from characters instead.

use super::merge::{Merger, NONE, Symbol, out_of_memory};
use super::pretokenize::{PreTokenizer, Traits};
use super::spm::{merge_characters, write_spaces};
use super::table::{Merge, MergeTable, TOGETHER};
use super::vocab::Vocab;
use crate::error::Result;

/// The alphabet in which files write tokens: printable bytes stand for themselves as Latin-1 characters, the 68 others
/// are moved in order to U+0100 and up. Entry `c` is 1 + the byte that U+`c` stands for, or 0 for none.
static ALPHABET: [u16; 256 + 68] = {
    let mut table = [0; 256 + 68];
    let (mut byte, mut moved) = (0u16, 0);
    while byte < 256 {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let character = if printable { byte } else { 256 + moved };
        table[character as usize] = byte + 1;
        moved += !printable as u16;
        byte += 1;
    }
    table
};

/// Appends the bytes that a token means in the byte alphabet. A token with other characters cannot come of merging
/// bytes: it is appended as it is, and the result is false.
pub(crate) fn write_bytes(token: &[u8], out: &mut Vec<u8>) -> bool {
    let (start, mut rest) = (out.len(), token);
    loop {
        // The alphabet's characters are of one byte or two.
        let (c, after) = match rest {
            [] => return true,
            [c @ 0..0x80, after @ ..] => (usize::from(*c), after),
            [first @ 0xC2..0xE0, second @ 0x80..0xC0, after @ ..] => {
                (usize::from(first & 0x1F) << 6 | usize::from(second & 0x3F), after)
            }
            _ => (ALPHABET.len(), rest),
        };
        let Some(&code @ 1..) = ALPHABET.get(c) else {
            out.truncate(start);
            out.extend_from_slice(token);
            return false;
        };
        out.push((code - 1) as u8);
        rest = after;
    }
}

/// How tokens and merges are written in the files of a family.
pub(super) fn spelling(pre: &PreTokenizer) -> fn(&[u8], &mut Vec<u8>) -> bool {
    if pre.traits.characters { write_spaces } else { write_bytes }
}

pub(crate) struct Bpe {
    pre: PreTokenizer,
    merges: MergeTable,
    /// The token of each byte, or [`NONE`].
    bytes: [u32; 256],
}

/// The table of the `count` merges of a file in order of rank, each `left right`. A merge that names or makes a piece
/// that is no token is passed over: nothing could be done with it.
pub(super) fn merge_table<'a>(
    vocab: &Vocab,
    write: fn(&[u8], &mut Vec<u8>) -> bool,
    count: usize,
    merges: impl Iterator<Item = &'a [u8]>,
    seed: u64,
) -> Result<MergeTable> {
    let mut table = MergeTable::new(seed, count)?;
    let (mut joined, mut found) = (Vec::new(), Vec::new());
    found.try_reserve_exact(TOGETHER).map_err(out_of_memory)?;
    for (merge, rank) in merges.take(count).zip(0..NONE) {
        // The left side is not empty, and may itself be a space.
        let Some(space) = merge.iter().skip(1).position(|&c| c == b' ') else { continue };
        let (left, right) = (&merge[..space + 1], &merge[space + 2..]);
        joined.clear();
        joined.try_reserve(merge.len()).map_err(out_of_memory)?;
        if !write(left, &mut joined) {
            continue;
        }
        let middle = joined.len();
        if !write(right, &mut joined) {
            continue;
        }
        let ids = (vocab.ordinary(&joined[..middle]), vocab.ordinary(&joined[middle..]), vocab.ordinary(&joined));
        if let (Some(left), Some(right), Some(id)) = ids {
            found.push((left, right, Merge { rank, id }));
        }
        if found.len() == TOGETHER {
            table.insert_all(&found);
            found.clear();
        }
    }
    table.insert_all(&found);
    Ok(table)
}

impl Bpe {
    pub fn new(vocab: &Vocab, pre: PreTokenizer, merges: MergeTable) -> Bpe {
        let byte = |b: usize| vocab.ordinary(&[b as u8]).unwrap_or(vocab.byte(b as u8));
        Bpe { pre, merges, bytes: std::array::from_fn(byte) }
    }

    pub fn merges(&self) -> &MergeTable {
        &self.merges
    }

    /// What the family of the pre-tokenizer implies.
    pub fn traits(&self) -> Traits {
        self.pre.traits
    }

    /// Appends the tokens of a text without special tokens. A byte without a token gives nothing: files name a control
    /// token as the unknown token, which must not come of text.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        let Traits { whole_words, whole_newlines, characters, .. } = self.pre.traits;
        self.pre.split(text, &mut |word| {
            ids.try_reserve(word.len()).map_err(out_of_memory)?;
            if let Some(known) = merger.words.get(word) {
                ids.extend_from_slice(known);
                return Ok(());
            }
            if (whole_words || whole_newlines && word.first() == Some(&b'\n'))
                && let Some(id) = vocab.ordinary(word)
            {
                ids.push(id);
                return Ok(());
            }
            if characters {
                let join = |_: &[u8], left: &Symbol, right: &Symbol| self.merges.get(left.id, right.id);
                return merge_characters(vocab, word, false, merger, ids, join);
            }
            // Cut where no token spans; ends are relative to the word, and nothing asks for them.
            merger.clear();
            let (mut last, from) = (None, ids.len());
            for (&byte, end) in word.iter().zip(1..) {
                if last.replace(byte).is_some_and(|last| !vocab.spans(last, byte)) {
                    self.flush(merger, ids)?;
                    merger.clear();
                }
                merger.push(self.bytes[usize::from(byte)], end)?;
            }
            self.flush(merger, ids)?;
            merger.words.put(word, &ids[from..]);
            Ok(())
        })
    }

    /// Merges the bytes since the last cut and appends their tokens.
    fn flush(&self, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        merger.run(|left, right| self.merges.get(left.id, right.id))?;
        ids.extend(merger.symbols().map(|symbol| symbol.id).filter(|&id| id != NONE));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte comes back from its character, and nothing else is one of the alphabet.
    #[test]
    fn the_alphabet_is_one_to_one() {
        let mut seen = [false; 256];
        for c in (0..0x800).filter_map(char::from_u32) {
            let mut out = Vec::new();
            if write_bytes(c.to_string().as_bytes(), &mut out) {
                assert!(!std::mem::replace(&mut seen[usize::from(out[0])], true) && out.len() == 1, "{c:?}");
            } else {
                assert_eq!(out, c.to_string().as_bytes());
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        // What is no UTF-8 stays as it is: too long for its character, cut, or no start.
        for other in [&b"a\xC0\xA1"[..], b"a\xC4", b"\x80", b"\xC4a", "a語".as_bytes()] {
            let mut out = b"x".to_vec();
            assert!(!write_bytes(other, &mut out));
            assert_eq!(out[1..], *other);
        }
    }
}
