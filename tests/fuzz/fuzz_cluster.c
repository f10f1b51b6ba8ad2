/* Fuzzing cluster files: any JSON is an error with a message or a cluster whose numbers can be relied on. */
#include "parallel/plan/cluster.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_json *json = NULL;
    cria_cluster *c = NULL;
    cria_error err = {0};
    if (cria_json_parse((const char *)data, size, &json, &err) != CRIA_OK) return 0;
    cria_status status = cria_cluster_from_json(cria_json_root(json), &c, &err);
    cria_json_destroy(json);
    if (status != CRIA_OK) {
        if (status != err.status || !err.message[0]) abort();
        return 0;
    }
    int devices = 0;
    for (int h = 0; h < cria_cluster_hosts(c); h++) {
        const cria_host *host = cria_cluster_host(c, h);
        if (host->first_device != devices || host->devices < 1 || !(host->link.bandwidth > 0)) abort();
        devices += host->devices;
    }
    if (devices != cria_cluster_devices(c)) abort();
    for (int d = 0; d < devices; d++)
        if (cria_cluster_type_of(c, d) < 0 || cria_cluster_type_of(c, d) >= cria_cluster_types(c)) abort();
    for (int t = 0; t < cria_cluster_types(c); t++) {
        const cria_device_type *type = cria_cluster_type(c, t);
        if (!(type->memory > 0 && type->bandwidth > 0 && type->matmul > 0 && type->half >= 0)) abort();
        for (int i = 0; i < type->samples; i++)
            if (!(type->sample[i].seconds > 0) || !isfinite(type->sample[i].ratio)) abort();
    }
    cria_cluster_destroy(c);
    return 0;
}
