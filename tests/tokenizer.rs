//! Tokenizers against goldens made with llama.cpp: nine vocabularies, each text with special tokens parsed and not.

mod common;

use llm::gguf::Gguf;
use llm::token::{DecodeOptions, Decoder, EncodeOptions, TokenKind, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::{Arc, LazyLock};

const NAMES: [&str; 9] =
    ["smollm2", "gemma3", "gpt-2", "starcoder", "qwen2", "llama-bpe", "deepseek-llm", "llama-spm", "phi-3"];
const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };
const SHOWN: DecodeOptions = DecodeOptions { show_special: true, clean_up_spaces: false };
const HIDDEN: DecodeOptions = DecodeOptions { show_special: false, clean_up_spaces: false };

static TOKENIZERS: LazyLock<Vec<(&str, Arc<Tokenizer>)>> =
    LazyLock::new(|| NAMES.map(|name| (name, Arc::new(Tokenizer::from_gguf(&vocabulary(name)).unwrap()))).to_vec());

/// Those of the real models are in the models' own files.
fn vocabulary(name: &str) -> Gguf {
    match name {
        "smollm2" => Gguf::open(&common::real_model(common::SMOLLM2)).unwrap(),
        "gemma3" => Gguf::open(&common::real_model(common::GEMMA3)).unwrap(),
        _ => Gguf::open(&common::data(&format!("tokenizer/vocab/{name}.gguf"))).unwrap(),
    }
}

fn tokenizer(name: &str) -> &'static Arc<Tokenizer> {
    &TOKENIZERS.iter().find(|(n, _)| *n == name).unwrap().1
}

fn text(file: &str) -> String {
    std::fs::read_to_string(common::data(&format!("tokenizer/{file}"))).unwrap()
}

