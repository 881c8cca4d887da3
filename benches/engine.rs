//! Many sequences, caches and guesses on SmolLM2, two threads: `cargo bench --bench engine [PART...]`. The parts are
//! `parallel`, `prefix`, `polls`, `lookup`, `caches` and `soak`; without any, all but the last.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm::cache::CacheKind;
use llm::generate::{Engine, EngineOptions, Event, GenerateOptions, Request, Session, SessionOptions, Speculation};
use llm::gguf::Gguf;
use llm::model::{CacheOptions, LoadOptions, Model};
use llm::sample::{Params, Sampler};
use llm::{KvType, Result, Threads};

const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
const TEXT: &str = "tests/data/programs/text.txt";

fn options(max_batch: usize, context_length: usize) -> EngineOptions {
    let cache = CacheOptions { kind: CacheKind::Paged, context_length, ..CacheOptions::default() };
    EngineOptions { cache, max_batch, threads: Some(Threads::new(2)), ..EngineOptions::default() }
}

fn session(model: &Arc<Model>, cache: CacheOptions) -> Result<Session> {
    let threads = Some(Threads::new(2));
    Session::new(Arc::clone(model), &SessionOptions { cache, threads, ..SessionOptions::default() })
}

fn greedy() -> Result<Sampler> {
    Sampler::usual(&Params { temperature: 0.0, ..Params::default() })
}

/// Text with another beginning each, as tokens.
fn prompt(text: &[u32], i: usize, n: usize) -> Vec<u32> {
    text.iter().cycle().skip(37 * i).take(n).copied().collect()
}

/// Runs an engine until it is idle.
fn run(engine: &Engine) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    while engine.wait(Duration::MAX, &mut events)? {}
    Ok(events)
}

fn submit(engine: &Engine, tokens: Vec<u32>, max_tokens: usize) -> Result<u64> {
    let options = GenerateOptions { max_tokens, ignore_eog: true };
    engine.submit(Request { options, ..Request::new(tokens, greedy()?) })
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn parallel(model: &Arc<Model>, text: &[u32]) -> Result<()> {
    println!("\nprompts of 128 tokens, 128 new tokens each, greedy: tokens/s, medians of 3");
    println!("{:>10} {:>10} {:>10}", "sequences", "prompt", "decode");
    for n in [1, 2, 4, 8, 16] {
        let (mut prompts, mut decodes) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let engine = Engine::new(Arc::clone(model), &options(n, 256))?;
            for i in 0..n {
                submit(&engine, prompt(text, i, 128), 128)?;
            }
            let (start, mut events) = (Instant::now(), Vec::new());
            let (mut first, mut last) = (Default::default(), None);
            while engine.wait(Duration::MAX, &mut events)? {
                // From when every prompt is processed: every choice ends a wait, and the last one of that pass counts.
                let stats = engine.stats();
                if last.is_none_or(|last| stats.steps == last) {
                    first = (start.elapsed(), stats.generated_tokens);
                }
                if stats.prompt_tokens + stats.reused_tokens >= n as u64 * 128 {
                    last = last.or(Some(stats.steps));
                }
            }
            let (prefill, tokens): (Duration, u64) = first;
            prompts.push((n * 128) as f64 / prefill.as_secs_f64());
            decodes.push((n as u64 * 128 - tokens) as f64 / (start.elapsed() - prefill).as_secs_f64());
        }
        println!("{n:>10} {:>10.0} {:>10.0}", median(prompts), median(decodes));
    }
    Ok(())
}

fn prefix(model: &Arc<Model>, text: &[u32]) -> Result<()> {
    let engine = Engine::new(Arc::clone(model), &options(64, 1088))?;
    let start = Instant::now();
    for i in 0..64 {
        let tokens = [&prompt(text, 0, 1024)[..], &prompt(text, i + 1, 8)].concat();
        submit(&engine, tokens, 16)?;
    }
    run(&engine)?;
    let stats = engine.stats();
    println!("\n64 sequences that share 1,024 tokens, 8 of their own, 16 new: {:.2} s", start.elapsed().as_secs_f64());
    println!("tokens of prompts processed {}, found {}", stats.prompt_tokens, stats.reused_tokens);
    println!("most pages {} of 16 positions, without sharing {}", stats.pages.pages_peak, 64 * 1048 / 16);
    Ok(())
}

