//! The sampler chain against exact goldens (float64, made by an independent program).

mod common;

use std::fs;
use std::sync::Arc;

use llm::Error;
use llm::sample::{Callback, Candidate, CandidateLogit, Params, Sampler, Step, logprobs};
use serde_json::Value;

fn json(file: &str) -> Value {
    serde_json::from_slice(&fs::read(common::data(&format!("sampling/{file}"))).unwrap()).unwrap()
}

/// The logits called `name`: numbers, "-inf" for masked ones, or a file of little-endian f32.
fn vector(goldens: &Value, name: &str) -> Vec<f32> {
    match &goldens["vectors"][name] {
        Value::Array(items) => items.iter().map(|x| x.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32)).collect(),
        file => {
            let path = format!("sampling/{}", file["file"].as_str().unwrap());
            let bytes = fs::read(common::data(&path)).unwrap();
            assert_eq!(bytes.len(), 4 * file["n"].as_u64().unwrap() as usize);
            bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
        }
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

/// A golden's step as ours, the tokens it supposes and the number it draws.
fn step(golden: &Value) -> (Step, Vec<u32>, Option<f64>) {
    let number = |key: &str| golden[key].as_f64().unwrap() as f32;
    let count = |key: &str| golden[key].as_u64().unwrap() as usize;
    let min_keep = golden["min_keep"].as_u64().unwrap_or(1) as usize;
    let history = || ids(&golden["history"]);
    let none = |step| (step, Vec::new(), None);
    match golden["name"].as_str().unwrap() {
        "greedy" => none(Step::Greedy),
        "temperature" => none(Step::Temperature(number("t"))),
        "dynamic_temperature" => {
            let (temperature, range, exponent) = (number("t"), number("delta"), number("exponent"));
            none(Step::DynamicTemperature { temperature, range, exponent })
        }
        "top_k" => none(Step::TopK(count("k"))),
        "top_p" => none(Step::TopP { p: number("p"), min_keep }),
        "min_p" => none(Step::MinP { p: number("p"), min_keep }),
        "typical_p" => none(Step::Typical { p: number("p"), min_keep }),
        "tail_free" => {
            let keep_crossing = golden["kobold"].as_bool().unwrap_or(false);
            none(Step::TailFree { z: number("z"), min_keep, keep_crossing })
        }
        "top_n_sigma" => none(Step::TopNSigma(number("n"))),
        "xtc" => {
            let (probability, threshold) = (number("probability"), number("threshold"));
            (Step::Xtc { probability, threshold, min_keep }, Vec::new(), golden["u"].as_f64())
        }
        "penalties" => {
            let (repeat, frequency, presence) = (number("repeat"), number("frequency"), number("presence"));
            (Step::Penalties { repeat, frequency, presence, last_n: count("last_n") }, history(), None)
        }
        "dry" => {
            let breakers: Vec<_> = golden["breakers"].as_array().unwrap().iter().map(ids).collect();
            let (multiplier, base) = (number("multiplier"), number("base"));
            let (allowed_length, last_n) = (count("allowed_length"), count("last_n"));
            (Step::Dry { multiplier, base, allowed_length, last_n, breakers: breakers.into() }, history(), None)
        }
        "logit_bias" => {
            let value = |x: &Value| x.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32);
            let pairs = golden["bias"].as_array().unwrap().iter();
            let pairs = pairs.map(|pair| (pair[0].as_u64().unwrap() as u32, value(&pair[1])));
            none(Step::LogitBias(Vec::from_iter(pairs).into()))
        }
        name => panic!("a sampler {name}"),
    }
}

/// The chain of a golden and the numbers that it draws.
fn chain(golden: &Value) -> (Sampler, Vec<f64>) {
    let mut sampler = Sampler::new(1);
    let (mut history, mut drawn) = (Vec::new(), Vec::new());
    for golden in golden.as_array().unwrap() {
        let (step, tokens, u) = step(golden);
        sampler.push(step).unwrap();
        history.extend(tokens);
        drawn.extend(u);
    }
    history.iter().for_each(|&token| sampler.accept(token));
    (sampler, drawn)
}

