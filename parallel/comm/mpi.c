/* Ranks that are processes started by mpirun, srun or an operator: MPI (Open MPI) finds them and carries what must
 * leave a host; on one host, its shared windows are the memory of parallel/comm/shared. */
#include "parallel/comm/shared.h"

#if !defined(CRIA_MPI)

void cria_comm_end_world(int exit_code) {
    (void)exit_code;
}

cria_status cria_comm_create_mpi(const cria_comm_options *options, cria_comm **out, cria_error *err) {
    (void)options, (void)out;
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "this cria was built without MPI: it runs on one rank only");
}

#else

#include "base/clock.h"
#include "parallel/comm/hosts.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIRST_BEAT_SECONDS = 30 };

/* What the world's communicator owns besides its own window. */
typedef struct {
    MPI_Comm all, host;
    MPI_Win window; /* of the host: the health block */
    cria_health *health;
    cria_message_beats *beats; /* NULL where all ranks share one host */
} world;

/* What any communicator over a shared window owns. */
typedef struct {
    MPI_Comm comm;
    MPI_Win window;
    int *ranks;   /* of the world */
    world *owned; /* NULL for what was split from it */
    cria_health *health;
} windowed;

static cria_status check(int code, const char *what, cria_error *err) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length;
    if (code == MPI_SUCCESS) return CRIA_OK;
    MPI_Error_string(code, text, &length);
    return cria_fail(err, CRIA_ERR_IO, "MPI: %s: %s", what, text);
}

/* The last meeting before the end; false where somebody is lost. */
static bool meet_all(const world *w) {
    MPI_Request request;
    int done = 0;
    if (!w->health || MPI_Ibarrier(w->all, &request) != MPI_SUCCESS) return false;
    while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
        if (cria_health_failed(w->health)) return false;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return done;
}

/* After a failure the others cannot be waited for: the launcher ends what is left. */
static void free_world(world *w) {
    bool failed = !meet_all(w);
    cria_health_destroy(w->health);
    cria_message_beats_destroy(w->beats);
    if (!failed) {
        if (w->window != MPI_WIN_NULL) MPI_Win_free(&w->window);
        if (w->host != MPI_COMM_NULL) MPI_Comm_free(&w->host);
        if (w->all != MPI_COMM_NULL) MPI_Comm_free(&w->all);
        MPI_Finalize();
    }
    free(w);
}

static void release(void *owner) {
    windowed *o = owner;
    bool failed = o->health && cria_health_failed(o->health);
    /* Freeing windows and communicators is collective; a poisoned world is past that. */
    if (!failed && o->window != MPI_WIN_NULL) MPI_Win_free(&o->window);
    if (o->owned)
        free_world(o->owned);
    else if (!failed && o->comm != MPI_COMM_NULL)
        MPI_Comm_free(&o->comm);
    free(o->ranks);
    free(o);
}

static cria_status split(cria_comm *comm, int color, cria_comm **out, cria_error *err);
static const cria_shared_kind SHARED = {"shared memory", split, release};

/* A window whose memory the first rank of `comm` owns and all see. */
static cria_status share(MPI_Comm comm, size_t bytes, MPI_Win *window, void **memory, cria_error *err) {
    int rank, unit;
    MPI_Aint size;
    MPI_Comm_rank(comm, &rank);
    CRIA_TRY(check(MPI_Win_allocate_shared(rank == 0 ? (MPI_Aint)bytes : 0, 1, MPI_INFO_NULL, comm, memory, window),
                   "shared window", err));
    return check(MPI_Win_shared_query(*window, 0, &size, &unit, memory), "shared window", err);
}

/* The ranks of `comm` that lie on this host; `rank`: of the world. */
static cria_status split_hosts(MPI_Comm comm, int rank, const cria_comm_options *options, MPI_Comm *host,
                               cria_error *err) {
    int code = options->ranks_per_host ? MPI_Comm_split(comm, rank / options->ranks_per_host, 0, host)
                                       : MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, host);
    return check(code, "hosts", err);
}

/* first[h]: the first rank of host h in `comm`, first[hosts] the size; returns how many hosts there are, or 0 where the
 * ranks of a host do not follow each other or every rank has a host of its own. */
