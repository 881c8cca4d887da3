/* Files and samplers, as a C program sees them. */
#include "check.h"

static unsigned char *contents;
static size_t contents_size;

static void read_contents(const char *name)
{
    FILE *stream = fopen(file(name), "rb");
    CHECK(stream);
    contents = malloc(1 << 20);
    CHECK(contents);
    contents_size = fread(contents, 1, 1 << 20, stream);
    fclose(stream);
}

static int released;
static int reads_fail;

static void release(void *user_data)
{
    CHECK(user_data == contents);
    released++;
}

static bool read_range(uint64_t offset, void *out, size_t size, void *user_data)
{
    CHECK(user_data == contents && offset + size <= contents_size);
    if (reads_fail)
        return false;
    memcpy(out, contents + offset, size);
    return true;
}

static void memory_and_readers(void)
{
    read_contents("ok-tiny-model.gguf");
    llm_gguf_t *gguf = NULL;

    /* Copied. */
    unsigned char *copy = malloc(contents_size);
    CHECK(copy);
    memcpy(copy, contents, contents_size);
    OK(llm_gguf_open_memory(copy, contents_size, NULL, NULL, &gguf, &error));
    memset(copy, 0, contents_size);
    free(copy);
    CHECK(llm_gguf_tensor_count(gguf) > 0);
    uint64_t value = 0;
    OK(llm_gguf_value_u64(gguf, "llama.block_count", LLM_NUL_TERMINATED, &value, &error));
    CHECK(value == 1);
    llm_gguf_free(gguf);

    /* Lent: released once, when the last reference is freed; not at all if the call fails. */
    OK(llm_gguf_open_memory(contents, contents_size, release, contents, &gguf, &error));
    CHECK(llm_gguf_retain(gguf) == gguf);
    llm_gguf_free(gguf);
    CHECK(released == 0);
    llm_gguf_free(gguf);
    CHECK(released == 1);
    FAILS(CORRUPT_FILE, llm_gguf_open_memory(contents, contents_size / 2, release, contents, &gguf, &error));
    llm_error_free(error);
    FAILS(CORRUPT_FILE, llm_gguf_open_memory(NULL, 0, release, contents, &gguf, &error));
    llm_error_free(error);
    CHECK(released == 1);

    /* Read by the caller. */
    OK(llm_gguf_open_reader(contents_size, read_range, release, contents, &gguf, &error));
    llm_tensor_info_t info;
    info.struct_size = sizeof info;
    OK(llm_gguf_tensor_info(gguf, 0, &info, &error));
    unsigned char first[16];
    OK(llm_gguf_tensor_read(gguf, 0, 0, first, sizeof first, &error));
    CHECK(memcmp(first, contents + info.offset, sizeof first) == 0);
    reads_fail = 1;
    FAILS(IO, llm_gguf_tensor_read(gguf, 0, 0, first, sizeof first, &error));
    llm_error_free(error);
    llm_gguf_free(gguf);
    CHECK(released == 2);
    FAILS(IO, llm_gguf_open_reader(contents_size, read_range, release, contents, &gguf, &error));
    llm_error_free(error);
    CHECK(released == 2);
    free(contents);
}

