//! The time of one draw from a large vocabulary, and of log probabilities, on one thread: `cargo bench --bench sampling`.

use std::hint::black_box;
use std::time::Instant;

use llm::Result;
use llm::sample::{Params, Sampler, logprobs};

const VOCAB_SIZE: usize = 262_144;
const DRAWS: usize = 201;

/// Logits of a normal distribution (the sum of 12 uniform numbers, Irwin and Hall) with a deviation of 3.
fn gaussian() -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..VOCAB_SIZE).map(|_| 3.0 * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect()
}

/// The same with a few tokens that have nearly all of the probability.
fn peaked() -> Vec<f32> {
    let mut logits = gaussian();
    for (i, token) in [200_000, 17, 99_999, 262_143, 4_096].into_iter().enumerate() {
        logits[token] = 30.0 - 2.0 * i as f32;
    }
    logits
}

/// The worst order for a selection: each logit is above all before it.
fn ascending() -> Vec<f32> {
    let mut logits = gaussian();
    logits.sort_by(f32::total_cmp);
    logits
}

/// Of `f`, in milliseconds.
fn median(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[DRAWS / 2].as_secs_f64() * 1e3)
}

fn main() -> Result<()> {
    let usual = Params::default();
    let everything = Params {
        repeat_penalty: 1.1,
        dry_multiplier: 0.8,
        top_n_sigma: 2.0,
        typical_p: 0.95,
        xtc_probability: 0.5,
        temperature_range: 0.3,
        ..usual.clone()
    };
    let chains = [
        ("usual", Sampler::usual(&usual)?),
        ("greedy", Sampler::usual(&Params { temperature: 0.0, ..usual.clone() })?),
        ("with a penalty", Sampler::usual(&Params { repeat_penalty: 1.1, ..usual.clone() })?),
        ("with everything", Sampler::usual(&everything)?),
        ("top-p without top-k", Sampler::usual(&Params { top_k: 0, ..usual.clone() })?),
        ("mirostat 1", Sampler::usual(&Params { mirostat: 1, ..usual.clone() })?),
        ("mirostat 2", Sampler::usual(&Params { mirostat: 2, ..usual.clone() })?),
        ("temperature alone", Sampler::usual(&Params { top_k: 0, top_p: 1.0, min_p: 0.0, ..usual.clone() })?),
        ("no steps", Sampler::new(0)),
    ];
    let vectors = [("gaussian", gaussian()), ("peaked", peaked()), ("ascending", ascending())];
    println!("milliseconds of a draw from {VOCAB_SIZE} tokens, median of {DRAWS}\n");
    print!("{:24}", "chain");
    vectors.iter().for_each(|(name, _)| print!("{name:>12}"));
    println!();
    for (name, sampler) in chains {
        print!("{name:24}");
        for (_, logits) in &vectors {
            let mut sampler = sampler.fresh();
            let draw = || {
                let token = black_box(sampler.sample(black_box(logits))?);
                sampler.accept(token);
                Ok(())
            };
            print!("{:12.3}", median(draw)?);
        }
        println!();
    }
    print!("{:24}", "log probabilities");
    for (_, logits) in &vectors {
        print!("{:12.3}", median(|| logprobs(black_box(logits), 0, 5).map(|_| ()))?);
    }
    println!();
    Ok(())
}
