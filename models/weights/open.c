/* Opening a checkpoint: finding out what a path holds, following shard indexes, reading every file. */
#include "base/json.h"
#include "models/weights/reader.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATH_BYTES = 4096, INDEX_LIMIT_BYTES = 256 << 20 };

typedef cria_status reader_function(cria_weights *weights, uint32_t file, cria_error *err);

/* A checkpoint format that keeps many tensors in one file or in shards. The names are those of save_pretrained. */
typedef struct {
    const char *format, *single, *index, *prefix, *suffix;
    reader_function *read;
} container;

static const container CONTAINERS[] = {
    {"safetensors", "model.safetensors", "model.safetensors.index.json", "", ".safetensors", cria_safetensors_read},
    {"pytorch", "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model", ".bin", cria_pytorch_read},
    {"gguf", NULL, NULL, "", ".gguf", cria_gguf_read},
};
enum { CONTAINER_COUNT = sizeof CONTAINERS / sizeof *CONTAINERS };

static bool begins_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* --- folders --------------------------------------------------------------------------------------------------- */

typedef struct {
    cria_arena *arena;
    char **names;
    size_t count;
} listing;

static void listing_deinit(listing *list) {
    cria_arena_destroy(list->arena);
    free(list->names);
    *list = (listing){0};
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The entries of a folder in byte order, hidden ones left out. */
static cria_status list_folder(const char *folder, listing *out, cria_error *err) {
    *out = (listing){.arena = cria_arena_create(4096, 0)};
    DIR *directory = out->arena ? opendir(folder) : NULL;
    if (!directory) {
        int code = errno;
        bool no_memory = !out->arena;
        listing_deinit(out);
        if (no_memory) return cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory", folder);
        return cria_fail(err, CRIA_ERR_IO, "%s: %s", folder, strerror(code));
    }
    bool failed = false;
    size_t capacity = 0;
    for (struct dirent *entry; !failed && (entry = readdir(directory));) {
        if (entry->d_name[0] == '.') continue;
        if (out->count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            char **moved = realloc(out->names, capacity * sizeof *moved);
            if (moved) out->names = moved;
            failed = !moved;
        }
        char *copy = failed ? NULL : cria_arena_copy(out->arena, entry->d_name, strlen(entry->d_name));
        if (copy)
            out->names[out->count++] = copy;
        else
            failed = true;
    }
    closedir(directory);
    if (failed) {
        listing_deinit(out);
        return cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory", folder);
    }
    if (out->count) qsort(out->names, out->count, sizeof *out->names, by_name);
    return CRIA_OK;
}

static bool has_name(const listing *list, const char *name) {
    return list->count && bsearch(&name, list->names, list->count, sizeof *list->names, by_name) != NULL;
}

/* --- shards ---------------------------------------------------------------------------------------------------- */

static cria_status read_file(cria_weights *weights, const char *folder, const char *name, reader_function *read,
                             uint32_t *file, cria_error *err) {
    char path[PATH_BYTES];
    CRIA_TRY(cria_path_join(folder, name, path, sizeof path, err));
    CRIA_TRY(cria_weights_map(weights, path, file, err));
    return read(weights, *file, err);
}

/* Reads each shard that the map names once; `shards` remembers which file number it got. */
static cria_status read_shard(cria_weights *weights, const container *kind, const char *folder, const char *index,
                              const cria_json_value *entry, cria_names *shards, cria_error *err) {
    size_t length;
    const char *tensor = cria_json_key(entry);
    const char *shard = cria_json_type_of(entry) == CRIA_JSON_STRING ? cria_json_text(entry, &length) : NULL;
    /* A name that leads out of the folder could make a checkpoint read any file. */
    if (!shard || length != strlen(shard) || strchr(shard, '/') || !ends_with(shard, kind->suffix)) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: is not mapped to a %s file of this folder", index,
                         tensor, kind->suffix);
    }
    uint32_t file;
    if (!cria_names_find(shards, shard, length, &file)) {
        CRIA_TRY(read_file(weights, folder, shard, kind->read, &file, err));
        if (cria_names_add(shards, shard, length, file) != CRIA_NAMES_ADDED) {
            return cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory", index);
        }
    }
    const cria_weight_view *view = cria_weights_find(weights, tensor);
    if (view && view->file == file) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: is not in %s, where the index says it is", index, tensor,
                     shard);
}

