/* Making the API context. */
#include "server/api/api.h"

#include "server/api/template.h"

#include <stdio.h>

cria_status cria_api_set_model(cria_api *api, const cria_server_model *model, cria_error *err) {
    const char *text =
        model->chat_template_text ? model->chat_template_text : cria_tokenizer_chat_template(model->tokenizer);
    cria_chat_template *chat = NULL;
    cria_error cause;
    if (cria_chat_template_create(model->chat_template_name, text, model->tokenizer, &chat, &cause) != CRIA_OK) {
        if (model->chat_template_name) return cria_fail(err, cause.status, "%s", cause.message);
        /* Only the chat route suffers. */
        snprintf(api->chat_error, sizeof api->chat_error, "%s", cause.message);
    }
    api->chat = chat;
    api->vocab = model->vocab > 0 ? model->vocab : (int64_t)cria_tokenizer_size(model->tokenizer);
    api->longest_token = 1;
    for (size_t id = 0; id < cria_tokenizer_size(model->tokenizer); ++id) {
        size_t length = 0;
        if (cria_tokenizer_entry(model->tokenizer, (int32_t)id, &length) && length > api->longest_token) {
            api->longest_token = length;
        }
    }
    api->model = model;
    return CRIA_OK;
}

void cria_api_deinit(cria_api *api) {
    cria_chat_template_destroy(api->chat);
    api->chat = NULL;
    api->model = NULL;
}
