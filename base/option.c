/* Reading command lines by an option table; the printed forms are in option_print.c. */
#include "base/option.h"

#include "base/option_range.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_NAME = 64 }; /* of those that are compared for a suggestion */

static bool takes(const cria_option *row, unsigned command) {
    return (row->commands & command) != 0;
}

/* Reads a whole integer at *p up to the first byte that cannot belong to it, moving *p there. Suffixes k, m, g only
 * where the range is wide enough that someone could want them. */
static bool read_int(const char **p, bool suffixes, int64_t *out) {
    char *end;
    if (**p != '-' && (**p < '0' || **p > '9')) return false; /* strtoll skips spaces and takes '+' */
    errno = 0;
    long long value = strtoll(*p, &end, 10);
    if (end == *p || errno) return false;
    static const char letters[] = "kmg";
    int shift = 0;
    if (suffixes && *end) {
        const char *letter = strchr(letters, *end | 0x20);
        if (letter) shift = 10 * ((int)(letter - letters) + 1);
    }
    if (shift) end++;
    int64_t scaled;
    if (__builtin_mul_overflow((int64_t)value, INT64_C(1) << shift, &scaled)) return false;
    *p = end;
    *out = scaled;
    return true;
}

static cria_status fail_value(const cria_option *row, const char *value, cria_error *err) {
    char range[80];
    const char *kind = row->type == CRIA_OPTION_INT    ? "an integer"
                       : row->type == CRIA_OPTION_LIST ? "integers separated by commas"
                                                       : "a number";
    cria_option_range(row, range, sizeof range);
    return cria_fail(err, CRIA_ERR_ARGUMENT, "--%s must be %s%s%s, but is '%s'", row->flag, kind, *range ? ", " : "",
                     range, value);
}

static bool in_range(const cria_option *row, double value) {
    return value >= row->min && value <= row->max;
}

static cria_status set_int(const cria_option *row, const char *value, int64_t *out, cria_error *err) {
    const char *p = value;
    int64_t number;
    if (!read_int(&p, row->max > CRIA_OPTION_SUFFIX_FROM, &number) || *p || !in_range(row, (double)number)) {
        return fail_value(row, value, err);
    }
    *out = number;
    return CRIA_OK;
}

static cria_status set_double(const cria_option *row, const char *value, double *out, cria_error *err) {
    char *end;
    double number = strtod(value, &end);
    bool starts = *value == '-' || *value == '.' || (*value >= '0' && *value <= '9') || strcmp(value, "inf") == 0;
    if (!starts || end == value || *end || !in_range(row, number)) return fail_value(row, value, err);
    *out = number;
    return CRIA_OK;
}

static cria_status check_list(const cria_option *row, const char *value, cria_error *err) {
    const char *p = value;
    for (;;) {
        int64_t number;
        if (!read_int(&p, row->max > CRIA_OPTION_SUFFIX_FROM, &number) || !in_range(row, (double)number)) break;
        if (*p == 0) return CRIA_OK;
        if (*p++ != ',') break;
    }
    return fail_value(row, value, err);
}

static cria_status check_choice(const cria_option *row, const char *value, cria_error *err) {
    size_t length = strlen(value);
    for (const char *p = row->choices; p && *p;) {
        size_t n = strcspn(p, "|");
        if (n == length && memcmp(p, value, n) == 0) return CRIA_OK;
        p += n + (p[n] != 0);
    }
    return cria_fail(err, CRIA_ERR_ARGUMENT, "--%s must be one of %s, but is '%s'", row->flag, row->choices, value);
}

/* Sets the row's member from text. */
static cria_status set_value(const cria_option *row, const char *value, void *options, cria_error *err) {
    void *member = (char *)options + row->offset;
    switch (row->type) {
    case CRIA_OPTION_FLAG: {
        bool on = strcmp(value, "true") == 0;
        if (!on && strcmp(value, "false") != 0) {
            return cria_fail(err, CRIA_ERR_ARGUMENT, "--%s must be true or false, but is '%s'", row->flag, value);
        }
        *(bool *)member = on;
        return CRIA_OK;
    }
    case CRIA_OPTION_INT:
        return set_int(row, value, member, err);
    case CRIA_OPTION_DOUBLE:
        return set_double(row, value, member, err);
    case CRIA_OPTION_CHOICE:
        CRIA_TRY(check_choice(row, value, err));
        break;
    case CRIA_OPTION_LIST:
        CRIA_TRY(check_list(row, value, err));
        break;
    case CRIA_OPTION_STRING:
        break;
    }
    *(const char **)member = value;
    return CRIA_OK;
}

