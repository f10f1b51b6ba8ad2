/* Fuzzing the PyTorch reader: the bytes as a whole archive, and as the pickle inside one. */
#include "models/weights/pickle.h"
#include "tests/fuzz/read_views.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_views("pytorch", data, size, cria_pytorch_read);
    const cria_pickle_value *value;
    cria_error err = {0};
    cria_arena *arena = cria_arena_create(4096, 64 << 20);
    if (arena) (void)cria_pickle_load("fuzz", data, size, arena, &value, &err);
    cria_arena_destroy(arena);
    return 0;
}
