/* Commands: what `cria serve`, `generate`, `bench`, `plan`, `profile`, `tokenize` and `inspect` do. Each runs on the
 * main thread, prints its result to standard output and returns CRIA_OK, or an error that main prints. */
#ifndef CRIA_SERVER_COMMANDS_COMMANDS_H
#define CRIA_SERVER_COMMANDS_COMMANDS_H

#include "base/error.h"
#include "base/log.h"
#include "server/options.h"

#define CRIA_VERSION "0.1.0"

/* `model`: as the user wrote it; `path`: the folder or file it was resolved to. Both are NULL for a command that may do
 * without and got none. */
typedef struct {
    const cria_main_options *options;
    const char *model, *path;
    const char *cache; /* the folder of what may be made again, e.g. ~/.cache/cria; NULL: there is none */
    cria_log *log;
    const char *name; /* "serve" */
    int argc;         /* what came after it */
    char **argv;
} cria_command;

cria_status cria_command_serve(const cria_command *command, cria_error *err);
cria_status cria_command_generate(const cria_command *command, cria_error *err);
cria_status cria_command_bench(const cria_command *command, cria_error *err);
cria_status cria_command_tokenize(const cria_command *command, cria_error *err);
cria_status cria_command_inspect(const cria_command *command, cria_error *err);
cria_status cria_command_plan(const cria_command *command, cria_error *err);
/* `cria plan --net NET --mesh AxB`: the intra-operator pass alone. */
cria_status cria_command_plan_net(const cria_command *command, cria_error *err);
cria_status cria_command_profile(const cria_command *command, cria_error *err);
/* `command->model` is the instance file. */
cria_status cria_command_solve(const cria_command *command, cria_error *err);

/* Parses "1,2,3" into ids[0..*count), at most `max`; the option's name goes into the message. */
cria_status cria_parse_list(const char *option, const char *text, int64_t *values, size_t max, size_t *count,
                            cria_error *err);

#endif
