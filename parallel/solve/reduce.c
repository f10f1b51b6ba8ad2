/* Exact reductions, round by round until nothing changes: arc consistency, contraction of edges that force their ends,
 * dominated strategies, elimination of nodes of degree <= 2 that use no memory. Every round keeps at least one optimum.
 *
 * Arc consistency: Mackworth, "Consistency in networks of relations" (1977). Contraction and elimination are the rules
 * R0-RN of PBQP solvers (Scholz and Eckstein, LCTES'02). */
#include "parallel/solve/model.h"

#include "parallel/solve/problem_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The most multiplications and additions that one node may cost a round: a hub with many strategies is left alone. */
#define MOST_WORK INT64_C(40000000)

typedef struct {
    cria_model *model;
    cria_change change;
    cria_arena *arena; /* of this round */
    int *left;         /* [nodes] strategies kept */
    bool changed;
    const cria_stage *stages; /* of the rounds before, to name nodes of the problem */
    const cria_until *until;
    char *why; /* [160] */
} round_state;

static int64_t edge_cost(const cria_model *m, int e, int v, int i, int k) {
    const cria_model_edge *edge = &m->edge[e];
    return edge->a == v ? edge->cost[(size_t)i * (size_t)m->node[edge->b].strategies + (size_t)k]
                        : edge->cost[(size_t)k * (size_t)m->node[v].strategies + (size_t)i];
}

static int other_end(const cria_model *m, int e, int v) {
    return m->edge[e].a == v ? m->edge[e].b : m->edge[e].a;
}

static cria_status begin_round(round_state *r, cria_reduction *of, const cria_until *until) {
    cria_model *model = &of->model;
    *r = (round_state){.model = model,
                       .arena = cria_arena_create(1 << 16, 0),
                       .stages = of->stages,
                       .until = until,
                       .why = of->infeasible};
    if (!r->arena) return CRIA_ERR_MEMORY;
    int n = model->nodes;
    CRIA_MODEL_NEW(r->arena, r->change.parent, n);
    CRIA_MODEL_NEW(r->arena, r->change.table, n);
    CRIA_MODEL_NEW(r->arena, r->change.keep, n);
    CRIA_MODEL_NEW(r->arena, r->change.dead, n);
    CRIA_MODEL_NEW(r->arena, r->left, n);
    for (int v = 0; v < n; v++) {
        int s = model->node[v].strategies;
        r->change.parent[v] = -1;
        r->left[v] = s;
        CRIA_MODEL_NEW(r->arena, r->change.keep[v], s);
        memset(r->change.keep[v], 1, (size_t)s);
    }
    return CRIA_OK;
}

static void drop(round_state *r, int v, int i) {
    r->change.keep[v][i] = false;
    r->left[v]--;
    r->changed = true;
}

/* Node v of the model has no strategy left: says so with a node of the problem that is part of it. */
static cria_status nothing_left(round_state *r, int v) {
    for (const cria_stage *s = r->stages; s; s = s->before)
        for (int u = 0; u < s->nodes; u++)
            if (s->into[u] == v) {
                v = u;
                break;
            }
    snprintf(r->why, 160, "node %d: none of its strategies goes with the other nodes' and the usage limit", v);
    return CRIA_ERR_INFEASIBLE;
}

/* Strategies that are forbidden or can never fit. */
static cria_status drop_impossible(round_state *r) {
    cria_model *m = r->model;
    for (int t = 0; t < m->slices; t++)
        if (m->room[t] < 0) {
            snprintf(r->why, 160, "the least usages that remain pass the limit by %lld", -(long long)m->room[t]);
            return CRIA_ERR_INFEASIBLE;
        }
    for (int v = 0; v < m->nodes; v++) {
        const cria_model_node *node = &m->node[v];
        for (int i = 0; i < node->strategies; i++)
            if (r->change.keep[v][i] && node->cost[i] >= CRIA_MODEL_FORBIDDEN) drop(r, v, i);
        for (int k = 0; k < node->segments; k++) {
            int64_t room = INT64_MAX;
            for (int t = node->segment[k].begin; t < node->segment[k].end; t++)
                if (m->room[t] < room) room = m->room[t];
            for (int i = 0; i < node->strategies; i++)
                if (r->change.keep[v][i] && node->segment[k].usage[i] > room) drop(r, v, i);
        }
        if (r->left[v] == 0) return nothing_left(r, v);
    }
    return CRIA_OK;
}

