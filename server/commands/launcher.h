/* Sees to it that the daemon which started a rank goes when the world has been given up. */
#ifndef CRIA_SERVER_COMMANDS_LAUNCHER_H
#define CRIA_SERVER_COMMANDS_LAUNCHER_H

/* Leaves a process behind for a few seconds that ends this rank's parent, if that is Open MPI's mpirun or its daemon on
 * this host and does not end by itself: cut off from the other hosts, they would wait for each other for ever. Called
 * by a process that is about to end. */
void cria_launcher_outlive(void);

#endif
