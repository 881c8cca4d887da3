//! Sessions in files, and sessions that make room.

mod common;

use common::scratch;
use std::sync::Arc;

use llm::cache::{CacheKind, PagedCache, PagedOptions};
use llm::generate::{FinishReason, GenerateOptions, Session, SessionOptions, Speculation};
use llm::gguf::{Builder, Gguf, Value};
use llm::model::{CacheOptions, Model};
use llm::sample::{Callback, Params, Sampler, Step};
use llm::{Error, KvType, Threads};

fn gguf(name: &str) -> Gguf {
    common::unpacked_gguf(&format!("arch/{name}/model.gguf"))
}

fn session(model: &Arc<Model>, cache: CacheOptions, chunk: usize) -> Session {
    let threads = Some(Threads::new(2));
    Session::new(Arc::clone(model), &SessionOptions { cache, chunk, threads, ..SessionOptions::default() }).unwrap()
}

const CACHE: CacheOptions = CacheOptions {
    kind: CacheKind::Contiguous,
    context_length: 200,
    kv_type: KvType::F16,
    window: 0,
    sinks: 0,
    page_size: 0,
};

fn tokens(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 7 + i * 31 + seed * 101) % 319) as u32).collect()
}

fn sampler() -> Sampler {
    Sampler::usual(&Params { seed: 4, temperature: 1.1, ..Params::default() }).unwrap()
}

/// n tokens of a new generation, and the bits of the logits behind them.
fn go_on(session: &mut Session, n: usize) -> (Vec<u32>, Vec<u32>) {
    session.start(GenerateOptions { max_tokens: n, ignore_eog: true });
    let mut sampler = sampler();
    let tokens = (0..n).map(|_| session.next(&mut sampler).unwrap().token.unwrap()).collect();
    (tokens, session.logits().unwrap().iter().map(|x| x.to_bits()).collect())
}

