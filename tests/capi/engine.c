/* Many requests at once, as a C program sees them. */
#include "check.h"
#include <time.h>

enum { MOST = 24 };

static llm_model_t *load(void)
{
    llm_model_t *model = NULL;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    return model;
}

static llm_engine_t *engine_of(const llm_model_t *model, uint32_t max_pages)
{
    llm_engine_t *engine = NULL;
    llm_engine_params_t params;
    llm_engine_params_init(&params, sizeof params);
    CHECK(params.struct_size == sizeof params && params.max_batch == 0 && params.kv_type == LLM_KV_F16);
    params.context_length = 64;
    params.threads = 2;
    params.max_pages = max_pages;
    OK(llm_engine_new(model, &params, &engine, &error));
    return engine;
}

/* What a continuation gave. */
struct output {
    llm_token_t tokens[MOST];
    size_t count;
    char text[256];
    size_t size;
    llm_finish_reason_t finish;
    llm_status_t status;
    int ended;
};

static void add(struct output *output, const llm_event_t *event)
{
    CHECK(!output->ended);
    if (event->token != LLM_TOKEN_NONE) {
        CHECK(output->count < MOST);
        output->tokens[output->count++] = event->token;
    }
    CHECK(output->size + event->text.size < sizeof output->text);
    memcpy(output->text + output->size, event->text.data, event->text.size);
    output->size += event->text.size;
    output->finish = event->finish_reason;
    output->status = event->status;
    output->ended = event->finish_reason != LLM_FINISH_NONE || event->status != LLM_STATUS_OK;
    CHECK((event->message.size > 0) == (event->status != LLM_STATUS_OK));
}

/* Runs the engine until it is idle; outputs[id][index]. */
static void run(llm_engine_t *engine, struct output outputs[][2])
{
    llm_events_t *events = NULL;
    OK(llm_events_new(&events, &error));
    bool more = true;
    while (more) {
        OK(llm_engine_wait(engine, UINT64_MAX, events, &more, &error));
        CHECK(llm_events_count(events) > 0);
        for (size_t i = 0; i < llm_events_count(events); i++) {
            llm_event_t event = {.struct_size = sizeof event};
            OK(llm_events_get(events, i, &event, &error));
            add(&outputs[event.request][event.index], &event);
        }
    }
    llm_events_free(events);
}

/* What a session of its own gives. */
static void expect(const llm_model_t *model, const struct output *output, const llm_token_t *prompt, size_t count,
                   llm_sampler_t *sampler, llm_lora_t *lora, const char *stop, uint32_t max_tokens)
{
    llm_session_t *session = NULL;
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.context_length = 64;
    params.threads = LLM_THREADS_CALLER;
    OK(llm_session_new(model, &params, &session, &error));
    if (lora) OK(llm_session_add_lora(session, lora, 0.5f, &error));
    if (stop) OK(llm_session_add_stop(session, stop, LLM_NUL_TERMINATED, &error));
    OK(llm_session_append_tokens(session, prompt, count, &error));
    llm_generate_params_t limits;
    llm_generate_params_init(&limits, sizeof limits);
    limits.max_tokens = max_tokens;
    OK(llm_session_start(session, sampler, &limits, &error));
    struct output own;
    memset(&own, 0, sizeof own);
    while (!own.ended) {
        llm_event_t event = {.struct_size = sizeof event};
        OK(llm_session_next(session, &event.token, &event.text, &event.finish_reason, &error));
        add(&own, &event);
    }
    llm_session_free(session);
    CHECK(output->ended && output->status == LLM_STATUS_OK && output->finish == own.finish);
    CHECK(output->count == own.count && memcmp(output->tokens, own.tokens, own.count * sizeof *own.tokens) == 0);
    CHECK(output->size == own.size && memcmp(output->text, own.text, own.size) == 0);
}

static llm_sampler_t *sampler_of(uint64_t seed)
{
    llm_sampler_t *sampler = NULL;
    llm_sampler_params_t params;
    llm_sampler_params_init(&params, sizeof params);
    params.seed = seed;
    params.temperature = 2;
    OK(llm_sampler_new(&params, &sampler, &error));
    return sampler;
}

