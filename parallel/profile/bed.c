/* The test bed: operands of each operator, loops that call kernels section by section, medians. */
#include "parallel/profile/bed.h"

#include "base/clock.h"
#include "parallel/execute/memory.h"
#include "parallel/graph/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_TOKENS = 32, MOST_ROUNDS = 9 };

struct cria_bed {
    cria_pool *pool;
    const cria_kernels *kernels;
    cria_comm *comm;
    cria_memory cold, in, out, extra, scratch;
    int32_t *ints; /* positions, slots, tables, rows */
    int64_t int_count;
    cria_row *rows;
    cria_row_result *results;
};

enum { MOST_ROWS = 4096, MOST_INTS = 1 << 20 };

cria_panel_type cria_panel_of_rate(cria_rate rate) {
    static const cria_panel_type panels[CRIA_RATE_COUNT] = {
        [CRIA_RATE_F32] = CRIA_PANEL_F32,
        [CRIA_RATE_F16] = CRIA_PANEL_BF16,
        [CRIA_RATE_BF16] = CRIA_PANEL_BF16,
        [CRIA_RATE_INT8] = CRIA_PANEL_I8,
        [CRIA_RATE_Q8] = CRIA_PANEL_Q8,
        [CRIA_RATE_Q4] = CRIA_PANEL_Q4,
        [CRIA_RATE_Q4_0] = CRIA_PANEL_Q4_0,
        [CRIA_RATE_Q8_FINE] = CRIA_PANEL_Q8_FINE,
        [CRIA_RATE_Q4_COARSE] = CRIA_PANEL_Q4_COARSE,
        [CRIA_RATE_Q4_0_COARSE] = CRIA_PANEL_Q4_0_COARSE,
    };
    return panels[rate];
}

cria_rate cria_rate_of_panel(cria_panel_type type) {
    for (int rate = CRIA_RATE_COUNT - 1; rate >= 0; rate--) /* bf16 before f16 */
        if (cria_panel_of_rate((cria_rate)rate) == type) return (cria_rate)rate;
    return cria_rate_of_panel(cria_panel_layout(type));
}

bool cria_bed_knows(int kind) {
    return kind == CRIA_OP_LINEAR || kind == CRIA_OP_NORM || kind == CRIA_OP_ACTIVATION || kind == CRIA_OP_MUL ||
           kind == CRIA_OP_ROPE || kind == CRIA_OP_ATTENTION || kind == CRIA_OP_SAMPLE;
}

/* Small values, so that no kernel meets anything unusual; page faults are over before the first sample. */
static void fill_job(cria_worker *worker, void *context) {
    const cria_memory *memory = context;
    int64_t begin, end;
    while (cria_worker_take(worker, memory->bytes / 4096, 64, &begin, &end))
        memset((uint8_t *)memory->data + begin * 4096, 1, (size_t)(end - begin) * 4096);
}

cria_status cria_bed_create(cria_pool *pool, const cria_kernels *kernels, double cold_bytes, int64_t value_bytes,
                            cria_comm *comm, cria_bed **out, cria_error *err) {
    int64_t cold = (int64_t)fmin(fmax(cold_bytes, 0x1p26), 0x1p29);
    cria_bed *bed = calloc(1, sizeof *bed);
    if (!bed) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for measurements");
    *bed = (cria_bed){.pool = pool, .kernels = kernels, .comm = comm, .int_count = MOST_INTS};
    struct {
        cria_memory *memory;
        int64_t bytes;
    } parts[] = {{&bed->cold, cold},
                 {&bed->in, value_bytes},
                 {&bed->out, value_bytes},
                 {&bed->extra, value_bytes},
                 {&bed->scratch, ((int64_t)4 + cria_pool_threads(pool)) << 20}};
    cria_status status = CRIA_OK;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && status == CRIA_OK; i++) {
        status = cria_memory_map(parts[i].memory, parts[i].bytes, "measurements", err);
        if (status == CRIA_OK) cria_pool_run(pool, fill_job, parts[i].memory);
    }
    bed->ints = calloc(MOST_INTS, sizeof *bed->ints);
    bed->rows = calloc(MOST_ROWS, sizeof *bed->rows);
    bed->results = calloc(MOST_ROWS, sizeof *bed->results);
    if (status == CRIA_OK && (!bed->ints || !bed->rows || !bed->results))
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for measurements");
    if (status != CRIA_OK) {
        cria_bed_destroy(bed);
        return status;
    }
    for (int r = 0; r < MOST_ROWS; r++)
        bed->rows[r] = (cria_row){.sample = 1, .target = -1, .top_p = 1, .repetition_penalty = 1};
    *out = bed;
    return CRIA_OK;
}

