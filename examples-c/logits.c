/* llm-logits: the logits of every position of a token sequence. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <stdlib.h>

/* Positions evaluated at once: enough for speed, few enough that their logits stay small beside a model. */
enum { CHUNK = 64 };

int main(int argc, char **argv) {
    const char *model_path = NULL, *ids = NULL, *out = NULL;
    uint32_t threads = LLM_THREADS_AUTO;
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"--tokens", "IDS", OPTION_TEXT, &ids, "the token ids, \"1,2,3\"; exactly these, no BOS is added"},
        {"-o", "OUT", OPTION_TEXT, &out, "the file to write"},
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "-m MODEL --tokens IDS -o OUT [-t THREADS]",
                 "Writes the logits of every position as raw little-endian f32, a row of the vocabulary's size for\n"
                 "each token, computed with an f32 key/value cache.",
                 options, sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (ids == NULL) wrong_usage("--tokens IDS is missing");
    if (out == NULL) wrong_usage("-o OUT is missing");
    size_t count = 0;
    llm_token_t *tokens = read_ids("--tokens", ids, &count);
    if (count == 0) wrong_usage("--tokens has no token id");

    llm_error_t *error = NULL;
    llm_model_t *model = load_model(model_path, threads);
    llm_model_info_t info = {.struct_size = sizeof info};
    check(llm_model_info(model, &info, &error), &error);
    size_t row = (size_t)info.vocab_size;

    llm_session_params_t params;
    llm_session_t *session = NULL;
    llm_session_params_init(&params, sizeof params);
    params.context_length = (uint32_t)count;
    params.threads = threads;
    params.kv_type = LLM_KV_F32;
    check(llm_session_new(model, &params, &session, &error), &error);

    output_t output = open_output(out);
    float *logits = must_realloc(NULL, CHUNK * row, sizeof *logits);
    for (size_t done = 0; done < count;) {
        size_t n = count - done < CHUNK ? count - done : CHUNK;
        check(llm_session_eval(session, tokens + done, n, logits, n * row, &error), &error);
        write_output(&output, logits, n * row * sizeof *logits);
        done += n;
    }
    commit_output(&output);

    free(logits);
    free(tokens);
    llm_session_free(session);
    llm_model_free(model);
    return 0;
}
