//! The floors of the house, enforced: every `crate::` and `super::` path of every file goes to its own folder or to a
//! lower floor, `unsafe` is where it may be, and each `unsafe` block says why it is sound.
//!
//! Files are read as tokens, not as syntax, so that the bodies of macros count too and comments and strings do not.
//! Tests of a module may use anything below and beside it.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules by floor; those of one floor do not import each other.
const FLOORS: &[&[&str]] = &[
    &["error", "log", "cancel", "fault", "rng", "numeric"],
    &["quant"],
    &["gguf", "device"],
    &["token", "cache", "sample", "quantize"],
    &["chat", "model"],
    &["generate", "train"],
    &["capi"],
];

/// The floor whose modules may use each other: small things that know no formats and no models.
const GROUND: usize = 0;

/// Files and folders of `src` in which `unsafe` is allowed.
const UNSAFE: &[&str] = &[
    "capi",
    "device/cpu/kernels.rs",
    "device/cpu/linear.rs",
    "device/cpu/simd",
    "device/cpu/contention.rs",
    "device/cpu/threads.rs",
    "gguf/map.rs",
    "numeric/environment",
    "numeric/environment.rs",
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// The public face of the crate: what `lib.rs` makes public, and which module each re-exported name comes from.
#[derive(Default)]
struct Root {
    public: Vec<String>,
    source: BTreeMap<String, String>,
}

impl Root {
    fn read(lib: &str) -> Root {
        let mut root = Root::default();
        let tokens: Vec<TokenTree> = lib.parse::<TokenStream>().unwrap().into_iter().collect();
        for (i, token) in tokens.iter().enumerate() {
            if !is(token, "pub") {
                continue;
            }
            match tokens.get(i + 1) {
                Some(TokenTree::Ident(word)) if *word == "mod" => root.public.extend(tokens.get(i + 2).map(name)),
                Some(TokenTree::Ident(word)) if *word == "use" => {
                    for path in paths(&tokens[i + 2..]) {
                        let (Some(first), Some(last)) = (path.first(), path.last()) else { continue };
                        root.public.push(last.clone());
                        root.source.insert(last.clone(), first.clone());
                    }
                }
                _ => {}
            }
        }
        root
    }
}

fn name(token: &TokenTree) -> String {
    token.to_string()
}

fn is(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if *ident == word)
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

/// The paths that begin at the first of `tokens`: one, or one for each name of the groups in it.
fn paths(tokens: &[TokenTree]) -> Vec<Vec<String>> {
    match tokens {
        [TokenTree::Ident(ident), rest @ ..] => {
            let mut all = vec![vec![]];
            if is_colon(rest.first()) && is_colon(rest.get(1)) {
                all = paths(&rest[2..]);
            }
            if all.is_empty() {
                all.push(vec![]);
            }
            all.iter_mut().for_each(|path| path.insert(0, ident.to_string()));
            all
        }
        [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Brace => {
            let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
            let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
            tokens.split(comma).flat_map(paths).collect()
        }
        _ => vec![],
    }
}

/// A path that a file names, from the crate's root on, and the line.
#[derive(Debug)]
struct Import {
    path: Vec<String>,
    line: usize,
}

/// Every path in `tokens` that begins with `crate` or `super`, where the tokens stand in the module `module`.
fn imports(tokens: TokenStream, module: &[String], found: &mut Vec<Import>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (i, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            // `mod name { ... }`: one level deeper for `super`.
            let inline = i >= 2 && is(&tokens[i - 2], "mod") && group.delimiter() == Delimiter::Brace;
            let mut inner = module.to_vec();
            inner.extend(inline.then(|| name(&tokens[i - 1])));
            imports(group.stream(), &inner, found);
        }
        let continues = i >= 2 && is_colon(tokens.get(i - 1)) && is_colon(tokens.get(i - 2));
        if continues || !(is(token, "crate") || is(token, "super")) {
            continue;
        }
        for path in paths(&tokens[i..]) {
            let supers = path.iter().take_while(|word| *word == "super").count();
            // `pub(super)` and `pub(crate)` name no module.
            if path.len() == 1 && tokens.len() == 1 {
                continue;
            }
            let start =
                if path[0] == "crate" { vec![] } else { module[..module.len().saturating_sub(supers)].to_vec() };
            let rest = path.iter().skip(if path[0] == "crate" { 1 } else { supers }).filter(|word| *word != "self");
            found.push(Import {
                path: start.into_iter().chain(rest.cloned()).collect(),
                line: token.span().start().line,
            });
        }
    }
}

/// The module that a file of `src` is.
fn module_of(file: &str) -> Vec<String> {
    let parts = file.trim_end_matches(".rs").split('/').map(str::to_string);
    let mut parts: Vec<String> = parts.collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

fn is_test(module: &[String]) -> bool {
    module.iter().any(|part| part == "tests")
}

/// What is wrong with the text of a file of `src`, one sentence each.
fn violations(file: &str, text: &str, root: &Root) -> Vec<String> {
    let module = module_of(file);
    let tokens: TokenStream = text.parse().unwrap();
    let mut wrong = unsafe_violations(file, text, &tokens);
    if is_test(&module) {
        return wrong;
    }
    let Some(own) = module.first() else { return wrong };
    let Some(own_floor) = floor(own) else {
        wrong.push(format!("{file}: the module {own} is on no floor"));
        return wrong;
    };
    let mut found = Vec::new();
    imports(tokens, &module, &mut found);
    for Import { path, line } in found {
        let Some(first) = path.first() else {
            wrong.push(format!("{file}:{line}: names the root of the crate as a whole"));
            continue;
        };
        let target = root.source.get(first).unwrap_or(first);
        let text = path.join("::");
        if target == own {
            continue;
        }
        match floor(target) {
            None => wrong.push(format!("{file}:{line}: {text} is on no floor")),
            Some(floor) if floor > own_floor || floor == own_floor && floor != GROUND => {
                wrong.push(format!("{file}:{line}: {own} imports {text}, which is not on a lower floor"));
            }
            // The hook for tests is no part of what Rust users get.
            Some(_) if own == "capi" && !root.public.contains(first) && first != "fault" => {
                wrong.push(format!("{file}:{line}: capi imports {text}, which lib.rs does not export"));
            }
            Some(_) if path.starts_with(&["device".to_string(), "cpu".to_string()]) => {
                wrong.push(format!("{file}:{line}: {text}: only the device knows that it is a CPU"));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Whether `unsafe` occurs where it may, and says why it is sound.
fn unsafe_violations(file: &str, text: &str, tokens: &TokenStream) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lines = Vec::new();
    unsafe_lines(tokens.clone(), &mut lines);
    let path = Path::new(file);
    let allowed = UNSAFE.iter().any(|allowed| path.starts_with(allowed));
    let test_of_unsafe = is_test(&module_of(file)) && file.starts_with("device/cpu/");
    let text: Vec<&str> = text.lines().map(str::trim).collect();
    for (line, block) in lines {
        if !allowed && !test_of_unsafe {
            wrong.push(format!("{file}:{line}: unsafe outside the places that may have it"));
        }
        // The comment stands on the lines directly above the statement, which may begin above the block.
        let statement = |line: &&&str| !line.starts_with("//") && !line.ends_with([';', '{', '}', ',']);
        let above = text[..line - 1].iter().rev().skip_while(statement).take_while(|line| line.starts_with("//"));
        if block && !above.clone().any(|line| line.starts_with("// SAFETY")) {
            wrong.push(format!("{file}:{line}: an unsafe block without a SAFETY comment directly above"));
        }
    }
    wrong
}

/// The lines with `unsafe`, or an allowance of it; true for blocks and implementations.
fn unsafe_lines(tokens: TokenStream, lines: &mut Vec<(usize, bool)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (i, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            unsafe_lines(group.stream(), lines);
        }
        let next = tokens.get(i + 1);
        if is(token, "unsafe") {
            // Not the parentheses of `#[unsafe(no_mangle)]`.
            let braces = |group: &Group| group.delimiter() == Delimiter::Brace;
            let block = matches!(next, Some(TokenTree::Group(group)) if braces(group))
                || next.is_some_and(|next| is(next, "impl"));
            lines.push((token.span().start().line, block));
        } else if is(token, "unsafe_code") {
            lines.push((token.span().start().line, false));
        }
    }
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

#[test]
fn every_file_keeps_to_the_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let root = Root::read(&std::fs::read_to_string(src.join("lib.rs")).unwrap());
    assert!(root.public.iter().any(|name| name == "gguf") && root.source["Error"] == "error");
    let mut all = Vec::new();
    files(&src, &mut all);
    assert!(all.len() > 30);
    let mut wrong = Vec::new();
    for path in all {
        let file = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        wrong.extend(violations(&file, &std::fs::read_to_string(&path).unwrap(), &root));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Each rule on a text that breaks it, beside one that does not.
#[test]
fn every_rule_is_noticed() {
    let lib = "mod cancel; pub mod error; mod device; pub mod gguf; pub mod model; pub use cancel::Cancel;
        pub use error::{Error, Result}; pub use device::{Isa, Threads};";
    let root = Root::read(lib);
    assert_eq!(root.public, ["error", "gguf", "model", "Cancel", "Error", "Result", "Isa", "Threads"][..]);
    let good = [
        ("quant/mod.rs", "use crate::error::{Error, Result}; use super::quant::k;"),
        ("model/weights.rs", "use crate::{device::{Act, Device}, gguf::Gguf, Cancel}; use super::config::Config;"),
        ("device/cpu/act.rs", "pub(super) struct X; pub(crate) struct Y; use super::super::Activation; use super::kv;"),
        ("device/cpu/simd/avx2.rs", "pub(in crate::device::cpu) struct X; use crate::numeric::Real;"),
        ("rng.rs", "use crate::error::Error; // crate::model\nconst X: &str = \"crate::capi\";"),
        ("numeric/mod.rs", "mod wide { use super::exp; mod deep { use super::super::fma; } }"),
        ("capi/session.rs", "use crate::{Cancel, Error, model::Model}; use super::handle::Handle;"),
        ("device/cpu/tests/linear.rs", "use crate::gguf::Gguf;"),
        (
            "gguf/map.rs",
            "#![allow(unsafe_code)]\nfn f() {\n    // SAFETY: a fact\n    // in two lines.\n    unsafe { g() }\n}",
        ),
        ("capi/mod.rs", "// SAFETY: a fact.\nlet x =\n    unsafe { g() };\n/// Says what.\nunsafe fn f() {}"),
    ];
    for (file, text) in good {
        assert_eq!(violations(file, text, &root), [""; 0], "{file}");
    }
    let bad = [
        ("quant/mod.rs", "use crate::gguf::Gguf;", "not on a lower floor"),
        ("quant/k.rs", "use super::super::model::Model;", "not on a lower floor"),
        ("gguf/mod.rs", "fn f() -> crate::device::Buffer {}", "not on a lower floor"),
        ("device/mod.rs", "use crate::{error::Error, gguf::{Gguf, Value}};", "not on a lower floor"),
        ("token/mod.rs", "use crate::model::Config;", "not on a lower floor"),
        ("token/mod.rs", "use crate::sample;", "not on a lower floor"),
        ("generate/mod.rs", "use crate::train::Trainer;", "not on a lower floor"),
        ("model/mod.rs", "use crate::capi::handle;", "not on a lower floor"),
        ("error.rs", "macro_rules! m { () => { crate::quant::Format } }", "not on a lower floor"),
        ("gguf/reader.rs", "use crate::Threads;", "not on a lower floor"),
        ("gguf/reader.rs", "mod inner { use super::super::super::token::Tokenizer; }", "not on a lower floor"),
        ("model/forward.rs", "use crate::device::cpu::Device;", "only the device"),
        ("model/forward.rs", "use crate::device::{Act, cpu::{self, Isa}};", "only the device"),
        ("model/forward.rs", "use crate::elsewhere::X;", "on no floor"),
        ("model/forward.rs", "use crate::*;", "root of the crate"),
        ("elsewhere/mod.rs", "", "on no floor"),
        ("capi/model.rs", "use crate::device::Isa;", "does not export"),
        ("capi/model.rs", "use crate::cancel::Cancel;", "does not export"),
        ("model/mod.rs", "// SAFETY: a fact.\nunsafe { f() }", "outside the places"),
        ("device/cpu/packed.rs", "#![allow(unsafe_code)]", "outside the places"),
        ("token/tests.rs", "unsafe fn f() {}", "outside the places"),
        ("capi/mod.rs", "unsafe { f() }", "without a SAFETY"),
        ("capi/mod.rs", "// SAFETY: of another.\nlet x = 1;\nlet y = unsafe { f() };", "without a SAFETY"),
        ("capi/mod.rs", "macro_rules! m { ($e:expr) => {\n    unsafe { $e }\n} }", "without a SAFETY"),
        ("device/cpu/threads.rs", "// Two threads.\nunsafe impl Sync for X {}", "without a SAFETY"),
    ];
    for (file, text, expected) in bad {
        let found = violations(file, text, &root);
        assert!(found.iter().any(|wrong| wrong.contains(expected)), "{file}: {text}: {found:?}");
    }
}