fn nmse(found: &[f32], exact: &[f32]) -> f64 {
    let error: f64 = found.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    error / exact.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

#[test]
fn a_loaded_session_goes_on_bit_for_bit() {
    for (name, kinds) in [("gemma3", 5), ("llama", 2), ("deepseek3", 2), ("gpt-oss", 2)] {
        let model = common::load(&gguf(name));
        let options: Vec<(CacheOptions, usize)> = (0..kinds)
            .map(|i| {
                let kv_type = if i == 4 { KvType::F32 } else { KvType::F16 };
                let kind = [
                    CacheKind::Contiguous,
                    CacheKind::Paged,
                    CacheKind::Sliding,
                    CacheKind::Sliding,
                    CacheKind::Sliding,
                ][i];
                (CacheOptions { kind, kv_type, page_size: 16 * (i % 3), ..CACHE }, [0, 20, 8, 40, 40][i])
            })
            .collect();
        for (n, more) in [(1, 0), (37, 0), (48, 3), (130, 5)] {
            for (i, (from, chunk)) in options.iter().enumerate() {
                let file = scratch(&format!("{name}-{n}-{i}"));
                let mut first = session(&model, *from, *chunk);
                first.set_speculation(Speculation::Lookup { most: 3 }).unwrap();
                first.append(&tokens(n, 1)).unwrap();
                // The last of these is not processed yet.
                go_on_without_logits(&mut first, more);
                first.save(&file).unwrap();
                let text = first.tokens().to_vec();
                let expected = go_on(&mut first, 20);
                for (to, chunk) in &options {
                    let mut other = session(&model, *to, *chunk);
                    other.append(&tokens(9, 2)).unwrap();
                    let before = other.tokens().to_vec();
                    match other.load(&file) {
                        Ok(()) => {
                            assert_eq!(other.tokens(), text);
                            assert!(go_on(&mut other, 20) == expected, "{name}: {n}, {from:?} to {to:?}");
                        }
                        Err(error) => {
                            assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
                            let forgotten = from.kind == CacheKind::Sliding && to.kind != CacheKind::Sliding;
                            assert!(forgotten && n > 30 || from.kv_type != to.kv_type, "{name}: {error}");
                            assert_eq!(other.tokens(), before);
                            go_on(&mut other, 2);
                        }
                    }
                    // Back to what was not in the file.
                    let mut again = session(&model, *to, *chunk);
                    if text.len() > 40 && again.load(&file).is_ok() {
                        let mut fresh = session(&model, *to, *chunk);
                        again.truncate(text.len() - 30).unwrap();
                        fresh.append(again.tokens()).unwrap();
                        assert!(go_on(&mut again, 4) == go_on(&mut fresh, 4), "{name}: {n}, {from:?} to {to:?}");
                    }
                    // Back to where tokens were forgotten.
                    if other.tokens().len() > 30 {
                        other.truncate(20).unwrap();
                        let mut fresh = session(&model, *to, *chunk);
                        fresh.append(other.tokens()).unwrap();
                        assert!(go_on(&mut other, 4) == go_on(&mut fresh, 4), "{name}: {n}, {from:?} to {to:?}");
                    }
                }
                std::fs::remove_file(&file).unwrap();
            }
        }
    }
}

fn go_on_without_logits(session: &mut Session, n: usize) {
    session.start(GenerateOptions { max_tokens: n, ignore_eog: true });
    let mut sampler = sampler();
    for _ in 0..n {
        session.next(&mut sampler).unwrap();
    }
}

#[test]
fn what_is_not_this_sessions_is_refused() {
    let model = common::load(&gguf("llama"));
    let file = scratch("refused");
    let mut saved = session(&model, CACHE, 0);
    saved.append(&tokens(40, 1)).unwrap();
    saved.save(&file).unwrap();
    let refused = |session: &mut Session, what: &str| {
        let before = session.tokens().to_vec();
        let error = session.load(&file).unwrap_err();
        assert_eq!(session.tokens(), before);
        assert!(error.detail().message().contains(what), "{what}: {error}");
        error
    };
    let other = common::load(&gguf("mistral"));
    assert!(matches!(refused(&mut session(&other, CACHE, 0), "another model"), Error::FailedPrecondition(_)));
    // The same shapes, one weight changed; the same weights, another key.
    let mut bytes = common::unpacked("arch/llama/model.gguf");
    let at = gguf("llama").tensors()[3].offset as usize;
    bytes[at] ^= 1;
    let changed = common::load(&Gguf::from_bytes(bytes).unwrap());
    refused(&mut session(&changed, CACHE, 0), "another model");
    let mut keys = Builder::new();
    keys.set("llama.rope.freq_base", Value::F32(5e4)).unwrap();
    let turned = common::load(&gguf("llama").with_keys(&keys).unwrap());
    refused(&mut session(&turned, CACHE, 0), "another model");
    let listed = |numbers: [u32; 3]| {
        let mut keys = Builder::new();
        keys.set_array("general.some_numbers", &numbers).unwrap();
        common::load(&gguf("llama").with_keys(&keys).unwrap())
    };
    let mut first = session(&listed([1, 2, 3]), CACHE, 0);
    first.append(&[1]).unwrap();
    let bytes = first.save_bytes().unwrap();
    assert!(session(&listed([1, 2, 3]), CACHE, 0).load_bytes(&bytes).is_ok());
    assert!(session(&listed([1, 2, 4]), CACHE, 0).load_bytes(&bytes).is_err());
    refused(
        &mut session(&model, CacheOptions { kv_type: KvType::F32, ..CACHE }, 0),
        "number type: f16, and this one has f32",
    );
    refused(&mut session(&model, CacheOptions { window: 30, ..CACHE }, 0), "another window: 0, and this one has 30");
    let short = CacheOptions { context_length: 39, ..CACHE };
    assert!(matches!(refused(&mut session(&model, short, 0), "do not fit"), Error::CacheFull(_)));
    let mut missing = session(&model, CACHE, 0);
    assert!(matches!(missing.load(&scratch("no-such-file")), Err(Error::NotFound(_))));
    assert!(matches!(missing.save(&scratch("no/such/folder")), Err(Error::NotFound(_))));

    // Cut anywhere, or with a byte changed anywhere, nothing is loaded.
    let bytes = std::fs::read(&file).unwrap();
    let mut session = session(&model, CACHE, 0);
    session.append(&tokens(5, 3)).unwrap();
    let expected = go_on(&mut session.fork().unwrap(), 5);
    let damaged = scratch("damaged");
    let (mut cut, mut flipped) = (0, 0);
    for at in (0..bytes.len()).filter(|at| *at < 300 || at % 997 == 0 || *at + 8 > bytes.len()) {
        std::fs::write(&damaged, &bytes[..at]).unwrap();
        let error = session.load(&damaged).unwrap_err();
        assert!(matches!(error, Error::CorruptFile(_)), "cut at {at}: {error}");
        cut += 1;
        for bit in [0, 7] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(&damaged, &bytes).unwrap();
            let error = session.load(&damaged).unwrap_err();
            let expected = matches!(error, Error::CorruptFile(_) | Error::FailedPrecondition(_) | Error::CacheFull(_));
            assert!(expected, "byte {at}: {error}");
            flipped += 1;
        }
    }
    assert!(cut > 300 && flipped > 600);
    // A file that was made to deceive: its checksum is right.
    let layers = 76 + 4 * 40 + 4 * model.config().vocab_size;
    for (changes, what) in [
        (&[(76, u32::MAX)][..], "vocabulary"),
        (&[(76, 320)], "vocabulary"),
        (&[(60, 1 << 30), (68, 1 << 30)], "shorter"),
        (&[(64, 1 << 30), (72, 1 << 30)], "shorter"),
        (&[(60, 1 << 30)], "contradict"),
        (&[(68, 41)], "contradict"),
        (&[(68, 38)], "contradict"),
        (&[(56, 4)], "contradict"),
        (&[(56, 0)], "contradict"),
        (&[(layers, 5)], "begins behind"),
        (&[(layers, 1)], "needs more"),
    ] {
        let mut bytes = bytes.clone();
        let end = bytes.len() - 4;
        for (at, value) in changes {
            bytes[*at..at + 4].copy_from_slice(&u32::to_le_bytes(*value));
        }
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&damaged, &bytes).unwrap();
        let error = session.load(&damaged).unwrap_err();
        assert!(error.to_string().contains(what), "{changes:?}: {error}");
    }
    std::fs::write(&damaged, [&bytes[..], &[0]].concat()).unwrap();
    assert!(matches!(session.load(&damaged), Err(Error::CorruptFile(_))));
    assert!(go_on(&mut session.fork().unwrap(), 5) == expected);
    let bytes = saved.save_bytes().unwrap();
    assert!(std::fs::read(&file).unwrap() == bytes);
    let mut other = session.fork().unwrap();
    assert!(matches!(other.load_bytes(&bytes[..bytes.len() - 1]), Err(Error::CorruptFile(_))));
    other.load_bytes(&bytes).unwrap();
    session.load(&file).unwrap();
    let expected = go_on(&mut saved, 9);
    assert!(go_on(&mut session, 9) == expected && go_on(&mut other, 9) == expected);
    let folder = file.parent().unwrap();
    assert!(matches!(session.load(folder), Err(Error::InvalidArgument(_))));
    let cancel = llm::Cancel::new();
    session.set_cancel(cancel.clone());
    cancel.request();
    // A folder in which nobody else writes.
    let own = folder.join("cancelled");
    std::fs::create_dir_all(&own).unwrap();
    assert!(matches!(session.save(&own.join("x")), Err(Error::Cancelled(_))));
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0, "neither the file nor its beginning");
    assert!(matches!(session.load(&file), Err(Error::Cancelled(_))));
}

