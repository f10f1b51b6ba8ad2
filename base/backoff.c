/* Waiting in three degrees. */
#include "base/backoff.h"

#include <sched.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { SPINS = 200, YIELDS = 40, SLEEP_NS = 20000, DOUBLE_EVERY = 4, MOST_DOUBLINGS = 5 };

void cria_backoff_wait(cria_backoff *backoff) {
    unsigned round = backoff->rounds++;
    if (round < SPINS) {
#if defined(__x86_64__)
        _mm_pause();
#endif
    } else if (round < SPINS + YIELDS) {
        sched_yield();
    } else {
        unsigned doublings = (round - SPINS - YIELDS) / DOUBLE_EVERY;
        long sleep = (long)SLEEP_NS << (doublings < MOST_DOUBLINGS ? doublings : MOST_DOUBLINGS);
        nanosleep(&(struct timespec){0, sleep}, NULL);
    }
}
