/* How attention is cut into work items. Nothing here changes a result: every row of an item adds up its keys in the
 * same order wherever it stands. */
#ifndef CRIA_KERNELS_CPU_BODY_ATTENTION_ITEM_H
#define CRIA_KERNELS_CPU_BODY_ATTENTION_ITEM_H

#include "kernels/attention.h"

/* Memory gives a third of its bandwidth to reads of less than this at a time: where the queries are few, one item takes
 * as many KV heads, which lie side by side in a page, as make a run of this length. */
enum { ATTENTION_RUN_BYTES = 64 << 10 };

/* `heads` KV heads with `head_rows` rows each. Row r of a sequence and KV head is query r / group, head r % group of
 * the KV head's group. */
typedef struct {
    const int32_t *blocks;
    int64_t sequence, kv_head, heads, head_rows;
    const float *q[ATTENTION_ROWS];
    float *out[ATTENTION_ROWS];
    int64_t keys[ATTENTION_ROWS]; /* that a row may see; inside a head never fewer than the row before */
    int64_t most_keys;
} attention_item;

/* What a call's items have in common. */
typedef struct {
    const cria_attention_args *args;
    int64_t group;     /* query heads per KV head */
    int64_t run_heads; /* KV heads of one item where the queries are few */
    int64_t segments;  /* of the longest sequence */
    int64_t items;
    bool decoding; /* no sequence has more than one query */
} attention_plan;

/* Where a worker stands in the list of items: it moves on, or begins again. */
typedef struct {
    int64_t sequence, items_before;
} attention_cursor;

static inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static inline int64_t rows_of(const attention_plan *plan, int64_t sequence) {
    return (plan->args->query_begin[sequence + 1] - plan->args->query_begin[sequence]) * plan->group;
}

/* KV heads of one item of a sequence that has `rows` rows per KV head, divided evenly. */
static inline int64_t item_heads(const attention_plan *plan, int64_t rows) {
    int64_t kv_heads = plan->args->layer->kv_heads, heads = rows > 0 ? ATTENTION_ROWS / rows : 1;
    if (heads > plan->run_heads) heads = plan->run_heads;
    return heads > 1 ? divide_up(kv_heads, divide_up(kv_heads, heads)) : 1;
}

static inline int64_t items_of(const attention_plan *plan, int64_t sequence) {
    int64_t rows = rows_of(plan, sequence);
    return divide_up(rows, ATTENTION_ROWS) * divide_up(plan->args->layer->kv_heads, item_heads(plan, rows));
}

static attention_plan make_plan(const cria_attention_args *args, int workers) {
    const cria_kv_layer *layer = args->layer;
    attention_plan plan = {.args = args, .group = args->heads / layer->kv_heads, .decoding = true};
    int64_t longest = 0;
    for (int64_t s = 0; s < args->sequences; s++) {
        if (args->context[s] > longest) longest = args->context[s];
        plan.decoding &= rows_of(&plan, s) <= plan.group;
    }
    plan.segments = divide_up(longest, ATTENTION_SEGMENT);
    int64_t pieces = args->sequences * layer->kv_heads * plan.segments;
    plan.run_heads = ATTENTION_RUN_BYTES * layer->kv_heads / layer->block_bytes;
    if (plan.run_heads > pieces / (2 * workers)) plan.run_heads = pieces / (2 * workers); /* work for everyone first */
    if (plan.run_heads < 1) plan.run_heads = 1;
    for (int64_t s = 0; s < args->sequences; s++) plan.items += items_of(&plan, s);
    return plan;
}

static attention_item find_item(const attention_plan *plan, attention_cursor *at, int64_t index) {
    const cria_attention_args *args = plan->args;
    int64_t kv_heads = args->layer->kv_heads, dim = args->layer->head_dim, group = plan->group;
    if (index < at->items_before) *at = (attention_cursor){0};
    while (index >= at->items_before + items_of(plan, at->sequence)) at->items_before += items_of(plan, at->sequence++);
    int64_t s = at->sequence, first_query = args->query_begin[s], rows = rows_of(plan, s);
    int64_t heads = item_heads(plan, rows), tiles = divide_up(rows, ATTENTION_ROWS), local = index - at->items_before;
    int64_t first = (tiles - 1 - local % tiles) * ATTENTION_ROWS; /* the tiles with most keys first */
    attention_item item = {.blocks = args->block_table + s * args->table_stride,
                           .sequence = s,
                           .kv_head = local / tiles * heads,
                           .most_keys = 0};
    item.heads = kv_heads - item.kv_head < heads ? kv_heads - item.kv_head : heads;
    item.head_rows = rows - first < ATTENTION_ROWS ? rows - first : ATTENTION_ROWS;
    for (int64_t r = 0; r < item.heads * item.head_rows; r++) {
        int64_t head = item.kv_head + r / item.head_rows, row = first + r % item.head_rows, query = row / group;
        int64_t column = (head * group + row % group) * dim;
        item.q[r] = args->q + (first_query + query) * args->q_stride + column;
        item.out[r] = args->out + (first_query + query) * args->out_stride + column;
        item.keys[r] = args->context[s] - (rows / group - 1 - query);
        if (item.keys[r] > item.most_keys) item.most_keys = item.keys[r];
    }
    return item;
}

static inline int64_t segments_of(const attention_item *item) {
    return divide_up(item->most_keys, ATTENTION_SEGMENT);
}

#endif
