/* fuzz_safetensors.c - any bytes as model.safetensors. */
#define _GNU_SOURCE
#include "fuzz_file.h"
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tensor_table table = { 0 };
    struct file f = memory_file("", 0, data, size);
    if (safetensors_load(&table, &f) == CINF_OK) {
        if (tensor_table_sort(&table, 0) != CINF_OK)
            abort();
        read_table(&table, f.size);
    }
    tensor_table_free(&table);
    return 0;
}
