/* step.c - see step.h.
 *
 *     build:    a row of every sequence that is generating, with draft tokens where they pay, and a piece of
 *               every prompt that is still being computed, or of what a request gave up while it was paused
 *     run:      the model's program over these rows
 *     sample:   the next token of each sequence
 *     charge:   the interval's time, split by what each request's rows would have taken alone
 *     deliver:  events to the readers; requests that have ended leave
 *
 * The question a reader will ask: why is the time charged before the tokens are handed out?  So that a client
 * that has seen its last token also sees the final report; what handing out takes is part of the next
 * interval, as is everything else the scheduler does while the device is not idle. */
#include "step.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "engine_state.h"
#include "fail.h"
#include "mem.h"
#include "request_events.h"
#include "slots.h"
#include "step_weight.h"

enum {
    DRAFT_SEQUENCES_MAX = 4, /* sequences in a step that gets draft tokens */
    DRAFT_ROWS_MAX = 12,     /* rows of such a step: up to here one more takes about the same each time */
};

/* *array_pointer becomes an array of n elements; on failure it is as before. */
static bool resize(void *array_pointer, uint32_t n, size_t size)
{
    void *array;
    memcpy(&array, array_pointer, sizeof array);
    array = mem_resize(array, n, size);
    if (array)
        memcpy(array_pointer, &array, sizeof array);
    return array != NULL;
}

enum cinf_status step_reserve(struct step *step, uint32_t rows, uint32_t vocab)
{
    for (uint32_t i = 0; i < step->n_samplers; i++)
        TRY(sampler_reserve(&step->samplers[i], vocab));
    if (rows <= step->rows_cap)
        return CINF_OK;
    /* Arrays that have grown when another cannot stay as they are: rows_cap counts what all of them have. */
    if (!resize(&step->tokens, rows, sizeof *step->tokens) ||
        !resize(&step->positions, rows, sizeof *step->positions) ||
        !resize(&step->slots, rows, sizeof *step->slots) ||
        !resize(&step->wants_logits, rows, sizeof *step->wants_logits) ||
        !resize(&step->sequences, rows, sizeof *step->sequences) ||
        !resize(&step->sampled_ahead, rows, sizeof *step->sampled_ahead) ||
        !resize(&step->shares, rows, sizeof *step->shares))
        return cinf_fail(CINF_ENOMEM, "no memory for steps of %u rows", rows);
    step->rows_cap = rows;
    return CINF_OK;
}

void step_free(struct step *step)
{
    for (uint32_t i = 0; i < SAMPLERS_MAX; i++)
        sampler_free(&step->samplers[i]);
    mem_free(step->tokens);
    mem_free(step->positions);
    mem_free(step->slots);
    mem_free(step->wants_logits);
    mem_free(step->sequences);
    mem_free(step->sampled_ahead);
    mem_free(step->shares);
}

/* ---- Building ------------------------------------------------------------------------------ */

static void add_row(struct step *step, struct sequence *seq, int32_t token, uint32_t position,
                    uint8_t wants_logits)
{
    assert(step->n_rows < step->rows_cap);
    uint32_t i = step->n_rows++;
    step->tokens[i] = token;
    step->positions[i] = position;
    step->slots[i] = slot_index(step->model, seq->slot);
    step->wants_logits[i] = wants_logits;
    step->sequences[i] = seq;
}

static void add_work(struct cinf_request *r, struct model_work work)
{
    r->work.flops += work.flops;
    r->work.kv_bytes += work.kv_bytes;
    if (work.weight_bytes > r->work.weight_bytes)
        r->work.weight_bytes = work.weight_bytes;
}

/* The sequence that lacks keys and values: the first one while the prompt is being computed, and after a
 * pause one that was in a slot which others have overwritten.  NULL: the request generates. */
static struct sequence *incomplete(const struct cinf_request *r)
{
    if (r->n_computed < r->n_prompt)
        return &r->sequences[0];
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        if (seq->finish == CINF_FINISH_RUNNING && seq->slot->n_tokens + 1 < seq->n_ids)
            return seq;
    }
    return NULL;
}

static bool is_prefilling(const struct cinf_request *r)
{
    return incomplete(r) != NULL;
}

/* How many tokens the next rows of such a sequence may have.  The last token of a sequence that generates has
 * its row later, as every step's. */
