/* Packed weights: a matrix [rows][cols] cut into panels of 16 rows that serve every batch size with one sequential
 * stream.
 *
 * Panel p holds rows 16p .. 16p+15 (rows beyond the matrix are zero) and all columns, K padded with zeros:
 *   CRIA_PANEL_F32   [cols][16] f32
 *   CRIA_PANEL_BF16  [cols/2][16][2] bf16                            cols padded to 2
 *   CRIA_PANEL_I8    16 f32 scales, then [cols/4][16][4] u8 = q+128  cols padded to 4; q in -127..127, value scale*q
 *   CRIA_PANEL_Q8    per group of 32: 16 f16 d, [8][16][4] u8 = q+128                      value d*q
 *                    (a panel is padded to 64 bytes)
 *   CRIA_PANEL_Q4    per group of 32: 16 f16 d, 16 f16 m, [4][16][4] bytes: the low nibble of byte (j,r,i) is column
 *                    4j+i, the high nibble column 16+4j+i of row r                          value d*q + m, q in 0..15
 *   CRIA_PANEL_Q4_0  the same without m                                                    value d*(q-8)
 *                    (a panel is padded to 64 bytes)
 * Quantised weights are unsigned and quantised activations signed, so that one u8 x s8 dot product serves all of them;
 * the activations carry their sums, which takes off the +128 (+8) exactly. GGUF's Q8_0, Q4_0 and Q4_1 are held exactly.
 *
 * The value of an output element is accumulated over K in one fixed order whatever the batch size, so that a row's
 * result never depends on its neighbours. Any thread may read packed panels; packing different panels at once is safe.
 */
#ifndef CRIA_KERNELS_PANELS_H
#define CRIA_KERNELS_PANELS_H

#include "kernels/tensor.h"

#include <stdbool.h>
#include <stdint.h>

#define CRIA_PANEL_ROWS 16

typedef enum {
    CRIA_PANEL_F32,
    CRIA_PANEL_BF16,
    CRIA_PANEL_I8,
    CRIA_PANEL_Q8,
    CRIA_PANEL_Q4,
    CRIA_PANEL_Q4_0,
    CRIA_PANEL_Q8_FINE, /* the panels of Q8, for activations in two terms: where 8 bits of them would be too coarse */
    /* The same panels for other activations (below): where products of bytes are not the fastest. */
    CRIA_PANEL_I8_WIDE,
    CRIA_PANEL_Q8_WIDE,
    CRIA_PANEL_Q4_WIDE,
    CRIA_PANEL_Q4_0_WIDE,
    CRIA_PANEL_Q4_COARSE,
    CRIA_PANEL_Q4_0_COARSE,
    CRIA_PANEL_COUNT
} cria_panel_type;

typedef struct {
    cria_panel_type type;
    int64_t rows, cols;
    const void *data; /* 64-byte aligned */
} cria_panels;

/* Bytes of the layouts above: before the weights (of a panel of I8, of each group of the others), and of a group. */
enum {
    CRIA_HEAD_I8 = CRIA_PANEL_ROWS * 4,
    CRIA_HEAD_Q8 = CRIA_PANEL_ROWS * 2,
    CRIA_HEAD_Q4 = CRIA_PANEL_ROWS * 4,
    CRIA_HEAD_Q4_0 = CRIA_PANEL_ROWS * 2,
    CRIA_GROUP_Q8 = CRIA_HEAD_Q8 + CRIA_PANEL_ROWS * CRIA_GROUP,
    CRIA_GROUP_Q4 = CRIA_HEAD_Q4 + CRIA_PANEL_ROWS * CRIA_GROUP / 2, /* two weights to a byte */
    CRIA_GROUP_Q4_0 = CRIA_HEAD_Q4_0 + CRIA_PANEL_ROWS * CRIA_GROUP / 2
};

