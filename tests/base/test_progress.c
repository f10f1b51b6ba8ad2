/* Progress: silence for short work, lines in a log, a bar on a terminal. */
#include "base/progress.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

static void short_work_prints_nothing(void **state) {
    (void)state;
    char *text;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    cria_progress *progress = cria_progress_create(stream, "reading", "B", 100);
    for (int i = 0; i < 100; i++) cria_progress_advance(progress, 1);
    cria_progress_destroy(progress);
    fclose(stream);
    assert_int_equal(length, 0);
    free(text);
}

static void no_stream_is_silent(void **state) {
    (void)state;
    cria_progress *progress = cria_progress_create(NULL, "reading", "B", 100);
    assert_null(progress);
    cria_progress_advance(progress, 1);
    cria_progress_destroy(progress);
}

static void a_log_gets_plain_lines_now_and_then(void **state) {
    (void)state;
    char *text;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    cria_progress *progress = cria_progress_create(stream, "packing weights", "B", 2000000000);
    usleep(1100000); /* a line is due after a second: the first advance prints it, however late it comes */
    cria_progress_advance(progress, 1000000000);
    fflush(stream);
    assert_int_equal(strncmp(text, "packing weights: ", 17), 0);
    assert_non_null(strstr(text, "1.0 GB of 2.0 GB, "));
    assert_non_null(strstr(text, "B/s, "));
    assert_non_null(strstr(text, " left\n"));
    cria_progress_advance(progress, 1000000000);
    cria_progress_destroy(progress);
    fclose(stream);
    int lines = 0;
    for (size_t i = 0; i < length; i++) lines += text[i] == '\n';
    assert_in_range(lines, 2, 3); /* 3 where the machine itself took its time between the two */
    assert_non_null(strstr(text, "\npacking weights: 100%, 2.0 GB of 2.0 GB, "));
    assert_null(strchr(text, '\r'));
    assert_null(strchr(text, '\033'));
    free(text);
}

static void a_terminal_gets_one_line_drawn_over(void **state) {
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) skip();
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    if (terminal < 0) skip();
    struct termios raw; /* otherwise the terminal turns \n into \r\n */
    tcgetattr(terminal, &raw);
    cfmakeraw(&raw);
    tcsetattr(terminal, TCSANOW, &raw);
    FILE *stream = fdopen(terminal, "w");
    cria_progress *progress = cria_progress_create(stream, "loading", "layers", 8);
    usleep(320000);
    cria_progress_advance(progress, 2);
    cria_progress_advance(progress, 2); /* too soon after the one before */
    cria_progress_destroy(progress);
    char text[1000];
    size_t length = 0;
    do { /* a terminal may hand on what was written in pieces */
        struct pollfd ready = {master, POLLIN, 0};
        assert_int_equal(poll(&ready, 1, 5000), 1);
        ssize_t got = read(master, text + length, sizeof text - 1 - length);
        assert_true(got > 0);
        length += (size_t)got;
    } while (length < sizeof text - 1 && text[length - 1] != '\n');
    text[length] = 0;
    assert_int_equal(strncmp(text, "\rloading: [######..................] 25%, 2 layers of 8 layers, ", 64), 0);
    assert_non_null(strstr(text, "\rloading: [############............] 50%, 4 layers of 8 layers, "));
    assert_string_equal(text + length - 4, "\033[K\n");
    int draws = 0;
    for (const char *p = text; (p = strchr(p, '\r')); p++) draws++;
    assert_in_range(draws, 2, 3); /* 3 where the machine itself took its time between the two */
    fclose(stream);
    close(master);
}

static void *advance_many(void *progress) {
    for (int i = 0; i < 20000; i++) cria_progress_advance(progress, 1);
    return NULL;
}

static void advances_of_many_threads_add_up(void **state) {
    (void)state;
    char *text;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    cria_progress *progress = cria_progress_create(stream, "counting", "items", 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, advance_many, progress);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    usleep(310000);
    cria_progress_destroy(progress);
    fclose(stream);
    assert_non_null(strstr(text, "counting: 80000 items, "));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_work_prints_nothing),           cmocka_unit_test(no_stream_is_silent),
        cmocka_unit_test(a_log_gets_plain_lines_now_and_then), cmocka_unit_test(a_terminal_gets_one_line_drawn_over),
        cmocka_unit_test(advances_of_many_threads_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
