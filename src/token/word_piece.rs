//! BERT's WordPiece (Devlin et al., 2019): words between white space and punctuation, each cut greedily into the longest
//! tokens. In files, tokens that begin a word have a space mark before them, and those that go on have none.

use super::merge::out_of_memory;
use super::spm::SPACE_MARK;
use super::unicode::{first_char, is_category};
use super::vocab::Vocab;
use crate::error::Result;
use unicode_normalization::char::decompose_canonical;

/// Longer words are unknown.
const LONGEST_WORD: usize = 100;

/// Appends a token with the mark before it turned into a space; a mark alone is text. A token that has a space already
/// cannot come of a word: the result is false.
pub(super) fn write_word(token: &[u8], out: &mut Vec<u8>) -> bool {
    match token.strip_prefix(SPACE_MARK) {
        Some(word @ [_, ..]) => {
            out.push(b' ');
            out.extend_from_slice(word);
        }
        _ => out.extend_from_slice(token),
    }
    !token.contains(&b' ')
}

/// What is done to a text before it is cut.
#[derive(Clone, Copy)]
pub(crate) struct WordPiece {
    pub lowercase: bool,
    pub strip_accents: bool,
}

/// The ideographs that are words of their own, with the gap that is in Hugging Face's tokenizers.
fn is_ideograph(c: char) -> bool {
    matches!(
        c,
        '\u{4E00}'..='\u{9FFF}'
            | '\u{3400}'..='\u{4DBF}'
            | '\u{20000}'..='\u{2A6DF}'
            | '\u{2A700}'..='\u{2B73F}'
            | '\u{2B740}'..='\u{2B81F}'
            | '\u{2B920}'..='\u{2CEAF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{2F800}'..='\u{2FA1F}'
    )
}

/// Control, format and private characters, but for the common spaces; not what Unicode has not assigned.
fn is_control(c: char) -> bool {
    !matches!(c, '\t' | '\n' | '\r') && ["Cc", "Cf", "Co"].iter().any(|name| is_category(c, name))
}

/// A word that grows.
#[derive(Default)]
struct Word {
    /// A space, which stands for the mark, and the characters, of which no more are kept than a word may have.
    bytes: Vec<u8>,
    characters: usize,
}

impl Word {
    fn push(&mut self, c: char) -> Result<()> {
        self.characters += 1;
        if self.characters > LONGEST_WORD {
            return Ok(());
        }
        self.bytes.try_reserve(5).map_err(out_of_memory)?;
        if self.bytes.is_empty() {
            self.bytes.push(b' ');
        }
        self.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// Appends the word's tokens, or the unknown token if it cannot be cut into tokens, and begins a new word.
    fn finish(&mut self, vocab: &Vocab, ids: &mut Vec<u32>) -> Result<()> {
        let first = ids.len();
        ids.try_reserve(self.bytes.len()).map_err(out_of_memory)?;
        let mut rest = &self.bytes[..];
        if self.characters > LONGEST_WORD {
            rest = &[];
            ids.extend(vocab.unk);
        }
        while !rest.is_empty() {
            let longest = vocab.longest_ordinary(rest);
            ids.extend(longest.map(|(id, _)| id));
            let Some((_, length)) = longest else {
                ids.truncate(first);
                ids.extend(vocab.unk);
                break;
            };
            rest = &rest[length..];
        }
        self.bytes.clear();
        self.characters = 0;
        Ok(())
    }
}

impl WordPiece {
    /// Appends the tokens of a text without special tokens. Control characters and bytes that are no UTF-8 are dropped.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], ids: &mut Vec<u32>) -> Result<()> {
        let mut word = Word::default();
        let mut result = Ok(());
        let mut rest = text;
        while !rest.is_empty() {
            let (c, length) = first_char(rest);
            rest = &rest[length..];
            if c == char::REPLACEMENT_CHARACTER || is_control(c) {
                continue;
            }
            if c.is_whitespace() {
                word.finish(vocab, ids)?;
                continue;
            }
            let alone = is_ideograph(c);
            if alone {
                word.finish(vocab, ids)?;
            }
            self.normalized(c, &mut |c| {
                if result.is_ok() {
                    result = self.add(c, &mut word, vocab, ids);
                }
            });
            std::mem::replace(&mut result, Ok(()))?;
            if alone {
                word.finish(vocab, ids)?;
            }
        }
        word.finish(vocab, ids)
    }

    /// Calls `each` with what a character becomes.
    fn normalized(&self, c: char, each: &mut impl FnMut(char)) {
        let mut lower = |c: char| {
            if self.lowercase { c.to_lowercase().for_each(&mut *each) } else { each(c) }
        };
        if !self.strip_accents {
            return lower(c);
        }
        decompose_canonical(c, |c| {
            if !is_category(c, "Mn") {
                lower(c);
            }
        });
    }

    fn add(&self, c: char, word: &mut Word, vocab: &Vocab, ids: &mut Vec<u32>) -> Result<()> {
        let alone = c.is_ascii_punctuation() || is_category(c, "P");
        if alone {
            word.finish(vocab, ids)?;
        }
        word.push(c)?;
        if alone { word.finish(vocab, ids) } else { Ok(()) }
    }
}
