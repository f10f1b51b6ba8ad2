/* cria plan: cuts a model over a cluster; with --net and --mesh, runs the intra-operator pass alone. */
#include "server/commands/commands.h"

cria_status cria_command_plan(const cria_command *command, cria_error *err) {
    const cria_main_options *options = command->options;
    if (options->net && options->mesh) return cria_command_plan_net(command, err);
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "planning over a cluster is not built yet");
}
