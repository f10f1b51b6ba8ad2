/* Composition: writes the scheduled work into the batch: tokens, slots, block tables, and each row's sampling state. */
#ifndef CRIA_SERVER_ENGINE_COMPOSE_H
#define CRIA_SERVER_ENGINE_COMPOSE_H

#include "server/engine/scheduler.h"

/* Fills an empty batch and sets each work's first_row. The scheduler has seen to it that everything fits.
 * Engine thread. */
void cria_compose(const cria_engine_config *config, cria_work *work, int32_t count, cria_batch *batch);

#endif
