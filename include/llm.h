/**
 * @file llm.h
 * libllm: GGUF language models. This file is generated from src/capi by `LLM_BLESS=1 cargo test --test capi_header`;
 * include/llm_api.json says the same for programs. SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Status and errors. A function that can fail returns an llm_status_t and takes `llm_error_t **error` last, which may
 * be NULL. If it is not, *error is always written: NULL on success, a new object for the caller to free on failure (its
 * old value is neither read nor freed). All other outputs are written on success only, and a call that fails or is
 * cancelled leaves its object as it was, where its own text does not say otherwise. Any call can return INVALID_ARGUMENT
 * (an argument that is NULL without being marked @nullable, or outside its domain), FAILED_PRECONDITION (a poisoned
 * handle, a call in a child process after fork) and INTERNAL (a defect of the library: the exclusive object of that call
 * can only be freed then), and any that takes a struct UNSUPPORTED (a reserved field, or one of a newer header, is not
 * zero); @status names the others.
 *
 * A process that used the library and forks keeps it in the parent; in the child every call but those on errors fails.
 *
 * Objects. Shared objects (llm_gguf_t, llm_model_t, llm_tokenizer_t, llm_lora_t, llm_grammar_t, llm_cancel_t,
 * llm_paged_cache_t, llm_engine_t) are reference counted (_retain, _free) and may be used from any number of threads at
 * once; but for the last three they do not change. Exclusive objects (llm_session_t, llm_sampler_t, llm_decoder_t,
 * llm_gguf_writer_t, llm_messages_t, llm_request_t, llm_events_t) belong to one call at a time: entered twice they return
 * BUSY, from another thread and from their own callbacks alike. Results (llm_beams_t, llm_bytes_t, llm_error_t) only
 * answer questions, on any thread, and are freed once. Objects keep alive what they need, so the order of frees does not matter; a free
 * while a call is running takes effect when that call ends; freeing NULL does nothing. Handles that a function returns
 * are the caller's to free, unless it says otherwise. A handle of another kind is refused in every build. Using one
 * that was freed is a defect of the caller: builds with the feature check-handles, debug builds among them, answer
 * FAILED_PRECONDITION; others answer so where they can see it.
 *
 * Text in is a pointer and a length in bytes, or a zero-terminated string and LLM_NUL_TERMINATED; with length 0 the
 * pointer may be NULL. It is UTF-8, and any bytes where a tokenizer takes it. Text out is an llm_view_t (borrowed: each
 * function says for how long) or an llm_bytes_t (the caller's). Buffers may likewise be NULL when their capacity is 0.
 * What a call writes to must not overlap what it reads from, nor anything else that it writes to. Shapes are row by row;
 * V is vocab_size and D embedding_length of llm_model_info_t, other letters are named where they stand.
 *
 * The header is C99 and C++98.
 *
 * Structs begin with struct_size, which is sizeof of the struct as the caller was compiled. Fields may be added at the
 * end: older callers keep working, and newer ones if the fields that this library does not know are zero. For parameters
 * call the _init function; for a struct that the library fills set struct_size. Reserved fields are zero.
 *
 * Callbacks run on the thread of the call that takes them unless they say otherwise; they must not throw, unwind or
 * longjmp through the library. Calls compute in the default float environment (round to nearest, subnormal numbers are
 * kept), give the thread its own back, and run callbacks in theirs: a callback must leave it as it is. A thread that
 * calls needs 256 KiB of stack, beside what callbacks take.
 *
 * Only the failure of a small allocation may abort the process: of an object's own size, of a name or a message. Every
 * allocation whose size depends on a file or on an argument gives OUT_OF_MEMORY, but within the libraries that read JSON
 * and compile templates and grammars; each text that these are given is limited, to 32 MiB in a conversation and 64 KiB of a grammar.
 */
#ifndef LLM_H
#define LLM_H


#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(LLM_STATIC)
#define LLM_API __declspec(dllimport)
#else
#define LLM_API
#endif

/* A result that must be looked at. (Not for gcc before C23 and C++17: its attribute minds a cast to void, too.) */
#if (defined(__cplusplus) && __cplusplus >= 201703L) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 202311L)
#define LLM_NODISCARD [[nodiscard]]
#elif defined(__clang__)
#define LLM_NODISCARD __attribute__((warn_unused_result))
#else
#define LLM_NODISCARD
#endif

/* Whether a pointer may be NULL, for clang and for languages that import this header through it. */
#if defined(__clang__)
#define LLM_NONNULL _Nonnull
#define LLM_NULLABLE _Nullable
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wnullability-completeness"
#pragma clang diagnostic ignored "-Wnullability-extension"
#else
#define LLM_NONNULL
#define LLM_NULLABLE
#endif

/** As a length: the text ends at its first zero byte. */
#define LLM_NUL_TERMINATED SIZE_MAX

/**
 * The version of this header; llm_version() tells the library's.
 */
#define LLM_VERSION_MAJOR 0

/**
 * See LLM_VERSION_MAJOR.
 */
#define LLM_VERSION_MINOR 1

/**
 * See LLM_VERSION_MAJOR.
 */
#define LLM_VERSION_PATCH 0

/**
 * The version of the binary interface: a program runs with a library of the same number. While the major version
 * is 0 it is the minor version.
 */
#define LLM_ABI_VERSION 1

/**
 * As a number of threads: as many as the machine has physical cores.
 */
#define LLM_THREADS_AUTO 0

/**
 * As a number of threads: the calling thread alone, no thread is started.
 */
#define LLM_THREADS_CALLER 4294967295u

/**
 * As the number of a type: the one that the recipe says.
 */
#define LLM_TYPE_OF_RECIPE 4294967295u

/**
 * A flag of encoding: add the tokens that the model wants at the start and the end (BOS, EOS).
 */
#define LLM_ENCODE_ADD_SPECIAL 1

/**
 * A flag of encoding: special tokens written in the text ("<|im_start|>") become those tokens. Not for text from
 * strangers.
 */
#define LLM_ENCODE_PARSE_SPECIAL 2

/**
 * A flag of decoding: special tokens appear as their text; without it they give nothing. Unused tokens never give any.
 */
#define LLM_DECODE_SHOW_SPECIAL 1

/**
 * A flag of llm_tokenizer_decode: remove spaces before punctuation if the tokenizer's own decoder does
 * (llm_tokenizer_info_t::cleans_up_spaces). The text is then not the tokens' pieces put together.
 */
#define LLM_DECODE_CLEAN_UP_SPACES 2

/**
 * A flag of llm_embed_params_t: each vector is divided by its Euclidean length, so that the dot product of two is the
 * cosine of the angle between them. A vector of zeros stays.
 */
#define LLM_EMBED_NORMALIZE 1

/**
 * A flag of llm_generate_params_t: end-of-generation tokens do not end it; they are appended like others. With a grammar
 * they end it all the same.
 */
#define LLM_GENERATE_IGNORE_EOG 1

/**
 * For llm_messages_render and llm_session_append_messages: with the beginning of the assistant's next message, so that
 * the model goes on with it (add_generation_prompt).
 */
#define LLM_MESSAGES_ANSWER 1

/**
 * A flag of llm_request_params_t: llm_events_logprobs tells the log probabilities of the tokens that are chosen.
 */
#define LLM_REQUEST_LOGPROBS 2

/**
 * The continuations that llm_session_beam_search found, best first. They do not change.
 *
 * @code{.c}
 * llm_beams_t *beams;
 * if (llm_session_beam_search(session, NULL, &beams, &error) == LLM_STATUS_OK) {
 *     llm_beam_t best;
 *     best.struct_size = sizeof best;
 *     if (llm_beams_get(beams, 0, &best, &error) == LLM_STATUS_OK)
 *         fwrite(best.text.data, 1, best.text.size, stdout);
 *     llm_beams_free(beams);
 * }
 * @endcode
 */
typedef struct llm_beams_t llm_beams_t;

/**
 * Bytes made by the library and owned by the caller. They do not change.
 *
 * @code{.c}
 * llm_bytes_t *text;
 * if (llm_tokenizer_decode(tokenizer, tokens, count, 0, &text, NULL) == LLM_STATUS_OK) {
 *     fwrite(llm_bytes_data(text), 1, llm_bytes_size(text), stdout);
 *     llm_bytes_free(text);
 * }
 * @endcode
 */
typedef struct llm_bytes_t llm_bytes_t;

/**
 * A switch that stops calls: pass it to a load, or set it on a session, and request from any thread. Calls look at it
 * when they begin and between layers, and return CANCELLED. Shared, reference counted; it stays requested until it is
 * reset.
 *
 * @code{.c}
 * static llm_cancel_t *cancel; // as long as anyone may request
 * static void on_interrupt(int number) { (void)number; llm_cancel_request(cancel); }
 * // ...
 * if (llm_cancel_new(&cancel, NULL) == LLM_STATUS_OK && llm_session_set_cancel(session, cancel, NULL) == LLM_STATUS_OK)
 *     signal(SIGINT, on_interrupt);
 * // ... when the handler is gone:
 * llm_cancel_free(cancel);
 * @endcode
 */
typedef struct llm_cancel_t llm_cancel_t;

/**
 * Turns tokens into text one by one and never splits a UTF-8 character. Exclusive. It keeps its tokenizer alive.
 *
 * @code{.c}
 * llm_view_t text;
 * while (more(&token) && llm_decoder_push(decoder, token, &text, NULL) == LLM_STATUS_OK)
 *     fwrite(text.data, 1, text.size, stdout);
 * if (llm_decoder_finish(decoder, &text, NULL) == LLM_STATUS_OK)
 *     fwrite(text.data, 1, text.size, stdout);
 * @endcode
 */
typedef struct llm_decoder_t llm_decoder_t;

/**
 * Processes many requests together; the output of each is, bit for bit, what it would be in a session of its own.
 * Shared, reference counted: any thread may submit and cancel, and one at a time polls or waits, which is when the
 * work is done.
 *
 * Keys and values are kept in pages. Requests that begin alike share them, so a common beginning is processed once. When
 * pages run out, the last request in the order of priority and arrival gives up its own, and is computed again later.
 *
 * @code{.c}
 * llm_engine_t *engine = NULL;
 * llm_request_t *request = NULL;
 * llm_events_t *events = NULL;
 * llm_request_id_t id;
 * bool going = llm_engine_new(model, NULL, &engine, &error) == LLM_STATUS_OK
 *     && llm_request_new(&request, &error) == LLM_STATUS_OK
 *     && llm_events_new(&events, &error) == LLM_STATUS_OK
 *     && llm_request_set_text(request, tokenizer, "Once", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, &error)
 *         == LLM_STATUS_OK
 *     && llm_engine_submit(engine, request, &id, &error) == LLM_STATUS_OK;
 * while (going && llm_engine_wait(engine, UINT64_MAX, events, &going, &error) == LLM_STATUS_OK) {
 *     for (size_t i = 0; i < llm_events_count(events); i++) {
 *         llm_event_t event;
 *         event.struct_size = sizeof event;
 *         going = llm_events_get(events, i, &event, &error) == LLM_STATUS_OK && going;
 *         if (error != NULL) break;
 *         fwrite(event.text.data, 1, event.text.size, stdout);
 *         if (event.status != LLM_STATUS_OK)
 *             fprintf(stderr, "failed: %.*s\n", (int)event.message.size, event.message.data);
 *     }
 * }
 * if (error != NULL) fprintf(stderr, "%s\n", llm_error_message(error));
 * llm_error_free(error);
 * llm_events_free(events);
 * llm_request_free(request);
 * llm_engine_free(engine);
 * @endcode
 */
typedef struct llm_engine_t llm_engine_t;

/**
 * Why a call failed: status, message, and the facts behind it by key ("path", "tensor", "expected", "found", …).
 *
 * It may be read from any thread and does not change.
 *
 * @code{.c}
 * llm_error_t *error = NULL;
 * if (llm_gguf_open("model.gguf", LLM_NUL_TERMINATED, &gguf, &error) != LLM_STATUS_OK) {
 *     fprintf(stderr, "%s: %s\n", llm_status_name(llm_error_status(error)), llm_error_message(error));
 *     llm_error_free(error);
 * }
 * @endcode
 */
typedef struct llm_error_t llm_error_t;

/**
 * What an engine reports: a list that each llm_engine_poll or llm_engine_wait fills anew. Exclusive.
 *
 * @code{.c}
 * bool more;
 * if (llm_engine_poll(engine, 4000, events, &more, &error) == LLM_STATUS_OK) {
 *     for (size_t i = 0; i < llm_events_count(events); i++) {
 *         llm_event_t event;
 *         event.struct_size = sizeof event;
 *         if (llm_events_get(events, i, &event, &error) == LLM_STATUS_OK && event.status != LLM_STATUS_OK)
 *             printf("failed: %.*s\n", (int)event.message.size, event.message.data);
 *     }
 * }
 * @endcode
 */
typedef struct llm_events_t llm_events_t;

/**
 * A GGUF file (version 2 or 3): its metadata by key, its tensors by index. Shared, reference counted.
 *
 * The metadata stays in memory (or mapped) while it lives, tensors are read when asked for.
 *
 * @code{.c}
 * llm_gguf_t *gguf;
 * if (llm_gguf_open("model.gguf", LLM_NUL_TERMINATED, &gguf, &error) == LLM_STATUS_OK) {
 *     llm_view_t architecture;
 *     if (llm_gguf_value_string(gguf, "general.architecture", LLM_NUL_TERMINATED, &architecture, NULL) == LLM_STATUS_OK)
 *         printf("%.*s\n", (int)architecture.size, architecture.data);
 *     llm_gguf_free(gguf);
 * }
 * @endcode
 */
typedef struct llm_gguf_t llm_gguf_t;

/**
 * A GGUF file that is being made: set its keys, add its tensors, open it, write the tensors' data in the same order,
 * finish it. Exclusive.
 *
 * The data go to a temporary file beside the one that is wanted, which takes its name in llm_gguf_writer_finish, when
 * all is on the disk. Freed before that, a writer leaves no file, and an old one as it was.
 *
 * @code{.c}
 * llm_gguf_writer_t *writer;
 * const uint64_t dimensions[] = {4, 2}; // the fastest first: 2 rows of 4
 * const float data[8] = {0};
 * if (llm_gguf_writer_new(&writer, &error) != LLM_STATUS_OK) return 1;
 * llm_status_t status = llm_gguf_writer_set_string(writer, "general.architecture", LLM_NUL_TERMINATED, "mine",
 *                                                  LLM_NUL_TERMINATED, &error);
 * if (status == LLM_STATUS_OK)
 *     status = llm_gguf_writer_add_tensor(writer, "weights", LLM_NUL_TERMINATED, 0, dimensions, 2, &error);
 * if (status == LLM_STATUS_OK) status = llm_gguf_writer_open(writer, "mine.gguf", LLM_NUL_TERMINATED, &error);
 * if (status == LLM_STATUS_OK)
 *     status = llm_gguf_writer_write(writer, "weights", LLM_NUL_TERMINATED, data, sizeof data, &error);
 * if (status == LLM_STATUS_OK) status = llm_gguf_writer_finish(writer, &error);
 * llm_gguf_writer_free(writer);
 * @endcode
 */
typedef struct llm_gguf_writer_t llm_gguf_writer_t;

/**
 * A shape that generated text is to have: at each token only those can be chosen that a text of the grammar may go on
 * with. Shared, reference counted; any number of sessions and requests may use it at a time.
 *
 * A generation ends with LLM_FINISH_GRAMMAR when nothing may follow. Where the text may end or go on, the model decides:
 * tokens that end a generation can be chosen exactly there. A generation that ends for another reason (its length, a
 * stop string) leaves the beginning of such a text.
 *
 * @code{.c}
 * const char *schema = "{\"type\": \"object\", \"properties\": {\"age\": {\"type\": \"integer\"}}, \"required\": [\"age\"]}";
 * llm_grammar_t *grammar = NULL;
 * if (llm_grammar_new(tokenizer, LLM_GRAMMAR_JSON_SCHEMA, schema, LLM_NUL_TERMINATED, &grammar, &error) != LLM_STATUS_OK
 *     || llm_session_set_grammar(session, grammar, &error) != LLM_STATUS_OK)
 *     fprintf(stderr, "%s\n", llm_error_message(error));
 * llm_grammar_free(grammar); // the session keeps it
 * @endcode
 */
typedef struct llm_grammar_t llm_grammar_t;

/**
 * A LoRA adapter for a model: for some matrices W of the model it stands for W + scale * alpha / R * B A. Shared,
 * reference counted, and independent of the file. A session that it is added to computes with it; the model and other
 * sessions are not changed. Files are those of llama.cpp's converter.
 *
 * @code{.c}
 * llm_lora_t *lora = NULL;
 * if (llm_lora_load(model, "adapter.gguf", LLM_NUL_TERMINATED, &lora, &error) != LLM_STATUS_OK
 *     || llm_session_add_lora(session, lora, 1.0f, &error) != LLM_STATUS_OK) // before the session has tokens
 *     fprintf(stderr, "%s\n", llm_error_message(error));
 * llm_lora_free(lora); // the session keeps it
 * @endcode
 */
typedef struct llm_lora_t llm_lora_t;

/**
 * A conversation: messages, tools, and variables of the model's chat template. Exclusive.
 *
 * A message is a JSON object in the form of the common chat APIs: "role" ("system", "user", "assistant", "tool"),
 * "content" (a text, or parts like {"type": "text", "text": "..."}), and where they apply "reasoning_content",
 * "tool_calls" ([{"id": "...", "type": "function", "function": {"name": "...", "arguments": {...}}}]),
 * "tool_call_id", "name".
 *
 * The model's chat template, a program in jinja2's language inside its file, makes text of it. Templates are not
 * trusted: they reach nothing outside, and time, depth and output are limited (a template of 256 KiB, 2,000,000 steps
 * and more for long conversations, 32 MiB of output). Special tokens that are written in a message's content become
 * these tokens: remove them from texts of strangers.
 *
 * @code{.c}
 * llm_messages_t *messages = NULL;
 * if (llm_messages_new(&messages, &error) == LLM_STATUS_OK
 *     && llm_messages_add(messages, "user", LLM_NUL_TERMINATED, "Hello!", LLM_NUL_TERMINATED, &error)
 *         == LLM_STATUS_OK
 *     && llm_session_append_messages(session, messages, LLM_MESSAGES_ANSWER, NULL, &error) == LLM_STATUS_OK
 *     && llm_session_generate(session, print_token, NULL, &finish, &error) == LLM_STATUS_OK
 *     && llm_session_answer(session, messages, &error) == LLM_STATUS_OK) {
 *     // messages now ends with the assistant's; add the user's next, and append again: only what is new is processed
 * }
 * llm_messages_free(messages);
 * @endcode
 */
typedef struct llm_messages_t llm_messages_t;

/**
 * A model: weights, configuration, tokenizer. Shared, reference counted: load it once and give every conversation a
 * session of its own.
 *
 * @code{.c}
 * llm_model_params_t params;
 * llm_model_params_init(&params, sizeof params);
 * llm_model_t *model;
 * if (llm_model_load("model.gguf", LLM_NUL_TERMINATED, &params, NULL, &model, &error) == LLM_STATUS_OK) {
 *     // llm_session_new(model, NULL, &session, &error) …
 *     llm_model_free(model);
 * }
 * @endcode
 */
typedef struct llm_model_t llm_model_t;

/**
 * Keys and values of many sequences in pages of one pool. A forked sequence shares all pages with the one it came from;
 * who first writes to a page that others have too gets a copy of it (copy-on-write). Shared, reference counted:
 * different sequences can be used by different threads at the same time, the same one by one call at a time (BUSY
 * otherwise).
 *
 * Sessions of a model keep their tokens in it with llm_session_new_in_pages; those with a common beginning then share
 * it. On its own it serves engines that have models of their own:
 *
 * @code{.c}
 * llm_paged_cache_params_t params;
 * llm_paged_cache_params_init(&params, sizeof params);
 * params.num_layers = 2;
 * params.num_kv_heads = 4;
 * params.head_dim = 64;
 * params.max_pages = 1000;
 * llm_paged_cache_t *cache = NULL;
 * llm_sequence_t sequence, fork;
 * if (llm_paged_cache_new(&params, &cache, &error) == LLM_STATUS_OK
 *     && llm_paged_cache_create_sequence(cache, &sequence, &error) == LLM_STATUS_OK) {
 *     // for each token, in each layer:
 *     // llm_paged_cache_append_token(cache, sequence, layer, k, v, &error)
 *     // llm_paged_cache_attention(cache, sequence, layer, q, 1, NULL, out, capacity, &error)
 *     if (llm_paged_cache_fork_sequence(cache, sequence, &fork, &error) != LLM_STATUS_OK)
 *         fprintf(stderr, "%s\n", llm_error_message(error));
 * }
 * llm_paged_cache_free(cache);
 * @endcode
 */
typedef struct llm_paged_cache_t llm_paged_cache_t;

/**
 * A prompt and how it is to go on, for llm_engine_submit, which copies it: it may be changed and submitted again.
 * Exclusive.
 *
 * @code{.c}
 * llm_request_t *request;
 * llm_request_id_t id;
 * if (llm_request_new(&request, &error) == LLM_STATUS_OK) {
 *     llm_request_params_t params;
 *     llm_request_params_init(&params, sizeof params);
 *     params.max_tokens = 100;
 *     if (llm_request_set_params(request, &params, &error) == LLM_STATUS_OK
 *         && llm_request_set_text(request, tokenizer, "Once", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, &error)
 *             == LLM_STATUS_OK
 *         && llm_engine_submit(engine, request, &id, &error) == LLM_STATUS_OK)
 *         printf("request %llu\n", (unsigned long long)id);
 *     llm_request_free(request);
 * }
 * @endcode
 */
