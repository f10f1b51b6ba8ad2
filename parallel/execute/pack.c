/* One walk over the arrays for both directions. */
#include "parallel/execute/pack.h"

#include <string.h>

typedef struct {
    uint8_t *at, *end;
    bool out, failed;
} packer;

static void pack(packer *p, void *array, int64_t count, size_t size) {
    size_t bytes = (size_t)count * size;
    if (p->failed || (size_t)(p->end - p->at) < bytes) {
        p->failed = true;
        return;
    }
    if (p->out)
        memcpy(p->at, array, bytes);
    else
        memcpy(array, p->at, bytes);
    p->at += bytes;
}

static bool walk_batch(cria_batch *b, int64_t block_tokens, packer *p) {
    pack(p, b->token_ids, b->tokens, sizeof *b->token_ids);
    pack(p, b->positions, b->tokens, sizeof *b->positions);
    pack(p, b->slots, b->tokens, sizeof *b->slots);
    pack(p, b->query_begin, b->sequences + 1, sizeof *b->query_begin);
    pack(p, b->context, b->sequences, sizeof *b->context);
    for (int32_t i = 0; i < b->sequences && !p->failed; i++) {
        int64_t used = (b->context[i] + block_tokens - 1) / block_tokens;
        if (used < 0 || used > b->limits.blocks_per_sequence) return false;
        pack(p, b->block_table + i * b->limits.blocks_per_sequence, used, sizeof *b->block_table);
    }
    pack(p, b->row_token, b->rows, sizeof *b->row_token);
    pack(p, b->row, b->rows, sizeof *b->row);
    pack(p, b->history, b->history_count, sizeof *b->history);
    pack(p, b->biases, b->bias_count, sizeof *b->biases);
    pack(p, b->allowed, b->allowed_count, sizeof *b->allowed);
    return !p->failed;
}

size_t cria_pack_most_bytes(const cria_batch_limits *l) {
    size_t batch = (size_t)l->tokens * 12 + (size_t)(l->sequences + 1) * 8 +
                   (size_t)l->sequences * (size_t)l->blocks_per_sequence * 4 +
                   (size_t)l->rows * (4 + sizeof(cria_row)) + (size_t)l->history * sizeof(cria_history) +
                   (size_t)l->biases * sizeof(cria_bias) + (size_t)l->allowed * 4;
    size_t results = (size_t)l->rows * (sizeof(cria_row_result) + 8 * (size_t)l->top_logprobs);
    return results > batch ? results : batch;
}

bool cria_pack_batch(const cria_batch *batch, int64_t block_tokens, cria_batch_header *header, uint8_t *out,
                     size_t capacity) {
    packer p = {.at = out, .end = out + capacity, .out = true};
    if (!walk_batch((cria_batch *)(uintptr_t)batch, block_tokens, &p)) return false;
    header->tokens = batch->tokens;
    header->sequences = batch->sequences;
    header->rows = batch->rows;
    header->history = batch->history_count;
    header->biases = batch->bias_count;
    header->allowed = batch->allowed_count;
    header->bytes = p.at - out;
    return true;
}

bool cria_pack_fits(const cria_batch_header *h, const cria_batch_limits *l, size_t capacity) {
    return h->tokens >= 0 && h->tokens <= l->tokens && h->sequences >= 0 && h->sequences <= l->sequences &&
           h->rows >= 0 && h->rows <= l->rows && h->history >= 0 && h->history <= l->history && h->biases >= 0 &&
           h->biases <= l->biases && h->allowed >= 0 && h->allowed <= l->allowed && h->bytes >= 0 &&
           (size_t)h->bytes <= capacity;
}

bool cria_unpack_batch(cria_batch *b, int64_t block_tokens, const cria_batch_header *h, const uint8_t *in) {
    b->tokens = h->tokens;
    b->sequences = h->sequences;
    b->rows = h->rows;
    b->history_count = h->history;
    b->bias_count = h->biases;
    b->allowed_count = h->allowed;
    packer p = {.at = (uint8_t *)(uintptr_t)in, .end = (uint8_t *)(uintptr_t)in + h->bytes};
    return walk_batch(b, block_tokens, &p);
}

static int64_t top_room(const cria_batch *batch, int32_t row) {
    int64_t room = batch->row[row].top_logprobs, most = batch->limits.top_logprobs;
    room = room < most ? room : most;
    return room > 0 ? room : 0;
}

int64_t cria_result_bytes(const cria_batch *batch) {
    int64_t bytes = batch->rows * (int64_t)sizeof(cria_row_result);
    for (int32_t i = 0; i < batch->rows; i++) bytes += top_room(batch, i) * 8;
    return bytes;
}

static void walk_result(const cria_batch *batch, cria_batch_result *result, packer *p) {
    pack(p, result->result, batch->rows, sizeof *result->result);
    for (int32_t i = 0; i < batch->rows; i++) {
        int64_t room = top_room(batch, i), at = i * batch->limits.top_logprobs;
        pack(p, result->top_ids + at, room, sizeof *result->top_ids);
        pack(p, result->top_logprobs + at, room, sizeof *result->top_logprobs);
    }
}

void cria_pack_result(const cria_batch *batch, const cria_batch_result *result, uint8_t *out) {
    packer p = {.at = out, .end = out + cria_result_bytes(batch), .out = true};
    walk_result(batch, (cria_batch_result *)(uintptr_t)result, &p);
}

void cria_unpack_result(const cria_batch *batch, cria_batch_result *result, const uint8_t *in) {
    uint8_t *from = (uint8_t *)(uintptr_t)in;
    packer p = {.at = from, .end = from + cria_result_bytes(batch)};
    walk_result(batch, result, &p);
}
