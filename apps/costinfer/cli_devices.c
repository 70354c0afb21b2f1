/* cli_devices.c - the devices that can compute. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"

static void put_device_json(struct json_writer *w, const char *name, const struct cinf_device_info *d)
{
    json_new_line(w);
    json_open_object(w, NULL);
    json_put_text(w, "choice", name);
    json_put_bool(w, "available", d != NULL);
    if (d) {
        json_put_text(w, "name", d->name);
        json_put_text(w, "description", d->description);
        json_put_text(w, "reason", d->reason);
        json_put_bool(w, "is_gpu", d->is_gpu);
        json_put_u64(w, "threads", d->threads);
        json_put_u64(w, "memory_bytes", d->memory_total);
        json_put_u64(w, "as_per_flop", d->as_per_flop);
        json_put_u64(w, "as_per_byte", d->as_per_byte);
    } else {
        json_put_text(w, "reason", cinf_last_error());
    }
    json_close(w);
}

static void put_device(struct strbuf *out, const char *name, const struct cinf_device_info *d)
{
    if (!d) {
        strbuf_printf(out, "%-14s not available: %s\n", name, cinf_last_error());
        return;
    }
    strbuf_printf(out, "%-14s %s: %s, %.1f GiB\n%14s %s\n", name, d->name, d->description,
                  (double)d->memory_total / (1 << 30), "", d->reason);
    if (d->as_per_flop && d->as_per_byte)
        strbuf_printf(out, "%14s measured: %.1f GFLOP/s, %.1f GB/s\n", "", 1e9 / (double)d->as_per_flop,
                      1e9 / (double)d->as_per_byte);
}

static int run(const struct command *self, int argc, char **argv)
{
    bool json = false;
    const struct flag flags[] = {
        { "json", FLAG_SWITCH, &json, 0, 0, NULL, "A JSON array." },
    };
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, NULL);
    if (status != FLAGS_GO)
        return status;
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    if (json)
        json_open_array(&w, NULL);
    const char *name = "auto";
    for (uint32_t i = 0; name; name = cinf_device_list(i++)) {
        struct cinf_engine *engine = NULL;
        struct cinf_device_info info = { CINF_DEVICE_INFO }, *found = NULL;
        if (cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = name }) ==
            CINF_OK) {
            cinf_engine_device(engine, &info);
            found = &info;
        }
        if (json)
            put_device_json(&w, name, found);
        else
            put_device(&out, name, found);
        cinf_engine_close(engine);
    }
    if (json) {
        json_new_line(&w);
        json_close(&w);
    } else if (out.len) {
        out.text[--out.len] = '\0'; /* print_document() ends the last line */
    }
    status = print_document(&out);
    strbuf_free(&out);
    return status;
}

const struct command command_devices = {
    .name = "devices",
    .summary = "list the devices that can compute",
    .synopsis = "[--json]",
    .manual =
        "Opens each device in turn and prints the name to give to --device, what is behind it, and the\n"
        "speed measured at opening, which the cost of shared steps is split by.\n",
    .run = run,
};
