/* Batches out; results and reports back. */
#include "parallel/execute/group.h"

#include "base/clock.h"
#include "parallel/execute/pack.h"
#include "parallel/execute/stage_thread.h"

#include <stdlib.h>

enum {
    MOST_UNDER_WAY = 16,
    /* Results that a rank may send before rank 0 takes them: messages so short, and so few, never wait for their
     * receiver, whatever carries them. A step with longer results has no other beside it. */
    MOST_MESSAGE_BYTES = 3000,
    MOST_PENDING_BYTES = 30000
};

typedef enum { KIND_STEP = 0x43520001, KIND_STOP } kind;

typedef struct {
    const cria_batch *batch;
    cria_step_report mine; /* what rank 0 did in it */
} flight;

/* One replica, as rank 0 sees it. */
typedef struct {
    cria_group_runner *group;
    int first_rank;            /* of the world */
    bool here;                 /* rank 0 takes part itself */
    cria_stage_thread *thread; /* which runs rank 0's part; NULL: the engine's thread does */
    flight under_way[MOST_UNDER_WAY];
    int first, count;
    cria_stage_counters *counters; /* [stages] */
    atomic_uint_fast64_t active_ns;
    uint64_t active_since;
} replica;

struct cria_group_runner {
    cria_executor *executor;
    const cria_ranks *ranks;
    const cria_plan *plan;
    cria_batch_limits limits;
    int64_t block_tokens;
    int stages, leader; /* leader: the first rank of the last stage, of the plan's ranks */
    bool leads;         /* this rank is one */
    cria_batch *batch;
    cria_batch_result *result;
    uint8_t *packed;
    size_t capacity;
    replica *replicas; /* [replica_count], rank 0 only */
    int replica_count;
};

/* ---- creation ---- */

static cria_status create_replicas(cria_group_runner *g, cria_error *err) {
    g->replicas = calloc((size_t)g->ranks->replicas, sizeof *g->replicas);
    if (!g->replicas) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d replicas", g->ranks->replicas);
    g->replica_count = g->ranks->replicas;
    for (int i = 0; i < g->replica_count; i++) {
        replica *r = &g->replicas[i];
        r->group = g;
        r->first_rank = i * cria_plan_ranks(g->plan);
        r->here = i == 0;
        r->counters = calloc((size_t)g->stages, sizeof *r->counters);
        if (!r->counters) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d stages", g->stages);
        if (r->here && g->replica_count > 1)
            CRIA_TRY(cria_stage_thread_create(g->executor, &g->limits, MOST_UNDER_WAY, &r->thread, err));
    }
    return CRIA_OK;
}

static cria_status create(cria_group_runner *g, cria_error *err) {
    CRIA_TRY(cria_batch_create(&g->limits, &g->batch, err));
    CRIA_TRY(cria_batch_result_create(&g->limits, &g->result, err));
    g->capacity = cria_pack_most_bytes(&g->limits);
    g->packed = malloc(g->capacity);
    if (!g->packed) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for batches of %zu bytes", g->capacity);
    return cria_comm_rank(g->ranks->all) == 0 ? create_replicas(g, err) : CRIA_OK;
}

cria_status cria_group_create(cria_executor *executor, const cria_ranks *ranks, const cria_plan *plan,
                              const cria_batch_limits *limits, int64_t block_tokens, cria_group_runner **out,
                              cria_error *err) {
    *out = NULL;
    cria_group_runner *g = calloc(1, sizeof *g);
    if (!g) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the group of ranks");
    *g = (cria_group_runner){.executor = executor,
                             .ranks = ranks,
                             .plan = plan,
                             .limits = *limits,
                             .block_tokens = block_tokens,
                             .stages = cria_plan_stages(plan)};
    g->leader = cria_plan_stage(plan, g->stages - 1)->first_rank;
    g->leads = cria_comm_rank(ranks->all) % cria_plan_ranks(plan) == g->leader;
    cria_status status = create(g, err);
    if (status != CRIA_OK) {
        cria_group_destroy(g);
        return status;
    }
    *out = g;
    return CRIA_OK;
}

void cria_group_destroy(cria_group_runner *g) {
    if (!g) return;
    for (int i = 0; i < g->replica_count; i++) {
        cria_stage_thread_destroy(g->replicas[i].thread);
        free(g->replicas[i].counters);
    }
    free(g->replicas);
    cria_batch_destroy(g->batch);
    cria_batch_result_destroy(g->result);
    free(g->packed);
    free(g);
}

int cria_group_replicas(const cria_group_runner *g) {
    return g->replica_count;
}

/* ---- rank 0 ---- */

