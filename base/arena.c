/* A bump allocator over a list of blocks that grow by doubling. */
#include "base/arena.h"

#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, SMALLEST_BLOCK = 64 };

typedef struct block {
    struct block *next;
    size_t capacity;
    _Alignas(ALIGNMENT) unsigned char bytes[];
} block;

struct cria_arena {
    block *first;
    block *current; /* blocks before it are taken; those after it are kept from before the last reset */
    size_t filled;  /* bytes taken of `current` */
    size_t used;    /* bytes taken of all */
    size_t limit;
};

static block *block_create(size_t capacity) {
    size_t total;
    if (!cria_add_size(sizeof(block), capacity, &total)) return NULL;
    block *made = malloc(total);
    if (!made) return NULL;
    made->next = NULL;
    made->capacity = capacity;
    return made;
}

cria_arena *cria_arena_create(size_t first_block_bytes, size_t limit_bytes) {
    cria_arena *arena = calloc(1, sizeof *arena);
    if (!arena) return NULL;
    if (first_block_bytes < SMALLEST_BLOCK) first_block_bytes = SMALLEST_BLOCK;
    arena->first = arena->current = block_create(first_block_bytes);
    if (!arena->first) {
        free(arena);
        return NULL;
    }
    arena->limit = limit_bytes ? limit_bytes : SIZE_MAX;
    return arena;
}

void cria_arena_destroy(cria_arena *arena) {
    if (!arena) return;
    for (block *b = arena->first; b;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(arena);
}

void cria_arena_reset(cria_arena *arena) {
    arena->current = arena->first;
    arena->filled = 0;
    arena->used = 0;
}

/* Makes `current` a block with room for `bytes`: the next kept one if it is large enough, else a new one. */
static bool next_block(cria_arena *arena, size_t bytes) {
    block *next = arena->current->next;
    if (!next || next->capacity < bytes) {
        size_t capacity = arena->current->capacity;
        capacity = capacity > SIZE_MAX / 2 ? SIZE_MAX : capacity * 2;
        /* Room past the limit could never be used. */
        if (capacity > arena->limit - arena->used) capacity = arena->limit - arena->used;
        if (capacity < bytes) capacity = bytes;
        next = block_create(capacity);
        if (!next) return false;
        next->next = arena->current->next;
        arena->current->next = next;
    }
    arena->current = next;
    arena->filled = 0;
    return true;
}

void *cria_arena_alloc(cria_arena *arena, size_t bytes) {
    size_t padded;
    if (!cria_add_size(bytes ? bytes : 1, ALIGNMENT - 1, &padded)) return NULL;
    padded -= padded % ALIGNMENT;
    /* The limit counts what was asked for, so that the last few bytes below it can be had. */
    if (arena->used > arena->limit || bytes > arena->limit - arena->used) return NULL;
    if (padded > arena->current->capacity - arena->filled && !next_block(arena, padded)) return NULL;
    void *memory = arena->current->bytes + arena->filled;
    arena->filled += padded;
    arena->used += padded;
    return memset(memory, 0, padded);
}

void *cria_arena_alloc_array(cria_arena *arena, size_t count, size_t size) {
    size_t bytes;
    return cria_mul_size(count, size, &bytes) ? cria_arena_alloc(arena, bytes) : NULL;
}

char *cria_arena_copy(cria_arena *arena, const char *bytes, size_t length) {
    size_t total;
    if (!cria_add_size(length, 1, &total)) return NULL;
    char *copy = cria_arena_alloc(arena, total);
    if (copy && length) memcpy(copy, bytes, length);
    return copy;
}

size_t cria_arena_used(const cria_arena *arena) {
    return arena->used;
}
