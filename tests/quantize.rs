//! Quantising whole models: which tensor becomes what, that nothing else changes, and that importances help.

mod common;

use common::{logged, scratch};
use std::ops::ControlFlow;

use llm::generate::{ImatrixOptions, imatrix};
use llm::gguf::{Builder, Gguf};
use llm::quant::Format;
use llm::quantize::{Importance, Options, Recipe, quantize};
use llm::{Cancel, Error, Threads, log};

/// Numbers without a pattern, the same every time.
fn noise(n: usize, mut seed: u32) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next() + next() + next()).collect()
}

/// A file with tensors of noise: (name, dimensions). `keys` are numbers under `llama.`.
fn file_of(name: &str, keys: &[(&str, u32)], tensors: &[(&str, &[u64])]) -> Gguf {
    let mut builder = Builder::new();
    builder.set("general.architecture", "llama").unwrap();
    builder.set("general.file_type", 0u32).unwrap();
    for (key, value) in keys {
        builder.set(&format!("llama.{key}"), *value).unwrap();
    }
    for (name, dims) in tensors {
        builder.add_tensor(name, Format::F32.id(), dims).unwrap();
    }
    let path = scratch(name);
    let mut writer = builder.create(&path).unwrap();
    for (i, (name, dims)) in (0..).zip(tensors) {
        let values = noise(dims.iter().product::<u64>() as usize, i);
        writer.write(name, bytemuck::cast_slice(&values)).unwrap();
    }
    writer.finish().unwrap();
    Gguf::open(&path).unwrap()
}

fn go(gguf: &Gguf, out: &str, recipe: &str, importance: Option<&Importance>, options: &Options) -> llm::Result<Gguf> {
    let path = scratch(out);
    let progress = |_, _| ControlFlow::Continue(());
    quantize(gguf, &path, Recipe::named(recipe)?, importance, options, progress)?;
    Gguf::open(&path)
}

/// Importances of these columns for tensors with a single matrix.
fn importance_file(name: &str, entries: &[(&str, &[f32])]) -> Importance {
    let mut builder = Builder::new();
    builder.set("general.type", "imatrix").unwrap();
    for (tensor, sums) in entries {
        builder.add_tensor(&format!("{tensor}.in_sum2"), 0, &[sums.len() as u64, 1]).unwrap();
        builder.add_tensor(&format!("{tensor}.counts"), 0, &[1, 1]).unwrap();
    }
    let path = scratch(name);
    let mut writer = builder.create(&path).unwrap();
    for (tensor, sums) in entries {
        writer.write(&format!("{tensor}.in_sum2"), bytemuck::cast_slice(sums)).unwrap();
        writer.write(&format!("{tensor}.counts"), &1f32.to_le_bytes()).unwrap();
    }
    writer.finish().unwrap();
    Importance::read(&path).unwrap()
}

/// The types of all tensors.
fn types(gguf: &Gguf) -> Vec<(&str, &str)> {
    gguf.tensors().iter().map(|tensor| (&*tensor.name, tensor.type_name())).collect()
}

/// What a tensor of `layers` layers becomes, by recipe: those of a model with separate logits.
fn chosen(recipe: &str, layers: u32, kv_heads: u32, experts: u32, importance: Option<&Importance>) -> Vec<String> {
    let mut names = vec!["token_embd.weight".to_owned(), "output.weight".to_owned(), "output_norm.weight".to_owned()];
    for layer in 0..layers {
        for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_down", "ffn_gate_inp", "attn_norm"] {
            names.push(format!("blk.{layer}.{name}.weight"));
        }
    }
    let dims = |name: &str| -> &[u64] { if name.contains("norm") { &[256] } else { &[256, 2] } };
    let tensors: Vec<_> = names.iter().map(|name| (&**name, dims(name))).collect();
    let keys = [
        ("block_count", layers),
        ("attention.head_count", 8),
        ("attention.head_count_kv", kv_heads),
        ("expert_count", experts),
    ];
    let gguf = file_of(&format!("in-{recipe}-{layers}"), &keys, &tensors);
    let out = go(&gguf, &format!("out-{recipe}-{layers}"), recipe, importance, &Options::default()).unwrap();
    names.iter().map(|name| format!("{name} {}", out.tensor(name).unwrap().type_name())).collect()
}

