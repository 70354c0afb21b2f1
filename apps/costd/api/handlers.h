/* handlers.h - what answers each route (the table is in routes.c).  A handler answers `x` in every case. */
#ifndef HANDLERS_H
#define HANDLERS_H

#include <costinfer/engine.h>

#include "exchange.h"

/* generate_api.c; name: of the model, decoded */
void post_generate(struct exchange *x, const char *name);

/* completions_api.c */
void post_completions(struct exchange *x, const char *unused);

/* tokens_api.c */
void post_tokenize(struct exchange *x, const char *unused);
void post_detokenize(struct exchange *x, const char *unused);

/* models_api.c */
void get_models(struct exchange *x, const char *unused);
void get_model(struct exchange *x, const char *name);

/* Returns a handle that the caller releases, and fills *info; or answers `x` and returns NULL.  `name` NULL
 * means the only model that is loaded. */
struct cinf_model *model_for(struct exchange *x, const char *name, struct cinf_model_info *info);

/* admin_api.c */
void admin_models(struct exchange *x, const char *unused);
void admin_model(struct exchange *x, const char *name);
void admin_load(struct exchange *x, const char *unused);
void admin_unload(struct exchange *x, const char *name);
void admin_price(struct exchange *x, const char *unused);

/* props_api.c */
void get_props(struct exchange *x, const char *unused);

/* health_api.c */
void get_health(struct exchange *x, const char *unused);
void get_ready(struct exchange *x, const char *unused);

/* lost_api.c */
void no_chat(struct exchange *x, const char *unused);
void no_embeddings(struct exchange *x, const char *unused);

/* openapi_api.c */
void get_openapi(struct exchange *x, const char *unused);

/* metrics_page.c */
void get_metrics(struct exchange *x, const char *unused);

/* cost_page.c, history_api.c */
void get_page(struct exchange *x, const char *unused);
void get_history(struct exchange *x, const char *unused);
void get_recent(struct exchange *x, const char *unused);

#endif
