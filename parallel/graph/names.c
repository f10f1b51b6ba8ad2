/* Names of dims and tensors, and the units at which dims are cut. */
#include "parallel/graph/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cria_graph_grow(void **array, int count, int *capacity, size_t size) {
    if (count < *capacity) return true;
    int wanted = *capacity ? *capacity * 2 : 64;
    void *bigger = realloc(*array, (size_t)wanted * size);
    if (!bigger) return false;
    *array = bigger;
    *capacity = wanted;
    return true;
}

static bool add_name(cria_dim_table *table, const char *name) {
    if (!cria_graph_grow((void **)&table->entry, table->count, &table->capacity, sizeof *table->entry)) return false;
    cria_dim_entry *entry = &table->entry[table->count++];
    *entry = (cria_dim_entry){.unit = 1};
    snprintf(entry->text, sizeof entry->text, "%s", name);
    return true;
}

bool cria_dim_table_init(cria_dim_table *table) {
    static const char *const fixed[CRIA_DIM_COUNT] = {"token",    "row", "hidden", "embed",    "head",  "kv_head",
                                                      "head_dim", "ffn", "vocab",  "position", "batch", "sequence"};
    *table = (cria_dim_table){0};
    for (int i = 0; i < CRIA_DIM_COUNT; i++)
        if (!add_name(table, fixed[i])) return false;
    static const cria_dim_name batch[] = {CRIA_DIM_TOKEN, CRIA_DIM_ROW, CRIA_DIM_BATCH};
    for (size_t i = 0; i < sizeof batch / sizeof *batch; i++) table->entry[batch[i]].batch = true;
    return true;
}

void cria_dim_table_deinit(cria_dim_table *table) {
    free(table->entry);
    free(table->link);
}

/* Words that stand beside the names of dims in plan files. */
static bool is_reserved(const char *name) {
    return strcmp(name, "idle") == 0 || strcmp(name, "partial") == 0 || strcmp(name, "whole") == 0;
}

int cria_dim_table_find(cria_dim_table *table, const char *name, const char **why) {
    for (int i = 0; i < table->count; i++)
        if (strcmp(table->entry[i].text, name) == 0) return i;
    *why = "the name of a dim has 1 to 31 bytes and is not idle, partial or whole";
    if (!name[0] || strlen(name) >= sizeof table->entry->text || is_reserved(name)) return -1;
    *why = "no room for another dim";
    if (table->count >= CRIA_MAX_DIM_NAMES || !add_name(table, name)) return -1;
    return table->count - 1;
}

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The least common multiple of a name's unit and `unit`. Units that are longer than any dim leave it whole, so they
 * need not grow beyond that. Returns whether it changed. */
static bool raise_one(cria_dim_table *table, cria_dim_name name, int64_t unit) {
    int64_t *have = &table->entry[name].unit, common;
    if (unit < 1 || __builtin_mul_overflow(*have / gcd(*have, unit), unit, &common) || common > CRIA_MAX_ELEMENTS)
        common = CRIA_MAX_ELEMENTS;
    bool changed = common != *have;
    *have = common;
    return changed;
}

/* Makes the units of linked names agree: they only grow, so that this ends. */
static void settle(cria_dim_table *table) {
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = 0; i < table->links; i++) {
            const cria_dim_link *link = &table->link[i];
            bool *one = &table->entry[link->large].batch, *other = &table->entry[link->small].batch;
            changed = changed || *one != *other;
            *one = *other = *one || *other;
            int64_t wanted;
            if (__builtin_mul_overflow(table->entry[link->small].unit, link->ratio, &wanted))
                wanted = CRIA_MAX_ELEMENTS;
            changed = raise_one(table, link->large, wanted) || changed;
            int64_t large = table->entry[link->large].unit;
            wanted = large < CRIA_MAX_ELEMENTS ? large / link->ratio : CRIA_MAX_ELEMENTS;
            changed = raise_one(table, link->small, wanted) || changed;
        }
    }
}

void cria_dim_table_raise(cria_dim_table *table, cria_dim_name name, int64_t unit) {
    if (raise_one(table, name, unit)) settle(table);
}

