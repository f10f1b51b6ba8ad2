/* Writing keys and values into pages. */
#include "kernels/cpu/row_vector.h"
#include "kernels/kv.h"

#include <string.h>

enum { STORE_CHUNK = 256 }; /* keys rounded at once, on the stack */

static void store_row_bf16(const float *in, int64_t count, uint16_t *out) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) vf_store_bf16(out + i, vf_load(in + i));
    if (i < count) vf_store_bf16_first(out + i, count - i, vf_load_first(in + i, count - i));
}

static void store_f32(const float *k, const float *v, int64_t dim, int64_t block_tokens, int64_t offset, float *page) {
    for (int64_t i = 0; i < dim; i++) page[i * block_tokens + offset] = k[i];
    memcpy(page + dim * (block_tokens + offset), v, (size_t)dim * sizeof *v);
}

static void store_bf16(const float *k, const float *v, int64_t dim, int64_t block_tokens, int64_t offset,
                       uint16_t *page) {
    uint16_t rounded[STORE_CHUNK];
    for (int64_t first = 0; first < dim; first += STORE_CHUNK) {
        int64_t count = dim - first < STORE_CHUNK ? dim - first : STORE_CHUNK;
        store_row_bf16(k + first, count, rounded);
        for (int64_t i = 0; i < count; i++) page[(first + i) * block_tokens + offset] = rounded[i];
    }
    store_row_bf16(v, dim, page + dim * (block_tokens + offset));
}

/* The scale of a vector, and what its elements are to be multiplied with. */
static float find_scale(const float *x, int64_t count, float *inverse) {
    vf most = vf_set(0), infinity = vf_set(INFINITY);
    vmask bad = vf_less(most, most);
    for (int64_t i = 0; i < count; i += LANES) {
        vf magnitude = vf_abs(count - i < LANES ? vf_load_first(x + i, count - i) : vf_load(x + i));
        bad = vf_or(bad, vf_or(vf_nan(magnitude), vf_equal(magnitude, infinity)));
        most = vf_max(most, magnitude);
    }
    float highest = vf_hmax(most);
    bool finite = vf_bits(bad) == 0;
    *inverse = kv_inverse(highest, finite);
    return kv_scale(highest, finite);
}

static void store_row_i8(const float *in, int64_t count, float inverse, int8_t *out) {
    vf factor = vf_set(inverse);
    int64_t i = 0;
    if (inverse == 0) { /* what is not finite would not become zero */
        memset(out, 0, (size_t)count);
        return;
    }
    for (; i + LANES <= count; i += LANES) vf_store_i8(out + i, vf_load(in + i) * factor);
    if (i < count) vf_store_i8_first(out + i, count - i, vf_load_first(in + i, count - i) * factor);
}

static void store_i8(const cria_kv_layer *layer, const float *k, const float *v, int64_t token, int8_t *keys) {
    int64_t dim = layer->head_dim;
    int8_t rounded[STORE_CHUNK], *values = keys + kv_key_bytes(layer);
    float inverse, *scales = (float *)(values + kv_value_bytes(layer)) + token;
    scales[0] = find_scale(k, dim, &inverse);
    for (int64_t first = 0; first < dim; first += STORE_CHUNK) {
        int64_t count = dim - first < STORE_CHUNK ? dim - first : STORE_CHUNK;
        store_row_i8(k + first, count, inverse, rounded);
        for (; (first + count) % KV_QUAD; count++) rounded[count] = 0;
        for (int64_t i = 0; i < count; i += KV_QUAD)
            memcpy(keys + kv_key_at(layer, token, first + i), rounded + i, KV_QUAD);
    }
    scales[layer->block_tokens] = find_scale(v, dim, &inverse);
    for (int64_t first = 0; first < dim; first += STORE_CHUNK) {
        int64_t count = dim - first < STORE_CHUNK ? dim - first : STORE_CHUNK;
        store_row_i8(v + first, count, inverse, rounded);
        for (int64_t i = 0; i < count; i++) values[kv_value_at(layer, token, first + i)] = rounded[i];
    }
}

static void store_rows(const cria_kv_store_args *args, cria_worker *worker) {
    const cria_kv_layer *layer = args->layer;
    int64_t block_tokens = layer->block_tokens, dim = layer->head_dim, begin, end;
    /* A whole page's worth of tokens at a time, so that one worker fills a page's lines. */
    while (cria_worker_take(worker, args->tokens, block_tokens, &begin, &end)) {
        for (int64_t t = begin; t < end; t++) {
            int64_t block = args->slots[t] / block_tokens, offset = args->slots[t] % block_tokens;
            char *page = (char *)layer->pages + block * layer->block_bytes;
            for (int64_t head = 0; head < layer->kv_heads; head++) {
                const float *k = args->k + t * args->stride + head * dim, *v = args->v + t * args->stride + head * dim;
                char *to = page + head * kv_head_bytes(layer);
                if (layer->type == CRIA_I8) {
                    store_i8(layer, k, v, offset, (int8_t *)to);
                } else if (layer->type == CRIA_BF16) {
                    store_bf16(k, v, dim, block_tokens, offset, (uint16_t *)to);
                } else {
                    store_f32(k, v, dim, block_tokens, offset, (float *)to);
                }
            }
        }
    }
}
