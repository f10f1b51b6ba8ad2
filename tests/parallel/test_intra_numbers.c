/* Chosen plans, played through: every device holds its shards and nothing else, operators run on shards, collectives
 * move elements one by one. The numbers are those of one device, and as many bytes move as the plan says. */
#include "parallel/nets/network.h"
#include "parallel/plan/intra.h"
#include "tests/parallel/interpret.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define P CRIA_PARTIAL

enum { MOST_DEVICES = 12 };

typedef struct {
    int64_t begin[CRIA_MAX_DIMS], end[CRIA_MAX_DIMS];
} box;

typedef struct {
    const cria_graph *g;
    cria_mesh mesh;
    int devices;
    double element;
    double counted, planned; /* bytes that the device with most of them receives, over all steps */
    bool even;               /* every part was as long as every other */
} machine;

/* One tensor on all devices: whole arrays, NaN where a device holds nothing. */
typedef struct {
    double *at[MOST_DEVICES];
} spread;

static int peer(const machine *m, int device, int axis, int position) {
    int row = device / m->mesh.size[1], column = device % m->mesh.size[1];
    return axis == 0 ? position * m->mesh.size[1] + column : row * m->mesh.size[1] + position;
}

static box part_of(const machine *m, const cria_tensor *tensor, cria_sharding s, int device) {
    int position[2] = {device / m->mesh.size[1], device % m->mesh.size[1]};
    box b;
    for (int d = 0; d < tensor->dims; d++)
        cria_sharding_part(s, d, tensor->dim[d].extent, cria_graph_unit(m->g, tensor->dim[d]), &m->mesh, position,
                           &b.begin[d], &b.end[d]);
    return b;
}

static int64_t volume(const cria_tensor *tensor, const box *b) {
    int64_t elements = 1;
    for (int d = 0; d < tensor->dims; d++) elements *= b->end[d] - b->begin[d];
    return elements;
}

static bool inside(const cria_tensor *tensor, const box *b, int64_t element) {
    for (int d = tensor->dims - 1; d >= 0; d--) {
        int64_t at = element % tensor->dim[d].extent;
        element /= tensor->dim[d].extent;
        if (at < b->begin[d] || at >= b->end[d]) return false;
    }
    return true;
}

static spread make_spread(const machine *m, const cria_tensor *tensor) {
    spread s = {{NULL}};
    int64_t elements = interpret_elements(tensor);
    for (int k = 0; k < m->devices; k++) {
        s.at[k] = malloc((size_t)elements * sizeof(double));
        for (int64_t e = 0; e < elements; e++) s.at[k][e] = NAN;
    }
    return s;
}

static void drop_spread(const machine *m, spread *s) {
    for (int k = 0; k < m->devices; k++) free(s->at[k]);
    *s = (spread){{NULL}};
}

/* Lays a whole array out in a sharding without partial sums. */
static spread lay_out(const machine *m, const cria_tensor *tensor, const double *whole, cria_sharding sharding) {
    spread s = make_spread(m, tensor);
    for (int k = 0; k < m->devices; k++) {
        box b = part_of(m, tensor, sharding, k);
        for (int64_t e = 0; e < interpret_elements(tensor); e++)
            if (inside(tensor, &b, e)) s.at[k][e] = whole[e];
    }
    return s;
}

/* Bytes that a ring moves through every device for a step, by the plan's figure. */
static double planned_bytes(const cria_reshard_step *step, double n) {
    switch (step->kind) {
    case CRIA_RESHARD_ALL_REDUCE:
        return 2 * (n - 1) / n * step->bytes;
    case CRIA_RESHARD_ALL_TO_ALL:
        return (n - 1) / n * step->bytes / n;
    case CRIA_RESHARD_SLICE:
        return 0;
    default:
        return (n - 1) / n * step->bytes;
    }
}

