/* llm-bench: how fast a model is on this machine. SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* What is measured, and with what. */
typedef struct {
    llm_session_t *session;
    uint32_t vocab_size;
    float *logits; /* (V) */
    bool json;
    bool first; /* of the JSON array's items */
    const char *model_path, *kv_name;
    llm_kv_type_t kv_type;
    uint32_t threads, depth, sequences;
} bench_t;

/* When the process started, on the clock of now(). What ran before main was the loader, whose time is the processor
 * time used so far: finer than the start time that the kernel reports, which is in ticks of 10 ms. */
static double process_start(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return now() - ((double)used.tv_sec + 1e-9 * (double)used.tv_nsec);
}

static double peak_mib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024; /* Linux counts in KiB */
}

/* Tokens all over the vocabulary, the same in every run. */
static llm_token_t some_token(const bench_t *bench, uint32_t i) {
    return (llm_token_t)(((uint64_t)i * 2654435761u + 1) % bench->vocab_size);
}

/* Appends tokens and waits for the logits after the last. */
static void append(bench_t *bench, const llm_token_t *tokens, size_t count) {
    llm_error_t *error = NULL;
    check(llm_session_append_tokens(bench->session, tokens, count, &error), &error);
    check(llm_session_logits(bench->session, bench->logits, bench->vocab_size, &error), &error);
}

/* One prompt of `count` tokens, or `count` single tokens: seconds. */
static double prompt_seconds(bench_t *bench, const llm_token_t *tokens, uint32_t count) {
    double start = now();
    append(bench, tokens, count);
    return now() - start;
}

static double single_seconds(bench_t *bench, const llm_token_t *tokens, uint32_t count) {
    double start = now();
    for (uint32_t i = 0; i < count; i++) append(bench, &tokens[i], 1);
    return now() - start;
}

static void separator(bench_t *bench) {
    if (bench->json) printf("%s\n  ", bench->first ? "[" : ",");
    bench->first = false;
}

/* Says how fast a test ran each time. */
static void report(bench_t *bench, const char *name, uint32_t count, const double *speeds, uint32_t repeats) {
    double sum = 0;
    for (uint32_t i = 0; i < repeats; i++) sum += speeds[i];
    separator(bench);
    if (bench->json) {
        printf("{\"test\": \"%s%lu\", \"tok_s\": [", name, (unsigned long)count);
        for (uint32_t i = 0; i < repeats; i++) printf("%s%.3f", i > 0 ? ", " : "", speeds[i]);
        printf("], \"threads\": %lu, \"depth\": %lu, \"sequences\": %lu, \"model\": ", (unsigned long)bench->threads,
               (unsigned long)bench->depth, (unsigned long)bench->sequences);
        print_json_string(stdout, bench->model_path, strlen(bench->model_path));
        printf(", \"kv\": \"%s\", \"isa\": \"%s\"}", bench->kv_name, llm_isa());
    } else {
        printf("%s%-6lu %10.1f tokens/s, mean of %lu\n", name, (unsigned long)count, sum / repeats,
               (unsigned long)repeats);
    }
    finish_output();
}

/* Runs a test `repeats` times, each behind the first `depth` tokens alone, after one run that is not counted. */
static void run(bench_t *bench, const char *name, uint32_t count, uint32_t repeats,
                double (*seconds)(bench_t *, const llm_token_t *, uint32_t)) {
    if (count == 0) return;
    llm_error_t *error = NULL;
    uint32_t all = count > bench->depth ? count : bench->depth;
    llm_token_t *tokens = must_realloc(NULL, all, sizeof *tokens);
    double *speeds = must_realloc(NULL, repeats, sizeof *speeds);
    for (uint32_t i = 0; i < all; i++) tokens[i] = some_token(bench, i);
    check(llm_session_reset(bench->session, &error), &error);
    if (bench->depth > 0) append(bench, tokens, bench->depth);
    for (uint32_t i = 0; i <= repeats; i++) {
        check(llm_session_truncate(bench->session, bench->depth, &error), &error);
        double speed = count / seconds(bench, tokens, count);
        if (i > 0) speeds[i - 1] = speed;
    }
    report(bench, name, count, speeds, repeats);
    free(speeds);
    free(tokens);
}

