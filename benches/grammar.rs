//! Constrained output on SmolLM2, two threads: `cargo bench --bench grammar [PART...]`. The parts are `speed` and
//! `thousand` (1,000 generations, minutes); without any, the first.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm::cache::CacheKind;
use llm::generate::{Engine, EngineOptions, FinishReason, GenerateOptions, Request, Session, SessionOptions};
use llm::gguf::Gguf;
use llm::model::{CacheOptions, LoadOptions, Model};
use llm::sample::{Params, Sampler};
use llm::token::{EncodeOptions, Grammar};
use llm::{Result, Threads};
use serde_json::{Value, json};

const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// A person with addresses. The longest instance is below `LONGEST` bytes, and a token is a byte or more.
fn schema() -> Value {
    let text = |n: usize| json!({ "type": "string", "maxLength": n });
    json!({
        "type": "object",
        "properties": {
            "name": text(24),
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "tags": { "type": "array", "items": { "enum": ["friend", "family", "work"] }, "maxItems": 2 },
            "addresses": { "type": "array", "minItems": 1, "maxItems": 2, "items": {
                "type": "object",
                "properties": { "street": text(24), "number": { "type": ["integer", "null"], "minimum": 1, "maximum": 999 } },
                "required": ["street", "number"], "additionalProperties": false
            } }
        },
        "required": ["name", "age", "tags", "addresses"], "additionalProperties": false
    })
}

/// Bytes of the longest instance: 72 characters of at most 12 bytes (a surrogate pair in escapes), and 190 around them.
const LONGEST: usize = 72 * 12 + 190;

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn encode(model: &Model, text: &str) -> Result<Vec<u32>> {
    model.tokenizer().encode(text.as_bytes(), EncodeOptions { add_special: false, parse_special: true })
}

/// Milliseconds of a token, of n behind a prompt.
fn decode(model: &Arc<Model>, prompt: &[u32], grammar: Option<Arc<Grammar>>, n: usize) -> Result<f64> {
    let cache = CacheOptions { context_length: 1024, ..CacheOptions::default() };
    let threads = Some(Threads::new(2));
    let options = SessionOptions { cache, threads, ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(model), &options)?;
    session.append(prompt)?;
    session.set_grammar(grammar)?;
    session.start(GenerateOptions { max_tokens: n, ignore_eog: true });
    let (mut tokens, start) = (0, Instant::now());
    session.generate(&mut Sampler::usual(&Params::default())?, |_| {
        tokens += 1;
        ControlFlow::Continue(())
    })?;
    assert_eq!(tokens, n);
    Ok(1e3 * start.elapsed().as_secs_f64() / n as f64)
}

fn speed(model: &Arc<Model>) -> Result<()> {
    let tokenizer = model.tokenizer();
    println!("\na token with a grammar and without, 128 tokens, medians of 9 alternating runs");
    let people = json!({ "type": "array", "items": schema(), "minItems": 20 }).to_string();
    let prompt = encode(model, "<|im_start|>user\nInvent twenty people.<|im_end|>\n<|im_start|>assistant\n")?;
    let start = Instant::now();
    Grammar::regex(tokenizer, "a")?;
    println!("first grammar of the tokenizer {:.1} ms", 1e3 * start.elapsed().as_secs_f64());
    for (name, make) in [
        ("schema", (|t, text| Grammar::json_schema(t, text)) as fn(&_, &str) -> Result<Grammar>),
        ("regular expression", |t, _| Grammar::regex(t, "([A-Z][a-z]+ ){400}")),
        ("Lark", |t, _| {
            Grammar::lark(t, "start: sentence{40,}\nsentence: WORD (\" \" WORD){4,} \". \"\nWORD: /[a-z]+/")
        }),
    ] {
        let start = Instant::now();
        let grammar = Arc::new(make(tokenizer, &people)?);
        let made = 1e3 * start.elapsed().as_secs_f64();
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            with.push(decode(model, &prompt, Some(Arc::clone(&grammar)), 128)?);
            without.push(decode(model, &prompt, None, 128)?);
        }
        let (with, without) = (median(with), median(without));
        println!(
            "{name}: made in {made:.1} ms; {with:.2} ms, without {without:.2} ms: {:+.1} %",
            100.0 * (with / without - 1.0)
        );
    }
    Ok(())
}

fn thousand(model: &Arc<Model>) -> Result<()> {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).map_err(|e| llm::Error::internal(e.to_string()))?;
    let grammar = Arc::new(Grammar::json_schema(model.tokenizer(), &schema.to_string())?);
    let cache = CacheOptions { kind: CacheKind::Paged, context_length: 2048, ..CacheOptions::default() };
    let options = EngineOptions { cache, max_batch: 8, threads: Some(Threads::new(2)), ..EngineOptions::default() };
    let engine = Engine::new(Arc::clone(model), &options)?;
    let start = Instant::now();
    for i in 0..1000 {
        let ask = format!("<|im_start|>user\nInvent person number {i}.<|im_end|>\n<|im_start|>assistant\n");
        let sampler = Sampler::usual(&Params { seed: i, ..Params::default() })?;
        let options = GenerateOptions { max_tokens: LONGEST, ignore_eog: false };
        let request = Request::new(encode(model, &ask)?, sampler);
        engine.submit(Request { options, grammar: Some(Arc::clone(&grammar)), ..request })?;
    }
    let mut texts = vec![Vec::new(); 1000];
    let (mut events, mut valid, mut lengths, mut more) = (Vec::new(), 0, vec![0; 1000], true);
    while more {
        more = engine.wait(Duration::MAX, &mut events)?;
        for event in events.drain(..) {
            let i = event.request as usize - 1;
            texts[i].extend(event.text);
            lengths[i] += usize::from(event.token.is_some());
            if let Some(outcome) = event.outcome {
                assert!(matches!(outcome, Ok(FinishReason::Grammar)), "{i}: {outcome:?}");
                let value: std::result::Result<Value, _> = serde_json::from_slice(&texts[i]);
                valid += usize::from(value.is_ok_and(|value| validator.is_valid(&value)));
            }
        }
    }
    let (longest, total) = (lengths.iter().max().copied().unwrap_or(0), lengths.iter().sum::<usize>());
    let seconds = start.elapsed().as_secs_f64();
    println!("\n1,000 generations: {valid} parse and fit; {total} tokens, the longest {longest}, in {seconds:.0} s");
    println!("for example {}", String::from_utf8_lossy(&texts[0]));
    assert_eq!(valid, 1000);
    Ok(())
}

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| if asked.is_empty() { part == "speed" } else { asked.iter().any(|asked| asked == part) };
    let model = Arc::new(Model::load(&Gguf::open(Path::new(MODEL))?, &LoadOptions::default(), |_, _| {
        ControlFlow::Continue(())
    })?);
    println!("{MODEL}, two threads, {}", llm::Isa::choose()?);
    if wanted("speed") {
        speed(&model)?;
    }
    if wanted("thousand") {
        thousand(&model)?;
    }
    Ok(())
}
