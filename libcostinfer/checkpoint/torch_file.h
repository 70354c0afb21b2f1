/* torch_file.h - one file that torch.save() wrote: a state dict, of the zip or of the legacy kind. */
#ifndef TORCH_FILE_H
#define TORCH_FILE_H

#include <stdbool.h>

#include "tensor_table.h"

/* Appends the file's tensors to the table, which on failure may hold some of them, and sets *zip to the kind
 * of file.  `file` must live as long as the table. */
enum cinf_status torch_file_load(struct tensor_table *table, const struct file *file, bool *zip);

/* The message about nanoGPT's checkpoints: how to convert them. */
extern const char torch_file_nanogpt[];

#endif
