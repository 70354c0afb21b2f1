/* cli_devices.c - lists and measures the devices that can compute. */
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
    strbuf_printf(out, "%-14s %s, %.1f GiB\n", name, d->description, (double)d->memory_total / (1 << 30));
    if (d->as_per_flop && d->as_per_byte)
        strbuf_printf(out, "%14s measured: %.1f GFLOP/s, %.1f GB/s\n", "", 1e9 / (double)d->as_per_flop,
                      1e9 / (double)d->as_per_byte);
}

/* Opens a device and fills *info; NULL if it cannot be opened, and cinf_last_error() says why. */
static const struct cinf_device_info *ask_device(struct cinf_device_info *info, const char *name)
{
    struct cinf_engine *engine = NULL;
    if (cinf_engine_open(&engine, &(struct cinf_engine_options){ CINF_ENGINE_OPTIONS, .device = name }) !=
        CINF_OK)
        return NULL;
    cinf_engine_device(engine, info);
    cinf_engine_close(engine);
    return info;
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
    struct cinf_device_info chosen = { CINF_DEVICE_INFO };
    const struct cinf_device_info *automatic = ask_device(&chosen, "auto");
    if (json)
        put_device_json(&w, "auto", automatic);
    else if (automatic)
        strbuf_printf(&out, "%-14s %s\n", "auto", automatic->reason);
    else
        put_device(&out, "auto", NULL);
    const char *name;
    for (uint32_t i = 0; (name = cinf_device_list(i)); i++) {
        /* The chosen device is not opened again: a second measurement would differ. */
        struct cinf_device_info info = { CINF_DEVICE_INFO };
        const struct cinf_device_info *found =
            automatic && strcmp(name, chosen.name) == 0 ? automatic : ask_device(&info, name);
        if (json)
            put_device_json(&w, name, found);
        else
            put_device(&out, name, found);
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
        "Opens each device in turn and prints the name to give to --device, the hardware, and the speed\n"
        "measured at opening, by which the cost of shared steps is split. The first line says what auto\n"
        "chooses, and why.\n",
    .run = run,
};
