/* Strategies by rule. */
#include "parallel/plan/handmade.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *cria_hand_name(cria_hand hand) {
    static const char *const names[CRIA_HAND_COUNT] = {"one device", "data parallel", "Megatron",
                                                       "ZeRO-2",     "ZeRO-3",        "largest dim"};
    return names[hand];
}

typedef struct {
    const cria_graph *graph;
    const cria_mesh *mesh;
    const cria_intra_options *options;
    cria_sharding *held;  /* [tensors]: largest dim: where each lies so far; Megatron: as it was computed */
    unsigned char *inner; /* [names of dims]: Megatron */
} rule;

static bool may_cut(const rule *r, const cria_op_index *index, const bool cut[CRIA_MESH_AXES]) {
    if (index->split == CRIA_SPLIT_NEVER) return false;
    if (index->dim.extent == CRIA_SYMBOLIC && cria_graph_sequence(r->graph) == 0) return false;
    return cria_dim_divides(r->graph, index->dim, r->mesh, cut, r->options->strategies.symbolic);
}

/* Cuts an index by the axes in `axes` (bits), by as many of them as it divides over. */
static void cut(const rule *r, const cria_op_index *index, int which, unsigned axes, int8_t choice[CRIA_MESH_AXES]) {
    for (unsigned tried = axes; tried; tried = (tried - 1) & axes) {
        bool by[CRIA_MESH_AXES] = {tried & 1 && r->mesh->size[0] > 1, tried & 2 && r->mesh->size[1] > 1};
        if (!may_cut(r, index, by)) continue;
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            if (by[axis]) choice[axis] = (int8_t)which;
        return;
    }
}

static int find_batch(const rule *r, const cria_op_index *index, int count) {
    for (int i = 0; i < count; i++)
        if (cria_graph_is_batch(r->graph, index[i].dim.name) && index[i].split != CRIA_SPLIT_NEVER) return i;
    return -1;
}

static int find_largest(const cria_op_index *index, int count) {
    int best = -1;
    for (int i = 0; i < count; i++)
        if (index[i].split == CRIA_SPLIT_FREE && (best < 0 || index[i].dim.extent > index[best].dim.extent)) best = i;
    return best;
}

/* Dims are inner where a product with a parameter makes them and another one sums them away again, so that the layers
 * around never see them cut: heads, feed-forward and vocabulary where the graph calls them so, else every second width.
 */
enum { UNKNOWN, INNER, OUTER };

static bool find_usual(const rule *r) {
    static const cria_dim_name usual[] = {CRIA_DIM_HEAD, CRIA_DIM_KV_HEAD, CRIA_DIM_FFN, CRIA_DIM_VOCAB};
    bool any = false;
    for (int t = 0; t < cria_graph_tensors(r->graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(r->graph, t);
        for (int d = 0; d < tensor->dims; d++)
            for (size_t u = 0; u < sizeof usual / sizeof *usual; u++)
                if (tensor->dim[d].name == usual[u]) any = r->inner[usual[u]] = INNER;
    }
    return any;
}

static void find_inner(const rule *r) {
    if (find_usual(r)) return;
    for (int i = 0; i < cria_graph_ops(r->graph); i++) {
        const cria_op *op = cria_graph_op(r->graph, i);
        if (op->pass != CRIA_PASS_FORWARD || !cria_op_multiplies(r->graph, op)) continue;
        cria_op_index index[CRIA_MAX_INDICES];
        int count = cria_op_indices(r->graph, op, index), made = -1;
        bool from_inner = false;
        for (int k = 0; k < count; k++) {
            cria_dim_name name = index[k].dim.name;
            if (index[k].output >= 0) {
                if (made < 0 && !cria_graph_is_batch(r->graph, name) && index[k].input[1] >= 0) made = name;
                continue;
            }
            from_inner = from_inner || r->inner[name] == INNER;
            if (!r->inner[name]) r->inner[name] = OUTER;
        }
        if (made >= 0 && !r->inner[made]) r->inner[made] = from_inner ? OUTER : INNER;
    }
}

static void megatron(const rule *r, const cria_op_index *index, int count, int8_t choice[CRIA_MESH_AXES]) {
    bool grid = r->mesh->size[0] > 1 && r->mesh->size[1] > 1;
    unsigned tensor_axes = grid ? 2 : 3;
    int batch = find_batch(r, index, count);
    if (grid && batch >= 0) cut(r, &index[batch], batch, 1, choice);
    for (int i = 0; i < count; i++)
        if (r->inner[index[i].dim.name] == INNER && index[i].split != CRIA_SPLIT_NEVER) {
            cut(r, &index[i], i, tensor_axes, choice);
            return;
        }
}

/* Partial sums that are only added up, such as the gradients that come back from q, k and v, are summed once. */
static void add_partial_sums(const rule *r, const cria_op *op, int8_t choice[CRIA_MESH_AXES]) {
    if (!cria_op_passes_partial(op)) return;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        bool all = choice[axis] == CRIA_IDLE && r->mesh->size[axis] > 1;
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (op->input[k] >= 0) all = all && r->held[op->input[k]].dim[axis] == CRIA_PARTIAL;
        if (all && op->input[0] >= 0 && op->input[1] >= 0) choice[axis] = CRIA_PARTIAL;
    }
}

