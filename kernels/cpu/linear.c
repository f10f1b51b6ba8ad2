/* How a linear layer is cut over workers, panels, tokens and K: the same for every instruction set. */
#include "kernels/cpu/linear.h"

enum {
    FEW_TOKENS = CRIA_LISTED_TOKENS, /* up to here the weights only stream by: one panel at a time, over all of K */
    STREAM_BYTES = 128 << 10,        /* weights taken at a time then */
    PREFETCH_TOKENS = 32,            /* up to here the weights are waited for */
    CHUNKS_PER_WORKER = 4,           /* so that a slow neighbour costs a fraction of its share only */
    ITEMS_PER_WORKER = 8,            /* the same where an item is long */
    OWN_ITEMS = 12 /* and where each worker has its own tokens, and only the last item may be shared */
};

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t at_least_one(int64_t a) {
    return a > 1 ? a : 1;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* An item is `block` panels times `span` blocks of tokens; whoever has a block of panels keeps it in the second-level
 * cache for all its tokens. Items of the same tokens follow each other. With many tokens each worker has its own, here
 * as in all operators that go by token, so that activations need not travel between processors (docs/benchmarks.md,
 * "Own tokens"); with fewer, tokens are only cut where there are too few panels to keep all workers busy. */
typedef struct {
    int64_t panels, block;
    int64_t blocks, span;
} cut;

static cut cut_work(const cria_linear_args *args, const cria_linear_kernel *kernel, int workers) {
    cut c = {.panels = divide_up(args->weight->rows, CRIA_PANEL_ROWS),
             .blocks = divide_up(args->tokens, kernel->block_tokens)};
    c.span = c.blocks;
    if (args->tokens <= FEW_TOKENS) {
        c.block = at_least_one((int64_t)(STREAM_BYTES / cria_panel_bytes(args->weight->type, args->weight->cols)));
        if (workers > 1) c.block = least(c.block, divide_up(c.panels, (int64_t)CHUNKS_PER_WORKER * workers));
        return c;
    }
    c.block = CRIA_MOST_PANELS;
    if (workers == 1) return c;
    int64_t wanted = (int64_t)ITEMS_PER_WORKER * workers;
    bool own = args->tokens >= kernel->own_tokens * workers;
    if (own) {
        c.blocks = divide_up(c.blocks, workers) * workers;
        c.span = c.blocks / workers;
    }
    if (own || c.blocks == 1) {
        int64_t even = divide_up(c.panels, own ? OWN_ITEMS : wanted);
        c.block = least(c.block, divide_up(even, CRIA_DOT_PANELS) * CRIA_DOT_PANELS);
        return c;
    }
    int64_t columns = divide_up(c.panels, c.block);
    if (columns < wanted) c.span = divide_up(c.blocks, divide_up(wanted, columns));
    return c;
}

/* Where a part begins if `total` is cut as evenly as can be into `parts` of whole rounds; only the last round may be
 * short, so that no part has more rounds than the largest of an even cut. */
static int64_t part_begin(int64_t total, int64_t part, int64_t parts, int64_t round) {
    return least(total, divide_up(total, round) * part / parts * round);
}

/* Some panels against one block of tokens, over all of K. */
typedef struct {
    const cria_linear_args *args;
    const cria_linear_kernel *kernel;
    size_t panel_bytes;
    int64_t steps, chunks;
    float *sums;         /* [panels][tokens][16] */
    const int32_t *list; /* the only steps that count, `steps` of them; or NULL: all do */
} block_run;

/* What ReLU leaves is mostly zero in trained models, and weights that meet nothing but zeros need not be read: adding
 * 0 * w changes no bit of a sum. Lists the steps at which a token is not zero and, CRIA_LIST_AHEAD entries long, where
 * those of the next panel begin; returns how many, or -1 where they are too many for single lines to be faster than a
 * stream (docs/benchmarks.md, "ReLU"). */
enum { LIST_SHARE = 4, LIST_MOST = 8192 };
static int64_t list_steps(const block_run *run, int32_t list[LIST_MOST + CRIA_LIST_AHEAD + 1]) {
    int64_t most = least(run->steps / LIST_SHARE, LIST_MOST), count = 0, tokens = run->args->tokens;
    size_t row_bytes = cria_prepared_row_bytes(run->args->weight->type, run->args->weight->cols);
    const uint8_t *rows = run->args->in;
    for (int64_t step = 0; step < run->steps; step++, rows += 4) {
        uint32_t any = 0;
        for (int64_t t = 0; t < tokens; t++) any |= *(const uint32_t *)(const void *)(rows + (size_t)t * row_bytes);
        list[count] = (int32_t)step;
        count += any != 0;
        if (count > most) return -1;
    }
    for (int64_t i = 0; i < CRIA_LIST_AHEAD; i++)
        list[count + i] = (count ? list[i % count] : 0) + (int32_t)(run->panel_bytes / CRIA_STEP_BYTES);
    return count;
}

/* Asks for what the epilogue reads and writes, a line of each token: while the products are added, they arrive. */
static void ask_for_outputs(const cria_linear_args *args, int64_t first_row, int64_t begin, int64_t tokens) {
    const float *out = args->out + begin * args->out_stride + first_row;
    const float *residual = args->residual ? args->residual + begin * args->residual_stride + first_row : out;
    for (int64_t t = 0; t < tokens; t++) {
        __builtin_prefetch(out + t * args->out_stride, 1, 2);
        if (residual != out) __builtin_prefetch(residual + t * args->residual_stride, 0, 2);
    }
}

/* Panels [first, last), one chunk of K after the other, `together` panels to a call. */
static void run_panels(const block_run *run, int64_t first, int64_t last, int64_t together, int64_t begin,
                       int64_t tokens) {
    const cria_panels *weight = run->args->weight;
    cria_dot dot = {.row_bytes = cria_prepared_row_bytes(weight->type, weight->cols),
                    .tokens = tokens,
                    .cols = weight->cols,
                    .panel_bytes = run->panel_bytes,
                    .prefetch = tokens <= PREFETCH_TOKENS,
                    .list = run->list};
    dot.rows = (const uint8_t *)run->args->in + (size_t)begin * dot.row_bytes;
    for (int64_t chunk = 0; chunk < run->chunks; chunk++) {
        dot.first = part_begin(run->steps, chunk, run->chunks, run->kernel->round_steps);
        dot.steps = part_begin(run->steps, chunk + 1, run->chunks, run->kernel->round_steps) - dot.first;
        dot.fresh = chunk == 0;
        for (int64_t p = first; p < last; p += together) {
            dot.panels = (int)least(together, last - p);
            for (int i = 0; i < dot.panels; i++) {
                dot.panel[i] = (const uint8_t *)weight->data + (size_t)(p + i) * run->panel_bytes;
                dot.sums[i] = run->sums + (p - first + i) * tokens * CRIA_PANEL_ROWS;
            }
            for (int i = 0; !dot.prefetch && chunk + 1 == run->chunks && i < dot.panels; i++)
                ask_for_outputs(run->args, (p + i) * CRIA_PANEL_ROWS, begin, tokens);
            bool again = p + together >= last && chunk + 1 < run->chunks; /* the first panels, from the next chunk on */
            dot.next_panels = again ? first - p : together;
            dot.next_first = again ? dot.first + dot.steps : dot.first;
            (run->list ? run->kernel->listed : run->kernel->dot)(&dot);
            if (chunk + 1 < run->chunks) continue;
            if (run->kernel->close) run->kernel->close(&dot);
            for (int i = 0; i < dot.panels; i++)
                run->kernel->finish(run->args, (p + i) * CRIA_PANEL_ROWS, begin, tokens, dot.sums[i]);
        }
    }
}

static void run_item(const block_run *run, const cut *c, int64_t first_panel, int64_t last_panel, int64_t first,
                     int64_t last) {
    int64_t tokens = run->args->tokens, round = run->kernel->round_tokens;
    int64_t together = tokens <= FEW_TOKENS ? 1 : CRIA_DOT_PANELS;
    /* With K in one chunk the sums of a call need not wait for the other panels. */
    int64_t step = run->chunks == 1 ? together : CRIA_MOST_PANELS;
    for (int64_t block = first; block < last; block++) {
        int64_t begin = part_begin(tokens, block, c->blocks, round);
        int64_t count = part_begin(tokens, block + 1, c->blocks, round) - begin;
        for (int64_t p = first_panel; p < last_panel; p += step)
            run_panels(run, p, least(p + step, last_panel), together, begin, count);
    }
}

void cria_linear_run(const cria_linear_args *args, cria_worker *worker, const cria_linear_kernel *kernel) {
    _Alignas(64) float sums[CRIA_MOST_PANELS * CRIA_MOST_TOKENS * CRIA_PANEL_ROWS];
    if (args->tokens <= 0) return;
    cut c = cut_work(args, kernel, worker->count);
    block_run run = {.args = args,
                     .kernel = kernel,
                     .panel_bytes = cria_panel_bytes(args->weight->type, args->weight->cols),
                     .steps = divide_up(args->weight->cols, kernel->step_columns),
                     .sums = sums};
    bool stream = args->tokens <= FEW_TOKENS || args->tokens <= kernel->stream_tokens;
    run.chunks = stream ? 1 : divide_up(run.steps, kernel->chunk_steps);
    int32_t list[LIST_MOST + CRIA_LIST_AHEAD + 1];
    bool look = kernel->listed && args->tokens <= CRIA_LISTED_TOKENS;
    int64_t columns = divide_up(c.panels, c.block), items = columns * divide_up(c.blocks, c.span), item, end;
    while (cria_worker_take(worker, items, 1, &item, &end)) {
        /* Only who has an item may look: without one the others may be done, and the input may be the next layer's. */
        int64_t listed = look ? list_steps(&run, list) : -1;
        look = false;
        if (listed >= 0) {
            run.steps = listed;
            run.list = list;
        }
        int64_t panel = item % columns * c.block, block = item / columns * c.span;
        run_item(&run, &c, panel, least(panel + c.block, c.panels), block, least(block + c.span, c.blocks));
    }
}
