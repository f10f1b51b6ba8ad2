/* Published: the GPT weak-scaling measurements of the Alpa paper (OSDI'22, Fig. 7a and Table 5; data of its artifact),
 * on p3.16xlarge hosts, and what this cost model predicts for the plans behind them. Start-up thread. */
#ifndef CRIA_PARALLEL_PLAN_PUBLISHED_H
#define CRIA_PARALLEL_PLAN_PUBLISHED_H

#include "parallel/plan/stages.h"

typedef struct {
    const char *size; /* of net gpt */
    int hosts, devices;
    double alpa, megatron; /* measured TFLOP/s a GPU, as Alpa counts operations */
    /* Alpa's plan where it was published; stages == 0: it was not. */
    int64_t micro_batch;
    int stages;
    cria_hand_stage stage;    /* of every stage, if they are alike */
    cria_hand_stage first[3]; /* if they are not: all of them */
} cria_published_point;

#define CRIA_PUBLISHED_POINTS 7
const cria_published_point *cria_published_point_of(int index);

typedef enum { CRIA_PUBLISHED_ALPA, CRIA_PUBLISHED_MEGATRON } cria_published_method;

/* The price of the published plan; where none was published, of the best grid of data, tensors and stages under this
 * model. Activations are recomputed, as in all the measurements; Megatron-LM's grids are without ZeRO. `host`: a
 * cluster whose first host is repeated. */
cria_status cria_published_predict(const cria_cluster *host, int index, cria_published_method method,
                                   cria_plan_summary *out, cria_error *err);
/* The planner's own answer for the same model and devices, everything free. */
cria_status cria_published_plan(const cria_cluster *host, int index, cria_plan_summary *out, cria_error *err);

#endif
