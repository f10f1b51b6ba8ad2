/* Fields: typed members of a request body, with errors as vLLM words them. Null counts as absent. Any thread. */
#ifndef CRIA_SERVER_API_FIELD_H
#define CRIA_SERVER_API_FIELD_H

#include "base/json.h"
#include "server/api/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each leaves *out as it is and says true through *present (may be NULL) only where the key is there. */
cria_status cria_field_int(const cria_json_value *object, const char *key, int64_t *out, bool *present,
                           cria_api_error *err);
/* NaN and infinities are refused here, so that range checks need not think of them. */
cria_status cria_field_double(const cria_json_value *object, const char *key, double *out, bool *present,
                              cria_api_error *err);
cria_status cria_field_bool(const cria_json_value *object, const char *key, bool *out, bool *present,
                            cria_api_error *err);
/* The text lives as long as the document and may hold NUL. */
cria_status cria_field_text(const cria_json_value *object, const char *key, const char **out, size_t *length,
                            cria_api_error *err);
/* An array of integers in [0, limit): NULL and 0 where absent. The array is malloc'ed; more than `max` is
 * refused. */
cria_status cria_field_ids(const cria_json_value *object, const char *key, int64_t limit, size_t max, int32_t **out,
                           size_t *count, cria_api_error *err);

/* A value as pydantic's `input` shows it: the text itself, a number, or "<list of 2 items>". */
void cria_field_describe(const cria_json_value *value, char *out, size_t size);
/* A number as Python prints a float: 2 is "2.0". */
void cria_field_float(double value, char out[32]);

#endif
