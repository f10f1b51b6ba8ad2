/* Finding a model by path, by known name, or by hub id in the local Hugging Face cache. */
#include "models/resolve.h"

#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096, NAME_BYTES = 256, MODELS_FILE_LIMIT = 1 << 20, REF_LIMIT = 128 };

static const cria_known_model KNOWN[] = {
    {"smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf", NULL},
    {"opt-125m", NULL, "facebook/opt-125m"},
    {"opt-350m", NULL, "facebook/opt-350m"},
    {"opt-1.3b", NULL, "facebook/opt-1.3b"},
    {"opt-2.7b", NULL, "facebook/opt-2.7b"},
    {"opt-6.7b", NULL, "facebook/opt-6.7b"},
    {"opt-13b", NULL, "facebook/opt-13b"},
    {"opt-30b", NULL, "facebook/opt-30b"},
    {"opt-66b", NULL, "facebook/opt-66b"},
};

const cria_known_model *cria_known_models(size_t *count) {
    *count = sizeof KNOWN / sizeof *KNOWN;
    return KNOWN;
}

static bool is_set(const char *text) {
    return text && text[0];
}

static bool ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* --- places ---------------------------------------------------------------------------------------------------- */

/* $XDG_CACHE_HOME or $HOME/.cache. */
static cria_status cache_folder(const cria_model_places *places, char *out, size_t size, cria_error *err) {
    if (is_set(places->xdg_cache_home)) return cria_path_join(places->xdg_cache_home, "", out, size, err);
    if (is_set(places->home)) return cria_path_join(places->home, ".cache", out, size, err);
    return cria_fail(err, CRIA_ERR_NOT_FOUND, "there is no cache to look in: neither XDG_CACHE_HOME nor HOME is set");
}

static cria_status hub_folder(const cria_model_places *places, char *out, size_t size, cria_error *err) {
    char cache[PATH_BYTES];
    if (is_set(places->hf_hub_cache)) return cria_path_join(places->hf_hub_cache, "", out, size, err);
    if (is_set(places->hf_home)) return cria_path_join(places->hf_home, "hub", out, size, err);
    CRIA_TRY(cache_folder(places, cache, sizeof cache, err));
    return cria_path_join(cache, "huggingface/hub", out, size, err);
}

/* --- known names ----------------------------------------------------------------------------------------------- */

static cria_status resolve_file(const char *name, const char *file, const cria_model_places *places, char *out,
                                size_t size, cria_error *err) {
    char cache[PATH_BYTES], folder[PATH_BYTES];
    CRIA_TRY(cache_folder(places, cache, sizeof cache, err));
    CRIA_TRY(cria_path_join(cache, "cria", folder, sizeof folder, err));
    CRIA_TRY(cria_path_join(folder, file, out, size, err));
    if (cria_path_is_file(out)) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_NOT_FOUND, "model %s is not in the cache yet: there is no %s", name, out);
}

/* Letters, digits and "._-", and not only dots: no id leads out of the cache. */
static bool is_plain(const char *text, size_t length) {
    bool more_than_dots = false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!word && c != '.') return false;
        more_than_dots = more_than_dots || word;
    }
    return more_than_dots;
}

/* "org/name". */
static bool is_hub_id(const char *model) {
    const char *slash = strchr(model, '/');
    return slash && is_plain(model, (size_t)(slash - model)) && is_plain(slash + 1, strlen(slash + 1));
}

/* The commit that `refs/main` names. */
static bool read_ref(const char *path, char *out, size_t size) {
    cria_mapping mapping;
    if (cria_mapping_open(path, &mapping, NULL) != CRIA_OK) return false;
    size_t n = mapping.size < size ? mapping.size : size - 1;
    if (n) memcpy(out, mapping.data, n);
    while (n && (out[n - 1] == '\n' || out[n - 1] == '\r' || out[n - 1] == ' ')) n--;
    out[n] = 0;
    cria_mapping_close(&mapping);
    return n > 0 && strlen(out) == n && is_plain(out, n);
}