fn check(case: &Value, found: &[Candidate]) {
    let expect = &case["expect"];
    // The goldens' own limit.
    let dynamic = case["chain"].as_array().unwrap().iter().any(|step| step["name"] == "dynamic_temperature");
    let limit = if dynamic { 5e-5 } else { 1e-5 };
    let n = expect["n"].as_u64().unwrap() as usize;
    // All of them, or the first 40 of many.
    let (listed, p) = if expect["ids"].is_null() { ("head_ids", "head_p") } else { ("ids", "p") };
    let listed = ids(&expect[listed]);
    let p: Vec<f64> = expect[p].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    // Goldens and sampler are f64: the range that they give for sums in f32 is not needed.
    assert_eq!(found.len(), n, "candidates: {case}");
    let both = n.min(listed.len());
    let found_ids: Vec<u32> = found[..both].iter().map(|c| c.id).collect();
    assert_eq!(found_ids, listed, "{case}");
    for (c, p) in found.iter().zip(p) {
        assert!((c.probability - p).abs() <= limit, "token {}: {} not {p}: {case}", c.id, c.probability);
    }
    if let Some(sum) = expect["ids_sum"].as_u64() {
        assert_eq!(found.iter().map(|c| u64::from(c.id)).sum::<u64>(), sum, "{case}");
        let tail: f64 = found[both..].iter().map(|c| c.probability).sum();
        assert!((tail - expect["tail_p"].as_f64().unwrap()).abs() <= limit, "{case}");
    }
    assert!((found.iter().map(|c| c.probability).sum::<f64>() - 1.0).abs() < 1e-12, "{case}");
}

fn penalty(repeat: f32, last_n: usize) -> Step {
    Step::Penalties { repeat, frequency: 0.0, presence: 0.0, last_n }
}

fn dry(multiplier: f32, base: f32) -> Step {
    Step::Dry { multiplier, base, allowed_length: 2, last_n: 64, breakers: Arc::default() }
}

#[test]
fn survivors_and_probabilities_equal_the_goldens() {
    let goldens: Value = json("goldens.json");
    let mut run = 0;
    for case in goldens["cases"].as_array().unwrap() {
        let (mut sampler, drawn) = chain(&case["chain"]);
        let mut drawn = drawn.into_iter();
        let logits = vector(&goldens, case["vector"].as_str().unwrap());
        check(case, &sampler.distribution_with(&logits, &mut || drawn.next().unwrap()).unwrap());
        run += 1;
    }
    assert_eq!(run, 398, "cases that were run");
}

#[test]
fn draws_equal_the_goldens() {
    let goldens: Value = json("goldens.json");
    let mut run = 0;
    for case in json("dist.json").as_array().unwrap() {
        let (mut sampler, _) = chain(&case["chain"]);
        let logits = vector(&goldens, case["vector"].as_str().unwrap());
        let u = case["u"].as_array().unwrap().iter().map(|u| u.as_f64().unwrap());
        let drawn: Vec<u32> = u.map(|u| sampler.sample_with(&logits, &mut || u).unwrap()).collect();
        assert_eq!(drawn, ids(&case["tokens_in_probability_order"]), "{}", case["chain"]);
        run += drawn.len();
    }
    assert_eq!(run, 6 * 32, "draws that were made");
}

#[test]
fn mirostat_goes_where_the_goldens_go() {
    let goldens: Value = json("goldens.json");
    let mut run = 0;
    for case in json("mirostat.json").as_array().unwrap() {
        let number = |key: &str| case[key].as_f64().unwrap() as f32;
        let (tau, eta) = (number("tau"), number("eta"));
        let mut sampler = Sampler::new(1);
        sampler
            .push(match case["version"].as_u64() {
                Some(1) => Step::Mirostat { tau, eta, m: case["m"].as_u64().unwrap() as usize },
                _ => Step::MirostatV2 { tau, eta },
            })
            .unwrap();
        let start = sampler.mirostat_bound();
        assert!((start.unwrap() - case["mu0"].as_f64().unwrap()).abs() < 1e-12);
        let list = |key: &str| case[key].as_array().unwrap().clone();
        let scales = list("scales");
        let logits = vector(&goldens, case["vector"].as_str().unwrap());
        for (t, u) in list("u").iter().enumerate() {
            let what = format!("version {}, tau {tau}, eta {eta}, {}, step {t}", case["version"], case["vector"]);
            let scale = scales[t % scales.len()].as_f64().unwrap() as f32;
            let logits: Vec<f32> = logits.iter().map(|x| x * scale).collect();
            let mut before = sampler.clone();
            let kept = before.distribution(&logits).unwrap().len() as u64;
            assert_eq!(Some(kept), list("kept")[t].as_u64(), "{what}");
            // Where one is left nothing needs to be drawn.
            let token = sampler.sample_with(&logits, &mut || u.as_f64().unwrap_or(0.5)).unwrap();
            assert_eq!(Some(u64::from(token)), list("tokens")[t].as_u64(), "{what}");
            let (mu, expected) = (sampler.mirostat_bound().unwrap(), list("mu")[t].as_f64().unwrap());
            assert!((mu - expected).abs() <= 1e-5, "{what}: {mu} for {expected}");
            run += 1;
        }
        let bound = sampler.mirostat_bound();
        assert_ne!(bound, start);
        assert_eq!(sampler.clone().mirostat_bound(), bound);
        assert_eq!(sampler.fresh().mirostat_bound(), start);
        sampler.accept(0);
        assert_eq!(sampler.mirostat_bound(), bound);
        sampler.reset();
        assert_eq!(sampler.mirostat_bound(), start);
    }
    assert_eq!(run, 12 * 50, "steps that were made");
}

