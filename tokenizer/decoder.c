/* Reading a decoder from tokenizer.json, and the bytes of single tokens. */
#include "tokenizer/decoder.h"

#include "base/checked.h"
#include "tokenizer/bytes.h"
#include "tokenizer/component.h"
#include "tokenizer/decoder_stages.h"

#include <stdlib.h>
#include <string.h>

static const char stage_name[] = "decoder";

void cria_decoder_destroy(cria_decoder *decoder) {
    if (!decoder) return;
    for (size_t i = 0; i < decoder->count; i++) {
        free(decoder->stages[i].pattern);
        free(decoder->stages[i].content);
        cria_regex_destroy(decoder->stages[i].regex);
    }
    free(decoder);
}

static cria_status copy(const char *text, size_t length, char **out, size_t *out_length, cria_error *err) {
    *out = malloc(length + 1);
    if (!*out) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a decoder");
    memcpy(*out, text, length);
    (*out)[length] = 0;
    *out_length = length;
    return CRIA_OK;
}

/* Replacements that each put in what the next one looks for make a token longer by a factor each. */
static cria_status check_growth(const cria_stage *s, size_t *growth, cria_error *err) {
    enum { MOST_GROWTH = 4096 };
    size_t found = s->regex ? 1 : s->pattern_length, factor = found ? (s->content_length + found - 1) / found : 1;
    if (s->regex) factor++; /* an empty match leaves what stands there */
    if (factor < 1) factor = 1;
    if (cria_mul_size(*growth, factor, growth) && *growth <= MOST_GROWTH) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_UNSUPPORTED,
                     "tokenizer: the decoder's replacements may make a token more than %d times as long", MOST_GROWTH);
}

static cria_status parse_replace(const cria_json_value *component, cria_stage *s, size_t *growth, cria_error *err) {
    const char *text = NULL;
    size_t length = 0;
    bool literal = false;
    s->kind = CRIA_STAGE_REPLACE;
    CRIA_TRY(cria_component_pattern(component, stage_name, &s->regex, &literal, err));
    CRIA_TRY(cria_component_text(component, stage_name, "content", &text, &length, err));
    CRIA_TRY(copy(text, length, &s->content, &s->content_length, err));
    if (!literal) {
        if (s->after_fuse) return cria_component_unknown(stage_name, "Replace with a Regex after fusing", err);
        return check_growth(s, growth, err);
    }
    cria_regex_destroy(s->regex);
    s->regex = NULL;
    CRIA_TRY(cria_component_text(cria_json_get(component, "pattern"), stage_name, "String", &text, &length, err));
    CRIA_TRY(copy(text, length, &s->pattern, &s->pattern_length, err));
    return check_growth(s, growth, err);
}

static cria_status parse_strip(const cria_json_value *component, cria_stage *s, cria_error *err) {
    const char *text = NULL;
    size_t length = 0;
    s->kind = CRIA_STAGE_STRIP;
    CRIA_TRY(cria_component_text(component, stage_name, "content", &text, &length, err));
    if (length == 0) return cria_component_unknown(stage_name, "Strip of nothing", err);
    CRIA_TRY(copy(text, length, &s->pattern, &s->pattern_length, err));
    CRIA_TRY(cria_json_get_int(component, "start", 0, 0, INT32_MAX, &s->start, err));
    return cria_json_get_int(component, "stop", 0, 0, INT32_MAX, &s->stop, err);
}

static cria_status parse_metaspace(const cria_json_value *component, cria_stage *s, cria_error *err) {
    const char *text = NULL;
    size_t length = 0;
    cria_prepend_scheme scheme = CRIA_PREPEND_ALWAYS;
    s->kind = CRIA_STAGE_METASPACE;
    CRIA_TRY(cria_component_metaspace(component, stage_name, &text, &length, &scheme, err));
    s->drop_first = scheme != CRIA_PREPEND_NEVER;
    return copy(text, length, &s->pattern, &s->pattern_length, err);
}

