//! Every row of the table against the words that its published patterns give in Hugging Face's `tokenizers`.

use super::{PreTokenizer, TABLE};
use serde_json::Value;

fn words<'a>(rules: &PreTokenizer, text: &'a [u8]) -> Vec<&'a [u8]> {
    let mut words = Vec::new();
    let push = &mut |word| {
        words.push(word);
        Ok(())
    };
    rules.split(text, push).unwrap();
    words
}

fn find(name: &str) -> PreTokenizer {
    PreTokenizer::find(name).unwrap().unwrap()
}

/// `texts` and, for a name of each set of patterns, how many characters the words of each text have.
fn goldens() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/trained/words.json.zst");
    serde_json::from_slice(&zstd::decode_all(&std::fs::read(path).unwrap()[..]).unwrap()).unwrap()
}

#[test]
fn words_equal_the_goldens() {
    let goldens = goldens();
    let texts: Vec<&str> = goldens["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for (name, rows) in goldens["rows"].as_object().unwrap() {
        let rules = find(name);
        for (text, lengths) in texts.iter().zip(rows.as_array().unwrap()) {
            let found = words(&rules, text.as_bytes());
            let length = |word: &&[u8]| std::str::from_utf8(word).unwrap().chars().count() as u64;
            let found: Vec<u64> = found.iter().map(length).collect();
            let expected: Vec<u64> = lengths.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
            assert_eq!(found, expected, "{name} {text:?}");
        }
    }
}

#[test]
fn every_row_has_goldens() {
    let goldens = goldens();
    let stages = |name: &str| {
        let row = TABLE.iter().find(|row| row.names.contains(&name)).unwrap();
        format!("{:?}", row.stages)
    };
    let tested: Vec<String> = goldens["rows"].as_object().unwrap().keys().map(|name| stages(name)).collect();
    for row in TABLE {
        assert!(tested.contains(&stages(row.names[0])), "{:?}", row.names);
    }
}

#[test]
fn any_bytes_are_cut_without_loss() {
    let mut rng = crate::rng::Rng::new(3);
    for row in TABLE {
        let rules = find(row.names[0]);
        for _ in 0..300 {
            let text: Vec<u8> = (0..rng.next_u64() % 40)
                .map(|_| match rng.next_u64() {
                    byte if byte % 3 == 0 => (byte >> 8) as u8,
                    other => b" \n\r'sL1.\xC3\xA9\xE3\x80\x80"[(other >> 8) as usize % 12],
                })
                .collect();
            let words = words(&rules, &text);
            assert_eq!(words.concat(), text);
            assert!(words.iter().all(|word| !word.is_empty()));
        }
    }
}

#[test]
fn no_name_is_in_two_rows() {
    let mut names: Vec<&str> = TABLE.iter().flat_map(|row| row.names).copied().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(PreTokenizer::find("nonsense").unwrap().is_none());
}
