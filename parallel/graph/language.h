/* Language: turns a model's graph, whose tokens come as they come, into one of training on whole sequences. Start-up
 * thread, while the graph is built. */
#ifndef CRIA_PARALLEL_GRAPH_LANGUAGE_H
#define CRIA_PARALLEL_GRAPH_LANGUAGE_H

#include "parallel/graph/graph.h"

/* Takes the sampler away, makes the tokens of a step `sequences` whole sequences of `length`, and adds the mean cross
 * entropy of the logits against a new input "labels"[row]: for each token the one that follows it, -1 for the last of a
 * sequence, which has none (so that the mean is over sequences * (length - 1)). Every token has a row. Weights are not
 * quantised in groups. *loss: a scalar, for cria_graph_train. A graph that does not end with a sampler, and sequences
 * that its positions do not reach, are CRIA_ERR_ARGUMENT. */
cria_status cria_graph_add_language_loss(cria_graph *graph, int64_t sequences, int64_t length, int *loss,
                                         cria_error *err);

#endif