static uint32_t n_missing(const struct sequence *seq)
{
    const struct cinf_request *r = seq->request;
    return r->n_computed < r->n_prompt ? r->n_prompt - r->n_computed : seq->n_ids - 1 - seq->slot->n_tokens;
}

/* wants_logits for the row the next token is sampled from.  If the device can return its top k, ask only for
 * what the sampler and the log-probabilities need. */
static uint8_t logits_for_sampling(const struct sequence *seq)
{
    const struct cinf_request *r = seq->request;
    uint32_t k = model_has_top_k(r->model->runtime) ? sampler_needs(&r->sampling, seq->n_new) : 0;
    uint32_t n_top = r->logprobs ? r->n_top : 0;
    /* The top log-probabilities include tokens that must not be sampled; the device's top k does not. */
    if (k == 0 || (r->logprobs && !model_has_top_k_log_sums(r->model->runtime)) || n_top > TOP_K_MAX ||
        (n_top > 0 && r->model->allowed))
        return LOGITS_ALL;
    return logits_top_k(k > n_top ? k : n_top);
}

static void add_prompt_rows(struct step *step, struct cinf_request *r, uint32_t n)
{
    struct sequence *seq = &r->sequences[0];
    uint32_t first = r->n_computed, n_logits = 0;
    for (uint32_t i = first; i < first + n; i++) {
        bool is_sampled = i + 1 == r->n_prompt && !r->prompt_only;
        /* The logits of tokens that were charged have been taken. */
        bool wants_all = r->wants_all && i >= r->n_reported;
        uint8_t wants = wants_all ? LOGITS_ALL : is_sampled ? logits_for_sampling(seq) : LOGITS_NONE;
        add_row(step, seq, r->prompt[i], i, wants);
        n_logits += wants != LOGITS_NONE;
    }
    r->step_rows = n;
    bool only_top = !r->wants_all && top_k_of(logits_for_sampling(seq)) > 0;
    add_work(r, model_work_of(step->model->runtime, first, n, n_logits, only_top));
}

/* Rows of tokens that were computed before their request gave its slots up. */
static void add_lost_rows(struct step *step, struct sequence *seq, uint32_t n)
{
    struct cinf_request *r = seq->request;
    uint32_t first = seq->slot->n_tokens;
    for (uint32_t i = first; i < first + n; i++)
        add_row(step, seq, seq->ids[i], i, LOGITS_NONE);
    r->step_rows = n;
    add_work(r, model_work_of(step->model->runtime, first, n, 0, false));
}

/* A sequence's row, and rows of draft tokens after it: those that pay, at most `room`. */
static void add_decode_rows(struct step *step, struct sequence *seq, uint32_t room, struct draft_step *drafts)
{
    struct cinf_request *r = seq->request;
    uint32_t last = seq->n_ids - 1, left = r->max_new - seq->n_new - 1;
    uint8_t wants = logits_for_sampling(seq);
    if (drafts) {
        draft_find(&seq->draft, seq->ids, seq->n_ids);
        seq->n_drafted = draft_length(&seq->draft, left < room ? left : room, drafts);
    }
    add_row(step, seq, seq->ids[last], last, wants);
    for (uint32_t i = 0; i < seq->n_drafted; i++)
        add_row(step, seq, seq->draft.tokens[i], last + 1 + i, wants);
    uint32_t n = 1 + seq->n_drafted;
    add_work(r, model_work_of(step->model->runtime, last, n, n, top_k_of(wants) > 0));
    r->step_rows += n;
}

/* True if the request has no rows in this step. */
static bool is_skipped(const struct cinf_request *r)
{
    return r->paused_ns || r->parked;
}

/* Every sequence that is generating gets a row.  While they are few and no prompt is being computed, draft
 * tokens are added.  Rows are kept free for the sequences that do not have theirs yet:
 *
 *     | rows so far | its own row | its draft tokens: at most `room` | one row of each sequence after it |
 *     |<---------------------------------------- rows_max ---------------------------------------------->| */
