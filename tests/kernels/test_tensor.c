/* Element types: sizes, half precision over all 65536 values, and the GGUF block types against their definitions. */
#include "kernels/tensor.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void sizes_follow_the_block_layout_and_refuse_odd_counts(void **state) {
    (void)state;
    assert_int_equal(cria_type_bytes(CRIA_F32, 3), 12);
    assert_int_equal(cria_type_bytes(CRIA_Q8_0, 64), 68);
    assert_int_equal(cria_type_bytes(CRIA_Q4_0, 32), 18);
    assert_int_equal(cria_type_bytes(CRIA_Q4_1, 96), 60);
    assert_int_equal(cria_type_bytes(CRIA_Q4_1, 33), 0);
    assert_int_equal(cria_type_bytes(CRIA_F64, SIZE_MAX / 4), 0);
    assert_int_equal(cria_type_bytes(CRIA_TYPE_COUNT, 4), 0);
    assert_string_equal(cria_type_name(CRIA_BF16), "bf16");
    assert_string_equal(cria_type_name(CRIA_Q4_1), "q4_1");
}

/* The value of a half by its definition. */
static double half_by_definition(uint16_t h) {
    int exponent = (h >> 10) & 31, mantissa = h & 1023;
    double magnitude = exponent == 0    ? ldexp(mantissa, -24)
                       : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                        : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void every_half_converts_exactly_and_comes_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        double expected = half_by_definition((uint16_t)h);
        float got = cria_f16_to_f32((uint16_t)h);
        if (isnan(expected)) {
            assert_true(isnan(got));
            assert_true(isnan(cria_f16_to_f32(cria_f32_to_f16(got))));
            continue;
        }
        assert_true((double)got == expected && !signbit(got) == !signbit(expected));
        assert_int_equal(cria_f32_to_f16(got), h);
    }
}

static void halves_round_to_nearest_even_between_neighbours(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) { /* each value and its upper neighbour, the step to infinity included */
        double low = half_by_definition((uint16_t)h);
        double high = h == 0x7bff ? 65536.0 : half_by_definition((uint16_t)(h + 1));
        float middle = (float)((low + high) / 2);
        assert_int_equal(cria_f32_to_f16(middle), h & 1 ? h + 1 : h);
        assert_int_equal(cria_f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(cria_f32_to_f16(-nextafterf(middle, INFINITY)), (h + 1) | 0x8000u);
    }
    assert_int_equal(cria_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(cria_f32_to_f16(0x1p-140f), 0);
}

static void plain_types_convert_from_unaligned_rows(void **state) {
    (void)state;
    uint8_t bytes[80];
    float out[8];
    const double doubles[3] = {1.5, -2.0, 1e-3};
    memcpy(bytes + 1, doubles, sizeof doubles);
    cria_to_f32(CRIA_F64, bytes + 1, 1, 2, out);
    assert_true(out[0] == -2.0f && out[1] == 1e-3f);
    const int64_t wide[2] = {-7, 1 << 20};
    memcpy(bytes + 3, wide, sizeof wide);
    cria_to_f32(CRIA_I64, bytes + 3, 0, 2, out);
    assert_true(out[0] == -7.0f && out[1] == 1048576.0f);
    const int8_t narrow[4] = {-128, -1, 0, 127};
    cria_to_f32(CRIA_I8, narrow, 0, 4, out);
    assert_true(out[0] == -128.0f && out[3] == 127.0f);
    cria_to_f32(CRIA_U8, narrow, 0, 2, out);
    assert_true(out[0] == 128.0f && out[1] == 255.0f);
    cria_to_f32(CRIA_BOOL, narrow, 0, 3, out);
    assert_true(out[0] == 1.0f && out[2] == 0.0f);
    const uint16_t brains[2] = {0x3f80, 0xc040};
    memcpy(bytes + 5, brains, sizeof brains);
    cria_to_f32(CRIA_BF16, bytes + 5, 0, 2, out);
    assert_true(out[0] == 1.0f && out[1] == -3.0f);
    const int16_t shorts[2] = {-300, 300};
    cria_to_f32(CRIA_I16, shorts, 0, 2, out);
    assert_true(out[0] == -300.0f && out[1] == 300.0f);
    const int32_t ints[2] = {-70000, 70000};
    cria_to_f32(CRIA_I32, ints, 0, 2, out);
    assert_true(out[0] == -70000.0f && out[1] == 70000.0f);
    const float floats[3] = {1, 2, 3};
    cria_to_f32(CRIA_F32, floats, 2, 1, out);
    assert_true(out[0] == 3.0f);
    const uint16_t halves[3] = {0, 0x3c00, 0xc000};
    cria_to_f32(CRIA_F16, halves, 1, 2, out);
    assert_true(out[0] == 1.0f && out[1] == -2.0f);
}

static void block_types_follow_their_definition_also_for_parts_of_a_row(void **state) {
    (void)state;
    const cria_type types[3] = {CRIA_Q8_0, CRIA_Q4_0, CRIA_Q4_1};
    uint8_t row[3 * 34];
    for (int t = 0; t < 3; t++) {
        size_t block = cria_type_bytes(types[t], 32);
        for (size_t i = 0; i < sizeof row; i++) row[i] = (uint8_t)(i * 37 + 11);
        for (int g = 0; g < 3; g++) {
            const uint16_t scales[2] = {cria_f32_to_f16(0.25f * (float)(g + 1)), cria_f32_to_f16(-1.5f)};
            memcpy(row + (size_t)g * block, scales, types[t] == CRIA_Q4_1 ? 4 : 2);
        }
        float out[80];
        cria_to_f32(types[t], row, 32, 50, out);
        for (int i = 0; i < 50; i++) {
            int element = 32 + i, group = element / 32, j = element % 32;
            const uint8_t *b = row + (size_t)group * block;
            float d = 0.25f * (float)(group + 1), expected;
            const uint8_t *nibbles = b + (types[t] == CRIA_Q4_1 ? 4 : 2);
            int q = j < 16 ? nibbles[j % 16] & 15 : nibbles[j % 16] >> 4;
            if (types[t] == CRIA_Q8_0)
                expected = d * (float)(int8_t)b[2 + j];
            else if (types[t] == CRIA_Q4_0)
                expected = d * (float)(q - 8);
            else
                expected = d * (float)q - 1.5f;
            assert_true(out[i] == expected);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_follow_the_block_layout_and_refuse_odd_counts),
        cmocka_unit_test(every_half_converts_exactly_and_comes_back),
        cmocka_unit_test(halves_round_to_nearest_even_between_neighbours),
        cmocka_unit_test(plain_types_convert_from_unaligned_rows),
        cmocka_unit_test(block_types_follow_their_definition_also_for_parts_of_a_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
