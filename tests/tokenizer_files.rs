//! Tokenizers of small files made here: what is missing or wrong is named, what can be passed over is.

use llm::gguf::Gguf;
use llm::token::{DecodeOptions, EncodeOptions, TokenKind, Tokenizer};
use llm::{Error, Result};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

#[derive(Clone)]
enum Key {
    U32(u32),
    Bool(bool),
    Str(&'static str),
    Strings(Vec<Vec<u8>>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    U32s(Vec<u32>),
}

fn strings(texts: &[&str]) -> Key {
    Key::Strings(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// The bytes of a GGUF of these keys (all of them `tokenizer.ggml.`) and no tensors.
fn file(keys: &[(&str, Key)]) -> Vec<u8> {
    fn string(out: &mut Vec<u8>, text: &[u8]) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text);
    }
    fn array<T>(out: &mut Vec<u8>, kind: u32, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
        out.extend([9, kind].map(u32::to_le_bytes).concat());
        out.extend((items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| write(out, item));
    }
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend([0, keys.len() as u64].map(u64::to_le_bytes).concat());
    for (key, value) in keys {
        string(&mut out, format!("tokenizer.ggml.{key}").as_bytes());
        match value {
            Key::U32(v) => out.extend([4, *v].map(u32::to_le_bytes).concat()),
            Key::Bool(v) => out.extend([&7u32.to_le_bytes()[..], &[u8::from(*v)]].concat()),
            Key::Str(v) => {
                out.extend(8u32.to_le_bytes());
                string(&mut out, v.as_bytes());
            }
            Key::Strings(v) => array(&mut out, 8, v, |out, text| string(out, text)),
            Key::F32s(v) => array(&mut out, 6, v, |out, x| out.extend(x.to_le_bytes())),
            Key::I32s(v) => array(&mut out, 5, v, |out, x| out.extend(x.to_le_bytes())),
            Key::U32s(v) => array(&mut out, 4, v, |out, x| out.extend(x.to_le_bytes())),
        }
    }
    out
}

/// A base of keys with some replaced or added, and without those that are `None`.
fn load(base: &[(&'static str, Key)], changes: &[(&'static str, Option<Key>)]) -> Result<Tokenizer> {
    let mut keys: Vec<_> = base.iter().filter(|(key, _)| !changes.iter().any(|(k, _)| k == key)).cloned().collect();
    keys.extend(changes.iter().filter_map(|(key, value)| Some((*key, value.clone()?))));
    Tokenizer::from_gguf(&Gguf::from_bytes(file(&keys)).unwrap())
}

/// Ids 0-2 special, then pieces with scores, then `<0x41>`, a user-defined token and a control token that is a start
/// of it.
fn spm() -> Vec<(&'static str, Key)> {
    let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁a", "bb", "<0x41>", "[user]", "[us"];
    vec![
        ("model", Key::Str("llama")),
        ("tokens", strings(&tokens)),
        ("scores", Key::F32s(vec![0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0, -2.0, 0.0, 0.0, 0.0])),
        ("token_type", Key::I32s(vec![2, 3, 3, 1, 1, 1, 1, 1, 1, 6, 4, 3])),
    ]
}

fn bpe() -> Vec<(&'static str, Key)> {
    vec![
        ("model", Key::Str("gpt2")),
        ("pre", Key::Str("gpt-2")),
        ("tokens", strings(&["a", "b", "Ġ", "ab", "Ġab", "<|x|>", "é", "Ã"])),
        ("token_type", Key::I32s(vec![1, 1, 1, 1, 1, 3, 4, 1])),
        ("merges", strings(&["a b", "Ġ ab"])),
    ]
}

#[test]
fn sentence_piece_merges_by_score() {
    let t = load(&spm(), &[]).unwrap();
    let ids = |text: &str| t.encode(text.as_bytes(), PLAIN).unwrap();
    assert_eq!(ids("ab"), [7, 5], "▁a before ab");
    assert_eq!(ids("bab"), [3, 5, 6]);
    assert_eq!(ids("bbb"), [3, 8, 5], "of equal scores the leftmost");
    assert_eq!(ids("abb"), [7, 8]);
    assert_eq!(ids("Ax"), [3, 9, 0], "a byte token, the unknown token");
    assert_eq!(ids("<s>"), [3, 0, 0, 0], "a control token in the text is text");
    assert_eq!(t.encode(b"<s>a</s>b", SPECIAL).unwrap(), [1, 7, 2, 3, 5]);
    assert_eq!(ids("[user]a"), [10, 7], "a user-defined token is always found");
    assert_eq!(t.encode(b"[user][us]", SPECIAL).unwrap(), [10, 11, 3, 0], "the longest token counts");
    assert_eq!(
        (t.bos(), t.eos(), t.unk(), t.pad(), t.adds_bos(), t.adds_eos()),
        (Some(1), Some(2), Some(0), None, true, false)
    );
    let added = EncodeOptions { add_special: true, parse_special: false };
    assert_eq!(t.encode(b"a", added).unwrap(), [1, 7]);
    assert_eq!(t.encode(b"", added).unwrap(), [1]);
    assert_eq!(t.decode(&[1, 7, 6, 2], DecodeOptions { show_special: true }).unwrap(), b"<s> aab</s>");
    assert_eq!(t.decode(&[7, 6, 2, 0], DecodeOptions { show_special: false }).unwrap(), b"aab");
    let t = load(&spm(), &[("add_space_prefix", Some(Key::Bool(false))), ("add_eos_token", Some(Key::Bool(true)))])
        .unwrap();
    assert_eq!(t.encode(b"ab", added).unwrap(), [1, 6, 2]);
    assert_eq!(t.decode(&[7], DecodeOptions::default()).unwrap(), b" a");
}

#[test]
fn byte_pairs_merge_by_rank() {
    let t = load(&bpe(), &[]).unwrap();
    let ids = |text: &str| t.encode(text.as_bytes(), PLAIN).unwrap();
    assert_eq!(ids("ab ab"), [3, 4]);
    assert_eq!(ids("a b"), [0, 2, 1]);
    assert_eq!(ids("aéb"), [0, 6, 1], "user-defined");
    assert_eq!(ids("xÃ"), [7], "bytes without a token give nothing; Ã is byte C3 in the alphabet");
    assert_eq!(ids("<|x|>"), []);
    assert_eq!(t.encode(b"<|x|>a", SPECIAL).unwrap(), [5, 0]);
    assert_eq!(t.piece(4).unwrap(), b" ab");
    assert_eq!((t.bos(), t.eos(), t.adds_bos(), t.pre(), t.model_name()), (None, None, false, "gpt-2", "gpt2"));
    // Llama 3 takes a whole word that is a token; here nothing merges into it.
    let merges = ("merges", Some(strings(&["a b"])));
    assert_eq!(load(&bpe(), std::slice::from_ref(&merges)).unwrap().encode(b" ab", PLAIN).unwrap(), [2, 3]);
    let t = load(&bpe(), &[merges, ("pre", Some(Key::Str("llama-bpe")))]).unwrap();
    assert_eq!((t.encode(b" ab", PLAIN).unwrap(), t.adds_bos()), (vec![4], true));
}

#[test]
fn what_is_wrong_is_named() {
    let u32s = Some(Key::U32s(vec![1, 2, 3]));
    let short = || (Some(Key::F32s(vec![0.5; 3])), Some(Key::I32s(vec![1; 3])));
    for (base, key, change) in [
        (spm(), "model", None),
        (spm(), "model", Some(Key::U32(3))),
        (spm(), "tokens", None),
        (spm(), "tokens", u32s.clone()),
        (spm(), "tokens", Some(Key::Str("abc"))),
        (spm(), "tokens", Some(Key::Strings(vec![]))),
        (spm(), "scores", short().0),
        (spm(), "scores", u32s.clone()),
        (spm(), "token_type", short().1),
        (spm(), "token_type", short().0),
        (spm(), "bos_token_id", Some(Key::Bool(true))),
        (spm(), "add_bos_token", Some(Key::U32(1))),
        (bpe(), "merges", None),
        (bpe(), "merges", u32s),
        (bpe(), "pre", Some(Key::U32(1))),
    ] {
        let error = load(&base, &[(key, change)]).err().unwrap();
        assert!(matches!(error, Error::CorruptFile(_)), "{key}: {error:?}");
        assert_eq!(error.fact("key"), Some(&*format!("tokenizer.ggml.{key}")), "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    for (base, key) in [(spm(), "model"), (bpe(), "pre")] {
        let error = load(&base, &[(key, Some(Key::Str("nonsense")))]).err().unwrap();
        assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
        assert!(error.to_string().contains("nonsense"), "{error}");
    }
}

#[test]
fn what_can_be_passed_over_is() {
    let ids =
        |base: &[_], changes: &[_], text: &str| load(base, changes).unwrap().encode(text.as_bytes(), SPECIAL).unwrap();
    // Special ids beyond the vocabulary count as not given.
    let changes = [("bos_token_id", Some(Key::U32(999_999))), ("eos_token_id", Some(Key::U32(u32::MAX)))];
    let t = load(&spm(), &changes).unwrap();
    assert_eq!((t.bos(), t.eos()), (Some(1), Some(2)));
    assert_eq!(load(&bpe(), &changes).unwrap().bos(), None);
    // Merges of absent tokens, into absent tokens, without a space, empty, doubled, of bytes that are no text.
    let mut merges: Vec<Vec<u8>> =
        ["x y", "a Ġ", "ab", "", " ", "a ", " a", "中 a", "a b", "Ġ ab", "a b"].map(|m| m.into()).to_vec();
    merges.push(b"\xFF \xFE".to_vec());
    assert_eq!(ids(&bpe(), &[("merges", Some(Key::Strings(merges)))], "ab ab"), [3, 4]);
    // Of equal tokens the first counts; empty ones and ones that are no UTF-8 are just there.
    let tokens = [&b"a"[..], b"b", b"ab", b"ab", b"", b"\xFF\xFE", b"<e>", b"", b"<e>"].map(<[u8]>::to_vec);
    let changes = [
        ("tokens", Some(Key::Strings(tokens.to_vec()))),
        ("token_type", Some(Key::I32s(vec![1, 1, 1, 1, 1, 1, 3, 3, 3]))),
        ("scores", None),
        ("add_space_prefix", Some(Key::Bool(false))),
    ];
    assert_eq!(ids(&bpe(), &changes[..2], "ab<e>"), [2, 6]);
    assert_eq!(ids(&spm(), &changes, "ab<e>\u{FF}"), [2, 6, 0, 0], "here token 0 is the unknown one");
    let t = load(&spm(), &changes).unwrap();
    assert_eq!((t.piece(4).unwrap(), t.piece(5).unwrap(), t.id(b"\xFF\xFE")), (&b""[..], &b"\xFF\xFE"[..], Some(5)));
    // Types that nobody knows are ordinary tokens; scores that are no numbers come last.
    let t =
        load(&spm(), &[("token_type", Some(Key::I32s(vec![-7; 12]))), ("scores", Some(Key::F32s(vec![f32::NAN; 12])))]);
    let t = t.unwrap();
    assert_eq!((t.kind(0), t.kind(2)), (Some(TokenKind::Normal), Some(TokenKind::Control)), "</s> by its text");
    assert_eq!(t.encode(b"abb", PLAIN).unwrap(), [7, 8]);
}

#[test]
fn tokens_that_end_a_generation() {
    let tokens = ["a", "<|im_end|>", "<|im_end|", "<fim_pad>", "<|repo_name|>", "[EOT]", "x"];
    let changes = |more: &[(&'static str, Option<Key>)]| {
        let t = load(&bpe(), &[&[("tokens", Some(strings(&tokens))), ("token_type", None)], more].concat()).unwrap();
        (0..7).filter(|&id| t.is_eog(id)).collect::<Vec<_>>()
    };
    assert_eq!(changes(&[]), [1, 3, 4, 5]);
    assert_eq!(
        changes(&[("eos_token_id", Some(Key::U32(6))), ("fim_pad_token_id", Some(Key::U32(0)))]),
        [0, 1, 4, 5, 6]
    );
    assert_eq!(
        changes(&[("eot_token_id", Some(Key::U32(2))), ("eom_token_id", Some(Key::U32(6)))]),
        [1, 2, 3, 4, 5, 6]
    );
}

#[test]
fn all_tables_of_pre_tokenizers_can_be_loaded() {
    for pre in
        ["default", "gpt-2", "smollm", "starcoder", "refact", "qwen2", "llama-bpe", "llama3", "dbrx", "deepseek-llm"]
    {
        assert_eq!(load(&bpe(), &[("pre", Some(Key::Str(pre)))]).unwrap().pre(), pre);
    }
    assert_eq!(load(&bpe(), &[("pre", None)]).unwrap().pre(), "default");
}

/// A file whose tokens are all the powers of a letter, and texts of that letter, stay linear.
#[test]
fn hostile_special_tokens_do_not_slow_a_text_down() {
    let mut tokens: Vec<Vec<u8>> = vec![b"a".to_vec()];
    // Each is a start of the text that fails at its end: trying them one by one would take 4e10 steps.
    tokens.extend((0..200).map(|n| [&b"a".repeat(100 * (n + 1))[..], b"!"].concat()));
    let types = (0..tokens.len()).map(|i| if i == 0 { 1 } else { 4 }).collect();
    let t = load(&bpe(), &[("tokens", Some(Key::Strings(tokens))), ("token_type", Some(Key::I32s(types)))]).unwrap();
    assert_eq!(t.encode(&b"a".repeat(2_000_000), PLAIN).unwrap().len(), 2_000_000);
}
