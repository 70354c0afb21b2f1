/* page.js - asks costd for its figures every five seconds and shows them.  What answers the question of
 * the page (who used how much of the bill) comes from exact totals; charts come from samples. */
"use strict";
(() => {
    const RANGES = { "15m": "last 15 minutes", "1h": "last hour", "6h": "last 6 hours", "24h": "last 24 hours" };
    const EVERY_MS = 5000,
        CHART_MODELS = 6;
    const DASHES = [[], [9, 4], [2, 3], [9, 3, 2, 3], [14, 4], [5, 2]];
    const $ = (id) => document.getElementById(id);
    const keep = (where) => ({
        get: (k) => {
            try {
                return where().getItem(k);
            } catch {
                return null;
            }
        },
        set: (k, v) => {
            try {
                where().setItem(k, v);
            } catch {
                /* private mode */
            }
        },
    });
    const store = keep(() => localStorage),
        session = keep(() => sessionStorage);

    let range = new URLSearchParams(location.search).get("range");
    if (!(range in RANGES)) range = "1h";
    let reference = Number(store.get("costd-reference") ?? 0.002);
    let data = null,
        recent = [],
        paused = false,
        fetchedAt = 0,
        lost = false,
        restarted = null,
        announced = "";
    let apiKey = session.get("costd-key") || "",
        locked = false;
    let sort = { key: "share", down: true };
    const hiddenSeries = new Set(),
        slots = new Map(),
        charts = [];

    /* ---- Text ---------------------------------------------------------------------------------- */

    function el(tag, attributes, ...children) {
        const e = document.createElement(tag);
        for (const [k, v] of Object.entries(attributes || {}))
            if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
            else if (k === "style") Object.assign(e.style, v);
            else if (v !== null && v !== false) e.setAttribute(k, v === true ? "" : v);
        e.append(...children.filter((c) => c !== null));
        return e;
    }
    const put = (e, text) => {
        if (e.textContent !== text) e.textContent = text;
    };
    const number = (x, digits = 3) =>
        x == null || !isFinite(x)
            ? "–"
            : Math.abs(x) >= 1000
              ? Math.round(x).toLocaleString("en-US")
              : x.toLocaleString("en-US", { maximumSignificantDigits: digits });
    const count = (x) => x.toLocaleString("en-US");
    /* Never "$0.00" for something: three significant digits below a dollar. */
    function money(x) {
        if (x == null || !isFinite(x)) return "–";
        if (x === 0) return "$0";
        const f =
            x >= 1000
                ? { maximumFractionDigits: 0 }
                : x >= 1
                  ? { minimumFractionDigits: 2, maximumFractionDigits: 2 }
                  : { minimumSignificantDigits: 3, maximumSignificantDigits: 3 };
        return "$" + x.toLocaleString("en-US", f);
    }
    const percent = (x) =>
        !isFinite(x)
            ? "–"
            : x === 0
              ? "0 %"
              : x < 0.001
                ? "< 0.1 %"
                : (100 * x).toFixed((x >= 0.0995 && x < 0.995) || x >= 0.9995 ? 0 : 1).replace(/\.0$/, "") + " %";
    function seconds(s) {
        if (s == null || !isFinite(s)) return "–";
        if (s === 0) return "0 s";
        if (s >= 99.95e9) return "≥ 100 s";
        return s < 1e-3
            ? number(s * 1e6) + " µs"
            : s < 1
              ? number(s * 1e3) + " ms"
              : s < 120
                ? number(s) + " s"
                : span(s);
    }
    const quantile = (s) => (s >= 99.99 ? "≥ 100 s" : seconds(s));
    function span(s) {
        s = Math.floor(s);
        const h = Math.floor(s / 3600),
            m = Math.floor(s / 60) % 60;
        return h >= 48
            ? Math.floor(h / 24) + " d " + (h % 24) + " h"
            : h
              ? h + " h " + m + " min"
              : m
                ? m + " min " + (s % 60) + " s"
                : s + " s";
    }
    const bytes = (n) => (n >= 2 ** 30 ? number(n / 2 ** 30) + " GiB" : number(n / 2 ** 20) + " MiB");
    const clock = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour12: false });

    /* ---- The bill -------------------------------------------------------------------------------- */

    const deviceSeconds = (t) => t.serve_seconds + t.load_seconds + t.idle_seconds;
    /* Without any price, shares are of time. */
    const priced = () => data.dollars_per_hour != null || +data.range_total.cost > 0;
    const amountOf = (cost, time) => (priced() ? +cost : time);
    const amount = (x) => (priced() ? money(x) : seconds(x));

    /* The models that charts and the bar name, each with the colour and dash that stay its own. */
    function topModels() {
        const by = (m) => amountOf(m.range.serve_cost, m.range.serve_seconds);
        const top = [...data.models]
            .sort((a, b) => by(b) - by(a))
            .slice(0, CHART_MODELS)
            .map((m) => m.name);
        for (const name of [...slots.keys()])
            if (!top.includes(name) && data.models.length > CHART_MODELS) slots.delete(name);
        for (const m of data.models) {
            if (!top.includes(m.name) || slots.has(m.name)) continue;
            let s = 0;
            while ([...slots.values()].includes(s)) s++;
            slots.set(m.name, s % CHART_MODELS);
        }
        return data.models.filter((m) => top.includes(m.name));
    }

    function slices() {
        const top = topModels(),
            rest = data.models.filter((m) => !top.includes(m)),
            t = data.range_total;
        const part = (name, models, color) => ({
            name,
            color,
            time: models.reduce((s, m) => s + m.range.serve_seconds, 0),
            value: models.reduce((s, m) => s + amountOf(m.range.serve_cost, m.range.serve_seconds), 0),
        });
        const out = top.map((m) => part(m.name, [m], "var(--m" + slots.get(m.name) + ")"));
        if (rest.length) out.push(part(rest.length + " other models", rest, "var(--others)"));
        out.sort((a, b) => b.value - a.value);
        out.push({ name: "Loading", kind: "load", time: t.load_seconds, value: amountOf(t.load_cost, t.load_seconds) });
        out.push({
            name: priced() ? "Idle, paid for" : "Idle",
            kind: "idle",
            time: t.idle_seconds,
            value: amountOf(t.idle_cost, t.idle_seconds),
        });
        return out;
    }

    const swatch = (s) =>
        el("span", { class: "swatch " + (s.kind || ""), style: s.kind ? {} : { background: s.color } });

    function showAnswer() {
        const parts = slices(),
            total = parts.reduce((s, p) => s + p.value, 0),
            best = parts.find((p) => !p.kind);
        const inRange = "in the " + RANGES[range],
            young = data.covered_seconds < data.range_seconds - 10;
        let text = "No model is loaded yet.";
        if (best && best.value > 0) {
            text =
                best.name +
                " used " +
                percent(best.value / total) +
                " of " +
                (priced() ? "the bill" : "the time") +
                ": " +
                amount(best.value) +
                " of " +
                amount(total) +
                " " +
                inRange;
            text += young ? " (up for " + span(data.uptime_seconds) + ")." : ".";
        } else if (best) {
            text =
                "No model has used anything " +
                inRange +
                "; " +
                (priced() ? amount(total) + " went" : "all time went") +
                " to waiting and loading.";
        }
        put($("headline"), text);
        const used = parts.reduce((s, p) => s + (p.kind ? 0 : p.value), 0),
            idle = parts[parts.length - 1].value;
        put(
            $("subline"),
            used > 0 && data.models.length > 1
                ? "That is " +
                      percent(best.value / used) +
                      " of what the models used; " +
                      percent(idle / total) +
                      " of " +
                      (priced() ? "the bill" : "the time") +
                      " is idle time."
                : "",
        );
        $("bar").replaceChildren(
            ...parts
                .filter((p) => p.value > 0)
                .map((p) =>
                    el(
                        "div",
                        {
                            class: (p.kind || "") + (p.value / total < 0.1 ? " narrow" : ""),
                            style: {
                                flexGrow: p.value / total,
                                flexBasis: 0,
                                ...(p.kind ? {} : { background: p.color }),
                            },
                            title: p.name + ": " + percent(p.value / total),
                        },
                        el(
                            "span",
                            {},
                            (p.kind === "idle" ? "idle" : p.kind === "load" ? "loading" : p.name) +
                                " " +
                                percent(p.value / total),
                        ),
                    ),
                ),
        );
        $("shares").hidden = false;
        put($("amount-head"), priced() ? "Cost" : "Cost (no price set)");
        const row = (name, p) =>
            el(
                "tr",
                {},
                el("th", { scope: "row" }, ...name),
                el("td", {}, priced() ? money(p.value) : "no price set"),
                el("td", {}, percent(p.value / total)),
                el("td", {}, seconds(p.time)),
            );
        const [body, foot] = [$("shares").tBodies[0], $("shares").tFoot];
        body.replaceChildren(...parts.map((p) => row([swatch(p), p.name], p)));
        foot.replaceChildren(
            row([priced() ? "The bill" : "All time"], { value: total, time: parts.reduce((s, p) => s + p.time, 0) }),
        );
    }

    /* ---- Tiles ------------------------------------------------------------------------------------ */

    const sum = (key) => data.models.reduce((s, m) => s + m.range[key], 0);
    const perDay = (cost) => (+cost / data.covered_seconds) * 86400;

    /* Of several models the worst is what somebody waited for. */
    const worst = (key, q) =>
        data.models.reduce((w, m) => (m[key] && (!w || m[key][q] > w[q]) ? { ...m[key], name: m.name } : w), null);

    function showTiles() {
        let tiles = [];
        const t = data.range_total,
            covered = data.covered_seconds || 1,
            budget = data.daily_budget;
        const tile = (title, value, unit, ...notes) =>
            tiles.push(
                el(
                    "div",
                    { class: "tile" },
                    el("h3", {}, title),
                    el("div", { class: "value" }, value, unit ? el("small", {}, " " + unit) : null),
                    ...notes.map((n) => (typeof n === "string" ? el("p", {}, n) : n)),
                ),
            );
        if (priced()) {
            tile(
                "Bill, " + RANGES[range],
                money(+t.cost),
                "",
                money(+data.since_start.cost) + " since the start, " + span(data.uptime_seconds) + " ago",
                ...(t.unpriced_seconds > 0 ? [seconds(t.unpriced_seconds) + " without a price are not in it"] : []),
            );
            tile("At this pace", money(perDay(t.cost)), "a day", money(perDay(t.cost) * 30) + " in 30 days");
        } else {
            tile(
                "Bill, " + RANGES[range],
                "no price set",
                "",
                "start costd with --cpu-cost-per-hour or --gpu-cost-per-hour",
            );
            tile(
                "Busy",
                percent(1 - t.idle_seconds / deviceSeconds(t)),
                "",
                seconds(t.serve_seconds + t.load_seconds) + " of " + seconds(deviceSeconds(t)),
            );
        }
        if (budget && priced()) {
            /* What the models used, without idle time: as the alerts of dashboards/ have it. */
            const spent = +data.day_total.serve_cost,
                used = spent / +budget;
            tile(
                "Daily budget",
                percent(used),
                "used",
                el(
                    "div",
                    { class: "meter" + (used > 1 ? " over" : "") },
                    el("div", { style: { width: Math.min(100, 100 * used) + "%" } }),
                ),
                money(spent) +
                    " of " +
                    money(+budget) +
                    " for serving in 24 h; " +
                    percent(perDay(t.serve_cost) / +budget) +
                    " at this pace",
            );
        } else {
            tile(
                "Daily budget",
                "none",
                "",
                el("p", {}, "set one with ", el("span", { class: "nowrap" }, "--daily-budget")),
            );
        }
        $("money").replaceChildren(...tiles);
        tiles = [];
        const output = sum("output_tokens"),
            serve = amountOf(t.serve_cost, t.serve_seconds);
        const all = amountOf(t.cost, deviceSeconds(t));
        tile(
            "Per 1K output tokens",
            output ? amount((1000 * serve) / output) : "–",
            "",
            output ? amount((1000 * all) / output) + " with idle and loading" : "no tokens in this range",
            ...(output && priced() && reference > 0
                ? [number((1000 * all) / output / reference) + " × the reference " + money(reference)]
                : []),
        );
        tile(
            "Output tokens",
            number(output / covered),
            "a second",
            number(sum("input_tokens") / covered) + " input tokens a second, " + count(output) + " output in all",
        );
        const slow = worst("latency", "p95"),
            first = worst("first_token", "p95");
        tile(
            "Latency p95",
            slow ? quantile(slow.p95) : "–",
            "",
            slow ? "p50 " + quantile(slow.p50) + ", " + slow.name : "nothing ended in this range",
            ...(first ? ["first token p95 " + quantile(first.p95)] : []),
        );
        const requests = sum("requests"),
            errors = sum("errors");
        tile(
            "Requests",
            count(requests),
            "",
            count(errors) +
                (errors === 1 ? " error" : " errors") +
                (errors ? " (" + percent(errors / (requests + errors)) + ")" : ""),
            data.models.reduce((s, m) => s + m.running, 0) +
                " running, " +
                data.models.reduce((s, m) => s + m.waiting, 0) +
                " waiting",
        );
        const d = data.device;
        tile(
            d.gpu ? "GPU memory" : "Memory",
            bytes(d.gpu ? d.memory_used_bytes : d.process_bytes),
            "",
            (d.gpu ? "of " : "resident; weights and caches ") +
                bytes(d.gpu ? d.memory_total_bytes : d.memory_used_bytes),
            ...(d.gpu
                ? ["process " + bytes(d.process_bytes)]
                : d.memory_total_bytes
                  ? ["machine " + bytes(d.memory_total_bytes)]
                  : []),
        );
        $("tiles").replaceChildren(...tiles);
    }

    /* ---- Charts ----------------------------------------------------------------------------------- */

    function color(name) {
        const probe = $("status");
        probe.style.color = "var(--" + name + ")";
        const seen = getComputedStyle(probe).color;
        probe.style.color = "";
        return seen;
    }

    const ratio = (a, b, scale) => a.map((x, i) => (x == null || !b[i] ? null : (scale * x) / b[i]));
    const rate = (a, scale = 1) => a.map((x) => (x == null ? null : (scale * x) / data.step_seconds));
    const add = (lists) =>
        lists[0].map((_, i) => lists.reduce((s, l) => (s == null || l[i] == null ? null : s + l[i]), 0));
    const numbers = (a) => a.map((x) => (x == null ? null : +x));

    function modelSeries(pick, others = true) {
        const top = topModels(),
            rest = data.models.filter((m) => !top.includes(m));
        const out = top.map((m) => ({
            label: m.name,
            color: "m" + slots.get(m.name),
            dash: DASHES[slots.get(m.name)],
            width: 2,
            values: pick(m.points),
        }));
        if (others && rest.length)
            out.push({
                label: rest.length + " other models",
                color: "others",
                dash: [4, 4],
                width: 1.5,
                values: add(rest.map((m) => pick(m.points))),
            });
        return out;
    }
    const latencySeries = (key) => [
        ...modelSeries((p) => p[key + "_p95"], false).map((s) => ({ ...s, label: s.label + " p95", width: 2.5 })),
        ...modelSeries((p) => p[key + "_p50"], false).map((s) => ({ ...s, label: s.label + " p50", width: 1 })),
    ];

    const CHARTS = [
        {
            title: () => (priced() ? "Cost rate, dollars an hour" : "Device time, share (no price set)"),
            stacked: true,
            format: (x) => (priced() ? money(x) : percent(x)),
            series: () => {
                const of = (cost, time) => (priced() ? rate(numbers(cost), 3600) : rate(time));
                return [
                    ...modelSeries((p) => of(p.serve_cost, p.serve_seconds)),
                    {
                        label: "loading",
                        color: "load",
                        dash: [3, 3],
                        width: 1,
                        values: of(data.points.load_cost, data.points.load_seconds),
                    },
                    {
                        label: "idle",
                        color: "idle",
                        dash: [1, 3],
                        width: 1,
                        values: of(data.points.idle_cost, data.points.idle_seconds),
                    },
                ];
            },
            promql: "sum by (model_name) (rate(model_estimated_cost_dollars_total[5m])) * 3600",
        },
        {
            title: () => (priced() ? "Dollars per 1K output tokens" : "Device seconds per 1K output tokens"),
            format: (x) => amount(x),
            series: () => {
                const out = modelSeries(
                    (p) => ratio(priced() ? numbers(p.serve_cost) : p.serve_seconds, p.output_tokens, 1000),
                    false,
                );
                if (priced() && reference > 0)
                    out.push({
                        label: "reference API price",
                        color: "soft",
                        dash: [12, 6],
                        width: 1.5,
                        values: data.times.map(() => reference),
                    });
                return out;
            },
            promql: '1000 * sum by (model_name) (rate(model_estimated_cost_dollars_total[5m])) / (sum by (model_name) (rate(model_tokens_total{direction="output"}[5m])) > 0)',
        },
        {
            title: () => "Latency, p95 thick and p50 thin",
            format: quantile,
            series: () => latencySeries("latency"),
            promql: "histogram_quantile(0.95, sum by (model_name, le) (rate(model_request_duration_seconds_bucket[5m])))",
        },
        {
            title: () => "First token, p95 thick and p50 thin",
            format: quantile,
            series: () => latencySeries("first_token"),
            promql: "histogram_quantile(0.95, sum by (model_name, le) (rate(model_time_to_first_token_seconds_bucket[5m])))",
        },
        {
            title: () => "Output tokens a second",
            format: number,
            series: () => [
                ...modelSeries((p) => rate(p.output_tokens)),
                ...(data.models.length
                    ? [
                          {
                              label: "input, all models",
                              color: "soft",
                              dash: [2, 4],
                              width: 1.5,
                              values: rate(add(data.models.map((m) => m.points.input_tokens))),
                          },
                      ]
                    : []),
            ],
            promql: "sum by (model_name, direction) (rate(model_tokens_total[5m]))",
        },
        {
            title: () => "Requests a minute",
            format: number,
            series: () => [
                ...modelSeries((p) => rate(p.requests, 60)),
                ...(data.models.length
                    ? [
                          {
                              label: "errors, all models",
                              color: "bad",
                              dash: [3, 3],
                              width: 2,
                              values: rate(add(data.models.map((m) => m.points.errors)), 60),
                          },
                          {
                              label: "waiting now",
                              color: "soft",
                              dash: [1, 4],
                              width: 1.5,
                              values: add(data.models.map((m) => m.points.waiting)),
                          },
                      ]
                    : []),
            ],
            promql: "sum by (model_name) (rate(model_request_total[5m])) * 60",
        },
        {
            title: () => (data.device.gpu ? "GPU memory" : "Memory"),
            format: bytes,
            series: () => [
                {
                    label: data.device.gpu ? "GPU memory in use" : "weights and caches",
                    color: "m0",
                    dash: [],
                    width: 2,
                    values: data.points.device_bytes,
                },
                {
                    label: "process, resident",
                    color: "others",
                    dash: [6, 4],
                    width: 1.5,
                    values: data.points.process_bytes,
                },
            ],
            promql: () => (data.device.gpu ? "gpu_memory_used_bytes" : "process_resident_memory_bytes"),
        },
    ];

    function stack(series) {
        let below = data.times.map(() => 0);
        return series.map(
            (s) => (below = below.map((b, i) => (b == null || s.values[i] == null ? null : b + s.values[i]))),
        );
    }

    class Chart {
        constructor(spec, at) {
            this.spec = spec;
            this.title = el("h3", { id: "chart" + at });
            this.plot = el("div", { class: "plot", role: "img" });
            this.legend = el("div", { class: "legend", role: "group", "aria-labelledby": "chart" + at });
            this.table = el("table");
            this.scroll = el(
                "div",
                { class: "scroll", tabindex: "0", role: "region", "aria-label": "Data of the chart" },
                this.table,
            );
            this.details = el("details", { ontoggle: () => this.showTable() }, el("summary", {}, "Data"), this.scroll);
            const query = () => (typeof spec.promql === "function" ? spec.promql() : spec.promql);
            this.copy = el("button", { type: "button", onclick: (e) => copy(query(), e.target) }, "Copy PromQL");
            this.card = el(
                "div",
                { class: "card" },
                el("div", { class: "head" }, this.title, this.copy),
                this.plot,
                this.legend,
                this.details,
            );
            this.signature = "";
            new ResizeObserver(() => this.fit()).observe(this.plot);
        }

        fit() {
            const width = this.plot.clientWidth;
            if (this.u && width && width !== this.u.width) this.u.setSize({ width, height: 210 });
        }

        show(fresh) {
            put(this.title, this.spec.title());
            this.copy.setAttribute("aria-label", "Copy PromQL: " + this.spec.title());
            this.series = this.spec.series();
            const lines = this.spec.stacked ? stack(this.series) : this.series.map((s) => s.values);
            /* A stack is drawn from its top down, so that every fill ends at the line below. */
            const order = this.series.map((_, i) => (this.spec.stacked ? this.series.length - 1 - i : i));
            const points = [data.times, ...order.map((i) => lines[i])];
            this.nothing = !lines.some((l) => l.some((x) => x != null));
            const signature = JSON.stringify([
                this.series.map((s) => [s.label, s.color]),
                data.times.length > 1,
                this.nothing,
            ]);
            if (fresh || signature !== this.signature) {
                this.signature = signature;
                this.build(points, order);
            } else if (this.u) {
                this.u.setData(points, !this.zoomed);
            }
            this.describe();
            if (this.details.open) this.showTable();
        }

        build(points, order) {
            if (this.u) this.u.destroy();
            this.u = this.outputs = null;
            this.zoomed = false;
            this.plot.replaceChildren();
            this.legend.replaceChildren();
            if (this.nothing) {
                this.plot.append(
                    el(
                        "div",
                        { class: "empty" },
                        data.times.length ? "Nothing in this range." : "The first sample comes within 10 seconds.",
                    ),
                );
                return;
            }
            const soft = color("soft"),
                grid = { stroke: color("grid"), width: 1 };
            const axis = { stroke: soft, grid, ticks: grid, font: "12px system-ui, sans-serif" };
            const hidden = (s) => hiddenSeries.has(this.spec.promql + s.label);
            this.u = new uPlot(
                {
                    width: this.plot.clientWidth || 300,
                    height: 210,
                    legend: { show: false },
                    padding: [10, 26, 0, 0],
                    cursor: { sync: { key: "costd" }, points: { size: 6 }, y: false },
                    scales: {
                        x: {
                            range: (u, low, high) =>
                                data.times.length < 2
                                    ? [data.times[0] - data.step_seconds, data.times[0] + data.step_seconds]
                                    : [low, high],
                        },
                        y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] },
                    },
                    axes: [
                        {
                            ...axis,
                            space: 70,
                            size: 32,
                            values: (u, at) =>
                                at.map((t) =>
                                    new Date(t * 1000).toLocaleTimeString([], {
                                        hour12: false,
                                        hour: "2-digit",
                                        minute: "2-digit",
                                        ...(at.length > 1 && at[1] - at[0] < 60 ? { second: "2-digit" } : {}),
                                    }),
                                ),
                        },
                        {
                            ...axis,
                            ...(this.spec.format === bytes
                                ? { incrs: Array.from({ length: 24 }, (_, i) => 2 ** (i + 18)) }
                                : {}),
                            size: (u, texts) => 24 + 7 * Math.max(4, ...(texts || []).map((t) => t.length)),
                            values: (u, at) => at.map((x) => this.spec.format(x)),
                        },
                    ],
                    series: [
                        {},
                        ...order.map((i) => {
                            const s = this.series[i],
                                stroke = color(s.color);
                            return {
                                label: s.label,
                                stroke,
                                width: s.width,
                                dash: s.dash,
                                show: !hidden(s),
                                spanGaps: false,
                                points: {
                                    show: (u, si, from, to) =>
                                        data.times.length < 3 ||
                                        u.data[si].slice(from, to + 1).filter((v) => v != null).length < 3,
                                    size: 5,
                                },
                                ...(this.spec.stacked
                                    ? {
                                          fill: stroke
                                              .replace("rgb(", "rgba(")
                                              .replace(")", s.color === "idle" ? ", .14)" : ", .45)"),
                                      }
                                    : {}),
                            };
                        }),
                    ],
                    bands: this.spec.stacked ? order.slice(1).map((_, k) => ({ series: [k + 1, k + 2] })) : [],
                    hooks: {
                        setCursor: [(u) => this.values(u.cursor.idx)],
                        setScale: [
                            (u, key) => {
                                if (key === "x")
                                    this.zoomed =
                                        u.scales.x.min > u.data[0][0] ||
                                        u.scales.x.max < u.data[0][u.data[0].length - 1];
                            },
                        ],
                    },
                },
                points,
                this.plot,
            );
            this.outputs = this.series.map((s, i) => {
                const at = order.indexOf(i) + 1,
                    output = el("span", { class: "at" });
                const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
                line.setAttribute("width", 26);
                line.setAttribute("height", 10);
                line.setAttribute("aria-hidden", "true");
                line.innerHTML = '<line x1="0" y1="5" x2="26" y2="5"/>';
                const stroke = line.firstChild;
                stroke.style.stroke = "var(--" + s.color + ")";
                stroke.setAttribute("stroke-width", s.width + 0.5);
                stroke.setAttribute("stroke-dasharray", s.dash.join(" "));
                this.legend.append(
                    el(
                        "button",
                        {
                            type: "button",
                            "aria-pressed": String(!hidden(s)),
                            class: "key",
                            onclick: (e) => {
                                const show = !this.u.series[at].show;
                                hiddenSeries[show ? "delete" : "add"](this.spec.promql + s.label);
                                this.u.setSeries(at, { show });
                                e.currentTarget.setAttribute("aria-pressed", String(show));
                            },
                        },
                        line,
                        el("span", { class: "label" }, s.label),
                        output,
                    ),
                );
                return output;
            });
            this.values(null);
        }

        /* Under the cursor, or the newest. */
        values(at) {
            if (!this.outputs) return;
            this.series.forEach((s, i) => {
                const x = s.values[at ?? s.values.length - 1];
                put(this.outputs[i], x == null ? "–" : this.spec.format(x));
            });
        }

        describe() {
            const last = this.series.map((s) => {
                const x = s.values[s.values.length - 1];
                return s.label + " " + (x == null ? "nothing" : this.spec.format(x));
            });
            this.plot.setAttribute(
                "aria-label",
                this.spec.title() +
                    ", " +
                    RANGES[range] +
                    ". Newest: " +
                    last.join("; ") +
                    ". All points are under Data.",
            );
            if (this.u && this.u.cursor.idx == null) this.values(null);
        }

        showTable() {
            if (!this.details.open) return;
            const head = el(
                "tr",
                {},
                el("th", { scope: "col" }, "Time"),
                ...this.series.map((s) => el("th", { scope: "col" }, s.label)),
            );
            const rows = data.times
                .map((t, i) =>
                    el(
                        "tr",
                        {},
                        el("th", { scope: "row" }, clock(t)),
                        ...this.series.map((s) =>
                            el("td", {}, s.values[i] == null ? "–" : this.spec.format(s.values[i])),
                        ),
                    ),
                )
                .reverse();
            this.scroll.setAttribute("aria-label", "Data of " + this.spec.title());
            this.table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
        }
    }

    function showCharts(fresh) {
        if (!charts.length) {
            CHARTS.forEach((spec, i) => charts.push(new Chart(spec, i)));
            $("charts").append(...charts.map((c) => c.card));
        }
        charts.forEach((c) => c.show(fresh));
    }

    /* ---- Tables ----------------------------------------------------------------------------------- */

    const COLUMNS = [
        { key: "name", title: "Model", value: (m) => m.name, text: true },
        {
            key: "share",
            title: "Share of bill",
            value: (m) =>
                amountOf(m.range.serve_cost, m.range.serve_seconds) /
                (amountOf(data.range_total.cost, deviceSeconds(data.range_total)) || 1),
            show: percent,
        },
        {
            key: "cost",
            title: "Cost",
            value: (m) => amountOf(m.range.serve_cost, m.range.serve_seconds),
            show: (x) => (priced() ? money(x) : "no price set"),
        },
        { key: "seconds", title: "Device time", value: (m) => m.range.serve_seconds, show: seconds },
        {
            key: "per1k",
            title: "Per 1K output",
            value: (m) =>
                m.range.output_tokens
                    ? (1000 * amountOf(m.range.serve_cost, m.range.serve_seconds)) / m.range.output_tokens
                    : null,
            show: (x) => amount(x),
        },
        {
            key: "reference",
            title: "× reference",
            value: (m) =>
                m.range.output_tokens && priced() && reference > 0
                    ? (1000 * m.range.serve_cost) / m.range.output_tokens / reference
                    : null,
            show: number,
        },
        { key: "requests", title: "Requests", value: (m) => m.range.requests, show: count },
        { key: "errors", title: "Errors", value: (m) => m.range.errors, show: count },
        {
            key: "input",
            title: "Input tokens (cached)",
            value: (m) => m.range.input_tokens,
            full: (x, m) => count(x) + " (" + count(m.range.cached_tokens) + ")",
        },
        { key: "output", title: "Output tokens", value: (m) => m.range.output_tokens, show: count },
        { key: "p50", title: "Latency p50", value: (m) => m.latency && m.latency.p50, show: quantile },
        { key: "p95", title: "p95", value: (m) => m.latency && m.latency.p95, show: quantile },
        { key: "first", title: "First token p95", value: (m) => m.first_token && m.first_token.p95, show: quantile },
        { key: "load", title: "Loading", value: (m) => m.range.load_seconds, show: seconds },
    ];

    function makeHead() {
        $("models").tHead.rows[0].replaceChildren(
            ...COLUMNS.map((c) =>
                el(
                    "th",
                    { scope: "col", "data-key": c.key },
                    el(
                        "button",
                        {
                            type: "button",
                            onclick: () => {
                                sort = { key: c.key, down: sort.key === c.key ? !sort.down : !c.text };
                                showModels();
                            },
                        },
                        c.title,
                    ),
                ),
            ),
        );
        $("recent").tHead.rows[0].replaceChildren(
            ...[
                "Ended",
                "Model",
                "Tokens in (cached)",
                "out",
                "Queue",
                "Prefill",
                "Decode",
                "Latency",
                "Cost",
                "Finish",
            ].map((t, i) => el("th", { scope: "col", class: i === 1 || i === 9 ? "text" : null }, t)),
        );
    }

    function showModels() {
        const by = COLUMNS.find((c) => c.key === sort.key),
            down = sort.down ? -1 : 1;
        for (const th of $("models").tHead.rows[0].cells) {
            const on = th.dataset.key === sort.key;
            th.setAttribute("aria-sort", !on ? "none" : sort.down ? "descending" : "ascending");
            put(
                th.firstChild,
                COLUMNS.find((c) => c.key === th.dataset.key).title + (on ? (sort.down ? " ▼" : " ▲") : ""),
            );
        }
        const order = [...data.models].sort((a, b) => {
            const [x, y] = [by.value(a), by.value(b)];
            return x === y ? 0 : x == null ? 1 : y == null ? -1 : (x < y ? -1 : 1) * down;
        });
        const cell = (c, m) => {
            const x = c.value(m);
            if (c.text)
                return el(
                    "th",
                    { scope: "row", class: "name", title: x },
                    swatch({ color: "var(--" + (slots.has(x) ? "m" + slots.get(x) : "others") + ")" }),
                    x + (m.loaded ? "" : " (unloaded)"),
                );
            return el(
                "td",
                { class: c.key === "errors" && x > 0 ? "bad-text" : null },
                x == null ? "–" : c.full ? c.full(x, m) : c.show(x),
            );
        };
        $("models").tBodies[0].replaceChildren(
            ...(order.length
                ? order.map((m) => el("tr", {}, ...COLUMNS.map((c) => cell(c, m))))
                : [el("tr", {}, el("td", { class: "none", colspan: COLUMNS.length }, "No model is loaded yet."))]),
        );
    }

    function showRecent() {
        const failed = (r) => r.finish !== "stop" && r.finish !== "length";
        $("recent").tBodies[0].replaceChildren(
            ...(recent.length
                ? recent.map((r) =>
                      el(
                          "tr",
                          {},
                          el("td", { title: r.id }, clock(r.ended)),
                          el("td", { class: "text name", title: r.model + " on " + r.endpoint }, r.model),
                          el(
                              "td",
                              {},
                              count(r.input_tokens) + (r.cached_tokens ? " (" + count(r.cached_tokens) + ")" : ""),
                          ),
                          el("td", {}, count(r.output_tokens)),
                          ...["queue", "prefill", "decode", "latency"].map((k) =>
                              el("td", {}, seconds(r[k + "_seconds"])),
                          ),
                          el(
                              "td",
                              { title: r.cost == null ? null : "$" + r.cost },
                              r.cost == null ? "no price set" : money(+r.cost),
                          ),
                          el("td", { class: "text" + (failed(r) ? " bad-text" : "") }, r.finish.replace("_", " ")),
                      ),
                  )
                : [el("tr", {}, el("td", { class: "none", colspan: 10 }, "None yet."))]),
        );
    }

    /* ---- States ------------------------------------------------------------------------------------ */

    function say(text) {
        if (text === announced) return;
        announced = text;
        put($("status"), text);
    }

    function showBanners() {
        const list = [];
        const banner = (bad, text, ...more) =>
            list.push(el("div", { class: "banner" + (bad ? " bad" : "") }, el("span", {}, text), ...more));
        if (lost)
            banner(
                true,
                data
                    ? "Connection lost. The figures are from " +
                          new Date(fetchedAt).toLocaleTimeString([], { hour12: false }) +
                          ", " +
                          span((Date.now() - fetchedAt) / 1000) +
                          " ago; trying again."
                    : "costd does not answer; trying again.",
                el("button", { type: "button", onclick: refresh }, "Try now"),
            );
        if (restarted)
            banner(
                false,
                "costd restarted; all counters and this page’s history began again at " + clock(restarted) + ".",
                el(
                    "button",
                    {
                        type: "button",
                        onclick: () => {
                            restarted = null;
                            showBanners();
                        },
                    },
                    "Dismiss",
                ),
            );
        if (data && data.daily_budget && priced()) {
            const used = +data.day_total.serve_cost,
                budget = +data.daily_budget,
                pace = perDay(data.range_total.serve_cost);
            if (used > budget)
                banner(
                    true,
                    "Over budget: serving cost " +
                        money(used) +
                        " in the last 24 hours; the daily budget is " +
                        money(budget) +
                        ".",
                );
            else if (pace > 2 * budget)
                banner(
                    false,
                    "At this pace serving costs " +
                        money(pace) +
                        " a day, over twice the daily budget of " +
                        money(budget) +
                        ".",
                );
        }
        const shown = $("banners"),
            same =
                list.length === shown.children.length &&
                list.every(
                    (b, i) =>
                        b.className === shown.children[i].className &&
                        b.children.length === shown.children[i].children.length,
                );
        /* Only the text changes from second to second, so that the focus stays on a button. */
        if (same) list.forEach((b, i) => put(shown.children[i].firstChild, b.firstChild.textContent));
        else shown.replaceChildren(...list);
        document.body.classList.toggle("stale", lost && !!data);
        say(
            locked
                ? "An API key is needed"
                : lost
                  ? "Connection lost"
                  : restarted
                    ? "costd restarted"
                    : list.length
                      ? list[0].textContent.split(":")[0]
                      : data
                        ? "Figures are up to date"
                        : "Loading",
        );
    }

    function showWelcome() {
        const idle = data.models.every((m) => m.since_start.requests + m.running + m.waiting === 0);
        $("welcome").hidden = !idle;
        if (!idle) return;
        const model = data.models.find((m) => m.loaded);
        put(
            $("welcome-text"),
            model
                ? "costd is ready. Send it a first request; the figures follow within seconds."
                : "The models are being loaded. Then send a first request:",
        );
        const path = "/v1/generate/" + encodeURIComponent(model ? model.name : "MODEL").replace(/'/g, "%27");
        put(
            $("curl"),
            "curl -s '" +
                location.origin +
                path +
                '\' \\\n  -H \'Content-Type: application/json\' \\\n  -d \'{"prompt": "Once upon a time", "max_tokens": 50}\'',
        );
    }

    function showAll(fresh) {
        const price = data.dollars_per_hour,
            d = data.device;
        put(
            $("machine"),
            d.name +
                (price == null
                    ? ", no price set"
                    : ", " + money(+price) + (data.basis === "cpu" ? " a core-hour" : " an hour")) +
                ", up " +
                span(data.uptime_seconds) +
                (paused ? ", paused" : ""),
        );
        $("machine").title = d.description + ", costd " + data.version;
        showWelcome();
        showAnswer();
        showTiles();
        showCharts(fresh);
        showModels();
        showRecent();
        showBanners();
    }

    /* ---- Asking ------------------------------------------------------------------------------------ */

    async function ask(path) {
        const headers = apiKey ? { Authorization: "Bearer " + apiKey } : {};
        const reply = await fetch(path, { headers, signal: AbortSignal.timeout(8000), cache: "no-store" });
        if (!reply.ok) throw Object.assign(new Error(path + ": " + reply.status), { status: reply.status });
        return reply.json();
    }

    /* Asks for a key, or no longer; typing is not disturbed, and a key that was wrong is said to be so. */
    function lock(wanted) {
        if (wanted)
            put(
                $("key-note"),
                apiKey
                    ? "costd does not know this key."
                    : "This costd was started with --keys. The key is kept in this tab alone, until it is closed.",
            );
        if (wanted && !locked) $("key").value = "";
        locked = wanted;
        $("locked").hidden = !wanted;
    }

    let asking = 0;
    async function refresh() {
        const turn = ++asking,
            wanted = range;
        let history, list;
        try {
            [history, list] = await Promise.all([ask("api/history?range=" + wanted), ask("api/recent")]);
        } catch (e) {
            if (turn !== asking) return;
            lock(e.status === 401);
            lost = !locked;
            if (!data) put($("headline"), locked ? "The figures need an API key." : "Waiting for costd…");
            showBanners();
            return;
        }
        if (turn !== asking) return;
        lock(false);
        if (data && data.run !== history.run) {
            restarted = history.now - history.uptime_seconds;
            slots.clear();
        }
        const fresh = !data || data.run !== history.run || data.range !== history.range;
        data = history;
        recent = list.requests;
        fetchedAt = Date.now();
        lost = false;
        showAll(fresh);
    }

    /* ---- Controls ---------------------------------------------------------------------------------- */

    async function copy(text, button) {
        try {
            await navigator.clipboard.writeText(text);
        } catch {
            /* pages that are not served from localhost or by https may not */
            const area = el("textarea", { class: "hidden" });
            area.value = text;
            document.body.append(area);
            area.select();
            document.execCommand("copy");
            area.remove();
            button.focus();
        }
        const label = button.textContent;
        if (label === "Copied") return;
        button.textContent = "Copied";
        setTimeout(() => {
            button.textContent = label;
        }, 1500);
    }

    function save(name, type, text) {
        const a = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
        document.body.append(a);
        a.click();
        a.remove();
        setTimeout(() => URL.revokeObjectURL(a.href), 10000);
    }

    function csv() {
        const keys = [
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
        /* Spreadsheets run what begins with these. */
        const quote = (s) => '"' + (/^[=+\-@\t\r]/.test(s) ? "'" : "") + s.replace(/"/g, '""') + '"';
        const lines = [["time", "model", ...keys].join(",")];
        const row = (t, name, values) =>
            lines.push([new Date(t * 1000).toISOString(), quote(name), ...values.map((x) => x ?? "")].join(","));
        data.times.forEach((t, i) => {
            for (const m of data.models)
                row(
                    t,
                    m.name,
                    keys.map((k) => m.points[k][i]),
                );
            for (const k of ["load", "idle"])
                row(t, "(" + k + ")", [data.points[k + "_seconds"][i], data.points[k + "_cost"][i]]);
        });
        return lines.join("\r\n") + "\r\n";
    }

    function setRange(next, replace) {
        range = next;
        const url = new URL(location);
        url.searchParams.set("range", next);
        if (!replace) history.pushState(null, "", url);
        for (const b of $("ranges").children) b.setAttribute("aria-pressed", String(b.textContent === next));
    }

    function setTheme(theme) {
        if (theme) document.documentElement.dataset.theme = theme;
        else delete document.documentElement.dataset.theme;
        $("theme").value = theme;
    }

    function begin() {
        makeHead();
        $("ranges").append(
            ...Object.keys(RANGES).map((r) =>
                el(
                    "button",
                    {
                        type: "button",
                        title: RANGES[r],
                        onclick: () => {
                            setRange(r);
                            refresh();
                        },
                    },
                    r,
                ),
            ),
        );
        setRange(range, true);
        addEventListener("popstate", () => {
            const r = new URLSearchParams(location.search).get("range");
            setRange(r in RANGES ? r : "1h", true);
            refresh();
        });
        setTheme(store.get("costd-theme") || "");
        $("theme").addEventListener("change", (e) => {
            setTheme(e.target.value);
            store.set("costd-theme", e.target.value);
            if (data) showCharts(true);
        });
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data && showCharts(true));
        $("reference").value = reference;
        $("reference").addEventListener("input", (e) => {
            reference = Number(e.target.value) || 0;
            store.set("costd-reference", String(reference));
            if (data) showAll(false);
        });
        $("pause").addEventListener("click", (e) => {
            paused = !paused;
            e.target.setAttribute("aria-pressed", String(paused));
            if (!paused) refresh();
            else if (data) showAll(false);
        });
        $("locked").addEventListener("submit", (e) => {
            e.preventDefault();
            apiKey = $("key").value.trim();
            session.set("costd-key", apiKey);
            refresh();
        });
        $("copy-curl").addEventListener("click", (e) => copy($("curl").textContent, e.target));
        $("csv").addEventListener("click", () => data && save("costd-" + range + ".csv", "text/csv", csv()));
        $("json").addEventListener(
            "click",
            () =>
                data &&
                save(
                    "costd-" + range + ".json",
                    "application/json",
                    JSON.stringify({ ...data, requests: recent }, null, 1),
                ),
        );
        setInterval(() => {
            if (!paused && !document.hidden && !locked) refresh();
        }, EVERY_MS);
        setInterval(() => {
            if (lost) showBanners();
        }, 1000);
        document.addEventListener("visibilitychange", () => {
            if (!document.hidden && !paused) refresh();
        });
        refresh();
    }
    begin();
})();
