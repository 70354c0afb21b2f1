/* no_ledger.c - a library that was built without SQLite says so. */
#include <costinfer/ledger.h>

#include "fail.h"

static enum cinf_status none(void)
{
    return cinf_fail(CINF_EUNSUPPORTED, "this library was built without ledgers (CINF_LEDGER=OFF)");
}

enum cinf_status cinf_ledger_open(struct cinf_ledger **out, const struct cinf_ledger_options *options)
{
    (void)out, (void)options;
    return none();
}

enum cinf_status cinf_ledger_attach(struct cinf_ledger *ledger, const struct cinf_meter *meter)
{
    (void)ledger, (void)meter;
    return none();
}

enum cinf_status cinf_ledger_flush(struct cinf_ledger *ledger, uint64_t timeout_ns)
{
    (void)ledger, (void)timeout_ns;
    return none();
}

void cinf_ledger_read_status(const struct cinf_ledger *ledger, struct cinf_ledger_status *status)
{
    (void)ledger, (void)status;
}

enum cinf_status cinf_ledger_close(struct cinf_ledger *ledger)
{
    return ledger ? none() : CINF_OK;
}

enum cinf_status cinf_ledger_info(struct cinf_ledger_info *out, const char *path)
{
    (void)out, (void)path;
    return none();
}

enum cinf_status cinf_ledger_verify(uint64_t *faults, const char *path, cinf_ledger_fault_fn *on_fault,
                                    void *context)
{
    (void)faults, (void)path, (void)on_fault, (void)context;
    return none();
}

enum cinf_status cinf_ledger_backup(const char *path, const char *to)
{
    (void)path, (void)to;
    return none();
}

enum cinf_status cinf_ledger_prune(uint64_t *rows, const char *path, uint64_t before_ns)
{
    (void)rows, (void)path, (void)before_ns;
    return none();
}

enum cinf_status cinf_ledger_costs(struct cinf_ledger_sum *out, const char *const *paths, uint32_t n_paths,
                                   const struct cinf_ledger_query *query)
{
    (void)out, (void)paths, (void)n_paths, (void)query;
    return none();
}

void cinf_ledger_sum_free(struct cinf_ledger_sum *sum)
{
    (void)sum;
}
