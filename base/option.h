/* Options: one table row each generates command-line parsing, --help and docs/options.md. Any thread. */
#ifndef CRIA_BASE_OPTION_H
#define CRIA_BASE_OPTION_H

#include "base/error.h"
#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    CRIA_OPTION_FLAG,   /* bool; --name or --no-name */
    CRIA_OPTION_INT,    /* int64_t; suffixes k m g (powers of 1024) where max is over 1e6 */
    CRIA_OPTION_DOUBLE, /* double */
    CRIA_OPTION_STRING, /* const char * (borrowed from argv) */
    CRIA_OPTION_CHOICE, /* const char *, one of `choices` separated by '|' */
    CRIA_OPTION_LIST    /* const char *, comma-separated integers, checked against min and max */
} cria_option_type;

typedef struct {
    const char *flag; /* without the leading "--"; "max-model-len" */
    cria_option_type type;
    size_t offset;        /* of the member in the caller's options struct */
    const char *fallback; /* as text; NULL: zero, false or NULL */
    double min, max;      /* inclusive, for numbers */
    const char *choices;
    const char *metavar; /* "N", "PATH" */
    const char *help;    /* one sentence without a full stop at the end */
    unsigned commands;   /* bit set of the commands that take it */
} cria_option;

/* Fills the struct with every fallback. */
cria_status cria_options_defaults(const cria_option *table, size_t count, void *options, cria_error *err);
/* Reads argv[0..argc) into the struct; "--name value" and "--name=value"; what does not start with "--" goes to
 * positional[] in order (at most max_positional). Unknown options (with the nearest name), missing values and values
 * out of range are CRIA_ERR_ARGUMENT. Only rows whose `commands` has a bit in common with `command` are known. */
cria_status cria_options_parse(const cria_option *table, size_t count, unsigned command, int argc, char **argv,
                               void *options, const char **positional, size_t max_positional, size_t *positional_count,
                               cria_error *err);
/* Appends the help lines of a command, aligned for a terminal. */
void cria_options_help(const cria_option *table, size_t count, unsigned command, cria_text *out);
/* Appends the rows of a Markdown table: flag, value, default, range, help. */
void cria_options_markdown(const cria_option *table, size_t count, unsigned command, cria_text *out);

#endif
