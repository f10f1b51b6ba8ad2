/* `cria serve`: loads the model while the port already answers, says what a user needs to know, then runs the loop. */
#include "server/commands/commands.h"

#include "base/clock.h"
#include "parallel/plan/plan_file.h"
#include "server/commands/planned.h"
#include "server/http/server.h"
#include "server/runtime.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { MAX_NAMES = 16 };

/* What the loading thread makes while the HTTP loop already runs. */
typedef struct {
    const cria_command *command;
    cria_server *server;
    cria_runtime *runtime;
    cria_engine *engine;
    cria_ranks_joined ranks;
    atomic_bool ended; /* the loop has */
    cria_text plan;    /* as JSON */
    cria_status status;
    cria_error error;
    uint64_t start;
} loading;

static void print_summary(const loading *l) {
    const cria_command *c = l->command;
    cria_runtime_summary s;
    cria_runtime_summarise(l->runtime, &s);
    const char *host = strcmp(c->options->host, "0.0.0.0") == 0 || strcmp(c->options->host, "::") == 0
                           ? "127.0.0.1"
                           : c->options->host;
    int port = cria_server_port(l->server);
    fprintf(stderr,
            "\ncria %s: %s is ready after %.2f s\n"
            "  weights    %.1f MB (%s)\n"
            "  KV cache   %.1f MB (%s): %lld tokens in blocks of %lld; up to %lld per request\n"
            "  workspace  %.1f MB\n"
            "  threads    %d (%s)\n\n"
            "  open       http://%s:%d/\n"
            "  or try     curl http://%s:%d/v1/completions -H 'Content-Type: application/json' "
            "-d '{\"prompt\": \"The capital of France is\", \"max_tokens\": 16, \"temperature\": 0}'\n\n",
            CRIA_VERSION, c->model, cria_seconds_between(l->start, cria_clock_ns()), (double)s.weight_bytes / 1e6,
            s.weight_type, (double)s.kv_bytes / 1e6, s.kv_type, (long long)(s.kv_blocks * s.block_tokens),
            (long long)s.block_tokens, (long long)s.max_model_len, (double)s.workspace_bytes / 1e6, s.threads, s.isa,
            host, port, host, port);
}

static cria_status load(loading *l, cria_error *err) {
    const cria_command *c = l->command;
    cria_runtime_request request = {.needs_tokenizer = true, .progress = stderr};
    cria_ranks_request(&l->ranks, &request);
    CRIA_TRY(cria_runtime_open(c->path, c->options, &request, c->log, &l->runtime, err));
    cria_engine_config config;
    cria_runtime_engine_config(l->runtime, &config);
    if (l->ranks.comm) CRIA_TRY(cria_ranks_print(&l->ranks, l->runtime, err));
    cria_plan_print(cria_runtime_plan(l->runtime), cria_runtime_graph(l->runtime), cria_runtime_plan_notes(l->runtime),
                    &l->plan);
    CRIA_TRY(cria_runtime_start_engine(l->runtime, cria_server_deliver, l->server, c->log, &l->engine, err));
    bool neutral = strcmp(c->options->generation_config, "vllm") == 0;
    cria_server_model model = {.engine = l->engine,
                               .tokenizer = cria_runtime_tokenizer(l->runtime),
                               .max_model_len = config.max_model_len,
                               .vocab = config.vocab,
                               .eos_count = config.eos_count,
                               .defaults = neutral ? NULL : &cria_runtime_config(l->runtime)->sampling,
                               .chat_template_name = c->options->chat_template,
                               .plan_json = l->plan.failed ? NULL : l->plan.data,
                               .plan_notes = cria_runtime_plan_notes(l->runtime),
                               .stage_bytes = cria_runtime_stage_bytes(l->runtime),
                               .chat_template_text = cria_runtime_chat_template(l->runtime)};
    memcpy(model.eos, config.eos, sizeof model.eos);
    CRIA_TRY(cria_server_set_model(l->server, &model, err));
    print_summary(l);
    return CRIA_OK;
}

/* Looks after the other ranks, busy or idle: when one is lost, clients are told, /health says it for a moment, and the
 * server ends. */
static void watch(loading *l) {
    enum { TICK_MS = 100, SHOW_MS = 1500 };
    cria_error err = {0};
    while (!atomic_load(&l->ended)) {
        cria_engine_stats stats;
        cria_engine_stats_get(l->engine, &stats);
        if (cria_comm_check(l->ranks.comm, &err) == CRIA_OK && stats.failed)
            cria_fail(&err, CRIA_ERR_INTERNAL, "%s", stats.why);
        if (err.status != CRIA_OK) {
            cria_engine_fail(l->engine, err.message);
            cria_log_write(l->command->log, CRIA_LOG_ERROR, "the server ends: %s", err.message);
            for (int ms = 0; ms < SHOW_MS && !atomic_load(&l->ended); ms += TICK_MS) usleep(TICK_MS * 1000);
            l->status = cria_fail(&l->error, err.status, "%s", err.message);
            cria_server_stop(l->server);
            return;
        }
        usleep(TICK_MS * 1000);
    }
}

