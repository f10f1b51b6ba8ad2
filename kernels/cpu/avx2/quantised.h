/* AVX2: dot products over the quantised panels. */
#ifndef CRIA_KERNELS_CPU_AVX2_QUANTISED_H
#define CRIA_KERNELS_CPU_AVX2_QUANTISED_H

#include "kernels/cpu/linear.h"

cria_dot_panels cria_dot_i8_avx2, cria_dot_q8_avx2, cria_dot_q4_avx2, cria_dot_q4_coarse_avx2, cria_dot_q4_0_avx2,
    cria_dot_q4_0_coarse_avx2;
cria_dot_panels cria_close_i8_avx2, cria_close_grouped_avx2; /* of the wide types */

/* Groups of 32 columns of one call with more than a few tokens. */
enum { CRIA_CHUNK_GROUPS = CRIA_WIDE_RUN / CRIA_GROUP };

/* The rows of a tile of up to six tokens behind two pointers: each row is at one of them or one or two strides beyond,
 * which an address says by itself. Left alone, the compiler adds up addresses before every broadcast. */
typedef struct {
    const uint8_t *low, *high;
    size_t stride;
} cria_tile_rows;

CRIA_INLINE cria_tile_rows cria_advance(cria_tile_rows rows, size_t bytes) {
    rows.low += bytes;
    rows.high += bytes;
    __asm__("" : "+r"(rows.low), "+r"(rows.high));
    return rows;
}
CRIA_INLINE cria_tile_rows cria_rows_at(const uint8_t *first, size_t stride, size_t bytes) {
    return cria_advance((cria_tile_rows){first, first + 3 * stride, stride}, bytes);
}
CRIA_INLINE const uint8_t *cria_row_at(cria_tile_rows rows, int t) {
    return t < 3 ? rows.low + (size_t)t * rows.stride : rows.high + (size_t)(t - 3) * rows.stride;
}

/* The panels come one after the other: how far behind the beginning of what a call reads of one that of what is read
 * next lies, of the second panel or of the next call's first. */
CRIA_INLINE ptrdiff_t cria_next_read(const cria_dot *dot, const uint8_t *panel, ptrdiff_t step_bytes) {
    ptrdiff_t each = (ptrdiff_t)dot->panel_bytes;
    if (panel != dot->panel[dot->panels - 1]) return each;
    return cria_skip(dot, step_bytes) + dot->steps * step_bytes - (dot->panels - 1) * each;
}

typedef void cria_tile(const cria_dot *dot, const uint8_t *panel, const uint8_t *rows, int64_t tokens, float *sums);

/* Every panel of a call with all its tokens, in tiles of at most `most` tokens and as even as can be. */
static inline void cria_each_tile(const cria_dot *dot, int64_t most, cria_tile *tile) {
    int64_t tiles = (dot->tokens + most - 1) / most;
    for (int p = 0; p < dot->panels; p++) {
        for (int64_t i = 0; i < tiles; i++) {
            int64_t first = dot->tokens * i / tiles, tokens = dot->tokens * (i + 1) / tiles - first;
            tile(dot, dot->panel[p], dot->rows + (size_t)first * dot->row_bytes, tokens,
                 dot->sums[p] + first * CRIA_PANEL_ROWS);
        }
    }
}

#endif
