/* Every vocabulary under tests/tokenizer/data gives the ids and texts that Hugging Face gave when the files were made.
 *
 * With a model's path as argument the program is a filter for tools/make_tokenizer_fixtures.py instead: it reads lines
 * of
 * {"text": ...} and answers each with {"ids": ..., "plain": ..., "decoded": ..., "skipped": ...} or {"error": ...}. */
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"
#include "server/model_tokenizer.h"
#include "tokenizer/ids.h"
#include "tokenizer/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    cria_ids ids, plain;
    cria_text decoded, skipped;
} answer;

static void answer_deinit(answer *a) {
    cria_ids_deinit(&a->ids);
    cria_ids_deinit(&a->plain);
    cria_text_deinit(&a->decoded);
    cria_text_deinit(&a->skipped);
}

static void read_ids(const cria_json_value *list, cria_ids *out) {
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v)) {
        int64_t id = -1;
        cria_json_int(v, &id);
        assert_true(cria_ids_push(out, (int32_t)id));
    }
}

/* A case with a text: the ids with everything special and those with nothing special. One without: its own ids. Then
 * the text of the ids with and without special tokens. */
static cria_status run(const cria_tokenizer *t, const cria_json_value *c, answer *a, cria_error *err) {
    const cria_json_value *given = cria_json_get(c, "text");
    if (given) {
        size_t length = 0;
        const char *text = cria_json_text(given, &length);
        cria_encode_options special = {.add_special = true, .parse_special = true}, plain = {0};
        CRIA_TRY(cria_tokenizer_encode(t, text, length, special, 0, &a->ids, err));
        CRIA_TRY(cria_tokenizer_encode(t, text, length, plain, 0, &a->plain, err));
    } else {
        read_ids(cria_json_get(c, "ids"), &a->ids);
    }
    CRIA_TRY(cria_tokenizer_decode(t, a->ids.ids, a->ids.count, false, &a->decoded, err));
    return cria_tokenizer_decode(t, a->ids.ids, a->ids.count, true, &a->skipped, err);
}

static void put_ids(cria_text *out, const char *name, const cria_ids *ids) {
    cria_text_printf(out, "\"%s\":[", name);
    for (size_t i = 0; i < ids->count; i++) cria_text_printf(out, "%s%d", i ? "," : "", ids->ids[i]);
    cria_text_puts(out, "],");
}

static void put_answer(cria_text *out, const answer *a) {
    cria_text_puts(out, "{");
    put_ids(out, "ids", &a->ids);
    put_ids(out, "plain", &a->plain);
    cria_text_puts(out, "\"decoded\":");
    cria_text_json_string(out, a->decoded.data ? a->decoded.data : "", a->decoded.length);
    cria_text_puts(out, ",\"skipped\":");
    cria_text_json_string(out, a->skipped.data ? a->skipped.data : "", a->skipped.length);
    cria_text_puts(out, "}\n");
}

static void answer_line(const cria_tokenizer *tokenizer, const char *line, size_t length) {
    cria_error err = {0};
    cria_text out = {0};
    cria_json *json = NULL;
    answer a = {0};
    cria_status status = cria_json_parse(line, length, &json, &err);
    if (status == CRIA_OK) status = run(tokenizer, cria_json_root(json), &a, &err);
    if (status == CRIA_OK) {
        put_answer(&out, &a);
    } else {
        cria_text_puts(&out, "{\"error\":");
        cria_text_json_string(&out, err.message, strlen(err.message));
        cria_text_puts(&out, "}\n");
    }
    fwrite(out.data, 1, out.length, stdout);
    answer_deinit(&a);
    cria_text_deinit(&out);
    cria_json_destroy(json);
}

