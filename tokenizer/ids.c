/* The growable array of ids. */
#include "tokenizer/ids.h"

#include <stdlib.h>
#include <string.h>

void cria_ids_deinit(cria_ids *ids) {
    free(ids->ids);
    *ids = (cria_ids){0};
}

static bool reserve(cria_ids *ids, size_t more) {
    if (more <= ids->capacity - ids->count) return true;
    if (more > SIZE_MAX / 8 - ids->count) return false;
    size_t capacity = ids->capacity ? ids->capacity * 2 : 64;
    if (capacity < ids->count + more) capacity = ids->count + more;
    int32_t *grown = realloc(ids->ids, capacity * sizeof *grown);
    if (!grown) return false;
    ids->ids = grown;
    ids->capacity = capacity;
    return true;
}

bool cria_ids_push(cria_ids *ids, int32_t id) {
    if (!reserve(ids, 1)) return false;
    ids->ids[ids->count++] = id;
    return true;
}

bool cria_ids_append(cria_ids *ids, const int32_t *more, size_t count) {
    if (!reserve(ids, count)) return false;
    if (count) memcpy(ids->ids + ids->count, more, count * sizeof *more);
    ids->count += count;
    return true;
}
