/* The public tokenizer: encoding, decoding and lookups over the parts that the readers put together. */
#include "tokenizer/tokenizer.h"

#include "base/utf8.h"
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

cria_tokenizer *cria_tokenizer_create(void) {
    cria_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return NULL;
    tokenizer->bos = tokenizer->eos = -1;
    tokenizer->vocabulary = cria_vocabulary_create();
    tokenizer->added = cria_added_create();
    if (!tokenizer->vocabulary || !tokenizer->added) {
        cria_tokenizer_destroy(tokenizer);
        return NULL;
    }
    return tokenizer;
}

void cria_tokenizer_destroy(cria_tokenizer *tokenizer) {
    if (!tokenizer) return;
    cria_vocabulary_destroy(tokenizer->vocabulary);
    cria_added_destroy(tokenizer->added);
    cria_normalizer_destroy(tokenizer->normalizer);
    cria_pretokenizer_destroy(tokenizer->pretokenizer);
    cria_bpe_destroy(tokenizer->bpe);
    cria_sentencepiece_destroy(tokenizer->sentencepiece);
    cria_template_deinit(&tokenizer->post);
    cria_decoder_destroy(tokenizer->decoder);
    free(tokenizer->chat_template);
    free(tokenizer->config_json);
    free(tokenizer);
}

/* Everything one call of encode needs besides the tokenizer. */
typedef struct {
    const cria_tokenizer *tokenizer;
    cria_encode_options options;
    size_t first_id, max_ids; /* where this call's ids begin in `out`, and how many there may be (0: no limit) */
    cria_ids *out;
    cria_pieces plain, normalized;
    cria_text text; /* normalized text of one piece */
    cria_pretokenizer_workspace split;
    cria_bpe_workspace bpe;
} encoding;

static cria_status check_count(const encoding *e, cria_error *err) {
    if (e->max_ids && e->out->count - e->first_id > e->max_ids) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the text has more than %zu tokens", e->max_ids);
    }
    return CRIA_OK;
}

static cria_status push_ids(encoding *e, const int32_t *ids, size_t count, cria_error *err) {
    if (!cria_ids_append(e->out, ids, count)) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the ids");
    return check_count(e, err);
}

static bool sink_ids(void *context, const int32_t *ids, size_t count) {
    return cria_ids_append(context, ids, count);
}

static cria_status encode_sentencepiece(encoding *e, const char *text, cria_piece piece, cria_error *err) {
    bool prefix = piece.first || e->tokenizer->prefix_every_piece;
    if (!cria_sentencepiece_encode(e->tokenizer->sentencepiece, prefix, text + piece.start, piece.length, sink_ids,
                                   e->out)) {
        return cria_fail(err, CRIA_ERR_MEMORY, "SentencePiece could not encode %zu bytes", piece.length);
    }
    return check_count(e, err);
}

/* A piece of normalized text without added tokens: split, then each part through the merges. */
static cria_status encode_text(encoding *e, const char *text, cria_piece piece, cria_error *err) {
    const cria_tokenizer *t = e->tokenizer;
    if (t->sentencepiece) return encode_sentencepiece(e, text, piece, err);
    if (!t->pretokenizer) {
        CRIA_TRY(cria_bpe_encode(t->bpe, &e->bpe, text + piece.start, piece.length, e->out, err));
        return check_count(e, err);
    }
    cria_text_clear(&e->split.text);
    cria_text_append(&e->split.text, text + piece.start, piece.length);
    cria_pieces_clear(&e->split.pieces);
    cria_pieces_push(&e->split.pieces, (cria_piece){0, piece.length, -1, piece.first});
    if (e->split.text.failed || e->split.pieces.failed) {
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory to split %zu bytes", piece.length);
    }
    CRIA_TRY(cria_pretokenizer_run(t->pretokenizer, &e->split, err));
    for (size_t i = 0; i < e->split.pieces.count; i++) {
        cria_piece part = e->split.pieces.items[i];
        CRIA_TRY(cria_bpe_encode(t->bpe, &e->bpe, e->split.text.data + part.start, part.length, e->out, err));
        CRIA_TRY(check_count(e, err));
    }
    return CRIA_OK;
}

/* A piece between the tokens that are looked for in the text as it came: normalize, then look for the others. */
static cria_status encode_piece(encoding *e, const char *text, cria_piece piece, cria_error *err) {
    const cria_tokenizer *t = e->tokenizer;
    cria_text_clear(&e->text);
    if (t->normalizer) {
        CRIA_TRY(cria_normalizer_run(t->normalizer, text + piece.start, piece.length, &e->text, err));
        text = e->text.data ? e->text.data : "";
        piece.start = 0;
        piece.length = e->text.length;
    }
    cria_pieces_clear(&e->normalized);
    cria_added_split(t->added, true, e->options.parse_special, text, piece, &e->normalized);
    if (e->normalized.failed || e->text.failed) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to split a text");
    for (size_t i = 0; i < e->normalized.count; i++) {
        cria_piece part = e->normalized.items[i];
        if (part.id >= 0) {
            CRIA_TRY(push_ids(e, &part.id, 1, err));
        } else {
            CRIA_TRY(encode_text(e, text, part, err));
        }
    }
    return CRIA_OK;
}

