/* Layer norm and RMS norm over vectors. */
#include "kernels/cpu/row_vector.h"
#include "kernels/kernels.h"

#include <math.h>

enum { NORM_CHAINS = 4 }; /* vectors that are summed independently */

VECTOR_INLINE vf norm_load(const float *p, int64_t left) {
    return left >= LANES ? vf_load(p) : vf_load_first(p, left);
}

static float sum_row(const float *in, int64_t width) {
    vf sum[NORM_CHAINS] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};
    int64_t i = 0;
    for (; i + NORM_CHAINS * LANES <= width; i += NORM_CHAINS * LANES) {
        for (int c = 0; c < NORM_CHAINS; c++) sum[c] = sum[c] + vf_load(in + i + c * LANES);
    }
    for (; i < width; i += LANES) sum[0] = sum[0] + norm_load(in + i, width - i);
    return vf_hsum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* Sums of the differences from `centre` and of their squares. */
static void sum_differences(const float *in, int64_t width, float centre, float *sum, float *squares) {
    vf first[NORM_CHAINS] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)}, second[NORM_CHAINS], c = vf_set(centre);
    for (int k = 0; k < NORM_CHAINS; k++) second[k] = vf_set(0);
    int64_t i = 0;
    for (; i + NORM_CHAINS * LANES <= width; i += NORM_CHAINS * LANES) {
        for (int k = 0; k < NORM_CHAINS; k++) {
            vf x = vf_load(in + i + k * LANES) - c;
            first[k] = first[k] + x;
            second[k] = vf_fma(x, x, second[k]);
        }
    }
    for (; i < width; i += LANES) {
        int64_t left = width - i < LANES ? width - i : LANES;
        vf x = vf_choose(vf_first(left), norm_load(in + i, left) - c, vf_set(0));
        first[0] = first[0] + x;
        second[0] = vf_fma(x, x, second[0]);
    }
    *sum = vf_hsum((first[0] + first[1]) + (first[2] + first[3]));
    *squares = vf_hsum((second[0] + second[1]) + (second[2] + second[3]));
}

static void norm_row(const cria_norm_args *args, const float *in, float *out) {
    float width = (float)args->width, mean = 0, sum, squares;
    if (!args->rms) mean = sum_row(in, args->width) / width;
    sum_differences(in, args->width, mean, &sum, &squares);
    /* What rounding left of the mean shows in the sum of the differences. */
    vf centre = vf_set(mean), error = vf_set(args->rms ? 0 : sum / width);
    vf scale = vf_set(1 / sqrtf(squares / width + args->eps));
    for (int64_t i = 0; i < args->width; i += LANES) {
        int64_t left = args->width - i;
        vf x = ((norm_load(in + i, left) - centre) - error) * scale;
        if (args->weight) x = x * norm_load(args->weight + i, left);
        if (args->bias) x = x + norm_load(args->bias + i, left);
        if (left >= LANES) {
            vf_store(out + i, x);
        } else {
            vf_store_first(out + i, left, x);
        }
    }
}

static void norm_rows(const cria_norm_args *args, cria_worker *worker) {
    int64_t begin, end, chunk = cria_worker_chunk(worker, args->tokens, args->width);
    while (cria_worker_take(worker, args->tokens, chunk, &begin, &end)) {
        for (int64_t t = begin; t < end; t++)
            norm_row(args, args->in + t * args->in_stride, args->out + t * args->out_stride);
    }
}
