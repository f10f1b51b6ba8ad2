/* Devices that a command plans for: a cluster file, a name from configs/clusters, or `this` machine as its profile or a
 * short calibration finds it. */
#ifndef CRIA_SERVER_COMMANDS_DEVICES_H
#define CRIA_SERVER_COMMANDS_DEVICES_H

#include "models/config.h"
#include "parallel/graph/graph.h"
#include "parallel/profile/profile.h"
#include "server/commands/commands.h"

/* What the machine is, as far as planning is concerned. */
typedef struct {
    char processor[96]; /* its model name */
    int cpus;           /* that this process may use */
    double memory;      /* bytes that all ranks together may fill */
    cria_isa isa;       /* --isa */
} cria_machine;
cria_status cria_machine_find(const cria_main_options *options, cria_machine *out, cria_error *err);
/* Threads of one of `ranks` ranks that share the machine. */
int cria_machine_threads(const cria_machine *machine, const cria_main_options *options, int ranks);

/* Where the profile of so many ranks of so many threads lies; false: there is no cache. */
bool cria_profile_path(const cria_command *command, const cria_machine *machine, int ranks, int threads, char *out,
                       size_t size);
/* This machine as `ranks` devices: its cached profile, else calibrated in under a second. */
cria_status cria_this_machine(const cria_command *command, int ranks, cria_cluster **out, cria_error *err);
/* What --cluster names; `this`, `this:N` too. */
cria_status cria_open_cluster(const cria_command *command, const char *name, cria_cluster **out, cria_error *err);

/* The configuration of what command->path names: a folder, a .gguf file or a config.json. */
cria_status cria_read_config(const char *path, cria_model_config *config, cria_error *err);
/* How the runtime would hold the graph's weights. A path without weights goes by the configuration. */
typedef struct {
    cria_rate most;             /* the type of most of their bytes */
    bool used[CRIA_RATE_COUNT]; /* which types have more than a hundredth of them */
    double bytes;               /* of all */
    cria_rate *of;              /* by tensor; the caller frees it */
} cria_weight_rates;
cria_status cria_weight_rates_find(const cria_command *command, const cria_model_config *config,
                                   const cria_graph *graph, cria_weight_rates *out, cria_error *err);
/* Bytes of an element of the KV cache under a --kv-cache-dtype, its part of a scale included; `rate`: what auto goes
 * by, the type of most weights. */
double cria_kv_element_bytes(const char *dtype, cria_rate rate, const cria_graph *graph);

#endif
