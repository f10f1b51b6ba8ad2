/* Bell: how one rank wakes others of its host that sleep. Internal to parallel/comm.
 *
 * A word of shared memory that whoever waits for something sleeps on (a futex, across processes), and that whoever
 * brings it about rings. Ringing costs a look at the number of sleepers while nobody sleeps, and no system call. A bell
 * lies in zeroed memory; a sleeper that was killed leaves its place taken, which costs the others a system call. Any
 * thread.
 *
 * The waiter: cria_bell_listen; then until what it waits for is there: cria_bell_heard, look, cria_bell_sleep; at last
 * cria_bell_leave. The other side: bring it about; cria_bell_ring. Where it is brought about and looked for by
 * sequentially consistent atomic operations nothing is missed: the waiter sees it, or the ringer sees the listener. */
#ifndef CRIA_PARALLEL_COMM_BELL_H
#define CRIA_PARALLEL_COMM_BELL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    atomic_uint rings;
    atomic_uint listeners;
} cria_bell;

void cria_bell_listen(cria_bell *bell);
void cria_bell_leave(cria_bell *bell);
/* The number to give to cria_bell_sleep: to be asked before looking whether there is a reason to sleep. */
unsigned cria_bell_heard(const cria_bell *bell);
/* Sleeps until the bell rings, at most `ns`; returns at once where it has rung since `heard`. May return early. */
void cria_bell_sleep(cria_bell *bell, unsigned heard, int64_t ns);
bool cria_bell_has_listeners(const cria_bell *bell);
/* Wakes all who listen, if any. */
void cria_bell_ring(cria_bell *bell);

#endif
