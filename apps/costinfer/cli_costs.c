/* cli_costs.c - who used the machine in a period, out of one ledger or several.
 *
 * Printed amounts have 12 decimals.  They are rounded so that the lines add up to the printed total: each is
 * cut, and what is missing goes to the lines that lost most. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cli_ledger.h"
#include "mem.h"
#include "u128.h"

#define SECOND_NS      UINT64_C(1000000000)
#define UNITS_PER_PICO UINT64_C(3600000000)
#define DAY_SECONDS    INT64_C(86400)

enum format { FORMAT_TABLE, FORMAT_JSON, FORMAT_JSONL, FORMAT_CSV };

struct question {
    const char *ledger, *since, *until, *month, *by, *idle, *format;
    struct cinf_ledger_query query;
    const char *names[CINF_LEDGER_BY_MAX];
    char by_text[512];
    enum format how;
};

/* ---- Times ------------------------------------------------------------------------------------- */

/* Days from 1970-01-01 to a date of the Gregorian calendar. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool month_of(int64_t *first, int64_t *next, const char *text)
{
    int year, month, used = 0;
    if (strlen(text) != 7 || sscanf(text, "%4d-%2d%n", &year, &month, &used) != 2 || used != 7 ||
        year < 1970 || month < 1 || month > 12)
        return false;
    *first = days_of(year, month, 1) * DAY_SECONDS;
    *next = days_of(month == 12 ? year + 1 : year, month == 12 ? 1 : month + 1, 1) * DAY_SECONDS;
    return true;
}

/* 2026-10-01, 2026-10-01T12:30 with or without Z, or so long ago: 30m, 24h, 7d. */
static bool moment_of(uint64_t *ns, const char *text)
{
    int year, month, day, hour = 0, minute = 0, used = 0;
    unsigned ago;
    char unit = 0;
    int64_t seconds;
    if (sscanf(text, "%6u%c%n", &ago, &unit, &used) == 2 && !text[used] && strchr("mhd", unit)) {
        seconds = (int64_t)time(NULL) - (int64_t)ago * (unit == 'm' ? 60 : unit == 'h' ? 3600 : DAY_SECONDS);
    } else {
        used = 0;
        if (sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &used) != 3 || used != 10)
            return false;
        if (text[used] == 'T') {
            int more = 0;
            if (sscanf(text + used, "T%2d:%2d%n", &hour, &minute, &more) != 2 || more != 6)
                return false;
            used += more;
        }
        used += text[used] == 'Z';
        if (text[used] || year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 ||
            hour > 23 || minute < 0 || minute > 59)
            return false;
        seconds = days_of(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60;
    }
    *ns = seconds > 0 ? (uint64_t)seconds * SECOND_NS : 0;
    return true;
}

/* ---- Amounts ----------------------------------------------------------------------------------- */

static u128 units_of(const struct cinf_ledger_line *line)
{
    struct cinf_cost all = cinf_cost_add(line->cost, line->idle_cost);
    return (u128)all.hi << 64 | all.lo;
}

/* Picodollars of each line, without their sign, that add up to the rounded total. */
static bool round_lines(u128 *pico, const struct cinf_ledger_sum *sum)
{
    u128 all = (u128)sum->cost.hi << 64 | sum->cost.lo;
    u128 target = all / UNITS_PER_PICO + (all % UNITS_PER_PICO >= UNITS_PER_PICO / 2), given = 0;
    bool *raised = mem_new(sum->n_lines, sizeof *raised);
    if (!raised)
        return false;
    for (uint32_t i = 0; i < sum->n_lines; i++) {
        pico[i] = units_of(&sum->lines[i]) / UNITS_PER_PICO;
        given += sum->lines[i].negative ? -pico[i] : pico[i];
    }
    while (given != target) {
        bool too_much = given - target < (u128)1 << 127; /* a line to be subtracted makes up for it */
        uint32_t best = sum->n_lines;
        u128 most = 0;
        for (uint32_t i = 0; i < sum->n_lines; i++) {
            u128 rest = units_of(&sum->lines[i]) % UNITS_PER_PICO + 1;
            if (!raised[i] && sum->lines[i].negative == too_much && rest > most) {
                best = i;
                most = rest;
            }
        }
        if (best == sum->n_lines)
            break;
        raised[best] = true;
        pico[best]++;
        given += too_much ? -(u128)1 : 1;
    }
    mem_free(raised);
    return true;
}

