/* Reference writing of keys and values into the pages of the KV cache. */
#include "kernels/kv.h"
#include "kernels/ref/ref.h"

#include <string.h>

/* Element i of a head's key or value: `at` says where it lies. */
typedef int64_t place(const cria_kv_layer *layer, int64_t token, int64_t i);

static void store(const cria_kv_layer *layer, const float *x, void *to, place *at, int64_t token, float *scale) {
    float most = 0;
    bool finite = true;
    for (int64_t i = 0; layer->type == CRIA_I8 && i < layer->head_dim; i++) {
        most = fmaxf(most, fabsf(x[i]));
        finite &= isfinite(x[i]) != 0;
    }
    float inverse = kv_inverse(most, finite);
    for (int64_t i = 0; i < layer->head_dim; i++) {
        int64_t index = at(layer, token, i);
        if (layer->type == CRIA_I8) {
            ((int8_t *)to)[index] = finite ? (int8_t)rintf(x[i] * inverse) : 0;
        } else if (layer->type == CRIA_BF16) {
            ((uint16_t *)to)[index] = cria_f32_to_bf16(x[i]);
        } else {
            ((float *)to)[index] = x[i];
        }
    }
    if (layer->type == CRIA_I8) *scale = kv_scale(most, finite);
}

void cria_ref_kv_store(const cria_kv_store_args *args, cria_worker *worker) {
    const cria_kv_layer *layer = args->layer;
    int64_t block_tokens = layer->block_tokens, dim = layer->head_dim, begin, end;
    int64_t bytes = kv_element_bytes(layer->type);
    while (cria_worker_take(worker, args->tokens, 1, &begin, &end)) {
        int64_t block = args->slots[begin] / block_tokens, token = args->slots[begin] % block_tokens;
        char *keys = (char *)layer->pages + block * layer->block_bytes;
        for (int64_t h = 0; h < layer->kv_heads; h++, keys += kv_head_bytes(layer)) {
            int64_t from = begin * args->stride + h * dim;
            char *values = keys + kv_key_bytes(layer);
            float *scales = (float *)(values + kv_value_bytes(layer)) + token;
            store(layer, args->k + from, keys, kv_key_at, token, scales);
            store(layer, args->v + from, values, kv_value_at, token, scales + block_tokens);
            for (int64_t i = dim; i % kv_cell(layer->type); i++)
                memset(keys + kv_key_at(layer, token, i) * bytes, 0, (size_t)bytes);
        }
    }
}
