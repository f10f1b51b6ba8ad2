/* What the linear overlays share: how the work is cut, whatever the instruction set. An instruction set brings the dot
 * products of one or two panels with some tokens, and the epilogue. */
#ifndef CRIA_KERNELS_CPU_LINEAR_H
#define CRIA_KERNELS_CPU_LINEAR_H

#include "kernels/kernels.h"

/* A step is what one 32-bit lane of the weights holds of a row: 1 column of f32, 2 of bf16, 4 of int8; of the grouped
 * types it is a whole group. */
enum {
    CRIA_DOT_PANELS = 2,    /* panels that a call takes at once, so that a value of the activations serves both */
    CRIA_MOST_PANELS = 8,   /* panels of one item; their sums wait in memory while K is walked in chunks */
    CRIA_MOST_TOKENS = 128, /* tokens of one item */
    CRIA_LISTED_TOKENS = 4,
    CRIA_STEP_BYTES = 64, /* of a panel, for the types with listed steps */
    CRIA_LIST_AHEAD = 16  /* lines that are on their way at once */
};

/* sums[p][t][16] += the products of `tokens` prepared rows with the 16 rows of panel p, over steps [first, first +
 * steps). For every element the additions run over K in one order, whatever the tokens, panels and chunks. */
typedef struct {
    const uint8_t *panel[CRIA_DOT_PANELS]; /* from their beginning */
    int panels;
    const uint8_t *rows;
    size_t row_bytes;
    int64_t tokens, cols, first, steps;
    float *sums[CRIA_DOT_PANELS]; /* 64-byte aligned; int8: integers until they are closed */
    bool fresh;                   /* the sums hold nothing yet */
    bool prefetch;                /* the weights come from memory and are used by few tokens */
    size_t panel_bytes;
    int64_t next_panels, next_first; /* the call that follows: its panels are so many further on; its first step */
    const int32_t *list;             /* of a listed dot: its steps, and after them the next panel's first */
} cria_dot;
typedef void cria_dot_panels(const cria_dot *dot);

/* Bias, activation and residual of up to 16 outputs of `tokens` tokens, from sums[t][16] to args->out. */
typedef void cria_finish_panel(const cria_linear_args *args, int64_t first_row, int64_t first_token, int64_t tokens,
                               const float *sums);

typedef struct {
    cria_dot_panels *dot;
    cria_dot_panels *close; /* what is left to do once all steps are added, or NULL */
    cria_finish_panel *finish;
    int64_t step_columns;
    int64_t chunk_steps; /* most steps of one call, so that the weights stay in the first-level cache; a multiple of: */
    int64_t round_steps; /* steps of a call, but for the last of a row */
    int64_t block_tokens; /* most tokens of one call, at most CRIA_MOST_TOKENS; a multiple of: */
    int64_t round_tokens; /* tokens of a call, but for the last of all */
    /* The same as `dot` with one panel and at most CRIA_LISTED_TOKENS tokens, fresh, but only the `steps` steps in
     * dot->list: all others are zero in every token. Asks for list[i + CRIA_LIST_AHEAD] ahead. NULL: not this type. */
    cria_dot_panels *listed;
    /* Up to so many tokens a weight is used once, and all of K is one call: memory gives long runs best. Up to
     * CRIA_LISTED_TOKENS it always is. */
    int64_t stream_tokens;
    /* From so many tokens for each worker on, all workers read all weights, each for tokens of its own: what is
     * multiplied takes longer than to read the weights then, though everybody reads them. */
    int64_t own_tokens;
} cria_linear_kernel;

void cria_linear_run(const cria_linear_args *args, cria_worker *worker, const cria_linear_kernel *kernel);

/* The table entries and parts of them, for a wider instruction set to fall back on where it has nothing better. */
void cria_linear_avx2(const cria_linear_args *args, cria_worker *worker);
void cria_linear_avx512(const cria_linear_args *args, cria_worker *worker);
void cria_linear_avx512vnni(const cria_linear_args *args, cria_worker *worker);
cria_finish_panel cria_finish_avx512;
cria_dot_panels cria_dot_i8_avx512vnni, cria_listed_i8_avx512vnni, cria_close_i8_avx512vnni, cria_dot_q8_avx512vnni,
    cria_dot_q8_fine_avx512vnni, cria_dot_q4_avx512vnni;

/* Instantiates CASE(1) .. CASE(n): a tile's number of tokens must be a constant for its accumulators to be registers.
 */
#define CRIA_TILES_4(CASE) CASE(1) CASE(2) CASE(3) CASE(4)
#define CRIA_TILES_6(CASE) CRIA_TILES_4(CASE) CASE(5) CASE(6)
#define CRIA_TILES_12(CASE) CRIA_TILES_6(CASE) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)

/* From a few tokens on, the products between two loads of weights fill the window in which the processor looks ahead,
 * and it no longer sees the next weights early enough. The distance is that of the memory's latency; reading beyond the
 * last panel is harmless. */
enum { CRIA_PREFETCH_BYTES = 4096 };
#define CRIA_PREFETCH(weights) _mm_prefetch((const char *)(weights) + CRIA_PREFETCH_BYTES, _MM_HINT_T0)
/* Into the second-level cache, which waits for more lines at once than the first (docs/benchmarks.md). */
#define CRIA_PREFETCH_FAR(weights) _mm_prefetch((const char *)(weights) + CRIA_PREFETCH_BYTES, _MM_HINT_T1)

#define CRIA_INLINE static inline __attribute__((always_inline))

/* Bytes from the end of what a call reads of its panels to where the next call begins: behind that end lies the other
 * panel, or a chunk that is not its turn. */
CRIA_INLINE ptrdiff_t cria_skip(const cria_dot *dot, ptrdiff_t step_bytes) {
    return dot->next_panels * (ptrdiff_t)dot->panel_bytes + (dot->next_first - dot->first - dot->steps) * step_bytes;
}
/* Where to ask `left` bytes before that end: further on in the same panel, or else in what the next call reads. */
CRIA_INLINE ptrdiff_t cria_ahead(ptrdiff_t left, ptrdiff_t skip) {
    return left > CRIA_PREFETCH_BYTES ? CRIA_PREFETCH_BYTES : CRIA_PREFETCH_BYTES + skip;
}

/* Under a sanitizer every access of an unrolled tile carries its checks, and the compiler takes minutes: loops then. */
#if !defined(__clang__)
#define CRIA_UNROLL _Pragma("GCC unroll 32")
#elif __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define CRIA_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define CRIA_UNROLL _Pragma("clang loop unroll(full)")
#endif

#endif
