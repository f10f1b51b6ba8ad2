/* Paged attention over vectors: the rows of an item against the pages, step by step and segment by segment. */
#if defined(__AVX512BF16__)
#include "kernels/cpu/body/attention_bf16.h"
#endif
#include "kernels/cpu/body/attention_f32.h"
#if defined(__AVX512VNNI__)
#include "kernels/cpu/body/attention_i8.h"
#endif
#include "kernels/ref/ref.h"

/* The fastest way that this instruction set has for the layer. */
static const attention_way *find_way(const cria_kv_layer *layer) {
#if defined(__AVX512BF16__)
    if (layer->type == CRIA_BF16) return &BF16_WAY;
#endif
#if defined(__AVX512VNNI__)
    if (i8_fits(layer)) return &I8_WAY;
#endif
    (void)layer;
    return &F32_WAY;
}

static line_stream find_stream(const cria_kv_layer *layer, const attention_item *item, int64_t key) {
    line_stream stream = {{0}, {0}};
    for (int64_t p = 0; p * layer->block_tokens < ATTENTION_STEP; p++) {
        if (key + p * layer->block_tokens >= item->most_keys) break;
        stream.at[p] = page_keys(layer, item, key + p * layer->block_tokens, 0);
        stream.end[p] = stream.at[p] + item->heads * kv_head_bytes(layer);
    }
    return stream;
}

enum { SOFTEN_LINES = 12 }; /* of each page, asked for while a head's scores become weights */

VECTOR_INLINE void soften_head(const attention_way *way, const head_step *s, line_stream *stream) {
    int64_t lines = SOFTEN_LINES / s->item->head_rows;
    for (int64_t row = 0; row < s->item->head_rows; row++) {
        int64_t seen = seen_keys(s, row);
        if (seen <= 0) continue;
        for (int64_t p = 0; p < s->pages && lines > 0; p++) {
            const char *later = next_lines(stream, p, lines * 64, step_keys(s, p));
            for (int64_t line = 0; line < lines; line++) _mm_prefetch(later + line * 64, _MM_HINT_T1);
        }
        way->soften(s, row, seen);
    }
}

/* Adds keys [key, key + ATTENTION_STEP) to the records of the rows that see them. Each way is inlined into a copy of
 * this: calls through pointers cost a tenth of the time of a step with few rows. */
VECTOR_INLINE void add_step_by(const attention_way *way, const cria_attention_args *args, const attention_item *item,
                               int64_t key, const attention_scratch *scratch, float *const *records) {
    const cria_kv_layer *layer = args->layer;
    line_stream stream = find_stream(layer, item, key + ATTENTION_STEP);
    int64_t keys = item->most_keys - key < ATTENTION_STEP ? item->most_keys - key : ATTENTION_STEP;
    for (int64_t head = 0; head < item->heads; head++) {
        int64_t first = head * item->head_rows;
        head_step s = {.args = args,
                       .item = item,
                       .head = head,
                       .key = key,
                       .keys = keys,
                       .pages = divide_up(keys, layer->block_tokens),
                       .weights = scratch->weights + first * ATTENTION_STEP,
                       .q = scratch->q + first * layer->head_dim,
                       .records = records + first};
        if (layer->type == CRIA_I8) s.scales = find_scales(&s);
        for (int64_t p = 0; p < s.pages; p++) way->score(&s, p, &stream);
        soften_head(way, &s, &stream);
        way->add_values(&s, &stream);
    }
}

static void add_step(const cria_attention_args *args, const attention_item *item, int64_t key,
                     const attention_scratch *scratch, float *const *records) {
    const attention_way *way = find_way(args->layer);
#if defined(__AVX512BF16__)
    if (way == &BF16_WAY) {
        add_step_by(&BF16_WAY, args, item, key, scratch, records);
        return;
    }
#endif
#if defined(__AVX512VNNI__)
    if (way == &I8_WAY) {
        add_step_by(&I8_WAY, args, item, key, scratch, records);
        return;
    }
#endif
    (void)way;
    add_step_by(&F32_WAY, args, item, key, scratch, records);
}

