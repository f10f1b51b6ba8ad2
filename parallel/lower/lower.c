/* Lowering: walks the graph once, fusing as it goes, and writes the rank's instructions, weights and buffers. */
#include "parallel/lower/lower.h"

#include "parallel/graph/index.h"
#include "parallel/lower/lowering.h"
#include "parallel/lower/rows.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_ROWS = 64 };

/* Elements per row of a value on this rank. */
static int64_t form_width(const cria_lowering *l, int tensor, cria_sharding sharding) {
    cria_box box = cria_lowering_box(l, l->rank, tensor, sharding);
    return cria_box_width(&box);
}

static int64_t input_extent(const cria_lowering *l, int op, int k, int dim) {
    const cria_tensor *t = cria_graph_tensor(l->graph, cria_graph_op(l->graph, op)->input[k]);
    cria_extent e = cria_plan_part(l->plan, l->rank, t, cria_lowering_input(l, op, k), dim);
    return e.end - e.begin;
}

static cria_instruction *emit(cria_lowering *l, cria_kernel_id kernel, int op) {
    cria_instruction *i =
        cria_lowering_emit(l, CRIA_DO_KERNEL, cria_lowering_phase(l, cria_graph_op(l->graph, op)->output), op);
    if (i) i->kernel = kernel;
    return i;
}

static int last_use(const cria_lowering *l, int tensor) {
    return cria_lowering_last_use(l, tensor);
}

/* The only operator that reads a tensor, if this rank runs it and it is of the wanted kind; -1 otherwise. */
static int sole_user(const cria_lowering *l, int tensor, cria_op_kind kind) {
    int last, uses = cria_graph_uses(l->graph, tensor, &last);
    return uses == 1 && cria_graph_op(l->graph, last)->kind == kind && cria_plan_runs(l->plan, l->rank, last) ? last
                                                                                                              : -1;
}

static cria_sharding raw_of(const cria_lowering *l, int op) {
    return cria_sharding_canonical(cria_plan_strategy(l->plan, op)->raw, &l->stage->mesh);
}

static cria_sharding left_of(const cria_lowering *l, int op) {
    return cria_sharding_canonical(cria_plan_strategy(l->plan, op)->output, &l->stage->mesh);
}

static int input_of(const cria_lowering *l, int op, int tensor) {
    return cria_graph_op(l->graph, op)->input[0] == tensor ? 0 : 1;
}

/* Nothing happens to the operator's result between it and `user`: one may be computed within the other. */
static bool flows(const cria_lowering *l, int op, int user) {
    cria_sharding left = left_of(l, op);
    return cria_sharding_equal(raw_of(l, op), left) &&
           cria_sharding_equal(left,
                               cria_lowering_input(l, user, input_of(l, user, cria_graph_op(l->graph, op)->output)));
}

/* The first of the ranks whose results of `op` are summed: what is added to the sum once is added by it. */
static bool adds_once(const cria_lowering *l, int op) {
    const cria_strategy *s = cria_plan_strategy(l->plan, op);
    cria_op_index indices[CRIA_MAX_INDICES];
    cria_op_indices(l->graph, cria_graph_op(l->graph, op), indices);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (s->index[axis] >= 0 && indices[s->index[axis]].split == CRIA_SPLIT_SUM && l->position[axis] > 0)
            return false;
    return true;
}

static cria_status failed(const cria_lowering *l) {
    return l->err->status == CRIA_OK ? cria_lowering_no_memory(l) : l->err->status;
}

/* ---- weights ---- */

static cria_selection select_dims(const cria_lowering *l, const cria_tensor *t, cria_sharding sharding, int first,
                                  int end) {
    cria_selection s = {0, 1, 0, 1, 1};
    if (end > first) {
        cria_extent e = cria_plan_part(l->plan, l->rank, t, sharding, end - 1);
        s.inner_begin = e.begin;
        s.inner_end = e.end;
        s.extent = t->dim[end - 1].extent;
    }
    if (end - first > 1) {
        cria_extent e = cria_plan_part(l->plan, l->rank, t, sharding, end - 2);
        s.outer_begin = e.begin;
        s.outer_end = e.end;
    }
    return s;
}

