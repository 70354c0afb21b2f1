/* request_events.c - the queue of events between the scheduler, which publishes, and the reader, who pulls.
 *
 * The queue is an array with room for every event the request can give, so publishing cannot fail.  An event
 * only points to its text and log-probabilities, which stay in the sequence; the reader copies them out. */
#include "request_events.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "clock.h"
#include "cond_wait.h"
#include "engine_state.h"
#include "fail.h"
#include "request.h"
#include "versioned.h"

/* ---- The scheduler's side ------------------------------------------------------------------ */

static void put_event(struct cinf_request *r, struct queued_event event)
{
    assert(r->n_in < r->n_events_max);
    r->events[r->n_in++] = event;
}

/* Publishes the tokens whose whole text is certain; after the end of the sequence, also one whose text a stop
 * string cuts. */
static void publish_sequence(struct cinf_request *r, struct sequence *seq)
{
    bool over = seq->finish != CINF_FINISH_RUNNING;
    size_t certain = seq->flow.certain;
    while (seq->n_out < seq->n_new) {
        uint32_t i = seq->n_out;
        size_t from = i ? seq->ends[i - 1] : 0, to = seq->ends[i];
        if (to > certain && !over)
            return;
        if (seq->flow.stopped && from >= certain)
            break;
        seq->n_out++;
        put_event(r, (struct queued_event){ .kind = CINF_EVENT_TOKEN,
                                            .choice = seq->index,
                                            .index = i,
                                            .text_from = from,
                                            .text_to = to < certain ? to : certain });
    }
}

/* Publishes the last tokens of a sequence that has ended, and the text that its decoder still held. */
static void publish_finish(struct cinf_request *r, struct sequence *seq)
{
    seq->finish_published = true;
    size_t before = seq->flow.text.len;
    /* Without memory, only the replacement character of an unfinished last character is lost. */
    if (textflow_end(&seq->flow) != CINF_OK)
        seq->flow.certain = seq->flow.text.len;
    publish_sequence(r, seq);
    if (seq->flow.stopped)
        before = seq->flow.certain;
    put_event(r, (struct queued_event){ .kind = CINF_EVENT_FINISH,
                                        .choice = seq->index,
                                        .text_from = before,
                                        .text_to = seq->flow.certain,
                                        .finish = seq->finish });
}

/* Caller holds request.lock. */
static void publish_sequences(struct cinf_request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        if (seq->finish == CINF_FINISH_RUNNING)
            publish_sequence(r, seq);
        else if (!seq->finish_published)
            publish_finish(r, seq);
    }
}

static void publish_prompt(struct cinf_request *r)
{
    if (!r->prompt_logprobs || r->prompt_published || r->n_computed < r->n_prompt)
        return;
    r->prompt_published = true;
    for (uint32_t i = 0; i < r->n_prompt; i++)
        put_event(r, (struct queued_event){ .kind = CINF_EVENT_PROMPT,
                                            .index = i,
                                            .text_from = i ? r->prompt_ends[i - 1] : 0,
                                            .text_to = r->prompt_ends[i] });
}

/* Tells the reader about the events since n_before, unless it has been told of earlier ones that it has not
 * yet pulled.  Caller holds request.lock. */
static void announce(struct cinf_request *r, uint32_t n_before)
{
    if (r->n_in == n_before)
        return;
    pthread_cond_signal(&r->arrived);
    if (r->notify && r->n_out == n_before)
        r->notify(r->notify_context);
}

/* One that has given its slots up has more to read before it goes on: to compute its keys and values again
 * must be worth more than the next event or two.  Caller holds request.lock. */
static bool has_unread(const struct cinf_request *r)
{
    return r->n_in - r->n_out >= (r->parked ? r->unread_max - r->unread_max / 2 : r->unread_max);
}

bool request_is_paused(struct cinf_request *r)
{
    pthread_mutex_lock(&r->lock);
    bool unread = has_unread(r);
    pthread_mutex_unlock(&r->lock);
    return unread || atomic_load(&r->paused);
}

void request_set_parked(struct cinf_request *r, bool parked)
{
    pthread_mutex_lock(&r->lock);
    r->parked = parked;
    pthread_mutex_unlock(&r->lock);
}

