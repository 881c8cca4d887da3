/* llm-generate: continues a text. SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double per_second(uint64_t count, uint64_t microseconds) {
    return microseconds > 0 ? 1e6 * (double)count / (double)microseconds : 0;
}

static void print_speculation(llm_session_t *session) {
    llm_speculation_t stats = {.struct_size = sizeof stats};
    llm_error_t *error = NULL;
    check(llm_session_speculation(session, &stats, &error), &error);
    fprintf(stderr, "guessed    %llu tokens, %llu right\n", (unsigned long long)stats.guessed,
            (unsigned long long)stats.accepted);
}

static void print_statistics(llm_session_t *session, double load_seconds, const char *finish) {
    llm_timings_t timings = {.struct_size = sizeof timings};
    llm_error_t *error = NULL;
    check(llm_session_timings(session, &timings, &error), &error);
    fprintf(stderr, "load       %8.1f ms\n", 1e3 * load_seconds);
    fprintf(stderr, "prompt     %8.1f ms  %6llu tokens  %8.1f tokens/s\n", 1e-3 * (double)timings.prompt_us,
            (unsigned long long)timings.prompt_tokens, per_second(timings.prompt_tokens, timings.prompt_us));
    fprintf(stderr, "generation %8.1f ms  %6llu tokens  %8.1f tokens/s\n", 1e-3 * (double)timings.generated_us,
            (unsigned long long)timings.generated_tokens, per_second(timings.generated_tokens, timings.generated_us));
    fprintf(stderr, "ended: %s (%s)\n", finish, llm_isa());
}

/* Streams up to `max_tokens` tokens and says why it ended. */
static const char *stream(llm_session_t *session, llm_sampler_t *sampler, uint32_t max_tokens, bool ids) {
    llm_error_t *error = NULL;
    llm_generate_params_t params;
    llm_generate_params_init(&params, sizeof params);
    params.max_tokens = max_tokens;
    check(llm_session_start(session, sampler, &params, &error), &error);
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    for (bool first = true; finish == LLM_FINISH_NONE; first = false) {
        llm_token_t token = LLM_TOKEN_NONE;
        llm_view_t text = {NULL, 0};
        check(llm_session_next(session, &token, &text, &finish, &error), &error);
        if (!ids) {
            fwrite(text.data, 1, text.size, stdout);
        } else if (token != LLM_TOKEN_NONE && finish != LLM_FINISH_EOG) {
            printf("%s%lu", first ? "" : " ", (unsigned long)token);
        }
        finish_output();
    }
    switch (finish) {
    case LLM_FINISH_EOG:
        return "the model ended the text";
    case LLM_FINISH_LENGTH:
        return "the asked number of tokens";
    case LLM_FINISH_CONTEXT_FULL:
        return "the context is full";
    default:
        return "stopped";
    }
}

/* Adds the adapter FILE or FILE:SCALE to the session. */
static void add_lora(llm_session_t *session, const llm_model_t *model, const char *text) {
    const char *colon = strrchr(text, ':');
    size_t size = strlen(text);
    float scale = 1;
    if (colon != NULL && colon[1] != '\0') {
        char *end = NULL;
        float value = strtof(colon + 1, &end);
        if (*end == '\0') {
            scale = value;
            size = (size_t)(colon - text);
        }
    }
    llm_error_t *error = NULL;
    llm_lora_t *lora = NULL;
    check(llm_lora_load(model, text, size, &lora, &error), &error);
    check(llm_session_add_lora(session, lora, scale, &error), &error);
    llm_lora_free(lora);
}

