/* scheduler.c - the one thread that serves an engine's models, and the only writer of its meter.
 *
 * Continuous batching: each step takes the model that has had least of the device, and of that model one row
 * of every request that is generating and a piece of every prompt that is still being read.  A request joins
 * when it finds a free slot and leaves between two steps.
 *
 *     loop:  jobs of other threads -> ended and cancelled requests out -> waiting ones in
 *            -> one step, or one piece of a load -> charge the time -> hand out the tokens
 *
 * The question a reader will ask: why is the time charged before the tokens are handed out?  So that a client
 * that has seen its last token also sees the final report; what handing out takes is part of the next
 * interval, as is everything else the scheduler does while the device is not idle. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "engine_state.h"
#include "fail.h"
#include "mem.h"
#include "step_weight.h"

enum {
    MEMORY_SHOWN_NS = 1000000000, /* how often a driver is asked what others use */
    LOAD_PIECE_NS = 10000000,     /* a piece of a load between two steps */
    LOAD_WAIT_NS = 20000000,      /* how often time is charged while a load waits for its reader */
    PREFIX_SHORTEST = 4,          /* copying fewer tokens is not worth a call */
    DRAFT_STREAMS = 4,            /* texts in a step with guesses at most */
    DRAFT_ROWS = 12,              /* and its rows: up to here one more takes about the same each time */
    TIMED_ROWS = 4,               /* rows more when that is measured */
    TIMED_STEPS = 6,
};
static const float ROW_TIME_LEAST = 0.01f;

/* ---- Slots and prefixes ------------------------------------------------------------------- */

/* Whether `a` is the better slot to overwrite.  Nothing is lost with one that nobody can copy from, and the
 * one used last is the one whose memory the system and the caches already hold: a slot that was never used
 * costs a page fault every few tokens.  Of the others the one that was idle longest. */
static bool better_to_take(const struct slot *a, const struct slot *b, bool reuse)
{
    bool a_useless = !reuse || a->n_tokens < PREFIX_SHORTEST,
         b_useless = !reuse || b->n_tokens < PREFIX_SHORTEST;
    if (a_useless != b_useless)
        return a_useless;
    return a_useless ? a->last_used > b->last_used : a->last_used < b->last_used;
}

static struct slot *free_slot(const struct cinf_engine *e, struct cinf_model *model)
{
    struct slot *best = NULL;
    for (uint32_t i = 0; i < model->n_slots; i++) {
        struct slot *slot = &model->slots[i];
        if (!slot->user && (!best || better_to_take(slot, best, e->prefix_reuse)))
            best = slot;
    }
    return best;
}

static uint32_t n_free_slots(const struct cinf_model *model)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < model->n_slots; i++)
        n += model->slots[i].user == NULL;
    return n;
}

static uint32_t slot_index(const struct cinf_model *model, const struct slot *slot)
{
    return (uint32_t)(slot - model->slots);
}

/* The slot whose content shares the longest beginning with the prompt, and how long that is.  The prompt's
 * last token is never taken from a cache: its logits are wanted. */
static struct slot *longest_prefix(const struct cinf_request *r, uint32_t *length)
{
    const struct cinf_model *model = r->model;
    struct slot *best = NULL;
    *length = 0;
    for (uint32_t i = 0; i < model->n_slots; i++) {
        struct slot *slot = &model->slots[i];
        uint32_t most = slot->n_tokens < r->n_prompt - 1 ? slot->n_tokens : r->n_prompt - 1, n = 0;
        while (n < most && slot->tokens[n] == r->prompt[n])
            n++;
        if (n > *length) {
            *length = n;
            best = slot;
        }
    }
    return best;
}

static void give_slot(struct cinf_engine *e, struct sequence *seq, struct slot *slot)
{
    seq->slot = slot;
    slot->user = seq;
    slot->last_used = e->step;
}

static enum cinf_status copy_prefix(struct cinf_request *r, struct slot *to, const struct slot *from,
                                    uint32_t n)
{
    if (to != from) {
        TRY(model_copy_prefix(r->model->runtime, slot_index(r->model, to), slot_index(r->model, from), n));
        memcpy(to->tokens, from->tokens, n * sizeof *to->tokens);
        r->copied_bytes += model_copy_bytes(r->model->runtime, n);
    }
    to->n_tokens = n;
    return CINF_OK;
}

/* Takes a waiting request into its slots.  Every choice gets one at once, so that no request waits with half
 * of what it needs. */
