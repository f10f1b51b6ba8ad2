#!/bin/sh
# run.sh RANKS PROGRAM ARGUMENTS...: runs the program under mpirun as the tests want it: on few processors, as root too.
# RECOVER=1: ranks that are lost take no others with them; then mpirun exits with 0, whatever ranks return.
set -eu
ranks=$1
shift
# Open MPI's folder of its own for each: what one mpirun removes at its end, another may just be making.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mpirun --allow-run-as-root --oversubscribe --bind-to none ${RECOVER:+--enable-recovery} -mca orte_tmpdir_base "$folder" -mca mpi_yield_when_idle 1 -n "$ranks" "$@"
