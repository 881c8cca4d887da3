/* llm-json: text that fits a JSON schema. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <stdlib.h>
#include <string.h>

/* The prompt as it is, or as a user's message. */
static void append(llm_session_t *session, const char *prompt, bool chat) {
    llm_error_t *error = NULL;
    if (!chat) {
        check(llm_session_append_text(session, prompt, LLM_NUL_TERMINATED,
                                      LLM_ENCODE_ADD_SPECIAL | LLM_ENCODE_PARSE_SPECIAL, NULL, &error), &error);
        return;
    }
    llm_messages_t *messages = NULL;
    check(llm_messages_new(&messages, &error), &error);
    check(llm_messages_add(messages, "user", LLM_NUL_TERMINATED, prompt, LLM_NUL_TERMINATED, &error), &error);
    check(llm_session_append_messages(session, messages, LLM_MESSAGES_ANSWER, NULL, &error), &error);
    llm_messages_free(messages);
}

int main(int argc, char **argv) {
    const char *model_path = NULL, *schema_path = NULL, *prompt = NULL;
    uint32_t max_tokens = 0, threads = LLM_THREADS_AUTO;
    bool chat = false;
    llm_sampler_params_t sampling;
    usual_sampling(&sampling);
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file"},
        {"-s", "SCHEMA", OPTION_TEXT, &schema_path, "a file with a JSON schema"},
        {"-p", "PROMPT", OPTION_TEXT, &prompt, "the text before the JSON"},
        {"--chat", NULL, OPTION_FLAG, &chat, "the prompt is a user's message, the JSON the answer"},
        {"-n", "N", OPTION_COUNT, &max_tokens, "tokens at most; 0 (default): until the context is full"},
        SAMPLING_OPTIONS(sampling),
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "-m MODEL -s SCHEMA -p PROMPT [--chat] [-n N] " SAMPLING_USAGE " [-t THREADS]",
                 "Prints a JSON value that fits a schema. Fails if it is not complete after N tokens.", options,
                 sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");
    if (schema_path == NULL) wrong_usage("-s SCHEMA is missing");
    if (prompt == NULL) wrong_usage("-p PROMPT is missing");

    llm_error_t *error = NULL;
    llm_sampler_t *sampler = NULL;
    check(llm_sampler_new(&sampling, &sampler, &error), &error);
    size_t size = 0;
    char *schema = read_file(schema_path, &size);
    llm_model_t *model = load_model(model_path, threads);
    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    llm_grammar_t *grammar = NULL;
    check(llm_grammar_new(tokenizer, LLM_GRAMMAR_JSON_SCHEMA, schema, size, &grammar, &error), &error);

    llm_session_params_t params;
    llm_session_params_init(&params, sizeof params);
    params.threads = threads;
    llm_session_t *session = NULL;
    check(llm_session_new(model, &params, &session, &error), &error);
    append(session, prompt, chat);
    llm_generate_params_t generate;
    llm_generate_params_init(&generate, sizeof generate);
    generate.max_tokens = max_tokens;
    check(llm_session_set_grammar(session, grammar, &error), &error);
    check(llm_session_start(session, sampler, &generate, &error), &error);
    llm_finish_reason_t finish = print_generation(session);
    if (finish != LLM_FINISH_GRAMMAR && finish != LLM_FINISH_EOG) fail("the JSON is not complete: there is no room for more");

    llm_session_free(session);
    llm_grammar_free(grammar);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    llm_sampler_free(sampler);
    free(schema);
    return 0;
}
