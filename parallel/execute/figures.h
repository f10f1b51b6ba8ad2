/* Figures: what the stages of a plan did in steps. */
#ifndef CRIA_PARALLEL_EXECUTE_FIGURES_H
#define CRIA_PARALLEL_EXECUTE_FIGURES_H

#include <stdatomic.h>
#include <stdint.h>

/* What one rank did in one step; sent between ranks as it is. */
typedef struct {
    uint64_t busy_ns;     /* in the step, but for sends to other stages and receives from them */
    uint64_t transfer_ns; /* in those: waiting for the other stage, too */
    uint64_t sent;        /* bytes of values, within the stage and to later ones */
} cria_step_report;

/* One stage, over all steps and replicas. */
typedef struct {
    int ranks; /* of one replica */
    uint64_t steps, sent;
    double busy_seconds, transfer_seconds; /* of the rank that was busiest in each step */
    double active_seconds;                 /* while any step was under way: what the stage was not busy of is bubble */
} cria_stage_figures;

/* The same as it is counted: written by one thread, read by any. */
typedef struct {
    atomic_uint_fast64_t steps, sent, busy_ns, transfer_ns;
} cria_stage_counters;

static inline void cria_stage_count(cria_stage_counters *c, const cria_step_report *busiest, uint64_t sent) {
    atomic_fetch_add_explicit(&c->steps, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->sent, sent, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->busy_ns, busiest->busy_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->transfer_ns, busiest->transfer_ns, memory_order_relaxed);
}

static inline void cria_stage_add(const cria_stage_counters *c, cria_stage_figures *sum) {
    sum->steps += atomic_load_explicit(&c->steps, memory_order_relaxed);
    sum->sent += atomic_load_explicit(&c->sent, memory_order_relaxed);
    sum->busy_seconds += (double)atomic_load_explicit(&c->busy_ns, memory_order_relaxed) * 1e-9;
    sum->transfer_seconds += (double)atomic_load_explicit(&c->transfer_ns, memory_order_relaxed) * 1e-9;
}

#endif
