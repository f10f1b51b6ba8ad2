/* How candidates come to be: by the dynamic program, and by hand. Private to the inter-operator pass. */
#ifndef CRIA_PARALLEL_PLAN_STAGES_BUILD_H
#define CRIA_PARALLEL_PLAN_STAGES_BUILD_H

#include "parallel/plan/stages_price.h"
#include "parallel/plan/stages_search.h"

/* The devices in the order in which stages take them. */
typedef struct {
    const cria_cluster *cluster;
    int *device;
    int devices;  /* that may be used */
    bool uniform; /* hosts are alike, whether or not devices may change places */
    bool alike;   /* hosts are alike and hold a power of two of equal devices: only numbers of devices matter */
    int per_host;
} cria_lineup;

/* Whether the cluster's hosts are alike as above. */
bool cria_cluster_alike(const cria_cluster *cluster, int *per_host);

/* What is priced for one number of micro-batches. */
typedef struct {
    cria_stage_book *book;
    cria_price_task task;
    const cria_lineup *lineup;
    bool searched; /* the ways of the intra-operator pass are offered too */
    double slack;
} cria_build_task;

/* The best candidate that costs less than `upper`, as the dynamic program reckons (transfers by the slowest link that a
 * plan must cross); candidate->stages == 0: there is none. The caller deinits it. */
cria_status cria_build_search(const cria_build_task *task, double upper, cria_candidate *out, cria_error *err);

/* A candidate from stages of so many layers of the model. False: they do not fit the model or the devices; why says so.
 */
bool cria_build_by_hand(const cria_build_task *task, const cria_hand_stage *stages, int count, cria_candidate *out,
                        char *why, size_t size);

#endif
