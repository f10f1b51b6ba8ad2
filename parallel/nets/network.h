/* Nets: named networks to plan, the paper's and those of its tests, each built as a graph from a short specification.
 * Start-up thread. docs/nets.md lists them. */
#ifndef CRIA_PARALLEL_NETS_NETWORK_H
#define CRIA_PARALLEL_NETS_NETWORK_H

#include "base/text.h"
#include "parallel/graph/graph.h"

/* "mlp:layers=2,hidden=128,train=1": a name, then keys with whole numbers; what is left out has its default. "size="
 * takes a published size by name, and stands before keys that change it; "graph:FILE" reads a graph file. An unknown
 * net, key or size and a number out of range are CRIA_ERR_ARGUMENT that names it. The caller destroys the graph. */
cria_status cria_network_create(const char *spec, cria_graph **out, cria_error *err);
/* A markdown section per net with its keys: what docs/nets.md ends with. */
void cria_network_document(cria_text *out);

#endif
