//! The tables of tokenizers in packed files: the same tokens as without them, also where keys were changed since; and
//! no harm, whatever stands in them.

mod common;

use common::scratch;
use std::ops::ControlFlow;

use llm::Error;
use llm::gguf::{Builder, Gguf};
use llm::model::{LoadOptions, Model};
use llm::token::{EncodeOptions, Tokenizer};

/// The tensor that holds them.
const TABLES: &str = "llm.packed.tables";
/// Of all kinds of tokenizers.
const VOCABULARIES: [&str; 7] = [
    "trained/bpe",
    "trained/gemma4",
    "trained/unigram",
    "trained/unigram-bytes",
    "trained/bert",
    "trained/bert-cased",
    "arch/llama/model",
];
const BYTES: u32 = 24;
const F32: u32 = 0;

/// A model of zeros with the vocabulary of `vocabulary`, and itself packed. `keys` changes its keys.
fn packed(vocabulary: &Gguf, name: &str, keys: impl FnOnce(&mut Builder)) -> Gguf {
    const WIDTH: u64 = 32;
    let mut builder = Builder::new();
    for (key, value) in vocabulary.keys().filter(|(key, _)| !key.starts_with("llama.")) {
        builder.set(key, value).unwrap();
    }
    builder.set("general.architecture", "llama").unwrap();
    for key in ["embedding_length", "feed_forward_length", "context_length"] {
        builder.set(&format!("llama.{key}"), WIDTH as u32).unwrap();
    }
    for key in ["attention.head_count", "block_count"] {
        builder.set(&format!("llama.{key}"), 1u32).unwrap();
    }
    builder.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32).unwrap();
    keys(&mut builder);
    let size = vocabulary.array("tokenizer.ggml.tokens").unwrap().unwrap().len() as u64;
    let matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let mut tensors = vec![("token_embd".to_owned(), vec![WIDTH, size]), ("output_norm".to_owned(), vec![WIDTH])];
    tensors.extend(["attn_norm", "ffn_norm"].map(|name| (format!("blk.0.{name}"), vec![WIDTH])));
    tensors.extend(matrices.map(|name| (format!("blk.0.{name}"), vec![WIDTH, WIDTH])));
    for (name, dims) in &tensors {
        builder.add_tensor(&format!("{name}.weight"), F32, dims).unwrap();
    }
    let (plain, packed) = (scratch(&format!("{name}.plain")), scratch(&format!("{name}.packed")));
    let mut writer = builder.create(&plain).unwrap();
    for (name, dims) in &tensors {
        let bytes = vec![0; 4 * dims.iter().product::<u64>() as usize];
        writer.write(&format!("{name}.weight"), &bytes).unwrap();
    }
    writer.finish().unwrap();
    let gguf = Gguf::open(&plain).unwrap();
    Model::pack(&gguf, &packed, &LoadOptions::default(), |_, _| ControlFlow::Continue(())).unwrap();
    Gguf::open(&packed).unwrap()
}

fn of_vocabulary(name: &str, test: &str) -> Gguf {
    packed(&common::unpacked_gguf(&format!("{name}.gguf")), &format!("{test}-{}", name.replace('/', "-")), |_| ())
}

fn tables(gguf: &Gguf) -> Vec<u8> {
    let tensor = gguf.tensor(TABLES).unwrap();
    let mut bytes = vec![0; tensor.bytes as usize];
    gguf.read(tensor, 0, &mut bytes).unwrap();
    bytes
}

/// A packed file with other keys and other tables; it need not hold a model.
fn changed(gguf: &Gguf, name: &str, tables: &[u8], keys: impl FnOnce(&mut Builder)) -> Gguf {
    let mut builder = Builder::new();
    builder.copy_keys(gguf).unwrap();
    builder.add_tensor(TABLES, BYTES, &[tables.len() as u64]).unwrap();
    keys(&mut builder);
    let path = scratch(&format!("{}.changed", name.replace('/', "-")));
    let mut writer = builder.create(&path).unwrap();
    writer.write(TABLES, tables).unwrap();
    writer.finish().unwrap();
    Gguf::open(&path).unwrap()
}

fn texts() -> Vec<Vec<u8>> {
    let cases = std::fs::read_to_string(common::data("tokenizer/cases.txt")).unwrap();
    let mut texts: Vec<Vec<u8>> = cases.lines().map(|line| line.as_bytes().to_vec()).collect();
    texts.push((0..=255).chain((0..=255).rev()).collect());
    texts
}

