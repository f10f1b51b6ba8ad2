/* Names: the dims of a graph with the units at which they are cut, and its tensors by name. Private to parallel/graph.
 */
#ifndef CRIA_PARALLEL_GRAPH_NAMES_H
#define CRIA_PARALLEL_GRAPH_NAMES_H

#include "parallel/graph/graph.h"

#include <stddef.h>

/* Doubles an array when it is full; false when memory is out. */
bool cria_graph_grow(void **array, int count, int *capacity, size_t size);

typedef struct {
    char text[32];
    int64_t unit;
    bool batch; /* cria_graph_is_batch */
} cria_dim_entry;

typedef struct {
    cria_dim_name large, small;
    int64_t ratio;
} cria_dim_link;

typedef struct {
    cria_dim_entry *entry; /* [CRIA_DIM_COUNT + registered] */
    int count, capacity;
    cria_dim_link *link;
    int links, link_capacity;
} cria_dim_table;

/* With the fixed names; false when memory is out. */
bool cria_dim_table_init(cria_dim_table *table);
void cria_dim_table_deinit(cria_dim_table *table);
/* Number of a name, which is added where it is new; -1 with the reason in *why. */
int cria_dim_table_find(cria_dim_table *table, const char *name, const char **why);
void cria_dim_table_raise(cria_dim_table *table, cria_dim_name name, int64_t unit);
/* NULL, or why not. */
const char *cria_dim_table_link(cria_dim_table *table, cria_dim_name large, cria_dim_name small, int64_t ratio);

/* Open addressing over the names of tensors, which stay where they are: slots hold ids. */
typedef struct {
    int *slot; /* [capacity]; -1: free */
    int count, capacity;
} cria_tensor_index;

void cria_tensor_index_deinit(cria_tensor_index *index);
/* The tensor of that name; CRIA_NO_TENSOR if there is none. */
int cria_tensor_index_find(const cria_tensor_index *index, const cria_tensor *tensors, const char *name);
/* Adds tensors[id]; false when memory is out. */
bool cria_tensor_index_add(cria_tensor_index *index, const cria_tensor *tensors, int id);
/* Makes a name unlike all others by a number at its end. */
void cria_tensor_index_unique(const cria_tensor_index *index, const cria_tensor *tensors, char name[96]);
/* Forgets tensors[id], the last that was added. */
void cria_tensor_index_drop(cria_tensor_index *index, const cria_tensor *tensors, int id);

#endif
