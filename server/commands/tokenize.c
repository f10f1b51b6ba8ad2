/* `cria tokenize`: a text's token ids and their entries, or the text of given ids. */
#include "server/commands/commands.h"

#include "base/file.h"
#include "base/text.h"
#include "server/model_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cria_status print_ids(const cria_command *command, const cria_tokenizer *tokenizer, cria_text *out,
                             cria_error *err) {
    cria_ids ids = {0};
    cria_encode_options encode = {.add_special = !command->options->no_special, .parse_special = true};
    const char *prompt = command->options->prompt;
    cria_status status = cria_tokenizer_encode(tokenizer, prompt, strlen(prompt), encode, 0, &ids, err);
    bool json = command->options->json;
    if (status == CRIA_OK && json) {
        cria_text_puts(out, "{\"tokens\":[");
        for (size_t i = 0; i < ids.count; i++) cria_text_printf(out, "%s%d", i ? "," : "", ids.ids[i]);
        cria_text_printf(out, "],\"count\":%zu}\n", ids.count);
    }
    for (size_t i = 0; status == CRIA_OK && !json && i < ids.count; i++) {
        size_t length;
        const char *entry = cria_tokenizer_entry(tokenizer, ids.ids[i], &length);
        cria_text_printf(out, "%8d  ", ids.ids[i]);
        cria_text_json_string(out, entry ? entry : "", entry ? length : 0);
        cria_text_puts(out, "\n");
    }
    cria_ids_deinit(&ids);
    return status;
}

static cria_status print_text(const cria_command *command, const cria_tokenizer *tokenizer, cria_text *out,
                              cria_error *err) {
    size_t max = strlen(command->options->prompt_ids) / 2 + 1, count;
    int64_t *values = malloc(max * sizeof *values);
    int32_t *ids = malloc(max * sizeof *ids);
    cria_status status = values && ids
                             ? cria_parse_list("prompt-ids", command->options->prompt_ids, values, max, &count, err)
                             : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the ids");
    for (size_t i = 0; status == CRIA_OK && i < count; i++) ids[i] = (int32_t)values[i];
    if (status == CRIA_OK) status = cria_tokenizer_decode(tokenizer, ids, count, false, out, err);
    if (status == CRIA_OK) cria_text_puts(out, "\n");
    free(values);
    free(ids);
    return status;
}

cria_status cria_command_tokenize(const cria_command *command, cria_error *err) {
    if (!command->options->prompt && !command->options->prompt_ids)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "give a text with --prompt or ids with --prompt-ids");
    cria_tokenizer *tokenizer;
    CRIA_TRY(cria_model_tokenizer_open(command->path, &tokenizer, err));
    cria_text out;
    cria_text_init(&out);
    cria_status status =
        command->options->prompt ? print_ids(command, tokenizer, &out, err) : print_text(command, tokenizer, &out, err);
    if (status == CRIA_OK && out.length) fwrite(out.data, 1, out.length, stdout);
    cria_text_deinit(&out);
    cria_tokenizer_destroy(tokenizer);
    return status;
}
