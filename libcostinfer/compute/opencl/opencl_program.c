/* opencl_program.c - which sources make a program, and building it or taking it from the cache.
 *
 * The products are compiled once for each type of weights and number of rows.  The preprocessor is the
 * template engine: weights_*.cl define what a weight is, M says how many rows share it, and the same source
 * follows each time. */
#include "opencl_program.h"

#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "kernel_sources.h"
#include "opencl_cache.h"
#include "strbuf.h"

/* ---- Building ----------------------------------------------------------------------------- */

/* An embedded file, or the text itself. */
static const char *source_of(const char *name)
{
    for (const struct kernel_source *s = kernel_sources; s->name; s++) {
        if (strcmp(s->name, name) == 0)
            return s->text;
    }
    return name;
}

/* The compiler's first complaint, for the message. */
static enum cinf_status build_failed(struct opencl_device *device, cl_program program, cl_int error)
{
    char log[2048] = "";
    if (clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL) !=
        CL_SUCCESS)
        snprintf(log, sizeof log, "no build log");
    char *first = strstr(log, "error");
    first = first ? first : log;
    first[strcspn(first, "\n")] = 0;
    return cinf_fail(CINF_EDEVICE, "device %s: building its kernels: %s (%d): %.160s", device->name,
                     opencl_error_name(error), error, first);
}

/* Takes a program from the cache, or builds it and keeps it there.  *error is the driver's. */
static enum cinf_status build(cl_program *out, cl_int *error, struct opencl_device *device,
                              const char *options, const char **texts, uint32_t n_texts)
{
    cl_program program = NULL;
    struct strbuf key = { 0 };
    if (device->tuning.cache) {
        opencl_cache_key(&key, device->id, options, texts, n_texts);
        program = opencl_cache_load(device->context, device->id, &key);
    }
    enum cinf_status status = CINF_OK;
    *error = CL_SUCCESS;
    if (!program) {
        program = clCreateProgramWithSource(device->context, n_texts, texts, NULL, error);
        if (!program)
            status = opencl_fail(device, *error, "creating a program");
        else if ((*error = clBuildProgram(program, 1, &device->id, options, NULL, NULL)) != CL_SUCCESS)
            status = build_failed(device, program, *error);
        else if (device->tuning.cache)
            opencl_cache_save(program, &key);
    }
    strbuf_free(&key);
    if (status == CINF_OK)
        *out = program;
    else if (program)
        clReleaseProgram(program);
    return status;
}

/* fma() rounds once, and some drivers' libraries lack it (Mesa 26 with Debian's libclc).  There mad() takes
 * its place, which may round twice. */
enum cinf_status opencl_program_new(cl_program *out, struct opencl_device *device, const char *options,
                                    const char *const *sources, uint32_t n_sources)
{
    enum { SOURCES_MAX = 48 };
    const char *texts[SOURCES_MAX];
    char all[768];
    if (n_sources > SOURCES_MAX)
        return cinf_fail(CINF_EINVAL, "a program of %u sources", n_sources);
    for (uint32_t i = 0; i < n_sources; i++)
        texts[i] = source_of(sources[i]);
    const bool had_mad = device->mad;
    cl_int error;
    enum cinf_status status;
    do {
        snprintf(all, sizeof all,
                 "-cl-std=CL1.2 -cl-mad-enable -DLANES=%u -DTILE_ROWS=%u -DHALF_CACHE=%d -DFMA=%s %s %s",
                 device->tuning.lanes, device->tuning.tile_rows, device->kv_f16, device->mad ? "mad" : "fma",
                 options, device->tuning.options ? device->tuning.options : "");
        status = build(out, &error, device, all, texts, n_sources);
    } while (error == CL_BUILD_PROGRAM_FAILURE && !device->mad && (device->mad = true));
    device->mad = status == CINF_OK ? device->mad : had_mad;
    return status;
}

enum cinf_status opencl_kernel_new(cl_kernel *out, struct opencl_device *device, cl_program program,
                                   const char *name)
{
    cl_int error;
    cl_kernel kernel = clCreateKernel(program, name, &error);
    if (!kernel)
        return opencl_fail(device, error, name);
    *out = kernel;
    return CINF_OK;
}

void opencl_kernel_free(cl_kernel kernel)
{
    if (kernel)
        clReleaseKernel(kernel);
}

/* ---- The programs ------------------------------------------------------------------------- */

#define PRODUCTS(weights)                                                                                    \
    weights, "#define M 1\n", "linear.cl", "#define M 4\n", "linear.cl", "#define M 8\n", "linear.cl",       \
        "matrix.cl", "weights_end.cl"

enum cinf_status opencl_program_build(struct opencl_device *device)
{
    static const char *const sources[] = { "opencl_layout.h",
                                           "cache.cl",
                                           "step.cl",
                                           "epilogue.cl",
                                           "pick.cl",
                                           PRODUCTS("weights_f32.cl"),
                                           PRODUCTS("weights_f16.cl"),
                                           PRODUCTS("weights_int8.cl") };
    char options[1024];
    snprintf(
        options, sizeof options,
        "-DEPILOGUE_ACTIVATION=%d -DEPILOGUE_ADD=%d -DEPILOGUE_QKV=%d -DEPILOGUE_HEAD=%d "
        "-DACTIVATION_GELU_NEW=%d -DACTIVATION_GELU=%d -DACTIVATION_RELU=%d -DACTIVATION_SILU=%d "
        "-DACTIVATION_GELU_10=%d -DACTIVATION_QUICK_GELU=%d -DACTIVATION_MISH=%d -DACTIVATION_RELU2=%d "
        "-DACTIVATION_RELU6=%d -DACTIVATION_SIGMOID=%d -DACTIVATION_LEAKY_RELU=%d -DACTIVATION_LINEAR=%d "
        "-DACTIVATION_LAPLACE=%d",
        EPILOGUE_ACTIVATION, EPILOGUE_ADD, EPILOGUE_QKV, OPENCL_EPILOGUE_HEAD, CINF_ACTIVATION_GELU_NEW,
        CINF_ACTIVATION_GELU, CINF_ACTIVATION_RELU, CINF_ACTIVATION_SILU, CINF_ACTIVATION_GELU_10,
        CINF_ACTIVATION_QUICK_GELU, CINF_ACTIVATION_MISH, CINF_ACTIVATION_RELU2, CINF_ACTIVATION_RELU6,
        CINF_ACTIVATION_SIGMOID, CINF_ACTIVATION_LEAKY_RELU, CINF_ACTIVATION_LINEAR, CINF_ACTIVATION_LAPLACE);
    return opencl_program_new(&device->program, device, options, sources, sizeof sources / sizeof *sources);
}

/* The program is kept, since models of one family have heads of one width. */
enum cinf_status opencl_program_attend(cl_program *out, struct opencl_device *device, uint32_t head_width)
{
    static const char *const sources[] = { "opencl_layout.h", "cache.cl", "attend.cl" };
    if (!device->attend || device->attend_width != head_width) {
        cl_program program;
        char options[32];
        snprintf(options, sizeof options, "-DHEAD_WIDTH=%u", head_width);
        TRY(opencl_program_new(&program, device, options, sources, 3));
        if (device->attend)
            clReleaseProgram(device->attend);
        device->attend = program;
        device->attend_width = head_width;
    }
    *out = device->attend;
    return CINF_OK;
}