void cria_bed_destroy(cria_bed *bed) {
    if (!bed) return;
    cria_memory_unmap(&bed->cold);
    cria_memory_unmap(&bed->in);
    cria_memory_unmap(&bed->out);
    cria_memory_unmap(&bed->extra);
    cria_memory_unmap(&bed->scratch);
    free(bed->ints);
    free(bed->rows);
    free(bed->results);
    free(bed);
}

/* What one timed loop calls, again and again. */
typedef struct {
    const cria_bed *bed;
    int kind;
    int64_t rows, width;
    int64_t copies; /* of what is cold */
    double part;    /* of the operator that is timed */
    int64_t count, first;
    cria_linear_args linear;
    cria_norm_args norm;
    cria_prepare_args prepare;
    cria_glu_args glu;
    cria_rope_args rope;
    cria_kv_layer layer;
    int64_t copy_bytes;
    cria_kv_store_args store;
    cria_attention_args attention;
    cria_sample_args sample;
} loop;

/* What goes by row; a lone worker does one after the other. */
static void call_rows(const loop *l, cria_worker *worker) {
    const cria_kernels *k = l->bed->kernels;
    switch (l->kind) {
    case CRIA_OP_NORM:
        k->norm(&l->norm, worker);
        cria_worker_next(worker);
        break;
    case CRIA_OP_MUL:
        k->glu(&l->glu, worker);
        cria_worker_next(worker);
        break;
    case CRIA_OP_ROPE:
        k->rope(&l->rope, worker);
        cria_worker_next(worker);
        break;
    default:
        break;
    }
    if (l->prepare.cols) {
        k->prepare(&l->prepare, worker);
        cria_worker_next(worker);
    }
}

static void call_attention(const loop *l, int64_t turn, cria_worker *worker) {
    const cria_kernels *k = l->bed->kernels;
    cria_kv_layer layer = l->layer;
    layer.pages = (uint8_t *)l->bed->cold.data + (turn % l->copies) * l->copy_bytes;
    cria_kv_store_args store = l->store;
    store.layer = &layer;
    cria_attention_args attention = l->attention;
    attention.layer = &layer;
    int64_t begin, end, chunk = cria_worker_chunk(worker, store.tokens, layer.kv_heads * layer.head_dim);
    while (cria_worker_take(worker, store.tokens, chunk, &begin, &end)) {
        cria_worker part = cria_worker_part(worker, begin, end, store.tokens);
        k->kv_store(&store, &part);
    }
    cria_worker_next(worker);
    k->attention(&attention, worker);
    cria_worker_next(worker);
}

/* Sections as the executor has them. */
static void call(const loop *l, int64_t turn, cria_worker *worker) {
    const cria_bed *bed = l->bed;
    if (l->kind == CRIA_OP_LINEAR) {
        cria_panels weight = *l->linear.weight;
        weight.data = (const uint8_t *)bed->cold.data + (turn % l->copies) * l->copy_bytes;
        cria_linear_args args = l->linear;
        args.weight = &weight;
        bed->kernels->linear(&args, worker);
        cria_worker_next(worker);
        return;
    }
    if (l->kind == CRIA_OP_SAMPLE) {
        bed->kernels->sample(&l->sample, worker);
        cria_worker_next(worker);
        return;
    }
    if (l->kind == CRIA_OP_ATTENTION) call_attention(l, turn, worker);
    int64_t begin, end, chunk = cria_worker_chunk(worker, l->rows, l->width);
    while (cria_worker_take(worker, l->rows, chunk, &begin, &end)) {
        cria_worker part = cria_worker_part(worker, begin, end, l->rows);
        call_rows(l, &part);
    }
    cria_worker_next(worker);
}

static void run_loop(cria_worker *worker, void *context) {
    const loop *l = context;
    for (int64_t i = 0; i < l->count; i++) call(l, l->first + i, worker);
}

static void prepare_of(loop *l, cria_panel_type type, int64_t rows, int64_t width) {
    l->prepare = (cria_prepare_args){.type = type,
                                     .in = l->bed->out.data,
                                     .in_stride = width,
                                     .tokens = rows,
                                     .cols = width,
                                     .out = l->bed->extra.data};
}

static bool fits(const cria_bed *bed, int64_t rows, int64_t bytes_each) {
    return bytes_each > 0 && rows <= bed->in.bytes / bytes_each;
}

