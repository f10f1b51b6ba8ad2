/* A tokenizer of single bytes and a few special tokens, in place of the real one: every function of tokenizer.h stands
 * here, so that what the server makes of ids can be told exactly, halves of code points included. One program each. */
#ifndef CRIA_TESTS_HTTP_TOY_TOKENIZER_H
#define CRIA_TESTS_HTTP_TOY_TOKENIZER_H

#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* 0 .. 255 are bytes; 260 and 261 both show as "zz". */
enum { TOY_BOS = 256, TOY_EOS = 257, TOY_START = 258, TOY_END = 259, TOY_ZZ = 260, TOY_ZZ_TOO = 261, TOY_VOCAB = 262 };

struct cria_tokenizer {
    const char *chat_template;
    atomic_int *encoded; /* counts calls; may be NULL */
};

static const char *const toy_entries[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "zz", "zz"};

void cria_ids_deinit(cria_ids *ids) {
    free(ids->ids);
    *ids = (cria_ids){0};
}

static void toy_push(cria_ids *ids, int32_t id) {
    if (ids->count == ids->capacity) {
        ids->capacity = ids->capacity ? 2 * ids->capacity : 16;
        ids->ids = realloc(ids->ids, ids->capacity * sizeof *ids->ids);
    }
    ids->ids[ids->count++] = id;
}

cria_status cria_tokenizer_encode(const cria_tokenizer *tokenizer, const char *text, size_t length,
                                  cria_encode_options options, size_t max_ids, cria_ids *out, cria_error *err) {
    if (tokenizer->encoded) atomic_fetch_add(tokenizer->encoded, 1);
    if (!cria_utf8_valid(text, length)) return cria_fail(err, CRIA_ERR_ARGUMENT, "the text is not valid UTF-8");
    if (options.add_special) toy_push(out, TOY_BOS);
    for (size_t i = 0; i < length;) {
        int special = -1;
        for (int s = 0; s < 4 && options.parse_special; ++s) {
            size_t size = strlen(toy_entries[s]);
            if (length - i >= size && memcmp(text + i, toy_entries[s], size) == 0) special = s;
        }
        toy_push(out, special < 0 ? (int32_t)(uint8_t)text[i] : TOY_BOS + special);
        i += special < 0 ? 1 : strlen(toy_entries[special]);
    }
    if (max_ids && out->count > max_ids) return cria_fail(err, CRIA_ERR_ARGUMENT, "too many tokens");
    return CRIA_OK;
}

bool cria_tokenizer_is_special(const cria_tokenizer *tokenizer, int32_t id) {
    (void)tokenizer;
    return id >= TOY_BOS && id <= TOY_END;
}

void cria_tokenizer_token_bytes(const cria_tokenizer *tokenizer, int32_t id, cria_text *out) {
    (void)tokenizer;
    char byte = (char)id;
    if (id < 256) {
        cria_text_append(out, &byte, 1);
    } else if (id < TOY_VOCAB) {
        cria_text_puts(out, toy_entries[id - 256]);
    }
}

struct cria_detokenizer {
    const cria_tokenizer *tokenizer;
    bool skip_special;
    cria_text bytes;
};

cria_detokenizer *cria_detokenizer_create(const cria_tokenizer *tokenizer, bool skip_special,
                                          const int32_t *context_ids, size_t context_count) {
    (void)context_ids;
    (void)context_count;
    cria_detokenizer *d = calloc(1, sizeof *d);
    d->tokenizer = tokenizer;
    d->skip_special = skip_special;
    return d;
}

void cria_detokenizer_destroy(cria_detokenizer *detokenizer) {
    if (!detokenizer) return;
    cria_text_deinit(&detokenizer->bytes);
    free(detokenizer);
}

static void toy_replace(const char *bytes, size_t length, cria_text *out) {
    char *room = malloc(3 * length + 1);
    cria_text_append(out, room, cria_utf8_replace(bytes, length, room));
    free(room);
}

cria_status cria_detokenizer_push(cria_detokenizer *detokenizer, int32_t id, cria_text *out, cria_error *err) {
    cria_detokenizer *d = detokenizer;
    if (id < 0 || id >= TOY_VOCAB) return cria_fail(err, CRIA_ERR_ARGUMENT, "id %d", id);
    if (d->skip_special && cria_tokenizer_is_special(d->tokenizer, id)) return CRIA_OK;
    cria_tokenizer_token_bytes(d->tokenizer, id, &d->bytes);
    size_t whole = cria_utf8_complete_prefix(d->bytes.data, d->bytes.length);
    toy_replace(d->bytes.data, whole, out);
    memmove(d->bytes.data, d->bytes.data + whole, d->bytes.length - whole);
    d->bytes.length -= whole;
    return CRIA_OK;
}

void cria_detokenizer_finish(cria_detokenizer *detokenizer, cria_text *out) {
    if (detokenizer->bytes.length) toy_replace(detokenizer->bytes.data, detokenizer->bytes.length, out);
    cria_text_clear(&detokenizer->bytes);
}

cria_status cria_tokenizer_decode(const cria_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                  cria_text *out, cria_error *err) {
    cria_detokenizer *d = cria_detokenizer_create(tokenizer, skip_special, NULL, 0);
    cria_status status = CRIA_OK;
    for (size_t i = 0; i < count && status == CRIA_OK; ++i) status = cria_detokenizer_push(d, ids[i], out, err);
    cria_detokenizer_finish(d, out);
    cria_detokenizer_destroy(d);
    return status;
}

size_t cria_tokenizer_size(const cria_tokenizer *tokenizer) {
    (void)tokenizer;
    return TOY_VOCAB;
}

const char *cria_tokenizer_entry(const cria_tokenizer *tokenizer, int32_t id, size_t *length) {
    (void)tokenizer;
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    if (id >= 256 && id < TOY_VOCAB) {
        *length = strlen(toy_entries[id - 256]);
        return toy_entries[id - 256];
    }
    if (id < 'a' || id > 'z') return NULL;
    *length = 1;
    return letters + (id - 'a');
}

int32_t cria_tokenizer_find(const cria_tokenizer *tokenizer, const char *entry, size_t length) {
    (void)tokenizer;
    for (int s = 0; s < 4; ++s) {
        if (strlen(toy_entries[s]) == length && memcmp(entry, toy_entries[s], length) == 0) return TOY_BOS + s;
    }
    return -1;
}

int32_t cria_tokenizer_bos(const cria_tokenizer *tokenizer) {
    (void)tokenizer;
    return TOY_BOS;
}

int32_t cria_tokenizer_eos(const cria_tokenizer *tokenizer) {
    (void)tokenizer;
    return TOY_EOS;
}

const char *cria_tokenizer_chat_template(const cria_tokenizer *tokenizer) {
    return tokenizer->chat_template;
}

const char *cria_tokenizer_config_json(const cria_tokenizer *tokenizer) {
    (void)tokenizer;
    return NULL;
}

cria_status cria_tokenizer_open(const char *folder, cria_tokenizer **out, cria_error *err) {
    (void)folder;
    (void)out;
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "toy");
}

cria_status cria_tokenizer_from_gguf(const cria_gguf_vocabulary *vocabulary, cria_tokenizer **out, cria_error *err) {
    (void)vocabulary;
    (void)out;
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "toy");
}

void cria_tokenizer_destroy(cria_tokenizer *tokenizer) {
    (void)tokenizer;
}

#endif
