//! The tokens in which a text can stand, whatever stands around it.

use super::Tokenizer;
use crate::error::{Error, Result, try_collect, try_push};

/// Bytes of a text at most.
const LONGEST: usize = 256;

impl Tokenizer {
    /// Sequences of tokens, one of which a text has where `text` stands in it: each token that contains it, and each that
    /// ends with its beginning, followed by the tokens of what is left of it. Empty for an empty text.
    ///
    /// # Errors
    /// `InvalidArgument` for more than 256 bytes; `OutOfMemory`.
    pub fn sequences_with(&self, text: &[u8]) -> Result<Vec<Vec<u32>>> {
        if text.len() > LONGEST {
            let message = format!("expected a text of at most {LONGEST} bytes, found {}", text.len());
            return Err(Error::invalid_argument(message).with("expected", LONGEST).with("found", text.len()));
        }
        let mut sequences = Vec::new();
        let mut add = |sequence| try_push(&mut sequences, sequence, "the sequences of a text");
        let Some(&first) = text.first() else { return Ok(sequences) };
        // What follows after the first n bytes.
        let rest = |n: usize| self.encode_within(&text[n..]);
        let rests = (1..text.len()).map(|n| Ok((n, rest(n)?))).collect::<Result<Vec<_>>>()?;
        for (piece, id) in (0..).map_while(|id| Some((self.piece(id).ok()?, id))) {
            if !piece.contains(&first) {
                continue;
            }
            if piece.windows(text.len()).any(|part| part == text) {
                add(vec![id])?;
                continue;
            }
            for (_, rest) in rests.iter().filter(|(n, _)| piece.ends_with(&text[..*n])) {
                add(try_collect([id].iter().chain(rest).copied(), "the sequences of a text")?)?;
            }
        }
        Ok(sequences)
    }
}
