/* Writing keys and values into pages. */
#include "kernels/cpu/row_vector.h"
#include "kernels/kernels.h"

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
                int64_t first = head * 2 * dim * block_tokens;
                if (layer->type == CRIA_BF16) {
                    store_bf16(k, v, dim, block_tokens, offset, (uint16_t *)page + first);
                } else {
                    store_f32(k, v, dim, block_tokens, offset, (float *)page + first);
                }
            }
        }
    }
}
