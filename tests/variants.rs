//! Files that say the same in other ways, as older or newer converters write it, compute the same.

mod common;

use std::sync::Arc;

use llm::generate::{EmbedOptions, Session, SessionOptions};
use llm::gguf::{Builder, Gguf};
use llm::model::{CacheOptions, LoadOptions, Model, Pooling};
use llm::{Error, Threads};

fn gguf(name: &str) -> Gguf {
    common::unpacked_gguf(&format!("arch/{name}/model.gguf"))
}

/// A tensor of F32.
struct Tensor {
    name: String,
    dims: Vec<u64>,
    values: Vec<f32>,
}

/// The file with other keys and tensors.
fn changed(gguf: &Gguf, keys: impl Fn(&mut Builder), tensors: impl Fn(&mut Vec<Tensor>)) -> Gguf {
    let mut builder = Builder::new();
    builder.copy_keys(gguf).unwrap();
    keys(&mut builder);
    let mut all: Vec<Tensor> = (gguf.tensors().iter())
        .map(|tensor| Tensor {
            name: tensor.name.clone(),
            dims: tensor.dims.to_vec(),
            values: gguf.decode(tensor).unwrap(),
        })
        .collect();
    tensors(&mut all);
    all.iter().for_each(|tensor| builder.add_tensor(&tensor.name, 0, &tensor.dims).unwrap());
    let path = common::scratch("variant.gguf");
    let mut writer = builder.create(&path).unwrap();
    for tensor in all {
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
    let gguf = Gguf::from_bytes(std::fs::read(&path).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    gguf
}

fn with_keys(gguf: &Gguf, keys: impl Fn(&mut Builder)) -> Gguf {
    changed(gguf, keys, |_| {})
}

fn session(gguf: &Gguf) -> Session {
    let options = SessionOptions { threads: Some(Threads::new(1)), ..SessionOptions::default() };
    Session::new(common::load(gguf), &options).unwrap()
}

/// The bits of the logits of some tokens.
fn logits(gguf: &Gguf) -> Vec<u32> {
    let mut session = session(gguf);
    let n = session.context_length().min(90) as u32;
    let tokens: Vec<u32> = (0..n).map(|i| (i * i * 7 + 3) % 300).collect();
    let mut logits = vec![0.0; tokens.len() * session.model().config().vocab_size];
    session.eval(&tokens, &mut logits).unwrap();
    logits.iter().map(|x| x.to_bits()).collect()
}

fn load(gguf: &Gguf) -> llm::Result<Arc<Model>> {
    Model::load(gguf, &LoadOptions::default(), |_, _| std::ops::ControlFlow::Continue(())).map(Arc::new)
}

/// The scales of NVFP4 files: of a tensor's products, or of each of its experts'.
#[test]
fn products_are_scaled_before_the_bias() {
    for (name, parts) in [
        ("qwen2", &["blk.0.attn_q", "blk.1.ffn_down", "token_embd"][..]),
        ("qwen3moe", &["blk.0.ffn_up_exps", "blk.1.ffn_down_exps"]),
        ("phi3", &["blk.1.attn_qkv", "blk.0.ffn_up"]),
        ("deepseek3", &["blk.0.attn_q_a", "blk.0.attn_k_b", "blk.1.attn_v_b"]),
        ("deepseek2-expanded", &["blk.0.attn_kv_b", "blk.1.attn_kv_b"]),
    ] {
        let original = gguf(name);
        let scaled = changed(
            &original,
            |_| {},
            |tensors| {
                for part in parts {
                    let at = tensors.iter().position(|t| t.name == format!("{part}.weight"));
                    let at = at.unwrap_or_else(|| panic!("{name} has no {part}"));
                    let count = tensors[at].dims.get(2).map_or(1, |n| *n as usize);
                    let each = tensors[at].values.len() / count;
                    // Powers of two, another for each matrix.
                    let scales: Vec<f32> = (0..count).map(|i| 2f32.powi(i as i32 % 3 + 1)).collect();
                    for (values, scale) in tensors[at].values.chunks_mut(each).zip(&scales) {
                        values.iter_mut().for_each(|value| *value /= scale);
                    }
                    let name = |end: &str| format!("{part}.{end}");
                    tensors.push(Tensor { name: name("scale"), dims: vec![count as u64], values: scales });
                    let values = vec![0.5; count];
                    tensors.push(Tensor { name: name("input_scale"), dims: vec![count as u64], values });
                }
            },
        );
        assert!(scaled.tensors().len() >= original.tensors().len() + 2 * parts.len(), "{name}");
        assert!(logits(&scaled) == logits(&original), "{name}");
    }
}

/// Layers that predict further tokens are the last of `block_count`, with tensors or without, or lie behind it.
#[test]
fn layers_that_predict_further_tokens_do_nothing() {
    let original = gguf("llama");
    let expected = logits(&original);
    let layers = original.u32("llama.block_count").unwrap().unwrap();
    let predicting = |n: u32, count: u32| {
        move |builder: &mut Builder| {
            builder.set("llama.nextn_predict_layers", n).unwrap();
            builder.set("llama.block_count", count).unwrap();
        }
    };
    let layer = |tensors: &mut Vec<Tensor>| {
        let first = tensors.iter().filter(|tensor| tensor.name.starts_with("blk.0."));
        let copied = |tensor: &Tensor| Tensor {
            name: tensor.name.replace("blk.0.", &format!("blk.{layers}.")),
            dims: tensor.dims.clone(),
            values: tensor.values.clone(),
        };
        let mut more: Vec<Tensor> = first.map(copied).collect();
        more.push(Tensor {
            name: format!("blk.{layers}.nextn.eh_proj.weight"),
            dims: vec![2, 2],
            values: vec![0.5; 4],
        });
        tensors.extend(more);
    };
    assert!(logits(&changed(&original, predicting(1, layers + 1), layer)) == expected, "within");
    assert!(logits(&with_keys(&original, predicting(1, layers + 1))) == expected, "left out");
    assert!(logits(&changed(&original, predicting(1, layers), layer)) == expected, "behind");
}

/// Gemma 2's first files, from before its keys.
#[test]
fn what_gemma_2_leaves_out_is_known() {
    let keys = ["attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"];
    let original = gguf("gemma2");
    let said = with_keys(&original, |builder| {
        builder.set("gemma2.attn_logit_softcapping", 50f32).unwrap();
        builder.set("gemma2.final_logit_softcapping", 30f32).unwrap();
        builder.set("gemma2.attention.sliding_window", 4096u32).unwrap();
    });
    let expected = logits(&said);
    let without =
        with_keys(&original, |builder| keys.iter().for_each(|key| _ = builder.remove(&format!("gemma2.{key}"))));
    assert!(logits(&without) == expected);
    // A window is only seen by a text that is longer.
    let last = |gguf: &Gguf, window: Option<u32>| {
        let long = with_keys(gguf, |builder| {
            builder.set("gemma2.context_length", 8192u32).unwrap();
            if let Some(window) = window {
                builder.set("gemma2.attention.sliding_window", window).unwrap();
            }
        });
        let options = SessionOptions {
            cache: CacheOptions { context_length: 4400, ..CacheOptions::default() },
            threads: Some(Threads::new(1)),
            ..SessionOptions::default()
        };
        let mut session = Session::new(common::load(&long), &options).unwrap();
        session.append(&(0..4400).map(|i| (i * i * 7 + 3) % 300).collect::<Vec<u32>>()).unwrap();
        session.logits().unwrap().to_vec()
    };
    assert!(last(&without, None) == last(&said, None) && last(&without, None) != last(&said, Some(4100)));
    for key in keys {
        // What is 0 is off; a window of 8 is seen soon.
        let off = with_keys(&said, |builder| match key {
            "attention.sliding_window" => builder.set("gemma2.attention.sliding_window", 8u32).unwrap(),
            _ => builder.set(&format!("gemma2.{key}"), 0f32).unwrap(),
        });
        assert!(logits(&off) != expected, "{key} counts");
    }
}

#[test]
fn routing_that_a_file_does_not_tell_is_known() {
    let original = gguf("deepseek3");
    let without = with_keys(&original, |builder| assert!(builder.remove("deepseek2.expert_gating_func")));
    assert!(logits(&without) == logits(&original));
    let softmax = with_keys(&original, |builder| builder.set("deepseek2.expert_gating_func", 1u32).unwrap());
    assert!(logits(&softmax) != logits(&original));
    for arch in ["qwen2moe", "qwen3moe"] {
        let original = gguf(arch);
        let number = |key: &str| original.u32(&format!("{arch}.{key}")).unwrap().unwrap();
        let all = number("expert_feed_forward_length") * number("expert_used_count");
        let older = with_keys(&original, |builder| {
            assert!(builder.remove(&format!("{arch}.expert_feed_forward_length")));
            builder.set(&format!("{arch}.feed_forward_length"), all).unwrap();
        });
        assert!(logits(&older) == logits(&original), "{arch}");
    }
}

#[test]
fn scaling_of_positions_that_a_file_does_not_name_is_linear() {
    let original = gguf("llama-linear");
    let unnamed = with_keys(&original, |builder| assert!(builder.remove("llama.rope.scaling.type")));
    assert!(logits(&unnamed) == logits(&original));
    let none = with_keys(&original, |builder| builder.set("llama.rope.scaling.type", "none").unwrap());
    assert!(logits(&none) != logits(&original));
    // A factor below 1 makes attention no less sharp: all pairs turn too slowly here to be scaled.
    let yarn = |kind: &str| {
        with_keys(&gguf("qwen2-yarn"), |builder| {
            builder.set("qwen2.rope.scaling.type", kind).unwrap();
            builder.set("qwen2.rope.scaling.factor", 0.5f32).unwrap();
            builder.set("qwen2.rope.scaling.yarn_beta_fast", 1e-30f32).unwrap();
            builder.set("qwen2.rope.scaling.yarn_beta_slow", 1e-30f32).unwrap();
        })
    };
    assert!(logits(&yarn("yarn")) == logits(&yarn("none")) && logits(&yarn("none")) != logits(&yarn("linear")));
}

/// The factor of cosines and sines that Hugging Face calls `attention_factor`, in place of 0.1 ln(factor) + 1.
#[test]
fn a_file_states_how_yarn_sharpens_attention() {
    let original = gguf("qwen2-yarn");
    let key = |name: &str| format!("qwen2.rope.scaling.{name}");
    let stated = |name: &str, value: f32| with_keys(&original, |builder| builder.set(&key(name), value).unwrap());
    assert_eq!(original.f32(&key("factor")).unwrap(), Some(4.0));
    assert!(logits(&stated("yarn_attn_factor", 1.0)) != logits(&original));
    // Both factors count: what one takes back the other gives.
    let both = with_keys(&original, |builder| {
        builder.set(&key("yarn_attn_factor"), 0.5f32).unwrap();
        builder.set(&key("attn_factor"), 2f32).unwrap();
    });
    assert!(logits(&both) == logits(&stated("yarn_attn_factor", 1.0)));
    // 0.1 ln(4) + 1.
    let near = logits(&stated("yarn_attn_factor", 1.138_629_4));
    let distance = |a: &[u32], b: &[u32]| {
        let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(f32::from_bits(*a)), f64::from(f32::from_bits(*b))));
        pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / pairs().map(|(_, b)| b * b).sum::<f64>()
    };
    assert!(distance(&near, &logits(&original)) < 1e-9);
    assert!(logits(&stated("yarn_ext_factor", 1.0)) == logits(&original));
    for value in [0.0, 0.5] {
        let error = load(&stated("yarn_ext_factor", value)).err().unwrap();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
        assert_eq!(error.fact("key"), Some(&*key("yarn_ext_factor")));
    }
    // As llama.cpp writes what was not stated.
    let unset = with_keys(&original, |builder| {
        builder.set(&key("yarn_ext_factor"), -1f32).unwrap();
        builder.set(&key("yarn_attn_factor"), 1f32).unwrap();
    });
    assert!(logits(&unset) == logits(&original));
}

