/* A ring of steps under one lock. */
#include "parallel/execute/stage_thread.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

typedef struct {
    const cria_batch *batch;
    cria_batch_result *result;
    cria_step_report report;
    cria_error error;
} slot;

struct cria_stage_thread {
    cria_executor *executor;
    pthread_t thread;
    bool started, stop;
    pthread_mutex_t lock;
    pthread_cond_t given, finished;
    slot *slots; /* [most + 1]: the one taken last stays as it is */
    int places;
    uint64_t gave, did, took; /* steps so far */
};

static slot *slot_at(cria_stage_thread *t, uint64_t step) {
    return &t->slots[step % (uint64_t)t->places];
}

static void *run(void *argument) {
    cria_stage_thread *t = argument;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->stop && t->did == t->gave) pthread_cond_wait(&t->given, &t->lock);
        if (t->stop) break;
        slot *s = slot_at(t, t->did);
        pthread_mutex_unlock(&t->lock);
        s->error = (cria_error){0};
        cria_executor_step(t->executor, s->batch, s->result, &s->error);
        s->report = cria_executor_report(t->executor);
        pthread_mutex_lock(&t->lock);
        t->did++;
        pthread_cond_signal(&t->finished);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static cria_status start(cria_stage_thread *t, const cria_batch_limits *limits, cria_error *err) {
    t->slots = calloc((size_t)t->places, sizeof *t->slots);
    if (!t->slots) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d steps", t->places);
    for (int i = 0; i < t->places; i++) CRIA_TRY(cria_batch_result_create(limits, &t->slots[i].result, err));
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    t->started = pthread_create(&t->thread, NULL, run, t) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return t->started ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "the stage's thread cannot be started");
}

cria_status cria_stage_thread_create(cria_executor *executor, const cria_batch_limits *limits, int most,
                                     cria_stage_thread **out, cria_error *err) {
    *out = NULL;
    cria_stage_thread *t = calloc(1, sizeof *t);
    if (!t) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the stage's thread");
    t->executor = executor;
    t->places = most + 1;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->given, NULL);
    pthread_cond_init(&t->finished, NULL);
    cria_status status = start(t, limits, err);
    if (status != CRIA_OK) {
        cria_stage_thread_destroy(t);
        return status;
    }
    *out = t;
    return CRIA_OK;
}

void cria_stage_thread_destroy(cria_stage_thread *t) {
    if (!t) return;
    if (t->started) {
        pthread_mutex_lock(&t->lock);
        t->stop = true;
        pthread_cond_signal(&t->given);
        pthread_mutex_unlock(&t->lock);
        pthread_join(t->thread, NULL);
    }
    for (int i = 0; t->slots && i < t->places; i++) cria_batch_result_destroy(t->slots[i].result);
    free(t->slots);
    pthread_cond_destroy(&t->given);
    pthread_cond_destroy(&t->finished);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void cria_stage_thread_give(cria_stage_thread *t, const cria_batch *batch) {
    pthread_mutex_lock(&t->lock);
    assert(t->gave - t->took < (uint64_t)t->places - 1);
    slot_at(t, t->gave++)->batch = batch;
    pthread_cond_signal(&t->given);
    pthread_mutex_unlock(&t->lock);
}

bool cria_stage_thread_done(cria_stage_thread *t) {
    pthread_mutex_lock(&t->lock);
    bool done = t->did > t->took;
    pthread_mutex_unlock(&t->lock);
    return done;
}

cria_status cria_stage_thread_take(cria_stage_thread *t, const cria_batch_result **result, cria_step_report *report,
                                   cria_error *err) {
    pthread_mutex_lock(&t->lock);
    assert(t->gave > t->took);
    while (t->did == t->took) pthread_cond_wait(&t->finished, &t->lock);
    slot *s = slot_at(t, t->took++);
    pthread_mutex_unlock(&t->lock);
    *result = s->result;
    *report = s->report;
    return s->error.status == CRIA_OK ? CRIA_OK : cria_fail(err, s->error.status, "%s", s->error.message);
}
