/* Runs of instructions that go by row: none may write what another row of an earlier one still reads or writes. */
#include "parallel/lower/rows.h"

#include "kernels/panels.h"

/* An operand in the workspace: rows of `stride` bytes from `begin` on, as many as a step can have. */
typedef struct {
    int64_t begin, stride, rows;
    bool written, scattered; /* a row of the instruction may read any row of it */
} place;

enum { MOST_PLACES = 5 };

/* Which operand a kernel that goes by row writes, or -1 if it does not go by row. A cache is nobody's workspace. */
static int written_operand(const cria_instruction *ins) {
    if (ins->what != CRIA_DO_KERNEL) return -1;
    switch (ins->kernel) {
    case CRIA_KERNEL_norm:
        return 3;
    case CRIA_KERNEL_prepare:
    case CRIA_KERNEL_gather:
        return 1;
    case CRIA_KERNEL_embed:
    case CRIA_KERNEL_glu:
        return 2;
    case CRIA_KERNEL_rope:
    case CRIA_KERNEL_kv_store:
        return 0;
    default:
        return -1;
    }
}

static int places_of(const cria_program *program, const cria_instruction *ins, place out[MOST_PLACES]) {
    int count = 0, written = written_operand(ins);
    for (int k = 0; k < MOST_PLACES; k++) {
        const cria_operand *operand = &ins->operand[k];
        if (operand->space != CRIA_SPACE_WORK) continue;
        bool prepared = ins->kernel == CRIA_KERNEL_prepare && k == written;
        bool scattered = ins->kernel == CRIA_KERNEL_gather && k != written;
        bool head = ins->phase == CRIA_PHASE_HEAD && !scattered;
        out[count++] = (place){.begin = operand->offset,
                               .stride = prepared ? (int64_t)cria_prepared_row_bytes(ins->panel, ins->width)
                                                  : operand->stride * (int64_t)sizeof(float),
                               .rows = head ? program->head_rows : program->max_tokens,
                               .written = k == written,
                               .scattered = scattered};
    }
    return count;
}

/* Whether a row of one may lie where another row of the other does. Parts of one row (fused projections) do not. */
static bool clash(const place *a, const place *b) {
    if (!a->written && !b->written) return false;
    int64_t apart = a->begin > b->begin ? a->begin - b->begin : b->begin - a->begin;
    if (!a->scattered && !b->scattered && a->stride == b->stride && apart < a->stride) return false;
    return a->begin < b->begin + b->rows * b->stride && b->begin < a->begin + a->rows * a->stride;
}

static bool may_join(const cria_program *program, int first, int next) {
    const cria_instruction *all = program->instructions, *ins = &all[next];
    /* A gather reads rows that others may not have come to yet. */
    if (next - first == CRIA_LONGEST_RUN || ins->phase != all[first].phase || written_operand(ins) < 0 ||
        ins->kernel == CRIA_KERNEL_gather)
        return false;
    place mine[MOST_PLACES], theirs[MOST_PLACES];
    int count = places_of(program, ins, mine);
    for (int i = first; i < next; i++)
        for (int other = places_of(program, &all[i], theirs) - 1; other >= 0; other--)
            for (int k = 0; k < count; k++)
                if (clash(&mine[k], &theirs[other])) return false;
    return true;
}

void cria_join_rows(cria_program *program) {
    int first = -1;
    for (int i = 0; i < program->instruction_count; i++) {
        cria_instruction *ins = &program->instructions[i];
        ins->by_row = written_operand(ins) >= 0;
        ins->joins = first >= 0 && may_join(program, first, i);
        if (!ins->joins) first = ins->by_row ? i : -1;
    }
}
