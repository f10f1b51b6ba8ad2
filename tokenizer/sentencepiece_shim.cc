// The one C++ file: the SentencePiece library behind a C interface that lets no exception out.
#include "tokenizer/sentencepiece_shim.h"

extern "C" {
#include "base/utf8.h"
}

#include <sentencepiece_processor.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

struct cria_sentencepiece {
    sentencepiece::SentencePieceProcessor with_prefix, without_prefix;
    std::vector<bool> known; // code points that occur in some piece
};

// The library joins neighbouring unknown characters to one id, in time quadratic in their number: a megabyte of them
// took 83 s. So long texts are cut between unknown characters, where no piece can lie across, and encoded in parts.
namespace {

constexpr size_t PART_BYTES = 4096, WINDOW = 16; // WINDOW code points around a cut are looked at: normalisation rules
                                                 // that lie across it are shorter

void find_known(cria_sentencepiece *s) {
    s->known.assign(0x110000, false);
    for (int id = 0; id < s->with_prefix.GetPieceSize(); ++id) {
        const std::string &piece = s->with_prefix.IdToPiece(id);
        uint32_t code;
        for (size_t at = 0; at < piece.size();) {
            int n = cria_utf8_decode(piece.data() + at, piece.size() - at, &code);
            if (n > 0) s->known[code] = true;
            at += n > 0 ? static_cast<size_t>(n) : 1;
        }
    }
}

// The text is one unknown id, and nothing is added behind it.
bool is_unknown(const cria_sentencepiece *s, absl::string_view text) {
    int unknown = s->with_prefix.unk_id();
    std::vector<int> ids;
    if (!s->with_prefix.Encode(text, &ids).ok() || ids.empty() || ids.back() != unknown) return false;
    return s->without_prefix.Encode(text, &ids).ok() && ids == std::vector<int>{unknown};
}

// The first place at or behind `at` where the text may be cut; its length if there is none.
size_t find_cut(const cria_sentencepiece *s, const char *text, size_t length, size_t at) {
    size_t count = 0, start = at, middle = at;
    uint32_t code;
    while (at < length && (text[at] & 0xC0) == 0x80) ++at;
    for (int n; at < length; at += static_cast<size_t>(n)) {
        n = cria_utf8_decode(text + at, length - at, &code);
        if (n <= 0) return length;
        if (count == 0) start = at;
        if (count == WINDOW / 2) middle = at;
        count = s->known[code] ? 0 : count + 1;
        if (count < WINDOW) continue;
        if (is_unknown(s, absl::string_view(text + start, at + static_cast<size_t>(n) - start))) return middle;
        count = 0;
    }
    return length;
}

bool encode(const cria_sentencepiece *s, bool prefix, const char *text, size_t length, std::vector<int> *all) {
    std::vector<int> ids;
    for (size_t at = 0, end;; at = end) {
        end = length - at > PART_BYTES ? find_cut(s, text, length, at + PART_BYTES) : length;
        const auto &processor = prefix && at == 0 ? s->with_prefix : s->without_prefix;
        if (!processor.Encode(absl::string_view(text + at, end - at), &ids).ok()) return false;
        // Behind a cut the unknown id goes on that is there already.
        all->insert(all->end(), ids.begin() + (at > 0 && !ids.empty()), ids.end());
        if (end == length) return true;
    }
}

} // namespace

extern "C" {

cria_sentencepiece *cria_sentencepiece_open(const void *model, size_t size, char *error, size_t error_size) {
    cria_sentencepiece *made = nullptr;
    try {
        made = new cria_sentencepiece;
        std::string bytes(static_cast<const char *>(model), size);
        sentencepiece::util::Status status = made->with_prefix.LoadFromSerializedProto(bytes);
        if (status.ok()) {
            // Messages that follow each other are merged: normalizer_spec (3) { add_dummy_prefix (3): false }.
            bytes.append("\x1A\x02\x18\x00", 4);
            status = made->without_prefix.LoadFromSerializedProto(bytes);
        }
        if (status.ok()) {
            find_known(made);
            return made;
        }
        std::snprintf(error, error_size, "%s", status.ToString().c_str());
    } catch (const std::exception &e) {
        std::snprintf(error, error_size, "%s", e.what());
    }
    delete made;
    return nullptr;
}

void cria_sentencepiece_destroy(cria_sentencepiece *sentencepiece) {
    delete sentencepiece;
}

int32_t cria_sentencepiece_size(const cria_sentencepiece *sentencepiece) {
    return sentencepiece->with_prefix.GetPieceSize();
}

const char *cria_sentencepiece_piece(const cria_sentencepiece *sentencepiece, int32_t id, size_t *length,
                                     cria_piece_type *type) {
    const sentencepiece::SentencePieceProcessor &p = sentencepiece->with_prefix;
    const std::string &piece = p.IdToPiece(id);
    *length = piece.size();
    *type = p.IsUnknown(id)   ? CRIA_PIECE_UNKNOWN
            : p.IsControl(id) ? CRIA_PIECE_CONTROL
            : p.IsUnused(id)  ? CRIA_PIECE_UNUSED
            : p.IsByte(id)    ? CRIA_PIECE_BYTE
                              : CRIA_PIECE_NORMAL;
    return piece.data();
}

int32_t cria_sentencepiece_bos(const cria_sentencepiece *sentencepiece) {
    return sentencepiece->with_prefix.bos_id();
}

int32_t cria_sentencepiece_eos(const cria_sentencepiece *sentencepiece) {
    return sentencepiece->with_prefix.eos_id();
}

bool cria_sentencepiece_encode(const cria_sentencepiece *sentencepiece, bool prefix, const char *text, size_t length,
                               cria_sentencepiece_sink *sink, void *context) {
    try {
        std::vector<int> ids;
        if (!encode(sentencepiece, prefix, text, length, &ids)) return false;
        return sink(context, ids.data(), ids.size());
    } catch (const std::exception &) {
        return false;
    }
}

int64_t cria_sentencepiece_decode(const cria_sentencepiece *sentencepiece, const int32_t *ids, size_t count, char *out,
                                  size_t size) {
    try {
        std::string text;
        if (!sentencepiece->with_prefix.Decode(std::vector<int>(ids, ids + count), &text).ok()) return -1;
        std::memcpy(out, text.data(), text.size() < size ? text.size() : size);
        return static_cast<int64_t>(text.size());
    } catch (const std::exception &) {
        return -1;
    }
}

} // extern "C"
