/* Fuzzing the GGUF reader and the configuration in its metadata. */
#include "models/config.h"
#include "models/gguf.h"
#include "tests/fuzz/read_views.h"

/* Every typed access to every key: each gives a value or an error. */
static void read_values(const cria_gguf *gguf) {
    for (size_t i = 0; i < cria_gguf_count(gguf); i++) {
        const char *key = cria_gguf_key(gguf, i), *text;
        const char *const *strings;
        const size_t *lengths;
        const int32_t *ints;
        const float *floats;
        int64_t integer;
        double number;
        bool flag;
        size_t count;
        (void)cria_gguf_get_int(gguf, key, 0, INT32_MIN, INT32_MAX, &integer, NULL);
        (void)cria_gguf_get_double(gguf, key, 0, -1, 1, &number, NULL);
        (void)cria_gguf_get_bool(gguf, key, false, &flag, NULL);
        (void)cria_gguf_get_string(gguf, key, NULL, &text, NULL);
        (void)cria_gguf_get_ints(gguf, key, &ints, &count, NULL);
        (void)cria_gguf_get_floats(gguf, key, &floats, &count, NULL);
        if (cria_gguf_get_strings(gguf, key, &strings, &lengths, &count, NULL) != CRIA_OK) continue;
        for (size_t s = 0; s < count; s++) {
            if (lengths[s] && memchr(strings[s], 0, lengths[s]) == strings[s] + lengths[s]) abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_gguf *gguf;
    cria_model_config config;
    cria_error err = {0};
    read_views("gguf", data, size, cria_gguf_read);
    if (cria_gguf_parse("fuzz", data, size, &gguf, &err) != CRIA_OK) return 0;
    read_values(gguf);
    (void)cria_config_from_gguf(gguf, &config, &err);
    cria_gguf_destroy(gguf);
    return 0;
}
