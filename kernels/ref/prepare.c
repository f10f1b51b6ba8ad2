/* Reference preparation of activations. The overlays must give the same bytes. */
#include "kernels/quantise.h"
#include "kernels/ref/ref.h"

/* Quantises `count` values; returns the scale and the sum of the s8. */
static float quantise_run(const float *in, int64_t count, int8_t *out, int32_t *sum) {
    float inverse, scale = cria_quantise_scale(cria_quantise_largest(in, count), &inverse);
    *sum = 0;
    for (int64_t k = 0; k < count; k++) {
        out[k] = cria_quantise_one(in[k], inverse);
        *sum += out[k];
    }
    return scale;
}

static void prepare_i8(const float *in, int64_t cols, uint8_t *out) {
    int32_t sum;
    float scale = quantise_run(in, cols, (int8_t *)out, &sum);
    uint8_t *tail = out + (cols + 63) / 64 * 64;
    sum = (int32_t)((uint32_t)sum * (uint32_t)-128);
    memcpy(tail, &scale, sizeof scale);
    memcpy(tail + 4, &sum, sizeof sum);
}

static float quantise_fine(const float *in, int64_t count, int8_t *out, int32_t *sum) {
    float inverse, scale = cria_quantise_steps(cria_quantise_largest(in, count), CRIA_FINE_STEPS, &inverse);
    *sum = 0;
    for (int64_t k = 0; k < count; k++) *sum += cria_quantise_fine(in[k], inverse, out + k, out + k + CRIA_GROUP);
    return scale;
}

static void prepare_groups(cria_panel_type type, const float *in, int64_t cols, uint8_t *out) {
    int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP;
    bool fine = cria_panel_fine(type);
    int64_t bytes = fine ? 2 * CRIA_GROUP : CRIA_GROUP;
    uint8_t *scales = out + groups * bytes, *offsets = scales + groups * 4;
    for (int64_t g = 0; g < groups; g++) {
        int64_t first = g * CRIA_GROUP, count = cols - first < CRIA_GROUP ? cols - first : CRIA_GROUP;
        int32_t sum;
        int8_t *to = (int8_t *)out + g * bytes;
        float scale = fine ? quantise_fine(in + first, count, to, &sum) : quantise_run(in + first, count, to, &sum);
        float scaled_sum = scale * (float)sum;
        int32_t offset = sum * -128;
        memcpy(scales + g * 4, &scale, sizeof scale);
        if (cria_panel_layout(type) == CRIA_PANEL_Q4) {
            memcpy(offsets + g * 4, &scaled_sum, sizeof scaled_sum);
        } else {
            memcpy(offsets + g * 4, &offset, sizeof offset);
        }
    }
}

static void prepare_wide(cria_panel_type type, const float *in, int64_t cols, uint8_t *out) {
    int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP;
    int64_t run = type == CRIA_PANEL_I8_WIDE ? CRIA_WIDE_RUN : CRIA_GROUP;
    uint8_t *sums = out + groups * 2 * CRIA_GROUP;
    float inverse, scale = cria_quantise_steps(cria_quantise_largest(in, cols), CRIA_WIDE_STEPS, &inverse);
    for (int64_t first = 0; first < cols; first += run) {
        int32_t sum = 0;
        for (int64_t k = first; k < cols && k < first + run; k++) {
            int16_t value = cria_quantise_wide(in[k], inverse);
            memcpy(out + cria_wide_place(k) * 2, &value, sizeof value);
            sum += value;
        }
        float plain = (float)sum;
        uint32_t offset = (uint32_t)sum * (uint32_t)-128;
        memcpy(sums + first / CRIA_GROUP * 4, type == CRIA_PANEL_Q4_WIDE ? (const void *)&plain : &offset, 4);
    }
    memcpy(sums + groups * 4, &scale, sizeof scale);
}

static void prepare_row(cria_panel_type type, const float *in, int64_t cols, void *out) {
    uint16_t *bf16 = out;
    memset(out, 0, cria_prepared_row_bytes(type, cols));
    switch (type) {
    case CRIA_PANEL_F32:
        memcpy(out, in, (size_t)cols * sizeof *in);
        return;
    case CRIA_PANEL_BF16:
        for (int64_t k = 0; k < cols; k++) bf16[k] = cria_f32_to_bf16(in[k]);
        return;
    case CRIA_PANEL_I8:
        prepare_i8(in, cols, out);
        return;
    case CRIA_PANEL_Q8:
    case CRIA_PANEL_Q4:
    case CRIA_PANEL_Q4_0:
    case CRIA_PANEL_Q8_FINE:
    case CRIA_PANEL_Q4_COARSE:
    case CRIA_PANEL_Q4_0_COARSE:
        prepare_groups(type, in, cols, out);
        return;
    case CRIA_PANEL_I8_WIDE:
    case CRIA_PANEL_Q8_WIDE:
    case CRIA_PANEL_Q4_WIDE:
    case CRIA_PANEL_Q4_0_WIDE:
        prepare_wide(type, in, cols, out);
        return;
    case CRIA_PANEL_COUNT:
        return;
    }
}

void cria_ref_prepare(const cria_prepare_args *args, cria_worker *worker) {
    size_t row_bytes = cria_prepared_row_bytes(args->type, args->cols);
    int64_t begin, end;
    while (cria_worker_take(worker, args->tokens, 4, &begin, &end)) {
        for (int64_t t = begin; t < end; t++) {
            prepare_row(args->type, args->in + t * args->in_stride, args->cols,
                        (uint8_t *)args->out + (size_t)t * row_bytes);
        }
    }
}
