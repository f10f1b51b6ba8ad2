/* The cost of a layer under given strategies: forward, backward, memory; and the usual way to cut it. */
#include "parallel/plan/stages_layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FORMS = 6 }; /* shardings of one tensor that are kept beside each other */

/* What is known of a tensor while the operators of a layer are walked. */
typedef struct {
    int tensor;
    int8_t forms;
    cria_sharding form[MAX_FORMS];
    cria_sharding read;           /* as its first reader wants it */
    bool partial[CRIA_MESH_AXES]; /* its gradient */
    bool inside;                  /* made by the layer */
    bool saved;
} tensor_state;

typedef struct {
    const cria_layer_task *task;
    const cria_mesh *mesh;
    unsigned batch_axes;
    tensor_state *state;
    int states;
    cria_layer_cost *out;
    int phase, first_op, end_op;
} walk;

cria_sharding cria_layer_boundary(const cria_tensor *tensor, unsigned batch_axes) {
    cria_sharding sharding = {{CRIA_REPLICATED, CRIA_REPLICATED}};
    if (tensor->dims > 0 && cria_dim_is_batch(tensor->dim[0].name))
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            if (batch_axes >> axis & 1) sharding.dim[axis] = 0;
    return sharding;
}

static tensor_state *find(walk *w, int tensor) {
    for (int i = w->states - 1; i >= 0; i--)
        if (w->state[i].tensor == tensor) return &w->state[i];
    tensor_state *s = &w->state[w->states++];
    *s = (tensor_state){.tensor = tensor};
    return s;
}

static int64_t symbolic_of(const walk *w, const cria_tensor *tensor) {
    const cria_step_shape *phase = &w->task->phase[w->phase];
    return tensor->dims > 0 && tensor->dim[0].name == CRIA_DIM_ROW ? phase->rows : phase->tokens;
}

static double shard_bytes(const walk *w, const cria_tensor *tensor, cria_sharding sharding, double element) {
    return cria_sharding_bytes(w->task->graph, tensor, sharding, w->mesh, symbolic_of(w, tensor), element);
}

/* The step on the way back; false: none. A sum's gradient is there already; what was gathered is sliced again. */
static bool step_back(cria_reshard_step *step) {
    if (step->kind == CRIA_RESHARD_SLICE || step->kind == CRIA_RESHARD_REDUCE_SCATTER) {
        step->kind = CRIA_RESHARD_ALL_GATHER;
        return true;
    }
    return step->kind == CRIA_RESHARD_ALL_TO_ALL;
}

static void count_step(const cria_mesh *mesh, const cria_reshard_step *step, double *seconds, double *sent) {
    *seconds += cria_reshard_cost(mesh, step, 1);
    *sent += cria_reshard_sent(mesh, step);
}

/* A collective along an axis that follows from no change of sharding. */
static void count_collective(const cria_mesh *mesh, cria_reshard_kind kind, int axis, double bytes, double *seconds,
                             double *sent) {
    count_step(mesh, &(cria_reshard_step){.kind = kind, .axis = axis, .bytes = bytes}, seconds, sent);
}

static bool convert(walk *w, const cria_tensor *tensor, cria_sharding from, cria_sharding to, bool collective) {
    from = cria_sharding_canonical(from, w->mesh);
    to = cria_sharding_canonical(to, w->mesh);
    if (cria_sharding_equal(from, to)) return true;
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    int count = cria_reshard(w->task->graph, tensor, from, to, w->mesh, symbolic_of(w, tensor),
                             w->task->element.activation, steps);
    if (count < 0) return false;
    cria_seconds *forward = &w->out->phase[w->phase], *backward = &w->out->phase[1];
    for (int i = 0; i < count; i++) {
        count_step(w->mesh, &steps[i], collective ? &forward->collectives : &forward->resharding,
                   &w->out->sent[w->phase]);
        if (w->task->train && step_back(&steps[i]))
            count_step(w->mesh, &steps[i], collective ? &backward->collectives : &backward->resharding,
                       &w->out->sent[1]);
    }
    return true;
}

static bool reads(const cria_tensor *tensor) {
    return tensor->kind == CRIA_TENSOR_VALUE;
}