fn json_lines(file: &str) -> Vec<Value> {
    text(file).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn cleaned(options: DecodeOptions) -> DecodeOptions {
    DecodeOptions { clean_up_spaces: true, ..options }
}

#[test]
fn encoding_equals_the_goldens() {
    let texts: Vec<String> = json_lines("cases.txt").iter().map(|case| case["text"].as_str().unwrap().into()).collect();
    assert_eq!(texts.len(), 210);
    for (name, tokenizer) in TOKENIZERS.iter() {
        let goldens = json_lines(&format!("{name}.jsonl"));
        assert_eq!(goldens.len(), texts.len());
        for golden in goldens {
            let text = &texts[golden["id"].as_u64().unwrap() as usize];
            for (options, key) in [(SPECIAL, "special"), (PLAIN, "plain")] {
                let found = tokenizer.encode(text.as_bytes(), options).unwrap();
                // The goldens' `_alt` follow the types of the file instead of the tokens' texts: the other choice.
                assert_eq!(found, ids(&golden[key]), "{name} {key} {} {text:?}", golden["id"]);
                let back = golden.get(format!("detok_{key}")).map_or(text.as_str(), |back| back.as_str().unwrap());
                let found = tokenizer.decode(&found, cleaned(SHOWN)).unwrap();
                assert_eq!(found, back.as_bytes(), "{name} {key} {}", golden["id"]);
            }
        }
    }
}

/// Words that came before in a long text give the tokens that they give in a short one, which remembers none: between
/// special tokens each part stands alone.
#[test]
fn long_texts_are_their_parts() {
    let texts: Vec<String> = json_lines("cases.txt").iter().map(|case| case["text"].as_str().unwrap().into()).collect();
    let gemma4 = ("gemma4", Arc::new(common::trained("gemma4")));
    for (name, tokenizer) in TOKENIZERS.iter().chain([&gemma4]) {
        let special = tokenizer.bos().or(tokenizer.eos()).unwrap();
        let mark = std::str::from_utf8(tokenizer.piece(special).unwrap()).unwrap();
        let parts: Vec<&str> = texts.iter().map(|text| &**text).filter(|text| text.len() < 1000).collect();
        assert!(parts.len() > 200 && parts.iter().map(|part| part.len()).sum::<usize>() > 2000);
        let parts = [&parts[..], &parts[..], &parts[parts.len() / 2..]].concat();
        let mut expected = Vec::new();
        for part in &parts {
            expected.extend(tokenizer.encode(part.as_bytes(), SPECIAL).unwrap());
            expected.push(special);
        }
        let whole = parts.iter().flat_map(|part| [*part, mark]).collect::<String>();
        assert!(tokenizer.encode(whole.as_bytes(), SPECIAL).unwrap() == expected, "{name}");
    }
}

#[test]
fn encoding_equals_llama_cpp_s_own_tests() {
    for (name, tokenizer) in TOKENIZERS.iter().filter(|(name, _)| !["smollm2", "gemma3"].contains(name)) {
        let texts = text(&format!("vocab/{name}.inp"));
        let lines = text(&format!("vocab/{name}.out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        assert_eq!((texts.len() - 1, lines.lines().count()), (46, 46));
        for (text, line) in texts.iter().zip(lines.lines()) {
            let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(text.as_bytes(), PLAIN).unwrap(), expected, "{name} {text:?}");
        }
    }
}

#[test]
fn decoding_equals_the_goldens() {
    for (name, tokenizer) in TOKENIZERS.iter() {
        for golden in json_lines(&format!("{name}.detok.jsonl")) {
            let tokens = ids(&golden["ids"]);
            let pieces: Vec<Vec<u8>> = golden["pieces_hex"].as_array().unwrap().iter().map(hex).collect();
            let found: Vec<&[u8]> = tokens.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
            assert_eq!(found, pieces, "{name} {tokens:?}");
            assert_eq!(streamed(tokenizer, &tokens, true), pieces.concat(), "{name} {tokens:?}");
            for (options, key) in [(SHOWN, "text_hex"), (HIDDEN, "text_hex_no_control")] {
                assert_eq!(
                    tokenizer.decode(&tokens, cleaned(options)).unwrap(),
                    hex(&golden[key]),
                    "{name} {tokens:?}"
                );
                if !tokenizer.cleans_up_spaces() {
                    assert_eq!(tokenizer.decode(&tokens, options).unwrap(), hex(&golden[key]), "{name} {tokens:?}");
                }
            }
            let whole = tokenizer.decode(&tokens, SHOWN).unwrap();
            let without_space = tokenizer.model_name() == "llama" && whole.len() + 1 == pieces.concat().len();
            assert_eq!(whole, pieces.concat()[usize::from(without_space)..], "{name} {tokens:?}");
        }
    }
}

#[test]
fn special_tokens_equal_the_goldens() {
    let meta: Value = serde_json::from_str(&text("meta.json")).unwrap();
    for (name, tokenizer) in TOKENIZERS.iter() {
        let meta = &meta[name];
        let id = |key: &str| u32::try_from(meta[key].as_i64().unwrap()).ok();
        let all = 0..tokenizer.vocab_size() as u32;
        assert_eq!(tokenizer.vocab_size() as u64, meta["n_tokens"].as_u64().unwrap(), "{name}");
        assert_eq!(tokenizer.model_name(), if meta["type"] == 1 { "llama" } else { "gpt2" });
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (id("bos"), id("eos"), id("pad")), "{name}");
        assert_eq!(
            (tokenizer.adds_bos(), tokenizer.adds_eos()),
            (meta["add_bos"] == 1, meta["add_eos"] == 1),
            "{name}"
        );
        let eog: Vec<u32> = all.clone().filter(|&id| tokenizer.is_eog(id)).collect();
        assert_eq!(eog, ids(&meta["eog"]), "{name}");
        let control: Vec<u32> = all.filter(|&id| tokenizer.kind(id) == Some(TokenKind::Control)).collect();
        assert_eq!(control.len() as u64, meta["n_control"].as_u64().unwrap(), "{name}");
        assert!(control.starts_with(&ids(&meta["control"])), "{name}");
        let added =
            |text: &str| tokenizer.encode(text.as_bytes(), EncodeOptions { add_special: true, ..PLAIN }).unwrap();
        assert_eq!(added("Hello world"), ids(&meta["add_special_hello"]), "{name}");
        assert_eq!(added(""), ids(&meta["add_special_empty"]), "{name}");
    }
    assert_eq!(tokenizer("gemma3").eot(), tokenizer("gemma3").id(b"<end_of_turn>"));
    assert_eq!(tokenizer("smollm2").eot(), Some(2));
}

#[test]
fn tokens_by_text() {
    for (name, tokenizer) in TOKENIZERS.iter() {
        let mut found = 0;
        for id in (0..tokenizer.vocab_size() as u32).step_by(7) {
            let other = tokenizer.id(tokenizer.piece(id).unwrap());
            found += usize::from(other == Some(id));
        }
        // Byte tokens are not texts, and a user-defined token may hide an ordinary one.
        assert!(found * 7 > tokenizer.vocab_size() * 97 / 100, "{name}: {found}");
        assert_eq!((tokenizer.id(b""), tokenizer.id(b"no such token, surely")), (None, None));
    }
    // A byte that is no text alone has its own.
    let spm = tokenizer("llama-spm");
    let byte = spm.id(b"\xff").unwrap();
    assert_eq!((spm.kind(byte), spm.piece(byte).unwrap()), (Some(TokenKind::Byte), &b"\xff"[..]));
    assert_eq!(spm.kind(spm.id(b"a").unwrap()), Some(TokenKind::Normal));
    let tokenizer = tokenizer("smollm2");
    assert_eq!((tokenizer.id(b"<|im_end|>"), tokenizer.id(b" the")), (Some(2), Some(260)));
    let error = tokenizer.piece(49152).unwrap_err();
    assert_eq!((error.fact("token"), error.fact("vocab_size")), (Some("49152"), Some("49152")));
    assert!(tokenizer.decode(&[1, u32::MAX], SHOWN).is_err());
    assert_eq!((tokenizer.kind(49152), tokenizer.is_eog(49152), tokenizer.score(49152)), (None, false, 0.0));
}

/// Each sequence gives a text that contains the one asked for, and every text that contains it has one of them.
#[test]
fn sequences_in_which_a_text_stands() {
    for name in ["llama-spm", "smollm2"] {
        let tokenizer = tokenizer(name);
        for part in ["\n", ":", "\"", "*", "\n\n", "User:", "###"] {
            let sequences = tokenizer.sequences_with(part.as_bytes()).unwrap();
            for sequence in &sequences {
                let text: Vec<u8> = sequence.iter().flat_map(|id| tokenizer.piece(*id).unwrap().to_vec()).collect();
                assert!(text.windows(part.len()).any(|found| found == part.as_bytes()), "{name} {sequence:?}");
            }
            for around in ["a{}b", "one two{} three", "{}\n{}", "({}): x", ".{}"] {
                let tokens = tokenizer.encode(around.replace("{}", part).as_bytes(), EncodeOptions::default()).unwrap();
                let has = |sequence: &Vec<u32>| tokens.windows(sequence.len()).any(|found| found == sequence);
                assert!(sequences.iter().any(has), "{name} {part:?} in {around:?}: {tokens:?}");
            }
        }
        assert!(tokenizer.sequences_with(b"").unwrap().is_empty());
        let long = tokenizer.sequences_with(&[b'x'; 257]).unwrap_err();
        assert_eq!((long.fact("expected"), long.fact("found")), (Some("256"), Some("257")));
    }
}

/// What a decoder gives, put together; checks after each token that exactly an unfinished character is held back.
fn streamed(tokenizer: &Arc<Tokenizer>, tokens: &[u32], show_special: bool) -> Vec<u8> {
    let mut decoder = Decoder::new(tokenizer.clone(), show_special);
    let (mut all, mut text) = (Vec::new(), Vec::new());
    for &token in tokens {
        all.extend(match tokenizer.kind(token) {
            Some(TokenKind::Control | TokenKind::Unknown) if !show_special => &[],
            _ => tokenizer.piece(token).unwrap(),
        });
        text.extend_from_slice(decoder.push(token).unwrap());
        let end = all.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        let unfinished = std::str::from_utf8(end).is_err_and(|e| e.error_len().is_none());
        let held = if unfinished { end.len() } else { 0 };
        assert_eq!(text, all[..all.len() - held], "{tokens:?}");
    }
    text.extend_from_slice(decoder.finish());
    assert!(decoder.finish().is_empty());
    text
}

#[test]
fn a_decoder_holds_back_only_what_may_become_a_character() {
    let tokenizer = tokenizer("llama-spm");
    let byte = |b: u8| {
        (0..300).find(|&id| tokenizer.kind(id) == Some(TokenKind::Byte) && tokenizer.piece(id).unwrap() == [b]).unwrap()
    };
    let mut decoder = Decoder::new(tokenizer.clone(), false);
    let mut push = |b: u8| decoder.push(byte(b)).unwrap().to_vec();
    assert_eq!([push(0xF0), push(0x9F), push(0x98), push(0x80)], [&b""[..], b"", b"", "😀".as_bytes()]);
    // No character begins so: given at once.
    assert_eq!([push(0x80), push(0xFF), push(0xC0)], [[0x80], [0xFF], [0xC0]]);
    // These could have begun one, until the next byte.
    assert_eq!([push(0xE2), push(0x82), push(b'a')], [&b""[..], b"", b"\xE2\x82a"]);
    // A surrogate, an overlong form and a code point beyond the last are no characters at their second byte.
    assert_eq!([push(0xED), push(0xA0)], [&b""[..], b"\xED\xA0"]);
    assert_eq!([push(0xE0), push(0x80)], [&b""[..], b"\xE0\x80"]);
    assert_eq!([push(0xF4), push(0x90)], [&b""[..], b"\xF4\x90"]);
    // One that cannot be and one that may.
    assert_eq!([push(0xE2), push(0xE2), push(0x82), push(0xAC)], [&b""[..], b"\xE2", b"", "€".as_bytes()]);
    assert_eq!(push(0xE2), b"");
    assert!(decoder.push(1 << 20).is_err());
    assert_eq!(decoder.finish(), b"\xE2");
    assert_eq!(decoder.push(byte(0xE2)).unwrap(), b"");
    decoder.reset();
    assert_eq!(decoder.push(byte(b'x')).unwrap(), b"x");
    assert_eq!(decoder.push(2).unwrap(), b"");
}

/// Whether decoding gives back what was encoded: not where the text has U+2581, which SentencePiece uses for spaces,
/// or a byte that the vocabulary lacks (some lack those that UTF-8 hardly uses).
fn round_trips(name: &str, text: &[u8]) -> bool {
    let tokenizer = tokenizer(name);
    match tokenizer.model_name() {
        "llama" => !text.windows(3).any(|w| w == "\u{2581}".as_bytes()),
        _ => text.iter().all(|&byte| !tokenizer.encode(&[byte], PLAIN).unwrap().is_empty()),
    }
}

#[test]
fn bytes_that_a_vocabulary_lacks_give_nothing() {
    let lacking = TOKENIZERS.iter().map(|(name, tokenizer)| {
        let count = (0..=255u8).filter(|&byte| tokenizer.encode(&[byte], PLAIN).unwrap().is_empty()).count();
        (*name, count)
    });
    let lacking: Vec<_> = lacking.filter(|(_, count)| *count > 0).collect();
    assert_eq!(lacking, [("smollm2", 21), ("starcoder", 14), ("deepseek-llm", 13)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_back(text in prop_oneof![
        proptest::string::string_regex("(?s).{0,80}").unwrap(),
        proptest::string::string_regex("[ \t\r\n'a-zA-Z0-9.,!?<>|é中😀\u{0}]{0,120}").unwrap(),
        proptest::string::string_regex("(<s>|</s>|<\\|im_end\\|>|<unk>|<0x0A>|<table>| {1,40}|\n{1,40}|it's|'LL|1234){0,12}").unwrap(),
    ]) {
        for (name, tokenizer) in TOKENIZERS.iter().filter(|(name, _)| round_trips(name, text.as_bytes())) {
            let ids = tokenizer.encode(text.as_bytes(), PLAIN).unwrap();
            let back = tokenizer.decode(&ids, SHOWN).unwrap();
            prop_assert_eq!(&back, text.as_bytes(), "{}", name);
            prop_assert!(ids.iter().all(|&id| !matches!(tokenizer.kind(id), Some(TokenKind::Control | TokenKind::Unknown))));
        }
    }

    #[test]
    fn any_bytes_come_back(text in proptest::collection::vec(any::<u8>(), 0..60)) {
        for (name, tokenizer) in TOKENIZERS.iter().filter(|(name, _)| round_trips(name, &text)) {
            let ids = tokenizer.encode(&text, PLAIN).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids, SHOWN).unwrap(), &text, "{}", name);
        }
    }

    #[test]
    fn a_stream_is_the_pieces_together(name in 0..NAMES.len(), seeds in proptest::collection::vec(any::<u32>(), 0..40)) {
        let tokenizer = &TOKENIZERS[name].1;
        // Half of them from the front, where byte tokens and special tokens are.
        let size = tokenizer.vocab_size() as u32;
        let ids: Vec<u32> = seeds.iter().map(|&seed| seed / 2 % if seed % 2 == 0 { size } else { 300 }).collect();
        let pieces: Vec<&[u8]> = ids.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
        prop_assert_eq!(streamed(tokenizer, &ids, true), pieces.concat());
        streamed(tokenizer, &ids, false);
    }

    #[test]
    fn texts_cut_and_reversed_stream_too(text in ".{0,40}", cut in 0..40usize, name in 0..NAMES.len()) {
        let tokenizer = &TOKENIZERS[name].1;
        let mut ids = tokenizer.encode(text.as_bytes(), PLAIN).unwrap();
        ids.drain(..cut.min(ids.len()));
        for _ in 0..2 {
            let pieces: Vec<&[u8]> = ids.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
            prop_assert_eq!(streamed(tokenizer, &ids, true), pieces.concat());
            ids.reverse();
        }
    }
}