static void admit(struct cinf_engine *e, struct cinf_request *r)
{
    struct cinf_model *model = r->model;
    uint32_t cached = 0;
    struct slot *source = NULL;
    if (e->prefix_reuse && !r->wants_all)
        source = longest_prefix(r, &cached);
    if (cached < PREFIX_SHORTEST)
        cached = 0;

    /* A text that goes on where a slot's content ends goes on in that slot. */
    bool in_place = cached && !source->user && source->n_tokens == cached;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        give_slot(e, &r->sequences[i], i == 0 && in_place ? source : free_slot(e, model));
    struct slot *first = r->sequences[0].slot;
    /* Another of its own slots may be the source, so the content of these goes only after the copy.  If the
     * copy fails the prompt is computed in full, and says what is wrong with the device. */
    if (cached && copy_prefix(r, first, source, cached) != CINF_OK)
        cached = 0;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        r->sequences[i].slot->n_tokens = i == 0 ? cached : 0;
    r->n_computed = r->n_cached = cached;

    struct cinf_request **end = &model->running;
    while (*end)
        end = &(*end)->next;
    r->next = NULL;
    *end = r;
}

static void free_slots(struct cinf_engine *e, struct cinf_request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        struct slot *slot = r->sequences[i].slot;
        if (slot && slot->user == &r->sequences[i]) {
            slot->user = NULL;
            slot->last_used = e->step;
        }
        r->sequences[i].slot = NULL;
    }
}

/* ---- Coming and going ---------------------------------------------------------------------- */

/* Why a request must end before the next step; CINF_FINISH_RUNNING: it need not. */
static enum cinf_finish must_end(const struct cinf_request *r, uint64_t now)
{
    enum cinf_finish why = (enum cinf_finish)atomic_load(&r->cancel);
    return why == CINF_FINISH_RUNNING && now >= r->deadline_ns ? CINF_FINISH_TIMEOUT : why;
}

/* Takes the requests that must end out of a list and puts them in front of *out. */
static uint32_t take_ended(struct cinf_request **list, struct cinf_request ***list_end, uint64_t now,
                           struct cinf_request **out)
{
    uint32_t n = 0;
    struct cinf_request **at = list;
    while (*at) {
        struct cinf_request *r = *at;
        if (must_end(r, now) == CINF_FINISH_RUNNING) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        r->next = *out;
        *out = r;
        n++;
    }
    if (list_end)
        *list_end = at;
    return n;
}

static void end_requests(struct cinf_engine *e, struct cinf_request *list, uint64_t now)
{
    while (list) {
        struct cinf_request *r = list;
        list = r->next;
        free_slots(e, r);
        request_end(r, must_end(r, now));
    }
}

/* Under the lock: whether nobody was there when time was last charged.  What has passed since then, while the
 * last tokens were handed out, is no part of a request that came only afterwards. */
static bool was_idle(const struct cinf_engine *e, const struct cinf_model *next)
{
    for (const struct cinf_model *m = e->models; m; m = m->next) {
        for (struct cinf_request *r = m->running; r; r = r->next)
            if (!request_is_paused(r))
                return false;
        /* Those that wait stand in the order in which they came. */
        if (m->waiting && (m != next || m->waiting->submitted_ns < e->charged_ns))
            return false;
    }
    return !e->loads;
}

/* Lets a model's waiting requests in, oldest first, as long as they fit.  Only the model whose step comes
 * next does so: a prefix copy then falls into the interval that its request is in. */
