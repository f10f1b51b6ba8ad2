/* Building a problem with every number checked, and the judge of assignments. */
#include "parallel/solve/problem.h"

#include "base/checked.h"
#include "parallel/solve/problem_rows.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Sums of costs, and of usages, stay below this, so that the solver may add and subtract two of them. */
#define MOST_TOTAL (INT64_C(1) << 58)
enum { MOST_ROWS = INT_MAX / 4, MOST_STRATEGIES = 1 << 20 };

cria_status cria_problem_create(int64_t usage_limit, cria_problem **out, cria_error *err) {
    cria_problem *problem = calloc(1, sizeof *problem);
    if (!problem) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a problem");
    problem->usage_limit = usage_limit;
    *out = problem;
    return CRIA_OK;
}

void cria_problem_destroy(cria_problem *problem) {
    if (!problem) return;
    free(problem->node);
    free(problem->edge);
    free(problem->interval);
    free(problem->values);
    free(problem);
}

/* Room for one more row; doubles. */
static void *grow(void *rows, int used, int *room, size_t size) {
    if (used < *room) return rows;
    int wanted = *room ? *room * 2 : 64;
    size_t bytes;
    if (used >= MOST_ROWS || !cria_mul_size((size_t)wanted, size, &bytes)) return NULL;
    void *bigger = realloc(rows, bytes);
    if (bigger) *room = wanted;
    return bigger;
}

static bool reserve_values(cria_problem *problem, size_t count) {
    size_t needed, bytes;
    if (!cria_add_size(problem->values_used, count, &needed)) return false;
    if (needed <= problem->values_room) return true;
    size_t wanted = problem->values_room ? problem->values_room : 256;
    while (wanted < needed)
        if (!cria_mul_size(wanted, 2, &wanted)) return false;
    if (!cria_mul_size(wanted, sizeof *problem->values, &bytes)) return false;
    int64_t *bigger = realloc(problem->values, bytes);
    if (!bigger) return false;
    problem->values = bigger;
    problem->values_room = wanted;
    return true;
}

static size_t put_values(cria_problem *problem, const int64_t *values, size_t count) {
    size_t at = problem->values_used;
    memcpy(problem->values + at, values, count * sizeof *values);
    problem->values_used += count;
    return at;
}

/* Adds the largest magnitude of the allowed costs to the total, which must stay small enough for exact sums. */
static cria_status count_costs(cria_problem *problem, const int64_t *costs, size_t count, const char *what, int number,
                               cria_error *err) {
    int64_t most = 0;
    for (size_t i = 0; i < count; i++) {
        if (costs[i] >= CRIA_COST_FORBIDDEN) continue;
        if (costs[i] <= -CRIA_COST_FORBIDDEN)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "%s %d: cost %zu is %lld, below the least of %lld", what, number,
                             i, (long long)costs[i], -(long long)CRIA_COST_FORBIDDEN + 1);
        int64_t magnitude = costs[i] < 0 ? -costs[i] : costs[i];
        if (magnitude > most) most = magnitude;
    }
    if (most > MOST_TOTAL - problem->cost_total)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%s %d: with its cost of %lld the costs may add up to more than %lld",
                         what, number, (long long)most, (long long)MOST_TOTAL);
    problem->cost_total += most;
    return CRIA_OK;
}

static cria_status count_usages(cria_problem *problem, const int64_t *usages, int strategies, cria_error *err) {
    int64_t most = 0;
    for (int i = 0; i < strategies; i++) {
        if (usages[i] < 0)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "node %d: usage %d is %lld, and must not be negative",
                             problem->nodes, i, (long long)usages[i]);
        if (usages[i] > most) most = usages[i];
    }
    if (most > MOST_TOTAL - problem->usage_total)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "node %d: with its usage of %lld the usages may add up to over %lld",
                         problem->nodes, (long long)most, (long long)MOST_TOTAL);
    problem->usage_total += most;
    return CRIA_OK;
}

