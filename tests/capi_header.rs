//! include/llm.h and include/llm_api.json are what src/capi says. `LLM_BLESS=1` rewrites them.

mod capi;

use capi::{Api, read, root};

fn check(file: &str, expected: &str) {
    if std::env::var_os("LLM_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(root().join(file), expected).expect("the repository can be written to");
    }
    let found = read(file);
    let differs = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
    assert!(
        found == expected,
        "{file} is not what src/capi says, from line {:?} on: run `LLM_BLESS=1 cargo test --test capi_header`",
        differs.map(|line| line + 1)
    );
}

#[test]
fn the_header_is_up_to_date() {
    check("include/llm.h", &Api::read().header());
}

#[test]
fn the_json_is_up_to_date() {
    let json = serde_json::to_string_pretty(&Api::read().to_json()).expect("JSON of strings and numbers");
    check("include/llm_api.json", &(json + "\n"));
}
