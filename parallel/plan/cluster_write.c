/* The cluster's writer: JSON that the reader takes back as it was. */
#include "parallel/graph/graph.h"
#include "parallel/plan/cluster.h"

#include <string.h>

static void number(cria_text *out, const char *key, double value) {
    cria_text_printf(out, ", \"%s\": ", key);
    cria_text_json_number(out, value);
}

static void print_sample(const cria_sample *s, cria_text *out) {
    cria_text_printf(out, "    {\"operator\": \"%s\", \"type\": \"%s\"",
                     cria_op_info_of((cria_op_kind)s->operator_kind)->name, cria_rate_name(s->rate));
    number(out, "rows", s->rows);
    number(out, "columns", s->columns);
    if (s->depth != 1) number(out, "depth", s->depth);
    if (s->sequences != 1) number(out, "sequences", s->sequences);
    if (s->kv_columns != s->columns) number(out, "kv_columns", s->kv_columns);
    number(out, "seconds", s->seconds);
    cria_text_puts(out, "}");
}

static void print_type(const cria_device_type *t, cria_text *out) {
    cria_text_puts(out, "  ");
    cria_text_json_string(out, t->name, strlen(t->name));
    cria_text_puts(out, ": {\n   \"flops\": {");
    bool first = true;
    for (int r = 0; r < CRIA_RATE_COUNT; r++) {
        if (t->flops[r] <= 0) continue;
        cria_text_printf(out, "%s\"%s\": ", first ? "" : ", ", cria_rate_name((cria_rate)r));
        cria_text_json_number(out, t->flops[r]);
        first = false;
    }
    cria_text_puts(out, "},\n   \"memory\": ");
    cria_text_json_number(out, t->memory);
    number(out, "bandwidth", t->bandwidth);
    cria_text_puts(out, ",\n   \"efficiency\": {\"matmul\": ");
    cria_text_json_number(out, t->matmul);
    number(out, "half", t->half);
    number(out, "attention", t->attention);
    number(out, "streaming", t->streaming);
    number(out, "launch", t->launch);
    number(out, "score_passes", t->score_passes);
    number(out, "fused", t->fused);
    cria_text_puts(out, "}");
    for (int i = 0; i < t->samples; i++) {
        cria_text_puts(out, i ? ",\n" : ",\n   \"measured\": [\n");
        print_sample(&t->sample[i], out);
    }
    cria_text_puts(out, t->samples ? "\n   ]\n  }" : "\n  }");
}

static void print_link(const cria_link *link, const cria_link_sample *samples, int count, cria_text *out) {
    cria_text_puts(out, "{\"latency\": ");
    cria_text_json_number(out, link->latency);
    number(out, "bandwidth", link->bandwidth);
    for (int i = 0; i < count; i++) {
        cria_text_printf(out, "%s    {\"operation\": \"%s\"", i ? ",\n" : ", \"measured\": [\n",
                         cria_link_operation_name(samples[i].operation));
        number(out, "bytes", samples[i].bytes);
        number(out, "seconds", samples[i].seconds);
        cria_text_puts(out, "}");
    }
    cria_text_puts(out, count ? "\n   ]}" : "}");
}

/* Runs of one type. */
static void print_devices(const cria_cluster *c, const cria_host *host, cria_text *out) {
    for (int i = 0, run; i < host->devices; i += run) {
        int type = cria_cluster_type_of(c, host->first_device + i);
        run = 1;
        while (i + run < host->devices && cria_cluster_type_of(c, host->first_device + i + run) == type) run++;
        cria_text_puts(out, i ? ", {\"type\": " : "{\"type\": ");
        cria_text_json_string(out, cria_cluster_type(c, type)->name, strlen(cria_cluster_type(c, type)->name));
        cria_text_printf(out, ", \"count\": %d}", run);
    }
}

void cria_cluster_print(const cria_cluster *c, const char *note, const cria_link_sample *links, int count,
                        cria_text *out) {
    cria_text_puts(out, "{\n \"format\": \"cria cluster\",\n \"version\": 1,\n \"name\": ");
    cria_text_json_string(out, cria_cluster_name(c), strlen(cria_cluster_name(c)));
    if (note) {
        cria_text_puts(out, ",\n \"note\": ");
        cria_text_json_string(out, note, strlen(note));
    }
    cria_text_puts(out, ",\n \"devices\": {\n");
    for (int t = 0; t < cria_cluster_types(c); t++) {
        if (t) cria_text_puts(out, ",\n");
        print_type(cria_cluster_type(c, t), out);
    }
    cria_text_puts(out, "\n },\n \"hosts\": [\n");
    for (int h = 0; h < cria_cluster_hosts(c); h++) {
        cria_text_puts(out, h ? ",\n  {\"devices\": [" : "  {\"devices\": [");
        print_devices(c, cria_cluster_host(c, h), out);
        cria_text_puts(out, "],\n   \"link\": ");
        print_link(&cria_cluster_host(c, h)->link, links, cria_cluster_hosts(c) == 1 ? count : 0, out);
        cria_text_puts(out, "}");
    }
    cria_text_puts(out, "\n ],\n \"network\": ");
    print_link(cria_cluster_network(c), links, cria_cluster_hosts(c) > 1 ? count : 0, out);
    cria_text_puts(out, "\n}\n");
}