/* Drops the strategies of v that the edge leaves no partner. */
static bool revise(round_state *r, int e, int v) {
    cria_model *m = r->model;
    int w = other_end(m, e, v);
    bool dropped = false;
    for (int i = 0; i < m->node[v].strategies; i++) {
        if (!r->change.keep[v][i]) continue;
        bool supported = false;
        for (int k = 0; k < m->node[w].strategies && !supported; k++)
            supported = r->change.keep[w][k] && edge_cost(m, e, v, i, k) < CRIA_MODEL_FORBIDDEN;
        if (!supported) {
            drop(r, v, i);
            dropped = true;
        }
    }
    return dropped;
}

static bool edge_forbids(const cria_model *m, int e) {
    size_t count = (size_t)m->node[m->edge[e].a].strategies * (size_t)m->node[m->edge[e].b].strategies;
    for (size_t i = 0; i < count; i++)
        if (m->edge[e].cost[i] >= CRIA_MODEL_FORBIDDEN) return true;
    return false;
}

/* forbids[e]: the edge has a forbidden pair. */
static cria_status make_consistent(round_state *r, const bool *forbids) {
    cria_model *m = r->model;
    int *queue, head = 0, count = 0, room = m->nodes + 1;
    bool *queued;
    CRIA_MODEL_NEW(r->arena, queue, room);
    CRIA_MODEL_NEW(r->arena, queued, m->nodes);
    for (int v = 0; v < m->nodes; v++) queue[count++] = v, queued[v] = true;
    while (count > 0) {
        int w = queue[head];
        head = (head + 1) % room;
        count--;
        queued[w] = false;
        if (cria_until_over(r->until)) return CRIA_ERR_CLOSED;
        for (int k = 0; k < m->node[w].edges; k++) {
            int e = m->node[w].edge[k], v = other_end(m, e, w);
            if (!forbids[e] || !revise(r, e, v)) continue;
            if (r->left[v] == 0) return nothing_left(r, v);
            if (queued[v]) continue;
            queue[(head + count++) % room] = v;
            queued[v] = true;
        }
    }
    return CRIA_OK;
}

/* Does every kept strategy of v leave exactly one of w? Then w follows v: its table. */
static bool forces(const round_state *r, int e, int v, int32_t *table) {
    const cria_model *m = r->model;
    int w = other_end(m, e, v);
    for (int i = 0; i < m->node[v].strategies; i++) {
        table[i] = -1;
        if (!r->change.keep[v][i]) continue;
        for (int k = 0; k < m->node[w].strategies; k++) {
            if (!r->change.keep[w][k] || edge_cost(m, e, v, i, k) >= CRIA_MODEL_FORBIDDEN) continue;
            if (table[i] >= 0) return false;
            table[i] = k;
        }
    }
    return true;
}

static int root_of(const int *parent, int v) {
    while (parent[v] >= 0) v = parent[v];
    return v;
}

/* A node with fewer strategies than the one it follows would make its other edges larger: only where it has few. */
static bool worth_following(const round_state *r, int v, int w) {
    return r->left[w] == 1 || r->left[w] >= r->left[v] || r->model->node[w].edges <= 2;
}

static cria_status find_followers(round_state *r, const bool *forbids) {
    cria_model *m = r->model;
    int most = 0;
    int32_t *table;
    for (int v = 0; v < m->nodes; v++)
        if (m->node[v].strategies > most) most = m->node[v].strategies;
    CRIA_MODEL_NEW(r->arena, table, most);
    for (int e = 0; e < m->edges; e++) {
        if (e % 64 == 0 && cria_until_over(r->until)) return CRIA_ERR_CLOSED;
        int ends[2] = {m->edge[e].a, m->edge[e].b};
        if (!forbids[e] && r->left[ends[0]] > 1 && r->left[ends[1]] > 1) continue;
        for (int k = 0; k < 2; k++) {
            int v = ends[k], w = ends[1 - k];
            if (r->change.parent[w] >= 0 || root_of(r->change.parent, v) == w) continue;
            if (!worth_following(r, v, w) || !forces(r, e, v, table)) continue;
            CRIA_MODEL_NEW(r->arena, r->change.table[w], m->node[v].strategies);
            memcpy(r->change.table[w], table, (size_t)m->node[v].strategies * sizeof *table);
            r->change.parent[w] = v;
            r->changed = true;
            break;
        }
    }
    return CRIA_OK;
}

