/* Lowering: walks the graph once, fusing as it goes, and writes the rank's instructions, weights and buffers. */
#include "parallel/lower/lower.h"

#include "parallel/lower/buffers.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_ROWS = 64 };

/* Where a value lies, and its prepared form if one was made. `root` is the placed buffer that it is part of. */
typedef struct {
    bool placed;
    int64_t offset, stride, root;
    bool prepared;
    cria_panel_type prepared_type;
    int64_t prepared_offset;
} location;

typedef struct {
    const cria_graph *graph;
    const cria_plan *plan;
    int rank;
    const cria_lower_options *options;
    cria_program *program;
    int instruction_capacity, weight_capacity, kv_capacity;
    location *at; /* by tensor */
    bool *done;   /* by operator: already fused into an earlier one */
    cria_buffers buffers;
    cria_error *err;
} lowering;

static int64_t part_extent(const lowering *l, int tensor, int first, int end) {
    int64_t product = 1;
    for (int d = first; d < end; d++) {
        cria_extent e = cria_plan_extent(l->plan, l->rank, tensor, d);
        product *= e.end - e.begin;
    }
    return product;
}

/* Elements per row of a value on this rank. */
static int64_t value_width(const lowering *l, int tensor) {
    return part_extent(l, tensor, 1, cria_graph_tensor(l->graph, tensor)->dims);
}

static cria_phase phase_of(const lowering *l, int tensor) {
    return cria_graph_tensor(l->graph, tensor)->dim[0].name == CRIA_DIM_ROW ? CRIA_PHASE_HEAD : CRIA_PHASE_BODY;
}

static int64_t max_rows_of(const lowering *l, int tensor) {
    return phase_of(l, tensor) == CRIA_PHASE_HEAD ? l->program->head_rows : l->program->max_tokens;
}

static cria_status no_memory(const lowering *l) {
    return cria_fail(l->err, CRIA_ERR_MEMORY, "no memory to lower the graph");
}

/* Makes room for one more element and returns it zeroed; NULL when memory is out. */
static void *append(void **array, int *count, int *capacity, size_t size) {
    if (*count == *capacity) {
        int wanted = *capacity ? *capacity * 2 : 64;
        void *bigger = realloc(*array, (size_t)wanted * size);
        if (!bigger) return NULL;
        *array = bigger;
        *capacity = wanted;
    }
    void *element = (char *)*array + (size_t)(*count)++ * size;
    memset(element, 0, size);
    return element;
}

static cria_instruction *emit(lowering *l, cria_kernel_id kernel, int op) {
    cria_program *p = l->program;
    cria_instruction *i = append((void **)&p->instructions, &p->instruction_count, &l->instruction_capacity, sizeof *i);
    if (!i) return NULL;
    i->kernel = kernel;
    i->op = op;
    i->layer = cria_graph_op(l->graph, op)->layer;
    i->phase = phase_of(l, cria_graph_op(l->graph, op)->output);
    return i;
}

static cria_operand work(const lowering *l, int tensor) {
    return (cria_operand){CRIA_SPACE_WORK, 0, l->at[tensor].offset, l->at[tensor].stride};
}

static int last_use(const lowering *l, int tensor) {
    int last;
    cria_graph_uses(l->graph, tensor, &last);
    return last;
}

/* The only operator that reads a tensor, if it is of the wanted kind; -1 otherwise. */
static int sole_user(const lowering *l, int tensor, cria_op_kind kind) {
    int last, uses = cria_graph_uses(l->graph, tensor, &last);
    return uses == 1 && cria_graph_op(l->graph, last)->kind == kind && cria_plan_runs(l->plan, l->rank, last) ? last
                                                                                                              : -1;
}

static cria_status place(lowering *l, int tensor, int op, int64_t width, int last) {
    int64_t bytes = max_rows_of(l, tensor) * width * (int64_t)sizeof(float);
    int64_t offset = cria_buffers_place(&l->buffers, bytes, op, last);
    if (offset < 0) return no_memory(l);
    l->at[tensor] = (location){.placed = true, .offset = offset, .stride = width, .root = offset};
    return CRIA_OK;
}

