//! Guessed tokens change the speed of a generation and nothing of what it gives.

mod common;

use std::sync::Arc;

use llm::cache::{CacheKind, PagedOptions};
use llm::generate::{FinishReason, GenerateOptions, Session, SessionOptions, Speculation};
use llm::model::{CacheOptions, Model};
use llm::sample::{Params, Sampler};
use llm::{Error, Threads};

fn tiny(name: &str) -> Arc<Model> {
    common::load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")))
}

fn session(model: &Arc<Model>, kind: CacheKind, window: usize, chunk: usize) -> Session {
    let cache = CacheOptions { kind, window, context_length: 300, ..CacheOptions::default() };
    let threads = Some(Threads::new(2));
    Session::new(Arc::clone(model), &SessionOptions { cache, chunk, threads, ..SessionOptions::default() }).unwrap()
}

fn sampler(temperature: f32) -> Sampler {
    Sampler::usual(&Params { temperature, seed: 3, repeat_penalty: 1.02, ..Params::default() }).unwrap()
}

/// A token, the bits of its log probability, and why the generation ended.
type Step = (Option<u32>, u64, Option<FinishReason>);

/// Up to n steps of a generation.
fn steps(session: &mut Session, sampler: &mut Sampler, n: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while steps.len() < n {
        let next = session.next(sampler).unwrap();
        let (token, finish) = (next.token, next.finish);
        let logprob = token.map_or(0, |_| session.logprobs(1).unwrap().0.logprob.to_bits());
        steps.push((token, logprob, finish));
        if finish.is_some() {
            break;
        }
    }
    steps
}

/// A text that repeats itself, with a change.
fn prompt() -> Vec<u32> {
    let part: Vec<u32> = (0..20).map(|i| 10 + i * 13 % 290).collect();
    [&part[..], &[7, 8], &part[..], &[9], &part[..11]].concat()
}

#[test]
fn guesses_change_no_token() {
    for name in ["gemma3", "llama", "deepseek3", "qwen3moe"] {
        let (model, other) = (tiny(name), tiny(if name == "llama" { "mistral" } else { "llama" }));
        let mut guessed = 0;
        let same_vocabulary = model.config().vocab_size == other.config().vocab_size;
        for (kind, window, chunk) in [
            (CacheKind::Contiguous, 0, 0),
            (CacheKind::Sliding, 24, 5),
            (CacheKind::Paged, 0, 0),
            (CacheKind::Paged, 9, 0),
        ] {
            for temperature in [0.0, 0.7] {
                let options = GenerateOptions { max_tokens: 60, ignore_eog: true };
                let run = |speculation: Speculation| {
                    let mut session = session(&model, kind, window, chunk);
                    session.set_speculation(speculation).unwrap();
                    session.append(&prompt()).unwrap();
                    session.start(options);
                    let mut sampler = sampler(temperature);
                    let mut all = steps(&mut session, &mut sampler, 25);
                    // Whatever else is done in between.
                    let mut fork = session.fork().unwrap();
                    all.extend(steps(&mut fork, &mut self::sampler(temperature), 9));
                    session.truncate(session.tokens().len() - 4).unwrap();
                    all.extend(steps(&mut session, &mut sampler, 7));
                    session.append(&prompt()[..15]).unwrap();
                    all.extend(steps(&mut session, &mut sampler, 30));
                    all.extend(session.logits().unwrap().iter().map(|x| (None, u64::from(x.to_bits()), None)));
                    all.extend(session.tokens().iter().map(|token| (Some(*token), 0, None)));
                    (all, session.speculation_stats())
                };
                let (expected, none) = run(Speculation::Off);
                assert_eq!((none.guessed, none.passes), (0, 0));
                let what = format!("{name}, {kind:?}, window {window}, temperature {temperature}");
                for most in [1, 3, 0] {
                    let (found, stats) = run(Speculation::Lookup { most });
                    assert!(found == expected, "{what}, lookup of {most}");
                    assert!(stats.accepted <= stats.guessed && stats.passes <= stats.guessed, "{what}: {stats:?}");
                    guessed += stats.guessed;
                }
                // A model guesses itself.
                let (found, stats) = run(Speculation::Draft { model: Arc::clone(&model), most: 4 });
                assert!(found == expected, "{what}, its own draft");
                assert!(temperature > 0.0 || stats.accepted > 0, "{what}: {stats:?}");
                if same_vocabulary {
                    let (found, stats) = run(Speculation::Draft { model: Arc::clone(&other), most: 3 });
                    assert!(found == expected, "{what}, a draft of another model");
                    assert!(stats.guessed > 0, "{what}: {stats:?}");
                }
            }
        }
        assert!(guessed > 50, "{name}: {guessed} tokens were looked up");
    }
}

