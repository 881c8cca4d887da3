//! Regular expressions of the kind that pre-tokenizers are published as, compiled to tables so that a text takes
//! linear time.
//!
//! What is understood: characters, `\r \n \t \s \S \d`, `\p{..}` of general categories, classes with ranges, `^` and
//! `&&[..]`, `|`, groups, `(?i:..)`, `* + ? {n} {n,m}`, and `(?!..)` of one class. As in the engines that the patterns
//! are written for, the match that begins leftmost counts, and of these the one that backtracking would find first.
//!
//! The way of a pattern: `parse` makes a tree of it, `dfa` makes a program of the tree and tables of the program, whose
//! alphabet are the few classes of characters that the pattern tells apart (`classes`).

mod classes;
mod dfa;
mod parse;

use super::unicode::first_char;
use crate::error::{Error, Result};
use classes::Classes;
use dfa::Dfa;

/// A compiled pattern.
pub(crate) struct Regex {
    classes: Classes,
    dfa: Dfa,
}

impl Regex {
    /// Compiles a pattern. Errors: `Internal` if it has what is not understood.
    pub fn new(pattern: &str) -> Result<Regex> {
        let compile = || {
            let (tree, sets) = parse::parse(pattern)?;
            let classes = Classes::new(&sets)?;
            let dfa = Dfa::new(&tree, &classes)?;
            Some(Regex { classes, dfa })
        };
        compile().ok_or_else(|| Error::internal(format!("the pattern {pattern:?} is not understood")))
    }

    /// The length of the match that begins where the text begins; 0 for none, as no pattern matches nothing.
    fn match_length(&self, text: &[u8]) -> usize {
        let (mut state, mut at, mut end) = (dfa::START, 0, 0);
        loop {
            let (class, length) = self.classes.first(text.get(at..).unwrap_or_default());
            let (next, matched) = self.dfa.step(state, class);
            if matched {
                end = at;
            }
            if next == dfa::DEAD || length == 0 {
                return end;
            }
            state = next;
            at += length;
        }
    }

    /// Calls `piece` with the matches in a text and with what stands between them; together they are the text.
    pub fn split<'a, E>(
        &self,
        text: &'a [u8],
        piece: &mut dyn FnMut(&'a [u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let rest = &text[at..];
            let (class, _) = self.classes.first(rest);
            let length = if self.dfa.begins(class) { self.match_length(rest) } else { 0 };
            if length == 0 {
                at += first_char(rest).1;
                continue;
            }
            if start < at {
                piece(&text[start..at])?;
            }
            piece(&text[at..at + length])?;
            at += length;
            start = at;
        }
        if start < at { piece(&text[start..at]) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
