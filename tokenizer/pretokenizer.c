/* Pre-tokenizer steps: splits on a pattern, and the two that rewrite the text (ByteLevel, Metaspace). */
#include "tokenizer/pretokenizer.h"

#include "tokenizer/bytes.h"
#include "tokenizer/component.h"

#include <stdlib.h>
#include <string.h>

static const char stage[] = "pre_tokenizer";

/* GPT-2's pattern (Radford et al. 2019). */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* Digits follows the Unicode version of Rust's own tables, which is newer than Oniguruma's. */
static const char digit_pattern[] = "[\\p{N}\\x{11DE0}-\\x{11DE9}\\x{16FF4}-\\x{16FF6}]";
static const char word_pattern[] = "\\w+|[^\\w\\s]+";
/* Punctuation follows a table of an old Unicode version: what was added since does not count. */
static const char punctuation_pattern[] =
    "(?![\\x{61D}\\x{9FD}\\x{A76}\\x{C77}\\x{C84}\\x{166D}\\x{1B4E}\\x{1B4F}\\x{1B7D}-\\x{1B7F}\\x{2E43}-\\x{2E4F}"
    "\\x{2E52}-\\x{2E5D}\\x{10D6E}\\x{10EAD}\\x{10F55}-\\x{10F59}\\x{10F86}-\\x{10F89}\\x{111C9}\\x{113D4}\\x{113D5}"
    "\\x{113D7}\\x{113D8}\\x{1144B}-\\x{1144F}\\x{1145A}\\x{1145B}\\x{1145D}\\x{11660}-\\x{1166C}\\x{116B9}\\x{1183B}"
    "\\x{11944}-\\x{11946}\\x{119E2}\\x{11A3F}-\\x{11A46}\\x{11A9A}-\\x{11A9C}\\x{11A9E}-\\x{11AA2}\\x{11B00}-\\x{"
    "11B09}"
    "\\x{11BE1}\\x{11C41}-\\x{11C45}\\x{11C70}\\x{11C71}\\x{11EF7}\\x{11EF8}\\x{11F43}-\\x{11F4F}\\x{11FFF}\\x{12FF1}"
    "\\x{12FF2}\\x{16D6D}-\\x{16D6F}\\x{16E97}-\\x{16E9A}\\x{16FE2}\\x{1E5FF}\\x{1E95E}\\x{1E95F}])"
    "[\\x{21}-\\x{2F}\\x{3A}-\\x{40}\\x{5B}-\\x{60}\\x{7B}-\\x{7E}\\p{P}]";

typedef enum { STEP_SPLIT, STEP_BYTE_LEVEL, STEP_METASPACE } step_kind;

typedef struct {
    step_kind kind;
    cria_regex *pattern; /* NULL: no split */
    cria_split_behaviour behaviour;
    bool invert;
    bool add_prefix_space; /* ByteLevel */
    char replacement[4];   /* Metaspace */
    size_t replacement_length;
    cria_prepend_scheme scheme;
} step;

enum { MAX_STEPS = 32 };

struct cria_pretokenizer {
    step steps[MAX_STEPS];
    size_t count;
};

void cria_pretokenizer_destroy(cria_pretokenizer *pretokenizer) {
    if (!pretokenizer) return;
    for (size_t i = 0; i < pretokenizer->count; i++) cria_regex_destroy(pretokenizer->steps[i].pattern);
    free(pretokenizer);
}

static cria_status parse_split(const cria_json_value *component, step *s, cria_error *err) {
    s->kind = STEP_SPLIT;
    CRIA_TRY(cria_component_behaviour(component, stage, &s->behaviour, err));
    CRIA_TRY(cria_json_get_bool(component, "invert", false, &s->invert, err));
    return cria_component_pattern(component, stage, &s->pattern, NULL, err);
}

static cria_status parse_byte_level(const cria_json_value *component, cria_pretokenizer *pretokenizer, step *s,
                                    cria_error *err) {
    bool use_regex = true;
    /* Each would double the text once more. */
    for (const step *before = pretokenizer->steps; before < s; before++)
        if (before->kind == STEP_BYTE_LEVEL) return cria_component_unknown(stage, "with ByteLevel twice", err);
    s->kind = STEP_BYTE_LEVEL;
    s->behaviour = CRIA_SPLIT_ISOLATED;
    CRIA_TRY(cria_json_get_bool(component, "add_prefix_space", true, &s->add_prefix_space, err));
    CRIA_TRY(cria_json_get_bool(component, "use_regex", true, &use_regex, err));
    if (!use_regex) return CRIA_OK;
    return cria_regex_compile(gpt2_pattern, sizeof gpt2_pattern - 1, &s->pattern, err);
}