/// What can be seen of a tokenizer.
fn seen(tokenizer: &Tokenizer) -> impl PartialEq + std::fmt::Debug + use<> {
    let encode = |text: &Vec<u8>, special| {
        tokenizer.encode(text, EncodeOptions { add_special: special, parse_special: special }).unwrap()
    };
    let ids: Vec<_> = texts().iter().map(|text| (encode(text, false), encode(text, true))).collect();
    let tokens: Vec<_> = (0..tokenizer.vocab_size() as u32)
        .map(|id| {
            let piece = tokenizer.piece(id).unwrap();
            let (kind, score) = (tokenizer.kind(id), tokenizer.score(id).to_bits());
            (piece.to_vec(), kind, score, tokenizer.is_eog(id), tokenizer.id(piece))
        })
        .collect();
    let special = [tokenizer.bos(), tokenizer.eos(), tokenizer.eot(), tokenizer.unk(), tokenizer.sep()];
    (ids, tokens, special, tokenizer.fill_in())
}

/// The length of each column, and where its numbers begin.
fn columns(tables: &[u8]) -> Vec<(usize, usize)> {
    let (mut columns, mut at) = (Vec::new(), 0);
    while let Some(length) = tables.get(at..at + 8) {
        let length = u64::from_ne_bytes(length.try_into().unwrap()) as usize;
        columns.push((length, at + 64));
        at = (at + 64 + length).next_multiple_of(64);
    }
    columns
}

#[test]
fn the_same_tokens_as_without_them() {
    for name in VOCABULARIES {
        let gguf = of_vocabulary(name, "same");
        let (with, without) = (Tokenizer::from_gguf(&gguf).unwrap(), common::unpacked_gguf(&format!("{name}.gguf")));
        assert_eq!(seen(&with), seen(&Tokenizer::from_gguf(&without).unwrap()), "{name}");
        // They are looked at at all.
        let mut tables = tables(&gguf);
        let (_, slots) = columns(&tables)[6];
        tables[slots..].fill(255);
        let error = Tokenizer::from_gguf(&changed(&gguf, &format!("filled-{name}"), &tables, |_| ())).err().unwrap();
        assert!(matches!(&error, Error::CorruptFile(_)) && error.fact("tensor") == Some(TABLES), "{name}: {error}");
    }
}

/// As hosts do who correct a file: which token ends a turn, how tokens are written.
#[test]
fn keys_that_were_changed_since_count() {
    for name in VOCABULARIES {
        let gguf = of_vocabulary(name, "keys");
        let tables = tables(&gguf);
        let array = gguf.array("tokenizer.ggml.tokens").unwrap().unwrap();
        let mut tokens: Vec<Vec<u8>> = array.strings().unwrap().map(<[u8]>::to_vec).collect();
        let last = tokens.len() - 1;
        tokens[last] = b"<|im_end|>".to_vec();
        let other = changed(&gguf, &format!("keys-{name}"), &tables, |keys| {
            keys.set_strings("tokenizer.ggml.tokens", &tokens).unwrap();
            keys.set("tokenizer.ggml.eos_token_id", 7u32).unwrap();
        });
        let tokenizer = Tokenizer::from_gguf(&other).unwrap();
        assert_eq!(tokenizer.id(b"<|im_end|>"), Some(last as u32), "{name}");
        assert_eq!(
            (tokenizer.eos(), tokenizer.is_eog(7), tokenizer.is_eog(last as u32)),
            (Some(7), true, true),
            "{name}"
        );
    }
}

/// Not at a multiple of their numbers' size, in memory, of an older version, or not at all.
#[test]
fn tables_that_cannot_be_used_are_made_anew() {
    let gguf = of_vocabulary("trained/bpe", "anew");
    let expected = seen(&Tokenizer::from_gguf(&gguf).unwrap());
    let tables = tables(&gguf);
    for n in 0..8 {
        let moved = changed(&gguf, "moved", &tables, |keys| {
            keys.set("general.alignment", 1u32).unwrap();
            keys.set("padding", &"x".repeat(n)[..]).unwrap();
        });
        assert!(seen(&Tokenizer::from_gguf(&moved).unwrap()) == expected, "{n}");
    }
    let bytes = std::fs::read(scratch("anew-trained-bpe.packed")).unwrap();
    assert!(seen(&Tokenizer::from_gguf(&Gguf::from_bytes(bytes).unwrap()).unwrap()) == expected);
    let mut older = tables.clone();
    let (length, start) = columns(&tables)[0];
    assert_eq!(std::mem::replace(&mut older[start + 7], 0), 1);
    older[start + length..].fill(255);
    for strange in [&[][..], &[0; 64], &tables[..32], b"nothing", &older] {
        assert!(seen(&Tokenizer::from_gguf(&changed(&gguf, "strange", strange, |_| ())).unwrap()) == expected);
    }
}

