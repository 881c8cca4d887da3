//! Many sequences at once: each gives what it would give alone.

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use llm::generate::{
    BeamOptions, Engine, EngineOptions, Event, FinishReason, GenerateOptions, Request, RequestId, Session,
    SessionOptions,
};
use llm::model::{CacheOptions, Model};
use llm::sample::{Params, Sampler, Step};
use llm::token::Grammar;
use llm::{Error, KvType, Threads};

/// One request and what it gives alone.
#[derive(Clone)]
struct Case {
    tokens: Vec<u32>,
    params: Params,
    options: GenerateOptions,
    stops: Vec<Vec<u8>>,
    priority: i32,
    count: usize,
}

/// What a continuation gave: tokens, text, and why it ended.
type Output = (Vec<u32>, Vec<u8>, Option<FinishReason>);

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn tokens(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(320) as u32).collect()
    }
}

fn tiny(name: &str) -> Arc<Model> {
    common::load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")))
}

const CACHE: CacheOptions = CacheOptions {
    kind: llm::cache::CacheKind::Paged,
    context_length: 128,
    kv_type: KvType::F16,
    window: 0,
    sinks: 0,
    page_size: 0,
};

fn engine(model: &Arc<Model>, cache: CacheOptions, max_pages: usize, max_batch: usize, chunk: usize) -> Engine {
    let threads = Some(Threads::new(2));
    let options = EngineOptions { cache, max_pages, max_batch, chunk, threads, isa: None };
    Engine::new(Arc::clone(model), &options).unwrap()
}

fn case(tokens: Vec<u32>, seed: u64, max_tokens: usize) -> Case {
    let params = Params { seed, temperature: 1.5, repeat_penalty: 1.1, ..Params::default() };
    let options = GenerateOptions { max_tokens, ..GenerateOptions::default() };
    Case { tokens, params, options, stops: Vec::new(), priority: 0, count: 1 }
}

fn request(case: &Case) -> Request {
    Request {
        options: case.options,
        stops: case.stops.clone(),
        priority: case.priority,
        count: case.count,
        ..Request::new(case.tokens.clone(), Sampler::usual(&case.params).unwrap())
    }
}

/// Continuation `index` in a session of its own.
fn alone(model: &Arc<Model>, cache: CacheOptions, case: &Case, index: usize) -> Output {
    let threads = Some(Threads::new(1));
    let options = SessionOptions { cache, threads, ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(model), &options).unwrap();
    let seed = case.params.seed + index as u64;
    let mut sampler = Sampler::usual(&Params { seed, ..case.params.clone() }).unwrap();
    case.stops.iter().for_each(|stop| session.add_stop(stop).unwrap());
    session.append(&case.tokens).unwrap();
    session.start(case.options);
    let (mut tokens, mut text) = (Vec::new(), Vec::new());
    let finish = session.generate(&mut sampler, |next| {
        tokens.extend(next.token);
        text.extend_from_slice(next.text);
        ControlFlow::Continue(())
    });
    (tokens, text, Some(finish.unwrap()))
}

/// Adds events to outputs, and checks that nothing comes after an end. Errors are given back.
fn collect(
    events: &mut Vec<Event>,
    outputs: &mut BTreeMap<(RequestId, usize), Output>,
) -> Vec<(RequestId, usize, Error)> {
    let mut errors = Vec::new();
    for event in events.drain(..) {
        let output = outputs.entry((event.request, event.index)).or_default();
        assert!(output.2.is_none(), "request {} goes on behind its end", event.request);
        output.0.extend(event.token);
        output.1.extend(event.text);
        match event.outcome {
            None => {}
            Some(Ok(finish)) => output.2 = Some(finish),
            Some(Err(error)) => {
                output.2 = Some(FinishReason::Aborted);
                errors.push((event.request, event.index, error));
            }
        }
    }
    errors
}

fn run(engine: &Engine) -> BTreeMap<(RequestId, usize), Output> {
    let (mut events, mut outputs) = (Vec::new(), BTreeMap::new());
    while engine.wait(Duration::from_secs(60), &mut events).unwrap() {
        assert!(!events.is_empty());
        let errors = collect(&mut events, &mut outputs);
        assert!(errors.is_empty(), "{errors:?}");
    }
    collect(&mut events, &mut outputs);
    outputs
}

