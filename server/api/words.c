/* Reading stop strings, logit_bias and bad_words. */
#include "server/api/words.h"

#include "server/api/field.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BIASES = 1024, MAX_BAD_WORDS = 256, MAX_BAD_BYTES = 1024 };

static cria_status not_a_string(const cria_json_value *value, const char *location, cria_api_error *err) {
    char input[80];
    cria_field_describe(value, input, sizeof input);
    return cria_api_fail_type(err, location, "string_type", "Input should be a valid string", input);
}

static cria_status too_many_stops(const cria_api *api, size_t count, cria_api_error *err) {
    char message[96], input[48];
    snprintf(message, sizeof message, "List should have at most %lld items after validation, not %zu",
             (long long)api->config->max_stop_strings, count);
    snprintf(input, sizeof input, "<list of %zu items>", count);
    return cria_api_fail_type(err, "body.stop", "too_long", message, input);
}

cria_status cria_words_read_stops(const cria_api *api, const cria_json_value *body, cria_params *p,
                                  cria_api_error *err) {
    const cria_json_value *stop = cria_json_get(body, "stop");
    bool one = cria_json_type_of(stop) == CRIA_JSON_STRING;
    if (!stop) return CRIA_OK;
    if (!one && cria_json_type_of(stop) != CRIA_JSON_ARRAY) return not_a_string(stop, "body.stop", err);
    size_t count = one ? 1 : cria_json_size(stop);
    if (count > (size_t)api->config->max_stop_strings) return too_many_stops(api, count, err);
    if (!count) return CRIA_OK;
    const char **strings = calloc(count, sizeof *strings);
    size_t *lengths = calloc(count, sizeof *lengths), total = 0, n = 0;
    cria_status status = CRIA_OK;
    if (!strings || !lengths) status = cria_api_fail_status(err, 500, NULL, "out of memory");
    for (const cria_json_value *v = one ? stop : cria_json_first(stop); v && n < count && status == CRIA_OK;
         v = cria_json_next(v), ++n) {
        char location[48];
        snprintf(location, sizeof location, "body.stop.%zu", n);
        if (cria_json_type_of(v) != CRIA_JSON_STRING) {
            status = not_a_string(v, location, err);
            break;
        }
        strings[n] = cria_json_text(v, &lengths[n]);
        total += lengths[n];
        if (!lengths[n]) status = cria_api_fail(err, NULL, "stop cannot contain an empty string.");
        if (total > (size_t)api->config->max_stop_bytes) {
            status = cria_api_fail(err, "stop", "stop strings have more than %lld bytes together",
                                   (long long)api->config->max_stop_bytes);
        }
        if (one) {
            ++n;
            break;
        }
    }
    if (status == CRIA_OK && !(p->stops = cria_stops_create(strings, lengths, n))) {
        status = cria_api_fail_status(err, 500, NULL, "out of memory");
    }
    free(strings);
    free(lengths);
    return status;
}

static bool parse_id(const char *text, int64_t *out) {
    if (!text[0]) return false;
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *end == 0 && errno == 0;
}

cria_status cria_words_read_biases(const cria_api *api, const cria_json_value *body, cria_params *p,
                                   cria_api_error *err) {
    const cria_json_value *map = cria_json_get(body, "logit_bias");
    if (!map) return CRIA_OK;
    if (cria_json_type_of(map) != CRIA_JSON_OBJECT) {
        char input[80];
        cria_field_describe(map, input, sizeof input);
        return cria_api_fail_type(err, "body.logit_bias", "dict_type", "Input should be a valid dictionary", input);
    }
    size_t count = cria_json_size(map);
    if (count > MAX_BIASES) {
        return cria_api_fail(err, "logit_bias", "logit_bias has %zu entries, which is more than the %d allowed", count,
                             MAX_BIASES);
    }
    if (!count) return CRIA_OK;
    p->biases = calloc(count, sizeof *p->biases);
    if (!p->biases) return cria_api_fail_status(err, 500, NULL, "out of memory");
    for (const cria_json_value *v = cria_json_first(map); v; v = cria_json_next(v)) {
        int64_t id;
        double bias = 0;
        const char *key = cria_json_key(v);
        if (!parse_id(key, &id)) {
            return cria_api_fail(err, "logit_bias",
                                 "logit_bias contains key(s) that cannot be converted to integer token IDs: ['%.60s'] "
                                 "(parameter=logit_bias, value=['%.60s'])",
                                 key, key);
        }
        if (id < 0 || id >= api->vocab) {
            return cria_api_fail(err, "logit_bias",
                                 "token_id(s) [%lld] in logit_bias contain out-of-vocab token ids. Vocabulary size: "
                                 "%lld (parameter=logit_bias, value=[%lld])",
                                 (long long)id, (long long)api->vocab, (long long)id);
        }
        if (cria_json_type_of(v) == CRIA_JSON_NULL) continue;
        CRIA_TRY(cria_field_double(map, key, &bias, NULL, err));
        if (bias > 100) bias = 100; /* the range that OpenAI documents */
        if (bias < -100) bias = -100;
        p->biases[p->bias_count++] = (cria_bias){(int32_t)id, (float)bias};
    }
    return CRIA_OK;
}

