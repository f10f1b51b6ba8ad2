/* `cria inspect`: the graph, its shapes, parameters and bytes, and the lowered program. */
#include "server/commands/commands.h"

#include "base/text.h"
#include "server/commands/ranks.h"
#include "server/runtime.h"

#include <stdio.h>

cria_status cria_command_inspect(const cria_command *command, cria_error *err) {
    cria_runtime *runtime;
    cria_runtime_request request = {.graph_only = true};
    cria_ranks_joined alone = {.options = command->options, .size = 1, .share = 1};
    cria_ranks_request(&alone, &request);
    CRIA_TRY(cria_ranks_wanted(command->options, &request.ranks, err));
    request.rank = (int)command->options->inspect_rank;
    CRIA_TRY(cria_runtime_open(command->path, command->options, &request, command->log, &runtime, err));
    const cria_graph *graph = cria_runtime_graph(runtime);
    const cria_program *program = cria_runtime_program(runtime);
    cria_runtime_summary summary;
    cria_runtime_summarise(runtime, &summary);
    cria_text text;
    cria_text_init(&text);
    cria_graph_print(graph, &text);
    if (command->options->program) {
        cria_text_puts(&text, "\n");
        cria_program_print(program, graph, &text);
    }
    cria_text_printf(&text,
                     "\nparameters        %lld\n"
                     "weights           %.1f MB packed (%s)\n"
                     "read per token    %.1f MB of weights\n"
                     "operations        %.1f MFLOP per token at context 1, %.1f at %lld\n"
                     "KV cache          %lld blocks of %lld tokens, %.1f MB (%s)\n"
                     "workspace         %.1f MB\n",
                     (long long)cria_graph_param_count(graph), (double)summary.weight_bytes / 1e6, summary.weight_type,
                     (double)cria_program_weight_bytes_read(program) / 1e6, cria_graph_flops(graph, 1, 1, 1) / 1e6,
                     cria_graph_flops(graph, 1, 1, summary.max_model_len) / 1e6, (long long)summary.max_model_len,
                     (long long)summary.kv_blocks, (long long)summary.block_tokens, (double)summary.kv_bytes / 1e6,
                     summary.kv_type, (double)summary.workspace_bytes / 1e6);
    cria_status status = text.failed ? cria_fail(err, CRIA_ERR_MEMORY, "no memory for the output") : CRIA_OK;
    if (status == CRIA_OK) fwrite(text.data, 1, text.length, stdout);
    cria_text_deinit(&text);
    cria_runtime_close(runtime);
    return status;
}
