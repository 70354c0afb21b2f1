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

/* Columns after time, model, device time and cost; only models have them. */
const MODEL_POINTS = [
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
    const lines = [["time", "model", "device_seconds", "cost", ...MODEL_POINTS]];
    times.forEach((t, i) => {
        const row = (label, of, account, pick) => {
            const device = [of[account + "_seconds"][i], of[account + "_cost"][i]];
            const values = [...device, ...MODEL_POINTS.map(pick)].map((x) => x ?? "");
            lines.push([new Date(t * 1000).toISOString(), quote(label), ...values]);
        };
        for (const m of models) row(m.name, m.points, "serve", (key) => m.points[key][i]);
        for (const { key } of accounts()) row(`(${key})`, points, key, () => "");
    });
    return lines.map((line) => line.join(",") + "\r\n").join("");
}

const name = (extension) => "costd-" + state.range + "." + extension;

export function saveCsv() {
    if (state.data) save(name("csv"), "text/csv", csv());
}

export function saveJson() {
    const all = { ...state.data, requests: state.recent };
    if (state.data) save(name("json"), "application/json", JSON.stringify(all, null, 1));
}
