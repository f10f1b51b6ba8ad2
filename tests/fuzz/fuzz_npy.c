/* Fuzzing the NPY reader: any bytes are an error or one view that can be read from end to end. */
#include "tests/fuzz/read_views.h"

static cria_status read_npy(cria_weights *weights, uint32_t file, cria_error *err) {
    return cria_npy_read(weights, file, "a.weight", err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_views("npy", data, size, read_npy);
    return 0;
}
