//! Text to token ids and back, by the tokenizer that a GGUF file describes.
//!
//! The way of a text: [`Tokenizer::encode`] finds special tokens (`special`), and what lies between them is either cut
//! into words (`pretokenize`) whose bytes are merged (`bpe`), or merged as a whole (`spm`); both merge with the same
//! loop (`merge`) over the same hash tables (`table`). [`Decoder`] goes the other way.

mod bpe;
mod decoder;
mod merge;
mod pretokenize;
mod special;
mod spm;
mod table;
mod unicode;
mod vocab;

pub use decoder::Decoder;
pub use vocab::TokenKind;

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use bpe::Bpe;
use merge::Merger;
use pretokenize::PreTokenizer;
use special::{Part, Specials};
use vocab::{Spelling, Vocab};

/// How [`Tokenizer::encode`] treats special tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EncodeOptions {
    /// Add the beginning-of-sequence and end-of-sequence tokens that the model wants.
    pub add_special: bool,
    /// Take control tokens that are written in the text as these tokens, not as text. Not for text from strangers.
    pub parse_special: bool,
}

/// What [`Tokenizer::decode`] shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DecodeOptions {
    /// Show control tokens and the unknown token as their text; otherwise they are left out.
    pub show_special: bool,
}

enum Algorithm {
    Bpe(Box<Bpe>),
    /// SentencePiece; whether a space is put before the text and after each special token.
    Spm {
        space_prefix: bool,
    },
}

/// The tokenizer of a model. It does not change, and may be shared between threads.
pub struct Tokenizer {
    vocab: Vocab,
    specials: Specials,
    algorithm: Algorithm,
    adds_bos: bool,
    adds_eos: bool,
    model: Box<str>,
    pre: Box<str>,
}

