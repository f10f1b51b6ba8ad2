/* What the kernel tests share: deterministic random numbers, running one operator on a pool, packing a matrix. */
#ifndef CRIA_TESTS_KERNEL_CASE_H
#define CRIA_TESTS_KERNEL_CASE_H

#include "kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* xorshift64*: a stream of its own per test. */
static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}
/* Uniform in [-1, 1). */
static inline float random_unit(uint64_t *state) {
    return (float)((double)(next_random(state) >> 11) * 0x1p-52 - 1.0);
}
static inline void random_fill(uint64_t *state, float scale, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = scale * random_unit(state);
}

/* 64-byte aligned, filled with a pattern that is NaN as f32 and bf16, so that what a kernel forgot to write shows. */
static inline void *aligned_garbage(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(memory);
    memset(memory, 0xff, (bytes + 63) / 64 * 64);
    return memory;
}

static inline cria_pool *make_pool(int threads) {
    cria_pool *pool = NULL;
    assert_int_equal(cria_pool_create(threads, &pool, NULL), CRIA_OK);
    return pool;
}

/* RUN_KERNEL(pool, table.linear, &args): the operator on all workers. */
typedef struct {
    void (*call)(const void *args, cria_worker *worker);
    const void *args;
} kernel_call;
static inline void run_kernel_job(cria_worker *worker, void *context) {
    kernel_call *call = context;
    call->call(call->args, worker);
}
#define RUN_KERNEL(pool, function, args_)                                                                              \
    do {                                                                                                               \
        kernel_call call_ = {(void (*)(const void *, cria_worker *))(void (*)(void))(function), (args_)};              \
        cria_pool_run((pool), run_kernel_job, &call_);                                                                 \
    } while (0)

/* Packs a dense f32 matrix; free(panels.data). */
static inline cria_panels pack_matrix(cria_panel_type type, int64_t rows, int64_t cols, const float *matrix) {
    cria_panels panels = {.type = type, .rows = rows, .cols = cols};
    uint8_t *data = aligned_garbage(cria_panels_bytes(type, rows, cols));
    float *scratch = malloc(sizeof(float) * CRIA_PANEL_ROWS * (size_t)((cols + 31) / 32 * 32));
    assert_non_null(scratch);
    for (int64_t p = 0; p * CRIA_PANEL_ROWS < rows; p++) {
        const void *source[CRIA_PANEL_ROWS];
        for (int64_t r = 0; r < CRIA_PANEL_ROWS; r++) {
            int64_t row = p * CRIA_PANEL_ROWS + r;
            source[r] = row < rows ? matrix + row * cols : NULL;
        }
        cria_pack_panel(type, cols, CRIA_F32, source, scratch, data + (size_t)p * cria_panel_bytes(type, cols));
    }
    free(scratch);
    panels.data = data;
    return panels;
}

#endif
