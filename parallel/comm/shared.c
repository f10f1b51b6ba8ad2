/* Collectives over shared memory: every rank writes into its own slot, all meet, everyone reads what it needs.
 *
 * Two sets of slots take turns. An operation may overwrite a set because every operation ends with a meeting at least
 * once: whoever has passed the meeting of one operation knows that all have finished reading the one before it. */
#include "parallel/comm/shared.h"

#include <stdlib.h>
#include <string.h>

enum {
    LINE = 128,
    SLOT = 512 << 10,    /* bytes of one rank's slot */
    CHANNEL = 128 << 10, /* bytes of a channel's ring between two ranks */
    SMALL_FLOATS = 4096  /* a sum of so few is computed by everyone, which saves a meeting */
};

typedef struct {
    _Alignas(LINE) atomic_uint meetings; /* how many meetings the rank has come to */
} member;

/* A ring of bytes from one rank to another. */
typedef struct {
    _Alignas(LINE) atomic_uint_fast64_t written;
    _Alignas(LINE) atomic_uint_fast64_t read;
    _Alignas(LINE) unsigned char data[CHANNEL];
} channel;

typedef struct {
    cria_comm comm;
    cria_comm_backend_ops ops;
    const cria_shared_kind *kind;
    void *owner;
    member *members;
    unsigned char *slots; /* [2][size][SLOT] */
    channel *channels;    /* [from][to] */
    unsigned meetings;
    unsigned set; /* which set of slots the next operation uses */
} shared;

static size_t members_bytes(int size) {
    return (size_t)size * sizeof(member);
}

static size_t slots_bytes(int size) {
    return 2 * (size_t)size * SLOT;
}

size_t cria_shared_bytes(int size) {
    return LINE + members_bytes(size) + slots_bytes(size) + (size_t)size * (size_t)size * sizeof(channel);
}

static unsigned char *aligned(void *segment) {
    return (unsigned char *)segment + (LINE - (uintptr_t)segment % LINE) % LINE;
}

void cria_shared_clear(void *segment, int size) {
    unsigned char *at = aligned(segment);
    memset(at, 0, members_bytes(size));
    channel *channels = (channel *)(void *)(at + members_bytes(size) + slots_bytes(size));
    for (int i = 0; i < size * size; i++) {
        atomic_store(&channels[i].written, 0);
        atomic_store(&channels[i].read, 0);
    }
}

static unsigned char *slot(const shared *s, int rank) {
    return s->slots + ((size_t)(s->set & 1) * (size_t)s->comm.size + (size_t)rank) * SLOT;
}

/* Returns once every rank has come to this meeting; what they wrote before is then visible. */
static cria_status meet(shared *s, bool idle, const char *what, cria_error *err) {
    unsigned now = ++s->meetings;
    atomic_store_explicit(&s->members[s->comm.rank].meetings, now, memory_order_release);
    for (int r = 0; r < s->comm.size; r++) {
        cria_comm_wait wait = {0};
        while ((int)(atomic_load_explicit(&s->members[r].meetings, memory_order_acquire) - now) < 0)
            CRIA_TRY(cria_comm_wait_check(&s->comm, &wait, r, idle, what, err));
    }
    return CRIA_OK;
}

static void add_to(float *sum, const float *more, int64_t count) {
    for (int64_t i = 0; i < count; i++) sum[i] += more[i];
}

/* out = the sum over all slots of floats [first, first + count), in rank order. */
static void sum_slots(const shared *s, int64_t first, int64_t count, float *out) {
    enum { BLOCK = 2048 }; /* the sum stays in the first-level cache */
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        float sum[BLOCK];
        memcpy(sum, (const float *)(const void *)slot(s, 0) + first + at, (size_t)n * sizeof *sum);
        for (int r = 1; r < s->comm.size; r++) add_to(sum, (const float *)(const void *)slot(s, r) + first + at, n);
        memcpy(out + at, sum, (size_t)n * sizeof *sum);
    }
}

