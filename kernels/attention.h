/* How the attention overlays cut their work, and their scratch memory. Internal to kernels/.
 *
 * The numbers fix the order in which a query adds up its keys, whatever shares its batch: keys are taken in steps from
 * position 0; inside a segment an online softmax (Milakov and Gimelshein, 2018) runs over the steps; the segments'
 * results are merged from first to last. Every segment begins afresh, so that different workers may compute the
 * segments of one long context (as Flash-Decoding does). */
#ifndef CRIA_KERNELS_ATTENTION_H
#define CRIA_KERNELS_ATTENTION_H

#include "base/checked.h"
#include "kernels/kernels.h"

enum {
    ATTENTION_ROWS = 48,     /* rows (a query of one head of a KV head's group) that one work item carries */
    ATTENTION_STEP = 64,     /* keys between two updates of the running maximum; a multiple of every block size taken */
    ATTENTION_SEGMENT = 512, /* keys of a segment, a multiple of the step */
    ATTENTION_SLOTS = 64,    /* segment results that each worker's scratch has room for when segments are spread */
    ATTENTION_LANES = 16     /* the widest vector */
};

/* A row's result so far: [dim] sum of weight * value, then the largest score, then the sum of the weights. */
static inline int64_t attention_dim(int64_t head_dim) {
    return (int64_t)cria_round_up((size_t)head_dim, ATTENTION_LANES);
}
static inline int64_t attention_record(int64_t head_dim) {
    return attention_dim(head_dim) + ATTENTION_LANES;
}

/* Rows of one query (at most an item's) per KV head. */
static inline int64_t attention_query_rows(int64_t heads, int64_t kv_heads) {
    int64_t group = heads / kv_heads;
    return group < ATTENTION_ROWS ? group : ATTENTION_ROWS;
}

typedef struct {
    float *weights; /* [ATTENTION_ROWS][ATTENTION_STEP]: scores, then weights */
    float *q;       /* [ATTENTION_ROWS][head dim]: the queries */
    float *segment; /* [ATTENTION_ROWS] records of the present segment */
    float *whole;   /* [ATTENTION_ROWS] records of all segments so far */
    float *slots;   /* [ATTENTION_SLOTS][query rows] records: of one sequence, KV head and segment each */
    int64_t floats; /* all of them together */
} attention_scratch;

/* Cuts one worker's scratch memory; `memory` may be NULL where only the size is wanted. */
static inline attention_scratch attention_cut(float *memory, int64_t heads, int64_t kv_heads, int64_t head_dim) {
    int64_t records = ATTENTION_ROWS * attention_record(head_dim), weights = ATTENTION_ROWS * ATTENTION_STEP;
    int64_t q = ATTENTION_ROWS * attention_dim(head_dim);
    int64_t slots = ATTENTION_SLOTS * attention_query_rows(heads, kv_heads) * attention_record(head_dim);
    attention_scratch cut = {.floats = weights + q + 2 * records + slots};
    if (memory) {
        cut.weights = memory;
        cut.q = cut.weights + weights;
        cut.segment = cut.q + q;
        cut.whole = cut.segment + records;
        cut.slots = cut.whole + records;
    }
    return cut;
}

#endif
