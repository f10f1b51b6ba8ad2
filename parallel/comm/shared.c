/* Collectives over shared memory: every rank writes into its own slot, all meet, everyone reads what it needs.
 *
 * Two sets of slots take turns. An operation may overwrite a set because every operation ends with a meeting at least
 * once: whoever has passed the meeting of one operation knows that all have finished reading the one before it. */
#include "parallel/comm/shared.h"

#include "base/clock.h"
#include "parallel/comm/bell.h"
#include "parallel/comm/post.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum {
    LINE = 128,
    SLOT = 512 << 10,    /* bytes of one rank's slot */
    CHANNEL = 128 << 10, /* bytes of a channel's ring between two ranks */
    SMALL_FLOATS = 4096, /* a sum of so few is computed by everyone, which saves a meeting */
    FEWEST_SPINS = 16,   /* looks at what is waited for before sleep: about a microsecond */
    MOST_SPINS = 2048,   /* and somewhat longer than it takes to be woken */
    PROBE_EVERY = 32,    /* sleeps between two long spins that may show that times have changed */
    LOOK_NS = 50000000   /* how often a sleeper looks after the world's health */
};

/* Where those sleep who were early for a meeting. */
typedef struct {
    _Alignas(LINE) cria_bell bell;
} door;

typedef struct {
    _Alignas(LINE) atomic_uint meetings; /* how many meetings the rank has come to */
} member;

/* A ring of bytes from one rank to another. */
typedef struct {
    _Alignas(LINE) atomic_uint_fast64_t written;
    _Alignas(LINE) atomic_uint_fast64_t read;
    _Alignas(LINE) cria_bell bell; /* for both sides: only one of them can be waiting */
    _Alignas(LINE) unsigned char data[CHANNEL];
} channel;

typedef struct {
    cria_comm comm;
    cria_comm_backend_ops ops;
    const cria_shared_kind *kind;
    void *owner;
    door *door;
    member *members;
    unsigned char *slots; /* [2][size][SLOT] */
    channel *channels;    /* [from][to] */
    unsigned meetings;
    unsigned set;    /* which set of slots the next operation uses */
    unsigned spins;  /* how often the next wait looks before it sleeps */
    unsigned sleeps; /* waits that ended in sleep since the last one that did not */
} shared;

static size_t members_bytes(int size) {
    return sizeof(door) + (size_t)size * sizeof(member);
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
        memset(&channels[i].bell, 0, sizeof channels[i].bell);
    }
}

static unsigned char *slot(const shared *s, int rank) {
    return s->slots + ((size_t)(s->set & 1) * (size_t)s->comm.size + (size_t)rank) * SLOT;
}

/* ---- waiting ---- */

static bool is_here(const shared *s, const void *rank) {
    const member *m = rank;
    return (int)(atomic_load(&m->meetings) - s->meetings) >= 0;
}

/* The first rank that has not come to the present meeting, or -1. */
static int first_missing(const shared *s) {
    for (int r = 0; r < s->comm.size; r++)
        if (!is_here(s, &s->members[r])) return r;
    return -1;
}

static bool all_are_here(const shared *s, const void *none) {
    (void)none;
    return first_missing(s) < 0;
}

static bool has_room(const shared *s, const void *ring) {
    const channel *c = ring;
    (void)s;
    return atomic_load(&c->written) - atomic_load(&c->read) < CHANNEL;
}

static bool has_bytes(const shared *s, const void *ring) {
    const channel *c = ring;
    (void)s;
    return atomic_load(&c->written) != atomic_load(&c->read);
}

/* What is waited for, and by whom it will be brought about; peer -1: the first rank that is missing. */
typedef struct {
    bool (*is_there)(const shared *s, const void *where);
    const void *where;
    cria_bell *bell;
    int peer;
    bool idle;
    const char *what;
} awaited;

/* Burns a processor for as long as that has paid lately. A wait that was over while spinning shows that whoever was
 * waited for has a processor of its own: then the longest spin costs less than sleeping. One that ends in sleep makes
 * the next one give up sooner: on a processor that two ranks share, spinning only keeps the other one from coming. Now
 * and then one spins for long all the same, as two ranks that sleep for each other would never find out. */