static cria_status all_reduce(cria_comm *comm, float *data, int64_t count, cria_error *err) {
    shared *s = (shared *)comm;
    const int64_t most = SLOT / (int64_t)sizeof(float);
    int rank = comm->rank, size = comm->size;
    for (int64_t at = 0; at < count; at += most, s->set++) {
        int64_t n = count - at < most ? count - at : most;
        memcpy(slot(s, rank), data + at, (size_t)n * sizeof *data);
        CRIA_TRY(meet(s, false, "all-reduce", err));
        if (n <= SMALL_FLOATS) {
            sum_slots(s, 0, n, data + at);
            continue;
        }
        /* Only this rank reads or writes this part of any slot. */
        int64_t first = cria_comm_part(n, size, rank), end = cria_comm_part(n, size, rank + 1);
        sum_slots(s, first, end - first, (float *)(void *)slot(s, rank) + first);
        CRIA_TRY(meet(s, false, "all-reduce", err));
        for (int r = 0; r < size; r++) {
            int64_t b = cria_comm_part(n, size, r), e = cria_comm_part(n, size, r + 1);
            memcpy(data + at + b, (const float *)(const void *)slot(s, r) + b, (size_t)(e - b) * sizeof *data);
        }
    }
    return CRIA_OK;
}

static cria_status all_gather(cria_comm *comm, const void *in, void *out, const int64_t *bytes, cria_error *err) {
    shared *s = (shared *)comm;
    int64_t most = 0;
    for (int r = 0; r < comm->size; r++) most = bytes[r] > most ? bytes[r] : most;
    for (int64_t at = 0; at < most; at += SLOT, s->set++) {
        int64_t mine = bytes[comm->rank] - at;
        if (mine > SLOT) mine = SLOT;
        if (mine > 0) memcpy(slot(s, comm->rank), (const char *)in + at, (size_t)mine);
        CRIA_TRY(meet(s, false, "all-gather", err));
        char *to = out;
        for (int r = 0; r < comm->size; to += bytes[r++]) {
            int64_t n = bytes[r] - at < SLOT ? bytes[r] - at : SLOT;
            if (n > 0 && !(r == comm->rank && to == in)) memcpy(to + at, slot(s, r), (size_t)n);
        }
    }
    return CRIA_OK;
}

static cria_status reduce_scatter(cria_comm *comm, const float *in, float *out, const int64_t *counts,
                                  cria_error *err) {
    shared *s = (shared *)comm;
    const int64_t most = SLOT / (int64_t)sizeof(float);
    int64_t total = 0, begin = 0;
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank) begin = total;
        total += counts[r];
    }
    int64_t end = begin + counts[comm->rank];
    for (int64_t at = 0; at < total; at += most, s->set++) {
        int64_t n = total - at < most ? total - at : most;
        memcpy(slot(s, comm->rank), in + at, (size_t)n * sizeof *in);
        CRIA_TRY(meet(s, false, "reduce-scatter", err));
        int64_t b = begin > at ? begin : at, e = end < at + n ? end : at + n;
        if (b < e) sum_slots(s, b - at, e - b, out + (b - begin));
    }
    return CRIA_OK;
}

/* In rounds: a slot holds how much is still to come, then an equal share for every receiver. */
static cria_status all_to_all(cria_comm *comm, const void *in, const int64_t *send, void *out, const int64_t *receive,
                              cria_error *err) {
    shared *s = (shared *)comm;
    int64_t share = (SLOT - LINE) / comm->size / 64 * 64, most = 0, left = 1;
    for (int r = 0; r < comm->size; r++) most = send[r] > most ? send[r] : most;
    for (int64_t at = 0; left > 0; at += share, s->set++) {
        unsigned char *mine = slot(s, comm->rank);
        left = most - at;
        memcpy(mine, &left, sizeof left);
        const char *from = in;
        for (int r = 0; r < comm->size; from += send[r++]) {
            int64_t n = send[r] - at < share ? send[r] - at : share;
            if (n > 0) memcpy(mine + LINE + r * share, from + at, (size_t)n);
        }
        CRIA_TRY(meet(s, false, "all-to-all", err));
        char *to = out;
        left = 0;
        for (int r = 0; r < comm->size; to += receive[r++]) {
            int64_t theirs, n = receive[r] - at < share ? receive[r] - at : share;
            if (n > 0) memcpy(to + at, slot(s, r) + LINE + comm->rank * share, (size_t)n);
            memcpy(&theirs, slot(s, r), sizeof theirs);
            if (theirs - share > left) left = theirs - share;
        }
    }
    return CRIA_OK;
}

static cria_status broadcast(cria_comm *comm, int root, void *data, int64_t bytes, bool idle, cria_error *err) {
    shared *s = (shared *)comm;
    for (int64_t at = 0; at < bytes; at += SLOT, s->set++) {
        size_t n = (size_t)(bytes - at < SLOT ? bytes - at : SLOT);
        if (comm->rank == root) memcpy(slot(s, root), (char *)data + at, n);
        CRIA_TRY(meet(s, idle && at == 0, "broadcast", err));
        if (comm->rank != root) memcpy((char *)data + at, slot(s, root), n);
    }
    return CRIA_OK;
}

