/* cria profile: measures this machine's kernels and links. */
#include "server/commands/commands.h"

cria_status cria_command_profile(const cria_command *command, cria_error *err) {
    (void)command;
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "profiling is not built yet");
}
