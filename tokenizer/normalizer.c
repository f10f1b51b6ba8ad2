/* Normalizer steps, applied one after the other. */
#include "tokenizer/normalizer.h"

#include "base/checked.h"
#include "base/utf8.h"
#include "tokenizer/bytes.h"
#include "tokenizer/component.h"
#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

static const char stage[] = "normalizer";

typedef enum { STEP_PREPEND, STEP_REPLACE, STEP_STRIP, STEP_BYTE_LEVEL } step_kind;

typedef struct {
    step_kind kind;
    char *content; /* what is prepended or put in */
    size_t content_length;
    cria_regex *pattern;
    bool left, right;
} step;

enum { MAX_STEPS = 32 };

/* Steps that each put in what the next one looks for make a text longer by a factor each: a limit, far above what any
 * model's do (UTF-8 to a character for each byte: twice; a space to U+2581: three times). */
enum { MOST_GROWTH = 32, MOST_ADDED = 1 << 16 };

struct cria_normalizer {
    step steps[MAX_STEPS];
    size_t count;
};

void cria_normalizer_destroy(cria_normalizer *normalizer) {
    if (!normalizer) return;
    for (size_t i = 0; i < normalizer->count; i++) {
        free(normalizer->steps[i].content);
        cria_regex_destroy(normalizer->steps[i].pattern);
    }
    free(normalizer);
}

static cria_status copy_content(const cria_json_value *component, const char *key, step *s, cria_error *err) {
    const char *text = NULL;
    CRIA_TRY(cria_component_text(component, stage, key, &text, &s->content_length, err));
    s->content = malloc(s->content_length + 1);
    if (!s->content) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a normalizer");
    memcpy(s->content, text, s->content_length);
    return CRIA_OK;
}

static cria_status parse_steps(const cria_json_value *component, cria_normalizer *normalizer, cria_error *err) {
    const char *type = NULL;
    CRIA_TRY(cria_component_type(component, stage, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const cria_json_value *list = cria_json_get(component, "normalizers");
        for (const cria_json_value *c = cria_json_first(list); c; c = cria_json_next(c)) {
            CRIA_TRY(parse_steps(c, normalizer, err));
        }
        return CRIA_OK;
    }
    if (normalizer->count == MAX_STEPS) return cria_component_unknown(stage, "with more than 32 steps", err);
    step *s = &normalizer->steps[normalizer->count++];
    if (strcmp(type, "Prepend") == 0) {
        s->kind = STEP_PREPEND;
        return copy_content(component, "prepend", s, err);
    }
    if (strcmp(type, "Replace") == 0) {
        s->kind = STEP_REPLACE;
        CRIA_TRY(copy_content(component, "content", s, err));
        return cria_component_pattern(component, stage, &s->pattern, NULL, err);
    }
    if (strcmp(type, "Strip") == 0) {
        s->kind = STEP_STRIP;
        CRIA_TRY(cria_json_get_bool(component, "strip_left", true, &s->left, err));
        return cria_json_get_bool(component, "strip_right", true, &s->right, err);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = STEP_BYTE_LEVEL;
        return CRIA_OK;
    }
    return cria_component_unknown(stage, type, err);
}

cria_status cria_normalizer_parse(const cria_json_value *component, cria_normalizer **out, cria_error *err) {
    *out = NULL;
    if (cria_json_type_of(component) == CRIA_JSON_NULL) return CRIA_OK;
    cria_normalizer *normalizer = calloc(1, sizeof *normalizer);
    if (!normalizer) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a normalizer");
    cria_status status = parse_steps(component, normalizer, err);
    if (status != CRIA_OK) {
        cria_normalizer_destroy(normalizer);
        return status;
    }
    *out = normalizer;
    return CRIA_OK;
}

static cria_status too_long(size_t most, cria_error *err) {
    return cria_fail(err, CRIA_ERR_FORMAT,
                     "tokenizer: the normalizer makes more than %zu bytes of a text, %d times its length and %d more",
                     most, MOST_GROWTH, MOST_ADDED);
}

static cria_status replace(const step *s, const char *text, size_t length, size_t most, cria_text *out,
                           cria_error *err) {
    cria_regex_scan *scan = cria_regex_scan_create(s->pattern);
    if (!scan) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a normalizer");
    cria_regex_scan_start(scan, text, length);
    size_t done = 0, start = 0, end = 0;
    bool found = true;
    cria_status status = CRIA_OK;
    while (length && status == CRIA_OK) { /* an empty text has no matches, not even empty ones */
        status = cria_regex_scan_next(scan, &found, &start, &end, err);
        if (status != CRIA_OK || !found) break;
        cria_text_append(out, text + done, start - done);
        cria_text_append(out, s->content, s->content_length);
        done = end;
        if (out->length > most) status = too_long(most, err);
    }
    cria_text_append(out, text + done, length - done);
    cria_regex_scan_destroy(scan);
    return status;
}

static void strip(const step *s, const char *text, size_t length, cria_text *out) {
    size_t start = 0, end = length;
    uint32_t cp = 0;
    while (s->left && start < end) {
        int n = cria_utf8_decode(text + start, end - start, &cp);
        if (n <= 0 || !cria_unicode_is_space(cp)) break;
        start += (size_t)n;
    }
    while (s->right && end > start) {
        size_t at = end - 1;
        while (at > start && ((uint8_t)text[at] & 0xC0) == 0x80) at--;
        if (cria_utf8_decode(text + at, end - at, &cp) <= 0 || !cria_unicode_is_space(cp)) break;
        end = at;
    }
    cria_text_append(out, text + start, end - start);
}

static cria_status run_step(const step *s, const char *text, size_t length, size_t most, cria_text *out,
                            cria_error *err) {
    switch (s->kind) {
    case STEP_PREPEND:
        if (length) cria_text_append(out, s->content, s->content_length);
        cria_text_append(out, text, length);
        break;
    case STEP_REPLACE:
        return replace(s, text, length, most, out, err);
    case STEP_STRIP:
        strip(s, text, length, out);
        break;
    case STEP_BYTE_LEVEL:
        cria_bytes_map(text, length, out);
        break;
    }
    return CRIA_OK;
}

cria_status cria_normalizer_run(const cria_normalizer *normalizer, const char *text, size_t length, cria_text *out,
                                cria_error *err) {
    cria_text now = {0}, next = {0};
    cria_status status = CRIA_OK;
    size_t most = SIZE_MAX;
    if (!cria_mul_size(length, MOST_GROWTH, &most) || !cria_add_size(most, MOST_ADDED, &most)) most = SIZE_MAX;
    cria_text_append(&now, text, length);
    for (size_t i = 0; i < normalizer->count && status == CRIA_OK; i++) {
        cria_text_clear(&next);
        status = run_step(&normalizer->steps[i], now.data ? now.data : "", now.length, most, &next, err);
        if (status == CRIA_OK && next.length > most) status = too_long(most, err);
        if (now.failed || next.failed) status = cria_fail(err, CRIA_ERR_MEMORY, "no memory to normalize a text");
        cria_text swap = now;
        now = next;
        next = swap;
    }
    if (status == CRIA_OK) cria_text_append(out, now.data ? now.data : "", now.length);
    cria_text_deinit(&now);
    cria_text_deinit(&next);
    return status;
}
