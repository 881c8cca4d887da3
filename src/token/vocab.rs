//! The vocabulary of a GGUF file: what each token is, and the ways to find one.

use super::merge::NONE;
use super::table::{Adjacency, PieceTable, Pieces};
use crate::error::{Error, Result, try_vec};
use crate::gguf::{Array, Gguf, Strings};

/// What a token is, by `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for text that the vocabulary cannot express.
    Unknown,
    /// Steers the model and is no text: found in a text only if special tokens are parsed, hidden in output unless
    /// asked for. Also every token whose text says that it ends a generation, whatever its type in the file.
    Control,
    /// A piece of text that is found in a text before all others.
    UserDefined,
    /// In the file, but not in training.
    Unused,
    /// A single byte.
    Byte,
}

impl TokenKind {
    fn from_id(id: i32) -> TokenKind {
        match id {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }

    /// Whether output leaves it out unless special tokens are shown.
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, TokenKind::Control | TokenKind::Unknown)
    }

    /// Whether it is found in a text as a whole, not by merging.
    pub(super) fn is_special(self) -> bool {
        matches!(self, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined)
    }
}

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

/// A token of fill-in-the-middle models: the keys that name it, and the texts that do where no key does.
struct Fill {
    keys: &'static [&'static str],
    texts: &'static [&'static str],
    /// Whether a generation ends with it: there is nothing more to fill in.
    ends: bool,
}

/// In the order of the fields of [`FillIn`].
const FILLS: [Fill; 6] = [
    Fill {
        keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        texts: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends: false,
    },
    Fill {
        keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        texts: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends: false,
    },
    Fill {
        keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        texts: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends: false,
    },
    Fill {
        keys: &["tokenizer.ggml.fim_pad_token_id"],
        texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends: true,
    },
    Fill {
        keys: &["tokenizer.ggml.fim_rep_token_id"],
        texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        ends: true,
    },
    Fill { keys: &["tokenizer.ggml.fim_sep_token_id"], texts: &["<|file_sep|>"], ends: true },
];

/// The tokens of a fill-in-the-middle prompt; those that the vocabulary lacks are `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FillIn {
    /// Before the text that stands before the gap.
    pub prefix: Option<u32>,
    /// Before the text that stands after the gap.
    pub suffix: Option<u32>,
    /// Before the text that fills the gap.
    pub middle: Option<u32>,
    /// Fills up a batch.
    pub pad: Option<u32>,
    /// Before the name of a repository.
    pub repository: Option<u32>,
    /// Before the name of a file.
    pub separator: Option<u32>,
}

impl FillIn {
    /// Those that there are.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        let FillIn { prefix, suffix, middle, pad, repository, separator } = *self;
        [prefix, suffix, middle, pad, repository, separator].into_iter().flatten()
    }
}

/// The [`ENDS`] that end a turn, the most telling first.
const TURN_ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// How the tokens of a tokenizer model are written in the file.
pub(super) struct Spelling {
    /// Appends the bytes that an ordinary token means, at most as many as it has in the file; false if no text can
    /// give it.
    pub write: fn(&[u8], &mut Vec<u8>) -> bool,
    /// Whether user-defined tokens are written so too.
    pub of_user_defined: bool,
    /// Ids where the file does not give them.
    pub defaults: Defaults,
}

/// Ids of special tokens.
#[derive(Clone, Copy, Default)]
pub(super) struct Defaults {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub sep: Option<u32>,
    pub pad: Option<u32>,
    pub mask: Option<u32>,
}

pub(crate) struct Vocab {
    pieces: Pieces,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    /// Tokens that merging can give.
    ordinary: PieceTable,
    adjacency: Adjacency,
    /// Tokens that are found as a whole.
    special: PieceTable,
    /// The token of each byte, or [`NONE`].
    bytes: [u32; 256],
    /// Tokens that end a generation, in order.
    ends: Vec<u32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub eom: Option<u32>,
    pub unk: Option<u32>,
    pub sep: Option<u32>,
    pub pad: Option<u32>,
    pub mask: Option<u32>,
    pub fill: FillIn,
}

fn missing(key: &'static str) -> Error {
    Error::corrupt_file(format!("key {key} is missing")).with("key", key)
}