fn of<'a>(all: &'a [String], name: &str) -> Vec<&'a str> {
    all.iter().filter(|line| line.contains(name)).map(|line| line.rsplit(' ').next().unwrap()).collect()
}

#[test]
fn recipes_are_those_that_users_know() {
    let all = chosen("Q4_K_M", 16, 4, 0, None);
    // The first and last eighth, and each third between.
    let more: Vec<&str> =
        (0..16).map(|i: usize| if !(2..14).contains(&i) || (i - 2) % 3 == 2 { "Q6_K" } else { "Q4_K" }).collect();
    assert_eq!((of(&all, "attn_v"), of(&all, "ffn_down")), (more.clone(), more));
    for name in ["attn_q", "attn_k", "attn_output"] {
        assert_eq!(of(&all, name), ["Q4_K"; 16], "{name}");
    }
    assert_eq!((of(&all, "token_embd"), of(&all, "output.weight").pop()), (vec!["Q4_K"], Some("Q4_K")));
    assert!(all.contains(&"output.weight Q6_K".to_owned()));
    assert!(of(&all, "norm").iter().chain(&of(&all, "ffn_gate_inp")).all(|kind| *kind == "F32"));

    let all = chosen("Q4_K_S", 16, 4, 0, None);
    assert_eq!(of(&all, "attn_v")[3..5], ["Q5_K", "Q4_K"]);
    assert_eq!(of(&all, "ffn_down")[1..3], ["Q5_K", "Q4_K"]);
    // Two query heads a key/value head, then four.
    assert_eq!(of(&chosen("Q2_K", 16, 4, 0, None), "attn_v"), ["Q3_K"; 16]);
    let all = chosen("q2_k", 16, 2, 0, None);
    assert_eq!((of(&all, "attn_v"), of(&all, "ffn_down")), (vec!["Q4_K"; 16], vec!["Q3_K"; 16]));
    assert_eq!((of(&all, "attn_output"), of(&all, "attn_q")), (vec!["Q3_K"; 16], vec!["Q2_K"; 16]));
    let all = chosen("Q2_K_S", 16, 4, 0, None);
    assert_eq!((of(&all, "attn_v"), &of(&all, "ffn_down")[1..3]), (vec!["Q2_K"; 16], &["Q4_K", "Q2_K"][..]));
    let all = chosen("Q3_K_M", 16, 4, 0, None);
    assert_eq!((&of(&all, "attn_v")[1..3], &of(&all, "ffn_down")[..2]), (&["Q5_K", "Q4_K"][..], &["Q5_K", "Q4_K"][..]));
    assert_eq!((of(&all, "attn_output"), of(&all, "attn_k")), (vec!["Q4_K"; 16], vec!["Q3_K"; 16]));
    let all = chosen("Q3_K_L", 2, 4, 0, None);
    assert_eq!(
        (of(&all, "attn_v"), of(&all, "ffn_down"), of(&all, "attn_output")),
        (vec!["Q5_K"; 2], vec!["Q5_K"; 2], vec!["Q5_K"; 2])
    );
    let all = chosen("Q3_K_S", 2, 4, 0, None);
    assert_eq!((of(&all, "attn_v"), of(&all, "ffn_down")), (vec!["Q3_K"; 2], vec!["Q3_K"; 2]));
    // Alone where importances do not protect the first layers.
    let known = importance_file("known.imatrix", &[("blk.0.attn_q.weight", &[1.0; 256])]);
    assert_eq!(of(&chosen("IQ4_XS", 8, 2, 0, None), "ffn_down")[..2], ["Q5_K", "IQ4_XS"]);
    assert_eq!(of(&chosen("IQ4_XS", 8, 2, 0, Some(&known)), "ffn_down")[..2], ["IQ4_XS", "IQ4_XS"]);
    assert_eq!(of(&chosen("Q4_0", 8, 4, 0, Some(&known)), "ffn_down")[..2], ["Q4_1", "Q4_0"]);
    // Beside eight experts the attention is small.
    let all = chosen("Q4_K_M", 8, 4, 8, None);
    assert_eq!((of(&all, "attn_v"), of(&all, "attn_k")), (vec!["Q8_0"; 8], vec!["Q8_0"; 8]));
    assert_eq!((of(&all, "attn_output"), of(&all, "attn_q")), (vec!["Q5_K"; 8], vec!["Q4_K"; 8]));
    for (recipe, kind, logits) in [("Q8_0", "Q8_0", "Q8_0"), ("Q6_K", "Q6_K", "Q6_K"), ("F16", "F16", "F16")] {
        let all = chosen(recipe, 2, 4, 0, None);
        assert_eq!(of(&all, "ffn_down"), [kind; 2]);
        assert!(all.contains(&format!("output.weight {logits}")), "{all:?}");
    }
}