/* Is strategy j of v at least as good as i, whatever the neighbours take? */
static bool dominates(const round_state *r, int v, int j, int i) {
    const cria_model *m = r->model;
    const cria_model_node *node = &m->node[v];
    for (int k = 0; k < node->segments; k++)
        if (node->segment[k].usage[j] > node->segment[k].usage[i]) return false;
    int64_t gain = node->cost[i] - node->cost[j];
    for (int x = 0; x < node->edges; x++) {
        int e = node->edge[x], w = other_end(m, e, v);
        int64_t worst = INT64_MIN;
        for (int k = 0; k < m->node[w].strategies; k++) {
            if (!r->change.keep[w][k]) continue;
            int64_t from = edge_cost(m, e, v, i, k), to = edge_cost(m, e, v, j, k);
            if (from >= CRIA_MODEL_FORBIDDEN) continue;
            if (to >= CRIA_MODEL_FORBIDDEN) return false;
            if (to - from > worst) worst = to - from;
        }
        if (worst == INT64_MIN) return true;
        gain -= worst;
        /* what the edges still to come can give back is not known: no early exit on a negative gain */
    }
    return gain >= 0;
}

static cria_status drop_dominated(round_state *r) {
    const cria_model *m = r->model;
    for (int v = 0; v < m->nodes; v++) {
        const cria_model_node *node = &m->node[v];
        int64_t width = 1;
        for (int x = 0; x < node->edges; x++) width += m->node[other_end(m, node->edge[x], v)].strategies;
        if (width * node->strategies * node->strategies > MOST_WORK) continue;
        if (cria_until_over(r->until)) return CRIA_ERR_CLOSED;
        for (int i = 0; i < node->strategies; i++)
            for (int j = 0; j < node->strategies && r->change.keep[v][i]; j++)
                if (j != i && r->change.keep[v][j] && dominates(r, v, j, i)) drop(r, v, i);
    }
    return CRIA_OK;
}

static bool uses_memory(const round_state *r, int v) {
    const cria_model_node *node = &r->model->node[v];
    return node->segments > 0;
}

/* The cheapest of u's strategies for every pair of its neighbours' (b < 0: one neighbour; a < 0: none). */
static cria_status eliminate(round_state *r, int u, int ea, int eb, cria_arena *stage_arena) {
    cria_model *m = r->model;
    int a = ea < 0 ? -1 : other_end(m, ea, u), b = eb < 0 ? -1 : other_end(m, eb, u);
    int na = a < 0 ? 1 : m->node[a].strategies, nb = b < 0 ? 1 : m->node[b].strategies;
    int32_t *best;
    int64_t *cost;
    CRIA_MODEL_NEW(stage_arena, best, (size_t)na * (size_t)nb);
    CRIA_MODEL_NEW(m->arena, cost, (size_t)na * (size_t)nb);
    for (int i = 0; i < na; i++)
        for (int j = 0; j < nb; j++) {
            int64_t least = CRIA_MODEL_FORBIDDEN;
            for (int k = 0; k < m->node[u].strategies; k++) {
                int64_t c = m->node[u].cost[k];
                if (a >= 0) c += edge_cost(m, ea, u, k, i);
                if (b >= 0 && c < CRIA_MODEL_FORBIDDEN) c += edge_cost(m, eb, u, k, j);
                if (c >= least) continue;
                least = c;
                best[i * nb + j] = k;
            }
            cost[i * nb + j] = least;
        }
    if (a < 0) m->constant += cost[0];
    if (a >= 0 && b < 0)
        for (int i = 0; i < na; i++)
            m->node[a].cost[i] = cost[i] >= CRIA_MODEL_FORBIDDEN ? CRIA_MODEL_FORBIDDEN : m->node[a].cost[i] + cost[i];
    if (b >= 0) m->edge[m->edges++] = (cria_model_edge){a, b, cost};
    r->change.dead[u] = true;
    r->change.elimination[r->change.eliminated++] = (cria_elimination){u, a, b, nb, best};
    r->changed = true;
    return CRIA_OK;
}

/* An independent set of nodes per round: what is eliminated has no neighbour that was eliminated or got an edge. */
static cria_status eliminate_small(round_state *r, cria_arena *stage_arena) {
    cria_model *m = r->model;
    bool *touched;
    cria_model_edge *edges;
    int before = m->edges;
    CRIA_MODEL_NEW(r->arena, touched, m->nodes);
    CRIA_MODEL_NEW(stage_arena, r->change.elimination, m->nodes);
    CRIA_MODEL_NEW(m->arena, edges, m->edges + m->nodes);
    if (before) memcpy(edges, m->edge, (size_t)before * sizeof *edges);
    m->edge = edges;
    for (int u = 0; u < m->nodes; u++) {
        const cria_model_node *node = &m->node[u];
        if (node->edges > 2 || touched[u] || uses_memory(r, u)) continue;
        int64_t work = node->strategies;
        bool free_neighbours = true;
        for (int x = 0; x < node->edges; x++) {
            int w = other_end(m, node->edge[x], u);
            free_neighbours = free_neighbours && !r->change.dead[w];
            work *= m->node[w].strategies;
        }
        if (!free_neighbours || work > MOST_WORK) continue;
        if (cria_until_over(r->until)) break; /* what has been eliminated stays so */
        for (int x = 0; x < node->edges; x++) touched[other_end(m, node->edge[x], u)] = true;
        cria_status status =
            eliminate(r, u, node->edges > 0 ? node->edge[0] : -1, node->edges > 1 ? node->edge[1] : -1, stage_arena);
        if (status != CRIA_OK) return status;
    }
    return CRIA_OK;
}

