/* Fuzzing vocab.json with merges.txt: the first line is the one, all that follows the other. */
#include "tests/fuzz/use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data, *line = size ? memchr(text, '\n', size) : NULL;
    size_t head = line ? (size_t)(line - text) : size, skip = line ? head + 1 : head;
    cria_json *json = NULL;
    cria_error err = {0};
    if (cria_json_parse(text, head, &json, &err) != CRIA_OK) return 0;
    cria_tokenizer *tokenizer = cria_tokenizer_create();
    require(tokenizer);
    cria_tokenizer_files files = {0};
    cria_status status = cria_tokenizer_read_bpe(tokenizer, cria_json_root(json), text + skip, size - skip, &err);
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
