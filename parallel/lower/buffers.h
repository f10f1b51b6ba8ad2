/* Buffers: places values in one workspace, reusing bytes whose value is no longer read. Lowering only. */
#ifndef CRIA_PARALLEL_LOWER_BUFFERS_H
#define CRIA_PARALLEL_LOWER_BUFFERS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t offset, bytes;
    int last; /* index of the last graph operator that reads it */
} cria_buffer;

typedef struct {
    cria_buffer *live;
    int count, capacity;
    int64_t high_water;
} cria_buffers;

/* A 64-byte aligned place for a value made at operator `now` and last read at `last`; -1 when memory is out. First fit
 * among the gaps between values that the operator before `now` or a later one reads: what it has read is not
 * overwritten at once, so that instructions which go by row can be joined (rows.h). */
int64_t cria_buffers_place(cria_buffers *buffers, int64_t bytes, int now, int last);
/* The value at `offset` is read until operator `last` too (it was updated in place and has a new name). */
void cria_buffers_extend(cria_buffers *buffers, int64_t offset, int last);
void cria_buffers_deinit(cria_buffers *buffers);

#endif
