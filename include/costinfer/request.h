/* request.h - generating text, at three levels.
 *
 * Blocking, with the text as it is generated:
 *
 *     struct cinf_result *result;
 *     cinf_generate(&result, model, &(struct cinf_request_options){
 *         CINF_REQUEST_OPTIONS, .prompt = "Once upon a time", .max_tokens = 40 }, print_text, NULL);
 *     printf("%u tokens, $%s\n", result->report.output_tokens, cinf_cost_format(text, result->report.cost));
 *     cinf_result_free(result);
 *
 * By events, which the caller pulls: submit, then cinf_request_next() until CINF_EVENT_END.  A slow reader
 * delays no other request: room for every event is reserved at submission.  For an event loop, `notify` is
 * called when there is something to pull.
 *
 * Scoring: cinf_score() and cinf_logits().
 *
 * cinf_request_cancel() cancels a request, which then leaves the batch before the next step.  However a
 * request ends, it is billed for what was computed. */
#ifndef COSTINFER_REQUEST_H
#define COSTINFER_REQUEST_H

#include <costinfer/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A change to a token's likelihood. */
struct cinf_logit_bias {
    int32_t token; /* its id */
    float bias;    /* added to its logit, from -100 to 100 */
};

/* Bounds of a request. */
enum {
    CINF_CHOICES_MAX = 64,      /* continuations of one prompt */
    CINF_STOPS_MAX = 16,        /* stop strings */
    CINF_STOP_BYTES_MAX = 256,  /* bytes of one of them */
    CINF_TOP_LOGPROBS_MAX = 20, /* log-probabilities in addition to a token's own */
};

/* A prompt, how to continue it, and what to report.  Zero means off or the default, in every field. */
struct cinf_request_options {
    size_t struct_size; /* set by CINF_REQUEST_OPTIONS */

    /* The prompt: text, or ids.  An empty one becomes the single token <|endoftext|>, or in a vocabulary
     * without it the first id of cinf_config.eos. */
    const char *prompt;
    size_t prompt_bytes;       /* 0: prompt is NUL-terminated */
    const int32_t *prompt_ids; /* takes precedence over `prompt` when not NULL */
    uint32_t n_prompt_ids;     /* how many */
    unsigned tokenize_flags;   /* CINF_TOKENIZE_SPECIAL; not for untrusted text */

    uint32_t max_tokens;     /* 0: as many as fit the context */
    bool prompt_only;        /* compute the prompt and sample nothing, for scoring */
    bool ignore_eos;         /* end-of-text does not end the text */
    const char *const *stop; /* strings that end the text and are not part of it */
    uint32_t n_stop;         /* at most CINF_STOPS_MAX */
    uint32_t n;              /* independent continuations, at most CINF_CHOICES_MAX; 0: 1 */

    /* Sampling, applied in this order to a copy of the logits, with typical_p, below, after min_p.  Zero
     * turns each of them off. */
    const struct cinf_logit_bias *logit_bias; /* several for one token add up */
    uint32_t n_logit_bias;                    /* how many, at most V */
    float repetition_penalty; /* > 0: positive logits of tokens seen, in the prompt too, are divided by it,
                                 negative ones multiplied (Keskar et al. 2019); 0 and 1: off */
    float presence_penalty;   /* subtracted once from the logit of each token generated so far */
    float frequency_penalty;  /* subtracted for each time the token was generated */
    float temperature;        /* 0: greedy, the most likely token; the smallest id among equals */
    uint32_t top_k;           /* keep the k most likely */
    float top_p;              /* keep the most likely until their probabilities reach p; 0 and 1: off */
    float min_p;              /* keep those at least min_p times as likely as the most likely */
    uint64_t seed; /* 0: drawn at random.  A token depends only on (seed, choice, position) and logits */

    bool logprobs;         /* report each token's log-probability: log-softmax of the model's own logits */
    uint32_t top_logprobs; /* and that of this many of the most likely tokens */
    bool prompt_logprobs;  /* events for the prompt's tokens come first, the first token's without logprob */
    float *prompt_logits;  /* NULL, or [n prompt tokens, V] to fill: the caller's, valid until
                              CINF_EVENT_END */

    uint32_t endpoint;   /* what it is counted as: an index into the meter's endpoints */
    uint64_t timeout_ns; /* it ends with CINF_FINISH_TIMEOUT this long after submission; 0: never */