/* The prompts of all sequences and then their tokens, by an engine of its own, since prompts that it has seen are found
 * again. Sets tokens of prompts a second, and new tokens a second from when every prompt is processed. */
static void together_speeds(const bench_t *bench, const llm_model_t *model, uint32_t prompt, uint32_t single,
                            double *prompt_speed, double *single_speed) {
    llm_error_t *error = NULL;
    llm_engine_params_t params;
    llm_engine_params_init(&params, sizeof params);
    params.context_length = prompt + single;
    params.max_batch = bench->sequences;
    params.threads = bench->threads;
    params.kv_type = bench->kv_type;
    llm_engine_t *engine = NULL;
    check(llm_engine_new(model, &params, &engine, &error), &error);

    llm_request_t *request = NULL;
    llm_request_params_t request_params;
    llm_request_params_init(&request_params, sizeof request_params);
    request_params.max_tokens = single;
    request_params.flags = LLM_GENERATE_IGNORE_EOG;
    check(llm_request_new(&request, &error), &error);
    check(llm_request_set_params(request, &request_params, &error), &error);
    llm_token_t *tokens = must_realloc(NULL, prompt, sizeof *tokens);
    for (uint32_t i = 0; i < bench->sequences; i++) {
        llm_request_id_t id;
        for (uint32_t j = 0; j < prompt; j++) tokens[j] = some_token(bench, i * prompt + j);
        check(llm_request_set_tokens(request, tokens, prompt, &error), &error);
        check(llm_engine_submit(engine, request, &id, &error), &error);
    }
    free(tokens);
    llm_request_free(request);

    llm_events_t *events = NULL;
    llm_engine_stats_t stats = {.struct_size = sizeof stats};
    check(llm_events_new(&events, &error), &error);
    double start = now(), began = start;
    uint64_t before = 0, last = 0; /* the tokens at `began`, and the pass with the last of the prompts */
    for (bool more = true; more;) {
        check(llm_engine_wait(engine, UINT64_MAX, events, &more, &error), &error);
        check(llm_engine_stats(engine, &stats, &error), &error);
        /* Every choice ends a wait: the last one of that pass counts. */
        if (last == 0 || stats.steps == last) {
            began = now();
            before = stats.generated_tokens;
        }
        if (last == 0 && stats.prompt_tokens + stats.reused_tokens >= (uint64_t)prompt * bench->sequences)
            last = stats.steps;
    }
    *prompt_speed = (double)prompt * bench->sequences / (began - start);
    *single_speed = (double)(stats.generated_tokens - before) / (now() - began);
    llm_events_free(events);
    llm_engine_free(engine);
}

/* Runs both tests of many sequences `repeats` times, after one run that is not counted. */
static void run_together(bench_t *bench, const llm_model_t *model, uint32_t prompt, uint32_t single, uint32_t repeats) {
    double *speeds = must_realloc(NULL, 2 * (size_t)repeats, sizeof *speeds);
    for (uint32_t i = 0; i <= repeats; i++) {
        double prompt_speed, single_speed;
        together_speeds(bench, model, prompt, single, &prompt_speed, &single_speed);
        if (i == 0) continue;
        speeds[i - 1] = prompt_speed;
        speeds[repeats + i - 1] = single_speed;
    }
    report(bench, "pp", prompt, speeds, repeats);
    report(bench, "tg", single, &speeds[repeats], repeats);
    free(speeds);
}

/* Loads the model, answers a short prompt with one token, as a program that is started to do that would. */
static llm_model_t *first_token(bench_t *bench, uint32_t context, double start, double *load, double *first) {
    llm_error_t *error = NULL;
    if (bench->threads == LLM_THREADS_AUTO) bench->threads = llm_physical_cores();
    double before = now();
    llm_model_t *model = load_model(bench->model_path, bench->threads);
    *load = now() - before;

    llm_model_info_t info = {.struct_size = sizeof info};
    check(llm_model_info(model, &info, &error), &error);
    bench->vocab_size = (uint32_t)info.vocab_size;
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.context_length = context;
    params.threads = bench->threads;
    params.kv_type = bench->kv_type;
    check(llm_session_new(model, &params, &bench->session, &error), &error);
    check(llm_session_append_text(bench->session, "The capital of France is", LLM_NUL_TERMINATED,
                                  LLM_ENCODE_ADD_SPECIAL, NULL, &error),
          &error);
    check(llm_session_start(bench->session, NULL, NULL, &error), &error);
    llm_token_t token;
    llm_view_t text;
    llm_finish_reason_t finish;
    check(llm_session_next(bench->session, &token, &text, &finish, &error), &error);
    *first = now() - start;
    return model;
}