#[test]
fn every_recipe_makes_a_file_that_says_what_it_is() {
    let gguf = file_of(
        "every",
        &[("block_count", 1)],
        &[("token_embd.weight", &[256, 4]), ("blk.0.ffn_up.weight", &[256, 2, 3])],
    );
    let mut numbers = Vec::new();
    for recipe in Recipe::all() {
        let out = go(&gguf, &format!("every-{}", recipe.name()), recipe.name(), None, &Options::default()).unwrap();
        numbers.push(out.u32("general.file_type").unwrap().unwrap());
        assert_eq!(out.u32("general.quantization_version").unwrap(), Some(2));
        assert_eq!(
            out.keys().map(|(key, _)| key).take(2).collect::<Vec<_>>(),
            ["general.architecture", "general.file_type"]
        );
        let x = gguf.decode(gguf.tensor("blk.0.ffn_up.weight").unwrap()).unwrap();
        let y = out.decode(out.tensor("blk.0.ffn_up.weight").unwrap()).unwrap();
        let (error, all): (f32, f32) =
            x.iter().zip(&y).fold((0.0, 0.0), |(e, a), (x, y)| (e + (x - y) * (x - y), a + x * x));
        let most = if recipe.name().starts_with("TQ") { 0.6 } else { 0.15 };
        assert!(error < most * all, "{}: {}", recipe.name(), error / all);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 21, 25, 30, 32, 36, 37, 38]);
    // Of MXFP4_MOE the experts alone.
    let out = Gguf::open(&scratch("every-MXFP4_MOE")).unwrap();
    assert_eq!(types(&out), [("token_embd.weight", "Q8_0"), ("blk.0.ffn_up.weight", "MXFP4")]);
    let error = Recipe::named("Q9_K").err().unwrap();
    assert!(error.to_string().contains("Q4_K_M") && error.fact("type") == Some("Q9_K"), "{error}");
}

#[test]
fn rows_that_are_no_whole_blocks_get_shorter_ones() {
    let names = ["blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"];
    let gguf = file_of("short", &[("block_count", 1)], &[(names[0], &[96, 2]), (names[1], &[40, 2])]);
    for (recipe, expected) in [
        ("Q2_K", "Q4_0"),
        ("Q3_K_S", "Q4_0"),
        ("Q4_K_S", "Q5_0"),
        ("Q5_K_S", "Q5_1"),
        ("Q6_K", "Q8_0"),
        ("IQ4_XS", "IQ4_NL"),
        ("TQ2_0", "Q4_0"),
    ] {
        let out = go(&gguf, "short-out", recipe, None, &Options::default()).unwrap();
        assert_eq!(types(&out), [(names[0], expected), (names[1], "F16")], "{recipe}");
    }
}

