/* Windows: a connected group of nodes is laid out as a net of its own, given the rest and the memory that the rest
 * leaves, and solved by message passing and branch and bound. */
#include "parallel/solve/exact.h"
#include "parallel/solve/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WINDOW = 512, MOST_SEGMENTS = 4096, MOST_BRANCHES = 4, PASSES = 30, STEPS = 1000, AFTER_KICK = 2 };
/* In the units of a pass, which is 4 for every pair of strategies. */
enum { WORK_PER_NODE = 1000, WORK_PER_STEP = 1000 };

struct cria_window {
    int count, segments;
    double entries; /* of the edges inside */
    int node[MOST_WINDOW];
    int32_t x[MOST_WINDOW];
    int32_t *was; /* [nodes]: before a kick */
    int *place;   /* [nodes]: 1 + its place in `node`, 0: outside */
    int *point;   /* [2 * MOST_SEGMENTS]: where segments of the window begin and end, ascending */
    int points;
    cria_arena *arena; /* of the net, reset for each window */
};

cria_status cria_search_window_create(const cria_net *net, cria_arena *arena, struct cria_window **out) {
    CRIA_MODEL_NEW(arena, *out, 1);
    CRIA_MODEL_NEW(arena, (*out)->was, net->nodes);
    CRIA_MODEL_NEW(arena, (*out)->place, net->nodes);
    CRIA_MODEL_NEW(arena, (*out)->point, 2 * MOST_SEGMENTS);
    (*out)->arena = cria_arena_create((size_t)1 << 18, 0);
    return (*out)->arena ? CRIA_OK : CRIA_ERR_MEMORY;
}

void cria_search_window_destroy(struct cria_window *window) {
    if (window) cria_arena_destroy(window->arena);
}

static bool add_node(cria_search *s, int v, double most) {
    struct cria_window *w = s->window;
    const cria_net *net = s->net;
    int segments = net->segment_at[v + 1] - net->segment_at[v];
    double entries = 0;
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++)
        if (w->place[net->half[h].other]) entries += (double)net->n[v] * net->n[net->half[h].other];
    if (w->count == MOST_WINDOW || w->segments + segments > MOST_SEGMENTS || w->entries + entries > most) return false;
    w->node[w->count++] = v;
    w->place[v] = w->count;
    w->segments += segments;
    w->entries += entries;
    return true;
}

/* Breadth first, neighbours from a random one on; a hub does not bring all of its own. */
static void grow(cria_search *s, int root, double most) {
    struct cria_window *w = s->window;
    const cria_net *net = s->net;
    w->count = w->segments = 0;
    w->entries = 0;
    if (!add_node(s, root, most)) return;
    for (int k = 0; k < w->count && w->count < MOST_WINDOW; k++) {
        int v = w->node[k], first = net->half_at[v], degree = net->half_at[v + 1] - first;
        int start = degree ? cria_search_below(s, degree) : 0, left = MOST_BRANCHES;
        for (int h = 0; h < degree && left > 0; h++) {
            int other = net->half[first + (start + h) % degree].other;
            if (!w->place[other] && add_node(s, other, most)) left--;
        }
    }
}

static int compare_ints(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* In ascending order, which is that of the model's times for most: messages go along it. */
static void sort_nodes(struct cria_window *w) {
    qsort(w->node, (size_t)w->count, sizeof *w->node, compare_ints);
    for (int k = 0; k < w->count; k++) w->place[w->node[k]] = k + 1;
}

static cria_status lay_nodes(const cria_search *s, cria_net *out) {
    const struct cria_window *w = s->window;
    const cria_net *net = s->net;
    int *n, *half_at, halves = 0;
    size_t *at;
    CRIA_MODEL_NEW(out->arena, n, w->count);
    CRIA_MODEL_NEW(out->arena, at, w->count + 1);
    CRIA_MODEL_NEW(out->arena, half_at, w->count + 1);
    for (int k = 0; k < w->count; k++) {
        int v = w->node[k];
        n[k] = net->n[v];
        at[k + 1] = at[k] + (size_t)n[k];
        for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) halves += w->place[net->half[h].other] > 0;
        half_at[k + 1] = halves;
    }
    out->n = n;
    out->at = at;
    out->half_at = half_at;
    CRIA_MODEL_NEW(out->arena, out->unary, at[w->count]);
    CRIA_MODEL_NEW(out->arena, out->half, halves);
    CRIA_MODEL_NEW(out->arena, out->edge, halves / 2);
    return CRIA_OK;
}