fn polls(model: &Arc<Model>, text: &[u32]) -> Result<()> {
    println!("\npolls of 4,000 us while a prompt of 2,000 tokens is processed and 64 tokens are generated");
    println!("{:>8} {:>8} {:>8} {:>8} {:>14}", "polls", "median", "99 %", "largest", "within 6 ms");
    let engine = Engine::new(Arc::clone(model), &options(8, 2100))?;
    for round in 0..2 {
        submit(&engine, prompt(text, round, 2000), 64)?;
        let (mut times, mut events) = (Vec::new(), Vec::new());
        loop {
            let start = Instant::now();
            let more = engine.poll(Duration::from_micros(4000), &mut events)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            if !more {
                break;
            }
        }
        times.sort_by(f64::total_cmp);
        let n = times.len();
        let within = times.iter().filter(|time| **time <= 6.0).count();
        let (middle, high, largest) = (times[n / 2], times[n * 99 / 100], times[n - 1]);
        let share = 100.0 * within as f64 / n as f64;
        println!("{n:>8} {middle:>8.2} {high:>8.2} {largest:>8.2} {share:>12.2} %");
    }
    Ok(())
}

/// Seconds for n tokens behind a prompt, and the tokens.
fn decode(model: &Arc<Model>, tokens: &[u32], n: usize, speculation: Speculation) -> Result<(f64, Vec<u32>, Session)> {
    let mut session = session(model, CacheOptions::default())?;
    session.set_speculation(speculation)?;
    session.append(tokens)?;
    session.start(GenerateOptions { max_tokens: n, ignore_eog: true });
    let (mut found, start) = (Vec::new(), Instant::now());
    session.generate(&mut greedy()?, |next| {
        found.extend(next.token);
        ControlFlow::Continue(())
    })?;
    Ok((start.elapsed().as_secs_f64(), found, session))
}

fn lookup(model: &Arc<Model>, text: &str) -> Result<()> {
    let tokenizer = model.tokenizer();
    let chat = |ask: &str| format!("<|im_start|>user\n{ask}<|im_end|>\n<|im_start|>assistant\n");
    let encode = |text: &str| {
        let parse_special = true;
        tokenizer.encode(text.as_bytes(), llm::token::EncodeOptions { add_special: false, parse_special })
    };
    println!("\nlookup: decode against the same without guesses, medians of 5 alternating runs");
    let verbatim = chat(&format!("Repeat this text verbatim:\n\n{text}"));
    let unrelated = chat("Write a short story about a lighthouse keeper who finds a map in a bottle.");
    for (name, prompt, n) in [("repeat this text verbatim", verbatim, 400), ("unrelated", unrelated, 300)] {
        let prompt = encode(&prompt)?;
        let (mut plain, mut guessed, mut stats) = (Vec::new(), Vec::new(), None);
        for _ in 0..5 {
            let (seconds, expected, _) = decode(model, &prompt, n, Speculation::Off)?;
            plain.push(seconds);
            let (seconds, found, session) = decode(model, &prompt, n, Speculation::Lookup { most: 0 })?;
            guessed.push(seconds);
            assert_eq!(found, expected);
            stats = Some(session.speculation_stats());
        }
        println!("{name}: {:.2}x, {:?}", median(plain) / median(guessed), stats.unwrap_or_default());
    }
    Ok(())
}

fn caches(model: &Arc<Model>, text: &[u32]) -> Result<()> {
    println!("\na token of SmolLM2 behind a text of that length, medians of 15, and what the cache takes");
    println!("{:24} {:>8} {:>10} {:>10} {:>10}", "cache", "type", "MiB at 2k", "ms at 128", "ms at 2k");
    for (name, kind, window, sinks) in [
        ("contiguous", CacheKind::Contiguous, 0, 0),
        ("paged", CacheKind::Paged, 0, 0),
        ("sliding, 512 and 4", CacheKind::Sliding, 512, 4),
    ] {
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0, KvType::Q4_0] {
            let cache = CacheOptions { kind, window, sinks, kv_type, context_length: 2112, ..CacheOptions::default() };
            let gguf = Gguf::open(Path::new(MODEL))?;
            let bytes = Model::memory(&gguf, &cache, 512)?.kv_cache;
            let mut session = session(model, cache)?;
            let mut times = Vec::new();
            for n in [128, 2048] {
                session.append(&prompt(text, 0, n)[session.tokens().len().min(n)..])?;
                let mut own = Vec::new();
                for i in 0..15 {
                    let start = Instant::now();
                    session.append(&prompt(text, i, 1))?;
                    own.push(start.elapsed().as_secs_f64() * 1e3);
                }
                session.truncate(n)?;
                times.push(median(own));
            }
            let (mib, short, long) = (bytes as f64 / f64::from(1 << 20), times[0], times[1]);
            println!("{name:24} {:>8} {mib:>10.1} {short:>10.2} {long:>10.2}", kv_type.name());
        }
    }
    Ok(())
}

