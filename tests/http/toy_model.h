/* A model that can be told by heart: after a byte comes the next one. "a" goes on "bcdef...", after "z" comes "a";
 * digits count up to "9", then comes "!", then the end of the text; "E" is followed by the two bytes of "é", then "F".
 */
#ifndef CRIA_TESTS_HTTP_TOY_MODEL_H
#define CRIA_TESTS_HTTP_TOY_MODEL_H

#include "parallel/execute/batch.h"

#include <math.h>
#include <stdatomic.h>
#include <unistd.h>

typedef struct {
    atomic_int delay_us; /* of every step */
    atomic_bool hold;    /* no step ends while it is set */
    atomic_bool fail;
    atomic_int steps;
    int32_t eos, vocab;
} toy_model;

static inline int32_t toy_next(const toy_model *model, int32_t id) {
    if (id == '!') return model->eos;
    if (id == '9') return '!';
    if (id == 'E') return 0xC3;
    if (id == 0xC3) return 0xA9;
    if (id == 0xA9) return 'F';
    if (id == 'z') return 'a';
    if (id == 'Z') return 'A';
    return id < 256 ? (id + 1) & 127 : 'a';
}

static inline cria_status toy_step(void *self, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    toy_model *model = self;
    if (atomic_load(&model->fail)) return cria_fail(err, CRIA_ERR_INTERNAL, "the toy was told to fail");
    while (atomic_load(&model->hold)) usleep(500);
    if (atomic_load(&model->delay_us)) usleep((unsigned)atomic_load(&model->delay_us));
    atomic_fetch_add(&model->steps, 1);
    for (int32_t r = 0; r < batch->rows; ++r) {
        const cria_row *row = &batch->row[r];
        int32_t next = toy_next(model, batch->token_ids[batch->row_token[r]]);
        cria_row_result *out = &result->result[r];
        float own = -0.25f * (float)(row->temperature > 0 ? 1 + row->seed % 4 : 1);
        /* Seeds show: a sampled row skips some letters. */
        if (row->temperature > 0 && next >= 'a' && next <= 'z')
            next = 'a' + (int32_t)((uint64_t)(next - 'a') + row->seed) % 26;
        out->token = row->sample ? next : -1;
        out->rank = row->target >= 0 && row->target != next ? 3 : 1;
        /* 'z' is impossible but after 'y', and so is the sixth alternative of anything. */
        out->logprob = row->target < 0 || row->target == next ? own : row->target == 'z' ? -INFINITY : -2.5f;
        out->top_count = row->top_logprobs;
        for (int32_t k = 0; k < row->top_logprobs; ++k) {
            result->top_ids[r * batch->limits.top_logprobs + k] = (next + k) % model->vocab;
            result->top_logprobs[r * batch->limits.top_logprobs + k] = k == 5 ? -INFINITY : k ? -(float)k : own;
        }
    }
    return CRIA_OK;
}

#endif
