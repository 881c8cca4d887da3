/* llm-inspect: what a GGUF file holds. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of an array, so many items are shown. */
enum { SHOWN = 8 };

static const char *type_name(llm_gguf_type_t type) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return type >= 0 && (size_t)type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

/* JSON has no infinities and no NaN. */
static void print_float(double value, int digits) {
    if (isfinite(value)) {
        printf("%.*g", digits, value);
    } else {
        fputs("null", stdout);
    }
}

/* Bytes as they are in the file, little-endian, as an integer. */
static uint64_t integer_at(const unsigned char *bytes, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static size_t type_size(llm_gguf_type_t type) {
    switch (type) {
    case LLM_GGUF_U8:
    case LLM_GGUF_I8:
    case LLM_GGUF_BOOL:
        return 1;
    case LLM_GGUF_U16:
    case LLM_GGUF_I16:
        return 2;
    case LLM_GGUF_U64:
    case LLM_GGUF_I64:
    case LLM_GGUF_F64:
        return 8;
    default:
        return 4;
    }
}

static void print_number(llm_gguf_type_t type, const unsigned char *bytes) {
    size_t size = type_size(type);
    uint64_t bits = integer_at(bytes, size);
    if (type == LLM_GGUF_F32) {
        uint32_t narrow = (uint32_t)bits;
        float value;
        memcpy(&value, &narrow, sizeof value);
        print_float(value, 9);
    } else if (type == LLM_GGUF_F64) {
        double value;
        memcpy(&value, &bits, sizeof value);
        print_float(value, 17);
    } else if (type == LLM_GGUF_BOOL) {
        fputs(bits != 0 ? "true" : "false", stdout);
    } else if (type == LLM_GGUF_U8 || type == LLM_GGUF_U16 || type == LLM_GGUF_U32 || type == LLM_GGUF_U64) {
        printf("%llu", (unsigned long long)bits);
    } else {
        /* The sign bit of the type, moved up to that of 64 bits. */
        uint64_t sign = (uint64_t)1 << (8 * size - 1);
        printf("%lld", (long long)(int64_t)((bits ^ sign) - sign));
    }
}

static void print_items(const llm_gguf_t *gguf, llm_view_t key, llm_gguf_type_t type) {
    llm_error_t *error = NULL;
    size_t count = 0;
    putchar('[');
    if (type == LLM_GGUF_STRING) {
        llm_view_t strings[SHOWN];
        check(llm_gguf_array_strings_at(gguf, key.data, key.size, 0, strings, SHOWN, &count, &error), &error);
        for (size_t i = 0; i < count; i++) {
            if (i > 0) fputs(", ", stdout);
            print_json_string(stdout, strings[i].data, strings[i].size);
        }
    } else {
        unsigned char bytes[SHOWN * 8];
        size_t size = type_size(type);
        check(llm_gguf_array_read(gguf, key.data, key.size, 0, bytes, SHOWN * size, &count, &error), &error);
        for (size_t i = 0; i < count; i++) {
            if (i > 0) fputs(", ", stdout);
            print_number(type, bytes + i * size);
        }
    }
    putchar(']');
}

static void print_scalar(const llm_gguf_t *gguf, llm_view_t key, llm_gguf_type_t type) {
    llm_error_t *error = NULL;
    uint64_t natural;
    int64_t integer;
    double number;
    bool truth;
    llm_view_t text;
    switch (type) {
    case LLM_GGUF_STRING:
        check(llm_gguf_value_string(gguf, key.data, key.size, &text, &error), &error);
        print_json_string(stdout, text.data, text.size);
        break;
    case LLM_GGUF_BOOL:
        check(llm_gguf_value_bool(gguf, key.data, key.size, &truth, &error), &error);
        fputs(truth ? "true" : "false", stdout);
        break;
    case LLM_GGUF_F32:
    case LLM_GGUF_F64:
        check(llm_gguf_value_f64(gguf, key.data, key.size, &number, &error), &error);
        print_float(number, type == LLM_GGUF_F32 ? 9 : 17);
        break;
    case LLM_GGUF_I8:
    case LLM_GGUF_I16:
    case LLM_GGUF_I32:
    case LLM_GGUF_I64:
        check(llm_gguf_value_i64(gguf, key.data, key.size, &integer, &error), &error);
        printf("%lld", (long long)integer);
        break;
    default:
        check(llm_gguf_value_u64(gguf, key.data, key.size, &natural, &error), &error);
        printf("%llu", (unsigned long long)natural);
        break;
    }
}

static void print_key(const llm_gguf_t *gguf, size_t index, bool json) {
    llm_error_t *error = NULL;
    llm_view_t key;
    llm_gguf_type_t type, element = 0;
    size_t length = 0;
    check(llm_gguf_key_at(gguf, index, &key, &error), &error);
    check(llm_gguf_value_type(gguf, index, &type, &error), &error);
    if (type == LLM_GGUF_ARRAY)
        check(llm_gguf_array_info(gguf, key.data, key.size, &element, &length, &error), &error);
    if (json) {
        printf("%s\n    ", index > 0 ? "," : "");
        print_json_string(stdout, key.data, key.size);
        printf(": {\"type\": \"%s\"", type_name(type));
        if (type == LLM_GGUF_ARRAY) printf(", \"items\": \"%s\", \"length\": %zu", type_name(element), length);
        fputs(", \"value\": ", stdout);
    } else {
        print_json_string(stdout, key.data, key.size);
        printf(type == LLM_GGUF_ARRAY ? ": %s of %zu %s " : ": %s ", type_name(type), length, type_name(element));
    }
    if (type == LLM_GGUF_ARRAY) {
        print_items(gguf, key, element);
    } else {
        print_scalar(gguf, key, type);
    }
    fputs(json ? "}" : "\n", stdout);
}

/* `split`: of several files, so that it is told which one holds the data. */
static void print_tensor(const llm_gguf_t *gguf, size_t index, bool split, bool json) {
    llm_error_t *error = NULL;
    llm_tensor_info_t info = {.struct_size = sizeof info};
    check(llm_gguf_tensor_info(gguf, index, &info, &error), &error);
    if (json) printf("%s\n    {\"name\": ", index > 0 ? "," : "");
    print_json_string(stdout, info.name.data, info.name.size);
    fputs(json ? ", \"type\": " : ": ", stdout);
    print_json_string(stdout, info.type_name.data, info.type_name.size);
    fputs(json ? ", \"shape\": [" : " [", stdout);
    for (uint32_t i = 0; i < info.dimension_count; i++)
        printf("%s%llu", i > 0 ? ", " : "", (unsigned long long)info.dimensions[i]);
    fputs("], ", stdout);
    if (json || split) printf(json ? "\"part\": %llu, " : "part %llu, ", (unsigned long long)info.part);
    printf(json ? "\"offset\": %llu, \"bytes\": %llu}" : "at %llu, %llu bytes\n", (unsigned long long)info.offset,
           (unsigned long long)info.bytes);
}

int main(int argc, char **argv) {
    const char *path = NULL;
    bool json = false;
    const option_t options[] = {
        {"--json", NULL, OPTION_FLAG, &json, "print a JSON object"},
    };
    read_options(argc, argv, "MODEL [--json]",
                 "Prints the metadata and the tensors of a GGUF file of any kind; one with arrays of arrays is not read.\n"
                 "Of an array its length and first items are shown. Shapes have the fastest dimension first; offsets\n"
                 "count from the start of the file, of a split one from that of the part, and parts from 0. In JSON a\n"
                 "number that is not finite is null.",
                 options, sizeof options / sizeof options[0], &path, 1);
    if (path == NULL) wrong_usage("MODEL is missing");

    llm_error_t *error = NULL;
    llm_gguf_t *gguf = NULL;
    check(llm_gguf_open(path, LLM_NUL_TERMINATED, &gguf, &error), &error);
    size_t keys = llm_gguf_key_count(gguf), tensors = llm_gguf_tensor_count(gguf);
    printf(json ? "{\n  \"version\": %lu,\n  \"alignment\": %llu,\n  \"metadata\": {" : "GGUF %lu, alignment %llu\n",
           (unsigned long)llm_gguf_version(gguf), (unsigned long long)llm_gguf_alignment(gguf));
    if (!json) printf("\n%zu keys\n", keys);
    for (size_t i = 0; i < keys; i++) print_key(gguf, i, json);
    if (json) {
        printf("%s},\n  \"tensors\": [", keys > 0 ? "\n  " : "");
    } else {
        printf("\n%zu tensors\n", tensors);
    }
    uint64_t parts = 0;
    bool split = llm_gguf_value_u64(gguf, "split.count", LLM_NUL_TERMINATED, &parts, NULL) == LLM_STATUS_OK && parts > 1;
    for (size_t i = 0; i < tensors; i++) print_tensor(gguf, i, split, json);
    if (json) printf("%s]\n}\n", tensors > 0 ? "\n  " : "");
    llm_gguf_free(gguf);
    finish_output();
    return 0;
}
