/* Mappings, drops and paths. */
#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/cria-test-file-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

/* Writes a file of `size` bytes (i * 31 at i) in the folder; its path is valid until the next call. */
static const char *make_file(size_t size) {
    static char path[64];
    snprintf(path, sizeof path, "%s/data", folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < size; i++) fputc((int)(i * 31 & 255), file);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void a_mapping_shows_the_bytes_of_the_file(void **state) {
    (void)state;
    const char *path = make_file(10000);
    cria_mapping mapping;
    cria_error err;
    assert_int_equal(cria_mapping_open(path, &mapping, &err), CRIA_OK);
    assert_int_equal(mapping.size, 10000);
    for (size_t i = 0; i < 10000; i++) assert_int_equal(mapping.data[i], i * 31 & 255);
    cria_mapping_close(&mapping);
    assert_null(mapping.data);
    cria_mapping_close(&mapping);
    unlink(path);
}

static void an_empty_file_maps_to_nothing(void **state) {
    (void)state;
    const char *path = make_file(0);
    cria_mapping mapping;
    assert_int_equal(cria_mapping_open(path, &mapping, NULL), CRIA_OK);
    assert_null(mapping.data);
    assert_int_equal(mapping.size, 0);
    cria_mapping_drop(&mapping, 0, 0);
    cria_mapping_close(&mapping);
    unlink(path);
}

static void what_cannot_be_mapped_names_the_path(void **state) {
    (void)state;
    cria_mapping mapping;
    cria_error err;
    assert_int_equal(cria_mapping_open("/nowhere/at-all", &mapping, &err), CRIA_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere/at-all"));
    assert_int_equal(cria_mapping_open(folder, &mapping, &err), CRIA_ERR_IO);
    char pipe[64];
    snprintf(pipe, sizeof pipe, "%s/pipe", folder);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(cria_mapping_open(pipe, &mapping, &err), CRIA_ERR_IO);
    assert_non_null(strstr(err.message, "regular file"));
    unlink(pipe);
}

/* How many bytes of the mapping are in this process's resident set, by the kernel's own account. */
static size_t resident_bytes(const cria_mapping *mapping) {
    FILE *maps = fopen("/proc/self/smaps", "r");
    if (!maps) skip();
    char line[512], start[32];
    snprintf(start, sizeof start, "%lx-", (unsigned long)(uintptr_t)mapping->data);
    size_t kilobytes = 0;
    int inside = 0;
    while (fgets(line, sizeof line, maps)) {
        if (strncmp(line, start, strlen(start)) == 0) inside = 1;
        if (inside && sscanf(line, "Rss: %zu", &kilobytes) == 1) break;
    }
    fclose(maps);
    return kilobytes * 1024;
}

static void dropped_ranges_leave_the_resident_set_and_can_be_read_again(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = 64 * page + 100;
    const char *path = make_file(size);
    cria_mapping mapping;
    assert_int_equal(cria_mapping_open(path, &mapping, NULL), CRIA_OK);
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++) sum += mapping.data[i];
    assert_true(resident_bytes(&mapping) >= 64 * page);
    cria_mapping_drop(&mapping, 10, 40 * page); /* ends inside page 40, which stays */
    assert_in_range(resident_bytes(&mapping), 25 * page, 25 * page);
    cria_mapping_drop(&mapping, 10 + 40 * page, size - 10 - 40 * page);
    assert_int_equal(resident_bytes(&mapping), 0);
    cria_mapping_drop(&mapping, size, 1); /* outside: ignored */
    cria_mapping_drop(&mapping, 1, SIZE_MAX);
    for (size_t i = 0; i < size; i++) sum -= mapping.data[i];
    assert_int_equal(sum, 0);
    cria_mapping_close(&mapping);
    unlink(path);
}

static void files_and_folders_are_told_apart(void **state) {
    (void)state;
    const char *path = make_file(1);
    assert_true(cria_path_is_file(path));
    assert_false(cria_path_is_folder(path));
    assert_true(cria_path_is_folder(folder));
    assert_false(cria_path_is_file(folder));
    assert_false(cria_path_is_file("/nowhere/at-all"));
    unlink(path);
}

static void paths_join_with_one_slash_and_must_fit(void **state) {
    (void)state;
    char out[8];
    cria_error err;
    assert_int_equal(cria_path_join("abc", "def", out, sizeof out, &err), CRIA_OK);
    assert_string_equal(out, "abc/def");
    assert_int_equal(cria_path_join("abc/", "def", out, sizeof out, &err), CRIA_OK);
    assert_string_equal(out, "abc/def");
    assert_int_equal(cria_path_join("", "def", out, sizeof out, &err), CRIA_OK);
    assert_string_equal(out, "def");
    assert_int_equal(cria_path_join("abcd", "def", out, sizeof out, &err), CRIA_ERR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mapping_shows_the_bytes_of_the_file),
        cmocka_unit_test(an_empty_file_maps_to_nothing),
        cmocka_unit_test(what_cannot_be_mapped_names_the_path),
        cmocka_unit_test(dropped_ranges_leave_the_resident_set_and_can_be_read_again),
        cmocka_unit_test(files_and_folders_are_told_apart),
        cmocka_unit_test(paths_join_with_one_slash_and_must_fit),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
