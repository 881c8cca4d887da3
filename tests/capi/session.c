/* Sessions, as a C program sees them, on a model of one layer. */
#include "check.h"

#include <math.h>

static llm_model_t *load(void)
{
    llm_model_t *model = NULL;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    return model;
}

static llm_session_t *new_session(uint32_t context)
{
    llm_model_t *model = load();
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.context_length = context;
    params.threads = 2;
    params.kv_type = LLM_KV_F32;
    llm_session_t *session = NULL;
    OK(llm_session_new(model, &params, &session, &error));
    llm_model_free(model); /* the session keeps it */
    return session;
}

static size_t vocab_size(void)
{
    llm_model_t *model = load();
    llm_model_info_t info;
    info.struct_size = sizeof info;
    OK(llm_model_info(model, &info, &error));
    llm_model_free(model);
    return (size_t)info.vocab_size;
}

static size_t length(llm_session_t *session)
{
    size_t tokens = SIZE_MAX;
    OK(llm_session_length(session, &tokens, &error));
    return tokens;
}

static const llm_token_t PROMPT[] = {5, 70, 71, 72, 73, 74};
enum { PROMPT_LENGTH = 6 };

static void append_prompt(llm_session_t *session)
{
    OK(llm_session_append_tokens(session, PROMPT, PROMPT_LENGTH, &error));
}

static void start(llm_session_t *session, uint32_t max_tokens)
{
    llm_generate_params_t params;
    llm_generate_params_init(&params, sizeof params);
    params.max_tokens = max_tokens;
    params.flags = LLM_GENERATE_IGNORE_EOG;
    OK(llm_session_start(session, NULL, &params, &error));
}

static void appending(void)
{
    size_t vocab = vocab_size();
    llm_session_t *session = new_session(16);
    size_t context = 0;
    OK(llm_session_context_length(session, &context, &error));
    CHECK(context == 16 && length(session) == 0);
    OK(llm_session_append_tokens(session, NULL, 0, &error));
    size_t count = 99;
    OK(llm_session_append_text(session, "", 0, 0, &count, &error));
    CHECK(count == 0 && length(session) == 0);

    llm_token_t token = 0;
    llm_view_t text = {NULL, 0};
    llm_finish_reason_t finish = -1;
    FAILS(FAILED_PRECONDITION, llm_session_next(session, &token, &text, &finish, &error));
    llm_error_free(error);
    float *logits = malloc(PROMPT_LENGTH * vocab * sizeof *logits), *last = malloc(vocab * sizeof *last);
    CHECK(logits && last);
    FAILS(FAILED_PRECONDITION, llm_session_logits(session, last, vocab, &error));
    llm_error_free(error);

    OK(llm_session_eval(session, PROMPT, PROMPT_LENGTH, logits, PROMPT_LENGTH * vocab, &error));
    CHECK(length(session) == PROMPT_LENGTH);
    OK(llm_session_logits(session, last, vocab, &error));
    CHECK(memcmp(last, logits + (PROMPT_LENGTH - 1) * vocab, vocab * sizeof *last) == 0);
    FAILS(BUFFER_TOO_SMALL, llm_session_logits(session, last, vocab - 1, &error));
    llm_error_free(error);
    FAILS(BUFFER_TOO_SMALL, llm_session_eval(session, PROMPT, 2, last, vocab, &error));
    llm_error_free(error);

    /* The scores of tokens behind the first two, which are those that their logits give. */
    double scores[PROMPT_LENGTH] = {0};
    OK(llm_session_truncate(session, 2, &error));
    OK(llm_session_score(session, NULL, 0, NULL, 0, &error));
    FAILS(BUFFER_TOO_SMALL, llm_session_score(session, PROMPT + 2, PROMPT_LENGTH - 2, scores, 1, &error));
    llm_error_free(error);
    OK(llm_session_score(session, PROMPT + 2, PROMPT_LENGTH - 2, scores, PROMPT_LENGTH, &error));
    CHECK(length(session) == PROMPT_LENGTH && scores[PROMPT_LENGTH - 2] == 0);
    for (size_t i = 2; i < PROMPT_LENGTH; i++) {
        const float *row = logits + (i - 1) * vocab;
        double sum = 0;
        for (size_t v = 0; v < vocab; v++) sum += exp(row[v]);
        CHECK(fabs(row[PROMPT[i]] - log(sum) - scores[i - 2]) < 1e-6);
    }
    llm_token_t wrong[2] = {1, (llm_token_t)vocab};
    FAILS(INVALID_ARGUMENT, llm_session_append_tokens(session, wrong, 2, &error));
    CHECK(llm_error_get(error, "token"));
    llm_error_free(error);
    llm_token_t many[11] = {0};
    FAILS(CACHE_FULL, llm_session_append_tokens(session, many, 11, &error));
    llm_error_free(error);
    CHECK(length(session) == PROMPT_LENGTH); /* nothing of that was appended */

    llm_token_t tokens[16];
    FAILS(BUFFER_TOO_SMALL, llm_session_tokens(session, tokens, PROMPT_LENGTH - 1, &count, &error));
    llm_error_free(error);
    OK(llm_session_tokens(session, tokens, 16, &count, &error));
    CHECK(count == PROMPT_LENGTH && memcmp(tokens, PROMPT, sizeof PROMPT) == 0);

    /* Back by two and forth again: the same logits. */
    FAILS(INVALID_ARGUMENT, llm_session_truncate(session, PROMPT_LENGTH + 1, &error));
    llm_error_free(error);
    OK(llm_session_truncate(session, PROMPT_LENGTH - 2, &error));
    OK(llm_session_append_tokens(session, PROMPT + PROMPT_LENGTH - 2, 2, &error));
    OK(llm_session_logits(session, last, vocab, &error));
    CHECK(memcmp(last, logits + (PROMPT_LENGTH - 1) * vocab, vocab * sizeof *last) == 0);
    llm_timings_t timings;
    timings.struct_size = sizeof timings;
    OK(llm_session_timings(session, &timings, &error));
    CHECK(timings.prompt_tokens == 2 * PROMPT_LENGTH && timings.generated_tokens == 0);
    OK(llm_session_reset(session, &error));
    CHECK(length(session) == 0);
    free(logits);
    free(last);
    llm_session_free(session);
}

