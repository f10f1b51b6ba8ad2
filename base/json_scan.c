/* A strict JSON checker without recursion, rewriting on the way what cJSON cannot represent. */
#include "base/json_scan.h"

#include "base/utf8.h"

#include <string.h>

/* A double holds every decimal of this many digits (DBL_DIG): such numbers need no text. */
enum { EXACT_DIGITS = 15 };

typedef struct {
    const char *bytes;
    size_t length;
    size_t at;
    size_t copied; /* bytes before this index are already in `out`, where anything was rewritten */
    cria_text *out;
    cria_json_scan_result *result;
    cria_error *err;
    int depth;
    char closers[CRIA_JSON_MAX_NESTING]; /* the bracket that ends each open container */
} scanner;

static cria_status fail_at(scanner *s, size_t at, const char *what) {
    return cria_fail(s->err, CRIA_ERR_FORMAT, "invalid JSON at byte %zu: %s", at, what);
}

/* The byte at the position, or -1 at the end. */
static int peek(const scanner *s) {
    return s->at < s->length ? (unsigned char)s->bytes[s->at] : -1;
}

static void skip_space(scanner *s) {
    while (s->at < s->length) {
        char c = s->bytes[s->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        s->at++;
    }
}

/* Puts `with` in place of bytes[from, to). */
static void rewrite(scanner *s, size_t from, size_t to, const char *with) {
    cria_text_append(s->out, s->bytes + s->copied, from - s->copied);
    cria_text_puts(s->out, with);
    s->copied = to;
    s->result->rewritten = true;
}

static bool is_digit(int c) {
    return c >= '0' && c <= '9';
}

/* Skips digits and returns how many there were. */
static size_t skip_digits(scanner *s) {
    size_t start = s->at;
    while (is_digit(peek(s))) s->at++;
    return s->at - start;
}

/* Skips `word` if it stands at the position. */
static bool skip_word(scanner *s, const char *word) {
    size_t n = strlen(word);
    if (s->length - s->at < n || memcmp(s->bytes + s->at, word, n) != 0) return false;
    s->at += n;
    return true;
}

/* Keeps the text of the number bytes[start, at) as a marked string. */
static void keep_raw(scanner *s, size_t start) {
    rewrite(s, start, start, "\"" CRIA_JSON_RAW_NUMBER);
    rewrite(s, s->at, s->at, "\"");
}

static cria_status scan_number(scanner *s) {
    size_t start = s->at;
    if (peek(s) == '-') s->at++;
    if (skip_word(s, "Infinity") || (s->at == start && skip_word(s, "NaN"))) {
        keep_raw(s, start);
        return CRIA_OK;
    }
    size_t digits = 1;
    if (peek(s) == '0') {
        s->at++;
    } else if ((digits = skip_digits(s)) == 0) {
        return fail_at(s, s->at, s->at == start ? "expected a value" : "expected a digit");
    }
    if (peek(s) == '.') {
        s->at++;
        size_t fraction = skip_digits(s);
        if (fraction == 0) return fail_at(s, s->at, "expected a digit");
        digits += fraction;
    }
    bool exponent = peek(s) == 'e' || peek(s) == 'E';
    if (exponent) {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') s->at++;
        if (skip_digits(s) == 0) return fail_at(s, s->at, "expected a digit");
    }
    if (exponent || digits > EXACT_DIGITS) keep_raw(s, start);
    return CRIA_OK;
}

/* Reads the four digits of a \u escape whose backslash is at `at`. False if it is none. */
static bool read_unicode_escape(const scanner *s, size_t at, unsigned *out) {
    if (s->length - at < 6 || s->bytes[at] != '\\' || s->bytes[at + 1] != 'u') return false;
    unsigned value = 0;
    for (size_t i = at + 2; i < at + 6; i++) {
        int c = (unsigned char)s->bytes[i];
        int lower = c | 0x20;
        if (is_digit(c)) {
            value = value << 4 | (unsigned)(c - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            value = value << 4 | (unsigned)(lower - 'a' + 10);
        } else {
            return false;
        }
    }
    *out = value;
    return true;
}

static cria_status scan_escape(scanner *s) {
    size_t start = s->at;
    if (s->length - start < 2) return fail_at(s, start, "unterminated string");
    char kind = s->bytes[start + 1];
    if (kind != 'u') {
        if (!kind || !strchr("\"\\/bfnrt", kind)) return fail_at(s, start, "invalid escape");
        s->at += 2;
        return CRIA_OK;
    }
    unsigned unit, second;
    if (!read_unicode_escape(s, start, &unit)) return fail_at(s, start, "invalid \\u escape");
    s->at += 6;
    if (unit == 0) {
        rewrite(s, start, s->at, CRIA_JSON_NUL);
        s->result->has_nul = true;
    } else if (unit >= 0xD800 && unit < 0xDC00 && read_unicode_escape(s, s->at, &second) && second >= 0xDC00 &&
               second < 0xE000) {
        s->at += 6;
    } else if (unit >= 0xD800 && unit < 0xE000) {
        rewrite(s, start, s->at, "\xEF\xBF\xBD");
    }
    return CRIA_OK;
}

static cria_status scan_string(scanner *s) {
    size_t start = s->at++;
    while (s->at < s->length) {
        unsigned char c = (unsigned char)s->bytes[s->at];
        if (c == '"') {
            s->at++;
            return CRIA_OK;
        }
        if (c == '\\') {
            CRIA_TRY(scan_escape(s));
        } else if (c < 0x20) {
            return fail_at(s, s->at, "control character inside a string");
        } else if (c < 0x80) {
            s->at++;
        } else {
            uint32_t cp;
            int length = cria_utf8_decode(s->bytes + s->at, s->length - s->at, &cp);
            if (length <= 0) return fail_at(s, s->at, "invalid UTF-8");
            s->at += (size_t)length;
        }
    }
    return fail_at(s, start, "unterminated string");
}

/* A key and its colon. */
static cria_status scan_key(scanner *s) {
    skip_space(s);
    if (peek(s) != '"') return fail_at(s, s->at, "expected a key in double quotes");
    CRIA_TRY(scan_string(s));
    skip_space(s);
    if (peek(s) != ':') return fail_at(s, s->at, "expected ':'");
    s->at++;
    return CRIA_OK;
}

/* Opens a container. *complete: it was empty and is closed again. */
static cria_status scan_open(scanner *s, char closer, bool *complete) {
    if (s->depth == CRIA_JSON_MAX_NESTING) {
        return cria_fail(s->err, CRIA_ERR_FORMAT, "invalid JSON at byte %zu: nested deeper than %d", s->at,
                         CRIA_JSON_MAX_NESTING);
    }
    s->closers[s->depth++] = closer;
    s->at++;
    skip_space(s);
    *complete = peek(s) == closer;
    if (*complete) {
        s->at++;
        s->depth--;
    } else if (closer == '}') {
        CRIA_TRY(scan_key(s));
    }
    return CRIA_OK;
}

/* A scalar, or the start of a container. *complete is false where its first child comes next. */
static cria_status scan_value(scanner *s, bool *complete) {
    skip_space(s);
    *complete = true;
    switch (peek(s)) {
    case '{':
        return scan_open(s, '}', complete);
    case '[':
        return scan_open(s, ']', complete);
    case '"':
        return scan_string(s);
    case 't':
    case 'f':
    case 'n':
        if (skip_word(s, "true") || skip_word(s, "false") || skip_word(s, "null")) return CRIA_OK;
        return fail_at(s, s->at, "expected a value");
    default:
        return scan_number(s);
    }
}

/* What follows a child of a container: a comma (*complete is false: a value comes next) or the end of the container. */
static cria_status scan_after_child(scanner *s, bool *complete) {
    skip_space(s);
    char closer = s->closers[s->depth - 1];
    if (peek(s) == closer) {
        s->at++;
        s->depth--;
        *complete = true;
        return CRIA_OK;
    }
    if (peek(s) != ',') return fail_at(s, s->at, closer == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
    s->at++;
    *complete = false;
    return closer == '}' ? scan_key(s) : CRIA_OK;
}

cria_status cria_json_scan(const char *bytes, size_t length, cria_text *out, cria_json_scan_result *result,
                           cria_error *err) {
    scanner s = {.bytes = bytes, .length = length, .out = out, .result = result, .err = err};
    *result = (cria_json_scan_result){0};
    bool complete;
    do {
        CRIA_TRY(scan_value(&s, &complete));
        while (complete && s.depth > 0) CRIA_TRY(scan_after_child(&s, &complete));
    } while (!complete);
    skip_space(&s);
    if (s.at != length) return fail_at(&s, s.at, "something follows the value");
    if (result->rewritten) cria_text_append(out, bytes + s.copied, length - s.copied);
    if (out->failed) return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for JSON of %zu bytes", length);
    return CRIA_OK;
}
