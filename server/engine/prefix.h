/* Prefix cache: which KV block holds which tokens after which tokens, so that an equal prefix is computed once.
 *
 * Every entry has a serial number that is never used again. The key of a full block is (salt, serial of the block
 * before it, its token ids), compared in full: a serial stands for one exact prefix, so that two entries can never be
 * confused, whatever the hash does. (Automatic prefix caching as in vLLM, which relies on the hash.)
 * Engine thread only. */
#ifndef CRIA_SERVER_ENGINE_PREFIX_H
#define CRIA_SERVER_ENGINE_PREFIX_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cria_prefix cria_prefix;

/* For blocks 0 .. blocks - 1 of `block_tokens` tokens each. */
cria_status cria_prefix_create(int64_t blocks, int64_t block_tokens, cria_prefix **out, cria_error *err);
void cria_prefix_destroy(cria_prefix *prefix);

/* The serial of the entry for ids[block_tokens] after `parent` (0: at the start), and its block; 0 if there is none. */
uint64_t cria_prefix_find(const cria_prefix *prefix, uint64_t salt, uint64_t parent, const int32_t *ids,
                          int32_t *block);
/* Enters `block`, which holds no entry yet. If the same key stands already, that entry stays and its serial is given:
 * whatever follows hangs below the one chain. */
uint64_t cria_prefix_insert(cria_prefix *prefix, uint64_t salt, uint64_t parent, const int32_t *ids, int32_t block);
bool cria_prefix_holds(const cria_prefix *prefix, int32_t block);
/* The block's content is about to change. No entry: nothing happens. */
void cria_prefix_forget(cria_prefix *prefix, int32_t block);

#endif
