/* Histograms and the Prometheus text format. */
#include "server/metrics/metrics.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BUCKETS = 32 };

/* Bucket bounds are vLLM's, so that quantiles computed from them agree. */
static const double first_token_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                                            1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
static const double token_bounds[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
                                      0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
static const double request_bounds[] = {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
                                        30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
static const double count_bounds[] = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                                      1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
static const double n_bounds[] = {1, 2, 5, 10, 20};

typedef enum {
    FIRST_TOKEN,
    INTER_TOKEN,
    OUTPUT_TOKEN,
    END_TO_END,
    QUEUE,
    INFERENCE,
    PREFILL,
    DECODE,
    PROMPT_TOKENS,
    GENERATION_TOKENS,
    PARAMS_MAX_TOKENS,
    PARAMS_N,
    HISTOGRAMS
} histogram_id;

#define BOUNDS(array) array, sizeof array / sizeof *array
static const struct {
    const char *name, *help;
    const double *bounds;
    size_t count;
} histograms[HISTOGRAMS] = {
    [FIRST_TOKEN] = {"time_to_first_token_seconds", "Seconds from a request's arrival to its first token",
                     BOUNDS(first_token_bounds)},
    [INTER_TOKEN] = {"inter_token_latency_seconds", "Seconds between tokens of a sequence", BOUNDS(token_bounds)},
    [OUTPUT_TOKEN] = {"request_time_per_output_token_seconds", "Mean seconds per output token after the first",
                      BOUNDS(token_bounds)},
    [END_TO_END] = {"e2e_request_latency_seconds", "Seconds from a request's arrival to its end",
                    BOUNDS(request_bounds)},
    [QUEUE] = {"request_queue_time_seconds", "Seconds spent waiting", BOUNDS(request_bounds)},
    [INFERENCE] = {"request_inference_time_seconds", "Seconds spent running", BOUNDS(request_bounds)},
    [PREFILL] = {"request_prefill_time_seconds", "Seconds spent on the prompt", BOUNDS(request_bounds)},
    [DECODE] = {"request_decode_time_seconds", "Seconds spent on generation", BOUNDS(request_bounds)},
    [PROMPT_TOKENS] = {"request_prompt_tokens", "Prompt tokens of a request", BOUNDS(count_bounds)},
    [GENERATION_TOKENS] = {"request_generation_tokens", "Generated tokens of a request", BOUNDS(count_bounds)},
    [PARAMS_MAX_TOKENS] = {"request_params_max_tokens", "The max_tokens parameter", BOUNDS(count_bounds)},
    [PARAMS_N] = {"request_params_n", "The n parameter", BOUNDS(n_bounds)},
};

static const char *const reasons[] = {"stop", "length", "abort", "error"};
enum { REASONS = 4 };

typedef struct {
    uint64_t buckets[MAX_BUCKETS], count; /* buckets[i]: values <= bounds[i] and > bounds[i - 1] */
    double sum;
} histogram;

struct cria_metrics {
    histogram all[HISTOGRAMS];
    uint64_t finished[REASONS], refused;
};

cria_status cria_metrics_create(cria_metrics **out, cria_error *err) {
    *out = calloc(1, sizeof **out);
    return *out ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "metrics: out of memory");
}

void cria_metrics_destroy(cria_metrics *metrics) {
    free(metrics);
}

static void observe(cria_metrics *metrics, histogram_id id, double value) {
    if (!(value >= 0)) value = 0;
    histogram *h = &metrics->all[id];
    size_t i = 0;
    while (i < histograms[id].count && value > histograms[id].bounds[i]) ++i;
    if (i < histograms[id].count) ++h->buckets[i];
    ++h->count;
    h->sum += value;
}

void cria_metrics_request(cria_metrics *metrics, const cria_generation *generation) {
    observe(metrics, PARAMS_N, (double)generation->params.n);
    if (generation->params.has_max_tokens) observe(metrics, PARAMS_MAX_TOKENS, (double)generation->params.max_tokens);
}

void cria_metrics_token(cria_metrics *metrics, cria_choice *choice, uint64_t start_ns) {
    uint64_t now_ns = cria_clock_ns();
    if (choice->last_ns) {
        observe(metrics, INTER_TOKEN, cria_seconds_between(choice->last_ns, now_ns));
    } else {
        observe(metrics, FIRST_TOKEN, cria_seconds_between(start_ns, now_ns));
    }
    choice->last_ns = now_ns;
}

void cria_metrics_end(cria_metrics *metrics, const cria_choice *choice, const cria_event *event, uint64_t start_ns) {
    uint64_t end_ns = choice->last_ns ? choice->last_ns : cria_clock_ns();
    observe(metrics, END_TO_END, cria_seconds_between(start_ns, end_ns));
    observe(metrics, QUEUE, event->queue_seconds);
    observe(metrics, PREFILL, event->prefill_seconds);
    observe(metrics, DECODE, event->decode_seconds);
    observe(metrics, INFERENCE, event->prefill_seconds + event->decode_seconds);
    observe(metrics, PROMPT_TOKENS, event->prompt_tokens);
    observe(metrics, GENERATION_TOKENS, event->generated_tokens);
    if (event->generated_tokens > 1) {
        observe(metrics, OUTPUT_TOKEN, event->decode_seconds / (event->generated_tokens - 1));
    }
}

void cria_metrics_finish(cria_metrics *metrics, const char *finish_reason) {
    for (int i = 0; i < REASONS; ++i) {
        if (strcmp(reasons[i], finish_reason) == 0) ++metrics->finished[i];
    }
}

void cria_metrics_refuse(cria_metrics *metrics) {
    ++metrics->refused;
}

/* ---- text ---- */

typedef struct {
    cria_text *out;
    const char *prefix; /* of names: whose they are */
    char labels[640];   /* engine="0",model_name="..." */
} page;

static page open_page(const char *prefix, const char *model_name, cria_text *out) {
    page p = {.out = out, .prefix = prefix};
    char escaped[512];
    size_t n = 0;
    for (const char *c = model_name; *c && n + 2 < sizeof escaped; ++c) {
        if (*c == '"' || *c == '\\') escaped[n++] = '\\';
        escaped[n++] = *c == '\n' ? ' ' : *c;
    }
    escaped[n] = 0;
    snprintf(p.labels, sizeof p.labels, "engine=\"0\",model_name=\"%s\"", escaped);
    return p;
}

static void head(page *p, const char *name, const char *type, const char *help) {
    cria_text_printf(p->out, "# HELP %s:%s %s.\n# TYPE %s:%s %s\n", p->prefix, name, help, p->prefix, name, type);
}

static void line(page *p, const char *name, const char *more, double value) {
    cria_text_printf(p->out, "%s:%s{%s%s} ", p->prefix, name, p->labels, more);
    if (value == floor(value) && fabs(value) < 1e15) {
        cria_text_printf(p->out, "%.1f\n", value);
    } else {
        cria_text_printf(p->out, "%.9g\n", value);
    }
}

static void single(page *p, const char *name, const char *type, const char *help, double value) {
    head(p, name, type, help);
    line(p, name, "", value);
}

static void put_histogram(page *p, const char *name, const char *help, const double *bounds, const uint64_t *buckets,
                          size_t count, uint64_t total, double sum) {
    char full[128], more[64];
    head(p, name, "histogram", help);
    uint64_t below = 0;
    snprintf(full, sizeof full, "%s_bucket", name);
    for (size_t i = 0; i < count; ++i) {
        below += buckets[i];
        bool whole = bounds[i] == floor(bounds[i]);
        snprintf(more, sizeof more, whole ? ",le=\"%.1f\"" : ",le=\"%g\"", bounds[i]);
        line(p, full, more, (double)below);
    }
    line(p, full, ",le=\"+Inf\"", (double)total);
    snprintf(full, sizeof full, "%s_count", name);
    line(p, full, "", (double)total);
    snprintf(full, sizeof full, "%s_sum", name);
    line(p, full, "", sum);
}

static void put_engine(page *p, const cria_engine_stats *s) {
    single(p, "num_requests_running", "gauge", "Sequences in the running batch", (double)s->running);
    single(p, "num_requests_waiting", "gauge", "Sequences waiting to run", (double)s->waiting);
    double used = s->blocks_total ? (double)(s->blocks_total - s->blocks_free) / (double)s->blocks_total : 0;
    single(p, "kv_cache_usage_perc", "gauge", "Part of the KV cache in use, 1 is all", used);
    single(p, "prompt_tokens_total", "counter", "Prompt tokens processed", (double)s->prompt_tokens);
    single(p, "generation_tokens_total", "counter", "Tokens generated", (double)s->generation_tokens);
    single(p, "num_preemptions_total", "counter", "Sequences put back because blocks ran out", (double)s->preemptions);
    single(p, "prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache",
           (double)s->prefix_queries);
    single(p, "prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache", (double)s->prefix_hits);
    double bounds[15];
    for (int i = 0; i < 15; ++i) bounds[i] = (double)(1 << i);
    uint64_t steps = 0;
    for (int i = 0; i < 16; ++i) steps += s->step_tokens_histogram[i];
    put_histogram(p, "iteration_tokens_total", "Tokens of a step", bounds, s->step_tokens_histogram, 15, steps,
                  (double)s->step_tokens_sum);
}

void cria_metrics_write(const cria_metrics *metrics, const cria_engine_stats *stats, const char *model_name,
                        cria_text *out) {
    page p = open_page("vllm", model_name, out);
    cria_engine_stats none = {0};
    put_engine(&p, stats ? stats : &none);
    head(&p, "request_success_total", "counter", "Sequences ended, by reason");
    for (int i = 0; i < REASONS; ++i) {
        char more[64];
        snprintf(more, sizeof more, ",finished_reason=\"%s\"", reasons[i]);
        line(&p, "request_success_total", more, (double)metrics->finished[i]);
    }
    head(&p, "admission_rejections_total", "counter", "Requests refused because the queue was full");
    line(&p, "admission_rejections_total", ",reason=\"max_num_queued_reqs\"", (double)metrics->refused);
    for (int i = 0; i < HISTOGRAMS; ++i) {
        const histogram *h = &metrics->all[i];
        put_histogram(&p, histograms[i].name, histograms[i].help, histograms[i].bounds, h->buckets, histograms[i].count,
                      h->count, h->sum);
    }
}

/* ---- stages ---- */

typedef double stage_value(const cria_stage_figures *figures, const cria_plan_stage_notes *notes, int64_t bytes);

static double steps_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)n, (void)bytes;
    return (double)f->steps;
}
static double busy_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)n, (void)bytes;
    return f->busy_seconds;
}
static double transfer_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)n, (void)bytes;
    return f->transfer_seconds;
}
static double active_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)n, (void)bytes;
    return f->active_seconds;
}
static double bubble_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)n, (void)bytes;
    double bubble = f->active_seconds > 0 ? 1 - f->busy_seconds / f->active_seconds : 0;
    return bubble > 0 ? bubble : 0;
}
static double sent_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)n, (void)bytes;
    return (double)f->sent;
}
static double bytes_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)f, (void)n;
    return (double)bytes;
}
static double predicted_seconds_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)f, (void)bytes;
    return n->compute + n->collectives + n->resharding;
}
static double predicted_bytes_of(const cria_stage_figures *f, const cria_plan_stage_notes *n, int64_t bytes) {
    (void)f, (void)bytes;
    return (double)n->memory;
}

