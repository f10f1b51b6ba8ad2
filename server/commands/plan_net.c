/* cria plan --net NET --mesh AxB: the intra-operator pass alone on a named network. */
#include "server/commands/commands.h"

cria_status cria_command_plan_net(const cria_command *command, cria_error *err) {
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "--net %s --mesh %s: the intra-operator pass is not built yet",
                     command->options->net, command->options->mesh);
}
