//! Tiny models of each architecture against exact logits of an independent engine (tests/data/README.md says whose).

mod common;

use std::sync::Arc;

use common::{floats, ids, load};
use llm::generate::{Session, SessionOptions};
use llm::model::Model;
use llm::{Isa, KvType, Threads};

/// The architectures of tests/data/arch.
const NAMES: [&str; 17] = [
    "llama",
    "llama31",
    "llama-linear",
    "mistral",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "gemma2",
    "gemma3",
    "gemma3-linear",
    "phi3",
    "phi3-longrope",
    "granite",
    "stablelm",
    "starcoder2",
    "gpt2",
    "falcon",
];

fn session(model: &Arc<Model>, isa: Isa) -> Session {
    let options = SessionOptions {
        kv_type: KvType::F32,
        isa: Some(isa),
        threads: Some(Threads::new(2)),
        ..SessionOptions::default()
    };
    Session::new(Arc::clone(model), &options).unwrap()
}

/// Tokens and (T,V) logits of each case.
fn goldens(name: &str) -> [(Vec<u32>, Vec<f32>); 2] {
    let golden = common::unpacked_gguf(&format!("arch/{name}/golden.gguf"));
    [0, 1].map(|i| (ids(&golden, &format!("tokens.{i}")), floats(&golden, &format!("logits.{i}"))))
}

/// sum((a-b)^2) / sum(b^2).
fn nmse(got: &[f32], exact: &[f32]) -> f64 {
    let error: f64 = got.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    error / exact.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

#[test]
fn logits_are_exact_up_to_rounding() {
    for name in NAMES {
        let model = load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")));
        for (tokens, exact) in goldens(name) {
            assert_eq!(exact.len(), tokens.len() * 320);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let mut logits = vec![0.0; exact.len()];
                session(&model, isa).eval(&tokens, &mut logits).unwrap();
                let found = nmse(&logits, &exact);
                assert!(found <= 1e-9, "{name} on {isa}: NMSE {found:e}");
            }
        }
    }
}
