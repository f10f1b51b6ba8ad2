/* A step of attention: one head's rows against the keys and values of ATTENTION_STEP tokens, and what the ways to
 * multiply them (attention_f32.h, attention_bf16.h, attention_i8.h) share. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_STEP_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_STEP_H

#include "kernels/attention.h"
#include "kernels/cpu/body/attention_item.h"
#include "kernels/cpu/row_vector.h"
#include "kernels/kv.h"

#include <math.h>

#define UNROLL _Pragma("clang loop unroll(full)")

enum { STEP_PAGES = ATTENTION_STEP / ATTENTION_LANES }; /* at most */

enum {
    GROUP_ROWS = LANES == 16 ? 8 : 6, /* rows taken together, with two vectors each */
    FEW_ROWS = LANES == 16 ? 4 : 3,   /* up to here four vectors each fit into the registers */
    MOST_VECTORS = 8                  /* of a single row */
};

/* CASE for every number of rows that are taken together. */
#if defined(__AVX512F__)
#define GROUP_SIZES(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#else
#define GROUP_SIZES(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#endif

/* Few rows wait for memory. Loads wait for nothing but lines, so that they run far ahead of the products and take the
 * places of those lines that are asked for ahead: where every line is read several times they do not, and one core
 * gets 20 to 25 GB/s instead of 17 to 19 (docs/benchmarks.md). */
enum { FEW_READS = 4 };

/* What is asked for on the way of a step: in every page of the next step the item's heads, which lie in one piece.
 * Memory gives runs of several parts twice the speed of single ones, and has to have something to do all the time: so
 * the heads are taken one after the other, and while scores become weights, lines are asked for too. */
typedef struct {
    const char *at[STEP_PAGES], *end[STEP_PAGES];
} line_stream;

/* Where to ask for the next `bytes`; `here`, which is being read, where nothing is left. */
static inline const char *next_lines(line_stream *stream, int64_t page, int64_t bytes, const char *here) {
    const char *at = stream->at[page];
    if (at >= stream->end[page]) return here;
    stream->at[page] += bytes;
    return at;
}

/* Of int8: where the scales of a head's keys of a step lie, page by page; those of the values follow a page's. */
typedef struct {
    const float *page[STEP_PAGES];
    int64_t block_tokens;
} step_scales;

/* One head's rows against the 64 keys from `key` on. Row r of the head has its scores, which become weights, at
 * weights + r * ATTENTION_STEP, its packed query at q + r * head_dim. */
typedef struct {
    const cria_attention_args *args;
    const attention_item *item;
    int64_t head, key;
    int64_t keys, pages; /* that the item sees of them, and in how many pages they lie */
    float *weights, *q;
    float *const *records; /* of the head's rows (kernels/attention.h) */
    step_scales scales;    /* of int8 */
} head_step;

/* How rows are multiplied with keys and values. */
typedef struct {
    void (*pack_query)(const float *q, int64_t dim, float *packed);
    void (*score)(const head_step *s, int64_t page, line_stream *stream); /* all keys of one page */
    /* Makes weights of the scores of a row's first `keys` keys. */
    void (*soften)(const head_step *s, int64_t row, int64_t keys);
    void (*add_values)(const head_step *s, line_stream *stream); /* of all pages */
} attention_way;

/* The keys of KV head item->kv_head + head in the page that holds `key`; its values follow, and for int8 the scales. */
static inline const char *page_keys(const cria_kv_layer *layer, const attention_item *item, int64_t key, int64_t head) {
    const char *page = (const char *)layer->pages + item->blocks[key / layer->block_tokens] * layer->block_bytes;
    return page + (item->kv_head + head) * kv_head_bytes(layer);
}
static inline const char *step_keys(const head_step *s, int64_t page) {
    const cria_kv_layer *layer = s->args->layer;
    return page_keys(layer, s->item, s->key + page * layer->block_tokens, s->head);
}

/* The head's first row that sees `key`; there is one. */
static inline int64_t first_row(const head_step *s, int64_t key) {
    int64_t row = 0;
    while (s->item->keys[s->head * s->item->head_rows + row] <= key) row++;
    return row;
}

/* How many of the step's keys row `row` of the head sees: not more than ATTENTION_STEP. */
static inline int64_t seen_keys(const head_step *s, int64_t row) {
    int64_t seen = s->item->keys[s->head * s->item->head_rows + row] - s->key;
    return seen < ATTENTION_STEP ? seen : ATTENTION_STEP;
}

/* Rows that the group of a head which begins with `row` has. */
static inline int64_t group_rows(const head_step *s, int64_t row) {
    return s->item->head_rows - row < GROUP_ROWS ? s->item->head_rows - row : GROUP_ROWS;
}

