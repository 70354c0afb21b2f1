/* health_api.c - GET /health and /ready: whether the models are loaded, and whether requests are taken. */
#include "answer.h"
#include "fleet.h"
#include "generation.h"
#include "handlers.h"
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

void get_ready(struct exchange *x, const char *unused)
{
    if (atomic_load(&service_of(x)->leaving) || generations_closed(&service_of(x)->generations))
        problem_draining(x, NO_ACCOUNT);
    else
        get_health(x, unused);
}