/// 2048 logits of few different values, so that equals are everywhere.
fn uneven(shift: u32) -> Vec<f32> {
    (0..2048u32).map(|i| ((i + shift).wrapping_mul(2_654_435_761) >> 27) as f32 * 0.25).collect()
}

fn text(sampler: &mut Sampler, n: u32) -> Vec<u32> {
    let mut tokens = Vec::new();
    for i in 0..n {
        let token = sampler.sample(&uneven(i)).unwrap();
        sampler.accept(token);
        tokens.push(token);
    }
    tokens
}

#[test]
fn a_seed_fixes_the_tokens() {
    let params = |seed| Params { seed, repeat_penalty: 1.2, ..Params::default() };
    let mut sampler = Sampler::usual(&params(7)).unwrap();
    let first = text(&mut sampler, 200);
    let mut copy = sampler.clone();
    let second = text(&mut sampler, 200);
    assert_ne!(second, first);
    assert_eq!(text(&mut copy, 200), second);
    sampler.reset();
    assert_eq!(text(&mut sampler, 200), first);
    assert_eq!(text(&mut Sampler::usual(&params(7)).unwrap(), 200), first);
    assert_ne!(text(&mut Sampler::usual(&params(8)).unwrap(), 200), first);
    // These very numbers, on every machine.
    assert_eq!(first[..8], SEED_7);
}

const SEED_7: [u32; 8] = [144, 1062, 629, 1149, 1127, 571, 248, 1124];

#[test]
fn equals_are_ordered_by_id_however_they_were_selected() {
    let logits = uneven(0);
    let mut sorted: Vec<u32> = (0..2048).collect();
    sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    for k in [1, 2, 31, 32, 33, 64, 65, 700, 2047, 2048, 5000, usize::MAX] {
        let mut sampler = Sampler::new(1);
        sampler.push(Step::TopK(k)).unwrap();
        let found: Vec<u32> = sampler.distribution(&logits).unwrap().iter().map(|c| c.id).collect();
        assert_eq!(found, sorted[..k.min(2048)], "k = {k}");
    }
    // Sorting everything at first, or nothing at all, gives the same draws as each other.
    let mut plain = Sampler::new(3);
    let mut whole = Sampler::new(3);
    whole.push(Step::TopK(2048)).unwrap();
    let mut share = Sampler::new(3);
    share.push(Step::TopP { p: 0.999_999, min_keep: 2048 }).unwrap();
    let drawn = text(&mut plain, 500);
    assert_eq!(drawn, text(&mut whole, 500));
    assert_eq!(drawn, text(&mut share, 500));
}

#[test]
fn a_share_that_is_reached_exactly_is_enough() {
    let mut sampler = Sampler::new(1);
    assert_eq!(
        [0.0, 0.25, 0.26, 0.5, 1.0].map(|u| sampler.sample_with(&[2.0; 4], &mut || u).unwrap()),
        [0, 0, 1, 1, 3]
    );
    sampler.push(Step::TopP { p: 0.5, min_keep: 1 }).unwrap();
    assert_eq!(sampler.distribution(&[2.0; 4]).unwrap().len(), 2);
}

#[test]
fn steps_see_logits_that_earlier_steps_changed() {
    // Sorted by top-k, then re-ordered by the penalty: 2 falls behind 0.
    let mut sampler = Sampler::new(1);
    sampler.push(Step::TopK(3)).unwrap();
    sampler.push(penalty(4.0, 2)).unwrap();
    sampler.push(Step::TopK(2)).unwrap();
    [1, 2, 3].iter().for_each(|&token| sampler.accept(token));
    let found: Vec<u32> = sampler.distribution(&[1.5, 1.0, 3.0, -2.0]).unwrap().iter().map(|c| c.id).collect();
    assert_eq!(found, [0, 1]);
}

