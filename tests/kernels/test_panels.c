/* Packing: every panel type gives back the rows that went in, exactly or within half a quantisation step. */
#include "tests/kernels/kernel_case.h"

enum { MOST_COLS = 200 };

/* The largest error that rounding to the panel type may make in a value of a run with these bounds. */
static double allowed_error(cria_panel_type type, double x, double most, double range) {
    switch (cria_panel_layout(type)) {
    case CRIA_PANEL_F32:
        return 0;
    case CRIA_PANEL_BF16:
        return fabs(x) * 0x1p-8;
    case CRIA_PANEL_I8:
        return most / 127 * 0.5001 + most * 1e-6;
    case CRIA_PANEL_Q8: /* d is rounded to f16, so that the last step may be cut */
        return most / 127 * 0.5001 + most * 0x1p-11;
    case CRIA_PANEL_Q4_0: /* what is opposite to the largest has seven steps for eight */
        return most / 8 * 1.0001 + most * 0x1p-10;
    default: /* Q4: m too */
        return range / 15 * 0.5001 + range * 0x1p-10 + most * 0x1p-10;
    }
}

static void check_round_trip(cria_panel_type type, int64_t rows, int64_t cols, uint64_t seed) {
    float *matrix = malloc(sizeof(float) * (size_t)(rows * cols));
    assert_non_null(matrix);
    random_fill(&seed, 0.3f, rows * cols, matrix);
    cria_panels panels = pack_matrix(type, rows, cols, matrix);
    int64_t run = cria_panel_layout(type) == CRIA_PANEL_I8 ? cols : CRIA_GROUP;
    for (int64_t r = 0; r < rows; r++) {
        float got[MOST_COLS];
        cria_panels_row(&panels, r, got);
        for (int64_t k = 0; k < cols; k++) {
            const float *row = matrix + r * cols;
            double most = 0, low = INFINITY, high = -INFINITY;
            for (int64_t i = k / run * run; i < cols && i < k / run * run + run; i++) {
                most = fmax(most, fabs((double)row[i]));
                low = fmin(low, (double)row[i]);
                high = fmax(high, (double)row[i]);
            }
            double error = fabs((double)got[k] - (double)row[k]);
            assert_true(error <= allowed_error(type, (double)row[k], most, high - low));
        }
        float part[5];
        if (cols > 5) {
            cria_panels_row_part(&panels, r, cols - 5, 5, part);
            assert_memory_equal(part, got + cols - 5, sizeof part);
        }
    }
    free((void *)panels.data);
    free(matrix);
}

static void every_type_gives_back_its_rows_for_odd_shapes(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {16, 32}, {17, 31}, {33, 33}, {5, 67}, {40, 128}, {3, 199}};
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            check_round_trip((cria_panel_type)type, shapes[i][0], shapes[i][1], 7 + i);
        }
    }
}

/* Fills blocks with random bytes whose f16 fields are ordinary numbers. */
static void random_blocks(uint64_t *seed, size_t block_bytes, size_t halves, size_t blocks, uint8_t *out) {
    for (size_t b = 0; b < blocks; b++, out += block_bytes) {
        for (size_t i = 0; i < block_bytes; i++) out[i] = (uint8_t)(next_random(seed) >> 40);
        for (size_t i = 0; i < halves; i++) {
            uint16_t half = cria_f32_to_f16(random_unit(seed));
            memcpy(out + i * 2, &half, sizeof half);
        }
    }
}

static void gguf_blocks_are_held_without_rounding(void **state) {
    (void)state;
    static const struct {
        cria_type type;
        cria_panel_type panel;
        size_t bytes, halves;
    } cases[] = {{CRIA_Q8_0, CRIA_PANEL_Q8, 34, 1},
                 {CRIA_Q8_0, CRIA_PANEL_Q8_FINE, 34, 1},
                 {CRIA_Q4_0, CRIA_PANEL_Q4_0, 18, 1},
                 {CRIA_Q4_0, CRIA_PANEL_Q4, 18, 1},
                 {CRIA_Q4_1, CRIA_PANEL_Q4, 20, 2}};
    enum { COLS = 96, ROWS = 5 };
    uint64_t seed = 3;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t blocks[ROWS * 3 * 34];
        random_blocks(&seed, cases[c].bytes, cases[c].halves, ROWS * 3, blocks);
        const void *source[CRIA_PANEL_ROWS] = {NULL};
        for (size_t r = 0; r < ROWS; r++) source[r] = blocks + r * 3 * cases[c].bytes;
        float scratch[CRIA_PANEL_ROWS * COLS];
        void *data = aligned_garbage(cria_panel_bytes(cases[c].panel, COLS));
        cria_pack_panel(cases[c].panel, COLS, cases[c].type, source, scratch, data);
        cria_panels panels = {cases[c].panel, CRIA_PANEL_ROWS, COLS, data};
        for (int r = 0; r < CRIA_PANEL_ROWS; r++) {
            float got[COLS], expected[COLS] = {0};
            cria_panels_row(&panels, r, got);
            if (r < ROWS) cria_to_f32(cases[c].type, source[r], 0, COLS, expected);
            for (int k = 0; k < COLS; k++) assert_true(got[k] == expected[k]);
        }
        free(data);
    }
}

