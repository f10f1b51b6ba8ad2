/* Lengths and rates of requests. */
#include "parallel/plan/serving.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool read_number(const char **at, char before, double *out) {
    if (before) {
        if (**at != before) return false;
        ++*at;
    }
    char *end;
    if (**at < '0' || **at > '9') return false;
    *out = strtod(*at, &end);
    *at = end;
    return *out > 0 && *out <= 1e6;
}

cria_status cria_serving_lengths(const char *text, cria_stages_options *options, cria_error *err) {
    /* Sums over requests: how many, tokens, and what tokens see, by prompts [0] and answers [1]. */
    double requests = 0, tokens[2] = {0, 0}, seen[2] = {0, 0};
    const char *at = text;
    do {
        double prompt, answer, weight = 1;
        if (at != text) at++;
        bool good = read_number(&at, 0, &prompt) && read_number(&at, ':', &answer) &&
                    (*at != '*' || read_number(&at, '*', &weight));
        if (!good || (*at && *at != ','))
            return cria_fail(
                err, CRIA_ERR_ARGUMENT,
                "--lengths %.100s: at \"%.20s\": not PROMPT:NEW or PROMPT:NEW*COUNT with numbers up to 1e6", text, at);
        requests += weight;
        tokens[0] += weight * prompt;
        tokens[1] += weight * answer;
        seen[0] += weight * prompt * prompt / 2;
        seen[1] += weight * answer * (prompt + answer / 2);
    } while (*at == ',');
    options->prompt_tokens = (int64_t)fmax(1, round(tokens[0] / requests));
    options->new_tokens = (int64_t)fmax(1, round(tokens[1] / requests));
    options->prompt_context = seen[0] / tokens[0];
    options->new_context = seen[1] / tokens[1];
    return CRIA_OK;
}

cria_queue cria_serving_queue(double rate, int64_t slots, double capacity) {
    double seconds = (double)slots / capacity, load = rate * seconds;
    /* Erlang's B by its recursion, as the inverse, which grows without bound where nobody is turned away. */
    double inverse = 1;
    for (int64_t k = 1; k <= slots && inverse < HUGE_VAL; k++) inverse = 1 + inverse * (double)k / load;
    double turned_away = 1 / inverse, busy = load / (double)slots;
    cria_queue q = {.slots = slots, .running = load, .delayed = turned_away / (1 - busy * (1 - turned_away))};
    q.wait = q.delayed * seconds / ((double)slots - load) / 2;
    return q;
}

/* What stands in the way of more. */
typedef struct {
    double capacity;
    int64_t batch;
    char limit[160];
} furthest;

/* Tries one number of requests at once; false: it does not fit, or the status says why. */
static bool try_batch(const cria_graph *graph, const cria_cluster *cluster, const cria_stages_options *options,
                      int64_t batch, double rate, cria_stages_result *out, furthest *most, cria_status *status,
                      cria_error *err) {
    cria_stages_options one = *options;
    one.batch = batch;
    *status = cria_stages_plan(graph, cluster, &one, out, err);
    if (*status == CRIA_ERR_INFEASIBLE && batch > 1) {
        snprintf(most->limit, sizeof most->limit, "; %lld at once: %.120s", (long long)batch, err->message);
        *status = CRIA_OK;
        return false;
    }
    if (*status != CRIA_OK) return false;
    out->capacity = out->chosen.tokens_per_second / (double)options->new_tokens;
    out->request_rate = rate;
    if (out->capacity > most->capacity) {
        most->capacity = out->capacity;
        most->batch = batch;
    }
    return true;
}

cria_status cria_serving_plan(const cria_graph *graph, const cria_cluster *cluster, const cria_stages_options *options,
                              double request_rate, cria_stages_result *out, cria_error *err) {
    enum { MOST_AT_ONCE = 8192 };
    cria_error local = {0};
    furthest most = {0};
    cria_status status = CRIA_OK;
    double best = HUGE_VAL; /* seconds of a request, waiting included */
    *out = (cria_stages_result){0};
    for (int64_t batch = 1; batch <= MOST_AT_ONCE; batch *= 2) {
        cria_stages_result next;
        if (!try_batch(graph, cluster, options, batch, request_rate, &next, &most, &status, &local)) break;
        double seconds = HUGE_VAL;
        if (next.capacity > request_rate) {
            next.queue = cria_serving_queue(request_rate, batch, next.capacity);
            seconds = next.queue.wait + (double)batch / next.capacity;
        }
        bool better = seconds < best, known = best < HUGE_VAL;
        if (better) {
            cria_stages_result_deinit(out);
            *out = next;
            best = seconds;
            continue;
        }
        cria_stages_result_deinit(&next);
        if (known) break; /* nobody waits any more, and steps only get longer */
    }
    if (status != CRIA_OK) {
        cria_stages_result_deinit(out);
        return cria_fail(err, status, "%s", local.message);
    }
    if (best < HUGE_VAL) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_INFEASIBLE,
                     "no plan keeps up with %g requests a second: %.4g at most, %lld at once%s", request_rate,
                     most.capacity, (long long)most.batch, most.limit);
}
