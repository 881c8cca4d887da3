//! Constrained output: what a grammar lets through is what it describes, all of it and nothing else.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use llm::generate::{
    Engine, EngineOptions, FinishReason, GenerateOptions, Request, Session, SessionOptions, Speculation,
};
use llm::gguf::Gguf;
use llm::model::{CacheOptions, Model};
use llm::sample::{Callback, CandidateLogit, Params, Sampler, Step};
use llm::token::{DecodeOptions, EncodeOptions, Grammar, Matcher, TokenKind, Tokenizer};
use llm::{Error, Threads};
use serde_json::{Value, json};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// A model whose tokens are the bytes.
fn tiny() -> Arc<Model> {
    common::load(&Gguf::open(&common::data("programs/tiny.gguf")).unwrap())
}

/// Every way to cut text into tokens: bytes, merges with scores, merges of bytes, pieces with probabilities.
fn tokenizers() -> Vec<Arc<Tokenizer>> {
    let mut all = vec![Arc::clone(tiny().tokenizer())];
    all.push(Arc::new(Tokenizer::open(&common::real_model(common::GEMMA3)).unwrap()));
    all.push(Arc::new(Tokenizer::open(&common::real_model(common::SMOLLM2)).unwrap()));
    all.push(Arc::new(common::trained("unigram-bytes")));
    all
}

fn ends(tokenizer: &Tokenizer) -> Vec<u32> {
    (0..tokenizer.vocab_size() as u32).filter(|&token| tokenizer.is_eog(token)).collect()
}

/// True if the text may end: some ending tokens are allowed, and then all of them are.
fn may_end(tokenizer: &Tokenizer, text: &mut Matcher) -> bool {
    if text.is_complete() {
        return true;
    }
    let allowed = text.allowed().unwrap();
    let ends = ends(tokenizer);
    let count = ends.iter().filter(|&&token| allowed.contains(token)).count();
    assert!(count == 0 || count == ends.len(), "{count} of {} ends", ends.len());
    count > 0
}

/// The tokens that are text, by their bytes.
struct Pieces<'a>(&'a Tokenizer, HashMap<&'a [u8], u32>);

impl Pieces<'_> {
    fn of(tokenizer: &Tokenizer) -> Pieces<'_> {
        let text = |token: &u32| {
            matches!(tokenizer.kind(*token), Some(TokenKind::Normal | TokenKind::Byte | TokenKind::UserDefined))
                && !tokenizer.is_eog(*token)
        };
        let tokens = (0..tokenizer.vocab_size() as u32).filter(text);
        Pieces(tokenizer, tokens.map(|token| (tokenizer.piece(token).unwrap(), token)).collect())
    }

    fn token(&self, piece: &[u8]) -> u32 {
        self.1[piece]
    }

    /// How many bytes of `bytes` the grammar lets through in tokens of up to `longest` bytes, and whether the text may
    /// end then.
    fn let_through(&self, grammar: &Grammar, bytes: &[u8], longest: usize) -> (usize, bool) {
        let mut text = grammar.begin();
        let mut length = 0;
        while length < bytes.len() {
            let rest = &bytes[length..];
            let n = (1..=longest.min(rest.len())).rev().find(|&n| self.1.contains_key(&rest[..n])).expect("a byte");
            let token = self.1[&rest[..n]];
            if text.is_complete() || !text.allowed().unwrap().contains(token) {
                if !text.is_complete() {
                    assert!(matches!(text.accept(token), Err(Error::InvalidArgument(_))));
                }
                return (length, false);
            }
            text.accept(token).unwrap();
            length += n;
        }
        (length, may_end(self.0, &mut text))
    }
}

/// A text of the grammar, in which each token is one of those that are allowed.
fn walk(tokenizer: &Tokenizer, grammar: &Grammar, random: &mut Random) -> Vec<u8> {
    let mut text = grammar.begin();
    let mut tokens = Vec::new();
    while !text.is_complete() {
        if random.below(2) == 0 {
            text.look_ahead();
        }
        let allowed = text.allowed().unwrap();
        let all: Vec<u32> = (0..tokenizer.vocab_size() as u32 + 100).filter(|&token| allowed.contains(token)).collect();
        let token = all[random.below(all.len())];
        text.accept(token).unwrap();
        if tokenizer.is_eog(token) {
            break;
        }
        tokens.push(token);
        assert!(tokens.len() < 5000, "no end: {}", shown(tokenizer, &tokens));
    }
    shown(tokenizer, &tokens).into_bytes()
}

