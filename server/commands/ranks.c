/* Starting ranks with mpirun and watching over them; joining them. */
#include "server/commands/ranks.h"

#include "base/clock.h"
#include "parallel/plan/plan_file.h"
#include "parallel/plan/regular.h"
#include "server/agree.h"
#include "server/commands/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_ARGUMENTS = 256, SESSION_BYTES = 256 };

bool cria_ranks_started(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i])) return true;
    return false;
}

/* ---- starting ---- */

/* The number of ranks that a plan file is for, and how many replicas of them. */
static cria_status read_plan_size(const char *path, int *ranks, int *replicas, cria_error *err) {
    cria_json *json;
    int64_t value = 0;
    cria_plan_notes notes = {0};
    CRIA_TRY(cria_json_parse_file(path, (size_t)256 << 20, &json, err));
    cria_status status = cria_plan_check_json(cria_json_root(json), &notes, err);
    if (status == CRIA_OK) cria_json_int(cria_json_get(cria_json_root(json), "ranks"), &value);
    *ranks = (int)value;
    *replicas = status == CRIA_OK && notes.replicas > 1 ? notes.replicas : 1;
    if (status == CRIA_OK) cria_plan_notes_deinit(&notes);
    cria_json_destroy(json);
    return status;
}

static bool has_plan_file(const cria_main_options *o) {
    return o->plan && strcmp(o->plan, "auto") != 0;
}

static cria_status wanted_of_plan(const cria_main_options *o, int *out, cria_error *err) {
    int ranks, replicas;
    if (o->tensor_parallel || o->pipeline_parallel)
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "--plan says what --tensor-parallel-size and --pipeline-parallel-size "
                         "would: give one or the others");
    CRIA_TRY(read_plan_size(o->plan, &ranks, &replicas, err));
    if (o->data_parallel_size) replicas = (int)o->data_parallel_size;
    if (*out && ranks && ranks * replicas != *out)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the plan %s is for %d ranks, --ranks is %d", o->plan,
                         ranks * replicas, *out);
    if (ranks) *out = ranks * replicas;
    return CRIA_OK;
}

cria_status cria_ranks_wanted(const cria_main_options *o, int *out, cria_error *err) {
    int64_t tensor = o->tensor_parallel, stages = o->pipeline_parallel ? o->pipeline_parallel : 1;
    int64_t replicas = o->data_parallel_size ? o->data_parallel_size : 1;
    *out = (int)o->ranks;
    if (has_plan_file(o)) return wanted_of_plan(o, out, err);
    if (tensor && *out && tensor * stages * replicas != *out)
        return cria_fail(
            err, CRIA_ERR_ARGUMENT, "--ranks is %d, but %lld replicas of %lld stages of %lld ranks are %lld", *out,
            (long long)replicas, (long long)stages, (long long)tensor, (long long)(tensor * stages * replicas));
    if (!tensor && *out % (stages * replicas) != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "--ranks %d cannot be cut into %lld replicas of %lld stages of equal size", *out,
                         (long long)replicas, (long long)stages);
    if (!*out && (tensor || o->pipeline_parallel || o->data_parallel_size))
        *out = (int)((tensor ? tensor : 1) * stages * replicas);
    return CRIA_OK;
}

/* A folder for mpirun's session, so that what one mpirun removes at its end is not what another is just making in the
 * folder that they would share. False: there is none, and mpirun takes its own. */
static bool make_session(char folder[SESSION_BYTES]) {
    const char *base = getenv("TMPDIR");
    if (getenv("OMPI_MCA_orte_tmpdir_base")) return false; /* somebody has chosen */
    int length = snprintf(folder, SESSION_BYTES, "%s/cria-XXXXXX", base && base[0] ? base : "/tmp");
    return length < SESSION_BYTES && mkdtemp(folder);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status, (void)kind, (void)walk;
    return remove(path) != 0; /* the rest is left where something is held */
}

