/* Repair, moves with incremental evaluation, and simulated annealing. */
#include "parallel/solve/search.h"

#include <math.h>
#include <string.h>

/* Trees of about 6 nodes, one in 30 proposals: of the sizes and shares tried on the contest's S and M, the best. */
enum { BLOCK = 64, MOST_FOLLOWERS = 64, TREE_EVERY = 30, MOST_TREE_NODES = 11 };

/* Once a run has cooled, windows take WINDOWS times the work of the proposals. A window has LEAST_WINDOW to MOST_WINDOW
 * pairs of strategies. */
#define WINDOWS 20.0
#define LEAST_WINDOW 3e3
#define MOST_WINDOW 1.5e5
#define WORK_PER_PROPOSAL 150.0

/* splitmix64 (Steele et al., OOPSLA'14): one multiplication chain per number, unlike the counter-based Philox. */
static uint64_t draw(cria_search *s) {
    uint64_t z = s->seed + ++s->drawn * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

int cria_search_below(cria_search *s, int n) {
    return (int)(((draw(s) >> 32) * (uint64_t)n) >> 32);
}

double cria_search_uniform(cria_search *s) {
    return ((double)(draw(s) >> 11) + 0.5) * 0x1p-53;
}

cria_status cria_search_create(const cria_net *net, uint64_t seed, cria_search *out) {
    *out = (cria_search){.net = net, .seed = seed * UINT64_C(0xD1342543DE82EF95) + 1, .best_cost = INFINITY};
    out->arena = cria_arena_create((size_t)1 << 16, 0);
    if (!out->arena) return CRIA_ERR_MEMORY;
    size_t all = net->at[net->nodes];
    int blocks = net->slices / BLOCK + 1;
    CRIA_MODEL_NEW(out->arena, out->x, net->nodes);
    CRIA_MODEL_NEW(out->arena, out->best, net->nodes);
    CRIA_MODEL_NEW(out->arena, out->local, all);
    CRIA_MODEL_NEW(out->arena, out->price, net->slices);
    CRIA_MODEL_NEW(out->arena, out->priced, all);
    CRIA_MODEL_NEW(out->arena, out->over, net->slices);
    CRIA_MODEL_NEW(out->arena, out->block_most, blocks);
    CRIA_MODEL_NEW(out->arena, out->block_lift, blocks);
    CRIA_MODEL_NEW(out->arena, out->work, net->slices + 1);
    CRIA_TRY(cria_search_tree_create(net, out->arena, &out->tree));
    CRIA_TRY(cria_search_fusion_create(net, out->arena, &out->fusion));
    CRIA_TRY(cria_search_window_create(net, out->arena, &out->window));
    CRIA_MODEL_NEW(out->arena, out->undo_node, MOST_FOLLOWERS + 1);
    CRIA_MODEL_NEW(out->arena, out->undo_strategy, MOST_FOLLOWERS + 1);
    return CRIA_OK;
}

void cria_search_deinit(cria_search *search) {
    cria_search_window_destroy(search->window);
    cria_arena_destroy(search->arena);
    search->arena = NULL;
}

static double most_of(const double *over, int begin, int end) {
    double most = -INFINITY;
    for (int t = begin; t < end; t++) most = over[t] > most ? over[t] : most;
    return most;
}

static void lift(cria_search *s, int begin, int end, double by) {
    for (int b = begin / BLOCK; b * BLOCK < end; b++) {
        int first = b * BLOCK, last = first + BLOCK < s->net->slices ? first + BLOCK : s->net->slices;
        if (begin <= first && last <= end) {
            s->block_lift[b] += by;
            s->block_most[b] += by;
            continue;
        }
        for (int t = begin > first ? begin : first; t < (end < last ? end : last); t++) s->over[t] += by;
        s->block_most[b] = most_of(s->over, first, last) + s->block_lift[b];
    }
}

bool cria_search_has_room(const cria_search *s, int begin, int end, double more) {
    for (int b = begin / BLOCK; b * BLOCK < end; b++) {
        int first = b * BLOCK, last = first + BLOCK < s->net->slices ? first + BLOCK : s->net->slices;
        if (s->block_most[b] + more <= 0) continue;
        if (begin <= first && last <= end) return false;
        if (most_of(s->over, begin > first ? begin : first, end < last ? end : last) + s->block_lift[b] + more > 0)
            return false;
    }
    return true;
}

double cria_search_most_over(const cria_search *s, int begin, int end) {
    double most = -INFINITY;
    for (int b = begin / BLOCK; b * BLOCK < end; b++) {
        int first = b * BLOCK, last = first + BLOCK < s->net->slices ? first + BLOCK : s->net->slices;
        bool whole = begin <= first && last <= end;
        double here = whole
                          ? s->block_most[b]
                          : most_of(s->over, begin > first ? begin : first, end < last ? end : last) + s->block_lift[b];
        most = here > most ? here : most;
    }
    return most;
}

bool cria_search_may_take(const cria_search *s, int v, int j) {
    const cria_net *net = s->net;
    for (int k = net->segment_at[v]; k < net->segment_at[v + 1]; k++) {
        const cria_net_segment *g = &net->segment[k];
        double more = g->usage[j] - g->usage[s->x[v]];
        if (more > 0 && !cria_search_has_room(s, g->begin, g->end, more)) return false;
    }
    return true;
}

void cria_search_move(cria_search *s, int v, int j) {
    const cria_net *net = s->net;
    int from = s->x[v];
    s->cost += s->local[net->at[v] + (size_t)j] - s->local[net->at[v] + (size_t)from];
    s->x[v] = j;
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
        int w = net->half[h].other, n = net->n[w];
        const cria_net_edge *edge = &net->edge[net->half[h].edge];
        const double *cost = w > v ? edge->ab : edge->ba;
        const double *to = cost + (size_t)j * (size_t)n, *was = cost + (size_t)from * (size_t)n;
        double *local = s->local + net->at[w];
        for (int i = 0; i < n; i++) local[i] += to[i] - was[i];
    }
    for (int k = net->segment_at[v]; k < net->segment_at[v + 1]; k++) {
        const cria_net_segment *g = &net->segment[k];
        double more = g->usage[j] - g->usage[from];
        if (more != 0) lift(s, g->begin, g->end, more);
    }
}