/* One round; `hard`: dominance and elimination too; `keep`: see cria_reduction_restrict, or NULL. */
static cria_status reduce_round(cria_reduction *out, bool hard, const bool *keep, const cria_until *until,
                                bool *changed) {
    round_state r;
    cria_model *m = &out->model, next;
    cria_status status = begin_round(&r, out, until);
    for (int v = 0; keep && status == CRIA_OK && v < m->nodes; keep += m->node[v++].strategies)
        for (int i = 0; i < m->node[v].strategies; i++)
            if (!keep[i]) drop(&r, v, i);
    if (status == CRIA_OK) status = drop_impossible(&r);
    bool *forbids = status == CRIA_OK ? cria_arena_alloc_array(r.arena, (size_t)m->edges + 1, sizeof *forbids) : NULL;
    if (status == CRIA_OK && !forbids) status = CRIA_ERR_MEMORY;
    for (int e = 0; e < m->edges && status == CRIA_OK; e++) forbids[e] = edge_forbids(m, e);
    if (status == CRIA_OK) status = make_consistent(&r, forbids);
    if (status == CRIA_OK && hard) status = drop_dominated(&r);
    if (status == CRIA_OK) status = find_followers(&r, forbids);
    if (status == CRIA_OK && hard && !r.changed) status = eliminate_small(&r, out->arena);
    *changed = r.changed;
    if (status == CRIA_OK && (r.changed || !out->stages)) {
        int empty = 0;
        status = cria_contract(m, &r.change, &next, out->arena, &out->stages, &empty);
        if (status == CRIA_ERR_INFEASIBLE) nothing_left(&r, empty);
        if (status == CRIA_OK) {
            cria_arena_destroy(m->arena);
            *m = next;
        }
    }
    cria_arena_destroy(r.arena);
    return status;
}

/* The least cost of every node goes into the constant. */
static void settle_constant(cria_model *m) {
    for (int v = 0; v < m->nodes; v++) {
        int64_t least = CRIA_MODEL_FORBIDDEN;
        for (int i = 0; i < m->node[v].strategies; i++)
            if (m->node[v].cost[i] < least) least = m->node[v].cost[i];
        for (int i = 0; i < m->node[v].strategies; i++)
            if (m->node[v].cost[i] < CRIA_MODEL_FORBIDDEN) m->node[v].cost[i] -= least;
        m->constant += least;
    }
}

/* Cut off, a round leaves the model as it was: what the rounds before made of it is whole. */
static cria_status reduce_all(cria_reduction *out, const bool *keep, const cria_until *until) {
    cria_status status = CRIA_OK;
    bool changed = true;
    for (bool hard = false; status == CRIA_OK && (changed || !hard);) {
        if (!changed) hard = true;
        /* the first round makes the model's own form of the problem: never cut off */
        status = reduce_round(out, hard, keep, out->stages ? until : NULL, &changed);
        keep = NULL;
    }
    if (status == CRIA_ERR_CLOSED) status = CRIA_OK;
    if (status == CRIA_OK) settle_constant(&out->model);
    return status;
}

/* Does even the least usage of every node pass the limit? Says when, and which node has the most of it. */
static cria_status check_least_usages(const cria_problem *problem, char *why) {
    int64_t peak, when;
    int largest;
    CRIA_TRY(cria_problem_least_peak(problem, &peak, &when, &largest));
    if (problem->usage_limit < 0 || peak <= problem->usage_limit) return CRIA_OK;
    snprintf(why, 160, "at time %lld the least usages add up to %lld, over the limit of %lld; node %d has the largest",
             (long long)when, (long long)peak, (long long)problem->usage_limit, largest);
    return CRIA_ERR_INFEASIBLE;
}

