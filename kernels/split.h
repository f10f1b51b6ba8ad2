/* Split sampling: choosing from a row of logits that lies in parts on several ranks, without bringing it together.
 *
 * Every rank reduces its part to a few numbers: maximum, sum of exponentials, its best token (greedy or by Gumbel's
 * trick, which needs no normalised distribution), and where a request asks for them its largest logits. From the parts
 * of all ranks each can tell what the whole row would have given. A row whose top-p, top-k or min-p reaches below the
 * largest CRIA_SPLIT_CANDIDATES of a rank is the exception: it must be brought together. Any thread. */
#ifndef CRIA_KERNELS_SPLIT_H
#define CRIA_KERNELS_SPLIT_H

#include "kernels/kernels.h"

enum {
    CRIA_SPLIT_CANDIDATES = 64,
    CRIA_SPLIT_PART_BYTES = 48,                      /* what a part is at least */
    CRIA_SPLIT_ROW_BYTES = CRIA_SPLIT_PART_BYTES + 4 /* and the count of larger logits */
};

/* Bytes of a row's part, the same on every rank; a multiple of 8. */
size_t cria_split_bytes(const cria_row *row, int64_t top_limit);
size_t cria_split_most_bytes(int64_t top_limit);
/* Reduces row `index` of this rank's logits (args->vocab of them from id args->first on) to `part`. */
void cria_split_reduce(const cria_sample_args *args, int64_t index, int worker, void *part);
/* Writes the row's result and top list from the parts of all ranks (in the order of their ids), but for its rank;
 * returns false where the row must be brought together. `reported`: the logit whose rank is wanted, NaN where none is.
 */
bool cria_split_choose(const cria_sample_args *args, int64_t index, int64_t vocab_all, const void *const *parts,
                       int count, float *reported);
/* How many of this rank's logits of the row are larger. */
int32_t cria_split_count_above(const cria_sample_args *args, int64_t index, float reported);

#endif
