/* What the programs share: options, errors, files. C99 and POSIX over llm.h.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef LLM_EXAMPLES_COMMON_H
#define LLM_EXAMPLES_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "llm.h"

/* Exit codes besides 0: for wrong options, and for what the library calls an INVALID_ARGUMENT; and for all else. */
enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* What an option takes, and so what its `value` points to. */
typedef enum {
    OPTION_FLAG,  /* nothing; bool */
    OPTION_TEXT,  /* a text; const char * */
    OPTION_TEXTS, /* a text, each time that it is given; text_list_t */
    OPTION_COUNT, /* an integer; uint32_t */
    OPTION_SEED,  /* an integer; uint64_t */
    OPTION_FLOAT  /* a number; float */
} option_kind_t;

/* Texts in the order in which they were given; `items` is to be freed. */
typedef struct {
    const char **items;
    size_t count;
} text_list_t;

typedef struct {
    const char *name;     /* "--top-k" */
    const char *argument; /* "K", what it is called in the help; NULL for a flag */
    option_kind_t kind;
    void *value;          /* holds the default before, the given value after */
    const char *help;
} option_t;

/* Names the program for messages and reads its options. `--help` prints the help and exits 0; anything wrong prints
 * why and exits EXIT_USAGE. `usage` is what follows the program's name; `about` says what the program does.
 * `operands`: where the arguments without an option go, `operand_count` at most; those not given stay as they are. */
void read_options(int argc, char **argv, const char *usage, const char *about, const option_t *options, size_t count,
                  const char **operands, size_t operand_count);

/* Prints a message in printf's manner, hints at --help, exits EXIT_USAGE. */
void wrong_usage(const char *format, ...);

/* Prints a message in printf's manner, exits EXIT_FAILED. */
void fail(const char *format, ...);

/* Unless the status is OK, prints the library's message and exits: EXIT_USAGE if it is INVALID_ARGUMENT, else EXIT_FAILED.
 * The error is passed by its address so that it is read after the call that writes it: check(llm_…(…, &error), &error). */
void check(llm_status_t status, llm_error_t *const *error);

/* Flushes stdout and fails if something could not be written. */
void finish_output(void);

/* realloc that fails the program instead of returning NULL. */
void *must_realloc(void *memory, size_t count, size_t size);

/* The whole file ("-": standard input), to be freed. */
char *read_file(const char *path, size_t *size);

/* Token ids separated by commas or white space, to be freed. Wrong usage, naming `option`, if it is something else. */
llm_token_t *read_ids(const char *option, const char *text, size_t *count);

/* The tokens of a text, to be freed. */
llm_token_t *encode(const llm_tokenizer_t *tokenizer, const char *text, size_t size, uint32_t flags, size_t *count);

/* Loads a model, with the number of threads as LLM_THREADS_ has it. */
llm_model_t *load_model(const char *path, uint32_t threads);

/* The same with other keys than the file has. Each is KEY=TYPE:VALUE, where TYPE is int, float, bool or str. */
llm_model_t *load_model_with(const char *path, uint32_t threads, const text_list_t *overrides);
#define OVERRIDE_HELP "another value for a key of the file; TYPE is int, float, bool or str; may be given several times"

/* Writes a text as a JSON string. Bytes that are not UTF-8 become U+FFFD. */
void print_json_string(FILE *file, const char *text, size_t size);

/* Prints the text of a generation that was started, as it comes, and a line end; says why it ended. */
llm_finish_reason_t print_generation(llm_session_t *session);

