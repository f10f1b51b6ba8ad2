/* Block pool: a doubly linked free list over an array, in the order in which blocks are reused. */
#include "server/engine/blocks.h"

#include <assert.h>
#include <stdlib.h>

typedef struct {
    int32_t references;
    int32_t previous, next; /* in the free list, while free */
} block_state;

struct cria_blocks {
    cria_prefix *prefix;
    int64_t free_count;
    int32_t end;         /* the list's sentinel: states[count]; its next is reused first */
    block_state *states; /* [count + 1] */
};

static void link_between(cria_blocks *blocks, int32_t block, int32_t previous, int32_t next) {
    blocks->states[block].previous = previous;
    blocks->states[block].next = next;
    blocks->states[previous].next = block;
    blocks->states[next].previous = block;
    blocks->free_count++;
}

static void unlink_free(cria_blocks *blocks, int32_t block) {
    block_state *state = &blocks->states[block];
    blocks->states[state->previous].next = state->next;
    blocks->states[state->next].previous = state->previous;
    blocks->free_count--;
}

cria_status cria_blocks_create(int64_t count, cria_prefix *prefix, cria_blocks **out, cria_error *err) {
    *out = NULL;
    if (count < 1 || count >= INT32_MAX) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%lld KV blocks, must be 1 .. %d", (long long)count, INT32_MAX - 1);
    }
    cria_blocks *blocks = calloc(1, sizeof *blocks);
    if (blocks) blocks->states = calloc((size_t)count + 1, sizeof *blocks->states);
    if (!blocks || !blocks->states) {
        cria_blocks_destroy(blocks);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the states of %lld KV blocks", (long long)count);
    }
    blocks->prefix = prefix;
    blocks->end = (int32_t)count;
    blocks->states[count].previous = blocks->states[count].next = (int32_t)count;
    for (int32_t i = 0; i < count; i++) link_between(blocks, i, blocks->states[blocks->end].previous, blocks->end);
    *out = blocks;
    return CRIA_OK;
}

void cria_blocks_destroy(cria_blocks *blocks) {
    if (!blocks) return;
    free(blocks->states);
    free(blocks);
}

int32_t cria_blocks_take(cria_blocks *blocks) {
    int32_t block = blocks->states[blocks->end].next;
    if (block == blocks->end) return -1;
    unlink_free(blocks, block);
    blocks->states[block].references = 1;
    if (blocks->prefix) cria_prefix_forget(blocks->prefix, block);
    return block;
}

void cria_blocks_share(cria_blocks *blocks, int32_t block) {
    if (blocks->states[block].references++ == 0) unlink_free(blocks, block);
}

void cria_blocks_release(cria_blocks *blocks, int32_t block) {
    block_state *state = &blocks->states[block];
    assert(state->references > 0);
    if (--state->references > 0) return;
    /* What nobody can find again is reused before anything cached. */
    if (blocks->prefix && cria_prefix_holds(blocks->prefix, block)) {
        link_between(blocks, block, blocks->states[blocks->end].previous, blocks->end);
    } else {
        link_between(blocks, block, blocks->end, blocks->states[blocks->end].next);
    }
}

int64_t cria_blocks_free(const cria_blocks *blocks) {
    return blocks->free_count;
}

int32_t cria_blocks_references(const cria_blocks *blocks, int32_t block) {
    return blocks->states[block].references;
}
