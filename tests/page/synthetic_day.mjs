/* An answer of /api/history as a busy day gives it: nine models, one with a hostile name, a restart's gap. */
export const HOSTILE = "<img src=x onerror=alert(1)>\"'&amp; and a name that goes on for a while, as they do";

export function syntheticDay(real, { unpriced = false } = {}) {
    const points = 180,
        step = 480,
        now = real.now,
        price = 2.5;
    const names = [
        "gpt2-xl",
        "gpt2-large",
        "stories-large",
        HOSTILE,
        "stories-small",
        "distilgpt2",
        "support-bot",
        "nightly-batch",
        "canary",
    ];
    const weights = [0.3, 0.16, 0.08, 0.05, 0.03, 0.02, 0.015, 0.01, 0];
    const gap = (i) => i >= 70 && i < 76;
    const wave = (i, k) => 0.55 + 0.45 * Math.sin(i / 25 + k) + 0.12 * Math.sin(i * 1.7 + k * 3);
    const cost = (s) => (unpriced ? 0 : (s * price) / 3600);
    const text = (x) => x.toFixed(12);
    const sumOf = (a) => a.reduce((s, x) => s + (x ?? 0), 0);
    const models = names.map((name, k) => {
        const line = (f) => Array.from({ length: points }, (_, i) => (gap(i) ? null : f(i)));
        const serve = line((i) => step * weights[k] * Math.max(0, wave(i, k)));
        const p = {
            serve_seconds: serve,
            serve_cost: serve.map((s) => (s == null ? null : cost(s))),
            input_tokens: serve.map((s) => (s == null ? null : Math.round(s * 900))),
            output_tokens: serve.map((s) => (s == null ? null : Math.round((s * 40) / (k + 1)))),
            requests: serve.map((s) => (s == null ? null : Math.round(s))),
            errors: line((i) => (i % 37 === k ? 3 : 0)),
            waiting: line((i) => Math.max(0, Math.round(4 * wave(i, k) - 3))),
            latency_p50: line((i) => (weights[k] ? 0.4 + k * 0.1 + 0.2 * wave(i, k) : null)),
            latency_p95: line((i) => (weights[k] ? 1.4 + k * 0.4 + wave(i, k) : null)),
            first_token_p50: line((i) => (weights[k] ? 0.05 + 0.02 * wave(i, k) : null)),
            first_token_p95: line((i) => (weights[k] ? 0.2 + 0.1 * wave(i, k) : null)),
        };
        const s = sumOf(serve),
            load = k ? 12 : 60;
        const sums = {
            serve_seconds: s,
            prefill_seconds: s * 0.2,
            decode_seconds: s * 0.8,
            load_seconds: load,
            unpriced_seconds: unpriced ? s : 0,
            serve_cost: text(cost(s)),
            load_cost: text(cost(load)),
            input_tokens: sumOf(p.input_tokens),
            cached_tokens: Math.round(sumOf(p.input_tokens) / 3),
            output_tokens: sumOf(p.output_tokens),
            requests: sumOf(p.requests),
            errors: sumOf(p.errors),
        };
        const latency = s ? { n: sums.requests, p50: 0.5 + k * 0.1, p95: k === 6 ? 100 : 1.9 + k * 0.4 } : null;
        return {
            name,
            loaded: k !== 7,
            running: k < 2 ? 3 : 0,
            waiting: k ? 0 : 5,
            since_start: sums,
            range: sums,
            latency,
            first_token: s ? { n: sums.requests, p50: 0.06, p95: 0.25 } : null,
            points: p,
        };
    });
    const busy = (i) => models.reduce((s, m) => s + m.points.serve_seconds[i], 0);
    const line = (f) => Array.from({ length: points }, (_, i) => (gap(i) ? null : f(i)));
    const load = line((i) => (i < 2 ? 60 : 0)),
        idle = line((i) => Math.max(0, step - busy(i) - (i < 2 ? 60 : 0) - (i === 40 ? 300 : 0) - 2));
    const account = (name, values) => ({
        [name + "_seconds"]: values,
        [name + "_cost"]: values.map((x) => (x == null ? null : cost(x))),
    });
    const serveAll = models.reduce((s, m) => s + m.range.serve_seconds, 0),
        loadAll = models.reduce((s, m) => s + m.range.load_seconds, 0);
    const lost = line((i) => (i === 40 ? 300 : 0)),
        overhead = line(() => 2);
    const lostAll = sumOf(lost),
        overheadAll = sumOf(overhead),
        idleAll = 86400 - serveAll - loadAll - lostAll - overheadAll;
    const total = {
        serve_seconds: serveAll,
        load_seconds: loadAll,
        idle_seconds: idleAll,
        lost_seconds: lostAll,
        overhead_seconds: overheadAll,
        unpriced_seconds: unpriced ? 86400 : 0,
        serve_cost: text(cost(serveAll)),
        load_cost: text(cost(loadAll)),
        idle_cost: text(cost(idleAll)),
        lost_cost: text(cost(lostAll)),
        overhead_cost: text(cost(overheadAll)),
        cost: text(cost(86400)),
    };
    return {
        ...real,
        run: "feedfacefeedface",
        range: "24h",
        range_seconds: 86400,
        uptime_seconds: 400000,
        covered_seconds: 86400,
        step_seconds: step,
        device: {
            name: "opencl:0:0",
            description: "An accelerator",
            gpu: true,
            memory_total_bytes: 24 * 2 ** 30,
            memory_used_bytes: 9.5 * 2 ** 30,
            process_bytes: 1.4e9,
        },
        dollars_per_hour: unpriced ? null : "2.500000000000",
        daily_budget: text((0.8 * serveAll * price) / 3600),
        since_start: total,
        range_total: total,
        day_total: total,
        times: Array.from({ length: points }, (_, i) => Math.round(now - (points - 1 - i) * step)),
        points: {
            serve_seconds: line(busy),
            ...account("load", load),
            ...account("idle", idle),
            ...account("lost", lost),
            ...account("overhead", overhead),
            device_bytes: line((i) => 9.5 * 2 ** 30 * Math.min(1, i / 12)),
            process_bytes: line(() => 1.4e9),
        },
        models,
    };
}