/// What a search would not end at, and tokens that there are not.
#[test]
fn hostile_tables_are_refused() {
    const SLOTS: usize = 6;
    const NAMED_ENDS: usize = 9;
    let (mut named, mut merging) = (0, 0);
    for name in VOCABULARIES {
        let gguf = of_vocabulary(name, "hostile");
        let tables = tables(&gguf);
        let columns = columns(&tables);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed_tables = tables.clone();
            change(&mut changed_tables);
            let changed = changed(&gguf, &format!("hostile-{name}"), &changed_tables, |_| ());
            let error = Tokenizer::from_gguf(&changed).err().unwrap();
            assert!(matches!(error, Error::CorruptFile(_)), "{name}: {error}");
        };
        let (length, start) = columns[SLOTS];
        // Slots of no token, between empty ones.
        refused(&|tables| {
            for slot in tables[start..start + length].as_chunks_mut::<4>().0.iter_mut().step_by(2) {
                if *slot == [0; 4] {
                    *slot = (1u32 << 31).to_ne_bytes();
                }
            }
        });
        // Slots whose number is no power of two.
        refused(&|tables| {
            tables[start - 64..start - 56].copy_from_slice(&(length as u64 - 64).to_ne_bytes());
            tables.drain(start + length - 64..start + length);
        });
        // Merges: those into tokens that there are not, and no empty slot.
        if let Some(&(length, start)) = columns.get(NAMED_ENDS + 2) {
            merging += 1;
            let change = |tables: &mut Vec<u8>, change: &dyn Fn(&mut [u8; 16])| {
                tables[start..start + length].as_chunks_mut::<16>().0.iter_mut().for_each(change);
            };
            let is_empty = |slot: &[u8; 16]| slot[..8] == [255; 8];
            refused(&|tables| {
                change(tables, &|slot| {
                    if !is_empty(slot) {
                        slot[12..].fill(0x7F)
                    }
                })
            });
            refused(&|tables| {
                change(tables, &|slot| {
                    if is_empty(slot) {
                        *slot = [0; 16]
                    }
                })
            });
        }
        let (length, start) = columns[NAMED_ENDS];
        if length > 0 {
            named += 1;
            refused(&|tables| tables[start..start + 4].fill(0x7F));
        }
    }
    assert!(named > 2 && merging == 2);
}

/// Only those of the tokens count.
#[test]
fn more_scores_than_tokens() {
    let vocabulary = common::unpacked_gguf("arch/llama/model.gguf");
    let mut scores = vocabulary.array("tokenizer.ggml.scores").unwrap().unwrap().to_f32s().unwrap();
    scores.push(7.0);
    let gguf = packed(&vocabulary, "scores", |keys| keys.set_array("tokenizer.ggml.scores", &scores).unwrap());
    assert!(seen(&Tokenizer::from_gguf(&gguf).unwrap()) == seen(&Tokenizer::from_gguf(&vocabulary).unwrap()));
}

/// Each column, and each of its lengths, with other bytes: an error, or a tokenizer that names no tokens that there are not.
#[test]
fn damaged_tables_do_no_harm() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut texts = texts();
    texts.truncate(40);
    let (mut refused, mut used) = (0, 0);
    for name in VOCABULARIES {
        let gguf = of_vocabulary(name, "damaged");
        let tables = tables(&gguf);
        let size = Tokenizer::from_gguf(&gguf).unwrap().vocab_size() as u32;
        let mut check = |tables: &[u8]| {
            let found = match Tokenizer::from_gguf(&changed(&gguf, &format!("damaged-{name}"), tables, |_| ())) {
                Ok(tokenizer) => tokenizer,
                Err(Error::CorruptFile(_)) => return refused += 1,
                Err(error) => panic!("{name}: {error}"),
            };
            used += 1;
            for text in &texts {
                let ids = found.encode(text, EncodeOptions { add_special: true, parse_special: true }).unwrap();
                assert!(ids.iter().all(|id| *id < size), "{name}");
                found.decode(&ids, Default::default()).unwrap();
            }
            (0..size).for_each(|id| assert!(found.id(found.piece(id).unwrap()).is_none_or(|id| id < size)));
        };
        // The first column says whose tables they are.
        for &(length, start) in &columns(&tables)[1..] {
            for fill in [Some(0), Some(1), Some(255), None] {
                let mut damaged = tables.clone();
                damaged[start..start + length].fill_with(|| fill.unwrap_or(random() as u8));
                check(&damaged);
            }
            for _ in 0..8 {
                let mut damaged = tables.clone();
                if let Some(byte) = damaged[start..start + length].get_mut(random() as usize % length.max(1)) {
                    *byte ^= 1 << (random() % 8);
                }
                check(&damaged);
            }
            for other in [0, 1, length as u64 + 1, length as u64 / 2, u64::MAX, u64::MAX - 127] {
                let mut damaged = tables.clone();
                damaged[start - 64..start - 56].copy_from_slice(&other.to_ne_bytes());
                check(&damaged);
            }
            check(&tables[..start]);
            check(&tables[..start + length / 2]);
        }
    }
    assert!(refused > 300 && used > 300, "{refused} {used}");
}