static void remove_session(const char *folder) {
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* mpirun's command line, then ours. When one rank is lost, mpirun ends the others with SIGTERM and leaves them some
 * seconds, in which the first rank tells its clients. */
static int fill_arguments(const cria_command *command, int ranks, const char *session, char *text, size_t size,
                          char **out) {
    const cria_main_options *o = command->options;
    int n = 0;
    int used = snprintf(text, size, "%d", ranks);
    char *timeout = text + used + 1;
    snprintf(timeout, size - (size_t)used - 1, "%d", 2);
    char *fixed[] = {"mpirun",
                     "-q",
                     "-n",
                     text,
                     "--oversubscribe",
                     "--bind-to",
                     "none",
                     "-mca",
                     "mpi_yield_when_idle",
                     "1",
                     "-mca",
                     "odls_base_sigkill_timeout",
                     timeout};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) out[n++] = fixed[i];
    if (session) {
        out[n++] = "-mca";
        out[n++] = "orte_tmpdir_base";
        out[n++] = (char *)(uintptr_t)session;
    }
    if (geteuid() == 0) out[n++] = "--allow-run-as-root";
    if (o->hostfile) {
        out[n++] = "--hostfile";
        out[n++] = (char *)(uintptr_t)o->hostfile;
    }
    return n;
}

static pid_t start(const cria_command *command, int ranks, const char *session, const char *self) {
    char *arguments[MOST_ARGUMENTS], text[64];
    int n = fill_arguments(command, ranks, session, text, sizeof text, arguments);
    arguments[n++] = (char *)(uintptr_t)self;
    arguments[n++] = (char *)(uintptr_t)command->name;
    for (int i = 0; i < command->argc && n < MOST_ARGUMENTS - 1; i++) arguments[n++] = command->argv[i];
    arguments[n] = NULL;
    pid_t child = fork();
    if (child != 0) return child;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* the ranks go when this process does */
    setpgid(0, 0);                    /* a terminal's interrupt is handed on by the parent, so that the ranks drain */
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0) dup2(null, 0);
    execvp("mpirun", arguments);
    fprintf(stderr, "cria: mpirun cannot be started: %s; it comes with Open MPI\n", strerror(errno));
    _exit(127);
}

/* Waits for the ranks' end. A server is asked to drain: SIGINT and SIGTERM are handed on as SIGUSR1, which mpirun
 * forwards to every rank, and which all but the first ignore. */
static int wait_for(pid_t child, int signals, bool serves, double drain_seconds, bool *stopped) {
    uint64_t asked = 0;
    for (;;) {
        int status;
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        struct pollfd poll_fd = {signals, POLLIN, 0};
        if (poll(&poll_fd, 1, 50) > 0) {
            struct signalfd_siginfo info;
            if (read(signals, &info, sizeof info) == (ssize_t)sizeof info && info.ssi_signo != SIGCHLD) {
                kill(child, serves ? SIGUSR1 : SIGTERM);
                if (!asked) asked = cria_clock_ns();
                *stopped = true;
            }
        }
        /* What does not end in time is ended. */
        if (asked && cria_seconds_between(asked, cria_clock_ns()) > drain_seconds + 10) kill(child, SIGTERM);
        if (asked && cria_seconds_between(asked, cria_clock_ns()) > drain_seconds + 20) kill(-child, SIGKILL);
    }
}

cria_status cria_ranks_launch(const cria_command *command, cria_error *err) {
    int ranks;
    char self[4096];
    if (cria_ranks_started()) return CRIA_OK;
    CRIA_TRY(cria_ranks_wanted(command->options, &ranks, err));
    if (ranks <= 1) return CRIA_OK;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return cria_fail(err, CRIA_ERR_IO, "/proc/self/exe: %s", strerror(errno));
    self[length] = '\0';
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC), quick = 0;
    for (bool stopped = false;;) {
        uint64_t began = cria_clock_ns();
        char session[SESSION_BYTES];
        bool own_session = !command->options->hostfile && make_session(session); /* other hosts would keep theirs */
        pid_t child = start(command, ranks, own_session ? session : NULL, self);
        if (child < 0) return cria_fail(err, CRIA_ERR_MEMORY, "fork: %s", strerror(errno));
        int code = wait_for(child, signals, strcmp(command->name, "serve") == 0,
                            (double)command->options->drain_seconds, &stopped);
        if (own_session) remove_session(session);
        quick = cria_seconds_between(began, cria_clock_ns()) < 5 ? quick + 1 : 0;
        /* Wrong arguments do not become right by trying again, nor does what fails at once. */
        if (!command->options->restart_ranks || stopped || code == 0 || code == 2 || code == 127 || quick > 2)
            exit(code);
        fprintf(stderr, "cria: the ranks ended with code %d and are started again\n", code);
    }
}

/* ---- joining ---- */