/* Scores of up to GROUP_ROWS rows, whose packed queries are `dim` floats apart, against all keys of a page. What lies
 * `ahead` bytes further is asked for on the way. */
typedef void group_scorer(cria_type type, const float *q, int64_t rows, const char *keys, int64_t dim,
                          int64_t block_tokens, int64_t ahead, float *scores);

/* The scores of a page, group by group; the first one asks for what comes next. */
VECTOR_INLINE void score_groups(const head_step *s, int64_t page, line_stream *stream, group_scorer *score) {
    const cria_kv_layer *layer = s->args->layer;
    const char *keys = step_keys(s, page);
    int64_t dim = layer->head_dim, at = page * layer->block_tokens;
    int64_t ahead = next_lines(stream, page, kv_key_bytes(layer), keys) - keys;
    for (int64_t row = first_row(s, s->key + at); row < s->item->head_rows; row += GROUP_ROWS, ahead = 0)
        score(layer->type, s->q + row * dim, group_rows(s, row), keys, dim, layer->block_tokens, ahead,
              s->weights + row * ATTENTION_STEP + at);
}

/* A step's values of one head: page by page. */
typedef struct {
    const char *page[STEP_PAGES];
    const char *later[STEP_PAGES]; /* what is asked for next while a page is read, a line for a line */
    int64_t pages, block_tokens, dim;
} step_values;

static inline step_values find_values(const head_step *s, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    step_values values = {.pages = s->pages, .block_tokens = layer->block_tokens, .dim = layer->head_dim};
    for (int64_t p = 0; p < s->pages; p++) {
        values.page[p] = step_keys(s, p) + kv_key_bytes(layer);
        values.later[p] = next_lines(stream, p, kv_value_bytes(layer), values.page[p]);
    }
    return values;
}

/* All is asked for. */
static inline void stop_asking(step_values *values) {
    for (int64_t p = 0; p < values->pages; p++) values->later[p] = values->page[p];
}

static inline step_scales find_scales(const head_step *s) {
    const cria_kv_layer *layer = s->args->layer;
    step_scales scales = {.block_tokens = layer->block_tokens};
    for (int64_t p = 0; p < s->pages; p++)
        scales.page[p] = (const float *)(step_keys(s, p) + kv_key_bytes(layer) + kv_value_bytes(layer));
    return scales;
}

/* The scales of the keys (part 0) or values (1) of the step's keys from `at` on, which share a page. */
static inline vf load_scales(const step_scales *scales, int64_t at, int part) {
    return vf_load(scales->page[at / scales->block_tokens] + part * scales->block_tokens + at % scales->block_tokens);
}

/* Brings a row's record to a new maximum. Seldom, and so not inlined: with it steps of prefill take 8% longer. */
static __attribute__((noinline)) void raise_record(float *record, int64_t dim, float new_most) {
    vf shrink = vf_exp_weight(vf_set(record[dim] - new_most));
    for (int64_t d = 0; d < dim; d += LANES) vf_store(record + d, vf_load(record + d) * shrink);
    float factor[LANES];
    vf_store(factor, shrink);
    record[dim + 1] *= factor[0];
    record[dim] = new_most;
}

/* Turns the scores of a row's first `keys` keys of a step into weights, and brings its record to the new maximum. With
 * `scales` a weight is then multiplied with its value's, which saves multiplying the value. Returns how many vectors of
 * weights there are. */
VECTOR_INLINE int64_t soften_scores(const float *scores, int64_t keys, float scale, const step_scales *scales,
                                    int64_t head_dim, float *record, vf *weights) {
    vf vectors[ATTENTION_STEP / LANES], least = vf_set(-INFINITY);
    int64_t dim = attention_dim(head_dim), count = (keys + LANES - 1) / LANES;
    vf most = vf_set(record[dim]);
    for (int64_t v = 0; v < count; v++) {
        vf x = vf_load(scores + v * LANES) * vf_set(scale);
        if (scales) x = x * load_scales(scales, v * LANES, 0);
        int64_t left = keys - v * LANES;
        if (left < LANES) x = vf_choose(vf_first(left), x, least);
        vectors[v] = x;
        most = vf_max(most, x);
    }
    float new_most = vf_hmax(most);
    vf total = vf_set(0), highest = vf_set(new_most);
    for (int64_t v = 0; v < count; v++) {
        vf weight = vf_exp_weight(vectors[v] - highest);
        weights[v] = scales ? weight * load_scales(scales, v * LANES, 1) : weight;
        total = total + weight;
    }
    if (new_most > record[dim]) raise_record(record, dim, new_most);
    record[dim + 1] += vf_hsum(total);
    return count;
}

#endif