static void requests(void)
{
    llm_model_t *model = load();
    llm_engine_t *engine = engine_of(model, 0);
    llm_lora_t *lora = NULL;
    OK(llm_lora_load(model, getenv("LLM_TEST_LORA"), LLM_NUL_TERMINATED, &lora, &error));
    llm_request_t *request = NULL;
    llm_request_params_t params;
    llm_request_params_init(&params, sizeof params);
    CHECK(params.struct_size == sizeof params && params.count == 1 && params.priority == 0 && params.max_tokens == 0);
    OK(llm_request_new(&request, &error));
    static const llm_token_t prompt[] = {5, 9, 2, 40, 17, 3, 8, 60, 11, 25, 33, 7, 1, 19, 20, 21, 22, 23, 24};
    enum { COUNT = sizeof prompt / sizeof *prompt };
    params.max_tokens = 12;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_request_set_tokens(request, prompt, COUNT, &error));
    llm_request_id_t greedy = 0, drawn = 0, adapted = 0, longer = 0;
    OK(llm_engine_submit(engine, request, &greedy, &error));

    /* A request is copied: what is changed later is for the next one. */
    llm_sampler_t *sampler = sampler_of(7), *next = sampler_of(8);
    OK(llm_request_set_sampler(request, sampler, &error));
    params.count = 2;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_engine_submit(engine, request, &drawn, &error));
    params.count = 1;
    params.priority = 3;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_request_add_lora(request, lora, 0.5f, &error));
    OK(llm_engine_submit(engine, request, &adapted, &error));
    FAILS(INVALID_ARGUMENT, llm_request_add_stop(request, "", 0, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_request_add_stop(request, "\xff", 1, &error));
    llm_error_free(error);
    /* Would end it at once. */
    for (char c[2] = "a"; c[0] <= 'z'; c[0]++) OK(llm_request_add_stop(request, c, LLM_NUL_TERMINATED, &error));
    OK(llm_request_clear_stops(request, &error));
    OK(llm_request_add_stop(request, "e", LLM_NUL_TERMINATED, &error));
    params.max_tokens = 20;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_engine_submit(engine, request, &longer, &error));
    llm_request_free(request);
    CHECK(greedy == 1 && drawn == 2 && adapted == 3 && longer == 4);

    static struct output outputs[5][2];
    run(engine, outputs);
    expect(model, &outputs[greedy][0], prompt, COUNT, NULL, NULL, NULL, 12);
    expect(model, &outputs[drawn][0], prompt, COUNT, sampler, NULL, NULL, 12);
    expect(model, &outputs[drawn][1], prompt, COUNT, next, NULL, NULL, 12);
    expect(model, &outputs[adapted][0], prompt, COUNT, sampler, lora, NULL, 12);
    expect(model, &outputs[longer][0], prompt, COUNT, sampler, lora, "e", 20);
    CHECK(memcmp(outputs[drawn][0].tokens, outputs[adapted][0].tokens, sizeof outputs[drawn][0].tokens) != 0);

    llm_engine_stats_t stats = {.struct_size = sizeof stats};
    OK(llm_engine_stats(engine, &stats, &error));
    CHECK(stats.submitted == 4 && stats.finished == 5 && stats.failed == 0 && stats.cancelled == 0);
    CHECK(stats.waiting == 0 && stats.running == 0 && stats.pages_used == 0 && stats.pages_idle > 0);
    CHECK(stats.pages_total == 8 * 4 && stats.bytes > 0 && stats.generated_tokens > 0 && stats.steps > 0);
    CHECK(stats.largest_batch > 1 && stats.members >= stats.steps && stats.largest_quantum_us <= stats.time_us);
    CHECK(stats.prompt_tokens >= COUNT && stats.reused_tokens > 0 && stats.preemptions == 0);

    llm_sampler_free(sampler);
    llm_sampler_free(next);
    llm_lora_free(lora);
    llm_engine_free(engine);
    llm_model_free(model);
}

