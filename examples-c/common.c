/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _XOPEN_SOURCE 700

#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *program = "llm";
/* The unfinished output, removed if the program fails or is ended by a signal: NULL or `unfinished_name`, which is not
 * freed while a signal may come. */
static char *volatile unfinished;
static char *unfinished_name;

/* A line of progress is on the terminal. */
static bool in_progress;

void print_progress(const char *format, ...) {
    if (!isatty(STDERR_FILENO)) return;
    va_list arguments;
    va_start(arguments, format);
    fputc('\r', stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    in_progress = true;
}

void end_progress(void) {
    if (in_progress) fputc('\n', stderr);
    in_progress = false;
}

static void message(const char *format, va_list arguments) {
    fflush(stdout);
    end_progress();
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

void wrong_usage(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    message(format, arguments);
    va_end(arguments);
    fprintf(stderr, "Try '%s --help'.\n", program);
    exit(EXIT_USAGE);
}

/* Removes the unfinished output, if there is one. */
static void remove_unfinished(void) {
    if (unfinished != NULL) unlink(unfinished);
    unfinished = NULL;
}

static void end(int code, const char *format, va_list arguments) {
    message(format, arguments);
    remove_unfinished();
    exit(code);
}

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    end(EXIT_FAILED, format, arguments);
    va_end(arguments);
}

static void end_with(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    end(code, format, arguments);
    va_end(arguments);
}

void check(llm_status_t status, llm_error_t *const *error) {
    if (status == LLM_STATUS_OK) return;
    const char *text = llm_error_message(*error);
    end_with(status == LLM_STATUS_INVALID_ARGUMENT ? EXIT_USAGE : EXIT_FAILED, "%s (%s)",
             text[0] != '\0' ? text : "failed", llm_status_name(status));
}

void finish_output(void) {
    if (fflush(stdout) != 0 || ferror(stdout)) fail("cannot write to standard output: %s", strerror(errno));
}

/* "--top-k K" in `left`; its length. */
static int left_of(const option_t *option, char left[40]) {
    const char *argument = option->argument != NULL ? option->argument : "";
    return snprintf(left, 40, "%s%s%s", option->name, option->argument != NULL ? " " : "", argument);
}

static void print_help(const char *usage, const char *about, const option_t *options, size_t count) {
    printf("Usage: %s %s\n\n%s\n\n", program, usage, about);
    char left[40];
    int width = (int)strlen("--help");
    for (size_t i = 0; i < count; i++) {
        int length = left_of(&options[i], left);
        if (length > width) width = length;
    }
    for (size_t i = 0; i < count; i++) {
        left_of(&options[i], left);
        printf("  %-*s  %s\n", width, left, options[i].help);
    }
    printf("  %-*s  %s\n", width, "--help", "print this");
}

/* An integer from 0 to `max`: digits only, since strtoull would take signs. */
static bool parse_integer(const char *text, uint64_t max, uint64_t *value) {
    if (text[0] == '\0' || strspn(text, "0123456789") != strlen(text)) return false;
    errno = 0;
    unsigned long long parsed = strtoull(text, NULL, 10);
    if (errno != 0 || parsed > max) return false;
    *value = parsed;
    return true;
}

static void set_option(const option_t *option, const char *text) {
    uint64_t integer = 0;
    char *end = NULL;
    text_list_t *list = NULL;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->value = true;
        return;
    case OPTION_TEXT:
        *(const char **)option->value = text;
        return;
    case OPTION_TEXTS:
        list = option->value;
        list->items = must_realloc(list->items, list->count + 1, sizeof *list->items);
        list->items[list->count++] = text;
        return;
    case OPTION_COUNT:
        if (!parse_integer(text, UINT32_MAX, &integer))
            wrong_usage("%s takes an integer from 0 to %lu, not '%s'", option->name, (unsigned long)UINT32_MAX, text);
        *(uint32_t *)option->value = (uint32_t)integer;
        return;
    case OPTION_SEED:
        if (!parse_integer(text, UINT64_MAX, &integer))
            wrong_usage("%s takes an integer from 0 to 2^64 - 1, not '%s'", option->name, text);
        *(uint64_t *)option->value = integer;
        return;
    case OPTION_FLOAT:
        *(float *)option->value = strtof(text, &end);
        if (end == text || *end != '\0') wrong_usage("%s takes a number, not '%s'", option->name, text);
        return;
    }
}

