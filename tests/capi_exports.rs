//! Every exported function is guarded and documented, and the sources, the header, the JSON and the shared library name
//! the same functions.

mod capi;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use capi::{Api, c, read, root, tag};
use serde_json::Value;
use syn::{Expr, Stmt};

fn rust_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            rust_files(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

#[test]
fn the_body_of_every_export_is_one_guard() {
    let api = Api::read();
    for function in &api.functions {
        let name = &function.name;
        let guard = match &function.item.block.stmts[..] {
            [Stmt::Macro(statement)] => &statement.mac,
            [Stmt::Expr(Expr::Macro(expression), _)] => &expression.mac,
            _ => panic!("the body of {name} is not one guard macro"),
        };
        let guard_name = guard.path.get_ident().expect("a guard is a plain name").to_string();
        let last = function.params.last();
        if function.returns == "llm_status_t" && last.is_some_and(|p| p.name == "error") && function.must_use {
            assert_eq!(guard_name, "fallible", "{name}");
            assert_eq!(last.expect("checked").c_type, "llm_error_t **", "{name}");
            assert!(guard.tokens.to_string().starts_with("error ,"), "{name} gives its guard something else");
        } else {
            assert!(["value", "bare", "signal"].contains(&&*guard_name), "{name} has the guard {guard_name}");
            assert!(function.params.iter().all(|p| p.c_type != "llm_error_t **"), "{name} should return a status");
        }
        let abi = function.item.sig.abi.as_ref().and_then(|abi| abi.name.as_ref()).expect("an ABI").value();
        assert!(abi == "C" && function.item.sig.unsafety.is_some(), "{name}");
    }
    // Nothing is exported from elsewhere or in another way.
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let exported: usize = files.iter().map(|file| read(file).matches("#[unsafe(no_mangle)]").count()).sum();
    let others: usize = files.iter().map(|file| read(file).matches("export_name").count()).sum();
    assert_eq!((exported, others), (api.functions.len(), 0));
    assert!(exported > 80, "only {exported} exports were found");
}

#[test]
fn everything_is_documented() {
    let api = Api::read();
    for function in &api.functions {
        let name = &function.name;
        assert!(tag(&function.doc, "thread").is_some(), "{name} lacks @thread");
        assert_eq!(tag(&function.doc, "status").is_some(), function.must_use, "{name}: @status");
        let returns = function.returns != "void" && !function.must_use;
        assert_eq!(tag(&function.doc, "return").is_some(), returns, "{name}: @return");
        let owner = function.name.starts_with("llm_") && api.is_named_after_an_object(name);
        assert!(owner, "{name} is not named after an object");
    }
    for (name, doc) in &api.objects {
        assert!(doc.contains("@code{.c}") && doc.contains("@endcode"), "{name} lacks an example");
        let free = format!("{}_free", name.trim_end_matches("_t"));
        assert!(api.functions.iter().any(|function| function.name == free), "{free} is missing");
    }
    for (name, doc, ..) in &api.constants {
        assert!(!doc.is_empty() && name.starts_with("LLM_"), "{name}");
    }
    for field in api.structs.iter().flat_map(|s| &s.fields) {
        assert!(!field.doc.is_empty(), "{} lacks a comment", field.name);
    }
}

#[test]
fn the_library_exports_what_the_json_names() {
    let symbols = c::succeed(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(c::library()));
    let exported: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    let json: Value = serde_json::from_str(&read("include/llm_api.json")).expect("llm_api.json parses");
    let functions = json["functions"].as_array().expect("a list");
    let named: BTreeSet<&str> = functions.iter().map(|f| f["name"].as_str().expect("a name")).collect();
    assert_eq!(exported, named);
}

#[test]
fn the_header_declares_what_the_json_says() {
    let mut clang = Command::new("clang");
    clang.args(["-std=c99", "-x", "c", "-fsyntax-only", "-Xclang", "-ast-dump=json"]);
    let tree = c::succeed(clang.arg(root().join("include/llm.h")));
    let tree: Value = serde_json::from_str(&tree).expect("clang prints JSON");
    let declarations = tree["inner"].as_array().expect("a list").iter();
    let mut declared: Vec<(String, String)> = declarations
        .filter(|d| d["kind"] == "FunctionDecl")
        .map(|d| {
            let c_type = d["type"]["qualType"].as_str().expect("a type");
            let c_type = c_type.replace(" _Nonnull", "").replace(" _Nullable", "").replace("struct ", "");
            // clang writes bool as the macro's value.
            (d["name"].as_str().expect("a name").to_owned(), c_type.replace("_Bool", "bool").replace(' ', ""))
        })
        .collect();
    let json: Value = serde_json::from_str(&read("include/llm_api.json")).expect("llm_api.json parses");
    let functions = json["functions"].as_array().expect("a list").iter();
    let mut expected: Vec<(String, String)> = functions
        .map(|f| {
            let params = f["params"].as_array().expect("a list").iter();
            let params: Vec<&str> = params.map(|p| p["type"].as_str().expect("a type")).collect();
            let params = if params.is_empty() { "void".to_owned() } else { params.join(",") };
            let c_type = format!("{}({params})", f["returns"].as_str().expect("a type")).replace(' ', "");
            (f["name"].as_str().expect("a name").to_owned(), c_type)
        })
        .collect();
    declared.sort();
    expected.sort();
    assert_eq!(declared, expected);
}