static void admit_waiting(struct cinf_engine *e, struct cinf_model *model)
{
    pthread_mutex_lock(&e->lock);
    struct cinf_request *r;
    while ((r = model->waiting) && n_free_slots(model) >= r->n_sequences) {
        model->waiting = r->next;
        if (!model->waiting)
            model->waiting_end = &model->waiting;
        e->n_waiting--;
        pthread_mutex_unlock(&e->lock);
        admit(e, r);
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
}

/* Under the lock: somebody who does not sit out, or a waiting request that fits. */
static bool has_work(const struct cinf_model *model)
{
    for (struct cinf_request *r = model->running; r; r = r->next)
        if (!request_is_paused(r))
            return true;
    return model->waiting && n_free_slots(model) >= model->waiting->n_sequences;
}

/* Under the lock: the model that has had least of the device among those with something to do.  One that had
 * nothing to do meanwhile does not get its absence back: it starts level with the others. */
static struct cinf_model *next_model(struct cinf_engine *e)
{
    uint64_t least = UINT64_MAX;
    for (struct cinf_model *m = e->models; m; m = m->next)
        if (m->was_active && has_work(m) && m->served_ns < least)
            least = m->served_ns;
    struct cinf_model *best = NULL;
    for (struct cinf_model *m = e->models; m; m = m->next) {
        if (!has_work(m)) {
            m->was_active = false;
            continue;
        }
        if (!m->was_active && least != UINT64_MAX && m->served_ns < least)
            m->served_ns = least;
        m->was_active = true;
        if (!best || m->served_ns < best->served_ns)
            best = m;
    }
    return best;
}

/* ---- A step -------------------------------------------------------------------------------- */

struct step {
    struct cinf_model *model;
    uint32_t n_rows;
};

static void add_row(struct cinf_engine *e, struct step *step, struct sequence *seq, int32_t token,
                    uint32_t position, uint8_t wants_logits)
{
    assert(step->n_rows < e->rows_cap);
    uint32_t i = step->n_rows++;
    e->row_tokens[i] = token;
    e->row_positions[i] = position;
    e->row_slots[i] = slot_index(step->model, seq->slot);
    e->row_wants[i] = wants_logits;
    e->row_sequences[i] = seq;
}

static void add_work(struct cinf_request *r, struct model_work work)
{
    r->work.flops += work.flops;
    r->work.kv_bytes += work.kv_bytes;
    if (work.weight_bytes > r->work.weight_bytes)
        r->work.weight_bytes = work.weight_bytes;
}

static wide weight_of(const struct cinf_engine *e, const struct cinf_request *r)
{
    return step_weight(&r->work, r->copied_bytes, e->device_info.as_per_flop, e->device_info.as_per_byte);
}

static bool is_prefilling(const struct cinf_request *r)
{
    return r->n_computed < r->n_prompt;
}

/* Of the row that a request's next token comes from: on a device that picks, no more than sampling needs. */
static uint8_t wants_of(const struct cinf_request *r)
{
    uint32_t n = model_picks(r->model->runtime) ? sampler_needs(&r->sampling) : 0;
    uint32_t n_top = r->logprobs ? r->n_top : 0;
    /* The most likely are shown whether they may be sampled or not. */
    if (n == 0 || (r->logprobs && !model_picks_log_sums(r->model->runtime)) || n_top > PICK_MAX ||
        (n_top > 0 && r->model->allowed))
        return 1;
    return (uint8_t)(1 + (n > n_top ? n : n_top));
}

static void add_prompt_rows(struct cinf_engine *e, struct step *step, struct cinf_request *r, uint32_t n)
{
    uint32_t first = r->n_computed, wanted = 0;
    for (uint32_t i = first; i < first + n; i++) {
        uint8_t wants = r->wants_all ? 1 : i + 1 == r->n_prompt && !r->prompt_only ? wants_of(r) : 0;
        add_row(e, step, &r->sequences[0], r->prompt[i], i, wants);
        wanted += wants > 0;
    }
    r->step_rows = n;
    add_work(r, model_work_of(step->model->runtime, first, n, wanted, !r->wants_all && wants_of(r) > 1));
}

/* A text's row, and the guesses at what follows it for which there is room and which pay. */
static void add_decode_rows(struct cinf_engine *e, struct step *step, struct sequence *seq, uint32_t room,
                            struct draft_step *drafts)
{
    struct cinf_request *r = seq->request;
    uint32_t last = seq->n_ids - 1, left = r->max_new - seq->n_new - 1;
    if (drafts) {
        draft_find(&seq->draft, seq->ids, seq->n_ids);
        seq->n_drafted = draft_length(&seq->draft, left < room ? left : room, drafts);
    }
    add_row(e, step, seq, seq->ids[last], last, wants_of(r));
    for (uint32_t i = 0; i < seq->n_drafted; i++)
        add_row(e, step, seq, seq->draft.tokens[i], last + 1 + i, wants_of(r));
    uint32_t n = 1 + seq->n_drafted;
    add_work(r, model_work_of(step->model->runtime, last, n, n, wants_of(r) > 1));
    r->step_rows += n;
}

/* Everyone who is generating gets a row.  While there are few of them and no prompts, guesses are added. */
static void add_texts(struct cinf_engine *e, struct step *step, uint32_t n_texts, bool alone)
{
    struct cinf_model *model = step->model;
    struct draft_step drafts = { .tokens = (float)n_texts,
                                 .time = 1 + ((float)n_texts - 1) * model->row_time,
                                 .row_time = model->row_time };
    bool quiet = alone && n_texts <= DRAFT_STREAMS && model->row_time > 0;
    uint32_t most = n_texts + e->prefill_rows < DRAFT_ROWS ? n_texts + e->prefill_rows : DRAFT_ROWS;
    for (struct cinf_request *r = model->running; r; r = r->next) {
        if (r->skipped || is_prefilling(r))
            continue;
        for (uint32_t i = 0; i < r->n_sequences; i++) {
            struct sequence *seq = &r->sequences[i];
            if (seq->finish != CINF_FINISH_RUNNING)
                continue;
            add_decode_rows(e, step, seq, quiet ? most - step->n_rows - n_texts : 0, quiet ? &drafts : NULL);
            n_texts--;
        }
    }
}

/* Texts first.  Then the prompts, the one that has used least of the device first and none more than its
 * part, so that a long prompt does not hold up a short one. */
static void build_step(struct cinf_engine *e, struct step *step)
{
    uint32_t n_texts = 0, n_prefilling = 0, budget = e->prefill_rows;
    for (struct cinf_request *r = step->model->running; r; r = r->next) {
        r->step_rows = 0;
        r->work = (struct model_work){ 0 };
        r->skipped = request_is_paused(r);
        if (r->skipped)
            continue;
        n_prefilling += is_prefilling(r);
        for (uint32_t i = 0; i < r->n_sequences; i++) {
            r->sequences[i].n_sampled = r->sequences[i].n_drafted = 0;
            n_texts += !is_prefilling(r) && r->sequences[i].finish == CINF_FINISH_RUNNING;
        }
    }
    add_texts(e, step, n_texts, n_prefilling == 0);
    while (n_prefilling > 0 && budget > 0) {
        struct cinf_request *next = NULL;
        uint64_t next_ns = 0;
        for (struct cinf_request *r = step->model->running; r; r = r->next) {
            struct cinf_report report = { CINF_REPORT };
            if (r->skipped || !is_prefilling(r) || r->step_rows > 0)
                continue;
            cinf_bill_read(r->bill, &report);
            if (!next || report.device_ns < next_ns) {
                next = r;
                next_ns = report.device_ns;
            }
        }
        assert(next);
        uint32_t part = (budget + n_prefilling - 1) / n_prefilling;
        uint32_t left = next->n_prompt - next->n_computed;
        uint32_t n = left < part ? left : part;
        add_prompt_rows(e, step, next, n);
        budget -= n;
        n_prefilling--;
    }
}

/* The logits of one prompt row: its own scores, if asked for. */
static void take_prompt_logits(struct cinf_engine *e, struct cinf_request *r, uint32_t position,
                               const float *logits)
{
    uint32_t vocab = r->model->config.vocab_size;
    /* Whoever lets go of the request takes the buffer away under the same lock. */
    pthread_mutex_lock(&r->lock);
    if (r->prompt_logits)
        memcpy(r->prompt_logits + (size_t)position * vocab, logits, vocab * sizeof *logits);
    pthread_mutex_unlock(&r->lock);
    if (r->prompt_logprobs && position + 1 < r->n_prompt)
        sampler_logprobs(&e->samplers[0], logits, vocab, r->prompt[position + 1],
                         &r->prompt_logprob[position + 1], r->prompt_top + (size_t)(position + 1) * r->n_top,
                         r->n_top);
}

static bool is_eos(const struct cinf_config *config, int32_t token)
{
    for (uint32_t i = 0; i < config->n_eos; i++)
        if (config->eos[i] == token)
            return true;
    return false;
}

/* The sampled token becomes part of the text, and may end it. */
static enum cinf_status take_token(struct sequence *seq, int32_t token)
{
    struct cinf_request *r = seq->request;
    const struct cinf_model *model = r->model;
    if (!r->ignore_eos && is_eos(&model->config, token)) {
        seq->finish = CINF_FINISH_STOP;
        return CINF_OK;
    }
    pthread_mutex_lock(&r->lock);
    enum cinf_status status = textflow_push(&seq->flow, model->tokenizer, token, r->stops, r->n_stops);
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

/* What a step gave of a row's logits. */
struct seen {
    const float *all; /* NULL: only the best */
    struct picked best;
};

/* The next token of a text, its log-probabilities in their places; -1 when the logits are broken. */
static int32_t choose(struct sampler *sampler, struct sequence *seq, const struct seen *seen)
{
    const struct cinf_request *r = seq->request;
    uint32_t vocab = r->model->config.vocab_size;
    int32_t token = seen->all ? sampler_pick(sampler, seen->all, vocab, r->model->allowed, &r->sampling,
                                             seq->index, seq->ids, seq->n_ids, r->n_prompt)
                              : sampler_pick_best(sampler, &seen->best, &r->sampling, seq->index, seq->n_ids);
    if (token >= 0 && r->logprobs) {
        float *logprob = &seq->logprobs[seq->n_new];
        struct cinf_logprob *top = seq->top + (size_t)seq->n_new * r->n_top;
        if (seen->all)
            sampler_logprobs(sampler, seen->all, vocab, token, logprob, top, r->n_top);
        else
            sampler_logprobs_best(&seen->best, token, logprob, top, r->n_top);
    }
    return token;
}

/* A part of those that choose_ahead() found. */
struct choosing {
    struct cinf_engine *engine;
    uint32_t n_rows, n_parts;
};

static void choose_part(const void *job, uint32_t part, uint32_t worker)
{
    const struct choosing *choosing = job;
    struct cinf_engine *e = choosing->engine;
    uint32_t n = 0;
    (void)worker;
    for (uint32_t i = 0; i < choosing->n_rows; i++) {
        if (!e->row_picks[i].logits || n++ % choosing->n_parts != part)
            continue;
        struct seen seen = { .all = e->row_picks[i].logits };
        e->row_picks[i].token = choose(&e->samplers[part], e->row_sequences[i], &seen);
    }
}

/* Several texts' next tokens are chosen at once where the device lends threads.  What depends on another
 * choice of this step, guesses and the further texts of a prompt, waits for its turn. */
static enum cinf_status choose_ahead(struct cinf_engine *e, const struct step *step)
{
    uint32_t wanted = 0, n = 0;
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct sequence *seq = e->row_sequences[i];
        uint32_t nth = wanted;
        wanted += e->row_wants[i] > 0;
        e->row_picks[i].logits = NULL;
        if (e->n_samplers == 1 || e->row_wants[i] != 1 || seq->request->prompt_only ||
            e->row_positions[i] + 1 != seq->n_ids)
            continue;
        TRY(model_logits(step->model->runtime, nth, &e->row_picks[i].logits));
        n++;
    }
    uint32_t n_parts = n < e->n_samplers ? n : e->n_samplers;
    struct choosing choosing = { e, step->n_rows, n_parts };
    if (n > 0)
        e->device->backend->parallel(e->device, choose_part, &choosing, n_parts);
    return CINF_OK;
}

/* The token becomes part of the text; nobody sees it before its time has been charged.  What fails here fails
 * the device (broken logits) or, without memory, this request alone. */
static enum cinf_status add_token(struct sequence *seq, int32_t token)
{
    struct cinf_request *r = seq->request;
    if (token < 0)
        return cinf_fail(CINF_EDEVICE, "model %s computed logits that are not numbers at position %u",
                         r->model->name, seq->n_ids - 1);
    seq->n_sampled++;
    if (take_token(seq, token) != CINF_OK) {
        seq->finish = CINF_FINISH_FAILED;
        snprintf(r->failure, sizeof r->failure, "%s", cinf_last_error());
    }
    return CINF_OK;
}

/* After the prompt's last row: the other choices start from a copy of its cache. */
static enum cinf_status fork_sequences(struct cinf_engine *e, struct cinf_request *r, const struct seen *seen)
{
    for (uint32_t i = 1; i < r->n_sequences; i++) {
        TRY(copy_prefix(r, r->sequences[i].slot, r->sequences[0].slot, r->n_prompt));
        TRY(add_token(&r->sequences[i], choose(&e->samplers[0], &r->sequences[i], seen)));
    }
    return CINF_OK;
}

/* A guess that did not come true is not part of the text, nor is what follows it: its logits go unseen, and
 * its keys and values are overwritten by the row that has this position next. */
static bool is_in_text(const struct sequence *seq, uint32_t position, int32_t token)
{
    return position < seq->request->n_prompt ||
           (seq->finish == CINF_FINISH_RUNNING && position + 1 == seq->n_ids && seq->ids[position] == token);
}

static enum cinf_status take_logits(struct cinf_engine *e, const struct step *step)
{
    uint32_t wanted = 0;
    TRY(choose_ahead(e, step));
    for (uint32_t i = 0; i < step->n_rows; i++) {
        struct sequence *seq = e->row_sequences[i];
        struct cinf_request *r = seq->request;
        uint32_t position = e->row_positions[i], nth = wanted;
        wanted += e->row_wants[i] > 0;
        if (!is_in_text(seq, position, e->row_tokens[i]))
            continue;
        seq->slot->tokens[position] = e->row_tokens[i];
        seq->slot->n_tokens = position + 1;
        if (position < r->n_prompt)
            r->n_computed = position + 1;
        if (!e->row_wants[i])
            continue;
        struct seen seen = { .all = NULL };
        if (e->row_wants[i] > 1)
            TRY(model_picked(step->model->runtime, nth, &seen.best));
        else
            TRY(model_logits(step->model->runtime, nth, &seen.all));
        if (position < r->n_prompt && r->wants_all)
            take_prompt_logits(e, r, position, seen.all);
        if (position + 1 < r->n_prompt || r->prompt_only)
            continue;
        const struct early_pick *early = &e->row_picks[i];
        TRY(add_token(seq, early->logits ? early->token : choose(&e->samplers[0], seq, &seen)));
        if (position + 1 == r->n_prompt)
            TRY(fork_sequences(e, r, &seen));
    }
    return CINF_OK;
}

/* Everybody in the step pays, also when it failed: the time was used. */
static uint64_t charge(struct cinf_engine *e, const struct step *step)
{
    uint32_t n = 0;
    wide total = 0;
    for (struct cinf_request *r = step->model->running; r; r = r->next)
        total += r->step_rows > 0 ? weight_of(e, r) : 0;
    unsigned shift = step_weight_shift(total);
    for (struct cinf_request *r = step->model->running; r; r = r->next) {
        if (r->step_rows == 0)
            continue;
        struct cinf_share *share = &e->shares[n++];
        bool prefill = r->n_reported < r->n_prompt;
        uint64_t weight = (uint64_t)(weight_of(e, r) >> shift);
        *share = (struct cinf_share){ .bill = r->bill,
                                      .prefill_weight = prefill ? weight : 0,
                                      .decode_weight = prefill ? 0 : weight,
                                      .input_tokens = r->n_computed - r->n_reported,
                                      .cached_tokens = r->n_reported == 0 ? r->n_cached : 0 };
        uint32_t drafted = 0, accepted = 0;
        for (uint32_t i = 0; i < r->n_sequences; i++) {
            const struct sequence *seq = &r->sequences[i];
            share->output_tokens += seq->n_sampled;
            drafted += seq->n_drafted;
            accepted += seq->n_sampled > 1 ? seq->n_sampled - 1 : 0;
        }
        cinf_bill_count_drafts(r->bill, drafted, accepted);
        r->n_reported = r->n_computed;
        r->copied_bytes = 0;
    }
    uint64_t ns = cinf_meter_charge(e->meter, e->shares, n);
    e->charged_ns = clock_monotonic_ns();
    return ns;
}

/* Hands out what a step gave a request.  Returns how it ended; CINF_FINISH_RUNNING: it did not. */
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

static void run_step(struct cinf_engine *e, struct cinf_model *model)
{
    struct step step = { .model = model };
    build_step(e, &step);
    if (step.n_rows == 0)
        return;
    e->step++;
    struct batch batch = { .n_rows = step.n_rows,
                           .tokens = e->row_tokens,
                           .positions = e->row_positions,
                           .slots = e->row_slots,
                           .wants_logits = e->row_wants };
    enum cinf_status status = model_run(model->runtime, &batch);
    if (status == CINF_OK)
        status = model_wait(model->runtime);
    if (status == CINF_OK)
        status = take_logits(e, &step);
    model->served_ns += charge(e, &step);

    struct cinf_request **at = &model->running;
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
        free_slots(e, r);
        request_end(r, finish);
    }
}

