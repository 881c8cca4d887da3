/* Making GGUF files, as a C program does it. */
#include "check.h"

/* A key or a name with its length. */
#define Z(text) text, LLM_NUL_TERMINATED

static size_t size_of_file(const char *path)
{
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return 0;
    fseek(stream, 0, SEEK_END);
    long size = ftell(stream);
    fclose(stream);
    return (size_t)size;
}

static int same_files(const char *a, const char *b)
{
    FILE *x = fopen(a, "rb"), *y = fopen(b, "rb");
    CHECK(x && y);
    int c, d;
    do {
        c = getc(x);
        d = getc(y);
    } while (c == d && c != EOF);
    fclose(x);
    fclose(y);
    return c == d;
}

/* Adds all tensors of a file. */
static void add_tensors(llm_gguf_writer_t *writer, const llm_gguf_t *gguf)
{
    for (size_t i = 0; i < llm_gguf_tensor_count(gguf); i++) {
        llm_tensor_info_t info = {.struct_size = sizeof info};
        OK(llm_gguf_tensor_info(gguf, i, &info, &error));
        OK(llm_gguf_writer_add_tensor(writer, info.name.data, info.name.size, info.type_id, info.dimensions,
                                      info.dimension_count, &error));
    }
}

/* Copies the data of all tensors, in pieces. */
static void copy_data(llm_gguf_writer_t *writer, const llm_gguf_t *gguf)
{
    for (size_t i = 0; i < llm_gguf_tensor_count(gguf); i++) {
        llm_tensor_info_t info = {.struct_size = sizeof info};
        OK(llm_gguf_tensor_info(gguf, i, &info, &error));
        char piece[1000];
        for (uint64_t at = 0; at < info.bytes;) {
            size_t n = info.bytes - at < sizeof piece ? (size_t)(info.bytes - at) : sizeof piece;
            OK(llm_gguf_tensor_read(gguf, i, at, piece, n, &error));
            OK(llm_gguf_writer_write(writer, info.name.data, info.name.size, piece, n, &error));
            at += n;
        }
    }
}