#[test]
fn odd_logits_have_a_defined_result() {
    let nan = f32::NAN;
    let inf = f32::INFINITY;
    let mut usual = Sampler::usual(&Params { repeat_penalty: 1.5, ..Params::default() }).unwrap();
    let mut greedy = Sampler::new(0);
    greedy.push(Step::Greedy).unwrap();
    let mut zero = Sampler::new(0);
    zero.push(Step::Temperature(0.0)).unwrap();
    let mut plain = Sampler::new(0);
    for sampler in [&mut usual, &mut greedy, &mut zero, &mut plain] {
        for (logits, token) in [
            (&[nan, 1.0, nan][..], 1),
            (&[nan, -inf, nan], 0),
            (&[-inf; 100], 0),
            (&[3.0, inf, -inf], 1),
            (&[-3e38, nan, 3e38, 1.0], 2),
            (&[-5.0], 0),
        ] {
            assert_eq!(sampler.sample(logits).unwrap(), token, "{sampler:?} {logits:?}");
            let found = sampler.distribution(logits).unwrap();
            assert_eq!(found, [Candidate { id: token, probability: 1.0 }], "{sampler:?} {logits:?}");
        }
        let Err(Error::InvalidArgument(_)) = sampler.sample(&[]) else { panic!("no logits") };
    }
    // Beyond f64's range the largest become equal.
    let mut wild = Sampler::new(0);
    for _ in 0..12 {
        wild.push(Step::Temperature(f32::MIN_POSITIVE)).unwrap();
    }
    let found = wild.distribution(&[3.0, inf, -inf, -1.0]).unwrap();
    assert_eq!(found, [0, 1].map(|id| Candidate { id, probability: 0.5 }));
}

#[test]
fn parameters_out_of_range_are_refused_with_facts() {
    let nan = f32::NAN;
    let bad = [
        (Step::Temperature(nan), "temperature"),
        (Step::Temperature(-0.5), "temperature"),
        (Step::Temperature(f32::INFINITY), "temperature"),
        (Step::TopP { p: nan, min_keep: 1 }, "top_p"),
        (Step::TopP { p: -0.1, min_keep: 1 }, "top_p"),
        (Step::TopP { p: 1.5, min_keep: 1 }, "top_p"),
        (Step::MinP { p: nan, min_keep: 1 }, "min_p"),
        (Step::MinP { p: -0.1, min_keep: 1 }, "min_p"),
        (Step::MinP { p: 2.0, min_keep: 1 }, "min_p"),
        (Step::DynamicTemperature { temperature: 1.0, range: -1.0, exponent: 1.0 }, "temperature_range"),
        (Step::DynamicTemperature { temperature: 1.0, range: 0.5, exponent: nan }, "temperature_exponent"),
        (Step::DynamicTemperature { temperature: nan, range: 0.5, exponent: 1.0 }, "temperature"),
        (Step::Typical { p: 1.5, min_keep: 1 }, "typical_p"),
        (Step::TailFree { z: nan, min_keep: 1, keep_crossing: false }, "tail_free_z"),
        (Step::TopNSigma(-1.0), "top_n_sigma"),
        (Step::Xtc { probability: 1.5, threshold: 0.1, min_keep: 1 }, "xtc_probability"),
        (Step::Xtc { probability: 0.5, threshold: nan, min_keep: 1 }, "xtc_threshold"),
        (Step::Penalties { repeat: 1.0, frequency: nan, presence: 0.0, last_n: 1 }, "frequency_penalty"),
        (Step::Penalties { repeat: 1.0, frequency: 0.0, presence: f32::INFINITY, last_n: 1 }, "presence_penalty"),
        (dry(nan, 1.75), "dry_multiplier"),
        (dry(1.0, f32::INFINITY), "dry_base"),
        (Step::LogitBias(vec![(3, nan)].into()), "logit_bias"),
        (Step::LogitBias(vec![(3, f32::INFINITY)].into()), "logit_bias"),
        (Step::Mirostat { tau: -1.0, eta: 0.1, m: 100 }, "mirostat_tau"),
        (Step::MirostatV2 { tau: 5.0, eta: nan }, "mirostat_eta"),
        (penalty(nan, 0), "repeat_penalty"),
        (penalty(0.0, 64), "repeat_penalty"),
        (penalty(-1.0, 64), "repeat_penalty"),
        (penalty(f32::INFINITY, 64), "repeat_penalty"),
    ];
    let mut sampler = Sampler::new(0);
    for (step, name) in bad {
        let Err(error @ Error::InvalidArgument(_)) = sampler.push(step.clone()) else { panic!("{step:?} was taken") };
        assert_eq!(error.fact("parameter"), Some(name));
        assert!(error.fact("found").is_some() && error.fact("expected").is_some(), "{error}");
    }
    assert!(sampler.steps().is_empty());
    for (params, name) in [
        (Params { temperature: nan, ..Params::default() }, "temperature"),
        // Also what would not be used.
        (Params { mirostat: 2, top_p: 2.0, ..Params::default() }, "top_p"),
        (Params { mirostat_tau: nan, ..Params::default() }, "mirostat_tau"),
        (Params { mirostat: 3, ..Params::default() }, "mirostat"),
    ] {
        let Err(error @ Error::InvalidArgument(_)) = Sampler::usual(&params) else { panic!("{name} was taken") };
        assert_eq!(error.fact("parameter"), Some(name));
    }
    for u in [f64::NAN, -0.1, 1.1] {
        let Err(Error::InvalidArgument(_)) = sampler.sample_with(&[1.0], &mut || u) else { panic!("u = {u}") };
    }
}