/* ---- Loads, unloads and other threads' jobs ------------------------------------------------ */

static enum cinf_status make_slots(struct cinf_engine *e, struct cinf_model *model)
{
    uint32_t n = model_slots(model->runtime), positions = model->config.n_positions;
    model->slots = mem_new(n, sizeof *model->slots);
    if (!model->slots)
        return cinf_fail(CINF_ENOMEM, "no memory for %u slots", n);
    model->n_slots = n;
    for (uint32_t i = 0; i < n; i++) {
        model->slots[i].tokens = mem_new(positions, sizeof *model->slots[i].tokens);
        if (!model->slots[i].tokens)
            return cinf_fail(CINF_ENOMEM, "no memory for %u slots of %u tokens", n, positions);
    }
    for (uint32_t i = 0; i < e->n_samplers; i++)
        TRY(sampler_reserve(&e->samplers[i], model->config.vocab_size));
    return engine_reserve_rows(e, e->prefill_rows + n);
}

static void drop_weights(struct cinf_engine *e, struct cinf_model *model)
{
    for (uint32_t i = 0; model->slots && i < model->n_slots; i++)
        mem_free(model->slots[i].tokens);
    mem_free(model->slots);
    model->slots = NULL;
    if (model->runtime) {
        pthread_mutex_lock(&e->lock);
        e->kv_used -= model_kv_bytes(model->runtime);
        pthread_mutex_unlock(&e->lock);
    }
    model_free(model->runtime);
    model->runtime = NULL;
}

