/* Reference writing of keys and values into the pages of the KV cache. */
#include "kernels/kv.h"
#include "kernels/ref/ref.h"

/* Element i of `x` goes to `to` + i * step elements; of int8 the scale goes to `scale`. */
static void store(cria_type type, const float *x, int64_t count, void *to, int64_t step, float *scale) {
    float most = 0;
    bool finite = true;
    for (int64_t i = 0; type == CRIA_I8 && i < count; i++) {
        most = fmaxf(most, fabsf(x[i]));
        finite &= isfinite(x[i]) != 0;
    }
    float inverse = kv_inverse(most, finite);
    for (int64_t i = 0; i < count; i++) {
        if (type == CRIA_I8) {
            ((int8_t *)to)[i * step] = finite ? (int8_t)rintf(x[i] * inverse) : 0;
        } else if (type == CRIA_BF16) {
            ((uint16_t *)to)[i * step] = cria_f32_to_bf16(x[i]);
        } else {
            ((float *)to)[i * step] = x[i];
        }
    }
    if (type == CRIA_I8) *scale = kv_scale(most, finite);
}

void cria_ref_kv_store(const cria_kv_store_args *args, cria_worker *worker) {
    const cria_kv_layer *layer = args->layer;
    int64_t block_tokens = layer->block_tokens, dim = layer->head_dim, size = kv_element_bytes(layer->type), begin, end;
    while (cria_worker_take(worker, args->tokens, 1, &begin, &end)) {
        int64_t block = args->slots[begin] / block_tokens, offset = args->slots[begin] % block_tokens;
        char *head = (char *)layer->pages + block * layer->block_bytes;
        for (int64_t h = 0; h < layer->kv_heads; h++, head += kv_head_bytes(layer)) {
            int64_t at = begin * args->stride + h * dim;
            char *values = head + kv_part_bytes(layer);
            float *scales = (float *)(values + kv_part_bytes(layer)) + offset;
            store(layer->type, args->k + at, dim, head + offset * size, block_tokens, scales);
            store(layer->type, args->v + at, dim, values + offset * dim * size, 1, scales + block_tokens);
        }
    }
}
