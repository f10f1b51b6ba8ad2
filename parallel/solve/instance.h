/* Instance: reads a problem from the JSON of the ASPLOS/EuroSys 2025 contest on intra-operator parallelism. */
#ifndef CRIA_PARALLEL_SOLVE_INSTANCE_H
#define CRIA_PARALLEL_SOLVE_INSTANCE_H

#include "parallel/solve/problem.h"
#include "parallel/solve/until.h"

#include <stddef.h>
#include <stdint.h>

/* bytes[0..size): {"problem": {"nodes": {"intervals", "costs", "usages"}, "edges": {"nodes", "costs"}, "usage_limit"}},
 * plain or gzip-compressed; keys in any order, unknown ones are skipped. Read as a stream: beside the problem, it needs
 * as much memory as the numbers take, not the text. CRIA_ERR_FORMAT names the node or edge, or the byte;
 * CRIA_ERR_ARGUMENT is a number out of range; CRIA_ERR_UNSUPPORTED more text or numbers than the reader takes (2 GiB,
 * 2^28), as a small compressed file may hold; CRIA_ERR_CLOSED: `until` (NULL: no limit) came first. Any thread. */
cria_status cria_instance_read(const uint8_t *bytes, size_t size, const cria_until *until, cria_problem **out,
                               cria_error *err);

/* Maps the file and reads it; messages begin with its path. */
cria_status cria_instance_open(const char *path, const cria_until *until, cria_problem **out, cria_error *err);

#endif