static bool same_weight(const cria_weight_spec *a, const cria_weight_spec *b) {
    return a->kind == b->kind && a->parts == b->parts &&
           memcmp(a->tensor, b->tensor, (size_t)a->parts * sizeof *a->tensor) == 0 &&
           memcmp(a->row, b->row, (size_t)a->parts * sizeof *a->row) == 0 &&
           memcmp(&a->col, &b->col, sizeof a->col) == 0;
}

/* Finds or adds a weight made of the parts' rows: input k of the operators [op, op + parts); `kept` dims of each tensor
 * are rows, the others columns. */
static int add_weight(cria_lowering *l, cria_weight_kind kind, int op, int k, int parts, int kept) {
    cria_program *p = l->program;
    cria_weight_spec w = {.kind = kind, .parts = parts};
    for (int i = 0; i < parts; i++) {
        w.tensor[i] = cria_graph_op(l->graph, op + i)->input[k];
        const cria_tensor *t = cria_graph_tensor(l->graph, w.tensor[i]);
        cria_sharding sharding = cria_lowering_input(l, op + i, k);
        int rows = kind == CRIA_WEIGHT_VECTOR ? t->dims : kept;
        w.row[i] = select_dims(l, t, sharding, 0, rows);
        w.col = select_dims(l, t, sharding, rows, t->dims);
        w.rows += cria_selection_count(&w.row[i]);
    }
    w.cols = cria_selection_count(&w.col);
    w.panel = kind == CRIA_WEIGHT_PANELS ? l->options->panel[w.tensor[0]] : CRIA_PANEL_F32;
    for (int i = 0; i < p->weight_count; i++)
        if (same_weight(&p->weights[i], &w)) return i;
    cria_weight_spec *at =
        cria_lowering_append((void **)&p->weights, &p->weight_count, &l->weight_capacity, sizeof *at);
    if (!at) return -1;
    if (kind == CRIA_WEIGHT_ROPE && w.rows > l->options->max_positions) w.rows = l->options->max_positions;
    w.bytes = kind == CRIA_WEIGHT_PANELS ? (int64_t)cria_panels_bytes(w.panel, w.rows, w.cols)
                                         : w.rows * w.cols * (int64_t)sizeof(float);
    w.offset = p->weight_bytes;
    p->weight_bytes += (w.bytes + 63) / 64 * 64;
    *at = w;
    return p->weight_count - 1;
}

static cria_status weight_operand(cria_lowering *l, cria_weight_kind kind, int op, int k, int parts, int kept,
                                  cria_operand *out) {
    int index = add_weight(l, kind, op, k, parts, kept);
    if (index < 0) return cria_lowering_no_memory(l);
    *out = (cria_operand){CRIA_SPACE_WEIGHT, index, 0, 0};
    return CRIA_OK;
}

/* ---- operators ---- */

/* A new buffer for what an operator computes; NULL: failed. */
static cria_form *place_output(cria_lowering *l, int op, int output_op) {
    int tensor = cria_graph_op(l->graph, output_op)->output;
    return cria_lowering_place(l, tensor, raw_of(l, output_op), op, last_use(l, tensor));
}

static cria_status lower_embed(cria_lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    const cria_tensor *ids = cria_graph_tensor(l->graph, op->input[0]);
    /* An embedding that is only added to a value whose last reader is that addition is accumulated in place. */
    int add = sole_user(l, op->output, CRIA_OP_ADD), last = index;
    cria_form *target = NULL;
    if (add >= 0 && flows(l, index, add)) {
        const cria_op *sum = cria_graph_op(l->graph, add);
        int k = 1 - input_of(l, add, op->output), other = sum->input[k];
        if (other != op->output && l->at[other].count > 0 && last_use(l, other) == add) {
            cria_form *into = cria_lowering_want_input(l, add, k, index);
            if (!into) return failed(l);
            target = cria_lowering_alias(l, sum->output, raw_of(l, add), into);
            if (!target) return failed(l);
            l->done[add] = true;
            last = add;
        }
    }
    bool accumulate = target != NULL;
    if (!target) target = place_output(l, index, index);
    cria_instruction *i = target ? emit(l, CRIA_KERNEL_embed, index) : NULL;
    if (!i) return failed(l);
    i->operand[0].space = strcmp(ids->name, "positions") == 0 ? CRIA_SPACE_POSITIONS : CRIA_SPACE_TOKEN_IDS;
    CRIA_TRY(weight_operand(l, CRIA_WEIGHT_PANELS, index, 1, 1, 1, &i->operand[1]));
    i->operand[2] = cria_lowering_work(target);
    /* Ids outside this rank's rows of the table give zeros (kernels/kernels.h). */
    i->offset = op->row_offset - l->program->weights[i->operand[1].index].row[0].inner_begin;
    i->accumulate = accumulate;
    return cria_lowering_finish(l, last, index);
}