/* Brings a value to the form in which an operator wants it, unless it already has it. */
static bool fetch(walk *w, tensor_state *s, const cria_tensor *tensor, cria_sharding wanted) {
    wanted = cria_sharding_canonical(wanted, w->mesh);
    if (!s->inside && s->forms == 0) {
        s->form[s->forms++] = cria_sharding_canonical(cria_layer_boundary(tensor, w->batch_axes), w->mesh);
        w->out->input = fmax(w->out->input, shard_bytes(w, tensor, s->form[0], w->task->element.activation));
    }
    for (int i = 0; i < s->forms; i++)
        if (cria_sharding_equal(s->form[i], wanted)) return true;
    if (s->forms < MAX_FORMS) s->form[s->forms++] = wanted;
    return convert(w, tensor, s->form[0], wanted, false);
}

/* Parameters stay as their first reader wants them. Another reader must bring them to its own form each time; when
 * serving, where they never change, it has them once more (parallel/lower). */
static bool hold(walk *w, tensor_state *s, const cria_tensor *tensor, cria_sharding wanted) {
    wanted = cria_sharding_canonical(wanted, w->mesh);
    bool known = s->forms == 0 || w->task->train || s->forms == MAX_FORMS;
    for (int i = 0; i < s->forms; i++) known = known || cria_sharding_equal(s->form[i], wanted);
    if (s->forms == 0 || !known) s->form[s->forms++] = wanted;
    if (!w->task->train) return true;
    return convert(w, tensor, s->form[0], wanted, false);
}

/* The gradient of an input is partial along an axis that cuts an index of the output which the input lacks. */
static void mark_partial(walk *w, const cria_op_index *indices, const cria_strategy *strategy, int input,
                         tensor_state *s) {
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        int cut = strategy->index[axis];
        if (cut < 0 || w->mesh->size[axis] < 2) continue;
        bool lacks = indices[cut].input[input] < 0;
        if (lacks && indices[cut].output >= 0 && indices[cut].split != CRIA_SPLIT_SUM) s->partial[axis] = true;
    }
}

/* What the backward pass of an operator needs again. */
static bool is_saved(const cria_op *op, int input) {
    switch (op->kind) {
    case CRIA_OP_ADD:
    case CRIA_OP_SUB:
    case CRIA_OP_GATHER:
    case CRIA_OP_RESHAPE:
    case CRIA_OP_EMBED:
        return false;
    default:
        return op->input[input] >= 0 && !cria_op_gradient_of_output(op);
    }
}

/* What the backward pass needs is counted apart: what else such an operator makes takes the place of an input, as the
 * gradient of the input takes that of the output's. */
static bool works_in_place(const cria_op *op) {
    switch (op->kind) {
    case CRIA_OP_ADD:
    case CRIA_OP_SUB:
    case CRIA_OP_RESHAPE:
    case CRIA_OP_ACTIVATION:
    case CRIA_OP_NORM:
    case CRIA_OP_SOFTMAX:
        return true;
    default:
        return false;
    }
}

static void add_statistics(walk *w, const cria_op *op, const cria_strategy *strategy) {
    cria_strategy_options options = {.symbolic = cria_phase_symbolic(w->task->graph, op, &w->task->phase[w->phase]),
                                     .element = w->task->element.activation};
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        double bytes = cria_strategy_stats_bytes(w->task->graph, op, w->mesh, &options, strategy, axis);
        for (int pass = 0; bytes > 0 && pass < (w->task->train ? 2 : 1); pass++) {
            int phase = pass ? 1 : w->phase;
            count_collective(w->mesh, CRIA_RESHARD_ALL_REDUCE, axis, bytes, &w->out->phase[phase].collectives,
                             &w->out->sent[phase]);
        }
    }
}

static bool read_inputs(walk *w, const cria_op *op, const cria_strategy *strategy, double *live) {
    cria_op_index indices[CRIA_MAX_INDICES];
    cria_op_indices(w->task->graph, op, indices);
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
        if (op->input[k] < 0) continue;
        const cria_tensor *tensor = cria_graph_tensor(w->task->graph, op->input[k]);
        if (tensor->kind == CRIA_TENSOR_INPUT) continue;
        tensor_state *s = find(w, op->input[k]);
        bool value = reads(tensor);
        if (value ? !fetch(w, s, tensor, strategy->input[k]) : !hold(w, s, tensor, strategy->input[k])) return false;
        mark_partial(w, indices, strategy, k, s);
        s->read = strategy->input[k];
        double bytes =
            shard_bytes(w, tensor, strategy->input[k], value ? w->task->element.activation : w->task->element.weight);
        if (value) *live += bytes;
        if (value && w->task->train && !s->saved && is_saved(op, k)) {
            s->saved = true;
            w->out->saved += bytes;
        }
    }
    return true;
}

