/* cria: the command line. Parses, resolves the model, runs one command, turns an error into a message and an exit code.
 */
#include "base/file.h"
#include "base/text.h"
#include "models/resolve.h"
#include "server/commands/commands.h"
#include "server/commands/ranks.h"
#include "server/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name, *summary;
    unsigned bit;
    enum { MODEL_RESOLVED, MODEL_OPTIONAL, MODEL_NONE, MODEL_INSTANCE } model;
    cria_status (*run)(const cria_command *command, cria_error *err);
} command_row;

static const command_row commands[] = {
    {"serve", "serve a model over an OpenAI-compatible HTTP API", CRIA_COMMAND_SERVE, MODEL_RESOLVED,
     cria_command_serve},
    {"generate", "continue a prompt on the terminal", CRIA_COMMAND_GENERATE, MODEL_RESOLVED, cria_command_generate},
    {"bench", "measure prefill and decode speed", CRIA_COMMAND_BENCH, MODEL_RESOLVED, cria_command_bench},
    {"tokenize", "show the tokens of a text, or the text of tokens", CRIA_COMMAND_TOKENIZE, MODEL_RESOLVED,
     cria_command_tokenize},
    {"inspect", "show a model's graph, shapes, parameters and bytes", CRIA_COMMAND_INSPECT, MODEL_RESOLVED,
     cria_command_inspect},
    {"plan", "cut a model over devices: stages, meshes, shardings, and what they would give", CRIA_COMMAND_PLAN,
     MODEL_OPTIONAL, cria_command_plan},
    {"profile", "measure this machine's kernels and links for cria plan --cluster", CRIA_COMMAND_PROFILE,
     MODEL_OPTIONAL, cria_command_profile},
    {"solve", "solve an instance of the contest on intra-operator parallelism", CRIA_COMMAND_SOLVE, MODEL_INSTANCE,
     cria_command_solve},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_text(cria_text *text) {
    if (text->length) fwrite(text->data, 1, text->length, stdout);
    cria_text_deinit(text);
}

/* What could not be written is a failure, as it is of every command that writes to a full disk. */
static bool all_is_written(cria_error *err) {
    bool before = ferror(stdout);
    if (fflush(stdout) == 0 && !before) return true;
    cria_fail(err, CRIA_ERR_IO, "standard output: %s", before ? "not all could be written" : strerror(errno));
    return false;
}

static int print_help(const command_row *row) {
    cria_text out;
    cria_text_init(&out);
    if (row && row->model == MODEL_NONE) {
        cria_text_printf(&out, "usage: cria %s [options]\n\n%s\n\noptions:\n", row->name, row->summary);
        cria_options_help(cria_option_table, cria_option_count, row->bit, &out);
    } else if (row && row->model == MODEL_INSTANCE) {
        cria_text_printf(
            &out, "usage: cria %s INSTANCE [options]\n\n%s\n\nINSTANCE is a .json or .json.gz file.\n\noptions:\n",
            row->name, row->summary);
        cria_options_help(cria_option_table, cria_option_count, row->bit, &out);
    } else if (row) {
        cria_text_printf(&out,
                         "usage: cria %s MODEL [options]\n\n%s\n\nMODEL is a Hugging Face folder, a .gguf file, a "
                         "folder of Alpa's NPY weights, a name from configs/models.json, or a hub id found in the "
                         "local Hugging Face cache.\n\noptions:\n",
                         row->name, row->summary);
        cria_options_help(cria_option_table, cria_option_count, row->bit, &out);
    } else {
        cria_text_puts(&out,
                       "cria " CRIA_VERSION ": plans, loads and serves large language models\n\nusage: cria COMMAND "
                       "MODEL [options]\n\n");
        for (size_t i = 0; i < COMMANDS; i++)
            cria_text_printf(&out, "  %-10s %s\n", commands[i].name, commands[i].summary);
        cria_text_puts(
            &out, "\n`cria COMMAND --help` lists a command's options.\nTo start: cria serve smollm2-135m-instruct\n");
    }
    print_text(&out);
    return 0;
}

/* docs/options.md, generated: `cria --options-markdown`. */
static int print_markdown(void) {
    cria_text out;
    cria_text_init(&out);
    cria_text_puts(&out, "# Options\n\nGenerated from the option table by `cria --options-markdown`.\n");
    for (size_t i = 0; i < COMMANDS; i++) {
        cria_text_printf(&out, "\n## cria %s%s\n\n", commands[i].name,
                         commands[i].model == MODEL_NONE       ? ""
                         : commands[i].model == MODEL_OPTIONAL ? " [MODEL]"
                         : commands[i].model == MODEL_INSTANCE ? " INSTANCE"
                                                               : " MODEL");
        cria_options_markdown(cria_option_table, cria_option_count, commands[i].bit, &out);
    }
    print_text(&out);
    return 0;
}

cria_status cria_parse_list(const char *option, const char *text, int64_t *values, size_t max, size_t *count,
                            cria_error *err) {
    *count = 0;
    for (const char *p = text; *p;) {
        char *end;
        long long value = strtoll(p, &end, 10);
        if (end == p || (*end != ',' && *end != '\0') || (*end == ',' && end[1] == '\0'))
            return cria_fail(err, CRIA_ERR_ARGUMENT, "%s: \"%s\" is not a list of integers", option, text);
        if (*count == max) return cria_fail(err, CRIA_ERR_ARGUMENT, "%s: more than %zu values", option, max);
        values[(*count)++] = value;
        p = *end == ',' ? end + 1 : end;
    }
    return CRIA_OK;
}

static cria_log_level level_of(const char *name) {
    static const char *const names[] = {"debug", "info", "warning", "error", "off"};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) return (cria_log_level)i;
    return CRIA_LOG_INFO;
}

