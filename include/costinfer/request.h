/* request.h - generating text, at three levels.
 *
 * Blocking, with the text as it comes:
 *
 *     struct cinf_result *result;
 *     cinf_generate(&result, model, &(struct cinf_request_options){
 *         CINF_REQUEST_OPTIONS, .prompt = "Once upon a time", .max_tokens = 40 }, print_text, NULL);
 *     printf("%u tokens, $%s\n", result->report.output_tokens, cinf_cost_format(text, result->report.cost));
 *     cinf_result_free(result);
 *
 * By events, which are pulled: submit, then cinf_request_next() until CINF_EVENT_END.  Nothing waits for a
 * slow reader: room for every event is set aside at submission.  For an event loop, `notify` tells that
 * there is something to pull.
 *
 * Scoring: cinf_score() and cinf_logits().
 *
 * A request is cancelled by cinf_request_cancel() and leaves the batch before the next step.  It is billed
 * for what was computed, however it ends. */
#ifndef COSTINFER_REQUEST_H
#define COSTINFER_REQUEST_H

#include <costinfer/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A change to how likely a token is. */
struct cinf_logit_bias {
    int32_t token; /* its id */
    float bias;    /* added to its logit, from -100 to 100 */
};

/* Bounds of a request. */
enum {
    CINF_CHOICES_MAX = 64,      /* continuations of one prompt */
    CINF_STOPS_MAX = 16,        /* stop strings */
    CINF_STOP_BYTES_MAX = 256,  /* bytes of one of them */
    CINF_TOP_LOGPROBS_MAX = 20, /* log-probabilities beside a token's own */
};

/* A prompt, how to go on from it, and what to report.  Zero means off or the default, in every field. */
struct cinf_request_options {
    size_t struct_size; /* set by CINF_REQUEST_OPTIONS */

    /* The prompt: text, or ids.  An empty one becomes the single token <|endoftext|>, or for a vocabulary
     * without it the first that ends a text (cinf_config). */
    const char *prompt;
    size_t prompt_bytes;       /* 0: prompt is NUL-terminated */
    const int32_t *prompt_ids; /* goes before `prompt` when not NULL */
    uint32_t n_prompt_ids;     /* how many */
    unsigned tokenize_flags;   /* CINF_TOKENIZE_SPECIAL; not for what strangers wrote */

    uint32_t max_tokens;     /* 0: as many as the context takes */
    bool prompt_only;        /* compute the prompt and sample nothing, for scoring */
    bool ignore_eos;         /* end-of-text does not end the text */
    const char *const *stop; /* strings that end the text; they are not part of it */
    uint32_t n_stop;         /* at most CINF_STOPS_MAX */
    uint32_t n;              /* independent continuations, at most CINF_CHOICES_MAX; 0: 1 */

    /* Sampling, applied in this order to a copy of the logits.  Zero is off everywhere. */
    const struct cinf_logit_bias *logit_bias; /* for one token several times: the sum */
    uint32_t n_logit_bias;                    /* how many, at most V */
    float repetition_penalty; /* > 0: positive logits of tokens seen (prompt too) are divided by it, negative
                                 ones multiplied (Keskar et al. 2019); 0 and 1: off */
    float presence_penalty;   /* taken off once from each token generated so far */
    float frequency_penalty;  /* taken off for each time it was generated */
    float temperature;        /* 0: greedy, the most likely token; the smallest id among equals */
    uint32_t top_k;           /* keep the k most likely */
    float top_p;              /* keep the most likely until their probabilities reach p; 0 and 1: off */
    float min_p;              /* keep those at least min_p times as likely as the most likely */
    uint64_t seed; /* 0: drawn at random.  A token depends on (seed, choice, position) and logits */

    bool logprobs;         /* report each token's log-probability: log-softmax of the model's own logits */
    uint32_t top_logprobs; /* and that of this many most likely ones */
    bool prompt_logprobs;  /* events for the prompt's tokens first, the first of them without logprob */
    float *prompt_logits;  /* NULL, or [n prompt tokens, V] to fill; stays the caller's and must live until
                              CINF_EVENT_END */

    uint32_t endpoint;   /* what to count it as: index into the meter's endpoints */
    uint64_t timeout_ns; /* ends it with CINF_FINISH_TIMEOUT this long after submission; 0: never */

    /* Called by the scheduler when an event can be pulled where before there was none.  Must not block and
     * must not call the library.  Not called any more once cinf_request_free() has returned. */
    void (*notify)(void *context);
    void *notify_context; /* handed to it */

    /* While so many events wait to be pulled the request sits out, as if paused (cinf_request_pause()), so
     * that a reader who has stopped reading has nothing computed; 0: no limit.  What one step gives is always
     * taken whole. */
    uint32_t unread_max;
};
#define CINF_REQUEST_OPTIONS .struct_size = sizeof(struct cinf_request_options) /* begins an initializer */

/* A token and its log-probability. */
struct cinf_logprob {
    int32_t token; /* its id */
    float logprob; /* natural logarithm */
};

/* What an event tells. */
enum cinf_event_kind {
    CINF_EVENT_PROMPT, /* a token of the prompt (prompt_logprobs) */
    CINF_EVENT_TOKEN,  /* a token of a choice.  End-of-text and stop strings give none */
    CINF_EVENT_FINISH, /* a choice has ended; `text` is what was still held back */
    CINF_EVENT_END,    /* the request has ended, its report is final; pulled again for ever after */
};

