/* Values that cross from stage to stage: who sends which part to whom. */
#include "parallel/lower/transfer.h"

#include <stdlib.h>
#include <string.h>

bool cria_stage_reads(const cria_graph *graph, const cria_stage *stage, int tensor) {
    for (int i = stage->first_op; i < stage->end_op; i++)
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (cria_graph_op(graph, i)->input[k] == tensor) return true;
    return false;
}

static cria_sharding summed(const cria_plan *plan, int stage, int tensor) {
    cria_sharding sharding =
        cria_sharding_canonical(cria_plan_held(plan, stage, tensor), &cria_plan_stage(plan, stage)->mesh);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (sharding.dim[axis] == CRIA_PARTIAL) sharding.dim[axis] = CRIA_REPLICATED;
    return sharding;
}

cria_sharding cria_transfer_departure(const cria_plan *plan, int stage, int tensor) {
    return summed(plan, stage, tensor);
}

cria_sharding cria_transfer_arrival(const cria_graph *graph, const cria_plan *plan, int stage, int tensor) {
    const cria_sharding wanted = summed(plan, stage, tensor);
    cria_sharding sharding = wanted;
    const cria_mesh *mesh = &cria_plan_stage(plan, stage)->mesh;
    int dims = cria_graph_tensor(graph, tensor)->dims;
    /* The outer axis cannot leave a dim that the inner one goes on to cut. */
    for (int axis = CRIA_MESH_AXES - 1; axis >= 0; axis--) {
        if (mesh->size[axis] < 2 || sharding.dim[axis] != CRIA_REPLICATED) continue;
        for (int d = dims - 1; d > 0; d--) {
            if (axis == 0 && wanted.dim[1] == d) continue;
            sharding.dim[axis] = (int8_t)d;
            break;
        }
    }
    return sharding;
}

static cria_box box_of(const cria_graph *graph, const cria_plan *plan, int rank, int tensor, cria_sharding sharding) {
    cria_lowering l = {.graph = graph, .plan = plan};
    return cria_lowering_box(&l, rank, tensor, sharding);
}

