/* llm-fork: several continuations of one text, whose keys and values they share. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <stdlib.h>
#include <string.h>

static void go_on(llm_session_t *session, llm_sampler_params_t sampling, uint32_t number, uint32_t max_tokens) {
    llm_error_t *error = NULL;
    llm_sampler_t *sampler = NULL;
    sampling.seed += number;
    check(llm_sampler_new(&sampling, &sampler, &error), &error);
    llm_generate_params_t params;
    llm_generate_params_init(&params, sizeof params);
    params.max_tokens = max_tokens;
    check(llm_session_start(session, sampler, &params, &error), &error);
    printf("%lu:", (unsigned long)number);
    print_generation(session);
    llm_sampler_free(sampler);
}

int main(int argc, char **argv) {
    const char *model_path = NULL, *prompt = NULL;
    uint32_t max_tokens = 32, count = 4, threads = LLM_THREADS_AUTO;
    llm_sampler_params_t sampling;
    usual_sampling(&sampling);
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"-p", "PROMPT", OPTION_TEXT, &prompt, "the text to continue"},
        {"-n", "N", OPTION_COUNT, &max_tokens, "tokens of a continuation at most; default 32"},
        {"--count", "N", OPTION_COUNT, &count, "continuations; number i has the seed + i; default 4"},
        SAMPLING_OPTIONS(sampling),
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "-m MODEL -p PROMPT [-n N] [--count N] " SAMPLING_USAGE " [-t THREADS]",
                 "Prints several continuations of a text, which is processed once; to standard error what they share.",
                 options, sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (prompt == NULL) wrong_usage("-p PROMPT is missing");
    if (count == 0 || max_tokens == 0) wrong_usage("--count and -n take a number above 0");

    llm_error_t *error = NULL;
    llm_model_t *model = load_model(model_path, threads);
    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    size_t length = 0;
    llm_token_t *tokens = encode(tokenizer, prompt, strlen(prompt), LLM_ENCODE_ADD_SPECIAL | LLM_ENCODE_PARSE_SPECIAL,
                                 &length);

    /* Pages for all: at worst each continuation has its own. */
    llm_paged_cache_params_t pages;
    llm_paged_cache_params_init(&pages, sizeof pages);
    llm_model_info_t info = {.struct_size = sizeof info};
    check(llm_model_info(model, &info, &error), &error);
    uint64_t each = (uint64_t)length + max_tokens;
    if (each > info.context_length) each = info.context_length;
    uint32_t context = each < UINT32_MAX ? (uint32_t)each : UINT32_MAX;
    each = each / 16 + 2;
    if (each > UINT32_MAX / ((uint64_t)count + 1)) wrong_usage("--count is too large");
    pages.max_pages = (uint32_t)(((uint64_t)count + 1) * each);
    llm_paged_cache_t *cache = NULL;
    check(llm_paged_cache_new_for_model(model, &pages, &cache, &error), &error);
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.threads = threads;
    params.context_length = context;
    llm_session_t *session = NULL;
    check(llm_session_new_in_pages(model, cache, &params, &session, &error), &error);
    check(llm_session_append_tokens(session, tokens, length, &error), &error);

    /* The forks stay, so that in the end it shows what they share. */
    llm_session_t **forks = must_realloc(NULL, count, sizeof *forks);
    for (uint32_t i = 0; i < count; i++) {
        check(llm_session_fork(session, &forks[i], &error), &error);
        go_on(forks[i], sampling, i, max_tokens);
    }
    llm_paged_cache_stats_t stats = {.struct_size = sizeof stats};
    check(llm_paged_cache_stats(cache, &stats, &error), &error);
    fprintf(stderr, "%llu pages, %llu of them shared, %llu copied; %zu tokens of the prompt processed once\n",
            (unsigned long long)stats.pages_used, (unsigned long long)stats.pages_shared,
            (unsigned long long)stats.copies, length);

    for (uint32_t i = 0; i < count; i++) llm_session_free(forks[i]);
    free(forks);
    free(tokens);
    llm_session_free(session);
    llm_paged_cache_free(cache);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    return 0;
}
