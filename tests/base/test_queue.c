/* The queue: order, bounds, waiting, closing, many threads. */
#include "base/clock.h"
#include "base/queue.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static void messages_leave_in_the_order_they_came(void **state) {
    (void)state;
    cria_queue *queue = cria_queue_create(sizeof(int), 3);
    int in = 0, out = 0, message;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 1 + round % 3; i++, in++) assert_true(cria_queue_try_push(queue, &in));
        assert_int_equal(cria_queue_length(queue), in - out);
        while (cria_queue_try_pop(queue, &message)) assert_int_equal(message, out++);
        assert_int_equal(in, out);
    }
    cria_queue_destroy(queue);
}

static void a_full_queue_takes_no_more(void **state) {
    (void)state;
    cria_queue *queue = cria_queue_create(sizeof(int), 2);
    int message = 1;
    assert_true(cria_queue_try_push(queue, &message));
    assert_true(cria_queue_try_push(queue, &message));
    assert_false(cria_queue_try_push(queue, &message));
    assert_true(cria_queue_try_pop(queue, &message));
    assert_true(cria_queue_try_push(queue, &message));
    assert_int_equal(cria_queue_length(queue), 2);
    cria_queue_destroy(queue);
}

static void waiting_for_a_message_ends_in_time(void **state) {
    (void)state;
    cria_queue *queue = cria_queue_create(sizeof(int), 2);
    int message;
    uint64_t start = cria_clock_ns();
    assert_false(cria_queue_try_pop(queue, &message));
    assert_false(cria_queue_pop(queue, &message, 0));
    assert_false(cria_queue_pop(queue, &message, 30));
    double seconds = cria_seconds_between(start, cria_clock_ns());
    assert_true(seconds >= 0.03 && seconds < 3);
    cria_queue_destroy(queue);
}

static void a_closed_queue_gives_out_what_it_holds(void **state) {
    (void)state;
    cria_queue *queue = cria_queue_create(sizeof(int), 2);
    int message = 7;
    cria_queue_push(queue, &message);
    cria_queue_close(queue);
    assert_false(cria_queue_push(queue, &message));
    assert_false(cria_queue_try_push(queue, &message));
    message = 0;
    assert_true(cria_queue_pop(queue, &message, -1));
    assert_int_equal(message, 7);
    assert_false(cria_queue_pop(queue, &message, -1));
    cria_queue_destroy(queue);
}

static void sizes_that_make_no_sense_are_refused(void **state) {
    (void)state;
    assert_null(cria_queue_create(8, 0));
    assert_null(cria_queue_create(0, 8));
    assert_null(cria_queue_create(SIZE_MAX / 2, 3));
    cria_queue_destroy(NULL);
}

static void *pop_for_ever(void *argument) {
    int message;
    return cria_queue_pop(argument, &message, -1) ? argument : NULL;
}

static void *push_one(void *argument) {
    int message = 1;
    return cria_queue_push(argument, &message) ? argument : NULL;
}

static void closing_wakes_every_waiter(void **state) {
    (void)state;
    cria_queue *empty = cria_queue_create(sizeof(int), 1), *full = cria_queue_create(sizeof(int), 1);
    int message = 1;
    cria_queue_push(full, &message);
    pthread_t threads[4];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pop_for_ever, empty), 0);
        assert_int_equal(pthread_create(&threads[2 + i], NULL, push_one, full), 0);
    }
    usleep(20000);
    cria_queue_close(empty);
    cria_queue_close(full);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    cria_queue_destroy(empty);
    cria_queue_destroy(full);
}

enum { SENDERS = 4, RECEIVERS = 3, EACH = 3000 };

typedef struct {
    int sender, number;
} note;

typedef struct {
    cria_queue *queue;
    int sender;
    int last[SENDERS]; /* per sender: numbers must come in order at every receiver */
    int count[SENDERS];
    bool disordered;
} station;

static void *send_all(void *argument) {
    station *s = argument;
    for (int i = 1; i <= EACH; i++) {
        note message = {s->sender, i};
        if (!cria_queue_push(s->queue, &message)) break;
    }
    return NULL;
}

static void *receive_all(void *argument) {
    station *s = argument;
    note message;
    while (cria_queue_pop(s->queue, &message, -1)) {
        if (message.number <= s->last[message.sender]) s->disordered = true;
        s->last[message.sender] = message.number;
        s->count[message.sender]++;
    }
    return NULL;
}

static void many_threads_lose_and_repeat_nothing(void **state) {
    (void)state;
    cria_queue *queue = cria_queue_create(sizeof(note), 5);
    station senders[SENDERS] = {0}, receivers[RECEIVERS] = {0};
    pthread_t threads[SENDERS + RECEIVERS];
    for (int i = 0; i < RECEIVERS; i++) {
        receivers[i].queue = queue;
        pthread_create(&threads[SENDERS + i], NULL, receive_all, &receivers[i]);
    }
    for (int i = 0; i < SENDERS; i++) {
        senders[i].queue = queue;
        senders[i].sender = i;
        pthread_create(&threads[i], NULL, send_all, &senders[i]);
    }
    for (int i = 0; i < SENDERS; i++) pthread_join(threads[i], NULL);
    cria_queue_close(queue);
    for (int i = 0; i < RECEIVERS; i++) pthread_join(threads[SENDERS + i], NULL);
    for (int s = 0; s < SENDERS; s++) {
        int count = 0;
        for (int i = 0; i < RECEIVERS; i++) count += receivers[i].count[s];
        assert_int_equal(count, EACH);
    }
    for (int i = 0; i < RECEIVERS; i++) assert_false(receivers[i].disordered);
    cria_queue_destroy(queue);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_leave_in_the_order_they_came),
        cmocka_unit_test(a_full_queue_takes_no_more),
        cmocka_unit_test(waiting_for_a_message_ends_in_time),
        cmocka_unit_test(a_closed_queue_gives_out_what_it_holds),
        cmocka_unit_test(sizes_that_make_no_sense_are_refused),
        cmocka_unit_test(closing_wakes_every_waiter),
        cmocka_unit_test(many_threads_lose_and_repeat_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
