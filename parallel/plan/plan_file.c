/* The plan file: writing plans with their notes, and the hash that ties a file to its graph. */
#include "parallel/plan/plan_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *cria_objective_name(cria_objective objective) {
    static const char *const names[] = {"latency", "throughput", "train"};
    return names[objective];
}

const char *cria_schedule_name(cria_schedule schedule) {
    static const char *const names[] = {"inference", "gpipe", "1f1b"};
    return names[schedule];
}

cria_status cria_plan_notes_init(cria_plan_notes *notes, int ranks, int stages, cria_error *err) {
    *notes = (cria_plan_notes){.micro_batches = 1, .replicas = 1, .tokens = 1, .block_tokens = 16};
    notes->device = calloc((size_t)ranks + 1, sizeof *notes->device);
    notes->bytes = calloc((size_t)ranks + 1, sizeof *notes->bytes);
    notes->stage = calloc((size_t)stages + 1, sizeof *notes->stage);
    if (!notes->device || !notes->bytes || !notes->stage) {
        cria_plan_notes_deinit(notes);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the notes of %d ranks", ranks);
    }
    notes->ranks = ranks;
    notes->stages = stages;
    return CRIA_OK;
}

void cria_plan_notes_deinit(cria_plan_notes *notes) {
    free(notes->device);
    free(notes->bytes);
    free(notes->stage);
    *notes = (cria_plan_notes){0};
}

/* FNV-1a over 64-bit words. */
static uint64_t mix(uint64_t hash, uint64_t word) {
    for (int i = 0; i < 8; i++) {
        hash ^= word >> (8 * i) & 0xff;
        hash *= 0x100000001b3u;
    }
    return hash;
}

static uint64_t mix_tensor(uint64_t hash, const cria_tensor *tensor) {
    hash = mix(hash, (uint64_t)tensor->kind << 32 | (uint64_t)tensor->param << 8 | (uint64_t)tensor->dims);
    for (int d = 0; d < tensor->dims; d++)
        hash = mix(mix(hash, (uint64_t)tensor->dim[d].name), (uint64_t)tensor->dim[d].extent);
    return hash;
}

static uint64_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Tensors are numbered in the order in which the range first names them, so that equal layers hash alike wherever they
 * stand. */
uint64_t cria_graph_hash(const cria_graph *graph, int first_op, int end_op) {
    uint64_t hash = 0xcbf29ce484222325u;
    int *number = calloc((size_t)cria_graph_tensors(graph) + 1, sizeof *number), known = 0;
    if (!number) return 0;
    for (int i = first_op; i < end_op; i++) {
        const cria_op *op = cria_graph_op(graph, i);
        hash = mix(hash, (uint64_t)op->kind << 32 | (uint64_t)op->activation << 8 | (uint64_t)op->rms);
        hash = mix(hash, bits_of(op->eps) << 32 | bits_of(op->scale));
        hash = mix(mix(hash, (uint64_t)op->row_offset), (uint64_t)op->kv_heads);
        hash = mix(hash, (uint64_t)op->over << 8 | (uint64_t)op->which << 4 | (uint64_t)op->backward << 1 | op->square);
        hash = mix(mix(mix(hash, (uint64_t)op->window), (uint64_t)op->stride), (uint64_t)op->pad);
        hash = mix(mix(hash, (uint64_t)op->top), bits_of(op->rate));
        hash = mix(hash, bits_of(op->decay) << 32 | bits_of(op->decay2));
        for (int k = 0; k <= CRIA_MAX_INPUTS; k++) {
            int tensor = k < CRIA_MAX_INPUTS ? op->input[k] : op->output;
            bool first = tensor >= 0 && !number[tensor];
            if (first) number[tensor] = ++known;
            hash = mix(hash, tensor < 0 ? UINT64_MAX : (uint64_t)number[tensor]);
            if (first) hash = mix_tensor(hash, cria_graph_tensor(graph, tensor));
        }
    }
    free(number);
    return hash;
}

static void print_number(cria_text *out, const char *key, double value) {
    cria_text_printf(out, ", \"%s\": ", key);
    cria_text_json_number(out, value);
}