/// The array of a key that must be there.
pub(super) fn array<'a>(gguf: &'a Gguf, key: &'static str) -> Result<Array<'a>> {
    gguf.array(key)?.ok_or_else(|| missing(key))
}

/// The strings of a key that must be there.
pub(super) fn strings<'a>(gguf: &'a Gguf, key: &'static str) -> Result<(usize, Strings<'a>)> {
    let array = array(gguf, key)?;
    let strings = array.strings().ok_or_else(|| {
        let found = array.element_type().name();
        Error::corrupt_file(format!("key {key}: expected an array of strings, found an array of {found}"))
            .with("key", key)
            .with("expected", "string")
            .with("found", found)
    })?;
    Ok((array.len(), strings))
}

/// The string of a key that must be there.
pub(super) fn string<'a>(gguf: &'a Gguf, key: &'static str) -> Result<&'a str> {
    gguf.str(key)?.ok_or_else(|| missing(key))
}

/// Refuses an array that has fewer elements than the vocabulary has tokens.
fn check_length(key: &'static str, found: usize, expected: usize) -> Result<()> {
    if found >= expected {
        return Ok(());
    }
    Err(Error::corrupt_file(format!("key {key} has {found} elements for {expected} tokens"))
        .with("key", key)
        .with("expected", expected)
        .with("found", found))
}

const TOKENS: &str = "tokenizer.ggml.tokens";

/// The number of tokens of a file.
pub(super) fn size(gguf: &Gguf) -> Result<u32> {
    let (count, _) = strings(gguf, TOKENS)?;
    let too_many = || Error::corrupt_file(format!("key {TOKENS} has {count} elements")).with("key", TOKENS);
    u32::try_from(count).ok().filter(|&size| size > 0 && size < NONE).ok_or_else(too_many)
}

