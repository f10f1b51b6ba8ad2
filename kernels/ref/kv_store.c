/* Reference writing of keys and values into the pages of the KV cache. */
#include "kernels/ref/ref.h"

static void store(cria_type type, void *to, int64_t index, float value) {
    if (type == CRIA_BF16) {
        ((uint16_t *)to)[index] = cria_f32_to_bf16(value);
    } else {
        ((float *)to)[index] = value;
    }
}

void cria_ref_kv_store(const cria_kv_store_args *args, cria_worker *worker) {
    const cria_kv_layer *layer = args->layer;
    int64_t block_tokens = layer->block_tokens, dim = layer->head_dim, begin, end;
    while (cria_worker_take(worker, args->tokens, 1, &begin, &end)) {
        int64_t block = args->slots[begin] / block_tokens, offset = args->slots[begin] % block_tokens;
        void *page = (char *)layer->pages + block * layer->block_bytes;
        for (int64_t head = 0; head < layer->kv_heads; head++) {
            const float *k = args->k + begin * args->stride + head * dim;
            const float *v = args->v + begin * args->stride + head * dim;
            int64_t keys = head * 2 * dim * block_tokens, values = keys + dim * block_tokens;
            for (int64_t i = 0; i < dim; i++) {
                store(layer->type, page, keys + i * block_tokens + offset, k[i]);
                store(layer->type, page, values + offset * dim + i, v[i]);
            }
        }
    }
}
