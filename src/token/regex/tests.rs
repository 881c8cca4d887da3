//! The patterns of pre-tokenizers are tested there; here what they do not show.

use super::Regex;

fn pieces(pattern: &str, text: &str) -> String {
    let mut pieces = Vec::new();
    let push = &mut |piece: &[u8]| {
        pieces.push(String::from_utf8(piece.to_vec()).unwrap());
        Ok::<_, ()>(())
    };
    Regex::new(pattern).unwrap().split(text.as_bytes(), push).unwrap();
    pieces.join("|")
}

#[test]
fn the_first_choice_counts_and_not_the_longest() {
    assert_eq!(pieces("a|ab|b", "abab"), "a|b|a|b");
    assert_eq!(pieces("(?:a|ab)(?:c|bcd)", "abcd"), "abcd");
    assert_eq!(pieces("(?:ab|a)(?:c|bcd)", "abcd"), "abc|d");
    assert_eq!(pieces("a{2,3}", "aaaaaaa"), "aaa|aaa|a");
    assert_eq!(pieces("xa{2}", "xaaxa"), "xaa|xa");
    assert_eq!(pieces("a?b+", "aabbab"), "a|abb|ab");
}

#[test]
fn what_may_not_follow() {
    assert_eq!(pieces(r"a+(?!b)", "aaab"), "aa|ab");
    assert_eq!(pieces(r"(?:a(?!b)|x)+", "aaxab"), "aax|ab");
    assert_eq!(pieces(r"\s+(?!\S)|\s+", "   a  "), "  | |a|  ");
}

#[test]
fn sets() {
    assert_eq!(pieces(r"[\p{L}&&[^\p{Lu}é]]+", "abCdé"), "ab|C|d|é");
    assert_eq!(pieces(r"[^a-c\]-]+", "abxy]z-"), "ab|xy|]|z|-");
    assert_eq!(pieces(r"(?i:k[s])k", "kskKſk\u{212A}SK"), "ksk|Kſk|\u{212A}SK");
}

#[test]
fn what_is_not_understood_is_an_error() {
    for pattern in
        ["a**", "(a", "a)", "[a", "a{2", "a{x}", r"\w", r"\p{Xx}", "^a", "a$", ".", "(?=a)", "(?!ab)", r"[\S]"]
    {
        assert!(Regex::new(pattern).is_err(), "{pattern}");
    }
}
