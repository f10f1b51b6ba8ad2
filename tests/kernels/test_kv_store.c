/* Writing keys and values into pages, for every instruction set: the exact bytes, and no byte beside them. */
#include "tests/kernels/row_case.h"

typedef struct {
    cria_type type;
    int64_t block_tokens, kv_heads, head_dim;
} store_case;

static const store_case CASES[] = {
    {CRIA_F32, 16, 1, 8},   {CRIA_F32, 32, 3, 64},  {CRIA_F32, 16, 2, 15},   {CRIA_BF16, 16, 3, 64},
    {CRIA_BF16, 32, 2, 20}, {CRIA_BF16, 16, 5, 15}, {CRIA_BF16, 32, 1, 128}, {CRIA_I8, 16, 3, 64},
    {CRIA_I8, 32, 2, 20},   {CRIA_I8, 16, 5, 15},   {CRIA_I8, 32, 1, 300},
};

enum { TOKENS = 8, BLOCKS = 4, MOST_DIM = 512 };

static void put_f32(const float *x, int64_t count, float *to, int64_t step) {
    for (int64_t i = 0; i < count; i++) to[i * step] = x[i];
}

/* f32: K transposed, V straight. */
static void expect_f32(uint8_t *pages, const cria_kv_layer *layer, int64_t slot, const float *k, const float *v) {
    int64_t tokens = layer->block_tokens, dim = layer->head_dim, offset = slot % tokens;
    for (int64_t h = 0; h < layer->kv_heads; h++) {
        float *head = (float *)(pages + slot / tokens * layer->block_bytes) + h * tokens * 2 * dim;
        put_f32(k + h * dim, dim, head + offset, tokens);
        put_f32(v + h * dim, dim, head + tokens * dim + offset * dim, 1);
    }
}

/* bf16: K in pairs of a token's elements, the last filled up with zero, V in pairs of an element's tokens. */
static void expect_bf16(uint8_t *pages, const cria_kv_layer *layer, int64_t slot, const float *k, const float *v) {
    int64_t tokens = layer->block_tokens, dim = layer->head_dim, offset = slot % tokens, padded = dim + dim % 2;
    for (int64_t h = 0; h < layer->kv_heads; h++) {
        uint16_t *head = (uint16_t *)(pages + slot / tokens * layer->block_bytes) + h * tokens * (padded + dim);
        uint16_t *values = head + tokens * padded + offset / 2 * 2 * dim + offset % 2;
        for (int64_t i = 0; i < padded; i++) {
            uint16_t element = i < dim ? cria_f32_to_bf16(k[h * dim + i]) : 0;
            head[i / 2 * 2 * tokens + 2 * offset + i % 2] = element;
        }
        for (int64_t i = 0; i < dim; i++) values[2 * i] = cria_f32_to_bf16(v[h * dim + i]);
    }
}

/* The bytes and the scale of one vector of int8. */
static void put_i8(const float *x, int64_t count, uint8_t *to, uint8_t *scale_to) {
    float most = 0;
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        finite = finite && isfinite(x[i]);
        most = fmaxf(most, fabsf(x[i]));
    }
    float scale = finite ? most / 127 : NAN, factor = most > 0 ? 127 / most : 0;
    for (int64_t i = 0; i < count; i++) to[i] = (uint8_t)(int8_t)(finite ? rintf(x[i] * factor) : 0);
    memcpy(scale_to, &scale, sizeof scale);
}

/* int8: K in fours of a token's elements, V in fours of an element's tokens, the keys' scales, the values' scales. */
static void expect_i8(uint8_t *pages, const cria_kv_layer *layer, int64_t slot, const float *k, const float *v) {
    int64_t tokens = layer->block_tokens, dim = layer->head_dim, offset = slot % tokens, padded = (dim + 3) / 4 * 4;
    uint8_t row[2 * MOST_DIM] = {0};
    for (int64_t h = 0; h < layer->kv_heads; h++) {
        uint8_t *head = pages + slot / tokens * layer->block_bytes + h * tokens * (padded + dim + 8);
        uint8_t *values = head + tokens * padded, *scales = values + tokens * dim + offset * 4;
        put_i8(k + h * dim, dim, row, scales);
        for (int64_t i = 0; i < padded; i += 4) memcpy(head + i * tokens + 4 * offset, row + i, 4);
        put_i8(v + h * dim, dim, row, scales + 4 * tokens);
        for (int64_t i = 0; i < dim; i++) values[offset / 4 * 4 * dim + 4 * i + offset % 4] = row[i];
        memset(row, 0, sizeof row);
    }
}

