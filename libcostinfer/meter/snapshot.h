/* snapshot.h - a consistent copy of a meter, for the files that publish one. */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "meter_state.h"

struct model_snapshot {
    uint64_t state; /* number of the publication that the copy shows */
    struct model_counters counters;
    uint64_t opened;
    uint64_t errors[CINF_ERROR_KINDS];
    uint32_t first_payer, n_payers; /* its part of the snapshot's payers */
};

struct payer_snapshot {
    const struct payer_account *account;
    uint32_t model;
    uint64_t state;
    struct payer_counters counters;
};

/* Everything but the old prices; idle time is counted up to boundary_ns. */
struct snapshot {
    struct device_counters device;
    uint32_t n_models;
    struct model_snapshot *models;
    uint32_t n_payers;
    struct payer_snapshot *payers; /* those of a model stand together */
};

enum cinf_status snapshot_take(struct snapshot *out, const struct cinf_meter *meter);
void snapshot_free(struct snapshot *snapshot);

#endif
