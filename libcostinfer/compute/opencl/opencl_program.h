/* opencl_program.h - programs and kernels of a device, built from the embedded .cl files. */
#ifndef OPENCL_PROGRAM_H
#define OPENCL_PROGRAM_H

#include "opencl_device.h"

enum { OPENCL_EPILOGUE_HEAD = 100 }; /* one more enum op_epilogue, for the kernels alone: logits, no bias */

/* Builds a program of `sources`: names of embedded files (kernel_sources.h) or OpenCL C itself.  The compiler
 * gets the device's options and `options`. */
enum cinf_status opencl_program_new(cl_program *out, struct opencl_device *device, const char *options,
                                    const char *const *sources, uint32_t n_sources);

/* Builds the device's own program: every kernel but attention. */
enum cinf_status opencl_program_build(struct opencl_device *device);

/* The device's program of attend.cl for heads of that width.  It stays until another width is asked for;
 * kernels made from it outlive it. */
enum cinf_status opencl_program_attend(cl_program *out, struct opencl_device *device, uint32_t head_width);

enum cinf_status opencl_kernel_new(cl_kernel *out, struct opencl_device *device, cl_program program,
                                   const char *name);
void opencl_kernel_free(cl_kernel kernel); /* accepts NULL */

#endif
