/* Copies, sums and communication between kernels. */
#include "parallel/execute/exchange.h"

#include "base/clock.h"
#include "kernels/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_GROUP = 256 };

static cria_comm *comm_of(const cria_step *s, const cria_instruction *ins) {
    return s->executor->options.ranks->group[ins->group];
}

static int64_t tokens_of(const cria_step *s, const cria_instruction *ins) {
    return ins->phase == CRIA_PHASE_HEAD ? s->rows : s->batch->tokens;
}

/* ---- local work ---- */

static int64_t chunk_of(int64_t width) {
    return width < 4096 ? 4096 / (width + 1) + 1 : 1; /* tokens: as many as are worth a worker's while */
}

static void copy_rows(const cria_copy *c, const float *from, float *to, int64_t tokens, int64_t begin, int64_t end) {
    from += tokens * c->from.block + c->from.start;
    to += tokens * c->to.block + c->to.start;
    for (int64_t t = begin; t < end; t++)
        for (int64_t i = 0; i < c->outer; i++)
            memcpy(to + t * c->to.stride + i * c->to.step, from + t * c->from.stride + i * c->from.step,
                   (size_t)c->inner * sizeof *to);
}

static void move(const cria_step *s, const cria_instruction *ins, int64_t tokens, cria_worker *worker) {
    const float *from = cria_work(s->executor, &ins->operand[0]);
    float *to = cria_work(s->executor, &ins->operand[1]);
    int64_t begin, end;
    while (cria_worker_take(worker, tokens, chunk_of(ins->width), &begin, &end))
        for (int i = 0; i < ins->count; i++)
            copy_rows(&s->executor->program->copies[ins->first + i], from, to, tokens, begin, end);
}

static void pair(const cria_step *s, const cria_instruction *ins, int64_t tokens, cria_worker *worker) {
    const cria_operand *o = ins->operand;
    const cria_executor *e = s->executor;
    int64_t begin, end;
    while (cria_worker_take(worker, tokens, chunk_of(ins->width), &begin, &end))
        for (int64_t t = begin; t < end; t++) {
            const float *a = cria_work(e, &o[0]) + t * o[0].stride, *b = cria_work(e, &o[1]) + t * o[1].stride;
            float *out = cria_work(e, &o[2]) + t * o[2].stride;
            if (ins->what == CRIA_DO_ADD)
                for (int64_t i = 0; i < ins->width; i++) out[i] = a[i] + b[i];
            else
                for (int64_t i = 0; i < ins->width; i++) out[i] = a[i] * b[i];
        }
}

static void zero(const cria_step *s, const cria_instruction *ins, int64_t tokens, cria_worker *worker) {
    int64_t begin, end;
    float *out = cria_work(s->executor, &ins->operand[0]);
    while (cria_worker_take(worker, tokens, chunk_of(ins->width), &begin, &end))
        for (int64_t t = begin; t < end; t++)
            memset(out + t * ins->operand[0].stride, 0, (size_t)ins->width * sizeof *out);
}

/* RMS: the sum of squares. Layer norm: the mean, and the sum of squares around it. */
static void moments(const cria_step *s, const cria_instruction *ins, int64_t tokens, cria_worker *worker) {
    int64_t begin, end;
    while (cria_worker_take(worker, tokens, chunk_of(ins->width), &begin, &end))
        for (int64_t t = begin; t < end; t++) {
            const float *in = cria_work(s->executor, &ins->operand[0]) + t * ins->operand[0].stride;
            float *out = cria_work(s->executor, &ins->operand[1]) + t * ins->operand[1].stride;
            double mean = 0, squares = 0;
            for (int64_t i = 0; i < ins->width && !ins->rms; i++) mean += in[i];
            if (ins->width > 0) mean /= (double)ins->width;
            for (int64_t i = 0; i < ins->width; i++) squares += (in[i] - mean) * (in[i] - mean);
            if (!ins->rms) *out++ = (float)mean;
            *out = (float)squares;
        }
}