impl Tokenizer {
    /// The tokenizer that the `tokenizer.ggml.*` keys describe.
    ///
    /// Errors: `CorruptFile` naming the key that is missing or contradicts others; `Unsupported` naming the tokenizer
    /// model or pre-tokenizer that this library does not implement; `OutOfMemory`.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        const MODEL: &str = "tokenizer.ggml.model";
        let model = vocab::string(gguf, MODEL)?;
        let pre = gguf.str("tokenizer.ggml.pre")?.unwrap_or("default");
        let (vocab, algorithm, adds_bos) = match model {
            "gpt2" => {
                let vocab = Vocab::from_gguf(gguf, &Spelling { write: bpe::write_bytes, defaults: [None; 3] })?;
                let rules =
                    PreTokenizer::find(pre).ok_or_else(|| unsupported("pre-tokenizer", "tokenizer.ggml.pre", pre))?;
                let (count, merges) = vocab::strings(gguf, "tokenizer.ggml.merges")?;
                let bpe = Bpe::new(&vocab, rules, count, merges)?;
                (vocab, Algorithm::Bpe(Box::new(bpe)), rules.adds_bos)
            }
            "llama" => {
                let spelling = Spelling { write: spm::write_spaces, defaults: [Some(1), Some(2), Some(0)] };
                let space_prefix = gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
                let vocab = Vocab::from_gguf(gguf, &spelling)?;
                (vocab, Algorithm::Spm { space_prefix }, true)
            }
            _ => return Err(unsupported("tokenizer model", MODEL, model)),
        };
        // The file format has no place for this habit of Phi-3's tokenizer, so its name has to do.
        let name = gguf.str("general.name").ok().flatten().unwrap_or_default().to_ascii_lowercase();
        let is_phi3 = name.contains("phi-3") || name.contains("phi3");
        let strips = |text: &[u8]| is_phi3 && !matches!(text, b"<unk>" | b"<s>" | b"<|endoftext|>");
        Ok(Tokenizer {
            specials: Specials::new(&vocab, strips)?,
            vocab,
            algorithm,
            adds_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos),
            adds_eos: gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            model: model.into(),
            pre: pre.into(),
        })
    }

    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The tokens of a text, which may be any bytes. A byte that the vocabulary cannot express gives nothing with
    /// byte-level BPE, and the unknown token, if there is one, with SentencePiece.
    ///
    /// Errors: `InvalidArgument` for a text of 4 GiB or more, `OutOfMemory`.
    pub fn encode(&self, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>> {
        // One position is for SentencePiece's space, one says "none".
        if text.len() > u32::MAX as usize - 2 {
            return Err(Error::invalid_argument(format!("a text of {} bytes, 4 GiB or more", text.len()))
                .with("bytes", text.len()));
        }
        let mut ids = Vec::new();
        ids.extend(self.vocab.bos.filter(|_| options.add_special && self.adds_bos));
        let mut merger = Merger::default();
        self.specials.split(text, options.parse_special, |part| match (part, &self.algorithm) {
            (Part::Token(id), _) => {
                ids.try_reserve(1).map_err(merge::out_of_memory)?;
                ids.push(id);
                Ok(())
            }
            (Part::Text(text), Algorithm::Bpe(bpe)) => bpe.encode(&self.vocab, text, &mut merger, &mut ids),
            // Text is at the start or after a special token: where the space belongs.
            (Part::Text(text), Algorithm::Spm { space_prefix }) => {
                spm::encode(&self.vocab, text, *space_prefix, &mut merger, &mut ids)
            }
        })?;
        ids.extend(self.vocab.eos.filter(|_| options.add_special && self.adds_eos));
        Ok(ids)
    }

    /// The bytes of one token, which need not be whole characters; of a special token its text. Errors:
    /// `InvalidArgument` if there is no such token.
    pub fn piece(&self, token: u32) -> Result<&[u8]> {
        self.vocab.piece(token).ok_or_else(|| {
            let size = self.vocab_size();
            Error::invalid_argument(format!("token {token} is outside the vocabulary of {size}"))
                .with("token", token)
                .with("vocab_size", size)
        })
    }

    /// The bytes of one token, none if it is hidden.
    fn shown(&self, token: u32, show_special: bool) -> Result<&[u8]> {
        let piece = self.piece(token)?;
        let hidden = !show_special && self.vocab.kind(token).is_some_and(TokenKind::is_hidden);
        Ok(if hidden { &[] } else { piece })
    }

    /// The text of tokens, from the beginning of a text: the space that SentencePiece puts before it is dropped from
    /// the first token. Errors: `InvalidArgument` if there is no such token, `OutOfMemory`.
    pub fn decode(&self, tokens: &[u32], options: DecodeOptions) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for (i, &token) in tokens.iter().enumerate() {
            let mut piece = self.shown(token, options.show_special)?;
            if i == 0 && matches!(self.algorithm, Algorithm::Spm { space_prefix: true }) {
                piece = piece.strip_prefix(b" ").unwrap_or(piece);
            }
            text.try_reserve(piece.len())
                .map_err(|_| Error::out_of_memory("the text needs memory that cannot be had"))?;
            text.extend_from_slice(piece);
        }
        Ok(text)
    }

    /// The token whose [`piece`](Tokenizer::piece) is exactly this text: the special or user-defined one if there is
    /// one, else one that encoding can give.
    pub fn id(&self, piece: &[u8]) -> Option<u32> {
        self.vocab.special(piece).or_else(|| self.vocab.ordinary(piece))
    }

    /// What the token is; `None` if there is no such token.
    pub fn kind(&self, token: u32) -> Option<TokenKind> {
        self.vocab.kind(token)
    }

    /// Whether a generation ends with this token: the end of the sequence, of a turn, or of what a model of code fills in.
    pub fn is_eog(&self, token: u32) -> bool {
        self.vocab.is_end(token)
    }

    /// The score of the token, by which SentencePiece merges; 0 where the file gives none.
    pub fn score(&self, token: u32) -> f32 {
        self.vocab.score(token)
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.vocab.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.vocab.eos
    }

    /// The token that ends a turn of a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.vocab.eot
    }

    /// The token for text that the vocabulary cannot express.
    pub fn unk(&self) -> Option<u32> {
        self.vocab.unk
    }

    /// The token that fills up batches in training.
    pub fn pad(&self) -> Option<u32> {
        self.vocab.pad
    }

    /// Whether `add_special` puts the token [`bos`](Tokenizer::bos) first.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Whether `add_special` puts the token [`eos`](Tokenizer::eos) last.
    pub fn adds_eos(&self) -> bool {
        self.adds_eos
    }

    /// `tokenizer.ggml.model`: `gpt2` is byte-level BPE, `llama` is SentencePiece.
    pub fn model_name(&self) -> &str {
        &self.model
    }

    /// `tokenizer.ggml.pre`, `default` where the file does not say.
    pub fn pre(&self) -> &str {
        &self.pre
    }
}

fn unsupported(what: &str, key: &'static str, name: &str) -> Error {
    Error::unsupported(format!("{what} {name:?} is not implemented")).with("key", key).with("name", name)
}
