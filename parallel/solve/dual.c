/* TRW-S passes and the ascent of the prices. */
#include "parallel/solve/dual.h"

#include <math.h>
#include <string.h>

/* Rounding: every number of a bound is made by few operations on numbers below `magnitude`, whose errors are random;
 * the sum of them all is far below this part of it. */
#define SAFETY 1e-11

/* Compiled for each width of vectors; which one, the dynamic linker asks the machine: too early for sanitizers. */
#if defined(__x86_64__) && defined(__has_attribute) && defined(__has_feature)
#if __has_attribute(target_clones) && !__has_feature(thread_sanitizer) && !__has_feature(address_sanitizer)
#define VECTORS __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef VECTORS
#define VECTORS
#endif

cria_status cria_dual_create(const cria_net *net, cria_dual *out) {
    *out = (cria_dual){.net = net, .step = 1, .best = -INFINITY, .bound = -INFINITY, .forward = -INFINITY};
    out->arena = cria_arena_create((size_t)1 << 20, 0);
    if (!out->arena) return CRIA_ERR_MEMORY;
    size_t all = net->at[net->nodes], to_a = 0, to_b = 0;
    CRIA_MODEL_NEW(out->arena, out->message_a, net->edges);
    CRIA_MODEL_NEW(out->arena, out->message_b, net->edges);
    for (int e = 0; e < net->edges; e++) {
        out->message_a[e] = to_a;
        out->message_b[e] = to_b;
        to_a += (size_t)net->n[net->edge[e].a];
        to_b += (size_t)net->n[net->edge[e].b];
    }
    CRIA_MODEL_NEW(out->arena, out->to_a, to_a);
    CRIA_MODEL_NEW(out->arena, out->to_b, to_b);
    CRIA_MODEL_NEW(out->arena, out->price, net->slices);
    CRIA_MODEL_NEW(out->arena, out->best_price, net->slices);
    CRIA_MODEL_NEW(out->arena, out->direction, net->slices);
    CRIA_MODEL_NEW(out->arena, out->over, net->slices);
    CRIA_MODEL_NEW(out->arena, out->work, net->slices + 1 + 4096);
    CRIA_MODEL_NEW(out->arena, out->unary, all);
    CRIA_MODEL_NEW(out->arena, out->belief, all);
    CRIA_MODEL_NEW(out->arena, out->x, net->nodes);
    if (all) memcpy(out->unary, net->unary, all * sizeof *out->unary);
    return CRIA_OK;
}

void cria_dual_deinit(cria_dual *dual) {
    cria_arena_destroy(dual->arena);
    dual->arena = NULL;
}

/* WIDTH columns of a min-plus product, in registers. */
#define DEFINE_COLUMNS(WIDTH)                                                                                          \
    static inline __attribute__((always_inline)) void columns_##WIDTH(const double *from, const double *cost, int ni,  \
                                                                      int nj, double *to) {                            \
        double least[WIDTH];                                                                                           \
        for (int j = 0; j < WIDTH; j++) least[j] = from[0] + cost[j];                                                  \
        for (int i = 1; i < ni; i++) {                                                                                 \
            const double f = from[i], *row = cost + (size_t)i * (size_t)nj;                                            \
            for (int j = 0; j < WIDTH; j++) least[j] = f + row[j] < least[j] ? f + row[j] : least[j];                  \
        }                                                                                                              \
        memcpy(to, least, sizeof least);                                                                               \
    }
DEFINE_COLUMNS(16)
DEFINE_COLUMNS(8)
DEFINE_COLUMNS(4)
DEFINE_COLUMNS(1)

/* to[j] = min over i of from[i] + cost[i][j], its least taken out and returned. The last columns of a row are done with
 * some that are done already, rather than one by one. Sums and minima are the same numbers whatever the vectors. */
VECTORS static double send(const double *from, const double *cost, int ni, int nj, double *to) {
    int j = 0;
    for (; j + 16 <= nj; j += 16) columns_16(from, cost + j, ni, nj, to + j);
    for (; j + 8 <= nj; j += 8) columns_8(from, cost + j, ni, nj, to + j);
    if (j < nj && nj >= 8 && nj - j > 4) {
        columns_8(from, cost + nj - 8, ni, nj, to + nj - 8);
        j = nj;
    }
    if (j < nj && nj >= 4) {
        if (j + 4 <= nj) columns_4(from, cost + j, ni, nj, to + j);
        columns_4(from, cost + nj - 4, ni, nj, to + nj - 4);
        j = nj;
    }
    for (; j < nj; j++) columns_1(from, cost + j, ni, nj, to + j);
    double least = to[0];
    for (j = 1; j < nj; j++) least = to[j] < least ? to[j] : least;
    for (j = 0; j < nj; j++) to[j] -= least;
    return least;
}

