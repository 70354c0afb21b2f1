#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "columns.h"
#include "fail.h"
#include "file.h"
#include "host_name.h"
#include "json.h"
#include "listener.h"
#include "mem.h"
#include "strbuf.h"
#include "utf8.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

enum kind { TEXT, COUNT, SIZE, PRICE, WEIGHTS, KV, BASIS, RELOAD, BUCKETS, HOSTS, MODEL, SWITCH };

struct option {
    const char *flag; /* "cpu-cost-per-hour"; the file's key has '_' for '-' */
    enum kind kind;
    size_t offset; /* in struct settings */
    uint64_t low, high;
    bool flag_only;
    const char *argument, *help;
};

#define AT(member) offsetof(struct settings, member)

static const struct option options[] = {
    { "model", MODEL, 0, 0, 0, false, "NAME=DIR",
      "serve the checkpoint in folder DIR as NAME; give it once for each model" },
    { "listen", TEXT, AT(listen), 0, 0, false, "HOST:PORT",
      "address to serve on (default 127.0.0.1:8000; port 0: any free port, which the log names)" },
    { "metrics-listen", TEXT, AT(metrics_listen), 0, 0, false, "HOST:PORT",
      "serve /metrics, the page and /admin on this address and no longer on --listen" },
    { "keys", TEXT, AT(keys), 0, 0, false, "FILE",
      "API keys, one a line: NAME SHA256-OF-THE-KEY [admin]; without this flag any client may ask" },
    { "insecure", SWITCH, AT(insecure), 0, 0, true, NULL,
      "listen on an address that is not loopback although --keys is not given" },
    { "allow-host", HOSTS, AT(allow_host), 0, 0, false, "NAME,…",
      "host names to accept in Host and Origin headers besides IP addresses and localhost, where no key is "
      "needed or this flag is given; *.NAME: all below NAME; any: all (see docs/proxies.md)" },
    { "config", TEXT, AT(config), 0, 0, true, "FILE", "read settings from this JSON file too" },
    { "cpu-cost-per-hour", PRICE, AT(cpu_price), 0, 0, false, "DOLLARS",
      "what an hour of this machine costs when models run on the CPU" },
    { "gpu-cost-per-hour", PRICE, AT(gpu_price), 0, 0, false, "DOLLARS",
      "the same for a GPU; without the price that applies, requests are unpriced (null)" },
    { "basis", BASIS, AT(basis), 0, 0, false, "wall|cpu",
      "charge wall time (default), or CPU time at a price per core-hour, for shared machines" },
    { "daily-budget", PRICE, AT(daily_budget), 0, 0, false, "DOLLARS",
      "exported as costd_daily_budget_dollars, for alerts to compare the cost with" },
    { "ledger", TEXT, AT(ledger), 0, 0, false, "FILE|none",
      "keep accounts in this file, which `costinfer costs` sums over any period (default none)" },
    { "latency-buckets", BUCKETS, 0, 0, 0, false, "S,S,…",
      "upper bounds of the latency histogram in seconds, ascending" },
    { "device", TEXT, AT(device), 0, 0, false, "DEVICE",
      "auto (default), opencl, part of a name, or one of: " /* settings_help() goes on */ },
    { "threads", COUNT, AT(threads), 0, 1024, false, "N",
      "threads of the device (default 0: the device chooses)" },
    { "weights", WEIGHTS, AT(weights), 0, 0, false, "TYPE",
      "type of the weights in memory: auto (default, as stored), f32, f16, bf16, int8 or int4" },
    { "kv", KV, AT(kv), 0, 0, false, "auto|f32|f16",
      "type of cached keys and values: f32, f16 (half the memory; cpu, opencl), or auto (default): f16 where "
      "--weights is int8 or int4, f32 otherwise" },
    { "kv-memory", SIZE, AT(kv_memory), 0, UINT64_C(1) << 50, false, "BYTES",
      "memory for the caches of all models, with K, M or G (default 0: a quarter of RAM, or what a GPU has "
      "free)" },
    { "slots", COUNT, AT(slots), 0, 1024, false, "N",
      "requests of one model computed concurrently (default 0: 16, or what the memory of the caches "
      "allows)" },
    { "no-speculation", SWITCH, AT(no_speculation), 0, 0, false, NULL,
      "compute one token of a sequence in a step and no draft tokens; the text is the same" },
    { "share-prefixes", SWITCH, AT(share_prefixes), 0, 0, false, NULL,
      "reuse what was computed of a prompt's beginning across API keys; each then sees in cached_tokens what "
      "others have asked" },
    { "reload", RELOAD, AT(unload_first), 0, 0, false, "swap|unload-first",
      "how a model is loaded again: beside the old one, which serves until it is done (swap, the default), "
      "or after it, where memory has no room for two" },
    { "queue", COUNT, AT(queue), 1, 65536, false, "N",
      "requests of one model that may wait for a slot, and 16 times as many over all models (default 256)" },
    { "shutdown-delay", COUNT, AT(delay_seconds), 0, 3600, false, "SECONDS",
      "how long to keep serving after SIGTERM while /ready is already 503, for balancers (default 0)" },
    { "drain-seconds", COUNT, AT(drain_seconds), 0, 86400, false, "N",
      "how long running requests may continue after SIGTERM and that delay (default 30)" },
    { "head-seconds", COUNT, AT(head_seconds), 1, 3600, false, "N",
      "how long a request's head may take to arrive (default 10)" },
    { "body-seconds", COUNT, AT(body_seconds), 1, 3600, false, "N",
      "how long a request's body may take to arrive (default 30)" },
    { "idle-seconds", COUNT, AT(idle_seconds), 1, 86400, false, "N",
      "how long a connection may wait between two requests (default 75)" },
    { "stall-seconds", COUNT, AT(stall_seconds), 1, 3600, false, "N",
      "how long the client of a stream may read nothing (default 20); its request is paused until it reads" },
    { "ping-seconds", COUNT, AT(ping_seconds), 1, 3600, false, "N",
      "send a comment on a stream that has been silent for this long (default 15)" },
    { "body-bytes", SIZE, AT(body_bytes), 1024, 1 << 30, false, "BYTES",
      "the largest body of a request, with K, M or G (default 1M, which has room for 64 prompts of 2,048 "
      "token ids)" },
    { "strict", SWITCH, AT(strict), 0, 0, false, NULL,
      "refuse fields that are unknown instead of naming them in x-ignored-fields and the log" },
    { "connections", COUNT, AT(connections), 2, 65536, false, "N",
      "the most connections at a time (default 4096)" },
    { "connections-per-address", COUNT, AT(connections_per_address), 0, 65536, false, "N",
      "the most connections of one IP address (default 0: no limit); all clients of a proxy have its "
      "address" },
    { "check-config", SWITCH, AT(check_config), 0, 0, true, NULL,
      "check the settings and the models' files, load nothing, and exit" },
    { "version", SWITCH, AT(version), 0, 0, true, NULL, "print the version and exit" },
    { "help", SWITCH, AT(help), 0, 0, true, NULL, "print this and exit" },
};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

