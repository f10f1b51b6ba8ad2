/* The cost model: work of an operator's part, a roofline with efficiencies, meshes and transfers from links. */
#include "parallel/plan/cost.h"

#include <math.h>

int64_t cria_phase_symbolic(const cria_graph *graph, const cria_op *op, const cria_step_shape *phase) {
    const cria_tensor *out = cria_graph_tensor(graph, op->output);
    bool rows = op->kind != CRIA_OP_GATHER && out->dims > 0 && out->dim[0].name == CRIA_DIM_ROW;
    return rows ? phase->rows : phase->tokens;
}

cria_rate cria_element_rate(const cria_element *element, int tensor) {
    return element->rate_of ? element->rate_of[tensor] : element->rate;
}

double cria_element_bytes(const cria_element *element, int tensor) {
    cria_rate rate = cria_element_rate(element, tensor);
    return rate == element->rate ? element->weight : cria_rate_bytes(rate);
}

bool cria_dim_is_batch(cria_dim_name name) {
    return name == CRIA_DIM_TOKEN || name == CRIA_DIM_ROW || name == CRIA_DIM_BATCH;
}

static bool is_batch(const cria_op_index *index) {
    return cria_dim_is_batch(index->dim.name);
}

static double extent_of(const cria_op_index *index, int64_t symbolic) {
    return (double)(index->dim.extent == CRIA_SYMBOLIC ? symbolic : index->dim.extent);
}

/* Elements of an operand's part: the product of the lengths of the indices that it has. */
static double elements(const cria_op_index *indices, int count, int input, const double *length) {
    double n = 1;
    for (int i = 0; i < count; i++)
        if (input < 0 ? indices[i].output >= 0 : indices[i].input[input] >= 0) n *= length[i];
    return n;
}

/* What lies in the KV cache, and what of the scores has to be made. */
static void add_attention(const cria_graph *graph, const cria_op *op, const cria_step_shape *phase,
                          const cria_element *element, const double *part, double share, cria_work *work) {
    const cria_tensor *q = cria_graph_tensor(graph, op->input[0]);
    int head = q->dims - 2;
    double heads = (double)q->dim[head].extent, head_dim = (double)q->dim[head + 1].extent;
    work->scores = share * heads * (double)phase->tokens * phase->context;
    work->bytes += 2 * (double)op->kv_heads * part[head] * head_dim * element->kv * phase->context *
                   (double)phase->sequences * part[0];
    work->columns = heads * part[head] * head_dim;
    work->kv_columns = (double)op->kv_heads * part[head] * head_dim;
    work->sequences = (double)phase->sequences * part[0];
    work->depth = phase->context;
}

cria_work cria_work_of(const cria_graph *graph, const cria_op *op, const cria_step_shape *phase,
                       const cria_element *element, const double *length) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, indices);
    int64_t symbolic = cria_phase_symbolic(graph, op, phase);
    double whole[CRIA_MAX_INDICES], part[CRIA_MAX_INDICES], share = 1;
    for (int i = 0; i < count; i++) whole[i] = extent_of(&indices[i], symbolic);
    if (!length) length = whole;
    cria_work work = {.kind = op->kind, .rate = element->rate, .rows = 1, .columns = 1, .depth = 1};
    for (int i = 0; i < count; i++) {
        part[i] = whole[i] > 0 ? length[i] / whole[i] : 1;
        share *= part[i];
        /* Gradients of weights sum over the batch, those of convolutions over places too. */
        if (indices[i].split == CRIA_SPLIT_SUM || indices[i].output < 0)
            work.depth *= length[i];
        else if (is_batch(&indices[i]))
            work.rows *= length[i];
        else
            work.columns *= length[i];
    }
    work.flops = share * cria_op_flops(graph, op, symbolic, (int64_t)phase->context);
    work.multiplies = cria_op_multiplies(graph, op);
    work.bytes = elements(indices, count, -1, length) * element->activation;
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
        if (op->input[k] < 0) continue;
        bool param = cria_graph_tensor(graph, op->input[k])->kind == CRIA_TENSOR_PARAM;
        double n = elements(indices, count, k, length);
        /* Of a table only the rows are read that the tokens ask for. */
        if (param && (op->kind == CRIA_OP_EMBED || op->kind == CRIA_OP_ROPE))
            n = fmin(n, elements(indices, count, -1, length));
        work.bytes += n * (param ? cria_element_bytes(element, op->input[k]) : element->activation);
        if (param && op->kind == CRIA_OP_LINEAR && k == 1) work.rate = cria_element_rate(element, op->input[k]);
    }
    if (op->kind == CRIA_OP_ATTENTION) add_attention(graph, op, phase, element, part, share, &work);
    if (op->kind == CRIA_OP_ATTENTION_GRADIENT) {
        const cria_tensor *q = cria_graph_tensor(graph, op->input[0]);
        /* As many passes over the scores as it has of the four operations that the forward pass has for each. */
        work.scores = work.flops / (4 * (double)q->dim[q->dims - 1].extent);
    }
    if (op->kind == CRIA_OP_EMBED || op->kind == CRIA_OP_ROPE) work.depth = 1;
    /* Narrow weights do not make attention's products narrow. */
    if (op->kind == CRIA_OP_ATTENTION && work.rate >= CRIA_RATE_INT8)
        work.rate = element->kv > 2 ? CRIA_RATE_F32 : CRIA_RATE_BF16;
    return work;
}