/* The same, counted in elements of a device: what it holds after the step and must get from others. */
static double counted_elements(const machine *m, const cria_tensor *tensor, const cria_reshard_step *step,
                               cria_sharding before, cria_sharding after, int device) {
    double n = m->mesh.size[step->axis];
    box from = part_of(m, tensor, before, device), to = part_of(m, tensor, after, device);
    int64_t missing = 0;
    switch (step->kind) {
    case CRIA_RESHARD_ALL_REDUCE: /* of every part of the ring, all but its own, twice */
        return 2 * (n - 1) / n * (double)volume(tensor, &from);
    case CRIA_RESHARD_REDUCE_SCATTER: /* its own part from everybody else */
        return (n - 1) * (double)volume(tensor, &to);
    default:
        for (int64_t e = 0; e < interpret_elements(tensor); e++)
            missing += inside(tensor, &to, e) && !inside(tensor, &from, e);
        return (double)missing;
    }
}

static void run_step(machine *m, const cria_tensor *tensor, const cria_reshard_step *step, cria_sharding before,
                     spread *s) {
    cria_sharding after = cria_reshard_apply(before, step);
    spread next = make_spread(m, tensor);
    bool sums = step->kind == CRIA_RESHARD_ALL_REDUCE || step->kind == CRIA_RESHARD_REDUCE_SCATTER;
    int n = m->mesh.size[step->axis];
    double most = 0;
    bool even = true;
    box first_from = part_of(m, tensor, before, 0), first_to = part_of(m, tensor, after, 0);
    for (int k = 0; k < m->devices; k++) {
        box to = part_of(m, tensor, after, k), own = part_of(m, tensor, before, k);
        for (int64_t e = 0; e < interpret_elements(tensor); e++) {
            if (!inside(tensor, &to, e)) continue;
            if (!sums && (step->kind == CRIA_RESHARD_SLICE || inside(tensor, &own, e))) {
                next.at[k][e] = s->at[k][e];
                continue;
            }
            double sum = 0;
            bool found = false;
            for (int q = 0; q < n; q++) {
                int other = peer(m, k, step->axis, q);
                box theirs = part_of(m, tensor, before, other);
                if (!inside(tensor, &theirs, e) || (found && !sums)) continue;
                sum += s->at[other][e];
                found = true;
            }
            next.at[k][e] = found ? sum : NAN;
        }
        double counted = counted_elements(m, tensor, step, before, after, k) * m->element;
        most = fmax(most, counted);
        even = even && volume(tensor, &own) == volume(tensor, &first_from) &&
               volume(tensor, &to) == volume(tensor, &first_to);
    }
    double planned = planned_bytes(step, n);
    if (even && fabs(most - planned) > 1e-9 * (1 + planned))
        fail_msg("%s: step %d along axis %d moves %g bytes, planned %g", tensor->name, step->kind, step->axis, most,
                 planned);
    if (most > planned * (1 + 1e-9))
        fail_msg("%s: step %d along axis %d moves %g bytes, more than planned %g", tensor->name, step->kind, step->axis,
                 most, planned);
    m->even = m->even && even;
    m->counted += most;
    m->planned += planned;
    drop_spread(m, s);
    *s = next;
}

static void convert(machine *m, const cria_intra_options *o, int t, cria_sharding from, cria_sharding to, spread *s) {
    const cria_tensor *tensor = cria_graph_tensor(m->g, t);
    cria_reshard_step steps[CRIA_MAX_BETWEEN_STEPS];
    int count = cria_reshard_between_steps(m->g, tensor, from, to, &m->mesh, 1, m->element,
                                           o->strategies.reduce_scatter, steps);
    assert_true(count >= 0);
    for (int i = 0; i < count; i++) {
        run_step(m, tensor, &steps[i], from, s);
        from = cria_reshard_apply(from, &steps[i]);
    }
    assert_true(cria_sharding_equal(from, cria_sharding_canonical(to, &m->mesh)));
}

static spread copy_spread(const machine *m, const cria_tensor *tensor, const spread *s) {
    spread copy = make_spread(m, tensor);
    for (int k = 0; k < m->devices; k++)
        memcpy(copy.at[k], s->at[k], (size_t)interpret_elements(tensor) * sizeof(double));
    return copy;
}

