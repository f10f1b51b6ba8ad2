/* The watching thread: beats, looks at the beats of the others, keeps the first failure. */
#include "parallel/comm/health.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 100 };

struct cria_health {
    cria_health_block *block;
    int rank, size;
    double lost_seconds;
    unsigned *last;    /* [size] the beat that was seen last */
    uint64_t *last_ns; /* [size] and when */
    pthread_t thread;
    bool watching;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
    void (*tick)(void *context);
    void *context;
};

size_t cria_health_bytes(int size) {
    return sizeof(cria_health_block) + (size_t)size * sizeof(cria_health_member);
}

void cria_health_fail(cria_health *health, int rank, const char *reason) {
    cria_health_block *block = health->block;
    int well = 0;
    if (!atomic_compare_exchange_strong(&block->state, &well, 1)) return;
    block->rank = rank;
    snprintf(block->reason, sizeof block->reason, "%s", reason);
    atomic_store(&block->state, 2);
}

bool cria_health_failed(const cria_health *health) {
    return atomic_load_explicit(&health->block->state, memory_order_acquire) == 2;
}

cria_status cria_health_check(const cria_health *health, cria_error *err) {
    if (!cria_health_failed(health)) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_CLOSED, "rank %d: %s", health->block->rank, health->block->reason);
}

void cria_health_heard(cria_health *health, int rank, unsigned beat) {
    atomic_store(&health->block->member[rank].beat, beat);
}

unsigned cria_health_beat(const cria_health *health, int rank) {
    return atomic_load(&health->block->member[rank].beat);
}

bool cria_health_has_left(const cria_health *health, int rank) {
    return atomic_load(&health->block->member[rank].left) != 0;
}

void cria_health_set_left(cria_health *health, int rank) {
    atomic_store(&health->block->member[rank].left, 1);
}

void cria_health_on_tick(cria_health *health, void (*tick)(void *context), void *context) {
    pthread_mutex_lock(&health->lock);
    health->tick = tick;
    health->context = context;
    pthread_mutex_unlock(&health->lock);
}

static void look_at(cria_health *health, int rank, uint64_t now) {
    cria_health_member *member = &health->block->member[rank];
    if (rank == health->rank || atomic_load(&member->left)) return;
    char reason[200];
    int pid = atomic_load(&member->pid);
    if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) {
        snprintf(reason, sizeof reason, "its process %d is gone", pid);
        /* It may have said goodbye in the meantime. */
        if (!atomic_load(&member->left)) cria_health_fail(health, rank, reason);
        return;
    }
    unsigned beat = atomic_load(&member->beat);
    if (beat != health->last[rank] || beat == 0) {
        health->last[rank] = beat;
        health->last_ns[rank] = now;
    } else if (cria_seconds_between(health->last_ns[rank], now) > health->lost_seconds) {
        snprintf(reason, sizeof reason, "no sign of life for %.1f s", health->lost_seconds);
        cria_health_fail(health, rank, reason);
    }
}

/* A thread that was itself kept from running (a stopped process that goes on) must not blame the others for it. */
static void forgive(cria_health *health, uint64_t now) {
    for (int r = 0; r < health->size; r++) health->last_ns[r] = now;
}

static void *watch(void *argument) {
    cria_health *health = argument;
    uint64_t before = cria_clock_ns();
    pthread_mutex_lock(&health->lock);
    while (!health->stop) {
        atomic_fetch_add(&health->block->member[health->rank].beat, 1);
        uint64_t now = cria_clock_ns();
        if (cria_seconds_between(before, now) > health->lost_seconds / 2) forgive(health, now);
        before = now;
        if (health->tick) health->tick(health->context);
        for (int r = 0; r < health->size && !cria_health_failed(health); r++) look_at(health, r, now);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&health->wake, &health->lock, &until);
    }
    pthread_mutex_unlock(&health->lock);
    return NULL;
}

static cria_status start(cria_health *health, cria_error *err) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&health->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    atomic_store(&health->block->member[health->rank].pid, (int)getpid());
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    health->watching = pthread_create(&health->thread, NULL, watch, health) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return health->watching ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "the watching thread cannot be started");
}

cria_status cria_health_create(cria_health_block *block, int rank, int size, double lost_seconds, bool watching,
                               cria_health **out, cria_error *err) {
    cria_health *health = calloc(1, sizeof *health);
    if (!health) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to watch %d ranks", size);
    *health = (cria_health){.block = block, .rank = rank, .size = size, .lost_seconds = lost_seconds};
    pthread_mutex_init(&health->lock, NULL);
    health->last = calloc((size_t)size, sizeof *health->last);
    health->last_ns = calloc((size_t)size, sizeof *health->last_ns);
    cria_status status = CRIA_OK;
    if (!health->last || !health->last_ns)
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory to watch %d ranks", size);
    if (status == CRIA_OK && watching) {
        forgive(health, cria_clock_ns());
        status = start(health, err);
    }
    if (status != CRIA_OK) {
        cria_health_destroy(health);
        return status;
    }
    *out = health;
    return CRIA_OK;
}

void cria_health_destroy(cria_health *health) {
    if (!health) return;
    cria_health_set_left(health, health->rank);
    if (health->watching) {
        pthread_mutex_lock(&health->lock);
        health->stop = true;
        pthread_cond_signal(&health->wake);
        pthread_mutex_unlock(&health->lock);
        pthread_join(health->thread, NULL);
        pthread_cond_destroy(&health->wake);
    }
    pthread_mutex_destroy(&health->lock);
    free(health->last);
    free(health->last_ns);
    free(health);
}
