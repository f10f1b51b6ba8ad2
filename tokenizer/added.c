/* Added tokens: registration, search tables, and cutting a text at them. */
#include "tokenizer/added.h"

#include "base/utf8.h"
#include "tokenizer/regex.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

/* A string to search for. Its `normalized` is that of the first registration of a special token, while the other flags
 * are always the last registration's: as in Hugging Face, where two lists are kept. */
typedef struct {
    int32_t id;
    bool special, normalized;
} pattern;

struct cria_added {
    cria_vocabulary *vocabulary;
    cria_vocabulary *shown;  /* the normalized forms of those that have one; several tokens may share a form */
    cria_added_flags *flags; /* by id, below `flags_count` */
    bool *present;
    size_t flags_count;
    pattern *patterns;
    size_t pattern_count, pattern_capacity;
    cria_trie *plain, *normalized; /* values are ids */
    cria_regex *word;              /* one word character; NULL unless a token asks for single_word */
};

/* Rust's \w, which unlike Oniguruma's has the two joiners. */
static const char word_pattern[] = "[\\w\\x{200C}\\x{200D}]";

cria_added *cria_added_create(void) {
    cria_added *added = calloc(1, sizeof *added);
    if (!added) return NULL;
    added->vocabulary = cria_vocabulary_create();
    added->shown = cria_vocabulary_create();
    added->plain = cria_trie_create();
    added->normalized = cria_trie_create();
    if (!added->vocabulary || !added->shown || !added->plain || !added->normalized) {
        cria_added_destroy(added);
        return NULL;
    }
    return added;
}

void cria_added_destroy(cria_added *added) {
    if (!added) return;
    cria_vocabulary_destroy(added->vocabulary);
    cria_vocabulary_destroy(added->shown);
    cria_trie_destroy(added->plain);
    cria_trie_destroy(added->normalized);
    cria_regex_destroy(added->word);
    free(added->flags);
    free(added->present);
    free(added->patterns);
    free(added);
}

const cria_vocabulary *cria_added_vocabulary(const cria_added *added) {
    return added->vocabulary;
}

bool cria_added_find(const cria_added *added, int32_t id, cria_added_flags *flags) {
    if (id < 0 || (size_t)id >= added->flags_count || !added->present[id]) return false;
    if (flags) *flags = added->flags[id];
    return true;
}

static cria_status reserve_flags(cria_added *added, int32_t id, cria_error *err) {
    if (id > CRIA_MAX_TOKEN_ID) return cria_fail(err, CRIA_ERR_FORMAT, "added token id %d is too large", id);
    if ((size_t)id < added->flags_count) return CRIA_OK;
    size_t count = added->flags_count * 2 > (size_t)id + 1 ? added->flags_count * 2 : (size_t)id + 1;
    cria_added_flags *flags = realloc(added->flags, count * sizeof *flags);
    if (flags) added->flags = flags;
    bool *present = realloc(added->present, count * sizeof *present);
    if (present) added->present = present;
    if (!flags || !present) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for added token %d", id);
    memset(present + added->flags_count, 0, (count - added->flags_count) * sizeof *present);
    added->flags_count = count;
    return CRIA_OK;
}

static int32_t choose_id(const cria_added *added, const cria_vocabulary *model, const char *text, size_t length,
                         int32_t wanted) {
    int32_t id = cria_vocabulary_find(added->vocabulary, text, length);
    if (id < 0) id = cria_vocabulary_find(model, text, length);
    if (id < 0) id = wanted;
    if (id >= 0) return id;
    size_t a = cria_vocabulary_size(added->vocabulary), b = cria_vocabulary_size(model);
    return (int32_t)(a > b ? a : b);
}

static bool same_flags(cria_added_flags a, cria_added_flags b) {
    return a.special == b.special && a.normalized == b.normalized && a.lstrip == b.lstrip && a.rstrip == b.rstrip &&
           a.single_word == b.single_word;
}

static bool push_pattern(cria_added *added, pattern p) {
    if (added->pattern_count == added->pattern_capacity) {
        size_t capacity = added->pattern_capacity ? added->pattern_capacity * 2 : 32;
        pattern *patterns = realloc(added->patterns, capacity * sizeof *patterns);
        if (!patterns) return false;
        added->patterns = patterns;
        added->pattern_capacity = capacity;
    }
    added->patterns[added->pattern_count++] = p;
    return true;
}

cria_status cria_added_add(cria_added *added, const cria_vocabulary *model, const char *text, size_t length,
                           cria_added_flags flags, int32_t wanted, cria_error *err) {
    if (length == 0) return CRIA_OK;
    int32_t id = choose_id(added, model, text, length, wanted);
    CRIA_TRY(reserve_flags(added, id, err));
    bool known = added->present[id] && cria_vocabulary_find(added->vocabulary, text, length) == id;
    bool was_special = known && added->flags[id].special;
    if (known && same_flags(added->flags[id], flags)) return CRIA_OK;
    CRIA_TRY(cria_vocabulary_add(added->vocabulary, id, text, length, err));
    /* Once special, always special: nothing is ever taken out of that set. */
    added->flags[id] = flags;
    added->flags[id].special = flags.special || was_special;
    added->present[id] = true;
    if (flags.single_word && !added->word)
        CRIA_TRY(cria_regex_compile(word_pattern, sizeof word_pattern - 1, &added->word, err));
    if (was_special) return CRIA_OK;
    if (!push_pattern(added, (pattern){id, flags.special, flags.normalized})) {
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for added token %d", id);
    }
    return CRIA_OK;
}

