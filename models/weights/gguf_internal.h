/* The parsed form of a GGUF file; shared by its parser and its typed access. */
#ifndef CRIA_MODELS_WEIGHTS_GGUF_INTERNAL_H
#define CRIA_MODELS_WEIGHTS_GGUF_INTERNAL_H

#include "base/arena.h"
#include "models/gguf.h"
#include "models/weights/names.h"

typedef struct {
    const char *key;
    cria_gguf_type type;
    uint64_t bits;          /* scalars: the value's bytes, zero-extended */
    const char *text;       /* strings, NUL-terminated; `count` bytes */
    cria_gguf_type element; /* arrays */
    size_t count;
    const char **strings; /* arrays of strings */
    const size_t *lengths;
    const void *values; /* arrays of i32, u32, f32: an aligned copy */
} cria_gguf_entry;

struct cria_gguf {
    cria_arena *arena;
    const char *name;
    cria_gguf_entry *entries;
    size_t entry_count;
    cria_names entry_names;
    cria_gguf_tensor *tensors;
    size_t tensor_count;
    cria_names tensor_names;
};

#endif
