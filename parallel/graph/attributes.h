/* Attributes of operators as graph files name them: one table for the writer and the reader. Private to parallel/graph.
 */
#ifndef CRIA_PARALLEL_GRAPH_ATTRIBUTES_H
#define CRIA_PARALLEL_GRAPH_ATTRIBUTES_H

#include "parallel/graph/graph.h"

#include <stddef.h>

typedef enum {
    CRIA_ATTRIBUTE_BOOL,
    CRIA_ATTRIBUTE_INT,
    CRIA_ATTRIBUTE_LONG, /* int64_t */
    CRIA_ATTRIBUTE_FLOAT,
    CRIA_ATTRIBUTE_ACTIVATION, /* by name */
    CRIA_ATTRIBUTE_OVER        /* names of dims of the first input */
} cria_attribute_type;

typedef struct {
    const char *name;
    cria_attribute_type type;
    size_t offset; /* in cria_op */
    double fallback, least, most;
    uint64_t kinds; /* bits 1 << cria_op_kind of those that have it */
} cria_attribute;

/* Up to one without a name. */
extern const cria_attribute cria_attributes[];
bool cria_attribute_applies(const cria_attribute *attribute, cria_op_kind kind);
/* The kinds whose output has the dims that the operator states. */
bool cria_op_states_dims(cria_op_kind kind);
/* The number in the operator; activations and `over` as their bits. */
double cria_attribute_get(const cria_attribute *attribute, const cria_op *op);
void cria_attribute_set(const cria_attribute *attribute, cria_op *op, double value);

/* Words of enumerations, in their order, up to NULL. */
extern const char *const cria_pass_words[];
extern const char *const cria_tensor_words[];     /* of cria_tensor_kind */
extern const char *const cria_param_words[];      /* of cria_param_kind */
extern const char *const cria_activation_words[]; /* of cria_activation_name */

#endif