/* The mesh axes that cut what a norm or a sampler reduces, as a group of ranks; CRIA_GROUP_COUNT: none. */
static cria_group reducing_group(const cria_lowering *l, int index) {
    const cria_strategy *s = cria_plan_strategy(l->plan, index);
    cria_op_index indices[CRIA_MAX_INDICES];
    cria_op_indices(l->graph, cria_graph_op(l->graph, index), indices);
    bool cut[CRIA_MESH_AXES];
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        cut[axis] =
            l->stage->mesh.size[axis] > 1 && s->index[axis] >= 0 && indices[s->index[axis]].split == CRIA_SPLIT_STATS;
    if (cut[0] && cut[1]) return CRIA_GROUP_STAGE;
    return cut[0] ? CRIA_GROUP_AXIS0 : cut[1] ? CRIA_GROUP_AXIS1 : CRIA_GROUP_COUNT;
}

static cria_status norm_operands(cria_lowering *l, int index, const cria_form *in, const cria_form *out,
                                 cria_instruction *i) {
    const cria_op *op = cria_graph_op(l->graph, index);
    i->operand[0] = cria_lowering_work(in);
    for (int k = 1; k < 3; k++)
        if (op->input[k] >= 0) CRIA_TRY(weight_operand(l, CRIA_WEIGHT_VECTOR, index, k, 1, 1, &i->operand[k]));
    i->operand[3] = cria_lowering_work(out);
    i->width = out->stride;
    i->eps = op->eps;
    i->rms = op->rms;
    return CRIA_OK;
}

/* Moments of this rank's columns, gathered from all ranks that share the row, then applied. */
static cria_status lower_cut_norm(cria_lowering *l, int index, const cria_form *in, const cria_form *out,
                                  cria_group group) {
    const cria_op *op = cria_graph_op(l->graph, index);
    cria_phase phase = cria_lowering_phase(l, op->output);
    int64_t each = op->rms ? 1 : 2, size = l->program->group_size[group];
    int64_t mine = cria_lowering_room(l, op->output, each, index, index);
    int64_t all = cria_lowering_room(l, op->output, each * size, index, index);
    cria_instruction *i = mine < 0 || all < 0 ? NULL : cria_lowering_emit(l, CRIA_DO_STATS, phase, index);
    if (!i) return failed(l);
    i->operand[0] = cria_lowering_work(in);
    i->operand[1] = (cria_operand){CRIA_SPACE_WORK, 0, mine, each};
    i->width = out->stride;
    i->rms = op->rms;
    int first = l->program->width_count;
    const cria_tensor *t = cria_graph_tensor(l->graph, op->input[0]);
    for (int pass = 0; pass < 2; pass++) /* of the gather; then how many columns each rank has */
        for (int r = 0; r < size; r++) {
            int64_t *w = cria_lowering_append((void **)&l->program->widths, &l->program->width_count,
                                              &l->width_capacity, sizeof *w);
            if (!w) return failed(l);
            cria_extent e = cria_plan_part(l->plan, cria_lowering_member(l, group, r), t,
                                           cria_lowering_input(l, index, 0), t->dims - 1);
            *w = pass ? e.end - e.begin : each;
        }
    i = cria_lowering_emit(l, CRIA_DO_ALL_GATHER, phase, index);
    if (!i) return failed(l);
    i->operand[0] = (cria_operand){CRIA_SPACE_WORK, 0, mine, each};
    i->operand[1] = (cria_operand){CRIA_SPACE_WORK, 0, all, each};
    i->group = group;
    i->first = first;
    i->count = (int)size;
    i = cria_lowering_emit(l, CRIA_DO_NORM, phase, index);
    if (!i) return failed(l);
    i->operand[4] = (cria_operand){CRIA_SPACE_WORK, 0, all, each};
    i->group = group;
    i->first = first + (int)size;
    i->count = (int)size;
    return norm_operands(l, index, in, out, i);
}

