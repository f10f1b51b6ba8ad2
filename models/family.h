/* Families: one graph builder each. Adding a family is a builder and a row in cria_model_graph. Start-up thread. */
#ifndef CRIA_MODELS_FAMILY_H
#define CRIA_MODELS_FAMILY_H

#include "models/config.h"
#include "parallel/graph/graph.h"

/* Builds the graph of a configuration; parameter names are those of the Hugging Face checkpoint. The caller destroys
 * it. */
cria_status cria_model_graph(const cria_model_config *config, cria_graph **out, cria_error *err);

/* The builders behind it. `graph` is empty. */
void cria_opt_build(const cria_model_config *config, cria_graph *graph);
void cria_llama_build(const cria_model_config *config, cria_graph *graph, cria_error *err);

/* For the builders, on the value behind a layer's attention and its residual: the last layer's rows that need logits;
 * another layer's value as it is. */
int cria_gather_logits_rows(const cria_model_config *config, cria_graph *graph, int layer, int x);

#endif
