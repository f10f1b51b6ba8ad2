/* The table of nets: what a row is made of, and the parts that several nets share. Private to parallel/nets. */
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

/* A published size: values in the order of the keys; 0: the default. */
typedef struct {
    const char *name;
    int64_t value[CRIA_NETWORK_KEYS];
} cria_network_size;

typedef struct {
    const char *name, *help;
    cria_network_key key[CRIA_NETWORK_KEYS]; /* as many as have a name; "layers" comes first */
    const cria_network_size *sizes;          /* up to one without a name; NULL: none */
    /* Layers of the graph; NULL: the first key, if that is "layers", else one. */
    int (*layers)(const int64_t *value);
    /* `value` in the order of the keys, each in its range. Errors of the graph may be left for cria_graph_check. */
    cria_status (*build)(const int64_t *value, cria_graph *graph, cria_error *err);
} cria_network_info;

extern const cria_network_info cria_network_mlp, cria_network_attention, cria_network_gpt, cria_network_moe,
    cria_network_wide_resnet, cria_network_chain, cria_network_sum;

/* A net being built: each part belongs to the layer that is set. */
typedef struct {
    cria_graph *graph;
    int layer;
} cria_network;

/* A dim by its name, fixed or registered. */
cria_dim cria_network_dim(cria_network *net, const char *name, int64_t extent);
int cria_network_param(cria_network *net, int dims, const cria_dim *dim, const char *name);
int cria_network_input(cria_network *net, int dims, const cria_dim *dim, const char *name);
/* Any operator, named; its layer is set. Two without attributes. */
int cria_network_op(cria_network *net, cria_op op, const char *name);
int cria_network_unary(cria_network *net, cria_op_kind kind, int x, const char *name);
int cria_network_binary(cria_network *net, cria_op_kind kind, int a, int b, const char *name);
int cria_network_activation(cria_network *net, int x, cria_activation_name activation, const char *name);
/* The sum of scale * a * b over all that `dim` lacks; b may be CRIA_NO_TENSOR. */
int cria_network_einsum(cria_network *net, int a, int b, float scale, int dims, const cria_dim *dim, const char *name);
int cria_network_reshape(cria_network *net, int x, int dims, const cria_dim *dim, const char *name);
/* x contracted over its last `in` dims with a new weight, into `kept` dims that follow those of x that stay; with a
 * bias over the kept dims if asked. */
int cria_network_linear(cria_network *net, int x, int in, const cria_dim *kept, int kept_count, bool bias,
                        const char *name);
/* Layer norm with weight and bias over the last dim, or batch norm over all others. */
int cria_network_norm(cria_network *net, int x, bool batch, const char *name);
/* The mean of the cross entropy of logits against an input "labels". */
int cria_network_loss(cria_network *net, int logits);
/* Gradients and updates, by Adam or plain gradient descent. */
cria_status cria_network_train(cria_network *net, int loss, bool adam, cria_error *err);

/* Transformers (parallel/nets/transformer.c). */
typedef struct {
    cria_network net;
    cria_dim batch, sequence, hidden, head, head_dim, ffn, vocab;
} cria_transformer;
/* Heads must divide hidden. */
cria_status cria_transformer_init(cria_transformer *t, cria_graph *graph, int64_t batch, int64_t sequence,
                                  int64_t hidden, int64_t heads, int64_t ffn, int64_t vocab, cria_error *err);
int cria_transformer_embed(cria_transformer *t, int *table);
/* x + attention(norm(x)); x + ffn(norm(x)). */
int cria_transformer_attention(cria_transformer *t, int x);
int cria_transformer_ffn(cria_transformer *t, int x, cria_activation_name activation);
/* Final norm and LM head; table: tied to the embedding, or CRIA_NO_TENSOR. */
int cria_transformer_head(cria_transformer *t, int x, int table);

#endif
