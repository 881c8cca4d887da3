//! Runs the tests that are written in C, each in a process of its own.
//!
//! In release builds the library has panics on demand and the table of handles with the features
//! `check-handles,test-hooks` only.
#![cfg(any(debug_assertions, all(feature = "check-handles", feature = "test-hooks")))]

mod capi;
mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use capi::{c, read, root};

/// Runs one test of tests/capi/`source`.c.
fn run(source: &'static str, test: &str) {
    static PROGRAMS: Mutex<Vec<(&str, PathBuf)>> = Mutex::new(Vec::new());
    let mut programs = PROGRAMS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !programs.iter().any(|(name, _)| *name == source) {
        programs.push((source, c::build(&root().join(format!("tests/capi/{source}.c")), source)));
    }
    let program = programs.iter().find(|(name, _)| *name == source).expect("just made").1.clone();
    drop(programs);
    // In a folder of its own: some write files.
    let folder = c::folder(&format!("{source}-{test}"));
    let mut command = Command::new(program);
    command.arg(common::data("gguf-bad")).arg(test).env("LLM_TEST_LORA", common::data("programs/lora.gguf"));
    let output = c::run(command.current_dir(folder));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    // The library never prints.
    assert!(output.status.success() && out.is_empty() && err.is_empty(), "{test}: {}\n{out}\n{err}", output.status);
}

macro_rules! tests {
    ($($source:ident: $($name:ident)*;)*) => {
        $(mod $source {
            $(#[test]
            fn $name() {
                super::run(stringify!($source), stringify!($name));
            })*

            #[test]
            fn no_test_is_forgotten() {
                let text = super::read(concat!("tests/capi/", stringify!($source), ".c"));
                assert_eq!(text.matches("        {\"").count(), [$(stringify!($name)),*].len());
            }
        })*
    };
}

tests! {
    objects: versions errors stale_handles growing_structs logging after_fork cancelling;
    files: memory_and_readers metadata tensors sampling;
    writer: copying making splitting refusals overriding;
    quantize: quantising finding_importances packing;
    models: models stopping_a_load tokenizers;
    adapters: adapting embedding;
    chat: messages conversing;
    grammar: constraining refusing requesting;
    paged: pages forks;
    engine: requests events_and_failures failing_polls threads freeing_ends_a_wait log_probabilities searching;
    state: saving shifting guessing beams;
    sampling: steps bad_parameters usual_chain token_lists callbacks_and_logprobs;
    session: appending generating callbacks_that_reenter cancelling_a_session panicking_in_the_pool freeing_in_any_order on_a_small_stack;
}
