/* Filling a batch by hand, for tests that need no scheduler. */
#ifndef CRIA_TESTS_SERVER_ADD_TOKENS_H
#define CRIA_TESTS_SERVER_ADD_TOKENS_H

#include "parallel/execute/batch.h"

/* Adds tokens [first, first + count) of a sequence that owns blocks sequence*8 .. sequence*8+7, in reverse order. */
static inline void add_tokens(cria_batch *b, int64_t block_tokens, int sequence, const int32_t *ids, int first,
                              int count) {
    for (int i = 0; i < count; i++) {
        int position = first + i, block = sequence * 8 + 7 - position / (int)block_tokens;
        b->token_ids[b->tokens] = ids[position];
        b->positions[b->tokens] = position;
        b->slots[b->tokens] = block * (int)block_tokens + position % (int)block_tokens;
        b->row_token[b->rows] = b->tokens++;
        b->row[b->rows++] = (cria_row){.sample = 1, .target = -1, .top_p = 1, .repetition_penalty = 1};
    }
    int n = b->sequences++;
    b->query_begin[n + 1] = b->tokens;
    b->context[n] = first + count;
    for (int i = 0; i < 8; i++) b->block_table[n * b->limits.blocks_per_sequence + i] = sequence * 8 + 7 - i;
}

#endif