/* A configuration without its weights, which is all that planning needs. */
static bool is_config(const char *model) {
    size_t length = strlen(model);
    return length > 5 && length < 4096 && strcmp(model + length - 5, ".json") == 0 && cria_path_is_file(model);
}

static cria_status run(const command_row *row, int argc, char **argv, cria_error *err) {
    cria_main_options options = {0};
    const char *model = NULL;
    size_t positional = 0;
    CRIA_TRY(cria_options_defaults(cria_option_table, cria_option_count, &options, err));
    CRIA_TRY(cria_options_parse(cria_option_table, cria_option_count, row->bit, argc, argv, &options, &model, 1,
                                &positional, err));
    if (positional == 0 && row->model == MODEL_RESOLVED && !options.calibrate)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "give a MODEL: cria %s MODEL (see cria %s --help)", row->name,
                         row->name);
    if (positional && row->model == MODEL_NONE)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "cria %s takes no MODEL, but got \"%s\"", row->name, model);
    if (positional == 0 && row->model == MODEL_INSTANCE)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "give an INSTANCE: cria %s INSTANCE --out FILE", row->name);
    char path[4096];
    cria_model_places places = {.home = getenv("HOME"),
                                .xdg_cache_home = getenv("XDG_CACHE_HOME"),
                                .hf_home = getenv("HF_HOME"),
                                .hf_hub_cache = getenv("HF_HUB_CACHE")};
    if (model && (row->model == MODEL_INSTANCE || (row->model == MODEL_OPTIONAL && is_config(model))))
        snprintf(path, sizeof path, "%s", model);
    else if (model) {
        cria_status found = cria_model_resolve(model, &places, path, sizeof path, err);
        /* A rank that does not find the model goes on to tell the others, which wait for it. */
        if (found != CRIA_OK && !cria_ranks_started()) return found;
        if (found != CRIA_OK) snprintf(path, sizeof path, "%s", model);
    }
    char cache[4096];
    bool xdg = places.xdg_cache_home && places.xdg_cache_home[0];
    snprintf(cache, sizeof cache, "%s%s/cria",
             xdg           ? places.xdg_cache_home
             : places.home ? places.home
                           : "",
             xdg ? "" : "/.cache");
    cria_log *log = cria_log_create(stderr, level_of(options.log_level ? options.log_level : "info"));
    cria_command command = {.options = &options,
                            .model = model,
                            .path = model ? path : NULL,
                            .cache = xdg || places.home ? cache : NULL,
                            .log = log,
                            .name = row->name,
                            .argc = argc,
                            .argv = argv};
    cria_status status = row->run(&command, err);
    cria_log_destroy(log);
    return status;
}

/* Runs the command that the arguments name; an error is told. */
static int run_command(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return print_help(NULL);
    if (strcmp(argv[1], "--version") == 0) return puts("cria " CRIA_VERSION) < 0;
    if (strcmp(argv[1], "--options-markdown") == 0) return print_markdown();
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        for (int k = 2; k < argc; k++)
            if (strcmp(argv[k], "--help") == 0 || strcmp(argv[k], "-h") == 0) return print_help(&commands[i]);
        for (int k = 2; k < argc && (commands[i].bit & (CRIA_COMMAND_RUNS | CRIA_COMMAND_PROFILE)); k++)
            if (strcmp(argv[k], "-n") == 0) argv[k] = "--ranks";
        cria_error err = {0};
        if (run(&commands[i], argc - 2, argv + 2, &err) == CRIA_OK) return 0;
        fprintf(stderr, "cria %s: %s\n", commands[i].name, err.message);
        return err.status == CRIA_ERR_ARGUMENT ? 2 : 1;
    }
    fprintf(stderr, "cria: unknown command \"%s\"; see cria --help\n", argv[1]);
    return 2;
}

int main(int argc, char **argv) {
    int code = run_command(argc, argv);
    cria_error err = {0};
    if (!all_is_written(&err)) {
        fprintf(stderr, "cria: %s\n", err.message);
        return code ? code : 1;
    }
    return code;
}
