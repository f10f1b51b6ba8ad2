/* What tests of planners begin with: a model's graph and a cluster of configs/clusters. After cmocka.h. */
#ifndef CRIA_TESTS_PARALLEL_PLANNING_H
#define CRIA_TESTS_PARALLEL_PLANNING_H

#include "models/family.h"
#include "parallel/plan/cluster.h"

#include <stdio.h>

static inline cria_graph *graph_of(cria_model_config config) {
    cria_graph *graph;
    cria_error err = {0};
    if (cria_model_graph(&config, &graph, &err) != CRIA_OK) fail_msg("%s", err.message);
    return graph;
}

/* "laptop.json", or with the mesh to take of it: "dgx-a100.json:1x4". */
static inline cria_cluster *cluster_of(const char *name) {
    char path[512];
    cria_cluster *cluster;
    cria_error err = {0};
    snprintf(path, sizeof path, CRIA_SOURCE_DIR "/configs/clusters/%s", name);
    if (cria_cluster_read(path, &cluster, &err) != CRIA_OK) fail_msg("%s", err.message);
    return cluster;
}

#endif
