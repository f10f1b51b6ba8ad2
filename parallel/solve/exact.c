/* Branch and bound over the reparametrised costs of the last backward pass. */
#include "parallel/solve/exact.h"

#include <math.h>
#include <string.h>

/* After a backward pass the bound is the sum of the least of every node, and every edge is at least 0: an assigned
 * prefix adds its edges to the nodes to come, whose least then bounds them. */
typedef struct {
    const cria_net *net;
    double *open;  /* [at[nodes]]: what is left of a strategy's cost given the assigned nodes */
    double **edge; /* [edges][n of a][n of b] */
    double *least; /* [nodes]: least of open */
    double *saved; /* stack of open and least */
    size_t saved_used, saved_room;
    int *order, *position; /* order[depth..): unassigned nodes */
    int32_t *x, *best_x;
    double *used; /* [slices] by the assigned */
    double *over;
    double sum, slack, best;
    int64_t steps, most_steps;
    bool found, stopped;
    const cria_until *until;
} tree;

typedef struct {
    int node, tried;
    double sum;
    size_t saved;
    bool placed;
} level;

static cria_status reparametrise(const cria_dual *d, cria_arena *arena, tree *t) {
    const cria_net *net = d->net;
    for (int v = 0; v < net->nodes; v++) {
        int before = 0, after = 0;
        for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) *(net->half[h].other < v ? &before : &after) += 1;
        int most = before > after ? before : after;
        double share = most ? 1.0 / most : 0;
        for (int i = 0; i < net->n[v]; i++) {
            size_t at = net->at[v] + (size_t)i;
            t->open[at] = (1 - before * share) * d->belief[at];
            if (t->open[at] < 0) t->open[at] = 0;
        }
        for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
            int e = net->half[h].edge, r = net->half[h].other;
            if (r > v) continue;
            const double *to_b = d->to_b + d->message_b[e], *to_a = d->to_a + d->message_a[e];
            int na = net->n[r], nb = net->n[v];
            double least = INFINITY;
            CRIA_MODEL_NEW(arena, t->edge[e], na * nb);
            for (int i = 0; i < na; i++)
                for (int j = 0; j < nb; j++) {
                    double c =
                        net->edge[e].ab[i * nb + j] + share * d->belief[net->at[v] + (size_t)j] - to_b[j] - to_a[i];
                    t->edge[e][i * nb + j] = c;
                    if (c < least) least = c;
                }
            for (int i = 0; i < na * nb; i++) t->edge[e][i] -= least;
        }
    }
    return CRIA_OK;
}

static double least_of(const double *values, int n) {
    double least = values[0];
    for (int i = 1; i < n; i++) least = values[i] < least ? values[i] : least;
    return least;
}

/* The unassigned node with the fewest strategies that the bound leaves. */
static int pick(const tree *t, int depth) {
    int picked = depth, fewest = -1;
    for (int k = depth; k < t->net->nodes; k++) {
        int v = t->order[k], count = 0;
        const double *open = t->open + t->net->at[v];
        double most = t->best - 1 + t->slack - t->sum + t->least[v];
        for (int i = 0; i < t->net->n[v]; i++) count += open[i] <= most;
        if (fewest < 0 || count < fewest) {
            fewest = count;
            picked = k;
        }
        if (count <= 1) break;
    }
    return picked;
}

static bool use(tree *t, int v, int i, double sign) {
    bool good = true;
    for (int k = t->net->segment_at[v]; k < t->net->segment_at[v + 1]; k++) {
        const cria_net_segment *g = &t->net->segment[k];
        double u = sign * g->usage[i];
        if (u == 0) continue;
        for (int s = g->begin; s < g->end; s++) {
            t->used[s] += u;
            good = good && t->used[s] <= t->net->room[s];
        }
    }
    return good;
}

/* Assigns, and tells the unassigned neighbours; what changes is saved. */
static void place(tree *t, level *l, int i) {
    const cria_net *net = t->net;
    int v = l->node;
    t->x[v] = i;
    t->sum += t->open[net->at[v] + (size_t)i] - t->least[v];
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
        int w = net->half[h].other, n = net->n[w], e = net->half[h].edge;
        if (t->x[w] >= 0) continue;
        double *open = t->open + net->at[w];
        memcpy(t->saved + t->saved_used, open, (size_t)n * sizeof *open);
        t->saved_used += (size_t)n;
        t->saved[t->saved_used++] = t->least[w];
        for (int k = 0; k < n; k++) open[k] += w > v ? t->edge[e][i * n + k] : t->edge[e][k * net->n[v] + i];
        double least = least_of(open, n);
        t->sum += least - t->least[w];
        t->least[w] = least;
    }
}

