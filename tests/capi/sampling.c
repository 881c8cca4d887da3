/* Every step of a sampler's chain, callbacks, and log probabilities, as a C program sees them. */
#include "check.h"
#include <math.h>
#include <stddef.h>

#define TEXT(text) (text), LLM_NUL_TERMINATED

static llm_sampler_t *empty(void)
{
    llm_sampler_t *sampler = NULL;
    OK(llm_sampler_new_empty(3, &sampler, &error));
    return sampler;
}

static llm_token_t draw(llm_sampler_t *sampler, const float *logits, size_t count)
{
    llm_token_t token = LLM_TOKEN_NONE;
    OK(llm_sampler_sample(sampler, logits, count, &token, &error));
    return token;
}

/* The most probable token after the steps of the sampler, which is freed. */
static llm_token_t best(llm_sampler_t *sampler, const float *logits, size_t count)
{
    OK(llm_sampler_add_greedy(sampler, &error));
    llm_token_t token = draw(sampler, logits, count);
    llm_sampler_free(sampler);
    return token;
}

/* Whether 200 draws give each of the first `kept` tokens and no other. */
static bool draws_only(llm_sampler_t *sampler, const float *logits, size_t count, size_t kept)
{
    unsigned seen = 0;
    for (int i = 0; i < 200; i++) seen |= 1u << draw(sampler, logits, count);
    llm_sampler_free(sampler);
    return seen == (1u << kept) - 1;
}

static void steps(void)
{
    const float flat[8] = {1, 1, 1, 1, 1, 1, 1, 1}, falling[8] = {3, 2.8f, 2.6f, -2, -9, -9, -9, -9};
    llm_sampler_t *sampler = empty();
    CHECK(draws_only(sampler, flat, 8, 8));

    sampler = empty();
    OK(llm_sampler_add_typical(sampler, 0.45f, 1, &error));
    CHECK(draws_only(sampler, flat, 8, 4));
    sampler = empty();
    OK(llm_sampler_add_tail_free(sampler, 0.6f, 1, false, &error));
    CHECK(draws_only(sampler, falling, 8, 2));
    sampler = empty();
    OK(llm_sampler_add_tail_free(sampler, 0.6f, 1, true, &error));
    CHECK(draws_only(sampler, falling, 8, 3));
    sampler = empty();
    OK(llm_sampler_add_top_n_sigma(sampler, 0.5f, &error));
    CHECK(draws_only(sampler, falling, 8, 3));
    sampler = empty();
    OK(llm_sampler_add_dynamic_temperature(sampler, 0.01f, 0.01f, 1, &error));
    CHECK(draws_only(sampler, falling, 8, 1));
    sampler = empty();
    OK(llm_sampler_add_mirostat_v2(sampler, 0.5f, 0, &error));
    CHECK(draws_only(sampler, falling, 8, 1));
    sampler = empty();
    OK(llm_sampler_add_mirostat(sampler, 0.5f, 0, 100, &error));
    CHECK(draws_only(sampler, falling, 8, 1));

    sampler = empty();
    OK(llm_sampler_add_xtc(sampler, 1, 0.1f, 1, &error));
    CHECK(best(sampler, falling, 8) == 2);
    sampler = empty();
    OK(llm_sampler_add_xtc(sampler, 1, 0.1f, 7, &error));
    CHECK(best(sampler, falling, 8) == 0);

    sampler = empty();
    OK(llm_sampler_add_penalties(sampler, 1, 0.15f, 0.1f, 2, &error));
    OK(llm_sampler_accept(sampler, 1, &error)); /* too long ago */
    OK(llm_sampler_accept(sampler, 0, &error));
    OK(llm_sampler_accept(sampler, 0, &error));
    CHECK(best(sampler, falling, 8) == 1);
}

