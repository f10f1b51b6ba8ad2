/* A pickle machine that can only build what a state dict is made of: plain values, containers, storages and tensors.
 *
 * It runs no code: a global is looked up in a fixed table of what torch's tensors need, and any other is an error that
 * names it, as is any opcode that no state dict has. */
#ifndef CRIA_MODELS_WEIGHTS_PICKLE_H
#define CRIA_MODELS_WEIGHTS_PICKLE_H

#include "base/arena.h"
#include "base/error.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CRIA_PICKLE_MAX_DIMS = 8 };

typedef enum {
    CRIA_PICKLE_NONE,
    CRIA_PICKLE_BOOL,
    CRIA_PICKLE_INT,
    CRIA_PICKLE_FLOAT,
    CRIA_PICKLE_TEXT,
    CRIA_PICKLE_TUPLE,
    CRIA_PICKLE_LIST,
    CRIA_PICKLE_DICT, /* items are key, value, key, value ... */
    CRIA_PICKLE_GLOBAL,
    CRIA_PICKLE_STORAGE,
    CRIA_PICKLE_TENSOR,
    CRIA_PICKLE_MARK
} cria_pickle_kind;

typedef struct cria_pickle_value cria_pickle_value;

typedef struct {
    cria_pickle_value **items;
    size_t count, capacity;
} cria_pickle_items;

typedef struct {
    const char *bytes; /* in the pickle, not NUL-terminated */
    size_t length;
} cria_pickle_text;

/* A persistent id: where the numbers of tensors lie. */
typedef struct {
    cria_type type;
    cria_pickle_text key;
    int64_t elements;
} cria_pickle_storage;

typedef struct {
    const cria_pickle_storage *storage;
    int64_t offset; /* elements into the storage */
    int dims;
    int64_t shape[CRIA_PICKLE_MAX_DIMS], strides[CRIA_PICKLE_MAX_DIMS];
} cria_pickle_tensor;

struct cria_pickle_value {
    cria_pickle_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        cria_pickle_text text;
        cria_pickle_items items;
        size_t global; /* a row of the table in pickle.c */
        cria_pickle_storage storage;
        cria_pickle_tensor *tensor;
    } as;
};

/* Runs the pickle to its STOP. The value lives in `arena` and points into `bytes`. `name` goes into messages. */
cria_status cria_pickle_load(const char *name, const uint8_t *bytes, size_t size, cria_arena *arena,
                             const cria_pickle_value **out, cria_error *err);

#endif
