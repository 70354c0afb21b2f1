/* openapi_api.c - GET /openapi.json: the routes and every bound of their fields, in OpenAPI 3.1.
 *
 * The operations come from routes.c's table and the bounds from the constants that the fields are read with;
 * a test asks for the document and tries each bound. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <costinfer/costinfer.h>

#include "answer.h"
#include "handlers.h"
#include "json_write.h"
#include "routes.h"
#include "schema.h"

/* ---- Operations --------------------------------------------------------------------------- */

/* "delete_admin_models_model": a client's generator makes a function's name of it, so another route does not
 * change it. */
static void put_operation_id(struct json_writer *w, const struct route *r, const char *method)
{
    char id[80];
    size_t n = strlen(method);
    memcpy(id, method, n);
    for (const char *c = r->path; *c && n < sizeof id - 1; c++)
        if (isalnum((unsigned char)*c))
            id[n++] = *c;
        else if (n > 0 && id[n - 1] != '_' && c[1])
            id[n++] = '_';
    json_put_bytes(w, "operationId", id, n);
}

static void put_model_parameter(struct json_writer *w)
{
    json_open_array(w, "parameters");
    json_open_object(w, NULL);
    json_put_text(w, "name", "model");
    json_put_text(w, "in", "path");
    json_put_bool(w, "required", true);
    schema_put_type(w, "schema", "string");
    json_close(w);
    json_close(w);
}

static void put_operation(struct json_writer *w, const struct route *r)
{
    char method[8] = "", status[12];
    for (size_t i = 0; r->method[i] && i < sizeof method - 1; i++)
        method[i] = (char)tolower((unsigned char)r->method[i]);
    snprintf(status, sizeof status, "%u", r->success);
    json_open_object(w, method);
    json_put_text(w, "summary", r->summary);
    put_operation_id(w, r, method);
    if (strchr(r->path, '{'))
        put_model_parameter(w);
    if (r->body != BODY_NONE)
        schema_put_body(w, r->body);
    json_open_object(w, "responses");
    json_open_object(w, status);
    json_put_text(w, "description", "Success");
    json_close(w);
    schema_put_reference(w, "4XX", "#/components/responses/Error");
    schema_put_reference(w, "5XX", "#/components/responses/Error");
    json_close(w);
    json_close(w);
}

static bool is_documented(const struct route *r, const char *path)
{
    return r->audience == AUDIENCE_ALL && strcmp(r->path, path) == 0;
}

/* The operations of one path, where the path comes first in the table. */
static void put_path(struct json_writer *w, size_t first)
{
    const char *path = routes[first].path;
    for (size_t i = 0; i < first; i++)
        if (is_documented(&routes[i], path))
            return;
    json_open_object(w, path);
    for (size_t i = first; i < n_routes; i++)
        if (is_documented(&routes[i], path))
            put_operation(w, &routes[i]);
    json_close(w);
}

/* ---- The document ------------------------------------------------------------------------- */

static void put_info(struct json_writer *w)
{
    json_open_object(w, "info");
    json_put_text(w, "title", "costd");
    json_put_text(w, "version", cinf_version());
    json_put_text(w, "description", "GPT-2 over HTTP, with the exact cost of every request");
    json_open_object(w, "license");
    json_put_text(w, "name", "MIT");
    json_put_text(w, "identifier", "MIT");
    json_close(w);
    json_close(w);
}

/* One server, this one; requests without a key and with one. */
static void put_access(struct json_writer *w)
{
    json_open_array(w, "servers");
    json_open_object(w, NULL);
    json_put_text(w, "url", "/");
    json_close(w);
    json_close(w);
    json_open_array(w, "security");
    json_open_object(w, NULL);
    json_close(w);
    json_open_object(w, NULL);
    json_open_array(w, "key");
    json_close(w);
    json_close(w);
    json_close(w);
}

static void put_error_schema(struct json_writer *w)
{
    static const char *const members[] = { "message", "type", "param", "code" };
    json_open_object(w, "Error");
    schema_put_types(w, "object");
    json_open_array(w, "required");
    json_put_text(w, NULL, "error");
    json_close(w);
    json_open_object(w, "properties");
    json_open_object(w, "error");
    schema_put_types(w, "object");
    json_open_array(w, "required");
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        json_put_text(w, NULL, members[i]);
    json_close(w);
    json_open_object(w, "properties");
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        schema_put_type(w, members[i], i < 2 ? "string" : "string null");
    json_close(w);
    json_close(w);
    json_close(w);
    json_close(w);
}

static void put_components(struct json_writer *w)
{
    json_open_object(w, "components");
    json_open_object(w, "securitySchemes");
    json_open_object(w, "key");
    json_put_text(w, "type", "http");
    json_put_text(w, "scheme", "bearer");
    json_close(w);
    json_close(w);
    json_open_object(w, "responses");
    json_open_object(w, "Error");
    json_put_text(w, "description", "An error");
    json_open_object(w, "content");
    json_open_object(w, "application/json");
    schema_put_reference(w, "schema", "#/components/schemas/Error");
    json_close(w);
    json_close(w);
    json_close(w);
    json_close(w);
    json_open_object(w, "schemas");
    json_open_object(w, "Stop");
    schema_put_types(w, "string");
    json_put_u64(w, "minLength", 1);
    json_put_u64(w, "maxLength", CINF_STOP_BYTES_MAX);
    json_close(w);
    put_error_schema(w);
    json_close(w);
    json_close(w);
}

void get_openapi(struct exchange *x, const char *unused)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    (void)unused;
    json_open_object(&w, NULL);
    json_put_text(&w, "openapi", "3.1.0");
    put_info(&w);
    put_access(&w);
    json_open_object(&w, "paths");
    for (size_t i = 0; i < n_routes; i++)
        if (routes[i].audience == AUDIENCE_ALL)
            put_path(&w, i);
    json_close(&w);
    put_components(&w);
    json_close(&w);
    strbuf_putc(&out, '\n');
    answer_json(x, 200, &out);
}
