/* Packing of weight matrices into panels of 16 rows, and reading rows back. */
#include "kernels/panels.h"

#include "base/checked.h"
#include "kernels/quantise.h"

enum { ROWS = CRIA_PANEL_ROWS };

static const char *const NAMES[CRIA_PANEL_COUNT] = {"f32",       "bf16",      "int8",       "q8",      "q4",
                                                    "q4_0",      "q8 fine",   "int8 wide",  "q8 wide", "q4 wide",
                                                    "q4_0 wide", "q4 coarse", "q4_0 coarse"};

const char *cria_panel_type_name(cria_panel_type type) {
    return (unsigned)type < CRIA_PANEL_COUNT ? NAMES[type] : "unknown";
}

cria_panel_type cria_panel_layout(cria_panel_type type) {
    static const cria_panel_type layouts[CRIA_PANEL_COUNT] = {
        CRIA_PANEL_F32, CRIA_PANEL_BF16, CRIA_PANEL_I8, CRIA_PANEL_Q8,   CRIA_PANEL_Q4, CRIA_PANEL_Q4_0, CRIA_PANEL_Q8,
        CRIA_PANEL_I8,  CRIA_PANEL_Q8,   CRIA_PANEL_Q4, CRIA_PANEL_Q4_0, CRIA_PANEL_Q4, CRIA_PANEL_Q4_0};
    return layouts[type];
}

size_t cria_panel_bytes(cria_panel_type type, int64_t cols) {
    if (cols <= 0 || cols > INT64_MAX / 128) return 0; /* no type takes more than 64 bytes a column */
    size_t k = (size_t)cols, groups = (k + CRIA_GROUP - 1) / CRIA_GROUP;
    switch (cria_panel_layout(type)) {
    case CRIA_PANEL_F32:
        return k * ROWS * 4;
    case CRIA_PANEL_BF16:
        return cria_round_up(k, 2) * ROWS * 2;
    case CRIA_PANEL_I8:
        return CRIA_HEAD_I8 + cria_round_up(k, 4) * ROWS;
    case CRIA_PANEL_Q8:
        return cria_round_up(groups * CRIA_GROUP_Q8, 64);
    case CRIA_PANEL_Q4:
        return groups * CRIA_GROUP_Q4;
    case CRIA_PANEL_Q4_0:
        return cria_round_up(groups * CRIA_GROUP_Q4_0, 64);
    default:
        return 0;
    }
}

size_t cria_panels_bytes(cria_panel_type type, int64_t rows, int64_t cols) {
    if (rows <= 0 || rows > INT64_MAX - ROWS) return 0;
    size_t bytes;
    if (!cria_mul_size(((size_t)rows + ROWS - 1) / ROWS, cria_panel_bytes(type, cols), &bytes)) return 0;
    return bytes;
}

size_t cria_prepared_row_bytes(cria_panel_type type, int64_t cols) {
    if (cols <= 0 || cols > INT64_MAX / 128) return 0;
    size_t k = (size_t)cols, groups = (k + CRIA_GROUP - 1) / CRIA_GROUP, bytes = 0;
    switch (type) {
    case CRIA_PANEL_F32:
        bytes = k * 4;
        break;
    case CRIA_PANEL_BF16:
        bytes = k * 2;
        break;
    case CRIA_PANEL_I8:
        bytes = cria_round_up(k, 64) + 8;
        break;
    case CRIA_PANEL_Q8:
    case CRIA_PANEL_Q4_COARSE:
    case CRIA_PANEL_Q4_0_COARSE:
        bytes = groups * (CRIA_GROUP + 8);
        break;
    case CRIA_PANEL_Q4:
    case CRIA_PANEL_Q4_0:
    case CRIA_PANEL_Q8_FINE:
        bytes = groups * (2 * CRIA_GROUP + 8);
        break;
    case CRIA_PANEL_I8_WIDE:
    case CRIA_PANEL_Q8_WIDE:
    case CRIA_PANEL_Q4_WIDE:
    case CRIA_PANEL_Q4_0_WIDE:
        bytes = groups * (2 * CRIA_GROUP + 4) + 4;
        break;
    case CRIA_PANEL_COUNT:
        break;
    }
    /* An odd number of cache lines: then the same column of consecutive rows never falls into the same cache set. */
    return ((bytes + 63) / 64 | 1) * 64;
}

