/* Sizes that the operators over the KV cache and the sampling rows ask of their caller. */
#include "kernels/kernels.h"

#include "base/checked.h"
#include "kernels/attention.h"
#include "kernels/kv.h"

enum { CACHE_LINE = 64 };

size_t cria_kv_block_bytes(cria_type type, int64_t block_tokens, int64_t kv_heads, int64_t head_dim) {
    size_t tokens, key, token, bytes, padded, element = (size_t)kv_element_bytes(type);
    if (block_tokens < 1 || kv_heads < 1 || head_dim < 1) return 0;
    if (!cria_mul_size((size_t)block_tokens, (size_t)kv_heads, &tokens)) return 0;
    key = cria_round_up((size_t)head_dim, KV_CELL_BYTES / element);
    if (!cria_add_size(key, (size_t)head_dim, &token)) return 0;
    if (!cria_mul_size(token, element, &token)) return 0;
    if (type == CRIA_I8 && !cria_add_size(token, 2 * sizeof(float), &token)) return 0; /* the scales */
    if (!cria_mul_size(tokens, token, &bytes) || !cria_add_size(bytes, CACHE_LINE, &padded)) return 0;
    return cria_round_up(bytes, CACHE_LINE);
}

size_t cria_attention_scratch_bytes(int64_t heads, int64_t kv_heads, int64_t head_dim) {
    attention_scratch cut = attention_cut(NULL, heads, kv_heads, head_dim);
    return cria_round_up((size_t)cut.floats * sizeof(float), CACHE_LINE);
}

size_t cria_sample_scratch_bytes(int64_t vocab) {
    return cria_round_up((size_t)vocab * sizeof(float), CACHE_LINE);
}