/// Nothing is held or left, and every continuation has ended.
fn check_idle(engine: &Engine, ended: usize) {
    let stats = engine.stats();
    assert_eq!((stats.waiting, stats.running, stats.pages.pages_used), (0, 0, 0));
    assert_eq!((stats.finished + stats.cancelled + stats.failed) as usize, ended);
    assert!(!engine.poll(Duration::ZERO, &mut Vec::new()).unwrap());
}

#[test]
fn each_request_gives_what_it_gives_alone() {
    // Windows in some layers, latent vectors, experts, positions that are learned.
    for name in ["gemma3", "llama", "deepseek3", "qwen3moe", "gpt2"] {
        let model = tiny(name);
        let mut random = Random(7);
        for (max_pages, max_batch, chunk) in [(0, 0, 0), (0, 3, 16), (12, 8, 20)] {
            let cache = CacheOptions { context_length: 64, ..CACHE };
            let engine = engine(&model, cache, max_pages, max_batch, chunk);
            let mut cases = BTreeMap::new();
            for i in 0..10 {
                let (n, max_tokens) = (1 + random.below(45), 1 + random.below(30));
                let mut case = case(random.tokens(n), i, max_tokens);
                case.options.ignore_eog = i % 2 == 0;
                case.priority = random.below(3) as i32;
                case.count = 1 + random.below(3);
                if i % 3 == 0 {
                    case.stops = vec![b"a".to_vec(), b"the".to_vec()];
                }
                cases.insert(engine.submit(request(&case)).unwrap(), case);
            }
            let outputs = run(&engine);
            let mut ended = 0;
            for (id, case) in &cases {
                for index in 0..case.count {
                    let expected = alone(&model, cache, case, index);
                    assert_eq!(outputs[&(*id, index)], expected, "{name}: request {id}, continuation {index}");
                    ended += 1;
                }
            }
            assert_eq!(outputs.len(), ended);
            check_idle(&engine, ended);
            let stats = engine.stats();
            assert_eq!(stats.preemptions > 0, max_pages > 0, "{name}: {stats:?}");
            assert!(
                stats.largest_batch > 1 && stats.largest_batch <= [8, max_batch as u64][usize::from(max_batch > 0)]
            );
        }
    }
}

#[test]
fn a_common_prefix_is_processed_once() {
    let model = tiny("llama");
    let mut random = Random(3);
    let prefix = random.tokens(100);
    let engine = engine(&model, CACHE, 0, 64, 32);
    let cases: Vec<Case> = (0..64)
        .map(|i| {
            let mut tokens = prefix.clone();
            tokens.extend(random.tokens(5));
            case(tokens, i, 4)
        })
        .collect();
    let ids: Vec<RequestId> = cases.iter().map(|case| engine.submit(request(case)).unwrap()).collect();
    let outputs = run(&engine);
    for (id, case) in ids.iter().zip(&cases) {
        assert_eq!(outputs[&(*id, 0)], alone(&model, CACHE, case, 0));
    }
    // Six pages of the prefix are full, nine tokens of each prompt are not in them.
    let stats = engine.stats();
    assert_eq!((stats.prompt_tokens, stats.reused_tokens), (96 + 64 * 9, 63 * 96));
    check_idle(&engine, 64);
}

