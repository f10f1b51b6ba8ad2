/* Gathering rows: order, repetition and strides. */
#include "tests/kernels/row_case.h"

static void chosen_rows_are_copied_in_order(void **state) {
    (void)state;
    enum { ROWS = 9, WIDTH = 37, STRIDE = 40, COUNT = 5 };
    uint64_t seed = 2;
    float *in = random_rows(&seed, 1, ROWS * STRIDE), *out = aligned_garbage(COUNT * (WIDTH + 1) * sizeof *out);
    int32_t rows[COUNT] = {8, 0, 3, 3, 1};
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(2);
    for (int t = 0; t < count; t++) {
        memset(out, 0xff, COUNT * (WIDTH + 1) * sizeof *out);
        cria_gather_args args = {.in = in,
                                 .in_stride = STRIDE,
                                 .width = WIDTH,
                                 .count = COUNT,
                                 .rows = rows,
                                 .out = out,
                                 .out_stride = WIDTH + 1};
        RUN_KERNEL(pool, tables[t].gather, &args);
        for (int i = 0; i < COUNT; i++) {
            assert_memory_equal(out + i * (WIDTH + 1), in + rows[i] * STRIDE, WIDTH * sizeof *out);
            assert_true(isnan(out[i * (WIDTH + 1) + WIDTH]));
        }
    }
    cria_pool_destroy(pool);
    free(in), free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_rows_are_copied_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