static void events_and_failures(void)
{
    llm_model_t *model = load();
    llm_engine_t *engine = engine_of(model, 3);
    llm_tokenizer_t *tokenizer = NULL;
    OK(llm_model_tokenizer(model, &tokenizer, &error));
    llm_request_t *request = NULL;
    llm_request_id_t id = 0, long_one = 0;
    llm_events_t *events = NULL;
    bool more = true;
    OK(llm_events_new(&events, &error));
    OK(llm_request_new(&request, &error));
    FAILS(INVALID_ARGUMENT, llm_engine_submit(engine, request, &id, &error));
    llm_error_free(error);
    llm_token_t tokens[64];
    for (size_t i = 0; i < 64; i++) tokens[i] = (llm_token_t)i;
    OK(llm_request_set_tokens(request, tokens, 49, &error));
    FAILS(CACHE_FULL, llm_engine_submit(engine, request, &id, &error));
    llm_error_free(error);
    tokens[0] = 1 << 30;
    OK(llm_request_set_tokens(request, tokens, 2, &error));
    FAILS(INVALID_ARGUMENT, llm_engine_submit(engine, request, &id, &error));
    llm_error_free(error);
    llm_request_params_t params;
    llm_request_params_init(&params, sizeof params);
    params.flags = 4;
    FAILS(UNSUPPORTED, llm_request_set_params(request, &params, &error));
    llm_error_free(error);
    params.flags = 0;
    params.reserved = 1;
    FAILS(UNSUPPORTED, llm_request_set_params(request, &params, &error));
    llm_error_free(error);
    params.reserved = 0;
    CHECK(id == 0);

    /* Nothing to do. */
    OK(llm_engine_poll(engine, 1000, events, &more, &error));
    CHECK(!more && llm_events_count(events) == 0);
    OK(llm_engine_wait(engine, 1, events, &more, &error));
    CHECK(!more && llm_events_count(events) == 0);

    /* One that fills the pages, and one that is cancelled. */
    params.flags = LLM_GENERATE_IGNORE_EOG;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_request_set_tokens(request, tokens + 1, 40, &error));
    OK(llm_engine_submit(engine, request, &long_one, &error));
    OK(llm_request_set_text(request, tokenizer, "and", LLM_NUL_TERMINATED, 0, &error));
    OK(llm_engine_submit(engine, request, &id, &error));
    OK(llm_engine_cancel(engine, id, &error));
    FAILS(NOT_FOUND, llm_engine_cancel(engine, id + 1, &error));
    llm_error_free(error);
    static struct output outputs[3][2];
    more = true;
    size_t polls = 0;
    while (more) {
        OK(llm_engine_poll(engine, 0, events, &more, &error));
        polls++;
        for (size_t i = 0; i < llm_events_count(events); i++) {
            llm_event_t event = {.struct_size = sizeof event};
            OK(llm_events_get(events, i, &event, &error));
            add(&outputs[event.request][event.index], &event);
        }
        llm_event_t event = {.struct_size = sizeof event};
        FAILS(NOT_FOUND, llm_events_get(events, llm_events_count(events), &event, &error));
        llm_error_free(error);
    }
    CHECK(polls > 9);
    CHECK(outputs[id][0].status == LLM_STATUS_CANCELLED && outputs[id][0].count == 0);
    /* 48 positions; the last token needs none. */
    CHECK(outputs[long_one][0].status == LLM_STATUS_CACHE_FULL && outputs[long_one][0].count == 9);
    llm_engine_stats_t stats = {.struct_size = sizeof stats};
    OK(llm_engine_stats(engine, &stats, &error));
    CHECK(stats.cancelled == 1 && stats.failed == 1 && stats.finished == 0 && stats.pages_total == 3);

    /* Pages that sessions use too. */
    llm_engine_t *other = NULL;
    llm_paged_cache_t *cache = NULL;
    llm_paged_cache_params_t pages;
    llm_paged_cache_params_init(&pages, sizeof pages);
    pages.max_pages = 10;
    OK(llm_paged_cache_new_for_model(model, &pages, &cache, &error));
    OK(llm_engine_new_in_pages(model, cache, NULL, &other, &error));
    llm_paged_cache_free(cache);
    OK(llm_engine_stats(other, &stats, &error));
    CHECK(stats.pages_total == 10);
    CHECK(llm_engine_retain(other) == other);
    llm_engine_free(other);
    OK(llm_engine_stats(other, &stats, &error));
    llm_engine_free(other);

    llm_request_free(request);
    llm_events_free(events);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    llm_engine_free(engine);
}

struct work {
    llm_engine_t *engine;
    llm_token_t first;
};

static void *submit(void *argument)
{
    const struct work *work = argument;
    llm_error_t *own = NULL;
    llm_request_t *request = NULL;
    llm_request_params_t params;
    llm_request_params_init(&params, sizeof params);
    params.max_tokens = 4;
    params.flags = LLM_GENERATE_IGNORE_EOG;
    CHECK(llm_request_new(&request, &own) == LLM_STATUS_OK);
    CHECK(llm_request_set_params(request, &params, &own) == LLM_STATUS_OK);
    for (llm_token_t i = 0; i < 5; i++) {
        llm_token_t tokens[2] = {work->first + i, i};
        llm_request_id_t id = 0;
        CHECK(llm_request_set_tokens(request, tokens, 2, &own) == LLM_STATUS_OK);
        CHECK(llm_engine_submit(work->engine, request, &id, &own) == LLM_STATUS_OK && id > 0);
    }
    llm_request_free(request);
    return NULL;
}

