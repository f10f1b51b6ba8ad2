/* Splits the world into the groups of a plan: lines along each axis of every stage's mesh, and the stages. */
#include "parallel/execute/ranks.h"

cria_status cria_ranks_create(cria_comm *all, const cria_plan *plan, int replicas, cria_ranks *out, cria_error *err) {
    int size = cria_plan_ranks(plan), rank = cria_comm_rank(all) % size;
    *out = (cria_ranks){.all = all, .replicas = replicas, .world = all};
    if (cria_comm_size(all) != size * replicas)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%d replicas of a plan for %d ranks need %d, but %d were started",
                         replicas, size, size * replicas, cria_comm_size(all));
    if (replicas > 1) CRIA_TRY(cria_comm_split(all, cria_comm_rank(all) / size, &out->world, err));
    if (size == 1) return CRIA_OK;
    const cria_stage *stage = cria_plan_stage(plan, cria_plan_stage_of_rank(plan, rank));
    int place = rank - stage->first_rank, columns = stage->mesh.size[1], rows = stage->mesh.size[0];
    /* Colours are the first rank of each group, which no other group of its kind has; a group of one needs none. */
    const int color[CRIA_GROUP_COUNT] = {
        [CRIA_GROUP_AXIS0] = rows > 1 ? stage->first_rank + place % columns : -1,
        [CRIA_GROUP_AXIS1] = columns > 1 ? stage->first_rank + place / columns * columns : -1,
        [CRIA_GROUP_STAGE] = rows > 1 && columns > 1 ? stage->first_rank : -1,
    };
    for (int g = 0; g < CRIA_GROUP_COUNT; g++) {
        cria_status status = cria_comm_split(out->world, color[g], &out->group[g], err);
        if (status == CRIA_OK) continue;
        cria_ranks_destroy(out);
        return status;
    }
    return CRIA_OK;
}

void cria_ranks_destroy(cria_ranks *ranks) {
    for (int g = CRIA_GROUP_COUNT - 1; g >= 0; g--) {
        cria_comm_destroy(ranks->group[g]);
        ranks->group[g] = NULL;
    }
    if (ranks->world != ranks->all) cria_comm_destroy(ranks->world);
    ranks->world = ranks->all;
}

uint64_t cria_ranks_sent(const cria_ranks *ranks) {
    uint64_t sent = ranks->world ? cria_comm_sent(ranks->world) : 0;
    for (int g = 0; g < CRIA_GROUP_COUNT; g++) sent += ranks->group[g] ? cria_comm_sent(ranks->group[g]) : 0;
    return sent;
}