static bool spin_for(shared *s, const awaited *a) {
    unsigned most = s->sleeps % PROBE_EVERY == 0 ? MOST_SPINS : s->spins;
    for (unsigned i = 0; i < most; i++) {
        if (a->is_there(s, a->where)) {
            s->spins = MOST_SPINS;
            s->sleeps = 0;
            return true;
        }
#if defined(__x86_64__)
        _mm_pause();
#endif
    }
    if (a->idle) return false; /* says nothing of how ranks run */
    s->sleeps++;
    s->spins = s->spins > 2 * FEWEST_SPINS ? s->spins / 2 : FEWEST_SPINS;
    return false;
}

/* Sleeps until the bell rings; looks after the world's health, which has no bell, a few times a second. */
static cria_status sleep_for(shared *s, const awaited *a, cria_error *err) {
    cria_status status = CRIA_OK;
    uint64_t start = cria_clock_ns();
    cria_bell_listen(a->bell);
    for (;;) {
        unsigned heard = cria_bell_heard(a->bell);
        if (a->is_there(s, a->where)) break;
        int peer = a->peer < 0 ? first_missing(s) : a->peer;
        status = cria_comm_wait_may_go_on(&s->comm, start, peer, a->idle, a->what, err);
        if (status != CRIA_OK) break;
        cria_bell_sleep(a->bell, heard, LOOK_NS);
    }
    cria_bell_leave(a->bell);
    return status;
}

static cria_status wait_for(shared *s, const awaited *a, cria_error *err) {
    if (a->is_there(s, a->where) || (s->comm.options.spin && spin_for(s, a))) return CRIA_OK;
    return sleep_for(s, a, err);
}

/* Returns once every rank has come to this meeting; what they wrote before is then visible. Only the last one to come
 * rings: the others would wake sleepers for nothing. */
static cria_status meet(shared *s, bool idle, const char *what, cria_error *err) {
    atomic_store(&s->members[s->comm.rank].meetings, ++s->meetings);
    if (cria_bell_has_listeners(&s->door->bell) && first_missing(s) < 0) cria_bell_ring(&s->door->bell);
    return wait_for(s, &(awaited){all_are_here, NULL, &s->door->bell, -1, idle, what}, err);
}

/* ---- collectives ---- */

/* out = the sum over all ranks of `count` floats in rank order: this rank's `own`, those of the others at `at` of their
 * slots. `out` may be `own`; `posted`, if any, gets the same for others to read. */
static void sum_slots(const shared *s, const float *own, int64_t at, int64_t count, float *out, float *posted) {
    enum { BLOCK = 2048 }; /* the sum stays in the first-level cache */
    for (int64_t b = 0; b < count; b += BLOCK) {
        int64_t n = count - b < BLOCK ? count - b : BLOCK;
        float sum[BLOCK];
        for (int r = 0; r < s->comm.size; r++) {
            const float *more = r == s->comm.rank ? own + b : (const float *)(const void *)slot(s, r) + at + b;
            if (r == 0)
                memcpy(sum, more, (size_t)n * sizeof *sum);
            else
                for (int64_t i = 0; i < n; i++) sum[i] += more[i];
        }
        memcpy(out + b, sum, (size_t)n * sizeof *sum);
        if (posted) cria_post(posted + b, sum, (size_t)n * sizeof *sum);
    }
}

/* Every rank sums one part: it gives the others theirs, and takes back what they made of them. */
static cria_status reduce_large(shared *s, float *data, int64_t n, cria_error *err) {
    int rank = s->comm.rank, size = s->comm.size;
    float *mine = (float *)(void *)slot(s, rank);
    int64_t first = cria_comm_part(n, size, rank), end = cria_comm_part(n, size, rank + 1);
    cria_post(mine, data, (size_t)first * sizeof *data);
    cria_post(mine + end, data + end, (size_t)(n - end) * sizeof *data);
    CRIA_TRY(meet(s, false, "all-reduce", err));
    sum_slots(s, data + first, first, end - first, data + first, mine + first);
    CRIA_TRY(meet(s, false, "all-reduce", err));
    for (int r = 0; r < size; r++) {
        int64_t b = cria_comm_part(n, size, r), e = cria_comm_part(n, size, r + 1);
        if (r != rank) memcpy(data + b, (const float *)(const void *)slot(s, r) + b, (size_t)(e - b) * sizeof *data);
    }
    return CRIA_OK;
}