static const char *pico_text(char text[CINF_COST_TEXT_MAX], u128 pico)
{
    u128 units = pico * UNITS_PER_PICO;
    return cinf_cost_format(text, (struct cinf_cost){ (uint64_t)(units >> 64), (uint64_t)units });
}

/* ---- Machines' formats ---------------------------------------------------------------------------- */

static void put_line(struct json_writer *w, const struct question *q, const struct cinf_ledger_line *line,
                     u128 pico)
{
    char text[CINF_COST_TEXT_MAX];
    const char *sign = line->negative ? "-" : "";
    json_open_object(w, NULL);
    json_put_text(w, "kind", line->kind);
    for (uint32_t k = 0; k < q->query.n_by; k++)
        json_put_text(w, q->names[k], line->keys[k]);
    json_put_u64(w, "requests", line->requests);
    json_put_u64(w, "input_tokens", line->input_tokens);
    json_put_u64(w, "cached_tokens", line->cached_tokens);
    json_put_u64(w, "output_tokens", line->output_tokens);
    json_put_format(w, "device_ns", "%s%" PRIu64, line->device_ns ? sign : "", line->device_ns);
    json_put_format(w, "unpriced_ns", "%s%" PRIu64, line->unpriced_ns ? sign : "", line->unpriced_ns);
    json_put_format(w, "cost_dollars", "\"%s%s\"", sign, pico_text(text, pico));
    json_close(w);
}

static void put_json(struct strbuf *out, const struct question *q, const struct cinf_ledger_sum *sum,
                     const u128 *pico)
{
    struct json_writer w = json_write_to(out);
    char text[CINF_COST_TEXT_MAX];
    json_open_object(&w, NULL);
    json_put_u64(&w, "since_ns", q->query.since_ns);
    if (q->query.until_ns)
        json_put_u64(&w, "until_ns", q->query.until_ns);
    else
        json_put_null(&w, "until_ns");
    json_put_text(&w, "idle", q->idle);
    json_put_u64(&w, "requests", sum->requests);
    json_put_u64(&w, "device_ns", sum->device_ns);
    json_put_u64(&w, "unpriced_ns", sum->unpriced_ns);
    json_put_text(&w, "cost_dollars", cinf_cost_format(text, sum->cost));
    json_open_array(&w, "lines");
    for (uint32_t i = 0; i < sum->n_lines; i++) {
        json_new_line(&w);
        put_line(&w, q, &sum->lines[i], pico[i]);
    }
    json_new_line(&w);
    json_close(&w);
    json_close(&w);
}

static void put_jsonl(struct strbuf *out, const struct question *q, const struct cinf_ledger_sum *sum,
                      const u128 *pico)
{
    for (uint32_t i = 0; i < sum->n_lines; i++) {
        struct json_writer w = json_write_to(out);
        if (i > 0)
            strbuf_putc(out, '\n');
        put_line(&w, q, &sum->lines[i], pico[i]);
    }
}

/* RFC 4180. */
static void put_field(struct strbuf *out, const char *text)
{
    strbuf_putc(out, ',');
    if (!text)
        return;
    bool quote = strpbrk(text, ",\"\r\n") != NULL;
    if (quote)
        strbuf_putc(out, '"');
    for (; *text; text++) {
        if (*text == '"')
            strbuf_putc(out, '"');
        strbuf_putc(out, *text);
    }
    if (quote)
        strbuf_putc(out, '"');
}

