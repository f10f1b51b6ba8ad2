/* Reading and tokenizing prompts. */
#include "server/api/prompt.h"

#include "base/checked.h"
#include "server/api/field.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cria_prompts_deinit(cria_prompts *prompts) {
    for (size_t i = 0; i < prompts->count; ++i) {
        free(prompts->items[i].ids);
        free(prompts->items[i].text);
    }
    free(prompts->items);
    *prompts = (cria_prompts){0};
}

cria_status cria_prompt_check_bytes(const cria_api *api, size_t bytes, cria_api_error *err) {
    size_t most;
    if (!cria_mul_size((size_t)api->model->max_model_len, api->longest_token, &most) || bytes <= most) return CRIA_OK;
    return cria_api_fail(
        err, "input_tokens",
        "This model's maximum context length is %lld tokens. However, your prompt has %zu bytes, which "
        "are at least %zu tokens. Please reduce the length of the input prompt. "
        "(parameter=input_tokens, value=%zu)",
        (long long)api->model->max_model_len, bytes, bytes / api->longest_token, bytes / api->longest_token);
}

/* Tokenizing is the expensive part of reading a request: one that would be refused afterwards is refused before. Only
 * the first prompt counts, since the others wait their turn. */
static cria_status admit(const cria_api *api, const cria_params *params, size_t bytes, cria_api_error *err) {
    if (!api->admit) return CRIA_OK;
    int64_t least = (int64_t)((bytes + api->longest_token - 1) / api->longest_token);
    if (params->truncate >= 0 && least > params->truncate) least = params->truncate;
    cria_error cause;
    if (api->admit(api->admit_context, least, &cause) == CRIA_OK) return CRIA_OK;
    return cria_api_fail_from(err, &cause);
}

/* The last steps for every form: truncation, the length check, the text for `echo`. */
static cria_status complete(const cria_api *api, const cria_params *params, const char *text, size_t length,
                            cria_prompt *prompt, cria_api_error *err) {
    bool cut = params->truncate >= 0 && prompt->count > (size_t)params->truncate;
    if (cut) {
        size_t drop = prompt->count - (size_t)params->truncate;
        memmove(prompt->ids, prompt->ids + drop, (prompt->count - drop) * sizeof *prompt->ids);
        prompt->count -= drop;
    }
    if (!prompt->count) {
        return cria_api_fail(err, "prompt",
                             "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)");
    }
    CRIA_TRY(cria_params_fit(api, params, prompt->count, &prompt->max_tokens, err));
    if (!params->echo) return CRIA_OK;
    cria_text shown = {0};
    cria_error cause;
    cria_status status = CRIA_OK;
    if (text && !cut) {
        cria_text_append(&shown, text, length);
    } else {
        status = cria_tokenizer_decode(api->model->tokenizer, prompt->ids, prompt->count, params->skip_special, &shown,
                                       &cause);
    }
    if (status != CRIA_OK || shown.failed) {
        cria_text_deinit(&shown);
        return status != CRIA_OK ? cria_api_fail_from(err, &cause)
                                 : cria_api_fail_status(err, 500, NULL, "out of memory");
    }
    prompt->text = shown.data ? shown.data : calloc(1, 1);
    prompt->text_length = shown.length;
    return prompt->text ? CRIA_OK : cria_api_fail_status(err, 500, NULL, "out of memory");
}

static cria_status from_text(const cria_api *api, const cria_params *params, const char *text, size_t length,
                             bool first, cria_prompt *prompt, cria_api_error *err) {
    if (params->truncate < 0) CRIA_TRY(cria_prompt_check_bytes(api, length, err));
    if (first) CRIA_TRY(admit(api, params, length, err));
    cria_encode_options options = {.add_special = params->add_special, .parse_special = true};
    cria_ids ids = {0};
    cria_error cause;
    if (cria_tokenizer_encode(api->model->tokenizer, text, length, options, 0, &ids, &cause) != CRIA_OK) {
        cria_ids_deinit(&ids);
        return cria_api_fail_from(err, &cause);
    }
    prompt->ids = ids.ids; /* malloc'ed, as a prompt's ids are */
    prompt->count = ids.count;
    return complete(api, params, text, length, prompt, err);
}

