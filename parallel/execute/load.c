/* Packs weights panel by panel, every worker taking panels of the weight in hand. */
#include "parallel/execute/load.h"

#include "base/checked.h"
#include "base/progress.h"

#include <math.h>
#include <stdlib.h>

/* One weight being packed. */
typedef struct {
    const cria_weight_spec *spec;
    cria_param_view view[CRIA_WEIGHT_MAX_PARTS];
    uint8_t *out;
    float *scratch; /* per worker */
    int64_t scratch_stride;
} packing;

static int64_t file_row(const cria_param_view *view, int64_t row) {
    int64_t d = view->interleaved_head_dim;
    if (d == 0) return row;
    int64_t head = row / d, within = row % d, half = d / 2;
    return head * d + 2 * (within % half) + within / half;
}

/* Row r of the fused matrix as it lies in its file; NULL beyond the last. */
static const void *source_row(const packing *p, int64_t row, cria_type *type) {
    for (int i = 0; i < p->spec->parts; i++) {
        int64_t rows = p->spec->row_end[i] - p->spec->row_begin[i];
        if (row < rows) {
            const cria_param_view *view = &p->view[i];
            *type = view->type;
            int64_t at = file_row(view, p->spec->row_begin[i] + row);
            return (const uint8_t *)view->data + (size_t)at * cria_type_bytes(view->type, (size_t)view->cols);
        }
        row -= rows;
    }
    return NULL;
}

/* Reads a row as f32 into `out`, so that panels whose rows come from parts of different types are packed too. */
static void pack_panel(const packing *p, int64_t panel, float *scratch) {
    const void *rows[CRIA_PANEL_ROWS];
    cria_type type = CRIA_F32, first = CRIA_F32;
    bool mixed = false;
    for (int r = 0; r < CRIA_PANEL_ROWS; r++) {
        rows[r] = source_row(p, panel * CRIA_PANEL_ROWS + r, &type);
        if (r == 0) first = type;
        mixed |= rows[r] && type != first;
    }
    size_t bytes = cria_panel_bytes(p->spec->panel, p->spec->cols);
    float *wide = scratch + CRIA_PANEL_ROWS * cria_round_up((size_t)p->spec->cols, CRIA_GROUP);
    for (int r = 0; mixed && r < CRIA_PANEL_ROWS; r++) {
        const void *row = source_row(p, panel * CRIA_PANEL_ROWS + r, &type);
        float *to = wide + r * p->spec->cols;
        if (row) cria_to_f32(type, row, 0, p->spec->cols, to);
        rows[r] = row ? to : NULL;
        first = CRIA_F32;
    }
    cria_pack_panel(p->spec->panel, p->spec->cols, first, rows, scratch, p->out + (size_t)panel * bytes);
}

static void pack_job(cria_worker *worker, void *context) {
    packing *p = context;
    int64_t panels = (p->spec->rows + CRIA_PANEL_ROWS - 1) / CRIA_PANEL_ROWS, begin, end;
    float *scratch = p->scratch + worker->index * p->scratch_stride;
    while (cria_worker_take(worker, panels, 16, &begin, &end))
        for (int64_t i = begin; i < end; i++) pack_panel(p, i, scratch);
}

static void load_vector(const packing *p) {
    float *out = (float *)p->out;
    for (int i = 0; i < p->spec->parts; i++) {
        const cria_param_view *view = &p->view[i];
        for (int64_t r = p->spec->row_begin[i]; r < p->spec->row_end[i]; r++) {
            int64_t at = file_row(view, r);
            const uint8_t *from = (const uint8_t *)view->data + (size_t)at * cria_type_bytes(view->type, 1);
            cria_to_f32(view->type, from, 0, 1, out++);
        }
    }
}

static void load_rope(const cria_graph *graph, const cria_weight_spec *spec, float *out) {
    int count;
    const double *frequency = cria_graph_rope(graph, &count);
    for (int64_t position = 0; position < spec->rows; position++)
        for (int i = 0; i < count; i++) {
            double angle = (double)position * frequency[i];
            *out++ = (float)cos(angle);
            *out++ = (float)sin(angle);
        }
}

static cria_status load_one(const cria_graph *graph, const cria_weight_spec *spec, cria_pool *pool,
                            const cria_param_source *source, packing *p, cria_error *err) {
    if (spec->kind == CRIA_WEIGHT_ROPE) {
        load_rope(graph, spec, (float *)p->out);
        return CRIA_OK;
    }
    for (int i = 0; i < spec->parts; i++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, spec->tensor[i]);
        CRIA_TRY(source->find(source->self, tensor, &p->view[i], err));
        if (spec->kind == CRIA_WEIGHT_VECTOR && cria_type_is_block(p->view[i].type))
            return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: a vector of type %s", tensor->name,
                             cria_type_name(p->view[i].type));
    }
    if (spec->kind == CRIA_WEIGHT_VECTOR)
        load_vector(p);
    else
        cria_pool_run(pool, pack_job, p);
    if (source->done)
        for (int i = 0; i < spec->parts; i++) source->done(source->self, cria_graph_tensor(graph, spec->tensor[i]));
    return CRIA_OK;
}

cria_status cria_load_weights(const cria_graph *graph, const cria_program *program, cria_pool *pool,
                              const cria_param_source *source, FILE *progress, void *arena, cria_error *err) {
    int64_t widest = 0;
    for (int i = 0; i < program->weight_count; i++)
        if (program->weights[i].kind == CRIA_WEIGHT_PANELS && program->weights[i].cols > widest)
            widest = program->weights[i].cols;
    int64_t stride = (int64_t)cria_round_up((size_t)widest, CRIA_GROUP) * CRIA_PANEL_ROWS * 2;
    float *scratch = malloc((size_t)stride * sizeof(float) * (size_t)cria_pool_threads(pool));
    if (!scratch) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to pack weights");
    cria_progress *bar = cria_progress_create(progress, "packing weights", "B", (uint64_t)program->weight_bytes);
    cria_status status = CRIA_OK;
    for (int i = 0; i < program->weight_count && status == CRIA_OK; i++) {
        const cria_weight_spec *spec = &program->weights[i];
        packing p = {
            .spec = spec, .out = (uint8_t *)arena + spec->offset, .scratch = scratch, .scratch_stride = stride};
        status = load_one(graph, spec, pool, source, &p, err);
        cria_progress_advance(bar, (uint64_t)spec->bytes);
    }
    cria_progress_destroy(bar);
    free(scratch);
    return status;
}
