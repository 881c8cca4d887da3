//! The C functions: one file per C object over the glue in `guard`, `handle` and `args`.
//!
//! The body of every exported function is one of the three guard macros of `guard`; inside there are argument checks,
//! handle conversions and calls into the Rust API, no more. `include/llm.h` and `include/llm_api.json` are generated
//! from the files named here (`tests/capi_header.rs`), so the doc comments of this folder are the C documentation.
#![allow(unsafe_code, reason = "pointers from C; every unsafe block says what makes it sound")]
#![allow(non_camel_case_types, reason = "the names of C types")]

#[cfg(panic = "abort")]
compile_error!("the C functions turn panics into errors: build with panic = \"unwind\", or without the feature capi");

// Glue, nothing of which is in the header.
mod args;
mod exports;
#[macro_use]
mod guard;
mod handle;
#[cfg(all(test, any(debug_assertions, feature = "check-handles")))]
mod handle_tests;
#[cfg(test)]
mod layout_tests;

mod live;

// The header, in its order.
mod version;

mod status;

mod error;

mod log;

mod bytes;
mod cancel;

mod gguf;
mod gguf_metadata;

mod gguf_arrays;

mod gguf_tensors;

mod gguf_writer;

mod gguf_writer_keys;

mod model;

mod pack;
mod quantize;

mod tokenizer;

mod decoder;
mod sampler;
mod sampler_steps;
mod sampler_tokens;

mod session;
mod session_embed;
mod session_generate;
mod session_params;
mod session_speculation;
mod session_state;

mod beams;

mod lora;
mod messages;

mod paged_cache;

mod request;

mod grammar;

mod engine;
mod events;
