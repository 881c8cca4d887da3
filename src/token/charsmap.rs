//! The map of characters that SentencePiece applies to a text before it cuts it, mostly NFKC: a double array trie
//! (Yata et al., 2007) of the sequences that are replaced, and the texts that replace them, each ended by a zero.

use super::merge::out_of_memory;
use super::unicode::first_char;
use crate::error::{Error, Result};
use crate::gguf::Gguf;

const KEY: &str = "tokenizer.ggml.precompiled_charsmap";

/// Longer sequences and replacements do not come of any standard, and would let a file make a text too large.
const LONGEST: usize = 256;

pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

/// A node of the trie: what it says of its children, or the value of a leaf.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    /// What the index of a child is the exclusive or of, with the node's own and the child's byte.
    fn offset(self) -> u32 {
        (self.0 >> 10) << ((self.0 & 1 << 9) >> 6)
    }

    /// The byte that leads to the node; more than a byte for a leaf.
    fn label(self) -> u32 {
        self.0 & (1 << 31 | 0xFF)
    }

    fn value(self) -> usize {
        (self.0 & !(1 << 31)) as usize
    }
}

impl Charsmap {
    /// Reads the map of a file; `None` if it has none or an empty one. Errors: `CorruptFile`.
    pub fn from_gguf(gguf: &Gguf) -> Result<Option<Charsmap>> {
        let Some(array) = gguf.array(KEY)? else { return Ok(None) };
        let corrupt = |what: String| Error::corrupt_file(format!("key {KEY}: {what}")).with("key", KEY);
        let found = array.element_type().name();
        let wrong = || corrupt(format!("expected an array of bytes, found one of {found}")).with("found", found);
        let bytes = array.raw().filter(|&(_, width)| width == 1).map(|(bytes, _)| bytes).ok_or_else(wrong)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let parts = bytes.split_first_chunk::<4>().and_then(|(size, rest)| {
            rest.split_at_checked(u32::from_le_bytes(*size) as usize).filter(|(trie, _)| trie.len() % 4 == 0)
        });
        let Some((trie, replacements)) = parts else {
            return Err(corrupt(format!("the trie does not fit in {} bytes", bytes.len())));
        };
        let longest = replacements.split(|&b| b == 0).map(<[u8]>::len).max().unwrap_or(0);
        if longest > LONGEST || replacements.last().is_some_and(|&b| b != 0) {
            return Err(corrupt(format!("a replacement of {longest} bytes, or one that does not end")));
        }
        let copy = |bytes: &[u8]| {
            let mut copy = Vec::new();
            copy.try_reserve_exact(bytes.len()).map_err(out_of_memory)?;
            copy.extend_from_slice(bytes);
            Ok::<_, Error>(copy)
        };
        let mut units = Vec::new();
        units.try_reserve_exact(trie.len() / 4).map_err(out_of_memory)?;
        units.extend(trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)));
        Ok(Some(Charsmap { units, replacements: copy(replacements)? }))
    }

    fn unit(&self, index: u32) -> Option<Unit> {
        self.units.get(index as usize).copied().map(Unit)
    }

    /// The longest sequence at the start of the text that is replaced, as its length, and what replaces it.
    fn first(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let mut found = None;
        let mut node = self.unit(0)?.offset();
        for (&byte, length) in text.iter().zip(1..=LONGEST) {
            node ^= u32::from(byte);
            let Some(unit) = self.unit(node).filter(|unit| byte != 0 && unit.label() == u32::from(byte)) else { break };
            node ^= unit.offset();
            if unit.has_leaf() {
                found = self.unit(node).map(|leaf| (length, leaf.value()));
            }
        }
        let (length, at) = found?;
        let replacement = self.replacements.get(at..)?;
        let end = replacement.iter().position(|&b| b == 0)?;
        Some((length, &replacement[..end]))
    }

    /// Calls `append` with the parts of the mapped text. Bytes that are no UTF-8 become U+FFFD.
    pub fn apply(&self, text: &[u8], append: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let (length, replacement) = self.first(rest).unwrap_or_else(|| match first_char(rest) {
                (char::REPLACEMENT_CHARACTER, length) => (length, "\u{FFFD}".as_bytes()),
                (_, length) => (length, &rest[..length]),
            });
            append(replacement)?;
            rest = &rest[length..];
        }
        Ok(())
    }
}
