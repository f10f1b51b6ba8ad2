/* Tree moves: many nodes at once, where changing one alone would pay for every edge around it. */
#include "parallel/solve/search.h"

#include <math.h>
#include <string.h>

enum { MOST_TREE = 64 };

struct cria_tree {
    int count, most;               /* nodes in the tree; the most strategies of any node */
    int node[MOST_TREE];           /* parents before children */
    int parent[MOST_TREE];         /* index of the parent in the tree */
    const double *cost[MOST_TREE]; /* [strategies of the parent][strategies of the node] */
    int32_t was[MOST_TREE];
    int *seen;      /* [nodes]: neighbours in the tree, while growing; tree index + 1 once taken */
    int *touched;   /* [nodes] whose seen is not 0 */
    double *energy; /* [MOST_TREE][most]: of the strategies, given all that is below in the tree */
    double *weight; /* [most] */
};

cria_status cria_search_tree_create(const cria_net *net, cria_arena *arena, struct cria_tree **out) {
    struct cria_tree *t;
    CRIA_MODEL_NEW(arena, t, 1);
    t->most = 1;
    for (int v = 0; v < net->nodes; v++)
        if (net->n[v] > t->most) t->most = net->n[v];
    CRIA_MODEL_NEW(arena, t->seen, net->nodes);
    CRIA_MODEL_NEW(arena, t->touched, net->nodes);
    CRIA_MODEL_NEW(arena, t->energy, (size_t)MOST_TREE * (size_t)t->most);
    CRIA_MODEL_NEW(arena, t->weight, t->most);
    *out = t;
    return CRIA_OK;
}

/* The node's energies given everything outside of the tree: its own row of costs less what its tree edges add now. */
static void add_node(cria_search *s, int v, int parent, const double *cost, double weight) {
    struct cria_tree *t = s->tree;
    const cria_net *net = s->net;
    int n = net->n[v], at = t->count++;
    t->node[at] = v;
    t->parent[at] = parent;
    t->cost[at] = cost;
    t->was[at] = s->x[v];
    double *energy = t->energy + (size_t)at * (size_t)t->most;
    const double *local = s->local + net->at[v], *priced = s->priced + net->at[v];
    for (int i = 0; i < n; i++) energy[i] = local[i] + weight * priced[i];
    if (parent < 0) return;
    int p = t->node[parent], np = net->n[p];
    const double *row = cost + (size_t)s->x[p] * (size_t)n;
    for (int i = 0; i < n; i++) energy[i] -= row[i];
    double *above = t->energy + (size_t)parent * (size_t)t->most;
    for (int i = 0; i < np; i++) above[i] -= cost[(size_t)i * (size_t)n + (size_t)s->x[v]];
}

/* Breadth first from the root, neighbours from a random one on; a node with two neighbours in the tree stays out. */
static void grow(cria_search *s, int root, int size, double weight) {
    struct cria_tree *t = s->tree;
    const cria_net *net = s->net;
    int touched = 0;
    t->count = 0;
    add_node(s, root, -1, NULL, weight);
    t->seen[root] = 2;
    t->touched[touched++] = root;
    for (int k = 0; k < t->count && t->count < size; k++) {
        int v = t->node[k], first = net->half_at[v], degree = net->half_at[v + 1] - first;
        int start = degree ? cria_search_below(s, degree) : 0;
        /* a hub would fill the tree with its neighbours */
        int most = 2 + (k == 0 ? 2 : 0);
        for (int h = 0; h < degree && t->count < size && most > 0; h++) {
            const cria_net_half *half = &net->half[first + (start + h) % degree];
            int w = half->other;
            if (t->seen[w]) continue;
            /* any other neighbour in the tree? */
            bool alone = true;
            for (int q = net->half_at[w]; q < net->half_at[w + 1] && alone; q++)
                alone = net->half[q].other == v || !t->seen[net->half[q].other];
            if (!alone) continue;
            const cria_net_edge *edge = &net->edge[half->edge];
            add_node(s, w, k, w > v ? edge->ab : edge->ba, weight);
            t->seen[w] = 2;
            t->touched[touched++] = w;
            most--;
        }
    }
    while (touched > 0) t->seen[t->touched[--touched]] = 0;
}

