/* The book of costs: layers found and put together, meshes with their ways, costs kept once found. */
#include "parallel/plan/stages_book.h"

#include "parallel/plan/intra.h"
#include "parallel/plan/plan_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    enum { UNKNOWN, IMPOSSIBLE, KNOWN } state;
    cria_layer_cost cost;
    cria_strategy *strategy; /* of the layer's operators */
} entry;

struct cria_stage_book {
    cria_book_task task;
    cria_layer_task layer_task;
    int *last_use, *first_use;
    cria_stage_layer *layer;
    int layers, kinds;
    bool experts; /* some layer has them */
    cria_mesh_kind *mesh;
    int meshes, mesh_capacity;
    entry **table; /* [mesh]: [kinds][CRIA_MAX_WAYS] */
};

static int *find_last_uses(const cria_graph *graph) {
    int *last = malloc(((size_t)cria_graph_tensors(graph) + 1) * sizeof *last);
    for (int t = 0; last && t < cria_graph_tensors(graph); t++) last[t] = -1;
    for (int i = 0; last && i < cria_graph_ops(graph); i++)
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (cria_graph_op(graph, i)->input[k] >= 0) last[cria_graph_op(graph, i)->input[k]] = i;
    return last;
}

static int *find_first_uses(const cria_graph *graph) {
    int *first = malloc(((size_t)cria_graph_tensors(graph) + 1) * sizeof *first);
    for (int t = 0; first && t < cria_graph_tensors(graph); t++) first[t] = cria_graph_ops(graph);
    for (int i = cria_graph_ops(graph) - 1; first && i >= 0; i--)
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (cria_graph_op(graph, i)->input[k] >= 0) first[cria_graph_op(graph, i)->input[k]] = i;
    return first;
}

/* Bytes of values made before an operator and read from it on. */
static double crossing(const cria_stage_book *book, int op, const cria_step_shape *phase) {
    double bytes = 0;
    for (int i = 0; i < op; i++) {
        int output = cria_graph_op(book->task.graph, i)->output;
        if (book->last_use[output] < op) continue;
        const cria_tensor *tensor = cria_graph_tensor(book->task.graph, output);
        bool rows = tensor->dims > 0 && tensor->dim[0].name == CRIA_DIM_ROW;
        double elements = (double)cria_tensor_extent(tensor, 0);
        if (tensor->dims > 0 && tensor->dim[0].extent == CRIA_SYMBOLIC)
            elements *= (double)(rows ? phase->rows : phase->tokens);
        bytes += elements * book->task.element.activation;
    }
    return bytes;
}

static double flops_of(const cria_stage_book *book, int first, int end) {
    double flops = 0;
    const cria_step_shape *phase = &book->task.phase[0];
    for (int i = first; i < end; i++) {
        const cria_op *op = cria_graph_op(book->task.graph, i);
        flops += cria_op_flops(book->task.graph, op, cria_phase_symbolic(book->task.graph, op, phase),
                               (int64_t)phase->context);
    }
    return flops;
}

/* Puts atoms 0..atoms together to at most `most` groups: the fewest bytes over the cuts while no group has more than
 * (1 + slack) of the mean FLOPs; of equal cuts the most even. group_end[g]: the atom after group g. Dynamic program
 * over groups and atoms (Alpa, OSDI'22, section 5.2). Returns the number of groups; 0: none under this slack. */
static int cluster(const double *flops, const double *bytes, int atoms, int most, double slack, int *group_end) {
    double total = 0;
    for (int i = 0; i < atoms; i++) total += flops[i];
    double limit = (1 + slack) * total / most;
    size_t cells = (size_t)(most + 1) * (size_t)(atoms + 1);
    double *best = malloc(cells * sizeof *best);
    int *from = malloc(cells * sizeof *from), count = 0;
    if (best && from) {
        for (size_t i = 0; i < cells; i++) best[i] = HUGE_VAL;
        best[0] = 0;
        for (int g = 1; g <= most; g++)
            for (int i = g; i <= atoms; i++) {
                double sum = 0;
                for (int j = i - 1; j >= g - 1; j--) {
                    sum += flops[j];
                    if (sum > limit && j < i - 1) break;
                    double cost = best[(g - 1) * (atoms + 1) + j] +
                                  (j ? bytes[j] : 0) * (1 + 1e-3 * (sum / limit) * (sum / limit));
                    if (cost >= best[g * (atoms + 1) + i]) continue;
                    best[g * (atoms + 1) + i] = cost;
                    from[g * (atoms + 1) + i] = j;
                }
            }
        /* Fewer groups cut less; as many as asked for are wanted, for the sake of balance. */
        for (count = most; count > 0 && best[count * (atoms + 1) + atoms] == HUGE_VAL;) count--;
        for (int g = count, i = atoms; g > 0; i = from[g * (atoms + 1) + i], g--) group_end[g - 1] = i;
    }
    free(best);
    free(from);
    return count;
}

