/* fuzz_torch_zip.c - any bytes as pytorch_model.bin; the corpus is of the zip kind. */
#define _GNU_SOURCE
#include "fuzz_file.h"
#include "torch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tensor_table table = { 0 };
    struct file f = memory_file("", 0, data, size);
    bool zip;
    if (torch_file_load(&table, &f, &zip) == CINF_OK)
        read_table(&table, f.size);
    tensor_table_free(&table);
    return 0;
}