static bool set_linear(loop *l, const cria_sample *s, cria_panels *panels) {
    const cria_bed *bed = l->bed;
    int64_t rows = (int64_t)s->rows, columns = (int64_t)s->columns, depth = (int64_t)s->depth;
    /* Of a matrix larger than the bed a part is multiplied, in proportion. */
    cria_panel_type type = bed->kernels->panel[cria_panel_of_rate(s->rate)];
    int64_t most = bed->cold.bytes / (int64_t)cria_panel_bytes(type, depth) * CRIA_PANEL_ROWS;
    if (columns > most) columns = most;
    l->part = (double)columns / s->columns;
    *panels = (cria_panels){type, columns, depth, bed->cold.data};
    l->copy_bytes = (int64_t)(cria_panels_bytes(panels->type, columns, depth) + 63) / 64 * 64;
    if (l->copy_bytes <= 0 || l->copy_bytes > bed->cold.bytes || !fits(bed, rows, columns * 4) ||
        !fits(bed, rows, (int64_t)cria_prepared_row_bytes(panels->type, depth)))
        return false;
    l->copies = bed->cold.bytes / l->copy_bytes;
    l->linear = (cria_linear_args){
        .weight = panels, .in = bed->in.data, .tokens = rows, .out = bed->out.data, .out_stride = columns};
    return true;
}

