/* Values in several shardings: where each lies, and the copies and collectives that make one of another. */
#include "parallel/lower/lowering.h"

#include <stdlib.h>
#include <string.h>

/* Among ways that cost the same, or where the plan has no costs, what counts is a decode step of so many tokens. */
enum { TYPICAL_TOKENS = 16 };

cria_status cria_lowering_no_memory(const cria_lowering *l) {
    return cria_fail(l->err, CRIA_ERR_MEMORY, "no memory to lower the graph");
}

void *cria_lowering_append(void **array, int *count, int *capacity, size_t size) {
    if (*count == *capacity) {
        int wanted = *capacity ? *capacity * 2 : 64;
        void *bigger = realloc(*array, (size_t)wanted * size);
        if (!bigger) return NULL;
        *array = bigger;
        *capacity = wanted;
    }
    void *element = (char *)*array + (size_t)(*count)++ * size;
    memset(element, 0, size);
    return element;
}

/* ---- boxes ---- */

static int64_t length(cria_extent e) {
    return e.end > e.begin ? e.end - e.begin : 0;
}

int64_t cria_box_width(const cria_box *box) {
    return length(box->outer) * length(box->inner);
}

cria_box cria_lowering_box(const cria_lowering *l, int rank, int tensor, cria_sharding sharding) {
    const cria_tensor *t = cria_graph_tensor(l->graph, tensor);
    cria_box box = {{0, 1}, {0, 1}};
    if (t->dims > 1) box.inner = cria_plan_part(l->plan, rank, t, sharding, t->dims - 1);
    if (t->dims > 2) box.outer = cria_plan_part(l->plan, rank, t, sharding, t->dims - 2);
    return box;
}

