/* How fast llama.cpp makes tokens of a file: MB/s and the number of tokens. For benches/peer_tokenizers.py.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    timespec_get(&time, TIME_UTC);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    struct llama_model *model = llama_model_load_from_file(argv[1], params);
    FILE *file = fopen(argv[2], "rb");
    if (model == NULL || file == NULL || fseek(file, 0, SEEK_END) != 0) return 1;
    int32_t size = (int32_t)ftell(file);
    rewind(file);
    char *text = malloc((size_t)size);
    llama_token *tokens = malloc((size_t)size * sizeof *tokens);
    if (text == NULL || tokens == NULL || fread(text, 1, (size_t)size, file) != (size_t)size) return 1;
    double start = now();
    int32_t count = llama_tokenize(llama_model_get_vocab(model), text, size, tokens, size, false, false);
    printf("%.2f %d\n", size / (now() - start) / 1e6, (int)count);
    return 0;
}
