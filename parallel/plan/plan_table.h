/* The plan as a table for people, and as one JSON object for programs. Any thread. */
#ifndef CRIA_PARALLEL_PLAN_PLAN_TABLE_H
#define CRIA_PARALLEL_PLAN_PLAN_TABLE_H

#include "base/text.h"
#include "parallel/plan/stages.h"

void cria_plan_table(const cria_stages_result *result, const cria_cluster *cluster, cria_text *out);
void cria_plan_table_json(const cria_stages_result *result, cria_text *out);

#endif