typedef struct llm_request_t llm_request_t;

/**
 * A chain of samplers and a random generator: the same seed gives the same tokens everywhere. Exclusive.
 *
 * @code{.c}
 * llm_sampler_params_t params;
 * llm_sampler_params_init(&params, sizeof params);
 * params.temperature = 0.7f;
 * params.seed = 42;
 * llm_sampler_t *sampler;
 * if (llm_sampler_new(&params, &sampler, &error) == LLM_STATUS_OK) {
 *     // llm_session_start(session, sampler, NULL, &error) takes a copy of it
 *     llm_sampler_free(sampler);
 * }
 * @endcode
 */
typedef struct llm_sampler_t llm_sampler_t;

/**
 * One conversation: the tokens so far, their keys and values, and how to go on. Exclusive. It keeps its model alive.
 *
 * A generation begins with llm_session_start, or with the first llm_session_next after tokens were appended. It ends
 * with a finish reason; llm_session_next is then FAILED_PRECONDITION until another begins. llm_session_start, appending,
 * truncating and resetting begin another: tokens are counted anew and text that was withheld is dropped, unless
 * llm_session_flush gave it out before. The sampler is set back to its seed by all but appending.
 *
 * A model of the architecture "bert" or "nomic-bert", or one whose file says that it is not causal, is an encoder: its sessions give embeddings (llm_session_embed),
 * and appending to them is FAILED_PRECONDITION.
 *
 * @code{.c}
 * llm_session_t *session = NULL;
 * if (llm_session_new(model, NULL, &session, &error) == LLM_STATUS_OK
 *     && llm_session_append_text(session, "Once upon a time", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, NULL, &error)
 *         == LLM_STATUS_OK
 *     && llm_session_start(session, NULL, NULL, &error) == LLM_STATUS_OK) {
 *     llm_token_t token;
 *     llm_view_t text;
 *     llm_finish_reason_t finish = LLM_FINISH_NONE;
 *     while (finish == LLM_FINISH_NONE && llm_session_next(session, &token, &text, &finish, &error) == LLM_STATUS_OK)
 *         fwrite(text.data, 1, text.size, stdout);
 * }
 * if (error != NULL) fprintf(stderr, "%s\n", llm_error_message(error));
 * llm_error_free(error);
 * llm_session_free(session);
 * @endcode
 */
typedef struct llm_session_t llm_session_t;

/**
 * A tokenizer. Shared, reference counted; llm_model_tokenizer gives a model's own.
 *
 * @code{.c}
 * size_t count;
 * llm_token_t tokens[512];
 * if (llm_tokenizer_encode(tokenizer, "Hello", LLM_NUL_TERMINATED, LLM_ENCODE_ADD_SPECIAL, tokens, 512, &count, &error)
 *     == LLM_STATUS_OK)
 *     printf("%zu tokens\n", count);
 * @endcode
 */
typedef struct llm_tokenizer_t llm_tokenizer_t;

/**
 * How a call ended: one of LLM_STATUS_. Numbers are never reused, and new ones may come.
 */
typedef int32_t llm_status_t;

/**
 * How much a message matters: one of LLM_LOG_.
 */
typedef int32_t llm_log_level_t;

/**
 * Receives a message: UTF-8 of `size` bytes, not zero-terminated, borrowed for the call.
 *
 * Called on the thread that has something to say, on several at once, with no lock held; it may call the library,
 * whose messages during that are dropped.
 */
typedef void (*llm_log_callback_t)(llm_log_level_t level,
                                   const char *message,
                                   size_t size,
                                   void *user_data);

/**
 * Releases what was lent to the library: called exactly once with the user data, on the thread that lets go of the
 * last object that needs it. It must not call the library.
 */
typedef void (*llm_drop_callback_t)(void *user_data);

/**
 * Reads `size` bytes at `offset` into `out` and returns whether it could. Ranges are within the size that was given.
 * Called on any thread, on several at once; it must not call the library with an object that is being made of it.
 */
typedef bool (*llm_read_callback_t)(uint64_t offset,
                                    void *out,
                                    size_t size,
                                    void *user_data);

/**
 * Borrowed bytes, usually UTF-8 text, not zero-terminated. The function that gives it says how long it lives.
 * This struct is frozen.
 */
typedef struct llm_view_t {
    /**
     * The first byte; never NULL where a function wrote it.
     */
    const char *data;
    /**
     * The number of bytes.
     */
    size_t size;
} llm_view_t;

/**
 * The type of a metadata value or of an array's elements: one of LLM_GGUF_, the numbers of the file format.
 */
typedef int32_t llm_gguf_type_t;

/**
 * What a GGUF file says about a tensor. Set struct_size before it is filled.
 */
typedef struct llm_tensor_info_t {
    /**
     * sizeof(llm_tensor_info_t).
     */
    size_t struct_size;
    /**
     * Borrowed from the file object, lives as long.
     */
    struct llm_view_t name;
    /**
     * The name of the type: "Q4_K". A constant.
     */
    struct llm_view_t type_name;
    /**
     * Elements per dimension, the fastest first (as in the file); 1 beyond dimension_count.
     */
    uint64_t dimensions[4];
    /**
     * 0 to 4.
     */
    uint32_t dimension_count;
    /**
     * The number of the type in GGUF files.
     */
    uint32_t type_id;
    /**
     * Of the tensor's data from the start of the file, in bytes.
     */
    uint64_t offset;
    /**
     * Of the tensor's data.
     */
    uint64_t bytes;
    /**
     * Which part of a split file holds the data, from 0: `offset` counts from the start of that part.
     */
    uint64_t part;
} llm_tensor_info_t;

/**
 * Told how far a load is, or another call that takes such a callback; returns whether to go on (false: the call returns
 * ABORTED). Called on the thread of the call.
 */
typedef bool (*llm_progress_callback_t)(uint64_t done,
                                        uint64_t total,
                                        void *user_data);

/**
 * How to load a model. Begin with llm_model_params_init.
 */
typedef struct llm_model_params_t {
    /**
     * sizeof(llm_model_params_t).
     */
    size_t struct_size;
    /**
     * Zero.
     */
    uint32_t flags;
    /**
     * Threads for packing the weights; LLM_THREADS_AUTO (0), LLM_THREADS_CALLER, or how many.
     */
    uint32_t threads;
    /**
     * NULL, or told how many of how many bytes are loaded.
     */
    llm_progress_callback_t progress;
    /**
     * Passed to `progress`.
     */
    void *progress_user_data;
} llm_model_params_t;

/**
 * What a model is. Set struct_size before it is filled.
 */
typedef struct llm_model_info_t {
    /**
     * sizeof(llm_model_info_t).
     */
    size_t struct_size;
    /**
     * V: tokens in the vocabulary, the length of a row of logits.
     */
    uint64_t vocab_size;
    /**
     * The context that the model was trained for, in tokens.
     */
    uint64_t context_length;
    /**
     * D: the width of the model.
     */
    uint64_t embedding_length;
    /**
     * Blocks.
     */
    uint64_t layer_count;
    /**
     * Query heads.
     */
    uint64_t head_count;
    /**
     * Key/value heads.
     */
    uint64_t head_count_kv;
    /**
     * The width of the feed-forward part.
     */
    uint64_t feed_forward_length;
    /**
     * Numbers in all weights.
     */
    uint64_t parameter_count;
    /**
     * Bytes that the weights take in memory.
     */
    uint64_t weight_bytes;
} llm_model_info_t;

/**
 * How keys and values are stored: one of LLM_KV_.
 */
typedef int32_t llm_kv_type_t;

/**
 * Which instruction set the kernels use: one of LLM_ISA_. All give the same bits.
 */
typedef int32_t llm_isa_t;

/**
 * Which positions a session keeps, and how: one of LLM_CACHE_. All give the same bits.
 */
typedef int32_t llm_cache_kind_t;

/**
 * How to make a session. Begin with llm_session_params_init.
 */
typedef struct llm_session_params_t {
    /**
     * sizeof(llm_session_params_t).
     */
    size_t struct_size;
    /**
     * Positions in the key/value cache. 0 means the context that the model was trained for, or 4096 if that is longer;
     * a number is taken as it is.
     */
    uint32_t context_length;
    /**
     * Threads that compute; LLM_THREADS_AUTO (0, physical cores), LLM_THREADS_CALLER, or how many with the calling one;
     * more than 1024 are 1024. They are the session's own, and sleep while it has nothing to do; forks share them.
     */
    uint32_t threads;
    /**
     * One of LLM_KV_.
     */
    llm_kv_type_t kv_type;
    /**
     * Tokens of a prompt that are processed at once; 0 means 256, or fewer if these would take more memory than the
     * weights and than 256 MiB. More needs more memory and is hardly faster. At most 72 where the logits of each are asked
     * for (llm_session_eval, llm_session_score).
     */
    uint32_t chunk;
    /**
     * One of LLM_ISA_; one that the machine lacks is UNSUPPORTED.
     */
    llm_isa_t isa;
    /**
     * One of LLM_CACHE_.
     */
    llm_cache_kind_t cache;
    /**
     * A token sees this many of the last positions, its own included, in every layer whose own window is not shorter;
     * 0: all of them.
     */
    uint32_t window;
    /**
     * And in these layers the first so many positions of the text ("attention sinks"), at most 256, and only with a
     * window. Positions are counted from the start of the text all the same.
     */
    uint32_t sinks;
    /**
     * Positions of a page of LLM_CACHE_PAGED, a multiple of 16; 0 means 16.
     */
    uint32_t page_size;
    /**
     * Zero.
     */
    uint32_t reserved;
} llm_session_params_t;

/**
 * Memory that a model and one session need, in bytes. Set struct_size before it is filled.
 */
typedef struct llm_memory_t {
    /**
     * sizeof(llm_memory_t).
     */
    size_t struct_size;
    /**
     * The model, shared by its sessions.
     */
    uint64_t weights;
    /**
     * Keys and values of one session.
     */
    uint64_t kv_cache;
    /**
     * Intermediate results of one session.
     */
    uint64_t scratch;
    /**
     * The sum.
     */
    uint64_t total;
} llm_memory_t;

/**
 * How to quantise. Begin with llm_quantize_params_init.
 */
typedef struct llm_quantize_params_t {
    /**
     * sizeof(llm_quantize_params_t).
     */
    size_t struct_size;
    /**
     * Zero.
     */
    uint32_t flags;
    /**
     * LLM_THREADS_AUTO (0), LLM_THREADS_CALLER, or how many. The result does not depend on it.
     */
    uint32_t threads;
    /**
     * The type of output.weight, or of the embedding where that makes the logits too: a number that
     * llm_gguf_type_find gives, or LLM_TYPE_OF_RECIPE.
     */
    uint32_t output_type;
    /**
     * The type of the embedding: likewise.
     */
    uint32_t embedding_type;
    /**
     * NULL, or told how many of how many bytes are read.
     */
    llm_progress_callback_t progress;
    /**
     * Passed to `progress`.
     */
    void *progress_user_data;
} llm_quantize_params_t;

/**
 * How to find importances. Begin with llm_imatrix_params_init.
 */
typedef struct llm_imatrix_params_t {
    /**
     * sizeof(llm_imatrix_params_t).
     */
    size_t struct_size;
    /**
     * Zero.
     */
    uint32_t flags;
    /**
     * LLM_THREADS_AUTO (0), LLM_THREADS_CALLER, or how many. The result does not depend on it.
     */
    uint32_t threads;
    /**
     * Tokens that see each other; 0: 512, or the model's context if that is shorter.
     */
    uint32_t chunk_size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * NULL, or told how many of how many chunks are done.
     */
    llm_progress_callback_t progress;
    /**
     * Passed to `progress`.
     */
    void *progress_user_data;
} llm_imatrix_params_t;

/**
 * The number of a token in its vocabulary.
 */
typedef uint32_t llm_token_t;

/**
 * What a tokenizer is. Set struct_size before it is filled. Tokens that the vocabulary lacks are LLM_TOKEN_NONE.
 */
typedef struct llm_tokenizer_info_t {
    /**
     * sizeof(llm_tokenizer_info_t).
     */
    size_t struct_size;
    /**
     * Tokens in the vocabulary.
     */
    uint32_t vocab_size;
    /**
     * Begins a text.
     */
    llm_token_t bos;
    /**
     * Ends a text.
     */
    llm_token_t eos;
    /**
     * Fills up a batch.
     */
    llm_token_t pad;
    /**
     * Stands for text that has no token.
     */
    llm_token_t unk;
    /**
     * Ends a turn of a conversation.
     */
    llm_token_t eot;
    /**
     * 1 if encoding with LLM_ENCODE_ADD_SPECIAL begins with `bos`, else 0.
     */
    uint32_t adds_bos;
    /**
     * 1 if encoding with LLM_ENCODE_ADD_SPECIAL ends with `eos`, else 0.
     */
    uint32_t adds_eos;
    /**
     * Ends a message after which the model goes on once it has an answer, as of a tool.
     */
    llm_token_t eom;
    /**
     * Stands between two texts, and after the last, for an encoder.
     */
    llm_token_t sep;
    /**
     * Stands for a word that an encoder is to guess.
     */
    llm_token_t mask;
    /**
     * Fill in the middle: before the text that stands before the gap.
     */
    llm_token_t fill_prefix;
    /**
     * Fill in the middle: before the text that stands after the gap.
     */
    llm_token_t fill_suffix;
    /**
     * Fill in the middle: before the text that fills the gap.
     */
    llm_token_t fill_middle;
    /**
     * Fill in the middle: fills up a batch.
     */
    llm_token_t fill_pad;
    /**
     * Fill in the middle: before the name of a repository.
     */
    llm_token_t fill_repository;
    /**
     * Fill in the middle: before the name of a file.
     */
    llm_token_t fill_separator;
    /**
     * 1 if LLM_DECODE_CLEAN_UP_SPACES changes anything, else 0.
     */
    uint32_t cleans_up_spaces;
} llm_tokenizer_info_t;

/**
 * What kind of token it is: one of LLM_TOKEN_KIND_, the numbers of the file format.
 */
typedef int32_t llm_token_kind_t;

/**
 * The usual chain, in this order: penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature; with
 * mirostat: penalties, DRY, temperature, mirostat. DRY has no breakers. What each does is told at
 * llm_sampler_add_penalties and its like. Begin with llm_sampler_params_init.
 */
typedef struct llm_sampler_params_t {
    /**
     * sizeof(llm_sampler_params_t).
     */
    size_t struct_size;
    /**
     * Of the random generator; 0 is a seed like any other, and the default.
     */
    uint64_t seed;
    /**
     * Logits are divided by it; 0 takes the most probable token that is left, if temperature_range is 0. Default 0.8.
     */
    float temperature;
    /**
     * Keep the most probable tokens that together have this probability; 1 keeps all. Default 0.95.
     */
    float top_p;
    /**
     * Drop tokens whose probability is less than this times the largest; 0 keeps all. Default 0.05.
     */
    float min_p;
    /**
     * Logits of recent tokens are divided (if positive) or multiplied by it; 1 is none. Default 1.
     */
    float repeat_penalty;
    /**
     * Keep this many of the most probable tokens; 0 keeps all. Default 40.
     */
    uint32_t top_k;
    /**
     * How many recent tokens are penalised. Default 64.
     */
    uint32_t repeat_last_n;
    /**
     * Taken off the logit of a recent token for each time that it occurred. Default 0.
     */
    float frequency_penalty;
    /**
     * Taken off the logit of a recent token. Default 0.
     */
    float presence_penalty;
    /**
     * Keep the tokens of the most typical surprise that together have this probability; 1 keeps all. Default 1.
     */
    float typical_p;
    /**
     * How often the most probable tokens are excluded; 0 is never. Default 0.
     */
    float xtc_probability;
    /**
     * From which probability on, at most 0.5. Default 0.1.
     */
    float xtc_threshold;
    /**
     * What is taken off a token that continues a repetition; 0 is none. Default 0.
     */
    float dry_multiplier;
    /**
     * By how much that grows with each token of the repetition. Default 1.75.
     */
    float dry_base;
    /**
     * Repetitions up to this length are free. Default 2.
     */
    uint32_t dry_allowed_length;
    /**
     * In how many recent tokens repetitions are looked for. Default 1024.
     */
    uint32_t dry_last_n;
    /**
     * Mask tokens whose logit is more than so many standard deviations below the largest; 0 masks none. Default 0.
     */
    float top_n_sigma;
    /**
     * The temperature moves by so much to both sides with the model's certainty; 0 is none. Default 0.
     */
    float temperature_range;
    /**
     * Its exponent. Default 1.
     */
    float temperature_exponent;
    /**
     * 1 or 2: that version of mirostat takes the place of what truncates; 0 is off. Default 0.
     */
    uint32_t mirostat;
    /**
     * The surprise that it aims at, in bits. Default 5.
     */
    float mirostat_tau;
    /**
     * How fast it learns. Default 0.1.
     */
    float mirostat_eta;
    /**
     * Zero.
     */
    uint32_t reserved;
} llm_sampler_params_t;

/**
 * A candidate as a sampler callback sees it.
 */
typedef struct llm_candidate_t {
    /**
     * The token.
     */
    llm_token_t token;
    /**
     * Its logit. -INFINITY masks the token; NaN counts as that.
     */
    float logit;
} llm_candidate_t;

/**
 * A step of the caller's: may change the logits of the `count` candidates that are left, which come in no certain order;
 * to change their tokens has no effect. Borrowed for the call. Called on the thread that samples or generates. Functions
 * of the sampler or the session that runs it give BUSY there. It must not throw, unwind or longjmp.
 */
typedef void (*llm_sampler_callback_t)(struct llm_candidate_t *candidates,
                                       size_t count,
                                       void *user_data);

/**
 * What a session did since it was made or reset, and how long it took. Set struct_size before it is filled.
 */
typedef struct llm_timings_t {
    /**
     * sizeof(llm_timings_t).
     */
    size_t struct_size;
    /**
     * Tokens that the caller appended or evaluated.
     */
    uint64_t prompt_tokens;
    /**
     * Microseconds that these took.
     */
    uint64_t prompt_us;
    /**
     * Tokens that were generated.
     */
    uint64_t generated_tokens;
    /**
     * Microseconds that these took, sampling included.
     */
    uint64_t generated_us;
} llm_timings_t;

/**
 * How the hidden states of a text's tokens become its embedding: one of LLM_POOLING_.
 */
typedef int32_t llm_pooling_t;

/**
 * How to make an embedding. Begin with llm_embed_params_init.
 */
typedef struct llm_embed_params_t {
    /**
     * sizeof(llm_embed_params_t).
     */
    size_t struct_size;
    /**
     * One of LLM_POOLING_; LLM_POOLING_MODEL by default.
     */
    llm_pooling_t pooling;
    /**
     * LLM_EMBED_NORMALIZE, which is the default, or 0.
     */
    uint32_t flags;
} llm_embed_params_t;

/**
 * How to generate. Begin with llm_generate_params_init.
 */
typedef struct llm_generate_params_t {
    /**
     * sizeof(llm_generate_params_t).
     */
    size_t struct_size;
    /**
     * End after this many tokens; 0 is no limit.
     */
    uint32_t max_tokens;
    /**
     * LLM_GENERATE_IGNORE_EOG or 0.
     */
    uint32_t flags;
} llm_generate_params_t;

/**
 * Why a generation ended: one of LLM_FINISH_.
 */
typedef int32_t llm_finish_reason_t;

/**
 * A token and its natural log probability.
 */
typedef struct llm_logprob_t {
    /**
     * The token.
     */
    llm_token_t token;
    /**
     * ln p, at most 0; -INFINITY for a token that the model excludes.
     */
    float logprob;
} llm_logprob_t;

/**
 * Takes a token and the text that is complete with it (see llm_session_next; `size` bytes, not zero-terminated, may be
 * empty, borrowed for the call) and returns whether to go on. The last call of a generation brings the text that was
 * withheld, and its answer does not count. Its token is not appended if it is the end-of-generation token that ends it
 * (LLM_FINISH_EOG), and is LLM_TOKEN_NONE if the context had no room for one (LLM_FINISH_CONTEXT_FULL). Every call on the
 * session from inside is BUSY, but llm_session_free, which takes effect when the generation returns.
 */
typedef bool (*llm_token_callback_t)(llm_token_t token,
                                     const char *text,
                                     size_t size,
                                     void *user_data);

/**
 * What guessing did since it was set. Set struct_size before it is filled.
 */
typedef struct llm_speculation_t {
    /**
     * sizeof(llm_speculation_t).
     */
    size_t struct_size;
    /**
     * Tokens that were guessed.
     */
    uint64_t guessed;
    /**
     * Guesses that were right; accepted / guessed is the rate of acceptance.
     */
    uint64_t accepted;
    /**
     * Passes through the model that had guesses: each gives a token, and one more for each right guess.
     */
    uint64_t passes;
} llm_speculation_t;

/**
 * How to search. Begin with llm_beam_params_init.
 */