/// Those that a session tells, whatever else is in the batch.
#[test]
fn events_tell_log_probabilities() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 0, 8, 16);
    let case = Case { count: 2, ..case(Random(5).tokens(20), 40, 8) };
    let asking = engine.submit(Request { logprobs: Some(3), ..request(&case) }).unwrap();
    let only = engine.submit(Request { logprobs: Some(0), ..request(&case) }).unwrap();
    let silent = engine.submit(request(&case)).unwrap();
    let (mut events, mut more) = (Vec::new(), true);
    while more {
        more = engine.wait(Duration::from_secs(10), &mut events).unwrap();
    }
    for index in 0..2 {
        let of = |id: RequestId| {
            let own = events.iter().filter(move |event| (event.request, event.index) == (id, index));
            own.filter(|event| event.token.is_some())
        };
        let options = SessionOptions { cache: CACHE, ..SessionOptions::default() };
        let mut session = Session::new(Arc::clone(&model), &options).unwrap();
        let params = Params { seed: case.params.seed + index as u64, ..case.params.clone() };
        let mut sampler = Sampler::usual(&params).unwrap();
        session.append(&case.tokens).unwrap();
        session.start(case.options);
        for (event, own) in of(asking).zip(of(only)) {
            assert_eq!(session.next(&mut sampler).unwrap().token, event.token);
            let expected = session.logprobs(3).unwrap();
            assert_eq!(own.logprobs, Some((expected.0, Vec::new())));
            assert_eq!(event.logprobs, Some(expected));
        }
        assert_eq!((of(asking).count(), of(only).count()), (8, 8));
        assert!(of(silent).count() == 8 && of(silent).all(|event| event.logprobs.is_none()));
    }
    let error = engine.submit(Request { logprobs: Some(1 << 20), ..request(&case) }).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)) && error.fact("found") == Some("1048576"), "{error:?}");
}

/// A prompt's last token counts as its others do, where it comes alone.
#[test]
fn every_token_of_a_prompt_is_counted() {
    let model = tiny("llama");
    for (length, expected) in [(1, (1 + 1, 0)), (16, (16 + 16, 0)), (17, (17 + 1, 16)), (33, (33 + 1, 32))] {
        let engine = engine(&model, CACHE, 0, 8, 16);
        let case = case(Random(length).tokens(length as usize), 40, 5);
        for _ in 0..2 {
            engine.submit(request(&case)).unwrap();
            run(&engine);
        }
        let stats = engine.stats();
        assert_eq!((stats.prompt_tokens, stats.reused_tokens), expected, "{length}");
    }
}

#[test]
fn continuations_share_the_prompt() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 0, 8, 0);
    let case = Case { count: 6, ..case(Random(1).tokens(70), 40, 20) };
    let id = engine.submit(request(&case)).unwrap();
    let outputs = run(&engine);
    for index in 0..6 {
        assert_eq!(outputs[&(id, index)], alone(&model, CACHE, &case, index));
    }
    assert!(outputs.values().any(|output| output.0 != outputs[&(id, 0)].0), "the seeds differ");
    let stats = engine.stats();
    assert_eq!((stats.prompt_tokens, stats.pages.forks), (70, 5));
    check_idle(&engine, 6);
}

#[test]
fn a_higher_priority_goes_first() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 0, 1, 0);
    let mut random = Random(5);
    let mut submit = |priority| {
        let mut case = case(random.tokens(10), 0, 3);
        case.options.ignore_eog = true;
        engine.submit(request(&Case { priority, ..case })).unwrap()
    };
    let (low, usual, later) = (submit(-1), submit(0), submit(0));
    let mut events = Vec::new();
    engine.wait(Duration::from_secs(60), &mut events).unwrap();
    let high = submit(5);
    while engine.wait(Duration::from_secs(60), &mut events).unwrap() {}
    let mut order: Vec<RequestId> = events.iter().map(|event| event.request).collect();
    order.dedup();
    assert_eq!(order, [usual, high, usual, later, low]);
}

#[test]
fn a_wait_ends_when_it_is_woken() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 0, 1, 0);
    // Before it begins, and while it sleeps.
    engine.wake();
    assert!(!engine.wait(Duration::MAX, &mut Vec::new()).unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| engine.wait(Duration::MAX, &mut Vec::new()));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished(), "one call of wake ends one wait");
        engine.wake();
        assert!(!waiter.join().unwrap().unwrap());
    });
}