static void metadata(void)
{
    llm_gguf_t *gguf = NULL;
    OK(llm_gguf_open(file("ok-all-kv-types.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
    size_t keys = llm_gguf_key_count(gguf);
    CHECK(keys > 20);
    int types[13] = {0};
    for (size_t i = 0; i < keys; i++) {
        llm_view_t key = {NULL, 0}, text = {NULL, 0};
        llm_gguf_type_t type = -1, element = -1;
        size_t index = 0, count = 0, written = 0;
        OK(llm_gguf_key_at(gguf, i, &key, &error));
        OK(llm_gguf_key_find(gguf, key.data, key.size, &index, &error));
        CHECK(index == i);
        OK(llm_gguf_value_type(gguf, i, &type, &error));
        CHECK(type >= 0 && type <= 12);
        types[type]++;
        uint64_t u = 0;
        int64_t s = 0;
        double f = 0;
        bool b = false;
        int integer = type <= LLM_GGUF_I32 || type == LLM_GGUF_U64 || type == LLM_GGUF_I64;
        llm_status_t as_u = llm_gguf_value_u64(gguf, key.data, key.size, &u, NULL);
        llm_status_t as_s = llm_gguf_value_i64(gguf, key.data, key.size, &s, NULL);
        CHECK(integer == (as_u == LLM_STATUS_OK || as_s == LLM_STATUS_OK));
        if (as_u == LLM_STATUS_OK && as_s == LLM_STATUS_OK)
            CHECK(u == (uint64_t)s);
        llm_status_t as_f = llm_gguf_value_f64(gguf, key.data, key.size, &f, NULL);
        CHECK((integer || type == LLM_GGUF_F32 || type == LLM_GGUF_F64) == (as_f == LLM_STATUS_OK));
        CHECK((type == LLM_GGUF_BOOL) == (llm_gguf_value_bool(gguf, key.data, key.size, &b, NULL) == LLM_STATUS_OK));
        CHECK((type == LLM_GGUF_STRING)
              == (llm_gguf_value_string(gguf, key.data, key.size, &text, NULL) == LLM_STATUS_OK));
        /* By index it is the same. */
        uint64_t u_at = 0;
        int64_t s_at = 0;
        double f_at = 0;
        bool b_at = false;
        llm_view_t text_at = {NULL, 0};
        CHECK(llm_gguf_value_u64_at(gguf, i, &u_at, NULL) == as_u && u_at == u);
        CHECK(llm_gguf_value_i64_at(gguf, i, &s_at, NULL) == as_s && s_at == s);
        CHECK(llm_gguf_value_f64_at(gguf, i, &f_at, NULL) == as_f && memcmp(&f_at, &f, sizeof f) == 0);
        CHECK(llm_gguf_value_bool_at(gguf, i, &b_at, NULL) == llm_gguf_value_bool(gguf, key.data, key.size, &b, NULL));
        CHECK(b_at == b);
        CHECK(llm_gguf_value_string_at(gguf, i, &text_at, NULL)
              == llm_gguf_value_string(gguf, key.data, key.size, &text, NULL));
        CHECK(text_at.data == text.data && text_at.size == text.size);
        llm_status_t as_array = llm_gguf_array_info(gguf, key.data, key.size, &element, &count, NULL);
        CHECK((type == LLM_GGUF_ARRAY) == (as_array == LLM_STATUS_OK));
        if (type != LLM_GGUF_ARRAY)
            continue;
        unsigned char bytes[256];
        llm_view_t strings[8];
        llm_status_t read = llm_gguf_array_read(gguf, key.data, key.size, 0, bytes, sizeof bytes, &written, NULL);
        CHECK((element == LLM_GGUF_STRING) == (read == LLM_STATUS_INVALID_ARGUMENT));
        if (element != LLM_GGUF_STRING) {
            CHECK(written == count);
            /* From the second element on; a buffer that ends within an element holds those before it. */
            unsigned char rest[256];
            size_t width = element == LLM_GGUF_U64 || element == LLM_GGUF_I64 || element == LLM_GGUF_F64 ? 8
                : element == LLM_GGUF_U32 || element == LLM_GGUF_I32 || element == LLM_GGUF_F32          ? 4
                : element == LLM_GGUF_U16 || element == LLM_GGUF_I16                                     ? 2
                                                                                                         : 1;
            CHECK(count >= 2);
            OK(llm_gguf_array_read(gguf, key.data, key.size, 1, rest, 2 * width - 1, &written, &error));
            CHECK(written == 1 && memcmp(rest, bytes + width, width) == 0);
            OK(llm_gguf_array_read(gguf, key.data, key.size, SIZE_MAX, rest, sizeof rest, &written, &error));
            CHECK(written == 0);
        } else {
            OK(llm_gguf_array_strings_at(gguf, key.data, key.size, 0, strings, 8, &written, &error));
            CHECK(written == count);
            llm_view_t second[1];
            OK(llm_gguf_array_strings_at(gguf, key.data, key.size, 1, second, 1, &written, &error));
            CHECK(written == 1 && second[0].data == strings[1].data);
            OK(llm_gguf_array_strings_at(gguf, key.data, key.size, count, second, 1, &written, &error));
            CHECK(written == 0);
        }
    }
    for (int type = 0; type <= 12; type++)
        CHECK(types[type] > 0 || type == LLM_GGUF_STRING);
    llm_view_t key = {NULL, 0};
    size_t index = 0;
    FAILS(NOT_FOUND, llm_gguf_key_at(gguf, keys, &key, &error));
    llm_error_free(error);
    uint64_t none = 0;
    FAILS(NOT_FOUND, llm_gguf_value_u64_at(gguf, keys, &none, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_value_string_at(gguf, 0, &key, &error));
    CHECK(same(llm_error_get(error, "key"), "k0"));
    llm_error_free(error);
    FAILS(NOT_FOUND, llm_gguf_key_find(gguf, "no such key", LLM_NUL_TERMINATED, &index, &error));
    CHECK(same(llm_error_get(error, "key"), "no such key"));
    llm_error_free(error);
    FAILS(NOT_FOUND, llm_gguf_key_find(gguf, NULL, 0, &index, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_key_find(gguf, NULL, LLM_NUL_TERMINATED, &index, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_key_find(gguf, "ab\xff", 3, &index, &error));
    CHECK(same(llm_error_get(error, "offset"), "2"));
    llm_error_free(error);
    llm_gguf_free(gguf);
}

static void tensors(void)
{
    llm_gguf_t *gguf = NULL;
    OK(llm_gguf_open(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
    llm_view_t text = {NULL, 0};
    OK(llm_gguf_value_string(gguf, "general.architecture", LLM_NUL_TERMINATED, &text, &error));
    CHECK(view_is(text, "llama"));
    size_t count = llm_gguf_tensor_count(gguf);
    CHECK(count > 5 && llm_gguf_alignment(gguf) == 32);
    for (size_t i = 0; i < count; i++) {
        llm_tensor_info_t info;
        info.struct_size = sizeof info;
        OK(llm_gguf_tensor_info(gguf, i, &info, &error));
        size_t index = SIZE_MAX;
        OK(llm_gguf_tensor_find(gguf, info.name.data, info.name.size, &index, &error));
        CHECK(index == i && view_is(info.type_name, "F32") && info.type_id == 0);
        uint64_t elements = info.dimensions[0] * info.dimensions[1] * info.dimensions[2] * info.dimensions[3];
        CHECK(info.bytes == elements * 4);
        float *decoded = malloc(info.bytes), *raw = malloc(info.bytes);
        CHECK(decoded && raw);
        OK(llm_gguf_tensor_decode(gguf, i, decoded, elements, &error));
        OK(llm_gguf_tensor_read(gguf, i, 0, raw, info.bytes, &error));
        CHECK(memcmp(decoded, raw, info.bytes) == 0);
        FAILS(BUFFER_TOO_SMALL, llm_gguf_tensor_decode(gguf, i, decoded, elements - 1, &error));
        llm_error_free(error);
        FAILS(INVALID_ARGUMENT, llm_gguf_tensor_read(gguf, i, 1, raw, info.bytes, &error));
        llm_error_free(error);
        free(decoded);
        free(raw);
    }
    llm_tensor_info_t info;
    info.struct_size = sizeof info;
    FAILS(NOT_FOUND, llm_gguf_tensor_info(gguf, count, &info, &error));
    llm_error_free(error);
    size_t index = 0;
    FAILS(NOT_FOUND, llm_gguf_tensor_find(gguf, "none", LLM_NUL_TERMINATED, &index, &error));
    llm_error_free(error);
    llm_gguf_free(gguf);
}

static void sampling(void)
{
    float logits[4] = {0.1f, 2.0f, -1.0f, 2.0f};
    llm_token_t token = 99;
    llm_sampler_t *sampler = NULL;
    OK(llm_sampler_new_empty(7, &sampler, &error));
    OK(llm_sampler_add_penalties(sampler, 10.0f, 0.0f, 0.0f, 8, &error));
    OK(llm_sampler_add_top_k(sampler, 3, &error));
    OK(llm_sampler_add_top_p(sampler, 0.9f, 1, &error));
    OK(llm_sampler_add_min_p(sampler, 0.01f, 1, &error));
    OK(llm_sampler_add_temperature(sampler, 0.5f, &error));
    OK(llm_sampler_add_greedy(sampler, &error));
    OK(llm_sampler_sample(sampler, logits, 4, &token, &error));
    CHECK(token == 1); /* ties go to the smaller id */
    OK(llm_sampler_accept(sampler, 1, &error));
    OK(llm_sampler_sample(sampler, logits, 4, &token, &error));
    CHECK(token == 3);
    OK(llm_sampler_reset(sampler, &error));
    OK(llm_sampler_sample(sampler, logits, 4, &token, &error));
    CHECK(token == 1);
    FAILS(INVALID_ARGUMENT, llm_sampler_sample(sampler, NULL, 0, &token, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_sampler_add_temperature(sampler, 0.0f / 0.0f, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_sampler_add_top_p(sampler, 1.5f, 1, &error));
    llm_error_free(error);
    llm_sampler_free(sampler);

    llm_sampler_params_t params;
    llm_sampler_params_init(&params, sizeof params);
    params.temperature = 0.0f / 0.0f;
    FAILS(INVALID_ARGUMENT, llm_sampler_new(&params, &sampler, &error));
    llm_error_free(error);
    params.temperature = 0;
    OK(llm_sampler_new(&params, &sampler, &error));
    OK(llm_sampler_sample(sampler, logits, 4, &token, &error));
    CHECK(token == 1);
    llm_sampler_free(sampler);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"memory_and_readers", memory_and_readers},
        {"metadata", metadata},
        {"tensors", tensors},
        {"sampling", sampling},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