    /* The scheduler calls it when an event can be pulled and before there was none.  It must not block and
     * must not call the library.  It is not called after cinf_request_free() has returned. */
    void (*notify)(void *context);
    void *notify_context; /* handed to it */

    /* While this many events wait to be pulled, the request is paused as by cinf_request_pause(), so that
     * nothing is computed for a reader that has stopped reading; 0: no limit.  A step's events are never
     * split: the last one may exceed the limit. */
    uint32_t unread_max;

    /* Who pays, as for cinf_bill_open_for(); NULL: "anonymous".  A prompt's beginning is taken from the cache
     * only where the same payer left it there, unless the engine shares it (share_prefixes): otherwise
     * cached_tokens would tell one payer what another has asked. */
    const char *payer;

    const int32_t *stop_token_ids; /* ids that end the text as end-of-text does, also with ignore_eos */
    uint32_t n_stop_token_ids;     /* how many, at most V */
    /* Before so many tokens nothing but max_tokens ends the text: end-of-text and stop_token_ids cannot be
     * sampled, and stop strings are looked for in the text of later tokens.  At most max_tokens. */
    uint32_t min_tokens;

    /* Locally typical sampling (Meister et al. 2022), applied after min_p.  Of the tokens that are left, with
     * their probabilities p and entropy H, it keeps those with the smallest |-log p - H| until their
     * probabilities reach typical_p; the smallest ids among equals.  0 and 1: off. */
    float typical_p;

    /* What a ledger is to know of it, as for cinf_bill_describe(); NULL: nothing. */
    const struct cinf_note *note;
};
#define CINF_REQUEST_OPTIONS .struct_size = sizeof(struct cinf_request_options) /* begins an initializer */

/* A token and its log-probability. */
struct cinf_logprob {
    int32_t token; /* its id */
    float logprob; /* natural logarithm */
};

/* The kinds of events. */
enum cinf_event_kind {
    CINF_EVENT_PROMPT, /* a token of the prompt (prompt_logprobs) */
    CINF_EVENT_TOKEN,  /* a token of a choice; end-of-text and stop strings give none */
    CINF_EVENT_FINISH, /* a choice has ended; `text` is what was still held back */
    CINF_EVENT_END,    /* the request has ended and its report is final; every later pull returns it again */
};

/* One event of a request, as pulled by cinf_request_next(). */
struct cinf_event {
    size_t struct_size;        /* set by CINF_EVENT before the struct is filled */
    enum cinf_event_kind kind; /* decides which of the fields below are set */
    uint32_t choice;           /* 0 … n - 1 */
    int32_t token;             /* of CINF_EVENT_PROMPT and CINF_EVENT_TOKEN */
    float logprob;             /* NaN for a prompt's first token, and where logprobs were not asked for */
    /* The text that became certain with this token: whole UTF-8 characters, NUL-terminated.  It may be empty
     * while a character is incomplete or a stop string may have begun.  This and `top` are valid until the
     * next pull. */
    const char *text;
    size_t text_bytes;              /* without the NUL */
    const struct cinf_logprob *top; /* most likely first */
    uint32_t n_top;                 /* top_logprobs, or 0 */
    enum cinf_finish finish;        /* of CINF_EVENT_FINISH and CINF_EVENT_END */
    /* Of CINF_EVENT_PROMPT: 1 where the token is the most likely at its place, of equals the one with the
     * smallest id first; 0 for the prompt's first token. */
    uint32_t rank;
};
#define CINF_EVENT .struct_size = sizeof(struct cinf_event) /* begins an initializer */

struct cinf_request; /* a request, from its submission until it is freed */

/* Checks and queues a request.  Everything the options point to is copied, except prompt_logits. CINF_EINVAL,
 * CINF_ECONTEXT (the prompt is longer than the context), CINF_EFULL (it would have to wait for a slot, and
 * queue_max others are waiting), CINF_ECLOSED (the model is being unloaded). */
CINF_API enum cinf_status cinf_request_submit(struct cinf_request **out, struct cinf_model *model,
                                              const struct cinf_request_options *options);

/* Submits n requests of one model, by a pointer to each one's options, or none of them: then nothing has run
 * and nothing is billed.  They stand in the queue in this order.  Fails as cinf_request_submit() does for any
 * of them; CINF_EFULL if there is no room for all of them now, CINF_EINVAL if there can never be.  n = 0 does
 * nothing. */
