/* The chat templates. Sources: the chat_template of SmolLM2, Qwen2, Llama-2, Llama-3, Zephyr and Mistral checkpoints,
 * and the prompt of Stanford Alpaca. */
#include "server/api/template.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum { CHATML, SMOLLM2, LLAMA2, LLAMA3, ZEPHYR, MISTRAL, ALPACA, PLAIN, KIND_COUNT } template_kind;

static const char *const names[KIND_COUNT] = {"chatml", "smollm2", "llama-2", "llama-3",
                                              "zephyr", "mistral", "alpaca",  "plain"};

struct cria_chat_template {
    template_kind kind;
    char *system; /* what stands in for a missing system message; NULL: nothing */
    char *bos, *eos;
    bool dates;       /* llama-3.1 and later: the system message begins with two dates */
    bool today;       /* the second one is today's, not a fixed one */
    const char *open; /* mistral: before and after a user's message, before an assistant's */
    const char *close;
    const char *answer;
};

static const char smollm2_system[] = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
static const char alpaca_system[] =
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.";

const char *cria_chat_template_names(void) {
    return "chatml, smollm2, llama-2, llama-3, zephyr, mistral, alpaca, plain";
}

const char *cria_chat_template_name(const cria_chat_template *chat) {
    return names[chat->kind];
}

static char *entry_text(const cria_tokenizer *tokenizer, int32_t id) {
    size_t length = 0;
    const char *entry = id >= 0 ? cria_tokenizer_entry(tokenizer, id, &length) : NULL;
    return strndup(entry ? entry : "", entry ? length : 0);
}

/* ChatML templates that bring a system message of their own have it as a literal: the text between these marks, with no
 * quote or brace inside. */
static char *literal_system(const char *text) {
    static const char *const marks[] = {"<|im_start|>system\\n", "<|im_start|>system\n"};
    for (size_t m = 0; m < 2; ++m) {
        for (const char *p = strstr(text, marks[m]); p; p = strstr(p, marks[m])) {
            p += strlen(marks[m]);
            const char *end = strstr(p, "<|im_end|>");
            if (end && end > p && strcspn(p, "'\"{}") > (size_t)(end - p)) return strndup(p, (size_t)(end - p));
        }
    }
    return NULL;
}

static bool has(const char *text, const char *part) {
    return strstr(text, part) != NULL;
}

static cria_status recognise(const char *text, template_kind *kind, cria_error *err) {
    if (!text) {
        return cria_fail(err, CRIA_ERR_NOT_FOUND,
                         "the tokenizer has no chat template: choose one with --chat-template (%s)",
                         cria_chat_template_names());
    }
    if (!cria_utf8_valid(text, strlen(text))) {
        return cria_fail(err, CRIA_ERR_FORMAT, "the checkpoint's chat template is not valid UTF-8");
    }
    if (has(text, "<|im_start|>")) {
        *kind = CHATML;
    } else if (has(text, "<|start_header_id|>")) {
        *kind = LLAMA3;
    } else if (has(text, "<<SYS>>")) {
        *kind = LLAMA2;
    } else if (has(text, "[INST]")) {
        *kind = MISTRAL;
    } else if (has(text, "<|user|>") && has(text, "eos_token")) {
        *kind = ZEPHYR;
    } else if (has(text, "### Instruction:")) {
        *kind = ALPACA;
    } else {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED,
                         "the checkpoint's chat template is not recognised: choose one with --chat-template (%s)",
                         cria_chat_template_names());
    }
    return CRIA_OK;
}

static cria_status find_kind(const char *name, const char *text, template_kind *kind, cria_error *err) {
    if (!name) return recognise(text, kind, err);
    for (int k = 0; k < KIND_COUNT; ++k) {
        if (strcmp(name, names[k]) == 0) {
            *kind = (template_kind)k;
            return CRIA_OK;
        }
    }
    return cria_fail(err, CRIA_ERR_ARGUMENT, "--chat-template '%s' is unknown; known are %s", name,
                     cria_chat_template_names());
}

/* Versions of the Mistral template differ in their spaces alone. */
static void mistral_spaces(cria_chat_template *chat, const char *text) {
    chat->open = has(text, "' [INST] '") || has(text, "\" [INST] \"") ? " [INST] " : "[INST] ";
    chat->close = has(text, "'[/INST]'") || has(text, "\"[/INST]\"") ? "[/INST]" : " [/INST]";
    chat->answer = has(text, "' ' + message") || has(text, "\" \" + message") ? " " : "";
}

