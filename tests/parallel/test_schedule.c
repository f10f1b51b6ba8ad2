/* Schedules played through: how long they take, in which order, and how much is in flight. */
#include "parallel/plan/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MOST = 8 };

static double length(const cria_schedule_slot *slot, int count) {
    double end = 0;
    for (int i = 0; i < count; i++) end = fmax(end, slot[i].end);
    return end;
}

/* Most micro-batches that a stage has run forward but not yet backward. */
static int in_flight(const cria_schedule_slot *slot, int count, int stage) {
    int most = 0;
    for (int i = 0; i < count; i++) {
        if (slot[i].stage != stage || slot[i].backward) continue;
        int now = 0;
        for (int k = 0; k < count; k++) {
            if (slot[k].stage != stage) continue;
            now += !slot[k].backward && slot[k].start <= slot[i].start;
            now -= slot[k].backward && slot[k].end <= slot[i].start;
        }
        most = now > most ? now : most;
    }
    return most;
}

static cria_schedule_slot *run(cria_schedule schedule, int stages, int batches, int *count) {
    const double forward[MOST] = {1, 1, 1, 1, 1, 1, 1, 1}, backward[MOST] = {2, 2, 2, 2, 2, 2, 2, 2};
    cria_schedule_slot *slot = cria_schedule_run(schedule, stages, batches, 1, forward, backward, count);
    assert_non_null(slot);
    assert_int_equal(*count, 2 * stages * batches);
    return slot;
}

static void both_schedules_take_the_same_time_but_one_holds_all_micro_batches(void **state) {
    (void)state;
    for (int stages = 1; stages <= MOST; stages++)
        for (int batches = 1; batches <= 12; batches++) {
            for (int which = 0; which < 2; which++) {
                int count;
                cria_schedule_slot *slot =
                    run(which ? CRIA_SCHEDULE_1F1B : CRIA_SCHEDULE_GPIPE, stages, batches, &count);
                assert_true(fabs(length(slot, count) - 3 * (stages + batches - 1)) < 1e-9);
                for (int s = 0; s < stages; s++) {
                    int held = which ? (stages - s < batches ? stages - s : batches) : batches;
                    assert_int_equal(in_flight(slot, count, s), held);
                }
                free(slot);
            }
        }
}

static void no_pass_begins_before_what_it_needs_and_no_stage_does_two_things_at_once(void **state) {
    (void)state;
    const double forward[4] = {1, 3, 0.5, 2}, backward[4] = {2, 5, 1.5, 2};
    for (int which = 0; which < 2; which++) {
        int count;
        cria_schedule_slot *slot =
            cria_schedule_run(which ? CRIA_SCHEDULE_1F1B : CRIA_SCHEDULE_GPIPE, 4, 7, 1, forward, backward, &count);
        for (int i = 0; i < count; i++)
            for (int k = 0; k < count; k++) {
                const cria_schedule_slot *a = &slot[i], *b = &slot[k];
                if (i != k && a->stage == b->stage) assert_true(a->end <= b->start || b->end <= a->start);
                if (a->micro_batch != b->micro_batch) continue;
                bool next = a->backward == b->backward && b->stage == a->stage + (a->backward ? -1 : 1);
                bool turns = !a->backward && b->backward && a->stage == b->stage;
                if (next || turns) assert_true(b->start >= a->end - 1e-12);
            }
        /* The slowest stage works without a break once it has begun: 7 times 8, and what comes before and after. */
        assert_true(length(slot, count) >= 7 * 8 + 1 + 2);
        free(slot);
    }
}

static void rounds_of_inference_wait_for_the_round_before(void **state) {
    (void)state;
    const double forward[3] = {1, 1, 1};
    int count;
    /* Three micro-batches keep three stages busy; one leaves two of three waiting. */
    cria_schedule_slot *slot = cria_schedule_run(CRIA_SCHEDULE_INFERENCE, 3, 3, 5, forward, forward, &count);
    assert_int_equal(count, 3 * 3 * 5);
    assert_true(fabs(length(slot, count) - (5 * 3 + 2)) < 1e-9);
    free(slot);
    slot = cria_schedule_run(CRIA_SCHEDULE_INFERENCE, 3, 1, 5, forward, forward, &count);
    assert_true(fabs(length(slot, count) - 5 * 3) < 1e-9);
    free(slot);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_schedules_take_the_same_time_but_one_holds_all_micro_batches),
        cmocka_unit_test(no_pass_begins_before_what_it_needs_and_no_stage_does_two_things_at_once),
        cmocka_unit_test(rounds_of_inference_wait_for_the_round_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