static void check(const cria_kernels *table, cria_pool *pool, const store_case *c) {
    uint64_t seed = 5;
    int64_t width = c->kv_heads * c->head_dim, stride = 2 * width + 1, tokens = c->block_tokens;
    size_t bytes = cria_kv_block_bytes(c->type, tokens, c->kv_heads, c->head_dim);
    uint8_t *pages = aligned_garbage(bytes * BLOCKS), *expected = aligned_garbage(bytes * BLOCKS);
    float *rows = random_rows(&seed, 4, TOKENS * stride);
    rows[0] = NAN;
    rows[2 * stride + 1] = -INFINITY;
    rows[3 * stride + width] = NAN;
    memset(rows + 3 * stride, 0, (size_t)c->head_dim * sizeof *rows);
    cria_kv_layer layer = {pages, c->type, tokens, c->kv_heads, c->head_dim, (int64_t)bytes};
    /* Neighbours that share a pair of values and neighbours that do not, and ends of pairs alone. */
    int32_t n = (int32_t)tokens, slots[TOKENS] = {0, 3 * n - 1, 2 * n, 2 * n + 1, n + 3, n + 4, 5, 6};
    for (int64_t t = 0; t < TOKENS; t++) {
        const float *k = rows + t * stride, *v = k + width;
        if (c->type == CRIA_I8) {
            expect_i8(expected, &layer, slots[t], k, v);
        } else if (c->type == CRIA_BF16) {
            expect_bf16(expected, &layer, slots[t], k, v);
        } else {
            expect_f32(expected, &layer, slots[t], k, v);
        }
    }
    cria_kv_store_args args = {
        .layer = &layer, .k = rows, .v = rows + width, .stride = stride, .tokens = TOKENS, .slots = slots};
    RUN_KERNEL(pool, table->kv_store, &args);
    assert_memory_equal(pages, expected, bytes * BLOCKS);
    free(pages), free(expected), free(rows);
}

static void keys_go_transposed_and_values_straight_in_cells_of_four_bytes(void **state) {
    (void)state;
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(2);
    for (int t = 0; t < count; t++) {
        for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) check(&tables[t], pool, &CASES[i]);
    }
    cria_pool_destroy(pool);
}

/* Cells of values that two chunks of work share, and so maybe two workers: nothing of either is lost. */
static void pairs_cut_by_chunks_lose_nothing(void **state) {
    (void)state;
    enum { BLOCK = 16, DIM = 64, COUNT = 40 * BLOCK, ROUNDS = 20 };
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(4);
    uint64_t seed = 3;
    size_t bytes = cria_kv_block_bytes(CRIA_BF16, BLOCK, 1, DIM), pages_bytes = bytes * (COUNT / BLOCK + 1);
    float *rows = random_rows(&seed, 4, COUNT * 2 * DIM);
    int32_t slots[COUNT];
    for (int t = 0; t < COUNT; t++) slots[t] = t + 1; /* chunks are of a block's tokens, blocks begin one later */
    for (int n = 0; n < count * ROUNDS; n++) {
        uint8_t *pages = aligned_garbage(pages_bytes), *expected = aligned_garbage(pages_bytes);
        cria_kv_layer layer = {pages, CRIA_BF16, BLOCK, 1, DIM, (int64_t)bytes};
        cria_kv_store_args args = {
            .layer = &layer, .k = rows, .v = rows + DIM, .stride = 2 * DIM, .tokens = COUNT, .slots = slots};
        for (int t = 0; t < COUNT; t++)
            expect_bf16(expected, &layer, slots[t], rows + t * 2 * DIM, rows + t * 2 * DIM + DIM);
        RUN_KERNEL(pool, tables[n / ROUNDS].kv_store, &args);
        assert_memory_equal(pages, expected, pages_bytes);
        free(pages), free(expected);
    }
    free(rows);
    cria_pool_destroy(pool);
}

static void block_sizes_are_whole_cache_lines_and_refuse_overflow(void **state) {
    (void)state;
    assert_int_equal(cria_kv_block_bytes(CRIA_F32, 16, 3, 64), 16 * 3 * 64 * 2 * 4);
    assert_int_equal(cria_kv_block_bytes(CRIA_BF16, 16, 1, 15), 1024); /* 16 * (16 + 15) * 2 = 992 */
    assert_int_equal(cria_kv_block_bytes(CRIA_BF16, 16, 1, 1), 128);
    assert_int_equal(cria_kv_block_bytes(CRIA_I8, 32, 3, 64), 3 * (2 * 32 * 64 + 2 * 32 * 4));
    assert_int_equal(cria_kv_block_bytes(CRIA_I8, 16, 1, 15), 640); /* 16 * (16 + 15 + 8) = 624 */
    assert_int_equal(cria_kv_block_bytes(CRIA_I8, 16, INT64_MAX / 100, 64), 0);
    assert_int_equal(cria_kv_block_bytes(CRIA_F32, INT64_MAX, 8, 64), 0);
    assert_int_equal(cria_kv_block_bytes(CRIA_F32, 0, 8, 64), 0);
    assert_int_equal(cria_kv_block_bytes(CRIA_F32, 16, -1, 64), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_go_transposed_and_values_straight_in_cells_of_four_bytes),
        cmocka_unit_test(pairs_cut_by_chunks_lose_nothing),
        cmocka_unit_test(block_sizes_are_whole_cache_lines_and_refuse_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