/* `tensor` is another name for what lies where `old` lies (updated in place). */
static void alias(lowering *l, int tensor, int old) {
    l->at[tensor] = l->at[old];
    l->at[tensor].prepared = false;
    cria_buffers_extend(&l->buffers, l->at[old].root, last_use(l, tensor));
}

/* Finds or adds a weight made of the parts' rows; `kept` dims of each tensor are rows, the others columns. */
static int add_weight(lowering *l, cria_weight_kind kind, cria_panel_type panel, int parts, const int *tensor,
                      int kept) {
    cria_program *p = l->program;
    for (int i = 0; i < p->weight_count; i++) {
        const cria_weight_spec *w = &p->weights[i];
        if (w->kind == kind && w->parts == parts && memcmp(w->tensor, tensor, (size_t)parts * sizeof *tensor) == 0)
            return i;
    }
    cria_weight_spec *w = append((void **)&p->weights, &p->weight_count, &l->weight_capacity, sizeof *w);
    if (!w) return -1;
    w->kind = kind;
    w->panel = panel;
    w->parts = parts;
    for (int i = 0; i < parts; i++) {
        const cria_tensor *t = cria_graph_tensor(l->graph, tensor[i]);
        int rows_dims = kind == CRIA_WEIGHT_VECTOR ? t->dims : kept;
        int64_t rows = part_extent(l, tensor[i], 0, rows_dims);
        cria_extent outer = cria_plan_extent(l->plan, l->rank, tensor[i], 0);
        w->tensor[i] = tensor[i];
        w->row_begin[i] = outer.begin * (rows / (outer.end - outer.begin));
        w->row_end[i] = w->row_begin[i] + rows;
        w->rows += rows;
        w->cols = part_extent(l, tensor[i], rows_dims, t->dims);
    }
    if (kind == CRIA_WEIGHT_ROPE && w->rows > l->options->max_positions) w->rows = l->options->max_positions;
    w->bytes = kind == CRIA_WEIGHT_PANELS ? (int64_t)cria_panels_bytes(panel, w->rows, w->cols)
                                          : w->rows * w->cols * (int64_t)sizeof(float);
    w->offset = p->weight_bytes;
    p->weight_bytes += (w->bytes + 63) / 64 * 64;
    return p->weight_count - 1;
}

static cria_status weight_operand(lowering *l, cria_weight_kind kind, int parts, const int *tensor, int kept,
                                  cria_operand *out) {
    cria_panel_type panel = kind == CRIA_WEIGHT_PANELS ? l->options->panel[tensor[0]] : CRIA_PANEL_F32;
    int index = add_weight(l, kind, panel, parts, tensor, kept);
    if (index < 0) return no_memory(l);
    *out = (cria_operand){CRIA_SPACE_WEIGHT, index, 0, 0};
    return CRIA_OK;
}

static cria_status lower_embed(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    const cria_tensor *ids = cria_graph_tensor(l->graph, op->input[0]);
    cria_space space = strcmp(ids->name, "positions") == 0 ? CRIA_SPACE_POSITIONS : CRIA_SPACE_TOKEN_IDS;
    /* An embedding that is only added to a value whose last reader is that addition is accumulated in place. */
    int target = op->output, add = sole_user(l, op->output, CRIA_OP_ADD);
    bool accumulate = false;
    if (add >= 0) {
        const cria_op *sum = cria_graph_op(l->graph, add);
        int other = sum->input[0] == op->output ? sum->input[1] : sum->input[0];
        if (l->at[other].placed && last_use(l, other) == add) {
            accumulate = true;
            target = other;
            l->done[add] = true;
            alias(l, sum->output, other);
        }
    }
    if (!accumulate) CRIA_TRY(place(l, op->output, index, value_width(l, op->output), last_use(l, op->output)));
    cria_instruction *i = emit(l, CRIA_KERNEL_embed, index);
    if (!i) return no_memory(l);
    i->operand[0].space = space;
    CRIA_TRY(weight_operand(l, CRIA_WEIGHT_PANELS, 1, &op->input[1], 1, &i->operand[1]));
    i->operand[2] = work(l, target);
    i->offset = op->row_offset;
    i->accumulate = accumulate;
    return CRIA_OK;
}

