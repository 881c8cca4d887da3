//! LoRA adapters against models whose weights they are merged into, in f64.

mod common;

use std::sync::Arc;

use common::load;
use llm::generate::{Session, SessionOptions};
use llm::gguf::{Builder, Gguf};
use llm::model::{CacheOptions, Lora, Model};
use llm::{Error, Isa, KvType, Threads};

const TOKENS: [u32; 13] = [1, 5, 9, 200, 31, 77, 3, 3, 250, 8, 90, 41, 7];
const ALPHA: f32 = 6.0;

/// Numbers in -0.5..0.5.
fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// A tensor of a file: name, columns, rows, values.
type Tensor = (String, usize, usize, Vec<f32>);

/// The file of an adapter, in F32.
fn file(architecture: &str, alpha: f32, tensors: &[Tensor]) -> Gguf {
    let text = |out: &mut Vec<u8>, s: &str| {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    };
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(4u64.to_le_bytes());
    for (key, value) in [("general.architecture", architecture), ("general.type", "adapter"), ("adapter.type", "lora")]
    {
        text(&mut out, key);
        out.extend(8u32.to_le_bytes());
        text(&mut out, value);
    }
    text(&mut out, "adapter.lora.alpha");
    out.extend(6u32.to_le_bytes());
    out.extend(alpha.to_le_bytes());
    let mut data: Vec<u8> = Vec::new();
    for (name, columns, rows, values) in tensors {
        assert_eq!(values.len(), columns * rows);
        text(&mut out, name);
        out.extend(2u32.to_le_bytes());
        out.extend((*columns as u64).to_le_bytes());
        out.extend((*rows as u64).to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    Gguf::from_bytes(out).unwrap()
}

/// A and B of each named tensor of the model, of rank `rank` and more.
fn random_pairs(base: &Gguf, names: &[String], rank: usize, seed: u64) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let (tensor, r) = (base.tensor(name).unwrap(), rank + i % 3);
        let (columns, rows) = (tensor.row_len(), tensor.rows());
        let (a, b) = if name == "token_embd.weight" { ([r, rows], [r, columns]) } else { ([columns, r], [r, rows]) };
        for (part, [columns, rows], k) in [("a", a, 0), ("b", b, 1)] {
            let values = random(seed + 2 * i as u64 + k, columns * rows);
            tensors.push((format!("{name}.lora_{part}"), columns, rows, values));
        }
    }
    tensors
}

/// The model's file with W + scale * alpha / R * B A in the place of W.
fn merged(mut bytes: Vec<u8>, pairs: &[Tensor], scale: f32) -> Vec<u8> {
    let base = Gguf::from_bytes(bytes.clone()).unwrap();
    for pair in pairs.chunks_exact(2) {
        let [(name, _, _, a), (_, r, _, b)] = pair else { unreachable!() };
        let name = name.strip_suffix(".lora_a").unwrap();
        let tensor = base.tensor(name).unwrap();
        let columns = tensor.row_len();
        let s = f64::from(scale) * f64::from(ALPHA) / *r as f64;
        for (i, w) in
            bytes[tensor.offset as usize..][..tensor.bytes as usize].as_chunks_mut::<4>().0.iter_mut().enumerate()
        {
            let (row, column) = (i / columns, i % columns);
            let delta: f64 = (0..*r)
                .map(|k| match name {
                    "token_embd.weight" => f64::from(a[row * r + k]) * f64::from(b[column * r + k]),
                    _ => f64::from(a[k * columns + column]) * f64::from(b[row * r + k]),
                })
                .sum();
            *w = ((f64::from(f32::from_le_bytes(*w)) + s * delta) as f32).to_le_bytes();
        }
    }
    bytes
}

/// The logits of all tokens.
fn logits(model: &Arc<Model>, loras: &[(&Arc<Lora>, f32)], isa: Isa, threads: usize, chunk: usize) -> Vec<f32> {
    let options = SessionOptions {
        cache: CacheOptions { kv_type: KvType::F32, ..CacheOptions::default() },
        isa: Some(isa),
        threads: Some(Threads::new(threads)),
        chunk,
    };
    let mut session = Session::new(Arc::clone(model), &options).unwrap();
    for (lora, scale) in loras {
        session.add_lora(Arc::clone(lora), *scale).unwrap();
    }
    let mut out = vec![0.0; TOKENS.len() * model.config().vocab_size];
    session.eval(&TOKENS, &mut out).unwrap();
    out
}