/* Sequences of equal length; the keys that a query sees average `depth`, its own chunk included. */
static bool set_attention(loop *l, const cria_sample *s, int64_t head_dim) {
    cria_bed *bed = (cria_bed *)(uintptr_t)l->bed;
    int64_t rows = (int64_t)s->rows, sequences = (int64_t)s->sequences, each = rows / sequences;
    int64_t context = (int64_t)s->depth + each / 2, blocks = (context + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    if (each < 1 || context < each) return false;
    l->layer = (cria_kv_layer){.type = s->rate == CRIA_RATE_F32 ? CRIA_F32 : CRIA_BF16,
                               .block_tokens = BLOCK_TOKENS,
                               .kv_heads = (int64_t)s->kv_columns / head_dim,
                               .head_dim = head_dim};
    l->layer.block_bytes =
        (int64_t)cria_kv_block_bytes(l->layer.type, BLOCK_TOKENS, l->layer.kv_heads, l->layer.head_dim);
    l->copy_bytes = l->layer.block_bytes * blocks * sequences;
    int64_t heads = (int64_t)s->columns / head_dim,
            scratch = (int64_t)cria_attention_scratch_bytes(heads, l->layer.kv_heads, head_dim);
    int64_t ints = 2 * sequences + 1 + sequences * blocks + rows;
    if (l->layer.kv_heads < 1 || heads % l->layer.kv_heads || l->copy_bytes > bed->cold.bytes ||
        ints > bed->int_count || !fits(bed, rows, heads * head_dim * 4) ||
        scratch * cria_pool_threads(bed->pool) > bed->scratch.bytes)
        return false;
    l->copies = bed->cold.bytes / l->copy_bytes;
    int32_t *begin = bed->ints, *length = begin + sequences + 1, *table = length + sequences,
            *slots = table + sequences * blocks;
    begin[0] = 0;
    for (int64_t q = 0; q < sequences; q++) {
        begin[q + 1] = (int32_t)((q + 1) * each);
        length[q] = (int32_t)context;
        for (int64_t b = 0; b < blocks; b++) table[q * blocks + b] = (int32_t)(q * blocks + b);
        for (int64_t t = 0; t < each; t++)
            slots[q * each + t] = (int32_t)(q * blocks * BLOCK_TOKENS + context - each + t);
    }
    l->store = (cria_kv_store_args){.k = bed->in.data,
                                    .v = bed->in.data,
                                    .stride = (int64_t)s->kv_columns,
                                    .tokens = each * sequences,
                                    .slots = slots};
    l->attention = (cria_attention_args){.sequences = sequences,
                                         .query_begin = begin,
                                         .context = length,
                                         .block_table = table,
                                         .table_stride = blocks,
                                         .heads = heads,
                                         .scale = 0.125f,
                                         .q = bed->in.data,
                                         .q_stride = heads * head_dim,
                                         .out = bed->out.data,
                                         .out_stride = heads * head_dim,
                                         .scratch = bed->scratch.data};
    prepare_of(l, s->rate == CRIA_RATE_F32 ? CRIA_PANEL_F32 : bed->kernels->panel[CRIA_PANEL_Q8], rows,
               heads * head_dim);
    return true;
}

static bool set_rows(loop *l, const cria_sample *s, int64_t head_dim) {
    const cria_bed *bed = l->bed;
    int64_t rows = (int64_t)s->rows, width = (int64_t)s->columns;
    if (!fits(bed, rows, width * 4) ||
        !fits(bed, rows, (int64_t)cria_prepared_row_bytes(bed->kernels->panel[cria_panel_of_rate(s->rate)], width)))
        return false;
    switch (s->operator_kind) {
    case CRIA_OP_NORM:
        l->norm = (cria_norm_args){.in = bed->in.data,
                                   .in_stride = width,
                                   .tokens = rows,
                                   .width = width,
                                   .weight = bed->extra.data,
                                   .eps = 1e-5f,
                                   .rms = true,
                                   .out = bed->out.data,
                                   .out_stride = width};
        prepare_of(l, bed->kernels->panel[cria_panel_of_rate(s->rate)], rows, width);
        return true;
    case CRIA_OP_ACTIVATION:
        prepare_of(l, bed->kernels->panel[cria_panel_of_rate(s->rate)], rows, width);
        return true;
    case CRIA_OP_MUL:
        l->glu = (cria_glu_args){.gate = bed->in.data,
                                 .up = bed->extra.data,
                                 .in_stride = width,
                                 .tokens = rows,
                                 .width = width,
                                 .activation = CRIA_ACT_SILU,
                                 .out = bed->out.data,
                                 .out_stride = width};
        return true;
    case CRIA_OP_ROPE:
        if (rows > bed->int_count || width % head_dim) return false;
        memset(bed->ints, 0, (size_t)rows * sizeof *bed->ints);
        l->rope = (cria_rope_args){.x = bed->out.data,
                                   .stride = width,
                                   .tokens = rows,
                                   .heads = width / head_dim,
                                   .head_dim = head_dim,
                                   .positions = bed->ints,
                                   .table = bed->extra.data};
        return true;
    default:
        break;
    }
    /* Sampling. */
    if (rows > MOST_ROWS ||
        (int64_t)cria_sample_scratch_bytes(width) * cria_pool_threads(bed->pool) > bed->scratch.bytes)
        return false;
    l->sample = (cria_sample_args){.logits = bed->in.data,
                                   .rows = rows,
                                   .vocab = width,
                                   .stride = width,
                                   .row = bed->rows,
                                   .result = bed->results,
                                   .scratch = bed->scratch.data};
    return true;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double run_once(const cria_bed *bed, loop *l) {
    uint64_t start = cria_clock_ns();
    cria_pool_run(bed->pool, run_loop, l);
    double seconds = cria_seconds_between(start, cria_clock_ns());
    l->first += l->count;
    return seconds / (double)l->count;
}

/* The mean of all ranks, so that each knows the same. */
static cria_status average(const cria_bed *bed, double *seconds, cria_error *err) {
    if (!bed->comm) return CRIA_OK;
    double all[CRIA_COMM_MAX_RANKS];
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    int size = cria_comm_size(bed->comm);
    for (int r = 0; r < size; r++) bytes[r] = sizeof *all;
    CRIA_TRY(cria_comm_all_gather(bed->comm, seconds, all, bytes, err));
    *seconds = 0;
    for (int r = 0; r < size; r++) *seconds += all[r] / size;
    return CRIA_OK;
}

cria_status cria_bed_time(cria_bed *bed, cria_sample *s, int64_t head_dim, int rounds, double least, cria_error *err) {
    loop l = {.bed = bed, .kind = s->operator_kind, .copies = 1, .part = 1, .count = 1};
    cria_panels panels;
    s->seconds = 0;
    if (rounds > MOST_ROUNDS) rounds = MOST_ROUNDS;
    l.rows = (int64_t)s->rows;
    l.width = (int64_t)s->columns;
    bool good = l.kind == CRIA_OP_LINEAR      ? set_linear(&l, s, &panels)
                : l.kind == CRIA_OP_ATTENTION ? set_attention(&l, s, head_dim)
                                              : set_rows(&l, s, head_dim);
    if (!good) return CRIA_OK;
    double once = run_once(bed, &l), times[MOST_ROUNDS];
    CRIA_TRY(average(bed, &once, err));
    l.count = (int64_t)ceil(least / once);
    if (l.count < 1) l.count = 1;
    /* What takes long is not measured so often. */
    if (once > 0.05 && rounds > 2) rounds = 2;
    for (int i = 0; i < rounds; i++) {
        if (bed->comm) CRIA_TRY(cria_comm_barrier(bed->comm, err));
        times[i] = run_once(bed, &l);
    }
    qsort(times, (size_t)rounds, sizeof *times, ascending);
    s->seconds = times[(rounds - 1) / 2] / l.part;
    return average(bed, &s->seconds, err);
}
