//! Packed files: the same bits as the model's own file, from a map of it; what is wrong with one is told.

mod common;

use common::scratch;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use llm::generate::{EmbedOptions, Session, SessionOptions};
use llm::gguf::{Builder, Gguf, PartLimit};
use llm::model::{Config, LoadOptions, Model, Pooling};
use llm::quantize;
use llm::{Error, Result, Threads};

/// The tensor that holds the matrices.
const WEIGHTS: &str = "llm.packed.weights";

fn pack(gguf: &Gguf, path: &Path) -> Result<()> {
    Model::pack(gguf, path, &LoadOptions::default(), |_, _| ControlFlow::Continue(()))
}

fn load(gguf: &Gguf) -> Result<Model> {
    Model::load(gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(()))
}

/// The tiny model of an architecture, and itself packed.
fn both(name: &str) -> (Gguf, Gguf) {
    let gguf = common::unpacked_gguf(&format!("arch/{name}/model.gguf"));
    let path = scratch(&format!("{name}.gguf"));
    pack(&gguf, &path).unwrap();
    (gguf, Gguf::open(&path).unwrap())
}

/// Logits, or hidden states of an encoder, of some tokens.
fn output(model: Model) -> Vec<u32> {
    let model = Arc::new(model);
    let options = SessionOptions { threads: Some(Threads::new(1)), ..SessionOptions::default() };
    let mut session = Session::new(Arc::clone(&model), &options).unwrap();
    let tokens = [3, 1, 4, 1, 5, 9, 2, 6];
    let values = if model.is_encoder() {
        let mut states = vec![0.0; tokens.len() * model.config().embedding_length];
        let options = EmbedOptions { pooling: Some(Pooling::None), normalize: false };
        session.embed(&tokens, options, &mut states).unwrap();
        states
    } else {
        session.append(&tokens).unwrap();
        session.logits().unwrap().to_vec()
    };
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_packed_model_gives_the_same_bits() {
    for entry in std::fs::read_dir(common::data("arch")).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        let (gguf, packed) = both(&name);
        assert!(packed.is_packed() && !gguf.is_packed());
        let (a, b) = (load(&gguf).unwrap(), load(&packed).unwrap());
        assert_eq!((a.parameter_count(), a.weight_bytes()), (b.parameter_count(), b.weight_bytes()), "{name}");
        let size = |config: &Config| (config.vocab_size, config.layer_count, config.context_length);
        assert_eq!(size(a.config()), size(b.config()), "{name}");
        let expected = output(a);
        assert_eq!(output(b), expected, "{name}");
        // One that lies in no file is copied.
        let bytes = std::fs::read(scratch(&format!("{name}.gguf"))).unwrap();
        assert_eq!(output(load(&Gguf::from_bytes(bytes).unwrap()).unwrap()), expected, "{name}");
    }
}

#[test]
fn the_file_is_the_same_whoever_packs_what_before() {
    let bytes = |(name, recipe): (&str, Option<&str>), threads: usize| {
        let path = scratch(&format!("{name}.{threads}"));
        let mut gguf = common::unpacked_gguf(&format!("arch/{name}/model.gguf"));
        if let Some(recipe) = recipe {
            let (quantised, options) = (path.with_extension("gguf"), quantize::Options::default());
            let recipe = quantize::Recipe::named(recipe).unwrap();
            let go_on = |_, _| ControlFlow::Continue(());
            quantize::quantize(&gguf, &quantised, recipe, None, &options, go_on).unwrap();
            gguf = Gguf::open(&quantised).unwrap();
        }
        let options = LoadOptions { threads: Some(Threads::new(threads)), ..LoadOptions::default() };
        Model::pack(&gguf, &path, &options, |_, _| ControlFlow::Continue(())).unwrap();
        std::fs::read(path).unwrap()
    };
    // The routers of the mixtures have fewer rows than a panel; scales of quantised rows may fill no whole vectors.
    let names = [
        ("mixtral", None),
        ("llama", Some("Q8_0")),
        ("gpt-oss", Some("Q8_0")),
        ("qwen2moe", None),
        ("llama", Some("Q4_0")),
    ];
    let forward: Vec<Vec<u8>> = names.iter().map(|name| bytes(*name, 1)).collect();
    let backward: Vec<Vec<u8>> = names.iter().rev().map(|name| bytes(*name, 3)).collect();
    for (name, (a, b)) in names.iter().zip(forward.iter().zip(backward.iter().rev())) {
        assert!(a == b, "{name:?}");
    }
}