/// The text of tokens, special ones shown.
fn shown(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.piece(token).unwrap()).copied().collect();
    String::from_utf8(bytes).unwrap()
}

/// Objects in arrays in objects, with everything limited: the longest value has below 1,500 bytes.
fn schema() -> Value {
    json!({
        "$defs": { "point": { "type": "array", "items": { "type": "integer", "minimum": -99, "maximum": 250 },
                              "minItems": 2, "maxItems": 3 } },
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "kind": { "enum": ["line", "area", null, 7] },
            "exact": { "type": "boolean" },
            "corners": { "type": "array", "minItems": 1, "maxItems": 4, "items": {
                "type": "object",
                "properties": {
                    "at": { "$ref": "#/$defs/point" },
                    "tag": { "type": "string", "pattern": "^[a-z]{2,4}(-[0-9]+)?$", "maxLength": 8 }
                },
                "required": ["at"], "additionalProperties": false
            } }
        },
        "required": ["name", "kind", "corners"], "additionalProperties": false
    })
}

#[test]
fn values_fit_their_schema() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    // That it would be seen.
    assert!(!validator.is_valid(&json!({ "name": "a", "kind": "line", "corners": [] })));
    for (i, tokenizer) in tokenizers().iter().enumerate() {
        let grammar = Grammar::json_schema(tokenizer, &schema.to_string()).unwrap();
        let mut random = Random(i as u64);
        let mut seen = BTreeMap::new();
        for _ in 0..if i == 0 { 60 } else { 15 } {
            let text = walk(tokenizer, &grammar, &mut random);
            let value: Value = serde_json::from_slice(&text).unwrap();
            assert!(validator.is_valid(&value), "{value}");
            *seen.entry(value["corners"].as_array().unwrap().len()).or_insert(0) += 1;
        }
        assert!(seen.len() > 1, "{seen:?}");
    }
}