/* Groups are multiplied as int8; a type that a device has no instructions for is computed in f32. */
static double peak(const cria_device_type *device, cria_rate rate) {
    double flops = device->flops[rate];
    if (flops <= 0 && rate >= CRIA_RATE_Q8) flops = device->flops[CRIA_RATE_INT8];
    if (flops <= 0) flops = device->flops[CRIA_RATE_F32];
    for (int r = 0; flops <= 0 && r < CRIA_RATE_COUNT; r++) flops = device->flops[r];
    return flops;
}

double cria_device_speed(const cria_device_type *device, cria_rate rate, bool streaming) {
    return streaming ? device->bandwidth * device->streaming : peak(device, rate) * device->matmul;
}

static double analytic(const cria_device_type *d, const cria_element *element, const cria_work *w) {
    double stream = w->bytes / (d->bandwidth * d->streaming), compute;
    if (w->kind == CRIA_OP_ATTENTION || w->kind == CRIA_OP_ATTENTION_GRADIENT) {
        stream += w->scores * d->score_passes * element->activation / (d->bandwidth * d->streaming);
        /* Scores that lie in memory are made by two products with a pass over memory between: they add up. */
        compute = w->flops / (peak(d, w->rate) * d->attention);
        return d->launch + (d->score_passes > 0 ? compute + stream : fmax(compute, stream));
    }
    if (w->multiplies) {
        double reached = d->matmul / ((1 + d->half / w->columns) * (1 + d->half / w->depth));
        compute = w->flops / (peak(d, w->rate) * reached);
    } else {
        compute = w->flops / (peak(d, CRIA_RATE_F32) * d->matmul);
    }
    return d->launch + fmax(compute, stream);
}

/* What was measured, as the model sees it. */
static cria_work work_of_sample(const cria_sample *s, const cria_element *element) {
    cria_work w = {.kind = (cria_op_kind)s->operator_kind,
                   .rate = s->rate,
                   .rows = s->rows,
                   .columns = s->columns,
                   .depth = s->depth,
                   .sequences = s->sequences,
                   .kv_columns = s->kv_columns};
    if (w.kind == CRIA_OP_ATTENTION) {
        w.multiplies = true;
        w.flops = 4 * s->rows * s->columns * s->depth;
        w.bytes =
            element->kv * 2 * s->sequences * s->kv_columns * s->depth + 2 * element->activation * s->rows * s->columns;
    } else if (s->depth > 1) {
        w.multiplies = true;
        w.flops = 2 * s->rows * s->columns * s->depth;
        w.bytes = element->weight * s->columns * s->depth + element->activation * s->rows * (s->columns + s->depth);
    } else {
        w.flops = 5 * s->rows * s->columns;
        w.bytes = element->activation * 2 * s->rows * s->columns;
    }
    return w;
}

enum { PLACE = 5 };

