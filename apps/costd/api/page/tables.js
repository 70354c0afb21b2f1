/* tables.js - the table of models, sorted by any column, and the table of the latest requests.  A column is a row of
 * a list here: its title, its value and how the value is shown. */
import { amount, colorOf, priced, served, swatch, theWhole, whole } from "./bill.js";
import { $, el, put } from "./dom.js";
import { clock, count, money, number, percent, quantile, seconds } from "./format.js";
import { state } from "./state.js";

const per1k = (m) => (m.range.output_tokens ? (1000 * served(m)) / m.range.output_tokens : null);

/* A second line of a cell, for what needs no column of its own. */
const under = (text) => el("small", {}, text);
const withReference = (x) =>
    priced() && state.reference > 0 ? [amount(x), under(number(x / state.reference) + " × ref.")] : [amount(x)];

/* ---- Models ---------------------------------------------------------------------------------------- */

const COLUMNS = [
    { key: "name", title: () => "Model", value: (m) => m.name },
    { key: "share", title: () => "Share of " + theWhole(), value: (m) => served(m) / (whole() || 1), show: percent },
    { key: "cost", title: () => "Cost", value: served, show: (x) => (priced() ? money(x) : "no price set") },
    { key: "seconds", title: () => "Device time", value: (m) => m.range.serve_seconds, show: seconds },
    { key: "per1k", title: () => "Per 1K output", value: per1k, show: withReference },
    { key: "requests", title: () => "Requests", value: (m) => m.range.requests, show: count },
    { key: "errors", title: () => "Errors", value: (m) => m.range.errors, show: count },
    {
        key: "input",
        title: () => "Input tokens",
        value: (m) => m.range.input_tokens,
        show: (x, m) => [count(x), under(count(m.range.cached_tokens) + " cached")],
    },
    { key: "output", title: () => "Output tokens", value: (m) => m.range.output_tokens, show: count },
    {
        key: "p95",
        title: () => "Latency p95",
        value: (m) => m.latency && m.latency.p95,
        show: (x, m) => [quantile(x), under("p50 " + quantile(m.latency.p50))],
    },
    { key: "first", title: () => "First token p95", value: (m) => m.first_token && m.first_token.p95, show: quantile },
    { key: "load", title: () => "Loading", value: (m) => m.range.load_seconds, show: seconds },
];

const sort = { key: "share", down: true };

function sortBy(key) {
    sort.down = sort.key === key ? !sort.down : key !== "name";
    sort.key = key;
    showModels();
}

/* A value that is not known comes last, whichever way the column is sorted. */
function compare(x, y) {
    if (x === y) return 0;
    if (x == null || y == null) return x == null ? 1 : -1;
    return x < y === sort.down ? 1 : -1;
}

function heads() {
    return COLUMNS.map((c) =>
        el("th", { scope: "col", "data-key": c.key }, el("button", { type: "button", onclick: () => sortBy(c.key) })),
    );
}

function showHead(th) {
    const title = COLUMNS.find((c) => c.key === th.dataset.key).title();
    if (th.dataset.key !== sort.key) {
        th.setAttribute("aria-sort", "none");
        put(th.firstChild, title);
        return;
    }
    th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    put(th.firstChild, title + (sort.down ? " ▼" : " ▲"));
}

function nameCell(m) {
    return el(
        "th",
        { scope: "row", class: "name", title: m.name },
        swatch(null, colorOf(m.name)),
        m.name + (m.loaded ? "" : " (unloaded)"),
    );
}

function cell(column, m) {
    if (column.key === "name") return nameCell(m);
    const x = column.value(m);
    const bad = column.key === "errors" && x > 0;
    return el("td", { class: bad ? "bad-text" : null }, ...[x == null ? "–" : column.show(x, m)].flat());
}

const emptyRow = (columns, text) => el("tr", {}, el("td", { class: "none", colspan: columns }, text));

export function showModels() {
    const table = $("models"),
        head = table.tHead.rows[0];
    if (!head.cells.length) head.append(...heads());
    for (const th of head.cells) showHead(th);
    const by = COLUMNS.find((c) => c.key === sort.key);
    const models = [...state.data.models].sort((a, b) => compare(by.value(a), by.value(b)));
    const rows = models.map((m) => el("tr", {}, ...COLUMNS.map((c) => cell(c, m))));
    table.tBodies[0].replaceChildren(...(rows.length ? rows : [emptyRow(COLUMNS.length, "No model is loaded yet.")]));
}

/* ---- Requests -------------------------------------------------------------------------------------- */

const failed = (r) => r.finish !== "stop" && r.finish !== "length";
const withCached = (r) => count(r.input_tokens) + (r.cached_tokens ? " (" + count(r.cached_tokens) + ")" : "");

const REQUEST_COLUMNS = [
    { title: "Ended", show: (r) => [clock(r.ended), under(r.id)] },
    { title: "Model", show: (r) => [r.model, under(r.endpoint)], hint: (r) => r.model, class: () => "text name" },
    { title: "Input tokens (cached)", show: withCached },
    { title: "Output tokens", show: (r) => count(r.output_tokens) },
    { title: "Queue", show: (r) => seconds(r.queue_seconds) },
    { title: "Prefill", show: (r) => seconds(r.prefill_seconds) },
    { title: "Decode", show: (r) => seconds(r.decode_seconds) },
    { title: "Latency", show: (r) => seconds(r.latency_seconds) },
    {
        title: "Cost",
        show: (r) => (r.cost == null ? "no price set" : money(+r.cost)),
        hint: (r) => (r.cost == null ? null : "$" + r.cost),
    },
    {
        title: "Finish",
        show: (r) => r.finish.replace("_", " "),
        class: (r) => "text" + (r && failed(r) ? " bad-text" : ""),
    },
    { title: "Status", show: (r) => String(r.status) },
];

/* `r`: a request, or null for the head. */
const classOf = (column, r) => (column.class ? column.class(r) : null);

export function showRecent() {
    const table = $("recent"),
        head = table.tHead.rows[0];
    if (!head.cells.length)
        head.append(...REQUEST_COLUMNS.map((c) => el("th", { scope: "col", class: classOf(c, null) }, c.title)));
    const rows = state.recent.map((r) =>
        el(
            "tr",
            {},
            ...REQUEST_COLUMNS.map((c) =>
                el("td", { class: classOf(c, r), title: c.hint ? c.hint(r) : null }, ...[c.show(r)].flat()),
            ),
        ),
    );
    table.tBodies[0].replaceChildren(
        ...(rows.length ? rows : [emptyRow(REQUEST_COLUMNS.length, "No request has ended yet.")]),
    );
}