/* The byte of a Q8 or I8 run that holds column k of row r. */
static inline size_t byte_at(int64_t k, int r) {
    return (size_t)(k / 4) * 64 + (size_t)r * 4 + (size_t)(k % 4);
}

/* Sixteen columns at a time, so that the source is read by whole cache lines and the target stays in the cache. */
static void pack_f32(int64_t cols, int64_t stride, const float *rows, float *out) {
    for (int64_t k0 = 0; k0 < cols; k0 += 16) {
        int64_t end = cols - k0 < 16 ? cols : k0 + 16;
        for (int r = 0; r < ROWS; r++) {
            for (int64_t k = k0; k < end; k++) out[k * ROWS + r] = rows[r * stride + k];
        }
    }
}

static void pack_bf16(int64_t cols, int64_t stride, const float *rows, uint16_t *out) {
    for (int64_t k0 = 0; k0 < cols; k0 += 16) {
        int64_t end = cols - k0 < 16 ? cols : k0 + 16;
        for (int r = 0; r < ROWS; r++) {
            for (int64_t k = k0; k < end + (end & 1); k++) { /* the padding of the rows is zero */
                out[(k / 2) * ROWS * 2 + r * 2 + (k & 1)] = cria_f32_to_bf16(rows[r * stride + k]);
            }
        }
    }
}

static void pack_i8(int64_t cols, int64_t stride, const float *rows, uint8_t *out) {
    for (int r = 0; r < ROWS; r++) {
        const float *row = rows + r * stride;
        float inverse, scale = cria_quantise_scale(cria_quantise_largest(row, cols), &inverse);
        memcpy(out + r * 4, &scale, sizeof scale);
        for (int64_t k = 0; k < (cols + 3) / 4 * 4; k++) {
            out[CRIA_HEAD_I8 + byte_at(k, r)] = (uint8_t)(cria_quantise_one(row[k], inverse) + 128);
        }
    }
}

static inline void store_half(uint8_t *out, int r, uint16_t half) {
    memcpy(out + r * 2, &half, sizeof half);
}

static inline float load_half(const uint8_t *in, int r) {
    uint16_t half;
    memcpy(&half, in + r * 2, sizeof half);
    return cria_f16_to_f32(half);
}

/* round(x / d) within [low, high]; 0 for a group without a scale. */
static inline int quantise_half(float x, float d, int low, int high) {
    if (!(fabsf(d) > 0)) return 0;
    float q = x / d;
    if (!(q > (float)low)) return low; /* NaN too */
    return q < (float)high ? (int)lrintf(q) : high;
}

static void pack_q8(int64_t cols, int64_t stride, const float *rows, uint8_t *out) {
    for (int64_t first = 0; first < cols; first += CRIA_GROUP, out += CRIA_GROUP_Q8) {
        int64_t count = cols - first < CRIA_GROUP ? cols - first : CRIA_GROUP;
        for (int r = 0; r < ROWS; r++) {
            const float *x = rows + r * stride + first;
            uint16_t half = cria_f32_to_f16(cria_quantise_largest(x, count) / 127.0f);
            float d = cria_f16_to_f32(half);
            store_half(out, r, half);
            for (int k = 0; k < CRIA_GROUP; k++) {
                out[CRIA_HEAD_Q8 + byte_at(k, r)] = (uint8_t)(quantise_half(x[k], d, -127, 127) + 128);
            }
        }
    }
}

