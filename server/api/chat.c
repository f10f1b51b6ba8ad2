/* Reading chat messages. */
#include "server/api/chat.h"

#include "server/api/field.h"
#include "server/api/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 4096 };

/* Messages with their contents; what had to be joined from parts lives in `joined`. */
typedef struct {
    cria_message *items;
    cria_text *joined; /* [count] */
    size_t count;
} message_list;

static void messages_deinit(message_list *list) {
    for (size_t i = 0; i < list->count; ++i) cria_text_deinit(&list->joined[i]);
    free(list->items);
    free(list->joined);
}

static cria_status bad_content(const cria_json_value *value, size_t n, cria_api_error *err) {
    char where[64], input[80];
    snprintf(where, sizeof where, "body.messages.%zu.content", n);
    cria_field_describe(value, input, sizeof input);
    return cria_api_fail_type(err, where, "string_type", "Input should be a valid string", input);
}

/* [{"type":"text","text":...},...] joined by newlines, as vLLM does. */
static cria_status join_parts(const cria_api *api, const cria_json_value *parts, size_t n, cria_text *out,
                              cria_api_error *err) {
    for (const cria_json_value *part = cria_json_first(parts); part; part = cria_json_next(part)) {
        const cria_json_value *type = cria_json_get(part, "type"), *text = cria_json_get(part, "text");
        size_t length;
        if (cria_json_type_of(part) == CRIA_JSON_STRING) {
            text = part;
        } else if (cria_json_type_of(type) == CRIA_JSON_STRING && strcmp(cria_json_text(type, &length), "text") != 0) {
            return cria_api_fail(err, NULL, "%s is not a multimodal model", api->config->model_names[0]);
        }
        if (cria_json_type_of(text) != CRIA_JSON_STRING) return bad_content(part, n, err);
        if (part != cria_json_first(parts)) cria_text_append(out, "\n", 1);
        const char *bytes = cria_json_text(text, &length);
        cria_text_append(out, bytes, length);
    }
    return out->failed ? cria_api_fail_status(err, 500, NULL, "out of memory") : CRIA_OK;
}

static const char *known_role(const char *role) {
    static const char *const roles[] = {"system", "user", "assistant"};
    for (size_t i = 0; i < 3; ++i) {
        if (strcmp(role, roles[i]) == 0) return roles[i];
    }
    return strcmp(role, "developer") == 0 ? roles[0] : NULL;
}

static cria_status read_message(const cria_api *api, const cria_json_value *value, size_t n, message_list *list,
                                cria_api_error *err) {
    char where[64], input[80];
    cria_field_describe(value, input, sizeof input);
    if (cria_json_type_of(value) != CRIA_JSON_OBJECT) {
        snprintf(where, sizeof where, "body.messages.%zu", n);
        return cria_api_fail_type(err, where, "dict_type", "Input should be a valid dictionary", input);
    }
    const cria_json_value *role = cria_json_get(value, "role"), *content = cria_json_get(value, "content");
    size_t length;
    snprintf(where, sizeof where, "body.messages.%zu.role", n);
    if (cria_json_type_of(role) != CRIA_JSON_STRING) {
        return cria_api_fail_type(err, where, role ? "string_type" : "missing",
                                  role ? "Input should be a valid string" : "Field required", input);
    }
    cria_message *message = &list->items[n];
    message->role = known_role(cria_json_text(role, &length));
    if (!message->role) {
        cria_field_describe(role, input, sizeof input);
        return cria_api_fail_type(err, where, "literal_error",
                                  "Input should be system, developer, user or assistant (tools are not supported yet)",
                                  input);
    }
    if (cria_json_type_of(content) == CRIA_JSON_STRING) {
        message->content = cria_json_text(content, &message->length);
    } else if (cria_json_type_of(content) == CRIA_JSON_ARRAY) {
        CRIA_TRY(join_parts(api, content, n, &list->joined[n], err));
        message->content = list->joined[n].data ? list->joined[n].data : "";
        message->length = list->joined[n].length;
    } else if (!content) { /* as vLLM has it: a message may be empty */
        message->content = "";
    } else {
        return bad_content(content, n, err);
    }
    return CRIA_OK;
}