/// Also where a ring's oldest tile was overwritten in part, or all of it was forgotten.
#[test]
fn a_sliding_session_is_saved_whole_after_a_truncation() {
    let model = common::load(&gguf("gemma3"));
    let cache = CacheOptions { kind: CacheKind::Sliding, window: 25, ..CACHE };
    let file = scratch("truncated");
    for chunk in [8, 16, 20] {
        for (n, forgotten) in (100..150).map(|n| (n, chunk)).chain([(130, 0), (130, 60), (140, 90)]) {
            let mut first = session(&model, cache, chunk);
            first.append(&tokens(n, 1)).unwrap();
            first.truncate(n - forgotten).unwrap();
            first.save(&file).unwrap();
            let mut fresh = session(&model, cache, chunk);
            fresh.append(&tokens(n, 1)[..n - forgotten]).unwrap();
            let expected = go_on(&mut fresh, 12);
            for chunk in [8, 16, 40] {
                let mut other = session(&model, cache, chunk);
                other.load(&file).unwrap();
                assert!(go_on(&mut other, 12) == expected, "{n} tokens less {forgotten}, into chunks of {chunk}");
            }
            assert!(go_on(&mut first, 12) == expected);
        }
    }
}

/// Also where one token alone is dropped, whose logits a session still has.
#[test]
fn what_stands_before_dropped_tokens_stays_as_it_was() {
    let model = common::load(&gguf("llama"));
    let file = scratch("one-dropped");
    for n in [2, 17, 40] {
        for keep in [n - 1, n - 2] {
            for kind in [CacheKind::Contiguous, CacheKind::Paged, CacheKind::Sliding] {
                let cache = CacheOptions { kind, ..CACHE };
                let mut first = session(&model, cache, 16);
                first.append(&tokens(n, 1)).unwrap();
                first.save(&file).unwrap();
                let mut loaded = session(&model, cache, 16);
                loaded.load(&file).unwrap();
                let mut fresh = session(&model, cache, 16);
                fresh.append(&[&tokens(n, 1)[..keep], &tokens(n, 1)[keep + 1..][..n - keep - 1]].concat()).unwrap();
                for mut shifted in [first.fork().unwrap(), first, loaded] {
                    assert_eq!(shifted.shift(keep).unwrap(), 1);
                    assert_eq!(shifted.tokens(), fresh.tokens());
                    if keep == n - 1 {
                        assert!(go_on(&mut shifted, 5) == go_on(&mut fresh.fork().unwrap(), 5), "{n}, {kind:?}");
                    }
                }
            }
        }
    }
}