/// One that has to wait for pages is not waited for by those that hold them, and nobody behind it takes them.
#[test]
fn a_request_that_cannot_start_stops_no_other() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 6, 1, 0);
    let mut random = Random(6);
    let mut submit = |priority, length| {
        let mut case = case(random.tokens(length), 0, 20);
        case.options.ignore_eog = true;
        engine.submit(request(&Case { priority, ..case })).unwrap()
    };
    let running = submit(0, 60);
    let mut events = Vec::new();
    engine.wait(Duration::from_secs(60), &mut events).unwrap();
    let (large, small) = (submit(0, 70), submit(0, 5));
    while engine.wait(Duration::from_secs(60), &mut events).unwrap() {
        assert!(!events.is_empty());
    }
    let mut order: Vec<RequestId> = events.iter().map(|event| event.request).collect();
    order.dedup();
    assert_eq!(order, [running, large, small]);
    check_idle(&engine, 3);
}

/// Who comes first need not wait until those behind have done with their pages.
#[test]
fn a_higher_priority_takes_pages() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 8, 3, 0);
    let mut random = Random(7);
    let cases = [(0, 60), (9, 3), (5, 50)].map(|(priority, length)| {
        let case = case(random.tokens(length), 0, 25);
        Case { priority, options: GenerateOptions { ignore_eog: true, ..case.options }, ..case }
    });
    let mut ids: Vec<RequestId> = cases[..2].iter().map(|case| engine.submit(request(case)).unwrap()).collect();
    let mut events = Vec::new();
    engine.wait(Duration::from_secs(60), &mut events).unwrap();
    ids.push(engine.submit(request(&cases[2])).unwrap());
    while engine.wait(Duration::from_secs(60), &mut events).unwrap() {}
    let ended: Vec<RequestId> =
        events.iter().filter(|event| event.outcome.is_some()).map(|event| event.request).collect();
    assert_eq!(ended, [ids[1], ids[2], ids[0]]);
    let mut outputs = BTreeMap::new();
    assert!(collect(&mut events, &mut outputs).is_empty());
    for (id, case) in ids.iter().zip(&cases) {
        assert_eq!(outputs[&(*id, 0)], alone(&model, CACHE, case, 0));
    }
    assert!(engine.stats().preemptions > 0);
    check_idle(&engine, 3);
}

/// Pages that several behind share come free only once: they are not taken for one who lacks more.
#[test]
fn pages_that_would_not_do_are_not_taken() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 10, 4, 0);
    let mut random = Random(11);
    let common = random.tokens(33);
    let submit = |priority, tokens: Vec<u32>, max_tokens| {
        let mut case = case(tokens, 0, max_tokens);
        case.options.ignore_eog = true;
        engine.submit(request(&Case { priority, ..case })).unwrap();
    };
    // 5 pages; 2 that two have in common and one for each of these.
    submit(1, random.tokens(70), 8);
    submit(0, common.clone(), 12);
    submit(0, common, 12);
    let mut events = Vec::new();
    while engine.stats().running < 3 {
        assert!(engine.wait(Duration::from_secs(60), &mut events).unwrap());
    }
    assert_eq!(engine.stats().pages.pages_used, 9);
    // 6 pages.
    submit(1, random.tokens(90), 2);
    run(&engine);
    assert_eq!(engine.stats().preemptions, 0);
}

/// One whose beginning nobody computes begins at once, one whose beginning is under way waits for it.
#[test]
fn only_a_common_beginning_is_waited_for() {
    let model = tiny("llama");
    let mut random = Random(9);
    let first = random.tokens(50);
    for (second, steps) in [(random.tokens(20), 2), ([&first[..], &random.tokens(9)].concat(), 3)] {
        let engine = engine(&model, CACHE, 0, 4, 40);
        for tokens in [&first, &second] {
            engine.submit(request(&case(tokens.clone(), 0, 1))).unwrap();
        }
        run(&engine);
        assert_eq!(engine.stats().steps, steps);
    }
}

/// Pages that were looked up for a request that could not start are not counted.
#[test]
fn hits_are_counted_once() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 10, 4, 0);
    let mut random = Random(8);
    let start = random.tokens(33);
    let submit = |tokens: Vec<u32>, max_tokens| {
        let mut case = case(tokens, 0, max_tokens);
        case.options.ignore_eog = true;
        engine.submit(request(&case)).unwrap()
    };
    submit(start.clone(), 1);
    run(&engine);
    // It waits for the pages of the first, for tens of steps.
    let long = random.tokens(80);
    submit(long, 40);
    submit([&start[..], &start, &start[..10]].concat(), 2);
    run(&engine);
    assert_eq!(engine.stats().pages.prefix_hits, 2);
    check_idle(&engine, 3);
}

