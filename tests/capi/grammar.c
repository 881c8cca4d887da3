/* Constrained output as a C program sees it. */
#include "check.h"

static llm_model_t *model;
static llm_tokenizer_t *tokenizer;
static llm_session_t *session;

static void load(void)
{
    OK(llm_model_load(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, NULL, NULL, &model, &error));
    OK(llm_model_tokenizer(model, &tokenizer, &error));
    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.context_length = 256;
    OK(llm_session_new(model, &params, &session, &error));
    const llm_token_t prompt[] = {60, 70, 65};
    OK(llm_session_append_tokens(session, prompt, 3, &error));
}

static void unload(void)
{
    llm_session_free(session);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
}

static llm_grammar_t *grammar_of(llm_grammar_syntax_t syntax, const char *text)
{
    llm_grammar_t *grammar = NULL;
    OK(llm_grammar_new(tokenizer, syntax, text, LLM_NUL_TERMINATED, &grammar, &error));
    return grammar;
}

/* The text of a generation, good until the next call, and why it ended. */
static const char *generate(llm_finish_reason_t *finish)
{
    static char text[4096];
    size_t size = 0;
    OK(llm_session_start(session, NULL, NULL, &error));
    *finish = LLM_FINISH_NONE;
    while (*finish == LLM_FINISH_NONE) {
        llm_token_t token;
        llm_view_t view;
        OK(llm_session_next(session, &token, &view, finish, &error));
        CHECK(size + view.size < sizeof text);
        memcpy(text + size, view.data, view.size);
        size += view.size;
    }
    text[size] = '\0';
    return text;
}

static void constraining(void)
{
    load();
    llm_finish_reason_t finish;
    /* What the session uses it keeps. */
    llm_grammar_t *grammar = grammar_of(LLM_GRAMMAR_REGEX, "(cat|dog) [0-9]{3}");
    OK(llm_session_set_grammar(session, grammar, &error));
    CHECK(llm_grammar_retain(grammar) == grammar);
    llm_grammar_free(grammar);
    llm_grammar_free(grammar);
    const char *text = generate(&finish);
    CHECK(finish == LLM_FINISH_GRAMMAR && strlen(text) == 7 && text[3] == ' ');
    CHECK(memcmp(text, "cat", 3) == 0 || memcmp(text, "dog", 3) == 0);
    CHECK(strspn(text + 4, "0123456789") == 3);

    grammar = grammar_of(LLM_GRAMMAR_JSON_SCHEMA, "{\"type\": \"array\", \"items\": {\"enum\": [true, null]}, "
                                                  "\"minItems\": 2, \"maxItems\": 2}");
    OK(llm_session_set_grammar(session, grammar, &error));
    llm_grammar_free(grammar);
    text = generate(&finish);
    CHECK(finish == LLM_FINISH_GRAMMAR && (same(text, "[true, true]") || same(text, "[true, null]") ||
                                           same(text, "[null, true]") || same(text, "[null, null]")));

    grammar = grammar_of(LLM_GRAMMAR_LARK, "start: pair \";\"\npair: /[xy]/ | \"(\" pair \",\" /[xy]/ \")\"");
    OK(llm_session_set_grammar(session, grammar, &error));
    llm_grammar_free(grammar);
    text = generate(&finish);
    CHECK(finish == LLM_FINISH_GRAMMAR || finish == LLM_FINISH_CONTEXT_FULL);
    CHECK(strspn(text, "(),xy;") == strlen(text) && (text[0] == '(' || text[1] == ';'));

    OK(llm_session_set_grammar(session, NULL, &error));
    unload();
}

static void refusing(void)
{
    load();
    llm_grammar_t *grammar = NULL;
    FAILS(INVALID_ARGUMENT, llm_grammar_new(tokenizer, 0, "a", 1, &grammar, &error));
    CHECK(strstr(llm_error_message(error), "syntax") != NULL);
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_grammar_new(tokenizer, LLM_GRAMMAR_REGEX, "a\xff", 2, &grammar, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_grammar_new(tokenizer, LLM_GRAMMAR_JSON_SCHEMA, "{\"type\": 3}", LLM_NUL_TERMINATED,
                                            &grammar, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_grammar_new(tokenizer, LLM_GRAMMAR_LARK, "start: missing", LLM_NUL_TERMINATED, &grammar,
                                            &error));
    CHECK(strstr(llm_error_message(error), "missing") != NULL);
    llm_error_free(error);
    CHECK(grammar == NULL);
    unload();
}

/* A number as a JSON value, in each of the continuations. */
static void requesting(void)
{
    load();
    llm_grammar_t *grammar = grammar_of(LLM_GRAMMAR_JSON_SCHEMA, "{\"type\": \"integer\", \"minimum\": 10, \"maximum\": 99}");
    llm_engine_t *engine = NULL;
    llm_request_t *request = NULL;
    llm_events_t *events = NULL;
    llm_request_id_t id;
    OK(llm_engine_new(model, NULL, &engine, &error));
    OK(llm_request_new(&request, &error));
    OK(llm_events_new(&events, &error));
    llm_request_params_t params;
    llm_request_params_init(&params, sizeof params);
    params.count = 3;
    OK(llm_request_set_params(request, &params, &error));
    OK(llm_request_set_text(request, tokenizer, "A number:", LLM_NUL_TERMINATED, 0, &error));
    OK(llm_request_set_grammar(request, grammar, &error));
    OK(llm_engine_submit(engine, request, &id, &error));
    llm_request_free(request);
    llm_grammar_free(grammar);
    char texts[3][8] = {"", "", ""};
    int ended = 0;
    for (bool more = true; more;) {
        OK(llm_engine_wait(engine, UINT64_MAX, events, &more, &error));
        for (size_t i = 0; i < llm_events_count(events); i++) {
            llm_event_t event = {.struct_size = sizeof event};
            OK(llm_events_get(events, i, &event, &error));
            CHECK(event.status == LLM_STATUS_OK && event.index < 3);
            strncat(texts[event.index], event.text.data, event.text.size < 4 ? event.text.size : 4);
            if (event.finish_reason != LLM_FINISH_NONE) {
                CHECK(event.finish_reason == LLM_FINISH_GRAMMAR);
                ended++;
            }
        }
    }
    CHECK(ended == 3);
    for (int i = 0; i < 3; i++) CHECK(strlen(texts[i]) == 2 && strspn(texts[i], "0123456789") == 2 && texts[i][0] != '0');
    llm_events_free(events);
    llm_engine_free(engine);
    unload();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"constraining", constraining},
        {"refusing", refusing},
        {"requesting", requesting},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