static void *load_thread(void *context) {
    loading *l = context;
    l->status = load(l, &l->error);
    if (l->status != CRIA_OK)
        cria_server_stop(l->server);
    else if (l->ranks.comm)
        watch(l);
    return NULL;
}

/* SIGINT and SIGTERM become readable bytes, so that the loop drains instead of dying. */
static int stop_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1); /* what a launcher hands on */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static cria_status run(loading *l, int stop_fd, cria_error *err) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, load_thread, l) != 0)
        return cria_fail(err, CRIA_ERR_MEMORY, "the loading thread cannot be started");
    cria_status status = cria_server_run(l->server, stop_fd, err);
    atomic_store(&l->ended, true);
    pthread_join(thread, NULL);
    if (l->status != CRIA_OK) status = cria_fail(err, l->status, "%s", l->error.message);
    cria_engine_destroy(l->engine);
    return status;
}

/* Shells allow 1,024 open files where the system would allow many more: so many as the connections need, if they can be
 * had. What is missing the server makes good by taking fewer connections. */
static void allow_files(const cria_command *command) {
    struct rlimit files;
    rlim_t wanted = cria_server_files(command->options->max_connections);
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= wanted) return;
    files.rlim_cur = files.rlim_max < wanted ? files.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur < wanted)
        cria_log_write(command->log, CRIA_LOG_WARNING,
                       "max-connections %lld needs %llu open files, %llu are allowed: fewer connections will do",
                       (long long)command->options->max_connections, (unsigned long long)wanted,
                       (unsigned long long)files.rlim_cur);
}

/* --served-model-name: names between commas, cut in place. */
static cria_status split_names(char *names, const char **list, size_t *count, cria_error *err) {
    char *state = NULL;
    for (char *name = strtok_r(names, ",", &state); name; name = strtok_r(NULL, ",", &state)) {
        if (*count == MAX_NAMES)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "served-model-name: more than %d names", MAX_NAMES);
        list[(*count)++] = name;
    }
    return *count ? CRIA_OK : cria_fail(err, CRIA_ERR_ARGUMENT, "served-model-name: it is empty");
}

static cria_status serve(const cria_command *command, cria_ranks_joined *ranks, void *context, cria_error *err) {
    (void)context;
    if (ranks->rank > 0) return cria_ranks_follow(command, ranks, err);
    const cria_main_options *o = command->options;
    char *names = strdup(o->served_model_name ? o->served_model_name : command->model);
    const char *list[MAX_NAMES];
    size_t count = 0;
    if (!names) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the model's name");
    cria_status status = o->served_model_name ? split_names(names, list, &count, err) : CRIA_OK;
    if (!o->served_model_name) list[count++] = names;
    cria_server_config config = {.host = o->host,
                                 .port = (int)o->port,
                                 .model_names = list,
                                 .model_name_count = count,
                                 .model_root = command->path,
                                 .api_key = o->api_key,
                                 .version = CRIA_VERSION,
                                 .max_logprobs = o->max_logprobs,
                                 .max_next_logprobs = cria_options_top_logprobs(o),
                                 .allowed_origins = o->allowed_origins,
                                 .max_connections = o->max_connections,
                                 .drain_seconds = (double)o->drain_seconds};
    loading l = {.command = command, .start = cria_clock_ns(), .ranks = *ranks};
    cria_text_init(&l.plan);
    int stop_fd = stop_signals();
    allow_files(command);
    if (status == CRIA_OK) status = cria_server_create(&config, command->log, &l.server, err);
    if (status == CRIA_OK) status = run(&l, stop_fd, err);
    cria_server_destroy(l.server);
    cria_error ignored = {0};
    if (status == CRIA_OK && ranks->comm && l.runtime) cria_group_stop(cria_runtime_group(l.runtime), &ignored);
    /* A loss of which the server has heard nothing yet. */
    if (status == CRIA_OK && ranks->comm) status = cria_comm_check(ranks->comm, err);
    cria_runtime_close(l.runtime);
    cria_text_deinit(&l.plan);
    if (stop_fd >= 0) close(stop_fd);
    free(names);
    return status;
}

cria_status cria_command_serve(const cria_command *command, cria_error *err) {
    return cria_ranks_run(command, serve, NULL, err);
}
