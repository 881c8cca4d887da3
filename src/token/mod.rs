//! Text to token ids and back, by the tokenizer that a GGUF file describes, and the tokens that a grammar lets follow.
//!
//! The way of a text: [`Tokenizer::encode`] finds special tokens (`special`), and what lies between them is either cut
//! into words (`pretokenize`) whose bytes are merged (`bpe`), or merged as a whole (`spm`), both with the same loop
//! (`merge`) over the same hash tables (`table`); or cut as its tokens' probabilities say (`unigram`), or word by word
//! (`word_piece`). [`Decoder`] goes the other way, and `covering` finds the tokens in which a text can stand. [`Grammar`] is
//! a shape that text is to have. The tables are made of a file's keys (`lexicon`, `bpe`) or mapped (`stored`).

mod bpe;
mod charsmap;
mod clean_up;
mod covering;
mod decoder;
mod grammar;
mod lexicon;
mod merge;
mod pretokenize;
mod regex;
mod special;
mod spm;
mod stored;
mod table;
mod unicode;
mod unigram;
mod vocab;
mod word_piece;
mod words;

pub use decoder::Decoder;
pub use grammar::{Grammar, Matcher, TokenSet};
pub(crate) use stored::TABLES;
pub(crate) use unicode::is_category;
pub use vocab::{FillIn, TokenKind};

use crate::error::{Error, Result};
use crate::gguf::{Gguf, quoted};
use bpe::Bpe;
use charsmap::Charsmap;
use grammar::Vocabulary;
use lexicon::{Lexicon, Spelling};
use merge::Merger;
use pretokenize::PreTokenizer;
use special::{Part, Specials, Strips};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use stored::{Store, Stored};
use table::MergeTable;
use unigram::{Spaces, Unigram};
use vocab::{Defaults, Vocab};
use word_piece::WordPiece;

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
    /// Remove spaces before punctuation if the tokenizer's own decoder does: see
    /// [`Tokenizer::cleans_up_spaces`]. The text is then not the pieces put together.
    pub clean_up_spaces: bool,
}

enum Algorithm {
    Bpe(Box<Bpe>),
    /// SentencePiece's merges; whether a space is put before the text and after each special token.
    Spm {
        space_prefix: bool,
    },
    Unigram(Box<Unigram>),
    WordPiece(WordPiece),
}

/// What a model of tokenizers adds around a text where the file does not say, and how its own decoder treats spaces.
struct Habits {
    adds_bos: bool,
    adds_eos: bool,
    cleans_up_spaces: bool,
}

/// The tokenizer of a model. It does not change, and may be shared between threads.
pub struct Tokenizer {
    vocab: Vocab,
    specials: Specials,
    algorithm: Algorithm,
    /// What encoding puts before and after a text if asked.
    first: Option<u32>,
    last: Option<u32>,
    habits: Habits,
    model: Box<str>,
    pre: Box<str>,
    /// By name; that without a name has "".
    chat_templates: Vec<(String, String)>,
    /// Made when the first grammar is.
    vocabulary: OnceLock<Result<Arc<Vocabulary>>>,
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";

impl Tokenizer {
    /// The tokenizer of a model file. The file needs no tensors; of a file that is split into parts the first is enough.
    ///
    /// Errors: those of [`Gguf::open_one`] and [`Tokenizer::from_gguf`].
    pub fn open(path: &Path) -> Result<Tokenizer> {
        Tokenizer::from_gguf(&Gguf::open_one(path)?)
    }

    /// The tokenizer that the `tokenizer.ggml.*` keys describe.
    ///
    /// Errors: `CorruptFile` naming the key that is missing or contradicts others; `Unsupported` naming the tokenizer
    /// model or pre-tokenizer that this library does not implement; `OutOfMemory`.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        Tokenizer::new(gguf, Stored::of(gguf)?.map_or_else(|| Source::Keys(table::seed()), Source::Stored))
    }

    /// The tables of the tokenizer of `gguf` as the bytes of the tensor [`TABLES`], always the same.
    pub(crate) fn stored(gguf: &Gguf) -> Result<Vec<u8>> {
        let tokenizer = Tokenizer::new(gguf, Source::Keys(stored::seed(gguf)))?;
        let mut store = Store::new(gguf)?;
        tokenizer.vocab.lexicon().store(&mut store)?;
        if let Algorithm::Bpe(bpe) = &tokenizer.algorithm {
            bpe.merges().store(&mut store)?;
        }
        Ok(store.into_bytes())
    }

