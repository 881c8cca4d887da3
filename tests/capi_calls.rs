//! Every export is called with each of its pointers NULL, and once with a panic inside: neither may do more than return
//! what the header says. The calls are a C program, written from what src/capi states.
//!
//! In release builds the library has panics on demand with the features `check-handles,test-hooks` only.
#![cfg(any(debug_assertions, all(feature = "check-handles", feature = "test-hooks")))]

mod capi;
mod common;

use std::fmt::Write;
use std::process::Command;

use capi::{Api, Function, Param, c};

/// Makes one object of each kind, and judges what calls return.
const PRELUDE: &str = r#"
#include "llm.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures, calls;
static const char *panic_in; /* the function that panics, or NULL */

static void fail(const char *function, const char *param, const char *what)
{
    printf("%s, %s: %s\n", function, param ? param : "panic", what);
    failures++;
}

static int same(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

static int untouched(const void *out, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (((const unsigned char *)out)[i] != 0xa5)
            return 0;
    return 1;
}

static void before(const char *function)
{
    calls++;
    if (panic_in)
        setenv("LLM_TEST_PANIC", function, 1);
}

static void after(void) { unsetenv("LLM_TEST_PANIC"); }

/* Judges a status. `error` is what was written, or NULL if that was not wanted. */
static void judge(const char *function, const char *param, int nullable, llm_status_t status, llm_error_t *error)
{
    int named = same(llm_error_get(error, "argument"), param);
    if (panic_in) {
        if (status != LLM_STATUS_INTERNAL || !same(llm_error_get(error, "function"), function))
            fail(function, param, llm_status_name(status));
    } else if (same(param, "error")) {
        if (status == LLM_STATUS_INTERNAL)
            fail(function, param, "INTERNAL");
    } else if (nullable ? named : status != LLM_STATUS_INVALID_ARGUMENT || !named) {
        fail(function, param, llm_error_message(error));
    }
    if (!same(param, "error") && (status == LLM_STATUS_OK) != (error == NULL))
        fail(function, param, "*error does not fit the status");
    llm_error_free(error);
}

static void must(llm_status_t status)
{
    if (status != LLM_STATUS_OK) {
        printf("an object cannot be made: %s\n", llm_status_name(status));
        exit(1);
    }
}
"#;

const MAKE: &str = r#"
static void make_objects(const char *path, const char *lora)
{
    must(llm_gguf_open(path, LLM_NUL_TERMINATED, &the_gguf, NULL));
    must(llm_model_load_gguf(the_gguf, NULL, NULL, &the_model, NULL));
    must(llm_model_tokenizer(the_model, &the_tokenizer, NULL));
    must(llm_decoder_new(the_tokenizer, 0, &the_decoder, NULL));
    must(llm_session_new(the_model, NULL, &the_session, NULL));
    must(llm_lora_load(the_model, lora, LLM_NUL_TERMINATED, &the_lora, NULL));
    must(llm_sampler_new(NULL, &the_sampler, NULL));
    must(llm_cancel_new(&the_cancel, NULL));
    must(llm_gguf_writer_new(&the_gguf_writer, NULL));
    must(llm_messages_new(&the_messages, NULL));
    llm_paged_cache_params_t pages;
    llm_paged_cache_params_init(&pages, sizeof pages);
    pages.num_layers = pages.num_kv_heads = pages.head_dim = pages.max_pages = 1;
    must(llm_paged_cache_new(&pages, &the_paged_cache, NULL));
    must(llm_engine_new(the_model, NULL, &the_engine, NULL));
    must(llm_events_new(&the_events, NULL));
    must(llm_request_new(&the_request, NULL));
    must(llm_grammar_new(the_tokenizer, LLM_GRAMMAR_REGEX, "a+", LLM_NUL_TERMINATED, &the_grammar, NULL));
    must(llm_session_append_tokens(the_session, (const llm_token_t[]){1, 2}, 2, NULL));
    must(llm_session_beam_search(the_session, NULL, &the_beams, NULL));
    must(llm_session_reset(the_session, NULL));
    must(llm_tokenizer_decode(the_tokenizer, NULL, 0, 0, &the_bytes, NULL));
    if (llm_gguf_open("", 0, NULL, &the_error) == LLM_STATUS_OK)
        exit(1);
}

static void free_objects(void)
{
    llm_model_free(the_model);
    llm_gguf_free(the_gguf);
    llm_tokenizer_free(the_tokenizer);
    llm_session_free(the_session);
    llm_decoder_free(the_decoder);
    llm_sampler_free(the_sampler);
    llm_lora_free(the_lora);
    llm_cancel_free(the_cancel);
    llm_gguf_writer_free(the_gguf_writer);
    llm_messages_free(the_messages);
    llm_paged_cache_free(the_paged_cache);
    llm_engine_free(the_engine);
    llm_events_free(the_events);
    llm_request_free(the_request);
    llm_beams_free(the_beams);
    llm_grammar_free(the_grammar);
    llm_bytes_free(the_bytes);
    llm_error_free(the_error);
}
"#;

/// The C type that a pointer points to.
fn target(c_type: &str) -> &str {
    c_type.trim_end_matches('*').trim_end()
}

/// The variable that a parameter gets its value from, as C declarations; whether it is an output to be watched.
fn argument(api: &Api, function: &Function, param: &Param) -> (String, bool) {
    let (name, c_type) = (&param.name, &param.c_type);
    if api.is_callback(c_type) {
        let value = if param.nullable { "NULL".to_owned() } else { format!("stub_{c_type}") };
        return (format!("    {c_type} {name} = same(without, \"{name}\") ? NULL : {value};\n"), false);
    }
    if !c_type.ends_with('*') {
        let value = match name.as_str() {
            "size" if function.name.ends_with("_init") => "sizeof params_value".to_owned(),
            // One element each, and flags and indices 0.
            _ if c_type == "size_t" && function.params.iter().any(|p| p.length.as_ref() == Some(name)) => {
                "1".to_owned()
            }
            _ => "0".to_owned(),
        };
        return (format!("    {c_type} {name} = {value};\n"), false);
    }
    let object = |t: &str| api.objects.iter().any(|(object, _)| object == t);
    let pointed = target(c_type.strip_prefix("const ").unwrap_or(c_type));
    let stars = c_type.matches('*').count();
    let (declaration, value, watched) = if stars == 1 && object(pointed) {
        (String::new(), format!("the_{}", pointed.trim_start_matches("llm_").trim_end_matches("_t")), false)
    } else if param.direction == "in" {
        match pointed {
            "char" => (String::new(), "\"a\"".to_owned(), false),
            "void" if name == "user_data" => (String::new(), "NULL".to_owned(), false),
            "void" => (String::new(), "\"a\"".to_owned(), false),
            params if params.ends_with("_params_t") => {
                let init = format!("{}_init", params.trim_end_matches("_t"));
                let text = format!("    {params} {name}_value;\n    {init}(&{name}_value, sizeof {name}_value);\n");
                (text, format!("&{name}_value"), false)
            }
            number => (format!("    {number} {name}_value[1] = {{0}};\n"), format!("{name}_value"), false),
        }
    } else {
        let inner = if stars == 2 {
            format!("{}*", &c_type[..c_type.len() - 1].trim_end_matches('*'))
        } else {
            pointed.to_owned()
        };
        let inner = if inner == "void" { "char".to_owned() } else { inner };
        let mut text = format!("    {inner} {name}_value;\n    memset(&{name}_value, 0xa5, sizeof {name}_value);\n");
        if param.direction == "in,out" {
            writeln!(text, "    {name}_value.struct_size = sizeof {name}_value;").expect("a String");
        }
        (text, format!("&{name}_value"), param.direction == "out" && name != "error")
    };
    (format!("{declaration}    {c_type} {name} = same(without, \"{name}\") ? NULL : {value};\n"), watched)
}

/// A C function that calls an export without one of its arguments.
fn caller(api: &Api, function: &Function) -> String {
    let name = &function.name;
    let mut text = format!("static void call_{name}(const char *without, int nullable)\n{{\n");
    let mut watched = Vec::new();
    for param in &function.params {
        let (declaration, watch) = argument(api, function, param);
        text += &declaration;
        if watch {
            watched.push(param);
        }
    }
    let names: Vec<&str> = function.params.iter().map(|p| p.name.as_str()).collect();
    let call = format!("{name}({})", names.join(", "));
    writeln!(text, "    before(\"{name}\");").expect("a String");
    if function.must_use {
        writeln!(text, "    llm_status_t status = {call};\n    after();").expect("a String");
        for param in watched {
            let name = &param.name;
            let free = api.objects.iter().find(|(object, _)| param.c_type == format!("{object} **"));
            let free = free.map_or(String::new(), |(object, _)| {
                let free = object.trim_end_matches("_t");
                format!("    if (status == LLM_STATUS_OK && {name}) {free}_free({name}_value);\n")
            });
            text += &free;
            // The documented exceptions tell the room that is needed.
            let exception =
                ["llm_tokenizer_encode", "llm_session_tokens"].contains(&&*function.name) && name == "count";
            let allowed = if exception { "LLM_STATUS_BUFFER_TOO_SMALL" } else { "LLM_STATUS_OK" };
            writeln!(
                text,
                "    if (status != LLM_STATUS_OK && status != {allowed} && !untouched(&{name}_value, sizeof {name}_value))\n\
                \x20       fail(\"{}\", without, \"{name} was written\");",
                function.name
            )
            .expect("a String");
        }
        writeln!(text, "    judge(\"{name}\", without, nullable, status, error ? error_value : NULL);")
            .expect("a String");
    } else if function.returns == "void" {
        writeln!(text, "    {call};\n    after();\n    (void)nullable;").expect("a String");
    } else {
        writeln!(text, "    {} result = {call};\n    after();", function.returns).expect("a String");
        // Texts have defaults of their own.
        let judged = if function.returns == "const char *" { "0" } else { "!nullable && result" };
        writeln!(text, "    (void)result;\n    if ({judged} && (without || panic_in))").expect("a String");
        writeln!(text, "        fail(\"{name}\", without, \"the result is not the default\");\n    (void)nullable;")
            .expect("a String");
    }
    text + "}\n\n"
}

fn program(api: &Api) -> String {
    let mut text = PRELUDE.to_owned();
    for (object, _) in &api.objects {
        writeln!(text, "static {object} *the_{};", object.trim_start_matches("llm_").trim_end_matches("_t"))
            .expect("a String");
    }
    text += MAKE;
    for (name, _, params, returns) in &api.callbacks {
        let params: Vec<String> = params.iter().map(|p| format!("{} {}", p.c_type, p.name)).collect();
        let unused: Vec<String> =
            params.iter().map(|p| format!("(void){};", p.rsplit(' ').next().unwrap_or(p))).collect();
        let result = if returns == "void" { "" } else { "return 0;" };
        writeln!(
            text,
            "static {returns} stub_{name}({})\n{{\n    {} {result}\n}}\nstatic {name} unused_{name}(void) {{ return stub_{name}; }}",
            params.join(", "),
            unused.join(" ").replace("(void)*", "(void)")
        )
        .expect("a String");
    }
    for function in &api.functions {
        text += &caller(api, function);
    }
    text += "int main(int argc, char **argv)\n{\n    if (argc != 3)\n        return 1;\n    make_objects(argv[1], argv[2]);\n";
    for (name, ..) in &api.callbacks {
        writeln!(text, "    (void)unused_{name};").expect("a String");
    }
    for function in &api.functions {
        for param in function.params.iter().filter(|param| api.is_pointer(param)) {
            writeln!(text, "    call_{}(\"{}\", {});", function.name, param.name, i32::from(param.nullable))
                .expect("a String");
        }
    }
    for function in &api.functions {
        let name = &function.name;
        writeln!(text, "    panic_in = \"{name}\";\n    call_{name}(NULL, 0);\n    panic_in = NULL;")
            .expect("a String");
    }
    // Nothing of all that has harmed the objects.
    text + "    free_objects();\n    printf(\"%d calls, %d failures\\n\", calls, failures);\n    return failures != 0;\n}\n"
}

#[test]
fn every_pointer_may_be_null_and_every_export_may_panic() {
    let api = Api::read();
    let source = c::folder("calls").join("calls.c");
    std::fs::write(&source, program(&api)).expect("the target folder can be written to");
    let program = c::build(&source, "calls");
    // In a folder of its own: files may be written there.
    let files = ["gguf-bad/ok-tiny-model.gguf", "programs/lora.gguf"].map(common::data);
    let printed = c::succeed(Command::new(program).args(files).current_dir(c::folder("calls")));
    let pointers: usize = api.functions.iter().map(|f| f.params.iter().filter(|p| api.is_pointer(p)).count()).sum();
    let calls = pointers + api.functions.len();
    assert_eq!(printed, format!("{calls} calls, 0 failures\n"));
}
