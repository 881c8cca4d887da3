//! Files that open as GGUF and are no model: each is refused with a message that names the key or tensor.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use llm::generate::{Engine, EngineOptions, GenerateOptions, Request, Session, SessionOptions};
use llm::gguf::{Builder, Gguf, ReadAt, TensorInfo};
use llm::model::{CacheOptions, LoadOptions, Model};
use llm::quant::Format;
use llm::sample::{Params, Sampler};
use llm::{Cancel, Error, Result};

fn load(name: &str) -> Result<Model> {
    let gguf = Gguf::open(&common::data(&format!("gguf-bad/{name}")))?;
    Model::load(&gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(()))
}

/// Loads and, if that works, generates a little: whatever comes must come without a crash.
fn load_and_run(name: &str) -> Result<()> {
    let model = Arc::new(load(name)?);
    let options = SessionOptions {
        cache: CacheOptions { context_length: 16, ..CacheOptions::default() },
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, &options)?;
    session.append(&[1, 5, 9])?;
    session.start(GenerateOptions { max_tokens: 8, ignore_eog: true });
    session.generate(&mut Sampler::usual(&Params::default())?, |_| ControlFlow::Continue(()))?;
    Ok(())
}

/// A reader may load another model while one is loaded from it.
#[test]
fn a_reader_that_loads_a_model() {
    struct Nested(Vec<u8>);
    impl ReadAt for Nested {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            load("ok-tiny-model.gguf")?;
            out.copy_from_slice(&self.0[offset as usize..offset as usize + out.len()]);
            Ok(())
        }
    }
    let bytes = std::fs::read(common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let gguf = Gguf::from_reader(Box::new(Nested(bytes))).unwrap();
    let model = Model::load(&gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(model.parameter_count(), load("ok-tiny-model.gguf").unwrap().parameter_count());
}

/// What the message of a `load` file must name.
fn names(file: &str) -> &'static str {
    match file {
        "load-data-cut.gguf" => "blk.0.ffn_down.weight",
        "load-no-arch.gguf" | "load-arch-type.gguf" => "general.architecture",
        "load-arch-unknown.gguf" | "load-tokenizer-unknown.gguf" => "\"nonsense\"",
        "load-no-block-count.gguf" => "llama.block_count",
        "load-no-embedding-length.gguf" | "load-embedding-0.gguf" => "llama.embedding_length",
        "load-no-eps.gguf" | "load-eps-type.gguf" => "llama.attention.layer_norm_rms_epsilon",
        "load-head-count-0.gguf" | "load-head-count-3.gguf" | "load-head-count-array.gguf" => {
            "llama.attention.head_count"
        }
        "load-rope-dims.gguf" | "load-rope-dims-odd.gguf" => "llama.rope.dimension_count",
        "load-block-count-huge.gguf" => "llama.block_count",
        "load-block-count-2.gguf" => "blk.1.",
        "load-no-token-embd.gguf" | "load-shape-embd.gguf" => "token_embd.weight",
        "load-no-ffn-up.gguf" => "blk.0.ffn_up.weight",
        "load-shape-q.gguf" => "blk.0.attn_q.weight",
        "load-type-i64.gguf" => "blk.0.attn_k.weight",
        "load-no-tokenizer.gguf" => "tokenizer.ggml.model",
        "load-no-tokens.gguf" | "load-tokens-type.gguf" => "tokenizer.ggml.tokens",
        "load-scores-short.gguf" => "tokenizer.ggml.scores",
        "load-token-type-short.gguf" => "tokenizer.ggml.token_type",
        "load-no-merges.gguf" => "tokenizer.ggml.merges",
        other => panic!("{other} is new: say here what its message names"),
    }
}

fn context(context_length: usize) -> CacheOptions {
    CacheOptions { context_length, ..CacheOptions::default() }
}

#[test]
fn every_verdict_on_models_holds() {
    let index = std::fs::read_to_string(common::data("gguf-bad/index.csv")).unwrap();
    let (mut refused, mut loaded) = (0, 0);
    for line in index.lines().skip(1) {
        let mut fields = line.splitn(3, ',');
        let (file, verdict) = (fields.next().unwrap(), fields.next().unwrap());
        let result = load_and_run(file);
        match verdict {
            "load" => {
                let error = result.expect_err(file);
                assert!(matches!(error, Error::CorruptFile(_) | Error::Unsupported(_)), "{file}: {error:?}");
                assert!(error.to_string().contains(names(file)), "{file}: {error}");
                refused += 1;
            }
            "ok-model" => {
                result.unwrap_or_else(|error| panic!("{file}: {error}"));
                loaded += 1;
            }
            // Most of the others are no models; what matters is that nothing crashes.
            _ => {}
        }
    }
    assert_eq!((refused, loaded), (28, 3));
}

