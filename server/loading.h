/* Loading: one progress bar over what all ranks load.
 *
 * Every other rank tells the first one what it has packed, by messages so short that they wait for nobody; the first
 * looks at them whenever it has packed something itself. Start-up thread. */
#ifndef CRIA_SERVER_LOADING_H
#define CRIA_SERVER_LOADING_H

#include "base/error.h"
#include "parallel/comm/comm.h"

#include <stdio.h>

typedef struct cria_loading cria_loading;

/* Collective. `comm`: NULL where there is one rank. `bytes`: what this rank is going to pack. `stream`: where rank 0's
 * bar goes; NULL: nowhere. */
cria_status cria_loading_begin(cria_comm *comm, int64_t bytes, FILE *stream, cria_loading **out, cria_error *err);
/* `context`: the object. */
void cria_loading_advance(void *context, int64_t bytes);
/* Collective. This rank is done, well or not. Rank 0 waits for the others, unless one is lost, which whatever comes
 * next will tell. Frees. */
void cria_loading_end(cria_loading *loading);

#endif
