//! Twice the text costs less than three times as much, whatever the text, the tokenizer and its vocabulary.

mod common;

use llm::gguf::{Builder, Gguf};
use llm::token::{EncodeOptions, Tokenizer};
use std::sync::{Mutex, PoisonError};

/// Bytes of the larger text.
const SIZE: usize = 4 << 20;

fn time(tokenizer: &Tokenizer, text: &str) -> f64 {
    let start = std::time::Instant::now();
    tokenizer.encode(text.as_bytes(), EncodeOptions { add_special: false, parse_special: true }).unwrap();
    start.elapsed().as_secs_f64()
}

/// Tests run beside each other, but measure one after the other.
static MEASURING: Mutex<()> = Mutex::new(());

fn check(name: &str, tokenizer: &Tokenizer, units: &[&str], size: usize) {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    for unit in units {
        let text = unit.repeat(size / unit.len());
        let half = &text[..text.len() / 2 / unit.len() * unit.len()];
        let measure = || (time(tokenizer, half), time(tokenizer, &text));
        // A machine that is busy at the wrong moment gets other chances.
        let linear = (0..20).map(|_| measure()).find(|(half, whole)| *whole < 3.0 * half);
        assert!(linear.is_some(), "{name}: {unit:?} takes {:?} s", measure());
    }
}

/// One letter, spaces, digits, characters of four and of three bytes, a control token.
const UNITS: [&str; 6] = ["a", " ", "1", "😀", "中", "</s>"];

#[test]
fn real_vocabularies() {
    for name in [common::SMOLLM2, common::GEMMA3] {
        let tokenizer = Tokenizer::from_gguf(&Gguf::open(&common::real_model(name)).unwrap()).unwrap();
        let units = ["a", " ", "1", "😀", "中", "<|im_end|>", "<end_of_turn>", "<|im_en", ".", "ab'"];
        check(name, &tokenizer, &units, SIZE / 4);
        check(name, &tokenizer, &["a", " "], SIZE);
    }
    for name in ["deepseek-llm", "llama-spm"] {
        let tokenizer = Tokenizer::open(&common::data(&format!("tokenizer/vocab/{name}.gguf"))).unwrap();
        check(name, &tokenizer, &["a", " ", "1", "😀", "\n", " \n", "<", "ab'"], SIZE / 8);
    }
}

/// A token that begins with another, and is so long that the search for it would go over the text again and again.
#[test]
fn long_special_tokens() {
    let gguf = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let long = format!("{}b", "a".repeat(1 << 20));
    let array = gguf.array("tokenizer.ggml.tokens").unwrap().unwrap();
    let mut tokens: Vec<Vec<u8>> = array.strings().unwrap().map(<[u8]>::to_vec).collect();
    let mut types = gguf.array("tokenizer.ggml.token_type").unwrap().unwrap().to_i32s().unwrap();
    let n = tokens.len();
    (tokens[n - 2], tokens[n - 1]) = (b"a".to_vec(), long.clone().into_bytes());
    (types[n - 2], types[n - 1]) = (4, 4);
    let mut keys = Builder::new();
    keys.set_strings("tokenizer.ggml.tokens", &tokens).unwrap();
    keys.set_array("tokenizer.ggml.token_type", &types).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf.with_keys(&keys).unwrap()).unwrap();
    check("long", &tokenizer, &["a"], SIZE / 2);
    // The longer one is found in no text, the other in all.
    let options = EncodeOptions { add_special: false, parse_special: true };
    assert_eq!(tokenizer.encode(long.as_bytes(), options).unwrap()[..1 << 20], vec![n as u32 - 2; 1 << 20]);
}

#[test]
fn every_kind_of_tokenizer() {
    for name in ["gemma4", "unigram", "unigram-bytes", "bert"] {
        check(name, &common::trained(name), &UNITS, SIZE);
        check(name, &common::trained(name), &["\u{301}", "aA", "ﷺ", "\n", "\u{2581}"], SIZE / 4);
    }
}

#[test]
fn every_pre_tokenizer() {
    let units = ["a", " ", "1", "😀", "中", " \n", "A", "aA", "中A", "'", "\u{301}", "\0", "<sentinel:1"];
    let goldens = serde_json::from_slice::<serde_json::Value>(&common::unpacked("trained/ids.json")).unwrap();
    for name in goldens["ids"].as_object().unwrap().keys().filter(|name| name.starts_with("bpe:")) {
        check(name, &common::trained(name), &units, SIZE / 32);
    }
    // One letter, digits, spaces: in each of these one word of the whole text.
    for (name, unit) in [("bpe:gpt-2", "a"), ("bpe:default", "1"), ("bpe:jais-2", " "), ("bpe:viking", "中")] {
        check(name, &common::trained(name), &[unit], SIZE);
    }
}
