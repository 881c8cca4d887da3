//! What the shared library does not export.
//!
//! The crate `llguidance` has C functions of its own, and a shared library exports those of all its crates. An
//! assembler's `.hidden` in any object is stronger than that (System V ABI, "Symbol Table"; the most constraining
//! visibility counts). Other systems than those with ELF files export them.

macro_rules! hide {
    ($($name:literal),* $(,)?) => {
        #[cfg(all(unix, not(target_vendor = "apple")))]
        std::arch::global_asm!($(concat!(".hidden ", $name)),*);
    };
}

hide! {
    "llg_cancel", "llg_clone_cancellation_handle", "llg_clone_constraint", "llg_clone_matcher",
    "llg_clone_stop_controller", "llg_clone_tokenizer", "llg_commit_token", "llg_compute_mask",
    "llg_constraint_init_set_defaults", "llg_decode_tokens", "llg_flush_logs", "llg_free_cancellation_handle",
    "llg_free_constraint", "llg_free_matcher", "llg_free_stop_controller", "llg_free_tokenizer", "llg_get_error",
    "llg_get_temperature", "llg_get_version", "llg_is_stopped", "llg_matcher_compute_ff_tokens",
    "llg_matcher_compute_mask", "llg_matcher_compute_mask_into", "llg_matcher_consume_token",
    "llg_matcher_consume_tokens", "llg_matcher_get_cancellation_handle", "llg_matcher_get_error",
    "llg_matcher_get_mask", "llg_matcher_get_mask_byte_size", "llg_matcher_is_accepting", "llg_matcher_is_cancelled",
    "llg_matcher_is_error", "llg_matcher_is_stopped", "llg_matcher_reset", "llg_matcher_rollback",
    "llg_matcher_validate_tokens", "llg_new_constraint", "llg_new_constraint_any", "llg_new_constraint_json",
    "llg_new_constraint_lark", "llg_new_constraint_regex", "llg_new_matcher", "llg_new_stop_controller",
    "llg_new_tokenizer", "llg_new_tokenizer_v2", "llg_par_compute_mask", "llg_stop_commit_token",
    "llg_stringify_tokens", "llg_tokenize_bytes", "llg_tokenize_bytes_marker", "llg_validate_grammar",
}
