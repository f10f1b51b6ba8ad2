/* What the files of the lowering share: the program being written, and where every value lies. Internal. */
#ifndef CRIA_PARALLEL_LOWER_LOWERING_H
#define CRIA_PARALLEL_LOWER_LOWERING_H

#include "parallel/lower/buffers.h"
#include "parallel/lower/lower.h"

/* A value as this rank holds it in one sharding, and its prepared form if one was made. `root` is the placed buffer
 * that it is part of. */
typedef struct {
    cria_sharding sharding;
    int64_t offset, stride, root;
    bool prepared;
    cria_panel_type prepared_type;
    int64_t prepared_offset;
} cria_form;

#define CRIA_MAX_FORMS 8
#define CRIA_PLAN_MAX_GROUP 256 /* ranks along a mesh axis */

typedef struct {
    cria_form form[CRIA_MAX_FORMS]; /* the first is the one that others are made of */
    int count;
} cria_value;

typedef struct {
    const cria_graph *graph;
    const cria_plan *plan;
    int rank;
    const cria_stage *stage;
    int position[CRIA_MESH_AXES];
    const cria_lower_options *options;
    cria_program *program;
    int instruction_capacity, weight_capacity, kv_capacity, copy_capacity, width_capacity;
    cria_value *at; /* by tensor */
    bool *done;     /* by operator: already fused into an earlier one */
    cria_buffers buffers;
    cria_error *err;
} cria_lowering;

cria_status cria_lowering_no_memory(const cria_lowering *l);
/* Makes room for one more element and returns it zeroed; NULL when memory is out. */
void *cria_lowering_append(void **array, int *count, int *capacity, size_t size);

/* ---- values.c ---- */

/* The columns of a value, as two dims: those of a value with one dim besides the tokens are all inner. */
typedef struct {
    cria_extent outer, inner;
} cria_box;
int64_t cria_box_width(const cria_box *box);
/* What `rank` of this stage holds of a value; partial sums are of the whole. */
cria_box cria_lowering_box(const cria_lowering *l, int rank, int tensor, cria_sharding sharding);

cria_phase cria_lowering_phase(const cria_lowering *l, int tensor);
cria_instruction *cria_lowering_emit(cria_lowering *l, cria_do what, cria_phase phase, int op);
cria_operand cria_lowering_work(const cria_form *form);
/* Room for `width` floats of each of the tensor's rows (tokens or logits rows), until operator `last`; < 0: no memory.
 */
int64_t cria_lowering_room(cria_lowering *l, int tensor, int64_t width, int op, int last);
int cria_lowering_last_use(const cria_lowering *l, int tensor);

/* A new form of a value in a buffer of its own; NULL: no memory (l->err says so). */
cria_form *cria_lowering_place(cria_lowering *l, int tensor, cria_sharding sharding, int op, int last);
/* Another form that lies where `like` lies; its buffer is kept as long as the value is read. */
cria_form *cria_lowering_alias(cria_lowering *l, int tensor, cria_sharding sharding, const cria_form *like);
/* The value in the sharding that is wanted, which may write instructions; NULL: failed. */
cria_form *cria_lowering_want(cria_lowering *l, int tensor, cria_sharding sharding, int op);
/* The sharding in which operator `op` reads input k. */
cria_sharding cria_lowering_input(const cria_lowering *l, int op, int k);
/* Input k of operator `op`, while operator `now` (the same, or one that computes it along) is being written. */
cria_form *cria_lowering_want_input(cria_lowering *l, int op, int k, int now);
/* Brings what operator `op` computed (the first form of its output) to the sharding in which it is left. */
cria_status cria_lowering_finish(cria_lowering *l, int op, int now);

/* Sums what the first form of the output is a partial sum of. */
cria_status cria_lowering_sum(cria_lowering *l, int op, cria_sharding to, int now);
/* Gives a form rows that lie next to each other. */
cria_status cria_lowering_pack(cria_lowering *l, int tensor, cria_form *form, int op);
/* The plan's rank of a group's member. */
int cria_lowering_member(const cria_lowering *l, cria_group group, int member);

/* ---- transfer.c ---- */

/* Writes the sends of all values that later stages read, and the receives of everything that this rank's stage reads of
 * earlier ones, both in the order of the operators that make them. */
cria_status cria_lowering_send_all(cria_lowering *l);
cria_status cria_lowering_receive_all(cria_lowering *l);

/* Copies what two boxes have in common between two buffers. */
cria_status cria_lowering_copy(cria_lowering *l, const cria_box *common, const cria_box *from,
                               const cria_lattice *from_at, const cria_box *to, const cria_lattice *to_at);
bool cria_box_common(const cria_box *a, const cria_box *b, cria_box *out);

#endif