#[test]
fn output_and_embedding_types_override() {
    let both: &[(&str, &[u64])] = &[("token_embd.weight", &[256, 4]), ("output.weight", &[256, 4])];
    let gguf = file_of("override", &[("block_count", 1)], both);
    let options = Options { output: Some(Format::Q8_0), embedding: Some(Format::F16), ..Options::default() };
    let out = go(&gguf, "override-out", "Q4_K_M", None, &options).unwrap();
    assert_eq!(types(&out), [("token_embd.weight", "F16"), ("output.weight", "Q8_0")]);
    // One matrix for both.
    let tied = file_of("tied", &[("block_count", 1)], &both[..1]);
    let kind = |options: &Options| types(&go(&tied, "tied-out", "Q4_K_M", None, options).unwrap())[0].1.to_owned();
    assert_eq!(kind(&Options::default()), "Q6_K");
    assert_eq!(kind(&Options { output: Some(Format::Q8_0), ..Options::default() }), "Q8_0");
    assert_eq!(kind(&Options { embedding: Some(Format::Q5K), ..Options::default() }), "Q5_K");
    let both = Options { output: Some(Format::Q8_0), embedding: Some(Format::Q5K), ..Options::default() };
    assert_eq!(kind(&both), "Q5_K");
    // Also where the recipe is one of single floats.
    for recipe in ["F32", "F16", "BF16"] {
        let options = Options { output: Some(Format::Q8_0), ..Options::default() };
        assert_eq!(types(&go(&tied, "tied-out", recipe, None, &options).unwrap())[0].1, "Q8_0", "{recipe}");
        // The embedding alone does not make these logits.
        let out = go(&gguf, "override-out", recipe, None, &options).unwrap();
        assert_eq!(types(&out), [("token_embd.weight", recipe), ("output.weight", "Q8_0")]);
    }
}

/// A file of one matrix of 256 columns with some numbers replaced.
fn file_with(name: &str, rows: u64, replaced: &[(usize, f32)]) -> Gguf {
    let mut values = noise(256 * rows as usize, 4);
    replaced.iter().for_each(|(i, value)| values[*i] = *value);
    let mut builder = Builder::new();
    builder.set("general.architecture", "llama").unwrap();
    builder.add_tensor("blk.0.ffn_up.weight", Format::F32.id(), &[256, rows]).unwrap();
    let path = scratch(name);
    let mut writer = builder.create(&path).unwrap();
    writer.write("blk.0.ffn_up.weight", bytemuck::cast_slice(&values)).unwrap();
    writer.finish().unwrap();
    Gguf::open(&path).unwrap()
}

#[test]
fn numbers_without_room_are_refused() {
    // The later ones are in other stripes, which other threads may come to first.
    let at = [700_000, 700_001, 1_200_000];
    for (recipe, value) in [
        ("Q4_K_S", f32::NAN),
        ("Q8_0", f32::NAN),
        ("IQ4_NL", f32::INFINITY),
        ("F16", 65520.0),
        ("BF16", f32::MAX),
        ("TQ2_0", -65600.0),
        ("Q4_0", 8.1 * 65504.0),
        ("Q4_1", 16.0 * 65504.0),
        ("Q5_1", -65600.0),
        ("Q2_K_S", -1e6),
        ("Q6_K", 1e9),
    ] {
        let gguf = file_with("no-room", 6000, &at.map(|i| (i, value)));
        for threads in [1, 3] {
            let options = Options { threads: Some(Threads::new(threads)), ..Options::default() };
            let out = format!("no-room-{recipe}");
            let Err(error @ Error::InvalidArgument(_)) = go(&gguf, &out, recipe, None, &options) else {
                panic!("{recipe} {value:e}")
            };
            let facts = ["tensor", "index", "found"].map(|fact| error.fact(fact).unwrap().to_owned());
            assert_eq!(facts, ["blk.0.ffn_up.weight".to_owned(), at[0].to_string(), value.to_string()], "{recipe}");
            assert!(!scratch(&out).exists());
        }
    }
    // What has room, and what is only copied.
    for (recipe, value) in [
        ("Q8_0", 65600.0),
        ("Q4_1", 65600.0),
        ("Q4_K_S", -1e6),
        ("BF16", 1e38),
        ("F16", 65519.0),
        ("F16", f32::NAN),
        ("BF16", f32::NEG_INFINITY),
        ("F32", f32::NAN),
    ] {
        let gguf = file_with("room", 2, &[(300, value)]);
        let out = go(&gguf, "room-out", recipe, None, &Options::default()).unwrap();
        let found = common::floats(&out, "blk.0.ffn_up.weight")[300];
        assert!(
            (found / value - 1.0).abs() < 0.1 || found == value || value.is_nan() && found.is_nan(),
            "{recipe} {value:e}: {found:e}"
        );
    }
}

