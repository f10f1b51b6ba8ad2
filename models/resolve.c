/* Finds the model that a name stands for. */
#include "models/resolve.h"

#include "base/file.h"

#include <stdio.h>

cria_status cria_model_resolve(const char *model, const cria_model_places *places, char *out, size_t size,
                               cria_error *err) {
    (void)places;
    if (!cria_path_is_folder(model) && !cria_path_is_file(model))
        return cria_fail(err, CRIA_ERR_NOT_FOUND, "%s: there is no such folder or file", model);
    if (snprintf(out, size, "%s", model) >= (int)size)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%s: the path is longer than %zu bytes", model, size);
    return CRIA_OK;
}