/// What loading the tiny model says when its file also has a tensor, and what `change` sets.
fn load_changed(tensor: Option<&str>, change: impl Fn(&mut Builder)) -> Result<Model> {
    let gguf = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let mut builder = Builder::new();
    builder.copy_keys(&gguf).unwrap();
    change(&mut builder);
    for tensor in gguf.tensors() {
        builder.add_tensor_like(tensor).unwrap();
    }
    if let Some(name) = tensor {
        builder.add_tensor(name, Format::F32.id(), &[1]).unwrap();
    }
    let path = common::scratch("changed.gguf");
    let mut writer = builder.create(&path).unwrap();
    for tensor in gguf.tensors() {
        let mut data = vec![0; tensor.bytes as usize];
        gguf.read(tensor, 0, &mut data).unwrap();
        writer.write(&tensor.name, &data).unwrap();
    }
    if let Some(name) = tensor {
        writer.write(name, &1.0f32.to_le_bytes()).unwrap();
    }
    writer.finish().unwrap();
    let gguf = Gguf::open(&path).unwrap();
    Model::load(&gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(()))
}

/// Without what such a tensor or key stands for, another model would be run than the file describes.
#[test]
fn what_would_be_overlooked_is_refused() {
    load_changed(None, |_| {}).unwrap();
    for name in ["blk.0.ffn_up.offset", "blk.0.attn_q_norm.weight", "mystery.weight"] {
        let error = load_changed(Some(name), |_| {}).err().unwrap_or_else(|| panic!("{name} was overlooked"));
        assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
        assert_eq!(error.fact("tensor"), Some(name));
    }
    // Of a layer beyond the last, and what is no weight.
    for name in ["blk.1.nextn.eh_proj.weight", "blk.0.attn_rot_embd.weight"] {
        load_changed(Some(name), |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let key = "llama.attention.clamp_kqv";
    load_changed(None, |builder| builder.set(key, 0.0f32).unwrap()).unwrap();
    let error = load_changed(None, |builder| builder.set(key, 8.0f32).unwrap()).err().unwrap();
    assert!(matches!(error, Error::Unsupported(_)) && error.fact("key") == Some(key), "{error:?}");
    for (count, used, named) in [
        (2u32, None, "llama.expert_used_count"),
        (2, Some(0u32), "llama.expert_used_count"),
        (2, Some(3), "llama.expert_used_count"),
        (1_000_000, Some(1), "llama.expert_count"),
        (512, Some(257), "llama.expert_used_count"),
    ] {
        let error = load_changed(None, |builder| {
            builder.set("llama.expert_count", count).unwrap();
            if let Some(used) = used {
                builder.set("llama.expert_used_count", used).unwrap();
            }
        });
        assert_eq!(error.err().unwrap().fact("key"), Some(named), "{count} {used:?}");
    }
    let key = "llama.expert_gating_func";
    let error = load_changed(None, |builder| {
        builder.set("llama.expert_count", 2u32).unwrap();
        builder.set("llama.expert_used_count", 1u32).unwrap();
        builder.set(key, 9u32).unwrap();
    });
    let error = error.err().unwrap();
    assert!(matches!(error, Error::Unsupported(_)) && error.fact("key") == Some(key), "{error:?}");
    let key = "llama.attention.sliding_window_pattern";
    let error = load_changed(None, |builder| builder.set_array(key, &[true, false]).unwrap()).err().unwrap();
    assert!(matches!(error, Error::CorruptFile(_)) && error.fact("key") == Some(key), "{error:?}");
}

/// A file that has tensors without elements where the model's shapes allow them.
#[test]
fn tensors_without_elements_are_refused() {
    let gguf = common::unpacked_gguf("arch/qwen2moe/model.gguf");
    let d = gguf.tensor("token_embd.weight").unwrap().dims[0];
    let shared = ["ffn_up_shexp", "ffn_gate_shexp", "ffn_down_shexp"].map(|name| format!("blk.0.{name}.weight"));
    let empty = |tensor: &TensorInfo| -> Option<Vec<u64>> {
        let at = shared.iter().position(|name| *name == tensor.name)?;
        Some(if at == 2 { vec![0, d] } else { vec![d, 0] })
    };
    for with_types in [true, false] {
        let mut builder = Builder::new();
        builder.copy_keys(&gguf).unwrap();
        for tensor in gguf.tensors() {
            match empty(tensor).filter(|_| !with_types) {
                Some(dims) => builder.add_tensor(&tensor.name, Format::F32.id(), &dims).unwrap(),
                None => builder.add_tensor_like(tensor).unwrap(),
            }
        }
        if with_types {
            builder.add_tensor("token_types.weight", Format::F32.id(), &[d, 0]).unwrap();
        }
        let path = common::scratch(&format!("empty-{with_types}.gguf"));
        let mut writer = builder.create(&path).unwrap();
        for tensor in gguf.tensors().iter().filter(|tensor| with_types || empty(tensor).is_none()) {
            let mut data = vec![0; tensor.bytes as usize];
            gguf.read(tensor, 0, &mut data).unwrap();
            writer.write(&tensor.name, &data).unwrap();
        }
        writer.finish().unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let error = Model::load(&gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(())).err().unwrap();
        assert!(matches!(&error, Error::CorruptFile(_)) && error.to_string().contains("nothing"), "{error}");
    }
}

#[test]
fn a_model_cut_anywhere_is_refused() {
    let bytes = std::fs::read(common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    for n in (0..bytes.len()).step_by(37) {
        let gguf = Gguf::from_bytes(bytes[..n].to_vec());
        let result =
            gguf.and_then(|gguf| Model::load(&gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(())));
        // The last tensor's padding may be missing.
        assert!(result.is_err() || n > bytes.len() - 32, "{n} of {} bytes load", bytes.len());
    }
}

#[test]
fn progress_counts_up_to_the_total_and_may_stop() {
    let gguf = Gguf::open(&common::real_model(common::SMOLLM2)).unwrap();
    let mut seen = Vec::new();
    let progress = |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    };
    Model::load(&gguf, &LoadOptions::default(), progress).unwrap();
    assert!(seen.len() > 4 && seen.is_sorted());
    let (done, total) = seen[seen.len() - 1];
    assert_eq!((seen[0].0, done), (0, total));
    let stop = |done, _| if done > 20 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let error = Model::load(&gguf, &LoadOptions::default(), stop).err().unwrap();
    assert!(matches!(error, Error::Aborted(_)), "{error:?}");
    let cancel = Cancel::new();
    cancel.request();
    let options = LoadOptions { cancel, ..LoadOptions::default() };
    let error = Model::load(&gguf, &options, |_, _| ControlFlow::Continue(())).err().unwrap();
    assert!(matches!(error, Error::Cancelled(_)), "{error:?}");
}

#[test]
fn memory_is_known_before_loading() {
    let gguf = Gguf::open(&common::real_model(common::SMOLLM2)).unwrap();
    let memory = Model::memory(&gguf, &context(2048), 512).unwrap();
    let model = Model::load(&gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(memory.weights, model.weight_bytes());
    // 30 layers, 3 heads of 64, keys and values, two bytes.
    assert_eq!(memory.kv_cache, 2048 * 30 * 3 * 64 * 2 * 2);
    // The packed weights are as large as the tensors of the file, but for the few vectors.
    let tensors: u64 = gguf.tensors().iter().map(|t| t.bytes).sum();
    assert!(memory.weights.abs_diff(tensors) < tensors / 100);
    assert!(memory.scratch > 512 * 576 * 4 && memory.scratch < 64 << 20);
}

#[test]
fn the_memory_of_any_context_and_chunk_is_stated_or_refused() {
    let gguf = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let mut last = 0;
    for bit in 0..64 {
        let Ok(memory) = Model::memory(&gguf, &context(1 << bit), usize::MAX) else { break };
        assert!(memory.scratch >= last, "2^{bit} positions need {} bytes, half as many {last}", memory.scratch);
        last = memory.scratch;
    }
    assert!(Model::memory(&gguf, &context(usize::MAX), usize::MAX).is_err());
}

/// A small file with a wide network: what 256 tokens of a prompt need is no measure of it.
#[test]
fn fewer_tokens_are_processed_together_where_they_are_large() {
    const WIDE: u64 = 1 << 17;
    let gguf = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let mut builder = Builder::new();
    builder.copy_keys(&gguf).unwrap();
    builder.set("llama.feed_forward_length", WIDE as u32).unwrap();
    builder.set("llama.context_length", 512u32).unwrap();
    let wide = |name: &str| name.contains("ffn_") && !name.contains("norm");
    for tensor in gguf.tensors() {
        let dims: &[u64] = if tensor.name.contains("down") { &[WIDE, 16] } else { &[16, WIDE] };
        if wide(&tensor.name) {
            builder.add_tensor(&tensor.name, Format::F16.id(), dims).unwrap();
        } else {
            builder.add_tensor_like(tensor).unwrap();
        }
    }
    let path = common::scratch("wide.gguf");
    let mut writer = builder.create(&path).unwrap();
    for tensor in gguf.tensors() {
        let mut data = vec![0; if wide(&tensor.name) { 32 * WIDE as usize } else { tensor.bytes as usize }];
        if !wide(&tensor.name) {
            gguf.read(tensor, 0, &mut data).unwrap();
        }
        writer.write(&tensor.name, &data).unwrap();
    }
    writer.finish().unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let scratch = |chunk| Model::memory(&gguf, &context(512), chunk).unwrap().scratch;
    assert!(scratch(256) > 256 << 20 && scratch(0) <= 256 << 20 && scratch(0) == scratch(128));
    // The engine takes as many at once as that says, or as it is told.
    let model = common::load(&gguf);
    for (chunk, prompt, steps) in [(0, 256, 2), (4, 8, 2)] {
        let options = EngineOptions { cache: context(512), chunk, ..EngineOptions::default() };
        let (engine, mut events) = (Engine::new(Arc::clone(&model), &options).unwrap(), Vec::new());
        let sampler = Sampler::usual(&Params::default()).unwrap();
        let options = GenerateOptions { max_tokens: 1, ignore_eog: true };
        engine.submit(Request { options, ..Request::new(vec![70; prompt], sampler) }).unwrap();
        while engine.wait(std::time::Duration::MAX, &mut events).unwrap() {}
        assert_eq!(engine.stats().steps, steps, "chunks of {chunk}");
    }
}

/// The logits of a few tokens.
fn logits(model: Model) -> Vec<f32> {
    let tokens = [5, 70, 71, 72, 73, 74, 75, 76];
    let mut logits = vec![0.0; tokens.len() * model.config().vocab_size];
    Session::new(Arc::new(model), &SessionOptions::default()).unwrap().eval(&tokens, &mut logits).unwrap();
    logits
}

#[test]
fn keys_laid_over_a_file_count_as_its_own() {
    let gguf = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let load = |gguf: &Gguf| Model::load(gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(()));
    let mut seen = vec![logits(load(&gguf).unwrap())];
    let changes: [fn(&mut Builder); 3] = [
        |keys| keys.set("llama.rope.freq_base", 77.0f32).unwrap(),
        |keys| {
            keys.set("llama.rope.scaling.type", "linear").unwrap();
            keys.set("llama.rope.scaling.factor", 8.0f32).unwrap();
        },
        |keys| {
            keys.set("llama.rope.scaling.type", "yarn").unwrap();
            keys.set("llama.rope.scaling.factor", 4.0f32).unwrap();
            keys.set("llama.rope.scaling.original_context_length", 4u32).unwrap();
        },
    ];
    for change in changes {
        let mut keys = Builder::new();
        change(&mut keys);
        let found = logits(load(&gguf.with_keys(&keys).unwrap()).unwrap());
        assert_eq!(found, logits(load_changed(None, change).unwrap()), "not as a file that has these keys");
        assert!(!seen.contains(&found), "the keys changed nothing");
        seen.push(found);
    }

    // Old keys keep their places, new ones follow, the last word counts, and the file itself is not changed.
    let mut keys = Builder::new();
    keys.set("llama.context_length", 99u32).unwrap();
    keys.set("a.new.key", "x").unwrap();
    let once = gguf.with_keys(&keys).unwrap();
    keys.set("llama.context_length", 98u64).unwrap();
    let twice = once.with_keys(&keys).unwrap();
    let names = |gguf: &Gguf| gguf.keys().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&once), [names(&gguf), vec!["a.new.key".to_owned()]].concat());
    assert_eq!(names(&twice), names(&once));
    let context = |gguf: &Gguf| gguf.u32("llama.context_length").unwrap().unwrap();
    assert_eq!((context(&once), context(&twice)), (99, 98));
    assert_ne!(context(&gguf), 99);
    assert_eq!((twice.str("a.new.key").unwrap(), gguf.get("a.new.key").is_none()), (Some("x"), true));
    for (i, (key, _)) in twice.keys().enumerate() {
        assert_eq!(twice.index_of(key), Some(i));
    }
    assert_eq!(load(&twice).unwrap().config().context_length, 98);

    // What does not fit is told with the key.
    let mut keys = Builder::new();
    keys.set("llama.rope.freq_base", "fast").unwrap();
    let error = load(&gguf.with_keys(&keys).unwrap()).err().unwrap();
    assert_eq!(error.fact("key"), Some("llama.rope.freq_base"));
    let mut keys = Builder::new();
    keys.set("general.alignment", 4096u32).unwrap();
    let error = gguf.with_keys(&keys).err().unwrap();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    assert_eq!(gguf.with_keys(&Builder::new()).unwrap().keys().len(), gguf.keys().len());
}