static cria_extent common_extent(cria_extent a, cria_extent b) {
    return (cria_extent){a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

bool cria_box_common(const cria_box *a, const cria_box *b, cria_box *out) {
    out->outer = common_extent(a->outer, b->outer);
    out->inner = common_extent(a->inner, b->inner);
    return cria_box_width(out) > 0;
}

/* ---- writing ---- */

cria_phase cria_lowering_phase(const cria_lowering *l, int tensor) {
    return cria_graph_tensor(l->graph, tensor)->dim[0].name == CRIA_DIM_ROW ? CRIA_PHASE_HEAD : CRIA_PHASE_BODY;
}

cria_instruction *cria_lowering_emit(cria_lowering *l, cria_do what, cria_phase phase, int op) {
    cria_program *p = l->program;
    cria_instruction *i =
        cria_lowering_append((void **)&p->instructions, &p->instruction_count, &l->instruction_capacity, sizeof *i);
    if (!i) {
        cria_lowering_no_memory(l);
        return NULL;
    }
    i->what = what;
    i->kernel = CRIA_KERNEL_COUNT;
    i->op = op;
    i->layer = cria_graph_op(l->graph, op)->layer;
    i->phase = phase;
    i->peer = -1;
    return i;
}

cria_operand cria_lowering_work(const cria_form *form) {
    return (cria_operand){CRIA_SPACE_WORK, 0, form->offset, form->stride};
}

int64_t cria_lowering_room(cria_lowering *l, int tensor, int64_t width, int op, int last) {
    int64_t rows = cria_lowering_phase(l, tensor) == CRIA_PHASE_HEAD ? l->program->head_rows : l->program->max_tokens;
    int64_t offset = cria_buffers_place(&l->buffers, rows * width * (int64_t)sizeof(float), op, last);
    if (offset < 0) cria_lowering_no_memory(l);
    return offset;
}

int cria_lowering_last_use(const cria_lowering *l, int tensor) {
    int last;
    cria_graph_uses(l->graph, tensor, &last);
    return last;
}

static cria_form *add_form(cria_lowering *l, int tensor) {
    cria_value *v = &l->at[tensor];
    if (v->count == CRIA_MAX_FORMS) {
        cria_fail(l->err, CRIA_ERR_UNSUPPORTED, "%s is wanted in more than %d shardings",
                  cria_graph_tensor(l->graph, tensor)->name, CRIA_MAX_FORMS);
        return NULL;
    }
    return &v->form[v->count++];
}

cria_form *cria_lowering_place(cria_lowering *l, int tensor, cria_sharding sharding, int op, int last) {
    cria_box box = cria_lowering_box(l, l->rank, tensor, sharding);
    int64_t width = cria_box_width(&box), offset = cria_lowering_room(l, tensor, width, op, last);
    cria_form *form = offset < 0 ? NULL : add_form(l, tensor);
    if (form) *form = (cria_form){.sharding = sharding, .offset = offset, .stride = width, .root = offset};
    return form;
}

cria_form *cria_lowering_alias(cria_lowering *l, int tensor, cria_sharding sharding, const cria_form *like) {
    cria_form copy = *like;
    cria_form *form = add_form(l, tensor);
    if (!form) return NULL;
    copy.sharding = sharding;
    copy.prepared = false;
    *form = copy;
    cria_buffers_extend(&l->buffers, form->root, cria_lowering_last_use(l, tensor));
    return form;
}

static cria_lattice dense(const cria_form *form) {
    return (cria_lattice){.stride = form->stride};
}

static int64_t within(const cria_box *box, const cria_box *common) {
    return (common->outer.begin - box->outer.begin) * length(box->inner) + common->inner.begin - box->inner.begin;
}

cria_status cria_lowering_copy(cria_lowering *l, const cria_box *common, const cria_box *from,
                               const cria_lattice *from_at, const cria_box *to, const cria_lattice *to_at) {
    cria_program *p = l->program;
    cria_copy *c = cria_lowering_append((void **)&p->copies, &p->copy_count, &l->copy_capacity, sizeof *c);
    if (!c) return cria_lowering_no_memory(l);
    *c = (cria_copy){*from_at, *to_at, length(common->outer), length(common->inner)};
    c->from.start += within(from, common);
    c->from.step = length(from->inner);
    c->to.start += within(to, common);
    c->to.step = length(to->inner);
    if (c->from.step == c->inner && c->to.step == c->inner) { /* whole rows of the inner dim lie together */
        c->inner *= c->outer;
        c->outer = 1;
    }
    return CRIA_OK;
}

static cria_instruction *emit_move(cria_lowering *l, int tensor, int op, int64_t from, int64_t to) {
    cria_instruction *i = cria_lowering_emit(l, CRIA_DO_MOVE, cria_lowering_phase(l, tensor), op);
    if (!i) return NULL;
    i->operand[0] = (cria_operand){CRIA_SPACE_WORK, 0, from, 0};
    i->operand[1] = (cria_operand){CRIA_SPACE_WORK, 0, to, 0};
    i->first = l->program->copy_count;
    return i;
}

static void end_move(cria_lowering *l, int index) {
    cria_instruction *i = &l->program->instructions[index];
    i->count = l->program->copy_count - i->first;
    for (int c = 0; c < i->count; c++)
        i->width += l->program->copies[i->first + c].outer * l->program->copies[i->first + c].inner;
}

/* Copies what the target form holds out of a form that holds at least that. */
static cria_status move_form(cria_lowering *l, int tensor, int op, const cria_form *from, const cria_form *to) {
    cria_box a = cria_lowering_box(l, l->rank, tensor, from->sharding);
    cria_box b = cria_lowering_box(l, l->rank, tensor, to->sharding), common;
    cria_lattice at = dense(from), into = dense(to);
    if (!emit_move(l, tensor, op, from->offset, to->offset)) return l->err->status;
    int index = l->program->instruction_count - 1;
    if (cria_box_common(&a, &b, &common)) CRIA_TRY(cria_lowering_copy(l, &common, &a, &at, &b, &into));
    end_move(l, index);
    return CRIA_OK;
}

int cria_lowering_member(const cria_lowering *l, cria_group group, int member) {
    int first = l->stage->first_rank, columns = l->stage->mesh.size[1];
    if (group == CRIA_GROUP_STAGE) return first + member;
    return group == CRIA_GROUP_AXIS1 ? first + l->position[0] * columns + member
                                     : first + member * columns + l->position[1];
}

/* ---- one step of a conversion ---- */

typedef struct {
    int tensor, op, axis, size;
    int ranks[CRIA_PLAN_MAX_GROUP]; /* of the plan, along the axis */
    cria_sharding before, after;
} conversion;

static cria_status find_line(const cria_lowering *l, conversion *c) {
    const cria_mesh *mesh = &l->stage->mesh;
    c->size = mesh->size[c->axis];
    if (c->size > CRIA_PLAN_MAX_GROUP)
        return cria_fail(l->err, CRIA_ERR_UNSUPPORTED, "a mesh axis of %d ranks, the most are %d", c->size,
                         CRIA_PLAN_MAX_GROUP);
    for (int p = 0; p < c->size; p++)
        c->ranks[p] = cria_lowering_member(l, c->axis == 0 ? CRIA_GROUP_AXIS0 : CRIA_GROUP_AXIS1, p);
    return CRIA_OK;
}

static int add_widths(cria_lowering *l, const int64_t *widths, int count) {
    int first = l->program->width_count;
    for (int i = 0; i < count; i++) {
        int64_t *w =
            cria_lowering_append((void **)&l->program->widths, &l->program->width_count, &l->width_capacity, sizeof *w);
        if (!w) return -1;
        *w = widths[i];
    }
    return first;
}

static cria_instruction *emit_collective(cria_lowering *l, const conversion *c, cria_do what, int64_t in, int64_t out,
                                         const int64_t *widths, int count) {
    int first = add_widths(l, widths, count);
    cria_instruction *i = cria_lowering_emit(l, what, cria_lowering_phase(l, c->tensor), c->op);
    if (first < 0 || !i) return NULL;
    i->operand[0] = (cria_operand){CRIA_SPACE_WORK, 0, in, 0};
    i->operand[1] = (cria_operand){CRIA_SPACE_WORK, 0, out, 0};
    i->group = c->axis == 0 ? CRIA_GROUP_AXIS0 : CRIA_GROUP_AXIS1;
    i->first = first;
    i->count = count;
    return i;
}

/* A form whose rows lie next to each other, as collectives want them. */
static cria_status make_dense(cria_lowering *l, const conversion *c, cria_form *form, bool own) {
    cria_box box = cria_lowering_box(l, l->rank, c->tensor, form->sharding);
    int64_t width = cria_box_width(&box);
    if (form->stride == width && !own) return CRIA_OK;
    int64_t offset = cria_lowering_room(l, c->tensor, width, c->op, cria_lowering_last_use(l, c->tensor));
    if (offset < 0) return l->err->status;
    cria_form to = {.sharding = form->sharding, .offset = offset, .stride = width, .root = offset};
    CRIA_TRY(move_form(l, c->tensor, c->op, form, &to));
    *form = to;
    return CRIA_OK;
}

/* Copies between the rank's rows and a buffer of blocks, one for each rank of the line: box(rank) is what rank p's
 * block holds. `out`: from the rows into the blocks. */
static cria_status move_blocks(cria_lowering *l, const conversion *c, const cria_form *rows, int64_t blocks,
                               const cria_box *box, bool out) {
    cria_box mine = cria_lowering_box(l, l->rank, c->tensor, rows->sharding);
    if (!emit_move(l, c->tensor, c->op, out ? rows->offset : blocks, out ? blocks : rows->offset))
        return l->err->status;
    int index = l->program->instruction_count - 1;
    int64_t before = 0;
    for (int p = 0; p < c->size; p++) {
        int64_t width = cria_box_width(&box[p]);
        cria_lattice at = dense(rows), block = {.block = before, .stride = width};
        cria_box common;
        if (cria_box_common(&mine, &box[p], &common))
            CRIA_TRY(out ? cria_lowering_copy(l, &common, &mine, &at, &box[p], &block)
                         : cria_lowering_copy(l, &common, &box[p], &block, &mine, &at));
        before += width;
    }
    end_move(l, index);
    return CRIA_OK;
}

static int64_t blocks_width(const cria_box *box, int64_t *widths, int count) {
    int64_t total = 0;
    for (int p = 0; p < count; p++) total += widths[p] = cria_box_width(&box[p]);
    return total;
}

/* The new form is placed in `form`; no form of the value is recorded. */
static cria_status place_next(cria_lowering *l, const conversion *c, cria_form *form) {
    cria_box box = cria_lowering_box(l, l->rank, c->tensor, c->after);
    int64_t width = cria_box_width(&box);
    int64_t offset = cria_lowering_room(l, c->tensor, width, c->op, cria_lowering_last_use(l, c->tensor));
    if (offset < 0) return l->err->status;
    *form = (cria_form){.sharding = c->after, .offset = offset, .stride = width, .root = offset};
    return CRIA_OK;
}

static cria_status gather(cria_lowering *l, const conversion *c, cria_form *form) {
    cria_box box[CRIA_PLAN_MAX_GROUP];
    int64_t widths[CRIA_PLAN_MAX_GROUP];
    for (int p = 0; p < c->size; p++) box[p] = cria_lowering_box(l, c->ranks[p], c->tensor, c->before);
    CRIA_TRY(make_dense(l, c, form, false));
    int64_t blocks = cria_lowering_room(l, c->tensor, blocks_width(box, widths, c->size), c->op, c->op);
    if (blocks < 0 || !emit_collective(l, c, CRIA_DO_ALL_GATHER, form->offset, blocks, widths, c->size))
        return cria_lowering_no_memory(l);
    CRIA_TRY(place_next(l, c, form));
    return move_blocks(l, c, form, blocks, box, false);
}

static cria_status scatter(cria_lowering *l, const conversion *c, cria_form *form) {
    cria_box box[CRIA_PLAN_MAX_GROUP];
    int64_t widths[CRIA_PLAN_MAX_GROUP];
    for (int p = 0; p < c->size; p++) box[p] = cria_lowering_box(l, c->ranks[p], c->tensor, c->after);
    int64_t blocks = cria_lowering_room(l, c->tensor, blocks_width(box, widths, c->size), c->op, c->op);
    if (blocks < 0) return l->err->status;
    CRIA_TRY(move_blocks(l, c, form, blocks, box, true));
    CRIA_TRY(place_next(l, c, form));
    return emit_collective(l, c, CRIA_DO_REDUCE_SCATTER, blocks, form->offset, widths, c->size)
               ? CRIA_OK
               : cria_lowering_no_memory(l);
}

static cria_status exchange(cria_lowering *l, const conversion *c, cria_form *form) {
    cria_box give[CRIA_PLAN_MAX_GROUP], take[CRIA_PLAN_MAX_GROUP];
    int64_t widths[2 * CRIA_PLAN_MAX_GROUP];
    cria_box now = cria_lowering_box(l, l->rank, c->tensor, c->before);
    cria_box next = cria_lowering_box(l, l->rank, c->tensor, c->after);
    for (int p = 0; p < c->size; p++) {
        cria_box theirs = cria_lowering_box(l, c->ranks[p], c->tensor, c->after);
        cria_box_common(&now, &theirs, &give[p]);
        theirs = cria_lowering_box(l, c->ranks[p], c->tensor, c->before);
        cria_box_common(&next, &theirs, &take[p]);
    }
    int64_t out = cria_lowering_room(l, c->tensor, blocks_width(give, widths, c->size), c->op, c->op);
    int64_t in = cria_lowering_room(l, c->tensor, blocks_width(take, widths + c->size, c->size), c->op, c->op);
    if (out < 0 || in < 0) return l->err->status;
    CRIA_TRY(move_blocks(l, c, form, out, give, true));
    if (!emit_collective(l, c, CRIA_DO_ALL_TO_ALL, out, in, widths, 2 * c->size)) return cria_lowering_no_memory(l);
    CRIA_TRY(place_next(l, c, form));
    return move_blocks(l, c, form, in, take, false);
}

/* `own`: the form must keep its bytes. */
static cria_status reduce(cria_lowering *l, const conversion *c, cria_form *form, bool own) {
    CRIA_TRY(make_dense(l, c, form, own));
    int64_t width = form->stride;
    if (!emit_collective(l, c, CRIA_DO_ALL_REDUCE, form->offset, form->offset, &width, 1))
        return cria_lowering_no_memory(l);
    form->sharding = c->after;
    form->prepared = false;
    return CRIA_OK;
}

static cria_status slice(cria_lowering *l, const conversion *c, cria_form *form) {
    cria_form from = *form;
    CRIA_TRY(place_next(l, c, form));
    return move_form(l, c->tensor, c->op, &from, form);
}

/* Walks `form` through the steps; `keep`: the bytes that it begins with are still wanted. */
static cria_status convert(cria_lowering *l, int tensor, int op, cria_form *form, cria_sharding to, bool keep) {
    const cria_tensor *t = cria_graph_tensor(l->graph, tensor);
    cria_reshard_step steps[CRIA_MAX_RESHARD_STEPS];
    int count = cria_reshard(l->graph, t, form->sharding, to, &l->stage->mesh, TYPICAL_TOKENS, sizeof(float), steps);
    if (count < 0) {
        char have[32], want[32];
        return cria_fail(l->err, CRIA_ERR_ARGUMENT, "%s: %s cannot be made of %s", t->name,
                         cria_sharding_print(t, to, want), cria_sharding_print(t, form->sharding, have));
    }
    for (int i = 0; i < count; i++) {
        conversion c = {.tensor = tensor, .op = op, .axis = steps[i].axis, .before = form->sharding};
        c.after = cria_reshard_apply(form->sharding, &steps[i]);
        CRIA_TRY(find_line(l, &c));
        switch (steps[i].kind) {
        case CRIA_RESHARD_SLICE:
            CRIA_TRY(slice(l, &c, form));
            break;
        case CRIA_RESHARD_ALL_GATHER:
            CRIA_TRY(gather(l, &c, form));
            break;
        case CRIA_RESHARD_ALL_TO_ALL:
            CRIA_TRY(exchange(l, &c, form));
            break;
        case CRIA_RESHARD_ALL_REDUCE:
            CRIA_TRY(reduce(l, &c, form, keep && i == 0));
            break;
        case CRIA_RESHARD_REDUCE_SCATTER:
            CRIA_TRY(scatter(l, &c, form));
            break;
        }
    }
    return CRIA_OK;
}

/* ---- forms ---- */

static cria_form *find_form(const cria_lowering *l, int tensor, cria_sharding sharding) {
    cria_value *v = &l->at[tensor];
    for (int i = 0; i < v->count; i++)
        if (cria_sharding_equal(v->form[i].sharding, sharding)) return &v->form[i];
    return NULL;
}

/* A whole value as a partial sum: the first rank of the axis has it, the others have nothing. */
static cria_form *as_partial(cria_lowering *l, int tensor, cria_sharding sharding, const cria_form *whole, int op) {
    bool first = true;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (sharding.dim[axis] == CRIA_PARTIAL && whole->sharding.dim[axis] != CRIA_PARTIAL && l->position[axis] > 0)
            first = false;
    if (first) return cria_lowering_alias(l, tensor, sharding, whole);
    cria_form *form = cria_lowering_place(l, tensor, sharding, op, cria_lowering_last_use(l, tensor));
    cria_instruction *i = form ? cria_lowering_emit(l, CRIA_DO_ZERO, cria_lowering_phase(l, tensor), op) : NULL;
    if (!i) return NULL;
    i->operand[0] = cria_lowering_work(form);
    i->width = form->stride;
    return form;
}

cria_form *cria_lowering_want(cria_lowering *l, int tensor, cria_sharding wanted, int op) {
    wanted = cria_sharding_canonical(wanted, &l->stage->mesh);
    cria_form *form = find_form(l, tensor, wanted);
    if (form) return form;
    if (l->at[tensor].count == 0) {
        cria_fail(l->err, CRIA_ERR_INTERNAL, "%s is read before it is made", cria_graph_tensor(l->graph, tensor)->name);
        return NULL;
    }
    cria_form made = l->at[tensor].form[0];
    cria_sharding summed = wanted;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (wanted.dim[axis] == CRIA_PARTIAL && made.sharding.dim[axis] != CRIA_PARTIAL)
            summed.dim[axis] = CRIA_REPLICATED;
    if (!cria_sharding_equal(summed, wanted)) {
        form = cria_lowering_want(l, tensor, summed, op);
        return form ? as_partial(l, tensor, wanted, form, op) : NULL;
    }
    made.prepared = false;
    if (convert(l, tensor, op, &made, wanted, true) != CRIA_OK) return NULL;
    form = add_form(l, tensor);
    if (form) *form = made;
    return form;
}

cria_sharding cria_lowering_input(const cria_lowering *l, int op, int k) {
    return cria_sharding_canonical(cria_plan_strategy(l->plan, op)->input[k], &l->stage->mesh);
}

cria_form *cria_lowering_want_input(cria_lowering *l, int op, int k, int now) {
    return cria_lowering_want(l, cria_graph_op(l->graph, op)->input[k], cria_lowering_input(l, op, k), now);
}

cria_status cria_lowering_sum(cria_lowering *l, int op, cria_sharding to, int now) {
    int tensor = cria_graph_op(l->graph, op)->output;
    return convert(l, tensor, now, &l->at[tensor].form[0], to, false);
}

cria_status cria_lowering_pack(cria_lowering *l, int tensor, cria_form *form, int op) {
    conversion c = {.tensor = tensor, .op = op};
    return make_dense(l, &c, form, false);
}

cria_status cria_lowering_finish(cria_lowering *l, int op, int now) {
    int tensor = cria_graph_op(l->graph, op)->output;
    cria_sharding left = cria_sharding_canonical(cria_plan_strategy(l->plan, op)->output, &l->stage->mesh);
    cria_value *v = &l->at[tensor];
    if (!cria_sharding_equal(v->form[0].sharding, left)) {
        v->form[0].prepared = false;
        CRIA_TRY(convert(l, tensor, now, &v->form[0], left, false));
    }
    return CRIA_OK;
}