static cria_status all_reduce(cria_comm *comm, float *data, int64_t count, cria_error *err) {
    shared *s = (shared *)comm;
    const int64_t most = SLOT / (int64_t)sizeof(float);
    for (int64_t at = 0; at < count; at += most, s->set++) {
        int64_t n = count - at < most ? count - at : most;
        if (n > SMALL_FLOATS) {
            CRIA_TRY(reduce_large(s, data + at, n, err));
            continue;
        }
        cria_post(slot(s, comm->rank), data + at, (size_t)n * sizeof *data);
        CRIA_TRY(meet(s, false, "all-reduce", err));
        sum_slots(s, data + at, 0, n, data + at, NULL);
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
        if (mine > 0) cria_post(slot(s, comm->rank), (const char *)in + at, (size_t)mine);
        CRIA_TRY(meet(s, false, "all-gather", err));
        char *to = out;
        for (int r = 0; r < comm->size; to += bytes[r++]) {
            int64_t n = bytes[r] - at < SLOT ? bytes[r] - at : SLOT;
            if (n > 0 && !(r == comm->rank && to == in)) memcpy(to + at, slot(s, r), (size_t)n);
        }
    }
    return CRIA_OK;
}

/* In rounds: a slot holds an equal share for every rank. */
static cria_status reduce_scatter(cria_comm *comm, const float *in, float *out, const int64_t *counts,
                                  cria_error *err) {
    shared *s = (shared *)comm;
    int64_t share = SLOT / (int64_t)sizeof(float) / comm->size, most = 0;
    for (int r = 0; r < comm->size; r++) most = counts[r] > most ? counts[r] : most;
    for (int64_t at = 0; at < most; at += share, s->set++) {
        float *mine = (float *)(void *)slot(s, comm->rank);
        const float *part = in + at, *own = NULL;
        for (int r = 0; r < comm->size; part += counts[r++]) {
            int64_t n = counts[r] - at < share ? counts[r] - at : share;
            if (r == comm->rank)
                own = part;
            else if (n > 0)
                cria_post(mine + r * share, part, (size_t)n * sizeof *in);
        }
        CRIA_TRY(meet(s, false, "reduce-scatter", err));
        int64_t n = counts[comm->rank] - at < share ? counts[comm->rank] - at : share;
        if (n > 0) sum_slots(s, own, comm->rank * share, n, out + at, NULL);
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
            if (n > 0) cria_post(mine + LINE + r * share, from + at, (size_t)n);
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
        if (comm->rank == root) cria_post(slot(s, root), (char *)data + at, n);
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
        cria_post(ring->data + at, flat, first);
        cria_post(ring->data, (const char *)flat + first, bytes - first);
    }
}

static cria_status send(cria_comm *comm, int to, const void *data, int64_t bytes, cria_error *err) {
    shared *s = (shared *)comm;
    channel *ring = &s->channels[comm->rank * comm->size + to];
    for (int64_t at = 0; at < bytes;) {
        uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
        CRIA_TRY(wait_for(s, &(awaited){has_room, ring, &ring->bell, to, false, "send"}, err));
        uint64_t room = CHANNEL - (written - atomic_load_explicit(&ring->read, memory_order_acquire));
        size_t n = (uint64_t)(bytes - at) < room ? (size_t)(bytes - at) : (size_t)room;
        ring_copy(ring, written, (char *)(uintptr_t)data + at, n, false);
        atomic_store(&ring->written, written + n);
        cria_bell_ring(&ring->bell);
        at += (int64_t)n;
    }
    return CRIA_OK;
}

static cria_status recv(cria_comm *comm, int from, void *data, int64_t bytes, bool idle, cria_error *err) {
    shared *s = (shared *)comm;
    channel *ring = &s->channels[from * comm->size + comm->rank];
    for (int64_t at = 0; at < bytes;) {
        uint64_t done = atomic_load_explicit(&ring->read, memory_order_relaxed);
        CRIA_TRY(wait_for(s, &(awaited){has_bytes, ring, &ring->bell, from, idle && at == 0, "receive"}, err));
        uint64_t there = atomic_load_explicit(&ring->written, memory_order_acquire) - done;
        size_t n = (uint64_t)(bytes - at) < there ? (size_t)(bytes - at) : (size_t)there;
        ring_copy(ring, done, (char *)data + at, n, true);
        atomic_store(&ring->read, done + n);
        cria_bell_ring(&ring->bell);
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
    s->door = (door *)(void *)at;
    s->members = (member *)(void *)(at + sizeof(door));
    s->spins = MOST_SPINS;
    s->slots = at + members_bytes(size);
    s->channels = (channel *)(void *)(s->slots + slots_bytes(size));
    *out = &s->comm;
    return CRIA_OK;
}
