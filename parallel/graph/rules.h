/* Rules: what a row of the operator table (parallel/graph/ops.c) is made of. Private to parallel/graph. */
#ifndef CRIA_PARALLEL_GRAPH_RULES_H
#define CRIA_PARALLEL_GRAPH_RULES_H

#include "parallel/graph/index.h"

/* The indices of one operator while they are being found. */
typedef struct cria_index_list {
    const cria_graph *graph;
    const cria_op *op;
    cria_op_index *index;
    int count;
} cria_index_list;

/* The tensor of an operand; NULL where an optional one is absent. */
const cria_tensor *cria_op_input(const cria_graph *graph, const cria_op *op, int input);

/* Indices by name: the output's dims are free, those of the inputs that the output does not have are summed over. */
void cria_indices_by_name(cria_index_list *list);
/* The others change what the names alone would say (parallel/graph/index.c). */
void cria_indices_norm(cria_index_list *list);
void cria_indices_rope(cria_index_list *list);
void cria_indices_attention(cria_index_list *list);
void cria_indices_gather(cria_index_list *list);
void cria_indices_sample(cria_index_list *list);

#endif
