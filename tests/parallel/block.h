/* A feed-forward block for tests of plans: embedding -> up -> activation -> down, plus the embedding, normed. After
 * cmocka.h. */
#ifndef CRIA_TESTS_PARALLEL_BLOCK_H
#define CRIA_TESTS_PARALLEL_BLOCK_H

#include "parallel/graph/graph.h"

enum { EMBED, UP, ACT, DOWN, ADD, NORM }; /* its operators */

/* Tokens come in sequences of so many, between which they may be cut; 0: nothing is known of them. */
static inline cria_graph *block(int64_t hidden, int64_t ffn, int64_t sequence) {
    cria_graph *g = cria_graph_create("block", 1);
    cria_dim token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC}, h = {CRIA_DIM_HIDDEN, hidden}, f = {CRIA_DIM_FFN, ffn};
    cria_dim v = {CRIA_DIM_VOCAB, 100};
    cria_graph_set_group(g, 1);
    cria_graph_set_sequence(g, sequence);
    int ids = cria_graph_input(g, "token_ids", token);
    int table = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){v, h}, "table");
    int up = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){f, h}, "up");
    int down = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){h, f}, "down");
    int x = cria_graph_add(g, (cria_op){.kind = CRIA_OP_EMBED, .input = {ids, table, -1, -1}}, "x");
    int a = cria_graph_add(g, (cria_op){.kind = CRIA_OP_LINEAR, .input = {x, up, -1, -1}}, "a");
    int b = cria_graph_add(g, (cria_op){.kind = CRIA_OP_ACTIVATION, .input = {a, -1, -1, -1}}, "b");
    int c = cria_graph_add(g, (cria_op){.kind = CRIA_OP_LINEAR, .input = {b, down, -1, -1}}, "c");
    int d = cria_graph_add(g, (cria_op){.kind = CRIA_OP_ADD, .input = {x, c, -1, -1}}, "d");
    cria_graph_add(g, (cria_op){.kind = CRIA_OP_NORM, .input = {d, -1, -1, -1}}, "e");
    cria_error err = {0};
    if (cria_graph_check(g, &err) != CRIA_OK) fail_msg("%s", err.message);
    return g;
}

#endif
