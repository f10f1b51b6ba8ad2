/* Added tokens: entries that are recognised in the text before the model sees it (special tokens among them), as
 * Hugging Face `tokenizers` does. Filled by one thread, then immutable. */
#ifndef CRIA_TOKENIZER_ADDED_H
#define CRIA_TOKENIZER_ADDED_H

#include "base/error.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pieces.h"
#include "tokenizer/vocabulary.h"

#include <stdbool.h>

typedef struct {
    bool special;     /* skipped by decoding with skip_special; may be left unrecognised in text */
    bool normalized;  /* looked for in the normalized text, in its own normalized form */
    bool lstrip;      /* takes the white space before it */
    bool rstrip;      /* takes the white space after it */
    bool single_word; /* only where no word character stands beside it */
} cria_added_flags;

typedef struct cria_added cria_added;

cria_added *cria_added_create(void); /* NULL if memory is out */
void cria_added_destroy(cria_added *added);

/* Adds a token or gives one new flags. Its id is the one it has already, else the model's for the same text, else
 * `wanted` where that is not negative, else the next free one after the model's and all added ones. */
cria_status cria_added_add(cria_added *added, const cria_vocabulary *model, const char *text, size_t length,
                           cria_added_flags flags, int32_t wanted, cria_error *err);
/* Makes the search tables; call once after the last addition. `normalizer` may be NULL. */
cria_status cria_added_finish(cria_added *added, const cria_normalizer *normalizer, cria_error *err);

/* Id and text of the added tokens alone. */
const cria_vocabulary *cria_added_vocabulary(const cria_added *added);
/* True if the id is an added token, whose flags are then stored where `flags` is not NULL. */
bool cria_added_find(const cria_added *added, int32_t id, cria_added_flags *flags);

/* The text that decoding puts in for an added token: the normalized form of a normalized one. NULL if it is none. */
const char *cria_added_text(const cria_added *added, int32_t id, size_t *length);

/* Cuts `whole` of a text into pieces: added tokens with their ids, and what stands between them. `normalized` chooses
 * which tokens to look for; without `parse_special` special ones are passed over. */
void cria_added_split(const cria_added *added, bool normalized, bool parse_special, const char *text, cria_piece whole,
                      cria_pieces *out);

#endif