int cria_problem_node(cria_problem *problem, int strategies, const int64_t *costs, const int64_t *usages, int64_t begin,
                      int64_t end, cria_error *err) {
    if (strategies < 1 || strategies > MOST_STRATEGIES) {
        cria_fail(err, CRIA_ERR_ARGUMENT, "node %d: has %d strategies, not 1 to %d", problem->nodes, strategies,
                  MOST_STRATEGIES);
        return -1;
    }
    if (count_costs(problem, costs, (size_t)strategies, "node", problem->nodes, err) != CRIA_OK) return -1;
    if (usages && count_usages(problem, usages, strategies, err) != CRIA_OK) return -1;
    cria_problem_node_row *rows = grow(problem->node, problem->nodes, &problem->nodes_room, sizeof *rows);
    if (rows) problem->node = rows;
    if (!rows || !reserve_values(problem, (size_t)strategies * 2)) {
        cria_fail(err, CRIA_ERR_MEMORY, "node %d: no memory for it", problem->nodes);
        return -1;
    }
    cria_problem_node_row *row = &problem->node[problem->nodes];
    *row = (cria_problem_node_row){.strategies = strategies, .interval = -1, .usage = SIZE_MAX};
    row->cost = put_values(problem, costs, (size_t)strategies);
    if (usages) row->usage = put_values(problem, usages, (size_t)strategies);
    problem->nodes++;
    if (cria_problem_interval(problem, problem->nodes - 1, begin, end, err) == CRIA_OK) return problem->nodes - 1;
    problem->nodes--;
    return -1;
}

cria_status cria_problem_interval(cria_problem *problem, int node, int64_t begin, int64_t end, cria_error *err) {
    if (node < 0 || node >= problem->nodes)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "an interval names node %d of %d", node, problem->nodes);
    if (end < begin)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "node %d: its interval ends at %lld, before it begins at %lld", node,
                         (long long)end, (long long)begin);
    if (begin == end) return CRIA_OK;
    for (int i = problem->node[node].interval; i >= 0; i = problem->interval[i].next)
        if (begin < problem->interval[i].end && problem->interval[i].begin < end)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "node %d: its intervals overlap at %lld", node,
                             (long long)(begin > problem->interval[i].begin ? begin : problem->interval[i].begin));
    cria_problem_interval_row *rows =
        grow(problem->interval, problem->intervals, &problem->intervals_room, sizeof *rows);
    if (!rows) return cria_fail(err, CRIA_ERR_MEMORY, "node %d: no memory for its interval", node);
    problem->interval = rows;
    rows[problem->intervals] = (cria_problem_interval_row){begin, end, problem->node[node].interval};
    problem->node[node].interval = problem->intervals++;
    return CRIA_OK;
}

cria_status cria_problem_edge(cria_problem *problem, int a, int b, const int64_t *costs, cria_error *err) {
    int number = problem->edges;
    if (a < 0 || a >= problem->nodes || b < 0 || b >= problem->nodes)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "edge %d: joins nodes %d and %d, but there are %d nodes", number, a, b,
                         problem->nodes);
    if (a == b) return cria_fail(err, CRIA_ERR_ARGUMENT, "edge %d: joins node %d with itself", number, a);
    size_t count = (size_t)problem->node[a].strategies * (size_t)problem->node[b].strategies;
    CRIA_TRY(count_costs(problem, costs, count, "edge", number, err));
    cria_problem_edge_row *rows = grow(problem->edge, problem->edges, &problem->edges_room, sizeof *rows);
    if (rows) problem->edge = rows;
    if (!rows || !reserve_values(problem, count))
        return cria_fail(err, CRIA_ERR_MEMORY, "edge %d: no memory for its %zu costs", number, count);
    problem->edge[number] = (cria_problem_edge_row){a, b, put_values(problem, costs, count)};
    problem->edges++;
    return CRIA_OK;
}

int cria_problem_nodes(const cria_problem *problem) {
    return problem->nodes;
}

int cria_problem_edges(const cria_problem *problem) {
    return problem->edges;
}

int cria_problem_strategies(const cria_problem *problem, int node) {
    return problem->node[node].strategies;
}

typedef struct {
    int64_t time, change;
} event;

/* By time; what is freed at a time is freed before anything begins then. */
static int compare_events(const void *a, const void *b) {
    const event *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return (x->change > y->change) - (x->change < y->change);
}

