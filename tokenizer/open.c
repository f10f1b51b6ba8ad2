/* Opening the tokenizer of a Hugging Face folder: which files there are, and what the ones beside the vocabulary say.
 */
#include "base/file.h"
#include "base/utf8.h"
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096 };
#define FILE_LIMIT ((size_t)256 << 20)

typedef struct {
    const char *folder;
    cria_json *tokenizer, *vocabulary, *config, *special_map, *added_tokens, *model_config;
} sources;

static bool has(const char *folder, const char *name) {
    char path[PATH_SIZE];
    return cria_path_join(folder, name, path, sizeof path, NULL) == CRIA_OK && cria_path_is_file(path);
}

/* Parses folder/name; leaves *out NULL where there is no such file. */
static cria_status parse_file(const char *folder, const char *name, cria_json **out, cria_error *err) {
    char path[PATH_SIZE];
    CRIA_TRY(cria_path_join(folder, name, path, sizeof path, err));
    if (!cria_path_is_file(path)) return CRIA_OK;
    return cria_json_parse_file(path, FILE_LIMIT, out, err);
}

static const cria_json_value *root(const cria_json *json) {
    return json ? cria_json_root(json) : NULL;
}

static cria_status map_file(const char *folder, const char *name, cria_mapping *out, cria_error *err) {
    char path[PATH_SIZE];
    CRIA_TRY(cria_path_join(folder, name, path, sizeof path, err));
    CRIA_TRY(cria_mapping_open(path, out, err));
    if (out->size <= FILE_LIMIT) return CRIA_OK;
    cria_mapping_close(out);
    return cria_fail(err, CRIA_ERR_FORMAT, "%s is larger than %zu bytes", path, FILE_LIMIT);
}

static cria_status read_bpe(cria_tokenizer *tokenizer, sources *s, cria_error *err) {
    cria_mapping merges = {0};
    CRIA_TRY(parse_file(s->folder, "vocab.json", &s->vocabulary, err));
    CRIA_TRY(map_file(s->folder, "merges.txt", &merges, err));
    const char *text = merges.data ? (const char *)merges.data : "";
    cria_status status = cria_tokenizer_read_bpe(tokenizer, root(s->vocabulary), text, merges.size, err);
    cria_mapping_close(&merges);
    return status;
}

static cria_status read_sentencepiece(cria_tokenizer *tokenizer, sources *s, cria_error *err) {
    cria_mapping model = {0};
    CRIA_TRY(map_file(s->folder, "tokenizer.model", &model, err));
    cria_status status = cria_tokenizer_read_sentencepiece(tokenizer, model.data, model.size, err);
    cria_mapping_close(&model);
    /* transformers' `legacy`: whether text after a special token gets a space before it too. */
    if (status == CRIA_OK) {
        status = cria_json_get_bool(root(s->config), "legacy", false, &tokenizer->prefix_every_piece, err);
    }
    return status;
}

static cria_status read_vocabulary(cria_tokenizer *tokenizer, sources *s, cria_error *err) {
    if (has(s->folder, "tokenizer.json")) {
        CRIA_TRY(parse_file(s->folder, "tokenizer.json", &s->tokenizer, err));
        return cria_tokenizer_read_json(tokenizer, root(s->tokenizer), err);
    }
    if (has(s->folder, "vocab.json") && has(s->folder, "merges.txt")) return read_bpe(tokenizer, s, err);
    if (has(s->folder, "tokenizer.model")) return read_sentencepiece(tokenizer, s, err);
    return cria_fail(err, CRIA_ERR_NOT_FOUND,
                     "%s has no tokenizer.json, no vocab.json with merges.txt, and no tokenizer.model", s->folder);
}

