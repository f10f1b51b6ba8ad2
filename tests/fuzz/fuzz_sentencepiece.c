/* Fuzzing tokenizer.model: what the SentencePiece library lets through, the tokenizer can use. */
#include "tests/fuzz/use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_error err = {0};
    cria_tokenizer *tokenizer = cria_tokenizer_create();
    require(tokenizer);
    cria_status status = cria_tokenizer_read_sentencepiece(tokenizer, data, size, &err);
    if (status == CRIA_OK) status = cria_added_finish(tokenizer->added, tokenizer->normalizer, &err);
    if (status == CRIA_OK) {
        use_tokenizer(tokenizer);
    } else {
        require(status == err.status && err.message[0]);
    }
    cria_tokenizer_destroy(tokenizer);
    return 0;
}
