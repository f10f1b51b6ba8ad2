/* The table of nets: what a row is made of. Private to parallel/nets. */
#ifndef CRIA_PARALLEL_NETS_TABLE_H
#define CRIA_PARALLEL_NETS_TABLE_H

#include "parallel/graph/gradient.h"
#include "parallel/graph/graph.h"

#define CRIA_NETWORK_KEYS 16

typedef struct {
    const char *name;
    int64_t fallback, least, most;
    const char *help;
} cria_network_key;

/* A published size: values of the first keys; 0: the default. */
typedef struct {
    const char *name;
    int64_t value[CRIA_NETWORK_KEYS];
} cria_network_size;

typedef struct {
    const char *name, *help;
    cria_network_key key[CRIA_NETWORK_KEYS]; /* as many as have a name */
    const cria_network_size *sizes;          /* up to one without a name; NULL: none */
    /* `value` in the order of the keys, each in its range. Errors of the graph may be left for cria_graph_check. */
    cria_status (*build)(const int64_t *value, cria_graph *graph, cria_error *err);
} cria_network_info;

/* Parts that several nets are made of (parallel/nets/parts.c). Each takes the layer that its operators belong to. */
typedef struct {
    cria_graph *graph;
    int layer;
} cria_network;

int cria_network_param(cria_network *net, int dims, const cria_dim *dim, const char *name);
/* The sum of scale * a * b over all that `dim` lacks; b may be CRIA_NO_TENSOR. */
int cria_network_einsum(cria_network *net, int a, int b, float scale, int dims, const cria_dim *dim, const char *name);
int cria_network_binary(cria_network *net, cria_op_kind kind, int a, int b, const char *name);
/* x contracted with a new weight of `in` dims (those of x that it sums over) and `kept` output dims, which follow the
 * dims of x that stay; with a bias over the output dims if asked. */
int cria_network_linear(cria_network *net, int x, int in, const cria_dim *kept, int kept_count, bool bias,
                        const char *name);

extern const cria_network_info cria_network_mlp;

#endif