/// A session that was saved with the model's own file goes on with the packed one.
#[test]
fn it_is_the_same_model() {
    let (gguf, packed) = both("llama");
    let session = |gguf: &Gguf| Session::new(Arc::new(load(gguf).unwrap()), &SessionOptions::default()).unwrap();
    let (mut first, mut second) = (session(&gguf), session(&packed));
    first.append(&[3, 1, 4]).unwrap();
    let state = scratch("state");
    first.save(&state).unwrap();
    second.load(&state).unwrap();
    first.append(&[1]).unwrap();
    second.append(&[1]).unwrap();
    assert_eq!(first.logits().unwrap(), second.logits().unwrap());
    // Keys that were set on top count, the same on both.
    let turned = |gguf: &Gguf| {
        let mut keys = Builder::new();
        keys.set("llama.rope.freq_base", 5e4f32).unwrap();
        session(&gguf.with_keys(&keys).unwrap())
    };
    let error = turned(&packed).load(&state).unwrap_err();
    assert!(matches!(&error, Error::FailedPrecondition(_)), "{error}");
    let mut third = turned(&gguf);
    third.append(&[3, 1, 4]).unwrap();
    third.save(&state).unwrap();
    turned(&packed).load(&state).unwrap();
    assert!(session(&packed).load(&state).is_err());
    // One in parts, and itself packed.
    let mut builder = Builder::new();
    builder.copy_keys(&gguf).unwrap();
    gguf.tensors().iter().for_each(|tensor| builder.add_tensor_like(tensor).unwrap());
    let mut writer = builder.create_split(&scratch("parts.gguf"), PartLimit { tensors: Some(5), bytes: None }).unwrap();
    for tensor in gguf.tensors() {
        let mut bytes = vec![0; tensor.bytes as usize];
        gguf.read(tensor, 0, &mut bytes).unwrap();
        writer.write(&tensor.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
    let count = gguf.tensors().len().div_ceil(5);
    let parts = Gguf::open(&scratch(&format!("parts-00001-of-{count:05}.gguf"))).unwrap();
    assert_eq!(parts.part_count(), count);
    pack(&parts, &scratch("of-parts.gguf")).unwrap();
    let mut whole = session(&parts);
    whole.append(&[3, 1, 4]).unwrap();
    whole.save(&state).unwrap();
    session(&Gguf::open(&scratch("of-parts.gguf")).unwrap()).load(&state).unwrap();
}

/// Neither matrices nor tables are copied: they lie in maps of the file, beside that of the metadata.
#[cfg(target_os = "linux")]
#[test]
fn loading_maps_the_file() {
    let (_, packed) = both("qwen2");
    let path = scratch("qwen2.gguf").canonicalize().unwrap();
    let maps = || {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        text.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count()
    };
    let before = maps();
    let model = load(&packed).unwrap();
    assert_eq!(maps(), before + 2);
    drop(packed);
    let expected = output(load(&common::unpacked_gguf("arch/qwen2/model.gguf")).unwrap());
    assert_eq!(output(model), expected);
}

/// A packed file with other keys, without some tensors, or with other bytes for the matrices.
fn changed(packed: &Gguf, keys: impl FnOnce(&mut Builder), dropped: &str, weights: Option<Vec<u8>>) -> Gguf {
    let mut builder = Builder::new();
    builder.copy_keys(packed).unwrap();
    keys(&mut builder);
    let path = scratch("changed.gguf");
    let kept = || packed.tensors().iter().filter(|tensor| tensor.name != dropped);
    for tensor in kept() {
        match &weights {
            Some(weights) if tensor.name == WEIGHTS => {
                builder.add_tensor(WEIGHTS, 24, &[weights.len() as u64]).unwrap()
            }
            _ => builder.add_tensor_like(tensor).unwrap(),
        }
    }
    let mut writer = builder.create(&path).unwrap();
    for tensor in kept() {
        let mut bytes = vec![0; tensor.bytes as usize];
        packed.read(tensor, 0, &mut bytes).unwrap();
        match &weights {
            Some(weights) if tensor.name == WEIGHTS => writer.write(WEIGHTS, weights).unwrap(),
            _ => writer.write(&tensor.name, &bytes).unwrap(),
        }
    }
    writer.finish().unwrap();
    Gguf::open(&path).unwrap()
}

fn failure(gguf: &Gguf) -> Error {
    load(gguf).err().unwrap()
}

#[test]
fn another_version_or_layout_is_refused() {
    let (_, packed) = both("llama");
    for (key, value) in [("llm.packed.version", None), ("llm.packed.layout", Some("x32"))] {
        let set = |builder: &mut Builder| match value {
            None => builder.set(key, 3u32).unwrap(),
            Some(value) => builder.set(key, value).unwrap(),
        };
        let error = failure(&changed(&packed, set, "", None));
        assert!(matches!(&error, Error::Unsupported(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("version 2 of x16") && text.contains(value.unwrap_or("version 3")), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told() {
    let (gguf, packed) = both("llama");
    let corrupt = |gguf: &Gguf, word: &str| {
        let error = failure(gguf);
        assert!(matches!(&error, Error::CorruptFile(_)) && error.to_string().contains(word), "{word}: {error}");
    };
    for key in ["layout", "checksum", "names", "types", "dimensions"].map(|key| format!("llm.packed.{key}")) {
        corrupt(&changed(&packed, |keys| assert!(keys.remove(&key)), "", None), &key);
        corrupt(&changed(&packed, |keys| keys.set(&key, true).unwrap(), "", None), &key);
    }
    corrupt(&changed(&packed, |_| (), WEIGHTS, None), WEIGHTS);
    corrupt(&changed(&packed, |_| (), "output_norm.weight", None), "output_norm.weight");
    let bytes = packed.tensor(WEIGHTS).unwrap().bytes as usize;
    for wrong in [64, bytes - 64, bytes + 64] {
        corrupt(&changed(&packed, |_| (), "", Some(vec![0; wrong])), "packed matrices");
    }
    // What the keys say of the tensors.
    let array = |key: &str| packed.array(key).unwrap().unwrap();
    let names: Vec<String> =
        array("llm.packed.names").strings().unwrap().map(|s| String::from_utf8(s.to_vec()).unwrap()).collect();
    let types = array("llm.packed.types").to_u32s().unwrap();
    let dimensions: Vec<u64> = array("llm.packed.dimensions").to_u32s().unwrap().into_iter().map(u64::from).collect();
    let with = |names: &[String], types: &[u32], dimensions: &[u64]| {
        let set = |keys: &mut Builder| {
            keys.set_strings("llm.packed.names", names).unwrap();
            keys.set_array("llm.packed.types", types).unwrap();
            keys.set_array("llm.packed.dimensions", dimensions).unwrap();
        };
        changed(&packed, set, "", None)
    };
    corrupt(&with(&names, &types[1..], &dimensions), "dimensions");
    corrupt(&with(&names, &types, &dimensions[1..]), "dimensions");
    corrupt(&with(&names[1..], &types[1..], &dimensions[4..]), &names[0]);
    for dims in [[1, 1, 1, 1], [u64::MAX, 1, 1, 1], [1 << 40, 1 << 40, 1, 1], [0, 0, 0, 0]] {
        corrupt(&with(&names, &types, &[&dims[..], &dimensions[4..]].concat()), &names[0]);
    }
    let error = failure(&with(&names, &[&[4000], &types[1..]].concat(), &dimensions));
    assert!(matches!(&error, Error::Unsupported(_)), "{error}");
    let more = |name: &str| {
        with(
            &[&names[..], &[name.to_owned()]].concat(),
            &[&types[..], &[0]].concat(),
            &[&dimensions[..], &[8, 1, 1, 1]].concat(),
        )
    };
    corrupt(&more(&names[0]), "twice");
    corrupt(&more("output_norm.weight"), "twice");
    let strange = failure(&more("strange.weight"));
    assert!(matches!(&strange, Error::Unsupported(_)) && strange.to_string().contains("strange.weight"), "{strange}");
    // One of two vectors that go together.
    let (_, longrope) = both("phi3-longrope");
    let factors = ["rope_factors_short.weight", "rope_factors_long.weight"];
    for name in factors {
        corrupt(&changed(&longrope, |_| (), name, None), name);
    }
    // A vector among the matrices.
    let width = packed.tensor("output_norm.weight").unwrap().dims[0];
    let set = |keys: &mut Builder| {
        keys.set_strings("llm.packed.names", &[&names[..], &["output_norm.weight".to_owned()]].concat()).unwrap();
        keys.set_array("llm.packed.types", &[&types[..], &[0]].concat()).unwrap();
        keys.set_array("llm.packed.dimensions", &[&dimensions[..], &[width, 1, 1, 1]].concat()).unwrap();
    };
    corrupt(&changed(&packed, set, "output_norm.weight", None), "no matrix");
    // Neither is a packed file packed again, nor does an attempt leave anything.
    let again = pack(&packed, &scratch("again.gguf")).err().unwrap();
    assert!(matches!(again, Error::InvalidArgument(_)) && !scratch("again.gguf").exists());
    let stopped = Model::pack(&gguf, &scratch("stopped.gguf"), &LoadOptions::default(), |done, total| {
        if 2 * done > total { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(Error::Aborted(_))) && !scratch("stopped.gguf").exists());
}

/// Nothing is made for matrices that the file cannot have: keys alone could ask for any number of them.
#[test]
fn matrices_that_are_not_there_take_no_memory() {
    const EXPERTS: u64 = 8192;
    let (_, packed) = both("mixtral");
    let array = |key: &str| packed.array(key).unwrap().unwrap();
    let names: Vec<&[u8]> = array("llm.packed.names").strings().unwrap().collect();
    let mut dimensions = array("llm.packed.dimensions").to_u32s().unwrap();
    for (name, dims) in names.iter().zip(dimensions.as_chunks_mut::<4>().0) {
        match String::from_utf8_lossy(name) {
            name if name.contains("_exps") => dims[2] = EXPERTS as u32,
            name if name.contains("ffn_gate_inp") => dims[1] = EXPERTS as u32,
            _ => {}
        }
    }
    let set = |keys: &mut Builder| {
        keys.set("llama.expert_count", EXPERTS as u32).unwrap();
        keys.set_array("llm.packed.dimensions", &dimensions.iter().map(|&n| u64::from(n)).collect::<Vec<_>>()).unwrap();
    };
    let error = failure(&changed(&packed, set, "", None));
    let fact = |name: &str| error.fact(name).and_then(|fact| fact.parse::<u64>().ok()).unwrap();
    assert!(matches!(&error, Error::CorruptFile(_)), "{error}");
    assert!((fact("found")..fact("found") + (4 << 20)).contains(&fact("expected")), "{error}");
}

/// Any bytes are numbers: a damaged file computes something, but never reads or writes outside.
#[test]
fn damaged_matrices_do_no_harm() {
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for name in ["llama", "gemma3", "qwen3moe", "deepseek2-lite"] {
        let (_, packed) = both(name);
        let bytes = packed.tensor(WEIGHTS).unwrap().bytes as usize;
        for fill in 0..3 {
            let weights = (0..bytes).map(|_| if fill == 2 { 255 } else { byte() }).collect();
            output(load(&changed(&packed, |_| (), "", Some(weights))).unwrap());
        }
    }
}

/// Of a file that another program wrote, where the matrices lie anywhere.
#[test]
fn matrices_may_lie_anywhere() {
    let (original, packed) = both("llama");
    let expected = output(load(&original).unwrap());
    let mut offsets = std::collections::BTreeSet::new();
    for n in 0..8 {
        let moved = changed(
            &packed,
            |builder| {
                builder.set("general.alignment", 1u32).unwrap();
                builder.set("padding", &"x".repeat(n)[..]).unwrap();
            },
            "",
            None,
        );
        offsets.insert(moved.tensor("llm.packed.weights").unwrap().offset % 8);
        assert_eq!(output(load(&moved).unwrap()), expected, "{n}");
    }
    assert_eq!(offsets.len(), 8);
}
