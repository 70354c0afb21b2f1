/* safetensors.h - one .safetensors file. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "tensor_table.h"

/* Appends the file's tensors to the table, which on failure may hold some of them.  `file` must live as long
 * as the table. */
enum cinf_status safetensors_load(struct tensor_table *table, const struct file *file);

#endif