cria_status cria_chat_template_create(const char *name, const char *text, const cria_tokenizer *tokenizer,
                                      cria_chat_template **out, cria_error *err) {
    template_kind kind;
    CRIA_TRY(find_kind(name, text, &kind, err));
    cria_chat_template *chat = calloc(1, sizeof *chat);
    if (!chat) return cria_fail(err, CRIA_ERR_MEMORY, "chat template: out of memory");
    chat->kind = kind;
    chat->bos = entry_text(tokenizer, cria_tokenizer_bos(tokenizer));
    chat->eos = entry_text(tokenizer, cria_tokenizer_eos(tokenizer));
    const char *shown = text && !name ? text : "";
    if (kind == CHATML) chat->system = literal_system(shown);
    if (kind == SMOLLM2) chat->system = strdup(smollm2_system);
    if (kind == ALPACA) chat->system = strdup(alpaca_system);
    chat->dates = has(shown, "Cutting Knowledge Date");
    chat->today = has(shown, "strftime_now");
    mistral_spaces(chat, shown);
    if (!chat->bos || !chat->eos) {
        cria_chat_template_destroy(chat);
        return cria_fail(err, CRIA_ERR_MEMORY, "chat template: out of memory");
    }
    *out = chat;
    return CRIA_OK;
}

void cria_chat_template_destroy(cria_chat_template *chat) {
    if (!chat) return;
    free(chat->system);
    free(chat->bos);
    free(chat->eos);
    free(chat);
}

static bool is(const cria_message *message, const char *role) {
    return strcmp(message->role, role) == 0;
}

static void put(cria_text *out, const char *text) {
    cria_text_puts(out, text);
}

static void put_content(cria_text *out, const cria_message *message) {
    cria_text_append(out, message->content, message->length);
}

/* The bytes of the white space that `text` begins with; 0: none. As Python's str.isspace has it. */
static size_t space_at(const char *text, size_t length) {
    uint32_t cp = 0;
    int n = length ? cria_utf8_decode(text, length, &cp) : 0;
    return n > 0 && (cria_unicode_is_space(cp) || (cp >= 0x1c && cp <= 0x1f)) ? (size_t)n : 0;
}

/* Without the white space at both ends, as Jinja's `trim` and Python's strip() leave it. */
static void put_trimmed(cria_text *out, const char *text, size_t length) {
    for (size_t n = 1; n;) {
        n = space_at(text, length);
        text += n;
        length -= n;
    }
    size_t kept = 0;
    for (size_t at = 0; at < length;) {
        uint32_t cp;
        int n = cria_utf8_decode(text + at, length - at, &cp);
        bool space = space_at(text + at, length - at) > 0;
        at += n > 0 ? (size_t)n : 1;
        if (!space) kept = at;
    }
    cria_text_append(out, text, kept);
}

static void put_trimmed_content(cria_text *out, const cria_message *message) {
    put_trimmed(out, message->content, message->length);
}

static void render_chatml(const cria_chat_template *chat, const cria_message *messages, size_t count, bool generation,
                          bool open_end, cria_text *out) {
    if (chat->system && !is(&messages[0], "system")) {
        put(out, "<|im_start|>system\n");
        put(out, chat->system);
        put(out, "<|im_end|>\n");
    }
    for (size_t i = 0; i < count; ++i) {
        put(out, "<|im_start|>");
        put(out, messages[i].role);
        put(out, "\n");
        put_content(out, &messages[i]);
        if (!(open_end && i + 1 == count)) put(out, "<|im_end|>\n");
    }
    if (generation) put(out, "<|im_start|>assistant\n");
}

static void put_header(cria_text *out, const char *role) {
    put(out, "<|start_header_id|>");
    put(out, role);
    put(out, "<|end_header_id|>\n\n");
}

static void render_llama3(const cria_chat_template *chat, const cria_message *messages, size_t count, bool generation,
                          bool open_end, cria_text *out) {
    put(out, chat->bos);
    size_t first = 0;
    if (chat->dates) {
        char today[32] = "26 Jul 2024"; /* what the checkpoint's template says where it does not ask for the time */
        time_t now = time(NULL);
        struct tm parts;
        if (chat->today && gmtime_r(&now, &parts)) strftime(today, sizeof today, "%d %b %Y", &parts);
        put_header(out, "system");
        cria_text_printf(out, "Cutting Knowledge Date: December 2023\nToday Date: %s\n\n", today);
        if (is(&messages[0], "system")) put_trimmed_content(out, &messages[first++]);
        put(out, "<|eot_id|>");
    }
    for (size_t i = first; i < count; ++i) {
        put_header(out, messages[i].role);
        put_trimmed_content(out, &messages[i]);
        if (!(open_end && i + 1 == count)) put(out, "<|eot_id|>");
    }
    if (generation) put_header(out, "assistant");
}

static void render_zephyr(const cria_chat_template *chat, const cria_message *messages, size_t count, bool generation,
                          bool open_end, cria_text *out) {
    for (size_t i = 0; i < count; ++i) {
        cria_text_printf(out, "<|%s|>\n", messages[i].role);
        put_content(out, &messages[i]);
        if (!(open_end && i + 1 == count)) {
            put(out, chat->eos);
            put(out, "\n");
        }
    }
    if (generation) put(out, "<|assistant|>\n");
}

