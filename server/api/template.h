/* Chat templates: the common ones, written out in C, recognised from the checkpoint's own template by what only they
 * contain. No template language runs here: a template from outside is only looked at. Any thread once made. */
#ifndef CRIA_SERVER_API_TEMPLATE_H
#define CRIA_SERVER_API_TEMPLATE_H

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cria_chat_template cria_chat_template;

typedef struct {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
    size_t length;
} cria_message;

/* `name`: one of cria_chat_template_names, or NULL to recognise `text`. CRIA_ERR_NOT_FOUND where there is no text,
 * CRIA_ERR_UNSUPPORTED where it is none of the known, CRIA_ERR_ARGUMENT for an unknown name. `tokenizer` gives the
 * texts of BOS and EOS. */
cria_status cria_chat_template_create(const char *name, const char *text, const cria_tokenizer *tokenizer,
                                      cria_chat_template **out, cria_error *err);
void cria_chat_template_destroy(cria_chat_template *chat);
const char *cria_chat_template_name(const cria_chat_template *chat);
/* "chatml, smollm2, ..." */
const char *cria_chat_template_names(void);

/* Appends the prompt. `generation`: with the beginning of the assistant's answer. `open_end`: the last message is left
 * open, to be continued. Roles that the template cannot place are CRIA_ERR_ARGUMENT. */
cria_status cria_chat_template_render(const cria_chat_template *chat, const cria_message *messages, size_t count,
                                      bool generation, bool open_end, cria_text *out, cria_error *err);

#endif
