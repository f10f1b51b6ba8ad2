/* Embedding: rows of the packed table, written or added. */
#include "tests/kernels/kernel_case.h"

static void embedding_rows_are_copied_or_added(void **state) {
    (void)state;
    enum { ROWS = 37, COLS = 300, TOKENS = 9 };
    uint64_t seed = 5;
    float *matrix = malloc(sizeof(float) * ROWS * COLS), *out = malloc(sizeof(float) * TOKENS * (COLS + 3));
    random_fill(&seed, 1, ROWS * COLS, matrix);
    int32_t ids[TOKENS] = {0, 34, 15, 16, 3, 3, 31, 32, 7};
    cria_panels table = pack_matrix(CRIA_PANEL_F32, ROWS, COLS, matrix);
    cria_pool *pool = make_pool(2);
    cria_embed_args args = {
        .table = &table, .ids = ids, .tokens = TOKENS, .id_offset = 2, .out = out, .out_stride = COLS + 3};
    cria_kernels kernels;
    cria_kernels_select(cria_isa_best(), &kernels);
    RUN_KERNEL(pool, kernels.embed, &args);
    args.accumulate = true;
    args.id_offset = 0;
    RUN_KERNEL(pool, kernels.embed, &args);
    for (int t = 0; t < TOKENS; t++) {
        for (int k = 0; k < COLS; k++) {
            float expected = matrix[(ids[t] + 2) * COLS + k] + matrix[ids[t] * COLS + k];
            assert_true(out[t * (COLS + 3) + k] == expected);
        }
    }
    cria_pool_destroy(pool);
    free((void *)table.data);
    free(matrix);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_rows_are_copied_or_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