static void print_string(cria_text *out, const char *text) {
    cria_text_json_string(out, text, strlen(text));
}

static void print_pair(cria_text *out, const char *key, const double value[CRIA_MESH_AXES]) {
    cria_text_printf(out, ", \"%s\": [", key);
    cria_text_json_number(out, value[0]);
    cria_text_puts(out, ", ");
    cria_text_json_number(out, value[1]);
    cria_text_puts(out, "]");
}

/* [[shares of axis 0] or null, the same of axis 1]; left out where both are equal. */
static void print_shares(cria_text *out, const cria_mesh *mesh) {
    if (!mesh->share[0] && !mesh->share[1]) return;
    cria_text_puts(out, ", \"shares\": [");
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        cria_text_puts(out, axis ? ", " : "");
        if (!mesh->share[axis]) {
            cria_text_puts(out, "null");
            continue;
        }
        for (int i = 0; i < mesh->size[axis]; i++) {
            cria_text_puts(out, i ? ", " : "[");
            cria_text_json_number(out, mesh->share[axis][i]);
        }
        cria_text_puts(out, "]");
    }
    cria_text_puts(out, "]");
}

/* What an axis does, as a word: the name of the index or dim that it cuts, "idle", "partial", "whole". */
static void print_operator(cria_text *out, const cria_graph *graph, const cria_op *op, const cria_strategy *strategy) {
    cria_op_index indices[CRIA_MAX_INDICES];
    cria_op_indices(graph, op, indices);
    const cria_tensor *output = cria_graph_tensor(graph, op->output);
    cria_text_puts(out, "      {\"name\": ");
    print_string(out, output->name);
    cria_text_puts(out, ", \"cut\": [");
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        int cut = strategy->index[axis];
        cria_text_puts(out, axis ? ", " : "");
        print_string(out, cut == CRIA_PARTIAL ? "partial"
                          : cut < 0           ? "idle"
                                              : cria_dim_to_name(graph, indices[cut].dim.name));
    }
    cria_text_puts(out, "], \"output\": [");
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        int dim = strategy->output.dim[axis];
        cria_text_puts(out, axis ? ", " : "");
        print_string(out, dim == CRIA_PARTIAL      ? "partial"
                          : dim == CRIA_REPLICATED ? "whole"
                                                   : cria_dim_to_name(graph, output->dim[dim].name));
    }
    cria_text_puts(out, "]}");
}

static void print_stage_notes(cria_text *out, const cria_plan_stage_notes *n) {
    cria_text_puts(out, "     \"predicted\": {\"compute\": ");
    cria_text_json_number(out, n->compute);
    print_number(out, "collectives", n->collectives);
    print_number(out, "resharding", n->resharding);
    print_number(out, "transfer", n->transfer);
    print_number(out, "bubble", n->bubble);
    print_number(out, "update", n->update);
    cria_text_printf(out,
                     ",\n       \"weights\": %" PRId64 ", \"optimizer\": %" PRId64 ", \"activations\": %" PRId64
                     ", \"kv\": %" PRId64 ", \"memory\": %" PRId64 ", \"memory_limit\": %" PRId64
                     ", \"kv_blocks\": %" PRId64 ", \"recompute\": %s, \"zero\": %d},\n",
                     n->weights, n->optimizer, n->activations, n->kv, n->memory, n->memory_limit, n->kv_blocks,
                     n->recompute ? "true" : "false", n->zero);
}

static void print_stage(cria_text *out, const cria_plan *plan, const cria_graph *graph, int s,
                        const cria_plan_notes *notes) {
    const cria_stage *stage = cria_plan_stage(plan, s);
    cria_text_printf(out, "    {\"operators\": %d, \"first_rank\": %d, \"mesh\": [%d, %d]",
                     stage->end_op - stage->first_op, stage->first_rank, stage->mesh.size[0], stage->mesh.size[1]);
    print_pair(out, "alpha", stage->mesh.alpha);
    print_pair(out, "beta", stage->mesh.beta);
    print_shares(out, &stage->mesh);
    cria_text_puts(out, ",\n");
    if (notes && s < notes->stages) print_stage_notes(out, &notes->stage[s]);
    cria_text_puts(out, "     \"strategies\": [\n");
    for (int i = stage->first_op; i < stage->end_op; i++) {
        print_operator(out, graph, cria_graph_op(graph, i), cria_plan_strategy(plan, i));
        cria_text_puts(out, i + 1 < stage->end_op ? ",\n" : "\n");
    }
    cria_text_puts(out, "     ]}");
}

