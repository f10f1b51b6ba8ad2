/* Fuzzing the safetensors reader: any bytes are an error or views that can be read from end to end. */
#include "tests/fuzz/read_views.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_views("safetensors", data, size, cria_safetensors_read);
    return 0;
}