/* The first failure is everybody's: whoever waits for this rank is told why it will not come. */
static cria_status give_up(const cria_group_runner *g, cria_status status, const cria_error *err) {
    if (status != CRIA_OK && status != CRIA_ERR_CLOSED) cria_comm_abort(g->ranks->all, err->message);
    return status;
}

static cria_status hand_out(const replica *r, const cria_batch *batch, cria_error *err) {
    cria_group_runner *g = r->group;
    cria_batch_header h = {.kind = KIND_STEP};
    if (!cria_pack_batch(batch, g->block_tokens, &h, g->packed, g->capacity))
        return cria_fail(err, CRIA_ERR_INTERNAL, "a batch is over its limits");
    for (int i = r->here; i < cria_plan_ranks(g->plan); i++) {
        CRIA_TRY(cria_comm_send(g->ranks->all, r->first_rank + i, &h, sizeof h, err));
        CRIA_TRY(cria_comm_send(g->ranks->all, r->first_rank + i, g->packed, h.bytes, err));
    }
    return CRIA_OK;
}

/* What every rank says of a step, put together by stage. */
static cria_status take_reports(replica *r, const cria_step_report *mine, cria_error *err) {
    const cria_group_runner *g = r->group;
    for (int s = 0; s < g->stages; s++) {
        const cria_stage *stage = cria_plan_stage(g->plan, s);
        cria_step_report busiest = {0};
        uint64_t sent = 0;
        for (int i = 0; i < stage->mesh.size[0] * stage->mesh.size[1]; i++) {
            int rank = stage->first_rank + i;
            cria_step_report report = *mine;
            if (!r->here || rank > 0)
                CRIA_TRY(cria_comm_recv(g->ranks->all, r->first_rank + rank, &report, sizeof report, err));
            if (report.busy_ns >= busiest.busy_ns) busiest = report;
            sent += report.sent;
        }
        cria_stage_count(&r->counters[s], &busiest, sent);
    }
    return CRIA_OK;
}

static bool leader_is_here(const replica *r) {
    return r->here && r->group->leader == 0;
}

static cria_status take_results(const replica *r, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    cria_group_runner *g = r->group;
    int64_t bytes = cria_result_bytes(batch);
    CRIA_TRY(cria_comm_recv(g->ranks->all, r->first_rank + g->leader, g->packed, bytes, err));
    cria_unpack_result(batch, result, g->packed);
    return CRIA_OK;
}

static cria_status take_from_thread(replica *r, flight *f, cria_batch_result *result, cria_error *err) {
    const cria_batch_result *done;
    CRIA_TRY(cria_stage_thread_take(r->thread, &done, &f->mine, err));
    if (!leader_is_here(r)) return CRIA_OK;
    cria_pack_result(f->batch, done, r->group->packed);
    cria_unpack_result(f->batch, result, r->group->packed);
    return CRIA_OK;
}

static void count_active(replica *r, bool more) {
    uint64_t now = cria_clock_ns();
    if (r->active_since) atomic_fetch_add_explicit(&r->active_ns, now - r->active_since, memory_order_relaxed);
    r->active_since = more ? now : 0;
}

static cria_status run_here(replica *r, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    cria_group_runner *g = r->group;
    count_active(r, true);
    CRIA_TRY(hand_out(r, batch, err));
    CRIA_TRY(cria_executor_step(g->executor, batch, result, err));
    cria_step_report mine = cria_executor_report(g->executor);
    if (g->leader != 0) CRIA_TRY(take_results(r, batch, result, err));
    CRIA_TRY(take_reports(r, &mine, err));
    count_active(r, false);
    return CRIA_OK;
}

static cria_status runner_step(void *self, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    replica *r = self;
    return give_up(r->group, run_here(r, batch, result, err), err);
}

static cria_status start(replica *r, const cria_batch *batch, cria_error *err) {
    cria_group_runner *g = r->group;
    if (r->count == MOST_UNDER_WAY) return cria_fail(err, CRIA_ERR_INTERNAL, "too many steps under way");
    flight *f = &r->under_way[(r->first + r->count) % MOST_UNDER_WAY];
    *f = (flight){.batch = batch};
    if (r->count == 0) count_active(r, true);
    CRIA_TRY(hand_out(r, batch, err));
    r->count++;
    if (r->thread) {
        cria_stage_thread_give(r->thread, batch);
    } else if (r->here) {
        CRIA_TRY(cria_executor_step(g->executor, batch, g->result, err));
        f->mine = cria_executor_report(g->executor);
    }
    return CRIA_OK;
}

static cria_status runner_start(void *self, const cria_batch *batch, cria_error *err) {
    replica *r = self;
    return give_up(r->group, start(r, batch, err), err);
}

