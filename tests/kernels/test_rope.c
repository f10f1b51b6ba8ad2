/* Rotary embedding of every instruction set: the rotation of each pair, and nothing else touched. */
#include "tests/kernels/row_case.h"

typedef struct {
    int64_t tokens, heads, head_dim, extra;
} rope_case;

static const rope_case CASES[] = {
    {1, 1, 2, 0}, {3, 3, 64, 8}, {2, 9, 20, 1}, {2, 2, 128, 0}, {5, 2, 6, 3}, {1, 4, 80, 0}, {2, 3, 34, 0},
};

enum { POSITIONS = 50 };

static float *make_table(int64_t half) {
    float *table = malloc((size_t)(POSITIONS * half * 2) * sizeof *table);
    for (int64_t p = 0; p < POSITIONS; p++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * pow(10000, -(double)i / (double)half);
            table[(p * half + i) * 2] = (float)cos(angle);
            table[(p * half + i) * 2 + 1] = (float)sin(angle);
        }
    }
    return table;
}

static void check(const cria_kernels *table, cria_pool *pool, const rope_case *c) {
    uint64_t seed = 11;
    int64_t half = c->head_dim / 2, stride = c->heads * c->head_dim + c->extra;
    float *x = random_rows(&seed, 3, c->tokens * stride), *angles = make_table(half);
    float *expected = malloc((size_t)(c->tokens * stride) * sizeof *expected);
    memcpy(expected, x, (size_t)(c->tokens * stride) * sizeof *expected);
    int32_t positions[8] = {0, 49, 3, 17, 3};
    for (int64_t t = 0; t < c->tokens; t++) {
        for (int64_t h = 0; h < c->heads; h++) {
            for (int64_t i = 0; i < half; i++) {
                const float *angle = angles + (positions[t] * half + i) * 2;
                float *low = expected + t * stride + h * c->head_dim + i, *high = low + half;
                double real = (double)*low * angle[0] - (double)*high * angle[1];
                double imaginary = (double)*low * angle[1] + (double)*high * angle[0];
                *low = (float)real;
                *high = (float)imaginary;
            }
        }
    }
    cria_rope_args args = {.x = x,
                           .stride = stride,
                           .tokens = c->tokens,
                           .heads = c->heads,
                           .head_dim = c->head_dim,
                           .positions = positions,
                           .table = angles};
    RUN_KERNEL(pool, table->rope, &args);
    assert_close(table->name, x, expected, c->tokens * stride, 0, 5e-7);
    free(x), free(angles), free(expected);
}

static void pairs_are_rotated_by_their_position(void **state) {
    (void)state;
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(2);
    for (int t = 0; t < count; t++) {
        for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) check(&tables[t], pool, &CASES[i]);
    }
    cria_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_are_rotated_by_their_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
