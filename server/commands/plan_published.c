/* cria plan --published: the cost model's predictions beside the published GPT measurements. */
#include "server/commands/plan_published.h"
#include "server/commands/commands.h"

#include "parallel/plan/ablation.h"
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

static void print_measured(double seconds, char text[16]) {
    if (seconds < 0)
        snprintf(text, 16, "-");
    else if (seconds == 0)
        snprintf(text, 16, "no memory");
    else
        snprintf(text, 16, "%.3f", seconds);
}

cria_status cria_plan_ablation(const cria_cluster *host, bool json, cria_error *err) {
    if (!json)
        printf("seconds of a step; measured by Alpa, predicted here, part of it that is communication, memory\n\n"
               "%-11s  %4s  %-13s  %9s  %9s  %6s  %8s  %s\n",
               "net", "GPUs", "way", "measured", "predicted", "comm.", "GB", "shape");
    for (int i = 0; i < CRIA_ABLATION_SETTINGS; i++) {
        const cria_ablation_setting *setting = cria_ablation_setting_of(i);
        for (int way = 0; way < CRIA_ABLATION_WAYS; way++) {
            cria_ablation_result r;
            CRIA_TRY(cria_ablation_predict(host, i, (cria_ablation_way)way, &r, err));
            const char *name = cria_ablation_name((cria_ablation_way)way);
            if (json) {
                printf("{\"net\": \"%s\", \"devices\": %d, \"way\": \"%s\", \"measured\": %g, \"predicted\": %.6g, "
                       "\"communication\": %.6g, \"bytes\": %lld, \"fits\": %s, \"shape\": [%d, %d]}\n",
                       setting->family, setting->devices, name, setting->measured[way], r.seconds, r.communication,
                       (long long)r.peak_bytes, r.fits ? "true" : "false", r.size[0], r.size[1]);
                continue;
            }
            char measured[16];
            print_measured(setting->measured[way], measured);
            printf("%-11s  %4d  %-13s  %9s  %9.3f  %5.1f%%  %8.1f  %dx%d%s\n", setting->family, setting->devices, name,
                   measured, r.seconds, 100 * r.communication / r.seconds, (double)r.peak_bytes / 1e9, r.size[0],
                   r.size[1], r.fits ? "" : ", over the memory");
        }
    }
    return CRIA_OK;
}
