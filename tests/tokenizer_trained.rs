//! Tokenizers of small vocabularies that were trained for these tests, against ids made with Hugging Face's `tokenizers`
//! and with `sentencepiece`. One byte-level vocabulary serves all pre-tokenizers.

mod common;

use llm::token::{DecodeOptions, EncodeOptions, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SHOWN: DecodeOptions = DecodeOptions { show_special: true, clean_up_spaces: false };

/// `nasty`: texts besides those of cases.txt; `ids`: by vocabulary, the ids of all texts.
static GOLDENS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_slice(&common::unpacked("trained/ids.json")).unwrap());

/// By the names that the goldens give them.
static TOKENIZERS: LazyLock<Vec<(&str, Tokenizer)>> = LazyLock::new(|| {
    let names = GOLDENS["ids"].as_object().unwrap().keys();
    names.map(|name| (&**name, common::trained(name))).collect()
});

fn texts() -> Vec<String> {
    let cases = std::fs::read_to_string(common::data("tokenizer/cases.txt")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let cases = cases.lines().map(|line| text(&serde_json::from_str::<Value>(line).unwrap()["text"]));
    cases.chain(GOLDENS["nasty"].as_array().unwrap().iter().map(text)).collect()
}

#[test]
fn encoding_equals_the_goldens() {
    let texts = texts();
    for (name, tokenizer) in TOKENIZERS.iter() {
        let mut texts = texts.clone();
        // Words that are tokens though no merge makes them; words of 100 and of 101 letters.
        match tokenizer.model_name() {
            "gpt2" => texts.push(GOLDENS["bpe_extra"].as_str().unwrap().into()),
            "bert" => texts.push(format!("{} {} ae\u{301}", "x".repeat(100), "y".repeat(101)).replace("ae", "aé")),
            _ => {}
        }
        let goldens = GOLDENS["ids"][name].as_array().unwrap();
        assert_eq!(goldens.len(), texts.len(), "{name}");
        for (text, golden) in texts.iter().zip(goldens) {
            let golden: Vec<u32> = golden.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(tokenizer.encode(text.as_bytes(), PLAIN).unwrap(), golden, "{name} {text:?}");
        }
    }
    assert!(TOKENIZERS.len() > 30);
}

#[test]
fn special_tokens() {
    let find = |name: &str| &TOKENIZERS.iter().find(|(n, _)| *n == name).unwrap().1;
    let all = EncodeOptions { add_special: true, parse_special: true };
    let bert = find("bert");
    assert_eq!((bert.bos(), bert.eos(), bert.unk(), bert.sep()), (Some(2), None, Some(1), Some(3)));
    assert_eq!((bert.pad(), bert.mask()), (Some(0), Some(4)));
    let (the, cat) = (bert.id(b" the").unwrap(), bert.encode(b"and", PLAIN).unwrap());
    assert_eq!(bert.encode(b"The [MASK]and", all).unwrap(), [&[2, the, 4][..], &cat, &[3]].concat());
    assert_eq!(bert.decode(&[the, cat[0], 3], DecodeOptions::default()).unwrap(), b" the and");
    assert_eq!(bert.encode(b"", all).unwrap(), [2, 3]);
    let t5 = find("unigram");
    assert_eq!((t5.bos(), t5.eos(), t5.unk(), t5.pad()), (None, Some(1), Some(2), Some(0)));
    let the = t5.encode(b"the", PLAIN).unwrap();
    assert_eq!(t5.encode(b"  the \n", all).unwrap(), [&the[..], &[1]].concat(), "spaces at the ends are dropped");
    assert_eq!(t5.encode(b"", all).unwrap(), [1]);
    assert_eq!(t5.encode(b"the</s>the", all).unwrap(), [&the[..], &[1], &the, &[1]].concat());
    assert_eq!(t5.decode(&the, SHOWN).unwrap(), b"the");
    assert!(t5.score(the[0]) < 0.0);
    // Whatever the file says: it says no.
    let gemma4 = find("gemma4");
    assert_eq!((gemma4.adds_bos(), gemma4.encode(b"", all).unwrap(), gemma4.pre()), (true, vec![2], "gemma4"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_back(text in prop_oneof![
        proptest::string::string_regex("(?s).{0,60}").unwrap(),
        proptest::string::string_regex("[ \t\r\n'a-zA-Z0-9.,!?<>|é中ไ\u{301}😀\u{0}]{0,100}").unwrap(),
    ]) {
        // The others normalize.
        let exact = |name: &str| name.starts_with("bpe:") || name == "gemma4" || name == "unigram-bytes";
        for (name, tokenizer) in TOKENIZERS.iter().filter(|(name, _)| exact(name)) {
            if name.starts_with("bpe:") || !text.contains('\u{2581}') {
                let ids = tokenizer.encode(text.as_bytes(), PLAIN).unwrap();
                prop_assert_eq!(&tokenizer.decode(&ids, SHOWN).unwrap(), text.as_bytes(), "{}", name);
            }
        }
    }

    #[test]
    fn any_bytes_can_be_encoded(text in proptest::collection::vec(any::<u8>(), 0..60)) {
        for (name, tokenizer) in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, PLAIN).unwrap();
            let back = tokenizer.decode(&ids, SHOWN).unwrap();
            if name.starts_with("bpe:") || *name == "gemma4" && !text.windows(3).any(|w| w == "\u{2581}".as_bytes()) {
                prop_assert_eq!(&back, &text, "{}", name);
            }
        }
    }
}

#[test]
fn a_vocabulary_is_enough_and_so_is_the_first_part_of_a_split_file() {
    let folder = std::env::temp_dir().join(format!("llm-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let whole = common::unpacked("trained/bert.gguf");
    // The same with the keys of the first of three parts; the number of keys is at byte 16.
    let mut part = whole.clone();
    let u16_keys = [("split.no", 0u16), ("split.count", 3)];
    for (key, value) in u16_keys {
        part[16] += 1;
        part.extend((key.len() as u64).to_le_bytes());
        part.extend(key.as_bytes());
        part.extend(2u32.to_le_bytes());
        part.extend(value.to_le_bytes());
    }
    let expected = common::trained("bert").encode(b"The first part.", PLAIN).unwrap();
    for (name, bytes) in [("vocabulary.gguf", whole), ("model-00001-of-00003.gguf", part)] {
        let path = folder.join(name);
        std::fs::write(&path, &bytes).unwrap();
        let tokenizer = Tokenizer::open(&path).unwrap();
        assert_eq!(tokenizer.encode(b"The first part.", PLAIN).unwrap(), expected, "{name}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
