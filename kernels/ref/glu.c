/* Reference activation, gated or plain. */
#include "kernels/ref/ref.h"

void cria_ref_glu(const cria_glu_args *args, cria_worker *worker) {
    int64_t begin, end;
    while (cria_worker_take(worker, args->tokens, 1, &begin, &end)) {
        const float *gate = args->gate + begin * args->in_stride;
        const float *up = args->up ? args->up + begin * args->in_stride : NULL;
        float *out = args->out + begin * args->out_stride;
        for (int64_t i = 0; i < args->width; i++) {
            double value = cria_ref_activation(args->activation, gate[i]);
            out[i] = (float)(up ? value * up[i] : value);
        }
    }
}
