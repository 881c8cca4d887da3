//! Pre-tokenizers: the rules that cut text into words before byte-level BPE merges inside each word.
//!
//! GGUF names the rule in `tokenizer.ggml.pre`. The originals are regular expressions, here written by hand, so that
//! any text takes linear time. [`TABLE`] has a row per family of names; a rule is one or more *stages*, each of which
//! cuts the pieces that the stage before it left.

use super::unicode::{Class, class_of, first_char, first_class};

/// The length in bytes of the first piece of a text that is not empty: never 0, never beyond the text.
type Stage = fn(&[u8]) -> usize;

/// One family of pre-tokenizers.
pub(crate) struct PreTokenizer {
    /// The values of `tokenizer.ggml.pre` that mean it.
    pub names: &'static [&'static str],
    stages: &'static [Stage],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub whole_words: bool,
    /// Whether a beginning-of-sequence token is added where the file does not say.
    pub adds_bos: bool,
}

static TABLE: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        stages: &[symbol_runs, gpt2, number_runs, digit_triples],
        whole_words: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "granite-docling",
        ],
        stages: &[gpt2],
        whole_words: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        stages: &[single_numbers, gpt2],
        whole_words: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "hunyuan",
            "megrez",
            "grok-2",
            "solar-open",
            "kormo",
            "f2llmv2",
        ],
        stages: &[gpt4::<1>],
        whole_words: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        stages: &[gpt4::<3>],
        whole_words: true,
        adds_bos: true,
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe"], stages: &[gpt4::<3>], whole_words: false, adds_bos: false },
    PreTokenizer {
        names: &["deepseek-llm"],
        stages: &[single_newlines, cased_words, east_asian_symbols, trailing_space, ideographs, number_runs],
        whole_words: false,
        adds_bos: false,
    },
];

impl PreTokenizer {
    /// The family that a value of `tokenizer.ggml.pre` names.
    pub fn find(name: &str) -> Option<&'static PreTokenizer> {
        TABLE.iter().find(|row| row.names.contains(&name))
    }

    /// Calls `word` with each word of the text; together they are the text.
    pub fn split<E>(&self, text: &[u8], word: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        split(self.stages, text, word)
    }
}

fn split<E>(stages: &[Stage], mut text: &[u8], word: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let Some((stage, rest)) = stages.split_first() else { return word(text) };
    while !text.is_empty() {
        let (piece, tail) = text.split_at(stage(text).clamp(1, text.len()));
        split(rest, piece, word)?;
        text = tail;
    }
    Ok(())
}

/// The length of the longest start of `text` whose characters all have the property.
fn run(text: &[u8], property: impl Fn(char) -> bool) -> usize {
    let mut at = 0;
    loop {
        let (c, length) = first_char(&text[at..]);
        if length == 0 || !property(c) {
            return at;
        }
        at += length;
    }
}

fn is(class: Class) -> impl Fn(char) -> bool {
    move |c| class_of(c) == class
}

/// `[^\s\p{L}\p{N}]`
fn is_symbol(c: char) -> bool {
    matches!(class_of(c), Class::Punctuation | Class::Other)
}

fn is_newline(c: char) -> bool {
    c == '\r' || c == '\n'
}

/// The stage of a pattern that need not match everywhere: its match at the start of the text, else what stands before
/// its first match. Where `matched` gives 0 it must do so after a bounded number of characters, for linear time.
fn isolate(text: &[u8], matched: impl Fn(&[u8]) -> usize) -> usize {
    let length = matched(text);
    if length > 0 {
        return length;
    }
    let mut at = 0;
    while at < text.len() && matched(&text[at..]) == 0 {
        at += first_char(&text[at..]).1;
    }
    at
}