fn nmse(found: &[f32], exact: &[f32]) -> f64 {
    let error: f64 = found.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    error / exact.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The matrices of the blocks, and the output where the file has one.
fn matrices(base: &Gguf) -> Vec<String> {
    let names = base.tensors().iter().filter(|t| t.dims.len() == 2).map(|t| t.name.clone());
    names.filter(|n| n.starts_with("blk.") || n == "output.weight").collect()
}

#[test]
fn an_adapter_is_as_merged_weights() {
    for name in ["llama", "phi3", "gpt2", "starcoder2", "gemma3"] {
        let bytes = common::unpacked(&format!("arch/{name}/model.gguf"));
        let base = Gguf::from_bytes(bytes.clone()).unwrap();
        let model = load(&base);
        let mut names = matrices(&base);
        if base.tensor("output.weight").is_some() {
            names.push("token_embd.weight".to_owned());
        }
        let (one, two) = (random_pairs(&base, &names, 2, 11), random_pairs(&base, &names, 3, 900));
        let [first, second] =
            [&one, &two].map(|pairs| Arc::new(Lora::load(&file(model.architecture(), ALPHA, pairs), &model).unwrap()));
        let exact = load(&Gguf::from_bytes(merged(bytes.clone(), &one, 0.02)).unwrap());
        let exact = logits(&exact, &[], Isa::Scalar, 1, 0);
        let plain = logits(&model, &[], Isa::Scalar, 1, 0);
        let found = logits(&model, &[(&first, 0.02)], Isa::Scalar, 1, 0);
        assert!(nmse(&plain, &exact) > 1e-4, "{name}: the adapter changes nothing");
        assert!(nmse(&found, &exact) < 1e-10, "{name}: {:e}", nmse(&found, &exact));
        // Two add up.
        let both = load(&Gguf::from_bytes(merged(merged(bytes, &one, 0.02), &two, -0.01)).unwrap());
        let both = logits(&both, &[], Isa::Scalar, 1, 0);
        let loras = [(&first, 0.02), (&second, -0.01)];
        let found = logits(&model, &loras, Isa::Scalar, 1, 0);
        assert!(nmse(&found, &both) < 1e-10, "{name}: {:e}", nmse(&found, &both));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for (threads, chunk) in [(1, 1), (2, 5), (2, 0)] {
                assert!(bits(&logits(&model, &loras, isa, threads, chunk)) == bits(&found), "{name}: {isa}, {chunk}");
            }
        }
        assert!(bits(&logits(&model, &[(&first, 0.0)], Isa::Scalar, 1, 0)) == bits(&plain), "{name}: scale 0");
    }
}