static cria_status lower_norm(cria_lowering *l, int index) {
    cria_form *in = cria_lowering_want_input(l, index, 0, index), *out = in ? place_output(l, index, index) : NULL;
    if (!out) return failed(l);
    cria_group group = reducing_group(l, index);
    if (group != CRIA_GROUP_COUNT) {
        CRIA_TRY(lower_cut_norm(l, index, in, out, group));
    } else {
        cria_instruction *i = emit(l, CRIA_KERNEL_norm, index);
        if (!i) return failed(l);
        CRIA_TRY(norm_operands(l, index, in, out, i));
    }
    return cria_lowering_finish(l, index, index);
}

/* Brings a value into the form that a panel type multiplies; once for all layers that read it so. */
static cria_status prepare(cria_lowering *l, int tensor, cria_form *at, cria_panel_type type, int index) {
    if (at->prepared && at->prepared_type == type) return CRIA_OK;
    int64_t width = form_width(l, tensor, at->sharding), row = (int64_t)cria_prepared_row_bytes(type, width);
    int64_t offset = cria_lowering_room(l, tensor, (row + 3) / (int64_t)sizeof(float), index, last_use(l, tensor));
    cria_instruction *i = offset < 0 ? NULL : emit(l, CRIA_KERNEL_prepare, index);
    if (!i) return failed(l);
    i->phase = cria_lowering_phase(l, tensor);
    i->operand[0] = cria_lowering_work(at);
    i->operand[1] = (cria_operand){CRIA_SPACE_WORK, 0, offset, 0};
    i->width = width;
    i->panel = type;
    at->prepared = true;
    at->prepared_type = type;
    at->prepared_offset = offset;
    return CRIA_OK;
}

/* How many linear operators from `index` on read the same value in a way that allows one matrix for all of them. */
static int group_size(const cria_lowering *l, int index) {
    const cria_op *first = cria_graph_op(l->graph, index);
    int count = 1;
    while (count < CRIA_WEIGHT_MAX_PARTS && index + count < cria_graph_ops(l->graph)) {
        const cria_op *op = cria_graph_op(l->graph, index + count);
        if (op->kind != CRIA_OP_LINEAR || op->input[0] != first->input[0] ||
            (op->input[2] < 0) != (first->input[2] < 0) || !cria_plan_runs(l->plan, l->rank, index + count) ||
            l->options->panel[op->input[1]] != l->options->panel[first->input[1]] ||
            !cria_sharding_equal(cria_lowering_input(l, index + count, 0), cria_lowering_input(l, index, 0)) ||
            adds_once(l, index + count) != adds_once(l, index))
            break;
        count++;
    }
    return count;
}

/* What a linear layer's epilogue takes over. */
typedef struct {
    int last; /* the operator whose output is written */
    cria_activation_name activation;
    cria_form *residual; /* NULL: none */
    bool in_place;       /* the residual is not read again */
} epilogue;

/* A residual may ride on a partial sum, added by one rank of those that are summed, if a sum is all that follows. */
static bool rides_on_sum(const cria_lowering *l, int op, int add) {
    cria_sharding raw = raw_of(l, op), left = left_of(l, op);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (raw.dim[axis] != left.dim[axis] && !(raw.dim[axis] == CRIA_PARTIAL && left.dim[axis] == CRIA_REPLICATED))
            return false;
    return cria_sharding_equal(left,
                               cria_lowering_input(l, add, input_of(l, add, cria_graph_op(l->graph, op)->output)));
}

