/* A bell wakes whoever sleeps on it, in another process too, and no ring is missed. */
#include "base/clock.h"
#include "parallel/comm/bell.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const int64_t LONG_NS = 20000000000; /* only who misses a ring sleeps for so long */

/* Two sides that wait for each other in turn; `turn` counts them. */
typedef struct {
    cria_bell bell;
    atomic_uint turn;
    atomic_bool missed;
} table;

enum { TURNS = 20000 };

/* Takes every second turn, from `first` on; sleeps without looking twice, so that every wait depends on the bell. */
static void play(table *t, unsigned first) {
    for (unsigned mine = first; mine < TURNS; mine += 2) {
        cria_bell_listen(&t->bell);
        for (;;) {
            unsigned heard = cria_bell_heard(&t->bell);
            if (atomic_load(&t->turn) == mine) break;
            uint64_t start = cria_clock_ns();
            cria_bell_sleep(&t->bell, heard, LONG_NS);
            if ((int64_t)(cria_clock_ns() - start) >= LONG_NS) atomic_store(&t->missed, true);
            if (atomic_load(&t->missed)) return;
        }
        cria_bell_leave(&t->bell);
        atomic_store(&t->turn, mine + 1);
        cria_bell_ring(&t->bell);
    }
}

static void *play_second(void *t) {
    play(t, 1);
    return NULL;
}

static void threads_in_turn_miss_no_ring(void **state) {
    (void)state;
    table t = {0};
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, play_second, &t), 0);
    play(&t, 0);
    pthread_join(other, NULL);
    assert_int_equal(atomic_load(&t.turn), TURNS);
    assert_int_equal(atomic_load(&t.bell.listeners), 0);
}

static void processes_in_turn_miss_no_ring(void **state) {
    (void)state;
    table *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(t != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        play(t, 1);
        _exit(0);
    }
    play(t, 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(atomic_load(&t->turn), TURNS);
    munmap(t, sizeof *t);
}

static void who_has_missed_a_ring_does_not_sleep(void **state) {
    (void)state;
    cria_bell bell = {0};
    unsigned heard = cria_bell_heard(&bell);
    cria_bell_ring(&bell);
    assert_int_equal(cria_bell_heard(&bell), heard); /* nobody listens: nothing to do */
    cria_bell_listen(&bell);
    assert_true(cria_bell_has_listeners(&bell));
    cria_bell_ring(&bell);
    uint64_t start = cria_clock_ns();
    cria_bell_sleep(&bell, heard, LONG_NS);
    assert_true(cria_seconds_between(start, cria_clock_ns()) < 15);
    cria_bell_leave(&bell);
    assert_false(cria_bell_has_listeners(&bell));
}

static void sleep_ends_without_a_ring(void **state) {
    (void)state;
    cria_bell bell = {0};
    cria_bell_listen(&bell);
    uint64_t start = cria_clock_ns();
    while (cria_seconds_between(start, cria_clock_ns()) < 0.02)
        cria_bell_sleep(&bell, cria_bell_heard(&bell), 10000000);
    cria_bell_leave(&bell);
    assert_true(cria_seconds_between(start, cria_clock_ns()) < 15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_in_turn_miss_no_ring),
        cmocka_unit_test(processes_in_turn_miss_no_ring),
        cmocka_unit_test(who_has_missed_a_ring_does_not_sleep),
        cmocka_unit_test(sleep_ends_without_a_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
