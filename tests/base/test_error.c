/* Error messages: formatting, cutting, prefixes. */
#include "base/error.h"
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void failing_writes_the_message_and_returns_the_status(void **state) {
    (void)state;
    cria_error err;
    assert_int_equal(cria_fail(&err, CRIA_ERR_FORMAT, "%s: needs %d bytes", "x.bin", 8), CRIA_ERR_FORMAT);
    assert_int_equal(err.status, CRIA_ERR_FORMAT);
    assert_string_equal(err.message, "x.bin: needs 8 bytes");
    assert_int_equal(cria_fail(NULL, CRIA_ERR_IO, "nobody reads %s", "this"), CRIA_ERR_IO);
}

static void a_prefix_goes_before_the_message_and_keeps_the_status(void **state) {
    (void)state;
    cria_error err;
    cria_fail(&err, CRIA_ERR_NOT_FOUND, "no tensor %d", 3);
    assert_int_equal(cria_fail_within(&err, "model"), CRIA_ERR_NOT_FOUND);
    assert_string_equal(err.message, "model: no tensor 3");
}

static void a_message_may_be_made_of_itself(void **state) {
    (void)state;
    cria_error err;
    cria_fail(&err, CRIA_ERR_IO, "inner");
    cria_fail(&err, CRIA_ERR_INTERNAL, "outer(%s)", err.message);
    assert_string_equal(err.message, "outer(inner)");
}

static void invalid_bytes_are_replaced(void **state) {
    (void)state;
    cria_error err;
    cria_fail(&err, CRIA_ERR_FORMAT, "key '%s'", "a\xFF\xE2\x82z");
    assert_string_equal(err.message, "key 'a\xEF\xBF\xBD\xEF\xBF\xBDz'");
}

static void a_long_message_is_cut_on_a_code_point(void **state) {
    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        char text[2001];
        memset(text, 'a', shift);
        for (size_t i = shift; i + 4 <= 2000; i += 4) memcpy(text + i, "\xF0\x9F\xA6\x99", 4);
        text[(2000 - shift) / 4 * 4 + shift] = 0;
        cria_error err;
        cria_fail(&err, CRIA_ERR_FORMAT, "%s", text);
        size_t length = strlen(err.message);
        assert_in_range(length, 252, 255);
        assert_true(cria_utf8_valid(err.message, length));
        assert_null(strstr(err.message, "\xEF\xBF\xBD"));
        assert_memory_equal(err.message, text, length);
    }
}

static cria_status inner(int fail, cria_error *err) {
    return fail ? cria_fail(err, CRIA_ERR_FULL, "full") : CRIA_OK;
}

static cria_status outer(int fail, int *reached, cria_error *err) {
    CRIA_TRY(inner(fail, err));
    *reached = 1;
    return CRIA_OK;
}

static void try_returns_early_only_on_failure(void **state) {
    (void)state;
    int reached = 0;
    cria_error err;
    assert_int_equal(outer(1, &reached, &err), CRIA_ERR_FULL);
    assert_int_equal(reached, 0);
    assert_int_equal(outer(0, &reached, &err), CRIA_OK);
    assert_int_equal(reached, 1);
}

static void every_status_has_a_name_of_its_own(void **state) {
    (void)state;
    for (int a = CRIA_OK; a <= CRIA_ERR_INTERNAL; a++) {
        assert_string_not_equal(cria_status_name((cria_status)a), "unknown");
        for (int b = CRIA_OK; b < a; b++) {
            assert_string_not_equal(cria_status_name((cria_status)a), cria_status_name((cria_status)b));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_writes_the_message_and_returns_the_status),
        cmocka_unit_test(a_prefix_goes_before_the_message_and_keeps_the_status),
        cmocka_unit_test(a_message_may_be_made_of_itself),
        cmocka_unit_test(invalid_bytes_are_replaced),
        cmocka_unit_test(a_long_message_is_cut_on_a_code_point),
        cmocka_unit_test(try_returns_early_only_on_failure),
        cmocka_unit_test(every_status_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
