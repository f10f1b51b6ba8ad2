/* Reference rotary embedding. */
#include "kernels/ref/ref.h"

void cria_ref_rope(const cria_rope_args *args, cria_worker *worker) {
    int64_t begin, end, half = args->head_dim / 2;
    while (cria_worker_take(worker, args->tokens, 1, &begin, &end)) {
        const float *angles = args->table + args->positions[begin] * 2 * half;
        for (int64_t head = 0; head < args->heads; head++) {
            float *x = args->x + begin * args->stride + head * args->head_dim;
            for (int64_t i = 0; i < half; i++) {
                double cosine = angles[2 * i], sine = angles[2 * i + 1];
                double low = x[i], high = x[i + half];
                x[i] = (float)(low * cosine - high * sine);
                x[i + half] = (float)(high * cosine + low * sine);
            }
        }
    }
}