static void find_place(const cria_work *w, double at[PLACE]) {
    bool attention = w->kind == CRIA_OP_ATTENTION;
    const double shape[PLACE] = {w->rows, w->columns, w->depth, attention ? w->rows / fmax(w->sequences, 1) : 1,
                                 attention ? w->kv_columns : 1};
    for (int i = 0; i < PLACE; i++) at[i] = log(fmax(shape[i], 1));
}

void cria_cost_place_sample(const cria_device_type *device, cria_sample *s) {
    cria_element element = {s->rate, cria_rate_bytes(s->rate), 4, s->rate == CRIA_RATE_F32 ? 4 : 2, NULL};
    cria_work w = work_of_sample(s, &element);
    find_place(&w, s->at);
    s->ratio = log(s->seconds / analytic(device, &element, &w));
}

/* Attention is measured by the type of its cache; what has no weights by none. */
static bool is_alike(const cria_sample *s, const cria_element *element, const cria_work *w) {
    if (s->operator_kind != (int)w->kind) return false;
    if (w->kind == CRIA_OP_ATTENTION) return (s->rate == CRIA_RATE_F32) == (element->kv > 2);
    return !w->multiplies || s->rate == w->rate;
}

static double correction(const cria_device_type *d, const cria_element *element, const cria_work *w) {
    double sum = 0, weights = 0, at[PLACE];
    if (d->samples) find_place(w, at);
    for (int i = 0; i < d->samples; i++) {
        const cria_sample *s = &d->sample[i];
        if (!is_alike(s, element, w)) continue;
        double near = 1e-6;
        for (int k = 0; k < PLACE; k++) near += (at[k] - s->at[k]) * (at[k] - s->at[k]);
        double weight = 1 / (near * near);
        /* What is only read and written is much the same for all types. */
        if (s->rate != w->rate) weight *= 1e-3;
        sum += weight * s->ratio;
        weights += weight;
    }
    return weights > 0 ? exp(sum / weights) : 1;
}

/* What the lowering lets ride in the epilogue of the product before it. */
static bool rides(cria_op_kind kind) {
    return kind == CRIA_OP_ADD || kind == CRIA_OP_ACTIVATION;
}

double cria_cost_work(const cria_device_type *device, const cria_element *element, const cria_work *work) {
    double seconds = analytic(device, element, work) * correction(device, element, work);
    return rides(work->kind) ? seconds * (1 - device->fused) : seconds;
}

/* What the device at a position has of every index; position NULL: the longest part of each. */
static void lengths(const cria_op_index *indices, int count, const cria_mesh *mesh, const cria_strategy *strategy,
                    int64_t symbolic, const int *position, double *out) {
    for (int i = 0; i < count; i++) {
        cria_sharding cut = {
            {strategy->index[0] == i ? 0 : CRIA_REPLICATED, strategy->index[1] == i ? 0 : CRIA_REPLICATED}};
        int64_t length = (int64_t)extent_of(&indices[i], symbolic), begin = 0, end = length;
        if (position) {
            cria_sharding_part(cut, 0, length, indices[i].unit, mesh, position, &begin, &end);
            length = end - begin;
        } else {
            for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
                if (cut.dim[axis] == 0 && mesh->size[axis] > 1)
                    length = cria_cut_longest(length, indices[i].unit, mesh->size[axis], mesh->share[axis]);
        }
        out[i] = (double)length;
    }
}

double cria_cost_operator(const cria_cluster *cluster, const int *type, const cria_graph *graph, const cria_op *op,
                          const cria_mesh *mesh, const cria_step_shape *phase, const cria_element *element,
                          const cria_strategy *strategy) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, indices), devices = mesh->size[0] * mesh->size[1];
    int64_t symbolic = cria_phase_symbolic(graph, op, phase);
    double length[CRIA_MAX_INDICES], slowest = 0;
    bool alike = true;
    for (int i = 1; i < devices; i++) alike = alike && type[i] == type[0];
    for (int i = 0; i < (alike ? 1 : devices); i++) {
        const int position[CRIA_MESH_AXES] = {i / mesh->size[1], i % mesh->size[1]};
        lengths(indices, count, mesh, strategy, symbolic, alike ? NULL : position, length);
        cria_work work = cria_work_of(graph, op, phase, element, length);
        slowest = fmax(slowest, cria_cost_work(cria_cluster_type(cluster, type[i]), element, &work));
    }
    return slowest;
}