/// The choice of each of many continuations is a piece of work of its own.
#[test]
fn a_poll_chooses_once() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 0, 16, 0);
    engine.submit(request(&Case { count: 12, ..case(Random(3).tokens(20), 0, 4) })).unwrap();
    let (mut events, mut most, mut all) = (Vec::new(), 0, 0);
    while engine.poll(Duration::ZERO, &mut events).unwrap() {
        most = most.max(events.len());
        all += events.len();
        events.clear();
    }
    assert!(most == 1 && all >= 12, "{most} {all}");
}

#[test]
fn requests_end_when_they_are_cancelled() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 0, 2, 0);
    let mut random = Random(9);
    let cases: Vec<Case> = (0..5).map(|i| Case { count: 2, ..case(random.tokens(20), i, 8) }).collect();
    let ids: Vec<RequestId> = cases.iter().map(|case| engine.submit(request(case)).unwrap()).collect();
    let (mut events, mut outputs) = (Vec::new(), BTreeMap::new());
    engine.wait(Duration::from_secs(60), &mut events).unwrap();
    engine.cancel(ids[0]).unwrap();
    engine.cancel(ids[3]).unwrap();
    let mut errors = collect(&mut events, &mut outputs);
    while engine.wait(Duration::from_secs(60), &mut events).unwrap() {
        errors.extend(collect(&mut events, &mut outputs));
    }
    errors.extend(collect(&mut events, &mut outputs));
    errors.sort_by_key(|error| (error.0, error.1));
    let cancelled: Vec<_> = errors.iter().map(|error| (error.0, error.1)).collect();
    assert_eq!(cancelled, [(ids[0], 0), (ids[0], 1), (ids[3], 0), (ids[3], 1)]);
    assert!(errors.iter().all(|error| matches!(error.2, Error::Cancelled(_))));
    for (n, case) in [(1, &cases[1]), (2, &cases[2]), (4, &cases[4])] {
        for index in 0..2 {
            assert_eq!(outputs[&(ids[n], index)], alone(&model, CACHE, case, index));
        }
    }
    check_idle(&engine, 10);
    engine.cancel(ids[1]).unwrap();
    let Err(Error::NotFound(_)) = engine.cancel(ids[4] + 1) else { panic!() };
    let Err(Error::NotFound(_)) = engine.cancel(0) else { panic!() };
}

#[test]
fn what_cannot_be_done_is_refused_or_ends() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 4, 4, 0);
    let sampler = || Sampler::usual(&Params::default()).unwrap();
    let Err(Error::InvalidArgument(_)) = engine.submit(Request::new(Vec::new(), sampler())) else { panic!() };
    let Err(Error::InvalidArgument(_)) = engine.submit(Request::new(vec![1 << 20], sampler())) else { panic!() };
    let stops = vec![Vec::new()];
    let empty_stop = Request { stops, ..Request::new(vec![1], sampler()) };
    let Err(Error::InvalidArgument(_)) = engine.submit(empty_stop) else { panic!() };
    let crowd = Request { count: 257, ..Request::new(vec![1], sampler()) };
    let Err(Error::InvalidArgument(_)) = engine.submit(crowd) else { panic!() };
    // Four pages of 16.
    let Err(Error::CacheFull(_)) = engine.submit(Request::new(vec![1; 65], sampler())) else { panic!() };
    let mut long = case(Random(2).tokens(60), 0, 0);
    long.options.ignore_eog = true;
    let id = engine.submit(request(&long)).unwrap();
    let (mut events, mut outputs) = (Vec::new(), BTreeMap::new());
    while engine.wait(Duration::from_secs(60), &mut events).unwrap() {}
    let errors = collect(&mut events, &mut outputs);
    assert!(matches!(errors[..], [(request, 0, Error::CacheFull(_))] if request == id), "{errors:?}");
    // The last of the tokens has no position of its own.
    assert_eq!(outputs[&(id, 0)].0.len(), 5);
    check_idle(&engine, 1);
    // A context that is full is no failure.
    let cache = CacheOptions { context_length: 64, ..CACHE };
    let engine = self::engine(&model, cache, 0, 4, 0);
    let id = engine.submit(request(&long)).unwrap();
    let output = run(&engine).remove(&(id, 0)).unwrap();
    assert_eq!(output, alone(&model, cache, &long, 0));
    assert_eq!(output.2, Some(FinishReason::ContextFull));
    let Err(Error::FailedPrecondition(_)) = Engine::new(tiny("bert"), &EngineOptions::default()) else { panic!() };
}

