/* Pack: batches and results as bytes for other ranks, only what a step uses of them. Any thread. */
#ifndef CRIA_PARALLEL_EXECUTE_PACK_H
#define CRIA_PARALLEL_EXECUTE_PACK_H

#include "parallel/execute/batch.h"

/* The most bytes that a batch or a result of these limits takes. */
size_t cria_pack_most_bytes(const cria_batch_limits *limits);

/* Counts of a batch; travels before it. */
typedef struct {
    int32_t kind, tokens, sequences, rows, history, biases, allowed, unused;
    int64_t bytes; /* of the arrays that follow */
} cria_batch_header;

/* Writes the arrays to out[capacity] and the counts and bytes to *header (`kind` is the caller's); false where the
 * batch contradicts its limits. */
bool cria_pack_batch(const cria_batch *batch, int64_t block_tokens, cria_batch_header *header, uint8_t *out,
                     size_t capacity);
/* Whether what a header announces fits into batches of these limits. */
bool cria_pack_fits(const cria_batch_header *header, const cria_batch_limits *limits, size_t capacity);
/* Reads a batch whose header fits; false where the bytes contradict it. */
bool cria_unpack_batch(cria_batch *batch, int64_t block_tokens, const cria_batch_header *header, const uint8_t *in);

/* Bytes of the results of this batch. */
int64_t cria_result_bytes(const cria_batch *batch);
void cria_pack_result(const cria_batch *batch, const cria_batch_result *result, uint8_t *out);
void cria_unpack_result(const cria_batch *batch, cria_batch_result *result, const uint8_t *in);

#endif