/// Every step alone on odd logits: one of the candidates, whatever they are, and probabilities that sum to 1.
#[test]
fn every_step_keeps_something_of_anything() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let steps = [
        Step::DynamicTemperature { temperature: 1.0, range: 1.0, exponent: 0.0 },
        Step::DynamicTemperature { temperature: 1.0, range: 2.0, exponent: 1.0 },
        Step::TopK(usize::MAX),
        Step::Typical { p: 0.0, min_keep: 0 },
        Step::Typical { p: 0.9, min_keep: usize::MAX },
        Step::TailFree { z: 0.0, min_keep: 0, keep_crossing: false },
        Step::TailFree { z: 0.5, min_keep: usize::MAX, keep_crossing: true },
        Step::TopNSigma(f32::MIN_POSITIVE),
        Step::Xtc { probability: 1.0, threshold: 0.0, min_keep: 0 },
        Step::Xtc { probability: 1.0, threshold: 0.5, min_keep: usize::MAX },
        Step::Penalties { repeat: f32::MAX, frequency: f32::MIN, presence: f32::MAX, last_n: usize::MAX },
        Step::Dry {
            multiplier: f32::MAX,
            base: f32::MAX,
            allowed_length: 0,
            last_n: usize::MAX,
            breakers: vec![vec![]].into(),
        },
        Step::LogitBias(vec![(0, -inf), (9999, 3.0), (0, f32::MAX)].into()),
        Step::Ban(vec![0, 9999].into()),
        Step::Ban(Vec::from_iter(0..200).into()),
        Step::Mirostat { tau: 0.0, eta: f32::MAX, m: 0 },
        Step::Mirostat { tau: 3.0, eta: 1.0, m: usize::MAX },
        Step::MirostatV2 { tau: 0.0, eta: f32::MAX },
        Step::Callback(Callback::new(move |all| all.iter_mut().for_each(|c| c.logit = nan))),
        Step::Callback(Callback::new(move |all| {
            all.iter_mut().for_each(|c| *c = CandidateLogit { id: 7, logit: inf })
        })),
    ];
    let vectors: [&[f32]; 8] = [
        &[1.0],
        &[-inf],
        &[nan, nan],
        &[-inf, 2.0, -inf],
        &[0.0; 130],
        &[3e38, -3e38, 0.0, inf],
        &[5.0, 4.0, 3.0, 2.0, 1.0],
        &[1e-40, -1e-40, 0.0],
    ];
    for step in &steps {
        for logits in vectors {
            let mut sampler = Sampler::new(3);
            sampler.push(step.clone()).unwrap();
            (0..5).for_each(|i| sampler.accept(i % 2));
            for _ in 0..3 {
                let found = sampler.distribution(logits).unwrap();
                let total: f64 = found.iter().map(|c| c.probability).sum();
                assert!((total - 1.0).abs() < 1e-12, "{step:?} {logits:?}: {found:?}");
                let token = sampler.sample(logits).unwrap();
                assert!((token as usize) < logits.len(), "{step:?} {logits:?}");
                sampler.accept(token);
            }
        }
    }
}

