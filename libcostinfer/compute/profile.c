/* profile.c - see profile.h. */
#include "profile.h"

#include <stdio.h>
#include <string.h>

void profile_add(struct profile *p, const char *name, uint64_t ns)
{
    uint32_t i = 0;
    while (i < p->n && strncmp(p->rows[i].name, name, sizeof p->rows->name - 1) != 0)
        i++;
    if (i == PROFILE_ROWS_MAX)
        return;
    if (i == p->n) {
        p->rows[p->n] = (struct profile_row){ 0 };
        snprintf(p->rows[p->n++].name, sizeof p->rows->name, "%s", name);
    }
    p->rows[i].launches++;
    p->rows[i].ns += ns;
}

bool profile_row(struct profile *p, uint32_t index, struct profile_row *out)
{
    if (index >= p->n)
        return false;
    for (uint32_t i = 1; i < p->n; i++) { /* insertion sort: there are few rows */
        struct profile_row row = p->rows[i];
        uint32_t at = i;
        for (; at > 0 && p->rows[at - 1].ns < row.ns; at--)
            p->rows[at] = p->rows[at - 1];
        p->rows[at] = row;
    }
    *out = p->rows[index];
    return true;
}