static bool walk_op(walk *w, const cria_op *op, const int *type, const cria_strategy *strategy) {
    const cria_layer_task *task = w->task;
    const cria_tensor *output = cria_graph_tensor(task->graph, op->output);
    double live = 0;
    if (!read_inputs(w, op, strategy, &live)) return false;
    if (!convert(w, output, strategy->raw, strategy->output, true)) return false;
    double compute = cria_cost_operator(task->cluster, type, task->graph, op, w->mesh, &task->phase[w->phase],
                                        &task->element, strategy);
    add_statistics(w, op, strategy);
    w->out->phase[w->phase].compute += compute;
    /* A product has two gradients; an operator that streams reads twice as much. */
    if (task->train) w->out->phase[1].compute += 2 * compute;
    double made = shard_bytes(w, output, strategy->raw, task->element.activation);
    live = task->train && works_in_place(op) ? fmax(live, made) : live + made;
    w->out->work = fmax(w->out->work, live);
    if (op->kind == CRIA_OP_ATTENTION) {
        const cria_tensor *k = cria_graph_tensor(task->graph, op->input[1]);
        double keys = shard_bytes(w, k, strategy->input[1], task->element.kv);
        const cria_step_shape *phase = &task->phase[w->phase];
        w->out->kv += 2 * keys / (double)(phase->tokens > 0 ? phase->tokens : 1);
        const cria_device_type *device = cria_cluster_type(task->cluster, type[0]);
        const cria_tensor *q = cria_graph_tensor(task->graph, op->input[0]);
        /* Scores that were written to memory are kept for the backward pass. */
        if (task->train && device->score_passes > 0)
            w->out->saved += shard_bytes(w, q, strategy->input[0], task->element.activation) /
                             (double)q->dim[q->dims - 1].extent * phase->context;
    }
    tensor_state *s = find(w, op->output);
    s->inside = true;
    s->forms = 1;
    s->form[0] = cria_sharding_canonical(strategy->output, w->mesh);
    /* What leaves the layer is kept by those that read it. */
    if (task->train && cria_op_gradient_of_output(op) && task->last_use[op->output] < w->end_op) {
        s->saved = true;
        w->out->saved += shard_bytes(w, output, strategy->output, task->element.activation);
    }
    return true;
}

/* Sums of gradients, and what is held, once the whole layer has been walked. */
static void finish_tensor(walk *w, tensor_state *s) {
    const cria_layer_task *task = w->task;
    const cria_tensor *tensor = cria_graph_tensor(task->graph, s->tensor);
    if (reads(tensor)) {
        for (int axis = 0; task->train && axis < CRIA_MESH_AXES; axis++)
            if (s->partial[axis])
                count_collective(w->mesh, CRIA_RESHARD_ALL_REDUCE, axis,
                                 shard_bytes(w, tensor, s->read, task->element.activation),
                                 &w->out->phase[1].collectives, &w->out->sent[1]);
        return;
    }
    if (tensor->kind != CRIA_TENSOR_PARAM) return;
    /* Counted as elements of the usual type. */
    double wide = cria_element_bytes(&task->element, s->tensor) / task->element.weight;
    double elements = 0;
    for (int i = 0; i < s->forms; i++) elements += shard_bytes(w, tensor, s->form[i], 1) * wide;
    double bytes = elements * task->element.weight, cut = elements;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (!s->partial[axis]) continue;
        cria_layer_cost *out = w->out;
        count_collective(w->mesh, CRIA_RESHARD_ALL_REDUCE, axis, bytes, &out->sync, &out->sync_sent);
        for (int pass = 0; pass < 2; pass++) /* forward, backward */
            count_collective(w->mesh, CRIA_RESHARD_ALL_GATHER, axis, bytes, &out->gather, &out->gather_sent);
        count_collective(w->mesh, CRIA_RESHARD_REDUCE_SCATTER, axis, bytes, &out->scatter, &out->scatter_sent);
        cut /= w->mesh->size[axis];
    }
    bool behind = task->last_use[s->tensor] >= w->end_op,
         before = task->first_use && task->first_use[s->tensor] < w->first_op;
    int kind = tensor->param == CRIA_PARAM_ROPE_TABLE ? CRIA_SHARED_ANGLES : CRIA_SHARED_TABLE;
    bool shared = task->first_use && (behind || before);
    *(shared ? &w->out->shared[kind] : &w->out->parameters) += elements;
    *(shared ? &w->out->cut_shared[kind] : &w->out->cut_parameters) += cut;
}

