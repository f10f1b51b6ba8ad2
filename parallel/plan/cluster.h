/* Cluster: the devices that a plan may use, on their hosts, with what they compute and how fast they talk.
 *
 * Read from JSON (docs/cluster.schema.json); a profile written by `cria profile` is a cluster with measured times.
 * Devices are numbered over the hosts in the order of the file. Immutable once made; any thread. */
#ifndef CRIA_PARALLEL_PLAN_CLUSTER_H
#define CRIA_PARALLEL_PLAN_CLUSTER_H

#include "base/json.h"
#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>

/* Numeric types that devices have different speeds for. */
typedef enum {
    CRIA_RATE_F32,
    CRIA_RATE_F16,
    CRIA_RATE_BF16,
    CRIA_RATE_INT8,
    CRIA_RATE_Q8, /* 8 and 4 bits with a scale (Q4: and a minimum) to every group of 32 */
    CRIA_RATE_Q4,
    CRIA_RATE_Q4_0,
    CRIA_RATE_Q8_FINE,   /* the same weights with activations of more bits, */
    CRIA_RATE_Q4_COARSE, /* and of fewer: types of this runtime's own, which a profile measures */
    CRIA_RATE_Q4_0_COARSE,
    CRIA_RATE_COUNT
} cria_rate;
const char *cria_rate_name(cria_rate rate);
/* Bytes of one element, scales included. */
double cria_rate_bytes(cria_rate rate);

/* One measured time: `rows` of the symbolic dim times a weight of columns x depth; attention: rows of all sequences,
 * `depth` keys, `columns` heads * head_dim; others: rows x columns elements. */
typedef struct {
    int operator_kind; /* cria_op_kind */
    cria_rate rate;    /* of the weights; attention: of the KV cache; for others it does not matter */
    double rows, columns, depth, seconds;
    double sequences, kv_columns; /* attention: kv_heads * head_dim */
    double ratio, at[5];          /* found when a cluster is made: log of measured over analytic, place (cost.c) */
} cria_sample;

/* One measured collective: bytes of the whole array. */
typedef enum { CRIA_LINK_ALL_REDUCE, CRIA_LINK_ALL_GATHER, CRIA_LINK_SEND, CRIA_LINK_OPERATIONS } cria_link_operation;
const char *cria_link_operation_name(cria_link_operation operation);
typedef struct {
    cria_link_operation operation;
    double bytes, seconds;
} cria_link_sample;

typedef struct {
    char name[32];
    double flops[CRIA_RATE_COUNT]; /* peak per second; 0: the type is not supported */
    double memory;                 /* bytes */
    double bandwidth;              /* bytes per second of its memory */
    /* What of the peaks is reached (docs/planning.md says where each comes from). */
    double matmul;             /* large products: part of `flops` */
    double half;               /* a product with this many columns (or depth) reaches half of that */
    double attention;          /* part of `flops` in attention's products */
    double streaming;          /* part of `bandwidth` in operators that only read and write */
    double launch;             /* seconds before an operator begins */
    double score_passes;       /* how often attention reads or writes a score in memory; 0: it never leaves the chip */
    double fused;              /* part of additions and activations that costs nothing beside the product before it */
    const cria_sample *sample; /* owned by the cluster */
    int samples;
} cria_device_type;

typedef struct {
    double latency;   /* seconds of a message */
    double bandwidth; /* bytes per second: between two devices of a host, or of one host's network */
} cria_link;

typedef struct {
    int first_device, devices;
    cria_link link;
} cria_host;

typedef struct cria_cluster cria_cluster;

/* A cluster as plain data, e.g. as it was measured. Devices lie in order of their hosts. */
typedef struct {
    const char *name;
    const cria_device_type *type; /* [types], with their samples */
    int types;
    const cria_link *link; /* [hosts] */
    int hosts;
    const int *type_of, *host_of; /* [devices] */
    int devices;
    cria_link network;
} cria_cluster_parts;
/* Copies all of it. */
cria_status cria_cluster_create(const cria_cluster_parts *parts, cria_cluster **out, cria_error *err);
/* Appends it as JSON that cria_cluster_from_json reads back. links: [links] measurements of the hosts' links, NULL:
 * none; `note` may be NULL. */
void cria_cluster_print(const cria_cluster *cluster, const char *note, const cria_link_sample *links, int count,
                        cria_text *out);

cria_status cria_cluster_from_json(const cria_json_value *root, cria_cluster **out, cria_error *err);
/* `path` may end in ":HOSTSxDEVICES" (":8" for one host), which repeats the first host of the file so often with so
 * many devices. */
cria_status cria_cluster_read(const char *path, cria_cluster **out, cria_error *err);
/* The same with the first host so often, each with `devices` of its first device. */
cria_status cria_cluster_resize(const cria_cluster *cluster, int hosts, int devices, cria_cluster **out,
                                cria_error *err);
void cria_cluster_destroy(cria_cluster *cluster);

const char *cria_cluster_name(const cria_cluster *cluster);
int cria_cluster_devices(const cria_cluster *cluster);
int cria_cluster_hosts(const cria_cluster *cluster);
int cria_cluster_types(const cria_cluster *cluster);
const cria_host *cria_cluster_host(const cria_cluster *cluster, int host);
int cria_cluster_host_of(const cria_cluster *cluster, int device);
const cria_link *cria_cluster_network(const cria_cluster *cluster);
int cria_cluster_type_of(const cria_cluster *cluster, int device);
const cria_device_type *cria_cluster_type(const cria_cluster *cluster, int type);

#endif
