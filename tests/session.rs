//! Sessions: what they refuse, what they keep, when a generation ends.

mod common;

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use llm::cache::CacheKind;
use llm::generate::{FinishReason, GenerateOptions, Session, SessionOptions};
use llm::model::{CacheOptions, Model};
use llm::sample::{Params, Sampler, logprobs};
use llm::token::EncodeOptions;
use llm::{Cancel, Error, Threads};

/// A tiny random model.
fn tiny() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| common::load(&common::unpacked_gguf("arch/llama/model.gguf"))))
}

fn smollm2() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| common::load_real(common::SMOLLM2)))
}

fn session(model: &Arc<Model>, context_length: usize) -> Session {
    let options = SessionOptions {
        cache: CacheOptions { context_length, ..CacheOptions::default() },
        ..SessionOptions::default()
    };
    Session::new(Arc::clone(model), &options).unwrap()
}

fn greedy() -> Sampler {
    Sampler::usual(&Params { temperature: 0.0, ..Params::default() }).unwrap()
}

fn bits(session: &mut Session) -> Vec<u32> {
    session.logits().unwrap().iter().map(|x| x.to_bits()).collect()
}

fn unlimited() -> GenerateOptions {
    GenerateOptions { max_tokens: 0, ignore_eog: true }
}

#[test]
fn bad_calls_have_their_error_and_change_nothing() {
    let mut session = session(&tiny(), 32);
    assert!(matches!(session.logits(), Err(Error::FailedPrecondition(_))));
    assert!(matches!(session.next(&mut greedy()), Err(Error::FailedPrecondition(_))));
    session.append(&[]).unwrap();
    assert_eq!(session.append_text(b"", EncodeOptions::default()).unwrap(), 0);
    assert!(matches!(session.next(&mut greedy()), Err(Error::FailedPrecondition(_))));

    session.append(&[7, 8, 9]).unwrap();
    let before = bits(&mut session);
    let error = session.append(&[1, 320, 2]).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)));
    assert_eq!((error.fact("token"), error.fact("index")), (Some("320"), Some("1")));
    let error = session.append(&[1; 30]).unwrap_err();
    assert!(matches!(error, Error::CacheFull(_)));
    assert_eq!((error.fact("length"), error.fact("context_length")), (Some("3"), Some("32")));
    let mut small = vec![0.0; 319];
    assert!(matches!(session.eval(&[1], &mut small), Err(Error::BufferTooSmall(_))));
    assert!(matches!(session.truncate(4), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.add_stop(b""), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.add_stop(b"\xFF"), Err(Error::InvalidArgument(_))));
    assert_eq!(session.tokens(), [7, 8, 9]);
    assert_eq!(bits(&mut session), before);
    session.append(&[1; 28]).unwrap();
    // The generated token takes a place though it is not processed yet.
    session.next(&mut greedy()).unwrap();
    let error = session.append(&[1]).unwrap_err();
    assert_eq!((error.fact("tokens"), error.fact("length")), (Some("1"), Some("32")));
}

/// The logits and scores of more tokens than have them computed together: behind some, where the last tokens before them
/// are to be processed again, and where all are, since a ring has lost its beginning.
#[test]
fn logits_and_scores_are_those_of_their_tokens() {
    let (model, v) = (tiny(), 320);
    let tokens: Vec<u32> = (0..150u32).map(|i| (i * i * 7 + 3 * i) % 320).collect();
    for (kind, window, chunk) in [
        (CacheKind::Contiguous, 0, 0),
        (CacheKind::Contiguous, 0, 7),
        (CacheKind::Paged, 0, 100),
        (CacheKind::Sliding, 20, 9),
        (CacheKind::Sliding, 20, 30),
        (CacheKind::Sliding, 20, 0),
    ] {
        let cache = CacheOptions { kind, window, context_length: 256, ..CacheOptions::default() };
        let options = SessionOptions { cache, chunk, ..SessionOptions::default() };
        let mut session = Session::new(Arc::clone(&model), &options).unwrap();
        // One by one.
        let (mut rows, mut found) = (vec![0.0; 150 * v], vec![0.0; 150 * v]);
        for (token, row) in tokens.iter().zip(rows.chunks_exact_mut(v)) {
            session.eval(&[*token], row).unwrap();
        }
        let last = bits(&mut session);
        let are = |found: &[f32], rows: &[f32]| found.iter().zip(rows).all(|(a, b)| a.to_bits() == b.to_bits());
        let expected = |i: usize| logprobs(&rows[(i - 1) * v..i * v], tokens[i], 0).unwrap().0.logprob;
        for held in [1, 2, 40, 140] {
            let case = format!("{kind:?}, chunks of {chunk}, {held} tokens");
            session.truncate(held).unwrap();
            found.fill(9.0);
            session.eval(&tokens[held..], &mut found).unwrap();
            assert!(are(&found, &rows[held * v..]) && bits(&mut session) == last, "{case}");

            session.truncate(held).unwrap();
            let mut scores = vec![9.0; 150];
            session.score(&tokens[held..], &mut scores).unwrap();
            for i in held..150 {
                assert_eq!(scores[i - held].to_bits(), expected(i).to_bits(), "{case}, then {i}");
            }
            assert!(scores[150 - held..].iter().all(|x| *x == 9.0), "{case}");
            assert!(session.tokens() == tokens && bits(&mut session) == last, "{case}");
        }
        // Fewer than there were logits before.
        session.truncate(60).unwrap();
        session.eval(&tokens[60..65], &mut found).unwrap();
        assert!(are(&found, &rows[60 * v..65 * v]), "{kind:?}, chunks of {chunk}");
    }
}

