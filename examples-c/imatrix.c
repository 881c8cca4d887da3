/* llm-imatrix: which numbers of a model matter, found out with a text. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <stdlib.h>

static bool on_progress(uint64_t done, uint64_t total, void *user_data) {
    (void)user_data;
    print_progress("%lu of %lu chunks", (unsigned long)done, (unsigned long)total);
    return true;
}

int main(int argc, char **argv) {
    const char *model = NULL, *file = NULL, *out = NULL;
    uint32_t threads = LLM_THREADS_AUTO, chunk = 0;
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model, "the model, a GGUF file"},
        {"-f", "TEXT", OPTION_TEXT, &file, "the text, such as the model will see; - is standard input"},
        {"-o", "F", OPTION_TEXT, &out, "the file to write, for llm-quantize --imatrix"},
        {"-c", "CHUNK", OPTION_COUNT, &chunk, "tokens that see each other; 0 (default): 512"},
        {"-t", "THREADS", OPTION_COUNT, &threads, "threads; 0 (default): as many as physical cores"},
    };
    read_options(argc, argv, "-m MODEL -f TEXT -o F [-c CHUNK] [-t THREADS]",
                 "Runs a text through a model and writes how much each column of its matrices matters: the mean of the\n"
                 "squares of what it is multiplied with. The file is a GGUF, as llama.cpp's imatrix writes it.",
                 options, sizeof options / sizeof options[0], NULL, 0);
    if (model == NULL) wrong_usage("-m MODEL is missing");
    if (file == NULL) wrong_usage("-f TEXT is missing");
    if (out == NULL) wrong_usage("-o F is missing");

    llm_error_t *error = NULL;
    llm_imatrix_params_t params;
    llm_imatrix_params_init(&params, sizeof params);
    params.threads = threads;
    params.chunk_size = chunk;
    params.progress = on_progress;
    llm_cancel_t *cancel = begin_interrupts();

    size_t size = 0;
    char *text = read_file(file, &size);
    llm_gguf_t *gguf = NULL;
    check(llm_gguf_open(model, LLM_NUL_TERMINATED, &gguf, &error), &error);
    llm_status_t status = llm_gguf_imatrix(gguf, text, size, file, LLM_NUL_TERMINATED, out, LLM_NUL_TERMINATED, &params,
                                      cancel, &error);
    check(status, &error);
    end_progress();
    free(text);
    llm_gguf_free(gguf);
    end_interrupts();
    return 0;
}