static int filter(const char *path) {
    cria_error err = {0};
    cria_tokenizer *tokenizer = NULL;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    if (cria_model_tokenizer_open(path, &tokenizer, &err) != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    while ((length = getline(&line, &capacity, stdin)) > 0) answer_line(tokenizer, line, (size_t)length);
    free(line);
    cria_tokenizer_destroy(tokenizer);
    return 0;
}

/* One JSON value per line of a committed file. */
typedef struct {
    cria_json **lines;
    size_t count;
} json_lines;

static void read_lines(const char *path, json_lines *out) {
    cria_mapping file = {0};
    cria_error err = {0};
    *out = (json_lines){0};
    if (cria_mapping_open(path, &file, &err) != CRIA_OK) fail_msg("%s", err.message);
    const char *text = (const char *)file.data;
    for (size_t at = 0, length; at < file.size; at += length + 1) {
        const char *end = memchr(text + at, '\n', file.size - at);
        length = end ? (size_t)(end - text) - at : file.size - at;
        out->lines = realloc(out->lines, (out->count + 1) * sizeof *out->lines);
        assert_non_null(out->lines);
        if (cria_json_parse(text + at, length, &out->lines[out->count++], &err) != CRIA_OK) fail_msg("%s", err.message);
    }
    cria_mapping_close(&file);
}

static void free_lines(json_lines *lines) {
    for (size_t i = 0; i < lines->count; i++) cria_json_destroy(lines->lines[i]);
    free(lines->lines);
}

static void check_ids(const char *where, const cria_json_value *c, const char *key, const cria_ids *got) {
    cria_ids expected = {0};
    if (!cria_json_get(c, "text") || !cria_json_get(c, key)) return;
    read_ids(cria_json_get(c, key), &expected);
    bool same = expected.count == got->count &&
                (!got->count || memcmp(expected.ids, got->ids, got->count * sizeof *got->ids) == 0);
    if (!same) {
        cria_text message = {0};
        size_t length = 0;
        const char *text = cria_json_text(cria_json_get(c, "text"), &length);
        cria_text_json_string(&message, text, length);
        put_ids(&message, " expected", &expected);
        put_ids(&message, " got", got);
        fail_msg("%s: %s: %s", where, key, message.data);
    }
    cria_ids_deinit(&expected);
}

static void check_text(const char *where, const cria_json_value *c, const char *key, const cria_text *got) {
    size_t length = 0;
    if (!cria_json_get(c, key)) return;
    const char *expected = cria_json_text(cria_json_get(c, key), &length);
    if (length == got->length && (length == 0 || memcmp(expected, got->data, length) == 0)) return;
    fail_msg("%s: %s: expected \"%s\", got \"%s\"", where, key, expected, got->data ? got->data : "");
}

/* Ids pushed one by one: whole code points every time, and together what decoding them at once gives. */
static void check_stream(const cria_tokenizer *t, const cria_ids *ids, bool skip_special, const cria_text *whole) {
    cria_text out = {0};
    cria_detokenizer *stream = cria_detokenizer_create(t, skip_special, NULL, 0);
    assert_non_null(stream);
    for (size_t i = 0; i < ids->count; i++) {
        size_t before = out.length;
        assert_int_equal(cria_detokenizer_push(stream, ids->ids[i], &out, NULL), CRIA_OK);
        assert_true(cria_utf8_valid(out.data ? out.data + before : "", out.length - before));
    }
    cria_detokenizer_finish(stream, &out);
    assert_int_equal(out.length, whole->length);
    if (out.length) assert_memory_equal(out.data, whole->data, out.length);
    cria_detokenizer_destroy(stream);
    cria_text_deinit(&out);
}

/* `plain_only`: without the ids and texts that depend on what stands around special tokens. */
static void check_case(const char *where, const cria_tokenizer *t, const cria_json_value *c, bool plain_only) {
    cria_error err = {0};
    answer a = {0};
    if (run(t, c, &a, &err) != CRIA_OK) fail_msg("%s: %s", where, err.message);
    if (!plain_only) check_ids(where, c, "ids", &a.ids);
    check_ids(where, c, "plain", &a.plain);
    if (!plain_only) check_text(where, c, "decoded", &a.decoded);
    if (!plain_only) check_text(where, c, "skipped", &a.skipped);
    check_stream(t, &a.ids, false, &a.decoded);
    check_stream(t, &a.ids, true, &a.skipped);
    answer_deinit(&a);
}

#define DATA CRIA_SOURCE_DIR "/tests/tokenizer/data/"

static void check_cases(const char *where, const cria_tokenizer *t, const char *name, bool plain_only) {
    char path[512];
    json_lines cases;
    snprintf(path, sizeof path, DATA "%s/cases.jsonl", name);
    read_lines(path, &cases);
    assert_true(cases.count > 200);
    for (size_t i = 0; i < cases.count; i++) check_case(where, t, cria_json_root(cases.lines[i]), plain_only);
    free_lines(&cases);
}

static void check_folder(const char *name) {
    char folder[512];
    cria_error err = {0};
    cria_tokenizer *t = NULL;
    snprintf(folder, sizeof folder, DATA "%s", name);
    if (cria_tokenizer_open(folder, &t, &err) != CRIA_OK) fail_msg("%s: %s", name, err.message);
    check_cases(name, t, name, false);
    cria_tokenizer_destroy(t);
}

static void an_opt_vocabulary_agrees_with_its_reference(void **context) {
    (void)context;
    check_folder("opt");
}

static void a_llama_3_vocabulary_agrees_with_its_reference(void **context) {
    (void)context;
    check_folder("llama3");
}

static void a_smollm_vocabulary_with_many_kinds_of_added_tokens_agrees_with_its_reference(void **context) {
    (void)context;
    check_folder("smollm");
}

static void a_llama_2_vocabulary_with_byte_fallback_agrees_with_its_reference(void **context) {
    (void)context;
    check_folder("llama2");
}

static void a_unigram_model_agrees_with_the_sentencepiece_library(void **context) {
    (void)context;
    check_folder("unigram");
}

static void a_bpe_model_agrees_with_the_sentencepiece_library(void **context) {
    (void)context;
    check_folder("scored");
}

/* A vocabulary as GGUF metadata would hold it, over borrowed strings. */
typedef struct {
    cria_gguf_vocabulary v;
    const char **tokens, **merges;
    size_t *token_lengths, *merge_lengths;
    int32_t *types;
    float *scores;
    cria_text merge_text; /* "left right" of merges that stand as pairs */
} gguf_case;

static void gguf_allocate(gguf_case *g, size_t tokens, size_t merges) {
    *g = (gguf_case){.v = {.token_count = tokens, .bos = -1, .eos = -1, .unknown = -1, .padding = -1}};
    g->tokens = calloc(tokens, sizeof *g->tokens);
    g->token_lengths = calloc(tokens, sizeof *g->token_lengths);
    g->types = calloc(tokens, sizeof *g->types);
    g->scores = calloc(tokens, sizeof *g->scores);
    g->merges = calloc(merges + 1, sizeof *g->merges);
    g->merge_lengths = calloc(merges + 1, sizeof *g->merge_lengths);
    assert_true(g->tokens && g->token_lengths && g->types && g->scores && g->merges && g->merge_lengths);
    g->v.tokens = g->tokens;
    g->v.token_lengths = g->token_lengths;
    g->v.token_types = g->types;
    g->v.merges = g->merges;
    g->v.merge_lengths = g->merge_lengths;
    g->v.add_bos = g->v.add_eos = -1;
}

static void gguf_free(gguf_case *g) {
    free(g->tokens);
    free(g->token_lengths);
    free(g->types);
    free(g->scores);
    free(g->merges);
    free(g->merge_lengths);
    cria_text_deinit(&g->merge_text);
}

static void gguf_set(gguf_case *g, int64_t id, const char *text, size_t length, int32_t type) {
    assert_true(id >= 0 && (size_t)id < g->v.token_count);
    g->tokens[id] = text;
    g->token_lengths[id] = length;
    g->types[id] = type;
}

static void gguf_merges(gguf_case *g, const cria_json_value *merges) {
    size_t starts[4096], count = 0;
    for (const cria_json_value *m = cria_json_first(merges); m; m = cria_json_next(m)) {
        const cria_json_value *left = cria_json_first(m);
        assert_true(count < sizeof starts / sizeof *starts && left);
        starts[count] = g->merge_text.length;
        cria_text_puts(&g->merge_text, cria_json_text(left, NULL));
        cria_text_puts(&g->merge_text, " ");
        cria_text_puts(&g->merge_text, cria_json_text(cria_json_next(left), NULL));
        g->merge_lengths[count] = g->merge_text.length - starts[count];
        count++;
    }
    for (size_t i = 0; i < count; i++) g->merges[i] = g->merge_text.data + starts[i];
    g->v.merge_count = count;
}

/* The vocabulary and merges of tokenizer.json's model, with its special tokens as control tokens. */
static void gguf_from_model(gguf_case *g, const cria_json_value *model, const cria_json_value *added) {
    const cria_json_value *vocabulary = cria_json_get(model, "vocab"), *merges = cria_json_get(model, "merges");
    size_t size = cria_json_size(vocabulary);
    for (const cria_json_value *a = cria_json_first(added); a; a = cria_json_next(a)) {
        size_t id = (size_t)cria_json_number(cria_json_get(a, "id"));
        if (id >= size) size = id + 1;
    }
    gguf_allocate(g, size, cria_json_size(merges));
    for (const cria_json_value *t = cria_json_first(vocabulary); t; t = cria_json_next(t)) {
        gguf_set(g, (int64_t)cria_json_number(t), cria_json_key(t), strlen(cria_json_key(t)), 1);
    }
    for (const cria_json_value *a = cria_json_first(added); a; a = cria_json_next(a)) {
        size_t length = 0;
        const char *text = cria_json_text(cria_json_get(a, "content"), &length);
        gguf_set(g, (int64_t)cria_json_number(cria_json_get(a, "id")), text, length, 3);
    }
    gguf_merges(g, merges);
    g->v.model = "gpt2";
}

static void metadata_of_llama_3_agrees_with_tokenizer_json(void **context) {
    (void)context;
    cria_error err = {0};
    cria_json *json = NULL;
    cria_tokenizer *t = NULL;
    gguf_case g;
    assert_int_equal(cria_json_parse_file(DATA "llama3/tokenizer.json", 1 << 20, &json, &err), CRIA_OK);
    const cria_json_value *root = cria_json_root(json);
    gguf_from_model(&g, cria_json_get(root, "model"), cria_json_get(root, "added_tokens"));
    g.v.pre = "llama-bpe";
    for (size_t i = 0; i < g.v.token_count; i++) {
        if (strcmp(g.tokens[i], "<|begin_of_text|>") == 0) g.v.bos = (int32_t)i;
    }
    if (cria_tokenizer_from_gguf(&g.v, &t, &err) != CRIA_OK) fail_msg("%s", err.message);
    check_cases("llama-bpe", t, "llama3", false);
    cria_tokenizer_destroy(t);
    gguf_free(&g);
    cria_json_destroy(json);
}

static void metadata_with_scores_gives_the_ids_of_the_sentencepiece_library(void **context) {
    (void)context;
    cria_error err = {0};
    cria_json *json = NULL;
    cria_tokenizer *t = NULL;
    gguf_case g;
    size_t id = 0;
    assert_int_equal(cria_json_parse_file(DATA "scored/gguf.json", 1 << 20, &json, &err), CRIA_OK);
    const cria_json_value *root = cria_json_root(json);
    gguf_allocate(&g, cria_json_size(root), 0);
    for (const cria_json_value *p = cria_json_first(root); p; p = cria_json_next(p), id++) {
        const cria_json_value *text = cria_json_first(p), *type = cria_json_next(text);
        size_t length = 0;
        const char *bytes = cria_json_text(text, &length);
        gguf_set(&g, (int64_t)id, bytes, length, (int32_t)cria_json_number(type));
        g.scores[id] = (float)cria_json_number(cria_json_next(type));
    }
    g.v.model = "llama";
    g.v.scores = g.scores;
    g.v.unknown = 0;
    g.v.bos = 1;
    g.v.eos = 2;
    if (cria_tokenizer_from_gguf(&g.v, &t, &err) != CRIA_OK) fail_msg("%s", err.message);
    check_cases("llama", t, "scored", true);
    cria_tokenizer_destroy(t);
    gguf_free(&g);
    cria_json_destroy(json);
}

/* tokenizer.json as text: the shared model with a variant's own components. */
static void put_tokenizer(cria_text *out, const char *model, const char *variant) {
    cria_text_puts(out, "{\"model\":");
    cria_text_puts(out, model);
    cria_text_puts(out, ",");
    cria_text_puts(out, variant + 1);
}

static void check_variant(const cria_json_value *model, const cria_json_value *variant, const char *text, size_t line) {
    char where[40];
    cria_error err = {0};
    cria_json *json = NULL;
    cria_tokenizer *t = cria_tokenizer_create();
    snprintf(where, sizeof where, "variants.jsonl:%zu", line);
    assert_non_null(t);
    assert_int_equal(cria_json_parse(text, strlen(text), &json, &err), CRIA_OK);
    if (cria_tokenizer_read_json(t, cria_json_root(json), &err) != CRIA_OK ||
        cria_added_finish(t->added, t->normalizer, &err) != CRIA_OK) {
        fail_msg("%s: %s", where, err.message);
    }
    const cria_json_value *cases = cria_json_get(variant, "cases"), *pre = cria_json_get(variant, "gguf");
    for (const cria_json_value *c = cria_json_first(cases); c; c = cria_json_next(c)) check_case(where, t, c, false);
    cria_tokenizer_destroy(t);
    cria_json_destroy(json);
    if (!pre) return;
    gguf_case g;
    gguf_from_model(&g, model, NULL);
    g.v.pre = cria_json_text(pre, NULL);
    if (cria_tokenizer_from_gguf(&g.v, &t, &err) != CRIA_OK) fail_msg("%s: %s", where, err.message);
    for (const cria_json_value *c = cria_json_first(cases); c; c = cria_json_next(c)) check_case(where, t, c, false);
    cria_tokenizer_destroy(t);
    gguf_free(&g);
}

static void every_other_component_agrees_with_its_reference(void **context) {
    (void)context;
    json_lines lines;
    cria_mapping file = {0};
    cria_text model = {0};
    read_lines(DATA "variants.jsonl", &lines);
    assert_int_equal(cria_mapping_open(DATA "variants.jsonl", &file, NULL), CRIA_OK);
    const char *at = (const char *)file.data, *end = at + file.size;
    for (size_t i = 0; i < lines.count && at < end; i++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        cria_text line = {0}, whole = {0};
        cria_text_append(&line, at, (size_t)((newline ? newline : end) - at));
        if (i == 0) {
            cria_text_append(&model, line.data, line.length);
        } else {
            put_tokenizer(&whole, model.data, line.data);
            check_variant(cria_json_root(lines.lines[0]), cria_json_root(lines.lines[i]), whole.data, i + 1);
        }
        cria_text_deinit(&line);
        cria_text_deinit(&whole);
        at = newline ? newline + 1 : end;
    }
    assert_true(lines.count > 30);
    cria_text_deinit(&model);
    cria_mapping_close(&file);
    free_lines(&lines);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_opt_vocabulary_agrees_with_its_reference),
        cmocka_unit_test(a_llama_3_vocabulary_agrees_with_its_reference),
        cmocka_unit_test(a_smollm_vocabulary_with_many_kinds_of_added_tokens_agrees_with_its_reference),
        cmocka_unit_test(a_llama_2_vocabulary_with_byte_fallback_agrees_with_its_reference),
        cmocka_unit_test(a_unigram_model_agrees_with_the_sentencepiece_library),
        cmocka_unit_test(a_bpe_model_agrees_with_the_sentencepiece_library),
        cmocka_unit_test(metadata_of_llama_3_agrees_with_tokenizer_json),
        cmocka_unit_test(metadata_with_scores_gives_the_ids_of_the_sentencepiece_library),
        cmocka_unit_test(every_other_component_agrees_with_its_reference),
    };
    if (argc == 2) return filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