static void put_csv(struct strbuf *out, const struct question *q, const struct cinf_ledger_sum *sum,
                    const u128 *pico)
{
    char text[CINF_COST_TEXT_MAX];
    strbuf_puts(out, "kind");
    for (uint32_t k = 0; k < q->query.n_by; k++)
        put_field(out, q->names[k]);
    strbuf_puts(out, ",requests,input_tokens,cached_tokens,output_tokens,device_ns,unpriced_ns,cost_dollars");
    for (uint32_t i = 0; i < sum->n_lines; i++) {
        const struct cinf_ledger_line *line = &sum->lines[i];
        const char *sign = line->negative ? "-" : "";
        strbuf_printf(out, "\n%s", line->kind);
        for (uint32_t k = 0; k < q->query.n_by; k++)
            put_field(out, line->keys[k]);
        strbuf_printf(out,
                      ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s%" PRIu64 ",%s%" PRIu64 ",%s%s",
                      line->requests, line->input_tokens, line->cached_tokens, line->output_tokens,
                      line->device_ns ? sign : "", line->device_ns, line->unpriced_ns ? sign : "",
                      line->unpriced_ns, sign, pico_text(text, pico[i]));
    }
}

/* ---- The table ------------------------------------------------------------------------------------- */

enum { NAME_WIDTH = 28, BAR_WIDTH = 20 };

static void put_name(struct strbuf *out, const struct question *q, const struct cinf_ledger_line *line)
{
    struct strbuf name = { 0 };
    bool serve = strcmp(line->kind, "serve") == 0;
    if (!serve)
        strbuf_printf(&name, "(%s)", line->kind);
    for (uint32_t k = 0; k < q->query.n_by; k++) {
        if (!line->keys[k] && !serve)
            continue;
        if (name.len > 0)
            strbuf_puts(&name, serve ? " / " : " ");
        put_printable(&name, line->keys[k] ? line->keys[k] : "-");
    }
    if (name.len == 0)
        strbuf_puts(&name, "(serve)");
    int width = NAME_WIDTH;
    for (size_t i = 0; i < name.len; i++)
        width += ((unsigned char)name.text[i] & 0xc0) == 0x80; /* columns are characters, not bytes */
    strbuf_printf(out, "%-*s", width, name.text ? name.text : "");
    strbuf_free(&name);
}

/* Of the cost; without prices, of the time. */
static double share_of(const struct cinf_ledger_sum *sum, const struct cinf_ledger_line *line)
{
    double whole = cinf_cost_dollars(sum->cost);
    double part = cinf_cost_dollars(cinf_cost_add(line->cost, line->idle_cost));
    if (whole == 0) {
        whole = (double)sum->device_ns;
        part = (double)line->device_ns;
    }
    return whole > 0 ? (line->negative ? -part : part) / whole : 0;
}

static void put_row(struct strbuf *out, uint64_t requests, uint64_t input, uint64_t output, bool negative,
                    uint64_t ns, const char *cost)
{
    struct strbuf time = { 0 };
    if (negative && ns)
        strbuf_putc(&time, '-');
    put_duration(&time, ns);
    strbuf_printf(out, " %9" PRIu64 " %11" PRIu64 " %11" PRIu64 " %16s %18s", requests, input, output,
                  time.text ? time.text : "", cost);
    strbuf_free(&time);
}