/* The runs of operators that are cut off from each other at best: the layers of the model, or single operators where
 * it has none. Returns the number of atoms; start[atoms] is the end. */
static int find_atoms(const cria_stage_book *book, int *start) {
    const cria_graph *graph = book->task.graph;
    int atoms = 0, ops = cria_graph_ops(graph);
    for (int i = 0; i < ops; i++)
        if (i == 0 || cria_graph_layers(graph) < 2 ||
            cria_graph_op(graph, i)->layer != cria_graph_op(graph, i - 1)->layer)
            start[atoms++] = i;
    start[atoms] = ops;
    return atoms;
}

/* Atoms to layers. Operators before the first and after the last layer of the model stay apart where there is room. */
static cria_status find_layers(cria_stage_book *book, cria_error *err) {
    const cria_graph *graph = book->task.graph;
    int ops = cria_graph_ops(graph);
    int *start = malloc(((size_t)ops + 1) * sizeof *start), *end = malloc(((size_t)ops + 1) * sizeof *end);
    double *flops = calloc((size_t)ops + 1, sizeof *flops), *bytes = calloc((size_t)ops + 1, sizeof *bytes);
    if (!start || !end || !flops || !bytes) goto memory;
    int atoms = find_atoms(book, start), groups = atoms;
    for (int i = 0; i < atoms; i++) end[i] = i + 1;
    int lead = atoms > 2 && cria_graph_op(graph, 0)->layer<0, tail = atoms> 2 &&
               cria_graph_op(graph, ops - 1)->layer >= cria_graph_layers(graph) && cria_graph_layers(graph) > 1;
    int inner = atoms - lead - tail, room = book->task.most_layers - lead - tail;
    if (room < 1) room = 1, lead = tail = 0, inner = atoms;
    if (inner > room) {
        for (int i = 0; i < inner; i++) {
            flops[i] = flops_of(book, start[lead + i], start[lead + i + 1]);
            bytes[i] = crossing(book, start[lead + i], &book->task.phase[0]);
        }
        groups = 0;
        for (double slack = 0.1; groups == 0 && slack < 1e6; slack *= 2)
            groups = cluster(flops, bytes, inner, room, slack, end + lead);
        if (groups == 0) goto memory;
        for (int g = 0; g < groups; g++) end[lead + g] += lead;
        if (lead) end[0] = 1;
        if (tail) end[lead + groups] = atoms;
        groups += lead + tail;
    }
    book->layer = calloc((size_t)groups, sizeof *book->layer);
    if (!book->layer) goto memory;
    book->layers = groups;
    for (int g = 0; g < groups; g++) {
        cria_stage_layer *layer = &book->layer[g];
        layer->first_op = start[g ? end[g - 1] : 0];
        layer->end_op = start[end[g]];
        layer->inbound = crossing(book, layer->first_op, &book->task.phase[0]);
        layer->inbound_next = crossing(book, layer->first_op, &book->task.phase[book->task.train ? 0 : 1]);
        layer->last = tail && g == groups - 1;
        layer->edge = (lead && g == 0) || layer->last;
    }
    free(start);
    free(end);
    free(flops);
    free(bytes);
    return CRIA_OK;
memory:
    free(start);
    free(end);
    free(flops);
    free(bytes);
    return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the layers of %d operators", ops);
}

static cria_status find_kinds(cria_stage_book *book, cria_error *err) {
    uint64_t *hash = malloc((size_t)book->layers * sizeof *hash);
    if (!hash) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the layers");
    for (int l = 0; l < book->layers; l++) {
        cria_stage_layer *layer = &book->layer[l];
        hash[l] =
            cria_graph_hash(book->task.graph, layer->first_op, layer->end_op) ^ (uint64_t)(layer->edge + layer->last);
        layer->kind = -1;
        for (int m = 0; m < l && layer->kind < 0; m++)
            if (hash[m] == hash[l]) layer->kind = book->layer[m].kind;
        if (layer->kind < 0) layer->kind = book->kinds++;
    }
    free(hash);
    return CRIA_OK;
}

