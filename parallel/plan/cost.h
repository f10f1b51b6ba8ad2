/* Cost: seconds of an operator on a device, and of a collective along the axes of a mesh, from what a cluster says.
 *
 * Analytic (a roofline whose efficiencies depend on the kind of operator and on its shape), corrected by measured times
 * where the cluster has them: the logarithm of measured over analytic is a function of the shape, interpolated between
 * samples by inverse distance (Shepard 1968). Pure functions; any thread. */
#ifndef CRIA_PARALLEL_PLAN_COST_H
#define CRIA_PARALLEL_PLAN_COST_H

#include "parallel/plan/cluster.h"
#include "parallel/plan/strategy.h"

/* What one step works on. */
typedef struct {
    int64_t tokens; /* packed, of all sequences */
    int64_t rows;   /* those whose logits are wanted */
    int64_t sequences;
    double context; /* keys that a token sees, on average */
} cria_step_shape;

/* Bytes of one element as it is stored. */
typedef struct {
    cria_rate rate;    /* of the products */
    double weight;     /* parameters */
    double activation; /* values, on the wire too */
    double kv;         /* the KV cache */
    /* By tensor: the type of parameters that are not of type `rate`, e.g. of a head that is kept in more bits;
     * borrowed; NULL: all are. */
    const cria_rate *rate_of;
} cria_element;
/* The type of a parameter, and the bytes of one of its elements. */
cria_rate cria_element_rate(const cria_element *element, int tensor);
double cria_element_bytes(const cria_element *element, int tensor);

/* The work of an operator, or of one device's part of it. */
typedef struct {
    cria_op_kind kind;
    cria_rate rate; /* of the parameter that it multiplies, else of most */
    bool multiplies;
    double flops;
    double bytes; /* read and written: operands and result once, KV cache and embedding rows as far as used */
    double rows, columns, depth;
    double scores;                /* attention: elements of query times key */
    double sequences, kv_columns; /* attention: kv_heads * head_dim */
} cria_work;

/* Dims along which a batch may be cut: tokens, rows, sequences of a training batch. */
bool cria_dim_is_batch(cria_dim_name name);
/* The value of symbolic dims for an operator: rows after the gather, tokens before. */
int64_t cria_phase_symbolic(const cria_graph *graph, const cria_op *op, const cria_step_shape *phase);

/* The part of one device: `length[i]` is what it has of index i (cria_op_indices). NULL: the whole. */
cria_work cria_work_of(const cria_graph *graph, const cria_op *op, const cria_step_shape *phase,
                       const cria_element *element, const double *length);
/* Seconds on a device. */
double cria_cost_work(const cria_device_type *device, const cria_element *element, const cria_work *work);
/* Fills in a sample's place and its ratio to what is reckoned for it. */
void cria_cost_place_sample(const cria_device_type *device, cria_sample *sample);
/* Seconds on the slowest device of a mesh under a strategy. type[i]: of position i, row-major. */
double cria_cost_operator(const cria_cluster *cluster, const int *type, const cria_graph *graph, const cria_op *op,
                          const cria_mesh *mesh, const cria_step_shape *phase, const cria_element *element,
                          const cria_strategy *strategy);

/* Operations per second of large products; bytes per second of operators that stream. */
double cria_device_speed(const cria_device_type *device, cria_rate rate, bool streaming);

/* A mesh of size0 x size1 of the given devices, row-major, with latency and bandwidth of each axis: those of the host's
 * link where an axis stays inside hosts; else the host's network, shared by all rings along the axis that leave the
 * same host. `share` ([size0 + size1], kept by the caller) receives what each position should get in proportion to its
 * speed where devices differ. */
cria_mesh cria_cost_mesh(const cria_cluster *cluster, const int *device, int size0, int size1, cria_rate rate,
                         bool streaming, double *share);

/* Seconds to bring `bytes` (the whole array) from the devices of one stage to those of the next: each byte crosses the
 * slow link once, spread over all that can send, and is gathered inside the destination by as many as hold it
 * (`copies`; Zhuang et al., MLSys'23). */
double cria_cost_transfer(const cria_cluster *cluster, const int *from, int from_count, const int *to, int to_count,
                          double bytes, int copies);

#endif