struct polled {
    llm_engine_t *engine;
    llm_events_t *events;
    int calls;
};

static void poll_again(llm_candidate_t *candidates, size_t count, void *user_data)
{
    (void)candidates, (void)count;
    struct polled *polled = user_data;
    bool more = false;
    FAILS(BUSY, llm_engine_poll(polled->engine, 0, polled->events, &more, &error));
    llm_error_free(error);
    polled->calls++;
}

/* A poll within a poll fails, and leaves its list as it was. */
static void failing_polls(void)
{
    llm_model_t *model = load();
    struct polled polled = {engine_of(model, 0), NULL, 0};
    OK(llm_events_new(&polled.events, &error));
    llm_sampler_t *sampler = sampler_of(1);
    const llm_token_t prompt[] = {5, 6, 7};
    for (int i = 0; i < 2; i++) {
        llm_request_t *request = NULL;
        OK(llm_request_new(&request, &error));
        OK(llm_request_set_tokens(request, prompt, 3, &error));
        OK(llm_request_set_sampler(request, sampler, &error));
        llm_request_id_t id = 0;
        OK(llm_engine_submit(polled.engine, request, &id, &error));
        llm_request_free(request);
        llm_events_t *events = polled.events;
        if (i > 0) OK(llm_events_new(&events, &error));
        do {
            OK(llm_engine_wait(polled.engine, UINT64_MAX, events, NULL, &error));
            CHECK(llm_events_count(events) > 0);
        } while (i > 0 && polled.calls == 0);
        if (i > 0) llm_events_free(events);
        OK(llm_sampler_add_callback(sampler, poll_again, &polled, NULL, &error));
    }
    CHECK(llm_events_count(polled.events) > 0);
    llm_event_t event = {.struct_size = sizeof event};
    OK(llm_events_get(polled.events, 0, &event, &error));
    CHECK(event.request == 1);
    llm_sampler_free(sampler);
    llm_events_free(polled.events);
    llm_engine_free(polled.engine);
    llm_model_free(model);
}

static void threads(void)
{
    llm_model_t *model = load();
    llm_engine_t *engine = engine_of(model, 0);
    llm_events_t *events = NULL;
    OK(llm_events_new(&events, &error));
    struct work work[2] = {{engine, 10}, {engine, 40}};
    pthread_t workers[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&workers[i], NULL, submit, &work[i]) == 0);
    size_t ended = 0, tokens = 0;
    while (ended < 10) {
        OK(llm_engine_wait(engine, 10000, events, NULL, &error));
        for (size_t i = 0; i < llm_events_count(events); i++) {
            llm_event_t event = {.struct_size = sizeof event};
            OK(llm_events_get(events, i, &event, &error));
            tokens += event.token != LLM_TOKEN_NONE;
            ended += event.finish_reason == LLM_FINISH_LENGTH;
        }
    }
    for (int i = 0; i < 2; i++) CHECK(pthread_join(workers[i], NULL) == 0);
    CHECK(tokens == 40);
    llm_events_free(events);
    llm_engine_free(engine);
    llm_model_free(model);
}

struct wait {
    llm_engine_t *engine;
    llm_events_t *events;
};

static void *wait_for_ever(void *user_data)
{
    struct wait *wait = user_data;
    bool more = true;
    CHECK(llm_engine_wait(wait->engine, UINT64_MAX, wait->events, &more, NULL) == LLM_STATUS_OK && !more);
    return NULL;
}

