/* Sessions in files, room in a full context, and guessed tokens, as a C program sees them. */
#include "check.h"
#include <unistd.h>

enum { PROMPT = 30, MORE = 12 };

static llm_model_t *load(void)
{
    llm_model_t *model = NULL;
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    return model;
}

static llm_session_t *session_of(const llm_model_t *model, llm_kv_type_t kv_type)
{
    llm_session_t *session = NULL;
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.context_length = 64;
    params.threads = 2;
    params.kv_type = kv_type;
    OK(llm_session_new(model, &params, &session, &error));
    return session;
}

static void append(llm_session_t *session)
{
    llm_token_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (llm_token_t)(60 + i * 7 % 11);
    OK(llm_session_append_tokens(session, prompt, PROMPT, &error));
}

static void generate(llm_session_t *session, llm_token_t tokens[MORE])
{
    llm_generate_params_t limits;
    llm_generate_params_init(&limits, sizeof limits);
    limits.flags = LLM_GENERATE_IGNORE_EOG;
    OK(llm_session_start(session, NULL, &limits, &error));
    for (int i = 0; i < MORE; i++) {
        llm_view_t text;
        llm_finish_reason_t finish;
        OK(llm_session_next(session, &tokens[i], &text, &finish, &error));
        CHECK(finish == LLM_FINISH_NONE);
    }
}

static void saving(void)
{
    llm_model_t *model = load();
    llm_session_t *first = session_of(model, LLM_KV_F16), *second = session_of(model, LLM_KV_F16);
    llm_session_t *other = session_of(model, LLM_KV_F32);
    llm_token_t a[MORE], b[MORE];
    char path[64];
    snprintf(path, sizeof path, "/tmp/llm-state-%ld", (long)getpid());
    append(first);
    FAILS(NOT_FOUND, llm_session_load(second, path, LLM_NUL_TERMINATED, &error));
    llm_error_free(error);
    OK(llm_session_save(first, path, LLM_NUL_TERMINATED, &error));
    generate(first, a);
    OK(llm_session_load(second, path, LLM_NUL_TERMINATED, &error));
    size_t length = 0;
    OK(llm_session_length(second, &length, &error));
    CHECK(length == PROMPT);
    generate(second, b);
    CHECK(memcmp(a, b, sizeof a) == 0);
    FAILS(FAILED_PRECONDITION, llm_session_load(other, path, LLM_NUL_TERMINATED, &error));
    CHECK(strstr(llm_error_message(error), "number type") != NULL && same(llm_error_get(error, "path"), path));
    llm_error_free(error);
    FAILS(CORRUPT_FILE, llm_session_load(other, file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &error));
    llm_error_free(error);
    FAILS(NOT_FOUND, llm_session_save(first, "/no/such/folder", LLM_NUL_TERMINATED, &error));
    llm_error_free(error);
    CHECK(unlink(path) == 0);
    llm_session_free(first);
    llm_session_free(second);
    llm_session_free(other);
    llm_model_free(model);
}

static void shifting(void)
{
    llm_model_t *model = load();
    llm_session_t *session = session_of(model, LLM_KV_F16);
    append(session);
    size_t dropped = 9, length = 0;
    FAILS(INVALID_ARGUMENT, llm_session_shift(session, PROMPT + 1, &dropped, &error));
    llm_error_free(error);
    CHECK(dropped == 9);
    OK(llm_session_shift(session, 6, &dropped, &error));
    OK(llm_session_length(session, &length, &error));
    CHECK(dropped == 12 && length == PROMPT - 12);
    llm_token_t tokens[MORE];
    generate(session, tokens);
    OK(llm_session_shift(session, 0, NULL, &error));
    OK(llm_session_length(session, &length, &error));
    CHECK(length == 15);
    llm_session_free(session);
    llm_model_free(model);
}

static void guessing(void)
{
    llm_model_t *model = load();
    llm_session_t *plain = session_of(model, LLM_KV_F16), *lookup = session_of(model, LLM_KV_F16);
    llm_session_t *draft = session_of(model, LLM_KV_F16);
    OK(llm_session_speculate_lookup(lookup, 3, &error));
    OK(llm_session_speculate_draft(draft, model, 0, &error));
    llm_token_t a[MORE], b[MORE], c[MORE];
    append(plain);
    append(lookup);
    append(draft);
    generate(plain, a);
    generate(lookup, b);
    generate(draft, c);
    CHECK(memcmp(a, b, sizeof a) == 0 && memcmp(a, c, sizeof a) == 0);
    llm_speculation_t stats = {.struct_size = sizeof stats};
    OK(llm_session_speculation(draft, &stats, &error));
    CHECK(stats.passes > 0 && stats.guessed == 4 * stats.passes && stats.accepted == stats.guessed);
    OK(llm_session_speculation(plain, &stats, &error));
    CHECK(stats.passes == 0 && stats.guessed == 0 && stats.accepted == 0);
    OK(llm_session_speculate_draft(draft, NULL, 0, &error));
    OK(llm_session_speculation(draft, &stats, &error));
    CHECK(stats.passes == 0);
    llm_session_free(plain);
    llm_session_free(lookup);
    llm_session_free(draft);
    llm_model_free(model);
}

static void beams(void)
{
    llm_model_t *model = load();
    llm_session_t *session = session_of(model, LLM_KV_F16);
    llm_beams_t *beams = NULL;
    llm_beam_params_t params;
    llm_beam_params_init(&params, sizeof params);
    CHECK(params.struct_size == sizeof params && params.width == 4 && params.length_penalty == 1);
    FAILS(FAILED_PRECONDITION, llm_session_beam_search(session, NULL, &beams, &error));
    llm_error_free(error);
    append(session);
    params.width = 0;
    FAILS(INVALID_ARGUMENT, llm_session_beam_search(session, &params, &beams, &error));
    llm_error_free(error);
    params.width = 3;
    params.max_tokens = 6;
    params.flags = LLM_GENERATE_IGNORE_EOG;
    OK(llm_session_beam_search(session, &params, &beams, &error));
    CHECK(llm_beams_count(beams) == 3);
    double last = 0;
    for (size_t i = 0; i < 3; i++) {
        llm_beam_t beam = {.struct_size = sizeof beam};
        OK(llm_beams_get(beams, i, &beam, &error));
        CHECK(beam.token_count == 6 && beam.tokens[5] < 300 && beam.finish_reason == LLM_FINISH_LENGTH);
        CHECK(beam.text.size > 0 && beam.logprob < 0 && beam.score == beam.logprob / 6 && (i == 0 || beam.score <= last));
        last = beam.score;
    }
    llm_beam_t beam = {.struct_size = sizeof beam};
    FAILS(NOT_FOUND, llm_beams_get(beams, 3, &beam, &error));
    llm_error_free(error);
    llm_beams_free(beams);
    llm_session_free(session);
    llm_model_free(model);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"saving", saving},
        {"shifting", shifting},
        {"guessing", guessing},
        {"beams", beams},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
