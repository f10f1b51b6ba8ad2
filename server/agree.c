/* One exchange of states and hashes; everyone draws the same conclusion. */
#include "server/agree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE = 64, MOST_SAMPLED = 32 };

typedef struct {
    int32_t status;
    char why[180];
    uint64_t hash[CRIA_AGREE_MOST];
} opinion;

uint64_t cria_hash_bytes(uint64_t hash, const void *data, size_t bytes) {
    const uint8_t *p = data;
    if (hash == 0) hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* The first and the last bytes of the values. */
static uint64_t hash_ends(uint64_t hash, const cria_weight_view *view) {
    size_t n = view->bytes < SAMPLE ? view->bytes : SAMPLE;
    hash = cria_hash_bytes(hash, view->data, n);
    return cria_hash_bytes(hash, (const uint8_t *)view->data + view->bytes - n, n);
}

uint64_t cria_hash_weights(const cria_weights *weights) {
    uint64_t hash = 0;
    size_t count = cria_weights_count(weights), samples = count < MOST_SAMPLED ? count : MOST_SAMPLED;
    for (size_t i = 0; i < count; i++) {
        const cria_weight_view *view = cria_weights_at(weights, i);
        hash = cria_hash_bytes(hash, view->name, strlen(view->name));
        hash = cria_hash_bytes(hash, &view->type, sizeof view->type);
        hash = cria_hash_bytes(hash, view->shape, (size_t)view->dims * sizeof *view->shape);
    }
    /* Evenly over all, the first and the last among them. */
    for (size_t i = 0; i < samples; i++)
        hash = hash_ends(hash, cria_weights_at(weights, samples > 1 ? i * (count - 1) / (samples - 1) : 0));
    return hash;
}

/* all: [size] of `bytes` each. */
static cria_status gather(cria_comm *comm, const void *mine, void *all, size_t bytes, cria_error *err) {
    int64_t counts[CRIA_COMM_MAX_RANKS];
    for (int r = 0; r < cria_comm_size(comm); r++) counts[r] = (int64_t)bytes;
    return cria_comm_all_gather(comm, mine, all, counts, err);
}

static cria_status conclude(const opinion *all, int size, const cria_agreement *agreement, cria_error *err) {
    for (int r = 0; r < size; r++)
        if (all[r].status != CRIA_OK) return cria_fail(err, (cria_status)all[r].status, "rank %d: %s", r, all[r].why);
    for (int i = 0; agreement && i < CRIA_AGREE_MOST && agreement->name[i]; i++)
        for (int r = 1; r < size; r++)
            if (all[r].hash[i] != all[0].hash[i])
                return cria_fail(err, CRIA_ERR_ARGUMENT, "rank 0 and rank %d have different %s (%016llx and %016llx)",
                                 r, agreement->name[i], (unsigned long long)all[0].hash[i],
                                 (unsigned long long)all[r].hash[i]);
    return CRIA_OK;
}

cria_status cria_agree(cria_comm *comm, cria_status status, const cria_error *why, const cria_agreement *agreement,
                       cria_error *err) {
    int size = cria_comm_size(comm);
    opinion mine = {.status = status};
    if (status != CRIA_OK) snprintf(mine.why, sizeof mine.why, "%.*s", (int)sizeof mine.why - 1, why->message);
    if (agreement) memcpy(mine.hash, agreement->hash, sizeof mine.hash);
    opinion *all = calloc((size_t)size, sizeof *all);
    if (!all) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to hear %d ranks", size);
    cria_status result = gather(comm, &mine, all, sizeof mine, err);
    if (result == CRIA_OK) result = conclude(all, size, agreement, err);
    free(all);
    return result;
}

cria_status cria_share_notes(cria_comm *comm, const cria_rank_note *mine, cria_rank_note *all, cria_error *err) {
    return gather(comm, mine, all, sizeof *mine, err);
}
