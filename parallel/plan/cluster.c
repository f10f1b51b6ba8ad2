/* The cluster's reader: units, ranges and names are checked, errors name the key and where it stands. */
#include "parallel/plan/cluster.h"

#include "parallel/graph/graph.h"
#include "parallel/plan/cost.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TYPES = 64, MAX_HOSTS = 16384, MAX_DEVICES = 65536, MAX_SAMPLES = 1 << 16 };
static const size_t MAX_FILE = (size_t)1 << 26;

struct cria_cluster {
    char name[64];
    cria_device_type *type;
    int types;
    cria_host *host;
    int hosts;
    int *type_of; /* [devices] */
    int *host_of;
    int devices;
    cria_link network;
    cria_sample *sample;
};

const char *cria_rate_name(cria_rate rate) {
    static const char *const names[CRIA_RATE_COUNT] = {"f32", "f16",  "bf16",    "int8",      "q8",
                                                       "q4",  "q4_0", "q8_fine", "q4_coarse", "q4_0_coarse"};
    return names[rate];
}

double cria_rate_bytes(cria_rate rate) {
    static const double bytes[CRIA_RATE_COUNT] = {4,         2,         2,         1,         34.0 / 32,
                                                  20.0 / 32, 18.0 / 32, 34.0 / 32, 20.0 / 32, 18.0 / 32};
    return bytes[rate];
}

static cria_status out_of_memory(cria_error *err) {
    return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the cluster");
}

/* Fails with "place: message". */
static cria_status within(cria_error *err, cria_status status, const char *format, int index) {
    char place[48];
    snprintf(place, sizeof place, format, index);
    if (status != CRIA_OK && err) return cria_fail_within(err, place);
    return status;
}

/* A misspelt key would silently give a default. */
static cria_status check_keys(const cria_json_value *object, const char *known, cria_error *err) {
    for (const cria_json_value *v = cria_json_first(object); v; v = cria_json_next(v)) {
        char key[40];
        int length = snprintf(key, sizeof key, " %s ", cria_json_key(v));
        if (length >= (int)sizeof key || !strstr(known, key))
            return cria_fail(err, CRIA_ERR_FORMAT, "\"%.60s\" is no known key", cria_json_key(v));
    }
    return CRIA_OK;
}

/* A positive number that must be there. */
static cria_status get_rate(const cria_json_value *object, const char *key, double *out, cria_error *err) {
    CRIA_TRY(cria_json_want(cria_json_get(object, key), CRIA_JSON_NUMBER, key, err));
    return cria_json_get_double(object, key, 0, 1, 1e24, out, err);
}

static cria_status get_whole(const cria_json_value *object, const char *key, int64_t fallback, int most, int *out,
                             cria_error *err) {
    int64_t value;
    CRIA_TRY(cria_json_get_int(object, key, fallback, 1, most, &value, err));
    *out = (int)value;
    return CRIA_OK;
}

const char *cria_link_operation_name(cria_link_operation operation) {
    static const char *const names[CRIA_LINK_OPERATIONS] = {"all_reduce", "all_gather", "send"};
    return names[operation];
}

/* What latency and bandwidth were fitted to: checked, for the reader's eyes. */
static cria_status check_link_samples(const cria_json_value *list, cria_error *err) {
    if (!list) return CRIA_OK;
    CRIA_TRY(cria_json_want(list, CRIA_JSON_ARRAY, "measured", err));
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v)) {
        const char *name;
        double value;
        bool known = false;
        CRIA_TRY(cria_json_want(v, CRIA_JSON_OBJECT, "measured", err));
        CRIA_TRY(check_keys(v, " operation bytes seconds ", err));
        CRIA_TRY(cria_json_get_string(v, "operation", "", &name, err));
        for (int o = 0; o < CRIA_LINK_OPERATIONS; o++)
            known = known || strcmp(name, cria_link_operation_name((cria_link_operation)o)) == 0;
        if (!known) return cria_fail(err, CRIA_ERR_FORMAT, "\"operation\": \"%.40s\" is none of a link's", name);
        CRIA_TRY(cria_json_get_double(v, "bytes", 0, 0, 1e15, &value, err));
        CRIA_TRY(cria_json_get_double(v, "seconds", 0, 0, 1e6, &value, err));
    }
    return CRIA_OK;
}

