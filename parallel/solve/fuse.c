/* Fusion: the best parts of two assignments. Where they differ, the nodes fall into parts that no edge joins; each
 * part's cost does not depend on which of the two the others take (partition crossover; Whitley, Hains and Howe,
 * GECCO'09). Only memory ties them together. */
#include "parallel/solve/search.h"

#include <math.h>
#include <string.h>

enum { PULLS = 5, SWEEPS = 4 };

struct cria_fusion {
    int32_t *to;   /* [nodes]: the other strategy of every node */
    int *part;     /* [nodes]: number of the node's part + 1, 0: both take the same */
    int *member;   /* the nodes of all parts, part by part */
    int *first;    /* [parts + 1] into member */
    double *gain;  /* [parts]: cost of flipping it, */
    double *price; /* and what its memory is priced at */
};

cria_status cria_search_fusion_create(const cria_net *net, cria_arena *arena, struct cria_fusion **out) {
    struct cria_fusion *f;
    CRIA_MODEL_NEW(arena, f, 1);
    CRIA_MODEL_NEW(arena, f->to, net->nodes);
    CRIA_MODEL_NEW(arena, f->part, net->nodes);
    CRIA_MODEL_NEW(arena, f->member, net->nodes);
    CRIA_MODEL_NEW(arena, f->first, net->nodes + 1);
    CRIA_MODEL_NEW(arena, f->gain, net->nodes);
    CRIA_MODEL_NEW(arena, f->price, net->nodes);
    *out = f;
    return CRIA_OK;
}

/* Differences that cost nothing would join parts: they go first. */
static void pull(cria_search *s, const int32_t *x) {
    const cria_net *net = s->net;
    bool moved = true;
    for (int sweep = 0; sweep < PULLS && moved; sweep++) {
        moved = false;
        for (int v = 0; v < net->nodes; v++) {
            const double *local = s->local + net->at[v];
            if (s->x[v] == x[v] || local[x[v]] > local[s->x[v]] || !cria_search_may_take(s, v, x[v])) continue;
            cria_search_move(s, v, x[v]);
            moved = true;
        }
    }
}

static int find_parts(cria_search *s, const int32_t *x) {
    struct cria_fusion *f = s->fusion;
    const cria_net *net = s->net;
    int parts = 0, found = 0;
    memset(f->part, 0, (size_t)net->nodes * sizeof *f->part);
    for (int root = 0; root < net->nodes; root++) {
        f->to[root] = x[root];
        if (f->part[root] || s->x[root] == x[root]) continue;
        f->first[parts++] = found;
        f->part[root] = parts;
        f->member[found++] = root;
        for (int k = f->first[parts - 1]; k < found; k++)
            for (int h = net->half_at[f->member[k]]; h < net->half_at[f->member[k] + 1]; h++) {
                int w = net->half[h].other;
                if (f->part[w] || s->x[w] == x[w]) continue;
                f->part[w] = parts;
                f->member[found++] = w;
            }
    }
    f->first[parts] = found;
    return parts;
}

/* All of the part's nodes take their other strategies; what it costs is kept, and flipping back costs the opposite. */
static void flip(cria_search *s, int part) {
    struct cria_fusion *f = s->fusion;
    double before = s->cost, price = 0;
    for (int k = f->first[part]; k < f->first[part + 1]; k++) {
        int v = f->member[k], was = s->x[v];
        const double *priced = s->priced + s->net->at[v];
        price += priced[f->to[v]] - priced[was];
        cria_search_move(s, v, f->to[v]);
        f->to[v] = was;
    }
    f->gain[part] = before - s->cost;
    f->price[part] = -price;
}

/* Every part to the side that `weight` times the price of memory makes the cheaper; a weight below 0: to the one that
 * `x` has, or, at -2, to the other. */
static void choose_sides(cria_search *s, const int32_t *x, int parts, double weight) {
    struct cria_fusion *f = s->fusion;
    for (int k = 0; k < parts; k++) {
        int v = f->member[f->first[k]];
        bool at_x = s->x[v] == x[v];
        if (weight >= 0 ? f->gain[k] + weight * f->price[k] < 0 : (weight > -2) != at_x) flip(s, k);
    }
}

/* Parts that cost less on their other side go there, as far as there is room. */
static void improve(cria_search *s, int parts) {
    bool moved = true;
    for (int sweep = 0; sweep < SWEEPS && moved; sweep++) {
        moved = false;
        for (int k = 0; k < parts; k++) {
            if (s->fusion->gain[k] >= 0) continue;
            flip(s, k);
            if (cria_search_fits(s))
                moved = true;
            else
                flip(s, k);
        }
    }
    cria_search_keep(s);
}

void cria_search_fuse(cria_search *s, const int32_t *x) {
    static const double weights[] = {0, 0.5, 1, 2, -1, -2};
    pull(s, x);
    cria_search_keep(s);
    int parts = find_parts(s, x);
    for (int k = 0; k < parts; k++) {
        flip(s, k);
        flip(s, k);
    }
    for (int w = 0; w < 6 && parts > 0; w++) {
        choose_sides(s, x, parts, weights[w]);
        if (!cria_search_fits(s)) continue;
        improve(s, parts);
        if (weights[w] == 0) return; /* nothing is better */
    }
}
