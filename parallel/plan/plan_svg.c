/* Drawing a plan as SVG: a grid of devices and layers, a legend, and the schedule's time line. */
#include "parallel/plan/plan_svg.h"

#include "parallel/plan/schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 150, TOP = 96, ROW = 16, GRID_WIDTH = 1000, LANE = 24, MOST_SHOWN = 24, RIGHT = 30 };

/* How an operator's work is cut; bits of the axes. */
enum { CUT_NONE = 0, CUT_DATA = 1, CUT_TENSOR = 2, CUT_BOTH = 3, CUTS = 4 };
static const char *const cut_colour[CUTS] = {"#b8bec7", "#4e93d0", "#e0913a", "#6aa84f"};
static const char *const cut_name[CUTS] = {"whole on every device", "data (batch cut)", "tensor (weights cut)",
                                           "data x tensor"};

static void put_text(cria_text *out, double x, double y, const char *style, const char *text) {
    cria_text_printf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
    for (const char *p = text; *p; p++) {
        if (*p == '<')
            cria_text_puts(out, "&lt;");
        else if (*p == '>')
            cria_text_puts(out, "&gt;");
        else if (*p == '&')
            cria_text_puts(out, "&amp;");
        else
            cria_text_append(out, p, 1);
    }
    cria_text_puts(out, "</text>\n");
}

static void put_rect(cria_text *out, double x, double y, double w, double h, const char *colour, const char *title) {
    cria_text_printf(out, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\">", x, y, w, h,
                     colour);
    if (title[0]) cria_text_printf(out, "<title>%s</title>", title);
    cria_text_puts(out, "</rect>\n");
}

/* What cuts most of the work of operators [first, end). */
static int cut_of(const cria_stages_result *r, const cria_stage *stage, int first, int end) {
    double flops[CUTS] = {0};
    for (int i = first; i < end; i++) {
        const cria_op *op = cria_graph_op(r->graph, i);
        cria_op_index index[CRIA_MAX_INDICES];
        cria_op_indices(r->graph, op, index);
        int cut = CUT_NONE;
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
            int which = cria_plan_strategy(r->plan, i)->index[axis];
            if (which >= 0 && stage->mesh.size[axis] > 1)
                cut |= cria_graph_is_batch(r->graph, index[which].dim.name) ? CUT_DATA : CUT_TENSOR;
        }
        flops[cut] += 1 + cria_op_flops(r->graph, op, 1024, 1024);
    }
    int best = 0;
    for (int c = 1; c < CUTS; c++)
        if (flops[c] > flops[best]) best = c;
    return best;
}

static void layer_name(const cria_stages_result *r, int layer, char text[40]) {
    int first = layer ? r->layer_end[layer - 1] : 0;
    int from = cria_graph_op(r->graph, first)->layer, to = cria_graph_op(r->graph, r->layer_end[layer] - 1)->layer;
    if (to < 0)
        snprintf(text, 40, "embedding");
    else if (from >= cria_graph_layers(r->graph))
        snprintf(text, 40, "head");
    else if (from == to)
        snprintf(text, 40, "layer %d", from);
    else
        snprintf(text, 40, "layers %d-%d", from < 0 ? 0 : from, to);
}

/* One row of the grid: the devices of the layer's stage, coloured. */
static void draw_layer(const cria_stages_result *r, int layer, double column, cria_text *out) {
    int first = layer ? r->layer_end[layer - 1] : 0, end = r->layer_end[layer];
    char name[40], title[160];
    layer_name(r, layer, name);
    put_text(out, LEFT - 8, TOP + layer * ROW + 12, "text-anchor=\"end\"", name);
    int s = cria_plan_stage_of_op(r->plan, first);
    const cria_stage *stage = cria_plan_stage(r->plan, s);
    int devices = stage->mesh.size[0] * stage->mesh.size[1], cut = cut_of(r, stage, first, end);
    bool apart = column >= 4; /* narrow columns are drawn as one */
    for (int d = 0; d < (apart ? devices : 1); d++) {
        snprintf(title, sizeof title, "%s, stage %d, device %d: %s", name, s, r->notes.device[stage->first_rank + d],
                 cut_name[cut]);
        put_rect(out, LEFT + (stage->first_rank + d) * column + 0.5, TOP + layer * ROW + 1,
                 (apart ? column : column * devices) - 1, ROW - 2, cut_colour[cut], title);
    }
}

static void draw_grid(const cria_stages_result *r, cria_text *out) {
    int ranks = cria_plan_ranks(r->plan);
    double column = (double)GRID_WIDTH / ranks;
    if (column > 80) column = 80;
    for (int s = 0; s < cria_plan_stages(r->plan); s++) {
        const cria_stage *stage = cria_plan_stage(r->plan, s);
        int devices = stage->mesh.size[0] * stage->mesh.size[1];
        double x = LEFT + stage->first_rank * column, width = devices * column;
        char label[64], range[32];
        put_rect(out, x, TOP, width, r->layers * ROW, s % 2 ? "#f4f5f7" : "#eceef1", "");
        snprintf(label, sizeof label, width > 64 ? "stage %d (%dx%d)" : "%d", s, stage->mesh.size[0],
                 stage->mesh.size[1]);
        if (width > 14 || s % 4 == 0)
            put_text(out, x + width / 2, TOP - 20, "text-anchor=\"middle\" font-weight=\"bold\"", label);
        const int *device = r->notes.device + stage->first_rank;
        if (devices == 1)
            snprintf(range, sizeof range, "%d", device[0]);
        else
            snprintf(range, sizeof range, "%d-%d", device[0], device[devices - 1]);
        if (width > 34 || devices == 1)
            put_text(out, x + width / 2, TOP - 6, "text-anchor=\"middle\" fill=\"#666\"", range);
    }
    put_text(out, LEFT - 8, TOP - 6, "text-anchor=\"end\" fill=\"#666\"", "devices");
    for (int l = 0; l < r->layers; l++) draw_layer(r, l, column, out);
}