#[test]
fn any_thread_submits_and_one_at_a_time_polls() {
    let model = tiny("llama");
    let engine = engine(&model, CACHE, 0, 8, 0);
    let mut random = Random(4);
    let cases: Vec<Case> = (0..12).map(|i| case(random.tokens(30), i, 10)).collect();
    let outputs = std::thread::scope(|scope| {
        let submitting = cases.chunks(4).map(|cases| {
            let engine = &engine;
            scope.spawn(move || cases.iter().map(|case| engine.submit(request(case)).unwrap()).collect::<Vec<_>>())
        });
        let submitting: Vec<_> = submitting.collect();
        let (mut events, mut outputs) = (Vec::new(), BTreeMap::new());
        let ended = |outputs: &BTreeMap<_, Output>| outputs.values().filter(|output| output.2.is_some()).count();
        while ended(&outputs) < 12 {
            engine.wait(Duration::from_millis(20), &mut events).unwrap();
            assert!(collect(&mut events, &mut outputs).is_empty());
        }
        let ids = submitting.into_iter().flat_map(|thread| thread.join().unwrap());
        ids.zip(&cases).map(|(id, case)| (outputs[&(id, 0)].clone(), case)).collect::<Vec<_>>()
    });
    for (output, case) in outputs {
        assert_eq!(output, alone(&model, CACHE, case, 0));
    }
    // A sampler that polls the engine which it works for.
    let engine = Arc::new(self::engine(&model, CACHE, 0, 8, 0));
    let (inner, (send, receive)) = (Arc::downgrade(&engine), std::sync::mpsc::channel());
    let send = std::sync::Mutex::new(send);
    let mut sampler = Sampler::new(0);
    let callback = move |_: &mut [_]| {
        let engine = inner.upgrade().unwrap();
        let result = engine.poll(Duration::ZERO, &mut Vec::new());
        send.lock().unwrap().send(matches!(result, Err(Error::Busy(_)))).unwrap();
    };
    sampler.push(Step::Callback(llm::sample::Callback::new(callback))).unwrap();
    let options = GenerateOptions { max_tokens: 1, ..GenerateOptions::default() };
    engine.submit(Request { options, ..Request::new(vec![1, 2], sampler) }).unwrap();
    run(&engine);
    assert!(receive.recv().unwrap());
}

#[test]
fn a_poll_works_in_pieces() {
    let model = tiny("gemma3");
    let engine = engine(&model, CACHE, 0, 4, 0);
    let case = case(Random(6).tokens(60), 3, 6);
    let id = engine.submit(request(&case)).unwrap();
    let (mut events, mut polls) = (Vec::new(), 0);
    while engine.poll(Duration::ZERO, &mut events).unwrap() {
        polls += 1;
    }
    let steps = engine.stats().steps as usize;
    assert!(polls > steps * model.config().layer_count, "{polls} polls, {steps} steps");
    let mut outputs = BTreeMap::new();
    collect(&mut events, &mut outputs);
    assert_eq!(outputs[&(id, 0)], alone(&model, CACHE, &case, 0));
    assert!(engine.stats().largest_quantum <= engine.stats().time);
}

