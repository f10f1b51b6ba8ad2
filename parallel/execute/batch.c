/* Batch memory: one allocation each, its arrays at offsets that follow from the limits alone. */
#include "parallel/execute/batch.h"

#include "base/checked.h"

#include <stdbool.h>
#include <stdlib.h>

enum { ALIGNMENT = 64 };

/* Adds room for count * size bytes, aligned, at the end of what was laid out so far. */
static bool lay(size_t *end, int64_t count, size_t size, size_t *offset) {
    size_t bytes;
    if (!cria_mul_size((size_t)count, size, &bytes)) return false;
    if (bytes > SIZE_MAX / 4 || *end > SIZE_MAX / 4) return false;
    *offset = *end;
    *end = cria_round_up(*end + bytes, ALIGNMENT);
    return true;
}

static cria_status check_limit(const char *name, int64_t value, int64_t least, cria_error *err) {
    if (value >= least && value < INT32_MAX) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_ARGUMENT, "batch limit %s is %lld, must be %lld .. %d", name, (long long)value,
                     (long long)least, INT32_MAX - 1);
}

static cria_status check_limits(const cria_batch_limits *limits, cria_error *err) {
    CRIA_TRY(check_limit("tokens", limits->tokens, 1, err));
    CRIA_TRY(check_limit("sequences", limits->sequences, 1, err));
    CRIA_TRY(check_limit("rows", limits->rows, 1, err));
    CRIA_TRY(check_limit("blocks_per_sequence", limits->blocks_per_sequence, 1, err));
    CRIA_TRY(check_limit("history", limits->history, 0, err));
    CRIA_TRY(check_limit("biases", limits->biases, 0, err));
    CRIA_TRY(check_limit("allowed", limits->allowed, 0, err));
    return check_limit("top_logprobs", limits->top_logprobs, 0, err);
}

/* Offsets of a batch's arrays, from its start. */
typedef struct {
    size_t token_ids, positions, slots, query_begin, context, block_table, row_token, row, history, biases, allowed;
    size_t bytes;
} layout;

static bool layout_make(const cria_batch_limits *l, layout *out) {
    size_t end = cria_round_up(sizeof(cria_batch), ALIGNMENT), table_bytes;
    bool fits =
        lay(&end, l->tokens, sizeof(int32_t), &out->token_ids) &&
        lay(&end, l->tokens, sizeof(int32_t), &out->positions) && lay(&end, l->tokens, sizeof(int32_t), &out->slots) &&
        lay(&end, l->sequences + 1, sizeof(int32_t), &out->query_begin) &&
        lay(&end, l->sequences, sizeof(int32_t), &out->context) &&
        cria_mul_size((size_t)l->blocks_per_sequence, sizeof(int32_t), &table_bytes) &&
        lay(&end, l->sequences, table_bytes, &out->block_table) &&
        lay(&end, l->rows, sizeof(int32_t), &out->row_token) && lay(&end, l->rows, sizeof(cria_row), &out->row) &&
        lay(&end, l->history, sizeof(cria_history), &out->history) &&
        lay(&end, l->biases, sizeof(cria_bias), &out->biases) && lay(&end, l->allowed, sizeof(int32_t), &out->allowed);
    out->bytes = end;
    return fits;
}

cria_status cria_batch_create(const cria_batch_limits *limits, cria_batch **out, cria_error *err) {
    layout at;
    *out = NULL;
    CRIA_TRY(check_limits(limits, err));
    if (!layout_make(limits, &at)) return cria_fail(err, CRIA_ERR_ARGUMENT, "batch limits need too much memory");
    char *memory = calloc(1, at.bytes);
    if (!memory) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a batch of %zu bytes", at.bytes);
    cria_batch *batch = (cria_batch *)(void *)memory;
    batch->limits = *limits;
    batch->token_ids = (int32_t *)(void *)(memory + at.token_ids);
    batch->positions = (int32_t *)(void *)(memory + at.positions);
    batch->slots = (int32_t *)(void *)(memory + at.slots);
    batch->query_begin = (int32_t *)(void *)(memory + at.query_begin);
    batch->context = (int32_t *)(void *)(memory + at.context);
    batch->block_table = (int32_t *)(void *)(memory + at.block_table);
    batch->row_token = (int32_t *)(void *)(memory + at.row_token);
    batch->row = (cria_row *)(void *)(memory + at.row);
    batch->history = (cria_history *)(void *)(memory + at.history);
    batch->biases = (cria_bias *)(void *)(memory + at.biases);
    batch->allowed = (int32_t *)(void *)(memory + at.allowed);
    *out = batch;
    return CRIA_OK;
}

void cria_batch_destroy(cria_batch *batch) {
    free(batch);
}

void cria_batch_clear(cria_batch *batch) {
    batch->tokens = batch->sequences = batch->rows = 0;
    batch->history_count = batch->bias_count = batch->allowed_count = 0;
    batch->query_begin[0] = 0;
}

cria_status cria_batch_result_create(const cria_batch_limits *limits, cria_batch_result **out, cria_error *err) {
    size_t end = cria_round_up(sizeof(cria_batch_result), ALIGNMENT), result, ids, logprobs, stride;
    *out = NULL;
    CRIA_TRY(check_limits(limits, err));
    if (!lay(&end, limits->rows, sizeof(cria_row_result), &result) ||
        !cria_mul_size((size_t)limits->top_logprobs, sizeof(int32_t), &stride) ||
        !lay(&end, limits->rows, stride, &ids) || !lay(&end, limits->rows, stride, &logprobs)) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "batch limits need too much memory for results");
    }
    char *memory = calloc(1, end);
    if (!memory) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for batch results of %zu bytes", end);
    cria_batch_result *made = (cria_batch_result *)(void *)memory;
    made->result = (cria_row_result *)(void *)(memory + result);
    made->top_ids = (int32_t *)(void *)(memory + ids);
    made->top_logprobs = (float *)(void *)(memory + logprobs);
    *out = made;
    return CRIA_OK;
}

void cria_batch_result_destroy(cria_batch_result *result) {
    free(result);
}