#[test]
fn removing_adapters_gives_the_model_back_and_a_session_with_tokens_keeps_them() {
    let base = common::unpacked_gguf("arch/llama/model.gguf");
    let model = load(&base);
    let lora = file("llama", ALPHA, &random_pairs(&base, &matrices(&base), 4, 5));
    let lora = Arc::new(Lora::load(&lora, &model).unwrap());
    assert_eq!((lora.rank(), lora.alpha()), (6, ALPHA));
    let mut session = Session::new(Arc::clone(&model), &SessionOptions::default()).unwrap();
    let run = |session: &mut Session| {
        session.reset();
        session.append(&TOKENS).unwrap();
        bits(session.logits().unwrap())
    };
    let plain = run(&mut session);
    assert!(matches!(session.add_lora(Arc::clone(&lora), 1.0), Err(Error::FailedPrecondition(_))));
    session.reset();
    assert!(matches!(session.add_lora(Arc::clone(&lora), f32::NAN), Err(Error::InvalidArgument(_))));
    session.add_lora(Arc::clone(&lora), 0.1).unwrap();
    assert_ne!(run(&mut session), plain);
    assert!(matches!(session.clear_loras(), Err(Error::FailedPrecondition(_))));
    session.reset();
    session.clear_loras().unwrap();
    assert_eq!(run(&mut session), plain);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it() {
    let base = common::unpacked_gguf("arch/llama/model.gguf");
    let model = load(&base);
    let name = "blk.0.attn_q.weight".to_owned();
    let good = random_pairs(&base, std::slice::from_ref(&name), 2, 1);
    let fails = |architecture: &str, alpha: f32, tensors: &[Tensor]| {
        Lora::load(&file(architecture, alpha, tensors), &model).unwrap_err()
    };
    let error = fails("qwen2", ALPHA, &good);
    assert_eq!((error.fact("expected"), error.fact("found")), (Some("llama"), Some("qwen2")));
    assert_eq!(fails("llama", f32::NAN, &good).fact("key"), Some("adapter.lora.alpha"));
    let error = fails("llama", ALPHA, &good[..1]);
    assert!(matches!(error, Error::CorruptFile(_)));
    assert_eq!(error.fact("tensor"), Some("blk.0.attn_q.weight.lora_b"));
    assert!(matches!(fails("llama", ALPHA, &[]), Error::CorruptFile(_)));
    let renamed = |to: &str| -> Vec<Tensor> {
        good.iter().map(|(n, c, r, v)| (n.replace(&name, to), *c, *r, v.clone())).collect()
    };
    assert_eq!(fails("llama", ALPHA, &renamed("blk.99.attn_q.weight")).fact("tensor"), Some("blk.99.attn_q.weight"));
    assert!(matches!(fails("llama", ALPHA, &renamed("blk.0.ffn_up_exps.weight")), Error::Unsupported(_)));
    let mut wrong = good.clone();
    (wrong[1].1, wrong[1].2) = (wrong[1].2, wrong[1].1);
    assert_eq!(fails("llama", ALPHA, &wrong).fact("tensor"), Some("blk.0.attn_q.weight.lora_b"));
    let error = Lora::load(&base, &model).unwrap_err();
    assert_eq!(error.fact("key"), Some("general.type"));
    // What it is multiplied with is finite in f32.
    let lora = Arc::new(Lora::load(&file("llama", 1e30, &good), &model).unwrap());
    let add = |scale: f32| {
        Session::new(Arc::clone(&model), &SessionOptions::default()).unwrap().add_lora(Arc::clone(&lora), scale)
    };
    assert!(add(1.0).is_ok());
    for scale in [1e30, f32::INFINITY, f32::NAN] {
        assert!(matches!(add(scale), Err(Error::InvalidArgument(_))), "{scale}");
    }
}

/// An encoder that differs from another in its vocabulary only.
#[test]
fn an_adapter_of_another_vocabulary_does_not_fit() {
    let base = common::unpacked_gguf("arch/bert/model.gguf");
    let embedding = "token_embd.weight".to_owned();
    let pair = random_pairs(&base, std::slice::from_ref(&embedding), 2, 1);
    let model = load(&base);
    let lora = Arc::new(Lora::load(&file("bert", ALPHA, &pair), &model).unwrap());
    let mut keys = Builder::new();
    keys.copy_keys(&base).unwrap();
    let tokens = base.array("tokenizer.ggml.tokens").unwrap().unwrap().strings().unwrap();
    let more: Vec<&[u8]> = tokens.chain([&b"more"[..]; 8]).collect();
    keys.set_strings("tokenizer.ggml.tokens", &more).unwrap();
    for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        keys.remove(key);
    }
    for tensor in base.tensors() {
        let mut dims = tensor.dims.to_vec();
        dims[usize::from(tensor.name == embedding)] += if tensor.name == embedding { 8 } else { 0 };
        keys.add_tensor(&tensor.name, tensor.type_id, &dims).unwrap();
    }
    let path = common::scratch("vocabulary.gguf");
    let mut writer = keys.create(&path).unwrap();
    for tensor in base.tensors() {
        let mut bytes = vec![0; tensor.bytes as usize];
        base.read(tensor, 0, &mut bytes).unwrap();
        if tensor.name == embedding {
            bytes.resize(bytes.len() / tensor.rows() * more.len(), 0);
        }
        writer.write(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
    let other = load(&Gguf::open(&path).unwrap());
    let mut session = Session::new(other, &SessionOptions::default()).unwrap();
    assert!(matches!(session.add_lora(Arc::clone(&lora), 1.0), Err(Error::InvalidArgument(_))));
    assert!(Session::new(model, &SessionOptions::default()).unwrap().add_lora(Arc::clone(&lora), 1.0).is_ok());
}
