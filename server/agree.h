/* Agreement: all ranks check, together, that none has failed and that they are about to run the same thing. */
#ifndef CRIA_SERVER_AGREE_H
#define CRIA_SERVER_AGREE_H

#include "models/weights/weights.h"
#include "parallel/comm/comm.h"

#include <stdint.h>

/* What must be the same on every rank: each a name for the message and a hash. */
enum { CRIA_AGREE_MOST = 8 };
typedef struct {
    const char *name[CRIA_AGREE_MOST]; /* NULL ends the list */
    uint64_t hash[CRIA_AGREE_MOST];
} cria_agreement;

/* FNV-1a, continued from `hash` (0: begin). */
uint64_t cria_hash_bytes(uint64_t hash, const void *data, size_t bytes);
/* Names, types and shapes of all tensors, and some bytes of 32 of them: whether two checkpoints are the same, at the
 * cost of at most 64 pages of the files, however large they are. */
uint64_t cria_hash_weights(const cria_weights *weights);

/* Collective. `status` and `why`: how this rank has fared so far. Every rank returns the same: CRIA_OK, the first
 * rank's failure as "rank R: why", or CRIA_ERR_ARGUMENT naming what differs and between whom. */
cria_status cria_agree(cria_comm *comm, cria_status status, const cria_error *why, const cria_agreement *agreement,
                       cria_error *err);

/* Where a rank runs and what it holds. */
typedef struct {
    char host[64];
    int32_t pid, threads, stage;
    int64_t weight_bytes, kv_bytes, workspace_bytes, step_bytes; /* step_bytes: sent in a step of one token */
} cria_rank_note;
/* Collective; all: [size of comm]. */
cria_status cria_share_notes(cria_comm *comm, const cria_rank_note *mine, cria_rank_note *all, cria_error *err);

#endif
