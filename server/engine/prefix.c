/* Prefix cache as a chained hash table whose nodes are the blocks themselves: no allocation after creation. */
#include "server/engine/prefix.h"

#include "base/checked.h"
#include "base/random.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t salt, parent, hash;
    uint64_t serial; /* 0: no entry */
    int32_t next;    /* in the bucket; -1: last */
} entry;

struct cria_prefix {
    size_t block_tokens;
    uint64_t seed; /* so that clients cannot aim at one bucket */
    uint64_t last_serial;
    size_t mask;      /* buckets - 1 */
    int32_t *buckets; /* first block of each; -1: empty */
    entry *entries;   /* [blocks] */
    int32_t *ids;     /* [blocks][block_tokens] */
};

static uint64_t mix(uint64_t value) {
    value ^= value >> 32;
    value *= UINT64_C(0xd6e8feb86659fd93);
    value ^= value >> 32;
    value *= UINT64_C(0xd6e8feb86659fd93);
    return value ^ (value >> 32);
}

static uint64_t key_hash(const cria_prefix *prefix, uint64_t salt, uint64_t parent, const int32_t *ids) {
    uint64_t hash = mix(prefix->seed ^ salt);
    hash = mix(hash ^ parent);
    for (size_t i = 0; i < prefix->block_tokens; i++) hash = mix(hash ^ (uint32_t)ids[i]);
    return hash;
}

cria_status cria_prefix_create(int64_t blocks, int64_t block_tokens, cria_prefix **out, cria_error *err) {
    *out = NULL;
    size_t buckets = 16, ids;
    if (blocks < 1 || blocks >= INT32_MAX || block_tokens < 1 || !cria_mul_size(blocks, block_tokens, &ids)) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "prefix cache of %lld blocks of %lld tokens", (long long)blocks,
                         (long long)block_tokens);
    }
    while (buckets < (size_t)blocks * 2) buckets *= 2;
    cria_prefix *prefix = calloc(1, sizeof *prefix);
    if (prefix) {
        prefix->buckets = malloc(buckets * sizeof *prefix->buckets);
        prefix->entries = calloc((size_t)blocks, sizeof *prefix->entries);
        prefix->ids = calloc(ids, sizeof *prefix->ids);
    }
    if (!prefix || !prefix->buckets || !prefix->entries || !prefix->ids) {
        cria_prefix_destroy(prefix);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a prefix cache of %lld blocks", (long long)blocks);
    }
    prefix->block_tokens = (size_t)block_tokens;
    prefix->seed = cria_random_seed();
    prefix->mask = buckets - 1;
    for (size_t i = 0; i < buckets; i++) prefix->buckets[i] = -1;
    *out = prefix;
    return CRIA_OK;
}

void cria_prefix_destroy(cria_prefix *prefix) {
    if (!prefix) return;
    free(prefix->buckets);
    free(prefix->entries);
    free(prefix->ids);
    free(prefix);
}

static int32_t find(const cria_prefix *prefix, uint64_t hash, uint64_t salt, uint64_t parent, const int32_t *ids) {
    for (int32_t b = prefix->buckets[hash & prefix->mask]; b >= 0; b = prefix->entries[b].next) {
        const entry *e = &prefix->entries[b];
        if (e->hash != hash || e->salt != salt || e->parent != parent) continue;
        if (memcmp(prefix->ids + (size_t)b * prefix->block_tokens, ids, prefix->block_tokens * sizeof *ids) == 0) {
            return b;
        }
    }
    return -1;
}

uint64_t cria_prefix_find(const cria_prefix *prefix, uint64_t salt, uint64_t parent, const int32_t *ids,
                          int32_t *block) {
    int32_t found = find(prefix, key_hash(prefix, salt, parent, ids), salt, parent, ids);
    if (found < 0) return 0;
    *block = found;
    return prefix->entries[found].serial;
}

uint64_t cria_prefix_insert(cria_prefix *prefix, uint64_t salt, uint64_t parent, const int32_t *ids, int32_t block) {
    uint64_t hash = key_hash(prefix, salt, parent, ids);
    int32_t found = find(prefix, hash, salt, parent, ids);
    if (found >= 0) return prefix->entries[found].serial;
    entry *e = &prefix->entries[block];
    assert(!e->serial);
    int32_t *bucket = &prefix->buckets[hash & prefix->mask];
    *e = (entry){.salt = salt, .parent = parent, .hash = hash, .serial = ++prefix->last_serial, .next = *bucket};
    *bucket = block;
    memcpy(prefix->ids + (size_t)block * prefix->block_tokens, ids, prefix->block_tokens * sizeof *ids);
    return e->serial;
}

bool cria_prefix_holds(const cria_prefix *prefix, int32_t block) {
    return prefix->entries[block].serial != 0;
}

void cria_prefix_forget(cria_prefix *prefix, int32_t block) {
    entry *e = &prefix->entries[block];
    if (!e->serial) return;
    int32_t *link = &prefix->buckets[e->hash & prefix->mask];
    while (*link != block) link = &prefix->entries[*link].next;
    *link = e->next;
    e->serial = 0;
}
