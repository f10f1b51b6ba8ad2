/* What a fuzz target demands of every input; a crash that names the demand. */
#ifndef CRIA_TESTS_FUZZ_REQUIRE_H
#define CRIA_TESTS_FUZZ_REQUIRE_H

#include <stdio.h>
#include <stdlib.h>

#define require(condition) ((condition) ? (void)0 : require_failed(#condition, __FILE__, __LINE__))

static inline void require_failed(const char *condition, const char *file, int line) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    abort();
}

#endif