    fn new(gguf: &Gguf, source: Source) -> Result<Tokenizer> {
        let model = vocab::string(gguf, MODEL)?;
        let pre = match model {
            "gemma4" => "gemma4",
            _ => gguf.str(PRE)?.unwrap_or("default"),
        };
        let (vocab, algorithm, habits) = match model {
            "gpt2" | "gemma4" => byte_pairs(gguf, source, pre)?,
            "llama" => merged_by_score(gguf, source)?,
            "t5" => unigram(gguf, source)?,
            "bert" => word_piece(gguf, source)?,
            _ => return Err(unsupported("tokenizer model", MODEL, model)),
        };
        let last = match algorithm {
            Algorithm::WordPiece(_) => vocab.sep,
            _ => vocab.eos.filter(|_| habits.adds_eos),
        };
        Ok(Tokenizer {
            specials: Specials::new(&vocab, strips(gguf, &algorithm))?,
            first: vocab.bos.filter(|_| habits.adds_bos),
            last,
            vocab,
            algorithm,
            habits,
            model: model.into(),
            pre: pre.into(),
            chat_templates: chat_templates(gguf)?,
            vocabulary: OnceLock::new(),
        })
    }

    /// The number of tokens of the tokenizer in `gguf`, which is not read otherwise.
    pub(crate) fn vocab_size_of(gguf: &Gguf) -> Result<usize> {
        vocab::string(gguf, MODEL)?;
        Ok(vocab::size(gguf)? as usize)
    }

    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The tokens of a text, which may be any bytes. A byte that the vocabulary cannot express gives nothing with
    /// byte-level BPE, and the unknown token, if there is one, otherwise.
    ///
    /// Errors: `InvalidArgument` for a text of 4 GiB or more, `OutOfMemory`.
    pub fn encode(&self, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>> {
        self.encode_part(text, options, true)
    }

    /// As `encode`, of a text that stands within another: SentencePiece puts no space before it.
    fn encode_within(&self, text: &[u8]) -> Result<Vec<u32>> {
        self.encode_part(text, EncodeOptions::default(), false)
    }

    fn encode_part(&self, text: &[u8], options: EncodeOptions, begins: bool) -> Result<Vec<u32>> {
        // One position is for SentencePiece's space, one says "none".
        if text.len() > u32::MAX as usize - 2 {
            return Err(Error::invalid_argument(format!("a text of {} bytes, 4 GiB or more", text.len()))
                .with("bytes", text.len()));
        }
        let mut ids = Vec::new();
        ids.extend(self.first.filter(|_| options.add_special));
        let mut merger = Merger::of_text(text.len());
        self.specials.split(text, options.parse_special, |part| match (part, &self.algorithm) {
            (Part::Token(id), _) => {
                ids.try_reserve(1).map_err(merge::out_of_memory)?;
                ids.push(id);
                Ok(())
            }
            (Part::Text(text), Algorithm::Bpe(bpe)) => bpe.encode(&self.vocab, text, &mut merger, &mut ids),
            // Text is at the start or after a special token: where the space belongs.
            (Part::Text(text), Algorithm::Spm { space_prefix }) => {
                spm::encode(&self.vocab, text, begins && *space_prefix, &mut merger, &mut ids)
            }
            (Part::Text(text), Algorithm::Unigram(unigram)) => unigram.encode(&self.vocab, text, begins, &mut ids),
            (Part::Text(text), Algorithm::WordPiece(words)) => words.encode(&self.vocab, text, &mut ids),
        })?;
        ids.extend(self.last.filter(|_| options.add_special));
        Ok(ids)
    }

    /// The bytes of one token, which need not be whole characters; of a special token its text; of an unused token
    /// none. Errors: `InvalidArgument` if there is no such token.
    pub fn piece(&self, token: u32) -> Result<&[u8]> {
        let is_unused = self.vocab.kind(token) == Some(TokenKind::Unused);
        self.vocab.piece(token).map(|piece| if is_unused { &[] } else { piece }).ok_or_else(|| {
            let size = self.vocab_size();
            Error::invalid_argument(format!("token {token} is outside the vocabulary of {size}"))
                .with("token", token)
                .with("vocab_size", size)
        })
    }

    /// The bytes of one token, none if it is hidden.
    pub(crate) fn shown(&self, token: u32, show_special: bool) -> Result<&[u8]> {
        let piece = self.piece(token)?;
        let hidden = !show_special && self.vocab.kind(token).is_some_and(TokenKind::is_hidden);
        Ok(if hidden { &[] } else { piece })
    }

    /// The text of tokens, from the beginning of a text: their pieces put together, without the space that SentencePiece
    /// puts before a text if the first of them has it (behind a BOS it stays, as in llama.cpp). Errors: `InvalidArgument` if
    /// there is no such token, `OutOfMemory`.
    pub fn decode(&self, tokens: &[u32], options: DecodeOptions) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for (i, &token) in tokens.iter().enumerate() {
            let mut piece = self.shown(token, options.show_special)?;
            if i == 0 && self.prefixes_space() {
                piece = piece.strip_prefix(b" ").unwrap_or(piece);
            }
            text.try_reserve(piece.len())
                .map_err(|_| Error::out_of_memory("the text needs memory that cannot be had"))?;
            text.extend_from_slice(piece);
        }
        if options.clean_up_spaces && self.habits.cleans_up_spaces {
            clean_up::clean_up(&mut text);
        }
        Ok(text)
    }

