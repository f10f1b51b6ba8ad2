/* moe: a transformer in which every other ffn is a mixture of experts (GShard, Lepikhin et al. 2020), as Alpa measured
 * it. */
#include "parallel/nets/table.h"

#include <stdio.h>

enum { LAYERS, HIDDEN, HEADS, SEQUENCE, BATCH, VOCAB, EXPERTS, GROUP, TOP, TIED, LOSS, TRAIN, ADAM };

typedef struct {
    cria_dim group, member, expert, slot;
    int top;
} mixture;

static int einsum(cria_transformer *t, int a, int b, int dims, const cria_dim *dim, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "layer %d %s", t->net.layer, what);
    return cria_network_einsum(&t->net, a, b, 1, dims, dim, name);
}

static int weight(cria_transformer *t, int dims, const cria_dim *dim, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "layer %d %s.weight", t->net.layer, what);
    return cria_network_param(&t->net, dims, dim, name);
}

/* Each token goes to its best experts as far as they have slots, and their answers come back weighted by its gates.
 * Which token goes where has no gradient; the gates have. Tokens are routed within groups, so that no device needs to
 * see all of them; where groups and experts are cut by the same axis, dispatching is an all-to-all. */
static int experts(cria_transformer *t, const mixture *m, int x) {
    char name[64];
    const cria_dim gates_dim[] = {m->group, m->member, m->expert}, route[] = {m->group, m->member, m->expert, m->slot},
                   inside[] = {m->expert, m->group, m->slot, t->hidden},
                   wide[] = {m->expert, m->group, m->slot, t->ffn}, gate[] = {m->expert, t->hidden},
                   in[] = {m->expert, t->ffn, t->hidden}, out[] = {m->expert, t->hidden, t->ffn},
                   grouped[] = {m->group, m->member, t->hidden};
    int gates = einsum(t, x, weight(t, 2, gate, "gate"), 3, gates_dim, "gate");
    snprintf(name, sizeof name, "layer %d gates", t->net.layer);
    gates = cria_network_unary(&t->net, CRIA_OP_SOFTMAX, gates, name);
    cria_op op = {.kind = CRIA_OP_ROUTE, .input = {gates}, .dims = 4, .top = m->top};
    for (int d = 0; d < 4; d++) op.dim[d] = route[d];
    snprintf(name, sizeof name, "layer %d route", t->net.layer);
    int mask = cria_network_op(&t->net, op, name);
    int weights = einsum(t, mask, gates, 4, route, "combine weights");
    int h = einsum(t, mask, x, 4, inside, "dispatch");
    h = einsum(t, h, weight(t, 3, in, "expert fc1"), 4, wide, "expert fc1");
    snprintf(name, sizeof name, "layer %d expert activation", t->net.layer);
    h = cria_network_activation(&t->net, h, CRIA_ACT_RELU, name);
    h = einsum(t, h, weight(t, 3, out, "expert fc2"), 4, inside, "expert fc2");
    return einsum(t, weights, h, 3, grouped, "combine");
}

static int moe_ffn(cria_transformer *t, const mixture *m, int x) {
    char name[64];
    const cria_dim grouped[] = {m->group, m->member, t->hidden}, batched[] = {t->batch, t->sequence, t->hidden};
    snprintf(name, sizeof name, "layer %d ffn norm", t->net.layer);
    int h = cria_network_norm(&t->net, x, false, name);
    snprintf(name, sizeof name, "layer %d groups", t->net.layer);
    h = cria_network_reshape(&t->net, h, 3, grouped, name);
    h = experts(t, m, h);
    snprintf(name, sizeof name, "layer %d ungrouped", t->net.layer);
    h = cria_network_reshape(&t->net, h, 3, batched, name);
    snprintf(name, sizeof name, "layer %d ffn residual", t->net.layer);
    return cria_network_binary(&t->net, CRIA_OP_ADD, x, h, name);
}

