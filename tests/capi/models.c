/* Models and tokenizers, as a C program sees them, on a model of one layer. */
#include "check.h"

static llm_model_t *load(void)
{
    llm_model_t *model = NULL;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    return model;
}

static void models(void)
{
    llm_model_t *model = load();
    llm_model_info_t info;
    info.struct_size = sizeof info;
    OK(llm_model_info(model, &info, &error));
    CHECK(info.layer_count == 1 && info.vocab_size > 100 && info.parameter_count > 0 && info.weight_bytes > 0);
    llm_view_t text = {NULL, 0};
    OK(llm_model_architecture(model, &text, &error));
    CHECK(view_is(text, "llama"));
    OK(llm_model_description(model, &text, &error));
    CHECK(text.size > 0);

    llm_gguf_t *gguf = NULL;
    OK(llm_gguf_open(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
    llm_memory_t memory;
    memory.struct_size = sizeof memory;
    OK(llm_model_memory(gguf, NULL, &memory, &error));
    CHECK(memory.weights > 0 && memory.kv_cache > 0 && memory.scratch > 0);
    CHECK(memory.total == memory.weights + memory.kv_cache + memory.scratch);

    llm_model_params_t params;
    llm_model_params_init(&params, sizeof params);
    llm_model_t *other = NULL;
    params.flags = 0x80;
    FAILS(UNSUPPORTED, llm_model_load_gguf(gguf, &params, NULL, &other, &error));
    llm_error_free(error);
    params.flags = 0;
    params.threads = LLM_THREADS_CALLER;
    OK(llm_model_load_gguf(gguf, &params, NULL, &other, &error));
    llm_gguf_free(gguf);
    llm_model_free(other);

    llm_session_t *session = NULL;
    llm_session_params_t session_params;
    llm_session_params_init(&session_params, sizeof session_params);
    session_params.kv_type = 7;
    FAILS(INVALID_ARGUMENT, llm_session_new(model, &session_params, &session, &error));
    llm_error_free(error);
    session_params.kv_type = LLM_KV_F16;
    session_params.isa = 99;
    FAILS(INVALID_ARGUMENT, llm_session_new(model, &session_params, &session, &error));
    llm_error_free(error);
    session_params.isa = LLM_ISA_SCALAR;
    session_params.reserved = 1;
    FAILS(UNSUPPORTED, llm_session_new(model, &session_params, &session, &error));
    llm_error_free(error);
    session_params.reserved = 0;
    session_params.context_length = 0xffffffff; /* more memory than there is, or than this model can have */
    CHECK(llm_session_new(model, &session_params, &session, NULL) != LLM_STATUS_OK);
    session_params.context_length = 8;
    OK(llm_session_new(model, &session_params, &session, &error));
    llm_session_free(session);
    llm_model_free(model);

    FAILS(CORRUPT_FILE, llm_model_load(file("load-head-count-0.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    llm_error_free(error);
    FAILS(NOT_FOUND, llm_model_load("/none.gguf", LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    llm_error_free(error);
}

static uint64_t progress_done;
static int progress_calls;
static int progress_limit;

static bool on_progress(uint64_t done, uint64_t total, void *user_data)
{
    CHECK(user_data == &progress_calls && done >= progress_done && done <= total);
    progress_done = done;
    return ++progress_calls < progress_limit;
}

static void stopping_a_load(void)
{
    llm_model_params_t params;
    llm_model_params_init(&params, sizeof params);
    params.progress = on_progress;
    params.progress_user_data = &progress_calls;
    progress_limit = 1 << 30;
    llm_model_t *model = NULL;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &params, NULL, &model, &error));
    llm_model_free(model);
    CHECK(progress_calls > 0);

    progress_calls = 0;
    progress_done = 0;
    progress_limit = 1;
    FAILS(ABORTED, llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &params, NULL, &model, &error));
    llm_error_free(error);
    CHECK(progress_calls == 1);

    llm_cancel_t *cancel = NULL;
    OK(llm_cancel_new(&cancel, &error));
    llm_cancel_request(cancel);
    FAILS(CANCELLED, llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, cancel, &model, &error));
    llm_error_free(error);
    llm_cancel_reset(cancel);
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, cancel, &model, &error));
    llm_model_free(model);
    llm_cancel_free(cancel);
}

static void tokenizers(void)
{
    llm_model_t *model = load();
    llm_tokenizer_t *tokenizer = NULL, *other = NULL;
    OK(llm_model_tokenizer(model, &tokenizer, &error));
    llm_model_free(model);
    llm_tokenizer_info_t info;
    info.struct_size = sizeof info;
    OK(llm_tokenizer_info(tokenizer, &info, &error));
    CHECK(info.vocab_size > 100);
    CHECK(info.mask == LLM_TOKEN_NONE && info.fill_prefix == LLM_TOKEN_NONE && info.fill_separator == LLM_TOKEN_NONE);
    CHECK(info.cleans_up_spaces == 0);

    size_t count = 0;
    llm_token_t tokens[64];
    FAILS(BUFFER_TOO_SMALL, llm_tokenizer_encode(tokenizer, "hello", 5, 0, NULL, 0, &count, &error));
    llm_error_free(error);
    CHECK(count > 0 && count <= 64);
    size_t needed = count;
    FAILS(BUFFER_TOO_SMALL, llm_tokenizer_encode(tokenizer, "hello", 5, 0, tokens, needed - 1, &count, &error));
    llm_error_free(error);
    CHECK(count == needed);
    OK(llm_tokenizer_encode(tokenizer, "hello", LLM_NUL_TERMINATED, 0, tokens, needed, &count, &error));
    CHECK(count == needed);
    llm_bytes_t *text = NULL;
    OK(llm_tokenizer_decode(tokenizer, tokens, count, 0, &text, &error));
    CHECK(llm_bytes_size(text) == strlen(llm_bytes_data(text)) && strstr(llm_bytes_data(text), "hello"));
    llm_bytes_free(text);
    OK(llm_tokenizer_encode(tokenizer, NULL, 0, 0, NULL, 0, &count, &error));
    CHECK(count == 0);
    FAILS(UNSUPPORTED, llm_tokenizer_encode(tokenizer, "a", 1, 0x100, tokens, 64, &count, &error));
    llm_error_free(error);

    llm_view_t piece = {NULL, 0};
    llm_token_t found = LLM_TOKEN_NONE;
    OK(llm_tokenizer_piece(tokenizer, tokens[0], &piece, &error));
    FAILS(INVALID_ARGUMENT, llm_tokenizer_piece(tokenizer, info.vocab_size, &piece, &error));
    CHECK(llm_error_get(error, "token") && llm_error_get(error, "vocab_size"));
    llm_error_free(error);
    FAILS(NOT_FOUND, llm_tokenizer_find(tokenizer, "no token has this text", LLM_NUL_TERMINATED, &found, &error));
    llm_error_free(error);
    CHECK(llm_tokenizer_token_kind(tokenizer, tokens[0]) > 0);
    CHECK(llm_tokenizer_token_kind(tokenizer, info.vocab_size) == 0);
    CHECK(llm_tokenizer_token_score(tokenizer, info.vocab_size) == 0);
    CHECK(!llm_tokenizer_is_eog(tokenizer, info.vocab_size) && !llm_tokenizer_is_eog(tokenizer, LLM_TOKEN_NONE));

    OK(llm_tokenizer_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &other, &error));
    llm_token_t again[64];
    OK(llm_tokenizer_encode(other, "hello", 5, 0, again, 64, &count, &error));
    CHECK(count == needed && memcmp(tokens, again, count * sizeof *tokens) == 0);
    OK(llm_tokenizer_decode(other, again, count, LLM_DECODE_SHOW_SPECIAL | LLM_DECODE_CLEAN_UP_SPACES, &text, &error));
    CHECK(strstr(llm_bytes_data(text), "hello"));
    llm_bytes_free(text);
    FAILS(UNSUPPORTED, llm_tokenizer_decode(other, again, count, 4, &text, &error));
    llm_error_free(error);
    llm_tokenizer_free(other);

    /* The decoder keeps its tokenizer alive. */
    llm_decoder_t *decoder = NULL;
    OK(llm_decoder_new(tokenizer, 0, &decoder, &error));
    llm_tokenizer_free(tokenizer);
    char together[256] = "";
    for (size_t i = 0; i < count; i++) {
        llm_view_t part = {NULL, 0};
        OK(llm_decoder_push(decoder, tokens[i], &part, &error));
        strncat(together, part.data, part.size);
    }
    llm_view_t rest = {NULL, 0};
    OK(llm_decoder_finish(decoder, &rest, &error));
    strncat(together, rest.data, rest.size);
    CHECK(strstr(together, "hello"));
    OK(llm_decoder_reset(decoder, &error));
    FAILS(INVALID_ARGUMENT, llm_decoder_push(decoder, LLM_TOKEN_NONE, &rest, &error));
    llm_error_free(error);
    llm_decoder_free(decoder);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"models", models},
        {"stopping_a_load", stopping_a_load},
        {"tokenizers", tokenizers},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