typedef struct llm_beam_params_t {
    /**
     * sizeof(llm_beam_params_t).
     */
    size_t struct_size;
    /**
     * Continuations are compared by the sum of their log probabilities / length^length_penalty. 0 prefers short ones.
     * The search is over when `width` of them have ended and score at least as high as the best unfinished one does now.
     * Default 1.
     */
    double length_penalty;
    /**
     * Continuations that are followed at a time, and given in the end, 1 to 256. Default 4.
     */
    uint32_t width;
    /**
     * Tokens of a continuation at most; 0 means as many as fit into the context.
     */
    uint32_t max_tokens;
    /**
     * LLM_GENERATE_IGNORE_EOG or 0. Where there is a grammar, tokens that end a text end its texts all the same.
     */
    uint32_t flags;
    /**
     * Zero.
     */
    uint32_t reserved;
} llm_beam_params_t;

/**
 * A continuation. Set struct_size before it is filled.
 */
typedef struct llm_beam_t {
    /**
     * sizeof(llm_beam_t).
     */
    size_t struct_size;
    /**
     * The sum of the natural log probabilities of its tokens and of the one that ended it.
     */
    double logprob;
    /**
     * What they are ordered by: logprob / length^length_penalty, an ending token counted.
     */
    double score;
    /**
     * Its tokens, without one that ended it. They live until the beams are freed.
     */
    const llm_token_t *tokens;
    /**
     * How many.
     */
    size_t token_count;
    /**
     * Their text; lives as long.
     */
    struct llm_view_t text;
    /**
     * LLM_FINISH_EOG, LLM_FINISH_GRAMMAR, LLM_FINISH_LENGTH or LLM_FINISH_CONTEXT_FULL.
     */
    llm_finish_reason_t finish_reason;
    /**
     * Zero.
     */
    uint32_t reserved;
} llm_beam_t;

/**
 * What an adapter is. Set struct_size before it is filled.
 */
typedef struct llm_lora_info_t {
    /**
     * sizeof(llm_lora_info_t).
     */
    size_t struct_size;
    /**
     * R, the largest of its pairs of matrices.
     */
    uint64_t rank;
    /**
     * The model's tensors that it changes.
     */
    uint64_t tensor_count;
    /**
     * Bytes that it takes in memory.
     */
    uint64_t bytes;
    /**
     * The alpha of its file. 0: there is none, and scales are taken as they are, without alpha / R.
     */
    float alpha;
    /**
     * Zero.
     */
    uint32_t reserved;
} llm_lora_info_t;

/**
 * What a paged cache is to hold. Begin with llm_paged_cache_params_init.
 */
typedef struct llm_paged_cache_params_t {
    /**
     * sizeof(llm_paged_cache_params_t).
     */
    size_t struct_size;
    /**
     * L, from 1 to 65,536.
     */
    uint32_t num_layers;
    /**
     * K, at least 1.
     */
    uint32_t num_kv_heads;
    /**
     * E, at least 1.
     */
    uint32_t head_dim;
    /**
     * Pages that there may be, at least 1. Memory is taken as they are first used.
     */
    uint32_t max_pages;
    /**
     * Positions of a page, a multiple of 16; 0 means 16.
     */
    uint32_t page_size;
    /**
     * One of LLM_KV_.
     */
    llm_kv_type_t kv_type;
    /**
     * Threads that compute; as in llm_session_params_t.
     */
    uint32_t threads;
    /**
     * One of LLM_ISA_; one that the machine lacks is UNSUPPORTED.
     */
    llm_isa_t isa;
} llm_paged_cache_params_t;

/**
 * How attention is computed. Begin with llm_attention_params_init.
 */
typedef struct llm_attention_params_t {
    /**
     * sizeof(llm_attention_params_t).
     */
    size_t struct_size;
    /**
     * H, a multiple of K: query head h reads key/value head h * K / H. 0 means K.
     */
    uint32_t num_heads;
    /**
     * A query at position p sees the positions p - window + 1 to p; 0: all up to p.
     */
    uint32_t window;
    /**
     * What products of queries and keys are multiplied by; 0 means 1 / sqrt(E).
     */
    float scale;
    /**
     * Scores become softcap * tanh(score / softcap); 0: they stay.
     */
    float softcap;
} llm_attention_params_t;

/**
 * A sequence of an llm_paged_cache_t. Numbers begin at 1 and are not used again.
 */
typedef uint64_t llm_sequence_t;

/**
 * The state of a paged cache. Set struct_size before it is filled.
 */
typedef struct llm_paged_cache_stats_t {
    /**
     * sizeof(llm_paged_cache_stats_t).
     */
    size_t struct_size;
    /**
     * Pages that there may be.
     */
    uint64_t pages_total;
    /**
     * Pages that sequences and sessions hold.
     */
    uint64_t pages_used;
    /**
     * Pages that more than one of them holds.
     */
    uint64_t pages_shared;
    /**
     * Pages that none of them holds, kept because a session may begin with their tokens; they make room when it is
     * needed.
     */
    uint64_t pages_idle;
    /**
     * The most pages that were taken at a time, idle ones included.
     */
    uint64_t pages_peak;
    /**
     * pages_used / pages_total.
     */
    double utilisation;
    /**
     * Committed positions of all sequences; one that several share counts for each.
     */
    uint64_t positions;
    /**
     * Sequences, without sessions.
     */
    uint64_t sequences;
    /**
     * Bytes of the pages that are used or idle.
     */
    uint64_t bytes;
    /**
     * Forks that were made.
     */
    uint64_t forks;
    /**
     * Pages that were copied because one of several holders wrote to it.
     */
    uint64_t copies;
    /**
     * Pages that sessions took over because they begin with their tokens.
     */
    uint64_t prefix_hits;
    /**
     * Idle pages that made room.
     */
    uint64_t evictions;
} llm_paged_cache_stats_t;

/**
 * How a request goes on. Begin with llm_request_params_init.
 */
typedef struct llm_request_params_t {
    /**
     * sizeof(llm_request_params_t).
     */
    size_t struct_size;
    /**
     * End a continuation after this many tokens; 0 is no limit but the context.
     */
    uint32_t max_tokens;
    /**
     * LLM_GENERATE_IGNORE_EOG and LLM_REQUEST_LOGPROBS, or'ed, or 0.
     */
    uint32_t flags;
    /**
     * Requests with a higher one go first; among equals the one that was submitted first. Default 0.
     */
    int32_t priority;
    /**
     * Continuations of the prompt, at most 256; 0 means 1. Number i draws with the sampler's seed + i. Default 1.
     */
    uint32_t count;
    /**
     * Of how many of the most probable tokens beside the chosen one, at most V; without LLM_REQUEST_LOGPROBS of none.
     * Default 0.
     */
    uint32_t top_logprobs;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * What the request's events are to carry, since a thread that polls may see them before llm_engine_submit has told the
     * request's number. Default NULL.
     */
    void *user_data;
} llm_request_params_t;

/**
 * What a grammar is written in: one of LLM_GRAMMAR_.
 */
typedef int32_t llm_grammar_syntax_t;

/**
 * How to make an engine. Begin with llm_engine_params_init.
 */
typedef struct llm_engine_params_t {
    /**
     * sizeof(llm_engine_params_t).
     */
    size_t struct_size;
    /**
     * Positions there is room for in a sequence; as in llm_session_params_t.
     */
    uint32_t context_length;
    /**
     * Pages of all sequences together; 0 means as many as max_batch sequences of the whole context need. Memory is
     * taken as they are first used.
     */
    uint32_t max_pages;
    /**
     * Positions of a page, a multiple of 16; 0 means 16.
     */
    uint32_t page_size;
    /**
     * One of LLM_KV_.
     */
    llm_kv_type_t kv_type;
    /**
     * Sequences that are processed together; 0 means 8. More give more tokens a second, each of them later.
     */
    uint32_t max_batch;
    /**
     * Tokens of prompts that are processed together; 0 as in llm_session_params_t.
     */
    uint32_t chunk;
    /**
     * Threads that compute; as in llm_session_params_t.
     */
    uint32_t threads;
    /**
     * One of LLM_ISA_; one that the machine lacks is UNSUPPORTED.
     */
    llm_isa_t isa;
    /**
     * As in llm_session_params_t.
     */
    uint32_t window;
    /**
     * As in llm_session_params_t.
     */
    uint32_t sinks;
} llm_engine_params_t;

/**
 * A request of an engine. They are numbered from 1 on as they are submitted; one that is refused takes no number.
 */
typedef uint64_t llm_request_id_t;

/**
 * What an engine does and did. Set struct_size before it is filled.
 */
typedef struct llm_engine_stats_t {
    /**
     * sizeof(llm_engine_stats_t).
     */
    size_t struct_size;
    /**
     * Sequences that hold no pages: not started, or pages given up.
     */
    uint64_t waiting;
    /**
     * Sequences that hold pages.
     */
    uint64_t running;
    /**
     * Requests that were submitted.
     */
    uint64_t submitted;
    /**
     * Continuations that came to an end of their own.
     */
    uint64_t finished;
    /**
     * Continuations that were cancelled.
     */
    uint64_t cancelled;
    /**
     * Continuations that failed.
     */
    uint64_t failed;
    /**
     * Passes through the model.
     */
    uint64_t steps;
    /**
     * Sequences that had a part in a pass, of all passes: members / steps is the usual size of a batch.
     */
    uint64_t members;
    /**
     * The most sequences that had a part in one pass.
     */
    uint64_t largest_batch;
    /**
     * Tokens of prompts, and of sequences that gave up their pages, that were processed.
     */
    uint64_t prompt_tokens;
    /**
     * Tokens of prompts that were found in the pages of others.
     */
    uint64_t reused_tokens;
    /**
     * Tokens that were chosen.
     */
    uint64_t generated_tokens;
    /**
     * Times that a sequence gave up its pages to another.
     */
    uint64_t preemptions;
    /**
     * Microseconds of work: generated_tokens / time_us is the rate.
     */
    uint64_t time_us;
    /**
     * The most microseconds for which a poll could not return.
     */
    uint64_t largest_quantum_us;
    /**
     * Pages that there may be.
     */
    uint64_t pages_total;
    /**
     * Pages that sequences hold.
     */
    uint64_t pages_used;
    /**
     * Pages that more than one of them holds.
     */
    uint64_t pages_shared;
    /**
     * Pages that none of them holds, kept because a request may begin with their tokens.
     */
    uint64_t pages_idle;
    /**
     * Bytes of the pages that are used or idle.
     */
    uint64_t bytes;
} llm_engine_stats_t;

/**
 * What became of a request. Set struct_size before it is filled. Each continuation ends with exactly one event that
 * has a finish reason or a status other than LLM_STATUS_OK.
 */
typedef struct llm_event_t {
    /**
     * sizeof(llm_event_t).
     */
    size_t struct_size;
    /**
     * The request.
     */
    llm_request_id_t request;
    /**
     * Which of its continuations.
     */
    uint32_t index;
    /**
     * The token that was chosen, or LLM_TOKEN_NONE.
     */
    llm_token_t token;
    /**
     * LLM_FINISH_NONE, or why the continuation ended.
     */
    llm_finish_reason_t finish_reason;
    /**
     * LLM_STATUS_OK, CANCELLED, or why it is impossible to go on.
     */
    llm_status_t status;
    /**
     * The text that is complete with the token, as of llm_session_next. Lives until the list is filled again or freed.
     */
    struct llm_view_t text;
    /**
     * What the status says in words, empty if it is OK. Lives as long.
     */
    struct llm_view_t message;
    /**
     * The user_data of the request's llm_request_params_t.
     */
    void *user_data;
} llm_event_t;

/**
 * It did what was asked.
 */
#define LLM_STATUS_OK 0

/**
 * An argument is outside its domain.
 */
#define LLM_STATUS_INVALID_ARGUMENT 1

/**
 * A file, key, tensor or token that was asked for does not exist.
 */
#define LLM_STATUS_NOT_FOUND 2

/**
 * The operating system, or the caller's reader, failed to read or write.
 */
#define LLM_STATUS_IO 3

/**
 * A file contradicts its format.
 */
#define LLM_STATUS_CORRUPT_FILE 4

/**
 * A valid request or file that this library does not implement.
 */
#define LLM_STATUS_UNSUPPORTED 5

/**
 * Memory could not be had.
 */
#define LLM_STATUS_OUT_OF_MEMORY 6

/**
 * No room for more positions in the key/value cache.
 */
#define LLM_STATUS_CACHE_FULL 7

/**
 * The caller's buffer is too small.
 */
#define LLM_STATUS_BUFFER_TOO_SMALL 8

/**
 * The caller asked for it to stop, through an llm_cancel_t.
 */
#define LLM_STATUS_CANCELLED 9

/**
 * The caller's callback asked for it to stop.
 */
#define LLM_STATUS_ABORTED 10

/**
 * The object is in use by another call.
 */
#define LLM_STATUS_BUSY 11

/**
 * The object is not in a state in which this can be done.
 */
#define LLM_STATUS_FAILED_PRECONDITION 12

/**
 * A device (GPU) failed.
 */
#define LLM_STATUS_DEVICE 13

/**
 * A defect of the library.
 */
#define LLM_STATUS_INTERNAL 14

/**
 * A defect or a misuse that could not be returned as an error.
 */
#define LLM_LOG_ERROR 1

/**
 * Something works, but not as well as asked.
 */
#define LLM_LOG_WARN 2

/**
 * What a user may like to know.
 */
#define LLM_LOG_INFO 3

/**
 * What only a developer of the library needs.
 */
#define LLM_LOG_DEBUG 4

/**
 * An unsigned integer of 8 bits.
 */
#define LLM_GGUF_U8 0

/**
 * A signed integer of 8 bits.
 */
#define LLM_GGUF_I8 1

/**
 * An unsigned integer of 16 bits.
 */
#define LLM_GGUF_U16 2

/**
 * A signed integer of 16 bits.
 */
#define LLM_GGUF_I16 3

/**
 * An unsigned integer of 32 bits.
 */
#define LLM_GGUF_U32 4

/**
 * A signed integer of 32 bits.
 */
#define LLM_GGUF_I32 5

/**
 * A float of 32 bits.
 */
#define LLM_GGUF_F32 6

/**
 * A byte, 0 or 1.
 */
#define LLM_GGUF_BOOL 7

/**
 * A text, UTF-8 by the format's rules.
 */
#define LLM_GGUF_STRING 8

/**
 * An array of one of the other types.
 */
#define LLM_GGUF_ARRAY 9

/**
 * An unsigned integer of 64 bits.
 */
#define LLM_GGUF_U64 10

/**
 * A signed integer of 64 bits.
 */
#define LLM_GGUF_I64 11

/**
 * A float of 64 bits.
 */
#define LLM_GGUF_F64 12

/**
 * No token.
 */
#define LLM_TOKEN_NONE 4294967295u

/**
 * Text.
 */
#define LLM_TOKEN_KIND_NORMAL 1

/**
 * Stands for text that has no token.
 */
#define LLM_TOKEN_KIND_UNKNOWN 2

/**
 * Controls the model: beginning, end, roles.
 */
#define LLM_TOKEN_KIND_CONTROL 3

/**
 * Text added to the vocabulary after training it.
 */
#define LLM_TOKEN_KIND_USER_DEFINED 4

/**
 * Never used; gives no text.
 */
#define LLM_TOKEN_KIND_UNUSED 5

/**
 * A single byte.
 */
#define LLM_TOKEN_KIND_BYTE 6

/**
 * As the model's file says; by their mean if it says nothing.
 */
#define LLM_POOLING_MODEL 0

/**
 * Not at all: each token has a vector of its own.
 */
#define LLM_POOLING_NONE 1

/**
 * Their mean: the sums in 64-bit floats, in the order of the tokens, divided by their number.
 */
#define LLM_POOLING_MEAN 2

/**
 * The state of the first token.
 */
#define LLM_POOLING_CLS 3

/**
 * The state of the last token.
 */
#define LLM_POOLING_LAST 4

/**
 * It goes on.
 */
#define LLM_FINISH_NONE 0

/**
 * The model ended it with an end-of-generation token.
 */
#define LLM_FINISH_EOG 1

/**
 * A stop string appeared; it and what follows are not part of the text. The tokens that made it stay in the session.
 */
#define LLM_FINISH_STOP 2

/**
 * max_tokens were generated.
 */
#define LLM_FINISH_LENGTH 3

/**
 * The session's context is full: with the last token, or with LLM_TOKEN_NONE where there was no room for one at all.
 */
#define LLM_FINISH_CONTEXT_FULL 4

/**
 * The callback of llm_session_generate asked to stop. The generation has not ended: it may go on.
 */
#define LLM_FINISH_ABORTED 5

/**
 * The text is what the grammar describes, and nothing may follow.
 */
#define LLM_FINISH_GRAMMAR 6

/**
 * Floats of 16 bits.
 */
#define LLM_KV_F16 0

/**
 * Floats of 32 bits.
 */
#define LLM_KV_F32 1

/**
 * 8.5 bits: blocks of 32 numbers as GGUF's Q8_0 has them. For heads whose length is a multiple of 32.
 */
#define LLM_KV_Q8_0 2

/**
 * 4.5 bits: blocks of 32 numbers as GGUF's Q4_0 has them. For heads whose length is a multiple of 32.
 */
#define LLM_KV_Q4_0 3

/**
 * All positions, in one piece of memory that is committed as they come.
 */
#define LLM_CACHE_CONTIGUOUS 0

/**
 * Of layers with a window only the positions within it, in a ring: their memory does not grow with the text. Forgetting
 * more of the last tokens than a chunk has makes all tokens be processed again.
 */
#define LLM_CACHE_SLIDING 1

/**
 * All positions, in pages that are taken as they come; forks share them until one writes. For pages that sessions share
 * see llm_session_new_in_pages.
 */
#define LLM_CACHE_PAGED 2

/**
 * The best of this machine.
 */
#define LLM_ISA_AUTO 0

/**
 * Portable code, the definition of the results; slow.
 */
#define LLM_ISA_SCALAR 1

/**
 * x86-64 with AVX2, FMA and F16C; AVX-VNNI is used where the CPU has it.
 */
#define LLM_ISA_AVX2 2

/**
 * x86-64 with AVX-512 (F, BW, DQ, VL, VNNI).
 */
#define LLM_ISA_AVX512 3

/**
 * 64-bit ARM with NEON; its dot products are used where the CPU has them.
 */
#define LLM_ISA_NEON 4

/**
 * JSON Schema, draft 2020-12, or with "$schema" an older one: the texts are the JSON values that it describes,
 * without white space but one space after each colon and comma. "$ref" reaches what is in the schema itself.
 * Properties come in the order of the schema; lengths and ranges are kept to, numbers of the schema taken as double;
 * keys that cannot be kept to are an error.
 */
#define LLM_GRAMMAR_JSON_SCHEMA 1

/**
 * A regular expression that matches the text as a whole: alternatives, classes, groups, repetition; no word
 * boundaries, look-around and references.
 */
#define LLM_GRAMMAR_REGEX 2

/**
 * A context-free grammar in Lark's notation: `rule: "text" other | /regex/ ...`, names of rules in lower case, those of
 * terminals, which are regular, in upper case; `( )`, `?`, `*`, `+`, `{2,5}`; `%ignore`; the text is a `start`.
 * `<name>` is the special token of that name, and `%json { ... }` a value of a schema, with white space as the model likes
 * unless the schema has `"x-guidance": {"whitespace_flexible": false}`.
 */
#define LLM_GRAMMAR_LARK 3

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, "0.1.0".
 *
 * @return A constant.
 * @thread any
 */
LLM_API
const char *llm_version(void);

/**
 * The version of the library's binary interface, to be compared with LLM_ABI_VERSION by programs that load it at
 * run time.
 *
 * @return A constant.
 * @thread any
 */
LLM_API
uint32_t llm_abi_version(void);

/**
 * The instruction set that kernels use if a session does not ask for another: the best of this machine, or what the
 * environment variable LLM_ISA names.
 *
 * @return A constant: "scalar", "neon", "avx2", "avx512"; "" if LLM_ISA names none that this machine has.
 * @thread any
 */
LLM_API
const char *llm_isa(void);

/**
 * The number of threads that LLM_THREADS_AUTO means: the physical cores among the processors this process may use.
 *
 * @return At least 1; 0 in a child process after fork.
 * @thread any
 */
LLM_API
uint32_t llm_physical_cores(void);

/**
 * The name of a status: "CORRUPT_FILE".
 *
 * @param[in] status A status.
 * @return A constant; "UNKNOWN" for a number that is no status.
 * @thread any
 */
LLM_API
const char *llm_status_name(llm_status_t status);

/**
 * The status of an error.
 *
 * @param[in] error @nullable An error; NULL means that there is none.
 * @return The status that the failed call returned; OK for NULL.
 * @thread any
 */
LLM_API
llm_status_t llm_error_status(const llm_error_t *LLM_NULLABLE error);

/**
 * The message of an error, for people: one line of UTF-8.
 *
 * @param[in] error @nullable An error.
 * @return A zero-terminated text that lives as long as the error; "" for NULL.
 * @thread any
 */
LLM_API
const char *llm_error_message(const llm_error_t *LLM_NULLABLE error);

/**
 * A fact of an error by its key.
 *
 * @param[in] error @nullable An error.
 * @param[in] key The key, zero-terminated: "tensor".
 * @return A zero-terminated text that lives as long as the error; NULL if it has no such fact.
 * @thread any
 */
LLM_API
const char *llm_error_get(const llm_error_t *LLM_NULLABLE error,
                          const char *LLM_NONNULL key);

/**
 * The number of facts of an error.
 *
 * @param[in] error @nullable An error.
 * @return The number; 0 for NULL.
 * @thread any
 */
LLM_API
size_t llm_error_fact_count(const llm_error_t *LLM_NULLABLE error);