/* Puts the moments of all ranks' columns together (Chan, Golub and LeVeque 1979). */
static void join_moments(const cria_step *s, const cria_instruction *ins, int64_t tokens, int64_t t, double *mean,
                         double *squares) {
    const float *all = cria_work(s->executor, &ins->operand[4]);
    const int64_t *widths = cria_instruction_widths(s->executor->program, ins);
    double count = 0;
    *mean = *squares = 0;
    for (int r = 0; r < ins->count; r++) {
        double n = (double)widths[r];
        if (n == 0) continue;
        const float *theirs = all + (r * tokens + t) * ins->operand[4].stride;
        double delta = ins->rms ? 0 : theirs[0] - *mean;
        *squares += theirs[ins->rms ? 0 : 1] + delta * delta * count * n / (count + n);
        *mean += delta * n / (count + n);
        count += n;
    }
    *squares /= count;
}

static void norm(const cria_step *s, const cria_instruction *ins, int64_t tokens, cria_worker *worker) {
    const cria_executor *e = s->executor;
    const cria_operand *o = ins->operand;
    const float *weight = cria_vector(e, &o[1]), *bias = cria_vector(e, &o[2]);
    int64_t begin, end;
    while (cria_worker_take(worker, tokens, chunk_of(ins->width), &begin, &end))
        for (int64_t t = begin; t < end; t++) {
            const float *in = cria_work(e, &o[0]) + t * o[0].stride;
            float *out = cria_work(e, &o[3]) + t * o[3].stride;
            double mean, squares;
            join_moments(s, ins, tokens, t, &mean, &squares);
            double scale = 1 / sqrt(squares + ins->eps);
            for (int64_t i = 0; i < ins->width; i++) {
                double value = (in[i] - mean) * scale;
                if (weight) value *= weight[i];
                if (bias) value += bias[i];
                out[i] = (float)value;
            }
        }
}

/* ---- communication, on worker 0 ---- */

static cria_status transfer(const cria_step *s, const cria_instruction *ins, void *data, int64_t bytes,
                            cria_error *err) {
    cria_comm *world = s->executor->options.ranks->world;
    uint64_t start = cria_clock_ns();
    cria_status status = ins->what == CRIA_DO_SEND ? cria_comm_send(world, ins->peer, data, bytes, err)
                                                   : cria_comm_recv(world, ins->peer, data, bytes, err);
    s->executor->transfer_ns += cria_clock_ns() - start;
    return status;
}

static cria_status communicate(const cria_step *s, const cria_instruction *ins, int64_t tokens, cria_error *err) {
    const cria_executor *e = s->executor;
    const int64_t *widths = cria_instruction_widths(e->program, ins);
    float *in = cria_work(e, &ins->operand[0]), *out = cria_work(e, &ins->operand[1]);
    int64_t counts[2 * MOST_GROUP];
    int64_t unit = ins->what == CRIA_DO_REDUCE_SCATTER ? 1 : (int64_t)sizeof(float);
    for (int r = 0; ins->what != CRIA_DO_ALL_REDUCE && r < ins->count; r++) counts[r] = tokens * widths[r] * unit;
    switch (ins->what) {
    case CRIA_DO_ALL_REDUCE:
        return cria_comm_all_reduce(comm_of(s, ins), in, tokens * widths[0], err);
    case CRIA_DO_ALL_GATHER:
        return cria_comm_all_gather(comm_of(s, ins), in, out, counts, err);
    case CRIA_DO_REDUCE_SCATTER:
        return cria_comm_reduce_scatter(comm_of(s, ins), in, out, counts, err);
    case CRIA_DO_ALL_TO_ALL:
        return cria_comm_all_to_all(comm_of(s, ins), in, counts, out, counts + ins->count / 2, err);
    case CRIA_DO_SEND:
    case CRIA_DO_RECV:
        return transfer(s, ins, in, tokens * ins->width * (int64_t)sizeof(float), err);
    default:
        return cria_fail(err, CRIA_ERR_INTERNAL, "instruction %d does not communicate", (int)ins->what);
    }
}

/* ---- sampling from a split vocabulary ---- */

/* Where things lie in executor->split. */
typedef struct {
    uint8_t *parts;  /* [ranks][rows] of at most `most` bytes, dense */
    float *reported; /* [rows] */
    int32_t *counts; /* [ranks][rows] */
    uint8_t *whole;  /* [rows] 1: the row must be brought together */
    float *row;      /* [vocab_all] */
} split_memory;