static void put_table(struct strbuf *out, const struct question *q, const struct cinf_ledger_sum *sum,
                      const u128 *pico, uint32_t n_ledgers)
{
    char text[CINF_COST_TEXT_MAX], cost[CINF_COST_TEXT_MAX + 2];
    uint64_t input = 0, output = 0;
    if (q->query.since_ns)
        put_minute(out, q->query.since_ns);
    else
        strbuf_puts(out, "the first row");
    strbuf_puts(out, " to ");
    if (q->query.until_ns)
        put_minute(out, q->query.until_ns);
    else
        strbuf_puts(out, "now");
    strbuf_printf(out, " (UTC), %" PRIu32 " ledger%s\n\n", n_ledgers, n_ledgers == 1 ? "" : "s");
    strbuf_printf(out, "%-*s %9s %11s %11s %16s %18s %8s\n", NAME_WIDTH, q->by ? q->by : "", "requests",
                  "tokens in", "tokens out", "device time", "cost", "share");
    for (uint32_t i = 0; i < sum->n_lines; i++) {
        const struct cinf_ledger_line *line = &sum->lines[i];
        double share = share_of(sum, line);
        snprintf(cost, sizeof cost, "%s$%s", line->negative ? "-" : "", pico_text(text, pico[i]));
        put_name(out, q, line);
        put_row(out, line->requests, line->input_tokens, line->output_tokens, line->negative, line->device_ns,
                cost);
        strbuf_printf(out, " %6.1f %% ", 100 * share);
        for (int b = 0; b < (int)(share * BAR_WIDTH + 0.5) && b < BAR_WIDTH; b++)
            strbuf_puts(out, "█");
        while (out->len > 0 && out->text[out->len - 1] == ' ')
            out->text[--out->len] = '\0';
        strbuf_putc(out, '\n');
        input += line->input_tokens;
        output += line->output_tokens;
    }
    snprintf(cost, sizeof cost, "$%s", cinf_cost_format(text, sum->cost));
    strbuf_printf(out, "%-*s", NAME_WIDTH, "total");
    put_row(out, sum->requests, input, output, false, sum->device_ns, cost);
    strbuf_printf(out, " %6.1f %%", sum->n_lines ? 100.0 : 0.0);
    if (sum->unpriced_ns) {
        strbuf_puts(out, "\n\nNo price was known for ");
        put_duration(out, sum->unpriced_ns);
        strbuf_puts(out, " of the device's time.");
    }
}

/* ---- The command ------------------------------------------------------------------------------------ */

static int read_question(struct question *q, const struct command *self)
{
    static const char *const formats[] = { "table", "json", "jsonl", "csv" };
    int64_t first, next;
    q->query = (struct cinf_ledger_query){ CINF_LEDGER_QUERY, .by = q->names };
    if (q->month && (q->since || q->until))
        return usage_error(self, "--month goes without --since and --until");
    if (q->month && !month_of(&first, &next, q->month))
        return usage_error(self, "--month must be a month such as 2026-10");
    if (q->month) {
        q->query.since_ns = (uint64_t)first * SECOND_NS;
        q->query.until_ns = (uint64_t)next * SECOND_NS;
    }
    if (q->since && !moment_of(&q->query.since_ns, q->since))
        return usage_error(self, "--since must be 2026-10-01, 2026-10-01T12:30, or 30m, 24h or 7d ago");
    if (q->until && !moment_of(&q->query.until_ns, q->until))
        return usage_error(self, "--until must be 2026-10-01, 2026-10-01T12:30, or 30m, 24h or 7d ago");
    if (q->query.until_ns && q->query.until_ns <= q->query.since_ns)
        return usage_error(self, "--until must be after --since");
    if (strcmp(q->idle, "usage") == 0)
        q->query.idle = CINF_LEDGER_IDLE_USAGE;
    else if (strcmp(q->idle, "none") != 0)
        return usage_error(self, "--idle must be none or usage");
    bool known = false;
    for (int f = 0; f < 4; f++) {
        if (strcmp(q->format, formats[f]) == 0) {
            q->how = (enum format)f;
            known = true;
        }
    }
    if (!known)
        return usage_error(self, "--format must be table, json, jsonl or csv");
    if (!q->by)
        return FLAGS_GO;
    if (strlen(q->by) >= sizeof q->by_text)
        return usage_error(self, "--by is too long");
    strcpy(q->by_text, q->by);
    for (char *at = q->by_text, *comma; at; at = comma) {
        comma = strchr(at, ',');
        if (comma)
            *comma++ = '\0';
        if (q->query.n_by == CINF_LEDGER_BY_MAX)
            return usage_error(self, "--by takes at most four names");
        q->names[q->query.n_by++] = at;
    }
    return FLAGS_GO;
}

