/* Solving the problem of the intra-operator pass: as whole numbers, by the planner's one solver. */
#include "parallel/plan/intra_problem.h"

#include "base/clock.h"
#include "parallel/solve/solve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Finite costs of all nodes and edges add up to no more than this, which doubles hold exactly. */
static const double most_total = 1125899906842624.0; /* 2^50 */

static double largest(const double *cost, size_t count) {
    double most = 0;
    for (size_t i = 0; i < count; i++)
        if (cost[i] < HUGE_VAL && cost[i] > most) most = cost[i];
    return most;
}

static size_t entries(const cria_intra_problem *p, const cria_intra_edge *edge) {
    return (size_t)p->node[edge->a].choices * (size_t)p->node[edge->b].choices;
}

/* Whole units per unit of cost. */
static double scale_of(const cria_intra_problem *p) {
    double total = 0;
    for (int v = 0; v < p->nodes; v++) total += largest(p->node[v].cost, (size_t)p->node[v].choices);
    for (int e = 0; e < p->edges; e++) total += largest(p->edge[e].cost, entries(p, &p->edge[e]));
    return total > 0 ? most_total / total : 1;
}

static void to_whole(const double *cost, size_t count, double scale, int64_t *out) {
    for (size_t i = 0; i < count; i++)
        out[i] = cost[i] < HUGE_VAL ? (int64_t)llround(cost[i] * scale) : CRIA_COST_FORBIDDEN;
}

static cria_status fill(const cria_intra_problem *p, double scale, bool limited, int64_t *work, cria_problem *problem,
                        cria_error *err) {
    for (int v = 0; v < p->nodes; v++) {
        const cria_intra_node *node = &p->node[v];
        int64_t *usage = work + node->choices;
        to_whole(node->cost, (size_t)node->choices, scale, work);
        bool uses = limited && node->bytes;
        for (int i = 0; uses && i < node->choices; i++) usage[i] = (int64_t)ceil(node->bytes[i]);
        if (cria_problem_node(problem, node->choices, work, uses ? usage : NULL, node->begin, node->end, err) < 0)
            return err->status;
    }
    for (int e = 0; e < p->edges; e++) {
        const cria_intra_edge *edge = &p->edge[e];
        to_whole(edge->cost, entries(p, edge), scale, work);
        CRIA_TRY(cria_problem_edge(problem, edge->a, edge->b, work, err));
    }
    return CRIA_OK;
}

/* The solver speaks of nodes, the user of operators and tensors. */
static cria_status explain(const cria_intra_problem *p, cria_error *err) {
    int v, time;
    long long least, limit;
    if (err->status == CRIA_ERR_INFEASIBLE &&
        sscanf(err->message,
               "infeasible: at time %d the least usages add up to %lld, over the limit of %lld; node %d has", &time,
               &least, &limit, &v) == 4 &&
        v >= 0 && v < p->nodes && p->node[v].tensor >= 0 && time >= 0 && time < p->ops)
        return cria_fail(
            err, CRIA_ERR_INFEASIBLE,
            "a memory limit of %lld bytes: at operator \"%s\" a device holds no less than %lld, most of it "
            "of tensor \"%s\"",
            limit, cria_graph_tensor(p->graph, cria_graph_op(p->graph, p->first + time)->output)->name, least,
            cria_graph_tensor(p->graph, p->node[v].tensor)->name);
    if (err->status != CRIA_ERR_INFEASIBLE || sscanf(err->message, "infeasible: node %d:", &v) != 1 || v < 0 ||
        v >= p->nodes)
        return err->status;
    bool op = p->node[v].tensor < 0;
    int t = op ? cria_graph_op(p->graph, p->first + v)->output : p->node[v].tensor;
    return cria_fail(
        err, CRIA_ERR_INFEASIBLE,
        "%s \"%s\": no way to %s it on a %d x %d mesh goes with its neighbours and what the options forbid%s",
        op ? "operator" : "tensor", cria_graph_tensor(p->graph, t)->name, op ? "cut" : "hold", p->mesh.size[0],
        p->mesh.size[1], p->options->memory_limit >= 0 ? " or with the memory limit" : "");
}