static cria_status parse_metaspace(const cria_json_value *component, step *s, cria_error *err) {
    const char *replacement = NULL;
    bool split = true;
    s->kind = STEP_METASPACE;
    s->behaviour = CRIA_SPLIT_MERGED_WITH_NEXT;
    CRIA_TRY(cria_component_metaspace(component, stage, &replacement, &s->replacement_length, &s->scheme, err));
    memcpy(s->replacement, replacement, s->replacement_length);
    CRIA_TRY(cria_json_get_bool(component, "split", true, &split, err));
    return split ? cria_regex_compile_literal(replacement, s->replacement_length, &s->pattern, err) : CRIA_OK;
}

/* The steps that are a split on a fixed pattern. */
static cria_status parse_fixed(const cria_json_value *component, const char *type, step *s, cria_error *err) {
    s->kind = STEP_SPLIT;
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        CRIA_TRY(cria_json_get_bool(component, "individual_digits", false, &individual, err));
        s->behaviour = individual ? CRIA_SPLIT_ISOLATED : CRIA_SPLIT_CONTIGUOUS;
        return cria_regex_compile(digit_pattern, sizeof digit_pattern - 1, &s->pattern, err);
    }
    if (strcmp(type, "Punctuation") == 0) {
        CRIA_TRY(cria_component_behaviour(component, stage, &s->behaviour, err));
        return cria_regex_compile(punctuation_pattern, sizeof punctuation_pattern - 1, &s->pattern, err);
    }
    s->behaviour = CRIA_SPLIT_REMOVED;
    if (strcmp(type, "Whitespace") == 0) {
        s->invert = true;
        return cria_regex_compile(word_pattern, sizeof word_pattern - 1, &s->pattern, err);
    }
    if (strcmp(type, "WhitespaceSplit") == 0) return cria_regex_compile("\\s", 2, &s->pattern, err);
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        const char *delimiter = NULL;
        size_t length = 0;
        CRIA_TRY(cria_component_text(component, stage, "delimiter", &delimiter, &length, err));
        if (length == 0) return cria_component_unknown(stage, "CharDelimiterSplit with an empty delimiter", err);
        return cria_regex_compile_literal(delimiter, length, &s->pattern, err);
    }
    return cria_component_unknown(stage, type, err);
}