/* Follows a linear layer's output through what its epilogue can do. */
static cria_status fuse_epilogue(cria_lowering *l, int index, epilogue *e) {
    int output = cria_graph_op(l->graph, index)->output;
    int user = sole_user(l, output, CRIA_OP_ACTIVATION);
    if (user >= 0 && flows(l, index, user) && sole_user(l, cria_graph_op(l->graph, user)->output, CRIA_OP_MUL) < 0) {
        e->activation = cria_graph_op(l->graph, user)->activation;
        e->last = user;
        l->done[user] = true;
    }
    output = cria_graph_op(l->graph, e->last)->output;
    user = sole_user(l, output, CRIA_OP_ADD);
    if (user < 0) return CRIA_OK;
    bool rides = e->last == index && rides_on_sum(l, index, user);
    if (!rides && !flows(l, e->last, user)) return CRIA_OK;
    const cria_op *sum = cria_graph_op(l->graph, user);
    int k = 1 - input_of(l, user, output), other = sum->input[k];
    if (other == output || l->at[other].count == 0) return CRIA_OK;
    e->residual = cria_lowering_want_input(l, user, k, index);
    if (!e->residual) return failed(l);
    e->in_place = last_use(l, other) == user;
    e->last = user;
    l->done[user] = true;
    return CRIA_OK;
}

/* What lies where the epilogue wrote it: the sum of what `op` left partial, if a residual rode on it. */
static cria_sharding written_as(const cria_lowering *l, int index, const epilogue *e) {
    cria_sharding raw = raw_of(l, index), sharding = raw_of(l, e->last);
    if (e->last == index) return raw;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (raw.dim[axis] == CRIA_PARTIAL) sharding.dim[axis] = CRIA_PARTIAL;
    return sharding;
}

/* Along an axis whose partial sums are summed after the residual was added, the first rank adds it. */
static bool residual_is_here(const cria_lowering *l, int index, const epilogue *e) {
    cria_sharding written = written_as(l, index, e), raw = raw_of(l, e->last);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (written.dim[axis] != raw.dim[axis] && l->position[axis] > 0) return false;
    return true;
}

/* Places the output of a linear layer, alone or of several that are one matrix. */
static cria_form *place_linear(cria_lowering *l, int index, int count, const epilogue *e) {
    int output = cria_graph_op(l->graph, e->last)->output, last = last_use(l, output);
    cria_sharding sharding = written_as(l, index, e);
    if (e->residual && e->in_place) return cria_lowering_alias(l, output, sharding, e->residual);
    if (count == 1) return cria_lowering_place(l, output, sharding, index, last);
    int64_t total = 0;
    for (int k = 0; k < count; k++) {
        int part = cria_graph_op(l->graph, index + k)->output;
        total += form_width(l, part, raw_of(l, index + k));
        if (last_use(l, part) > last) last = last_use(l, part);
    }
    int64_t offset = cria_lowering_room(l, output, total, index, last), at = offset;
    if (offset < 0) return NULL;
    for (int k = 0; k < count; k++) {
        int part = cria_graph_op(l->graph, index + k)->output;
        cria_sharding raw = raw_of(l, index + k);
        l->at[part].form[0] = (cria_form){.sharding = raw, .offset = at, .stride = total, .root = offset};
        l->at[part].count = 1;
        at += form_width(l, part, raw) * (int64_t)sizeof(float);
        l->done[index + k] = true;
    }
    return &l->at[output].form[0];
}

static cria_status lower_linear(cria_lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    int count = group_size(l, index), x = op->input[0];
    cria_form *in = cria_lowering_want_input(l, index, 0, index);
    if (!in) return failed(l);
    CRIA_TRY(prepare(l, x, in, l->options->panel[op->input[1]], index));
    epilogue e = {.last = index, .activation = CRIA_ACT_NONE};
    if (count == 1) CRIA_TRY(fuse_epilogue(l, index, &e));
    cria_form *out = place_linear(l, index, count, &e);
    cria_instruction *i = out ? emit(l, CRIA_KERNEL_linear, index) : NULL;
    if (!i) return failed(l);
    bool once = adds_once(l, index);
    i->operand[0] = (cria_operand){CRIA_SPACE_WORK, 0, in->prepared_offset, 0};
    int kept = cria_graph_tensor(l->graph, op->input[1])->dims - (cria_graph_tensor(l->graph, x)->dims - 1);
    CRIA_TRY(weight_operand(l, CRIA_WEIGHT_PANELS, index, 1, count, kept, &i->operand[1]));
    if (op->input[2] >= 0 && once) CRIA_TRY(weight_operand(l, CRIA_WEIGHT_VECTOR, index, 2, count, 1, &i->operand[2]));
    if (e.residual && residual_is_here(l, index, &e)) i->operand[3] = cria_lowering_work(e.residual);
    i->operand[4] = cria_lowering_work(out);
    i->activation = e.activation;
    if (e.last != index) CRIA_TRY(cria_lowering_sum(l, e.last, raw_of(l, e.last), index));
    for (int k = 1; k < count; k++) CRIA_TRY(cria_lowering_finish(l, index + k, index));
    return cria_lowering_finish(l, count > 1 ? index : e.last, index);
}

