/* The translator: one pass over the pattern, that knows whether it is inside a set. */
#include "tokenizer/regex_translate.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *pattern;
    size_t length, at;
    cria_text *out;
    cria_error *err;
} translator;

/* Oniguruma's \w: PCRE2's has changed from version to version. */
static const char *const word_names[] = {"Alphabetic", "L", "M", "Nd", "Pc"};
/* Scripts by their names alone: since 10.40 PCRE2 takes a bare name for the script's extensions too. */
static const char *const scripts[] = {"Han",        "Hiragana", "Katakana", "Hangul", "Latin", "Greek",
                                      "Cyrillic",   "Arabic",   "Thai",     "Hebrew", "Khmer", "Lao",
                                      "Devanagari", "Bengali",  "Myanmar",  "Tamil"};
static const char *const long_names[][2] = {{"Letter", "L"},        {"Number", "N"}, {"Mark", "M"},
                                            {"Punctuation", "P"},   {"Punct", "P"},  {"Symbol", "S"},
                                            {"Alpha", "Alphabetic"}};

static cria_status unsupported(const translator *t, const char *what) {
    int shown = t->length > 80 ? 80 : (int)t->length;
    return cria_fail(t->err, CRIA_ERR_UNSUPPORTED, "regular expression \"%.*s\": %s at byte %zu is not supported",
                     shown, t->pattern, what, t->at);
}

static char peek(const translator *t, size_t ahead) {
    return t->at + ahead < t->length ? t->pattern[t->at + ahead] : 0;
}

static void put(translator *t, size_t count) {
    cria_text_append(t->out, t->pattern + t->at, count);
    t->at += count;
}

static void put_property(cria_text *out, const char *name, size_t length) {
    const char *more = cria_unicode_additions(name, length);
    cria_text_printf(out, "\\p{%.*s}%s", (int)length, name, more ? more : "");
}

static void put_word(cria_text *out) {
    for (size_t i = 0; i < sizeof word_names / sizeof *word_names; i++) {
        put_property(out, word_names[i], strlen(word_names[i]));
    }
}

/* The items of one property under its PCRE2 name. */
static void put_named_items(cria_text *out, const char *name, size_t length) {
    for (size_t i = 0; i < sizeof long_names / sizeof *long_names; i++) {
        if (strlen(long_names[i][0]) == length && memcmp(long_names[i][0], name, length) == 0) {
            put_property(out, long_names[i][1], strlen(long_names[i][1]));
            return;
        }
    }
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        if (strlen(scripts[i]) == length && memcmp(scripts[i], name, length) == 0) {
            const char *more = cria_unicode_additions(name, length);
            cria_text_printf(out, "\\p{sc:%.*s}%s", (int)length, name, more ? more : "");
            return;
        }
    }
    put_property(out, name, length);
}

/* \p{Name}, \P{Name}, \p{^Name} */
static cria_status property(translator *t, bool in_set) {
    bool negated = peek(t, 1) == 'P';
    if (peek(t, 2) != '{') return unsupported(t, "\\p without braces");
    size_t start = t->at + 3, end = start;
    if (start < t->length && t->pattern[start] == '^') {
        negated = !negated;
        start++;
        end++;
    }
    while (end < t->length && t->pattern[end] != '}') end++;
    if (end == t->length || end == start || end - start > 40) return unsupported(t, "an unfinished \\p{...}");
    if (negated && in_set) return unsupported(t, "a negated property inside [...]");
    if (!in_set) cria_text_puts(t->out, negated ? "[^" : "[");
    put_named_items(t->out, t->pattern + start, end - start);
    if (!in_set) cria_text_puts(t->out, "]");
    t->at = end + 1;
    return CRIA_OK;
}

static void put_boundary(cria_text *out, bool negated) {
    cria_text word = {0};
    put_word(&word);
    if (word.failed) out->failed = true;
    const char *w = word.data ? word.data : "";
    cria_text_puts(out, "(?:(?<=[");
    cria_text_puts(out, w);
    cria_text_puts(out, negated ? "])(?=[" : "])(?![");
    cria_text_puts(out, w);
    cria_text_puts(out, "])|(?<![");
    cria_text_puts(out, w);
    cria_text_puts(out, negated ? "])(?![" : "])(?=[");
    cria_text_puts(out, w);
    cria_text_puts(out, "]))");
    cria_text_deinit(&word);
}

/* \s \S \w \W \d \D \h \H */
static cria_status shorthand(translator *t, char letter, bool in_set) {
    bool negated = letter >= 'A' && letter <= 'Z';
    char kind = negated ? (char)(letter - 'A' + 'a') : letter;
    if (negated && in_set) {
        if (kind != 's') return unsupported(t, "a negated class inside [...]");
        cria_text_puts(t->out, cria_unicode_not_space);
        t->at += 2;
        return CRIA_OK;
    }
    if (!in_set) cria_text_puts(t->out, negated ? "[^" : "[");
    if (kind == 's') cria_text_puts(t->out, cria_unicode_space);
    if (kind == 'w') put_word(t->out);
    if (kind == 'd') put_property(t->out, "Nd", 2);
    if (kind == 'h') cria_text_puts(t->out, "0-9A-Fa-f");
    if (!in_set) cria_text_puts(t->out, "]");
    t->at += 2;
    return CRIA_OK;
}