/// The logits of 49,152 tokens take as long as many layers.
#[test]
fn a_poll_makes_logits_in_parts() {
    let model = common::load_real(common::SMOLLM2);
    let engine = engine(&model, CACHE, 0, 2, 0);
    let cases: Vec<Case> = (0..2).map(|seed| case(Random(seed).tokens(9), seed, 3)).collect();
    cases.iter().for_each(|case| _ = engine.submit(request(case)).unwrap());
    let (mut events, mut polls) = (Vec::new(), 0);
    while engine.poll(Duration::ZERO, &mut events).unwrap() {
        polls += 1;
    }
    let steps = engine.stats().steps as usize;
    assert!(polls > steps * (model.config().layer_count + 8), "{polls} polls, {steps} steps");
    let mut outputs = BTreeMap::new();
    collect(&mut events, &mut outputs);
    for (id, case) in (1..).zip(&cases) {
        assert_eq!(outputs[&(id, 0)], alone(&model, CACHE, case, 0));
    }
}

#[test]
fn a_thousand_requests_lose_nothing() {
    let model = tiny("llama");
    let cache = CacheOptions { context_length: 64, ..CACHE };
    let engine = engine(&model, cache, 9, 6, 24);
    let mut random = Random(11);
    let prefixes: Vec<Vec<u32>> = (0..4).map(|_| random.tokens(40)).collect();
    let (mut cases, mut events, mut outputs) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    let (mut errors, mut asked) = (Vec::new(), Vec::new());
    while engine.poll(Duration::ZERO, &mut events).unwrap() || cases.len() < 1000 {
        if cases.len() < 1000 && random.below(15) == 0 {
            let mut tokens = prefixes[random.below(4)][..random.below(40)].to_vec();
            let n = 1 + random.below(15);
            tokens.extend(random.tokens(n));
            let mut case = case(tokens, cases.len() as u64, 1 + random.below(8));
            case.count = 1 + random.below(10) / 8;
            case.priority = random.below(3) as i32;
            cases.insert(engine.submit(request(&case)).unwrap(), case);
        }
        if random.below(600) == 0 && !cases.is_empty() {
            // One of the last, of which most have not ended.
            let id = (cases.len() - random.below(cases.len().min(8))) as RequestId;
            engine.cancel(id).unwrap();
            asked.push(id);
        }
        errors.extend(collect(&mut events, &mut outputs));
    }
    errors.extend(collect(&mut events, &mut outputs));
    assert!(errors.iter().all(|e| matches!(e.2, Error::Cancelled(_)) && asked.contains(&e.0)), "{errors:?}");
    assert!(errors.len() > 10, "{}", errors.len());
    let cancelled: Vec<_> = errors.iter().map(|error| (error.0, error.1)).collect();
    let mut ended = 0;
    for (id, case) in &cases {
        for index in 0..case.count {
            ended += 1;
            let (expected, found) = (alone(&model, cache, case, index), &outputs[&(*id, index)]);
            if cancelled.contains(&(*id, index)) {
                assert!(expected.0.starts_with(&found.0), "request {id}, continuation {index}");
            } else {
                assert_eq!(found, &expected, "request {id}, continuation {index}");
            }
        }
    }
    assert_eq!(outputs.len(), ended);
    check_idle(&engine, ended);
    let stats = engine.stats();
    assert!(stats.preemptions > 5 && stats.reused_tokens > 1000 && stats.largest_batch == 6, "{stats:?}");
}

