/* Random problems small enough for brute force, and brute force. */
#ifndef CRIA_TESTS_SOLVE_RANDOM_PROBLEM_H
#define CRIA_TESTS_SOLVE_RANDOM_PROBLEM_H

#include "base/random.h"
#include "parallel/solve/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { MOST_NODES = 7 };

typedef struct {
    uint64_t key, drawn;
} dice;

static inline int64_t roll(dice *d, int64_t below) {
    uint32_t word[4];
    cria_philox(d->key, d->drawn++, 0, word);
    return (int64_t)(word[0] % (uint32_t)below);
}

/* Chains, trees, cycles, dense graphs and parallel edges in turn; a third has no limit, many a binding one. */
static inline cria_problem *make_problem(dice *d, int shape) {
    cria_problem *p;
    int nodes = 1 + (int)roll(d, MOST_NODES), n[MOST_NODES], most = shape % 2 ? 3 : 4;
    int64_t limit = shape % 3 == 0 ? -1 : roll(d, 12 + 5 * nodes);
    assert_int_equal(cria_problem_create(limit, &p, NULL), CRIA_OK);
    for (int v = 0; v < nodes; v++) {
        int64_t cost[4], usage[4], begin = roll(d, 6), end = begin + roll(d, 6);
        n[v] = 1 + (int)roll(d, most);
        for (int i = 0; i < n[v]; i++) {
            cost[i] = roll(d, 12) == 0 ? CRIA_COST_FORBIDDEN : roll(d, 30);
            usage[i] = roll(d, 10);
        }
        assert_int_equal(cria_problem_node(p, n[v], cost, usage, begin, end, NULL), v);
        if (roll(d, 5) == 0) assert_int_equal(cria_problem_interval(p, v, 20, 22, NULL), CRIA_OK);
    }
    int edges = nodes < 2 ? 0 : shape % 5 == 3 ? 2 * nodes : shape % 5 == 2 ? nodes : nodes - 1;
    for (int e = 0; e < edges; e++) {
        int a = shape % 5 == 1 ? (int)roll(d, e + 1) : e % nodes,
            b = shape % 5 == 3 ? (int)roll(d, nodes) : (e + 1) % nodes;
        int64_t cost[16];
        bool forbids = roll(d, 3) == 0;
        if (a == b) continue;
        for (int i = 0; i < n[a] * n[b]; i++) cost[i] = forbids && roll(d, 2) ? CRIA_COST_FORBIDDEN : roll(d, 20) - 4;
        assert_int_equal(cria_problem_edge(p, a, b, cost, NULL), CRIA_OK);
    }
    return p;
}

/* The least cost of all assignments; false if none is allowed. */
static inline bool brute_force(const cria_problem *p, int64_t *best) {
    int32_t x[MOST_NODES] = {0};
    int nodes = cria_problem_nodes(p), v;
    bool found = false;
    do {
        int64_t cost, peak;
        if (cria_problem_cost(p, x, &cost, &peak, NULL) == CRIA_OK && (!found || cost < *best)) {
            *best = cost;
            found = true;
        }
        for (v = 0; v < nodes && ++x[v] == cria_problem_strategies(p, v); v++) x[v] = 0;
    } while (v < nodes);
    return found;
}

#endif
