//! Pre-tokenizers: the rules that cut text into words before byte-pair encoding merges inside each word.
//!
//! GGUF names the rule in `tokenizer.ggml.pre`. [`TABLE`] has a row per rule, which is one or more *stages*, each of
//! which cuts the pieces that the stage before it left. The stages are the regular expressions that the models' makers
//! published, and a few functions for what no regular expression of `regex` can say. Any text takes linear time.

use super::regex::Regex;
use super::unicode::{characters, first_char, is_category};
use crate::error::Result;

/// One family of pre-tokenizers.
pub(crate) struct Row {
    /// The values of `tokenizer.ggml.pre` that mean it.
    pub names: &'static [&'static str],
    stages: &'static [Rule],
    pub traits: Traits,
}

/// What else a family's name says of its tokenizers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Traits {
    /// A word that is a token is taken whole, whatever the merges say.
    pub whole_words: bool,
    /// The same, of words of newlines.
    pub whole_newlines: bool,
    /// Merges are of characters, with U+2581 for the space, not of bytes.
    pub characters: bool,
    /// A beginning-of-sequence token is added where the file does not say.
    pub adds_bos: bool,
    /// A beginning-of-sequence token is added whatever the file says.
    pub needs_bos: bool,
    /// The tokenizer's own decoder removes spaces before punctuation.
    pub cleans_up: bool,
    /// White space before the mask token belongs to the token.
    pub strips_before_mask: bool,
}

/// Nothing else.
const PLAIN: Traits = Traits {
    whole_words: false,
    whole_newlines: false,
    characters: false,
    adds_bos: false,
    needs_bos: false,
    cleans_up: false,
    strips_before_mask: false,
};

const CLEANED: Traits = Traits { cleans_up: true, ..PLAIN };

/// Calls its second argument with the pieces of a text in order; together they are the text.
type Cut = for<'a> fn(&'a [u8], &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()>;

/// A stage as the table says it.
#[derive(Debug)]
enum Rule {
    /// The matches of a pattern, and what is between them.
    Pattern(&'static str),
    Function(Cut),
}

use Rule::{Function, Pattern};

/// GPT-2 (Radford et al., 2019).
const GPT2: Rule = Pattern(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+");

/// The pattern of GPT-4's cl100k_base with what it says of numbers; llama 3 has it with groups of three digits, Qwen 2
/// with single ones.
macro_rules! gpt4 {
    ($numbers:literal) => {
        Pattern(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $numbers,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))
    };
}

/// The pattern of GPT-4o's o200k_base with what follows a word, and what it says of numbers and symbols: a word is upper
/// case, then lower case; letters without case and marks are both.
macro_rules! gpt4o {
    ($suffix:literal, $rest:literal) => {
        Pattern(concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $suffix,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $suffix,
            "|",
            $rest,
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))
    };
}

/// The words of DeepSeek 3, with what it says of symbols and line ends.
macro_rules! deepseek3 {
    ($symbols:literal) => {
        Pattern(concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"##,
            $symbols,
            r"|\s+(?!\S)|\s+"
        ))
    };
}

/// The letters of the scripts that have upper and lower case, with gaps that are DeepSeek's.
macro_rules! cased {
    () => {
        "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶ-ͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚ\
             Ḁ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃ-ↄ\
             Ⰰ-ⱻⱾ-ⳤⳫ-ⳮⳲ-ⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
    };
}

/// The script Han.
macro_rules! han {
    () => {
        "\u{2E80}-\u{2E99}\u{2E9B}-\u{2EF3}\u{2F00}-\u{2FD5}\u{3005}\u{3007}\u{3021}-\u{3029}\
             \u{3038}-\u{303B}\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}\u{F900}-\u{FA6D}\u{FA70}-\u{FAD9}\
             \u{16FE2}-\u{16FE3}\u{16FF0}-\u{16FF6}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81E}\u{2B820}-\u{2CEAD}\
             \u{2CEB0}-\u{2EBE0}\u{2EBF0}-\u{2EE5D}\u{2F800}-\u{2FA1D}\u{30000}-\u{3134A}\u{31350}-\u{33479}"
    };
}

const DIGITS: Rule = Pattern(r"\p{N}");
const DIGIT_TRIPLES: Rule = Pattern(r"\p{N}{1,3}");
const KANA_AND_IDEOGRAPHS: Rule = Pattern("[一-龥぀-ゟ゠-ヿ]+");
const LINES: Rule = Pattern("[^\n]+|\n+");
/// BLOOM's words.
const BETWEEN_STOPS: Rule = Pattern(r" ?[^(\s|.,!?…。，、।۔،)]+");