static cria_status add_normalized(cria_added *added, int32_t id, const char *text, size_t length,
                                  const cria_normalizer *normalizer, cria_error *err) {
    cria_text out = {0};
    cria_status status = cria_normalizer_run(normalizer, text, length, &out, err);
    if (status == CRIA_OK && (out.failed || !cria_trie_add(added->normalized, out.data, out.length, id))) {
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for the added tokens");
    }
    if (status == CRIA_OK) status = cria_vocabulary_add(added->shown, id, out.data ? out.data : "", out.length, err);
    cria_text_deinit(&out);
    return status;
}

static cria_status add_pattern(cria_added *added, pattern p, const cria_normalizer *normalizer, cria_error *err) {
    size_t length = 0;
    const char *text = cria_vocabulary_entry(added->vocabulary, p.id, &length);
    if (!text) return CRIA_OK;
    if (p.normalized && normalizer) return add_normalized(added, p.id, text, length, normalizer, err);
    if (cria_trie_add(p.normalized ? added->normalized : added->plain, text, length, p.id)) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the added tokens");
}

const char *cria_added_text(const cria_added *added, int32_t id, size_t *length) {
    const char *shown = cria_vocabulary_entry(added->shown, id, length);
    return shown ? shown : cria_vocabulary_entry(added->vocabulary, id, length);
}

cria_status cria_added_finish(cria_added *added, const cria_normalizer *normalizer, cria_error *err) {
    for (int special = 1; special >= 0; special--) {
        for (size_t i = 0; i < added->pattern_count; i++) {
            if (added->patterns[i].special != special) continue;
            CRIA_TRY(add_pattern(added, added->patterns[i], normalizer, err));
        }
    }
    return CRIA_OK;
}

static size_t length_at(const char *text, size_t at, size_t end, uint32_t *cp) {
    int n = cria_utf8_decode(text + at, end - at, cp);
    return n > 0 ? (size_t)n : 1;
}

/* The start of the character that ends at `at`. */
static size_t character_before(const char *text, size_t at, uint32_t *cp) {
    size_t start = at - 1;
    while (start > 0 && ((uint8_t)text[start] & 0xC0) == 0x80) start--;
    length_at(text, start, at, cp);
    return start;
}

/* True if one character is a word character; those beyond ASCII are left to the regular expression. */
static bool is_word(const cria_added *added, const char *text, size_t length, bool *failed) {
    uint8_t c = (uint8_t)text[0];
    if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
    cria_regex_scan *scan = cria_regex_scan_create(added->word);
    bool found = false;
    size_t start, end;
    if (!scan) {
        *failed = true;
        return false;
    }
    cria_regex_scan_start(scan, text, length);
    if (cria_regex_scan_next(scan, &found, &start, &end, NULL) != CRIA_OK) *failed = true;
    cria_regex_scan_destroy(scan);
    return found;
}

static bool stands_alone(const cria_added *added, const char *text, size_t length, size_t start, size_t end,
                         bool *failed) {
    uint32_t cp = 0;
    if (start > 0) {
        size_t before = character_before(text, start, &cp);
        if (is_word(added, text + before, start - before, failed)) return false;
    }
    return end >= length || !is_word(added, text + end, length_at(text, end, length, &cp), failed);
}

static size_t strip_left(const char *text, size_t start, size_t limit) {
    while (start > limit) {
        uint32_t cp = 0;
        size_t before = character_before(text, start, &cp);
        if (!cria_unicode_is_space(cp)) break;
        start = before;
    }
    return start > limit ? start : limit;
}

static size_t strip_right(const char *text, size_t end, size_t length) {
    while (end < length) {
        uint32_t cp = 0;
        size_t n = length_at(text, end, length, &cp);
        if (!cria_unicode_is_space(cp)) break;
        end += n;
    }
    return end;
}

void cria_added_split(const cria_added *added, bool normalized, bool parse_special, const char *text, cria_piece whole,
                      cria_pieces *out) {
    const cria_trie *trie = normalized ? added->normalized : added->plain;
    const char *base = text + whole.start;
    size_t done = 0, start = 0, end = 0;
    int32_t id = -1;
    for (size_t from = 0; cria_trie_find(trie, base, whole.length, from, &start, &end, &id);) {
        from = end;
        cria_added_flags flags = added->flags[id];
        if (flags.special && !parse_special) continue;
        if (flags.single_word && !stands_alone(added, base, whole.length, start, end, &out->failed)) continue;
        if (flags.lstrip) start = strip_left(base, start, done);
        if (flags.rstrip) end = strip_right(base, end, whole.length);
        if (done < start) {
            cria_pieces_push(out, (cria_piece){whole.start + done, start - done, -1, whole.first && done == 0});
        }
        cria_pieces_push(out, (cria_piece){whole.start + start, end - start, id, false});
        done = end;
    }
    if (done < whole.length) {
        cria_pieces_push(out, (cria_piece){whole.start + done, whole.length - done, -1, whole.first && done == 0});
    }
}
