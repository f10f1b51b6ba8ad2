/* Fuzzing tokenizer.json: an error with a message, or a tokenizer that encodes and decodes. */
#include "tests/fuzz/use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_json *json = NULL;
    cria_error err = {0};
    if (cria_json_parse((const char *)data, size, &json, &err) != CRIA_OK) return 0;
    const cria_json_value *root = cria_json_root(json);
    cria_tokenizer *tokenizer = cria_tokenizer_create();
    require(tokenizer);
    /* A real tokenizer_config.json has some of tokenizer.json's members under the same names: it serves as both. */
    cria_tokenizer_files files = {.config = root};
    cria_status status = cria_tokenizer_read_json(tokenizer, root, &err);
    if (status == CRIA_OK) status = cria_tokenizer_read_special(tokenizer, &files, &err);
    if (status == CRIA_OK) status = cria_added_finish(tokenizer->added, tokenizer->normalizer, &err);
    if (status == CRIA_OK) {
        use_tokenizer(tokenizer);
    } else {
        require(status == err.status && err.message[0]);
    }
    cria_tokenizer_destroy(tokenizer);
    cria_json_destroy(json);
    return 0;
}