/// Logits that were asked for since are not those that a token was chosen from, whether they were guessed or not.
#[test]
fn what_was_chosen_has_no_probability_behind_it() {
    let model = tiny("llama");
    let mut session = session(&model, CacheKind::Contiguous, 0, 0);
    session.set_speculation(Speculation::Draft { model: Arc::clone(&model), most: 4 }).unwrap();
    session.append(&prompt()).unwrap();
    let mut greedy = sampler(0.0);
    session.start(GenerateOptions { max_tokens: 0, ignore_eog: true });
    for i in 0..40 {
        session.next(&mut greedy).unwrap();
        session.logprobs(1).unwrap();
        // Not each time: that would leave no room for guesses.
        if i % 3 < 2 {
            continue;
        }
        session.logits().unwrap();
        assert!(matches!(session.logprobs(1), Err(Error::FailedPrecondition(_))));
    }
    assert!(session.speculation_stats().accepted > 0);
}

/// Saving a session between a token and its log probability changes neither.
#[test]
fn what_was_chosen_can_be_asked_for_after_a_save() {
    let model = tiny("llama");
    let run = |speculation| {
        let mut session = session(&model, CacheKind::Contiguous, 0, 0);
        session.set_speculation(speculation).unwrap();
        session.append(&prompt()).unwrap();
        session.start(GenerateOptions { max_tokens: 30, ignore_eog: true });
        let mut sampler = sampler(0.0);
        let step = |_| {
            let token = session.next(&mut sampler).unwrap().token;
            session.save_bytes().unwrap();
            (token, session.logprobs(1).unwrap().0.logprob.to_bits())
        };
        let steps = (0..30).map(step).collect::<Vec<_>>();
        (steps, session.speculation_stats())
    };
    let (expected, _) = run(Speculation::Off);
    let (found, stats) = run(Speculation::Draft { model: Arc::clone(&model), most: 5 });
    assert_eq!(found, expected);
    // Each time the first guess was right, and more was not asked for.
    assert!(stats.passes > 10 && stats.accepted == stats.passes, "{stats:?}");
}

#[test]
fn guesses_of_the_same_model_are_right() {
    let model = tiny("llama");
    let mut session = session(&model, CacheKind::Contiguous, 0, 0);
    session.set_speculation(Speculation::Draft { model: Arc::clone(&model), most: 5 }).unwrap();
    session.append(&prompt()).unwrap();
    session.start(GenerateOptions { max_tokens: 1 + 6 * 10, ignore_eog: true });
    let mut greedy = Sampler::usual(&Params { temperature: 0.0, ..Params::default() }).unwrap();
    assert_eq!(steps(&mut session, &mut greedy, 100).len(), 61);
    // The first token follows the prompt; each pass gives one and its five guesses.
    session.reset();
    let stats = session.speculation_stats();
    assert_eq!((stats.passes, stats.guessed, stats.accepted), (10, 50, 50));
}

#[test]
fn a_repeated_text_is_guessed_and_wrong_guesses_become_rare() {
    let model = tiny("llama");
    let options = GenerateOptions { max_tokens: 0, ignore_eog: true };
    // Samplers that repeat the prompt, and that go on in another way each time that they have repeated two tokens.
    for repeats in [true, false] {
        let mut session = session(&model, CacheKind::Contiguous, 0, 0);
        session.set_speculation(Speculation::Lookup { most: 8 }).unwrap();
        let text: Vec<u32> = (0..100).map(|i| (i * 37 + i * i) % 320).collect();
        session.append(&text).unwrap();
        session.append(&text[..5]).unwrap();
        session.start(options);
        for i in 0..90 {
            let mut sampler = Sampler::new(i);
            let token = if repeats { text[5 + i as usize] } else { [5, 6, 200 + i as u32][i as usize % 3] };
            sampler.push(llm::sample::Step::LogitBias(vec![(token, 1e6)].into())).unwrap();
            session.next(&mut sampler).unwrap();
        }
        let stats = session.speculation_stats();
        if repeats {
            assert!(stats.accepted > 70 && stats.guessed - stats.accepted < 9, "{stats:?}");
        } else {
            assert!((3..10).contains(&stats.passes) && stats.accepted == 0, "{stats:?}");
        }
    }
}

