//! Structs are laid out in Rust as include/llm_api.json says; tests/capi_compile.rs checks the same in C.

use std::mem::offset_of;

use serde_json::Value;

use super::beams::{llm_beam_params_t, llm_beam_t};
use super::bytes::llm_view_t;
use super::engine::{llm_engine_params_t, llm_engine_stats_t};
use super::events::llm_event_t;
use super::gguf_tensors::llm_tensor_info_t;
use super::lora::llm_lora_info_t;
use super::model::{llm_memory_t, llm_model_info_t, llm_model_params_t};
use super::paged_cache::{llm_attention_params_t, llm_paged_cache_params_t, llm_paged_cache_stats_t};
use super::quantize::{llm_imatrix_params_t, llm_quantize_params_t};
use super::request::llm_request_params_t;
use super::sampler::llm_sampler_params_t;
use super::sampler_tokens::llm_candidate_t;
use super::session::llm_timings_t;
use super::session_embed::llm_embed_params_t;
use super::session_generate::llm_logprob_t;
use super::session_params::{llm_generate_params_t, llm_session_params_t};
use super::session_speculation::llm_speculation_t;
use super::tokenizer::llm_tokenizer_info_t;

macro_rules! layouts {
    ($($name:ident { $($field:ident)* })*) => {
        vec![$((stringify!($name), size_of::<$name>(), vec![$((stringify!($field), offset_of!($name, $field))),*])),*]
    };
}

#[test]
fn structs_are_as_the_json_says() {
    let rust = layouts! {
        llm_view_t { data size }
        llm_tensor_info_t { struct_size name type_name dimensions dimension_count type_id offset bytes part }
        llm_model_params_t { struct_size flags threads progress progress_user_data }
        llm_model_info_t {
            struct_size vocab_size context_length embedding_length layer_count head_count head_count_kv
            feed_forward_length parameter_count weight_bytes
        }
        llm_memory_t { struct_size weights kv_cache scratch total }
        llm_quantize_params_t {
            struct_size flags threads output_type embedding_type progress progress_user_data
        }
        llm_imatrix_params_t { struct_size flags threads chunk_size reserved progress progress_user_data }
        llm_tokenizer_info_t {
            struct_size vocab_size bos eos pad unk eot adds_bos adds_eos eom sep mask fill_prefix fill_suffix
            fill_middle fill_pad fill_repository fill_separator cleans_up_spaces
        }
        llm_sampler_params_t {
            struct_size seed temperature top_p min_p repeat_penalty top_k repeat_last_n frequency_penalty
            presence_penalty typical_p xtc_probability xtc_threshold dry_multiplier dry_base dry_allowed_length
            dry_last_n top_n_sigma temperature_range temperature_exponent mirostat mirostat_tau mirostat_eta reserved
        }
        llm_candidate_t { token logit }
        llm_timings_t { struct_size prompt_tokens prompt_us generated_tokens generated_us }
        llm_embed_params_t { struct_size pooling flags }
        llm_logprob_t { token logprob }
        llm_session_params_t { struct_size context_length threads kv_type chunk isa cache window sinks page_size reserved }
        llm_generate_params_t { struct_size max_tokens flags }
        llm_speculation_t { struct_size guessed accepted passes }
        llm_beam_params_t { struct_size length_penalty width max_tokens flags reserved }
        llm_beam_t { struct_size logprob score tokens token_count text finish_reason reserved }
        llm_lora_info_t { struct_size rank tensor_count bytes alpha reserved }
        llm_paged_cache_params_t {
            struct_size num_layers num_kv_heads head_dim max_pages page_size kv_type threads isa
        }
        llm_attention_params_t { struct_size num_heads window scale softcap }
        llm_paged_cache_stats_t {
            struct_size pages_total pages_used pages_shared pages_idle pages_peak utilisation positions sequences bytes
            forks copies prefix_hits evictions
        }
        llm_request_params_t { struct_size max_tokens flags priority count top_logprobs reserved user_data }
        llm_engine_params_t {
            struct_size context_length max_pages page_size kv_type max_batch chunk threads isa window sinks
        }
        llm_engine_stats_t {
            struct_size waiting running submitted finished cancelled failed steps members largest_batch prompt_tokens
            reused_tokens generated_tokens preemptions time_us largest_quantum_us pages_total pages_used pages_shared
            pages_idle bytes
        }
        llm_event_t { struct_size request index token finish_reason status text message user_data }
    };
    let json: Value = serde_json::from_str(include_str!("../../include/llm_api.json")).unwrap();
    let mut stated = Vec::new();
    for s in json["structs"].as_array().unwrap() {
        let field = |f: &Value| (f["name"].as_str().unwrap().to_owned(), f["offset"].as_u64().unwrap() as usize);
        let fields: Vec<_> = s["fields"].as_array().unwrap().iter().map(field).collect();
        stated.push((s["name"].as_str().unwrap().to_owned(), s["size"].as_u64().unwrap() as usize, fields));
    }
    let owned = |(name, offset): &(&str, usize)| ((*name).to_owned(), *offset);
    let rust: Vec<_> =
        rust.iter().map(|(name, size, f)| ((*name).to_owned(), *size, f.iter().map(owned).collect())).collect();
    assert_eq!(rust, stated);
}
