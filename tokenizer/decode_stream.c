/* Running a decoder: text and ends of tokens pass from stage to stage, each of which keeps what it cannot decide yet.
 */
#include "tokenizer/decoder.h"

#include "base/utf8.h"
#include "tokenizer/bytes.h"
#include "tokenizer/decoder_stages.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    cria_text held;  /* text of the current token, or of several, that waits for what follows */
    cria_text bytes; /* byte-fallback: the run of bytes */
    size_t tokens;   /* tokens ended so far */
    int64_t count;   /* Strip: taken off the front */
    int64_t tail;    /* Strip: characters held back at the end */
    bool inside;     /* the current token has begun */
    bool begun;      /* Strip: past the front; SentencePiece: some text was put out or the first space was dropped */
} state;

struct cria_decode_stream {
    const cria_decoder *decoder;
    cria_text *out; /* of the call in progress */
    state states[CRIA_MAX_STAGES];
};

/* Gives text of the current token, or the token's end, to a stage. */
static void put(cria_decode_stream *stream, size_t stage, const char *text, size_t length);
static void end(cria_decode_stream *stream, size_t stage);

cria_decode_stream *cria_decode_stream_create(const cria_decoder *decoder) {
    cria_decode_stream *stream = calloc(1, sizeof *stream);
    if (stream) stream->decoder = decoder;
    return stream;
}

void cria_decode_stream_destroy(cria_decode_stream *stream) {
    if (!stream) return;
    for (size_t i = 0; i < CRIA_MAX_STAGES; i++) {
        cria_text_deinit(&stream->states[i].held);
        cria_text_deinit(&stream->states[i].bytes);
    }
    free(stream);
}

static void keep(cria_decode_stream *stream, cria_text *held, const char *text, size_t length) {
    cria_text_append(held, text, length);
    if (held->failed) stream->out->failed = true;
}

static void put_replacement(cria_decode_stream *stream, size_t next) {
    put(stream, next, CRIA_REPLACEMENT, sizeof CRIA_REPLACEMENT - 1);
}

/* A space before every token but the first. */
static void begin_joined(cria_decode_stream *stream, size_t i) {
    state *st = &stream->states[i];
    if (!st->inside && st->tokens > 0) put(stream, i + 1, " ", 1);
    st->inside = true;
}

/* Puts out the held bytes up to an incomplete code point, or all of them. */
static void flush_bytes(cria_decode_stream *stream, size_t i, bool all) {
    cria_text *bytes = &stream->states[i].bytes;
    if (!bytes->length) return;
    size_t length = all ? bytes->length : cria_utf8_complete_prefix(bytes->data, bytes->length);
    char buffer[192];
    for (size_t done = 0; done < length;) {
        size_t n = length - done < 64 ? length - done : 64;
        /* A cut must not fall inside a code point, or its halves would be replaced separately. */
        if (done + n < length) n = cria_utf8_complete_prefix(bytes->data + done, n);
        put(stream, i + 1, buffer, cria_utf8_replace(bytes->data + done, n, buffer));
        done += n;
    }
    memmove(bytes->data, bytes->data + length, bytes->length - length);
    bytes->length -= length;
}

static void end_byte_level(cria_decode_stream *stream, size_t i) {
    state *st = &stream->states[i];
    cria_bytes_unmap(st->held.data ? st->held.data : "", st->held.length, &st->bytes);
    if (st->bytes.failed) stream->out->failed = true;
    cria_text_clear(&st->held);
    flush_bytes(stream, i, false);
}

/* The run of byte tokens is over: characters if it is valid as a whole, else one U+FFFD for each. */
static void flush_run(cria_decode_stream *stream, size_t i) {
    cria_text *run = &stream->states[i].bytes;
    if (!run->length) return;
    if (cria_utf8_valid(run->data, run->length)) {
        put(stream, i + 1, run->data, run->length);
        end(stream, i + 1);
    } else {
        for (size_t k = 0; k < run->length; k++) {
            put_replacement(stream, i + 1);
            end(stream, i + 1);
        }
    }
    cria_text_clear(run);
}

static void end_byte_fallback(cria_decode_stream *stream, size_t i) {
    state *st = &stream->states[i];
    const char *token = st->held.data ? st->held.data : "";
    int byte = cria_byte_fallback_value(token, st->held.length);
    if (byte >= 0) {
        char c = (char)byte;
        keep(stream, &st->bytes, &c, 1);
    } else {
        flush_run(stream, i);
        put(stream, i + 1, token, st->held.length);
        end(stream, i + 1);
    }
    cria_text_clear(&st->held);
}

