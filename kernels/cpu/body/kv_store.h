/* Writing keys and values into pages (kernels/kv.h). */
#include "kernels/cpu/row_vector.h"
#include "kernels/kv.h"

#include <string.h>

enum { STORE_CHUNK = 256 }; /* elements rounded at once, on the stack */

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

/* Elements first .. first + count - 1 of a token's key, as whole cells. */
static void place_key(const cria_kv_layer *layer, const void *elements, int64_t first, int64_t count, int64_t token,
                      char *keys) {
    int64_t cell = kv_cell(layer->type);
    char *to = keys + (first / cell * layer->block_tokens + token) * KV_CELL_BYTES;
    for (int64_t i = 0; i < count; i += cell, to += layer->block_tokens * KV_CELL_BYTES)
        memcpy(to, (const char *)elements + i / cell * KV_CELL_BYTES, KV_CELL_BYTES);
}

/* Cells of values hold several tokens, which other workers may write: nothing but this one's elements is touched. */
static void place_value(const cria_kv_layer *layer, const void *elements, int64_t first, int64_t count, int64_t token,
                        char *values) {
    int64_t at = kv_value_at(layer, token, first), cell = kv_cell(layer->type);
    if (layer->type == CRIA_I8) {
        for (int64_t i = 0; i < count; i++) ((int8_t *)values)[at + i * cell] = ((const int8_t *)elements)[i];
    } else if (layer->type == CRIA_BF16) {
        for (int64_t i = 0; i < count; i++) ((uint16_t *)values)[at + i * cell] = ((const uint16_t *)elements)[i];
    } else {
        memcpy((float *)values + at, elements, (size_t)count * sizeof(float));
    }
}

/* A head's key or value of one token; of int8 its scale as well. */
static void store_vector(const cria_kv_layer *layer, const float *x, bool key, int64_t token, char *to, float *scale) {
    uint16_t rounded[STORE_CHUNK + KV_CELL_BYTES];
    float inverse = 0;
    if (layer->type == CRIA_I8) *scale = find_scale(x, layer->head_dim, &inverse);
    for (int64_t first = 0; first < layer->head_dim; first += STORE_CHUNK) {
        int64_t count = layer->head_dim - first < STORE_CHUNK ? layer->head_dim - first : STORE_CHUNK;
        const void *elements = layer->type == CRIA_F32 ? (const void *)(x + first) : rounded;
        if (layer->type == CRIA_I8) {
            store_row_i8(x + first, count, inverse, (int8_t *)rounded);
        } else if (layer->type == CRIA_BF16) {
            vf_round_row_bf16(x + first, count, rounded);
        }
        if (key) {
            memset((char *)rounded + count * kv_element_bytes(layer->type), 0, KV_CELL_BYTES); /* fills up the last */
            place_key(layer, elements, first, count, token, to);
        } else {
            place_value(layer, elements, first, count, token, to);
        }
    }
}

/* The values of two tokens that share cells of bf16. */
static void store_value_pair(const float *even, const float *odd, int64_t dim, uint32_t *to) {
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        vi high = vi_shift_left(vf_round_bf16(vf_load(odd + i)), 16);
        vi_store((int32_t *)to + i, vi_or(vf_round_bf16(vf_load(even + i)), high));
    }
    for (; i < dim; i++) to[i] = cria_f32_to_bf16(even[i]) | (uint32_t)cria_f32_to_bf16(odd[i]) << 16;
}

/* The values of a token whose cells of bf16 no other worker writes now: what its partner has there stays. */
static void store_lone_values(const float *v, int64_t dim, bool odd, uint32_t *to) {
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        vi rounded = vf_round_bf16(vf_load(v + i)), there = vi_load(to + i);
        vi cells = odd ? vi_or(vi_and(there, vi_set(0xffff)), vi_shift_left(rounded, 16))
                       : vi_or(vi_and(there, vi_set((int)0xffff0000u)), rounded);
        vi_store((int32_t *)to + i, cells);
    }
    for (; i < dim; i++) {
        uint32_t rounded = cria_f32_to_bf16(v[i]);
        to[i] = odd ? (to[i] & 0xffff) | rounded << 16 : (to[i] & 0xffff0000u) | rounded;
    }
}

/* Whether a neighbour of token t in the call writes the other half of its cells, perhaps on another worker. */
static bool shares_cells(const cria_kv_store_args *args, int64_t t) {
    int32_t partner = args->slots[t] ^ 1;
    return (t > 0 && args->slots[t - 1] == partner) || (t + 1 < args->tokens && args->slots[t + 1] == partner);
}

/* Token t's keys, and its values unless the token before has written them; returns whether the next one's are written
 * as well. */
static bool store_token(const cria_kv_store_args *args, int64_t t, bool values_done, bool with_next) {
    const cria_kv_layer *layer = args->layer;
    int64_t block = args->slots[t] / layer->block_tokens, token = args->slots[t] % layer->block_tokens;
    char *to = (char *)layer->pages + block * layer->block_bytes;
    bool pair = with_next && !values_done && layer->type == CRIA_BF16 && token % 2 == 0 &&
                args->slots[t + 1] == args->slots[t] + 1;
    bool lone = layer->type == CRIA_BF16 && !values_done && !shares_cells(args, t);
    for (int64_t head = 0; head < layer->kv_heads; head++, to += kv_head_bytes(layer)) {
        int64_t from = t * args->stride + head * layer->head_dim;
        char *values = to + kv_key_bytes(layer);
        float *scales = (float *)(values + kv_value_bytes(layer)) + token;
        store_vector(layer, args->k + from, true, token, to, scales);
        if (pair) {
            uint32_t *cells = (uint32_t *)values + token / 2 * layer->head_dim;
            store_value_pair(args->v + from, args->v + from + args->stride, layer->head_dim, cells);
        } else if (lone) {
            store_lone_values(args->v + from, layer->head_dim, token % 2,
                              (uint32_t *)values + token / 2 * layer->head_dim);
        } else if (!values_done) {
            store_vector(layer, args->v + from, false, token, values, scales + layer->block_tokens);
        }
    }
    return pair;
}

static void store_rows(const cria_kv_store_args *args, cria_worker *worker) {
    int64_t begin, end;
    /* A whole page's worth of tokens at a time, so that one worker fills a page's lines. */
    while (cria_worker_take(worker, args->tokens, args->layer->block_tokens, &begin, &end)) {
        bool done = false;
        for (int64_t t = begin; t < end; t++) done = store_token(args, t, done, t + 1 < end);
    }
}