static cria_status read_link(const cria_json_value *parent, const char *key, cria_link *out, cria_error *err) {
    const cria_json_value *link = cria_json_get(parent, key);
    CRIA_TRY(cria_json_want(link, CRIA_JSON_OBJECT, key, err));
    CRIA_TRY(check_keys(link, " latency bandwidth measured note ", err));
    CRIA_TRY(check_link_samples(cria_json_get(link, "measured"), err));
    CRIA_TRY(cria_json_want(cria_json_get(link, "latency"), CRIA_JSON_NUMBER, "latency", err));
    CRIA_TRY(cria_json_get_double(link, "latency", 0, 0, 10, &out->latency, err));
    return get_rate(link, "bandwidth", &out->bandwidth, err);
}

static cria_status read_flops(const cria_json_value *object, cria_device_type *type, cria_error *err) {
    const cria_json_value *flops = cria_json_get(object, "flops");
    CRIA_TRY(cria_json_want(flops, CRIA_JSON_OBJECT, "flops", err));
    CRIA_TRY(check_keys(flops, " f32 f16 bf16 int8 q8 q4 q4_0 q8_fine q4_coarse q4_0_coarse ", err));
    double most = 0;
    for (int r = 0; r < CRIA_RATE_COUNT; r++) {
        const char *key = cria_rate_name((cria_rate)r);
        CRIA_TRY(cria_json_get_double(flops, key, 0, 0, 1e24, &type->flops[r], err));
        if (type->flops[r] > most) most = type->flops[r];
    }
    return most > 0 ? CRIA_OK
                    : cria_fail(err, CRIA_ERR_FORMAT, "\"flops\" has no type of f32, f16, bf16, int8, q8, q4");
}

static cria_status read_efficiency(const cria_json_value *object, cria_device_type *type, cria_error *err) {
    const cria_json_value *e = cria_json_get(object, "efficiency");
    if (e) CRIA_TRY(cria_json_want(e, CRIA_JSON_OBJECT, "efficiency", err));
    CRIA_TRY(check_keys(e, " matmul half attention streaming launch score_passes fused note ", err));
    CRIA_TRY(cria_json_get_double(e, "matmul", 0.6, 1e-6, 1, &type->matmul, err));
    CRIA_TRY(cria_json_get_double(e, "half", 64, 0, 1e6, &type->half, err));
    CRIA_TRY(cria_json_get_double(e, "attention", 0.4, 1e-6, 1, &type->attention, err));
    CRIA_TRY(cria_json_get_double(e, "streaming", 0.8, 1e-6, 1, &type->streaming, err));
    CRIA_TRY(cria_json_get_double(e, "launch", 5e-6, 0, 1, &type->launch, err));
    CRIA_TRY(cria_json_get_double(e, "score_passes", 0, 0, 1000, &type->score_passes, err));
    return cria_json_get_double(e, "fused", 0, 0, 1, &type->fused, err);
}

static cria_status read_sample(const cria_json_value *v, cria_sample *out, cria_error *err) {
    CRIA_TRY(cria_json_want(v, CRIA_JSON_OBJECT, "measured", err));
    CRIA_TRY(check_keys(v, " operator type rows columns depth sequences kv_columns seconds ", err));
    const char *kind, *rate;
    CRIA_TRY(cria_json_get_string(v, "operator", "", &kind, err));
    CRIA_TRY(cria_json_get_string(v, "type", "f32", &rate, err));
    *out = (cria_sample){.operator_kind = CRIA_OP_COUNT, .rate = CRIA_RATE_COUNT};
    for (int k = 0; k < CRIA_OP_COUNT; k++)
        if (strcmp(kind, cria_op_info_of((cria_op_kind)k)->name) == 0) out->operator_kind = k;
    for (int r = 0; r < CRIA_RATE_COUNT; r++)
        if (strcmp(rate, cria_rate_name((cria_rate)r)) == 0) out->rate = (cria_rate)r;
    if (out->operator_kind == CRIA_OP_COUNT)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"operator\": \"%.40s\" is no operator", kind);
    if (out->rate == CRIA_RATE_COUNT) return cria_fail(err, CRIA_ERR_FORMAT, "\"type\": \"%.40s\" is no type", rate);
    CRIA_TRY(cria_json_get_double(v, "rows", 1, 1, 1e12, &out->rows, err));
    CRIA_TRY(cria_json_get_double(v, "columns", 1, 1, 1e12, &out->columns, err));
    CRIA_TRY(cria_json_get_double(v, "depth", 1, 1, 1e12, &out->depth, err));
    CRIA_TRY(cria_json_get_double(v, "sequences", 1, 1, 1e12, &out->sequences, err));
    CRIA_TRY(cria_json_get_double(v, "kv_columns", out->columns, 1, 1e12, &out->kv_columns, err));
    CRIA_TRY(cria_json_want(cria_json_get(v, "seconds"), CRIA_JSON_NUMBER, "seconds", err));
    return cria_json_get_double(v, "seconds", 0, 1e-12, 1e6, &out->seconds, err);
}