/* Llama-2 and Mistral know no role of their own for the system message, and want users and assistants by turns. */
static cria_status check_turns(const cria_message *messages, size_t count, cria_error *err) {
    size_t first = is(&messages[0], "system");
    for (size_t i = first; i < count; ++i) {
        if (!is(&messages[i], (i - first) % 2 ? "assistant" : "user")) {
            return cria_fail(err, CRIA_ERR_ARGUMENT,
                             "Conversation roles must alternate user/assistant/user/assistant/...");
        }
    }
    return count == first ? cria_fail(err, CRIA_ERR_ARGUMENT, "the conversation has no user message") : CRIA_OK;
}

/* Trimmed as one: white space before the user's words stays. */
static void put_system_and_user(cria_text *out, const cria_message *system, const cria_message *user) {
    cria_text both = {0};
    put(&both, "<<SYS>>\n");
    put_content(&both, system);
    put(&both, "\n<</SYS>>\n\n");
    put_content(&both, user);
    put_trimmed(out, both.data, both.length);
    if (both.failed) out->failed = true;
    cria_text_deinit(&both);
}

static cria_status render_llama2(const cria_chat_template *chat, const cria_message *messages, size_t count,
                                 bool open_end, cria_text *out, cria_error *err) {
    CRIA_TRY(check_turns(messages, count, err));
    size_t first = is(&messages[0], "system");
    for (size_t i = first; i < count; ++i) {
        if (is(&messages[i], "user")) {
            put(out, chat->bos);
            put(out, "[INST] ");
            if (i == first && first) {
                put_system_and_user(out, &messages[0], &messages[i]);
            } else {
                put_trimmed_content(out, &messages[i]);
            }
            put(out, " [/INST]");
        } else {
            put(out, " ");
            put_trimmed_content(out, &messages[i]);
            if (open_end && i + 1 == count) break;
            put(out, " ");
            put(out, chat->eos);
        }
    }
    return CRIA_OK;
}

static cria_status render_mistral(const cria_chat_template *chat, const cria_message *messages, size_t count,
                                  bool open_end, cria_text *out, cria_error *err) {
    CRIA_TRY(check_turns(messages, count, err));
    size_t first = is(&messages[0], "system");
    put(out, chat->bos);
    for (size_t i = first; i < count; ++i) {
        if (is(&messages[i], "user")) {
            put(out, chat->open);
            if (i == first && first) {
                put_content(out, &messages[0]);
                put(out, "\n\n");
            }
            put_content(out, &messages[i]);
            put(out, chat->close);
        } else {
            put(out, chat->answer);
            put_content(out, &messages[i]);
            if (!(open_end && i + 1 == count)) put(out, chat->eos);
        }
    }
    return CRIA_OK;
}

static void render_alpaca(const cria_chat_template *chat, const cria_message *messages, size_t count, bool generation,
                          bool open_end, cria_text *out) {
    if (!is(&messages[0], "system")) {
        put(out, chat->system);
        put(out, "\n\n");
    }
    for (size_t i = 0; i < count; ++i) {
        if (is(&messages[i], "user")) put(out, "### Instruction:\n");
        if (is(&messages[i], "assistant")) put(out, "### Response:\n");
        put_content(out, &messages[i]);
        if (!(open_end && i + 1 == count)) put(out, "\n\n");
    }
    if (generation) put(out, "### Response:\n");
}

/* For models that never saw a chat: the messages as paragraphs, nothing else. */
static void render_plain(const cria_message *messages, size_t count, bool open_end, cria_text *out) {
    for (size_t i = 0; i < count; ++i) {
        put_content(out, &messages[i]);
        if (!(open_end && i + 1 == count)) put(out, "\n");
    }
}

cria_status cria_chat_template_render(const cria_chat_template *chat, const cria_message *messages, size_t count,
                                      bool generation, bool open_end, cria_text *out, cria_error *err) {
    if (!count) {
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "Cannot apply chat template to an empty conversation. Provide at least one message.");
    }
    switch (chat->kind) {
    case CHATML:
    case SMOLLM2:
        render_chatml(chat, messages, count, generation, open_end, out);
        break;
    case LLAMA3:
        render_llama3(chat, messages, count, generation, open_end, out);
        break;
    case ZEPHYR:
        render_zephyr(chat, messages, count, generation, open_end, out);
        break;
    case LLAMA2:
        CRIA_TRY(render_llama2(chat, messages, count, open_end, out, err));
        break;
    case MISTRAL:
        CRIA_TRY(render_mistral(chat, messages, count, open_end, out, err));
        break;
    case ALPACA:
        render_alpaca(chat, messages, count, generation, open_end, out);
        break;
    case PLAIN:
    case KIND_COUNT:
        render_plain(messages, count, open_end, out);
        break;
    }
    return out->failed ? cria_fail(err, CRIA_ERR_MEMORY, "chat template: out of memory") : CRIA_OK;
}