/// `\s+(?!\S)|\s+` at white space: all of it at the end of the text; otherwise all but the last character, which is
/// left for the next word, unless there is only one.
fn spaces(text: &[u8]) -> usize {
    let (mut at, mut last) = (0, 0);
    loop {
        let (class, length) = first_class(&text[at..]);
        if length == 0 || class != Class::Space {
            break;
        }
        last = length;
        at += length;
    }
    if at == text.len() || at == last { at } else { at - last }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, or 0.
fn contraction(text: &[u8], any_case: bool) -> usize {
    let lower = |at: usize| text.get(at).map(|c| if any_case { c.to_ascii_lowercase() } else { *c });
    match (lower(0), lower(1), lower(2)) {
        (Some(b'\''), Some(b's' | b't' | b'm' | b'd'), _) => 2,
        (Some(b'\''), Some(b'r' | b'v'), Some(b'e')) | (Some(b'\''), Some(b'l'), Some(b'l')) => 3,
        _ => 0,
    }
}

/// GPT-2 (Radford et al., 2019):
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn gpt2(text: &[u8]) -> usize {
    let length = contraction(text, false);
    if length > 0 {
        return length;
    }
    let space = usize::from(text.starts_with(b" "));
    let word = &text[space..];
    match first_class(word) {
        (_, 0) | (Class::Space, _) => spaces(text),
        (Class::Letter, _) => space + run(word, is(Class::Letter)),
        (Class::Number, _) => space + run(word, is(Class::Number)),
        _ => space + run(word, is_symbol),
    }
}

/// The pattern of GPT-4's cl100k_base and its descendants, with numbers of at most `DIGITS` characters (llama 3: 3,
/// qwen2: 1): `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|`
/// `\s*[\r\n]+|\s+(?!\S)|\s+`
fn gpt4<const DIGITS: usize>(text: &[u8]) -> usize {
    let length = contraction(text, true);
    if length > 0 {
        return length;
    }
    let (c, length) = first_char(text);
    let class = class_of(c);
    if class == Class::Number {
        return (1..DIGITS).fold(length, |at, _| match first_class(&text[at..]) {
            (Class::Number, length) => at + length,
            _ => at,
        });
    }
    let letters = run(&text[length..], is(Class::Letter));
    if class == Class::Letter || letters > 0 && !is_newline(c) {
        return length + letters;
    }
    let space = usize::from(c == ' ');
    let symbols = run(&text[space..], is_symbol);
    if symbols > 0 {
        return space + symbols + run(&text[space + symbols..], is_newline);
    }
    // Only white space is left. Its last newline, if it has one, ends the piece.
    let white = &text[..run(text, is(Class::Space))];
    white.iter().rposition(|&c| c == b'\r' || c == b'\n').map_or_else(|| spaces(text), |newline| newline + 1)
}

/// `\p{N}`
fn single_numbers(text: &[u8]) -> usize {
    isolate(text, |text| match first_class(text) {
        (Class::Number, length) => length,
        _ => 0,
    })
}

/// `\p{N}+`
fn number_runs(text: &[u8]) -> usize {
    isolate(text, |text| run(text, is(Class::Number)))
}

/// `[0-9][0-9][0-9]`
fn digit_triples(text: &[u8]) -> usize {
    isolate(text, |text| match text {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', ..] => 3,
        _ => 0,
    })
}

/// `[\p{P}\$\+<=>\^~\|]+`
fn symbol_runs(text: &[u8]) -> usize {
    isolate(text, |text| {
        run(text, |c| class_of(c) == Class::Punctuation || matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|'))
    })
}

/// `[\r\n]`
fn single_newlines(text: &[u8]) -> usize {
    isolate(text, |text| usize::from(matches!(text, [b'\r' | b'\n', ..])))
}

/// `\s?X+` for characters X.
fn with_space(text: &[u8], property: impl Fn(char) -> bool) -> usize {
    let space = match first_class(text) {
        (Class::Space, length) => length,
        _ => 0,
    };
    match run(&text[space..], &property) {
        // The space itself may be an X.
        0 => run(text, property),
        length => space + length,
    }
}

/// `\s?[A-Za-zµÀ-ÖØ-öø-ƺ…]+`: letters of the scripts that have upper and lower case, with gaps that are DeepSeek's.
fn cased_words(text: &[u8]) -> usize {
    isolate(text, |text| with_space(text, |c| within(c, CASED)))
}

/// `\s?[!-/:-~！-／：-～‘-‟　-。]+`
fn east_asian_symbols(text: &[u8]) -> usize {
    isolate(text, |text| {
        with_space(
            text,
            |c| matches!(c, '!'..='/' | ':'..='~' | '！'..='／' | '：'..='～' | '‘'..='‟' | '\u{3000}'..='。'),
        )
    })
}

/// `\s+$`
fn trailing_space(text: &[u8]) -> usize {
    let (mut at, mut end) = (0, 0);
    while at < text.len() {
        let (class, length) = first_class(&text[at..]);
        at += length;
        if class != Class::Space {
            end = at;
        }
    }
    if end == 0 { text.len() } else { end }
}

/// `[一-龥ࠀ-一가-퟿]+`
fn ideographs(text: &[u8]) -> usize {
    isolate(text, |text| run(text, |c| matches!(c, '\u{800}'..='\u{9FA5}' | '\u{AC00}'..='\u{D7FF}')))
}

/// Whether sorted ranges contain the character.
fn within(c: char, ranges: &[(char, char)]) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= c);
    after > 0 && ranges.get(after - 1).is_some_and(|&(_, last)| c <= last)
}

