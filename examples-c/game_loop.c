/* llm-game_loop: text that is generated within the frames of a game. SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FRAME (1.0 / 60)

static void sleep_until(double when) {
    double left = when - now();
    if (left <= 0) return;
    struct timespec time = {(time_t)left, (long)(1e9 * (left - (double)(time_t)left))};
    nanosleep(&time, NULL);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The tokens of the text, repeated to `wanted` tokens if that is not 0; to be freed. */
static llm_token_t *repeated(const llm_tokenizer_t *tokenizer, const char *text, size_t wanted, size_t *count) {
    llm_token_t *tokens = encode(tokenizer, text, strlen(text), LLM_ENCODE_ADD_SPECIAL | LLM_ENCODE_PARSE_SPECIAL, count);
    if (wanted == 0 || *count == 0) return tokens;
    tokens = must_realloc(tokens, *count > wanted ? *count : wanted, sizeof *tokens);
    for (size_t i = *count; i < wanted; i++) tokens[i] = tokens[i % *count];
    *count = wanted;
    return tokens;
}

static void print_statistics(double *polls, size_t count, double limit, double first, double seconds, uint64_t tokens,
                             const llm_engine_t *engine) {
    llm_error_t *error = NULL;
    llm_engine_stats_t stats = {.struct_size = sizeof stats};
    check(llm_engine_stats(engine, &stats, &error), &error);
    qsort(polls, count, sizeof *polls, ascending);
    size_t within = 0;
    while (within < count && polls[within] <= limit) within++;
    fprintf(stderr, "%zu frames, polls: median %.2f ms, 99 %% %.2f ms, largest %.2f ms, %.2f %% within %.2f ms\n", count,
            1e3 * polls[count / 2], 1e3 * polls[count * 99 / 100], 1e3 * polls[count - 1],
            100.0 * (double)within / (double)count, 1e3 * limit);
    if (tokens > 0) fprintf(stderr, "first token after %.2f s, ", first);
    fprintf(stderr, "%llu tokens in %.2f s, largest piece of work %.2f ms\n", (unsigned long long)tokens, seconds,
            1e-3 * (double)stats.largest_quantum_us);
}

int main(int argc, char **argv) {
    const char *model_path = NULL, *prompt = "The keeper of the lighthouse told the children a story. ";
    uint32_t max_tokens = 48, prompt_tokens = 2000, budget = 4000, frames = 0, threads = LLM_THREADS_AUTO;
    llm_sampler_params_t sampling;
    usual_sampling(&sampling);
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"-p", "PROMPT", OPTION_TEXT, &prompt, "the text to continue"},
        {"-n", "N", OPTION_COUNT, &max_tokens, "tokens to generate at most; default 48"},
        {"--prompt-tokens", "N", OPTION_COUNT, &prompt_tokens, "repeat the text to N tokens; 0: as it is; default 2000"},
        {"--budget-us", "N", OPTION_COUNT, &budget, "microseconds of a frame for text; default 4000"},
        {"--frames", "N", OPTION_COUNT, &frames, "end after N frames; 0 (default): when the text ends"},
        SAMPLING_OPTIONS(sampling),
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv,
                 "-m MODEL [-p PROMPT] [-n N] [--prompt-tokens N] [--budget-us N] [--frames N] " SAMPLING_USAGE
                 " [-t THREADS]",
                 "A loop of 60 frames a second that generates text in a part of each; frame times to standard error.",
                 options, sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (max_tokens == 0) wrong_usage("-n takes a number above 0");

    llm_error_t *error = NULL;
    llm_sampler_t *sampler = NULL;
    check(llm_sampler_new(&sampling, &sampler, &error), &error);
    llm_model_t *model = load_model(model_path, threads);
    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    size_t count = 0;
    llm_token_t *tokens = repeated(tokenizer, prompt, prompt_tokens, &count);
    llm_engine_params_t engine_params;
    llm_engine_params_init(&engine_params, sizeof engine_params);
    /* Room for what is asked, within what the model was trained for. */
    llm_model_info_t info = {.struct_size = sizeof info};
    check(llm_model_info(model, &info, &error), &error);
    uint64_t context = (uint64_t)count + max_tokens;
    if (context > info.context_length) context = info.context_length;
    engine_params.context_length = context < UINT32_MAX ? (uint32_t)context : UINT32_MAX;
    engine_params.threads = threads;
    llm_engine_t *engine = NULL;
    check(llm_engine_new(model, &engine_params, &engine, &error), &error);
    llm_request_t *request = NULL;
    llm_request_params_t request_params;
    llm_request_params_init(&request_params, sizeof request_params);
    request_params.max_tokens = max_tokens;
    llm_request_id_t id = 0;
    check(llm_request_new(&request, &error), &error);
    check(llm_request_set_tokens(request, tokens, count, &error), &error);
    check(llm_request_set_params(request, &request_params, &error), &error);
    check(llm_request_set_sampler(request, sampler, &error), &error);
    check(llm_engine_submit(engine, request, &id, &error), &error);
    llm_request_free(request);

    llm_events_t *events = NULL;
    check(llm_events_new(&events, &error), &error);
    double *polls = NULL, first = 0, start = now();
    size_t frame = 0;
    uint64_t generated = 0;
    for (bool more = true; more && (frames == 0 || frame < frames); frame++) {
        /* Here a game would move its world. */
        double begun = now();
        check(llm_engine_poll(engine, budget, events, &more, &error), &error);
        polls = must_realloc(polls, frame + 1, sizeof *polls);
        polls[frame] = now() - begun;
        for (size_t i = 0; i < llm_events_count(events); i++) {
            llm_event_t event = {.struct_size = sizeof event};
            check(llm_events_get(events, i, &event, &error), &error);
            if (event.status != LLM_STATUS_OK) fail("%.*s", (int)event.message.size, event.message.data);
            if (generated++ == 0) first = now() - start;
            fwrite(event.text.data, 1, event.text.size, stdout);
            finish_output();
        }
        /* And here it would draw it. */
        sleep_until(start + FRAME * (double)(frame + 1));
    }
    putchar('\n');
    finish_output();
    print_statistics(polls, frame, 1e-6 * (double)budget + 2e-3, first, now() - start, generated, engine);

    free(polls);
    free(tokens);
    llm_events_free(events);
    llm_engine_free(engine);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    llm_sampler_free(sampler);
    return 0;
}
