/* The dynamic program over stages: F(s, k, d) is the least sum of seconds of s stages that run layers k and on with the
 * last d devices of the line, each stage no longer than a limit, which is enumerated. */
#include "parallel/plan/stages_search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const cria_stage_search *in;
    int stages;     /* at most */
    double *cost;   /* [meshes][layers][layers + 1][stages]: of [first, end) with so many stages after */
    double *f;      /* [stages + 1][layers + 1][devices + 1] */
    bool *allowed;  /* [meshes][devices + 1] */
    bool *anywhere; /* [meshes]: allowed wherever it has room */
} table;

double cria_search_finish(cria_search_goal goal, double micro_batches, double sum, double longest) {
    switch (goal) {
    case CRIA_GOAL_PIPELINE:
        return sum + (micro_batches - 1) * longest;
    case CRIA_GOAL_CYCLE:
        return fmax(sum, micro_batches * longest);
    default:
        return sum;
    }
}

static double *cost_at(const table *t, int mesh, int first, int end, int after) {
    size_t layers = (size_t)t->in->layers;
    return t->cost + (((size_t)mesh * layers + (size_t)first) * (layers + 1) + (size_t)end) * (size_t)t->stages + after;
}

static double *row(const table *t, int stages, int layer) {
    return t->f + ((size_t)stages * (size_t)(t->in->layers + 1) + (size_t)layer) * (size_t)(t->in->devices + 1);
}

/* Takes what a stage of `seconds` before `next` makes of each number of devices. `longest`: of stages, else their sum.
 */
static void relax(const table *t, int mesh, double seconds, const double *restrict next, double *restrict to,
                  bool longest) {
    int n = t->in->size[mesh], devices = t->in->devices;
    if (t->anywhere[mesh] && !longest) {
        for (int d = n; d <= devices; d++) {
            double value = seconds + next[d - n];
            to[d] = value < to[d] ? value : to[d];
        }
        return;
    }
    for (int d = n; d <= devices; d++) {
        if (!t->allowed[mesh * (devices + 1) + devices - d]) continue;
        double value = longest ? fmax(seconds, next[d - n]) : seconds + next[d - n];
        if (value < to[d]) to[d] = value;
    }
}

/* Fills F under a limit. Returns the least value over all numbers of stages; *stages gets which. */
static double fill(const table *t, double limit, bool longest, int *stages) {
    const cria_stage_search *in = t->in;
    size_t cells = (size_t)(in->layers + 1) * (size_t)(in->devices + 1);
    for (size_t i = 0; i < cells * (size_t)(t->stages + 1); i++) t->f[i] = HUGE_VAL;
    for (int d = 0; d <= (in->all_devices ? 0 : in->devices); d++) row(t, 0, in->layers)[d] = 0;
    double best = HUGE_VAL;
    for (int s = 1; s <= t->stages; s++) {
        for (int k = in->layers - s; k >= 0; k--)
            for (int m = 0; m < in->meshes; m++)
                for (int end = k + 1; end <= in->layers - s + 1; end++) {
                    double seconds = *cost_at(t, m, k, end, s - 1);
                    /* s - 1 stages stand for layers `end` and on: none only if there are no layers left. */
                    if (seconds <= limit && (s > 1) == (end < in->layers))
                        relax(t, m, seconds, row(t, s - 1, end), row(t, s, k), longest);
                }
        double value = row(t, s, 0)[in->devices];
        if (value < best && (!in->exact_stages || s == in->exact_stages)) {
            best = value;
            *stages = s;
        }
    }
    return best;
}