int main(int argc, char **argv) {
    double start = process_start();
    enum { SHORT_PROMPT = 64 };
    uint32_t prompt = 512, single = 128, repeats = 5;
    bench_t bench = {.first = true, .threads = LLM_THREADS_AUTO, .sequences = 1, .kv_name = "f16"};
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &bench.model_path, "the model, a GGUF file"},
        {"-p", "N", OPTION_COUNT, &prompt, "prompt length; 0 leaves the test out; default 512"},
        {"-n", "N", OPTION_COUNT, &single, "tokens one by one; 0 leaves the test out; default 128"},
        {"-d", "N", OPTION_COUNT, &bench.depth, "tokens that stand before those that are measured; default 0"},
        {"-s", "N", OPTION_COUNT, &bench.sequences,
         "sequences of which each has such a prompt and so many tokens, processed together; default 1"},
        {"--kv", "TYPE", OPTION_TEXT, &bench.kv_name, "keys and values as f16 (default), f32, q8_0 or q4_0"},
        {"-t", "THREADS", OPTION_COUNT, &bench.threads, "threads; 0 (default): as many as physical cores"},
        {"-r", "N", OPTION_COUNT, &repeats, "repetitions; default 5"},
        {"--json", NULL, OPTION_FLAG, &bench.json, "print a JSON array"},
    };
    read_options(argc, argv, "-m MODEL [-p N] [-n N] [-d N] [-s N] [--kv TYPE] [-t THREADS] [-r N] [--json]",
                 "Measures the processing of a prompt (pp), of tokens one by one (tg), both in tokens per second, and\n"
                 "the load: milliseconds, milliseconds from the start of the process to the first token of a short\n"
                 "prompt, and the most memory that the process has had in RAM by its end.",
                 options, sizeof options / sizeof options[0], NULL, 0);
    if (bench.model_path == NULL) wrong_usage("-m MODEL is missing");
    if (repeats == 0) wrong_usage("-r takes 1 or more");
    if (bench.sequences == 0) wrong_usage("-s takes 1 or more");
    if (bench.sequences > 1 && bench.depth > 0) wrong_usage("-s and -d are not measured together");
    if (bench.sequences > 1 && prompt > UINT32_MAX - single) wrong_usage("-p is too large");
    if (bench.sequences > 1 && (prompt == 0 || single < 2)) wrong_usage("-s takes a -p of 1 or more and an -n of 2 or more");
    bench.kv_type = kv_type_of(bench.kv_name);

    uint32_t context = prompt > single ? prompt : single;
    if (bench.depth > UINT32_MAX - context) wrong_usage("-d is too large");
    context += bench.depth;
    double load = 0, first = 0;
    llm_model_t *model =
        first_token(&bench, context > SHORT_PROMPT ? context : SHORT_PROMPT, start, &load, &first);
    bench.logits = must_realloc(NULL, bench.vocab_size, sizeof *bench.logits);
    if (bench.sequences > 1) {
        run_together(&bench, model, prompt, single, repeats);
    } else {
        run(&bench, "pp", prompt, repeats, prompt_seconds);
        run(&bench, "tg", single, repeats, single_seconds);
    }
    separator(&bench);
    printf(bench.json ? "{\"test\": \"load\", \"load_ms\": %.3f, \"first_token_ms\": %.3f, \"peak_rss_mib\": %.1f}\n]\n"
                      : "load     %10.1f ms, first token after %.1f ms, %.1f MiB at most\n",
           1e3 * load, 1e3 * first, peak_mib());

    free(bench.logits);
    llm_session_free(bench.session);
    llm_model_free(model);
    finish_output();
    return 0;
}
