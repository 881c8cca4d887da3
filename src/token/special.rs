//! Special and user-defined tokens in a text: they are found first, and what lies between them is tokenized.

use super::vocab::{TokenKind, Vocab};
use crate::error::{Error, Result};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// A part of a text.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Part<'a> {
    /// Bytes, at least one, that hold no special token.
    Text(&'a [u8]),
    Token(u32),
}

/// Bytes of a special token at most; longer ones are found in no text. The search reads up to as many again behind each
/// token that it finds, to see whether that is the longest.
const LONGEST: usize = 256;

/// Bytes of all of them at most: each takes some dozens in an automaton. Vocabularies have a few KiB.
const MOST: usize = 4 << 20;

/// One automaton (Aho and Corasick, 1975) per way to look at a text. Of the tokens that begin at a place the longest
/// is taken, as the models' own tokenizers do, in time linear in the text.
pub(crate) struct Specials {
    /// User-defined tokens.
    always: Automaton,
    /// These, control tokens and the unknown token.
    all: Automaton,
}

struct Automaton {
    search: Option<AhoCorasick>,
    /// Token of each pattern, and which white space around it belongs to it.
    tokens: Vec<(u32, Strips)>,
}

/// Which white space around a special token belongs to the token.
#[derive(Clone, Copy, Default)]
pub(crate) struct Strips {
    pub before: bool,
    pub after: bool,
}

impl Automaton {
    fn new<'a>(tokens: impl Iterator<Item = (u32, Strips, &'a [u8])>) -> Result<Automaton> {
        let (tokens, texts): (Vec<_>, Vec<_>) = tokens.map(|(id, strips, text)| ((id, strips), text)).unzip();
        // Not the automaton with a full table of transitions: its size is out of proportion to the file's.
        let search = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(&texts);
        let search = search.map_err(|e| {
            Error::unsupported(format!("{} special tokens are more than can be searched for: {e}", texts.len()))
                .with("key", "tokenizer.ggml.tokens")
        })?;
        Ok(Automaton { search: Some(search).filter(|_| !tokens.is_empty()), tokens })
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t'..=b'\r')
}

impl Specials {
    /// `strips`: which white space around a special token of this text belongs to the token.
    pub fn new(vocab: &Vocab, strips: impl Fn(&[u8]) -> Strips) -> Result<Specials> {
        let found = vocab.specials().filter(|(.., text)| text.len() <= LONGEST);
        let all: Vec<_> = found.map(|(id, kind, text)| (kind, (id, strips(text), text))).collect();
        let bytes: usize = all.iter().map(|(_, (.., text))| text.len()).sum();
        if bytes > MOST {
            let message = format!("the special tokens have {bytes} bytes, which are too many: expected at most {MOST}");
            let error = Error::unsupported(message).with("key", "tokenizer.ggml.tokens");
            return Err(error.with("expected", MOST).with("found", bytes));
        }
        let always = all.iter().filter(|(kind, _)| *kind == TokenKind::UserDefined);
        Ok(Specials {
            always: Automaton::new(always.map(|(_, token)| *token))?,
            all: Automaton::new(all.iter().map(|(_, token)| *token))?,
        })
    }

    /// Calls `part` with the parts of a text in order.
    pub fn split<'a>(
        &self,
        text: &'a [u8],
        parse_special: bool,
        mut part: impl FnMut(Part<'a>) -> Result<()>,
    ) -> Result<()> {
        let automaton = if parse_special { &self.all } else { &self.always };
        let mut at = 0;
        for found in automaton.search.iter().flat_map(|search| search.find_iter(text)) {
            let Some(&(id, strips)) = automaton.tokens.get(found.pattern().as_usize()) else { continue };
            // A token of white space may lie in what another one took.
            let Some(mut before) = text.get(at..found.start()) else { continue };
            if strips.before {
                let spaces = before.iter().rev().take_while(|&&c| is_space(c)).count();
                before = &before[..before.len() - spaces];
            }
            if !before.is_empty() {
                part(Part::Text(before))?;
            }
            part(Part::Token(id))?;
            at = found.end();
            if strips.after {
                at += text[at..].iter().take_while(|&&c| is_space(c)).count();
            }
        }
        match text.get(at..) {
            Some(rest @ [_, ..]) => part(Part::Text(rest)),
            _ => Ok(()),
        }
    }
}
