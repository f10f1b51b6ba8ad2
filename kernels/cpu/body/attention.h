/* Paged attention over vectors: the rows of an item against the pages, step by step and segment by segment. */
#include "kernels/cpu/body/attention_item.h"
#include "kernels/cpu/body/attention_page.h"
#if defined(__AVX512VNNI__)
#include "kernels/cpu/body/attention_i8.h"
#endif
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

/* The keys of KV head item->kv_head + head in the page that holds `key`; its values follow, and for int8 the scales. */
static inline const char *page_keys(const cria_kv_layer *layer, const attention_item *item, int64_t key, int64_t head) {
    const char *page = (const char *)layer->pages + item->blocks[key / layer->block_tokens] * layer->block_bytes;
    return page + (item->kv_head + head) * kv_head_bytes(layer);
}

/* Of int8: where the scales of a head's keys of a step lie, page by page; those of the values follow a page's. */
typedef struct {
    const float *page[ATTENTION_STEP / ATTENTION_LANES];
    int64_t block_tokens;
} step_scales;

static inline step_scales find_scales(const cria_kv_layer *layer, const attention_item *item, int64_t head, int64_t key,
                                      int64_t keys) {
    step_scales scales = {.block_tokens = layer->block_tokens};
    for (int64_t at = 0; layer->type == CRIA_I8 && at < keys; at += layer->block_tokens) {
        const char *head_keys = page_keys(layer, item, key + at, head);
        scales.page[at / layer->block_tokens] =
            (const float *)(head_keys + kv_key_bytes(layer) + kv_value_bytes(layer));
    }
    return scales;
}

/* The scales of the keys (part 0) or values (1) of the step's keys from `at` on, which share a page. */
static inline vf load_scales(const step_scales *scales, int64_t at, int part) {
    return vf_load(scales->page[at / scales->block_tokens] + part * scales->block_tokens + at % scales->block_tokens);
}

/* Turns the scores of a row's first `keys` keys of a step into weights, and brings its record to the new maximum. With
 * `scales` a weight is then multiplied with its value's, which saves multiplying the value. Returns how many vectors of
 * weights there are. */
VECTOR_INLINE int64_t soften(const float *scores, int64_t keys, float scale, const step_scales *scales, int64_t dim,
                             float *record, vf *weights) {
    vf vectors[ATTENTION_STEP / LANES], least = vf_set(-INFINITY), most = vf_set(record[dim]);
    int64_t count = (keys + LANES - 1) / LANES;
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
    if (new_most > record[dim]) {
        vf shrink = vf_exp_weight(vf_set(record[dim]) - highest);
        for (int64_t d = 0; d < dim; d += LANES) vf_store(record + d, vf_load(record + d) * shrink);
        float factor[LANES];
        vf_store(factor, shrink);
        record[dim + 1] *= factor[0];
        record[dim] = new_most;
    }
    record[dim + 1] += vf_hsum(total);
    return count;
}

static void soften_row(float *scores, int64_t keys, float scale, int64_t dim, float *record) {
    vf weights[ATTENTION_STEP / LANES];
    int64_t count = soften(scores, keys, scale, NULL, dim, record, weights);
    for (int64_t v = 0; v < count; v++) vf_store(scores + v * LANES, weights[v]);
}
static void soften_scaled_row(float *scores, int64_t keys, float scale, const step_scales *scales, int64_t dim,
                              float *record) {
    vf weights[ATTENTION_STEP / LANES];
    int64_t count = soften(scores, keys, scale, scales, dim, record, weights);
    for (int64_t v = 0; v < count; v++) vf_store(scores + v * LANES, weights[v]);
}

/* Rows that the group of a head which begins with `row` has. */
static inline int64_t group_rows(const attention_item *item, int64_t row) {
    return item->head_rows - row < GROUP_ROWS ? item->head_rows - row : GROUP_ROWS;
}

