/* other_callers.c - programs built against an older and a newer libcostinfer call this one.
 *
 * An older program's structs are shorter.  Here they end where memory ends, so a byte read or written past
 * struct_size crashes.  A newer program's structs are longer, and the tail that this library does not know
 * must stay unchanged. check_layout.py guards where the fields lie. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <costinfer/costinfer.h>

#define CHECK(what)                                                                                          \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #what, cinf_last_error());               \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

/* Returns `size` zeroed bytes that end where a page ends, before memory that cannot be touched; struct_size
 * is set. */
static void *at_the_edge(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && size <= page);
    CHECK(mprotect(pages + page, page, PROT_NONE) == 0);
    char *s = pages + page - size;
    memcpy(s, &size, sizeof size);
    return s;
}

/* The size of a struct that ended with `field`, aligned as structs are. */
#define UP_TO(type, field) (((offsetof(type, field) + sizeof((type *)0)->field) + 7) / 8 * 8)

enum { TAIL = 64 };

/* Returns a whole struct and a tail that this library does not know. */
static void *with_tail(size_t size)
{
    char *s = calloc(1, size + TAIL);
    CHECK(s);
    memset(s + size, 0x5a, TAIL);
    size += TAIL;
    memcpy(s, &size, sizeof size);
    return s;
}

static void check_tail(void *s, size_t size)
{
    for (size_t i = 0; i < TAIL; i++)
        CHECK(((char *)s)[size + i] == 0x5a);
    free(s);
}

static void drain(struct cinf_request *request, struct cinf_event *event)
{
    uint32_t tokens = 0;
    do {
        CHECK(cinf_request_next(request, UINT64_MAX, event) == CINF_OK);
        tokens += event->kind == CINF_EVENT_TOKEN;
    } while (event->kind != CINF_EVENT_END);
    CHECK(tokens == 3);
}

static void older(const char *folder)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    struct cinf_request *request;
    struct cinf_engine_options *eo = at_the_edge(UP_TO(struct cinf_engine_options, device));
    eo->device = "cpu-reference";
    CHECK(cinf_engine_open(&engine, eo) == CINF_OK);

    struct cinf_device_info *device = at_the_edge(UP_TO(struct cinf_device_info, name));
    cinf_engine_device(engine, device);
    CHECK(strcmp(device->name, "cpu-reference") == 0);

    struct cinf_model_options *mo = at_the_edge(UP_TO(struct cinf_model_options, folder));
    mo->name = "old";
    mo->folder = folder;
    CHECK(cinf_model_load(&model, engine, mo) == CINF_OK);
    struct cinf_model_info *info = at_the_edge(UP_TO(struct cinf_model_info, name));
    cinf_model_info(model, info);
    CHECK(strcmp(info->name, "old") == 0);

    struct cinf_request_options *ro = at_the_edge(UP_TO(struct cinf_request_options, max_tokens));
    ro->prompt = "Once upon";
    ro->max_tokens = 3;
    CHECK(cinf_request_submit(&request, model, ro) == CINF_OK);
    drain(request, at_the_edge(UP_TO(struct cinf_event, kind)));
    struct cinf_report *report = at_the_edge(UP_TO(struct cinf_report, output_tokens));
    cinf_request_report(request, report);
    CHECK(report->output_tokens == 3 && report->finish == CINF_FINISH_LENGTH);
    cinf_request_free(request);
    cinf_model_release(model);
    cinf_engine_close(engine);

    struct cinf_meter *meter;
    struct cinf_meter_options *to = at_the_edge(UP_TO(struct cinf_meter_options, device));
    to->device = "lathe";
    CHECK(cinf_meter_new(&meter, to) == CINF_OK);
    struct cinf_snapshot *snapshot = at_the_edge(UP_TO(struct cinf_snapshot, memory));
    CHECK(cinf_meter_snapshot(snapshot, meter) == CINF_OK);
    CHECK(strcmp(snapshot->device, "lathe") == 0);
    cinf_snapshot_free(snapshot);
    /* A struct that could not be freed again is refused. */
    struct cinf_snapshot *stump = at_the_edge(UP_TO(struct cinf_snapshot, as_of_ns));
    CHECK(cinf_meter_snapshot(stump, meter) == CINF_EINVAL && stump->as_of_ns == 0);
    cinf_meter_free(meter);
}

/* Structs of every size that an older or a future header could have, so that an appended field is covered
 * from the start.  Sizes that end before `first`, the field that a call needs, are left out. */
#define EVERY_SIZE(n, type, first) for (size_t n = UP_TO(type, first); n <= sizeof(type); n += sizeof(void *))