/* The cost of every strategy given what is outside: its own row of costs less what the edges inside add now. */
static cria_status lay_edges(cria_search *s, double noise, cria_net *out) {
    const struct cria_window *w = s->window;
    const cria_net *net = s->net;
    int *filled;
    CRIA_MODEL_NEW(out->arena, filled, w->count);
    for (int k = 0; k < w->count; k++) {
        int v = w->node[k];
        double *unary = out->unary + out->at[k];
        memcpy(unary, s->local + net->at[v], (size_t)net->n[v] * sizeof *unary);
        for (int i = 0; noise > 0 && i < net->n[v]; i++) unary[i] -= noise * log(-log(cria_search_uniform(s)));
        for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
            const cria_net_half *half = &net->half[h];
            int other = w->place[half->other] - 1;
            if (other < 0) continue;
            const double *row = half->cost + (size_t)s->x[half->other] * (size_t)net->n[v];
            for (int i = 0; i < net->n[v]; i++) unary[i] -= row[i];
            if (other < k) continue;
            const cria_net_edge *edge = &net->edge[half->edge];
            out->edge[out->edges] = (cria_net_edge){k, other, edge->ab, edge->ba};
            out->half[out->half_at[k] + filled[k]++] = (cria_net_half){out->edges, other, edge->ba};
            out->half[out->half_at[other] + filled[other]++] = (cria_net_half){out->edges, k, edge->ab};
            out->entries += (size_t)net->n[v] * (size_t)net->n[half->other];
            out->edges++;
        }
    }
    return CRIA_OK;
}

static void find_points(const cria_search *s) {
    struct cria_window *w = s->window;
    const cria_net *net = s->net;
    int count = 0;
    for (int k = 0; k < w->count; k++)
        for (int g = net->segment_at[w->node[k]]; g < net->segment_at[w->node[k] + 1]; g++) {
            w->point[count++] = net->segment[g].begin;
            w->point[count++] = net->segment[g].end;
        }
    qsort(w->point, (size_t)count, sizeof *w->point, compare_ints);
    w->points = 0;
    for (int k = 0; k < count; k++)
        if (k == 0 || w->point[k] != w->point[k - 1]) w->point[w->points++] = w->point[k];
}

static int point_of(const struct cria_window *w, int t) {
    const int *found = bsearch(&t, w->point, (size_t)w->points, sizeof *w->point, compare_ints);
    return (int)(found - w->point);
}

/* Slices are the times between two points, with the room that the rest leaves in the tightest of them; those in which
 * even the most that the window can use has room are left out: number[point] counts those before it. */
static cria_status find_slices(const cria_search *s, cria_net *out, int *number) {
    const struct cria_window *w = s->window;
    const cria_net *net = s->net;
    double *now, *most;
    CRIA_MODEL_NEW(out->arena, now, w->points);
    CRIA_MODEL_NEW(out->arena, most, w->points);
    CRIA_MODEL_NEW(out->arena, out->room, w->points);
    for (int k = 0; k < w->count; k++)
        for (int g = net->segment_at[w->node[k]]; g < net->segment_at[w->node[k] + 1]; g++) {
            const cria_net_segment *segment = &net->segment[g];
            int begin = point_of(w, segment->begin), end = point_of(w, segment->end);
            double largest = 0;
            for (int i = 0; i < out->n[k]; i++) largest = fmax(largest, segment->usage[i]);
            now[begin] += segment->usage[s->x[w->node[k]]];
            now[end] -= segment->usage[s->x[w->node[k]]];
            most[begin] += largest;
            most[end] -= largest;
        }
    for (int p = 0; p + 1 < w->points; p++) {
        number[p] = out->slices;
        if (p > 0) {
            now[p] += now[p - 1];
            most[p] += most[p - 1];
        }
        double room = now[p] - cria_search_most_over(s, w->point[p], w->point[p + 1]);
        if (most[p] > room) out->room[out->slices++] = room;
    }
    if (w->points) number[w->points - 1] = out->slices;
    return CRIA_OK;
}

static cria_status lay_segments(const cria_search *s, cria_net *out, const int *number) {
    const struct cria_window *w = s->window;
    const cria_net *net = s->net;
    int *segment_at, count = 0;
    CRIA_MODEL_NEW(out->arena, segment_at, w->count + 1);
    CRIA_MODEL_NEW(out->arena, out->segment, w->segments);
    for (int k = 0; k < w->count; k++) {
        for (int g = net->segment_at[w->node[k]]; g < net->segment_at[w->node[k] + 1]; g++) {
            const cria_net_segment *from = &net->segment[g];
            int begin = number[point_of(w, from->begin)], end = number[point_of(w, from->end)];
            if (begin < end) out->segment[count++] = (cria_net_segment){begin, end, from->usage};
        }
        segment_at[k + 1] = count;
    }
    out->segment_at = segment_at;
    return CRIA_OK;
}