static cria_status find_peak(const cria_problem *problem, const int32_t *strategy, int64_t *peak, int64_t *when,
                             cria_error *err) {
    *peak = *when = 0;
    event *events = malloc(((size_t)problem->intervals * 2 + 1) * sizeof *events);
    if (!events) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d intervals", problem->intervals);
    size_t count = 0;
    for (int v = 0; v < problem->nodes; v++) {
        const cria_problem_node_row *row = &problem->node[v];
        int64_t usage = row->usage == SIZE_MAX ? 0 : problem->values[row->usage + (size_t)strategy[v]];
        for (int i = row->interval; usage && i >= 0; i = problem->interval[i].next) {
            events[count++] = (event){problem->interval[i].begin, usage};
            events[count++] = (event){problem->interval[i].end, -usage};
        }
    }
    qsort(events, count, sizeof *events, compare_events);
    int64_t now = 0;
    for (size_t i = 0; i < count; i++) {
        now += events[i].change;
        if (now > *peak) {
            *peak = now;
            *when = events[i].time;
        }
    }
    free(events);
    return CRIA_OK;
}

cria_status cria_problem_cost(const cria_problem *problem, const int32_t *strategy, int64_t *cost, int64_t *peak,
                              cria_error *err) {
    int64_t total = 0, when;
    for (int v = 0; v < problem->nodes; v++) {
        const cria_problem_node_row *row = &problem->node[v];
        if (strategy[v] < 0 || strategy[v] >= row->strategies)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "node %d: strategy %d of %d", v, strategy[v], row->strategies);
        int64_t value = problem->values[row->cost + (size_t)strategy[v]];
        if (value >= CRIA_COST_FORBIDDEN)
            return cria_fail(err, CRIA_ERR_INFEASIBLE, "node %d: its strategy %d is forbidden", v, strategy[v]);
        total += value;
    }
    for (int e = 0; e < problem->edges; e++) {
        const cria_problem_edge_row *row = &problem->edge[e];
        size_t at = (size_t)strategy[row->a] * (size_t)problem->node[row->b].strategies + (size_t)strategy[row->b];
        int64_t value = problem->values[row->cost + at];
        if (value >= CRIA_COST_FORBIDDEN)
            return cria_fail(err, CRIA_ERR_INFEASIBLE, "edge %d: strategy %d of node %d forbids strategy %d of node %d",
                             e, strategy[row->a], row->a, strategy[row->b], row->b);
        total += value;
    }
    CRIA_TRY(find_peak(problem, strategy, peak, &when, err));
    *cost = total;
    if (problem->usage_limit >= 0 && *peak > problem->usage_limit)
        return cria_fail(err, CRIA_ERR_INFEASIBLE, "usage is %lld at time %lld, over the limit of %lld",
                         (long long)*peak, (long long)when, (long long)problem->usage_limit);
    return CRIA_OK;
}

cria_status cria_problem_least_peak(const cria_problem *problem, int64_t *peak, int64_t *when, int *largest) {
    int32_t *least = calloc((size_t)problem->nodes + 1, sizeof *least);
    if (!least) return CRIA_ERR_MEMORY;
    for (int v = 0; v < problem->nodes; v++) {
        const cria_problem_node_row *row = &problem->node[v];
        const int64_t *usage = row->usage == SIZE_MAX ? NULL : problem->values + row->usage;
        for (int i = 1; usage && i < row->strategies; i++)
            if (usage[i] < usage[least[v]]) least[v] = i;
    }
    cria_status status = find_peak(problem, least, peak, when, NULL);
    int64_t most = -1;
    *largest = 0;
    for (int v = 0; v < problem->nodes; v++) {
        const cria_problem_node_row *row = &problem->node[v];
        int64_t usage = row->usage == SIZE_MAX ? 0 : problem->values[row->usage + (size_t)least[v]];
        for (int i = row->interval; i >= 0; i = problem->interval[i].next)
            if (problem->interval[i].begin <= *when && *when < problem->interval[i].end && usage > most) {
                most = usage;
                *largest = v;
            }
    }
    free(least);
    return status;
}