/// The letters of [`cased_words`], in order.
#[rustfmt::skip]
static CASED: &[(char, char)] = &[
    ('\u{41}', '\u{5A}'), ('\u{61}', '\u{7A}'), ('\u{B5}', '\u{B5}'), ('\u{C0}', '\u{D6}'), ('\u{D8}', '\u{F6}'),
    ('\u{F8}', '\u{1BA}'), ('\u{1BC}', '\u{1BF}'), ('\u{1C4}', '\u{293}'), ('\u{295}', '\u{2AF}'),
    ('\u{370}', '\u{373}'), ('\u{376}', '\u{377}'), ('\u{37B}', '\u{37D}'), ('\u{37F}', '\u{37F}'),
    ('\u{386}', '\u{386}'), ('\u{388}', '\u{38A}'), ('\u{38C}', '\u{38C}'), ('\u{38E}', '\u{3A1}'),
    ('\u{3A3}', '\u{3F5}'), ('\u{3F7}', '\u{481}'), ('\u{48A}', '\u{52F}'), ('\u{531}', '\u{556}'),
    ('\u{10A0}', '\u{10C5}'), ('\u{13A0}', '\u{13F5}'), ('\u{13F8}', '\u{13FD}'), ('\u{1C90}', '\u{1CBA}'),
    ('\u{1CBD}', '\u{1CBF}'), ('\u{1D00}', '\u{1D2B}'), ('\u{1D6B}', '\u{1D77}'), ('\u{1D79}', '\u{1D9A}'),
    ('\u{1E00}', '\u{1F15}'), ('\u{1F18}', '\u{1F1D}'), ('\u{1F20}', '\u{1F45}'), ('\u{1F48}', '\u{1F4D}'),
    ('\u{1F50}', '\u{1F57}'), ('\u{1F59}', '\u{1F59}'), ('\u{1F5B}', '\u{1F5B}'), ('\u{1F5D}', '\u{1F5D}'),
    ('\u{1F5F}', '\u{1F7D}'), ('\u{1F80}', '\u{1FB4}'), ('\u{1FB6}', '\u{1FBC}'), ('\u{1FBE}', '\u{1FBE}'),
    ('\u{1FC2}', '\u{1FC4}'), ('\u{1FC6}', '\u{1FCC}'), ('\u{1FD0}', '\u{1FD3}'), ('\u{1FD6}', '\u{1FDB}'),
    ('\u{1FE0}', '\u{1FEC}'), ('\u{1FF2}', '\u{1FF4}'), ('\u{1FF6}', '\u{1FFC}'), ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'), ('\u{210A}', '\u{2113}'), ('\u{2115}', '\u{2115}'), ('\u{2119}', '\u{211D}'),
    ('\u{2124}', '\u{2124}'), ('\u{2126}', '\u{2126}'), ('\u{2128}', '\u{2128}'), ('\u{212A}', '\u{212D}'),
    ('\u{212F}', '\u{2134}'), ('\u{2139}', '\u{2139}'), ('\u{213C}', '\u{213F}'), ('\u{2145}', '\u{2149}'),
    ('\u{214E}', '\u{214E}'), ('\u{2183}', '\u{2184}'), ('\u{2C00}', '\u{2C7B}'), ('\u{2C7E}', '\u{2CE4}'),
    ('\u{2CEB}', '\u{2CEE}'), ('\u{2CF2}', '\u{2CF3}'), ('\u{A640}', '\u{A66D}'), ('\u{A680}', '\u{A69B}'),
    ('\u{A722}', '\u{A76F}'), ('\u{A771}', '\u{A787}'), ('\u{A78B}', '\u{A78E}'), ('\u{AB70}', '\u{ABBF}'),
    ('\u{FB00}', '\u{FB06}'), ('\u{FB13}', '\u{FB17}'), ('\u{FF21}', '\u{FF3A}'), ('\u{FF41}', '\u{FF5A}'),
    ('\u{10400}', '\u{1044F}'), ('\u{104B0}', '\u{104D3}'), ('\u{104D8}', '\u{104FB}'), ('\u{10C80}', '\u{10CB2}'),
    ('\u{10CC0}', '\u{10CF2}'), ('\u{118A0}', '\u{118DF}'), ('\u{1E900}', '\u{1E943}'),
];

#[cfg(test)]
mod tests;
