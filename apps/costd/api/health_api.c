/* health_api.c - GET /health and /ready: whether the models are loaded, and whether requests are taken.
 *
 * /ready is 503 only where a request could not be answered.  A reload that fails while the old model serves
 * does not change it, and neither does one model of several that is missing: a mistake in a configuration
 * that reaches all servers together must not take all of them out of service. */
#include "answer.h"
#include "fleet.h"
#include "generation.h"
#include "handlers.h"
#include "json_write.h"
#include "problem.h"
#include "service.h"

void get_health(struct exchange *x, const char *unused)
{
    (void)unused;
    if (fleet_loading(service_of(x)->fleet))
        problem_loading(x, "the models");
    else
        answer_status(x, 200, "ok");
}

static void put_missing(void *writer, const struct roster_entry *entry)
{
    if (entry->wanted && !entry->serving)
        json_put_text(writer, NULL, entry->name);
}

/* Some of the models are not served although they should be.  The others are, so a balancer goes on sending
 * requests here; the answer tells a monitor which are missing. */
static void answer_missing(struct exchange *x)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    json_open_object(&w, NULL);
    json_put_text(&w, "status", "degraded");
    json_open_array(&w, "missing");
    fleet_show(service_of(x)->fleet, NULL, put_missing, &w);
    json_close(&w);
    json_close(&w);
    strbuf_putc(&out, '\n');
    answer_json(x, 200, &out);
}

void get_ready(struct exchange *x, const char *unused)
{
    struct service *service = service_of(x);
    struct fleet_counts counts;
    if (atomic_load(&service->leaving) || generations_closed(&service->generations)) {
        problem_draining(x, NO_ACCOUNT);
        return;
    }
    fleet_count(service->fleet, &counts);
    if (fleet_loading(service->fleet) || counts.missing == 0)
        get_health(x, unused);
    else if (counts.serving == 0)
        problem_none_loaded(x);
    else
        answer_missing(x);
}