static int answer(const struct question *q, const struct ledger_paths *ledgers)
{
    struct cinf_ledger_sum sum = { CINF_LEDGER_SUM };
    struct strbuf out = { 0 };
    if (cinf_ledger_costs(&sum, (const char *const *)ledgers->paths, ledgers->n, &q->query) != CINF_OK)
        return fail_last();
    int status;
    u128 *pico = mem_new(sum.n_lines, sizeof *pico);
    if (!pico || !round_lines(pico, &sum)) {
        status = fail_with("no memory for %" PRIu32 " lines", sum.n_lines);
    } else {
        if (q->how == FORMAT_JSON)
            put_json(&out, q, &sum, pico);
        else if (q->how == FORMAT_JSONL)
            put_jsonl(&out, q, &sum, pico);
        else if (q->how == FORMAT_CSV)
            put_csv(&out, q, &sum, pico);
        else
            put_table(&out, q, &sum, pico, ledgers->n);
        status = out.len > 0 || out.failed ? print_document(&out) : 0;
    }
    mem_free(pico);
    strbuf_free(&out);
    cinf_ledger_sum_free(&sum);
    return status;
}

static int run(const struct command *self, int argc, char **argv)
{
    struct question q = { .idle = "none", .format = "table" };
    const struct flag flags[] = {
        LEDGER_FLAG(&q.ledger),
        { "since", FLAG_TEXT, &q.since, 0, 0, "TIME",
          "The beginning, in UTC: 2026-10-01, 2026-10-01T12:30, or 30m, 24h or 7d ago (default: the\n"
          "first row)." },
        { "until", FLAG_TEXT, &q.until, 0, 0, "TIME", "The end, exclusive, likewise (default: now)." },
        { "month", FLAG_TEXT, &q.month, 0, 0, "YYYY-MM", "A whole month, in UTC." },
        { "by", FLAG_TEXT, &q.by, 0, 0, "NAMES",
          "Up to four of model, payer, user, endpoint and tag:NAME, with commas between." },
        { "idle", FLAG_TEXT, &q.idle, 0, 0, "POLICY",
          "Time without work: none (default) shows it as lines of its own; usage adds its cost to the\n"
          "lines of requests in proportion to their time." },
        { "format", FLAG_TEXT, &q.format, 0, 0, "FORMAT", "table (default), json, jsonl or csv." },
    };
    int status = flags_parse(self, flags, N_FLAGS(flags), argc, argv, NULL);
    if (status == FLAGS_GO)
        status = read_question(&q, self);
    if (status != FLAGS_GO)
        return status;
    struct ledger_paths ledgers;
    if (!ledger_paths_find(&ledgers, q.ledger))
        return 1;
    status = answer(&q, &ledgers);
    ledger_paths_free(&ledgers);
    return status;
}

const struct command command_costs = {
    .name = "costs",
    .summary = "who used the machine in a period, out of ledgers",
    .synopsis = "[--ledger FILE|DIR] [--month YYYY-MM] [--by NAMES] ...",
    .manual =
        "Sums what ledgers hold.  The lines add up to what the machine cost in the period, to the last\n"
        "printed digit.  Grouped by model and payer, time belongs to the period in which it passed;\n"
        "grouped by user, endpoint or tag, a request belongs to the period in which it ended, and the\n"
        "line (elsewhen) is what was served in the period to requests that ended outside of it, less\n"
        "the reverse.\n",
    .run = run,
};
