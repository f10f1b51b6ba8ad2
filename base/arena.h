/* Arena: a bump allocator whose allocations die together (a process, a request, a parsed file). One thread at a time.
 */
#ifndef CRIA_BASE_ARENA_H
#define CRIA_BASE_ARENA_H

#include <stddef.h>

typedef struct cria_arena cria_arena;

/* `limit_bytes`: the most that its allocations may sum to, each rounded up to 16 (0: no limit). NULL if even the first
 * block cannot be had. */
cria_arena *cria_arena_create(size_t first_block_bytes, size_t limit_bytes);
void cria_arena_destroy(cria_arena *arena);
/* Forgets every allocation and keeps the memory for the next use. */
void cria_arena_reset(cria_arena *arena);
/* Zeroed, 16-byte aligned memory; NULL when the limit is passed or memory is out. Never free it. */
void *cria_arena_alloc(cria_arena *arena, size_t bytes);
/* count * size with overflow checked. */
void *cria_arena_alloc_array(cria_arena *arena, size_t count, size_t size);
/* A NUL-terminated copy of `length` bytes. */
char *cria_arena_copy(cria_arena *arena, const char *bytes, size_t length);
size_t cria_arena_used(const cria_arena *arena);

#endif