const char *cria_panel_type_name(cria_panel_type type); /* "f32", "bf16", "int8", "q8", "q4", "q4_0", "q8 fine", ... */
/* The first type with the same panels: I8 for I8_WIDE, Q8 for Q8_FINE and so on. */
cria_panel_type cria_panel_layout(cria_panel_type type);
/* Whether its activations are of two terms (below). */
static inline bool cria_panel_fine(cria_panel_type type) {
    return type == CRIA_PANEL_Q4 || type == CRIA_PANEL_Q4_0 || type == CRIA_PANEL_Q8_FINE;
}
/* Bytes of one panel, and of all panels of a matrix; 0 on overflow. */
size_t cria_panel_bytes(cria_panel_type type, int64_t cols);
size_t cria_panels_bytes(cria_panel_type type, int64_t rows, int64_t cols);

/* Packs one panel. source[r] points at the first element of the panel's row r in a dense row of `type` elements of
 * `cols` columns (NULL: a row of zeros). Block types go into Q8/Q4/Q4_0 without rounding where they fit (Q8_0 -> Q8,
 * Q4_0 -> Q4_0, Q4_0/Q4_1 -> Q4, where m = -8d); everything else goes through f32 and is rounded to nearest (I8: scale
 * = max|w|/127 per row; Q8: per group, d rounded to f16 first; Q4: d = (max-min)/15, m = min per group; Q4_0: d = w/-8
 * of the w whose magnitude is largest, so that at least this one is held). `scratch`: 16 * round_up(cols, 32) floats.
 */
void cria_pack_panel(cria_panel_type panel_type, int64_t cols, cria_type type,
                     const void *const source[CRIA_PANEL_ROWS], float *scratch, void *out);
/* Reads columns [0, cols) of one row back as f32, exactly the values that the linear kernel multiplies. */
void cria_panels_row(const cria_panels *panels, int64_t row, float *out);
/* Only columns [first, first + count). */
void cria_panels_row_part(const cria_panels *panels, int64_t row, int64_t first, int64_t count, float *out);

/* Activations prepared for a panel type, one self-contained row after the other, each 64-byte aligned:
 *   F32: cols f32.  BF16: cols bf16 (nearest even).
 *   I8:  round_up(cols, 64) s8; then f32 scale, i32 -128 * sum of the s8.       scale = max|x|/127 of the token
 *   Q8:  groups*32 s8; then groups f32 scales; then groups i32 -128 * sum.      scale = max|x|/127 of the group
 *   Q4:  groups of [32] high, [32] low s8; then groups f32 scales; then groups f32 scale * sum.
 *   Q8_FINE, Q4_0: as Q4, but at last groups i32 -128 * sum.                    scale = max|x|/2032 of the group
 *   Q4_COARSE: as Q8, but at last groups f32 scale * sum; Q4_0_COARSE: as Q8.   scale = max|x|/127 of the group
 *   WIDE: groups*32 s16; then groups i32 or f32; then f32 scale.                scale = max|x|/32767 of the token
 *     Four columns lie in the order 0 2 1 3, as the even and the odd bytes of weights are split. I8_WIDE: -128 * sum of
 *     CRIA_WIDE_RUN columns in each eighth i32, modulo 2^32; Q8_WIDE, Q4_0_WIDE: i32 -128 * sum; Q4_WIDE: f32 sum.
 * The value is scale * s8, or scale * (16 * high + low) with low in -8..7: 8 bits of activations would lose more than 4
 * bits of weights do, but for some layers (docs/benchmarks.md, "Quality"). The sums take off the +128 of the weights,
 * or bring in their minimum. Everything after the columns is zero; a row is an odd number of cache lines long. A token
 * (group) that holds infinity or NaN gets the scale NaN. */
size_t cria_prepared_row_bytes(cria_panel_type type, int64_t cols);

/* Columns of s16 whose products with s8 can be added in 32 bits, and their sum as well: 256 * 127 * 32767 < 2^31. */
enum { CRIA_WIDE_RUN = 8 * CRIA_GROUP };
/* The place of column k in a row of WIDE activations; it is its own inverse. */
static inline int64_t cria_wide_place(int64_t k) {
    return (k & ~(int64_t)3) | (k & 1) << 1 | (k >> 1 & 1);
}

#endif
