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

cria_status cria_serving_plan(const cria_graph *graph, const cria_cluster *cluster, const cria_stages_options *options,
                              double request_rate, cria_stages_result *out, cria_error *err) {
    enum { MOST_AT_ONCE = 8192 };
    cria_error local = {0};
    double most = 0;
    int64_t most_batch = 0;
    char limit[160] = "";
    for (int64_t batch = 1; batch <= MOST_AT_ONCE; batch *= 2) {
        cria_stages_options one = *options;
        one.batch = batch;
        cria_status status = cria_stages_plan(graph, cluster, &one, out, &local);
        if (status == CRIA_ERR_INFEASIBLE && batch > 1) {
            snprintf(limit, sizeof limit, "; %lld at once: %.120s", (long long)batch, local.message);
            break;
        }
        if (status != CRIA_OK) return cria_fail(err, status, "%s", local.message);
        out->capacity = out->chosen.tokens_per_second / (double)options->new_tokens;
        out->request_rate = request_rate;
        if (out->capacity >= request_rate) return CRIA_OK;
        if (out->capacity > most) {
            most = out->capacity;
            most_batch = batch;
        }
        cria_stages_result_deinit(out);
    }
    return cria_fail(err, CRIA_ERR_INFEASIBLE,
                     "no plan keeps up with %g requests a second: %.4g at most, %lld at once%s", request_rate, most,
                     (long long)most_batch, limit);
}