#[test]
fn guesses_take_no_page_that_is_not_there() {
    let model = tiny("llama");
    let run = |speculation: Speculation| {
        let options = PagedOptions { max_pages: 5, threads: Some(Threads::new(1)), ..PagedOptions::default() };
        let pages = model.paged_cache(&options).unwrap();
        let options = SessionOptions { threads: Some(Threads::new(1)), ..SessionOptions::default() };
        let mut session = Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
        session.set_speculation(speculation).unwrap();
        session.append(&prompt()).unwrap();
        session.start(GenerateOptions { max_tokens: 0, ignore_eog: true });
        let mut greedy = Sampler::usual(&Params { temperature: 0.0, ..Params::default() }).unwrap();
        loop {
            match session.next(&mut greedy) {
                Ok(next) => assert!(next.finish.is_none()),
                Err(error) => {
                    assert!(matches!(error, Error::CacheFull(_)), "{error}");
                    return session.tokens().to_vec();
                }
            }
        }
    };
    let expected = run(Speculation::Off);
    assert_eq!(expected.len(), 81);
    assert_eq!(run(Speculation::Draft { model: Arc::clone(&model), most: 7 }), expected);
    assert_eq!(run(Speculation::Lookup { most: usize::MAX }), expected);
}

/// Wrong guesses fill no page that others can find: the page is written to again where it is.
#[test]
fn pages_with_wrong_guesses_are_not_copied() {
    let model = tiny("llama");
    let options = PagedOptions { max_pages: 20, threads: Some(Threads::new(1)), ..PagedOptions::default() };
    let pages = model.paged_cache(&options).unwrap();
    let options = SessionOptions { threads: Some(Threads::new(1)), ..SessionOptions::default() };
    let mut session = Session::in_pages(Arc::clone(&model), &pages, &options).unwrap();
    // A page is filled by the guesses behind the fifteenth of its tokens.
    session.append(&(0..64).chain(0..15).collect::<Vec<u32>>()).unwrap();
    for token in [100, 101] {
        session.set_speculation(Speculation::Lookup { most: 9 }).unwrap();
        session.append(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]).unwrap();
        session.start(GenerateOptions { max_tokens: 30, ignore_eog: true });
        for token in [15, token] {
            let mut sampler = Sampler::new(0);
            sampler.push(llm::sample::Step::LogitBias(vec![(token, 1e6)].into())).unwrap();
            session.next(&mut sampler).unwrap();
        }
        session.logits().unwrap();
        let stats = session.speculation_stats();
        assert!(stats.guessed > 2 && stats.accepted == 0, "{stats:?}");
    }
    assert_eq!(pages.stats().copies, 0);
}

#[test]
fn what_cannot_guess_is_refused() {
    let model = tiny("llama");
    let mut session = session(&model, CacheKind::Contiguous, 0, 0);
    let encoder = tiny("bert");
    let Err(error) = session.set_speculation(Speculation::Draft { model: encoder, most: 0 }) else { panic!() };
    assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
    let smol = common::load_real("SmolLM2-135M-Instruct.Q4_1.gguf");
    let Err(error) = session.set_speculation(Speculation::Draft { model: smol, most: 0 }) else { panic!() };
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    // The end of the context, and of what was asked for.
    session.set_speculation(Speculation::Lookup { most: 0 }).unwrap();
    session.append(&prompt()).unwrap();
    session.start(GenerateOptions { max_tokens: 0, ignore_eog: true });
    let mut greedy = Sampler::usual(&Params { temperature: 0.0, ..Params::default() }).unwrap();
    let all = steps(&mut session, &mut greedy, 1000);
    assert_eq!(session.tokens().len(), session.context_length());
    assert_eq!(all.last().unwrap().2, Some(FinishReason::ContextFull));
}