    /// Whether encoding puts a space before a text.
    pub(crate) fn prefixes_space(&self) -> bool {
        match &self.algorithm {
            Algorithm::Spm { space_prefix } => *space_prefix,
            Algorithm::Unigram(unigram) => unigram.spaces.prefix,
            Algorithm::Bpe(_) | Algorithm::WordPiece(_) => false,
        }
    }

    /// The token whose [`piece`](Tokenizer::piece) is exactly this text: the special or user-defined one if there is
    /// one, else one that encoding can give, else the token of a byte. An unused token that encoding can give is found
    /// by its text.
    pub fn id(&self, piece: &[u8]) -> Option<u32> {
        let byte = || {
            let [byte] = piece else { return None };
            Some(self.vocab.byte(*byte)).filter(|id| self.vocab.piece(*id) == Some(piece))
        };
        self.vocab.special(piece).or_else(|| self.vocab.ordinary(piece)).or_else(byte)
    }

    /// What all grammars have in common.
    fn vocabulary(&self) -> Result<&Arc<Vocabulary>> {
        let vocabulary = match self.vocabulary.get() {
            Some(vocabulary) => vocabulary,
            None => match Vocabulary::new(self) {
                // There may be memory the next time.
                Err(e @ Error::OutOfMemory(_)) => return Err(e),
                new => self.vocabulary.get_or_init(|| new.map(Arc::new)),
            },
        };
        vocabulary.as_ref().map_err(Clone::clone)
    }

    /// What the token is; `None` if there is no such token.
    pub fn kind(&self, token: u32) -> Option<TokenKind> {
        self.vocab.kind(token)
    }

    /// Whether a generation ends with this token: the end of the sequence, of a turn, or of what a model of code fills
    /// in.
    pub fn is_eog(&self, token: u32) -> bool {
        self.vocab.is_end(token)
    }

