/* The printed forms of an option table: --help for a terminal and rows of a Markdown table. */
#include "base/option.h"

#include "base/option_range.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HELP_COLUMN = 30, HELP_WIDTH = 80 };

/* A limit in the shortest form: 65536 as 64k where suffixes are allowed. */
static void format_limit(const cria_option *row, double limit, char *out, size_t size) {
    const char *suffix = "";
    if (row->type != CRIA_OPTION_DOUBLE && row->max > CRIA_OPTION_SUFFIX_FROM) {
        static const char *const suffixes[] = {"", "k", "m", "g"};
        int step = 0;
        while (step < 3 && limit != 0 && fmod(limit, 1024) == 0) {
            limit /= 1024;
            step++;
        }
        suffix = suffixes[step];
    }
    snprintf(out, size, "%.15g%s", limit, suffix);
}

void cria_option_range(const cria_option *row, char *out, size_t size) {
    bool number = row->type == CRIA_OPTION_INT || row->type == CRIA_OPTION_DOUBLE || row->type == CRIA_OPTION_LIST;
    /* From 2^53 on a double is no limit that anyone meant, but INT64_MAX or the like. */
    double none = row->type == CRIA_OPTION_DOUBLE ? INFINITY : 0x1p53;
    char min[40], max[40];
    out[0] = 0;
    if (!number) return;
    format_limit(row, row->min, min, sizeof min);
    format_limit(row, row->max, max, sizeof max);
    if (row->min > -none && row->max < none) {
        snprintf(out, size, "from %s to %s", min, max);
    } else if (row->min > -none) {
        snprintf(out, size, "at least %s", min);
    } else if (row->max < none) {
        snprintf(out, size, "at most %s", max);
    }
}

static const char *value_name(const cria_option *row) {
    if (row->metavar) return row->metavar;
    switch (row->type) {
    case CRIA_OPTION_FLAG:
        return "";
    case CRIA_OPTION_INT:
        return "N";
    case CRIA_OPTION_DOUBLE:
        return "X";
    case CRIA_OPTION_STRING:
        return "TEXT";
    case CRIA_OPTION_CHOICE:
        return row->choices;
    case CRIA_OPTION_LIST:
        return "N,N,...";
    }
    return "";
}

/* "--max-model-len", or "--[no-]color" where the flag is on by default. */
static void append_flag(const cria_option *row, cria_text *out) {
    bool on = row->type == CRIA_OPTION_FLAG && row->fallback && strcmp(row->fallback, "true") == 0;
    cria_text_printf(out, "--%s%s", on ? "[no-]" : "", row->flag);
}

/* Appends words from column `column` on, breaking lines before `HELP_WIDTH` and indenting to HELP_COLUMN. */
static void append_wrapped(cria_text *out, const char *words, size_t *column) {
    while (*words) {
        size_t n = strcspn(words, " ");
        if (*column > HELP_COLUMN && *column + 1 + n > HELP_WIDTH) {
            cria_text_printf(out, "\n%*s", HELP_COLUMN, "");
            *column = HELP_COLUMN;
        } else if (*column > HELP_COLUMN) {
            cria_text_append(out, " ", 1);
            (*column)++;
        }
        cria_text_append(out, words, n);
        *column += n;
        words += n;
        words += strspn(words, " ");
    }
}

/* What follows the help sentence: "(from 1 to 8; default 2)", or nothing. */
static void append_note(const cria_option *row, cria_text *note) {
    char range[80];
    cria_option_range(row, range, sizeof range);
    const char *limits = row->type == CRIA_OPTION_CHOICE && row->metavar ? row->choices : range;
    const char *fallback = row->type == CRIA_OPTION_FLAG ? NULL : row->fallback;
    if (!*limits && !fallback) return;
    cria_text_printf(note, "(%s%s%s%s)", limits, *limits && fallback ? "; " : "", fallback ? "default " : "",
                     fallback ? fallback : "");
}

void cria_options_help(const cria_option *table, size_t count, unsigned command, cria_text *out) {
    for (size_t i = 0; i < count; i++) {
        const cria_option *row = &table[i];
        if (!(row->commands & command)) continue;
        size_t start = out->length;
        const char *value = value_name(row);
        cria_text_puts(out, "  ");
        append_flag(row, out);
        cria_text_printf(out, "%s%s", *value ? " " : "", value);
        size_t column = out->length - start;
        if (column + 2 > HELP_COLUMN) { /* too long to have its help beside it */
            cria_text_puts(out, "\n");
            column = 0;
        }
        cria_text_printf(out, "%*s", (int)(HELP_COLUMN - column), "");
        column = HELP_COLUMN;
        append_wrapped(out, row->help, &column);
        cria_text note;
        cria_text_init(&note);
        append_note(row, &note);
        if (note.data) append_wrapped(out, note.data, &column);
        if (note.failed) out->failed = true;
        cria_text_deinit(&note);
        cria_text_puts(out, "\n");
    }
}

/* One cell of a Markdown table; '|' would end it. */
static void append_cell(cria_text *out, const char *string) {
    for (const char *p = string; *p; p++) {
        if (*p == '|') cria_text_puts(out, "\\");
        cria_text_append(out, p, 1);
    }
}

void cria_options_markdown(const cria_option *table, size_t count, unsigned command, cria_text *out) {
    cria_text_puts(out, "| option | value | default | range | meaning |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const cria_option *row = &table[i];
        if (!(row->commands & command)) continue;
        char range[80];
        cria_option_range(row, range, sizeof range);
        const char *fallback = row->fallback ? row->fallback : row->type == CRIA_OPTION_FLAG ? "false" : "";
        cria_text_puts(out, "| `");
        append_flag(row, out);
        cria_text_puts(out, "` | ");
        append_cell(out, value_name(row));
        cria_text_puts(out, " | ");
        append_cell(out, fallback);
        cria_text_puts(out, " | ");
        append_cell(out, row->type == CRIA_OPTION_CHOICE ? row->choices : range);
        cria_text_puts(out, " | ");
        append_cell(out, row->help);
        cria_text_puts(out, " |\n");
    }
}
