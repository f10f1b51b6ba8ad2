/* cria plan --published: the cost model's predictions beside the published GPT measurements. */
#include "server/commands/plan_published.h"
#include "server/commands/commands.h"

#include "parallel/plan/published.h"

#include <math.h>
#include <stdio.h>

cria_status cria_plan_published(const cria_cluster *host, bool json, bool planned, cria_error *err) {
    static const char *const names[] = {"Alpa", "Megatron-LM"};
    double sum = 0, held_back = 0;
    int points = 0, later = 0;
    if (!json) printf("GPUs  model  method       measured  predicted  error   plan priced (TFLOP/s a GPU)\n");
    for (int i = 0; i < CRIA_PUBLISHED_POINTS; i++) {
        const cria_published_point *p = cria_published_point_of(i);
        int devices = p->hosts * p->devices;
        for (int m = CRIA_PUBLISHED_ALPA; m <= CRIA_PUBLISHED_MEGATRON; m++) {
            cria_plan_summary s;
            CRIA_TRY(cria_published_predict(host, i, (cria_published_method)m, &s, err));
            if (!s.feasible)
                return cria_fail(err, CRIA_ERR_INFEASIBLE, "%s's plan of %s on %d GPUs: %s", names[m], p->size, devices,
                                 s.why);
            double measured = m ? p->megatron : p->alpa, error = s.flops / 1e12 / measured - 1;
            sum += fabs(error);
            points++;
            if (devices > 8) {
                held_back += fabs(error);
                later++;
            }
            if (json)
                printf("{\"devices\": %d, \"size\": \"%s\", \"method\": \"%s\", \"measured\": %g, \"predicted\": %.3f, "
                       "\"error\": %.4f}\n",
                       devices, p->size, names[m], measured, s.flops / 1e12, error);
            else
                printf("%4d  %-5s  %-11s  %8.1f  %9.1f  %+5.1f%%  %d stages, %d micro-batches of %lld\n", devices,
                       p->size, names[m], measured, s.flops / 1e12, 100 * error, s.stages, s.micro_batches,
                       (long long)s.micro_batch);
        }
        if (!planned) continue;
        cria_plan_summary own;
        CRIA_TRY(cria_published_plan(host, i, &own, err));
        if (!json)
            printf("%4d  %-5s  cria's own             %9.1f          %d stages, %d micro-batches of %lld\n", devices,
                   p->size, own.flops / 1e12, own.stages, own.micro_batches, (long long)own.micro_batch);
    }
    if (json)
        printf("{\"mean_error\": %.4f, \"mean_error_over_8\": %.4f}\n", sum / points, held_back / later);
    else
        printf("mean error %.1f%% over all %d points, %.1f%% over the %d points with more than 8 GPUs\n",
               100 * sum / points, points, 100 * held_back / later, later);
    return CRIA_OK;
}