static void every_size(const char *folder)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    struct cinf_request *request;
    EVERY_SIZE(n, struct cinf_engine_options, device)
    {
        struct cinf_engine_options *eo = at_the_edge(n);
        eo->device = "cpu-reference";
        CHECK(cinf_engine_open(&engine, eo) == CINF_OK);
        cinf_engine_close(engine);
    }
    CHECK(cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS,
                                                                   .device = "cpu-reference" }) == CINF_OK);
    EVERY_SIZE(n, struct cinf_device_info, name)
    {
        struct cinf_device_info *info = at_the_edge(n);
        cinf_engine_device(engine, info);
        CHECK(info->struct_size == n && strcmp(info->name, "cpu-reference") == 0);
    }
    EVERY_SIZE(n, struct cinf_model_options, folder)
    {
        struct cinf_model_options *mo = at_the_edge(n);
        mo->folder = folder;
        CHECK(cinf_model_load(&model, engine, mo) == CINF_OK);
        CHECK(cinf_model_unload(model) == CINF_OK);
        cinf_model_release(model);
    }
    CHECK(cinf_model_load(&model, engine,
                          &(struct cinf_model_options){ CINF_MODEL_OPTIONS, .folder = folder }) == CINF_OK);
    EVERY_SIZE(n, struct cinf_model_info, name)
    {
        struct cinf_model_info *info = at_the_edge(n);
        cinf_model_info(model, info);
        CHECK(info->struct_size == n && strcmp(info->name, "stories-small") == 0);
    }
    EVERY_SIZE(n, struct cinf_request_options, max_tokens)
    {
        struct cinf_request_options *ro = at_the_edge(n);
        ro->prompt = "Once upon";
        ro->max_tokens = 3;
        CHECK(cinf_request_submit(&request, model, ro) == CINF_OK);
        drain(request, &(struct cinf_event){ CINF_EVENT });
        cinf_request_free(request);
    }
    EVERY_SIZE(n, struct cinf_event, kind)
    {
        CHECK(cinf_request_submit(&request, model,
                                  &(struct cinf_request_options){ CINF_REQUEST_OPTIONS, .prompt = "Once upon",
                                                                  .max_tokens = 3 }) == CINF_OK);
        drain(request, at_the_edge(n));
        EVERY_SIZE(m, struct cinf_report, finish)
        {
            struct cinf_report *report = at_the_edge(m);
            cinf_request_report(request, report);
            CHECK(report->struct_size == m && report->finish == CINF_FINISH_LENGTH);
        }
        cinf_request_free(request);
    }
    cinf_model_release(model);
    cinf_engine_close(engine);

    struct cinf_meter *meter;
    EVERY_SIZE(n, struct cinf_meter_options, device)
    {
        struct cinf_meter_options *to = at_the_edge(n);
        to->device = "lathe";
        CHECK(cinf_meter_new(&meter, to) == CINF_OK);
        EVERY_SIZE(m, struct cinf_snapshot, device)
        {
            struct cinf_snapshot *s = at_the_edge(m);
            bool whole = m >= UP_TO(struct cinf_snapshot, memory);
            CHECK(cinf_meter_snapshot(s, meter) == (whole ? CINF_OK : CINF_EINVAL));
            if (whole)
                cinf_snapshot_free(s);
        }
        cinf_meter_free(meter);
    }
}

static void newer(const char *folder)
{
    struct cinf_engine *engine;
    struct cinf_model *model;
    struct cinf_request *request;
    struct cinf_engine_options *eo = with_tail(sizeof *eo);
    eo->device = "cpu-reference";
    CHECK(cinf_engine_open(&engine, eo) == CINF_OK);
    check_tail(eo, sizeof *eo);

    struct cinf_model_options *mo = with_tail(sizeof *mo);
    mo->folder = folder;
    CHECK(cinf_model_load(&model, engine, mo) == CINF_OK);
    check_tail(mo, sizeof *mo);
    struct cinf_model_info *info = with_tail(sizeof *info);
    cinf_model_info(model, info);
    CHECK(info->struct_size == sizeof *info && info->config.vocab_size == 2048);
    check_tail(info, sizeof *info);

    struct cinf_request_options *ro = with_tail(sizeof *ro);
    ro->prompt = "Once upon";
    ro->max_tokens = 3;
    CHECK(cinf_request_submit(&request, model, ro) == CINF_OK);
    check_tail(ro, sizeof *ro);
    struct cinf_event *event = with_tail(sizeof *event);
    drain(request, event);
    check_tail(event, sizeof *event);
    struct cinf_report *report = with_tail(sizeof *report);
    cinf_request_report(request, report);
    CHECK(report->output_tokens == 3);
    check_tail(report, sizeof *report);
    cinf_request_free(request);

    struct cinf_snapshot *snapshot = with_tail(sizeof *snapshot);
    CHECK(cinf_meter_snapshot(snapshot, cinf_engine_meter(engine)) == CINF_OK);
    CHECK(snapshot->n_models == 1);
    cinf_snapshot_free(snapshot);
    check_tail(snapshot, sizeof *snapshot);
    cinf_model_release(model);
    cinf_engine_close(engine);
}

/* Options without a size are refused. */
static void sizeless(void)
{
    struct cinf_engine *engine = NULL;
    struct cinf_meter *meter = NULL;
    CHECK(cinf_engine_open(&engine, &(struct cinf_engine_options){ .threads = 1 }) == CINF_EINVAL && !engine);
    CHECK(cinf_meter_new(&meter, &(struct cinf_meter_options){ .device = "x" }) == CINF_EINVAL && !meter);
}

int main(int argc, char *argv[])
{
    if (argc != 2)
        return 2;
    older(argv[1]);
    every_size(argv[1]);
    newer(argv[1]);
    sizeless();
    return 0;
}
