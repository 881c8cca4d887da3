//! What of a vocabulary costs time to make: the bytes that each token stands for, what it is, and the tables in which it
//! is found. Made of the keys of a file, or mapped from a packed file.

use super::merge::NONE;
use super::stored::{Column, Store, Stored, wrong};
use super::table::{Adjacency, PieceTable, Pieces, TOGETHER};
use super::vocab::{self, FILLS, TOKENS, TokenKind, check_length, strings};
use crate::error::{Error, Result, try_vec};
use crate::gguf::Gguf;

/// Texts that end a turn or a document in one family of models or another. Files often give only one of theirs in
/// `tokenizer.ggml.eos_token_id`, and some with another type than control.
const ENDS: &[&str] = &[
    "</s>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "[e~[",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
];

/// How the tokens of a tokenizer model are written in the file.
pub(super) struct Spelling {
    /// Appends the bytes that an ordinary token means, at most as many as it has in the file; false if no text can
    /// give it.
    pub write: fn(&[u8], &mut Vec<u8>) -> bool,
    /// Whether user-defined tokens are written so too.
    pub of_user_defined: bool,
    /// Whether any token `<0x0A>` stands for its byte when text is encoded, whatever its type: files do not always give
    /// types. Decoded, it gives its byte only if that is its type.
    pub bytes_by_text: bool,
}

pub(super) struct Lexicon {
    pub pieces: Pieces,
    /// As in `tokenizer.ggml.token_type`: [`TokenKind::from_id`].
    pub kinds: Column<u8>,
    pub scores: Column<f32>,
    /// Tokens that merging can give.
    pub ordinary: PieceTable,
    pub adjacency: Adjacency,
    /// The token of each byte, or [`NONE`].
    pub bytes: [u32; 256],
    /// Tokens whose text says that they end a generation.
    pub named_ends: Column<u32>,
}

/// The byte that `<0x0A>` stands for.
fn byte_of(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|d| d.len() == 2 && d.bytes().all(|c| c.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

impl Lexicon {
    /// Reads `tokenizer.ggml.tokens`, `scores` and `token_type`.
    pub fn from_keys(gguf: &Gguf, spelling: Spelling, seed: u64) -> Result<Lexicon> {
        let size = vocab::size(gguf)?;
        let (count, tokens) = strings(gguf, TOKENS)?;
        let mut scores = match gguf.array("tokenizer.ggml.scores")? {
            Some(array) => array.to_f32s()?,
            None => try_vec(count, 0.0, "the scores of the vocabulary")?,
        };
        check_length("tokenizer.ggml.scores", scores.len(), count)?;
        scores.truncate(count);
        let mut kinds = try_vec(count, TokenKind::Normal as u8, "the kinds of the vocabulary")?;
        if let Some(array) = gguf.array("tokenizer.ggml.token_type")? {
            let types = array.to_i32s()?;
            check_length("tokenizer.ggml.token_type", types.len(), count)?;
            kinds.iter_mut().zip(types).for_each(|(kind, id)| *kind = TokenKind::from_id(id) as u8);
        }
        let named_ends = mark_named(tokens, &mut kinds, &vocab::given_fills(gguf, size)?)?;

        let (_, tokens) = strings(gguf, TOKENS)?;
        // A piece is at most as long as its token in the file.
        let mut pieces = Pieces::with_capacity(count, tokens.text_bytes())?;
        let mut ordinary = PieceTable::new(seed, count, count)?;
        let mut adjacency = Adjacency::new();
        let mut bytes = [NONE; 256];
        let mut mergeables = Vec::new();
        mergeables.try_reserve_exact(TOGETHER).map_err(|_| Error::out_of_memory("no memory for the vocabulary"))?;
        for ((token, kind), id) in tokens.zip(&kinds).zip(0..size) {
            let kind = TokenKind::from_id((*kind).into());
            let named = byte_of(token);
            let byte = named.filter(|_| kind == TokenKind::Byte);
            let write = |out: &mut Vec<u8>| match (kind, byte) {
                (TokenKind::Normal | TokenKind::Unused, _) => (spelling.write)(token, out),
                (TokenKind::UserDefined, _) if spelling.of_user_defined => {
                    (spelling.write)(token, out);
                    false
                }
                (_, Some(byte)) => {
                    out.push(byte);
                    false
                }
                _ => {
                    out.extend_from_slice(token);
                    false
                }
            };
            let mergeable = pieces.push(write)?;
            if let Some(named) = named {
                let known = &mut bytes[usize::from(named)];
                if byte.is_some() || spelling.bytes_by_text && *known == NONE {
                    *known = id;
                }
            }
            if mergeable && !token.is_empty() {
                mergeables.push(id);
                adjacency.insert(pieces.get(id).unwrap_or_default());
            }
            if mergeables.len() == TOGETHER {
                ordinary.insert_all(&pieces, &mergeables);
                mergeables.clear();
            }
        }
        // A file that was cut short since it was opened gives fewer.
        check_length(TOKENS, pieces.len(), count)?;
        ordinary.insert_all(&pieces, &mergeables);
        let (kinds, scores, named_ends) = (Column::Made(kinds), Column::Made(scores), Column::Made(named_ends));
        Ok(Lexicon { pieces, kinds, scores, ordinary, adjacency, bytes, named_ends })
    }

    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).map(|kind| TokenKind::from_id((*kind).into()))
    }

    /// Special and user-defined tokens and their texts.
    pub fn specials(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let is_special = |(kind, id): (&u8, u32)| TokenKind::from_id((*kind).into()).is_special().then_some(id);
        self.kinds.iter().zip(0..).filter_map(is_special).filter_map(|id| Some((id, self.pieces.get(id)?)))
    }

    pub fn store(&self, store: &mut Store) -> Result<()> {
        self.pieces.store(store)?;
        store.put(&self.kinds)?;
        store.put(&self.scores)?;
        self.ordinary.store(store)?;
        self.adjacency.store(store)?;
        store.put(&self.bytes)?;
        store.put(&self.named_ends)
    }

    /// The lexicon of `gguf` that was stored.
    pub fn stored(gguf: &Gguf, stored: &mut Stored) -> Result<Lexicon> {
        let count = vocab::size(gguf)? as usize;
        let pieces = Pieces::stored(stored, count)?;
        let (kinds, scores) = (stored.take_exactly(count)?, stored.take_exactly(count)?);
        let ordinary = PieceTable::stored(stored, &pieces, count)?;
        let adjacency = Adjacency::stored(stored)?;
        let (of_bytes, named_ends) = (stored.take_exactly::<u32>(256)?, stored.take::<u32>()?);
        let is_id = |id: &u32| (*id as usize) < count;
        if !of_bytes.iter().all(|id| *id == NONE || is_id(id)) || !named_ends.iter().all(is_id) {
            return Err(wrong("name tokens that there are not"));
        }
        let bytes = std::array::from_fn(|byte| of_bytes[byte]);
        Ok(Lexicon { pieces, kinds, scores, ordinary, adjacency, bytes, named_ends })
    }
}

/// Makes tokens control tokens by their text, and gives those that end a generation. `fill`: the fill-in-the-middle
/// tokens that keys give.
fn mark_named<'a>(
    tokens: impl Iterator<Item = &'a [u8]>,
    kinds: &mut [u8],
    fill: &[Option<u32>; FILLS.len()],
) -> Result<Vec<u32>> {
    let mut ending = ENDS.to_vec();
    let mut others: Vec<&str> = Vec::new();
    for (role, _) in FILLS.iter().zip(fill).filter(|(_, id)| id.is_none()) {
        if role.ends { &mut ending } else { &mut others }.extend_from_slice(role.texts);
    }
    let is_any = |texts: &[&str], token: &[u8]| texts.iter().any(|text| text.as_bytes() == token);
    let no_memory = |_| Error::out_of_memory("no memory for the special tokens");
    let mut found: Vec<(&[u8], u32)> = Vec::new();
    for (token, id) in tokens.zip(0..).filter(|(token, _)| may_be_named(token)) {
        if is_any(&ending, token) || is_any(&others, token) {
            found.try_reserve(1).map_err(no_memory)?;
            found.push((token, id));
        }
    }
    let has = |text: &str| found.iter().any(|(token, _)| *token == text.as_bytes());
    // With these, <|end|> ends a message and not the answer; and </s> is text.
    let end_goes_on = has("<|return|>") && has("<|call|>") || has("<|flush|>") && has("<|calls|>");
    let s_is_text = has("<|tool_response>");
    let mut ends = Vec::new();
    ends.try_reserve(found.len()).map_err(no_memory)?;
    for &(token, id) in found.iter().filter(|(token, _)| !(s_is_text && *token == b"</s>")) {
        if let Some(kind) = kinds.get_mut(id as usize) {
            *kind = TokenKind::Control as u8;
        }
        if is_any(&ending, token) && !(end_goes_on && token == b"<|end|>") {
            ends.push(id);
        }
    }
    Ok(ends)
}

/// Whether the token looks at all like one that has a meaning by its text: keeps most of a vocabulary from the
/// comparisons.
fn may_be_named(token: &[u8]) -> bool {
    matches!(token, [b'<' | b'[' | b'_', .., b'>' | b']' | b'['] | [0xE2, 0x96, 0x81, b'<', .., b'>'])
}