/**
 * A fact of an error by its index.
 *
 * @param[in] error @nullable An error.
 * @param[in] index Less than llm_error_fact_count.
 * @param[out] key A zero-terminated text that lives as long as the error.
 * @param[out] value Likewise.
 * @return Whether there is such a fact; if not, nothing is written.
 * @thread any
 */
LLM_API
bool llm_error_fact_at(const llm_error_t *LLM_NULLABLE error,
                       size_t index,
                       const char **LLM_NONNULL key,
                       const char **LLM_NONNULL value);

/**
 * Frees an error.
 *
 * @param[in] error @nullable An error; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_error_free(llm_error_t *LLM_NULLABLE error);

/**
 * Sets who receives the library's messages, in this process; nobody does at the start.
 *
 * When it returns, the callback set before is not running and never runs again; called from inside the callback it
 * does not wait for calls on other threads.
 *
 * @param[in] callback @nullable The receiver; NULL silences the library.
 * @param[in] user_data @nullable Passed to the callback.
 * @thread any
 */
LLM_API
void llm_log_set(llm_log_callback_t LLM_NULLABLE callback,
                 void *LLM_NULLABLE user_data);

/**
 * Sets the most talkative level that the callback receives; LLM_LOG_INFO at the start.
 *
 * @param[in] level One of LLM_LOG_.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_log_set_level(llm_log_level_t level,
                               llm_error_t **LLM_NULLABLE error);

/**
 * The first byte. A zero byte follows the last.
 *
 * @param[in] bytes Bytes.
 * @return A pointer that lives as long as the object; NULL if it is not one.
 * @thread any
 */
LLM_API
const char *llm_bytes_data(const llm_bytes_t *LLM_NONNULL bytes);

/**
 * The number of bytes, without the zero byte that follows.
 *
 * @param[in] bytes Bytes.
 * @return The number; 0 if it is no such object.
 * @thread any
 */
LLM_API
size_t llm_bytes_size(const llm_bytes_t *LLM_NONNULL bytes);

/**
 * Frees the bytes.
 *
 * @param[in] bytes @nullable Bytes; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_bytes_free(llm_bytes_t *LLM_NULLABLE bytes);

/**
 * Makes a switch that is not requested.
 *
 * @param[out] cancel The switch, to be freed with llm_cancel_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_cancel_new(llm_cancel_t **LLM_NONNULL cancel,
                            llm_error_t **LLM_NULLABLE error);

/**
 * Adds a reference, to be freed with llm_cancel_free.
 *
 * @param[in] cancel A switch.
 * @return The same switch; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_cancel_t *llm_cancel_retain(const llm_cancel_t *LLM_NONNULL cancel);

/**
 * Frees a reference.
 *
 * @param[in] cancel @nullable A switch; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_cancel_free(llm_cancel_t *LLM_NULLABLE cancel);

/**
 * Asks every call that looks at this switch to stop. One atomic store: it may be called in a signal handler.
 *
 * @param[in] cancel A switch, not freed by anyone during this call.
 * @thread any, signal handlers included
 */
LLM_API
void llm_cancel_request(const llm_cancel_t *LLM_NONNULL cancel);

/**
 * Makes the switch usable again.
 *
 * @param[in] cancel A switch.
 * @thread any
 */
LLM_API
void llm_cancel_reset(const llm_cancel_t *LLM_NONNULL cancel);

/**
 * Whether a stop has been requested since the last reset.
 *
 * @param[in] cancel A switch.
 * @return Whether; false if it is no switch.
 * @thread any
 */
LLM_API
bool llm_cancel_is_requested(const llm_cancel_t *LLM_NONNULL cancel);

/**
 * Opens a file. Of a file that is split into parts NAME-00001-of-0000N.gguf the first opens them all.
 *
 * @param[in] path The path, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] gguf The file, to be freed with llm_gguf_free.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND (of a part too), IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY; INVALID_ARGUMENT for a part that is
 *   not the first: the fact "expected" is the path of the first
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_open(const char *LLM_NULLABLE path,
                           size_t path_size,
                           llm_gguf_t **LLM_NONNULL gguf,
                           llm_error_t **LLM_NULLABLE error);

/**
 * Opens a file that is in memory.
 *
 * With a `release` callback the bytes are used in place until it is called, without one they are copied. If the call
 * fails, `release` is not called.
 *
 * @param[in] data The bytes of the file.
 * @param[in] size Their number.
 * @param[in] release @nullable Called when the bytes are not needed any more, on any thread; NULL to copy them.
 * @param[in] user_data @nullable Passed to `release`.
 * @param[out] gguf The file, to be freed with llm_gguf_free.
 * @param[out] error @nullable Why it failed.
 * @status CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_open_memory(const void *LLM_NULLABLE data,
                                  size_t size,
                                  llm_drop_callback_t LLM_NULLABLE release,
                                  void *LLM_NULLABLE user_data,
                                  llm_gguf_t **LLM_NONNULL gguf,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Opens a file that the caller reads: from an archive, an asset bundle, a network.
 *
 * If the call fails, `release` is not called. A read that fails gives IO.
 *
 * @param[in] size Of the file, in bytes.
 * @param[in] read Reads a range.
 * @param[in] release @nullable Called when the reader is not needed any more, on any thread.
 * @param[in] user_data @nullable Passed to both callbacks.
 * @param[out] gguf The file, to be freed with llm_gguf_free.
 * @param[out] error @nullable Why it failed.
 * @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_open_reader(uint64_t size,
                                  llm_read_callback_t LLM_NONNULL read,
                                  llm_drop_callback_t LLM_NULLABLE release,
                                  void *LLM_NULLABLE user_data,
                                  llm_gguf_t **LLM_NONNULL gguf,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Adds a reference, to be freed with llm_gguf_free.
 *
 * @param[in] gguf A file.
 * @return The same file; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_gguf_t *llm_gguf_retain(const llm_gguf_t *LLM_NONNULL gguf);

/**
 * Frees a reference. Models made from the file keep what they need of it.
 *
 * @param[in] gguf @nullable A file; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_gguf_free(llm_gguf_t *LLM_NULLABLE gguf);

/**
 * The version of the file format.
 *
 * @param[in] gguf A file.
 * @return 2 or 3; 0 if it is no file.
 * @thread any
 */
LLM_API
uint32_t llm_gguf_version(const llm_gguf_t *LLM_NONNULL gguf);

/**
 * The alignment of tensor data.
 *
 * @param[in] gguf A file.
 * @return Bytes; 0 if it is no file.
 * @thread any
 */
LLM_API
uint64_t llm_gguf_alignment(const llm_gguf_t *LLM_NONNULL gguf);

/**
 * The number of metadata keys.
 *
 * @param[in] gguf A file.
 * @return The number; 0 if it is no file.
 * @thread any
 */
LLM_API
size_t llm_gguf_key_count(const llm_gguf_t *LLM_NONNULL gguf);

/**
 * The key at an index, in the order of the file.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_key_count.
 * @param[out] key Lives as long as the file.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_key_at(const llm_gguf_t *LLM_NONNULL gguf,
                             size_t index,
                             llm_view_t *LLM_NONNULL key,
                             llm_error_t **LLM_NULLABLE error);

/**
 * The index of a key.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] index Of the key.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_key_find(const llm_gguf_t *LLM_NONNULL gguf,
                               const char *LLM_NULLABLE key,
                               size_t key_size,
                               size_t *LLM_NONNULL index,
                               llm_error_t **LLM_NULLABLE error);

/**
 * The type of the value at an index.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_key_count.
 * @param[out] type One of LLM_GGUF_.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_type(const llm_gguf_t *LLM_NONNULL gguf,
                                 size_t index,
                                 llm_gguf_type_t *LLM_NONNULL type,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * The value of a key as an unsigned integer: of any integer type that is not negative.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_u64(const llm_gguf_t *LLM_NONNULL gguf,
                                const char *LLM_NULLABLE key,
                                size_t key_size,
                                uint64_t *LLM_NONNULL value,
                                llm_error_t **LLM_NULLABLE error);

/**
 * The value of a key as a signed integer: of any integer type that fits.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_i64(const llm_gguf_t *LLM_NONNULL gguf,
                                const char *LLM_NULLABLE key,
                                size_t key_size,
                                int64_t *LLM_NONNULL value,
                                llm_error_t **LLM_NULLABLE error);

/**
 * The value of a key as a float: of a float type, or of an integer type, rounded.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_f64(const llm_gguf_t *LLM_NONNULL gguf,
                                const char *LLM_NULLABLE key,
                                size_t key_size,
                                double *LLM_NONNULL value,
                                llm_error_t **LLM_NULLABLE error);

/**
 * The value of a key that is a bool.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_bool(const llm_gguf_t *LLM_NONNULL gguf,
                                 const char *LLM_NULLABLE key,
                                 size_t key_size,
                                 bool *LLM_NONNULL value,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * The value of a key that is a string.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] value Lives as long as the file. The bytes are those of the file: they may not be UTF-8.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_string(const llm_gguf_t *LLM_NONNULL gguf,
                                   const char *LLM_NULLABLE key,
                                   size_t key_size,
                                   llm_view_t *LLM_NONNULL value,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The value at an index as an unsigned integer, as llm_gguf_value_u64.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_key_count.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_u64_at(const llm_gguf_t *LLM_NONNULL gguf,
                                   size_t index,
                                   uint64_t *LLM_NONNULL value,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The value at an index as a signed integer, as llm_gguf_value_i64.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_key_count.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type or does not fit
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_i64_at(const llm_gguf_t *LLM_NONNULL gguf,
                                   size_t index,
                                   int64_t *LLM_NONNULL value,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The value at an index as a float, as llm_gguf_value_f64.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_key_count.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_f64_at(const llm_gguf_t *LLM_NONNULL gguf,
                                   size_t index,
                                   double *LLM_NONNULL value,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The value at an index as a bool, as llm_gguf_value_bool.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_key_count.
 * @param[out] value The value.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_bool_at(const llm_gguf_t *LLM_NONNULL gguf,
                                    size_t index,
                                    bool *LLM_NONNULL value,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * The value at an index as a string, as llm_gguf_value_string.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_key_count.
 * @param[out] value The value. Lives as long as the file.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value has another type
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_value_string_at(const llm_gguf_t *LLM_NONNULL gguf,
                                      size_t index,
                                      llm_view_t *LLM_NONNULL value,
                                      llm_error_t **LLM_NULLABLE error);

/**
 * The type and number of an array's elements.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] type Of the elements: one of LLM_GGUF_.
 * @param[out] count Of the elements.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value is no array
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_array_info(const llm_gguf_t *LLM_NONNULL gguf,
                                 const char *LLM_NULLABLE key,
                                 size_t key_size,
                                 llm_gguf_type_t *LLM_NONNULL type,
                                 size_t *LLM_NONNULL count,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Strings of an array. Finding the first one takes time in proportion to its index: take many at a time.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] first The index of the first string wanted.
 * @param[out] strings Room for `capacity` views, which live as long as the file.
 * @param[in] capacity How many are wanted at most.
 * @param[out] count How many were written: fewer than `capacity` at the array's end.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value is no array of strings
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_array_strings_at(const llm_gguf_t *LLM_NONNULL gguf,
                                       const char *LLM_NULLABLE key,
                                       size_t key_size,
                                       size_t first,
                                       llm_view_t *LLM_NULLABLE strings,
                                       size_t capacity,
                                       size_t *LLM_NONNULL count,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Numbers or bools of an array, as in the file: little-endian, of the element type that llm_gguf_array_info tells.
 *
 * @param[in] gguf A file.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] first The index of the first element wanted.
 * @param[out] out Room for `out_size` bytes.
 * @param[in] out_size In bytes.
 * @param[out] count How many elements were written: those that fit, or fewer at the array's end.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; INVALID_ARGUMENT if the value is no array of numbers or bools
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_array_read(const llm_gguf_t *LLM_NONNULL gguf,
                                 const char *LLM_NULLABLE key,
                                 size_t key_size,
                                 size_t first,
                                 void *LLM_NULLABLE out,
                                 size_t out_size,
                                 size_t *LLM_NONNULL count,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * The number of tensors.
 *
 * @param[in] gguf A file.
 * @return The number; 0 if it is no file.
 * @thread any
 */
LLM_API
size_t llm_gguf_tensor_count(const llm_gguf_t *LLM_NONNULL gguf);

