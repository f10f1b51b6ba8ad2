/* Schedules played through: orders of work per stage, and the times that follow from what must come before. */
#include "parallel/plan/schedule.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    int stages, batches, rounds;
    bool trains;
    double *done; /* [2][rounds][batches][stages]: end of a pass; < 0: not yet */
} play;

static double *done_at(play *p, bool backward, int round, int batch, int stage) {
    return p->done +
           ((((size_t)backward * (size_t)p->rounds + (size_t)round) * (size_t)p->batches + (size_t)batch) *
            (size_t)p->stages) +
           stage;
}

/* When what a pass needs is there; < 0: it is not yet known. */
static double ready(play *p, bool backward, int round, int batch, int stage) {
    if (backward) {
        double forward = *done_at(p, false, round, batch, stage);
        if (stage + 1 == p->stages || forward < 0) return forward;
        double next = *done_at(p, true, round, batch, stage + 1);
        return next < 0 ? next : fmax(forward, next);
    }
    if (stage > 0) return *done_at(p, false, round, batch, stage - 1);
    return round > 0 ? *done_at(p, false, round - 1, batch, p->stages - 1) : 0;
}

/* The i-th pass of a stage. */
static void pass_of(const play *p, cria_schedule schedule, int stage, int i, bool *backward, int *round, int *batch) {
    *round = 0;
    if (schedule == CRIA_SCHEDULE_INFERENCE) {
        *backward = false;
        *round = i / p->batches;
        *batch = i % p->batches;
        return;
    }
    int warm = schedule == CRIA_SCHEDULE_GPIPE ? p->batches : p->stages - 1 - stage;
    if (warm > p->batches) warm = p->batches;
    int steady = 2 * (p->batches - warm); /* alternating: forward of batch warm + k, backward of batch k */
    if (i < warm) {
        *backward = false;
        *batch = i;
    } else if (i < warm + steady) {
        *backward = (i - warm) % 2 == 1;
        *batch = *backward ? (i - warm) / 2 : warm + (i - warm) / 2;
    } else {
        *backward = true;
        *batch = p->batches - warm + (i - warm - steady);
    }
}

cria_schedule_slot *cria_schedule_run(cria_schedule schedule, int stages, int micro_batches, int rounds,
                                      const double *forward, const double *backward, int *count) {
    play p = {.stages = stages, .batches = micro_batches, .trains = schedule != CRIA_SCHEDULE_INFERENCE};
    p.rounds = p.trains ? 1 : rounds;
    int passes = p.trains ? 2 * micro_batches : micro_batches * p.rounds;
    size_t cells = 2 * (size_t)p.rounds * (size_t)micro_batches * (size_t)stages;
    cria_schedule_slot *slot = malloc((size_t)passes * (size_t)stages * sizeof *slot);
    int *next = calloc((size_t)stages, sizeof *next);
    double *free_at = calloc((size_t)stages, sizeof *free_at);
    p.done = malloc(cells * sizeof *p.done);
    *count = 0;
    bool moved = slot && next && free_at && p.done;
    for (size_t i = 0; moved && i < cells; i++) p.done[i] = -1;
    while (moved) {
        moved = false;
        for (int s = 0; s < stages; s++)
            while (next[s] < passes) {
                bool back;
                int round, batch;
                pass_of(&p, schedule, s, next[s], &back, &round, &batch);
                double from = ready(&p, back, round, batch, s);
                if (from < 0) break;
                from = fmax(from, free_at[s]);
                double to = from + (back ? backward[s] : forward[s]);
                slot[(*count)++] = (cria_schedule_slot){s, batch, back, from, to};
                *done_at(&p, back, round, batch, s) = free_at[s] = to;
                next[s]++;
                moved = true;
            }
    }
    free(next);
    free(free_at);
    free(p.done);
    return slot;
}
