/* Paged attention over vectors: tiles of query rows against the pages of one KV head, segment by segment. */
#include "kernels/cpu/body/attention_page.h"
#include "kernels/ref/ref.h"

#include <math.h>

/* One piece of work: up to ATTENTION_ROWS consecutive rows of one sequence and one KV head. Row r of a sequence is
 * query r / group, head r % group of the KV head's group. */
typedef struct {
    const int32_t *blocks;
    int64_t kv_head, rows;
    const float *q[ATTENTION_ROWS];
    float *out[ATTENTION_ROWS];
    int64_t keys[ATTENTION_ROWS]; /* that a row may see; never fewer than the row before */
} attention_item;

/* Where a worker stands in the list of items; it only moves on. */
typedef struct {
    int64_t sequence, items_before;
} attention_cursor;

static inline int64_t tiles_of(const cria_attention_args *args, int64_t sequence) {
    int64_t queries = args->query_begin[sequence + 1] - args->query_begin[sequence];
    return (queries * (args->heads / args->layer->kv_heads) + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
}

static attention_item find_item(const cria_attention_args *args, attention_cursor *at, int64_t index) {
    int64_t kv_heads = args->layer->kv_heads, dim = args->layer->head_dim, group = args->heads / kv_heads;
    int64_t tiles = tiles_of(args, at->sequence);
    while (index >= at->items_before + tiles * kv_heads) {
        at->items_before += tiles * kv_heads;
        tiles = tiles_of(args, ++at->sequence);
    }
    int64_t local = index - at->items_before, first_query = args->query_begin[at->sequence];
    int64_t queries = args->query_begin[at->sequence + 1] - first_query;
    int64_t first = (tiles - 1 - local % tiles) * ATTENTION_ROWS; /* the tiles with most keys first */
    attention_item item = {.blocks = args->block_table + at->sequence * args->table_stride, .kv_head = local / tiles};
    item.rows = queries * group - first < ATTENTION_ROWS ? queries * group - first : ATTENTION_ROWS;
    for (int64_t r = 0; r < item.rows; r++) {
        int64_t query = (first + r) / group, column = (item.kv_head * group + (first + r) % group) * dim;
        item.q[r] = args->q + (first_query + query) * args->q_stride + column;
        item.out[r] = args->out + (first_query + query) * args->out_stride + column;
        item.keys[r] = args->context[at->sequence] - (queries - 1 - query);
    }
    return item;
}

/* K (part 0) or V (part 1) of the page that holds `key`, as f32 in scratch where enough rows share the conversion. */
static const void *page_part(const cria_attention_args *args, const attention_item *item, int64_t key, int part,
                             int64_t rows, float *scratch, cria_type *type) {
    const cria_kv_layer *layer = args->layer;
    int64_t elements = layer->head_dim * layer->block_tokens;
    const char *page = (const char *)layer->pages + item->blocks[key / layer->block_tokens] * layer->block_bytes;
    size_t size = layer->type == CRIA_BF16 ? sizeof(uint16_t) : sizeof(float);
    const void *found = page + (size_t)((item->kv_head * 2 + part) * elements) * size;
    *type = layer->type;
    if (layer->type != CRIA_BF16 || rows <= GROUP_ROWS) return found;
    for (int64_t i = 0; i < elements; i += LANES) vf_store(scratch + i, vf_load_bf16((const uint16_t *)found + i));
    *type = CRIA_F32;
    return scratch;
}

/* Turns the scores of a row's first `keys` keys of a step into weights, and brings its record to the new maximum. */
static void soften_row(float *scores, int64_t keys, float scale, int64_t dim, float *record) {
    vf vectors[ATTENTION_STEP / LANES], least = vf_set(-INFINITY), most = vf_set(record[dim]);
    int64_t count = (keys + LANES - 1) / LANES;
    for (int64_t v = 0; v < count; v++) {
        vf x = vf_load(scores + v * LANES) * vf_set(scale);
        int64_t left = keys - v * LANES;
        if (left < LANES) x = vf_choose(vf_first(left), x, least);
        vectors[v] = x;
        most = vf_max(most, x);
    }
    float new_most = vf_hmax(most);
    vf total = vf_set(0), highest = vf_set(new_most);
    for (int64_t v = 0; v < count; v++) {
        vf weight = vf_exp(vectors[v] - highest);
        vf_store(scores + v * LANES, weight);
        total = total + weight;
    }
    if (new_most > record[dim]) {
        vf shrink = vf_exp(vf_set(record[dim]) - highest);
        for (int64_t d = 0; d < dim; d += LANES) vf_store(record + d, vf_load(record + d) * shrink);
        float factor[LANES];
        vf_store(factor, shrink);
        record[dim + 1] *= factor[0];
        record[dim] = new_most;
    }
    record[dim + 1] += vf_hsum(total);
}

/* Adds keys [key, key + ATTENTION_STEP) to the records of the rows that see them. */
static void add_step(const cria_attention_args *args, const attention_item *item, int64_t key,
                     const attention_scratch *scratch, float *records) {
    int64_t dim = args->layer->head_dim, padded = attention_dim(dim), record = attention_record(dim);
    int64_t block_tokens = args->layer->block_tokens, rows = item->rows, most = item->keys[rows - 1] - key, first = 0;
    if (most > ATTENTION_STEP) most = ATTENTION_STEP;
    cria_type type;
    for (int64_t page = 0; page < most; page += block_tokens) {
        while (item->keys[first] <= key + page) first++;
        const void *keys = page_part(args, item, key + page, 0, rows - first, scratch->page, &type);
        float *scores = scratch->weights + first * ATTENTION_STEP + page;
        score_page(type, item->q + first, rows - first, keys, dim, block_tokens, scores);
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t seen = item->keys[r] - key < ATTENTION_STEP ? item->keys[r] - key : ATTENTION_STEP;
        if (seen <= 0) continue;
        soften_row(scratch->weights + r * ATTENTION_STEP, seen, args->scale, padded, records + r * record);
    }
    first = 0;
    for (int64_t page = 0; page < most; page += block_tokens) {
        while (item->keys[first] <= key + page) first++;
        const void *values = page_part(args, item, key + page, 1, rows - first, scratch->page, &type);
        for (int64_t r = first; r < rows;) {
            int64_t last = r + GROUP_ROWS <= rows ? r + GROUP_ROWS - 1 : r;
            int64_t seen = item->keys[r] - key - page, seen_last = item->keys[last] - key - page;
            if (seen > block_tokens) seen = seen_last = block_tokens;
            const float *weights = scratch->weights + r * ATTENTION_STEP + page;
            if (last > r && seen == seen_last) {
                value_group(type, weights, seen, values, dim, records + r * record, record);
                r += GROUP_ROWS;
            } else {
                value_row(type, weights, seen, values, dim, records + r * record, record);
                r++;
            }
        }
    }
}

static void attend_segment(const cria_attention_args *args, const attention_item *item, int64_t segment,
                           const attention_scratch *scratch, float *records) {
    int64_t dim = attention_dim(args->layer->head_dim), record = attention_record(args->layer->head_dim);
    for (int64_t r = 0; r < item->rows; r++) {
        float *at = records + r * record;
        for (int64_t d = 0; d < dim; d += LANES) vf_store(at + d, vf_set(0));
        at[dim] = -INFINITY;
        at[dim + 1] = 0;
    }
    int64_t begin = segment * ATTENTION_SEGMENT, end = begin + ATTENTION_SEGMENT, keys = item->keys[item->rows - 1];
    if (end > keys) end = keys;
    for (int64_t key = begin; key < end; key += ATTENTION_STEP) add_step(args, item, key, scratch, records);
}

/* Adds a later segment's records to the earlier ones', for the rows that see any of it. */
static void merge_segment(const attention_item *item, int64_t segment, int64_t head_dim, const float *later,
                          float *whole) {
    int64_t dim = attention_dim(head_dim), record = attention_record(head_dim);
    for (int64_t r = 0; r < item->rows; r++, later += record, whole += record) {
        if (item->keys[r] <= segment * ATTENTION_SEGMENT) continue;
        float most = fmaxf(whole[dim], later[dim]), factors[LANES], later_factors[LANES];
        vf factor = vf_exp(vf_set(whole[dim] - most)), later_factor = vf_exp(vf_set(later[dim] - most));
        for (int64_t d = 0; d < dim; d += LANES) {
            vf_store(whole + d, vf_fma(vf_load(later + d), later_factor, vf_load(whole + d) * factor));
        }
        vf_store(factors, factor);
        vf_store(later_factors, later_factor);
        whole[dim + 1] = whole[dim + 1] * factors[0] + later[dim + 1] * later_factors[0];
        whole[dim] = most;
    }
}

static void write_rows(const attention_item *item, int64_t head_dim, const float *records) {
    int64_t dim = attention_dim(head_dim), record = attention_record(head_dim);
    for (int64_t r = 0; r < item->rows; r++, records += record) {
        vf inverse = vf_set(1 / records[dim + 1]);
        int64_t d = 0;
        for (; d + LANES <= head_dim; d += LANES) vf_store(item->out[r] + d, vf_load(records + d) * inverse);
        if (d < head_dim) vf_store_first(item->out[r] + d, head_dim - d, vf_load(records + d) * inverse);
    }
}

static inline int64_t segments_of(const attention_item *item) {
    return (item->keys[item->rows - 1] + ATTENTION_SEGMENT - 1) / ATTENTION_SEGMENT;
}

static attention_scratch worker_scratch(const cria_attention_args *args, int worker) {
    const cria_kv_layer *layer = args->layer;
    size_t bytes = cria_attention_scratch_bytes(layer->block_tokens, args->heads, layer->kv_heads, layer->head_dim);
    float *memory = (float *)((char *)args->scratch + (size_t)worker * bytes);
    return attention_cut(memory, layer->block_tokens, args->heads, layer->kv_heads, layer->head_dim);
}

/* One worker computes all segments of an item. */
static void attend_items(const cria_attention_args *args, cria_worker *worker, int64_t items) {
    attention_scratch scratch = worker_scratch(args, worker->index);
    attention_cursor cursor = {0};
    int64_t begin, end, dim = args->layer->head_dim;
    while (cria_worker_take(worker, items, 1, &begin, &end)) {
        attention_item item = find_item(args, &cursor, begin);
        attend_segment(args, &item, 0, &scratch, scratch.whole);
        for (int64_t segment = 1; segment < segments_of(&item); segment++) {
            attend_segment(args, &item, segment, &scratch, scratch.segment);
            merge_segment(&item, segment, dim, scratch.segment, scratch.whole);
        }
        write_rows(&item, dim, scratch.whole);
    }
}

/* The records of one segment of one item, in the scratch memory of some worker. */
static float *slot_of(const cria_attention_args *args, int64_t slot) {
    int64_t rows = attention_query_rows(args->heads, args->layer->kv_heads);
    attention_scratch scratch = worker_scratch(args, (int)(slot / ATTENTION_SLOTS));
    return scratch.slots + slot % ATTENTION_SLOTS * rows * attention_record(args->layer->head_dim);
}

/* Few items with long contexts: the segments are spread over the workers, and merged after a barrier. */
static void attend_spread(const cria_attention_args *args, cria_worker *worker, int64_t items, int64_t segments) {
    attention_scratch scratch = worker_scratch(args, worker->index);
    attention_cursor cursor = {0};
    int64_t begin, end;
    while (cria_worker_take(worker, items * segments, 1, &begin, &end)) {
        attention_item item = find_item(args, &cursor, begin / segments);
        int64_t segment = begin % segments;
        if (segment < segments_of(&item)) attend_segment(args, &item, segment, &scratch, slot_of(args, begin));
    }
    cria_worker_next(worker);
    cursor = (attention_cursor){0};
    while (cria_worker_take(worker, items, 1, &begin, &end)) {
        attention_item item = find_item(args, &cursor, begin);
        float *whole = slot_of(args, begin * segments);
        for (int64_t segment = 1; segment < segments_of(&item); segment++) {
            merge_segment(&item, segment, args->layer->head_dim, slot_of(args, begin * segments + segment), whole);
        }
        write_rows(&item, args->layer->head_dim, whole);
    }
}

static void attend_rows(const cria_attention_args *args, cria_worker *worker) {
    const cria_kv_layer *layer = args->layer;
    bool supported = (layer->type == CRIA_F32 || layer->type == CRIA_BF16) && layer->block_tokens % 16 == 0 &&
                     ATTENTION_STEP % layer->block_tokens == 0;
    if (!supported) {
        cria_ref_attention(args, worker);
        return;
    }
    int64_t items = 0, longest = 0;
    bool decoding = true;
    for (int64_t s = 0; s < args->sequences; s++) {
        items += tiles_of(args, s) * layer->kv_heads;
        longest = args->context[s] > longest ? args->context[s] : longest;
        decoding &= args->query_begin[s + 1] - args->query_begin[s] <= 1;
    }
    int64_t segments = (longest + ATTENTION_SEGMENT - 1) / ATTENTION_SEGMENT;
    bool spread = decoding && segments > 1 && items % worker->count != 0 && items < 4 * worker->count &&
                  items * segments <= ATTENTION_SLOTS * worker->count;
    if (spread) {
        attend_spread(args, worker, items, segments);
    } else {
        attend_items(args, worker, items);
    }
}