static double worst_over(const cria_search *s) {
    if (s->net->slices == 0) return 0;
    double most = -INFINITY;
    for (int b = 0; b * BLOCK < s->net->slices; b++) most = s->block_most[b] > most ? s->block_most[b] : most;
    return most;
}

bool cria_search_fits(const cria_search *s) {
    return worst_over(s) <= 0;
}

void cria_search_price(cria_search *s, const double *price) {
    if (s->net->slices) memcpy(s->price, price, (size_t)s->net->slices * sizeof *price);
    cria_net_price(s->net, s->price, s->work, s->priced);
}

void cria_search_set(cria_search *s, const int32_t *x, const double *price) {
    const cria_net *net = s->net;
    if (net->nodes) memmove(s->x, x, (size_t)net->nodes * sizeof *x);
    s->cost = cria_net_cost(net, x);
    for (int v = 0; v < net->nodes; v++) {
        double *local = s->local + net->at[v];
        memcpy(local, net->unary + net->at[v], (size_t)net->n[v] * sizeof *local);
        for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
            const double *row = net->half[h].cost + (size_t)s->x[net->half[h].other] * (size_t)net->n[v];
            for (int i = 0; i < net->n[v]; i++) local[i] += row[i];
        }
    }
    cria_net_usage(net, s->x, s->over);
    for (int b = 0; b * BLOCK < net->slices; b++) {
        s->block_lift[b] = 0;
        s->block_most[b] =
            most_of(s->over, b * BLOCK, b * BLOCK + BLOCK < net->slices ? b * BLOCK + BLOCK : net->slices);
    }
    cria_search_price(s, price);
}

void cria_search_keep(cria_search *s) {
    if (s->cost >= s->best_cost || s->cost >= s->net->constant + s->net->forbidden) return;
    s->best_cost = s->cost;
    memcpy(s->best, s->x, (size_t)s->net->nodes * sizeof *s->best);
}

/* Every node in turn takes its best strategy at `weight` times the prices; `hard`: only where it fits. */
static bool descend(cria_search *s, double weight, bool hard) {
    const cria_net *net = s->net;
    bool moved = false;
    int start = net->nodes ? cria_search_below(s, net->nodes) : 0;
    for (int step = 0; step < net->nodes; step++) {
        int v = (start + step) % net->nodes, to = s->x[v];
        const double *local = s->local + net->at[v], *priced = s->priced + net->at[v];
        double best = local[to] + weight * priced[to];
        for (int j = 0; j < net->n[v]; j++) {
            double value = local[j] + weight * priced[j];
            if (value < best && (!hard || cria_search_may_take(s, v, j))) {
                best = value;
                to = j;
            }
        }
        if (to == s->x[v]) continue;
        cria_search_move(s, v, to);
        moved = true;
    }
    return moved;
}

bool cria_search_repair(cria_search *s, double scale, int rounds, const cria_until *until) {
    const cria_net *net = s->net;
    for (int round = 0; worst_over(s) > 0; round++) {
        if (round == rounds || cria_until_over(until)) return false;
        double length = 0;
        for (int t = 0; t < net->slices; t++) {
            double over = s->over[t] + s->block_lift[t / BLOCK];
            if (over > 0) length += over * over;
        }
        double step = scale / length;
        for (int t = 0; t < net->slices; t++) {
            double over = s->over[t] + s->block_lift[t / BLOCK];
            if (over > 0) s->price[t] += step * over;
        }
        cria_net_price(net, s->price, s->work, s->priced);
        descend(s, 1, false);
        scale *= 1.1;
        if (scale > net->forbidden / 16) scale = net->forbidden / 16;
    }
    for (int k = 0; k < 20 && !cria_until_over(until) && descend(s, 0, true); k++) continue;
    cria_search_keep(s);
    return true;
}