/* A row's lines, each of which would be waited for: rows lie too far apart to be foreseen. */
static void ask_for_row(const float *row, int64_t dim) {
    for (int64_t d = 0; d < dim; d += 16) _mm_prefetch((const char *)(row + d), _MM_HINT_T1);
}

/* The queries side by side: rows of a wide model lie a multiple of 4096 bytes apart, in the same few sets of a cache.
 */
static void pack_queries(const cria_kv_layer *layer, const attention_item *item, float *packed) {
    const attention_way *way = find_way(layer);
    const int64_t rows = item->heads * item->head_rows, dim = layer->head_dim;
    for (int64_t r = 0; r < rows; r++) ask_for_row(item->q[r], dim);
    for (int64_t r = 0; r < rows; r++) way->pack_query(item->q[r], dim, packed + r * dim);
    for (int64_t r = 0; r < rows; r++) ask_for_row(item->out[r], dim);
}

static void attend_segment(const cria_attention_args *args, const attention_item *item, int64_t segment,
                           const attention_scratch *scratch, float *const *records) {
    int64_t dim = attention_dim(args->layer->head_dim);
    for (int64_t r = 0; r < item->heads * item->head_rows; r++) {
        for (int64_t d = 0; d < dim; d += LANES) vf_store(records[r] + d, vf_set(0));
        records[r][dim] = -INFINITY;
        records[r][dim + 1] = 0;
    }
    int64_t begin = segment * ATTENTION_SEGMENT, end = begin + ATTENTION_SEGMENT;
    if (end > item->most_keys) end = item->most_keys;
    for (int64_t key = begin; key < end; key += ATTENTION_STEP) add_step(args, item, key, scratch, records);
}

/* Adds a later segment's records to the earlier ones', for the rows that see any of it. */
static void merge_segment(const attention_item *item, int64_t segment, int64_t head_dim, float *const *later,
                          float *const *whole) {
    int64_t dim = attention_dim(head_dim);
    for (int64_t r = 0; r < item->heads * item->head_rows; r++) {
        if (item->keys[r] <= segment * ATTENTION_SEGMENT) continue;
        float *to = whole[r], most = fmaxf(to[dim], later[r][dim]), factors[LANES], later_factors[LANES];
        vf factor = vf_exp_weight(vf_set(to[dim] - most)), later_factor = vf_exp_weight(vf_set(later[r][dim] - most));
        for (int64_t d = 0; d < dim; d += LANES) {
            vf_store(to + d, vf_fma(vf_load(later[r] + d), later_factor, vf_load(to + d) * factor));
        }
        vf_store(factors, factor);
        vf_store(later_factors, later_factor);
        to[dim + 1] = to[dim + 1] * factors[0] + later[r][dim + 1] * later_factors[0];
        to[dim] = most;
    }
}

static void write_rows(const attention_item *item, int64_t head_dim, float *const *records) {
    int64_t dim = attention_dim(head_dim);
    for (int64_t r = 0; r < item->heads * item->head_rows; r++) {
        vf inverse = vf_set(1 / records[r][dim + 1]);
        int64_t d = 0;
        for (; d + LANES <= head_dim; d += LANES) vf_store(item->out[r] + d, vf_load(records[r] + d) * inverse);
        if (d < head_dim) vf_store_first(item->out[r] + d, head_dim - d, vf_load(records[r] + d) * inverse);
    }
}

static attention_scratch worker_scratch(const cria_attention_args *args, int64_t worker) {
    const cria_kv_layer *layer = args->layer;
    size_t bytes = cria_attention_scratch_bytes(args->heads, layer->kv_heads, layer->head_dim);
    float *memory = (float *)((char *)args->scratch + (size_t)worker * bytes);
    return attention_cut(memory, args->heads, layer->kv_heads, layer->head_dim);
}