void read_options(int argc, char **argv, const char *usage, const char *about, const option_t *options, size_t count,
                  const char **operands, size_t operand_count) {
    if (argc > 0) {
        const char *slash = strrchr(argv[0], '/');
        program = slash != NULL ? slash + 1 : argv[0];
    }
    size_t seen = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(usage, about, options, count);
            finish_output();
            exit(0);
        }
        const option_t *option = NULL;
        for (size_t j = 0; j < count; j++)
            if (strcmp(argv[i], options[j].name) == 0) option = &options[j];
        if (option == NULL && argv[i][0] == '-' && argv[i][1] != '\0') wrong_usage("unknown option '%s'", argv[i]);
        if (option == NULL) {
            if (seen == operand_count) wrong_usage("unexpected argument '%s'", argv[i]);
            operands[seen++] = argv[i];
        } else if (option->kind == OPTION_FLAG) {
            set_option(option, NULL);
        } else {
            if (i + 1 == argc) wrong_usage("%s needs a value, %s", option->name, option->argument);
            set_option(option, argv[++i]);
        }
    }
}

void *must_realloc(void *memory, size_t count, size_t size) {
    void *moved = NULL;
    if (size == 0 || count <= SIZE_MAX / size) moved = realloc(memory, count * size > 0 ? count * size : 1);
    if (moved == NULL) fail("no memory for %zu times %zu bytes", count, size);
    return moved;
}

char *read_file(const char *path, size_t *size) {
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "rb");
    if (file == NULL) fail("cannot open %s: %s", path, strerror(errno));
    char *text = NULL;
    size_t capacity = 0;
    *size = 0;
    do {
        if (*size == capacity) {
            capacity = capacity < 65536 ? 65536 : capacity * 2;
            text = must_realloc(text, capacity, 1);
        }
        *size += fread(text + *size, 1, capacity - *size, file);
    } while (!feof(file) && !ferror(file));
    if (ferror(file)) fail("cannot read %s: %s", path, strerror(errno));
    if (!standard) fclose(file);
    return text;
}

llm_token_t *read_ids(const char *option, const char *text, size_t *count) {
    static const char separators[] = ", \t\r\n";
    llm_token_t *tokens = must_realloc(NULL, strlen(text) / 2 + 1, sizeof *tokens);
    *count = 0;
    text += strspn(text, separators);
    while (*text != '\0') {
        char word[16];
        size_t length = strcspn(text, separators);
        uint64_t id = 0;
        snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word - 1), text);
        if (length >= sizeof word || !parse_integer(word, UINT32_MAX, &id))
            wrong_usage("%s takes token ids, not '%.*s'", option, (int)(length < 64 ? length : 64), text);
        tokens[(*count)++] = (llm_token_t)id;
        text += length;
        text += strspn(text, separators);
    }
    return tokens;
}

llm_token_t *encode(const llm_tokenizer_t *tokenizer, const char *text, size_t size, uint32_t flags, size_t *count) {
    llm_error_t *error = NULL;
    llm_token_t *tokens = NULL;
    size_t capacity = 0;
    llm_status_t status = llm_tokenizer_encode(tokenizer, text, size, flags, NULL, 0, count, &error);
    if (status == LLM_STATUS_BUFFER_TOO_SMALL) {
        llm_error_free(error);
        capacity = *count;
        tokens = must_realloc(NULL, capacity, sizeof *tokens);
        status = llm_tokenizer_encode(tokenizer, text, size, flags, tokens, capacity, count, &error);
    }
    check(status, &error);
    return tokens;
}

