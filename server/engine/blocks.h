/* Blocks: the pool of KV blocks with reference counts. Free blocks keep their content for the prefix cache until they
 * are needed; the one unused for longest goes first. Engine thread only. */
#ifndef CRIA_SERVER_ENGINE_BLOCKS_H
#define CRIA_SERVER_ENGINE_BLOCKS_H

#include "base/error.h"
#include "server/engine/prefix.h"

#include <stdint.h>

typedef struct cria_blocks cria_blocks;

/* `prefix` is borrowed and may be NULL: no prefix cache. */
cria_status cria_blocks_create(int64_t count, cria_prefix *prefix, cria_blocks **out, cria_error *err);
void cria_blocks_destroy(cria_blocks *blocks);

/* A block for new content, with one reference; -1 if none is free. Its cache entry is forgotten. */
int32_t cria_blocks_take(cria_blocks *blocks);
/* One more reference, to a free (cached) block or to one in use. */
void cria_blocks_share(cria_blocks *blocks, int32_t block);
/* One reference less; without any the block is free. Of a chain release the last block first, so that the shorter
 * prefix stays for longer. */
void cria_blocks_release(cria_blocks *blocks, int32_t block);

int64_t cria_blocks_free(const cria_blocks *blocks);
int32_t cria_blocks_references(const cria_blocks *blocks, int32_t block);

#endif