/* v takes j and its neighbours follow as is best for them; undone unless Metropolis accepts. */
static void move_with_followers(cria_search *s, int v, int j, double temperature, double weight) {
    const cria_net *net = s->net;
    int degree = net->half_at[v + 1] - net->half_at[v], moved = 0;
    if (degree > MOST_FOLLOWERS || !cria_search_may_take(s, v, j)) return;
    double before = s->cost,
           prices = weight * (s->priced[net->at[v] + (size_t)j] - s->priced[net->at[v] + (size_t)s->x[v]]);
    s->undo_node[moved] = v;
    s->undo_strategy[moved++] = s->x[v];
    cria_search_move(s, v, j);
    for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
        int w = net->half[h].other, to = s->x[w];
        const double *local = s->local + net->at[w], *priced = s->priced + net->at[w];
        double was = local[to] + weight * priced[to], best = was;
        for (int i = 0; i < net->n[w]; i++)
            if (local[i] + weight * priced[i] < best && cria_search_may_take(s, w, i)) {
                best = local[i] + weight * priced[i];
                to = i;
            }
        if (to == s->x[w]) continue;
        prices += weight * (priced[to] - priced[s->x[w]]);
        s->undo_node[moved] = w;
        s->undo_strategy[moved++] = s->x[w];
        cria_search_move(s, w, to);
    }
    double change = s->cost - before + prices;
    if (change <= 0 || cria_search_uniform(s) < exp(-change / temperature)) {
        cria_search_keep(s);
        return;
    }
    while (moved-- > 0) cria_search_move(s, s->undo_node[moved], s->undo_strategy[moved]);
}

static void propose(cria_search *s, double temperature, double weight, int64_t k) {
    const cria_net *net = s->net;
    int v = cria_search_below(s, net->nodes);
    if (k % TREE_EVERY == 0) {
        cria_search_tree_move(s, v, 2 + cria_search_below(s, MOST_TREE_NODES - 1), temperature, weight);
        return;
    }
    int j = cria_search_below(s, net->n[v]), from = s->x[v];
    if (j == from) return;
    const double *local = s->local + net->at[v], *priced = s->priced + net->at[v];
    double change = local[j] - local[from] + weight * (priced[j] - priced[from]);
    if (change > 0 && net->half_at[v + 1] - net->half_at[v] > 1 && k % 16 == 1) {
        move_with_followers(s, v, j, temperature, weight);
        return;
    }
    if (change > 0 && (change > 30 * temperature || cria_search_uniform(s) >= exp(-change / temperature))) return;
    if (!cria_search_may_take(s, v, j)) return;
    cria_search_move(s, v, j);
    cria_search_keep(s);
}

/* Windows around random nodes, of many sizes, every fourth with noise, until they have had their share of work. */
static void open_windows(cria_search *s, cria_anneal *run, const cria_until *until) {
    double budget = WINDOWS * WORK_PER_PROPOSAL * 1024, work = run->spent;
    while (work < budget && !cria_until_over(until)) {
        double most = LEAST_WINDOW * pow(MOST_WINDOW / LEAST_WINDOW, cria_search_uniform(s));
        int root = cria_search_below(s, s->net->nodes);
        if (run->windows++ % 4 == 3)
            cria_search_kick(s, root, most / 3, run->hot * pow(10, 2 * cria_search_uniform(s) - 1), until, &work);
        else
            cria_search_window(s, root, most, 0, until, &work);
    }
    run->done += (int64_t)((work - run->spent) / WORK_PER_PROPOSAL);
    run->spent = work - budget;
}

/* How much of the run is behind it. */
static double part_done(const cria_anneal *run) {
    if (!run->end) return (double)run->done / (double)run->moves;
    uint64_t now = cria_clock_ns();
    return now >= run->end ? 1 : now <= run->begin ? 0 : (double)(now - run->begin) / (double)(run->end - run->begin);
}

void cria_search_anneal(cria_search *s, cria_anneal *run, int64_t chunk, const atomic_bool *pause,
                        const cria_until *until) {
    if (s->net->nodes == 0 || run->moves == 0) return; /* nothing to do, or not begun */
    int64_t end = run->done + chunk;
    while (run->done < end && !run->over) {
        double part = part_done(run), cooled = part < run->cool ? part / run->cool : 1, left = 1 - cooled;
        run->over = part >= 1;
        double temperature = run->hot * pow(run->cold / run->hot, cooled);
        double weight = run->weight * (left > 0.3 ? 1 : left / 0.3);
        int64_t stop = end - run->done < 1024 ? end : run->done + 1024;
        if (!run->end && stop > run->moves) stop = run->moves;
        while (run->done < stop) propose(s, temperature, weight, run->done++);
        if (part >= run->cool && !run->over) open_windows(s, run, until);
        if (cria_until_over(until)) return;
        if (pause && atomic_load_explicit(pause, memory_order_relaxed)) break;
    }
    if (!run->over) return;
    for (int k = 0; k < 20 && !cria_until_over(until) && descend(s, 0, true); k++) continue;
    cria_search_keep(s);
}
