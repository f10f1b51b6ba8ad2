/* Metrics: vLLM's names in Prometheus text, so that dashboards made for it work. Gauges and most counters are the
 * engine's figures at the moment of the scrape; histograms fill up here. Only the HTTP thread. */
#ifndef CRIA_SERVER_METRICS_METRICS_H
#define CRIA_SERVER_METRICS_METRICS_H

#include "parallel/plan/plan_file.h"
#include "server/api/generation.h"

typedef struct cria_metrics cria_metrics;

cria_status cria_metrics_create(cria_metrics **out, cria_error *err);
void cria_metrics_destroy(cria_metrics *metrics);

/* A request was read; `generation` may have failed to enter the engine. */
void cria_metrics_request(cria_metrics *metrics, const cria_generation *generation);
/* A token of a choice that is not done yet has come. `start_ns`: when the request's head was there. */
void cria_metrics_token(cria_metrics *metrics, cria_choice *choice, uint64_t start_ns);
/* The engine's FINISH of a choice that is done and was not aborted: those that nobody waited for are left out of the
 * times. Its time ends with its last token: behind a stop string the engine hears of the end a step later. */
void cria_metrics_end(cria_metrics *metrics, const cria_choice *choice, const cria_event *event, uint64_t start_ns);
/* A sequence ended: for this reason as its client sees it. */
void cria_metrics_finish(cria_metrics *metrics, const char *finish_reason);
/* A request was refused because the engine's queue is full. */
void cria_metrics_refuse(cria_metrics *metrics);

/* The whole page. `stats` may be NULL while the model loads. */
void cria_metrics_write(const cria_metrics *metrics, const cria_engine_stats *stats, const char *model_name,
                        cria_text *out);
/* What follows it: the plan's stages, what was predicted of them (`notes`; may be NULL) and `bytes`, [stages], the
 * memory of the fullest rank of each (may be NULL). Names begin with cria:, vLLM has no such figures. */
void cria_metrics_write_stages(cria_engine *engine, const cria_plan_notes *notes, const int64_t *bytes,
                               const char *model_name, cria_text *out);

#endif
