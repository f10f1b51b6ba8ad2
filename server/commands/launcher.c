/* The end of a launcher that cannot reach its other half any more. */
#include "server/commands/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GRACE_MS = 4000 };

/* Nothing but Open MPI's own: a batch system's daemon or a shell is not ours to end. */
static bool is_launcher(pid_t pid) {
    char path[40], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t length = read(file, name, sizeof name - 1);
    close(file);
    if (length > 0) name[length - 1] = '\0';
    static const char *const known[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0) return true;
    return false;
}

/* True once the process has ended. */
static bool ends_within(int process, int milliseconds) {
    struct pollfd poll_fd = {process, POLLIN, 0};
    return poll(&poll_fd, 1, milliseconds) > 0;
}

void cria_launcher_outlive(void) {
    pid_t parent = getppid();
    /* Names this one process: its number may be another's by the time it is needed. */
    int process = (int)syscall(SYS_pidfd_open, parent, 0);
    if (process < 0) return;
    pid_t child = getppid() == parent && is_launcher(parent) ? fork() : -1;
    if (child != 0) {
        close(process);
        return;
    }
    /* The child of a process with threads: system calls only. It holds no pipe that anybody reads to its end, and
     * belongs to no group that is ended along with the rank. */
    setsid();
    dup2(process, 0);
    if (syscall(SYS_close_range, 1, ~0U, 0) != 0)
        for (int file = 1; file < 1024; file++) close(file);
    /* It has been asked by MPI_Abort; asking once more only breaks it (Open MPI 4.1). */
    if (!ends_within(0, GRACE_MS)) syscall(SYS_pidfd_send_signal, 0, SIGKILL, NULL, 0);
    _exit(0);
}