#[test]
fn importances_that_are_missing_are_told() {
    let names = ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"];
    let gguf = file_of("missing", &[], &names.map(|name| (name, &[256, 2][..])));
    let other = importance_file("missing-other.imatrix", &[("blk.7.attn_q.weight", &[1.0; 256])]);
    for (importance, found) in [(other, "1"), (Importance::default(), "0")] {
        let Err(error @ Error::InvalidArgument(_)) =
            go(&gguf, "missing-none", "Q4_0", Some(&importance), &Options::default())
        else {
            panic!("{found}")
        };
        assert_eq!((error.fact("expected"), error.fact("found")), (Some("4"), Some(found)));
        assert!(!scratch("missing-none").exists());
        // Where nothing is quantised, nothing is missing.
        go(&gguf, "missing-out", "F16", Some(&importance), &Options::default()).unwrap();
    }
    let some = importance_file("missing-some.imatrix", &[(names[2], &[1.0; 256])]);
    let told = logged(|| {
        go(&gguf, "missing-out", "Q4_0", Some(&some), &Options::default()).unwrap();
    });
    let expected = (log::Level::Warn, "3 of 4 tensors to be quantised have no importances".to_owned());
    assert!(told.contains(&expected), "{told:?}");
    // Of what is copied they are not missing, nor of embeddings and logits, which have none as a rule.
    let tensors: [(&str, &[u64]); 3] =
        [("token_embd.weight", &[256, 2]), (names[0], &[256, 2]), ("output.weight", &[256, 2])];
    let gguf = file_of("copied", &[], &tensors);
    let own = importance_file("copied.imatrix", &[(names[0], &[1.0; 256])]);
    let once = go(&gguf, "copied-once", "Q4_0", Some(&own), &Options::default()).unwrap();
    let embedding = Options { embedding: Some(Format::Q5_0), ..Options::default() };
    let told = logged(|| {
        go(&once, "copied-again", "Q4_0", Some(&own), &embedding).unwrap();
        go(&gguf, "copied-none", "Q4_0", Some(&own), &embedding).unwrap();
    });
    assert!(told.iter().all(|(_, message)| !message.contains("importances")), "{told:?}");
}

/// The same bytes for any number of threads; what is copied is copied to the byte.
#[test]
fn threads_change_nothing_and_copies_are_exact() {
    let tensors: &[(&str, &[u64])] = &[
        ("token_embd.weight", &[256, 1100]),
        ("blk.0.attn_v.weight", &[512, 700]),
        ("blk.0.ffn_down.weight", &[256, 50, 7]),
        ("blk.0.attn_norm.weight", &[512]),
        ("output.weight", &[256, 1100]),
    ];
    let gguf = file_of("threads", &[("block_count", 1)], tensors);
    let bytes = |threads: usize| {
        let options = Options { threads: Some(Threads::new(threads)), ..Options::default() };
        go(&gguf, &format!("threads-{threads}"), "Q5_K_M", None, &options).unwrap();
        std::fs::read(scratch(&format!("threads-{threads}"))).unwrap()
    };
    let alone = bytes(1);
    assert!(bytes(2) == alone && bytes(5) == alone);
    let out = Gguf::open(&scratch("threads-1")).unwrap();
    assert_eq!(common::floats(&out, "blk.0.attn_norm.weight"), common::floats(&gguf, "blk.0.attn_norm.weight"));
    // A row is what encoding it alone gives, wherever it lies.
    let tensor = out.tensor("blk.0.ffn_down.weight").unwrap();
    let values = common::floats(&gguf, "blk.0.ffn_down.weight");
    let mut all = vec![0; tensor.bytes as usize];
    out.read(tensor, 0, &mut all).unwrap();
    let mut row = vec![0; Format::Q6K.block_bytes()];
    for i in [0, 49, 50, 349] {
        Format::Q6K.encode(&values[i * 256..(i + 1) * 256], &mut row).unwrap();
        assert_eq!(all[i * row.len()..(i + 1) * row.len()], row, "row {i}");
    }
    // Quantised to what it is, a file is what it was.
    let again = go(&out, "threads-again", "Q5_K_M", None, &Options::default()).unwrap();
    assert_eq!(types(&again), types(&out));
    assert!(std::fs::read(scratch("threads-again")).unwrap() == alone);
}