/* Appends one spelling's ids as a bad word. */
static cria_status add_bad(cria_params *p, const int32_t *ids, size_t count, size_t *total, cria_api_error *err) {
    int32_t *words = realloc(p->bad_words, (*total + count) * sizeof *words);
    if (words) p->bad_words = words;
    int32_t *lengths = realloc(p->bad_lengths, (p->bad_count + 1) * sizeof *lengths);
    if (lengths) p->bad_lengths = lengths;
    if (!words || !lengths) return cria_api_fail_status(err, 500, NULL, "out of memory");
    memcpy(words + *total, ids, count * sizeof *ids);
    *total += count;
    lengths[p->bad_count++] = (int32_t)count;
    return CRIA_OK;
}

/* A word may stand at the start of a text or after a space: both spellings are banned where they differ in their first
 * id (as vLLM does). */
static cria_status add_word(const cria_api *api, cria_params *p, const char *text, size_t length, size_t *total,
                            cria_api_error *err) {
    cria_encode_options options = {.add_special = false, .parse_special = true};
    cria_ids plain = {0}, spaced = {0};
    cria_error cause;
    char with_space[MAX_BAD_BYTES + 2] = " ";
    size_t skip = 0;
    while (skip < length && text[skip] == ' ') ++skip;
    memcpy(with_space + 1, text + skip, length - skip);
    cria_status status = cria_tokenizer_encode(api->model->tokenizer, text, length, options, 0, &plain, &cause);
    if (status == CRIA_OK) {
        status =
            cria_tokenizer_encode(api->model->tokenizer, with_space, length - skip + 1, options, 0, &spaced, &cause);
    }
    if (status != CRIA_OK) status = cria_api_fail_from(err, &cause);
    if (status == CRIA_OK && plain.count) status = add_bad(p, plain.ids, plain.count, total, err);
    if (status == CRIA_OK && spaced.count && spaced.count == plain.count && spaced.ids[0] != plain.ids[0]) {
        status = add_bad(p, spaced.ids, spaced.count, total, err);
    }
    cria_ids_deinit(&plain);
    cria_ids_deinit(&spaced);
    return status;
}

cria_status cria_words_read_bad(const cria_api *api, const cria_json_value *body, cria_params *p, cria_api_error *err) {
    const cria_json_value *list = cria_json_get(body, "bad_words");
    if (!list) return CRIA_OK;
    if (cria_json_type_of(list) != CRIA_JSON_ARRAY) return not_a_string(list, "body.bad_words", err);
    if (cria_json_size(list) > MAX_BAD_WORDS) {
        return cria_api_fail(err, "bad_words", "bad_words has %zu entries, which is more than the %d allowed",
                             cria_json_size(list), MAX_BAD_WORDS);
    }
    size_t total = 0;
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v)) {
        size_t length;
        if (cria_json_type_of(v) != CRIA_JSON_STRING) return not_a_string(v, "body.bad_words", err);
        const char *text = cria_json_text(v, &length);
        if (length > MAX_BAD_BYTES) {
            return cria_api_fail(err, "bad_words", "a bad word has %zu bytes, which is more than the %d allowed",
                                 length, MAX_BAD_BYTES);
        }
        if (!length) return cria_api_fail(err, "bad_words", "bad_words cannot contain an empty string.");
        CRIA_TRY(add_word(api, p, text, length, &total, err));
    }
    return CRIA_OK;
}