cria_status cria_stage_book_create(const cria_book_task *task, cria_stage_book **out, cria_error *err) {
    cria_stage_book *book = calloc(1, sizeof *book);
    if (!book) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the planner");
    book->task = *task;
    book->last_use = find_last_uses(task->graph);
    book->first_use = find_first_uses(task->graph);
    cria_status status =
        book->last_use && book->first_use ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the planner");
    book->layer_task = (cria_layer_task){.graph = task->graph,
                                         .cluster = task->cluster,
                                         .last_use = book->last_use,
                                         .first_use = book->first_use,
                                         .train = task->train,
                                         .phase = {task->phase[0], task->phase[1]},
                                         .element = task->element,
                                         .optimizer = task->optimizer};
    if (status == CRIA_OK) status = find_layers(book, err);
    if (status == CRIA_OK) status = find_kinds(book, err);
    if (status == CRIA_OK) book->experts = cria_layer_has_experts(task->graph, 0, cria_graph_ops(task->graph));
    if (status != CRIA_OK) {
        cria_stage_book_destroy(book);
        return status;
    }
    *out = book;
    return CRIA_OK;
}

void cria_stage_book_destroy(cria_stage_book *book) {
    if (!book) return;
    for (int m = 0; m < book->meshes; m++) {
        for (int i = 0; book->table[m] && i < book->kinds * CRIA_MAX_WAYS; i++) free(book->table[m][i].strategy);
        free(book->table[m]);
        free(book->mesh[m].device);
    }
    free(book->table);
    free(book->mesh);
    free(book->layer);
    free(book->last_use);
    free(book->first_use);
    free(book);
}

int cria_stage_book_layers(const cria_stage_book *book) {
    return book->layers;
}
const cria_stage_layer *cria_stage_book_layer(const cria_stage_book *book, int layer) {
    return &book->layer[layer];
}
bool cria_stage_book_experts(const cria_stage_book *book) {
    return book->experts;
}
const cria_layer_task *cria_stage_book_task(const cria_stage_book *book) {
    return &book->layer_task;
}
int cria_stage_book_meshes(const cria_stage_book *book) {
    return book->meshes;
}
const cria_mesh_kind *cria_stage_book_kind(const cria_stage_book *book, int mesh) {
    return &book->mesh[mesh];
}

static bool same_way(const cria_way *a, const cria_way *b) {
    return a->size[0] == b->size[0] && a->size[1] == b->size[1] && a->use[0] == b->use[0] && a->use[1] == b->use[1] &&
           a->searched == b->searched && a->experts == b->experts;
}

int cria_stage_book_way(const cria_stage_book *book, int mesh, const cria_way *way) {
    for (int w = 0; w < book->mesh[mesh].ways; w++)
        if (same_way(&book->mesh[mesh].way[w], way)) return w;
    return -1;
}

static void add_way(const cria_stage_book *book, cria_mesh_kind *kind, int size0, int size1, cria_axis_use use0,
                    cria_axis_use use1) {
    if (size0 < 2) use0 = CRIA_AXIS_IDLE;
    if (size1 < 2) use1 = CRIA_AXIS_IDLE;
    cria_way way = {.size = {size0, size1}, .use = {use0, use1}};
    bool batch = use0 == CRIA_AXIS_BATCH || use1 == CRIA_AXIS_BATCH;
    for (int pass = 0; pass < 3; pass++) {
        way.searched = pass == 1;
        way.experts = pass == 2;
        if (way.searched && (!book->task.search || kind->devices < 2)) continue;
        if (way.experts && (!batch || !book->experts)) continue;
        bool known = false;
        for (int w = 0; w < kind->ways; w++) known = known || same_way(&kind->way[w], &way);
        if (!known && kind->ways < CRIA_MAX_WAYS) kind->way[kind->ways++] = way;
    }
}

/* Every logical shape. Training: batch along the first axis, tensors along the second. Serving: tensors along both, the
 * second inside a host. */
static void find_ways(const cria_stage_book *book, cria_mesh_kind *kind) {
    int n = kind->devices;
    for (int tensor = 1; tensor <= n; tensor++) {
        if (n % tensor != 0) continue;
        int batch = n / tensor;
        if (book->task.train) {
            if (batch <= book->task.sequences) add_way(book, kind, batch, tensor, CRIA_AXIS_BATCH, CRIA_AXIS_TENSOR);
        } else if (tensor == n || (kind->hosts > 1 && batch == kind->hosts)) {
            add_way(book, kind, batch, tensor, CRIA_AXIS_TENSOR, CRIA_AXIS_TENSOR);
        }
    }
}

