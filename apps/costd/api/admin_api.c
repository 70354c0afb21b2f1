/* admin_api.c - what an operator changes while requests go on: models and the price.
 *
 * A change is accepted (202) and carried out by the fleet's thread, in order; /v1/models and the log show
 * what came of it. */
#include "answer.h"
#include "fail.h"
#include "fields.h"
#include "fleet.h"
#include "handlers.h"
#include "json.h"
#include "problem.h"
#include "service.h"
#include "unknown_fields.h"

static void answer(struct exchange *x, enum cinf_status status, const char *param)
{
    if (status == CINF_OK)
        answer_status(x, 202, "accepted");
    else
        problem_answer(x, status, param, NO_ACCOUNT);
}

static enum cinf_status required(struct fields *f, const char *key, const char **value)
{
    TRY(field_text(f, key, value));
    return *value ? CINF_OK : cinf_fail(CINF_EINVAL, "\"%s\" is missing", key);
}

void admin_load(struct exchange *x, const char *unused)
{
    struct fields f;
    const char *id = NULL, *folder = NULL;
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
        status = fleet_load(service_of(x)->fleet, id, folder);
    answer(x, status, f.param);
    fields_free(&f);
    cJSON_Delete(body);
}

void admin_unload(struct exchange *x, const char *name)
{
    struct cinf_model_info info;
    struct cinf_model *model = model_for(x, name, &info);
    if (!model)
        return;
    cinf_model_release(model);
    answer(x, fleet_unload(service_of(x)->fleet, name), NULL);
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
    answer(x, status, fault);
    fields_free(&f);
    cJSON_Delete(body);
}
