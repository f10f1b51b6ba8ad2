/* Splits the world into the groups of a plan: lines along each axis of every stage's mesh, and the stages. */
#include "parallel/execute/ranks.h"

cria_status cria_ranks_create(cria_comm *world, const cria_plan *plan, cria_ranks *out, cria_error *err) {
    int rank = cria_comm_rank(world), size = cria_comm_size(world);
    *out = (cria_ranks){.world = world};
    if (size != cria_plan_ranks(plan))
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the plan is for %d ranks, but %d were started", cria_plan_ranks(plan),
                         size);
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
        cria_status status = cria_comm_split(world, color[g], &out->group[g], err);
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
}

uint64_t cria_ranks_sent(const cria_ranks *ranks) {
    uint64_t sent = ranks->world ? cria_comm_sent(ranks->world) : 0;
    for (int g = 0; g < CRIA_GROUP_COUNT; g++) sent += ranks->group[g] ? cria_comm_sent(ranks->group[g]) : 0;
    return sent;
}