/* What a program draws tokens with if its options say nothing, and these options, as rows of option_t. */
void usual_sampling(llm_sampler_params_t *sampling);
#define SAMPLING_USAGE "[--temp T] [--top-k K] [--top-p P] [--min-p P] [--seed S] [SAMPLING OPTION ...]"
#define SAMPLING_OPTIONS(sampling)                                                                                     \
    {"--temp", "T", OPTION_FLOAT, &(sampling).temperature, "temperature; 0 is greedy; default 0.8"},                   \
    {"--top-k", "K", OPTION_COUNT, &(sampling).top_k, "draw from the K most likely tokens; 0 is off; default 40"},     \
    {"--top-p", "P", OPTION_FLOAT, &(sampling).top_p, "draw from the likeliest tokens that sum to P; default 0.95"},   \
    {"--min-p", "P", OPTION_FLOAT, &(sampling).min_p, "drop tokens less likely than P times the best; default 0.05"},  \
    {"--seed", "S", OPTION_SEED, &(sampling).seed, "the same seed gives the same text; default 0"},                    \
    {"--typical", "P", OPTION_FLOAT, &(sampling).typical_p,                                                            \
     "keep the tokens of the most typical surprise that sum to P; default 1, off"},                                    \
    {"--top-n-sigma", "N", OPTION_FLOAT, &(sampling).top_n_sigma,                                                      \
     "drop logits more than N deviations below the best; default 0, off"},                                             \
    {"--xtc-probability", "P", OPTION_FLOAT, &(sampling).xtc_probability,                                              \
     "how often the top choices are excluded; default 0, never"},                                                      \
    {"--xtc-threshold", "P", OPTION_FLOAT, &(sampling).xtc_threshold,                                                  \
     "how likely a top choice is at least; default 0.1"},                                                              \
    {"--frequency-penalty", "X", OPTION_FLOAT, &(sampling).frequency_penalty,                                          \
     "off a recent token's logit each time it occurred; default 0"},                                                   \
    {"--presence-penalty", "X", OPTION_FLOAT, &(sampling).presence_penalty, "off a recent token's logit; default 0"},  \
    {"--dry-multiplier", "X", OPTION_FLOAT, &(sampling).dry_multiplier,                                                \
     "off what would continue a repetition; default 0, nothing"},                                                      \
    {"--dry-base", "X", OPTION_FLOAT, &(sampling).dry_base, "how that grows with each repeated token; default 1.75"},  \
    {"--dry-allowed-length", "N", OPTION_COUNT, &(sampling).dry_allowed_length,                                        \
     "repetitions up to N tokens are free; default 2"},                                                                \
    {"--dry-last-n", "N", OPTION_COUNT, &(sampling).dry_last_n,                                                        \
     "look for repetitions in the last N tokens; default 1024"},                                                       \
    {"--dynatemp-range", "R", OPTION_FLOAT, &(sampling).temperature_range,                                             \
     "move the temperature by up to R with certainty; default 0"},                                                     \
    {"--dynatemp-exponent", "X", OPTION_FLOAT, &(sampling).temperature_exponent, "the exponent of that; default 1"},   \
    {"--mirostat", "N", OPTION_COUNT, &(sampling).mirostat,                                                            \
     "1 or 2: that version in place of what truncates; default 0, off"},                                               \
    {"--mirostat-tau", "X", OPTION_FLOAT, &(sampling).mirostat_tau, "the surprise it aims at, in bits; default 5"},    \
    {"--mirostat-eta", "X", OPTION_FLOAT, &(sampling).mirostat_eta, "how fast it learns; default 0.1"}

/* A switch that Ctrl-C, SIGTERM and SIGHUP turn, until end_interrupts takes it away. One at a time. */
llm_cancel_t *begin_interrupts(void);
void end_interrupts(void);

/* Prints how far the work is, in printf's manner, in place of what it printed before: to standard error if it is a
 * terminal. Messages that follow begin on a line of their own, as does what is printed after end_progress. */
void print_progress(const char *format, ...);
void end_progress(void);

/* Prints how much of a file is written; `user_data` is the address of its name. Goes on. */
bool print_share(uint64_t done, uint64_t total, void *user_data);

/* Seconds on a clock that only goes forward. */
double now(void);

/* A file that appears under its name only when it is complete, with the permissions of the one that it replaces. One at a
 * time: a program that fails or is ended by a signal removes it. */
typedef struct {
    FILE *file;
    const char *path;
    char *target;    /* the path behind links */
    char *temporary; /* NULL for a device, a pipe or a file without a name, which is written as it is */
} output_t;

output_t open_output(const char *path);
void write_output(const output_t *output, const void *data, size_t size);
/* Flushes to the disk and gives the file its name. */
void commit_output(output_t *output);

/* The same, but if it cannot be done the program goes on: false, and errno says why. Between them the file is written to
 * directly; an error of that fails the commit. */
bool try_open_output(const char *path, output_t *output);
bool try_commit_output(output_t *output);

/* The number of a name, of `count` names in the order of their numbers. */
int32_t number_of(const char *option, const char *name, const char *const *names, int32_t count);

/* The value of --kv. */
llm_kv_type_t kv_type_of(const char *name);

#endif
