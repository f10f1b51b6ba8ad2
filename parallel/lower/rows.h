/* Rows: which instructions go by row, so that one after the other may be run on some rows before others are touched.
 * Lowering only. */
#ifndef CRIA_PARALLEL_LOWER_ROWS_H
#define CRIA_PARALLEL_LOWER_ROWS_H

#include "parallel/lower/program.h"

/* Sets `joins` of all instructions, once they are in their places. */
void cria_join_rows(cria_program *program);

#endif
