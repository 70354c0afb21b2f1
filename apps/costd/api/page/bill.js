/* bill.js - what the bill consists of: the time that each model was served, and the accounts that no model caused.
 * All of it comes from exact totals; every share on the page has the whole bill as its denominator. */
import { el } from "./dom.js";
import { money, seconds } from "./format.js";
import { state } from "./state.js";

/* How many models have a colour of their own (--m0 to --m5 in page.css). */
const OWN_COLORS = 6;

/* Accounts of the device besides serving, in the order of the page.  /api/history gives KEY_seconds and KEY_cost of
 * each in its totals and points; the rare ones are not shown while they are empty.  Colour and pattern are --KEY and
 * .KEY in page.css. */
const ACCOUNTS = [
    { key: "load", name: "loading", about: "reading models", dash: [3, 3], fill: 0.45 },
    { key: "idle", name: "idle time", about: "no request was active", dash: [1, 3], fill: 0.14 },
    { key: "lost", name: "lost time", about: "the device could not run", dash: [6, 2], fill: 0.45, rare: true },
    {
        key: "overhead",
        name: "overhead",
        about: "CPU time outside the models’ steps",
        dash: [1, 2],
        fill: 0.45,
        rare: true,
    },
];

export const accounts = () => ACCOUNTS.filter((a) => !a.rare || state.data.range_total[a.key + "_seconds"] > 0);

export const deviceSeconds = (total) => accounts().reduce((s, a) => s + total[a.key + "_seconds"], total.serve_seconds);

/* Without any price, amounts and shares are of time. */
export const priced = () => state.data.dollars_per_hour != null || +state.data.range_total.cost > 0;
export const amountOf = (cost, time) => (priced() ? +cost : time);
export const amount = (x) => (priced() ? money(x) : seconds(x));
export const theWhole = () => (priced() ? "the bill" : "the time");

export const served = (m) => amountOf(m.range.serve_cost, m.range.serve_seconds);
export const whole = () => amountOf(state.data.range_total.cost, deviceSeconds(state.data.range_total));

/* What a day costs if it goes on as it did in the range. */
export const perDay = (cost) => (+cost / state.data.covered_seconds) * 86400;

/* ---- Models and their colours ------------------------------------------------------------------ */

const slots = new Map(); // a model's name to its colour
let slotsRun = null; // the run of costd that the slots belong to

/* The models that charts and the bar name.  A model keeps its colour while it is among them. */
export function topModels() {
    const { models, run } = state.data;
    const top = [...models].sort((a, b) => served(b) - served(a)).slice(0, OWN_COLORS);
    const names = top.map((m) => m.name);
    if (run !== slotsRun) slots.clear();
    slotsRun = run;
    if (models.length > OWN_COLORS) for (const name of [...slots.keys()]) if (!names.includes(name)) slots.delete(name);
    for (const m of models) {
        if (!names.includes(m.name) || slots.has(m.name)) continue;
        let slot = 0;
        while ([...slots.values()].includes(slot)) slot++;
        slots.set(m.name, slot % OWN_COLORS);
    }
    return models.filter((m) => names.includes(m.name));
}

export const otherModels = () => {
    const top = topModels();
    return state.data.models.filter((m) => !top.includes(m));
};

export const slotOf = (name) => slots.get(name);
export const colorOf = (name) => (slots.has(name) ? "m" + slots.get(name) : "others");

export const swatch = (kind, color) =>
    el("span", { class: "swatch " + (kind || ""), style: kind ? {} : { background: "var(--" + color + ")" } });

/* ---- The parts ----------------------------------------------------------------------------------- */

function partOfModels(name, models, color) {
    return {
        name,
        label: name,
        color,
        kind: null,
        about: null,
        time: models.reduce((s, m) => s + m.range.serve_seconds, 0),
        value: models.reduce((s, m) => s + served(m), 0),
    };
}

/* The parts that add up to the bill: models by what they used, then the accounts. */
export function parts() {
    const total = state.data.range_total,
        others = otherModels();
    const models = topModels().map((m) => partOfModels(m.name, [m], colorOf(m.name)));
    if (others.length) models.push(partOfModels(others.length + " other models", others, "others"));
    models.sort((a, b) => b.value - a.value);
    return [
        ...models,
        ...accounts().map((a) => ({
            name: a.name[0].toUpperCase() + a.name.slice(1),
            label: a.name,
            color: a.key,
            kind: a.key,
            about: a.about,
            time: total[a.key + "_seconds"],
            value: amountOf(total[a.key + "_cost"], total[a.key + "_seconds"]),
        })),
    ];
}
