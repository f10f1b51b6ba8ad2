/* Health: which ranks of a world are alive, and why it was given up. Internal to parallel/comm.
 *
 * One block of shared memory per host: every rank raises its own beat ten times a second from a thread of its own, and
 * looks at those of the others. A rank whose process is gone, or whose beat stands still for too long (it was stopped,
 * or its host was cut off), is lost. The first failure is kept and ends every wait of every rank. Any thread. */
#ifndef CRIA_PARALLEL_COMM_HEALTH_H
#define CRIA_PARALLEL_COMM_HEALTH_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    atomic_uint beat;
    atomic_int pid;  /* 0: not a process of this host, or not known yet */
    atomic_int left; /* it has said goodbye: nobody is to miss it */
} cria_health_member;

/* Lies in memory that all ranks of a host share; zeroed by whoever makes it. */
typedef struct {
    atomic_int state; /* 0: well; 1: being written; 2: failed */
    int rank;         /* who is to blame */
    char reason[200];
    cria_health_member member[]; /* by rank of the world */
} cria_health_block;

typedef struct cria_health cria_health;

size_t cria_health_bytes(int size);
/* `block` is borrowed. `watch`: whether to run the thread that beats and looks; without it only aborts are seen. */
cria_status cria_health_create(cria_health_block *block, int rank, int size, double lost_seconds, bool watch,
                               cria_health **out, cria_error *err);
/* Says goodbye and ends the thread. */
void cria_health_destroy(cria_health *health);

/* Another host's rank was heard of (`beat` is what it said). */
void cria_health_heard(cria_health *health, int rank, unsigned beat);
unsigned cria_health_beat(const cria_health *health, int rank);
bool cria_health_has_left(const cria_health *health, int rank);
void cria_health_set_left(cria_health *health, int rank);

void cria_health_fail(cria_health *health, int rank, const char *reason);
bool cria_health_failed(const cria_health *health);
/* CRIA_OK, or CRIA_ERR_CLOSED with "rank R: reason". */
cria_status cria_health_check(const cria_health *health, cria_error *err);
/* Called on the watching thread in each round (ten a second): for beats that travel by message. */
void cria_health_on_tick(cria_health *health, void (*tick)(void *context), void *context);

#endif
