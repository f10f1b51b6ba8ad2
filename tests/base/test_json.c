/* JSON: what is accepted, what is refused and where, exact integers, U+0000, typed members. */
#include "base/json.h"
#include "base/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Parses a text that must be valid, from a buffer without room behind it so that a sanitizer sees every overrun. */
static cria_json *parse(const char *text) {
    size_t length = strlen(text);
    char *exact = malloc(length ? length : 1);
    assert_non_null(exact);
    memcpy(exact, text, length);
    cria_json *json;
    cria_error err = {0};
    if (cria_json_parse(exact, length, &json, &err) != CRIA_OK) fail_msg("%s: %s", text, err.message);
    free(exact);
    return json;
}

static void assert_refused(const char *text, size_t length, size_t at) {
    cria_json *json;
    cria_error err = {0};
    char expected[64];
    assert_int_equal(cria_json_parse(text, length, &json, &err), CRIA_ERR_FORMAT);
    assert_null(json);
    snprintf(expected, sizeof expected, "invalid JSON at byte %zu:", at);
    if (!strstr(err.message, expected)) fail_msg("%s: '%s' instead of '%s'", text, err.message, expected);
}

static void values_of_every_type_are_told_apart(void **state) {
    (void)state;
    static const struct {
        const char *text;
        cria_json_type type;
    } cases[] = {
        {"null", CRIA_JSON_NULL},     {" true ", CRIA_JSON_BOOL},       {"false\n", CRIA_JSON_BOOL},
        {"0", CRIA_JSON_NUMBER},      {"-1.5e-3", CRIA_JSON_NUMBER},    {"NaN", CRIA_JSON_NUMBER},
        {"\"\"", CRIA_JSON_STRING},   {"[]", CRIA_JSON_ARRAY},          {"\t{ }", CRIA_JSON_OBJECT},
        {"[1,[2]]", CRIA_JSON_ARRAY}, {"{\"a\":{}}", CRIA_JSON_OBJECT}, {"12345678901234567890", CRIA_JSON_NUMBER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cria_json *json = parse(cases[i].text);
        assert_int_equal(cria_json_type_of(cria_json_root(json)), cases[i].type);
        cria_json_destroy(json);
    }
    assert_int_equal(cria_json_type_of(NULL), CRIA_JSON_NULL);
}

static void what_is_no_json_is_refused_at_its_byte(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t at;
    } cases[] = {
        {"", 0},
        {"  ", 2},
        {"tru", 0},
        {"True", 0},
        {"1 2", 2},
        {"01", 1},
        {"-", 1},
        {"+1", 0},
        {".5", 0},
        {"1.", 2},
        {"1.e3", 2},
        {"1e", 2},
        {"1e+", 3},
        {"0x10", 1},
        {"--1", 1},
        {"-NaN", 1},
        {"nan", 0},
        {"inf", 0},
        {"Infinit", 0},
        {"[1,]", 3},
        {"[,1]", 1},
        {"[1 2]", 3},
        {"[1", 2},
        {"[", 1},
        {"]", 0},
        {"[1}", 2},
        {"{", 1},
        {"{\"a\"}", 4},
        {"{\"a\":}", 5},
        {"{\"a\":1,}", 7},
        {"{a:1}", 1},
        {"{1:2}", 1},
        {"{\"a\" 1}", 5},
        {"\"abc", 0},
        {"\"a\\", 2},
        {"\"\\x\"", 1},
        {"\"\\u12\"", 1},
        {"\"\\u12g4\"", 1},
        {"'a'", 0},
        {"\"a\nb\"", 2},
        {"\"\x01\"", 1},
        {"// x\n1", 0},
        {"1 // x", 2},
        {"\"\xFF\"", 1},
        {"\"\xC0\x80\"", 1},
        {"\"\xC0\x81"
         "1\"",
         1},
        {"\"\xED\xA0\x80\"", 1},
        {"\"a\xE2\x82\"", 2},
        {"\xEF\xBB\xBF"
         "1",
         0},
        {"[]]", 2},
        {"\xC2\xA0"
         "1",
         0},
        {"{\"a\":1 \"b\":2}", 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_refused(cases[i].text, strlen(cases[i].text), cases[i].at);
    }
    assert_refused("1\0", 2, 1);
    assert_refused("\"a\0b\"", 5, 2);
}

static void nesting_is_limited_to_200(void **state) {
    (void)state;
    char text[2 * 201 + 1];
    for (int depth = 200; depth <= 201; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = 0;
        if (depth == 200) {
            cria_json_destroy(parse(text));
        } else {
            assert_refused(text, strlen(text), 200);
        }
    }
    char *deep = malloc(1000000);
    assert_non_null(deep);
    memset(deep, '{', 1000000);
    assert_refused(deep, 1000000, 1);
    free(deep);
}

static void integers_are_exact_over_the_whole_range(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool is_int;
        int64_t value;
    } cases[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"-0.0e5", true, 0},
        {"0e99999999999999999999", true, 0},
        {"42", true, 42},
        {"-7.000", true, -7},
        {"1e3", true, 1000},
        {"1.5e1", true, 15},
        {"1500e-2", true, 15},
        {"150e-2", false, 0},
        {"9007199254740993", true, 9007199254740993},
        {"9007199254740993.0", true, 9007199254740993},
        {"9.007199254740993E+15", true, 9007199254740993},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"92233720368547758070e-1", true, INT64_MAX},
        {"1e18", true, 1000000000000000000},
        {"1e19", false, 0},
        {"1e400", false, 0},
        {"1e99999999999999999999", false, 0},
        {"1e-99999999999999999999", false, 0},
        {"0.5", false, 0},
        {"1.00000000000000000000001", false, 0},
        {"9007199254740992.5", false, 0},
        {"0.000000000000000000001e21", true, 1},
        {"1000000000000000000000e-21", true, 1},
        {"99999999999999999999999999", false, 0},
        {"NaN", false, 0},
        {"Infinity", false, 0},
        {"-Infinity", false, 0},
        {"\"5\"", false, 0},
        {"true", false, 0},
        {"null", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cria_json *json = parse(cases[i].text);
        int64_t value = 0;
        bool is_int = cria_json_int(cria_json_root(json), &value);
        if (is_int != cases[i].is_int || value != cases[i].value) {
            fail_msg("%s gave %d, %lld", cases[i].text, is_int, (long long)value);
        }
        cria_json_destroy(json);
    }
}

