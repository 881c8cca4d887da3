/* llm-chat: a conversation in the terminal. SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _POSIX_C_SOURCE 200809L

#include "common.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char HELP[] = "/reset       begins a new conversation\n"
                           "/save FILE   writes the conversation to a file, as JSON\n"
                           "/help        shows this\n"
                           "/exit        ends the program, as the end of input does\n"
                           "//TEXT       is the message /TEXT\n"
                           "Ctrl-C stops an answer; what there is of it stays in the conversation.\n";

static volatile sig_atomic_t interrupted;
/* Stops the processing of a message. */
static llm_cancel_t *processing;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
    llm_cancel_request(processing);
}

/* Something of the answer is shown. */
static bool begun;

static bool print_token(llm_token_t token, const char *text, size_t size, void *user_data) {
    (void)token;
    (void)user_data;
    begun = begun || size > 0;
    fwrite(text, 1, size, stdout);
    fflush(stdout);
    return !interrupted;
}

/* Writes all messages as a JSON list. A conversation is not lost because a file cannot be had. */
static void save(llm_messages_t *messages, const char *path) {
    llm_error_t *error = NULL;
    size_t count = 0;
    check(llm_messages_count(messages, &count, &error), &error);
    output_t output;
    bool written = try_open_output(path, &output);
    for (size_t i = 0; written && i < count; i++) {
        llm_bytes_t *json = NULL;
        check(llm_messages_get(messages, i, &json, &error), &error);
        fputs(i == 0 ? "[\n" : ",\n", output.file);
        fwrite(llm_bytes_data(json), 1, llm_bytes_size(json), output.file);
        llm_bytes_free(json);
    }
    if (written) {
        fputs(count == 0 ? "[]\n" : "\n]\n", output.file);
        written = try_commit_output(&output);
    }
    if (written)
        fprintf(stderr, "%zu messages are in %s\n", count, path);
    else
        fprintf(stderr, "cannot write %s: %s\n", path, strerror(errno));
}

/* Shows why something failed, and goes on. */
static void complain(llm_error_t *error) {
    fprintf(stderr, "%s\n", llm_error_message(error));
    llm_error_free(error);
}

/* Processes the conversation up to the answer. Ctrl-C ends that; an answer is ended by its callback instead, so that what
 * there is of it is kept. */
static llm_status_t process(llm_session_t *session, llm_messages_t *messages, llm_error_t **error) {
    llm_error_t *other = NULL;
    check(llm_session_set_cancel(session, processing, &other), &other);
    llm_status_t status = llm_session_append_messages(session, messages, LLM_MESSAGES_ANSWER, NULL, error);
    check(llm_session_set_cancel(session, NULL, &other), &other);
    return status;
}

/* One turn: the user's message, then the model's, which is shown as it comes. If it fails the conversation is as it was. */
static void turn(llm_session_t *session, llm_sampler_t *sampler, llm_messages_t *messages, const char *text, size_t size,
                 uint32_t max_tokens) {
    llm_error_t *error = NULL;
    llm_generate_params_t params;
    llm_generate_params_init(&params, sizeof params);
    params.max_tokens = max_tokens;
    size_t count = 0;
    check(llm_messages_count(messages, &count, &error), &error);

    interrupted = 0;
    begun = false;
    llm_cancel_reset(processing);
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    if (llm_messages_add(messages, "user", LLM_NUL_TERMINATED, text, size, &error) != LLM_STATUS_OK ||
        process(session, messages, &error) != LLM_STATUS_OK ||
        llm_session_start(session, sampler, &params, &error) != LLM_STATUS_OK ||
        llm_session_generate(session, print_token, NULL, &finish, &error) != LLM_STATUS_OK) {
        if (begun) putchar('\n');
        complain(error);
        check(llm_messages_truncate(messages, count, &error), &error);
        return;
    }
    putchar('\n');
    finish_output();
    check(llm_session_answer(session, messages, &error), &error);
    if (finish == LLM_FINISH_ABORTED) fprintf(stderr, "(stopped)\n");
    if (finish == LLM_FINISH_LENGTH) fprintf(stderr, "(stopped after %lu tokens)\n", (unsigned long)max_tokens);
    if (finish == LLM_FINISH_CONTEXT_FULL) fprintf(stderr, "(the context is full: /reset begins a new conversation)\n");
}

