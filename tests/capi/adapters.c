/* Adapters and embeddings, as a C program sees them, on a model of one layer. */
#include "check.h"
#include <math.h>

static const llm_token_t PROMPT[] = {5, 70, 71, 72, 73, 74};
enum { LENGTH = 6 };

static llm_model_t *model;
static size_t vocab_size, width;

static llm_session_t *new_session(void)
{
    llm_model_info_t info;
    info.struct_size = sizeof info;
    llm_session_t *session = NULL;
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.threads = 2;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    OK(llm_model_info(model, &info, &error));
    vocab_size = (size_t)info.vocab_size;
    width = (size_t)info.embedding_length;
    OK(llm_session_new(model, &params, &session, &error));
    return session;
}

/* The logits of the prompt, from an empty session that is empty afterwards; to be freed. */
static float *logits(llm_session_t *session)
{
    float *values = malloc(LENGTH * vocab_size * sizeof *values);
    CHECK(values != NULL);
    OK(llm_session_eval(session, PROMPT, LENGTH, values, LENGTH * vocab_size, &error));
    OK(llm_session_reset(session, &error));
    return values;
}

static bool equal(const float *a, const float *b) { return memcmp(a, b, LENGTH * vocab_size * sizeof *a) == 0; }

static void adapting(void)
{
    llm_session_t *session = new_session();
    llm_lora_t *lora = NULL;
    FAILS(NOT_FOUND, llm_lora_load(model, "no-such-file", LLM_NUL_TERMINATED, &lora, &error));
    llm_error_free(error);
    /* A model is no adapter. */
    llm_status_t status = llm_lora_load(model, file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &lora, &error);
    CHECK(status != LLM_STATUS_OK && lora == NULL);
    llm_error_free(error);
    OK(llm_lora_load(model, getenv("LLM_TEST_LORA"), LLM_NUL_TERMINATED, &lora, &error));
    llm_lora_info_t info;
    info.struct_size = sizeof info;
    OK(llm_lora_info(lora, &info, &error));
    CHECK(info.rank > 0 && info.tensor_count > 0 && info.bytes > 0);

    float *base = logits(session), *found = NULL;
    OK(llm_session_add_lora(session, lora, 0, &error));
    found = logits(session);
    CHECK(equal(found, base)); /* a scale of 0 changes nothing */
    free(found);
    OK(llm_session_add_lora(session, lora, 40, &error));
    float *adapted = logits(session);
    CHECK(!equal(adapted, base));
    FAILS(INVALID_ARGUMENT, llm_session_add_lora(session, lora, NAN, &error));
    llm_error_free(error);

    OK(llm_session_append_tokens(session, PROMPT, 1, &error));
    FAILS(FAILED_PRECONDITION, llm_session_add_lora(session, lora, 1, &error));
    llm_error_free(error);
    FAILS(FAILED_PRECONDITION, llm_session_clear_loras(session, &error));
    llm_error_free(error);
    OK(llm_session_reset(session, &error));
    llm_lora_free(lora); /* the session keeps it */
    found = logits(session);
    CHECK(equal(found, adapted));
    free(found);
    OK(llm_session_clear_loras(session, &error));
    found = logits(session);
    CHECK(equal(found, base));
    free(found);
    free(adapted);
    free(base);
    llm_session_free(session);
    llm_model_free(model);
}

static void embedding(void)
{
    llm_session_t *session = new_session();
    llm_embed_params_t params;
    llm_embed_params_init(&params, sizeof params);
    float *pooled = malloc(width * sizeof *pooled), *states = malloc(LENGTH * width * sizeof *states);
    CHECK(pooled != NULL && states != NULL);
    OK(llm_session_embed(session, PROMPT, LENGTH, NULL, pooled, width, &error));
    double square = 0;
    for (size_t i = 0; i < width; i++) square += (double)pooled[i] * pooled[i];
    CHECK(fabs(square - 1) < 1e-5);

    params.flags = 0;
    params.pooling = LLM_POOLING_NONE;
    OK(llm_session_embed(session, PROMPT, LENGTH, &params, states, LENGTH * width, &error));
    FAILS(BUFFER_TOO_SMALL, llm_session_embed(session, PROMPT, LENGTH, &params, states, LENGTH * width - 1, &error));
    llm_error_free(error);
    params.pooling = LLM_POOLING_LAST;
    OK(llm_session_embed(session, PROMPT, LENGTH, &params, pooled, width, &error));
    CHECK(memcmp(pooled, states + (LENGTH - 1) * width, width * sizeof *pooled) == 0);
    params.pooling = LLM_POOLING_CLS;
    OK(llm_session_embed(session, PROMPT, LENGTH, &params, pooled, width, &error));
    CHECK(memcmp(pooled, states, width * sizeof *pooled) == 0);

    params.pooling = 99;
    FAILS(INVALID_ARGUMENT, llm_session_embed(session, PROMPT, LENGTH, &params, pooled, width, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_session_embed(session, PROMPT, 0, NULL, pooled, width, &error));
    llm_error_free(error);
    OK(llm_session_append_tokens(session, PROMPT, 1, &error));
    FAILS(FAILED_PRECONDITION, llm_session_embed(session, PROMPT, LENGTH, NULL, pooled, width, &error));
    llm_error_free(error);
    free(pooled);
    free(states);
    llm_session_free(session);
    llm_model_free(model);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"adapting", adapting},
        {"embedding", embedding},
    };
    return run_test(tests, sizeof tests / sizeof tests[0], argc, argv);
}