static void numbers_are_the_nearest_doubles(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double value;
    } cases[] = {
        {"0.1", 0.1},
        {"-1e-05", -1e-05},
        {"3.141592653589793", 3.141592653589793},
        {"1e999", INFINITY},
        {"-Infinity", -INFINITY},
        {"123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890",
         1.2345678901234568e89},
        {"5e-324", 5e-324},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cria_json *json = parse(cases[i].text);
        assert_true(cria_json_number(cria_json_root(json)) == cases[i].value);
        cria_json_destroy(json);
    }
    cria_json *json = parse("[NaN]");
    assert_true(isnan(cria_json_number(cria_json_first(cria_json_root(json)))));
    cria_json_destroy(json);
}

static void assert_text(const char *json_text, const char *expected, size_t expected_length) {
    cria_json *json = parse(json_text);
    size_t length;
    for (int twice = 0; twice < 2; twice++) {
        const char *text = cria_json_text(cria_json_root(json), &length);
        assert_int_equal(length, expected_length);
        assert_memory_equal(text, expected, length + 1);
    }
    cria_json_destroy(json);
}

static void strings_are_unescaped(void **state) {
    (void)state;
    assert_text("\"\"", "", 0);
    assert_text("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "a\"\\/\b\f\n\r\t", 9);
    assert_text("\"\\u00e9\\u20AC\\ud83e\\udd99\"", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA6\x99", 9);
    assert_text("\"\xF0\x9F\xA6\x99\x7F\"", "\xF0\x9F\xA6\x99\x7F", 5);
}

static void lone_surrogates_become_the_replacement_character(void **state) {
    (void)state;
    assert_text("\"\\ud83e\"", "\xEF\xBF\xBD", 3);
    assert_text("\"\\udd99x\"", "\xEF\xBF\xBDx", 4);
    assert_text("\"\\ud83e\\n\"", "\xEF\xBF\xBD\n", 4);
    assert_text("\"\\ud83e\\ud83e\\udd99\"", "\xEF\xBF\xBD\xF0\x9F\xA6\x99", 7);
    assert_text("\"\\udd99\\ud83e\"", "\xEF\xBF\xBD\xEF\xBF\xBD", 6);
    assert_text("\"\\ud83e\\u0041\"",
                "\xEF\xBF\xBD"
                "A",
                4);
}

static void nul_is_kept_with_its_length(void **state) {
    (void)state;
    assert_text("\"\\u0000\"", "\0", 1);
    assert_text("\"a\\u0000b\\u0000\\u0000\"", "a\0b\0\0", 5);
    assert_text("\"\\\\u0000\"", "\\u0000", 6); /* an escaped backslash: no NUL */
    cria_json *json = parse("{\"k\\u0000x\":\"v\\u0000\",\"k\":[[\"p\\u0000q\"],7]}");
    const cria_json_value *root = cria_json_root(json);
    assert_int_equal(cria_json_type_of(cria_json_get(root, "k")), CRIA_JSON_ARRAY);
    assert_string_equal(cria_json_key(cria_json_first(root)), "k\xC0\x80x");
    size_t length;
    cria_json_text(cria_json_first(cria_json_first(cria_json_get(root, "k"))), &length);
    assert_int_equal(length, 3);
    const char *text;
    cria_error err;
    assert_int_equal(cria_json_get_string(root, "k\xC0\x80x", NULL, &text, &err), CRIA_ERR_ARGUMENT);
    cria_json_destroy(json);
}

static void the_last_of_equal_keys_wins_and_null_counts_as_absent(void **state) {
    (void)state;
    cria_json *json = parse("{\"a\":1,\"b\":null,\"a\":2,\"A\":3,\"c\":4,\"c\":null}");
    const cria_json_value *root = cria_json_root(json);
    assert_true(cria_json_number(cria_json_get(root, "a")) == 2);
    assert_null(cria_json_get(root, "b"));
    assert_null(cria_json_get(root, "c"));
    assert_null(cria_json_get(root, "d"));
    assert_null(cria_json_get(NULL, "a"));
    assert_null(cria_json_get(cria_json_get(root, "a"), "a"));
    assert_int_equal(cria_json_size(root), 6);
    cria_json_destroy(json);
}

static void children_come_in_order(void **state) {
    (void)state;
    cria_json *json = parse("{\"x\":[10,20,30],\"y\":[]}");
    const cria_json_value *root = cria_json_root(json);
    int64_t sum = 0, number;
    for (const cria_json_value *v = cria_json_first(cria_json_get(root, "x")); v; v = cria_json_next(v)) {
        assert_true(cria_json_int(v, &number));
        sum = sum * 100 + number;
        assert_string_equal(cria_json_key(v), "");
    }
    assert_int_equal(sum, 102030);
    assert_null(cria_json_first(cria_json_get(root, "y")));
    assert_string_equal(cria_json_key(cria_json_next(cria_json_first(root))), "y");
    assert_int_equal(cria_json_size(cria_json_get(root, "x")), 3);
    assert_int_equal(cria_json_size(NULL), 0);
    cria_json_destroy(json);
}

static void typed_members_fall_back_where_absent(void **state) {
    (void)state;
    cria_json *json = parse("{\"n\":5,\"x\":0.5,\"t\":true,\"s\":\"hi\",\"z\":null}");
    const cria_json_value *root = cria_json_root(json);
    int64_t n;
    double x;
    bool t;
    const char *s;
    assert_int_equal(cria_json_get_int(root, "n", 1, 0, 10, &n, NULL), CRIA_OK);
    assert_int_equal(n, 5);
    assert_int_equal(cria_json_get_int(root, "z", -1, 0, 10, &n, NULL), CRIA_OK);
    assert_int_equal(n, -1);
    assert_int_equal(cria_json_get_double(root, "x", 1, 0, 1, &x, NULL), CRIA_OK);
    assert_true(x == 0.5);
    assert_int_equal(cria_json_get_double(root, "n", 1, 0, 5, &x, NULL), CRIA_OK);
    assert_true(x == 5);
    assert_int_equal(cria_json_get_double(root, "none", 9, 0, 1, &x, NULL), CRIA_OK);
    assert_true(x == 9);
    assert_int_equal(cria_json_get_bool(root, "t", false, &t, NULL), CRIA_OK);
    assert_true(t);
    assert_int_equal(cria_json_get_bool(root, "none", true, &t, NULL), CRIA_OK);
    assert_true(t);
    assert_int_equal(cria_json_get_string(root, "s", "x", &s, NULL), CRIA_OK);
    assert_string_equal(s, "hi");
    assert_int_equal(cria_json_get_string(root, "none", NULL, &s, NULL), CRIA_OK);
    assert_null(s);
    cria_json_destroy(json);
}

static void errors_of_typed_members_name_key_limit_and_value(void **state) {
    (void)state;
    cria_json *json = parse("{\"n\":5,\"f\":2.5,\"s\":\"hi\",\"nan\":NaN,\"big\":1e300,\"huge\":99999999999999999999}");
    const cria_json_value *root = cria_json_root(json);
    int64_t n;
    double x;
    bool t;
    const char *s;
    cria_error err;
    assert_int_equal(cria_json_get_int(root, "n", 1, 6, 10, &n, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "n must be an integer between 6 and 10, but is 5");
    assert_int_equal(cria_json_get_int(root, "f", 1, 1, INT64_MAX, &n, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "f must be an integer of at least 1, but is 2.5");
    assert_int_equal(cria_json_get_int(root, "huge", 1, INT64_MIN, INT64_MAX, &n, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "huge must be an integer, but is 99999999999999999999");
    assert_int_equal(cria_json_get_int(root, "s", 1, 0, 1, &n, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "s must be a number, but is a string");
    assert_int_equal(cria_json_get_double(root, "nan", 1, 0, 2, &x, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "nan must be a number between 0 and 2, but is NaN");
    assert_int_equal(cria_json_get_double(root, "nan", 1, -INFINITY, INFINITY, &x, &err), CRIA_ERR_ARGUMENT);
    assert_int_equal(cria_json_get_double(root, "big", 1, -INFINITY, 1e9, &x, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "big must be a number of at most 1000000000, but is 1e300");
    assert_int_equal(cria_json_get_bool(root, "n", false, &t, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "n must be a boolean, but is a number");
    assert_int_equal(cria_json_get_string(root, "huge", NULL, &s, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "huge must be a string, but is a number");
    cria_json_destroy(json);
}

static void a_file_is_parsed_within_its_limit(void **state) {
    (void)state;
    char path[] = "/tmp/cria-test-json-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"a\":[1}", 8), 8);
    cria_json *json;
    cria_error err;
    assert_int_equal(cria_json_parse_file(path, 7, &json, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "over the limit of 7"));
    assert_int_equal(cria_json_parse_file(path, 8, &json, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "byte 7"));
    assert_int_equal(pwrite(fd, "]", 1, 7), 1);
    assert_int_equal(write(fd, "}", 1), 1);
    assert_int_equal(cria_json_parse_file(path, 9, &json, &err), CRIA_OK);
    assert_int_equal(cria_json_size(cria_json_get(cria_json_root(json), "a")), 1);
    cria_json_destroy(json);
    close(fd);
    unlink(path);
    assert_int_equal(cria_json_parse_file(path, 9, &json, &err), CRIA_ERR_NOT_FOUND);
    cria_json_destroy(NULL);
}

static void a_vocabulary_of_100000_members_is_walked_at_once(void **state) {
    (void)state;
    cria_text text;
    cria_text_init(&text);
    cria_text_puts(&text, "{");
    for (int i = 0; i < 100000; i++) cria_text_printf(&text, "%s\"token%d\\u00e9\":%d", i ? "," : "", i, i);
    cria_text_puts(&text, "}");
    clock_t start = clock(); /* of the processor: how busy the machine is does not count */
    cria_json *json;
    assert_int_equal(cria_json_parse(text.data, text.length, &json, NULL), CRIA_OK);
    int64_t expected = 0, number;
    for (const cria_json_value *v = cria_json_first(cria_json_root(json)); v; v = cria_json_next(v)) {
        assert_true(cria_json_int(v, &number) && number == expected++);
    }
    assert_int_equal(expected, 100000);
    /* 0.02 s in release, 1 s under a sanitizer; anything quadratic takes minutes. */
    assert_true(clock() - start < 20 * CLOCKS_PER_SEC);
    cria_json_destroy(json);
    cria_text_deinit(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_type_are_told_apart),
        cmocka_unit_test(what_is_no_json_is_refused_at_its_byte),
        cmocka_unit_test(nesting_is_limited_to_200),
        cmocka_unit_test(integers_are_exact_over_the_whole_range),
        cmocka_unit_test(numbers_are_the_nearest_doubles),
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(lone_surrogates_become_the_replacement_character),
        cmocka_unit_test(nul_is_kept_with_its_length),
        cmocka_unit_test(the_last_of_equal_keys_wins_and_null_counts_as_absent),
        cmocka_unit_test(children_come_in_order),
        cmocka_unit_test(typed_members_fall_back_where_absent),
        cmocka_unit_test(errors_of_typed_members_name_key_limit_and_value),
        cmocka_unit_test(a_file_is_parsed_within_its_limit),
        cmocka_unit_test(a_vocabulary_of_100000_members_is_walked_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
