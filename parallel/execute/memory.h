/* Memory: large zeroed mappings, on huge pages where the system gives them. Any thread. */
#ifndef CRIA_PARALLEL_EXECUTE_MEMORY_H
#define CRIA_PARALLEL_EXECUTE_MEMORY_H

#include "base/error.h"

#include <stdint.h>

typedef struct {
    void *data; /* 2 MB aligned */
    int64_t bytes;
    void *base; /* the mapping itself */
    int64_t mapped;
} cria_memory;

/* `what` names it in the error. Zero bytes give a NULL pointer and success. */
cria_status cria_memory_map(cria_memory *memory, int64_t bytes, const char *what, cria_error *err);
void cria_memory_unmap(cria_memory *memory);

#endif
