/* chart.js - one chart: uPlot's drawing, a legend of buttons that show and hide a series, and the same data as a table.
 * A chart is built anew only when its series change; else it takes the new data, so that zoom and focus stay. */
import { $, copy, el, put } from "./dom.js";
import { clock } from "./format.js";
import { RANGES, state } from "./state.js";

const HEIGHT = 210;

/* Which series the reader has hidden, by chart and label. */
const hiddenSeries = new Set();

/* A colour of page.css as the canvas needs it. */
function resolve(name) {
    const probe = $("status");
    probe.style.color = "var(--" + name + ")";
    const seen = getComputedStyle(probe).color;
    probe.style.color = "";
    return seen;
}

/* Each series on top of those before it. */
function stack(series) {
    let below = state.data.times.map(() => 0);
    return series.map(
        (s) => (below = below.map((b, i) => (b == null || s.values[i] == null ? null : b + s.values[i]))),
    );
}

const fillOf = (stroke, opacity) => stroke.replace("rgb(", "rgba(").replace(")", ", " + opacity + ")");

function timeAxis() {
    return {
        space: 70,
        size: 32,
        values: (u, at) => {
            const second = at.length > 1 && at[1] - at[0] < 60 ? { second: "2-digit" } : {};
            const format = { hour12: false, hour: "2-digit", minute: "2-digit", ...second };
            return at.map((t) => new Date(t * 1000).toLocaleTimeString([], format));
        },
    };
}

/* The sample of a legend: a line with the dash and colour of its series. */
function sample(series) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", 26);
    svg.setAttribute("height", 10);
    svg.setAttribute("aria-hidden", "true");
    svg.innerHTML = '<line x1="0" y1="5" x2="26" y2="5"/>';
    const line = svg.firstChild;
    line.style.stroke = "var(--" + series.color + ")";
    line.setAttribute("stroke-width", series.width + 0.5);
    line.setAttribute("stroke-dasharray", series.dash.join(" "));
    return svg;
}

export class Chart {
    /* `spec`: a row of charts.js; `at`: its index there. */
    constructor(spec, at) {
        this.spec = spec;
        this.at = at;
        this.title = el("h3", { id: "chart" + at });
        this.plot = el("div", { class: "plot", role: "img" });
        this.legend = el("div", { class: "legend", role: "group", "aria-labelledby": "chart" + at });
        this.table = el("table");
        this.scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Data" }, this.table);
        this.details = el("details", { ontoggle: () => this.showTable() }, el("summary", {}, "Data"), this.scroll);
        this.copy = el("button", { type: "button", onclick: (e) => copy(spec.promql(), e.target) }, "Copy PromQL");
        const head = el("div", { class: "head" }, this.title, this.copy);
        this.card = el("div", { class: "card" }, head, this.plot, this.legend, this.details);
        this.signature = "";
        new ResizeObserver(() => this.fit()).observe(this.plot);
    }

    fit() {
        const width = this.plot.clientWidth;
        if (this.u && width && width !== this.u.width) this.u.setSize({ width, height: HEIGHT });
    }

    show(fresh) {
        put(this.title, this.spec.title());
        this.copy.setAttribute("aria-label", "Copy PromQL: " + this.spec.title());
        this.series = this.spec.series();
        const lines = this.spec.stacked ? stack(this.series) : this.series.map((s) => s.values);
        /* A stack is drawn from its top down, so that every fill ends at the line below. */
        const order = this.series.map((_, i) => (this.spec.stacked ? this.series.length - 1 - i : i));
        const points = [state.data.times, ...order.map((i) => lines[i])];
        const nothing = !lines.some((l) => l.some((x) => x != null));
        const signature = JSON.stringify([
            this.series.map((s) => [s.label, s.color]),
            state.data.times.length > 1,
            nothing,
        ]);
        if (fresh || signature !== this.signature) {
            this.signature = signature;
            this.clear();
            if (nothing) this.showEmpty();
            else this.build(points, order);
        } else if (this.u) {
            this.u.setData(points, !this.zoomed);
        }
        this.describe();
        if (this.details.open) this.showTable();
    }

    clear() {
        if (this.u) this.u.destroy();
        this.u = this.outputs = null;
        this.zoomed = false;
        this.plot.replaceChildren();
        this.legend.replaceChildren();
    }

    showEmpty() {
        const sampled = state.data.times.length > 0;
        const text = sampled ? "There is no data in this range." : "The first sample arrives within 10 seconds.";
        this.plot.append(el("div", { class: "empty" }, text));
    }

    /* ---- The drawing ---- */