static char *copy_text(const char *text, size_t length) {
    char *copy = malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

/* A whole text file, if it is there. */
static cria_status read_text(const char *folder, const char *name, char **out, cria_error *err) {
    cria_mapping file = {0};
    if (!has(folder, name)) return CRIA_OK;
    CRIA_TRY(map_file(folder, name, &file, err));
    const char *bytes = file.data ? (const char *)file.data : "";
    bool valid = cria_utf8_valid(bytes, file.size) && !memchr(bytes, 0, file.size);
    *out = valid ? copy_text(bytes, file.size) : NULL;
    cria_mapping_close(&file);
    if (*out) return CRIA_OK;
    if (!valid) return cria_fail(err, CRIA_ERR_FORMAT, "%s/%s is not UTF-8 text", folder, name);
    return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %s/%s", folder, name);
}

/* "chat_template": a string, or a list of {name, template} of which "default" counts, else the first. */
static const cria_json_value *find_chat_template(const cria_json_value *config) {
    const cria_json_value *value = cria_json_get(config, "chat_template"), *chosen = NULL;
    if (cria_json_type_of(value) != CRIA_JSON_ARRAY) return value;
    for (const cria_json_value *v = cria_json_first(value); v; v = cria_json_next(v)) {
        const char *name = NULL;
        bool is_default = cria_json_get_string(v, "name", "", &name, NULL) == CRIA_OK && strcmp(name, "default") == 0;
        if (is_default || !chosen) chosen = cria_json_get(v, "template");
        if (is_default) break;
    }
    return chosen;
}

static cria_status read_texts(cria_tokenizer *tokenizer, sources *s, cria_error *err) {
    CRIA_TRY(read_text(s->folder, "tokenizer_config.json", &tokenizer->config_json, err));
    CRIA_TRY(read_text(s->folder, "chat_template.jinja", &tokenizer->chat_template, err));
    const cria_json_value *value = find_chat_template(root(s->config));
    if (tokenizer->chat_template || cria_json_type_of(value) != CRIA_JSON_STRING) return CRIA_OK;
    size_t length = 0;
    const char *text = cria_json_text(value, &length);
    tokenizer->chat_template = copy_text(text, length);
    return tokenizer->chat_template ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the chat template");
}

static cria_status read_all(cria_tokenizer *tokenizer, sources *s, cria_error *err) {
    CRIA_TRY(parse_file(s->folder, "tokenizer_config.json", &s->config, err));
    CRIA_TRY(parse_file(s->folder, "special_tokens_map.json", &s->special_map, err));
    CRIA_TRY(parse_file(s->folder, "added_tokens.json", &s->added_tokens, err));
    CRIA_TRY(parse_file(s->folder, "config.json", &s->model_config, err));
    CRIA_TRY(read_vocabulary(tokenizer, s, err));
    cria_tokenizer_files files = {.config = root(s->config),
                                  .special_map = root(s->special_map),
                                  .added_tokens = root(s->added_tokens),
                                  .model_config = root(s->model_config)};
    CRIA_TRY(cria_tokenizer_read_special(tokenizer, &files, err));
    CRIA_TRY(cria_added_finish(tokenizer->added, tokenizer->normalizer, err));
    return read_texts(tokenizer, s, err);
}

cria_status cria_tokenizer_open(const char *folder, cria_tokenizer **out, cria_error *err) {
    *out = NULL;
    if (!cria_path_is_folder(folder)) return cria_fail(err, CRIA_ERR_NOT_FOUND, "%s is not a folder", folder);
    cria_tokenizer *tokenizer = cria_tokenizer_create();
    if (!tokenizer) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a tokenizer");
    sources s = {.folder = folder};
    cria_status status = read_all(tokenizer, &s, err);
    cria_json_destroy(s.tokenizer);
    cria_json_destroy(s.vocabulary);
    cria_json_destroy(s.config);
    cria_json_destroy(s.special_map);
    cria_json_destroy(s.added_tokens);
    cria_json_destroy(s.model_config);
    if (status != CRIA_OK) {
        cria_tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return CRIA_OK;
}
