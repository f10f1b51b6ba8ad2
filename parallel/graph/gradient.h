/* Gradient: reverse-mode differentiation of a graph into more operators of the same graph, and the updates that make a
 * training step of it. Start-up thread, while the graph is built. */
#ifndef CRIA_PARALLEL_GRAPH_GRADIENT_H
#define CRIA_PARALLEL_GRAPH_GRADIENT_H

#include "parallel/graph/graph.h"

/* A differentiation under way: what the gradient rules of the operator table see of it. */
typedef struct cria_backward cria_backward;
cria_graph *cria_backward_graph(cria_backward *backward);
/* Whether anything asks for the gradient of an operator's input. */
bool cria_backward_wants(const cria_backward *backward, const cria_op *op, int input);
/* Adds an operator of the backward pass, named after the input whose gradient it computes, to that gradient. */
void cria_backward_give(cria_backward *backward, const cria_op *op, int input, cria_op by);
/* Adds a tensor that exists to the gradient of an input. */
void cria_backward_pass(cria_backward *backward, const cria_op *op, int input, int gradient);
/* Adds an operator that only helps to compute gradients. */
int cria_backward_help(cria_backward *backward, const cria_op *op, cria_op by, const char *what);

/* Appends the operators that compute the gradients of sum(seed * output) with respect to every parameter that `output`
 * depends on, and to the inputs marked as differentiable. `seed` has the dims of `output`. Writes to gradient[t], for
 * the tensors that the graph has at the time of the call, the tensor that holds the gradient or CRIA_NO_TENSOR. A
 * tensor that several operators read gets the sum of what each of them gives. An operator on the way that has no
 * gradient is CRIA_ERR_UNSUPPORTED. (Reverse accumulation; Griewank and Walther, Evaluating Derivatives, chapter 3.) */
cria_status cria_graph_backward(cria_graph *graph, int output, int seed, int *gradient, cria_error *err);
/* The same for a scalar loss: the seed is 1. */
cria_status cria_graph_gradient(cria_graph *graph, int loss, int *gradient, cria_error *err);

typedef enum { CRIA_OPTIMIZER_SGD, CRIA_OPTIMIZER_ADAM } cria_optimizer_kind;

/* Adam as Kingma and Ba (2015) give it; SGD uses `rate` alone. */
typedef struct {
    cria_optimizer_kind kind;
    float rate, beta1, beta2, eps;
} cria_optimizer;

/* Appends an update of every parameter that has a gradient; gradient[tensors] as written above, `count` entries. Adam
 * adds two states per parameter ("... mean", "... variance") and a scalar input "step" that counts from 1. */
cria_status cria_graph_update(cria_graph *graph, const int *gradient, int count, const cria_optimizer *optimizer,
                              cria_error *err);
/* cria_graph_gradient and cria_graph_update: a whole training step. */
cria_status cria_graph_train(cria_graph *graph, int loss, const cria_optimizer *optimizer, cria_error *err);

#endif