/* Devices that cut an index with statistics exchange these; here, they see what the others along the axis hold. */
static void share_statistics(const machine *m, const cria_tensor *tensor, int axis, spread *s) {
    spread next = copy_spread(m, tensor, s);
    for (int k = 0; k < m->devices; k++)
        for (int64_t e = 0; e < interpret_elements(tensor); e++)
            for (int q = 0; isnan(next.at[k][e]) && q < m->mesh.size[axis]; q++)
                next.at[k][e] = s->at[peer(m, k, axis, q)][e];
    drop_spread(m, s);
    *s = next;
}

static spread run_op(machine *m, const cria_intra_options *o, int i, const cria_strategy *strategy,
                     const cria_sharding *held, const spread *value) {
    const cria_op *op = cria_graph_op(m->g, i);
    cria_op_index index[CRIA_MAX_INDICES];
    int count = cria_op_indices(m->g, op, index);
    spread in[CRIA_MAX_INPUTS] = {{{NULL}}}, out = make_spread(m, cria_graph_tensor(m->g, op->output));
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
        if (op->input[k] < 0) continue;
        const cria_tensor *tensor = cria_graph_tensor(m->g, op->input[k]);
        in[k] = copy_spread(m, tensor, &value[op->input[k]]);
        convert(m, o, op->input[k], held[op->input[k]], strategy->input[k], &in[k]);
        for (int axis = 0; axis < 2; axis++)
            if (strategy->index[axis] >= 0 && index[strategy->index[axis]].split == CRIA_SPLIT_STATS)
                share_statistics(m, tensor, axis, &in[k]);
    }
    for (int d = 0; d < m->devices; d++) {
        int position[2] = {d / m->mesh.size[1], d % m->mesh.size[1]};
        interpret_range range[CRIA_MAX_INDICES];
        const double *operand[CRIA_MAX_INPUTS] = {NULL};
        for (int k = 0; k < CRIA_MAX_INPUTS; k++) operand[k] = in[k].at[d];
        for (int x = 0; x < count; x++) {
            cria_sharding cut = {
                {strategy->index[0] == x ? 0 : CRIA_REPLICATED, strategy->index[1] == x ? 0 : CRIA_REPLICATED}};
            cria_sharding_part(cut, 0, index[x].dim.extent, index[x].unit, &m->mesh, position, &range[x].begin,
                               &range[x].end);
        }
        interpret_op(m->g, op, operand, range, out.at[d]);
    }
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) drop_spread(m, &in[k]);
    convert(m, o, op->output, strategy->raw, held[op->output], &out);
    return out;
}

/* Every device has the right numbers in its part; where it has partial sums, those along the axis add up to them. */
static void compare(const machine *m, int t, cria_sharding held, const spread *s, const double *right) {
    const cria_tensor *tensor = cria_graph_tensor(m->g, t);
    for (int k = 0; k < m->devices; k++) {
        box b = part_of(m, tensor, held, k);
        for (int64_t e = 0; e < interpret_elements(tensor); e++) {
            if (!inside(tensor, &b, e)) continue;
            double sum = 0;
            for (int x = 0; x < (held.dim[0] == P ? m->mesh.size[0] : 1); x++)
                for (int y = 0; y < (held.dim[1] == P ? m->mesh.size[1] : 1); y++) {
                    int other = k;
                    if (held.dim[0] == P) other = peer(m, other, 0, x);
                    if (held.dim[1] == P) other = peer(m, other, 1, y);
                    sum += s->at[other][e];
                }
            if (!(fabs(sum - right[e]) <= 1e-9 * (1 + fabs(right[e]))))
                fail_msg("%s (held %d %d), device %d, element %lld: %.12g, right is %.12g", tensor->name, held.dim[0],
                         held.dim[1], k, (long long)e, sum, right[e]);
        }
    }
}