/* Samples of all types lie behind each other in one array; `at`: how many there are before. */
static cria_status read_samples(cria_cluster *c, const cria_json_value *object, cria_device_type *type, int *at,
                                cria_error *err) {
    const cria_json_value *list = cria_json_get(object, "measured");
    if (!list) return CRIA_OK;
    CRIA_TRY(cria_json_want(list, CRIA_JSON_ARRAY, "measured", err));
    if (cria_json_size(list) > (size_t)(MAX_SAMPLES - *at))
        return cria_fail(err, CRIA_ERR_FORMAT, "\"measured\" has more than %d samples", MAX_SAMPLES);
    type->samples = (int)cria_json_size(list);
    cria_sample *bigger = realloc(c->sample, (size_t)(*at + type->samples + 1) * sizeof *bigger);
    if (!bigger) return out_of_memory(err);
    c->sample = bigger;
    int i = 0;
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v), i++)
        CRIA_TRY(within(err, read_sample(v, &c->sample[*at + i], err), "measured %d", i));
    *at += type->samples;
    return CRIA_OK;
}

static cria_status read_type(cria_cluster *c, const cria_json_value *v, cria_device_type *type, int *samples,
                             cria_error *err) {
    CRIA_TRY(cria_json_want(v, CRIA_JSON_OBJECT, cria_json_key(v), err));
    CRIA_TRY(check_keys(v, " flops memory bandwidth efficiency measured note ", err));
    if (strlen(cria_json_key(v)) >= sizeof type->name) return cria_fail(err, CRIA_ERR_FORMAT, "the name is too long");
    snprintf(type->name, sizeof type->name, "%s", cria_json_key(v));
    CRIA_TRY(read_flops(v, type, err));
    CRIA_TRY(get_rate(v, "memory", &type->memory, err));
    CRIA_TRY(get_rate(v, "bandwidth", &type->bandwidth, err));
    CRIA_TRY(read_efficiency(v, type, err));
    return read_samples(c, v, type, samples, err);
}

static cria_status read_types(cria_cluster *c, const cria_json_value *root, cria_error *err) {
    const cria_json_value *types = cria_json_get(root, "devices");
    CRIA_TRY(cria_json_want(types, CRIA_JSON_OBJECT, "devices", err));
    size_t count = cria_json_size(types);
    if (count < 1 || count > MAX_TYPES)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"devices\" names %zu types, not 1 to %d", count, MAX_TYPES);
    c->type = calloc(count, sizeof *c->type);
    if (!c->type) return out_of_memory(err);
    int samples = 0;
    for (const cria_json_value *v = cria_json_first(types); v; v = cria_json_next(v)) {
        cria_status status = read_type(c, v, &c->type[c->types++], &samples, err);
        if (status != CRIA_OK) return err ? cria_fail_within(err, cria_json_key(v)) : status;
    }
    int at = 0;
    for (int t = 0; t < c->types; t++) {
        if (c->sample) c->type[t].sample = c->sample + at;
        for (int i = 0; i < c->type[t].samples; i++) cria_cost_place_sample(&c->type[t], &c->sample[at + i]);
        at += c->type[t].samples;
    }
    return CRIA_OK;
}

static int find_type(const cria_cluster *c, const char *name) {
    for (int t = 0; t < c->types; t++)
        if (strcmp(c->type[t].name, name) == 0) return t;
    return -1;
}

