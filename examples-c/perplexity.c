/* llm-perplexity: how well a model predicts a text. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <math.h>
#include <stdlib.h>

/* Tokens scored between two looks at the progress. */
enum { CHUNK = 256, LONGEST_DEFAULT_WINDOW = 4096 };

int main(int argc, char **argv) {
    const char *model_path = NULL, *file = NULL;
    uint32_t threads = LLM_THREADS_AUTO, context = 0;
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"-f", "FILE", OPTION_TEXT, &file, "the text; - is standard input"},
        {"-c", "CTX", OPTION_COUNT, &context, "tokens in a window; 0 (default): the model's context, at most 4096"},
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "-m MODEL -f FILE [-c CTX] [-t THREADS]",
                 "Prints {\"tokens\", \"nll\", \"ppl\"}: how many tokens were scored, the sum of their negative log\n"
                 "likelihoods (natural logarithm), and e^(nll / tokens). The text is cut into windows that do not\n"
                 "overlap; every token of a window but its first is scored from those before it.",
                 options, sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (file == NULL) wrong_usage("-f FILE is missing");
    if (context == 1) wrong_usage("-c takes 2 or more: nothing is scored in a window of 1");

    size_t size = 0, count = 0;
    char *text = read_file(file, &size);
    llm_error_t *error = NULL;
    llm_model_t *model = load_model(model_path, threads);
    llm_model_info_t info = {.struct_size = sizeof info};
    check(llm_model_info(model, &info, &error), &error);

    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    llm_token_t *tokens = encode(tokenizer, text, size, LLM_ENCODE_ADD_SPECIAL, &count);
    free(text);
    if (count < 2) fail("%s has %zu tokens; there is nothing to score in less than 2", file, count);

    size_t window = context;
    if (window == 0) window = info.context_length < LONGEST_DEFAULT_WINDOW ? (size_t)info.context_length
                                                                          : (size_t)LONGEST_DEFAULT_WINDOW;
    if (window > count) window = count;
    llm_session_params_t params;
    llm_session_t *session = NULL;
    llm_session_params_init(&params, sizeof params);
    params.context_length = (uint32_t)window;
    params.threads = threads;
    params.kv_type = LLM_KV_F32;
    check(llm_session_new(model, &params, &session, &error), &error);

    double nll = 0;
    size_t scored = 0;
    for (size_t start = 0; start + 1 < count; start += window) {
        size_t end = count - start < window ? count : start + window;
        check(llm_session_reset(session, &error), &error);
        check(llm_session_append_tokens(session, tokens + start, 1, &error), &error);
        for (size_t at = start + 1; at < end;) {
            double logprobs[CHUNK];
            size_t n = end - at < CHUNK ? end - at : CHUNK;
            check(llm_session_score(session, tokens + at, n, logprobs, CHUNK, &error), &error);
            for (size_t i = 0; i < n; i++) nll -= logprobs[i];
            scored += n;
            at += n;
            print_progress("%zu of %zu tokens, perplexity %.4f", at, count, exp(nll / (double)scored));
        }
    }
    end_progress();
    printf("{\"tokens\": %zu, \"nll\": %.17g, \"ppl\": %.17g}\n", scored, nll, exp(nll / (double)scored));

    free(tokens);
    llm_session_free(session);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    finish_output();
    return 0;
}