#[test]
fn each_step_takes_its_number_before_the_draw() {
    let mut sampler = Sampler::new(9);
    let xtc = |probability| Step::Xtc { probability, threshold: 0.1, min_keep: 1 };
    sampler.push(xtc(0.5)).unwrap();
    sampler.push(xtc(0.25)).unwrap();
    let draw = |sampler: &mut Sampler, numbers: [f64; 3]| {
        let mut numbers = numbers.into_iter();
        let token = sampler.sample_with(&[3.0, 2.0, 2.5, -9.0], &mut || numbers.next().unwrap()).unwrap();
        assert_eq!(numbers.next(), None);
        token
    };
    // Number 0 excludes the two likelier ones of the three, a number as large as the probability still does.
    assert_eq!(draw(&mut sampler, [0.9, 0.9, 0.0]), 0);
    assert_eq!(draw(&mut sampler, [0.9, 0.25, 0.0]), 1);
    assert_eq!(draw(&mut sampler, [0.5, 0.9, 0.0]), 1);
    // Steps that are off take none.
    let mut off = Sampler::new(9);
    off.push(Step::Xtc { probability: 1.0, threshold: 0.6, min_keep: 1 }).unwrap();
    off.push(xtc(0.0)).unwrap();
    let mut numbers = [0.0].into_iter();
    assert_eq!(off.sample_with(&[3.0, 2.0], &mut || numbers.next().unwrap()).unwrap(), 0);
    // The generator's: the same chain without steps that take numbers is behind by two for each draw.
    let (mut plain, mut drawn) = (Sampler::new(9), Vec::new());
    (0..6).for_each(|_| drawn.push(plain.sample(&uneven(1)).unwrap()));
    let mut never = Sampler::new(9);
    never.push(Step::Xtc { probability: f32::MIN_POSITIVE, threshold: 0.5, min_keep: 1 }).unwrap();
    never.push(Step::Xtc { probability: f32::MIN_POSITIVE, threshold: 0.5, min_keep: 1 }).unwrap();
    assert_eq!([(); 2].map(|()| never.sample(&uneven(1)).unwrap()), [drawn[2], drawn[5]]);
    // What is looked at takes nothing.
    never.reset();
    never.distribution(&uneven(1)).unwrap();
    assert_eq!(never.sample(&uneven(1)).unwrap(), drawn[2]);
    // The caller's number of the draw leaves the steps theirs.
    never.reset();
    assert_eq!(
        never.sample_with(&uneven(1), &mut || 0.0).unwrap(),
        plain.sample_with(&uneven(1), &mut || 0.0).unwrap()
    );
    assert_eq!(never.sample(&uneven(1)).unwrap(), drawn[4]);
}

#[test]
fn limits_are_met_or_passed_as_the_definitions_say() {
    let kept = |step: Step, logits: &[f32]| -> Vec<u32> {
        let mut sampler = Sampler::new(1);
        sampler.push(step).unwrap();
        sampler.distribution_with(logits, &mut || 0.0).unwrap().iter().map(|c| c.id).collect()
    };
    let flat = [1.0; 4];
    // Typical needs more than p, and of equals takes the smaller ids; top-p is content with p.
    assert_eq!(kept(Step::Typical { p: 0.5, min_keep: 1 }, &flat), [0, 1, 2]);
    assert_eq!(kept(Step::TopP { p: 0.5, min_keep: 1 }, &flat), [0, 1]);
    // A token of exactly the threshold is a top choice; of equals the last stays.
    assert_eq!(kept(Step::Xtc { probability: 1.0, threshold: 0.25, min_keep: 1 }, &flat), [3]);
    let falling = [5.0, 4.0, 3.0, 2.0, 1.0];
    let tail_free = |min_keep, keep_crossing| Step::TailFree { z: 0.0, min_keep, keep_crossing };
    assert_eq!(kept(tail_free(1, true), &falling), [0]);
    assert_eq!(kept(tail_free(4, true), &falling), [0, 1, 2, 3]);
    assert_eq!(kept(tail_free(2, false), &falling), [0, 1]);
}

/// What DRY takes off each of the tokens 0 to 7, by its definition: every place is tried.
fn dry_by_definition(step: &Step, history: &[u32]) -> Vec<(u32, f32)> {
    let Step::Dry { multiplier, base, allowed_length, last_n, ref breakers } = *step else { panic!("{step:?}") };
    let window = &history[history.len().saturating_sub(last_n)..];
    // What may repeat begins behind the last place where a breaker begins, and the longest that begins there.
    let begins = |at: usize| breakers.iter().filter(|b| window[at..].starts_with(b)).map(Vec::len).max();
    let start = (0..window.len()).rev().find_map(|at| Some(at + begins(at)?)).unwrap_or(0);
    let end = &window[start..];
    let mut penalties = vec![0f64; 8];
    for next in 1..window.len() {
        let before = &window[..next];
        let m = (0..=end.len().min(next)).rev().find(|&m| before.ends_with(&end[end.len() - m..])).unwrap();
        let token = window[next];
        if m < allowed_length || breakers.contains(&vec![token]) {
            continue;
        }
        let mut power = 1f64;
        for _ in 0..m - allowed_length {
            if power * f64::from(base) < f64::from(f32::MAX) {
                power *= f64::from(base);
            }
        }
        penalties[token as usize] = penalties[token as usize].max(f64::from(multiplier) * power);
    }
    (0..).zip(penalties.into_iter().map(|penalty| -penalty as f32)).collect()
}

