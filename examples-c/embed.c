/* llm-embed: the embeddings of texts, and how alike they are. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static llm_pooling_t pooling_of(const char *name) {
    if (name == NULL) return LLM_POOLING_MODEL;
    if (strcmp(name, "mean") == 0) return LLM_POOLING_MEAN;
    if (strcmp(name, "cls") == 0) return LLM_POOLING_CLS;
    if (strcmp(name, "last") == 0) return LLM_POOLING_LAST;
    wrong_usage("--pooling takes mean, cls or last, not '%s'", name);
    return LLM_POOLING_MODEL;
}

static double cosine(const float *a, const float *b, size_t width) {
    double product = 0, square_a = 0, square_b = 0;
    for (size_t i = 0; i < width; i++) {
        product += (double)a[i] * b[i];
        square_a += (double)a[i] * a[i];
        square_b += (double)b[i] * b[i];
    }
    return square_a > 0 && square_b > 0 ? product / sqrt(square_a * square_b) : 0;
}

int main(int argc, char **argv) {
    const char *model_path = NULL, *pooling = NULL;
    text_list_t texts = {NULL, 0};
    uint32_t threads = LLM_THREADS_AUTO;
    bool raw = false, similarity = false;
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"-p", "TEXT", OPTION_TEXTS, &texts, "a text; may be given several times"},
        {"--pooling", "HOW", OPTION_TEXT, &pooling, "mean, cls (first token) or last; default: as the model says, or mean"},
        {"--raw", NULL, OPTION_FLAG, &raw, "do not normalise the vectors"},
        {"--similarity", NULL, OPTION_FLAG, &similarity, "print the cosine of each two texts instead"},
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "-m MODEL -p TEXT [-p TEXT ...] [--pooling HOW] [--raw] [--similarity] [-t THREADS]",
                 "Prints the embedding of each text as a JSON array on a line of its own.", options,
                 sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (texts.count == 0) wrong_usage("-p TEXT is missing");
    llm_embed_params_t params;
    llm_embed_params_init(&params, sizeof params);
    params.pooling = pooling_of(pooling);
    if (raw) params.flags = 0;

    llm_error_t *error = NULL;
    llm_model_t *model = load_model(model_path, threads);
    llm_model_info_t info = {.struct_size = sizeof info};
    check(llm_model_info(model, &info, &error), &error);
    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    llm_session_params_t session_params;
    llm_session_t *session = NULL;
    llm_session_params_init(&session_params, sizeof session_params);
    session_params.threads = threads;
    check(llm_session_new(model, &session_params, &session, &error), &error);

    size_t width = (size_t)info.embedding_length;
    float *vectors = must_realloc(NULL, texts.count * width, sizeof *vectors);
    for (size_t i = 0; i < texts.count; i++) {
        size_t count = 0;
        llm_token_t *tokens = encode(tokenizer, texts.items[i], strlen(texts.items[i]), LLM_ENCODE_ADD_SPECIAL, &count);
        check(llm_session_embed(session, tokens, count, &params, vectors + i * width, width, &error), &error);
        free(tokens);
    }
    for (size_t i = 0; i < texts.count; i++) {
        size_t columns = similarity ? texts.count : width;
        for (size_t j = 0; j < columns; j++) {
            double value = similarity ? cosine(vectors + i * width, vectors + j * width, width) : vectors[i * width + j];
            printf("%s%.9g", j == 0 ? "[" : ", ", value);
        }
        puts("]");
    }
    finish_output();

    free(vectors);
    free(texts.items);
    llm_session_free(session);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    return 0;
}
