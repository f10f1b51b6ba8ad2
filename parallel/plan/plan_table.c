/* The plan's table: stages with meshes, layers, memory and where the time goes; then the other plans, and why. */
#include "parallel/plan/plan_table.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Seconds with three digits in a unit that suits them. */
static const char *seconds(double value, char text[16]) {
    if (value == 0)
        snprintf(text, 16, "0");
    else if (value < 1e-3)
        snprintf(text, 16, "%.3gus", value * 1e6);
    else if (value < 1)
        snprintf(text, 16, "%.3gms", value * 1e3);
    else
        snprintf(text, 16, "%.4gs", value);
    return text;
}

static int layer_of(const cria_graph *graph, int op) {
    return cria_graph_op(graph, op)->layer;
}

/* "embed + 0-11", "12-23 + head", "0-23". */
static void print_layers(const cria_graph *graph, const cria_stage *stage, char text[40]) {
    int first = layer_of(graph, stage->first_op), last = layer_of(graph, stage->end_op - 1),
        layers = cria_graph_layers(graph);
    bool embed = first < 0, head = last >= layers;
    int from = embed ? 0 : first, to = head ? layers - 1 : last;
    if (from >= layers)
        snprintf(text, 40, "head");
    else if (to < 0)
        snprintf(text, 40, "embed");
    else
        snprintf(text, 40, "%s%d-%d%s", embed ? "embed + " : "", from, to, head ? " + head" : "");
}

/* "0-7", or the first and last of a list with gaps. */
static void print_devices(const cria_plan_notes *notes, const cria_stage *stage, char text[32]) {
    int count = stage->mesh.size[0] * stage->mesh.size[1];
    const int *device = notes->device + stage->first_rank;
    if (count == 1)
        snprintf(text, 32, "%d", device[0]);
    else
        snprintf(text, 32, "%d-%d", device[0], device[count - 1]);
}

/* The cuts that most of the stage's products use: "batch x tensor". */
static void print_cut(const cria_stages_result *r, int s, char text[64]) {
    const cria_stage *stage = cria_plan_stage(r->plan, s);
    const char *word[CRIA_MESH_AXES] = {"", ""};
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        double best = 0;
        for (int pass = 0; pass < 3; pass++) {
            double flops = 0;
            for (int i = stage->first_op; i < stage->end_op; i++) {
                const cria_op *op = cria_graph_op(r->graph, i);
                cria_op_index index[CRIA_MAX_INDICES];
                cria_op_indices(r->graph, op, index);
                int cut = cria_plan_strategy(r->plan, i)->index[axis];
                int kind = cut < 0 ? 2 : cria_graph_is_batch(r->graph, index[cut].dim.name) ? 0 : 1;
                if (kind == pass) flops += cria_op_flops(r->graph, op, 1, 1);
            }
            static const char *const words[3] = {"data", "tensor", "whole"};
            if (flops > best) {
                best = flops;
                word[axis] = words[pass];
            }
        }
        if (stage->mesh.size[axis] < 2) word[axis] = "";
    }
    if (word[0][0] && word[1][0])
        snprintf(text, 64, "%s x %s", word[0], word[1]);
    else
        snprintf(text, 64, "%s", word[0][0] ? word[0] : word[1][0] ? word[1] : "-");
}

/* Words of a text in lines of at most 80 columns, the first of which has `used` columns already; the others begin
 * behind `indent`. */
static void print_wrapped(const char *text, int used, int indent, cria_text *out) {
    enum { COLUMNS = 80 };
    bool begun = false;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (begun && used + 1 + length > COLUMNS) {
            cria_text_printf(out, "\n%*s", indent, "");
            used = indent;
        } else if (begun) {
            cria_text_puts(out, " ");
            used++;
        }
        cria_text_append(out, text, (size_t)length);
        used += length;
        begun = true;
        text += length;
        while (*text == ' ') text++;
    }
    cria_text_puts(out, "\n");
}