static cria_status build(const int64_t *value, cria_graph *graph, cria_error *err) {
    cria_transformer t;
    CRIA_TRY(cria_transformer_init(&t, graph, value[BATCH], value[SEQUENCE], value[HIDDEN], value[HEADS],
                                   8 * value[HIDDEN], value[VOCAB], err));
    int64_t tokens = value[BATCH] * value[SEQUENCE], group = value[GROUP] < tokens ? value[GROUP] : tokens;
    if (tokens % group != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "net moe: batch * seq = %lld tokens are no multiple of group=%lld",
                         (long long)tokens, (long long)group);
    if (value[TOP] > value[EXPERTS])
        return cria_fail(err, CRIA_ERR_ARGUMENT, "net moe: top=%lld of experts=%lld", (long long)value[TOP],
                         (long long)value[EXPERTS]);
    int64_t slots = value[TOP] * group / value[EXPERTS];
    mixture m = {.group = cria_network_dim(&t.net, "group", tokens / group),
                 .member = cria_network_dim(&t.net, "member", group),
                 .expert = cria_network_dim(&t.net, "expert", value[EXPERTS]),
                 .slot = cria_network_dim(&t.net, "slot", slots > 0 ? slots : 1),
                 .top = (int)value[TOP]};
    int table, x = cria_transformer_embed(&t, &table);
    for (t.net.layer = 0; t.net.layer < value[LAYERS]; t.net.layer++) {
        x = cria_transformer_attention(&t, x);
        x = t.net.layer % 2 == 0 ? moe_ffn(&t, &m, x) : cria_transformer_ffn(&t, x, CRIA_ACT_GELU_TANH);
    }
    x = cria_transformer_head(&t, x, value[TIED] ? table : CRIA_NO_TENSOR);
    if (!value[LOSS] && !value[TRAIN]) return CRIA_OK;
    int loss = cria_network_loss(&t.net, x);
    return value[TRAIN] ? cria_network_train(&t.net, loss, value[ADAM], err) : CRIA_OK;
}

/* Table 6 of the Alpa paper; 140b is in its artifact (benchmark/alpa/suite_manual_moe.py). */
static const cria_network_size sizes[] = {
    {"380m", {8, 768, 16, 0, 0, 0, 8}},    {"690m", {8, 768, 16, 0, 0, 0, 16}},    {"1.3b", {16, 768, 16, 0, 0, 0, 16}},
    {"2.4b", {16, 1024, 16, 0, 0, 0, 16}}, {"10b", {16, 1536, 16, 0, 0, 0, 32}},   {"27b", {16, 2048, 16, 0, 0, 0, 48}},
    {"70b", {32, 2048, 16, 0, 0, 0, 64}},  {"140b", {32, 2048, 16, 0, 0, 0, 128}}, {NULL, {0}}};

const cria_network_info cria_network_moe = {
    .name = "moe",
    .help = "gpt whose even layers have a mixture of experts for an ffn; both are 8 * hidden wide",
    .key = {[LAYERS] = {"layers", 8, 1, 1000, "transformer blocks"},
            [HIDDEN] = {"hidden", 768, 1, 1 << 20, "width"},
            [HEADS] = {"heads", 16, 1, 1 << 16, "attention heads; they divide hidden"},
            [SEQUENCE] = {"seq", 1024, 1, 1 << 20, "tokens of a sequence"},
            [BATCH] = {"batch", 8, 1, 1 << 20, "sequences of a step (of a micro-batch, where there are several)"},
            [VOCAB] = {"vocab", 32000, 1, 1 << 24, "size of the vocabulary"},
            [EXPERTS] = {"experts", 8, 1, 1 << 16, "experts of a layer"},
            [GROUP] = {"group", 2048, 1, 1 << 24,
                       "tokens that are routed together, or all if there are fewer; divides batch * seq"},
            [TOP] = {"top", 2, 1, 64, "experts that a token goes to; each has top * group / experts slots"},
            [TIED] = {"tied", 0, 0, 1, "the LM head is the token embedding"},
            [LOSS] = {"loss", 0, 0, 1, "the loss, where train=0"},
            [TRAIN] = {"train", 1, 0, 1, "a whole training step instead of the forward pass"},
            [ADAM] = {"adam", 1, 0, 1, "Adam; 0: plain gradient descent"}},
    .sizes = sizes,
    .build = build,
};
