/* /v1/models, /version, /tokenizer_info. */
#include "server/api/info.h"

#include <string.h>

static void put(cria_text *out, const char *text) {
    cria_text_json_string(out, text, strlen(text));
}

void cria_info_models(const cria_api *api, cria_text *out) {
    const cria_server_config *config = api->config;
    cria_text_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < config->model_name_count; ++i) {
        cria_text_puts(out, i ? ",{\"id\":" : "{\"id\":");
        put(out, config->model_names[i]);
        cria_text_printf(
            out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"cria\",\"root\":", (long long)api->started);
        put(out, config->model_root ? config->model_root : config->model_names[0]);
        cria_text_printf(out,
                         ",\"parent\":null,\"max_model_len\":%lld,\"permission\":[{\"id\":\"modelperm-%zu\","
                         "\"object\":\"model_permission\",\"created\":%lld,\"allow_create_engine\":false,"
                         "\"allow_sampling\":true,\"allow_logprobs\":true,\"allow_search_indices\":false,"
                         "\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,"
                         "\"is_blocking\":false}]}",
                         (long long)api->model->max_model_len, i, (long long)api->started);
    }
    cria_text_puts(out, "]}");
}

void cria_info_version(const cria_api *api, cria_text *out) {
    cria_text_puts(out, "{\"version\":");
    put(out, api->config->version);
    cria_text_puts(out, "}");
}

static void put_token(const cria_api *api, const char *key, int32_t id, cria_text *out) {
    size_t length = 0;
    const char *entry = id >= 0 ? cria_tokenizer_entry(api->model->tokenizer, id, &length) : NULL;
    cria_text_printf(out, ",\"%s\":", key);
    if (entry) {
        cria_text_json_string(out, entry, length);
    } else {
        cria_text_puts(out, "null");
    }
}

void cria_info_tokenizer(const cria_api *api, cria_text *out) {
    const char *json = cria_tokenizer_config_json(api->model->tokenizer);
    if (json) {
        cria_text_puts(out, json);
        return;
    }
    const cria_tokenizer *tokenizer = api->model->tokenizer;
    cria_text_printf(out, "{\"tokenizer_class\":\"CriaTokenizer\",\"vocab_size\":%zu,\"model_max_length\":%lld",
                     cria_tokenizer_size(tokenizer), (long long)api->model->max_model_len);
    put_token(api, "bos_token", cria_tokenizer_bos(tokenizer), out);
    put_token(api, "eos_token", cria_tokenizer_eos(tokenizer), out);
    const char *chat =
        api->model->chat_template_text ? api->model->chat_template_text : cria_tokenizer_chat_template(tokenizer);
    cria_text_puts(out, ",\"chat_template\":");
    if (chat) {
        put(out, chat);
    } else {
        cria_text_puts(out, "null");
    }
    cria_text_puts(out, "}");
}