static cria_status parse_stages(const cria_json_value *component, cria_decoder *decoder, cria_error *err) {
    const char *type = NULL;
    CRIA_TRY(cria_component_type(component, stage_name, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const cria_json_value *list = cria_json_get(component, "decoders");
        for (const cria_json_value *c = cria_json_first(list); c; c = cria_json_next(c)) {
            CRIA_TRY(parse_stages(c, decoder, err));
        }
        return CRIA_OK;
    }
    if (decoder->count == CRIA_MAX_STAGES) return cria_component_unknown(stage_name, "with more than 32 steps", err);
    cria_stage *s = &decoder->stages[decoder->count++];
    for (size_t i = 0; i + 1 < decoder->count; i++) {
        cria_stage_kind kind = decoder->stages[i].kind;
        if (kind == CRIA_STAGE_FUSE || kind == CRIA_STAGE_BYTE_LEVEL) s->after_fuse = true;
    }
    if (strcmp(type, "Replace") == 0) return parse_replace(component, s, &decoder->growth, err);
    if (strcmp(type, "Strip") == 0) return parse_strip(component, s, err);
    if (strcmp(type, "Metaspace") == 0) return parse_metaspace(component, s, err);
    if (strcmp(type, "Fuse") == 0) {
        s->kind = CRIA_STAGE_FUSE;
    } else if (strcmp(type, "ByteFallback") == 0) {
        s->kind = CRIA_STAGE_BYTE_FALLBACK;
    } else if (strcmp(type, "ByteLevel") == 0) {
        s->kind = CRIA_STAGE_BYTE_LEVEL;
        if (s->after_fuse) return cria_component_unknown(stage_name, "ByteLevel after fusing", err);
    } else {
        return cria_component_unknown(stage_name, type, err);
    }
    return CRIA_OK;
}

cria_status cria_decoder_parse(const cria_json_value *component, cria_decoder **out, cria_error *err) {
    cria_status status = CRIA_OK;
    *out = NULL;
    cria_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a decoder");
    decoder->growth = 1;
    if (cria_json_type_of(component) == CRIA_JSON_NULL) {
        decoder->stages[decoder->count++].kind = CRIA_STAGE_JOIN;
    } else {
        status = parse_stages(component, decoder, err);
    }
    if (status != CRIA_OK) {
        cria_decoder_destroy(decoder);
        return status;
    }
    *out = decoder;
    return CRIA_OK;
}

cria_decoder *cria_decoder_sentencepiece(bool strip_first, bool strip_more) {
    cria_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return NULL;
    decoder->count = 1;
    decoder->stages[0] =
        (cria_stage){.kind = CRIA_STAGE_SENTENCEPIECE, .drop_first = strip_first, .drop_more = strip_more};
    return decoder;
}

static void replace_literal(const char *pattern, size_t pattern_length, const char *content, size_t content_length,
                            const char *text, size_t length, cria_text *out) {
    size_t done = 0;
    while (done < length) {
        const char *at = memmem(text + done, length - done, pattern, pattern_length);
        if (!at) break;
        cria_text_append(out, text + done, (size_t)(at - text) - done);
        cria_text_append(out, content, content_length);
        done = (size_t)(at - text) + pattern_length;
    }
    cria_text_append(out, text + done, length - done);
}

static void replace_matches(const cria_stage *s, const char *text, size_t length, cria_text *out) {
    cria_regex_scan *scan = cria_regex_scan_create(s->regex);
    size_t done = 0, start = 0, end = 0;
    bool found = true;
    if (!scan) {
        out->failed = true;
        return;
    }
    cria_regex_scan_start(scan, text, length);
    while (length) {
        if (cria_regex_scan_next(scan, &found, &start, &end, NULL) != CRIA_OK || !found) break;
        cria_text_append(out, text + done, start - done);
        cria_text_append(out, s->content, s->content_length);
        done = end;
    }
    cria_text_append(out, text + done, length - done);
    cria_regex_scan_destroy(scan);
}

void cria_stage_replace(const cria_stage *s, const char *text, size_t length, cria_text *out) {
    if (s->regex) {
        replace_matches(s, text, length, out);
    } else {
        replace_literal(s->pattern, s->pattern_length, s->content, s->content_length, text, length, out);
    }
}

/* One stage's part in the bytes of a single token. */
static void stage_bytes(const cria_stage *s, const char *token, size_t length, cria_text *out) {
    switch (s->kind) {
    case CRIA_STAGE_BYTE_LEVEL:
        cria_bytes_unmap(token, length, out);
        break;
    case CRIA_STAGE_REPLACE:
        cria_stage_replace(s, token, length, out);
        break;
    case CRIA_STAGE_METASPACE:
        replace_literal(s->pattern, s->pattern_length, " ", 1, token, length, out);
        break;
    case CRIA_STAGE_SENTENCEPIECE:
        replace_literal(CRIA_LOWER_BLOCK, sizeof CRIA_LOWER_BLOCK - 1, " ", 1, token, length, out);
        break;
    default:
        cria_text_append(out, token, length);
    }
}

void cria_decoder_token_bytes(const cria_decoder *decoder, const char *token, size_t length, cria_text *out) {
    cria_text now = {0}, next = {0};
    cria_text_append(&now, token, length);
    for (size_t i = 0; i < decoder->count; i++) {
        const cria_stage *s = &decoder->stages[i];
        int byte = cria_byte_fallback_value(token, length);
        if (byte >= 0 && (s->kind == CRIA_STAGE_BYTE_FALLBACK || s->kind == CRIA_STAGE_SENTENCEPIECE)) {
            char c = (char)byte;
            cria_text_clear(&now);
            cria_text_append(&now, &c, 1);
            break;
        }
        cria_text_clear(&next);
        stage_bytes(s, now.data ? now.data : "", now.length, &next);
        cria_text swap = now;
        now = next;
        next = swap;
    }
    if (now.failed || next.failed) out->failed = true;
    cria_text_append(out, now.data ? now.data : "", now.length);
    cria_text_deinit(&now);
    cria_text_deinit(&next);
}
