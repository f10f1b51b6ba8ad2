/* Pieces: the ranges that a text is cut into on its way to token ids. One thread at a time. */
#ifndef CRIA_TOKENIZER_PIECES_H
#define CRIA_TOKENIZER_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t start, length;
    int32_t id; /* an added token was recognised here; -1: text still to be tokenized */
    bool first; /* the piece begins where the whole text begins */
} cria_piece;

/* A growable list; start with zeros. A push that runs out of memory sets `failed`. */
typedef struct {
    cria_piece *items;
    size_t count, capacity;
    bool failed;
} cria_pieces;

void cria_pieces_deinit(cria_pieces *pieces);
void cria_pieces_clear(cria_pieces *pieces);
void cria_pieces_push(cria_pieces *pieces, cria_piece piece);

/* What becomes of the matches when a text is split on a pattern, by the names of Hugging Face `tokenizers`. */
typedef enum {
    CRIA_SPLIT_REMOVED,
    CRIA_SPLIT_ISOLATED,
    CRIA_SPLIT_MERGED_WITH_PREVIOUS,
    CRIA_SPLIT_MERGED_WITH_NEXT,
    CRIA_SPLIT_CONTIGUOUS
} cria_split_behaviour;

/* A stretch of the text, and whether the pattern matched it. */
typedef struct {
    size_t start, end;
    bool match;
} cria_stretch;

typedef struct {
    cria_stretch *items;
    size_t count, capacity;
    bool failed;
} cria_stretches;

void cria_stretches_deinit(cria_stretches *stretches);
void cria_stretches_clear(cria_stretches *stretches);
void cria_stretches_push(cria_stretches *stretches, size_t start, size_t end, bool match);

/* Appends to *out what the stretches of `whole` (offsets relative to it) become under a behaviour; empty pieces vanish.
 * The stretches are changed. */
void cria_split_apply(cria_stretches *stretches, cria_split_behaviour behaviour, cria_piece whole, cria_pieces *out);

#endif
