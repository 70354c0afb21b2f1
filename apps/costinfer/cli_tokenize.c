/* cli_tokenize.c - text to tokens and back. */
#include <inttypes.h>
#include <unistd.h>

#include "cli.h"
#include "mem.h"

/* Writes the tokens' own bytes, so that detokenizing restores any input that was tokenized. */
static int put_bytes(const struct cinf_tokenizer *tokenizer, const struct ids *ids)
{
    for (uint32_t i = 0; i < ids->n; i++) {
        size_t n;
        const char *bytes = cinf_tokenizer_token(tokenizer, ids->ids[i], &n);
        if (!bytes)
            return fail_with("id %" PRId32 " at index %" PRIu32 " is not in the vocabulary", ids->ids[i], i);
        fwrite(bytes, 1, n, stdout);
    }
    return 0;
}

static int detokenize(const struct cinf_tokenizer *tokenizer, const struct strbuf *input, bool json)
{
    struct ids ids = { 0 };
    if (!ids_parse(&ids, input->text ? input->text : "", input->len))
        return fail_with("standard input: not a list of ids such as [1, 2, 3]");
    int exit_status;
    if (json) {
        char *text;
        size_t n;
        struct strbuf out = { 0 };
        if (cinf_tokenizer_decode(tokenizer, ids.ids, ids.n, &text, &n) == CINF_OK) {
            struct json_writer w = json_write_to(&out);
            json_put_bytes(&w, NULL, text, n);
            cinf_text_free(text);
            exit_status = print_document(&out);
        } else {
            exit_status = fail_last();
        }
        strbuf_free(&out);
    } else {
        exit_status = put_bytes(tokenizer, &ids);
    }
    mem_free(ids.ids);
    return exit_status;
}

static int tokenize(const struct cinf_tokenizer *tokenizer, const struct strbuf *input, unsigned flags,
                    bool json)
{
    int32_t *ids;
    size_t n;
    if (cinf_tokenizer_encode(tokenizer, input->text ? input->text : "", input->len, flags, &ids, &n) !=
        CINF_OK)
        return fail_last();
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    json_open_array(&w, NULL);
    for (size_t i = 0; i < n; i++)
        json_put_i64(&w, NULL, ids[i]);
    json_close(&w);
    cinf_ids_free(ids);
    int exit_status = print_document(&out);
    strbuf_free(&out);
    if (!json && exit_status == 0 && isatty(STDERR_FILENO))
        fprintf(stderr, "%zu bytes, %zu tokens\n", input->len, n);
    return exit_status;
}

static int run(const struct command *self, int argc, char **argv)
{
    struct common_flags common = { 0 };
    bool json = false, reverse = false, special = false;
    const struct flag flags[] = {
        MODEL_FLAG(&common),
        { "detokenize", FLAG_SWITCH, &reverse, 0, 0, NULL,
          "Reads ids (a JSON array, or numbers with spaces between) and prints the text's exact bytes." },
        { "special", FLAG_SWITCH, &special, 0, 0, NULL,
          "<|endoftext|> and other special tokens in the text are tokens, not ordinary characters." },
        { "json", FLAG_SWITCH, &json, 0, 0, NULL,
          "Prints the text of --detokenize as a JSON string; otherwise leaves out the counts." },
    };
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, NULL);
    if (status != FLAGS_GO)
        return status;
    if (!common.model)
        return usage_error(self, "--model is missing");

    struct cinf_tokenizer *tokenizer;
    if (cinf_tokenizer_open(&tokenizer, common.model) != CINF_OK)
        return fail_last();
    struct strbuf input = { 0 };
    status = 1;
    if (read_all(&input, "-"))
        status = reverse ? detokenize(tokenizer, &input, json)
                         : tokenize(tokenizer, &input, special ? CINF_TOKENIZE_SPECIAL : 0, json);
    strbuf_free(&input);
    cinf_tokenizer_free(tokenizer);
    return status;
}

const struct command command_tokenize = {
    .name = "tokenize",
    .summary = "text from standard input to token ids, or back",
    .synopsis = "--model DIR [--special] [--json] < TEXT\n"
                "       costinfer tokenize --model DIR --detokenize [--json] < IDS",
    .manual =
        "Prints the ids of the text on standard input as one JSON array.  Any bytes are accepted,\n"
        "and detokenizing the ids restores exactly those, except for spaces that a model's added tokens\n"
        "absorb.  Of the model's files only the tokenizer is needed: vocab.json and merges.txt, or\n"
        "tokenizer.json.  If standard error is a terminal, the counts follow there.\n",
    .run = run,
};