/* The first row of a head that sees `key`; there is one. */
static inline int64_t first_row(const attention_item *item, int64_t head, int64_t key) {
    int64_t row = 0;
    while (item->keys[head * item->head_rows + row] <= key) row++;
    return row;
}

/* The queries side by side: rows of a wide model lie a multiple of 4096 bytes apart, in the same few sets of a cache.
 */
static void pack_queries(const attention_item *item, int64_t dim, float *packed) {
    for (int64_t r = 0; r < item->heads * item->head_rows; r++)
        memcpy(packed + r * dim, item->q[r], (size_t)dim * sizeof *packed);
}

/* What is asked for on the way of a step: in every page of the next step the item's heads, which lie in one piece.
 * Memory gives runs of several parts twice the speed of single ones, and has to have something to do all the time: so
 * the heads are taken one after the other, and while scores become weights, lines are asked for too. */
typedef struct {
    const char *at[ATTENTION_STEP / ATTENTION_LANES], *end[ATTENTION_STEP / ATTENTION_LANES];
} line_stream;

enum { SOFTEN_LINES = 12 }; /* of each page, asked for while a head's scores become weights */

static line_stream find_stream(const cria_kv_layer *layer, const attention_item *item, int64_t key) {
    line_stream stream = {{0}, {0}};
    for (int64_t p = 0; p * layer->block_tokens < ATTENTION_STEP; p++) {
        if (key + p * layer->block_tokens >= item->most_keys) break;
        stream.at[p] = page_keys(layer, item, key + p * layer->block_tokens, 0);
        stream.end[p] = stream.at[p] + item->heads * kv_head_bytes(layer);
    }
    return stream;
}

/* Where to ask for the next `bytes`; `here`, which is being read, where nothing is left. */
static inline const char *next_lines(line_stream *stream, int64_t page, int64_t bytes, const char *here) {
    const char *at = stream->at[page];
    if (at >= stream->end[page]) return here;
    stream->at[page] += bytes;
    return at;
}

/* One head's rows against the 64 keys from `key` on. */
typedef struct {
    const cria_attention_args *args;
    const attention_item *item;
    int64_t head, key;
    int64_t keys, pages; /* that the item sees of them, and in how many pages they lie */
    const attention_scratch *scratch;
    float *const *records;
} head_step;

static inline const char *step_keys(const head_step *s, int64_t page) {
    const cria_kv_layer *layer = s->args->layer;
    return page_keys(layer, s->item, s->key + page * layer->block_tokens, s->head);
}

/* Scores of the keys of one page. */
static void score_head(const head_step *s, int64_t page, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    const char *keys = step_keys(s, page);
    int64_t dim = layer->head_dim, at = page * layer->block_tokens;
    int64_t ahead = next_lines(stream, page, kv_key_bytes(layer), keys) - keys;
    for (int64_t row = first_row(s->item, s->head, s->key + at); row < s->item->head_rows;
         row += GROUP_ROWS, ahead = 0) {
        int64_t first = s->head * s->item->head_rows + row;
        score_page(layer->type, s->scratch->q + first * dim, group_rows(s->item, row), keys, dim, layer->block_tokens,
                   ahead, s->scratch->weights + first * ATTENTION_STEP + at);
    }
}

/* Adds the values of one page to the records. */
static void add_values(const head_step *s, int64_t page, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    int64_t dim = layer->head_dim, record = attention_record(dim), key = s->key + page * layer->block_tokens;
    const char *values = step_keys(s, page) + kv_key_bytes(layer);
    int64_t ahead = next_lines(stream, page, kv_value_bytes(layer), values) - values;
    for (int64_t row = first_row(s->item, s->head, key); row < s->item->head_rows; row += GROUP_ROWS, ahead = 0) {
        int64_t first = s->head * s->item->head_rows + row, rows = group_rows(s->item, row);
        int64_t shared = s->item->keys[first] - key;
        const float *weights = s->scratch->weights + first * ATTENTION_STEP + page * layer->block_tokens;
        if (shared > layer->block_tokens) shared = layer->block_tokens;
        value_page(layer->type, weights, rows, 0, shared, values, dim, ahead, s->records[first], record);
        for (int64_t r = 0; r < rows; r++) { /* keys that only the later queries of the group see */
            int64_t seen = s->item->keys[first + r] - key;
            if (seen > layer->block_tokens) seen = layer->block_tokens;
            if (seen > shared)
                value_page(layer->type, weights + r * ATTENTION_STEP, 1, shared, seen, values, dim, 0,
                           s->records[first + r], record);
        }
    }
}