static void print_notes(cria_text *out, const cria_plan_notes *notes) {
    cria_text_puts(out, "  \"cluster\": ");
    print_string(out, notes->cluster);
    cria_text_printf(
        out,
        ",\n  \"objective\": \"%s\",\n  \"schedule\": {\"kind\": \"%s\", \"micro_batches\": %d, \"tokens\": "
        "%" PRId64 ", \"replicas\": %d, \"block_tokens\": %" PRId64 "},\n  \"predicted\": {\"step_seconds\": ",
        cria_objective_name(notes->objective), cria_schedule_name(notes->schedule), notes->micro_batches, notes->tokens,
        notes->replicas, notes->block_tokens);
    cria_text_json_number(out, notes->step_seconds);
    print_number(out, "tokens_per_second", notes->tokens_per_second);
    print_number(out, "first_token", notes->first_token);
    print_number(out, "latency", notes->latency);
    cria_text_puts(out, "},\n  \"devices\": [");
    for (int r = 0; r < notes->ranks; r++) cria_text_printf(out, "%s%d", r ? ", " : "", notes->device[r]);
    cria_text_puts(out, "],\n  \"bytes\": [");
    for (int r = 0; r < notes->ranks; r++) cria_text_printf(out, "%s%" PRId64, r ? ", " : "", notes->bytes[r]);
    cria_text_puts(out, "],\n");
}

void cria_plan_print(const cria_plan *plan, const cria_graph *graph, const cria_plan_notes *notes, cria_text *out) {
    cria_text_printf(
        out, "{\n  \"format\": \"cria plan\",\n  \"version\": %d,\n  \"model\": {\"name\": ", CRIA_PLAN_VERSION);
    print_string(out, cria_graph_name(graph));
    /* The hash is text: JSON numbers lose bits above 2^53 elsewhere. */
    cria_text_printf(out, ", \"operators\": %d, \"hash\": \"%016" PRIx64 "\"},\n", cria_graph_ops(graph),
                     cria_graph_hash(graph, 0, cria_graph_ops(graph)));
    if (notes) print_notes(out, notes);
    cria_text_printf(out, "  \"ranks\": %d,\n  \"stages\": [\n", cria_plan_ranks(plan));
    for (int s = 0; s < cria_plan_stages(plan); s++) {
        print_stage(out, plan, graph, s, notes);
        cria_text_puts(out, s + 1 < cria_plan_stages(plan) ? ",\n" : "\n");
    }
    cria_text_puts(out, "  ]\n}\n");
}

/* Written beside and renamed, so that the file is whole at every moment. */
static cria_status write_text(const char *path, const cria_text *text, cria_error *err) {
    char beside[4096];
    int length = snprintf(beside, sizeof beside, "%s.part", path);
    if (length < 0 || (size_t)length >= sizeof beside)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the name of the plan file is too long");
    FILE *file = fopen(beside, "w");
    if (!file) return cria_fail(err, CRIA_ERR_IO, "%s: %s", beside, strerror(errno));
    bool good = fwrite(text->data, 1, text->length, file) == text->length;
    good = fclose(file) == 0 && good;
    if (good && rename(beside, path) == 0) return CRIA_OK;
    cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(errno));
    unlink(beside);
    return CRIA_ERR_IO;
}

cria_status cria_plan_write(const char *path, const cria_plan *plan, const cria_graph *graph,
                            const cria_plan_notes *notes, cria_error *err) {
    cria_text text;
    cria_text_init(&text);
    cria_plan_print(plan, graph, notes, &text);
    cria_status status =
        text.failed ? cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan's text") : write_text(path, &text, err);
    cria_text_deinit(&text);
    return status;
}