#[test]
fn scores_that_cannot_be_had_change_nothing() {
    let mut session = session(&tiny(), 16);
    let mut scores = [9.0; 20];
    session.score(&[], &mut []).unwrap();
    assert!(matches!(session.score(&[1], &mut scores), Err(Error::FailedPrecondition(_))));
    assert!(session.tokens().is_empty());
    session.append(&[1, 2, 3]).unwrap();
    let before = bits(&mut session);
    let error = session.score(&[1, 2], &mut scores[..1]).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall(_)));
    assert_eq!((error.fact("needed"), error.fact("capacity")), (Some("2"), Some("1")));
    assert!(matches!(session.score(&[1, 320], &mut scores), Err(Error::InvalidArgument(_))));
    assert!(matches!(session.score(&[1; 14], &mut scores), Err(Error::CacheFull(_))));
    let cancel = Cancel::new();
    cancel.request();
    session.set_cancel(cancel);
    assert!(matches!(session.score(&[1, 2], &mut scores), Err(Error::Cancelled(_))));
    session.set_cancel(Cancel::new());
    assert!(session.tokens() == [1, 2, 3] && bits(&mut session) == before);
}

#[test]
fn learned_positions_bound_the_context() {
    let model = common::load(&common::unpacked_gguf("arch/gpt2/model.gguf"));
    let options = SessionOptions {
        cache: CacheOptions { context_length: 65, ..CacheOptions::default() },
        ..SessionOptions::default()
    };
    let error = Session::new(Arc::clone(&model), &options).err().unwrap();
    assert!(matches!(error, Error::InvalidArgument(_)));
    assert_eq!(error.fact("expected"), Some("64"));
    let mut session = session(&model, 0);
    assert_eq!(session.context_length(), 64);
    session.append(&[1; 64]).unwrap();
}

#[test]
fn truncating_is_as_if_the_tokens_had_never_been() {
    let mut session = session(&tiny(), 64);
    session.append(&[1, 2, 3, 4, 5]).unwrap();
    let five = bits(&mut session);
    session.append(&[6; 20]).unwrap();
    // Nothing is dropped, and the next generation begins.
    let length = session.tokens().len();
    session.start(GenerateOptions { max_tokens: 1, ignore_eog: true });
    session.next(&mut Sampler::new(1)).unwrap();
    assert!(matches!(session.next(&mut Sampler::new(1)), Err(Error::FailedPrecondition(_))));
    session.truncate(length + 1).unwrap();
    session.next(&mut Sampler::new(1)).unwrap();
    session.truncate(5).unwrap();
    assert_eq!(bits(&mut session), five);
    session.append(&[9]).unwrap();
    let six = bits(&mut session);
    session.truncate(3).unwrap();
    session.append(&[4, 5, 9]).unwrap();
    assert_eq!(bits(&mut session), six);
    session.truncate(0).unwrap();
    assert!(matches!(session.logits(), Err(Error::FailedPrecondition(_))));
    session.append(&[1, 2, 3, 4, 5]).unwrap();
    assert_eq!(bits(&mut session), five);
    session.reset();
    assert!(session.tokens().is_empty());
    assert_eq!(session.timings().prompt_tokens, 0);
}

