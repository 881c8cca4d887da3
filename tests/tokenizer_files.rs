//! Tokenizers of small files made here: what is missing or wrong is named, what can be passed over is.

use llm::gguf::Gguf;
use llm::token::{DecodeOptions, Decoder, EncodeOptions, Grammar, TokenKind, Tokenizer};
use llm::{Error, Result};
use std::sync::Arc;

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
    Bytes(Vec<u8>),
}

fn strings(texts: &[&str]) -> Key {
    Key::Strings(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// The bytes of a GGUF of these keys (`tokenizer.ggml.` where they are not `general.`) and no tensors.
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
        let whole = if key.starts_with("general.") { (*key).to_owned() } else { format!("tokenizer.ggml.{key}") };
        string(&mut out, whole.as_bytes());
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
            Key::Bytes(v) => array(&mut out, 0, v, |out, x| out.push(*x)),
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
    assert_eq!(
        t.decode(&[1, 7, 6, 2], DecodeOptions { show_special: true, clean_up_spaces: false }).unwrap(),
        b"<s> aab</s>"
    );
    assert_eq!(t.decode(&[7, 6, 2, 0], DecodeOptions::default()).unwrap(), b"aab");
    let t = load(&spm(), &[("add_space_prefix", Some(Key::Bool(false))), ("add_eos_token", Some(Key::Bool(true)))])
        .unwrap();
    assert_eq!(t.encode(b"ab", added).unwrap(), [1, 6, 2]);
    assert_eq!(t.decode(&[7], DecodeOptions::default()).unwrap(), b" a");
}

/// A piece with a space of its own cannot come of a text, whose spaces are marks.
#[test]
fn pieces_with_spaces_come_of_no_text() {
    let changes = [
        ("tokens", Some(strings(&["<unk>", "<s>", "</s>", "▁", "a", "b", "a b", " a", "▁ b"]))),
        ("token_type", Some(Key::I32s(vec![2, 3, 3, 1, 1, 1, 1, 1, 1]))),
        ("scores", Some(Key::F32s(vec![0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -1.0, -1.0, -1.0]))),
        ("add_space_prefix", Some(Key::Bool(false))),
    ];
    let t = load(&spm(), &changes).unwrap();
    assert_eq!(t.encode(b"a b a  b", PLAIN).unwrap(), [4, 3, 5, 3, 4, 3, 3, 5]);
    assert_eq!(t.piece(8).unwrap(), b"  b");
}

/// As SentencePiece writes them: a mark in a user-defined token is a space of the text.
#[test]
fn marks_in_user_defined_tokens_are_spaces() {
    let changes = [
        ("tokens", Some(strings(&["<unk>", "<s>", "</s>", "▁", "a", "b", "▁▁", "a▁b"]))),
        ("token_type", Some(Key::I32s(vec![2, 3, 3, 1, 1, 1, 4, 4]))),
        ("scores", Some(Key::I32s(vec![0, 0, 0, -9, -9, -9, 0, 0]))),
        ("add_space_prefix", Some(Key::Bool(false))),
    ];
    let t = load(&spm(), &changes).unwrap();
    for (text, ids) in [("b  b", &[5, 6, 5][..]), ("a b", &[7]), ("a   b", &[4, 6, 3, 5]), ("  ", &[6])] {
        assert_eq!(t.encode(text.as_bytes(), PLAIN).unwrap(), ids, "{text}");
        assert_eq!(t.decode(ids, DecodeOptions::default()).unwrap(), text.as_bytes());
    }
    assert_eq!((t.id(b"  "), t.score(3)), (Some(6), -9.0));
}

/// A file need not give types: a byte is found by the text of its token, which is decoded as what it is called.
#[test]
fn tokens_of_bytes_are_found_by_their_text() {
    let types = |types: &[i32]| Some(Key::I32s(types.to_vec()));
    let t = load(&spm(), &[("token_type", None)]).unwrap();
    assert_eq!(t.encode(b"A", PLAIN).unwrap(), [3, 9]);
    assert_eq!((t.piece(9).unwrap(), t.kind(9), t.id(b"A")), (&b"<0x41>"[..], Some(TokenKind::Normal), None));
    assert_eq!(t.encode(b"a<0x41>", PLAIN).unwrap().first(), Some(&7), "what is typed is text");
    assert!(!t.encode(b"a<0x41>", PLAIN).unwrap().contains(&9));
    for kind in [1, 3, 4, 5] {
        let t = load(&spm(), &[("token_type", types(&[2, 3, 3, 1, 1, 1, 1, 1, 1, kind, 4, 3]))]).unwrap();
        assert_eq!(t.encode(b"A", PLAIN).unwrap(), [3, 9], "type {kind}");
    }
    // One that is called a byte is taken first, wherever it stands.
    let tokens = strings(&["<unk>", "<s>", "</s>", "▁", "<0x41>", "<0x41>", "<0x41>"]);
    let changes = |kinds: &[i32]| {
        [("tokens", Some(tokens.clone())), ("token_type", types(kinds)), ("scores", Some(Key::F32s(vec![0.0; 7])))]
    };
    let t = load(&spm(), &changes(&[2, 3, 3, 1, 1, 6, 1])).unwrap();
    assert_eq!((t.encode(b"A", PLAIN).unwrap(), t.piece(5).unwrap(), t.id(b"A")), (vec![3, 5], &b"A"[..], Some(5)));
    // The same where characters are merged; bytes of others have tokens of their own.
    let tokens = strings(&["a", "b", "▁", "ab", "<0xC3>", "<0xA9>"]);
    let merges = ("merges", Some(strings(&["a b"])));
    for (name, ids) in [("gemma4", &[3, 4, 5][..]), ("gpt-2", &[3])] {
        let changes =
            [("pre", Some(Key::Str(name))), ("tokens", Some(tokens.clone())), ("token_type", None), merges.clone()];
        let t = load(&bpe(), &changes).unwrap();
        assert_eq!(t.encode("abé".as_bytes(), PLAIN).unwrap(), ids, "{name}");
    }
}

/// What the file calls unused can come of merging, and gives no text.
#[test]
fn unused_tokens_give_no_text() {
    let unused = [("token_type", Some(Key::I32s(vec![2, 3, 3, 1, 1, 1, 5, 1, 1, 6, 5, 5])))];
    let t = Arc::new(load(&spm(), &unused).unwrap());
    assert_eq!(t.encode(b"bab", PLAIN).unwrap(), [3, 5, 6]);
    assert_eq!((t.id(b"ab"), t.kind(6), t.piece(6).unwrap()), (Some(6), Some(TokenKind::Unused), &b""[..]));
    for show_special in [false, true] {
        let options = DecodeOptions { show_special, clean_up_spaces: false };
        assert_eq!(t.decode(&[3, 5, 6, 10, 4, 11], options).unwrap(), b"ba");
        let mut decoder = Decoder::new(Arc::clone(&t), show_special);
        let streamed = [5, 6, 10, 4, 11].map(|id| decoder.push(id).unwrap().to_vec()).concat();
        assert_eq!(streamed, b"ba");
    }
    // No grammar lets one come.
    let grammar = Grammar::regex(&t, "[a-z]*").unwrap();
    let allowed = grammar.begin().allowed().unwrap();
    assert_eq!([4, 5, 6, 8].map(|id| allowed.contains(id)), [true, true, false, true]);
    // One that ends a generation still does.
    let ends = [unused[0].clone(), ("eos_token_id", Some(Key::U32(6)))];
    let t = load(&spm(), &ends).unwrap();
    assert!(t.is_eog(6) && Grammar::regex(&t, "a?").unwrap().begin().allowed().unwrap().contains(6));
}

#[test]
fn byte_pairs_merge_by_rank() {
    let t = load(&bpe(), &[]).unwrap();
    let ids = |text: &str| t.encode(text.as_bytes(), PLAIN).unwrap();
    assert_eq!(ids("ab ab"), [3, 4]);
    assert_eq!(ids("a b"), [0, 2, 1]);
    assert_eq!(ids("aéb"), [0, 6, 1], "user-defined");
    assert_eq!(ids("xÃ"), [7], "bytes without a token give nothing; Ã is byte C3 in the alphabet");
    assert_eq!(ids("<|x|>"), Vec::<u32>::new());
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

/// The names of `tokenizer.ggml.pre` by whether a beginning-of-sequence token is added where the file does not say,
/// whether the tokenizer's own decoder cleans up spaces, and whether a word that is a token is taken whole.
#[rustfmt::skip]
const NAMES: [(bool, bool, bool, &[&str]); 7] = [
    (
        false,
        true,
        false,
        &[
            "default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "modern-bert",
            "jina-es", "jina-de", "jina-v1-en", "roberta-bpe", "jina-v2-es", "jina-v2-de", "jina-v2-code", "starcoder",
            "refact", "codeshell", "exaone", "minerva-7b", "mellum2", "falcon", "stablelm2", "megrez", "dbrx", "smaug-bpe",
            "chatglm-bpe", "jais-2", "exaone-moe", "bloom", "gpt3-finnish",
        ],
    ),
    (
        false,
        false,
        false,
        &[
            "trillion", "granite-docling", "smollm", "command-r", "qwen2", "deepseek-r1-qwen", "hunyuan", "grok-2",
            "solar-open", "kormo", "f2llmv2", "qwen35", "laguna", "seed-coder", "ufakzeka", "bailingmoe", "bailingmoe2",
            "llada-moe", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "tiny_aya", "cohere2moe", "kimi-k2",
            "deepseek-llm", "deepseek-coder", "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4", "spark2_5", "afmoe",
            "poro-chat", "viking", "superbpe",
        ],
    ),
    (
        true,
        true,
        true,
        &[
            "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        ],
    ),
    (true, false, true, &["tekken"]),
    (true, false, false, &["chameleon"]),
    (false, true, true, &["glm4", "glm5", "minicpm5"]),
    (false, false, true, &["granite-embed-multi-97m", "youtu"]),
];

#[test]
fn what_the_names_of_pre_tokenizers_imply() {
    for (adds_bos, cleans_up, whole_words, names) in NAMES {
        for &name in names {
            let changes = [("pre", Some(Key::Str(name))), ("merges", Some(strings(&["a b"])))];
            let t = load(&bpe(), &changes).unwrap();
            assert_eq!((t.pre(), t.adds_bos(), t.cleans_up_spaces()), (name, adds_bos, cleans_up), "{name}");
            let whole = t.encode(b"Ab ab", PLAIN).unwrap().ends_with(&[4]);
            assert_eq!(whole, whole_words, "{name}: \" ab\" is a token that no merge makes");
        }
    }
    assert_eq!(load(&bpe(), &[("pre", None)]).unwrap().pre(), "default");
    for name in ["rwkv", "plamo2", "none"] {
        let error = load(&bpe(), &[("model", Some(Key::Str(name)))]).err().unwrap();
        assert!(matches!(error, Error::Unsupported(_)) && error.to_string().contains(name), "{error:?}");
    }
}

#[test]
fn characters_are_merged_where_the_name_says_so() {
    let tokens = ["a", "b", "▁", "ab", "▁ab", "<0xC3>", "\n", "\n\n", "<0xA9>"];
    for (name, adds_bos, newlines) in
        [("gemma4", true, [7]), ("granite-embed-multi-311m", true, [7]), ("sarvam-moe", false, [6])]
    {
        let changes = [
            ("pre", Some(Key::Str(name))),
            ("tokens", Some(strings(&tokens))),
            ("token_type", Some(Key::I32s(vec![1, 1, 1, 1, 1, 6, 1, 1, 6]))),
            ("merges", Some(strings(&["a b", "▁ ab"]))),
            ("add_bos_token", Some(Key::Bool(false))),
        ];
        let t = load(&bpe(), &changes).unwrap();
        assert_eq!(t.encode("ab abé".as_bytes(), PLAIN).unwrap(), [3, 4, 5, 8], "{name}");
        assert!(t.encode(b"\n\n", PLAIN).unwrap().starts_with(&newlines), "{name}");
        assert_eq!((t.adds_bos(), t.piece(4).unwrap()), (adds_bos, &b" ab"[..]), "{name}");
    }
}

/// `<pad>`, `</s>` and `<unk>`, then pieces with scores.
fn t5() -> Vec<(&'static str, Key)> {
    let tokens = ["<pad>", "</s>", "<unk>", "▁", "a", "b", "ab", "abb", "bb"];
    vec![
        ("model", Key::Str("t5")),
        ("tokens", strings(&tokens)),
        ("scores", Key::F32s(vec![0.0, 0.0, 0.0, -3.0, -4.0, -4.0, -5.0, -9.5, -3.0])),
        ("token_type", Key::I32s(vec![3, 3, 2, 1, 1, 1, 1, 1, 1])),
    ]
}

#[test]
fn unigrams_have_the_best_sum() {
    let t = load(&t5(), &[]).unwrap();
    let ids = |text: &str| t.encode(text.as_bytes(), PLAIN).unwrap();
    assert_eq!(ids("ab"), [6], "-5 is better than -8");
    assert_eq!(ids("abb"), [4, 8], "-7 is better than -9 and -9.5");
    assert_eq!(ids(" a  b "), [3, 4, 3, 3, 5, 3], "spaces stay unless the file says no");
    assert_eq!(ids("xyaéx"), [2, 4, 2], "unknown characters in a row are one");
    assert_eq!(t.encode(b"a</s>b", SPECIAL).unwrap(), [4, 1, 5]);
    assert_eq!((t.adds_bos(), t.adds_eos(), t.eos(), t.unk(), t.pad()), (false, true, Some(1), Some(2), Some(0)));
    // A token that is less likely than an unknown character would be still counts, and so does one without a score.
    let scores = vec![0.0, 0.0, 0.0, -3.0, f32::NAN, -4.0, f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
    let t = load(&t5(), &[("scores", Some(Key::F32s(scores)))]).unwrap();
    assert_eq!(t.encode(b"a abba", PLAIN).unwrap(), [4, 3, 4, 8, 4]);
    // With spaces in order.
    let spaces = [("add_space_prefix", Some(Key::Bool(true))), ("remove_extra_whitespaces", Some(Key::Bool(true)))];
    let t = load(&t5(), &spaces).unwrap();
    assert_eq!(t.encode(b"  a   b ", PLAIN).unwrap(), [3, 4, 3, 5]);
    assert_eq!((t.encode(b"   ", PLAIN).unwrap(), t.encode(b"", PLAIN).unwrap()), (vec![], vec![]));
    let t = load(&t5(), &spaces[..1]).unwrap();
    assert_eq!(
        (t.encode(b" a ", PLAIN).unwrap(), t.decode(&[3, 4, 5], DecodeOptions::default()).unwrap()),
        (vec![3, 3, 4, 3], b"ab".to_vec())
    );
}

/// Whether the one odd letter is cut off comes out at the end of a text, where it is cut off at its start: nothing is
/// certain before.
#[test]
fn unigrams_wait_until_a_cut_is_certain() {
    let tokens = strings(&["<pad>", "</s>", "<unk>", "a", "aa", "b"]);
    let changes = [("tokens", Some(tokens)), ("scores", Some(Key::F32s(vec![0.0, 0.0, 0.0, -9.0, -1.0, -1.0])))];
    let t = load(&t5(), &changes).unwrap();
    let encode = |text: &str| t.encode(text.as_bytes(), PLAIN).unwrap();
    for pairs in [20_000, 100_000] {
        let mut ids = vec![4; pairs];
        assert_eq!(encode(&"a".repeat(2 * pairs)), ids);
        ids.insert(0, 3);
        assert_eq!(encode(&"a".repeat(2 * pairs + 1)), ids);
    }
    // What nobody knows is one token, however long it is.
    assert_eq!(encode(&format!("b{}b", "x".repeat(100_000))), [5, 2, 5]);
    let words = encode(&"baabxa".repeat(20_000));
    assert_eq!(words, [5, 4, 5, 2, 3].repeat(20_000));
}

/// A map of characters with these nodes and replacements.
fn charsmap(units: &[(usize, u32)], replacements: &[u8]) -> Vec<u8> {
    let mut trie = vec![0u32; 512];
    units.iter().for_each(|&(at, unit)| trie[at] = unit);
    let trie: Vec<u8> = trie.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    [&(trie.len() as u32).to_le_bytes()[..], &trie, replacements].concat()
}

#[test]
fn a_map_of_characters_is_applied_and_may_be_hostile() {
    let with = |map: Vec<u8>| load(&t5(), &[("precompiled_charsmap", Some(Key::Bytes(map)))]);
    let root = 256 << 10;
    let leaf = |at: usize, to: usize, label: u8| ((at ^ to) as u32) << 10 | 1 << 8 | u32::from(label);
    // "A" becomes "b" and "AB" becomes "a".
    let (a, ab) = (256 ^ 0x41, (256 ^ 0x41) ^ (321 ^ 400) ^ 0x42);
    let units = [(0, root), (a, leaf(a, 400, b'A')), (400, 1 << 31), (ab, leaf(ab, 401, b'B')), (401, 1 << 31 | 2)];
    let t = with(charsmap(&units, b"b\0a\0")).unwrap();
    assert_eq!(t.encode(b"AABxAa\xFF", PLAIN).unwrap(), [5, 4, 2, 5, 4, 2]);
    // A node that is its own child, a child beyond the trie, a replacement beyond the end: no harm.
    let own = 256 ^ 0x61;
    let hostile = [
        charsmap(&[(0, root), (own, 0x61 << 10 | 0x61)], b"b\0"),
        charsmap(&[(0, root), (a, 0xFFFF_FE00 | 1 << 8 | 0x41)], b"b\0"),
        charsmap(&[(0, root), (a, leaf(a, 400, b'A')), (400, 1 << 31 | 77)], b"b\0"),
        charsmap(&[(0, u32::MAX)], b""),
    ];
    for map in hostile {
        assert_eq!(with(map).unwrap().encode(&[b'a'; 100_000], PLAIN).unwrap().len(), 100_000);
    }
    assert_eq!(with(vec![]).unwrap().encode(b"a", PLAIN).unwrap(), [4]);
    let long = charsmap(&[], &[&[b'x'; 1000][..], b"\0"].concat());
    for map in [vec![1], vec![9, 0, 0, 0, 1, 2], vec![255; 8], charsmap(&[], b"no end"), long, vec![2, 0, 0, 0, 1, 2]] {
        let error = with(map).err().unwrap();
        assert!(matches!(error, Error::CorruptFile(_)), "{error:?}");
        assert_eq!(error.fact("key"), Some("tokenizer.ggml.precompiled_charsmap"));
    }
    assert!(load(&t5(), &[("precompiled_charsmap", Some(Key::U32s(vec![1])))]).is_err());
}

#[test]
fn tokens_that_fill_in() {
    let tokens = ["a", "<PRE>", "<|fim_suffix|>", "<fim_middle>", "<|file_sep|>", "<|fim_pad|>", "<|repo_name|>", "x"];
    let changes = |more: &[(&'static str, Option<Key>)]| {
        load(&bpe(), &[&[("tokens", Some(strings(&tokens))), ("token_type", None)], more].concat()).unwrap()
    };
    let t = changes(&[]);
    let fill = t.fill_in();
    assert_eq!((fill.prefix, fill.suffix, fill.middle), (Some(1), Some(2), Some(3)));
    assert_eq!((fill.separator, fill.pad, fill.repository), (Some(4), Some(5), Some(6)));
    assert!((1..7).all(|id| t.kind(id) == Some(TokenKind::Control)));
    assert_eq!((0..8).filter(|&id| t.is_eog(id)).collect::<Vec<_>>(), [4, 5, 6]);
    // Keys come first, those of older files too.
    let t = changes(&[("fim_pre_token_id", Some(Key::U32(7))), ("suffix_token_id", Some(Key::U32(0)))]);
    assert_eq!((t.fill_in().prefix, t.fill_in().suffix), (Some(7), Some(0)));
    assert_eq!((t.kind(1), t.kind(3)), (Some(TokenKind::Normal), Some(TokenKind::Control)));
}

#[test]
fn ends_that_are_none_in_some_vocabularies() {
    let ends = |tokens: &[&str]| {
        let t = load(&bpe(), &[("tokens", Some(strings(tokens))), ("token_type", None)]).unwrap();
        (0..tokens.len() as u32).filter(|&id| t.is_eog(id)).collect::<Vec<_>>()
    };
    assert_eq!(ends(&["a", "<|end|>", "<|return|>", "<|call|>"]), [2, 3]);
    assert_eq!(ends(&["a", "<|end|>", "<|flush|>", "<|calls|>"]), [2, 3]);
    assert_eq!(ends(&["a", "<|end|>", "<|return|>"]), [1, 2]);
    assert_eq!(ends(&["a", "</s>", "<|tool_response>"]), [2]);
    assert_eq!(ends(&["a", "</s>"]), [1]);
}

#[test]
fn white_space_before_a_mask() {
    let tokens = ("tokens", Some(strings(&["a", "Ġ", "<mask>"])));
    let types = ("token_type", Some(Key::I32s(vec![1, 1, 3])));
    for (name, expected) in [("jina-v2-de", vec![0, 2, 1, 0]), ("jina-de", vec![0, 1, 1, 2, 1, 0])] {
        let t = load(&bpe(), &[tokens.clone(), types.clone(), ("pre", Some(Key::Str(name)))]).unwrap();
        assert_eq!(t.encode(b"a  <mask> a", SPECIAL).unwrap(), expected, "{name}");
    }
}

/// Tokens of up to a mebibyte, each twice the one before: their number and length must not multiply the time.
#[test]
fn hostile_long_tokens() {
    let powers: Vec<Vec<u8>> = (0..21).map(|n| b"a".repeat(1 << n)).collect();
    let merges = (0..20).map(|n| [&powers[n][..], &powers[n]].join(&b' ')).collect();
    let count = powers.len();
    let changes = |model: &'static str| {
        let scores = (0..count).map(|n| -1.0 - n as f32).collect();
        vec![
            ("model", Some(Key::Str(model))),
            ("tokens", Some(Key::Strings(powers.clone()))),
            ("token_type", None),
            ("scores", Some(Key::F32s(scores))),
            ("merges", Some(Key::Strings(Clone::clone(&merges)))),
        ]
    };
    let text = b"a".repeat(1 << 21);
    for model in ["gpt2", "llama", "gemma4"] {
        let t = load(&bpe(), &changes(model)).unwrap();
        assert_eq!(t.encode(&text, PLAIN).unwrap().len() as u32, 2 + u32::from(model == "llama"), "{model}");
    }
    // Viterbi does not look for tokens of more than 256 bytes.
    let t = load(&bpe(), &changes("t5")).unwrap();
    assert_eq!(t.encode(&text, PLAIN).unwrap(), [8; 1 << 13]);
    // A word of WordPiece has at most 100 characters.
    let t = load(&bpe(), &changes("bert")).unwrap();
    assert_eq!(t.encode(&text, PLAIN).unwrap(), t.unk().as_slice());
    // All of them tokens that are found as a whole, up to 256 bytes.
    let mut changes = changes("gpt2");
    changes[2] = ("token_type", Some(Key::I32s(vec![4; count])));
    assert_eq!(load(&bpe(), &changes).unwrap().encode(&text, PLAIN).unwrap(), [8; 1 << 13]);
}

/// Each byte of a special token takes some dozens of memory.
#[test]
fn special_tokens_beyond_all_measure_are_refused() {
    let load = |bytes: usize| {
        let tokens: Vec<Vec<u8>> = (0..bytes / 256).map(|i| format!("{i:0256}").into_bytes()).collect();
        let types = vec![3; tokens.len()];
        load(&bpe(), &[("tokens", Some(Key::Strings(tokens))), ("token_type", Some(Key::I32s(types)))])
    };
    let error = load((4 << 20) + 256).err().unwrap();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert_eq!(error.fact("found"), Some("4194560"));
    load(4 << 20).unwrap();
}

/// What one token takes of the white space behind it is not looked through again for others.
#[test]
fn white_space_that_is_special_too_is_taken_once() {
    let changes = [
        ("general.name", Some(Key::Str("phi-3"))),
        ("tokens", Some(strings(&["<unk>", "<s>", "</s>", " ", "▁", "a"]))),
        ("scores", Some(Key::F32s(vec![0.0; 6]))),
        ("token_type", Some(Key::I32s(vec![2, 3, 3, 4, 1, 1]))),
    ];
    let t = load(&spm(), &changes).unwrap();
    assert_eq!(t.encode(b"a  </s> \n a", SPECIAL).unwrap(), [4, 5, 3, 2, 4, 5]);
    let spaces = b" ".repeat(2_000_000);
    assert_eq!(t.encode(&spaces, PLAIN).unwrap(), [3]);
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