static void bad_parameters(void)
{
    llm_sampler_t *sampler = empty();
    const llm_token_t token = 1;
    const float value = INFINITY;
#define REFUSED(name, call)                                                                                            \
    do {                                                                                                               \
        FAILS(INVALID_ARGUMENT, call);                                                                                 \
        CHECK(same(llm_error_get(error, "parameter"), name));                                                          \
        CHECK(llm_error_get(error, "expected") && llm_error_get(error, "found"));                                      \
        llm_error_free(error);                                                                                         \
    } while (0)
    REFUSED("typical_p", llm_sampler_add_typical(sampler, 1.5f, 1, &error));
    REFUSED("tail_free_z", llm_sampler_add_tail_free(sampler, NAN, 1, false, &error));
    REFUSED("top_n_sigma", llm_sampler_add_top_n_sigma(sampler, -1, &error));
    REFUSED("temperature_range", llm_sampler_add_dynamic_temperature(sampler, 1, -1, 1, &error));
    REFUSED("temperature_exponent", llm_sampler_add_dynamic_temperature(sampler, 1, 1, NAN, &error));
    REFUSED("xtc_probability", llm_sampler_add_xtc(sampler, -1, 0.1f, 1, &error));
    REFUSED("xtc_threshold", llm_sampler_add_xtc(sampler, 1, 2, 1, &error));
    REFUSED("mirostat_tau", llm_sampler_add_mirostat(sampler, NAN, 0.1f, 100, &error));
    REFUSED("mirostat_eta", llm_sampler_add_mirostat_v2(sampler, 5, -1, &error));
    REFUSED("frequency_penalty", llm_sampler_add_penalties(sampler, 1, NAN, 0, 8, &error));
    REFUSED("presence_penalty", llm_sampler_add_penalties(sampler, 1, 0, INFINITY, 8, &error));
    REFUSED("repeat_penalty", llm_sampler_add_penalties(sampler, 0, 0, 0, 8, &error));
    REFUSED("dry_multiplier", llm_sampler_add_dry(sampler, -1, 1.75f, 2, 64, NULL, 0, &error));
    REFUSED("dry_base", llm_sampler_add_dry(sampler, 1, NAN, 2, 64, NULL, 0, &error));
    REFUSED("logit_bias", llm_sampler_add_logit_bias(sampler, &token, &value, 1, &error));
    llm_sampler_free(sampler);

    llm_sampler_params_t params;
    llm_sampler_params_init(&params, sizeof params);
    CHECK(params.typical_p == 1 && params.dry_multiplier == 0 && params.mirostat == 0 && params.xtc_probability == 0);
    params.mirostat = 3;
    REFUSED("mirostat", llm_sampler_new(&params, &sampler, &error));
    params.mirostat = 2;
    params.dry_base = NAN;
    REFUSED("dry_base", llm_sampler_new(&params, &sampler, &error));
    params.dry_base = 1.75f;
    params.reserved = 1;
    FAILS(UNSUPPORTED, llm_sampler_new(&params, &sampler, &error));
    llm_error_free(error);
}

/* Each optional parameter of the usual chain does what its step does. */
static void usual_chain(void)
{
    const float logits[4] = {3, 2.9f, 2.8f, -9};
    llm_sampler_params_t off, params;
    llm_sampler_params_init(&off, sizeof off);
    off.temperature = 0;
    llm_sampler_t *sampler = NULL;
    for (int presence = 0; presence < 2; presence++) {
        params = off;
        *(presence ? &params.presence_penalty : &params.frequency_penalty) = 0.15f;
        OK(llm_sampler_new(&params, &sampler, &error));
        OK(llm_sampler_accept(sampler, 0, &error));
        CHECK(draw(sampler, logits, 4) == 1);
        OK(llm_sampler_accept(sampler, 0, &error));
        OK(llm_sampler_accept(sampler, 1, &error));
        CHECK(draw(sampler, logits, 4) == (presence ? 0u : 2u)); /* 2.85 or 2.7, 2.75, 2.8 */
        llm_sampler_free(sampler);
    }
    params = off;
    params.dry_multiplier = 0.5f;
    OK(llm_sampler_new(&params, &sampler, &error));
    for (llm_token_t token = 0; token < 9; token++) OK(llm_sampler_accept(sampler, token % 3, &error));
    CHECK(draw(sampler, logits, 4) == 1); /* 0 would go on with what was repeated */
    llm_sampler_free(sampler);
    params = off;
    params.xtc_probability = 1;
    OK(llm_sampler_new(&params, &sampler, &error));
    CHECK(draw(sampler, logits, 4) == 2);
    llm_sampler_free(sampler);

    /* Warm enough that only truncation keeps draws from the last; each does it alone. */
    off.temperature = 20;
    off.top_p = 1;
    off.min_p = 0;
    OK(llm_sampler_new(&off, &sampler, &error));
    CHECK(draws_only(sampler, logits, 4, 4));
    params = off;
    params.typical_p = 0.9f;
    OK(llm_sampler_new(&params, &sampler, &error));
    CHECK(draws_only(sampler, logits, 4, 3));
    params = off;
    params.top_n_sigma = 1;
    OK(llm_sampler_new(&params, &sampler, &error));
    CHECK(draws_only(sampler, logits, 4, 3));
    params = off;
    params.temperature = params.temperature_range = 0.01f;
    OK(llm_sampler_new(&params, &sampler, &error));
    CHECK(draws_only(sampler, logits, 4, 1));
    for (params = off, params.mirostat = 1; params.mirostat <= 2; params.mirostat++) {
        params.mirostat_tau = 0.5f;
        params.mirostat_eta = 0;
        params.temperature = 1;
        OK(llm_sampler_new(&params, &sampler, &error));
        CHECK(draws_only(sampler, logits, 4, 1));
    }

    /* Who was compiled before these parameters has them off. */
    llm_sampler_params_t old;
    memset(&old, 0xff, sizeof old);
    llm_sampler_params_init(&old, offsetof(llm_sampler_params_t, frequency_penalty));
    old.temperature = 0;
    OK(llm_sampler_new(&old, &sampler, &error));
    CHECK(draw(sampler, logits, 4) == 0);
    llm_sampler_free(sampler);
}

