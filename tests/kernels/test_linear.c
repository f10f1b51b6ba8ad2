/* Linear layers: every overlay of this CPU against the reference over odd shapes, every row bit for bit the same in any
 * company, and the epilogue. */
#include "kernels/ref/ref.h"
#include "tests/kernels/kernel_case.h"

/* A layer with random weights and inputs. */
typedef struct {
    cria_panels panels;
    float *matrix, *in, *bias, *residual;
    void *prepared;
    int64_t rows, cols, tokens;
} layer;

static layer make_layer(cria_panel_type type, int64_t rows, int64_t cols, int64_t tokens, uint64_t seed) {
    layer l = {.rows = rows, .cols = cols, .tokens = tokens};
    l.matrix = malloc(sizeof(float) * (size_t)(rows * cols));
    l.in = malloc(sizeof(float) * (size_t)(tokens * cols));
    l.bias = malloc(sizeof(float) * (size_t)rows);
    l.residual = malloc(sizeof(float) * (size_t)(rows * tokens));
    assert_true(l.matrix && l.in && l.bias && l.residual);
    random_fill(&seed, 0.2f, rows * cols, l.matrix);
    random_fill(&seed, 2, tokens * cols, l.in);
    random_fill(&seed, 1, rows, l.bias);
    random_fill(&seed, 3, rows * tokens, l.residual);
    l.panels = pack_matrix(type, rows, cols, l.matrix);
    l.prepared = aligned_garbage(cria_prepared_row_bytes(type, cols) * (size_t)tokens);
    return l;
}

static void free_layer(layer *l) {
    free((void *)l->panels.data);
    free(l->matrix);
    free(l->in);
    free(l->bias);
    free(l->residual);
    free(l->prepared);
}

/* The layer's first `tokens` tokens from `first` on, into `out` with `stride`. */
static void run_layer(const cria_kernels *kernels, cria_pool *pool, const layer *l, int64_t first, int64_t tokens,
                      cria_activation_name activation, float *out, int64_t stride) {
    cria_prepare_args prepare = {.type = l->panels.type,
                                 .in = l->in + first * l->cols,
                                 .in_stride = l->cols,
                                 .tokens = tokens,
                                 .cols = l->cols,
                                 .out = l->prepared};
    cria_linear_args linear = {.weight = &l->panels,
                               .in = l->prepared,
                               .tokens = tokens,
                               .bias = l->bias,
                               .residual = l->residual + first * l->rows,
                               .residual_stride = l->rows,
                               .activation = activation,
                               .out = out,
                               .out_stride = stride};
    RUN_KERNEL(pool, kernels->prepare, &prepare);
    RUN_KERNEL(pool, kernels->linear, &linear);
}

/* What rounding may add up to: a few units in the last place of the sum of magnitudes. */
static double tolerance(const layer *l, int64_t t, int64_t n) {
    double sum = 1 + fabs((double)l->bias[n]) + fabs((double)l->residual[t * l->rows + n]);
    for (int64_t k = 0; k < l->cols; k++) {
        sum += fabs((double)l->matrix[n * l->cols + k] * (double)l->in[t * l->cols + k]);
    }
    return 1e-7 * (2 + sqrt((double)l->cols) / 4) * sum;
}

static void check_against_ref(cria_isa isa, cria_panel_type type, int64_t rows, int64_t cols, int64_t tokens) {
    layer l = make_layer(type, rows, cols, tokens, (uint64_t)(rows * 1000 + cols * 10 + tokens));
    cria_pool *pool = make_pool(2);
    int64_t stride = rows + 3;
    size_t bytes = sizeof(float) * (size_t)(tokens * stride);
    float *expected = aligned_garbage(bytes), *got = aligned_garbage(bytes);
    cria_kernels ref, kernels;
    cria_kernels_select(CRIA_ISA_REF, &ref);
    cria_kernels_select(isa, &kernels);
    run_layer(&ref, pool, &l, 0, tokens, CRIA_ACT_SILU, expected, stride);
    run_layer(&kernels, pool, &l, 0, tokens, CRIA_ACT_SILU, got, stride);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t n = 0; n < rows; n++) {
            double error = fabs((double)got[t * stride + n] - (double)expected[t * stride + n]);
            if (!(error <= tolerance(&l, t, n))) {
                fail_msg("%s %s %ldx%ld, %ld tokens: [%ld][%ld] is %.9g, not %.9g", kernels.name,
                         cria_panel_type_name(type), (long)rows, (long)cols, (long)tokens, (long)t, (long)n,
                         (double)got[t * stride + n], (double)expected[t * stride + n]);
            }
        }
        uint32_t untouched; /* nothing is written beyond a row */
        memcpy(&untouched, got + t * stride + rows, sizeof untouched);
        assert_int_equal(untouched, 0xffffffffu);
    }
    free(expected);
    free(got);
    cria_pool_destroy(pool);
    free_layer(&l);
}

