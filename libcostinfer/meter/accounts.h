/* accounts.h - who time is charged to: models, and the payers of their requests. */
#ifndef ACCOUNTS_H
#define ACCOUNTS_H

#include "meter_state.h"

/* CINF_EINVAL unless `text` can be the value of a label: UTF-8 of 1 to 256 bytes. */
enum cinf_status label_check(const char *what, const char *text);

/* Finds the account of a payer with a model, or creates it with its series at 0.  Any thread may call it.  A
 * meter has PAYERS_MAX such accounts; further payers of a model share the one of the payer "other". */
enum cinf_status payer_find(struct payer_account **out, struct cinf_meter *meter, struct account *account,
                            const char *payer);

/* The writing thread: the account is in use. */
void account_touch(struct cinf_meter *meter, struct account *account);

/* The model's name as the counters have it. */
const char *account_name(const struct model_counters *counters);

void accounts_free(struct cinf_meter *meter);

#endif