static cria_status escape(translator *t, bool in_set) {
    char letter = peek(t, 1);
    if (letter == 0) return unsupported(t, "a lone backslash");
    if (letter == 'p' || letter == 'P') return property(t, in_set);
    if (strchr("sSwWdDhH", letter)) return shorthand(t, letter, in_set);
    if (letter == 'b' || letter == 'B') {
        if (in_set) {
            cria_text_puts(t->out, "\\x{8}");
        } else {
            put_boundary(t->out, letter == 'B');
        }
        t->at += 2;
        return CRIA_OK;
    }
    if (letter == 'v') { /* a vertical tab there, a class in PCRE2 */
        cria_text_puts(t->out, "\\x{B}");
        t->at += 2;
        return CRIA_OK;
    }
    if (letter == 'u') {
        if (t->length - t->at < 6) return unsupported(t, "an unfinished \\u");
        cria_text_printf(t->out, "\\x{%.4s}", t->pattern + t->at + 2);
        t->at += 6;
        return CRIA_OK;
    }
    bool is_letter = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
    if (is_letter && !strchr(in_set ? "nrtfaex" : "nrtfaexAzZGKRXN", letter)) return unsupported(t, "this escape");
    /* A backslash before a character of several bytes stands before its first one; the rest follows as it is. */
    put(t, 2);
    return CRIA_OK;
}

/* [...], from its opening bracket to its closing one */
static cria_status set(translator *t) {
    put(t, 1);
    if (peek(t, 0) == '^') put(t, 1);
    if (peek(t, 0) == ']') {
        cria_text_puts(t->out, "\\]");
        t->at++;
    }
    while (t->at < t->length) {
        char c = peek(t, 0);
        if (c == ']') {
            put(t, 1);
            return CRIA_OK;
        }
        if (c == '\\') {
            CRIA_TRY(escape(t, true));
        } else if (c == '[') {
            return unsupported(t, "a set inside a set");
        } else if (c == '&' && peek(t, 1) == '&') {
            return unsupported(t, "a set operation");
        } else {
            put(t, 1);
        }
    }
    return unsupported(t, "an unfinished set");
}

/* {n}, {n,}, {n,m}, {,m}; any other brace is a literal one */
static cria_status interval(translator *t) {
    size_t n = 1, digits = 0, commas = 0;
    while ((peek(t, n) >= '0' && peek(t, n) <= '9') || (peek(t, n) == ',' && !commas)) {
        if (peek(t, n) == ',') {
            commas++;
        } else {
            digits++;
        }
        n++;
    }
    if (peek(t, n) != '}' || !digits) {
        cria_text_puts(t->out, "\\");
        put(t, 1);
        return CRIA_OK;
    }
    char after = peek(t, n + 1);
    if (after == '+' || (after == '?' && !commas)) return unsupported(t, "a quantifier after {...}");
    if (peek(t, 1) == ',') {
        cria_text_puts(t->out, "{0");
        t->at++;
        n--;
    } else {
        put(t, 1);
    }
    put(t, n);
    return CRIA_OK;
}

/* After "(": the options of (?i) and (?i:...), where m means what s means in PCRE2. */
static cria_status group(translator *t) {
    put(t, 1);
    if (peek(t, 0) != '?') {
        return peek(t, 0) == '*' ? unsupported(t, "a verb") : CRIA_OK;
    }
    char kind = peek(t, 1);
    if (kind == 0) return unsupported(t, "an unfinished group");
    if (strchr(":=!>#", kind)) {
        put(t, 2);
        return CRIA_OK;
    }
    if (kind == '<') {
        if (peek(t, 2) != '=' && peek(t, 2) != '!') return unsupported(t, "a named group");
        put(t, 3);
        return CRIA_OK;
    }
    put(t, 1);
    while (peek(t, 0) && strchr("im-", peek(t, 0))) {
        if (peek(t, 0) == 'm') {
            cria_text_puts(t->out, "s");
            t->at++;
        } else {
            put(t, 1);
        }
    }
    if (peek(t, 0) != ':' && peek(t, 0) != ')') return unsupported(t, "this kind of group");
    put(t, 1);
    return CRIA_OK;
}

cria_status cria_regex_translate(const char *pattern, size_t length, cria_text *out, cria_error *err) {
    translator t = {pattern, length, 0, out, err};
    if (!cria_utf8_valid(pattern, length)) return unsupported(&t, "invalid UTF-8");
    while (t.at < t.length) {
        switch (peek(&t, 0)) {
        case '\\':
            CRIA_TRY(escape(&t, false));
            break;
        case '[':
            CRIA_TRY(set(&t));
            break;
        case '{':
            CRIA_TRY(interval(&t));
            break;
        case '(':
            CRIA_TRY(group(&t));
            break;
        default:
            put(&t, 1);
        }
    }
    return CRIA_OK;
}