/* -T log of the sum of exp(-(energy + cost) / T) over the child's strategies, for every strategy of the parent. */
static void send_up(struct cria_tree *t, int k, int n, int np, double temperature) {
    const double *energy = t->energy + (size_t)k * (size_t)t->most;
    double *above = t->energy + (size_t)t->parent[k] * (size_t)t->most;
    const double near = 16 * temperature;
    for (int i = 0; i < np; i++) {
        const double *row = t->cost[k] + (size_t)i * (size_t)n;
        double least = energy[0] + row[0], sum = 0;
        for (int j = 1; j < n; j++) least = energy[j] + row[j] < least ? energy[j] + row[j] : least;
        for (int j = 0; j < n; j++) {
            double over = energy[j] + row[j] - least;
            if (over < near) sum += over == 0 ? 1 : exp(-over / temperature);
        }
        above[i] += sum > 1 ? least - temperature * log(sum) : least;
    }
}

static int draw_strategy(cria_search *s, const double *energy, const double *row, int n, double temperature) {
    double *weight = s->tree->weight, least = INFINITY, sum = 0;
    for (int j = 0; j < n; j++) {
        weight[j] = energy[j] + (row ? row[j] : 0);
        if (weight[j] < least) least = weight[j];
    }
    for (int j = 0; j < n; j++) {
        double over = weight[j] - least;
        weight[j] = over < 16 * temperature ? exp(-over / temperature) : 0;
        sum += weight[j];
    }
    double left = cria_search_uniform(s) * sum;
    int last = 0;
    for (int j = 0; j < n; j++) {
        if (weight[j] == 0) continue;
        last = j;
        left -= weight[j];
        if (left < 0) break;
    }
    return last;
}

static bool tree_fits(const cria_search *s) {
    const cria_net *net = s->net;
    for (int k = 0; k < s->tree->count; k++) {
        int v = s->tree->node[k];
        if (s->x[v] == s->tree->was[k]) continue;
        for (int g = net->segment_at[v]; g < net->segment_at[v + 1]; g++) {
            const cria_net_segment *segment = &net->segment[g];
            if (segment->usage[s->x[v]] > segment->usage[s->tree->was[k]] &&
                !cria_search_has_room(s, segment->begin, segment->end, 0))
                return false;
        }
    }
    return true;
}

void cria_search_tree_move(cria_search *s, int root, int size, double temperature, double weight) {
    struct cria_tree *t = s->tree;
    const cria_net *net = s->net;
    grow(s, root, size < MOST_TREE ? size : MOST_TREE, weight);
    for (int k = t->count - 1; k > 0; k--)
        send_up(t, k, net->n[t->node[k]], net->n[t->node[t->parent[k]]], temperature);
    bool moved = false;
    int32_t taken[MOST_TREE];
    for (int k = 0; k < t->count; k++) {
        int v = t->node[k], n = net->n[v];
        const double *row = k ? t->cost[k] + (size_t)taken[t->parent[k]] * (size_t)n : NULL;
        taken[k] = draw_strategy(s, t->energy + (size_t)k * (size_t)t->most, row, n, temperature);
        moved = moved || taken[k] != t->was[k];
    }
    if (!moved) return;
    for (int k = 0; k < t->count; k++)
        if (taken[k] != t->was[k]) cria_search_move(s, t->node[k], taken[k]);
    if (tree_fits(s)) {
        cria_search_keep(s);
        return;
    }
    for (int k = t->count - 1; k >= 0; k--)
        if (taken[k] != t->was[k]) cria_search_move(s, t->node[k], t->was[k]);
}
