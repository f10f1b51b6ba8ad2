/* Preparation of activations: every overlay gives the bytes of the reference, whatever the row holds. */
#include "tests/kernels/kernel_case.h"

/* Runs prepare on `tokens` rows; free the result. */
static uint8_t *prepare(cria_isa isa, cria_pool *pool, cria_panel_type type, const float *in, int64_t tokens,
                        int64_t cols, int64_t stride) {
    cria_kernels kernels;
    cria_kernels_select(isa, &kernels);
    uint8_t *out = aligned_garbage(cria_prepared_row_bytes(type, cols) * (size_t)tokens);
    cria_prepare_args args = {.type = type, .in = in, .in_stride = stride, .tokens = tokens, .cols = cols, .out = out};
    RUN_KERNEL(pool, kernels.prepare, &args);
    return out;
}

/* Rows of every size of number, exact halves between two steps, zeros, denormals, infinities and NaN. */
static void fill_hostile(uint64_t *seed, int64_t tokens, int64_t cols, float *in) {
    for (int64_t t = 0; t < tokens; t++) {
        float scale = (float)pow(10, (double)(t % 9) * 10 - 40);
        for (int64_t k = 0; k < cols; k++) {
            float x = random_unit(seed);
            in[t * cols + k] = t % 4 == 1 ? (float)(int)(x * 254) / 2 : scale * x;
        }
        if (t % 4 == 1) in[t * cols] = 127;
        if (t % 7 == 3) memset(in + t * cols, 0, sizeof(float) * (size_t)cols);
        if (t % 7 == 5) in[t * cols + cols / 2] = t % 2 ? NAN : -INFINITY;
    }
}

static void every_overlay_gives_the_bytes_of_the_reference(void **state) {
    (void)state;
    enum { TOKENS = 30 };
    static const int64_t widths[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 100, 131, 300};
    cria_pool *one = make_pool(1), *two = make_pool(2);
    uint64_t seed = 77;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        int64_t cols = widths[i];
        float *in = malloc(sizeof(float) * (size_t)(TOKENS * cols));
        assert_non_null(in);
        fill_hostile(&seed, TOKENS, cols, in);
        for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
            size_t bytes = cria_prepared_row_bytes((cria_panel_type)type, cols) * TOKENS;
            uint8_t *expected = prepare(CRIA_ISA_REF, one, (cria_panel_type)type, in, TOKENS, cols, cols);
            for (int isa = CRIA_ISA_AVX2; isa <= (int)cria_isa_best(); isa++) {
                uint8_t *got = prepare((cria_isa)isa, two, (cria_panel_type)type, in, TOKENS, cols, cols);
                for (int t = 0; t < TOKENS; t++) {
                    size_t row = bytes / TOKENS;
                    if (memcmp(got + (size_t)t * row, expected + (size_t)t * row, row) == 0) continue;
                    fail_msg("%s, %ld columns, row %d differs", cria_panel_type_name((cria_panel_type)type), (long)cols,
                             t);
                }
                free(got);
            }
            free(expected);
        }
        free(in);
    }
    cria_pool_destroy(one);
    cria_pool_destroy(two);
}

static void a_quantised_row_is_within_half_a_step_and_its_sums_are_exact(void **state) {
    (void)state;
    enum { COLS = 75, GROUPS = 3 };
    uint64_t seed = 6;
    float in[COLS];
    random_fill(&seed, 5, COLS, in);
    cria_pool *pool = make_pool(1);
    static const struct {
        cria_panel_type type;
        bool fine;
    } types[] = {{CRIA_PANEL_I8, false},         {CRIA_PANEL_Q8, false},  {CRIA_PANEL_Q8_FINE, true},
                 {CRIA_PANEL_Q4, true},          {CRIA_PANEL_Q4_0, true}, {CRIA_PANEL_Q4_COARSE, false},
                 {CRIA_PANEL_Q4_0_COARSE, false}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        cria_panel_type type = types[i].type;
        bool fine = types[i].fine;
        int8_t *out = (int8_t *)prepare(CRIA_ISA_REF, pool, type, in, 1, COLS, COLS);
        int run = type == CRIA_PANEL_I8 ? 128 : 32, runs = type == CRIA_PANEL_I8 ? 1 : GROUPS;
        int bytes = runs * run * (fine ? 2 : 1);
        for (int g = 0; g < runs; g++) {
            float scale, scaled_sum;
            int32_t offset, sum = 0;
            memcpy(&scale, out + bytes + 4 * g, 4);
            memcpy(&offset, out + bytes + 4 * (runs + g), 4);
            memcpy(&scaled_sum, &offset, 4);
            for (int k = g * run; k < (g + 1) * run; k++) {
                double x = k < COLS ? (double)in[k] : 0;
                const int8_t *term = fine ? out + 2 * g * run + k % run : out + k;
                int value = fine ? 16 * term[0] + term[run] : term[0];
                assert_true(fabs((double)scale * value - x) <= (double)scale * 0.50001);
                if (fine) assert_true(term[run] >= -8 && term[run] <= 7); /* or AVX2's 16 bits would overflow */
                sum += value;
            }
            bool q4 = cria_panel_layout(type) == CRIA_PANEL_Q4;
            if (q4) assert_true(scaled_sum == scale * (float)sum);
            if (!q4) assert_int_equal(offset, -128 * sum);
        }
        free(out);
    }
    cria_pool_destroy(pool);
}

