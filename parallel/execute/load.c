/* Packs weights panel by panel, every worker taking panels of the weight in hand. */
#include "parallel/execute/load.h"

#include "base/checked.h"

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

/* Row r of the fused matrix as it lies in its file, from its first column; NULL beyond the last. */
static const void *source_row(const packing *p, int64_t row, cria_type *type) {
    for (int i = 0; i < p->spec->parts; i++) {
        int64_t rows = cria_selection_count(&p->spec->row[i]);
        if (row < rows) {
            const cria_param_view *view = &p->view[i];
            *type = view->type;
            int64_t at = file_row(view, cria_selection_at(&p->spec->row[i], row));
            return (const uint8_t *)view->data + (size_t)at * cria_type_bytes(view->type, (size_t)view->cols);
        }
        row -= rows;
    }
    return NULL;
}

/* Where the chosen columns begin in the file's row, if they lie together and begin where a block of the type does; -1
 * otherwise. */
static int64_t first_column(const packing *p, cria_type type) {
    const cria_selection *c = &p->spec->col;
    bool together = c->outer_end - c->outer_begin == 1 || (c->inner_begin == 0 && c->inner_end == c->extent);
    int64_t first = cria_selection_at(c, 0);
    bool aligned = !cria_type_is_block(type) || (first % CRIA_GROUP == 0 && p->spec->cols % CRIA_GROUP == 0);
    return together && aligned ? first : -1;
}

/* The chosen columns of a row of the file as f32; `wide`: room for a row of the file. */
static void read_columns(const packing *p, const void *row, cria_type type, float *wide, float *out) {
    const cria_selection *c = &p->spec->col;
    int64_t inner = c->inner_end - c->inner_begin;
    cria_to_f32(type, row, 0, p->view[0].cols, wide);
    for (int64_t o = c->outer_begin; o < c->outer_end; o++, out += inner)
        for (int64_t i = 0; i < inner; i++) out[i] = wide[o * c->extent + c->inner_begin + i];
}

/* Rows whose columns lie together are packed as they are in the file; others, and panels whose rows come from parts of
 * different types, through f32. */
static void pack_panel(const packing *p, int64_t panel, float *scratch) {
    const void *rows[CRIA_PANEL_ROWS];
    cria_type type[CRIA_PANEL_ROWS] = {CRIA_F32};
    bool direct = true;
    for (int r = 0; r < CRIA_PANEL_ROWS; r++) {
        rows[r] = source_row(p, panel * CRIA_PANEL_ROWS + r, &type[r]);
        direct = direct && (!rows[r] || (type[r] == type[0] && first_column(p, type[r]) >= 0));
    }
    size_t bytes = cria_panel_bytes(p->spec->panel, p->spec->cols);
    float *narrow = scratch + CRIA_PANEL_ROWS * cria_round_up((size_t)p->spec->cols, CRIA_GROUP);
    float *wide = narrow + CRIA_PANEL_ROWS * p->spec->cols;
    for (int r = 0; r < CRIA_PANEL_ROWS; r++) {
        if (!rows[r]) continue;
        if (direct) {
            rows[r] = (const uint8_t *)rows[r] + cria_type_bytes(type[r], (size_t)first_column(p, type[r]));
            continue;
        }
        read_columns(p, rows[r], type[r], wide, narrow + r * p->spec->cols);
        rows[r] = narrow + r * p->spec->cols;
    }
    cria_pack_panel(p->spec->panel, p->spec->cols, direct ? type[0] : CRIA_F32, rows, scratch,
                    p->out + (size_t)panel * bytes);
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
        int64_t rows = cria_selection_count(&p->spec->row[i]);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = file_row(view, cria_selection_at(&p->spec->row[i], r));
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
                              const cria_param_source *source, const cria_executor_options *options, void *arena,
                              cria_error *err) {
    int64_t widest = 0, file = 0;
    for (int i = 0; i < program->weight_count; i++) {
        const cria_weight_spec *w = &program->weights[i];
        if (w->kind != CRIA_WEIGHT_PANELS) continue;
        const cria_tensor *t = cria_graph_tensor(graph, w->tensor[0]);
        int64_t whole = cria_tensor_extent(t, 1); /* no row of a file is longer than all columns of all but one dim */
        if (w->cols > widest) widest = w->cols;
        if (whole > file) file = whole;
    }
    int64_t stride = (int64_t)cria_round_up((size_t)widest, CRIA_GROUP) * CRIA_PANEL_ROWS * 2 +
                     (int64_t)cria_round_up((size_t)file, CRIA_GROUP);
    float *scratch = malloc((size_t)stride * sizeof(float) * (size_t)cria_pool_threads(pool));
    if (!scratch) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to pack weights");
    cria_status status = CRIA_OK;
    for (int i = 0; i < program->weight_count && status == CRIA_OK; i++) {
        const cria_weight_spec *spec = &program->weights[i];
        packing p = {
            .spec = spec, .out = (uint8_t *)arena + spec->offset, .scratch = scratch, .scratch_stride = stride};
        status = load_one(graph, spec, pool, source, &p, err);
        if (options->loaded) options->loaded(options->loaded_context, spec->bytes);
    }
    free(scratch);
    return status;
}