static void pack_q4(int64_t cols, int64_t stride, const float *rows, uint8_t *out) {
    for (int64_t first = 0; first < cols; first += CRIA_GROUP, out += CRIA_GROUP_Q4) {
        int64_t count = cols - first < CRIA_GROUP ? cols - first : CRIA_GROUP;
        for (int r = 0; r < ROWS; r++) {
            const float *x = rows + r * stride + first;
            float low = x[0], high = x[0];
            for (int64_t k = 1; k < count; k++) {
                low = x[k] < low ? x[k] : low;
                high = x[k] > high ? x[k] : high;
            }
            uint16_t half_m = cria_f32_to_f16(low), half_d = cria_f32_to_f16((high - low) / 15.0f);
            float m = cria_f16_to_f32(half_m), d = cria_f16_to_f32(half_d);
            store_half(out, r, half_d);
            store_half(out + CRIA_HEAD_Q8, r, half_m);
            for (int k = 0; k < CRIA_GROUP / 2; k++) {
                int q0 = quantise_half(x[k] - m, d, 0, 15), q1 = quantise_half(x[k + 16] - m, d, 0, 15);
                out[CRIA_HEAD_Q4 + byte_at(k, r)] = (uint8_t)(q0 | q1 << 4);
            }
        }
    }
}

/* The value of largest magnitude becomes 0, that is -8 steps of d. */
static void pack_q4_0(int64_t cols, int64_t stride, const float *rows, uint8_t *out) {
    for (int64_t first = 0; first < cols; first += CRIA_GROUP, out += CRIA_GROUP_Q4_0) {
        for (int r = 0; r < ROWS; r++) {
            const float *x = rows + r * stride + first;
            float most = x[0];
            for (int k = 1; k < CRIA_GROUP; k++) most = fabsf(x[k]) > fabsf(most) ? x[k] : most;
            uint16_t half = cria_f32_to_f16(most / -8.0f);
            float d = cria_f16_to_f32(half);
            store_half(out, r, half);
            for (int k = 0; k < CRIA_GROUP / 2; k++) {
                int q0 = quantise_half(x[k], d, -8, 7) + 8, q1 = quantise_half(x[k + 16], d, -8, 7) + 8;
                out[CRIA_HEAD_Q4_0 + byte_at(k, r)] = (uint8_t)(q0 | q1 << 4);
            }
        }
    }
}

/* bf16 rows as they are, a pair of columns at a time; sixteen pairs of a row are one cache line. */
static void repack_bf16(int64_t cols, const void *const source[ROWS], uint16_t *out) {
    int64_t pairs = (cols + 1) / 2;
    for (int64_t first = 0; first < pairs; first += 16) {
        int64_t end = pairs - first < 16 ? pairs : first + 16;
        for (int r = 0; r < ROWS; r++) {
            for (int64_t pair = first; pair < end; pair++) {
                size_t bytes = !source[r] ? 0 : 2 * pair + 1 < cols ? 4 : 2;
                uint32_t both = 0;
                if (bytes == 4) memcpy(&both, (const uint16_t *)source[r] + 2 * pair, 4);
                if (bytes == 2) memcpy(&both, (const uint16_t *)source[r] + 2 * pair, 2);
                memcpy(out + (pair * ROWS + r) * 2, &both, sizeof both);
            }
        }
    }
}

/* Q8_0 blocks as they are; only the sign moves. */
static void repack_q8_0(int64_t cols, const void *const source[ROWS], uint8_t *out) {
    for (int64_t g = 0; g < cols / CRIA_GROUP; g++, out += CRIA_GROUP_Q8) {
        for (int r = 0; r < ROWS; r++) {
            static const uint8_t zero[34];
            const uint8_t *block = source[r] ? (const uint8_t *)source[r] + g * 34 : zero;
            memcpy(out + r * 2, block, 2);
            for (int k = 0; k < CRIA_GROUP; k++) out[CRIA_HEAD_Q8 + byte_at(k, r)] = block[2 + k] ^ 0x80;
        }
    }
}