/* With the last reference nobody could wake it any more. */
static void freeing_ends_a_wait(void)
{
    llm_model_t *model = load();
    struct wait wait = {.engine = engine_of(model, 0)};
    OK(llm_events_new(&wait.events, &error));
    CHECK(llm_engine_retain(wait.engine) == wait.engine);
    pthread_t waiter;
    CHECK(pthread_create(&waiter, NULL, wait_for_ever, &wait) == 0);
    const struct timespec a_while = {0, 50000000};
    llm_event_t event = {.struct_size = sizeof event};
    while (llm_events_get(wait.events, 0, &event, NULL) != LLM_STATUS_BUSY) nanosleep(&a_while, NULL);
    nanosleep(&a_while, NULL);
    llm_engine_free(wait.engine);
    nanosleep(&a_while, NULL);
    FAILS(BUSY, llm_events_get(wait.events, 0, &event, &error)); /* it still waits */
    llm_error_free(error);
    llm_engine_free(wait.engine);
    CHECK(pthread_join(waiter, NULL) == 0);
    llm_events_free(wait.events);
    llm_model_free(model);
}

/* Events tell the log probabilities that a session tells, if the request asked for them. */
static void log_probabilities(void)
{
    llm_model_t *model = load();
    llm_engine_t *engine = engine_of(model, 0);
    llm_session_t *session = NULL;
    OK(llm_session_new(model, NULL, &session, &error));
    static const llm_token_t tokens[] = {3, 4, 5};
    OK(llm_session_append_tokens(session, tokens, 3, &error));
    llm_request_t *request = NULL;
    OK(llm_request_new(&request, &error));
    OK(llm_request_set_tokens(request, tokens, 3, &error));
    llm_request_params_t params;
    llm_request_params_init(&params, sizeof params);
    CHECK(params.top_logprobs == 0 && params.reserved == 0 && params.user_data == NULL);
    params.max_tokens = 4;
    params.flags = LLM_REQUEST_LOGPROBS | LLM_GENERATE_IGNORE_EOG;
    params.top_logprobs = 2;
    llm_request_id_t asking = 0, silent = 0;
    params.user_data = &asking;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_engine_submit(engine, request, &asking, &error));
    params.flags = LLM_GENERATE_IGNORE_EOG;
    params.user_data = &silent;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_engine_submit(engine, request, &silent, &error));
    params.flags = LLM_REQUEST_LOGPROBS;
    params.top_logprobs = 1 << 20;
    OK(llm_request_set_params(request, &params, &error));
    FAILS(INVALID_ARGUMENT, llm_engine_submit(engine, request, &asking, &error));
    llm_error_free(error);
    llm_generate_params_t limits;
    llm_generate_params_init(&limits, sizeof limits);
    limits.flags = LLM_GENERATE_IGNORE_EOG;
    OK(llm_session_start(session, NULL, &limits, &error));
    llm_events_t *events = NULL;
    OK(llm_events_new(&events, &error));
    llm_logprob_t chosen, top[3], own, best[2];
    bool more = true;
    int told = 0, asked = 0;
    while (more) {
        OK(llm_engine_wait(engine, UINT64_MAX, events, &more, &error));
        for (size_t i = 0; i < llm_events_count(events); i++) {
            llm_event_t event = {.struct_size = sizeof event};
            OK(llm_events_get(events, i, &event, &error));
            CHECK(event.user_data == (event.request == silent ? &silent : &asking));
            if (event.request == silent) {
                FAILS(FAILED_PRECONDITION, llm_events_logprobs(events, i, &chosen, top, 0, &error));
                llm_error_free(error);
                asked++;
                continue;
            }
            llm_view_t text;
            llm_token_t token;
            llm_finish_reason_t finish;
            OK(llm_session_next(session, &token, &text, &finish, &error));
            OK(llm_session_logprobs(session, &own, best, 2, &error));
            OK(llm_events_logprobs(events, i, &chosen, top, 2, &error));
            CHECK(token == event.token && chosen.token == token && chosen.logprob == own.logprob);
            for (int j = 0; j < 2; j++) CHECK(top[j].token == best[j].token && top[j].logprob == best[j].logprob);
            OK(llm_events_logprobs(events, i, &chosen, NULL, 0, &error));
            FAILS(INVALID_ARGUMENT, llm_events_logprobs(events, i, &chosen, top, 3, &error));
            llm_error_free(error);
            FAILS(NOT_FOUND, llm_events_logprobs(events, llm_events_count(events), &chosen, top, 1, &error));
            llm_error_free(error);
            told++;
        }
    }
    CHECK(told == 4 && asked == 4);
    llm_events_free(events);
    llm_request_free(request);
    llm_session_free(session);
    llm_engine_free(engine);
    llm_model_free(model);
}