static void *member_at(struct settings *s, const struct option *o)
{
    return (char *)s + o->offset;
}

static enum cinf_status set_text(char **out, const char *text)
{
    char *copy = mem_copy_text(text);
    if (!copy)
        return cinf_fail(CINF_ENOMEM, "no memory for the settings");
    mem_free(*out);
    *out = copy;
    return CINF_OK;
}

/* Accepts digits alone: strtoull would take signs and spaces. */
static bool read_digits(uint64_t *out, const char *text, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || !mul_u64(&value, value, 10) ||
            !add_u64(&value, value, (uint64_t)(text[i] - '0')))
            return false;
    }
    *out = value;
    return n > 0;
}

static enum cinf_status set_count(uint32_t *out, const struct option *o, const char *text)
{
    uint64_t value;
    if (!read_digits(&value, text, strlen(text)) || value < o->low || value > o->high)
        return cinf_fail(CINF_EINVAL, "\"%s\" is not an integer from %llu to %llu", text,
                         (unsigned long long)o->low, (unsigned long long)o->high);
    *out = (uint32_t)value;
    return CINF_OK;
}

static enum cinf_status set_size(uint64_t *out, const struct option *o, const char *text)
{
    static const char suffixes[] = "KMGT";
    size_t n = strlen(text);
    const char *suffix = n > 0 ? strchr(suffixes, text[n - 1]) : NULL;
    unsigned shift = suffix && *suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    uint64_t value;
    if (!read_digits(&value, text, shift ? n - 1 : n) || value > o->high >> shift || value << shift < o->low)
        return cinf_fail(CINF_EINVAL,
                         "\"%s\" is not a number of bytes from %llu to %llu, such as 536870912 or 512M", text,
                         (unsigned long long)o->low, (unsigned long long)o->high);
    *out = value << shift;
    return CINF_OK;
}