#[test]
fn a_granite_file_turns_rotation_off() {
    let finetuned = |name: &str, value: bool| {
        with_keys(&gguf(name), |builder| builder.set(&format!("{name}.rope.scaling.finetuned"), value).unwrap())
    };
    assert!(logits(&finetuned("granite", true)) == logits(&gguf("granite")));
    let unrotated = finetuned("granite", false);
    assert!(logits(&unrotated) != logits(&gguf("granite")));
    // Frequencies count no more.
    let other = |gguf: &Gguf| with_keys(gguf, |builder| builder.set("granite.rope.freq_base", 123f32).unwrap());
    assert!(logits(&other(&unrotated)) == logits(&unrotated));
    assert!(logits(&other(&gguf("granite"))) != logits(&gguf("granite")));
    // To others the key says where the weights come from.
    assert!(logits(&finetuned("qwen2", false)) == logits(&gguf("qwen2")));
}

/// Layers with a window have the base that a file states for them, scaled as the others.
#[test]
fn layers_with_a_window_have_a_rotary_base_of_their_own() {
    for name in ["gemma2", "gpt-oss"] {
        let base = |keys: &[(&str, f32)]| {
            with_keys(&gguf(name), |builder| {
                keys.iter().for_each(|(key, value)| builder.set(&format!("{name}.rope.{key}"), *value).unwrap());
            })
        };
        let of_windows = logits(&base(&[("freq_base_swa", 123.0)]));
        assert!(logits(&base(&[("freq_base_swa", 10_000.0)])) == logits(&gguf(name)), "{name}");
        assert!(of_windows != logits(&gguf(name)) && of_windows != logits(&base(&[("freq_base", 123.0)])), "{name}");
        let all = base(&[("freq_base", 123.0), ("freq_base_swa", 123.0)]);
        assert!(logits(&all) == logits(&base(&[("freq_base", 123.0)])), "{name}");
    }
    let other = with_keys(&gguf("qwen2"), |builder| builder.set("qwen2.rope.freq_base_swa", 123f32).unwrap());
    assert_eq!(load(&other).err().unwrap().fact("key"), Some("qwen2.rope.freq_base_swa"));
}