/* <hub>/models--org--name/snapshots/<commit of refs/main> */
static cria_status resolve_hub(const char *id, const cria_model_places *places, char *out, size_t size,
                               cria_error *err) {
    char hub[PATH_BYTES], folder[PATH_BYTES], path[PATH_BYTES], name[NAME_BYTES], snapshot[NAME_BYTES],
        commit[REF_LIMIT];
    if (!is_hub_id(id)) return cria_fail(err, CRIA_ERR_ARGUMENT, "\"%s\" is no hub id of the form org/name", id);
    const char *slash = strchr(id, '/');
    CRIA_TRY(hub_folder(places, hub, sizeof hub, err));
    int n = snprintf(name, sizeof name, "models--%.*s--%s", (int)(slash - id), id, slash + 1);
    if (n < 0 || (size_t)n >= sizeof name) return cria_fail(err, CRIA_ERR_ARGUMENT, "the hub id %s is too long", id);
    CRIA_TRY(cria_path_join(hub, name, folder, sizeof folder, err));
    CRIA_TRY(cria_path_join(folder, "refs/main", path, sizeof path, err));
    if (!read_ref(path, commit, sizeof commit)) {
        return cria_fail(err, CRIA_ERR_NOT_FOUND, "%s is not in the local Hugging Face cache: there is no %s", id,
                         path);
    }
    snprintf(snapshot, sizeof snapshot, "snapshots/%s", commit);
    CRIA_TRY(cria_path_join(folder, snapshot, out, size, err));
    if (cria_path_is_folder(out)) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_NOT_FOUND, "%s is not in the local Hugging Face cache: there is no %s", id, out);
}

static cria_status resolve_known(const cria_known_model *known, const cria_model_places *places, char *out, size_t size,
                                 cria_error *err) {
    if (!known->file) return resolve_hub(known->hub, places, out, size, err);
    /* A table that somebody edited must not lead out of the cache. */
    if (!is_plain(known->file, strlen(known->file))) {
        return cria_fail(err, CRIA_ERR_FORMAT, "model %s: \"%s\" is no file name", known->name, known->file);
    }
    return resolve_file(known->name, known->file, places, out, size, err);
}

/* Looks `model` up in a models.json; *found stays false where it is not listed. */
static cria_status resolve_listed(const char *model, const cria_model_places *places, bool *found, char *out,
                                  size_t size, cria_error *err) {
    cria_json *json = NULL;
    CRIA_TRY(cria_json_parse_file(places->models_file, MODELS_FILE_LIMIT, &json, err));
    const cria_json_value *list = cria_json_get(cria_json_root(json), "models");
    cria_status status = CRIA_OK;
    for (const cria_json_value *v = cria_json_first(list); status == CRIA_OK && !*found && v; v = cria_json_next(v)) {
        cria_known_model row = {0};
        status = cria_json_get_string(v, "name", "", &row.name, err);
        if (status == CRIA_OK) status = cria_json_get_string(v, "file", NULL, &row.file, err);
        if (status == CRIA_OK) status = cria_json_get_string(v, "hub", NULL, &row.hub, err);
        if (status == CRIA_OK && strcmp(row.name, model) != 0) continue;
        if (status == CRIA_OK && !row.file == !row.hub) {
            status = cria_fail(err, CRIA_ERR_FORMAT, "model %s needs either a file or a hub id", row.name);
        }
        if (status != CRIA_OK) {
            cria_fail_within(err, places->models_file);
            break;
        }
        *found = true;
        status = resolve_known(&row, places, out, size, err);
    }
    cria_json_destroy(json);
    return status;
}

/* --- entry point ----------------------------------------------------------------------------------------------- */

static cria_status not_found(const char *model, const cria_model_places *places, cria_error *err) {
    char hub[PATH_BYTES];
    if (hub_folder(places, hub, sizeof hub, NULL) != CRIA_OK) snprintf(hub, sizeof hub, "a Hugging Face cache");
    return cria_fail(
        err, CRIA_ERR_NOT_FOUND,
        "model \"%s\" was not found: it is no folder, no .gguf file, no name of models.json (%s, ...) and no "
        "org/name of %s",
        model, KNOWN[0].name, hub);
}

cria_status cria_model_resolve(const char *model, const cria_model_places *places, char *out, size_t size,
                               cria_error *err) {
    bool found = false;
    if (!is_set(model)) return cria_fail(err, CRIA_ERR_ARGUMENT, "the name of the model is empty");
    if (cria_path_is_folder(model) || cria_path_is_file(model)) {
        if (!cria_path_is_folder(model) && !ends_with(model, ".gguf")) {
            return cria_fail(err, CRIA_ERR_ARGUMENT, "%s is a file but no .gguf; give the folder that it lies in",
                             model);
        }
        if (strlen(model) >= size) return cria_fail(err, CRIA_ERR_ARGUMENT, "the path %s is too long", model);
        memcpy(out, model, strlen(model) + 1);
        return CRIA_OK;
    }
    if (is_set(places->models_file) && cria_path_is_file(places->models_file)) {
        cria_status status = resolve_listed(model, places, &found, out, size, err);
        if (found || status != CRIA_OK) return status;
    }
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        if (strcmp(KNOWN[i].name, model) == 0) return resolve_known(&KNOWN[i], places, out, size, err);
    }
    return is_hub_id(model) ? resolve_hub(model, places, out, size, err) : not_found(model, places, err);
}
