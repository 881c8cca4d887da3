//! The vocabulary of a GGUF file: what each token is, and the ways to find one.

use super::lexicon::Lexicon;
use super::merge::NONE;
use super::table::{self, PieceTable};
use crate::error::{Error, Result};
use crate::gguf::{Array, Gguf, Strings};

/// What a token is, by `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum TokenKind {
    /// A piece of text.
    Normal = 1,
    /// Stands for text that the vocabulary cannot express.
    Unknown,
    /// Steers the model and is no text: found in a text only if special tokens are parsed, hidden in output unless
    /// asked for. Also every token whose text says that it ends a generation, whatever its type in the file.
    Control,
    /// A piece of text that is found in a text before all others.
    UserDefined,
    /// In the file, but not in training: output leaves it out.
    Unused,
    /// A single byte.
    Byte,
}

impl TokenKind {
    pub(super) fn from_id(id: i32) -> TokenKind {
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

/// A token of fill-in-the-middle models: the keys that name it, and the texts that do where no key does.
pub(super) struct Fill {
    keys: &'static [&'static str],
    pub texts: &'static [&'static str],
    /// Whether a generation ends with it: there is nothing more to fill in.
    pub ends: bool,
}

/// In the order of the fields of [`FillIn`].
pub(super) const FILLS: [Fill; 6] = [
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

/// The texts that end a turn, the most telling first.
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
    lexicon: Lexicon,
    /// Tokens that are found as a whole.
    special: PieceTable,
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
pub(super) fn check_length(key: &'static str, found: usize, expected: usize) -> Result<()> {
    if found >= expected {
        return Ok(());
    }
    Err(Error::corrupt_file(format!("key {key} has {found} elements for {expected} tokens"))
        .with("key", key)
        .with("expected", expected)
        .with("found", found))
}

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";

/// The number of tokens of a file.
pub(super) fn size(gguf: &Gguf) -> Result<u32> {
    let (count, _) = strings(gguf, TOKENS)?;
    let too_many = || Error::corrupt_file(format!("key {TOKENS} has {count} elements")).with("key", TOKENS);
    u32::try_from(count).ok().filter(|&size| size > 0 && size < NONE).ok_or_else(too_many)
}

/// The fill-in-the-middle tokens that keys give, of a vocabulary of `size` tokens.
pub(super) fn given_fills(gguf: &Gguf, size: u32) -> Result<[Option<u32>; FILLS.len()]> {
    let mut fill = [None; FILLS.len()];
    for (id, role) in fill.iter_mut().zip(&FILLS) {
        for key in role.keys {
            *id = id.or(given(gguf, size, key)?);
        }
    }
    Ok(fill)
}

/// The token that a key gives. An id beyond the vocabulary counts as not given.
fn given(gguf: &Gguf, size: u32, key: &str) -> Result<Option<u32>> {
    Ok(gguf.u32(key)?.filter(|&id| id < size))
}

impl Vocab {
    /// `defaults`: ids where the file does not give them.
    pub(super) fn new(gguf: &Gguf, lexicon: Lexicon, defaults: Defaults) -> Result<Vocab> {
        let size = size(gguf)?;
        let given = |key: &str| given(gguf, size, key);
        let or = |key: &str, default: Option<u32>| Ok(given(key)?.or(default.filter(|&id| id < size)));
        let eos = or("tokenizer.ggml.eos_token_id", defaults.eos)?;
        let eot = given("tokenizer.ggml.eot_token_id")?;
        let eom = given("tokenizer.ggml.eom_token_id")?;
        let mut fill = given_fills(gguf, size)?;
        let no_memory = |_| Error::out_of_memory("no memory for the special tokens");
        let mut ends = Vec::new();
        ends.try_reserve(lexicon.named_ends.len() + 3 + fill.len()).map_err(no_memory)?;
        ends.extend_from_slice(&lexicon.named_ends);
        ends.extend([eos, eot, eom].into_iter().flatten());
        ends.extend(fill.iter().zip(&FILLS).filter(|(_, role)| role.ends).filter_map(|(id, _)| *id));
        ends.sort_unstable();
        ends.dedup();

        let mut specials = Vec::new();
        for (id, _) in lexicon.specials().filter(|(_, text)| !text.is_empty()) {
            specials.try_reserve(1).map_err(no_memory)?;
            specials.push(id);
        }
        let mut special = PieceTable::new(table::seed(), specials.len(), size as usize)?;
        specials.iter().for_each(|&id| special.insert(&lexicon.pieces, id));
        let by_text = |texts: &[&str]| texts.iter().find_map(|text| special.get(&lexicon.pieces, text.as_bytes()));
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
            lexicon,
            special,
            ends,
        })
    }

    /// What of it costs time to make.
    pub(super) fn lexicon(&self) -> &Lexicon {
        &self.lexicon
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.lexicon.pieces.len()
    }

    /// The bytes that the token stands for in a text to encode; of a special token its text.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.lexicon.pieces.get(id)
    }

    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.lexicon.kind(id)
    }

    /// The score of a token, 0 where the file gives none.
    pub fn score(&self, id: u32) -> f32 {
        self.lexicon.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// How many tokens end a generation.
    pub fn end_count(&self) -> usize {
        self.ends.len()
    }

    /// The ordinary token with exactly these bytes.
    pub fn ordinary(&self, bytes: &[u8]) -> Option<u32> {
        self.lexicon.ordinary.get(&self.lexicon.pieces, bytes)
    }

    /// The longest ordinary token that the text begins with, and its length.
    pub fn longest_ordinary(&self, text: &[u8]) -> Option<(u32, usize)> {
        let ends = (1..=text.len().min(self.lexicon.ordinary.longest())).rev();
        // Not inside a character.
        let mut ends = ends.filter(|&end| text.get(end).is_none_or(|byte| byte & 0xC0 != 0x80));
        ends.find_map(|end| Some((self.ordinary(&text[..end])?, end)))
    }

    /// The special or user-defined token with exactly this text.
    pub fn special(&self, text: &[u8]) -> Option<u32> {
        self.special.get(&self.lexicon.pieces, text)
    }

    /// Special and user-defined tokens: id, kind, text. Of equal texts only the first token.
    pub fn specials(&self) -> impl Iterator<Item = (u32, TokenKind, &[u8])> {
        self.lexicon
            .specials()
            .filter(|(id, text)| self.special(text) == Some(*id))
            .filter_map(|(id, text)| Some((id, self.kind(id)?, text)))
    }

    /// Whether any token that merging can give has byte `b` right after byte `a`.
    pub fn spans(&self, a: u8, b: u8) -> bool {
        self.lexicon.adjacency.get(a, b)
    }

    /// The token of a byte, or [`NONE`].
    pub fn byte(&self, byte: u8) -> u32 {
        self.lexicon.bytes[usize::from(byte)]
    }
}