static enum cinf_status set_price(char **out, const char *text)
{
    uint64_t nanodollars;
    TRY(cinf_price_parse(&nanodollars, text));
    return set_text(out, text);
}

static enum cinf_status set_basis(enum cinf_basis *out, const char *text)
{
    if (strcmp(text, "wall") != 0 && strcmp(text, "cpu") != 0)
        return cinf_fail(CINF_EINVAL, "unknown basis \"%s\"; expected wall or cpu", text);
    *out = strcmp(text, "cpu") == 0 ? CINF_BASIS_CPU : CINF_BASIS_WALL;
    return CINF_OK;
}

static enum cinf_status set_reload(bool *unload_first, const char *text)
{
    if (strcmp(text, "swap") != 0 && strcmp(text, "unload-first") != 0)
        return cinf_fail(CINF_EINVAL, "unknown way \"%s\"; expected swap or unload-first", text);
    *unload_first = strcmp(text, "unload-first") == 0;
    return CINF_OK;
}

static enum cinf_status set_buckets(struct settings *s, const char *text)
{
    double bounds[LATENCY_BUCKETS_MAX];
    uint32_t n = 0;
    for (const char *at = text;; at++) {
        char *end = NULL;
        double bound = strspn(at, "0123456789.eE+-") > 0 ? strtod(at, &end) : 0;
        if (!end || (*end && *end != ',') || !(bound > 0 && bound <= 1e6) ||
            (n > 0 && bound <= bounds[n - 1]) || n == LATENCY_BUCKETS_MAX)
            return cinf_fail(CINF_EINVAL, "\"%s\" is not a list of at most %d ascending seconds", text,
                             LATENCY_BUCKETS_MAX);
        bounds[n++] = bound;
        at = end;
        if (!*at)
            break;
    }
    memcpy(s->latency_buckets, bounds, sizeof bounds);
    s->n_latency_buckets = n;
    return CINF_OK;
}

static bool name_is_good(const char *name)
{
    size_t n = strlen(name);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return false;
    return n > 0 && n <= MODEL_NAME_BYTES_MAX && utf8_valid(name, n);
}

/* A known name gets the new folder. */
static enum cinf_status set_model(struct settings *s, const char *name, const char *folder)
{
    uint32_t at = 0;
    if (!name_is_good(name))
        return cinf_fail(CINF_EINVAL, "\"%s\" is not a name of 1 to %d printable bytes", name,
                         MODEL_NAME_BYTES_MAX);
    if (!*folder)
        return cinf_fail(CINF_EINVAL, "\"%s\" has no folder", name);
    while (at < s->n_models && strcmp(s->models[at].name, name) != 0)
        at++;
    if (at == SERVED_MODELS_MAX)
        return cinf_fail(CINF_EINVAL, "more than %d models", SERVED_MODELS_MAX);
    struct model_setting entry = { mem_copy_text(name), mem_copy_text(folder) };
    if (!entry.name || !entry.folder) {
        mem_free(entry.name);
        mem_free(entry.folder);
        return cinf_fail(CINF_ENOMEM, "no memory for the settings");
    }
    if (at == s->n_models)
        s->n_models++;
    mem_free(s->models[at].name);
    mem_free(s->models[at].folder);
    s->models[at] = entry;
    return CINF_OK;
}

static enum cinf_status set_model_pair(struct settings *s, const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals)
        return cinf_fail(CINF_EINVAL, "\"%s\" is not NAME=DIR", text);
    char *name = mem_copy_text(text);
    if (!name)
        return cinf_fail(CINF_ENOMEM, "no memory for the settings");
    name[equals - text] = '\0';
    enum cinf_status status = set_model(s, name, equals + 1);
    mem_free(name);
    return status;
}