static cria_status add_devices(cria_cluster *c, int host, int type, int count, cria_error *err) {
    if (count > MAX_DEVICES - c->devices)
        return cria_fail(err, CRIA_ERR_FORMAT, "the cluster has more than %d devices", MAX_DEVICES);
    int *type_of = realloc(c->type_of, (size_t)(c->devices + count) * sizeof *type_of);
    if (type_of) c->type_of = type_of;
    int *host_of = realloc(c->host_of, (size_t)(c->devices + count) * sizeof *host_of);
    if (host_of) c->host_of = host_of;
    if (!type_of || !host_of) return out_of_memory(err);
    for (int i = 0; i < count; i++) {
        c->type_of[c->devices] = type;
        c->host_of[c->devices++] = host;
    }
    c->host[host].devices += count;
    return CRIA_OK;
}

/* One group of a host's devices: "v100" or {"type": "v100", "count": 8}. */
static cria_status read_group(cria_cluster *c, int host, const cria_json_value *v, cria_error *err) {
    const char *name = NULL;
    int count = 1;
    if (cria_json_type_of(v) == CRIA_JSON_STRING) {
        size_t length;
        name = cria_json_text(v, &length);
    } else {
        CRIA_TRY(cria_json_want(v, CRIA_JSON_OBJECT, "devices", err));
        CRIA_TRY(check_keys(v, " type count ", err));
        CRIA_TRY(cria_json_get_string(v, "type", "", &name, err));
        CRIA_TRY(get_whole(v, "count", 1, MAX_DEVICES, &count, err));
    }
    int type = find_type(c, name);
    if (type < 0) return cria_fail(err, CRIA_ERR_FORMAT, "\"devices\": there is no type \"%.40s\"", name);
    return add_devices(c, host, type, count, err);
}

/* One entry of "hosts", which may stand for several that are alike. */
static cria_status read_hosts_entry(cria_cluster *c, const cria_json_value *v, cria_error *err) {
    CRIA_TRY(cria_json_want(v, CRIA_JSON_OBJECT, "hosts", err));
    CRIA_TRY(check_keys(v, " count devices link note ", err));
    int count;
    cria_link link = {0, 1e12};
    CRIA_TRY(get_whole(v, "count", 1, MAX_HOSTS, &count, err));
    if (count > MAX_HOSTS - c->hosts)
        return cria_fail(err, CRIA_ERR_FORMAT, "the cluster has more than %d hosts", MAX_HOSTS);
    const cria_json_value *groups = cria_json_get(v, "devices");
    CRIA_TRY(cria_json_want(groups, CRIA_JSON_ARRAY, "devices", err));
    if (!cria_json_first(groups)) return cria_fail(err, CRIA_ERR_FORMAT, "\"devices\" is empty");
    bool alone = cria_json_size(groups) == 1 && cria_json_type_of(cria_json_first(groups)) == CRIA_JSON_STRING;
    if (!alone || cria_json_get(v, "link")) CRIA_TRY(read_link(v, "link", &link, err));
    cria_host *bigger = realloc(c->host, (size_t)(c->hosts + count) * sizeof *bigger);
    if (!bigger) return out_of_memory(err);
    c->host = bigger;
    for (int i = 0; i < count; i++) {
        int host = c->hosts++;
        c->host[host] = (cria_host){.first_device = c->devices, .link = link};
        for (const cria_json_value *g = cria_json_first(groups); g; g = cria_json_next(g))
            CRIA_TRY(read_group(c, host, g, err));
    }
    return CRIA_OK;
}

