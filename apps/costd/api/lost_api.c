/* lost_api.c - the paths of other servers that this one does not have: each says what there is instead. */
#include "handlers.h"
#include "problem.h"

void no_chat(struct exchange *x, const char *unused)
{
    (void)unused;
    problem_no_route(x, "GPT-2 has no chat format; POST the text to continue to /v1/completions");
}

void no_embeddings(struct exchange *x, const char *unused)
{
    (void)unused;
    problem_no_route(x, "these models offer no embeddings; they continue texts, by POST /v1/completions");
}