static void bf16_rows_go_into_bf16_panels_bit_for_bit(void **state) {
    (void)state;
    enum { ROWS = 7, MOST = 75 };
    for (int cols = 1; cols <= MOST; cols++) {
        uint64_t seed = 9 + (uint64_t)cols;
        uint16_t rows[ROWS][MOST + 1]; /* one more column, which must not be read as padding */
        for (int i = 0; i < ROWS * (MOST + 1); i++)
            rows[i / (MOST + 1)][i % (MOST + 1)] = cria_f32_to_bf16(random_unit(&seed));
        const void *source[CRIA_PANEL_ROWS] = {NULL};
        for (int r = 0; r < ROWS; r++) source[r] = rows[r];
        float scratch[CRIA_PANEL_ROWS * 96], got[MOST];
        uint16_t *data = aligned_garbage(cria_panel_bytes(CRIA_PANEL_BF16, cols));
        cria_pack_panel(CRIA_PANEL_BF16, cols, CRIA_BF16, source, scratch, data);
        cria_panels panels = {CRIA_PANEL_BF16, CRIA_PANEL_ROWS, cols, data};
        for (int r = 0; r < CRIA_PANEL_ROWS; r++) {
            cria_panels_row(&panels, r, got);
            for (int k = 0; k < cols; k++) assert_true(got[k] == (r < ROWS ? cria_bf16_to_f32(rows[r][k]) : 0));
            if (cols % 2) assert_int_equal(data[(cols / 2) * 32 + r * 2 + 1], 0);
        }
        free(data);
    }
}

static void sizes_are_those_of_the_layout_and_zero_on_overflow(void **state) {
    (void)state;
    assert_int_equal(cria_panel_bytes(CRIA_PANEL_F32, 3), 3 * 64);
    assert_int_equal(cria_panel_bytes(CRIA_PANEL_BF16, 3), 2 * 64);
    assert_int_equal(cria_panel_bytes(CRIA_PANEL_I8, 5), 64 + 2 * 64);
    assert_int_equal(cria_panel_bytes(CRIA_PANEL_Q8, 32), 576);
    assert_int_equal(cria_panel_bytes(CRIA_PANEL_Q8, 64), 1088);
    assert_int_equal(cria_panel_bytes(CRIA_PANEL_Q4, 33), 640);
    assert_int_equal(cria_panel_bytes(CRIA_PANEL_Q4_0, 33), 576);
    assert_int_equal(cria_panels_bytes(CRIA_PANEL_F32, 17, 2), 2 * 128);
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) {
        assert_int_equal(cria_panels_bytes((cria_panel_type)type, INT64_MAX / 2, 1 << 20), 0);
        assert_int_equal(cria_panel_bytes((cria_panel_type)type, INT64_MAX), 0);
        assert_int_equal(cria_panel_bytes((cria_panel_type)type, 0), 0);
        assert_int_equal(cria_panels_bytes((cria_panel_type)type, -1, 4), 0);
        assert_int_equal(cria_prepared_row_bytes((cria_panel_type)type, INT64_MAX), 0);
        for (int64_t cols = 1; cols < 3000; cols += 7) {
            assert_int_equal(cria_panel_bytes((cria_panel_type)type, cols) % 64, 0);
            assert_int_equal(cria_prepared_row_bytes((cria_panel_type)type, cols) % 128, 64);
        }
    }
    assert_string_equal(cria_panel_type_name(CRIA_PANEL_I8), "int8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_gives_back_its_rows_for_odd_shapes),
        cmocka_unit_test(gguf_blocks_are_held_without_rounding),
        cmocka_unit_test(bf16_rows_go_into_bf16_panels_bit_for_bit),
        cmocka_unit_test(sizes_are_those_of_the_layout_and_zero_on_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
