// The one C++ file: the SentencePiece library behind a C interface that lets no exception out.
#include "tokenizer/sentencepiece_shim.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

struct cria_sentencepiece {
    sentencepiece::SentencePieceProcessor with_prefix, without_prefix;
};

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
        if (status.ok()) return made;
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
        const auto &processor = prefix ? sentencepiece->with_prefix : sentencepiece->without_prefix;
        std::vector<int> ids;
        if (!processor.Encode(absl::string_view(text, length), &ids).ok()) return false;
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