/* a + b or a * b of two values in the same sharding. */
static cria_status lower_pair(cria_lowering *l, int index) {
    cria_form *a = cria_lowering_want_input(l, index, 0, index),
              *b = a ? cria_lowering_want_input(l, index, 1, index) : NULL;
    cria_form *out = b ? place_output(l, index, index) : NULL;
    cria_do what = cria_graph_op(l->graph, index)->kind == CRIA_OP_ADD ? CRIA_DO_ADD : CRIA_DO_MUL;
    int output = cria_graph_op(l->graph, index)->output;
    cria_instruction *i = out ? cria_lowering_emit(l, what, cria_lowering_phase(l, output), index) : NULL;
    if (!i) return failed(l);
    i->operand[0] = cria_lowering_work(a);
    i->operand[1] = cria_lowering_work(b);
    i->operand[2] = cria_lowering_work(out);
    i->width = out->stride;
    return cria_lowering_finish(l, index, index);
}

/* An activation that no linear layer took: alone, or as the gate of a product. */
static cria_status lower_activation(cria_lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    cria_form *gate = cria_lowering_want_input(l, index, 0, index), *up = NULL;
    if (!gate) return failed(l);
    int last = index, mul = sole_user(l, op->output, CRIA_OP_MUL);
    if (mul >= 0 && flows(l, index, mul)) {
        int k = 1 - input_of(l, mul, op->output), other = cria_graph_op(l->graph, mul)->input[k];
        if (other != op->output && l->at[other].count > 0) {
            up = cria_lowering_want_input(l, mul, k, index);
            if (!up) return failed(l);
            if (up->stride == gate->stride) {
                l->done[mul] = true;
                last = mul;
            } else {
                up = NULL;
            }
        }
    }
    cria_form *out = place_output(l, index, last);
    cria_instruction *i = out ? emit(l, CRIA_KERNEL_glu, index) : NULL;
    if (!i) return failed(l);
    i->operand[0] = cria_lowering_work(gate);
    if (up) i->operand[1] = cria_lowering_work(up);
    i->operand[2] = cria_lowering_work(out);
    i->width = out->stride;
    i->activation = op->activation;
    return cria_lowering_finish(l, last, index);
}

static cria_status lower_rope(cria_lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    if (last_use(l, op->input[0]) != index)
        return cria_fail(l->err, CRIA_ERR_INTERNAL, "operator %d: rope works in place, but its input is read again",
                         index);
    cria_form *x = cria_lowering_want_input(l, index, 0, index);
    cria_instruction *i = x ? emit(l, CRIA_KERNEL_rope, index) : NULL;
    if (!i) return failed(l);
    i->operand[0] = cria_lowering_work(x);
    CRIA_TRY(weight_operand(l, CRIA_WEIGHT_ROPE, index, 1, 1, 1, &i->operand[1]));
    i->heads = input_extent(l, index, 0, 1);
    i->width = input_extent(l, index, 0, 2);
    if (!cria_lowering_alias(l, op->output, raw_of(l, index), x)) return failed(l);
    return cria_lowering_finish(l, index, index);
}