#[rustfmt::skip]
static TABLE: &[Row] = &[
    Row {
        names: &["default"],
        stages: &[Pattern(r"[\p{P}\$\+<=>\^~\|]+"), GPT2, Pattern(r"\p{N}+"), Pattern("[0-9][0-9][0-9]")],
        traits: CLEANED,
    },
    Row {
        names: &[
            "gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "modern-bert", "jina-es",
            "jina-de", "jina-v1-en", "roberta-bpe",
        ],
        stages: &[GPT2],
        traits: CLEANED,
    },
    Row {
        names: &["jina-v2-es", "jina-v2-de", "jina-v2-code"],
        stages: &[GPT2],
        traits: Traits { strips_before_mask: true, ..CLEANED },
    },
    Row { names: &["trillion", "granite-docling"], stages: &[GPT2], traits: PLAIN },
    Row {
        names: &["starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        stages: &[DIGITS, GPT2],
        traits: CLEANED,
    },
    Row { names: &["smollm", "command-r"], stages: &[DIGITS, GPT2], traits: PLAIN },
    Row {
        names: &["falcon"],
        stages: &[Pattern(r"[\p{P}\$\+<=>\^~\|`]+"), GPT2, Pattern("[0-9][0-9][0-9]")],
        traits: CLEANED,
    },
    Row {
        names: &["qwen2", "deepseek-r1-qwen", "hunyuan", "grok-2", "solar-open", "kormo", "f2llmv2"],
        stages: &[gpt4!(r"\p{N}")],
        traits: PLAIN,
    },
    Row { names: &["stablelm2", "megrez"], stages: &[gpt4!(r"\p{N}")], traits: CLEANED },
    Row {
        names: &["qwen35"],
        stages: &[Pattern(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|",
            r"\s*[\r\n]+|\s+(?!\S)|\s+"
        ))],
        traits: PLAIN,
    },
    Row {
        names: &[
            "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        ],
        stages: &[gpt4!(r"\p{N}{1,3}")],
        traits: Traits { whole_words: true, adds_bos: true, ..CLEANED },
    },
    Row {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        stages: &[gpt4!(r"\p{N}{1,3}")],
        traits: CLEANED,
    },
    Row {
        names: &["glm4", "glm5"],
        stages: &[gpt4!(r"\p{N}{1,3}")],
        traits: Traits { whole_words: true, ..CLEANED },
    },
    Row {
        names: &["jais-2"],
        stages: &[gpt4!(r"\p{N}{1,3}"), Function(powers_of_two_spaces)],
        traits: CLEANED,
    },
    Row {
        names: &["minicpm5"],
        stages: &[DIGIT_TRIPLES, gpt4!(r"\p{N}+")],
        traits: Traits { whole_words: true, ..CLEANED },
    },
    Row { names: &["laguna"], stages: &[LINES, gpt4!(r"\p{N}")], traits: PLAIN },
    Row {
        names: &["seed-coder"],
        stages: &[Pattern(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|",
            r"\s*[\r\n]+|\s+(?!\S)|\s+"
        ))],
        traits: PLAIN,
    },
    Row {
        names: &["ufakzeka"],
        stages: &[Pattern(
            r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        traits: PLAIN,
    },
    Row {
        // Published with possessive quantifiers, which change nothing: what they keep could match nothing after them.
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        stages: &[Pattern(concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
            r"\s*[\r\n]|\s+(?!\S)|\s+"
        ))],
        traits: PLAIN,
    },
    Row {
        names: &["exaone-moe"],
        stages: &[Pattern(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
        ))],
        traits: CLEANED,
    },
    Row {
        names: &["tekken"],
        stages: &[gpt4o!("", r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*")],
        traits: Traits { whole_words: true, adds_bos: true, ..PLAIN },
    },
    Row {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        stages: &[gpt4o!("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*")],
        traits: PLAIN,
    },
    Row {
        names: &["granite-embed-multi-97m"],
        stages: &[gpt4o!("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*")],
        traits: Traits { whole_words: true, ..PLAIN },
    },
    Row {
        names: &["tiny_aya", "cohere2moe"],
        stages: &[
            Function(digit_groups_before_no_word),
            gpt4o!("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"),
        ],
        traits: PLAIN,
    },
    Row {
        names: &["youtu"],
        stages: &[
            Pattern("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"),
            gpt4o!("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"),
        ],
        traits: Traits { whole_words: true, ..PLAIN },
    },
    Row {
        // The first range is the script Han; the classes of letters are those of gpt-4o without it.
        names: &["kimi-k2"],
        stages: &[Pattern(concat!(
            "[", han!(), "]+|",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^", han!(), r"]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^", han!(),
            r"]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^", han!(),
            r"]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^", han!(), r"]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
            r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))],
        traits: PLAIN,
    },
    Row {
        names: &["deepseek-llm"],
        stages: &[
            Pattern(r"[\r\n]"),
            Pattern(concat!(r"\s?[", cased!(), "]+")),
            Pattern(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            // Published as `\s+$`; said so that what stands before is one piece without looking for its end twice.
            Pattern(r"(?:\s*\S)+|\s+"),
            Pattern("[一-龥ࠀ-一가-\u{D7FF}]+"),
            Pattern(r"\p{N}+"),
        ],
        traits: PLAIN,
    },
    Row {
        names: &["deepseek-coder"],
        stages: &[
            Pattern(r"[\r\n]"),
            Pattern(r"\s?\p{L}+"),
            Pattern(r"\s?\p{P}+"),
            Pattern("[一-龥ࠀ-一가-\u{D7FF}]+"),
            DIGITS,
        ],
        traits: PLAIN,
    },
    Row {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        stages: &[DIGIT_TRIPLES, KANA_AND_IDEOGRAPHS, deepseek3!(r"[\r\n]*|\s*[\r\n]+")],
        traits: PLAIN,
    },
    Row {
        names: &["spark2_5"],
        stages: &[DIGIT_TRIPLES, KANA_AND_IDEOGRAPHS, deepseek3!(r"|[\r\n]"), DIGITS],
        traits: PLAIN,
    },
    Row {
        names: &["afmoe"],
        stages: &[
            Function(digit_groups),
            Pattern(concat!(
                "[一-鿿぀-ゟ゠-ヿ㐀-䶿\u{F900}-\u{FAFF}･-ﾟ⼀-\u{2FDF}]+|[\u{E00}-\u{E7F}]+|[\u{E80}-\u{EFF}]+|[ក-\u{17FF}]+|",
                "[က-\u{109F}ꩠ-ꩿ\u{A9E0}-\u{A9FF}]+|[가-\u{D7AF}ᄀ-ᇿ]+"
            )),
            deepseek3!(r"[\r\n]*|\s*[\r\n]+"),
        ],
        traits: PLAIN,
    },
    Row { names: &["bloom", "gpt3-finnish"], stages: &[BETWEEN_STOPS], traits: CLEANED },
    Row { names: &["poro-chat"], stages: &[BETWEEN_STOPS], traits: PLAIN },
    Row { names: &["viking"], stages: &[BETWEEN_STOPS, DIGITS], traits: PLAIN },
    Row { names: &["superbpe"], stages: &[Pattern(r"\p{N}+"), Function(before_digit_triples)], traits: PLAIN },
    Row {
        names: &["chameleon"],
        stages: &[
            Pattern("<sentinel:[0-9]+>"),
            Pattern("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
            Pattern(r"([\t\n]|    |  )"),
            DIGITS,
            Pattern(r"[\p{P}!-/:-@\[-`{-~]"),
            GPT2,
        ],
        traits: Traits { adds_bos: true, ..PLAIN },
    },
    Row {
        names: &["gemma4", "granite-embed-multi-311m"],
        stages: &[LINES],
        traits: Traits { needs_bos: true, characters: true, whole_newlines: true, ..CLEANED },
    },
    Row { names: &["sarvam-moe"], stages: &[LINES], traits: Traits { characters: true, ..PLAIN } },
];

enum Stage {
    Pattern(Box<Regex>),
    Function(Cut),
}

/// A compiled row of the table.
pub(crate) struct PreTokenizer {
    stages: Vec<Stage>,
    pub traits: Traits,
}

impl PreTokenizer {
    /// The family that a value of `tokenizer.ggml.pre` names; `None` for a name that is not in the table.
    pub fn find(name: &str) -> Result<Option<PreTokenizer>> {
        TABLE.iter().find(|row| row.names.contains(&name)).map(PreTokenizer::new).transpose()
    }

    fn new(row: &Row) -> Result<PreTokenizer> {
        let stage = |rule: &Rule| {
            Ok(match rule {
                Pattern(pattern) => Stage::Pattern(Box::new(Regex::new(pattern)?)),
                Function(cut) => Stage::Function(*cut),
            })
        };
        Ok(PreTokenizer { stages: row.stages.iter().map(stage).collect::<Result<_>>()?, traits: row.traits })
    }

    /// Calls `word` with each word of the text; together they are the text.
    pub fn split<'a>(&self, text: &'a [u8], word: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
        split(&self.stages, text, word)
    }
}

fn split<'a>(stages: &[Stage], text: &'a [u8], word: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let Some((stage, rest)) = stages.split_first() else { return word(text) };
    let piece = &mut |piece: &'a [u8]| split(rest, piece, word);
    match stage {
        Stage::Pattern(regex) => regex.split(text, piece),
        Stage::Function(cut) => cut(text, piece),
    }
}

/// Jais 2 cuts a run of white space into powers of two, at most 512, the largest first: what its pattern says with
/// `\s{512}(?!\S)|\s{256}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}` where others have `\s+(?!\S)|\s+`.
fn powers_of_two_spaces<'a>(text: &'a [u8], piece: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    // No other piece begins with white space and ends with white space that is no newline.
    let is_space = |c: Option<&[u8]>| c.is_some_and(|c| first_char(c).0.is_whitespace() && c != b"\r" && c != b"\n");
    if !is_space(characters(text).next()) || !is_space(last_character(text)) {
        return piece(text);
    }
    let mut rest = text;
    let mut left = characters(text).count();
    while left > 0 {
        let count = 1 << left.min(512).ilog2();
        let length = characters(rest).take(count).map(<[u8]>::len).sum();
        let (first, after) = rest.split_at(length);
        piece(first)?;
        rest = after;
        left -= count;
    }
    Ok(())
}

