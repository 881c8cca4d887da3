/* llm-tokenize: text to token ids and back. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "common.h"

#include <stdlib.h>
#include <string.h>

static void print_ids(const llm_tokenizer_t *tokenizer, const char *text, size_t size, uint32_t flags) {
    size_t count = 0;
    llm_token_t *tokens = encode(tokenizer, text, size, flags, &count);
    putchar('[');
    for (size_t i = 0; i < count; i++) printf("%s%lu", i > 0 ? ", " : "", (unsigned long)tokens[i]);
    puts("]");
    free(tokens);
}

static void print_text(const llm_tokenizer_t *tokenizer, const llm_token_t *tokens, size_t count) {
    llm_bytes_t *text = NULL;
    llm_error_t *error = NULL;
    check(llm_tokenizer_decode(tokenizer, tokens, count, LLM_DECODE_SHOW_SPECIAL, &text, &error), &error);
    fwrite(llm_bytes_data(text), 1, llm_bytes_size(text), stdout);
    llm_bytes_free(text);
}

int main(int argc, char **argv) {
    const char *model = NULL, *prompt = NULL, *file = NULL, *ids = NULL;
    bool no_special = false, no_bos = false;
    const option_t options[] = {
        {"-m", "MODEL", OPTION_TEXT, &model, "the model, a GGUF file; one with the vocabulary only will do"},
        {"-p", "TEXT", OPTION_TEXT, &prompt, "the text"},
        {"-f", "FILE", OPTION_TEXT, &file, "the file with the text, any bytes; - is standard input"},
        {"--no-special", NULL, OPTION_FLAG, &no_special, "special tokens written in the text are ordinary text"},
        {"--no-bos", NULL, OPTION_FLAG, &no_bos, "add no tokens at the beginning and the end"},
        {"--decode", "IDS", OPTION_TEXT, &ids, "write the text of these ids (\"1,2,3\"), special tokens shown"},
    };
    read_options(argc, argv, "-m MODEL [-p TEXT | -f FILE] [--no-special] [--no-bos] [--decode IDS]",
                 "Prints the token ids of a text as a JSON array, or the text of token ids as raw bytes.", options,
                 sizeof options / sizeof options[0], NULL, 0);
    if (model == NULL) wrong_usage("-m MODEL is missing");
    if ((prompt != NULL) + (file != NULL) + (ids != NULL) != 1) wrong_usage("give one of -p, -f and --decode");

    size_t count = 0;
    llm_token_t *tokens = ids != NULL ? read_ids("--decode", ids, &count) : NULL;
    llm_tokenizer_t *tokenizer = NULL;
    llm_error_t *error = NULL;
    check(llm_tokenizer_load(model, LLM_NUL_TERMINATED, &tokenizer, &error), &error);

    uint32_t flags = (no_bos ? 0 : LLM_ENCODE_ADD_SPECIAL) | (no_special ? 0 : LLM_ENCODE_PARSE_SPECIAL);
    if (ids != NULL) {
        print_text(tokenizer, tokens, count);
    } else if (prompt != NULL) {
        print_ids(tokenizer, prompt, strlen(prompt), flags);
    } else {
        size_t size = 0;
        char *text = read_file(file, &size);
        print_ids(tokenizer, text, size, flags);
        free(text);
    }
    free(tokens);
    llm_tokenizer_free(tokenizer);
    finish_output();
    return 0;
}