static int64_t split_layout(const cria_executor *e, int ranks, split_memory *out) {
    int64_t rows = e->program->head_rows, at = 0;
    uint8_t *base = e->split.data;
    const int64_t bytes[5] = {(int64_t)cria_split_most_bytes(e->options.limits.top_logprobs) * rows * ranks,
                              rows * (int64_t)sizeof(float), rows * ranks * (int64_t)sizeof(int32_t), rows,
                              e->program->vocab_all * (int64_t)sizeof(float)};
    void *place[5] = {0};
    for (int i = 0; i < 5; i++) {
        if (base) place[i] = base + at;
        at += (bytes[i] + 63) / 64 * 64;
    }
    if (out) *out = (split_memory){place[0], place[1], place[2], place[3], place[4]};
    return at;
}

static cria_sample_args sample_args(const cria_step *s, const cria_instruction *ins) {
    const cria_executor *e = s->executor;
    int64_t top = s->batch->limits.top_logprobs;
    return (cria_sample_args){.logits = cria_work(e, &ins->operand[0]),
                              .rows = s->rows,
                              .vocab = ins->width,
                              .stride = ins->operand[0].stride,
                              .row = s->batch->row + s->first_row,
                              .history = s->batch->history,
                              .biases = s->batch->biases,
                              .allowed = s->batch->allowed,
                              .result = s->result->result + s->first_row,
                              .top_ids = s->result->top_ids + s->first_row * top,
                              .top_logprobs = s->result->top_logprobs + s->first_row * top,
                              .top_stride = top,
                              .first = e->program->vocab_begin,
                              .scratch = e->scratch.data};
}

/* Bytes of the parts before a row, and of all rows. */
static int64_t parts_before(const cria_sample_args *args, int64_t row) {
    int64_t bytes = 0;
    for (int64_t i = 0; i < row; i++) bytes += (int64_t)cria_split_bytes(&args->row[i], args->top_stride);
    return bytes;
}

static void gather_bytes(const cria_step *s, const cria_instruction *ins, cria_worker *worker, const void *in,
                         void *out, int64_t bytes) {
    int64_t all[MOST_GROUP];
    int ranks = s->executor->program->group_size[ins->group];
    for (int r = 0; r < ranks; r++) all[r] = bytes;
    if (worker->index == 0) cria_comm_all_gather(comm_of(s, ins), in, out, all, &s->executor->error);
    cria_worker_barrier(worker);
}

/* Brings one row together and samples it as one rank alone would. */
static void sample_whole(const cria_step *s, const cria_instruction *ins, const cria_sample_args *args, int64_t row,
                         float *logits, cria_worker *worker) {
    const cria_executor *e = s->executor;
    const int64_t *widths = cria_instruction_widths(e->program, ins);
    int64_t bytes[MOST_GROUP];
    for (int r = 0; r < ins->count; r++) bytes[r] = widths[r] * (int64_t)sizeof(float);
    if (worker->index == 0)
        cria_comm_all_gather(comm_of(s, ins), args->logits + row * args->stride, logits, bytes, &s->executor->error);
    cria_worker_barrier(worker);
    if (e->error.status != CRIA_OK) return;
    cria_sample_args one = *args;
    one.logits = logits;
    one.rows = 1;
    one.vocab = one.stride = e->program->vocab_all;
    one.first = 0;
    one.row += row;
    one.result += row;
    one.top_ids += row * args->top_stride;
    one.top_logprobs += row * args->top_stride;
    e->kernels->sample(&one, worker);
    cria_worker_barrier(worker);
}

static void choose_rows(const cria_step *s, const cria_instruction *ins, const cria_sample_args *args,
                        const split_memory *m, int64_t bytes, cria_worker *worker) {
    int ranks = s->executor->program->group_size[ins->group], rank = s->executor->program->group_rank[ins->group];
    int64_t begin, end;
    while (cria_worker_take(worker, args->rows, 1, &begin, &end)) {
        const void *parts[MOST_GROUP];
        int64_t before = parts_before(args, begin);
        for (int r = 0; r < ranks; r++) parts[r] = m->parts + r * bytes + before;
        m->whole[begin] =
            !cria_split_choose(args, begin, s->executor->program->vocab_all, parts, ranks, &m->reported[begin]);
        m->counts[rank * args->rows + begin] = cria_split_count_above(args, begin, m->reported[begin]);
    }
    cria_worker_barrier(worker);
}