/**
 * Name, shape, type and place of a tensor.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_tensor_count.
 * @param[in,out] info Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_tensor_info(const llm_gguf_t *LLM_NONNULL gguf,
                                  size_t index,
                                  llm_tensor_info_t *LLM_NONNULL info,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * The index of a tensor.
 *
 * @param[in] gguf A file.
 * @param[in] name The tensor's name.
 * @param[in] name_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] index Of the tensor.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_tensor_find(const llm_gguf_t *LLM_NONNULL gguf,
                                  const char *LLM_NULLABLE name,
                                  size_t name_size,
                                  size_t *LLM_NONNULL index,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * The number of a type in GGUF files, by its name.
 *
 * @param[in] name "Q4_K" and the like, in upper or lower case: the types that this version decodes.
 * @param[in] name_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] type_id As llm_tensor_info_t has it.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_type_find(const char *LLM_NULLABLE name,
                                size_t name_size,
                                uint32_t *LLM_NONNULL type_id,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Reads bytes of a tensor's data as they are in the file.
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_tensor_count.
 * @param[in] offset From the start of the tensor's data, in bytes.
 * @param[out] out Room for `out_size` bytes, of which some may be written if the call fails.
 * @param[in] out_size How many bytes to read: offset + out_size is at most the size of the tensor's data.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND, IO; INVALID_ARGUMENT if the range is not in the tensor
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_tensor_read(const llm_gguf_t *LLM_NONNULL gguf,
                                  size_t index,
                                  uint64_t offset,
                                  void *LLM_NULLABLE out,
                                  size_t out_size,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Decodes a tensor to floats, in the order of the file (the first dimension is the fastest).
 *
 * @param[in] gguf A file.
 * @param[in] index Less than llm_gguf_tensor_count.
 * @param[out] out Room for `capacity` floats.
 * @param[in] capacity At least the tensor's number of elements.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND, IO, BUFFER_TOO_SMALL, OUT_OF_MEMORY; UNSUPPORTED for types that this version does not decode
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_tensor_decode(const llm_gguf_t *LLM_NONNULL gguf,
                                    size_t index,
                                    float *LLM_NULLABLE out,
                                    size_t capacity,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Makes a writer of a file without keys and tensors.
 *
 * @param[out] writer The writer, to be freed with llm_gguf_writer_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_new(llm_gguf_writer_t **LLM_NONNULL writer,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Adds a tensor.
 *
 * @param[in] writer A writer.
 * @param[in] name The tensor's name, at most 64 bytes of UTF-8.
 * @param[in] name_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] type_id The number of its type in GGUF files, as llm_tensor_info_t has it: 0 is F32, 1 F16, 8 Q8_0, 30
 *   BF16.
 * @param[in] dimensions Elements per dimension, the fastest first: whole blocks of the type.
 * @param[in] dimension_count 0 (one element) to 4.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT naming the "tensor" if its name is taken or its shape not possible;
 *   UNSUPPORTED if the type is unknown; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_add_tensor(llm_gguf_writer_t *LLM_NONNULL writer,
                                        const char *LLM_NULLABLE name,
                                        size_t name_size,
                                        uint32_t type_id,
                                        const uint64_t *LLM_NULLABLE dimensions,
                                        size_t dimension_count,
                                        llm_error_t **LLM_NULLABLE error);

/**
 * Begins to write the file, under a temporary name in the folder of its own. A device or a pipe is written as it is.
 *
 * @param[in] writer A writer.
 * @param[in] path The path, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, NOT_FOUND, IO, OUT_OF_MEMORY; FAILED_PRECONDITION if it is open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_open(llm_gguf_writer_t *LLM_NONNULL writer,
                                  const char *LLM_NULLABLE path,
                                  size_t path_size,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * As llm_gguf_writer_open, but split into parts NAME-00001-of-0000N.gguf, which get their names together. A part takes
 * tensors as long as it stays within the limits, and at least one.
 *
 * @param[in] writer A writer.
 * @param[in] path NAME or NAME.gguf, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] max_bytes Bytes of a part's file at most; 0 is no limit.
 * @param[in] max_tensors Tensors of a part at most; 0 is no limit.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, NOT_FOUND, IO, OUT_OF_MEMORY; INVALID_ARGUMENT also if there would be more than 65535 parts;
 *   FAILED_PRECONDITION if it is open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_open_split(llm_gguf_writer_t *LLM_NONNULL writer,
                                        const char *LLM_NULLABLE path,
                                        size_t path_size,
                                        uint64_t max_bytes,
                                        size_t max_tensors,
                                        llm_error_t **LLM_NULLABLE error);

/**
 * Appends data of a tensor. The tensors come in the order in which they were added, each in any number of pieces.
 *
 * @param[in] writer A writer.
 * @param[in] name The tensor's name.
 * @param[in] name_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] data The next bytes of its data.
 * @param[in] data_size Their number.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; INVALID_ARGUMENT naming the "tensor" if it is not its turn or it has less data than that; IO, and
 *   NOT_FOUND, INVALID_ARGUMENT (of the "path") or OUT_OF_MEMORY where the next part of a split file begins, after which
 *   nothing more can be written;
 *   FAILED_PRECONDITION if the file is not open or an earlier write failed
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_write(llm_gguf_writer_t *LLM_NONNULL writer,
                                   const char *LLM_NULLABLE name,
                                   size_t name_size,
                                   const void *LLM_NULLABLE data,
                                   size_t data_size,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Ends the file: all is written to the disk, and the file gets its name. Afterwards the writer can only be freed,
 * whether this succeeds or not. Parts get their names one by one, the first one last: if one cannot have its name, those
 * before lose theirs, and parts of an older file that had these names are gone.
 *
 * @param[in] writer A writer.
 * @param[out] error @nullable Why it failed: the file did not appear.
 * @status BUSY, IO; NOT_FOUND, INVALID_ARGUMENT (of the "path") or OUT_OF_MEMORY where a last part without data begins;
 *   FAILED_PRECONDITION if the file is not open, an earlier write failed, or data are missing, naming the "tensor"
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_finish(llm_gguf_writer_t *LLM_NONNULL writer,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Frees a writer. If it was not finished, there is no file.
 *
 * @param[in] writer @nullable A writer; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_gguf_writer_free(llm_gguf_writer_t *LLM_NULLABLE writer);

/**
 * A file with other keys: those that were set on a writer stand in place of the file's own of the same name, or join
 * them. A model that is loaded from it (llm_model_load_gguf) is one of these keys, which change nothing on disk.
 *
 * So RoPE is set otherwise than the file has it: ARCH.rope.freq_base (f32), ARCH.rope.scaling.type (string: "none",
 * "linear", "yarn" or "longrope"), ARCH.rope.scaling.factor (f32), ARCH.rope.scaling.original_context_length (u32) and
 * ARCH.context_length (u32), where ARCH is the string general.architecture; or how the tokenizer begins a text:
 * tokenizer.ggml.add_bos_token (bool). A key of a type that the reader does not expect is CORRUPT_FILE there.
 *
 * @code{.c}
 * llm_gguf_t *other = NULL;
 * llm_gguf_writer_t *keys = NULL; // it writes no file
 * if (llm_gguf_writer_new(&keys, &error) != LLM_STATUS_OK
 *     || llm_gguf_writer_set_f32(keys, "llama.rope.freq_base", LLM_NUL_TERMINATED, 500000.0f, &error) != LLM_STATUS_OK
 *     || llm_gguf_with_keys(gguf, keys, &other, &error) != LLM_STATUS_OK
 *     || llm_model_load_gguf(other, NULL, NULL, &model, &error) != LLM_STATUS_OK)
 *     fprintf(stderr, "%s\n", llm_error_message(error));
 * llm_gguf_free(other); // the model needs neither
 * llm_gguf_writer_free(keys);
 * @endcode
 *
 * @param[in] gguf A file.
 * @param[in] keys A writer, not open yet; its tensors are not looked at.
 * @param[out] other The file with the keys, to be freed with llm_gguf_free.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if general.alignment would change; FAILED_PRECONDITION if the writer is
 *   open
 * @thread any; `keys`, one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_with_keys(const llm_gguf_t *LLM_NONNULL gguf,
                                llm_gguf_writer_t *LLM_NONNULL keys,
                                llm_gguf_t **LLM_NONNULL other,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Sets all keys of an open file, in its order; of a split file all but those about the split. Keys that were set stay,
 * with the file's values where it has them.
 *
 * @param[in] writer A writer.
 * @param[in] gguf The file.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_copy_keys(llm_gguf_writer_t *LLM_NONNULL writer,
                                       const llm_gguf_t *LLM_NONNULL gguf,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to an unsigned integer of 8 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_u8(llm_gguf_writer_t *LLM_NONNULL writer,
                                    const char *LLM_NULLABLE key,
                                    size_t key_size,
                                    uint8_t value,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a signed integer of 8 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_i8(llm_gguf_writer_t *LLM_NONNULL writer,
                                    const char *LLM_NULLABLE key,
                                    size_t key_size,
                                    int8_t value,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to an unsigned integer of 16 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_u16(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     uint16_t value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a signed integer of 16 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_i16(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     int16_t value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to an unsigned integer of 32 bits; a key that is there keeps its place. The key general.alignment takes
 * a power of two and is that of the tensor data.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_u32(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     uint32_t value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a signed integer of 32 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_i32(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     int32_t value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to an unsigned integer of 64 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_u64(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     uint64_t value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a signed integer of 64 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_i64(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     int64_t value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a float of 32 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_f32(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     float value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a float of 64 bits; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_f64(llm_gguf_writer_t *LLM_NONNULL writer,
                                     const char *LLM_NULLABLE key,
                                     size_t key_size,
                                     double value,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a bool; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value The value.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_bool(llm_gguf_writer_t *LLM_NONNULL writer,
                                      const char *LLM_NULLABLE key,
                                      size_t key_size,
                                      bool value,
                                      llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to a string; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] value Any bytes; UTF-8 by the format's rules.
 * @param[in] value_size Their number, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_string(llm_gguf_writer_t *LLM_NONNULL writer,
                                        const char *LLM_NULLABLE key,
                                        size_t key_size,
                                        const char *LLM_NULLABLE value,
                                        size_t value_size,
                                        llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to an array of numbers or bools; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] type Of the elements: one of LLM_GGUF_, but neither LLM_GGUF_STRING nor LLM_GGUF_ARRAY.
 * @param[in] elements As in the file: little-endian.
 * @param[in] elements_size In bytes: whole elements.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_array(llm_gguf_writer_t *LLM_NONNULL writer,
                                       const char *LLM_NULLABLE key,
                                       size_t key_size,
                                       llm_gguf_type_t type,
                                       const void *LLM_NULLABLE elements,
                                       size_t elements_size,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Sets a key to an array of strings; a key that is there keeps its place.
 *
 * @param[in] writer A writer.
 * @param[in] key The key, 1 to 65535 bytes of UTF-8.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] strings Any bytes each; UTF-8 by the format's rules.
 * @param[in] count Of the strings.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_set_strings(llm_gguf_writer_t *LLM_NONNULL writer,
                                         const char *LLM_NULLABLE key,
                                         size_t key_size,
                                         const llm_view_t *LLM_NULLABLE strings,
                                         size_t count,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * Removes a key.
 *
 * @param[in] writer A writer.
 * @param[in] key The key.
 * @param[in] key_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; NOT_FOUND if there is no such key; FAILED_PRECONDITION after llm_gguf_writer_open
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_writer_remove(llm_gguf_writer_t *LLM_NONNULL writer,
                                    const char *LLM_NULLABLE key,
                                    size_t key_size,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_model_params_init(llm_model_params_t *LLM_NULLABLE params,
                           size_t size);

/**
 * Loads a model from a file. One that llm_gguf_pack wrote is mapped.
 *
 * @param[in] path The path, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[in] cancel @nullable A switch that stops the load from another thread.
 * @param[out] model The model, to be freed with llm_model_free.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_model_load(const char *LLM_NULLABLE path,
                            size_t path_size,
                            const llm_model_params_t *LLM_NULLABLE params,
                            const llm_cancel_t *LLM_NULLABLE cancel,
                            llm_model_t **LLM_NONNULL model,
                            llm_error_t **LLM_NULLABLE error);

/**
 * Loads a model from an open file, which may be in memory or behind a reader.
 *
 * @param[in] gguf The file.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[in] cancel @nullable A switch that stops the load from another thread.
 * @param[out] model The model, to be freed with llm_model_free.
 * @param[out] error @nullable Why it failed.
 * @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_model_load_gguf(const llm_gguf_t *LLM_NONNULL gguf,
                                 const llm_model_params_t *LLM_NULLABLE params,
                                 const llm_cancel_t *LLM_NULLABLE cancel,
                                 llm_model_t **LLM_NONNULL model,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Adds a reference, to be freed with llm_model_free.
 *
 * @param[in] model A model.
 * @return The same model; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_model_t *llm_model_retain(const llm_model_t *LLM_NONNULL model);

/**
 * Frees a reference. Sessions keep the model alive.
 *
 * @param[in] model @nullable A model; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_model_free(llm_model_t *LLM_NULLABLE model);

/**
 * The numbers that describe a model.
 *
 * @param[in] model A model.
 * @param[in,out] info Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_model_info(const llm_model_t *LLM_NONNULL model,
                            llm_model_info_t *LLM_NONNULL info,
                            llm_error_t **LLM_NULLABLE error);

/**
 * The architecture: "llama", "qwen2", "gemma3".
 *
 * @param[in] model A model.
 * @param[out] architecture Lives as long as the model.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_model_architecture(const llm_model_t *LLM_NONNULL model,
                                    llm_view_t *LLM_NONNULL architecture,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * A line that describes the model, for people: its name, architecture, size and formats.
 *
 * @param[in] model A model.
 * @param[out] description Lives as long as the model.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_model_description(const llm_model_t *LLM_NONNULL model,
                                   llm_view_t *LLM_NONNULL description,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The memory that a model and a session of it would need, without loading it.
 *
 * @param[in] gguf The model's file.
 * @param[in] session_params @nullable The session; NULL means the defaults.
 * @param[in,out] memory Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_model_memory(const llm_gguf_t *LLM_NONNULL gguf,
                              const llm_session_params_t *LLM_NULLABLE session_params,
                              llm_memory_t *LLM_NONNULL memory,
                              llm_error_t **LLM_NULLABLE error);

/**
 * The tokenizer of a model.
 *
 * @param[in] model A model.
 * @param[out] tokenizer A new reference, to be freed with llm_tokenizer_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_model_tokenizer(const llm_model_t *LLM_NONNULL model,
                                 llm_tokenizer_t **LLM_NONNULL tokenizer,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Writes a model's file with its matrices packed as the processor reads them, and the tables of its tokenizer. Loading
 * such a file maps it into memory: that takes milliseconds, and processes that load it share one copy. The model computes
 * the same bits.
 *
 * The file is a GGUF of about the same size that only this library loads. It is made for a version of this library and
 * its layout: another version may refuse it (UNSUPPORTED), so keep the model's own file. While a model is loaded from
 * it, it must not be changed or cut short, or the process may end by SIGBUS: to replace it, rename a new file over it.
 * Packing needs as much memory as loading the model. The file appears under its name when it is complete.
 *
 * @param[in] gguf The model's file.
 * @param[in] path Where to write, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] params @nullable Threads and progress as in loading; NULL means the defaults.
 * @param[in] cancel @nullable A switch that stops the call from another thread.
 * @param[out] error @nullable Why it failed; then there is no file.
 * @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED; NOT_FOUND if the folder does not exist;
 *     INVALID_ARGUMENT also if the file is packed
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_pack(const llm_gguf_t *LLM_NONNULL gguf,
                           const char *LLM_NULLABLE path,
                           size_t path_size,
                           const llm_model_params_t *LLM_NULLABLE params,
                           const llm_cancel_t *LLM_NULLABLE cancel,
                           llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_quantize_params_init(llm_quantize_params_t *LLM_NULLABLE params,
                              size_t size);

/**
 * Writes a model's file with its matrices in smaller number formats. Vectors, norms, routers and the like stay as they
 * are, as do all keys but general.file_type and general.quantization_version.
 *
 * The memory needed is that of a few MiB a thread. Tensors of the wanted type are copied; those that are quantised in
 * another are quantised again, which costs accuracy: the log gets a warning, as it does if importances are missing for
 * some. Rows that are no whole blocks of a type get one of shorter blocks (Q4_0 for Q2_K and Q3_K, Q5_0 for Q4_K, Q5_1 for
 * Q5_K, Q8_0 for Q6_K, IQ4_NL for IQ4_XS), or F16. The file appears under its name when it is complete.
 *
 * @param[in] gguf The model's file.
 * @param[in] path Where to write, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] type F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q2_K_S, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M,
 *   Q5_K_S, Q5_K_M, Q6_K, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0 or MXFP4_MOE, in capitals or not.
 * @param[in] type_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] imatrix @nullable The path of a file of importances, which llm_gguf_imatrix makes; NULL for none.
 * @param[in] imatrix_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[in] cancel @nullable A switch that stops the call from another thread.
 * @param[out] error @nullable Why it failed; then there is no file.
 * @status NOT_FOUND, IO, CORRUPT_FILE, OUT_OF_MEMORY, CANCELLED, ABORTED; UNSUPPORTED naming the "tensor" whose type is
 *   not decoded; INVALID_ARGUMENT also if an importance has not the shape of its "tensor", if there are importances but
 *   of no tensor of the file, if the number "index" of a "tensor" is NaN, infinite (F16, BF16 and F32 have these) or so
 *   large that the "format" has no room for it ("found"), or if the file is packed
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_quantize(const llm_gguf_t *LLM_NONNULL gguf,
                               const char *LLM_NULLABLE path,
                               size_t path_size,
                               const char *LLM_NULLABLE type,
                               size_t type_size,
                               const char *LLM_NULLABLE imatrix,
                               size_t imatrix_size,
                               const llm_quantize_params_t *LLM_NULLABLE params,
                               const llm_cancel_t *LLM_NULLABLE cancel,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_imatrix_params_init(llm_imatrix_params_t *LLM_NULLABLE params,
                             size_t size);

/**
 * Runs a text through a model and writes how much each column of its matrices matters: the mean of the squares of what
 * it is multiplied with. llm_gguf_quantize makes better files with that. The file is a GGUF as llm-imatrix and llama.cpp
 * write and read it.
 *
 * @param[in] gguf The model's file; the model is loaded for the call.
 * @param[in] text A text such as the model will see: some hundred kilobytes are enough.
 * @param[in] text_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] dataset What the text is called in the file. Bytes that are not UTF-8 become U+FFFD: it may be a file's name.
 * @param[in] dataset_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] path Where to write, UTF-8 (on Unix any bytes). Opened before the text is read.
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[in] cancel @nullable A switch that stops the call from another thread.
 * @param[out] error @nullable Why it failed; then there is no file.
 * @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY, CANCELLED, ABORTED; INVALID_ARGUMENT also if the text
 *   has no tokens or the file is packed
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_gguf_imatrix(const llm_gguf_t *LLM_NONNULL gguf,
                              const char *LLM_NULLABLE text,
                              size_t text_size,
                              const char *LLM_NULLABLE dataset,
                              size_t dataset_size,
                              const char *LLM_NULLABLE path,
                              size_t path_size,
                              const llm_imatrix_params_t *LLM_NULLABLE params,
                              const llm_cancel_t *LLM_NULLABLE cancel,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Loads the tokenizer of a model file; a file with the vocabulary only will do, and the first part of a split one. For
 * a file in memory see llm_tokenizer_load_gguf.
 *
 * @param[in] path The path, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] tokenizer The tokenizer, to be freed with llm_tokenizer_free.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_load(const char *LLM_NULLABLE path,
                                size_t path_size,
                                llm_tokenizer_t **LLM_NONNULL tokenizer,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Loads the tokenizer of an open file.
 *
 * @param[in] gguf The file.
 * @param[out] tokenizer The tokenizer, to be freed with llm_tokenizer_free.
 * @param[out] error @nullable Why it failed.
 * @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_load_gguf(const llm_gguf_t *LLM_NONNULL gguf,
                                     llm_tokenizer_t **LLM_NONNULL tokenizer,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Adds a reference, to be freed with llm_tokenizer_free.
 *
 * @param[in] tokenizer A tokenizer.
 * @return The same tokenizer; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_tokenizer_t *llm_tokenizer_retain(const llm_tokenizer_t *LLM_NONNULL tokenizer);

/**
 * Frees a reference.
 *
 * @param[in] tokenizer @nullable A tokenizer; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_tokenizer_free(llm_tokenizer_t *LLM_NULLABLE tokenizer);

/**
 * Turns text into tokens.
 *
 * Exception to the rule that outputs are written on success only: with BUFFER_TOO_SMALL `count` is written too. So a
 * first call with `tokens` NULL and `capacity` 0 asks for the room that is needed.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] text Any bytes.
 * @param[in] text_size Their number, or LLM_NUL_TERMINATED.
 * @param[in] flags LLM_ENCODE_ bits.
 * @param[out] tokens Room for `capacity` tokens; NULL only with capacity 0.
 * @param[in] capacity In tokens.
 * @param[out] count How many tokens the text has.
 * @param[out] error @nullable Why it failed.
 * @status BUFFER_TOO_SMALL, OUT_OF_MEMORY, UNSUPPORTED (unknown flags)
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_encode(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                  const char *LLM_NULLABLE text,
                                  size_t text_size,
                                  uint32_t flags,
                                  llm_token_t *LLM_NULLABLE tokens,
                                  size_t capacity,
                                  size_t *LLM_NONNULL count,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Turns tokens into text.
 *
 * The text of tokens that end in the middle of a character is not UTF-8; llm_decoder_t holds such bytes back.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] tokens The tokens.
 * @param[in] token_count Their number.
 * @param[in] flags LLM_DECODE_ bits.
 * @param[out] text The text, to be freed with llm_bytes_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY, UNSUPPORTED (unknown flags); INVALID_ARGUMENT names a token that is not in the vocabulary
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_decode(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                  const llm_token_t *LLM_NULLABLE tokens,
                                  size_t token_count,
                                  uint32_t flags,
                                  llm_bytes_t **LLM_NONNULL text,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * The bytes of one token; special tokens as their text, unused ones as nothing. A single token may not be UTF-8.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] token A token.
 * @param[out] piece Lives as long as the tokenizer.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT if it is not in the vocabulary
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_piece(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                 llm_token_t token,
                                 llm_view_t *LLM_NONNULL piece,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * The token whose text is exactly this.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] text Any bytes; one byte that is no text finds its byte token.
 * @param[in] text_size Their number, or LLM_NUL_TERMINATED.
 * @param[out] token The token.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_find(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                const char *LLM_NULLABLE text,
                                size_t text_size,
                                llm_token_t *LLM_NONNULL token,
                                llm_error_t **LLM_NULLABLE error);

/**
 * The numbers that describe a tokenizer.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in,out] info Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_info(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                llm_tokenizer_info_t *LLM_NONNULL info,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Whether a generation ends with this token.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] token A token.
 * @return Whether; false if it is not in the vocabulary.
 * @thread any
 */
LLM_API
bool llm_tokenizer_is_eog(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                          llm_token_t token);

/**
 * The kind of a token.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] token A token.
 * @return One of LLM_TOKEN_KIND_; 0 if it is not in the vocabulary.
 * @thread any
 */
LLM_API
llm_token_kind_t llm_tokenizer_token_kind(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                          llm_token_t token);

/**
 * The score of a token: its merges come in the order of scores (SentencePiece), or it is the logarithm of its
 * probability (unigram).
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] token A token.
 * @return The score; 0 if the file gives none, or if the token is not in the vocabulary.
 * @thread any
 */
LLM_API
float llm_tokenizer_token_score(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                llm_token_t token);

