/* Every two ranks of a communicator have a socket between them; what a group asks for is one task of the stream. */
#include "tests/fake_gpu/nccl.h"

#include "tests/fake_gpu/fake.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RANKS = 64, POLL_MS = 5, QUESTIONS = 2 };

typedef struct {
    bool sends;
    int peer;
    char *data;
    size_t left;
} transfer;

typedef struct {
    ncclComm_t comm;
    fake_stream *stream;
    int count;
    transfer list[2 * MOST_RANKS];
} group;

struct ncclComm {
    int size, rank, device;
    char name[64];
    int socket[MOST_RANKS];
    pthread_t starter;
    atomic_int state;     /* ncclResult_t */
    atomic_int unsettled; /* so many more questions are answered by ncclInProgress */
    atomic_int under_way; /* groups in the stream */
    atomic_bool aborted;
};

typedef struct {
    int rank, device;
} hello;

static _Thread_local group *open_group;

const char *ncclGetErrorString(ncclResult_t code) {
    return code == ncclInvalidUsage ? "invalid usage" : code == ncclInProgress ? "in progress" : "fake error";
}

/* ---- starting ---- */

ncclResult_t ncclGetUniqueId(ncclUniqueId *out) {
    static atomic_int count;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    memset(out, 0, sizeof *out);
    snprintf(out->internal, sizeof out->internal, "cria-fake-nccl-%d-%d-%ld", (int)getpid(), count++, now.tv_nsec);
    return ncclSuccess;
}

