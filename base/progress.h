/* Progress of long work: a bar with rate and time left on a terminal, a plain line now and then in a log.
 * Advance may be called from any thread; create, and destroy after the last advance. */
#ifndef CRIA_BASE_PROGRESS_H
#define CRIA_BASE_PROGRESS_H

#include <stdint.h>
#include <stdio.h>

typedef struct cria_progress cria_progress;

/* `title`: "packing weights"; `unit`: "B" prints as kB/MB/GB, anything else as it is. A stream of NULL prints nothing.
 * Every call accepts NULL. Nothing is printed for work that ends within 0.3 s. */
cria_progress *cria_progress_create(FILE *stream, const char *title, const char *unit, uint64_t total);
void cria_progress_advance(cria_progress *progress, uint64_t amount);
/* Writes the last state and ends the line. */
void cria_progress_destroy(cria_progress *progress);

#endif
