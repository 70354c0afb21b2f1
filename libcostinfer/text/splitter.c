/* splitter.c - the pre-tokenizers of Hugging Face's tokenizers, one stage after the other.
 *
 * Each stage is a pattern and a rule for its matches, so it turns one list of pieces into another. It sees
 * each piece as a text of its own, as the original does. */
#include "splitter.h"

#include <string.h>

#include "fail.h"
#include "json.h"
#include "mem.h"
#include "pattern.h"
#include "piece.h"
#include "spelling.h"

enum { STAGES_MAX = 64, SEQUENCE_DEPTH_MAX = 8 };

/* What becomes of the matches. */
enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

struct splitter_stage {
    struct pattern *pattern; /* NULL: ByteLevel */
    enum behavior behavior;
    bool invert;    /* the parts between the matches are the matches */
    bool use_regex; /* ByteLevel: GPT-2's pattern cuts */
    bool prefix_space,
        spells; /* ByteLevel: a space before a piece that lacks one; later stages see spellings */
};

/* ---- Reading ------------------------------------------------------------------------------- */

static enum cinf_status add_stage(struct splitter *s, struct splitter_stage stage)
{
    enum cinf_status status = CINF_OK;
    if (s->n_stages == STAGES_MAX)
        status = cinf_fail(CINF_EUNSUPPORTED, "\"pre_tokenizer\" has more than %d stages", STAGES_MAX);
    else if (!mem_reserve(&s->stages, &s->cap, s->n_stages + 1, sizeof *s->stages))
        status = cinf_fail(CINF_ENOMEM, "no memory for a pre-tokenizer");
    if (status != CINF_OK) {
        pattern_free(stage.pattern);
        return status;
    }
    s->stages[s->n_stages++] = stage;
    return CINF_OK;
}

static enum cinf_status add_pattern(struct splitter *s, const char *expression, enum behavior behavior,
                                    bool invert)
{
    struct splitter_stage stage = { .behavior = behavior, .invert = invert };
    TRY(pattern_new(&stage.pattern, expression, PATTERN_RUST));
    return add_stage(s, stage);
}

static enum cinf_status read_behavior(enum behavior *behavior, const cJSON *settings)
{
    static const char *const names[] = { "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                         "Contiguous" };
    const char *name = NULL;
    TRY(json_read_text(&name, settings, "behavior"));
    if (!name)
        return CINF_OK;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(name, names[i]) == 0) {
            *behavior = (enum behavior)i;
            return CINF_OK;
        }
    return cinf_fail(CINF_EUNSUPPORTED, "the \"behavior\" \"%.60s\" of a pre-tokenizer is not supported",
                     name);
}

static enum cinf_status read_split(struct splitter *s, const cJSON *settings)
{
    struct splitter_stage stage = { .behavior = ISOLATED };
    TRY(read_behavior(&stage.behavior, settings));
    TRY(json_read_bool(&stage.invert, settings, "invert"));
    TRY(pattern_read(&stage.pattern, json_member(settings, "pattern")));
    return add_stage(s, stage);
}

static enum cinf_status read_byte_level(struct splitter *s, const cJSON *settings)
{
    struct splitter_stage stage = { .use_regex = true, .prefix_space = true };
    for (size_t i = 0; i < s->n_stages; i++)
        if (!s->stages[i].pattern)
            return cinf_fail(CINF_EUNSUPPORTED, "\"pre_tokenizer\" has ByteLevel twice");
    TRY(json_read_bool(&stage.use_regex, settings, "use_regex"));
    TRY(json_read_bool(&stage.prefix_space, settings, "add_prefix_space"));
    return add_stage(s, stage);
}

static enum cinf_status read_delimiter(struct splitter *s, const cJSON *settings)
{
    const char *delimiter = NULL;
    struct splitter_stage stage = { .behavior = REMOVED };
    TRY(json_read_text(&delimiter, settings, "delimiter"));
    if (!delimiter || !*delimiter)
        return cinf_fail(CINF_EFORMAT, "a pre-tokenizer has no \"delimiter\"");
    TRY(pattern_new_literal(&stage.pattern, delimiter));
    return add_stage(s, stage);
}

static enum cinf_status read_stage(struct splitter *s, const cJSON *settings, int depth);

static enum cinf_status read_sequence(struct splitter *s, const cJSON *settings,
                                      int depth) /* NOLINT(misc-no-recursion) */
{
    const cJSON *stage, *list = json_member(settings, "pretokenizers");
    if (!cJSON_IsArray(list) || depth == SEQUENCE_DEPTH_MAX)
        return cinf_fail(CINF_EFORMAT, "a pre-tokenizer of type \"Sequence\" has no array \"pretokenizers\"");
    cJSON_ArrayForEach(stage, list) TRY(read_stage(s, stage, depth + 1));
    return CINF_OK;
}

