//! Beam search against a search of everything.

#![allow(clippy::disallowed_methods)] // a reference may use the platform's powf

mod common;

use std::sync::Arc;

use llm::cache::{CacheKind, PagedOptions};
use llm::generate::{BeamOptions, FinishReason, Session, SessionOptions};
use llm::gguf::Gguf;
use llm::model::{CacheOptions, Model};
use llm::sample::logprobs;
use llm::token::Grammar;
use llm::{Error, Threads};

const PROMPT: [u32; 6] = [3, 50, 7, 200, 11, 90];

fn tiny(name: &str) -> Arc<Model> {
    common::load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")))
}

fn session(model: &Arc<Model>, kind: CacheKind, threads: usize) -> Session {
    let cache = CacheOptions { kind, context_length: 32, ..CacheOptions::default() };
    let threads = Some(Threads::new(threads));
    let mut session =
        Session::new(Arc::clone(model), &SessionOptions { cache, threads, ..SessionOptions::default() }).unwrap();
    session.append(&PROMPT).unwrap();
    session
}

/// ln p of each token behind the prompt and `tokens`.
fn all_logprobs(session: &mut Session, tokens: &[u32]) -> Vec<f64> {
    session.truncate(PROMPT.len()).unwrap();
    session.append(tokens).unwrap();
    let logits = session.logits().unwrap().to_vec();
    (0..logits.len()).map(|token| logprobs(&logits, token as u32, 0).unwrap().0.logprob).collect()
}

