/* Activation, gated or plain, over vectors. */
#include "kernels/cpu/row_vector.h"
#include "kernels/kernels.h"

enum { GLU_CHUNK = 1024 }; /* values of one work item: every value stands alone, so that a row may be cut anywhere */

VECTOR_INLINE void glu_chunk(cria_activation_name name, const float *gate, const float *up, int64_t count, float *out) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        vf x = vf_activation(name, vf_load(gate + i));
        vf_store(out + i, up ? x * vf_load(up + i) : x);
    }
    if (i == count) return;
    vf x = vf_activation(name, vf_load_first(gate + i, count - i));
    vf_store_first(out + i, count - i, up ? x * vf_load_first(up + i, count - i) : x);
}

static void glu_values(cria_activation_name name, const float *gate, const float *up, int64_t count, float *out) {
    switch (name) { /* constants, so that each loop holds one activation */
#define CASE(NAME)                                                                                                     \
    case NAME:                                                                                                         \
        glu_chunk(NAME, gate, up, count, out);                                                                         \
        break;
        CASE(CRIA_ACT_RELU)
        CASE(CRIA_ACT_GELU)
        CASE(CRIA_ACT_GELU_TANH)
        CASE(CRIA_ACT_SILU)
        CASE(CRIA_ACT_QUICK_GELU)
        CASE(CRIA_ACT_TANH)
        CASE(CRIA_ACT_SIGMOID)
        CASE(CRIA_ACT_RELU2)
#undef CASE
    case CRIA_ACT_NONE:
    case CRIA_ACT_COUNT:
        glu_chunk(CRIA_ACT_NONE, gate, up, count, out);
        break;
    }
}

static void glu_rows(const cria_glu_args *args, cria_worker *worker) {
    int64_t begin, end, chunks = (args->width + GLU_CHUNK - 1) / GLU_CHUNK, items = args->tokens * chunks;
    while (cria_worker_take(worker, items, cria_worker_chunk(worker, items, GLU_CHUNK), &begin, &end)) {
        for (int64_t item = begin; item < end; item++) {
            int64_t token = item / chunks, first = item % chunks * GLU_CHUNK;
            int64_t count = args->width - first < GLU_CHUNK ? args->width - first : GLU_CHUNK;
            const float *gate = args->gate + token * args->in_stride + first;
            const float *up = args->up ? args->up + token * args->in_stride + first : NULL;
            glu_values(args->activation, gate, up, count, args->out + token * args->out_stride + first);
        }
    }
}
