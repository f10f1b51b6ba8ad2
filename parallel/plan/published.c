/* The published points, and their plans priced under our model. */
#include "parallel/plan/published.h"

#include "parallel/nets/network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STAGES = 64, SIZES = 7 };

const cria_published_point *cria_published_point_of(int index) {
    static const cria_published_point points[CRIA_PUBLISHED_POINTS] = {
        {.size = "350m", .hosts = 1, .devices = 1, .alpa = 45.07, .megatron = 47.53},
        {.size = "760m", .hosts = 1, .devices = 2, .alpa = 57.92, .megatron = 55.53},
        {.size = "1.3b", .hosts = 1, .devices = 4, .alpa = 58.21, .megatron = 55.89},
        {.size = "2.6b",
         .hosts = 1,
         .devices = 8,
         .alpa = 61.61,
         .megatron = 50.44,
         .micro_batch = 8,
         .stages = 3,
         .first = {{8, 2, 1}, {8, 2, 1}, {16, 4, 1}}},
        {.size = "6.7b",
         .hosts = 2,
         .devices = 8,
         .alpa = 60.0,
         .megatron = 56.59,
         .micro_batch = 16,
         .stages = 2,
         .stage = {16, 2, 4}},
        {.size = "15b",
         .hosts = 4,
         .devices = 8,
         .alpa = 59.9,
         .megatron = 58.24,
         .micro_batch = 8,
         .stages = 4,
         .stage = {12, 2, 4}},
        {.size = "39b",
         .hosts = 8,
         .devices = 8,
         .alpa = 57,
         .megatron = 57.84,
         .micro_batch = 1,
         .stages = 16,
         .stage = {3, 1, 4}},
    };
    return &points[index];
}

/* Graphs of one model for the sizes of micro-batches that were asked for. */
typedef struct {
    const char *size;
    struct {
        int64_t micro_batch;
        cria_graph *graph;
    } built[32];
    int count;
} family;

static const cria_graph *graph_of(void *context, int64_t micro_batch, cria_error *err) {
    family *f = context;
    for (int i = 0; i < f->count; i++)
        if (f->built[i].micro_batch == micro_batch) return f->built[i].graph;
    char spec[96];
    snprintf(spec, sizeof spec, "gpt:size=%s,batch=%lld,train=0,loss=1", f->size, (long long)micro_batch);
    if (f->count == (int)(sizeof f->built / sizeof *f->built) ||
        cria_network_create(spec, &f->built[f->count].graph, err) != CRIA_OK)
        return NULL;
    f->built[f->count].micro_batch = micro_batch;
    return f->built[f->count++].graph;
}

static void close_family(family *f) {
    for (int i = 0; i < f->count; i++) cria_graph_destroy(f->built[i].graph);
}

static void set_options(family *f, cria_stages_options *options) {
    cria_stages_defaults(options);
    options->objective = CRIA_OBJECTIVE_TRAIN;
    options->element = (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL};
    options->graph_of = graph_of;
    options->context = f;
}

/* Megatron-LM's grid: tensors inside a host, equal stages, data over the rest. */
static cria_status best_grid(const cria_graph *graph, const cria_cluster *cluster, cria_stages_options *options,
                             unsigned flags, cria_plan_summary *out, cria_error *err) {
    int devices = cria_cluster_devices(cluster), layers = cria_graph_layers(graph),
        per_host = cria_cluster_host(cluster, 0)->devices;
    out->seconds = HUGE_VAL;
    for (int tensor = 1; tensor <= per_host; tensor *= 2)
        for (int stages = 1; stages <= layers && stages <= MOST_STAGES; stages *= 2) {
            if (devices % (tensor * stages) != 0 || layers % stages != 0) continue;
            int data = devices / tensor / stages;
            cria_hand_stage stage[MOST_STAGES];
            for (int s = 0; s < stages; s++) stage[s] = (cria_hand_stage){layers / stages, data, tensor};
            for (int64_t micro_batch = data; micro_batch <= 32 * data && micro_batch <= options->global_batch;
                 micro_batch *= 2) {
                cria_plan_summary summary;
                options->micro_batch = micro_batch;
                CRIA_TRY(cria_stages_by_hand(graph, cluster, options, stage, stages, flags, &summary, err));
                if (summary.feasible && summary.seconds < out->seconds) *out = summary;
            }
        }
    return CRIA_OK;
}

cria_status cria_published_predict(const cria_cluster *host, int index, cria_published_method method,
                                   cria_plan_summary *out, cria_error *err) {
    const cria_published_point *point = cria_published_point_of(index);
    *out = (cria_plan_summary){0};
    family f = {.size = point->size};
    cria_stages_options options;
    set_options(&f, &options);
    cria_cluster *cluster;
    CRIA_TRY(cria_cluster_resize(host, point->hosts, point->devices, &cluster, err));
    const cria_graph *graph = graph_of(&f, 1, err);
    cria_status status = graph ? CRIA_OK : CRIA_ERR_INTERNAL;
    if (status == CRIA_OK && method == CRIA_PUBLISHED_ALPA && point->stages > 0) {
        cria_hand_stage stage[MOST_STAGES];
        for (int s = 0; s < point->stages; s++) stage[s] = point->first[0].layers ? point->first[s] : point->stage;
        options.micro_batch = point->micro_batch;
        status = cria_stages_by_hand(graph, cluster, &options, stage, point->stages, CRIA_HAND_RECOMPUTE, out, err);
    } else if (status == CRIA_OK) {
        unsigned flags = CRIA_HAND_RECOMPUTE | (method == CRIA_PUBLISHED_MEGATRON ? CRIA_HAND_PLAIN : 0);
        status = best_grid(graph, cluster, &options, flags, out, err);
    }
    close_family(&f);
    cria_cluster_destroy(cluster);
    return status;
}

cria_status cria_published_plan(const cria_cluster *host, int index, cria_plan_summary *out, cria_error *err) {
    const cria_published_point *point = cria_published_point_of(index);
    family f = {.size = point->size};
    cria_stages_options options;
    cria_stages_result result;
    set_options(&f, &options);
    cria_cluster *cluster;
    CRIA_TRY(cria_cluster_resize(host, point->hosts, point->devices, &cluster, err));
    const cria_graph *graph = graph_of(&f, 1, err);
    cria_status status = graph ? cria_stages_plan(graph, cluster, &options, &result, err) : CRIA_ERR_INTERNAL;
    if (status == CRIA_OK) {
        *out = result.chosen;
        cria_stages_result_deinit(&result);
    }
    close_family(&f);
    cria_cluster_destroy(cluster);
    return status;
}
