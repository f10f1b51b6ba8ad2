/* Byte-pair encoding of one piece of text: merges pairs of symbols, best first, in O(n log n).
 *
 * Two orders of merging share the machine: a ranked list of merges (GPT-2, Hugging Face; Sennrich et al. 2016) and the
 * scores of the merged entries (SentencePiece's BPE, as Llama-2's vocabulary stands in GGUF files). Immutable once
 * filled; then any thread may encode with a workspace of its own. */
#ifndef CRIA_TOKENIZER_BPE_H
#define CRIA_TOKENIZER_BPE_H

#include "tokenizer/ids.h"
#include "tokenizer/vocabulary.h"

#include <stdbool.h>

typedef struct cria_bpe cria_bpe;

typedef struct {
    int32_t unknown;    /* id for a character outside the vocabulary; -1: such characters are dropped */
    bool fuse_unknown;  /* a run of unknown characters is one id */
    bool byte_fallback; /* a character outside the vocabulary becomes "<0xXX>" tokens where all of them exist */
    bool ignore_merges; /* a piece that is itself an entry is that entry, whatever the merges say */
} cria_bpe_options;

/* `vocabulary` is borrowed and must be complete. NULL if memory is out. */
cria_bpe *cria_bpe_create(const cria_vocabulary *vocabulary, cria_bpe_options options);
void cria_bpe_destroy(cria_bpe *bpe);

/* Appends a merge; the first has the best rank, and of two equal ones the last counts. Entries that the vocabulary
 * lacks are CRIA_ERR_FORMAT. */
cria_status cria_bpe_add_merge(cria_bpe *bpe, const char *left, size_t left_length, const char *right,
                               size_t right_length, cria_error *err);
/* Merges by score instead: two neighbours merge if their joined text is an entry that `mergeable` allows, the highest
 * score first, the leftmost of equals. Both arrays hold one value per id below the vocabulary's size. */
cria_status cria_bpe_use_scores(cria_bpe *bpe, const float *scores, const bool *mergeable, cria_error *err);

/* Buffers that grow to the longest piece; start with zeros. */
typedef struct {
    struct cria_bpe_symbol *symbols;
    uint64_t *heap;
    size_t symbol_capacity, heap_capacity;
} cria_bpe_workspace;
void cria_bpe_workspace_deinit(cria_bpe_workspace *workspace);

/* Appends the ids of one piece of valid UTF-8. */
cria_status cria_bpe_encode(const cria_bpe *bpe, cria_bpe_workspace *workspace, const char *text, size_t length,
                            cria_ids *out, cria_error *err);

#endif