struct collected {
    llm_session_t *session;
    llm_token_t tokens[64];
    size_t count, limit;
};

static bool collect(llm_token_t token, const char *text, size_t size, void *user_data)
{
    (void)text, (void)size;
    struct collected *collected = user_data;
    collected->tokens[collected->count++] = token;
    return collected->count < collected->limit;
}

static void generating(void)
{
    llm_session_t *session = new_session(32);
    append_prompt(session);
    start(session, 4);
    llm_token_t tokens[8];
    llm_view_t text = {NULL, 0};
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    size_t count = 0;
    while (finish == LLM_FINISH_NONE) {
        CHECK(count < 4);
        OK(llm_session_next(session, &tokens[count++], &text, &finish, &error));
    }
    CHECK(count == 4 && finish == LLM_FINISH_LENGTH);
    FAILS(FAILED_PRECONDITION, llm_session_next(session, &tokens[4], &text, &finish, &error));
    llm_error_free(error);

    /* The loop, with a callback: the same tokens. */
    struct collected collected = {session, {0}, 0, 64};
    OK(llm_session_truncate(session, 0, &error));
    append_prompt(session);
    start(session, 4);
    OK(llm_session_generate(session, collect, &collected, &finish, &error));
    CHECK(finish == LLM_FINISH_LENGTH && collected.count == 4);
    CHECK(memcmp(tokens, collected.tokens, 4 * sizeof *tokens) == 0);

    /* The callback ends it. */
    collected.count = 0;
    collected.limit = 2;
    OK(llm_session_truncate(session, 0, &error));
    append_prompt(session);
    start(session, 0);
    OK(llm_session_generate(session, collect, &collected, &finish, &error));
    CHECK(finish == LLM_FINISH_ABORTED && collected.count == 2);

    /* The context ends it. */
    collected.count = 0;
    collected.limit = 64;
    start(session, 0);
    OK(llm_session_generate(session, collect, &collected, &finish, &error));
    CHECK(finish == LLM_FINISH_CONTEXT_FULL && length(session) == 32);

    /* A sampler is copied: the same seed gives the same tokens, and the session does not move it. */
    llm_sampler_params_t params;
    llm_sampler_params_init(&params, sizeof params);
    params.temperature = 5;
    params.seed = 3;
    llm_sampler_t *sampler = NULL;
    OK(llm_sampler_new(&params, &sampler, &error));
    llm_generate_params_t limits;
    llm_generate_params_init(&limits, sizeof limits);
    limits.max_tokens = 8;
    limits.flags = LLM_GENERATE_IGNORE_EOG;
    struct collected runs[2] = {{session, {0}, 0, 64}, {session, {0}, 0, 64}};
    for (int i = 0; i < 2; i++) {
        OK(llm_session_reset(session, &error));
        append_prompt(session);
        OK(llm_session_start(session, sampler, &limits, &error));
        OK(llm_session_generate(session, collect, &runs[i], &finish, &error));
    }
    CHECK(runs[0].count == 8 && memcmp(runs[0].tokens, runs[1].tokens, sizeof runs[0].tokens) == 0);
    llm_sampler_free(sampler);

    FAILS(INVALID_ARGUMENT, llm_session_add_stop(session, "", 0, &error));
    llm_error_free(error);
    OK(llm_session_add_stop(session, "\n", 1, &error));
    OK(llm_session_clear_stops(session, &error));
    llm_session_free(session);
}

