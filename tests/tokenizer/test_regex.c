/* Regular expressions: Oniguruma's meaning through PCRE2, successive matches, and what is refused. */
#include "tokenizer/regex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The matches of a pattern, each in angle brackets, with the text between them. */
static void expect_in(const char *pattern, const char *text, size_t length, const char *expected) {
    cria_regex *regex = NULL;
    cria_error err = {0};
    char got[512] = "";
    if (cria_regex_compile(pattern, strlen(pattern), &regex, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_regex_scan *scan = cria_regex_scan_create(regex);
    assert_non_null(scan);
    cria_regex_scan_start(scan, text, length);
    size_t done = 0, start = 0, end = 0;
    bool found = true;
    for (;;) {
        assert_int_equal(cria_regex_scan_next(scan, &found, &start, &end, &err), CRIA_OK);
        if (!found) break;
        strncat(got, text + done, start - done);
        strcat(got, "<");
        strncat(got, text + start, end - start);
        strcat(got, ">");
        done = end;
    }
    strncat(got, text + done, length - done);
    assert_string_equal(got, expected);
    cria_regex_scan_destroy(scan);
    cria_regex_destroy(regex);
}

static void expect(const char *pattern, const char *text, const char *expected) {
    expect_in(pattern, text, strlen(text), expected);
}

static void matches_follow_each_other_without_overlap(void **context) {
    (void)context;
    expect("a+", "baab a", "b<aa>b <a>");
    expect("x*", "axb", "<>a<x>b<>");
    expect("(?<=a)b", "ab bab", "a<b> ba<b>");
    expect("", "\xC3\xA9", "<>\xC3\xA9<>");
}

static void lines_and_options_have_rubys_meaning(void **context) {
    (void)context;
    expect("^.|.$", "ab\ncd", "<a><b>\n<c><d>");
    expect("(?m:a.b)", "a\nb", "<a\nb>");
    expect("a.b", "a\nb", "a\nb");
    expect("(?i:'s)", "'S '\xC5\xBF", "<'S> <'\xC5\xBF>");
    expect("a{,2}b", "aaab", "a<aab>");
    expect("a{x}", "a{x}", "<a{x}>");
    expect("\\h\\v", "f\v g\v", "<f\v> g\v");
}

static void classes_hold_the_code_points_of_onigurumas_unicode(void **context) {
    (void)context;
    /* U+313FF and U+11F50 came after Unicode 14; U+180E is no white space; U+0301 is a word character */
    expect("\\p{L}+", "a\xF0\xB1\x8F\xBF.", "<a\xF0\xB1\x8F\xBF>.");
    expect("[^\\p{N}]", "1\xF0\x91\xBD\x90", "1\xF0\x91\xBD\x90");
    expect("\\s+", " \xE1\xA0\x8E\xC2\x85\xE3\x80\x80", "< >\xE1\xA0\x8E<\xC2\x85\xE3\x80\x80>");
    expect("[\\S]", " \xE1\xA0\x8E", " <\xE1\xA0\x8E>");
    expect("\\w+", "e\xCC\x81 \xC2\xB2", "<e\xCC\x81> \xC2\xB2");
    expect("\\bb",
           "b ab e\xCC\x81"
           "b",
           "<b> ab e\xCC\x81"
           "b");
    expect("\\P{L}", "a1", "a<1>");
    expect("\\p{^L}", "a1", "a<1>");
    expect("\\p{Han}+", "\xE4\xBD\xA0\xE3\x80\x81", "<\xE4\xBD\xA0>\xE3\x80\x81");
    expect("[\\]a]", "]a", "<]><a>");
    expect("[]a]", "]a", "<]><a>");
    expect("\\u00e9", "\xC3\xA9", "<\xC3\xA9>");
}

static void nul_is_a_character_like_any_other(void **context) {
    (void)context;
    cria_regex *regex = NULL;
    size_t start = 0, end = 0;
    bool found = false;
    assert_int_equal(cria_regex_compile("b", 1, &regex, NULL), CRIA_OK);
    cria_regex_scan *scan = cria_regex_scan_create(regex);
    cria_regex_scan_start(scan, "a\0b", 3);
    assert_int_equal(cria_regex_scan_next(scan, &found, &start, &end, NULL), CRIA_OK);
    assert_true(found);
    assert_int_equal(start, 2);
    cria_regex_scan_destroy(scan);
    cria_regex_destroy(regex);
}

static void literals_have_no_syntax(void **context) {
    (void)context;
    cria_regex *regex = NULL;
    size_t start = 0, end = 0;
    bool found = false;
    assert_int_equal(cria_regex_compile_literal("a.(", 3, &regex, NULL), CRIA_OK);
    cria_regex_scan *scan = cria_regex_scan_create(regex);
    cria_regex_scan_start(scan, "abca.(", 6);
    assert_int_equal(cria_regex_scan_next(scan, &found, &start, &end, NULL), CRIA_OK);
    assert_true(found && start == 3 && end == 6);
    cria_regex_scan_destroy(scan);
    cria_regex_destroy(regex);
}

static void expect_error(const char *pattern, cria_status status, const char *part) {
    cria_regex *regex = NULL;
    cria_error err = {0};
    assert_int_equal(cria_regex_compile(pattern, strlen(pattern), &regex, &err), status);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static void what_has_no_counterpart_is_named(void **context) {
    (void)context;
    expect_error("[a&&b]", CRIA_ERR_UNSUPPORTED, "set operation");
    expect_error("[a[b]]", CRIA_ERR_UNSUPPORTED, "set inside a set");
    expect_error("[\\P{L}]", CRIA_ERR_UNSUPPORTED, "negated property");
    expect_error("[\\W]", CRIA_ERR_UNSUPPORTED, "negated class");
    expect_error("a{2}+", CRIA_ERR_UNSUPPORTED, "quantifier");
    expect_error("(?<name>a)", CRIA_ERR_UNSUPPORTED, "named group");
    expect_error("(*ACCEPT)", CRIA_ERR_UNSUPPORTED, "verb");
    expect_error("(?x: a)", CRIA_ERR_UNSUPPORTED, "kind of group");
    expect_error("a\\Qb", CRIA_ERR_UNSUPPORTED, "escape");
    expect_error("a\\", CRIA_ERR_UNSUPPORTED, "lone backslash");
    expect_error("[a", CRIA_ERR_UNSUPPORTED, "unfinished set");
    expect_error("\\p{L", CRIA_ERR_UNSUPPORTED, "unfinished");
    expect_error("(", CRIA_ERR_FORMAT, "missing");
    expect_error("\\p{Nonsense}", CRIA_ERR_FORMAT, "Nonsense");
}

static void a_run_of_any_length_matches_in_linear_time_and_a_hostile_pattern_is_stopped(void **context) {
    (void)context;
    enum { LENGTH = 1 << 20 };
    cria_regex *regex = NULL;
    cria_error err = {0};
    size_t start = 0, end = 0, count = 0;
    bool found = true;
    char *text = malloc(LENGTH);
    assert_non_null(text);
    memset(text, ' ', LENGTH);
    const char *llama3 =
        "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    assert_int_equal(cria_regex_compile(llama3, strlen(llama3), &regex, NULL), CRIA_OK);
    cria_regex_scan *scan = cria_regex_scan_create(regex);
    cria_regex_scan_start(scan, text, LENGTH);
    for (; found; count++) assert_int_equal(cria_regex_scan_next(scan, &found, &start, &end, &err), CRIA_OK);
    assert_int_equal(count, 2);
    cria_regex_scan_destroy(scan);
    cria_regex_destroy(regex);

    memset(text, 'a', LENGTH);
    assert_int_equal(cria_regex_compile("(a|aa)+b|(a+)+c", 15, &regex, NULL), CRIA_OK);
    scan = cria_regex_scan_create(regex);
    cria_regex_scan_start(scan, text, 4096);
    assert_int_equal(cria_regex_scan_next(scan, &found, &start, &end, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "costly"));
    cria_regex_scan_destroy(scan);
    cria_regex_destroy(regex);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_follow_each_other_without_overlap),
        cmocka_unit_test(lines_and_options_have_rubys_meaning),
        cmocka_unit_test(classes_hold_the_code_points_of_onigurumas_unicode),
        cmocka_unit_test(nul_is_a_character_like_any_other),
        cmocka_unit_test(literals_have_no_syntax),
        cmocka_unit_test(what_has_no_counterpart_is_named),
        cmocka_unit_test(a_run_of_any_length_matches_in_linear_time_and_a_hostile_pattern_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