/* How many groups along the axis have a member on the host and one elsewhere. */
static int rings_leaving(const cria_cluster *cluster, const int *device, const int size[CRIA_MESH_AXES], int axis,
                         int host) {
    int rings = 0, across = 1 - axis;
    for (int g = 0; g < size[across]; g++) {
        bool here = false, away = false;
        for (int i = 0; i < size[axis]; i++) {
            int at = axis == 0 ? i * size[1] + g : g * size[1] + i;
            bool same = cria_cluster_host_of(cluster, device[at]) == host;
            here = here || same;
            away = away || !same;
        }
        rings += here && away;
    }
    return rings;
}

/* Where devices differ along an axis, the slowest of each position says what it gets. */
static const double *find_share(const cria_cluster *cluster, const int *device, const int size[CRIA_MESH_AXES],
                                int axis, cria_rate rate, bool streaming, double *share) {
    bool equal = true;
    for (int i = 0; i < size[axis]; i++) {
        share[i] = HUGE_VAL;
        for (int g = 0; g < size[1 - axis]; g++) {
            int at = axis == 0 ? i * size[1] + g : g * size[1] + i;
            const cria_device_type *type = cria_cluster_type(cluster, cria_cluster_type_of(cluster, device[at]));
            share[i] = fmin(share[i], cria_device_speed(type, rate, streaming));
        }
        equal = equal && share[i] == share[0];
    }
    double first = share[0];
    for (int i = 0; i < size[axis]; i++) share[i] /= first;
    return equal ? NULL : share;
}

cria_mesh cria_cost_mesh(const cria_cluster *cluster, const int *device, int size0, int size1, cria_rate rate,
                         bool streaming, double *share) {
    cria_mesh mesh = {.size = {size0, size1}};
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (mesh.size[axis] > 1)
            mesh.share[axis] =
                find_share(cluster, device, mesh.size, axis, rate, streaming, share + (axis ? size0 : 0));
        const cria_link *network = cria_cluster_network(cluster);
        double latency = 0, slowest = 0;
        int last = -1;
        for (int i = 0; i < size0 * size1; i++) {
            int host = cria_cluster_host_of(cluster, device[i]);
            if (host == last) continue;
            last = host;
            const cria_link *inside = &cria_cluster_host(cluster, host)->link;
            int rings = rings_leaving(cluster, device, mesh.size, axis, host);
            slowest = fmax(slowest, rings ? rings / network->bandwidth : 1 / inside->bandwidth);
            latency = fmax(latency, rings ? network->latency : inside->latency);
        }
        if (mesh.size[axis] < 2) continue;
        mesh.alpha[axis] = latency * ceil(log2(mesh.size[axis]));
        mesh.beta[axis] = slowest;
    }
    return mesh;
}

/* How many different hosts a list of devices, ordered by host, lies on. */
static int hosts_of(const cria_cluster *cluster, const int *device, int count) {
    int hosts = count > 0;
    for (int i = 1; i < count; i++)
        hosts += cria_cluster_host_of(cluster, device[i]) != cria_cluster_host_of(cluster, device[i - 1]);
    return hosts;
}

double cria_cost_transfer(const cria_cluster *cluster, const int *from, int from_count, const int *to, int to_count,
                          double bytes, int copies) {
    int from_hosts = hosts_of(cluster, from, from_count), to_hosts = hosts_of(cluster, to, to_count);
    int host = cria_cluster_host_of(cluster, to[0]);
    bool inside = from_hosts == 1 && to_hosts == 1 && cria_cluster_host_of(cluster, from[0]) == host;
    const cria_link *local = &cria_cluster_host(cluster, host)->link, *network = cria_cluster_network(cluster);
    const cria_link *slow = inside ? local : network;
    int lanes =
        inside ? (from_count < to_count ? from_count : to_count) : (from_hosts < to_hosts ? from_hosts : to_hosts);
    double seconds = slow->latency + bytes / (slow->bandwidth * lanes);
    if (copies < 2) return seconds;
    /* Every device of a group of `copies` fetches its part, then they gather. */
    double whole = bytes * copies / to_count;
    return seconds + local->latency * ceil(log2(copies)) + whole * (copies - 1) / copies / local->bandwidth;
}
