/* Reference linear layer: every product and sum in double, over the values that the packed panels and the prepared rows
 * stand for. */
#include "kernels/ref/ref.h"

enum { TILE = 8, BLOCK = CRIA_GROUP, ROWS = CRIA_PANEL_ROWS };

/* Columns [first, first + count) of a prepared row, count <= 32 and first a multiple of 32. */
static void read_prepared(cria_panel_type type, int64_t cols, const uint8_t *row, int64_t first, int64_t count,
                          double *out) {
    const uint16_t *bf16 = (const uint16_t *)(const void *)row;
    float scale = 1;
    switch (type) {
    case CRIA_PANEL_F32:
        for (int64_t i = 0; i < count; i++) out[i] = ((const float *)(const void *)row)[first + i];
        return;
    case CRIA_PANEL_BF16:
        for (int64_t i = 0; i < count; i++) out[i] = cria_bf16_to_f32(bf16[first + i]);
        return;
    case CRIA_PANEL_I8:
        memcpy(&scale, row + (cols + 63) / 64 * 64, sizeof scale);
        break;
    case CRIA_PANEL_Q4:
    case CRIA_PANEL_Q4_0:
    case CRIA_PANEL_Q8_FINE: {
        int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP, group = first / CRIA_GROUP;
        const int8_t *high = (const int8_t *)row + group * 2 * CRIA_GROUP;
        memcpy(&scale, row + groups * 2 * CRIA_GROUP + group * 4, sizeof scale);
        for (int64_t i = 0; i < count; i++) out[i] = (double)scale * (16 * high[i] + high[i + CRIA_GROUP]);
        return;
    }
    case CRIA_PANEL_I8_WIDE:
    case CRIA_PANEL_Q8_WIDE:
    case CRIA_PANEL_Q4_WIDE:
    case CRIA_PANEL_Q4_0_WIDE: {
        int64_t groups = (cols + CRIA_GROUP - 1) / CRIA_GROUP;
        const int16_t *wide = (const int16_t *)(const void *)row;
        memcpy(&scale, row + groups * (2 * CRIA_GROUP + 4), sizeof scale);
        for (int64_t i = 0; i < count; i++) out[i] = (double)scale * wide[cria_wide_place(first + i)];
        return;
    }
    case CRIA_PANEL_Q8:
    case CRIA_PANEL_Q4_COARSE:
    case CRIA_PANEL_Q4_0_COARSE:
        memcpy(&scale, row + (cols + CRIA_GROUP - 1) / CRIA_GROUP * CRIA_GROUP + first / CRIA_GROUP * 4, sizeof scale);
        break;
    case CRIA_PANEL_COUNT:
        return;
    }
    for (int64_t i = 0; i < count; i++) out[i] = (double)scale * ((const int8_t *)row)[first + i];
}

/* sum[t][r] of one panel and up to TILE tokens; weights are decoded once for all of them. */
static void dot_panel(const cria_linear_args *args, int64_t first_row, int64_t rows, int64_t first_token,
                      int64_t tokens, double sum[TILE][ROWS]) {
    const cria_panels *weight = args->weight;
    size_t row_bytes = cria_prepared_row_bytes(weight->type, weight->cols);
    memset(sum, 0, sizeof(double) * TILE * ROWS);
    for (int64_t k = 0; k < weight->cols; k += BLOCK) {
        int64_t count = weight->cols - k < BLOCK ? weight->cols - k : BLOCK;
        float w[ROWS][BLOCK];
        for (int64_t r = 0; r < rows; r++) cria_panels_row_part(weight, first_row + r, k, count, w[r]);
        for (int64_t t = 0; t < tokens; t++) {
            double x[BLOCK];
            const uint8_t *row = (const uint8_t *)args->in + (size_t)(first_token + t) * row_bytes;
            read_prepared(weight->type, weight->cols, row, k, count, x);
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t i = 0; i < count; i++) sum[t][r] += x[i] * w[r][i];
            }
        }
    }
}

static void finish(const cria_linear_args *args, int64_t n, int64_t t, double sum) {
    double value = cria_ref_activation(args->activation, sum + (args->bias ? args->bias[n] : 0));
    if (args->residual) value += args->residual[t * args->residual_stride + n];
    args->out[t * args->out_stride + n] = (float)value;
}

void cria_ref_linear(const cria_linear_args *args, cria_worker *worker) {
    int64_t panels = (args->weight->rows + ROWS - 1) / ROWS, begin, end;
    while (cria_worker_take(worker, panels, 1, &begin, &end)) {
        int64_t first = begin * ROWS, left = args->weight->rows - first, rows = left < ROWS ? left : ROWS;
        for (int64_t t0 = 0; t0 < args->tokens; t0 += TILE) {
            double sum[TILE][ROWS];
            int64_t tokens = args->tokens - t0 < TILE ? args->tokens - t0 : TILE;
            dot_panel(args, first, rows, t0, tokens, sum);
            for (int64_t t = 0; t < tokens; t++) {
                for (int64_t r = 0; r < rows; r++) finish(args, first + r, t0 + t, sum[t][r]);
            }
        }
    }
}