static cria_status lay(cria_search *s, double noise, cria_net *out) {
    const struct cria_window *w = s->window;
    *out = (cria_net){.nodes = w->count, .forbidden = s->net->forbidden, .arena = w->arena};
    int *number;
    CRIA_TRY(lay_nodes(s, out));
    CRIA_TRY(lay_edges(s, noise, out));
    find_points(s);
    CRIA_MODEL_NEW(out->arena, number, w->points);
    CRIA_TRY(find_slices(s, out, number));
    return lay_segments(s, out, number);
}

/* The bound climbs until nothing better can be had, or for some passes; then it branches. What costs less by no more
 * than `least` counts as no better. Returns what that took. */
static double solve(const cria_net *net, int32_t *x, const cria_until *until, bool *found) {
    cria_dual d;
    bool complete = false, better = false;
    double best = cria_net_cost(net, x), least = fmax(1, net->magnitude * 3e-11), work = 0;
    cria_status status = cria_dual_create(net, &d);
    for (int pass = 0; pass < PASSES && status == CRIA_OK && !complete && !cria_until_over(until); pass++) {
        if (pass > 0 && net->slices) cria_dual_climb(&d, best);
        cria_dual_pass(&d);
        work += 4.0 * (double)net->entries;
        complete = d.bound > best - least;
        double cost = d.worst <= 0 ? cria_net_cost(net, d.x) : INFINITY;
        if (cost > best - least || cost >= net->forbidden) continue;
        best = cost;
        memcpy(x, d.x, (size_t)net->nodes * sizeof *x);
        *found = true;
    }
    if (status == CRIA_OK && !complete && !cria_until_over(until)) {
        best -= least - 1;
        cria_exact_search(&d, &best, x, STEPS, until, &better, &complete);
        work += 8.0 * (double)net->entries + (double)WORK_PER_STEP * STEPS;
    }
    *found = *found || better;
    cria_dual_deinit(&d);
    return work;
}

/* What rounding is measured by: what is chosen now, as nothing dearer matters. */
static double magnitude(const cria_net *net, const int32_t *x) {
    double sum = 1;
    for (int k = 0; k < net->nodes; k++) sum += fabs(net->unary[net->at[k] + (size_t)x[k]]);
    for (int e = 0; e < net->edges; e++)
        sum += fabs(net->edge[e].ab[x[net->edge[e].a] * net->n[net->edge[e].b] + x[net->edge[e].b]]);
    return 8 * sum;
}

/* The nodes that the window has; leaves none marked. */
static bool solve_window(cria_search *s, double noise, const cria_until *until, double *work) {
    struct cria_window *w = s->window;
    cria_net net;
    bool found = false;
    cria_arena_reset(w->arena);
    sort_nodes(w);
    cria_status status = lay(s, noise, &net);
    for (int k = 0; k < w->count; k++) {
        w->place[w->node[k]] = 0;
        w->x[k] = s->x[w->node[k]];
    }
    if (status == CRIA_OK) net.magnitude = magnitude(&net, w->x);
    *work += WORK_PER_NODE * (double)(w->count + 1) + 4 * w->entries;
    if (status == CRIA_OK && w->count > 0) *work += solve(&net, w->x, until, &found);
    if (!found) return false; /* out of memory: as if there were nothing better */
    for (int k = 0; k < w->count; k++)
        if (w->x[k] != s->x[w->node[k]]) cria_search_move(s, w->node[k], w->x[k]);
    cria_search_keep(s);
    return true;
}

bool cria_search_window(cria_search *s, int root, double most, double noise, const cria_until *until, double *work) {
    grow(s, root, most);
    return solve_window(s, noise, until, work);
}

bool cria_search_window_of(cria_search *s, const int *node, int count, const cria_until *until, double *work) {
    s->window->count = s->window->segments = 0;
    s->window->entries = 0;
    for (int k = 0; k < count; k++) add_node(s, node[k], INFINITY);
    return solve_window(s, 0, until, work);
}

void cria_search_kick(cria_search *s, int root, double most, double noise, const cria_until *until, double *work) {
    struct cria_window *w = s->window;
    double before = s->cost;
    memcpy(w->was, s->x, (size_t)s->net->nodes * sizeof *w->was);
    if (!cria_search_window(s, root, most, noise, until, work)) return;
    for (int k = 0; k < AFTER_KICK; k++) cria_search_window(s, root, 2 * most, 0, until, work);
    if (s->cost <= before) return;
    for (int v = 0; v < s->net->nodes; v++)
        if (s->x[v] != w->was[v]) cria_search_move(s, v, w->was[v]);
}
