/* Fuzzing config.json: any JSON is an error with a message or a configuration whose numbers can be relied on. */
#include "models/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_json *json = NULL;
    cria_model_config c;
    cria_error err = {0};
    if (cria_json_parse((const char *)data, size, &json, &err) != CRIA_OK) return 0;
    cria_status status = cria_config_from_json(cria_json_root(json), &c, &err);
    cria_json_destroy(json);
    if (status != CRIA_OK) {
        if (status != err.status || !err.message[0]) abort();
        return 0;
    }
    bool sane = c.vocab > 0 && c.hidden > 0 && c.layers > 0 && c.heads > 0 && c.kv_heads > 0 && c.ffn > 0 &&
                c.heads % c.kv_heads == 0 && c.head_dim > 0 && c.max_positions > 0 && c.embed_dim > 0 &&
                c.bos < c.vocab && c.pad < c.vocab && c.eos_count >= 0 && c.eos_count <= 8 && c.norm_eps >= 0;
    if (!sane) abort();
    return 0;
}