static void take_back(tree *t, level *l) {
    const cria_net *net = t->net;
    int v = l->node;
    use(t, v, t->x[v], -1);
    t->x[v] = -1;
    size_t at = l->saved;
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
        int w = net->half[h].other, n = net->n[w];
        if (t->x[w] >= 0) continue;
        memcpy(t->open + net->at[w], t->saved + at, (size_t)n * sizeof *t->open);
        at += (size_t)n;
        t->least[w] = t->saved[at++];
    }
    t->saved_used = l->saved;
    t->sum = l->sum;
    l->placed = false;
}

/* The next strategy of the level in ascending order of cost, or -1. Equal costs go by number. */
static int next_strategy(const tree *t, const level *l, const bool *tried) {
    const double *open = t->open + t->net->at[l->node];
    int best = -1;
    for (int i = 0; i < t->net->n[l->node]; i++)
        if (!tried[i] && (best < 0 || open[i] < open[best])) best = i;
    if (best < 0 || l->sum + open[best] - t->least[l->node] - t->slack > t->best - 1) return -1;
    return best;
}

static void take_leaf(tree *t) {
    double cost = cria_net_cost(t->net, t->x);
    if (cost >= t->best || cost >= t->net->constant + t->net->forbidden) return;
    if (t->net->slices && cria_net_usage(t->net, t->x, t->over) > 0) return;
    t->best = cost;
    memcpy(t->best_x, t->x, (size_t)t->net->nodes * sizeof *t->x);
    t->found = true;
}

static void run(tree *t, level *levels, bool *tried) {
    const cria_net *net = t->net;
    int depth = 0;
    bool enter = true;
    while (depth >= 0) {
        level *l = &levels[depth];
        if (enter && depth == net->nodes) {
            take_leaf(t);
            depth--;
            enter = false;
            continue;
        }
        if (enter) {
            int k = pick(t, depth), v = t->order[k];
            t->order[k] = t->order[depth];
            t->order[depth] = v;
            *l = (level){.node = v, .sum = t->sum, .saved = t->saved_used};
            memset(tried + net->at[v], 0, (size_t)net->n[v]);
        } else if (l->placed) {
            take_back(t, l);
        }
        int i = t->stopped ? -1 : next_strategy(t, l, tried + net->at[l->node]);
        if (i < 0) {
            depth--;
            enter = false;
            continue;
        }
        tried[net->at[l->node] + (size_t)i] = true;
        t->stopped = ++t->steps > t->most_steps || (t->steps % 1024 == 0 && cria_until_over(t->until));
        bool good = use(t, l->node, i, 1);
        place(t, l, i);
        l->placed = true;
        enter = good && t->sum - t->slack <= t->best - 1;
        if (enter) depth++;
    }
}

static cria_status prepare(const cria_dual *d, cria_arena *arena, tree *t, level **levels, bool **tried) {
    const cria_net *net = d->net;
    size_t room = 1;
    for (int v = 0; v < net->nodes; v++)
        room += ((size_t)net->n[v] + 1) * (size_t)(net->half_at[v + 1] - net->half_at[v]);
    CRIA_MODEL_NEW(arena, t->open, net->at[net->nodes]);
    CRIA_MODEL_NEW(arena, t->edge, net->edges);
    CRIA_MODEL_NEW(arena, t->least, net->nodes);
    CRIA_MODEL_NEW(arena, t->saved, room);
    CRIA_MODEL_NEW(arena, t->order, net->nodes);
    CRIA_MODEL_NEW(arena, t->x, net->nodes);
    CRIA_MODEL_NEW(arena, t->used, net->slices);
    CRIA_MODEL_NEW(arena, t->over, net->slices);
    CRIA_MODEL_NEW(arena, *levels, net->nodes + 1);
    CRIA_MODEL_NEW(arena, *tried, net->at[net->nodes]);
    cria_status status = reparametrise(d, arena, t);
    if (status != CRIA_OK) return status;
    for (int v = 0; v < net->nodes; v++) {
        t->order[v] = v;
        t->x[v] = -1;
        t->least[v] = least_of(t->open + net->at[v], net->n[v]);
    }
    return CRIA_OK;
}

cria_status cria_exact_search(const cria_dual *d, double *best, int32_t *x, int64_t most_steps, const cria_until *until,
                              bool *found, bool *complete) {
    cria_arena *arena = cria_arena_create((size_t)1 << 16, 0);
    if (!arena) return CRIA_ERR_MEMORY;
    tree t = {.net = d->net,
              .best = *best,
              .best_x = x,
              .sum = d->bound,
              .slack = d->net->magnitude * 1e-11 + 1e-6,
              .most_steps = most_steps,
              .until = until};
    level *levels;
    bool *tried;
    cria_status status = prepare(d, arena, &t, &levels, &tried);
    if (status == CRIA_OK) {
        run(&t, levels, tried);
        *best = t.best;
        *found = t.found;
        *complete = !t.stopped;
    }
    cria_arena_destroy(arena);
    return status;
}
