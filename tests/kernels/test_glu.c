/* Activations, gated and plain, of every instruction set against libm in double. */
#include "tests/kernels/row_case.h"

#include <float.h>

static double expect(cria_activation_name name, double x) {
    switch (name) {
    case CRIA_ACT_RELU:
        return x > 0 ? x : 0;
    case CRIA_ACT_GELU:
        return x / 2 * erfc(-x / sqrt(2));
    case CRIA_ACT_GELU_TANH:
        return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case CRIA_ACT_SILU:
        return x / (1 + exp(-x));
    case CRIA_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case CRIA_ACT_TANH:
        return tanh(x);
    case CRIA_ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case CRIA_ACT_RELU2:
        return x > 0 ? x * x : 0;
    default:
        return x;
    }
}

enum { POINTS = 4001, EDGES = 8, WIDTH = POINTS + EDGES };

/* The points from -20 to 20, dense around 0, and the edges of a float. */
static void fill_gate(float *gate) {
    static const float edges[EDGES] = {0, -0.0f, 1e-30f, -1e-30f, 200, -200, 3e9f, -3e9f};
    for (int i = 0; i < POINTS; i++) {
        double at = (double)(i - POINTS / 2) / (POINTS / 2);
        gate[i] = (float)(20 * at * fabs(at));
    }
    memcpy(gate + POINTS, edges, sizeof edges);
}

static void check(const cria_kernels *table, cria_pool *pool, cria_activation_name name, bool gated, int64_t width) {
    uint64_t seed = 3;
    int64_t stride = width + 3;
    float *gate = aligned_garbage((size_t)(2 * stride) * sizeof *gate), *up = random_rows(&seed, 2, 2 * stride);
    float *out = aligned_garbage((size_t)(2 * width) * sizeof *out),
          *expected = malloc((size_t)width * sizeof *expected);
    float points[WIDTH];
    fill_gate(points);
    for (int64_t i = 0; i < width; i++) {
        gate[i] = points[i];
        gate[stride + i] = points[WIDTH - 1 - i];
    }
    cria_glu_args args = {.gate = gate,
                          .up = gated ? up : NULL,
                          .in_stride = stride,
                          .tokens = 2,
                          .width = width,
                          .activation = name,
                          .out = out,
                          .out_stride = width};
    RUN_KERNEL(pool, table->glu, &args);
    for (int t = 0; t < 2; t++) {
        for (int64_t i = 0; i < width; i++) {
            double value = expect(name, gate[t * stride + i]);
            expected[i] = (float)(gated ? value * up[t * stride + i] : value);
        }
        assert_close(table->name, out + t * width, expected, width, 2e-6, 1e-30);
    }
    free(gate), free(up), free(out), free(expected);
}

static void activations_match_libm(void **state) {
    (void)state;
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(2);
    for (int t = 0; t < count; t++) {
        for (int name = 0; name < CRIA_ACT_COUNT; name++) {
            for (int64_t width = WIDTH; width > 0; width = width > 40 ? 37 : width / 3) {
                check(&tables[t], pool, (cria_activation_name)name, false, width);
                check(&tables[t], pool, (cria_activation_name)name, true, width);
            }
        }
    }
    cria_pool_destroy(pool);
}

static void not_a_number_stays_one_and_the_gate_may_be_overwritten(void **state) {
    (void)state;
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(1);
    for (int t = 0; t < count; t++) {
        for (int name = 0; name < CRIA_ACT_COUNT; name++) {
            float gate[20];
            for (int i = 0; i < 20; i++) gate[i] = i % 5 ? 1 : NAN;
            cria_glu_args args = {.gate = gate,
                                  .in_stride = 20,
                                  .tokens = 1,
                                  .width = 20,
                                  .activation = (cria_activation_name)name,
                                  .out = gate,
                                  .out_stride = 20};
            RUN_KERNEL(pool, tables[t].glu, &args);
            for (int i = 0; i < 20; i++) {
                if (i % 5) {
                    assert_float_equal(gate[i], (float)expect((cria_activation_name)name, 1), 2e-6);
                } else {
                    assert_true(isnan(gate[i]));
                }
            }
        }
    }
    cria_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_match_libm),
        cmocka_unit_test(not_a_number_stays_one_and_the_gate_may_be_overwritten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
