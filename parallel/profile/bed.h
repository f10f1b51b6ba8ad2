/* Test bed: times one kernel of this machine as the executor calls it, on a pool, with operands as cold as a model's.
 *
 * Weights and KV pages rotate through a buffer larger than the caches that belong to a core, since in a model every
 * layer has its own. Start-up thread. */
#ifndef CRIA_PARALLEL_PROFILE_BED_H
#define CRIA_PARALLEL_PROFILE_BED_H

#include "base/pool.h"
#include "kernels/kernels.h"
#include "parallel/comm/comm.h"
#include "parallel/plan/cluster.h"

typedef struct cria_bed cria_bed;

/* cold_bytes: what weights and pages rotate through, within 64 MiB to 512 MiB: what a rank's part of a model has.
 * value_bytes: of an operator's input and of its output, what needs more is not timed. comm: ranks that measure at the
 * same time, so that what they share is shared; NULL: this one alone. All borrowed. */
cria_status cria_bed_create(cria_pool *pool, const cria_kernels *kernels, double cold_bytes, int64_t value_bytes,
                            cria_comm *comm, cria_bed **out, cria_error *err);
void cria_bed_destroy(cria_bed *bed);

/* Which operators it can time: linear, norm (with the preparation of what it leaves for a product), activation (that
 * preparation alone, since activations ride in the product before them), mul (gated activation), rope, attention (with
 * the store of keys and values, and preparation), sample. */
bool cria_bed_knows(int operator_kind);
/* Fills in sample->seconds: the median of `rounds`, each of at least `least` seconds; the mean of all ranks. A sample
 * whose operands are larger than the bed gets 0. Collective over the bed's ranks. head_dim: of attention and rope. */
cria_status cria_bed_time(cria_bed *bed, cria_sample *sample, int64_t head_dim, int rounds, double least,
                          cria_error *err);

cria_panel_type cria_panel_of_rate(cria_rate rate);
cria_rate cria_rate_of_panel(cria_panel_type type);

#endif