static cria_status lower_norm(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    CRIA_TRY(place(l, op->output, index, value_width(l, op->output), last_use(l, op->output)));
    cria_instruction *i = emit(l, CRIA_KERNEL_norm, index);
    if (!i) return no_memory(l);
    i->operand[0] = work(l, op->input[0]);
    for (int k = 1; k < 3; k++)
        if (op->input[k] >= 0) CRIA_TRY(weight_operand(l, CRIA_WEIGHT_VECTOR, 1, &op->input[k], 1, &i->operand[k]));
    i->operand[3] = work(l, op->output);
    i->width = value_width(l, op->output);
    i->eps = op->eps;
    i->rms = op->rms;
    return CRIA_OK;
}

/* Brings a value into the form that a panel type multiplies; once for all layers that read it so. */
static cria_status prepare(lowering *l, int tensor, cria_panel_type type, int index) {
    location *at = &l->at[tensor];
    if (at->prepared && at->prepared_type == type) return CRIA_OK;
    int64_t width = value_width(l, tensor), row = (int64_t)cria_prepared_row_bytes(type, width);
    int64_t offset = cria_buffers_place(&l->buffers, max_rows_of(l, tensor) * row, index, last_use(l, tensor));
    cria_instruction *i = emit(l, CRIA_KERNEL_prepare, index);
    if (offset < 0 || !i) return no_memory(l);
    i->operand[0] = work(l, tensor);
    i->operand[1] = (cria_operand){CRIA_SPACE_WORK, 0, offset, 0};
    i->width = width;
    i->panel = type;
    at->prepared = true;
    at->prepared_type = type;
    at->prepared_offset = offset;
    return CRIA_OK;
}

/* How many linear operators from `index` on read the same value in a way that allows one matrix for all of them. */
static int group_size(const lowering *l, int index) {
    const cria_op *first = cria_graph_op(l->graph, index);
    int count = 1;
    while (count < CRIA_WEIGHT_MAX_PARTS && index + count < cria_graph_ops(l->graph)) {
        const cria_op *op = cria_graph_op(l->graph, index + count);
        if (op->kind != CRIA_OP_LINEAR || op->input[0] != first->input[0] ||
            (op->input[2] < 0) != (first->input[2] < 0) || !cria_plan_runs(l->plan, l->rank, index + count) ||
            l->options->panel[op->input[1]] != l->options->panel[first->input[1]])
            break;
        count++;
    }
    return count;
}

/* Follows a linear layer's output through what its epilogue can do. */
static void fuse_epilogue(lowering *l, int *output, cria_activation_name *activation, int *residual, int *add) {
    int user = sole_user(l, *output, CRIA_OP_ACTIVATION);
    if (user >= 0 && sole_user(l, cria_graph_op(l->graph, user)->output, CRIA_OP_MUL) < 0) {
        *activation = cria_graph_op(l->graph, user)->activation;
        *output = cria_graph_op(l->graph, user)->output;
        l->done[user] = true;
    }
    user = sole_user(l, *output, CRIA_OP_ADD);
    if (user < 0) return;
    const cria_op *sum = cria_graph_op(l->graph, user);
    int other = sum->input[0] == *output ? sum->input[1] : sum->input[0];
    if (other == *output || !l->at[other].placed) return;
    *residual = other;
    *add = user;
    *output = sum->output;
    l->done[user] = true;
}

