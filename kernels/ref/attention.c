/* Reference attention over the paged cache: two passes over the keys, so that nothing but the definition is in it. */
#include "kernels/kv.h"
#include "kernels/ref/ref.h"

#include <math.h>

/* Where one KV head of one sequence lies. */
typedef struct {
    const cria_kv_layer *layer;
    const int32_t *blocks;
    int64_t head;
} kv_view;

static double load(cria_type type, const void *from, int64_t index) {
    if (type == CRIA_I8) return ((const int8_t *)from)[index];
    return type == CRIA_BF16 ? cria_bf16_to_f32(((const uint16_t *)from)[index]) : ((const float *)from)[index];
}

/* The head's keys in the block of `key`; its values follow, and the scales those. */
static const char *keys_of(const kv_view *kv, int64_t key) {
    int64_t block = kv->blocks[key / kv->layer->block_tokens];
    return (const char *)kv->layer->pages + block * kv->layer->block_bytes + kv->head * kv_head_bytes(kv->layer);
}

/* The scale of the key's vector (part 0) or of its value's (1). */
static double scale_of(const kv_view *kv, int64_t key, int part) {
    const cria_kv_layer *layer = kv->layer;
    if (layer->type != CRIA_I8) return 1;
    const float *scales = (const float *)(keys_of(kv, key) + kv_key_bytes(layer) + kv_value_bytes(layer));
    return scales[part * layer->block_tokens + key % layer->block_tokens];
}

static double score_of(const kv_view *kv, int64_t key, const float *q, float scale) {
    const cria_kv_layer *layer = kv->layer;
    const char *keys = keys_of(kv, key);
    double sum = 0;
    for (int64_t i = 0; i < layer->head_dim; i++)
        sum += q[i] * load(layer->type, keys, kv_key_at(layer, key % layer->block_tokens, i));
    return sum * scale_of(kv, key, 0) * scale;
}

static void add_value(const kv_view *kv, int64_t key, double weight, double *sum) {
    const cria_kv_layer *layer = kv->layer;
    const char *values = keys_of(kv, key) + kv_key_bytes(layer);
    int64_t dim = layer->head_dim, token = key % layer->block_tokens;
    weight *= scale_of(kv, key, 1);
    for (int64_t i = 0; i < dim; i++) sum[i] += weight * load(layer->type, values, kv_value_at(layer, token, i));
}

static void attend(const kv_view *kv, int64_t keys, const float *q, float scale, double *sum, float *out) {
    int64_t dim = kv->layer->head_dim;
    double most = -INFINITY, total = 0;
    for (int64_t key = 0; key < keys; key++) most = fmax(most, score_of(kv, key, q, scale));
    for (int64_t i = 0; i < dim; i++) sum[i] = 0;
    for (int64_t key = 0; key < keys; key++) {
        double weight = exp(score_of(kv, key, q, scale) - most);
        total += weight;
        add_value(kv, key, weight, sum);
    }
    for (int64_t i = 0; i < dim; i++) out[i] = (float)(sum[i] / total);
}

void cria_ref_attention(const cria_attention_args *args, cria_worker *worker) {
    const cria_kv_layer *layer = args->layer;
    int64_t dim = layer->head_dim, rows = args->query_begin[args->sequences], begin, end, sequence = 0;
    size_t scratch = cria_attention_scratch_bytes(args->heads, layer->kv_heads, dim);
    double *sum = (double *)((char *)args->scratch + (size_t)worker->index * scratch);
    while (cria_worker_take(worker, rows * args->heads, 1, &begin, &end)) {
        int64_t row = begin / args->heads, head = begin % args->heads;
        if (row < args->query_begin[sequence]) sequence = 0; /* what is left of another worker's part */
        while (args->query_begin[sequence + 1] <= row) sequence++;
        int64_t keys = args->context[sequence] - (args->query_begin[sequence + 1] - 1 - row);
        kv_view kv = {layer, args->block_table + sequence * args->table_stride, head / (args->heads / layer->kv_heads)};
        attend(&kv, keys, args->q + row * args->q_stride + head * dim, args->scale, sum,
               args->out + row * args->out_stride + head * dim);
    }
}
