/* Text buffers: appending, formatting, JSON scalars. */
#include "base/json.h"
#include "base/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void appends_of_every_kind_follow_one_another(void **state) {
    (void)state;
    cria_text text;
    cria_text_init(&text);
    cria_text_puts(&text, "one ");
    cria_text_append(&text, "two three", 3);
    cria_text_printf(&text, " %s %d", "three", 4);
    assert_string_equal(text.data, "one two three 4");
    assert_int_equal(text.length, strlen(text.data));
    cria_text_clear(&text);
    assert_int_equal(text.length, 0);
    assert_string_equal(text.data, "");
    cria_text_deinit(&text);
    assert_null(text.data);
}

static void formatting_grows_the_buffer_at_every_length(void **state) {
    (void)state;
    for (int length = 0; length < 300; length++) {
        cria_text text;
        cria_text_init(&text);
        cria_text_printf(&text, "%*s", length, "");
        cria_text_printf(&text, "%*s|", length, "");
        assert_int_equal(text.length, 2 * length + 1);
        assert_int_equal(text.data[2 * length], '|');
        assert_int_equal(text.data[text.length], 0);
        cria_text_deinit(&text);
    }
}

static void running_out_of_memory_drops_the_bytes_and_is_remembered(void **state) {
    (void)state;
    cria_text text;
    cria_text_init(&text);
    cria_text_puts(&text, "kept");
    cria_text_append(&text, "x", SIZE_MAX - 2); /* the size itself overflows: nothing is read */
    assert_true(text.failed);
    cria_text_puts(&text, "dropped");
    cria_text_printf(&text, "dropped %d", 1);
    assert_string_equal(text.data, "kept");
    cria_text_deinit(&text);
}

static void assert_json_string(const char *bytes, size_t length, const char *expected) {
    cria_text text;
    cria_text_init(&text);
    cria_text_json_string(&text, bytes, length);
    assert_string_equal(text.data, expected);
    cria_text_deinit(&text);
}

static void json_strings_are_escaped_and_made_valid(void **state) {
    (void)state;
    assert_json_string("", 0, "\"\"");
    assert_json_string("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    assert_json_string("\n\r\t\b\f\x01\x1F\x7F", 8, "\"\\n\\r\\t\\b\\f\\u0001\\u001f\\u007f\"");
    assert_json_string("a\0b", 3, "\"a\\u0000b\"");
    assert_json_string("\xC3\xA9\xF0\x9F\xA6\x99", 6, "\"\xC3\xA9\xF0\x9F\xA6\x99\"");
    assert_json_string("\xC3(\xE2\x82", 4, "\"\xEF\xBF\xBD(\xEF\xBF\xBD\"");
}

static void every_byte_string_reads_back_through_the_parser(void **state) {
    (void)state;
    char all[128];
    for (size_t i = 0; i < sizeof all; i++) all[i] = (char)i;
    cria_text text;
    cria_text_init(&text);
    cria_text_json_string(&text, all, sizeof all);
    cria_json *json;
    assert_int_equal(cria_json_parse(text.data, text.length, &json, NULL), CRIA_OK);
    size_t length;
    const char *back = cria_json_text(cria_json_root(json), &length);
    assert_int_equal(length, sizeof all);
    assert_memory_equal(back, all, sizeof all);
    cria_json_destroy(json);
    cria_text_deinit(&text);
}

static void assert_json_number(double value, const char *expected) {
    cria_text text;
    cria_text_init(&text);
    cria_text_json_number(&text, value);
    assert_string_equal(text.data, expected);
    cria_text_deinit(&text);
}

static void json_numbers_are_the_shortest_that_read_back(void **state) {
    (void)state;
    assert_json_number(0, "0");
    assert_json_number(0.1, "0.1");
    assert_json_number(1.0 / 3, "0.3333333333333333");
    assert_json_number(5e-324, "5e-324");
    assert_json_number(0.30000000000000004, "0.30000000000000004");
    assert_json_number(-2.5, "-2.5");
    assert_json_number(1700000000, "1700000000");
    assert_json_number(9007199254740993.0, "9007199254740992");
    assert_json_number(NAN, "null");
    assert_json_number(INFINITY, "null");
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value)) continue;
        cria_text text;
        cria_text_init(&text);
        cria_text_json_number(&text, value);
        if (strtod(text.data, NULL) != value) fail_msg("%a became %s", value, text.data);
        cria_text_deinit(&text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_of_every_kind_follow_one_another),
        cmocka_unit_test(formatting_grows_the_buffer_at_every_length),
        cmocka_unit_test(running_out_of_memory_drops_the_bytes_and_is_remembered),
        cmocka_unit_test(json_strings_are_escaped_and_made_valid),
        cmocka_unit_test(every_byte_string_reads_back_through_the_parser),
        cmocka_unit_test(json_numbers_are_the_shortest_that_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
