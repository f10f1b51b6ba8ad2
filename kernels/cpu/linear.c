/* How a linear layer is cut over workers, panels and tokens: the same for every instruction set. */
#include "kernels/cpu/linear.h"

enum {
    STREAM_BYTES = 128 << 10, /* weights taken at a time where each is used once: long enough to stream */
    CACHE_BYTES = 384 << 10,  /* weights that stay in the second-level cache while many tokens pass over them */
    CHUNKS_PER_WORKER = 4     /* so that a slow neighbour costs a fraction of its share only */
};

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t at_least_one(int64_t a) {
    return a > 1 ? a : 1;
}

/* Panels of weights times tiles of tokens, one item at a time; the tokens are only cut where there are too few panels
 * to keep all workers busy. */
typedef struct {
    int64_t panels, block; /* panels in all, panels of one item */
    int64_t tiles, span;   /* tiles of tokens in all, tiles of one item */
} cut;

static cut cut_work(const cria_linear_args *args, int64_t most_tokens, int workers) {
    size_t bytes = cria_panel_bytes(args->weight->type, args->weight->cols);
    cut c = {.panels = divide_up(args->weight->rows, CRIA_PANEL_ROWS), .tiles = divide_up(args->tokens, most_tokens)};
    c.block = at_least_one((int64_t)((c.tiles > 1 ? CACHE_BYTES : STREAM_BYTES) / bytes));
    c.span = c.tiles;
    if (workers == 1) return c;
    int64_t wanted = (int64_t)CHUNKS_PER_WORKER * workers;
    int64_t even = divide_up(c.panels, wanted);
    if (c.tiles <= 1) {
        if (c.block > even) c.block = even;
        return c;
    }
    int64_t blocks = divide_up(c.panels, c.block);
    if (blocks < wanted) c.span = divide_up(c.tiles, divide_up(wanted, blocks));
    return c;
}

/* One block of panels against tiles [first, last). Tiles are as even as can be: the time of a tile with few tokens is
 * that of reading the weights. */
static void run_item(const cria_linear_args *args, const cria_linear_kernel *kernel, const cut *c, int64_t first_panel,
                     int64_t last_panel, int64_t first, int64_t last) {
    _Alignas(64) float sums[CRIA_MOST_TILE * CRIA_PANEL_ROWS];
    const cria_panels *weight = args->weight;
    size_t panel_bytes = cria_panel_bytes(weight->type, weight->cols);
    size_t row_bytes = cria_prepared_row_bytes(weight->type, weight->cols);
    for (int64_t tile = first; tile < last; tile++) {
        int64_t begin = args->tokens * tile / c->tiles, tokens = args->tokens * (tile + 1) / c->tiles - begin;
        const uint8_t *rows = (const uint8_t *)args->in + (size_t)begin * row_bytes;
        for (int64_t p = first_panel; p < last_panel; p++) {
            const uint8_t *panel = (const uint8_t *)weight->data + (size_t)p * panel_bytes;
            kernel->dot(panel, rows, row_bytes, tokens, weight->cols, sums);
            kernel->finish(args, p * CRIA_PANEL_ROWS, begin, tokens, sums);
        }
    }
}

void cria_linear_run(const cria_linear_args *args, cria_worker *worker, const cria_linear_kernel *kernel) {
    cut c = cut_work(args, kernel->most_tokens, worker->count);
    if (c.tiles == 0) return;
    int64_t spans = divide_up(c.tiles, c.span), items = divide_up(c.panels, c.block) * spans, item, end;
    while (cria_worker_take(worker, items, 1, &item, &end)) {
        int64_t panel = item / spans * c.block, tile = item % spans * c.span;
        int64_t last_panel = panel + c.block < c.panels ? panel + c.block : c.panels;
        int64_t last_tile = tile + c.span < c.tiles ? tile + c.span : c.tiles;
        run_item(args, kernel, &c, panel, last_panel, tile, last_tile);
    }
}
