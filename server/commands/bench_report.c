/* Tables and JSON of `cria bench`: every speed beside the share of what calibration gave. */
#include "server/commands/bench.h"

#include <math.h>
#include <string.h>

static double share(double value, double limit) {
    return limit > 0 ? value / limit : 0;
}

/* Of the time that was achieved. */
static double error_of(const cria_bench_phase *p) {
    return p->predicted / p->seconds - 1;
}

static double per_step(double value, const cria_stage_figures *f) {
    return f->steps ? value / (double)f->steps : 0;
}

static void json_stages(const cria_bench_case *c, const cria_bench_phase *p, cria_text *out) {
    if (c->ranks < 2) return;
    for (int i = 0; i < p->stages; i++) {
        const cria_stage_figures *f = &p->stage[i];
        cria_text_printf(out,
                         "%s{\"ranks\":%d,\"steps\":%llu,\"busy_seconds_per_step\":%.6f,"
                         "\"transfer_seconds_per_step\":%.6f,\"busy_share\":%.4f,\"sent_bytes_per_step\":%.1f}",
                         i ? "," : ",\"stage_figures\":[", f->ranks, (unsigned long long)f->steps,
                         per_step(f->busy_seconds, f), per_step(f->transfer_seconds, f),
                         share(f->busy_seconds, f->active_seconds), per_step((double)f->sent, f));
    }
    cria_text_puts(out, p->stages ? "]" : "");
}

static void json_phase(const char *name, const cria_bench_case *c, const cria_bench_phase *p, cria_text *out) {
    double gbps = p->bytes / p->seconds / 1e9, gflops = p->operations / p->seconds / 1e9;
    cria_text_printf(out,
                     "\"%s\":{\"seconds\":%.6f,\"tokens_per_second\":%.3f,\"bytes_per_token\":%.0f,"
                     "\"operations_per_token\":%.0f,\"gbps\":%.3f,\"gflops\":%.3f,\"read_share\":%.4f,"
                     "\"peak_share\":%.4f",
                     name, p->seconds, p->tokens / p->seconds, p->bytes / p->tokens, p->operations / p->tokens, gbps,
                     gflops, share(gbps, c->rates.read_gbps), share(gflops, c->peak_gflops));
    cria_text_printf(out, ",\"steps\":%.0f,\"step_seconds\":%.9f", p->steps, p->seconds / p->steps);
    if (p->predicted > 0)
        cria_text_printf(out, ",\"predicted_step_seconds\":%.9f,\"predicted_error\":%.4f", p->predicted / p->steps,
                         error_of(p));
    bool first = true;
    for (int k = 0; k < CRIA_KERNEL_COUNT; k++) {
        const cria_bench_operator *o = &p->operators[k];
        if (o->seconds <= 0) continue;
        cria_text_printf(out, "%s\"%s\":{\"seconds\":%.6f,\"gbps\":%.3f,\"gflops\":%.3f",
                         first ? ",\"operators\":{" : ",", cria_kernel_name((cria_kernel_id)k), o->seconds,
                         o->bytes / o->seconds / 1e9, o->operations / o->seconds / 1e9);
        if (o->predicted > 0) cria_text_printf(out, ",\"predicted_seconds\":%.6f", o->predicted);
        cria_text_puts(out, "}");
        first = false;
    }
    cria_text_puts(out, first ? "" : "}");
    json_stages(c, p, out);
    cria_text_puts(out, "}");
}

/* The two figures that compare engines, without looking into the phases. */
static void json_summary(const cria_bench_case *c, cria_text *out) {
    const cria_bench_phase *prefill = &c->prefill, *decode = &c->decode;
    cria_text_printf(out,
                     "\"prefill_tokens_per_second\":%.3f,\"decode_tokens_per_second\":%.3f,\"prefill_gflops\":%.3f,"
                     "\"decode_gbps\":%.3f,",
                     prefill->tokens / prefill->seconds, decode->tokens / decode->seconds,
                     prefill->operations / prefill->seconds / 1e9, decode->bytes / decode->seconds / 1e9);
}

static void json_rates(const cria_rates *r, cria_text *out) {
    cria_text_printf(out, "\"read_gbps\":%.3f,\"f32_gflops\":%.3f,\"bf16_gflops\":%.3f,\"i8_gops\":%.3f", r->read_gbps,
                     r->f32_gflops, r->bf16_gflops, r->i8_gops);
}