static void copying(void)
{
    llm_gguf_t *gguf = NULL;
    llm_gguf_writer_t *writer = NULL;
    OK(llm_gguf_open(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
    OK(llm_gguf_writer_new(&writer, &error));
    OK(llm_gguf_writer_copy_keys(writer, gguf, &error));
    add_tensors(writer, gguf);
    remove("copy.gguf");
    OK(llm_gguf_writer_open(writer, Z("copy.gguf"), &error));
    copy_data(writer, gguf);
    CHECK(size_of_file("copy.gguf") == 0);
    OK(llm_gguf_writer_finish(writer, &error));
    CHECK(same_files("copy.gguf", file("ok-tiny-model.gguf")));
    llm_gguf_writer_free(writer);
    llm_gguf_free(gguf);
}

static void making(void)
{
    llm_gguf_writer_t *writer = NULL;
    OK(llm_gguf_writer_new(&writer, &error));
    OK(llm_gguf_writer_set_u8(writer, Z("u8"), 255, &error));
    OK(llm_gguf_writer_set_i8(writer, Z("i8"), -128, &error));
    OK(llm_gguf_writer_set_u16(writer, Z("u16"), 65535, &error));
    OK(llm_gguf_writer_set_i16(writer, Z("i16"), -32768, &error));
    OK(llm_gguf_writer_set_u32(writer, Z("u32"), UINT32_MAX, &error));
    OK(llm_gguf_writer_set_i32(writer, Z("i32"), INT32_MIN, &error));
    OK(llm_gguf_writer_set_f32(writer, Z("f32"), 0.5f, &error));
    OK(llm_gguf_writer_set_bool(writer, Z("bool"), true, &error));
    OK(llm_gguf_writer_set_string(writer, Z("string"), "a\0\xff", 3, &error));
    const int16_t shorts[] = {1, -2, 3};
    OK(llm_gguf_writer_set_array(writer, Z("array"), LLM_GGUF_I16, shorts, sizeof shorts, &error));
    OK(llm_gguf_writer_set_u64(writer, Z("u64"), UINT64_MAX, &error));
    OK(llm_gguf_writer_set_i64(writer, Z("i64"), INT64_MIN, &error));
    OK(llm_gguf_writer_set_f64(writer, Z("f64"), 0.1, &error));
    const llm_view_t strings[] = {{"one", 3}, {NULL, 0}, {"\xc3", 1}};
    OK(llm_gguf_writer_set_strings(writer, Z("strings"), strings, 3, &error));
    OK(llm_gguf_writer_set_u32(writer, Z("general.alignment"), 256, &error));
    OK(llm_gguf_writer_set_u32(writer, Z("gone"), 1, &error));
    OK(llm_gguf_writer_remove(writer, Z("gone"), &error));
    const uint64_t dimensions[] = {2, 3};
    const float data_[6] = {1, 2, 3, 4, 5, 6};
    OK(llm_gguf_writer_add_tensor(writer, Z("t"), 0, dimensions, 2, &error));
    OK(llm_gguf_writer_open(writer, Z("made.gguf"), &error));
    OK(llm_gguf_writer_write(writer, Z("t"), data_, sizeof data_, &error));
    OK(llm_gguf_writer_finish(writer, &error));
    llm_gguf_writer_free(writer);

    llm_gguf_t *gguf = NULL;
    OK(llm_gguf_open(Z("made.gguf"), &gguf, &error));
    static const llm_gguf_type_t types[] = {
        LLM_GGUF_U8,  LLM_GGUF_I8,   LLM_GGUF_U16,    LLM_GGUF_I16,   LLM_GGUF_U32, LLM_GGUF_I32, LLM_GGUF_F32,
        LLM_GGUF_BOOL, LLM_GGUF_STRING, LLM_GGUF_ARRAY, LLM_GGUF_U64, LLM_GGUF_I64, LLM_GGUF_F64, LLM_GGUF_ARRAY,
        LLM_GGUF_U32,
    };
    CHECK(llm_gguf_key_count(gguf) == sizeof types / sizeof *types);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        llm_gguf_type_t type = -1;
        OK(llm_gguf_value_type(gguf, i, &type, &error));
        CHECK(type == types[i]);
    }
    uint64_t u = 0;
    int64_t s = 0;
    double f = 0;
    bool b = false;
    llm_view_t text = {NULL, 0};
    OK(llm_gguf_value_u64(gguf, Z("u64"), &u, &error));
    CHECK(u == UINT64_MAX);
    OK(llm_gguf_value_u64(gguf, Z("u8"), &u, &error));
    CHECK(u == 255);
    OK(llm_gguf_value_u64(gguf, Z("u16"), &u, &error));
    CHECK(u == 65535);
    OK(llm_gguf_value_u64(gguf, Z("u32"), &u, &error));
    CHECK(u == UINT32_MAX);
    OK(llm_gguf_value_i64(gguf, Z("i8"), &s, &error));
    CHECK(s == -128);
    OK(llm_gguf_value_i64(gguf, Z("i16"), &s, &error));
    CHECK(s == -32768);
    OK(llm_gguf_value_i64(gguf, Z("i32"), &s, &error));
    CHECK(s == INT32_MIN);
    OK(llm_gguf_value_i64(gguf, Z("i64"), &s, &error));
    CHECK(s == INT64_MIN);
    OK(llm_gguf_value_f64(gguf, Z("f32"), &f, &error));
    CHECK(f == 0.5);
    OK(llm_gguf_value_f64(gguf, Z("f64"), &f, &error));
    CHECK(f == 0.1);
    OK(llm_gguf_value_bool(gguf, Z("bool"), &b, &error));
    CHECK(b);
    OK(llm_gguf_value_string(gguf, Z("string"), &text, &error));
    CHECK(text.size == 3 && memcmp(text.data, "a\0\xff", 3) == 0);
    int16_t read[3] = {0};
    size_t count = 0;
    OK(llm_gguf_array_read(gguf, Z("array"), 0, read, sizeof read, &count, &error));
    CHECK(count == 3 && memcmp(read, shorts, sizeof shorts) == 0);
    llm_view_t texts[3];
    OK(llm_gguf_array_strings_at(gguf, Z("strings"), 0, texts, 3, &count, &error));
    CHECK(count == 3 && view_is(texts[0], "one") && texts[1].size == 0 && view_is(texts[2], "\xc3"));
    CHECK(llm_gguf_alignment(gguf) == 256);
    float decoded[6];
    OK(llm_gguf_tensor_decode(gguf, 0, decoded, 6, &error));
    CHECK(memcmp(decoded, data_, sizeof data_) == 0);
    llm_gguf_free(gguf);
}

static void splitting(void)
{
    llm_gguf_t *gguf = NULL;
    llm_gguf_writer_t *writer = NULL;
    OK(llm_gguf_open(file("ok-tiny-model.gguf"), LLM_NUL_TERMINATED, &gguf, &error));
    OK(llm_gguf_writer_new(&writer, &error));
    OK(llm_gguf_writer_copy_keys(writer, gguf, &error));
    add_tensors(writer, gguf);
    OK(llm_gguf_writer_open_split(writer, Z("parts.gguf"), 0, 6, &error));
    copy_data(writer, gguf);
    OK(llm_gguf_writer_finish(writer, &error));
    llm_gguf_writer_free(writer);
    llm_gguf_t *parts = NULL;
    OK(llm_gguf_open(Z("parts-00001-of-00002.gguf"), &parts, &error));
    CHECK(llm_gguf_tensor_count(parts) == llm_gguf_tensor_count(gguf));
    llm_tensor_info_t info = {.struct_size = sizeof info};
    OK(llm_gguf_tensor_info(parts, 5, &info, &error));
    CHECK(info.part == 0);
    OK(llm_gguf_tensor_info(parts, 6, &info, &error));
    CHECK(info.part == 1);
    llm_gguf_free(parts);
    llm_model_t *model = NULL;
    OK(llm_model_load(Z("parts-00001-of-00002.gguf"), NULL, NULL, &model, &error));
    llm_model_free(model);
    FAILS(INVALID_ARGUMENT, llm_gguf_open(Z("parts-00002-of-00002.gguf"), &parts, &error));
    CHECK(same(llm_error_get(error, "expected"), "parts-00001-of-00002.gguf"));
    llm_error_free(error);
    remove("parts-00002-of-00002.gguf");
    FAILS(NOT_FOUND, llm_gguf_open(Z("parts-00001-of-00002.gguf"), &parts, &error));
    llm_error_free(error);

    /* By bytes: each tensor of the model that is larger than this has a part of its own. */
    OK(llm_gguf_writer_new(&writer, &error));
    add_tensors(writer, gguf);
    OK(llm_gguf_writer_open_split(writer, Z("bytes"), 8000, 0, &error));
    copy_data(writer, gguf);
    OK(llm_gguf_writer_finish(writer, &error));
    llm_gguf_writer_free(writer);
    /* The embedding takes 16768 bytes, all others together fewer than 12000. */
    CHECK(size_of_file("bytes-00001-of-00003.gguf") > 16768);
    CHECK(size_of_file("bytes-00002-of-00003.gguf") > 0 && size_of_file("bytes-00002-of-00003.gguf") <= 8000);
    CHECK(size_of_file("bytes-00003-of-00003.gguf") > 0 && size_of_file("bytes-00003-of-00003.gguf") <= 8000);
    llm_gguf_free(gguf);
}

static void refusals(void)
{
    const uint64_t dimensions[] = {4, 1, 1, 1, 1};
    llm_gguf_writer_t *writer = NULL;
    OK(llm_gguf_writer_new(&writer, &error));
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_set_u8(writer, NULL, 0, 1, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_set_u32(writer, Z("general.alignment"), 3, &error));
    CHECK(same(llm_error_get(error, "key"), "general.alignment"));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_set_array(writer, Z("k"), LLM_GGUF_STRING, "a", 1, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_set_array(writer, Z("k"), LLM_GGUF_ARRAY, "a", 1, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_set_array(writer, Z("k"), LLM_GGUF_I16, "abc", 3, &error));
    llm_error_free(error);
    FAILS(NOT_FOUND, llm_gguf_writer_remove(writer, Z("k"), &error));
    llm_error_free(error);
    OK(llm_gguf_writer_add_tensor(writer, Z("t"), 0, dimensions, 1, &error));
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_add_tensor(writer, Z("t"), 0, dimensions, 1, &error));
    CHECK(same(llm_error_get(error, "tensor"), "t"));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_add_tensor(writer, Z("u"), 0, dimensions, 5, &error));
    llm_error_free(error);
    FAILS(UNSUPPORTED, llm_gguf_writer_add_tensor(writer, Z("u"), 4, dimensions, 1, &error));
    llm_error_free(error);
    FAILS(FAILED_PRECONDITION, llm_gguf_writer_write(writer, Z("t"), "abcd", 4, &error));
    llm_error_free(error);
    FAILS(FAILED_PRECONDITION, llm_gguf_writer_finish(writer, &error));
    llm_error_free(error);
    /* A failed open leaves the writer as it was. */
    FAILS(NOT_FOUND, llm_gguf_writer_open(writer, Z("no/such/folder/x.gguf"), &error));
    llm_error_free(error);
    OK(llm_gguf_writer_open(writer, Z("refused.gguf"), &error));
    FAILS(FAILED_PRECONDITION, llm_gguf_writer_open(writer, Z("refused.gguf"), &error));
    llm_error_free(error);
    FAILS(FAILED_PRECONDITION, llm_gguf_writer_set_u8(writer, Z("k"), 1, &error));
    llm_error_free(error);
    FAILS(INVALID_ARGUMENT, llm_gguf_writer_write(writer, Z("u"), "abcd", 4, &error));
    llm_error_free(error);
    OK(llm_gguf_writer_write(writer, Z("t"), "abcd", 4, &error));
    FAILS(FAILED_PRECONDITION, llm_gguf_writer_finish(writer, &error));
    CHECK(same(llm_error_get(error, "tensor"), "t") && same(llm_error_get(error, "found"), "4"));
    llm_error_free(error);
    FAILS(FAILED_PRECONDITION, llm_gguf_writer_write(writer, Z("t"), "abcd", 4, &error));
    llm_error_free(error);
    llm_gguf_writer_free(writer);
    CHECK(size_of_file("refused.gguf") == 0);

    OK(llm_gguf_writer_new(&writer, &error));
    OK(llm_gguf_writer_open(writer, Z("/dev/full"), &error));
    FAILS(IO, llm_gguf_writer_finish(writer, &error));
    CHECK(same(llm_error_get(error, "path"), "/dev/full"));
    llm_error_free(error);
    llm_gguf_writer_free(writer);
}