    build(points, order) {
        const options = {
            width: this.plot.clientWidth || 300,
            height: HEIGHT,
            legend: { show: false },
            padding: [10, 26, 0, 0],
            cursor: { sync: { key: "costd" }, points: { size: 6 }, y: false },
            scales: this.scales(),
            axes: this.axes(),
            series: [{}, ...order.map((i) => this.lineOptions(this.series[i]))],
            bands: this.spec.stacked ? order.slice(1).map((_, k) => ({ series: [k + 1, k + 2] })) : [],
            hooks: {
                setCursor: [(u) => this.showValues(u.cursor.idx)],
                setScale: [(u, key) => this.noteScale(u, key)],
            },
        };
        this.u = new uPlot(options, points, this.plot);
        this.outputs = this.series.map((s, i) => this.addKey(s, order.indexOf(i) + 1));
        this.showValues(null);
    }

    scales() {
        const x = (u, low, high) => {
            const { times, step_seconds: step } = state.data;
            return times.length < 2 ? [times[0] - step, times[0] + step] : [low, high];
        };
        return { x: { range: x }, y: { range: (u, low, high) => [0, this.top(high ?? 0) * 1.08 || 1] } };
    }

    /* A line that stands aside is included while it at most halves the height of the others, which have `high` for
     * their largest value.  Beyond that it is above the plot, and its legend says so. */
    top(high) {
        const aside = this.series.filter((s) => s.aside && this.isShown(s)).flatMap((s) => s.values);
        const compared = Math.max(0, ...aside);
        return high === 0 || compared <= 2 * high ? Math.max(high, compared) : high;
    }

    axes() {
        const grid = { stroke: resolve("grid"), width: 1 };
        const common = { stroke: resolve("soft"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
        const powers = { incrs: Array.from({ length: 24 }, (_, i) => 2 ** (i + 18)) };
        return [
            { ...common, ...timeAxis() },
            {
                ...common,
                ...(this.spec.binary ? powers : {}),
                size: (u, texts) => 24 + 7 * Math.max(4, ...(texts || []).map((t) => t.length)),
                values: (u, at) => at.map((x) => this.spec.format(x)),
            },
        ];
    }

    lineOptions(series) {
        const stroke = resolve(series.color);
        /* So few samples make no line that could be seen. */
        const dots = (u, i, from, to) =>
            state.data.times.length < 3 || u.data[i].slice(from, to + 1).filter((v) => v != null).length < 3;
        return {
            label: series.label,
            stroke,
            width: series.width,
            dash: series.dash,
            show: this.isShown(series),
            auto: !series.aside,
            spanGaps: false,
            points: { show: dots, size: 5 },
            ...(this.spec.stacked ? { fill: fillOf(stroke, series.fill) } : {}),
        };
    }

    noteScale(u, key) {
        const times = u.data[0];
        if (key === "y") this.showValues(u.cursor.idx);
        else this.zoomed = u.scales.x.min > times[0] || u.scales.x.max < times[times.length - 1];
    }

    /* ---- The legend ---- */

    nameOf(series) {
        return this.at + " " + series.label;
    }

    isShown(series) {
        return !hiddenSeries.has(this.nameOf(series));
    }

    /* Adds a series' button; returns where its value is shown. */
    addKey(series, place) {
        const output = el("span", { class: "at" });
        const toggle = (e) => {
            const show = !this.u.series[place].show;
            hiddenSeries[show ? "delete" : "add"](this.nameOf(series));
            this.u.setSeries(place, { show });
            e.currentTarget.setAttribute("aria-pressed", String(show));
        };
        const pressed = String(this.isShown(series));
        this.legend.append(
            el(
                "button",
                { type: "button", "aria-pressed": pressed, class: "key", onclick: toggle },
                sample(series),
                el("span", { class: "label" }, series.label),
                output,
            ),
        );
        return output;
    }

    /* Values under the cursor, or the latest ones. */
    showValues(at) {
        if (!this.outputs) return;
        const top = this.u.scales.y.max;
        this.series.forEach((s, i) => {
            const x = s.values[at ?? s.values.length - 1];
            const above = s.aside && top != null && x > top ? " (above the plot)" : "";
            put(this.outputs[i], x == null ? "–" : this.spec.format(x) + above);
        });
    }

    /* ---- In words and as a table ---- */

    describe() {
        const latest = this.series.map((s) => {
            const x = s.values[s.values.length - 1];
            return s.label + " " + (x == null ? "unknown" : this.spec.format(x));
        });
        const text = `${this.spec.title()}, ${RANGES[state.range]}. Latest: ${latest.join("; ")}. All points are under Data.`;
        this.plot.setAttribute("aria-label", text);
        if (this.u && this.u.cursor.idx == null) this.showValues(null);
    }

    showTable() {
        if (!this.details.open) return;
        const cell = (x) => el("td", {}, x == null ? "–" : this.spec.format(x));
        const heads = ["Time", ...this.series.map((s) => s.label)].map((t) => el("th", { scope: "col" }, t));
        const rows = state.data.times.map((t, i) =>
            el("tr", {}, el("th", { scope: "row" }, clock(t)), ...this.series.map((s) => cell(s.values[i]))),
        );
        this.scroll.setAttribute("aria-label", "Data of " + this.spec.title());
        this.table.replaceChildren(el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows.reverse()));
    }
}