static cria_status read_root(cria_cluster *c, const cria_json_value *root, cria_error *err) {
    const char *format, *name;
    if (cria_json_type_of(root) != CRIA_JSON_OBJECT)
        return cria_fail(err, CRIA_ERR_FORMAT, "a cluster is a JSON object");
    CRIA_TRY(cria_json_get_string(root, "format", "", &format, err));
    if (strcmp(format, "cria cluster") != 0)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"format\" must be \"cria cluster\", but is \"%.40s\"", format);
    int64_t version;
    CRIA_TRY(cria_json_get_int(root, "version", 0, 0, INT32_MAX, &version, err));
    if (version != 1)
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "\"version\" is %d; this program reads 1", (int)version);
    CRIA_TRY(check_keys(root, " format version name note devices hosts network ", err));
    CRIA_TRY(cria_json_get_string(root, "name", "", &name, err));
    if (!name[0] || strlen(name) >= sizeof c->name)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"name\" must have 1 to %zu bytes", sizeof c->name - 1);
    snprintf(c->name, sizeof c->name, "%s", name);
    CRIA_TRY(read_types(c, root, err));
    const cria_json_value *hosts = cria_json_get(root, "hosts");
    CRIA_TRY(cria_json_want(hosts, CRIA_JSON_ARRAY, "hosts", err));
    if (!cria_json_first(hosts)) return cria_fail(err, CRIA_ERR_FORMAT, "\"hosts\" is empty");
    int entry = 0;
    for (const cria_json_value *v = cria_json_first(hosts); v; v = cria_json_next(v), entry++)
        CRIA_TRY(within(err, read_hosts_entry(c, v, err), "hosts %d", entry));
    /* One host has nobody to talk to; its own link stands in should it be repeated. */
    c->network = c->host[0].link;
    if (c->hosts > 1 || cria_json_get(root, "network")) CRIA_TRY(read_link(root, "network", &c->network, err));
    return CRIA_OK;
}

cria_status cria_cluster_from_json(const cria_json_value *root, cria_cluster **out, cria_error *err) {
    cria_cluster *c = calloc(1, sizeof *c);
    if (!c) return out_of_memory(err);
    cria_status status = read_root(c, root, err);
    if (status != CRIA_OK) {
        cria_cluster_destroy(c);
        return status;
    }
    *out = c;
    return CRIA_OK;
}

cria_status cria_cluster_create(const cria_cluster_parts *p, cria_cluster **out, cria_error *err) {
    size_t samples = 0;
    for (int t = 0; t < p->types; t++) samples += (size_t)p->type[t].samples;
    if (p->types < 1 || p->types > MAX_TYPES || p->hosts < 1 || p->hosts > MAX_HOSTS || samples > MAX_SAMPLES)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "a cluster of %d types of device, %d hosts, %zu samples", p->types,
                         p->hosts, samples);
    cria_cluster *c = calloc(1, sizeof *c);
    if (!c) return out_of_memory(err);
    c->type = calloc((size_t)p->types, sizeof *c->type);
    c->sample = calloc(samples + 1, sizeof *c->sample);
    c->host = calloc((size_t)p->hosts, sizeof *c->host);
    cria_status status = c->type && c->sample && c->host ? CRIA_OK : out_of_memory(err);
    cria_sample *at = c->sample;
    for (; status == CRIA_OK && c->types < p->types; c->types++) {
        cria_device_type *type = &c->type[c->types];
        *type = p->type[c->types];
        type->sample = at;
        for (int i = 0; i < type->samples; i++, at++) {
            *at = p->type[c->types].sample[i];
            cria_cost_place_sample(type, at);
        }
    }
    snprintf(c->name, sizeof c->name, "%s", p->name);
    c->network = p->network;
    for (int d = 0; status == CRIA_OK && d < p->devices; d++) {
        for (; c->hosts <= p->host_of[d] && c->hosts < p->hosts; c->hosts++)
            c->host[c->hosts] = (cria_host){.first_device = d, .link = p->link[c->hosts]};
        status = p->host_of[d] == c->hosts - 1
                     ? add_devices(c, c->hosts - 1, p->type_of[d], 1, err)
                     : cria_fail(err, CRIA_ERR_ARGUMENT, "device %d lies on host %d", d, p->host_of[d]);
    }
    if (status == CRIA_OK && c->hosts != p->hosts)
        status = cria_fail(err, CRIA_ERR_ARGUMENT, "%d of %d hosts have devices", c->hosts, p->hosts);
    if (status != CRIA_OK) {
        cria_cluster_destroy(c);
        return status;
    }
    *out = c;
    return CRIA_OK;
}