#if defined(__AVX512VNNI__)

static inline bool multiplies_bytes(const cria_kv_layer *layer) {
    return layer->type == CRIA_I8 && layer->head_dim % KV_QUAD == 0 && layer->head_dim <= I8_MOST_DIM;
}

static void pack_byte_queries(const attention_item *item, int64_t dim, float *packed) {
    for (int64_t r = 0; r < item->heads * item->head_rows; r++) i8_write_query(item->q[r], dim, packed + r * dim);
}

/* The weights of the whole step as bytes in the place of the scores; keys that are not seen weigh 0. */
static void soften_byte_row(float *scores, int64_t keys, float scale, const step_scales *scales, int64_t dim,
                            float *record) {
    vf weights[ATTENTION_STEP / LANES], most = vf_set(0);
    vmask bad = 0;
    int64_t count = soften(scores, keys, scale, scales, dim, record, weights);
    weights[count - 1] = vf_choose(vf_first(keys - (count - 1) * LANES), weights[count - 1], vf_set(0));
    for (int64_t v = 0; v < count; v++) {
        bad = vf_or(bad, vf_nan(weights[v]));
        most = vf_max(most, weights[v]);
    }
    for (int64_t v = count; v < ATTENTION_STEP / LANES; v++) weights[v] = vf_set(0);
    i8_write_row(weights, ATTENTION_STEP / LANES, LANES, vf_hmax(most), bad == 0, scores);
}

/* Of `left` rows, how many to take together, so that all groups are alike. */
static inline int64_t byte_group(int64_t left) {
    int64_t groups = divide_up(left, I8_ROWS);
    return divide_up(left, groups);
}

static void score_head_bytes(const head_step *s, int64_t page, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    const char *keys = step_keys(s, page);
    int64_t dim = layer->head_dim, at = page * layer->block_tokens, rows;
    int64_t ahead = next_lines(stream, page, kv_key_bytes(layer), keys) - keys;
    for (int64_t row = first_row(s->item, s->head, s->key + at); row < s->item->head_rows; row += rows, ahead = 0) {
        int64_t first = s->head * s->item->head_rows + row;
        i8_row q[I8_ROWS];
        rows = byte_group(s->item->head_rows - row);
        for (int64_t r = 0; r < rows; r++) q[r] = i8_row_of(s->scratch->q + (first + r) * dim, dim);
        i8_score_page(q, rows, keys, dim, layer->block_tokens, ahead,
                      s->scratch->weights + first * ATTENTION_STEP + at);
    }
}

static void add_values_bytes(const head_step *s, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    i8_values values = {.pages = s->pages, .block_tokens = layer->block_tokens, .dim = layer->head_dim};
    int64_t rows;
    for (int64_t p = 0; p < s->pages; p++) {
        values.page[p] = step_keys(s, p) + kv_key_bytes(layer);
        values.later[p] = next_lines(stream, p, kv_value_bytes(layer), values.page[p]);
    }
    for (int64_t row = first_row(s->item, s->head, s->key); row < s->item->head_rows; row += rows) {
        int64_t first = s->head * s->item->head_rows + row;
        i8_row weights[I8_ROWS];
        rows = byte_group(s->item->head_rows - row);
        for (int64_t r = 0; r < rows; r++)
            weights[r] = i8_row_of(s->scratch->weights + (first + r) * ATTENTION_STEP, ATTENTION_STEP);
        i8_add_values(weights, rows, &values, s->records + first);
        for (int64_t p = 0; p < s->pages; p++) values.later[p] = values.page[p]; /* all is asked for */
    }
}

