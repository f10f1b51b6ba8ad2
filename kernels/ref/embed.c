/* Reference embedding: rows of a packed table; zeros for ids that the table does not have. */
#include "kernels/ref/ref.h"

#include <string.h>

/* One row, through a short buffer where it is added to what stands there. */
static void embed_row(const cria_embed_args *args, int64_t row, float *out) {
    int64_t cols = args->table->cols;
    if (row < 0 || row >= args->table->rows) {
        if (!args->accumulate) memset(out, 0, (size_t)cols * sizeof *out);
        return;
    }
    if (!args->accumulate) {
        cria_panels_row(args->table, row, out);
        return;
    }
    float part[256];
    for (int64_t first = 0; first < cols; first += 256) {
        int64_t count = cols - first < 256 ? cols - first : 256;
        cria_panels_row_part(args->table, row, first, count, part);
        for (int64_t i = 0; i < count; i++) out[first + i] += part[i];
    }
}

void cria_ref_embed(const cria_embed_args *args, cria_worker *worker) {
    int64_t begin, end;
    while (cria_worker_take(worker, args->tokens, 4, &begin, &end)) {
        for (int64_t t = begin; t < end; t++) {
            embed_row(args, args->ids[t] + args->id_offset, args->out + t * args->out_stride);
        }
    }
}