static enum cinf_status read_stage(struct splitter *s, const cJSON *settings,
                                   int depth) /* NOLINT(misc-no-recursion) */
{
    static const char punctuation[] = "[\\p{P}!-/:-@\\[-`{-~]";
    const char *type = NULL;
    TRY(json_read_text(&type, settings, "type"));
    if (!type)
        return cinf_fail(CINF_EFORMAT, "a pre-tokenizer has no \"type\"");
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(s, settings);
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(s, settings, depth);
    if (strcmp(type, "Split") == 0)
        return read_split(s, settings);
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        TRY(json_read_bool(&individual, settings, "individual_digits"));
        return add_pattern(s, "\\p{N}", individual ? ISOLATED : CONTIGUOUS, false);
    }
    if (strcmp(type, "Punctuation") == 0) {
        enum behavior behavior = ISOLATED;
        TRY(read_behavior(&behavior, settings));
        return add_pattern(s, punctuation, behavior, false);
    }
    if (strcmp(type, "Whitespace") == 0)
        return add_pattern(s, "\\w+|[^\\w\\s]+", REMOVED, true);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_pattern(s, "\\s", REMOVED, false);
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return read_delimiter(s, settings);
    if (strcmp(type, "BertPreTokenizer") == 0) {
        TRY(add_pattern(s, "\\s", REMOVED, false));
        return add_pattern(s, punctuation, ISOLATED, false);
    }
    return cinf_fail(CINF_EUNSUPPORTED, "the pre-tokenizer \"%.60s\" is not supported", type);
}

static void settle(struct splitter *s)
{
    for (size_t i = 0; i + 1 < s->n_stages; i++)
        s->stages[i].spells = !s->stages[i].pattern;
    s->plain =
        s->n_stages == 1 && !s->stages[0].pattern && s->stages[0].use_regex && !s->stages[0].prefix_space;
}

enum cinf_status splitter_default(struct splitter *s, bool prefix_space)
{
    TRY(add_stage(s, (struct splitter_stage){ .use_regex = true, .prefix_space = prefix_space }));
    settle(s);
    return CINF_OK;
}

enum cinf_status splitter_read(struct splitter *s, const cJSON *settings)
{
    bool byte_level = false;
    TRY(read_stage(s, settings, 0));
    for (size_t i = 0; i < s->n_stages; i++)
        byte_level = byte_level || !s->stages[i].pattern;
    if (!byte_level)
        return cinf_fail(CINF_EUNSUPPORTED,
                         "\"pre_tokenizer\" has no ByteLevel: only byte-level tokenizers are supported");
    settle(s);
    return CINF_OK;
}

bool splitter_set_prefix(struct splitter *s, bool prefix_space)
{
    bool changed = false;
    for (size_t i = 0; i < s->n_stages; i++)
        if (!s->stages[i].pattern) {
            changed = s->stages[i].prefix_space != prefix_space;
            s->stages[i].prefix_space = prefix_space;
        }
    settle(s);
    return changed;
}

void splitter_free(struct splitter *s)
{
    for (size_t i = 0; i < s->n_stages; i++)
        pattern_free(s->stages[i].pattern);
    mem_free(s->stages);
    *s = (struct splitter){ 0 };
}

/* ---- Applying ------------------------------------------------------------------------------ */

void splitter_scratch_free(struct splitter_scratch *scratch)
{
    for (int i = 0; i < 2; i++) {
        strbuf_free(&scratch->texts[i]);
        mem_free(scratch->lists[i]);
    }
    *scratch = (struct splitter_scratch){ 0 };
}

/* A pass reads the scratch's pieces and makes the other list. */
struct pass {
    struct splitter_scratch *scratch;
    struct piece **list;
    size_t *cap, n;
    struct piece part; /* not in the list yet, because the next part may join it */
    bool has_part, last_matched;
};

static struct pass begin_pass(struct splitter_scratch *scratch)
{
    int other = scratch->pieces == scratch->lists[0];
    return (struct pass){ .scratch = scratch, .list = &scratch->lists[other], .cap = &scratch->caps[other] };
}

static void end_pass(struct pass *to)
{
    to->scratch->pieces = *to->list;
    to->scratch->n_pieces = to->n;
}

static enum cinf_status add_piece(struct pass *to, size_t at, size_t n)
{
    if (n == 0)
        return CINF_OK;
    if (!mem_reserve(to->list, to->cap, to->n + 1, sizeof **to->list))
        return cinf_fail(CINF_ENOMEM, "no memory for %zu pieces of a text", to->n + 1);
    (*to->list)[to->n++] = (struct piece){ at, n };
    return CINF_OK;
}