static void json_memory(const cria_bench_case *c, cria_text *out) {
    cria_text_printf(out, ",\"memory\":{\"weights\":%.0f,\"kv\":%.0f,\"workspace\":%.0f}", c->held.weights, c->held.kv,
                     c->held.workspace);
    if (c->predicted.weights > 0)
        cria_text_printf(out, ",\"predicted_memory\":{\"weights\":%.0f,\"kv\":%.0f,\"workspace\":%.0f}",
                         c->predicted.weights, c->predicted.kv, c->predicted.workspace);
}

static void print_json(const cria_command *command, const cria_bench_case *cases, size_t count, cria_text *out) {
    cria_text_puts(out, "{\"model\":");
    cria_text_json_string(out, command->model, strlen(command->model));
    cria_text_puts(out, ",\"results\":[");
    for (size_t i = 0; i < count; i++) {
        const cria_bench_case *c = &cases[i];
        cria_text_printf(
            out,
            "%s{\"ranks\":%d,\"stages\":%d,\"replicas\":%d,\"threads\":%lld,\"batch\":%lld,\"prompt_tokens\":%lld,"
            "\"new_tokens\":%lld,",
            i ? "," : "", c->ranks, c->stages, c->replicas, (long long)c->threads, (long long)c->batch,
            (long long)c->prompt, (long long)c->generated);
        json_summary(c, out);
        json_phase("prefill", c, &c->prefill, out);
        cria_text_puts(out, ",");
        json_phase("decode", c, &c->decode, out);
        json_memory(c, out);
        cria_text_puts(out, ",\"limits\":{");
        json_rates(&c->rates, out);
        cria_text_printf(out, ",\"peak_gflops\":%.3f}}", c->peak_gflops);
    }
    cria_text_puts(out, "]}\n");
}

static void table_row(const char *name, const cria_bench_case *c, const cria_bench_phase *p, cria_text *out) {
    double gbps = p->bytes / p->seconds / 1e9, gflops = p->operations / p->seconds / 1e9;
    cria_text_printf(out, "%7lld %5lld  %-8s %9.1f %9.2f %9.1f %7.2f %5.0f%% %9.1f %5.0f%%\n", (long long)c->threads,
                     (long long)c->batch, name, p->tokens / p->seconds, p->bytes / p->tokens / 1e6,
                     p->operations / p->tokens / 1e6, gbps, 100 * share(gbps, c->rates.read_gbps), gflops,
                     100 * share(gflops, c->peak_gflops));
}

static void profile_rows(const cria_bench_case *c, const cria_bench_phase *p, cria_text *out) {
    double total = 0;
    for (int k = 0; k < CRIA_KERNEL_COUNT; k++) total += p->operators[k].seconds;
    for (int k = 0; k < CRIA_KERNEL_COUNT; k++) {
        const cria_bench_operator *o = &p->operators[k];
        if (o->seconds <= 0) continue;
        cria_text_printf(out, "%15s%-10s %5.1f%%", "", cria_kernel_name((cria_kernel_id)k), 100 * o->seconds / total);
        if (o->bytes > 0 || o->operations > 0) {
            double gbps = o->bytes / o->seconds / 1e9, gflops = o->operations / o->seconds / 1e9;
            cria_text_printf(out, " %28.2f %5.0f%% %9.1f %5.0f%%", gbps, 100 * share(gbps, c->rates.read_gbps), gflops,
                             100 * share(gflops, c->peak_gflops));
        } else if (o->predicted > 0) {
            cria_text_printf(out, "%52s", "");
        }
        if (o->predicted > 0)
            cria_text_printf(out, "  %.3f ms a step, predicted %.3f", 1e3 * o->seconds / p->steps,
                             1e3 * o->predicted / p->steps);
        cria_text_puts(out, "\n");
    }
}

static void stage_rows(const cria_bench_case *c, const cria_bench_phase *p, cria_text *out) {
    for (int i = 0; c->ranks > 1 && i < p->stages; i++) {
        const cria_stage_figures *f = &p->stage[i];
        cria_text_printf(out,
                         "%15sstage %d: %d rank%s, %.3f ms a step, %.3f ms transfer, busy %.0f%%, %.0f bytes sent\n",
                         "", i, f->ranks, f->ranks > 1 ? "s" : "", 1e3 * per_step(f->busy_seconds, f),
                         1e3 * per_step(f->transfer_seconds, f), 100 * share(f->busy_seconds, f->active_seconds),
                         per_step((double)f->sent, f));
    }
}