void request_publish(struct cinf_request *r)
{
    pthread_mutex_lock(&r->lock);
    uint32_t before = r->n_in;
    publish_prompt(r);
    publish_sequences(r);
    announce(r, before);
    pthread_mutex_unlock(&r->lock);
}

void request_end(struct cinf_request *r, enum cinf_finish finish)
{
    cinf_bill_close(r->bill, finish);
    struct cinf_engine *e = r->model->engine;
    if (finish == CINF_FINISH_FAILED)
        cinf_meter_count_error(e->meter, r->model->account, CINF_ERROR_DEVICE);
    if (finish == CINF_FINISH_TIMEOUT)
        cinf_meter_count_error(e->meter, r->model->account, CINF_ERROR_TIMEOUT);

    pthread_mutex_lock(&r->lock);
    uint32_t before = r->n_in;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        if (r->sequences[i].finish == CINF_FINISH_RUNNING)
            r->sequences[i].finish = finish;
    publish_sequences(r);
    put_event(r, (struct queued_event){ .kind = CINF_EVENT_END, .finish = finish });
    r->ended = true;
    r->finish = finish;
    announce(r, before);
    pthread_mutex_unlock(&r->lock);
    request_unref(r);
}

/* ---- The reader's side --------------------------------------------------------------------- */

static enum cinf_status wait_for_event(struct cinf_request *r, uint64_t timeout_ns)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t until = timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
    while (r->n_out == r->n_in) {
        if (timeout_ns == 0 || clock_monotonic_ns() >= until)
            return cinf_fail(CINF_EAGAIN, "no event yet");
        cond_wait_until(&r->arrived, &r->lock, until);
    }
    return CINF_OK;
}

/* Copies what an event points to out of the scheduler's reach. */
static enum cinf_status fill_event(struct cinf_request *r, const struct queued_event *q,
                                   struct cinf_event *event)
{
    const struct sequence *seq = &r->sequences[q->choice];
    const struct textflow *flow = q->kind == CINF_EVENT_PROMPT ? &r->prompt_flow : &seq->flow;
    const struct cinf_logprob *top = NULL;
    *event = (struct cinf_event){ .struct_size = sizeof *event,
                                  .kind = q->kind,
                                  .choice = q->choice,
                                  .token = -1,
                                  .logprob = NAN,
                                  .finish = q->finish };
    if (q->kind == CINF_EVENT_TOKEN) {
        event->token = seq->ids[r->n_prompt + q->index];
        event->logprob = seq->logprobs[q->index];
        event->n_top = r->logprobs ? r->n_top : 0;
        top = seq->top + (size_t)q->index * r->n_top;
    } else if (q->kind == CINF_EVENT_PROMPT) {
        event->token = r->prompt[q->index];
        event->logprob = r->prompt_logprob[q->index];
        event->n_top = q->index ? r->n_top : 0;
        event->rank = r->prompt_rank[q->index];
        top = r->prompt_top + (size_t)q->index * r->n_top;
    }
    if (event->n_top)
        memcpy(r->event_top, top, event->n_top * sizeof *top);
    event->top = r->event_top;
    strbuf_clear(&r->event_text);
    if (q->kind != CINF_EVENT_END && q->text_to > q->text_from)
        strbuf_add(&r->event_text, flow->text.text + q->text_from, q->text_to - q->text_from);
    if (r->event_text.failed)
        return cinf_fail(CINF_ENOMEM, "no memory for an event's text");
    event->text = r->event_text.len ? r->event_text.text : "";
    event->text_bytes = r->event_text.len;
    return CINF_OK;
}

enum cinf_status cinf_request_next(struct cinf_request *r, uint64_t timeout_ns, struct cinf_event *event)
{
    struct cinf_event whole;
    pthread_mutex_lock(&r->lock);
    enum cinf_status status = wait_for_event(r, timeout_ns);
    if (status == CINF_OK)
        status = fill_event(r, &r->events[r->n_out], &whole);
    bool was_paused = has_unread(r);
    /* CINF_EVENT_END stays in the queue: every later pull returns it again. */
    if (status == CINF_OK && whole.kind != CINF_EVENT_END)
        r->n_out++;
    bool goes_on = was_paused && !has_unread(r);
    pthread_mutex_unlock(&r->lock);
    if (goes_on)
        request_wake_scheduler(r);
    TRY(status);
    versioned_write(event, &whole, sizeof whole);
    return CINF_OK;
}
