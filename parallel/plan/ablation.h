/* Ablation: the settings of the Alpa paper's comparison of ways to cut operators on one host (OSDI'22, Fig. 8; data and
 * shapes of its artifact, exp_intra_ablation.py), and what this cost model makes of each way. Start-up thread. */
#ifndef CRIA_PARALLEL_PLAN_ABLATION_H
#define CRIA_PARALLEL_PLAN_ABLATION_H

#include "parallel/plan/cluster.h"
#include "parallel/plan/handmade.h"

/* The intra-operator pass, then the rules of cria_hand that were measured beside it, and Megatron-LM's. */
typedef enum {
    CRIA_ABLATION_ILP,
    CRIA_ABLATION_HEURISTIC,
    CRIA_ABLATION_ZERO2,
    CRIA_ABLATION_ZERO3,
    CRIA_ABLATION_DATA,
    CRIA_ABLATION_MEGATRON,
    CRIA_ABLATION_WAYS
} cria_ablation_way;

typedef struct {
    const char *family, *net; /* as the paper calls it; a whole training step */
    int devices;
    bool recompute;                      /* forward passes of the layers ran twice */
    double measured[CRIA_ABLATION_WAYS]; /* seconds of a step; 0: out of memory; < 0: not measured */
} cria_ablation_setting;

#define CRIA_ABLATION_SETTINGS 12
const cria_ablation_setting *cria_ablation_setting_of(int index);
const char *cria_ablation_name(cria_ablation_way way);

typedef struct {
    bool fits;
    double seconds; /* of a step; the best logical shape of the devices, where the way leaves it open */
    int size[CRIA_MESH_AXES];
    double communication;      /* part of `seconds` */
    int64_t peak_bytes, limit; /* per device */
} cria_ablation_result;

/* `host`: a cluster whose first host has the devices. */
cria_status cria_ablation_predict(const cria_cluster *host, int index, cria_ablation_way way, cria_ablation_result *out,
                                  cria_error *err);

#endif
