/* Quantising a model and finding importances, as a C program does it. */
#include "check.h"

#define Z(text) text, LLM_NUL_TERMINATED

static llm_gguf_t *open_file(const char *path)
{
    llm_gguf_t *gguf = NULL;
    OK(llm_gguf_open(path, LLM_NUL_TERMINATED, &gguf, &error));
    return gguf;
}

static int type_is(const llm_gguf_t *gguf, const char *name, const char *type)
{
    size_t index = 0;
    llm_tensor_info_t info = {.struct_size = sizeof info};
    OK(llm_gguf_tensor_find(gguf, name, LLM_NUL_TERMINATED, &index, &error));
    OK(llm_gguf_tensor_info(gguf, index, &info, &error));
    return view_is(info.type_name, type);
}

static int exists(const char *path)
{
    FILE *stream = fopen(path, "rb");
    if (stream)
        fclose(stream);
    return stream != NULL;
}

static uint64_t last_done, last_total;
static uint64_t stop_at;

static bool progress(uint64_t done, uint64_t total, void *user_data)
{
    CHECK(user_data == &last_done && done >= last_done && done <= total);
    last_done = done;
    last_total = total;
    return done < stop_at;
}

static void quantising(void)
{
    llm_gguf_t *gguf = open_file(file("ok-tiny-model.gguf"));
    llm_quantize_params_t params;
    llm_quantize_params_init(&params, sizeof params);
    CHECK(params.output_type == LLM_TYPE_OF_RECIPE && params.embedding_type == LLM_TYPE_OF_RECIPE);
    params.progress = progress;
    params.progress_user_data = &last_done;
    stop_at = UINT64_MAX;
    OK(llm_gguf_quantize(gguf, Z("q8.gguf"), Z("Q8_0"), NULL, 0, &params, NULL, &error));
    CHECK(last_total > 20000 && last_done == last_total);
    llm_gguf_t *out = open_file("q8.gguf");
    uint64_t number = 0;
    OK(llm_gguf_value_u64(out, Z("general.file_type"), &number, &error));
    CHECK(number == 7 && llm_gguf_tensor_count(out) == llm_gguf_tensor_count(gguf));
    /* Rows of 32 are a block; those of 16 are none. */
    CHECK(type_is(out, "blk.0.ffn_down.weight", "Q8_0") && type_is(out, "blk.0.ffn_up.weight", "F16"));
    CHECK(type_is(out, "blk.0.attn_norm.weight", "F32"));
    llm_gguf_free(out);
    llm_model_t *model = NULL;
    OK(llm_model_load(Z("q8.gguf"), NULL, NULL, &model, &error));
    llm_model_free(model);

    uint32_t type = 0;
    OK(llm_gguf_type_find(Z("bf16"), &type, &error));
    CHECK(type == 30);
    OK(llm_gguf_type_find(Z("BF16"), &type, &error));
    CHECK(type == 30);
    FAILS(NOT_FOUND, llm_gguf_type_find(Z("Q9"), &type, &error));
    llm_error_free(error);
    params.embedding_type = type;
    last_done = 0;
    OK(llm_gguf_quantize(gguf, Z("e.gguf"), Z("q4_0"), NULL, 0, &params, NULL, &error));
    out = open_file("e.gguf");
    CHECK(type_is(out, "token_embd.weight", "BF16") && type_is(out, "blk.0.ffn_down.weight", "Q4_0"));
    llm_gguf_free(out);

    remove("never.gguf");
    FAILS(INVALID_ARGUMENT, llm_gguf_quantize(gguf, Z("never.gguf"), Z("Q9_K"), NULL, 0, NULL, NULL, &error));
    CHECK(same(llm_error_get(error, "type"), "Q9_K"));
    llm_error_free(error);
    FAILS(NOT_FOUND, llm_gguf_quantize(gguf, Z("never.gguf"), Z("Q8_0"), Z("no such file"), NULL, NULL, &error));
    llm_error_free(error);
    params.output_type = 99;
    FAILS(INVALID_ARGUMENT, llm_gguf_quantize(gguf, Z("never.gguf"), Z("Q8_0"), NULL, 0, &params, NULL, &error));
    CHECK(same(llm_error_get(error, "argument"), "params.output_type"));
    llm_error_free(error);
    params.output_type = LLM_TYPE_OF_RECIPE;
    last_done = 0;
    stop_at = 1;
    FAILS(ABORTED, llm_gguf_quantize(gguf, Z("never.gguf"), Z("Q8_0"), NULL, 0, &params, NULL, &error));
    llm_error_free(error);
    llm_cancel_t *cancel = NULL;
    OK(llm_cancel_new(&cancel, &error));
    llm_cancel_request(cancel);
    FAILS(CANCELLED, llm_gguf_quantize(gguf, Z("never.gguf"), Z("Q8_0"), NULL, 0, NULL, cancel, &error));
    llm_error_free(error);
    llm_cancel_free(cancel);
    CHECK(!exists("never.gguf"));
    llm_gguf_free(gguf);
}