static cria_status parse_steps(const cria_json_value *component, cria_pretokenizer *pretokenizer, cria_error *err) {
    const char *type = NULL;
    CRIA_TRY(cria_component_type(component, stage, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const cria_json_value *list = cria_json_get(component, "pretokenizers");
        for (const cria_json_value *c = cria_json_first(list); c; c = cria_json_next(c)) {
            CRIA_TRY(parse_steps(c, pretokenizer, err));
        }
        return CRIA_OK;
    }
    if (pretokenizer->count == MAX_STEPS) return cria_component_unknown(stage, "with more than 32 steps", err);
    step *s = &pretokenizer->steps[pretokenizer->count++];
    if (strcmp(type, "Split") == 0) return parse_split(component, s, err);
    if (strcmp(type, "ByteLevel") == 0) return parse_byte_level(component, pretokenizer, s, err);
    if (strcmp(type, "Metaspace") == 0) return parse_metaspace(component, s, err);
    return parse_fixed(component, type, s, err);
}

cria_status cria_pretokenizer_parse(const cria_json_value *component, cria_pretokenizer **out, cria_error *err) {
    *out = NULL;
    if (cria_json_type_of(component) == CRIA_JSON_NULL) return CRIA_OK;
    cria_pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
    if (!pretokenizer) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a pre-tokenizer");
    cria_status status = parse_steps(component, pretokenizer, err);
    if (status != CRIA_OK) {
        cria_pretokenizer_destroy(pretokenizer);
        return status;
    }
    *out = pretokenizer;
    return CRIA_OK;
}

void cria_pretokenizer_workspace_deinit(cria_pretokenizer_workspace *workspace) {
    cria_text_deinit(&workspace->text);
    cria_text_deinit(&workspace->spare_text);
    cria_pieces_deinit(&workspace->pieces);
    cria_pieces_deinit(&workspace->spare_pieces);
    cria_stretches_deinit(&workspace->stretches);
}

/* Cuts one piece of `text` on the step's pattern. */
static cria_status split_piece(const step *s, cria_regex_scan *scan, const char *text, cria_piece piece,
                               cria_pretokenizer_workspace *w, cria_error *err) {
    size_t done = 0, start = 0, end = 0;
    cria_stretches_clear(&w->stretches);
    cria_regex_scan_start(scan, text + piece.start, piece.length);
    for (;;) {
        bool found = false;
        CRIA_TRY(cria_regex_scan_next(scan, &found, &start, &end, err));
        if (!found) break;
        if (done != start) cria_stretches_push(&w->stretches, done, start, s->invert);
        cria_stretches_push(&w->stretches, start, end, !s->invert);
        done = end;
    }
    if (done != piece.length) cria_stretches_push(&w->stretches, done, piece.length, s->invert);
    cria_split_apply(&w->stretches, s->behaviour, piece, &w->spare_pieces);
    return CRIA_OK;
}

/* Splits every piece, or keeps them all where the step has no pattern. */
static cria_status split_pieces(const step *s, cria_pretokenizer_workspace *w, cria_error *err) {
    if (!s->pattern) return CRIA_OK;
    cria_regex_scan *scan = cria_regex_scan_create(s->pattern);
    if (!scan) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a pre-tokenizer");
    cria_status status = CRIA_OK;
    cria_pieces_clear(&w->spare_pieces);
    for (size_t i = 0; i < w->pieces.count && status == CRIA_OK; i++) {
        status = split_piece(s, scan, w->text.data, w->pieces.items[i], w, err);
    }
    cria_regex_scan_destroy(scan);
    cria_pieces swap = w->pieces;
    w->pieces = w->spare_pieces;
    w->spare_pieces = swap;
    return status;
}

typedef void rewrite(const step *s, const char *text, size_t length, bool first, cria_text *out);

/* Rewrites every piece; the text becomes that of the pieces alone. */
static void rewrite_pieces(const step *s, rewrite *how, cria_pretokenizer_workspace *w) {
    cria_text_clear(&w->spare_text);
    for (size_t i = 0; i < w->pieces.count; i++) {
        cria_piece *piece = &w->pieces.items[i];
        size_t start = w->spare_text.length;
        how(s, w->text.data + piece->start, piece->length, piece->first, &w->spare_text);
        piece->start = start;
        piece->length = w->spare_text.length - start;
    }
    cria_text swap = w->text;
    w->text = w->spare_text;
    w->spare_text = swap;
}

static void add_prefix_space(const step *s, const char *text, size_t length, bool first, cria_text *out) {
    (void)s;
    (void)first;
    if (length == 0 || text[0] != ' ') cria_text_append(out, " ", 1);
    cria_text_append(out, text, length);
}

static void map_bytes(const step *s, const char *text, size_t length, bool first, cria_text *out) {
    (void)s;
    (void)first;
    cria_bytes_map(text, length, out);
}

static void replace_spaces(const step *s, const char *text, size_t length, bool first, cria_text *out) {
    bool starts = length && (text[0] == ' ' || (length >= s->replacement_length &&
                                                memcmp(text, s->replacement, s->replacement_length) == 0));
    if (!starts && (s->scheme == CRIA_PREPEND_ALWAYS || (s->scheme == CRIA_PREPEND_FIRST && first))) {
        cria_text_append(out, s->replacement, s->replacement_length);
    }
    size_t done = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] != ' ') continue;
        cria_text_append(out, text + done, i - done);
        cria_text_append(out, s->replacement, s->replacement_length);
        done = i + 1;
    }
    cria_text_append(out, text + done, length - done);
}

cria_status cria_pretokenizer_run(const cria_pretokenizer *pretokenizer, cria_pretokenizer_workspace *workspace,
                                  cria_error *err) {
    for (size_t i = 0; i < pretokenizer->count; i++) {
        const step *s = &pretokenizer->steps[i];
        if (s->kind == STEP_METASPACE) rewrite_pieces(s, replace_spaces, workspace);
        if (s->kind == STEP_BYTE_LEVEL && s->add_prefix_space) rewrite_pieces(s, add_prefix_space, workspace);
        CRIA_TRY(split_pieces(s, workspace, err));
        if (s->kind == STEP_BYTE_LEVEL) rewrite_pieces(s, map_bytes, workspace);
        if (workspace->text.failed || workspace->spare_text.failed || workspace->pieces.failed ||
            workspace->spare_pieces.failed) {
            return cria_fail(err, CRIA_ERR_MEMORY, "no memory to split a text");
        }
    }
    return CRIA_OK;
}
