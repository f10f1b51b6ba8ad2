/* `cria plan --published`. */
#ifndef CRIA_SERVER_COMMANDS_PLAN_PUBLISHED_H
#define CRIA_SERVER_COMMANDS_PLAN_PUBLISHED_H

#include "parallel/plan/cluster.h"

/* Prints a row per measurement; `planned`: and the planner's own plan for each model. */
/* `cria plan --ablation`. */
cria_status cria_plan_ablation(const cria_cluster *host, bool json, cria_error *err);
cria_status cria_plan_published(const cria_cluster *host, bool json, bool planned, cria_error *err);

#endif