/* The length of the longest suffix of the text that begins the pattern without being all of it. */
static size_t pattern_begun(const cria_stage *s, const char *text, size_t length) {
    size_t n = s->pattern_length - 1 < length ? s->pattern_length - 1 : length;
    while (n > 0 && memcmp(text + length - n, s->pattern, n) != 0) n--;
    return n;
}

static void put_replace(cria_decode_stream *stream, size_t i, const char *text, size_t length) {
    const cria_stage *s = &stream->decoder->stages[i];
    cria_text *held = &stream->states[i].held;
    keep(stream, held, text, length);
    if (s->regex || held->failed) return; /* never after fusing: the token ends with this call's caller */
    size_t done = 0;
    for (;;) {
        const char *at = memmem(held->data + done, held->length - done, s->pattern, s->pattern_length);
        if (!at) break;
        put(stream, i + 1, held->data + done, (size_t)(at - held->data) - done);
        put(stream, i + 1, s->content, s->content_length);
        done = (size_t)(at - held->data) + s->pattern_length;
    }
    size_t rest = pattern_begun(s, held->data + done, held->length - done);
    put(stream, i + 1, held->data + done, held->length - done - rest);
    memmove(held->data, held->data + held->length - rest, rest);
    held->length = rest;
}

static void end_replace(cria_decode_stream *stream, size_t i) {
    const cria_stage *s = &stream->decoder->stages[i];
    cria_text *held = &stream->states[i].held;
    if (s->regex) {
        cria_text replaced = {0};
        cria_stage_replace(s, held->data ? held->data : "", held->length, &replaced);
        if (replaced.failed) stream->out->failed = true;
        put(stream, i + 1, replaced.data, replaced.length);
        cria_text_deinit(&replaced);
    } else {
        put(stream, i + 1, held->data, held->length);
    }
    cria_text_clear(held);
    end(stream, i + 1);
}

static size_t character(const char *text, size_t length) {
    uint32_t cp = 0;
    int n = cria_utf8_decode(text, length, &cp);
    return n > 0 ? (size_t)n : 1;
}

static void put_strip(cria_decode_stream *stream, size_t i, const char *text, size_t length) {
    const cria_stage *s = &stream->decoder->stages[i];
    state *st = &stream->states[i];
    for (size_t at = 0, n; at < length; at += n) {
        n = character(text + at, length - at);
        bool same = n == s->pattern_length && memcmp(text + at, s->pattern, n) == 0;
        if (same && !st->begun && st->count < s->start) {
            st->count++;
            continue;
        }
        st->begun = true;
        if (same && st->tail < s->stop) {
            st->tail++;
        } else if (same && s->stop > 0) {
            put(stream, i + 1, text + at, n); /* one more is held already: this is the oldest of them */
        } else {
            for (; st->tail > 0; st->tail--) put(stream, i + 1, s->pattern, s->pattern_length);
            put(stream, i + 1, text + at, n);
        }
    }
}

static void put_metaspace(cria_decode_stream *stream, size_t i, const char *text, size_t length) {
    const cria_stage *s = &stream->decoder->stages[i];
    for (size_t at = 0, n; at < length; at += n) {
        n = character(text + at, length - at);
        if (n != s->pattern_length || memcmp(text + at, s->pattern, n) != 0) {
            put(stream, i + 1, text + at, n);
        } else if (!s->drop_first || stream->states[i].tokens > 0) {
            put(stream, i + 1, " ", 1);
        }
    }
}

/* SentencePiece decodes the characters of a run of bytes one by one, so whole ones need not wait for the run's end. */
static void decode_run(cria_decode_stream *stream, size_t i, bool all) {
    state *st = &stream->states[i];
    size_t done = 0;
    while (done < st->bytes.length) {
        uint32_t cp = 0;
        int n = cria_utf8_decode(st->bytes.data + done, st->bytes.length - done, &cp);
        if (n < 0 && !all) break;
        st->begun = true;
        if (n > 0) {
            put(stream, i + 1, st->bytes.data + done, (size_t)n);
        } else {
            put_replacement(stream, i + 1);
        }
        done += n > 0 ? (size_t)n : 1;
    }
    if (done) memmove(st->bytes.data, st->bytes.data + done, st->bytes.length - done);
    st->bytes.length -= done;
}