static void every_overlay_agrees_with_the_reference_on_odd_shapes(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {
        {1, 1, 1},     {16, 32, 1},  {17, 33, 2},  {15, 31, 3},    {33, 2, 4},    {40, 3, 5},    {50, 64, 6},
        {16, 65, 7},   {31, 127, 8}, {100, 5, 9},  {48, 100, 12},  {7, 257, 13},  {65, 63, 16},  {33, 96, 17},
        {64, 130, 23}, {20, 34, 24}, {35, 67, 25}, {129, 300, 31}, {19, 700, 49}, {250, 32, 70},
    };
    for (int isa = CRIA_ISA_REF; isa <= (int)cria_isa_best(); isa++) {
        for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
                check_against_ref((cria_isa)isa, (cria_panel_type)type, shapes[i][0], shapes[i][1], shapes[i][2]);
            }
        }
    }
}

/* Many panels and several chunks of K fill the sums of an item; 492 tokens do not divide into blocks of whole tiles. */
static void no_block_of_tokens_is_larger_than_the_sums_have_room_for(void **state) {
    (void)state;
    for (int type = 0; type < CRIA_PANEL_COUNT; type++)
        check_against_ref(cria_isa_best(), (cria_panel_type)type, 256, 1600, 492);
}

/* The reference itself, against the plain definition in double. */
static void the_reference_computes_the_definition(void **state) {
    (void)state;
    enum { ROWS = 21, COLS = 45, TOKENS = 11 };
    layer l = make_layer(CRIA_PANEL_F32, ROWS, COLS, TOKENS, 11);
    cria_pool *pool = make_pool(1);
    cria_kernels ref;
    cria_kernels_select(CRIA_ISA_REF, &ref);
    float out[TOKENS * ROWS];
    run_layer(&ref, pool, &l, 0, TOKENS, CRIA_ACT_RELU, out, ROWS);
    for (int t = 0; t < TOKENS; t++) {
        for (int n = 0; n < ROWS; n++) {
            double sum = (double)l.bias[n];
            for (int k = 0; k < COLS; k++) sum += (double)l.matrix[n * COLS + k] * (double)l.in[t * COLS + k];
            double expected = (double)l.residual[t * ROWS + n] + (sum > 0 ? sum : 0);
            assert_float_equal(out[t * ROWS + n], (float)expected, 1e-6);
        }
    }
    cria_pool_destroy(pool);
    free_layer(&l);
}