cria_status cria_options_defaults(const cria_option *table, size_t count, void *options, cria_error *err) {
    for (size_t i = 0; i < count; i++) {
        const cria_option *row = &table[i];
        void *member = (char *)options + row->offset;
        if (row->fallback) {
            CRIA_TRY(set_value(row, row->fallback, options, err));
            continue;
        }
        switch (row->type) {
        case CRIA_OPTION_FLAG:
            *(bool *)member = false;
            break;
        case CRIA_OPTION_INT:
            *(int64_t *)member = 0;
            break;
        case CRIA_OPTION_DOUBLE:
            *(double *)member = 0;
            break;
        case CRIA_OPTION_STRING:
        case CRIA_OPTION_CHOICE:
        case CRIA_OPTION_LIST:
            *(const char **)member = NULL;
            break;
        }
    }
    return CRIA_OK;
}

/* The row of that name, whatever command takes it. */
/* A flag may have one row per command (a count here, a list there): the row of this command is preferred. */
static const cria_option *find(const cria_option *table, size_t count, unsigned command, const char *name,
                               size_t length) {
    const cria_option *other = NULL;
    for (size_t i = 0; i < count; i++) {
        if (strlen(table[i].flag) != length || memcmp(table[i].flag, name, length) != 0) continue;
        if (table[i].commands & command) return &table[i];
        other = &table[i];
    }
    return other;
}

/* Levenshtein's distance over one row; names longer than LONGEST_NAME are as far as can be. */
static size_t distance(const char *a, size_t a_length, const char *b) {
    size_t b_length = strlen(b), row[LONGEST_NAME + 1];
    if (a_length > LONGEST_NAME || b_length > LONGEST_NAME) return SIZE_MAX;
    for (size_t j = 0; j <= b_length; j++) row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j - 1] + 1 < change) change = row[j - 1] + 1;
            row[j] = row[j] + 1 < change ? row[j] + 1 : change;
        }
    }
    return row[b_length];
}

static cria_status fail_unknown(const cria_option *table, size_t count, unsigned command, const char *name,
                                size_t length, cria_error *err) {
    int shown = length > LONGEST_NAME ? LONGEST_NAME : (int)length;
    if (find(table, count, command, name, length)) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "--%.*s is not an option of this command", shown, name);
    }
    const char *nearest = NULL;
    size_t best = length / 3 > 2 ? length / 3 + 1 : 3; /* what differs more is no slip of the fingers */
    for (size_t i = 0; i < count; i++) {
        size_t d = takes(&table[i], command) ? distance(name, length, table[i].flag) : SIZE_MAX;
        if (d < best) {
            best = d;
            nearest = table[i].flag;
        }
    }
    if (nearest) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "unknown option --%.*s (did you mean --%s?)", shown, name, nearest);
    }
    return cria_fail(err, CRIA_ERR_ARGUMENT, "unknown option --%.*s", shown, name);
}

/* One "--name[=value]" at argv[*at]; moves *at behind it and its value. */
static cria_status parse_one(const cria_option *table, size_t count, unsigned command, int argc, char **argv, int *at,
                             void *options, cria_error *err) {
    const char *name = argv[(*at)++] + 2;
    size_t length = strcspn(name, "=");
    const char *value = name[length] ? name + length + 1 : NULL;
    const cria_option *row = find(table, count, command, name, length);
    bool off = false;
    if (!row && length > 3 && memcmp(name, "no-", 3) == 0) {
        row = find(table, count, command, name + 3, length - 3);
        off = row && row->type == CRIA_OPTION_FLAG;
        if (!off) row = NULL;
    }
    if (!row || !takes(row, command)) return fail_unknown(table, count, command, name, length, err);
    if (row->type == CRIA_OPTION_FLAG) {
        if (value) return cria_fail(err, CRIA_ERR_ARGUMENT, "--%.*s takes no value", (int)length, name);
        return set_value(row, off ? "false" : "true", options, err);
    }
    if (!value) {
        /* A value that starts with "--" must be joined by '=': a forgotten value is far more likely. */
        if (*at >= argc || strncmp(argv[*at], "--", 2) == 0) {
            return cria_fail(err, CRIA_ERR_ARGUMENT, "--%s needs a value", row->flag);
        }
        value = argv[(*at)++];
    }
    return set_value(row, value, options, err);
}

cria_status cria_options_parse(const cria_option *table, size_t count, unsigned command, int argc, char **argv,
                               void *options, const char **positional, size_t max_positional, size_t *positional_count,
                               cria_error *err) {
    bool only_positional = false;
    *positional_count = 0;
    for (int at = 0; at < argc;) {
        if (!only_positional && strcmp(argv[at], "--") == 0) {
            only_positional = true;
            at++;
        } else if (!only_positional && strncmp(argv[at], "--", 2) == 0) {
            CRIA_TRY(parse_one(table, count, command, argc, argv, &at, options, err));
        } else if (*positional_count == max_positional) {
            return cria_fail(err, CRIA_ERR_ARGUMENT, "unexpected argument '%s'", argv[at]);
        } else {
            positional[(*positional_count)++] = argv[at++];
        }
    }
    return CRIA_OK;
}
