/* Every vocabulary under tests/tokenizer/data gives the ids and texts that Hugging Face gave when the files were made.
 *
 * With a model's path as argument the program is a filter for tools/make_tokenizer_fixtures.py instead: it reads lines
 * of
 * {"text": ...} and answers each with {"ids": ..., "plain": ..., "decoded": ..., "skipped": ...} or {"error": ...}. */
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "server/model_tokenizer.h"
#include "tokenizer/tokenizer.h"

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

/* The ids with everything special, those with nothing special, and the text of the former with and without specials. */
static cria_status run(const cria_tokenizer *t, const char *text, size_t length, answer *a, cria_error *err) {
    cria_encode_options special = {.add_special = true, .parse_special = true}, plain = {0};
    CRIA_TRY(cria_tokenizer_encode(t, text, length, special, 0, &a->ids, err));
    CRIA_TRY(cria_tokenizer_encode(t, text, length, plain, 0, &a->plain, err));
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
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        cria_text out = {0};
        cria_json *json = NULL;
        size_t size = 0;
        answer a = {0};
        cria_status status = cria_json_parse(line, (size_t)length, &json, &err);
        if (status == CRIA_OK) {
            const char *text = cria_json_text(cria_json_get(cria_json_root(json), "text"), &size);
            status = run(tokenizer, text, size, &a, &err);
        }
        if (status == CRIA_OK) {
            put_answer(&out, &a);
        } else {
            cria_text_puts(&out, "{\"error\":");
            cria_text_json_string(&out, err.message, strlen(err.message));
            cria_text_puts(&out, "}\n");
        }
        fwrite(out.data, 1, out.length, stdout);
        fflush(stdout);
        answer_deinit(&a);
        cria_text_deinit(&out);
        cria_json_destroy(json);
    }
    free(line);
    cria_tokenizer_destroy(tokenizer);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2) return filter(argv[1]);
    return 0;
}