static void token_lists(void)
{
    const float logits[16] = {1, 9, 8, 2, 1, 0, 3, 1, 0, 0, 15, 14, 13, 12, 0, 0};
    const llm_token_t few[] = {1, 2}, all[] = {0, 1, 2, 3};
    const float values[] = {-INFINITY, -7}, more[] = {-3, -3};
    llm_sampler_t *sampler = empty();
    OK(llm_sampler_add_logit_bias(sampler, few, values, 2, &error));
    CHECK(best(sampler, logits, 4) == 3);
    sampler = empty();
    OK(llm_sampler_add_logit_bias(sampler, few, more, 2, &error));
    CHECK(best(sampler, logits, 4) == 1);
    sampler = empty();
    OK(llm_sampler_add_banned_tokens(sampler, few, 2, &error));
    CHECK(best(sampler, logits, 4) == 3);
    sampler = empty();
    OK(llm_sampler_add_banned_tokens(sampler, all, 4, &error));
    CHECK(best(sampler, logits, 4) == 1);

    /* 5 6 1 5 6: 1 would repeat two tokens, unless one of them is, or ends, a breaker. */
    const llm_token_t history[] = {5, 6, 1, 5, 6};
    const llm_token_t breakers[3][4] = {
        {7, LLM_TOKEN_NONE, 6, 5}, {7, LLM_TOKEN_NONE, 5, 6}, {LLM_TOKEN_NONE, LLM_TOKEN_NONE, 1, LLM_TOKEN_NONE}};
    const llm_token_t expected[] = {2, 1, 1};
    for (int i = 0; i < 3; i++) {
        sampler = empty();
        OK(llm_sampler_add_dry(sampler, 3, 1.75f, 2, 64, breakers[i], 4, &error));
        for (int j = 0; j < 5; j++) OK(llm_sampler_accept(sampler, history[j], &error));
        CHECK(best(sampler, logits, 8) == expected[i]);
    }

    /* A vocabulary that has tokens for filling in; the one for padding ends a generation too. */
    llm_gguf_t *gguf = NULL, *with = NULL;
    llm_gguf_writer_t *keys = NULL;
    llm_model_t *model = NULL;
    llm_tokenizer_t *tokenizer = NULL;
    OK(llm_gguf_open(TEXT(file("ok-tiny-model.gguf")), &gguf, &error));
    OK(llm_gguf_writer_new(&keys, &error));
    OK(llm_gguf_writer_set_u32(keys, TEXT("tokenizer.ggml.fim_pre_token_id"), 10, &error));
    OK(llm_gguf_writer_set_u32(keys, TEXT("tokenizer.ggml.fim_suf_token_id"), 11, &error));
    OK(llm_gguf_writer_set_u32(keys, TEXT("tokenizer.ggml.fim_mid_token_id"), 12, &error));
    OK(llm_gguf_writer_set_u32(keys, TEXT("tokenizer.ggml.fim_pad_token_id"), 13, &error));
    OK(llm_gguf_with_keys(gguf, keys, &with, &error));
    OK(llm_model_load_gguf(with, NULL, NULL, &model, &error));
    OK(llm_model_tokenizer(model, &tokenizer, &error));
    CHECK(llm_tokenizer_is_eog(tokenizer, 13) && !llm_tokenizer_is_eog(tokenizer, 12));
    sampler = empty();
    OK(llm_sampler_add_infill_bans(sampler, tokenizer, &error));
    CHECK(best(sampler, logits, 16) == 13);

    /* Breakers as texts. */
    llm_token_t ab[8];
    size_t count = 0;
    OK(llm_tokenizer_encode(tokenizer, TEXT("ab"), 0, ab, 8, &count, &error));
    CHECK(count > 0);
    for (int broken = 0; broken < 2; broken++) {
        sampler = empty();
        const char texts[] = "\n\0ab";
        OK(llm_sampler_add_dry_texts(sampler, tokenizer, 3, 1.75f, 1, 64, texts, broken ? sizeof texts : 2, &error));
        for (size_t i = 0; i < count; i++) OK(llm_sampler_accept(sampler, ab[i], &error));
        OK(llm_sampler_accept(sampler, 1, &error));
        for (size_t i = 0; i < count; i++) OK(llm_sampler_accept(sampler, ab[i], &error));
        CHECK(best(sampler, logits, 4) == (broken ? 1u : 2u));
    }
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    llm_gguf_writer_free(keys);
    llm_gguf_free(with);
    llm_gguf_free(gguf);
}