/// A sampler sees each token once, also over a shift.
#[test]
fn a_shift_shows_a_sampler_what_it_has_not_seen() {
    let model = common::load(&gguf("llama"));
    let last_n = 1000;
    for (keep, more) in [(20, 50), (60, 50), (0, 80), (100, 50), (7, 0)] {
        let counts = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut sampler = Sampler::new(0);
        let zero = Callback::new(|all| all.iter_mut().for_each(|c| c.logit = 0.0));
        let (sink, penalty) =
            (Arc::clone(&counts), Step::Penalties { last_n, repeat: 1.0, frequency: 1.0, presence: 0.0 });
        let keep_counts = Callback::new(move |all| {
            let mut counts = vec![0; 320];
            all.iter().for_each(|c| counts[c.id as usize] = -c.logit as usize);
            *sink.lock().unwrap() = counts;
        });
        for step in [Step::Callback(zero), penalty, Step::Callback(keep_counts)] {
            sampler.push(step).unwrap();
        }
        let mut session = session(&model, CACHE, 16);
        session.start(GenerateOptions { max_tokens: 0, ignore_eog: true });
        session.append(&tokens(60, 1)).unwrap();
        session.next(&mut sampler).unwrap();
        session.next(&mut sampler).unwrap();
        session.append(&tokens(more, 2)).unwrap();
        let before = session.tokens().to_vec();
        let dropped = session.shift(keep).unwrap();
        session.next(&mut sampler).unwrap();
        // The last of the two was not shown before the tokens behind it.
        let mut expected = vec![0; 320];
        for (i, token) in before.iter().enumerate() {
            expected[*token as usize] += usize::from(i < 61 || i < keep || i >= keep + dropped);
        }
        assert!(*counts.lock().unwrap() == expected, "{keep} kept, {dropped} dropped");
    }
}

