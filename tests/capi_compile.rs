//! The header compiles everywhere, without a warning, and its structs are laid out as the JSON says.

mod capi;

use std::fmt::Write;
use std::process::Command;

use capi::{Api, c, root};

const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"];

#[test]
fn the_header_compiles_alone_and_twice_in_c_and_cpp() {
    let folder = c::folder("compile");
    let sources = [
        ("alone", "#include \"llm.h\"\n"),
        ("twice", "#include \"llm.h\"\n#include \"llm.h\"\nint main(void) { return (int)llm_abi_version(); }\n"),
    ];
    let c = [("gcc", "c", &["c99", "c2x"]), ("clang", "c", &["c99", "c2x"])];
    let cpp = [("g++", "c++", &["c++17", "c++20"]), ("clang++", "c++", &["c++17", "c++20"])];
    for (compiler, language, standards) in c.into_iter().chain(cpp) {
        for (standard, (name, text)) in standards.iter().flat_map(|standard| sources.map(|source| (standard, source))) {
            let file = folder.join(name);
            std::fs::write(&file, text).expect("the target folder can be written to");
            let mut command = Command::new(compiler);
            command.args(WARNINGS).args(["-x", language]).arg(format!("-std={standard}"));
            if compiler.starts_with("clang") {
                command.arg("-Wdocumentation");
            }
            c::succeed(command.arg("-I").arg(root().join("include")).arg(&file));
        }
    }
}

#[test]
fn an_ignored_status_is_a_warning() {
    let folder = c::folder("nodiscard");
    let file = folder.join("ignored.c");
    let text = "#include \"llm.h\"\nvoid f(llm_session_t *s) { llm_session_reset(s, NULL); }\n";
    std::fs::write(&file, text).expect("the target folder can be written to");
    for (compiler, standard) in [("clang", "c99"), ("clang++", "c++17"), ("g++", "c++17")] {
        let mut command = Command::new(compiler);
        let language = if compiler.ends_with("++") { "c++" } else { "c" };
        command.args(WARNINGS).args(["-x", language, &format!("-std={standard}")]);
        let output = c::run(command.arg("-I").arg(root().join("include")).arg(&file));
        assert!(!output.status.success(), "{compiler} says nothing about an ignored status");
    }
}

#[test]
fn structs_and_constants_are_as_the_json_says() {
    let api = Api::read();
    let mut text = String::from("#include \"llm.h\"\n");
    for s in &api.structs {
        let name = &s.name;
        writeln!(text, "_Static_assert(sizeof({name}) == {}, \"{name}\");", s.size).expect("a String");
        for f in &s.fields {
            let field = &f.name;
            writeln!(text, "_Static_assert(offsetof({name}, {field}) == {}, \"{field}\");", f.offset)
                .expect("a String");
            writeln!(text, "_Static_assert(sizeof((({name} *)0)->{field}) == {}, \"{field}\");", f.size)
                .expect("a String");
        }
    }
    for (name, _, _, value) in &api.constants {
        writeln!(text, "_Static_assert({name} == {value}, \"{name}\");").expect("a String");
    }
    let file = c::folder("layout").join("layout.c");
    std::fs::write(&file, text).expect("the target folder can be written to");
    for compiler in ["gcc", "clang"] {
        let mut command = Command::new(compiler);
        c::succeed(command.args(["-std=c11", "-fsyntax-only", "-I"]).arg(root().join("include")).arg(&file));
    }
}

#[test]
fn structs_begin_with_their_size_and_have_no_padding() {
    for s in &Api::read().structs {
        let filled: u64 = s.fields.iter().map(|field| field.size).sum();
        assert_eq!(filled, s.size, "{} has padding", s.name);
        // What is passed in arrays is frozen.
        let frozen = ["llm_view_t", "llm_candidate_t", "llm_logprob_t"].contains(&&*s.name);
        assert_eq!(s.fields[0].name == "struct_size", !frozen, "{}", s.name);
    }
}

/// What the examples of the header stand between.
const AROUND: &str = "#include \"llm.h\"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
extern llm_model_t *model;
extern llm_gguf_t *gguf;
extern llm_tokenizer_t *tokenizer;
extern llm_session_t *session;
extern llm_decoder_t *decoder;
extern llm_engine_t *engine;
extern llm_request_t *request;
extern llm_events_t *events;
extern llm_token_t token, tokens[];
extern size_t count, D;
extern llm_finish_reason_t finish;
bool more(llm_token_t *token);
bool print_token(llm_token_t token, const char *text, size_t size, void *user_data);
";

#[test]
fn the_examples_of_the_header_compile_in_c_and_cpp() {
    let header = std::fs::read_to_string(root().join("include/llm.h")).expect("the header");
    let folder = c::folder("examples");
    let examples: Vec<_> =
        header.split("@code{.c}").skip(1).map(|rest| rest.split("@endcode").next().unwrap()).collect();
    assert!(examples.len() >= 20, "{}", examples.len());
    for (number, example) in examples.into_iter().enumerate() {
        let lines = example.lines().map(|line| line.trim_start_matches(" *").strip_prefix(' ').unwrap_or_default());
        // What is static stands outside of functions.
        let (outside, inside): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("static "));
        let (outside, inside) = (outside.join("\n"), inside.join("\n"));
        let error =
            if inside.contains("llm_error_t *error") { "" } else { "llm_error_t *error = NULL; (void)error;\n" };
        let text =
            format!("{AROUND}{outside}\nint example(void);\nint example(void) {{\n{error}{inside}\nreturn 0;\n}}\n");
        let file = folder.join(format!("{number}.c"));
        std::fs::write(&file, text).expect("the target folder can be written to");
        // Clang sees what is used without a value, gcc a status that is kept and not looked at.
        for (compiler, language, standard) in
            [("clang", "c", "c99"), ("gcc", "c", "c99"), ("clang++", "c++", "c++17"), ("g++", "c++", "c++17")]
        {
            let mut command = Command::new(compiler);
            command.args(WARNINGS).args(["-x", language]).arg(format!("-std={standard}"));
            c::succeed(command.arg("-I").arg(root().join("include")).arg(&file));
        }
    }
}