static void draw_legend(double y, cria_text *out) {
    double x = LEFT;
    for (int c = 0; c < CUTS; c++) {
        put_rect(out, x, y, 12, 12, cut_colour[c], "");
        put_text(out, x + 17, y + 10, "", cut_name[c]);
        x += 30 + 7 * (double)strlen(cut_name[c]);
    }
}

/* Seconds of one micro-batch of every stage, forward and backward. */
static void find_times(const cria_stages_result *r, double *forward, double *backward) {
    const cria_plan_notes *n = &r->notes;
    for (int s = 0; s < n->stages; s++) {
        const cria_plan_stage_notes *p = &n->stage[s];
        double all = (p->compute + p->collectives + p->resharding + p->transfer) / n->micro_batches;
        bool train = n->objective == CRIA_OBJECTIVE_TRAIN;
        double share = !train ? 1 : p->recompute ? 0.25 : 1.0 / 3;
        forward[s] = all * share;
        backward[s] = all - forward[s];
    }
}

static void draw_slots(const cria_stages_result *r, double y, int shown, int rounds, cria_text *out) {
    int stages = r->notes.stages, count;
    double *forward = calloc((size_t)stages, sizeof *forward), *backward = calloc((size_t)stages, sizeof *backward);
    cria_schedule_slot *slot = NULL;
    if (forward && backward) {
        find_times(r, forward, backward);
        slot = cria_schedule_run(r->notes.schedule, stages, shown, rounds, forward, backward, &count);
    }
    double end = 0;
    for (int i = 0; slot && i < count; i++) end = fmax(end, slot[i].end);
    for (int s = 0; s < stages; s++) {
        char label[24];
        snprintf(label, sizeof label, "stage %d", s);
        put_text(out, LEFT - 8, y + s * LANE + 15, "text-anchor=\"end\"", label);
        put_rect(out, LEFT, y + s * LANE + 2, GRID_WIDTH, LANE - 4, "#eceef1", "waiting");
    }
    double scale = end > 0 ? GRID_WIDTH / end : 0;
    for (int i = 0; slot && i < count; i++) {
        const cria_schedule_slot *t = &slot[i];
        char title[96], number[16];
        double x = LEFT + t->start * scale, width = (t->end - t->start) * scale, top = y + t->stage * LANE + 2;
        snprintf(title, sizeof title, "stage %d, micro-batch %d, %s, %.3g s", t->stage, t->micro_batch,
                 t->backward ? "backward" : "forward", t->end - t->start);
        put_rect(out, x, top, fmax(width - 0.4, 0.2), LANE - 4, t->backward ? "#5aa469" : "#5b8fd6", title);
        snprintf(number, sizeof number, "%d", t->micro_batch);
        if (width > 14) put_text(out, x + width / 2, top + 14, "text-anchor=\"middle\" fill=\"#fff\"", number);
    }
    char label[64];
    snprintf(label, sizeof label, "%.4g s", end);
    put_text(out, LEFT + GRID_WIDTH, y + stages * LANE + 14, "text-anchor=\"end\" fill=\"#666\"", label);
    put_text(out, LEFT, y + stages * LANE + 14, "fill=\"#666\"", "0");
    free(slot);
    free(forward);
    free(backward);
}

void cria_plan_svg(const cria_stages_result *r, const cria_cluster *cluster, cria_text *out) {
    const cria_plan_notes *n = &r->notes;
    int shown = n->micro_batches < MOST_SHOWN ? n->micro_batches : MOST_SHOWN, rounds = 3;
    if (n->stages + 6 < shown) shown = n->stages + 6;
    double legend = TOP + r->layers * ROW + 14, lanes = legend + 56, height = lanes + n->stages * LANE + 30;
    cria_text_printf(out,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" viewBox=\"0 0 %d %.0f\" "
                     "font-family=\"sans-serif\" font-size=\"11\">\n",
                     LEFT + GRID_WIDTH + RIGHT, height, LEFT + GRID_WIDTH + RIGHT, height);
    put_rect(out, 0, 0, LEFT + GRID_WIDTH + RIGHT, height, "#ffffff", "");
    char text[320];
    snprintf(text, sizeof text, "%s on %s, best for %s", cria_graph_name(r->graph), cria_cluster_name(cluster),
             cria_objective_name(n->objective));
    put_text(out, LEFT, 26, "font-size=\"17\" font-weight=\"bold\"", text);
    snprintf(text, sizeof text, "%d stages, %d devices, %d micro-batches: %.4g s a step, %.4g tokens/s", n->stages,
             cria_plan_ranks(r->plan), n->micro_batches, n->step_seconds, n->tokens_per_second);
    put_text(out, LEFT, 46, "font-size=\"12\" fill=\"#444\"", text);
    draw_grid(r, out);
    draw_legend(legend, out);
    if (n->objective == CRIA_OBJECTIVE_TRAIN)
        snprintf(
            text, sizeof text,
            "schedule %s, as it runs with %d of the %d micro-batches: forward blue, backward green, grey is waiting",
            cria_schedule_name(n->schedule), shown, n->micro_batches);
    else
        snprintf(text, sizeof text, "%d steps of %d of the %d micro-batches; grey is waiting", rounds, shown,
                 n->micro_batches);
    put_text(out, LEFT, lanes - 8, "font-size=\"12\" font-weight=\"bold\"", text);
    draw_slots(r, lanes, shown, rounds, out);
    cria_text_puts(out, "</svg>\n");
}