static double statistics_bytes(const machine *m, const cria_intra_step *steps, int count) {
    double bytes = 0;
    for (int i = 0; i < count; i++)
        if (steps[i].operand == CRIA_INTRA_STATS_STEP)
            bytes += planned_bytes(&steps[i].step, m->mesh.size[steps[i].step.axis]);
    return bytes;
}

static double all_bytes(const machine *m, const cria_intra_step *steps, int count) {
    double bytes = 0;
    for (int i = 0; i < count; i++) bytes += planned_bytes(&steps[i].step, m->mesh.size[steps[i].step.axis]);
    return bytes;
}

/* Plays a plan through. Returns true if all its parts were equally long. */
static bool play(const cria_graph *g, const cria_mesh *mesh, const cria_intra_options *o,
                 const cria_intra_result *plan) {
    machine m = {.g = g, .mesh = *mesh, .devices = mesh->size[0] * mesh->size[1], .element = 4, .even = true};
    if (!o->strategies.reduce_scatter) m.mesh.forbidden |= 1u << CRIA_RESHARD_REDUCE_SCATTER;
    if (o->strategies.forbid_all_to_all) m.mesh.forbidden |= 1u << CRIA_RESHARD_ALL_TO_ALL;
    if (o->strategies.forbid_all_gather) m.mesh.forbidden |= 1u << CRIA_RESHARD_ALL_GATHER;
    m.mesh.fractional = false; /* devices have whole elements */
    assert_true(m.devices <= MOST_DEVICES);
    int tensors = cria_graph_tensors(g), ops = cria_graph_ops(g);
    double **right = interpret_create(g);
    interpret_fill(g, right, 1, 7);
    spread *value = calloc((size_t)tensors, sizeof *value);
    for (int t = 0; t < tensors; t++)
        if (cria_graph_tensor(g, t)->kind != CRIA_TENSOR_VALUE)
            value[t] = lay_out(&m, cria_graph_tensor(g, t), right[t], plan->held[t]);
    interpret_run(g, right, 0, ops);
    double statistics = 0, listed = 0;
    for (int i = 0; i < ops; i++) {
        int t = cria_graph_op(g, i)->output;
        value[t] = run_op(&m, o, i, &plan->strategy[i], plan->held, value);
        compare(&m, t, plan->held[t], &value[t], right[t]);
        cria_intra_step steps[CRIA_MAX_INTRA_STEPS];
        int count = cria_intra_steps(g, i, ops, &m.mesh, o, &plan->strategy[i], plan->held, steps);
        statistics += statistics_bytes(&m, steps, count);
        listed += all_bytes(&m, steps, count);
    }
    /* What was moved is what the steps of the plan list. */
    assert_true(fabs(m.planned + statistics - listed) <= 1e-9 * (1 + listed));
    if (m.even) assert_true(fabs(m.counted - m.planned) <= 1e-9 * (1 + m.planned));
    for (int t = 0; t < tensors; t++) drop_spread(&m, &value[t]);
    free(value);
    interpret_destroy(g, right);
    return m.even;
}

typedef struct {
    int moved, even, uneven;
} tally;

/* Plans; false: a limit cannot be kept, or is not found to be kept in so few rounds. Rounds instead of time, so that
 * every run plays the same plans. */
static bool solve(const cria_graph *g, const cria_mesh *mesh, cria_intra_options *o, cria_intra_result *plan) {
    cria_error err = {0};
    o->iterations = o->memory_limit >= 0 ? 3 : 12;
    cria_status status = cria_intra_solve(g, 0, cria_graph_ops(g), mesh, o, plan, &err);
    if (status == CRIA_ERR_INFEASIBLE && o->memory_limit >= 0) return false;
    if (status != CRIA_OK) fail_msg("%s on %d x %d: %s", cria_graph_name(g), mesh->size[0], mesh->size[1], err.message);
    if (o->memory_limit >= 0) assert_true(plan->peak_bytes <= o->memory_limit);
    return true;
}

