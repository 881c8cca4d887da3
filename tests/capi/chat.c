/* Conversations, as a C program sees them. */
#include "check.h"

#define TEXT(text) text, LLM_NUL_TERMINATED

static const char TEMPLATE[] =
    "{% for m in messages %}{% if m.role == 'stop' %}{{ raise_exception('no ' ~ m.role) }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.id }}:{{ c.function.arguments.x }}{% endfor %}"
    "{% endfor %}{{ loudness or '' }}{% for t in tools or [] %}({{ t.function.name }}){% endfor %}"
    "{{ '[assistant]' if add_generation_prompt }}{{ strftime_now('%Y') if with_year else '' }}";

static llm_model_t *model;
static llm_tokenizer_t *tokenizer;

static void load(void)
{
    OK(llm_model_load(TEXT(file("ok-tiny-model.gguf")), NULL, NULL, &model, &error));
    OK(llm_model_tokenizer(model, &tokenizer, &error));
}

static void unload(void)
{
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
}

static bool bytes_are(llm_bytes_t *bytes, const char *expected)
{
    bool equal = same(llm_bytes_data(bytes), expected) && llm_bytes_size(bytes) == strlen(expected);
    if (!equal)
        printf("%s\n", llm_bytes_data(bytes));
    llm_bytes_free(bytes);
    return equal;
}

static bool renders(llm_messages_t *messages, uint32_t flags, const char *expected)
{
    llm_bytes_t *text = NULL;
    OK(llm_messages_render(messages, tokenizer, flags, &text, &error));
    return bytes_are(text, expected);
}