static int find_hosts(MPI_Comm comm, MPI_Comm host, int *first) {
    int rank, size, hosts = 0, leader[CRIA_COMM_MAX_RANKS];
    bool follow = true;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    MPI_Bcast(&rank, 1, MPI_INT, 0, host);
    MPI_Allgather(&rank, 1, MPI_INT, leader, 1, MPI_INT, comm);
    for (int r = 0; r < size; r++) {
        if (leader[r] == r)
            first[hosts++] = r;
        else if (leader[r] != leader[r - 1])
            follow = false;
    }
    first[hosts] = size;
    return follow && hosts < size ? hosts : 0;
}

static cria_status make_shared(windowed *o, const cria_comm_options *options, cria_comm **out, cria_error *err) {
    int rank, size;
    void *memory;
    MPI_Comm_rank(o->comm, &rank);
    MPI_Comm_size(o->comm, &size);
    cria_status status = share(o->comm, cria_shared_bytes(size), &o->window, &memory, err);
    if (status != CRIA_OK) {
        release(o);
        return status;
    }
    if (rank == 0) cria_shared_clear(memory, size);
    MPI_Barrier(o->comm);
    return cria_shared_create(memory, rank, size, o->ranks, options, o->health, &SHARED, o, out, err);
}

/* What a communicator over `comm` owns. */
static windowed *own(MPI_Comm comm, MPI_Comm parent, const int *parent_world, cria_health *health, world *owned) {
    int size;
    MPI_Comm_size(comm, &size);
    windowed *o = calloc(1, sizeof *o);
    int *ranks = calloc((size_t)size, sizeof *ranks), *index = calloc((size_t)size, sizeof *index);
    if (!o || !ranks || !index) {
        free(o);
        free(ranks);
        free(index);
        return NULL;
    }
    MPI_Group mine, theirs;
    MPI_Comm_group(comm, &mine);
    MPI_Comm_group(parent, &theirs);
    for (int r = 0; r < size; r++) index[r] = r;
    MPI_Group_translate_ranks(mine, size, index, theirs, ranks);
    MPI_Group_free(&mine);
    MPI_Group_free(&theirs);
    free(index);
    for (int r = 0; r < size && parent_world; r++) ranks[r] = parent_world[ranks[r]];
    *o = (windowed){.comm = comm, .window = MPI_WIN_NULL, .ranks = ranks, .owned = owned, .health = health};
    return o;
}

/* Ranks on several hosts: `host` are those of this one, which this call owns from then on. */
static cria_status make_hosts(windowed *o, MPI_Comm host, const cria_comm_options *options, cria_comm **out,
                              cria_error *err) {
    int first[CRIA_COMM_MAX_RANKS + 1], hosts = find_hosts(o->comm, host, first);
    cria_comm *direct, *local;
    MPI_Comm comm = o->comm;
    const int *ranks = o->ranks;
    cria_health *health = o->health;
    CRIA_TRY(cria_message_create(comm, ranks, options, health, split, release, o, &direct, err));
    if (hosts == 0) {
        MPI_Comm_free(&host);
        *out = direct;
        return CRIA_OK;
    }
    windowed *here = own(host, comm, ranks, health, NULL);
    cria_status status = here ? make_shared(here, options, &local, err)
                              : cria_fail(err, CRIA_ERR_MEMORY, "no memory for a host's ranks");
    if (status != CRIA_OK) {
        cria_comm_destroy(direct);
        return status;
    }
    return cria_hosts_create(direct, local, first, hosts, split, out, err);
}

/* Makes the communicator over `comm`, which this call owns from then on: shared memory where it lies on one host. */
static cria_status make(MPI_Comm comm, const int *parent_world, MPI_Comm parent, const cria_comm_options *options,
                        cria_health *health, world *owned, cria_comm **out, cria_error *err) {
    int rank, size, here;
    MPI_Comm host;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    windowed *o = own(comm, parent, parent_world, health, owned);
    if (!o) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of %d ranks", size);
    cria_status status = split_hosts(comm, o->ranks[rank], options, &host, err);
    if (status != CRIA_OK) {
        release(o);
        return status;
    }
    MPI_Comm_set_errhandler(host, MPI_ERRORS_RETURN);
    MPI_Comm_size(host, &here);
    if (here < size) return make_hosts(o, host, options, out, err);
    MPI_Comm_free(&host);
    return make_shared(o, options, out, err);
}

