/* What the C tests share. A test is a function; main runs the one that is named on the command line. */
#include "llm.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The call fails with this status, and the error says so too. The call must pass &error. */
#define FAILS(status, call)                                                                                            \
    do {                                                                                                               \
        error = (llm_error_t *)8; /* the old value is not looked at */                                                 \
        llm_status_t status_ = (call);                                                                                   \
        if (status_ != LLM_STATUS_##status || llm_error_status(error) != status_) {                                        \
            printf("%s:%d: %s: %s, %s\n", __FILE__, __LINE__, #call, llm_status_name(status_), llm_error_message(error));\
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        error = (llm_error_t *)8;                                                                                      \
        if ((call) != LLM_STATUS_OK) {                                                                                 \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, llm_error_message(error));                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
        CHECK(error == NULL);                                                                                          \
    } while (0)

struct test {
    const char *name;
    void (*run)(void);
};

static llm_error_t *error;
static const char *data; /* the folder tests/data/gguf-bad */

/* The path of a file in `data`; good until the next call. */
static inline const char *file(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", data, name);
    return path;
}

static inline int same(const char *a, const char *b) { return a && b && strcmp(a, b) == 0; }

static inline int view_is(llm_view_t view, const char *text)
{
    return view.size == strlen(text) && memcmp(view.data, text, view.size) == 0;
}

static inline int run_test(const struct test *tests, size_t count, int argc, char **argv)
{
    if (argc != 3)
        return 2;
    data = argv[1];
    for (size_t i = 0; i < count; i++)
        if (same(tests[i].name, argv[2])) {
            tests[i].run();
            return 0;
        }
    printf("there is no test %s\n", argv[2]);
    return 2;
}