#[test]
fn the_best_of_all_are_found() {
    let model = tiny("llama");
    let mut naive = session(&model, CacheKind::Contiguous, 2);
    let v = model.config().vocab_size as u32;
    let first = all_logprobs(&mut naive, &[]);
    let second: Vec<Vec<f64>> = (0..v).map(|token| all_logprobs(&mut naive, &[token])).collect();
    for (ignore_eog, length_penalty) in [(true, 1.0), (false, 1.0), (false, 0.0), (false, 2.0)] {
        let ends = |token: u32| !ignore_eog && model.tokenizer().is_eog(token);
        // (score, logprob, tokens, finish)
        let mut all: Vec<(f64, f64, Vec<u32>, FinishReason)> = Vec::new();
        let score = |logprob: f64, length: i32| logprob / f64::from(length).powf(length_penalty);
        for a in 0..v {
            if ends(a) {
                let logprob = first[a as usize];
                all.push((score(logprob, 1), logprob, vec![], FinishReason::Eog));
                continue;
            }
            for b in 0..v {
                let logprob = first[a as usize] + second[a as usize][b as usize];
                let (tokens, finish) =
                    if ends(b) { (vec![a], FinishReason::Eog) } else { (vec![a, b], FinishReason::Length) };
                all.push((score(logprob, 2), logprob, tokens, finish));
            }
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let options = BeamOptions { width: 256, max_tokens: 2, length_penalty, ignore_eog };
        let found = session(&model, CacheKind::Paged, 1).beam_search(&options).unwrap();
        assert_eq!(found.len(), 256);
        for (found, (score, logprob, tokens, finish)) in found.iter().zip(&all).take(60) {
            assert!(
                (found.score - score).abs() < 1e-9 && (found.logprob - logprob).abs() < 1e-9,
                "{found:?} {tokens:?}"
            );
            assert_eq!((&found.tokens, found.finish), (tokens, *finish));
        }
        // Ends are among them where they count.
        let ended = found.iter().filter(|beam| beam.finish == FinishReason::Eog).count();
        assert_eq!(ended > 0, !ignore_eog, "{length_penalty}");
    }
}

#[test]
fn scores_are_those_of_the_tokens_and_the_session_stays() {
    for name in ["gemma3", "deepseek3", "qwen3moe"] {
        let model = tiny(name);
        let mut expected = None;
        for (kind, threads) in
            [(CacheKind::Contiguous, 1), (CacheKind::Paged, 2), (CacheKind::Sliding, 2), (CacheKind::Paged, 1)]
        {
            let mut session = session(&model, kind, threads);
            let options = BeamOptions { width: 5, max_tokens: 9, ignore_eog: true, ..BeamOptions::default() };
            let before: Vec<u32> = session.logits().unwrap().iter().map(|x| x.to_bits()).collect();
            let beams = session.beam_search(&options).unwrap();
            assert_eq!(session.tokens(), PROMPT);
            let after: Vec<u32> = session.logits().unwrap().iter().map(|x| x.to_bits()).collect();
            assert!(before == after);
            for beam in &beams {
                assert_eq!((beam.tokens.len(), beam.finish), (9, FinishReason::Length));
                let mut logprob = 0.0;
                for (i, token) in beam.tokens.iter().enumerate() {
                    logprob += all_logprobs(&mut session, &beam.tokens[..i])[*token as usize];
                }
                assert!((beam.logprob - logprob).abs() < 1e-9, "{name}: {beam:?}, {logprob}");
                assert!((beam.score - logprob / 9.0).abs() < 1e-9);
            }
            assert!(beams.is_sorted_by(|a, b| a.score >= b.score));
            assert_eq!(beams.len(), 5);
            assert_eq!(&beams, expected.get_or_insert_with(|| beams.clone()), "{name}: {kind:?}");
        }
        // One beam is the greedy continuation.
        let mut session = session(&model, CacheKind::Paged, 2);
        let options = BeamOptions { width: 1, max_tokens: 0, ignore_eog: true, ..BeamOptions::default() };
        let beams = session.beam_search(&options).unwrap();
        let mut greedy = llm::sample::Sampler::new(0);
        greedy.push(llm::sample::Step::Greedy).unwrap();
        session.start(llm::generate::GenerateOptions { ignore_eog: true, ..Default::default() });
        let mut tokens = Vec::new();
        session
            .generate(&mut greedy, |next| {
                tokens.extend(next.token);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!((&beams[0].tokens, beams[0].finish), (&tokens, FinishReason::ContextFull));
    }
}

/// Without a limit a search ends when enough has ended, not when the context is full.
#[test]
fn a_search_ends_when_what_ended_is_best() {
    let gguf = common::unpacked_gguf("arch/llama/model.gguf");
    let mut first = session(&common::load(&gguf), CacheKind::Contiguous, 2);
    let (logits, mut keys) = (first.logits().unwrap(), llm::gguf::Builder::new());
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
    keys.set("tokenizer.ggml.eos_token_id", best as u32).unwrap();
    let model = common::load(&gguf.with_keys(&keys).unwrap());
    let options = BeamOptions { width: 1, ..BeamOptions::default() };
    let found = session(&model, CacheKind::Contiguous, 2).beam_search(&options).unwrap();
    assert_eq!((found.len(), &found[0].tokens[..], found[0].finish), (1, &[][..], FinishReason::Eog));
}

/// A continuation that is the only one to go on from another takes over its pages.
#[test]
fn pages_of_one_continuation_are_not_copied() {
    let model = tiny("llama");
    let pages = PagedOptions { max_pages: 20, threads: Some(Threads::new(1)), ..PagedOptions::default() };
    let pages = model.paged_cache(&pages).unwrap();
    let options = SessionOptions { threads: Some(Threads::new(1)), ..SessionOptions::default() };
    let mut session = Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
    session.append(&PROMPT).unwrap();
    let options = BeamOptions { width: 1, max_tokens: 40, ignore_eog: true, ..BeamOptions::default() };
    assert_eq!(session.beam_search(&options).unwrap()[0].tokens.len(), 40);
    assert_eq!(pages.stats().copies, 1, "that of the session's last page");
}

/// All texts of a grammar are found, in the order of what the model thinks of them, whether or not ends are ignored.
#[test]
fn the_best_texts_of_a_grammar_are_found() {
    let model = common::load(&Gguf::open(&common::data("programs/tiny.gguf")).unwrap());
    let tokenizer = model.tokenizer();
    let grammar = Arc::new(Grammar::regex(tokenizer, "[ab]c?[0-9]{1,2}").unwrap());
    let mut naive = session(&model, CacheKind::Contiguous, 2);
    let v = model.config().vocab_size as u32;
    // (score, logprob, tokens, finish)
    let mut all: Vec<(f64, f64, Vec<u32>, FinishReason)> = Vec::new();
    let mut beginnings = vec![(0.0, Vec::new())];
    while let Some((logprob, tokens)) = beginnings.pop() {
        let begin = |more: Option<u32>| {
            let mut text = grammar.begin();
            tokens.iter().copied().chain(more).for_each(|token| text.accept(token).unwrap());
            text
        };
        let (allowed, next) = (begin(None).allowed().unwrap(), all_logprobs(&mut naive, &tokens));
        for token in (0..v).filter(|&token| allowed.contains(token)) {
            let logprob = logprob + next[token as usize];
            let score = logprob / (tokens.len() + 1) as f64;
            let longer = tokens.iter().copied().chain([token]).collect();
            if tokenizer.is_eog(token) {
                all.push((score, logprob, tokens.clone(), FinishReason::Eog));
            } else if begin(Some(token)).is_complete() {
                all.push((score, logprob, longer, FinishReason::Grammar));
            } else {
                beginnings.push((logprob, longer));
            }
        }
    }
    assert!(all.len() >= 440, "{}", all.len());
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (kind, ignore_eog) in [(CacheKind::Paged, false), (CacheKind::Contiguous, true)] {
        let mut session = session(&model, kind, 1);
        session.set_grammar(Some(Arc::clone(&grammar))).unwrap();
        let options = BeamOptions { width: 256, ignore_eog, ..BeamOptions::default() };
        // Twice: a search leaves the session's grammar as it was.
        for _ in 0..2 {
            let found = session.beam_search(&options).unwrap();
            assert_eq!(found.len(), 256);
            for (found, (score, logprob, tokens, finish)) in found.iter().zip(&all) {
                let right = (found.score - score).abs() < 1e-9 && (found.logprob - logprob).abs() < 1e-9;
                assert!(right, "{found:?}, {logprob} {tokens:?}");
                assert_eq!((&found.tokens, found.finish), (tokens, *finish));
            }
        }
        let narrow = session.beam_search(&BeamOptions { width: 3, max_tokens: 2, ..options }).unwrap();
        assert_eq!(narrow.len(), 3);
        assert!(narrow.iter().all(|beam| beam.text[0] == b'a' || beam.text[0] == b'b'), "{narrow:?}");
    }
}

#[test]
fn a_search_that_makes_no_sense_is_refused() {
    let model = tiny("llama");
    let mut session = session(&model, CacheKind::Contiguous, 1);
    for options in [
        BeamOptions { width: 0, ..BeamOptions::default() },
        BeamOptions { width: 257, ..BeamOptions::default() },
        BeamOptions { length_penalty: f64::NAN, ..BeamOptions::default() },
    ] {
        assert!(matches!(session.beam_search(&options), Err(Error::InvalidArgument(_))), "{options:?}");
    }
    session.reset();
    assert!(matches!(session.beam_search(&BeamOptions::default()), Err(Error::FailedPrecondition(_))));
}
