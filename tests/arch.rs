//! Tiny models of each architecture against exact logits of an independent engine (tests/data/README.md).

use std::path::PathBuf;
use std::sync::Arc;

use llm::generate::{Session, SessionOptions};
use llm::gguf::Gguf;
use llm::model::{LoadOptions, Model};
use llm::{Isa, KvType, Threads};

/// The architectures of tests/data/arch.
const NAMES: [&str; 6] = ["llama", "llama31", "mistral", "qwen2", "qwen3", "gemma3"];

fn open(name: &str, file: &str) -> Gguf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch").join(name).join(file);
    Gguf::open(&path).unwrap()
}

fn load(name: &str) -> Arc<Model> {
    let gguf = open(name, "model.gguf");
    Arc::new(Model::load(&gguf, &LoadOptions::default(), |_, _| std::ops::ControlFlow::Continue(())).unwrap())
}

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
fn goldens(name: &str) -> Vec<(Vec<u32>, Vec<f32>)> {
    let golden = open(name, "golden.gguf");
    let cases = (0..2).map(|i| {
        let tokens = golden.tensor(&format!("tokens.{i}")).unwrap();
        let mut bytes = vec![0; tokens.bytes as usize];
        golden.read(tokens, 0, &mut bytes).unwrap();
        let tokens = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        (tokens, golden.decode(golden.tensor(&format!("logits.{i}")).unwrap()).unwrap())
    });
    cases.collect()
}

/// sum((a-b)^2) / sum(b^2).
fn nmse(got: &[f32], exact: &[f32]) -> f64 {
    let error: f64 = got.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    error / exact.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

#[test]
fn logits_are_exact_up_to_rounding() {
    for name in NAMES {
        let model = load(name);
        for (tokens, exact) in goldens(name) {
            assert_eq!(exact.len(), tokens.len() * 320);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let mut logits = vec![0.0; exact.len()];
                session(&model, isa).eval(&tokens, &mut logits).unwrap();
                let found = nmse(&logits, &exact);
                println!("{name} {isa} {found:e}");
                assert!(found <= 1e-9, "{name} on {isa}: NMSE {found:e}");
            }
        }
    }
}