void engine_show_memory(struct cinf_engine *e)
{
    struct device_info info;
    e->device->backend->info(e->device, &info);
    atomic_store(&e->memory_used, info.memory_used);
    if (info.shows_memory) {
        cinf_meter_set_gpu_memory(e->meter, info.memory_used, info.memory_total);
        cinf_meter_set_gpu_taken(e->meter, info.memory_taken);
    }
    e->memory_changes = info.memory_taken > 0;
    e->memory_shown_ns = clock_monotonic_ns();
}

/* One short step, to see what a row more takes; *done after the last of them. */
static enum cinf_status time_step(struct model_load *load, bool *done)
{
    static const int32_t tokens[1 + TIMED_ROWS] = { 0 };
    static const uint32_t positions[1 + TIMED_ROWS] = { 0, 1, 2, 3, 4 }, slots[1 + TIMED_ROWS] = { 0 };
    uint8_t wants[1 + TIMED_ROWS];
    memset(wants, model_picks(load->model->runtime) ? 2 : 1, sizeof wants);
    uint32_t more = load->n_timed % 2;
    struct batch batch = { 1 + more * TIMED_ROWS, tokens, positions, slots, wants };
    uint64_t start = clock_monotonic_ns();
    TRY(model_run(load->model->runtime, &batch));
    TRY(model_wait(load->model->runtime));
    uint64_t ns = clock_monotonic_ns() - start, *least = &load->least_ns[more];
    *least = *least == 0 || ns < *least ? ns : *least;
    *done = ++load->n_timed == TIMED_STEPS;
    if (*done) {
        float share = ((float)load->least_ns[1] / (float)load->least_ns[0] - 1) / TIMED_ROWS;
        load->model->row_time = share > ROW_TIME_LEAST ? share : ROW_TIME_LEAST;
    }
    return CINF_OK;
}

