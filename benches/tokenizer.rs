//! How fast texts become tokens, on one thread: `cargo bench --bench tokenizer [FILE...]`. Without files, this library's
//! own sources and documents.

use std::fs;
use std::path::Path;
use std::time::Instant;

use llm::token::{EncodeOptions, Tokenizer};
use llm::{Error, Result};

const MODELS: [&str; 2] = ["models/SmolLM2-135M-Instruct.Q4_1.gguf", "models/gemma-3-270m-q4_k_m.gguf"];
const ROUNDS: usize = 9;

fn read(path: &Path, text: &mut Vec<u8>) -> Result<()> {
    let fail = |e| Error::io(format!("{}: {e}", path.display()));
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).map_err(fail)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        return entries.iter().try_for_each(|path| read(path, text));
    }
    text.extend(fs::read(path).map_err(fail)?);
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    let mut paths: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if paths.is_empty() {
        paths = ["README.md", "ARCHITECTURE.md", "include", "src"].map(String::from).to_vec();
    }
    let mut text = Vec::new();
    paths.iter().try_for_each(|path| read(Path::new(path), &mut text))?;
    println!("{:.1} MB of text, medians of {ROUNDS} runs", text.len() as f64 / 1e6);
    for model in MODELS {
        let (mut open, mut encode, mut tokens) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let tokenizer = Tokenizer::open(Path::new(model))?;
            open.push(1e3 * start.elapsed().as_secs_f64());
            let start = Instant::now();
            let options = EncodeOptions { add_special: false, parse_special: false };
            tokens = tokenizer.encode(&text, options)?.len();
            encode.push(start.elapsed().as_secs_f64());
        }
        let rate = text.len() as f64 / 1e6 / median(encode);
        println!("{model}: vocabulary ready in {:.1} ms, {rate:.1} MB/s, {tokens} tokens", median(open));
    }
    Ok(())
}