    /// How many tokens end a generation.
    pub(crate) fn eog_count(&self) -> usize {
        self.vocab.end_count()
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

    /// The token that ends a message after which the model goes on once it has an answer, as of a tool.
    pub fn eom(&self) -> Option<u32> {
        self.vocab.eom
    }

    /// The token for text that the vocabulary cannot express.
    pub fn unk(&self) -> Option<u32> {
        self.vocab.unk
    }

    /// The token between two texts, and after the last, for an encoder.
    pub fn sep(&self) -> Option<u32> {
        self.vocab.sep
    }

    /// The token that fills up batches in training.
    pub fn pad(&self) -> Option<u32> {
        self.vocab.pad
    }

    /// The token that stands for a word that an encoder is to guess.
    pub fn mask(&self) -> Option<u32> {
        self.vocab.mask
    }

    /// The tokens of a fill-in-the-middle prompt.
    pub fn fill_in(&self) -> FillIn {
        self.vocab.fill
    }

    /// Whether `add_special` puts the token [`bos`](Tokenizer::bos) first.
    pub fn adds_bos(&self) -> bool {
        self.habits.adds_bos
    }

    /// Whether `add_special` puts the token [`eos`](Tokenizer::eos) last.
    pub fn adds_eos(&self) -> bool {
        self.habits.adds_eos
    }

    /// Whether the tokenizer's own decoder removes spaces before punctuation, which only
    /// [`DecodeOptions::clean_up_spaces`] does here.
    pub fn cleans_up_spaces(&self) -> bool {
        self.habits.cleans_up_spaces
    }

    /// The chat template of the file, in jinja2's language; with a name one of its other templates, as `tool_use`.
    pub fn chat_template(&self, name: Option<&str>) -> Option<&str> {
        let name = name.unwrap_or_default();
        self.chat_templates.iter().find(|(known, _)| known == name).map(|(_, template)| &**template)
    }

    /// A fill-in-the-middle prompt for models of code: tokens after which the model writes what belongs between the
    /// texts. The order is prefix, suffix, middle (Bavarian et al., 2022).
    ///
    /// Errors: `Unsupported` naming the token that the vocabulary lacks; those of [`Tokenizer::encode`].
    pub fn fill_in_prompt(&self, prefix: &[u8], suffix: &[u8]) -> Result<Vec<u32>> {
        let FillIn { prefix: before, suffix: after, middle, .. } = self.fill_in();
        let needed = |token: Option<u32>, name: &'static str| {
            let missing = || Error::unsupported(format!("the vocabulary has no {name} token")).with("token", name);
            token.ok_or_else(missing)
        };
        let mut tokens = Vec::new();
        tokens.extend(self.first);
        for (token, name, text) in [(before, "fill-prefix", prefix), (after, "fill-suffix", suffix)] {
            tokens.push(needed(token, name)?);
            tokens.extend(self.encode(text, EncodeOptions::default())?);
        }
        tokens.push(needed(middle, "fill-middle")?);
        Ok(tokens)
    }

    /// `tokenizer.ggml.model`: `gpt2` is byte-level BPE, `llama` and `t5` are SentencePiece, `bert` is WordPiece.
    pub fn model_name(&self) -> &str {
        &self.model
    }

    /// `tokenizer.ggml.pre`, `default` where the file does not say.
    pub fn pre(&self) -> &str {
        &self.pre
    }
}

/// The chat templates of a file: `tokenizer.chat_template`, and `tokenizer.chat_template.NAME`.
fn chat_templates(gguf: &Gguf) -> Result<Vec<(String, String)>> {
    let mut templates = Vec::new();
    for (key, _) in gguf.keys() {
        let Some(name) = key.strip_prefix("tokenizer.chat_template") else { continue };
        let name = if name.is_empty() { Some("") } else { name.strip_prefix('.') };
        // What is no text is no template.
        let (Some(name), Ok(Some(template))) = (name, gguf.str(key)) else { continue };
        let mut copy = String::new();
        copy.try_reserve_exact(template.len()).map_err(merge::out_of_memory)?;
        copy.push_str(template);
        templates.push((name.to_owned(), copy));
    }
    Ok(templates)
}

fn unsupported(what: &str, key: &'static str, name: &str) -> Error {
    let message = format!("{what} {} is not implemented", quoted(name.as_bytes()));
    Error::unsupported(message).with("key", key).with("name", name)
}

/// What a model of tokenizers does, unless the file says something else.
fn habits(gguf: &Gguf, adds_bos: bool, adds_eos: bool, cleans_up_spaces: bool) -> Result<Habits> {
    Ok(Habits {
        adds_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos),
        adds_eos: gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(adds_eos),
        cleans_up_spaces,
    })
}

/// Where a tokenizer's tables come from.
enum Source {
    /// Made of the keys, with a start value for the hashes.
    Keys(u64),
    Stored(Stored),
}

impl Source {
    fn lexicon(&mut self, gguf: &Gguf, spelling: Spelling) -> Result<Lexicon> {
        match self {
            Source::Keys(seed) => Lexicon::from_keys(gguf, spelling, *seed),
            Source::Stored(stored) => Lexicon::stored(gguf, stored),
        }
    }
}