static cria_status read_index(cria_weights *weights, const container *kind, const char *folder, cria_error *err) {
    char path[PATH_BYTES];
    cria_json *json = NULL;
    CRIA_TRY(cria_path_join(folder, kind->index, path, sizeof path, err));
    CRIA_TRY(cria_json_parse_file(path, INDEX_LIMIT_BYTES, &json, err));
    const cria_json_value *map = cria_json_get(cria_json_root(json), "weight_map");
    cria_names shards = {0};
    cria_status status = CRIA_OK;
    if (cria_json_type_of(map) != CRIA_JSON_OBJECT || cria_json_size(map) == 0) {
        status = cria_fail(err, CRIA_ERR_FORMAT, "%s: has no weight_map", kind->index);
    }
    for (const cria_json_value *v = cria_json_first(map); status == CRIA_OK && v; v = cria_json_next(v)) {
        status = read_shard(weights, kind, folder, kind->index, v, &shards, err);
    }
    cria_names_deinit(&shards);
    cria_json_destroy(json);
    return status;
}

/* --- formats --------------------------------------------------------------------------------------------------- */

/* One container format, from whichever of its files there is; the order is that of transformers. */
static cria_status open_container(const container *kind, const char *folder, const listing *list, cria_weights **out,
                                  cria_error *err) {
    const char *only = NULL;
    size_t found = 0;
    uint32_t file;
    for (size_t i = 0; i < list->count; i++) {
        if (!ends_with(list->names[i], kind->suffix) || !begins_with(list->names[i], kind->prefix)) continue;
        only = list->names[i];
        found++;
    }
    bool single = kind->single && has_name(list, kind->single), index = kind->index && has_name(list, kind->index);
    if (!single && !index && found == 0) return CRIA_OK;
    if (!single && !index && found > 1) {
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "%s: holds %zu %s files and no index that says how they belong together", folder, found,
                         kind->suffix);
    }
    CRIA_TRY(cria_weights_create(kind->format, out, err));
    if (!single && index) return read_index(*out, kind, folder, err);
    return read_file(*out, folder, single ? kind->single : only, kind->read, &file, err);
}

/* Alpa's folder: the file's name is the tensor's. */
static cria_status open_npy(const char *folder, const listing *list, cria_weights **out, cria_error *err) {
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->names[i];
        if (!ends_with(name, ".weight") && !ends_with(name, ".bias")) continue;
        char path[PATH_BYTES];
        uint32_t file;
        if (!*out) CRIA_TRY(cria_weights_create("npy", out, err));
        CRIA_TRY(cria_path_join(folder, name, path, sizeof path, err));
        CRIA_TRY(cria_weights_map(*out, path, &file, err));
        CRIA_TRY(cria_npy_read(*out, file, name, err));
    }
    return CRIA_OK;
}

static cria_status open_folder(const char *folder, cria_weights **out, cria_error *err) {
    listing list;
    CRIA_TRY(list_folder(folder, &list, err));
    cria_status status = CRIA_OK;
    for (int i = 0; status == CRIA_OK && !*out && i < CONTAINER_COUNT; i++) {
        status = open_container(&CONTAINERS[i], folder, &list, out, err);
    }
    if (status == CRIA_OK && !*out) status = open_npy(folder, &list, out, err);
    listing_deinit(&list);
    if (status == CRIA_OK && !*out) {
        status =
            cria_fail(err, CRIA_ERR_NOT_FOUND,
                      "%s: holds no weights (*.safetensors, pytorch_model*.bin, *.gguf or Alpa's NPY files)", folder);
    }
    return status;
}

static cria_status open_file(const char *path, cria_weights **out, cria_error *err) {
    for (int i = 0; i < CONTAINER_COUNT; i++) {
        if (!ends_with(path, CONTAINERS[i].suffix)) continue;
        uint32_t file;
        CRIA_TRY(cria_weights_create(CONTAINERS[i].format, out, err));
        CRIA_TRY(cria_weights_map(*out, path, &file, err));
        return CONTAINERS[i].read(*out, file, err);
    }
    return cria_fail(err, CRIA_ERR_ARGUMENT, "%s: is no folder and no .gguf, .safetensors or .bin file", path);
}

cria_status cria_weights_open(const char *path, cria_weights **out, cria_error *err) {
    *out = NULL;
    cria_weights *weights = NULL;
    cria_status status;
    if (cria_path_is_folder(path))
        status = open_folder(path, &weights, err);
    else if (cria_path_is_file(path))
        status = open_file(path, &weights, err);
    else
        status = cria_fail(err, CRIA_ERR_NOT_FOUND, "%s: no such file or folder", path);
    if (status == CRIA_OK && cria_weights_count(weights) == 0) {
        status = cria_fail(err, CRIA_ERR_FORMAT, "%s: holds no tensors", path);
    }
    if (status == CRIA_OK)
        *out = weights;
    else
        cria_weights_close(weights);
    return status;
}
