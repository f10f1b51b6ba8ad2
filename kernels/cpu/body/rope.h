/* Rotary embedding over vectors. */
#include "kernels/cpu/row_vector.h"
#include "kernels/kernels.h"

VECTOR_INLINE void rope_pair(vf low, vf high, vf cosine, vf sine, vf *new_low, vf *new_high) {
    *new_low = vf_fma(low, cosine, vf_set(0) - high * sine);
    *new_high = vf_fma(high, cosine, low * sine);
}

/* The last pairs of a head, fewer than LANES. */
static void rope_rest(float *x, int64_t half, const float *angles, int64_t count) {
    float cosines[LANES] = {0}, sines[LANES] = {0};
    for (int64_t i = 0; i < count; i++) {
        cosines[i] = angles[2 * i];
        sines[i] = angles[2 * i + 1];
    }
    vf low, high;
    rope_pair(vf_load_first(x, count), vf_load_first(x + half, count), vf_load(cosines), vf_load(sines), &low, &high);
    vf_store_first(x, count, low);
    vf_store_first(x + half, count, high);
}

static void rope_token(const cria_rope_args *args, float *x, const float *angles) {
    int64_t half = args->head_dim / 2, i = 0;
    for (; i + LANES <= half; i += LANES) {
        vf cosine, sine;
        vf_load_pairs(angles + 2 * i, &cosine, &sine);
        for (int64_t head = 0; head < args->heads; head++) {
            float *at = x + head * args->head_dim + i;
            vf low, high;
            rope_pair(vf_load(at), vf_load(at + half), cosine, sine, &low, &high);
            vf_store(at, low);
            vf_store(at + half, high);
        }
    }
    if (i == half) return;
    for (int64_t head = 0; head < args->heads; head++) {
        rope_rest(x + head * args->head_dim + i, half, angles + 2 * i, half - i);
    }
}

static void rope_rows(const cria_rope_args *args, cria_worker *worker) {
    int64_t begin, end, chunk = cria_worker_chunk(worker, args->tokens, args->heads * args->head_dim);
    while (cria_worker_take(worker, args->tokens, chunk, &begin, &end)) {
        for (int64_t t = begin; t < end; t++)
            rope_token(args, args->x + t * args->stride, args->table + args->positions[t] * (args->head_dim & ~1));
    }
}