#[test]
fn quantising_can_be_stopped_and_leaves_no_file() {
    let gguf = file_of("stop", &[("block_count", 1)], &[("token_embd.weight", &[256, 1100])]);
    let out = scratch("never");
    let recipe = Recipe::named("Q4_0").unwrap();
    let mut seen = Vec::new();
    let stop = |done, total| {
        seen.push((done, total));
        if done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = quantize(&gguf, &out, recipe, None, &Options::default(), stop).unwrap_err();
    assert!(matches!(error, Error::Aborted(_)) && seen[0] == (0, 256 * 1100 * 4), "{error:?} {seen:?}");
    let cancel = Cancel::new();
    cancel.request();
    let options = Options { cancel, ..Options::default() };
    let error = quantize(&gguf, &out, recipe, None, &options, |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error:?}");
    assert!(
        !std::fs::read_dir(out.parent().unwrap()).unwrap().any(|e| e
            .unwrap()
            .path()
            .to_str()
            .unwrap()
            .contains("never"))
    );
}

/// The tiny llama of the tests of architectures.
fn tiny() -> Gguf {
    common::unpacked_gguf("arch/llama/model.gguf")
}

fn importance_of(gguf: &Gguf) -> Importance {
    let text = std::fs::read(common::data("models/text.txt")).unwrap();
    let options = ImatrixOptions { dataset: "text.txt".to_owned(), chunk_size: 64, ..ImatrixOptions::default() };
    imatrix(gguf, &text, &options, |_, _| ControlFlow::Continue(())).unwrap()
}

#[test]
fn importances_are_written_as_others_read_them() {
    let gguf = tiny();
    let importance = importance_of(&gguf);
    let layers = gguf.u32("llama.block_count").unwrap().unwrap() as usize;
    assert_eq!(importance.len(), 7 * layers);
    let path = scratch("tiny.imatrix");
    importance.write(&path).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.str("general.type").unwrap(), Some("imatrix"));
    let datasets: Vec<_> = file.array("imatrix.datasets").unwrap().unwrap().strings().unwrap().collect();
    assert_eq!(datasets, [b"text.txt"]);
    assert_eq!(file.u32("imatrix.chunk_size").unwrap(), Some(64));
    assert!(file.u32("imatrix.chunk_count").unwrap().unwrap() > 3);
    let count = common::floats(&file, "blk.0.attn_q.weight.counts");
    assert!(count.len() == 1 && count[0] > 200.0, "{count:?}");
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        let (matrix, sums) = (format!("blk.1.{name}.weight"), format!("blk.1.{name}.weight.in_sum2"));
        let sums = file.tensor(&sums).unwrap();
        assert_eq!(&*sums.dims, [gguf.tensor(&matrix).unwrap().dims[0], 1]);
        assert!(common::floats(&file, &sums.name).iter().all(|sum| *sum > 0.0), "{name}");
        assert_eq!(common::floats(&file, &format!("{matrix}.counts")), count);
    }
    // What a norm lets out has a mean square that its weights tell: the first layer's input.
    let norm = common::floats(&gguf, "blk.0.attn_norm.weight");
    let sums = common::floats(&file, "blk.0.attn_q.weight.in_sum2");
    let mean: f32 = sums.iter().zip(&norm).map(|(sum, w)| sum / count[0] / (w * w)).sum::<f32>() / norm.len() as f32;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    let read = Importance::read(&path).unwrap();
    assert_eq!((read.len(), read.chunk_count, read.chunk_size), (importance.len(), importance.chunk_count, 64));
}

#[test]
fn importances_of_an_encoder_are_of_every_token() {
    let gguf = common::unpacked_gguf("arch/bert/model.gguf");
    let importance = importance_of(&gguf);
    let layers = gguf.u32("bert.block_count").unwrap().unwrap() as usize;
    assert_eq!(importance.len(), 6 * layers);
    let path = scratch("bert.imatrix");
    importance.write(&path).unwrap();
    let file = Gguf::open(&path).unwrap();
    let count = common::floats(&file, "blk.0.attn_q.weight.counts");
    assert!(count[0] > 200.0, "{count:?}");
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"] {
        assert_eq!(common::floats(&file, &format!("blk.{}.{name}.weight.counts", layers - 1)), count, "{name}");
    }
}

