/* props_api.c - GET /props: the device and the limits that requests meet. */
#include <costinfer/costinfer.h>

#include "answer.h"
#include "fields.h"
#include "handlers.h"
#include "json_write.h"
#include "problem.h"
#include "service.h"

void get_props(struct exchange *x, const char *unused)
{
    struct service *service = service_of(x);
    struct cinf_device_info device = { CINF_DEVICE_INFO };
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    (void)unused;
    cinf_engine_device(service->engine, &device);
    json_open_object(&w, NULL);
    json_put_text(&w, "version", cinf_version());
    json_open_object(&w, "device");
    json_put_text(&w, "name", device.name);
    json_put_text(&w, "description", device.description);
    json_put_u64(&w, "threads", device.threads);
    json_put_text(&w, "kv", cinf_kv_name(device.kv));
    json_put_bool(&w, "speculation", device.speculation);
    json_close(&w);
    json_open_object(&w, "limits");
    json_put_u64(&w, "body_bytes", service->body_bytes);
    json_put_u64(&w, "queue", service->queue_max);
    json_put_u64(&w, "choices", CHOICES_MAX);
    json_put_u64(&w, "stop", STOPS_MAX);
    json_put_u64(&w, "logit_bias", LOGIT_BIASES_MAX);
    json_put_u64(&w, "logprobs", CINF_TOP_LOGPROBS_MAX);
    json_close(&w);
    json_close(&w);
    strbuf_putc(&out, '\n');
    answer_json(x, 200, &out);
}