/* Reads a line without its end into `line`, of `size` bytes; false at the end of input. Ctrl-C gives an empty line. */
static bool read_line(char **line, size_t *size, size_t *capacity, bool prompt) {
    if (prompt) fputs("> ", stderr);
    interrupted = 0;
    *size = 0;
    ssize_t found = getline(line, capacity, stdin);
    if (found < 0 && interrupted) {
        clearerr(stdin);
        fputc('\n', stderr);
        *line = must_realloc(*line, *capacity > 0 ? *capacity : (*capacity = 1), 1);
        (*line)[0] = '\0';
        return true;
    }
    if (found < 0) return false;
    *size = (size_t)found;
    while (*size > 0 && ((*line)[*size - 1] == '\n' || (*line)[*size - 1] == '\r')) (*line)[--*size] = '\0';
    return true;
}

int main(int argc, char **argv) {
    const char *model_path = NULL, *system = NULL, *tools_path = NULL;
    uint32_t max_tokens = 0, threads = LLM_THREADS_AUTO, context = 0;
    text_list_t overrides = {NULL, 0};
    llm_sampler_params_t sampling;
    usual_sampling(&sampling);
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model_path, "the model, a GGUF file with a chat template"},
        {"-s", "TEXT", OPTION_TEXT, &system, "the system's message, with which the conversation begins"},
        {"--tools", "FILE", OPTION_TEXT, &tools_path, "tools that the model may call, a JSON list; calls are shown as text"},
        {"-n", "N", OPTION_COUNT, &max_tokens, "tokens of an answer at most; 0 (default): no limit"},
        {"-c", "N", OPTION_COUNT, &context, "positions of the context; 0 (default): the model's own, at most 4096"},
        SAMPLING_OPTIONS(sampling),
        {"--override", "KEY=TYPE:VALUE", OPTION_TEXTS, &overrides, OVERRIDE_HELP},
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv,
                 "-m MODEL [-s TEXT] [--tools FILE] [-n N] [-c N] " SAMPLING_USAGE
                 " [--override KEY=TYPE:VALUE ...] [-t THREADS]",
                 "A conversation: each line of standard input is a message, the answers go to standard output.", options,
                 sizeof options / sizeof options[0], NULL, 0);
    if (model_path == NULL) wrong_usage("-m MODEL is missing");

    llm_error_t *error = NULL;
    llm_sampler_t *sampler = NULL;
    check(llm_sampler_new(&sampling, &sampler, &error), &error);
    llm_messages_t *messages = NULL;
    check(llm_messages_new(&messages, &error), &error);
    if (tools_path != NULL) {
        size_t size = 0;
        char *tools = read_file(tools_path, &size);
        check(llm_messages_set_tools(messages, tools, size, &error), &error);
        free(tools);
    }
    if (system != NULL)
        check(llm_messages_add(messages, "system", LLM_NUL_TERMINATED, system, LLM_NUL_TERMINATED, &error), &error);

    llm_model_t *model = load_model_with(model_path, threads, &overrides);
    llm_tokenizer_t *tokenizer = NULL;
    check(llm_model_tokenizer(model, &tokenizer, &error), &error);
    llm_view_t template = {NULL, 0};
    check(llm_tokenizer_chat_template(tokenizer, NULL, 0, &template, &error), &error);
    llm_session_params_t params;
    llm_session_t *session = NULL;
    llm_session_params_init(&params, sizeof params);
    params.context_length = context;
    params.threads = threads;
    check(llm_session_new(model, &params, &session, &error), &error);

    check(llm_cancel_new(&processing, &error), &error);
    /* Without SA_RESTART: waiting for a line ends too. */
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, &before);
    /* What is ignored stays so. */
    if (before.sa_handler == SIG_IGN) sigaction(SIGINT, &before, NULL);

    bool prompt = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    if (prompt) fputs(HELP, stderr);
    char *line = NULL;
    size_t size = 0, capacity = 0;
    while (read_line(&line, &size, &capacity, prompt) && strcmp(line, "/exit") != 0) {
        if (line[0] != '/') {
            if (size > 0) turn(session, sampler, messages, line, size, max_tokens);
        } else if (line[1] == '/') {
            turn(session, sampler, messages, line + 1, size - 1, max_tokens);
        } else if (strcmp(line, "/reset") == 0) {
            check(llm_messages_truncate(messages, system != NULL, &error), &error);
        } else if (strncmp(line, "/save ", 6) == 0 && line[6] != '\0') {
            save(messages, line + 6);
        } else {
            if (strcmp(line, "/help") != 0) fprintf(stderr, "there is no command %s\n", line);
            fputs(HELP, stderr);
        }
    }

    sigaction(SIGINT, &before, NULL);
    llm_cancel_free(processing);
    free(overrides.items);
    free(line);
    llm_session_free(session);
    llm_tokenizer_free(tokenizer);
    llm_model_free(model);
    llm_messages_free(messages);
    llm_sampler_free(sampler);
    return 0;
}
