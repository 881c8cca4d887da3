//! The sampler chain against exact goldens (float64, made by an independent program).

mod common;

use std::collections::BTreeSet;
use std::fs;

use llm::Error;
use llm::sample::{Candidate, Params, Sampler, Step};
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

/// A golden's step as ours and the tokens it supposes; `None` if we do not have it. A later sampler adds its name.
fn step(golden: &Value) -> Option<(Step, Vec<u32>)> {
    let number = |key: &str| golden[key].as_f64().unwrap() as f32;
    let count = |key: &str| golden[key].as_u64().unwrap() as usize;
    let none = Vec::new();
    Some(match golden["name"].as_str().unwrap() {
        "greedy" => (Step::Greedy, none),
        "temperature" => (Step::Temperature(number("t")), none),
        "top_k" => (Step::TopK(count("k")), none),
        "top_p" => (Step::TopP { p: number("p"), min_keep: count("min_keep") }, none),
        "min_p" => (Step::MinP { p: number("p"), min_keep: count("min_keep") }, none),
        "penalties" if number("frequency") == 0.0 && number("presence") == 0.0 => {
            let penalty = Step::RepetitionPenalty { penalty: number("repeat"), last_n: count("last_n") };
            (penalty, ids(&golden["history"]))
        }
        _ => return None,
    })
}

fn chain(golden: &Value) -> Option<Sampler> {
    let mut sampler = Sampler::new(1);
    let mut history = Vec::new();
    for golden in golden.as_array().unwrap() {
        let (step, tokens) = step(golden)?;
        sampler.push(step).unwrap();
        history.extend(tokens);
    }
    history.iter().for_each(|&token| sampler.accept(token));
    Some(sampler)
}

fn check(case: &Value, found: &[Candidate]) {
    let expect = &case["expect"];
    let n = expect["n"].as_u64().unwrap() as usize;
    // All of them, or the first 40 of many.
    let (listed, p) = if expect["ids"].is_null() { ("head_ids", "head_p") } else { ("ids", "p") };
    let listed = ids(&expect[listed]);
    let p: Vec<f64> = expect[p].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    // Where a sum over many tokens ends near the threshold, f32 may stop earlier or later.
    let range =
        expect["n_f32"].as_array().map_or(n..=n, |r| r[0].as_u64().unwrap() as usize..=r[1].as_u64().unwrap() as usize);
    assert!(range.contains(&found.len()), "{} candidates, expected {range:?}: {case}", found.len());
    let both = found.len().min(listed.len());
    assert!(both > 0 && (both == listed.len() || found.len() < n), "{case}");
    let found_ids: BTreeSet<u32> = found[..both].iter().map(|c| c.id).collect();
    assert_eq!(found_ids, listed[..both].iter().copied().collect(), "{case}");
    for c in &found[..both] {
        let at = listed.iter().position(|&id| id == c.id).unwrap();
        assert!((c.probability - p[at]).abs() <= 1e-5, "token {}: {} not {}: {case}", c.id, c.probability, p[at]);
    }
    if let Some(sum) = expect["ids_sum"].as_u64() {
        assert_eq!(found.iter().map(|c| u64::from(c.id)).sum::<u64>(), sum, "{case}");
        let tail: f64 = found[both..].iter().map(|c| c.probability).sum();
        assert!((tail - expect["tail_p"].as_f64().unwrap()).abs() <= 1e-5, "{case}");
    }
    assert!((found.iter().map(|c| c.probability).sum::<f64>() - 1.0).abs() < 1e-12, "{case}");
}

#[test]
fn survivors_and_probabilities_equal_the_goldens() {
    let goldens: Value = json("goldens.json");
    let mut run = 0;
    for case in goldens["cases"].as_array().unwrap() {
        let Some(mut sampler) = chain(&case["chain"]) else { continue };
        check(case, &sampler.distribution(&vector(&goldens, case["vector"].as_str().unwrap())).unwrap());
        run += 1;
    }
    assert_eq!(run, 141, "cases that were run");
}

#[test]
fn draws_equal_the_goldens() {
    let goldens: Value = json("goldens.json");
    let mut run = 0;
    for case in json("dist.json").as_array().unwrap() {
        let Some(mut sampler) = chain(&case["chain"]) else { continue };
        let logits = vector(&goldens, case["vector"].as_str().unwrap());
        let u = case["u"].as_array().unwrap().iter().map(|u| u.as_f64().unwrap());
        let drawn: Vec<u32> = u.map(|u| sampler.sample_at(&logits, u).unwrap()).collect();
        assert_eq!(drawn, ids(&case["tokens_in_probability_order"]), "{}", case["chain"]);
        run += drawn.len();
    }
    assert_eq!(run, 6 * 32, "draws that were made");
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
    assert_eq!([0.0, 0.25, 0.26, 0.5, 1.0].map(|u| sampler.sample_at(&[2.0; 4], u).unwrap()), [0, 0, 1, 1, 3]);
    sampler.push(Step::TopP { p: 0.5, min_keep: 1 }).unwrap();
    assert_eq!(sampler.distribution(&[2.0; 4]).unwrap().len(), 2);
}

#[test]
fn steps_see_logits_that_earlier_steps_changed() {
    // Sorted by top-k, then re-ordered by the penalty: 2 falls behind 0.
    let mut sampler = Sampler::new(1);
    sampler.push(Step::TopK(3)).unwrap();
    sampler.push(Step::RepetitionPenalty { penalty: 4.0, last_n: 2 }).unwrap();
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
        (Step::RepetitionPenalty { penalty: nan, last_n: 0 }, "repeat_penalty"),
        (Step::RepetitionPenalty { penalty: 0.0, last_n: 64 }, "repeat_penalty"),
        (Step::RepetitionPenalty { penalty: -1.0, last_n: 64 }, "repeat_penalty"),
        (Step::RepetitionPenalty { penalty: f32::INFINITY, last_n: 64 }, "repeat_penalty"),
    ];
    let mut sampler = Sampler::new(0);
    for (step, name) in bad {
        let Err(error @ Error::InvalidArgument(_)) = sampler.push(step) else { panic!("{step:?} was taken") };
        assert_eq!(error.fact("parameter"), Some(name));
        assert!(error.fact("found").is_some() && error.fact("expected").is_some(), "{error}");
    }
    assert!(sampler.steps().is_empty());
    let Err(Error::InvalidArgument(_)) = Sampler::usual(&Params { temperature: nan, ..Params::default() }) else {
        panic!("NaN temperature")
    };
    for u in [f64::NAN, -0.1, 1.1] {
        let Err(Error::InvalidArgument(_)) = sampler.sample_at(&[1.0], u) else { panic!("u = {u}") };
    }
}

#[test]
fn only_the_last_tokens_are_penalized() {
    let mut sampler = Sampler::new(1);
    sampler.push(Step::RepetitionPenalty { penalty: 2.0, last_n: 3 }).unwrap();
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
