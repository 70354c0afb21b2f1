/* pattern_match.c - a backtracking machine runs the program of a pattern.
 *
 * Backtracking gives what Oniguruma gives, the first alternative that matches, and so does everything that
 * trained with it.  Its price is patterns that take a time exponential in the text: the machine counts its
 * steps and fails at a bound that is linear in the text.  A quantifier on one character is one instruction
 * with one entry on the stack, however far it runs. */
#include "pattern_impl.h"

#include "fail.h"
#include "mem.h"
#include "utf8.h"

/* Steps that a search may take: for each byte, and to begin with. */
#define STEPS_PER_BYTE 4096u
#define STEPS_FIRST    (1u << 22)

/* Where to continue when a choice fails. */
struct pattern_choice {
    enum { CHOICE_OTHER, CHOICE_FEWER, CHOICE_MORE } is;
    int32_t pc;
    int32_t left;   /* CHOICE_MORE: how many more there may be */
    size_t at, low; /* CHOICE_FEWER: where the repetition has got to, and the least */
};

/* Returns the character at text[at], at < n, and its length. */
static uint32_t character_at(const struct pattern_search *s, size_t at, size_t *used)
{
    unsigned char first = (unsigned char)s->text[at];
    *used = 1;
    if (first < 128)
        return first;
    uint32_t c = utf8_read(s->text + at, s->n - at, used);
    if (c == UTF8_BAD)
        *used = 1;
    return c;
}

/* Returns the character before text[at], at > 0, and its length. It cuts as character_at() does. */
static uint32_t character_before(const struct pattern_search *s, size_t at, size_t *used)
{
    for (size_t n = 1; n <= 4 && n <= at; n++) {
        uint32_t c = character_at(s, at - n, used);
        if (*used == n && (c != UTF8_BAD || n > 1))
            return c;
    }
    *used = 1;
    return UTF8_BAD;
}

static bool word_at(const struct pattern_search *s, size_t at)
{
    size_t used;
    return at < s->n && pattern_is_word(s->pattern, character_at(s, at, &used));
}

static bool word_before(const struct pattern_search *s, size_t at)
{
    size_t used;
    return at > 0 && pattern_is_word(s->pattern, character_before(s, at, &used));
}

/* Whether an instruction that takes nothing holds at text[at]. */
static bool holds(const struct pattern_search *s, const struct instruction *i, size_t at)
{
    size_t used;
    switch (i->is) {
    case OP_BEHIND:
        return (at > 0 && pattern_class_holds(s->pattern, (uint32_t)i->a, character_before(s, at, &used))) ==
               !i->b;
    case OP_LINE_START:
        return at == 0 || (s->text[at - 1] == '\n' && at < s->n);
    case OP_LINE_END:
        return at == s->n || s->text[at] == '\n';
    case OP_TEXT_START:
        return at == 0;
    case OP_TEXT_END:
        return at == s->n;
    case OP_LAST_LINE_END:
        return at == s->n || (at + 1 == s->n && s->text[at] == '\n');
    default:
        return (word_at(s, at) != word_before(s, at)) == !i->b;
    }
}

static enum cinf_status push(struct pattern_search *s, struct pattern_choice choice)
{
    if (!mem_reserve(&s->choices, &s->choices_cap, s->n_choices + 1, sizeof *s->choices))
        return cinf_fail(CINF_ENOMEM, "no memory to match the pattern \"%.200s\"", s->pattern->expression);
    s->choices[s->n_choices++] = choice;
    return CINF_OK;
}

/* Takes back the last choice of choices[base...); *chosen is false when none is left. */
static enum cinf_status choose_again(struct pattern_search *s, size_t base, bool *chosen, int32_t *pc,
                                     size_t *at)
{
    size_t used;
    while (s->n_choices > base) {
        struct pattern_choice *c = &s->choices[s->n_choices - 1];
        const struct instruction *i = &s->pattern->program[c->pc];
        *chosen = true;
        if (c->is == CHOICE_OTHER) {
            *pc = c->pc;
            *at = c->at;
            s->n_choices--;
            return CINF_OK;
        }
        *pc = c->pc + 1;
        if (c->is == CHOICE_FEWER) {
            character_before(s, c->at, &used);
            *at = c->at -= used;
            s->n_choices -= c->at == c->low;
            return CINF_OK;
        }
        if (c->left > 0 && c->at < s->n &&
            pattern_class_holds(s->pattern, (uint32_t)i->a, character_at(s, c->at, &used))) {
            *at = c->at += used;
            c->left--;
            return CINF_OK;
        }
        s->n_choices--;
    }
    *chosen = false;
    return CINF_OK;
}

