/* Printing and counting programs. */
#include "parallel/lower/program.h"

#include "kernels/split.h"
#include "parallel/comm/comm.h"

#include <stdlib.h>

const char *cria_do_name(cria_do what) {
    static const char *const names[CRIA_DO_COUNT] = {
        "kernel",     "move",       "zero",           "add",        "mul",  "moments", "norm", "sample",
        "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "send", "receive"};
    return names[what];
}

void cria_program_destroy(cria_program *program) {
    if (!program) return;
    free(program->instructions);
    free(program->weights);
    free(program->kv);
    free(program->copies);
    free(program->widths);
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

/* "to rank 3, 64 floats per token" and the like. */
static void print_communication(const cria_program *program, const cria_instruction *ins, cria_text *out) {
    static const char *const groups[CRIA_GROUP_COUNT] = {"axis 0", "axis 1", "the stage"};
    if (ins->what == CRIA_DO_SEND || ins->what == CRIA_DO_RECV)
        cria_text_printf(out, " %s rank %d,", ins->what == CRIA_DO_SEND ? "to" : "from", ins->peer);
    else
        cria_text_printf(out, " over %s,", groups[ins->group]);
    cria_text_printf(out, " %lld B per token", (long long)cria_instruction_bytes(program, ins, 1));
}

void cria_program_print(const cria_program *program, const cria_graph *graph, cria_text *out) {
    for (int i = 0; i < program->instruction_count; i++) {
        const cria_instruction *ins = &program->instructions[i];
        cria_text_printf(out, "%4d %s%s%-14s", i, ins->phase == CRIA_PHASE_HEAD ? "head" : "body",
                         ins->joins ? " +" : "  ",
                         ins->what == CRIA_DO_KERNEL ? cria_kernel_name(ins->kernel) : cria_do_name(ins->what));
        for (int k = 0; k < 5; k++)
            if (ins->operand[k].space != CRIA_SPACE_NONE) print_operand(program, graph, &ins->operand[k], out);
        if (ins->what == CRIA_DO_SAMPLE || ins->what >= CRIA_DO_ALL_REDUCE) print_communication(program, ins, out);
        cria_text_printf(
            out, "%s%s\n", ins->what == CRIA_DO_KERNEL ? "" : "   ",
            ins->what == CRIA_DO_KERNEL ? "" : cria_graph_tensor(graph, cria_graph_op(graph, ins->op)->output)->name);
    }
    cria_text_printf(out, "weights %.1f MB, workspace %.1f MB for %lld tokens and %lld logits rows, %d KV layers",
                     (double)program->weight_bytes / 1e6, (double)program->workspace_bytes / 1e6,
                     (long long)program->max_tokens, (long long)program->head_rows, program->kv_count);
    cria_text_printf(out, "; sends %lld B in a step of one token\n", (long long)cria_program_bytes(program, 1, 1));
}

int64_t cria_program_weight_bytes_read(const cria_program *program) {
    int64_t total = 0;
    for (int i = 0; i < program->instruction_count; i++)
        if (program->instructions[i].what == CRIA_DO_KERNEL && program->instructions[i].kernel == CRIA_KERNEL_linear)
            total += program->weights[program->instructions[i].operand[1].index].bytes;
    return total;
}

int64_t cria_instruction_bytes(const cria_program *program, const cria_instruction *ins, int64_t tokens) {
    int size = program->group_size[ins->group], rank = program->group_rank[ins->group];
    const int64_t *widths = cria_instruction_widths(program, ins);
    const int64_t each = tokens * (int64_t)sizeof(float);
    int64_t total = 0;
    switch (ins->what) {
    case CRIA_DO_SEND:
        return ins->width * each;
    case CRIA_DO_ALL_REDUCE:
        return cria_comm_all_reduce_bytes(size, rank, widths[0] * tokens);
    case CRIA_DO_ALL_GATHER:
        return (size - 1) * widths[rank] * each;
    case CRIA_DO_SAMPLE:
        return (size - 1) * tokens * CRIA_SPLIT_ROW_BYTES;
    case CRIA_DO_REDUCE_SCATTER:
    case CRIA_DO_ALL_TO_ALL:
        for (int r = 0; r < size; r++) total += r == rank ? 0 : widths[r];
        return total * each;
    default:
        return 0;
    }
}

int64_t cria_program_bytes(const cria_program *program, int64_t tokens, int64_t rows) {
    int64_t total = 0;
    for (int i = 0; i < program->instruction_count; i++) {
        const cria_instruction *ins = &program->instructions[i];
        if (ins->phase == CRIA_PHASE_BODY) total += cria_instruction_bytes(program, ins, tokens);
        for (int64_t at = 0; ins->phase == CRIA_PHASE_HEAD && at < rows; at += program->head_rows)
            total +=
                cria_instruction_bytes(program, ins, rows - at < program->head_rows ? rows - at : program->head_rows);
    }
    return total;
}