/// A decoder that was trained to see the whole text gives embeddings, as an encoder.
#[test]
fn tokens_see_later_ones_where_the_file_says_so() {
    let original = gguf("qwen3");
    let file = with_keys(&original, |builder| builder.set("qwen3.attention.causal", false).unwrap());
    let states = |gguf: &Gguf, tokens: &[u32]| {
        let mut session = session(gguf);
        let mut states = vec![0.0; tokens.len() * session.model().config().embedding_length];
        let options = EmbedOptions { pooling: Some(Pooling::None), normalize: false };
        session.embed(tokens, options, &mut states).unwrap();
        states
    };
    // The same token at each end, a word between: what comes later changes the first state, and only here.
    let (one, two) = ([5, 6, 7, 8, 9], [5, 6, 7, 8, 44]);
    let width = states(&original, &[5]).len();
    assert!(states(&file, &one)[..width] != states(&file, &two)[..width]);
    assert!(states(&original, &one)[..width] == states(&original, &two)[..width]);
    assert!(states(&file, &[5]) == states(&original, &[5]));
    let causal = with_keys(&original, |builder| builder.set("qwen3.attention.causal", true).unwrap());
    assert!(logits(&causal) == logits(&original));
    assert!(matches!(session(&file).append(&[1, 2]), Err(Error::FailedPrecondition(_))));
    let windowed = with_keys(&gguf("gemma2"), |builder| builder.set("gemma2.attention.causal", false).unwrap());
    assert!(matches!(load(&windowed), Err(Error::Unsupported(_))));
}