/// Beam searches beside other requests, with pages for all or for few, find what a session finds.
#[test]
fn beam_searches_find_what_a_session_finds() {
    for name in ["gemma3", "llama", "deepseek3"] {
        let model = tiny(name);
        let grammar = Arc::new(Grammar::regex(model.tokenizer(), "[^e]*").unwrap());
        let mut random = Random(11);
        for (max_pages, max_batch, chunk) in [(200, 0, 0), (200, 3, 16), (13, 8, 0), (8, 2, 20)] {
            let cache = CacheOptions { context_length: 64, ..CACHE };
            let engine = engine(&model, cache, max_pages, max_batch, chunk);
            let (mut searches, mut cases) = (BTreeMap::new(), BTreeMap::new());
            for i in 0..6 {
                let case = case(random.tokens(1 + 9 * i), i as u64, 12);
                cases.insert(engine.submit(request(&case)).unwrap(), case);
                let options = BeamOptions {
                    width: [1, 5, 3][i % 3],
                    max_tokens: [9, 14][i % 2],
                    length_penalty: [1.0, 0.0][i % 2],
                    ignore_eog: i % 2 == 0,
                };
                // The last reaches the end of the context.
                let tokens = random.tokens(if i == 5 { 60 } else { 3 + 7 * i });
                let sampler = Sampler::usual(&Params::default()).unwrap();
                let priority = [0, 1, -1][i % 3];
                let grammar = (i % 3 == 1).then(|| Arc::clone(&grammar));
                let beams = Some(options);
                let request = Request { beams, priority, grammar, ..Request::new(tokens.clone(), sampler) };
                let grammar = request.grammar.clone();
                searches.insert(engine.submit(request).unwrap(), (tokens, options, grammar));
            }
            let found = run(&engine);
            for (id, (tokens, options, grammar)) in &searches {
                let threads = Some(Threads::new(1));
                let options_alone = SessionOptions { cache, threads, ..SessionOptions::default() };
                let mut session = Session::new(Arc::clone(&model), &options_alone).unwrap();
                session.append(tokens).unwrap();
                session.set_grammar(grammar.clone()).unwrap();
                let beams = session.beam_search(options).unwrap();
                assert_eq!(beams.len(), options.width);
                for (index, beam) in beams.into_iter().enumerate() {
                    assert_eq!(
                        found[&(*id, index)],
                        (beam.tokens, beam.text, Some(beam.finish)),
                        "{name}: {options:?}"
                    );
                }
            }
            for (id, case) in &cases {
                assert_eq!(found[&(*id, 0)], alone(&model, cache, case, 0), "{name}");
            }
            assert_eq!(engine.stats().preemptions > 0, max_pages < 200, "{max_pages}");
            let beams: usize = searches.values().map(|(_, options, _)| options.width).sum();
            check_idle(&engine, cases.len() + beams);
        }
    }
}

/// A search ends as a whole: with a cancel, for want of pages, or with fewer continuations than were asked for.
#[test]
fn a_beam_search_ends_as_a_whole() {
    let model = tiny("llama");
    let cache = CacheOptions { context_length: 64, ..CACHE };
    let engine = engine(&model, cache, 3, 0, 0);
    let search = |tokens: Vec<u32>, width, max_tokens| {
        let beams = Some(BeamOptions { width, max_tokens, ignore_eog: true, ..BeamOptions::default() });
        Request { beams, ..Request::new(tokens, Sampler::usual(&Params::default()).unwrap()) }
    };
    for wrong in [0, 257] {
        assert!(matches!(engine.submit(search(vec![1], wrong, 1)), Err(Error::InvalidArgument(_))));
    }
    // A prompt that fits, and no room for what follows.
    let full = engine.submit(search(vec![5; 46], 3, 9)).unwrap();
    let cancelled = engine.submit(search(vec![6; 4], 4, 40)).unwrap();
    let (mut events, mut outputs, mut errors) = (Vec::new(), BTreeMap::new(), Vec::new());
    for step in 0.. {
        if step == 60 {
            engine.cancel(cancelled).unwrap();
        }
        let more = engine.poll(Duration::ZERO, &mut events).unwrap();
        errors.extend(collect(&mut events, &mut outputs));
        if !more {
            break;
        }
    }
    let of = |id| errors.iter().filter(|(request, ..)| *request == id).map(|(_, index, _)| *index).collect::<Vec<_>>();
    assert_eq!((of(full), of(cancelled)), (vec![0, 1, 2], vec![0, 1, 2, 3]));
    assert!(errors.iter().all(|(request, _, error)| match error {
        Error::CacheFull(_) => *request == full,
        Error::Cancelled(_) => *request == cancelled,
        _ => false,
    }));
    check_idle(&engine, 7);
    // The widest search, one token behind the prompt.
    let wide = engine.submit(search(vec![1, 2, 3], 256, 1)).unwrap();
    let found = run(&engine);
    assert_eq!(found.keys().filter(|(id, _)| *id == wide).count(), 256);
    let stats = engine.stats();
    assert_eq!((stats.finished as usize, stats.cancelled, stats.failed), (256, 4, 3));
}