/* How many products multiply what this one does by parameters of the same shape: they are one matrix where people write
 * models (queries, keys and values). */
static int64_t fused_with(const rule *r, const cria_op *product) {
    const cria_tensor *own = cria_graph_tensor(r->graph, product->input[1]);
    int64_t count = 0;
    for (int i = 0; i < cria_graph_ops(r->graph); i++) {
        const cria_op *op = cria_graph_op(r->graph, i);
        if (op->kind != product->kind || op->pass != product->pass || op->input[0] != product->input[0]) continue;
        if (op->input[1] < 0) continue;
        const cria_tensor *other = cria_graph_tensor(r->graph, op->input[1]);
        bool alike = other->kind == own->kind && other->dims == own->dims;
        for (int d = 0; alike && d < own->dims; d++) alike = other->dim[d].extent == own->dim[d].extent;
        count += alike;
    }
    return count;
}

/* The first product that reads a tensor as its second operand; NULL: none. */
static const cria_op *product_of(const rule *r, int t) {
    for (int i = 0; i < cria_graph_ops(r->graph); i++) {
        const cria_op *op = cria_graph_op(r->graph, i);
        if (op->input[1] == t && cria_op_multiplies(r->graph, op)) return op;
    }
    return NULL;
}

/* The dim by which a tensor is cut. Dims of a matrix that are summed away together are one, and so are those that come
 * out together: heads and what is inside them; of such dims the outermost is cut. Of equal ones, the dim that goes in.
 */
static int largest_dim(const rule *r, int t) {
    const cria_tensor *tensor = cria_graph_tensor(r->graph, t);
    const cria_op *op = tensor->kind == CRIA_TENSOR_PARAM ? product_of(r, t) : NULL;
    int64_t size[CRIA_MAX_DIMS];
    bool in[CRIA_MAX_DIMS] = {false};
    for (int d = 0; d < tensor->dims; d++) size[d] = tensor->dim[d].extent;
    if (op) {
        cria_op_index index[CRIA_MAX_INDICES];
        int count = cria_op_indices(r->graph, op, index);
        int64_t joined[2] = {1, fused_with(r, op)};
        for (int pass = 0; pass < 2; pass++)
            for (int i = 0; i < count; i++) {
                int d = index[i].input[1];
                /* Neither is a dim of both operands and the result, such as experts, nor what only the parameter has.
                 */
                bool of_input = index[i].input[0] >= 0, of_output = index[i].output >= 0;
                if (d < 0 || of_input == of_output) continue;
                in[d] = of_input;
                if (pass == 0) joined[of_output] *= size[d];
                if (pass == 1) size[d] = joined[of_output];
            }
    }
    int best = 0;
    for (int d = 1; d < tensor->dims; d++) {
        bool goes_in = size[d] == size[best] && in[d] && !in[best];
        if (size[d] > size[best] || goes_in) best = d;
    }
    return best;
}

/* Everything that comes from outside along its largest dim, if that divides, by both axes or one; what an optimizer
 * keeps as the parameter that it belongs to. */
