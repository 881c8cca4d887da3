//! Characters of text that may be any bytes, and what Unicode says of them.

use unicode_general_category::{GeneralCategory, get_general_category};

/// All general categories; [`category`] gives indices into it.
#[rustfmt::skip]
pub(crate) const CATEGORIES: [GeneralCategory; 30] = {
    use GeneralCategory::*;
    [
        ClosePunctuation, ConnectorPunctuation, Control, CurrencySymbol, DashPunctuation, DecimalNumber, EnclosingMark,
        FinalPunctuation, Format, InitialPunctuation, LetterNumber, LineSeparator, LowercaseLetter, MathSymbol,
        ModifierLetter, ModifierSymbol, NonspacingMark, OpenPunctuation, OtherLetter, OtherNumber, OtherPunctuation,
        OtherSymbol, ParagraphSeparator, PrivateUse, SpaceSeparator, SpacingMark, Surrogate, TitlecaseLetter, Unassigned,
        UppercaseLetter,
    ]
};

// A release of the crate with another order fails here.
const _: () = {
    let mut i = 0;
    while i < CATEGORIES.len() {
        assert!(CATEGORIES[i] as usize == i);
        i += 1;
    }
};

/// The index in [`CATEGORIES`] of the category of a character.
#[inline]
pub(crate) fn category(c: char) -> usize {
    get_general_category(c) as usize
}

/// Whether the category of a character has a name that begins so: `N` for numbers of all kinds, `Nd` for digits.
pub(crate) fn is_category(c: char, name: &str) -> bool {
    get_general_category(c).abbreviation().starts_with(name)
}

/// The property White_Space, which is wider than the category of separators.
pub(crate) const WHITE_SPACE: [(u32, u32); 10] = [
    (0x09, 0x0D),
    (0x20, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
];

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
