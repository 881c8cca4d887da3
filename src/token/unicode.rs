//! Characters of text that may be any bytes, and the classes by which pre-tokenizers tell them apart.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// What the pre-tokenizers' patterns ask of a character: `\p{L}`, `\p{N}`, `\p{P}`, `\s`, or none of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Letter,
    Number,
    Punctuation,
    /// The property White_Space, which is wider than the category of separators.
    Space,
    Other,
}

const fn ascii_class(c: u8) -> Class {
    match c {
        b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
        b'0'..=b'9' => Class::Number,
        b' ' | b'\t'..=b'\r' => Class::Space,
        b'$' | b'+' | b'<' | b'=' | b'>' | b'^' | b'`' | b'|' | b'~' => Class::Other,
        b'!'..=b'~' => Class::Punctuation,
        _ => Class::Other,
    }
}

static ASCII: [Class; 128] = {
    let mut table = [Class::Other; 128];
    let mut c = 0;
    while c < 128 {
        table[c] = ascii_class(c as u8);
        c += 1;
    }
    table
};

/// The first character and its length in bytes. A byte that is not the start of valid UTF-8 is U+FFFD of length 1;
/// so is the empty text, with length 0.
pub(crate) fn first_char(text: &[u8]) -> (char, usize) {
    let length = match text.first() {
        None => return (char::REPLACEMENT_CHARACTER, 0),
        Some(&c @ 0..0x80) => return (char::from(c), 1),
        Some(0xC2..0xE0) => 2,
        Some(0xE0..0xF0) => 3,
        Some(0xF0..0xF5) => 4,
        Some(_) => 1,
    };
    let valid = text.get(..length).and_then(|c| std::str::from_utf8(c).ok());
    match valid.and_then(|c| c.chars().next()) {
        Some(c) => (c, length),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// The bytes of each character; a byte that is not the start of valid UTF-8 counts as one.
pub(crate) fn characters(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (character, rest) = text.split_at_checked(first_char(text).1)?;
        text = rest;
        Some(character).filter(|c| !c.is_empty())
    })
}

pub(crate) fn class_of(c: char) -> Class {
    if let Some(&class) = ASCII.get(c as usize) {
        return class;
    }
    if c.is_whitespace() {
        return Class::Space;
    }
    match get_general_category(c) {
        Category::UppercaseLetter
        | Category::LowercaseLetter
        | Category::TitlecaseLetter
        | Category::ModifierLetter
        | Category::OtherLetter => Class::Letter,
        Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber => Class::Number,
        Category::ConnectorPunctuation
        | Category::DashPunctuation
        | Category::OpenPunctuation
        | Category::ClosePunctuation
        | Category::InitialPunctuation
        | Category::FinalPunctuation
        | Category::OtherPunctuation => Class::Punctuation,
        _ => Class::Other,
    }
}

/// Class and length of the first character; `(Other, 0)` at the end of the text.
pub(crate) fn first_class(text: &[u8]) -> (Class, usize) {
    let (c, length) = first_char(text);
    (class_of(c), length)
}