/// A thousand requests of random lengths, some cancelled, some with several continuations, in few pages.
fn soak(model: &Arc<Model>, text: &[u32]) -> Result<()> {
    let mut state = 1u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let engine = Engine::new(Arc::clone(model), &EngineOptions { max_pages: 100, ..options(8, 256) })?;
    let (mut requests, mut events, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    while requests.len() < 1000 || engine.wait(Duration::MAX, &mut events)? {
        if requests.len() < 1000 && below(2) == 0 {
            let tokens = prompt(text, below(9) as usize, 1 + below(120) as usize);
            let options = GenerateOptions { max_tokens: 1 + below(24) as usize, ignore_eog: below(2) == 0 };
            let params = Params { seed: below(1 << 20), ..Params::default() };
            let count = 1 + below(3) as usize;
            let priority = below(3) as i32;
            let sampler = Sampler::usual(&params)?;
            let request = Request { options, count, priority, ..Request::new(tokens.clone(), sampler) };
            let id = engine.submit(request)?;
            if below(10) == 0 {
                cancelled.push(id - below(3).min(id - 1));
            }
            requests.push((id, tokens, options, params, count));
        } else {
            engine.poll(Duration::from_micros(500), &mut events)?;
        }
        if below(40) == 0
            && let Some(id) = cancelled.pop()
        {
            engine.cancel(id)?;
        }
    }
    let stats = engine.stats();
    println!("\nsoak: {:.0} s, {stats:?}", start.elapsed().as_secs_f64());
    assert_eq!((stats.waiting, stats.running, stats.pages.pages_used), (0, 0, 0));
    let (mut compared, mut lost) = (0, 0);
    for (id, tokens, options, params, count) in &requests {
        for index in 0..*count {
            let own: Vec<&Event> = events.iter().filter(|event| (event.request, event.index) == (*id, index)).collect();
            let ends = own.iter().filter(|event| event.outcome.is_some()).count();
            lost += usize::from(ends != 1);
            if !matches!(own.last().and_then(|event| event.outcome.as_ref()), Some(Ok(_))) {
                continue;
            }
            let found: Vec<u32> = own.iter().filter_map(|event| event.token).collect();
            let cache = CacheOptions { context_length: 256, ..CacheOptions::default() };
            let mut session = session(model, cache)?;
            session.append(tokens)?;
            session.start(*options);
            let mut alone = Vec::new();
            let mut sampler = Sampler::usual(&Params { seed: params.seed + index as u64, ..params.clone() })?;
            session.generate(&mut sampler, |next| {
                alone.extend(next.token);
                ControlFlow::Continue(())
            })?;
            assert_eq!(found, alone, "request {id}, continuation {index}");
            compared += 1;
        }
    }
    println!("{compared} continuations are what they are alone, {lost} lost");
    assert_eq!(lost, 0);
    Ok(())
}

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| if asked.is_empty() { part != "soak" } else { asked.iter().any(|asked| asked == part) };
    let model = Arc::new(Model::load(&Gguf::open(Path::new(MODEL))?, &LoadOptions::default(), |_, _| {
        ControlFlow::Continue(())
    })?);
    let text = std::fs::read_to_string(TEXT).map_err(|e| llm::Error::io(format!("{TEXT}: {e}")))?;
    let tokens = model.tokenizer().encode(text.as_bytes(), Default::default())?;
    println!("{MODEL}, two threads, {}", llm::Isa::choose()?);
    if wanted("parallel") {
        parallel(&model, &tokens)?;
    }
    if wanted("prefix") {
        prefix(&model, &tokens)?;
    }
    if wanted("polls") {
        polls(&model, &tokens)?;
    }
    if wanted("lookup") {
        lookup(&model, &text)?;
    }
    if wanted("caches") {
        caches(&model, &tokens)?;
    }
    if wanted("soak") {
        soak(&model, &tokens)?;
    }
    Ok(())
}