static enum cinf_status finish_load(struct cinf_engine *e, struct model_load *load)
{
    struct cinf_model *model = load->model;
    TRY(model_stream_finish(&model->runtime, load->loader));
    pthread_mutex_lock(&e->lock);
    e->kv_used += model_kv_bytes(model->runtime);
    pthread_mutex_unlock(&e->lock);
    TRY(make_slots(e, model));
    if (model->allowed && model_picks(model->runtime))
        TRY(model_allow(model->runtime, model->allowed));
    model->weights = engine_weights_of(model_weights_type(model->runtime));
    model->parameters = model_parameters(model->runtime);
    model->weight_bytes = model_work_of(model->runtime, 0, 1, 1, false).weight_bytes;
    model->greedy_bytes = model_work_of(model->runtime, 0, 1, 1, true).weight_bytes;
    return CINF_OK;
}

static enum cinf_status load_piece(struct cinf_engine *e, struct model_load *load, bool *done)
{
    const struct cinf_model *model = load->model;
    if (model->runtime)
        return time_step(load, done);
    enum cinf_status status = model_stream_step(load->loader, e->device, LOAD_PIECE_NS, done);
    atomic_store(&load->bytes_done, model_stream_bytes_done(load->loader));
    if (status != CINF_OK || !*done)
        return status;
    TRY(finish_load(e, load));
    *done = !e->device_info.speculation || e->prefill_rows < TIMED_ROWS ||
            model->config.n_positions <= TIMED_ROWS;
    return CINF_OK;
}