cria_status cria_intra_search(const cria_intra_problem *p, bool limited, double seconds, cria_intra_answer *out,
                              cria_error *err) {
    *out = (cria_intra_answer){0};
    cria_error local = {0};
    if (!err) err = &local;
    size_t room = 0;
    for (int v = 0; v < p->nodes; v++)
        if ((size_t)p->node[v].choices * 2 > room) room = (size_t)p->node[v].choices * 2;
    for (int e = 0; e < p->edges; e++)
        if (entries(p, &p->edge[e]) > room) room = entries(p, &p->edge[e]);
    double scale = scale_of(p);
    int64_t *work = malloc((room + 1) * sizeof *work);
    cria_problem *problem = NULL;
    cria_solution solution = {0};
    cria_status status = work ? cria_problem_create(limited ? p->options->memory_limit : -1, &problem, err)
                              : cria_fail(err, CRIA_ERR_MEMORY, "no memory to plan %d operators", p->ops);
    if (status == CRIA_OK) status = fill(p, scale, limited, work, problem, err);
    cria_solve_options how = {.seconds = seconds,
                              .iterations = p->options->iterations,
                              .threads = p->options->threads,
                              .seed = p->options->seed};
    if (status == CRIA_OK && cria_solve(problem, &how, &solution, err) != CRIA_OK) status = explain(p, err);
    if (status == CRIA_OK) {
        out->choice = solution.strategy;
        out->optimal = solution.optimal;
        /* Every term was rounded by at most a half. */
        out->bound = ((double)solution.bound - 0.5 * (p->nodes + p->edges)) / scale;
        solution.strategy = NULL;
    }
    cria_solution_deinit(&solution);
    cria_problem_destroy(problem);
    free(work);
    return status;
}

double cria_intra_cost(const cria_intra_problem *p, const int32_t *choice) {
    double cost = 0;
    for (int v = 0; v < p->nodes; v++) cost += p->node[v].cost[choice[v]];
    for (int e = 0; e < p->edges; e++) {
        const cria_intra_edge *edge = &p->edge[e];
        cost += edge->cost[(size_t)choice[edge->a] * (size_t)p->node[edge->b].choices + (size_t)choice[edge->b]];
    }
    return cost;
}

double cria_intra_peak(const cria_intra_problem *p, const int32_t *choice) {
    double *change = calloc((size_t)p->ops + 1, sizeof *change), now = 0, most = 0;
    if (!change) return HUGE_VAL;
    for (int v = 0; v < p->nodes; v++) {
        const cria_intra_node *node = &p->node[v];
        if (!node->bytes) continue;
        change[node->begin] += ceil(node->bytes[choice[v]]);
        change[node->end] -= ceil(node->bytes[choice[v]]);
    }
    for (int i = 0; i < p->ops; i++) {
        now += change[i];
        if (now > most) most = now;
    }
    free(change);
    return most;
}

cria_status cria_intra_report(const cria_intra_problem *p, const int32_t *choice, cria_intra_result *out,
                              cria_error *err) {
    int tensors = cria_graph_tensors(p->graph);
    out->strategy = calloc((size_t)p->ops + 1, sizeof *out->strategy);
    out->held = calloc((size_t)tensors + 1, sizeof *out->held);
    if (!out->strategy || !out->held) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a plan");
    for (int t = 0; t < tensors; t++) {
        int v = p->node_of[t];
        out->held[t] = v < 0 ? (cria_sharding){{CRIA_REPLICATED, CRIA_REPLICATED}} : p->node[v].sharding[choice[v]];
    }
    for (int i = 0; i < p->ops; i++) {
        const cria_op *op = cria_graph_op(p->graph, p->first + i);
        const cria_strategy *strategy = &p->node[i].strategy[choice[i]];
        out->strategy[i] = *strategy;
        out->strategy[i].output = out->held[op->output];
        double stats = cria_strategy_stats(p->graph, op, &p->mesh, &p->options->strategies, strategy);
        out->collectives += stats;
        out->compute += p->node[i].cost[choice[i]] - stats;
    }
    for (int v = p->ops; v < p->nodes; v++) out->resharding += p->node[v].cost[choice[v]];
    for (int e = 0; e < p->edges; e++) {
        const cria_intra_edge *edge = &p->edge[e];
        double cost = edge->cost[(size_t)choice[edge->a] * (size_t)p->node[edge->b].choices + (size_t)choice[edge->b]];
        *(edge->kind == CRIA_INTRA_OUTPUT ? &out->collectives : &out->resharding) += cost;
    }
    out->objective = cria_intra_cost(p, choice);
    out->peak_bytes = (int64_t)cria_intra_peak(p, choice);
    out->nodes = p->nodes;
    out->edges = p->edges;
    return CRIA_OK;
}