static cria_status count_share(cria_ranks_joined *j, cria_error *err) {
    cria_rank_note mine = {0}, *all = calloc((size_t)j->size, sizeof *all);
    if (!all) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to hear %d ranks", j->size);
    /* Network namespaces share a name; the launcher tells its hosts apart. */
    const char *known = getenv("PMIX_HOSTNAME");
    if (known && known[0])
        snprintf(mine.host, sizeof mine.host, "%s", known);
    else
        gethostname(mine.host, sizeof mine.host - 1);
    snprintf(j->host, sizeof j->host, "%s", mine.host);
    cria_status status = cria_share_notes(j->comm, &mine, all, err);
    for (int r = 0; r < j->size && status == CRIA_OK; r++) {
        bool here = strcmp(all[r].host, mine.host) == 0;
        j->share += here;
        j->place += here && r < j->rank;
    }
    free(all);
    return status;
}

static bool own_gpus(const cria_main_options *o) {
    return strcmp(o->comm, "nccl") == 0;
}

/* Before anything that only some ways of planning do together: all ranks are the same program and make or read their
 * plan in the same way. Which plan it is, and all else, is compared once it is there (server/runtime.c). */
static cria_status agree_on_way(const cria_command *command, const cria_ranks_joined *j, cria_error *err) {
    const cria_main_options *o = command->options;
    cria_error local = {0};
    int wanted;
    cria_status status = cria_ranks_wanted(o, &wanted, &local);
    if (status == CRIA_OK && wanted && wanted != j->size)
        status = cria_fail(&local, CRIA_ERR_ARGUMENT, "%d ranks were started, but %s for %d", j->size,
                           has_plan_file(o) ? "the plan is" : "the options ask", wanted);
    if (status == CRIA_OK && own_gpus(o)) status = cria_comm_check_gpu(j->place, &local);
    const int64_t way[] = {has_plan_file(o) ? 2
                           : o->plan        ? 1
                                            : 0,
                           o->tensor_parallel, o->pipeline_parallel, o->data_parallel_size};
    cria_agreement same = {.name = {"versions of cria", "commands", "communicators (--comm)", "ways to plan (options)"},
                           .hash = {cria_hash_bytes(0, CRIA_VERSION, strlen(CRIA_VERSION)),
                                    cria_hash_bytes(0, command->name, strlen(command->name)),
                                    cria_hash_bytes(0, o->comm, strlen(o->comm)), cria_hash_bytes(0, way, sizeof way)}};
    return cria_agree(j->comm, status, &local, &same, err);
}

cria_status cria_ranks_join(const cria_command *command, cria_ranks_joined *out, cria_error *err) {
    *out = (cria_ranks_joined){.options = command->options, .size = 1, .share = 1};
    if (!cria_ranks_started()) return CRIA_OK;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no rank outlives its launcher */
    cria_comm_options options = {.deadline_seconds = 3600, .spin = true};
    /* MPI's threads must not take the signals that are the main thread's. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    cria_status status = cria_comm_create_mpi(&options, &out->comm, err);
    sigdelset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    CRIA_TRY(status);
    out->rank = cria_comm_rank(out->comm);
    out->size = cria_comm_size(out->comm);
    out->share = 0;
    CRIA_TRY(count_share(out, err));
    CRIA_TRY(agree_on_way(command, out, err));
    return own_gpus(command->options) ? cria_comm_create_nccl(out->comm, out->place, &out->comm, err) : CRIA_OK;
}

static void free_plan(cria_ranks_joined *joined) {
    free(joined->plan_json);
    free(joined->device);
    free(joined->rate_of);
    cria_cluster_destroy(joined->cluster);
    joined->plan_json = NULL;
    joined->device = NULL;
    joined->rate_of = NULL;
    joined->cluster = NULL;
}

cria_status cria_ranks_leave(cria_ranks_joined *joined, const cria_command *command, cria_status status,
                             const cria_error *err) {
    if (!joined->comm && !joined->world) {
        free_plan(joined);
        return status;
    }
    if (status != CRIA_OK) {
        int code = status == CRIA_ERR_ARGUMENT ? 2 : 1;
        /* The first rank speaks for all; where it is the one that is lost, the others do. */
        if (joined->rank > 0) usleep(3000000 + (unsigned)joined->rank * 100000u);
        fprintf(stderr, "cria %s: %s\n", command->name, err->message);
        sigset_t none; /* from here on the launcher's SIGTERM is obeyed at once */
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        cria_launcher_outlive();
        cria_comm_end_world(code);
        exit(code);
    }
    char end = 0;
    cria_error ignored = {0};
    if (joined->world && joined->comm) cria_comm_broadcast(joined->world, 0, &end, 1, &ignored);
    cria_comm_destroy(joined->comm);
    cria_comm_destroy(joined->world);
    joined->comm = joined->world = NULL;
    free_plan(joined);
    return CRIA_OK;
}

