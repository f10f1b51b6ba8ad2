/* Log lines: levels, one line for each message, whatever is in it. */
#include "base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    FILE *stream;
    char *text;
    size_t length;
    cria_log *log;
} capture;

static void capture_open(capture *c, cria_log_level level) {
    c->stream = open_memstream(&c->text, &c->length);
    assert_non_null(c->stream);
    c->log = cria_log_create(c->stream, level);
    assert_non_null(c->log);
}

static void capture_close(capture *c) {
    cria_log_destroy(c->log);
    fclose(c->stream);
    free(c->text);
}

/* What follows the time stamp of the line, which is checked. */
static const char *behind_time(const char *line) {
    int used = 0, numbers[7];
    int fields = sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ %n", &numbers[0], &numbers[1], &numbers[2], &numbers[3],
                        &numbers[4], &numbers[5], &numbers[6], &used);
    assert_int_equal(fields, 7);
    assert_int_equal(used, 25);
    return line + used;
}

static void a_line_has_time_level_and_message(void **state) {
    (void)state;
    capture c;
    capture_open(&c, CRIA_LOG_INFO);
    cria_log_write(c.log, CRIA_LOG_WARNING, "%d of %s", 3, "four");
    assert_string_equal(behind_time(c.text), "warning 3 of four\n");
    capture_close(&c);
}

static void lines_below_the_level_are_dropped(void **state) {
    (void)state;
    for (int level = CRIA_LOG_DEBUG; level <= CRIA_LOG_OFF; level++) {
        capture c;
        capture_open(&c, (cria_log_level)level);
        for (int i = CRIA_LOG_DEBUG; i <= CRIA_LOG_ERROR; i++) cria_log_write(c.log, (cria_log_level)i, "x");
        fflush(c.stream);
        int lines = 0;
        for (size_t i = 0; i < c.length; i++) lines += c.text[i] == '\n';
        assert_int_equal(lines, CRIA_LOG_OFF - level);
        capture_close(&c);
    }
}

static void a_log_of_null_is_silent(void **state) {
    (void)state;
    cria_log_write(NULL, CRIA_LOG_ERROR, "nobody %s", "hears");
    cria_log_destroy(NULL);
}

static void bytes_from_outside_cannot_forge_lines(void **state) {
    (void)state;
    capture c;
    capture_open(&c, CRIA_LOG_INFO);
    cria_log_write(c.log, CRIA_LOG_INFO, "%s", "a\nb\r\x1B[2J\xC2\x9B\xFFz\tend \xC3\xA9");
    assert_string_equal(behind_time(c.text), "info a\\nb\\x0d\\x1b[2J\\x9b\xEF\xBF\xBDz\tend \xC3\xA9\n");
    capture_close(&c);
}

static void a_long_message_is_cut_and_says_so(void **state) {
    (void)state;
    char message[10001];
    memset(message, 'm', 10000);
    message[10000] = 0;
    capture c;
    capture_open(&c, CRIA_LOG_INFO);
    cria_log_write(c.log, CRIA_LOG_INFO, "%s", message);
    const char *line = behind_time(c.text);
    assert_int_equal(strlen(line), strlen("info ") + 4095 + strlen(" ...\n"));
    assert_string_equal(line + strlen(line) - 6, "m ...\n");
    capture_close(&c);
}

static void *write_many(void *log) {
    for (int i = 0; i < 300; i++) cria_log_write(log, CRIA_LOG_INFO, "%s", "0123456789012345678901234567890123456789");
    return NULL;
}

static void lines_of_many_threads_stay_whole(void **state) {
    (void)state;
    capture c;
    capture_open(&c, CRIA_LOG_INFO);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, write_many, c.log);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    fflush(c.stream);
    int lines = 0;
    for (char *line = strtok(c.text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        assert_string_equal(behind_time(line), "info 0123456789012345678901234567890123456789");
    }
    assert_int_equal(lines, 1200);
    capture_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_and_message), cmocka_unit_test(lines_below_the_level_are_dropped),
        cmocka_unit_test(a_log_of_null_is_silent),           cmocka_unit_test(bytes_from_outside_cannot_forge_lines),
        cmocka_unit_test(a_long_message_is_cut_and_says_so), cmocka_unit_test(lines_of_many_threads_stay_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
