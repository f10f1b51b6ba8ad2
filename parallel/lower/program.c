/* Printing and counting programs. */
#include "parallel/lower/program.h"

#include <stdlib.h>

void cria_program_destroy(cria_program *program) {
    if (!program) return;
    free(program->instructions);
    free(program->weights);
    free(program->kv);
    free(program);
}

static void print_operand(const cria_program *program, const cria_graph *graph, const cria_operand *operand,
                          cria_text *out) {
    switch (operand->space) {
    case CRIA_SPACE_NONE:
        cria_text_puts(out, " -");
        break;
    case CRIA_SPACE_WORK:
        cria_text_printf(out, " work+%lld/%lld", (long long)operand->offset, (long long)operand->stride);
        break;
    case CRIA_SPACE_WEIGHT: {
        const cria_weight_spec *w = &program->weights[operand->index];
        cria_text_printf(out, " %s", cria_graph_tensor(graph, w->tensor[0])->name);
        if (w->parts > 1) cria_text_printf(out, "(+%d)", w->parts - 1);
        cria_text_printf(out, "[%lld,%lld %s]", (long long)w->rows, (long long)w->cols,
                         w->kind == CRIA_WEIGHT_PANELS ? cria_panel_type_name(w->panel) : "f32");
        break;
    }
    case CRIA_SPACE_KV:
        cria_text_printf(out, " kv%d", operand->index);
        break;
    case CRIA_SPACE_TOKEN_IDS:
        cria_text_puts(out, " token_ids");
        break;
    case CRIA_SPACE_POSITIONS:
        cria_text_puts(out, " positions");
        break;
    }
}

void cria_program_print(const cria_program *program, const cria_graph *graph, cria_text *out) {
    for (int i = 0; i < program->instruction_count; i++) {
        const cria_instruction *ins = &program->instructions[i];
        cria_text_printf(out, "%4d %s %-9s", i, ins->phase == CRIA_PHASE_HEAD ? "head" : "body",
                         cria_kernel_name(ins->kernel));
        for (int k = 0; k < 5; k++)
            if (ins->operand[k].space != CRIA_SPACE_NONE) print_operand(program, graph, &ins->operand[k], out);
        cria_text_puts(out, "\n");
    }
    cria_text_printf(out, "weights %.1f MB, workspace %.1f MB for %lld tokens and %lld logits rows, %d KV layers\n",
                     (double)program->weight_bytes / 1e6, (double)program->workspace_bytes / 1e6,
                     (long long)program->max_tokens, (long long)program->head_rows, program->kv_count);
}

int64_t cria_program_weight_bytes_read(const cria_program *program) {
    int64_t total = 0;
    for (int i = 0; i < program->instruction_count; i++)
        if (program->instructions[i].kernel == CRIA_KERNEL_linear)
            total += program->weights[program->instructions[i].operand[1].index].bytes;
    return total;
}
