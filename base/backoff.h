/* Backoff: lets a thread that polls be gentle: it spins for some microseconds, then yields, then sleeps for as long as
 * it has waited already, up to a millisecond. Any thread, one object a wait. */
#ifndef CRIA_BASE_BACKOFF_H
#define CRIA_BASE_BACKOFF_H

typedef struct {
    unsigned rounds; /* 0 at the start of a wait */
} cria_backoff;

void cria_backoff_wait(cria_backoff *backoff);

#endif
