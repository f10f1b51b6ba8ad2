/* Log-probabilities as JSON. */
#include "server/api/logprob.h"

#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double cria_logprob_finite(float logprob) {
    return logprob > -9999.0f ? (double)logprob : -9999.0;
}

static void comma(cria_text *out) {
    if (out->length) cria_text_append(out, ",", 1);
}

static void put_replaced(cria_text *out, const char *bytes, size_t length) {
    char small[768], *room = length <= sizeof small / 3 ? small : malloc(3 * length);
    if (!room) {
        out->failed = true;
        return;
    }
    cria_text_append(out, room, cria_utf8_replace(bytes, length, room));
    if (room != small) free(room);
}

/* A token's own bytes; for a special token those of its name. */
static void put_bytes(const cria_api *api, int32_t id, cria_text *out) {
    if (cria_tokenizer_is_special(api->model->tokenizer, id)) {
        size_t length;
        const char *entry = cria_tokenizer_entry(api->model->tokenizer, id, &length);
        if (entry) cria_text_append(out, entry, length);
    } else {
        cria_tokenizer_token_bytes(api->model->tokenizer, id, out);
    }
}

void cria_token_text(const cria_api *api, bool as_ids, const cria_text *incomplete, int32_t id, cria_text *out) {
    if (as_ids) {
        cria_text_printf(out, "token_id:%d", id);
        return;
    }
    cria_text bytes = {0};
    bool special = cria_tokenizer_is_special(api->model->tokenizer, id);
    if (!special && incomplete->length) cria_text_append(&bytes, incomplete->data, incomplete->length);
    put_bytes(api, id, &bytes);
    if (bytes.length) put_replaced(out, bytes.data, cria_utf8_complete_prefix(bytes.data, bytes.length));
    if (bytes.failed) out->failed = true;
    cria_text_deinit(&bytes);
}

void cria_token_advance(const cria_api *api, int32_t id, cria_text *incomplete) {
    if (cria_tokenizer_is_special(api->model->tokenizer, id)) {
        cria_text_clear(incomplete);
        return;
    }
    cria_tokenizer_token_bytes(api->model->tokenizer, id, incomplete);
    if (!incomplete->length) return;
    size_t whole = cria_utf8_complete_prefix(incomplete->data, incomplete->length);
    memmove(incomplete->data, incomplete->data + whole, incomplete->length - whole);
    incomplete->length -= whole;
}

static int top_count(cria_logprob_at at) {
    int count = at.event->logprobs[at.entry].top_count;
    if (count > at.event->top_stride) count = at.event->top_stride;
    return count < at.top ? count : at.top;
}

/* One key of a dictionary under construction. */
typedef struct {
    size_t begin, length; /* in `names` */
    double logprob;
} named;

static uint64_t hash_name(const char *bytes, size_t length) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < length; ++i) hash = (hash ^ (uint8_t)bytes[i]) * 1099511628211u;
    return hash ^ hash >> 29;
}

/* Adds the name that stands at the end of `names`, or drops it where it is there already and keeps the larger value. */
static void add_named(cria_text *names, size_t begin, double logprob, named *list, size_t *count, int32_t *table,
                      size_t mask) {
    size_t length = names->length - begin;
    const char *bytes = names->data ? names->data + begin : "";
    for (size_t slot = hash_name(bytes, length) & mask;; slot = (slot + 1) & mask) {
        if (table[slot] == 0) {
            list[*count] = (named){begin, length, logprob};
            table[slot] = (int32_t)++ * count;
            return;
        }
        named *seen = &list[table[slot] - 1];
        if (seen->length == length && (length == 0 || memcmp(names->data + seen->begin, bytes, length) == 0)) {
            if (logprob > seen->logprob) seen->logprob = logprob;
            names->length = begin;
            return;
        }
    }
}

/* {"name":logprob,...}: the token itself first, then the most likely ones. Two tokens may show as the same text: the
 * larger value stays, for clients look up the maximum. */
static void put_dictionary(const cria_api *api, bool as_ids, const cria_text *incomplete, cria_logprob_at at,
                           cria_text *out) {
    size_t entries = (size_t)top_count(at) + 1, slots = 4, count = 0;
    while (slots < 2 * entries) slots *= 2;
    named *list = calloc(entries, sizeof *list);
    int32_t *table = calloc(slots, sizeof *table);
    cria_text names = {0};
    if (!list || !table) {
        out->failed = true;
    } else {
        size_t base = (size_t)at.entry * (size_t)at.event->top_stride;
        for (size_t i = 0; i < entries; ++i) {
            size_t begin = names.length;
            int32_t id = i == 0 ? at.token : at.event->top_ids[base + i - 1];
            double logprob = cria_logprob_finite(i == 0 ? at.event->logprobs[at.entry].logprob
                                                        : at.event->top_logprobs[base + i - 1]);
            if (i && id == at.token) continue;
            cria_token_text(api, as_ids, incomplete, id, &names);
            add_named(&names, begin, logprob, list, &count, table, slots - 1);
        }
        cria_text_append(out, "{", 1);
        for (size_t i = 0; i < count; ++i) {
            if (i) cria_text_append(out, ",", 1);
            cria_text_json_string(out, names.data ? names.data + list[i].begin : "", list[i].length);
            cria_text_append(out, ":", 1);
            cria_text_json_number(out, list[i].logprob);
        }
        cria_text_append(out, "}", 1);
    }
    if (names.failed) out->failed = true;
    cria_text_deinit(&names);
    free(table);
    free(list);
}

