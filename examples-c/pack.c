/* llm-pack: a model's file packed for loading. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

int main(int argc, char **argv) {
    const char *operands[2] = {NULL, NULL};
    uint32_t threads = LLM_THREADS_AUTO;
    const option_t options[] = {
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "IN OUT [-t THREADS]",
                 "Writes the model IN as OUT with its matrices packed as the processor reads them: OUT loads in milliseconds,\n"
                 "and processes share its memory. Only this library loads it, and another version may not: keep IN.",
                 options, sizeof options / sizeof options[0], operands, 2);
    if (operands[0] == NULL) wrong_usage("IN and OUT are missing");
    if (operands[1] == NULL) wrong_usage("OUT is missing");
    const char *in = operands[0], *out = operands[1];

    llm_error_t *error = NULL;
    llm_model_params_t params;
    llm_model_params_init(&params, sizeof params);
    params.threads = threads;
    params.progress = print_share;
    params.progress_user_data = &operands[1];
    llm_cancel_t *cancel = begin_interrupts();

    llm_gguf_t *gguf = NULL;
    check(llm_gguf_open(in, LLM_NUL_TERMINATED, &gguf, &error), &error);
    llm_status_t status = llm_gguf_pack(gguf, out, LLM_NUL_TERMINATED, &params, cancel, &error);
    check(status, &error);
    end_progress();
    llm_gguf_free(gguf);
    end_interrupts();
    return 0;
}