static void end_sentencepiece(cria_decode_stream *stream, size_t i) {
    static const size_t space = sizeof CRIA_LOWER_BLOCK - 1;
    const cria_stage *s = &stream->decoder->stages[i];
    state *st = &stream->states[i];
    const char *token = st->held.data ? st->held.data : "";
    size_t length = st->held.length;
    int byte = cria_byte_fallback_value(token, length);
    if (byte >= 0) {
        char c = (char)byte;
        keep(stream, &st->bytes, &c, 1);
        decode_run(stream, i, false);
    } else {
        decode_run(stream, i, true);
        if (!st->begun && s->drop_first && length >= space && memcmp(token, CRIA_LOWER_BLOCK, space) == 0) {
            token += space;
            length -= space;
            if (!s->drop_more) st->begun = true;
        }
        if (length) st->begun = true;
        for (size_t at = 0, n; at < length; at += n) {
            n = character(token + at, length - at);
            bool is_space = n == space && memcmp(token + at, CRIA_LOWER_BLOCK, space) == 0;
            put(stream, i + 1, is_space ? " " : token + at, is_space ? 1 : n);
        }
    }
    cria_text_clear(&st->held);
}

static void put(cria_decode_stream *stream, size_t i, const char *text, size_t length) {
    if (!length) return;
    if (i == stream->decoder->count) {
        cria_text_append(stream->out, text, length);
        return;
    }
    switch (stream->decoder->stages[i].kind) {
    case CRIA_STAGE_JOIN:
        begin_joined(stream, i);
        put(stream, i + 1, text, length);
        break;
    case CRIA_STAGE_BYTE_LEVEL:
    case CRIA_STAGE_BYTE_FALLBACK:
    case CRIA_STAGE_SENTENCEPIECE:
        keep(stream, &stream->states[i].held, text, length);
        break;
    case CRIA_STAGE_FUSE:
        put(stream, i + 1, text, length);
        break;
    case CRIA_STAGE_REPLACE:
        put_replace(stream, i, text, length);
        break;
    case CRIA_STAGE_STRIP:
        put_strip(stream, i, text, length);
        break;
    case CRIA_STAGE_METASPACE:
        put_metaspace(stream, i, text, length);
        break;
    }
}

static void end(cria_decode_stream *stream, size_t i) {
    if (i == stream->decoder->count) return;
    state *st = &stream->states[i];
    switch (stream->decoder->stages[i].kind) {
    case CRIA_STAGE_JOIN:
        begin_joined(stream, i);
        st->inside = false;
        end(stream, i + 1);
        break;
    case CRIA_STAGE_BYTE_LEVEL:
        end_byte_level(stream, i);
        break;
    case CRIA_STAGE_BYTE_FALLBACK:
        end_byte_fallback(stream, i);
        break;
    case CRIA_STAGE_SENTENCEPIECE:
        end_sentencepiece(stream, i);
        break;
    case CRIA_STAGE_FUSE:
        break;
    case CRIA_STAGE_REPLACE:
        end_replace(stream, i);
        break;
    case CRIA_STAGE_STRIP:
        st->count = st->tail = 0;
        st->begun = false;
        end(stream, i + 1);
        break;
    case CRIA_STAGE_METASPACE:
        end(stream, i + 1);
        break;
    }
    st->tokens++;
}

/* No more tokens will come to a stage: what it kept goes on, and where it made one token of many, that one ends. */
static void finish(cria_decode_stream *stream, size_t i) {
    switch (stream->decoder->stages[i].kind) {
    case CRIA_STAGE_BYTE_LEVEL:
        flush_bytes(stream, i, true);
        end(stream, i + 1);
        break;
    case CRIA_STAGE_BYTE_FALLBACK:
        flush_run(stream, i);
        break;
    case CRIA_STAGE_SENTENCEPIECE:
        decode_run(stream, i, true);
        end(stream, i + 1);
        break;
    case CRIA_STAGE_FUSE:
        end(stream, i + 1);
        break;
    default:
        break;
    }
}

void cria_decode_stream_push(cria_decode_stream *stream, const char *token, size_t length, cria_text *out) {
    stream->out = out;
    put(stream, 0, token, length);
    end(stream, 0);
}

void cria_decode_stream_forget(cria_decode_stream *stream) {
    for (size_t i = 0; i < stream->decoder->count; i++) {
        cria_text *bytes = &stream->states[i].bytes;
        if (!bytes->length) continue;
        size_t whole = cria_utf8_complete_prefix(bytes->data, bytes->length);
        memmove(bytes->data, bytes->data + whole, bytes->length - whole);
        bytes->length -= whole;
    }
}

void cria_decode_stream_finish(cria_decode_stream *stream, cria_text *out) {
    stream->out = out;
    for (size_t i = 0; i < stream->decoder->count; i++) finish(stream, i);
}
