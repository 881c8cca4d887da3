/* llm-parallel: continues many texts together. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <stdlib.h>
#include <string.h>

/* What a continuation gave so far. */
typedef struct {
    char *text;
    size_t size;
    llm_finish_reason_t finish;
    char *failure; /* NULL, or why it failed */
} output_text_t;

static char *copy(llm_view_t text) {
    char *copy = must_realloc(NULL, text.size + 1, 1);
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    return copy;
}

static void add(output_text_t *output, const llm_event_t *event) {
    output->text = must_realloc(output->text, output->size + event->text.size + 1, 1);
    memcpy(output->text + output->size, event->text.data, event->text.size);
    output->size += event->text.size;
    output->finish = event->finish_reason;
    if (event->status != LLM_STATUS_OK) output->failure = copy(event->message);
}

static const char *finish_name(llm_finish_reason_t finish) {
    switch (finish) {
    case LLM_FINISH_EOG: return "end";
    case LLM_FINISH_LENGTH: return "length";
    case LLM_FINISH_CONTEXT_FULL: return "context full";
    default: return "stopped";
    }
}

static void print_statistics(const llm_engine_t *engine) {
    llm_error_t *error = NULL;
    llm_engine_stats_t stats = {.struct_size = sizeof stats};
    check(llm_engine_stats(engine, &stats, &error), &error);
    double seconds = 1e-6 * (double)stats.time_us;
    fprintf(stderr, "%llu tokens in %.2f s, %.1f tokens/s, %.1f sequences at a time\n",
            (unsigned long long)stats.generated_tokens, seconds, seconds > 0 ? (double)stats.generated_tokens / seconds : 0,
            stats.steps > 0 ? (double)stats.members / (double)stats.steps : 0);
    fprintf(stderr, "tokens of prompts: %llu processed, %llu shared; %llu times pages were given up\n",
            (unsigned long long)stats.prompt_tokens, (unsigned long long)stats.reused_tokens,
            (unsigned long long)stats.preemptions);
}

int main(int argc, char **argv) {
    const char *model_path = NULL;
    text_list_t prompts = {NULL, 0};
    uint32_t max_tokens = 64, parallel = 8, count = 1, context = 0, threads = LLM_THREADS_AUTO;
    llm_sampler_params_t sampling;
    usual_sampling(&sampling);
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"-p", "PROMPT", OPTION_TEXTS, &prompts, "a text to continue; may be given several times"},
        {"-n", "N", OPTION_COUNT, &max_tokens, "tokens of a continuation at most; default 64"},
        {"--count", "N", OPTION_COUNT, &count, "continuations of each text; number i has the seed + i; default 1"},
        {"--parallel", "N", OPTION_COUNT, &parallel, "sequences that are processed together; default 8"},
        {"--context", "N", OPTION_COUNT, &context, "positions of a sequence; 0 (default): the model's, at most 4096"},
        SAMPLING_OPTIONS(sampling),
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv,
                 "-m MODEL -p PROMPT [-p PROMPT ...] [-n N] [--count N] [--parallel N] [--context N] " SAMPLING_USAGE
                 " [-t THREADS]",
                 "Continues many texts together. Prints a line of JSON for each continuation, statistics to standard error.",
                 options, sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (prompts.count == 0) wrong_usage("-p PROMPT is missing");
    if (count == 0 || max_tokens == 0) wrong_usage("--count and -n take a number above 0");
    if (count > 256) wrong_usage("--count takes 256 at most");

    llm_error_t *error = NULL;
    llm_sampler_t *sampler = NULL;
    check(llm_sampler_new(&sampling, &sampler, &error), &error);
    llm_model_t *model = load_model(model_path, threads);
    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    llm_engine_params_t engine_params;
    llm_engine_params_init(&engine_params, sizeof engine_params);
    engine_params.max_batch = parallel;
    engine_params.context_length = context;
    engine_params.threads = threads;
    llm_engine_t *engine = NULL;
    check(llm_engine_new(model, &engine_params, &engine, &error), &error);

    /* One request is changed from prompt to prompt: it is copied when it is submitted. */
    llm_request_t *request = NULL;
    llm_request_params_t request_params;
    llm_request_params_init(&request_params, sizeof request_params);
    request_params.max_tokens = max_tokens;
    request_params.count = count;
    size_t total = prompts.count * count;
    output_text_t *outputs = must_realloc(NULL, total, sizeof *outputs);
    memset(outputs, 0, total * sizeof *outputs);
    /* The prompt of each request: ids count from 1 on. */
    size_t *prompt_of = must_realloc(NULL, prompts.count + 1, sizeof *prompt_of);
    bool more = false;
    check(llm_request_new(&request, &error), &error);
    check(llm_request_set_params(request, &request_params, &error), &error);
    check(llm_request_set_sampler(request, sampler, &error), &error);
    for (size_t i = 0; i < prompts.count; i++) {
        llm_request_id_t id = 0;
        check(llm_request_set_text(request, tokenizer, prompts.items[i], LLM_NUL_TERMINATED,
                                   LLM_ENCODE_ADD_SPECIAL | LLM_ENCODE_PARSE_SPECIAL, &error), &error);
        llm_status_t status = llm_engine_submit(engine, request, &id, &error);
        if (status == LLM_STATUS_CACHE_FULL) {
            /* This one is too long, which is no reason to end the others. */
            const char *why = llm_error_message(error);
            for (uint32_t j = 0; j < count; j++)
                outputs[i * count + j].failure = copy((llm_view_t){why, strlen(why)});
            llm_error_free(error);
            continue;
        }
        check(status, &error);
        prompt_of[id] = i;
        more = true;
    }
    llm_request_free(request);

    llm_events_t *events = NULL;
    check(llm_events_new(&events, &error), &error);
    while (more) {
        check(llm_engine_wait(engine, UINT64_MAX, events, &more, &error), &error);
        for (size_t i = 0; i < llm_events_count(events); i++) {
            llm_event_t event = {.struct_size = sizeof event};
            check(llm_events_get(events, i, &event, &error), &error);
            add(&outputs[prompt_of[event.request] * count + event.index], &event);
        }
    }
    llm_events_free(events);

    size_t failures = 0;
    for (size_t i = 0; i < total; i++) {
        printf("{\"prompt\": %zu, \"continuation\": %zu, \"text\": ", i / count, i % count);
        print_json_string(stdout, outputs[i].text, outputs[i].size);
        if (outputs[i].failure != NULL) {
            failures++;
            printf(", \"failure\": ");
            print_json_string(stdout, outputs[i].failure, strlen(outputs[i].failure));
            puts("}");
        } else {
            printf(", \"finish\": \"%s\"}\n", finish_name(outputs[i].finish));
        }
        free(outputs[i].text);
        free(outputs[i].failure);
    }
    finish_output();
    print_statistics(engine);

    free(prompt_of);
    free(outputs);
    free(prompts.items);
    llm_engine_free(engine);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    llm_sampler_free(sampler);
    return failures == 0 ? 0 : EXIT_FAILED;
}
