/* answer.js - the answer to the page's question: which model used how much of the bill, in a sentence, a bar and a
 * table.  The three have one denominator, the bill. */
import { amount, parts, priced, swatch, theWhole } from "./bill.js";
import { $, el, put } from "./dom.js";
import { money, percent, seconds, span } from "./format.js";
import { RANGES, state } from "./state.js";

const NARROW = 0.1; // a share of the bar that has no room for a text

const listed = (texts) => new Intl.ListFormat("en").format(texts);

function headline(list, total) {
    const best = list.find((p) => !p.kind),
        inRange = "in the " + RANGES[state.range];
    if (!best) return "No model is loaded yet.";
    if (best.value === 0) {
        const rest = listed(list.filter((p) => p.value > 0).map((p) => p.label)) || "nothing";
        return `No model was used ${inRange}; ${priced() ? "the bill of " + amount(total) : "all time"} is ${rest}.`;
    }
    const young = state.data.covered_seconds < state.data.range_seconds - 10;
    return (
        `${best.name} used ${percent(best.value / total)} of ${theWhole()}: ${amount(best.value)} of ${amount(total)} ` +
        inRange +
        (young ? ` (up for ${span(state.data.uptime_seconds)}).` : ".")
    );
}

/* All models together, and what else the bill consists of. */
function subline(list, total) {
    const models = list.filter((p) => !p.kind),
        used = models.reduce((s, p) => s + p.value, 0);
    if (used === 0 || models.length < 2) return "";
    const rest = list.filter((p) => p.kind && p.value > 0).map((p) => p.label + " (" + percent(p.value / total) + ")");
    const also = rest.length ? "; the rest is " + listed(rest) : "";
    return `The models together used ${percent(used / total)} of ${theWhole()}${also}.`;
}

function slice(part, total) {
    const share = part.value / total;
    return el(
        "div",
        {
            class: (part.kind || "") + (share < NARROW ? " narrow" : ""),
            style: { flexGrow: share, flexBasis: 0, ...(part.kind ? {} : { background: "var(--" + part.color + ")" }) },
            title: part.name + ": " + percent(share),
        },
        el("span", {}, percent(share) + " " + part.label),
    );
}

function row(name, about, value, time, total) {
    return el(
        "tr",
        {},
        el("th", { scope: "row", title: about }, ...name),
        el("td", {}, priced() ? money(value) : "no price set"),
        el("td", {}, percent(value / total)),
        el("td", {}, seconds(time)),
    );
}

export function showAnswer() {
    const list = parts(),
        total = list.reduce((s, p) => s + p.value, 0),
        time = list.reduce((s, p) => s + p.time, 0);
    put($("headline"), headline(list, total));
    put($("subline"), subline(list, total));
    $("bar").replaceChildren(...list.filter((p) => p.value > 0).map((p) => slice(p, total)));
    put($("amount-head"), priced() ? "Cost" : "Cost (no price set)");
    const shares = $("shares");
    shares.hidden = false;
    shares.tBodies[0].replaceChildren(
        ...list.map((p) => row([swatch(p.kind, p.color), p.name], p.about, p.value, p.time, total)),
    );
    shares.tFoot.replaceChildren(row([priced() ? "The bill" : "All time"], null, total, time, total));
}
