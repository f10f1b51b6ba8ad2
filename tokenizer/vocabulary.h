/* Vocabulary: the two-way map between token ids and their entries (byte strings). Immutable once filled; then any
 * thread. */
#ifndef CRIA_TOKENIZER_VOCABULARY_H
#define CRIA_TOKENIZER_VOCABULARY_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Ids above this are refused: the tables are indexed by id, and no vocabulary comes near. */
#define CRIA_MAX_TOKEN_ID (1 << 24)

typedef struct cria_vocabulary cria_vocabulary;

cria_vocabulary *cria_vocabulary_create(void); /* NULL if memory is out */
void cria_vocabulary_destroy(cria_vocabulary *vocabulary);

/* Sets the entry of an id, as the last of two that name the same id or the same text (as Python's dict does). `id`
 * outside 0..CRIA_MAX_TOKEN_ID is CRIA_ERR_FORMAT. */
cria_status cria_vocabulary_add(cria_vocabulary *vocabulary, int32_t id, const char *text, size_t length,
                                cria_error *err);

/* The id whose entry is text[0..length), -1 if there is none. */
int32_t cria_vocabulary_find(const cria_vocabulary *vocabulary, const char *text, size_t length);
/* The entry of an id, NUL-terminated and borrowed; NULL for an id without one. */
const char *cria_vocabulary_entry(const cria_vocabulary *vocabulary, int32_t id, size_t *length);
/* One more than the largest id. */
size_t cria_vocabulary_size(const cria_vocabulary *vocabulary);
/* How many different texts there are: what Hugging Face calls the vocabulary's size. */
size_t cria_vocabulary_count(const cria_vocabulary *vocabulary);
/* Length in bytes of the longest entry. */
size_t cria_vocabulary_longest(const cria_vocabulary *vocabulary);

#endif