static cria_status lower_attention(cria_lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    cria_program *p = l->program;
    cria_kv_spec *kv = cria_lowering_append((void **)&p->kv, &p->kv_count, &l->kv_capacity, sizeof *kv);
    if (!kv) return cria_lowering_no_memory(l);
    kv->kv_heads = input_extent(l, index, 1, 1);
    kv->head_dim = input_extent(l, index, 1, 2);
    kv->layer = op->layer;
    cria_operand cache = {CRIA_SPACE_KV, p->kv_count - 1, 0, 0};
    cria_form *input[3];
    for (int k = 0; k < 3; k++)
        if (!(input[k] = cria_lowering_want_input(l, index, k, index))) return failed(l);
    /* The kernel knows one stride for keys and values. */
    for (int k = 1; k < 3 && input[1]->stride != input[2]->stride; k++)
        CRIA_TRY(cria_lowering_pack(l, op->input[k], input[k], index));
    cria_instruction *store = emit(l, CRIA_KERNEL_kv_store, index);
    if (!store) return failed(l);
    store->operand[0] = cache;
    store->operand[1] = cria_lowering_work(input[1]);
    store->operand[2] = cria_lowering_work(input[2]);
    cria_form *out = place_output(l, index, index);
    cria_instruction *i = out ? emit(l, CRIA_KERNEL_attention, index) : NULL;
    if (!i) return failed(l);
    i->operand[0] = cache;
    i->operand[1] = cria_lowering_work(input[0]);
    i->operand[2] = cria_lowering_work(out);
    i->heads = input_extent(l, index, 0, 1);
    i->scale = op->scale;
    return cria_lowering_finish(l, index, index);
}

static cria_status lower_gather(cria_lowering *l, int index) {
    cria_form *in = cria_lowering_want_input(l, index, 0, index);
    if (!in) return failed(l);
    /* The head runs once per chunk of rows, so what it gathers from must outlive every operator of the head. */
    cria_buffers_extend(&l->buffers, in->root, INT_MAX);
    cria_form *out = place_output(l, index, index);
    cria_instruction *i = out ? emit(l, CRIA_KERNEL_gather, index) : NULL;
    if (!i) return failed(l);
    i->operand[0] = cria_lowering_work(in);
    i->operand[1] = cria_lowering_work(out);
    i->width = out->stride;
    return cria_lowering_finish(l, index, index);
}

static cria_status lower_sample(cria_lowering *l, int index) {
    const cria_tensor *logits = cria_graph_tensor(l->graph, cria_graph_op(l->graph, index)->input[0]);
    cria_form *in = cria_lowering_want_input(l, index, 0, index);
    cria_group group = reducing_group(l, index);
    cria_instruction *i = in ? emit(l, CRIA_KERNEL_sample, index) : NULL;
    if (!i) return failed(l);
    i->operand[0] = cria_lowering_work(in);
    if (group != CRIA_GROUP_COUNT) {
        i->what = CRIA_DO_SAMPLE;
        i->group = group;
        i->first = l->program->width_count;
        i->count = l->program->group_size[group];
        for (int r = 0; r < l->program->group_size[group]; r++) {
            int64_t *w = cria_lowering_append((void **)&l->program->widths, &l->program->width_count,
                                              &l->width_capacity, sizeof *w);
            if (!w) return failed(l);
            cria_extent e = cria_plan_part(l->plan, cria_lowering_member(l, group, r), logits, in->sharding, 1);
            *w = e.end - e.begin;
        }
    }
    i->width = form_width(l, cria_graph_op(l->graph, index)->input[0], in->sharding);
    l->program->vocab = i->width;
    l->program->vocab_begin = cria_plan_part(l->plan, l->rank, logits, in->sharding, 1).begin;
    l->program->vocab_all = logits->dim[1].extent;
    return CRIA_OK;
}

static cria_status lower_op(cria_lowering *l, int index) {
    switch (cria_graph_op(l->graph, index)->kind) {
    case CRIA_OP_EMBED:
        return lower_embed(l, index);
    case CRIA_OP_ADD:
    case CRIA_OP_MUL:
        return lower_pair(l, index);
    case CRIA_OP_NORM:
        return lower_norm(l, index);
    case CRIA_OP_LINEAR:
        return lower_linear(l, index);
    case CRIA_OP_ACTIVATION:
        return lower_activation(l, index);
    case CRIA_OP_ROPE:
        return lower_rope(l, index);
    case CRIA_OP_ATTENTION:
        return lower_attention(l, index);
    case CRIA_OP_GATHER:
        return lower_gather(l, index);
    case CRIA_OP_SAMPLE:
        return lower_sample(l, index);
    default:
        break;
    }
    return cria_fail(l->err, CRIA_ERR_UNSUPPORTED, "operator %d (%s) cannot be lowered", index,
                     cria_op_info_of(cria_graph_op(l->graph, index)->kind)->name);
}

