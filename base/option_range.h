/* How option.c and option_print.c write the range of a row. Only for these two. Any thread. */
#ifndef CRIA_BASE_OPTION_RANGE_H
#define CRIA_BASE_OPTION_RANGE_H

#include "base/option.h"

/* Integers that may be larger than this can be given, and are shown, with the suffixes k, m, g. */
#define CRIA_OPTION_SUFFIX_FROM 1e6

/* "from 1 to 64k", "at least 0", "" where there is no limit or the row is no number. */
void cria_option_range(const cria_option *row, char *out, size_t size);

#endif