cria_status cria_reduce(const cria_problem *problem, const cria_until *until, cria_reduction *out) {
    *out = (cria_reduction){.arena = cria_arena_create(1 << 16, 0)};
    cria_arena *first = cria_arena_create(1 << 16, 0);
    if (!out->arena || !first) {
        cria_arena_destroy(first);
        cria_reduction_deinit(out);
        return CRIA_ERR_MEMORY;
    }
    snprintf(out->infeasible, sizeof out->infeasible, "every assignment takes something that is forbidden");
    cria_status status = check_least_usages(problem, out->infeasible);
    if (status == CRIA_OK) status = cria_model_create(problem, first, out->arena, &out->model);
    out->model.arena = first;
    if (status == CRIA_OK) status = reduce_all(out, NULL, until);
    if (status == CRIA_ERR_MEMORY) cria_reduction_deinit(out);
    return status;
}

cria_status cria_reduction_restrict(cria_reduction *reduction, const bool *keep, const cria_until *until) {
    return reduce_all(reduction, keep, until);
}

void cria_reduction_deinit(cria_reduction *reduction) {
    if (!reduction) return;
    cria_arena_destroy(reduction->model.arena);
    cria_arena_destroy(reduction->arena);
    reduction->model.arena = reduction->arena = NULL;
}

cria_status cria_reduction_expand(const cria_reduction *reduction, const int32_t *strategy, int32_t *problem_strategy) {
    int most = reduction->model.nodes;
    for (const cria_stage *s = reduction->stages; s; s = s->before)
        if (s->nodes > most) most = s->nodes;
    int32_t *after = malloc(((size_t)most + 1) * sizeof *after), *before = malloc(((size_t)most + 1) * sizeof *before);
    if (!after || !before) {
        free(after);
        free(before);
        return CRIA_ERR_MEMORY;
    }
    int nodes = reduction->model.nodes;
    if (nodes) memcpy(after, strategy, (size_t)nodes * sizeof *after);
    for (const cria_stage *s = reduction->stages; s; s = s->before) {
        for (int v = 0; v < s->nodes; v++) before[v] = s->into[v] < 0 ? 0 : s->table[v][after[s->into[v]]];
        for (int k = s->eliminated - 1; k >= 0; k--) {
            const cria_elimination *x = &s->elimination[k];
            int i = x->a < 0 ? 0 : before[x->a], j = x->b < 0 ? 0 : before[x->b];
            before[x->node] = x->best[i * x->strategies_b + j];
        }
        int32_t *swap = after;
        after = before;
        before = swap;
        nodes = s->nodes;
    }
    if (nodes) memcpy(problem_strategy, after, (size_t)nodes * sizeof *after);
    free(after);
    free(before);
    return CRIA_OK;
}

bool cria_reduction_project(const cria_reduction *reduction, const int32_t *problem_strategy, int32_t *strategy) {
    int stages = 0, most = reduction->model.nodes;
    for (const cria_stage *s = reduction->stages; s; s = s->before) {
        stages++;
        if (s->nodes > most) most = s->nodes;
    }
    const cria_stage **order = malloc(((size_t)stages + 1) * sizeof *order);
    int32_t *from = malloc(((size_t)most + 1) * sizeof *from), *to = malloc(((size_t)most + 1) * sizeof *to);
    bool good = order && from && to, exact = true;
    int k = stages;
    for (const cria_stage *s = reduction->stages; s && good; s = s->before) order[--k] = s;
    for (k = 0; k < stages && good; k++) {
        const cria_stage *s = order[k];
        int next = k + 1 < stages ? order[k + 1]->nodes : reduction->model.nodes;
        if (k == 0) memcpy(from, problem_strategy, (size_t)s->nodes * sizeof *from);
        memset(to, -1, ((size_t)next + 1) * sizeof *to);
        for (int v = 0; v < s->nodes && good; v++) {
            if (s->into[v] < 0) continue;
            int n = s->sizes[s->into[v]], i = to[s->into[v]] < 0 ? 0 : to[s->into[v]];
            while (i < n && s->table[v][i] != from[v]) i++;
            /* members of one node may narrow it step by step: the first strategy that suits them so far, checked below
             */
            if (i < n) to[s->into[v]] = i;
        }
        for (int v = 0; v < next; v++)
            if (to[v] < 0) to[v] = 0;
        for (int v = 0; v < s->nodes && exact; v++) exact = s->into[v] < 0 || s->table[v][to[s->into[v]]] == from[v];
        int32_t *swap = from;
        from = to;
        to = swap;
    }
    if (good && stages) memcpy(strategy, from, (size_t)reduction->model.nodes * sizeof *from);
    free(order);
    free(from);
    free(to);
    return good && exact && stages > 0;
}
