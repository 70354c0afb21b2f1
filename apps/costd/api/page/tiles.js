/* tiles.js - single figures of the range: money beside the answer, then tokens, latency, requests and memory.  Among
 * several models the slowest one stands for latency, because a client waited for it. */
import { amount, amountOf, deviceSeconds, perDay, priced, theWhole } from "./bill.js";
import { $, el } from "./dom.js";
import { bytes, count, money, number, percent, quantile, seconds, span } from "./format.js";
import { RANGES, state } from "./state.js";

function tile(title, value, unit, ...notes) {
    return el(
        "div",
        { class: "tile" },
        el("h3", {}, title),
        el("div", { class: "value" }, value, unit ? el("small", {}, " " + unit) : null),
        ...notes.filter((n) => n !== null).map((n) => (typeof n === "string" ? el("p", {}, n) : n)),
    );
}

const sum = (pick) => state.data.models.reduce((s, m) => s + pick(m), 0);
const sumOf = (key) => sum((m) => m.range[key]);

/* ---- Money ---------------------------------------------------------------------------------------- */

function billTile() {
    const { range_total: total, since_start: all, uptime_seconds: uptime } = state.data;
    if (!priced())
        return tile(
            "Bill, " + RANGES[state.range],
            "no price set",
            "",
            "start costd with --cpu-cost-per-hour or --gpu-cost-per-hour",
        );
    return tile(
        "Bill, " + RANGES[state.range],
        money(+total.cost),
        "",
        money(+all.cost) + " since the start, " + span(uptime) + " ago",
        total.unpriced_seconds > 0 ? seconds(total.unpriced_seconds) + " without a price are not included" : null,
    );
}

/* The whole bill of a device that is paid by the hour is price × 24 whatever is served, so it is not the forecast. */
function forecastTile() {
    const total = state.data.range_total,
        all = deviceSeconds(total),
        served = total.serve_seconds;
    if (!priced())
        return tile("Serving", percent(served / all), "of the time", seconds(served) + " of " + seconds(all));
    const pace = perDay(total.serve_cost);
    return tile(
        "Serving, at this pace",
        money(pace),
        "a day",
        money(pace * 30) + " in 30 days",
        money(perDay(total.cost)) + " a day with the rest of the bill",
    );
}

function budgetTile() {
    const budget = state.data.daily_budget;
    if (!budget || !priced()) {
        const flag = el("p", {}, "set one with ", el("span", { class: "nowrap" }, "--daily-budget"));
        return tile("Daily budget", "none", "", flag);
    }
    /* It bounds what the models used, without idle time, as the alerts of dashboards/ do. */
    const spent = +state.data.day_total.serve_cost,
        used = spent / +budget,
        pace = perDay(state.data.range_total.serve_cost);
    return tile(
        "Daily budget",
        percent(used),
        "used",
        el(
            "div",
            { class: "meter" + (used > 1 ? " over" : "") },
            el("div", { style: { width: Math.min(100, 100 * used) + "%" } }),
        ),
        money(spent) + " of " + money(+budget) + " for serving in 24 h; at this pace " + percent(pace / +budget),
    );
}

/* ---- Work ----------------------------------------------------------------------------------------- */

function tokenCostTile() {
    const total = state.data.range_total,
        output = sumOf("output_tokens");
    if (!output) return tile("Per 1K output tokens", "–", "", "no tokens in this range");
    const serving = (1000 * amountOf(total.serve_cost, total.serve_seconds)) / output,
        all = (1000 * amountOf(total.cost, deviceSeconds(total))) / output,
        compared = priced() && state.reference > 0;
    return tile(
        "Per 1K output tokens",
        amount(serving),
        "",
        amount(all) + " with the rest of " + theWhole(),
        compared ? number(all / state.reference) + " × the reference " + money(state.reference) : null,
    );
}

function tokensTile() {
    const covered = state.data.covered_seconds || 1,
        output = sumOf("output_tokens");
    return tile(
        "Output tokens",
        number(output / covered),
        "a second",
        number(sumOf("input_tokens") / covered) + " input tokens a second, " + count(output) + " output in all",
    );
}

function slowest(key) {
    const timed = state.data.models.filter((m) => m[key]);
    return timed.length ? timed.reduce((w, m) => (m[key].p95 > w[key].p95 ? m : w)) : null;
}

function latencyTile() {
    const slow = slowest("latency"),
        first = slowest("first_token");
    if (!slow) return tile("Latency p95", "–", "", "no request ended in this range");
    return tile(
        "Latency p95",
        quantile(slow.latency.p95),
        "",
        "p50 " + quantile(slow.latency.p50) + ", " + slow.name,
        first ? "first token p95 " + quantile(first.first_token.p95) : null,
    );
}

function requestsTile() {
    const requests = sumOf("requests"),
        errors = sumOf("errors");
    const share = errors ? " (" + percent(errors / (requests + errors)) + ")" : "";
    return tile(
        "Requests",
        count(requests),
        "",
        count(errors) + (errors === 1 ? " error" : " errors") + share,
        sum((m) => m.running) + " running, " + sum((m) => m.waiting) + " waiting",
    );
}

function memoryTile() {
    const d = state.data.device;
    if (d.gpu)
        return tile(
            "GPU memory",
            bytes(d.memory_used_bytes),
            "",
            "of " + bytes(d.memory_total_bytes),
            "process " + bytes(d.process_bytes),
        );
    return tile(
        "Memory",
        bytes(d.process_bytes),
        "",
        "resident; weights and caches " + bytes(d.memory_used_bytes),
        d.memory_total_bytes ? "machine " + bytes(d.memory_total_bytes) : null,
    );
}

export function showTiles() {
    $("money").replaceChildren(billTile(), forecastTile(), budgetTile());
    $("tiles").replaceChildren(tokenCostTile(), tokensTile(), latencyTile(), requestsTile(), memoryTile());
}