static enum cinf_status set_option(struct settings *s, const struct option *o, const char *text)
{
    switch (o->kind) {
    case TEXT:
        if (!*text)
            return cinf_fail(CINF_EINVAL, "the value is empty");
        return set_text(member_at(s, o), text);
    case HOSTS:
        TRY(host_list_check(text));
        return set_text(member_at(s, o), text);
    case COUNT:
        return set_count(member_at(s, o), o, text);
    case SIZE:
        return set_size(member_at(s, o), o, text);
    case PRICE:
        return set_price(member_at(s, o), text);
    case WEIGHTS:
        return cinf_weights_parse(member_at(s, o), text);
    case KV:
        s->kv.given = strcmp(text, "auto") != 0;
        if (s->kv.given && cinf_kv_parse(&s->kv.kv, text) != CINF_OK)
            return cinf_fail(CINF_EINVAL, "unknown type \"%.40s\"; expected auto, f32 or f16", text);
        return CINF_OK;
    case BASIS:
        return set_basis(member_at(s, o), text);
    case RELOAD:
        return set_reload(member_at(s, o), text);
    case BUCKETS:
        return set_buckets(s, text);
    case MODEL:
        return set_model_pair(s, text);
    case SWITCH:
        *(bool *)member_at(s, o) = true;
        return CINF_OK;
    }
    return CINF_OK;
}

/* ---- The file ------------------------------------------------------------------------------ */

static void key_of(char key[32], const struct option *o)
{
    size_t i = 0;
    for (; o->flag[i]; i++)
        key[i] = o->flag[i] == '-' ? '_' : o->flag[i];
    if (o->kind == MODEL)
        key[i++] = 's';
    key[i] = '\0';
}

static const struct option *option_of_key(const char *name)
{
    char key[32];
    for (int i = 0; i < N_OPTIONS; i++) {
        key_of(key, &options[i]);
        if (!options[i].flag_only && strcmp(key, name) == 0)
            return &options[i];
    }
    return NULL;
}

static enum cinf_status set_models_of_file(struct settings *s, const cJSON *models)
{
    const cJSON *m;
    if (!cJSON_IsObject(models))
        return cinf_fail(CINF_EINVAL, "must be an object of \"NAME\": \"DIR\"");
    cJSON_ArrayForEach(m, models)
    {
        if (!cJSON_IsString(m))
            return cinf_fail(CINF_EINVAL, "\"%s\" must be a folder's path", m->string);
        TRY(set_model(s, m->string, m->valuestring));
    }
    return CINF_OK;
}

/* Converts numbers and lists to the form that a flag has, so that one parser judges both. */
static enum cinf_status set_option_of_file(struct settings *s, const struct option *o, const cJSON *value)
{
    struct strbuf text = { 0 };
    const cJSON *element;
    bool good = true;
    if (o->kind == SWITCH) {
        /* A switch that a flag has set stays on. */
        *(bool *)member_at(s, o) |= cJSON_IsTrue(value);
        return cJSON_IsBool(value) ? CINF_OK : cinf_fail(CINF_EINVAL, "must be true or false");
    }
    if (cJSON_IsString(value)) {
        strbuf_puts(&text, value->valuestring);
    } else if (cJSON_IsNumber(value) && o->kind == PRICE) {
        /* cinf_price_parse() knows no exponents; a tenth decimal must not get lost on the way to it. */
        strbuf_printf(&text, "%.9f", value->valuedouble);
        good = text.failed || strtod(text.text, NULL) == value->valuedouble;
    } else if (cJSON_IsNumber(value)) {
        strbuf_printf(&text, "%.17g", value->valuedouble);
    } else if (cJSON_IsArray(value) && o->kind == BUCKETS) {
        cJSON_ArrayForEach(element, value)
        {
            good = good && cJSON_IsNumber(element);
            strbuf_puts(&text, text.len ? "," : "");
            strbuf_put_double(&text, good ? element->valuedouble : 0);
        }
    } else {
        good = false;
    }
    enum cinf_status status;
    if (!good)
        status = cinf_fail(CINF_EINVAL, o->kind == BUCKETS ? "must be an array of numbers"
                                        : o->kind == PRICE ? "must be dollars with at most nine decimals"
                                                           : "must be a string or a number");
    else if (text.failed)
        status = cinf_fail(CINF_ENOMEM, "no memory for the settings");
    else
        status = set_option(s, o, text.text ? text.text : "");
    strbuf_free(&text);
    return status;
}

static enum cinf_status apply_tree(struct settings *s, const cJSON *tree)
{
    const cJSON *m;
    if (!cJSON_IsObject(tree))
        return cinf_fail(CINF_EINVAL, "not an object");
    cJSON_ArrayForEach(m, tree)
    {
        const struct option *o = option_of_key(m->string);
        if (!o)
            return cinf_fail(CINF_EINVAL, "unknown key \"%s\"", m->string);
        if (cJSON_IsNull(m))
            continue;
        enum cinf_status status = o->kind == MODEL ? set_models_of_file(s, m) : set_option_of_file(s, o, m);
        if (status != CINF_OK)
            return cinf_fail_in(status, "\"%s\": ", m->string);
    }
    return CINF_OK;
}

