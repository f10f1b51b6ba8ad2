/* Fuzzing the recognition of chat templates: any text is an error with a message, or a template that renders. */
#include "server/api/template.h"
#include "tests/fuzz/require.h"
#include "tests/http/toy_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const cria_message messages[] = {
        {"system", "s", 1}, {"user", "u\0v", 3}, {"assistant", "", 0}, {"user", " ? ", 3}, {"assistant", "a", 1}};
    char *text = malloc(size + 1);
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    text[size] = 0;
    cria_tokenizer tokenizer = {0};
    cria_chat_template *chat = NULL;
    cria_error err = {0};
    cria_status status = cria_chat_template_create(NULL, text, &tokenizer, &chat, &err);
    free(text); /* what it needs of the text it has copied */
    for (size_t first = 0; status == CRIA_OK && first < 2; first++) {
        for (size_t count = 1; first + count <= 5; count++) {
            cria_text out = {0};
            bool open_end = count == 5;
            status = cria_chat_template_render(chat, messages + first, count, !open_end, open_end, &out, &err);
            require(status != CRIA_OK || (!out.failed && cria_utf8_valid(out.data ? out.data : "", out.length)));
            if (status == CRIA_ERR_ARGUMENT) status = CRIA_OK; /* an order of roles that it cannot place */
            cria_text_deinit(&out);
        }
    }
    require(status == CRIA_OK || err.message[0]);
    cria_chat_template_destroy(chat);
    return 0;
}