static bool runner_may_start(void *self, const cria_batch *batch) {
    const replica *r = self;
    int64_t all = cria_result_bytes(batch), longest = all;
    for (int i = 0; i < r->count; i++) {
        int64_t bytes = cria_result_bytes(r->under_way[(r->first + i) % MOST_UNDER_WAY].batch);
        if (bytes > longest) longest = bytes;
        all += bytes;
    }
    return r->count == 0 || (longest <= MOST_MESSAGE_BYTES && all <= MOST_PENDING_BYTES);
}

static bool runner_ready(void *self) {
    const replica *r = self;
    bool there = true;
    cria_error ignored = {0};
    if (r->thread && !cria_stage_thread_done(r->thread)) return false;
    if (leader_is_here(r)) return true;
    return cria_comm_arrived(r->group->ranks->all, r->first_rank + r->group->leader, &there, &ignored) != CRIA_OK ||
           there;
}

static cria_status finish(replica *r, cria_batch_result *result, cria_error *err) {
    if (r->count == 0) return cria_fail(err, CRIA_ERR_INTERNAL, "no step is under way");
    flight *f = &r->under_way[r->first];
    r->first = (r->first + 1) % MOST_UNDER_WAY; /* whatever comes of it */
    r->count--;
    if (r->thread) CRIA_TRY(take_from_thread(r, f, result, err));
    if (!leader_is_here(r)) CRIA_TRY(take_results(r, f->batch, result, err));
    CRIA_TRY(take_reports(r, &f->mine, err));
    count_active(r, r->count > 0);
    return CRIA_OK;
}

static cria_status runner_finish(void *self, cria_batch_result *result, cria_error *err) {
    replica *r = self;
    return give_up(r->group, finish(r, result, err), err);
}

static int runner_stages(void *self, cria_stage_figures *sums, int most) {
    const replica *r = self;
    for (int s = 0; s < r->group->stages && s < most; s++) {
        const cria_stage *stage = cria_plan_stage(r->group->plan, s);
        sums[s].ranks = stage->mesh.size[0] * stage->mesh.size[1];
        sums[s].active_seconds += (double)atomic_load_explicit(&r->active_ns, memory_order_relaxed) * 1e-9;
        cria_stage_add(&r->counters[s], &sums[s]);
    }
    return r->group->stages;
}

cria_runner cria_group_as_runner(cria_group_runner *g, int index) {
    replica *r = &g->replicas[index];
    int depth = g->stages < MOST_UNDER_WAY ? g->stages : MOST_UNDER_WAY;
    if (depth == 1 && r->here && !r->thread)
        return (cria_runner){.self = r, .step = runner_step, .stages = runner_stages};
    return (cria_runner){.self = r,
                         .step = runner_step,
                         .depth = depth,
                         .may_start = runner_may_start,
                         .start = runner_start,
                         .ready = runner_ready,
                         .finish = runner_finish,
                         .stages = runner_stages};
}

cria_status cria_group_stop(cria_group_runner *g, cria_error *err) {
    cria_batch_header h = {.kind = KIND_STOP};
    for (int r = 1; r < cria_comm_size(g->ranks->all); r++)
        CRIA_TRY(cria_comm_send(g->ranks->all, r, &h, sizeof h, err));
    return CRIA_OK;
}

/* ---- the others ---- */

static cria_status take_batch(cria_group_runner *g, const cria_batch_header *h, cria_error *err) {
    if (h->kind != KIND_STEP || !cria_pack_fits(h, &g->limits, g->capacity))
        return cria_fail(err, CRIA_ERR_FORMAT, "rank 0 sent a batch that rank %d has no room for",
                         cria_comm_rank(g->ranks->all));
    CRIA_TRY(cria_comm_recv(g->ranks->all, 0, g->packed, h->bytes, err));
    if (!cria_unpack_batch(g->batch, g->block_tokens, h, g->packed))
        return cria_fail(err, CRIA_ERR_FORMAT, "rank 0 sent a batch that contradicts itself");
    return CRIA_OK;
}

static cria_status follow(cria_group_runner *g, cria_error *err) {
    for (;;) {
        cria_batch_header h;
        CRIA_TRY(cria_comm_await(g->ranks->all, 0, &h, sizeof h, err));
        if (h.kind == KIND_STOP) return CRIA_OK;
        CRIA_TRY(take_batch(g, &h, err));
        CRIA_TRY(cria_executor_step(g->executor, g->batch, g->result, err));
        if (g->leads) {
            cria_pack_result(g->batch, g->result, g->packed);
            CRIA_TRY(cria_comm_send(g->ranks->all, 0, g->packed, cria_result_bytes(g->batch), err));
        }
        cria_step_report report = cria_executor_report(g->executor);
        CRIA_TRY(cria_comm_send(g->ranks->all, 0, &report, sizeof report, err));
    }
}

cria_status cria_group_follow(cria_group_runner *g, cria_error *err) {
    return give_up(g, follow(g, err), err);
}