static void a_row_of_16_bits_is_within_half_a_step_and_its_sums_are_exact(void **state) {
    (void)state;
    enum { COLS = 549, GROUPS = 18 };
    uint64_t seed = 6;
    float in[COLS];
    random_fill(&seed, 5, COLS, in);
    cria_pool *pool = make_pool(1);
    for (cria_panel_type type = CRIA_PANEL_I8_WIDE; type <= CRIA_PANEL_Q4_0_WIDE; type++) {
        uint8_t *out = prepare(CRIA_ISA_REF, pool, type, in, 1, COLS, COLS);
        const int16_t *value = (const int16_t *)(const void *)out;
        float scale;
        memcpy(&scale, out + GROUPS * 68, 4);
        int run = type == CRIA_PANEL_I8_WIDE ? 256 : 32;
        for (int first = 0; first < GROUPS * 32; first += run) {
            int32_t sum = 0, stored;
            float stored_f32;
            for (int k = first; k < first + run && k < GROUPS * 32; k++) {
                static const int order[] = {0, 2, 1, 3};
                int16_t own = value[k / 4 * 4 + order[k % 4]];
                assert_true(fabs((double)scale * own - (k < COLS ? (double)in[k] : 0)) <= (double)scale * 0.50001);
                sum += own;
            }
            memcpy(&stored, out + GROUPS * 64 + first / 32 * 4, 4);
            memcpy(&stored_f32, &stored, 4);
            if (type == CRIA_PANEL_Q4_WIDE) assert_true(stored_f32 == (float)sum);
            if (type != CRIA_PANEL_Q4_WIDE) assert_int_equal((uint32_t)stored, (uint32_t)sum * (uint32_t)-128);
        }
        free(out);
    }
    cria_pool_destroy(pool);
}

static void a_row_with_nan_or_infinity_makes_nan_of_its_results_only(void **state) {
    (void)state;
    enum { COLS = 64, ROWS = 20 };
    float in[3][COLS], matrix[ROWS * COLS], out[3][ROWS];
    uint64_t seed = 8;
    random_fill(&seed, 1, 3 * COLS, &in[0][0]);
    random_fill(&seed, 1, ROWS * COLS, matrix);
    in[1][40] = INFINITY;
    in[1][41] = -INFINITY;
    cria_pool *pool = make_pool(1);
    for (int isa = CRIA_ISA_REF; isa <= (int)cria_isa_best(); isa++) {
        for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
            cria_kernels kernels;
            cria_kernels_select((cria_isa)isa, &kernels);
            cria_panels panels = pack_matrix((cria_panel_type)type, ROWS, COLS, matrix);
            uint8_t *prepared = prepare((cria_isa)isa, pool, (cria_panel_type)type, in[0], 3, COLS, COLS);
            cria_linear_args args = {.weight = &panels, .in = prepared, .tokens = 3, .out = out[0], .out_stride = ROWS};
            RUN_KERNEL(pool, kernels.linear, &args);
            for (int n = 0; n < ROWS; n++) {
                assert_true(isfinite(out[0][n]) && !isfinite(out[1][n]) && isfinite(out[2][n]));
            }
            free(prepared);
            free((void *)panels.data);
        }
    }
    cria_pool_destroy(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_overlay_gives_the_bytes_of_the_reference),
        cmocka_unit_test(a_quantised_row_is_within_half_a_step_and_its_sums_are_exact),
        cmocka_unit_test(a_row_of_16_bits_is_within_half_a_step_and_its_sums_are_exact),
        cmocka_unit_test(a_row_with_nan_or_infinity_makes_nan_of_its_results_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
