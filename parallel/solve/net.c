/* Laying a model out for speed, and evaluating assignments of it. */
#include "parallel/solve/net.h"

#include <math.h>
#include <string.h>

static double capped(int64_t cost, double forbidden) {
    return cost >= CRIA_MODEL_FORBIDDEN || (double)cost > forbidden ? forbidden : (double)cost;
}

static cria_status lay_nodes(const cria_model *model, cria_net *out) {
    int *n, *half_at, *segment_at, segments = 0;
    size_t *at;
    CRIA_MODEL_NEW(out->arena, n, model->nodes);
    CRIA_MODEL_NEW(out->arena, at, model->nodes + 1);
    CRIA_MODEL_NEW(out->arena, half_at, model->nodes + 1);
    CRIA_MODEL_NEW(out->arena, segment_at, model->nodes + 1);
    for (int v = 0; v < model->nodes; v++) {
        n[v] = model->node[v].strategies;
        at[v + 1] = at[v] + (size_t)n[v];
        half_at[v + 1] = half_at[v] + model->node[v].edges;
        segment_at[v + 1] = segments += model->node[v].segments;
    }
    CRIA_MODEL_NEW(out->arena, out->unary, at[model->nodes]);
    CRIA_MODEL_NEW(out->arena, out->segment, segments);
    for (int v = 0; v < model->nodes; v++) {
        for (int i = 0; i < n[v]; i++) out->unary[at[v] + (size_t)i] = capped(model->node[v].cost[i], out->forbidden);
        for (int k = 0; k < model->node[v].segments; k++) {
            const cria_segment *s = &model->node[v].segment[k];
            double *usage;
            CRIA_MODEL_NEW(out->arena, usage, n[v]);
            for (int i = 0; i < n[v]; i++) usage[i] = (double)s->usage[i];
            out->segment[segment_at[v] + k] = (cria_net_segment){s->begin, s->end, usage};
        }
    }
    out->n = n;
    out->at = at;
    out->half_at = half_at;
    out->segment_at = segment_at;
    return CRIA_OK;
}

static cria_status lay_edges(const cria_model *model, cria_net *out) {
    int *filled;
    CRIA_MODEL_NEW(out->arena, out->edge, model->edges);
    CRIA_MODEL_NEW(out->arena, out->half, model->edges * 2);
    CRIA_MODEL_NEW(out->arena, filled, model->nodes);
    for (int e = 0; e < model->edges; e++) {
        int a = model->edge[e].a, b = model->edge[e].b, na = out->n[a], nb = out->n[b];
        double *ab, *ba;
        CRIA_MODEL_NEW(out->arena, ab, na * nb);
        CRIA_MODEL_NEW(out->arena, ba, na * nb);
        for (int i = 0; i < na; i++)
            for (int j = 0; j < nb; j++)
                ab[i * nb + j] = ba[j * na + i] = capped(model->edge[e].cost[i * nb + j], out->forbidden);
        out->edge[e] = (cria_net_edge){a, b, ab, ba};
        out->half[out->half_at[a] + filled[a]++] = (cria_net_half){e, b, ba};
        out->half[out->half_at[b] + filled[b]++] = (cria_net_half){e, a, ab};
        out->entries += (size_t)na * (size_t)nb;
    }
    return CRIA_OK;
}

cria_status cria_net_create(const cria_model *model, double most, cria_net *out) {
    *out = (cria_net){.nodes = model->nodes, .edges = model->edges, .slices = model->slices};
    out->arena = cria_arena_create((size_t)1 << 20, 0);
    if (!out->arena) return CRIA_ERR_MEMORY;
    out->constant = (double)model->constant;
    double span = most - out->constant;
    out->forbidden = floor(span > 1 ? span * 1.5 + 1 : 2);
    out->magnitude = 8 * out->forbidden + fabs(out->constant);
    cria_status status = lay_nodes(model, out);
    if (status == CRIA_OK) status = lay_edges(model, out);
    if (status == CRIA_OK) {
        out->room = cria_arena_alloc_array(out->arena, (size_t)model->slices + 1, sizeof *out->room);
        if (!out->room) status = CRIA_ERR_MEMORY;
    }
    for (int t = 0; t < model->slices && status == CRIA_OK; t++) out->room[t] = (double)model->room[t];
    if (status != CRIA_OK) cria_net_deinit(out);
    return status;
}

void cria_net_deinit(cria_net *net) {
    cria_arena_destroy(net->arena);
    net->arena = NULL;
}

double cria_net_cost(const cria_net *net, const int32_t *x) {
    double cost = net->constant;
    for (int v = 0; v < net->nodes; v++) cost += net->unary[net->at[v] + (size_t)x[v]];
    for (int e = 0; e < net->edges; e++)
        cost += net->edge[e].ab[(size_t)x[net->edge[e].a] * (size_t)net->n[net->edge[e].b] + (size_t)x[net->edge[e].b]];
    return cost;
}

double cria_net_usage(const cria_net *net, const int32_t *x, double *over) {
    if (net->slices == 0) return 0;
    memset(over, 0, (size_t)net->slices * sizeof *over);
    /* differences first: over[t] is the change at t */
    for (int v = 0; v < net->nodes; v++)
        for (int k = net->segment_at[v]; k < net->segment_at[v + 1]; k++) {
            const cria_net_segment *s = &net->segment[k];
            over[s->begin] += s->usage[x[v]];
            if (s->end < net->slices) over[s->end] -= s->usage[x[v]];
        }
    double now = 0, largest = -INFINITY;
    for (int t = 0; t < net->slices; t++) {
        now += over[t];
        over[t] = now - net->room[t];
        if (over[t] > largest) largest = over[t];
    }
    return largest;
}

void cria_net_price(const cria_net *net, const double *price, double *work, double *out) {
    work[0] = 0;
    for (int t = 0; t < net->slices; t++) work[t + 1] = work[t] + price[t];
    memset(out, 0, net->at[net->nodes] * sizeof *out);
    for (int v = 0; v < net->nodes; v++)
        for (int k = net->segment_at[v]; k < net->segment_at[v + 1]; k++) {
            const cria_net_segment *s = &net->segment[k];
            double p = work[s->end] - work[s->begin];
            double *to = out + net->at[v];
            for (int i = 0; p != 0 && i < net->n[v]; i++) to[i] += p * s->usage[i];
        }
}
