/* JSON: parsing through cJSON behind checks that cJSON does not make, and typed access whose errors name the key.
 *
 * The only module that includes cJSON. Values are read-only views into the parsed document. A document belongs to one
 * thread at a time. Every null member counts as absent, as OpenAI clients expect. Where a key stands twice, the last
 * wins (as Python's json does). */
#ifndef CRIA_BASE_JSON_H
#define CRIA_BASE_JSON_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cria_json cria_json;   /* a parsed document, owns everything */
typedef struct cJSON cria_json_value; /* a value inside a document; NULL stands for absent */

typedef enum {
    CRIA_JSON_NULL,
    CRIA_JSON_BOOL,
    CRIA_JSON_NUMBER,
    CRIA_JSON_STRING,
    CRIA_JSON_ARRAY,
    CRIA_JSON_OBJECT
} cria_json_type;

/* Parses `length` bytes that need not be NUL-terminated. Invalid UTF-8, anything after the value, nesting over 200 and
 * numbers that are no JSON number are CRIA_ERR_FORMAT with the byte offset. NaN, Infinity and -Infinity are accepted as
 * numbers (as Python's json does) so that a range check can name the key. Lone surrogates in \u escapes become U+FFFD.
 * \u0000 in strings is kept: use cria_json_text with its length, never strlen. */
cria_status cria_json_parse(const char *bytes, size_t length, cria_json **out, cria_error *err);
/* Maps and parses a whole file of at most `limit_bytes`; messages name the path. */
cria_status cria_json_parse_file(const char *path, size_t limit_bytes, cria_json **out, cria_error *err);
void cria_json_destroy(cria_json *json);
const cria_json_value *cria_json_root(const cria_json *json);

cria_json_type cria_json_type_of(const cria_json_value *value); /* absent counts as CRIA_JSON_NULL */
const char *cria_json_type_name(cria_json_type type);

/* Object access; each takes the object and a key. `get` returns NULL where the key is absent or null. */
const cria_json_value *cria_json_get(const cria_json_value *object, const char *key);
/* Array or object children in order: for (v = cria_json_first(a); v; v = cria_json_next(v)). First is NULL if empty. */
const cria_json_value *cria_json_first(const cria_json_value *container);
const cria_json_value *cria_json_next(const cria_json_value *value);
/* The key of an object's child (NUL-terminated; U+0000 inside it stands as the two bytes C0 80). "" for an array's
 * child. */
const char *cria_json_key(const cria_json_value *value);
size_t cria_json_size(const cria_json_value *container);

/* Values. `text` is valid only for strings: UTF-8, may hold NUL, also NUL-terminated. */
const char *cria_json_text(const cria_json_value *value, size_t *length);
double cria_json_number(const cria_json_value *value);
bool cria_json_bool(const cria_json_value *value);
/* True if the value is a number without a fraction within int64, which is then stored. Exact over the whole range. */
bool cria_json_int(const cria_json_value *value, int64_t *out);

/* Typed members with a default where absent; a wrong type or a value outside [min, max] is CRIA_ERR_ARGUMENT that names
 * the key, the limit and the value. */
cria_status cria_json_get_int(const cria_json_value *object, const char *key, int64_t fallback, int64_t min,
                              int64_t max, int64_t *out, cria_error *err);
cria_status cria_json_get_double(const cria_json_value *object, const char *key, double fallback, double min,
                                 double max, double *out, cria_error *err);
cria_status cria_json_get_bool(const cria_json_value *object, const char *key, bool fallback, bool *out,
                               cria_error *err);
/* NUL inside the string is an error. The pointer lives as long as the document. */
cria_status cria_json_get_string(const cria_json_value *object, const char *key, const char *fallback, const char **out,
                                 cria_error *err);

/* CRIA_ERR_FORMAT unless the value under `key` (NULL: missing) has the type; the message names both. */
cria_status cria_json_want(const cria_json_value *value, cria_json_type type, const char *key, cria_error *err);

#endif