/* Quantised panels and activations stand for what they were made of, within their steps. */
static void quantised_layers_stay_near_the_f32_layer(void **state) {
    (void)state;
    enum { ROWS = 32, COLS = 512, TOKENS = 3 };
    static const double most[CRIA_PANEL_COUNT] = {
        [CRIA_PANEL_F32] = 1e-6,        [CRIA_PANEL_BF16] = 4e-3,    [CRIA_PANEL_I8] = 9e-3,
        [CRIA_PANEL_Q8] = 9e-3,         [CRIA_PANEL_Q8_FINE] = 5e-3, [CRIA_PANEL_I8_WIDE] = 6e-3,
        [CRIA_PANEL_Q8_WIDE] = 5e-3,    [CRIA_PANEL_Q4] = 6e-2,      [CRIA_PANEL_Q4_WIDE] = 6e-2,
        [CRIA_PANEL_Q4_COARSE] = 6e-2,  [CRIA_PANEL_Q4_0] = 9e-2,    [CRIA_PANEL_Q4_0_WIDE] = 9e-2,
        [CRIA_PANEL_Q4_0_COARSE] = 9e-2};
    cria_pool *pool = make_pool(1);
    cria_kernels kernels;
    cria_kernels_select(cria_isa_best(), &kernels);
    float exact[TOKENS * ROWS], out[TOKENS * ROWS];
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        layer l = make_layer((cria_panel_type)type, ROWS, COLS, TOKENS, 99);
        run_layer(&kernels, pool, &l, 0, TOKENS, CRIA_ACT_NONE, out, ROWS);
        if (type == CRIA_PANEL_F32) memcpy(exact, out, sizeof exact);
        double error = 0, size = 0;
        for (int i = 0; i < TOKENS * ROWS; i++) {
            error += pow((double)out[i] - (double)exact[i], 2);
            size += pow((double)exact[i], 2);
        }
        if (!(sqrt(error / size) <= most[type]))
            fail_msg("%s: %g", cria_panel_type_name((cria_panel_type)type), sqrt(error / size));
        free_layer(&l);
    }
    cria_pool_destroy(pool);
}

/* All weights but one of a group at the top of their range, activations at the top or the bottom of theirs: what
 * overflows or saturates on the way is seen here. */
static void the_largest_sums_do_not_overflow(void **state) {
    (void)state;
    enum { ROWS = 17, COLS = 1600, TOKENS = 13 };
    cria_pool *pool = make_pool(1);
    float out[TOKENS * ROWS];
    for (int isa = CRIA_ISA_REF; isa <= (int)cria_isa_best(); isa++) {
        cria_kernels kernels;
        cria_kernels_select((cria_isa)isa, &kernels);
        for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
            layer l = make_layer((cria_panel_type)type, ROWS, COLS, TOKENS, 3);
            for (int i = 0; i < ROWS * COLS; i++) l.matrix[i] = i % COLS % 32 == 0 ? 0 : 1;
            for (int i = 0; i < TOKENS * COLS; i++) l.in[i] = i / COLS % 2 ? -1 : 1;
            memset(l.bias, 0, sizeof *l.bias * ROWS);
            memset(l.residual, 0, sizeof *l.residual * ROWS * TOKENS);
            free((void *)l.panels.data);
            l.panels = pack_matrix((cria_panel_type)type, ROWS, COLS, l.matrix);
            for (int tokens = 1; tokens <= TOKENS; tokens += TOKENS - 1) {
                run_layer(&kernels, pool, &l, 0, tokens, CRIA_ACT_NONE, out, ROWS);
                for (int i = 0; i < tokens * ROWS; i++)
                    assert_float_equal(out[i], (i / ROWS % 2 ? -1 : 1) * COLS * 31 / 32, 0.5); /* d is an f16 */
            }
            free_layer(&l);
        }
    }
    cria_pool_destroy(pool);
}

static void a_row_is_bit_for_bit_the_same_in_any_batch_and_on_any_number_of_workers(void **state) {
    (void)state;
    enum { ROWS = 53, COLS = 165, TOKENS = 40 };
    cria_pool *one = make_pool(1), *three = make_pool(3);
    float alone[TOKENS * ROWS], together[TOKENS * ROWS];
    for (int isa = CRIA_ISA_REF; isa <= (int)cria_isa_best(); isa++) {
        cria_kernels kernels;
        cria_kernels_select((cria_isa)isa, &kernels);
        for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
            layer l = make_layer((cria_panel_type)type, ROWS, COLS, TOKENS, 5);
            for (int t = 0; t < TOKENS; t++) {
                run_layer(&kernels, one, &l, t, 1, CRIA_ACT_GELU, alone + t * ROWS, ROWS);
            }
            for (int tokens = 1; tokens <= TOKENS; tokens++) {
                memset(together, 0xff, sizeof together);
                run_layer(&kernels, tokens % 2 ? three : one, &l, 0, tokens, CRIA_ACT_GELU, together, ROWS);
                assert_memory_equal(together, alone, sizeof(float) * (size_t)(tokens * ROWS));
            }
            free_layer(&l);
        }
    }
    cria_pool_destroy(one);
    cria_pool_destroy(three);
}

