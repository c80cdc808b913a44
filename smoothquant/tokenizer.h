/* tokenizer.h: from text to token ids as a model's own tokenizer does it: byte-level BPE and SentencePiece's BPE.
 *
 *   text -> added tokens cut out -> normalised -> cut into words -> symbols, merged pair by pair -> ids
 *
 * Why this way: one engine of merges serves all; what differs stands in lists of steps that are read from the model's files.
 * Corner cases: a kind of model, normaliser, pre-tokenizer or post-processor, or syntax in a pattern, that llmq does not know is refused by its name when the
 * tokenizer is opened, never ignored. The tokens of the model that stand in the text by name ("<|endoftext|>") become their ids.
 * Reference: Hugging Face tokenizers 0.23 (tokenizer.json), llama.cpp's llama-vocab.cpp (GGUF). Worked number: merges "a b", "ab c": "abcab" is abc, ab.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"
#include "container/gguf_header.h"

#define TOKENIZER_FILE_MAX ((uint64_t)256 << 20) /* bytes of a tokenizer.json, and of the lists of a GGUF file */
#define TOKENIZER_IDS_MAX (1u << 22) /* every id is below it */
#define TOKENIZER_TOKEN_MAX 65535u /* bytes of a token */

/* Constant after it is opened; may be used from several threads at once. */
struct tokenizer;

/* A small file in memory; text NULL: not there. */
struct tokenizer_file {
    const char *text;
    size_t nbytes;
};

/* The files of a model folder. Only tokenizer.json is needed; the others say which token begins a text. */
struct tokenizer_files {
    struct tokenizer_file tokenizer; /* tokenizer.json */
    struct tokenizer_file tokenizer_config; /* tokenizer_config.json: add_bos_token, bos_token */
    struct tokenizer_file config; /* config.json: bos_token_id */
};

/* Opens a tokenizer.json. ERR_DATA naming what is malformed; ERR_UNSUPPORTED naming what llmq does not know: "model type 'Unigram'". */
enum status tokenizer_open_json(const struct tokenizer_files *files, struct tokenizer **out, struct err *err);

/* Opens the tokenizer in the keys of a parsed GGUF header; source has its bytes. tokenizer.ggml.model is llama, gpt2 or gemma4. */
enum status tokenizer_open_gguf(const struct gguf_header *header, const struct gguf_source *source, struct tokenizer **out, struct err *err);

/* Opens the tokenizer of a model: the keys of a GGUF file, tokenizer.json among its small files, or the keys of the GGUF file it was made from.
 * ERR_UNSUPPORTED "'MODEL' has no tokenizer..." when there is none. The container may be closed afterwards. */
enum status tokenizer_of_container(struct container *container, struct tokenizer **out, struct err *err);

void tokenizer_close(struct tokenizer *tokenizer); /* NULL allowed */

/* Encodes n bytes of UTF-8. with_bos: begins with what the model wants in front of a text (nothing where it wants nothing). The caller frees *ids (never
 * NULL on success, also for no ids). ERR_DATA naming the byte that is no UTF-8, or a character that the tokenizer has no token for. */
enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n, bool with_bos, int32_t **ids, size_t *n_ids,
                             struct err *err);

/* The same for many texts, by one thread: keeps its memory and the words it has met. NULL when out of memory. */
struct tokenizer_run;
struct tokenizer_run *tokenizer_run_open(const struct tokenizer *tokenizer);
void tokenizer_run_close(struct tokenizer_run *run); /* NULL allowed */

/* *ids belong to the run and live until its next text. */
enum status tokenizer_run_encode(struct tokenizer_run *run, const char *text, size_t n, bool with_bos, const int32_t **ids, size_t *n_ids,
                                 struct err *err);

/* True when the model wants tokens in front of a text. */
bool tokenizer_adds_bos(const struct tokenizer *tokenizer);

/* The token that begins a text, whether or not the model wants it in front; -1 when the files name none. */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);

/* Largest id + 1. */
uint32_t tokenizer_vocab(const struct tokenizer *tokenizer);

/* Bytes of text that a token stands for: itself, with U+2581 as a blank and bytes as bytes; an added token's name; 0 for an id without a token. Written
 * into out up to capacity; returns their whole number. out may be NULL with capacity 0. */
size_t tokenizer_piece(const struct tokenizer *tokenizer, int32_t id, char *out, size_t capacity);

#endif
