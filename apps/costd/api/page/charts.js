/* charts.js - which charts there are, and the series that each one draws.  Series are made of costd's samples, so they
 * end with the latest sample while totals are of this moment. */
import { accounts, amount, colorOf, otherModels, priced, slotOf, topModels } from "./bill.js";
import { Chart } from "./chart.js";
import { $ } from "./dom.js";
import { bytes, money, number, percent, quantile } from "./format.js";
import { state } from "./state.js";

/* One of each for the models that have a colour: two lines differ without colour too. */
const DASHES = [[], [9, 4], [2, 3], [9, 3, 2, 3], [14, 4], [5, 2]];

/* ---- Series of points; null where there is no sample --------------------------------------------- */

const numbers = (list) => list.map((x) => (x == null ? null : +x));
const rate = (list, scale = 1) => list.map((x) => (x == null ? null : (scale * x) / state.data.step_seconds));
const ratio = (a, b, scale) => a.map((x, i) => (x == null || !b[i] ? null : (scale * x) / b[i]));
const add = (lists) =>
    lists[0].map((_, i) => (lists.some((l) => l[i] == null) ? null : lists.reduce((s, l) => s + l[i], 0)));

/* `aside`: the line is there to compare with, so it does not decide the scale. */
const line = (label, color, dash, width, values) => ({ label, color, dash, width, values, fill: 0.45, aside: false });

/* A line for each model that has a colour; `others`: and one for the sum of the rest. */
function modelLines(pick, others = true) {
    const lines = topModels().map((m) => line(m.name, colorOf(m.name), DASHES[slotOf(m.name)], 2, pick(m.points)));
    const rest = others ? otherModels() : [];
    if (rest.length)
        lines.push(line(rest.length + " other models", "others", [4, 4], 1.5, add(rest.map((m) => pick(m.points)))));
    return lines;
}

/* A line for the sum of all models, once there is one. */
function sumLine(label, color, dash, width, pick, aside) {
    const lists = state.data.models.map((m) => pick(m.points));
    return lists.length ? [{ ...line(label, color, dash, width, add(lists)), aside }] : [];
}

/* ---- The charts ------------------------------------------------------------------------------------ */

function costLines() {
    const of = (points, account) =>
        priced() ? rate(numbers(points[account + "_cost"]), 3600) : rate(points[account + "_seconds"]);
    return [
        ...modelLines((p) => of(p, "serve")),
        ...accounts().map((a) => ({
            ...line(a.name, a.key, a.dash, 1, of(state.data.points, a.key)),
            fill: a.fill,
        })),
    ];
}

function tokenCostLines() {
    const lines = modelLines(
        (p) => ratio(priced() ? numbers(p.serve_cost) : p.serve_seconds, p.output_tokens, 1000),
        false,
    );
    const reference = state.data.times.map(() => state.reference);
    if (priced() && state.reference > 0)
        lines.push({ ...line("reference API price", "soft", [12, 6], 1.5, reference), aside: true });
    return lines;
}

const latencyLines = (key) => [
    ...modelLines((p) => p[key + "_p95"], false).map((s) => ({ ...s, label: s.label + " p95", width: 2.5 })),
    ...modelLines((p) => p[key + "_p50"], false).map((s) => ({ ...s, label: s.label + " p50", width: 1 })),
];

const CHARTS = [
    {
        title: () => (priced() ? "Cost rate, dollars an hour" : "Device time, share (no price set)"),
        stacked: true,
        format: (x) => (priced() ? money(x) : percent(x)),
        series: costLines,
        promql: () => "sum by (model_name) (rate(model_estimated_cost_dollars_total[5m])) * 3600",
    },
    {
        title: () => (priced() ? "Dollars per 1K output tokens" : "Device seconds per 1K output tokens"),
        format: amount,
        series: tokenCostLines,
        promql: () =>
            "1000 * sum by (model_name) (rate(model_estimated_cost_dollars_total[5m]))" +
            ' / (sum by (model_name) (rate(model_tokens_total{direction="output"}[5m])) > 0)',
    },
    {
        title: () => "Latency, p95 thick and p50 thin",
        format: quantile,
        series: () => latencyLines("latency"),
        promql: () =>
            "histogram_quantile(0.95, sum by (model_name, le) (rate(model_request_duration_seconds_bucket[5m])))",
    },
    {
        title: () => "First token, p95 thick and p50 thin",
        format: quantile,
        series: () => latencyLines("first_token"),
        promql: () =>
            "histogram_quantile(0.95, sum by (model_name, le) (rate(model_time_to_first_token_seconds_bucket[5m])))",
    },
    {
        title: () => "Output tokens a second",
        format: number,
        series: () => [
            ...modelLines((p) => rate(p.output_tokens)),
            ...sumLine("input, all models", "soft", [2, 4], 1.5, (p) => rate(p.input_tokens), true),
        ],
        promql: () => "sum by (model_name, direction) (rate(model_tokens_total[5m]))",
    },
    {
        title: () => "Requests a minute",
        format: number,
        series: () => [
            ...modelLines((p) => rate(p.requests, 60)),
            ...sumLine("errors, all models", "bad", [3, 3], 2, (p) => rate(p.errors, 60), false),
            ...sumLine("waiting now", "soft", [1, 4], 1.5, (p) => p.waiting, true),
        ],
        promql: () => "sum by (model_name) (rate(model_request_total[5m])) * 60",
    },
    {
        title: () => (state.data.device.gpu ? "GPU memory" : "Memory"),
        format: bytes,
        binary: true,
        series: () => {
            const { device, points } = state.data;
            const used = device.gpu ? "GPU memory in use" : "weights and caches";
            return [
                line(used, "m0", [], 2, points.device_bytes),
                line("process, resident", "others", [6, 4], 1.5, points.process_bytes),
            ];
        },
        promql: () => (state.data.device.gpu ? "gpu_memory_used_bytes" : "process_resident_memory_bytes"),
    },
];

const charts = [];

/* `fresh`: the figures are of another range or run, or the colours have changed. */
export function showCharts(fresh) {
    if (!charts.length) {
        charts.push(...CHARTS.map((spec, i) => new Chart(spec, i)));
        $("charts").append(...charts.map((c) => c.card));
    }
    for (const chart of charts) chart.show(fresh);
}