/* Where stages are, then where their time goes: each fits into 80 columns. */
static void print_stages(const cria_stages_result *r, cria_text *out) {
    const cria_plan_notes *n = &r->notes;
    bool train = n->objective == CRIA_OBJECTIVE_TRAIN;
    cria_text_puts(out, "stage  layers             devices   mesh   cut            memory / limit GB\n");
    for (int s = 0; s < cria_plan_stages(r->plan); s++) {
        const cria_stage *stage = cria_plan_stage(r->plan, s);
        const cria_plan_stage_notes *p = &n->stage[s];
        char layers[40], devices[32], cut[64], mesh[24];
        print_layers(r->graph, stage, layers);
        print_devices(n, stage, devices);
        print_cut(r, s, cut);
        snprintf(mesh, sizeof mesh, "%dx%d", stage->mesh.size[0], stage->mesh.size[1]);
        cria_text_printf(out, "%5d  %-17s  %-8s  %-5s  %-13s  %6.2f / %.2f\n", s, layers, devices, mesh, cut,
                         (double)p->memory / 1e9, (double)p->memory_limit / 1e9);
    }
    cria_text_printf(out, "\nstage  %9s %9s %9s %9s%s %9s\n", "compute", "collect.", "reshard.", "transfer",
                     train ? "    update" : "", "waiting");
    for (int s = 0; s < cria_plan_stages(r->plan); s++) {
        const cria_plan_stage_notes *p = &n->stage[s];
        char time[6][16];
        cria_text_printf(out, "%5d  %9s %9s %9s %9s", s, seconds(p->compute, time[0]), seconds(p->collectives, time[1]),
                         seconds(p->resharding, time[2]), seconds(p->transfer, time[3]));
        if (train) cria_text_printf(out, " %9s", seconds(p->update, time[4]));
        cria_text_printf(out, " %9s%s%s\n", seconds(p->bubble, time[5]), p->recompute ? "  recompute" : "",
                         p->zero == 3   ? "  ZeRO-3"
                         : p->zero == 1 ? "  ZeRO-1"
                                        : "");
    }
}

static void print_summary(const cria_stages_result *r, cria_text *out) {
    const cria_plan_notes *n = &r->notes;
    char time[3][16];
    if (n->objective == CRIA_OBJECTIVE_TRAIN) {
        cria_text_printf(out,
                         "\nschedule    %s, %d micro-batches of %lld sequences (%lld tokens)\nupdate      %s: %.0f "
                         "tokens/s, %.1f TFLOP/s a device\n",
                         cria_schedule_name(n->schedule), n->micro_batches, (long long)r->chosen.micro_batch,
                         (long long)n->tokens, seconds(n->step_seconds, time[0]), n->tokens_per_second,
                         r->chosen.flops / 1e12);
        return;
    }
    cria_text_printf(out, "\nrequests    %d micro-batch%s of %lld, %d cop%s of the plan\n", n->micro_batches,
                     n->micro_batches > 1 ? "es" : "", (long long)r->chosen.micro_batch, n->replicas,
                     n->replicas > 1 ? "ies" : "y");
    cria_text_printf(out, "latency     first token %s, whole answer %s\nthroughput  %.1f tokens/s\n",
                     seconds(n->first_token, time[0]), seconds(n->latency, time[1]), n->tokens_per_second);
    if (r->request_rate > 0)
        cria_text_printf(out,
                         "load        %g requests/s, %.0f%% of the %.4g/s that it could serve\n"
                         "queue       %.3g of %lld at once run, %.2g%% wait; a request waits %s on average\n",
                         r->request_rate, 100 * r->request_rate / r->capacity, r->capacity, r->queue.running,
                         (long long)r->queue.slots, 100 * r->queue.delayed, seconds(r->queue.wait, time[2]));
    if (r->request_rate > 0.9 * r->capacity)
        cria_text_puts(out, "            warning: near its capacity, waits grow fast with the rate\n");
    int64_t blocks = INT64_MAX;
    for (int s = 0; s < n->stages; s++)
        if (n->stage[s].kv_blocks > 0 && n->stage[s].kv_blocks < blocks) blocks = n->stage[s].kv_blocks;
    if (blocks < INT64_MAX)
        cria_text_printf(out, "KV cache    %" PRId64 " blocks of %" PRId64 " tokens\n", blocks, n->block_tokens);
}

static void print_other(const cria_plan_summary *s, const cria_plan_summary *chosen, cria_text *out) {
    char time[16], batches[32] = "-";
    cria_text_printf(out, "  %-14s  ", s->name);
    if (!s->feasible) {
        cria_text_puts(out, "-  ");
        print_wrapped(s->why, 21, 21, out);
        return;
    }
    if (s->micro_batches > 1 || s->replicas > 1)
        snprintf(batches, sizeof batches, "%d of %lld", s->micro_batches, (long long)s->micro_batch);
    cria_text_printf(out, "%-8s %6.2fx  %6d %7d  %-13s  %8.4g", seconds(s->seconds, time), s->seconds / chosen->seconds,
                     s->stages, s->devices, batches, s->tokens_per_second);
    if (s->replicas > 1) cria_text_printf(out, " %d copies", s->replicas);
    cria_text_puts(out, "\n");
    if (!s->why[0]) return;
    cria_text_printf(out, "%*s", 18, "");
    print_wrapped(s->why, 18, 18, out);
}