/// Where nothing is rotated, a head may have any length.
#[test]
fn heads_of_odd_length_need_no_rotation() {
    let width = gguf("gpt2").u32("gpt2.embedding_length").unwrap().unwrap();
    let odd = with_keys(&gguf("gpt2"), |builder| builder.set("gpt2.attention.head_count", width).unwrap());
    assert!(logits(&odd) != logits(&gguf("gpt2")));
    let rotated = with_keys(&gguf("starcoder2"), |builder| {
        builder.set("starcoder2.rope.dimension_count", 3u32).unwrap();
    });
    assert_eq!(load(&rotated).err().unwrap().fact("key"), Some("starcoder2.rope.dimension_count"));
}

/// Each matrix takes memory beside its weights, of which tiny ones have next to none.
#[test]
fn a_model_of_too_many_matrices_is_refused() {
    let tiny = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let file = |layers: u32| {
        changed(
            &tiny,
            |builder| {
                for (key, value) in [
                    ("block_count", layers),
                    ("embedding_length", 2),
                    ("feed_forward_length", 1),
                    ("attention.head_count", 1),
                    ("attention.head_count_kv", 1),
                    ("rope.dimension_count", 2),
                    ("expert_count", 8192),
                    ("expert_used_count", 1),
                ] {
                    builder.set(&format!("llama.{key}"), value).unwrap();
                }
            },
            |tensors| {
                let vocab = tensors.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap().dims[1];
                tensors.clear();
                let mut add = |name: String, dims: &[u64]| {
                    let values = vec![0.5; dims.iter().product::<u64>() as usize];
                    tensors.push(Tensor { name, dims: dims.to_vec(), values });
                };
                add("token_embd.weight".to_owned(), &[2, vocab]);
                add("output_norm.weight".to_owned(), &[2]);
                for l in 0..layers {
                    for (part, dims) in [
                        ("attn_norm", &[2][..]),
                        ("attn_q", &[2, 2]),
                        ("attn_k", &[2, 2]),
                        ("attn_v", &[2, 2]),
                        ("attn_output", &[2, 2]),
                        ("ffn_norm", &[2]),
                        ("ffn_gate_inp", &[2, 8192]),
                        ("ffn_gate_exps", &[2, 1, 8192]),
                        ("ffn_up_exps", &[2, 1, 8192]),
                        ("ffn_down_exps", &[1, 2, 8192]),
                    ] {
                        add(format!("blk.{l}.{part}.weight"), dims);
                    }
                }
            },
        )
    };
    load(&file(1)).unwrap();
    let error = load(&file(11)).err().unwrap();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert_eq!(error.fact("tensor"), Some("blk.10.ffn_up_exps.weight"));
}
