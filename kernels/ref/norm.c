/* Reference layer norm and RMS norm. */
#include "kernels/ref/ref.h"

#include <math.h>

static void norm_row(const cria_norm_args *args, const float *in, float *out) {
    double mean = 0, squares = 0;
    if (!args->rms) {
        for (int64_t i = 0; i < args->width; i++) mean += in[i];
        mean /= (double)args->width;
    }
    for (int64_t i = 0; i < args->width; i++) squares += (in[i] - mean) * (in[i] - mean);
    double scale = 1 / sqrt(squares / (double)args->width + args->eps);
    for (int64_t i = 0; i < args->width; i++) {
        double value = (in[i] - mean) * scale;
        if (args->weight) value *= args->weight[i];
        if (args->bias) value += args->bias[i];
        out[i] = (float)value;
    }
}

void cria_ref_norm(const cria_norm_args *args, cria_worker *worker) {
    int64_t begin, end;
    while (cria_worker_take(worker, args->tokens, 1, &begin, &end)) {
        norm_row(args, args->in + begin * args->in_stride, args->out + begin * args->out_stride);
    }
}
