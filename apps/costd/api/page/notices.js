/* notices.js - what is not a figure: the machine's line, banners, the form for a key, and the first steps of a costd
 * without traffic.  One hidden status line says each state once to screen readers. */
import { hasKey, refresh } from "./ask.js";
import { perDay, priced } from "./bill.js";
import { $, el, put } from "./dom.js";
import { clock, money, span } from "./format.js";
import { state } from "./state.js";

/* ---- Banners --------------------------------------------------------------------------------------- */

const banner = (bad, text, ...more) =>
    el("div", { class: "banner" + (bad ? " bad" : "") }, el("span", {}, text), ...more);
const button = (text, onclick) => el("button", { type: "button", onclick }, text);

function lostBanner() {
    const ago = span((Date.now() - state.fetchedAt) / 1000);
    const text = state.data
        ? `Connection lost. The figures are from ${clock(state.fetchedAt / 1000)}, ${ago} ago; trying again.`
        : "costd does not answer; trying again.";
    return banner(true, text, button("Try now", refresh));
}

function restartedBanner() {
    const dismiss = () => {
        state.restarted = null;
        showBanners();
    };
    const text = `costd restarted; all counters and this page’s history began again at ${clock(state.restarted)}.`;
    return banner(false, text, button("Dismiss", dismiss));
}

/* Null within the budget. */
function budgetBanner() {
    if (!state.data || !state.data.daily_budget || !priced()) return null;
    const used = +state.data.day_total.serve_cost,
        budget = +state.data.daily_budget,
        pace = perDay(state.data.range_total.serve_cost);
    if (used > budget)
        return banner(
            true,
            `Over budget: serving cost ${money(used)} in the last 24 hours; the daily budget is ${money(budget)}.`,
        );
    if (pace > 2 * budget)
        return banner(
            false,
            `At this pace serving costs ${money(pace)} a day, over twice the daily budget of ${money(budget)}.`,
        );
    return null;
}

const sameShape = (a, b) => a.className === b.className && a.children.length === b.children.length;

function statusText(list) {
    if (state.locked) return "An API key is needed";
    if (state.lost) return "Connection lost";
    if (state.restarted) return "costd restarted";
    if (list.length) return list[0].textContent.split(":")[0];
    return state.data ? "Figures are up to date" : "Loading";
}

export function showBanners() {
    const wanted = [
        state.lost ? lostBanner() : null,
        state.restarted ? restartedBanner() : null,
        budgetBanner(),
    ].filter((b) => b);
    const shown = $("banners");
    const same = wanted.length === shown.children.length && wanted.every((b, i) => sameShape(b, shown.children[i]));
    /* Only the text changes from second to second, so that the focus stays on a button. */
    if (same) wanted.forEach((b, i) => put(shown.children[i].firstChild, b.firstChild.textContent));
    else shown.replaceChildren(...wanted);
    document.body.classList.toggle("stale", state.lost && !!state.data);
    put($("status"), statusText(wanted));
}

/* ---- Other states ------------------------------------------------------------------------------------ */

function lockReason() {
    if (state.forbidden) return "These are the figures of all keys; an admin key shows them.";
    if (hasKey()) return "costd does not know this key.";
    return "This costd was started with --keys. The key is kept in this tab only, until the tab is closed.";
}

/* What is being typed is left alone; a key that did not work is named as the reason for asking again. */
export function showLock() {
    const form = $("locked");
    if (state.locked) put($("key-note"), lockReason());
    if (state.locked && form.hidden) $("key").value = "";
    form.hidden = !state.locked;
}

/* In place of figures that have never come. */
export function showWaiting() {
    put($("headline"), state.locked ? "The figures need an API key." : "Waiting for costd…");
}

function firstRequest(model) {
    const path = "/v1/generate/" + encodeURIComponent(model ? model.name : "MODEL").replace(/'/g, "%27");
    return (
        `curl -s '${location.origin}${path}' \\\n` +
        "  -H 'Content-Type: application/json' \\\n" +
        '  -d \'{"prompt": "Once upon a time", "max_tokens": 50}\''
    );
}

export function showWelcome() {
    const { models } = state.data;
    const unused = models.every((m) => m.since_start.requests + m.running + m.waiting === 0);
    $("welcome").hidden = !unused;
    if (!unused) return;
    const model = models.find((m) => m.loaded);
    put(
        $("welcome-text"),
        model
            ? "costd is ready. Send it a first request; the figures follow within seconds."
            : "The models are being loaded. Then send a first request:",
    );
    put($("curl"), firstRequest(model));
}

export function showMachine() {
    const { basis, device, dollars_per_hour: price, uptime_seconds: uptime, version } = state.data;
    const unit = basis === "cpu" ? " a core-hour" : " an hour";
    const parts = [
        device.name,
        price == null ? "no price set" : money(+price) + unit,
        "up " + span(uptime),
        ...(state.paused ? ["paused"] : []),
    ];
    put($("machine"), parts.join(", "));
    $("machine").title = device.description + ", costd " + version;
}
