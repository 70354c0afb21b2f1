/* architectures.c - the list of what can be loaded.  It is a function's result, and the function is alone in
 * its file, so that a test can link a list of its own. */
#include "architecture.h"
#include "gpt2.h"

const struct architecture *const *architectures(void)
{
    static const struct architecture *const list[] = { &architecture_gpt2, NULL };
    return list;
}