static int calls, drops;

static void prefer(llm_candidate_t *candidates, size_t count, void *user_data)
{
    calls++;
    for (size_t i = 0; i < count; i++) {
        if (candidates[i].token == *(const llm_token_t *)user_data) candidates[i].logit = 100;
        if (candidates[i].token == 0) candidates[i].logit = NAN;
    }
}

static void dropped(void *user_data)
{
    (void)user_data;
    drops++;
}

static llm_session_t *prompted(llm_model_t *model)
{
    llm_session_t *session = NULL;
    const llm_token_t prompt[] = {70, 71, 72};
    OK(llm_session_new(model, NULL, &session, &error));
    OK(llm_session_append_tokens(session, prompt, 3, &error));
    return session;
}

static void callbacks_and_logprobs(void)
{
    llm_token_t favourite = 123, token = 0;
    llm_sampler_t *sampler = empty();
    FAILS(INVALID_ARGUMENT, llm_sampler_add_callback(sampler, NULL, &favourite, dropped, &error));
    llm_error_free(error);
    CHECK(drops == 0);
    OK(llm_sampler_add_callback(sampler, prefer, &favourite, dropped, &error));
    OK(llm_sampler_add_greedy(sampler, &error));
    const float logits[] = {9, 1, 2};
    CHECK(draw(sampler, logits, 3) == 2 && calls == 1);

    /* A callback goes where the sampler goes; its data is given back with the last chain that has it. */
    llm_model_t *model = NULL;
    OK(llm_model_load(TEXT(file("ok-tiny-model.gguf")), NULL, NULL, &model, &error));
    llm_session_t *session = prompted(model);
    llm_logprob_t chosen, top[4];
    FAILS(FAILED_PRECONDITION, llm_session_logprobs(session, &chosen, top, 4, &error));
    llm_error_free(error);
    OK(llm_session_start(session, sampler, NULL, &error));
    llm_sampler_free(sampler);
    llm_view_t text;
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    OK(llm_session_next(session, &token, &text, &finish, &error));
    CHECK(token == favourite && calls == 2 && drops == 0);
    OK(llm_session_logprobs(session, &chosen, top, 4, &error));

    /* By definition: the softmax of the logits that another session computes. */
    llm_session_t *other = prompted(model);
    llm_model_info_t info;
    info.struct_size = sizeof info;
    OK(llm_model_info(model, &info, &error));
    float *of_model = malloc((size_t)info.vocab_size * sizeof *of_model);
    CHECK(of_model);
    OK(llm_session_logits(other, of_model, (size_t)info.vocab_size, &error));
    double total = 0;
    size_t best_token = 0;
    for (size_t i = 0; i < info.vocab_size; i++) {
        total += exp(of_model[i]);
        if (of_model[i] > of_model[best_token]) best_token = i;
    }
    CHECK(chosen.token == favourite && fabs(chosen.logprob - (of_model[favourite] - log(total))) < 1e-4);
    CHECK(top[0].token == best_token && fabs(top[0].logprob - (of_model[best_token] - log(total))) < 1e-4);
    for (int i = 0; i < 3; i++) CHECK(top[i].logprob >= top[i + 1].logprob && top[i].token != top[i + 1].token);
    OK(llm_session_logprobs(session, &chosen, NULL, 0, &error));
    FAILS(INVALID_ARGUMENT, llm_session_logprobs(session, &chosen, top, (size_t)info.vocab_size + 1, &error));
    llm_error_free(error);

    /* What was computed since has other logits. */
    OK(llm_session_logits(session, of_model, (size_t)info.vocab_size, &error));
    FAILS(FAILED_PRECONDITION, llm_session_logprobs(session, &chosen, top, 4, &error));
    llm_error_free(error);
    OK(llm_session_next(session, &token, &text, &finish, &error));
    OK(llm_session_logprobs(session, &chosen, top, 1, &error));
    OK(llm_session_truncate(session, 2, &error));
    FAILS(FAILED_PRECONDITION, llm_session_logprobs(session, &chosen, top, 1, &error));
    llm_error_free(error);
    free(of_model);
    llm_session_free(other);
    llm_session_free(session);
    CHECK(drops == 1);
    llm_model_free(model);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"steps", steps},
        {"bad_parameters", bad_parameters},
        {"usual_chain", usual_chain},
        {"token_lists", token_lists},
        {"callbacks_and_logprobs", callbacks_and_logprobs},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