/* One worker computes all segments of an item. */
static void attend_items(const attention_plan *plan, cria_worker *worker) {
    const cria_attention_args *args = plan->args;
    attention_scratch scratch = worker_scratch(args, worker->index);
    attention_cursor cursor = {0};
    int64_t begin, end, dim = args->layer->head_dim;
    float *whole[ATTENTION_ROWS], *part[ATTENTION_ROWS];
    for (int64_t r = 0; r < ATTENTION_ROWS; r++) {
        whole[r] = scratch.whole + r * attention_record(dim);
        part[r] = scratch.segment + r * attention_record(dim);
    }
    while (cria_worker_take(worker, plan->items, 1, &begin, &end)) {
        attention_item item = find_item(plan, &cursor, begin);
        pack_queries(args->layer, &item, scratch.q);
        attend_segment(args, &item, 0, &scratch, whole);
        for (int64_t segment = 1; segment < segments_of(&item); segment++) {
            attend_segment(args, &item, segment, &scratch, part);
            merge_segment(&item, segment, dim, part, whole);
        }
        write_rows(&item, dim, whole);
    }
}

/* Where the records of one segment of an item lie: spread over the scratch memories of all workers. */
static void find_slots(const attention_plan *plan, const attention_item *item, int64_t segment,
                       float *records[ATTENTION_ROWS]) {
    const cria_attention_args *args = plan->args;
    int64_t record = attention_record(args->layer->head_dim);
    for (int64_t head = 0; head < item->heads; head++) {
        int64_t piece = item->sequence * args->layer->kv_heads + item->kv_head + head;
        int64_t slot = piece * plan->segments + segment;
        attention_scratch scratch = worker_scratch(args, slot / ATTENTION_SLOTS);
        float *first = scratch.slots + slot % ATTENTION_SLOTS * plan->group * record;
        for (int64_t r = 0; r < item->head_rows; r++) records[head * item->head_rows + r] = first + r * record;
    }
}

/* Few items with long contexts: the segments are spread over the workers, and merged after a barrier. */
static void attend_spread(const attention_plan *plan, cria_worker *worker) {
    const cria_attention_args *args = plan->args;
    attention_scratch scratch = worker_scratch(args, worker->index);
    attention_cursor cursor = {0};
    int64_t begin, end;
    float *whole[ATTENTION_ROWS], *part[ATTENTION_ROWS];
    while (cria_worker_take(worker, plan->items * plan->segments, 1, &begin, &end)) {
        attention_item item = find_item(plan, &cursor, begin / plan->segments);
        int64_t segment = begin % plan->segments;
        if (segment >= segments_of(&item)) continue;
        find_slots(plan, &item, segment, part);
        pack_queries(args->layer, &item, scratch.q);
        attend_segment(args, &item, segment, &scratch, part);
    }
    cria_worker_next(worker);
    cursor = (attention_cursor){0};
    while (cria_worker_take(worker, plan->items, 1, &begin, &end)) {
        attention_item item = find_item(plan, &cursor, begin);
        find_slots(plan, &item, 0, whole);
        for (int64_t segment = 1; segment < segments_of(&item); segment++) {
            find_slots(plan, &item, segment, part);
            merge_segment(&item, segment, args->layer->head_dim, part, whole);
        }
        write_rows(&item, args->layer->head_dim, whole);
    }
}

static void attend_rows(const cria_attention_args *args, cria_worker *worker) {
    const cria_kv_layer *layer = args->layer;
    if (layer->block_tokens % ATTENTION_LANES != 0 || ATTENTION_STEP % layer->block_tokens != 0) {
        cria_ref_attention(args, worker);
        return;
    }
    attention_plan plan = make_plan(args, worker->count);
    bool spread = plan.decoding && plan.group <= ATTENTION_ROWS && worker->count > 1 && plan.segments > 1 &&
                  plan.items < 4 * worker->count &&
                  args->sequences * layer->kv_heads * plan.segments <= ATTENTION_SLOTS * worker->count;
    if (spread) {
        attend_spread(&plan, worker);
    } else {
        attend_items(&plan, worker);
    }
}