const char *cria_dim_table_link(cria_dim_table *table, cria_dim_name large, cria_dim_name small, int64_t ratio) {
    if (large == small) return NULL;
    for (int i = 0; i < table->links; i++)
        if (table->link[i].large == large && table->link[i].small == small && table->link[i].ratio == ratio)
            return NULL;
    if (table->links >= CRIA_MAX_DIM_NAMES ||
        !cria_graph_grow((void **)&table->link, table->links, &table->link_capacity, sizeof *table->link))
        return "no room for another reshape of the dim";
    table->link[table->links++] = (cria_dim_link){large, small, ratio};
    settle(table);
    return NULL;
}

void cria_tensor_index_deinit(cria_tensor_index *index) {
    free(index->slot);
}

/* FNV-1a. */
static uint32_t hash_of(const char *name) {
    uint32_t hash = 2166136261U;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619U;
    return hash;
}

/* The slot of a name, or the free one where it would be. */
static int slot_of(const cria_tensor_index *index, const cria_tensor *tensors, const char *name) {
    uint32_t mask = (uint32_t)index->capacity - 1, at = hash_of(name) & mask;
    while (index->slot[at] >= 0 && strcmp(tensors[index->slot[at]].name, name) != 0) at = (at + 1) & mask;
    return (int)at;
}

int cria_tensor_index_find(const cria_tensor_index *index, const cria_tensor *tensors, const char *name) {
    return index->capacity ? index->slot[slot_of(index, tensors, name)] : CRIA_NO_TENSOR;
}

bool cria_tensor_index_add(cria_tensor_index *index, const cria_tensor *tensors, int id) {
    if (2 * index->count >= index->capacity) {
        cria_tensor_index bigger = {.count = index->count, .capacity = index->capacity ? 2 * index->capacity : 256};
        bigger.slot = malloc((size_t)bigger.capacity * sizeof *bigger.slot);
        if (!bigger.slot) return false;
        for (int i = 0; i < bigger.capacity; i++) bigger.slot[i] = CRIA_NO_TENSOR;
        for (int i = 0; i < index->capacity; i++)
            if (index->slot[i] >= 0)
                bigger.slot[slot_of(&bigger, tensors, tensors[index->slot[i]].name)] = index->slot[i];
        free(index->slot);
        *index = bigger;
    }
    index->slot[slot_of(index, tensors, tensors[id].name)] = id;
    index->count++;
    return true;
}

/* Long names lose their ends to the number, cut on a code point as everywhere. Tries double, so that a thousand of one
 * name do not cost a million tries. */
void cria_tensor_index_unique(const cria_tensor_index *index, const cria_tensor *tensors, char name[96]) {
    if (cria_tensor_index_find(index, tensors, name) < 0) return;
    char tail[24], tried[96];
    int64_t low = 1, high = 2;
    for (;;) {
        int length = snprintf(tail, sizeof tail, " %lld", (long long)high);
        size_t keep = strlen(name), most = sizeof tried - 1 - (size_t)length;
        if (keep > most) keep = most;
        while (keep > 0 && keep < strlen(name) && ((unsigned char)name[keep] & 0xC0) == 0x80) keep--;
        memcpy(tried, name, keep);
        memcpy(tried + keep, tail, (size_t)length + 1);
        bool taken = cria_tensor_index_find(index, tensors, tried) >= 0;
        if (!taken && high - low <= 1) break;
        if (taken)
            low = high, high *= 2;
        else
            high = low + (high - low) / 2 > low ? low + (high - low) / 2 : low + 1;
    }
    memcpy(name, tried, strlen(tried) + 1);
}

void cria_tensor_index_drop(cria_tensor_index *index, const cria_tensor *tensors, int id) {
    /* The tensors behind it in its run may have been put there because of it: put them in again. */
    uint32_t mask = (uint32_t)index->capacity - 1, at = (uint32_t)slot_of(index, tensors, tensors[id].name);
    index->slot[at] = CRIA_NO_TENSOR;
    index->count--;
    for (at = (at + 1) & mask; index->slot[at] >= 0; at = (at + 1) & mask) {
        int moved = index->slot[at];
        index->slot[at] = CRIA_NO_TENSOR;
        index->slot[slot_of(index, tensors, tensors[moved].name)] = moved;
    }
}
