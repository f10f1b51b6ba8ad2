/* Sleeping on a word of shared memory: Linux futexes. */
#include "parallel/comm/bell.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void cria_bell_listen(cria_bell *bell) {
    atomic_fetch_add(&bell->listeners, 1);
}

void cria_bell_leave(cria_bell *bell) {
    atomic_fetch_sub(&bell->listeners, 1);
}

unsigned cria_bell_heard(const cria_bell *bell) {
    return atomic_load(&bell->rings);
}

void cria_bell_sleep(cria_bell *bell, unsigned heard, int64_t ns) {
    const struct timespec most = {ns / 1000000000, ns % 1000000000};
    /* Not FUTEX_PRIVATE: other processes ring too. Whatever it returns, the caller looks again. */
    syscall(SYS_futex, &bell->rings, FUTEX_WAIT, heard, &most, NULL, 0);
}

bool cria_bell_has_listeners(const cria_bell *bell) {
    return atomic_load(&bell->listeners) != 0;
}

void cria_bell_ring(cria_bell *bell) {
    if (!cria_bell_has_listeners(bell)) return;
    atomic_fetch_add(&bell->rings, 1);
    syscall(SYS_futex, &bell->rings, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
