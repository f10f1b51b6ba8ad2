/* The price of a whole candidate plan: which devices run which layers in which way, and what follows from it. Private
 * to the inter-operator pass. */
#ifndef CRIA_PARALLEL_PLAN_STAGES_PRICE_H
#define CRIA_PARALLEL_PLAN_STAGES_PRICE_H

#include "parallel/plan/stages.h"
#include "parallel/plan/stages_book.h"

/* Sums over a range of layers on one mesh in one way. */
typedef struct {
    cria_seconds phase[CRIA_PHASES];
    double redo; /* forward once more, of layers that recompute */
    double sync, update, gather, scatter;
    double sent[CRIA_PHASES], redo_sent, sync_sent, gather_sent, scatter_sent; /* bytes, as cria_layer_cost */
    double parameters, cut_parameters, most_parameters, work, kv; /* parameters: with what layers share, once */
    double shared[CRIA_SHARED];
    double saved, kept, most_saved; /* kept: if layers recompute; most_saved: of one of these layers */
} cria_range_sums;

/* Adds a layer to the sums; false: it cannot be run so. */
bool cria_range_add(cria_stage_book *book, cria_range_sums *sums, int layer, int mesh, int way);

/* What is free to choose for a stage once its mesh and way are. */
typedef struct {
    int zero; /* 0, 1, 3 */
    bool recompute;
} cria_stage_mode;
enum { CRIA_MODES = 6 };
extern const cria_stage_mode cria_stage_modes[CRIA_MODES];

typedef struct {
    const cria_stages_options *options;
    const cria_cluster *cluster;
    int64_t micro_batch; /* sequences */
    int micro_batches;
    int replicas;
    double batch;        /* serving: requests of one replica */
    int force_recompute; /* -1: as is best */
    bool plain;          /* no ZeRO */
    cria_schedule schedule;
} cria_price_task;

/* Micro-batches whose activations a stage with so many stages behind it holds at once: all under GPipe (Huang et al.
 * 2019), one more than there are stages behind it under 1F1B (Narayanan et al. 2019). */
double cria_in_flight(const cria_price_task *task, int after);

/* Seconds of one micro-batch without transfers; what is done once in a step goes to *once. */
double cria_range_seconds(const cria_price_task *task, const cria_range_sums *sums, const cria_stage_mode *mode,
                          double *once);
/* Bytes per device with so many micro-batches in flight; the parts go to *notes where it is not NULL. */
double cria_range_memory(const cria_price_task *task, const cria_range_sums *sums, const cria_stage_mode *mode,
                         double in_flight, cria_plan_stage_notes *notes);
/* Serving: the KV cache stays within its budget. */
bool cria_kv_allowed(const cria_price_task *task, const cria_range_sums *sums);
bool cria_mode_allowed(const cria_price_task *task, const cria_stage_mode *mode);

typedef struct {
    int first, end;            /* layers */
    int first_device, devices; /* in the candidate's line of devices */
    cria_way way;
    cria_stage_mode mode; /* found by the price */
} cria_candidate_stage;

typedef struct {
    cria_candidate_stage *stage;
    int stages;
    int *device; /* [devices], of all stages in order */
    int devices;
} cria_candidate;

void cria_candidate_deinit(cria_candidate *candidate);
/* Room for so many stages and devices. */
bool cria_candidate_init(cria_candidate *candidate, int stages, int devices);
bool cria_candidate_copy(const cria_candidate *from, cria_candidate *to);

/* Fills `out` (its name stays) and, where they are not NULL, notes (room for all stages). */
void cria_candidate_price(cria_stage_book *book, const cria_price_task *task, cria_candidate *candidate,
                          cria_plan_summary *out, cria_plan_notes *notes);

/* Serving: how often each phase counts in what the objective minimises. */
void cria_objective_repeat(const cria_stages_options *options, double repeat[CRIA_PHASES]);
#endif