/**
 * A chat template of the model's file, in jinja2's language.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] name @nullable One of the file's other templates, as "tool_use"; NULL or empty: the template.
 * @param[in] name_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] text The template, borrowed from the tokenizer.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND if there is none
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_chat_template(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                         const char *LLM_NULLABLE name,
                                         size_t name_size,
                                         llm_view_t *LLM_NONNULL text,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * A fill-in-the-middle prompt for models of code: tokens after which the model writes what belongs between two texts.
 * They are prefix, suffix and middle, each after its special token, and the beginning token if the model wants it.
 *
 * @param[in] tokenizer A tokenizer.
 * @param[in] prefix The text before the gap, any bytes.
 * @param[in] prefix_size Their number, or LLM_NUL_TERMINATED.
 * @param[in] suffix The text after the gap, any bytes.
 * @param[in] suffix_size Their number, or LLM_NUL_TERMINATED.
 * @param[out] tokens The tokens; may be NULL if `capacity` is 0.
 * @param[in] capacity Of `tokens`.
 * @param[out] count The number of tokens of the prompt, also with BUFFER_TOO_SMALL.
 * @param[out] error @nullable Why it failed.
 * @status BUFFER_TOO_SMALL, OUT_OF_MEMORY; UNSUPPORTED if the vocabulary lacks one of the three (fact "token")
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_tokenizer_fill_in(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                   const char *LLM_NULLABLE prefix,
                                   size_t prefix_size,
                                   const char *LLM_NULLABLE suffix,
                                   size_t suffix_size,
                                   llm_token_t *LLM_NULLABLE tokens,
                                   size_t capacity,
                                   size_t *LLM_NONNULL count,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Makes a decoder.
 *
 * @param[in] tokenizer The tokenizer.
 * @param[in] flags LLM_DECODE_SHOW_SPECIAL or 0.
 * @param[out] decoder The decoder, to be freed with llm_decoder_free.
 * @param[out] error @nullable Why it failed.
 * @status UNSUPPORTED (unknown flags), OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_decoder_new(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                             uint32_t flags,
                             llm_decoder_t **LLM_NONNULL decoder,
                             llm_error_t **LLM_NULLABLE error);

/**
 * Frees a decoder.
 *
 * @param[in] decoder @nullable A decoder; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_decoder_free(llm_decoder_t *LLM_NULLABLE decoder);

/**
 * Takes a token and gives the text that is complete with it, which may be empty.
 *
 * @param[in] decoder A decoder.
 * @param[in] token A token.
 * @param[out] text Lives until the next call on the decoder.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; INVALID_ARGUMENT if it is not in the vocabulary
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_decoder_push(llm_decoder_t *LLM_NONNULL decoder,
                              llm_token_t token,
                              llm_view_t *LLM_NONNULL text,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Gives the bytes that were held back, which are no complete character, and begins anew.
 *
 * @param[in] decoder A decoder.
 * @param[out] text Lives until the next call on the decoder.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_decoder_finish(llm_decoder_t *LLM_NONNULL decoder,
                                llm_view_t *LLM_NONNULL text,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Begins anew and forgets what was held back.
 *
 * @param[in] decoder A decoder.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_decoder_reset(llm_decoder_t *LLM_NONNULL decoder,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_sampler_params_init(llm_sampler_params_t *LLM_NULLABLE params,
                             size_t size);

/**
 * Makes the usual chain.
 *
 * @param[in] params @nullable Its parameters; NULL means the defaults.
 * @param[out] sampler The sampler, to be freed with llm_sampler_free.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT names a parameter outside its domain; OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_new(const llm_sampler_params_t *LLM_NULLABLE params,
                             llm_sampler_t **LLM_NONNULL sampler,
                             llm_error_t **LLM_NULLABLE error);

/**
 * Makes an empty chain, which draws from the logits as they are. Steps are applied in the order in which they are
 * added.
 *
 * @param[in] seed Of the random generator.
 * @param[out] sampler The sampler, to be freed with llm_sampler_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_new_empty(uint64_t seed,
                                   llm_sampler_t **LLM_NONNULL sampler,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Frees a sampler.
 *
 * @param[in] sampler @nullable A sampler; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_sampler_free(llm_sampler_t *LLM_NULLABLE sampler);

/**
 * Draws a token. The draw does not go into the history: see llm_sampler_accept. What moves with each draw, accepted
 * or not, is the random generator and what mirostat has learned. A logit that is NaN counts as -INFINITY; if all are, the
 * first token that is left is drawn.
 *
 * @param[in] sampler A sampler.
 * @param[in] logits (V) floats; they are not changed.
 * @param[in] count V, at least 1.
 * @param[out] token The token.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_sample(llm_sampler_t *LLM_NONNULL sampler,
                                const float *LLM_NULLABLE logits,
                                size_t count,
                                llm_token_t *LLM_NONNULL token,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Adds a token to the history that penalties and DRY look at. Only as much is kept as the steps look at: a step that is
 * added later knows of no token that was accepted before, unless another looked as far back.
 *
 * @param[in] sampler A sampler.
 * @param[in] token The token that was taken.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_accept(llm_sampler_t *LLM_NONNULL sampler,
                                llm_token_t token,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Forgets the history and what mirostat has learned, and sets the random generator back to the seed.
 *
 * @param[in] sampler A sampler.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_reset(llm_sampler_t *LLM_NONNULL sampler,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that keeps the most probable token only.
 *
 * @param[in] sampler A sampler.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_greedy(llm_sampler_t *LLM_NONNULL sampler,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that divides the logits.
 *
 * @param[in] sampler A sampler.
 * @param[in] temperature The divisor, not negative; 0 keeps the most probable token only.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is negative, NaN or infinite
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_temperature(llm_sampler_t *LLM_NONNULL sampler,
                                         float temperature,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that divides the logits by temperature - range (not below 0) where the model is sure, by temperature +
 * range where it is not, and in between by the share of its entropy in the largest, to the power of `exponent`.
 *
 * @param[in] sampler A sampler.
 * @param[in] temperature The middle, not negative.
 * @param[in] range Not negative; 0 is plain temperature.
 * @param[in] exponent Not negative; usually 1.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if one is negative, NaN or infinite
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_dynamic_temperature(llm_sampler_t *LLM_NONNULL sampler,
                                                 float temperature,
                                                 float range,
                                                 float exponent,
                                                 llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that keeps the `k` most probable tokens.
 *
 * @param[in] sampler A sampler.
 * @param[in] k How many; 0 keeps all.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_top_k(llm_sampler_t *LLM_NONNULL sampler,
                                   uint32_t k,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that keeps the most probable tokens that together have probability `p`.
 *
 * @param[in] sampler A sampler.
 * @param[in] p 0 to 1; 1 keeps all.
 * @param[in] min_keep Keeps at least so many.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if p is not from 0 to 1
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_top_p(llm_sampler_t *LLM_NONNULL sampler,
                                   float p,
                                   uint32_t min_keep,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that drops tokens whose probability is less than `p` times the largest.
 *
 * @param[in] sampler A sampler.
 * @param[in] p 0 to 1; 0 keeps all.
 * @param[in] min_keep Keeps at least so many.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if p is not from 0 to 1
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_min_p(llm_sampler_t *LLM_NONNULL sampler,
                                   float p,
                                   uint32_t min_keep,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that keeps the tokens whose surprise is nearest to the expected one, until they have more than probability
 * `p`.
 *
 * @param[in] sampler A sampler.
 * @param[in] p 0 to 1; 1 keeps all.
 * @param[in] min_keep Keeps at least so many.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if p is not from 0 to 1
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_typical(llm_sampler_t *LLM_NONNULL sampler,
                                     float p,
                                     uint32_t min_keep,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that cuts where the sorted probabilities become flat: before the first token at which the second
 * differences, as shares of their sum, sum to more than `z`.
 *
 * @param[in] sampler A sampler.
 * @param[in] z 0 to 1; 1 keeps all.
 * @param[in] min_keep Keeps at least so many.
 * @param[in] keep_crossing Cut behind that token and not before it, as KoboldAI does.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if z is not from 0 to 1
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_tail_free(llm_sampler_t *LLM_NONNULL sampler,
                                       float z,
                                       uint32_t min_keep,
                                       bool keep_crossing,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that masks the tokens whose logit is more than `n` standard deviations below the largest.
 *
 * @param[in] sampler A sampler.
 * @param[in] n Not negative; 0 masks none.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if n is negative, NaN or infinite
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_top_n_sigma(llm_sampler_t *LLM_NONNULL sampler,
                                         float n,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that now and then excludes the top choices: all tokens that are at least as probable as `threshold`,
 * but the least probable of them.
 *
 * @param[in] sampler A sampler.
 * @param[in] probability How often, 0 to 1.
 * @param[in] threshold 0 to 1; above 0.5 is never.
 * @param[in] min_keep Does nothing where fewer than this many would stay.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if one is not from 0 to 1
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_xtc(llm_sampler_t *LLM_NONNULL sampler,
                                 float probability,
                                 float threshold,
                                 uint32_t min_keep,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that keeps the surprise of what is drawn near `tau` bits, version 1. It learns from each draw; it
 * belongs at the end of a chain.
 *
 * @param[in] sampler A sampler.
 * @param[in] tau Usually 5.
 * @param[in] eta How fast it learns; usually 0.1.
 * @param[in] m How many of the most probable tokens it estimates from; usually 100.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if tau or eta is negative, NaN or infinite
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_mirostat(llm_sampler_t *LLM_NONNULL sampler,
                                      float tau,
                                      float eta,
                                      uint32_t m,
                                      llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that keeps the surprise of what is drawn near `tau` bits, version 2. It learns from each draw; it
 * belongs at the end of a chain.
 *
 * @param[in] sampler A sampler.
 * @param[in] tau Usually 5.
 * @param[in] eta How fast it learns; usually 0.1.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if tau or eta is negative, NaN or infinite
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_mirostat_v2(llm_sampler_t *LLM_NONNULL sampler,
                                         float tau,
                                         float eta,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that makes recent tokens less probable: positive logits are divided by `repeat`, others multiplied; then
 * `presence` is taken off, and `frequency` for each time that the token occurred.
 *
 * @param[in] sampler A sampler.
 * @param[in] repeat More than 0; 1 is none.
 * @param[in] frequency 0 is none; negative rewards.
 * @param[in] presence 0 is none; negative rewards.
 * @param[in] last_n How many recent tokens count.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if repeat is not positive, or one is NaN or infinite
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_penalties(llm_sampler_t *LLM_NONNULL sampler,
                                       float repeat,
                                       float frequency,
                                       float presence,
                                       uint32_t last_n,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that makes a token less probable that would continue a repetition of m >= allowed_length tokens, by
 * multiplier * base^(m - allowed_length).
 *
 * @param[in] sampler A sampler.
 * @param[in] multiplier Not negative; 0 is off.
 * @param[in] base Usually 1.75; below 1 is off.
 * @param[in] allowed_length Repetitions up to this length are free.
 * @param[in] last_n In how many recent tokens repetitions are looked for.
 * @param[in] breakers Sequences of tokens that no repetition reaches over, separated by LLM_TOKEN_NONE: the tokens of a
 *     line break, say.
 * @param[in] count How many tokens and separators that is; 0 is none.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if multiplier or base is negative, NaN or infinite
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_dry(llm_sampler_t *LLM_NONNULL sampler,
                                 float multiplier,
                                 float base,
                                 uint32_t allowed_length,
                                 uint32_t last_n,
                                 const llm_token_t *LLM_NULLABLE breakers,
                                 size_t count,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * llm_sampler_add_dry with breakers that are texts. A breaker is then each token that contains the text, as one of two
 * line breaks contains one, and each that ends with its beginning, followed by the tokens of what is left of it.
 *
 * @param[in] sampler A sampler.
 * @param[in] tokenizer The tokenizer of the model.
 * @param[in] multiplier Not negative; 0 is off.
 * @param[in] base Usually 1.75; below 1 is off.
 * @param[in] allowed_length Repetitions up to this length are free.
 * @param[in] last_n In how many recent tokens repetitions are looked for.
 * @param[in] breakers Texts, each with a zero byte at its end: "\n\0:\0\"\0*\0" are the four that are usual. At
 *     most 256 bytes each.
 * @param[in] breakers_size How many bytes that is, with the zero bytes, at most 4096; 0 is none.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if multiplier or base is negative, NaN or
 *     infinite, or a text too long
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_dry_texts(llm_sampler_t *LLM_NONNULL sampler,
                                       const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                       float multiplier,
                                       float base,
                                       uint32_t allowed_length,
                                       uint32_t last_n,
                                       const char *LLM_NULLABLE breakers,
                                       size_t breakers_size,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that adds to the logits of some tokens.
 *
 * @param[in] sampler A sampler.
 * @param[in] tokens The tokens; one that is there several times gets the sum.
 * @param[in] values What is added to each; -INFINITY bans the token.
 * @param[in] count Their number.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if a value is NaN or +INFINITY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_logit_bias(llm_sampler_t *LLM_NONNULL sampler,
                                        const llm_token_t *LLM_NONNULL tokens,
                                        const float *LLM_NULLABLE values,
                                        size_t count,
                                        llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that masks some tokens, unless no other would be left.
 *
 * @param[in] sampler A sampler.
 * @param[in] tokens The tokens.
 * @param[in] count Their number.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_banned_tokens(llm_sampler_t *LLM_NONNULL sampler,
                                           const llm_token_t *LLM_NULLABLE tokens,
                                           size_t count,
                                           llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step that masks the tokens which mark a fill-in-the-middle prompt (prefix, suffix, middle, padding, repository,
 * file), unless no other would be left. A middle that is filled in has none of them. Those that end a generation stay.
 *
 * @param[in] sampler A sampler.
 * @param[in] tokenizer The tokenizer of the model.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_infill_bans(llm_sampler_t *LLM_NONNULL sampler,
                                         const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * Adds a step of the caller's own.
 *
 * A session takes over the chain of the sampler that it starts with: its generations call the callback too, each on the
 * thread that generates, so that several may run at a time. If the call fails, `drop` is not called.
 *
 * @param[in] sampler A sampler.
 * @param[in] callback Called each time that the chain comes to the step.
 * @param[in] user_data @nullable Passed to both callbacks.
 * @param[in] drop @nullable Called when the last chain with the step is gone, on the thread that gives it up.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_sampler_add_callback(llm_sampler_t *LLM_NONNULL sampler,
                                      llm_sampler_callback_t LLM_NONNULL callback,
                                      void *LLM_NULLABLE user_data,
                                      llm_drop_callback_t LLM_NULLABLE drop,
                                      llm_error_t **LLM_NULLABLE error);

/**
 * Makes a session. Address space for the whole key/value cache is taken here, memory as positions are first used.
 *
 * @param[in] model The model.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[out] session The session, to be freed with llm_session_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY; UNSUPPORTED if the machine lacks the instruction set, or for a field that is not known;
 *     INVALID_ARGUMENT for a context longer than the positions of a model that has learned them
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_new(const llm_model_t *LLM_NONNULL model,
                             const llm_session_params_t *LLM_NULLABLE params,
                             llm_session_t **LLM_NONNULL session,
                             llm_error_t **LLM_NULLABLE error);

/**
 * Makes a session whose keys and values go into the pages of a cache, which decides their number type and the size of a
 * page. It takes over pages that sessions of the model with the same adapters and window have for the same beginning, so
 * that this is neither computed nor kept twice.
 *
 * @param[in] model The model.
 * @param[in] cache The cache, made for a model of this shape; the session keeps what it needs of it.
 * @param[in] params @nullable How; NULL means the defaults. kv_type, cache and page_size do not count.
 * @param[out] session The session, to be freed with llm_session_free.
 * @param[out] error @nullable Why it failed.
 * @status as llm_session_new; INVALID_ARGUMENT if the cache is for another shape of keys and values
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_new_in_pages(const llm_model_t *LLM_NONNULL model,
                                      const llm_paged_cache_t *LLM_NONNULL cache,
                                      const llm_session_params_t *LLM_NULLABLE params,
                                      llm_session_t **LLM_NONNULL session,
                                      llm_error_t **LLM_NULLABLE error);

/**
 * Makes another session with the same tokens, stop strings, grammar and adapters, to go on in another way. Keys and
 * values are shared until one of the two writes: a page of LLM_CACHE_PAGED, or a whole cache of the other kinds, is copied then.
 * The fork has the same sampler, set back to its seed, and no cancel switch. It begins a generation of its own, with the
 * same limits: it counts tokens from 0, and a grammar's text begins anew.
 *
 * @param[in] session A session.
 * @param[out] fork The new one, to be freed with llm_session_free.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_fork(llm_session_t *LLM_NONNULL session,
                              llm_session_t **LLM_NONNULL fork,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Frees a session; from inside its own callback, when the call around it ends.
 *
 * @param[in] session @nullable A session; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_session_free(llm_session_t *LLM_NULLABLE session);

/**
 * Appends tokens and processes them. On failure nothing is appended.
 *
 * @param[in] session A session.
 * @param[in] tokens The tokens.
 * @param[in] count Their number; 0 does nothing.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CACHE_FULL, CANCELLED, OUT_OF_MEMORY; INVALID_ARGUMENT names a token that is not in the vocabulary
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_append_tokens(llm_session_t *LLM_NONNULL session,
                                       const llm_token_t *LLM_NULLABLE tokens,
                                       size_t count,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Turns text into tokens, appends them and processes them. On failure nothing is appended.
 *
 * @param[in] session A session.
 * @param[in] text Any bytes; a text without tokens does nothing.
 * @param[in] text_size Their number, or LLM_NUL_TERMINATED.
 * @param[in] flags LLM_ENCODE_ bits; LLM_ENCODE_ADD_SPECIAL is for the first text of a session: it adds the model's
 *     beginning token each time.
 * @param[out] count @nullable How many tokens were appended.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CACHE_FULL, CANCELLED, OUT_OF_MEMORY, UNSUPPORTED (unknown flags, or a model without tokenizer)
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_append_text(llm_session_t *LLM_NONNULL session,
                                     const char *LLM_NULLABLE text,
                                     size_t text_size,
                                     uint32_t flags,
                                     size_t *LLM_NULLABLE count,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Appends tokens, processes them and gives the logits after each. On failure nothing is appended, but some of
 * `logits` may have been written.
 *
 * @param[in] session A session.
 * @param[in] tokens The tokens.
 * @param[in] count Their number T.
 * @param[out] logits (T,V) floats: row t holds the logits of the token that follows tokens[t].
 * @param[in] capacity Of `logits` in floats, at least T * V.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CACHE_FULL, CANCELLED, BUFFER_TOO_SMALL, OUT_OF_MEMORY; INVALID_ARGUMENT names a token that is not in the vocabulary
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_eval(llm_session_t *LLM_NONNULL session,
                              const llm_token_t *LLM_NULLABLE tokens,
                              size_t count,
                              float *LLM_NULLABLE logits,
                              size_t capacity,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Appends tokens, processes them and gives the log probability of each after those before it: what llm_session_logprobs
 * would give, had it been chosen. Needs room for the logits of 72 tokens at most, however many are scored. On failure nothing
 * is appended, but some of `logprobs` may have been written.
 *
 * The perplexity of a text: append its first token with llm_session_append_tokens and score the others; it is
 * exp(-(sum of their log probabilities) / (number of them)).
 *
 * @param[in] session A session.
 * @param[in] tokens The tokens.
 * @param[in] count Their number T; 0 does nothing.
 * @param[out] logprobs (T) natural logarithms.
 * @param[in] capacity Of `logprobs`, at least T.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CACHE_FULL, CANCELLED, BUFFER_TOO_SMALL, OUT_OF_MEMORY; FAILED_PRECONDITION if the session is empty and
 *     count is not 0: nothing is before the first token; INVALID_ARGUMENT names a token that is not in the vocabulary
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_score(llm_session_t *LLM_NONNULL session,
                               const llm_token_t *LLM_NULLABLE tokens,
                               size_t count,
                               double *LLM_NULLABLE logprobs,
                               size_t capacity,
                               llm_error_t **LLM_NULLABLE error);

/**
 * The logits after the last token.
 *
 * @param[in] session A session.
 * @param[out] logits (V) floats.
 * @param[in] capacity Of `logits` in floats, at least V.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, BUFFER_TOO_SMALL, CANCELLED, CACHE_FULL, OUT_OF_MEMORY; FAILED_PRECONDITION if the session is empty
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_logits(llm_session_t *LLM_NONNULL session,
                                float *LLM_NULLABLE logits,
                                size_t capacity,
                                llm_error_t **LLM_NULLABLE error);

/**
 * The number of tokens in the session.
 *
 * @param[in] session A session.
 * @param[out] length In tokens.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_length(llm_session_t *LLM_NONNULL session,
                                size_t *LLM_NONNULL length,
                                llm_error_t **LLM_NULLABLE error);

/**
 * The number of tokens that the session has room for.
 *
 * @param[in] session A session.
 * @param[out] length In tokens.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_context_length(llm_session_t *LLM_NONNULL session,
                                        size_t *LLM_NONNULL length,
                                        llm_error_t **LLM_NULLABLE error);

/**
 * Copies the tokens in the session.
 *
 * @param[in] session A session.
 * @param[out] tokens Room for `capacity` tokens.
 * @param[in] capacity In tokens, at least llm_session_length.
 * @param[out] count How many there are; also written with BUFFER_TOO_SMALL.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, BUFFER_TOO_SMALL
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_tokens(llm_session_t *LLM_NONNULL session,
                                llm_token_t *LLM_NULLABLE tokens,
                                size_t capacity,
                                size_t *LLM_NONNULL count,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Keeps the first tokens and forgets the others.
 *
 * @param[in] session A session.
 * @param[in] length How many tokens to keep, at most llm_session_length.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; INVALID_ARGUMENT if it has fewer
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_truncate(llm_session_t *LLM_NONNULL session,
                                  size_t length,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Forgets all tokens and the timings; stop strings, the grammar, adapters, the sampler, the limits and the cancel
 * switch stay.
 *
 * @param[in] session A session.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_reset(llm_session_t *LLM_NONNULL session,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Sets the switch that stops calls on this session from another thread.
 *
 * @param[in] session A session.
 * @param[in] cancel @nullable The switch, of which the session keeps what it needs; NULL for none.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_set_cancel(llm_session_t *LLM_NONNULL session,
                                    const llm_cancel_t *LLM_NULLABLE cancel,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * What the session did and how long it took.
 *
 * @param[in] session A session.
 * @param[in,out] timings Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_timings(llm_session_t *LLM_NONNULL session,
                                 llm_timings_t *LLM_NONNULL timings,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_embed_params_init(llm_embed_params_t *LLM_NULLABLE params,
                           size_t size);

/**
 * The embedding of a text: the hidden states of its tokens after the model's last norm, pooled. The session must be
 * empty, and is so afterwards; its context must have room for the text. With LLM_POOLING_NONE the hidden state of each
 * token is given.
 *
 * @code{.c}
 * // D is embedding_length of llm_model_info_t; the tokens are those of llm_tokenizer_encode with LLM_ENCODE_ADD_SPECIAL.
 * float *embedding = (float *)malloc(D * sizeof *embedding);
 * if (embedding != NULL
 *     && llm_session_embed(session, tokens, count, NULL, embedding, D, &error) == LLM_STATUS_OK)
 *     printf("the first of %zu numbers is %f\n", D, embedding[0]);
 * free(embedding);
 * @endcode
 *
 * @param[in] session A session without tokens.
 * @param[in] tokens The tokens.
 * @param[in] count Their number T, at least 1.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[out] embedding (D) floats; (T,D) with LLM_POOLING_NONE, of which some may be written if the call fails.
 * @param[in] capacity Of `embedding` in floats, at least as many.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CACHE_FULL, CANCELLED, BUFFER_TOO_SMALL, OUT_OF_MEMORY; FAILED_PRECONDITION if the session holds tokens;
 *     INVALID_ARGUMENT for no tokens, and names one that is not in the vocabulary; UNSUPPORTED for LLM_POOLING_MODEL if
 *     the model's own way is none of the others
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_embed(llm_session_t *LLM_NONNULL session,
                               const llm_token_t *LLM_NULLABLE tokens,
                               size_t count,
                               const llm_embed_params_t *LLM_NULLABLE params,
                               float *LLM_NULLABLE embedding,
                               size_t capacity,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Adds a stop string, which ends a generation when it appears in its text. It is never given out: text that may begin
 * one is withheld until that is known. Stop strings stay until they are removed. Special tokens have no text here: a
 * stop string cannot match one, and those that end a turn end the generation anyway. What is withheld when the context
 * is full is given out then: one that begins before a llm_session_shift and ends behind it is not found.
 *
 * @param[in] session A session.
 * @param[in] text UTF-8, not empty.
 * @param[in] text_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is empty or not UTF-8
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_add_stop(llm_session_t *LLM_NONNULL session,
                                  const char *LLM_NULLABLE text,
                                  size_t text_size,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Removes all stop strings. Text that was withheld for them is given out with the next token's.
 *
 * @param[in] session A session.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_clear_stops(llm_session_t *LLM_NONNULL session,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Begins a generation: sets the sampler and the limits, and counts tokens from here. The same tokens, sampler and seed
 * give the same text: to try again differently, give another seed.
 *
 * @param[in] session A session.
 * @param[in] sampler @nullable Its steps and seed are copied, it begins at the seed with the
 *     session's tokens as its history; NULL takes the most probable token.
 * @param[in] params @nullable Limits; NULL means the defaults.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY, UNSUPPORTED (unknown flags)
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_start(llm_session_t *LLM_NONNULL session,
                               llm_sampler_t *LLM_NULLABLE sampler,
                               const llm_generate_params_t *LLM_NULLABLE params,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Chooses the next token and appends it. The token is processed when something needs what follows it: by the next call
 * of this function, by llm_session_logits, or together with tokens that are appended.
 *
 * An end-of-generation token is given with the text that was withheld before it, and is not appended. Without
 * llm_session_start the most probable tokens are taken, without limits. On failure no token is appended.
 *
 * @param[in] session A session.
 * @param[out] token The token; LLM_TOKEN_NONE if the context had no room for one.
 * @param[out] text The text that is complete with it, may be empty; lives until the next call on the session. Whole
 *     characters of UTF-8, except that bytes which the model generates and which cannot become a character come as
 *     they are, and that the text of a finish may end within a character.
 * @param[out] finish_reason LLM_FINISH_NONE, or why it ended.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CANCELLED, OUT_OF_MEMORY; CACHE_FULL if shared pages are all taken; FAILED_PRECONDITION if the session is
 *     empty or the generation has ended
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_next(llm_session_t *LLM_NONNULL session,
                              llm_token_t *LLM_NONNULL token,
                              llm_view_t *LLM_NONNULL text,
                              llm_finish_reason_t *LLM_NONNULL finish_reason,
                              llm_error_t **LLM_NULLABLE error);

/**
 * The log probabilities of the token that the last llm_session_next chose, and of the most probable tokens, after a
 * softmax over the model's logits as they are: no sampler has a part in them. To be called before anything else is
 * computed on the session.
 *
 * @param[in] session A session.
 * @param[out] chosen The token that was chosen, an end-of-generation token too.
 * @param[out] top The `capacity` most probable tokens, most probable first, ties by the smaller token.
 * @param[in] capacity Their number, at most V.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION if no token was chosen, or tokens were processed since;
 *     INVALID_ARGUMENT if capacity is more than V
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_logprobs(llm_session_t *LLM_NONNULL session,
                                  llm_logprob_t *LLM_NONNULL chosen,
                                  llm_logprob_t *LLM_NULLABLE top,
                                  size_t capacity,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Generates until the end: llm_session_next in a loop. If it fails or is cancelled, the tokens that `on_token` got stay
 * in the session.
 *
 * @param[in] session A session.
 * @param[in] on_token Called with every token, on this thread.
 * @param[in] user_data @nullable Passed to `on_token`.
 * @param[out] finish_reason Why it ended; LLM_FINISH_ABORTED if `on_token` returned false.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CANCELLED, OUT_OF_MEMORY; CACHE_FULL if shared pages are all taken; FAILED_PRECONDITION if the session is
 *     empty or the generation has ended
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_generate(llm_session_t *LLM_NONNULL session,
                                  llm_token_callback_t LLM_NONNULL on_token,
                                  void *LLM_NULLABLE user_data,
                                  llm_finish_reason_t *LLM_NONNULL finish_reason,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Ends the generation and gives the text that was withheld: what may begin a stop string, and the bytes of a character
 * that is not complete. For callers that stop on their own.
 *
 * @param[in] session A session.
 * @param[out] text The text, may be empty; lives until the next call on the session.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_flush(llm_session_t *LLM_NONNULL session,
                               llm_view_t *LLM_NONNULL text,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_session_params_init(llm_session_params_t *LLM_NULLABLE params,
                             size_t size);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_generate_params_init(llm_generate_params_t *LLM_NULLABLE params,
                              size_t size);

/**
 * Guesses tokens ahead from now on, for speed: what followed the last tokens where they occurred before, among the last
 * 32,768, is processed together with them, and kept as far as the sampler chooses the same. No token of a generation
 * changes by it. It pays where texts are repeated: edits, summaries, code; elsewhere it rests.
 *
 * @param[in] session A session.
 * @param[in] max_tokens Guesses at a time at most; more than 64 are 64, 0 means 12.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_speculate_lookup(llm_session_t *LLM_NONNULL session,
                                          uint32_t max_tokens,
                                          llm_error_t **LLM_NULLABLE error);

/**
 * As llm_session_speculate_lookup, with the most probable tokens of a smaller model as guesses.
 *
 * @param[in] session A session.
 * @param[in] draft @nullable A model with the same vocabulary, of which the session makes a session of its own; NULL
 *     ends all guessing.
 * @param[in] max_tokens Guesses at a time at most; more than 64 are 64, 0 means 4.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if the vocabularies differ in size; FAILED_PRECONDITION if the draft
 *     is an encoder
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_speculate_draft(llm_session_t *LLM_NONNULL session,
                                         const llm_model_t *LLM_NULLABLE draft,
                                         uint32_t max_tokens,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * What guessing did since it was set; zeros if it was not.
 *
 * @param[in] session A session.
 * @param[in,out] speculation Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, INVALID_ARGUMENT
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_speculation(llm_session_t *LLM_NONNULL session,
                                     llm_speculation_t *LLM_NONNULL speculation,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Writes the tokens of a session with their keys and values to a file. A session that loads it goes on bit for bit as
 * this one. What belongs to a generation (sampler, limits, withheld text) is not part of it, nor are stop strings and
 * adapters. The file is written under a temporary name and renamed when it is complete. It belongs to this version of
 * the library. Tokens that a sliding cache has forgotten too much of are processed again before.
 *
 * @param[in] session A session.
 * @param[in] path The path, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, IO, CANCELLED, OUT_OF_MEMORY; NOT_FOUND if there is no such folder; INVALID_ARGUMENT if the path is a folder;
 *     FAILED_PRECONDITION if tokens of a shifted session would have to be processed again, which would change how it goes on
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_save(llm_session_t *LLM_NONNULL session,
                              const char *LLM_NULLABLE path,
                              size_t path_size,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Takes over what llm_session_save wrote, in the place of the tokens that the session holds. The session must be one
 * of the same model, with the same adapters, number type of keys and values, window and sinks; cache kind, context
 * and threads may differ. Two limits: what a sliding cache has forgotten cannot be loaded where it would be needed, into
 * another kind for example; and a model that rotates positions in another way in a long context (longrope) needs one on
 * the same side of that length. The timings begin anew. On failure nothing has changed.
 *
 * @param[in] session A session.
 * @param[in] path The path, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, NOT_FOUND, IO, CANCELLED, OUT_OF_MEMORY; CORRUPT_FILE if the file is no session or not as it was written;
 *     FAILED_PRECONDITION names what differs ("what"), another model for example; CACHE_FULL if the context is too
 *     short; INVALID_ARGUMENT for what is no file
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_load(llm_session_t *LLM_NONNULL session,
                              const char *LLM_NULLABLE path,
                              size_t path_size,
                              llm_error_t **LLM_NULLABLE error);

/**
 * What llm_session_save writes, in memory.
 *
 * @param[in] session A session.
 * @param[out] bytes The state, to be freed with llm_bytes_free.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CANCELLED, OUT_OF_MEMORY; FAILED_PRECONDITION as llm_session_save
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_save_bytes(llm_session_t *LLM_NONNULL session,
                                    llm_bytes_t **LLM_NONNULL bytes,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * As llm_session_load, of what llm_session_save_bytes gave or llm_session_save wrote.
 *
 * @param[in] session A session.
 * @param[in] data The state; not needed after the call.
 * @param[in] data_size Its bytes.
 * @param[out] error @nullable Why it failed.
 * @status as llm_session_load
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_load_bytes(llm_session_t *LLM_NONNULL session,
                                    const void *LLM_NULLABLE data,
                                    size_t data_size,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Makes room where a conversation has filled its context: drops the older half of the tokens behind the first `keep` (a
 * system prompt, say). The others move up and keep what they know of the dropped ones: their keys are turned to their
 * new positions. Where that cannot be done (learned positions, a sliding cache that has forgotten some) the tokens
 * that are left are processed again. A generation goes on where it is, also one that ended because the context was full.
 *
 * Results are not those of a session that never had the dropped tokens. With a conversation (llm_session_append_messages)
 * the session then has only the first `keep` tokens in common, so that appending it cuts the session back to these: drop
 * old messages instead, reset the session and append the others.
 *
 * @param[in] session A session.
 * @param[in] keep Tokens at the start to keep.
 * @param[out] dropped @nullable How many tokens were dropped; 0 if there are none behind the first `keep`.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CANCELLED, OUT_OF_MEMORY; CACHE_FULL if shared pages have no room for the copy; INVALID_ARGUMENT if
 *     there are fewer tokens. Nothing has changed then
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_shift(llm_session_t *LLM_NONNULL session,
                               size_t keep,
                               size_t *LLM_NULLABLE dropped,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_beam_params_init(llm_beam_params_t *LLM_NULLABLE params,
                          size_t size);

/**
 * Searches the most likely continuations of a session as a whole. The session is as before. A cache of
 * LLM_CACHE_PAGED is shared with it page by page; others are copied for each beam. Each continuation is a text of the
 * session's grammar, if it has one; log probabilities are those among all tokens all the same.
 *
 * @param[in] session A session with tokens.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[out] beams The continuations, best first, to be freed with llm_beams_free.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, CANCELLED, OUT_OF_MEMORY, UNSUPPORTED (unknown flags); CACHE_FULL if shared pages run out;
 *     FAILED_PRECONDITION if the session has no tokens; INVALID_ARGUMENT if the width is not 1 to 256, the penalty
 *     not finite, or the grammar too ambiguous
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_beam_search(llm_session_t *LLM_NONNULL session,
                                     const llm_beam_params_t *LLM_NULLABLE params,
                                     llm_beams_t **LLM_NONNULL beams,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Makes a request search the most likely continuations of its prompt as a whole, as llm_session_beam_search does, beside
 * the other requests of the engine. Each continuation is a text of its grammar, if it has one; its sampler, stop strings,
 * max_tokens, count and log probabilities have no part in that. Continuation i is the i-th best. The events of all come
 * together when the search is over: for each continuation one for each token, without text, and then one with the whole
 * text and its end. NOT_FOUND ends those of `width` that were not found.
 *
 * @param[in] request A request.
 * @param[in] params @nullable How, which llm_engine_submit looks at; NULL ends it: a sampler chooses again.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, UNSUPPORTED (unknown flags)
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_set_beams(llm_request_t *LLM_NONNULL request,
                                   const llm_beam_params_t *LLM_NULLABLE params,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Frees the continuations.
 *
 * @param[in] beams @nullable Continuations; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_beams_free(llm_beams_t *LLM_NULLABLE beams);

/**
 * How many continuations there are: as many as the width, or fewer if fewer are possible.
 *
 * @param[in] beams Continuations.
 * @return Their number; 0 if they are none.
 * @thread any
 */