#[test]
fn dry_is_its_definition() {
    let mut rng = 1u32;
    let mut below = |n: u32| {
        rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (rng >> 16) % n
    };
    let mut penalized = 0;
    for round in 0..3000 {
        let alphabet = 1 + below(4);
        let history: Vec<u32> = (0..below(40)).map(|_| below(alphabet)).collect();
        let breakers =
            (0..below(3)).map(|_| (0..below(4)).map(|_| below(alphabet)).collect::<Vec<u32>>()).collect::<Vec<_>>();
        let last_n = if round % 2 == 0 { usize::MAX } else { 1 + below(40) as usize };
        let (multiplier, base) = [(0.3, 1.1), (1e-30, 1e10), (0.5, 1.0), (0.2, 2.0)][below(4) as usize];
        let step = |breakers: Vec<Vec<u32>>| {
            let (allowed_length, breakers) = (round % 5, breakers.into());
            Step::Dry { multiplier, base, allowed_length, last_n, breakers }
        };
        let mut sampler = Sampler::new(1);
        sampler.push(step(breakers.clone())).unwrap();
        history.iter().for_each(|&token| sampler.accept(token));
        // A breaker of no tokens is none.
        let breakers = breakers.into_iter().filter(|breaker| !breaker.is_empty()).collect();
        let bias = dry_by_definition(&step(breakers), &history);
        penalized += usize::from(bias.iter().any(|(_, penalty)| *penalty < 0.0));
        let mut expected = Sampler::new(1);
        expected.push(Step::LogitBias(bias.into())).unwrap();
        let logits = [0.0; 8];
        for found in sampler.distribution(&logits).unwrap() {
            let all = expected.distribution(&logits).unwrap();
            let p = all.iter().find(|c| c.id == found.id).map_or(0.0, |c| c.probability);
            assert!((found.probability - p).abs() < 1e-6, "{:?} {history:?}: {found:?} not {p}", sampler.steps());
        }
    }
    assert!(penalized > 1000, "{penalized}");
}

#[test]
fn biases_of_a_token_add_up() {
    let logits = [1.0, 2.0, 3.0, 4.0];
    let found = |bias: &[(u32, f32)]| {
        let mut sampler = Sampler::new(1);
        // So that the tokens do not stand in their own order.
        sampler.push(Step::TopK(4)).unwrap();
        sampler.push(Step::LogitBias(bias.to_vec().into())).unwrap();
        sampler.distribution(&logits).unwrap()
    };
    assert_eq!(found(&[(2, 1.0), (0, 2.5), (9, 1.0), (2, 3.0)]), found(&[(0, 2.5), (2, 4.0)]));
    assert_eq!(
        found(&[(2, 1.0), (3, f32::NEG_INFINITY), (3, 9.0)]).iter().map(|c| c.id).collect::<Vec<_>>(),
        [2, 1, 0]
    );
}

/// However low its threshold, the top choices are not left out for one that is masked.
#[test]
fn masked_tokens_are_no_choices_to_keep() {
    for bans in [vec![2], vec![2, 3]] {
        let mut sampler = Sampler::new(1);
        sampler.push(Step::Ban(bans.into())).unwrap();
        sampler.push(Step::Xtc { probability: 1.0, threshold: 0.0, min_keep: 1 }).unwrap();
        let found = sampler.distribution(&[3.0, 1.0, 2.0, f32::NEG_INFINITY]).unwrap();
        assert_eq!(found.iter().map(|c| c.id).collect::<Vec<_>>(), [1]);
    }
}

#[test]
fn a_ban_of_everything_bans_nothing() {
    let mut sampler = Sampler::new(1);
    sampler.push(Step::Ban(vec![2, 0].into())).unwrap();
    let found = |sampler: &mut Sampler, logits: &[f32]| -> Vec<u32> {
        sampler.distribution(logits).unwrap().iter().map(|c| c.id).collect()
    };
    assert_eq!(found(&mut sampler, &[3.0, 1.0, 2.0]), [1]);
    assert_eq!(found(&mut sampler, &[3.0, f32::NEG_INFINITY, 2.0]), [0, 2]);
    assert_eq!(found(&mut sampler, &[3.0]), [0]);
}

