/* export.js - the figures as files: the range's samples as CSV, and everything that costd answered as JSON. */
import { accounts } from "./bill.js";
import { el } from "./dom.js";
import { state } from "./state.js";

function save(name, type, text) {
    const a = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    document.body.append(a);
    a.click();
    a.remove();
    setTimeout(() => URL.revokeObjectURL(a.href), 10000);
}

const MODEL_POINTS = [
    "serve_seconds",
    "serve_cost",
    "input_tokens",
    "output_tokens",
    "requests",
    "errors",
    "waiting",
    "latency_p50",
    "latency_p95",
    "first_token_p50",
    "first_token_p95",
];

/* Spreadsheets run a cell that begins with one of these as a formula; an apostrophe makes it text. */
const quote = (s) => '"' + (/^[=+\-@\t\r]/.test(s) ? "'" : "") + s.replace(/"/g, '""') + '"';

function csv() {
    const { models, points, times } = state.data;
    const lines = [["time", "model", ...MODEL_POINTS].join(",")];
    const row = (t, name, values) =>
        lines.push([new Date(t * 1000).toISOString(), quote(name), ...values.map((x) => x ?? "")].join(","));
    times.forEach((t, i) => {
        for (const m of models)
            row(
                t,
                m.name,
                MODEL_POINTS.map((k) => m.points[k][i]),
            );
        for (const { key } of accounts()) row(t, `(${key})`, [points[key + "_seconds"][i], points[key + "_cost"][i]]);
    });
    return lines.join("\r\n") + "\r\n";
}

const name = (extension) => "costd-" + state.range + "." + extension;

export function saveCsv() {
    if (state.data) save(name("csv"), "text/csv", csv());
}

export function saveJson() {
    const all = { ...state.data, requests: state.recent };
    if (state.data) save(name("json"), "application/json", JSON.stringify(all, null, 1));
}