/* One piece of a load whose files are open. */
static void run_load(struct cinf_engine *e, struct model_load *load)
{
    bool done = false;
    cinf_meter_busy(e->meter);
    enum cinf_status status = load_piece(e, load, &done);
    cinf_meter_charge_load(e->meter, load->model->account);
    if (status == CINF_OK && !done)
        return;

    struct cinf_model *model = load->model;
    if (status != CINF_OK && model->runtime) {
        drop_weights(e, model);
    } else if (status == CINF_OK) {
        cinf_meter_set_loaded(e->meter, model->account, true);
        engine_show_memory(e);
    }
    pthread_mutex_lock(&e->lock);
    load->status = status;
    snprintf(load->message, sizeof load->message, "%s", status == CINF_OK ? "" : cinf_last_error());
    if (status == CINF_OK) {
        struct cinf_model **end = &e->models;
        while (*end)
            end = &(*end)->next;
        *end = model;
        model->listed = model->loaded = true;
        model->loaded_at = (int64_t)time(NULL);
        atomic_fetch_add(&model->references, 1);
    }
    for (struct model_load **at = &e->loads; *at; at = &(*at)->next)
        if (*at == load) {
            *at = load->next;
            break;
        }
    load->done = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

/* Under the lock, which it lets go of meanwhile: models that are to go and have nothing left to do.  Returns
 * whether there were any. */
static bool run_unloads(struct cinf_engine *e)
{
    bool any = false;
    for (struct cinf_model **at = &e->models; *at;) {
        struct cinf_model *model = *at;
        if (!model->unloading || model->running || model->waiting) {
            at = &model->next;
            continue;
        }
        any = true;
        *at = model->next;
        model->listed = false;
        pthread_mutex_unlock(&e->lock);
        drop_weights(e, model);
        cinf_meter_set_loaded(e->meter, model->account, false);
        engine_show_memory(e);
        pthread_mutex_lock(&e->lock);
        model->loaded = false;
        pthread_cond_broadcast(&e->changed);
        pthread_mutex_unlock(&e->lock);
        model_unref(model);
        pthread_mutex_lock(&e->lock);
        at = &e->models;
    }
    return any;
}

static void run_jobs(struct cinf_engine *e)
{
    while (e->jobs) {
        struct scheduler_call *job = e->jobs;
        e->jobs = job->next;
        if (!e->jobs)
            e->jobs_end = &e->jobs;
        pthread_mutex_unlock(&e->lock);
        enum cinf_status status = job->run(e, job->context);
        pthread_mutex_lock(&e->lock);
        job->status = status;
        snprintf(job->message, sizeof job->message, "%s", status == CINF_OK ? "" : cinf_last_error());
        job->done = true;
        pthread_cond_broadcast(&e->changed);
    }
}

/* Under the lock, which it lets go of meanwhile. */
static void close_all(struct cinf_engine *e)
{
    for (struct model_load *load = e->loads; load;) {
        bool on_device = load->model->runtime != NULL;
        if (on_device) {
            pthread_mutex_unlock(&e->lock);
            drop_weights(e, load->model);
            pthread_mutex_lock(&e->lock);
        }
        load = on_device ? e->loads : load->next;
    }
    for (struct cinf_model *m = e->models; m; m = m->next) {
        m->unloading = true;
        struct cinf_request *lists[] = { m->waiting, m->running };
        for (int i = 0; i < 2; i++)
            for (struct cinf_request *r = lists[i]; r; r = r->next)
                request_cancel(r, CINF_FINISH_CANCELLED);
    }
    for (struct model_load *load = e->loads, *next; load; load = next) {
        next = load->next;
        load->status = CINF_ECLOSED;
        snprintf(load->message, sizeof load->message, "the engine is closing");
        load->done = true;
    }
    e->loads = NULL;
    pthread_cond_broadcast(&e->changed);
}

static uint64_t next_deadline(const struct cinf_engine *e)
{
    uint64_t next = UINT64_MAX;
    for (const struct cinf_model *m = e->models; m; m = m->next) {
        const struct cinf_request *lists[] = { m->waiting, m->running };
        for (int i = 0; i < 2; i++)
            for (const struct cinf_request *r = lists[i]; r; r = r->next)
                next = r->deadline_ns < next ? r->deadline_ns : next;
    }
    return next;
}

/* UINT64_MAX: as long as it takes. */
static void wait_for_work(struct cinf_engine *e, uint64_t until_ns)
{
    struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000u),
                              .tv_nsec = (long)(until_ns % 1000000000u) };
    if (until_ns == UINT64_MAX)
        pthread_cond_wait(&e->work, &e->lock);
    else
        pthread_cond_timedwait(&e->work, &e->lock, &until);
}