/* Refuses a value that is not wholly a number, or out of range by errno, which was 0 before. */
static void check_number(const char *value, const char *end, const char *type) {
    if (end == value || *end != '\0' || errno != 0) wrong_usage("--override: %s is no %s", value, type);
}

/* Sets the key that KEY=TYPE:VALUE names. */
static void set_key(llm_gguf_writer_t *keys, const char *text) {
    const char *equals = strchr(text, '=');
    const char *colon = equals != NULL ? strchr(equals, ':') : NULL;
    if (colon == NULL) wrong_usage("--override: expected KEY=TYPE:VALUE, found %s", text);
    size_t key_size = (size_t)(equals - text), type_size = (size_t)(colon - equals - 1);
    const char *type = equals + 1, *value = colon + 1;
    char *end = NULL;
    llm_error_t *error = NULL;
    errno = 0;
    if (type_size == 3 && memcmp(type, "int", 3) == 0) {
        bool negative = value[0] == '-';
        long long below = negative ? strtoll(value, &end, 10) : 0;
        unsigned long long number = negative ? 0 : strtoull(value, &end, 10);
        check_number(value, end, "int");
        if (negative)
            check(llm_gguf_writer_set_i64(keys, text, key_size, below, &error), &error);
        else
            check(llm_gguf_writer_set_u64(keys, text, key_size, number, &error), &error);
    } else if (type_size == 5 && memcmp(type, "float", 5) == 0) {
        float number = strtof(value, &end);
        check_number(value, end, "float");
        check(llm_gguf_writer_set_f32(keys, text, key_size, number, &error), &error);
    } else if (type_size == 4 && memcmp(type, "bool", 4) == 0) {
        bool truth = strcmp(value, "true") == 0;
        if (!truth && strcmp(value, "false") != 0) wrong_usage("--override: expected true or false, found %s", value);
        check(llm_gguf_writer_set_bool(keys, text, key_size, truth, &error), &error);
    } else if (type_size == 3 && memcmp(type, "str", 3) == 0) {
        check(llm_gguf_writer_set_string(keys, text, key_size, value, LLM_NUL_TERMINATED, &error), &error);
    } else {
        wrong_usage("--override: expected the type int, float, bool or str, found %.*s", (int)type_size, type);
    }
}

llm_model_t *load_model_with(const char *path, uint32_t threads, const text_list_t *overrides) {
    llm_model_params_t params;
    llm_model_t *model = NULL;
    llm_error_t *error = NULL;
    llm_gguf_writer_t *keys = NULL;
    llm_gguf_t *file = NULL, *other = NULL;
    llm_model_params_init(&params, sizeof params);
    params.threads = threads;
    if (overrides->count == 0) {
        check(llm_model_load(path, LLM_NUL_TERMINATED, &params, NULL, &model, &error), &error);
        return model;
    }
    check(llm_gguf_writer_new(&keys, &error), &error);
    for (size_t i = 0; i < overrides->count; i++) set_key(keys, overrides->items[i]);
    check(llm_gguf_open(path, LLM_NUL_TERMINATED, &file, &error), &error);
    check(llm_gguf_with_keys(file, keys, &other, &error), &error);
    check(llm_model_load_gguf(other, &params, NULL, &model, &error), &error);
    llm_gguf_free(other);
    llm_gguf_free(file);
    llm_gguf_writer_free(keys);
    return model;
}

llm_model_t *load_model(const char *path, uint32_t threads) {
    const text_list_t none = {NULL, 0};
    return load_model_with(path, threads, &none);
}

llm_finish_reason_t print_generation(llm_session_t *session) {
    llm_error_t *error = NULL;
    llm_finish_reason_t finish = LLM_FINISH_NONE;
    while (finish == LLM_FINISH_NONE) {
        llm_token_t token = LLM_TOKEN_NONE;
        llm_view_t text = {NULL, 0};
        check(llm_session_next(session, &token, &text, &finish, &error), &error);
        fwrite(text.data, 1, text.size, stdout);
        finish_output();
    }
    putchar('\n');
    finish_output();
    return finish;
}