#[test]
fn a_shift_turns_keys_to_their_new_positions() {
    // With one layer keys and values depend on nothing but the tokens, so that the result is that of the tokens left.
    for (name, limit) in [
        ("llama", 1e-11),
        ("gemma3", 1e-11),
        ("deepseek3", 1e-11),
        ("qwen2-yarn", 1e-11),
        ("phi3-longrope", 1e-11),
        ("gpt2", 0.0),
    ] {
        let gguf = gguf(name);
        let architecture = gguf.str("general.architecture").unwrap().unwrap().to_owned();
        let mut keys = Builder::new();
        keys.set(&format!("{architecture}.block_count"), Value::U32(1)).unwrap();
        let model = common::load(&gguf.with_keys(&keys).unwrap());
        for (kind, n, keep) in [
            (CacheKind::Contiguous, 57, 7),
            (CacheKind::Paged, 60, 0),
            (CacheKind::Sliding, 61, 16),
            (CacheKind::Paged, 33, 33),
        ] {
            let cache = CacheOptions { kind, kv_type: KvType::F32, context_length: 64, ..CACHE };
            let mut shifted = session(&model, cache, 16);
            let all = tokens(n, 5);
            shifted.append(&all).unwrap();
            let dropped = shifted.shift(keep).unwrap();
            assert_eq!(dropped, (n - keep).div_ceil(2));
            let left = [&all[..keep], &all[keep + dropped..]].concat();
            assert_eq!(shifted.tokens(), left);
            let mut fresh = session(&model, cache, 0);
            fresh.append(&left).unwrap();
            let error = nmse(shifted.logits().unwrap(), fresh.logits().unwrap());
            assert!(error <= limit, "{name}, {kind:?}: {error:e}");
            shifted.append(&[3, 4]).unwrap();
            fresh.append(&[3, 4]).unwrap();
            let error = nmse(shifted.logits().unwrap(), fresh.logits().unwrap());
            assert!(error <= limit, "{name}, {kind:?}: {error:e}");
        }
    }
}

/// A ring that has forgotten nothing keeps what the tokens know of the dropped ones, as the other kinds do.
#[test]
fn a_shift_is_the_same_in_every_kind() {
    let model = common::load(&gguf("llama"));
    for (n, keep, sinks) in [(20, 4, 0), (60, 16, 5), (63, 0, 0)] {
        let run = |kind| {
            let cache = CacheOptions { kind, window: 64, sinks, context_length: 400, ..CACHE };
            let mut shifted = session(&model, cache, 16);
            shifted.append(&tokens(n, 6)).unwrap();
            shifted.shift(keep).unwrap();
            go_on(&mut shifted, 90)
        };
        let expected = run(CacheKind::Contiguous);
        assert!(run(CacheKind::Sliding) == expected && run(CacheKind::Paged) == expected, "{n} tokens");
    }
}

/// Its tokens alone do not lead to what it has.
#[test]
fn a_shifted_session_that_would_be_processed_again_is_not_saved() {
    let model = common::load(&gguf("llama"));
    let cache = CacheOptions { kind: CacheKind::Sliding, window: 64, context_length: 400, ..CACHE };
    let mut shifted = session(&model, cache, 16);
    shifted.append(&tokens(20, 6)).unwrap();
    shifted.shift(4).unwrap();
    shifted.append(&tokens(70, 7)).unwrap();
    shifted.truncate(70).unwrap();
    let mut other = shifted.fork().unwrap();
    let error = shifted.save_bytes().unwrap_err();
    assert!(matches!(&error, Error::FailedPrecondition(_)), "{error}");
    assert!(go_on(&mut shifted, 20) == go_on(&mut other, 20));
    assert!(shifted.save_bytes().is_ok());
}

/// What fails changes nothing, though the ring has forgotten meanwhile what the tokens alone do not lead to.
#[test]
fn a_shifted_session_is_as_it_was_after_a_failure() {
    let model = common::load(&gguf("llama"));
    let cache = CacheOptions { kind: CacheKind::Sliding, window: 64, context_length: 2_100_000, ..CACHE };
    let mut shifted = session(&model, cache, 16);
    shifted.append(&tokens(20, 6)).unwrap();
    shifted.shift(4).unwrap();
    let expected = go_on(&mut shifted.fork().unwrap(), 90);
    let cancel = llm::Cancel::new();
    shifted.set_cancel(cancel.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            cancel.request();
        });
        assert!(matches!(shifted.append(&tokens(2_000_000, 7)), Err(Error::Cancelled(_))));
    });
    cancel.reset();
    assert!(go_on(&mut shifted, 90) == expected);
}

/// To open a pipe would wait until somebody writes to it.
#[cfg(unix)]
#[test]
fn a_pipe_is_no_sessions_file() {
    let pipe = scratch("pipe");
    let _ = std::fs::remove_file(&pipe);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = session(&common::load(&gguf("llama")), CACHE, 16).load(&pipe).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    let error = llm::quantize::Importance::read(&pipe).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
}