/* Tokens that are mostly zero, as ReLU leaves them, alone and with few others, where lines of weights may be skipped,
 * against many together, where they are not. */
static void zeros_skip_weights_and_change_no_bit(void **state) {
    (void)state;
    enum { ROWS = 53, COLS = 1400, TOKENS = 24 };
    static const double shares[] = {0, 0.01, 0.05, 0.2, 0.3, 1};
    cria_pool *one = make_pool(1), *three = make_pool(3);
    float together[TOKENS * ROWS], some[TOKENS * ROWS];
    for (int isa = CRIA_ISA_REF; isa <= (int)cria_isa_best(); isa++) {
        cria_kernels kernels;
        cria_kernels_select((cria_isa)isa, &kernels);
        for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
            layer l = make_layer((cria_panel_type)type, ROWS, COLS, TOKENS, 31);
            uint64_t seed = 77;
            for (int t = 0; t < TOKENS; t++) {
                double share = shares[t / 4];
                for (int k = 0; k < COLS; k++)
                    if (fabs((double)random_unit(&seed)) >= share) l.in[t * COLS + k] = 0;
            }
            run_layer(&kernels, one, &l, 0, TOKENS, CRIA_ACT_NONE, together, ROWS);
            for (int count = 1; count <= 4; count++) {
                for (int t = 0; t < TOKENS; t += count) {
                    int tokens = t + count <= TOKENS ? count : TOKENS - t;
                    run_layer(&kernels, t % 2 ? three : one, &l, t, tokens, CRIA_ACT_NONE, some + t * ROWS, ROWS);
                }
                assert_memory_equal(some, together, sizeof some);
            }
            free_layer(&l);
        }
    }
    cria_pool_destroy(one);
    cria_pool_destroy(three);
}

/* Many more panels than workers and several items per worker, so that the cut itself is seen. */
static void large_layers_are_cut_without_gaps(void **state) {
    (void)state;
    enum { ROWS = 3000, COLS = 260, TOKENS = 60 };
    cria_pool *one = make_pool(1), *two = make_pool(2);
    size_t bytes = sizeof(float) * ROWS * TOKENS;
    float *expected = aligned_garbage(bytes), *got = aligned_garbage(bytes);
    cria_kernels kernels;
    cria_kernels_select(cria_isa_best(), &kernels);
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        layer l = make_layer((cria_panel_type)type, ROWS, COLS, TOKENS, 17);
        for (int64_t t = 0; t < TOKENS; t += 20) {
            run_layer(&kernels, one, &l, t, 20, CRIA_ACT_RELU, expected + t * ROWS, ROWS);
        }
        memset(got, 0xff, bytes);
        run_layer(&kernels, two, &l, 0, TOKENS, CRIA_ACT_RELU, got, ROWS);
        assert_memory_equal(got, expected, bytes);
        free_layer(&l);
    }
    free(expected);
    free(got);
    cria_pool_destroy(one);
    cria_pool_destroy(two);
}