static cria_status lower_linear(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    int x = op->input[0], count = group_size(l, index), weights[CRIA_WEIGHT_MAX_PARTS], biases[CRIA_WEIGHT_MAX_PARTS];
    int64_t total = 0;
    for (int k = 0; k < count; k++) {
        const cria_op *part = cria_graph_op(l->graph, index + k);
        weights[k] = part->input[1];
        biases[k] = part->input[2];
        total += value_width(l, part->output);
    }
    CRIA_TRY(prepare(l, x, l->options->panel[weights[0]], index));
    int output = op->output, residual = -1, add = -1;
    cria_activation_name activation = CRIA_ACT_NONE;
    if (count == 1) fuse_epilogue(l, &output, &activation, &residual, &add);
    if (residual >= 0 && last_use(l, residual) == add) {
        alias(l, output, residual);
    } else {
        int last = last_use(l, output);
        for (int k = 1; k < count; k++) {
            int other = last_use(l, cria_graph_op(l->graph, index + k)->output);
            if (other > last) last = other;
        }
        CRIA_TRY(place(l, output, index, total, last));
    }
    cria_instruction *i = emit(l, CRIA_KERNEL_linear, index);
    if (!i) return no_memory(l);
    i->operand[0] = (cria_operand){CRIA_SPACE_WORK, 0, l->at[x].prepared_offset, 0};
    int kept = cria_graph_tensor(l->graph, weights[0])->dims - (cria_graph_tensor(l->graph, x)->dims - 1);
    CRIA_TRY(weight_operand(l, CRIA_WEIGHT_PANELS, count, weights, kept, &i->operand[1]));
    if (biases[0] >= 0) CRIA_TRY(weight_operand(l, CRIA_WEIGHT_VECTOR, count, biases, 1, &i->operand[2]));
    if (residual >= 0) i->operand[3] = work(l, residual);
    i->operand[4] = work(l, output);
    i->activation = activation;
    int64_t column = value_width(l, op->output);
    for (int k = 1; k < count; k++) {
        int part = cria_graph_op(l->graph, index + k)->output;
        l->at[part] = l->at[output];
        l->at[part].offset += column * (int64_t)sizeof(float);
        column += value_width(l, part);
        l->done[index + k] = true;
    }
    return CRIA_OK;
}

/* An activation that no linear layer took: alone, or as the gate of a product. */
static cria_status lower_activation(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    int output = op->output, up = -1, mul = sole_user(l, op->output, CRIA_OP_MUL);
    if (mul >= 0) {
        const cria_op *product = cria_graph_op(l->graph, mul);
        up = product->input[0] == op->output ? product->input[1] : product->input[0];
        if (l->at[up].placed && l->at[up].stride == l->at[op->input[0]].stride) {
            output = product->output;
            l->done[mul] = true;
        } else {
            up = -1;
        }
    }
    CRIA_TRY(place(l, output, index, value_width(l, output), last_use(l, output)));
    cria_instruction *i = emit(l, CRIA_KERNEL_glu, index);
    if (!i) return no_memory(l);
    i->operand[0] = work(l, op->input[0]);
    if (up >= 0) i->operand[1] = work(l, up);
    i->operand[2] = work(l, output);
    i->width = value_width(l, output);
    i->activation = op->activation;
    return CRIA_OK;
}

static cria_status lower_rope(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    if (last_use(l, op->input[0]) != index)
        return cria_fail(l->err, CRIA_ERR_INTERNAL, "operator %d: rope works in place, but its input is read again",
                         index);
    cria_instruction *i = emit(l, CRIA_KERNEL_rope, index);
    if (!i) return no_memory(l);
    i->operand[0] = work(l, op->input[0]);
    CRIA_TRY(weight_operand(l, CRIA_WEIGHT_ROPE, 1, &op->input[1], 1, &i->operand[1]));
    i->heads = part_extent(l, op->input[0], 1, 2);
    i->width = part_extent(l, op->input[0], 2, 3);
    alias(l, op->output, op->input[0]);
    return CRIA_OK;
}

