/* GGUF: the metadata and the tensor directory of one GGUF file (versions 2 and 3, little-endian).
 *
 * Everything points into the bytes that were parsed, or into the object's own arena; nothing of the tensors is read.
 * Immutable once parsed: any thread may look up. Format: ggml's docs/gguf.md. */
#ifndef CRIA_MODELS_GGUF_H
#define CRIA_MODELS_GGUF_H

#include "base/error.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cria_gguf cria_gguf;

/* The format's own numbers. */
typedef enum {
    CRIA_GGUF_ABSENT = -1,
    CRIA_GGUF_U8 = 0,
    CRIA_GGUF_I8 = 1,
    CRIA_GGUF_U16 = 2,
    CRIA_GGUF_I16 = 3,
    CRIA_GGUF_U32 = 4,
    CRIA_GGUF_I32 = 5,
    CRIA_GGUF_F32 = 6,
    CRIA_GGUF_BOOL = 7,
    CRIA_GGUF_STRING = 8,
    CRIA_GGUF_ARRAY = 9,
    CRIA_GGUF_U64 = 10,
    CRIA_GGUF_I64 = 11,
    CRIA_GGUF_F64 = 12
} cria_gguf_type;

/* Parses a whole file's bytes, which must outlive the object. `name` (a path) goes into messages. */
cria_status cria_gguf_parse(const char *name, const void *bytes, size_t size, cria_gguf **out, cria_error *err);
void cria_gguf_destroy(cria_gguf *gguf);

/* Metadata in file order, for listings. */
size_t cria_gguf_count(const cria_gguf *gguf);
const char *cria_gguf_key(const cria_gguf *gguf, size_t index);
/* CRIA_GGUF_ABSENT where there is no such key; of an array the type is CRIA_GGUF_ARRAY. */
cria_gguf_type cria_gguf_type_of(const cria_gguf *gguf, const char *key);
const char *cria_gguf_type_name(cria_gguf_type type); /* "u32", "string", "array", ... */

/* Typed values with a default where absent, as base/json.h has them: any integer type for int, any number for double. A
 * wrong type or a value outside [min, max] is CRIA_ERR_FORMAT that names the key, the limit and the value. */
cria_status cria_gguf_get_int(const cria_gguf *gguf, const char *key, int64_t fallback, int64_t min, int64_t max,
                              int64_t *out, cria_error *err);
cria_status cria_gguf_get_double(const cria_gguf *gguf, const char *key, double fallback, double min, double max,
                                 double *out, cria_error *err);
cria_status cria_gguf_get_bool(const cria_gguf *gguf, const char *key, bool fallback, bool *out, cria_error *err);
/* NUL-terminated, lives as long as the object; NUL inside is an error. */
cria_status cria_gguf_get_string(const cria_gguf *gguf, const char *key, const char *fallback, const char **out,
                                 cria_error *err);

/* Arrays: *count 0 and NULL where absent; another element type is CRIA_ERR_FORMAT. Strings may hold any bytes and are
 * not NUL-terminated. `ints` takes i32 and u32 (a value over INT32_MAX is an error), `floats` f32. All aligned. */
cria_status cria_gguf_get_strings(const cria_gguf *gguf, const char *key, const char *const **strings,
                                  const size_t **lengths, size_t *count, cria_error *err);
cria_status cria_gguf_get_ints(const cria_gguf *gguf, const char *key, const int32_t **values, size_t *count,
                               cria_error *err);
cria_status cria_gguf_get_floats(const cria_gguf *gguf, const char *key, const float **values, size_t *count,
                                 cria_error *err);
/* Elements of an array of any type; 0 where the key is absent or no array. */
size_t cria_gguf_array_count(const cria_gguf *gguf, const char *key);

/* The tensor directory. shape[0] is the slowest dim (the file's order turned round). */
typedef struct {
    const char *name;
    cria_type type;
    int dims;
    int64_t shape[4];
    const void *data;
    size_t bytes;
} cria_gguf_tensor;

size_t cria_gguf_tensor_count(const cria_gguf *gguf);
const cria_gguf_tensor *cria_gguf_tensor_at(const cria_gguf *gguf, size_t index);
const cria_gguf_tensor *cria_gguf_tensor_find(const cria_gguf *gguf, const char *name); /* NULL if there is none */

#endif
