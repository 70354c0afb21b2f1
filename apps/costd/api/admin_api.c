/* admin_api.c - what an operator changes while requests go on: models and the price; and GET /props.
 *
 * A change is accepted (202) and carried out by the fleet's thread, in order; /v1/models and the log show
 * what came of it. */
#include <stdio.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "fail.h"
#include "fields.h"
#include "fleet.h"
#include "handlers.h"
#include "json.h"
#include "problem.h"
#include "service.h"

static void answer(struct exchange *x, enum cinf_status status, const char *param)
{
    static const char accepted[] = "{\"status\":\"accepted\"}\n";
    if (status == CINF_OK)
        exchange_send(x, 202, "application/json", accepted, sizeof accepted - 1);
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
    enum cinf_status status = required(&f, "id", &id);
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
    enum cinf_status status = CINF_OK;
    if (!cJSON_HasObjectItem(body, "dollars_per_hour"))
        status =
            cinf_fail(CINF_EINVAL, "\"dollars_per_hour\" is missing: a string such as \"0.10\", or null");
    if (status == CINF_OK)
        status = field_text(&f, "dollars_per_hour", &dollars);
    if (status == CINF_OK)
        status = fleet_set_price(service_of(x)->fleet, dollars);
    answer(x, status, "dollars_per_hour");
    fields_free(&f);
    cJSON_Delete(body);
}

void get_props(struct exchange *x, const char *unused)
{
    struct service *service = service_of(x);
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    struct strbuf out = { 0 };
    (void)unused;
    cinf_engine_device(service->engine, &device);
    strbuf_putc(&out, '{');
    put_text(&out, "version", cinf_version(), strlen(cinf_version()));
    strbuf_puts(&out, ",\"device\":{");
    put_text(&out, "name", device.name, strlen(device.name));
    strbuf_putc(&out, ',');
    put_text(&out, "description", device.description, strlen(device.description));
    strbuf_putc(&out, ',');
    put_count(&out, "threads", device.threads);
    strbuf_printf(&out, ",\"kv\":\"%s\",\"speculation\":%s", cinf_kv_name(device.kv),
                  device.speculation ? "true" : "false");
    strbuf_puts(&out, "},\"limits\":{");
    put_count(&out, "body_bytes", BODY_BYTES_MAX);
    strbuf_putc(&out, ',');
    put_count(&out, "queue", service->queue_max);
    strbuf_putc(&out, ',');
    put_count(&out, "choices", CHOICES_MAX);
    strbuf_putc(&out, ',');
    put_count(&out, "stop", STOPS_MAX);
    strbuf_putc(&out, ',');
    put_count(&out, "logit_bias", LOGIT_BIASES_MAX);
    strbuf_putc(&out, ',');
    put_count(&out, "logprobs", CINF_TOP_LOGPROBS_MAX);
    strbuf_puts(&out, "}}\n");
    answer_json(x, &out);
}