#[test]
fn all_texts_of_a_language_and_no_others() {
    let schema = schema().to_string();
    type Make = fn(&Tokenizer, &str) -> llm::Result<Grammar>;
    let json: Make = Grammar::json_schema;
    // How it is made, from what, texts of the language, and others with the bytes that may be let through.
    type Case<'a> = (Make, &'a str, &'a [&'a str], &'a [(&'a str, usize)]);
    let cases: &[Case<'_>] = &[
        (
            Grammar::regex,
            "[a-c]{3,5}|é+",
            &["abc", "abcab", "é", "ééé"],
            &[("ab", 2), ("abcabc", 5), ("abd", 2), ("a é", 1)],
        ),
        (Grammar::regex, r"\d+(\.\d{2})?", &["7", "12345", "3.14"], &[("3.1", 3), ("3.141", 4), (".5", 0), ("", 0)]),
        (Grammar::regex, "(?i)yes|no", &["yes", "YES", "nO"], &[("yess", 3), ("yno", 1)]),
        (
            Grammar::lark,
            "start: expression\nexpression: term ((\"+\" | \"-\") term)*\nterm: /[0-9]+/ | \"(\" expression \")\"",
            &["1", "1+2-33", "((4)-(5+6))"],
            &[("(1", 2), ("1+", 2), ("1)", 1), ("()", 1)],
        ),
        (Grammar::lark, "start: \"a\" start \"b\" | \"c\"", &["c", "acb", "aaaacbbbb"], &[("acbb", 3), ("ab", 1)]),
        (
            Grammar::lark,
            "start: %json {\"type\": \"boolean\"} \"!\"",
            &["true!", "false!"],
            &[("true", 4), ("null!", 0)],
        ),
        (
            json,
            &schema,
            &[
                r#"{"name": "a b", "kind": null, "corners": [{"at": [1, -99]}]}"#,
                r#"{"name": "\"é\n", "kind": 7, "exact": true, "corners": [{"at": [0, 250, 9], "tag": "ab-12"}, {"at": [1, 2]}]}"#,
            ],
            &[
                (r#"{"name": "a b", "kind": null, "corners": []}"#, 42),
                (r#"{"kind": null}"#, 2),
                (r#"{"name": "0123456789abc""#, 22),
                (r#"{"name": "a", "kind": 7, "corners": [{"at": [251, 1]}]}"#, 47),
                (r#"{ "name""#, 1),
            ],
        ),
        (
            json,
            r##"{"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": false}"##,
            &["{}", r#"{"next": {"next": {}}}"#],
            &[(r#"{"next": 1}"#, 9)],
        ),
        (json, r#"{"const": "x"}"#, &[r#""x""#], &[(r#""y""#, 1)]),
        (json, "true", &["1", r#"{"a": [null, {"b": "c"}]}"#], &[("nil", 1)]),
    ];
    for tokenizer in &tokenizers() {
        let pieces = Pieces::of(tokenizer);
        for (make, grammar, good, bad) in cases {
            let made = make(tokenizer, grammar).unwrap();
            for (text, longest) in good.iter().flat_map(|text| [(text, 1), (text, 3), (text, 20)]) {
                let found = pieces.let_through(&made, text.as_bytes(), longest);
                assert_eq!(found, (text.len(), true), "{grammar}: {text}");
            }
            for (text, length) in *bad {
                assert_eq!(pieces.let_through(&made, text.as_bytes(), 1), (*length, false), "{grammar}: {text}");
                let (found, ends) = pieces.let_through(&made, text.as_bytes(), 20);
                assert!(!ends && found <= *length, "{grammar}: {text}: {found}");
            }
        }
    }
}

/// Of all tokens, those that are allowed are those with which a text of the language begins or goes on.
#[test]
fn every_token_is_judged() {
    for tokenizer in &tokenizers() {
        let grammar = Grammar::regex(tokenizer, "[a-z ]{1,6}").unwrap();
        let pieces = Pieces::of(tokenizer);
        let (one, two) = (pieces.token(b"q"), pieces.token(b"u"));
        let mut text = grammar.begin();
        for used in 0..=6 {
            if used == 6 {
                assert!(text.is_complete());
                assert!(matches!(text.allowed(), Err(Error::FailedPrecondition(_))));
                assert!(matches!(text.accept(one), Err(Error::FailedPrecondition(_))));
                break;
            }
            let allowed = text.allowed().unwrap();
            let mut count = 0;
            for token in 0..tokenizer.vocab_size() as u32 {
                let piece = tokenizer.piece(token).unwrap();
                let fits = (1..=6 - used).contains(&piece.len())
                    && piece.iter().all(|b| b" abcdefghijklmnopqrstuvwxyz".contains(b));
                let special = TokenKind::Control;
                let expected = if tokenizer.is_eog(token) {
                    used > 0
                } else {
                    fits && tokenizer.kind(token) != Some(special) && tokenizer.kind(token) != Some(TokenKind::Unused)
                };
                assert_eq!(allowed.contains(token), expected, "{used}: {token} {:?}", String::from_utf8_lossy(piece));
                count += usize::from(expected);
            }
            assert!(count > 20);
            assert!(!allowed.contains(u32::MAX) && !allowed.contains(tokenizer.vocab_size() as u32));
            text.accept(if used % 2 == 0 { one } else { two }).unwrap();
        }
    }
}

/// The names of special tokens are no text, and special tokens come only where a grammar names them.
#[test]
fn special_tokens_are_no_text() {
    let tokenizer = Arc::new(Tokenizer::open(&common::real_model(common::SMOLLM2)).unwrap());
    let special = tokenizer.id(b"<|im_start|>").unwrap();
    let any = Grammar::regex(&tokenizer, "(?s:.*)").unwrap();
    let allowed = any.begin().allowed().unwrap();
    assert!(!allowed.contains(special) && allowed.contains(tokenizer.eos().unwrap()));
    let named = Grammar::lark(&tokenizer, "start: \"a\" <|im_start|> \"b\"").unwrap();
    let mut text = named.begin();
    text.accept(tokenizer.id(b"a").unwrap()).unwrap();
    assert!(text.allowed().unwrap().contains(special));
    assert!(!text.allowed().unwrap().contains(tokenizer.id(b"<").unwrap()));
    text.accept(special).unwrap();
    text.accept(tokenizer.id(b"b").unwrap()).unwrap();
    assert!(text.is_complete());
}

#[test]
fn wrong_grammars_are_told() {
    let tokenizer = Arc::clone(tiny().tokenizer());
    let references: String = (0..1800).map(|i| format!("\"d{i}\": {{\"$ref\": \"#/$defs/d{}\"}},", i + 1)).collect();
    let references = format!("{{\"$defs\": {{{references} \"d1800\": {{\"const\": 1}}}}, \"$ref\": \"#/$defs/d0\"}}");
    // Rules that are deep are no problem, and not the stack's.
    let grammar = Grammar::json_schema(&tokenizer, &references).unwrap();
    assert_eq!(Pieces::of(&tokenizer).let_through(&grammar, b"1", 1), (1, true));
    let many = |key: &str, n: usize, more: &str| {
        let keys: String = (0..n).map(|i| format!("\"^a{i}$\": true,")).collect();
        format!("{{\"type\": \"object\", {more} \"{key}\": {{{keys} \"^z$\": true}}}}").replace(", \"^z$\": true", "")
    };
    assert!(Grammar::json_schema(&tokenizer, &many("properties", 500, "")).is_ok());
    assert!(
        Grammar::json_schema(
            &tokenizer,
            &many("properties", 50, "\"additionalProperties\": false, \"minProperties\": 1,")
        )
        .is_ok()
    );
    // What is deep shows as a text goes on: behind its first token, and in a thread with a small stack.
    let deep = |i: usize| format!("\nA{i:04}: \"a\" A{:04} | \"b\"", i + 1);
    let deep: String = (0..2800).map(deep).collect();
    let deep = format!("start: \"x\" T\nT: /(?s:.*)/ & ~A0000{deep}\nA2800: \"a\"");
    let shared = Arc::clone(&tokenizer);
    let behind = move || {
        let pieces = Pieces::of(&shared);
        let mut text = Grammar::lark(&shared, &deep).unwrap().begin();
        for byte in b"xab" {
            text.accept(pieces.token(&[*byte])).unwrap();
        }
        text.allowed().unwrap();
    };
    std::thread::Builder::new().stack_size(1 << 18).spawn(behind).unwrap().join().unwrap();
    let small = std::thread::Builder::new().stack_size(1 << 18);
    let shared = Arc::clone(&tokenizer);
    let chain = format!(
        "{}R3000: \"a\"\nstart: R0\n",
        (0..3000).map(|i| format!("R{i}: (\"a\" R{})*\n", i + 1)).collect::<String>()
    );
    small
        .spawn(move || assert!(Grammar::lark(&shared, &chain).unwrap().begin().allowed().is_ok()))
        .unwrap()
        .join()
        .unwrap();
    for (wrong, expected) in [
        (Grammar::json_schema(&tokenizer, "{"), "JSON"),
        (Grammar::json_schema(&tokenizer, "{\"type\": \"strin\"}"), "strin"),
        (Grammar::json_schema(&tokenizer, "{\"if\": {}, \"then\": false}"), "if"),
        (Grammar::json_schema(&tokenizer, "{\"$ref\": \"http://example.com/a.json\"}"), "ref"),
        (Grammar::json_schema(&tokenizer, "{\"$ref\": \"#\"}"), "no token"),
        (Grammar::json_schema(&tokenizer, "false"), "schema"),
        (Grammar::json_schema(&tokenizer, &format!("{}1{}", "[".repeat(5000), "]".repeat(5000))), "recursion"),
        (Grammar::regex(&tokenizer, "a(b"), "regular expression"),
        (Grammar::regex(&tokenizer, &format!("{}a{}", "(".repeat(9000), ")".repeat(9000))), "regular expression"),
        (Grammar::lark(&tokenizer, "start: other"), "other"),
        (Grammar::lark(&tokenizer, "start: start"), "no token"),
        (Grammar::lark(&tokenizer, &format!("start: {}\"a\"{}", "(".repeat(9000), ")".repeat(9000))), "nested"),
        (Grammar::lark(&tokenizer, &format!("start: \"a\" // {}", "x".repeat(1 << 16))), "65536"),
        (Grammar::lark(&tokenizer, ""), "grammar"),
        (Grammar::json_schema(&tokenizer, &many("properties", 501, "")), "501 properties"),
        (Grammar::json_schema(&tokenizer, &many("properties", 51, "\"minProperties\": 1,")), "51 properties"),
        (Grammar::json_schema(&tokenizer, &many("patternProperties", 33, "")), "33 patternProperties"),
        (
            Grammar::lark(&tokenizer, &format!("start: \"%json\" %json {}", many("properties", 501, ""))),
            "501 properties",
        ),
        (Grammar::json_schema(&tokenizer, "[{\"items\": {\"multipleOf\": 4294967297}}]"), "multipleOf"),
    ] {
        let Err(Error::InvalidArgument(detail)) = wrong else { panic!("{expected}: no error") };
        let message = detail.message();
        assert!(message.to_lowercase().contains(&expected.to_lowercase()), "{expected}: {message}");
        assert!(message.len() < 500 && !message.contains('\n'), "{message}");
    }
}

/// What the vocabulary has no token for: the error comes where it is known, and stays.
#[test]
fn a_vocabulary_may_lack_tokens() {
    // Its pieces are words of a text in lower case, without a token for the digits.
    let tokenizer = Arc::new(common::trained("bert"));
    let missing = (0..=255u8).find(|b| b.is_ascii_punctuation() && tokenizer.id(&[*b]).is_none());
    let Some(missing) = missing else { panic!("the vocabulary has everything") };
    let pattern = format!("a\\x{missing:02x}");
    match Grammar::regex(&tokenizer, &pattern).map(|grammar| grammar.begin()) {
        Err(e) => assert!(matches!(e, Error::InvalidArgument(_)), "{e}"),
        Ok(mut text) => {
            text.accept(tokenizer.id(b"a").unwrap()).unwrap();
            for _ in 0..2 {
                assert!(matches!(text.allowed(), Err(Error::InvalidArgument(_))));
            }
        }
    }
}

fn session(model: &Arc<Model>) -> Session {
    let cache = CacheOptions { context_length: 2048, ..CacheOptions::default() };
    let threads = Some(Threads::new(2));
    Session::new(Arc::clone(model), &SessionOptions { cache, threads, ..SessionOptions::default() }).unwrap()
}

fn sampler(seed: u64) -> Sampler {
    Sampler::usual(&Params { seed, temperature: 3.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Params::default() }).unwrap()
}

type Output = (Vec<u32>, Vec<u8>, FinishReason);

fn generate(session: &mut Session, sampler: &mut Sampler) -> Output {
    let (mut tokens, mut text) = (Vec::new(), Vec::new());
    let finish = session.generate(sampler, |next| {
        tokens.extend(next.token);
        text.extend_from_slice(next.text);
        ControlFlow::Continue(())
    });
    (tokens, text, finish.unwrap())
}

const PROMPT: [u32; 5] = [1, 70, 80, 90, 100];

#[test]
fn a_session_keeps_to_its_grammar() {
    let (model, schema) = (tiny(), schema());
    let validator = jsonschema::validator_for(&schema).unwrap();
    let json = Arc::new(Grammar::json_schema(model.tokenizer(), &schema.to_string()).unwrap());
    let open = Arc::new(Grammar::regex(model.tokenizer(), "[ab]+").unwrap());
    let mut session = session(&model);
    session.append(&PROMPT).unwrap();
    session.set_grammar(Some(Arc::clone(&json))).unwrap();
    let mut first = Vec::new();
    for seed in 0..12 {
        session.truncate(PROMPT.len()).unwrap();
        session.start(GenerateOptions { ignore_eog: seed % 2 == 0, ..GenerateOptions::default() });
        let (tokens, text, finish) = generate(&mut session, &mut sampler(seed));
        assert_eq!(finish, FinishReason::Grammar);
        assert!(validator.is_valid(&serde_json::from_slice(&text).unwrap()));
        assert_eq!(session.tokens()[PROMPT.len()..], tokens);
        first.push((tokens, text, finish));
    }
    // The same again, guessed ahead; then in forks, which inherit the grammar, each at its beginning.
    session.set_speculation(Speculation::Lookup { most: 4 }).unwrap();
    for (seed, expected) in (0..).zip(&first) {
        session.truncate(PROMPT.len()).unwrap();
        session.start(GenerateOptions { ignore_eog: seed % 2 == 0, ..GenerateOptions::default() });
        if seed % 3 == 0 {
            session.next(&mut sampler(seed)).unwrap();
            let mut fork = session.fork().unwrap();
            fork.truncate(PROMPT.len()).unwrap();
            fork.start(GenerateOptions::default());
            assert_eq!(generate(&mut fork, &mut sampler(seed)), *expected);
            session.truncate(PROMPT.len()).unwrap();
            session.start(GenerateOptions::default());
        }
        assert_eq!(generate(&mut session, &mut sampler(seed)), *expected);
    }
    session.set_speculation(Speculation::Off).unwrap();
    // One that may always go on: the model ends it, also if it was to ignore that, and the end is no token of the text.
    session.set_grammar(Some(open)).unwrap();
    for ignore_eog in [false, true] {
        session.start(GenerateOptions { ignore_eog, ..GenerateOptions::default() });
        let length = session.tokens().len();
        let (tokens, text, finish) = generate(&mut session, &mut sampler(5));
        assert_eq!(finish, FinishReason::Eog);
        assert!(!text.is_empty() && text.iter().all(|b| b"ab".contains(b)));
        assert_eq!(session.tokens()[length..], tokens[..tokens.len() - 1]);
    }
    // What is appended begins another generation, and another text; a limit leaves the beginning of one.
    session.set_grammar(Some(json)).unwrap();
    session.start(GenerateOptions { max_tokens: 3, ..GenerateOptions::default() });
    let (_, text, finish) = generate(&mut session, &mut sampler(1));
    assert_eq!((&text[..], finish), (&b"{\"n"[..], FinishReason::Length));
    session.append(&PROMPT).unwrap();
    let (_, text, _) = generate(&mut session, &mut sampler(1));
    assert_eq!(text, b"{\"n");
    // Without it, anything.
    session.set_grammar(None).unwrap();
    session.start(GenerateOptions { max_tokens: 3, ignore_eog: true });
    assert_ne!(generate(&mut session, &mut sampler(1)).1, b"{\"n");
}

/// The log probabilities are the model's, and one that the grammar excludes is not chosen.
#[test]
fn logprobs_are_of_all_tokens() {
    let model = tiny();
    let mut session = session(&model);
    session.append(&PROMPT).unwrap();
    let (_, before) = {
        session.start(GenerateOptions::default());
        session.next(&mut sampler(0)).unwrap();
        session.logprobs(10).unwrap()
    };
    session.truncate(PROMPT.len()).unwrap();
    let grammar = Grammar::regex(model.tokenizer(), "[xyz]").unwrap();
    session.set_grammar(Some(Arc::new(grammar))).unwrap();
    session.start(GenerateOptions::default());
    session.next(&mut sampler(0)).unwrap();
    let (chosen, after) = session.logprobs(10).unwrap();
    assert_eq!(before, after);
    assert!(b"xyz".contains(&model.tokenizer().piece(chosen.id).unwrap()[0]) && chosen.logprob < 0.0);
}

#[test]
fn what_cannot_be_kept_to_is_an_error() {
    let model = tiny();
    let mut session = session(&model);
    let other = Grammar::regex(&common::trained("unigram"), "a").unwrap();
    assert!(matches!(session.set_grammar(Some(Arc::new(other))), Err(Error::InvalidArgument(_))));
    session.append(&PROMPT).unwrap();
    let grammar = Grammar::regex(model.tokenizer(), "(ab){3}").unwrap();
    session.set_grammar(Some(Arc::new(grammar))).unwrap();
    session.start(GenerateOptions::default());
    // A step that takes one token, whatever may come.
    let pieces = Pieces::of(model.tokenizer());
    let z = pieces.token(b"z");
    let mut stubborn = Sampler::new(0);
    stubborn.push(Step::LogitBias(vec![(z, 1e30)].into())).unwrap();
    session.next(&mut sampler(0)).unwrap();
    // A bias moves no token that is excluded.
    let next = session.next(&mut stubborn).unwrap();
    assert_eq!(next.text, b"b");
    let length = session.tokens().len();
    // A callback can take one; the generation is as it was.
    // Nor does the text end where it may not.
    for token in [z, ends(model.tokenizer())[0]] {
        let take = move |all: &mut [CandidateLogit]| all.iter_mut().for_each(|c| c.logit = f32::from(c.id == token));
        let mut banned = Sampler::new(0);
        banned.push(Step::Callback(Callback::new(take))).unwrap();
        banned.push(Step::TopK(1)).unwrap();
        let failed = session.next(&mut banned).map(|next| (next.token, next.finish));
        assert!(matches!(failed, Err(Error::InvalidArgument(_))), "{failed:?}");
        assert_eq!(session.tokens().len(), length);
    }
    let (_, text, finish) = generate(&mut session, &mut sampler(0));
    assert_eq!((&text[..], finish), (&b"abab"[..], FinishReason::Grammar));
}

/// The end of a continuation that fails has no text: what came before has been given.
#[test]
fn an_event_with_an_error_has_no_text() {
    let model = tiny();
    let z = Pieces::of(model.tokenizer()).token(b"z");
    let calls = AtomicUsize::new(0);
    let then_z = move |all: &mut [CandidateLogit]| {
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            all.iter_mut().for_each(|c| c.logit = f32::from(c.id == z));
        }
    };
    let mut sampler = Sampler::new(0);
    sampler.push(Step::Callback(Callback::new(then_z))).unwrap();
    sampler.push(Step::TopK(1)).unwrap();
    let grammar = Some(Arc::new(Grammar::regex(model.tokenizer(), "(ab){3}").unwrap()));
    let engine = Engine::new(Arc::clone(&model), &EngineOptions::default()).unwrap();
    engine.submit(Request { grammar, ..Request::new(vec![65, 66], sampler) }).unwrap();
    let mut events = Vec::new();
    while engine.poll(Duration::ZERO, &mut events).unwrap() {}
    let texts: Vec<&[u8]> = events.iter().map(|event| &*event.text).collect();
    assert_eq!(texts, [&b"a"[..], b""]);
    assert!(matches!(events[1].outcome, Some(Err(_))), "{events:?}");
}

/// Requests with grammars of their own, beside each other and with few pages, give what each gives alone.
#[test]
fn an_engine_keeps_to_each_request_its_grammar() {
    let model = tiny();
    let schema = schema().to_string();
    let grammars = [
        None,
        Some(Arc::new(Grammar::json_schema(model.tokenizer(), &schema).unwrap())),
        Some(Arc::new(Grammar::regex(model.tokenizer(), "(yes|no)( (yes|no)){5,9}").unwrap())),
    ];
    let mut cache =
        CacheOptions { kind: llm::cache::CacheKind::Paged, context_length: 1024, ..CacheOptions::default() };
    cache.page_size = 16;
    let options =
        EngineOptions { cache, max_pages: 30, max_batch: 4, threads: Some(Threads::new(2)), ..Default::default() };
    let engine = Engine::new(Arc::clone(&model), &options).unwrap();
    let limit = GenerateOptions { max_tokens: 160, ignore_eog: true };
    let mut expected = BTreeMap::new();
    for i in 0..6 {
        let grammar = grammars[i % 3].clone();
        let request = Request::new(PROMPT.to_vec(), sampler(i as u64));
        let id = engine.submit(Request { options: limit, grammar: grammar.clone(), count: 2, ..request }).unwrap();
        for index in 0..2 {
            let mut session = session(&model);
            session.append(&PROMPT).unwrap();
            session.set_grammar(grammar.clone()).unwrap();
            session.start(limit);
            expected.insert((id, index), generate(&mut session, &mut sampler(i as u64 + index as u64)));
        }
    }
    let other = Grammar::regex(&common::trained("unigram"), "a").unwrap();
    let request = Request::new(PROMPT.to_vec(), sampler(0));
    let refused = engine.submit(Request { grammar: Some(Arc::new(other)), ..request });
    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    let mut found: BTreeMap<(u64, usize), Output> = BTreeMap::new();
    let (mut events, mut more) = (Vec::new(), true);
    while more {
        more = engine.wait(Duration::from_secs(60), &mut events).unwrap();
        assert!(!events.is_empty());
        for event in events.drain(..) {
            let empty = || (Vec::new(), Vec::new(), FinishReason::Aborted);
            let output = found.entry((event.request, event.index)).or_insert_with(empty);
            output.0.extend(event.token);
            output.1.extend(event.text);
            if let Some(outcome) = event.outcome {
                output.2 = outcome.unwrap();
            }
        }
    }
    assert!(engine.stats().preemptions > 0);
    assert_eq!(found, expected);
    assert!(expected.values().any(|output| output.2 == FinishReason::Grammar));
    assert!(expected.values().any(|output| output.2 == FinishReason::Length));
}

/// Whoever waits for a grammar lets the others of a batch choose, though they came later.
#[test]
fn a_slow_grammar_stops_no_other() {
    let model = tiny();
    // Each token leads to a place where nobody was, with all these words going on: milliseconds, the model takes less.
    let words = (100..200).map(|i| format!("[a-z]*[aeiou][a-z]{{{i}}}!")).collect::<Vec<_>>().join("|");
    let slow = Arc::new(Grammar::regex(model.tokenizer(), &words).unwrap());
    let options = EngineOptions { threads: Some(Threads::new(1)), ..EngineOptions::default() };
    let engine = Engine::new(Arc::clone(&model), &options).unwrap();
    for grammar in [Some(slow), None] {
        let request = Request::new(PROMPT.to_vec(), sampler(1));
        let options = GenerateOptions { max_tokens: 40, ignore_eog: true };
        engine.submit(Request { options, grammar, ..request }).unwrap();
    }
    let (mut events, mut order, mut more) = (Vec::new(), Vec::new(), true);
    while more {
        more = engine.poll(Duration::ZERO, &mut events).unwrap();
        order.extend(events.drain(..).filter(|event| event.token.is_some()).map(|event| event.request));
    }
    assert_eq!(order.len(), 80);
    let overtakes = order.chunks(2).filter(|step| step[0] == 2).count();
    assert!(overtakes > 0, "{order:?}");
}

/// The text of a decoder is that which the grammar saw.
#[test]
fn text_is_what_the_grammar_saw() {
    let model = common::load_real(common::SMOLLM2);
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let grammar = Arc::new(Grammar::json_schema(model.tokenizer(), &schema.to_string()).unwrap());
    let mut session = session(&model);
    session
        .append_text(b"A drawing of a house, as JSON: ", EncodeOptions { add_special: true, parse_special: false })
        .unwrap();
    session.set_grammar(Some(grammar)).unwrap();
    let prompt = session.tokens().len();
    for seed in 0..4 {
        session.truncate(prompt).unwrap();
        let mut sampler = Sampler::usual(&Params { seed, ..Params::default() }).unwrap();
        let (tokens, text, finish) = generate(&mut session, &mut sampler);
        assert_eq!(finish, FinishReason::Grammar);
        assert_eq!(model.tokenizer().decode(&tokens, DecodeOptions::default()).unwrap(), text);
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert!(validator.is_valid(&value), "{value}");
    }
}

/// A token that ends a generation is none of a text, whatever kind the file says that it is.
#[test]
fn an_end_is_no_text() {
    let gguf = Gguf::open(&common::data("programs/tiny.gguf")).unwrap();
    let q = Pieces::of(tiny().tokenizer()).token(b"q");
    let mut keys = llm::gguf::Builder::new();
    keys.set("tokenizer.ggml.eos_token_id", q).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf.with_keys(&keys).unwrap()).unwrap());
    assert!(tokenizer.is_eog(q));
    let mut text = Grammar::regex(&tokenizer, "[a-z]{1,3}").unwrap().begin();
    assert!(!text.allowed().unwrap().contains(q));
    text.accept(Pieces::of(&tokenizer).token(b"a")).unwrap();
    assert!(text.allowed().unwrap().contains(q) && may_end(&tokenizer, &mut text));
    text.accept(q).unwrap();
    assert!(text.is_complete());
}