#[test]
fn a_callers_step_sees_what_is_left_and_stands_anywhere() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let mut sampler = Sampler::new(1);
    sampler.push(Step::TopK(3)).unwrap();
    sampler
        .push(Step::Callback(Callback::new(move |candidates| {
            log.lock().unwrap().extend(candidates.iter().map(|c| (c.id, c.logit)));
            candidates.iter_mut().filter(|c| c.id == 2).for_each(|c| c.logit = 9.0);
        })))
        .unwrap();
    sampler.push(Step::TopK(1)).unwrap();
    assert_eq!(sampler.sample(&[1.0, 5.0, 3.0, 0.5, 4.0]).unwrap(), 2);
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_by_key(|(id, _)| *id);
    assert_eq!(seen, [(1, 5.0), (2, 3.0), (4, 4.0)]);
}

#[test]
fn the_usual_chain_is_its_steps_in_the_stated_order() {
    let params = Params {
        temperature_range: 0.3,
        typical_p: 0.9,
        top_n_sigma: 2.0,
        xtc_probability: 0.5,
        repeat_penalty: 1.1,
        frequency_penalty: 0.1,
        presence_penalty: 0.2,
        dry_multiplier: 0.8,
        ..Params::default()
    };
    let names = |params: &Params| -> String {
        let sampler = Sampler::usual(params).unwrap();
        let name = |step: &Step| format!("{step:?}").split([' ', '(']).next().unwrap().to_owned();
        sampler.steps().iter().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&params), "Penalties Dry TopNSigma TopK Typical TopP MinP Xtc DynamicTemperature");
    let mirostat = |mirostat| Params { mirostat, ..params.clone() };
    assert_eq!(names(&mirostat(1)), "Penalties Dry DynamicTemperature Mirostat");
    assert_eq!(names(&mirostat(2)), "Penalties Dry DynamicTemperature MirostatV2");
}

#[test]
fn the_best_of_many_are_found_whatever_stands_first() {
    // Runs that rise, fall and repeat, with what is not a number between them.
    let logits: Vec<f32> = (0..5000u32)
        .map(|i| match i % 97 {
            5 => f32::NAN,
            6 => f32::NEG_INFINITY,
            7 => f32::INFINITY,
            _ => (i.wrapping_mul(2_654_435_761) >> 25) as f32 * 0.5 + (i / 1000) as f32,
        })
        .collect();
    for logits in [&logits[..], &logits.iter().rev().copied().collect::<Vec<_>>(), &[f32::NEG_INFINITY; 700]] {
        for k in [1, 2, 40, 63, 64, 65, 300] {
            let mut fast = Sampler::new(1);
            fast.push(Step::TopK(k)).unwrap();
            // A step before it that changes nothing makes it go the long way.
            let mut slow = Sampler::new(1);
            slow.push(Step::Temperature(1.0)).unwrap();
            slow.push(Step::TopK(k)).unwrap();
            assert_eq!(fast.distribution(logits).unwrap(), slow.distribution(logits).unwrap(), "k = {k}");
        }
    }
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let logits = [1.0, 3.0, f32::NEG_INFINITY, 3.0, 2.0];
    let (own, best) = logprobs(&logits, 4, 3).unwrap();
    // 2 - ln(2 e^3 + e^2 + e)
    assert!((own.logprob - -1.9175757955891977).abs() < 1e-14);
    assert_eq!(best.iter().map(|l| l.id).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!((best[2], best[0].logprob), (own, best[1].logprob));
    assert_eq!(logprobs(&logits, 2, 0).unwrap().0.logprob, f64::NEG_INFINITY);
    assert_eq!(logprobs(&logits, 0, 9).unwrap().1.len(), 5);
    assert!(matches!(logprobs(&logits, 5, 1), Err(Error::InvalidArgument(_))));
    assert!(matches!(logprobs(&[], 0, 1), Err(Error::InvalidArgument(_))));
}

#[test]
fn only_the_last_tokens_are_penalized() {
    let mut sampler = Sampler::new(1);
    sampler.push(penalty(2.0, 3)).unwrap();
    // Far more than the sampler has to remember.
    (0..5000).for_each(|i| sampler.accept(i % 7));
    let p = |sampler: &mut Sampler| {
        let mut found = sampler.distribution(&[1.0; 7]).unwrap();
        found.sort_by_key(|c| c.id);
        found.iter().map(|c| c.probability < 1.0 / 7.0).collect::<Vec<_>>()
    };
    // 4999 % 7 = 1: the last three are 6, 0, 1.
    assert_eq!(p(&mut sampler), [true, true, false, false, false, false, true]);
    sampler.reset();
    assert_eq!(p(&mut sampler), [false; 7]);
}
