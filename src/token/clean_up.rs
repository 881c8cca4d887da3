//! The clean-up of spaces that some tokenizers' own decoders do, byte for byte as llama.cpp does it.

/// What becomes of the space before a character.
enum Verdict {
    Stays,
    Goes,
    /// It goes, and the space after the character too.
    BothGo,
}

/// Removes the space before `?`, `!`, `.`, `,`, then the spaces around a single `'`, then the space before `'s`, `'m`,
/// `'re` and `'ve`.
pub(crate) fn clean_up(text: &mut Vec<u8>) {
    pass(text, |rest| match rest {
        [b'?' | b'!' | b'.' | b',', ..] => Verdict::Goes,
        _ => Verdict::Stays,
    });
    pass(text, |rest| match rest {
        [b'\'', b' ', ..] => Verdict::BothGo,
        _ => Verdict::Stays,
    });
    pass(text, |rest| match rest {
        [b'\'', b's' | b'm', ..] | [b'\'', b'r' | b'v', b'e', ..] => Verdict::Goes,
        _ => Verdict::Stays,
    });
}

/// Asks for a verdict wherever a text goes on after a space.
fn pass(text: &mut Vec<u8>, verdict: impl Fn(&[u8]) -> Verdict) {
    let (mut kept, mut at, mut after_space) = (0, 0, false);
    while let Some(&c) = text.get(at) {
        let verdict = if after_space { verdict(&text[at..]) } else { Verdict::Stays };
        if !matches!(verdict, Verdict::Stays) {
            kept -= 1;
        }
        text[kept] = c;
        kept += 1;
        at += 1;
        after_space = c == b' ';
        if matches!(verdict, Verdict::BothGo) {
            at += 1;
            after_space = false;
        }
    }
    text.truncate(kept);
}