static cria_status encode_all(encoding *e, const char *text, size_t length, cria_error *err) {
    const cria_tokenizer *t = e->tokenizer;
    if (e->options.add_special) CRIA_TRY(push_ids(e, t->post.prefix.ids, t->post.prefix.count, err));
    cria_added_split(t->added, false, e->options.parse_special, text, (cria_piece){0, length, -1, true}, &e->plain);
    if (e->plain.failed) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to split a text");
    for (size_t i = 0; i < e->plain.count; i++) {
        cria_piece piece = e->plain.items[i];
        if (piece.id >= 0) {
            CRIA_TRY(push_ids(e, &piece.id, 1, err));
        } else {
            CRIA_TRY(encode_piece(e, text, piece, err));
        }
    }
    return e->options.add_special ? push_ids(e, t->post.suffix.ids, t->post.suffix.count, err) : CRIA_OK;
}

/* The offset of the first byte that does not belong to valid UTF-8. */
static size_t first_invalid(const char *text, size_t length) {
    size_t at = 0;
    while (at < length) {
        uint32_t cp = 0;
        int n = cria_utf8_decode(text + at, length - at, &cp);
        if (n <= 0) break;
        at += (size_t)n;
    }
    return at;
}

cria_status cria_tokenizer_encode(const cria_tokenizer *tokenizer, const char *text, size_t length,
                                  cria_encode_options options, size_t max_ids, cria_ids *out, cria_error *err) {
    if (!cria_utf8_valid(text, length)) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the text is not valid UTF-8 at byte %zu",
                         first_invalid(text, length));
    }
    encoding e = {.tokenizer = tokenizer, .options = options, .first_id = out->count, .max_ids = max_ids, .out = out};
    cria_status status = encode_all(&e, text, length, err);
    if (status != CRIA_OK) out->count = e.first_id;
    cria_pieces_deinit(&e.plain);
    cria_pieces_deinit(&e.normalized);
    cria_text_deinit(&e.text);
    cria_pretokenizer_workspace_deinit(&e.split);
    cria_bpe_workspace_deinit(&e.bpe);
    return status;
}

size_t cria_tokenizer_size(const cria_tokenizer *tokenizer) {
    size_t model = cria_vocabulary_size(tokenizer->vocabulary);
    size_t added = cria_vocabulary_size(cria_added_vocabulary(tokenizer->added));
    return model > added ? model : added;
}

const char *cria_tokenizer_entry(const cria_tokenizer *tokenizer, int32_t id, size_t *length) {
    const char *entry = cria_vocabulary_entry(cria_added_vocabulary(tokenizer->added), id, length);
    return entry ? entry : cria_vocabulary_entry(tokenizer->vocabulary, id, length);
}

int32_t cria_tokenizer_find(const cria_tokenizer *tokenizer, const char *entry, size_t length) {
    int32_t id = cria_vocabulary_find(cria_added_vocabulary(tokenizer->added), entry, length);
    return id >= 0 ? id : cria_vocabulary_find(tokenizer->vocabulary, entry, length);
}

bool cria_tokenizer_is_special(const cria_tokenizer *tokenizer, int32_t id) {
    cria_added_flags flags;
    return cria_added_find(tokenizer->added, id, &flags) && flags.special;
}

int32_t cria_tokenizer_bos(const cria_tokenizer *tokenizer) {
    return tokenizer->bos;
}

int32_t cria_tokenizer_eos(const cria_tokenizer *tokenizer) {
    return tokenizer->eos;
}

const char *cria_tokenizer_chat_template(const cria_tokenizer *tokenizer) {
    return tokenizer->chat_template;
}

const char *cria_tokenizer_config_json(const cria_tokenizer *tokenizer) {
    return tokenizer->config_json;
}

void cria_tokenizer_token_bytes(const cria_tokenizer *tokenizer, int32_t id, cria_text *out) {
    size_t length = 0;
    const char *entry = cria_added_text(tokenizer->added, id, &length);
    if (!entry) entry = cria_vocabulary_entry(tokenizer->vocabulary, id, &length);
    if (entry) cria_decoder_token_bytes(tokenizer->decoder, entry, length, out);
}

static cria_status parse_text(const char *json, cria_json **out, cria_error *err) {
    return cria_json_parse(json, strlen(json), out, err);
}

cria_status cria_tokenizer_set_pretokenizer(cria_tokenizer *tokenizer, const char *json, cria_error *err) {
    cria_json *parsed = NULL;
    CRIA_TRY(parse_text(json, &parsed, err));
    cria_status status = cria_pretokenizer_parse(cria_json_root(parsed), &tokenizer->pretokenizer, err);
    cria_json_destroy(parsed);
    return status;
}

cria_status cria_tokenizer_set_normalizer(cria_tokenizer *tokenizer, const char *json, cria_error *err) {
    cria_json *parsed = NULL;
    CRIA_TRY(parse_text(json, &parsed, err));
    cria_status status = cria_normalizer_parse(cria_json_root(parsed), &tokenizer->normalizer, err);
    cria_json_destroy(parsed);
    return status;
}

cria_status cria_tokenizer_set_decoder(cria_tokenizer *tokenizer, const char *json, cria_error *err) {
    cria_json *parsed = NULL;
    CRIA_TRY(parse_text(json, &parsed, err));
    cria_status status = cria_decoder_parse(cria_json_root(parsed), &tokenizer->decoder, err);
    cria_json_destroy(parsed);
    return status;
}

cria_status cria_tokenizer_set_template(cria_tokenizer *tokenizer, bool add_bos, bool add_eos, cria_error *err) {
    cria_template_deinit(&tokenizer->post);
    bool ok = true;
    if (add_bos && tokenizer->bos >= 0) ok = cria_ids_push(&tokenizer->post.prefix, tokenizer->bos);
    if (add_eos && tokenizer->eos >= 0) ok = ok && cria_ids_push(&tokenizer->post.suffix, tokenizer->eos);
    return ok ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the special tokens of a text");
}
