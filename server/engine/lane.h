/* Lane: a runner with the scheduler whose sequences it runs, and the steps that are under way in it.
 *
 * What is scheduled counts as computed from the moment its step is started: a runner's ranks take steps in the order in
 * which they were started, so that a later step finds in its blocks what an earlier one was to write there, whoever
 * owned the blocks then. Only a sequence's next token needs the results of its last step; everything else goes on.
 * Engine thread only. */
#ifndef CRIA_SERVER_ENGINE_LANE_H
#define CRIA_SERVER_ENGINE_LANE_H

#include "server/engine/scheduler.h"

typedef struct cria_lane cria_lane;

/* As many steps as runner.depth says may be under way; a runner without `start` runs its one step in
 * cria_lane_finish. */
cria_status cria_lane_create(const cria_engine_config *config, cria_runner runner, cria_lane **out, cria_error *err);
/* Sequences must have been removed, and steps drained. */
void cria_lane_destroy(cria_lane *lane);
cria_scheduler *cria_lane_scheduler(const cria_lane *lane);

/* Plans the next step and starts it, where there is work and room for one more. *started: it has. *broken: a sequence
 * (or NULL) for which memory is out: remove it and call again. */
cria_status cria_lane_start(cria_lane *lane, uint64_t now_ns, bool *started, cria_sequence **broken, cria_error *err);

/* As runner.stages; any thread. */
int cria_lane_stages(const cria_lane *lane, cria_stage_figures *sums, int most);

/* How many steps are under way, planned ones included. */
int cria_lane_under_way(const cria_lane *lane);
/* cria_lane_finish would not wait for long. */
bool cria_lane_ready(const cria_lane *lane);

/* A finished step, valid until the next call of cria_lane_finish. */
typedef struct {
    const cria_work *work; /* [count]; sequence is NULL where it has ended meanwhile */
    int32_t count, tokens;
    const cria_batch_result *result;
} cria_step_done;
/* Waits for the oldest step under way. */
cria_status cria_lane_finish(cria_lane *lane, cria_step_done *out, cria_error *err);

/* Waits for all that is under way and looks at none of it: nobody reads the batches from then on. No step is started
 * afterwards. */
void cria_lane_drain(cria_lane *lane);

/* The sequence is about to end: steps under way know it no more. */
void cria_lane_forget(cria_lane *lane, cria_sequence *sequence);

#endif
