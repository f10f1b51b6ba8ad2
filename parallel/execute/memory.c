/* Anonymous mappings aligned to huge pages. */
#include "parallel/execute/memory.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

cria_status cria_memory_map(cria_memory *memory, int64_t bytes, const char *what, cria_error *err) {
    const int64_t huge = 2 << 20;
    *memory = (cria_memory){0};
    if (bytes == 0) return CRIA_OK;
    if (bytes < 0 || bytes > INT64_MAX - 2 * huge)
        return cria_fail(err, CRIA_ERR_MEMORY, "%s: %lld bytes are out of range", what, (long long)bytes);
    int64_t mapped = bytes + huge;
    void *base = mmap(NULL, (size_t)mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return cria_fail(err, CRIA_ERR_MEMORY, "%s: the system has no %.1f MB to give", what, (double)bytes / 1e6);
    memory->base = base;
    memory->mapped = mapped;
    memory->data = (void *)(((uintptr_t)base + (uintptr_t)huge - 1) / (uintptr_t)huge * (uintptr_t)huge);
    memory->bytes = bytes;
    madvise(memory->data, (size_t)bytes, MADV_HUGEPAGE); /* a wish: without it everything works, a little slower */
    return CRIA_OK;
}

void cria_memory_unmap(cria_memory *memory) {
    if (memory->base) munmap(memory->base, (size_t)memory->mapped);
    *memory = (cria_memory){0};
}
