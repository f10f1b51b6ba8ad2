/* The table of attributes, and words for enumerations. */
#include "parallel/graph/attributes.h"

#define BIT(kind) ((uint64_t)1 << CRIA_OP_##kind)
#define NORMS (BIT(NORM) | BIT(NORM_GRADIENT))
#define ATTENTIONS (BIT(ATTENTION) | BIT(ATTENTION_GRADIENT))
#define POOLS (BIT(POOL) | BIT(POOL_GRADIENT))
#define WINDOWS (POOLS | BIT(CONV) | BIT(CONV_INPUT_GRADIENT) | BIT(CONV_KERNEL_GRADIENT))
#define FIELD(name) offsetof(cria_op, name)
static const double ANY = 1e30, COUNT = 1 << 20, TABLE = (double)((int64_t)1 << 40);

const cria_attribute cria_attributes[] = {
    {"activation", CRIA_ATTRIBUTE_ACTIVATION, FIELD(activation), 0, 0, CRIA_ACT_COUNT - 1,
     BIT(ACTIVATION) | BIT(ACTIVATION_GRADIENT)},
    {"rms", CRIA_ATTRIBUTE_BOOL, FIELD(rms), 0, 0, 1, NORMS},
    {"over", CRIA_ATTRIBUTE_OVER, FIELD(over), 0, 0, (1 << CRIA_MAX_DIMS) - 1, NORMS},
    {"eps", CRIA_ATTRIBUTE_FLOAT, FIELD(eps), 0, 0, ANY, NORMS | BIT(ADAM)},
    {"scale", CRIA_ATTRIBUTE_FLOAT, FIELD(scale), 1, -ANY, ANY, ATTENTIONS | BIT(EINSUM) | BIT(FILL)},
    {"row_offset", CRIA_ATTRIBUTE_LONG, FIELD(row_offset), 0, 0, TABLE, BIT(EMBED) | BIT(EMBED_GRADIENT)},
    {"kv_heads", CRIA_ATTRIBUTE_LONG, FIELD(kv_heads), 0, 1, COUNT, ATTENTIONS},
    {"which", CRIA_ATTRIBUTE_INT, FIELD(which), 0, 0, 2, BIT(ATTENTION_GRADIENT)},
    {"backward", CRIA_ATTRIBUTE_BOOL, FIELD(backward), 0, 0, 1, BIT(ROPE)},
    {"window", CRIA_ATTRIBUTE_INT, FIELD(window), 0, 1, COUNT, POOLS},
    {"stride", CRIA_ATTRIBUTE_INT, FIELD(stride), 1, 1, COUNT, WINDOWS},
    {"pad", CRIA_ATTRIBUTE_INT, FIELD(pad), 0, 0, COUNT, WINDOWS},
    {"top", CRIA_ATTRIBUTE_INT, FIELD(top), 0, 1, COUNT, BIT(ROUTE)},
    {"rate", CRIA_ATTRIBUTE_FLOAT, FIELD(rate), 0, 0, ANY, BIT(SGD) | BIT(ADAM)},
    {"decay", CRIA_ATTRIBUTE_FLOAT, FIELD(decay), 0, 0, 1, BIT(MOMENT) | BIT(ADAM)},
    {"decay2", CRIA_ATTRIBUTE_FLOAT, FIELD(decay2), 0, 0, 1, BIT(ADAM)},
    {"square", CRIA_ATTRIBUTE_BOOL, FIELD(square), 0, 0, 1, BIT(MOMENT)},
    {0},
};

bool cria_attribute_applies(const cria_attribute *attribute, cria_op_kind kind) {
    return attribute->kinds >> kind & 1;
}

bool cria_op_states_dims(cria_op_kind kind) {
    const uint64_t kinds = BIT(EINSUM) | BIT(FILL) | BIT(RESHAPE) | BIT(CONV) | BIT(POOL) | BIT(ROUTE) |
                           BIT(EMBED_GRADIENT) | BIT(SCATTER) | BIT(CONV_INPUT_GRADIENT) | BIT(CONV_KERNEL_GRADIENT);
    return kinds >> kind & 1;
}

double cria_attribute_get(const cria_attribute *attribute, const cria_op *op) {
    const void *field = (const char *)op + attribute->offset;
    switch (attribute->type) {
    case CRIA_ATTRIBUTE_BOOL:
        return *(const bool *)field;
    case CRIA_ATTRIBUTE_INT:
        return *(const int *)field;
    case CRIA_ATTRIBUTE_LONG:
        return (double)*(const int64_t *)field;
    case CRIA_ATTRIBUTE_FLOAT:
        return (double)*(const float *)field;
    case CRIA_ATTRIBUTE_ACTIVATION:
        return *(const cria_activation_name *)field;
    case CRIA_ATTRIBUTE_OVER:
        return *(const unsigned *)field;
    }
    return 0;
}

void cria_attribute_set(const cria_attribute *attribute, cria_op *op, double value) {
    void *field = (char *)op + attribute->offset;
    switch (attribute->type) {
    case CRIA_ATTRIBUTE_BOOL:
        *(bool *)field = value != 0;
        break;
    case CRIA_ATTRIBUTE_INT:
        *(int *)field = (int)value;
        break;
    case CRIA_ATTRIBUTE_LONG:
        *(int64_t *)field = (int64_t)value;
        break;
    case CRIA_ATTRIBUTE_FLOAT:
        *(float *)field = (float)value;
        break;
    case CRIA_ATTRIBUTE_ACTIVATION:
        *(cria_activation_name *)field = (cria_activation_name)value;
        break;
    case CRIA_ATTRIBUTE_OVER:
        *(unsigned *)field = (unsigned)value;
        break;
    }
}

const char *const cria_pass_words[] = {"forward", "backward", "update", NULL};
const char *const cria_tensor_words[] = {"input", "parameter", "value", "state", NULL};
const char *const cria_param_words[] = {"plain", "qk_rows", "rope_table", NULL};
const char *const cria_activation_words[] = {"none",       "relu", "gelu",    "gelu_tanh", "silu",
                                             "quick_gelu", "tanh", "sigmoid", "relu2",     NULL};
