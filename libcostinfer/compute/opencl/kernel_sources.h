/* kernel_sources.h - the .cl files of this folder as text; the build generates kernel_sources.c from them. */
#ifndef KERNEL_SOURCES_H
#define KERNEL_SOURCES_H

struct kernel_source {
    const char *name; /* "step.cl" */
    const char *text;
};

extern const struct kernel_source kernel_sources[]; /* the last one has no name */

#endif
