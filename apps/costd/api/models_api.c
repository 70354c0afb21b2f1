/* models_api.c - GET /v1/models and /v1/models/{id}, and finding the model that a request names. */
#include <stdio.h>
#include <string.h>

#include "access_log.h"
#include "answer.h"
#include "fail.h"
#include "fleet.h"
#include "handlers.h"
#include "json_write.h"
#include "problem.h"
#include "service.h"

static struct cinf_model *only_model(struct exchange *x)
{
    struct cinf_model *models[SERVED_MODELS_MAX];
    uint32_t n = cinf_model_list(service_of(x)->engine, models, SERVED_MODELS_MAX);
    for (uint32_t i = n == 1 ? 1 : 0; i < n && i < SERVED_MODELS_MAX; i++)
        cinf_model_release(models[i]);
    if (n == 1)
        return models[0];
    if (n == 0 && fleet_loading(service_of(x)->fleet))
        problem_loading(x, "the models");
    else
        problem_answer(x, cinf_fail(CINF_EINVAL, "\"model\" is missing, and %u are loaded", n), "model",
                       NO_ACCOUNT);
    return NULL;
}

struct cinf_model *model_for(struct exchange *x, const char *name, struct cinf_model_info *info)
{
    struct service *service = service_of(x);
    struct cinf_model *model = NULL;
    if (!name)
        model = only_model(x);
    else if (cinf_model_find(&model, service->engine, name) == CINF_OK)
        ;
    else if (fleet_expects(service->fleet, name))
        problem_loading(x, name);
    else
        problem_no_model(x, name);
    if (!model)
        return NULL;
    *info = (struct cinf_model_info){ CINF_MODEL_INFO };
    cinf_model_info(model, info);
    snprintf(access_of(x)->model, sizeof access_of(x)->model, "%s", info->name);
    return model;
}

static void put_model(struct json_writer *w, const struct cinf_model *model)
{
    struct cinf_model_info info = { CINF_MODEL_INFO };
    cinf_model_info(model, &info);
    json_open_object(w, NULL);
    json_put_text(w, "id", info.name);
    json_put_text(w, "object", "model");
    json_put_i64(w, "created", info.loaded_at);
    json_put_text(w, "owned_by", "costinfer");
    json_put_text(w, "fingerprint", info.fingerprint);
    json_open_object(w, "meta");
    json_put_u64(w, "n_ctx", info.config.n_positions);
    json_put_u64(w, "n_vocab", info.config.vocab_size);
    json_put_u64(w, "n_embd", info.config.n_embd);
    json_put_u64(w, "n_layer", info.config.n_layer);
    json_put_u64(w, "n_params", info.parameters);
    json_put_u64(w, "slots", info.slots);
    json_put_text(w, "weights", cinf_weights_name(info.weights));
    json_close(w);
    json_close(w);
}

void get_models(struct exchange *x, const char *unused)
{
    struct strbuf out = { 0 };
    struct cinf_model *models[SERVED_MODELS_MAX];
    (void)unused;
    uint32_t n = cinf_model_list(service_of(x)->engine, models, SERVED_MODELS_MAX);
    struct json_writer w = json_write_to(&out);
    json_open_object(&w, NULL);
    json_put_text(&w, "object", "list");
    json_open_array(&w, "data");
    for (uint32_t i = 0; i < n && i < SERVED_MODELS_MAX; i++) {
        put_model(&w, models[i]);
        cinf_model_release(models[i]);
    }
    json_close(&w);
    json_close(&w);
    answer_json(x, 200, &out);
}

void get_model(struct exchange *x, const char *name)
{
    struct strbuf out = { 0 };
    struct cinf_model_info info;
    struct cinf_model *model = model_for(x, name, &info);
    if (!model)
        return;
    struct json_writer w = json_write_to(&out);
    put_model(&w, model);
    cinf_model_release(model);
    answer_json(x, 200, &out);
}
