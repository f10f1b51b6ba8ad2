/* The dynamic program over stages and submeshes (Alpa, OSDI'22, section 5), apart from where its costs come from.
 *
 * Layers 0..layers are cut into stages in order; each takes a submesh, and submeshes follow each other on a line of
 * devices. The end of the line may stay unused. Exact if `slack` is 0. Private to the inter-operator pass. */
#ifndef CRIA_PARALLEL_PLAN_STAGES_SEARCH_H
#define CRIA_PARALLEL_PLAN_STAGES_SEARCH_H

#include "base/error.h"

#include <stdbool.h>

/* Plans whose seconds differ by less than this part take the same time. */
#define CRIA_SAME_SECONDS 1e-6

/* What a plan costs, of the sum and of the longest of its stages' seconds with B micro-batches. */
typedef enum {
    CRIA_GOAL_PIPELINE, /* sum + (B - 1) * longest: training */
    CRIA_GOAL_SUM,      /* latency; of equal sums, the shortest longest stage */
    CRIA_GOAL_CYCLE     /* max(sum, B * longest): B micro-batches go round and round */
} cria_search_goal;
double cria_search_finish(cria_search_goal goal, double micro_batches, double sum, double longest);

typedef struct {
    int layers, devices, meshes;
    const int *size; /* [meshes]: devices of each */
    int most_stages;
    int exact_stages; /* 0: any number */
    bool all_devices; /* none stays unused */
    /* Whether a submesh of this kind may begin after so many devices. */
    bool (*allowed)(void *context, int mesh, int position);
    /* Seconds of one micro-batch of layers [first, end) on a mesh, with `after` stages behind it (whose micro-batches
     * are in flight and take memory); HUGE_VAL: it does not fit. Does not fall with `after`. */
    double (*cost)(void *context, int first, int end, int mesh, int after);
    void *context;
    cria_search_goal goal;
    double micro_batches;
    double slack; /* values of the longest stage that differ by less than this part are not told apart */
    double upper; /* only plans that cost less are wanted; HUGE_VAL: any */
} cria_stage_search;

typedef struct {
    int first, end, mesh, position; /* layers [first, end) on a mesh that begins after `position` devices */
} cria_stage_choice;

/* CRIA_OK with *count = 0: no plan costs less than `upper`. out[layers]. */
cria_status cria_stage_search_run(const cria_stage_search *search, cria_stage_choice *out, int *count, double *best,
                                  cria_error *err);

#endif
