/* admin_api.c - what an operator changes while requests go on: models and the price.
 *
 * A load or an unload that can be begun is accepted (202) and carried out by the fleet's thread, in order;
 * GET /admin/models/{id} follows it to its outcome.  What cannot succeed is refused immediately. */
#include <ctype.h>
#include <string.h>

#include "answer.h"
#include "fail.h"
#include "fields.h"
#include "fleet.h"
#include "handlers.h"
#include "json.h"
#include "json_write.h"
#include "problem.h"
#include "service.h"
#include "unknown_fields.h"

/* ---- Looking ------------------------------------------------------------------------------ */

static void put_entry(void *writer, const struct roster_entry *entry)
{
    struct json_writer *w = writer;
    json_open_object(w, NULL);
    json_put_text(w, "id", entry->name);
    json_put_text(w, "state", roster_state_name(entry->state));
    json_put_i64(w, "since", entry->since);
    json_put_text(w, "error", *entry->error ? entry->error : NULL);
    json_put_text(w, "folder", entry->folder);
    json_put_u64(w, "bytes_done", entry->bytes_done);
    json_put_u64(w, "bytes_total", entry->bytes_total);
    json_put_bool(w, "wanted", entry->wanted);
    json_put_bool(w, "serving", entry->serving);
    json_put_text(w, "served_folder", entry->serving ? entry->served_folder : NULL);
    json_put_text(w, "fingerprint", entry->serving ? entry->fingerprint : NULL);
    if (entry->serving)
        json_put_i64(w, "loaded_at", entry->loaded_at);
    else
        json_put_null(w, "loaded_at");
    json_close(w);
}

void admin_models(struct exchange *x, const char *unused)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    (void)unused;
    json_open_object(&w, NULL);
    json_put_text(&w, "object", "list");
    json_open_array(&w, "data");
    fleet_show(service_of(x)->fleet, NULL, put_entry, &w);
    json_close(&w);
    json_close(&w);
    strbuf_putc(&out, '\n');
    answer_json(x, 200, &out);
}

void admin_model(struct exchange *x, const char *name)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    if (fleet_show(service_of(x)->fleet, name, put_entry, &w) == 0) {
        strbuf_free(&out);
        problem_no_model(x, name);
        return;
    }
    strbuf_putc(&out, '\n');
    answer_json(x, 200, &out);
}

/* ---- Changing ----------------------------------------------------------------------------- */

/* Where a change of the model can be followed. */
static void put_link(struct strbuf *out, const char *name)
{
    strbuf_puts(out, "/admin/models/");
    for (const char *c = name; *c; c++) {
        if (isalnum((unsigned char)*c) || strchr("-._~", *c))
            strbuf_putc(out, *c);
        else
            strbuf_printf(out, "%%%02X", (unsigned char)*c);
    }
}

/* {"status":"word","id":"name","href":"/admin/models/name"} */
static void answer_change(struct exchange *x, unsigned status, const char *word, const char *name)
{
    struct strbuf out = { 0 }, link = { 0 };
    struct json_writer w = json_write_to(&out);
    put_link(&link, name);
    json_open_object(&w, NULL);
    json_put_text(&w, "status", word);
    json_put_text(&w, "id", name);
    json_put_text(&w, "href", link.failed ? NULL : link.text);
    json_close(&w);
    strbuf_putc(&out, '\n');
    if (status == 202 && !link.failed)
        exchange_add_header(x, "Location", link.text);
    answer_json(x, status, &out);
    strbuf_free(&link);
}

static enum cinf_status required(struct fields *f, const char *key, const char **value)
{
    TRY(field_text(f, key, value));
    return *value ? CINF_OK : cinf_fail(CINF_EINVAL, "\"%s\" is missing", key);
}

/* A folder that is not there is the request's mistake, as one that holds no model is. */
static enum cinf_status load(struct exchange *x, const char *id, const char *folder, bool unload_first,
                             const char **fault, bool *unchanged)
{
    enum cinf_status status = fleet_load(service_of(x)->fleet, id, folder, unload_first, unchanged, fault);
    bool is_of_files = status == CINF_ENOTFOUND || status == CINF_EFORMAT || status == CINF_EIO;
    return is_of_files ? cinf_fail_again(CINF_EINVAL, cinf_last_error()) : status;
}

void admin_load(struct exchange *x, const char *unused)
{
    struct fields f;
    const char *id = NULL, *folder = NULL;
    bool unload_first = false, unchanged = false;
    (void)unused;
    cJSON *body = fields_body(x, false);
    if (!body)
        return;
    fields_init(&f, body, NULL);
    enum cinf_status status = unknown_fields_judge(&f, x, BODY_LOAD);
    if (status == CINF_OK)
        status = required(&f, "id", &id);
    if (status == CINF_OK)
        status = required(&f, "folder", &folder);
    if (status == CINF_OK)
        status = field_bool(&f, "unload_first", &unload_first);
    const char *fault = f.param;
    if (status == CINF_OK)
        status = load(x, id, folder, unload_first, &fault, &unchanged);
    if (status != CINF_OK)
        problem_answer(x, status, fault, NO_ACCOUNT);
    else
        answer_change(x, unchanged ? 200 : 202, unchanged ? "unchanged" : "accepted", id);
    fields_free(&f);
    cJSON_Delete(body);
}

void admin_unload(struct exchange *x, const char *name)
{
    enum cinf_status status = fleet_unload(service_of(x)->fleet, name);
    if (status == CINF_ENOTFOUND)
        problem_no_model(x, name);
    else if (status != CINF_OK)
        problem_answer(x, status, NULL, NO_ACCOUNT);
    else
        answer_change(x, 202, "accepted", name);
}

void admin_price(struct exchange *x, const char *unused)
{
    struct fields f;
    const char *dollars = NULL;
    (void)unused;
    cJSON *body = fields_body(x, false);
    if (!body)
        return;
    fields_init(&f, body, NULL);
    enum cinf_status status = unknown_fields_judge(&f, x, BODY_PRICE);
    const char *fault = f.param;
    if (status == CINF_OK)
        fault = "dollars_per_hour";
    if (status == CINF_OK && !cJSON_HasObjectItem(body, "dollars_per_hour"))
        status =
            cinf_fail(CINF_EINVAL, "\"dollars_per_hour\" is missing: a string such as \"0.10\", or null");
    if (status == CINF_OK)
        status = field_text(&f, "dollars_per_hour", &dollars);
    if (status == CINF_OK)
        status = fleet_set_price(service_of(x)->fleet, dollars);
    /* Every number of dollars that can be refused was refused above: what is left is the books' own limit. */
    if (status == CINF_EFULL)
        status = cinf_fail_again(CINF_EINVAL, cinf_last_error());
    if (status == CINF_OK)
        answer_status(x, 202, "accepted");
    else
        problem_answer(x, status, fault, NO_ACCOUNT);
    fields_free(&f);
    cJSON_Delete(body);
}