void *scheduler_main(void *engine)
{
    struct cinf_engine *e = engine;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        if (e->memory_changes && clock_monotonic_ns() - e->memory_shown_ns >= MEMORY_SHOWN_NS) {
            pthread_mutex_unlock(&e->lock);
            engine_show_memory(e);
            pthread_mutex_lock(&e->lock);
        }
        run_jobs(e);
        if (e->closing)
            close_all(e);

        struct cinf_request *ended = NULL;
        uint64_t now = clock_monotonic_ns();
        for (struct cinf_model *m = e->models; m; m = m->next) {
            e->n_waiting -= take_ended(&m->waiting, &m->waiting_end, now, &ended);
            take_ended(&m->running, NULL, now, &ended);
        }
        if (ended) {
            pthread_mutex_unlock(&e->lock);
            end_requests(e, ended, now);
            pthread_mutex_lock(&e->lock);
        }
        /* What was looked at above may have changed while the lock was free. */
        if (run_unloads(e) || ended)
            continue;

        struct cinf_model *model = next_model(e);
        struct model_load *ready = e->loads;
        while (ready && !ready->loader)
            ready = ready->next;
        if (model || ready) {
            if (was_idle(e, model))
                cinf_meter_idle(e->meter);
            pthread_mutex_unlock(&e->lock);
            cinf_meter_busy(e->meter);
            if (model) {
                admit_waiting(e, model);
                run_step(e, model);
            }
            if (ready)
                run_load(e, ready);
            pthread_mutex_lock(&e->lock);
        } else if (e->loads) {
            /* Nothing to do but wait for a load's files: that is loading too. */
            uint32_t account = e->loads->model->account;
            cinf_meter_busy(e->meter);
            wait_for_work(e, clock_monotonic_ns() + LOAD_WAIT_NS);
            cinf_meter_charge_load(e->meter, account);
        } else if (!e->jobs) {
            cinf_meter_idle(e->meter);
            if (e->closing && !e->models)
                break;
            /* Those that stay sit out, or wait for the slots of such ones. */
            uint64_t until = next_deadline(e), again = e->memory_shown_ns + MEMORY_SHOWN_NS;
            wait_for_work(e, e->memory_changes && again < until ? again : until);
        }
    }
    e->stopped = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    return NULL;
}