static bool walk_phase(walk *w, int first_op, int end_op, const int *type, const cria_strategy *strategies) {
    const cria_graph *graph = w->task->graph;
    w->states = 0;
    for (int i = first_op; i < end_op; i++)
        if (!walk_op(w, cria_graph_op(graph, i), type, &strategies[i - first_op])) return false;
    for (int i = first_op; i < end_op; i++) {
        int output = cria_graph_op(graph, i)->output;
        if (w->task->last_use[output] < end_op) continue;
        const cria_tensor *tensor = cria_graph_tensor(graph, output);
        tensor_state *s = find(w, output);
        if (!convert(w, tensor, s->form[0], cria_layer_boundary(tensor, w->batch_axes), false)) return false;
    }
    return true;
}

bool cria_layer_evaluate(const cria_layer_task *task, int first_op, int end_op, const cria_mesh *mesh, const int *type,
                         unsigned batch_axes, const cria_strategy *strategies, cria_layer_cost *out) {
    *out = (cria_layer_cost){0};
    walk w = {.task = task, .mesh = mesh, .batch_axes = batch_axes, .out = out, .first_op = first_op, .end_op = end_op};
    w.state = malloc(((size_t)(end_op - first_op) * (CRIA_MAX_INPUTS + 1) + 1) * sizeof *w.state);
    bool good = w.state != NULL;
    int phases = task->train ? 1 : CRIA_PHASES;
    for (w.phase = phases - 1; good && w.phase >= 0; w.phase--) {
        out->kv = 0;
        good = walk_phase(&w, first_op, end_op, type, strategies);
    }
    w.phase = 0;
    for (int i = 0; good && i < w.states; i++) finish_tensor(&w, &w.state[i]);
    const cria_device_type *device = cria_cluster_type(task->cluster, type[0]);
    /* The optimizer reads and writes all its state, gradients and weights. */
    double updated = out->parameters + out->shared[CRIA_SHARED_TABLE];
    out->update = updated * 2 * (task->optimizer + 2 * task->element.weight) / cria_device_speed(device, 0, true);
    free(w.state);
    return good;
}

/* The index that an operator must cut for `axis` to follow what its inputs are cut along; CRIA_IDLE: none is cut. */
static int follow(const cria_op *op, const cria_op_index *indices, int count, const cria_sharding *input, int axis) {
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
        if (op->input[k] < 0 || input[k].dim[axis] < 0) continue;
        for (int i = 0; i < count; i++)
            if (indices[i].input[k] == input[k].dim[axis] && indices[i].split != CRIA_SPLIT_NEVER &&
                !cria_dim_is_batch(indices[i].dim.name))
                return i;
    }
    return CRIA_IDLE;
}

/* The index over which a product has a matrix of parameters for each place, such as experts; CRIA_IDLE: none. */
static int expert_index(const cria_graph *graph, const cria_op *op, const cria_op_index *indices, int count) {
    if (!cria_op_multiplies(graph, op) || op->input[1] < 0 ||
        cria_graph_tensor(graph, op->input[1])->kind != CRIA_TENSOR_PARAM)
        return CRIA_IDLE;
    for (int i = 0; i < count; i++)
        if (indices[i].input[0] >= 0 && indices[i].input[1] >= 0 && indices[i].output >= 0 &&
            indices[i].split == CRIA_SPLIT_FREE)
            return i;
    return CRIA_IDLE;
}

bool cria_layer_has_experts(const cria_graph *graph, int first_op, int end_op) {
    for (int n = first_op; n < end_op; n++) {
        const cria_op *op = cria_graph_op(graph, n);
        cria_op_index indices[CRIA_MAX_INDICES];
        int count = cria_op_indices(graph, op, indices);
        if (expert_index(graph, op, indices, count) != CRIA_IDLE) return true;
    }
    return false;
}

/* Where nothing is cut yet: the largest output index of a product with a parameter, the heads of attention, the rows of
 * a vocabulary. */
