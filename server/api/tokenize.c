/* Text to ids and back over HTTP. */
#include "server/api/tokenize.h"

#include "server/api/body.h"
#include "server/api/chat.h"
#include "server/api/field.h"

#include <stdlib.h>
#include <string.h>

static void put_answer(const cria_api *api, const cria_ids *ids, bool strings, cria_text *out) {
    cria_text_printf(out, "{\"count\":%zu,\"max_model_len\":%lld,\"tokens\":[", ids->count,
                     (long long)api->model->max_model_len);
    for (size_t i = 0; i < ids->count; ++i) cria_text_printf(out, i ? ",%d" : "%d", ids->ids[i]);
    cria_text_puts(out, strings ? "],\"token_strs\":[" : "],\"token_strs\":null}");
    for (size_t i = 0; strings && i < ids->count; ++i) {
        size_t length = 0;
        const char *entry = cria_tokenizer_entry(api->model->tokenizer, ids->ids[i], &length);
        if (i) cria_text_puts(out, ",");
        cria_text_json_string(out, entry ? entry : "", length);
    }
    if (strings) cria_text_puts(out, "]}");
}

static cria_status read_text(const cria_api *api, const cria_json_value *body, cria_text *chat, const char **text,
                             size_t *length, bool *add_special, cria_api_error *err) {
    *add_special = true;
    *text = NULL;
    if (cria_json_get(body, "messages")) {
        *add_special = false;
        CRIA_TRY(cria_chat_render(api, body, chat, NULL, NULL, err));
        *text = chat->data ? chat->data : "";
        *length = chat->length;
    } else {
        CRIA_TRY(cria_field_text(body, "prompt", text, length, err));
        if (!*text) {
            char input[80];
            cria_field_describe(body, input, sizeof input);
            return cria_api_fail_type(err, "body.prompt", "missing", "Field required", input);
        }
    }
    return cria_field_bool(body, "add_special_tokens", add_special, NULL, err);
}

static cria_status tokenize(const cria_api *api, const cria_json_value *body, cria_text *out, cria_api_error *err) {
    CRIA_TRY(cria_params_check_model(api, body, err));
    bool strings = false;
    CRIA_TRY(cria_field_bool(body, "return_token_strs", &strings, NULL, err));
    cria_text chat = {0};
    cria_ids ids = {0};
    cria_encode_options options = {.parse_special = true};
    const char *text;
    size_t length = 0;
    cria_error cause;
    cria_status status = read_text(api, body, &chat, &text, &length, &options.add_special, err);
    if (status == CRIA_OK) {
        status = cria_tokenizer_encode(api->model->tokenizer, text, length, options, 0, &ids, &cause);
        if (status == CRIA_OK) {
            put_answer(api, &ids, strings, out);
        } else {
            cria_api_fail_from(err, &cause);
        }
    }
    cria_ids_deinit(&ids);
    cria_text_deinit(&chat);
    return status;
}

static cria_status detokenize(const cria_api *api, const cria_json_value *body, cria_text *out, cria_api_error *err) {
    CRIA_TRY(cria_params_check_model(api, body, err));
    if (!cria_json_get(body, "tokens")) {
        char input[80];
        cria_field_describe(body, input, sizeof input);
        return cria_api_fail_type(err, "body.tokens", "missing", "Field required", input);
    }
    int32_t *ids;
    size_t count;
    CRIA_TRY(cria_field_ids(body, "tokens", (int64_t)cria_tokenizer_size(api->model->tokenizer), SIZE_MAX, &ids, &count,
                            err));
    cria_text text = {0};
    cria_error cause;
    cria_status status = cria_tokenizer_decode(api->model->tokenizer, ids, count, false, &text, &cause);
    if (status == CRIA_OK) {
        cria_text_puts(out, "{\"prompt\":");
        cria_text_json_string(out, text.data ? text.data : "", text.length);
        cria_text_puts(out, "}");
        if (text.failed) out->failed = true;
    } else {
        cria_api_fail_from(err, &cause);
    }
    cria_text_deinit(&text);
    free(ids);
    return status;
}

static cria_status with_body(const cria_api *api, const char *body, size_t length, cria_text *out, cria_api_error *err,
                             cria_status (*answer)(const cria_api *, const cria_json_value *, cria_text *,
                                                   cria_api_error *)) {
    cria_json *json;
    CRIA_TRY(cria_body_parse(body, length, &json, err));
    cria_status status = answer(api, cria_json_root(json), out, err);
    cria_json_destroy(json);
    return status;
}

cria_status cria_tokenize(const cria_api *api, const char *body, size_t length, cria_text *out, cria_api_error *err) {
    return with_body(api, body, length, out, err, tokenize);
}

cria_status cria_detokenize(const cria_api *api, const char *body, size_t length, cria_text *out, cria_api_error *err) {
    return with_body(api, body, length, out, err, detokenize);
}
