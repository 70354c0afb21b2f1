#include "answer.h"

#include "fail.h"
#include "json_write.h"
#include "problem.h"

void answer_json(struct exchange *x, unsigned status, struct strbuf *out)
{
    if (out->failed)
        problem_answer(x, cinf_fail(CINF_ENOMEM, "no memory for the answer"), NULL, NO_ACCOUNT);
    else
        exchange_send(x, status, "application/json", out->text, out->len);
    strbuf_free(out);
}

void answer_status(struct exchange *x, unsigned status, const char *word)
{
    struct strbuf out = { 0 };
    struct json_writer w = json_write_to(&out);
    json_open_object(&w, NULL);
    json_put_text(&w, "status", word);
    json_close(&w);
    strbuf_putc(&out, '\n');
    answer_json(x, status, &out);
}