static void lay_largest(rule *r) {
    for (int t = 0; t < cria_graph_tensors(r->graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(r->graph, t);
        if (tensor->kind == CRIA_TENSOR_VALUE || !tensor->dims) continue;
        int best = largest_dim(r, t);
        cria_op_index index = {.split = CRIA_SPLIT_FREE, .dim = tensor->dim[best]};
        cut(r, &index, best, 3, r->held[t].dim);
    }
    for (int i = 0; i < cria_graph_ops(r->graph); i++) {
        const cria_op *adam = cria_graph_op(r->graph, i);
        for (int m = 0; m < i && adam->kind == CRIA_OP_ADAM; m++) {
            const cria_op *moment = cria_graph_op(r->graph, m);
            bool its = moment->kind == CRIA_OP_MOMENT &&
                       (moment->output == adam->input[1] || moment->output == adam->input[2]);
            if (its) r->held[moment->input[0]] = r->held[adam->input[0]];
        }
    }
}

/* The index of an operator that an axis must cut to take an input as it lies; -1: none, or it may not be cut. */
static int index_taken(const rule *r, const cria_op_index *index, int count, int input, int tensor, int axis) {
    int dim = r->held[tensor].dim[axis];
    for (int i = 0; dim >= 0 && i < count; i++)
        if (index[i].input[input] == dim && index[i].split != CRIA_SPLIT_NEVER) return i;
    return -1;
}

/* Elements of an input, with those of the matrix that it is a part of. */
static double elements_of(const rule *r, const cria_op *op, int input) {
    const cria_tensor *tensor = cria_graph_tensor(r->graph, op->input[input]);
    double n = input == 1 && tensor->kind == CRIA_TENSOR_PARAM ? (double)fused_with(r, op) : 1;
    for (int d = 0; d < tensor->dims; d++)
        n *= (double)(tensor->dim[d].extent == CRIA_SYMBOLIC ? r->options->strategies.symbolic : tensor->dim[d].extent);
    return n;
}

/* As sharding propagation does it (Xu et al. 2021): an axis cuts what the largest operand is cut along, if the output
 * has it; else what a smaller one is cut along; else what is summed away. */
static void follow_inputs(const rule *r, const cria_op *op, const cria_op_index *index, int count, cria_strategy *out) {
    int order[CRIA_MAX_INPUTS], inputs = 0;
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
        if (op->input[k] < 0) continue;
        int at = inputs++;
        for (; at > 0 && elements_of(r, op, order[at - 1]) < elements_of(r, op, k); at--) order[at] = order[at - 1];
        order[at] = k;
    }
    int8_t choice[CRIA_MESH_AXES] = {CRIA_IDLE, CRIA_IDLE};
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (r->mesh->size[axis] < 2) continue;
        for (int pass = 0; pass < 2 && choice[axis] < 0; pass++)
            for (int i = 0; i < inputs && choice[axis] < 0; i++) {
                int which = index_taken(r, index, count, order[i], op->input[order[i]], axis);
                if (which < 0 || (pass == 0) != (index[which].output >= 0)) continue;
                choice[axis] = (int8_t)which;
                const bool by[CRIA_MESH_AXES] = {choice[0] == which, choice[1] == which};
                if (!may_cut(r, &index[which], by)) choice[axis] = CRIA_IDLE;
            }
    }
    add_partial_sums(r, op, choice);
    cria_strategy_derive(r->graph, op, r->mesh, choice, out);
    r->held[op->output] = out->raw;
}

static void data_parallel(const rule *r, const cria_op_index *index, int count, int8_t choice[CRIA_MESH_AXES]) {
    int batch = find_batch(r, index, count);
    if (batch >= 0) cut(r, &index[batch], batch, 3, choice);
}

static void choose(rule *r, cria_hand hand, const cria_op *op, cria_strategy *out) {
    static const cria_sharding open = {{CRIA_ANY, CRIA_ANY}}, whole = {{CRIA_REPLICATED, CRIA_REPLICATED}};
    cria_op_index index[CRIA_MAX_INDICES];
    int count = cria_op_indices(r->graph, op, index);
    int8_t choice[CRIA_MESH_AXES] = {CRIA_IDLE, CRIA_IDLE};
    bool update = cria_op_alias(op) >= 0, zero = hand == CRIA_HAND_ZERO2 || hand == CRIA_HAND_ZERO3;
    if (hand == CRIA_HAND_DATA_PARALLEL || (zero && !update)) data_parallel(r, index, count, choice);
    if (hand == CRIA_HAND_MEGATRON) megatron(r, index, count, choice);
    if (hand == CRIA_HAND_MEGATRON) add_partial_sums(r, op, choice);
    int largest = zero && update ? find_largest(index, count) : -1;
    if (largest >= 0) cut(r, &index[largest], largest, 3, choice);
    cria_strategy_derive(r->graph, op, r->mesh, choice, out);
    if (hand == CRIA_HAND_MEGATRON) r->held[op->output] = out->raw;
    if (hand == CRIA_HAND_LARGEST_DIM) follow_inputs(r, op, index, count, out);
    bool parameter = update && cria_graph_tensor(r->graph, op->input[0])->kind == CRIA_TENSOR_PARAM;
    out->output = open;
    if (zero && parameter) out->output = hand == CRIA_HAND_ZERO2 ? whole : out->raw;
}

cria_status cria_handmade(cria_hand hand, const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                          const cria_intra_options *options, cria_strategy *strategies, cria_error *err) {
    rule r = {.graph = graph, .mesh = mesh, .options = options};
    r.held = calloc((size_t)cria_graph_tensors(graph) + 1, sizeof *r.held);
    r.inner = calloc((size_t)cria_graph_dim_names(graph) + 1, sizeof *r.inner);
    cria_status status = r.held && r.inner ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for a plan by hand");
    for (int t = 0; status == CRIA_OK && t < cria_graph_tensors(graph); t++)
        r.held[t] = (cria_sharding){{CRIA_REPLICATED, CRIA_REPLICATED}};
    if (status == CRIA_OK && hand == CRIA_HAND_MEGATRON) find_inner(&r);
    if (status == CRIA_OK && hand == CRIA_HAND_LARGEST_DIM) lay_largest(&r);
    for (int i = first_op; i < end_op && status == CRIA_OK; i++)
        choose(&r, hand, cria_graph_op(graph, i), &strategies[i - first_op]);
    free(r.held);
    free(r.inner);
    return status;
}
