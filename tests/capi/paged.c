/* Pages of keys and values, and forks, as a C program sees them. */
#include "check.h"
#include <math.h>

enum { LAYERS = 2, HEADS = 2, WIDTH = 8, ROW = HEADS * WIDTH };

static void fill(float *values, size_t count, int stamp)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((stamp * 37 + (int)i * 11) % 101) / 50.0f - 1.0f;
}

static llm_paged_cache_stats_t stats_of(const llm_paged_cache_t *cache)
{
    llm_paged_cache_stats_t stats;
    stats.struct_size = sizeof stats;
    OK(llm_paged_cache_stats(cache, &stats, &error));
    return stats;
}

static void append(const llm_paged_cache_t *cache, llm_sequence_t sequence, int stamp)
{
    float k[ROW], v[ROW];
    fill(k, ROW, stamp);
    fill(v, ROW, stamp + 1);
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        OK(llm_paged_cache_append_token(cache, sequence, layer, k, v, &error));
}

static void pages(void)
{
    llm_paged_cache_t *cache = NULL;
    llm_paged_cache_params_t params;
    llm_paged_cache_params_init(&params, sizeof params);
    CHECK(params.struct_size == sizeof params && params.page_size == 0 && params.kv_type == LLM_KV_F16);
    FAILS(INVALID_ARGUMENT, llm_paged_cache_new(&params, &cache, &error));
    CHECK(strcmp(llm_error_get(error, "argument"), "num_layers") == 0);
    llm_error_free(error);
    params.num_layers = LAYERS;
    params.num_kv_heads = HEADS;
    params.head_dim = WIDTH;
    params.max_pages = 4;
    params.kv_type = LLM_KV_F32;
    params.threads = 2;
    params.page_size = 20;
    FAILS(INVALID_ARGUMENT, llm_paged_cache_new(&params, &cache, &error));
    llm_error_free(error);
    params.page_size = 16;
    OK(llm_paged_cache_new(&params, &cache, &error));

    llm_sequence_t parent = 0, child = 0;
    size_t length = 9;
    float k[ROW], v[ROW], expected[ROW], q[2 * ROW], out[2 * ROW];
    OK(llm_paged_cache_create_sequence(cache, &parent, &error));
    fill(k, ROW, 0);
    FAILS(FAILED_PRECONDITION, llm_paged_cache_append_token(cache, parent, 1, k, k, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_paged_cache_append_token(cache, parent, LAYERS, k, k, &error));
    llm_error_free(error);
    for (int i = 0; i < 20; i++) append(cache, parent, i);
    OK(llm_paged_cache_sequence_length(cache, parent, &length, &error));
    CHECK(length == 20);

    /* A fork shares both pages; whoever writes first gets a copy of the last. */
    OK(llm_paged_cache_fork_sequence(cache, parent, &child, &error));
    llm_paged_cache_stats_t stats = stats_of(cache);
    CHECK(stats.pages_total == 4 && stats.pages_used == 2 && stats.pages_shared == 2 && stats.copies == 0);
    CHECK(stats.sequences == 2 && stats.positions == 40 && stats.forks == 1 && stats.utilisation == 0.5);
    append(cache, parent, 100);
    append(cache, child, 200);
    stats = stats_of(cache);
    CHECK(stats.pages_used == 3 && stats.pages_shared == 1 && stats.copies == 1);
    OK(llm_paged_cache_get_k(cache, parent, 1, 20, k, ROW, &error));
    fill(expected, ROW, 100);
    CHECK(memcmp(k, expected, sizeof k) == 0);
    OK(llm_paged_cache_get_v(cache, child, 0, 20, v, ROW, &error));
    fill(expected, ROW, 201);
    CHECK(memcmp(v, expected, sizeof v) == 0);
    FAILS(BUFFER_TOO_SMALL, llm_paged_cache_get_v(cache, child, 0, 20, v, ROW - 1, &error));
    llm_error_free(error);

    /* The only position of a window of one has all the weight: its value comes out, for both heads that share it. */
    llm_attention_params_t how;
    llm_attention_params_init(&how, sizeof how);
    how.num_heads = 2 * HEADS;
    how.window = 1;
    fill(q, 2 * ROW, 7);
    OK(llm_paged_cache_attention(cache, child, 0, q, 1, &how, out, 2 * ROW, &error));
    for (int head = 0; head < 2 * HEADS; head++)
        CHECK(memcmp(out + head * WIDTH, v + head / 2 * WIDTH, WIDTH * sizeof *v) == 0);
    how.num_heads = 3;
    FAILS(INVALID_ARGUMENT, llm_paged_cache_attention(cache, child, 0, q, 1, &how, out, 2 * ROW, &error));
    llm_error_free(error);

    /* No page is left for position 32 of one of the two: it stays as it was, and can go on when there is one. */
    for (int i = 21; i < 32; i++) append(cache, parent, i);
    append(cache, parent, 32);
    for (int i = 21; i < 32; i++) append(cache, child, i);
    fill(k, ROW, 0);
    FAILS(CACHE_FULL, llm_paged_cache_append_token(cache, child, 0, k, k, &error));
    llm_error_free(error);
    OK(llm_paged_cache_sequence_length(cache, child, &length, &error));
    CHECK(length == 32);
    OK(llm_paged_cache_truncate_sequence(cache, parent, 32, &error));
    append(cache, child, 32);
    FAILS(INVALID_ARGUMENT, llm_paged_cache_truncate_sequence(cache, child, 34, &error));
    llm_error_free(error);

    OK(llm_paged_cache_remove_sequence(cache, parent, &error));
    FAILS(NOT_FOUND, llm_paged_cache_remove_sequence(cache, parent, &error));
    CHECK(strcmp(llm_error_get(error, "sequence"), "1") == 0);
    llm_error_free(error);
    OK(llm_paged_cache_remove_sequence(cache, child, &error));
    stats = stats_of(cache);
    CHECK(stats.pages_used == 0 && stats.bytes == 0 && stats.pages_peak == 4);
    llm_paged_cache_t *second = llm_paged_cache_retain(cache);
    CHECK(second == cache);
    llm_paged_cache_free(cache);
    llm_paged_cache_free(second);
}

static llm_model_t *load(void)
{
    llm_model_t *model = NULL;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    return model;
}

/* The tokens that a session generates. */
static void generate(llm_session_t *session, llm_sampler_t *sampler, llm_token_t *tokens, uint32_t count)
{
    llm_generate_params_t params;
    llm_generate_params_init(&params, sizeof params);
    params.max_tokens = count;
    params.flags = LLM_GENERATE_IGNORE_EOG;
    OK(llm_session_start(session, sampler, &params, &error));
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    llm_view_t text;
    for (uint32_t i = 0; i < count; i++) OK(llm_session_next(session, &tokens[i], &text, &finish, &error));
    CHECK(finish == LLM_FINISH_LENGTH);
}

static void forks(void)
{
    enum { PROMPT = 40, MORE = 12 };
    llm_model_t *model = load();
    llm_paged_cache_t *cache = NULL;
    llm_paged_cache_params_t pages;
    llm_paged_cache_params_init(&pages, sizeof pages);
    pages.max_pages = 20;
    OK(llm_paged_cache_new_for_model(model, &pages, &cache, &error));
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.context_length = 64;
    llm_session_t *first = NULL, *fork = NULL, *second = NULL, *plain = NULL;
    OK(llm_session_new_in_pages(model, cache, &params, &first, &error));
    OK(llm_session_new_in_pages(model, cache, &params, &second, &error));
    OK(llm_session_new(model, &params, &plain, &error));
    llm_token_t prompt[PROMPT], a[MORE], b[MORE], c[MORE], d[MORE];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (llm_token_t)(70 + i);
    OK(llm_session_append_tokens(first, prompt, PROMPT, &error));
    OK(llm_session_append_tokens(plain, prompt, PROMPT, &error));
    OK(llm_session_append_tokens(second, prompt, PROMPT, &error));
    /* Two full pages of the prompt are known. */
    CHECK(stats_of(cache).prefix_hits == 2);
    OK(llm_session_fork(first, &fork, &error));
    llm_sampler_t *sampler = NULL;
    llm_sampler_params_t sampling;
    llm_sampler_params_init(&sampling, sizeof sampling);
    sampling.seed = 5;
    sampling.temperature = 2;
    OK(llm_sampler_new(&sampling, &sampler, &error));
    generate(first, sampler, a, MORE);
    generate(plain, sampler, b, MORE);
    generate(second, sampler, c, MORE);
    CHECK(memcmp(a, b, sizeof a) == 0 && memcmp(a, c, sizeof a) == 0);
    /* The fork stands where the first was, whatever that did since, and goes its own way. */
    size_t length = 0;
    OK(llm_session_length(fork, &length, &error));
    CHECK(length == PROMPT);
    generate(fork, NULL, d, MORE);
    CHECK(memcmp(a, d, sizeof a) != 0);
    OK(llm_session_reset(plain, &error));
    OK(llm_session_append_tokens(plain, prompt, PROMPT, &error));
    generate(plain, NULL, b, MORE);
    CHECK(memcmp(b, d, sizeof b) == 0);
    llm_sampler_free(sampler);
    /* In any order: sessions keep what they need. */
    llm_paged_cache_free(cache);
    llm_model_free(model);
    llm_session_free(first);
    generate(fork, NULL, d, MORE);
    llm_session_free(fork);
    llm_session_free(second);
    llm_session_free(plain);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"pages", pages},
        {"forks", forks},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
