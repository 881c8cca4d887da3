/* llm-quantize: a model's file in smaller number formats. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

static void on_log(llm_log_level_t level, const char *message, size_t size, void *user_data) {
    (void)user_data;
    if (level > LLM_LOG_WARN) return;
    end_progress();
    fprintf(stderr, "%.*s\n", (int)size, message);
}

/* The number of a type that an option names. */
static uint32_t type_of(const char *option, const char *name) {
    uint32_t type = 0;
    if (name == NULL) return LLM_TYPE_OF_RECIPE;
    if (llm_gguf_type_find(name, LLM_NUL_TERMINATED, &type, NULL) != LLM_STATUS_OK)
        wrong_usage("%s takes the name of a number format such as Q6_K, not '%s'", option, name);
    return type;
}

/* The sizes of all tensors in bytes and in numbers. */
static void measure(const llm_gguf_t *gguf, double *bytes, double *numbers) {
    llm_error_t *error = NULL;
    *bytes = *numbers = 0;
    for (size_t i = 0; i < llm_gguf_tensor_count(gguf); i++) {
        llm_tensor_info_t info = {.struct_size = sizeof info};
        check(llm_gguf_tensor_info(gguf, i, &info, &error), &error);
        *bytes += (double)info.bytes;
        *numbers += (double)info.dimensions[0] * (double)info.dimensions[1] * (double)info.dimensions[2]
            * (double)info.dimensions[3];
    }
}

int main(int argc, char **argv) {
    const char *operands[3] = {NULL, NULL, NULL};
    const char *imatrix = NULL, *output_type = NULL, *embedding_type = NULL;
    uint32_t threads = LLM_THREADS_AUTO;
    const option_t options[] = {
        {"--imatrix", "F", OPTION_TEXT, &imatrix, "importances, which llm-imatrix makes: they improve small formats"},
        {"--output-type", "T", OPTION_TEXT, &output_type, "the format of the matrix of the logits"},
        {"--embedding-type", "T", OPTION_TEXT, &embedding_type, "the format of the embedding"},
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "IN OUT TYPE [--imatrix F] [--output-type T] [--embedding-type T] [-t THREADS]",
                 "Writes the model IN as OUT in smaller number formats. TYPE is F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S,\n"
                 "Q4_K_M, Q4_K_S, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K, Q2_K_S, IQ4_XS, IQ4_NL, Q5_1, Q5_0, Q4_1, Q4_0, TQ2_0,\n"
                 "TQ1_0 or MXFP4_MOE. A good IN is F32, F16 or BF16: quantising again costs accuracy.",
                 options, sizeof options / sizeof options[0], operands, 3);
    if (operands[0] == NULL) wrong_usage("IN, OUT and TYPE are missing");
    if (operands[1] == NULL) wrong_usage("OUT and TYPE are missing");
    if (operands[2] == NULL) wrong_usage("TYPE is missing");
    const char *in = operands[0], *out = operands[1], *type = operands[2];

    llm_error_t *error = NULL;
    llm_quantize_params_t params;
    llm_quantize_params_init(&params, sizeof params);
    params.threads = threads;
    params.output_type = type_of("--output-type", output_type);
    params.embedding_type = type_of("--embedding-type", embedding_type);
    params.progress = print_share;
    params.progress_user_data = &operands[1];
    llm_log_set(on_log, NULL);
    llm_cancel_t *cancel = begin_interrupts();

    llm_gguf_t *gguf = NULL;
    check(llm_gguf_open(in, LLM_NUL_TERMINATED, &gguf, &error), &error);
    double before = 0, after = 0, numbers = 0;
    measure(gguf, &before, &numbers);
    llm_status_t status = llm_gguf_quantize(gguf, out, LLM_NUL_TERMINATED, type, LLM_NUL_TERMINATED, imatrix,
                                       LLM_NUL_TERMINATED, &params, cancel, &error);
    check(status, &error);
    end_progress();
    llm_gguf_free(gguf);
    /* A device cannot be read back. Standard output may be what was written. */
    if (llm_gguf_open(out, LLM_NUL_TERMINATED, &gguf, NULL) == LLM_STATUS_OK) {
        measure(gguf, &after, &numbers);
        fprintf(stderr, "%.1f MiB -> %.1f MiB, %.2f bits per weight\n", before / 1048576, after / 1048576,
                numbers > 0 ? 8 * after / numbers : 0);
        llm_gguf_free(gguf);
    }
    end_interrupts();
    return 0;
}
