//! Tokens to text, one at a time.

use super::Tokenizer;
use super::merge::out_of_memory;
use crate::error::Result;
use std::sync::Arc;

/// Turns a stream of tokens into text without ever cutting a character in two: the bytes of a character that is not
/// complete are held back until it is. All that it gives, put together, is the tokens' pieces put together.
pub struct Decoder {
    tokenizer: Arc<Tokenizer>,
    show_special: bool,
    /// Bytes given by the last call, then bytes held back.
    bytes: Vec<u8>,
    given: usize,
}

impl Decoder {
    /// A decoder at the start of a text. Control tokens and the unknown token give no text unless `show_special`.
    pub fn new(tokenizer: Arc<Tokenizer>, show_special: bool) -> Decoder {
        Decoder { tokenizer, show_special, bytes: Vec::new(), given: 0 }
    }

    /// The text that is complete with this token, which may be none. Bytes that can be part of no character are given
    /// as they are. Errors: `InvalidArgument` if there is no such token, `OutOfMemory`; nothing has changed then.
    pub fn push(&mut self, token: u32) -> Result<&[u8]> {
        let piece = self.tokenizer.shown(token, self.show_special)?;
        self.bytes.try_reserve(piece.len()).map_err(out_of_memory)?;
        self.bytes.drain(..self.given);
        self.bytes.extend_from_slice(piece);
        self.given = self.bytes.len() - incomplete(&self.bytes);
        Ok(&self.bytes[..self.given])
    }

    /// The bytes held back, as they are: the stream has ended. The decoder is then at the start of a text.
    pub fn finish(&mut self) -> &[u8] {
        self.bytes.drain(..self.given);
        self.given = self.bytes.len();
        &self.bytes
    }

    /// Forgets what is held back.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.given = 0;
    }
}

/// How many bytes at the end are the beginning of a character that more bytes could complete.
fn incomplete(bytes: &[u8]) -> usize {
    // A character has at most 4 bytes, and only its first is not of the form 10xxxxxx.
    let tails = (1..=3).filter_map(|n| Some((n, bytes.get(bytes.len().checked_sub(n)?..)?)));
    for (n, tail) in tails {
        if tail.first().is_some_and(|c| c & 0xC0 != 0x80) {
            let unfinished = |e: std::str::Utf8Error| e.valid_up_to() == 0 && e.error_len().is_none();
            return if std::str::from_utf8(tail).is_err_and(unfinished) { n } else { 0 };
        }
    }
    0
}