fn last_character(text: &[u8]) -> Option<&[u8]> {
    let start = (1..=4).filter_map(|n| text.len().checked_sub(n)).find(|&start| text[start] & 0xC0 != 0x80)?;
    text.get(start..)
}

/// `\p{Nd}{1,3}` from the right in each run of digits, which AFMoE publishes as four patterns.
fn digit_groups<'a>(text: &'a [u8], piece: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    cut_digits(text, |_| true, true, piece)
}

/// `\d{1,3}(?=(?:\d{3})*\b)`
fn digit_groups_before_no_word<'a>(text: &'a [u8], piece: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    // What Oniguruma counts as part of a word: letters, enclosed ones too, marks, digits and a few other numbers.
    let in_word = |c: char| {
        ["L", "M", "Nd", "Nl", "Pc"].iter().any(|name| is_category(c, name))
            || matches!(c, '²' | '³' | '¹' | '¼'..='¾' | 'Ⓐ'..='ⓩ')
            || matches!(c, '\u{1F130}'..='\u{1F149}' | '\u{1F150}'..='\u{1F169}' | '\u{1F170}'..='\u{1F189}')
    };
    cut_digits(text, |after| after.is_empty() || !in_word(first_char(after).0), true, piece)
}

/// `(?=(\d{3})+(?!\d))`, which matches nothing but cuts where it matches.
fn before_digit_triples<'a>(text: &'a [u8], piece: &mut dyn FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    cut_digits(text, |_| true, false, piece)
}

/// Cuts each run of digits before every third digit, counted from its end, if `applies` to what follows the run, and then
/// also at the edges of the run if `edges`.
fn cut_digits<'a>(
    text: &'a [u8],
    applies: impl Fn(&[u8]) -> bool,
    edges: bool,
    piece: &mut dyn FnMut(&'a [u8]) -> Result<()>,
) -> Result<()> {
    let is_digit = |c: &&[u8]| is_category(first_char(c).0, "Nd");
    // Where the piece that is not yet given begins.
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let digits = characters(&text[at..]).take_while(is_digit);
        let (mut left, length) = digits.fold((0, 0), |(count, length), c| (count + 1, length + c.len()));
        let run = &text[at..at + length];
        let applies = length > 0 && applies(&text[at + length..]);
        for (i, digit) in characters(run).enumerate() {
            if applies && (left % 3 == 0 || edges && i == 0) && start < at {
                piece(&text[start..at])?;
                start = at;
            }
            left -= 1;
            at += digit.len();
        }
        if applies && edges {
            piece(&text[start..at])?;
            start = at;
        }
        if length == 0 {
            at += first_char(&text[at..]).1;
        }
    }
    if start < at { piece(&text[start..at]) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