LLM_API
size_t llm_beams_count(const llm_beams_t *LLM_NONNULL beams);

/**
 * A continuation.
 *
 * @param[in] beams Continuations.
 * @param[in] index Below llm_beams_count.
 * @param[in,out] beam Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND if there are not so many
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_beams_get(const llm_beams_t *LLM_NONNULL beams,
                           size_t index,
                           llm_beam_t *LLM_NONNULL beam,
                           llm_error_t **LLM_NULLABLE error);

/**
 * Loads an adapter from a file.
 *
 * @param[in] model The model that it is for.
 * @param[in] path The path, UTF-8 (on Unix any bytes).
 * @param[in] path_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] lora The adapter, to be freed with llm_lora_free.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND, IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY; INVALID_ARGUMENT if it is for another architecture,
 *     or for tensors that the model does not have, or has in another shape
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_lora_load(const llm_model_t *LLM_NONNULL model,
                           const char *LLM_NULLABLE path,
                           size_t path_size,
                           llm_lora_t **LLM_NONNULL lora,
                           llm_error_t **LLM_NULLABLE error);

/**
 * Loads an adapter from an open file, which may be in memory or behind a reader.
 *
 * @param[in] model The model that it is for.
 * @param[in] gguf The file.
 * @param[out] lora The adapter, to be freed with llm_lora_free.
 * @param[out] error @nullable Why it failed.
 * @status IO, CORRUPT_FILE, UNSUPPORTED, OUT_OF_MEMORY; INVALID_ARGUMENT if it is for another architecture, or for
 *     tensors that the model does not have, or has in another shape
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_lora_load_gguf(const llm_model_t *LLM_NONNULL model,
                                const llm_gguf_t *LLM_NONNULL gguf,
                                llm_lora_t **LLM_NONNULL lora,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Adds a reference, to be freed with llm_lora_free.
 *
 * @param[in] lora An adapter.
 * @return The same adapter; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_lora_t *llm_lora_retain(const llm_lora_t *LLM_NONNULL lora);

/**
 * Frees a reference. Sessions keep the adapters that were added to them.
 *
 * @param[in] lora @nullable An adapter; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_lora_free(llm_lora_t *LLM_NULLABLE lora);

/**
 * The numbers that describe an adapter.
 *
 * @param[in] lora An adapter.
 * @param[in,out] info Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_lora_info(const llm_lora_t *LLM_NONNULL lora,
                           llm_lora_info_t *LLM_NONNULL info,
                           llm_error_t **LLM_NULLABLE error);

/**
 * The name that the adapter's file gives it, which may be empty.
 *
 * @param[in] lora An adapter.
 * @param[out] name Lives as long as the adapter.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_lora_name(const llm_lora_t *LLM_NONNULL lora,
                           llm_view_t *LLM_NONNULL name,
                           llm_error_t **LLM_NULLABLE error);

/**
 * Adds an adapter to a session that has no tokens: from then on it computes with W + scale * alpha / R * B A. Several
 * add up in the order in which they were added, the same one twice too; with a scale of 0 it changes nothing.
 *
 * @param[in] session A session without tokens.
 * @param[in] lora The adapter, loaded for the session's model. The session keeps it.
 * @param[in] scale 1 is what the adapter was trained with.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; FAILED_PRECONDITION if the session holds tokens, whose keys and values are those of the adapters before:
 *     llm_session_reset it first; INVALID_ARGUMENT for a scale that is not finite, or an adapter whose shapes
 *     are another model's
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_add_lora(llm_session_t *LLM_NONNULL session,
                                  const llm_lora_t *LLM_NONNULL lora,
                                  float scale,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Removes all adapters from a session that has no tokens; it then computes what the model alone does, bit for bit.
 *
 * @param[in] session A session without tokens.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; FAILED_PRECONDITION if the session holds tokens
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_clear_loras(llm_session_t *LLM_NONNULL session,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Makes a conversation without messages.
 *
 * @param[out] messages The conversation, to be freed with llm_messages_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_new(llm_messages_t **LLM_NONNULL messages,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Frees a conversation.
 *
 * @param[in] messages @nullable A conversation; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_messages_free(llm_messages_t *LLM_NULLABLE messages);

/**
 * Adds a message of text.
 *
 * @param[in] messages A conversation.
 * @param[in] role Who says it, UTF-8: "system", "user", "assistant", "tool", or what the template knows.
 * @param[in] role_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] content The text, UTF-8, at most 32 MiB.
 * @param[in] content_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if a text is not UTF-8 or longer than 32 MiB
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_add(llm_messages_t *LLM_NONNULL messages,
                              const char *LLM_NULLABLE role,
                              size_t role_size,
                              const char *LLM_NULLABLE content,
                              size_t content_size,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Adds a message that is written as JSON, or a list of messages. On failure nothing is added.
 *
 * @param[in] messages A conversation.
 * @param[in] json The message: see llm_messages_t.
 * @param[in] json_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is longer than 32 MiB, not JSON (facts "line" and "column") or no message (fact "key")
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_add_json(llm_messages_t *LLM_NONNULL messages,
                                   const char *LLM_NULLABLE json,
                                   size_t json_size,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Adds the assistant's message that a text of a model is, taken apart: thoughts into "reasoning_content", calls of
 * tools into "tool_calls", the rest into "content". Calls without an id get one. Known are the styles of Hermes and Qwen
 * (<tool_call>), Qwen Coder (<function=), GLM 4.5, Phi 4 mini, Granite 3, Mistral ([TOOL_CALLS]), DeepSeek, Llama 3.1,
 * Command R and A, and gpt-oss (channels); what is none of them, or was cut off, stays content. Arguments that are written
 * as text are what the tool's schema takes them for. For a session's answer there is llm_session_answer. Of a request to an
 * engine collect the tokens of its events, but the one that ends it with LLM_FINISH_EOG, and decode them with
 * LLM_DECODE_SHOW_SPECIAL: the text of events lacks special tokens. After LLM_FINISH_STOP cut the stop string off.
 *
 * @param[in] messages A conversation.
 * @param[in] text The answer, UTF-8, decoded with LLM_DECODE_SHOW_SPECIAL: many styles are written with special tokens.
 * @param[in] text_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is not UTF-8 or longer than 32 MiB
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_add_answer(llm_messages_t *LLM_NONNULL messages,
                                     const char *LLM_NULLABLE text,
                                     size_t text_size,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * The number of messages.
 *
 * @param[in] messages A conversation.
 * @param[out] count The number.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_count(llm_messages_t *LLM_NONNULL messages,
                                size_t *LLM_NONNULL count,
                                llm_error_t **LLM_NULLABLE error);

/**
 * A message as JSON.
 *
 * @param[in] messages A conversation.
 * @param[in] index From 0.
 * @param[out] json The message, in one line, to be freed with llm_bytes_free.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; NOT_FOUND if there are fewer
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_get(llm_messages_t *LLM_NONNULL messages,
                              size_t index,
                              llm_bytes_t **LLM_NONNULL json,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Keeps the first messages and removes the others.
 *
 * @param[in] messages A conversation.
 * @param[in] count How many are kept.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; INVALID_ARGUMENT if there are fewer
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_truncate(llm_messages_t *LLM_NONNULL messages,
                                   size_t count,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Sets the tools that the model may call.
 * Where the template does not name them, the log gets a warning each time that the conversation is rendered.
 *
 * @param[in] messages A conversation.
 * @param[in] json A JSON list: [{"type": "function", "function": {"name": "...", "description": "...",
 *     "parameters": JSON schema}}]; [] for none.
 * @param[in] json_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is something else or longer than 32 MiB
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_set_tools(llm_messages_t *LLM_NONNULL messages,
                                    const char *LLM_NULLABLE json,
                                    size_t json_size,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Sets a variable of the template: for example "enable_thinking" to false, or "documents" to a list. "bos_token",
 * "eos_token" and "documents" are there if they are not set.
 *
 * @param[in] messages A conversation.
 * @param[in] name The variable's name, UTF-8.
 * @param[in] name_size Its length, or LLM_NUL_TERMINATED.
 * @param[in] json Its value as JSON.
 * @param[in] json_size The length of that, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if the value is not JSON or longer than 32 MiB, or for "messages", "tools" and "add_generation_prompt"
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_set_variable(llm_messages_t *LLM_NONNULL messages,
                                       const char *LLM_NULLABLE name,
                                       size_t name_size,
                                       const char *LLM_NULLABLE json,
                                       size_t json_size,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Sets the chat template, in place of the model's own.
 *
 * @param[in] messages A conversation.
 * @param[in] text @nullable A template in jinja2's language, UTF-8; NULL: the model's own. It is read when it is used.
 * @param[in] text_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT if it is not UTF-8 or longer than 32 MiB
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_set_template(llm_messages_t *LLM_NONNULL messages,
                                       const char *LLM_NULLABLE text,
                                       size_t text_size,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * Sets the time that templates see: some write the date, and with it the text changes from day to day.
 *
 * @param[in] messages A conversation.
 * @param[in] seconds Since 1970, UTC; INT64_MIN: the system's time at each use.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_set_time(llm_messages_t *LLM_NONNULL messages,
                                   int64_t seconds,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The text of the conversation, as the model's chat template has it. To be encoded with LLM_ENCODE_PARSE_SPECIAL and
 * without LLM_ENCODE_ADD_SPECIAL: the template writes all special tokens.
 *
 * Where a template cannot take some form, another is given: parts as their texts, a line each, or a text as one part; the
 * arguments of calls as JSON text; "reasoning_content" as "thinking" or "tool_plan"; null for the empty "content" of a
 * message that calls tools. Of a file's several templates that of the name "tool_use" is taken if there are tools.
 *
 * @param[in] messages A conversation.
 * @param[in] tokenizer The model's tokenizer, which has its template.
 * @param[in] flags 0 or LLM_MESSAGES_ANSWER.
 * @param[out] text The text, UTF-8, to be freed with llm_bytes_free.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; NOT_FOUND if the model has no template; UNSUPPORTED for unknown flags, or for parts that
 *     are no text if the template takes none; INVALID_ARGUMENT if the template refuses the conversation (fact
 *     "exception": its message), fails or reaches a limit
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_messages_render(llm_messages_t *LLM_NONNULL messages,
                                 const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                 uint32_t flags,
                                 llm_bytes_t **LLM_NONNULL text,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Makes the session hold a conversation: keeps the tokens that both have in common from the start on, and processes the
 * others. So each turn of a conversation costs its own tokens only, and after a change of a message what follows it. (An
 * answer is read as text again: from where the model wrote it in other tokens than its text is encoded to, it is
 * processed once more.)
 *
 * A conversation that has filled the context (CACHE_FULL, or an answer that ended with LLM_FINISH_CONTEXT_FULL) goes on
 * without its oldest messages: put those that are to stay into a new llm_messages_t (llm_messages_get,
 * llm_messages_add_json), reset the session and append it. llm_session_shift is no help here: a session that was shifted
 * has only the first `keep` tokens in common with its conversation, and the others would be processed again.
 *
 * @param[in] session A session.
 * @param[in] messages A conversation.
 * @param[in] flags 0 or LLM_MESSAGES_ANSWER.
 * @param[out] count @nullable How many tokens were processed.
 * @param[out] error @nullable Why it failed; then the session is as it was, or, if processing failed or was cancelled,
 *     holds what was in common.
 * @status BUSY, CACHE_FULL, CANCELLED, OUT_OF_MEMORY; those of llm_messages_render
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_append_messages(llm_session_t *LLM_NONNULL session,
                                         llm_messages_t *LLM_NONNULL messages,
                                         uint32_t flags,
                                         size_t *LLM_NULLABLE count,
                                         llm_error_t **LLM_NULLABLE error);

/**
 * Adds the text that the generation has given so far to a conversation, as the assistant's message: see
 * llm_messages_add_answer. Special tokens in it are shown; bytes that are no UTF-8, of a character that did not come to
 * its end, become U+FFFD. What was withheld is no part of it, nor is a stop string, nor the space that SentencePiece puts
 * before a text.
 *
 * @param[in] session A session that has generated.
 * @param[in] messages A conversation.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; FAILED_PRECONDITION if nothing was generated since the generation began
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_answer(llm_session_t *LLM_NONNULL session,
                                llm_messages_t *LLM_NONNULL messages,
                                llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_paged_cache_params_init(llm_paged_cache_params_t *LLM_NULLABLE params,
                                 size_t size);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_attention_params_init(llm_attention_params_t *LLM_NULLABLE params,
                               size_t size);

/**
 * Makes an empty cache.
 *
 * @param[in] params What it is to hold.
 * @param[out] cache The cache, to be freed with llm_paged_cache_free.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT names a number that is 0 or, of layers, too large, or a page size that is no multiple of 16; UNSUPPORTED for an
 *     instruction set that the machine lacks, or a head_dim that kv_type does not allow; OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_new(const llm_paged_cache_params_t *LLM_NONNULL params,
                                 llm_paged_cache_t **LLM_NONNULL cache,
                                 llm_error_t **LLM_NULLABLE error);

/**
 * Makes an empty cache for sessions and engines of a model. Where the model's values are narrower than its keys (latent
 * attention) it has no sequences of its own.
 *
 * @param[in] model The model. It is not kept.
 * @param[in] params max_pages, page_size, kv_type, threads and isa; the numbers of layers and heads and the head's
 *     length are the model's.
 * @param[out] cache The cache, to be freed with llm_paged_cache_free.
 * @param[out] error @nullable Why it failed.
 * @status as llm_paged_cache_new
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_new_for_model(const llm_model_t *LLM_NONNULL model,
                                           const llm_paged_cache_params_t *LLM_NONNULL params,
                                           llm_paged_cache_t **LLM_NONNULL cache,
                                           llm_error_t **LLM_NULLABLE error);

/**
 * Adds a reference, to be freed with llm_paged_cache_free.
 *
 * @param[in] cache A cache.
 * @return The same cache; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_paged_cache_t *llm_paged_cache_retain(const llm_paged_cache_t *LLM_NONNULL cache);

/**
 * Gives a reference back. The cache lives until its sessions are freed, too.
 *
 * @param[in] cache @nullable A cache; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_paged_cache_free(llm_paged_cache_t *LLM_NULLABLE cache);

/**
 * Makes an empty sequence.
 *
 * @param[in] cache A cache.
 * @param[out] sequence The sequence. It takes memory until it is removed.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY; UNSUPPORTED if the cache is for a model whose keys and values differ in width
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_create_sequence(const llm_paged_cache_t *LLM_NONNULL cache,
                                             llm_sequence_t *LLM_NONNULL sequence,
                                             llm_error_t **LLM_NULLABLE error);

/**
 * Makes a sequence with the committed positions of another, of which all pages are shared.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence to fork.
 * @param[out] fork The new one.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND, OUT_OF_MEMORY; BUSY if another call uses the sequence
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_fork_sequence(const llm_paged_cache_t *LLM_NONNULL cache,
                                           llm_sequence_t sequence,
                                           llm_sequence_t *LLM_NONNULL fork,
                                           llm_error_t **LLM_NULLABLE error);

/**
 * Removes a sequence. Pages that nobody else holds are free again.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; BUSY if another call uses the sequence
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_remove_sequence(const llm_paged_cache_t *LLM_NONNULL cache,
                                             llm_sequence_t sequence,
                                             llm_error_t **LLM_NULLABLE error);

/**
 * Keeps the first positions of a sequence in every layer, and forgets the others.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[in] length How many to keep, at most llm_paged_cache_sequence_length.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT if it has fewer
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_truncate_sequence(const llm_paged_cache_t *LLM_NONNULL cache,
                                               llm_sequence_t sequence,
                                               size_t length,
                                               llm_error_t **LLM_NULLABLE error);

/**
 * Appends a position to a layer of a sequence: llm_paged_cache_append_tokens with a count of 1.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[in] layer The layer, from 0.
 * @param[in] k (K,E) floats: the key.
 * @param[in] v (K,E) floats: the value.
 * @param[out] error @nullable Why it failed.
 * @status as llm_paged_cache_append_tokens
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_append_token(const llm_paged_cache_t *LLM_NONNULL cache,
                                          llm_sequence_t sequence,
                                          uint32_t layer,
                                          const float *LLM_NONNULL k,
                                          const float *LLM_NONNULL v,
                                          llm_error_t **LLM_NULLABLE error);

/**
 * Appends positions to a layer of a sequence. A layer takes no positions that the layer before it does not have. A
 * position is committed, and counts in the sequence's length, when the last layer has it.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[in] layer The layer, from 0.
 * @param[in] k (T,K,E) floats: the keys.
 * @param[in] v (T,K,E) floats: the values.
 * @param[in] count T; 0 does nothing.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT for a layer that there is not;
 *     FAILED_PRECONDITION for a layer out of order; CACHE_FULL if there are no pages left, and OUT_OF_MEMORY: every
 *     sequence is as it was then
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_append_tokens(const llm_paged_cache_t *LLM_NONNULL cache,
                                           llm_sequence_t sequence,
                                           uint32_t layer,
                                           const float *LLM_NULLABLE k,
                                           const float *LLM_NULLABLE v,
                                           size_t count,
                                           llm_error_t **LLM_NULLABLE error);

/**
 * The key of a position, as it is stored: rounded to the cache's type. A finite number beyond the range of f16 becomes
 * its largest.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[in] layer The layer, from 0.
 * @param[in] position The position, from 0; one that the layer has, committed or not.
 * @param[out] k (K,E) floats.
 * @param[in] capacity Of `k` in floats, at least K * E.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT for a layer or position that there is not;
 *     BUFFER_TOO_SMALL
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_get_k(const llm_paged_cache_t *LLM_NONNULL cache,
                                   llm_sequence_t sequence,
                                   uint32_t layer,
                                   size_t position,
                                   float *LLM_NULLABLE k,
                                   size_t capacity,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The value of a position, as it is stored: as llm_paged_cache_get_k.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[in] layer The layer, from 0.
 * @param[in] position The position, from 0; one that the layer has, committed or not.
 * @param[out] v (K,E) floats.
 * @param[in] capacity Of `v` in floats, at least K * E.
 * @param[out] error @nullable Why it failed.
 * @status as llm_paged_cache_get_k
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_get_v(const llm_paged_cache_t *LLM_NONNULL cache,
                                   llm_sequence_t sequence,
                                   uint32_t layer,
                                   size_t position,
                                   float *LLM_NULLABLE v,
                                   size_t capacity,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * The committed positions of a sequence: those that every layer has.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[out] length In positions.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; BUSY if another call uses the sequence
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_sequence_length(const llm_paged_cache_t *LLM_NONNULL cache,
                                             llm_sequence_t sequence,
                                             size_t *LLM_NONNULL length,
                                             llm_error_t **LLM_NULLABLE error);

/**
 * The attention of the last positions of a layer: out = softmax(scale * q k^T) v, each query over the positions up to
 * its own. With keys in q8_0 or q4_0 the queries are rounded to blocks of 32 integers of 8 bits first.
 *
 * @param[in] cache A cache.
 * @param[in] sequence The sequence.
 * @param[in] layer The layer, from 0. Its last T positions are the queries'.
 * @param[in] q (T,H,E) floats: the queries.
 * @param[in] count T; 0 does nothing.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[out] out (T,H,E) floats.
 * @param[in] capacity Of `out` in floats, at least T * H * E.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT for a layer that there is not, more
 *     queries than the layer has positions, and numbers in params that are not finite or heads that K does not divide;
 *     BUFFER_TOO_SMALL, OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_attention(const llm_paged_cache_t *LLM_NONNULL cache,
                                       llm_sequence_t sequence,
                                       uint32_t layer,
                                       const float *LLM_NULLABLE q,
                                       size_t count,
                                       const llm_attention_params_t *LLM_NULLABLE params,
                                       float *LLM_NULLABLE out,
                                       size_t capacity,
                                       llm_error_t **LLM_NULLABLE error);

/**
 * The state of the cache.
 *
 * @param[in] cache A cache.
 * @param[in,out] stats Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_paged_cache_stats(const llm_paged_cache_t *LLM_NONNULL cache,
                                   llm_paged_cache_stats_t *LLM_NONNULL stats,
                                   llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_request_params_init(llm_request_params_t *LLM_NULLABLE params,
                             size_t size);

/**
 * Makes a request without a prompt, which takes the most probable token.
 *
 * @param[out] request The request, to be freed with llm_request_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_new(llm_request_t **LLM_NONNULL request,
                             llm_error_t **LLM_NULLABLE error);

/**
 * Frees a request. What was submitted goes on.
 *
 * @param[in] request @nullable A request; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_request_free(llm_request_t *LLM_NULLABLE request);

/**
 * Sets the prompt.
 *
 * @param[in] request A request.
 * @param[in] tokens The tokens.
 * @param[in] count Their number.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_set_tokens(llm_request_t *LLM_NONNULL request,
                                    const llm_token_t *LLM_NULLABLE tokens,
                                    size_t count,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Sets the prompt, from text.
 *
 * @param[in] request A request.
 * @param[in] tokenizer The tokenizer of the model.
 * @param[in] text Any bytes.
 * @param[in] text_size Their number, or LLM_NUL_TERMINATED.
 * @param[in] flags LLM_ENCODE_ bits.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY, UNSUPPORTED (unknown flags, or a model without tokenizer)
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_set_text(llm_request_t *LLM_NONNULL request,
                                  const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                  const char *LLM_NULLABLE text,
                                  size_t text_size,
                                  uint32_t flags,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Sets the prompt, from a conversation: the tokens that llm_session_append_messages would make a session hold. Requests of
 * the turns of a conversation find what they share in the engine's pages. llm_messages_add_answer tells how an answer is
 * added.
 *
 * @param[in] request A request.
 * @param[in] tokenizer The tokenizer of the model.
 * @param[in] messages A conversation.
 * @param[in] flags 0 or LLM_MESSAGES_ANSWER.
 * @param[out] count @nullable How many tokens the prompt has.
 * @param[out] error @nullable Why it failed; then the request is as it was.
 * @status BUSY, OUT_OF_MEMORY; those of llm_messages_render
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_set_messages(llm_request_t *LLM_NONNULL request,
                                      const llm_tokenizer_t *LLM_NONNULL tokenizer,
                                      llm_messages_t *LLM_NONNULL messages,
                                      uint32_t flags,
                                      size_t *LLM_NULLABLE count,
                                      llm_error_t **LLM_NULLABLE error);

/**
 * Sets how it goes on.
 *
 * @param[in] request A request.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, UNSUPPORTED (unknown flags)
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_set_params(llm_request_t *LLM_NONNULL request,
                                    const llm_request_params_t *LLM_NULLABLE params,
                                    llm_error_t **LLM_NULLABLE error);

/**
 * Sets how tokens are chosen.
 *
 * @param[in] request A request.
 * @param[in] sampler @nullable Its steps and seed are copied; each continuation begins at the seed, with the prompt
 *     as its history. NULL takes the most probable token.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_set_sampler(llm_request_t *LLM_NONNULL request,
                                     llm_sampler_t *LLM_NULLABLE sampler,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Adds a stop string, as llm_session_add_stop does.
 *
 * @param[in] request A request.
 * @param[in] text UTF-8, not empty.
 * @param[in] text_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY; INVALID_ARGUMENT for an empty text or one that is not UTF-8
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_add_stop(llm_request_t *LLM_NONNULL request,
                                  const char *LLM_NULLABLE text,
                                  size_t text_size,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Removes all stop strings.
 *
 * @param[in] request A request.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_clear_stops(llm_request_t *LLM_NONNULL request,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Adds an adapter, as llm_session_add_lora does. Requests with different adapters are processed together.
 *
 * @param[in] request A request.
 * @param[in] lora An adapter of the engine's model.
 * @param[in] scale What it is multiplied with, usually 1; llm_engine_submit looks at that.
 * @param[out] error @nullable Why it failed.
 * @status BUSY, OUT_OF_MEMORY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_add_lora(llm_request_t *LLM_NONNULL request,
                                  const llm_lora_t *LLM_NONNULL lora,
                                  float scale,
                                  llm_error_t **LLM_NULLABLE error);

/**
 * Removes all adapters.
 *
 * @param[in] request A request.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_clear_loras(llm_request_t *LLM_NONNULL request,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Makes a grammar. The first one of a tokenizer takes longer than others: a quarter of a second for 49,152 tokens.
 *
 * @param[in] tokenizer The tokenizer of the model that is to write the text, from llm_model_tokenizer.
 * @param[in] syntax One of LLM_GRAMMAR_.
 * @param[in] text The grammar, UTF-8, at most 65,536 bytes.
 * @param[in] text_size Its length, or LLM_NUL_TERMINATED.
 * @param[out] grammar The grammar, to be freed with llm_grammar_free.
 * @param[out] error @nullable Why it failed, with the place in the grammar where there is one.
 * @status INVALID_ARGUMENT for a grammar that is wrong, too large, or that no text fits; OUT_OF_MEMORY; UNSUPPORTED
 *     if the vocabulary has more than 4 million pieces
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_grammar_new(const llm_tokenizer_t *LLM_NONNULL tokenizer,
                             llm_grammar_syntax_t syntax,
                             const char *LLM_NULLABLE text,
                             size_t text_size,
                             llm_grammar_t **LLM_NONNULL grammar,
                             llm_error_t **LLM_NULLABLE error);

/**
 * Adds a reference, to be freed with llm_grammar_free.
 *
 * @param[in] grammar A grammar.
 * @return The same grammar; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_grammar_t *llm_grammar_retain(const llm_grammar_t *LLM_NONNULL grammar);

/**
 * Gives a reference back. Sessions and requests keep what they use.
 *
 * @param[in] grammar @nullable A grammar; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_grammar_free(llm_grammar_t *LLM_NULLABLE grammar);

/**
 * Sets what the text of each generation of a session looks like, from the next token on. What is appended has no part in
 * it. With a grammar, a generation can fail with INVALID_ARGUMENT: if the grammar is too ambiguous to go on, or if a
 * sampler step of the caller's own takes a token that is not allowed.
 *
 * @param[in] session A session.
 * @param[in] grammar @nullable A grammar for the tokenizer of the session's model; NULL for any text.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; INVALID_ARGUMENT if the grammar is for another tokenizer
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_session_set_grammar(llm_session_t *LLM_NONNULL session,
                                     const llm_grammar_t *LLM_NULLABLE grammar,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Sets what the text of each continuation of a request looks like, as llm_session_set_grammar does.
 *
 * @param[in] request A request.
 * @param[in] grammar @nullable A grammar for the tokenizer of the engine's model, which llm_engine_submit looks at;
 *     NULL for any text.
 * @param[out] error @nullable Why it failed.
 * @status BUSY
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_request_set_grammar(llm_request_t *LLM_NONNULL request,
                                     const llm_grammar_t *LLM_NULLABLE grammar,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Writes the defaults.
 *
 * @param[out] params @nullable Room for `size` bytes; NULL does nothing.
 * @param[in] size sizeof *params.
 * @thread any
 */
