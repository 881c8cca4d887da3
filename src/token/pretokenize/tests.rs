//! Each family on a few texts; `|` stands between words. The goldens of `tests/tokenizer.rs` say much more.

use super::{CASED, PreTokenizer, TABLE};

fn words(pre: &str, text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let result: Result<(), ()> = PreTokenizer::find(pre).unwrap().split(text, &mut |word| {
        words.push(word.to_vec());
        Ok(())
    });
    result.unwrap();
    words
}

fn check(pre: &str, expected: &str) {
    let text = expected.replace('|', "");
    let found: Vec<String> =
        words(pre, text.as_bytes()).into_iter().map(|word| String::from_utf8(word).unwrap()).collect();
    assert_eq!(found.join("|"), expected, "{pre}");
}

#[test]
fn families() {
    check("gpt-2", "it|'s| 1234| !?|  | x|\n \n|\t|y|  ");
    check("gpt-2", "IT|'|S| we|'ll| x|'|lé");
    check("smollm", "a| |1|2|3| b|²|x");
    check("qwen2", "IT|'S| |1|2| !?\n\n|\tx|  \n|  | y|(z");
    check("qwen2", "x|\r|y| z|\n|é");
    check("llama-bpe", "a| |123|4|  \r\n|  ");
    check("default", "a|.,|b| |123|45| |+|c");
    check("deepseek-llm", "ab| cd|\n|\n| |中文|  ");
    check("deepseek-llm", " !|x|12|中| é| |ა一");
}

#[test]
fn any_bytes_are_cut_without_loss() {
    let mut rng = crate::rng::Rng::new(3);
    for row in TABLE {
        for _ in 0..300 {
            let text: Vec<u8> = (0..rng.next_u64() % 40)
                .map(|_| match rng.next_u64() {
                    byte if byte % 3 == 0 => (byte >> 8) as u8,
                    other => b" \n\r'sL1.\xC3\xA9\xE3\x80\x80"[(other >> 8) as usize % 12],
                })
                .collect();
            let words = words(row.names[0], &text);
            assert_eq!(words.concat(), text);
            assert!(words.iter().all(|word| !word.is_empty()));
        }
    }
}

#[test]
fn the_table_is_in_order() {
    let mut names: Vec<&str> = TABLE.iter().flat_map(|row| row.names).copied().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name in two rows");
    assert!(CASED.iter().all(|(first, last)| first <= last));
    assert!(CASED.windows(2).all(|pair| pair[0].1 < pair[1].0));
}