/* Copies between a ring and a flat array, around the ring's end. */
static void ring_copy(channel *ring, uint64_t position, void *flat, size_t bytes, bool out_of_ring) {
    size_t at = (size_t)(position % CHANNEL), first = CHANNEL - at < bytes ? CHANNEL - at : bytes;
    if (out_of_ring) {
        memcpy(flat, ring->data + at, first);
        memcpy((char *)flat + first, ring->data, bytes - first);
    } else {
        memcpy(ring->data + at, flat, first);
        memcpy(ring->data, (const char *)flat + first, bytes - first);
    }
}

static cria_status send(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err) {
    shared *s = (shared *)comm;
    channel *ring = &s->channels[comm->rank * comm->size + to];
    for (int64_t at = 0; at < bytes;) {
        uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
        cria_comm_wait wait = {0};
        uint64_t room;
        while ((room = CHANNEL - (written - atomic_load_explicit(&ring->read, memory_order_acquire))) == 0)
            CRIA_TRY(cria_comm_wait_check(comm, &wait, to, false, "send", err));
        size_t n = (uint64_t)(bytes - at) < room ? (size_t)(bytes - at) : (size_t)room;
        ring_copy(ring, written, (char *)(uintptr_t)data + at, n, false);
        atomic_store_explicit(&ring->written, written + n, memory_order_release);
        at += (int64_t)n;
    }
    return CRIA_OK;
}

static cria_status recv(cria_comm *comm, int from, void *data, int64_t bytes, bool idle, cria_error *err) {
    shared *s = (shared *)comm;
    channel *ring = &s->channels[from * comm->size + comm->rank];
    for (int64_t at = 0; at < bytes;) {
        uint64_t done = atomic_load_explicit(&ring->read, memory_order_relaxed);
        cria_comm_wait wait = {0};
        uint64_t there;
        while ((there = atomic_load_explicit(&ring->written, memory_order_acquire) - done) == 0)
            CRIA_TRY(cria_comm_wait_check(comm, &wait, from, idle && at == 0, "receive", err));
        size_t n = (uint64_t)(bytes - at) < there ? (size_t)(bytes - at) : (size_t)there;
        ring_copy(ring, done, (char *)data + at, n, true);
        atomic_store_explicit(&ring->read, done + n, memory_order_release);
        at += (int64_t)n;
    }
    return CRIA_OK;
}

static cria_status arrived(cria_comm *comm, int from, bool *there, cria_error *err) {
    shared *s = (shared *)comm;
    channel *ring = &s->channels[from * comm->size + comm->rank];
    (void)err;
    *there = atomic_load_explicit(&ring->written, memory_order_acquire) !=
             atomic_load_explicit(&ring->read, memory_order_relaxed);
    return CRIA_OK;
}

static void destroy(cria_comm *comm) {
    shared *s = (shared *)comm;
    s->kind->release(s->owner);
    free(s);
}

void *cria_shared_owner(cria_comm *comm) {
    return ((shared *)comm)->owner;
}

cria_status cria_shared_create(void *segment, int rank, int size, const int *world, const cria_comm_options *options,
                               cria_health *health, const cria_shared_kind *kind, void *owner, cria_comm **out,
                               cria_error *err) {
    shared *s = calloc(1, sizeof *s);
    if (!s) {
        kind->release(owner);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a communicator of %d ranks", size);
    }
    s->ops = (cria_comm_backend_ops){.name = kind->name,
                                     .all_reduce = all_reduce,
                                     .all_gather = all_gather,
                                     .reduce_scatter = reduce_scatter,
                                     .all_to_all = all_to_all,
                                     .broadcast = broadcast,
                                     .send = send,
                                     .recv = recv,
                                     .arrived = arrived,
                                     .split = kind->split,
                                     .destroy = destroy};
    s->comm =
        (cria_comm){.ops = &s->ops, .rank = rank, .size = size, .world = world, .options = *options, .health = health};
    s->kind = kind;
    s->owner = owner;
    unsigned char *at = aligned(segment);
    s->members = (member *)(void *)at;
    s->slots = at + members_bytes(size);
    s->channels = (channel *)(void *)(s->slots + slots_bytes(size));
    *out = &s->comm;
    return CRIA_OK;
}