/* An abstract address, which goes with its socket. */
static socklen_t address_of(const ncclComm_t comm, int rank, struct sockaddr_un *out) {
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    int length = snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "%s-%d", comm->name, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static void connect_to(ncclComm_t comm, int peer) {
    struct sockaddr_un address;
    socklen_t length = address_of(comm, peer, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FAKE_REQUIRE(fd >= 0);
    while (connect(fd, (struct sockaddr *)&address, length) != 0) {
        if (comm->aborted) {
            close(fd);
            return;
        }
        usleep(1000);
    }
    hello own = {comm->rank, comm->device};
    FAKE_REQUIRE(send(fd, &own, sizeof own, MSG_NOSIGNAL) == sizeof own);
    comm->socket[peer] = fd;
}

static void accept_one(ncclComm_t comm, int listener) {
    struct pollfd ready = {listener, POLLIN, 0};
    while (poll(&ready, 1, POLL_MS) == 0)
        if (comm->aborted) return;
    hello other = {0};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    FAKE_REQUIRE(fd >= 0);
    FAKE_REQUIRE(recv(fd, &other, sizeof other, MSG_WAITALL) == sizeof other);
    FAKE_REQUIRE(comm->rank < other.rank && other.rank < comm->size && comm->socket[other.rank] < 0);
    comm->socket[other.rank] = fd;
    if (other.device == comm->device) comm->state = ncclInvalidUsage; /* two ranks on one GPU */
}

static void *start(void *context) {
    ncclComm_t comm = context;
    struct sockaddr_un address;
    socklen_t length = address_of(comm, comm->rank, &address);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FAKE_REQUIRE(listener >= 0 && bind(listener, (struct sockaddr *)&address, length) == 0);
    FAKE_REQUIRE(listen(listener, MOST_RANKS) == 0);
    for (int r = 0; r < comm->rank; r++) connect_to(comm, r);
    for (int r = comm->rank + 1; r < comm->size && !comm->aborted; r++) accept_one(comm, listener);
    close(listener);
    int waiting = ncclInProgress;
    if (!comm->aborted) atomic_compare_exchange_strong(&comm->state, &waiting, ncclSuccess);
    return NULL;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank, ncclConfig_t *config) {
    FAKE_REQUIRE(config->blocking == 0 && size <= MOST_RANKS && 0 <= rank && rank < size);
    ncclComm_t comm = calloc(1, sizeof *comm);
    FAKE_REQUIRE(comm != NULL);
    comm->size = size;
    comm->rank = rank;
    comm->device = fake_device_in_use();
    FAKE_REQUIRE(comm->device >= 0);
    comm->state = ncclInProgress;
    snprintf(comm->name, sizeof comm->name, "%.50s", id.internal);
    for (int r = 0; r < MOST_RANKS; r++) comm->socket[r] = -1;
    FAKE_REQUIRE(pthread_create(&comm->starter, NULL, start, comm) == 0);
    *out = comm;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out) {
    *out = (ncclResult_t)comm->state;
    if (*out == ncclSuccess && comm->unsettled > 0) {
        comm->unsettled--;
        *out = ncclInProgress;
    }
    return ncclSuccess;
}

/* ---- ending ---- */

static ncclResult_t end(ncclComm_t comm) {
    pthread_join(comm->starter, NULL);
    while (comm->under_way > 0) usleep(100);
    for (int r = 0; r < comm->size; r++)
        if (comm->socket[r] >= 0) close(comm->socket[r]);
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    FAKE_REQUIRE(comm->state == ncclSuccess && comm->unsettled == 0);
    comm->unsettled = QUESTIONS;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    FAKE_REQUIRE(comm->state == ncclSuccess && comm->unsettled == 0 && comm->under_way == 0);
    return end(comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    comm->aborted = true;
    return end(comm);
}

/* ---- transfers ---- */

/* Whether a transfer before this one uses the same direction of the same socket: they go in order. */
static bool must_wait(const group *g, int i) {
    for (int j = 0; j < i; j++)
        if (g->list[j].left && g->list[j].peer == g->list[i].peer && g->list[j].sends == g->list[i].sends) return true;
    return false;
}

static void go_on(group *g, transfer *t) {
    int fd = g->comm->socket[t->peer];
    ssize_t done =
        t->sends ? send(fd, t->data, t->left, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, t->data, t->left, MSG_DONTWAIT);
    if (done > 0) {
        t->data += done;
        t->left -= (size_t)done;
    } else if (done == 0 || (errno != EAGAIN && errno != EINTR)) {
        usleep(POLL_MS * 1000); /* the other rank is gone: nobody says so, only an abort ends this */
    }
}

static void run(void *context) {
    group *g = context;
    for (;;) {
        struct pollfd ready[2 * MOST_RANKS];
        int which[2 * MOST_RANKS], count = 0;
        for (int i = 0; i < g->count; i++) {
            if (!g->list[i].left || must_wait(g, i)) continue;
            which[count] = i;
            ready[count++] = (struct pollfd){g->comm->socket[g->list[i].peer], g->list[i].sends ? POLLOUT : POLLIN, 0};
        }
        if (!count || g->comm->aborted) break;
        if (poll(ready, (nfds_t)count, POLL_MS) <= 0) continue;
        for (int i = 0; i < count; i++)
            if (ready[i].revents) go_on(g, &g->list[which[i]]);
    }
    g->comm->under_way--;
    free(g);
}

static group *new_group(void) {
    group *g = calloc(1, sizeof *g);
    FAKE_REQUIRE(g != NULL);
    return g;
}

static void submit(group *g) {
    if (!g->comm) {
        free(g);
        return;
    }
    FAKE_REQUIRE(g->comm->state == ncclSuccess && g->comm->unsettled == 0);
    g->comm->under_way++;
    g->comm->unsettled = QUESTIONS;
    fake_stream_add(g->stream, run, g);
}

ncclResult_t ncclGroupStart(void) {
    FAKE_REQUIRE(!open_group);
    open_group = new_group();
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    FAKE_REQUIRE(open_group != NULL);
    submit(open_group);
    open_group = NULL;
    return ncclInProgress;
}

static void add(group *g, bool sends, int peer, void *data, size_t bytes, ncclComm_t comm, fake_stream *stream) {
    FAKE_REQUIRE(!g->comm || (g->comm == comm && g->stream == stream));
    FAKE_REQUIRE(0 <= peer && peer < comm->size && peer != comm->rank && g->count < 2 * MOST_RANKS);
    FAKE_REQUIRE(fake_device_in_use() == comm->device && fake_is_device_memory(data, bytes));
    g->comm = comm;
    g->stream = stream;
    g->list[g->count++] = (transfer){sends, peer, data, bytes};
}

static ncclResult_t one(bool sends, int peer, void *data, size_t bytes, ncclComm_t comm, fake_stream *stream) {
    group *g = open_group ? open_group : new_group();
    add(g, sends, peer, data, bytes, comm, stream);
    if (open_group) return ncclSuccess;
    submit(g);
    return ncclInProgress;
}

ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    FAKE_REQUIRE(type == ncclChar);
    return one(true, peer, (void *)(size_t)data, count, comm, stream);
}

ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
    FAKE_REQUIRE(type == ncclChar);
    return one(false, peer, data, count, comm, stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    FAKE_REQUIRE(type == ncclChar && !open_group && from == to);
    group *g = new_group();
    for (int r = 0; r < comm->size; r++)
        if (r != comm->rank && (comm->rank == root || r == root))
            add(g, comm->rank == root, r, to, count, comm, stream);
    submit(g);
    return ncclInProgress;
}