static cria_status split(cria_comm *comm, int color, cria_comm **out, cria_error *err) {
    if (comm->ops->name == cria_hosts_name) comm = cria_hosts_direct(comm);
    windowed *o = comm->ops->name == SHARED.name ? cria_shared_owner(comm) : cria_message_owner(comm);
    MPI_Comm part;
    CRIA_TRY(cria_comm_check(comm, err));
    CRIA_TRY(check(MPI_Comm_split(o->comm, color < 0 ? MPI_UNDEFINED : color, comm->rank, &part), "split", err));
    if (part == MPI_COMM_NULL) return CRIA_OK;
    MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN);
    return make(part, o->ranks, o->comm, &comm->options, comm->health, NULL, out, err);
}

static int processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* A rank that was never heard cannot be missed: returns once every one has been. */
static cria_status hear_all(const world *w, int size, cria_error *err) {
    uint64_t start = cria_clock_ns();
    for (int r = 0; r < size;) {
        CRIA_TRY(cria_health_check(w->health, err));
        if (cria_health_beat(w->health, r) > 0)
            r++;
        else if (cria_seconds_between(start, cria_clock_ns()) > FIRST_BEAT_SECONDS)
            return cria_fail(err, CRIA_ERR_CLOSED, "rank %d: its host cannot be reached: no sign of life in %d s", r,
                             FIRST_BEAT_SECONDS);
        else
            nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    return CRIA_OK;
}

static cria_status start_world(world *w, cria_comm_options *options, cria_error *err) {
    int level, rank, size, here;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS)
        return cria_fail(err, CRIA_ERR_IO, "MPI cannot be started");
    if (level < MPI_THREAD_MULTIPLE)
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "this MPI does not allow calls from several threads");
    CRIA_TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, &w->all), "world", err));
    MPI_Comm_set_errhandler(w->all, MPI_ERRORS_RETURN);
    MPI_Comm_rank(w->all, &rank);
    MPI_Comm_size(w->all, &size);
    if (size > CRIA_COMM_MAX_RANKS)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%d ranks, the most are %d", size, CRIA_COMM_MAX_RANKS);
    CRIA_TRY(split_hosts(w->all, rank, options, &w->host, err));
    MPI_Comm_size(w->host, &here);
    options->spin = options->spin && !options->ranks_per_host && here <= processors();
    void *block;
    CRIA_TRY(share(w->host, cria_health_bytes(size), &w->window, &block, err));
    int host_rank;
    MPI_Comm_rank(w->host, &host_rank);
    if (host_rank == 0) memset(block, 0, cria_health_bytes(size));
    MPI_Barrier(w->all);
    CRIA_TRY(cria_health_create(block, rank, size, options->lost_seconds, true, &w->health, err));
    MPI_Barrier(w->all); /* from here on every rank beats */
    if (here == size) return CRIA_OK;
    CRIA_TRY(cria_message_beats_create(w->all, w->host, w->health, &w->beats, err));
    return hear_all(w, size, err);
}

void cria_comm_end_world(int exit_code) {
    int started = 0, finished = 0;
    if (MPI_Initialized(&started) != MPI_SUCCESS || !started) return;
    if (MPI_Finalized(&finished) != MPI_SUCCESS || finished) return;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

cria_status cria_comm_create_mpi(const cria_comm_options *given, cria_comm **out, cria_error *err) {
    cria_comm_options options = cria_comm_options_fill(given);
    world *w = calloc(1, sizeof *w);
    if (!w) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the world");
    *w = (world){.all = MPI_COMM_NULL, .host = MPI_COMM_NULL, .window = MPI_WIN_NULL};
    cria_status status = start_world(w, &options, err);
    if (status == CRIA_OK) status = make(w->all, NULL, w->all, &options, w->health, w, out, err);
    return status; /* a world that did not come to life ends with the process */
}

#endif