static void add_decoding(struct cinf_engine *e, uint32_t n_sequences, bool prefilling)
{
    struct step *step = &e->step;
    struct cinf_model *model = step->model;
    struct draft_step drafts = { .tokens = (float)n_sequences,
                                 .time = 1 + ((float)n_sequences - 1) * model->row_time,
                                 .row_time = model->row_time };
    bool speculate = !prefilling && n_sequences <= DRAFT_SEQUENCES_MAX && model->row_time > 0;
    uint32_t rows_max =
        n_sequences + e->prefill_rows < DRAFT_ROWS_MAX ? n_sequences + e->prefill_rows : DRAFT_ROWS_MAX;
    uint32_t n_left = n_sequences; /* sequences without a row, this one included */
    for (struct cinf_request *r = model->running; r; r = r->next) {
        if (is_skipped(r) || is_prefilling(r))
            continue;
        for (uint32_t i = 0; i < r->n_sequences; i++) {
            struct sequence *seq = &r->sequences[i];
            if (seq->finish != CINF_FINISH_RUNNING)
                continue;
            if (speculate)
                add_decode_rows(step, seq, rows_max - step->n_rows - n_left, &drafts);
            else
                add_decode_rows(step, seq, 0, NULL);
            n_left--;
        }
    }
}

/* The prompt that has used least of the device among those without rows in this step. */
static struct cinf_request *next_prefilling(const struct cinf_model *model)
{
    struct cinf_request *next = NULL;
    uint64_t next_ns = 0;
    for (struct cinf_request *r = model->running; r; r = r->next) {
        struct cinf_report report = { CINF_REPORT };
        if (is_skipped(r) || !is_prefilling(r) || r->step_rows > 0)
            continue;
        cinf_bill_read(r->bill, &report);
        if (!next || report.device_ns < next_ns) {
            next = r;
            next_ns = report.device_ns;
        }
    }
    return next;
}

/* Each prompt gets at most an equal part of the prefill rows, so that a long one does not hold up a short
 * one; what a short one leaves over is divided among the others. */
static void add_prefilling(struct cinf_engine *e, uint32_t n_prefilling)
{
    uint32_t budget = e->prefill_rows;
    for (; n_prefilling > 0 && budget > 0; n_prefilling--) {
        struct cinf_request *next = next_prefilling(e->step.model);
        assert(next);
        uint32_t part = (budget + n_prefilling - 1) / n_prefilling;
        struct sequence *seq = incomplete(next);
        uint32_t left = n_missing(seq);
        uint32_t n = left < part ? left : part;
        if (next->n_computed < next->n_prompt)
            add_prompt_rows(&e->step, next, n);
        else
            add_lost_rows(&e->step, seq, n);
        budget -= n;
    }
}

static void build(struct cinf_engine *e, struct cinf_model *model)
{
    uint32_t n_sequences = 0, n_prefilling = 0;
    e->step.model = model;
    e->step.n_rows = 0;
    for (struct cinf_request *r = model->running; r; r = r->next) {
        r->step_rows = 0;
        r->work = (struct model_work){ 0 };
        if (is_skipped(r))
            continue;
        n_prefilling += is_prefilling(r);
        for (uint32_t i = 0; i < r->n_sequences; i++) {
            r->sequences[i].n_sampled = r->sequences[i].n_drafted = 0;
            n_sequences += !is_prefilling(r) && r->sequences[i].finish == CINF_FINISH_RUNNING;
        }
    }
    add_decoding(e, n_sequences, n_prefilling > 0);
    add_prefilling(e, n_prefilling);
}

/* ---- Sampling ------------------------------------------------------------------------------ */

/* The place of `token` among all of the row, most likely first, of equals the smallest id: from 1 on. */
static uint32_t rank_of(const float *logits, uint32_t vocab, int32_t token)
{
    float own = logits[token];
    uint32_t rank = 1;
    for (uint32_t i = 0; i < (uint32_t)token; i++)
        rank += logits[i] >= own;
    for (uint32_t i = (uint32_t)token + 1; i < vocab; i++)
        rank += logits[i] > own;
    return rank;
}

/* The logits of one prompt row, to the caller's buffer and to the log-probability of the prompt's next token.
 */