/* ---- plans ---- */

static cria_status read_made_plan(const char *text, const cria_graph *graph, cria_plan **out, cria_plan_notes *notes,
                                  cria_error *err) {
    cria_json *json;
    CRIA_TRY(cria_json_parse(text, strlen(text), &json, err));
    cria_status status = cria_plan_from_json(cria_json_root(json), graph, out, notes, err);
    cria_json_destroy(json);
    return status;
}

static cria_status make_plan(void *context, const cria_graph *graph, int ranks, cria_plan **out, cria_plan_notes *notes,
                             cria_error *err) {
    const cria_ranks_joined *joined = context;
    const cria_main_options *o = joined->options;
    if (joined->plan_json) return read_made_plan(joined->plan_json, graph, out, notes, err);
    if (has_plan_file(o)) return cria_plan_read(o->plan, graph, out, notes, err);
    if (o->plan)
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "--plan auto is for serve, generate and bench; cria plan --out writes a plan to inspect");
    int stages = o->pipeline_parallel ? (int)o->pipeline_parallel : 1;
    return cria_plan_create_regular(graph, stages, 1, ranks / stages, out, err);
}

void cria_ranks_request(const cria_ranks_joined *joined, cria_runtime_request *request) {
    request->comm = joined->comm;
    request->share = joined->share;
    request->version = CRIA_VERSION;
    const cria_main_options *o = joined->options;
    request->replicas = o->data_parallel_size ? (int)o->data_parallel_size : joined->replicas;
    int ranks;
    cria_error later = {0}; /* whoever reads the plan itself tells what is wrong with it */
    request->plan_sizes_kv = has_plan_file(o);
    if (has_plan_file(o) && !request->replicas) read_plan_size(o->plan, &ranks, &request->replicas, &later);
    request->make_plan = make_plan;
    request->plan_context = (void *)(uintptr_t)joined;
}

/* ---- running ---- */

static void fill_note(const cria_runtime *runtime, cria_rank_note *note) {
    cria_runtime_summary s;
    cria_runtime_summarise(runtime, &s);
    *note =
        (cria_rank_note){.pid = (int32_t)getpid(),
                         .threads = s.threads,
                         .stage = cria_plan_stage_of_rank(cria_runtime_plan(runtime), cria_runtime_plan_rank(runtime)),
                         .weight_bytes = s.weight_bytes,
                         .kv_bytes = s.kv_bytes,
                         .workspace_bytes = s.workspace_bytes,
                         .step_bytes = cria_program_bytes(cria_runtime_program(runtime), 1, 1)};
    gethostname(note->host, sizeof note->host - 1);
}

cria_status cria_ranks_print(const cria_ranks_joined *joined, const cria_runtime *runtime, cria_error *err) {
    cria_rank_note mine, *all = calloc((size_t)joined->size, sizeof *all);
    if (!all) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to hear %d ranks", joined->size);
    fill_note(runtime, &mine);
    cria_status status = cria_share_notes(joined->comm, &mine, all, err);
    if (status == CRIA_OK && joined->rank == 0) {
        fprintf(stderr, "\n%d ranks, connected by %s\n", joined->size, cria_comm_backend(joined->comm));
        fprintf(stderr, "rank  stage  host              pid      threads  weights     KV cache    sent per token\n");
        for (int r = 0; r < joined->size; r++)
            fprintf(stderr, "%4d  %5d  %-16s  %-7d  %7d  %8.1f MB  %8.1f MB  %lld B\n", r, all[r].stage, all[r].host,
                    all[r].pid, all[r].threads, (double)all[r].weight_bytes / 1e6, (double)all[r].kv_bytes / 1e6,
                    (long long)all[r].step_bytes);
    }
    free(all);
    return status;
}

cria_status cria_ranks_follow(const cria_command *command, const cria_ranks_joined *joined, cria_error *err) {
    cria_runtime *runtime;
    cria_runtime_request request = {0};

    cria_ranks_request(joined, &request);
    CRIA_TRY(cria_runtime_open(command->path, command->options, &request, command->log, &runtime, err));
    cria_status status = cria_ranks_print(joined, runtime, err);
    if (status == CRIA_OK) status = cria_group_follow(cria_runtime_group(runtime), err);
    cria_runtime_close(runtime);
    return status;
}
