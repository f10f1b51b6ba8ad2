/* Communicators of threads give the same sums, gathers and messages as one rank computes alone; a failure ends all. */
#include "base/clock.h"
#include "parallel/comm/comm.h"
#include "tests/parallel/comm_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

enum { MOST = 5, LATE_ROUNDS = 300 };

typedef struct {
    cria_comm *comm;
    int result;
    cria_error err;
} rank_thread;

/* Runs `body` on `size` ranks and waits for all of them. */
static void on_ranks(int size, const cria_comm_options *options, void *(*body)(void *), rank_thread *ranks) {
    cria_comm *comms[MOST];
    pthread_t threads[MOST];
    cria_error err = {0};
    assert_int_equal(cria_comm_create_threads(size, options, comms, &err), CRIA_OK);
    for (int r = 0; r < size; r++) {
        ranks[r] = (rank_thread){.comm = comms[r]};
        assert_int_equal(pthread_create(&threads[r], NULL, body, &ranks[r]), 0);
    }
    for (int r = 0; r < size; r++) pthread_join(threads[r], NULL);
    for (int r = 0; r < size; r++) cria_comm_destroy(comms[r]);
}

static void *check_all(void *context) {
    rank_thread *t = context;
    t->result = comm_check_all(t->comm, 300007);
    return NULL;
}

static void every_operation_gives_what_one_rank_would_compute(void **state) {
    (void)state;
    rank_thread ranks[MOST];
    for (int size = 1; size <= MOST; size++) {
        const cria_comm_options spinning = {.spin = true};
        on_ranks(size, size % 2 ? &spinning : NULL, check_all, ranks);
        for (int r = 0; r < size; r++) assert_int_equal(ranks[r].result, 0);
    }
    cria_comm *self;
    cria_error err = {0};
    assert_int_equal(cria_comm_create_self(&self, &err), CRIA_OK);
    assert_int_equal(comm_check_all(self, 10000), 0);
    cria_comm_destroy(self);
}

/* In every round another rank is late for the meeting, and then for its message. */
static void *be_late(void *context) {
    rank_thread *t = context;
    int rank = cria_comm_rank(t->comm), size = cria_comm_size(t->comm);
    for (int round = 0; round < LATE_ROUNDS && t->result == CRIA_OK; round++) {
        float data = 1;
        if (round % size == rank) nanosleep(&(struct timespec){0, 1000000}, NULL);
        t->result = (int)cria_comm_all_reduce(t->comm, &data, 1, &t->err);
        if (t->result == CRIA_OK && data != (float)size) t->result = -1;
        int next = (rank + 1) % size, before = (rank + size - 1) % size;
        if (round % size == rank) nanosleep(&(struct timespec){0, 1000000}, NULL);
        if (t->result == CRIA_OK) t->result = (int)cria_comm_send(t->comm, next, &data, sizeof data, &t->err);
        if (t->result == CRIA_OK) t->result = (int)cria_comm_recv(t->comm, before, &data, sizeof data, &t->err);
    }
    return NULL;
}

static void who_sleeps_is_woken_by_who_is_late(void **state) {
    (void)state;
    rank_thread ranks[MOST];
    uint64_t start = cria_clock_ns();
    on_ranks(3, NULL, be_late, ranks);
    for (int r = 0; r < 3; r++) assert_int_equal(ranks[r].result, CRIA_OK);
    /* Who is not woken looks by itself after 50 ms. */
    assert_true(cria_seconds_between(start, cria_clock_ns()) < LATE_ROUNDS * 0.045);
}

/* Rank 2 gives up; the others wait for each other in every kind of operation. */
static void *give_up(void *context) {
    rank_thread *t = context;
    float data[10] = {0};
    int rank = cria_comm_rank(t->comm);
    cria_comm *pair = NULL;
    if (cria_comm_split(t->comm, rank % 2, &pair, &t->err) != CRIA_OK) return NULL;
    cria_status status = CRIA_OK;
    if (rank == 2)
        cria_comm_abort(t->comm, "it lost its mind");
    else if (rank == 0)
        status = cria_comm_all_reduce(pair, data, 10, &t->err);
    else if (rank == 1)
        status = cria_comm_recv(t->comm, 2, data, sizeof data, &t->err);
    else
        status = cria_comm_await_broadcast(t->comm, 2, data, sizeof data, &t->err);
    t->result = (int)status;
    cria_comm_destroy(pair);
    return NULL;
}

static void an_abort_ends_every_wait_and_names_the_rank(void **state) {
    (void)state;
    rank_thread ranks[MOST];
    on_ranks(4, NULL, give_up, ranks);
    for (int r = 0; r < 4; r++) {
        if (r == 2) continue;
        assert_int_equal(ranks[r].result, CRIA_ERR_CLOSED);
        assert_string_equal(ranks[r].err.message, "rank 2: it lost its mind");
    }
}

static void *never_come(void *context) {
    rank_thread *t = context;
    float data = 0;
    if (cria_comm_rank(t->comm) == 1) return NULL;
    t->result = (int)cria_comm_all_reduce(t->comm, &data, 1, &t->err);
    return NULL;
}

static void a_rank_that_does_not_come_is_named_after_the_deadline(void **state) {
    (void)state;
    rank_thread ranks[MOST];
    cria_comm_options options = {.deadline_seconds = 0.2};
    uint64_t start = cria_clock_ns();
    on_ranks(3, &options, never_come, ranks);
    assert_true(cria_seconds_between(start, cria_clock_ns()) < 10);
    for (int r = 0; r < 3; r += 2) {
        assert_int_equal(ranks[r].result, CRIA_ERR_CLOSED);
        assert_non_null(strstr(ranks[r].err.message, "rank 1: all-reduce"));
    }
}

static void impossible_sizes_and_peers_are_errors(void **state) {
    (void)state;
    cria_comm *comms[1];
    cria_error err = {0};
    char byte = 0;
    assert_int_equal(cria_comm_create_threads(0, NULL, comms, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "0 ranks"));
    assert_int_equal(cria_comm_create_threads(1, NULL, comms, &err), CRIA_OK);
    assert_int_equal(cria_comm_send(comms[0], 0, &byte, 1, &err), CRIA_ERR_INTERNAL);
    assert_int_equal(cria_comm_recv(comms[0], 1, &byte, 1, &err), CRIA_ERR_INTERNAL);
    assert_int_equal(cria_comm_broadcast(comms[0], -1, &byte, 1, &err), CRIA_ERR_INTERNAL);
    cria_comm_destroy(comms[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_gives_what_one_rank_would_compute),
        cmocka_unit_test(who_sleeps_is_woken_by_who_is_late),
        cmocka_unit_test(an_abort_ends_every_wait_and_names_the_rank),
        cmocka_unit_test(a_rank_that_does_not_come_is_named_after_the_deadline),
        cmocka_unit_test(impossible_sizes_and_peers_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
