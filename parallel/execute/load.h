/* Load: packs a program's weights from a parameter source into the weights' arena, on all threads. Start-up only. */
#ifndef CRIA_PARALLEL_EXECUTE_LOAD_H
#define CRIA_PARALLEL_EXECUTE_LOAD_H

#include "parallel/execute/executor.h"

/* `arena`: program->weight_bytes, zeroed. `options`: loaded and its context. */
cria_status cria_load_weights(const cria_graph *graph, const cria_program *program, cria_pool *pool,
                              const cria_param_source *source, const cria_executor_options *options, void *arena,
                              cria_error *err);

#endif
