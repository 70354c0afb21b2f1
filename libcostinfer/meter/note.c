#include "note.h"

#include <string.h>

#include "fail.h"
#include "mem.h"
#include "meter_state.h"
#include "strbuf.h"
#include "utf8.h"

static enum cinf_status check_text(const char *what, const char *text, size_t max)
{
    size_t n = strlen(text);
    if (n > max)
        return cinf_fail(CINF_EINVAL, "the %s of a request has %zu bytes; at most %zu are possible", what, n,
                         max);
    if (!utf8_valid(text, n))
        return cinf_fail(CINF_EINVAL, "the %s of a request is not UTF-8", what);
    return CINF_OK;
}

static enum cinf_status check_note(const struct cinf_note *note)
{
    if (note->id)
        TRY(check_text("id", note->id, CINF_NOTE_TEXT_MAX));
    if (note->user)
        TRY(check_text("user", note->user, CINF_NOTE_TEXT_MAX));
    if (note->n_tags > CINF_TAGS_MAX)
        return cinf_fail(CINF_EINVAL, "a request has at most %d tags, not %u", CINF_TAGS_MAX, note->n_tags);
    for (uint32_t i = 0; i < note->n_tags; i++) {
        TRY(check_text("tag's name", note->tags[i].name, CINF_TAG_NAME_MAX));
        TRY(check_text("tag", note->tags[i].value, CINF_TAG_VALUE_MAX));
        for (uint32_t before = 0; before < i; before++)
            if (strcmp(note->tags[before].name, note->tags[i].name) == 0)
                return cinf_fail(CINF_EINVAL, "a request has two tags \"%s\"", note->tags[i].name);
    }
    return CINF_OK;
}

static void put_tags(struct strbuf *out, const struct cinf_note *note)
{
    for (uint32_t i = 0; i < note->n_tags; i++) {
        strbuf_putc(out, i == 0 ? '{' : ',');
        strbuf_put_json(out, note->tags[i].name, strlen(note->tags[i].name));
        strbuf_putc(out, ':');
        strbuf_put_json(out, note->tags[i].value, strlen(note->tags[i].value));
    }
    if (note->n_tags > 0)
        strbuf_putc(out, '}');
}

enum cinf_status note_new(struct note **out, const struct cinf_note *given)
{
    struct cinf_note note = { CINF_NOTE };
    memcpy(&note, given, given->struct_size < sizeof note ? given->struct_size : sizeof note);
    TRY(check_note(&note));
    struct strbuf tags = { 0 };
    put_tags(&tags, &note);
    const char *id = note.id ? note.id : "", *user = note.user ? note.user : "";
    size_t id_bytes = strlen(id) + 1, user_bytes = strlen(user) + 1;
    struct note *own = tags.failed ? NULL : mem_new(1, sizeof *own + id_bytes + user_bytes + tags.len + 1);
    if (!own) {
        strbuf_free(&tags);
        return cinf_fail(CINF_ENOMEM, "no memory for what is known of a request");
    }
    own->id = memcpy(own->text, id, id_bytes);
    if (note.user)
        own->user = memcpy(own->text + id_bytes, user, user_bytes);
    if (tags.len > 0)
        own->tags = memcpy(own->text + id_bytes + user_bytes, tags.text, tags.len + 1);
    strbuf_free(&tags);
    *out = own;
    return CINF_OK;
}

void note_give(struct cinf_bill *bill, struct note **note)
{
    mem_free(bill->note);
    bill->note = *note;
    *note = NULL;
}

enum cinf_status cinf_bill_describe(struct cinf_bill *bill, const struct cinf_note *given)
{
    struct note *note;
    TRY(note_new(&note, given));
    note_give(bill, &note);
    return CINF_OK;
}