static cria_status lower_attention(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    cria_program *p = l->program;
    cria_kv_spec *kv = append((void **)&p->kv, &p->kv_count, &l->kv_capacity, sizeof *kv);
    if (!kv) return no_memory(l);
    kv->kv_heads = part_extent(l, op->input[1], 1, 2);
    kv->head_dim = part_extent(l, op->input[1], 2, 3);
    kv->layer = op->layer;
    cria_operand cache = {CRIA_SPACE_KV, p->kv_count - 1, 0, 0};
    cria_instruction *store = emit(l, CRIA_KERNEL_kv_store, index);
    if (!store) return no_memory(l);
    store->operand[0] = cache;
    store->operand[1] = work(l, op->input[1]);
    store->operand[2] = work(l, op->input[2]);
    CRIA_TRY(place(l, op->output, index, value_width(l, op->output), last_use(l, op->output)));
    cria_instruction *i = emit(l, CRIA_KERNEL_attention, index);
    if (!i) return no_memory(l);
    i->operand[0] = cache;
    i->operand[1] = work(l, op->input[0]);
    i->operand[2] = work(l, op->output);
    i->heads = part_extent(l, op->input[0], 1, 2);
    i->scale = op->scale;
    return CRIA_OK;
}

static cria_status lower_gather(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    /* The head runs once per chunk of rows, so what it gathers from must outlive every operator of the head. */
    cria_buffers_extend(&l->buffers, l->at[op->input[0]].root, INT_MAX);
    CRIA_TRY(place(l, op->output, index, value_width(l, op->output), last_use(l, op->output)));
    cria_instruction *i = emit(l, CRIA_KERNEL_gather, index);
    if (!i) return no_memory(l);
    i->operand[0] = work(l, op->input[0]);
    i->operand[1] = work(l, op->output);
    i->width = value_width(l, op->output);
    return CRIA_OK;
}

static cria_status lower_sample(lowering *l, int index) {
    const cria_op *op = cria_graph_op(l->graph, index);
    cria_instruction *i = emit(l, CRIA_KERNEL_sample, index);
    if (!i) return no_memory(l);
    i->operand[0] = work(l, op->input[0]);
    i->width = value_width(l, op->input[0]);
    l->program->vocab = i->width;
    return CRIA_OK;
}

static cria_status lower_op(lowering *l, int index) {
    switch (cria_graph_op(l->graph, index)->kind) {
    case CRIA_OP_EMBED:
        return lower_embed(l, index);
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
    return cria_fail(l->err, CRIA_ERR_UNSUPPORTED,
                     "operator %d (%s) cannot be lowered where nothing takes it into its epilogue", index,
                     cria_op_info_of(cria_graph_op(l->graph, index)->kind)->name);
}

cria_status cria_lower(const cria_graph *graph, const cria_plan *plan, int rank, const cria_lower_options *options,
                       cria_program **out, cria_error *err) {
    lowering l = {.graph = graph, .plan = plan, .rank = rank, .options = options, .err = err};
    l.program = calloc(1, sizeof *l.program);
    l.at = calloc((size_t)cria_graph_tensors(graph), sizeof *l.at);
    l.done = calloc((size_t)cria_graph_ops(graph), sizeof *l.done);
    cria_status status = CRIA_OK;
    if (!l.program || !l.at || !l.done) {
        status = no_memory(&l);
    } else {
        l.program->max_tokens = options->max_tokens;
        l.program->head_rows = options->max_rows < HEAD_ROWS ? options->max_rows : HEAD_ROWS;
        for (int i = 0; i < cria_graph_ops(graph) && status == CRIA_OK; i++)
            if (!l.done[i] && cria_plan_runs(plan, rank, i)) status = lower_op(&l, i);
        l.program->workspace_bytes = l.buffers.high_water;
    }
    cria_buffers_deinit(&l.buffers);
    free(l.at);
    free(l.done);
    if (status != CRIA_OK) {
        cria_program_destroy(l.program);
        return status;
    }
    *out = l.program;
    return CRIA_OK;
}
