/* Where the parts of a block of the KV cache lie (cria_kv_layer), and how a vector becomes int8. Internal to kernels/.
 */
#ifndef CRIA_KERNELS_KV_H
#define CRIA_KERNELS_KV_H

#include "kernels/kernels.h"

#include <math.h>

static inline int64_t kv_element_bytes(cria_type type) {
    return type == CRIA_I8 ? 1 : type == CRIA_BF16 ? 2 : 4;
}

enum { KV_CELL_BYTES = 4 }; /* of elements that lie beside each other, to be multiplied and added by one instruction */

/* Elements of a cell: one f32, a pair of bf16, a quad of int8. */
static inline int64_t kv_cell(cria_type type) {
    return KV_CELL_BYTES / kv_element_bytes(type);
}

/* Bytes of the keys of one KV head in a block; a token's last cell is filled up with zeros. */
static inline int64_t kv_key_bytes(const cria_kv_layer *layer) {
    int64_t bytes = layer->head_dim * kv_element_bytes(layer->type);
    return (bytes + KV_CELL_BYTES - 1) / KV_CELL_BYTES * KV_CELL_BYTES * layer->block_tokens;
}
static inline int64_t kv_value_bytes(const cria_kv_layer *layer) {
    return layer->head_dim * layer->block_tokens * kv_element_bytes(layer->type);
}

/* Bytes of one KV head in a block: keys, values, and for int8 a scale of each token's key, then of each one's value. */
static inline int64_t kv_head_bytes(const cria_kv_layer *layer) {
    int64_t scales = layer->type == CRIA_I8 ? 2 * layer->block_tokens * (int64_t)sizeof(float) : 0;
    return kv_key_bytes(layer) + kv_value_bytes(layer) + scales;
}

/* Where element i of a block's token lies, in elements from the head's keys or values on. */
static inline int64_t kv_key_at(const cria_kv_layer *layer, int64_t token, int64_t i) {
    int64_t cell = kv_cell(layer->type);
    return (i / cell * layer->block_tokens + token) * cell + i % cell;
}
static inline int64_t kv_value_at(const cria_kv_layer *layer, int64_t token, int64_t i) {
    int64_t cell = kv_cell(layer->type);
    return (token / cell * layer->head_dim + i) * cell + token % cell;
}

/* Vectors of nothing but smaller values are zeros: the inverse of their scale would be no number. */
#define KV_LEAST 1e-35f

/* The scale of a vector whose largest magnitude is `most`; its elements are x / scale, rounded to the nearest even.
 * NaN where an element is not finite: such a vector is zeros with that scale, so that whoever reads it gets NaN. */
static inline float kv_scale(float most, bool finite) {
    return !finite ? NAN : most < KV_LEAST ? 0 : most / 127;
}
/* What elements are multiplied with before they are rounded. */
static inline float kv_inverse(float most, bool finite) {
    return !finite || most < KV_LEAST ? 0 : 127 / most;
}

#endif