#[test]
fn counts_that_are_none_are_refused() {
    let read = |counts: &[f32], columns: u64| {
        let mut builder = Builder::new();
        builder.set("general.type", "imatrix").unwrap();
        builder.add_tensor("x.weight.in_sum2", 0, &[columns, 64 / columns]).unwrap();
        builder.add_tensor("x.weight.counts", 0, &[1, counts.len() as u64]).unwrap();
        let path = scratch("counts.imatrix");
        let mut writer = builder.create(&path).unwrap();
        writer.write("x.weight.in_sum2", &[0; 256]).unwrap();
        writer.write("x.weight.counts", &counts.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        writer.finish().unwrap();
        Importance::read(&path)
    };
    assert!(read(&[3.0], 64).is_ok() && read(&[3.0, 0.0], 32).is_ok() && read(&[3.0], 32).is_ok());
    for (counts, columns) in [(&[3.0, 3.0][..], 64), (&[3.0; 4], 32), (&[f32::NAN], 64), (&[-1.0], 64)] {
        let Err(error @ Error::CorruptFile(_)) = read(counts, columns) else { panic!("{counts:?} of {columns}") };
        assert_eq!(error.fact("tensor"), Some("x.weight"));
    }
}

#[test]
fn importances_of_no_columns_are_refused() {
    let mut builder = Builder::new();
    builder.set("general.type", "imatrix").unwrap();
    builder.add_tensor("x.weight.in_sum2", 0, &[0, 1]).unwrap();
    builder.add_tensor("x.weight.counts", 0, &[1, 1]).unwrap();
    let path = scratch("no-columns.imatrix");
    let mut writer = builder.create(&path).unwrap();
    writer.write("x.weight.counts", &1f32.to_le_bytes()).unwrap();
    writer.finish().unwrap();
    assert!(matches!(Importance::read(&path), Err(Error::CorruptFile(_))));
}

/// A tensor without elements, whatever its other dimensions are.
#[test]
fn nothing_is_converted_to_nothing() {
    let gguf = file_of("empty.gguf", &[], &[("output.weight", &[0, 600_000]), ("blk.0.ffn_up.weight", &[256, 2])]);
    let copy = go(&gguf, "empty-copy.gguf", "Q8_0", None, &Options::default()).unwrap();
    assert_eq!(types(&copy), [("output.weight", "F32"), ("blk.0.ffn_up.weight", "Q8_0")]);
}

/// Names that are longer than the format allows are read, and so they are copied.
#[test]
fn long_names_are_copied() {
    let name = format!("blk.0.{}.weight", "x".repeat(80));
    // One tensor of 32 floats, no keys.
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((name.len() as u64).to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(32u64.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32) + 128, 0);
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let copy = go(&gguf, "long-name-copy.gguf", "F16", None, &Options::default()).unwrap();
    assert!(copy.tensor(&name).is_some());
}

#[test]
fn importances_lower_the_error_that_counts() {
    let gguf = file_of("weighted", &[("block_count", 1)], &[("blk.0.ffn_up.weight", &[256, 40])]);
    let weights: Vec<f32> = noise(256, 99).iter().map(|x| 0.01 + 30.0 * x * x * x * x).collect();
    let file = scratch("weighted.dat");
    // The older binary file: an entry, its name, two calls, values that are means times calls.
    let mut bytes = 1i32.to_le_bytes().to_vec();
    bytes.extend(19i32.to_le_bytes());
    bytes.extend(b"blk.0.ffn_up.weight");
    bytes.extend([2i32, 256].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(weights.iter().flat_map(|w| (2.0 * w).to_le_bytes()));
    bytes.extend([7i32, 3].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(b"set");
    std::fs::write(&file, &bytes).unwrap();
    let importance = Importance::read(&file).unwrap();
    assert_eq!((importance.len(), importance.chunk_count, &*importance.datasets), (1, 7, &["set".to_owned()][..]));
    let x = common::floats(&gguf, "blk.0.ffn_up.weight");
    let error = |recipe: &str, importance: Option<&Importance>| -> f32 {
        let out = go(&gguf, "weighted-out", recipe, importance, &Options::default()).unwrap();
        if importance.is_some() {
            assert_eq!(out.str("quantize.imatrix.dataset").unwrap(), Some("set"));
            assert_eq!(out.u32("quantize.imatrix.entries_count").unwrap(), Some(1));
        }
        let y = common::floats(&out, "blk.0.ffn_up.weight");
        let errors = x.iter().zip(&y).zip(weights.iter().cycle());
        errors.map(|((x, y), w)| w * (x - y) * (x - y)).sum()
    };
    for recipe in ["Q2_K", "Q3_K_S", "Q4_K_S", "Q5_K_S", "IQ4_NL", "IQ4_XS", "Q4_0", "Q4_1", "Q5_0", "Q5_1"] {
        let (plain, weighted) = (error(recipe, None), error(recipe, Some(&importance)));
        assert!(weighted < 0.97 * plain, "{recipe}: {weighted} with, {plain} without");
    }
    // Cut anywhere it is refused, but for the end, which may be missing.
    for n in 0..bytes.len() - 7 - 4 {
        std::fs::write(&file, &bytes[..n]).unwrap();
        let error = Importance::read(&file).unwrap_err();
        assert!(matches!(error, Error::CorruptFile(_)) && error.fact("path").is_some(), "{n}: {error:?}");
    }
    // Importances of a tensor of another shape.
    let wrong = file_of("wrong", &[("block_count", 1)], &[("blk.0.ffn_up.weight", &[512, 2])]);
    let error = go(&wrong, "wrong-out", "Q4_K_S", Some(&importance), &Options::default()).err().unwrap();
    assert_eq!((error.fact("tensor"), error.fact("found")), (Some("blk.0.ffn_up.weight"), Some("256")));
}

/// Each expert has importances of its own.
#[test]
fn experts_have_their_own_importances() {
    let name = "blk.0.ffn_up_exps.weight";
    let gguf = file_of("experts", &[("block_count", 1)], &[(name, &[256, 4, 2])]);
    // The second expert has seen nothing: its columns weigh the same.
    let mut builder = Builder::new();
    builder.set("general.type", "imatrix").unwrap();
    builder.add_tensor(&format!("{name}.in_sum2"), 0, &[256, 2]).unwrap();
    builder.add_tensor(&format!("{name}.counts"), 0, &[1, 2]).unwrap();
    let file = scratch("experts.imatrix");
    let mut writer = builder.create(&file).unwrap();
    let sums: Vec<f32> = noise(512, 5).iter().enumerate().map(|(i, x)| if i < 256 { x * x } else { 0.0 }).collect();
    writer.write(&format!("{name}.in_sum2"), bytemuck::cast_slice(&sums)).unwrap();
    writer.write(&format!("{name}.counts"), bytemuck::cast_slice(&[4f32, 0.0])).unwrap();
    writer.finish().unwrap();
    let importance = Importance::read(&file).unwrap();
    let bytes = |importance| {
        let out = go(&gguf, "experts-out", "Q3_K_S", importance, &Options::default()).unwrap();
        let tensor = out.tensor(name).unwrap();
        let mut bytes = vec![0; tensor.bytes as usize];
        out.read(tensor, 0, &mut bytes).unwrap();
        bytes
    };
    let (plain, weighted) = (bytes(None), bytes(Some(&importance)));
    let half = plain.len() / 2;
    assert!(plain[..half] != weighted[..half] && plain[half..] == weighted[half..]);
}

/// A quantised model still says nearly what it said.
#[test]
fn a_quantised_model_is_near_the_original() {
    let gguf = tiny();
    let importance = importance_of(&gguf);
    let golden = common::unpacked_gguf("arch/llama/golden.gguf");
    let logits = |gguf: &Gguf| {
        let model = common::load(gguf);
        let options = llm::generate::SessionOptions::default();
        let mut session = llm::generate::Session::new(model, &options).unwrap();
        let tokens = common::ids(&golden, "tokens.0");
        session.append(&tokens).unwrap();
        session.logits().unwrap().to_vec()
    };
    let exact = logits(&gguf);
    let distance = |recipe: &str| {
        let out = go(&gguf, "near", recipe, Some(&importance), &Options::default()).unwrap();
        let all: f32 = exact.iter().map(|x| x * x).sum();
        logits(&out).iter().zip(&exact).map(|(x, y)| (x - y) * (x - y)).sum::<f32>() / all
    };
    let (fine, coarse) = (distance("Q8_0"), distance("Q4_0"));
    assert!(fine < 0.001 && coarse > fine && coarse < 0.1, "{fine} {coarse}");
}