int main(int argc, char **argv) {
    const char *model_path = NULL, *prompt = NULL, *kv_type = "f16", *cache = "contiguous", *draft_path = NULL;
    uint32_t max_tokens = 128, threads = LLM_THREADS_AUTO, window = 0, sinks = 0, lookup = 0;
    bool ids = false;
    const char *const caches[] = {"contiguous", "sliding", "paged"}; /* as LLM_CACHE_ counts them */
    text_list_t loras = {NULL, 0}, overrides = {NULL, 0};
    llm_sampler_params_t sampling;
    usual_sampling(&sampling);
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"-p", "PROMPT", OPTION_TEXT, &prompt, "the text to continue"},
        {"-n", "N", OPTION_COUNT, &max_tokens, "tokens to generate at most; default 128"},
        SAMPLING_OPTIONS(sampling),
        {"--kv", "TYPE", OPTION_TEXT, &kv_type, "keys and values as f16 (default), f32, q8_0 or q4_0"},
        {"--cache", "KIND", OPTION_TEXT, &cache, "contiguous (default), sliding or paged"},
        {"--window", "N", OPTION_COUNT, &window, "a token sees the last N tokens; 0 (default): all"},
        {"--sinks", "N", OPTION_COUNT, &sinks, "and the first N; default 0"},
        {"--lookup", "N", OPTION_COUNT, &lookup, "guess up to N tokens ahead by what the text repeats; default 0, none"},
        {"--draft", "MODEL", OPTION_TEXT, &draft_path, "guess tokens ahead with a smaller model of the same vocabulary"},
        {"--lora", "FILE[:SCALE]", OPTION_TEXTS, &loras, "a LoRA adapter; may be given several times; default scale 1"},
        {"--override", "KEY=TYPE:VALUE", OPTION_TEXTS, &overrides, OVERRIDE_HELP},
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
        {"--ids", NULL, OPTION_FLAG, &ids, "print the ids of the generated tokens instead of text"},
    };
    read_options(argc, argv,
                 "-m MODEL -p PROMPT [-n N] " SAMPLING_USAGE
                 " [--kv TYPE] [--cache KIND] [--window N] [--sinks N] [--lookup N] [--draft MODEL]"
                 " [--lora FILE[:SCALE] ...] [--override KEY=TYPE:VALUE ...] [-t THREADS] [--ids]",
                 "Streams the continuation of a prompt to standard output, statistics to standard error.", options,
                 sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (prompt == NULL) wrong_usage("-p PROMPT is missing");

    if (lookup > 0 && draft_path != NULL) wrong_usage("--lookup and --draft exclude each other");
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.threads = threads;
    params.kv_type = kv_type_of(kv_type);
    params.cache = number_of("--cache", cache, caches, 3);
    params.window = window;
    params.sinks = sinks;

    /* Parameters that are no parameters are told before the model takes its time. */
    llm_error_t *error = NULL;
    llm_sampler_t *sampler = NULL;
    check(llm_sampler_new(&sampling, &sampler, &error), &error);

    double start = now();
    llm_model_t *model = load_model_with(model_path, threads, &overrides);
    double load_seconds = now() - start;
    llm_model_info_t info = {.struct_size = sizeof info};
    check(llm_model_info(model, &info, &error), &error);
    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    size_t count = 0;
    llm_token_t *tokens = encode(tokenizer, prompt, strlen(prompt),
                                 LLM_ENCODE_ADD_SPECIAL | LLM_ENCODE_PARSE_SPECIAL, &count);

    /* Room for what is asked, within what the model was trained for. */
    uint64_t context = (uint64_t)count + max_tokens;
    if (context > info.context_length) context = info.context_length;
    if (context > UINT32_MAX) context = UINT32_MAX;
    llm_session_t *session = NULL;
    params.context_length = (uint32_t)context;
    check(llm_session_new(model, &params, &session, &error), &error);
    if (lookup > 0) check(llm_session_speculate_lookup(session, lookup, &error), &error);
    if (draft_path != NULL) {
        llm_model_t *draft = load_model(draft_path, threads);
        check(llm_session_speculate_draft(session, draft, 0, &error), &error);
        llm_model_free(draft);
    }
    for (size_t i = 0; i < loras.count; i++) add_lora(session, model, loras.items[i]);
    check(llm_session_append_tokens(session, tokens, count, &error), &error);
    /* For the library 0 tokens means no limit. */
    const char *finish = max_tokens > 0 ? stream(session, sampler, max_tokens, ids) : "the asked number of tokens";
    if (ids || isatty(STDOUT_FILENO)) putchar('\n');
    finish_output();
    print_statistics(session, load_seconds, finish);
    if (lookup > 0 || draft_path != NULL) print_speculation(session);

    free(overrides.items);
    free(loras.items);
    free(tokens);
    llm_session_free(session);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    llm_sampler_free(sampler);
    return 0;
}