/// The byte that `<0x0A>` stands for.
fn byte_of(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|d| d.len() == 2 && d.bytes().all(|c| c.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

impl Vocab {
    /// Reads `tokenizer.ggml.tokens`, `scores`, `token_type` and the ids of special tokens.
    pub(super) fn from_gguf(gguf: &Gguf, spelling: &Spelling) -> Result<Vocab> {
        let size = size(gguf)?;
        let (count, tokens) = strings(gguf, TOKENS)?;
        let scores = match gguf.array("tokenizer.ggml.scores")? {
            Some(array) => array.to_f32s()?,
            None => try_vec(count, 0.0, "the scores of the vocabulary")?,
        };
        check_length("tokenizer.ggml.scores", scores.len(), count)?;
        let mut kinds = try_vec(count, TokenKind::Normal, "the kinds of the vocabulary")?;
        if let Some(array) = gguf.array("tokenizer.ggml.token_type")? {
            let types = array.to_i32s()?;
            check_length("tokenizer.ggml.token_type", types.len(), count)?;
            kinds.iter_mut().zip(types).for_each(|(kind, id)| *kind = TokenKind::from_id(id));
        }

        // An id beyond the vocabulary counts as not given.
        let given = |key: &str| -> Result<Option<u32>> { Ok(gguf.u32(key)?.filter(|&id| id < size)) };
        let or = |key: &str, default: Option<u32>| Ok(given(key)?.or(default.filter(|&id| id < size)));
        let defaults = spelling.defaults;
        let eos = or("tokenizer.ggml.eos_token_id", defaults.eos)?;
        let eot = given("tokenizer.ggml.eot_token_id")?;
        let eom = given("tokenizer.ggml.eom_token_id")?;
        let mut fill = [None; FILLS.len()];
        for (id, role) in fill.iter_mut().zip(&FILLS) {
            for key in role.keys {
                *id = id.or(given(key)?);
            }
        }
        let mut ends = mark_named(tokens, &mut kinds, &fill)?;
        let (_, tokens) = strings(gguf, TOKENS)?;
        ends.extend([eos, eot, eom].into_iter().flatten());
        ends.extend(fill.iter().zip(&FILLS).filter(|(_, role)| role.ends).filter_map(|(id, _)| *id));

        // A piece is at most as long as its token in the file.
        let mut pieces = Pieces::with_capacity(count, tokens.text_bytes())?;
        let mut ordinary = PieceTable::new(count, count)?;
        let mut adjacency = Adjacency::new();
        let mut bytes = [NONE; 256];
        let (mut mergeables, mut specials) = (Vec::new(), Vec::new());
        mergeables.try_reserve_exact(count).map_err(|_| Error::out_of_memory("no memory for the vocabulary"))?;
        for ((token, kind), id) in tokens.zip(&kinds).zip(0..size) {
            let byte = if *kind == TokenKind::Byte { byte_of(token) } else { None };
            let write = |out: &mut Vec<u8>| match (*kind, byte) {
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
            if let Some(byte) = byte {
                bytes[usize::from(byte)] = id;
            }
            if token.is_empty() {
                continue;
            }
            if mergeable {
                mergeables.push(id);
                adjacency.insert(pieces.get(id).unwrap_or_default());
            } else if kind.is_special() {
                specials.try_reserve(1).map_err(|_| Error::out_of_memory("no memory for the special tokens"))?;
                specials.push(id);
            }
        }
        // A file that was cut short since it was opened gives fewer.
        check_length(TOKENS, pieces.len(), count)?;
        ordinary.insert_all(&pieces, &mergeables);
        let mut special = PieceTable::new(specials.len(), count)?;
        specials.iter().for_each(|&id| special.insert(&pieces, id));
        ends.sort_unstable();
        ends.dedup();
        let by_text = |texts: &[&str]| texts.iter().find_map(|text| special.get(&pieces, text.as_bytes()));
        for (id, role) in fill.iter_mut().zip(&FILLS) {
            *id = id.or_else(|| by_text(role.texts));
        }
        let [prefix, suffix, middle, pad, repository, separator] = fill;
        Ok(Vocab {
            bos: or("tokenizer.ggml.bos_token_id", defaults.bos)?,
            eos,
            eot: eot.or_else(|| by_text(TURN_ENDS)),
            eom: eom.or_else(|| by_text(&["<|eom_id|>"])),
            unk: or("tokenizer.ggml.unknown_token_id", defaults.unk)?,
            // The format spells it so.
            sep: or("tokenizer.ggml.seperator_token_id", defaults.sep)?,
            pad: or("tokenizer.ggml.padding_token_id", defaults.pad)?,
            mask: or("tokenizer.ggml.mask_token_id", defaults.mask)?,
            fill: FillIn { prefix, suffix, middle, pad, repository, separator },
            pieces,
            kinds,
            scores,
            ordinary,
            adjacency,
            special,
            bytes,
            ends,
        })
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes that the token stands for; of a special token its text.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.pieces.get(id)
    }

    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// The score of a token, 0 where the file gives none.
    pub fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The ordinary token with exactly these bytes.
    pub fn ordinary(&self, bytes: &[u8]) -> Option<u32> {
        self.ordinary.get(&self.pieces, bytes)
    }

    /// The longest ordinary token that the text begins with, and its length.
    pub fn longest_ordinary(&self, text: &[u8]) -> Option<(u32, usize)> {
        let ends = (1..=text.len().min(self.ordinary.longest())).rev();
        // Not inside a character.
        let mut ends = ends.filter(|&end| text.get(end).is_none_or(|byte| byte & 0xC0 != 0x80));
        ends.find_map(|end| Some((self.ordinary(&text[..end])?, end)))
    }

    /// The special or user-defined token with exactly this text.
    pub fn special(&self, text: &[u8]) -> Option<u32> {
        self.special.get(&self.pieces, text)
    }

    /// Special and user-defined tokens: id, kind, text. Of equal texts only the first token.
    pub fn specials(&self) -> impl Iterator<Item = (u32, TokenKind, &[u8])> {
        self.kinds.iter().zip(0..).filter(|(kind, _)| kind.is_special()).filter_map(|(&kind, id)| {
            let text = self.piece(id)?;
            (self.special(text) == Some(id)).then_some((id, kind, text))
        })
    }

    /// Whether any token that merging can give has byte `b` right after byte `a`.
    pub fn spans(&self, a: u8, b: u8) -> bool {
        self.adjacency.get(a, b)
    }

    /// The token of a byte, or [`NONE`].
    pub fn byte(&self, byte: u8) -> u32 {
        self.bytes[usize::from(byte)]
    }
}

/// Makes tokens control tokens by their text, and gives those that end a generation. `fill`: the fill-in-the-middle
/// tokens that keys give.
fn mark_named<'a>(
    tokens: impl Iterator<Item = &'a [u8]>,
    kinds: &mut [TokenKind],
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
            *kind = TokenKind::Control;
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
