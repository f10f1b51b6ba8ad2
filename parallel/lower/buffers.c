/* First-fit placement of values with known live ranges. */
#include "parallel/lower/buffers.h"

#include <stdlib.h>
#include <string.h>

int64_t cria_buffers_place(cria_buffers *buffers, int64_t bytes, int now, int last) {
    int kept = 0;
    for (int i = 0; i < buffers->count; i++)
        if (buffers->live[i].last >= now - 1) buffers->live[kept++] = buffers->live[i];
    buffers->count = kept;
    if (buffers->count == buffers->capacity) {
        int wanted = buffers->capacity ? buffers->capacity * 2 : 32;
        cria_buffer *bigger = realloc(buffers->live, (size_t)wanted * sizeof *bigger);
        if (!bigger) return -1;
        buffers->live = bigger;
        buffers->capacity = wanted;
    }
    bytes = (bytes + 63) / 64 * 64;
    /* `live` is kept sorted by offset, so gaps are found in one pass. */
    int64_t at = 0;
    int index = 0;
    for (; index < buffers->count; index++) {
        if (buffers->live[index].offset - at >= bytes) break;
        at = buffers->live[index].offset + buffers->live[index].bytes;
    }
    memmove(buffers->live + index + 1, buffers->live + index, (size_t)(buffers->count - index) * sizeof *buffers->live);
    buffers->live[index] = (cria_buffer){at, bytes, last};
    buffers->count++;
    if (at + bytes > buffers->high_water) buffers->high_water = at + bytes;
    return at;
}

void cria_buffers_extend(cria_buffers *buffers, int64_t offset, int last) {
    for (int i = 0; i < buffers->count; i++)
        if (buffers->live[i].offset == offset && buffers->live[i].last < last) buffers->live[i].last = last;
}

void cria_buffers_deinit(cria_buffers *buffers) {
    free(buffers->live);
}
