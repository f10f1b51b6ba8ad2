/* Beats across hosts: small messages between the first ranks of the hosts. */
#include "parallel/comm/health.h"

#if defined(CRIA_MPI)

#include "parallel/comm/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one host tells another. */
typedef struct {
    int failed, rank; /* 1: given up because of `rank` */
    char reason[200];
    struct {
        unsigned beat;
        int here, left;
    } member[];
} news;

struct cria_message_beats {
    MPI_Comm comm; /* of its own, so that nothing else can match */
    cria_health *health;
    int size, rank, hosts;
    int *first;     /* [hosts] the first rank of every other host */
    char *is_here;  /* [size] */
    size_t bytes;   /* of one news */
    char *in, *out; /* [hosts] news each */
    MPI_Request *receiving, *sending;
};

static void write_news(const cria_message_beats *b, news *out) {
    cria_error err = {0};
    memset(out, 0, b->bytes);
    if (cria_health_check(b->health, &err) != CRIA_OK) {
        out->failed = 1;
        if (sscanf(err.message, "rank %d", &out->rank) != 1) out->rank = b->rank;
        const char *reason = strchr(err.message, ':');
        snprintf(out->reason, sizeof out->reason, "%s", reason ? reason + 2 : err.message);
    }
    for (int r = 0; r < b->size; r++) {
        out->member[r].here = b->is_here[r];
        out->member[r].beat = cria_health_beat(b->health, r);
        out->member[r].left = cria_health_has_left(b->health, r);
    }
}

static void read_news(const cria_message_beats *b, const news *in) {
    for (int r = 0; r < b->size; r++) {
        if (!in->member[r].here || b->is_here[r]) continue;
        cria_health_heard(b->health, r, in->member[r].beat);
        if (in->member[r].left) cria_health_set_left(b->health, r);
    }
    if (in->failed) cria_health_fail(b->health, in->rank, in->reason);
}

static void tick(void *context) {
    cria_message_beats *b = context;
    for (int h = 0; h < b->hosts; h++) {
        int done = 0;
        char *in = b->in + (size_t)h * b->bytes, *out = b->out + (size_t)h * b->bytes;
        while (MPI_Test(&b->receiving[h], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done) {
            read_news(b, (const news *)(const void *)in);
            MPI_Irecv(in, (int)b->bytes, MPI_BYTE, b->first[h], 1, b->comm, &b->receiving[h]);
            done = 0;
        }
        /* What has not gone out yet would only be older than what could be said now. */
        if (MPI_Test(&b->sending[h], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || !done) continue;
        write_news(b, (news *)(void *)out);
        MPI_Isend(out, (int)b->bytes, MPI_BYTE, b->first[h], 1, b->comm, &b->sending[h]);
    }
}

static cria_status allocate(cria_message_beats *b, int hosts, cria_error *err) {
    b->bytes = (sizeof(news) + (size_t)b->size * sizeof((news *)0)->member[0] + 63) / 64 * 64;
    b->first = calloc((size_t)hosts + 1, sizeof *b->first);
    b->is_here = calloc((size_t)b->size, 1);
    b->in = calloc((size_t)hosts + 1, b->bytes);
    b->out = calloc((size_t)hosts + 1, b->bytes);
    b->receiving = calloc((size_t)hosts + 1, sizeof *b->receiving);
    b->sending = calloc((size_t)hosts + 1, sizeof *b->sending);
    if (b->first && b->is_here && b->in && b->out && b->receiving && b->sending) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_MEMORY, "no memory to watch %d hosts", hosts);
}

cria_status cria_message_beats_create(MPI_Comm all, MPI_Comm host, cria_health *health, cria_message_beats **out,
                                      cria_error *err) {
    cria_message_beats *b = calloc(1, sizeof *b);
    int *leader = calloc(CRIA_COMM_MAX_RANKS, sizeof *leader);
    if (!b || !leader) {
        free(b);
        free(leader);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory to watch the other hosts");
    }
    b->health = health;
    MPI_Comm_dup(all, &b->comm);
    MPI_Comm_set_errhandler(b->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(all, &b->rank);
    MPI_Comm_size(all, &b->size);
    int mine = b->rank; /* the first rank of this host */
    MPI_Bcast(&mine, 1, MPI_INT, 0, host);
    MPI_Allgather(&mine, 1, MPI_INT, leader, 1, MPI_INT, all);
    int hosts = 0;
    for (int r = 0; r < b->size; r++) hosts += leader[r] == r;
    cria_status status = allocate(b, hosts, err);
    for (int r = 0; r < b->size && status == CRIA_OK; r++) {
        b->is_here[r] = leader[r] == mine;
        if (leader[r] == r && r != mine && b->rank == mine) b->first[b->hosts++] = r;
    }
    free(leader);
    for (int h = 0; h < b->hosts; h++) {
        b->sending[h] = MPI_REQUEST_NULL;
        MPI_Irecv(b->in + (size_t)h * b->bytes, (int)b->bytes, MPI_BYTE, b->first[h], 1, b->comm, &b->receiving[h]);
    }
    if (status == CRIA_OK) cria_health_on_tick(health, tick, b);
    *out = b;
    return status;
}

void cria_message_beats_destroy(cria_message_beats *b) {
    if (!b) return;
    for (int h = 0; h < b->hosts; h++) {
        if (b->receiving[h] == MPI_REQUEST_NULL) continue;
        MPI_Cancel(&b->receiving[h]);
        MPI_Request_free(&b->receiving[h]);
    }
    /* The communicator goes with MPI: messages may still be on their way in it. */
    free(b->first);
    free(b->is_here);
    free(b->in);
    free(b->receiving);
    free(b->sending);
    free(b->out);
    free(b);
}

#endif