/* Q4_0 blocks as they are: their nibbles already lie as the panel wants them. */
static void repack_q4_0(int64_t cols, const void *const source[ROWS], uint8_t *out) {
    for (int64_t g = 0; g < cols / CRIA_GROUP; g++, out += CRIA_GROUP_Q4_0) {
        for (int r = 0; r < ROWS; r++) {
            static const uint8_t zero[18];
            const uint8_t *block = source[r] ? (const uint8_t *)source[r] + (size_t)g * 18 : zero;
            memcpy(out + r * 2, block, 2);
            for (int j = 0; j < 4; j++) memcpy(out + CRIA_HEAD_Q4_0 + j * 64 + r * 4, block + 2 + j * 4, 4);
        }
    }
}

/* Q4_0 and Q4_1 blocks with minima, for where there are no kernels without: m = -8d, which is exact unless it overflows
 * f16. */
static void repack_q4(cria_type type, int64_t cols, const void *const source[ROWS], uint8_t *out) {
    size_t head = type == CRIA_Q4_0 ? 2 : 4;
    for (int64_t g = 0; g < cols / CRIA_GROUP; g++, out += CRIA_GROUP_Q4) {
        for (int r = 0; r < ROWS; r++) {
            static const uint8_t zero[20];
            const uint8_t *block = source[r] ? (const uint8_t *)source[r] + (size_t)g * (head + 16) : zero;
            memcpy(out + r * 2, block, 2);
            if (type == CRIA_Q4_0) {
                store_half(out + CRIA_HEAD_Q8, r, cria_f32_to_f16(-8.0f * load_half(block, 0)));
            } else {
                memcpy(out + CRIA_HEAD_Q8 + r * 2, block + 2, 2);
            }
            for (int j = 0; j < 4; j++) memcpy(out + CRIA_HEAD_Q4 + j * 64 + r * 4, block + head + j * 4, 4);
        }
    }
}

void cria_pack_panel(cria_panel_type panel_type, int64_t cols, cria_type type, const void *const source[ROWS],
                     float *scratch, void *out) {
    panel_type = cria_panel_layout(panel_type);
    if (panel_type == CRIA_PANEL_BF16 && type == CRIA_BF16) {
        repack_bf16(cols, source, out);
        return;
    }
    if (cols % CRIA_GROUP == 0) {
        if (panel_type == CRIA_PANEL_Q8 && type == CRIA_Q8_0) {
            repack_q8_0(cols, source, out);
            return;
        }
        if (panel_type == CRIA_PANEL_Q4_0 && type == CRIA_Q4_0) {
            repack_q4_0(cols, source, out);
            return;
        }
        if (panel_type == CRIA_PANEL_Q4 && (type == CRIA_Q4_0 || type == CRIA_Q4_1)) {
            repack_q4(type, cols, source, out);
            return;
        }
    }
    int64_t stride = (cols + CRIA_GROUP - 1) / CRIA_GROUP * CRIA_GROUP;
    for (int r = 0; r < ROWS; r++) {
        float *row = scratch + r * stride;
        int64_t filled = source[r] ? cols : 0;
        if (source[r]) cria_to_f32(type, source[r], 0, cols, row);
        memset(row + filled, 0, (size_t)(stride - filled) * sizeof *row);
    }
    switch (panel_type) {
    case CRIA_PANEL_F32:
        pack_f32(cols, stride, scratch, out);
        return;
    case CRIA_PANEL_BF16:
        pack_bf16(cols, stride, scratch, out);
        return;
    case CRIA_PANEL_I8:
        pack_i8(cols, stride, scratch, out);
        return;
    case CRIA_PANEL_Q8:
        pack_q8(cols, stride, scratch, out);
        return;
    case CRIA_PANEL_Q4:
        pack_q4(cols, stride, scratch, out);
        return;
    case CRIA_PANEL_Q4_0:
        pack_q4_0(cols, stride, scratch, out);
        return;
    default:
        return;
    }
}

