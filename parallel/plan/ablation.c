/* The settings of the ablation, and every way to cut them priced under our model. */
#include "parallel/plan/ablation.h"

#include "parallel/nets/network.h"
#include "parallel/plan/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GPT(hidden, heads) "gpt:layers=8,hidden=" #hidden ",heads=" #heads ",vocab=25600,batch=8,tied=1"
#define MOE(hidden, heads, experts)                                                                                    \
    "moe:layers=8,hidden=" #hidden ",heads=" #heads ",experts=" #experts ",vocab=51200,batch=8,group=1024,tied=1"
#define WIDE_RESNET(channels) "wide-resnet:layers=50,channels=" #channels ",width=2,batch=32"

const cria_ablation_setting *cria_ablation_setting_of(int index) {
    static const cria_ablation_setting settings[CRIA_ABLATION_SETTINGS] = {
        {"GPT", GPT(2048, 16), 1, true, {0.454, 0.456, 0.454, 0.454, 0.455, -1}},
        {"GPT", GPT(3072, 24), 2, true, {0.537, 0.641, 0.537, 0.636, 0, -1}},
        {"GPT", GPT(4096, 32), 4, true, {0.433, 0.462, 0.433, 0.498, 0, -1}},
        {"GPT", GPT(5760, 40), 8, true, {0.454, 0.451, 0, 0.522, 0, -1}},
        {"MoE", MOE(1024, 32, 8), 1, true, {0.498, 0.511, 0.499, 0.499, 0.498, -1}},
        {"MoE", MOE(1280, 40, 16), 2, true, {0.426, 0.515, 0.668, 0.795, 0, -1}},
        {"MoE", MOE(1536, 24, 16), 4, true, {0.267, 0.324, 0.430, 0.513, 0, -1}},
        {"MoE", MOE(1536, 24, 32), 8, true, {0.162, 0.363, 0, 0.550, 0, -1}},
        {"Wide-ResNet", WIDE_RESNET(160), 1, false, {0.928, 0.928, 0.928, 0.929, 0.927, -1}},
        {"Wide-ResNet", WIDE_RESNET(224), 2, false, {0.951, 1.529, 0.991, 1.020, 1.156, -1}},
        {"Wide-ResNet", WIDE_RESNET(320), 4, false, {0.972, 1.522, 1.101, 1.084, 0, -1}},
        {"Wide-ResNet", WIDE_RESNET(448), 8, false, {0.937, 2.236, 0, 1.255, 0, -1}},
    };
    return &settings[index];
}

const char *cria_ablation_name(cria_ablation_way way) {
    static const char *const names[CRIA_ABLATION_WAYS] = {"ILP",    "heuristic",     "ZeRO-2",
                                                          "ZeRO-3", "data parallel", "Megatron"};
    return names[way];
}

typedef struct {
    const cria_cluster *cluster;
    const int *type; /* of each device of the mesh */
    cria_step_shape phase;
    cria_element element;
} context;

static double compute(void *data, const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                      const cria_strategy *strategy) {
    const context *c = data;
    return cria_cost_operator(c->cluster, c->type, graph, op, mesh, &c->phase, &c->element, strategy);
}

static cria_status by_rule(const cria_graph *graph, const cria_mesh *mesh, const cria_intra_options *o, cria_hand hand,
                           cria_intra_result *out, cria_error *err) {
    int ops = cria_graph_ops(graph);
    cria_strategy *strategy = calloc((size_t)ops + 1, sizeof *strategy);
    cria_status status = strategy ? cria_handmade(hand, graph, 0, ops, mesh, o, strategy, err)
                                  : cria_fail(err, CRIA_ERR_MEMORY, "no memory for a plan by hand");
    if (status == CRIA_OK) status = cria_intra_fixed(graph, 0, ops, mesh, o, strategy, out, err);
    free(strategy);
    return status;
}

/* Layers run forward once more. */
static double redone(const cria_graph *graph, const cria_mesh *mesh, const cria_intra_options *o,
                     const cria_intra_result *plan, double *communication) {
    double seconds = 0;
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        if (op->pass != CRIA_PASS_FORWARD || op->layer < 0 || op->layer >= cria_graph_layers(graph)) continue;
        cria_intra_step steps[CRIA_MAX_INTRA_STEPS];
        int count = cria_intra_steps(graph, i, cria_graph_ops(graph), mesh, o, &plan->strategy[i], plan->held, steps);
        for (int s = 0; s < count; s++) {
            seconds += steps[s].cost;
            *communication += steps[s].cost;
        }
        seconds += compute(o->context, graph, op, mesh, &plan->strategy[i]);
    }
    return seconds;
}

/* Bytes per device that need not be kept for the backward pass if every layer of the model computes them again: what it
 * made for itself, but that of one layer, which is at work. */
static double saved_by_recomputing(const cria_graph *graph, const cria_mesh *mesh, const cria_intra_options *o,
                                   const cria_intra_result *plan) {
    int layers = cria_graph_layers(graph);
    double *kept = calloc((size_t)layers + 1, sizeof *kept), sum = 0, most = 0;
    for (int i = 0; kept && i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        if (op->pass != CRIA_PASS_FORWARD || op->layer < 0 || op->layer >= layers) continue;
        bool inside = true, saved = false;
        for (int k = i + 1; k < cria_graph_ops(graph); k++) {
            const cria_op *reader = cria_graph_op(graph, k);
            bool reads = false;
            for (int j = 0; j < CRIA_MAX_INPUTS; j++) reads = reads || reader->input[j] == op->output;
            if (reads && reader->pass != CRIA_PASS_FORWARD) saved = true;
            if (reads && reader->pass == CRIA_PASS_FORWARD && reader->layer != op->layer) inside = false;
        }
        if (!inside || !saved) continue;
        kept[op->layer] += cria_sharding_bytes(graph, cria_graph_tensor(graph, op->output), plan->held[op->output],
                                               mesh, 1, o->strategies.element);
    }
    for (int l = 0; kept && l < layers; l++) {
        sum += kept[l];
        most = fmax(most, kept[l]);
    }
    free(kept);
    return sum - most;
}