static void take_prompt_logits(struct step *step, struct cinf_request *r, uint32_t position,
                               const float *logits)
{
    uint32_t vocab = r->model->config.vocab_size;
    /* cinf_request_free() takes the buffer away under the same lock. */
    pthread_mutex_lock(&r->lock);
    if (r->prompt_logits)
        memcpy(r->prompt_logits + (size_t)position * vocab, logits, vocab * sizeof *logits);
    pthread_mutex_unlock(&r->lock);
    if (!r->prompt_logprobs || position + 1 == r->n_prompt)
        return;
    uint32_t next = position + 1;
    sampler_logprobs(&step->samplers[0], logits, vocab, r->prompt[next], &r->prompt_logprob[next],
                     r->prompt_top + (size_t)next * r->n_top, r->n_top);
    r->prompt_rank[next] = rank_of(logits, vocab, r->prompt[next]);
}

static bool ends_sequence(const struct cinf_request *r, int32_t token)
{
    /* The given ids come first, then end-of-text. */
    uint32_t n = r->ignore_eos ? r->n_stop_ids : r->sampling.n_end_ids;
    for (uint32_t i = 0; i < n; i++)
        if (r->sampling.end_ids[i] == token)
            return true;
    return false;
}

/* The sampled token becomes part of the sequence, and may end it. */
static enum cinf_status append_token(struct sequence *seq, int32_t token)
{
    struct cinf_request *r = seq->request;
    const struct cinf_model *model = r->model;
    if (ends_sequence(r, token)) {
        seq->finish = CINF_FINISH_STOP;
        return CINF_OK;
    }
    pthread_mutex_lock(&r->lock);
    bool may_stop = seq->n_new >= r->sampling.min_tokens;
    enum cinf_status status =
        textflow_push(&seq->flow, model->tokenizer, token, r->stops, r->n_stops, may_stop);
    seq->ids[seq->n_ids++] = token;
    seq->ends[seq->n_new++] = seq->flow.text.len;
    pthread_mutex_unlock(&r->lock);
    TRY(status);
    if (seq->flow.stopped)
        seq->finish = CINF_FINISH_STOP;
    else if (seq->n_new == r->max_new)
        seq->finish = CINF_FINISH_LENGTH;
    return CINF_OK;
}

/* What the device returned of a row's logits. */
struct row_logits {
    const float *all; /* [V], or NULL: */
    struct top_k top; /* only the top k */
};

/* The sequence's next token, whose log-probabilities are written to their places; -1 when the logits are
 * broken. */
static int32_t sample(struct sampler *sampler, struct sequence *seq, const struct row_logits *row)
{
    const struct cinf_request *r = seq->request;
    uint32_t vocab = r->model->config.vocab_size;
    int32_t token = row->all ? sampler_pick(sampler, row->all, vocab, r->model->allowed, &r->sampling,
                                            seq->index, seq->ids, seq->n_ids, r->n_prompt)
                             : sampler_pick_best(sampler, &row->top, &r->sampling, seq->index, seq->n_ids);
    if (token >= 0 && r->logprobs) {
        float *logprob = &seq->logprobs[seq->n_new];
        struct cinf_logprob *top = seq->top + (size_t)seq->n_new * r->n_top;
        if (row->all)
            sampler_logprobs(sampler, row->all, vocab, token, logprob, top, r->n_top);
        else
            sampler_logprobs_best(&row->top, token, logprob, top, r->n_top);
    }
    return token;
}

/* What sample_ahead() hands to the device's threads: part p samples every n_parts-th of the rows marked. */
struct sampling_job {
    struct step *step;
    uint32_t n_parts;
};

static void sample_part(const void *context, uint32_t part, uint32_t worker)
{
    const struct sampling_job *job = context;
    struct step *step = job->step;
    uint32_t n = 0;
    (void)worker;
    for (uint32_t i = 0; i < step->n_rows; i++) {
        struct sampled_ahead *ahead = &step->sampled_ahead[i];
        if (!ahead->logits || n++ % job->n_parts != part)
            continue;
        struct row_logits row = { .all = ahead->logits };
        ahead->token = sample(&step->samplers[part], step->sequences[i], &row);
    }
}

/* Where the device lends threads, the next tokens of several sequences are sampled concurrently.  What
 * depends on another token of this step is left for take_logits(): draft tokens and a prompt's further
 * sequences. */