void cria_plan_table(const cria_stages_result *r, const cria_cluster *cluster, cria_text *out) {
    cria_text_printf(out, "%s on %s (%d devices), best for %s; planned in %.2f s\n\n", cria_graph_name(r->graph),
                     cria_cluster_name(cluster), cria_cluster_devices(cluster), cria_objective_name(r->notes.objective),
                     r->seconds);
    print_stages(r, out);
    print_summary(r, out);
    cria_text_printf(out, "\n  %-14s  %-8s %7s  %6s %7s  %-13s  %8s\n", "plans compared", "time", "", "stages",
                     "devices", "micro-batches", "tokens/s");
    print_other(&r->chosen, &r->chosen, out);
    for (int i = 0; i < r->others; i++) print_other(&r->other[i], &r->chosen, out);
    cria_text_puts(out, "\nwhy: ");
    print_wrapped(r->why, 5, 5, out);
}

static void json_number(cria_text *out, const char *key, double value) {
    cria_text_printf(out, ", \"%s\": ", key);
    cria_text_json_number(out, value);
}

static void json_summary(const cria_plan_summary *s, cria_text *out) {
    cria_text_puts(out, "{\"name\": ");
    cria_text_json_string(out, s->name, strlen(s->name));
    cria_text_printf(out, ", \"feasible\": %s", s->feasible ? "true" : "false");
    if (s->why[0]) {
        cria_text_puts(out, ", \"why\": ");
        cria_text_json_string(out, s->why, strlen(s->why));
    }
    if (s->feasible) {
        json_number(out, "seconds", s->seconds);
        json_number(out, "tokens_per_second", s->tokens_per_second);
        json_number(out, "first_token", s->first_token);
        json_number(out, "latency", s->latency);
        json_number(out, "flops_per_device", s->flops);
    }
    cria_text_printf(
        out,
        ", \"stages\": %d, \"devices\": %d, \"replicas\": %d, \"micro_batches\": %d, \"micro_batch\": %" PRId64 "}",
        s->stages, s->devices, s->replicas, s->micro_batches, s->micro_batch);
}

static void json_stage(const cria_stages_result *r, int s, cria_text *out) {
    const cria_stage *stage = cria_plan_stage(r->plan, s);
    const cria_plan_stage_notes *p = &r->notes.stage[s];
    char layers[40], cut[64];
    print_layers(r->graph, stage, layers);
    print_cut(r, s, cut);
    cria_text_printf(
        out, "{\"layers\": \"%s\", \"operators\": [%d, %d], \"mesh\": [%d, %d], \"cut\": \"%s\", \"devices\": [",
        layers, stage->first_op, stage->end_op, stage->mesh.size[0], stage->mesh.size[1], cut);
    for (int i = 0; i < stage->mesh.size[0] * stage->mesh.size[1]; i++)
        cria_text_printf(out, "%s%d", i ? ", " : "", r->notes.device[stage->first_rank + i]);
    cria_text_printf(out,
                     "], \"memory\": %" PRId64 ", \"memory_limit\": %" PRId64 ", \"kv_blocks\": %" PRId64
                     ", \"recompute\": %s, \"zero\": %d",
                     p->memory, p->memory_limit, p->kv_blocks, p->recompute ? "true" : "false", p->zero);
    json_number(out, "compute", p->compute);
    json_number(out, "collectives", p->collectives);
    json_number(out, "resharding", p->resharding);
    json_number(out, "transfer", p->transfer);
    json_number(out, "update", p->update);
    json_number(out, "bubble", p->bubble);
    cria_text_puts(out, "}");
}

void cria_plan_table_json(const cria_stages_result *r, cria_text *out) {
    const char *name = cria_graph_name(r->graph);
    cria_text_puts(out, "{\"model\": ");
    cria_text_json_string(out, name, strlen(name));
    cria_text_printf(out, ", \"objective\": \"%s\", \"schedule\": \"%s\"", cria_objective_name(r->notes.objective),
                     cria_schedule_name(r->notes.schedule));
    json_number(out, "planning_seconds", r->seconds);
    if (r->request_rate > 0) {
        json_number(out, "request_rate", r->request_rate);
        json_number(out, "capacity", r->capacity);
        json_number(out, "running", r->queue.running);
        json_number(out, "delayed", r->queue.delayed);
        json_number(out, "wait", r->queue.wait);
    }
    cria_text_puts(out, ", \"why\": ");
    cria_text_json_string(out, r->why, strlen(r->why));
    cria_text_puts(out, ", \"chosen\": ");
    json_summary(&r->chosen, out);
    cria_text_puts(out, ", \"stages\": [");
    for (int s = 0; s < cria_plan_stages(r->plan); s++) {
        cria_text_puts(out, s ? ", " : "");
        json_stage(r, s, out);
    }
    cria_text_puts(out, "], \"others\": [");
    for (int i = 0; i < r->others; i++) {
        cria_text_puts(out, i ? ", " : "");
        json_summary(&r->other[i], out);
    }
    cria_text_puts(out, "]}\n");
}