/* A search among the requests finds what a session finds, with a grammar and without. */
static void searching(void)
{
    llm_model_t *model = load();
    llm_engine_t *engine = engine_of(model, 0);
    llm_request_t *request = NULL;
    llm_tokenizer_t *tokenizer = NULL;
    llm_grammar_t *grammar = NULL;
    llm_request_id_t id = 0;
    const llm_token_t prompt[] = {60, 70, 65, 61};
    llm_beam_params_t params;
    llm_beam_params_init(&params, sizeof params);
    params.width = 2;
    params.max_tokens = 7;
    params.flags = LLM_GENERATE_IGNORE_EOG;
    OK(llm_request_new(&request, &error));
    OK(llm_request_set_tokens(request, prompt, 4, &error));
    params.reserved = 1;
    FAILS(UNSUPPORTED, llm_request_set_beams(request, &params, &error));
    llm_error_free(error);
    params.reserved = 0;
    OK(llm_request_set_beams(request, &params, &error));
    OK(llm_model_tokenizer(model, &tokenizer, &error));
    OK(llm_grammar_new(tokenizer, LLM_GRAMMAR_REGEX, "ab|cd", 5, &grammar, &error));
    OK(llm_request_set_grammar(request, grammar, &error));
    llm_request_id_t bound = 0;
    OK(llm_engine_submit(engine, request, &bound, &error));
    OK(llm_request_set_grammar(request, NULL, &error));
    OK(llm_engine_submit(engine, request, &id, &error));
    /* Without it a sampler chooses again. */
    llm_request_params_t limits;
    llm_request_params_init(&limits, sizeof limits);
    limits.max_tokens = 7;
    OK(llm_request_set_beams(request, NULL, &error));
    OK(llm_request_set_params(request, &limits, &error));
    llm_request_id_t plain = 0;
    OK(llm_engine_submit(engine, request, &plain, &error));
    struct output outputs[4][2];
    memset(outputs, 0, sizeof outputs);
    CHECK(bound == 1 && id == 2 && plain == 3);
    run(engine, outputs);
    expect(model, &outputs[plain][0], prompt, 4, NULL, NULL, NULL, 7);

    llm_session_t *session = NULL;
    llm_beams_t *beams = NULL;
    OK(llm_session_new(model, NULL, &session, &error));
    OK(llm_session_append_tokens(session, prompt, 4, &error));
    OK(llm_session_beam_search(session, &params, &beams, &error));
    for (size_t i = 0; i < 2; i++) {
        llm_beam_t beam = {.struct_size = sizeof beam};
        OK(llm_beams_get(beams, i, &beam, &error));
        const struct output *output = &outputs[id][i];
        CHECK(output->ended && output->finish == beam.finish_reason && output->count == 7 && beam.token_count == 7);
        CHECK(memcmp(output->tokens, beam.tokens, 7 * sizeof *beam.tokens) == 0);
        CHECK(output->size == beam.text.size && memcmp(output->text, beam.text.data, beam.text.size) == 0);
    }
    CHECK(memcmp(outputs[id][0].tokens, outputs[id][1].tokens, 7 * sizeof(llm_token_t)) != 0);
    llm_beams_free(beams);
    OK(llm_session_set_grammar(session, grammar, &error));
    OK(llm_session_beam_search(session, &params, &beams, &error));
    CHECK(llm_beams_count(beams) == 2);
    for (size_t i = 0; i < 2; i++) {
        llm_beam_t beam = {.struct_size = sizeof beam};
        OK(llm_beams_get(beams, i, &beam, &error));
        const struct output *output = &outputs[bound][i];
        CHECK(output->ended && output->finish == LLM_FINISH_GRAMMAR && beam.finish_reason == LLM_FINISH_GRAMMAR);
        CHECK(beam.text.size == 2 && output->size == 2 && memcmp(output->text, beam.text.data, 2) == 0);
        CHECK(memcmp(beam.text.data, "ab", 2) == 0 || memcmp(beam.text.data, "cd", 2) == 0);
    }
    CHECK(outputs[bound][0].text[0] != outputs[bound][1].text[0]);
    llm_beams_free(beams);
    llm_session_free(session);
    llm_grammar_free(grammar);
    llm_tokenizer_free(tokenizer);
    llm_request_free(request);
    llm_engine_free(engine);
    llm_model_free(model);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"requests", requests},
        {"events_and_failures", events_and_failures},
        {"failing_polls", failing_polls},
        {"threads", threads},
        {"freeing_ends_a_wait", freeing_ends_a_wait},
        {"log_probabilities", log_probabilities},
        {"searching", searching},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
