/* Layer norm and RMS norm of every instruction set against the definition in double. */
#include "tests/kernels/row_case.h"

typedef struct {
    int64_t tokens, width, extra; /* extra: how much longer than the width the rows' strides are */
    bool rms, weight, bias;
    float offset, scale; /* of the input */
} norm_case;

static const norm_case CASES[] = {
    {1, 1, 0, false, true, true, 0, 1},      {3, 7, 5, false, true, true, 0, 1},
    {2, 16, 0, true, true, false, 0, 1},     {5, 33, 1, false, false, false, 3, 1},
    {2, 768, 8, false, true, true, -2, 1},   {3, 576, 0, true, true, false, 0, 1},
    {1, 4099, 3, true, false, false, 0, 30}, {2, 1000, 0, false, true, false, 50, 1},
    {2, 15, 1, true, true, true, 1, 1},      {2, 64, 0, false, true, true, 0, 0},
    {2, 64, 0, true, true, false, 0, 0},
};

/* The definition, written a second time so that ref is judged too. */
static void expect_row(const cria_norm_args *args, const float *in, float *out) {
    double mean = 0, variance = 0, n = (double)args->width;
    for (int64_t i = 0; i < args->width && !args->rms; i++) mean += in[i] / n;
    for (int64_t i = 0; i < args->width; i++) variance += pow(in[i] - mean, 2) / n;
    for (int64_t i = 0; i < args->width; i++) {
        double weight = args->weight ? args->weight[i] : 1, bias = args->bias ? args->bias[i] : 0;
        out[i] = (float)((in[i] - mean) / sqrt(variance + args->eps) * weight + bias);
    }
}

static void check(const cria_kernels *table, cria_pool *pool, const norm_case *c, bool in_place) {
    uint64_t seed = 7;
    int64_t stride = c->width + c->extra;
    float *in = random_rows(&seed, c->scale, c->tokens * stride),
          *out = aligned_garbage((size_t)(c->tokens * stride) * 4);
    float *weight = random_rows(&seed, 2, c->width), *bias = random_rows(&seed, 1, c->width);
    float *expected = malloc((size_t)c->width * sizeof *expected), *all = malloc((size_t)(c->tokens * stride) * 4);
    for (int64_t i = 0; i < c->tokens * stride; i++) in[i] += c->offset;
    memcpy(all, in, (size_t)(c->tokens * stride) * 4);
    cria_norm_args args = {.in = in,
                           .in_stride = stride,
                           .tokens = c->tokens,
                           .width = c->width,
                           .weight = c->weight ? weight : NULL,
                           .bias = c->bias ? bias : NULL,
                           .eps = 1e-5f,
                           .rms = c->rms,
                           .out = in_place ? in : out,
                           .out_stride = stride};
    RUN_KERNEL(pool, table->norm, &args);
    for (int64_t t = 0; t < c->tokens; t++) {
        expect_row(&args, all + t * stride, expected);
        assert_close(table->name, args.out + t * stride, expected, c->width, 2e-6, 2e-6);
    }
    free(in), free(out), free(weight), free(bias), free(expected), free(all);
}

static void norms_match_their_definition(void **state) {
    (void)state;
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    for (int threads = 1; threads <= 2; threads++) {
        cria_pool *pool = make_pool(threads);
        for (int t = 0; t < count; t++) {
            for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
                check(&tables[t], pool, &CASES[i], false);
                check(&tables[t], pool, &CASES[i], true);
            }
        }
        cria_pool_destroy(pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_match_their_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