LLM_API
void llm_engine_params_init(llm_engine_params_t *LLM_NULLABLE params,
                            size_t size);

/**
 * Makes an engine with pages of its own.
 *
 * @param[in] model The model, which the engine keeps alive.
 * @param[in] params @nullable How; NULL means the defaults.
 * @param[out] engine The engine, to be freed with llm_engine_free.
 * @param[out] error @nullable Why it failed.
 * @status as llm_session_new; FAILED_PRECONDITION if the model is an encoder
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_new(const llm_model_t *LLM_NONNULL model,
                            const llm_engine_params_t *LLM_NULLABLE params,
                            llm_engine_t **LLM_NONNULL engine,
                            llm_error_t **LLM_NULLABLE error);

/**
 * Makes an engine whose sequences go into the pages of a cache, which decides their number, number type and size, and
 * may serve sessions too. Pages that a session or another engine holds cannot be taken from it: a request that waits for
 * none but such pages ends with CACHE_FULL.
 *
 * @param[in] model The model, which the engine keeps alive.
 * @param[in] cache The cache, made for a model of this shape; the engine keeps what it needs of it.
 * @param[in] params @nullable How; NULL means the defaults. kv_type, max_pages and page_size do not count.
 * @param[out] engine The engine, to be freed with llm_engine_free.
 * @param[out] error @nullable Why it failed.
 * @status as llm_engine_new; INVALID_ARGUMENT if the cache is for another shape of keys and values
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_new_in_pages(const llm_model_t *LLM_NONNULL model,
                                     const llm_paged_cache_t *LLM_NONNULL cache,
                                     const llm_engine_params_t *LLM_NULLABLE params,
                                     llm_engine_t **LLM_NONNULL engine,
                                     llm_error_t **LLM_NULLABLE error);

/**
 * Another reference to the engine, to be freed too.
 *
 * @param[in] engine An engine.
 * @return The same engine; NULL if it is not one.
 * @thread any
 */
LLM_API
struct llm_engine_t *llm_engine_retain(const llm_engine_t *LLM_NONNULL engine);

/**
 * Gives a reference back. With the last one the requests end without further events, and an llm_engine_wait that is
 * under way returns.
 *
 * @param[in] engine @nullable An engine; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_engine_free(llm_engine_t *LLM_NULLABLE engine);

/**
 * Takes a request. It is copied, and processed when the engine is polled.
 *
 * @param[in] engine An engine.
 * @param[in] request The request.
 * @param[out] id Its number, which events name.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY; BUSY if another call uses the request; CACHE_FULL if the prompt does not fit into the
 *     context or the pages; INVALID_ARGUMENT for an empty prompt, a token outside the vocabulary, more than 256
 *     continuations, a top_logprobs above V, a grammar of another model, an adapter of other shapes or with a scale that
 *     is not finite, a beam search with a width that is not 1 to 256 or a penalty that is not finite
 * @thread any; the request, one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_submit(const llm_engine_t *LLM_NONNULL engine,
                               llm_request_t *LLM_NONNULL request,
                               llm_request_id_t *LLM_NONNULL id,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Asks for the end of a request. Its continuations that have not ended each get an event with CANCELLED, from the
 * llm_engine_poll or llm_engine_wait that begins the next pass through the model: a pass that is under way is ended
 * first, and may still give each of them a token.
 *
 * @param[in] engine An engine.
 * @param[in] id The request; one that has ended stays as it is.
 * @param[out] error @nullable Why it failed.
 * @status NOT_FOUND if there never was one
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_cancel(const llm_engine_t *LLM_NONNULL engine,
                               llm_request_id_t id,
                               llm_error_t **LLM_NULLABLE error);

/**
 * Works for about a budget of time, for the loop of a game or of events. It returns when half of a piece of work would
 * not fit into the budget any more, so at most one piece after it: a layer, a part of the logits that takes about as long,
 * or the choice of a token by them (with wide beams or adapters of the output these take longer; llm_engine_stats_t has
 * the longest). Prompts are processed in chunks that make a layer about a quarter of the budget. At least one piece of
 * work is done if there is any.
 *
 * @param[in] engine An engine.
 * @param[in] budget_us Microseconds.
 * @param[in] events Filled with what happened, in its order.
 * @param[out] more @nullable Whether there is more to do.
 * @param[out] error @nullable Why it failed.
 * @status BUSY if another call polls the engine or uses the list; OUT_OF_MEMORY, after which the next call tries
 *     again: no request and no event is lost; FAILED_PRECONDITION after INTERNAL
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_poll(const llm_engine_t *LLM_NONNULL engine,
                             uint64_t budget_us,
                             llm_events_t *LLM_NONNULL events,
                             bool *LLM_NULLABLE more,
                             llm_error_t **LLM_NULLABLE error);

/**
 * Works until something has happened; if there is nothing to do, sleeps until a request is submitted or llm_engine_wake
 * is called.
 *
 * @param[in] engine An engine.
 * @param[in] timeout_us Microseconds after which it returns without events; UINT64_MAX is never. It is looked at between
 *     pieces of work (a layer of up to `chunk` tokens of prompts, or the logits), and one is done even if it is 0: so it
 *     returns late by as much as one takes (largest_quantum_us of llm_engine_stats_t is the longest so far).
 * @param[in] events Filled with what happened, in its order.
 * @param[out] more @nullable Whether there is more to do.
 * @param[out] error @nullable Why it failed.
 * @status as llm_engine_poll
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_wait(const llm_engine_t *LLM_NONNULL engine,
                             uint64_t timeout_us,
                             llm_events_t *LLM_NONNULL events,
                             bool *LLM_NULLABLE more,
                             llm_error_t **LLM_NULLABLE error);

/**
 * Makes the llm_engine_wait that is under way return, or the next one where none is: before a program ends its thread
 * of the engine, or has something else to do on it.
 *
 * @param[in] engine An engine.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_wake(const llm_engine_t *LLM_NONNULL engine,
                             llm_error_t **LLM_NULLABLE error);

/**
 * What an engine does and did until its last poll.
 *
 * @param[in] engine An engine.
 * @param[in,out] stats Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status INVALID_ARGUMENT
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_engine_stats(const llm_engine_t *LLM_NONNULL engine,
                              llm_engine_stats_t *LLM_NONNULL stats,
                              llm_error_t **LLM_NULLABLE error);

/**
 * Makes an empty list.
 *
 * @param[out] events The list, to be freed with llm_events_free.
 * @param[out] error @nullable Why it failed.
 * @status OUT_OF_MEMORY
 * @thread any
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_events_new(llm_events_t **LLM_NONNULL events,
                            llm_error_t **LLM_NULLABLE error);

/**
 * Frees a list.
 *
 * @param[in] events @nullable A list; NULL does nothing.
 * @thread any
 */
LLM_API
void llm_events_free(llm_events_t *LLM_NULLABLE events);

/**
 * How many events a list has.
 *
 * @param[in] events A list.
 * @return Their number; 0 if it is not a list, or in use.
 * @thread one at a time
 */
LLM_API
size_t llm_events_count(llm_events_t *LLM_NONNULL events);

/**
 * An event of a list.
 *
 * @param[in] events A list.
 * @param[in] index Below llm_events_count.
 * @param[in,out] event Filled; its struct_size must be set.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; NOT_FOUND if there are not so many
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_events_get(llm_events_t *LLM_NONNULL events,
                            size_t index,
                            llm_event_t *LLM_NONNULL event,
                            llm_error_t **LLM_NULLABLE error);

/**
 * The log probabilities of an event's token and of the most probable tokens, as of llm_session_logprobs, for a request
 * with LLM_REQUEST_LOGPROBS.
 *
 * @param[in] events A list.
 * @param[in] index Below llm_events_count.
 * @param[out] chosen The event's token.
 * @param[out] top The `capacity` most probable tokens, most probable first, ties by the smaller token.
 * @param[in] capacity Their number, at most the top_logprobs of the request.
 * @param[out] error @nullable Why it failed.
 * @status BUSY; NOT_FOUND if there are not so many events; FAILED_PRECONDITION if the event has no token, its request no
 *     LLM_REQUEST_LOGPROBS, or if it is of a beam search; INVALID_ARGUMENT if capacity is more than was asked for
 * @thread one at a time
 */
LLM_API
LLM_NODISCARD
llm_status_t llm_events_logprobs(llm_events_t *LLM_NONNULL events,
                                 size_t index,
                                 llm_logprob_t *LLM_NONNULL chosen,
                                 llm_logprob_t *LLM_NULLABLE top,
                                 size_t capacity,
                                 llm_error_t **LLM_NULLABLE error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#if defined(__clang__)
#pragma clang diagnostic pop
#endif

#endif /* LLM_H */
