/* The plan as a picture: devices as columns, layers as rows, how each is cut as colours; below it the time line of the
 * schedule. Any thread. */
#ifndef CRIA_PARALLEL_PLAN_PLAN_SVG_H
#define CRIA_PARALLEL_PLAN_PLAN_SVG_H

#include "base/text.h"
#include "parallel/plan/stages.h"

void cria_plan_svg(const cria_stages_result *result, const cria_cluster *cluster, cria_text *out);

#endif
