/* Steps under way, oldest first, in a ring of batches. */
#include "server/engine/lane.h"

#include "server/engine/compose.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    cria_batch *batch;
    cria_work *work; /* [most running] */
    int32_t count;
} flight;

struct cria_lane {
    cria_engine_config config;
    cria_runner runner;
    cria_scheduler *scheduler;
    cria_batch_result *result;
    int depth;
    flight *flights; /* [depth + 1]: while its results are looked at, a step still has its place */
    int first, count;
    bool planned; /* the newest has not been started yet: the runner had no room for its results */
};

static cria_status make_flights(cria_lane *lane, cria_error *err) {
    lane->flights = calloc((size_t)lane->depth + 1, sizeof *lane->flights);
    if (!lane->flights) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d steps", lane->depth);
    for (int i = 0; i <= lane->depth; i++) {
        flight *f = &lane->flights[i];
        CRIA_TRY(cria_batch_create(&lane->config.limits, &f->batch, err));
        f->work = calloc((size_t)cria_scheduler_most_running(lane->scheduler), sizeof *f->work);
        if (!f->work) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a step's work");
    }
    return CRIA_OK;
}

cria_status cria_lane_create(const cria_engine_config *config, cria_runner runner, cria_lane **out, cria_error *err) {
    *out = NULL;
    cria_lane *lane = calloc(1, sizeof *lane);
    if (!lane) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the engine's steps");
    lane->config = *config;
    lane->runner = runner;
    lane->depth = runner.depth > 1 ? runner.depth : 1;
    cria_status status = cria_scheduler_create(config, lane->depth, &lane->scheduler, err);
    if (status == CRIA_OK) status = cria_batch_result_create(&config->limits, &lane->result, err);
    if (status == CRIA_OK) status = make_flights(lane, err);
    if (status != CRIA_OK) {
        cria_lane_destroy(lane);
        return status;
    }
    *out = lane;
    return CRIA_OK;
}

void cria_lane_destroy(cria_lane *lane) {
    if (!lane) return;
    cria_scheduler_destroy(lane->scheduler);
    for (int i = 0; lane->flights && i <= lane->depth; i++) {
        cria_batch_destroy(lane->flights[i].batch);
        free(lane->flights[i].work);
    }
    free(lane->flights);
    cria_batch_result_destroy(lane->result);
    free(lane);
}

cria_scheduler *cria_lane_scheduler(const cria_lane *lane) {
    return lane->scheduler;
}

static flight *flight_at(const cria_lane *lane, int i) {
    return &lane->flights[(lane->first + i) % (lane->depth + 1)];
}

int cria_lane_stages(const cria_lane *lane, cria_stage_figures *sums, int most) {
    return lane->runner.stages ? lane->runner.stages(lane->runner.self, sums, most) : 0;
}

int cria_lane_under_way(const cria_lane *lane) {
    return lane->count;
}

bool cria_lane_ready(const cria_lane *lane) {
    if (lane->count == 0) return false;
    return !lane->runner.ready || lane->runner.ready(lane->runner.self);
}

/* Fills the next free place with a step; false where there is nothing to do. */
static bool plan(cria_lane *lane, uint64_t now_ns, cria_sequence **broken) {
    cria_work *work;
    int64_t tokens = 0;
    for (int i = 0; i < lane->count; i++) tokens += flight_at(lane, i)->batch->tokens;
    int32_t count = cria_scheduler_next(lane->scheduler, now_ns, tokens, &work, broken);
    if (count == 0) return false;
    flight *f = flight_at(lane, lane->count++);
    f->count = count;
    memcpy(f->work, work, (size_t)count * sizeof *work);
    cria_batch_clear(f->batch);
    cria_compose(&lane->config, f->work, count, f->batch);
    for (int32_t i = 0; i < count; i++) cria_scheduler_given(lane->scheduler, &f->work[i]);
    return true;
}

cria_status cria_lane_start(cria_lane *lane, uint64_t now_ns, bool *started, cria_sequence **broken, cria_error *err) {
    *started = false;
    *broken = NULL;
    if (!lane->planned && lane->count < lane->depth) lane->planned = plan(lane, now_ns, broken);
    if (!lane->planned) return CRIA_OK;
    const cria_runner *runner = &lane->runner;
    const cria_batch *batch = flight_at(lane, lane->count - 1)->batch;
    if (lane->count > 1 && runner->may_start && !runner->may_start(runner->self, batch)) return CRIA_OK;
    lane->planned = false;
    *started = true;
    return runner->start ? runner->start(runner->self, batch, err) : CRIA_OK;
}

cria_status cria_lane_finish(cria_lane *lane, cria_step_done *out, cria_error *err) {
    assert(lane->count > lane->planned);
    const flight *f = flight_at(lane, 0);
    const cria_runner *runner = &lane->runner;
    if (runner->start)
        CRIA_TRY(runner->finish(runner->self, lane->result, err));
    else
        CRIA_TRY(runner->step(runner->self, f->batch, lane->result, err));
    for (int32_t i = 0; i < f->count; i++)
        if (f->work[i].sequence) f->work[i].sequence->under_way--;
    *out = (cria_step_done){f->work, f->count, f->batch->tokens, lane->result};
    lane->first = (lane->first + 1) % (lane->depth + 1);
    lane->count--;
    return CRIA_OK;
}

void cria_lane_drain(cria_lane *lane) {
    cria_error ignored = {0};
    int started = lane->runner.start ? lane->count - lane->planned : 0;
    for (int i = 0; i < started; i++) lane->runner.finish(lane->runner.self, lane->result, &ignored);
    lane->count = lane->planned = 0;
}

void cria_lane_forget(cria_lane *lane, cria_sequence *sequence) {
    for (int i = 0; i < lane->count && sequence->under_way > 0; i++) {
        flight *f = flight_at(lane, i);
        for (int32_t k = 0; k < f->count; k++) {
            if (f->work[k].sequence != sequence) continue;
            f->work[k].sequence = NULL;
            sequence->under_way--;
        }
    }
}
