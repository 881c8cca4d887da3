//! Compiling C against include/llm.h and running it with the shared library that cargo built for these tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::root;

/// Runs a command that must be there: a missing tool fails the test.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?} cannot be run, install it: {e}"))
}

/// Runs a command that must succeed and gives what it prints.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The shared library. Cargo links it beside the tests, under the name without a version.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let library = test.with_file_name("libllm.so");
    assert!(library.exists(), "{} is missing", library.display());
    library
}

/// A folder for a test's files.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the target folder can be written to");
    folder
}

/// Compiles a C file and links it with the library.
pub fn build(source: &Path, name: &str) -> PathBuf {
    let folder = folder(name);
    // The loader looks for the soname.
    let soname =
        folder.join(concat!("libllm.so.", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR")));
    let _ = std::fs::remove_file(&soname);
    std::os::unix::fs::symlink(library(), &soname).expect("a link can be made");
    let program = folder.join(name);
    succeed(
        Command::new("cc")
            .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-pthread"])
            .arg("-I")
            .arg(root().join("include"))
            .arg(source)
            .arg(&soname)
            .arg(format!("-Wl,-rpath,{}", folder.display()))
            .arg("-lm")
            .arg("-o")
            .arg(&program),
    );
    program
}