static void finding_importances(void)
{
    llm_gguf_t *gguf = open_file(file("ok-tiny-model.gguf"));
    llm_imatrix_params_t params;
    llm_imatrix_params_init(&params, sizeof params);
    params.chunk_size = 8;
    params.progress = progress;
    params.progress_user_data = &last_done;
    stop_at = UINT64_MAX;
    OK(llm_gguf_imatrix(gguf, Z("A text of a few words, and some more."), Z("words"), Z("f.imatrix"), &params, NULL, &error));
    CHECK(last_total >= 5 && last_done == last_total);
    llm_gguf_t *out = open_file("f.imatrix");
    llm_view_t text = {NULL, 0};
    OK(llm_gguf_value_string(out, Z("general.type"), &text, &error));
    CHECK(view_is(text, "imatrix") && llm_gguf_tensor_count(out) == 14);
    size_t index = 0;
    OK(llm_gguf_tensor_find(out, Z("blk.0.ffn_down.weight.in_sum2"), &index, &error));
    float sums[32];
    OK(llm_gguf_tensor_decode(out, index, sums, 32, &error));
    CHECK(sums[0] > 0 && sums[31] > 0);
    llm_gguf_free(out);
    OK(llm_gguf_quantize(gguf, Z("with.gguf"), Z("Q4_0"), Z("f.imatrix"), NULL, NULL, &error));
    out = open_file("with.gguf");
    OK(llm_gguf_value_string(out, Z("quantize.imatrix.dataset"), &text, &error));
    CHECK(view_is(text, "words"));
    llm_gguf_free(out);
    FAILS(INVALID_ARGUMENT, llm_gguf_imatrix(gguf, NULL, 0, Z("nothing"), Z("never"), NULL, NULL, &error));
    llm_error_free(error);
    /* Told before the text is read. */
    last_done = UINT64_MAX;
    FAILS(NOT_FOUND, llm_gguf_imatrix(gguf, Z("a text"), Z("a"), Z("no/such/folder"), &params, NULL, &error));
    CHECK(last_done == UINT64_MAX);
    llm_error_free(error);
    params.chunk_size = 1;
    FAILS(INVALID_ARGUMENT, llm_gguf_imatrix(gguf, Z("a"), Z("one"), Z("never"), &params, NULL, &error));
    CHECK(same(llm_error_get(error, "chunk_size"), "1"));
    llm_error_free(error);
    params.chunk_size = 8;
    last_done = 0;
    stop_at = 1;
    FAILS(ABORTED, llm_gguf_imatrix(gguf, Z("A text of a few words."), Z("words"), Z("never"), &params, NULL, &error));
    llm_error_free(error);
    CHECK(!exists("never"));
    llm_gguf_free(gguf);
}

static void packing(void)
{
    llm_gguf_t *gguf = open_file(file("ok-tiny-model.gguf"));
    llm_model_params_t params;
    llm_model_params_init(&params, sizeof params);
    params.progress = progress;
    params.progress_user_data = &last_done;
    last_done = 0;
    stop_at = UINT64_MAX;
    OK(llm_gguf_pack(gguf, Z("packed.gguf"), &params, NULL, &error));
    CHECK(last_total > 20000 && last_done == last_total);
    llm_gguf_t *out = open_file("packed.gguf");
    llm_model_t *models[2] = {NULL, NULL};
    OK(llm_model_load_gguf(gguf, NULL, NULL, &models[0], &error));
    OK(llm_model_load(Z("packed.gguf"), NULL, NULL, &models[1], &error));
    float logits[2][512];
    size_t vocab = 0;
    for (int i = 0; i < 2; i++) {
        llm_session_t *session = NULL;
        OK(llm_session_new(models[i], NULL, &session, &error));
        static const llm_token_t tokens[] = {1, 5, 9};
        OK(llm_session_append_tokens(session, tokens, 3, &error));
        llm_model_info_t info = {.struct_size = sizeof info};
        OK(llm_model_info(models[i], &info, &error));
        vocab = (size_t)info.vocab_size;
        CHECK(vocab > 9 && vocab <= 512);
        OK(llm_session_logits(session, logits[i], 512, &error));
        llm_session_free(session);
        llm_model_free(models[i]);
    }
    CHECK(memcmp(logits[0], logits[1], vocab * sizeof **logits) == 0);
    FAILS(INVALID_ARGUMENT, llm_gguf_pack(out, Z("never.gguf"), NULL, NULL, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_quantize(out, Z("never.gguf"), Z("Q8_0"), NULL, 0, NULL, NULL, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_imatrix(out, Z("a text"), Z("a"), Z("never.gguf"), NULL, NULL, &error));
    llm_error_free(error);
    llm_gguf_free(out);
    last_done = 0;
    stop_at = 1;
    FAILS(ABORTED, llm_gguf_pack(gguf, Z("never.gguf"), &params, NULL, &error));
    llm_error_free(error);
    llm_cancel_t *cancel = NULL;
    OK(llm_cancel_new(&cancel, &error));
    llm_cancel_request(cancel);
    FAILS(CANCELLED, llm_gguf_pack(gguf, Z("never.gguf"), NULL, cancel, &error));
    llm_error_free(error);
    llm_cancel_free(cancel);
    CHECK(!exists("never.gguf"));
    llm_gguf_free(gguf);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"quantising", quantising},
        {"finding_importances", finding_importances},
        {"packing", packing},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
