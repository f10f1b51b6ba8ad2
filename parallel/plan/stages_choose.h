/* The choice among settings (numbers of micro-batches and replicas) and candidates, those made by hand included.
 * Private to the inter-operator pass. */
#ifndef CRIA_PARALLEL_PLAN_STAGES_CHOOSE_H
#define CRIA_PARALLEL_PLAN_STAGES_CHOOSE_H

#include "parallel/plan/stages_build.h"

/* One number of micro-batches and replicas with its book. */
typedef struct {
    cria_build_task build;
    const cria_graph *graph;
} cria_setting;

cria_status cria_setting_open(const cria_graph *graph, const cria_lineup *lineup, const cria_stages_options *options,
                              int64_t micro_batch, int micro_batches, int replicas, int most_layers, cria_setting *out,
                              cria_error *err);
void cria_setting_close(cria_setting *setting);

typedef struct {
    const cria_graph *graph;
    const cria_lineup *lineup;
    const cria_stages_options *options;
    struct {
        cria_setting setting;
        cria_lineup lineup; /* the setting's */
        cria_candidate candidate;
        cria_plan_summary summary;
    } best;
    cria_plan_summary *other; /* the best of every kind, best first */
    int others;
    char nearest[200]; /* why what is nearest to feasible is not */
    double excess;     /* of that */
} cria_plan_choice;

/* CRIA_ERR_INFEASIBLE: nothing fits. */
cria_status cria_plan_choose(cria_plan_choice *choice, cria_error *err);
void cria_plan_choice_explain(const cria_plan_choice *choice, const cria_plan_summary *other, int others, char *out,
                              size_t size);
void cria_plan_choice_deinit(cria_plan_choice *choice);

/* Bytes that a rank sends in the collectives of one pass over the plan. */
int64_t cria_plan_collective_bytes(const cria_plan *plan, const cria_graph *graph, int rank, int64_t tokens,
                                   int64_t rows, double element);

#endif