/* One column of weight 1: the output is the activation of the input. */
static void check_activation(const cria_kernels *kernels, cria_pool *pool, cria_activation_name name) {
    enum { TOKENS = 40000, ROWS = 1 };
    float one = 1, *in = malloc(sizeof(float) * TOKENS), *out = malloc(sizeof(float) * TOKENS);
    assert_true(in && out);
    for (int t = 0; t < TOKENS; t++) {
        double u = (t - TOKENS / 2) / (TOKENS / 2.0);
        in[t] = (float)(t % 2 ? 20 * u : 120 * u * u * u);
    }
    in[0] = NAN;
    cria_panels weight = pack_matrix(CRIA_PANEL_F32, 1, 1, &one);
    void *prepared = aligned_garbage(cria_prepared_row_bytes(CRIA_PANEL_F32, 1) * TOKENS);
    cria_prepare_args prepare = {
        .type = CRIA_PANEL_F32, .in = in, .in_stride = 1, .tokens = TOKENS, .cols = 1, .out = prepared};
    cria_linear_args linear = {
        .weight = &weight, .in = prepared, .tokens = TOKENS, .activation = name, .out = out, .out_stride = 1};
    RUN_KERNEL(pool, kernels->prepare, &prepare);
    RUN_KERNEL(pool, kernels->linear, &linear);
    assert_true(isnan(out[0]));
    double worst = 0, where = 0;
    for (int t = 1; t < TOKENS; t++) {
        double expected = cria_ref_activation(name, (double)in[t]);
        if (fabs(expected) < 1e-35) { /* a factor may be a denormal, and those are flushed */
            assert_true(fabs((double)out[t]) < 2e-35);
            continue;
        }
        double error = fabs((double)out[t] - expected) / fabs(expected);
        if (!(error <= worst)) {
            worst = error;
            where = (double)in[t];
        }
    }
    double allowed = name == CRIA_ACT_GELU ? 2.6e-7 : 2e-7;
    if (!(worst <= allowed)) fail_msg("%s: activation %d is off by %.2e at %g", kernels->name, name, worst, where);
    free((void *)weight.data);
    free(prepared);
    free(in);
    free(out);
}

static void activations_are_right_over_the_whole_range(void **state) {
    (void)state;
    cria_pool *pool = make_pool(1);
    for (int isa = CRIA_ISA_REF; isa <= (int)cria_isa_best(); isa++) {
        cria_kernels kernels;
        cria_kernels_select((cria_isa)isa, &kernels);
        for (int name = 0; name < CRIA_ACT_COUNT; name++) {
            check_activation(&kernels, pool, (cria_activation_name)name);
        }
    }
    cria_pool_destroy(pool);
}

static void the_residual_may_be_the_output_and_all_extras_may_be_absent(void **state) {
    (void)state;
    enum { ROWS = 37, COLS = 70, TOKENS = 29 };
    cria_pool *pool = make_pool(2);
    float expected[TOKENS * ROWS], got[TOKENS * ROWS];
    for (int isa = CRIA_ISA_REF; isa <= (int)cria_isa_best(); isa++) {
        cria_kernels kernels;
        cria_kernels_select((cria_isa)isa, &kernels);
        for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
            layer l = make_layer((cria_panel_type)type, ROWS, COLS, TOKENS, 23);
            run_layer(&kernels, pool, &l, 0, TOKENS, CRIA_ACT_NONE, expected, ROWS);
            cria_linear_args args = {
                .weight = &l.panels, .in = l.prepared, .tokens = TOKENS, .out = got, .out_stride = ROWS};
            RUN_KERNEL(pool, kernels.linear, &args);
            for (int i = 0; i < TOKENS * ROWS; i++) {
                float bare = expected[i] - l.residual[i] - l.bias[i % ROWS];
                assert_float_equal(got[i], bare, 4e-6);
            }
            memcpy(got, l.residual, sizeof got);
            args.bias = l.bias;
            args.residual = got;
            args.residual_stride = ROWS;
            RUN_KERNEL(pool, kernels.linear, &args);
            assert_memory_equal(got, expected, sizeof got);
            free_layer(&l);
        }
    }
    cria_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_computes_the_definition),
        cmocka_unit_test(every_overlay_agrees_with_the_reference_on_odd_shapes),
        cmocka_unit_test(no_block_of_tokens_is_larger_than_the_sums_have_room_for),
        cmocka_unit_test(quantised_layers_stay_near_the_f32_layer),
        cmocka_unit_test(the_largest_sums_do_not_overflow),
        cmocka_unit_test(a_row_is_bit_for_bit_the_same_in_any_batch_and_on_any_number_of_workers),
        cmocka_unit_test(zeros_skip_weights_and_change_no_bit),
        cmocka_unit_test(large_layers_are_cut_without_gaps),
        cmocka_unit_test(activations_are_right_over_the_whole_range),
        cmocka_unit_test(the_residual_may_be_the_output_and_all_extras_may_be_absent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