#else

static inline bool multiplies_bytes(const cria_kv_layer *layer) {
    (void)layer;
    return false;
}
static void pack_byte_queries(const attention_item *item, int64_t dim, float *packed) {
    (void)item, (void)dim, (void)packed;
}
static void soften_byte_row(float *scores, int64_t keys, float scale, const step_scales *scales, int64_t dim,
                            float *record) {
    (void)scores, (void)keys, (void)scale, (void)scales, (void)dim, (void)record;
}
static void score_head_bytes(const head_step *s, int64_t page, line_stream *stream) {
    (void)s, (void)page, (void)stream;
}
static void add_values_bytes(const head_step *s, line_stream *stream) {
    (void)s, (void)stream;
}

#endif

/* Makes weights of scores. */
static void soften_head(const head_step *s, line_stream *stream) {
    const cria_kv_layer *layer = s->args->layer;
    const attention_item *item = s->item;
    step_scales scales = find_scales(layer, item, s->head, s->key, s->keys);
    int64_t lines = SOFTEN_LINES / item->head_rows, padded = attention_dim(layer->head_dim);
    for (int64_t r = s->head * item->head_rows; r < (s->head + 1) * item->head_rows; r++) {
        int64_t seen = item->keys[r] - s->key < ATTENTION_STEP ? item->keys[r] - s->key : ATTENTION_STEP;
        float *scores = s->scratch->weights + r * ATTENTION_STEP;
        if (seen <= 0) continue;
        for (int64_t p = 0; p < s->pages && lines > 0; p++) {
            const char *later = next_lines(stream, p, lines * 64, step_keys(s, p));
            for (int64_t line = 0; line < lines; line++) _mm_prefetch(later + line * 64, _MM_HINT_T1);
        }
        if (multiplies_bytes(layer)) {
            soften_byte_row(scores, seen, s->args->scale, &scales, padded, s->records[r]);
        } else if (layer->type == CRIA_I8) {
            soften_scaled_row(scores, seen, s->args->scale, &scales, padded, s->records[r]);
        } else {
            soften_row(scores, seen, s->args->scale, padded, s->records[r]);
        }
    }
}

/* Adds keys [key, key + ATTENTION_STEP) to the records of the rows that see them. */
static void add_step(const cria_attention_args *args, const attention_item *item, int64_t key,
                     const attention_scratch *scratch, float *const *records) {
    const cria_kv_layer *layer = args->layer;
    line_stream stream = find_stream(layer, item, key + ATTENTION_STEP);
    int64_t keys = item->most_keys - key < ATTENTION_STEP ? item->most_keys - key : ATTENTION_STEP;
    bool bytes = multiplies_bytes(layer);
    for (int64_t head = 0; head < item->heads; head++) {
        head_step s = {args, item, head, key, keys, divide_up(keys, layer->block_tokens), scratch, records};
        for (int64_t p = 0; p < s.pages; p++) bytes ? score_head_bytes(&s, p, &stream) : score_head(&s, p, &stream);
        soften_head(&s, &stream);
        for (int64_t p = 0; p < s.pages && !bytes; p++) add_values(&s, p, &stream);
        if (bytes) add_values_bytes(&s, &stream);
    }
}

static void prepare_queries(const cria_kv_layer *layer, const attention_item *item, float *packed) {
    if (multiplies_bytes(layer)) {
        pack_byte_queries(item, layer->head_dim, packed);
    } else {
        pack_queries(item, layer->head_dim, packed);
    }
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
        prepare_queries(args->layer, &item, scratch.q);
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
        prepare_queries(args->layer, &item, scratch.q);
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
