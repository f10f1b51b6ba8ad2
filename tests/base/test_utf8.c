/* UTF-8: every code point, every kind of invalid sequence, replacement as Python does it. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void every_code_point_survives_encoding_and_decoding(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        if (cp >= 0xD800 && cp < 0xE000) continue;
        char bytes[4];
        uint32_t back = 0xFFFFFFFF;
        int length = cria_utf8_encode(cp, bytes);
        if (cria_utf8_decode(bytes, (size_t)length, &back) != length || back != cp) fail_msg("U+%04X", cp);
        for (int cut = 1; cut < length; cut++) {
            if (cria_utf8_decode(bytes, (size_t)cut, &back) != -1) fail_msg("U+%04X cut to %d", cp, cut);
        }
    }
}

/* An independent judge: valid if and only if it is what encoding some code point gives. */
static int decode_by_search(const unsigned char *b, size_t n) {
    for (size_t length = 1; length <= n && length <= 4; length++) {
        uint32_t cp = length == 1   ? b[0]
                      : length == 2 ? (b[0] & 0x1Fu) << 6 | (b[1] & 0x3Fu)
                      : length == 3
                          ? (b[0] & 0x0Fu) << 12 | (b[1] & 0x3Fu) << 6 | (b[2] & 0x3Fu)
                          : (b[0] & 0x07u) << 18 | (b[1] & 0x3Fu) << 12 | (b[2] & 0x3Fu) << 6 | (b[3] & 0x3Fu);
        char bytes[4];
        if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000)) continue;
        if ((size_t)cria_utf8_encode(cp, bytes) == length && memcmp(bytes, b, length) == 0) return (int)length;
    }
    return 0;
}

static void decoding_accepts_exactly_what_encoding_gives(void **state) {
    (void)state;
    static const unsigned char tails[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
    for (unsigned lead = 0; lead < 256; lead++) {
        for (unsigned second = 0; second < 256; second++) {
            for (size_t i = 0; i < sizeof tails; i++) {
                for (size_t k = 0; k < sizeof tails; k++) {
                    unsigned char b[4] = {(unsigned char)lead, (unsigned char)second, tails[i], tails[k]};
                    uint32_t cp;
                    assert_int_equal(cria_utf8_decode((char *)b, 4, &cp), decode_by_search(b, 4));
                }
            }
        }
    }
}

static void validity_is_checked_to_the_last_byte(void **state) {
    (void)state;
    char text[40];
    memset(text, 'a', sizeof text);
    assert_true(cria_utf8_valid(text, sizeof text));
    assert_true(cria_utf8_valid("", 0));
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = (char)0xC3;
        assert_false(cria_utf8_valid(text, sizeof text));
        if (i + 1 < sizeof text) {
            text[i + 1] = (char)0xA9;
            assert_true(cria_utf8_valid(text, sizeof text));
            assert_int_equal(cria_utf8_count(text, sizeof text), sizeof text - 1);
            text[i + 1] = 'a';
        }
        text[i] = 'a';
    }
}

static void an_incomplete_end_is_held_back_and_an_invalid_one_is_not(void **state) {
    (void)state;
    const char *llama = "a\xF0\x9F\xA6\x99";
    assert_int_equal(cria_utf8_complete_prefix(llama, 5), 5);
    for (size_t n = 2; n < 5; n++) assert_int_equal(cria_utf8_complete_prefix(llama, n), 1);
    assert_int_equal(cria_utf8_complete_prefix("a\xED\xA0", 3), 3);        /* a surrogate: never valid */
    assert_int_equal(cria_utf8_complete_prefix("\x80\x80\x80\x80", 4), 4); /* continuations without a lead */
    assert_int_equal(cria_utf8_complete_prefix("\xE2\x82\xE2", 3), 2);
    assert_int_equal(cria_utf8_complete_prefix("", 0), 0);
}

static void replacement_is_that_of_python(void **state) {
    (void)state;
    /* Right sides: bytes.decode("utf-8", "replace") of Python 3. R is U+FFFD. */
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"\xFF", "R"},
        {"\xC3\xA9\xC3", "\xC3\xA9R"},
        {"a\xE2\x82", "aR"},
        {"a\xE2\x82z", "aRz"},
        {"\xF0\x9F\xA6", "R"},
        {"\xF0\x9F\xA6\xF0\x9F\xA6\x99", "R\xF0\x9F\xA6\x99"},
        {"\xED\xA0\x80", "RRR"},
        {"\xE0\x80\x80", "RRR"},
        {"\xF4\x90\x80\x80", "RRRR"},
        {"\xC0\x80", "RR"},
        {"\x80\xBF", "RR"},
        {"\xF8\x88\x80\x80\x80", "RRRRR"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[64], out[64];
        size_t length = 0, n = strlen(cases[i].in);
        for (const char *p = cases[i].out; *p; p++) {
            if (*p == 'R') {
                memcpy(expected + length, "\xEF\xBF\xBD", 3);
                length += 3;
            } else {
                expected[length++] = *p;
            }
        }
        assert_int_equal(cria_utf8_replace(cases[i].in, n, out), length);
        assert_memory_equal(out, expected, length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_survives_encoding_and_decoding),
        cmocka_unit_test(decoding_accepts_exactly_what_encoding_gives),
        cmocka_unit_test(validity_is_checked_to_the_last_byte),
        cmocka_unit_test(an_incomplete_end_is_held_back_and_an_invalid_one_is_not),
        cmocka_unit_test(replacement_is_that_of_python),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
