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

static inline const char *page_scales(const cria_kv_layer *layer, const attention_item *item, int64_t key,
                                      int64_t head) {
    return page_keys(layer, item, key, head) + kv_key_bytes(layer) + kv_value_bytes(layer);
}

/* Those of the next step are asked for on the way. */
static inline step_scales find_scales(const cria_kv_layer *layer, const attention_item *item, int64_t head, int64_t key,
                                      int64_t keys) {
    step_scales scales = {.block_tokens = layer->block_tokens};
    for (int64_t at = 0; at < keys; at += layer->block_tokens) {
        int64_t later = key + at + ATTENTION_STEP, bytes = 2 * layer->block_tokens * (int64_t)sizeof(float);
        scales.page[at / layer->block_tokens] = (const float *)page_scales(layer, item, key + at, head);
        if (later >= item->most_keys) continue;
        for (int64_t line = 0; line < bytes; line += 64)
            _mm_prefetch(page_scales(layer, item, later, head) + line, _MM_HINT_T1);
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

/* Where, from `here`, part `index` (keys, values, keys of the next head and so on, page by page) of the keys from `key`
 * on lies; 0 where there is none. */
static inline int64_t way_to_part(const cria_kv_layer *layer, const attention_item *item, int64_t key, int64_t index,
                                  const char *here) {
    key += index / (2 * item->heads) * layer->block_tokens;
    if (key >= item->most_keys) return 0;
    return page_keys(layer, item, key, index % (2 * item->heads) / 2) + index % 2 * kv_key_bytes(layer) - here;
}

/* Scores of the keys of one page, from `key` on, of one head's rows. `at`: where the page stands in the step. `later`
 * and `index`: the part that is asked for on the way. */
static void score_head(const cria_kv_layer *layer, const attention_item *item, int64_t head, int64_t key, int64_t at,
                       int64_t later, int64_t index, const attention_scratch *scratch) {
    const char *keys = page_keys(layer, item, key, head);
    int64_t dim = layer->head_dim, ahead = way_to_part(layer, item, later, index, keys);
    for (int64_t row = first_row(item, head, key); row < item->head_rows; row += GROUP_ROWS, ahead = 0) {
        int64_t first = head * item->head_rows + row;
        score_page(layer->type, scratch->q + first * dim, group_rows(item, row), keys, dim, layer->block_tokens, ahead,
                   scratch->weights + first * ATTENTION_STEP + at);
    }
}

/* Adds the values of one page to the records of one head's rows. */
static void add_values(const cria_kv_layer *layer, const attention_item *item, int64_t head, int64_t key, int64_t at,
                       int64_t later, int64_t index, const attention_scratch *scratch, float *const *records) {
    int64_t dim = layer->head_dim, record = attention_record(dim);
    const char *values = page_keys(layer, item, key, head) + kv_key_bytes(layer);
    int64_t ahead = way_to_part(layer, item, later, index, values);
    for (int64_t row = first_row(item, head, key); row < item->head_rows; row += GROUP_ROWS, ahead = 0) {
        int64_t first = head * item->head_rows + row, rows = group_rows(item, row), shared = item->keys[first] - key;
        const float *weights = scratch->weights + first * ATTENTION_STEP + at;
        if (shared > layer->block_tokens) shared = layer->block_tokens;
        value_page(layer->type, weights, rows, 0, shared, values, dim, ahead, records[first], record);
        for (int64_t r = 0; r < rows; r++) { /* keys that only the later queries of the group see */
            int64_t seen = item->keys[first + r] - key;
            if (seen > layer->block_tokens) seen = layer->block_tokens;
            if (seen > shared)
                value_page(layer->type, weights + r * ATTENTION_STEP, 1, shared, seen, values, dim, 0,
                           records[first + r], record);
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

static void score_head_bytes(const cria_kv_layer *layer, const attention_item *item, int64_t head, int64_t key,
                             int64_t at, int64_t ahead, const attention_scratch *scratch) {
    int64_t dim = layer->head_dim, rows;
    for (int64_t row = first_row(item, head, key); row < item->head_rows; row += rows, ahead = 0) {
        int64_t first = head * item->head_rows + row;
        i8_row q[I8_ROWS];
        rows = byte_group(item->head_rows - row);
        for (int64_t r = 0; r < rows; r++) q[r] = i8_row_of(scratch->q + (first + r) * dim, dim);
        i8_score_page(q, rows, page_keys(layer, item, key, head), dim, layer->block_tokens, ahead,
                      scratch->weights + first * ATTENTION_STEP + at);
    }
}

static void add_values_bytes(const attention_item *item, int64_t head, int64_t key, i8_values *values,
                             const attention_scratch *scratch, float *const *records) {
    int64_t rows;
    for (int64_t row = first_row(item, head, key); row < item->head_rows; row += rows) {
        int64_t first = head * item->head_rows + row;
        i8_row weights[I8_ROWS];
        rows = byte_group(item->head_rows - row);
        for (int64_t r = 0; r < rows; r++)
            weights[r] = i8_row_of(scratch->weights + (first + r) * ATTENTION_STEP, ATTENTION_STEP);
        i8_add_values(weights, rows, values, records + first);
        for (int64_t p = 0; p < values->pages; p++) values->later[p] = values->page[p]; /* all is asked for */
    }
}

/* add_step for a cache of int8. */
static void add_step_bytes(const cria_attention_args *args, const attention_item *item, int64_t key, int64_t most,
                           const attention_scratch *scratch, float *const *records) {
    const cria_kv_layer *layer = args->layer;
    int64_t padded = attention_dim(layer->head_dim), later = key + ATTENTION_STEP, block = layer->block_tokens;
    int64_t pages = divide_up(most, block);
    for (int64_t part = 0; part < pages * item->heads; part++) {
        int64_t page = part / item->heads, head = part % item->heads;
        const char *keys = page_keys(layer, item, key + page * block, head);
        score_head_bytes(layer, item, head, key + page * block, page * block,
                         way_to_part(layer, item, later, part, keys), scratch);
    }
    for (int64_t head = 0; head < item->heads; head++) {
        step_scales scales = find_scales(layer, item, head, key, most);
        for (int64_t r = head * item->head_rows; r < (head + 1) * item->head_rows; r++) {
            int64_t seen = item->keys[r] - key < ATTENTION_STEP ? item->keys[r] - key : ATTENTION_STEP;
            if (seen > 0)
                soften_byte_row(scratch->weights + r * ATTENTION_STEP, seen, args->scale, &scales, padded, records[r]);
        }
    }
    for (int64_t head = 0; head < item->heads; head++) {
        i8_values values = {.pages = pages, .block_tokens = block, .dim = layer->head_dim};
        for (int64_t p = 0; p < pages; p++) {
            values.page[p] = page_keys(layer, item, key + p * block, head) + kv_key_bytes(layer);
            values.later[p] =
                values.page[p] + way_to_part(layer, item, later, (item->heads + head) * pages + p, values.page[p]);
        }
        add_values_bytes(item, head, key, &values, scratch, records);
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
static void add_step_bytes(const cria_attention_args *args, const attention_item *item, int64_t key, int64_t most,
                           const attention_scratch *scratch, float *const *records) {
    (void)args, (void)item, (void)key, (void)most, (void)scratch, (void)records;
}

#endif

/* Adds keys [key, key + ATTENTION_STEP) to the records of the rows that see them. On the way the next step's keys and
 * values are asked for in the order in which they lie: memory gives runs of several parts twice the speed of single
 * ones. */
static void add_step(const cria_attention_args *args, const attention_item *item, int64_t key,
                     const attention_scratch *scratch, float *const *records) {
    const cria_kv_layer *layer = args->layer;
    int64_t padded = attention_dim(layer->head_dim), most = item->most_keys - key, later = key + ATTENTION_STEP;
    if (most > ATTENTION_STEP) most = ATTENTION_STEP;
    if (multiplies_bytes(layer)) {
        add_step_bytes(args, item, key, most, scratch, records);
        return;
    }
    int64_t part = 0;
    for (int64_t at = 0; at < most; at += layer->block_tokens) {
        for (int64_t head = 0; head < item->heads; head++)
            score_head(layer, item, head, key + at, at, later, part++, scratch);
    }
    for (int64_t head = 0; head < item->heads; head++) {
        step_scales scales = {0};
        if (layer->type == CRIA_I8) scales = find_scales(layer, item, head, key, most);
        for (int64_t r = head * item->head_rows; r < (head + 1) * item->head_rows; r++) {
            int64_t seen = item->keys[r] - key < ATTENTION_STEP ? item->keys[r] - key : ATTENTION_STEP;
            float *weights = scratch->weights + r * ATTENTION_STEP;
            if (seen > 0 && layer->type == CRIA_I8)
                soften_scaled_row(weights, seen, args->scale, &scales, padded, records[r]);
            else if (seen > 0)
                soften_row(weights, seen, args->scale, padded, records[r]);
        }
    }
    for (int64_t at = 0; at < most; at += layer->block_tokens) {
        for (int64_t head = 0; head < item->heads; head++)
            add_values(layer, item, head, key + at, at, later, part++, scratch, records);
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
