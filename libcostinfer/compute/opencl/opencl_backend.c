/* opencl_backend.c - the OpenCL backend's table of functions; nothing below it names it. */
#include "opencl_find.h"
#include "opencl_kv.h"
#include "opencl_measure.h"
#include "opencl_open.h"
#include "opencl_prepare.h"
#include "opencl_step.h"
#include "opencl_weights.h"

static enum cinf_status open_device(struct device **out, const struct device_options *options)
{
    return opencl_open(out, &backend_opencl, options, NULL);
}

const struct backend backend_opencl = {
    .name = "opencl",
    .find = opencl_find,
    .open = open_device,
    .close = opencl_close,
    .info = opencl_info,
    .profile = opencl_device_profile,
    .measure = opencl_measure,
    .weights_new = opencl_weights_new,
    .weights_free = opencl_weights_free,
    .weights_write = opencl_weights_write,
    .weights_finish = opencl_weights_finish,
    .weights_bytes = opencl_weights_bytes,
    .kv_new = opencl_kv_new,
    .kv_free = opencl_kv_free,
    .kv_slot_bytes = opencl_kv_slot_bytes,
    .kv_slots_max = opencl_kv_slots_max,
    .kv_copy = opencl_kv_copy,
    .prepare = opencl_prepare,
    .prepared_free = opencl_prepared_free,
    .prepare_more = opencl_prepare_more,
    .run = opencl_run,
    .wait = opencl_wait,
    .logits = opencl_logits,
    .allow = opencl_allow,
    .top_k = opencl_top_k,
};
