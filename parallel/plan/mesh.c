/* Mesh: costs of the collectives, and the rule by which an extent is cut into parts. */
#include "parallel/plan/mesh.h"

#include <math.h>

double cria_mesh_all_gather(const cria_mesh *mesh, int axis, double bytes) {
    double n = mesh->size[axis];
    if (n < 2) return 0;
    return mesh->alpha[axis] + mesh->beta[axis] * (n - 1) / n * bytes + 0.1 * mesh->tie;
}

double cria_mesh_all_reduce(const cria_mesh *mesh, int axis, double bytes) {
    double n = mesh->size[axis];
    if (n < 2) return 0;
    return mesh->alpha[axis] + mesh->beta[axis] * 2 * (n - 1) / n * bytes + 0.01 * mesh->tie;
}

double cria_mesh_reduce_scatter(const cria_mesh *mesh, int axis, double bytes) {
    double n = mesh->size[axis];
    if (n < 2) return 0;
    return mesh->alpha[axis] + mesh->beta[axis] * (n - 1) / n * bytes + 0.001 * mesh->tie;
}

/* The factor n / 2 is Alpa's penalty: an all-to-all sends to every peer at once, which rings do badly. */
double cria_mesh_all_to_all(const cria_mesh *mesh, int axis, double bytes) {
    double n = mesh->size[axis];
    if (n < 2) return 0;
    return mesh->alpha[axis] + mesh->beta[axis] * (n - 1) / n / n * bytes * n / 2 + 0.001 * mesh->tie;
}

int64_t cria_cut(int64_t extent, int64_t unit, int parts, const double *share, int index) {
    if (index <= 0) return 0;
    if (index >= parts) return extent;
    if (unit < 1) unit = 1;
    int64_t blocks = (extent + unit - 1) / unit, at;
    if (!share) {
        /* blocks * index / parts without overflow. */
        at = blocks / parts * index + blocks % parts * index / parts;
    } else {
        double before = 0, total = 0;
        for (int i = 0; i < parts; i++) {
            if (i < index) before += share[i];
            total += share[i];
        }
        at = total > 0 ? (int64_t)floor((double)blocks * (before / total) + 0.5) : 0;
        if (at > blocks) at = blocks;
    }
    int64_t begin = at * unit;
    return begin < extent ? begin : extent;
}

int64_t cria_cut_longest(int64_t extent, int64_t unit, int parts, const double *share) {
    if (unit < 1) unit = 1;
    if (!share && extent % unit == 0) return (extent / unit + parts - 1) / parts * unit;
    int64_t longest = 0;
    for (int i = 0; i < parts; i++) {
        int64_t length = cria_cut(extent, unit, parts, share, i + 1) - cria_cut(extent, unit, parts, share, i);
        if (length > longest) longest = length;
    }
    return longest;
}