static const struct {
    const char *name, *type, *help;
    stage_value *value;
    bool needs_bytes, needs_notes;
} stage_series[] = {
    {"stage_steps_total", "counter", "Steps that a stage of the plan has run", steps_of, false, false},
    {"stage_busy_seconds_total", "counter", "Seconds in steps without waiting for other stages", busy_of, false, false},
    {"stage_transfer_seconds_total", "counter", "Seconds of sending to other stages and waiting for them", transfer_of,
     false, false},
    {"stage_active_seconds_total", "counter", "Seconds while any step was under way", active_of, false, false},
    {"stage_bubble_share", "gauge", "Part of the active seconds in which a stage was not busy", bubble_of, false,
     false},
    {"stage_sent_bytes_total", "counter", "Bytes of values sent to other ranks", sent_of, false, false},
    {"stage_memory_bytes", "gauge", "Weights, KV cache and workspace of the fullest rank", bytes_of, true, false},
    {"stage_predicted_step_seconds", "gauge", "What the planner said of a decoding step", predicted_seconds_of, false,
     true},
    {"stage_predicted_memory_bytes", "gauge", "What the planner said of the fullest rank", predicted_bytes_of, false,
     true},
};

void cria_metrics_write_stages(cria_engine *engine, const cria_plan_notes *notes, const int64_t *bytes,
                               const char *model_name, cria_text *out) {
    enum { MOST = 256 };
    static const cria_plan_stage_notes none = {0};
    cria_stage_figures figures[MOST];
    page p = open_page("cria", model_name, out);
    int count = cria_engine_stages(engine, figures, MOST);
    if (notes && !(notes->step_seconds > 0)) notes = NULL; /* a plan that nothing was predicted of */
    if (count > MOST) count = MOST;
    for (size_t i = 0; i < sizeof stage_series / sizeof *stage_series; i++) {
        if ((stage_series[i].needs_bytes && !bytes) || (stage_series[i].needs_notes && !notes)) continue;
        head(&p, stage_series[i].name, stage_series[i].type, stage_series[i].help);
        for (int s = 0; s < count; s++) {
            char more[32];
            const cria_plan_stage_notes *n = notes && s < notes->stages ? &notes->stage[s] : &none;
            snprintf(more, sizeof more, ",stage=\"%d\"", s);
            line(&p, stage_series[i].name, more, stage_series[i].value(&figures[s], n, bytes ? bytes[s] : 0));
        }
    }
    if (notes) single(&p, "predicted_step_seconds", "gauge", "What the planner said of a step", notes->step_seconds);
}