static void play_and_count(const cria_graph *g, const cria_mesh *mesh, const cria_intra_options *o,
                           cria_intra_result *plan, tally *count) {
    count->moved += plan->objective > 0;
    if (play(g, mesh, o, plan))
        count->even++;
    else
        count->uneven++;
    cria_intra_result_deinit(plan);
}

/* Plans of many kinds come from costs of many kinds: on every mesh, as Alpa or free of its wishes, and with parameters
 * gathered at every step or, with less memory than those take, kept in parts. */
static void play_net(const char *spec, tally *count) {
    static const int meshes[][2] = {{1, 2}, {4, 1}, {2, 2}, {2, 3}, {3, 2}, {1, 5}, {2, 4}};
    static const double betas[][2] = {{1, 1}, {1, 0.01}, {0.01, 1}};
    cria_graph *g;
    cria_error err = {0};
    if (cria_network_create(spec, &g, &err) != CRIA_OK) fail_msg("%s: %s", spec, err.message);
    for (size_t i = 0; i < sizeof meshes / sizeof *meshes; i++) {
        cria_mesh mesh = {.size = {meshes[i][0], meshes[i][1]}, .alpha = {1, 1}};
        cria_intra_options o;
        cria_intra_result plan;
        memcpy(mesh.beta, betas[i % 3], sizeof mesh.beta);
        cria_intra_defaults(&o);
        o.strategies.allow_replicated = false;
        if (i % 2) cria_intra_as_alpa(&mesh, &o);
        solve(g, &mesh, &o, &plan);
        play_and_count(g, &mesh, &o, &plan, count);
        memcpy(mesh.beta, betas[(i + 1) % 3], sizeof mesh.beta);
        cria_intra_defaults(&o);
        mesh.tie = 0;
        mesh.fractional = false;
        o.strategies.allow_replicated = false;
        o.gather_parameters = true;
        solve(g, &mesh, &o, &plan);
        int64_t peak = plan.peak_bytes;
        play_and_count(g, &mesh, &o, &plan, count);
        o.memory_limit = peak * 8 / 10;
        if (solve(g, &mesh, &o, &plan)) play_and_count(g, &mesh, &o, &plan, count);
    }
    cria_graph_destroy(g);
}

static void plans_of_training_steps_give_the_numbers_of_one_device(void **state) {
    (void)state;
    tally count = {0};
    play_net("mlp:layers=3,hidden=8,batch=16,bias=1,relu=1,train=1", &count);
    play_net("mlp:layers=2,hidden=24,batch=12,train=1,loss=1", &count);
    assert_true(count.even > 10 && count.moved > 40);
}

static void uneven_parts_give_the_numbers_of_one_device_too(void **state) {
    (void)state;
    tally count = {0};
    play_net("mlp:layers=2,hidden=7,batch=11,bias=1,train=1", &count);
    play_net("mlp:layers=3,hidden=13,batch=5,train=1", &count);
    assert_true(count.uneven > 25 && count.moved > 40);
}

static void plans_of_the_published_networks_give_the_numbers_of_one_device(void **state) {
    (void)state;
    tally count = {0};
    play_net("attention:batch=4,seq=4,hidden=8,heads=4", &count);
    play_net("gpt:layers=1,hidden=8,heads=4,seq=4,batch=4,vocab=12", &count);
    play_net("gpt:layers=1,hidden=12,heads=3,seq=5,batch=5,vocab=11,tied=1,adam=0", &count);
    play_net("moe:layers=2,hidden=8,heads=2,seq=4,batch=4,vocab=8,experts=4,group=8", &count);
    play_net("wide-resnet:layers=14,image=8,channels=2,width=1,classes=6,batch=4,adam=0", &count);
    assert_true(count.even > 40 && count.uneven > 20 && count.moved > 80);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_of_training_steps_give_the_numbers_of_one_device),
        cmocka_unit_test(uneven_parts_give_the_numbers_of_one_device_too),
        cmocka_unit_test(plans_of_the_published_networks_give_the_numbers_of_one_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