static enum cinf_status end_part(struct pass *to)
{
    size_t n = to->has_part ? to->part.n : 0;
    to->has_part = false;
    return add_piece(to, to->part.at, n);
}

/* The next part of a piece: a match, or what is between two. */
static enum cinf_status add_part(struct pass *to, enum behavior behavior, size_t at, size_t n, bool match)
{
    bool joined = (behavior == CONTIGUOUS && match == to->last_matched) ||
                  (behavior == MERGED_WITH_PREVIOUS && match && !to->last_matched) ||
                  (behavior == MERGED_WITH_NEXT && !match && to->last_matched);
    to->last_matched = match;
    if (joined && to->has_part) {
        to->part.n += n;
        return CINF_OK;
    }
    TRY(end_part(to));
    to->has_part = behavior != REMOVED || !match;
    to->part = (struct piece){ at, n };
    return CINF_OK;
}

static enum cinf_status split_piece(const struct splitter_stage *stage, struct pass *to, struct piece piece,
                                    struct pattern_search *search)
{
    size_t done = 0, start, end;
    to->last_matched = false;
    for (;;) {
        bool found;
        TRY(pattern_next(search, &found, &start, &end));
        if (!found)
            break;
        if (done < start)
            TRY(add_part(to, stage->behavior, piece.at + done, start - done, stage->invert));
        TRY(add_part(to, stage->behavior, piece.at + start, end - start, !stage->invert));
        done = end;
    }
    if (done < piece.n)
        TRY(add_part(to, stage->behavior, piece.at + done, piece.n - done, stage->invert));
    return end_part(to);
}

static enum cinf_status split_by_pattern(const struct splitter_stage *stage, struct splitter_scratch *scratch)
{
    struct pass to = begin_pass(scratch);
    for (size_t i = 0; i < scratch->n_pieces; i++) {
        struct piece piece = scratch->pieces[i];
        struct pattern_search search = { .pattern = stage->pattern,
                                         .text = scratch->text + piece.at,
                                         .n = piece.n };
        enum cinf_status status = split_piece(stage, &to, piece, &search);
        pattern_search_free(&search);
        TRY(status);
    }
    end_pass(&to);
    return CINF_OK;
}

static enum cinf_status split_by_gpt2(struct splitter_scratch *scratch)
{
    struct pass to = begin_pass(scratch);
    for (size_t i = 0; i < scratch->n_pieces; i++) {
        struct piece piece = scratch->pieces[i];
        for (size_t n; piece.n > 0; piece.at += n, piece.n -= n) {
            n = piece_length(scratch->text + piece.at, piece.n);
            TRY(add_piece(&to, piece.at, n));
        }
    }
    end_pass(&to);
    return CINF_OK;
}

enum rewriting { WITH_SPACE, SPELLED, UNSPELLED };

/* Makes a new text of the pieces, each rewritten. */
static enum cinf_status rewrite(struct splitter_scratch *scratch, enum rewriting how)
{
    struct strbuf *out = &scratch->texts[scratch->text == scratch->texts[0].text];
    strbuf_clear(out);
    for (size_t i = 0; i < scratch->n_pieces; i++) {
        struct piece *piece = &scratch->pieces[i];
        const char *text = scratch->text + piece->at;
        size_t at = out->len;
        if (how == SPELLED) {
            spelling_write(out, text, piece->n);
        } else if (how == UNSPELLED) {
            spelling_read(out, text, piece->n);
        } else {
            if (text[0] != ' ')
                strbuf_putc(out, ' ');
            strbuf_add(out, text, piece->n);
        }
        *piece = (struct piece){ at, out->len - at };
    }
    if (out->failed)
        return cinf_fail(CINF_ENOMEM, "no memory to rewrite a text in %zu pieces", scratch->n_pieces);
    scratch->text = out->text;
    return CINF_OK;
}

enum cinf_status splitter_apply(const struct splitter *s, const char *text, size_t n,
                                struct splitter_scratch *scratch)
{
    bool spelled = false;
    scratch->text = text;
    scratch->n_pieces = 0;
    if (n == 0)
        return CINF_OK;
    struct pass whole = begin_pass(scratch);
    TRY(add_piece(&whole, 0, n));
    end_pass(&whole);
    for (size_t i = 0; i < s->n_stages; i++) {
        const struct splitter_stage *stage = &s->stages[i];
        if (stage->pattern) {
            TRY(split_by_pattern(stage, scratch));
            continue;
        }
        if (stage->prefix_space)
            TRY(rewrite(scratch, WITH_SPACE));
        if (stage->use_regex)
            TRY(split_by_gpt2(scratch));
        if (stage->spells)
            TRY(rewrite(scratch, SPELLED));
        spelled = spelled || stage->spells;
    }
    return spelled ? rewrite(scratch, UNSPELLED) : CINF_OK;
}