/* The node's cost with everything its edges tell it; the least is taken out and returned. */
static double gather(const cria_dual *d, int v, double *belief) {
    const cria_net *net = d->net;
    int n = net->n[v];
    memcpy(belief, d->unary + net->at[v], (size_t)n * sizeof *belief);
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
        int e = net->half[h].edge;
        const double *m = net->half[h].other < v ? d->to_b + d->message_b[e] : d->to_a + d->message_a[e];
        for (int i = 0; i < n; i++) belief[i] += m[i];
    }
    double least = belief[0];
    for (int i = 1; i < n; i++) least = belief[i] < least ? belief[i] : least;
    for (int i = 0; i < n; i++) belief[i] -= least;
    return least;
}

/* Sends to the neighbours after v (or before it), each the same share of the belief less what it told v. */
static double distribute(cria_dual *d, int v, const double *belief, bool ahead) {
    const cria_net *net = d->net;
    int n = net->n[v], before = 0, after = 0;
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) *(net->half[h].other < v ? &before : &after) += 1;
    double share = 1.0 / (before > after ? before : after), sum = 0;
    double stack[256], *from = n <= 256 ? stack : d->work + d->net->slices + 1;
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
        const cria_net_half *half = &net->half[h];
        if ((half->other > v) != ahead) continue;
        const cria_net_edge *edge = &net->edge[half->edge];
        double *mine = half->other < v ? d->to_b + d->message_b[half->edge] : d->to_a + d->message_a[half->edge];
        double *its = half->other < v ? d->to_a + d->message_a[half->edge] : d->to_b + d->message_b[half->edge];
        for (int i = 0; i < n; i++) from[i] = share * belief[i] - mine[i];
        sum += send(from, half->other < v ? edge->ba : edge->ab, n, net->n[half->other], its);
    }
    return sum;
}

/* The best strategy of v given those already chosen before it and what the later ones say. */
static int choose(const cria_dual *d, int v, double *value) {
    const cria_net *net = d->net;
    int n = net->n[v], best = 0;
    memcpy(value, d->unary + net->at[v], (size_t)n * sizeof *value);
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
        const cria_net_half *half = &net->half[h];
        const double *add =
            half->other < v ? half->cost + (size_t)d->x[half->other] * (size_t)n : d->to_a + d->message_a[half->edge];
        for (int i = 0; i < n; i++) value[i] += add[i];
    }
    for (int i = 1; i < n; i++)
        if (value[i] < value[best]) best = i;
    return best;
}

void cria_dual_pass(cria_dual *d) {
    const cria_net *net = d->net;
    double sum = net->constant;
    for (int t = 0; t < net->slices; t++) sum -= d->price[t] * net->room[t];
    double forward = sum, backward = sum;
    for (int v = 0; v < net->nodes; v++) {
        double *belief = d->belief + net->at[v];
        d->x[v] = choose(d, v, belief);
        forward += gather(d, v, belief);
        forward += distribute(d, v, belief, true);
    }
    for (int v = net->nodes - 1; v >= 0; v--) {
        double *belief = d->belief + net->at[v];
        backward += gather(d, v, belief);
        backward += distribute(d, v, belief, false);
    }
    d->forward = forward;
    d->bound = backward;
    d->worst = cria_net_usage(net, d->x, d->over);
    double proven = backward - SAFETY * net->magnitude;
    if (proven > d->best) {
        /* what does not matter does not count as progress */
        d->since_better = proven > d->best + 1e-5 * fabs(proven) / 100 ? 0 : d->since_better + 1;
        d->best = proven;
        if (net->slices) memcpy(d->best_price, d->price, (size_t)net->slices * sizeof *d->price);
    } else {
        d->since_better++;
    }
    d->rounds++;
}

void cria_dual_price(cria_dual *d) {
    cria_net_price(d->net, d->price, d->work, d->unary);
    for (size_t i = 0; i < d->net->at[d->net->nodes]; i++) d->unary[i] += d->net->unary[i];
}

void cria_dual_climb(cria_dual *d, double target) {
    const cria_net *net = d->net;
    double length = 0;
    for (int t = 0; t < net->slices; t++) {
        double g = d->over[t];
        if (d->price[t] <= 0 && g < 0 && d->direction[t] <= 0) {
            d->direction[t] = 0;
            continue;
        }
        d->direction[t] = 0.3 * g + 0.7 * d->direction[t];
        length += d->direction[t] * d->direction[t];
    }
    if (d->since_better >= 20) {
        d->step *= 0.7;
        d->since_better = 0;
        if (net->slices && d->step < 0.3) memcpy(d->price, d->best_price, (size_t)net->slices * sizeof *d->price);
    }
    double gap = target - d->bound;
    if (gap < 1e-6 * fabs(target)) gap = 1e-6 * fabs(target) + 1e-9;
    if (length <= 0) return;
    double step = d->step * gap / length;
    for (int t = 0; t < net->slices; t++) {
        d->price[t] += step * d->direction[t];
        if (d->price[t] < 0) d->price[t] = 0;
    }
    cria_dual_price(d);
}