void usual_sampling(llm_sampler_params_t *sampling) {
    llm_sampler_params_init(sampling, sizeof *sampling);
    sampling->temperature = 0.8f;
    sampling->top_k = 40;
    sampling->top_p = 0.95f;
    sampling->min_p = 0.05f;
    sampling->seed = 0;
}

/* The length of the UTF-8 character at `text`, 0 if there is none (RFC 3629: no overlong forms, no surrogates). */
static size_t character(const unsigned char *text, size_t size) {
    unsigned char first = text[0];
    size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (length == 0 || length > size) return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xC0) != 0x80) return 0;
    if (length == 3 && ((first == 0xE0 && text[1] < 0xA0) || (first == 0xED && text[1] > 0x9F))) return 0;
    if (length == 4 && ((first == 0xF0 && text[1] < 0x90) || (first == 0xF4 && text[1] > 0x8F))) return 0;
    return length;
}

void print_json_string(FILE *file, const char *text, size_t size) {
    const unsigned char *at = (const unsigned char *)text;
    fputc('"', file);
    while (size > 0) {
        size_t length = character(at, size);
        if (length == 0) {
            fputs("\\ufffd", file);
            length = 1;
        } else if (*at == '"' || *at == '\\') {
            fprintf(file, "\\%c", *at);
        } else if (*at < 0x20 || *at == 0x7F) {
            fprintf(file, "\\u%04x", *at);
        } else {
            fwrite(at, 1, length, file);
        }
        at += length;
        size -= length;
    }
    fputc('"', file);
}

/* Lets the signals that ask a program to end do `to`, where they do `from`. Those that are ignored stay ignored. */
static void on_end(void (*from)(int), void (*to)(int)) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction action;
        if (sigaction(numbers[i], NULL, &action) != 0 || action.sa_handler != from) continue;
        memset(&action, 0, sizeof action);
        action.sa_handler = to;
        sigaction(numbers[i], &action, NULL);
    }
}

static llm_cancel_t *interrupts;

static void request_cancel(int number) {
    (void)number;
    llm_cancel_request(interrupts);
}

llm_cancel_t *begin_interrupts(void) {
    llm_error_t *error = NULL;
    check(llm_cancel_new(&interrupts, &error), &error);
    on_end(SIG_DFL, request_cancel);
    return interrupts;
}

void end_interrupts(void) {
    on_end(request_cancel, SIG_DFL);
    llm_cancel_free(interrupts);
    interrupts = NULL;
}

/* Ends the program as the signal does, but leaves no unfinished file. */
static void remove_and_end(int number) {
    remove_unfinished();
    signal(number, SIG_DFL);
    raise(number);
}

bool print_share(uint64_t done, uint64_t total, void *user_data) {
    const char *const *path = user_data;
    print_progress("%s: %3.0f %%", *path, total > 0 ? 100.0 * (double)done / (double)total : 100.0);
    return true;
}

double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The path behind links, to be freed: a link stays a link, and what it points to is replaced, or made. */
static char *behind_links(const char *path) {
    char *found = realpath(path, NULL);
    if (found != NULL) return found;
    found = must_realloc(NULL, strlen(path) + 1, 1);
    strcpy(found, path);
    /* A link to what is not there. As many as Linux follows. */
    for (int i = 0; i < 40; i++) {
        char target[4096];
        ssize_t size = readlink(found, target, sizeof target - 1);
        if (size < 0) break;
        target[size] = '\0';
        const char *slash = strrchr(found, '/');
        size_t folder = target[0] == '/' || slash == NULL ? 0 : (size_t)(slash - found + 1);
        found = must_realloc(found, folder + (size_t)size + 1, 1);
        memcpy(found + folder, target, (size_t)size + 1);
    }
    return found;
}