static void sample(const cria_step *s, const cria_instruction *ins, cria_worker *worker) {
    cria_sample_args args = sample_args(s, ins);
    split_memory m;
    int ranks = s->executor->program->group_size[ins->group], rank = s->executor->program->group_rank[ins->group];
    split_layout(s->executor, ranks, &m);
    int64_t bytes = parts_before(&args, args.rows), begin, end;
    uint8_t *mine = m.parts + rank * bytes;
    while (cria_worker_take(worker, args.rows, 1, &begin, &end))
        cria_split_reduce(&args, begin, worker->index, mine + parts_before(&args, begin));
    cria_worker_barrier(worker);
    gather_bytes(s, ins, worker, mine, m.parts, bytes);
    if (s->executor->error.status != CRIA_OK) return;
    choose_rows(s, ins, &args, &m, bytes, worker);
    gather_bytes(s, ins, worker, m.counts + rank * args.rows, m.counts, args.rows * (int64_t)sizeof(int32_t));
    if (s->executor->error.status != CRIA_OK) return;
    for (int64_t row = 0; row < args.rows; row++) {
        if (m.whole[row])
            sample_whole(s, ins, &args, row, m.row, worker);
        else if (worker->index == 0 && !isnan(m.reported[row]))
            for (int r = 0; r < ranks; r++) args.result[row].rank += m.counts[r * args.rows + row];
        if (s->executor->error.status != CRIA_OK) return;
    }
}

/* ---- dispatch ---- */

static cria_status check(const cria_executor *e, const cria_instruction *ins, cria_error *err) {
    const cria_ranks *ranks = e->options.ranks;
    if (ins->what == CRIA_DO_SEND || ins->what == CRIA_DO_RECV) {
        if (ranks && ins->peer >= 0 && ins->peer < cria_comm_size(ranks->world)) return CRIA_OK;
        return cria_fail(err, CRIA_ERR_INTERNAL, "the program talks to rank %d", ins->peer);
    }
    if (ins->what != CRIA_DO_SAMPLE && ins->what < CRIA_DO_ALL_REDUCE) return CRIA_OK;
    cria_comm *comm = ranks ? ranks->group[ins->group] : NULL;
    int size = e->program->group_size[ins->group];
    if (!comm || cria_comm_size(comm) != size || size > MOST_GROUP)
        return cria_fail(err, CRIA_ERR_INTERNAL, "the program talks to %d ranks, not to %d", size,
                         comm ? cria_comm_size(comm) : 0);
    return CRIA_OK;
}

cria_status cria_exchange_create(cria_executor *e, cria_error *err) {
    for (int i = 0; i < e->program->instruction_count; i++) {
        const cria_instruction *ins = &e->program->instructions[i];
        if (ins->what == CRIA_DO_KERNEL) continue;
        CRIA_TRY(check(e, ins, err));
        if (ins->what == CRIA_DO_SAMPLE && !e->split.data)
            CRIA_TRY(cria_memory_map(&e->split, split_layout(e, e->program->group_size[ins->group], NULL),
                                     "split sampling", err));
    }
    return CRIA_OK;
}

void cria_exchange(const cria_step *s, const cria_instruction *ins, cria_worker *worker) {
    int64_t tokens = tokens_of(s, ins);
    switch (ins->what) {
    case CRIA_DO_MOVE:
        move(s, ins, tokens, worker);
        break;
    case CRIA_DO_ZERO:
        zero(s, ins, tokens, worker);
        break;
    case CRIA_DO_ADD:
    case CRIA_DO_MUL:
        pair(s, ins, tokens, worker);
        break;
    case CRIA_DO_STATS:
        moments(s, ins, tokens, worker);
        break;
    case CRIA_DO_NORM:
        norm(s, ins, tokens, worker);
        break;
    case CRIA_DO_SAMPLE:
        sample(s, ins, worker);
        break;
    default:
        if (worker->index == 0) communicate(s, ins, tokens, &s->executor->error);
        break;
    }
}