static enum cinf_status sample_ahead(const struct cinf_engine *e, struct step *step)
{
    uint32_t n_logits = 0, n = 0;
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct sequence *seq = step->sequences[i];
        uint32_t nth = n_logits;
        n_logits += step->wants_logits[i] != LOGITS_NONE;
        step->sampled_ahead[i].logits = NULL;
        if (step->n_samplers == 1 || step->wants_logits[i] != LOGITS_ALL || seq->request->prompt_only ||
            step->positions[i] + 1 != seq->n_ids)
            continue;
        TRY(model_logits(step->model->runtime, nth, &step->sampled_ahead[i].logits));
        n++;
    }
    struct sampling_job job = { step, n < step->n_samplers ? n : step->n_samplers };
    if (n > 0)
        e->device->backend->parallel(e->device, sample_part, &job, job.n_parts);
    return CINF_OK;
}

/* The token becomes part of the sequence; readers do not see it before its time has been charged.  Broken
 * logits fail the device, and with it the step; without memory this request alone fails. */
static enum cinf_status take_token(struct sequence *seq, int32_t token)
{
    struct cinf_request *r = seq->request;
    if (token < 0)
        return cinf_fail(CINF_EDEVICE, "model %s computed logits that are not numbers at position %u",
                         r->model->name, seq->n_ids - 1);
    seq->n_sampled++;
    if (append_token(seq, token) != CINF_OK) {
        seq->finish = CINF_FINISH_FAILED;
        snprintf(r->failure, sizeof r->failure, "%s", cinf_last_error());
    }
    return CINF_OK;
}

/* After the prompt's last row: the other sequences start from a copy of its keys and values. */
static enum cinf_status fork_sequences(struct step *step, struct cinf_request *r,
                                       const struct row_logits *row)
{
    for (uint32_t i = 1; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        TRY(slot_copy(r, seq->slot, r->sequences[0].slot, r->n_prompt));
        TRY(take_token(seq, sample(&step->samplers[0], seq, row)));
    }
    return CINF_OK;
}

/* The same when the prompt had been lost: it is computed once for all sequences. */
static enum cinf_status share_prompt(struct cinf_request *r, const struct sequence *from)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct slot *slot = r->sequences[i].slot;
        if (slot && slot->n_tokens < r->n_prompt)
            TRY(slot_copy(r, slot, from->slot, r->n_prompt));
    }
    return CINF_OK;
}

/* False for a rejected draft token and for those after it: their logits are ignored, and their keys and
 * values are overwritten by the next row at that position. */
static bool is_accepted(const struct sequence *seq, uint32_t position, int32_t token)
{
    return position + 1 < seq->n_ids ||
           (seq->finish == CINF_FINISH_RUNNING && position + 1 == seq->n_ids && seq->ids[position] == token);
}

/* Row by row: what is in the cache now, and the tokens that are sampled. */
static enum cinf_status take_logits(struct cinf_engine *e)
{
    struct step *step = &e->step;
    uint32_t n_logits = 0;
    TRY(sample_ahead(e, step));
    for (uint32_t i = 0; i < step->n_rows; i++) {
        struct sequence *seq = step->sequences[i];
        struct cinf_request *r = seq->request;
        uint32_t position = step->positions[i], nth = n_logits;
        uint8_t wants = step->wants_logits[i];
        n_logits += wants != LOGITS_NONE;
        if (!is_accepted(seq, position, step->tokens[i]))
            continue;
        seq->slot->tokens[position] = step->tokens[i];
        seq->slot->n_tokens = position + 1;
        if (position < r->n_prompt && position >= r->n_computed)
            r->n_computed = position + 1;
        if (position + 1 == r->n_prompt && seq->n_new > 0)
            TRY(share_prompt(r, seq));
        if (wants == LOGITS_NONE)
            continue;
        struct row_logits row = { .all = NULL };
        if (top_k_of(wants) > 0)
            TRY(model_top_k(step->model->runtime, nth, &row.top));
        else
            TRY(model_logits(step->model->runtime, nth, &row.all));
        if (position < r->n_prompt && r->wants_all)
            take_prompt_logits(step, r, position, row.all);
        if (position + 1 < r->n_prompt || r->prompt_only)
            continue;
        const struct sampled_ahead *ahead = &step->sampled_ahead[i];
        TRY(take_token(seq, ahead->logits ? ahead->token : sample(&step->samplers[0], seq, &row)));
        if (position + 1 == r->n_prompt)
            TRY(fork_sequences(step, r, &row));
    }
    return CINF_OK;
}

/* ---- Charging and delivering --------------------------------------------------------------- */

