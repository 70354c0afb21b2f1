/* ask.js - asks costd for its figures.  An answer that a later question has overtaken is dropped, so that the figures
 * shown are always those of the range chosen last. */
import { keptInTab, state } from "./state.js";

const TIMEOUT_MS = 8000;

let apiKey = keptInTab.get("costd-key") || "";
let views = null;
let asked = 0;

export const hasKey = () => apiKey !== "";

/* The key stays in this tab, until the tab is closed. */
export function useKey(key) {
    apiKey = key;
    keptInTab.set("costd-key", key);
}

/* `answered` is called with whether these are figures of another range or run; `failed` when there are none. */
export function setViews(answered, failed) {
    views = { answered, failed };
}

async function ask(path) {
    const headers = apiKey ? { Authorization: "Bearer " + apiKey } : {};
    const reply = await fetch(path, { headers, signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
    if (!reply.ok) throw Object.assign(new Error(path + ": " + reply.status), { status: reply.status });
    return reply.json();
}

export async function refresh() {
    const turn = ++asked;
    let history, list;
    try {
        [history, list] = await Promise.all([ask("api/history?range=" + state.range), ask("api/recent")]);
    } catch (e) {
        if (turn !== asked) return;
        state.locked = e.status === 401 || e.status === 403;
        state.forbidden = e.status === 403;
        state.lost = !state.locked;
        views.failed();
        return;
    }
    if (turn !== asked) return;
    const before = state.data,
        restarted = before !== null && before.run !== history.run;
    if (restarted) state.restarted = history.now - history.uptime_seconds;
    state.locked = state.lost = false;
    state.data = history;
    state.recent = list.requests;
    state.fetchedAt = Date.now();
    views.answered(!before || restarted || before.range !== history.range);
}
