/* Planned: the plan that several ranks run, chosen for the devices that they are, and what it is predicted to take. */
#ifndef CRIA_SERVER_COMMANDS_PLANNED_H
#define CRIA_SERVER_COMMANDS_PLANNED_H

#include "parallel/plan/predict.h"
#include "server/commands/ranks.h"

/* Whether the options ask for a plan to be made: --plan auto, or several ranks and no plan file. */
bool cria_plan_is_auto(const cria_main_options *options, int ranks);

/* The joined ranks as a cluster: their cached profile, else calibrated together in under a second. Collective; only the
 * first rank gets the cluster, the others NULL. threads: of each rank. */
cria_status cria_ranks_cluster(const cria_command *command, const cria_ranks_joined *ranks, int threads,
                               cria_cluster **out, cria_error *err);

/* Makes the plan of the joined ranks where one is to be made and hands it out: ranks->plan_json on every rank,
 * ranks->cluster on the first. Ranks that the plan does not need are idle from then on (cria_ranks_is_idle), the others
 * have a communicator of their own. Prints the plan's table. Collective. */
cria_status cria_ranks_plan(const cria_command *command, cria_ranks_joined *ranks, cria_error *err);

/* What a command does on one rank that the plan needs; `context` is the command's own. */
typedef cria_status cria_ranks_body(const cria_command *command, cria_ranks_joined *ranks, void *context,
                                    cria_error *err);
/* A command's whole life on its ranks: starts them (cria_ranks_launch), joins, plans, runs `body` while ranks that the
 * plan leaves idle wait for the end, and leaves. */
cria_status cria_ranks_run(const cria_command *command, cria_ranks_body *body, void *context, cria_error *err);

/* What is needed to predict the runtime's plan on the ranks' devices; false: no cluster is known. */
bool cria_ranks_predicted(const cria_command *command, cria_ranks_joined *ranks, const cria_runtime *runtime,
                          cria_predicted_plan *out);

#endif