#[test]
fn a_generation_ends_at_its_limit_and_at_the_context() {
    let mut session = session(&tiny(), 32);
    session.append(&[1, 2, 3]).unwrap();
    session.start(GenerateOptions { max_tokens: 5, ignore_eog: true });
    let mut tokens = Vec::new();
    let reason = session.generate(&mut greedy(), |next| {
        tokens.extend(next.token);
        ControlFlow::Continue(())
    });
    assert_eq!((reason.unwrap(), tokens.len()), (FinishReason::Length, 5));
    assert_eq!(session.tokens()[3..], tokens);
    assert!(matches!(session.next(&mut greedy()), Err(Error::FailedPrecondition(_))));

    session.start(unlimited());
    let mut count = 0;
    let reason = session.generate(&mut greedy(), |next| {
        count += usize::from(next.token.is_some());
        ControlFlow::Continue(())
    });
    assert_eq!((reason.unwrap(), count, session.tokens().len()), (FinishReason::ContextFull, 24, 32));
    // A context that the prompt alone fills.
    session.start(unlimited());
    let next = session.next(&mut greedy()).unwrap();
    assert_eq!((next.token, next.finish), (None, Some(FinishReason::ContextFull)));

    session.reset();
    session.append(&[1]).unwrap();
    let mut calls = 0;
    let reason = session.generate(&mut greedy(), |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((reason.unwrap(), calls), (FinishReason::Aborted, 3));
}

#[test]
fn the_same_seed_gives_the_same_text_whatever_came_before() {
    let mut session = session(&tiny(), 64);
    let mut run = |seed: u64, warm: bool| {
        session.reset();
        if warm {
            session.append(&[5; 9]).unwrap();
            session.reset();
        }
        session.append(&[1, 2, 3]).unwrap();
        session.start(GenerateOptions { max_tokens: 20, ignore_eog: true });
        let mut sampler = Sampler::usual(&Params { seed, top_k: 0, ..Params::default() }).unwrap();
        session.generate(&mut sampler, |_| ControlFlow::Continue(())).unwrap();
        session.tokens().to_vec()
    };
    let (a, b, c) = (run(1, false), run(1, true), run(2, false));
    assert_eq!(a, b);
    assert_ne!(a, c);
}

#[test]
fn stepping_by_hand_is_generating() {
    let mut session = session(&smollm2(), 256);
    let special = EncodeOptions { add_special: true, parse_special: true };
    session.append_text(b"The capital of France is", special).unwrap();
    session.start(GenerateOptions { max_tokens: 16, ignore_eog: true });
    let (mut text, mut tokens) = (Vec::new(), Vec::new());
    session
        .generate(&mut greedy(), |next| {
            text.extend_from_slice(next.text);
            tokens.extend(next.token);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(text.starts_with(b" Paris"), "{}", String::from_utf8_lossy(&text));
    let prompt = session.tokens()[..session.tokens().len() - 16].to_vec();
    session.reset();
    session.append(&prompt).unwrap();
    for token in &tokens {
        let logits = session.logits().unwrap();
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(best, *token as usize);
        session.append(&[*token]).unwrap();
    }
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let mut session = session(&smollm2(), 256);
    session.append_text(b"The capital of France is", EncodeOptions::default()).unwrap();
    let run = |session: &mut Session| {
        session.truncate(5).unwrap();
        session.start(GenerateOptions { max_tokens: 24, ignore_eog: true });
        let mut text = Vec::new();
        let reason = session.generate(&mut greedy(), |next| {
            text.extend_from_slice(next.text);
            ControlFlow::Continue(())
        });
        (String::from_utf8(text).unwrap(), reason.unwrap())
    };
    let (whole, reason) = run(&mut session);
    assert_eq!(reason, FinishReason::Length);
    // Across tokens, from the middle of one to the middle of another.
    let stop = &whole[10..20];
    session.add_stop(stop.as_bytes()).unwrap();
    session.add_stop(b"not in the text").unwrap();
    let (text, reason) = run(&mut session);
    assert_eq!((text.as_str(), reason), (&whole[..whole.find(stop).unwrap()], FinishReason::Stop));
    session.clear_stops();
    // Text that only begins a stop string is given out in the end.
    session.add_stop(format!("{}#", &whole[whole.len() - 6..]).as_bytes()).unwrap();
    assert_eq!(run(&mut session), (whole, FinishReason::Length));
}

#[test]
fn withheld_text_is_given_out_by_flush_and_otherwise_dropped_when_another_generation_begins() {
    let mut session = session(&smollm2(), 256);
    session.append_text(b"The capital of France is", EncodeOptions::default()).unwrap();
    session.add_stop(b" Paris, or not").unwrap();
    let next = session.next(&mut greedy()).unwrap();
    assert_eq!((next.text, next.finish), (&b""[..], None));
    assert_eq!(session.flush(), b" Paris");
    assert_eq!(session.flush(), b"");
    assert!(matches!(session.next(&mut greedy()), Err(Error::FailedPrecondition(_))));
    // What is appended does not complete a stop string that was begun before.
    session.truncate(5).unwrap();
    assert_eq!(session.next(&mut greedy()).unwrap().text, b"");
    session.append_text(b", or", EncodeOptions::default()).unwrap();
    session.clear_stops();
    session.add_stop(b" not").unwrap();
    let text = session.next(&mut greedy()).unwrap().text.to_vec();
    assert!(!text.starts_with(b" Paris"), "{}", String::from_utf8_lossy(&text));
}

#[test]
fn a_request_to_stop_is_seen_by_the_next_step() {
    let mut session = session(&tiny(), 32);
    session.append(&[1, 2, 3]).unwrap();
    let cancel = Cancel::new();
    session.set_cancel(cancel.clone());
    cancel.request();
    assert!(matches!(session.next(&mut greedy()), Err(Error::Cancelled(_))));
    assert_eq!(session.tokens(), [1, 2, 3]);
    cancel.reset();
    session.next(&mut greedy()).unwrap();
}

#[test]
fn the_end_of_a_turn_ends_a_generation_and_is_not_kept() {
    let mut session = session(&smollm2(), 256);
    let chat = b"<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n";
    let n = session.append_text(chat, EncodeOptions { add_special: false, parse_special: true }).unwrap();
    let (mut last, mut text) = (None, Vec::new());
    let reason = session.generate(&mut greedy(), |next| {
        last = next.token;
        text.extend_from_slice(next.text);
        ControlFlow::Continue(())
    });
    assert_eq!(reason.unwrap(), FinishReason::Eog);
    let end = session.model().tokenizer().id(b"<|im_end|>").unwrap();
    assert_eq!(last, Some(end));
    assert!(!session.tokens()[n..].contains(&end));
    assert!(!String::from_utf8(text).unwrap().contains("<|im_end|>"));
}

#[test]
fn cancelling_ends_a_prefill_within_a_layer_and_changes_nothing() {
    let model = smollm2();
    let mut session = session(&model, 4096);
    session.append(&[1, 2, 3]).unwrap();
    let before = bits(&mut session);
    let cancel = Cancel::new();
    session.set_cancel(cancel.clone());
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(60));
            cancel.request();
            Instant::now()
        });
        let error = session.append(&[5; 4000]).unwrap_err();
        let end = Instant::now();
        assert!(matches!(error, Error::Cancelled(_)), "{error:?}");
        end.duration_since(asked.join().unwrap())
    });
    // A layer of a chunk takes some 10 ms here; the whole prompt takes seconds.
    assert!(asked < Duration::from_millis(500), "{asked:?}");
    assert!(matches!(session.append(&[4]), Err(Error::Cancelled(_))));
    cancel.reset();
    assert_eq!(session.tokens(), [1, 2, 3]);
    assert_eq!(bits(&mut session), before);
}

#[test]
fn two_sessions_of_one_pool_compute_what_each_computes_alone() {
    let model = smollm2();
    let threads = Threads::new(2);
    let run = |tokens: &[u32], threads: Threads| {
        let options = SessionOptions {
            threads: Some(threads),
            cache: CacheOptions { context_length: 128, ..CacheOptions::default() },
            ..SessionOptions::default()
        };
        let mut session = Session::new(Arc::clone(&model), &options).unwrap();
        session.append(tokens).unwrap();
        bits(&mut session)
    };
    let (a, b) = (vec![11; 60], vec![23; 60]);
    let alone = (run(&a, Threads::new(1)), run(&b, Threads::new(1)));
    let together = std::thread::scope(|scope| {
        let first = scope.spawn(|| run(&a, threads.clone()));
        let second = scope.spawn(|| run(&b, threads.clone()));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert!(alone == together);
}
