/* Where the parts of a block of the KV cache lie (cria_kv_layer), and how a vector becomes int8. Internal to kernels/.
 */
#ifndef CRIA_KERNELS_KV_H
#define CRIA_KERNELS_KV_H

#include "kernels/kernels.h"

#include <math.h>

static inline int64_t kv_element_bytes(cria_type type) {
    return type == CRIA_I8 ? 1 : type == CRIA_BF16 ? 2 : 4;
}

enum { KV_QUAD = 4 }; /* of int8: elements that lie beside each other, to be multiplied and added by one instruction */

/* Bytes of the keys of one KV head in a block; of int8 the last quad is filled up with zeros. */
static inline int64_t kv_key_bytes(const cria_kv_layer *layer) {
    int64_t dim = layer->head_dim;
    if (layer->type == CRIA_I8) dim = (dim + KV_QUAD - 1) / KV_QUAD * KV_QUAD;
    return dim * layer->block_tokens * kv_element_bytes(layer->type);
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
    if (layer->type != CRIA_I8) return i * layer->block_tokens + token;
    return (i / KV_QUAD * layer->block_tokens + token) * KV_QUAD + i % KV_QUAD;
}
static inline int64_t kv_value_at(const cria_kv_layer *layer, int64_t token, int64_t i) {
    if (layer->type != CRIA_I8) return token * layer->head_dim + i;
    return (token / KV_QUAD * layer->head_dim + i) * KV_QUAD + token % KV_QUAD;
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
