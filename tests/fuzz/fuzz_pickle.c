/* fuzz_pickle.c - any bytes as the state dict, storage list and storages of a legacy checkpoint. */
#define _GNU_SOURCE
#include "fuzz_file.h"
#include "torch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char preamble[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
                                   "\x80\x02M\xe9\x03."
                                   "\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    struct tensor_table table = { 0 };
    struct file f = memory_file(preamble, sizeof preamble - 1, data, size);
    bool zip;
    if (torch_file_load(&table, &f, &zip) == CINF_OK)
        read_table(&table, f.size);
    tensor_table_free(&table);
    return 0;
}