static enum cinf_status apply_file(struct settings *s, const char *path)
{
    char *text;
    size_t n;
    cJSON *tree;
    TRY(file_load(&text, &n, path, CONFIG_BYTES_MAX));
    enum cinf_status status = json_parse(&tree, text, n, NULL);
    mem_free(text);
    if (status == CINF_OK) {
        status = apply_tree(s, tree);
        cJSON_Delete(tree);
    }
    return status == CINF_OK ? CINF_OK : cinf_fail_in(status, "%s: ", path);
}

/* ---- The command line ---------------------------------------------------------------------- */

static const struct option *option_of_flag(const char *name, size_t n)
{
    for (int i = 0; i < N_OPTIONS; i++)
        if (strlen(options[i].flag) == n && memcmp(options[i].flag, name, n) == 0)
            return &options[i];
    return NULL;
}

/* Is called twice: first for --config and the switches alone, then, over the file's values, for the rest. */
static enum cinf_status apply_flags(struct settings *s, int argc, char *const argv[], bool first)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strncmp(word, "--", 2) != 0)
            return cinf_fail(CINF_EINVAL, "\"%s\" is not a flag (see --help)", word);
        size_t n = strcspn(word + 2, "=");
        const char *value = word[2 + n] ? word + 3 + n : NULL;
        const struct option *o = option_of_flag(word + 2, n);
        if (!o)
            return cinf_fail(CINF_EINVAL, "unknown flag %.*s (see --help)", (int)n + 2, word);
        if (o->kind == SWITCH && value)
            return cinf_fail(CINF_EINVAL, "--%s takes no value", o->flag);
        if (o->kind != SWITCH && !value) {
            if (i + 1 == argc)
                return cinf_fail(CINF_EINVAL, "--%s needs a value: --%s %s", o->flag, o->flag, o->argument);
            value = argv[++i];
        }
        if (o->flag_only == first) {
            enum cinf_status status = set_option(s, o, value);
            if (status != CINF_OK)
                return cinf_fail_in(status, "--%s: ", o->flag);
        }
    }
    return CINF_OK;
}

static enum cinf_status check(const struct settings *s)
{
    if (!listener_address_is_good(s->listen))
        return cinf_fail(CINF_EINVAL, "--listen: \"%s\" is not HOST:PORT or unix:PATH", s->listen);
    if (s->metrics_listen && !listener_address_is_good(s->metrics_listen))
        return cinf_fail(CINF_EINVAL, "--metrics-listen: \"%s\" is not HOST:PORT or unix:PATH",
                         s->metrics_listen);
    if (s->n_models == 0)
        return cinf_fail(CINF_EINVAL, "no model to serve: give --model NAME=DIR, or \"models\" in the file");
    return CINF_OK;
}

enum cinf_status settings_read(struct settings *out, int argc, char *const argv[])
{
    struct settings s = { .drain_seconds = 30,
                          .head_seconds = 10,
                          .body_seconds = 30,
                          .idle_seconds = 75,
                          .stall_seconds = 20,
                          .ping_seconds = 15,
                          .connections = 4096,
                          .body_bytes = 1 << 20 };
    enum cinf_status status = set_text(&s.listen, "127.0.0.1:8000");
    if (status == CINF_OK)
        status = apply_flags(&s, argc, argv, true);
    bool only_asks = status == CINF_OK && (s.help || s.version);
    if (status == CINF_OK && !only_asks && s.config)
        status = apply_file(&s, s.config);
    if (status == CINF_OK && !only_asks)
        status = apply_flags(&s, argc, argv, false);
    if (status == CINF_OK && !only_asks)
        status = check(&s);
    if (status != CINF_OK) {
        settings_free(&s);
        return status;
    }
    *out = s;
    return CINF_OK;
}

void settings_free(struct settings *s)
{
    for (uint32_t i = 0; i < s->n_models; i++) {
        mem_free(s->models[i].name);
        mem_free(s->models[i].folder);
    }
    mem_free(s->config);
    mem_free(s->listen);
    mem_free(s->metrics_listen);
    mem_free(s->keys);
    mem_free(s->ledger);
    mem_free(s->allow_host);
    mem_free(s->device);
    mem_free(s->cpu_price);
    mem_free(s->gpu_price);
    mem_free(s->daily_budget);
    *s = (struct settings){ 0 };
}

