//! What several test programs share.
#![allow(dead_code)] // each program uses its part

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use llm::gguf::Gguf;
use llm::log;
use llm::model::{LoadOptions, Model};
use llm::token::Tokenizer;

/// A path that no other test has, in a folder of the calling test's own.
pub fn scratch(name: &str) -> PathBuf {
    // Each test has a thread that is named after it.
    let test = std::thread::current().name().expect("called on a test's own thread").to_owned();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join(test);
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// What this thread logs while it works; other tests may log on theirs. The log is the program's: one test of each uses this.
pub fn logged(work: impl FnOnce()) -> Vec<(log::Level, String)> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (sink, own) = (Arc::clone(&told), std::thread::current().id());
    log::set(Some(Box::new(move |level, message| {
        if std::thread::current().id() == own {
            sink.lock().unwrap().push((level, message.to_owned()));
        }
    })));
    work();
    log::set(None);
    std::mem::take(&mut told.lock().unwrap())
}

/// A file of tests/data. A folder that is kept as `<folder>.tar.zst` is unpacked first, once, to where cargo lets
/// tests write.
pub fn data(path: &str) -> PathBuf {
    static FOLDERS: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let (folder, rest) = path.split_once('/').unwrap_or((path, ""));
    let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if !folders.contains_key(folder) {
        let found = match std::fs::read(kept.join(format!("{folder}.tar.zst"))) {
            Ok(archive) => unpacked_folder(folder, &archive),
            Err(_) => kept.join(folder),
        };
        folders.insert(folder.to_owned(), found);
    }
    if rest.is_empty() { folders[folder].clone() } else { folders[folder].join(rest) }
}

/// The folder that an archive holds. Its name tells the archive's content, so that another archive gets another
/// folder; it appears whole, as another process may look for it.
fn unpacked_folder(name: &str, archive: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    archive.hash(&mut hasher);
    let whole = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{:016x}", hasher.finish()));
    if !whole.exists() {
        let part = whole.with_extension(std::process::id().to_string());
        tar::Archive::new(&zstd::decode_all(archive).unwrap()[..]).unpack(&part).unwrap();
        if std::fs::rename(&part, &whole).is_err() {
            assert!(whole.exists(), "{} cannot be made", whole.display());
            std::fs::remove_dir_all(&part).unwrap();
        }
    }
    whole
}

/// A file of tests/data that is kept compressed: `<path>.zst`, or `<path>.planes.zst`, where the first bytes of all
/// 4-byte words stand before the second and so on, which packs floats better.
pub fn unpacked(path: &str) -> Vec<u8> {
    let read = |name: String| std::fs::read(data(&name)).map(|packed| zstd::decode_all(&packed[..]).unwrap());
    if let Ok(bytes) = read(format!("{path}.zst")) {
        return bytes;
    }
    let planes = read(format!("{path}.planes.zst")).unwrap();
    let n = planes.len() / 4;
    let mut bytes: Vec<u8> = (0..4 * n).map(|i| planes[i % 4 * n + i / 4]).collect();
    bytes.extend(&planes[4 * n..]);
    bytes
}

/// A GGUF that is kept compressed.
pub fn unpacked_gguf(path: &str) -> Gguf {
    Gguf::from_bytes(unpacked(path)).unwrap()
}

/// A tokenizer of a vocabulary that was trained for the tests: `bpe:NAME` is the byte-level one under pre-tokenizer NAME.
pub fn trained(name: &str) -> Tokenizer {
    let Some(pre) = name.strip_prefix("bpe:") else {
        return Tokenizer::from_gguf(&unpacked_gguf(&format!("trained/{name}.gguf"))).unwrap();
    };
    let mut bytes = unpacked("trained/bpe.gguf");
    let key = b"tokenizer.ggml.pre";
    // After the key, its type in 4 bytes; then the length of its value in 8, and the value.
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    let value = (pre.len() as u64).to_le_bytes().into_iter().chain(pre.bytes());
    bytes.splice(at..at + 8 + "gpt-4o".len(), value);
    Tokenizer::from_gguf(&Gguf::from_bytes(bytes).unwrap()).unwrap()
}

/// SmolLM2-135M-Instruct, Q4_1 and Q8_0.
pub const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Gemma 3 270M, Q5_0, Q4_K, Q6_K and Q8_0.
pub const GEMMA3: &str = "gemma-3-270m-q4_k_m.gguf";

/// A real model's file, which `make models` fetches.
pub fn real_model(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    assert!(path.exists(), "{} is missing: run `make models` first", path.display());
    path
}

/// Loads a model.
pub fn load(gguf: &Gguf) -> Arc<Model> {
    Arc::new(Model::load(gguf, &LoadOptions::default(), |_, _| ControlFlow::Continue(())).unwrap())
}

/// Loads a real model.
pub fn load_real(name: &str) -> Arc<Model> {
    load(&Gguf::open(&real_model(name)).unwrap())
}

/// An I32 tensor of non-negative numbers.
pub fn ids(gguf: &Gguf, name: &str) -> Vec<u32> {
    let tensor = gguf.tensor(name).unwrap();
    let mut bytes = vec![0; tensor.bytes as usize];
    gguf.read(tensor, 0, &mut bytes).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

/// An F32 tensor.
pub fn floats(gguf: &Gguf, name: &str) -> Vec<f32> {
    gguf.decode(gguf.tensor(name).unwrap()).unwrap()
}