static void *use_from_thread(void *session)
{
    llm_error_t *mine = NULL;
    size_t tokens = 0;
    llm_status_t status = llm_session_length(session, &tokens, &mine);
    CHECK(status == LLM_STATUS_BUSY && llm_error_status(mine) == LLM_STATUS_BUSY);
    llm_error_free(mine);
    return NULL;
}

static bool enter_again(llm_token_t token, const char *text, size_t size, void *user_data)
{
    (void)token, (void)text, (void)size;
    llm_session_t *session = ((struct collected *)user_data)->session;
    FAILS(BUSY, llm_session_reset(session, &error));
    llm_error_free(error);
    FAILS(BUSY, llm_session_append_tokens(session, PROMPT, 1, &error));
    llm_error_free(error);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_from_thread, session) == 0);
    pthread_join(thread, NULL);
    return false;
}

static bool free_inside(llm_token_t token, const char *text, size_t size, void *user_data)
{
    (void)token, (void)text, (void)size;
    struct collected *collected = user_data;
    if (collected->count++ == 0) {
        llm_session_free(collected->session);
        FAILS(FAILED_PRECONDITION, llm_session_reset(collected->session, &error));
        llm_error_free(error);
    }
    return true;
}

static void callbacks_that_reenter(void)
{
    llm_finish_reason_t finish = 0;
    struct collected collected = {new_session(32), {0}, 0, 0};
    append_prompt(collected.session);
    start(collected.session, 4);
    OK(llm_session_generate(collected.session, enter_again, &collected, &finish, &error));
    CHECK(finish == LLM_FINISH_ABORTED);
    OK(llm_session_reset(collected.session, &error)); /* not busy any more */

    append_prompt(collected.session);
    start(collected.session, 4);
    OK(llm_session_generate(collected.session, free_inside, &collected, &finish, &error));
    CHECK(finish == LLM_FINISH_LENGTH && collected.count == 4);
    FAILS(FAILED_PRECONDITION, llm_session_reset(collected.session, &error));
    llm_error_free(error);
}

static void cancelling_a_session(void)
{
    llm_session_t *session = new_session(32);
    llm_cancel_t *cancel = NULL;
    OK(llm_cancel_new(&cancel, &error));
    OK(llm_session_set_cancel(session, cancel, &error));
    append_prompt(session);
    llm_cancel_request(cancel);
    FAILS(CANCELLED, llm_session_append_tokens(session, PROMPT, PROMPT_LENGTH, &error));
    llm_error_free(error);
    CHECK(length(session) == PROMPT_LENGTH);
    start(session, 4);
    llm_finish_reason_t finish = 0;
    struct collected collected = {session, {0}, 0, 64};
    FAILS(CANCELLED, llm_session_generate(session, collect, &collected, &finish, &error));
    llm_error_free(error);
    llm_cancel_reset(cancel);
    OK(llm_session_append_tokens(session, PROMPT, PROMPT_LENGTH, &error));
    /* What the callback got has been appended; nothing of the calls that were cancelled. */
    CHECK(length(session) == 2 * PROMPT_LENGTH + collected.count);
    llm_cancel_request(cancel);
    llm_cancel_free(cancel); /* the session keeps what it needs */
    FAILS(CANCELLED, llm_session_append_tokens(session, PROMPT, PROMPT_LENGTH, &error));
    llm_error_free(error);
    OK(llm_session_set_cancel(session, NULL, &error));
    append_prompt(session);
    llm_session_free(session);
}

static int panics_told;

static void hear_of_panics(llm_log_level_t level, const char *message, size_t size, void *user_data)
{
    (void)message, (void)size, (void)user_data;
    panics_told += level == LLM_LOG_ERROR;
}