static bool same_mesh(const cria_stage_book *book, const cria_mesh_kind *kind, const int *device, int devices) {
    const cria_cluster *c = book->task.cluster;
    if (kind->devices != devices) return false;
    for (int i = 0; i < devices; i++) {
        if (cria_cluster_type_of(c, kind->device[i]) != cria_cluster_type_of(c, device[i])) return false;
        bool there = i && cria_cluster_host_of(c, kind->device[i]) != cria_cluster_host_of(c, kind->device[i - 1]);
        bool here = i && cria_cluster_host_of(c, device[i]) != cria_cluster_host_of(c, device[i - 1]);
        if (there != here) return false;
    }
    const cria_link *a = &cria_cluster_host(c, cria_cluster_host_of(c, kind->device[0]))->link,
                    *b = &cria_cluster_host(c, cria_cluster_host_of(c, device[0]))->link;
    return a->latency == b->latency && a->bandwidth == b->bandwidth;
}

int cria_stage_book_mesh(cria_stage_book *book, const int *device, int devices) {
    for (int m = 0; m < book->meshes; m++)
        if (same_mesh(book, &book->mesh[m], device, devices)) return m;
    if (book->meshes == book->mesh_capacity) {
        int capacity = book->mesh_capacity ? 2 * book->mesh_capacity : 16;
        cria_mesh_kind *mesh = realloc(book->mesh, (size_t)capacity * sizeof *mesh);
        if (mesh) book->mesh = mesh;
        entry **table = realloc(book->table, (size_t)capacity * sizeof(*table));
        if (table) book->table = table;
        if (!mesh || !table) return -1;
        book->mesh_capacity = capacity;
    }
    int *copy = malloc((size_t)devices * sizeof *copy);
    entry *table = calloc((size_t)book->kinds * CRIA_MAX_WAYS, sizeof *table);
    if (!copy || !table) {
        free(copy);
        free(table);
        return -1;
    }
    memcpy(copy, device, (size_t)devices * sizeof *copy);
    cria_mesh_kind *kind = &book->mesh[book->meshes];
    *kind = (cria_mesh_kind){.device = copy, .devices = devices, .hosts = 1, .memory = HUGE_VAL};
    for (int i = 0; i < devices; i++) {
        kind->hosts += i && cria_cluster_host_of(book->task.cluster, device[i]) !=
                                cria_cluster_host_of(book->task.cluster, device[i - 1]);
        kind->memory =
            fmin(kind->memory,
                 cria_cluster_type(book->task.cluster, cria_cluster_type_of(book->task.cluster, device[i]))->memory);
    }
    find_ways(book, kind);
    book->table[book->meshes] = table;
    return book->meshes++;
}

cria_mesh cria_stage_book_mesh_of(const cria_stage_book *book, const int *device, const cria_way *way, double *share) {
    return cria_cost_mesh(book->task.cluster, device, way->size[0], way->size[1], book->task.element.rate,
                          !book->task.train, share);
}

/* Tokens of a step come from any sequences and see each other through the KV cache: when serving, no device can do with
 * a part of them (parallel/lower refuses such plans). */
static bool cuts_tokens(const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                        const cria_strategy *strategy) {
    cria_op_index indices[CRIA_MAX_INDICES];
    cria_op_indices(graph, op, indices);
    const cria_tensor *output = cria_graph_tensor(graph, op->output);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (mesh->size[axis] < 2) continue;
        int cut = strategy->index[axis], left = strategy->output.dim[axis];
        if (cut >= 0 && indices[cut].dim.extent == CRIA_SYMBOLIC) return true;
        if (left >= 0 && output->dim[left].extent == CRIA_SYMBOLIC) return true;
    }
    return false;
}

/* What the intra-operator pass minimises: compute of both phases, or forward and backward. */
typedef struct {
    const cria_stage_book *book;
    const int *type;
    const cria_step_shape *phase;
} compute_context;

static double intra_compute(void *context, const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                            const cria_strategy *strategy) {
    const compute_context *c = context;
    const cria_layer_task *task = &c->book->layer_task;
    static const double never = 1e3;
    if (!task->train && cuts_tokens(graph, op, mesh, strategy)) return never;
    return cria_cost_operator(task->cluster, c->type, graph, op, mesh, c->phase, &task->element, strategy);
}