/* Tokens of a step come from any sequences and see each other through the cache: no rank can do with a part of them.
 * Serving cuts a batch between sequences, over replicas of the whole plan. */
static cria_status check_strategy(const cria_lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    const cria_strategy *s = cria_plan_strategy(l->plan, index);
    cria_op_index indices[CRIA_MAX_INDICES];
    cria_op_indices(l->graph, op, indices);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (l->stage->mesh.size[axis] > 1 &&
            ((s->index[axis] >= 0 && indices[s->index[axis]].dim.extent == CRIA_SYMBOLIC) ||
             left_of(l, index).dim[axis] == 0))
            return cria_fail(
                l->err, CRIA_ERR_UNSUPPORTED,
                "operator \"%s\": the plan cuts the tokens of a step, as in training; when serving, requests are "
                "spread over replicas",
                cria_graph_tensor(l->graph, op->output)->name);
    return CRIA_OK;
}

static void describe_groups(cria_lowering *l) {
    const cria_mesh *mesh = &l->stage->mesh;
    int place = l->rank - l->stage->first_rank;
    cria_program *p = l->program;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        p->group_size[axis] = mesh->size[axis];
        p->group_rank[axis] = l->position[axis];
    }
    p->group_size[CRIA_GROUP_STAGE] = mesh->size[0] * mesh->size[1];
    p->group_rank[CRIA_GROUP_STAGE] = place;
    p->stage = cria_plan_stage_of_rank(l->plan, l->rank);
    p->stages = cria_plan_stages(l->plan);
}

static cria_status lower_all(cria_lowering *l) {
    l->program = calloc(1, sizeof *l->program);
    l->at = calloc((size_t)cria_graph_tensors(l->graph), sizeof *l->at);
    l->done = calloc((size_t)cria_graph_ops(l->graph), sizeof *l->done);
    if (!l->program || !l->at || !l->done) return cria_lowering_no_memory(l);
    l->program->max_tokens = l->options->max_tokens;
    l->program->head_rows = l->options->max_rows < HEAD_ROWS ? l->options->max_rows : HEAD_ROWS;
    describe_groups(l);
    for (int i = l->stage->first_op; i < l->stage->end_op; i++) CRIA_TRY(check_strategy(l, i));
    CRIA_TRY(cria_lowering_receive_all(l));
    for (int i = l->stage->first_op; i < l->stage->end_op; i++)
        if (!l->done[i]) CRIA_TRY(lower_op(l, i));
    CRIA_TRY(cria_lowering_send_all(l));
    l->program->workspace_bytes = l->buffers.high_water;
    cria_join_rows(l->program);
    return CRIA_OK;
}

cria_status cria_lower(const cria_graph *graph, const cria_plan *plan, int rank, const cria_lower_options *options,
                       cria_program **out, cria_error *err) {
    cria_error error = {0};
    cria_lowering l = {.graph = graph, .plan = plan, .rank = rank, .options = options, .err = &error};
    *out = NULL;
    if (rank < 0 || rank >= cria_plan_ranks(plan))
        return cria_fail(err, CRIA_ERR_ARGUMENT, "rank %d of a plan for %d ranks", rank, cria_plan_ranks(plan));
    l.stage = cria_plan_stage(plan, cria_plan_stage_of_rank(plan, rank));
    l.position[0] = (rank - l.stage->first_rank) / l.stage->mesh.size[1];
    l.position[1] = (rank - l.stage->first_rank) % l.stage->mesh.size[1];
    cria_status status = lower_all(&l);
    cria_buffers_deinit(&l.buffers);
    free(l.at);
    free(l.done);
    if (status != CRIA_OK) {
        cria_program_destroy(l.program);
        return cria_fail(err, status, "%s", error.message);
    }
    *out = l.program;
    return CRIA_OK;
}