static cria_status make_plan(const cria_graph *graph, cria_ablation_way way, const cria_mesh *mesh,
                             const cria_intra_options *o, cria_intra_result *out, cria_error *err) {
    static const cria_hand hands[CRIA_ABLATION_WAYS] = {
        [CRIA_ABLATION_HEURISTIC] = CRIA_HAND_LARGEST_DIM, [CRIA_ABLATION_ZERO2] = CRIA_HAND_ZERO2,
        [CRIA_ABLATION_ZERO3] = CRIA_HAND_ZERO3,           [CRIA_ABLATION_DATA] = CRIA_HAND_DATA_PARALLEL,
        [CRIA_ABLATION_MEGATRON] = CRIA_HAND_MEGATRON,
    };
    return way == CRIA_ABLATION_ILP ? cria_intra_solve(graph, 0, cria_graph_ops(graph), mesh, o, out, err)
                                    : by_rule(graph, mesh, o, hands[way], out, err);
}

/* One logical shape of the devices; keeps the result if it is better. */
static cria_status try_shape(const cria_graph *graph, const cria_ablation_setting *setting, cria_ablation_way way,
                             const cria_mesh *mesh, const cria_intra_options *o, cria_ablation_result *out,
                             cria_error *err) {
    cria_intra_result plan;
    cria_intra_options within = *o;
    double saved = 0;
    within.memory_limit = -1;
    CRIA_TRY(make_plan(graph, way, mesh, &within, &plan, err));
    if (setting->recompute) saved = saved_by_recomputing(graph, mesh, o, &plan);
    if (way == CRIA_ABLATION_ILP && (double)plan.peak_bytes - saved > (double)o->memory_limit) {
        cria_intra_result_deinit(&plan);
        within.memory_limit = o->memory_limit + (int64_t)saved;
        CRIA_TRY(make_plan(graph, way, mesh, &within, &plan, err));
        if (setting->recompute) saved = saved_by_recomputing(graph, mesh, o, &plan);
    }
    cria_ablation_result r = {.seconds = plan.objective,
                              .size = {mesh->size[0], mesh->size[1]},
                              .communication = plan.collectives + plan.resharding,
                              .peak_bytes = plan.peak_bytes - (int64_t)saved,
                              .limit = o->memory_limit};
    r.fits = r.peak_bytes <= r.limit;
    if (setting->recompute) r.seconds += redone(graph, mesh, o, &plan, &r.communication);
    cria_intra_result_deinit(&plan);
    bool better = out->seconds == 0 || (r.fits && !out->fits) || (r.fits == out->fits && r.seconds < out->seconds);
    if (better) *out = r;
    return CRIA_OK;
}

static cria_status try_shapes(const cria_graph *graph, const cria_cluster *cluster,
                              const cria_ablation_setting *setting, cria_ablation_way way, cria_ablation_result *out,
                              cria_error *err) {
    enum { MOST = 64 };
    int device[MOST], type[MOST], n = setting->devices;
    double share[2 * MOST];
    for (int d = 0; d < n; d++) {
        device[d] = d;
        type[d] = cria_cluster_type_of(cluster, d);
    }
    bool half = strcmp(setting->family, "Wide-ResNet") != 0; /* that was trained in f32 */
    context c = {.cluster = cluster, .type = type, .phase = {8192, 8192, 8, 1024}};
    c.element = half ? (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL} : (cria_element){CRIA_RATE_F32, 4, 4, 4, NULL};
    cria_intra_options o;
    cria_intra_defaults(&o);
    o.strategies.element = c.element.activation;
    o.param_element = c.element.weight;
    /* The graph has Adam's two moments: here each is half of what was kept beside a parameter. GPT: two moments and a
     * master copy, all in f32; MoE: a master copy (Adafactor keeps rows and columns only); Wide-ResNet: a momentum. */
    o.state_element = strcmp(setting->family, "GPT") == 0 ? 6 : 2;
    o.gather_parameters = true;
    o.compute = compute;
    o.context = &c;
    o.memory_limit = (int64_t)cria_cluster_type(cluster, type[0])->memory;
    o.seconds = 20;
    bool open = way == CRIA_ABLATION_ILP || way == CRIA_ABLATION_MEGATRON;
    for (int rows = n; rows >= 1; rows--) {
        if (n % rows != 0 || (!open && rows < n)) continue;
        cria_mesh mesh = cria_cost_mesh(cluster, device, rows, n / rows, c.element.rate, false, share);
        cria_status status = try_shape(graph, setting, way, &mesh, &o, out, err);
        if (status != CRIA_OK && status != CRIA_ERR_INFEASIBLE) return status;
    }
    return CRIA_OK;
}

cria_status cria_ablation_predict(const cria_cluster *host, int index, cria_ablation_way way, cria_ablation_result *out,
                                  cria_error *err) {
    const cria_ablation_setting *setting = cria_ablation_setting_of(index);
    *out = (cria_ablation_result){0};
    cria_cluster *cluster;
    cria_graph *graph;
    CRIA_TRY(cria_cluster_resize(host, 1, setting->devices, &cluster, err));
    cria_status status = cria_network_create(setting->net, &graph, err);
    if (status == CRIA_OK) {
        status = try_shapes(graph, cluster, setting, way, out, err);
        cria_graph_destroy(graph);
    }
    cria_cluster_destroy(cluster);
    return status;
}