/* A model of other keys than its file has. */
static void overriding(void)
{
    llm_gguf_t *gguf = NULL, *other = NULL;
    llm_gguf_writer_t *keys = NULL;
    llm_model_t *model = NULL;
    llm_model_info_t info;
    info.struct_size = sizeof info;
    OK(llm_gguf_open(Z(file("ok-tiny-model.gguf")), &gguf, &error));
    OK(llm_gguf_writer_new(&keys, &error));
    OK(llm_gguf_writer_set_u32(keys, Z("llama.context_length"), 77, &error));
    OK(llm_gguf_with_keys(gguf, keys, &other, &error));
    OK(llm_model_load_gguf(other, NULL, NULL, &model, &error));
    llm_gguf_free(gguf);
    llm_gguf_free(other);
    OK(llm_model_info(model, &info, &error));
    CHECK(info.context_length == 77);
    llm_model_free(model);
    OK(llm_gguf_open(Z(file("ok-tiny-model.gguf")), &gguf, &error));
    OK(llm_gguf_writer_set_u32(keys, Z("general.alignment"), 64, &error));
    FAILS(INVALID_ARGUMENT, llm_gguf_with_keys(gguf, keys, &other, &error));
    llm_error_free(error);
    OK(llm_gguf_writer_open(keys, Z("keys.gguf"), &error));
    FAILS(FAILED_PRECONDITION, llm_gguf_with_keys(gguf, keys, &other, &error));
    llm_error_free(error);
    llm_gguf_writer_free(keys);
    llm_gguf_free(gguf);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"copying", copying},
        {"making", making},
        {"splitting", splitting},
        {"refusals", refusals},
        {"overriding", overriding},
    };
    return run_test(tests, sizeof tests / sizeof *tests, argc, argv);
}
