/* Specifications of nets: parsed against the table of nets and their keys. */
#include "parallel/nets/network.h"

#include "parallel/graph/graph_file.h"
#include "parallel/nets/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const cria_network_info *const nets[] = {&cria_network_mlp, &cria_network_attention,   &cria_network_gpt,
                                                &cria_network_moe, &cria_network_wide_resnet, &cria_network_chain,
                                                &cria_network_sum};
enum { NETS = sizeof nets / sizeof *nets };

static bool is_word(const char *text, size_t length, const char *word) {
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static cria_status find_net(const char *spec, size_t length, const cria_network_info **out, cria_error *err) {
    for (int i = 0; i < NETS; i++)
        if (is_word(spec, length, nets[i]->name)) {
            *out = nets[i];
            return CRIA_OK;
        }
    char known[160] = "";
    for (int i = 0; i < NETS; i++) {
        if (i) strcat(known, ", ");
        strcat(known, nets[i]->name);
    }
    return cria_fail(err, CRIA_ERR_ARGUMENT, "unknown net \"%.*s\"; there are %s", (int)(length > 40 ? 40 : length),
                     spec, known);
}

static int key_count(const cria_network_info *net) {
    int count = 0;
    while (count < CRIA_NETWORK_KEYS && net->key[count].name) count++;
    return count;
}

static cria_status set_size(const cria_network_info *net, const char *text, size_t length, int64_t *value,
                            cria_error *err) {
    for (const cria_network_size *size = net->sizes; size && size->name; size++) {
        if (!is_word(text, length, size->name)) continue;
        for (int i = 0; i < key_count(net); i++)
            if (size->value[i]) value[i] = size->value[i];
        return CRIA_OK;
    }
    return cria_fail(err, CRIA_ERR_ARGUMENT, "net %s: unknown size \"%.*s\"", net->name,
                     (int)(length > 40 ? 40 : length), text);
}

static cria_status set_number(const cria_network_info *net, const cria_network_key *key, const char *text,
                              size_t length, int64_t *out, cria_error *err) {
    char digits[24] = "", *end = digits;
    if (length > 0 && length < sizeof digits) memcpy(digits, text, length);
    errno = 0;
    long long number = strtoll(digits, &end, 10);
    bool plain = (digits[0] >= '0' && digits[0] <= '9') || digits[0] == '-';
    if (!plain || *end || errno || number < key->least || number > key->most)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "net %s: %s=%.*s is not a whole number from %lld to %lld", net->name,
                         key->name, (int)(length > 40 ? 40 : length), text, (long long)key->least,
                         (long long)key->most);
    *out = number;
    return CRIA_OK;
}

static cria_status set_key(const cria_network_info *net, const char *text, size_t length, int64_t *value,
                           cria_error *err) {
    const char *equals = memchr(text, '=', length);
    size_t name = equals ? (size_t)(equals - text) : length;
    const char *rest = equals ? equals + 1 : text + length;
    size_t rest_length = length - (size_t)(rest - text);
    if (equals && net->sizes && is_word(text, name, "size")) return set_size(net, rest, rest_length, value, err);
    for (int i = 0; i < key_count(net); i++)
        if (is_word(text, name, net->key[i].name)) {
            if (!equals)
                return cria_fail(err, CRIA_ERR_ARGUMENT, "net %s: %s= needs a number", net->name, net->key[i].name);
            return set_number(net, &net->key[i], rest, rest_length, &value[i], err);
        }
    return cria_fail(err, CRIA_ERR_ARGUMENT, "net %s: unknown key \"%.*s\"", net->name, (int)(name > 40 ? 40 : name),
                     text);
}

cria_status cria_network_create(const char *spec, cria_graph **out, cria_error *err) {
    const cria_network_info *net = NULL;
    size_t length = strcspn(spec, ":");
    if (is_word(spec, length, "graph") && spec[length]) return cria_graph_read_file(spec + length + 1, out, err);
    CRIA_TRY(find_net(spec, length, &net, err));
    int64_t value[CRIA_NETWORK_KEYS] = {0};
    for (int i = 0; i < key_count(net); i++) value[i] = net->key[i].fallback;
    for (const char *at = spec + length; *at;) {
        at++; /* the colon or comma */
        size_t word = strcspn(at, ",");
        CRIA_TRY(set_key(net, at, word, value, err));
        at += word;
    }
    bool layered = strcmp(net->key[0].name, "layers") == 0;
    int layers = net->layers ? net->layers(value) : layered ? (int)value[0] : 1;
    cria_graph *graph = cria_graph_create(net->name, layers);
    if (!graph) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for net %s", net->name);
    cria_graph_set_group(graph, 1);
    cria_status status = net->build(value, graph, err);
    if (status == CRIA_OK) status = cria_graph_check(graph, err);
    if (status != CRIA_OK) {
        /* A graph that cannot be built from values in range is the values' fault, not ours. */
        if (err && status == CRIA_ERR_INTERNAL) err->status = status = CRIA_ERR_ARGUMENT;
        cria_graph_destroy(graph);
        return status;
    }
    *out = graph;
    return CRIA_OK;
}

void cria_network_document(cria_text *out) {
    for (int n = 0; n < NETS; n++) {
        const cria_network_info *net = nets[n];
        cria_text_printf(out, "\n### %s\n%s.\n\n| key | default | range | |\n|---|---|---|---|\n", net->name,
                         net->help);
        for (int i = 0; i < key_count(net); i++)
            cria_text_printf(out, "| %s | %lld | %lld to %lld | %s |\n", net->key[i].name,
                             (long long)net->key[i].fallback, (long long)net->key[i].least, (long long)net->key[i].most,
                             net->key[i].help);
        if (!net->sizes) continue;
        cria_text_puts(out, "\nSizes:");
        for (const cria_network_size *size = net->sizes; size->name; size++) {
            cria_text_printf(out, "%s %s (", size == net->sizes ? "" : ";", size->name);
            bool first = true;
            for (int i = 0; i < key_count(net); i++) {
                if (!size->value[i]) continue;
                cria_text_printf(out, "%s%s %lld", first ? "" : ", ", net->key[i].name, (long long)size->value[i]);
                first = false;
            }
            cria_text_puts(out, ")");
        }
        cria_text_puts(out, ".\n");
    }
}