CINF_API enum cinf_status cinf_request_submit_all(struct cinf_request **out, struct cinf_model *model,
                                                  const struct cinf_request_options *const *options,
                                                  uint32_t n);

/* Pulls the next event, waiting at most `timeout_ns` for it (0: not at all; UINT64_MAX: as long as it takes);
 * CINF_EAGAIN if none has come.  One thread at a time may pull from a request. */
CINF_API enum cinf_status cinf_request_next(struct cinf_request *request, uint64_t timeout_ns,
                                            struct cinf_event *event);

/* Ends the request before the next step, as CINF_FINISH_CANCELLED, _CLIENT_GONE or _TIMEOUT.  Returns
 * immediately; CINF_EVENT_END follows.  Does nothing if the request has ended. */
CINF_API void cinf_request_cancel(struct cinf_request *request, enum cinf_finish why);

/* Pauses or resumes a request, for a reader that cannot keep up.  A paused one enters no step and costs
 * nothing; the step that is under way still counts.  Its deadline still applies, and it can be cancelled.  It
 * keeps its slots until another request needs them.  After that, it goes on in the next slots that become
 * free, once no more than half of unread_max is unread, with the tokens it would have had: what is lost of
 * its keys and values is computed again and billed to it (as prefill_ns up to its first token, as decode_ns
 * after that), and none of its tokens is counted twice.  Returns immediately; repeated calls change nothing.
 */
CINF_API void cinf_request_pause(struct cinf_request *request, bool pause);

/* Reads the report so far, or the final one. */
CINF_API void cinf_request_report(const struct cinf_request *request, struct cinf_report *report);

/* The prompt's tokens as they are computed; valid as long as the request. */
CINF_API const int32_t *cinf_request_prompt(const struct cinf_request *request, uint32_t *n);

/* The seed in use: the options' own, or the one that was drawn; giving it again repeats the texts. */
CINF_API uint64_t cinf_request_seed(const struct cinf_request *request);

/* Why a request ended as CINF_FINISH_FAILED, in one line; "" otherwise. */
CINF_API const char *cinf_request_failure(const struct cinf_request *request);

/* Releases the request, cancelling it if it has not ended.  Accepts NULL. */
CINF_API void cinf_request_free(struct cinf_request *request);

/* ---- Blocking calls ------------------------------------------------------------------------ */

/* One continuation, complete. */
struct cinf_choice {
    char *text;              /* NUL-terminated UTF-8, the continuation alone */
    size_t text_bytes;       /* without the NUL */
    int32_t *ids;            /* [n_ids] without end-of-text and stop strings */
    float *logprobs;         /* [n_ids], or NULL when not asked for */
    uint32_t n_ids;          /* tokens of `text` */
    enum cinf_finish finish; /* why it ended */
};

/* What cinf_generate() returns; cinf_result_free() frees all of it. */
struct cinf_result {
    struct cinf_choice *choices; /* [n_choices] */
    uint32_t n_choices;          /* n of the options */
    struct cinf_report report;   /* of the whole request */
};

/* Receives a piece of text; returning false cancels the request. */
typedef bool cinf_text_fn(void *context, uint32_t choice, const char *text, size_t n);

/* Submits a request and waits for its end.  `on_text` (or NULL) is called on this thread with each piece of
 * text.  A cancelled or timed-out request returns CINF_OK and has that finish; a failed one returns its
 * status and no result. */
CINF_API enum cinf_status cinf_generate(struct cinf_result **out, struct cinf_model *model,
                                        const struct cinf_request_options *options, cinf_text_fn *on_text,
                                        void *context);
CINF_API void cinf_result_free(struct cinf_result *result); /* accepts NULL */

/* logprobs[i] = log P(ids[i] | ids[0..i)), natural logarithm, i = 1 … n - 1; logprobs[0] is NaN.  n is at
 * most the context.  `report` may be NULL. */
CINF_API enum cinf_status cinf_score(struct cinf_model *model, const int32_t *ids, uint32_t n,
                                     float *logprobs, struct cinf_report *report);

/* Computes the logits [n, V] of every position. */
CINF_API enum cinf_status cinf_logits(struct cinf_model *model, const int32_t *ids, uint32_t n, float *logits,
                                      struct cinf_report *report);

#ifdef __cplusplus
}
#endif
#endif