cria_status cria_cluster_resize(const cria_cluster *from, int hosts, int devices, cria_cluster **out, cria_error *err) {
    if (hosts < 1 || hosts > MAX_HOSTS || devices < 1 || devices > MAX_DEVICES)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%dx%d: 1 to %d hosts of 1 to %d devices", hosts, devices, MAX_HOSTS,
                         MAX_DEVICES);
    size_t samples = 0;
    for (int t = 0; t < from->types; t++) samples += (size_t)from->type[t].samples;
    cria_cluster *c = calloc(1, sizeof *c);
    if (!c) return out_of_memory(err);
    c->type = calloc((size_t)from->types, sizeof *c->type);
    c->sample = calloc(samples + 1, sizeof *c->sample);
    c->host = calloc((size_t)hosts, sizeof *c->host);
    cria_status status = c->type && c->sample && c->host ? CRIA_OK : out_of_memory(err);
    if (status == CRIA_OK) {
        snprintf(c->name, sizeof c->name, "%.40s:%dx%d", from->name, hosts, devices);
        c->network = from->network;
        c->types = from->types;
        memcpy(c->type, from->type, (size_t)from->types * sizeof *c->type);
        if (samples) memcpy(c->sample, from->sample, samples * sizeof *c->sample);
        for (int t = 0; t < c->types; t++)
            c->type[t].sample = from->type[t].samples ? c->sample + (from->type[t].sample - from->sample) : c->sample;
    }
    for (int h = 0; status == CRIA_OK && h < hosts; h++) {
        c->host[c->hosts++] = (cria_host){.first_device = c->devices, .link = from->host[0].link};
        status = add_devices(c, h, from->type_of[0], devices, err);
    }
    if (status != CRIA_OK) {
        cria_cluster_destroy(c);
        return status;
    }
    *out = c;
    return CRIA_OK;
}

/* Reads ":8x4" or ":4" off the end of a name; false where there is none. */
static bool split_size(const char *text, size_t *length, int *hosts, int *devices) {
    const char *colon = strrchr(text, ':');
    if (!colon) return false;
    char *end;
    long first = strtol(colon + 1, &end, 10), second = 0;
    bool pair = *end == 'x' && end != colon + 1;
    if (pair) {
        char *from = end + 1;
        second = strtol(from, &end, 10);
        if (end == from) return false;
    }
    if (*end || end == colon + 1) return false;
    if (first < 0 || first > INT32_MAX || second < 0 || second > INT32_MAX) first = second = 0;
    *length = (size_t)(colon - text);
    *hosts = pair ? (int)first : 1;
    *devices = pair ? (int)second : (int)first;
    return true;
}

cria_status cria_cluster_read(const char *path, cria_cluster **out, cria_error *err) {
    char file[4096];
    size_t length = strlen(path);
    int hosts, devices;
    bool sized = split_size(path, &length, &hosts, &devices);
    if (length >= sizeof file) return cria_fail(err, CRIA_ERR_ARGUMENT, "the cluster's name is too long");
    snprintf(file, sizeof file, "%.*s", (int)length, path);
    cria_json *json;
    cria_error inner = {0};
    CRIA_TRY(cria_json_parse_file(file, MAX_FILE, &json, err));
    cria_cluster *read = NULL;
    cria_status status = cria_cluster_from_json(cria_json_root(json), &read, &inner);
    cria_json_destroy(json);
    if (status != CRIA_OK) return cria_fail(err, status, "%s: %s", file, inner.message);
    if (!sized) {
        *out = read;
        return CRIA_OK;
    }
    status = cria_cluster_resize(read, hosts, devices, out, err);
    cria_cluster_destroy(read);
    return status;
}

void cria_cluster_destroy(cria_cluster *c) {
    if (!c) return;
    free(c->type);
    free(c->host);
    free(c->type_of);
    free(c->host_of);
    free(c->sample);
    free(c);
}

const char *cria_cluster_name(const cria_cluster *c) {
    return c->name;
}
int cria_cluster_devices(const cria_cluster *c) {
    return c->devices;
}
int cria_cluster_hosts(const cria_cluster *c) {
    return c->hosts;
}
int cria_cluster_types(const cria_cluster *c) {
    return c->types;
}
const cria_host *cria_cluster_host(const cria_cluster *c, int host) {
    return &c->host[host];
}
int cria_cluster_host_of(const cria_cluster *c, int device) {
    return c->host_of[device];
}
const cria_link *cria_cluster_network(const cria_cluster *c) {
    return &c->network;
}
int cria_cluster_type_of(const cria_cluster *c, int device) {
    return c->type_of[device];
}
const cria_device_type *cria_cluster_type(const cria_cluster *c, int type) {
    return &c->type[type];
}