static void rank_row(const cria_bench_case *c, cria_text *out) {
    if (c->ranks > 1)
        cria_text_printf(out, "%15s%d ranks: %d replica%s of %d stage%s\n", "", c->ranks, c->replicas,
                         c->replicas > 1 ? "s" : "", c->stages, c->stages > 1 ? "s" : "");
}

static void predicted_row(const cria_bench_case *c, const char *name, const cria_bench_phase *p, double *errors,
                          int *phases, cria_text *out) {
    if (p->predicted <= 0) return;
    cria_text_printf(out, "%5d %6d %7lld %5lld  %-8s %12.3f %12.3f %+7.1f%%\n", c->ranks, c->stages,
                     (long long)c->threads, (long long)c->batch, name, 1e3 * p->predicted / p->steps,
                     1e3 * p->seconds / p->steps, 100 * error_of(p));
    *errors += fabs(error_of(p));
    (*phases)++;
}

/* Step times and memory under the planner's model beside what was measured. */
static void print_predicted(const cria_bench_case *cases, size_t count, cria_text *out) {
    double errors = 0;
    int phases = 0;
    if (!count || cases[0].predicted.weights <= 0) return;
    cria_text_puts(out, "\nranks stages threads batch  step      predicted ms  achieved ms    error\n");
    for (size_t i = 0; i < count; i++) {
        predicted_row(&cases[i], "prefill", &cases[i].prefill, &errors, &phases, out);
        predicted_row(&cases[i], "decode", &cases[i].decode, &errors, &phases, out);
    }
    if (phases) cria_text_printf(out, "mean error %.1f%%\n", 100 * errors / phases);
    const cria_bench_case *last = &cases[count - 1];
    cria_text_printf(out,
                     "memory     predicted MB  achieved MB\n  weights  %12.1f %12.1f\n  KV cache %12.1f %12.1f\n"
                     "  values   %12.1f %12.1f\n",
                     last->predicted.weights / 1e6, last->held.weights / 1e6, last->predicted.kv / 1e6,
                     last->held.kv / 1e6, last->predicted.workspace / 1e6, last->held.workspace / 1e6);
}

void cria_bench_print(const cria_command *command, const cria_bench_case *cases, size_t count, cria_text *out) {
    if (command->options->json) {
        print_json(command, cases, count, out);
        return;
    }
    cria_text_puts(out, "threads batch  phase        tok/s  MB/token  MFLOP/tok   GB/s  share   GFLOP/s  share\n");
    for (size_t i = 0; i < count; i++) {
        rank_row(&cases[i], out);
        table_row("prefill", &cases[i], &cases[i].prefill, out);
        stage_rows(&cases[i], &cases[i].prefill, out);
        profile_rows(&cases[i], &cases[i].prefill, out);
        table_row("decode", &cases[i], &cases[i].decode, out);
        stage_rows(&cases[i], &cases[i].decode, out);
        profile_rows(&cases[i], &cases[i].decode, out);
        cria_text_printf(out, "%15slimits: read %.2f GB/s, multiply %.1f GFLOP/s\n", "", cases[i].rates.read_gbps,
                         cases[i].peak_gflops);
    }
    print_predicted(cases, count, out);
}

void cria_bench_print_rates(bool json, const int64_t *threads, const cria_rates *rates, size_t count, cria_text *out) {
    cria_text_puts(out, json ? "{\"calibration\":[" : "threads   read GB/s  f32 GFLOP/s  bf16 GFLOP/s  int8 GOP/s\n");
    for (size_t i = 0; i < count; i++) {
        const cria_rates *r = &rates[i];
        if (json) {
            cria_text_printf(out, "%s{\"threads\":%lld,", i ? "," : "", (long long)threads[i]);
            json_rates(r, out);
            cria_text_puts(out, "}");
        } else {
            cria_text_printf(out, "%7lld %11.2f %12.1f %13.1f %11.1f\n", (long long)threads[i], r->read_gbps,
                             r->f32_gflops, r->bf16_gflops, r->i8_gops);
        }
    }
    if (json) cria_text_puts(out, "]}\n");
}