static bool search_phase(cria_stage_book *book, const cria_stage_layer *layer, const cria_mesh *mesh, const int *type,
                         unsigned batch_axes, int phase, cria_strategy *strategy) {
    const cria_graph *graph = book->task.graph;
    cria_sharding *boundary = malloc((size_t)cria_graph_tensors(graph) * sizeof *boundary);
    if (!boundary) return false;
    for (int t = 0; t < cria_graph_tensors(graph); t++)
        boundary[t] = cria_layer_boundary(cria_graph_tensor(graph, t), batch_axes);
    compute_context context = {.book = book, .type = type, .phase = &book->task.phase[phase]};
    cria_intra_options options;
    cria_intra_defaults(&options);
    options.strategies.symbolic = book->task.phase[phase].tokens;
    options.strategies.element = book->task.element.activation;
    options.param_element = book->task.element.weight;
    options.compute = intra_compute;
    options.context = &context;
    options.boundary = boundary;
    options.seconds = 0.5;
    cria_intra_result result;
    cria_status status = cria_intra_solve(graph, layer->first_op, layer->end_op, mesh, &options, &result, NULL);
    if (status == CRIA_OK) {
        memcpy(strategy, result.strategy, (size_t)(layer->end_op - layer->first_op) * sizeof *strategy);
        cria_intra_result_deinit(&result);
    }
    free(boundary);
    bool good = status == CRIA_OK;
    for (int i = layer->first_op; good && !book->task.train && i < layer->end_op; i++)
        good = !cuts_tokens(graph, cria_graph_op(graph, i), mesh, &strategy[i - layer->first_op]);
    return good;
}

static double total(const cria_stage_book *book, const cria_layer_cost *cost) {
    double seconds = 0;
    for (int p = 0; p < CRIA_PHASES; p++) {
        const cria_seconds *s = &cost->phase[p];
        seconds += (book->task.train ? 1 : book->task.repeat[p]) * (s->compute + s->collectives + s->resharding);
    }
    return seconds;
}

/* Serving: the better of what suits either phase. */
static bool find_strategies(cria_stage_book *book, const cria_stage_layer *layer, const cria_mesh *mesh,
                            const int *type, const cria_way *way, entry *e) {
    size_t ops = (size_t)(layer->end_op - layer->first_op);
    unsigned batch_axes = (way->use[0] == CRIA_AXIS_BATCH) | (way->use[1] == CRIA_AXIS_BATCH) << 1;
    cria_layer_usual_way(&book->layer_task, layer->first_op, layer->end_op, mesh, way->use, way->experts, e->strategy);
    bool good = cria_layer_evaluate(&book->layer_task, layer->first_op, layer->end_op, mesh, type, batch_axes,
                                    e->strategy, &e->cost);
    if (!way->searched) return good;
    cria_strategy *other = malloc(ops * sizeof *other);
    for (int phase = 0; other && phase < (book->task.train ? 1 : CRIA_PHASES); phase++) {
        cria_layer_cost cost;
        if (!search_phase(book, layer, mesh, type, batch_axes, phase, other)) continue;
        if (!cria_layer_evaluate(&book->layer_task, layer->first_op, layer->end_op, mesh, type, batch_axes, other,
                                 &cost))
            continue;
        if (good && total(book, &cost) >= total(book, &e->cost)) continue;
        good = true;
        e->cost = cost;
        memcpy(e->strategy, other, ops * sizeof *other);
    }
    free(other);
    return good;
}

static entry *look_up(cria_stage_book *book, int layer_index, int mesh_index, int way_index) {
    const cria_stage_layer *layer = &book->layer[layer_index];
    entry *e = &book->table[mesh_index][layer->kind * CRIA_MAX_WAYS + way_index];
    if (e->state != UNKNOWN) return e;
    e->state = IMPOSSIBLE;
    const cria_mesh_kind *kind = &book->mesh[mesh_index];
    const cria_way *way = &kind->way[way_index];
    double *share = malloc(((size_t)(way->size[0] + way->size[1])) * sizeof *share);
    int *type = malloc((size_t)kind->devices * sizeof *type);
    e->strategy = malloc((size_t)(layer->end_op - layer->first_op) * sizeof *e->strategy);
    if (share && type && e->strategy) {
        for (int i = 0; i < kind->devices; i++) type[i] = cria_cluster_type_of(book->task.cluster, kind->device[i]);
        cria_mesh mesh = cria_stage_book_mesh_of(book, kind->device, way, share);
        if (find_strategies(book, layer, &mesh, type, way, e)) e->state = KNOWN;
    }
    free(share);
    free(type);
    return e;
}

const cria_layer_cost *cria_stage_book_cost(cria_stage_book *book, int layer, int mesh, int way) {
    const entry *e = look_up(book, layer, mesh, way);
    return e->state == KNOWN ? &e->cost : NULL;
}

bool cria_stage_book_strategies(cria_stage_book *book, int layer, int mesh, int way, cria_strategy *out) {
    const entry *e = look_up(book, layer, mesh, way);
    if (e->state != KNOWN) return false;
    const cria_stage_layer *l = &book->layer[layer];
    memcpy(out, e->strategy, (size_t)(l->end_op - l->first_op) * sizeof *out);
    return true;
}