fn byte_pairs(gguf: &Gguf, mut source: Source, pre: &str) -> Result<(Vocab, Algorithm, Habits)> {
    let rules = PreTokenizer::find(pre)?.ok_or_else(|| unsupported("pre-tokenizer", PRE, pre))?;
    let traits = rules.traits;
    let write = bpe::spelling(&rules);
    let lexicon = source.lexicon(gguf, Spelling { write, of_user_defined: false, bytes_by_text: traits.characters })?;
    let vocab = Vocab::new(gguf, lexicon, Defaults::default())?;
    let (count, merges) = vocab::strings(gguf, "tokenizer.ggml.merges")?;
    let merges = match &mut source {
        Source::Keys(seed) => bpe::merge_table(&vocab, write, count, merges, *seed)?,
        Source::Stored(stored) => MergeTable::stored(stored, vocab.len())?,
    };
    let mut habits = habits(gguf, traits.adds_bos, false, traits.cleans_up)?;
    habits.adds_bos |= traits.needs_bos;
    let bpe = Bpe::new(&vocab, rules, merges);
    Ok((vocab, Algorithm::Bpe(Box::new(bpe)), habits))
}

fn merged_by_score(gguf: &Gguf, mut source: Source) -> Result<(Vocab, Algorithm, Habits)> {
    let defaults = Defaults { bos: Some(1), eos: Some(2), unk: Some(0), ..Defaults::default() };
    let spelling = Spelling { write: spm::write_spaces, of_user_defined: true, bytes_by_text: true };
    let lexicon = source.lexicon(gguf, spelling)?;
    let vocab = Vocab::new(gguf, lexicon, defaults)?;
    let space_prefix = gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    Ok((vocab, Algorithm::Spm { space_prefix }, habits(gguf, true, false, false)?))
}

fn unigram(gguf: &Gguf, mut source: Source) -> Result<(Vocab, Algorithm, Habits)> {
    let defaults = Defaults { eos: Some(1), unk: Some(2), pad: Some(0), ..Defaults::default() };
    let spelling = Spelling { write: spm::write_spaces, of_user_defined: true, bytes_by_text: false };
    let lexicon = source.lexicon(gguf, spelling)?;
    let vocab = Vocab::new(gguf, lexicon, defaults)?;
    let spaces = Spaces {
        prefix: gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(false),
        collapse: gguf.bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
    };
    let unigram = Unigram::new(&vocab, Charsmap::from_gguf(gguf)?, spaces)?;
    Ok((vocab, Algorithm::Unigram(Box::new(unigram)), habits(gguf, false, true, false)?))
}

fn word_piece(gguf: &Gguf, mut source: Source) -> Result<(Vocab, Algorithm, Habits)> {
    let (bos, unk, sep, pad, mask) = (Some(101), Some(100), Some(102), Some(0), Some(103));
    let defaults = Defaults { bos, eos: None, unk, sep, pad, mask };
    let spelling = Spelling { write: word_piece::write_word, of_user_defined: false, bytes_by_text: false };
    let lexicon = source.lexicon(gguf, spelling)?;
    let vocab = Vocab::new(gguf, lexicon, defaults)?;
    let lowercase = gguf.bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let strip_accents = gguf.bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
    // An encoder knows no text without them; keys for decoders do not count.
    let habits = Habits { adds_bos: true, adds_eos: false, cleans_up_spaces: true };
    Ok((vocab, Algorithm::WordPiece(WordPiece { lowercase, strip_accents }), habits))
}

/// Which white space around a special token belongs to it. The file format has no place for these habits of a few models'
/// tokenizers, so their names have to do.
fn strips(gguf: &Gguf, algorithm: &Algorithm) -> impl Fn(&[u8]) -> Strips {
    let name = gguf.str("general.name").ok().flatten().unwrap_or_default().to_ascii_lowercase();
    let is_phi3 = name.contains("phi-3") || name.contains("phi3");
    let is_modern_bert = name.contains("modern-bert");
    let mask = match algorithm {
        Algorithm::Bpe(bpe) if bpe.traits().strips_before_mask => true,
        _ => matches!(gguf.str("general.architecture"), Ok(Some("nomic-bert-moe" | "jina-bert-v3"))),
    };
    move |text| Strips {
        before: text == b"<mask>" && mask || text == b"[MASK]" && is_modern_bert,
        after: is_phi3 && !matches!(text, b"<unk>" | b"<s>" | b"<|endoftext|>"),
    }
}
