/* Graph files: a graph as JSON (docs/graph.schema.json), so that a network from elsewhere can be planned. Any thread, a
 * graph belongs to one at a time. */
#ifndef CRIA_PARALLEL_GRAPH_GRAPH_FILE_H
#define CRIA_PARALLEL_GRAPH_GRAPH_FILE_H

#include "base/json.h"
#include "parallel/graph/graph.h"

/* Appends the whole graph; what is read back has the same hash (cria_graph_hash) and prints the same. */
void cria_graph_write(const cria_graph *graph, cria_text *out);
cria_status cria_graph_write_file(const cria_graph *graph, const char *path, cria_error *err);

/* What does not follow the schema, and operators whose operands do not fit, are CRIA_ERR_FORMAT that names the operator
 * or tensor. The caller destroys the graph. */
cria_status cria_graph_read(const cria_json_value *root, cria_graph **out, cria_error *err);
/* Messages name the path. */
cria_status cria_graph_read_file(const char *path, cria_graph **out, cria_error *err);

#endif