static cria_status read_messages(const cria_api *api, const cria_json_value *body, message_list *list,
                                 cria_api_error *err) {
    const cria_json_value *value = cria_json_get(body, "messages");
    char input[80];
    if (!value) {
        cria_field_describe(body, input, sizeof input);
        return cria_api_fail_type(err, "body.messages", "missing", "Field required", input);
    }
    if (cria_json_type_of(value) != CRIA_JSON_ARRAY) {
        cria_field_describe(value, input, sizeof input);
        return cria_api_fail_type(err, "body.messages", "list_type", "Input should be a valid list", input);
    }
    size_t count = cria_json_size(value), n = 0;
    if (!count) {
        return cria_api_fail(err, NULL,
                             "Cannot apply chat template to an empty conversation. Provide at least one message.");
    }
    if (count > MAX_MESSAGES) {
        return cria_api_fail(err, "messages", "%zu messages are more than the %d allowed", count, MAX_MESSAGES);
    }
    list->items = calloc(count, sizeof *list->items);
    list->joined = calloc(count, sizeof *list->joined);
    if (!list->items || !list->joined) return cria_api_fail_status(err, 500, NULL, "out of memory");
    list->count = count;
    for (const cria_json_value *v = cria_json_first(value); v; v = cria_json_next(v), ++n) {
        CRIA_TRY(read_message(api, v, n, list, err));
    }
    return CRIA_OK;
}

static cria_status render(const cria_api *api, const cria_json_value *body, const message_list *list, cria_text *out,
                          char role[16], cria_text *last, cria_api_error *err) {
    bool generation = true, given = false, open_end = false;
    CRIA_TRY(cria_field_bool(body, "add_generation_prompt", &generation, &given, err));
    CRIA_TRY(cria_field_bool(body, "continue_final_message", &open_end, NULL, err));
    if (open_end && given && generation) {
        return cria_api_fail(err, NULL,
                             "Cannot set both `continue_final_message` and `add_generation_prompt` to True.");
    }
    if (open_end) generation = false;
    cria_error cause;
    if (cria_chat_template_render(api->chat, list->items, list->count, generation, open_end, out, &cause) != CRIA_OK) {
        return cria_api_fail_from(err, &cause);
    }
    const cria_message *final = &list->items[list->count - 1];
    if (role) snprintf(role, 16, "%s", generation ? "assistant" : final->role);
    if (last && role && strcmp(role, final->role) == 0) cria_text_append(last, final->content, final->length);
    return CRIA_OK;
}

cria_status cria_chat_render(const cria_api *api, const cria_json_value *body, cria_text *out, char role[16],
                             cria_text *last, cria_api_error *err) {
    message_list list = {0};
    cria_status status = read_messages(api, body, &list, err);
    /* After the messages: a request that is wrong by itself is told so whatever the checkpoint lacks. */
    if (status == CRIA_OK && !api->chat) status = cria_api_fail(err, NULL, "%s", api->chat_error);
    if (status == CRIA_OK) status = render(api, body, &list, out, role, last, err);
    messages_deinit(&list);
    return status;
}

cria_status cria_chat_read(cria_generation *generation, const cria_json_value *body, cria_api_error *err) {
    cria_text text = {0};
    cria_status status = cria_chat_render(generation->api, body, &text, generation->role,
                                          generation->params.echo ? &generation->prefix : NULL, err);
    if (status == CRIA_OK) {
        status = cria_prompts_from_chat(generation->api, text.data ? text.data : "", text.length, &generation->params,
                                        &generation->prompts, err);
    }
    cria_text_deinit(&text);
    return status;
}