static void messages(void)
{
    load();
    llm_messages_t *messages = NULL;
    llm_bytes_t *text = NULL;
    size_t count = 9;
    OK(llm_messages_new(&messages, &error));
    OK(llm_messages_add(messages, TEXT("user"), "Hello, you", 5, &error));
    size_t most = (size_t)32 << 20;
    char *large = malloc(most + 1);
    CHECK(large != NULL);
    memset(large, 'a', most + 1);
    FAILS(INVALID_ARGUMENT, llm_messages_add(messages, TEXT("user"), large, most + 1, &error));
    llm_error_free(error);
    free(large);
    /* The file has no template. */
    FAILS(NOT_FOUND, llm_messages_render(messages, tokenizer, 0, &text, &error));
    CHECK(same(llm_error_get(error, "key"), "tokenizer.chat_template"));
    llm_error_free(error);
    llm_view_t view = {NULL, 0};
    FAILS(NOT_FOUND, llm_tokenizer_chat_template(tokenizer, NULL, 0, &view, &error));
    llm_error_free(error);

    OK(llm_messages_set_template(messages, TEXT(TEMPLATE), &error));
    CHECK(renders(messages, 0, "[user]Hello"));
    CHECK(renders(messages, LLM_MESSAGES_ANSWER, "[user]Hello[assistant]"));
    FAILS(UNSUPPORTED, llm_messages_render(messages, tokenizer, 6, &text, &error));
    llm_error_free(error);

    OK(llm_messages_set_tools(messages, TEXT("[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]"), &error));
    OK(llm_messages_set_variable(messages, TEXT("loudness"), TEXT("11"), &error));
    CHECK(renders(messages, 0, "[user]Hello11(f)"));
    FAILS(INVALID_ARGUMENT, llm_messages_set_tools(messages, TEXT("{}"), &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_messages_set_variable(messages, TEXT("tools"), TEXT("1"), &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_messages_set_variable(messages, TEXT("x"), TEXT("nonsense"), &error));
    llm_error_free(error);
    OK(llm_messages_set_variable(messages, TEXT("loudness"), TEXT("null"), &error));
    OK(llm_messages_set_tools(messages, TEXT("[]"), &error));

    /* An answer with a call, and its result. */
    OK(llm_messages_add_answer(messages, TEXT("<think>hm</think>Yes<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool_call>"),
                               &error));
    OK(llm_messages_add_json(messages, TEXT("{\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"7\"}]}"), &error));
    CHECK(renders(messages, 0, "[user]Hello[assistant]Yescall00001:1[tool]7"));
    OK(llm_messages_get(messages, 1, &text, &error));
    CHECK(bytes_are(text, "{\"role\":\"assistant\",\"content\":\"Yes\",\"reasoning_content\":\"hm\",\"tool_calls\":[{\"id\":\"call00001\","
                          "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]}"));
    FAILS(NOT_FOUND, llm_messages_get(messages, 3, &text, &error));
    llm_error_free(error);
    OK(llm_messages_count(messages, &count, &error));
    CHECK(count == 3);
    FAILS(INVALID_ARGUMENT, llm_messages_truncate(messages, 4, &error));
    llm_error_free(error);

    /* What is no message. */
    static const char *const wrong[] = {"nonsense", "1", "{}", "{\"role\": 1}", "{\"role\": \"user\", \"content\": 1}",
                                        "{\"role\": \"assistant\", \"tool_calls\": [1]}", "[{\"role\": \"user\"}, {}]"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        FAILS(INVALID_ARGUMENT, llm_messages_add_json(messages, TEXT(wrong[i]), &error));
        llm_error_free(error);
    }
    OK(llm_messages_count(messages, &count, &error));
    CHECK(count == 3);
    OK(llm_messages_truncate(messages, 1, &error));
    CHECK(renders(messages, 0, "[user]Hello"));

    /* Time stands still if it is set. */
    OK(llm_messages_set_variable(messages, TEXT("with_year"), TEXT("true"), &error));
    OK(llm_messages_set_time(messages, 86400, &error));
    CHECK(renders(messages, 0, "[user]Hello1970"));
    OK(llm_messages_set_time(messages, INT64_MIN, &error));
    OK(llm_messages_render(messages, tokenizer, 0, &text, &error));
    CHECK(!same(llm_bytes_data(text), "[user]Hello1970"));
    llm_bytes_free(text);

    OK(llm_messages_add(messages, TEXT("stop"), NULL, 0, &error));
    FAILS(INVALID_ARGUMENT, llm_messages_render(messages, tokenizer, 0, &text, &error));
    CHECK(same(llm_error_get(error, "exception"), "no stop"));
    llm_error_free(error);
    OK(llm_messages_set_template(messages, TEXT("{% for %}"), &error));
    FAILS(INVALID_ARGUMENT, llm_messages_render(messages, tokenizer, 0, &text, &error));
    CHECK(same(llm_error_get(error, "line"), "1"));
    llm_error_free(error);
    llm_messages_free(messages);

    /* A model that fills in no gaps. */
    llm_token_t tokens[4];
    FAILS(UNSUPPORTED, llm_tokenizer_fill_in(tokenizer, TEXT("a"), TEXT("b"), tokens, 4, &count, &error));
    CHECK(same(llm_error_get(error, "token"), "fill-prefix"));
    llm_error_free(error);
    unload();
}

static bool go_on(llm_token_t token, const char *text, size_t size, void *user_data)
{
    (void)token;
    (void)text;
    (void)size;
    return --*(int *)user_data > 0;
}

static void conversing(void)
{
    load();
    llm_messages_t *messages = NULL;
    llm_session_t *session = NULL;
    size_t first = 0, second = 0, length = 0;
    OK(llm_messages_new(&messages, &error));
    OK(llm_messages_set_template(messages, TEXT(TEMPLATE), &error));
    OK(llm_session_new(model, NULL, &session, &error));
    OK(llm_messages_add(messages, TEXT("user"), TEXT("abc"), &error));
    OK(llm_session_append_messages(session, messages, LLM_MESSAGES_ANSWER, &first, &error));
    OK(llm_session_length(session, &length, &error));
    CHECK(first == length && length > 0);
    /* Again: all is there. */
    OK(llm_session_append_messages(session, messages, LLM_MESSAGES_ANSWER, &second, &error));
    OK(llm_session_length(session, &length, &error));
    CHECK(second == 0 && length == first);

    int tokens = 3;
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    OK(llm_session_generate(session, go_on, &tokens, &finish, &error));
    OK(llm_session_answer(session, messages, &error));
    size_t count = 0;
    OK(llm_messages_count(messages, &count, &error));
    CHECK(count == 2);
    OK(llm_messages_add(messages, TEXT("user"), TEXT("d"), &error));
    OK(llm_session_append_messages(session, messages, LLM_MESSAGES_ANSWER, &second, &error));
    OK(llm_session_length(session, &length, &error));
    CHECK(second > 0 && second + first <= length); /* the prompt was not processed again */

    /* A request of an engine begins with the same tokens. */
    llm_tokenizer_t *tokenizer = NULL;
    llm_request_t *request = NULL;
    llm_engine_t *engine = NULL;
    llm_events_t *events = NULL;
    llm_request_id_t id = 0;
    OK(llm_model_tokenizer(model, &tokenizer, &error));
    OK(llm_request_new(&request, &error));
    OK(llm_request_set_messages(request, tokenizer, messages, LLM_MESSAGES_ANSWER, &count, &error));
    CHECK(count == length);
    OK(llm_session_start(session, NULL, NULL, &error));
    OK(llm_engine_new(model, NULL, &engine, &error));
    OK(llm_events_new(&events, &error));
    OK(llm_engine_submit(engine, request, &id, &error));
    for (int i = 0; i < 3; i++) {
        llm_event_t event = {.struct_size = sizeof event};
        llm_token_t token = LLM_TOKEN_NONE;
        llm_view_t part;
        OK(llm_engine_wait(engine, UINT64_MAX, events, NULL, &error));
        OK(llm_events_get(events, 0, &event, &error));
        OK(llm_session_next(session, &token, &part, &finish, &error));
        CHECK(token == event.token && finish == event.finish_reason);
        if (finish != LLM_FINISH_NONE) break;
    }
    llm_events_free(events);
    llm_engine_free(engine);
    llm_request_free(request);
    llm_tokenizer_free(tokenizer);
    OK(llm_session_length(session, &length, &error));

    /* A long one does not fit, and changes nothing. */
    size_t size = 1 << 20;
    char *text = malloc(size);
    CHECK(text != NULL);
    memset(text, 'x', size);
    OK(llm_messages_add(messages, TEXT("user"), text, size, &error));
    free(text);
    FAILS(CACHE_FULL, llm_session_append_messages(session, messages, 0, NULL, &error));
    llm_error_free(error);
    OK(llm_session_length(session, &count, &error));
    CHECK(count == length);

    /* Without the oldest messages the conversation goes on. */
    llm_messages_t *rest = NULL;
    llm_bytes_t *json = NULL;
    OK(llm_messages_new(&rest, &error));
    OK(llm_messages_set_template(rest, TEXT(TEMPLATE), &error));
    OK(llm_messages_get(messages, 2, &json, &error));
    OK(llm_messages_add_json(rest, llm_bytes_data(json), llm_bytes_size(json), &error));
    llm_bytes_free(json);
    OK(llm_session_reset(session, &error));
    OK(llm_session_append_messages(session, rest, LLM_MESSAGES_ANSWER, &first, &error));
    OK(llm_session_length(session, &length, &error));
    CHECK(first == length && length > 4);
    /* After a shift only what was kept is in common. */
    OK(llm_session_shift(session, 2, &count, &error));
    OK(llm_session_append_messages(session, rest, LLM_MESSAGES_ANSWER, &second, &error));
    CHECK(count > 0 && second == length - 2);
    llm_messages_free(rest);
    llm_session_free(session);
    llm_messages_free(messages);
    unload();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"messages", messages},
        {"conversing", conversing},
    };
    return run_test(tests, sizeof tests / sizeof tests[0], argc, argv);
}