static bool same_box(const cria_box *a, const cria_box *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

static int ranks_of(const cria_stage *stage) {
    return stage->mesh.size[0] * stage->mesh.size[1];
}

/* Of the ranks that hold the same box as `rank`, its number, and how many there are. */
static void find_twins(const cria_box *boxes, int count, int rank, int *number, int *twins) {
    *number = *twins = 0;
    for (int r = 0; r < count; r++) {
        if (!same_box(&boxes[r], &boxes[rank])) continue;
        if (r < rank) ++*number;
        ++*twins;
    }
}

static void list_pieces(const cria_box *have, const cria_box *want, int senders, int receivers, int first_sender,
                        int first_receiver, cria_piece *out, int *count) {
    *count = 0;
    for (int s = 0; s < senders; s++) {
        int number, twins;
        find_twins(have, senders, s, &number, &twins);
        for (int r = 0; r < receivers; r++) {
            cria_box common;
            if (r % twins != number || !cria_box_common(&have[s], &want[r], &common)) continue;
            out[(*count)++] = (cria_piece){first_sender + s, first_receiver + r, common};
        }
    }
}

cria_status cria_transfer_pieces(const cria_graph *graph, const cria_plan *plan, int tensor, int from_stage,
                                 int to_stage, cria_piece **out, int *count, cria_error *err) {
    const cria_stage *a = cria_plan_stage(plan, from_stage), *b = cria_plan_stage(plan, to_stage);
    int senders = ranks_of(a), receivers = ranks_of(b);
    cria_box *have = calloc((size_t)senders, sizeof *have), *want = calloc((size_t)receivers, sizeof *want);
    *out = calloc((size_t)senders * (size_t)receivers, sizeof **out);
    if (!have || !want || !*out) {
        free(have);
        free(want);
        free(*out);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a transfer between %d and %d ranks", senders, receivers);
    }
    cria_sharding departure = cria_transfer_departure(plan, from_stage, tensor),
                  arrival = cria_transfer_arrival(graph, plan, to_stage, tensor);
    for (int s = 0; s < senders; s++) have[s] = box_of(graph, plan, a->first_rank + s, tensor, departure);
    for (int r = 0; r < receivers; r++) want[r] = box_of(graph, plan, b->first_rank + r, tensor, arrival);
    list_pieces(have, want, senders, receivers, a->first_rank, b->first_rank, *out, count);
    free(have);
    free(want);
    return CRIA_OK;
}

/* ---- instructions ---- */

static cria_instruction *emit_peer(cria_lowering *l, cria_do what, int tensor, int op, int64_t offset, int64_t width,
                                   int peer) {
    cria_instruction *i = cria_lowering_emit(l, what, cria_lowering_phase(l, tensor), op);
    if (!i) return NULL;
    i->operand[0] = (cria_operand){CRIA_SPACE_WORK, 0, offset, width};
    i->width = width;
    i->peer = peer;
    return i;
}

static cria_status move_piece(cria_lowering *l, int tensor, int op, const cria_piece *piece, const cria_form *form,
                              int64_t staging, bool out) {
    cria_box mine = cria_lowering_box(l, l->rank, tensor, form->sharding);
    cria_lattice rows = {.stride = form->stride}, block = {.stride = cria_box_width(&piece->box)};
    cria_instruction *i = cria_lowering_emit(l, CRIA_DO_MOVE, cria_lowering_phase(l, tensor), op);
    if (!i) return l->err->status;
    i->operand[0] = (cria_operand){CRIA_SPACE_WORK, 0, out ? form->offset : staging, 0};
    i->operand[1] = (cria_operand){CRIA_SPACE_WORK, 0, out ? staging : form->offset, 0};
    i->first = l->program->copy_count;
    i->count = 1;
    i->width = block.stride;
    return out ? cria_lowering_copy(l, &piece->box, &mine, &rows, &piece->box, &block)
               : cria_lowering_copy(l, &piece->box, &piece->box, &block, &mine, &rows);
}

static cria_status write_piece(cria_lowering *l, int tensor, int op, const cria_piece *piece, const cria_form *form,
                               bool out) {
    cria_box mine = cria_lowering_box(l, l->rank, tensor, form->sharding);
    int64_t width = cria_box_width(&piece->box), at = form->offset;
    bool whole = same_box(&mine, &piece->box) && form->stride == width;
    if (!whole) at = cria_lowering_room(l, tensor, width, op, op);
    if (at < 0) return l->err->status;
    if (out && !whole) CRIA_TRY(move_piece(l, tensor, op, piece, form, at, true));
    if (!emit_peer(l, out ? CRIA_DO_SEND : CRIA_DO_RECV, tensor, op, at, width, out ? piece->to : piece->from))
        return l->err->status;
    return out || whole ? CRIA_OK : move_piece(l, tensor, op, piece, form, at, false);
}

static cria_status send_to_stage(cria_lowering *l, int tensor, int op, int to_stage) {
    int stage = cria_plan_stage_of_rank(l->plan, l->rank), count;
    cria_piece *pieces;
    cria_form *form = cria_lowering_want(l, tensor, cria_transfer_departure(l->plan, stage, tensor), op);
    if (!form) return l->err->status;
    CRIA_TRY(cria_transfer_pieces(l->graph, l->plan, tensor, stage, to_stage, &pieces, &count, l->err));
    cria_status status = CRIA_OK;
    for (int i = 0; i < count && status == CRIA_OK; i++)
        if (pieces[i].from == l->rank) status = write_piece(l, tensor, op, &pieces[i], form, true);
    free(pieces);
    return status;
}

cria_status cria_lowering_send_all(cria_lowering *l) {
    int last = l->stage->end_op - 1;
    for (int i = l->stage->first_op; i <= last; i++) {
        int tensor = cria_graph_op(l->graph, i)->output;
        for (int s = cria_plan_stage_of_op(l->plan, i) + 1; s < cria_plan_stages(l->plan); s++)
            if (cria_stage_reads(l->graph, cria_plan_stage(l->plan, s), tensor))
                CRIA_TRY(send_to_stage(l, tensor, last, s));
    }
    return CRIA_OK;
}

static cria_status receive(cria_lowering *l, int tensor, int from_stage) {
    int stage = cria_plan_stage_of_rank(l->plan, l->rank), count, op = l->stage->first_op;
    cria_piece *pieces;
    cria_sharding arrival = cria_transfer_arrival(l->graph, l->plan, stage, tensor);
    cria_form *form = cria_lowering_place(l, tensor, arrival, op, cria_lowering_last_use(l, tensor));
    if (!form) return l->err->status;
    CRIA_TRY(cria_transfer_pieces(l->graph, l->plan, tensor, from_stage, stage, &pieces, &count, l->err));
    cria_status status = CRIA_OK;
    for (int i = 0; i < count && status == CRIA_OK; i++)
        if (pieces[i].to == l->rank) status = write_piece(l, tensor, op, &pieces[i], form, false);
    free(pieces);
    return status;
}

cria_status cria_lowering_receive_all(cria_lowering *l) {
    for (int i = 0; i < l->stage->first_op; i++) {
        int tensor = cria_graph_op(l->graph, i)->output;
        if (cria_stage_reads(l->graph, l->stage, tensor))
            CRIA_TRY(receive(l, tensor, cria_plan_stage_of_op(l->plan, i)));
    }
    return CRIA_OK;
}