#[test]
fn a_conversation_goes_on_when_its_context_is_full() {
    let model = common::load(&gguf("llama"));
    let cache = CacheOptions { context_length: 64, ..CACHE };
    let mut session = session(&model, cache, 0);
    session.append(&tokens(20, 1)).unwrap();
    session.start(GenerateOptions { max_tokens: 150, ignore_eog: true });
    let (mut sampler, mut generated, mut shifts) = (sampler(), 0, 0);
    loop {
        let next = session.next(&mut sampler).unwrap();
        generated += usize::from(next.token.is_some());
        match next.finish {
            None => {}
            Some(FinishReason::ContextFull) => {
                let before = session.tokens().to_vec();
                assert_eq!(before.len(), 64);
                assert_eq!(session.shift(10).unwrap(), 27);
                assert_eq!(session.tokens(), [&before[..10], &before[37..]].concat());
                shifts += 1;
            }
            Some(reason) => {
                assert_eq!(reason, FinishReason::Length);
                break;
            }
        }
    }
    assert_eq!((generated, shifts), (150, 4));
    assert!(matches!(session.shift(1000), Err(Error::InvalidArgument(_))));
    let all = session.tokens().len();
    assert_eq!(session.shift(all).unwrap(), 0);
}

#[test]
fn what_was_shifted_is_not_shared() {
    let model = common::load(&gguf("llama"));
    let options = PagedOptions { max_pages: 40, threads: Some(Threads::new(1)), ..PagedOptions::default() };
    let pages: PagedCache = model.paged_cache(&options).unwrap();
    let options = SessionOptions { cache: CACHE, threads: Some(Threads::new(1)), ..SessionOptions::default() };
    let mut shifted = Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
    shifted.append(&tokens(90, 1)).unwrap();
    shifted.shift(2).unwrap();
    shifted.append(&tokens(20, 7)).unwrap();
    let file = scratch("shifted");
    shifted.save(&file).unwrap();
    let text = shifted.tokens().to_vec();
    let hits = pages.stats().prefix_hits;
    let mut fresh = Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
    fresh.append(&text).unwrap();
    assert_eq!(pages.stats().prefix_hits, hits);
    let mut alone = session(&model, CACHE, 0);
    alone.append(&text).unwrap();
    let expected = go_on(&mut alone, 6);
    assert!(go_on(&mut fresh, 6) == expected);
    // Nor when it comes from a file.
    let mut loaded = Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
    loaded.load(&file).unwrap();
    let found = go_on(&mut loaded, 40);
    assert!(found == go_on(&mut shifted, 40) && found.0[..6] != expected.0 || found.1 != expected.1);
    drop((shifted, fresh));
    let mut fresh = Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
    fresh.append(loaded.tokens()).unwrap();
    let mut alone = session(&model, CACHE, 0);
    alone.append(loaded.tokens()).unwrap();
    assert!(go_on(&mut fresh, 6) == go_on(&mut alone, 6));
    std::fs::remove_file(&file).unwrap();
}

/// A file is no proof of what its tokens lead to: others do not take over what came from one.
#[test]
fn what_came_from_a_file_is_not_shared() {
    let model = common::load(&gguf("llama"));
    let options = PagedOptions { max_pages: 40, threads: Some(Threads::new(1)), ..PagedOptions::default() };
    let pages: PagedCache = model.paged_cache(&options).unwrap();
    let options = SessionOptions { cache: CACHE, threads: Some(Threads::new(1)), ..SessionOptions::default() };
    let in_pages = || Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
    let (text, more) = (tokens(90, 1), tokens(40, 2));
    let mut saved = session(&model, CACHE, 0);
    saved.append(&text).unwrap();
    let file = scratch("not-shared");
    saved.save(&file).unwrap();
    let mut loaded = in_pages();
    loaded.load(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    loaded.append(&more).unwrap();
    let mut fork = loaded.fork().unwrap();
    fork.append(&more).unwrap();
    let mut fresh = in_pages();
    fresh.append(&text).unwrap();
    fresh.append(&more).unwrap();
    assert_eq!(pages.stats().prefix_hits, 0);
    drop(fresh);
    // Once nothing of the file is left, it is a session like any other.
    loaded.truncate(0).unwrap();
    loaded.append(&tokens(64, 3)).unwrap();
    in_pages().append(&tokens(64, 3)).unwrap();
    assert!(pages.stats().prefix_hits > 0);
}