static void put_token_string(const cria_api *api, bool as_ids, const cria_text *incomplete, int32_t id,
                             cria_text *out) {
    cria_text name = {0};
    cria_token_text(api, as_ids, incomplete, id, &name);
    cria_text_json_string(out, name.data ? name.data : "", name.length);
    if (name.failed) out->failed = true;
    cria_text_deinit(&name);
}

/* "token":...,"logprob":...,"bytes":[...] */
static void put_entry(const cria_api *api, bool as_ids, const cria_text *incomplete, int32_t id, float logprob,
                      cria_text *out) {
    cria_text_puts(out, "\"token\":");
    put_token_string(api, as_ids, incomplete, id, out);
    cria_text_puts(out, ",\"logprob\":");
    cria_text_json_number(out, cria_logprob_finite(logprob));
    cria_text_puts(out, ",\"bytes\":[");
    cria_text bytes = {0};
    put_bytes(api, id, &bytes);
    for (size_t i = 0; i < bytes.length; ++i) cria_text_printf(out, i ? ",%u" : "%u", (unsigned)(uint8_t)bytes.data[i]);
    cria_text_deinit(&bytes);
    cria_text_append(out, "]", 1);
}

static void put_chat_entry(const cria_api *api, bool as_ids, const cria_text *incomplete, cria_logprob_at at,
                           cria_text *out) {
    comma(out);
    cria_text_append(out, "{", 1);
    put_entry(api, as_ids, incomplete, at.token, at.event->logprobs[at.entry].logprob, out);
    cria_text_puts(out, ",\"top_logprobs\":[");
    size_t base = (size_t)at.entry * (size_t)at.event->top_stride;
    for (int i = 0; i < top_count(at); ++i) {
        cria_text_puts(out, i ? ",{" : "{");
        put_entry(api, as_ids, incomplete, at.event->top_ids[base + (size_t)i],
                  at.event->top_logprobs[base + (size_t)i], out);
        cria_text_append(out, "}", 1);
    }
    cria_text_puts(out, "]}");
}

void cria_logprob_add(const cria_api *api, const cria_params *params, const cria_text *incomplete, cria_logprob_at at,
                      size_t text_offset, bool chat, cria_logprob_lists *lists) {
    bool as_ids = params->token_ids_as_text;
    if (chat) {
        put_chat_entry(api, as_ids, incomplete, at, &lists->tokens);
        return;
    }
    comma(&lists->tokens);
    put_token_string(api, as_ids, incomplete, at.token, &lists->tokens);
    comma(&lists->offsets);
    cria_text_printf(&lists->offsets, "%zu", text_offset);
    comma(&lists->values);
    cria_text_json_number(&lists->values, cria_logprob_finite(at.event->logprobs[at.entry].logprob));
    comma(&lists->tops);
    put_dictionary(api, as_ids, incomplete, at, &lists->tops);
}

void cria_logprob_add_null(const cria_api *api, const cria_params *params, int32_t token, cria_logprob_lists *lists) {
    cria_text nothing = {0};
    put_token_string(api, params->token_ids_as_text, &nothing, token, &lists->tokens);
    cria_text_puts(&lists->offsets, "0");
    cria_text_puts(&lists->values, "null");
    cria_text_puts(&lists->tops, "null");
}

static void put_prompt_item(const cria_api *api, const cria_text *incomplete, int32_t id, float logprob, int rank,
                            cria_text *out) {
    cria_text_printf(out, "\"%d\":{\"logprob\":", id);
    cria_text_json_number(out, cria_logprob_finite(logprob));
    cria_text_printf(out, ",\"rank\":%d,\"decoded_token\":", rank);
    put_token_string(api, false, incomplete, id, out);
    cria_text_append(out, "}", 1);
}

void cria_logprob_prompt_entry(const cria_api *api, const cria_text *incomplete, cria_logprob_at at, cria_text *out) {
    comma(out);
    const cria_token_logprob *own = &at.event->logprobs[at.entry];
    cria_text_append(out, "{", 1);
    put_prompt_item(api, incomplete, at.token, own->logprob, own->rank, out);
    size_t base = (size_t)at.entry * (size_t)at.event->top_stride;
    for (int i = 0; i < top_count(at); ++i) {
        int32_t id = at.event->top_ids[base + (size_t)i];
        if (id == at.token) continue;
        cria_text_append(out, ",", 1);
        put_prompt_item(api, incomplete, id, at.event->top_logprobs[base + (size_t)i], i + 1, out);
    }
    cria_text_append(out, "}", 1);
}

static void put_list(cria_text *list, const char *name, cria_text *out) {
    cria_text_printf(out, "\"%s\":[", name);
    if (list->length) cria_text_append(out, list->data, list->length);
    cria_text_append(out, "]", 1);
    if (list->failed) out->failed = true;
    cria_text_clear(list);
}

void cria_logprob_write(cria_logprob_lists *lists, bool wanted, bool chat, cria_text *out) {
    if (!wanted) {
        cria_text_puts(out, "\"logprobs\":null");
        return;
    }
    cria_text_puts(out, "\"logprobs\":{");
    if (chat) {
        put_list(&lists->tokens, "content", out);
    } else {
        put_list(&lists->offsets, "text_offset", out);
        cria_text_append(out, ",", 1);
        put_list(&lists->values, "token_logprobs", out);
        cria_text_append(out, ",", 1);
        put_list(&lists->tokens, "tokens", out);
        cria_text_append(out, ",", 1);
        put_list(&lists->tops, "top_logprobs", out);
    }
    cria_text_append(out, "}", 1);
}