/* Walks back over F as it was filled. Returns the longest stage. */
static double trace(const table *t, double limit, int stages, cria_stage_choice *out) {
    const cria_stage_search *in = t->in;
    int layer = 0, devices = in->devices;
    double longest = 0;
    for (int s = stages; s > 0; s--) {
        double value = row(t, s, layer)[devices];
        bool found = false;
        for (int m = 0; m < in->meshes && !found; m++) {
            int n = in->size[m];
            if (n > devices || !t->allowed[m * (in->devices + 1) + in->devices - devices]) continue;
            for (int end = layer + 1; end <= in->layers && !found; end++) {
                double seconds = *cost_at(t, m, layer, end, s - 1);
                if (!(seconds <= limit) || seconds + row(t, s - 1, end)[devices - n] != value) continue;
                out[stages - s] = (cria_stage_choice){layer, end, m, in->devices - devices};
                longest = fmax(longest, seconds);
                layer = end;
                devices -= n;
                found = true;
            }
        }
        if (!found) return HUGE_VAL;
    }
    return longest;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All values that a longest stage may have in [from, to], each once; NULL: no memory. */
static double *candidates(const table *t, double from, double to, size_t *count) {
    size_t all = (size_t)t->in->meshes * (size_t)t->in->layers * (size_t)(t->in->layers + 1) * (size_t)t->stages;
    size_t kept = 0;
    for (size_t i = 0; i < all; i++) kept += t->cost[i] >= from && t->cost[i] <= to;
    double *list = malloc((kept + 1) * sizeof *list);
    *count = 0;
    if (!list) return NULL;
    for (size_t i = 0; i < all; i++)
        if (t->cost[i] >= from && t->cost[i] <= to) list[(*count)++] = t->cost[i];
    qsort(list, *count, sizeof *list, ascending);
    return list;
}

/* Tries one limit; keeps the plan if it is the best so far. */
static void try_limit(const table *t, double limit, cria_stage_choice *scratch, cria_stage_choice *out, int *count,
                      double *best) {
    int stages = 0;
    double sum = fill(t, limit, false, &stages);
    if (sum == HUGE_VAL) return;
    double longest = trace(t, limit, stages, scratch);
    double total = cria_search_finish(t->in->goal, t->in->micro_batches, sum, longest);
    if (total >= *best) return;
    *best = total;
    *count = stages;
    memcpy(out, scratch, (size_t)stages * sizeof *out);
}

/* Where only the sum counts, cuts in other places often have the same: takes the one whose longest stage is shortest,
 * which is what bounds the rate. What a limit allows grows with it, so that the least limit is found by halving. False:
 * no memory. */
static bool even_out(const table *t, double least_sum, double longest, cria_stage_choice *scratch,
                     cria_stage_choice *out, int *count) {
    const double enough = least_sum * (1 + CRIA_SAME_SECONDS);
    size_t values, low = 0;
    double *list = candidates(t, 0, longest, &values);
    if (!list) return false;
    for (size_t high = values; low < high;) {
        size_t middle = (low + high) / 2;
        int stages = 0;
        if (fill(t, list[middle], false, &stages) <= enough)
            high = middle;
        else
            low = middle + 1;
    }
    int stages = 0;
    if (low < values && list[low] < longest && fill(t, list[low], false, &stages) <= enough &&
        trace(t, list[low], stages, scratch) < longest) {
        *count = stages;
        memcpy(out, scratch, (size_t)stages * sizeof *out);
    }
    free(list);
    return true;
}

static cria_status enumerate(const table *t, cria_stage_choice *out, int *count, double *best, cria_error *err) {
    const cria_stage_search *in = t->in;
    cria_stage_choice *scratch = malloc((size_t)in->layers * sizeof *scratch);
    if (!scratch) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the stages");
    int stages = 0;
    /* No limit: the least sum, which bounds what any limit can give. */
    double least_sum = fill(t, 1e300, false, &stages);
    if (least_sum < HUGE_VAL) {
        double longest = trace(t, 1e300, stages, scratch);
        double value = cria_search_finish(in->goal, in->micro_batches, least_sum, longest);
        if (value < *best) {
            *best = value;
            *count = stages;
            memcpy(out, scratch, (size_t)stages * sizeof *out);
        }
        if (in->goal == CRIA_GOAL_SUM) {
            if (*count > 0 && !even_out(t, least_sum, longest, scratch, out, count)) {
                free(scratch);
                return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the stages");
            }
        } else {
            double shortest = fill(t, 1e300, true, &stages); /* the least that a longest stage can be */
            try_limit(t, shortest, scratch, out, count, best);
            size_t values;
            double *list = candidates(t, shortest, longest, &values), last = shortest;
            if (!list) {
                free(scratch);
                return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the stages");
            }
            for (size_t i = 0; i < values; i++) {
                if (cria_search_finish(in->goal, in->micro_batches, least_sum, list[i]) >= *best) break;
                if (list[i] <= last) continue;
                /* The largest within the slack stands for all of them. */
                if (i + 1 < values && list[i + 1] <= last * (1 + in->slack)) continue;
                last = list[i];
                try_limit(t, last, scratch, out, count, best);
            }
            free(list);
        }
    }
    free(scratch);
    return CRIA_OK;
}

static void fill_costs(const table *t) {
    const cria_stage_search *in = t->in;
    for (int m = 0; m < in->meshes; m++) {
        t->anywhere[m] = true;
        for (int p = 0; p <= in->devices; p++) {
            bool room = p + in->size[m] <= in->devices, may = room && in->allowed(in->context, m, p);
            t->allowed[m * (in->devices + 1) + p] = may;
            if (room && !may) t->anywhere[m] = false;
        }
        for (int first = 0; first < in->layers; first++)
            for (int end = 0; end <= in->layers; end++)
                for (int after = 0; after < t->stages; after++) {
                    /* Later stages need a layer and a device each. */
                    bool possible = end > first && after <= in->layers - end && after + in->size[m] <= in->devices;
                    double before = after ? *cost_at(t, m, first, end, after - 1) : 0;
                    *cost_at(t, m, first, end, after) =
                        possible && before < HUGE_VAL ? in->cost(in->context, first, end, m, after) : HUGE_VAL;
                }
    }
}

cria_status cria_stage_search_run(const cria_stage_search *search, cria_stage_choice *out, int *count, double *best,
                                  cria_error *err) {
    table t = {.in = search, .stages = search->most_stages};
    if (t.stages > search->layers) t.stages = search->layers;
    if (t.stages > search->devices) t.stages = search->devices;
    size_t layers = (size_t)search->layers, meshes = (size_t)search->meshes, stages = (size_t)t.stages;
    t.cost = malloc(meshes * layers * (layers + 1) * stages * sizeof *t.cost);
    t.f = malloc((stages + 1) * (layers + 1) * (size_t)(search->devices + 1) * sizeof *t.f);
    t.allowed = calloc(meshes * (size_t)(search->devices + 1), sizeof *t.allowed);
    t.anywhere = calloc(meshes, sizeof *t.anywhere);
    *count = 0;
    *best = search->upper;
    cria_status status = CRIA_OK;
    if (!t.cost || !t.f || !t.allowed || !t.anywhere) {
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for stages of %d layers on %d devices", search->layers,
                           search->devices);
    } else {
        fill_costs(&t);
        status = enumerate(&t, out, count, best, err);
    }
    free(t.cost);
    free(t.f);
    free(t.allowed);
    free(t.anywhere);
    return status;
}
