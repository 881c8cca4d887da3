//! Tiny models of each architecture against exact logits of an independent engine (tests/data/README.md says whose).

mod common;

use std::sync::Arc;

use common::{floats, ids, load};
use llm::generate::{EmbedOptions, Session, SessionOptions};
use llm::model::{CacheOptions, Model, Pooling};
use llm::{Isa, KvType, Threads};

/// The architectures of tests/data/arch.
const NAMES: [&str; 28] = [
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
    "stablelm-12b",
    "starcoder2",
    "gpt2",
    "falcon",
    "qwen2moe",
    "qwen3moe",
    "gpt-oss",
    "mixtral",
    "olmo2",
    "olmo3",
    "smollm3",
    "deepseek2-lite",
    "deepseek2-expanded",
    "deepseek3",
];

/// Those that give hidden states.
const ENCODERS: [&str; 2] = ["bert", "nomic-bert"];

fn session(model: &Arc<Model>, isa: Isa) -> Session {
    session_of(model, isa, 0)
}

fn session_of(model: &Arc<Model>, isa: Isa, chunk: usize) -> Session {
    let options = SessionOptions {
        chunk,
        cache: CacheOptions { kv_type: KvType::F32, ..CacheOptions::default() },
        isa: Some(isa),
        threads: Some(Threads::new(2)),
    };
    Session::new(Arc::clone(model), &options).unwrap()
}

/// Tokens and (T,V) logits of each case.
fn goldens(name: &str) -> [(Vec<u32>, Vec<f32>); 2] {
    let golden = common::unpacked_gguf(&format!("arch/{name}/golden.gguf"));
    [0, 1].map(|i| (ids(&golden, &format!("tokens.{i}")), floats(&golden, &format!("logits.{i}"))))
}

/// The (T,D) hidden states of `tokens`.
fn hidden(model: &Arc<Model>, isa: Isa, chunk: usize, tokens: &[u32]) -> Vec<f32> {
    let mut states = vec![0.0; tokens.len() * model.config().embedding_length];
    let options = EmbedOptions { pooling: Some(Pooling::None), normalize: false };
    session_of(model, isa, chunk).embed(tokens, options, &mut states).unwrap();
    states
}

#[test]
fn hidden_states_of_encoders_are_exact_up_to_rounding_and_need_no_chunks() {
    for name in ENCODERS {
        let model = load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")));
        let golden = common::unpacked_gguf(&format!("arch/{name}/golden.gguf"));
        for i in [0, 1] {
            let (tokens, exact) = (ids(&golden, &format!("tokens.{i}")), floats(&golden, &format!("hidden.{i}")));
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let states = hidden(&model, isa, 0, &tokens);
                let found = nmse(&states, &exact);
                assert!(found <= 1e-9, "{name} on {isa}: NMSE {found:e}");
                // A text is seen as a whole, whatever the chunk.
                assert_eq!(hidden(&model, isa, 5, &tokens), states, "{name} on {isa}");
            }
        }
        let error = session(&model, Isa::Scalar).append(&[1, 2]).unwrap_err();
        assert!(matches!(error, llm::Error::FailedPrecondition(_)), "{name}: {error}");
    }
}

#[test]
fn no_golden_is_forgotten() {
    let entries = std::fs::read_dir(common::data("arch")).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut found: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    let mut tested = [&NAMES[..], &ENCODERS].concat();
    found.sort();
    tested.sort();
    assert_eq!(found, tested);
}

/// Tokens one by one, with others and as one chunk: experts see other companions each time.
#[test]
fn experts_and_latent_vectors_do_not_depend_on_chunks() {
    for name in ["qwen2moe", "gpt-oss", "deepseek3", "deepseek2-expanded"] {
        let model = load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")));
        let [_, (tokens, _)] = goldens(name);
        let run = |isa, chunk| {
            let mut logits = vec![0.0; tokens.len() * 320];
            session_of(&model, isa, chunk).eval(&tokens, &mut logits).unwrap();
            logits
        };
        let whole = run(Isa::Scalar, 0);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for chunk in [0, 1, 7] {
                assert!(run(isa, chunk) == whole, "{name} on {isa} in chunks of {chunk}");
            }
        }
    }
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
                // The rest of the last layer is left out for tokens whose logits nobody asks for.
                let mut last = session_of(&model, isa, 7);
                last.append(&tokens).unwrap();
                assert!(
                    last.logits().unwrap() == &logits[logits.len() - 320..],
                    "{name} on {isa}: the last token alone"
                );
            }
        }
    }
}
