/* The book of costs of the inter-operator pass: layers, the meshes that stages may have, the ways to run a stage on
 * each, and what every distinct layer costs in each of them. Private to the inter-operator pass.
 *
 * Layers that are alike (by the hash of their structure) and meshes that are alike (by the types of their devices and
 * where hosts change) share one entry, so that a cost is found once per distinct (layer, mesh, way). */
#ifndef CRIA_PARALLEL_PLAN_STAGES_BOOK_H
#define CRIA_PARALLEL_PLAN_STAGES_BOOK_H

#include "parallel/plan/stages_layer.h"

/* Operators [first_op, end_op) that are never cut over stages. */
typedef struct {
    int first_op, end_op;
    int kind;       /* layers of one kind cost the same */
    double inbound; /* bytes of values that come into it, of all its tokens (of phase 0; of phase 1 when serving) */
    double inbound_next;
    bool edge; /* before the first or after the last layer of the model */
    bool last; /* after the last one: never recomputed, since its backward pass follows at once */
} cria_stage_layer;

/* One way to run a stage on a mesh. */
typedef struct {
    int size[CRIA_MESH_AXES];
    cria_axis_use use[CRIA_MESH_AXES];
    bool searched; /* strategies of the intra-operator pass, with the boundary of `use` */
    bool experts;  /* cut over the axes of the batch (cria_layer_usual_way) */
} cria_way;

enum { CRIA_MAX_WAYS = 48 };

typedef struct {
    int *device; /* of one such mesh */
    int devices, hosts;
    cria_way way[CRIA_MAX_WAYS];
    int ways;
    double memory; /* of the smallest device */
} cria_mesh_kind;

typedef struct cria_stage_book cria_stage_book;

typedef struct {
    const cria_graph *graph;
    const cria_cluster *cluster;
    bool train;
    cria_step_shape phase[CRIA_PHASES];
    double repeat[CRIA_PHASES]; /* how often each phase runs: what the intra-operator pass minimises */
    cria_element element;
    double optimizer;
    int64_t sequences; /* that a batch axis can be cut into */
    int most_layers;   /* layers are put together to at most this many */
    bool search;       /* ask the intra-operator pass too, not only the usual ways */
} cria_book_task;

cria_status cria_stage_book_create(const cria_book_task *task, cria_stage_book **out, cria_error *err);
void cria_stage_book_destroy(cria_stage_book *book);

int cria_stage_book_layers(const cria_stage_book *book);
const cria_stage_layer *cria_stage_book_layer(const cria_stage_book *book, int layer);
/* Some layer has experts, so that ways with `experts` are among those of a mesh whose axes have parts of the batch. */
bool cria_stage_book_experts(const cria_stage_book *book);
const cria_layer_task *cria_stage_book_task(const cria_stage_book *book);

/* The number of a mesh like this one, which is added if it is new; < 0: no memory. */
int cria_stage_book_mesh(cria_stage_book *book, const int *device, int devices);
int cria_stage_book_meshes(const cria_stage_book *book);
const cria_mesh_kind *cria_stage_book_kind(const cria_stage_book *book, int mesh);
/* The way with these sizes and uses (of those that were searched or not); -1: there is none. */
int cria_stage_book_way(const cria_stage_book *book, int mesh, const cria_way *way);
/* The cost of a layer; NULL: it cannot be run so. Found on first use, then kept. */
const cria_layer_cost *cria_stage_book_cost(cria_stage_book *book, int layer, int mesh, int way);
/* The mesh of a way on actual devices; `share` as cria_cost_mesh. */
cria_mesh cria_stage_book_mesh_of(const cria_stage_book *book, const int *device, const cria_way *way, double *share);
/* Writes the strategies of the layer's operators under a way, as they were costed. */
bool cria_stage_book_strategies(cria_stage_book *book, int layer, int mesh, int way, cria_strategy *out);

#endif