enum cinf_status model_setting_check(const char *name, const char *folder)
{
    struct settings scratch = { 0 };
    enum cinf_status status = set_model(&scratch, name, folder);
    settings_free(&scratch);
    return status;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_setting(const struct settings *a, const struct settings *b, const struct option *o)
{
    const char *x = (const char *)a + o->offset, *y = (const char *)b + o->offset;
    switch (o->kind) {
    case TEXT:
    case PRICE:
    case HOSTS:
        return same_text(*(char *const *)x, *(char *const *)y);
    case COUNT:
        return *(const uint32_t *)x == *(const uint32_t *)y;
    case SIZE:
        return *(const uint64_t *)x == *(const uint64_t *)y;
    case WEIGHTS:
        return *(const enum cinf_weights *)x == *(const enum cinf_weights *)y;
    case KV:
        return a->kv.given == b->kv.given && (!a->kv.given || a->kv.kv == b->kv.kv);
    case BASIS:
        return a->basis == b->basis;
    case RELOAD:
    case SWITCH:
        return *(const bool *)x == *(const bool *)y;
    case BUCKETS:
        return a->n_latency_buckets == b->n_latency_buckets &&
               memcmp(a->latency_buckets, b->latency_buckets,
                      a->n_latency_buckets * sizeof *a->latency_buckets) == 0;
    case MODEL:
        break;
    }
    return true;
}

void settings_differences(const struct settings *a, const struct settings *b,
                          void (*tell)(void *context, const char *flag), void *context)
{
    static const size_t applied[] = { AT(cpu_price), AT(gpu_price), AT(daily_budget),
                                      AT(weights),   AT(slots),     AT(unload_first) };
    for (int i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        bool is_applied = o->flag_only || o->kind == MODEL;
        for (size_t k = 0; k < sizeof applied / sizeof *applied; k++)
            is_applied |= o->kind != BUCKETS && o->offset == applied[k];
        if (!is_applied && !same_setting(a, b, o))
            tell(context, o->flag);
    }
}

enum cinf_status settings_check_folder(const char *folder, bool *has_tokenizer)
{
    struct cinf_config config;
    struct cinf_tokenizer *tokenizer = NULL;
    struct cinf_checkpoint *checkpoint = NULL;
    enum cinf_status status = cinf_config_read(&config, folder);
    if (status == CINF_OK) {
        status = cinf_tokenizer_open(&tokenizer, folder);
        if (status == CINF_ENOTFOUND) /* there is none: token ids are served */
            status = CINF_OK;
    }
    if (status == CINF_OK)
        status = cinf_checkpoint_open(&checkpoint, folder);
    *has_tokenizer = tokenizer != NULL;
    cinf_tokenizer_free(tokenizer);
    cinf_checkpoint_free(checkpoint);
    return status;
}

enum cinf_status settings_check_models(const struct settings *s)
{
    for (uint32_t i = 0; i < s->n_models; i++) {
        bool has_tokenizer;
        enum cinf_status status = settings_check_folder(s->models[i].folder, &has_tokenizer);
        if (status != CINF_OK)
            return cinf_fail_in(status, "model %s: ", s->models[i].name);
    }
    return CINF_OK;
}

/* ---- The manual ---------------------------------------------------------------------------- */

void settings_help(void)
{
    printf("FLAGS\n");
    for (int i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        struct strbuf help = { 0 };
        char name[64];
        snprintf(name, sizeof name, "--%s%s%s", o->flag, o->argument ? " " : "",
                 o->argument ? o->argument : "");
        strbuf_puts(&help, o->help);
        for (uint32_t d = 0; o->offset == AT(device) && cinf_device_list(d); d++)
            strbuf_printf(&help, "%s%s", d ? ", " : "", cinf_device_list(d));
        columns_print(name, help.failed ? o->help : help.text);
        strbuf_free(&help);
    }
    printf("\n"
           "  Flags override the file; the file overrides the defaults.  --model adds to the file's models.\n"
           "\n"
           "FILE\n"
           "  A JSON object with the flags' names as keys, '_' for '-', and \"models\":\n"
           "    { \"models\": { \"small\": \"examples/models/stories-small\" },\n"
           "      \"listen\": \"127.0.0.1:8000\", \"cpu_cost_per_hour\": \"0.10\", \"queue\": 64 }\n");
}