/* One step of a request, as pulled by cinf_request_next(). */
struct cinf_event {
    size_t struct_size;        /* set by CINF_EVENT before the struct is filled */
    enum cinf_event_kind kind; /* which of the fields below mean something */
    uint32_t choice;           /* 0 … n - 1 */
    int32_t token;             /* of CINF_EVENT_PROMPT and CINF_EVENT_TOKEN */
    float logprob;             /* NaN for the first token of a prompt, and where logprobs are not asked for */
    /* Whole UTF-8 that became certain with this token, perhaps none (the rest of a character, or a possible
     * stop string, is still to come).  NUL-terminated.  This and `top` are valid until the next pull. */
    const char *text;
    size_t text_bytes;              /* without the NUL */
    const struct cinf_logprob *top; /* most likely first */
    uint32_t n_top;                 /* top_logprobs, or 0 */
    enum cinf_finish finish;        /* of CINF_EVENT_FINISH and CINF_EVENT_END */
};
#define CINF_EVENT .struct_size = sizeof(struct cinf_event) /* begins an initializer */

struct cinf_request; /* a request from its submission until it is freed */

/* Checks and queues a request.  What the options point to is copied (but prompt_logits).  CINF_EINVAL,
 * CINF_ECONTEXT (prompt longer than the context), CINF_EFULL (queue), CINF_ECLOSED (unloading). */
CINF_API enum cinf_status cinf_request_submit(struct cinf_request **out, struct cinf_model *model,
                                              const struct cinf_request_options *options);

/* The next event, waiting for it at most `timeout_ns` (0: not at all; UINT64_MAX: as long as it takes):
 * CINF_EAGAIN.  One thread at a time pulls from a request. */
CINF_API enum cinf_status cinf_request_next(struct cinf_request *request, uint64_t timeout_ns,
                                            struct cinf_event *event);

/* Ends the request before the next step, as CINF_FINISH_CANCELLED, _CLIENT_GONE or _TIMEOUT.  Returns at
 * once; CINF_EVENT_END follows.  Nothing for one that has ended. */
CINF_API void cinf_request_cancel(struct cinf_request *request, enum cinf_finish why);

/* A paused request stays where it is, in the queue or in its slots, but enters no step and costs nothing; the
 * step that is under way still counts.  For a reader that cannot keep up.  Its deadline goes on, and it can
 * be cancelled.  Returns at once; repeated calls change nothing. */
CINF_API void cinf_request_pause(struct cinf_request *request, bool pause);

/* The report so far, or the final one. */
CINF_API void cinf_request_report(const struct cinf_request *request, struct cinf_report *report);

/* The tokens of the prompt as it is computed; valid while the request is. */
CINF_API const int32_t *cinf_request_prompt(const struct cinf_request *request, uint32_t *n);

/* The seed in use: the options' own, or the one that was drawn, which repeats the texts. */
CINF_API uint64_t cinf_request_seed(const struct cinf_request *request);

/* Why a request ended as CINF_FINISH_FAILED, in one line; "" otherwise. */
CINF_API const char *cinf_request_failure(const struct cinf_request *request);

/* Lets go of the request, cancelling it if it runs.  Accepts NULL. */
CINF_API void cinf_request_free(struct cinf_request *request);

/* ---- Blocking calls ------------------------------------------------------------------------ */

/* One continuation, whole. */
struct cinf_choice {
    char *text;              /* NUL-terminated UTF-8, the continuation alone */
    size_t text_bytes;       /* without the NUL */
    int32_t *ids;            /* [n_ids] without end-of-text and stop strings */
    float *logprobs;         /* [n_ids], or NULL when not asked for */
    uint32_t n_ids;          /* tokens of `text` */
    enum cinf_finish finish; /* why it ended */
};

/* What cinf_generate() gives; all of it is freed by cinf_result_free(). */
struct cinf_result {
    struct cinf_choice *choices; /* [n_choices] */
    uint32_t n_choices;          /* n of the options */
    struct cinf_report report;   /* of the whole request */
};

/* Returning false from it cancels the request. */
typedef bool cinf_text_fn(void *context, uint32_t choice, const char *text, size_t n);

/* Submits and waits.  `on_text` (or NULL) is called on this thread with each piece of text.  A cancelled or
 * timed-out request is CINF_OK with that finish; a failed one gives its status and no result. */
CINF_API enum cinf_status cinf_generate(struct cinf_result **out, struct cinf_model *model,
                                        const struct cinf_request_options *options, cinf_text_fn *on_text,
                                        void *context);
CINF_API void cinf_result_free(struct cinf_result *result); /* accepts NULL */

/* logprobs[i] = log P(ids[i] | ids[0..i)), natural logarithm, i = 1 … n - 1; logprobs[0] is NaN.  n tokens at
 * most the context.  `report` may be NULL. */
CINF_API enum cinf_status cinf_score(struct cinf_model *model, const int32_t *ids, uint32_t n,
                                     float *logprobs, struct cinf_report *report);

/* logits [n, V] of every position. */
CINF_API enum cinf_status cinf_logits(struct cinf_model *model, const int32_t *ids, uint32_t n, float *logits,
                                      struct cinf_report *report);

#ifdef __cplusplus
}
#endif
#endif