/* Runs a repetition from *at; *good when there are enough. */
static enum cinf_status repeat(struct pattern_search *s, int32_t pc, size_t *at, bool *good)
{
    const struct instruction *i = &s->pattern->program[pc];
    int32_t most = i->how == LAZY ? i->low : i->high, n = 0;
    size_t used, low = *at;
    for (; n < most && *at < s->n &&
           pattern_class_holds(s->pattern, (uint32_t)i->a, character_at(s, *at, &used));
         n++) {
        *at += used;
        if (n + 1 == i->low)
            low = *at;
    }
    s->steps += (uint64_t)n;
    *good = n >= i->low;
    if (!*good || i->how == POSSESSIVE)
        return CINF_OK;
    if (i->how == LAZY)
        return push(s, (struct pattern_choice){ CHOICE_MORE, pc, i->high - i->low, *at, 0 });
    return *at > low ? push(s, (struct pattern_choice){ CHOICE_FEWER, pc, 0, *at, low }) : CINF_OK;
}

/* Runs the program from `pc` at text[at]; *matched, and then *end. */
static enum cinf_status run(struct pattern_search *s, int32_t pc, size_t at, bool *matched,
                            size_t *end) /* NOLINT(misc-no-recursion) */
{
    const struct pattern *p = s->pattern;
    size_t base = s->n_choices, used, inner_end;
    bool inner;
    for (;;) {
        const struct instruction *i = &p->program[pc];
        bool good = true;
        if (++s->steps > STEPS_FIRST + (uint64_t)STEPS_PER_BYTE * s->n)
            return cinf_fail(CINF_EINVAL,
                             "the pattern \"%.200s\" takes more than %u steps a byte of this text",
                             p->expression, STEPS_PER_BYTE);
        switch (i->is) {
        case OP_MATCH:
            s->n_choices = base;
            *matched = true;
            *end = at;
            return CINF_OK;
        case OP_CLASS:
        case OP_LITERAL:
            good = at < s->n;
            if (good) {
                uint32_t c = character_at(s, at, &used);
                good = i->is == OP_LITERAL ? c == (uint32_t)i->a : pattern_class_holds(p, (uint32_t)i->a, c);
                at += used;
            }
            pc++;
            break;
        case OP_REPEAT:
            TRY(repeat(s, pc, &at, &good));
            pc++;
            break;
        case OP_SPLIT:
            TRY(push(s, (struct pattern_choice){ CHOICE_OTHER, pc + i->b, 0, at, 0 }));
            pc += i->a;
            break;
        case OP_JUMP:
            pc += i->a;
            break;
        case OP_LOOK:
            TRY(run(s, pc + 1, at, &inner, &inner_end));
            good = i->b == LOOK_NOT ? !inner : inner;
            if (good && i->b == LOOK_ATOMIC)
                at = inner_end;
            pc += i->a;
            break;
        default:
            good = holds(s, i, at);
            pc++;
        }
        if (!good) {
            TRY(choose_again(s, base, &good, &pc, &at));
            if (!good) {
                *matched = false;
                return CINF_OK;
            }
        }
    }
}

enum cinf_status pattern_next(struct pattern_search *s, bool *found, size_t *start, size_t *end)
{
    *found = false;
    for (size_t used; s->at <= s->n; s->at += used) {
        bool matched;
        used = 1;
        if (s->at < s->n)
            character_at(s, s->at, &used);
        TRY(run(s, 0, s->at, &matched, end));
        /* An empty text where the last match ends is not a match of its own. */
        if (!matched || (*end == s->at && s->any && *end == s->last_end))
            continue;
        *start = s->at;
        s->at = s->last_end = *end;
        s->any = *found = true;
        return CINF_OK;
    }
    return CINF_OK;
}

void pattern_search_free(struct pattern_search *s)
{
    mem_free(s->choices);
    s->choices = NULL;
    s->n_choices = s->choices_cap = 0;
}
