/* PCRE2 behind the tokenizer's interface: compilation, and scanning for successive matches. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include "base/utf8.h"
#include "tokenizer/regex_translate.h"

#include <pcre2.h>
#include <stdlib.h>

struct cria_regex {
    pcre2_code *code;
};

struct cria_regex_scan {
    const cria_regex *regex;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; /* made when a match first needs more than the machine stack gives */
    const char *text;
    size_t length, from;
    size_t last_end; /* of the last match; SIZE_MAX before the first */
};

/* Backtracking steps per match: a run of n characters may need several n, a hostile expression would need n squared. */
enum { STEPS_BASE = 10000000, STEPS_PER_BYTE = 64, JIT_STACK_START = 1 << 16, JIT_STACK_MOST = 64 << 20 };

static cria_status compile(const cria_text *pattern, uint32_t options, cria_regex **out, cria_error *err) {
    int shown = pattern->length > 100 ? 100 : (int)pattern->length;
    cria_regex *regex = calloc(1, sizeof *regex);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!regex || !context) {
        free(regex);
        pcre2_compile_context_free(context);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a regular expression");
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    const char *bytes = pattern->length ? pattern->data : "";
    regex->code = pcre2_compile((PCRE2_SPTR)bytes, pattern->length, options, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!regex->code) {
        char message[120];
        free(regex);
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        return cria_fail(err, CRIA_ERR_FORMAT, "regular expression \"%.*s\": %s at byte %zu", shown, bytes, message,
                         (size_t)offset);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* without a JIT pcre2_match interprets */
    *out = regex;
    return CRIA_OK;
}

cria_status cria_regex_compile(const char *pattern, size_t length, cria_regex **out, cria_error *err) {
    cria_text translated = {0};
    cria_status status = cria_regex_translate(pattern, length, &translated, err);
    if (status == CRIA_OK && translated.failed) {
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for a regular expression");
    }
    /* Ruby's syntax: ^ and $ match at every line. */
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    if (status == CRIA_OK) status = compile(&translated, options, out, err);
    cria_text_deinit(&translated);
    return status;
}

cria_status cria_regex_compile_literal(const char *string, size_t length, cria_regex **out, cria_error *err) {
    cria_text literal = {.data = (char *)string, .length = length};
    return compile(&literal, PCRE2_LITERAL | PCRE2_UTF, out, err);
}

void cria_regex_destroy(cria_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    free(regex);
}

cria_regex_scan *cria_regex_scan_create(const cria_regex *regex) {
    cria_regex_scan *scan = calloc(1, sizeof *scan);
    if (!scan) return NULL;
    scan->regex = regex;
    scan->match = pcre2_match_data_create_from_pattern(regex->code, NULL);
    scan->context = pcre2_match_context_create(NULL);
    if (!scan->match || !scan->context) {
        cria_regex_scan_destroy(scan);
        return NULL;
    }
    return scan;
}

void cria_regex_scan_destroy(cria_regex_scan *scan) {
    if (!scan) return;
    pcre2_match_data_free(scan->match);
    pcre2_match_context_free(scan->context);
    pcre2_jit_stack_free(scan->stack);
    free(scan);
}

void cria_regex_scan_start(cria_regex_scan *scan, const char *text, size_t length) {
    scan->text = text;
    scan->length = length;
    scan->from = 0;
    scan->last_end = SIZE_MAX;
    uint64_t steps = STEPS_BASE + (uint64_t)STEPS_PER_BYTE * length;
    pcre2_set_match_limit(scan->context, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
}

/* One match from `from` on. The text was validated once; PCRE2 would otherwise validate all of it for every match. */
static int match_once(cria_regex_scan *scan) {
    PCRE2_SPTR text = (PCRE2_SPTR)scan->text;
    pcre2_code *code = scan->regex->code;
    int rc = pcre2_match(code, text, scan->length, scan->from, PCRE2_NO_UTF_CHECK, scan->match, scan->context);
    if (rc != PCRE2_ERROR_JIT_STACKLIMIT || scan->stack) return rc;
    scan->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MOST, NULL);
    if (!scan->stack) return PCRE2_ERROR_NOMEMORY;
    pcre2_jit_stack_assign(scan->context, NULL, scan->stack);
    return pcre2_match(code, text, scan->length, scan->from, PCRE2_NO_UTF_CHECK, scan->match, scan->context);
}

static size_t character_length(const cria_regex_scan *scan, size_t at) {
    uint32_t cp = 0;
    int n = cria_utf8_decode(scan->text + at, scan->length - at, &cp);
    return n > 0 ? (size_t)n : 1;
}

cria_status cria_regex_scan_next(cria_regex_scan *scan, bool *found, size_t *start, size_t *end, cria_error *err) {
    *found = false;
    while (scan->from <= scan->length) {
        int rc = match_once(scan);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            return cria_fail(err, rc == PCRE2_ERROR_NOMEMORY ? CRIA_ERR_MEMORY : CRIA_ERR_ARGUMENT,
                             "the text is too costly for the tokenizer's regular expression (PCRE2 error %d)", rc);
        }
        const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(scan->match);
        size_t s = offsets[0], e = offsets[1];
        if (e < s) s = e; /* \K inside a lookahead */
        bool empty = s == e, again = empty && e == scan->last_end;
        scan->from = e;
        if (empty) scan->from += e < scan->length ? character_length(scan, e) : 1;
        if (again || s < (scan->last_end == SIZE_MAX ? 0 : scan->last_end)) continue;
        scan->last_end = e;
        *found = true;
        *start = s;
        *end = e;
        return CRIA_OK;
    }
    scan->from = scan->length + 1;
    return CRIA_OK;
}