/* Opens a new file beside `path`, with the permissions of the old one if there is one. Its name becomes `unfinished`. */
static FILE *open_beside(const char *path, const struct stat *old) {
    const char *slash = strrchr(path, '/');
    size_t folder = slash != NULL ? (size_t)(slash - path + 1) : 0;
    char *name = unfinished_name = must_realloc(unfinished_name, folder + 64, 1);
    memcpy(name, path, folder);
    on_end(SIG_DFL, remove_and_end);
    int descriptor = -1;
    for (unsigned number = 0; descriptor < 0 && (number == 0 || errno == EEXIST); number++) {
        /* Short, whatever the length of the name. */
        snprintf(name + folder, 64, ".llm.%ld.%u.part", (long)getpid(), number);
        unfinished = name;
        descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL, old != NULL ? 0600 : 0666);
        if (descriptor < 0) unfinished = NULL;
    }
    if (descriptor < 0) return NULL;
    FILE *file = fdopen(descriptor, "wb");
    if (file == NULL || old == NULL) return file;
    /* Who may not read the old one may not read the new one either. */
    mode_t mode = old->st_mode & 0777;
    /* The old group counts as others if the new file has another. */
    if (fchown(descriptor, (uid_t)-1, old->st_gid) != 0) mode = (mode & 0700) | (mode & (mode >> 3) & 0007);
    if (fchmod(descriptor, mode) == 0) return file;
    fclose(file);
    return NULL;
}

/* Frees what an output holds and keeps errno. A file that did not get its name is removed. */
static void end_output(output_t *output) {
    int reason = errno;
    remove_unfinished();
    free(output->target);
    output->temporary = output->target = NULL;
    errno = reason;
}

bool try_open_output(const char *path, output_t *output) {
    *output = (output_t){NULL, path, NULL, NULL};
    struct stat old;
    bool exists = stat(path, &old) == 0;
    /* Such as links that lead to each other; of an empty path nothing can come. */
    if (!exists && (errno != ENOENT || path[0] == '\0')) return false;
    if (exists && S_ISDIR(old.st_mode)) {
        errno = EISDIR;
        return false;
    }
    output->target = behind_links(path);
    /* A link of /proc can lead to a pipe or to a file without a name, which have no path. */
    if (exists && (!S_ISREG(old.st_mode) || access(output->target, F_OK) != 0)) {
        output->file = fopen(path, "wb");
    } else {
        output->file = open_beside(output->target, exists ? &old : NULL);
        output->temporary = unfinished;
    }
    if (output->file != NULL) return true;
    end_output(output);
    return false;
}

output_t open_output(const char *path) {
    output_t output;
    if (!try_open_output(path, &output)) fail("cannot write %s: %s", path, strerror(errno));
    return output;
}

void write_output(const output_t *output, const void *data, size_t size) {
    if (fwrite(data, 1, size, output->file) != size) fail("cannot write %s: %s", output->path, strerror(errno));
}

bool try_commit_output(output_t *output) {
    bool written = !ferror(output->file);
    /* What it was is not known any more. */
    if (!written) errno = EIO;
    written = written && fflush(output->file) == 0;
    /* A pipe or a device has nothing to sync. */
    if (output->temporary != NULL) written = written && fsync(fileno(output->file)) == 0;
    written = fclose(output->file) == 0 && written;
    if (output->temporary != NULL) written = written && rename(output->temporary, output->target) == 0;
    if (written) unfinished = NULL;
    end_output(output);
    return written;
}

void commit_output(output_t *output) {
    if (!try_commit_output(output)) fail("cannot write %s: %s", output->path, strerror(errno));
}

int32_t number_of(const char *option, const char *name, const char *const *names, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0) return i;
    wrong_usage("%s does not know '%s'", option, name);
    return 0;
}

llm_kv_type_t kv_type_of(const char *name) {
    static const char *const names[] = {"f16", "f32", "q8_0", "q4_0"}; /* as LLM_KV_ counts them */
    return number_of("--kv", name, names, 4);
}