static cria_status from_ids(const cria_api *api, const cria_params *params, const cria_json_value *list,
                            const char *location, cria_prompt *prompt, cria_api_error *err) {
    size_t size = cria_json_size(list);
    if (!size) return cria_api_fail(err, NULL, "You must pass at least one token id in %s", location + 5);
    prompt->ids = calloc(size, sizeof *prompt->ids);
    if (!prompt->ids) return cria_api_fail_status(err, 500, NULL, "out of memory");
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v)) {
        int64_t id;
        char where[80], input[80];
        snprintf(where, sizeof where, "%.48s.%zu", location, prompt->count);
        cria_field_describe(v, input, sizeof input);
        if (cria_json_type_of(v) != CRIA_JSON_NUMBER || !cria_json_int(v, &id)) {
            return cria_api_fail_type(err, where, "int_type", "Input should be a valid integer", input);
        }
        if (id < 0) {
            return cria_api_fail_type(err, where, "greater_than_equal", "Input should be greater than or equal to 0",
                                      input);
        }
        if (id >= api->vocab) return cria_api_fail(err, NULL, "Token id %lld is out of vocabulary", (long long)id);
        prompt->ids[prompt->count++] = (int32_t)id;
    }
    return complete(api, params, NULL, 0, prompt, err);
}

static cria_status read_one(const cria_api *api, const cria_params *params, const cria_json_value *value,
                            const char *location, bool first, cria_prompt *prompt, cria_api_error *err) {
    cria_json_type type = cria_json_type_of(value);
    if (type == CRIA_JSON_ARRAY) return from_ids(api, params, value, location, prompt, err);
    if (type == CRIA_JSON_STRING) {
        size_t length;
        const char *text = cria_json_text(value, &length);
        if (!length) {
            return cria_api_fail(err, "prompt",
                                 "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)");
        }
        return from_text(api, params, text, length, first, prompt, err);
    }
    char input[80];
    cria_field_describe(value, input, sizeof input);
    return cria_api_fail_type(
        err, location, "string_type",
        "Input should be a string, a list of strings, a list of token ids or a list of such lists", input);
}

static cria_status read_list(const cria_api *api, const cria_json_value *list, const cria_params *params,
                             cria_prompts *out, cria_api_error *err) {
    size_t size = cria_json_size(list), n = 0;
    if (!size) return cria_api_fail(err, NULL, "You must pass at least one prompt");
    if (cria_json_type_of(cria_json_first(list)) == CRIA_JSON_NUMBER) {
        out->items = calloc(1, sizeof *out->items);
        if (!out->items) return cria_api_fail_status(err, 500, NULL, "out of memory");
        out->count = 1;
        return from_ids(api, params, list, "body.prompt", out->items, err);
    }
    if (size > (size_t)api->config->max_prompts) {
        return cria_api_fail(err, "prompt", "%zu prompts in one request are more than the %lld allowed", size,
                             (long long)api->config->max_prompts);
    }
    out->items = calloc(size, sizeof *out->items);
    if (!out->items) return cria_api_fail_status(err, 500, NULL, "out of memory");
    out->count = size;
    cria_json_type first = cria_json_type_of(cria_json_first(list));
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v), ++n) {
        char location[48];
        snprintf(location, sizeof location, "body.prompt.%zu", n);
        if (cria_json_type_of(v) != first) {
            char input[80];
            cria_field_describe(v, input, sizeof input);
            return cria_api_fail_type(
                err, location, first == CRIA_JSON_STRING ? "string_type" : "list_type",
                first == CRIA_JSON_STRING ? "Input should be a valid string" : "Input should be a valid list", input);
        }
        CRIA_TRY(read_one(api, params, v, location, n == 0, &out->items[n], err));
    }
    return CRIA_OK;
}

cria_status cria_prompts_read(const cria_api *api, const cria_json_value *body, const cria_params *params,
                              cria_prompts *out, cria_api_error *err) {
    *out = (cria_prompts){0};
    const cria_json_value *value = cria_json_get(body, "prompt");
    if (!value) {
        return cria_api_fail(err, "prompt",
                             "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)");
    }
    cria_status status;
    if (cria_json_type_of(value) == CRIA_JSON_ARRAY) {
        status = read_list(api, value, params, out, err);
    } else {
        out->items = calloc(1, sizeof *out->items);
        if (!out->items) return cria_api_fail_status(err, 500, NULL, "out of memory");
        out->count = 1;
        status = read_one(api, params, value, "body.prompt", true, out->items, err);
    }
    if (status != CRIA_OK) cria_prompts_deinit(out);
    return status;
}

cria_status cria_prompts_from_chat(const cria_api *api, const char *text, size_t length, const cria_params *params,
                                   cria_prompts *out, cria_api_error *err) {
    *out = (cria_prompts){.items = calloc(1, sizeof *out->items), .count = 1};
    if (!out->items) {
        out->count = 0;
        return cria_api_fail_status(err, 500, NULL, "out of memory");
    }
    cria_params plain = *params;
    plain.echo = false; /* chat echoes the last message, not the prompt */
    cria_status status = from_text(api, &plain, text, length, true, out->items, err);
    if (status != CRIA_OK) cria_prompts_deinit(out);
    return status;
}