static void panicking_in_the_pool(void)
{
    enum { TOKENS = 200 };
    static llm_token_t tokens[TOKENS];
    llm_session_t *session = new_session(256), *other = new_session(256);
    llm_log_set(hear_of_panics, NULL);
    setenv("LLM_TEST_PANIC", "pool worker", 1);
    llm_status_t status = LLM_STATUS_OK;
    /* Until the pool's own thread gets a share of the work. */
    for (int i = 0; i < 1000 && status == LLM_STATUS_OK; i++) {
        CHECK(llm_session_truncate(session, 0, NULL) == LLM_STATUS_OK);
        status = llm_session_append_tokens(session, tokens, TOKENS, &error);
    }
    unsetenv("LLM_TEST_PANIC");
    llm_log_set(NULL, NULL);
    CHECK(status == LLM_STATUS_INTERNAL && panics_told > 0);
    CHECK(same(llm_error_get(error, "function"), "llm_session_append_tokens"));
    CHECK(strstr(llm_error_message(error), "injected"));
    llm_error_free(error);

    /* The session can only be freed; others are as good as ever. */
    FAILS(FAILED_PRECONDITION, llm_session_reset(session, &error));
    llm_error_free(error);
    size_t tokens_held = 0;
    FAILS(FAILED_PRECONDITION, llm_session_length(session, &tokens_held, &error));
    llm_error_free(error);
    llm_session_free(session);
    OK(llm_session_append_tokens(other, tokens, TOKENS, &error));
    CHECK(length(other) == TOKENS);
    llm_session_free(other);
}

static void freeing_in_any_order(void)
{
    for (int order = 0; order < 24; order++) {
        llm_gguf_t *gguf = NULL;
        llm_model_t *model = NULL;
        llm_tokenizer_t *tokenizer = NULL;
        llm_session_t *session = NULL;
        OK(llm_gguf_open(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
        OK(llm_model_load_gguf(gguf, NULL, NULL, &model, &error));
        OK(llm_model_tokenizer(model, &tokenizer, &error));
        llm_session_params_t params;
        llm_session_params_init(&params, sizeof params);
        params.context_length = 16;
        params.threads = LLM_THREADS_CALLER;
        OK(llm_session_new(model, &params, &session, &error));
        int left[4] = {0, 1, 2, 3}, code = order;
        for (int n = 4; n > 0; n--) {
            int pick = code % n, what = left[pick];
            code /= n;
            left[pick] = left[n - 1];
            /* Whatever is left still works. */
            size_t count = 0;
            llm_token_t tokens[8];
            if (session)
                OK(llm_session_append_tokens(session, PROMPT, 1, &error));
            if (tokenizer)
                OK(llm_tokenizer_encode(tokenizer, "a", 1, 0, tokens, 8, &count, &error));
            if (gguf)
                CHECK(llm_gguf_tensor_count(gguf) > 0);
            switch (what) {
            case 0: llm_gguf_free(gguf), gguf = NULL; break;
            case 1: llm_model_free(model), model = NULL; break;
            case 2: llm_tokenizer_free(tokenizer), tokenizer = NULL; break;
            default: llm_session_free(session), session = NULL; break;
            }
        }
    }
}

static void *use_everything(void *user_data)
{
    (void)user_data;
    llm_model_t *model = NULL;
    llm_gguf_t *gguf = NULL;
    llm_messages_t *messages = NULL;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.threads = LLM_THREADS_CALLER;
    llm_session_t *session = NULL;
    OK(llm_session_new(model, &params, &session, &error));
    append_prompt(session);
    start(session, 4);
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    struct collected collected = {session, {0}, 0, 0};
    OK(llm_session_generate(session, collect, &collected, &finish, &error));
    llm_beams_t *beams = NULL;
    OK(llm_session_beam_search(session, NULL, &beams, &error));
    OK(llm_gguf_open(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
    OK(llm_gguf_pack(gguf, "packed", LLM_NUL_TERMINATED, NULL, NULL, &error));
    OK(llm_gguf_quantize(gguf, "quantised", LLM_NUL_TERMINATED, "Q4_K_M", LLM_NUL_TERMINATED, NULL, 0, NULL, NULL, &error));
    /* As deep as JSON may be. */
    char json[256];
    size_t depth = 120;
    memset(json, '[', depth);
    memset(json + depth, ']', depth);
    OK(llm_messages_new(&messages, &error));
    OK(llm_messages_set_variable(messages, "v", LLM_NUL_TERMINATED, json, 2 * depth, &error));
    llm_messages_free(messages);
    llm_gguf_free(gguf);
    llm_beams_free(beams);
    llm_session_free(session);
    llm_model_free(model);
    return NULL;
}

/* As much as the header says that a thread needs. */
static void on_a_small_stack(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 256 << 10) == 0);
    CHECK(pthread_create(&thread, &attributes, use_everything, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"appending", appending},
        {"generating", generating},
        {"callbacks_that_reenter", callbacks_that_reenter},
        {"cancelling_a_session", cancelling_a_session},
        {"panicking_in_the_pool", panicking_in_the_pool},
        {"freeing_in_any_order", freeing_in_any_order},
        {"on_a_small_stack", on_a_small_stack},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
