//! Embeddings against the hidden states and logits they come from.

mod common;

use std::sync::Arc;

use llm::generate::{EmbedOptions, Session, SessionOptions};
use llm::model::{CacheOptions, Model, Pooling};
use llm::{Error, KvType, Threads};

const TOKENS: [u32; 13] = [1, 5, 9, 200, 31, 77, 3, 3, 250, 8, 90, 41, 7];

fn embed(model: &Arc<Model>, pooling: Option<Pooling>, normalize: bool, chunk: usize) -> Vec<f32> {
    let options = SessionOptions {
        cache: CacheOptions { kv_type: KvType::F32, ..CacheOptions::default() },
        chunk,
        threads: Some(Threads::new(2)),
        ..SessionOptions::default()
    };
    let mut session = Session::new(Arc::clone(model), &options).unwrap();
    let d = model.config().embedding_length;
    let mut out = vec![0.0; if pooling == Some(Pooling::None) { d * TOKENS.len() } else { d }];
    session.embed(&TOKENS, EmbedOptions { pooling, normalize }, &mut out).unwrap();
    assert!(session.tokens().is_empty());
    out
}

/// An encoder's tokens see those that follow: of the last layer, too, where one alone is asked about.
#[test]
fn the_state_of_a_token_of_an_encoder_is_the_same_alone() {
    for name in ["bert", "nomic-bert"] {
        let model = common::load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")));
        let (d, states) = (model.config().embedding_length, embed(&model, Some(Pooling::None), false, 0));
        assert_eq!(embed(&model, Some(Pooling::Cls), false, 0), states[..d], "{name}");
        assert_eq!(embed(&model, Some(Pooling::Last), false, 0), states[states.len() - d..], "{name}");
    }
}

#[test]
fn pooled_states_are_those_of_the_tokens_and_give_the_logits() {
    let gguf = common::unpacked_gguf("arch/llama/model.gguf");
    let model = common::load(&gguf);
    let (d, v, n) = (model.config().embedding_length, model.config().vocab_size, TOKENS.len());
    let states = embed(&model, Some(Pooling::None), false, 0);
    for chunk in [1, 5] {
        assert_eq!(embed(&model, Some(Pooling::None), false, chunk), states);
        let mean: Vec<f32> =
            (0..d).map(|j| ((0..n).map(|t| f64::from(states[t * d + j])).sum::<f64>() / n as f64) as f32).collect();
        assert_eq!(embed(&model, Some(Pooling::Mean), false, chunk), mean);
        assert_eq!(embed(&model, None, false, chunk), mean);
        assert_eq!(embed(&model, Some(Pooling::Cls), false, chunk), states[..d]);
        let last = embed(&model, Some(Pooling::Last), false, chunk);
        assert_eq!(last, states[(n - 1) * d..]);
        let length = last.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let unit: Vec<f32> = last.iter().map(|x| (f64::from(*x) / length) as f32).collect();
        assert_eq!(embed(&model, Some(Pooling::Last), true, chunk), unit);
    }
    // The output matrix makes logits of them.
    let output = common::floats(&gguf, "output.weight");
    let options = SessionOptions {
        cache: CacheOptions { kv_type: KvType::F32, ..CacheOptions::default() },
        ..SessionOptions::default()
    };
    let mut session = Session::new(Arc::clone(&model), &options).unwrap();
    let mut logits = vec![0.0; n * v];
    session.eval(&TOKENS, &mut logits).unwrap();
    for (i, found) in logits.iter().enumerate() {
        let (state, row) = (&states[i / v * d..][..d], &output[i % v * d..][..d]);
        let exact: f64 = state.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((f64::from(*found) - exact).abs() < 1e-4, "{i}: {found} {exact}");
    }
    let mut out = vec![0.0; d];
    let error = session.embed(&TOKENS, EmbedOptions::default(), &mut out).unwrap_err();
    assert!(matches!(error, Error::FailedPrecondition(_)));
    session.reset();
    let error = session.embed(&[], EmbedOptions::default(), &mut out).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)));
    let error = session.embed(&TOKENS, EmbedOptions::default(), &mut out[1..]).unwrap_err();
    assert!(matches!(error, Error::BufferTooSmall(_)));
}