/* Columns [first, first + count) group by group, so that scales are converted once. */
static void row_q8(const uint8_t *panel, int r, int64_t first, int64_t count, float *out) {
    for (int64_t k = first, end = first + count; k < end;) {
        const uint8_t *group = panel + k / CRIA_GROUP * CRIA_GROUP_Q8;
        float d = load_half(group, r);
        for (int64_t last = k / CRIA_GROUP * CRIA_GROUP + CRIA_GROUP; k < end && k < last; k++) {
            *out++ = d * (float)(group[CRIA_HEAD_Q8 + byte_at(k % CRIA_GROUP, r)] - 128);
        }
    }
}

static void row_q4(const uint8_t *panel, int r, int64_t first, int64_t count, float *out) {
    for (int64_t k = first, end = first + count; k < end;) {
        const uint8_t *group = panel + k / CRIA_GROUP * CRIA_GROUP_Q4;
        float d = load_half(group, r), m = load_half(group + CRIA_HEAD_Q8, r);
        for (int64_t last = k / CRIA_GROUP * CRIA_GROUP + CRIA_GROUP; k < end && k < last; k++) {
            uint8_t pair = group[CRIA_HEAD_Q4 + byte_at(k % (CRIA_GROUP / 2), r)];
            *out++ = d * (float)(k % CRIA_GROUP < CRIA_GROUP / 2 ? pair & 15 : pair >> 4) + m;
        }
    }
}

static void row_q4_0(const uint8_t *panel, int r, int64_t first, int64_t count, float *out) {
    for (int64_t k = first, end = first + count; k < end;) {
        const uint8_t *group = panel + k / CRIA_GROUP * CRIA_GROUP_Q4_0;
        float d = load_half(group, r);
        for (int64_t last = k / CRIA_GROUP * CRIA_GROUP + CRIA_GROUP; k < end && k < last; k++) {
            uint8_t pair = group[CRIA_HEAD_Q4_0 + byte_at(k % (CRIA_GROUP / 2), r)];
            *out++ = d * (float)((k % CRIA_GROUP < CRIA_GROUP / 2 ? pair & 15 : pair >> 4) - 8);
        }
    }
}

void cria_panels_row_part(const cria_panels *panels, int64_t row, int64_t first, int64_t count, float *out) {
    const uint8_t *panel =
        (const uint8_t *)panels->data + (size_t)(row / ROWS) * cria_panel_bytes(panels->type, panels->cols);
    const float *f32 = (const float *)(const void *)panel;
    const uint16_t *bf16 = (const uint16_t *)(const void *)panel;
    int r = (int)(row % ROWS);
    switch (cria_panel_layout(panels->type)) {
    case CRIA_PANEL_F32:
        for (int64_t i = 0; i < count; i++) out[i] = f32[(first + i) * ROWS + r];
        return;
    case CRIA_PANEL_BF16:
        for (int64_t i = 0; i < count; i++) {
            int64_t k = first + i;
            out[i] = cria_bf16_to_f32(bf16[(k / 2) * ROWS * 2 + r * 2 + (k & 1)]);
        }
        return;
    case CRIA_PANEL_I8:
        for (int64_t i = 0; i < count; i++) {
            out[i] = f32[r] * (float)(panel[CRIA_HEAD_I8 + byte_at(first + i, r)] - 128);
        }
        return;
    case CRIA_PANEL_Q8:
        row_q8(panel, r, first, count, out);
        return;
    case CRIA_PANEL_Q4:
        row_q4(panel, r, first, count, out);
        return;
    case CRIA_PANEL_Q4_0:
        row_q4_0(panel, r, first, count, out);
        return;
    default:
        return;
    }
}

void cria_panels_row(const cria_panels *panels, int64_t row, float *out) {
    cria_panels_row_part(panels, row, 0, panels->cols, out);
}
