/* Run by mpirun: every operation over processes. Arguments: "shared" or "messages"; "lose R": rank R dies instead, and
 * the others must be told within four seconds. */
#include "base/clock.h"
#include "parallel/comm/comm.h"
#include "tests/parallel/comm_case.h"

#include <signal.h>
#include <unistd.h>

/* Rank `victim` dies by `signal`; the others wait for it. */
static int lose(cria_comm *comm, int victim, int signal) {
    int rank = cria_comm_rank(comm), size = cria_comm_size(comm);
    cria_error err = {0};
    float data[100] = {0};
    if (rank == victim) {
        usleep(200000);
        raise(signal);
    }
    uint64_t start = cria_clock_ns();
    cria_status status = CRIA_OK;
    while (status == CRIA_OK) status = cria_comm_all_reduce(comm, data, 100, &err);
    double waited = cria_seconds_between(start, cria_clock_ns());
    char name[20];
    snprintf(name, sizeof name, "rank %d: ", victim);
    COMM_CHECK(status == CRIA_ERR_CLOSED && strncmp(err.message, name, strlen(name)) == 0, "%s", err.message);
    COMM_CHECK(waited < 4.5, "told after %.1f s", waited);
    fprintf(stderr, "rank %d was told after %.1f s: %s\n", rank, waited, err.message);
    /* The first rank is the last to go, so that the launcher ends nobody who still has something to say. */
    sleep(rank == 0 ? 1 : 0);
    _exit(rank == 0 ? 7 : 0);
}

int main(int argc, char **argv) {
    cria_comm_options options = {.spin = true, .messages = argc > 1 && strcmp(argv[1], "messages") == 0};
    cria_comm *comm;
    cria_error err = {0};
    if (cria_comm_create_mpi(&options, &comm, &err) != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (strcmp(cria_comm_backend(comm), options.messages ? "messages" : "shared memory") != 0) {
        fprintf(stderr, "the backend is %s\n", cria_comm_backend(comm));
        return 1;
    }
    if (argc > 3) return lose(comm, atoi(argv[3]), strcmp(argv[2], "stop") == 0 ? SIGSTOP : SIGKILL);
    int result = comm_check_all(comm, 2000003);
    cria_comm_destroy(comm);
    return result;
}