static int begin_cut(const cria_graph *graph, const cria_op *op, const cria_op_index *indices, int count) {
    int best = CRIA_IDLE;
    bool table = op->kind == CRIA_OP_EMBED, product = cria_op_multiplies(graph, op);
    if (!table && !product) return CRIA_IDLE;
    for (int i = 0; i < count; i++) {
        if (cria_dim_is_batch(indices[i].dim.name) || indices[i].dim.name == CRIA_DIM_SEQUENCE) continue;
        if (indices[i].split != (table ? CRIA_SPLIT_SUM : CRIA_SPLIT_FREE)) continue;
        if (table && indices[i].dim.name != CRIA_DIM_VOCAB) continue;
        bool heads = op->kind == CRIA_OP_ATTENTION;
        if (!heads && indices[i].input[1] < 0) continue;
        bool larger = best < 0 || indices[i].dim.extent > indices[best].dim.extent;
        /* Projections to heads are cut by heads, never inside one. */
        if (indices[i].dim.name == CRIA_DIM_HEAD_DIM) continue;
        if (larger) best = i;
    }
    return best;
}

static int batch_index(const cria_op_index *indices, int count) {
    for (int i = 0; i < count; i++)
        if (cria_dim_is_batch(indices[i].dim.name) && indices[i].split == CRIA_SPLIT_FREE) return i;
    return CRIA_IDLE;
}

/* What an axis that has a part of the batch cuts: experts if they are cut over it, else the batch; where the operator
 * knows it under another name (tokens in groups), whatever its inputs are cut along. */
static int batch_cut(const cria_graph *graph, const cria_op *op, const cria_op_index *indices, int count,
                     const cria_sharding *input, int axis, bool experts) {
    int cut = experts ? expert_index(graph, op, indices, count) : CRIA_IDLE;
    if (cut < 0) cut = batch_index(indices, count);
    return cut < 0 ? follow(op, indices, count, input, axis) : cut;
}

static bool fits(const cria_layer_task *task, const cria_op *op, const cria_mesh *mesh, const int8_t choice[2],
                 const cria_op_index *indices, int which) {
    const bool cut[CRIA_MESH_AXES] = {choice[0] == which, choice[1] == which};
    return cria_dim_divides(task->graph, indices[which].dim, mesh, cut,
                            cria_phase_symbolic(task->graph, op, &task->phase[0]));
}

void cria_layer_usual_way(const cria_layer_task *task, int first_op, int end_op, const cria_mesh *mesh,
                          const cria_axis_use use[CRIA_MESH_AXES], bool experts, cria_strategy *strategies) {
    const cria_graph *graph = task->graph;
    unsigned batch_axes = (use[0] == CRIA_AXIS_BATCH) | (use[1] == CRIA_AXIS_BATCH) << 1;
    for (int n = first_op; n < end_op; n++) {
        const cria_op *op = cria_graph_op(graph, n);
        cria_op_index indices[CRIA_MAX_INDICES];
        int count = cria_op_indices(graph, op, indices);
        cria_sharding input[CRIA_MAX_INPUTS];
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
            input[k] = (cria_sharding){{CRIA_REPLICATED, CRIA_REPLICATED}};
            if (op->input[k] < 0) continue;
            const cria_tensor *tensor = cria_graph_tensor(graph, op->input[k]);
            if (tensor->kind == CRIA_TENSOR_VALUE) input[k] = cria_layer_boundary(tensor, batch_axes);
            for (int m = n - 1; m >= first_op; m--)
                if (cria_graph_op(graph, m)->output == op->input[k]) input[k] = strategies[m - first_op].output;
        }
        int8_t choice[CRIA_MESH_AXES] = {CRIA_IDLE, CRIA_IDLE};
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
            if (mesh->size[axis] < 2 || use[axis] == CRIA_AXIS_IDLE) continue;
            int cut = use[axis] == CRIA_AXIS_BATCH ? batch_cut(graph, op, indices, count, input, axis, experts)
                                                   : follow(op, indices, count, input, axis);
            if (cut < 0 && use[axis] == CRIA_AXIS_TENSOR) cut = begin_cut(graph, op, indices, count);
            choice[axis] = (int8_t)cut;
            if (cut >= 0 && !fits(task, op, mesh, choice, indices, cut)) choice[axis] = CRIA_IDLE;
        }
        cria_strategy *s = &strategies[n - first_op];
        if (cria_strategy_derive(graph, op, mesh, choice, s)) {
            const int8_t idle[CRIA_MESH_AXES] = {CRIA_IDLE, CRIA_IDLE};
            cria_strategy_derive(graph, op, mesh, idle, s);
        }
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            if (s->output.dim[axis] == CRIA_PARTIAL) s->output.dim[axis] = CRIA_REPLICATED;
    }
}