static u128 weight_of(const struct cinf_engine *e, const struct cinf_request *r)
{
    return step_weight(&r->work, r->copied_bytes, e->device_info.as_per_flop, e->device_info.as_per_byte);
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Time is the prompt's until all of it has been computed once.  What a pause has lost after that is part of
 * what generating takes. */
static struct cinf_share share_of(const struct cinf_request *r, uint64_t weight)
{
    bool prefill = r->n_reported < r->n_prompt;
    struct cinf_share share = { .bill = r->bill,
                                .prefill_weight = prefill ? weight : 0,
                                .decode_weight = prefill ? 0 : weight,
                                .input_tokens = max_u32(r->n_computed, r->n_reported) - r->n_reported,
                                .cached_tokens = r->n_reported == 0 ? r->n_cached : 0 };
    for (uint32_t i = 0; i < r->n_sequences; i++)
        share.output_tokens += r->sequences[i].n_sampled;
    return share;
}

static void count_drafts(const struct cinf_request *r)
{
    uint32_t drafted = 0, accepted = 0;
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        const struct sequence *seq = &r->sequences[i];
        drafted += seq->n_drafted;
        accepted += seq->n_sampled > 1 ? seq->n_sampled - 1 : 0;
    }
    cinf_bill_count_drafts(r->bill, drafted, accepted);
}

/* Every request in the step pays, also when the step failed: the time was used. */
static uint64_t charge(struct cinf_engine *e)
{
    struct step *step = &e->step;
    uint32_t n = 0;
    u128 total = 0;
    for (struct cinf_request *r = step->model->running; r; r = r->next)
        total += r->step_rows > 0 ? weight_of(e, r) : 0;
    unsigned shift = step_weight_shift(total);
    for (struct cinf_request *r = step->model->running; r; r = r->next) {
        if (r->step_rows == 0)
            continue;
        step->shares[n++] = share_of(r, (uint64_t)(weight_of(e, r) >> shift));
        count_drafts(r);
        r->n_reported = max_u32(r->n_computed, r->n_reported);
        r->copied_bytes = 0;
    }
    uint64_t ns = cinf_meter_charge(e->meter, step->shares, n);
    e->charged_ns = clock_monotonic_ns();
    return ns;
}

/* Hands out what a step gave a request.  Returns how it ended; CINF_FINISH_RUNNING: it has not. */
static enum cinf_finish deliver(struct cinf_request *r)
{
    bool running = false, length = false;
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct sequence *seq = &r->sequences[i];
        if (seq->finish == CINF_FINISH_FAILED)
            return CINF_FINISH_FAILED;
        draft_learn(&seq->draft, seq->ids, seq->n_ids);
        if (r->prompt_only && !is_prefilling(r))
            seq->finish = CINF_FINISH_LENGTH;
        running = running || seq->finish == CINF_FINISH_RUNNING;
        length = length || seq->finish == CINF_FINISH_LENGTH;
    }
    request_publish(r);
    return running ? CINF_FINISH_RUNNING : length ? CINF_FINISH_LENGTH : CINF_FINISH_STOP;
}

static void deliver_all(struct cinf_engine *e, enum cinf_status status)
{
    struct cinf_request **at = &e->step.model->running;
    while (*at) {
        struct cinf_request *r = *at;
        enum cinf_finish finish = CINF_FINISH_RUNNING;
        if (r->step_rows > 0 && status != CINF_OK) {
            snprintf(r->failure, sizeof r->failure, "%s", cinf_last_error());
            finish = CINF_FINISH_FAILED;
        } else if (r->step_rows > 0) {
            finish = deliver(r);
        }
        if (finish == CINF_FINISH_RUNNING) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        slots_release(e, r);
        request_end(r, finish);
    }
}

void step_run(struct cinf_engine *e, struct cinf_model *model)
{
    struct step *step = &e->step;
    build(e, model);
    if (step->n_rows == 0)
        return;
    e->n_steps++;
    struct batch batch = { .n_rows = step->n_rows,
                           .tokens = step->tokens,
                           .positions = step->positions,
                           .slots = step->slots,
                           .wants_logits = step->wants_logits };
    enum cinf_status status = model_run(model->runtime, &batch);
    if (status == CINF_OK)
        status = model_wait(model->runtime);
    if (status == CINF_OK)
        status = take_logits(e);
    model->served_ns += charge(e);
    deliver_all(e, status);
}
