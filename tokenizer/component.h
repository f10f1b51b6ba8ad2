/* Reading a component of tokenizer.json: errors that name the stage and the component. For the tokenizer's own files.
 */
#ifndef CRIA_TOKENIZER_COMPONENT_H
#define CRIA_TOKENIZER_COMPONENT_H

#include "base/json.h"
#include "tokenizer/pieces.h"
#include "tokenizer/regex.h"

/* The component's "type". `stage` ("normalizer", "decoder", ...) goes into messages. */
cria_status cria_component_type(const cria_json_value *component, const char *stage, const char **type,
                                cria_error *err);
/* Fails: this component, or this value of one of its members, is not known. */
cria_status cria_component_unknown(const char *stage, const char *what, cria_error *err);
/* A string member that has to be there; it may hold NUL. */
cria_status cria_component_text(const cria_json_value *component, const char *stage, const char *key, const char **text,
                                size_t *length, cria_error *err);
/* "pattern": {"String": ...} or {"Regex": ...}, compiled. *literal (may be NULL) tells which. */
cria_status cria_component_pattern(const cria_json_value *component, const char *stage, cria_regex **out, bool *literal,
                                   cria_error *err);
/* "behavior" */
cria_status cria_component_behaviour(const cria_json_value *component, const char *stage, cria_split_behaviour *out,
                                     cria_error *err);
/* Metaspace's "replacement" and whether and where it prepends one (its "prepend_scheme", or "add_prefix_space" in old
 * files). */
typedef enum { CRIA_PREPEND_NEVER, CRIA_PREPEND_FIRST, CRIA_PREPEND_ALWAYS } cria_prepend_scheme;
cria_status cria_component_metaspace(const cria_json_value *component, const char *stage, const char **replacement,
                                     size_t *length, cria_prepend_scheme *scheme, cria_error *err);

#endif
