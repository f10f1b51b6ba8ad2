/* Tokenizer: text to token ids and back, equal to Hugging Face `tokenizers` id for id.
 *
 * One opaque object for byte-level BPE (vocab.json + merges.txt, tokenizer.json, GGUF metadata) and SentencePiece
 * models. Immutable once made: any thread may encode and decode at once. */
#ifndef CRIA_TOKENIZER_TOKENIZER_H
#define CRIA_TOKENIZER_TOKENIZER_H

#include "base/error.h"
#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cria_tokenizer cria_tokenizer;

/* The vocabulary as it stands in GGUF metadata, filled by models/ (the tokenizer knows nothing of GGUF files). */
typedef struct {
    const char *model;  /* tokenizer.ggml.model: "gpt2" or "llama" */
    const char *pre;    /* tokenizer.ggml.pre: "smollm", "gpt-2", "llama-bpe", ...; NULL where absent */
    size_t token_count; /* lengths in bytes; strings need not be NUL-terminated */
    const char *const *tokens;
    const size_t *token_lengths;
    const int32_t *token_types; /* 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte */
    const float *scores;        /* for "llama"; NULL where absent */
    size_t merge_count;
    const char *const *merges;
    const size_t *merge_lengths;
    int32_t bos, eos, unknown, padding; /* -1 where absent */
    int add_bos, add_eos;               /* 0, 1, or -1 where absent */
    bool no_space_prefix;               /* for "llama": tokenizer.ggml.add_space_prefix is there and false */
    const char *chat_template;          /* tokenizer.chat_template; NULL where absent */
} cria_gguf_vocabulary;

/* Opens the tokenizer of a Hugging Face folder: tokenizer.json if there is one, else vocab.json + merges.txt, else
 * tokenizer.model (SentencePiece); tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json
 * beside it are read for special tokens and add_bos_token. A component that Cria does not know is
 * CRIA_ERR_UNSUPPORTED and is named. */
cria_status cria_tokenizer_open(const char *folder, cria_tokenizer **out, cria_error *err);
cria_status cria_tokenizer_from_gguf(const cria_gguf_vocabulary *vocabulary, cria_tokenizer **out, cria_error *err);
void cria_tokenizer_destroy(cria_tokenizer *tokenizer);

typedef struct {
    bool add_special;   /* what the tokenizer's post-processor adds: OPT's leading </s>, Llama's BOS; exactly once */
    bool parse_special; /* recognise special tokens written out in the text (Hugging Face's default); false: as text */
} cria_encode_options;

/* A growable array of ids; start with zeros, free with cria_ids_deinit. */
typedef struct {
    int32_t *ids;
    size_t count, capacity;
} cria_ids;
void cria_ids_deinit(cria_ids *ids);

/* Appends the ids of text[0..length) to *out. Invalid UTF-8 is CRIA_ERR_ARGUMENT with the byte offset; NUL is a
 * character like any other. More than max_ids ids (0: no limit) is CRIA_ERR_ARGUMENT. Time is O(n log n). */
cria_status cria_tokenizer_encode(const cria_tokenizer *tokenizer, const char *text, size_t length,
                                  cria_encode_options options, size_t max_ids, cria_ids *out, cria_error *err);

/* Appends the text of ids[0..count), as `tokenizer.decode(ids, skip_special_tokens=..., clean_up_tokenization_spaces=
 * False)` gives it, invalid UTF-8 replaced by U+FFFD. An id outside the vocabulary is CRIA_ERR_ARGUMENT. */
cria_status cria_tokenizer_decode(const cria_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                  cria_text *out, cria_error *err);

size_t cria_tokenizer_size(const cria_tokenizer *tokenizer); /* one more than the largest id */
/* The vocabulary entry as stored ("Ġworld", "▁world", "</s>"), borrowed; NULL for an id without an entry. */
const char *cria_tokenizer_entry(const cria_tokenizer *tokenizer, int32_t id, size_t *length);
/* The id of an entry as stored, special tokens included; -1 if there is none. */
int32_t cria_tokenizer_find(const cria_tokenizer *tokenizer, const char *entry, size_t length);
bool cria_tokenizer_is_special(const cria_tokenizer *tokenizer, int32_t id);
int32_t cria_tokenizer_bos(const cria_tokenizer *tokenizer); /* -1 where there is none */
int32_t cria_tokenizer_eos(const cria_tokenizer *tokenizer);
/* The chat template of tokenizer_config.json or chat_template.jinja; NULL where absent. Borrowed. */
const char *cria_tokenizer_chat_template(const cria_tokenizer *tokenizer);
/* tokenizer_config.json as text, for GET /tokenizer_info; NULL where absent. Borrowed. */
const char *cria_tokenizer_config_json(const cria_tokenizer *tokenizer);

/* The bytes that one token adds to the text (no context, no clean-up): appended to *out; may be part of a code point.
 */
void cria_tokenizer_token_bytes(const cria_tokenizer *tokenizer, int32_t id, cria_text *out);

/* Streaming detokenizer: push ids one by one, take text whose code points are whole. The pieces together equal
 * cria_tokenizer_decode of all ids. One thread at a time; memory is bounded by the longest incomplete run. */
typedef struct cria_detokenizer cria_detokenizer;
/* `context_ids`: the prompt's last ids (may be NULL), which decide e.g. whether SentencePiece drops a leading space. */
cria_detokenizer *cria_detokenizer_create(const cria_tokenizer *tokenizer, bool skip_special,
                                          const int32_t *context_ids, size_t context_count);
void cria_detokenizer_destroy(cria_detokenizer *detokenizer);
/* Appends to *out what is certain now; never half a code point. An id outside the vocabulary adds nothing: a model may
 * have more rows than the vocabulary has entries. */
cria_status cria_detokenizer_push(cria_detokenizer *detokenizer, int32_t id, cria_text *out, cria_error *err);
/* Appends what is left, incomplete bytes as U+FFFD. */
void cria_detokenizer_finish(cria_detokenizer *detokenizer, cria_text *out);

#endif
