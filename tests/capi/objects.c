/* Errors, handles, structs, logging, fork and cancelling, as a C program sees them. */
#include "check.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static llm_gguf_t *open_tiny(void)
{
    llm_gguf_t *gguf = NULL;
    OK(llm_gguf_open(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
    return gguf;
}

static void versions(void)
{
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", LLM_VERSION_MAJOR, LLM_VERSION_MINOR, LLM_VERSION_PATCH);
    CHECK(same(llm_version(), text));
    CHECK(llm_abi_version() == LLM_ABI_VERSION);
    CHECK(strlen(llm_isa()) > 0);
    CHECK(same(llm_status_name(LLM_STATUS_OK), "OK"));
    CHECK(same(llm_status_name(LLM_STATUS_CORRUPT_FILE), "CORRUPT_FILE"));
    CHECK(same(llm_status_name(LLM_STATUS_INTERNAL), "INTERNAL"));
    CHECK(same(llm_status_name(99), "UNKNOWN") && same(llm_status_name(-1), "UNKNOWN"));
}

static void errors(void)
{
    llm_gguf_t *gguf = (llm_gguf_t *)16;
    FAILS(NOT_FOUND, llm_gguf_open("/no/such/file.gguf", LLM_NUL_TERMINATED, &gguf, &error));
    CHECK(gguf == (llm_gguf_t *)16); /* outputs are written on success only */
    CHECK(strlen(llm_error_message(error)) > 0);
    CHECK(same(llm_error_get(error, "path"), "/no/such/file.gguf"));
    CHECK(llm_error_get(error, "nothing") == NULL && llm_error_get(error, NULL) == NULL);
    size_t count = llm_error_fact_count(error);
    CHECK(count >= 1);
    const char *key = NULL, *value = NULL;
    for (size_t i = 0; i < count; i++) {
        CHECK(llm_error_fact_at(error, i, &key, &value));
        CHECK(same(llm_error_get(error, key), value));
    }
    CHECK(!llm_error_fact_at(error, count, &key, &value));
    llm_error_free(error);

    /* Nobody has to take the error. */
    CHECK(llm_gguf_open("/no/such/file.gguf", LLM_NUL_TERMINATED, &gguf, NULL) == LLM_STATUS_NOT_FOUND);
    CHECK(llm_error_status(NULL) == LLM_STATUS_OK && same(llm_error_message(NULL), ""));
    CHECK(llm_error_fact_count(NULL) == 0 && !llm_error_fact_at(NULL, 0, &key, &value));
    llm_error_free(NULL);

    /* A directory is no file, and a zero byte in a path does not end the message. */
    FAILS(INVALID_ARGUMENT, llm_gguf_open("/", 1, &gguf, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_open("a\0b", 3, &gguf, &error));
    CHECK(strlen(llm_error_message(error)) > 10);
    llm_error_free(error);
}

static int messages;
static char last_message[256];

static void listen(llm_log_level_t level, const char *message, size_t size, void *user_data)
{
    CHECK(level >= LLM_LOG_ERROR && level <= LLM_LOG_DEBUG);
    messages++;
    *(int *)user_data += 1;
    snprintf(last_message, sizeof last_message, "%.*s", (int)size, message);
}

static void stale_handles(void)
{
    llm_gguf_t *gguf = open_tiny();
    CHECK(llm_gguf_retain(gguf) == gguf);
    llm_gguf_free(gguf);
    CHECK(llm_gguf_version(gguf) == 3); /* one reference is left */
    llm_gguf_free(gguf);

    int seen = 0;
    llm_log_set(listen, &seen);
    CHECK(llm_gguf_version(gguf) == 0);
    CHECK(llm_gguf_retain(gguf) == NULL);
    llm_view_t key = {NULL, 0};
    FAILS(FAILED_PRECONDITION, llm_gguf_key_at(gguf, 0, &key, &error));
    CHECK(same(llm_error_get(error, "argument"), "gguf"));
    llm_error_free(error);
    llm_gguf_free(gguf); /* a mistake: the log hears of it */
    CHECK(seen == 1);
    llm_log_set(NULL, NULL);

    /* Things that never were handles. */
    double number = 1;
    FAILS(FAILED_PRECONDITION, llm_gguf_key_at((llm_gguf_t *)(void *)&number, 0, &key, &error));
    llm_error_free(error);
    FAILS(FAILED_PRECONDITION, llm_gguf_key_at((llm_gguf_t *)8, 0, &key, &error));
    llm_error_free(error);
    FAILS(FAILED_PRECONDITION, llm_gguf_key_at((llm_gguf_t *)((char *)&number + 1), 0, &key, &error));
    llm_error_free(error);

    /* A handle of another kind. */
    llm_cancel_t *cancel = NULL;
    OK(llm_cancel_new(&cancel, &error));
    FAILS(INVALID_ARGUMENT, llm_gguf_key_at((llm_gguf_t *)(void *)cancel, 0, &key, &error));
    CHECK(same(llm_error_get(error, "expected"), "llm_gguf_t") && same(llm_error_get(error, "found"), "llm_cancel_t"));
    llm_error_free(error);
    llm_gguf_free((llm_gguf_t *)(void *)cancel); /* refused */
    CHECK(!llm_cancel_is_requested(cancel));
    llm_cancel_request(cancel);
    CHECK(llm_cancel_is_requested(cancel));
    llm_cancel_free(cancel);
}

static void growing_structs(void)
{
    /* A caller that was compiled when the struct ended before min_p. */
    struct {
        llm_sampler_params_t params;
        unsigned char canary[16];
    } old;
    size_t old_size = offsetof(llm_sampler_params_t, min_p);
    memset(&old, 0xa5, sizeof old);
    llm_sampler_params_init(&old.params, old_size);
    for (size_t i = old_size; i < sizeof old; i++)
        CHECK(((unsigned char *)&old)[i] == 0xa5);
    CHECK(old.params.struct_size == old_size && old.params.temperature > 0);
    llm_sampler_t *sampler = NULL;
    OK(llm_sampler_new(&old.params, &sampler, &error)); /* what lies behind is not read */
    llm_sampler_free(sampler);

    /* A caller that was compiled with a newer header. */
    struct {
        llm_sampler_params_t params;
        uint64_t newer[2];
    } new;
    memset(&new, 0xa5, sizeof new);
    llm_sampler_params_init(&new.params, sizeof new);
    CHECK(new.params.struct_size == sizeof new && new.newer[0] == 0 && new.newer[1] == 0);
    OK(llm_sampler_new(&new.params, &sampler, &error));
    llm_sampler_free(sampler);
    new.newer[1] = 1;
    FAILS(UNSUPPORTED, llm_sampler_new(&new.params, &sampler, &error));
    llm_error_free(error);

    /* One that was never initialised. */
    llm_sampler_params_t never;
    memset(&never, 0, sizeof never);
    FAILS(INVALID_ARGUMENT, llm_sampler_new(&never, &sampler, &error));
    llm_error_free(error);
    never.struct_size = SIZE_MAX;
    FAILS(INVALID_ARGUMENT, llm_sampler_new(&never, &sampler, &error));
    llm_error_free(error);

    /* Structs that the library fills. */
    llm_gguf_t *gguf = open_tiny();
    struct {
        llm_tensor_info_t info;
        uint64_t newer;
    } info;
    memset(&info, 0xa5, sizeof info);
    info.info.struct_size = offsetof(llm_tensor_info_t, offset);
    OK(llm_gguf_tensor_info(gguf, 0, &info.info, &error));
    CHECK(info.info.dimension_count == 2 && info.info.offset == 0xa5a5a5a5a5a5a5a5);
    info.info.struct_size = sizeof info;
    OK(llm_gguf_tensor_info(gguf, 0, &info.info, &error));
    CHECK(info.info.struct_size == sizeof info && info.info.bytes > 0 && info.newer == 0);
    llm_gguf_free(gguf);
}

static void log_from_inside(llm_log_level_t level, const char *message, size_t size, void *user_data)
{
    (void)level, (void)message, (void)size;
    *(int *)user_data += 1;
    llm_gguf_free((llm_gguf_t *)(void *)user_data); /* would be logged if that did not recurse */
    llm_log_set(NULL, NULL);                        /* does not wait for this very call */
}

static volatile int stop;

static void *make_noise(void *handle)
{
    while (!stop)
        llm_gguf_free(handle);
    return NULL;
}

static void listen_to_noise(llm_log_level_t level, const char *message, size_t size, void *user_data)
{
    (void)level, (void)message, (void)size;
    int *alive = user_data;
    CHECK(__atomic_load_n(alive, __ATOMIC_SEQ_CST) == 1);
    __atomic_add_fetch(&messages, 1, __ATOMIC_SEQ_CST);
    CHECK(__atomic_load_n(alive, __ATOMIC_SEQ_CST) == 1);
}

static void logging(void)
{
    double no_handle = 0;
    llm_gguf_t *handle = (llm_gguf_t *)(void *)&no_handle;
    int count = 0;
    llm_log_set(log_from_inside, &count);
    llm_gguf_free(handle);
    llm_gguf_free(handle);
    CHECK(count == 1);

    FAILS(INVALID_ARGUMENT, llm_log_set_level(0, &error));
    llm_error_free(error);
    OK(llm_log_set_level(LLM_LOG_ERROR, &error));
    count = 0;
    llm_log_set(listen, &count);
    llm_gguf_free(handle);
    CHECK(count == 1 && strstr(last_message, "llm_gguf_t"));

    /* A caught panic is told to the log, not to stderr. */
    setenv("LLM_TEST_PANIC", "llm_gguf_version", 1);
    CHECK(llm_gguf_version(handle) == 0);
    unsetenv("LLM_TEST_PANIC");
    CHECK(count == 2 && strstr(last_message, "panic"));
    llm_log_set(NULL, NULL);
    llm_gguf_free(handle);
    CHECK(count == 2);

    /* After the callback is unset it is not running and never runs again. */
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, make_noise, handle) == 0);
    for (int i = 0; i < 2000; i++) {
        int alive = 1;
        llm_log_set(listen_to_noise, &alive);
        llm_log_set(NULL, NULL);
        __atomic_store_n(&alive, 0, __ATOMIC_SEQ_CST);
    }
    messages = 0;
    int alive = 1;
    llm_log_set(listen_to_noise, &alive);
    while (__atomic_load_n(&messages, __ATOMIC_SEQ_CST) < 1000)
        ;
    llm_log_set(NULL, NULL);
    alive = 0;
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static void after_fork(void)
{
    llm_gguf_t *gguf = open_tiny();
    llm_error_t *before = NULL;
    CHECK(llm_gguf_open("/none", LLM_NUL_TERMINATED, &gguf, &before) == LLM_STATUS_NOT_FOUND);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        llm_view_t key = {NULL, 0};
        FAILS(FAILED_PRECONDITION, llm_gguf_key_at(gguf, 0, &key, &error));
        CHECK(strstr(llm_error_message(error), "fork"));
        llm_error_free(error);
        CHECK(llm_error_status(before) == LLM_STATUS_NOT_FOUND);
        llm_error_free(before);
        CHECK(llm_gguf_version(gguf) == 0);
        llm_gguf_free(gguf);
        CHECK(same(llm_status_name(LLM_STATUS_IO), "IO") && llm_abi_version() == LLM_ABI_VERSION);
        _exit(42);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
    CHECK(llm_gguf_version(gguf) == 3); /* the parent goes on */
    llm_error_free(before);
    llm_gguf_free(gguf);
}

static llm_cancel_t *signalled;

static void on_signal(int number)
{
    (void)number;
    llm_cancel_request(signalled);
}

static void cancelling(void)
{
    OK(llm_cancel_new(&signalled, &error));
    CHECK(!llm_cancel_is_requested(signalled));
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    CHECK(llm_cancel_is_requested(signalled));
    llm_cancel_reset(signalled);
    CHECK(!llm_cancel_is_requested(signalled));
    CHECK(llm_cancel_retain(signalled) == signalled);
    llm_cancel_free(signalled);
    llm_cancel_request(signalled);
    CHECK(llm_cancel_is_requested(signalled));
    llm_cancel_free(signalled);
    CHECK(!llm_cancel_is_requested(NULL));
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"versions", versions},
        {"errors", errors},
        {"stale_handles", stale_handles},
        {"growing_structs", growing_structs},
        {"logging", logging},
        {"after_fork", after_fork},
        {"cancelling", cancelling},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
